/* SPDX-License-Identifier: BSD-2-Clause */
/* Task switches between two tasks with page tables of their own: what is saved and loaded, whose
 * the faults are, and that a switch which waits for dom0 has not begun. */
// SOURCES: core/gmem.c core/vlapic.c
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "guest_model.h"

static u64 dr6;
#define read_dr6()       dr6
#define write_dr6(value) (dr6 = (value))
#include "core/task.c"

/* Linear addresses, each a page of its own; the new task's LDT and stack are in its tables only. */
#define GDT     0x10000u
#define OLD_TSS 0x20000u
#define NEW_TSS 0x30000u
#define LDT     0x40000u
#define STACK   0x50000u

#define GPA(gva) ((gva) + 0x1000000u)

enum { CODE = 0x08, DATA = 0x10, OLD = 0x18, NEW = 0x20, LOCAL = 0x28, USER = 0x30, SPARE = 0x38 };

#define FLAT_CODE 0x00cf9b000000ffffull
#define FLAT_DATA 0x00cf93000000ffffull
#define DPL(n)    ((u64)(n) << 45)

static struct vcpu *const v = &model.v;
static u64 old_cr3, new_cr3;
static u32 loads, shutdowns;
static struct socle_sregs loaded;

static void set_sregs(struct vcpu *w, const struct socle_sregs *s)
{
    assert_ptr_equal(w, v);
    loaded = *s;
    loads++;
}

static const struct vendor_ops ops = {.set_sregs = set_sregs};
const struct vendor_ops *vendor = &ops;

enum vcpu_action vcpu_shutdown(UNUSED struct vcpu *w)
{
    shutdowns++;
    return VCPU_EXIT;
}

static u64 *descriptor(u32 selector)
{
    return (u64 *)model_at(GPA(GDT) + (selector & ~7u));
}

static u32 *tss_field(u32 tss, u32 offset)
{
    return (u32 *)model_at(GPA(tss) + offset);
}

static u64 system_segment(u8 type, u32 base, u32 limit)
{
    return limit | (u64)(base & 0xffffff) << 16 | (u64)type << 40 | (u64)(base >> 24) << 56;
}

static void map(u32 gva, u64 flags)
{
    model_page(GPA(gva), PAGE_RAM);
    model_map(gva, GPA(gva), flags);
}

static void init_tss(void)
{
    *tss_field(NEW_TSS, 0x1c) = (u32)new_cr3;
    *tss_field(NEW_TSS, 0x20) = 0x4000;
    *tss_field(NEW_TSS, 0x24) = RFLAGS_FIXED | 1;
    for (u32 i = 0; i < 8; i++)
        *tss_field(NEW_TSS, 0x28 + 4 * i) = 0x100 + i;
    *tss_field(NEW_TSS, 0x38) = STACK + 0x800;
    for (u32 i = 0; i < 6; i++)
        *tss_field(NEW_TSS, 0x48 + 4 * i) = i == SOCLE_SEG_CS ? CODE : DATA;
    *tss_field(NEW_TSS, 0x48 + 4 * SOCLE_SEG_DS) = 0x0c; /* of the LDT */
    *tss_field(NEW_TSS, 0x48 + 4 * SOCLE_SEG_GS) = 0;
    *tss_field(NEW_TSS, 0x60) = LOCAL;
}

static void init_old_task(void)
{
    v->rip = 0x3000;
    v->next_rip = 0x3007;
    v->rflags = RFLAGS_FIXED | RFLAGS_IF;
    for (u32 i = 0; i < 8; i++)
        v->gpr[i] = 0x200 + i;
    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++)
        v->sregs.seg[i].selector = (u16)(0x50 + i);
    v->sregs.seg[SOCLE_SEG_TR] = (struct socle_segment){OLD_TSS, 0x67, OLD, 0x8b};
    v->sregs.gdt_base = GDT;
    v->sregs.gdt_limit = 0x3f;
    *descriptor(CODE) = FLAT_CODE;
    *descriptor(DATA) = FLAT_DATA;
    *descriptor(OLD) = system_segment(0x8b, OLD_TSS, 0x67);
    *descriptor(NEW) = system_segment(0x89, NEW_TSS, 0x67);
    *descriptor(LOCAL) = system_segment(0x82, LDT, 0xf);
    *descriptor(USER) = FLAT_DATA | DPL(3);
    *descriptor(SPARE) = FLAT_CODE | DPL(3);
}

