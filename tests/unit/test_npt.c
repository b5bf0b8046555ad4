// SOURCES: core/npt.c core/pool.c
// LIBS: -lpthread -Wl,--wrap=pool_free -Wl,--wrap=frame_unlend
/* SPDX-License-Identifier: BSD-2-Clause */
/* Nested page tables against a shadow model; running out of memory at each allocation; flush before
 * reuse. */
#include "tests/unit/npt_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>

#define W  SOCLE_MAP_WRITE
#define WX (SOCLE_MAP_WRITE | SOCLE_MAP_EXEC)

static const struct npt_format *const formats[] = {&format_svm, &format_ept, &format_log};

static struct npt_leaf leaf_at(u64 gfn)
{
    struct npt_leaf leaf;

    npt_lookup(&model.npt, gfn << PAGE_SHIFT, &leaf);
    return leaf;
}

static u64 *walk_to(u64 *table, u64 gfn, int level)
{
    u64 *slot = &table[gfn >> (9 * level) & 511];

    return level ? walk_to(phys_to_virt(*slot & (BIT(52) - PAGE_SIZE)), gfn, level - 1) : slot;
}

static void entry_bits_are_the_vendors(void **state)
{
    (void)state;
    model_start(&format_svm, true);
    assert_int_equal(model_run(0, 0, 0x3000, 1, W), 0);
    assert_int_equal(leaf_at(0).entry, 0x3000067 | BIT(63)); /* NX D A U W P */
    assert_int_equal(model_run(0, 0, 0x3000, 1, SOCLE_MAP_ROM | SOCLE_MAP_EXEC), 0);
    assert_int_equal(leaf_at(0).entry, 0x3000865);
    assert_int_equal(model_run(0, 512, 0x3200, 512, WX), 0);
    assert_int_equal(leaf_at(512).entry, 0x32000e7);
    assert_int_equal(model_run(0, 0, 0, 1, SOCLE_MAP_MMIO), 0);
    assert_int_equal(leaf_at(0).entry & 1, 0);
    model_end();

    model_start(&format_ept, true);
    assert_int_equal(model_run(0, 0, 0x3000, 1, W), 0);
    assert_int_equal(leaf_at(0).entry, 0x3000333); /* D A, WB, W R */
    assert_int_equal(model_run(0, 512, 0x3200, 512, WX), 0);
    assert_int_equal(leaf_at(512).entry, 0x32003b7);
    assert_int_equal(model_run(0, 0, 0, 1, SOCLE_MAP_MMIO), 0);
    assert_int_equal(leaf_at(0).entry & 7, 0);
    model_end();

    model_start(&format_ept, false);
    assert_int_equal(model_run(0, 0, 0xfee00, 1, W | NPT_MAP_DEVICE), 0);
    assert_int_equal(leaf_at(0).entry, 0xfee00303);
    model_end();
}

static void leaf_sizes_follow_alignment(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        struct npt_format small = *formats[i];

        model_start(formats[i], true);
        assert_int_equal(model_run(0, 0, G_PAGES, G_PAGES, WX), 0);
        assert_int_equal(leaf_at(77).level, 2);
        assert_int_equal(model.charge.pages, 2);
        assert_int_equal(model_run(0, G_PAGES - 1, 0x5ff, 1026, WX), 0);
        assert_int_equal(leaf_at(G_PAGES - 1).level, 0);
        assert_int_equal(leaf_at(G_PAGES).level, 1);
        assert_int_equal(leaf_at(G_PAGES + 1024).level, 0);
        assert_int_equal(leaf_at(G_PAGES - 512).level, 0);
        assert_int_equal(leaf_at(0).level, 1); /* the GiB was split down to it */
        model_end();

        small.max_leaf = 1;
        small.max_exec_leaf = 0;
        model_start(&small, true);
        assert_int_equal(model_run(0, 0, G_PAGES, G_PAGES, W), 0);
        assert_int_equal(leaf_at(0).level, 1);
        assert_int_equal(model_run(0, 0, G_PAGES, 512, WX), 0);
        assert_int_equal(leaf_at(0).level, 0);
        model_end();
    }
}

