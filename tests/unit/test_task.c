/* SPDX-License-Identifier: BSD-2-Clause */
/* Task switches between two tasks with page tables of their own: what is saved and loaded, whose
 * the faults are, and that a switch that is cut short has not begun. socle.ko makes them; here its
 * code has a model of a guest instead of Socle and a process. */
// SOURCES: core/vlapic.c
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <cmocka.h>
#include "guest_model.h"

/* What task.c has of socle_kvm.h and the kernel. */
#define SOCLE_KVM_H
#define BIT_ULL(n)        BIT(n)
#define max(a, b)         MAX(a, b)
#define min_t(type, a, b) MIN((type)(a), (type)(b))

struct sk_vcpu {
    struct socle_vcpu_page *page;
    void *buffer;
};

int sk_state_get(struct sk_vcpu *vcpu, u32 section, u32 bytes);
int sk_state_set(struct sk_vcpu *vcpu, u32 section, u32 bytes);
int sk_memory_access(struct sk_vcpu *vcpu, u64 gpa, void *data, u32 bytes, bool write);
int sk_memory_exchange(struct sk_vcpu *vcpu, u64 gpa, u64 old, u64 new, u32 bytes);
int sk_task_switch(struct sk_vcpu *vcpu);

#include "dom0-shim/kmod/task.c"

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
static u8 buffer[PAGE_SIZE] ALIGNED(8);
static struct sk_vcpu vcpu = {&model.page, buffer};
static u64 old_cr3, new_cr3, dr6;
static u32 loads, exchanges;
static bool shadow, exchange_fails;
static struct socle_sregs loaded;

/* ---- the vCPU's state, and its memory ---- */

int sk_state_get(struct sk_vcpu *w, u32 section, u32 bytes)
{
    struct event *e = &v->event;
    bool exception = e->valid && e->type == EVENT_EXCEPTION;
    struct socle_regs regs = {.rip = v->rip, .rflags = v->rflags};
    struct socle_vcpu_events events = {.exception_pending = exception,
                                       .exception_nr = e->vector,
                                       .exception_has_error = e->has_error,
                                       .exception_error = e->error,
                                       .interrupt_injected = e->valid && !exception,
                                       .shadow = shadow};
    struct socle_debug debug = {.dr6 = dr6};
    const void *from[] = {[SOCLE_STATE_REGS] = &regs,
                          [SOCLE_STATE_SREGS] = &v->sregs,
                          [SOCLE_STATE_EVENTS] = &events,
                          [SOCLE_STATE_DEBUG] = &debug};

    memcpy(regs.gpr, v->gpr, sizeof(regs.gpr));
    memcpy(w->buffer, from[section], bytes);
    return 0;
}

static void set_sregs(const struct socle_sregs *s)
{
    v->sregs.cr2 = s->cr2;
    if (s->seg[SOCLE_SEG_TR].selector == v->sregs.seg[SOCLE_SEG_TR].selector)
        return;
    loaded = *s;
    loads++;
}

static void set_events(const struct socle_vcpu_events *e)
{
    assert_false(e->interrupt_injected || e->nmi_injected);
    assert_int_equal(e->nmi_pending, 2);
    shadow = e->shadow;
    v->event = (struct event){e->exception_pending, e->exception_has_error, e->exception_nr,
                              EVENT_EXCEPTION, e->exception_error};
}

int sk_state_set(struct sk_vcpu *w, u32 section, UNUSED u32 bytes)
{
    const struct socle_regs *regs = w->buffer;

    if (section == SOCLE_STATE_SREGS) {
        set_sregs(w->buffer);
    } else if (section == SOCLE_STATE_EVENTS) {
        set_events(w->buffer);
    } else if (section == SOCLE_STATE_DEBUG) {
        dr6 = ((struct socle_debug *)w->buffer)->dr6;
    } else {
        assert_int_equal(section, SOCLE_STATE_REGS);
        memcpy(v->gpr, regs->gpr, sizeof(v->gpr));
        v->rip = regs->rip;
        v->rflags = regs->rflags;
    }
    return 0;
}

