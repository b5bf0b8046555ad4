// SPDX-License-Identifier: GPL-2.0
/* The guest's memory by linear addresses, for what is rare: KVM_TRANSLATE, and instructions that dom0 looks at. The vCPU
 * is stopped, and its mutex is held.
 */
#include "socle_kvm.h"

#include <asm/processor-flags.h>
#include <asm/pgtable_types.h>

#define ENTRY_ADDRESS GENMASK_ULL(51, 12)

struct walk {
	struct sk_vcpu *vcpu;
	u64 gva;
	bool write; /* still allowed */
};

/* One step: the entry that `index` selects of the table at gpa */
static int read_entry(struct walk *w, u64 table, u32 index, u32 bytes, u64 *entry)
{
	*entry = 0;
	if (sk_memory_access(w->vcpu, table + index * bytes, entry, bytes, false))
		return -EFAULT;
	if (!(*entry & _PAGE_PRESENT))
		return -ENOENT;
	return 0;
}

/* Intel SDM, volume 3, 4.3: two levels of 32-bit entries. With PSE, bits 20:13 of a 4 MiB page's entry are its
 * address's bits 39:32.
 */
static int walk_32(struct walk *w, const struct socle_sregs *s, u64 *gpa)
{
	u64 entry;
	int r = read_entry(w, s->cr3 & 0xfffff000, w->gva >> 22 & 0x3ff, 4, &entry);

	if (r)
		return r;
	w->write &= !!(entry & _PAGE_RW);
	if (entry & _PAGE_PSE && s->cr4 & X86_CR4_PSE) {
		*gpa = (entry & 0xffc00000) | (entry & 0x1fe000) << 19 | (w->gva & 0x3fffff);
		return 0;
	}
	r = read_entry(w, entry & 0xfffff000, w->gva >> 12 & 0x3ff, 4, &entry);
	if (r)
		return r;
	w->write &= !!(entry & _PAGE_RW);
	*gpa = (entry & 0xfffff000) | (w->gva & 0xfff);
	return 0;
}

/* PAE and long mode: nine bits a level; PAE's first has two, and no rights. */
static int walk_64(struct walk *w, const struct socle_sregs *s, u64 *gpa)
{
	bool pae = !(s->efer & EFER_LMA);
	u64 table = pae ? s->cr3 & 0xffffffe0 : s->cr3 & ENTRY_ADDRESS;
	int level, r;
	u64 entry;

	for (level = pae ? 2 : s->cr4 & X86_CR4_LA57 ? 4 : 3; level >= 0; level--) {
		u32 shift = 12 + 9 * level;
		u64 inside = BIT_ULL(shift) - 1;

		r = read_entry(w, table, w->gva >> shift & (pae && level == 2 ? 3 : 0x1ff), 8, &entry);
		if (r)
			return r;
		if (!pae || level != 2)
			w->write &= !!(entry & _PAGE_RW);
		table = entry & ENTRY_ADDRESS;
		if (!level || (entry & _PAGE_PSE && (level == 1 || (level == 2 && !pae)))) {
			*gpa = (table & ~inside) | (w->gva & inside);
			return 0;
		}
	}
	return -ENOENT;
}

/* Present bits alone decide, and for a write also the right to it where CR0.WP says so. */
int sk_guest_translate(struct sk_vcpu *vcpu, u64 gva, bool write, u64 *gpa)
{
	struct walk w = { .vcpu = vcpu, .gva = gva, .write = true };
	struct socle_sregs s;
	int r = sk_state_get(vcpu, SOCLE_STATE_SREGS, sizeof(s));

	if (r < 0)
		return r;
	memcpy(&s, vcpu->buffer, sizeof(s));
	if (!(s.cr0 & X86_CR0_PG)) {
		*gpa = gva;
		return 0;
	}
	if (s.efer & EFER_LMA && (s64)(gva << 16) >> 16 != gva)
		return -EINVAL;
	r = s.cr4 & X86_CR4_PAE ? walk_64(&w, &s, gpa) : walk_32(&w, &s, gpa);
	return !r && write && !w.write && s.cr0 & X86_CR0_WP ? -EPERM : r;
}

/* Byte by byte, as they may lie in two pages. A write is one of a page that can be written whole: nothing has changed
 * where it fails.
 */
int sk_guest_access(struct sk_vcpu *vcpu, u64 gva, u8 *data, u32 bytes, bool write)
{
	u64 gpa[SK_GUEST_ACCESS_MAX];
	u32 i;
	int r;

	if (bytes > SK_GUEST_ACCESS_MAX)
		return -EINVAL;
	for (i = 0; i < bytes; i++) {
		r = sk_guest_translate(vcpu, gva + i, write, &gpa[i]);
		if (r)
			return r;
	}
	for (i = 0; i < bytes; i++) {
		r = sk_memory_access(vcpu, gpa[i], &data[i], 1, write);
		if (r)
			return r;
	}
	return 0;
}

long sk_guest_ioctl_translate(struct sk_vcpu *vcpu, struct kvm_translation __user *user)
{
	struct kvm_translation tr;
	u64 gpa;

	if (copy_from_user(&tr, user, sizeof(tr)))
		return -EFAULT;
	tr.valid = !sk_guest_translate(vcpu, tr.linear_address, false, &gpa);
	tr.physical_address = tr.valid ? gpa : ~0ull;
	tr.writeable = 1; /* KVM says no more of these */
	tr.usermode = 0;
	return copy_to_user(user, &tr, sizeof(tr)) ? -EFAULT : 0;
}
