// SPDX-License-Identifier: GPL-2.0
/* MSRs. Socle holds those that the processor's and the local APIC's work depends on; here are the rest: memory types
 * (without effect under nested paging), machine check banks, and what an operating system only looks at.
 */
#include "socle_kvm.h"

#include <asm/mce.h>
#include <asm/kvm_para.h>
#include <asm/msr.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#define MTRR_CAP_VALUE	 0x508ull /* 8 variable ranges, fixed ranges, write combining */
#define MTRR_VARIABLE	 0x200
#define MCE_CAPS	 (MCG_CTL_P | MCG_SER_P)
#define HWCR_TSC_FREQ	 BIT_ULL(24) /* TscFreqSel: the TSC counts at P0's frequency */
#define HWCR_MC_WRITE	 BIT_ULL(18) /* McStatusWrEn */
#define HWCR_IGNORED	 (BIT_ULL(3) | BIT_ULL(6) | BIT_ULL(8))
#define DE_CFG_LFENCE	 BIT_ULL(1)
#define MISC_ENABLE_INIT (MSR_IA32_MISC_ENABLE_BTS_UNAVAIL | MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL)

/* KVM_GET_MSR_INDEX_LIST: QEMU saves and restores each that it knows. */
static const u32 saved_msrs[] = {
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE, MSR_TSC_AUX,
	MSR_IA32_TSC, MSR_IA32_CR_PAT, MSR_IA32_TSC_ADJUST, MSR_IA32_TSC_DEADLINE,
	MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME, MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW,
	MSR_IA32_MISC_ENABLE, MSR_IA32_MCG_STATUS, MSR_IA32_MCG_CTL, MSR_IA32_UCODE_REV, MSR_K7_HWCR,
	MSR_PLATFORM_INFO, MSR_IA32_POWER_CTL, MSR_KVM_STEAL_TIME, MSR_KVM_POLL_CONTROL,
};

/* KVM_GET_MSR_FEATURE_INDEX_LIST */
static const u32 feature_msrs[] = { MSR_IA32_UCODE_REV, MSR_AMD64_DE_CFG };

/* Read as 0 and not stored when written: software touches them without looking at CPUID. */
static const u32 ignored_msrs[] = {
	MSR_IA32_PLATFORM_ID, MSR_IA32_EBL_CR_POWERON, MSR_IA32_UCODE_WRITE,
	MSR_MISC_FEATURES_ENABLES, MSR_IA32_PERF_STATUS, MSR_IA32_PERF_CTL, MSR_IA32_DEBUGCTLMSR,
	MSR_IA32_LASTBRANCHFROMIP, MSR_IA32_LASTBRANCHTOIP, MSR_IA32_LASTINTFROMIP,
	MSR_IA32_LASTINTTOIP, MSR_AMD64_SYSCFG, MSR_K8_TSEG_ADDR, MSR_K8_TSEG_MASK,
	MSR_K8_INT_PENDING_MSG, MSR_AMD64_NB_CFG, MSR_FAM10H_MMIO_CONF_BASE, MSR_AMD64_BU_CFG2,
	MSR_AMD64_DC_CFG, MSR_AMD64_PATCH_LOADER, MSR_F15H_EX_CFG,
};

static bool is_intel(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL;
}

static bool is_ignored(u32 index)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ignored_msrs); i++)
		if (ignored_msrs[i] == index)
			return true;
	return false;
}

/* ---- memory types ----------------------------------------------------------------------------- */

static u64 *mtrr_find(struct sk_vcpu *vcpu, u32 index)
{
	struct sk_mtrr *m = &vcpu->mtrr;

	switch (index) {
	case MSR_MTRRdefType:
		return &m->def_type;
	case MSR_MTRRfix64K_00000:
		return &m->fixed[0];
	case MSR_MTRRfix16K_80000:
	case MSR_MTRRfix16K_A0000:
		return &m->fixed[1 + index - MSR_MTRRfix16K_80000];
	case MSR_MTRRfix4K_C0000 ... MSR_MTRRfix4K_F8000:
		return &m->fixed[3 + index - MSR_MTRRfix4K_C0000];
	case MTRR_VARIABLE ... MTRR_VARIABLE + 15:
		return &m->variable[index - MTRR_VARIABLE];
	default:
		return NULL;
	}
}

