/* SPDX-License-Identifier: BSD-2-Clause */
/* Task switches, where the processor leaves them to Socle. All that dom0 may have to map a page for
 * comes before what cannot be done again, so a switch that is not over begins anew. What is read of
 * the guest's memory is read once. Of no use to today's guests, and not done: 16-bit TSSs (#TS),
 * tasks that begin in virtual-8086 mode, descriptors' accessed bits in memory. References: Intel
 * SDM vol. 3A, 8.2 and 8.3. */
#include "core/exits.h"
#include "core/gmem.h"
#include "core/vendor.h"

#define RFLAGS_KNOWN 0x3d7fd5u /* but VM */
#define TYPE_BUSY    2u

/* In whose delivery #PF, and #TS, #NP, #SS and #GP, are double faults, or triple (#DF). */
#define DOUBLES_WITH_PF (BIT(VEC_DF) | BIT(VEC_PF))
#define DOUBLES         0x7d01u

struct task {
    struct vcpu *v;
    struct socle_sregs s; /* the new task's */
    struct tss {          /* from its offset 0x1c */
        u32 cr3, eip, eflags, gpr[8], selector[SOCLE_SEG_TR], trap;
    } tss;
};

static int fault(struct vcpu *v, u8 vector, u16 selector)
{
    vcpu_raise(v, vector, true, selector & ~3u);
    return -E_FAULT;
}

/* Table 8-1. Bit 4 of a type is the descriptor's S flag. Conforming code may have any DPL that is
 * not above CPL, and is data to all. */
static int load_segment(struct task *t, u32 i, u16 selector)
{
    static const u32 types[] = {0xccff0000, 0xff000000, 0x00cc0000, 0xccff0000,
                                0xccff0000, 0xccff0000, BIT(2),     BIT(9) | BIT(11)};
    static const u8 absent[] = {VEC_NP, VEC_NP, VEC_SS, VEC_NP, VEC_NP, VEC_NP, VEC_TS, VEC_NP};
    const struct socle_segment *ldt = &t->s.seg[SOCLE_SEG_LDTR];
    u32 cpl = t->tss.selector[SOCLE_SEG_CS] & 3, rpl = selector & 3, least = MAX(cpl, rpl), dpl;
    u32 limit = selector & 4 ? ldt->limit : t->s.gdt_limit;
    u64 base = selector & 4 ? ldt->base : t->s.gdt_base, d = 0;
    bool exact = i == SOCLE_SEG_CS || i == SOCLE_SEG_SS;
    int err = 0;

    if (selector > 3 && (selector | 7u) <= limit)
        err = gmem_access_linear(t->v, base + (selector & ~7u), &d, sizeof(d), 0);
    if (err || (selector <= 3 && !exact && i != SOCLE_SEG_TR))
        return err;
    dpl = d >> 45 & 3;
    if (i >= SOCLE_SEG_LDTR || (d >> 40 & 0x1c) == 0x1c)
        dpl = MAX(dpl, least);
    if (!(types[i] >> (d >> 40 & 0x1f) & 1) || (exact ? dpl != cpl || rpl != cpl : dpl < least))
        return fault(t->v, VEC_TS, selector);
    if (!(d & BIT(47)))
        return fault(t->v, absent[i], selector);
    limit = (d & 0xffff) | (d >> 32 & 0xf0000);
    base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
    t->s.seg[i] = (struct socle_segment){base, d & BIT(55) ? limit << 12 | 0xfff : limit, selector,
                                         (d >> 40 & 0xff) | (d >> 44 & 0xd00)};
    return 0;
}

/* What does not come to be loaded is unusable, but CS and SS tell the privilege level. */
static int load_segments(struct task *t, const struct event *e)
{
    u32 *selector = t->tss.selector, *esp = &t->tss.gpr[RSP];
    const struct socle_segment *ss = &t->s.seg[SOCLE_SEG_SS];
    u16 dpl = (selector[SOCLE_SEG_CS] & 3) << 5;
    int err;

    for (u32 i = 0; i < SOCLE_SEG_TR; i++)
        t->s.seg[i] = (struct socle_segment){.selector = (u16)selector[i], .attr = dpl};
    t->s.seg[SOCLE_SEG_CS].attr |= 0x9b;
    err = load_segment(t, SOCLE_SEG_LDTR, (u16)selector[SOCLE_SEG_LDTR]);
    for (u32 i = 1; !err && i <= 6; i++)
        err = load_segment(t, i % 6, (u16)selector[i % 6]);
    if (err || !e->valid || !e->has_error)
        return err;
    *esp = (*esp - 4) & (ss->attr & BIT(10) ? ~0u : 0xffff);
    t->v->sregs.seg[SOCLE_SEG_SS].attr = ss->attr;
    return gmem_access_linear(t->v, ss->base + *esp, (void *)&e->error, 4, PF_WRITE);
}

