// SPDX-License-Identifier: GPL-2.0
/* Memory slots, faults and the dirty log by bitmap. A guest's memory is its process's ordinary memory: a page is looked
 * up when the guest touches it, given to Socle to map, and not pinned; the MMU notifier takes it back.
 *
 * vm->mmu_lock protects the slots against readers and orders mappings with invalidations. A fault reads the
 * slot and the notifier's sequence, drops the lock to find the page (this may sleep), and maps it under the
 * lock only if neither has changed. Writers of slots hold vm->slots_lock as well.
 */
#include "socle_kvm.h"

#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/vmalloc.h>

#define PAGES_2M (PMD_SIZE >> PAGE_SHIFT)
#define PAGES_1G (PUD_SIZE >> PAGE_SHIFT)
#define MAX_PAGES ((1UL << 31) - 1)

/* ---- what Socle has mapped -------------------------------------------------------------------- */

/* UNMAP or PROTECT of at most SOCLE_MAP_MAX_PAGES. Where Socle has no memory to split a large leaf, the whole
 * leaf goes: the guest then faults it in again.
 */
static void revoke_piece(struct sk_vm *vm, u64 call, u64 gfn, u64 pages)
{
	u64 end = gfn + pages;
	u64 align = PAGES_2M;
	long r;

	while ((r = hc3(call, vm->domain, gfn, end - gfn)) != 0) {
		if (r == -EAGAIN) {
			cpu_relax();
			continue;
		}
		if (r != -ENOMEM || align > PAGES_1G)
			break;
		call = SOCLE_HC_UNMAP;
		gfn = round_down(gfn, align);
		end = round_up(end, align);
		align *= PAGES_1G / PAGES_2M;
	}
	WARN_ONCE(r, "socle: domain %u: cannot revoke gfn %llx (error %ld)\n", vm->domain, gfn, r);
}

static void revoke(struct sk_vm *vm, u64 call, u64 gfn, u64 pages)
{
	while (pages) {
		u64 piece = min_t(u64, pages, SOCLE_MAP_MAX_PAGES);

		revoke_piece(vm, call, gfn, piece);
		gfn += piece;
		pages -= piece;
	}
}

/* ---- slots: lookup and the sorted array ------------------------------------------------------- */

