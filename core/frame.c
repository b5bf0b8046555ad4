/* SPDX-License-Identifier: BSD-2-Clause */
/* Ownership and lend counts of frames. */
#include "core/frame.h"

#include "core/panic.h"
#include "core/spinlock.h"

struct group {
    struct spinlock lock;
    u32 lends; /* large leaves that map all of it */
    u32 pages; /* mappings in 4 KiB pages: 512 * lends + the sum of maps; no single count can pass
                  it */
    u16 owned[FRAME_DOM0 + 1]; /* frames of each owner */
};

static struct frame *frames;
static struct group *groups;
static pfn_t frame_end;
static u64 lent;

static u64 group_count(pfn_t max_pfn)
{
    return (max_pfn + FRAME_GROUP - 1) / FRAME_GROUP;
}

u64 frame_table_bytes(pfn_t max_pfn)
{
    return max_pfn * sizeof(struct frame) + group_count(max_pfn) * sizeof(struct group);
}

void frame_init(void *table, pfn_t max_pfn)
{
    frames = table;
    groups = (struct group *)(frames + max_pfn);
    frame_end = max_pfn;
    lent = 0;
    for (u64 i = 0; i < group_count(max_pfn); i++)
        groups[i].owned[FRAME_NONE] = FRAME_GROUP;
}

static bool in_table(pfn_t pfn, u64 n)
{
    return pfn < frame_end && n <= frame_end - pfn;
}

/* How many of n frames from pfn lie in pfn's group. */
static u64 in_group(pfn_t pfn, u64 n)
{
    return MIN(n, FRAME_GROUP - pfn % FRAME_GROUP);
}

static struct group *group_of(pfn_t pfn)
{
    return &groups[pfn / FRAME_GROUP];
}

u16 frame_owner(pfn_t pfn)
{
    return pfn < frame_end ? frames[pfn].owner : FRAME_NONE;
}

void frame_set_owner_range(pfn_t pfn, u64 n, u16 owner)
{
    ASSERT(in_table(pfn, n));
    for (; n; pfn++, n--) {
        struct group *g = group_of(pfn);
        struct frame *f = &frames[pfn];

        ASSERT(!f->maps && !g->lends);
        g->owned[f->owner]--;
        g->owned[owner]++;
        f->owner = owner;
    }
}

/* n frames of one group: all dom0's, or with `holes` some no RAM. */
static bool all_dom0(pfn_t pfn, u64 n, bool holes)
{
    const struct group *g = group_of(pfn);
    u32 good = g->owned[FRAME_DOM0] + (holes ? g->owned[FRAME_NONE] : 0);

    while (good < FRAME_GROUP && n-- > 0) {
        u16 owner = frame_owner(pfn + n);

        if (owner != FRAME_DOM0 && !(holes && owner == FRAME_NONE))
            return false;
    }
    return true;
}

int frame_check(pfn_t pfn, u64 n, bool holes)
{
    if (holes)
        n = pfn < frame_end ? MIN(n, frame_end - pfn) : 0;
    else if (!in_table(pfn, n))
        return -E_PERM;
    for (u64 step; n; pfn += step, n -= step) {
        step = in_group(pfn, n);
        if (!all_dom0(pfn, step, holes))
            return -E_PERM;
    }
    return 0;
}

/* Adds sign * n mappings within one group whose lock is held. */
static void add_maps(struct group *g, pfn_t pfn, u64 n, bool huge, int sign)
{
    g->pages += sign * (int)n;
    __atomic_fetch_add(&lent, (u64)(sign * (s64)n), __ATOMIC_RELAXED);
    if (huge) {
        ASSERT(sign > 0 || g->lends);
        g->lends += sign;
        return;
    }
    for (u64 i = 0; i < n; i++) {
        ASSERT(sign > 0 || frames[pfn + i].maps);
        frames[pfn + i].maps += sign;
    }
}

static int lend_in_group(pfn_t pfn, u64 n, bool huge)
{
    struct group *g = group_of(pfn);
    int err = 0;

    spin_lock(&g->lock);
    if (!all_dom0(pfn, n, false))
        err = -E_PERM;
    else if (n > UINT32_MAX - g->pages)
        err = -E_OVERFLOW;
    else
        add_maps(g, pfn, n, huge, 1);
    spin_unlock(&g->lock);
    return err;
}

void frame_unlend(pfn_t pfn, u64 n, bool huge)
{
    ASSERT(in_table(pfn, n) && (!huge || IS_ALIGNED(pfn | n, FRAME_GROUP)));
    for (u64 step; n; pfn += step, n -= step) {
        struct group *g = group_of(pfn);

        step = in_group(pfn, n);
        spin_lock(&g->lock);
        add_maps(g, pfn, step, huge, -1);
        spin_unlock(&g->lock);
    }
}

int frame_lend(pfn_t pfn, u64 n, bool huge)
{
    ASSERT(!huge || IS_ALIGNED(pfn | n, FRAME_GROUP));
    if (!in_table(pfn, n))
        return -E_PERM;
    for (u64 done = 0, step; done < n; done += step) {
        int err;

        step = in_group(pfn + done, n - done);
        err = lend_in_group(pfn + done, step, huge);
        if (err) {
            frame_unlend(pfn, done, huge);
            return err;
        }
    }
    return 0;
}

void frame_lend_split(pfn_t pfn)
{
    struct group *g = group_of(pfn);

    ASSERT(in_table(pfn, FRAME_GROUP) && IS_ALIGNED(pfn, FRAME_GROUP));
    spin_lock(&g->lock);
    add_maps(g, pfn, FRAME_GROUP, true, -1);
    add_maps(g, pfn, FRAME_GROUP, false, 1);
    spin_unlock(&g->lock);
}

u64 frame_lent_pages(void)
{
    return __atomic_load_n(&lent, __ATOMIC_RELAXED);
}
