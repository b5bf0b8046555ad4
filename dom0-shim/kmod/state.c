// SPDX-License-Identifier: GPL-2.0
/* The vCPU's registers: KVM's structures to Socle's and back. The vCPU is stopped (its mutex is held and nobody is
 * in KVM_RUN). Socle judges whether the processor can be in a state; here only what is KVM's own is checked.
 */
#include "socle_kvm.h"

#include <asm/apicdef.h>
#include <asm/fpu/types.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#define DR6_RTM_AND_BUS_LOCK (BIT_ULL(16) | BIT_ULL(11))

/* The vCPU is stopped, but the processor that ran it may not have let go of it yet (-EBUSY). */
static int state_call(struct sk_vcpu *vcpu, u64 call, u32 section, u32 bytes)
{
	int tries = 10000;
	long r;

	while ((r = hc4(call, vcpu->handle, section, virt_to_phys(vcpu->buffer), bytes)) == -EBUSY) {
		if (!tries--)
			break;
		hc1(SOCLE_HC_VCPU_STOP, vcpu->handle);
		cond_resched();
	}
	return r;
}

int sk_state_get(struct sk_vcpu *vcpu, u32 section, u32 bytes)
{
	return state_call(vcpu, SOCLE_HC_VCPU_GET, section, bytes);
}

int sk_state_set(struct sk_vcpu *vcpu, u32 section, u32 bytes)
{
	return state_call(vcpu, SOCLE_HC_VCPU_SET, section, bytes);
}

/* ---- general registers ------------------------------------------------------------------------ */

/* struct kvm_regs begins with rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8..r15: Socle's number of each */
static const u8 gpr_number[16] = { 0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15 };

static void regs_to_kvm(struct kvm_regs *k, const struct socle_regs *s)
{
	u64 *gpr = (u64 *)k;
	int i;

	BUILD_BUG_ON(offsetof(struct kvm_regs, rip) != sizeof(s->gpr));
	for (i = 0; i < 16; i++)
		gpr[i] = s->gpr[gpr_number[i]];
	k->rip = s->rip;
	k->rflags = s->rflags;
}

static void regs_from_kvm(struct socle_regs *s, const struct kvm_regs *k)
{
	const u64 *gpr = (const u64 *)k;
	int i;

	for (i = 0; i < 16; i++)
		s->gpr[gpr_number[i]] = gpr[i];
	s->rip = k->rip;
	s->rflags = k->rflags | X86_EFLAGS_FIXED;
}

static int read_regs(struct sk_vcpu *vcpu, struct kvm_regs *regs)
{
	int r = sk_state_get(vcpu, SOCLE_STATE_REGS, sizeof(struct socle_regs));

	if (r < 0)
		return r;
	regs_to_kvm(regs, vcpu->buffer);
	return 0;
}

static int write_regs(struct sk_vcpu *vcpu, const struct kvm_regs *regs)
{
	regs_from_kvm(vcpu->buffer, regs);
	return sk_state_set(vcpu, SOCLE_STATE_REGS, sizeof(struct socle_regs));
}

static long get_regs(struct sk_vcpu *vcpu, void __user *argp)
{
	struct kvm_regs regs;
	int r = read_regs(vcpu, &regs);

	if (r)
		return r;
	return copy_to_user(argp, &regs, sizeof(regs)) ? -EFAULT : 0;
}

static long set_regs(struct sk_vcpu *vcpu, const void __user *argp)
{
	struct kvm_regs regs;

	return copy_from_user(&regs, argp, sizeof(regs)) ? -EFAULT : write_regs(vcpu, &regs);
}

/* ---- segments and control registers ----------------------------------------------------------- */

static void segment_to_kvm(struct kvm_segment *k, const struct socle_segment *s)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->attr & 15,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3,
		.present = s->attr >> 7 & 1,
		.avl = s->attr >> 8 & 1,
		.l = s->attr >> 9 & 1,
		.db = s->attr >> 10 & 1,
		.g = s->attr >> 11 & 1,
		.unusable = !(s->attr & 0x80),
	};
}

static void segment_from_kvm(struct socle_segment *s, const struct kvm_segment *k)
{
	bool present = k->present && !k->unusable;

	s->base = k->base;
	s->limit = k->limit;
	s->selector = k->selector;
	s->attr = (k->type & 15) | (k->s & 1) << 4 | (k->dpl & 3) << 5 | present << 7 |
		  (k->avl & 1) << 8 | (k->l & 1) << 9 | (k->db & 1) << 10 | (k->g & 1) << 11;
}