static int save_task(struct vcpu *v, bool back)
{
    struct tss tss = {.eip = (u32)v->next_rip, .eflags = (u32)v->rflags & ~(back ? RFLAGS_NT : 0)};

    for (u32 i = 0; i < 8; i++)
        tss.gpr[i] = (u32)v->gpr[i];
    for (u32 i = 0; i < 6; i++)
        tss.selector[i] = v->sregs.seg[i].selector;
    return gmem_access_linear(v, v->sregs.seg[SOCLE_SEG_TR].base + 0x20, &tss.eip, 64, PF_WRITE);
}

static void enter_task(struct task *t, bool nested)
{
    struct vcpu *v = t->v;

    for (u32 i = 0; i < 8; i++)
        v->gpr[i] = t->tss.gpr[i];
    v->rip = t->tss.eip;
    v->rflags = (t->tss.eflags & RFLAGS_KNOWN) | RFLAGS_FIXED | (nested ? RFLAGS_NT : 0);
    v->retired = true;
    t->s.cr0 |= CR0_TS;
    vendor->set_sregs(v, &t->s);
}

static int set_type(struct task *t, const struct socle_segment *tr)
{
    u64 at = t->s.gdt_base + (tr->selector & ~7u) + 5;

    return gmem_access_linear(t->v, at, (void *)&tr->attr, 1, PF_WRITE);
}

/* A fault in loading the new task's segments is the new task's. TSSs and descriptors are accessed
 * with the processor's rights, whatever the privilege level. */
static int switch_task(struct task *t, u16 selector, enum task_source source, const struct event *e)
{
    bool back = source == TASK_IRET, nested = source == TASK_CALL || source == TASK_GATE;
    struct socle_sregs *now = &t->v->sregs;
    struct socle_segment *old = &now->seg[SOCLE_SEG_TR], *tr = &t->s.seg[SOCLE_SEG_TR];
    u64 cr3 = now->cr3;
    int err, late;

    now->seg[SOCLE_SEG_SS].attr = 0;
    err = old->attr & 8 ? load_segment(t, SOCLE_SEG_TR, selector) : -E_INVAL;
    if (!err)
        err = gmem_access_linear(t->v, tr->base + 0x1c, &t->tss, sizeof(t->tss), 0);
    if (!err)
        err = save_task(t->v, back);
    if (!err && nested)
        err = gmem_access_linear(t->v, tr->base, &old->selector, 2, PF_WRITE);
    if (err)
        return err;
    now->cr3 = t->s.cr3 = now->cr0 & CR0_PG ? t->tss.cr3 : cr3;
    late = load_segments(t, e);
    if (late && !t->v->event.valid)
        return late;
    now->cr3 = cr3;
    now->seg[SOCLE_SEG_SS].attr = 0;
    old->attr &= nested ? ~0u : ~TYPE_BUSY;
    tr->attr |= TYPE_BUSY;
    err = set_type(t, old);
    if (!err)
        err = set_type(t, tr);
    if (!err)
        enter_task(t, nested);
    return err ? err : late;
}

/* A fault in the delivery of an exception may make #DF (vol. 3A, 6.15), or be the machine's end. */
enum vcpu_action exit_task_switch(struct vcpu *v, u16 selector, enum task_source source)
{
    struct task t = {.v = v, .s = v->sregs};
    struct event e = v->event;
    u32 doubles;
    int err;

    v->event.valid = false;
    err = switch_task(&t, selector, source, &e);
    if (err == -E_INVAL)
        err = fault(v, VEC_TS, selector);
    if (err && !v->event.valid) {
        v->event = e;
        return err == -E_AGAIN ? vcpu_exit(v, SOCLE_EXIT_FAULT) : VCPU_RESUME;
    }
    doubles = v->event.vector == VEC_PF ? DOUBLES_WITH_PF : DOUBLES;
    if (err && e.valid && e.type == EVENT_EXCEPTION && (doubles >> e.vector & 1))
        return e.vector == VEC_DF ? vcpu_shutdown(v) : vcpu_raise(v, VEC_DF, true, 0);
    if (!err && (t.tss.trap & 1)) {
        write_dr6(read_dr6() | BIT(15));
        return vcpu_raise(v, VEC_DB, false, 0);
    }
    return VCPU_RESUME;
}