static u8 *memory_at(u64 gpa)
{
    struct model_page *p = model_find(gpa >> PAGE_SHIFT);

    return p && p->kind == PAGE_RAM ? model_at(gpa) : NULL;
}

int sk_memory_access(UNUSED struct sk_vcpu *w, u64 gpa, void *data, u32 bytes, bool write)
{
    for (u32 i = 0; i < bytes; i++) {
        u8 *at = memory_at(gpa + i), *byte = (u8 *)data + i;

        if (!at)
            return -EFAULT;
        if (write)
            *at = *byte;
        else
            *byte = *at;
    }
    return 0;
}

int sk_memory_exchange(UNUSED struct sk_vcpu *w, u64 gpa, u64 old, u64 new, u32 bytes)
{
    u8 *at = memory_at(gpa);

    exchanges++;
    assert_int_equal(gpa % bytes, 0);
    if (!at)
        return -EFAULT;
    if (exchange_fails || memcmp(at, &old, bytes) != 0)
        return -EAGAIN;
    memcpy(at, &new, bytes);
    return 0;
}

/* ---- the two tasks ---- */

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

static void start_in(enum model_mode mode)
{
    model_init(mode);
    loads = exchanges = 0;
    dr6 = 0;
    shadow = true;
    exchange_fails = false;
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

static void start(void)
{
    start_in(MODE_PAGED32);
}

static bool busy(u32 selector)
{
    return *descriptor(selector) >> 41 & 1;
}

static int go(u8 source)
{
    model.page.task.next_rip = v->next_rip;
    model.page.task.selector = NEW;
    model.page.task.source = source;
    return sk_task_switch(&vcpu);
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
    assert_false(shadow);
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
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
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
    assert_int_equal(go(SOCLE_TASK_CALL), 0);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | X86_EFLAGS_NT | 1, STACK + 0x800);
    assert_true(busy(NEW) && busy(OLD));
    assert_int_equal(*tss_field(NEW_TSS, 0), OLD);
}

static void test_iret(void **state)
{
    (void)state;
    start();
    *descriptor(NEW) |= BIT(41);
    v->rflags |= X86_EFLAGS_NT;
    assert_int_equal(go(SOCLE_TASK_IRET), 0);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | 1, STACK + 0x800);
    assert_true(busy(NEW) && !busy(OLD));
}

static void test_exception(void **state)
{
    (void)state;
    start();
    v->next_rip = v->rip;
    v->event = (struct event){true, true, DF, EVENT_EXCEPTION, 0x5a5a};
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_false(v->event.valid);
    assert_old_saved(0x3000, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | X86_EFLAGS_NT | 1, STACK + 0x7fc);
    assert_int_equal(*(u32 *)model_at(GPA(STACK) + 0x7fc), 0x5a5a);
    assert_true(busy(NEW) && busy(OLD));
}

static void test_interrupt_pushes_nothing(void **state)
{
    (void)state;
    start();
    v->event = (struct event){true, false, 0x41, EVENT_INTERRUPT, 0};
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_false(v->event.valid);
    assert_new_loaded(RFLAGS_FIXED | X86_EFLAGS_NT | 1, STACK + 0x800);
}