/* kvm_sregs and kvm_sregs2 begin alike, up to apic_base. */
static void sregs_to_kvm(struct kvm_sregs2 *k, const struct socle_sregs *s)
{
	segment_to_kvm(&k->cs, &s->seg[SOCLE_SEG_CS]);
	segment_to_kvm(&k->ds, &s->seg[SOCLE_SEG_DS]);
	segment_to_kvm(&k->es, &s->seg[SOCLE_SEG_ES]);
	segment_to_kvm(&k->fs, &s->seg[SOCLE_SEG_FS]);
	segment_to_kvm(&k->gs, &s->seg[SOCLE_SEG_GS]);
	segment_to_kvm(&k->ss, &s->seg[SOCLE_SEG_SS]);
	segment_to_kvm(&k->tr, &s->seg[SOCLE_SEG_TR]);
	segment_to_kvm(&k->ldt, &s->seg[SOCLE_SEG_LDTR]);
	k->gdt.base = s->gdt_base;
	k->gdt.limit = s->gdt_limit;
	k->idt.base = s->idt_base;
	k->idt.limit = s->idt_limit;
	k->cr0 = s->cr0;
	k->cr2 = s->cr2;
	k->cr3 = s->cr3;
	k->cr4 = s->cr4;
	k->cr8 = s->cr8;
	k->efer = s->efer;
	k->apic_base = s->apic_base;
}

static void sregs_from_kvm(struct socle_sregs *s, const struct kvm_sregs2 *k)
{
	segment_from_kvm(&s->seg[SOCLE_SEG_CS], &k->cs);
	segment_from_kvm(&s->seg[SOCLE_SEG_DS], &k->ds);
	segment_from_kvm(&s->seg[SOCLE_SEG_ES], &k->es);
	segment_from_kvm(&s->seg[SOCLE_SEG_FS], &k->fs);
	segment_from_kvm(&s->seg[SOCLE_SEG_GS], &k->gs);
	segment_from_kvm(&s->seg[SOCLE_SEG_SS], &k->ss);
	segment_from_kvm(&s->seg[SOCLE_SEG_TR], &k->tr);
	segment_from_kvm(&s->seg[SOCLE_SEG_LDTR], &k->ldt);
	s->gdt_base = k->gdt.base;
	s->gdt_limit = k->gdt.limit;
	s->idt_base = k->idt.base;
	s->idt_limit = k->idt.limit;
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->cr8 = k->cr8;
	s->efer = k->efer;
	s->apic_base = k->apic_base;
}

static int read_sregs(struct sk_vcpu *vcpu, struct kvm_sregs2 *sregs)
{
	int r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(struct socle_sregs));

	if (r < 0)
		return r;
	memset(sregs, 0, sizeof(*sregs));
	sregs_to_kvm(sregs, vcpu->buffer);
	return 0;
}

/* As in KVM a CR8 that cannot be leaves the old one. */
static int write_sregs(struct sk_vcpu *vcpu, const struct kvm_sregs2 *sregs)
{
	struct socle_sregs *s = vcpu->buffer;
	u64 cr8 = sregs->cr8;
	int r;

	if (cr8 > 15) {
		r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*s));
		if (r < 0)
			return r;
		cr8 = s->cr8;
	}
	memset(s, 0, sizeof(*s));
	sregs_from_kvm(s, sregs);
	s->cr8 = cr8;
	return sk_state_set(vcpu, SOCLE_STATE_SREGS, sizeof(struct socle_sregs));
}

int sk_state_set_cr8(struct sk_vcpu *vcpu, u64 cr8)
{
	int r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(struct socle_sregs));

	if (r < 0)
		return r;
	((struct socle_sregs *)vcpu->buffer)->cr8 = cr8;
	r = sk_state_set(vcpu, SOCLE_STATE_SREGS, sizeof(struct socle_sregs));
	if (!r)
		vcpu->cr8 = cr8;
	return r;
}

/* ---- pending events --------------------------------------------------------------------------- */

static int read_events(struct sk_vcpu *vcpu, struct socle_vcpu_events *events)
{
	int r = sk_state_get(vcpu, SOCLE_STATE_EVENTS, sizeof(*events));

	if (r >= 0)
		memcpy(events, vcpu->buffer, sizeof(*events));
	return min(r, 0);
}

static int write_events(struct sk_vcpu *vcpu, const struct socle_vcpu_events *events)
{
	memcpy(vcpu->buffer, events, sizeof(*events));
	return sk_state_set(vcpu, SOCLE_STATE_EVENTS, sizeof(*events));
}

int sk_state_queue_interrupt(struct sk_vcpu *vcpu, u32 vector)
{
	struct socle_vcpu_events events;
	int r = read_events(vcpu, &events);

	if (r)
		return r;
	events.interrupt_injected = 1;
	events.interrupt_nr = vector;
	events.interrupt_soft = 0;
	return write_events(vcpu, &events);
}

int sk_state_queue_exception(struct sk_vcpu *vcpu, u8 vector)
{
	struct socle_vcpu_events events;
	int r = read_events(vcpu, &events);

	if (r)
		return r;
	events.exception_pending = 1;
	events.exception_nr = vector;
	events.exception_has_error = 0;
	events.exception_error = 0;
	return write_events(vcpu, &events);
}