static void start(void)
{
    model_init(MODE_PAGED32);
    loads = shutdowns = 0;
    dr6 = 0;
    old_cr3 = v->sregs.cr3;
    map(GDT, PG_W);
    map(OLD_TSS, PG_W);
    map(NEW_TSS, PG_W);
    new_cr3 = v->sregs.cr3 = model.next_table;
    model_page(new_cr3, PAGE_RAM);
    model.next_table += PAGE_SIZE;
    map(GDT, PG_W);
    map(LDT, PG_W);
    map(STACK, PG_W);
    *(u64 *)model_at(GPA(LDT) + 8) = FLAT_DATA;
    v->sregs.cr3 = old_cr3;
    init_old_task();
    init_tss();
    model_set_cpl(3); /* no matter to the accesses */
}

static bool busy(u32 selector)
{
    return *descriptor(selector) >> 41 & 1;
}

static enum vcpu_action go(enum task_source source)
{
    struct socle_sregs before = v->sregs;
    enum vcpu_action action = exit_task_switch(v, NEW, source);

    before.cr2 = v->sregs.cr2;
    v->sregs = before;
    model_check_windows();
    return action;
}

static void assert_fault(u8 vector, u32 error)
{
    assert_true(v->event.valid && v->event.has_error);
    assert_int_equal(v->event.type, EVENT_EXCEPTION);
    assert_int_equal(v->event.vector, vector);
    assert_int_equal(v->event.error, error);
}

static void assert_old_saved(u32 eip, u32 eflags)
{
    assert_int_equal(*tss_field(OLD_TSS, 0x1c), 0);
    assert_int_equal(*tss_field(OLD_TSS, 0x20), eip);
    assert_int_equal(*tss_field(OLD_TSS, 0x24), eflags);
    for (u32 i = 0; i < 8; i++)
        assert_int_equal(*tss_field(OLD_TSS, 0x28 + 4 * i), 0x200 + i);
    for (u32 i = 0; i < 6; i++)
        assert_int_equal(*tss_field(OLD_TSS, 0x48 + 4 * i), 0x50 + i);
    assert_int_equal(*tss_field(OLD_TSS, 0x60), 0);
}

static void assert_new_loaded(u64 rflags, u32 esp)
{
    static const u16 selectors[] = {DATA, CODE, DATA, 0x0c, DATA, 0, LOCAL, NEW};

    assert_int_equal(loads, 1);
    assert_int_equal(v->rip, 0x4000);
    assert_int_equal(v->rflags, rflags);
    assert_true(v->retired);
    for (u32 i = 0; i < 8; i++)
        assert_int_equal(v->gpr[i], i == RSP ? esp : 0x100 + i);
    for (u32 i = 0; i < SOCLE_SEGS; i++) {
        assert_int_equal(loaded.seg[i].selector, selectors[i]);
        assert_int_equal(!!(loaded.seg[i].attr & 0x80), i != SOCLE_SEG_GS);
    }
    assert_int_equal(loaded.seg[SOCLE_SEG_CS].attr, 0xc9b);
    assert_int_equal(loaded.seg[SOCLE_SEG_SS].limit, 0xffffffff);
    assert_int_equal(loaded.seg[SOCLE_SEG_LDTR].base, LDT);
    assert_int_equal(loaded.seg[SOCLE_SEG_TR].base, NEW_TSS);
    assert_int_equal(loaded.seg[SOCLE_SEG_TR].attr, 0x8b);
    assert_int_equal(loaded.cr3, new_cr3);
    assert_true(loaded.cr0 & CR0_TS);
}

static void test_jmp(void **state)
{
    (void)state;
    start();
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_false(v->event.valid);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | 1, STACK + 0x800);
    assert_true(busy(NEW) && !busy(OLD));
    assert_int_equal(*tss_field(NEW_TSS, 0), 0);
}

