// SPDX-License-Identifier: GPL-2.0
/* CPUID: what guests may be given, and what a vCPU has been given. The first comes from dom0's own CPUID, which Socle
 * has filtered, through a list of the features that need nothing from Socle or that it provides.
 */
#include "socle_kvm.h"

#include <linux/kvm_para.h>
#include <asm/processor.h>

#define MAX_BASIC    0x0000000du
#define MAX_EXTENDED 0x80000021u

struct list {
	struct kvm_cpuid_entry2 *entry;
	u32 count;
	u32 room;
	bool overflow;
};

static struct kvm_cpuid_entry2 *add(struct list *list, u32 leaf, u32 index, u32 flags)
{
	static struct kvm_cpuid_entry2 nowhere;
	struct kvm_cpuid_entry2 *e;

	if (list->count == list->room) {
		list->overflow = true;
		return &nowhere;
	}
	e = &list->entry[list->count++];
	memset(e, 0, sizeof(*e));
	e->function = leaf;
	e->index = index;
	e->flags = flags;
	cpuid_count(leaf, index, &e->eax, &e->ebx, &e->ecx, &e->edx);
	return e;
}

static struct kvm_cpuid_entry2 *add_leaf(struct list *list, u32 leaf)
{
	return add(list, leaf, 0, 0);
}

