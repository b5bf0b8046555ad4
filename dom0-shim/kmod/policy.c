// SPDX-License-Identifier: GPL-2.0
/* What userspace wants to decide itself or to have otherwise: MSR filters, MSR exits, KVM's quirks, paravirtual features
 * that CPUID must have. Socle is told, per vCPU, only of what makes it ask dom0 more often (SOCLE_TRAP_*): a filter that
 * concerns none of Socle's own MSRs costs nothing.
 */
#include "socle_kvm.h"

#include <linux/kvm_para.h>
#include <asm/msr.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#define CPUID_1_ECX_MWAIT BIT(3)

/* ---- the filter ------------------------------------------------------------------------------- */

struct sk_msr_range {
	u32 base, count, flags;
	unsigned long *allowed;
};

struct sk_msr_filter {
	bool allow; /* what is in no range */
	u32 count;
	struct sk_msr_range range[KVM_MSR_FILTER_MAX_RANGES];
};

static void filter_free(struct sk_msr_filter *filter)
{
	u32 i;

	for (i = 0; filter && i < filter->count; i++)
		kfree(filter->range[i].allowed);
	kfree(filter);
}

static int filter_add(struct sk_msr_filter *filter, const struct kvm_msr_filter_range *user)
{
	size_t bytes = BITS_TO_LONGS((u64)user->nmsrs) * sizeof(long);
	unsigned long *allowed;

	if (!user->nmsrs)
		return 0;
	if (!user->flags || user->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) ||
	    bytes > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	allowed = memdup_user((const void __user *)user->bitmap, bytes);
	if (IS_ERR(allowed))
		return PTR_ERR(allowed);
	filter->range[filter->count++] = (struct sk_msr_range){
		.base = user->base, .count = user->nmsrs, .flags = user->flags, .allowed = allowed
	};
	return 0;
}

static struct sk_msr_filter *filter_new(const struct kvm_msr_filter *user)
{
	struct sk_msr_filter *filter;
	u64 msrs = 0;
	u32 i;
	int r;

	for (i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++)
		msrs += user->ranges[i].nmsrs;
	if (user->flags & ~KVM_MSR_FILTER_DEFAULT_DENY || (user->flags && !msrs))
		return ERR_PTR(-EINVAL);
	filter = kzalloc(sizeof(*filter), GFP_KERNEL_ACCOUNT);
	if (!filter)
		return ERR_PTR(-ENOMEM);
	filter->allow = !user->flags;
	for (i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
		r = filter_add(filter, &user->ranges[i]);
		if (r) {
			filter_free(filter);
			return ERR_PTR(r);
		}
	}
	return filter;
}

static bool filter_allows(const struct sk_msr_filter *filter, u32 index, u32 access)
{
	u32 i;

	if (!filter || index >> 8 == 0x8) /* x2APIC's cannot be filtered */
		return true;
	for (i = 0; i < filter->count; i++) {
		const struct sk_msr_range *range = &filter->range[i];

		if (range->flags & access && index >= range->base && index - range->base < range->count)
			return test_bit(index - range->base, range->allowed);
	}
	return filter->allow;
}

bool sk_policy_msr_allowed(struct sk_vm *vm, u32 index, bool write)
{
	bool allowed;

	rcu_read_lock();
	allowed = filter_allows(rcu_dereference(vm->msr_filter), index,
				write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ);
	rcu_read_unlock();
	return allowed;
}

/* What Socle, or the processor, does without dom0's being asked */
static const struct {
	u32 first, last;
} socles[] = {
	{ MSR_IA32_TSC, 0x12 }, /* to the old numbers of the paravirtual clock's */
	{ MSR_IA32_APICBASE, MSR_IA32_APICBASE },
	{ MSR_IA32_TSC_ADJUST, MSR_IA32_TSC_ADJUST },
	{ MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_EIP },
	{ MSR_IA32_CR_PAT, MSR_IA32_CR_PAT },
	{ MSR_IA32_TSC_DEADLINE, MSR_IA32_TSC_DEADLINE },
	{ 0x4b564d00, 0x4b564dff }, /* paravirtual */
	{ MSR_EFER, MSR_SYSCALL_MASK },
	{ MSR_FS_BASE, MSR_TSC_AUX },
};

