/* SPDX-License-Identifier: BSD-2-Clause */
/* RDMSR, WRMSR and XSETBV; the MSRs that a vCPU has in Socle. */
#include "core/msr.h"

#include "core/cpuid.h"
#include "core/exits.h"
#include "core/irq.h"
#include "core/log.h"
#include "core/pvclock.h"
#include "core/trap.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

/* What `host` means: dom0 sets or asks for a stopped vCPU's state; the guest's own rules do not
 * hold. */

static bool is_apic_msr(u32 index)
{
    return (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST) || index == MSR_TSC_DEADLINE ||
           index == MSR_APIC_BASE;
}

/* Whether dom0 is to decide; never for the x2APIC's. */
static bool asks_first(const struct vcpu *v, u32 index)
{
    return unlikely(v->traps & SOCLE_TRAP_MSRS) && !(index >> 8 == MSR_X2APIC_FIRST >> 8);
}

/* ---- local APIC ---- */

/* Without a LAPIC in Socle there is only the base, which dom0's user reads at exits. */
int msr_set_apic_base(struct vcpu *v, u64 value)
{
    u64 mode = value & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    struct vlapic_effect e;
    int err;

    if (value & PAGE_MASK & ~host_phys_mask)
        return -E_INVAL;
    if (!domain_has(v->domain, DOMAIN_LAPIC)) {
        if ((value & ~PAGE_MASK & ~(mode | APIC_BASE_BSP)) || mode == APIC_BASE_X2APIC)
            return -E_INVAL;
        v->apic_base = value;
        return 0;
    }
    err = vlapic_set_base(&v->lapic, value, true, &e);
    if (!err && e.flags)
        vcpu_apic_changed(v);
    return err;
}

/* For the host an interrupt command would need v's own processor: the x2APIC registers come with
 * the LAPIC's state. */
static int write_apic(struct vcpu *v, u32 index, u64 value, bool host)
{
    struct vlapic_effect e;
    int err;

    if (index == MSR_APIC_BASE && (host || !domain_has(v->domain, DOMAIN_LAPIC)))
        return msr_set_apic_base(v, value);
    if (unlikely(!domain_has(v->domain, DOMAIN_LAPIC)) || (host && index != MSR_TSC_DEADLINE))
        return index == MSR_TSC_DEADLINE ? 0 : -E_INVAL;
    err = vlapic_msr_write(&v->lapic, index, value, rdtsc(), &e);
    if (err || !e.flags)
        return err;
    if (host)
        vcpu_timer_changed(v);
    else
        vcpu_apply_effect(v, &e);
    return 0;
}

static int read_apic(struct vcpu *v, u32 index, u64 *value)
{
    if (domain_has(v->domain, DOMAIN_LAPIC))
        return vlapic_msr_read(&v->lapic, index, rdtsc(), value);
    *value = index == MSR_APIC_BASE ? v->apic_base : 0;
    return index < MSR_X2APIC_FIRST ? 0 : -E_INVAL;
}

/* ---- time-stamp counter ---- */

void msr_set_tsc_offset(struct vcpu *v, s64 offset)
{
    v->tsc_offset = offset;
    vendor->update_tsc(v);
    vlapic_tsc_changed(&v->lapic, (u64)offset, rdtsc());
    vcpu_timer_changed(v);
    pvclock_changed(v);
}

/* Writers of a whole domain's state set one vCPU's TSC after the other to the same value, and mean
 * that they be equal. */
static s64 matching_offset(const struct vcpu *v, s64 offset)
{
    const struct domain *d = v->domain;
    u32 n = __atomic_load_n(&d->vcpu_count, __ATOMIC_ACQUIRE);
    u64 second = 1000ull * v->lapic.tsc_khz;

    for (u32 i = 0; i < n; i++) {
        s64 other = d->vcpus[i]->tsc_offset;

        if (d->vcpus[i] != v && d->vcpus[i]->lapic.tsc_khz == v->lapic.tsc_khz &&
            (u64)offset - (u64)other + second < 2 * second)
            return other;
    }
    return offset;
}

static int write_tsc(struct vcpu *v, u64 value, bool host)
{
    s64 offset = (s64)(value - tsc_scale(rdtsc(), v->lapic.tsc_ratio));

    if (host)
        offset = matching_offset(v, offset);
    else
        v->tsc_adjust += (u64)offset - (u64)v->tsc_offset;
    msr_set_tsc_offset(v, offset);
    return 0;
}

static int write_tsc_adjust(struct vcpu *v, u64 value, bool host)
{
    u64 delta = value - v->tsc_adjust;

    v->tsc_adjust = value;
    if (!host && delta)
        msr_set_tsc_offset(v, (s64)((u64)v->tsc_offset + delta));
    return 0;
}

