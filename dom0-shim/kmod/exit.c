// SPDX-License-Identifier: GPL-2.0
/* What an exit means: handled here (in-kernel devices, faults, MSRs, the PIC), or given to userspace as KVM's. The
 * vCPU's page is Socle's, so its values can be trusted for consistency, but sizes are checked all the same.
 */
#include "socle_kvm.h"

#include <asm/trapnr.h>

#define RESUME	1
#define TO_USER 0

/* QEMU's kvmvapic option ROM counts on it that RIP is behind an OUT to this port when QEMU sees it (KVM's quirk
 * OUT_7E_INC_RIP).
 */
#define VAPIC_PORT 0x7e

/* ---- port I/O --------------------------------------------------------------------------------- */

static bool device_io(struct sk_vm *vm, u16 port, bool in, u8 *data)
{
	return sk_pic_io(vm, port, in, data) || sk_pit_io(vm, port, in, data);
}

/* The PIC and the PIT have byte ports; other sizes there are userspace's to judge. */
static bool io_in_kernel(struct sk_vcpu *vcpu, u16 port, bool in, u32 size, u32 count)
{
	struct sk_vm *vm = vcpu->vm;
	u8 *data = vcpu->page->data;
	u32 i;

	if (!sk_has_pic(vm) || size != 1)
		return false;
	for (i = 0; i < count; i++)
		if (!device_io(vm, port, in, &data[i]))
			return false; /* the first one says it for all */
	return true;
}

static int io_to_user(struct sk_vcpu *vcpu, u16 port, bool in, u32 size, u32 count)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	run->io.size = size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = KVM_PIO_PAGE_OFFSET * PAGE_SIZE;
	if (in) {
		vcpu->answer = SK_ANSWER_PIO_IN;
		vcpu->answer_bytes = size * count;
	} else {
		memcpy(vcpu->pio, vcpu->page->data, size * count);
		vcpu->finish_now = port == VAPIC_PORT &&
				   !sk_policy_quirk_off(vcpu->vm, KVM_X86_QUIRK_OUT_7E_INC_RIP);
	}
	return TO_USER;
}

static int exit_io(struct sk_vcpu *vcpu)
{
	const struct socle_vcpu_page *page = vcpu->page;
	u32 size = page->io.size, count = page->io.count;
	u16 port = page->io.port;
	bool in = page->io.in;

	if (!size || size > 4 || !count || count > SOCLE_DATA_BYTES / size)
		return -EIO;
	vcpu->completion = true;
	if (io_in_kernel(vcpu, port, in, size, count))
		return RESUME;
	if (!in && count == 1 &&
	    (sk_ioeventfd_write(vcpu->vm, true, port, size, page->data) ||
	     sk_coalesced_write(vcpu->vm, true, port, size, page->data)))
		return RESUME;
	return io_to_user(vcpu, port, in, size, count);
}

/* ---- MMIO ------------------------------------------------------------------------------------- */

static int mmio_to_user(struct sk_vcpu *vcpu, u64 gpa, bool write, u32 len)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = gpa;
	run->mmio.len = len;
	run->mmio.is_write = write;
	if (write) {
		memcpy(run->mmio.data, vcpu->page->data, len);
	} else {
		vcpu->answer = SK_ANSWER_MMIO_READ;
		vcpu->answer_bytes = len;
	}
	return TO_USER;
}

static int exit_mmio(struct sk_vcpu *vcpu)
{
	struct sk_vm *vm = vcpu->vm;
	u64 gpa = vcpu->page->mmio.gpa;
	u32 len = vcpu->page->mmio.size;
	bool write = vcpu->page->mmio.write;
	void *data = vcpu->page->data;

	if (!len || len > 8)
		return -EIO;
	vcpu->completion = true;
	if (sk_has_pic(vm) && sk_ioapic_mmio(vm, gpa, write, len, data))
		return RESUME;
	if (write && (sk_ioeventfd_write(vm, false, gpa, len, data) ||
		      sk_coalesced_write(vm, false, gpa, len, data)))
		return RESUME;
	return mmio_to_user(vcpu, gpa, write, len);
}

