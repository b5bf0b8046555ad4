/* SPDX-License-Identifier: BSD-2-Clause */
/* A shadow model of nested page tables, and of what hardware may still remember of them, for
 * test_npt and fuzz_npt. Each includes it once and links with --wrap=pool_free and
 * --wrap=frame_unlend. */
#ifndef SOCLE_TESTS_NPT_MODEL_H
#define SOCLE_TESTS_NPT_MODEL_H

#include "core/abi.h"
#include "core/errno.h"
#include "tests/unit/frame_maps.h"
#include "core/lib.h"
#include "core/npt.h"
#include "core/paging.h"
#include "core/panic.h"
#include "core/pool.h"

#include <stdlib.h>

#define CHECK ASSERT

#define ARENA_PAGES 2048
#define MAX_PFN \
    0x80000ull /* 2 GiB of RAM: Socle in the first 2 MiB and in a hole, dom0 elsewhere */
#define HOLE_PFN 0x10100ull
#define HOLE_END 0x10180ull
#define G_PAGES  0x40000ull

/* The model knows a few windows of the guest's space exactly, around the borders that matter. */
#define ISLANDS      5
#define ISLAND_PAGES 1024ull
#define MODEL_PAGES  (ISLANDS * ISLAND_PAGES)
static const u64 islands[ISLANDS] = {0, G_PAGES - 512, 2 * G_PAGES - 512, 512 * G_PAGES - 512,
                                     BIT(36) - ISLAND_PAGES};

struct model_page {
    u64 mfn;
    u32 flags;
    bool mapped; /* memory, or marked MMIO in flags */
};

static struct model {
    struct npt npt;
    struct charge charge;
    struct model_page page[MODEL_PAGES];
} model;

/* What hardware may remember since the last flush. */
static struct {
    struct npt_leaf leaf[MODEL_PAGES];
    u16 refs[MAX_PFN];
    const void *table[ARENA_PAGES];
    u32 tables;
    bool full;
    u64 flushes;
} tlb;

static u8 arena[ARENA_PAGES * PAGE_SIZE] ALIGNED(4096);
static u8 *frame_table;

static const struct npt_format format_svm = NPT_FORMAT_SVM;
static const struct npt_format format_ept = NPT_FORMAT_EPT;
static struct npt_format format_log = NPT_FORMAT_EPT;

void __real_pool_free(void *page, struct charge *charge);
void __wrap_pool_free(void *page, struct charge *charge);
void __real_frame_unlend(pfn_t pfn, u64 n, bool huge);
void __wrap_frame_unlend(pfn_t pfn, u64 n, bool huge);

static inline u64 model_gfn(u64 i)
{
    return islands[i / ISLAND_PAGES] + i % ISLAND_PAGES;
}

static inline void tlb_clear(void)
{
    for (u64 i = 0; tlb.full && i < MODEL_PAGES; i++) {
        if (tlb.leaf[i].present && tlb.leaf[i].mfn < MAX_PFN)
            tlb.refs[tlb.leaf[i].mfn] = 0;
        tlb.leaf[i].present = false;
    }
    tlb.tables = 0;
    tlb.full = false;
}

/* No table may be freed while hardware can still walk it; what is freed becomes garbage. */
void __wrap_pool_free(void *page, struct charge *charge)
{
    for (u32 i = 0; i < tlb.tables; i++)
        CHECK(tlb.table[i] != page);
    memset(page, 0xa5, PAGE_SIZE);
    __real_pool_free(page, charge);
}

/* No frame may become free while hardware can still use it. */
void __wrap_frame_unlend(pfn_t pfn, u64 n, bool huge)
{
    __real_frame_unlend(pfn, n, huge);
    for (u64 i = 0; tlb.full && i < n; i++)
        CHECK(!tlb.refs[pfn + i] || tlb.refs[pfn + i] <= frame_maps(pfn + i));
}

static u64 audit_tables, audit_pages;

static void audit_table(const u64 *table, int level)
{
    const struct npt_format *f = model.npt.format;
    bool any = false;

    if (tlb.tables < ARENA_PAGES)
        tlb.table[tlb.tables++] = table;
    audit_tables++;
    for (u32 i = 0; i < 512; i++) {
        u64 e = table[i];

        any |= e != 0;
        if (!e || e == f->mmio)
            continue;
        CHECK(e & f->present); /* no remains of cleared leaves */
        CHECK(!(e & f->mmio));
        if (level && !(e & BIT(7))) {
            CHECK((e & ~(BIT(52) - PAGE_SIZE)) == f->table);
            audit_table(phys_to_virt(e & (BIT(52) - PAGE_SIZE)), level - 1);
            continue;
        }
        CHECK(level <= f->max_leaf);
        CHECK(IS_ALIGNED(e & (BIT(52) - PAGE_SIZE), PAGE_SIZE << (9 * level)));
        audit_pages += 1ull << (9 * level);
    }
    CHECK(any || level == 3); /* no empty tables */
}