static bool is_soft_exception(u8 vector)
{
	return vector == X86_TRAP_BP || vector == X86_TRAP_OF;
}

/* A software exception comes by its instruction's being executed again. */
static int read_kvm_events(struct sk_vcpu *vcpu, struct kvm_vcpu_events *k)
{
	struct socle_vcpu_events s;
	int r = read_events(vcpu, &s);

	if (r)
		return r;
	memset(k, 0, sizeof(*k));
	k->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		   KVM_VCPUEVENT_VALID_SMM;
	k->exception.injected = s.exception_pending && !is_soft_exception(s.exception_nr);
	k->exception.nr = s.exception_nr;
	k->exception.has_error_code = s.exception_has_error;
	k->exception.error_code = s.exception_error;
	k->interrupt.injected = s.interrupt_injected && !s.interrupt_soft;
	k->interrupt.nr = s.interrupt_nr;
	k->interrupt.shadow = s.shadow ? KVM_X86_SHADOW_INT_STI : 0;
	k->nmi.injected = s.nmi_injected;
	k->nmi.pending = s.nmi_pending;
	k->nmi.masked = s.nmi_masked;
	if (vcpu->vm->exception_payload)
		k->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (vcpu->vm->triple_fault_event) {
		k->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		k->triple_fault.pending = vcpu->triple_fault;
	}
	return 0;
}

static int check_kvm_events(const struct sk_vcpu *vcpu, const struct kvm_vcpu_events *k)
{
	const u32 known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			  KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |
			  KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	bool exception = k->exception.injected;

	if (k->flags & ~known)
		return -EINVAL;
	if (k->flags & KVM_VCPUEVENT_VALID_PAYLOAD && !vcpu->vm->exception_payload)
		return -EINVAL;
	if (k->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT && !vcpu->vm->triple_fault_event)
		return -EINVAL;
	if (k->flags & KVM_VCPUEVENT_VALID_SMM && (k->smi.smm || k->smi.pending))
		return -EINVAL;
	if (k->flags & KVM_VCPUEVENT_VALID_PAYLOAD)
		exception |= k->exception.pending;
	return exception && (k->exception.nr > 31 || k->exception.nr == X86_TRAP_NMI) ? -EINVAL : 0;
}

/* What the exception changes besides: CR2, or DR6 (whose payload has RTM and the bus lock's bit the other way round,
 * as VMX's pending debug exceptions). Socle takes an exception that has done so already.
 */
static int deliver_payload(struct sk_vcpu *vcpu, u8 vector, u64 payload)
{
	struct socle_sregs *sregs = vcpu->buffer;
	struct socle_debug *debug = vcpu->buffer;
	int r;

	switch (vector) {
	case X86_TRAP_PF:
		r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs));
		if (r < 0)
			return r;
		sregs->cr2 = payload;
		return sk_state_set(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs));
	case X86_TRAP_DB:
		r = sk_state_get(vcpu, SOCLE_STATE_DEBUG, sizeof(*debug));
		if (r < 0)
			return r;
		debug->dr6 = (debug->dr6 & ~0xful) | DR6_RTM_AND_BUS_LOCK;
		debug->dr6 |= payload;
		debug->dr6 ^= payload & DR6_RTM_AND_BUS_LOCK;
		debug->dr6 &= ~BIT_ULL(12);
		return sk_state_set(vcpu, SOCLE_STATE_DEBUG, sizeof(*debug));
	default:
		return 0;
	}
}

