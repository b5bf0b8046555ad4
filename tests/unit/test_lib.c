/* SPDX-License-Identifier: BSD-2-Clause */
/* Formatting, command line options, numbers. */
// SOURCES: core/lib.c
#include "core/lib.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define CHECK_FMT(...)                                               \
    do {                                                             \
        char ours[96], libc[96];                                     \
        assert_int_equal(fmt_print(ours, sizeof(ours), __VA_ARGS__), \
                         snprintf(libc, sizeof(libc), __VA_ARGS__)); \
        assert_string_equal(ours, libc);                             \
    } while (0)

static void test_fmt_as_libc(void **state)
{
    (void)state;
    CHECK_FMT("plain %% %s", "a");
    CHECK_FMT("[%s] [%8s]", "one", "two");
    CHECK_FMT("%d %5d %05d %d", 0, -42, -42, INT32_MIN);
    CHECK_FMT("%u %x %08x %lx %016lx", 7u, 0xbeefu, 0xbeefu, ~0ul, 0x1234ul);
    CHECK_FMT("%ld %lld %llu %zu %lu", INT64_MIN, -5ll, ~0ull, (size_t)99, ~0ul);
    CHECK_FMT("%20lu|", ~0ul);
}

static void test_fmt_bounds(void **state)
{
    const char *volatile none = NULL;
    char buf[8];

    (void)state;
    assert_int_equal(fmt_print(buf, sizeof(buf), "%s", "0123456789"), 10);
    assert_string_equal(buf, "0123456");
    assert_int_equal(fmt_print(buf, 1, "abc"), 3);
    assert_string_equal(buf, "");
    assert_int_equal(fmt_print(NULL, 0, "%d", 123), 3);
    assert_int_equal(fmt_print(buf, sizeof(buf), "%s", none), 6);
    assert_string_equal(buf, "(null)");
}

static void test_cmdline(void **state)
{
    const char *line = "  serial=com2 debug dom0_mem=512M debugger=no serial=off empty=";
    char v[8];

    (void)state;
    assert_true(cmdline_option(line, "serial", v, sizeof(v)));
    assert_string_equal(v, "off");
    assert_true(cmdline_option(line, "debug", v, sizeof(v)));
    assert_string_equal(v, "");
    assert_true(cmdline_option(line, "empty", v, sizeof(v)));
    assert_string_equal(v, "");
    assert_true(cmdline_option(line, "dom0_mem", v, 3));
    assert_string_equal(v, "51");
    assert_true(cmdline_option(line, "debug", NULL, 0));
    assert_false(cmdline_option(line, "debu", v, sizeof(v)));
    assert_false(cmdline_option(line, "com2", v, sizeof(v)));
    assert_false(cmdline_option("", "debug", v, sizeof(v)));
    assert_false(cmdline_option("   ", "debug", v, sizeof(v)));
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        u64 value;
    } good[] = {{"0", 0},        {"42", 42},         {"4K", 4096},
                {"2m", 2 << 20}, {"3G", 3ull << 30}, {"18446744073709551615", UINT64_MAX}};
    static const char *const bad[] = {"",
                                      "x",
                                      "0x",
                                      "-1",
                                      " 1",
                                      "1 ",
                                      "12q",
                                      "1KK",
                                      "K",
                                      "0xg",
                                      "18446744073709551616",
                                      "0x10000000000000000",
                                      "18014398509481984K"};
    u64 v = 1;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(parse_u64(good[i].text, &v), 0);
        assert_int_equal(v, good[i].value);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_true(parse_u64(bad[i], &v) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fmt_as_libc),
        cmocka_unit_test(test_fmt_bounds),
        cmocka_unit_test(test_cmdline),
        cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
