/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/cpuid.c core/pvclock.c core/state.c core/vlapic.c core/debug.c
/* RDMSR, WRMSR, XSETBV, host-set MSRs and the paravirtual clock. */
#include "core/lib.h"
#include "tests/unit/vcpu_fake.h"

#include "core/pvclock.h"
#include "core/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static u64 now;
static u64 tsc_aux_in_processor;

static void test_wrmsr(u32 index, u64 value)
{
    assert_int_equal(index, MSR_TSC_AUX);
    tsc_aux_in_processor = value;
}

#define rdtsc()             now
#define wrmsr(index, value) test_wrmsr(index, value)
#include "core/msr.c"
#undef wrmsr
#undef rdtsc

static struct domain guest;
static struct vcpu *vcpus[2], *v;

static int setup(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof(fake));
    guest = (struct domain){.id = 1, .flags = DOMAIN_LAPIC, .vcpus = vcpus, .vcpu_count = 2};
    now = 500000000000;
    cpuid_init();
    vcpus[0] = fake_vcpu(&guest, 0);
    vcpus[1] = fake_vcpu(&guest, 1);
    v = vcpus[0];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_free(vcpus[0]);
    fake_free(vcpus[1]);
    return 0;
}

enum { DONE, GP, LEFT };

static int outcome(enum vcpu_action action)
{
    bool gp = v->event.valid;

    if (action == VCPU_EXIT)
        return LEFT;
    assert_int_equal(action, VCPU_RESUME);
    if (gp)
        assert_true(v->event.vector == VEC_GP && v->event.has_error && !v->event.error);
    assert_int_equal(v->rip == v->next_rip, !gp);
    v->event.valid = false;
    v->rip = v->next_rip - 2;
    return gp ? GP : DONE;
}

static int guest_write(u32 index, u64 value)
{
    v->gpr[RCX] = index | 0xdead00000000;
    v->gpr[RAX] = (u32)value | 0xdead00000000;
    v->gpr[RDX] = value >> 32 | 0xdead00000000;
    return outcome(exit_wrmsr(v));
}

static int guest_read(u32 index, u64 *value)
{
    int r;

    v->gpr[RCX] = index;
    v->gpr[RAX] = v->gpr[RDX] = 0xaaaaaaaabbbbbbbb;
    r = outcome(exit_rdmsr(v));
    *value = v->gpr[RAX] | v->gpr[RDX] << 32;
    if (r != DONE)
        assert_int_equal(v->gpr[RAX], 0xaaaaaaaabbbbbbbb);
    return r;
}

static u64 read_done(u32 index)
{
    u64 value;

    assert_int_equal(guest_read(index, &value), DONE);
    return value;
}

static void test_apic(void **state)
{
    u64 x;

    (void)state;
    assert_int_equal(guest_read(0x802, &x), GP); /* not in x2APIC mode yet */
    assert_int_equal(guest_write(0x80b, 0), GP);
    assert_int_equal(read_done(MSR_APIC_BASE), 0xfee00900);
    assert_int_equal(guest_write(MSR_APIC_BASE, 0xfee00d00), DONE);
    assert_int_equal(fake.effect.flags, VLAPIC_MODE | VLAPIC_DEST);
    assert_int_equal(read_done(0x802), 0);
    assert_int_equal(guest_write(0x830, 0x100000041), DONE);
    assert_true(fake.effect.flags & VLAPIC_IPI);
    assert_int_equal(fake.effect.icr, 0x100000041);
    fake.effects = 0;
    assert_int_equal(guest_write(0x80b, 0), DONE);
    assert_int_equal(fake.effects, 0);
    assert_int_equal(guest_write(0x80b, 1), GP);
    assert_int_equal(guest_write(0x8ff, 1), GP);
    assert_int_equal(guest_write(MSR_APIC_BASE, 0xfee00900), GP); /* x2APIC > xAPIC */
    assert_int_equal(guest_write(0x80f, 0x1ff), DONE);
    assert_int_equal(guest_write(0x832, 0x40040), DONE);
    assert_int_equal(guest_write(MSR_TSC_DEADLINE, now + 500), DONE);
    assert_int_equal(v->lapic.timer_deadline, now + 500);
    assert_int_equal(read_done(MSR_TSC_DEADLINE), now + 500);
}