/* The parts that a flag validates and that is not given keep their value. */
static int write_kvm_events(struct sk_vcpu *vcpu, const struct kvm_vcpu_events *k)
{
	bool pending = k->flags & KVM_VCPUEVENT_VALID_PAYLOAD && k->exception.pending;
	struct socle_vcpu_events s;
	int r = check_kvm_events(vcpu, k);

	if (!r)
		r = read_events(vcpu, &s);
	if (r)
		return r;
	s.exception_pending = k->exception.injected || pending;
	s.exception_nr = k->exception.nr;
	s.exception_has_error = !!k->exception.has_error_code;
	s.exception_error = k->exception.error_code;
	s.interrupt_injected = !!k->interrupt.injected;
	s.interrupt_nr = k->interrupt.nr;
	s.interrupt_soft = !!k->interrupt.soft;
	s.nmi_injected = !!k->nmi.injected;
	s.nmi_masked = !!k->nmi.masked;
	if (k->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		s.nmi_pending = !!k->nmi.pending;
	if (k->flags & KVM_VCPUEVENT_VALID_SHADOW)
		s.shadow = !!k->interrupt.shadow;
	if (k->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		s.sipi_vector = k->sipi_vector;
	r = write_events(vcpu, &s);
	if (!r && pending && k->exception_has_payload)
		r = deliver_payload(vcpu, s.exception_nr, k->exception_payload);
	if (!r && k->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		vcpu->triple_fault = k->triple_fault.pending;
	return r;
}

static long get_events(struct sk_vcpu *vcpu, void __user *argp)
{
	struct kvm_vcpu_events k;
	int r = read_kvm_events(vcpu, &k);

	if (r)
		return r;
	return copy_to_user(argp, &k, sizeof(k)) ? -EFAULT : 0;
}

static long set_events(struct sk_vcpu *vcpu, const void __user *argp)
{
	struct kvm_vcpu_events k;

	return copy_from_user(&k, argp, sizeof(k)) ? -EFAULT : write_kvm_events(vcpu, &k);
}

/* ---- KVM_GET/SET_SREGS(2): the first also carries the accepted interrupt as a bitmap ---------- */

static int read_kvm_sregs(struct sk_vcpu *vcpu, struct kvm_sregs *sregs)
{
	struct socle_vcpu_events events;
	struct kvm_sregs2 sregs2;
	int r = read_sregs(vcpu, &sregs2);

	if (!r)
		r = read_events(vcpu, &events);
	if (r)
		return r;
	BUILD_BUG_ON(offsetof(struct kvm_sregs, apic_base) != offsetof(struct kvm_sregs2, apic_base));
	memset(sregs, 0, sizeof(*sregs));
	memcpy(sregs, &sregs2, offsetofend(struct kvm_sregs, apic_base));
	if (events.interrupt_injected && !events.interrupt_soft)
		__set_bit(events.interrupt_nr, (unsigned long *)sregs->interrupt_bitmap);
	return 0;
}

static int write_kvm_sregs(struct sk_vcpu *vcpu, const struct kvm_sregs *sregs)
{
	struct kvm_sregs2 sregs2 = {};
	unsigned int vector;
	int r;

	memcpy(&sregs2, sregs, offsetofend(struct kvm_sregs, apic_base));
	r = write_sregs(vcpu, &sregs2);
	vector = find_first_bit((unsigned long *)sregs->interrupt_bitmap, KVM_NR_INTERRUPTS);
	if (!r && vector < KVM_NR_INTERRUPTS)
		r = sk_state_queue_interrupt(vcpu, vector);
	return r;
}

static long get_sregs(struct sk_vcpu *vcpu, struct kvm_sregs __user *user)
{
	struct kvm_sregs sregs;
	int r = read_kvm_sregs(vcpu, &sregs);

	if (r)
		return r;
	return copy_to_user(user, &sregs, sizeof(sregs)) ? -EFAULT : 0;
}

static long set_sregs(struct sk_vcpu *vcpu, const struct kvm_sregs __user *user)
{
	struct kvm_sregs sregs;

	return copy_from_user(&sregs, user, sizeof(sregs)) ? -EFAULT : write_kvm_sregs(vcpu, &sregs);
}

static long get_sregs2(struct sk_vcpu *vcpu, struct kvm_sregs2 __user *user)
{
	struct kvm_sregs2 sregs;
	int r = read_sregs(vcpu, &sregs);

	if (r)
		return r;
	return copy_to_user(user, &sregs, sizeof(sregs)) ? -EFAULT : 0;
}

/* PDPTRs are not kept apart: with nested paging they are read from memory again. */
static long set_sregs2(struct sk_vcpu *vcpu, const struct kvm_sregs2 __user *user)
{
	struct kvm_sregs2 sregs;
	bool pae;

	if (copy_from_user(&sregs, user, sizeof(sregs)))
		return -EFAULT;
	pae = sregs.cr0 & X86_CR0_PG && sregs.cr4 & X86_CR4_PAE && !(sregs.efer & EFER_LMA);
	if (sregs.flags & ~(pae ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0))
		return -EINVAL;
	return write_sregs(vcpu, &sregs);
}

/* ---- registers in kvm_run (KVM_CAP_SYNC_REGS) --------------------------------------------------- */

/* Each set is copied once; userspace may be writing it. */
int sk_state_sync_in(struct sk_vcpu *vcpu, u64 sets)
{
	const struct kvm_sync_regs *sync = &vcpu->run->s.regs;
	union {
		struct kvm_regs regs;
		struct kvm_sregs sregs;
		struct kvm_vcpu_events events;
	} copy;
	int r = 0;

	if (sets & KVM_SYNC_X86_REGS) {
		copy.regs = sync->regs;
		r = write_regs(vcpu, &copy.regs);
	}
	if (!r && sets & KVM_SYNC_X86_SREGS) {
		copy.sregs = sync->sregs;
		r = write_kvm_sregs(vcpu, &copy.sregs);
	}
	if (!r && sets & KVM_SYNC_X86_EVENTS) {
		copy.events = sync->events;
		r = write_kvm_events(vcpu, &copy.events);
	}
	if (r)
		return -EINVAL;
	vcpu->run->kvm_dirty_regs &= ~sets;
	return 0;
}

void sk_state_sync_out(struct sk_vcpu *vcpu, u64 sets)
{
	struct kvm_sync_regs *sync = &vcpu->run->s.regs;

	if (sets & KVM_SYNC_X86_REGS)
		read_regs(vcpu, &sync->regs);
	if (sets & KVM_SYNC_X86_SREGS)
		read_kvm_sregs(vcpu, &sync->sregs);
	if (sets & KVM_SYNC_X86_EVENTS)
		read_kvm_events(vcpu, &sync->events);
}

/* ---- FPU and XSAVE ---------------------------------------------------------------------------- */

u64 sk_state_supported_xcr0(void)
{
	u32 eax, ebx, ecx, edx;

	if (!boot_cpu_has(X86_FEATURE_XSAVE))
		return XFEATURE_MASK_FPSSE;
	cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx);
	return ((u64)edx << 32 | eax) & ~(XFEATURE_MASK_XTILE | XFEATURE_MASK_BNDREGS |
					  XFEATURE_MASK_BNDCSR);
}

static int read_xsave(struct sk_vcpu *vcpu)
{
	memset(vcpu->buffer, 0, SK_XSAVE_BYTES);
	return min(sk_state_get(vcpu, SOCLE_STATE_XSAVE, SK_XSAVE_BYTES), 0);
}

static int write_xsave(struct sk_vcpu *vcpu)
{
	return min(sk_state_set(vcpu, SOCLE_STATE_XSAVE, SK_XSAVE_BYTES), 0);
}

static long get_xsave(struct sk_vcpu *vcpu, void __user *argp)
{
	int r = read_xsave(vcpu);

	if (r)
		return r;
	return copy_to_user(argp, vcpu->buffer, SK_XSAVE_BYTES) ? -EFAULT : 0;
}

/* The header is checked here too: a bad one would be a #GP at the processor's XRSTOR. */
static long set_xsave(struct sk_vcpu *vcpu, const void __user *argp)
{
	struct xregs_state *area = vcpu->buffer;

	BUILD_BUG_ON(sizeof(struct kvm_xsave) != SK_XSAVE_BYTES);
	if (copy_from_user(area, argp, SK_XSAVE_BYTES))
		return -EFAULT;
	if (area->header.xcomp_bv || area->header.xfeatures & ~sk_state_supported_xcr0())
		return -EINVAL;
	return write_xsave(vcpu);
}

static long get_fpu(struct sk_vcpu *vcpu, struct kvm_fpu __user *user)
{
	const struct fxregs_state *fx = vcpu->buffer;
	struct kvm_fpu fpu = {};
	int r = read_xsave(vcpu);

	if (r)
		return r;
	memcpy(fpu.fpr, fx->st_space, sizeof(fpu.fpr));
	fpu.fcw = fx->cwd;
	fpu.fsw = fx->swd;
	fpu.ftwx = fx->twd;
	fpu.last_opcode = fx->fop;
	fpu.last_ip = fx->rip;
	fpu.last_dp = fx->rdp;
	fpu.mxcsr = fx->mxcsr;
	memcpy(fpu.xmm, fx->xmm_space, sizeof(fpu.xmm));
	return copy_to_user(user, &fpu, sizeof(fpu)) ? -EFAULT : 0;
}

static long set_fpu(struct sk_vcpu *vcpu, const struct kvm_fpu __user *user)
{
	struct xregs_state *area = vcpu->buffer;
	struct fxregs_state *fx = vcpu->buffer;
	struct kvm_fpu fpu;
	int r;

	if (copy_from_user(&fpu, user, sizeof(fpu)))
		return -EFAULT;
	r = read_xsave(vcpu);
	if (r)
		return r;
	memcpy(fx->st_space, fpu.fpr, sizeof(fpu.fpr));
	fx->cwd = fpu.fcw;
	fx->swd = fpu.fsw;
	fx->twd = fpu.ftwx;
	fx->fop = fpu.last_opcode;
	fx->rip = fpu.last_ip;
	fx->rdp = fpu.last_dp;
	fx->mxcsr = fpu.mxcsr;
	memcpy(fx->xmm_space, fpu.xmm, sizeof(fpu.xmm));
	area->header.xfeatures |= XFEATURE_MASK_FPSSE;
	return write_xsave(vcpu);
}

static long get_xcrs(struct sk_vcpu *vcpu, struct kvm_xcrs __user *user)
{
	struct kvm_xcrs *xcrs;
	long r = 0;
	int got;

	if (!boot_cpu_has(X86_FEATURE_XSAVE))
		return -EINVAL;
	got = sk_state_get(vcpu, SOCLE_STATE_XCR0, sizeof(u64));
	if (got < 0)
		return got;
	xcrs = kzalloc(sizeof(*xcrs), GFP_KERNEL);
	if (!xcrs)
		return -ENOMEM;
	xcrs->nr_xcrs = 1;
	xcrs->xcrs[0].xcr = 0;
	xcrs->xcrs[0].value = *(u64 *)vcpu->buffer;
	if (copy_to_user(user, xcrs, sizeof(*xcrs)))
		r = -EFAULT;
	kfree(xcrs);
	return r;
}

static long set_xcrs(struct sk_vcpu *vcpu, const struct kvm_xcrs __user *user)
{
	struct kvm_xcrs *xcrs = memdup_user(user, sizeof(*xcrs));
	long r = -EINVAL;
	u32 i;

	if (IS_ERR(xcrs))
		return PTR_ERR(xcrs);
	if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags || !boot_cpu_has(X86_FEATURE_XSAVE))
		goto out;
	r = 0;
	for (i = 0; i < xcrs->nr_xcrs; i++) {
		if (xcrs->xcrs[i].xcr != 0)
			continue;
		*(u64 *)vcpu->buffer = xcrs->xcrs[i].value;
		r = sk_state_set(vcpu, SOCLE_STATE_XCR0, sizeof(u64));
		break;
	}
out:
	kfree(xcrs);
	return r;
}

/* ---- local APIC, run state, debug registers --------------------------------------------------- */

/* KVM_CAP_X2APIC_API: an x2APIC's id is the whole register; Socle has it in the upper bits in either mode. */
static bool has_plain_id(struct sk_vcpu *vcpu)
{
	struct kvm_sregs2 sregs;

	return vcpu->vm->x2apic_ids && !read_sregs(vcpu, &sregs) &&
	       sregs.apic_base & X2APIC_ENABLE;
}

static long get_lapic(struct sk_vcpu *vcpu, struct kvm_lapic_state __user *user)
{
	u32 *id = vcpu->buffer + APIC_ID;
	bool plain;
	int r;

	if (!vcpu->vm->irqchip)
		return -EINVAL;
	plain = has_plain_id(vcpu);
	r = sk_state_get(vcpu, SOCLE_STATE_LAPIC, sizeof(struct kvm_lapic_state));
	if (r < 0)
		return r;
	if (plain)
		*id = vcpu->id;
	return copy_to_user(user, vcpu->buffer, sizeof(struct kvm_lapic_state)) ? -EFAULT : 0;
}

static long set_lapic(struct sk_vcpu *vcpu, const struct kvm_lapic_state __user *user)
{
	const u32 *id = vcpu->buffer + APIC_ID;
	bool plain;

	if (!vcpu->vm->irqchip)
		return -EINVAL;
	plain = has_plain_id(vcpu);
	if (copy_from_user(vcpu->buffer, user, sizeof(struct kvm_lapic_state)))
		return -EFAULT;
	if (plain && *id != vcpu->id)
		return -EINVAL;
	return sk_state_set(vcpu, SOCLE_STATE_LAPIC, sizeof(struct kvm_lapic_state));
}

static int write_mp(struct sk_vcpu *vcpu, u32 state)
{
	*(u32 *)vcpu->buffer = state;
	return sk_state_set(vcpu, SOCLE_STATE_MP, sizeof(u32));
}

/* KVM's and Socle's numbers of the four states are the same. */
static long get_mp_state(struct sk_vcpu *vcpu, struct kvm_mp_state __user *user)
{
	struct kvm_mp_state state;
	int r = sk_state_get(vcpu, SOCLE_STATE_MP, sizeof(u32));

	BUILD_BUG_ON(KVM_MP_STATE_UNINITIALIZED != SOCLE_MP_UNINIT);
	BUILD_BUG_ON(KVM_MP_STATE_INIT_RECEIVED != SOCLE_MP_INIT);
	BUILD_BUG_ON(KVM_MP_STATE_HALTED != SOCLE_MP_HALTED);
	if (r < 0)
		return r;
	state.mp_state = *(u32 *)vcpu->buffer;
	return copy_to_user(user, &state, sizeof(state)) ? -EFAULT : 0;
}

/* A SIPI that has come and is not yet taken: what it does is done here. */
static int start_at_sipi(struct sk_vcpu *vcpu)
{
	struct socle_sregs *sregs = vcpu->buffer;
	struct socle_regs *regs = vcpu->buffer;
	struct socle_vcpu_events events;
	int r = read_events(vcpu, &events);

	if (r)
		return r;
	r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs));
	if (r < 0)
		return r;
	sregs->seg[SOCLE_SEG_CS].selector = events.sipi_vector << 8;
	sregs->seg[SOCLE_SEG_CS].base = events.sipi_vector << 12;
	r = sk_state_set(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs));
	if (r < 0)
		return r;
	r = sk_state_get(vcpu, SOCLE_STATE_REGS, sizeof(*regs));
	if (r < 0)
		return r;
	regs->rip = 0;
	r = sk_state_set(vcpu, SOCLE_STATE_REGS, sizeof(*regs));
	return r < 0 ? r : write_mp(vcpu, SOCLE_MP_RUNNABLE);
}