/* The tables' own invariants; leaves their list in the simulated TLB. */
static void audit(void)
{
    audit_tables = audit_pages = 0;
    tlb.tables = 0;
    audit_table(model.npt.root, 3);
    CHECK(audit_tables == model.charge.pages);
    CHECK(pool_free_pages() + model.charge.pages == pool_total_pages() - 1);
    CHECK(audit_pages == model.npt.mapped_pages);
    CHECK(frame_lent_pages() == (model.npt.lends ? audit_pages : 0));
    CHECK(model.npt.lock.next == model.npt.lock.owner);
}

static void tlb_fill(void)
{
    tlb_clear();
    audit();
    for (u64 i = 0; i < MODEL_PAGES; i++) {
        struct npt_leaf *leaf = &tlb.leaf[i];

        if (npt_lookup(&model.npt, model_gfn(i) << PAGE_SHIFT, leaf) && leaf->present &&
            leaf->mfn < MAX_PFN)
            tlb.refs[leaf->mfn]++;
    }
    tlb.full = true;
}

static void (*flush_hook)(void);

void npt_flush(struct npt *npt)
{
    if (flush_hook)
        flush_hook();
    CHECK(npt->lock.next != npt->lock.owner);
    tlb_clear();
    tlb.flushes++;
}

/* The tables say what the model says; what hardware still remembers is no more than that. */
static void compare(void)
{
    for (u64 i = 0; i < MODEL_PAGES; i++) {
        const struct model_page *want = &model.page[i];
        const struct npt_leaf *old = &tlb.leaf[i];
        struct npt_leaf got;
        bool found = npt_lookup(&model.npt, model_gfn(i) << PAGE_SHIFT | 0x123, &got);

        CHECK(found == want->mapped);
        CHECK(got.mmio == (want->mapped && (want->flags & SOCLE_MAP_MMIO)));
        CHECK(got.present == (want->mapped && !got.mmio));
        if (got.present) {
            CHECK(got.mfn == want->mfn);
            CHECK(got.write == !!(want->flags & SOCLE_MAP_WRITE));
            CHECK(got.exec == !!(want->flags & SOCLE_MAP_EXEC));
            CHECK(got.rom == !!(want->flags & SOCLE_MAP_ROM));
            if (got.exec && model.npt.lends)
                CHECK(got.level <= model.npt.format->max_exec_leaf);
            if (model.npt.lends)
                CHECK(frame_maps(got.mfn) >= 1);
        }
        if (old->present)
            CHECK(got.present && got.mfn == old->mfn && got.write >= old->write &&
                  got.exec >= old->exec);
    }
    audit();
}

/* Sets the model's pages within the range. op: 0 map, 1 unmap, 2 protect. */
static void model_apply(int op, u64 gfn, u64 mfn, u64 pages, u32 flags)
{
    for (u64 i = 0; i < MODEL_PAGES; i++) {
        u64 at = model_gfn(i) - gfn;

        if (model_gfn(i) < gfn || at >= pages)
            continue;
        if (op == 0)
            model.page[i] = (struct model_page){mfn + at, flags, true};
        else if (op == 1)
            model.page[i].mapped = false;
        else if (model.page[i].mapped)
            model.page[i].flags &= ~SOCLE_MAP_WRITE;
    }
}

/* Out of memory, a guest's whole large leaf goes: takes over what only became less. */
static void model_shrink(u64 gfn, u64 pages)
{
    for (u64 i = 0; i < MODEL_PAGES; i++) {
        struct model_page *p = &model.page[i];
        struct npt_leaf got;
        u64 g = model_gfn(i);

        if ((g >= gfn && g < gfn + pages) || !p->mapped)
            continue;
        if (!npt_lookup(&model.npt, g << PAGE_SHIFT, &got))
            p->mapped = false;
        else if (got.present && !got.write)
            p->flags &= ~SOCLE_MAP_WRITE;
    }
}