/* ---- the rest --------------------------------------------------------------------------------- */

static int exit_fault(struct sk_vcpu *vcpu)
{
	const struct socle_vcpu_page *p = vcpu->page;
	int r = sk_memory_fault(vcpu, p->fault.gpa, p->fault.write,
				p->fault.fetch && p->fault.present);

	if (r == -EINTR) {
		vcpu->run->exit_reason = KVM_EXIT_INTR;
		return r;
	}
	return r && r != -EAGAIN ? r : RESUME;
}

/* Userspace answers where it has asked for this reason. */
static int msr_refused(struct sk_vcpu *vcpu, bool write, u32 reason)
{
	const struct socle_vcpu_page *page = vcpu->page;
	struct kvm_run *run = vcpu->run;

	if (!(READ_ONCE(vcpu->vm->msr_exits) & reason)) {
		vcpu->page->msr.error = 1;
		return RESUME;
	}
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	run->msr.error = 0;
	memset(run->msr.pad, 0, sizeof(run->msr.pad));
	run->msr.reason = reason;
	run->msr.index = page->msr.index;
	run->msr.data = write ? page->msr.value : 0;
	vcpu->answer = write ? SK_ANSWER_MSR_WRITE : SK_ANSWER_MSR_READ;
	return TO_USER;
}

static int msr_access(struct sk_vcpu *vcpu, u32 index, bool write)
{
	u64 value = vcpu->page->msr.value;
	int r;

	if (sk_policy_pv_absent(vcpu, index))
		return -EINVAL;
	if (write)
		return sk_msr_guest_write(vcpu, index, value);
	r = sk_msr_guest_read(vcpu, index, &value);
	vcpu->page->msr.value = value;
	return r;
}

/* Socle asks for what it has not; with SOCLE_TRAP_MSRS it asks before, and again where it has refused. */
static int exit_msr(struct sk_vcpu *vcpu, bool write)
{
	struct socle_vcpu_page *page = vcpu->page;
	u32 index = page->msr.index;
	int r;

	vcpu->completion = true;
	if (page->msr.error)
		return msr_refused(vcpu, write,
				   page->msr.error == ENOENT ? KVM_MSR_EXIT_REASON_UNKNOWN :
							       KVM_MSR_EXIT_REASON_INVAL);
	if (!sk_policy_msr_allowed(vcpu->vm, index, write))
		return msr_refused(vcpu, write, KVM_MSR_EXIT_REASON_FILTER);
	r = msr_access(vcpu, index, write);
	if (r < 0)
		return msr_refused(vcpu, write, KVM_MSR_EXIT_REASON_INVAL);
	if (r == SK_MSR_NOT_OURS && !(vcpu->traps & SOCLE_TRAP_MSRS))
		return msr_refused(vcpu, write, KVM_MSR_EXIT_REASON_UNKNOWN);
	page->msr.error = r == SK_MSR_NOT_OURS ? SOCLE_MSR_SOCLE : 0;
	return RESUME;
}

static int exit_extint(struct sk_vcpu *vcpu)
{
	vcpu->page->extint_vector = sk_pic_acknowledge(vcpu->vm);
	vcpu->completion = true;
	return RESUME;
}

static bool in_user_mode(struct sk_vcpu *vcpu)
{
	const struct socle_sregs *sregs = vcpu->buffer;

	return sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs)) >= 0 &&
	       sregs->seg[SOCLE_SEG_SS].attr & 0x60;
}

/* A guest's user program must not end its machine: it gets #UD, unless userspace wants to see it. */
static int exit_emulation(struct sk_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u8 length = min_t(u8, vcpu->page->insn.length, sizeof(vcpu->page->insn.bytes));

	if (!READ_ONCE(vcpu->vm->exit_on_emulation_failure) && in_user_mode(vcpu) &&
	    !sk_state_queue_exception(vcpu, X86_TRAP_UD))
		return RESUME;
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->emulation_failure.ndata = 3; /* flags, and 16 bytes of instruction */
	run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	run->emulation_failure.insn_size = length;
	memset(run->emulation_failure.insn_bytes, 0x90, sizeof(run->emulation_failure.insn_bytes));
	memcpy(run->emulation_failure.insn_bytes, vcpu->page->insn.bytes, length);
	return TO_USER;
}

