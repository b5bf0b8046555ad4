/* SPDX-License-Identifier: BSD-2-Clause */
/* Task switches, where the processor leaves them to Socle. All that can make dom0 map a page first
 * comes before anything that cannot be done again, in particular before the new TSS is busy; so a
 * switch that is not over begins anew. What is read of the guest's memory is read once. References:
 * Intel SDM vol. 3A, 8.2 and 8.3. */
#include "core/exits.h"
#include "core/gmem.h"
#include "core/lib.h"
#include "core/vendor.h"

#define RFLAGS_KNOWN 0x3f7fd5u
#define CONTRIBUTORY 0x3c01u /* #DE, #TS, #NP, #SS, #GP */
#define DR6_BT       BIT(15)
#define DR7_LOCAL    0x155ull

#define ACCESSED 1u /* of a segment's attributes */
#define BUSY     2u
#define TSS_32   8u
#define PRESENT  BIT(7)

/* A TSS in words: EIP, EFLAGS, the general registers, and from here ES, CS, SS, DS, FS, GS (the
 * last two not in a 16-bit one); behind them LDTR, which is only read, and T. */
enum { WORD_EIP, WORD_EFLAGS, WORD_GPR, WORD_SEG = 10, WORDS = 18 };

struct task {
    struct vcpu *v;
    struct socle_sregs s; /* the new task's */
    u32 external;         /* of the error codes: an event made the switch, no instruction */
    u8 width;             /* bytes per word of the new TSS */
    u8 segs;
    u32 word[WORDS + 1];
};

static int fault(struct task *t, u8 vector, u16 selector)
{
    vcpu_raise(t->v, vector, true, (selector & ~3u) | t->external);
    return -E_FAULT;
}

static int access(struct task *t, gva_t gva, void *buf, size_t len, u32 rights)
{
    int err = gmem_access_linear(t->v, gva, buf, len, rights);

    return err == -E_INVAL ? fault(t, VEC_TS, t->s.seg[SOCLE_SEG_TR].selector) : err;
}

/* ---- descriptors ---- */

static gva_t descriptor_at(const struct task *t, u16 selector)
{
    return (selector & 4 ? t->s.seg[SOCLE_SEG_LDTR].base : t->s.gdt_base) + (selector & ~7u);
}

static int set_type(struct task *t, u16 selector, u16 attr)
{
    return access(t, descriptor_at(t, selector) + 5, &attr, 1, PF_WRITE);
}

static int read_segment(struct task *t, u16 selector, u8 vector, struct socle_segment *seg)
{
    const struct socle_segment *ldt = &t->s.seg[SOCLE_SEG_LDTR];
    u32 limit = selector & 4 ? (ldt->attr & PRESENT ? ldt->limit : 0) : t->s.gdt_limit;
    u64 d = 0;
    int err;

    if (!(selector & ~3u) || (selector | 7u) > limit)
        return fault(t, vector, selector);
    err = access(t, descriptor_at(t, selector), &d, sizeof(d), 0);
    limit = (u32)((d & 0xffff) | (d >> 32 & 0xf0000));
    seg->selector = selector;
    seg->base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
    seg->limit = d & BIT(55) ? limit << 12 | 0xfff : limit;
    seg->attr = (u16)((d >> 40 & 0xff) | (d >> 44 & 0xd00));
    return err;
}

/* Table 8-1; a type has the descriptor's S flag as bit 4. */
static bool may_load(u32 i, const struct socle_segment *seg, u8 cpl)
{
    u8 type = seg->attr & 0x1f, dpl = seg->attr >> 5 & 3, rpl = seg->selector & 3;

    switch (i) {
    case SOCLE_SEG_LDTR:
        return type == 2;
    case SOCLE_SEG_CS:
        return (type & 0x18) == 0x18 && (type & 4 ? dpl <= cpl : dpl == cpl);
    case SOCLE_SEG_SS:
        return (type & 0x1a) == 0x12 && rpl == cpl && dpl == cpl;
    default:
        return (type & 0x10) && (type & 0xa) != 8 && ((type & 0xc) == 0xc || dpl >= MAX(rpl, cpl));
    }
}

