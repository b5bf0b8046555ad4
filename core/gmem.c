/* SPDX-License-Identifier: BSD-2-Clause */
/* Access to a guest's memory from its exit handlers. References: AMD64 APM vol. 2, ch. 5; Intel SDM
 * vol. 3A, ch. 4. */
#include "core/gmem.h"
#include "core/paging.h"
#include "core/panic.h"

#define PTE_TOO_WIDE 0x000f000000000000ull /* guest-physical addresses have 48 bits at most */

#define MAX_LEVELS 5
#define WALK_TRIES 4

/* One walk: the entries that it went through, leaf last. Level 1 has 4 KiB leaves. */
struct walk {
    gva_t gva;
    u32 access; /* PF_* */
    u8 levels;
    u8 level;
    u8 bits;       /* index bits per level */
    u8 entry_size; /* 4 or 8 */
    bool long_mode;
    u64 rights; /* PTE_W and PTE_U of all levels together, PTE_NX of any */
    gpa_t at[MAX_LEVELS + 1];
    u64 entry[MAX_LEVELS + 1];
};

/* Tells dom0 what is missing: -E_AGAIN; or -E_INVAL for dom0 itself. */
static int not_mapped(struct vcpu *v, gpa_t gpa, u32 access, bool present)
{
    if (!v->page)
        return -E_INVAL;
    v->page->fault.gpa = gpa;
    v->page->fault.write = !!(access & PF_WRITE);
    v->page->fault.fetch = !!(access & PF_FETCH);
    v->page->fault.present = present;
    return -E_AGAIN;
}

int gmem_find_ram(struct vcpu *v, gpa_t gpa, u32 access, paddr_t *pa)
{
    bool write = access & PF_WRITE;
    struct npt_leaf leaf;

    if (!npt_lookup(&v->domain->npt, gpa, &leaf))
        return not_mapped(v, gpa, access, false);
    if (leaf.mmio || (write && leaf.rom))
        return -E_INVAL;
    if ((write && !leaf.write) || ((access & PF_FETCH) && !leaf.exec))
        return not_mapped(v, gpa, access, true);
    *pa = leaf.mfn << PAGE_SHIFT | (gpa & ~PAGE_MASK);
    return 0;
}

/* ---- page tables ---- */

static int raise_page_fault(struct vcpu *v, const struct walk *w, u32 error)
{
    bool tells_fetch = (v->sregs.efer & EFER_NXE) || (v->sregs.cr4 & CR4_SMEP);

    error |= w->access & (PF_WRITE | PF_USER | (tells_fetch ? PF_FETCH : 0));
    v->sregs.cr2 = w->gva;
    v->cr2_dirty = true;
    vcpu_raise(v, VEC_PF, true, error);
    return -E_FAULT;
}

static int load_entry(struct vcpu *v, struct walk *w)
{
    u64 *slot;
    paddr_t pa;
    int err = gmem_find_ram(v, w->at[w->level], 0, &pa);

    if (err)
        return err;
    slot = window_map(WINDOW_WALK, pa);
    w->entry[w->level] = w->entry_size == 8 ? __atomic_load_n(slot, __ATOMIC_RELAXED)
                                            : __atomic_load_n((u32 *)slot, __ATOMIC_RELAXED);
    return 0;
}

