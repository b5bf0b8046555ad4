/* SPDX-License-Identifier: BSD-2-Clause */
/* What dom0 may set as a guest's state, and whether a processor would enter it: all that real users
 * set, and what else is refused by core/state.c, by the processor, or by nobody. A refused entry
 * costs that guest its life, and nobody else anything. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c tests/unit/fake_vmx.c tests/unit/vmcs_check.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_vmx.h"
#include "core/exits.h"
#include "core/cpuid.h"
#include "core/gmem.h"
#include "core/log.h"

/* fake_machine has some of their names. */
#define state_access real_state_access
#define msr_complete real_msr_complete
#include "core/state.c"
#include "core/msr.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define ROUNDS 40000

u32 host_mxcsr_mask = 0xffff;

static struct vcpu *g;
static u64 guest_memory[4];
static const struct vmcs_rule *broken[8];
static u32 broken_count, entries, log_lines;

/* A processor that ends each guest at once: by a triple fault, or without having entered it. */
bool vmx_enter(UNUSED u64 *gpr, UNUSED bool launched)
{
    broken_count = fake_vmx_check(broken, ARRAY_SIZE(broken));
    entries++;
    vmwrite(VMCS_QUALIFICATION, 0);
    vmwrite(VMCS_IDT_INFO, 0);
    if (broken_count && !strncmp(broken[0]->section, "27.2.", 5))
        return false;
    vmwrite(VMCS_EXIT_REASON, broken_count ? BIT(31) | 33 : VMX_EXIT_TRIPLE_FAULT);
    if (!broken_count)
        vmwrite(VMCS_ENTRY_INTR_INFO, 0);
    return true;
}

bool log_allowed(struct log_limit *limit)
{
    log_lines++;
    limit->count++;
    return true;
}

int gmem_access(UNUSED struct vcpu *v, UNUSED gpa_t gpa, void *buf, size_t len, UNUSED u32 access)
{
    memcpy(buf, guest_memory, len);
    return 0;
}

u64 cpuid_cr4_mask(UNUSED const struct vcpu *v)
{
    return 0x770fff;
}

u64 cpuid_efer_mask(UNUSED const struct vcpu *v)
{
    return EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
}

bool cpuid_xcr0_legal(UNUSED const struct vcpu *v, u64 xcr0)
{
    return xcr0 == 1;
}

int cpuid_set(UNUSED struct vcpu *v, UNUSED const struct socle_cpuid *entries_, UNUSED u32 n)
{
    return 0;
}

int pvclock_set_time(UNUSED struct vcpu *v, UNUSED u64 value)
{
    return 0;
}

#define FAKE_EXIT(name, ...)           \
    enum vcpu_action name(__VA_ARGS__) \
    {                                  \
        return VCPU_RESUME;            \
    }
FAKE_EXIT(exit_cpuid, UNUSED struct vcpu *v, UNUSED u64 cr4)
FAKE_EXIT(exit_io, UNUSED struct vcpu *v, UNUSED u16 port, UNUSED u8 size, UNUSED bool in)
FAKE_EXIT(exit_npf, UNUSED struct vcpu *v, UNUSED gpa_t gpa, UNUSED bool write, UNUSED bool fetch)
FAKE_EXIT(exit_emulate, UNUSED struct vcpu *v)

static int start(void **state)
{
    (void)state;
    fake_vmx_start();
    fake_start(1);
    g = vcpu_table[fake_handle(fake_domain(2, 0), 1)]; /* not the boot processor */
    fake_leave(0, VCPU_YIELD);
    memset(guest_memory, 0, sizeof(guest_memory));
    return 0;
}

/* Without the optional controls. */
static int start_plain(void **state)
{
    vendor_plain = true;
    start(state);
    vendor_plain = false;
    return 0;
}

/* g as it is, once. What the processor says to it is in broken[]: it ends with the guest, and a
 * word in the log. */
static enum vcpu_action enter(void)
{
    enum vcpu_action action;
    u32 before = entries;

