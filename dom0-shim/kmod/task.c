// SPDX-License-Identifier: GPL-2.0
/* Hardware task switches of 32-bit guests, which Intel's processors leave to others. A switch that meets a page which
 * is being changed begins anew; what is read of the guest's memory is read once. Of no use to today's guests, and not
 * done: 16-bit TSSs (#TS), tasks that begin in virtual-8086 mode, descriptors' accessed bits in memory. References:
 * Intel SDM vol. 3A, 4, 8.2 and 8.3.
 */
#include "socle_kvm.h"

#include <asm/processor-flags.h>

#define EFER_NX_ON  BIT_ULL(11)
#define FLAGS_KNOWN 0x3d7fd5u /* but VM */
#define TYPE_BUSY   2u

enum { DB = 1, DF = 8, TS = 10, NP = 11, SS = 12, PF = 14 };
enum { SP = 4 }; /* of the general registers */

/* In whose delivery #PF, and #TS, #NP, #SS and #GP, are double faults, or triple (#DF) */
#define DOUBLES_WITH_PF (BIT_ULL(DF) | BIT_ULL(PF))
#define DOUBLES		0x7d01u

struct task {
	struct sk_vcpu *vcpu;
	struct socle_regs regs;
	struct socle_sregs now, next; /* the old task's and the new one's */
	struct socle_vcpu_events event; /* on its way in by a task gate */
	struct tss {		      /* from its offset 0x1c */
		u32 cr3, eip, eflags, gpr[8], selector[SOCLE_SEG_TR], trap;
	} tss;
	u32 cr3; /* what linear addresses go through */
	bool user;
	bool switched;
	u8 fault; /* the exception that a step has raised, with this error code; 0: none */
	u32 error;
};

static int fault(struct task *t, u8 vector, u32 error)
{
	t->fault = vector;
	t->error = error;
	return -EFAULT;
}

/* ---- linear addresses ------------------------------------------------------------------------- */

#define PTE_PRESENT   BIT_ULL(0)
#define PTE_WRITE     BIT_ULL(1)
#define PTE_USER      BIT_ULL(2)
#define PTE_ACCESSED  BIT_ULL(5)
#define PTE_DIRTY     BIT_ULL(6)
#define PTE_LARGE     BIT_ULL(7)
#define PTE_NO_EXEC   BIT_ULL(63)
#define PTE_ADDRESS   0x000ffffffffff000ull
#define PTE_TOO_WIDE  0x000f000000000000ull /* guest-physical addresses have 48 bits at most */
#define PAE_RESERVED  0x7ff0000000000000ull
#define LARGE_IGNORED 0x1fe000ull /* reserved in a leaf of 2 MiB */

#define ERROR_PRESENT  1u
#define ERROR_WRITE    2u
#define ERROR_USER     4u
#define ERROR_RESERVED 8u

struct walk {
	u32 gva;
	bool write, pae;
	int level; /* 1: leaves of 4 KiB */
	u64 rights;
	u64 at[4], entry[4];
};

static int page_fault(struct task *t, const struct walk *w, u32 error)
{
	t->now.cr2 = t->next.cr2 = w->gva;
	return fault(t, PF, error | (w->write ? ERROR_WRITE : 0) | (t->user ? ERROR_USER : 0));
}

static u64 reserved_bits(const struct task *t, const struct walk *w, bool leaf)
{
	bool large = leaf && w->level == 2;

	if (!w->pae)
		return large ? BIT_ULL(21) : 0;
	return PTE_TOO_WIDE | PAE_RESERVED | (t->now.efer & EFER_NX_ON ? 0 : PTE_NO_EXEC) |
	       (large ? LARGE_IGNORED : 0);
}

static int walk_down(struct task *t, struct walk *w)
{
	u64 table = t->cr3 & (w->pae ? 0xffffffe0 : 0xfffff000);
	int bits = w->pae ? 9 : 10;

	for (w->level = w->pae ? 3 : 2;; w->level--) {
		u32 index = w->gva >> (PAGE_SHIFT + bits * (w->level - 1)) & ((1u << bits) - 1);
		u64 *entry = &w->entry[w->level];
		bool leaf;

		w->at[w->level] = table + index * (w->pae ? 8 : 4);
		if (sk_memory_access(t->vcpu, w->at[w->level], entry, w->pae ? 8 : 4, false))
			return -EINVAL;
		leaf = w->level == 1 || (w->level == 2 && *entry & PTE_LARGE &&
					 (w->pae || t->now.cr4 & X86_CR4_PSE));
		if (!(*entry & PTE_PRESENT))
			return page_fault(t, w, 0);
		if (*entry & reserved_bits(t, w, leaf))
			return page_fault(t, w, ERROR_PRESENT | ERROR_RESERVED);
		if (w->level < 3) /* the entries of a PAE root have no rights */
			w->rights &= *entry;
		if (leaf)
			return 0;
		table = *entry & PTE_ADDRESS;
	}
}

