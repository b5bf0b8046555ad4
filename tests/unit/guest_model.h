/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest for the tests of gmem.c and emulate.c: some frames of memory, a map of guest-physical
 * pages instead of nested tables, page tables of every kind, and an MMIO device. It aborts when a
 * frame is touched that the map does not give, or a window stays open. */
#ifndef TESTS_GUEST_MODEL_H
#define TESTS_GUEST_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/debug.h"
#include "core/doorbell.h"
#include "core/errno.h"
#include "core/exits.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/paging.h"

#define MODEL_CHECK(cond)                                                      \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                           \
        }                                                                      \
    } while (0)

#define FRAMES   64
#define MFN_BASE 0x12345ull
#define PAGES    96

enum page_kind { PAGE_NONE, PAGE_RAM, PAGE_READONLY, PAGE_ROM, PAGE_MMIO };

struct model_page {
    u64 gfn;
    enum page_kind kind;
    u32 frame;
};

static struct model {
    struct domain domain;
    struct vlapic_word lapic[VLAPIC_REGS];
    struct vcpu v;
    struct socle_vcpu_page page;
    u8 memory[FRAMES][PAGE_SIZE] ALIGNED(4096);
    struct model_page pages[PAGES];
    u32 page_count;
    u32 frame_count;
    bool window_open[WINDOWS];
    u32 window_maps;
    u32 hook_at; /* calls `hook` at that number of window_map calls */
    void (*hook)(void);
    u64 next_table; /* gpa for the next page table */

    /* Doorbells: an address each. */
    u64 bell, bell_data;
    bool bell_pio;
    u32 bells;

    struct vlapic_effect effect;
    u32 effects;
    u32 exits;
} model;

static struct model_page *model_find(u64 gfn)
{
    for (u32 i = 0; i < model.page_count; i++)
        if (model.pages[i].gfn == gfn)
            return &model.pages[i];
    return NULL;
}

/* Gives the guest a page of that kind at gpa; ROM and RAM have memory. Neighbours in guest-physical
 * memory are not neighbours in the machine's. */
static inline u8 *model_page(gpa_t gpa, enum page_kind kind)
{
    struct model_page *p = model_find(gpa >> PAGE_SHIFT);

    if (!p) {
        MODEL_CHECK(model.page_count < PAGES);
        p = &model.pages[model.page_count++];
        *p = (struct model_page){gpa >> PAGE_SHIFT, PAGE_NONE, FRAMES};
    }
    if (kind != PAGE_NONE && kind != PAGE_MMIO && p->frame == FRAMES) {
        MODEL_CHECK(model.frame_count < FRAMES);
        p->frame = FRAMES - 1 - model.frame_count++;
    }
    p->kind = kind;
    return p->frame < FRAMES ? model.memory[p->frame] : NULL;
}

/* The memory behind gpa, whatever its kind; NULL if there is none. */
static inline u8 *model_at(gpa_t gpa)
{
    struct model_page *p = model_find(gpa >> PAGE_SHIFT);

    return p && p->frame < FRAMES ? model.memory[p->frame] + (gpa & ~PAGE_MASK) : NULL;
}

/* ---- what gmem.c and emulate.c call ---- */

bool npt_lookup(const struct npt *npt, gpa_t gpa, struct npt_leaf *out)
{
    struct model_page *p = model_find(gpa >> PAGE_SHIFT);

    MODEL_CHECK(npt == &model.domain.npt);
    *out = (struct npt_leaf){.level = 0};
    if (!p || p->kind == PAGE_NONE)
        return false;
    out->mmio = p->kind == PAGE_MMIO;
    if (out->mmio)
        return true;
    out->present = true;
    out->exec = true;
    out->write = p->kind == PAGE_RAM;
    out->rom = p->kind == PAGE_ROM;
    out->mfn = MFN_BASE + p->frame;
    return true;
}

void *window_map(unsigned int slot, paddr_t pa)
{
    u64 frame = (pa >> PAGE_SHIFT) - MFN_BASE;
    bool given = false;

    if (++model.window_maps == model.hook_at)
        model.hook();
    for (u32 i = 0; i < model.page_count; i++)
        given |= model.pages[i].frame == frame && model.pages[i].kind != PAGE_MMIO;
    MODEL_CHECK(slot < WINDOWS && given && frame < FRAMES);
    model.window_open[slot] = true;
    return model.memory[frame] + (pa & ~PAGE_MASK);
}

void window_unmap(unsigned int slot)
{
    MODEL_CHECK(slot < WINDOWS);
    model.window_open[slot] = false;
}

void phys_read(void *dst, paddr_t src, size_t len)
{
    memcpy(dst, window_map(WINDOW_COPY, src), len);
    window_unmap(WINDOW_COPY);
}

void phys_write(paddr_t dst, const void *src, size_t len)
{
    memcpy(window_map(WINDOW_COPY, dst), src, len);
    window_unmap(WINDOW_COPY);
}

static inline void model_check_windows(void)
{
    for (u32 i = 0; i < WINDOWS; i++)
        MODEL_CHECK(!model.window_open[i]);
}

/* The way to them is tested, not what they do. */
enum vcpu_action debug_mov_dr(struct vcpu *v, const struct insn *i)
{
    (void)i;
    return vcpu_skip(v);
}

enum vcpu_action debug_int(struct vcpu *v, u8 vector)
{
    (void)vector;
    return vcpu_skip(v);
}

