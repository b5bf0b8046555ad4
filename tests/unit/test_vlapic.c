/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtual local APIC against the manuals: registers, priorities, modes, destinations, timer,
 * state. */
// SOURCES: core/vlapic.c
// LIBS: -lpthread
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <pthread.h>
#include <string.h>
#include <cmocka.h>

#include "core/errno.h"
#include "core/vlapic.h"
#include "drivers/tsc.h"

#define KHZ   2000000u /* 2 ticks a nanosecond */
#define T0    1000000000000ull
#define X2(r) (MSR_X2APIC_FIRST + (r))

static struct vlapic_word registers[VLAPIC_REGS];
static struct vlapic apic;
static struct vlapic_effect eff;

static void xwrite(u32 reg, u32 value)
{
    vlapic_mmio_write(&apic, reg * 16, value, T0, &eff);
}

static u32 xread(u32 reg)
{
    return vlapic_mmio_read(&apic, reg * 16, T0);
}

static int write_msr(u32 msr, u64 value)
{
    return vlapic_msr_write(&apic, msr, value, T0, &eff);
}

static u64 read_msr(u32 msr)
{
    u64 value = 0;

    assert_int_equal(vlapic_msr_read(&apic, msr, T0, &value), 0);
    return value;
}

/* xAPIC, software-enabled, id 3. */
static int start_xapic(void **state)
{
    (void)state;
    vlapic_init(&apic, registers, 3, false, KHZ);
    xwrite(VLAPIC_REG_SVR, 0x1ff);
    return 0;
}