    log_lines = 0;
    this_cpu()->current = g;
    vendor->load(g);
    action = vendor->run(g);
    vendor->save(g);
    this_cpu()->active = NULL;
    this_cpu()->current = NULL;
    if (entries == before)
        return action;
    assert_int_equal(action, VCPU_EXIT);
    assert_int_equal(fake_page(g)->exit, broken_count ? SOCLE_EXIT_FAILED : SOCLE_EXIT_SHUTDOWN);
    assert_true(log_lines);
    return action;
}

static void expect_entry(const char *what)
{
    u32 before = entries;

    enter();
    assert_int_equal(entries, before + 1);
    for (u32 i = 0; i < MIN(broken_count, ARRAY_SIZE(broken)); i++)
        print_error("%s: %s, %s\n", what, broken[i]->section, broken[i]->text);
    assert_int_equal(broken_count, 0);
}

/* ---- states ---- */

struct mode {
    const char *name;
    u64 cr0, cr4, efer, rip, rflags;
    struct socle_segment cs, data, ss, fs, ldtr, tr;
};

#define SEGMENT(b, l, s, a)                               \
    {                                                     \
        .base = b, .limit = l, .selector = s, .attr = (a) \
    }
#define REAL(sel)         SEGMENT((u64)(sel) << 4, 0xffff, sel, 0x93)
#define VIRTUAL_8086(sel) SEGMENT((u64)(sel) << 4, 0xffff, sel, 0xf3)
#define FLAT(sel, attr)   SEGMENT(0, 0xffffffff, sel, attr)
#define SYSTEM(sel, attr) SEGMENT(0x5000, 0x67, sel, attr)
#define NO_SEGMENT        SEGMENT(0, 0, 0, 0)
#define LINUX_TSS         SEGMENT(0xfffffe0000003000, 0x206f, 0x40, 0x8b)

