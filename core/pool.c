/* SPDX-License-Identifier: BSD-2-Clause */
/* The page heap: a list of freed pages, and the pages never used yet behind it. */
#include "core/pool.h"

#include "core/lib.h"
#include "core/panic.h"
#include "core/spinlock.h"

static struct {
    struct spinlock lock;
    u8 *base;
    u64 total; /* pages from base, the bitmap's own and the table's included */
    u64 fresh; /* index of the first page never handed out */
    u64 free;
    void *list; /* freed pages: each begins with the address of the next one */
    /* A bit per page: handed out. It tells a double free; a pattern in the page itself could be
     * forged by a guest whose state lives there. */
    u64 *used;
} pool;

void *pool_init(void *base, u64 bytes, u64 table_bytes)
{
    u64 total = bytes >> PAGE_SHIFT;
    u64 map_bytes = ALIGN_UP(total / 8 + 1, PAGE_SIZE);
    u64 taken = map_bytes + ALIGN_UP(table_bytes, PAGE_SIZE);

    ASSERT(IS_ALIGNED((u64)base, PAGE_SIZE) && table_bytes < bytes && taken < bytes);
    pool.base = base;
    pool.total = total;
    pool.fresh = taken >> PAGE_SHIFT;
    pool.free = total - pool.fresh;
    pool.list = NULL;
    pool.used = memset(base, 0, taken);
    return pool.base + map_bytes;
}

static u8 *take_page(void)
{
    u8 *page = pool.list;

    if (page)
        pool.list = *(void **)page;
    else if (pool.fresh < pool.total)
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

    if (!page)
        return;
    ASSERT(IS_ALIGNED(offset, PAGE_SIZE) && index < pool.total);
    spin_lock(&pool.lock);
    ASSERT(pool.used[index / 64] & BIT(index % 64));
    pool.used[index / 64] &= ~BIT(index % 64);
    *(void **)page = pool.list;
    pool.list = page;
    pool.free++;
    if (charge) {
        ASSERT(charge->pages);
        charge->pages--;
    }
    spin_unlock(&pool.lock);
}

u64 pool_free_pages(void)
{
    return __atomic_load_n(&pool.free, __ATOMIC_RELAXED);
}

u64 pool_total_pages(void)
{
    return pool.total;
}