static int write_tsc_aux(struct vcpu *v, u64 value, bool host)
{
    if (!host_has_tsc_aux || value >> 32)
        return -E_INVAL;
    v->tsc_aux = value;
    if (!host)
        wrmsr(MSR_TSC_AUX, value);
    return 0;
}

/* ---- what the vendor part holds ---- */

/* LMA is the processor's, and is ignored when written. */
static int write_efer(struct vcpu *v, u64 value)
{
    u64 old;

    if ((value & ~(cpuid_efer_mask(v) | EFER_LMA)) || !vendor->get_msr(v, MSR_EFER, &old))
        return -E_INVAL;
    value = (value & ~EFER_LMA) | (old & EFER_LMA);
    if ((value ^ old) & EFER_LME) {
        vendor->get_sregs(v, &v->sregs);
        if (v->sregs.cr0 & CR0_PG)
            return -E_INVAL;
    }
    vendor->set_msr(v, MSR_EFER, value);
    return 0;
}

/* Memory types 0, 1, 4 to 7 in each byte. */
static bool pat_legal(u64 pat)
{
    return !(pat & 0xf8f8f8f8f8f8f8f8) && (pat | (pat & 0x0202020202020202) << 1) == pat;
}

static bool must_be_canonical(u32 index)
{
    static const u32 addresses[] = {MSR_LSTAR,       MSR_CSTAR,          MSR_FS_BASE,
                                    MSR_GS_BASE,     MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
                                    MSR_SYSENTER_EIP};

    for (u32 i = 0; i < ARRAY_SIZE(addresses); i++)
        if (addresses[i] == index)
            return true;
    return false;
}

static int write_vendor(struct vcpu *v, u32 index, u64 value)
{
    if ((must_be_canonical(index) && !is_canonical(value)) ||
        (index == MSR_PAT && !pat_legal(value)))
        return -E_INVAL;
    return vendor->set_msr(v, index, value) ? 0 : -E_NOENT;
}

/* ---- all that Socle holds ---- */

static int write_msr(struct vcpu *v, u32 index, u64 value, bool host)
{
    if (likely(is_apic_msr(index)))
        return write_apic(v, index, value, host);
    switch (index) {
    case MSR_TSC:
        return write_tsc(v, value, host);
    case MSR_TSC_ADJUST:
        return write_tsc_adjust(v, value, host);
    case MSR_TSC_AUX:
        return write_tsc_aux(v, value, host);
    case MSR_EFER:
        return write_efer(v, value);
    case MSR_KVM_WALL_CLOCK: /* of a guest it is dom0's business; dom0 itself has the CMOS clock */
    case MSR_KVM_WALL_CLOCK_NEW:
        return domain_has(v->domain, DOMAIN_DEVICES) ? 0 : -E_NOENT;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        return pvclock_set_time(v, value);
    default:
        return write_vendor(v, index, value);
    }
}

int msr_get(struct vcpu *v, u32 index, u64 *value)
{
    if (is_apic_msr(index))
        return read_apic(v, index, value);
    switch (index) {
    case MSR_TSC:
        *value = tsc_scale(rdtsc(), v->lapic.tsc_ratio) + (u64)v->tsc_offset;
        return 0;
    case MSR_TSC_ADJUST:
        *value = v->tsc_adjust;
        return 0;
    case MSR_TSC_AUX:
        *value = v->tsc_aux;
        return host_has_tsc_aux ? 0 : -E_INVAL;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        *value = v->clock_msr;
        return 0;
    default:
        return vendor->get_msr(v, index, value) ? 0 : -E_NOENT;
    }
}

int msr_set(struct vcpu *v, u32 index, u64 value)
{
    return write_msr(v, index, value, true);
}

/* ---- dom0's view of the processor ---- */

/* What a stock kernel reads while it starts, or to know the machine's memory types. A write that
 * would change one is left out: with a line in the log, unless Linux does it as a matter of course
 * (the MTRRs are switched off for a moment to set PAT; the microcode revision is cleared before it
 * is asked for; NB_CFG's extended configuration access and DE_CFG's serializing LFENCE are turned
 * on). */