static long set_mp_state(struct sk_vcpu *vcpu, const struct kvm_mp_state __user *user)
{
	struct kvm_mp_state state;

	if (copy_from_user(&state, user, sizeof(state)))
		return -EFAULT;
	if (state.mp_state == KVM_MP_STATE_SIPI_RECEIVED && vcpu->vm->irqchip)
		return start_at_sipi(vcpu);
	if (state.mp_state > KVM_MP_STATE_HALTED)
		return -EINVAL;
	if (!vcpu->vm->irqchip && state.mp_state != KVM_MP_STATE_RUNNABLE)
		return -EINVAL;
	return write_mp(vcpu, state.mp_state);
}

static long get_debugregs(struct sk_vcpu *vcpu, struct kvm_debugregs __user *user)
{
	const struct socle_debug *s = vcpu->buffer;
	struct kvm_debugregs k = {};
	int r = sk_state_get(vcpu, SOCLE_STATE_DEBUG, sizeof(*s));

	if (r < 0)
		return r;
	memcpy(k.db, s->db, sizeof(k.db));
	k.dr6 = s->dr6;
	k.dr7 = s->dr7;
	return copy_to_user(user, &k, sizeof(k)) ? -EFAULT : 0;
}

static long set_debugregs(struct sk_vcpu *vcpu, const struct kvm_debugregs __user *user)
{
	struct socle_debug *s = vcpu->buffer;
	struct kvm_debugregs k;

	if (copy_from_user(&k, user, sizeof(k)))
		return -EFAULT;
	if (k.flags || k.dr6 >> 32 || k.dr7 >> 32)
		return -EINVAL;
	memcpy(s->db, k.db, sizeof(s->db));
	s->dr6 = k.dr6;
	s->dr7 = k.dr7;
	return sk_state_set(vcpu, SOCLE_STATE_DEBUG, sizeof(*s));
}

