/* SPDX-License-Identifier: BSD-2-Clause */
/* What CPUID tells each domain, and what follows from it: which bits of CR4, EFER and XCR0 a vCPU
 * may have. Dom0 sees the processor through one allow-list; a guest sees the table that dom0 gave
 * its vCPU. Called by the exit handlers, and for state that dom0 sets on a stopped vCPU. */
#pragma once

#include "core/vcpu.h"

#define XCR0_X87    BIT(0)
#define XCR0_SSE    BIT(1)
#define XCR0_AVX    BIT(2)
#define XCR0_AVX512 (BIT(5) | BIT(6) | BIT(7))
#define XCR0_PKRU   BIT(9)

/* Of this machine, by cpuid_init(), constant after it. */
extern u64 host_xcr0_mask;  /* extended state that Socle switches: its XSAVE image fits in a page */
extern u32 host_mxcsr_mask; /* what MXCSR may hold: XRSTOR of anything else faults */
extern u64 host_phys_mask;  /* physical address bits */
extern u32 host_va_spare;   /* bits of linear addresses above the highest that counts: 16 or 7 */
extern bool host_has_tsc_aux;

/* For registers that hold addresses: by what the processor can have, whatever number of levels is
 * in use (Intel SDM vol. 1, 3.3.7.1). */
static inline bool is_canonical(u64 va)
{
    return (u64)((s64)(va << host_va_spare) >> host_va_spare) == va;
}

/* Once, on the boot processor. */
void cpuid_init(void);

/* Gives a guest's vCPU its table of n entries, which are copied. The vCPU is stopped. -E_INVAL: too
 * many. */
int cpuid_set(struct vcpu *v, const struct socle_cpuid *entries, u32 n);

/* v's CPUID offers KVM's hypercall of this number. */
bool cpuid_offers_call(const struct vcpu *v, u64 nr);

/* The bits of CR4 and EFER (LMA with LME) that v's CPUID and this processor allow. */
u64 cpuid_cr4_mask(const struct vcpu *v);
u64 cpuid_efer_mask(const struct vcpu *v);

/* v may have this XCR0. */
bool cpuid_xcr0_legal(const struct vcpu *v, u64 xcr0);
