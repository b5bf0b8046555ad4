/* SPDX-License-Identifier: BSD-2-Clause */
/* What an exit means, once for both vendors. Called by the run loops with rip, rflags, gpr and
 * next_rip in struct vcpu; each either completes the instruction (vcpu_skip), raises an exception,
 * or leaves. */
#ifndef SOCLE_CORE_EXITS_H
#define SOCLE_CORE_EXITS_H

#include "core/insn.h"
#include "core/vcpu.h"

enum vcpu_action exit_cpuid(struct vcpu *v, u64 cr4);
enum vcpu_action exit_hlt(struct vcpu *v);
enum vcpu_action exit_rdmsr(struct vcpu *v);
enum vcpu_action exit_wrmsr(struct vcpu *v);
enum vcpu_action exit_xsetbv(struct vcpu *v, u8 cpl, u64 cr4);

/* IN and OUT of `size` bytes; next_rip is set. */
enum vcpu_action exit_io(struct vcpu *v, u16 port, u8 size, bool in);

/* VMMCALL, VMCALL. */
enum vcpu_action exit_hypercall(struct vcpu *v, u8 cpl, bool long_mode);

/* A nested page fault at gpa. v->sregs is filled. */
enum vcpu_action exit_npf(struct vcpu *v, gpa_t gpa, bool write, bool fetch);

/* Whatever needs the instruction itself: string I/O, MMIO, CR8. v->sregs is filled. */
enum vcpu_action exit_emulate(struct vcpu *v);

/* Finds next_rip of an instruction that must be `op`, by decoding it. v->sregs is filled. RESUME:
 * done, and v->next_rip != v->rip; or the guest shall run on, with next_rip == rip (an exception
 * was raised, or the instruction is another by now). Else the way to dom0 for a page of code that
 * is not mapped. */
enum vcpu_action exit_find_next_rip(struct vcpu *v, enum insn_op op, struct insn *insn);

/* The one place for instructions that no domain is offered. */
enum vcpu_action exit_undefined(struct vcpu *v);

#endif