static int inject_for_debugger(struct sk_vcpu *vcpu, u8 vector)
{
	struct socle_vcpu_events events;
	int r = read_events(vcpu, &events);

	if (r)
		return r;
	return events.exception_pending ? -EBUSY : sk_state_queue_exception(vcpu, vector);
}

static long set_guest_debug(struct sk_vcpu *vcpu, const struct kvm_guest_debug __user *user)
{
	struct socle_guest_debug *s = vcpu->buffer;
	struct kvm_guest_debug k;
	int r;

	if (copy_from_user(&k, user, sizeof(k)))
		return -EFAULT;
	if (k.control & ~SK_GUESTDBG)
		return -EINVAL;
	if (k.control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		r = inject_for_debugger(vcpu, k.control & KVM_GUESTDBG_INJECT_DB ? X86_TRAP_DB :
										 X86_TRAP_BP);
		if (r)
			return r;
	}
	memset(s, 0, sizeof(*s));
	s->flags = (k.control & KVM_GUESTDBG_ENABLE ? SOCLE_DEBUG_ON : 0) |
		   (k.control & KVM_GUESTDBG_SINGLESTEP ? SOCLE_DEBUG_STEP : 0) |
		   (k.control & KVM_GUESTDBG_USE_SW_BP ? SOCLE_DEBUG_BP : 0) |
		   (k.control & KVM_GUESTDBG_USE_HW_BP ? SOCLE_DEBUG_HW : 0) |
		   (k.control & KVM_GUESTDBG_BLOCKIRQ ? SOCLE_DEBUG_BLOCK : 0);
	memcpy(s->db, k.arch.debugreg, sizeof(s->db));
	s->dr7 = k.arch.debugreg[7];
	return sk_state_set(vcpu, SOCLE_STATE_GUEST_DEBUG, sizeof(*s));
}

