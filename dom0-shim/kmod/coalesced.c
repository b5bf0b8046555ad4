// SPDX-License-Identifier: GPL-2.0
/* Coalesced MMIO and port writes: within registered zones a write goes into a ring that userspace drains at its
 * next exit. The ring is shared with userspace: only its "first" is read, once, and checked.
 */
#include "socle_kvm.h"

struct ring_zone {
	struct list_head list;
	u64 start;
	u64 end;
	bool pio;
};

static bool zone_holds(const struct ring_zone *zone, bool pio, u64 addr, u64 bytes)
{
	return zone->pio == pio && addr >= zone->start && addr + bytes >= addr &&
	       addr + bytes <= zone->end;
}

static bool ring_put(struct sk_vm *vm, bool pio, u64 addr, u32 len, const void *data)
{
	struct kvm_coalesced_mmio_ring *ring = page_address(vm->ring_page);
	u32 first = READ_ONCE(ring->first);
	u32 next = (vm->ring_last + 1) % KVM_COALESCED_MMIO_MAX;
	struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[vm->ring_last];

	if (first >= KVM_COALESCED_MMIO_MAX || next == first)
		return false; /* full: userspace is to drain it */
	entry->phys_addr = addr;
	entry->len = len;
	memcpy(entry->data, data, len);
	entry->pio = pio;
	smp_wmb(); /* the entry before the index that shows it */
	WRITE_ONCE(ring->last, next);
	vm->ring_last = next;
	return true;
}

bool sk_coalesced_write(struct sk_vm *vm, bool pio, u64 addr, u32 len, const void *data)
{
	struct ring_zone *zone;
	bool done = false;

	if (list_empty_careful(&vm->zones) || len > 8)
		return false;
	spin_lock(&vm->ring_lock);
	list_for_each_entry(zone, &vm->zones, list) {
		if (!zone_holds(zone, pio, addr, len))
			continue;
		done = ring_put(vm, pio, addr, len, data);
		break;
	}
	spin_unlock(&vm->ring_lock);
	return done;
}

int sk_coalesced_register(struct sk_vm *vm, const struct kvm_coalesced_mmio_zone *args)
{
	struct ring_zone *zone;

	if (args->pio > 1)
		return -EINVAL;
	zone = kzalloc(sizeof(*zone), GFP_KERNEL_ACCOUNT);
	if (!zone)
		return -ENOMEM;
	zone->start = args->addr;
	zone->end = args->addr + args->size;
	zone->pio = args->pio;
	spin_lock(&vm->ring_lock);
	list_add_tail(&zone->list, &vm->zones);
	spin_unlock(&vm->ring_lock);
	return 0;
}

int sk_coalesced_unregister(struct sk_vm *vm, const struct kvm_coalesced_mmio_zone *args)
{
	struct ring_zone *zone, *next;
	LIST_HEAD(gone);

	if (args->pio > 1)
		return -EINVAL;
	spin_lock(&vm->ring_lock);
	list_for_each_entry_safe(zone, next, &vm->zones, list)
		if (zone_holds(zone, args->pio, args->addr, args->size))
			list_move(&zone->list, &gone);
	spin_unlock(&vm->ring_lock);
	list_for_each_entry_safe(zone, next, &gone, list)
		kfree(zone);
	return 0;
}

int sk_coalesced_init(struct sk_vm *vm)
{
	spin_lock_init(&vm->ring_lock);
	INIT_LIST_HEAD(&vm->zones);
	vm->ring_page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return vm->ring_page ? 0 : -ENOMEM;
}

void sk_coalesced_destroy(struct sk_vm *vm)
{
	struct ring_zone *zone, *next;

	list_for_each_entry_safe(zone, next, &vm->zones, list)
		kfree(zone);
	if (vm->ring_page)
		__free_page(vm->ring_page);
}
