/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/gmem.c core/vlapic.c
/* The walk of guests' page tables in every mode, with rights, faults and races; copies over pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "guest_model.h"

#define GVA 0x40201000ull
#define GPA 0x7000ull

static struct vcpu *const v = &model.v;

static int translate(gva_t gva, u32 access, gpa_t *gpa)
{
    int err;

    v->event.valid = false;
    v->cr2_dirty = false;
    err = gmem_translate(v, gva, access, gpa);
    model_check_windows();
    return err;
}

static void assert_translates(gva_t gva, u32 access, gpa_t want)
{
    gpa_t gpa = ~0ull;

    assert_int_equal(translate(gva, access, &gpa), 0);
    assert_int_equal(gpa, want);
    assert_false(v->event.valid);
}

static void assert_page_fault(gva_t gva, u32 access, u32 error)
{
    gpa_t gpa;

    assert_int_equal(translate(gva, access, &gpa), -E_FAULT);
    assert_true(v->event.valid && v->event.has_error && v->cr2_dirty);
    assert_int_equal(v->event.vector, VEC_PF);
    assert_int_equal(v->event.type, EVENT_EXCEPTION);
    assert_int_equal(v->event.error, error);
    assert_int_equal(v->sregs.cr2, gva);
}

static void assert_dom0_asked(int err, gpa_t gpa, bool write, bool fetch, bool present)
{
    assert_int_equal(err, -E_AGAIN);
    assert_false(v->event.valid);
    assert_int_equal(model.page.fault.gpa, gpa);
    assert_int_equal(model.page.fault.write, write);
    assert_int_equal(model.page.fault.fetch, fetch);
    assert_int_equal(model.page.fault.present, present);
}

static void no_paging(void **state)
{
    (void)state;
    model_init(MODE_FLAT32);
    assert_translates(0x12345678, PF_WRITE, 0x12345678);
    assert_translates(0x112345678, 0, 0x12345678);
    model_init(MODE_REAL);
    assert_translates(0xffff0, PF_FETCH, 0xffff0);
}

static void small_pages(void **state)
{
    (void)state;
    for (enum model_mode mode = MODE_PAGED32; mode < MODES; mode++) {
        model_init(mode);
        model_map(GVA, GPA, PG_W);
        assert_translates(GVA + 0x123, 0, GPA + 0x123);
        assert_translates(GVA + 0xfff, PF_FETCH, GPA + 0xfff);
        assert_translates(GVA, PF_WRITE, GPA);
        if (!model_is_long(mode))
            assert_translates(GVA | 0xabc00000000ull, 0, GPA);
        assert_page_fault(GVA + 0x1000, PF_WRITE, PF_WRITE);
    }
}

static void large_pages(void **state)
{
    gva_t high = 0xffffff8040000000ull;

    (void)state;
    model_init(MODE_PAGED32);
    model_map_level(0xc0000000, 0x00800000, PG_W, 2);
    assert_translates(0xc0123456, PF_WRITE, 0x00923456);
    model_map_level(0xc0000000, 0x00800000 | 0x5aull << 13, PG_W, 2);
    assert_translates(0xc0123456, PF_WRITE, 0x5a00923456);
    v->sregs.cr4 = 0; /* without PSE the bit means nothing: the entry points to a table */
    model_map_level(0xc0000000, 0x00800000, PG_W, 2);
    assert_dom0_asked(translate(0xc0123456, 0, (gpa_t[1]){0}), 0x00800000 + 0x123 * 4, false, false,
                      false);
    model_init(MODE_PAE);
    model_map_level(0xc0000000, 0x123400000, PG_W, 2);
    assert_translates(0xc01abcde, PF_WRITE, 0x1235abcde);
    for (enum model_mode mode = MODE_LONG; mode <= MODE_LONG5; mode++) {
        model_init(mode);
        model_map_level(high, 0x40000000, PG_W, 3);
        model_map_level(high + SIZE_1G, 0x600000, PG_W, 2);
        assert_translates(high + 0x2345678, 0, 0x42345678);
        assert_translates(high + SIZE_1G + 0x12345, PF_WRITE, 0x612345);
    }
}

