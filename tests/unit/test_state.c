/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/state.c core/cpuid.c core/msr.c core/pvclock.c core/vlapic.c core/debug.c
/* The sections of a vCPU's state: what is set is got again, and what the processor would refuse is
 * refused. */
#include "tests/unit/vcpu_fake.h"

#include "core/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct domain guest;
static struct vcpu *vcpus[1], *v;
static u8 buf[4096] ALIGNED(4096);

static int setup(void **state)
{
    struct socle_cpuid t[] = {
        {.leaf = 0, .eax = 0xd},
        {.leaf = 1, .ecx = BIT(17) | BIT(26)},
        {.leaf = 7, .by_subleaf = 1, .ebx = ~0u, .ecx = ~0u},
        {.leaf = 0xd, .by_subleaf = 1, .eax = 7},
        {.leaf = 0x80000000, .eax = 0x80000001},
        {.leaf = 0x80000001, .edx = BIT(29) | BIT(20)},
    };

    (void)state;
    memset(&fake, 0, sizeof(fake));
    memset(buf, 0, sizeof(buf));
    guest = (struct domain){.id = 1, .flags = DOMAIN_LAPIC, .vcpus = vcpus, .vcpu_count = 1};
    cpuid_init();
    v = vcpus[0] = fake_vcpu(&guest, 0);
    cpuid_set(v, t, ARRAY_SIZE(t));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_free(v);
    return 0;
}

static void test_lengths(void **state)
{
    static const u32 bytes[] = {0,
                                sizeof(struct socle_regs),
                                sizeof(struct socle_sregs),
                                4096,
                                8,
                                0,
                                1024,
                                sizeof(struct socle_vcpu_events),
                                sizeof(struct socle_debug),
                                4,
                                0,
                                0,
                                0,
                                8};

    (void)state;
    for (u32 section = 0; section < 20; section++) {
        u32 right = section < ARRAY_SIZE(bytes) ? bytes[section] : 0;

        if (section == SOCLE_STATE_MSRS || section == SOCLE_STATE_CPUID ||
            section == SOCLE_STATE_GUEST_DEBUG || section == SOCLE_STATE_TSC_KHZ ||
            section == SOCLE_STATE_TRAPS)
            continue;
        for (u32 len = 0; len <= 4096; len++) {
            if (right && len == right)
                continue;
            assert_int_equal(state_access(v, section, buf, len, false), -E_INVAL);
            assert_int_equal(state_access(v, section, buf, len, true), -E_INVAL);
        }
        if (right)
            assert_int_equal(state_access(v, section, buf, right, false), 0);
    }
    assert_int_equal(state_access(v, SOCLE_STATE_MSRS, buf, 15, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_MSRS, buf, 257 * 16, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_CPUID, buf, 31, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_CPUID, buf, 129 * 32, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_CPUID, buf, 32, false), -E_INVAL);
    assert_int_equal(
        state_access(v, SOCLE_STATE_GUEST_DEBUG, buf, sizeof(struct socle_guest_debug), false),
        -E_INVAL);
    assert_int_equal(state_access(v, 0xffffffff, buf, 8, true), -E_INVAL);
}

static void test_regs(void **state)
{
    struct socle_regs *r = (void *)buf;

    (void)state;
    for (u32 i = 0; i < 16; i++)
        r->gpr[i] = i * 0x1111111111111111ull;
    r->rip = 0xfff0;
    r->rflags = ~0ull;
    assert_int_equal(state_access(v, SOCLE_STATE_REGS, buf, sizeof(*r), true), 0);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(state_access(v, SOCLE_STATE_REGS, buf, sizeof(*r), false), 0);
    assert_int_equal(r->gpr[RSP], 4 * 0x1111111111111111ull);
    assert_int_equal(r->rip, 0xfff0);
    assert_int_equal(r->rflags, 0x3f7fd7); /* bit 1 set; bits 3, 5, 15, 22 and up clear */
}

static struct socle_sregs long_mode(void)
{
    struct socle_sregs s = {.cr0 = CR0_PG | CR0_PE | CR0_WP,
                            .cr3 = 0x1000,
                            .cr4 = CR4_PAE,
                            .efer = EFER_LME | EFER_LMA,
                            .apic_base = 0xfee00900};

    s.seg[SOCLE_SEG_CS].attr = 0xa9b;
    s.seg[SOCLE_SEG_SS].attr = 0xc93;
    return s;
}