static bool is_allowed(const struct task *t, const struct walk *w)
{
	bool user_page = w->rights & PTE_USER;

	if (t->user && !user_page)
		return false;
	if (w->write && !(w->rights & PTE_WRITE) && (t->user || t->now.cr0 & X86_CR0_WP))
		return false;
	return t->user || !user_page || !(t->now.cr4 & X86_CR4_SMAP) || t->regs.rflags & X86_EFLAGS_AC;
}

/* Without them an operating system would take the page for unused, or unchanged. */
static int set_accessed(struct task *t, const struct walk *w)
{
	int level, r = 0;

	for (level = 2; !r && level >= w->level; level--) {
		u64 old = w->entry[level], new = old | PTE_ACCESSED;

		if (level == w->level && w->write)
			new |= PTE_DIRTY;
		if (new != old)
			r = sk_memory_exchange(t->vcpu, w->at[level], old, new, w->pae ? 8 : 4);
	}
	return r == -EFAULT ? -EINVAL : r;
}

static u64 leaf_address(const struct walk *w)
{
	u64 entry = w->entry[w->level];

	if (w->level == 1)
		return (entry & PTE_ADDRESS) | (w->gva & 0xfff);
	if (w->pae)
		return (entry & PTE_ADDRESS & ~0x1fffffull) | (w->gva & 0x1fffff);
	return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (w->gva & 0x3fffff);
}

static int translate(struct task *t, u32 gva, bool write, u64 *gpa)
{
	struct walk w = { .gva = gva, .write = write, .rights = PTE_WRITE | PTE_USER };
	int r;

	*gpa = gva;
	if (!(t->now.cr0 & X86_CR0_PG))
		return 0;
	w.pae = t->now.cr4 & X86_CR4_PAE;
	r = walk_down(t, &w);
	if (!r && !is_allowed(t, &w))
		r = page_fault(t, &w, ERROR_PRESENT);
	if (!r)
		r = set_accessed(t, &w);
	if (!r)
		*gpa = leaf_address(&w);
	return r;
}

/* -EFAULT: the guest's fault; -EINVAL: no memory is there; -EAGAIN: begin anew. A write that crosses into a page that
 * can't be had changes nothing.
 */
static int access_linear(struct task *t, u32 gva, void *data, u32 bytes, bool write)
{
	u32 first = min_t(u32, bytes, PAGE_SIZE - gva % PAGE_SIZE);
	u64 gpa, second = 0;
	int r = translate(t, gva, write, &gpa);

	if (!r && first < bytes)
		r = translate(t, gva + first, write, &second);
	if (r)
		return r;
	if (sk_memory_access(t->vcpu, gpa, data, first, write) ||
	    sk_memory_access(t->vcpu, second, data + first, bytes - first, write))
		return -EINVAL;
	return 0;
}

/* ---- the switch ------------------------------------------------------------------------------- */

/* What can be loaded is told by the types that may be; bit 4 is the descriptor's S flag. Conforming code may have any
 * DPL that is not above CPL, and is data to all (table 8-1).
 */