static void bad_ranges_and_flags_are_refused(void **state)
{
    struct npt_leaf leaf;
    u64 done;

    (void)state;
    model_start(&format_svm, true);
    assert_int_equal(npt_map(&model.npt, 0, 0x1000, 0, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, BIT(36), 0x1000, 1, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, BIT(36) - 1, 0x1000, 2, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 5, 0x1000, UINT64_MAX, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 0, BIT(40) - 1, 2, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 0, UINT64_MAX, 2, W, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 0, 0x1000, 1, W | SOCLE_MAP_ROM, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 0, 0x1000, 1, W | SOCLE_MAP_MMIO, &done), -E_INVAL);
    assert_int_equal(npt_map(&model.npt, 0, 0x1000, 1, 0x10, &done), -E_INVAL);
    assert_int_equal(npt_unmap(&model.npt, 0, 0, &done), -E_INVAL);
    assert_int_equal(npt_unmap(&model.npt, 1, BIT(36), &done), -E_INVAL);
    assert_int_equal(npt_protect(&model.npt, BIT(36), 1, &done), -E_INVAL);
    assert_false(npt_lookup(&model.npt, BIT(48), &leaf));
    assert_false(npt_lookup(&model.npt, UINT64_MAX, &leaf));
    assert_int_equal(model_run(0, BIT(36) - 1, 0x1000, 1, W), 0);
    model_end();
}

static void only_dom0s_frames_are_mapped(void **state)
{
    (void)state;
    for (u32 lends = 0; lends < 2; lends++) {
        int device = lends ? -E_PERM : 0;

        model_start(&format_svm, lends);
        assert_int_equal(model_run(0, 0, 511, 1, W), -E_PERM);
        assert_int_equal(model_run(0, 0, HOLE_PFN, 1, W), -E_PERM);
        assert_int_equal(model_run(0, 0, HOLE_PFN - 0x100, 512, W), -E_PERM);
        assert_int_equal(model_run(0, 0, 0, G_PAGES, W), -E_PERM);
        assert_int_equal(model.charge.pages, 1);
        assert_int_equal(model_run(0, 0, HOLE_PFN - 0x100, 0x100, W), 0);
        assert_int_equal(model_run(0, 0, MAX_PFN, 1, W), device);
        assert_int_equal(model_run(0, 0, MAX_PFN, G_PAGES, W), device);
        assert_int_equal(model_run(0, 0, MAX_PFN - 512, 1024, W), device);
        /* What was there stays when the new frames are refused. */
        assert_int_equal(model_run(0, 1024 - 512, 0x4000, 512, W), 0);
        assert_int_equal(model_run(0, 1024 - 512, HOLE_PFN - 0x100, 512, W), -E_PERM);
        assert_int_equal(leaf_at(512).mfn, 0x4000);
        model_end();
    }
}

static void gaining_rights_needs_no_flush(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        u64 flushes;

        model_start(formats[i], true);
        assert_int_equal(model_run(0, 0, G_PAGES, 1024, 0), 0);
        flushes = tlb.flushes;
        assert_int_equal(model_run(0, 0, G_PAGES, 1024, 0), 0);
        assert_int_equal(model_run(0, 0, G_PAGES, 1024, W), 0);
        assert_int_equal(model_run(0, 0, G_PAGES, 512, WX), 0);
        assert_int_equal(model_run(0, 0, G_PAGES, 7, WX), 0); /* splits */
        assert_int_equal(tlb.flushes, flushes);
        assert_int_equal(frame_maps(G_PAGES), 1);
        assert_int_equal(model_run(0, 0, G_PAGES, 7, W), 0);
        assert_int_equal(tlb.flushes, flushes + 1);
        assert_int_equal(model_run(0, 0, 0x5000, 1, W), 0);
        assert_int_equal(tlb.flushes, flushes + 2);
        assert_int_equal(model_run(0, 0, 0, 1, SOCLE_MAP_MMIO), 0);
        assert_int_equal(tlb.flushes, flushes + 3);
        assert_int_equal(model_run(0, 0, 0x5000, 1, W), 0);
        assert_int_equal(tlb.flushes, flushes + 3);
        assert_int_equal(model_run(2, 1, 0, 2, 0), 0);
        assert_int_equal(model_run(2, 1, 0, 2, 0), 0);
        assert_int_equal(tlb.flushes, flushes + 4);
        model_end();
    }
}