/* As firmware, kernels and KVM's tests have them. */
static const struct mode modes[] = {
    {"real", 0x60000010, 0, 0, 0xfff0, 2, SEGMENT(0xffff0000, 0xffff, 0xf000, 0x9b), REAL(0),
     REAL(0), REAL(0), SEGMENT(0, 0xffff, 0, 0x82), SEGMENT(0, 0xffff, 0, 0x8b)},
    {"real, not accessed", 0x10, 0, 0, 0x7c00, 0x202, SEGMENT(0, 0xffff, 0, 0x9a),
     SEGMENT(0, 0xffff, 0, 0x92), SEGMENT(0, 0xffff, 0, 0x92), SEGMENT(0, 0xffff, 0, 0x92),
     NO_SEGMENT, SEGMENT(0, 0xffff, 0, 0x83)},
    {"real, code like data", 0x10, 0, 0, 0x7c00, 0x202, REAL(0x100), REAL(0), REAL(0x900), REAL(0),
     NO_SEGMENT, SEGMENT(0, 0xffff, 0, 0x8b)},
    {"unreal", 0x10, 0, 0, 0x8000, 0x46, REAL(0xf000), FLAT(0, 0x893), REAL(0xe000), FLAT(0, 0x893),
     NO_SEGMENT, SEGMENT(0, 0xffff, 0, 0x8b)},
    {"SeaBIOS, 32 bits", 0x11, 0, 0, 0xfffd0000, 2, FLAT(8, 0xc9b), FLAT(16, 0xc93),
     FLAT(16, 0xc93), FLAT(16, 0xc93), NO_SEGMENT, SEGMENT(0, 0xffff, 0, 0x8b)},
    {"16-bit protected mode, 16-bit TSS", 0x11, 0, 0, 0x1234, 0x202,
     SEGMENT(0xf0000, 0xffff, 0x18, 0x9b), FLAT(16, 0xc93), SEGMENT(0, 0xffff, 0x20, 0x93),
     NO_SEGMENT, SYSTEM(0x28, 0x82), SYSTEM(0x30, 0x83)},
    {"virtual-8086", 0x80000011, 1, 0, 0x100, 0x23202, VIRTUAL_8086(0x100), VIRTUAL_8086(0x200),
     VIRTUAL_8086(0x200), VIRTUAL_8086(0x200), NO_SEGMENT, SYSTEM(0x30, 0x8b)},
    {"Linux, 32 bits, user", 0x80050033, 0x6d0, 0, 0x8048000, 0x202, FLAT(0x73, 0xcfb),
     FLAT(0x7b, 0xcf3), FLAT(0x7b, 0xcf3), SEGMENT(0xb7d00000, 0xffffffff, 0x33, 0xdf3),
     SYSTEM(0x28, 0x82), SYSTEM(0x80, 0x8b)},
    {"Linux, PAE", 0x80050033, 0x6f0, 0x800, 0xc1000000, 0x246, FLAT(0x60, 0xc9b),
     FLAT(0x7b, 0xcf3), FLAT(0x68, 0xc93), FLAT(0xd8, 0xc93), NO_SEGMENT, SYSTEM(0x80, 0x8b)},
    {"Linux, 64 bits, kernel", 0x80050033, 0x7306f0, 0xd01, 0xffffffff81000000, 0x246,
     FLAT(0x10, 0xa9b), NO_SEGMENT, FLAT(0x18, 0xc93), NO_SEGMENT, NO_SEGMENT, LINUX_TSS},
    {"Linux, 64 bits, kernel, no SS", 0x80050033, 0x6f0, 0xd01, 0xffffffff81000000, 2,
     FLAT(0x10, 0xa9b), NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, LINUX_TSS},
    {"Linux, 64 bits, user", 0x80050033, 0x206f0, 0xd01, 0x7fffffffe000, 0x246, FLAT(0x33, 0xafb),
     NO_SEGMENT, FLAT(0x2b, 0xcf3), SEGMENT(0x7ffff7d8a740, 0xffffffff, 0, 0), NO_SEGMENT,
     LINUX_TSS},
    {"Linux, 64 bits, 32-bit user", 0x80050033, 0x206f0, 0xd01, 0xf7fd0000, 0x202,
     FLAT(0x23, 0xcfb), FLAT(0x2b, 0xcf3), FLAT(0x2b, 0xcf3), NO_SEGMENT, NO_SEGMENT, LINUX_TSS},
    {"KVM's selftests", 0x80000021, 0x220, 0xd00, 0x400000, 2, FLAT(8, 0xa9b), FLAT(16, 0x893),
     FLAT(16, 0x893), FLAT(16, 0x893), NO_SEGMENT, SEGMENT(0x10000, 0x67, 0x18, 0x8b)},
    {"KVM's selftests, all segments unusable but CS", 0x80000021, 0x220, 0xd00, 0x400000, 2,
     FLAT(8, 0xa9b), NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, NO_SEGMENT, SYSTEM(0x18, 0x8b)},
};

static void use_mode(const struct mode *m, struct socle_sregs *s)
{
    *s = (struct socle_sregs){.cr0 = m->cr0,
                              .cr3 = 0x1000,
                              .cr4 = m->cr4,
                              .efer = m->efer,
                              .gdt_limit = 0xffff,
                              .idt_limit = 0xfff,
                              .apic_base = g->lapic.base};
    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++)
        s->seg[i] = m->data;
    s->seg[SOCLE_SEG_CS] = m->cs;
    s->seg[SOCLE_SEG_SS] = m->ss;
    s->seg[SOCLE_SEG_FS] = m->fs;
    s->seg[SOCLE_SEG_LDTR] = m->ldtr;
    s->seg[SOCLE_SEG_TR] = m->tr;
}

static int set(u64 section, const void *value, u32 len)
{
    static u8 buffer[PAGE_SIZE] ALIGNED(4096);

    memcpy(buffer, value, len);
    return real_state_access(g, section, buffer, len, true);
}

static void set_ip(u64 rip, u64 rflags)
{
    struct socle_regs r = {.rip = rip, .rflags = rflags};

    assert_int_equal(set(SOCLE_STATE_REGS, &r, sizeof(r)), 0);
}

static void set_mode(const struct mode *m)
{
    struct socle_sregs s;

    vlapic_reset(&g->lapic, false);
    vcpu_reset(g);
    g->activity = ACTIVITY_RUN;
    use_mode(m, &s);
    assert_int_equal(set(SOCLE_STATE_SREGS, &s, sizeof(s)), 0);
    set_ip(m->rip, m->rflags);
}