static struct kvm_cpuid_entry2 *add_subleaf(struct list *list, u32 leaf, u32 index)
{
	return add(list, leaf, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
}

static void clear(struct kvm_cpuid_entry2 *e)
{
	e->eax = e->ebx = e->ecx = e->edx = 0;
}

/* ---- features --------------------------------------------------------------------------------- */

#define B(n) BIT((n))

/* Leaf 1. x2APIC, the TSC deadline timer and the hypervisor bit are Socle's to give, machine check this module's.
 * Not given: MONITOR, VMX, SMX, power management, debug store, and what follows the guest's CR4 (OSXSAVE: Socle
 * sets it).
 */
#define LEAF1_ECX                                                                                  \
	(B(0) | B(1) | B(9) | B(12) | B(13) | B(17) | B(19) | B(20) | B(22) | B(23) | B(25) |      \
	 B(26) | B(28) | B(29) | B(30))
#define LEAF1_ECX_SOCLE (B(21) | B(24) | B(31))
#define LEAF1_EDX_OURS	(B(7) | B(14))
#define LEAF1_EDX                                                                                  \
	(B(0) | B(1) | B(2) | B(3) | B(4) | B(5) | B(6) | B(7) | B(8) | B(9) | B(11) | B(12) |     \
	 B(13) | B(14) | B(15) | B(16) | B(17) | B(19) | B(23) | B(24) | B(25) | B(26) | B(27))

/* Leaf 7: without TSX, SGX, MPX, PT, CET, AMX, and speculation controls (MSRs that Socle does
 * not keep per vCPU). TSC_ADJUST is Socle's.
 */
#define AVX512_EBX (B(16) | B(17) | B(21) | B(28) | B(30) | B(31))
#define AVX512_ECX (B(1) | B(6) | B(11) | B(12) | B(14))
#define LEAF7_EBX                                                                                  \
	(B(0) | B(3) | B(5) | B(6) | B(7) | B(8) | B(9) | B(10) | B(13) | B(18) | B(19) | B(20) |  \
	 B(23) | B(24) | B(29) | AVX512_EBX)
#define LEAF7_EBX_SOCLE B(1)
#define LEAF7_ECX	(B(2) | B(3) | B(8) | B(9) | B(10) | B(16) | B(22) | B(27) | B(28) | AVX512_ECX)
#define LEAF7_EDX	(B(2) | B(3) | B(4) | B(8) | B(10) | B(14) | B(23))
#define LEAF7_1_EAX	(B(4) | B(5) | B(10) | B(11) | B(12))

#define EXT1_ECX (B(0) | B(1) | B(4) | B(5) | B(6) | B(7) | B(8) | B(11) | B(16) | B(21) | B(22))
#define EXT1_EDX                                                                                   \
	((LEAF1_EDX & 0x0183f3ff) | B(11) | B(20) | B(22) | B(25) | B(26) | B(27) | B(29) |        \
	 B(30) | B(31))
#define EXT8_EBX (B(0) | B(2) | B(9))

#define KVM_FEATURES                                                                               \
	(B(KVM_FEATURE_CLOCKSOURCE) | B(KVM_FEATURE_NOP_IO_DELAY) |                                \
	 B(KVM_FEATURE_CLOCKSOURCE2) | B(KVM_FEATURE_STEAL_TIME) | B(KVM_FEATURE_PV_UNHALT) |      \
	 B(KVM_FEATURE_PV_SEND_IPI) | B(KVM_FEATURE_POLL_CONTROL) |                                \
	 B(KVM_FEATURE_PV_SCHED_YIELD) | B(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT))

static void add_features(struct list *list)
{
	struct kvm_cpuid_entry2 *e = add_leaf(list, 1);

	e->ebx &= 0x00ffff00; /* the APIC id is the vCPU's */
	e->ecx = (e->ecx & LEAF1_ECX) | LEAF1_ECX_SOCLE;
	e->edx = (e->edx & LEAF1_EDX) | LEAF1_EDX_OURS;
}

static void add_structured_features(struct list *list)
{
	bool avx512 = (sk_state_supported_xcr0() & XFEATURE_MASK_AVX512) == XFEATURE_MASK_AVX512;
	struct kvm_cpuid_entry2 *e = add_subleaf(list, 7, 0);
	u32 subleaves = e->eax;

	e->eax = min(subleaves, 1u);
	e->ebx = (e->ebx & LEAF7_EBX) | LEAF7_EBX_SOCLE;
	e->ecx &= LEAF7_ECX;
	e->edx &= LEAF7_EDX;
	if (!avx512) {
		e->ebx &= ~AVX512_EBX;
		e->ecx &= ~AVX512_ECX;
		e->edx &= ~(B(2) | B(3) | B(8) | B(23));
	}
	if (!(sk_state_supported_xcr0() & XFEATURE_MASK_PKRU))
		e->ecx &= ~B(3);
	if (!subleaves)
		return;
	e = add_subleaf(list, 7, 1);
	e->eax &= avx512 ? LEAF7_1_EAX : LEAF7_1_EAX & ~B(5);
	e->ebx = e->ecx = e->edx = 0;
}

/* Leaves with one subleaf per cache, up to the first that names none (EAX 4:0 zero) */
static void add_caches(struct list *list, u32 leaf)
{
	u32 i;

	for (i = 0; i < 16; i++)
		if (!(add_subleaf(list, leaf, i)->eax & 0x1f))
			break;
}

/* ---- XSAVE ------------------------------------------------------------------------------------ */

static void add_xsave(struct list *list)
{
	u64 xcr0 = sk_state_supported_xcr0();
	struct kvm_cpuid_entry2 *e, *first = add_subleaf(list, 0xd, 0);
	u32 size = 576; /* the legacy area and the header */
	u32 i;

	e = add_subleaf(list, 0xd, 1);
	e->eax &= B(0) | B(1) | B(2); /* XSAVEOPT, XSAVEC, XGETBV with ECX 1; no XSAVES */
	e->ebx = e->ecx = e->edx = 0;
	for (i = 2; i < 63; i++) {
		if (!(xcr0 & BIT_ULL(i)))
			continue;
		e = add_subleaf(list, 0xd, i);
		e->ecx &= B(1);
		e->edx = 0;
		size = max(size, e->ebx + e->eax);
	}
	first->eax = xcr0;
	first->edx = xcr0 >> 32;
	first->ebx = first->ecx = size;
}

/* ---- leaf by leaf ----------------------------------------------------------------------------- */

static void add_basic(struct list *list)
{
	struct kvm_cpuid_entry2 *e = add_leaf(list, 0);
	u32 max = min(e->eax, MAX_BASIC);

	e->eax = max;
	add_features(list);
	add_leaf(list, 2);
	if (boot_cpu_data.x86_vendor == X86_VENDOR_INTEL)
		add_caches(list, 4);
	else
		clear(add_subleaf(list, 4, 0));
	clear(add_leaf(list, 5));
	e = add_leaf(list, 6);
	clear(e);
	e->eax = B(2); /* the APIC timer always runs */
	add_structured_features(list);
	clear(add_leaf(list, 0xa));
	clear(add_subleaf(list, 0xb, 0));
	if (max >= 0xd && boot_cpu_has(X86_FEATURE_XSAVE))
		add_xsave(list);
}

static void add_paravirtual(struct list *list)
{
	struct kvm_cpuid_entry2 *e = add_leaf(list, KVM_CPUID_SIGNATURE);

	e->eax = KVM_CPUID_FEATURES;
	memcpy(&e->ebx, "KVMK", 4);
	memcpy(&e->ecx, "VMKV", 4);
	memcpy(&e->edx, "M\0\0", 4);
	e = add_leaf(list, KVM_CPUID_FEATURES);
	clear(e);
	e->eax = KVM_FEATURES;
}

static void add_extended(struct list *list)
{
	struct kvm_cpuid_entry2 *e = add_leaf(list, 0x80000000);
	u32 max = min(e->eax, MAX_EXTENDED);

	e->eax = max;
	e = add_leaf(list, 0x80000001);
	e->ebx = 0;
	e->ecx &= EXT1_ECX;
	e->edx &= EXT1_EDX;
	if (boot_cpu_data.x86_vendor != X86_VENDOR_INTEL)
		e->edx |= LEAF1_EDX_OURS; /* AMD repeats leaf 1's */
	if (max >= 0x80000006) {
		add_leaf(list, 0x80000005);
		add_leaf(list, 0x80000006);
	}
	if (max >= 0x80000007) {
		e = add_leaf(list, 0x80000007);
		e->eax = e->ebx = e->ecx = 0;
		e->edx &= B(8); /* the TSC runs at one rate */
	}
	if (max >= 0x80000008) {
		e = add_leaf(list, 0x80000008);
		e->eax &= 0xffff;
		e->ebx &= EXT8_EBX;
		e->ecx = e->edx = 0;
	}
	if (max >= 0x8000001d && boot_cpu_data.x86_vendor != X86_VENDOR_INTEL)
		add_caches(list, 0x8000001d);
	if (max >= 0x80000021) {
		e = add_leaf(list, 0x80000021);
		e->eax &= B(0) | B(2) | B(6);
		e->ebx = e->ecx = e->edx = 0;
	}
}

static int list_all(struct list *list, u32 room)
{
	*list = (struct list){ .room = room };
	list->entry = kcalloc(room, sizeof(*list->entry), GFP_KERNEL);
	if (!list->entry)
		return -ENOMEM;
	add_basic(list);
	add_paravirtual(list);
	add_extended(list);
	return 0;
}

/* As KVM: too small a table is -E2BIG, with no hint of the size wanted. */
long sk_cpuid_supported(struct kvm_cpuid2 __user *user)
{
	struct list list;
	u32 room;
	long r;

	if (get_user(room, &user->nent))
		return -EFAULT;
	if (!room)
		return -E2BIG;
	r = list_all(&list, min_t(u32, room, SK_MAX_CPUID));
	if (r)
		return r;
	if (list.overflow)
		r = -E2BIG;
	else if (put_user(list.count, &user->nent) ||
		 copy_to_user(user->entries, list.entry, list.count * sizeof(*list.entry)))
		r = -EFAULT;
	kfree(list.entry);
	return r;
}

/* ---- a vCPU's CPUID --------------------------------------------------------------------------- */

/* The bytes of an XSAVE area for these components */
static u32 xsave_bytes(u64 components, bool compacted)
{
	u32 size = 576, i;

	for (i = 2; i < 63; i++) {
		u32 bytes, offset, flags, unused;

		if (!(components & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &bytes, &offset, &flags, &unused);
		if (compacted)
			size = (flags & B(1) ? ALIGN(size, 64) : size) + bytes;
		else
			size = max(size, offset + bytes);
	}
	return size;
}

struct live_state {
	u64 cr4;
	u64 apic_base;
	u64 xcr0;
};

static int live_state_get(struct sk_vcpu *vcpu, struct live_state *live)
{
	const struct socle_sregs *sregs = vcpu->buffer;
	int r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(*sregs));

	if (r < 0)
		return r;
	live->cr4 = sregs->cr4;
	live->apic_base = sregs->apic_base;
	r = sk_state_get(vcpu, SOCLE_STATE_XCR0, sizeof(u64));
	live->xcr0 = r < 0 ? 1 : *(u64 *)vcpu->buffer;
	return 0;
}

static void set_bit_if(u32 *reg, u32 bit, bool on)
{
	*reg = on ? *reg | bit : *reg & ~bit;
}

/* What a guest's CPUID shows of its control registers; Socle gives the guest the same. */
static void mirror(struct kvm_cpuid_entry2 *e, const struct live_state *live)
{
	switch (e->function) {
	case 1:
		set_bit_if(&e->ecx, B(27), live->cr4 & X86_CR4_OSXSAVE);
		if (!(live->apic_base & MSR_IA32_APICBASE_ENABLE))
			e->edx &= ~B(9);
		break;
	case 7:
		if (e->index == 0)
			set_bit_if(&e->ecx, B(4), live->cr4 & X86_CR4_PKE);
		break;
	case 0xd:
		if (e->index == 0)
			e->ebx = xsave_bytes(live->xcr0, false);
		else if (e->index == 1 && e->eax & (B(1) | B(3)))
			e->ebx = xsave_bytes(live->xcr0, true);
		break;
	}
}

static int send_to_socle(struct sk_vcpu *vcpu, const struct kvm_cpuid_entry2 *entries, u32 count)
{
	struct socle_cpuid *s = vcpu->buffer;
	u32 i;

	BUILD_BUG_ON(SK_MAX_CPUID > SOCLE_CPUID_MAX);
	BUILD_BUG_ON(SOCLE_CPUID_MAX * sizeof(*s) > PAGE_SIZE);
	for (i = 0; i < count; i++)
		s[i] = (struct socle_cpuid){
			.leaf = entries[i].function,
			.subleaf = entries[i].index,
			.by_subleaf = entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = entries[i].eax,
			.ebx = entries[i].ebx,
			.ecx = entries[i].ecx,
			.edx = entries[i].edx,
		};
	return min(sk_state_set(vcpu, SOCLE_STATE_CPUID, count * sizeof(*s)), 0);
}

/* Before KVM_SET_CPUID2 a vCPU may be put into any state that the supported features allow. */
int sk_cpuid_init(struct sk_vcpu *vcpu)
{
	struct list list;
	int r = list_all(&list, SK_MAX_CPUID);

	if (r)
		return r;
	r = send_to_socle(vcpu, list.entry, list.count);
	kfree(list.entry);
	return r;
}

/* What runs has looked at its CPUID: the same may be set again, also as KVM_GET_CPUID2 gave it, and nothing else. */
static bool differs(const struct sk_vcpu *vcpu, const struct kvm_cpuid_entry2 *entries, u32 count)
{
	const struct live_state same = {};
	u32 i;

	if (count != vcpu->cpuid_count)
		return true;
	for (i = 0; i < count; i++) {
		struct kvm_cpuid_entry2 a = entries[i], b = vcpu->cpuid[i];

		mirror(&a, &same);
		mirror(&b, &same);
		if (memcmp(&a, &b, offsetof(struct kvm_cpuid_entry2, padding)))
			return true;
	}
	return false;
}

/* Takes the entries, which are kmalloc()'s. */
static long set_entries(struct sk_vcpu *vcpu, struct kvm_cpuid_entry2 *entries, u32 count)
{
	long r;

	if (vcpu->has_run) {
		r = differs(vcpu, entries, count) ? -EINVAL : 0;
		goto out;
	}
	r = send_to_socle(vcpu, entries, count);
	if (!r) {
		swap(vcpu->cpuid, entries);
		vcpu->cpuid_count = count;
		vcpu->policy = -1;
	}
out:
	kfree(entries);
	return r;
}

long sk_cpuid_set(struct sk_vcpu *vcpu, struct kvm_cpuid2 __user *user)
{
	struct kvm_cpuid_entry2 *entries;
	u32 count;

	if (get_user(count, &user->nent))
		return -EFAULT;
	if (count > SK_MAX_CPUID)
		return -E2BIG;
	entries = memdup_user(user->entries, count * sizeof(*entries));
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	return set_entries(vcpu, entries, count);
}

/* KVM_SET_CPUID: without subleaves */
long sk_cpuid_set_old(struct sk_vcpu *vcpu, struct kvm_cpuid __user *user)
{
	struct kvm_cpuid_entry2 *entries;
	struct kvm_cpuid_entry *old;
	u32 count, i;

	if (get_user(count, &user->nent))
		return -EFAULT;
	if (count > SK_MAX_CPUID)
		return -E2BIG;
	old = memdup_user(user->entries, count * sizeof(*old));
	if (IS_ERR(old))
		return PTR_ERR(old);
	entries = kcalloc(count, sizeof(*entries), GFP_KERNEL);
	for (i = 0; entries && i < count; i++)
		entries[i] = (struct kvm_cpuid_entry2){
			.function = old[i].function,
			.eax = old[i].eax,
			.ebx = old[i].ebx,
			.ecx = old[i].ecx,
			.edx = old[i].edx,
		};
	kfree(old);
	return entries ? set_entries(vcpu, entries, count) : -ENOMEM;
}

int sk_cpuid_refresh(struct sk_vcpu *vcpu)
{
	return send_to_socle(vcpu, vcpu->cpuid, vcpu->cpuid_count);
}

long sk_cpuid_get(struct sk_vcpu *vcpu, struct kvm_cpuid2 __user *user)
{
	u32 room, i, count = vcpu->cpuid_count;
	struct kvm_cpuid_entry2 *copy;
	struct live_state live;
	long r;

	if (get_user(room, &user->nent) || put_user(count, &user->nent))
		return -EFAULT;
	if (room < count)
		return -E2BIG;
	r = live_state_get(vcpu, &live);
	if (r)
		return r;
	copy = kmemdup(vcpu->cpuid, count * sizeof(*copy), GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		mirror(&copy[i], &live);
	if (copy_to_user(user->entries, copy, count * sizeof(*copy)))
		r = -EFAULT;
	kfree(copy);
	return r;
}
