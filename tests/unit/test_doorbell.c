/* SPDX-License-Identifier: BSD-2-Clause */
/* Doorbells: which writes ring them, and the table's ends. */
// SOURCES: core/doorbell.c core/pool.c
#include "core/doorbell.h"
#include "core/abi.h"
#include "core/domain.h"
#include "core/errno.h"
#include "core/event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define POOL     64
#define CAPACITY 2048
#define MATCH    SOCLE_DOORBELL_MATCH
#define PIO      SOCLE_DOORBELL_PIO

static u8 *heap;
static struct domain d;
static u32 rung, raises; /* the last port, and how many in all */

void event_raise(u32 port)
{
    rung = port;
    raises++;
}

static int start(void **state)
{
    (void)state;
    if (!heap)
        heap = aligned_alloc(PAGE_SIZE, POOL * PAGE_SIZE);
    pool_init(heap, POOL * PAGE_SIZE, 0);
    memset(&d, 0, sizeof(d));
    d.charge.limit = ~0ull;
    raises = 0;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    doorbell_free_all(&d);
    assert_int_equal(d.charge.pages, 0);
    assert_null(d.doorbells);
    doorbell_free_all(&d);
    return 0;
}

static int add(u64 addr, u64 port, u64 len, u64 flags, u64 data)
{
    return doorbell_add(&d, addr, SOCLE_DOORBELL(port, len, flags), data);
}

static int drop(u64 addr, u64 len, u64 flags, u64 data)
{
    return doorbell_remove(&d, addr, SOCLE_DOORBELL(0, len, flags), data);
}

/* The port that a write rings, or -1. */
static int ring(u64 addr, u8 len, u64 data, bool pio)
{
    u32 before = raises;

    if (!doorbell_ring(&d, addr, len, data, pio)) {
        assert_int_equal(raises, before);
        return -1;
    }
    assert_int_equal(raises, before + 1);
    return (int)rung;
}

static void test_matches(void **state)
{
    (void)state;
    assert_int_equal(ring(0x1000, 4, 0, false), -1); /* no table yet */
    assert_int_equal(add(0x1000, 7, 4, 0, 99), 0);
    assert_int_equal(add(0x1000, 8, 2, MATCH, 5), 0);
    assert_int_equal(add(0x1000, 9, 2, MATCH, 6), 0);
    assert_int_equal(add(0x60, 10, 1, PIO, 0), 0);
    assert_int_equal(ring(0x1000, 4, 1234, false), 7);
    assert_int_equal(ring(0x1000, 2, 5, false), 8);
    assert_int_equal(ring(0x1000, 2, 6, false), 9);
    assert_int_equal(ring(0x1000, 2, 7, false), -1);
    assert_int_equal(ring(0x1000, 8, 5, false), -1);
    assert_int_equal(ring(0x1001, 4, 1234, false), -1);
    assert_int_equal(ring(0x1000, 4, 1234, true), -1);
    assert_int_equal(ring(0x60, 1, 3, true), 10);
    assert_int_equal(ring(0x60, 1, 3, false), -1);
}

static void test_any_length(void **state)
{
    (void)state;
    assert_int_equal(add(0x2000, 3, 0, 0, 0), 0);
    for (u8 len = 1; len <= 8; len *= 2)
        assert_int_equal(ring(0x2000, len, len, false), 3);
}

static void test_bad_values(void **state)
{
    static const u64 lengths[] = {3, 5, 6, 7, 9, 16, 255};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(lengths); i++)
        assert_int_equal(add(0, 0, lengths[i], 0, 0), -E_INVAL);
    assert_int_equal(add(0, 0, 0, MATCH, 0), -E_INVAL);
    for (u32 bit = 10; bit < 16; bit++)
        assert_int_equal(add(0, 0, 4, BIT(bit), 0), -E_INVAL);
    assert_int_equal(add(0, SOCLE_EVENT_PORTS, 4, 0, 0), -E_INVAL);
    assert_int_equal(add(0, 1ull << 47, 4, 0, 0), -E_INVAL);
    assert_int_equal(drop(0, 3, 0, 0), -E_INVAL);
    assert_int_equal(d.charge.pages, 0); /* nothing was taken for them */
    assert_int_equal(add(0, SOCLE_EVENT_PORTS - 1, 4, 0, 0), 0);
}

