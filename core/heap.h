/* SPDX-License-Identifier: BSD-2-Clause */
/* An intrusive skew heap: the lowest key first, in memory that the caller owns. For the
 * scheduler's queues and timers, and for anyone who needs an ordered set; the caller locks.
 * Insertion and removal are O(log n) amortised and O(n) at worst, without recursion.
 *
 * Keys are compared modulo 2^64: all keys in a heap at a time must lie within 2^63 of each other.
 */
#pragma once

#include "core/types.h"

/* Zeroed: in no heap. */
struct heap_node {
    u64 key;
    struct heap_node *child[2];
    struct heap_node *parent; /* not NULL for the root either */
};

/* Zeroed: empty. */
struct heap {
    struct heap_node *root;
};

/* True when key a comes before key b. */
static inline bool heap_before(u64 a, u64 b)
{
    return (s64)(a - b) < 0;
}

/* The node with the lowest key, or NULL. */
static inline struct heap_node *heap_first(const struct heap *h)
{
    return h->root;
}

static inline bool heap_queued(const struct heap_node *n)
{
    return n->parent != NULL;
}

/* Adds n, which must be in no heap. */
void heap_insert(struct heap *h, struct heap_node *n, u64 key);

/* Takes n, which must be in h, out of it. */
void heap_remove(struct heap *h, struct heap_node *n);

/* The node after n in a walk over all nodes from heap_first() on, parents before children; NULL at
 * the end. The heap must not change meanwhile. */
struct heap_node *heap_next(const struct heap_node *n);