/* ---- the TSC's rate --------------------------------------------------------------------------- */

/* As KVM's tolerance: a rate that another measurement of the same processor could have given. */
static bool is_machines_rate(u32 khz)
{
	return abs((s64)khz - sk_tsc_khz) <= div_u64(sk_tsc_khz * 250ull, 1000000);
}

u32 sk_state_tsc_khz(unsigned long arg)
{
	u32 khz = (u32)arg ?: sk_tsc_khz;

	return khz < S32_MAX && (sk_tsc_scaling || is_machines_rate(khz)) ? khz : 0;
}

long sk_state_set_tsc_khz(struct sk_vcpu *vcpu, unsigned long arg)
{
	u32 khz = sk_state_tsc_khz(arg);
	u32 *rate = vcpu->buffer;
	int r;

	if (!khz)
		return -EINVAL;
	*rate = is_machines_rate(khz) ? sk_tsc_khz : khz;
	r = sk_state_set(vcpu, SOCLE_STATE_TSC_KHZ, sizeof(*rate));
	if (r < 0)
		return r;
	vcpu->tsc_khz = khz;
	return 0;
}

/* KVM_VCPU_TSC_OFFSET: the guest's TSC minus the processor's, scaled */
static long device_attr(struct sk_vcpu *vcpu, unsigned int cmd, const void __user *user)
{
	struct kvm_device_attr attr;
	u64 *offset = vcpu->buffer;
	u64 __user *place;
	int r;

	if (copy_from_user(&attr, user, sizeof(attr)))
		return -EFAULT;
	if (attr.group != KVM_VCPU_TSC_CTRL || attr.attr != KVM_VCPU_TSC_OFFSET)
		return -ENXIO;
	place = (u64 __user *)(unsigned long)attr.addr;
	switch (cmd) {
	case KVM_GET_DEVICE_ATTR:
		r = sk_state_get(vcpu, SOCLE_STATE_TSC_OFFSET, sizeof(*offset));
		return r < 0 ? r : put_user(*offset, place);
	case KVM_SET_DEVICE_ATTR:
		if (get_user(*offset, place))
			return -EFAULT;
		return sk_state_set(vcpu, SOCLE_STATE_TSC_OFFSET, sizeof(*offset));
	default:
		return 0;
	}
}