/* SVM refuses a vCPU with exit code -1, VMX with bit 31 of the exit reason; the rest is an exit that
 * Socle does not know.
 */
static int exit_failed(struct sk_vcpu *vcpu)
{
	u64 reason = vcpu->page->failed.reason;
	struct kvm_run *run = vcpu->run;

	pr_warn_ratelimited("domain %u, vCPU %u: exit %#llx (%#llx %#llx) at rip %#llx ends it\n",
			    vcpu->vm->domain, vcpu->id, reason, vcpu->page->failed.info[0],
			    vcpu->page->failed.info[1], vcpu->page->rip);
	if (reason & BIT_ULL(31)) {
		run->exit_reason = KVM_EXIT_FAIL_ENTRY;
		run->fail_entry.hardware_entry_failure_reason = reason;
		run->fail_entry.cpu = raw_smp_processor_id();
		return TO_USER;
	}
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
	run->internal.ndata = 3;
	run->internal.data[0] = reason;
	run->internal.data[1] = vcpu->page->failed.info[0];
	run->internal.data[2] = vcpu->page->failed.info[1];
	return TO_USER;
}

static int exit_debug(struct sk_vcpu *vcpu)
{
	struct kvm_debug_exit_arch *arch = &vcpu->run->debug.arch;

	vcpu->run->exit_reason = KVM_EXIT_DEBUG;
	arch->exception = vcpu->page->debug.exception;
	arch->pc = vcpu->page->debug.pc;
	arch->dr6 = vcpu->page->debug.dr6;
	arch->dr7 = vcpu->page->debug.dr7;
	return TO_USER;
}

static int to_user(struct sk_vcpu *vcpu, u32 reason)
{
	vcpu->run->exit_reason = reason;
	return TO_USER;
}

static int exit_task(struct sk_vcpu *vcpu)
{
	int r = sk_task_switch(vcpu);

	if (r > 0)
		return to_user(vcpu, KVM_EXIT_SHUTDOWN);
	return r ? r : RESUME;
}

int sk_exit_handle(struct sk_vcpu *vcpu)
{
	switch (vcpu->page->exit) {
	case SOCLE_EXIT_NONE: /* only the instruction of the exit before was to be finished */
		return RESUME;
	case SOCLE_EXIT_IO:
		return exit_io(vcpu);
	case SOCLE_EXIT_MMIO:
		return exit_mmio(vcpu);
	case SOCLE_EXIT_FAULT:
		return exit_fault(vcpu);
	case SOCLE_EXIT_MSR_READ:
		return exit_msr(vcpu, false);
	case SOCLE_EXIT_MSR_WRITE:
		return exit_msr(vcpu, true);
	case SOCLE_EXIT_EXTINT:
		return exit_extint(vcpu);
	case SOCLE_EXIT_HLT:
		return to_user(vcpu, KVM_EXIT_HLT);
	case SOCLE_EXIT_SHUTDOWN:
		return to_user(vcpu, KVM_EXIT_SHUTDOWN);
	case SOCLE_EXIT_IRQ_WINDOW:
		return to_user(vcpu, KVM_EXIT_IRQ_WINDOW_OPEN);
	case SOCLE_EXIT_EMULATION:
		return exit_emulation(vcpu);
	case SOCLE_EXIT_FAILED:
		return exit_failed(vcpu);
	case SOCLE_EXIT_DIRTY:
		if (vcpu->vm->dirty_ring_bytes)
			sk_memory_take_vcpu_log(vcpu);
		else
			sk_memory_take_log(vcpu->vm);
		return RESUME;
	case SOCLE_EXIT_TASK:
		return exit_task(vcpu);
	case SOCLE_EXIT_DEBUG:
		return exit_debug(vcpu);
	case SOCLE_EXIT_UD:
		return sk_policy_ud(vcpu) ?: RESUME;
	default:
		pr_warn_ratelimited("domain %u: Socle gives exit %u, unknown here\n", vcpu->vm->domain,
				    vcpu->page->exit);
		return -EIO;
	}
}
