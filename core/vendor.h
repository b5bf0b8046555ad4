/* SPDX-License-Identifier: BSD-2-Clause */
/* The one table through which core reaches svm/ or vmx/. Nothing of it is called on the exit path.
 */
#pragma once

#include "core/vcpu.h"

struct pcpu;

struct vendor_ops {
    const char *name;
    const struct npt_format *npt_format;
    u32 abi_call; /* SOCLE_CPUID_INFO EBX: which instruction is a hypercall */

    /* Whether this machine can be used; *why says in words why not. Boot processor. */
    bool (*detect)(const char **why);
    /* Turns virtualization on, on the calling processor. 0 or -E_NOMEM, -E_NODEV. */
    int (*init_cpu)(struct pcpu *cpu);
    /* Names of the features in use. */
    void (*features)(char *text, size_t size);

    /* For vcpu_loop(): brings v's registers into the processor (but extended state, DR0 to DR3 and
     * TSC_AUX); runs it until a handler wants something else; brings them back to memory. */
    void (*load)(struct vcpu *v);
    enum vcpu_action (*run)(struct vcpu *v);
    void (*save)(struct vcpu *v);
    /* Sleeps until a physical interrupt. */
    void (*idle)(void);

    /* v is stopped in all of these. */
    int (*vcpu_init)(struct vcpu *v);
    void (*vcpu_free)(struct vcpu *v); /* also where vcpu_init failed, or was not called */
    void (*get_sregs)(struct vcpu *v, struct socle_sregs *s);       /* without CR8 and APIC_BASE */
    void (*set_sregs)(struct vcpu *v, const struct socle_sregs *s); /* checked by the caller */
    /* Both false: not one that the vendor holds. */
    bool (*get_msr)(struct vcpu *v, u32 index, u64 *value);
    bool (*set_msr)(struct vcpu *v, u32 index, u64 value);
    void (*get_debug)(struct vcpu *v, struct socle_debug *d);
    void (*set_debug)(struct vcpu *v, const struct socle_debug *d);
    /* v->debug_flags are others. */
    void (*update_intercepts)(struct vcpu *v);
    bool (*get_shadow)(struct vcpu *v); /* STI or MOV SS shadow */
    void (*set_shadow)(struct vcpu *v, bool shadow);
    /* The TSC's offset; and its ratio, which is another than 1 with tsc_scaling only. */
    void (*update_tsc)(struct vcpu *v);
    /* v's local APIC was set anew as a whole, or has another mode; or v runs here. May be NULL. */
    void (*update_apic)(struct vcpu *v);
};

extern const struct vendor_ops *vendor;
extern bool vendor_plain; /* optional features stay unused */
extern const struct vendor_ops svm_ops;
extern const struct vendor_ops vmx_ops;
