/* SPDX-License-Identifier: BSD-2-Clause */
/* The paravirtual clock's structure (Linux Documentation/virt/kvm/x86/msr.rst). */
#include "core/pvclock.h"

#include "core/gmem.h"
#include "core/lib.h"
#include "core/log.h"
#include "drivers/tsc.h"

#define CLOCK_ENABLE BIT(0)
#define TSC_STABLE   BIT(0)
#define STOOD_STILL  BIT(1)

struct time_info {
    u32 version; /* odd while the rest is being written */
    u32 pad0;
    u64 tsc_timestamp;
    u64 system_time;
    u32 tsc_to_system_mul;
    s8 tsc_shift;
    u8 flags;
    u8 pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "Linux's struct pvclock_vcpu_time_info");

static bool fits(gpa_t gpa, size_t size)
{
    return IS_ALIGNED(gpa, 4) && (gpa & (PAGE_SIZE - 1)) + size <= PAGE_SIZE &&
           gpa < BIT(NPT_GFN_BITS + PAGE_SHIFT);
}

int pvclock_set_time(struct vcpu *v, u64 value)
{
    gpa_t gpa = value & ~CLOCK_ENABLE;

    if ((value & CLOCK_ENABLE) && !fits(gpa, sizeof(struct time_info)))
        return -E_INVAL;
    v->clock_msr = value;
    pvclock_changed(v);
    return 0;
}

void pvclock_changed(struct vcpu *v)
{
    if (v->clock_msr & CLOCK_ENABLE)
        vcpu_set_pending(v, PENDING_CLOCK);
}

/* Both structures begin with the version: odd, then the rest, then even. Other vCPUs may read
 * meanwhile. Versions go on from somewhere else than where another life of the guest, before a
 * migration, ended. */
static int publish(struct vcpu *v, gpa_t gpa, void *info, size_t size)
{
    u32 *version = info;
    int err;

    if (!v->clock_version)
        v->clock_version = (u32)rdtsc() & ~1u;
    *version = v->clock_version + 1;
    err = gmem_access(v, gpa, version, sizeof(*version), PF_WRITE);
    if (!err)
        err =
            gmem_access(v, gpa + sizeof(*version), version + 1, size - sizeof(*version), PF_WRITE);
    *version = v->clock_version + 2;
    if (!err)
        err = gmem_access(v, gpa, version, sizeof(*version), PF_WRITE);
    if (!err)
        v->clock_version += 2;
    return err;
}

/* The moment is Socle's start, for every vCPU and for ever. In the guest's TSC that may be before
 * 0: all of this arithmetic, the guest's too, is modulo 2^64. That the guest stood still for long,
 * dom0 writes there, and the guest takes it away. */
static int write_time(struct vcpu *v)
{
    struct time_info info = {.system_time = (u64)v->domain->clock_offset_ns, .flags = TSC_STABLE};
    gpa_t gpa = v->clock_msr & ~CLOCK_ENABLE;
    u8 before = 0;

    if (!(v->clock_msr & CLOCK_ENABLE))
        return 0;
    info.tsc_timestamp = tsc_scale(tsc_boot, v->lapic.tsc_ratio) + (u64)v->tsc_offset;
    tsc_pv_factors(v->lapic.tsc_khz, &info.tsc_to_system_mul, &info.tsc_shift);
    gmem_access(v, gpa + offsetof(struct time_info, flags), &before, sizeof(before), 0);
    info.flags |= before & STOOD_STILL;
    return publish(v, gpa, &info, sizeof(info));
}

enum vcpu_action pvclock_update(struct vcpu *v)
{
    int err = write_time(v);

    if (err == -E_AGAIN) {
        vcpu_set_pending(v, PENDING_CLOCK);
        return vcpu_exit(v, SOCLE_EXIT_FAULT);
    }
    if (err)
        log_limited("domain %u: its clock is at an address without memory", v->domain->id);
    return VCPU_RESUME;
}