static void test_without_lapic(void **state)
{
    u64 x;

    (void)state;
    guest.flags = 0;
    assert_int_equal(msr_set(v, MSR_APIC_BASE, 0xfee00900), 0);
    assert_int_equal(read_done(MSR_APIC_BASE), 0xfee00900);
    assert_int_equal(guest_write(MSR_APIC_BASE, 0xfec00900), DONE);
    assert_int_equal(guest_write(MSR_APIC_BASE, 0xfee00400), GP);
    assert_int_equal(guest_write(MSR_APIC_BASE, BIT(63)), GP);
    assert_int_equal(guest_write(0x80b, 0), GP);
    assert_int_equal(guest_read(0x802, &x), GP);
    assert_int_equal(read_done(MSR_TSC_DEADLINE), 0);
    assert_int_equal(fake.effects, 0);
}

static void test_tsc(void **state)
{
    (void)state;
    assert_int_equal(read_done(MSR_TSC), now);
    assert_int_equal(guest_write(MSR_TSC, 50), DONE);
    assert_int_equal(read_done(MSR_TSC), 50);
    assert_int_equal(read_done(MSR_TSC_ADJUST), 50 - now);
    assert_int_equal(v->lapic.tsc_offset, 50 - now);
    assert_int_equal(fake.tsc_updates, 1);
    assert_int_equal(guest_write(MSR_TSC_ADJUST, 0), DONE);
    assert_int_equal(read_done(MSR_TSC), now);
    assert_int_equal(guest_write(MSR_TSC_ADJUST, ~0ull), DONE);
    assert_int_equal(read_done(MSR_TSC), now - 1);
    /* The host's writes leave the other alone. */
    assert_int_equal(msr_set(v, MSR_TSC, 0), 0);
    assert_int_equal(read_done(MSR_TSC_ADJUST), ~0ull);
    assert_int_equal(msr_set(v, MSR_TSC_ADJUST, 5), 0);
    assert_int_equal(read_done(MSR_TSC), 0);
}

static void test_tsc_matching(void **state)
{
    u64 second = tsc_khz * 1000;

    (void)state;
    now = 100 * second;
    msr_set(vcpus[0], MSR_TSC, 0);
    now += second - 1;
    msr_set(vcpus[1], MSR_TSC, 0);
    assert_int_equal(vcpus[1]->tsc_offset, -(s64)(100 * second));
    now += 10 * second;
    msr_set(vcpus[1], MSR_TSC, 0); /* a reboot: the second is first this time */
    assert_int_equal(vcpus[1]->tsc_offset, -(s64)now);
    now += 5;
    msr_set(vcpus[0], MSR_TSC, 0);
    assert_int_equal(vcpus[0]->tsc_offset, vcpus[1]->tsc_offset);
    msr_set(vcpus[0], MSR_TSC, 2 * second);
    assert_int_equal(vcpus[0]->tsc_offset, -(s64)now + (s64)(2 * second));
}

static int set_khz(struct vcpu *x, u32 khz)
{
    return state_access(x, SOCLE_STATE_TSC_KHZ, &khz, sizeof(khz), true);
}