/* What dom0 mapped page by page becomes one leaf when dom0 maps it as an extent: its memory has
 * become a huge page. The table goes back to the pool, after one flush. */
static void small_leaves_merge_into_a_large_one(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        u64 flushes, pages;

        model_start(formats[i], true);
        assert_int_equal(model_run(0, 512, G_PAGES + 512, 512, WX), 0);
        pages = model.charge.pages;
        for (u64 n = 0; n < 512; n++)
            assert_int_equal(model_run(0, n, G_PAGES + n, 1, WX), 0);
        assert_int_equal(leaf_at(0).level, 0);
        assert_int_equal(model.charge.pages, pages + 1);
        flushes = tlb.flushes;
        assert_int_equal(model_run(0, 0, G_PAGES, 512, WX), 0);
        assert_int_equal(leaf_at(0).level, 1);
        assert_int_equal(tlb.flushes, flushes + 1);
        assert_int_equal(model.charge.pages, pages);
        assert_int_equal(frame_maps(G_PAGES + 77), 1);
        model_end();
    }
}

static u64 *entry_at(u64 gfn)
{
    return walk_to(model.npt.root, gfn, 3);
}

static void expect_entry(u64 gfn, u64 entry)
{
    assert_int_equal(leaf_at(gfn).entry, entry);
    assert_false(leaf_at(gfn).write);
}

/* A clean leaf is one that may not be written, but for the hardware, which makes it dirty. */
static void protected_leaves_are_clean_where_hardware_logs(void **state)
{
    u64 flushes;

    (void)state;
    model_start(&format_log, true);
    assert_int_equal(model_run(0, 0, 0x3000, 4, W), 0);
    assert_int_equal(model_run(0, 8, 0x3008, 1, 0), 0);
    assert_int_equal(model_run(0, 512, 0x3200, 1024, WX), 0);
    assert_true(leaf_at(0).write);
    assert_false(model.npt.logged);
    assert_int_equal(model_run(2, 0, 0, 1024 + 3, 0), 0);
    assert_true(model.npt.logged);
    expect_entry(1, 0x3001133);
    expect_entry(8, 0x3008331);
    expect_entry(512, 0x32003b5); /* large: one page of it would be logged */
    expect_entry(1026, 0x3402137);
    assert_int_equal(leaf_at(1027).entry, 0x3403337);

    flushes = tlb.flushes;
    assert_int_equal(model_run(2, 0, 0, 16, 0), 0);
    assert_int_equal(tlb.flushes, flushes);
    *entry_at(2) |= NPT_EPT_DIRTY;
    model.page[2].flags |= W;
    assert_true(leaf_at(2).write);
    assert_int_equal(model_run(0, 1, 0x3001, 1, W), 0);
    assert_int_equal(leaf_at(1).entry, 0x3001333);
    assert_int_equal(tlb.flushes, flushes);
    assert_int_equal(model_run(2, 0, 0, 4, 0), 0);
    assert_int_equal(tlb.flushes, flushes + 1);
    expect_entry(1, 0x3001133);
    expect_entry(2, 0x3002133);
    assert_int_equal(model_run(0, 0, 0x3000, 1, 0), 0);
    expect_entry(0, 0x3000331);
    assert_int_equal(model_run(0, 600, 0x3258, 1, WX), 0); /* a fault splits the large leaf */
    assert_int_equal(leaf_at(600).entry, 0x3258337);
    expect_entry(601, 0x3259335);
    model_end();
}