static int try_sregs(struct socle_sregs s)
{
    struct socle_sregs before = fake.sregs;
    u64 base = v->lapic.base;
    u8 cr8 = vlapic_cr8(&v->lapic);
    int err;

    memcpy(buf, &s, sizeof(s));
    err = state_access(v, SOCLE_STATE_SREGS, buf, sizeof(s), true);
    if (err) {
        assert_memory_equal(&before, &fake.sregs, sizeof(before));
        assert_int_equal(base, v->lapic.base);
        assert_int_equal(cr8, vlapic_cr8(&v->lapic));
    }
    return err;
}

#define REFUSED(change)                           \
    do {                                          \
        struct socle_sregs s = long_mode();       \
        change;                                   \
        assert_int_equal(try_sregs(s), -E_INVAL); \
    } while (0)
#define TAKEN(change)                       \
    do {                                    \
        struct socle_sregs s = long_mode(); \
        change;                             \
        assert_int_equal(try_sregs(s), 0);  \
    } while (0)

static void test_sregs(void **state)
{
    struct socle_sregs s, *got = (void *)buf;

    (void)state;
    TAKEN((void)s);
    REFUSED(s.cr0 |= BIT(32));
    REFUSED(s.cr0 &= ~CR0_PE);
    REFUSED(s.cr0 |= CR0_NW);
    TAKEN(s.cr0 |= CR0_NW | CR0_CD);
    REFUSED(s.cr0 &= ~CR0_PG); /* LMA without paging */
    TAKEN(s.cr0 &= ~CR0_PG; s.efer = EFER_LME; s.seg[SOCLE_SEG_CS].attr = 0xc9b);
    REFUSED(s.efer = EFER_LME);
    REFUSED(s.efer = EFER_LMA);
    REFUSED(s.efer |= EFER_SVME);
    REFUSED(s.efer |= BIT(14));
    REFUSED(s.efer |= BIT(40));
    TAKEN(s.efer |= EFER_NXE | EFER_SCE);
    REFUSED(s.cr4 = 0);
    REFUSED(s.cr4 |= CR4_VMXE);
    REFUSED(s.cr4 |= BIT(23)); /* CET */
    REFUSED(s.cr4 |= BIT(32));
    REFUSED(s.cr4 |= BIT(63));
    TAKEN(s.cr4 |= CR4_OSXSAVE);
    /* As KVM has it: only the entry checks CR4 against the mode. */
    TAKEN(s.cr0 = CR0_PE; s.efer = 0; s.seg[SOCLE_SEG_CS].attr = 0xc9b; s.cr4 = CR4_PCIDE);
    REFUSED(s.cr0 = CR0_PE; s.efer = 0);       /* a 64-bit code segment outside of long mode */
    REFUSED(s.seg[SOCLE_SEG_CS].attr = 0xe9b); /* both L and D */
    REFUSED(s.cr3 = BIT(63));
    REFUSED(s.cr3 = host_phys_mask + 1);
    REFUSED(s.cr8 = 16);
    REFUSED(s.apic_base = 0xfee00500);
    REFUSED(s.apic_base = (host_phys_mask + 1) | 0xfee00900);
    TAKEN(s.apic_base = 0x900); /* over memory: then it can't be seen */
    REFUSED(s.gdt_limit = 0x10000);
    REFUSED(s.idt_base = BIT(50));
    REFUSED(s.seg[SOCLE_SEG_FS].base = BIT(63));
    REFUSED(s.seg[SOCLE_SEG_TR].attr = 0x1000);
    TAKEN(s.seg[SOCLE_SEG_GS].base = 0xffff888000000000);
    TAKEN(s.cr0 |= BIT(8)); /* reserved, ignored */
    assert_int_equal(fake.sregs.cr0, CR0_PG | CR0_PE | CR0_WP | CR0_ET);
    s = long_mode();
    s.cr8 = 9;
    s.apic_base = 0xfee00d00;
    assert_int_equal(try_sregs(s), 0);
    assert_int_equal(vlapic_mode(&v->lapic), VLAPIC_X2APIC);
    assert_int_equal(state_access(v, SOCLE_STATE_SREGS, buf, sizeof(s), false), 0);
    assert_int_equal(got->cr8, 9);
    assert_int_equal(got->apic_base, 0xfee00d00);
    assert_int_equal(got->cr3, 0x1000);
    cpuid_set(v, (void *)buf, 0);
    REFUSED((void)s); /* without CPUID there is no long mode */
}