static void canonical(void **state)
{
    gpa_t gpa;

    (void)state;
    model_init(MODE_LONG);
    model_map(0x00007ffffffff000ull, GPA, 0);
    assert_translates(0x00007ffffffff000ull, 0, GPA);
    assert_int_equal(translate(0x0000800000000000ull, 0, &gpa), -E_FAULT);
    assert_int_equal(v->event.vector, VEC_GP);
    assert_int_equal(v->event.error, 0);
    assert_int_equal(translate(0xffff7fffffffffffull, 0, &gpa), -E_FAULT);
    assert_int_equal(v->event.vector, VEC_GP);
    model_init(MODE_LONG5);
    model_map(0x00ff800000000000ull, GPA, 0);
    assert_translates(0x00ff800000000000ull, 0, GPA);
    assert_int_equal(translate(0x0100000000000000ull, 0, &gpa), -E_FAULT);
    assert_int_equal(v->event.vector, VEC_GP);
    assert_int_equal(translate(0xfeffffffffffffffull, 0, &gpa), -E_FAULT);
    assert_int_equal(v->event.vector, VEC_GP);
}

static void not_present(void **state)
{
    (void)state;
    for (enum model_mode mode = MODE_PAGED32; mode < MODES; mode++) {
        for (u8 level = 1;; level++) {
            u32 fetch = mode == MODE_PAGED32 ? 0 : PF_FETCH;

            model_init(mode);
            if (level > model_levels())
                break;
            model_map(GVA, GPA, PG_W | PG_U);
            model_store(model_entry(GVA, level), 0xffe);
            assert_page_fault(GVA + 5, 0, 0);
            assert_page_fault(GVA + 5, PF_WRITE, PF_WRITE);
            assert_page_fault(GVA + 5, PF_FETCH, fetch);
            model_set_cpl(3);
            assert_page_fault(GVA + 5, PF_WRITE, PF_WRITE | PF_USER);
        }
    }
}

static bool rights_say(u64 upper, u64 leaf, u32 access, bool user, bool ac)
{
    bool user_page = upper & leaf & PG_U, write = upper & leaf & PG_W, nx = (upper | leaf) & PG_NX;

    if (user && !user_page)
        return false;
    if (access == PF_FETCH)
        return !nx && (user || !user_page || !(v->sregs.cr4 & CR4_SMEP));
    if (!user && user_page && (v->sregs.cr4 & CR4_SMAP) && !ac)
        return false;
    return access == 0 || write || (!user && !(v->sregs.cr0 & CR0_WP));
}

static void check_rights(u64 upper, u64 leaf, u32 access, u32 how)
{
    bool user = how & 1, ac = how & 2;
    gpa_t gpa = 0;
    int err;

    model_set_cpl(user ? 3 : 0);
    v->rflags = RFLAGS_FIXED | (ac ? BIT(18) : 0);
    v->sregs.cr0 = (v->sregs.cr0 & ~CR0_WP) | (how & 4 ? CR0_WP : 0);
    v->sregs.cr4 = (v->sregs.cr4 & ~(CR4_SMEP | CR4_SMAP)) | (how & 8 ? CR4_SMEP : 0) |
                   (how & 16 ? CR4_SMAP : 0);
    err = translate(GVA, access, &gpa);
    if (rights_say(upper, leaf, access, user, ac)) {
        assert_int_equal(err, 0);
        assert_int_equal(gpa, GPA);
    } else {
        assert_page_fault(GVA, access, PF_PRESENT | access | (user ? PF_USER : 0));
    }
}

/* All rights of a leaf and of a table above it, all kinds of access and modes of protection. */
static void rights(void **state)
{
    static const u32 accesses[] = {0, PF_WRITE, PF_FETCH};

    (void)state;
    for (u32 i = 0; i < 64; i++) {
        u64 upper = (i & 1 ? PG_W : 0) | (i & 2 ? PG_U : 0) | (i & 4 ? PG_NX : 0);
        u64 leaf = (i & 8 ? PG_W : 0) | (i & 16 ? PG_U : 0) | (i & 32 ? PG_NX : 0);
        gpa_t entry;

        model_init(MODE_LONG);
        model_map(GVA, GPA, leaf);
        entry = model_entry(GVA, 2 + i % 3);
        model_store(entry, (model_load(entry) & ~(PG_W | PG_U)) | upper);
        for (u32 how = 0; how < 32; how++)
            for (u32 a = 0; a < 3; a++)
                check_rights(upper, leaf, accesses[a], how);
    }
}