/* The index of the first slot that ends after gfn */
static u32 slot_index(const struct sk_vm *vm, u64 gfn)
{
	u32 low = 0, high = vm->slot_count;

	while (low < high) {
		u32 middle = (low + high) / 2;
		const struct sk_slot *slot = vm->slots[middle];

		if (slot->gfn + slot->pages > gfn)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static struct sk_slot *slot_find(const struct sk_vm *vm, u64 gfn)
{
	u32 i = slot_index(vm, gfn);

	return i < vm->slot_count && vm->slots[i]->gfn <= gfn ? vm->slots[i] : NULL;
}

static bool slot_overlaps(const struct sk_vm *vm, u64 gfn, u64 pages, const struct sk_slot *except)
{
	u32 i;

	for (i = slot_index(vm, gfn); i < vm->slot_count && vm->slots[i]->gfn < gfn + pages; i++)
		if (vm->slots[i] != except)
			return true;
	return false;
}

static void slot_publish(struct sk_vm *vm, struct sk_slot *slot)
{
	u32 i;

	spin_lock(&vm->mmu_lock);
	i = slot_index(vm, slot->gfn);
	memmove(&vm->slots[i + 1], &vm->slots[i], (vm->slot_count - i) * sizeof(vm->slots[0]));
	vm->slots[i] = slot;
	vm->slot_count++;
	vm->slot_by_id[slot->id] = slot;
	vm->slots_version++;
	spin_unlock(&vm->mmu_lock);
	/* markers that said "no memory here" */
	revoke(vm, SOCLE_HC_UNMAP, slot->gfn, slot->pages);
}

static void slot_free(struct sk_slot *slot)
{
	kvfree(slot->dirty);
	kvfree(slot->young);
	kfree(slot);
}

/* The notifier goes on to see the slot until nothing of it is mapped any more. The last writes are in its bitmap. */
static void slot_withdraw(struct sk_vm *vm, struct sk_slot *slot)
{
	u32 i;

	spin_lock(&vm->mmu_lock);
	slot->dying = true;
	vm->slots_version++;
	spin_unlock(&vm->mmu_lock);
	revoke(vm, SOCLE_HC_UNMAP, slot->gfn, slot->pages);
	if (slot->dirty)
		sk_memory_take_log(vm);
	spin_lock(&vm->mmu_lock);
	i = slot_index(vm, slot->gfn);
	vm->slot_count--;
	memmove(&vm->slots[i], &vm->slots[i + 1], (vm->slot_count - i) * sizeof(vm->slots[0]));
	vm->slot_by_id[slot->id] = NULL;
	vm->slots_version++;
	spin_unlock(&vm->mmu_lock);
}

/* ---- KVM_SET_USER_MEMORY_REGION --------------------------------------------------------------- */

static unsigned long *bitmap_new(u64 pages)
{
	return kvcalloc(BITS_TO_LONGS(pages), sizeof(long), GFP_KERNEL_ACCOUNT);
}

/* All pages count as dirty until they are cleared: KVM_DIRTY_LOG_INITIALLY_SET. */
static bool initially_set(const struct sk_vm *vm)
{
	return vm->manual_protect & KVM_DIRTY_LOG_INITIALLY_SET && !vm->dirty_ring_bytes;
}

static unsigned long *dirty_bitmap_new(const struct sk_vm *vm, u64 pages)
{
	unsigned long *bitmap = bitmap_new(pages);

	if (bitmap && initially_set(vm))
		bitmap_set(bitmap, 0, pages);
	return bitmap;
}

static struct sk_slot *slot_new(struct sk_vm *vm, const struct kvm_userspace_memory_region *region)
{
	struct sk_slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL_ACCOUNT);

	if (!slot)
		return NULL;
	slot->id = region->slot;
	slot->gfn = region->guest_phys_addr >> PAGE_SHIFT;
	slot->pages = region->memory_size >> PAGE_SHIFT;
	slot->hva = region->userspace_addr;
	slot->flags = region->flags;
	slot->young = bitmap_new(slot->pages);
	if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES && !vm->dirty_ring_bytes)
		slot->dirty = dirty_bitmap_new(vm, slot->pages);
	if (slot->young && (slot->dirty || !(slot->flags & KVM_MEM_LOG_DIRTY_PAGES) ||
			    vm->dirty_ring_bytes))
		return slot;
	slot_free(slot);
	return NULL;
}