/* 1.5 times the machine's rate, after years: nothing is rounded away. */
static void test_tsc_rate(void **state)
{
    u64 years = 0x0123456789abcdf0, at;

    (void)state;
    v->tsc_adjust = 7;
    assert_int_equal(guest_write(MSR_APIC_BASE, 0xfee00d00), DONE);
    assert_int_equal(guest_write(0x80f, 0x1ff), DONE);
    assert_int_equal(guest_write(0x832, 0x40040), DONE);
    assert_int_equal(guest_write(MSR_TSC_DEADLINE, now + 3000), DONE);
    assert_int_equal(set_khz(v, 3750000), 0);
    assert_int_equal(fake.tsc_updates, 1);
    assert_int_equal(v->lapic.tsc_ratio, TSC_RATIO_ONE * 3 / 2);
    assert_int_equal(read_done(MSR_TSC), now); /* from where it was */
    assert_int_equal(read_done(MSR_TSC_ADJUST), 7);
    assert_in_range(v->lapic.timer_deadline, now + 2000, now + 2001);
    at = now;
    now += years;
    assert_int_equal(read_done(MSR_TSC), at + years * 3 / 2);
    assert_int_equal(guest_write(MSR_TSC, 1000), DONE);
    assert_int_equal(read_done(MSR_TSC_ADJUST), 7 + 1000 - (at + years * 3 / 2));
    now += 100;
    assert_int_equal(read_done(MSR_TSC), 1150);
    assert_int_equal(guest_write(MSR_TSC_ADJUST, read_done(MSR_TSC_ADJUST) + 50), DONE);
    assert_int_equal(read_done(MSR_TSC), 1200);
    assert_int_equal(msr_set(v, MSR_TSC, 5), 0);
    assert_int_equal(read_done(MSR_TSC), 5);
    assert_int_equal(set_khz(v, 2500000), 0);
    now += 10;
    assert_int_equal(read_done(MSR_TSC), 15);
}

static void test_tsc_rate_refused(void **state)
{
    u32 updates = fake.tsc_updates;

    (void)state;
    assert_int_equal(set_khz(v, 0), -E_INVAL);
    assert_int_equal(set_khz(v, 2500000), 0); /* as it is */
    assert_int_equal(fake.tsc_updates, updates);
    assert_int_equal(set_khz(v, ~0u), 0);
    assert_int_equal(set_khz(v, 1), 0);
    now += 2500000;
    assert_int_equal(guest_write(MSR_TSC, 1), DONE);
    now += 2500000 * 5;
    assert_in_range(read_done(MSR_TSC), 5, 6);
    tsc_khz = 1000; /* the ratio would be 2^16 and more */
    assert_int_equal(set_khz(v, 65536000), -E_INVAL);
    assert_int_equal(set_khz(v, 65470000), 0);
    tsc_khz = 2500000;
    tsc_scaling = false;
    assert_int_equal(set_khz(v, 2500001), -E_INVAL);
    assert_int_equal(v->lapic.tsc_khz, 65470000);
    tsc_scaling = true;
    assert_int_equal(set_khz(v, 2500000), 0);
}

/* vCPUs that are given the rate one after the other agree; of another rate nothing is taken. */
static void test_tsc_rate_matching(void **state)
{
    (void)state;
    msr_set(vcpus[0], MSR_TSC, 1000);
    msr_set(vcpus[1], MSR_TSC, 1000);
    assert_int_equal(vcpus[1]->tsc_offset, vcpus[0]->tsc_offset);
    now += 12345;
    set_khz(vcpus[0], 1234567);
    now += 12345678;
    msr_set(vcpus[1], MSR_TSC, 77);
    assert_int_equal(vcpus[1]->tsc_offset, 77 - (s64)now);
    now += 12345678;
    set_khz(vcpus[1], 1234567);
    assert_int_equal(vcpus[1]->tsc_offset, vcpus[0]->tsc_offset);
}

static void give_cpuid(void)
{
    struct socle_cpuid t[] = {{.leaf = 0, .eax = 1},
                              {.leaf = 0x80000000, .eax = 0x80000001},
                              {.leaf = 0x80000001, .edx = BIT(29) | BIT(20)}};

    cpuid_set(v, t, 3);
}

static void test_efer(void **state)
{
    (void)state;
    assert_int_equal(guest_write(MSR_EFER, EFER_NXE), GP); /* not in its CPUID */
    assert_int_equal(guest_write(MSR_EFER, EFER_SCE), DONE);
    give_cpuid();
    assert_int_equal(guest_write(MSR_EFER, EFER_SCE | EFER_NXE | EFER_LME), DONE);
    assert_int_equal(read_done(MSR_EFER), EFER_SCE | EFER_NXE | EFER_LME);
    assert_int_equal(guest_write(MSR_EFER, EFER_SVME), GP);
    assert_int_equal(guest_write(MSR_EFER, BIT(14)), GP);
    assert_int_equal(guest_write(MSR_EFER, BIT(13)), GP);
    assert_int_equal(guest_write(MSR_EFER, BIT(15)), GP);
    assert_int_equal(guest_write(MSR_EFER, BIT(32)), GP);
    fake.sregs.cr0 = CR0_PG | CR0_PE;
    fake.sregs.efer |= EFER_LMA;
    assert_int_equal(guest_write(MSR_EFER, 0), GP); /* LME with paging on */
    assert_int_equal(guest_write(MSR_EFER, EFER_LME), DONE);
    assert_int_equal(read_done(MSR_EFER), EFER_LME | EFER_LMA); /* LMA is not the guest's */
    fake.sregs.cr0 = 0;
    fake.sregs.efer = 0;
    assert_int_equal(guest_write(MSR_EFER, EFER_LMA | EFER_SCE), DONE);
    assert_int_equal(read_done(MSR_EFER), EFER_SCE);
}