static const struct {
    u32 first, last;
    bool silent;
} passed[] = {
    {0x17, 0x17, false},   /* PLATFORM_ID */
    {0x8b, 0x8b, true},    /* microcode revision */
    {0xce, 0xce, false},   /* PLATFORM_INFO */
    {0xfe, 0xfe, false},   /* MTRRs */
    {0x1a0, 0x1a0, false}, /* MISC_ENABLE */
    {0x1d9, 0x1d9, false}, /* DEBUGCTL */
    {0x200, 0x21f, true},
    {0x250, 0x250, true},
    {0x258, 0x259, true},
    {0x268, 0x26f, true},
    {0x2ff, 0x2ff, true},
    {0xc0010010, 0xc0010010, false}, /* SYSCFG */
    {0xc0010015, 0xc0010015, false}, /* HWCR */
    {0xc001001a, 0xc001001a, false}, /* TOP_MEM */
    {0xc001001d, 0xc001001d, false}, /* TOP_MEM2 */
    {0xc001001f, 0xc001001f, true},  /* NB_CFG */
    {0xc0010058, 0xc0010058, false}, /* MMIO_CONF_BASE */
    {0xc0011029, 0xc0011029, true},  /* DE_CFG */
};

static int find_passed(u32 index)
{
    for (u32 i = 0; i < ARRAY_SIZE(passed); i++)
        if (index >= passed[i].first && index <= passed[i].last)
            return (int)i;
    return -1;
}

static int write_passed(u32 index, u64 value)
{
    int i = find_passed(index);
    u64 now;

    if (i < 0 || !rdmsr_safe(index, &now)) {
        log_limited("dom0 may not write MSR %x", index);
        return -E_INVAL;
    }
    if (value != now && !passed[i].silent)
        log_limited("dom0's write of %lx to MSR %x, which is %lx, left out", value, index, now);
    return 0;
}

/* ---- exits ---- */

static void set_edx_eax(struct vcpu *v, u64 value)
{
    v->gpr[RAX] = (u32)value;
    v->gpr[RDX] = value >> 32;
}

static enum vcpu_action ask_dom0(struct vcpu *v, enum io_kind kind, u64 value, int refused)
{
    v->page->msr.index = (u32)v->gpr[RCX];
    v->page->msr.error = (u32)-refused;
    v->page->msr.value = value;
    v->io = (struct io_state){.kind = kind, .rip = v->rip, .next_rip = v->next_rip};
    return vcpu_exit(v, kind == IO_MSR_READ ? SOCLE_EXIT_MSR_READ : SOCLE_EXIT_MSR_WRITE);
}

static enum vcpu_action finish(struct vcpu *v, int err)
{
    return unlikely(err) ? vcpu_raise_gp(v) : vcpu_skip(v);
}

enum vcpu_action exit_wrmsr(struct vcpu *v)
{
    u32 index = (u32)v->gpr[RCX];
    u64 value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32;
    int err = asks_first(v, index) ? -E_NOENT : write_msr(v, index, value, false);

    v->count[SOCLE_STAT_MSR_WRITE]++;
    if (err != -E_NOENT)
        return finish(v, err);
    if (domain_has(v->domain, DOMAIN_DEVICES))
        return finish(v, write_passed(index, value));
    return ask_dom0(v, IO_MSR_WRITE, value, 0);
}

enum vcpu_action exit_rdmsr(struct vcpu *v)
{
    u32 index = (u32)v->gpr[RCX];
    u64 value = 0;
    int err = asks_first(v, index) ? -E_NOENT : msr_get(v, index, &value);

    v->count[SOCLE_STAT_MSR_READ]++;
    if (err == -E_NOENT && !domain_has(v->domain, DOMAIN_DEVICES))
        return ask_dom0(v, IO_MSR_READ, 0, 0);
    if (err == -E_NOENT)
        err = find_passed(index) >= 0 && rdmsr_safe(index, &value) ? 0 : -E_INVAL;
    if (!err)
        set_edx_eax(v, value);
    return finish(v, err);
}

enum vcpu_action msr_complete(struct vcpu *v)
{
    enum io_kind kind = v->io.kind;
    int err = (int)v->io.error;

    v->io.kind = IO_NONE;
    if (v->rip != v->io.rip)
        return VCPU_RESUME; /* dom0 has put the vCPU elsewhere */
    v->next_rip = v->io.next_rip;
    if (err == SOCLE_MSR_SOCLE) {
        err = kind == IO_MSR_READ ? msr_get(v, (u32)v->gpr[RCX], &v->io.data)
                                  : write_msr(v, (u32)v->gpr[RCX], v->io.data, false);
        if (err)
            return ask_dom0(v, kind, v->io.data, err);
    }
    if (kind == IO_MSR_READ && !err)
        set_edx_eax(v, v->io.data);
    return finish(v, err);
}

enum vcpu_action exit_xsetbv(struct vcpu *v, u8 cpl, u64 cr4)
{
    u64 value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32;

    v->count[SOCLE_STAT_OTHER]++;
    if (!(cr4 & CR4_OSXSAVE))
        return vcpu_raise_ud(v);
    if (cpl || (u32)v->gpr[RCX] || !cpuid_xcr0_legal(v, value))
        return finish(v, -E_INVAL);
    vcpu_set_xcr0(v, value);
    return finish(v, 0);
}
