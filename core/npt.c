/* SPDX-License-Identifier: BSD-2-Clause */
/* Nested page tables. */
#include "core/npt.h"

#include "core/abi.h"
#include "core/frame.h"
#include "core/paging.h"
#include "core/panic.h"

#define ENTRIES  512u
#define TOP      (NPT_LEVELS - 1)
#define LEAF     BIT(7)
#define MFN_MASK (BIT(52) - PAGE_SIZE)
#define ALL_FLAGS \
    (SOCLE_MAP_WRITE | SOCLE_MAP_EXEC | SOCLE_MAP_ROM | SOCLE_MAP_MMIO | NPT_MAP_DEVICE)

/* Work of one call, in units of a visit to an absent entry. The longest way to an entry of sparse
 * tables is 2,044 visits, so a call that starts over from the same gfn still gets further. */
#define BUDGET     4096
#define COST_LEAF  8
#define COST_GIB   2048
#define COST_TABLE ((int)ENTRIES * COST_LEAF)

/* Unlinked tables, until the flush. */
#define BATCH 16
struct batch {
    u64 *table[BATCH];
    int level[BATCH];
    u32 n;
    bool flush;
};

static u64 load(const u64 *slot)
{
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

static void store(u64 *slot, u64 entry)
{
    __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

/* 4 KiB pages under one entry. */
static u64 span(int level)
{
    return 1ull << (9 * level);
}

static u32 index_of(u64 gfn, int level)
{
    return (gfn >> (9 * level)) % ENTRIES;
}

static u64 mfn_of(u64 entry)
{
    return (entry & MFN_MASK) >> PAGE_SHIFT;
}

static u64 *table_of(u64 entry)
{
    return phys_to_virt(entry & MFN_MASK);
}

static bool is_table(const struct npt_format *f, u64 entry, int level)
{
    return level > 0 && (entry & f->present) && !(entry & LEAF);
}

/* Hardware or a lookup sees something: neither absent nor cleared and waiting for the flush. */
static bool is_live(const struct npt_format *f, u64 entry)
{
    return entry & (f->present | f->mmio);
}

static bool can_exec(const struct npt_format *f, u64 entry)
{
    return (entry & (f->exec_on | f->exec_off)) == f->exec_on;
}

static bool may_write(const struct npt_format *f, u64 entry)
{
    return !(~entry & (f->write | f->log));
}

/* Where a walk ended. The entry is as the walk saw it: it is not read again, since for a lock-free
 * lookup a leaf may have become a table meanwhile. */
struct spot {
    u64 *slot;
    u64 entry;
    int level;
};

/* The entry for gfn at level `lowest`, or the one where the tables end above it. */
static struct spot walk(const struct npt *npt, u64 gfn, int lowest)
{
    u64 *table = npt->root;

    for (int level = TOP;; level--) {
        u64 *slot = &table[index_of(gfn, level)];
        u64 entry = load(slot);

        if (level <= lowest || !is_table(npt->format, entry, level))
            return (struct spot){.slot = slot, .entry = entry, .level = level};
        table = table_of(entry);
    }
}

static bool range_ok(u64 page, u64 pages, int bits)
{
    return pages && page < BIT(bits) && pages <= BIT(bits) - page;
}

static bool covers(u64 gfn, u64 end, int level)
{
    return IS_ALIGNED(gfn, span(level)) && end - gfn >= span(level);
}

static int cost_of(int level)
{
    return level == 2 ? COST_GIB : COST_LEAF;
}

/* Entry i of a table that says the same as `leaf` does one level above it. */
static u64 child_of(const struct npt_format *f, u64 leaf, int level, u64 i)
{
    if (!(leaf & f->present))
        return leaf;
    return (level == 1 ? leaf & ~LEAF : leaf) + (i * span(level - 1) << PAGE_SHIFT);
}

static u64 make_leaf(const struct npt_format *f, u64 mfn, u32 flags, int level)
{
    u64 entry = f->leaf | mfn << PAGE_SHIFT;

    if (flags & SOCLE_MAP_MMIO)
        return f->mmio;
    entry |= flags & SOCLE_MAP_WRITE ? f->write : 0;
    entry |= flags & SOCLE_MAP_EXEC ? f->exec_on : f->exec_off;
    entry |= flags & SOCLE_MAP_ROM ? f->rom : 0;
    entry |= flags & NPT_MAP_DEVICE ? f->device : f->ram;
    return entry | (level ? LEAF : 0);
}

/* Puts an empty table, or one that says the same as the leaf there, into a slot. */
static void add_table(struct npt *npt, u64 *slot, int level, u64 *table)
{
    u64 leaf = load(slot);

    if (leaf) {
        for (u64 i = 0; i < ENTRIES; i++)
            table[i] = child_of(npt->format, leaf, level, i);
        if (npt->lends && level == 1 && (leaf & npt->format->present))
            frame_lend_split(mfn_of(leaf));
    }
    store(slot, npt->format->table | virt_to_phys(table));
}

/* Gives back what a leaf held that nobody can reach any more. */
static void release(struct npt *npt, u64 entry, int level)
{
    if (!entry || entry == npt->format->mmio)
        return;
    npt->mapped_pages -= span(level);
    if (npt->lends)
        frame_unlend(mfn_of(entry), span(level), level > 0);
}

/* Takes what a slot shows away from hardware; a table goes into the batch, for a leaf its remains
 * stay. */
static void clear_slot(struct npt *npt, u64 *slot, int level, struct batch *batch)
{
    u64 entry = load(slot);

    if (is_table(npt->format, entry, level)) {
        batch->table[batch->n] = table_of(entry);
        batch->level[batch->n++] = level - 1;
        batch->flush = true;
        store(slot, 0);
    } else if (entry & npt->format->present) {
        batch->flush = true;
        store(slot, entry & ~npt->format->present);
    } else {
        store(slot, 0);
    }
}

/* After the flush: the unlinked tables, with the leaves in them, are nobody's. */
static void reap(struct npt *npt, struct batch *batch)
{
    while (batch->n) {
        u64 *table = batch->table[--batch->n];
        int level = batch->level[batch->n];

        ASSERT(level >= 0 && level < TOP);
        for (u32 i = 0; i < ENTRIES; i++)
            release(npt, table[i], level);
        pool_free(table, npt->charge);
    }
}

/* Errors after the first piece of a call: the next call meets them again, with nothing done. */
static int result(int err, u64 done)
{
    return err && done ? -E_AGAIN : err;
}

int npt_init(struct npt *npt, const struct npt_format *format, struct charge *charge, bool lends)
{
    *npt = (struct npt){.format = format, .charge = charge, .lends = lends};
    npt->root = pool_alloc(charge);
    return npt->root ? 0 : -E_NOMEM;
}

/* ---- mapping ------------------------------------------------------------------------------------
 */

/* A run of equal leaves within one table: what one piece of npt_map() does. */
struct run {
    u64 gfn;
    u64 mfn;
    u64 count;
    u32 flags;
    int level;
};

/* The largest leaf for the start of the range. A table of 2 MiB leaves is not replaced by one of 1
 * GiB, which could mean giving back 262,144 leaves at once. */
static int choose_level(const struct npt *npt, u64 gfn, u64 mfn, u64 pages, u32 flags)
{
    const struct npt_format *f = npt->format;
    bool exec = (flags & SOCLE_MAP_EXEC) && npt->lends; /* dom0 is trusted with its own tables */
    int max = exec ? MIN(f->max_leaf, f->max_exec_leaf) : f->max_leaf;
    u64 both = flags & SOCLE_MAP_MMIO ? gfn : gfn | mfn;
    struct spot at = walk(npt, gfn, 2);
    int level = 0;

    if (at.level == 2 && is_table(f, at.entry, 2))
        max = MIN(max, 1);
    while (level < max && IS_ALIGNED(both, span(level + 1)) && pages >= span(level + 1))
        level++;
    return level;
}

/* How many leaves the run takes, at least one: to the end of the table, as the budget allows.
 * slots: those that are there already, or NULL. */
static u64 choose_count(const struct npt *npt, const struct run *run, u64 pages, const u64 *slots,
                        int *budget)
{
    u64 max = MIN(ENTRIES - index_of(run->gfn, run->level), pages / span(run->level));
    u64 n = 0;

    do {
        bool table = slots && is_table(npt->format, load(&slots[n]), run->level);

        if (table && run->level > 1)
            break;
        *budget -= table ? COST_TABLE : cost_of(run->level);
        n++;
    } while (*budget > 0 && n < max);
    return n;
}

static int take_frames(struct npt *npt, const struct run *run)
{
    u64 pages = run->count * span(run->level);

    if (run->flags & SOCLE_MAP_MMIO)
        return 0;
    if (npt->lends)
        return frame_lend(run->mfn, pages, run->level > 0);
    return frame_check(run->mfn, pages, true);
}

/* The same memory with the same or more rights: what processors remember of the old entry does no
 * harm, a fault on it makes them look again. */
static bool only_gains(const struct npt_format *f, u64 old, u64 new)
{
    u64 rights = f->write | f->log | f->exec_on | f->exec_off | f->rom;

    return (old & f->present) && !((old ^ new) & ~rights) &&
           (!(old & f->write) || (new & f->write)) && (!can_exec(f, old) || can_exec(f, new));
}

/* Writes the run's leaves, but where something else is, only clears it: into the batch, before the
 * flush. After the flush, without a batch, gives back what was cleared and writes what is missing.
 */
static void write_leaves(struct npt *npt, const struct run *run, u64 *slots, struct batch *batch)
{
    const struct npt_format *f = npt->format;

    for (u64 i = 0; i < run->count; i++) {
        u64 new = make_leaf(f, run->mfn + i * span(run->level), run->flags, run->level);
        u64 old = load(&slots[i]);

        if (batch && (old & f->present) && !only_gains(f, old, new)) {
            clear_slot(npt, &slots[i], run->level, batch);
        } else if (batch || old != new) {
            store(&slots[i], new);
            release(npt, old, run->level);
        }
    }
}

static void write_run(struct npt *npt, const struct run *run, u64 *slots)
{
    struct batch batch = {.n = 0};

    if (!(run->flags & SOCLE_MAP_MMIO))
        npt->mapped_pages += run->count * span(run->level);
    write_leaves(npt, run, slots, &batch);
    if (batch.flush) {
        npt_flush(npt);
        write_leaves(npt, run, slots, NULL);
        reap(npt, &batch);
    }
}

/* Everything that can fail comes before the first change. */
static int map_run(struct npt *npt, u64 pages, struct run *run, int *budget)
{
    u64 *tables[TOP];
    struct spot at;
    int missing, n = 0, err;

    run->level = choose_level(npt, run->gfn, run->mfn, pages, run->flags);
    at = walk(npt, run->gfn, run->level);
    missing = at.level - run->level;
    run->count = choose_count(npt, run, pages, missing ? NULL : at.slot, budget);
    while (n < missing && (tables[n] = pool_alloc(npt->charge)))
        n++;
    err = n < missing ? -E_NOMEM : take_frames(npt, run);
    if (err) {
        while (n > 0)
            pool_free(tables[--n], npt->charge);
        return err;
    }
    for (int i = 0; i < missing; i++) {
        add_table(npt, at.slot, at.level--, tables[i]);
        at.slot = &tables[i][index_of(run->gfn, at.level)];
    }
    write_run(npt, run, at.slot);
    return 0;
}

int npt_map(struct npt *npt, u64 gfn, u64 mfn, u64 pages, u32 flags, u64 *done)
{
    bool mmio = flags & SOCLE_MAP_MMIO;
    int budget = BUDGET;
    int err = 0;

    *done = 0;
    if (!range_ok(gfn, pages, NPT_GFN_BITS) || (flags & ~ALL_FLAGS) ||
        (mmio && (flags & ~SOCLE_MAP_MMIO)) || (!mmio && !range_ok(mfn, pages, NPT_MFN_BITS)) ||
        ((flags & SOCLE_MAP_ROM) && (flags & SOCLE_MAP_WRITE)))
        return -E_INVAL;
    spin_lock(&npt->lock);
    while (!err && *done < pages) {
        struct run run = {.gfn = gfn + *done, .mfn = mfn + *done, .flags = flags};

        err = budget > 0 ? map_run(npt, pages - *done, &run, &budget) : -E_AGAIN;
        if (!err)
            *done += run.count * span(run.level);
    }
    spin_unlock(&npt->lock);
    return result(err, *done);
}

/* ---- taking away --------------------------------------------------------------------------------
 */

/* Whether anything is live in a table, beginning the search at entry `from`, where it is likely. */
static bool table_live(const struct npt_format *f, const u64 *table, u32 from)
{
    for (u32 i = 0; i < ENTRIES; i++)
        if (is_live(f, table[(from + i) % ENTRIES]))
            return true;
    return false;
}

/* Unlinks the tables that are empty now that gfn's entry at `level` has been cleared. */
static void prune(struct npt *npt, u64 gfn, int level, struct batch *batch)
{
    for (; level < TOP; level++) {
        struct spot parent = walk(npt, gfn, level + 1);

        if (table_live(npt->format, table_of(parent.entry), index_of(gfn, level) + 1))
            return;
        clear_slot(npt, parent.slot, level + 1, batch);
    }
}

/* Clears [*pos, end), or what its leaves need for a write, and moves *pos along. */
static int clear_range(struct npt *npt, u64 *pos, u64 end, bool protect, struct batch *batch)
{
    const struct npt_format *f = npt->format;
    int budget = BUDGET;

    while (*pos < end) {
        struct spot at = walk(npt, *pos, !protect && covers(*pos, end, 1) ? 1 : 0);
        u64 next = MIN((*pos | (span(at.level) - 1)) + 1, end);

        /* One entry adds a table of leaves and those above it, at most. */
        if (budget <= 0 || batch->n + TOP > BATCH)
            return -E_AGAIN;
        if (protect ? !(at.entry & f->present) || !may_write(f, at.entry) : !at.entry) {
            budget--;
            *pos = next;
            continue;
        }
        budget -= is_table(f, at.entry, at.level) ? COST_TABLE : cost_of(at.level);
        if (!covers(*pos, end, at.level)) {
            u64 *table = pool_alloc(npt->charge);

            if (table) {
                add_table(npt, at.slot, at.level, table);
                continue;
            }
            if (!npt->lends)
                return -E_NOMEM;
        }
        if (protect) {
            store(at.slot, at.entry & ~(f->log && !at.level ? f->log : f->write));
            npt->logged |= f->log != 0;
            batch->flush = true;
        } else {
            clear_slot(npt, at.slot, at.level, batch);
            prune(npt, *pos, at.level, batch);
        }
        *pos = next;
    }
    return 0;
}

/* After the flush: gives back the leaves that were cleared in tables that stay. */
static void release_range(struct npt *npt, u64 pos, u64 end)
{
    while (pos < end) {
        struct spot at = walk(npt, pos, 0);

        if (at.entry && !is_live(npt->format, at.entry)) {
            store(at.slot, 0);
            release(npt, at.entry, at.level);
        }
        pos = (pos | (span(at.level) - 1)) + 1;
    }
}

static int take_away(struct npt *npt, u64 gfn, u64 pages, bool protect, u64 *done)
{
    struct batch batch = {.n = 0};
    u64 pos = gfn;
    int err;

    *done = 0;
    if (!range_ok(gfn, pages, NPT_GFN_BITS))
        return -E_INVAL;
    spin_lock(&npt->lock);
    err = clear_range(npt, &pos, gfn + pages, protect, &batch);
    if (batch.flush) {
        npt_flush(npt);
        release_range(npt, gfn, pos);
        reap(npt, &batch);
    }
    spin_unlock(&npt->lock);
    *done = pos - gfn;
    return result(err, *done);
}

int npt_unmap(struct npt *npt, u64 gfn, u64 pages, u64 *done)
{
    return take_away(npt, gfn, pages, false, done);
}

int npt_protect(struct npt *npt, u64 gfn, u64 pages, u64 *done)
{
    return take_away(npt, gfn, pages, true, done);
}

int npt_destroy_piece(struct npt *npt)
{
    u64 done;
    int err;

    if (!npt->root)
        return 0;
    err = npt_unmap(npt, 0, BIT(NPT_GFN_BITS), &done);
    if (err)
        return err;
    ASSERT(!npt->mapped_pages);
    spin_lock(&npt->lock);
    npt_flush(npt);
    pool_free(npt->root, npt->charge);
    npt->root = NULL;
    spin_unlock(&npt->lock);
    return 0;
}

bool npt_lookup(const struct npt *npt, gpa_t gpa, struct npt_leaf *out)
{
    const struct npt_format *f = npt->format;
    u64 gfn = gpa >> PAGE_SHIFT;
    struct spot at = {.level = TOP};

    if (gfn < BIT(NPT_GFN_BITS))
        at = walk(npt, gfn, 0);
    *out = (struct npt_leaf){.entry = at.entry, .level = (u8)at.level, .mmio = at.entry == f->mmio};
    if (!(at.entry & f->present))
        return out->mmio;
    out->present = true;
    out->write = may_write(f, at.entry);
    out->exec = can_exec(f, at.entry);
    out->rom = at.entry & f->rom;
    out->mfn = mfn_of(at.entry) + gfn % span(at.level);
    return true;
}