static int load_segment(struct task *t, u32 i, u16 selector)
{
    u8 absent = i == SOCLE_SEG_LDTR ? VEC_TS : i == SOCLE_SEG_SS ? VEC_SS : VEC_NP;
    struct socle_segment seg;
    int err;

    if (!(selector & ~3u) && i != SOCLE_SEG_CS && i != SOCLE_SEG_SS)
        return 0;
    err = read_segment(t, selector, VEC_TS, &seg);
    if (err)
        return err;
    if (!may_load(i, &seg, t->word[WORD_SEG + SOCLE_SEG_CS] & 3))
        return fault(t, VEC_TS, selector);
    if (!(seg.attr & PRESENT))
        return fault(t, absent, selector);
    if (i != SOCLE_SEG_LDTR && !(seg.attr & ACCESSED))
        err = set_type(t, selector, seg.attr |= ACCESSED);
    if (!err)
        t->s.seg[i] = seg;
    return err;
}

/* What does not come to be loaded is unusable, but CS and SS tell the privilege level. */
static int load_segments(struct task *t)
{
    const u32 *selectors = &t->word[WORD_SEG];
    u16 dpl = (selectors[SOCLE_SEG_CS] & 3) << 5;
    bool v86 = t->word[WORD_EFLAGS] & RFLAGS_VM;
    int err;

    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++) {
        u16 selector = (u16)(i < t->segs ? selectors[i] : 0);

        t->s.seg[i] = (struct socle_segment){.selector = selector, .attr = dpl};
        if (v86)
            t->s.seg[i] = (struct socle_segment){(u64)selector << 4, 0xffff, selector, 0xf3};
        else if (i == SOCLE_SEG_CS)
            t->s.seg[i] = (struct socle_segment){0, ~0u, selector, 0xc9b | dpl};
    }
    t->s.seg[SOCLE_SEG_LDTR] = (struct socle_segment){.selector = (u16)selectors[t->segs]};
    err = load_segment(t, SOCLE_SEG_LDTR, (u16)selectors[t->segs]);
    for (u32 i = 1; !err && !v86 && i <= t->segs; i++)
        err = load_segment(t, i % t->segs, (u16)selectors[i % t->segs]);
    return err;
}

/* ---- task state segments ---- */

static gva_t tss_words(const struct socle_segment *tr)
{
    return tr->base + (tr->attr & TSS_32 ? 0x20 : 0x0e);
}

/* CR3 is not among those that are saved. */
static int read_tss(struct task *t, u16 selector, bool back)
{
    struct socle_segment *tr = &t->s.seg[SOCLE_SEG_TR];
    u8 image[(WORDS + 1) * 4] = {0}, vector = back ? VEC_TS : VEC_GP;
    u32 cr3 = (u32)t->s.cr3;
    int err = read_segment(t, selector, vector, tr);

    if (err)
        return err;
    if ((tr->attr & (0x1f & ~TSS_32)) != (back ? 1 | BUSY : 1))
        return fault(t, vector, selector);
    if (!(tr->attr & PRESENT))
        return fault(t, VEC_NP, selector);
    t->width = tr->attr & TSS_32 ? 4 : 2;
    t->segs = t->width == 4 ? 6 : 4;
    if (tr->limit < (t->width == 4 ? 0x67 : 0x2b))
        return fault(t, VEC_TS, selector);
    err = access(t, tss_words(tr), image, (WORD_SEG + t->segs + t->width / 2) * t->width, 0);
    if (!err && t->width == 4 && (t->s.cr0 & CR0_PG))
        err = access(t, tr->base + 0x1c, &cr3, sizeof(cr3), 0);
    for (u32 i = 0; i < WORDS; i++)
        t->word[i] = (u32)zero_extend(load_u32(image + i * t->width), t->width);
    t->s.cr3 = cr3;
    return err;
}

static int save_tss(struct task *t, bool nested, bool back)
{
    const struct vcpu *v = t->v;
    const struct socle_segment *tr = &v->sregs.seg[SOCLE_SEG_TR];
    u32 width = tr->attr & TSS_32 ? 4 : 2, words = width == 4 ? 16 : 14;
    u32 word[16] = {(u32)v->next_rip, (u32)(v->rflags & ~(back ? RFLAGS_NT : 0))};
    u16 link = tr->selector;
    u8 image[sizeof(word)];
    int err;

    for (u32 i = 0; i < 8; i++)
        word[WORD_GPR + i] = (u32)v->gpr[i];
    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++)
        word[WORD_SEG + i] = v->sregs.seg[i].selector;
    for (u32 i = 0; i < words; i++)
        memcpy(image + i * width, &word[i], width);
    err = access(t, tss_words(tr), image, words * width, PF_WRITE);
    if (!err && nested)
        err = access(t, t->s.seg[SOCLE_SEG_TR].base, &link, sizeof(link), PF_WRITE);
    return err;
}

