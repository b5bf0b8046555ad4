// SPDX-License-Identifier: GPL-2.0
/* Steal time: how long a vCPU that wanted to run could not. It waits in two places: its thread for one of dom0's
 * processors, and the vCPU itself, in Socle's queue, for one of the machine's. In Socle a vCPU runs on while its
 * thread waits, unless it has exited; only then its thread's wait counts.
 *
 * A vCPU that Socle takes off its processor is not marked as preempted: dom0 learns of it too late. So a guest's TLB
 * flushes cannot count on the mark either, and KVM_FEATURE_PV_TLB_FLUSH is not offered.
 */
#include "socle_kvm.h"

#include <linux/math64.h>
#include <asm/kvm_para.h>

int sk_pv_get(struct sk_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	*value = index == MSR_KVM_STEAL_TIME ? vcpu->steal.msr : vcpu->poll_control;
	return host || sk_policy_pv_offers(vcpu, index) ? 0 : -EINVAL;
}

/* Nobody polls for a halted vCPU in Socle: POLL_CONTROL is only kept. */
int sk_pv_set(struct sk_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if (!host && !sk_policy_pv_offers(vcpu, index))
		return -EINVAL;
	if (index == MSR_KVM_POLL_CONTROL) {
		if (value & ~1ull)
			return -EINVAL;
		vcpu->poll_control = value;
		return 0;
	}
	if (value & KVM_STEAL_RESERVED_MASK)
		return -EINVAL;
	vcpu->steal.msr = value;
	vcpu->steal.run_delay = ~0ull; /* the first update only looks */
	vcpu->steal.thread = NULL;
	return 0;
}

static u64 ticks_to_ns(u64 ticks)
{
	return mul_u64_u32_div(ticks, NSEC_PER_MSEC, sk_tsc_khz);
}

/* The version is odd while the rest is written; other vCPUs may read meanwhile. */
static void publish(struct sk_vcpu *vcpu, u64 stolen)
{
	u64 gpa = vcpu->steal.msr & KVM_STEAL_VALID_BITS;
	u64 version_at = gpa + offsetof(struct kvm_steal_time, version);
	struct kvm_steal_time time;

	if (sk_memory_access(vcpu, gpa, &time, sizeof(time), false))
		return;
	time.version += 1 + (time.version & 1);
	if (sk_memory_access(vcpu, version_at, &time.version, sizeof(time.version), true))
		return;
	smp_wmb();
	time.steal += stolen;
	sk_memory_access(vcpu, gpa, &time.steal, sizeof(time.steal), true);
	smp_wmb();
	time.version++;
	sk_memory_access(vcpu, version_at, &time.version, sizeof(time.version), true);
}

void sk_pv_steal_update(struct sk_vcpu *vcpu, bool kept)
{
	u64 run_delay = current->sched_info.run_delay, waited = READ_ONCE(vcpu->page->waited);
	u64 stolen = 0;

	if (current == vcpu->steal.thread)
		stolen = ticks_to_ns(waited - vcpu->steal.waited) +
			 (kept ? 0 : run_delay - vcpu->steal.run_delay);
	vcpu->steal.run_delay = run_delay;
	vcpu->steal.waited = waited;
	vcpu->steal.thread = current;
	if (vcpu->steal.msr & KVM_MSR_ENABLED)
		publish(vcpu, stolen);
}

static void mark(struct sk_vcpu *vcpu, u8 preempted)
{
	u64 gpa = vcpu->steal.msr & KVM_STEAL_VALID_BITS;

	sk_memory_access(vcpu, gpa + offsetof(struct kvm_steal_time, preempted), &preempted,
			 sizeof(preempted), true);
}

void sk_pv_reschedule(struct sk_vcpu *vcpu)
{
	bool stopped = vcpu->exited && vcpu->steal.msr & KVM_MSR_ENABLED;

	if (stopped)
		mark(vcpu, KVM_VCPU_PREEMPTED);
	cond_resched();
	if (stopped)
		mark(vcpu, 0);
}