static int start_x2apic(void **state)
{
    start_xapic(state);
    return write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

static void take(u8 vector)
{
    assert_int_equal(vlapic_pending(&apic), vector);
    vlapic_accept(&apic, vector);
}

/* ---- registers ---- */

static void test_reset_values(void **state)
{
    (void)state;
    vlapic_init(&apic, registers, 3, false, KHZ);
    assert_int_equal(read_msr(MSR_APIC_BASE), 0xfee00800);
    assert_int_equal(xread(VLAPIC_REG_ID), 3u << 24);
    assert_int_equal(xread(VLAPIC_REG_VERSION), 0x50014);
    assert_int_equal(xread(VLAPIC_REG_DFR), 0xffffffff);
    assert_int_equal(xread(VLAPIC_REG_SVR), 0xff);
    for (u32 i = VLAPIC_REG_LVT_TIMER; i <= VLAPIC_REG_LVT_ERROR; i++)
        assert_int_equal(xread(i), APIC_LVT_MASKED);
    assert_int_equal(xread(VLAPIC_REG_TPR), 0);
    assert_false(vlapic_accepts(&apic));
    assert_false(vlapic_accepts_extint(&apic));
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    vlapic_init(&apic, registers, 0, true, KHZ);
    assert_int_equal(read_msr(MSR_APIC_BASE), 0xfee00900);
    assert_true(vlapic_accepts_extint(&apic));
}

static void test_xapic_masks(void **state)
{
    static const struct {
        u32 reg, reads;
    } rows[] = {
        {VLAPIC_REG_ID, 3u << 24},
        {VLAPIC_REG_VERSION, 0x50014},
        {VLAPIC_REG_TPR, 0xff},
        {VLAPIC_REG_APR, 0},
        {VLAPIC_REG_PPR, 0xff},
        {VLAPIC_REG_LDR, 0xff000000},
        {VLAPIC_REG_DFR, 0xffffffff},
        {VLAPIC_REG_SVR, 0x3ff},
        {VLAPIC_REG_ISR + 1, 0},
        {VLAPIC_REG_IRR + 1, 0},
        {VLAPIC_REG_ICR2, 0xff000000},
        {VLAPIC_REG_LVT_TIMER, 0x500ff}, /* the reserved timer mode is not kept */
        {VLAPIC_REG_LVT_THERMAL, 0x107ff},
        {VLAPIC_REG_LVT_PMC, 0x107ff},
        {VLAPIC_REG_LVT_LINT0, 0x1a7ff},
        {VLAPIC_REG_LVT_LINT1, 0x1a7ff},
        {VLAPIC_REG_LVT_ERROR, 0x100ff},
        {VLAPIC_REG_TDCR, 0xb},
    };

    (void)state;
    for (u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        xwrite(rows[i].reg, 0xffffffff);
        assert_int_equal(xread(rows[i].reg), rows[i].reads);
    }
    xwrite(VLAPIC_REG_DFR, 0);
    assert_int_equal(xread(VLAPIC_REG_DFR), 0x0fffffff);
    assert_int_equal(eff.flags, VLAPIC_DEST);
    /* Bytes within a register; beside the registers; misaligned writes. */
    assert_int_equal(vlapic_mmio_read(&apic, VLAPIC_REG_VERSION * 16 + 2, T0), 5);
    assert_int_equal(vlapic_mmio_read(&apic, VLAPIC_REG_VERSION * 16 + 4, T0), 0);
    xwrite(VLAPIC_REG_TPR, 0);
    vlapic_mmio_write(&apic, VLAPIC_REG_TPR * 16 + 1, 0xff, T0, &eff);
    assert_int_equal(xread(VLAPIC_REG_TPR), 0);
}

static void test_x2apic_access(void **state)
{
    static const u8 absent[] = {0x00, 0x01, 0x04, 0x07, 0x09, 0x0c,
                                0x0e, 0x29, 0x2f, 0x31, 0x3a, 0x3d};
    static const u8 read_only[] = {0x02, 0x03, 0x0a, 0x0d, 0x10, 0x18, 0x27, 0x39};
    static const u8 write_only[] = {0x0b, 0x3f};
    u64 value;

    (void)state;
    for (u32 i = 0; i < sizeof(absent); i++) {
        assert_int_equal(vlapic_msr_read(&apic, X2(absent[i]), T0, &value), -E_INVAL);
        assert_int_equal(write_msr(X2(absent[i]), 0), -E_INVAL);
    }
    for (u32 i = 0; i < sizeof(read_only); i++) {
        read_msr(X2(read_only[i]));
        assert_int_equal(write_msr(X2(read_only[i]), 0), -E_INVAL);
    }
    for (u32 i = 0; i < sizeof(write_only); i++)
        assert_int_equal(vlapic_msr_read(&apic, X2(write_only[i]), T0, &value), -E_INVAL);
    assert_int_equal(write_msr(X2(0x40), 0), -E_INVAL);
    assert_int_equal(write_msr(MSR_X2APIC_LAST, 0), -E_INVAL);
    assert_int_equal(write_msr(0x10, 0), -E_INVAL);
    assert_int_equal(read_msr(X2(VLAPIC_REG_ID)), 3);
    assert_int_equal(read_msr(X2(VLAPIC_REG_LDR)), 8);
}

static void test_x2apic_reserved(void **state)
{
    static const struct {
        u8 reg;
        u64 good, bad;
    } rows[] = {
        {VLAPIC_REG_TPR, 0xff, 0x100},
        {VLAPIC_REG_EOI, 0, 1},
        {VLAPIC_REG_SVR, 0x3ff, 0x1000},
        {VLAPIC_REG_ESR, 0, 1},
        {VLAPIC_REG_ICR, 0xffffffff000cd041, 0x2041},
        {VLAPIC_REG_ICR, 0x41, 0x10041},
        {VLAPIC_REG_ICR, 0x41, 0x100041},
        {VLAPIC_REG_LVT_TIMER, 0x510ff, 0x70020},
        {VLAPIC_REG_LVT_TIMER, 0x30020, 0x120},
        {VLAPIC_REG_LVT_THERMAL, 0x117ff, 0x2000},
        {VLAPIC_REG_LVT_LINT0, 0x1f7ff, 0x800},
        {VLAPIC_REG_LVT_ERROR, 0x110ff, 0x200},
        {VLAPIC_REG_TMICT, 0xffffffff, 0x100000000},
        {VLAPIC_REG_TDCR, 0xb, 4},
        {VLAPIC_REG_SELF_IPI, 0xff, 0x100},
    };

    (void)state;
    for (u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(write_msr(X2(rows[i].reg), rows[i].good), 0);
        assert_int_equal(write_msr(X2(rows[i].reg), rows[i].bad), -E_INVAL);
        assert_int_equal(eff.flags, 0);
        if (rows[i].reg != VLAPIC_REG_ICR)
            assert_int_equal(write_msr(X2(rows[i].reg), 1ull << 40), -E_INVAL);
    }
    assert_int_equal(write_msr(X2(VLAPIC_REG_ICR), 0x1234567800000030), 0);
    assert_true(read_msr(X2(VLAPIC_REG_ICR)) == 0x1234567800000030);
}

static void test_modes(void **state)
{
    /* 0 disabled, 1 xAPIC, 2 x2APIC */
    static const u64 base[] = {APIC_DEFAULT_PA, APIC_DEFAULT_PA | APIC_BASE_ENABLE,
                               APIC_DEFAULT_PA | APIC_BASE_ENABLE | APIC_BASE_X2APIC};
    static const bool legal[3][3] = {{true, true, false}, {true, true, true}, {true, false, true}};
    u64 value;

    (void)state;
    vlapic_init(&apic, registers, 3, false, KHZ);
    xwrite(VLAPIC_REG_ICR2, 0x05000000);
    assert_int_equal(write_msr(MSR_APIC_BASE, base[2]), 0);
    assert_int_equal(read_msr(X2(VLAPIC_REG_ICR)), 0);
    for (u32 from = 0; from < 3; from++) {
        for (u32 to = 0; to < 3; to++) {
            vlapic_init(&apic, registers, 3, false, KHZ);
            assert_int_equal(vlapic_set_base(&apic, base[from], true, &eff), 0);
            assert_int_equal(write_msr(MSR_APIC_BASE, base[to]), legal[from][to] ? 0 : -E_INVAL);
            assert_int_equal(vlapic_mode(&apic), legal[from][to] ? to : from);
            assert_int_equal(!!(eff.flags & VLAPIC_MODE), legal[from][to] && from != to);
            assert_int_equal(vlapic_set_base(&apic, base[to], true, &eff), 0);
        }
    }
    vlapic_init(&apic, registers, 3, false, KHZ);
    assert_int_equal(write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA | APIC_BASE_X2APIC), -E_INVAL);
    assert_int_equal(write_msr(MSR_APIC_BASE, base[1] | 0x200), -E_INVAL);
    assert_int_equal(write_msr(MSR_APIC_BASE, base[1] | 1), -E_INVAL);
    assert_int_equal(write_msr(MSR_APIC_BASE, base[1] + 0x1000), -E_INVAL);
    assert_int_equal(write_msr(MSR_APIC_BASE, base[1] | 1ull << 52), -E_INVAL);
    assert_int_equal(vlapic_msr_read(&apic, X2(VLAPIC_REG_ID), T0, &value), -E_INVAL);
    assert_int_equal(write_msr(X2(VLAPIC_REG_EOI), 0), -E_INVAL);
}

static void test_disable_resets(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_LVT_TIMER, 0x40);
    xwrite(VLAPIC_REG_TMICT, 1000);
    vlapic_post(&apic, 0x50, false);
    assert_int_equal(write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA), 0);
    assert_true(eff.flags & VLAPIC_TIMER);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    assert_true(vlapic_accepts_extint(&apic));
    assert_false(vlapic_match(&apic, 3, false));
    /* What is posted to a disabled APIC is lost. */
    vlapic_post(&apic, 0x50, false);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_int_equal(write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA | APIC_BASE_ENABLE), 0);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_int_equal(xread(VLAPIC_REG_SVR), 0xff);
}