static void test_duplicates_and_removal(void **state)
{
    (void)state;
    assert_int_equal(drop(0x1000, 4, 0, 0), -E_NOENT);
    assert_int_equal(add(0x1000, 1, 4, 0, 0), 0);
    assert_int_equal(add(0x1000, 2, 4, 0, 0), -E_EXIST);
    assert_int_equal(add(0x1000, 2, 4, 0, 77), -E_EXIST); /* data means nothing here */
    assert_int_equal(add(0x1000, 2, 4, MATCH, 0), 0);
    assert_int_equal(add(0x1000, 3, 4, PIO, 0), 0);
    assert_int_equal(drop(0x1000, 2, 0, 0), -E_NOENT);
    assert_int_equal(drop(0x1000, 4, 0, 0), 0);
    assert_int_equal(drop(0x1000, 4, 0, 0), -E_NOENT);
    assert_int_equal(ring(0x1000, 4, 1, false), -1);
    assert_int_equal(ring(0x1000, 4, 0, false), 2);
    assert_int_equal(ring(0x1000, 4, 1, true), 3);
}

/* More than the heads of the hash, so chains are long; removed in another order than added. */
static void test_full_table(void **state)
{
    (void)state;
    for (u32 i = 0; i < CAPACITY; i++)
        assert_int_equal(add(0x1000 + i * 8ull, i, 4, 0, 0), 0);
    assert_int_equal(add(0, 1, 4, 0, 0), -E_NOSPC);
    for (u32 i = 0; i < CAPACITY; i++)
        assert_int_equal(ring(0x1000 + i * 8ull, 4, 0, false), i);
    for (u32 i = 0; i < CAPACITY; i += 3)
        assert_int_equal(drop(0x1000 + i * 8ull, 4, 0, 0), 0);
    for (u32 i = 0; i < CAPACITY; i++)
        assert_int_equal(ring(0x1000 + i * 8ull, 4, 0, false), i % 3 ? (int)i : -1);
    for (u32 i = 0; i < CAPACITY; i += 3)
        assert_int_equal(add(0x1000 + i * 8ull, i + 1, 4, 0, 0), 0);
    assert_int_equal(add(0, 1, 4, 0, 0), -E_NOSPC);
    assert_int_equal(ring(0x1000 + 3 * 8, 4, 0, false), 4);
}

/* Without memory for the table, and for its second page of entries. */
static void test_no_memory(void **state)
{
    (void)state;
    d.charge.limit = 0;
    assert_int_equal(add(0, 1, 4, 0, 0), -E_NOMEM);
    d.charge.limit = 1;
    assert_int_equal(add(0, 1, 4, 0, 0), -E_NOMEM);
    d.charge.limit = 2;
    for (u32 i = 0; i < 128; i++)
        assert_int_equal(add(i, 1, 4, 0, 0), 0);
    assert_int_equal(add(128, 1, 4, 0, 0), -E_NOMEM);
    assert_int_equal(drop(5, 4, 0, 0), 0);
    assert_int_equal(add(128, 6, 4, 0, 0), 0);
    assert_int_equal(ring(128, 4, 0, false), 6);
    assert_int_equal(d.charge.pages, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_matches, start, stop),
        cmocka_unit_test_setup_teardown(test_any_length, start, stop),
        cmocka_unit_test_setup_teardown(test_bad_values, start, stop),
        cmocka_unit_test_setup_teardown(test_duplicates_and_removal, start, stop),
        cmocka_unit_test_setup_teardown(test_full_table, start, stop),
        cmocka_unit_test_setup_teardown(test_no_memory, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
