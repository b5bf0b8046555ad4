/* SPDX-License-Identifier: BSD-2-Clause */
/* Pairing heap with two-pass merging. */
#include "core/heap.h"

/* Makes the one with the higher key the other's first child; either may be NULL. The links of the
 * result to its own siblings are the caller's. */
static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
    struct heap_node *top, *sub;

    if (!a || !b)
        return a ? a : b;
    top = heap_before(b->key, a->key) ? b : a;
    sub = top == a ? b : a;
    sub->prev = top;
    sub->next = top->child;
    if (sub->next)
        sub->next->prev = sub;
    top->child = sub;
    return top;
}

/* Merges a list of siblings into one tree: neighbours in pairs, then the pairs from the last to the
 * first. */
static struct heap_node *merge_siblings(struct heap_node *list)
{
    struct heap_node *pairs = NULL, *top = NULL;

    while (list) {
        struct heap_node *a = list, *b = a->next;

        list = b ? b->next : NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct heap_node *rest = pairs->next;

        top = meld(top, pairs);
        pairs = rest;
    }
    return top;
}

static void set_root(struct heap *h, struct heap_node *n)
{
    h->root = n;
    if (n) {
        n->prev = n;
        n->next = NULL;
    }
}

void heap_insert(struct heap *h, struct heap_node *n, u64 key)
{
    n->key = key;
    n->child = NULL;
    set_root(h, meld(h->root, n));
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    struct heap_node *sub = merge_siblings(n->child);

    if (n == h->root) {
        set_root(h, sub);
    } else {
        if (n->prev->child == n)
            n->prev->child = n->next;
        else
            n->prev->next = n->next;
        if (n->next)
            n->next->prev = n->prev;
        set_root(h, meld(h->root, sub));
    }
    n->prev = NULL;
}

struct heap_node *heap_next(const struct heap_node *n)
{
    if (n->child)
        return n->child;
    while (!n->next) {
        while (n->prev != n && n->prev->child != n)
            n = n->prev; /* back to the first sibling */
        if (n->prev == n)
            return NULL;
        n = n->prev;
    }
    return n->next;
}