static void test_pat_and_bases(void **state)
{
    (void)state;
    for (u32 type = 0; type < 256; type++)
        for (u32 i = 0; i < 8; i++) {
            bool legal = type < 8 && type != 2 && type != 3;

            assert_int_equal(guest_write(MSR_PAT, (u64)type << i * 8), legal ? DONE : GP);
        }
    assert_int_equal(guest_write(MSR_PAT, PAT_RESET), DONE);
    assert_int_equal(fake.pat, PAT_RESET);
    assert_int_equal(guest_write(MSR_LSTAR, 0x800000000000), GP);
    assert_int_equal(guest_write(MSR_LSTAR, 0xffff800000000000), DONE);
    assert_int_equal(guest_write(MSR_GS_BASE, BIT(63)), GP);
    assert_int_equal(msr_set(v, MSR_GS_BASE, BIT(63)), -E_INVAL);
    assert_int_equal(guest_write(MSR_STAR, ~0ull), DONE);
    assert_int_equal(read_done(MSR_STAR), ~0ull);
    if (!host_has_tsc_aux)
        return;
    assert_int_equal(guest_write(MSR_TSC_AUX, BIT(32)), GP);
    assert_int_equal(guest_write(MSR_TSC_AUX, 77), DONE);
    assert_int_equal(tsc_aux_in_processor, 77);
    assert_int_equal(msr_set(v, MSR_TSC_AUX, 78), 0); /* not loaded: only kept */
    assert_int_equal(tsc_aux_in_processor, 77);
    assert_int_equal(read_done(MSR_TSC_AUX), 78);
}

static void test_dom0_answers(void **state)
{
    u64 x;

    (void)state;
    assert_int_equal(guest_read(0x1a0, &x), LEFT);
    assert_int_equal(v->page->exit, SOCLE_EXIT_MSR_READ);
    assert_int_equal(v->page->msr.index, 0x1a0);
    assert_int_equal(v->io.kind, IO_MSR_READ);
    v->io.data = 0x123456789abcdef0;
    v->io.error = 0;
    v->next_rip = 0;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_int_equal(v->rip, 0x1002);
    assert_int_equal(v->gpr[RAX], 0x9abcdef0);
    assert_int_equal(v->gpr[RDX], 0x12345678);
    assert_int_equal(v->io.kind, IO_NONE);

    v->rip = 0x1000;
    v->next_rip = 0x1002;
    assert_int_equal(guest_write(0x1a0, 0xfedcba9876543210), LEFT);
    assert_int_equal(v->page->exit, SOCLE_EXIT_MSR_WRITE);
    assert_int_equal(v->page->msr.value, 0xfedcba9876543210);
    v->io.error = 1;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_true(v->event.valid && v->event.vector == VEC_GP);
    assert_int_equal(v->rip, 0x1000);

    v->event.valid = false;
    assert_int_equal(guest_write(0x1a0, 0), LEFT);
    v->rip = 0x2000; /* set anew meanwhile */
    v->io.error = 0;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_int_equal(v->rip, 0x2000);
    v->rip = 0x1000;
}