static void two_guests_count_apart(void **state)
{
    struct npt other;
    u64 done;

    (void)state;
    model_start(&format_svm, true);
    assert_int_equal(model_run(0, 0, G_PAGES, 1024, W), 0);
    assert_int_equal(npt_init(&other, &format_svm, NULL, true), 0);
    assert_int_equal(npt_map(&other, 5, G_PAGES, 1, W, &done), 0);
    assert_int_equal(frame_maps(G_PAGES), 2);
    assert_int_equal(frame_maps(G_PAGES + 1), 1);
    tlb_clear();
    assert_int_equal(npt_unmap(&model.npt, 0, 512, &done), 0);
    assert_int_equal(frame_maps(G_PAGES), 1);
    assert_int_equal(frame_lent_pages(), 513);
    while (npt_destroy_piece(&other) == -E_AGAIN)
        ;
    model_end();
}

static void work_is_bounded(void **state)
{
    u64 done, calls = 0;
    int err;

    (void)state;
    model_start(&format_svm, true);
    /* Empty: all of the address space in one call. */
    assert_int_equal(npt_unmap(&model.npt, 0, BIT(36), &done), 0);
    assert_int_equal(npt_protect(&model.npt, 0, BIT(36), &done), 0);
    /* Sparse, the longest way to the last page: callers that ignore *done get further too. */
    assert_int_equal(model_run(0, BIT(36) - 1, 0x4000, 1, W), 0);
    tlb_clear();
    assert_int_equal(npt_unmap(&model.npt, 0, BIT(36), &done), 0);
    assert_int_equal(model.charge.pages, 1);
    model_apply(1, 0, 0, BIT(36), 0);
    assert_int_equal(model_run(0, 0, G_PAGES + 1, G_PAGES - 1, W), 0);
    assert_true(model.charge.pages > 512);
    tlb_clear();
    do {
        u64 before = model.npt.mapped_pages;

        err = npt_unmap(&model.npt, 0, BIT(36), &done);
        assert_true(before - model.npt.mapped_pages <= 1024);
        calls++;
    } while (err == -E_AGAIN);
    assert_true(calls <= 600);
    model_apply(1, 0, 0, BIT(36), 0);
    compare();
    model_end();
}

/* An operation on top of others, with room for `room` more tables only. */
struct scenario {
    struct {
        int op;
        u64 gfn, mfn, pages;
        u32 flags;
    } step[3]; /* the last one that has pages is tried */
};

static int try_scenario(const struct scenario *s, bool lends, u64 room)
{
    u32 last = s->step[2].pages ? 2 : s->step[1].pages ? 1 : 0;
    u64 tables;
    int err;

    model_start(&format_svm, lends);
    for (u32 i = 0; i < last; i++)
        assert_int_equal(model_run(s->step[i].op, s->step[i].gfn, s->step[i].mfn, s->step[i].pages,
                                   s->step[i].flags),
                         0);
    tables = model.charge.pages;
    model.charge.limit = tables + room;
    err = model_run(s->step[last].op, s->step[last].gfn, s->step[last].mfn, s->step[last].pages,
                    s->step[last].flags);
    if (err)
        assert_int_equal(err, -E_NOMEM);
    if (err && s->step[last].op == 0 && s->step[last].pages == 1)
        assert_int_equal(model.charge.pages, tables);
    model.charge.limit = UINT64_MAX;
    model_end();
    return err;
}

static void out_of_memory_changes_nothing(void **state)
{
    static const struct scenario all[] = {
        {{{0, 0, 0x4000, 1, W}}},
        {{{0, BIT(36) - 600, 0x4000, 600, W}}},
        {{{0, G_PAGES - 3, 0x4000, 700, W}}},
        {{{0, 512 * G_PAGES - 1, 0x4000, 2, W}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {0, 5, 0x4000, 1, W}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {0, G_PAGES - 1, 0x4000, 2, W}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {0, 0, 0x4000, 600, W}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {1, 5, 0, 1, 0}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {1, 600, 0, 512, 0}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {2, 5, 0, 1, 0}}},
        {{{0, 0, G_PAGES, G_PAGES, WX}, {2, G_PAGES - 1, 0, 1, 0}}},
        {{{0, 0, 0, G_PAGES, SOCLE_MAP_MMIO}, {0, 5, 0x4000, 1, W}}},
        {{{0, 0, 0, G_PAGES, SOCLE_MAP_MMIO}, {1, 5, 0, 1, 0}}},
        {{{0, 0, 0x4000, 700, W}, {0, 100, 0x6000, 1024, WX}, {0, 0, G_PAGES, 1024, W}}},
    };

    (void)state;
    for (u32 lends = 0; lends < 2; lends++) {
        for (u32 i = 0; i < ARRAY_SIZE(all); i++) {
            u64 room = 0;

            while (try_scenario(&all[i], lends, room))
                assert_true(++room < 20);
        }
    }
    model_start(&format_svm, true);
    model.charge.limit = 1;
    assert_int_equal(npt_init(&(struct npt){0}, &format_svm, &model.charge, true), -E_NOMEM);
    model.charge.limit = UINT64_MAX;
    model_end();
}