/* Modulo 2^64, as the processor has it */
static u64 guest_ticks(struct sk_vcpu *vcpu, u64 ticks)
{
	u32 rest;
	u64 ms = div_u64_rem(ticks, sk_tsc_khz, &rest);

	return ms * vcpu->tsc_khz + div_u64((u64)rest * vcpu->tsc_khz, sk_tsc_khz);
}

/* ---- a new vCPU ------------------------------------------------------------------------------- */

/* The rest is Socle's: the state after RESET. A VM's TSCs begin with 0 together, at its first vCPU: Socle makes
 * values that are close equal.
 */
int sk_state_init(struct sk_vcpu *vcpu, bool boot_cpu)
{
	struct socle_msr *msrs = vcpu->buffer;
	struct sk_vm *vm = vcpu->vm;
	int r;

	if (vm->vcpus[0] == vcpu)
		vm->first_tsc = rdtsc();
	r = sk_state_set_tsc_khz(vcpu, vm->tsc_khz);
	if (r)
		return r;
	memset(msrs, 0, 2 * sizeof(*msrs));
	msrs[0].index = MSR_IA32_APICBASE;
	msrs[0].value = APIC_DEFAULT_PHYS_BASE | MSR_IA32_APICBASE_ENABLE |
			(boot_cpu ? MSR_IA32_APICBASE_BSP : 0);
	msrs[1].index = MSR_IA32_TSC;
	msrs[1].value = guest_ticks(vcpu, rdtsc() - vm->first_tsc);
	r = sk_state_set(vcpu, SOCLE_STATE_MSRS, 2 * sizeof(*msrs));
	if (r != 2)
		return r < 0 ? r : -EINVAL;
	r = sk_cpuid_init(vcpu);
	if (r)
		return r;
	return write_mp(vcpu, boot_cpu || !vm->irqchip ? SOCLE_MP_RUNNABLE : SOCLE_MP_UNINIT);
}

long sk_state_ioctl(struct sk_vcpu *vcpu, unsigned int cmd, void __user *argp)
{
	switch (cmd) {
	case KVM_GET_REGS:
		return get_regs(vcpu, argp);
	case KVM_SET_REGS:
		return set_regs(vcpu, argp);
	case KVM_GET_SREGS:
		return get_sregs(vcpu, argp);
	case KVM_SET_SREGS:
		return set_sregs(vcpu, argp);
	case KVM_GET_SREGS2:
		return get_sregs2(vcpu, argp);
	case KVM_SET_SREGS2:
		return set_sregs2(vcpu, argp);
	case KVM_GET_VCPU_EVENTS:
		return get_events(vcpu, argp);
	case KVM_SET_VCPU_EVENTS:
		return set_events(vcpu, argp);
	case KVM_GET_FPU:
		return get_fpu(vcpu, argp);
	case KVM_SET_FPU:
		return set_fpu(vcpu, argp);
	case KVM_GET_XSAVE:
	case KVM_GET_XSAVE2:
		return get_xsave(vcpu, argp);
	case KVM_SET_XSAVE:
		return set_xsave(vcpu, argp);
	case KVM_GET_XCRS:
		return get_xcrs(vcpu, argp);
	case KVM_SET_XCRS:
		return set_xcrs(vcpu, argp);
	case KVM_GET_LAPIC:
		return get_lapic(vcpu, argp);
	case KVM_SET_LAPIC:
		return set_lapic(vcpu, argp);
	case KVM_GET_MP_STATE:
		return get_mp_state(vcpu, argp);
	case KVM_SET_MP_STATE:
		return set_mp_state(vcpu, argp);
	case KVM_GET_DEBUGREGS:
		return get_debugregs(vcpu, argp);
	case KVM_SET_DEBUGREGS:
		return set_debugregs(vcpu, argp);
	case KVM_SET_GUEST_DEBUG:
		return set_guest_debug(vcpu, argp);
	case KVM_HAS_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR:
		return device_attr(vcpu, cmd, argp);
	default:
		return -ENOTTY;
	}
}
