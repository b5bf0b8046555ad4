/* SPDX-License-Identifier: BSD-2-Clause */
/* The functions with libc's names, as the freestanding build has them, against libc's own. */
// SOURCES: core/lib.c
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

/* A second copy of core/lib.c, freestanding and under other names. */
#undef SOCLE_HOST
#define memcpy         own_memcpy
#define memmove        own_memmove
#define memset         own_memset
#define memcmp         own_memcmp
#define strlen         own_strlen
#define strcmp         own_strcmp
#define strncmp        own_strncmp
#define fmt_print      own_fmt_print
#define fmt_vprint     own_fmt_vprint
#define cmdline_option own_cmdline_option
#define parse_u64      own_parse_u64
#include "core/lib.c"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef strlen
#undef strcmp
#undef strncmp

static void fill(u8 *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (u8)(i * 7 + 1);
}

static void test_moves(void **state)
{
    u8 ours[64], libc[64];

    (void)state;
    for (size_t from = 0; from < 20; from++) {
        for (size_t to = 0; to < 20; to++) {
            for (size_t n = 0; n < 40; n++) {
                fill(ours, sizeof(ours));
                fill(libc, sizeof(libc));
                assert_ptr_equal(own_memmove(ours + to, ours + from, n), ours + to);
                memmove(libc + to, libc + from, n);
                assert_memory_equal(ours, libc, sizeof(ours));
            }
        }
    }
    memset(libc, 0, sizeof(libc));
    own_memset(ours, 0xa5, sizeof(ours));
    assert_ptr_equal(own_memcpy(ours + 3, libc, 50), ours + 3);
    assert_int_equal(ours[2], 0xa5);
    assert_int_equal(ours[3], 0);
    assert_int_equal(ours[52], 0);
    assert_int_equal(ours[53], 0xa5);
    assert_ptr_equal(own_memset(ours, 0, 0), ours);
    assert_int_equal(ours[0], 0xa5);
}

static int sign(int v)
{
    return (v > 0) - (v < 0);
}

static void test_compares(void **state)
{
    static const char *const s[] = {"", "a", "ab", "abc", "abd", "b", "\xff", "a\xff"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
        assert_int_equal(own_strlen(s[i]), strlen(s[i]));
        for (size_t k = 0; k < ARRAY_SIZE(s); k++) {
            size_t both = MIN(strlen(s[i]), strlen(s[k])) + 1;

            assert_int_equal(sign(own_strcmp(s[i], s[k])), sign(strcmp(s[i], s[k])));
            for (size_t n = 0; n < 5; n++)
                assert_int_equal(sign(own_strncmp(s[i], s[k], n)), sign(strncmp(s[i], s[k], n)));
            for (size_t n = 0; n <= both; n++)
                assert_int_equal(sign(own_memcmp(s[i], s[k], MIN(n, both))),
                                 sign(memcmp(s[i], s[k], MIN(n, both))));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_compares),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