/* Dom0 wants to see every access first, and then leaves it to Socle. */
static void test_dom0_first(void **state)
{
    u64 x;

    (void)state;
    v->traps = SOCLE_TRAP_MSRS;
    assert_int_equal(guest_read(MSR_TSC_ADJUST, &x), LEFT);
    assert_int_equal(v->page->msr.error, 0);
    assert_int_equal(v->page->msr.index, MSR_TSC_ADJUST);
    v->tsc_adjust = 0x1234;
    v->io.error = SOCLE_MSR_SOCLE;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_int_equal(v->gpr[RAX], 0x1234);
    assert_int_equal(v->rip, 0x1002);

    v->rip = 0x1000;
    assert_int_equal(guest_write(MSR_TSC_ADJUST, 99), LEFT);
    assert_int_equal(v->tsc_adjust, 0x1234);
    v->io.data = v->page->msr.value;
    v->io.error = SOCLE_MSR_SOCLE;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_int_equal(v->tsc_adjust, 99);

    /* Refused: dom0 hears why, once more. */
    v->rip = 0x1000;
    assert_int_equal(guest_write(MSR_TSC_AUX, BIT(32)), LEFT);
    v->io.data = v->page->msr.value;
    v->io.error = SOCLE_MSR_SOCLE;
    assert_int_equal(msr_complete(v), VCPU_EXIT);
    assert_int_equal(v->page->exit, SOCLE_EXIT_MSR_WRITE);
    assert_int_equal(v->page->msr.error, E_INVAL);
    assert_int_equal(v->page->msr.value, BIT(32));
    v->io.error = 1;
    assert_int_equal(msr_complete(v), VCPU_RESUME);
    assert_true(v->event.valid && v->event.vector == VEC_GP && v->rip == 0x1000);
    v->event.valid = false;
    assert_int_equal(guest_read(0x1a0, &x), LEFT);
    v->io.error = SOCLE_MSR_SOCLE;
    assert_int_equal(msr_complete(v), VCPU_EXIT);
    assert_int_equal(v->page->msr.error, E_NOENT);
    v->io.kind = IO_NONE;

    assert_int_equal(guest_read(0x803, &x), GP); /* the x2APIC's are never asked for */
    assert_int_equal(msr_set(v, MSR_TSC_ADJUST, 7), 0);
    assert_int_equal(v->tsc_adjust, 7);
}

static void test_dom0_own(void **state)
{
    u64 x;

    (void)state;
    v->domain = &dom0;
    fake.hardware_index = 0x2ff;
    fake.hardware_msr = 0xc06;
    assert_int_equal(read_done(0x2ff), 0xc06);
    assert_int_equal(guest_write(0x2ff, 0xc06), DONE);
    assert_int_equal(guest_write(0x2ff, 6), DONE); /* left out */
    assert_int_equal(guest_read(0x8b, &x), GP);    /* listed, but this processor has it not */
    fake.hardware_index = 0x48;
    assert_int_equal(guest_read(0x48, &x), GP); /* the processor has it, but it is not listed */
    assert_int_equal(guest_write(0x48, 1), GP);
    fake.hardware_index = 0xc0010114;
    assert_int_equal(guest_read(0xc0010114, &x), GP);
    assert_int_equal(guest_read(0xc0010117, &x), GP);
    assert_int_equal(guest_write(0xc0010117, 0x1000), GP);
    assert_int_equal(guest_write(MSR_EFER, EFER_SVME), GP);
}

static void test_xsetbv(void **state)
{
    (void)state;
    v->guest_xcr0_mask = 3;
    v->gpr[RCX] = 0;
    v->gpr[RDX] = 0;
    v->gpr[RAX] = 3;
    exit_xsetbv(v, 0, 0);
    assert_true(v->event.valid && v->event.vector == VEC_UD);
    v->event.valid = false;
    assert_int_equal(outcome(exit_xsetbv(v, 3, CR4_OSXSAVE)), GP);
    assert_int_equal(outcome(exit_xsetbv(v, 0, CR4_OSXSAVE)), DONE);
    assert_int_equal(v->xcr0, 3);
    v->gpr[RAX] = 7;
    assert_int_equal(outcome(exit_xsetbv(v, 0, CR4_OSXSAVE)), GP);
    v->gpr[RAX] = 2;
    assert_int_equal(outcome(exit_xsetbv(v, 0, CR4_OSXSAVE)), GP);
    v->gpr[RAX] = 1;
    v->gpr[RCX] = 1;
    assert_int_equal(outcome(exit_xsetbv(v, 0, CR4_OSXSAVE)), GP);
    assert_int_equal(v->xcr0, 3);
}

