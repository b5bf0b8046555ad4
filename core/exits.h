/* SPDX-License-Identifier: BSD-2-Clause */
/* What an exit means, once for both vendors. Called by the run loops with rip, rflags, gpr and
 * next_rip in struct vcpu; each either completes the instruction (vcpu_skip), raises an exception,
 * or leaves. */
#pragma once

#include "core/insn.h"
#include "core/vcpu.h"

enum vcpu_action exit_cpuid(struct vcpu *v, u64 cr4);
enum vcpu_action exit_hlt(struct vcpu *v);
enum vcpu_action exit_pause(struct vcpu *v);
enum vcpu_action exit_rdmsr(struct vcpu *v);
enum vcpu_action exit_wrmsr(struct vcpu *v);
enum vcpu_action exit_xsetbv(struct vcpu *v, u8 cpl, u64 cr4);

/* IN and OUT of `size` bytes; next_rip is set. */
enum vcpu_action exit_io(struct vcpu *v, u16 port, u8 size, bool in);

/* What KVM answers to a hypercall that it does not know, with bad arguments, or from user mode. */
#define KVM_ENOSYS 1000
#define KVM_EINVAL 22
#define KVM_EPERM  1

/* A hypercall of KVM's, by a number below that, from the guest's kernel: the result. */
#define KVM_CALLS 12
s64 exit_kvm_call(struct vcpu *v, bool long_mode);

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
enum vcpu_action exit_find_next_rip(struct vcpu *v, enum insn_op op);

/* ---- the rest of hypercalls and emulation ---- */

/* Executes the call in d's registers; the result is in *result if the return is VCPU_RESUME.
 * VCPU_HANDOFF: RUN, whose result comes later. */
enum vcpu_action hypercall(struct vcpu *d, s64 *result);

/* Goes on with the instruction that v->io says waits for dom0 (IO_IN..IO_MMIO_WRITE), before the
 * next entry and on the processor that will do it. v->sregs is filled; v->io.data has the first 8
 * bytes of v->page->data (and INS takes the rest from there). v->page->data must stay as it is over
 * a SOCLE_EXIT_FAULT that comes between the answer and the end of an INS. */
enum vcpu_action emulate_complete(struct vcpu *v);
