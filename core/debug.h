/* SPDX-License-Identifier: BSD-2-Clause */
/* A debugger of a vCPU, in dom0 (KVM_SET_GUEST_DEBUG). While it steps, or has breakpoints in the
 * debug registers, what the guest has in its own is kept apart: it reads and writes that by exits.
 */
#pragma once

#include "core/insn.h"
#include "core/vcpu.h"

#define DR6_FIXED  0xffff0ff0ull
#define DR7_FIXED  0x400ull
#define DR7_ACCESS BIT(13) /* GD: MOV DR is #DB */

/* The processor's registers are the debugger's. */
#define DEBUG_TAKEN (SOCLE_DEBUG_STEP | SOCLE_DEBUG_HW)

/* For dom0; v is stopped. The guest's own registers, and what the debugger wants. */
void debug_get(struct vcpu *v, void *socle_debug);
int debug_set(struct vcpu *v, const void *socle_debug);
int debug_set_guest(struct vcpu *v, const void *socle_guest_debug);

/* MOV from or to a debug register; v->sregs is filled. */
enum vcpu_action debug_mov_dr(struct vcpu *v, const struct insn *i);

/* #DB or #BP made an exit; DR6 is as the processor has it. */
enum vcpu_action debug_exception(struct vcpu *v, u8 vector);

/* INT n made an exit, where only so #BP does. */
enum vcpu_action debug_int(struct vcpu *v, u8 vector);

/* An instruction that Socle has executed is done, and TF is set. */
enum vcpu_action debug_stepped(struct vcpu *v);
