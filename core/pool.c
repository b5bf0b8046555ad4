/* SPDX-License-Identifier: BSD-2-Clause */
/* The page heap: a list of freed pages, and the pages never used yet behind it. */
#include "core/pool.h"

#include "core/lib.h"
#include "core/panic.h"
#include "core/spinlock.h"

struct free_page {
    struct free_page *next;
};

static struct {
    struct spinlock lock;
    u8 *base;
    u64 total; /* pages from base, the bitmap's own included */
    u64 fresh; /* index of the first page never handed out */
    u64 end;   /* pages from here on went to pool_alloc_contig() */
    u64 free;
    struct free_page *list;
    /* A bit per page: handed out. It tells a double free; a pattern in the page itself could be
     * forged by a guest whose state lives there. */
    u64 *used;
} pool;

void pool_init(void *base, u64 bytes)
{
    u64 total = bytes >> PAGE_SHIFT;
    u64 map_bytes = ALIGN_UP(total / 8 + 1, PAGE_SIZE);

    ASSERT(IS_ALIGNED((u64)base, PAGE_SIZE) && map_bytes < bytes);
    pool.base = base;
    pool.total = total;
    pool.fresh = map_bytes >> PAGE_SHIFT;
    pool.end = total;
    pool.free = pool.end - pool.fresh;
    pool.list = NULL;
    pool.used = base;
    memset(pool.used, 0, map_bytes);
}

static u8 *take_page(void)
{
    u8 *page = (u8 *)pool.list;

    if (page)
        pool.list = pool.list->next;
    else if (pool.fresh < pool.end)
        page = pool.base + (pool.fresh++ << PAGE_SHIFT);
    return page;
}

void *pool_alloc(struct charge *charge)
{
    u8 *page = NULL;

    spin_lock(&pool.lock);
    if (!charge || charge->pages < charge->limit)
        page = take_page();
    if (page) {
        u64 index = (u64)(page - pool.base) >> PAGE_SHIFT;

        ASSERT(!(pool.used[index / 64] & BIT(index % 64)));
        pool.used[index / 64] |= BIT(index % 64);
        pool.free--;
        if (charge)
            charge->pages++;
    }
    spin_unlock(&pool.lock);
    if (page)
        memset(page, 0, PAGE_SIZE);
    return page;
}

void pool_free(void *page, struct charge *charge)
{
    u64 offset = (u64)page - (u64)pool.base;
    u64 index = offset >> PAGE_SHIFT;
    struct free_page *entry = page;

    ASSERT(IS_ALIGNED(offset, PAGE_SIZE) && index < pool.end);
    spin_lock(&pool.lock);
    ASSERT(pool.used[index / 64] & BIT(index % 64));
    pool.used[index / 64] &= ~BIT(index % 64);
    entry->next = pool.list;
    pool.list = entry;
    pool.free++;
    if (charge) {
        ASSERT(charge->pages);
        charge->pages--;
    }
    spin_unlock(&pool.lock);
}

void *pool_alloc_contig(u64 bytes)
{
    u64 pages = ALIGN_UP(bytes, PAGE_SIZE) >> PAGE_SHIFT;
    u8 *start = NULL;

    spin_lock(&pool.lock);
    if (bytes && bytes <= pool.total << PAGE_SHIFT && pages <= pool.end - pool.fresh) {
        pool.end -= pages;
        pool.free -= pages;
        start = pool.base + (pool.end << PAGE_SHIFT);
    }
    spin_unlock(&pool.lock);
    if (start)
        memset(start, 0, pages << PAGE_SHIFT);
    return start;
}

u64 pool_free_pages(void)
{
    return __atomic_load_n(&pool.free, __ATOMIC_RELAXED);
}

u64 pool_total_pages(void)
{
    return pool.total;
}