static void test_modes(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++) {
        set_mode(&modes[i]);
        expect_entry(modes[i].name);
        expect_entry(modes[i].name); /* saved and loaded */
    }
}

/* What is read and set again is still legal: QEMU does so all the time. */
static void test_round_trip(void **state)
{
    struct socle_sregs s;

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++) {
        set_mode(&modes[i]);
        assert_int_equal(real_state_access(g, SOCLE_STATE_SREGS, &s, sizeof(s), false), 0);
        assert_int_equal(set(SOCLE_STATE_SREGS, &s, sizeof(s)), 0);
        expect_entry(modes[i].name);
    }
}

/* The local APIC in each of its modes, and interrupts for it that can be taken or not. */
static void try_apic(const struct mode *m, u64 base, u64 rflags, u8 cr8)
{
    struct vlapic_effect effect = {0};
    struct socle_sregs s;

    set_mode(m);
    vlapic_mmio_write(&g->lapic, VLAPIC_REG_SVR << 4, APIC_SVR_ENABLE | 0xff, 0, &effect);
    use_mode(m, &s);
    s.apic_base = APIC_DEFAULT_PA | base;
    s.cr8 = cr8;
    assert_int_equal(set(SOCLE_STATE_SREGS, &s, sizeof(s)), 0);
    set_ip(m->rip, rflags);
    for (u8 vector = 0x20; vector >= 0x20; vector += 0x20) {
        vlapic_post(&g->lapic, vector, vector & 0x40);
        expect_entry(m->name);
    }
}

static void test_apic_modes(void **state)
{
    static const u64 bases[] = {0, APIC_BASE_ENABLE, APIC_BASE_ENABLE | APIC_BASE_X2APIC};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++)
        for (u32 j = 0; j < ARRAY_SIZE(bases); j++)
            for (u8 cr8 = 0; cr8 < 16; cr8 += 5) {
                try_apic(&modes[i], bases[j], modes[i].rflags & ~RFLAGS_IF, cr8);
                try_apic(&modes[i], bases[j], modes[i].rflags | RFLAGS_IF, cr8);
            }
}

/* ---- reset, INIT, SIPI ---- */

static void test_reset(void **state)
{
    (void)state;
    vlapic_reset(&g->lapic, false);
    vcpu_reset(g);
    g->activity = ACTIVITY_RUN;
    expect_entry("reset");
}

static void test_init_and_sipi(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++) {
        set_mode(&modes[i]);
        g->init_pending = true;
        vcpu_set_pending(g, PENDING_EVENT);
        assert_int_equal(enter(), VCPU_BLOCK);
        g->sipi_pending = true;
        g->sipi_vector = 0x9a;
        vcpu_set_pending(g, PENDING_EVENT);
        expect_entry("SIPI");
        assert_int_equal(*fake_vmcs(g, VMCS_GUEST_BASE + 2 * SOCLE_SEG_CS), 0x9a000);
    }
}

/* ---- events ---- */

static const u64 flags[] = {0, RFLAGS_IF, RFLAGS_TF, RFLAGS_IF | RFLAGS_TF};

/* In each mode with each combination of flags and of what blocks events. */
static void try_event(const struct mode *m, u32 which, struct socle_vcpu_events e)
{
    u64 rflags = (m->rflags & ~(RFLAGS_IF | RFLAGS_TF)) | flags[which & 3];
    bool legal = (rflags & RFLAGS_IF) || !e.interrupt_injected || e.interrupt_soft;

    e.shadow = which >> 2 & 1;
    e.nmi_masked = which >> 3 & 1;
    e.nmi_pending = which >> 4 & 1;
    set_mode(m);
    assert_int_equal(set(SOCLE_STATE_EVENTS, &e, sizeof(e)), 0);
    set_ip(m->rip, rflags);
    if (which >> 5 & 1)
        vlapic_post(&g->lapic, 0x55, false);
    if (legal)
        expect_entry(m->name);
}

static void in_all_modes(const struct socle_vcpu_events *e)
{
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++)
        for (u32 which = 0; which < 64; which++)
            try_event(&modes[i], which, *e);
}