static void test_init_keeps_mode(void **state)
{
    (void)state;
    write_msr(X2(VLAPIC_REG_TPR), 0x20);
    vlapic_post(&apic, 0x50, false);
    vlapic_reset(&apic, true);
    assert_int_equal(vlapic_mode(&apic), VLAPIC_X2APIC);
    assert_int_equal(read_msr(X2(VLAPIC_REG_TPR)), 0);
    assert_int_equal(read_msr(X2(VLAPIC_REG_LDR)), 8);
    assert_int_equal(vlapic_pending(&apic), -1);
    vlapic_reset(&apic, false);
    assert_int_equal(vlapic_mode(&apic), VLAPIC_XAPIC);
}

static void test_software_disable(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_LVT_LINT0, 0x700);
    assert_true(vlapic_accepts_extint(&apic));
    xwrite(VLAPIC_REG_LVT_LINT1, 0x400);
    assert_true(vlapic_accepts(&apic));
    xwrite(VLAPIC_REG_SVR, 0xff);
    assert_int_equal(eff.flags, 0);
    assert_false(vlapic_accepts(&apic));
    assert_false(vlapic_accepts_extint(&apic));
    xwrite(VLAPIC_REG_LVT_LINT0, 0x700); /* stays masked */
    assert_int_equal(xread(VLAPIC_REG_LVT_LINT0), 0x10700);
    xwrite(VLAPIC_REG_SVR, 0x1ff);
    assert_int_equal(eff.flags, 0);
    assert_int_equal(xread(VLAPIC_REG_LVT_LINT0), 0x10700);
}

static void test_errors(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_LVT_ERROR, 0xfe);
    xread(0x3f);                                /* SELF_IPI is not there in xAPIC mode */
    assert_int_equal(xread(VLAPIC_REG_ESR), 0); /* not before it's written */
    xwrite(0x01, 0);
    assert_int_equal(vlapic_pending(&apic), 0xfe);
    vlapic_accept(&apic, 0xfe);
    vlapic_eoi(&apic);
    xwrite(VLAPIC_REG_ICR, 0x4005); /* fixed, vector 5 */
    assert_int_equal(eff.flags, 0);
    assert_int_equal(vlapic_pending(&apic), 0xfe);
    xwrite(VLAPIC_REG_ESR, 0xffffffff);
    assert_int_equal(xread(VLAPIC_REG_ESR), 0x80 | 0x20);
    xwrite(VLAPIC_REG_ESR, 0);
    assert_int_equal(xread(VLAPIC_REG_ESR), 0);
    xread(0x2f);
    xread(0x40);
    vlapic_mmio_read(&apic, 0xfff, T0);
    take(0xfe); /* the first of the three raised it */
    vlapic_eoi(&apic);
    xread(0x2f);
    assert_int_equal(vlapic_pending(&apic), -1);
    xwrite(VLAPIC_REG_ESR, 0);
    assert_int_equal(xread(VLAPIC_REG_ESR), 0x80);
    /* An illegal vector in the error entry itself ends there. */
    xwrite(VLAPIC_REG_LVT_ERROR, 0x03);
    xread(0x00);
    xwrite(VLAPIC_REG_ESR, 0);
    assert_int_equal(xread(VLAPIC_REG_ESR), 0x80 | 0x40);
}

/* ---- priorities ---- */

static void test_priority(void **state)
{
    (void)state;
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_true(vlapic_post(&apic, 0x41, false));
    assert_false(vlapic_post(&apic, 0x41, false));
    assert_true(vlapic_post(&apic, 0x31, false));
    assert_true(vlapic_post(&apic, 0x4f, false));
    assert_false(vlapic_post(&apic, 0x0f, false));
    take(0x4f);
    assert_int_equal(vlapic_ppr(&apic), 0x40);
    assert_int_equal(vlapic_pending(&apic), -1); /* 0x41 is of the same class */
    assert_false(vlapic_blocked_by_tpr(&apic));
    vlapic_post(&apic, 0xff, false);
    take(0xff);
    assert_int_equal(vlapic_ppr(&apic), 0xf0);
    assert_int_equal(xread(VLAPIC_REG_ISR + 7), 0x80000000);
    assert_int_equal(vlapic_eoi(&apic), -1);
    assert_int_equal(vlapic_pending(&apic), -1);
    vlapic_eoi(&apic);
    take(0x41);
    vlapic_eoi(&apic);
    take(0x31);
    vlapic_eoi(&apic);
    assert_int_equal(vlapic_ppr(&apic), 0);
    assert_int_equal(vlapic_eoi(&apic), -1);
    assert_int_equal(vlapic_pending(&apic), -1);
}

static void test_tpr(void **state)
{
    (void)state;
    vlapic_post(&apic, 0x55, false);
    vlapic_set_cr8(&apic, 5);
    assert_int_equal(xread(VLAPIC_REG_TPR), 0x50);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_true(vlapic_blocked_by_tpr(&apic));
    vlapic_set_cr8(&apic, 4);
    assert_false(vlapic_blocked_by_tpr(&apic));
    take(0x55);
    xwrite(VLAPIC_REG_TPR, 0x5a);
    assert_int_equal(eff.flags, 0);
    assert_int_equal(vlapic_cr8(&apic), 5);
    assert_int_equal(vlapic_ppr(&apic), 0x5a);
    xwrite(VLAPIC_REG_TPR, 0x4f);
    assert_int_equal(vlapic_ppr(&apic), 0x50);
    vlapic_post(&apic, 0x66, false);
    xwrite(VLAPIC_REG_TPR, 0x60);
    assert_true(vlapic_blocked_by_tpr(&apic));
    vlapic_post(&apic, 0x45, false);
    xwrite(VLAPIC_REG_TPR, 0);
    take(0x66);
    /* 0x45 waits for what is in service, whatever TPR is. */
    xwrite(VLAPIC_REG_TPR, 0x60);
    assert_false(vlapic_blocked_by_tpr(&apic));
}