static void test_trap_flag(void **state)
{
    (void)state;
    start();
    *tss_field(NEW_TSS, 0x64) = 1;
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_int_equal(loads, 1);
    assert_true(v->event.valid && !v->event.has_error);
    assert_int_equal(v->event.vector, DB);
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
        {SOCLE_SEG_CS, 0, TS, 0},
        {SOCLE_SEG_CS, DATA, TS, 0},
        {SOCLE_SEG_CS, CODE | 3, TS, 0},
        {SOCLE_SEG_CS, SPARE, TS, 0},
        {SOCLE_SEG_CS, SPARE, TS, FLAT_CODE | DPL(1) | BIT(42)},
        {SOCLE_SEG_CS, SPARE, NP, FLAT_CODE & ~BIT(47)},
        {SOCLE_SEG_CS, 0x48, TS, 0},
        {SOCLE_SEG_SS, 0, TS, 0},
        {SOCLE_SEG_SS, CODE, TS, 0},
        {SOCLE_SEG_SS, DATA | 1, TS, 0},
        {SOCLE_SEG_SS, USER | 3, TS, 0},
        {SOCLE_SEG_SS, SPARE, TS, FLAT_DATA & ~BIT(41)},
        {SOCLE_SEG_SS, SPARE, SS, FLAT_DATA & ~BIT(47)},
        {SOCLE_SEG_DS, NEW, TS, 0},
        {SOCLE_SEG_DS, DATA | 3, TS, 0},
        {SOCLE_SEG_DS, SPARE, TS, FLAT_CODE & ~BIT(41)},
        {SOCLE_SEG_FS, SPARE, NP, FLAT_DATA & ~BIT(47)},
        {SOCLE_SEG_GS, 0x1c, TS, 0},
        {SOCLE_SEG_LDTR, DATA, TS, 0},
        {SOCLE_SEG_LDTR, 4, TS, 0},
        {SOCLE_SEG_LDTR, SPARE, TS, 0x020000000000 | 0xff},
    };

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        start();
        if (bad[i].spare)
            *descriptor(SPARE) = bad[i].spare;
        *tss_field(NEW_TSS, 0x48 + 4 * bad[i].seg) = bad[i].selector;
        assert_int_equal(go(SOCLE_TASK_CALL), 0);
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
        assert_int_equal(go(SOCLE_TASK_CALL), 0);
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
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_fault(PF, PF_PRESENT | PF_WRITE | PF_USER); /* its stack is the supervisor's */
    assert_int_equal(loads, 1);
    assert_int_equal(loaded.seg[SOCLE_SEG_SS].attr, 0xcf3);
}

/* Where no memory is: nothing has happened but the fault. */
static void test_no_memory(void **state)
{
    static const u32 pages[] = {GDT, OLD_TSS, NEW_TSS, LDT, STACK};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(pages); i++) {
        start();
        v->event = (struct event){true, true, DB, EVENT_EXCEPTION, 0x18};
        model_page(GPA(pages[i]), PAGE_NONE);
        assert_int_equal(go(SOCLE_TASK_GATE), 0);
        assert_fault(TS, NEW);
        assert_int_equal(v->rip, 0x3000);
        assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_IF);
        assert_int_equal(v->gpr[RSP], 0x200 + RSP);
        assert_int_equal(loads, 0);
        assert_true(shadow);
        assert_false(busy(NEW));
    }
}

/* An entry of a page table is not as it was read: the switch has not begun, and does it again. */
static void test_page_tables_change(void **state)
{
    static const struct event event = {true, true, VEC_GP, EVENT_EXCEPTION, 0x18};

    (void)state;
    start();
    v->event = event;
    exchange_fails = true;
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_memory_equal(&v->event, &event, sizeof(event));
    assert_int_equal(v->rip, 0x3000);
    assert_true(!loads && shadow && !busy(NEW));
    exchange_fails = false;
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_old_saved(0x3007, RFLAGS_FIXED | RFLAGS_IF);
    assert_new_loaded(RFLAGS_FIXED | X86_EFLAGS_NT | 1, STACK + 0x7fc);
}

/* Accessed and dirty bits, in the two kinds of page tables, with small leaves and large ones. */
static void test_page_tables(void **state)
{
    static const enum model_mode modes[] = {MODE_PAGED32, MODE_PAE};

    (void)state;
    for (u32 i = 0; i < 2 * ARRAY_SIZE(modes); i++) {
        bool large = i % 2;

        start_in(modes[i / 2]);
        v->sregs.cr3 = new_cr3;
        if (large) {
            memset(model_at(model_entry(0, 2) & PAGE_MASK), 0, 8);
            model_map_level(0, GPA(0), PG_W, 2);
        }
        v->sregs.cr3 = old_cr3;
        v->event = (struct event){true, true, DF, EVENT_EXCEPTION, 0x5a5a};
        assert_int_equal(go(SOCLE_TASK_GATE), 0);
        assert_new_loaded(RFLAGS_FIXED | X86_EFLAGS_NT | 1, STACK + 0x7fc);
        assert_int_equal(*(u32 *)model_at(GPA(STACK) + 0x7fc), 0x5a5a);
        assert_int_equal(model_load(model_entry(NEW_TSS, 1)) & (PG_A | PG_D), PG_A | PG_D);
        assert_int_equal(model_load(model_entry(NEW_TSS, 2)) & (PG_A | PG_D), PG_A);
        v->sregs.cr3 = new_cr3;
        assert_true(model_load(model_entry(0, 2)) & PG_A);
        if (large)
            assert_true(model_load(model_entry(0, 2)) & PG_D);
        else
            assert_int_equal(model_load(model_entry(LDT, 1)) & (PG_A | PG_D), PG_A);
        v->sregs.cr3 = old_cr3;
        assert_true(exchanges && busy(NEW));
    }
}