static int load_segment(struct task *t, u32 i, u16 selector)
{
	static const u32 types[] = { 0xccff0000, 0xff000000, 0x00cc0000, 0xccff0000,
				     0xccff0000, 0xccff0000, 0x00000004, 0x00000a00 };
	static const u8 absent[] = { NP, NP, SS, NP, NP, NP, TS, NP };
	const struct socle_segment *ldt = &t->next.seg[SOCLE_SEG_LDTR];
	u32 cpl = t->tss.selector[SOCLE_SEG_CS] & 3, rpl = selector & 3, least = max(cpl, rpl), dpl;
	u32 limit = selector & 4 ? ldt->limit : t->next.gdt_limit;
	u64 base = selector & 4 ? ldt->base : t->next.gdt_base, d = 0;
	bool exact = i == SOCLE_SEG_CS || i == SOCLE_SEG_SS;
	int r = 0;

	if (selector > 3 && (selector | 7u) <= limit)
		r = access_linear(t, base + (selector & ~7u), &d, sizeof(d), false);
	if (r || (selector <= 3 && !exact && i != SOCLE_SEG_TR))
		return r;
	dpl = d >> 45 & 3;
	if (i >= SOCLE_SEG_LDTR || (d >> 40 & 0x1c) == 0x1c)
		dpl = max(dpl, least);
	if (!(types[i] >> (d >> 40 & 0x1f) & 1) || (exact ? dpl != cpl || rpl != cpl : dpl < least))
		return fault(t, TS, selector & ~3u);
	if (!(d & BIT_ULL(47)))
		return fault(t, absent[i], selector & ~3u);
	limit = (d & 0xffff) | (d >> 32 & 0xf0000);
	t->next.seg[i] = (struct socle_segment){
		.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
		.limit = d & BIT_ULL(55) ? limit << 12 | 0xfff : limit,
		.selector = selector,
		.attr = (d >> 40 & 0xff) | (d >> 44 & 0xd00),
	};
	return 0;
}

/* What does not come to be loaded is unusable, but CS and SS tell the privilege level. */
static int load_segments(struct task *t)
{
	u32 *selector = t->tss.selector, *esp = &t->tss.gpr[SP], i;
	const struct socle_segment *ss = &t->next.seg[SOCLE_SEG_SS];
	u16 dpl = (selector[SOCLE_SEG_CS] & 3) << 5;
	int r;

	for (i = 0; i < SOCLE_SEG_TR; i++)
		t->next.seg[i] = (struct socle_segment){ .selector = selector[i], .attr = dpl };
	t->next.seg[SOCLE_SEG_CS].attr |= 0x9b;
	r = load_segment(t, SOCLE_SEG_LDTR, selector[SOCLE_SEG_LDTR]);
	for (i = 1; !r && i <= 6; i++)
		r = load_segment(t, i % 6, selector[i % 6]);
	if (r || !t->event.exception_pending || !t->event.exception_has_error)
		return r;
	*esp = (*esp - 4) & (ss->attr & BIT(10) ? ~0u : 0xffff);
	t->user = (ss->attr >> 5 & 3) == 3;
	r = access_linear(t, ss->base + *esp, &t->event.exception_error, 4, true);
	t->user = false;
	return r;
}

static int save_task(struct task *t, bool back)
{
	struct tss tss = { .eip = t->vcpu->page->task.next_rip, .eflags = t->regs.rflags };
	u32 i;

	if (back)
		tss.eflags &= ~X86_EFLAGS_NT;
	for (i = 0; i < 8; i++)
		tss.gpr[i] = t->regs.gpr[i];
	for (i = 0; i < 6; i++)
		tss.selector[i] = t->now.seg[i].selector;
	return access_linear(t, t->now.seg[SOCLE_SEG_TR].base + 0x20, &tss.eip, 64, true);
}

static void enter_task(struct task *t, bool nested)
{
	u32 i;

	for (i = 0; i < 8; i++)
		t->regs.gpr[i] = t->tss.gpr[i];
	t->regs.rip = t->tss.eip;
	t->regs.rflags = (t->tss.eflags & FLAGS_KNOWN) | X86_EFLAGS_FIXED | (nested ? X86_EFLAGS_NT : 0);
	t->next.cr0 |= X86_CR0_TS;
	t->switched = true;
}

static int set_type(struct task *t, u16 selector, u8 type)
{
	return access_linear(t, t->next.gdt_base + (selector & ~7u) + 5, &type, 1, true);
}

/* A fault in loading the new task's segments is the new task's. TSSs and descriptors are accessed with the processor's
 * rights, whatever the privilege level.
 */