static void test_call(void **state)
{
    (void)state;
    start();
    assert_int_equal(go(TASK_CALL), VCPU_RESUME);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | RFLAGS_NT | 1, STACK + 0x800);
    assert_true(busy(NEW) && busy(OLD));
    assert_int_equal(*tss_field(NEW_TSS, 0), OLD);
}

static void test_iret(void **state)
{
    (void)state;
    start();
    *descriptor(NEW) |= BIT(41);
    v->rflags |= RFLAGS_NT;
    assert_int_equal(go(TASK_IRET), VCPU_RESUME);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | 1, STACK + 0x800);
    assert_true(busy(NEW) && !busy(OLD));
}

static void test_exception(void **state)
{
    (void)state;
    start();
    v->next_rip = v->rip;
    v->event = (struct event){true, true, VEC_DF, EVENT_EXCEPTION, 0x5a5a};
    assert_int_equal(go(TASK_GATE), VCPU_RESUME);
    assert_false(v->event.valid);
    assert_old_saved(0x3000, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | RFLAGS_NT | 1, STACK + 0x7fc);
    assert_int_equal(*(u32 *)model_at(GPA(STACK) + 0x7fc), 0x5a5a);
    assert_true(busy(NEW) && busy(OLD));
}

static void test_interrupt_pushes_nothing(void **state)
{
    (void)state;
    start();
    v->event = (struct event){true, false, 0x41, EVENT_INTERRUPT, 0};
    assert_int_equal(go(TASK_GATE), VCPU_RESUME);
    assert_false(v->event.valid);
    assert_new_loaded(RFLAGS_FIXED | RFLAGS_NT | 1, STACK + 0x800);
}

static void test_trap_flag(void **state)
{
    (void)state;
    start();
    *tss_field(NEW_TSS, 0x64) = 1;
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_int_equal(loads, 1);
    assert_true(v->event.valid && !v->event.has_error);
    assert_int_equal(v->event.vector, VEC_DB);
    assert_int_equal(dr6, BIT(15));
}

/* The switch is made, and the fault is the new task's. */
static void test_bad_selectors(void **state)
{
    static const struct {
        u32 seg, selector;
        u8 vector;
        u64 spare; /* descriptor; 0: the usual one */
    } bad[] = {
        {SOCLE_SEG_CS, 0, VEC_TS, 0},
        {SOCLE_SEG_CS, DATA, VEC_TS, 0},
        {SOCLE_SEG_CS, CODE | 3, VEC_TS, 0},
        {SOCLE_SEG_CS, SPARE, VEC_TS, 0},
        {SOCLE_SEG_CS, SPARE, VEC_TS, FLAT_CODE | DPL(1) | BIT(42)},
        {SOCLE_SEG_CS, SPARE, VEC_NP, FLAT_CODE & ~BIT(47)},
        {SOCLE_SEG_CS, 0x48, VEC_TS, 0},
        {SOCLE_SEG_SS, 0, VEC_TS, 0},
        {SOCLE_SEG_SS, CODE, VEC_TS, 0},
        {SOCLE_SEG_SS, DATA | 1, VEC_TS, 0},
        {SOCLE_SEG_SS, USER | 3, VEC_TS, 0},
        {SOCLE_SEG_SS, SPARE, VEC_TS, FLAT_DATA & ~BIT(41)},
        {SOCLE_SEG_SS, SPARE, VEC_SS, FLAT_DATA & ~BIT(47)},
        {SOCLE_SEG_DS, NEW, VEC_TS, 0},
        {SOCLE_SEG_DS, DATA | 3, VEC_TS, 0},
        {SOCLE_SEG_DS, SPARE, VEC_TS, FLAT_CODE & ~BIT(41)},
        {SOCLE_SEG_FS, SPARE, VEC_NP, FLAT_DATA & ~BIT(47)},
        {SOCLE_SEG_GS, 0x1c, VEC_TS, 0},
        {SOCLE_SEG_LDTR, DATA, VEC_TS, 0},
        {SOCLE_SEG_LDTR, 4, VEC_TS, 0},
        {SOCLE_SEG_LDTR, SPARE, VEC_TS, 0x020000000000 | 0xff},
    };

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        start();
        if (bad[i].spare)
            *descriptor(SPARE) = bad[i].spare;
        *tss_field(NEW_TSS, 0x48 + 4 * bad[i].seg) = bad[i].selector;
        assert_int_equal(go(TASK_CALL), VCPU_RESUME);
        assert_fault(bad[i].vector, bad[i].selector & ~3u);
        assert_int_equal(loads, 1);
        assert_int_equal(v->rip, 0x4000);
        assert_true(busy(NEW));
        assert_int_equal(loaded.seg[bad[i].seg].selector, bad[i].selector);
    }
}

