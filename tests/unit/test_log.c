/* SPDX-License-Identifier: BSD-2-Clause */
/* The log's lines, ring and limit. */
// SOURCES: core/log.c core/lib.c
#include "core/log.h"
#include "core/lib.h"

#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

static u64 fake_us;
static char last[512];
static u32 lines;

static u64 fake_clock(void)
{
    return fake_us * 1000;
}

static void fake_sink(const char *text, size_t len)
{
    assert_in_range(len, 1, sizeof(last) - 1);
    memcpy(last, text, len);
    last[len] = 0;
    lines++;
}

static int setup(void **state)
{
    (void)state;
    fake_us = 0;
    log_clock = fake_clock;
    log_sink = fake_sink;
    lines = 0;
    return 0;
}

static void test_line(void **state)
{
    char long_text[400];

    (void)state;
    fake_us = 12345678;
    log_info("hello %d", 5);
    assert_string_equal(last, "[   12.345678] socle: hello 5\n");
    log_clock = NULL;
    log_warn("careful");
    assert_string_equal(last, "[    0.000000] socle: warning: careful\n");
    log_error("no");
    assert_string_equal(last, "[    0.000000] socle: error: no\n");
    log_emergency("end");
    assert_string_equal(last, "[    0.000000] socle: end\n");
    log_info("a\nb\033[2J\x7f");
    assert_string_equal(last, "[    0.000000] socle: a?b?[2J?\n");
    memset(long_text, 'x', sizeof(long_text));
    long_text[399] = 0;
    log_info("%s", long_text);
    assert_int_equal(strlen(last), strlen("[    0.000000] socle: ") + 240 + 1);
    assert_int_equal(last[strlen(last) - 1], '\n');
}

static void test_ring(void **state)
{
    static char all[70000];
    u64 pos = 0, first;
    char buf[100];
    size_t n;

    (void)state;
    while (log_read(&pos, all, sizeof(all)))
        ;
    first = pos;
    log_info("one");
    n = log_read(&pos, buf, 10);
    assert_int_equal(n, 10);
    assert_int_equal(pos, first + 10);
    n += log_read(&pos, buf + 10, sizeof(buf) - 10);
    assert_memory_equal(buf, last, n);
    assert_int_equal(n, strlen(last));
    assert_int_equal(log_read(&pos, buf, sizeof(buf)), 0);

    /* A reader that was overtaken goes on at the oldest byte; one from the future at the newest. */
    for (int i = 0; i < 3000; i++)
        log_info("line number %d of the flood", i);
    n = log_read(&pos, all, sizeof(all));
    assert_int_equal(n, 65536);
    assert_memory_equal(all + n - strlen(last), last, strlen(last));
    first = pos;
    pos = UINT64_MAX;
    assert_int_equal(log_read(&pos, all, sizeof(all)), 0);
    assert_int_equal(pos, first);
}

static void test_limit(void **state)
{
    struct log_limit limit = {0};
    u32 passed = 0;

    (void)state;
    fake_us = 50000000;
    for (int i = 0; i < 1000; i++)
        passed += log_allowed(&limit);
    assert_int_equal(passed, 20);
    assert_int_equal(lines, 0);
    fake_us += 199999;
    assert_false(log_allowed(&limit));
    fake_us += 1;
    assert_true(log_allowed(&limit));
    assert_int_equal(lines, 1);
    assert_non_null(strstr(last, "981 lines like the next one were left out"));
    assert_false(log_allowed(&limit));

    /* 5 a second, however often it is asked. */
    passed = 0;
    for (int i = 0; i < 10000; i++) {
        fake_us += 1000;
        passed += log_allowed(&limit);
    }
    assert_in_range(passed, 49, 51);
    fake_us += 60000000;
    for (int i = passed = 0; i < 100; i++)
        passed += log_allowed(&limit);
    assert_int_equal(passed, 20);
    fake_us = 0; /* a clock that goes back */
    assert_false(log_allowed(&limit));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_line, setup),
        cmocka_unit_test_setup(test_ring, setup),
        cmocka_unit_test_setup(test_limit, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
