/* SPDX-License-Identifier: BSD-2-Clause */
/* Model-specific registers that a vCPU has in Socle. The others are dom0's business for a guest,
 * and for dom0 itself the processor's own, of which it may read a list. Exit handlers are in
 * core/exits.h. */
#pragma once

#include "core/vcpu.h"

/* As dom0 sees and sets them on a stopped vCPU. -E_INVAL: not a value for it; -E_NOENT: not in
 * Socle. A TSC that is within a second of another vCPU's of the domain becomes equal to it. */
int msr_get(struct vcpu *v, u32 index, u64 *value);
int msr_set(struct vcpu *v, u32 index, u64 value);
void msr_set_tsc_offset(struct vcpu *v, s64 offset);

/* The end of a RDMSR or WRMSR that dom0 has answered, in v->io. */
enum vcpu_action msr_complete(struct vcpu *v);

/* Sets APIC_BASE to any mode. The vCPU is stopped. -E_INVAL: not legal. */
int msr_set_apic_base(struct vcpu *v, u64 value);