/* ---- the clock ---- */

struct time_info {
    u32 version, pad0;
    u64 tsc_timestamp, system_time;
    u32 mul;
    s8 shift;
    u8 flags, pad[2];
};

/* The guest's arithmetic (Linux arch/x86/include/asm/pvclock.h). */
static u64 guest_clock(const struct time_info *t, u64 tsc)
{
    u64 delta = tsc - t->tsc_timestamp;

    delta = t->shift < 0 ? delta >> -t->shift : delta << t->shift;
    return t->system_time + (u64)((unsigned __int128)delta * t->mul >> 32);
}

static struct time_info published(u32 offset)
{
    struct time_info t;

    memcpy(&t, fake.gmem + offset, sizeof(t));
    assert_int_equal(t.version % 2, 0);
    assert_int_equal(t.flags & ~2, 1);
    return t;
}

static void test_clock(void **state)
{
    struct time_info a, b;
    u64 at = 1ull << 50;

    (void)state;
    fake.gmem_gpa = 0x5000;
    assert_int_equal(guest_write(0x4b564d01, 0x5003), GP);
    assert_int_equal(guest_write(0x4b564d01, 0x5fe5), GP); /* would cross the page's end */
    assert_int_equal(v->pending, 0);
    guest.clock_offset_ns = -12345;
    msr_set(vcpus[0], MSR_TSC, 0);
    now += 1000;
    vcpus[1]->tsc_offset = 1000000000;
    assert_int_equal(guest_write(0x4b564d01, 0x5041), DONE);
    assert_int_equal(v->pending, PENDING_CLOCK);
    assert_int_equal(pvclock_update(v), VCPU_RESUME);
    a = published(0x40);
    assert_int_equal(pvclock_set_time(vcpus[1], 0x5101), 0);
    assert_int_equal(pvclock_update(vcpus[1]), VCPU_RESUME);
    b = published(0x100);
    /* At the same moment all vCPUs read the same, which is Socle's time and the domain's offset. */
    for (u32 i = 0; i < 100; i++, at += 0x123456789) {
        u64 want = scale((at - tsc_boot) >> -tsc_pv_shift, tsc_pv_mul) - 12345;

        assert_int_equal(guest_clock(&a, at + (u64)vcpus[0]->tsc_offset), want);
        assert_int_equal(guest_clock(&b, at + (u64)vcpus[1]->tsc_offset), want);
    }
    assert_int_equal(fake.gmem_versions, 4);
    v->pending = 0;
    guest_write(MSR_TSC, 99);
    assert_int_equal(v->pending, PENDING_CLOCK);
    pvclock_update(v);
    assert_int_not_equal(published(0x40).version, a.version);
    assert_int_equal(published(0x40).flags, 1);
    fake.gmem[0x40 + offsetof(struct time_info, flags)] |= 2; /* dom0 says that it stood still */
    pvclock_update(v);
    assert_int_equal(published(0x40).flags, 3);
    fake.gmem[0x40 + offsetof(struct time_info, flags)] &= ~2;
    pvclock_update(v);
    assert_int_equal(published(0x40).flags, 1);
    v->pending = 0;
    assert_int_equal(guest_write(0x12, 0), DONE); /* the old number, switched off */
    guest_write(MSR_TSC, 1);
    assert_int_equal(v->pending, 0);
}