static void test_good_selectors(void **state)
{
    static const struct {
        u32 seg, selector;
        u64 spare;
    } good[] = {
        {SOCLE_SEG_CS, SPARE, FLAT_CODE | BIT(42)},
        {SOCLE_SEG_DS, SPARE, FLAT_CODE | BIT(42)},
        {SOCLE_SEG_DS, SPARE | 3, FLAT_CODE | BIT(42)},
        {SOCLE_SEG_ES, SPARE | 3, FLAT_CODE | DPL(3)},
        {SOCLE_SEG_ES, USER | 3, 0},
        {SOCLE_SEG_FS, 3, 0},
        {SOCLE_SEG_SS, SPARE, FLAT_DATA | BIT(42)},
    };

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(good); i++) {
        start();
        if (good[i].spare)
            *descriptor(SPARE) = good[i].spare;
        *tss_field(NEW_TSS, 0x48 + 4 * good[i].seg) = good[i].selector;
        assert_int_equal(go(TASK_CALL), VCPU_RESUME);
        assert_false(v->event.valid);
        assert_int_equal(loads, 1);
    }
}

static void test_user_task(void **state)
{
    (void)state;
    start();
    for (u32 i = 0; i < 6; i++)
        *tss_field(NEW_TSS, 0x48 + 4 * i) = i == SOCLE_SEG_CS ? SPARE | 3 : USER | 3;
    v->event = (struct event){true, true, VEC_GP, EVENT_EXCEPTION, 1};
    assert_int_equal(go(TASK_GATE), VCPU_RESUME);
    assert_fault(VEC_PF, PF_PRESENT | PF_WRITE | PF_USER); /* its stack is the supervisor's */
    assert_int_equal(loads, 1);
    assert_int_equal(loaded.seg[SOCLE_SEG_SS].attr, 0xcf3);
}

/* Whatever page dom0 takes: nothing has happened; with it again, all does. */
static void test_dom0_is_asked(void **state)
{
    static const u32 pages[] = {GDT, OLD_TSS, NEW_TSS, LDT, STACK};
    static const struct event event = {true, true, VEC_GP, EVENT_EXCEPTION, 0x18};

    (void)state;
    for (u32 i = 0; i < 2 * ARRAY_SIZE(pages); i++) {
        u32 page = pages[i / 2];

        start();
        v->event = event;
        model_page(GPA(page), i % 2 ? PAGE_NONE : PAGE_READONLY);
        if (!(i % 2) && page == LDT)
            continue;
        assert_int_equal(go(TASK_GATE), VCPU_EXIT);
        assert_int_equal(model.page.exit, SOCLE_EXIT_FAULT);
        assert_int_equal(model.page.fault.gpa & PAGE_MASK, GPA(page));
        assert_memory_equal(&v->event, &event, sizeof(event));
        assert_int_equal(v->rip, 0x3000);
        assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_IF);
        assert_int_equal(v->gpr[RSP], 0x200 + RSP);
        assert_int_equal(loads, 0);
        assert_false(busy(NEW));
        model_page(GPA(page), PAGE_RAM);
        assert_int_equal(go(TASK_GATE), VCPU_RESUME);
        assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
        assert_new_loaded(RFLAGS_FIXED | RFLAGS_NT | 1, STACK + 0x7fc);
    }
}