static void reserved(void **state)
{
    (void)state;
    model_init(MODE_LONG);
    model_map(GVA, GPA | BIT(48), PG_W);
    assert_page_fault(GVA, 0, PF_PRESENT | PF_RSVD);
    model_map(GVA, GPA, PG_W | PG_NX);
    assert_translates(GVA, 0, GPA);
    v->sregs.efer &= ~EFER_NXE;
    assert_page_fault(GVA, PF_FETCH, PF_PRESENT | PF_RSVD);
    model_init(MODE_LONG);
    model_map_level(GVA, 0x201000, PG_W, 2); /* bit 12 is PAT */
    assert_translates(GVA, 0, 0x200000 + (GVA & (SIZE_2M - 1)));
    model_map_level(GVA, 0x202000, PG_W, 2);
    assert_page_fault(GVA, PF_WRITE, PF_PRESENT | PF_RSVD | PF_WRITE);
    model_init(MODE_LONG);
    model_map_level(GVA, 0x40000000, PG_W, 4); /* 512 GiB pages do not exist */
    assert_page_fault(GVA, 0, PF_PRESENT | PF_RSVD);
    model_init(MODE_PAE);
    model_map(GVA, GPA | BIT(52), PG_W);
    assert_page_fault(GVA, 0, PF_PRESENT | PF_RSVD);
    model_init(MODE_PAGED32);
    model_map_level(GVA, 0x400000 | BIT(21), PG_W, 2);
    assert_page_fault(GVA, 0, PF_PRESENT | PF_RSVD);
}

static void accessed_and_dirty(void **state)
{
    (void)state;
    for (enum model_mode mode = MODE_PAGED32; mode < MODES; mode++) {
        model_init(mode);
        model_map(GVA, GPA, PG_W);
        assert_translates(GVA, 0, GPA);
        for (u8 level = 1; level <= model_levels(); level++) {
            bool root = mode == MODE_PAE && level == 3;
            u64 entry = model_load(model_entry(GVA, level));

            assert_int_equal(entry & (PG_A | PG_D), root ? 0 : PG_A);
        }
        assert_translates(GVA, PF_WRITE, GPA);
        assert_int_equal(model_load(model_entry(GVA, 1)), GPA | PG_P | PG_W | PG_A | PG_D);
        assert_int_equal(model_load(model_entry(GVA, 2)) & PG_D, 0);
    }
    model_init(MODE_LONG); /* a fault sets nothing at the leaf */
    model_map(GVA, GPA, 0);
    assert_page_fault(GVA, PF_WRITE, PF_PRESENT | PF_WRITE);
    assert_int_equal(model_load(model_entry(GVA, 1)), GPA | PG_P);
}

static void tables_not_mapped(void **state)
{
    gpa_t gpa, at;

    (void)state;
    for (u8 level = 1; level <= 4; level++) {
        model_init(MODE_LONG);
        model_map(GVA, GPA, PG_W);
        at = model_entry(GVA, level);
        model_page(at, PAGE_NONE);
        assert_dom0_asked(translate(GVA, 0, &gpa), at, false, false, false);
        v->page = NULL;
        assert_int_equal(translate(GVA, 0, &gpa), -E_INVAL);
        v->page = &model.page;
        model_page(at, PAGE_MMIO);
        assert_int_equal(translate(GVA, 0, &gpa), -E_INVAL);
        model_page(at, PAGE_READONLY); /* the accessed bit must be written */
        assert_dom0_asked(translate(GVA, 0, &gpa), at, true, false, true);
        model_page(at, PAGE_ROM);
        assert_int_equal(translate(GVA, 0, &gpa), -E_INVAL);
        model_store(at, model_load(at) | PG_A);
        assert_translates(GVA, 0, GPA);
    }
}

static void take_leaf_away(void)
{
    model_store(model_entry(GVA, 1), 0x1230);
}

static void flip_leaf(void)
{
    gpa_t at = model_entry(GVA, 1);

    model_store(at, model_load(at) ^ BIT(9));
    model.hook_at = model.window_maps + 5;
}

static void races(void **state)
{
    gpa_t gpa;

    (void)state;
    for (u32 when = 5; when <= 8; when++) { /* windows: four entries read, then four bits set */
        model_init(MODE_LONG);
        model_map(GVA, GPA, PG_W);
        model.hook = take_leaf_away;
        model.hook_at = when;
        translate(GVA, PF_WRITE, &gpa);
        assert_int_equal(model_load(model_entry(GVA, 1)), 0x1230); /* not touched */
        assert_true(v->event.valid && v->event.vector == VEC_PF && v->event.error == PF_WRITE);
    }
    model_init(MODE_LONG); /* no end of changes: the guest's own processor may look again */
    model_map(GVA, GPA, PG_W);
    assert_translates(GVA, 0, GPA);
    model.hook = flip_leaf;
    model.hook_at = model.window_maps + 5;
    assert_int_equal(translate(GVA, PF_WRITE, &gpa), -E_FAULT);
    assert_false(v->event.valid);
}