static void test_no_event(void **state)
{
    (void)state;
    in_all_modes(&(struct socle_vcpu_events){0});
}

static void test_interrupts(void **state)
{
    (void)state;
    in_all_modes(&(struct socle_vcpu_events){.interrupt_injected = 1, .interrupt_nr = 0xff});
    in_all_modes(&(struct socle_vcpu_events){.interrupt_injected = 1, .interrupt_soft = 1});
}

static void test_nmi(void **state)
{
    (void)state;
    in_all_modes(&(struct socle_vcpu_events){.nmi_injected = 1});
}

/* Error codes as the processor's own exceptions have them. */
static void test_exceptions(void **state)
{
    (void)state;
    for (u8 i = 0; i < 21; i++)
        if (i != VEC_NMI)
            in_all_modes(&(struct socle_vcpu_events){.exception_pending = 1,
                                                     .exception_nr = i,
                                                     .exception_has_error = 0x27d00 >> i & 1,
                                                     .exception_error = 0xdeadbeef});
}

/* ---- anything ---- */

static u64 seed;

static u64 any(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1d >> 7;
}

static bool one_in(u32 n)
{
    return any() % n == 0;
}

static u64 odd_number(void)
{
    static const u64 odd[] = {0,       1,          0xfff,      0x1000,  0xffff,
                              0xfffff, 0x80000000, 0xffffffff, BIT(32), 0x7fffffffffff,
                              BIT(47), BIT(51),    BIT(52),    BIT(63), 0xffff800000000000,
                              ~0ull};

    return one_in(3) ? any() : odd[any() % ARRAY_SIZE(odd)];
}

static u64 changed(u64 value, u32 bits)
{
    return one_in(4) ? odd_number() : value ^ BIT(any() % bits);
}

static void change_segment(struct socle_segment *s)
{
    switch (any() % 4) {
    case 0:
        s->base = changed(s->base, 64);
        break;
    case 1:
        s->limit = (u32)changed(s->limit, 32);
        break;
    case 2:
        s->selector = (u16)changed(s->selector, 16);
        break;
    default:
        s->attr = (u16)changed(s->attr, 12) & 0xfff;
        break;
    }
}

static void change_sregs(struct socle_sregs *s)
{
    u64 *const wide[] = {&s->gdt_base, &s->idt_base, &s->cr2, &s->cr3};

    switch (any() % 8) {
    case 0:
        s->cr0 = changed(s->cr0, 32);
        break;
    case 1:
        s->cr4 = changed(s->cr4, 23);
        break;
    case 2:
        s->efer = changed(s->efer, 13);
        break;
    case 3:
        s->gdt_limit = (u32)odd_number();
        break;
    case 4:
        *wide[any() % ARRAY_SIZE(wide)] = odd_number();
        break;
    default:
        change_segment(&s->seg[any() % SOCLE_SEGS]);
        break;
    }
}

static void set_odd_events(void)
{
    struct socle_vcpu_events e = {.exception_pending = one_in(3),
                                  .exception_nr = (u8)(any() % 40),
                                  .exception_has_error = one_in(2),
                                  .exception_error = (u32)any(),
                                  .interrupt_injected = one_in(4),
                                  .interrupt_nr = (u8)any(),
                                  .interrupt_soft = one_in(4),
                                  .shadow = (u8)any(),
                                  .nmi_injected = one_in(4),
                                  .nmi_pending = one_in(2),
                                  .nmi_masked = one_in(2)};

    set(SOCLE_STATE_EVENTS, &e, sizeof(e));
}

static void set_odd_msr(void)
{
    static const u32 index[] = {MSR_EFER,         MSR_PAT,           MSR_FS_BASE,
                                MSR_GS_BASE,      MSR_SYSENTER_CS,   MSR_SYSENTER_ESP,
                                MSR_SYSENTER_EIP, MSR_KERNEL_GS_BASE};
    struct socle_msr m = {.index = index[any() % ARRAY_SIZE(index)], .value = odd_number()};

    set(SOCLE_STATE_MSRS, &m, sizeof(m));
}