/* UC, WC, WT, WP, WB (Intel SDM, volume 3, 12.11.2.1) */
static bool memory_type_is_valid(u8 type)
{
	return type < 8 && 0x73 & (1 << type);
}

static bool mtrr_is_valid(u32 index, u64 value)
{
	int i;

	if (index == MSR_MTRRdefType)
		return !(value & ~0xcffull) && memory_type_is_valid(value);
	if (index < MSR_MTRRfix64K_00000)
		return index & 1 ? !(value & 0x7ff) :
				   !(value & 0xf00) && memory_type_is_valid(value);
	for (i = 0; i < 64; i += 8)
		if (!memory_type_is_valid(value >> i))
			return false;
	return true;
}

/* ---- machine check ---------------------------------------------------------------------------- */

u64 sk_mce_supported(void)
{
	return MCE_CAPS;
}

static u32 mce_banks(const struct sk_vcpu *vcpu)
{
	return min_t(u32, vcpu->mce.cap & MCG_BANKCNT_MASK, SK_MCE_BANKS);
}

static u64 *mce_find(struct sk_vcpu *vcpu, u32 index)
{
	struct sk_mce *mce = &vcpu->mce;

	if (index == MSR_IA32_MCG_STATUS)
		return &mce->status;
	if (index == MSR_IA32_MCG_CTL)
		return &mce->ctl;
	if (index >= MSR_IA32_MC0_CTL && index < MSR_IA32_MC0_CTL + 4 * mce_banks(vcpu))
		return &mce->bank[index - MSR_IA32_MC0_CTL];
	return NULL;
}

static bool mce_is_valid(const struct sk_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if (index == MSR_IA32_MCG_STATUS)
		return true;
	if (index == MSR_IA32_MCG_CTL)
		return vcpu->mce.cap & MCG_CTL_P ? value == 0 || value == ~0ull : host && !value;
	switch ((index - MSR_IA32_MC0_CTL) & 3) {
	case 0: /* CTL: Linux writes all but bit 10 on some processors, all but bit 0 on others */
		return value == 0 || (value | BIT_ULL(10) | 1) == ~0ull;
	case 1: /* STATUS: a guest may only clear it, or has McStatusWrEn */
		return host || !value || vcpu->hwcr & HWCR_MC_WRITE;
	default:
		return true;
	}
}

long sk_mce_setup(struct sk_vcpu *vcpu, u64 cap)
{
	u32 banks = cap & MCG_BANKCNT_MASK;
	u32 i;

	if (!banks || banks > SK_MCE_BANKS)
		return -EINVAL;
	if (cap & ~(MCE_CAPS | MCG_BANKCNT_MASK | MCG_EXT_CNT_MASK))
		return -EINVAL;
	vcpu->mce.cap = cap;
	if (cap & MCG_CTL_P)
		vcpu->mce.ctl = ~0ull;
	for (i = 0; i < banks; i++)
		vcpu->mce.bank[4 * i] = ~0ull;
	return 0;
}

static bool guest_takes_mce(struct sk_vcpu *vcpu)
{
	const struct socle_sregs *sregs = vcpu->buffer;

	return !(vcpu->mce.status & MCG_STATUS_MCIP) &&
	       sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs)) >= 0 &&
	       sregs->cr4 & X86_CR4_MCE;
}

static void mce_record(u64 *bank, const struct kvm_x86_mce *mce)
{
	bank[2] = mce->addr;
	bank[3] = mce->misc;
	bank[1] = mce->status | (bank[1] & MCI_STATUS_VAL ? MCI_STATUS_OVER : 0);
}

