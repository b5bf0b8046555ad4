/* SPDX-License-Identifier: BSD-2-Clause */
/* A processor with VMX on the host: vmx/'s C code as it is, on VMCSs in memory. On top of
 * fake_machine. The test gives vmx_enter() and what handles exits. */
#ifndef TESTS_UNIT_FAKE_VMX_H
#define TESTS_UNIT_FAKE_VMX_H

#include "tests/unit/fake_machine.h"
#include "tests/unit/vmcs_check.h"
#include "vmx/vmx.h"

/* Where no RAM of a guest is. */
#define VMX_PHYS_BITS 52

/* Besides the capability MSRs, what a processor is found with, and what was done to it. */
struct fake_vmx {
    bool has_control; /* IA32_FEATURE_CONTROL, and its value */
    u64 control;
    u32 cpuid_ecx; /* of leaf 1 */
    u64 cr4;
    bool vmxon_fails;
    u32 vmxons;
};
extern const struct fake_vmx fake_vmx_firmware; /* left by a firmware that allows VMX */
extern struct fake_vmx fake_vmx;
extern struct vmcs_cpu fake_vmx_cpu;
extern u32 fake_vmx_flushes; /* INVEPTs */

/* Makes VMX the vendor; before fake_start(). */
void fake_vmx_start(void);

/* A field of a vCPU's VMCS, loaded or not. */
u64 *fake_vmcs(const struct vcpu *v, u32 field);

/* The rules that an entry with the current VMCS would break: how many, and the first ones. */
u32 fake_vmx_check(const struct vmcs_rule **broken, u32 max);

/* The same, but each is printed. */
u32 fake_vmx_check_and_say(void);

#endif