static bool filter_concerns_socle(const struct sk_msr_filter *filter)
{
	size_t i;
	u32 msr;

	for (i = 0; filter && i < ARRAY_SIZE(socles); i++)
		for (msr = socles[i].first; msr <= socles[i].last; msr++)
			if (!filter_allows(filter, msr, KVM_MSR_FILTER_READ) ||
			    !filter_allows(filter, msr, KVM_MSR_FILTER_WRITE))
				return true;
	return false;
}

/* ---- a vCPU's CPUID --------------------------------------------------------------------------- */

static const struct kvm_cpuid_entry2 *find_leaf(const struct sk_vcpu *vcpu, u32 leaf)
{
	u32 i;

	for (i = 0; i < vcpu->cpuid_count; i++)
		if (vcpu->cpuid[i].function == leaf)
			return &vcpu->cpuid[i];
	return NULL;
}

/* KVM's features stand behind its signature, which may be at any multiple of 0x100. */
static u32 pv_features(const struct sk_vcpu *vcpu)
{
	u32 base;

	for (base = KVM_CPUID_SIGNATURE; base < 0x40010000; base += 0x100) {
		const struct kvm_cpuid_entry2 *e = find_leaf(vcpu, base);

		if (!e || memcmp(&e->ebx, "KVMKVMKVM\0\0\0", 12))
			continue;
		e = find_leaf(vcpu, base | KVM_CPUID_FEATURES);
		return e ? e->eax : 0;
	}
	return 0;
}

static u32 pv_feature_of(u32 msr)
{
	switch (msr) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_SYSTEM_TIME:
		return BIT(KVM_FEATURE_CLOCKSOURCE);
	case MSR_KVM_WALL_CLOCK_NEW:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return BIT(KVM_FEATURE_CLOCKSOURCE2);
	case MSR_KVM_ASYNC_PF_EN:
		return BIT(KVM_FEATURE_ASYNC_PF);
	case MSR_KVM_STEAL_TIME:
		return BIT(KVM_FEATURE_STEAL_TIME);
	case MSR_KVM_PV_EOI_EN:
		return BIT(KVM_FEATURE_PV_EOI);
	case MSR_KVM_POLL_CONTROL:
		return BIT(KVM_FEATURE_POLL_CONTROL);
	case MSR_KVM_ASYNC_PF_INT:
	case MSR_KVM_ASYNC_PF_ACK:
		return BIT(KVM_FEATURE_ASYNC_PF_INT);
	case MSR_KVM_MIGRATION_CONTROL:
		return BIT(KVM_FEATURE_MIGRATION_CONTROL);
	default:
		return 0;
	}
}

/* Its CPUID has the feature that the MSR belongs to. */
bool sk_policy_pv_offers(const struct sk_vcpu *vcpu, u32 msr)
{
	return pv_features(vcpu) & pv_feature_of(msr);
}

/* KVM_CAP_ENFORCE_PV_FEATURE_CPUID */
bool sk_policy_pv_absent(const struct sk_vcpu *vcpu, u32 msr)
{
	u32 feature = vcpu->enforce_pv ? pv_feature_of(msr) : 0;

	return feature && !(pv_features(vcpu) & feature);
}

static bool lacks_pv(const struct sk_vcpu *vcpu)
{
	u32 all = BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_CLOCKSOURCE2) |
		  BIT(KVM_FEATURE_STEAL_TIME) | BIT(KVM_FEATURE_PV_EOI);

	return vcpu->enforce_pv && (pv_features(vcpu) & all) != all;
}

static bool has_mwait(const struct sk_vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *e = find_leaf(vcpu, 1);

	return e && e->ecx & CPUID_1_ECX_MWAIT;
}

/* KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT: without it the MSR decides of CPUID's feature. */
void sk_policy_misc_enable(struct sk_vcpu *vcpu, u64 value)
{
	bool on = value & MSR_IA32_MISC_ENABLE_MWAIT;
	u32 i;

	if (!sk_policy_quirk_off(vcpu->vm, KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT) ||
	    has_mwait(vcpu) == on)
		return;
	for (i = 0; i < vcpu->cpuid_count; i++)
		if (vcpu->cpuid[i].function == 1)
			vcpu->cpuid[i].ecx ^= CPUID_1_ECX_MWAIT;
	sk_cpuid_refresh(vcpu);
}

/* ---- traps ------------------------------------------------------------------------------------ */

/* The VM's policy has changed: what runs leaves the guest and looks at it, the others do when they run next. With
 * vm->lock.
 */
static void changed(struct sk_vm *vm)
{
	int version = atomic_inc_return(&vm->policy);
	u32 i;

	for (i = 0; i < vm->vcpu_count; i++) {
		struct sk_vcpu *vcpu = vm->vcpus[i];

		do {
			hc1(SOCLE_HC_VCPU_STOP, vcpu->handle);
			cond_resched();
		} while (smp_load_acquire(&vcpu->entering) && READ_ONCE(vcpu->policy) != version);
		smp_store_mb(vcpu->event, 1);
		wake_up(&vcpu->wait);
	}
}

static u32 wanted_traps(struct sk_vcpu *vcpu)
{
	struct sk_vm *vm = vcpu->vm;
	u32 traps = 0;
	bool concerned;

	rcu_read_lock();
	concerned = filter_concerns_socle(rcu_dereference(vm->msr_filter));
	rcu_read_unlock();
	if (concerned || lacks_pv(vcpu) ||
	    READ_ONCE(vm->msr_exits) & KVM_MSR_EXIT_REASON_INVAL)
		traps |= SOCLE_TRAP_MSRS;
	if (!sk_policy_quirk_off(vm, KVM_X86_QUIRK_FIX_HYPERCALL_INSN) ||
	    !sk_policy_quirk_off(vm, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) || has_mwait(vcpu) ||
	    READ_ONCE(vm->exit_on_emulation_failure))
		traps |= SOCLE_TRAP_UD;
	return traps;
}

/* Before the vCPU runs. The number is read first: a change that comes meanwhile is seen the next time. */
int sk_policy_apply(struct sk_vcpu *vcpu)
{
	int version = atomic_read(&vcpu->vm->policy);
	u32 traps;
	int r;

	smp_rmb();
	traps = wanted_traps(vcpu);
	if (traps != vcpu->traps) {
		*(u32 *)vcpu->buffer = traps;
		r = sk_state_set(vcpu, SOCLE_STATE_TRAPS, sizeof(traps));
		if (r < 0)
			return r;
		vcpu->traps = traps;
	}
	WRITE_ONCE(vcpu->policy, version);
	return 0;
}

long sk_policy_set_filter(struct sk_vm *vm, const struct kvm_msr_filter __user *user)
{
	struct sk_msr_filter *filter, *old;
	struct kvm_msr_filter copy;

	if (copy_from_user(&copy, user, sizeof(copy)))
		return -EFAULT;
	filter = filter_new(&copy);
	if (IS_ERR(filter))
		return PTR_ERR(filter);
	mutex_lock(&vm->lock);
	old = rcu_replace_pointer(vm->msr_filter, filter, lockdep_is_held(&vm->lock));
	changed(vm);
	mutex_unlock(&vm->lock);
	synchronize_rcu();
	filter_free(old);
	return 0;
}

void sk_policy_destroy(struct sk_vm *vm)
{
	filter_free(rcu_dereference_protected(vm->msr_filter, true));
}