static void test_level_eoi(void **state)
{
    (void)state;
    vlapic_post(&apic, 0x61, true);
    vlapic_post(&apic, 0x71, false);
    take(0x71);
    assert_int_equal(vlapic_eoi(&apic), -1);
    take(0x61);
    assert_int_equal(read_msr(X2(VLAPIC_REG_TMR + 3)), 2);
    assert_int_equal(write_msr(X2(VLAPIC_REG_EOI), 0), 0);
    assert_int_equal(eff.flags, VLAPIC_EOI);
    assert_int_equal(eff.eoi_vector, 0x61);
    /* As an edge now. */
    vlapic_post(&apic, 0x61, false);
    take(0x61);
    assert_int_equal(read_msr(X2(VLAPIC_REG_TMR + 3)), 0);
    write_msr(X2(VLAPIC_REG_EOI), 0);
    assert_int_equal(eff.flags, 0);
}

/* ---- interrupts between processors ---- */

static void test_icr_xapic(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_ICR2, 0x05000000);
    assert_int_equal(eff.flags, 0);
    xwrite(VLAPIC_REG_ICR, 0x4040);
    assert_int_equal(eff.flags, VLAPIC_IPI);
    assert_true(eff.icr == 0x500004040);
    xwrite(VLAPIC_REG_ICR2, 0xff000000);
    xwrite(VLAPIC_REG_ICR, 0x4500); /* INIT to everyone */
    assert_true(eff.icr == 0xffffffff00004500);
    xwrite(VLAPIC_REG_ICR, 0x8500); /* its de-assert */
    assert_int_equal(eff.flags, 0);
    xwrite(VLAPIC_REG_ICR, 0x44041); /* self */
    assert_int_equal(eff.flags, 0);
    assert_int_equal(vlapic_pending(&apic), 0x41);
    xwrite(VLAPIC_REG_SVR, 0xff);
    xwrite(VLAPIC_REG_ICR, 0x44051);
    assert_int_equal(vlapic_pending(&apic), 0x41);
    xwrite(VLAPIC_REG_ICR, 0xc4051); /* others, software-disabled too */
    assert_int_equal(eff.flags, VLAPIC_IPI);
    assert_int_equal(xread(VLAPIC_REG_ICR), 0xc4051);
}

static void test_icr_x2apic(void **state)
{
    (void)state;
    write_msr(X2(VLAPIC_REG_ICR), 0x000000ff00000840);
    assert_int_equal(eff.flags, VLAPIC_IPI);
    assert_true(eff.icr == 0x000000ff00000840);
    write_msr(X2(VLAPIC_REG_SELF_IPI), 0x42);
    assert_int_equal(eff.flags, 0);
    assert_int_equal(vlapic_pending(&apic), 0x42);
    write_msr(X2(VLAPIC_REG_SELF_IPI), 0x2);
    write_msr(X2(VLAPIC_REG_ESR), 0);
    assert_int_equal(read_msr(X2(VLAPIC_REG_ESR)), 0x20);
}

static void test_icr_decode(void **state)
{
    static const struct {
        u64 icr;
        int result, to_self;
    } rows[] = {
        {0x00040, 0, 0},
        {0x0000f, -E_RANGE, -E_RANGE},
        {0x00010, 0, 0},
        {0x00140, 0, -E_INVAL},        /* lowest priority */
        {0x00200, 0, -E_INVAL},        /* SMI */
        {0x00300, -E_INVAL, -E_INVAL}, /* reserved */
        {0x00400, 0, -E_INVAL},        /* NMI */
        {0x04500, 0, -E_INVAL},        /* INIT */
        {0x0c500, 0, -E_INVAL},
        {0x08500, -E_INVAL, -E_INVAL}, /* INIT de-assert */
        {0x00608, 0, -E_INVAL},        /* SIPI */
        {0x00740, -E_INVAL, -E_INVAL}, /* ExtINT */
    };
    struct apic_msg m;

    (void)state;
    for (u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(apic_msg_from_icr(rows[i].icr, true, &m), rows[i].result);
        assert_int_equal(m.mode, rows[i].icr >> 8 & 7);
        assert_int_equal(m.vector, rows[i].icr & 0xff);
        assert_int_equal(apic_msg_from_icr(rows[i].icr | 0x40000, true, &m), rows[i].to_self);
    }
    assert_int_equal(apic_msg_from_icr(0x12345678000cc840, true, &m), 0);
    assert_int_equal(m.dest, 0x12345678);
    assert_int_equal(m.shorthand, APIC_TO_OTHERS);
    assert_true(m.logical);
    assert_false(m.level);
    assert_int_equal(apic_msg_from_icr(0x1234567800000040, false, &m), 0);
    assert_int_equal(m.dest, 0x12);
    apic_msg_from_icr(0xff00000000000040, false, &m);
    assert_int_equal(m.dest, APIC_DEST_ALL);
    apic_msg_from_icr(0x000000ff00000040, true, &m);
    assert_int_equal(m.dest, 0xff);
}

