/* SPDX-License-Identifier: BSD-2-Clause */
/* The exits that are too small for a file of their own. */
#include "core/exits.h"
#include "core/cpuid.h"
#include "core/irq.h"

enum vcpu_action exit_hlt(struct vcpu *v)
{
    v->count[SOCLE_STAT_HLT]++;
    vcpu_skip(v);
    if (!domain_has(v->domain, DOMAIN_LAPIC))
        return vcpu_exit(v, SOCLE_EXIT_HLT);
    if (vcpu_has_event(v)) {
        v->kicked = false;
        return VCPU_RESUME;
    }
    v->activity = ACTIVITY_HALTED;
    return VCPU_BLOCK;
}

/* A loop of PAUSEs: who holds what it waits for may be waiting for this processor. */
enum vcpu_action exit_pause(struct vcpu *v)
{
    v->count[SOCLE_STAT_OTHER]++;
    sched_give_way(&v->se, rdtsc());
    vcpu_set_pending(v, PENDING_RESCHED);
    return VCPU_RESUME;
}

/* ---- KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst) ---- */

enum { HC_KICK_CPU = 5, HC_SEND_IPI = 10, HC_SCHED_YIELD = 11 };

static s64 send_ipis(struct vcpu *v, const u64 bits[2], u32 first, u64 icr)
{
    struct apic_msg msg;

    if (apic_msg_from_icr((u32)icr, true, &msg) || msg.shorthand || msg.logical)
        return -KVM_EINVAL;
    v->count[SOCLE_STAT_IPI]++;
    return irq_deliver_set(v->domain, bits, first, &msg);
}

s64 exit_kvm_call(struct vcpu *v, bool long_mode)
{
    u64 bits[2] = {v->gpr[RBX], v->gpr[RCX]};
    const struct apic_msg kick = {.dest = (u32)v->gpr[RCX], .mode = APIC_REMOTE};
    u64 nr = long_mode ? v->gpr[RAX] : (u32)v->gpr[RAX];

    if (!cpuid_offers_call(v, nr))
        return -KVM_ENOSYS;
    switch (nr) {
    case HC_KICK_CPU:
        irq_deliver(v->domain, v, &kick);
        return 0;
    case HC_SEND_IPI:
        if (!long_mode)
            bits[0] = (u32)bits[0] | bits[1] << 32;
        bits[1] = long_mode ? bits[1] : 0;
        return send_ipis(v, bits, (u32)v->gpr[RDX], v->gpr[RSI]);
    default:
        exit_pause(v);
        return 0;
    }
}
