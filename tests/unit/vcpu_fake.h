/* SPDX-License-Identifier: BSD-2-Clause */
/* A vCPU and its surroundings for tests of what exits and state calls do: a vendor part that only
 * remembers, a page of guest memory, and notes of what was asked of the rest. Included by one file
 * of a program. */
#ifndef TESTS_UNIT_VCPU_FAKE_H
#define TESTS_UNIT_VCPU_FAKE_H

#include "core/cpuid.h"
#include "core/errno.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/msr.h"
#include "core/trap.h"
#include "core/vcpu.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

#include <stdlib.h>
#include <string.h>

u64 tsc_khz = 2500000, tsc_boot = 1000;
u32 tsc_pv_mul = 0xcccccccc;
s8 tsc_pv_shift = -1;
bool tsc_scaling = true;
struct domain dom0 = {.flags = DOMAIN_DEVICES | DOMAIN_HYPERCALLS | DOMAIN_LAPIC};

static struct {
    u32 timer_changed, effects, tsc_updates, traps;
    struct vlapic_effect effect;
    int gmem_error; /* of the next gmem_access() calls */
    u32 gmem_after; /* calls that succeed first */
    gpa_t gmem_gpa; /* where gmem begins */
    u8 gmem[4096];
    u32 gmem_versions; /* writes of 4 bytes */
    u64 hardware_msr;
    u32 hardware_index; /* the only one that exists */
    struct socle_sregs sregs;
    struct socle_debug debug;
    u32 debug_flags;
    u64 star, lstar, pat, gs_base;
    bool shadow;
} fake;

static void fake_get_sregs(struct vcpu *v, struct socle_sregs *s)
{
    (void)v;
    *s = fake.sregs;
}

static void fake_set_sregs(struct vcpu *v, const struct socle_sregs *s)
{
    (void)v;
    fake.sregs = *s;
}

static u64 *fake_msr(u32 index)
{
    switch (index) {
    case MSR_EFER:
        return &fake.sregs.efer;
    case MSR_STAR:
        return &fake.star;
    case MSR_LSTAR:
        return &fake.lstar;
    case MSR_GS_BASE:
        return &fake.gs_base;
    case MSR_PAT:
        return &fake.pat;
    default:
        return NULL;
    }
}

static bool fake_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    (void)v;
    if (fake_msr(index))
        *value = *fake_msr(index);
    return fake_msr(index);
}

static bool fake_set_msr(struct vcpu *v, u32 index, u64 value)
{
    (void)v;
    if (fake_msr(index))
        *fake_msr(index) = value;
    return fake_msr(index);
}

static void fake_get_debug(struct vcpu *v, struct socle_debug *d)
{
    (void)v;
    *d = fake.debug;
}

static void fake_set_debug(struct vcpu *v, const struct socle_debug *d)
{
    (void)v;
    fake.debug = *d;
}

static void fake_update_intercepts(struct vcpu *v)
{
    fake.debug_flags = v->debug_flags;
    fake.traps = v->traps;
}

static bool fake_get_shadow(struct vcpu *v)
{
    (void)v;
    return fake.shadow;
}

static void fake_set_shadow(struct vcpu *v, bool shadow)
{
    (void)v;
    fake.shadow = shadow;
}

static void fake_update_tsc(struct vcpu *v)
{
    (void)v;
    fake.tsc_updates++;
}

static const struct npt_format fake_format = NPT_FORMAT_EPT;
static const struct vendor_ops fake_ops = {
    .npt_format = &fake_format,
    .name = "fake",
    .abi_call = 1,
    .get_sregs = fake_get_sregs,
    .set_sregs = fake_set_sregs,
    .get_msr = fake_get_msr,
    .set_msr = fake_set_msr,
    .get_debug = fake_get_debug,
    .set_debug = fake_set_debug,
    .update_intercepts = fake_update_intercepts,
    .get_shadow = fake_get_shadow,
    .set_shadow = fake_set_shadow,
    .update_tsc = fake_update_tsc,
};
const struct vendor_ops *vendor = &fake_ops;

void vcpu_load_dr(const struct vcpu *v)
{
    (void)v;
}

enum vcpu_action vcpu_exit(struct vcpu *v, enum socle_exit reason)
{
    v->page->exit = reason;
    return VCPU_EXIT;
}

void vcpu_timer_changed(struct vcpu *v)
{
    (void)v;
    fake.timer_changed++;
}

void vcpu_apic_changed(struct vcpu *v)
{
    vcpu_timer_changed(v);
}

void vcpu_apply_effect(struct vcpu *v, const struct vlapic_effect *e)
{
    (void)v;
    fake.effects++;
    fake.effect = *e;
}

void vcpu_set_xcr0(struct vcpu *v, u64 xcr0)
{
    v->xcr0 = xcr0;
}

bool rdmsr_safe(u32 msr, u64 *value)
{
    if (msr != fake.hardware_index)
        return false;
    *value = fake.hardware_msr;
    return true;
}

int gmem_access(struct vcpu *v, gpa_t gpa, void *buf, size_t len, u32 access)
{
    u8 *at = fake.gmem + (gpa - fake.gmem_gpa);

    (void)v;
    if (fake.gmem_error && !fake.gmem_after)
        return fake.gmem_error;
    if (fake.gmem_error)
        fake.gmem_after--;
    if (gpa < fake.gmem_gpa || gpa + len > fake.gmem_gpa + sizeof(fake.gmem))
        return -E_INVAL;
    fake.gmem_versions += len == 4;
    memcpy(access & PF_WRITE ? at : buf, access & PF_WRITE ? buf : at, len);
    return 0;
}

static inline struct vcpu *fake_vcpu(struct domain *d, u32 apic_id)
{
    struct vcpu *v = aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));

    memset(v, 0, sizeof(*v));
    v->domain = d;
    v->apic_id = apic_id;
    v->cpuid = calloc(1, 4096);
    v->xsave_area = calloc(1, 4096);
    v->page = aligned_alloc(4096, 4096);
    v->xcr0 = 1;
    v->rip = 0x1000;
    v->next_rip = 0x1002;
    vlapic_init(&v->lapic, calloc(1, 4096), apic_id, apic_id == 0, (u32)tsc_khz);
    return v;
}

static inline void fake_free(struct vcpu *v)
{
    free(v->cpuid);
    free(v->xsave_area);
    free(v->lapic.reg);
    free(v->page);
    free(v);
}

#endif