static void put(u32 offset, u64 value)
{
    memcpy(buf + offset, &value, sizeof(value));
}

static void good_image(void)
{
    memset(buf, 0, sizeof(buf));
    put(24, 0x1f80);
    put(512, 3);
}

static int try_image(void)
{
    return state_access(v, SOCLE_STATE_XSAVE, buf, 4096, true);
}

static void test_xsave(void **state)
{
    u8 before[4096];

    (void)state;
    good_image();
    buf[160] = 0x55;
    assert_int_equal(try_image(), 0);
    assert_int_equal(((u8 *)v->xsave_area)[160], 0x55);
    memcpy(before, v->xsave_area, 4096);
    for (u32 bit = 0; bit < 64; bit++) {
        good_image();
        put(512, BIT(bit));
        assert_int_equal(try_image(), host_xcr0_mask & BIT(bit) ? 0 : -E_INVAL);
    }
    for (u32 offset = 520; offset < 576; offset += 8) {
        good_image();
        put(offset, offset == 520 ? BIT(63) : 1);
        assert_int_equal(try_image(), -E_INVAL);
    }
    for (u32 bit = 0; bit < 32; bit++) {
        good_image();
        put(512, 0);
        put(24, BIT(bit));
        assert_int_equal(try_image(), host_mxcsr_mask & BIT(bit) ? 0 : -E_INVAL);
    }
    memcpy(v->xsave_area, before, 4096);
    good_image();
    put(528, 1);
    assert_int_equal(try_image(), -E_INVAL);
    assert_memory_equal(v->xsave_area, before, 4096);
    assert_int_equal(state_access(v, SOCLE_STATE_XSAVE, buf, 4096, false), 0);
    assert_memory_equal(buf, before, 4096);
    put(0, 7);
    assert_int_equal(state_access(v, SOCLE_STATE_XCR0, buf, 8, true), 0);
    put(0, 6);
    assert_int_equal(state_access(v, SOCLE_STATE_XCR0, buf, 8, true), -E_INVAL);
    put(0, 0x207);
    assert_int_equal(state_access(v, SOCLE_STATE_XCR0, buf, 8, true),
                     -E_INVAL); /* not in its CPUID */
    assert_int_equal(v->xcr0, 7);
}

static void test_msrs(void **state)
{
    struct socle_msr *m = (void *)buf;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_MSRS, buf, 0, true), 0);
    m[0] = (struct socle_msr){MSR_STAR, 0, 5};
    m[1] = (struct socle_msr){MSR_LSTAR, 0, 6};
    m[2] = (struct socle_msr){0x17a, 0, 0};
    m[3] = (struct socle_msr){MSR_PAT, 0, 7};
    assert_int_equal(state_access(v, SOCLE_STATE_MSRS, buf, 64, true), 2);
    assert_int_equal(fake.lstar, 6);
    assert_int_equal(fake.pat, 0);
    m[0].value = m[1].value = 0;
    assert_int_equal(state_access(v, SOCLE_STATE_MSRS, buf, 64, false), 2);
    assert_int_equal(m[0].value, 5);
    assert_int_equal(m[1].value, 6);
}

static void test_tsc_khz(void **state)
{
    u32 khz = 5000000, zero = 0;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_KHZ, &khz, 8, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_KHZ, &zero, 4, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_KHZ, &khz, 4, false), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_KHZ, &khz, 4, true), 0);
    assert_int_equal(v->lapic.tsc_ratio, 2 * TSC_RATIO_ONE);
}

static void test_tsc_offset(void **state)
{
    u64 offset = (u64)-180000000000, got = 0;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_OFFSET, &offset, 8, true), 0);
    assert_int_equal(state_access(v, SOCLE_STATE_TSC_OFFSET, &got, 8, false), 0);
    assert_true(got == offset && (u64)v->tsc_offset == offset);
}

static void test_traps(void **state)
{
    u32 traps = SOCLE_TRAP_MSRS | SOCLE_TRAP_UD;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_TRAPS, &traps, 8, true), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_TRAPS, &traps, 4, false), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_TRAPS, &traps, 4, true), 0);
    assert_true(v->traps == traps && fake.traps == traps);
}