static void copies(void **state)
{
    u8 buf[0x3000], out[0x3000];

    (void)state;
    model_init(MODE_FLAT32);
    for (gpa_t gpa = 0x4000; gpa < 0x8000; gpa += PAGE_SIZE)
        model_page(gpa, PAGE_RAM);
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (u8)(i * 7 ^ i >> 8);
    for (size_t i = 0; i < sizeof(buf); i += PAGE_SIZE) {
        assert_int_equal(gmem_access_linear(v, 0x4ff0 + i, buf + i, PAGE_SIZE, PF_WRITE), 0);
        assert_int_equal(gmem_access_linear(v, 0x4ff0 + i, out + i, PAGE_SIZE, 0), 0);
    }
    assert_memory_equal(buf, out, sizeof(buf));
    assert_int_equal(*model_at(0x5000), buf[0x10]);
    assert_int_equal(*model_at(0x7fef), buf[0x2fff]);
    assert_int_equal(gmem_access(v, 0x7fff, buf, 0, PF_WRITE), 0);
    assert_int_equal(gmem_access(v, 0x5ff0, buf, 16, PF_WRITE), 0);
    assert_int_equal(gmem_access(v, 0x5ff0, out + 0x1000, 16, 0), 0);
    assert_memory_equal(out + 0x1000, buf, 16);
    model_page(0x6000, PAGE_READONLY);
    memset(buf, 0xee, sizeof(buf));
    assert_dom0_asked(gmem_access_linear(v, 0x5ffe, buf, 4, PF_WRITE), 0x6000, true, false, true);
    assert_memory_equal(model_at(0x5ffe), out + 0x100e, 2); /* nothing of it was written */
    assert_int_equal(gmem_access_linear(v, 0x5ffe, buf, 4, 0), 0);
    model_page(0x6000, PAGE_NONE);
    assert_dom0_asked(gmem_access_linear(v, 0x5ffe, buf, 4, PF_FETCH), 0x6000, false, true, false);
    v->page = NULL;
    assert_int_equal(gmem_access_linear(v, 0x5ffe, buf, 4, PF_FETCH), -E_INVAL);
    v->page = &model.page;
    model_page(0x6000, PAGE_ROM);
    assert_int_equal(gmem_access_linear(v, 0x5ffe, buf, 4, 0), 0);
    assert_int_equal(gmem_access_linear(v, 0x5ffe, buf, 4, PF_WRITE), -E_INVAL);
    model_page(0x6000, PAGE_MMIO);
    assert_int_equal(gmem_access_linear(v, 0x5ffe, buf, 4, 0), -E_INVAL);
    assert_int_equal(gmem_access(v, ~0ull - 2, buf, 2, 0), -E_AGAIN);
    model_check_windows();
}

static void linear(void **state)
{
    u8 buf[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {0};

    (void)state;
    model_init(MODE_LONG);
    model_map(GVA, GPA, PG_W);
    model_map(GVA + 0x1000, 0x3000, PG_W);
    model_page(GPA, PAGE_RAM);
    model_page(0x3000, PAGE_RAM);
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, buf, 8, PF_WRITE), 0);
    assert_int_equal(*model_at(GPA + 0xffd), 1);
    assert_int_equal(*model_at(0x3000), 4);
    assert_int_equal(*model_at(0x3004), 8);
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, out, 8, 0), 0);
    assert_memory_equal(buf, out, 8);
    model_map(GVA + 0x1000, 0x3000, 0);
    memset(buf, 0xdd, sizeof(buf));
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, buf, 8, PF_WRITE), -E_FAULT);
    assert_int_equal(v->sregs.cr2, GVA + 0x1000);
    assert_int_equal(*model_at(GPA + 0xffd), 1);
    model_map(GVA + 0x1000, 0x3000, PG_W);
    model_page(0x3000, PAGE_NONE);
    v->event.valid = false;
    assert_dom0_asked(gmem_access_linear(v, GVA + 0xffd, buf, 8, PF_WRITE), 0x3000, true, false,
                      false);
    assert_int_equal(*model_at(GPA + 0xffd), 1);
    assert_dom0_asked(gmem_access_linear(v, GVA + 0xffd, buf, 8, PF_FETCH), 0x3000, false, true,
                      false);
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, buf, 3, PF_FETCH), 0);
    model_store(model_entry(GVA + 0x1000, 1), 0); /* the next page is none of its business */
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, buf, 3, PF_FETCH), 0);
    assert_int_equal(gmem_access_linear(v, GVA + 0xffd, buf, 3, PF_WRITE), 0);
    model_check_windows();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_paging),
        cmocka_unit_test(small_pages),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(canonical),
        cmocka_unit_test(not_present),
        cmocka_unit_test(rights),
        cmocka_unit_test(reserved),
        cmocka_unit_test(accessed_and_dirty),
        cmocka_unit_test(tables_not_mapped),
        cmocka_unit_test(races),
        cmocka_unit_test(copies),
        cmocka_unit_test(linear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
