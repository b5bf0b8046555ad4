/* SPDX-License-Identifier: BSD-2-Clause */
/* What a processor checks at a VM entry (Intel SDM vol. 3C, 27.2 and 27.3.1), as a table of rules.
 * Emulators check less. Fields and their bits are written down here a second time, besides
 * vmx/vmx.h. Left out are features that are in no processor with a rule of their own in use here:
 * SMM's dual monitor, FRED, tertiary controls' fields. */
#ifndef TESTS_UNIT_VMCS_CHECK_H
#define TESTS_UNIT_VMCS_CHECK_H

#include "core/types.h"

/* A processor: its capability MSRs (vol. 3D, appendix A) and what CPUID says. */
struct vmcs_cpu {
    u64 basic, misc, ept_vpid, vmfunc;
    u64 pin, proc, proc2, proc3, exit, entry; /* the TRUE ones */
    u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    u64 efer, debugctl, perf_global, rtit; /* the MSRs' bits that exist */
    u32 phys_bits, linear_bits;
    bool sgx, rtm;
};

/* A current VMCS. */
struct vmcs {
    const struct vmcs_cpu *cpu;
    u64 (*read)(const void *fields, u32 encoding);
    const void *fields;
    const u8 *virtual_apic; /* NULL: what is on that page is not looked at */
};

struct vmcs_rule {
    const char *section; /* of the manual */
    const char *text;
    bool (*holds)(const struct vmcs *m);
};
extern const struct vmcs_rule vmcs_rules[];
extern const u32 vmcs_rule_count;

/* How many rules are broken; the first `max` of them. */
u32 vmcs_check(const struct vmcs *m, const struct vmcs_rule **broken, u32 max);

#endif