static void test_lapic(void **state)
{
    u32 spiv = 0x1ff;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_LAPIC, buf, 1024, false), 0);
    memcpy(buf + 0xf0, &spiv, 4);
    assert_int_equal(state_access(v, SOCLE_STATE_LAPIC, buf, 1024, true), 0);
    assert_int_equal(v->lapic.reg[VLAPIC_REG_SVR].value, 0x1ff);
    assert_int_equal(fake.timer_changed, 1);
    guest.flags = 0;
    assert_int_equal(state_access(v, SOCLE_STATE_LAPIC, buf, 1024, false), -E_INVAL);
    assert_int_equal(state_access(v, SOCLE_STATE_LAPIC, buf, 1024, true), -E_INVAL);
}

static int try_events(struct socle_vcpu_events e)
{
    struct socle_vcpu_events again;
    int err;

    memcpy(buf, &e, sizeof(e));
    err = state_access(v, SOCLE_STATE_EVENTS, buf, sizeof(e), true);
    if (!err) {
        assert_int_equal(state_access(v, SOCLE_STATE_EVENTS, &again, sizeof(again), false), 0);
        assert_memory_equal(&e, &again, sizeof(e));
    }
    return err;
}

#define EVENTS(...) try_events((struct socle_vcpu_events){__VA_ARGS__})

static void test_events(void **state)
{
    static const u8 with_error[] = {8, 10, 11, 12, 13, 14, 17, 21, 29, 30};

    (void)state;
    assert_int_equal(EVENTS(0), 0);
    for (u32 i = 0; i < 256; i++) {
        bool error = memchr(with_error, (int)i, sizeof(with_error));
        bool exception = i < 32 && i != 2;

        assert_int_equal(EVENTS(.exception_pending = 1, .exception_nr = (u8)i),
                         exception ? 0 : -E_INVAL);
        assert_int_equal(EVENTS(.exception_pending = 1, .exception_nr = (u8)i,
                                .exception_has_error = 1, .exception_error = 0x18),
                         exception && error ? 0 : -E_INVAL);
        assert_int_equal(EVENTS(.interrupt_injected = 1, .interrupt_nr = (u8)i), 0);
        assert_int_equal(
            EVENTS(.interrupt_injected = 1, .interrupt_nr = (u8)i, .interrupt_soft = 1), 0);
    }
    assert_int_equal(EVENTS(.nmi_injected = 1, .nmi_masked = 1, .nmi_pending = 1, .shadow = 1), 0);
    ((struct socle_vcpu_events *)buf)->nmi_pending = 2;
    for (u32 i = 0; i < 2; i++) {
        v->nmi_pending = v->extint_ready = i;
        assert_int_equal(
            state_access(v, SOCLE_STATE_EVENTS, buf, sizeof(struct socle_vcpu_events), true), 0);
        assert_int_equal(v->nmi_pending, i);
        assert_int_equal(v->extint_ready, i);
    }
    v->extint_ready = false;
    assert_int_equal(EVENTS(.sipi_vector = 0x9f), 0);
    assert_false(v->nmi_pending);
    assert_int_equal(EVENTS(.nmi_injected = 1, .exception_pending = 1, .exception_nr = 13),
                     -E_INVAL);
    assert_int_equal(EVENTS(.nmi_injected = 1, .interrupt_injected = 1, .interrupt_soft = 1),
                     -E_INVAL);
}

/* The PIC's vector, once dom0 has given it, is part of the state: nobody asks the PIC again. */
static void test_pic_interrupt(void **state)
{
    struct socle_vcpu_events *e = (void *)buf;

    (void)state;
    v->extint_vector = 0x30;
    v->extint_ready = true;
    assert_int_equal(state_access(v, SOCLE_STATE_EVENTS, e, sizeof(*e), false), 0);
    assert_true(e->interrupt_injected && e->interrupt_nr == 0x30 && !e->interrupt_soft);
    assert_int_equal(state_access(v, SOCLE_STATE_EVENTS, e, sizeof(*e), true), 0);
    assert_true(v->event.valid && v->event.vector == 0x30 && !v->extint_ready);
    assert_int_equal(EVENTS(.exception_pending = 1, .exception_nr = 14, .exception_has_error = 1,
                            .interrupt_injected = 1, .interrupt_nr = 0x30),
                     0);
    assert_true(v->event.vector == 14 && v->extint_ready && v->extint_vector == 0x30);
    assert_int_equal(EVENTS(.nmi_injected = 1, .interrupt_injected = 1, .interrupt_nr = 0x31), 0);
    assert_int_equal(EVENTS(0), 0);
    assert_false(v->extint_ready);
}