/* One operation to its end, compared after the last piece. The error, or 0. */
static int model_run(int op, u64 gfn, u64 mfn, u64 pages, u32 flags)
{
    bool limited = model.charge.limit < ARENA_PAGES;
    u32 pieces = 0;
    int err;

    do {
        u64 before = model.npt.mapped_pages, tables = model.charge.pages, done;

        if (pieces++ < 3 || pieces % 64 == 0)
            tlb_fill();
        else
            tlb_clear(); /* takes long; the pieces in the middle are much the same */
        if (op == 0)
            err = npt_map(&model.npt, gfn, mfn, pages, flags, &done);
        else if (op == 1)
            err = npt_unmap(&model.npt, gfn, pages, &done);
        else
            err = npt_protect(&model.npt, gfn, pages, &done);
        CHECK(err ? done < pages : done == pages);
        CHECK(err != -E_AGAIN || done);
        if (err && err != -E_AGAIN) {
            CHECK(!done && before == model.npt.mapped_pages);
            CHECK(op || tables == model.charge.pages);
            CHECK(err != -E_NOMEM || (limited && (op == 0 || !model.npt.lends)));
        }
        model_apply(op, gfn, mfn, done, flags);
        if (op && limited && model.npt.lends)
            model_shrink(gfn, done);
        gfn += done;
        mfn += done;
        pages -= done;
    } while (err == -E_AGAIN);
    compare();
    return err;
}

static void model_start(const struct npt_format *format, bool lends)
{
    tlb_clear();
    format_log.log = NPT_EPT_DIRTY;
    if (!frame_table) {
        frame_table = calloc(1, frame_table_bytes(MAX_PFN));
        frame_init(frame_table, MAX_PFN);
        frame_set_owner_range(0, MAX_PFN, FRAME_DOM0);
        frame_set_owner_range(0, 512, FRAME_SOCLE);
        frame_set_owner_range(HOLE_PFN, HOLE_END - HOLE_PFN, FRAME_SOCLE);
    }
    pool_init(arena, sizeof(arena), 0);
    memset(&model, 0, sizeof(model));
    model.charge.limit = UINT64_MAX;
    CHECK(npt_init(&model.npt, format, &model.charge, lends) == 0);
}

/* Takes all down: nothing may be left anywhere. */
static void model_end(void)
{
    u32 pieces = 0;
    int err;

    do {
        if (pieces++ % 64 == 0)
            tlb_fill();
        else
            tlb_clear();
        err = npt_destroy_piece(&model.npt);
    } while (err == -E_AGAIN);
    CHECK(err == 0 && !model.npt.root && !model.npt.mapped_pages && !model.charge.pages);
    CHECK(frame_lent_pages() == 0);
    for (u64 pfn = 0; pfn < MAX_PFN; pfn += 512)
        CHECK(!frame_maps(pfn) && !frame_maps(pfn + 511));
    CHECK(pool_free_pages() == pool_total_pages() - 1);
}

/* Ranges that meet the borders: from any bits, an operation worth trying. */
static int model_random_op(u64 bits)
{
    static const u64 sizes[16] = {1,
                                  1,
                                  2,
                                  7,
                                  64,
                                  511,
                                  512,
                                  513,
                                  1024,
                                  1536,
                                  4096,
                                  G_PAGES / 8,
                                  G_PAGES - 512,
                                  G_PAGES,
                                  G_PAGES,
                                  G_PAGES + 512};
    static const u32 flags[8] = {SOCLE_MAP_WRITE,
                                 SOCLE_MAP_WRITE | SOCLE_MAP_EXEC,
                                 SOCLE_MAP_WRITE | SOCLE_MAP_EXEC,
                                 SOCLE_MAP_EXEC,
                                 0,
                                 SOCLE_MAP_ROM | SOCLE_MAP_EXEC,
                                 SOCLE_MAP_MMIO,
                                 SOCLE_MAP_WRITE | NPT_MAP_DEVICE};
    u64 gfn = islands[bits % ISLANDS];
    u64 pages = sizes[(bits >> 4) & 15];
    u32 flag = flags[(bits >> 8) & 7];
    int op = "\0\0\0\0\0\1\1\2"[(bits >> 12) & 7];
    u64 mfn = G_PAGES;

    switch ((bits >> 16) & 3) {
    case 0:
        gfn += (bits >> 24) % ISLAND_PAGES;
        break;
    case 1:
        gfn += 512 * ((bits >> 24) & 1);
        break;
    case 2:
        gfn = ALIGN_DOWN(gfn, G_PAGES);
        break;
    default:
        break;
    }
    pages = MIN(pages, BIT(36) - gfn);
    if ((bits >> 18) & 1)
        mfn += gfn % G_PAGES; /* large leaves fit */
    else if ((bits >> 19) & 1)
        mfn = 0x1000 + ((bits >> 24) & 0xffff); /* the hole, perhaps */
    else if ((bits >> 20) & 1)
        mfn = (bits >> 24) & (MAX_PFN + 0xfff); /* anything */
    /* A GiB of 4 KiB leaves takes long: seldom. */
    if (op == 0 && pages > 4096 && !IS_ALIGNED(gfn | mfn, 512) && (bits >> 40) & 15)
        pages = 700;
    return model_run(op, gfn, mfn, pages, flag);
}

#endif