/* -E_BUSY: the guest has changed the entry meanwhile. */
static int set_bits(struct vcpu *v, const struct walk *w, u8 level, u64 bits)
{
    u64 old = w->entry[level];
    u32 old32 = (u32)old;
    void *slot;
    bool same;
    paddr_t pa;
    int err;

    if ((old & bits) == bits)
        return 0;
    err = gmem_find_ram(v, w->at[level], PF_WRITE, &pa);
    if (err)
        return err;
    slot = window_map(WINDOW_WALK, pa);
    if (w->entry_size == 8)
        same = __atomic_compare_exchange_n((u64 *)slot, &old, old | bits, false, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED);
    else
        same = __atomic_compare_exchange_n((u32 *)slot, &old32, old32 | (u32)bits, false,
                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return same ? 0 : -E_BUSY;
}

/* The four entries of a PAE root are not like the others: neither rights nor accessed bits. */
static bool is_pae_root(const struct walk *w, u8 level)
{
    return w->levels == 3 && level == 3;
}

static u64 reserved_bits(const struct vcpu *v, const struct walk *w, bool leaf)
{
    u64 reserved = PTE_TOO_WIDE | (v->sregs.efer & EFER_NXE ? 0 : PTE_NX);

    if (w->entry_size == 4)
        return leaf && w->level == 2 ? BIT(21) : 0;
    if (!w->long_mode)
        reserved |= 0x7ff0000000000000ull;
    if (leaf && w->level > 1)
        reserved |= (BIT(12 + 9 * (w->level - 1)) - 1) & ~(u64)(BIT(13) - 1);
    if (w->level > 3)
        reserved |= PTE_PS;
    return reserved;
}

static bool is_leaf(const struct vcpu *v, const struct walk *w)
{
    if (w->level == 1)
        return true;
    if (!(w->entry[w->level] & PTE_PS) || w->level > 3)
        return false;
    if (w->entry_size == 4)
        return v->sregs.cr4 & CR4_PSE;
    return w->level == 2 || w->long_mode;
}

static u8 shift_of(const struct walk *w)
{
    return (u8)(PAGE_SHIFT + w->bits * (w->level - 1));
}

/* Down to the leaf, or to the first entry that is not present or malformed. */
static int walk_down(struct vcpu *v, struct walk *w)
{
    gpa_t table = v->sregs.cr3 & (w->long_mode     ? PTE_PA
                                  : w->levels == 3 ? 0xffffffe0u
                                                   : 0xfffff000u);

    for (w->level = w->levels;; w->level--) {
        u64 index = w->gva >> shift_of(w) & (BIT(w->bits) - 1), entry;
        bool leaf;
        int err;

        w->at[w->level] = table + index * w->entry_size;
        err = load_entry(v, w);
        if (err)
            return err;
        entry = w->entry[w->level];
        leaf = is_leaf(v, w);
        if (!(entry & PTE_P))
            return raise_page_fault(v, w, 0);
        if (entry & reserved_bits(v, w, leaf))
            return raise_page_fault(v, w, PF_PRESENT | PF_RSVD);
        if (!is_pae_root(w, w->level))
            w->rights = (w->rights & entry & (PTE_W | PTE_U)) | ((w->rights | entry) & PTE_NX);
        if (leaf)
            return 0;
        table = entry & PTE_PA;
    }
}

static bool allowed(const struct vcpu *v, const struct walk *w)
{
    u64 cr4 = v->sregs.cr4;
    bool user_page = w->rights & PTE_U, user = w->access & PF_USER;

    if (user && !user_page)
        return false;
    if ((w->access & PF_WRITE) && !(w->rights & PTE_W) && (user || (v->sregs.cr0 & CR0_WP)))
        return false;
    if (w->access & PF_FETCH)
        return !(w->rights & PTE_NX) && (user || !user_page || !(cr4 & CR4_SMEP));
    return user || !user_page || !(cr4 & CR4_SMAP) || (v->rflags & RFLAGS_AC);
}

/* Without them an operating system would take the page for unused, or unchanged. */
static int set_accessed(struct vcpu *v, const struct walk *w)
{
    int err = 0;

    for (u8 level = w->levels; !err && level >= w->level; level--) {
        u64 dirty = level == w->level && (w->access & PF_WRITE) ? PTE_D : 0;

        if (!is_pae_root(w, level))
            err = set_bits(v, w, level, PTE_A | dirty);
    }
    return err;
}

static gpa_t leaf_address(const struct walk *w)
{
    u64 entry = w->entry[w->level], offset = BIT(shift_of(w)) - 1;
    gpa_t frame = entry & PTE_PA;

    if (w->entry_size == 4 && w->level == 2)
        frame = (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32;
    return (frame & ~offset) | (w->gva & offset);
}

static int walk_guest(struct vcpu *v, struct walk *w, gpa_t *gpa)
{
    int err = walk_down(v, w);

    if (!err && !allowed(v, w))
        err = raise_page_fault(v, w, PF_PRESENT);
    if (!err)
        err = set_accessed(v, w);
    if (!err)
        *gpa = leaf_address(w);
    window_unmap(WINDOW_WALK);
    return err;
}

/* False: the address is not canonical. */
static bool walk_begin(const struct vcpu *v, gva_t gva, u32 access, struct walk *w)
{
    u64 cr4 = v->sregs.cr4;
    s64 top;

    *w = (struct walk){.gva = gva, .access = access, .rights = PTE_W | PTE_U};
    w->access |= vcpu_cpl(v) == 3 ? PF_USER : 0;
    w->long_mode = v->sregs.efer & EFER_LMA;
    w->entry_size = w->long_mode || (cr4 & CR4_PAE) ? 8 : 4;
    w->bits = w->entry_size == 8 ? 9 : 10;
    if (!w->long_mode) {
        w->gva = (u32)gva;
        w->levels = cr4 & CR4_PAE ? 3 : 2;
        return true;
    }
    w->levels = cr4 & CR4_LA57 ? 5 : 4;
    top = (s64)gva >> (PAGE_SHIFT + 9 * w->levels - 1);
    return top == 0 || top == -1;
}

int gmem_translate(struct vcpu *v, gva_t gva, u32 access, gpa_t *gpa)
{
    struct walk w;

    if (!(v->sregs.cr0 & CR0_PG)) {
        *gpa = (u32)gva;
        return 0;
    }
    for (int i = 0; i < WALK_TRIES; i++) {
        int err;

        if (!walk_begin(v, gva, access & (PF_WRITE | PF_FETCH), &w)) {
            vcpu_raise_gp(v);
            return -E_FAULT;
        }
        err = walk_guest(v, &w, gpa);
        if (err != -E_BUSY)
            return err;
    }
    return -E_FAULT;
}

/* ---- copies ---- */

int gmem_access(struct vcpu *v, gpa_t gpa, void *buf, size_t len, u32 access)
{
    paddr_t pa;
    int err = gmem_find_ram(v, gpa, access, &pa);

    ASSERT(len <= PAGE_LEFT(gpa));
    if (err)
        return err;
    if (access & PF_WRITE)
        phys_write(pa, buf, len);
    else
        phys_read(buf, pa, len);
    return 0;
}

/* The two parts of a linear range: gpa[1] only when it crosses into a second page, which is then
 * known to be RAM. */
static int translate_range(struct vcpu *v, gva_t gva, size_t len, u32 access, gpa_t gpa[2])
{
    paddr_t pa;
    int err = gmem_translate(v, gva, access, &gpa[0]);

    if (err || len <= PAGE_LEFT(gva))
        return err;
    err = gmem_translate(v, gva + PAGE_LEFT(gva), access, &gpa[1]);
    return err ? err : gmem_find_ram(v, gpa[1], access, &pa);
}

int gmem_access_linear(struct vcpu *v, gva_t gva, void *buf, size_t len, u32 access)
{
    size_t first = MIN(len, PAGE_LEFT(gva));
    gpa_t gpa[2];
    int err = translate_range(v, gva, len, access, gpa);

    if (!err)
        err = gmem_access(v, gpa[0], buf, first, access);
    if (!err && first < len)
        err = gmem_access(v, gpa[1], (u8 *)buf + first, len - first, access);
    return err;
}