static void test_msi_decode(void **state)
{
    struct apic_msg m;

    (void)state;
    assert_int_equal(apic_msg_from_msi(0xfee05000, 0x4041, &m), 0);
    assert_int_equal(m.dest, 5);
    assert_int_equal(m.vector, 0x41);
    assert_int_equal(m.mode, APIC_FIXED);
    assert_false(m.logical || m.level || m.shorthand);
    assert_int_equal(apic_msg_from_msi(0xfee0500c, 0x8041, &m), 0);
    assert_true(m.logical && m.level);
    assert_int_equal(m.mode, APIC_LOWEST); /* the redirection hint */
    assert_int_equal(apic_msg_from_msi(0xfee05000, 0x141, &m), 0);
    assert_int_equal(m.mode, APIC_LOWEST);
    assert_int_equal(apic_msg_from_msi(0xfee05000, 0x700, &m), 0);
    assert_int_equal(m.mode, APIC_EXTINT);
    assert_int_equal(apic_msg_from_msi(0xfeeff000, 0x400, &m), 0);
    assert_int_equal(m.mode, APIC_NMI);
    assert_int_equal(m.dest, 0xff);
    assert_int_equal(apic_msg_from_msi(0xffffff00feeff000, 0x400, &m), 0);
    assert_int_equal(m.dest, APIC_DEST_ALL);
    assert_int_equal(apic_msg_from_msi(0x12345600fee78000, 0x30, &m), 0);
    assert_int_equal(m.dest, 0x12345678);
    assert_int_equal(apic_msg_from_msi(0xfee05000, 0x00f, &m), -E_RANGE);
    assert_int_equal(apic_msg_from_msi(0xfee05000, 0x341, &m), -E_INVAL);
    assert_int_equal(apic_msg_from_msi(0xfef05000, 0x041, &m), -E_INVAL);
    assert_int_equal(apic_msg_from_msi(0x1fee05000, 0x041, &m), -E_INVAL);
    assert_int_equal(apic_msg_from_msi(0, 0, &m), -E_INVAL);
}

static void test_match(void **state)
{
    enum { OFF, XFLAT, XCLUSTER, XODD, X2 };
    static const struct {
        u32 id;
        u8 kind;
        u32 ldr, dest;
        bool logical, matches;
    } rows[] = {
        {3, OFF, 0, 3, false, false},
        {3, OFF, 0, APIC_DEST_ALL, false, false},
        {3, XFLAT, 0, 3, false, true},
        {3, XFLAT, 0, 4, false, false},
        {3, XFLAT, 0, 0x103, false, false},
        {3, XFLAT, 0, APIC_DEST_ALL, false, true},
        {3, XFLAT, 0, APIC_DEST_ALL, true, true},
        {0x103, XFLAT, 0, 3, false, false},
        {0x103, XFLAT, 0, 0x103, false, true},
        {3, XFLAT, 0x08, 0x08, true, true},
        {3, XFLAT, 0x08, 0x18, true, true},
        {3, XFLAT, 0x08, 0x17, true, false},
        {3, XFLAT, 0, 0x7f, true, false},
        {3, XFLAT, 0x01, 0x10001, true, false},
        {3, XCLUSTER, 0x24, 0x24, true, true},
        {3, XCLUSTER, 0x24, 0x2f, true, true},
        {3, XCLUSTER, 0x24, 0x23, true, false},
        {3, XCLUSTER, 0x24, 0x14, true, false},
        {3, XCLUSTER, 0x24, 0x34, true, false},
        {3, XODD, 0x24, 0x24, true, false},
        {3, X2, 0, 3, false, true},
        {3, XFLAT, 0x08, 0xff, false, true},
        {3, XCLUSTER, 0x21, 0xff, true, true},
        {0xff, X2, 0, 0xff, false, true},
        {3, X2, 0, 0xff, false, false},
        {3, X2, 0, APIC_DEST_ALL, false, true},
        {3, X2, 0, APIC_DEST_ALL, true, true},
        {3, X2, 0, 8, true, true},
        {3, X2, 0, 0xffff, true, true},
        {3, X2, 0, 0xfff7, true, false},
        {0x123, X2, 0, 0x123, false, true},
        {0x123, X2, 0, 0x120008, true, true},
        {0x123, X2, 0, 0x110008, true, false},
        {0x123, X2, 0, 0x120004, true, false},
    };

    (void)state;
    for (u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        vlapic_init(&apic, registers, rows[i].id, false, KHZ);
        xwrite(VLAPIC_REG_LDR, rows[i].ldr << 24);
        if (rows[i].kind == XCLUSTER || rows[i].kind == XODD)
            xwrite(VLAPIC_REG_DFR, rows[i].kind == XODD ? 0x30000000 : 0);
        if (rows[i].kind == OFF)
            write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA);
        if (rows[i].kind == X2)
            write_msr(MSR_APIC_BASE, APIC_DEFAULT_PA | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
        if (vlapic_match(&apic, rows[i].dest, rows[i].logical) != rows[i].matches)
            fail_msg("row %u", i);
    }
}

/* ---- timer ---- */

static void test_timer_one_shot(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_LVT_TIMER, 0xec);
    xwrite(VLAPIC_REG_TDCR, 0xb); /* by 1 */
    xwrite(VLAPIC_REG_TMICT, 1000000);
    assert_int_equal(eff.flags, VLAPIC_TIMER);
    assert_true(apic.timer_deadline == T0 + 2000000);
    assert_int_equal(xread(VLAPIC_REG_TMCCT), 1000000);
    assert_int_equal(vlapic_mmio_read(&apic, 0x390, T0 + 500000), 750001);
    assert_int_equal(vlapic_mmio_read(&apic, 0x390, T0 + 1999999), 1);
    assert_int_equal(vlapic_mmio_read(&apic, 0x390, T0 + 2000000), 0);
    assert_false(vlapic_timer_fire(&apic, T0 + 1999999));
    assert_true(vlapic_timer_fire(&apic, T0 + 2000000));
    assert_false(vlapic_timer_fire(&apic, T0 + 9000000));
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    assert_int_equal(xread(VLAPIC_REG_TMCCT), 0);
    take(0xec);
    /* Masked: runs down without an interrupt. 0 stops. */
    xwrite(VLAPIC_REG_LVT_TIMER, 0x100ec);
    xwrite(VLAPIC_REG_TMICT, 10);
    assert_true(vlapic_timer_fire(&apic, T0 + 2000));
    vlapic_eoi(&apic);
    assert_int_equal(vlapic_pending(&apic), -1);
    xwrite(VLAPIC_REG_TMICT, 10);
    xwrite(VLAPIC_REG_TMICT, 0);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
}