static int push_error(struct task *t, u32 error)
{
    const struct socle_segment *ss = &t->s.seg[SOCLE_SEG_SS];
    u32 *esp = &t->word[WORD_GPR + RSP], top = *esp - t->width;
    int err;

    if (!(ss->attr & BIT(10)))
        top = (u16)top;
    if (!(ss->attr & 4) && (u64)top + t->width - 1 > ss->limit)
        return fault(t, VEC_SS, 0);
    t->v->sregs.seg[SOCLE_SEG_SS].attr = ss->attr;
    err = access(t, ss->base + top, &error, t->width, PF_WRITE);
    *esp = top;
    return err;
}

/* ---- the switch ---- */

static void commit(struct task *t, bool nested)
{
    struct vcpu *v = t->v;
    struct socle_debug debug;

    for (u32 i = 0; i < 8; i++)
        v->gpr[i] = t->word[WORD_GPR + i];
    v->rip = t->word[WORD_EIP];
    v->rflags = (t->word[WORD_EFLAGS] & RFLAGS_KNOWN) | RFLAGS_FIXED | (nested ? RFLAGS_NT : 0);
    v->retired = true;
    t->s.seg[SOCLE_SEG_TR].attr |= BUSY;
    t->s.cr0 |= CR0_TS;
    vendor->set_sregs(v, &t->s);
    vendor->get_debug(v, &debug);
    debug.dr7 &= ~DR7_LOCAL;
    vendor->set_debug(v, &debug);
}

/* A fault in loading the new task's segments is the new task's. Descriptors and TSSs are accessed
 * with the processor's rights, whatever the privilege level. */
static int switch_task(struct task *t, u16 selector, enum task_source source, const struct event *e)
{
    bool back = source == TASK_IRET, nested = source == TASK_CALL || source == TASK_GATE;
    struct socle_sregs *now = &t->v->sregs;
    const struct socle_segment *old = &now->seg[SOCLE_SEG_TR];
    u64 cr3 = now->cr3;
    int err, late;

    now->seg[SOCLE_SEG_SS].attr = 0;
    err = read_tss(t, selector, back);
    if (!err)
        err = save_tss(t, nested, back);
    if (err)
        return err;
    now->cr3 = t->s.cr3;
    late = load_segments(t);
    if (!late && e->valid && e->has_error)
        late = push_error(t, e->error);
    if (late && !t->v->event.valid)
        return late;
    now->cr3 = cr3;
    now->seg[SOCLE_SEG_SS].attr = 0;
    if (!nested)
        err = set_type(t, old->selector, old->attr & ~BUSY);
    if (!err && !back)
        err = set_type(t, selector, t->s.seg[SOCLE_SEG_TR].attr | BUSY);
    if (err)
        return err;
    commit(t, nested);
    return late;
}

/* Vol. 3A, 6.15, interrupt 8: what two exceptions make together. */
static enum vcpu_action faulted(struct vcpu *v, const struct event *first)
{
    if (!first->valid || first->type != EVENT_EXCEPTION)
        return VCPU_RESUME;
    if (first->vector == VEC_DF)
        return vcpu_shutdown(v);
    if (first->vector == VEC_PF ||
        ((CONTRIBUTORY >> first->vector & 1) && v->event.vector != VEC_PF))
        return vcpu_raise(v, VEC_DF, true, 0);
    return VCPU_RESUME;
}

enum vcpu_action exit_task_switch(struct vcpu *v, u16 selector, enum task_source source)
{
    struct task t = {.v = v, .s = v->sregs, .external = v->event.valid};
    struct event e = v->event;
    int err;

    v->event.valid = false;
    err = switch_task(&t, selector, source, &e);
    if (err == -E_FAULT && v->event.valid)
        return faulted(v, &e);
    if (err) { /* again, from the start */
        v->event = e;
        return err == -E_AGAIN ? vcpu_exit(v, SOCLE_EXIT_FAULT) : VCPU_RESUME;
    }
    if (t.width == 4 && (t.word[WORDS - 1] & 1)) {
        write_dr6(read_dr6() | DR6_BT);
        return vcpu_raise(v, VEC_DB, false, 0);
    }
    return VCPU_RESUME;
}