static void test_debug_and_mp(void **state)
{
    struct socle_debug *d = (void *)buf;

    (void)state;
    d->db[3] = 0xffff888000000000;
    d->dr6 = ~0u;
    d->dr7 = ~0u;
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, buf, sizeof(*d), true), 0);
    assert_int_equal(fake.debug.dr6, 0xffffefff);
    assert_int_equal(fake.debug.dr7, 0xffff2fff);
    assert_int_equal(fake.debug.db[3], 0xffff888000000000);
    d->dr6 = BIT(32);
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, buf, sizeof(*d), true), -E_INVAL);
    d->dr6 = 0;
    d->dr7 = BIT(63);
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, buf, sizeof(*d), true), -E_INVAL);
    for (u32 mp = 0; mp < 4; mp++) {
        memcpy(buf, &mp, 4);
        assert_int_equal(state_access(v, SOCLE_STATE_MP, buf, 4, true), 0);
        memset(buf, 0xff, 4);
        assert_int_equal(state_access(v, SOCLE_STATE_MP, buf, 4, false), 0);
        assert_memory_equal(buf, &mp, 4);
    }
    assert_int_equal(v->activity, ACTIVITY_HALTED);
    buf[0] = 4;
    assert_int_equal(state_access(v, SOCLE_STATE_MP, buf, 4, true), -E_INVAL);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(
        state_access(v, SOCLE_STATE_GUEST_DEBUG, buf, sizeof(struct socle_guest_debug), true), 0);
    buf[0] = 0x20;
    assert_int_equal(
        state_access(v, SOCLE_STATE_GUEST_DEBUG, buf, sizeof(struct socle_guest_debug), true),
        -E_INVAL);
}

static void set_guest_debug(u32 flags, u64 db0, u64 dr7)
{
    struct socle_guest_debug g = {.flags = flags, .db[0] = db0, .dr7 = dr7};

    assert_int_equal(state_access(v, SOCLE_STATE_GUEST_DEBUG, &g, sizeof(g), true), 0);
}

static u64 get_rflags(void)
{
    struct socle_regs r;

    assert_int_equal(state_access(v, SOCLE_STATE_REGS, &r, sizeof(r), false), 0);
    return r.rflags;
}

/* The guest's registers and TF are what dom0 sees, whatever the debugger has in the processor. */
static void test_guest_debug(void **state)
{
    struct socle_debug own = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff1, .dr7 = 0x401}, got;

    (void)state;
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, &own, sizeof(own), true), 0);
    v->rflags = RFLAGS_FIXED;
    set_guest_debug(SOCLE_DEBUG_ON | SOCLE_DEBUG_HW | SOCLE_DEBUG_STEP, 0x1000, 0x2);
    assert_int_equal(fake.debug.db[0], 0x1000);
    assert_int_equal(fake.debug.dr7, 0x402);
    assert_int_equal(fake.debug.dr6, 0xffff0ff0);
    assert_int_equal(fake.debug_flags, v->debug_flags);
    assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_TF);
    assert_int_equal(get_rflags(), RFLAGS_FIXED);
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, &got, sizeof(got), false), 0);
    assert_memory_equal(&got, &own, sizeof(own));
    own.db[0] = 5;
    assert_int_equal(state_access(v, SOCLE_STATE_DEBUG, &own, sizeof(own), true), 0);
    assert_int_equal(fake.debug.db[0], 0x1000);
    set_guest_debug(SOCLE_DEBUG_ON | SOCLE_DEBUG_STEP | SOCLE_DEBUG_BLOCK, 0, 0);
    assert_int_equal(fake.debug.db[0], 5);
    assert_int_equal(fake.debug.dr6, 0xffff0ff0);
    assert_true(v->irq_blocked);
    set_guest_debug(0, 0, 0);
    assert_memory_equal(&fake.debug, &own, sizeof(own));
    assert_int_equal(v->rflags, RFLAGS_FIXED);
    assert_int_equal(v->debug_flags, 0);
    assert_false(v->irq_blocked);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_lengths),     TEST(test_regs),          TEST(test_sregs),
        TEST(test_xsave),       TEST(test_msrs),          TEST(test_tsc_khz),
        TEST(test_tsc_offset),  TEST(test_traps),         TEST(test_lapic),
        TEST(test_events),      TEST(test_pic_interrupt), TEST(test_debug_and_mp),
        TEST(test_guest_debug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
