/* SPDX-License-Identifier: BSD-2-Clause */
/* The exits that are too small for a file of their own. */
#include "core/exits.h"

enum vcpu_action exit_hlt(struct vcpu *v)
{
    v->count[SOCLE_STAT_HLT]++;
    vcpu_skip(v);
    if (!domain_has(v->domain, DOMAIN_LAPIC))
        return vcpu_exit(v, SOCLE_EXIT_HLT);
    if (vcpu_has_event(v))
        return VCPU_RESUME;
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
