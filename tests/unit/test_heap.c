/* SPDX-License-Identifier: BSD-2-Clause */
/* The heap against a plain array. */
// SOURCES: core/heap.c
#include "core/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define NODES 1000

static struct heap_node *heap_pop(struct heap *h)
{
    struct heap_node *n = heap_first(h);

    if (n)
        heap_remove(h, n);
    return n;
}

static struct heap_node nodes[NODES];

static u64 next_random(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static int reset(void **state)
{
    (void)state;
    memset(nodes, 0, sizeof(nodes));
    return 0;
}

/* Walks the heap: returns the number of nodes, checks the order of each with its parent's. */
static int check_walk(const struct heap *h)
{
    int count = 0;

    for (struct heap_node *n = heap_first(h); n; n = heap_next(n)) {
        assert_true(heap_queued(n));
        assert_false(heap_before(n->key, heap_first(h)->key));
        for (u32 i = 0; i < ARRAY_SIZE(n->child); i++)
            assert_false(n->child[i] && heap_before(n->child[i]->key, n->key));
        assert_true(++count <= NODES);
    }
    return count;
}

static void an_empty_heap_has_nothing(void **state)
{
    struct heap h = {0};

    (void)state;
    assert_null(heap_first(&h));
    assert_null(heap_pop(&h));
    assert_false(heap_queued(&nodes[0]));
}

static void pops_in_order(void **state)
{
    struct heap h = {0};
    u64 seed = 7, last = 0;

    (void)state;
    for (int i = 0; i < NODES; i++)
        heap_insert(&h, &nodes[i], next_random(&seed) % 500);
    assert_int_equal(check_walk(&h), NODES);
    for (int i = 0; i < NODES; i++) {
        struct heap_node *n = heap_pop(&h);

        assert_non_null(n);
        assert_false(heap_queued(n));
        assert_true(n->key >= last);
        last = n->key;
    }
    assert_null(heap_pop(&h));
}

static void keys_may_wrap(void **state)
{
    struct heap h = {0};

    (void)state;
    for (int i = 0; i < 100; i++)
        heap_insert(&h, &nodes[(i * 37) % 100], (u64)((i * 37) % 100) - 50);
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(heap_pop(&h), &nodes[i]);
}

static u64 lowest_key(void)
{
    u64 best = ~0ull;

    for (int i = 0; i < NODES; i++)
        if (heap_queued(&nodes[i]) && nodes[i].key < best)
            best = nodes[i].key;
    return best;
}

static void any_node_can_go(void **state)
{
    struct heap h = {0};
    u64 seed = 99;
    int count = 0;

    (void)state;
    for (int step = 0; step < 20000; step++) {
        struct heap_node *n = &nodes[next_random(&seed) % NODES];

        if (step % 11 == 0 && heap_first(&h)) {
            assert_false(heap_before(lowest_key(), heap_first(&h)->key));
            heap_pop(&h);
            count--;
        } else if (heap_queued(n)) {
            heap_remove(&h, n);
            assert_false(heap_queued(n));
            count--;
        } else {
            heap_insert(&h, n, next_random(&seed) % 5000);
            count++;
        }
        if (step % 100 == 0)
            assert_int_equal(check_walk(&h), count);
    }
    while (heap_pop(&h))
        count--;
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_heap_has_nothing, reset),
        cmocka_unit_test_setup(pops_in_order, reset),
        cmocka_unit_test_setup(keys_may_wrap, reset),
        cmocka_unit_test_setup(any_node_can_go, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