/* The old task's faults: it has not been left. */
static void test_faults_before_the_switch(void **state)
{
    (void)state;
    start();
    model_map(OLD_TSS, GPA(OLD_TSS), 0);
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_fault(VEC_PF, PF_PRESENT | PF_WRITE);
    assert_int_equal(v->sregs.cr2, OLD_TSS + 0x20);
    assert_true(!loads && !busy(NEW) && busy(OLD) && v->rip == 0x3000);

    start();
    model_page(GPA(NEW_TSS), PAGE_MMIO);
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_fault(VEC_TS, NEW);
    assert_true(!loads && !busy(NEW) && busy(OLD));

    start();
    *descriptor(NEW) = system_segment(0x81, NEW_TSS, 0x67);
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_fault(VEC_TS, NEW);
    assert_int_equal(loads, 0);

    start();
    v->sregs.seg[SOCLE_SEG_TR].attr = 0x83;
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_fault(VEC_TS, NEW);
    assert_int_equal(loads, 0);

    start();
    v->sregs.gdt_limit = NEW + 6;
    assert_int_equal(go(TASK_JMP), VCPU_RESUME);
    assert_fault(VEC_TS, NEW);
    assert_int_equal(loads, 0);
}

static void test_double_and_triple_faults(void **state)
{
    (void)state;
    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, true, VEC_NP, EVENT_EXCEPTION, 0x18};
    assert_int_equal(go(TASK_GATE), VCPU_RESUME);
    assert_fault(VEC_DF, 0);
    assert_int_equal(loads, 1);

    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, true, VEC_DF, EVENT_EXCEPTION, 0};
    assert_int_equal(go(TASK_GATE), VCPU_EXIT);
    assert_int_equal(shutdowns, 1);

    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, false, 0x41, EVENT_INTERRUPT, 0};
    assert_int_equal(go(TASK_GATE), VCPU_RESUME);
    assert_int_equal(v->event.vector, VEC_TS);
    assert_int_equal(shutdowns, 0);
}

/* What an entry insists on, whatever the guest has in its memory (vol. 3C, 27.3.1.2). */
static void assert_may_enter(void)
{
    const struct socle_segment *cs = &loaded.seg[SOCLE_SEG_CS], *ss = &loaded.seg[SOCLE_SEG_SS];
    u8 cpl = ss->attr >> 5 & 3, dpl = cs->attr >> 5 & 3;

    assert_int_equal(cs->attr & 0x98, 0x98);
    assert_true(cs->attr & 4 ? dpl <= cpl : dpl == cpl);
    assert_true(!(ss->attr & 0x80) || (ss->attr & 0x1a) == 0x12);
    assert_int_equal(loaded.seg[SOCLE_SEG_TR].attr & 0x97, 0x83);
    assert_false(v->rip >> 32);
    assert_int_equal(v->rflags & ~0x3d7fd5ull, RFLAGS_FIXED);
    assert_false(loaded.cr3 >> 32);
}

static void test_anything(void **state)
{
    (void)state;
    srandom(1);
    for (u32 i = 0; i < 20000; i++) {
        u32 changes = (u32)random() % 6 + 1;

        start();
        for (u32 j = 0; j < changes; j++) {
            *descriptor((u32)random() % 8 * 8) ^= BIT(random() % 64);
            *tss_field(NEW_TSS, (u32)random() % 26 * 4) ^= 1u << random() % 32;
        }
        v->event = (struct event){random() & 1, random() & 1, (u8)(random() % 32),
                                  random() & 1 ? EVENT_EXCEPTION : EVENT_INTERRUPT, 0x18};
        go((enum task_source)(random() & 3));
        if (loads)
            assert_may_enter();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jmp),
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_iret),
        cmocka_unit_test(test_exception),
        cmocka_unit_test(test_interrupt_pushes_nothing),
        cmocka_unit_test(test_trap_flag),
        cmocka_unit_test(test_bad_selectors),
        cmocka_unit_test(test_good_selectors),
        cmocka_unit_test(test_user_task),
        cmocka_unit_test(test_dom0_is_asked),
        cmocka_unit_test(test_faults_before_the_switch),
        cmocka_unit_test(test_double_and_triple_faults),
        cmocka_unit_test(test_anything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