/* An uncorrected error is a #MC; a guest that can't take one now shuts down: that is a double fault's third step,
 * which a #DF queued with one pending would be; here the caller is told.
 */
long sk_mce_inject(struct sk_vcpu *vcpu, struct kvm_x86_mce *mce)
{
	bool uncorrected = mce->status & MCI_STATUS_UC;
	u64 *bank;

	if (mce->bank >= mce_banks(vcpu) || !(mce->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = &vcpu->mce.bank[4 * mce->bank];
	if (!uncorrected) {
		if (bank[1] & MCI_STATUS_VAL && bank[1] & MCI_STATUS_UC)
			bank[1] |= MCI_STATUS_OVER;
		else
			mce_record(bank, mce);
		return 0;
	}
	if ((vcpu->mce.cap & MCG_CTL_P && vcpu->mce.ctl != ~0ull) || bank[0] != ~0ull)
		return 0; /* reporting is off */
	if (!guest_takes_mce(vcpu))
		return -EBUSY;
	mce_record(bank, mce);
	vcpu->mce.status = mce->mcg_status;
	return sk_state_queue_exception(vcpu, X86_TRAP_MC);
}

/* ---- one register ----------------------------------------------------------------------------- */

static int own_get(struct sk_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	u64 *place = mtrr_find(vcpu, index);

	if (!place)
		place = mce_find(vcpu, index);
	if (place) {
		*value = *place;
		return 0;
	}
	switch (index) {
	case MSR_MTRRcap:
		*value = MTRR_CAP_VALUE;
		return 0;
	case MSR_IA32_MCG_CAP:
		*value = vcpu->mce.cap;
		return 0;
	case MSR_IA32_MISC_ENABLE:
		*value = vcpu->misc_enable;
		return 0;
	case MSR_IA32_UCODE_REV:
		*value = vcpu->ucode_rev;
		return 0;
	case MSR_K7_HWCR:
		*value = vcpu->hwcr;
		return 0;
	case MSR_AMD64_DE_CFG:
		*value = vcpu->de_cfg;
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		*value = vcpu->vm->wall_clock;
		return 0;
	case MSR_KVM_STEAL_TIME:
	case MSR_KVM_POLL_CONTROL:
		return sk_pv_get(vcpu, index, value, host);
	case MSR_IA32_POWER_CTL:
		*value = vcpu->power_ctl;
		return 0;
	case MSR_IA32_XSS:
		*value = 0;
		return host ? 0 : -EINVAL;
	case MSR_PLATFORM_INFO:
		*value = vcpu->platform_info;
		return !host && READ_ONCE(vcpu->vm->hide_platform_info) ? -EINVAL : 0;
	}
	*value = 0;
	return is_ignored(index) ? 0 : SK_MSR_NOT_OURS;
}

static int own_set_misc(struct sk_vcpu *vcpu, u32 index, u64 value, bool host)
{
	switch (index) {
	case MSR_IA32_MISC_ENABLE:
		sk_policy_misc_enable(vcpu, value);
		vcpu->policy = -1;
		vcpu->misc_enable = value;
		return 0;
	case MSR_IA32_UCODE_REV: /* a guest writes 0 before it reads */
		if (host)
			vcpu->ucode_rev = value;
		return 0;
	case MSR_K7_HWCR:
		value &= ~HWCR_IGNORED;
		if (value & ~(HWCR_MC_WRITE | HWCR_TSC_FREQ))
			return -EINVAL;
		vcpu->hwcr = value;
		return 0;
	case MSR_AMD64_DE_CFG:
		vcpu->de_cfg = value & DE_CFG_LFENCE;
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		sk_vm_set_wall_clock(vcpu, value);
		return 0;
	case MSR_KVM_STEAL_TIME:
	case MSR_KVM_POLL_CONTROL:
		return sk_pv_set(vcpu, index, value, host);
	case MSR_IA32_POWER_CTL:
		vcpu->power_ctl = value;
		return 0;
	case MSR_PLATFORM_INFO: /* CPUID does not fault */
		if (!host || value & MSR_PLATFORM_INFO_CPUID_FAULT)
			return -EINVAL;
		vcpu->platform_info = value;
		return 0;
	case MSR_IA32_XSS: /* no XSAVES */
		return host && !value ? 0 : -EINVAL;
	case MSR_MTRRcap:
		return -EINVAL;
	case MSR_IA32_MCG_CAP:
		return host && value == vcpu->mce.cap ? 0 : -EINVAL;
	}
	return is_ignored(index) ? 0 : SK_MSR_NOT_OURS;
}

static int own_set(struct sk_vcpu *vcpu, u32 index, u64 value, bool host)
{
	u64 *place = mtrr_find(vcpu, index);

	if (place && !mtrr_is_valid(index, value))
		return -EINVAL;
	if (!place) {
		place = mce_find(vcpu, index);
		if (place && !mce_is_valid(vcpu, index, value, host))
			return -EINVAL;
	}
	if (!place)
		return own_set_misc(vcpu, index, value, host);
	*place = value;
	return 0;
}

int sk_msr_guest_read(struct sk_vcpu *vcpu, u32 index, u64 *value)
{
	int r = own_get(vcpu, index, value, false);

	if (r)
		pr_debug("domain %u: rdmsr %#x is refused\n", vcpu->vm->domain, index);
	return r;
}

int sk_msr_guest_write(struct sk_vcpu *vcpu, u32 index, u64 value)
{
	int r = own_set(vcpu, index, value, false);

	if (r)
		pr_debug("domain %u: wrmsr %#x = %#llx is refused\n", vcpu->vm->domain, index, value);
	return r;
}

void sk_msr_init(struct sk_vcpu *vcpu)
{
	vcpu->mce.cap = SK_MCE_BANKS;
	vcpu->poll_control = 1;
	vcpu->misc_enable = MISC_ENABLE_INIT;
	vcpu->ucode_rev = boot_cpu_data.x86_vendor == X86_VENDOR_INTEL ? 0x100000000ull : 0x01000065;
	vcpu->hwcr = boot_cpu_data.x86_vendor == X86_VENDOR_INTEL ? 0 : HWCR_TSC_FREQ;
}

/* ---- KVM_GET_MSRS, KVM_SET_MSRS --------------------------------------------------------------- */

/* Socle's registers go in runs of one hypercall each; how many of this run were done. */
static int socle_run(struct sk_vcpu *vcpu, struct kvm_msr_entry *entries, int count, bool set)
{
	struct socle_msr *msrs = vcpu->buffer;
	int i, done;

	BUILD_BUG_ON(SK_MAX_MSRS * sizeof(*msrs) > PAGE_SIZE);
	for (i = 0; i < count; i++) {
		msrs[i].index = entries[i].index;
		msrs[i].reserved = 0;
		msrs[i].value = entries[i].data;
		if (entries[i].index == MSR_TSC_AUX && !is_intel())
			msrs[i].value = (u32)msrs[i].value; /* AMD's processors ignore the rest */
	}
	if (set)
		return sk_state_set(vcpu, SOCLE_STATE_MSRS, count * sizeof(*msrs));
	done = sk_state_get(vcpu, SOCLE_STATE_MSRS, count * sizeof(*msrs));
	for (i = 0; i < done && i < count; i++)
		entries[i].data = msrs[i].value;
	return done;
}

static int own_access(struct sk_vcpu *vcpu, struct kvm_msr_entry *entry, bool set)
{
	if (sk_policy_pv_absent(vcpu, entry->index))
		return -EINVAL;
	return set ? own_set(vcpu, entry->index, entry->data, true) :
		     own_get(vcpu, entry->index, &entry->data, true);
}

/* Stops at the first that fails; the number done. */
static int access_all(struct sk_vcpu *vcpu, struct kvm_msr_entry *entries, int count, bool set)
{
	int i = 0, run, done;
	u64 unused;

	while (i < count) {
		int r = own_access(vcpu, &entries[i], set);

		if (r < 0)
			break;
		if (r == 0) {
			i++;
			continue;
		}
		for (run = 1; i + run < count; run++)
			if (sk_policy_pv_absent(vcpu, entries[i + run].index) ||
			    own_get(vcpu, entries[i + run].index, &unused, true) != SK_MSR_NOT_OURS)
				break;
		done = socle_run(vcpu, &entries[i], run, set);
		if (done > 0)
			i += min(done, run);
		if (done != run)
			break;
	}
	if (i < count)
		pr_debug("domain %u: MSR %#x is refused to userspace\n", vcpu->vm->domain,
			 entries[i].index);
	return i;
}

static struct kvm_msr_entry *copy_entries(struct kvm_msrs __user *user, u32 *count)
{
	if (get_user(*count, &user->nmsrs))
		return ERR_PTR(-EFAULT);
	if (*count >= SK_MAX_MSRS)
		return ERR_PTR(-E2BIG);
	return vmemdup_user(user->entries, *count * sizeof(struct kvm_msr_entry));
}

long sk_msr_get(struct sk_vcpu *vcpu, struct kvm_msrs __user *user)
{
	struct kvm_msr_entry *entries;
	u32 count;
	long r;

	entries = copy_entries(user, &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	r = access_all(vcpu, entries, count, false);
	if (copy_to_user(user->entries, entries, count * sizeof(*entries)))
		r = -EFAULT;
	kvfree(entries);
	return r;
}

long sk_msr_set(struct sk_vcpu *vcpu, struct kvm_msrs __user *user)
{
	struct kvm_msr_entry *entries;
	u32 count;
	long r;

	entries = copy_entries(user, &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	r = access_all(vcpu, entries, count, true);
	kvfree(entries);
	return r;
}

/* ---- lists ------------------------------------------------------------------------------------ */

static long give_list(struct kvm_msr_list __user *user, const u32 *list, u32 count)
{
	u32 room;

	if (get_user(room, &user->nmsrs) || put_user(count, &user->nmsrs))
		return -EFAULT;
	if (room < count)
		return -E2BIG;
	return copy_to_user(user->indices, list, count * sizeof(*list)) ? -EFAULT : 0;
}

long sk_msr_index_list(struct kvm_msr_list __user *user)
{
	return give_list(user, saved_msrs, ARRAY_SIZE(saved_msrs));
}

/* DE_CFG, the last, is AMD's. */
long sk_msr_feature_list(struct kvm_msr_list __user *user)
{
	u32 count = ARRAY_SIZE(feature_msrs);

	if (boot_cpu_data.x86_vendor == X86_VENDOR_INTEL)
		count--;
	return give_list(user, feature_msrs, count);
}

static int feature_get(u32 index, u64 *value)
{
	switch (index) {
	case MSR_IA32_UCODE_REV:
		if (rdmsrl_safe(index, value))
			*value = 0;
		return 0;
	case MSR_AMD64_DE_CFG:
		if (boot_cpu_data.x86_vendor == X86_VENDOR_INTEL)
			return -EINVAL;
		if (rdmsrl_safe(index, value))
			*value = 0;
		*value &= DE_CFG_LFENCE;
		return 0;
	default:
		return -EINVAL;
	}
}

long sk_msr_get_features(struct kvm_msrs __user *user)
{
	struct kvm_msr_entry *entries;
	u32 count, i;
	long r;

	entries = copy_entries(user, &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (i = 0; i < count; i++) {
		u64 value;

		if (feature_get(entries[i].index, &value))
			break;
		entries[i].data = value;
	}
	r = i;
	if (copy_to_user(user->entries, entries, count * sizeof(*entries)))
		r = -EFAULT;
	kvfree(entries);
	return r;
}