/* A mode with a few changes, of which Socle takes some. */
static void set_odd_state(void)
{
    const struct mode *m = &modes[any() % ARRAY_SIZE(modes)];
    struct socle_debug debug = {.dr6 = odd_number(), .dr7 = odd_number()};
    struct socle_sregs s;

    set_mode(m);
    for (u32 i = 0; i < 4; i++) {
        use_mode(m, &s);
        for (u32 j = (u32)(any() % 4); j; j--)
            change_sregs(&s);
        set(SOCLE_STATE_SREGS, &s, sizeof(s));
    }
    for (u32 i = 0; i < 4; i++)
        guest_memory[i] = odd_number();
    if (one_in(2))
        set_ip(one_in(2) ? odd_number() : m->rip, m->rflags ^ BIT(any() % 32));
    if (one_in(2))
        set_odd_events();
    if (one_in(2))
        set_odd_msr();
    if (one_in(4))
        set(SOCLE_STATE_DEBUG, &debug, sizeof(debug));
    if (one_in(4))
        vlapic_post(&g->lapic, 0x55, false);
}

/* All that makes a processor refuse what dom0 has set: no program can bring a processor into such a
 * state, so none that was read from a vCPU is among it. */
static const char *const refused[] = {
    "event: an error code with the vectors that have one, and no others",
    "CR4.PCIDE: in IA-32e mode only", /* KVM takes it, and its selftest wants that */
    "TR selector: in the GDT",
    "LDTR selector: in the GDT",
    "virtual-8086: bases are selectors * 16",
    "CS: base of 32 bits",
    "SS, DS, ES: bases of 32 bits",
    "virtual-8086: limits of 64 KiB",
    "virtual-8086: access rights f3",
    "CS: accessed code, or data in an unrestricted guest",
    "SS: accessed, writable data",
    "DS, ES, FS, GS: accessed and readable",
    "segments: S is 1",
    "CS: DPL by its type",
    "SS: DPL 0 in real mode",
    "segments: present",
    "segments: granularity as the limit has it",
    "TR: a busy TSS",
    "TR: S, P, reserved bits",
    "TR: granularity as the limit has it",
    "LDTR: type, S, P, reserved bits",
    "LDTR: granularity as the limit has it",
    "RIP: 32 bits outside of 64-bit code",
    "RIP: its high bits are equal in 64-bit code",
    "RFLAGS.VM: in protected mode only",
    "RFLAGS.IF: set when an interrupt is injected",
};

static bool may_be_refused(const struct vmcs_rule *r)
{
    for (u32 i = 0; i < ARRAY_SIZE(refused); i++)
        if (!strcmp(refused[i], r->text))
            return true;
    return false;
}

static void test_anything(void **state)
{
    u32 count[256] = {0}, bad = 0, entered = 0;

    (void)state;
    seed = 0x5eed;
    for (u32 i = 0; i < ROUNDS; i++) {
        set_odd_state();
        enter();
        entered += broken_count == 0;
        for (u32 j = 0; j < MIN(broken_count, ARRAY_SIZE(broken)); j++)
            count[broken[j] - vmcs_rules]++;
    }
    for (u32 i = 0; i < vmcs_rule_count; i++) {
        if (!!count[i] == may_be_refused(&vmcs_rules[i]))
            continue;
        print_error("%s, %s: %u times\n", vmcs_rules[i].section, vmcs_rules[i].text, count[i]);
        bad++;
    }
    assert_int_equal(bad, 0);
    assert_true(entered > ROUNDS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_modes, start),
        cmocka_unit_test_setup(test_modes, start_plain),
        cmocka_unit_test_setup(test_round_trip, start),
        cmocka_unit_test_setup(test_apic_modes, start),
        cmocka_unit_test_setup(test_reset, start),
        cmocka_unit_test_setup(test_init_and_sipi, start),
        cmocka_unit_test_setup(test_no_event, start),
        cmocka_unit_test_setup(test_interrupts, start),
        cmocka_unit_test_setup(test_nmi, start),
        cmocka_unit_test_setup(test_exceptions, start),
        cmocka_unit_test_setup(test_anything, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