bool doorbell_ring(struct domain *d, u64 addr, u8 len, u64 data, bool pio)
{
    MODEL_CHECK(d == &model.domain && len >= 1 && len <= 8);
    if (!model.bell || addr != model.bell || pio != model.bell_pio)
        return false;
    model.bell_data = data;
    model.bells++;
    return true;
}

void vcpu_apply_effect(struct vcpu *v, const struct vlapic_effect *e)
{
    MODEL_CHECK(v == &model.v);
    model.effect = *e;
    model.effects++;
}

enum vcpu_action vcpu_exit(struct vcpu *v, enum socle_exit reason)
{
    MODEL_CHECK(v == &model.v && v->page == &model.page);
    v->page->exit = reason;
    v->page->rip = v->rip;
    model.exits++;
    return VCPU_EXIT;
}

/* ---- the guest's modes and page tables ---- */

enum model_mode { MODE_REAL, MODE_FLAT32, MODE_PAGED32, MODE_PAE, MODE_LONG, MODE_LONG5, MODES };

#define PG_P  BIT(0)
#define PG_W  BIT(1)
#define PG_U  BIT(2)
#define PG_A  BIT(5)
#define PG_D  BIT(6)
#define PG_PS BIT(7)
#define PG_NX BIT(63)

#define TABLES_GPA 0x100000ull

static inline bool model_is_long(enum model_mode mode)
{
    return mode >= MODE_LONG;
}

static inline void model_init(enum model_mode mode)
{
    struct vcpu *v = &model.v;
    struct socle_sregs *s = &v->sregs;

    memset(&model, 0, sizeof(model));
    v->domain = &model.domain;
    v->page = &model.page;
    v->rflags = RFLAGS_FIXED;
    model.domain.flags = DOMAIN_LAPIC;
    model.next_table = TABLES_GPA;
    vlapic_init(&v->lapic, model.lapic, 0, true, 1000000);
    for (u32 i = 0; i < SOCLE_SEGS; i++)
        s->seg[i] = (struct socle_segment){.limit = ~0u, .attr = 0x093 | BIT(7)};
    s->seg[SOCLE_SEG_CS].attr = (u16)(0x9b | (model_is_long(mode) ? BIT(9) : mode ? BIT(10) : 0));
    s->seg[SOCLE_SEG_SS].attr = (u16)(0x93 | (mode && !model_is_long(mode) ? BIT(10) : 0));
    s->cr0 =
        CR0_ET | (mode >= MODE_FLAT32 ? CR0_PE : 0) | (mode >= MODE_PAGED32 ? CR0_PG | CR0_WP : 0);
    s->cr4 = CR4_PSE | (mode >= MODE_PAE ? CR4_PAE : 0) | (mode == MODE_LONG5 ? CR4_LA57 : 0);
    s->efer = model_is_long(mode) ? EFER_LME | EFER_LMA | EFER_NXE
              : mode == MODE_PAE  ? EFER_NXE
                                  : 0;
    if (s->cr0 & CR0_PG) {
        s->cr3 = model.next_table;
        model_page(model.next_table, PAGE_RAM);
        model.next_table += PAGE_SIZE;
    }
}

static inline void model_set_cpl(u8 cpl)
{
    u16 *attr = &model.v.sregs.seg[SOCLE_SEG_SS].attr;

    *attr = (u16)((*attr & ~0x60u) | (u32)cpl << 5);
}

static inline u8 model_entry_size(void)
{
    return model.v.sregs.cr4 & CR4_PAE ? 8 : 4;
}

static inline u8 model_levels(void)
{
    if (model.v.sregs.efer & EFER_LMA)
        return model.v.sregs.cr4 & CR4_LA57 ? 5 : 4;
    return model.v.sregs.cr4 & CR4_PAE ? 3 : 2;
}

static inline u64 model_load(gpa_t at)
{
    return model_entry_size() == 8 ? load_u64(model_at(at)) : load_u32(model_at(at));
}

static inline void model_store(gpa_t at, u64 entry)
{
    memcpy(model_at(at), &entry, model_entry_size());
}

/* Where the entry for gva at `level` is; makes the tables above it, with all rights. */
static inline gpa_t model_entry(gva_t gva, u8 level)
{
    u8 bits = model_entry_size() == 8 ? 9 : 10;
    gpa_t table = model.v.sregs.cr3;

    for (u8 at = model_levels();; at--) {
        u64 index = gva >> (12 + bits * (at - 1)) & (BIT(bits) - 1);
        gpa_t entry = table + index * model_entry_size();

        if (at == 3 && model_levels() == 3)
            entry = table + (gva >> 30 & 3) * 8;
        if (at == level)
            return entry;
        if (!model_load(entry)) {
            bool pae_root = at == 3 && model_levels() == 3;

            model_page(model.next_table, PAGE_RAM);
            model_store(entry, model.next_table | PG_P | (pae_root ? 0 : PG_W | PG_U));
            model.next_table += PAGE_SIZE;
        }
        table = model_load(entry) & 0x000ffffffffff000ull;
    }
}

/* Maps gva to gpa with a leaf at `level`. */
static inline void model_map_level(gva_t gva, gpa_t gpa, u64 flags, u8 level)
{
    model_store(model_entry(gva, level), gpa | flags | PG_P | (level > 1 ? PG_PS : 0));
}

/* Maps a 4 KiB page, and without paging nothing (then gva is gpa). */
static inline void model_map(gva_t gva, gpa_t gpa, u64 flags)
{
    if (model.v.sregs.cr0 & CR0_PG)
        model_map_level(gva, gpa, flags, 1);
}

#endif