/* Whose bits are reserved. */
static void test_bad_page_tables(void **state)
{
    static const struct {
        enum model_mode mode;
        u8 level;
        u64 bits;
        bool refused;
    } cases[] = {
        {MODE_PAGED32, 1, 0, false},  {MODE_PAGED32, 2, PG_PS | BIT(21), true},
        {MODE_PAE, 1, BIT(52), true}, {MODE_PAE, 1, BIT(48), true},
        {MODE_PAE, 2, BIT(62), true}, {MODE_PAE, 2, PG_PS | BIT(13), true},
        {MODE_PAE, 1, PG_NX, false},
    };

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        gpa_t at;

        start_in(cases[i].mode);
        at = model_entry(OLD_TSS, cases[i].level);
        model_store(at, model_load(at) | cases[i].bits);
        assert_int_equal(go(SOCLE_TASK_JMP), 0);
        assert_int_equal(loads, !cases[i].refused);
        if (cases[i].refused) {
            assert_true(v->event.valid && v->event.vector == PF);
            assert_true(v->event.error & PF_RSVD);
        }
    }
}

/* The old task's faults: it has not been left. */
static void test_faults_before_the_switch(void **state)
{
    (void)state;
    start();
    model_map(OLD_TSS, GPA(OLD_TSS), 0);
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_fault(PF, PF_PRESENT | PF_WRITE);
    assert_int_equal(v->sregs.cr2, OLD_TSS + 0x20);
    assert_true(!loads && !busy(NEW) && busy(OLD) && v->rip == 0x3000);

    start();
    model_page(GPA(NEW_TSS), PAGE_MMIO);
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_fault(TS, NEW);
    assert_true(!loads && !busy(NEW) && busy(OLD));

    start();
    *descriptor(NEW) = system_segment(0x81, NEW_TSS, 0x67);
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_fault(TS, NEW);
    assert_int_equal(loads, 0);

    start();
    v->sregs.seg[SOCLE_SEG_TR].attr = 0x83;
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_fault(TS, NEW);
    assert_int_equal(loads, 0);

    start();
    v->sregs.gdt_limit = NEW + 6;
    assert_int_equal(go(SOCLE_TASK_JMP), 0);
    assert_fault(TS, NEW);
    assert_int_equal(loads, 0);
}

static void test_double_and_triple_faults(void **state)
{
    (void)state;
    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, true, NP, EVENT_EXCEPTION, 0x18};
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_fault(DF, 0);
    assert_int_equal(loads, 1);

    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, true, DF, EVENT_EXCEPTION, 0};
    assert_int_equal(go(SOCLE_TASK_GATE), 1);

    start();
    *tss_field(NEW_TSS, 0x4c) = 0;
    v->event = (struct event){true, false, 0x41, EVENT_INTERRUPT, 0};
    assert_int_equal(go(SOCLE_TASK_GATE), 0);
    assert_int_equal(v->event.vector, TS);
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
        go((u8)(random() & 3));
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
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_page_tables_change),
        cmocka_unit_test(test_page_tables),
        cmocka_unit_test(test_bad_page_tables),
        cmocka_unit_test(test_faults_before_the_switch),
        cmocka_unit_test(test_double_and_triple_faults),
        cmocka_unit_test(test_anything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
