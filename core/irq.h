/* SPDX-License-Identifier: BSD-2-Clause */
/* Interrupts: physical ones on their way to dom0, messages between virtual local APICs, and what a
 * write to a virtual local APIC asks for. */
#pragma once

#include "core/vcpu.h"

/* A physical interrupt reached this processor; called from the trap entry, or with the vector that
 * the processor acknowledged at an exit. Ends Socle's own and edge-triggered ones; a
 * level-triggered one stays in service until dom0 ends it. */
void irq_physical(u8 vector);

/* Delivers a message to the vCPUs of `d` that it names; `from` (or NULL) resolves shorthands.
 * Returns how many took it. Any processor. */
int irq_deliver(struct domain *d, struct vcpu *from, const struct apic_msg *msg);

/* To the vCPUs whose APIC id is first + n, for each bit n; how many took it. */
s64 irq_deliver_set(struct domain *d, const u64 bits[2], u32 first, const struct apic_msg *msg);

/* An entry ends at this_cpu()->timer_deadline by itself: the physical timer is for sleep only. */
extern bool irq_entries_are_timed;

/* Does what a register write asked for. On v's own processor. */
void vcpu_apply_effect(struct vcpu *v, const struct vlapic_effect *e);

/* v's local APIC was set anew as a whole, or has another mode; its timer was set anew. On v's own
 * processor, or while v is stopped. */
void vcpu_apic_changed(struct vcpu *v);
void vcpu_timer_changed(struct vcpu *v);

/* Sets the physical timer of this processor to its next event. */
void irq_arm_timer(void);