/* Of one moment, a guest of another rate reads what one of the machine's does. */
static void test_clock_rates(void **state)
{
    static const u32 khz[] = {1, 1000, 999999, 2499999, 2500000, 2500001, 4000000, 70000000, ~0u};

    (void)state;
    fake.gmem_gpa = 0x5000;
    guest.clock_offset_ns = 777;
    assert_int_equal(guest_write(0x4b564d01, 0x5041), DONE);
    for (u32 i = 0; i < ARRAY_SIZE(khz); i++) {
        struct time_info t;
        u64 tick = 1000000 / khz[i] + 1, start = now;

        v->pending = 0;
        assert_int_equal(set_khz(v, khz[i]), 0);
        assert_int_equal(v->pending, khz[i] == 2500000 && !i ? 0 : PENDING_CLOCK);
        assert_int_equal(pvclock_update(v), VCPU_RESUME);
        t = published(0x40);
        assert_true(t.mul & BIT(31));
        for (now = tsc_boot + 1; now < 1ull << 46; now = now * 3 / 2 + 1) {
            u64 want = scale((now - tsc_boot) >> -tsc_pv_shift, tsc_pv_mul) + 777;
            u64 got = guest_clock(&t, read_done(MSR_TSC)), slack = tick + (want >> 30) + 4;

            assert_in_range(got + slack - want, 0, 2 * slack);
        }
        now = start;
    }
}

static void test_clock_missing_page(void **state)
{
    (void)state;
    fake.gmem_gpa = 0x5000;
    for (u32 after = 0; after < 3; after++) {
        assert_int_equal(guest_write(0x4b564d01, 0x5001), DONE);
        v->pending = 0;
        fake.gmem_error = -E_AGAIN;
        fake.gmem_after = after;
        assert_int_equal(pvclock_update(v), VCPU_EXIT);
        assert_int_equal(v->page->exit, SOCLE_EXIT_FAULT);
        assert_int_equal(v->pending, PENDING_CLOCK);
        fake.gmem_error = 0;
        assert_int_equal(pvclock_update(v), VCPU_RESUME);
        published(0);
    }
    v->pending = 0;
    assert_int_equal(guest_write(0x4b564d01, 0x999001), DONE); /* no memory: no clock, no harm */
    assert_int_equal(pvclock_update(v), VCPU_RESUME);
}

/* A guest's is dom0's business; dom0's kernel always sets it, and has the CMOS clock. */
static void test_wall_clock(void **state)
{
    static const u32 index[] = {0x11, 0x4b564d00};
    u64 x;

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(index); i++) {
        guest.flags = DOMAIN_LAPIC;
        assert_int_equal(msr_set(v, index[i], 0x5000), -E_NOENT);
        assert_int_equal(msr_get(v, index[i], &x), -E_NOENT);
        assert_int_equal(guest_write(index[i], 0x5000), LEFT);
        assert_int_equal(v->page->exit, SOCLE_EXIT_MSR_WRITE);
        guest.flags = DOMAIN_LAPIC | DOMAIN_DEVICES;
        assert_int_equal(guest_write(index[i], 0x5000), DONE);
    }
    assert_int_equal(v->pending, 0);
}

/* What dom0 writes it reads again, and what QEMU always asks for is there. */
static void test_host_roundtrip(void **state)
{
    static const u32 index[] = {0x10,     0x12,     0x1b,      0x277,      0x3b,
                                MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_GS_BASE};
    u64 x;

    (void)state;
    give_cpuid();
    for (u32 i = 0; i < ARRAY_SIZE(index); i++) {
        u64 value = index[i] == 0x1b ? 0xfee00d00 : index[i] == MSR_EFER ? 0x901 : 0x5000;

        if (index[i] == 0x277)
            value = PAT_RESET;
        assert_int_equal(msr_set(v, index[i], value), 0);
        assert_int_equal(msr_get(v, index[i], &x), 0);
        assert_int_equal(x, value);
    }
    assert_int_equal(msr_set(v, 0x830, 0), -E_INVAL);
    assert_int_equal(msr_set(v, 0x17a, 0), -E_NOENT);
    assert_int_equal(msr_get(v, 0x17a, &x), -E_NOENT);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_apic),
        TEST(test_without_lapic),
        TEST(test_tsc),
        TEST(test_tsc_matching),
        TEST(test_tsc_rate),
        TEST(test_tsc_rate_refused),
        TEST(test_tsc_rate_matching),
        TEST(test_efer),
        TEST(test_pat_and_bases),
        TEST(test_dom0_first),
        TEST(test_dom0_answers),
        TEST(test_dom0_own),
        TEST(test_xsetbv),
        TEST(test_clock),
        TEST(test_clock_rates),
        TEST(test_clock_missing_page),
        TEST(test_wall_clock),
        TEST(test_host_roundtrip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
