/* SPDX-License-Identifier: BSD-2-Clause */
/* Skew heap (Sleator and Tarjan, "Self-adjusting heaps", 1986) with parent links. */
#include "core/heap.h"

static struct heap_node above; /* every root's parent; only its address counts */

/* Merges two heaps, which may be empty, into one below `parent`, at `link`. Each node on the way
 * swaps its children: that keeps the ways short, in the long run. */
static void merge(struct heap_node **link, struct heap_node *parent, struct heap_node *a,
                  struct heap_node *b)
{
    while (a && b) {
        struct heap_node *top = heap_before(b->key, a->key) ? b : a;

        b = top == a ? b : a;
        a = top->child[1];
        top->child[1] = top->child[0];
        top->parent = parent;
        *link = top;
        link = &top->child[0];
        parent = top;
    }
    *link = a ? a : b;
    if (*link)
        (*link)->parent = parent;
}

void heap_insert(struct heap *h, struct heap_node *n, u64 key)
{
    *n = (struct heap_node){.key = key};
    merge(&h->root, &above, h->root, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    struct heap_node *up = n->parent;
    struct heap_node **link = n == h->root ? &h->root : &up->child[up->child[1] == n];

    merge(link, up, n->child[0], n->child[1]);
    n->parent = NULL;
}

struct heap_node *heap_next(const struct heap_node *n)
{
    if (n->child[0] || n->child[1])
        return n->child[0] ? n->child[0] : n->child[1];
    for (; n->parent != &above; n = n->parent)
        if (n == n->parent->child[0] && n->parent->child[1])
            return n->parent->child[1];
    return NULL;
}