static void random_operations_match_the_model(void **state)
{
    u64 seed = 0x9e3779b97f4a7c15;

    (void)state;
    for (u32 i = 0; i < 12; i++) {
        struct npt_format format = *formats[i % ARRAY_SIZE(formats)];

        if (i & 4)
            format.max_exec_leaf = 0;
        model_start(&format, i & 2);
        for (u32 n = 0; n < 250; n++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            model_random_op(seed);
        }
        model_end();
    }
}

/* Lookups without a lock, on another thread; npt_flush() waits for the one that is going on. */
static u64 walks;
static bool walking, stop;
static pthread_t walker;

static void *walk_all_the_time(void *arg)
{
    u64 bad = 0;

    (void)arg;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        struct npt_leaf leaf;
        u64 gfn = walks * 37 % 2048;

        __atomic_store_n(&walking, true, __ATOMIC_SEQ_CST);
        if (npt_lookup(&model.npt, gfn << PAGE_SHIFT, &leaf) && leaf.present)
            bad += leaf.mfn != gfn + G_PAGES && leaf.mfn != gfn + 0x4000;
        __atomic_store_n(&walking, false, __ATOMIC_SEQ_CST);
        __atomic_store_n(&walks, walks + 1, __ATOMIC_RELEASE);
    }
    return (void *)bad;
}

static void wait_for_walker(void)
{
    u64 before = __atomic_load_n(&walks, __ATOMIC_SEQ_CST);

    while (__atomic_load_n(&walking, __ATOMIC_SEQ_CST) &&
           __atomic_load_n(&walks, __ATOMIC_SEQ_CST) == before)
        ;
}

static void lookups_race_with_changes(void **state)
{
    void *bad;

    (void)state;
    model_start(&format_svm, true);
    flush_hook = wait_for_walker;
    assert_int_equal(pthread_create(&walker, NULL, walk_all_the_time, NULL), 0);
    for (u32 i = 0; i < 3000; i++) {
        u64 done;

        npt_map(&model.npt, 0, G_PAGES, 2048, WX, &done);
        npt_unmap(&model.npt, 5 + i % 512, 1, &done);
        npt_protect(&model.npt, 700, 3, &done);
        npt_map(&model.npt, 0, i & 1 ? 0x4000 : G_PAGES, 1024, WX, &done);
        npt_unmap(&model.npt, 0, 512 * (i % 5 + 1), &done);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    pthread_join(walker, &bad);
    flush_hook = NULL;
    assert_null(bad);
    assert_true(walks > 1000);
    model_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entry_bits_are_the_vendors),
        cmocka_unit_test(leaf_sizes_follow_alignment),
        cmocka_unit_test(bad_ranges_and_flags_are_refused),
        cmocka_unit_test(only_dom0s_frames_are_mapped),
        cmocka_unit_test(gaining_rights_needs_no_flush),
        cmocka_unit_test(small_leaves_merge_into_a_large_one),
        cmocka_unit_test(protected_leaves_are_clean_where_hardware_logs),
        cmocka_unit_test(two_guests_count_apart),
        cmocka_unit_test(work_is_bounded),
        cmocka_unit_test(out_of_memory_changes_nothing),
        cmocka_unit_test(random_operations_match_the_model),
        cmocka_unit_test(lookups_race_with_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