static void test_timer_divide(void **state)
{
    static const u8 shift[16] = {
        [0] = 1, [1] = 2, [2] = 3, [3] = 4, [8] = 5, [9] = 6, [10] = 7, [11] = 0};

    (void)state;
    for (u32 i = 0; i < 12; i = i == 3 ? 8 : i + 1) {
        xwrite(VLAPIC_REG_TMICT, 0);
        xwrite(VLAPIC_REG_TDCR, i);
        xwrite(VLAPIC_REG_TMICT, 0xffffffff);
        assert_true(apic.timer_deadline == T0 + (0xffffffffull << shift[i]) * 2);
    }
    /* A change on the way keeps the count: half of 1000000 counts at 1, then the rest at 2. */
    xwrite(VLAPIC_REG_TDCR, 0xb);
    xwrite(VLAPIC_REG_TMICT, 1000000);
    vlapic_mmio_write(&apic, 0x3e0, 0, T0 + 1000000, &eff);
    assert_in_range(apic.timer_deadline, T0 + 3000000, T0 + 3000010);
}

static void test_timer_periodic(void **state)
{
    u64 start;

    (void)state;
    xwrite(VLAPIC_REG_LVT_TIMER, 0x200ec);
    xwrite(VLAPIC_REG_TDCR, 0xb);
    xwrite(VLAPIC_REG_TMICT, 1000000);
    start = apic.timer_deadline;
    assert_true(start == T0 + 2000000);
    /* Late by a little each time: no drift. */
    for (u32 i = 0; i < 1000; i++) {
        assert_true(vlapic_timer_fire(&apic, apic.timer_deadline + i % 300));
        take(0xec);
        vlapic_eoi(&apic);
        assert_true(apic.timer_deadline == start + (i + 1) * 2000000ull);
    }
    start = apic.timer_deadline;
    assert_int_equal(vlapic_mmio_read(&apic, 0x390, start + 500000), 750001);
    /* Periods that were slept through make one interrupt, on the old grid. */
    assert_true(vlapic_timer_fire(&apic, start + 20500000));
    take(0xec);
    vlapic_eoi(&apic);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_true(apic.timer_deadline == start + 22000000);
}

static void test_timer_short_period(void **state)
{
    u64 now = T0;
    u32 fired = 0;

    (void)state;
    xwrite(VLAPIC_REG_LVT_TIMER, 0x200ec);
    xwrite(VLAPIC_REG_TDCR, 0xb);
    xwrite(VLAPIC_REG_TMICT, 1);
    for (now = T0; now < T0 + 2000000; now += 100)
        fired += vlapic_timer_fire(&apic, now);
    assert_in_range(fired, 49, 51); /* in 1 ms */
    assert_int_equal(vlapic_mmio_read(&apic, 0x390, now), 1);
}

static void test_timer_modes(void **state)
{
    (void)state;
    xwrite(VLAPIC_REG_LVT_TIMER, 0xec);
    xwrite(VLAPIC_REG_TDCR, 0xb);
    xwrite(VLAPIC_REG_TMICT, 1000000);
    /* One-shot to periodic lets it run; to TSC-deadline stops it, and back too. */
    xwrite(VLAPIC_REG_LVT_TIMER, 0x200ec);
    assert_true(vlapic_timer_fire(&apic, T0 + 2000000));
    assert_true(apic.timer_deadline == T0 + 4000000);
    xwrite(VLAPIC_REG_LVT_TIMER, 0x400ec);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    xwrite(VLAPIC_REG_TMICT, 1000000); /* ignored */
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    assert_int_equal(write_msr(MSR_TSC_DEADLINE, T0 + 77), 0);
    assert_true(apic.timer_deadline == T0 + 77);
    assert_int_equal(xread(VLAPIC_REG_TMCCT), 0);
    xwrite(VLAPIC_REG_LVT_TIMER, 0xec);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    assert_int_equal(read_msr(MSR_TSC_DEADLINE), 0);
    assert_int_equal(write_msr(MSR_TSC_DEADLINE, T0 + 77), 0); /* ignored */
    assert_int_equal(read_msr(MSR_TSC_DEADLINE), 0);
    /* A vector that's illegal makes an error instead. */
    xwrite(VLAPIC_REG_LVT_ERROR, 0xfe);
    xwrite(VLAPIC_REG_LVT_TIMER, 0x0c);
    xwrite(VLAPIC_REG_TMICT, 1);
    take(0xec);
    assert_true(vlapic_timer_fire(&apic, T0 + 10));
    take(0xfe);
    xwrite(VLAPIC_REG_ESR, 0);
    assert_int_equal(xread(VLAPIC_REG_ESR), 0x40);
}

static void set_tsc(u64 ratio, u64 offset)
{
    apic.tsc_ratio = ratio;
    vlapic_tsc_changed(&apic, offset, T0);
}