long sk_policy_set_msr_exits(struct sk_vm *vm, u64 reasons)
{
	if (reasons & ~(u64)(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
			     KVM_MSR_EXIT_REASON_FILTER))
		return -EINVAL;
	mutex_lock(&vm->lock);
	WRITE_ONCE(vm->msr_exits, reasons);
	changed(vm);
	mutex_unlock(&vm->lock);
	return 0;
}

long sk_policy_disable_quirks(struct sk_vm *vm, u64 quirks)
{
	if (quirks & ~(u64)SK_QUIRKS)
		return -EINVAL;
	mutex_lock(&vm->lock);
	WRITE_ONCE(vm->disabled_quirks, quirks);
	changed(vm);
	mutex_unlock(&vm->lock);
	return 0;
}

long sk_policy_exit_on_emulation_failure(struct sk_vm *vm, u64 on)
{
	if (on > 1)
		return -EINVAL;
	mutex_lock(&vm->lock);
	WRITE_ONCE(vm->exit_on_emulation_failure, on);
	changed(vm);
	mutex_unlock(&vm->lock);
	return 0;
}

/* ---- #UD -------------------------------------------------------------------------------------- */

static const u8 vmcall[3] = { 0x0f, 0x01, 0xc1 }, vmmcall[3] = { 0x0f, 0x01, 0xd9 };

static bool is_mwait(const u8 *insn)
{
	return insn[0] == 0x0f && insn[1] == 0x01 && (insn[2] & ~1) == 0xc8; /* or MONITOR */
}

/* What the vCPU is at: address and registers */
struct at {
	struct socle_regs regs;
	u64 gva;
	bool kernel;
};

static int find_out(struct sk_vcpu *vcpu, struct at *at)
{
	const struct socle_sregs *s = vcpu->buffer;
	bool is_64bit;
	int r = sk_state_get(vcpu, SOCLE_STATE_REGS, sizeof(at->regs));

	if (r < 0)
		return r;
	memcpy(&at->regs, vcpu->buffer, sizeof(at->regs));
	r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*s));
	if (r < 0)
		return r;
	is_64bit = s->efer & EFER_LMA && s->seg[SOCLE_SEG_CS].attr & 0x200;
	at->gva = is_64bit ? at->regs.rip : (u32)(s->seg[SOCLE_SEG_CS].base + at->regs.rip);
	at->kernel = !(s->seg[SOCLE_SEG_SS].attr & 0x60);
	return 0;
}

static int skip(struct sk_vcpu *vcpu, struct at *at, u32 bytes)
{
	at->regs.rip += bytes;
	memcpy(vcpu->buffer, &at->regs, sizeof(at->regs));
	return sk_state_set(vcpu, SOCLE_STATE_REGS, sizeof(at->regs));
}

static bool mwait_is_nop(const struct sk_vcpu *vcpu)
{
	return !sk_policy_quirk_off(vcpu->vm, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) ||
	       has_mwait(vcpu);
}

/* An instruction that raises #UD, if the guest shall see it. The other vendor's hypercall becomes this processor's, and
 * is executed again.
 */
int sk_policy_ud(struct sk_vcpu *vcpu)
{
	const u8 *own = sk_use_vmcall ? vmcall : vmmcall, *other = sk_use_vmcall ? vmmcall : vmcall;
	struct at at;
	u8 insn[3];
	int r = find_out(vcpu, &at);

	if (r)
		return r;
	if (sk_guest_access(vcpu, at.gva, insn, sizeof(insn), false))
		return sk_state_queue_exception(vcpu, X86_TRAP_UD);
	if (at.kernel && is_mwait(insn) && mwait_is_nop(vcpu))
		return skip(vcpu, &at, sizeof(insn));
	if (!memcmp(insn, other, sizeof(insn)) &&
	    !sk_policy_quirk_off(vcpu->vm, KVM_X86_QUIRK_FIX_HYPERCALL_INSN) &&
	    !sk_guest_access(vcpu, at.gva, (u8 *)own, sizeof(insn), true))
		return 0;
	return sk_state_queue_exception(vcpu, X86_TRAP_UD);
}
