// SPDX-License-Identifier: GPL-2.0
/* Dirty rings: each vCPU tells the pages that it writes in a ring of its own, which userspace maps, empties and gives
 * back to be watched again. Userspace may write anything into it at any time: only our own counts say where we are.
 */
#include "socle_kvm.h"

#include <linux/vmalloc.h>

/* Room for what comes between two looks at how full it is: some faults, and what the processor has logged */
#define RESERVED 64
/* Pages that are protected along with those between which they lie */
#define CLEAN_PAGES 64

static u32 reserved(void)
{
	return RESERVED + (sk_pml ? SOCLE_DIRTY_MAX : 0);
}

static u32 entries(const struct sk_vm *vm)
{
	return vm->dirty_ring_bytes / sizeof(struct kvm_dirty_gfn);
}

int sk_dirty_ring_enable(struct sk_vm *vm, u32 bytes)
{
	int r = -EINVAL;

	if (!is_power_of_2(bytes) || bytes < reserved() * sizeof(struct kvm_dirty_gfn) ||
	    bytes < PAGE_SIZE)
		return -EINVAL;
	if (bytes > SK_DIRTY_RING_MAX)
		return -E2BIG;
	mutex_lock(&vm->lock);
	mutex_lock(&vm->slots_lock);
	if (!vm->dirty_ring_bytes && !vm->vcpu_count) {
		vm->dirty_ring_bytes = bytes;
		r = 0;
	}
	mutex_unlock(&vm->slots_lock);
	mutex_unlock(&vm->lock);
	return r;
}

int sk_dirty_ring_new(struct sk_vcpu *vcpu)
{
	u32 bytes = vcpu->vm->dirty_ring_bytes;

	if (!bytes)
		return 0;
	vcpu->dirty_ring.gfns = __vmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return vcpu->dirty_ring.gfns ? 0 : -ENOMEM;
}

bool sk_dirty_ring_has(const struct sk_vm *vm, unsigned long pgoff)
{
	return pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET &&
	       pgoff - KVM_DIRTY_LOG_PAGE_OFFSET < vm->dirty_ring_bytes >> PAGE_SHIFT;
}

struct page *sk_dirty_ring_page(struct sk_vcpu *vcpu, unsigned long pgoff)
{
	unsigned long offset = (pgoff - KVM_DIRTY_LOG_PAGE_OFFSET) << PAGE_SHIFT;

	return vmalloc_to_page((void *)vcpu->dirty_ring.gfns + offset);
}

static u32 used(const struct sk_dirty_ring *ring)
{
	return READ_ONCE(ring->dirty) - READ_ONCE(ring->reset);
}

bool sk_dirty_ring_full(const struct sk_vcpu *vcpu)
{
	const struct sk_vm *vm = vcpu->vm;

	return vm->dirty_ring_bytes && used(&vcpu->dirty_ring) >= entries(vm) - reserved();
}

void sk_dirty_ring_push(struct sk_vcpu *vcpu, u32 slot, u64 offset)
{
	struct sk_dirty_ring *ring = &vcpu->dirty_ring;
	struct kvm_dirty_gfn *entry = &ring->gfns[ring->dirty % entries(vcpu->vm)];

	if (used(ring) >= entries(vcpu->vm)) { /* ioctls wrote to the guest, and nobody has looked at the ring */
		pr_warn_once("a dirty ring is full: a write is not in it\n");
		return;
	}
	WRITE_ONCE(entry->slot, slot);
	WRITE_ONCE(entry->offset, offset);
	WRITE_ONCE(ring->dirty, ring->dirty + 1);
	smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_DIRTY);
}

/* Takes out the next entry that userspace has harvested. */
static bool harvested(struct sk_vm *vm, struct sk_dirty_ring *ring, u32 *slot, u64 *offset)
{
	struct kvm_dirty_gfn *entry = &ring->gfns[ring->reset % entries(vm)];

	if (!used(ring) || !(smp_load_acquire(&entry->flags) & KVM_DIRTY_GFN_F_RESET))
		return false;
	*slot = READ_ONCE(entry->slot);
	*offset = READ_ONCE(entry->offset);
	smp_store_release(&entry->flags, 0);
	smp_store_release(&ring->reset, ring->reset + 1);
	return true;
}

static bool is_near(u64 offset, u64 start, u64 end)
{
	return offset + CLEAN_PAGES >= start && offset <= end + CLEAN_PAGES;
}

/* Neighbours are protected in one piece: each costs a flush. */
static int reset_ring(struct sk_vm *vm, struct sk_dirty_ring *ring)
{
	u32 slot, last_slot = 0, count = 0, limit = entries(vm);
	u64 offset, start = 0, end = 0;

	while (count < limit && harvested(vm, ring, &slot, &offset)) {
		count++;
		if (offset >= 1ULL << 52)
			continue;
		if (end && (slot != last_slot || !is_near(offset, start, end))) {
			sk_memory_protect(vm, last_slot, start, end - start);
			end = 0;
		}
		start = end ? min(start, offset) : offset;
		end = max(end, offset + 1);
		last_slot = slot;
	}
	if (end)
		sk_memory_protect(vm, last_slot, start, end - start);
	return count;
}

int sk_dirty_ring_reset(struct sk_vm *vm)
{
	int count = 0;
	u32 i, vcpus;

	if (!vm->dirty_ring_bytes)
		return -EINVAL;
	mutex_lock(&vm->lock);
	vcpus = vm->vcpu_count; /* they do not go before the VM */
	mutex_unlock(&vm->lock);
	mutex_lock(&vm->slots_lock);
	for (i = 0; i < vcpus; i++)
		count += reset_ring(vm, &vm->vcpus[i]->dirty_ring);
	mutex_unlock(&vm->slots_lock);
	return count;
}