static void test_timer_tsc(void **state)
{
    (void)state;
    set_tsc(TSC_RATIO_ONE, -(T0 - 5000)); /* guest TSC is 5000 now */
    write_msr(X2(VLAPIC_REG_LVT_TIMER), 0x400ec);
    write_msr(MSR_TSC_DEADLINE, 6000);
    assert_int_equal(eff.flags, VLAPIC_TIMER);
    assert_true(apic.timer_deadline == T0 + 1000);
    assert_int_equal(read_msr(MSR_TSC_DEADLINE), 6000);
    set_tsc(TSC_RATIO_ONE, -(T0 - 5500));
    assert_true(apic.timer_deadline == T0 + 500);
    assert_true(vlapic_timer_fire(&apic, T0 + 500));
    take(0xec);
    assert_int_equal(read_msr(MSR_TSC_DEADLINE), 0);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    write_msr(MSR_TSC_DEADLINE, 1); /* past */
    assert_true(vlapic_timer_fire(&apic, T0));
    vlapic_eoi(&apic);
    take(0xec);
    /* So far that host TSC can't say it: never, but not lost. */
    write_msr(MSR_TSC_DEADLINE, ~0ull);
    assert_true(apic.timer_deadline > T0 + (1ull << 63));
    assert_true(read_msr(MSR_TSC_DEADLINE) == ~0ull);
    write_msr(MSR_TSC_DEADLINE, 0);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
    set_tsc(TSC_RATIO_ONE, 0);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
}

/* The deadline is the guest's TSC's, whatever its rate: never early, and a tick late at most. */
static void test_timer_tsc_ratio(void **state)
{
    static const u64 ratios[] = {BIT(16),
                                 BIT(20) + 1,
                                 TSC_RATIO_ONE - 1,
                                 TSC_RATIO_ONE,
                                 TSC_RATIO_ONE * 3 / 2 + 12345,
                                 94 * TSC_RATIO_ONE + 7,
                                 ~0ull};
    static const u64 waits[] = {1, 999, 1234567890, BIT(50) + 3, BIT(62)};

    (void)state;
    write_msr(X2(VLAPIC_REG_LVT_TIMER), 0x400ec);
    for (u32 i = 0; i < sizeof(ratios) / sizeof(ratios[0]); i++)
        for (u32 j = 0; j < sizeof(waits) / sizeof(waits[0]); j++) {
            unsigned __int128 ticks = ((unsigned __int128)waits[j] << 48) / ratios[i];
            u64 start = tsc_scale(T0, ratios[i]), at;

            set_tsc(ratios[i], 5000 - start); /* guest TSC is 5000 now */
            write_msr(MSR_TSC_DEADLINE, 5000 + waits[j]);
            at = apic.timer_deadline;
            if (ticks + T0 >= VLAPIC_NEVER) {
                assert_true(at == VLAPIC_NEVER);
                continue;
            }
            assert_in_range(at - T0, (u64)ticks, (u64)ticks + 1);
            assert_true(tsc_scale(at, ratios[i]) - start >= waits[j]);
            set_tsc(TSC_RATIO_ONE, 5000 - T0);
            assert_true(apic.timer_deadline == T0 + waits[j]);
        }
    set_tsc(TSC_RATIO_ONE * 2, 0);
    write_msr(MSR_TSC_DEADLINE, 2 * T0); /* now */
    assert_true(vlapic_timer_fire(&apic, T0));
}

/* Whatever the TSC's rate, a second stays a second. */
static void test_timer_rates(void **state)
{
    static const u32 khz[] = {1000, 999999, 1234567, 2394374, 3700000, 5999999};

    (void)state;
    for (u32 i = 0; i < sizeof(khz) / sizeof(khz[0]); i++) {
        u64 wait;

        vlapic_init(&apic, registers, 0, true, khz[i]);
        xwrite(VLAPIC_REG_TDCR, 0xb);
        xwrite(VLAPIC_REG_TMICT, 1000000000);
        wait = apic.timer_deadline - T0;
        assert_in_range(wait, khz[i] * 1000ull - 1, khz[i] * 1000ull);
        assert_in_range(vlapic_mmio_read(&apic, 0x390, T0 + wait / 2), 499998000, 500002000);
    }
}

/* ---- saved state ---- */

static void test_state_round_trip(void **state)
{
    u8 page[VLAPIC_STATE_BYTES], again[VLAPIC_STATE_BYTES];
    u32 value;

    (void)state;
    xwrite(VLAPIC_REG_LDR, 0x04000000);
    xwrite(VLAPIC_REG_TPR, 0x30);
    xwrite(VLAPIC_REG_LVT_LINT0, 0x700);
    xwrite(VLAPIC_REG_LVT_TIMER, 0xec);
    xwrite(VLAPIC_REG_TMICT, 1000000);
    xwrite(VLAPIC_REG_ICR2, 0x05000000);
    xwrite(VLAPIC_REG_ICR, 0x4040);
    vlapic_post(&apic, 0x61, true);
    vlapic_post(&apic, 0x81, false);
    take(0x81);
    vlapic_post(&apic, 0x51, false);
    vlapic_get_state(&apic, page, T0 + 1000000);
    memcpy(&value, page + 0x390, 4);
    assert_int_equal(value, 750001);
    memcpy(&value, page + 0x20, 4);
    assert_int_equal(value, 3u << 24);
    vlapic_init(&apic, registers, 3, false, KHZ);
    vlapic_post(&apic, 0xf1, false); /* dropped */
    vlapic_set_state(&apic, page, T0 + 500000000);
    assert_in_range(apic.timer_deadline, T0 + 503000000, T0 + 503000004);
    vlapic_get_state(&apic, again, T0 + 500000000);
    again[0x390] = page[0x390]; /* may differ by one */
    assert_memory_equal(page, again, sizeof(page));
    assert_int_equal(vlapic_pending(&apic), -1);
    vlapic_eoi(&apic);
    take(0x61);
    assert_int_equal(vlapic_eoi(&apic), 0x61);
    take(0x51);
    assert_int_equal(vlapic_eoi(&apic), -1);
    /* A one-shot timer that has run out does not start again. */
    vlapic_get_state(&apic, page, T0 + 600000000);
    vlapic_set_state(&apic, page, T0 + 600000000);
    take(0xec);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
}