static int region_check(const struct kvm_userspace_memory_region *r)
{
	if (r->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return -EINVAL;
	if ((r->memory_size | r->guest_phys_addr | r->userspace_addr) & ~PAGE_MASK)
		return -EINVAL;
	if (!access_ok((void __user *)(unsigned long)r->userspace_addr, r->memory_size))
		return -EINVAL;
	if (r->slot >= SK_MEM_SLOTS) /* address space ids are in the upper half: only 0 here */
		return -EINVAL;
	if (r->guest_phys_addr + r->memory_size < r->guest_phys_addr)
		return -EINVAL;
	if (r->memory_size >> PAGE_SHIFT > MAX_PAGES)
		return -EINVAL;
	return 0;
}

static int slot_create(struct sk_vm *vm, const struct kvm_userspace_memory_region *region,
		       struct sk_slot *old)
{
	struct sk_slot *slot;

	if (slot_overlaps(vm, region->guest_phys_addr >> PAGE_SHIFT,
			  region->memory_size >> PAGE_SHIFT, old))
		return -EEXIST;
	if (region->guest_phys_addr + region->memory_size > 1ULL << boot_cpu_data.x86_phys_bits)
		return -EINVAL;
	slot = slot_new(vm, region);
	if (!slot)
		return -ENOMEM;
	if (old) {
		slot_withdraw(vm, old);
		if (old->dirty && slot->dirty)
			swap(old->dirty, slot->dirty); /* the log moves along */
		slot_free(old);
	}
	slot_publish(vm, slot);
	return 0;
}

static int slot_set_logging(struct sk_vm *vm, struct sk_slot *slot, u32 flags)
{
	bool on = flags & KVM_MEM_LOG_DIRTY_PAGES;
	unsigned long *bitmap = NULL;

	if (on && !vm->dirty_ring_bytes) {
		bitmap = dirty_bitmap_new(vm, slot->pages);
		if (!bitmap)
			return -ENOMEM;
	}
	spin_lock(&vm->mmu_lock);
	swap(slot->dirty, bitmap);
	slot->flags = flags;
	vm->slots_version++;
	spin_unlock(&vm->mmu_lock);
	kvfree(bitmap);
	/* on: catch the first write to each page; off: let large leaves come back */
	if (!on)
		revoke(vm, SOCLE_HC_UNMAP, slot->gfn, slot->pages);
	else if (!initially_set(vm))
		revoke(vm, SOCLE_HC_PROTECT, slot->gfn, slot->pages);
	return 0;
}

static int slot_change(struct sk_vm *vm, struct sk_slot *slot,
		       const struct kvm_userspace_memory_region *region)
{
	if (region->userspace_addr != slot->hva || region->memory_size >> PAGE_SHIFT != slot->pages ||
	    (region->flags ^ slot->flags) & KVM_MEM_READONLY)
		return -EINVAL;
	if (region->guest_phys_addr >> PAGE_SHIFT != slot->gfn)
		return slot_create(vm, region, slot);
	if (region->flags != slot->flags)
		return slot_set_logging(vm, slot, region->flags);
	return 0;
}

static void slot_delete(struct sk_vm *vm, struct sk_slot *slot)
{
	slot_withdraw(vm, slot);
	slot_free(slot);
}

int sk_memory_set_region(struct sk_vm *vm, const struct kvm_userspace_memory_region *region)
{
	struct sk_slot *old;
	int r = region_check(region);

	if (r)
		return r;
	mutex_lock(&vm->slots_lock);
	old = vm->slot_by_id[region->slot];
	if (region->memory_size && old)
		r = slot_change(vm, old, region);
	else if (region->memory_size)
		r = slot_create(vm, region, NULL);
	else if (old)
		slot_delete(vm, old);
	else
		r = -EINVAL;
	mutex_unlock(&vm->slots_lock);
	return r;
}

/* ---- KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG ----------------------------------------------------- */

/* Clean pages between dirty ones: so many are passed over in less time than another flush takes */
#define CLEAN_PAGES 2048

/* Under mmu_lock from Socle to the bitmaps, so that nobody misses what another has just taken. The slot may have
 * changed since the write: then nobody asks for the page, or it is marked in vain.
 */
void sk_memory_take_log(struct sk_vm *vm)
{
	long n, i;

	spin_lock(&vm->mmu_lock);
	do {
		n = hc2(SOCLE_HC_DIRTY_LOG, vm->domain, virt_to_phys(vm->log));
		for (i = 0; i < n; i++) {
			struct sk_slot *slot = slot_find(vm, vm->log[i]);

			if (slot && slot->dirty)
				set_bit(vm->log[i] - slot->gfn, slot->dirty);
		}
	} while (n == SOCLE_DIRTY_MAX);
	spin_unlock(&vm->mmu_lock);
}

/* The next write to each page of the slot whose bit is set will be seen; words from that bit on */
static void protect_bits(struct sk_vm *vm, const struct sk_slot *slot, u64 page,
			 const unsigned long *bits, u64 words)
{
	u64 start = 0, end = 0, i;

	for (i = 0; i < words; i++, page += BITS_PER_LONG) {
		if (!bits[i])
			continue;
		if (end && page - end > CLEAN_PAGES) {
			revoke(vm, SOCLE_HC_PROTECT, slot->gfn + start, end - start);
			end = 0;
		}
		if (!end)
			start = page + __ffs(bits[i]);
		end = page + __fls(bits[i]) + 1;
	}
	if (end)
		revoke(vm, SOCLE_HC_PROTECT, slot->gfn + start, end - start);
}

/* Moves the slot's bits to copy. A write between the exchange and PROTECT is not lost: its page is in copy,
 * and the caller reads the page after that.
 */
static void dirty_log_take(struct sk_vm *vm, struct sk_slot *slot, unsigned long *copy)
{
	u64 words = BITS_TO_LONGS(slot->pages);
	u64 i;

	for (i = 0; i < words; i++)
		copy[i] = READ_ONCE(slot->dirty[i]) ? xchg(&slot->dirty[i], 0) : 0;
	protect_bits(vm, slot, 0, copy, words);
}

static int dirty_log_give(struct sk_vm *vm, struct sk_slot *slot, void __user *user)
{
	u64 bytes = BITS_TO_LONGS(slot->pages) * sizeof(long);
	unsigned long *copy;
	int r;

	sk_memory_take_log(vm);
	if (vm->manual_protect) /* the bits stay until they are cleared */
		return copy_to_user(user, slot->dirty, bytes) ? -EFAULT : 0;
	copy = bitmap_new(slot->pages);
	if (!copy)
		return -ENOMEM;
	dirty_log_take(vm, slot, copy);
	r = copy_to_user(user, copy, bytes) ? -EFAULT : 0;
	kvfree(copy);
	return r;
}

int sk_memory_dirty_log(struct sk_vm *vm, const struct kvm_dirty_log __user *user)
{
	struct kvm_dirty_log log;
	struct sk_slot *slot;
	int r = -ENOENT;

	if (copy_from_user(&log, user, sizeof(log)))
		return -EFAULT;
	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (log.slot >= SK_MEM_SLOTS)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	slot = vm->slot_by_id[log.slot];
	if (slot && slot->dirty)
		r = dirty_log_give(vm, slot, log.dirty_bitmap);
	mutex_unlock(&vm->slots_lock);
	return r;
}

/* Of the bits in copy, those that were set are cleared, and stay in it. */
static void dirty_log_clear(struct sk_vm *vm, struct sk_slot *slot, u64 page, unsigned long *copy,
			    u64 words)
{
	atomic_long_t *dirty = (atomic_long_t *)(slot->dirty + page / BITS_PER_LONG);
	u64 i;

	for (i = 0; i < words; i++)
		if (copy[i])
			copy[i] &= atomic_long_fetch_andnot(copy[i], &dirty[i]);
	protect_bits(vm, slot, page, copy, words);
}

static int clear_in_slot(struct sk_vm *vm, struct sk_slot *slot, const struct kvm_clear_dirty_log *log)
{
	u64 words = BITS_TO_LONGS((u64)log->num_pages);
	u64 rest = slot->pages - log->first_page;
	unsigned long *copy;
	int r = 0;

	if (log->first_page > slot->pages || log->num_pages > rest ||
	    (log->num_pages < rest && log->num_pages % BITS_PER_LONG))
		return -EINVAL;
	if (!words)
		return 0;
	copy = bitmap_new(log->num_pages);
	if (!copy)
		return -ENOMEM;
	sk_memory_take_log(vm);
	if (copy_from_user(copy, log->dirty_bitmap, words * sizeof(long)))
		r = -EFAULT;
	else
		dirty_log_clear(vm, slot, log->first_page, copy, words);
	kvfree(copy);
	return r;
}

int sk_memory_clear_log(struct sk_vm *vm, const struct kvm_clear_dirty_log __user *user)
{
	struct kvm_clear_dirty_log log;
	struct sk_slot *slot;
	int r = -ENOENT;

	if (copy_from_user(&log, user, sizeof(log)))
		return -EFAULT;
	if (vm->dirty_ring_bytes)
		return -ENXIO;
	if (log.slot >= SK_MEM_SLOTS || log.first_page % BITS_PER_LONG)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	slot = vm->slot_by_id[log.slot];
	if (slot && slot->dirty)
		r = clear_in_slot(vm, slot, &log);
	mutex_unlock(&vm->slots_lock);
	return r;
}

int sk_memory_manual_protect(struct sk_vm *vm, const struct kvm_enable_cap *cap)
{
	u64 allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;

	if (cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
		allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
	if (cap->flags || cap->args[0] & ~allowed)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	vm->manual_protect = cap->args[0];
	mutex_unlock(&vm->slots_lock);
	return 0;
}

/* ---- the dirty rings' part -------------------------------------------------------------------- */

/* What Socle has logged of this vCPU's writes, at most SOCLE_DIRTY_MAX; it is stopped. */
void sk_memory_take_vcpu_log(struct sk_vcpu *vcpu)
{
	struct sk_vm *vm = vcpu->vm;
	long n, i;

	spin_lock(&vm->mmu_lock);
	n = hc3(SOCLE_HC_DIRTY_LOG, vm->domain, virt_to_phys(vm->log), vcpu->handle);
	for (i = 0; i < n; i++) {
		struct sk_slot *slot = slot_find(vm, vm->log[i]);

		if (slot && slot->flags & KVM_MEM_LOG_DIRTY_PAGES)
			sk_dirty_ring_push(vcpu, slot->id, vm->log[i] - slot->gfn);
	}
	spin_unlock(&vm->mmu_lock);
}

/* With slots_lock. Both numbers are userspace's. */
void sk_memory_protect(struct sk_vm *vm, u32 id, u64 offset, u64 pages)
{
	struct sk_slot *slot = id < SK_MEM_SLOTS ? vm->slot_by_id[id] : NULL;

	if (slot && offset < slot->pages && pages <= slot->pages - offset)
		revoke(vm, SOCLE_HC_PROTECT, slot->gfn + offset, pages);
}

/* ---- faults ----------------------------------------------------------------------------------- */

struct fault {
	struct sk_vcpu *vcpu;
	u64 gfn;
	bool write;
	bool code; /* a fetch from what is mapped, but not as code */
	/* a copy of the slot, taken under mmu_lock */
	u64 slot_gfn, slot_pages;
	unsigned long slot_hva;
	u32 slot_flags;
	u64 version;
	unsigned long notifier_seq;
	/* the page */
	unsigned long hva;
	struct page *page;
	bool writable;
};

/* The size, in pages, of the process's own leaf at hva: what Socle may map in one piece. Only under mmu_lock and
 * with no invalidation of hva in progress, so that the leaf can't change. Interrupts are off so that the
 * tables can't be freed under the walk.
 */
static u64 host_leaf_pages(struct mm_struct *mm, unsigned long hva)
{
	unsigned long flags;
	u64 pages = 1;
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	local_irq_save(flags);
	pgd = READ_ONCE(*pgd_offset(mm, hva));
	if (pgd_none(pgd))
		goto out;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (p4d_none(p4d) || !p4d_present(p4d))
		goto out;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (pud_none(pud) || !pud_present(pud))
		goto out;
	if (pud_large(pud)) {
		pages = PAGES_1G;
		goto out;
	}
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	if (!pmd_none(pmd) && pmd_present(pmd) && pmd_large(pmd))
		pages = PAGES_2M;
out:
	local_irq_restore(flags);
	return pages;
}

/* Whether the extent of that many pages around the fault lies in the slot and is aligned alike on both sides */
static bool extent_fits(const struct fault *f, u64 pfn, u64 pages)
{
	u64 start = round_down(f->gfn, pages);

	return ((pfn ^ f->gfn) & (pages - 1)) == 0 && start >= f->slot_gfn &&
	       start + pages <= f->slot_gfn + f->slot_pages;
}

static u64 extent_pages(struct sk_vm *vm, const struct fault *f, u64 pfn)
{
	u64 pages;

	if (f->slot_flags & KVM_MEM_LOG_DIRTY_PAGES || f->code)
		return 1;
	pages = host_leaf_pages(vm->mm, f->hva);
	if (pages == PAGES_1G && !extent_fits(f, pfn, pages))
		pages = PAGES_2M;
	if (pages == PAGES_2M && !extent_fits(f, pfn, pages))
		pages = 1;
	return pages;
}

/* Under mmu_lock: may what was found at hva have changed since? */
static bool fault_is_stale(const struct sk_vm *vm, const struct fault *f)
{
	if (vm->slots_version != f->version || vm->mm_gone)
		return true;
	if (vm->notifier_count && f->hva >= vm->notifier_start && f->hva < vm->notifier_end)
		return true;
	return vm->notifier_seq != f->notifier_seq;
}

static u64 map_flags(struct fault *f)
{
	if (f->slot_flags & KVM_MEM_READONLY)
		return SOCLE_MAP_EXEC | SOCLE_MAP_ROM;
	if (f->slot_flags & KVM_MEM_LOG_DIRTY_PAGES && !f->write)
		return SOCLE_MAP_EXEC;
	return SOCLE_MAP_EXEC | (f->writable ? SOCLE_MAP_WRITE : 0);
}

/* Under mmu_lock, by the vCPU's own thread */
static void mark_dirty(struct sk_vcpu *vcpu, u64 gfn)
{
	struct sk_slot *slot = slot_find(vcpu->vm, gfn);

	if (!slot || !(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return;
	if (slot->dirty)
		set_bit(gfn - slot->gfn, slot->dirty);
	else
		sk_dirty_ring_push(vcpu, slot->id, gfn - slot->gfn);
}

static long fault_map(struct sk_vm *vm, struct fault *f)
{
	u64 pfn = page_to_pfn(f->page);
	u64 flags = map_flags(f);
	struct sk_slot *slot;
	u64 pages, mask;
	long r = -EAGAIN;

	spin_lock(&vm->mmu_lock);
	if (fault_is_stale(vm, f))
		goto out;
	pages = extent_pages(vm, f, pfn);
	mask = ~(pages - 1);
	if (sk_small_exec && pages > 1)
		flags &= ~(u64)SOCLE_MAP_EXEC; /* until there is a fetch */
	r = hc_map(vm->domain, f->gfn & mask, pfn & mask, pages, flags);
	if (r == -ENOMEM && pages > 1) {
		mask = ~0ULL;
		r = hc_map(vm->domain, f->gfn, pfn, 1, flags);
	}
	if (r)
		goto out;
	slot = slot_find(vm, f->gfn); /* as it was at the start of the fault */
	__set_bit((f->gfn & mask) - slot->gfn, slot->young);
	/* Not before it is mapped: GET_DIRTY_LOG may take the bit at any time, and protects the page then. */
	if (f->slot_flags & KVM_MEM_LOG_DIRTY_PAGES && flags & SOCLE_MAP_WRITE)
		mark_dirty(f->vcpu, f->gfn);
out:
	spin_unlock(&vm->mmu_lock);
	return r;
}

/* Finds the page as a processor would: a write breaks copy on write; a read takes a writable page where there
 * is one already, so that a later write does not fault again.
 */
static int fault_get_page(struct fault *f)
{
	unsigned int flags = f->write ? FOLL_WRITE : 0;
	int r;

	f->writable = true;
	if (!f->write && !(f->slot_flags & KVM_MEM_READONLY) &&
	    get_user_pages_fast_only(f->hva, 1, FOLL_WRITE, &f->page) == 1)
		return 0;
	f->writable = f->write;
	r = get_user_pages_fast(f->hva, 1, flags, &f->page);
	if (r == 1)
		return 0;
	return r ? r : -EFAULT;
}

static void fault_put_page(struct fault *f, bool mapped)
{
	if (mapped && f->writable && !PageReserved(f->page))
		SetPageDirty(f->page);
	if (mapped)
		mark_page_accessed(f->page);
	put_page(f->page);
}

static int fault_in_slot(struct sk_vm *vm, struct fault *f, u64 gpa)
{
	long r;

	if (f->slot_flags & KVM_MEM_READONLY)
		f->write = false; /* Socle makes the write an MMIO exit */
	f->hva = f->slot_hva + ((f->gfn - f->slot_gfn) << PAGE_SHIFT);
	r = fault_get_page(f);
	if (r) {
		if (!fatal_signal_pending(current))
			pr_warn_ratelimited("%s: no ordinary memory behind guest address %#llx (error %ld)\n",
					    current->comm, gpa, r);
		return r == -EINTR || r == -ERESTARTSYS ? -EINTR : -EFAULT;
	}
	r = fault_map(vm, f);
	fault_put_page(f, r == 0);
	if (r && r != -EAGAIN)
		pr_warn_ratelimited("%s: Socle did not map guest address %#llx (error %ld)\n",
				    current->comm, gpa, r);
	return r == -EINVAL ? -EFAULT : r;
}

int sk_memory_fault(struct sk_vcpu *vcpu, u64 gpa, bool write, bool code)
{
	struct fault f = { .vcpu = vcpu, .gfn = gpa >> PAGE_SHIFT, .write = write, .code = code };
	struct sk_vm *vm = vcpu->vm;
	struct sk_slot *slot;
	long r = 0;

	spin_lock(&vm->mmu_lock);
	slot = slot_find(vm, f.gfn);
	if (!slot) {
		r = hc_map(vm->domain, f.gfn, 0, 1, SOCLE_MAP_MMIO);
		spin_unlock(&vm->mmu_lock);
		return r;
	}
	if (slot->dying) {
		spin_unlock(&vm->mmu_lock);
		return -EAGAIN;
	}
	f.slot_gfn = slot->gfn;
	f.slot_pages = slot->pages;
	f.slot_hva = slot->hva;
	f.slot_flags = slot->flags;
	f.version = vm->slots_version;
	f.notifier_seq = vm->notifier_seq;
	spin_unlock(&vm->mmu_lock);
	return fault_in_slot(vm, &f, gpa);
}

/* ---- a guest's memory for socle.ko's own use ---------------------------------------------------- */

/* Where it is in the process that runs the guest; 0: nowhere, or not for a write */
static unsigned long user_address(struct sk_vm *vm, u64 gpa, bool write)
{
	unsigned long hva = 0;
	struct sk_slot *slot;

	spin_lock(&vm->mmu_lock);
	slot = slot_find(vm, gpa >> PAGE_SHIFT);
	if (slot && !slot->dying && !(write && slot->flags & KVM_MEM_READONLY))
		hva = slot->hva + (gpa - (slot->gfn << PAGE_SHIFT));
	spin_unlock(&vm->mmu_lock);
	return hva;
}

/* After the write: whoever took the log before it sees the page in the next one. */
static void log_own_write(struct sk_vcpu *vcpu, u64 gfn)
{
	spin_lock(&vcpu->vm->mmu_lock);
	mark_dirty(vcpu, gfn);
	spin_unlock(&vcpu->vm->mmu_lock);
}

int sk_memory_access(struct sk_vcpu *vcpu, u64 gpa, void *data, u32 bytes, bool write)
{
	while (bytes) {
		u32 n = min_t(u32, bytes, PAGE_SIZE - offset_in_page(gpa));
		void __user *at = (void __user *)user_address(vcpu->vm, gpa, write);

		if (!at || (write ? copy_to_user(at, data, n) : copy_from_user(data, at, n)))
			return -EFAULT;
		if (write)
			log_own_write(vcpu, gpa >> PAGE_SHIFT);
		gpa += n;
		data += n;
		bytes -= n;
	}
	return 0;
}

int sk_memory_exchange(struct sk_vcpu *vcpu, u64 gpa, u64 old, u64 new, u32 bytes)
{
	void __user *at = (void __user *)user_address(vcpu->vm, gpa, true);
	u32 old32 = old;
	int r;

	if (!at || !access_ok(at, bytes))
		return -EFAULT;
	if (bytes == 8)
		r = __try_cmpxchg_user((u64 __user *)at, &old, new, out8);
	else
		r = __try_cmpxchg_user((u32 __user *)at, &old32, (u32)new, out4);
	if (!r)
		log_own_write(vcpu, gpa >> PAGE_SHIFT);
	return r > 0 ? -EAGAIN : r;
}

/* ---- MMU notifier ----------------------------------------------------------------------------- */

/* The slot's pages, counted from its first, at [start, end) of the process's memory; false: none are there. */
static bool pages_at(const struct sk_slot *slot, unsigned long start, unsigned long end, u64 *first,
		     u64 *pages)
{
	unsigned long from = max(start, slot->hva);
	unsigned long to = min(end, slot->hva + (unsigned long)(slot->pages << PAGE_SHIFT));

	if (from >= to)
		return false;
	*first = (from - slot->hva) >> PAGE_SHIFT;
	*pages = ((PAGE_ALIGN(to) - slot->hva) >> PAGE_SHIFT) - *first;
	return true;
}

static void revoke_range(struct sk_vm *vm, unsigned long start, unsigned long end)
{
	u64 first, pages;
	u32 i;

	for (i = 0; i < vm->slot_count; i++) {
		struct sk_slot *slot = vm->slots[i];

		if (!pages_at(slot, start, end, &first, &pages))
			continue;
		bitmap_clear(slot->young, first, pages);
		revoke(vm, SOCLE_HC_UNMAP, slot->gfn + first, pages);
	}
}

static int invalidate_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct sk_vm *vm = container_of(mn, struct sk_vm, notifier);

	spin_lock(&vm->mmu_lock);
	if (vm->notifier_count++ == 0) {
		vm->notifier_start = range->start;
		vm->notifier_end = range->end;
	} else {
		vm->notifier_start = min(vm->notifier_start, range->start);
		vm->notifier_end = max(vm->notifier_end, range->end);
	}
	revoke_range(vm, range->start, range->end);
	spin_unlock(&vm->mmu_lock);
	return 0;
}

static void invalidate_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct sk_vm *vm = container_of(mn, struct sk_vm, notifier);

	spin_lock(&vm->mmu_lock);
	vm->notifier_seq++;
	vm->notifier_count--;
	spin_unlock(&vm->mmu_lock);
}

/* Whether the guest has used the page since Linux last asked. Socle does not tell what a guest accesses: the page is
 * taken away, and a fault says that the guest has come for it again.
 */
static int age_range(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct sk_vm *vm = container_of(mn, struct sk_vm, notifier);
	u64 first, pages;
	int young = 0;
	u32 i;

	spin_lock(&vm->mmu_lock);
	for (i = 0; i < vm->slot_count; i++) {
		struct sk_slot *slot = vm->slots[i];

		if (!pages_at(slot, start, end, &first, &pages) ||
		    find_next_bit(slot->young, first + pages, first) >= first + pages)
			continue;
		young = 1;
		bitmap_clear(slot->young, first, pages);
		revoke(vm, SOCLE_HC_UNMAP, slot->gfn + first, pages);
	}
	spin_unlock(&vm->mmu_lock);
	return young;
}

static int test_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long address)
{
	struct sk_vm *vm = container_of(mn, struct sk_vm, notifier);
	u64 first, pages;
	int young = 0;
	u32 i;

	spin_lock(&vm->mmu_lock);
	for (i = 0; i < vm->slot_count && !young; i++)
		young = pages_at(vm->slots[i], address, address + 1, &first, &pages) &&
			test_bit(first, vm->slots[i]->young);
	spin_unlock(&vm->mmu_lock);
	return young;
}

/* The address space goes: after this nothing of it may be mapped. */
static void notifier_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct sk_vm *vm = container_of(mn, struct sk_vm, notifier);
	u32 i;

	spin_lock(&vm->mmu_lock);
	vm->mm_gone = true;
	for (i = 0; i < vm->slot_count; i++)
		revoke(vm, SOCLE_HC_UNMAP, vm->slots[i]->gfn, vm->slots[i]->pages);
	spin_unlock(&vm->mmu_lock);
}

static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range_start = invalidate_start,
	.invalidate_range_end = invalidate_end,
	.clear_flush_young = age_range,
	.clear_young = age_range,
	.test_young = test_young,
	.release = notifier_release,
};

int sk_memory_init(struct sk_vm *vm)
{
	int r;

	mutex_init(&vm->slots_lock);
	spin_lock_init(&vm->mmu_lock);
	vm->mm = current->mm;
	vm->notifier.ops = &notifier_ops;
	vm->log = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vm->log)
		return -ENOMEM;
	r = mmu_notifier_register(&vm->notifier, vm->mm);
	if (r)
		free_page((unsigned long)vm->log);
	return r;
}

void sk_memory_destroy(struct sk_vm *vm)
{
	u32 i;

	mmu_notifier_unregister(&vm->notifier, vm->mm);
	for (i = 0; i < vm->slot_count; i++)
		slot_free(vm->slots[i]);
	vm->slot_count = 0;
	free_page((unsigned long)vm->log);
}
