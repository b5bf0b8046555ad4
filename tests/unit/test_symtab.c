/* SPDX-License-Identifier: BSD-2-Clause */
/* Looking up function names by address. */
// SOURCES: core/symtab.c
#include "core/symtab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define HIGH 0xffffffff00000000ull

extern const u32 symtab_count, symtab[][2];
extern const char symtab_strings[];

const u32 symtab_count = 4;
const u32 symtab[][2] = {{0x80100000, 0}, {0x80100020, 4}, {0x80100100, 8}, {0x80100180, 14}};
const char symtab_strings[] = "one\0two\0three\0";

static void finds_the_function_that_holds_an_address(void **state)
{
    u64 offset = 99;

    (void)state;
    assert_string_equal(symtab_lookup(HIGH | 0x80100000, &offset), "one");
    assert_int_equal(offset, 0);
    assert_string_equal(symtab_lookup(HIGH | 0x8010001f, &offset), "one");
    assert_int_equal(offset, 0x1f);
    assert_string_equal(symtab_lookup(HIGH | 0x80100020, &offset), "two");
    assert_int_equal(offset, 0);
    assert_string_equal(symtab_lookup(HIGH | 0x8010017f, &offset), "three");
    assert_int_equal(offset, 0x7f);
}

static void knows_nothing_outside_the_code(void **state)
{
    u64 offset;

    (void)state;
    assert_null(symtab_lookup(0, &offset));
    assert_null(symtab_lookup(0x80100000, &offset));
    assert_null(symtab_lookup(HIGH | 0x800fffff, &offset));
    assert_null(symtab_lookup(HIGH | 0x80100180, &offset));
    assert_null(symtab_lookup(~0ull, &offset));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_function_that_holds_an_address),
        cmocka_unit_test(knows_nothing_outside_the_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