static void test_state_x2apic(void **state)
{
    u8 page[VLAPIC_STATE_BYTES];
    u32 value;

    (void)state;
    write_msr(X2(VLAPIC_REG_ICR), 0x1234567800000040);
    write_msr(X2(VLAPIC_REG_LVT_TIMER), 0x400ec);
    write_msr(MSR_TSC_DEADLINE, T0 + 5000);
    vlapic_get_state(&apic, page, T0);
    memcpy(&value, page + 0x310, 4);
    assert_int_equal(value, 0x12345678);
    memcpy(&value, page + 0x20, 4);
    assert_int_equal(value, 3u << 24);
    memcpy(&value, page + 0xd0, 4);
    assert_int_equal(value, 8);
    vlapic_set_state(&apic, page, T0);
    assert_true(read_msr(X2(VLAPIC_REG_ICR)) == 0x1234567800000040);
    assert_true(apic.timer_deadline == T0 + 5000);
    /* A timer that's due is not lost. */
    vlapic_get_state(&apic, page, T0 + 6000);
    vlapic_set_state(&apic, page, T0 + 7000);
    take(0xec);
    assert_true(apic.timer_deadline == VLAPIC_NEVER);
}

static void test_state_garbage(void **state)
{
    u8 page[VLAPIC_STATE_BYTES];

    (void)state;
    memset(page, 0xff, sizeof(page));
    vlapic_set_state(&apic, page, T0);
    assert_int_equal(xread(VLAPIC_REG_IRR), 0xffffffff);
    assert_int_equal(xread(VLAPIC_REG_ISR), 0xffff0000);
    assert_int_equal(xread(VLAPIC_REG_ID), 3u << 24);
    assert_int_equal(xread(VLAPIC_REG_VERSION), 0x50014);
    assert_int_equal(xread(VLAPIC_REG_LVT_TIMER), 0x500ff);
    assert_int_equal(xread(VLAPIC_REG_SVR), 0x3ff);
    for (u32 i = 0; i < 240; i++)
        assert_int_equal(vlapic_eoi(&apic), 255 - (int)i);
    assert_int_equal(vlapic_eoi(&apic), -1);
    xwrite(VLAPIC_REG_TPR, 0);
    take(0xff);
    /* Vectors below 16 stay as they are, and never come. */
    memset(page, 0, sizeof(page));
    page[VLAPIC_REG_IRR * 16 + 1] = 0xff;
    page[VLAPIC_REG_SVR * 16 + 1] = 1;
    vlapic_set_state(&apic, page, T0);
    assert_int_equal(vlapic_pending(&apic), -1);
    vlapic_post(&apic, 0x10, false);
    take(0x10);
    vlapic_eoi(&apic);
    assert_int_equal(vlapic_pending(&apic), -1);
    assert_int_equal(xread(VLAPIC_REG_IRR), 0xff00);
}

/* ---- posting from other processors ---- */

#define POSTERS 3
#define ROUNDS  20000

static u32 posted[POSTERS];

/* Each has its own vectors; counts those that were new. */
static void *poster(void *arg)
{
    u32 self = (u32)(uintptr_t)arg;

    for (u32 i = 0; i < ROUNDS; i++)
        posted[self] += vlapic_post(&apic, (u8)(0x20 + self * 0x40 + i % 0x40), i & 1);
    return NULL;
}

static u32 drain(void)
{
    u32 taken = 0;
    int vector;

    while ((vector = vlapic_pending(&apic)) >= 0) {
        vlapic_accept(&apic, (u8)vector);
        assert_int_equal(vlapic_eoi(&apic), vector & 1 ? vector : -1);
        taken++;
    }
    return taken;
}

/* Nothing is lost: what was new is taken, or was merged with one still in IRR, and at the end all
 * is quiet. */
static void test_concurrent_post(void **state)
{
    pthread_t threads[POSTERS];
    u32 taken = 0, all = 0;

    (void)state;
    memset(posted, 0, sizeof(posted));
    for (uintptr_t i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, poster, (void *)i), 0);
    for (u32 i = 0; i < ROUNDS; i++)
        taken += drain();
    for (u32 i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    taken += drain();
    for (u32 i = 0; i < POSTERS; i++)
        all += posted[i];
    assert_true(taken > 0 && taken <= all);
    for (u32 i = 0; i < ARRAY_SIZE(apic.pir); i++)
        assert_true(apic.pir[i] == 0 && !apic.pir_pending);
    /* A last one of each is seen. */
    for (u32 i = 0; i < 0xc0; i++)
        assert_true(vlapic_post(&apic, (u8)(0x20 + i), i & 1));
    assert_int_equal(drain(), 0xc0);
}

#define XAPIC(f)  cmocka_unit_test_setup(f, start_xapic)
#define X2APIC(f) cmocka_unit_test_setup(f, start_x2apic)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),
        XAPIC(test_xapic_masks),
        X2APIC(test_x2apic_access),
        X2APIC(test_x2apic_reserved),
        cmocka_unit_test(test_modes),
        XAPIC(test_disable_resets),
        X2APIC(test_init_keeps_mode),
        XAPIC(test_software_disable),
        XAPIC(test_errors),
        XAPIC(test_priority),
        XAPIC(test_tpr),
        X2APIC(test_level_eoi),
        XAPIC(test_icr_xapic),
        X2APIC(test_icr_x2apic),
        cmocka_unit_test(test_icr_decode),
        cmocka_unit_test(test_msi_decode),
        cmocka_unit_test(test_match),
        XAPIC(test_timer_one_shot),
        XAPIC(test_timer_divide),
        XAPIC(test_timer_periodic),
        XAPIC(test_timer_short_period),
        XAPIC(test_timer_modes),
        X2APIC(test_timer_tsc),
        X2APIC(test_timer_tsc_ratio),
        cmocka_unit_test(test_timer_rates),
        XAPIC(test_state_round_trip),
        X2APIC(test_state_x2apic),
        XAPIC(test_state_garbage),
        XAPIC(test_concurrent_post),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