static int switch_task(struct task *t, u16 selector, u8 source)
{
	bool back = source == SOCLE_TASK_IRET;
	bool nested = source == SOCLE_TASK_CALL || source == SOCLE_TASK_GATE;
	struct socle_segment *old = &t->now.seg[SOCLE_SEG_TR], *tr = &t->next.seg[SOCLE_SEG_TR];
	u16 link = old->selector;
	int r, late;

	t->cr3 = t->now.cr3;
	r = old->attr & 8 ? load_segment(t, SOCLE_SEG_TR, selector) : -EINVAL;
	if (!r)
		r = access_linear(t, tr->base + 0x1c, &t->tss, sizeof(t->tss), false);
	if (!r)
		r = save_task(t, back);
	if (!r && nested)
		r = access_linear(t, tr->base, &link, sizeof(link), true);
	if (r)
		return r;
	if (t->now.cr0 & X86_CR0_PG)
		t->cr3 = t->next.cr3 = t->tss.cr3;
	late = load_segments(t);
	if (late && !t->fault)
		return late;
	t->cr3 = t->now.cr3;
	tr->attr |= TYPE_BUSY;
	r = set_type(t, old->selector, nested ? old->attr : old->attr & ~TYPE_BUSY);
	if (!r)
		r = set_type(t, tr->selector, tr->attr);
	if (!r)
		enter_task(t, nested);
	return r ? r : late;
}

/* ---- the vCPU's state ------------------------------------------------------------------------- */

static int get(struct task *t, u32 section, void *to, u32 bytes)
{
	int r = sk_state_get(t->vcpu, section, bytes);

	memcpy(to, t->vcpu->buffer, bytes);
	return r;
}

static int set(struct task *t, u32 section, const void *from, u32 bytes)
{
	memcpy(t->vcpu->buffer, from, bytes);
	return sk_state_set(t->vcpu, section, bytes);
}

static int load_state(struct task *t)
{
	int r = get(t, SOCLE_STATE_REGS, &t->regs, sizeof(t->regs));

	if (r >= 0)
		r = get(t, SOCLE_STATE_SREGS, &t->now, sizeof(t->now));
	if (r >= 0)
		r = get(t, SOCLE_STATE_EVENTS, &t->event, sizeof(t->event));
	t->next = t->now;
	return r;
}

/* The task's first instruction is not executed before the debugger has seen it: DR6's BT tells why. */
static int raise_debug_trap(struct task *t)
{
	struct socle_debug debug;
	int r = get(t, SOCLE_STATE_DEBUG, &debug, sizeof(debug));

	debug.dr6 |= BIT_ULL(15);
	t->fault = DB;
	return r < 0 ? r : set(t, SOCLE_STATE_DEBUG, &debug, sizeof(debug));
}

/* The event on its way in has arrived in the new task, or a fault takes its place. */
static int store_event(struct task *t)
{
	struct socle_vcpu_events e = {
		.exception_pending = t->fault != 0,
		.exception_nr = t->fault,
		.exception_has_error = t->fault != DB && t->fault,
		.exception_error = t->error,
		.shadow = t->switched ? 0 : t->event.shadow,
		.nmi_pending = 2, /* another may come now; and the PIC's interrupt still waits */
		.nmi_masked = t->event.nmi_masked,
		.sipi_vector = t->event.sipi_vector,
	};

	return set(t, SOCLE_STATE_EVENTS, &e, sizeof(e));
}

static int store_state(struct task *t)
{
	const struct socle_sregs *sregs = t->switched ? &t->next : &t->now;
	int r = 0;

	if (t->switched || t->fault == PF)
		r = set(t, SOCLE_STATE_SREGS, sregs, sizeof(*sregs));
	if (r >= 0 && t->switched)
		r = set(t, SOCLE_STATE_REGS, &t->regs, sizeof(t->regs));
	if (r >= 0 && t->switched && !t->fault && t->tss.trap & 1)
		r = raise_debug_trap(t);
	return r < 0 ? r : store_event(t);
}

/* A fault in the delivery of an exception may make #DF (vol. 3A, 6.15), or be the machine's end: 1. */
int sk_task_switch(struct sk_vcpu *vcpu)
{
	struct task t = { .vcpu = vcpu };
	u16 selector = vcpu->page->task.selector;
	u32 doubles;
	int r = load_state(&t);

	if (r < 0)
		return r;
	r = switch_task(&t, selector, vcpu->page->task.source);
	if (r == -EINVAL)
		r = fault(&t, TS, selector & ~3u);
	if (r == -EAGAIN)
		return 0;
	doubles = t.fault == PF ? DOUBLES_WITH_PF : DOUBLES;
	if (t.fault && t.event.exception_pending && doubles >> t.event.exception_nr & 1) {
		if (t.event.exception_nr == DF)
			return 1;
		fault(&t, DF, 0);
	}
	return store_state(&t);
}
