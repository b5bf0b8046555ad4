/* SPDX-License-Identifier: BSD-2-Clause */
/* Debug registers, breakpoints and single steps of a vCPU that a debugger in dom0 looks into. */
#include "core/debug.h"

#include "core/gmem.h"
#include "core/lib.h"
#include "core/vendor.h"

#define DR6_KNOWN  0xe00full
#define DR6_ACCESS BIT(13)
#define DR6_STEP   BIT(14)
#define DR7_KNOWN  0xffff2bffull

#define KNOWN (DEBUG_TAKEN | SOCLE_DEBUG_ON | SOCLE_DEBUG_BP | SOCLE_DEBUG_BLOCK)

/* ---- the guest's own registers ---- */

void debug_get(struct vcpu *v, void *socle_debug)
{
    if (v->debug_flags & DEBUG_TAKEN)
        memcpy(socle_debug, &v->own_debug, sizeof(v->own_debug));
    else
        vendor->get_debug(v, socle_debug);
}

/* DR6 is then the debugger's alone: what it says is new. */
static void load_own(struct vcpu *v)
{
    struct socle_debug d = v->own_debug;

    if (v->debug_flags & SOCLE_DEBUG_HW)
        return;
    d.dr6 = DR6_FIXED;
    vendor->set_debug(v, &d);
}

int debug_set(struct vcpu *v, const void *socle_debug)
{
    const struct socle_debug *d = socle_debug;
    struct socle_debug *own = &v->own_debug;

    if (d->dr6 >> 32 || d->dr7 >> 32)
        return -E_INVAL;
    *own = *d;
    own->dr6 = (d->dr6 & DR6_KNOWN) | DR6_FIXED;
    own->dr7 = (d->dr7 & DR7_KNOWN) | DR7_FIXED;
    if (v->debug_flags & DEBUG_TAKEN)
        load_own(v);
    else
        vendor->set_debug(v, own);
    return 0;
}

static enum vcpu_action raise_db(struct vcpu *v, u64 dr6)
{
    struct socle_debug d;

    vendor->get_debug(v, &d);
    *(v->debug_flags & DEBUG_TAKEN ? &v->own_debug.dr6 : &d.dr6) |= dr6;
    vendor->set_debug(v, &d);
    return vcpu_raise(v, VEC_DB, false, 0);
}

/* ---- the debugger's ---- */

/* TF is the debugger's while it steps. */
int debug_set_guest(struct vcpu *v, const void *socle_guest_debug)
{
    const struct socle_guest_debug *g = socle_guest_debug;
    struct socle_debug d;

    if (g->flags & ~(u32)KNOWN)
        return -E_INVAL;
    debug_get(v, &d);
    v->own_debug = d;
    if (v->debug_flags & SOCLE_DEBUG_STEP)
        v->rflags &= ~RFLAGS_TF;
    v->debug_flags = g->flags & SOCLE_DEBUG_ON ? g->flags : 0;
    if (v->debug_flags & SOCLE_DEBUG_STEP)
        v->rflags |= RFLAGS_TF;
    if (v->debug_flags & DEBUG_TAKEN)
        d.dr6 = DR6_FIXED;
    if (v->debug_flags & SOCLE_DEBUG_HW) {
        memcpy(d.db, g->db, sizeof(d.db));
        d.dr7 = (g->dr7 & DR7_KNOWN) | DR7_FIXED;
    }
    vendor->set_debug(v, &d);
    v->irq_blocked = v->debug_flags & SOCLE_DEBUG_BLOCK;
    vendor->update_intercepts(v);
    return 0;
}

static enum vcpu_action leave(struct vcpu *v, u8 vector, u64 dr6)
{
    struct socle_vcpu_page *p = v->page;
    struct socle_debug d;

    vendor->get_sregs(v, &v->sregs);
    vendor->get_debug(v, &d);
    p->debug.exception = vector;
    p->debug.pc = v->sregs.seg[SOCLE_SEG_CS].base + v->rip;
    p->debug.dr6 = d.dr6 | dr6;
    p->debug.dr7 = d.dr7;
    if (v->debug_flags & DEBUG_TAKEN) {
        d.dr6 = DR6_FIXED;
        vendor->set_debug(v, &d);
    }
    return vcpu_exit(v, SOCLE_EXIT_DEBUG);
}

/* ---- exits ---- */

enum vcpu_action debug_exception(struct vcpu *v, u8 vector)
{
    if (vector == VEC_DB && !(v->debug_flags & DEBUG_TAKEN))
        return vcpu_raise(v, VEC_DB, false, 0);
    return leave(v, vector, 0);
}

enum vcpu_action debug_int(struct vcpu *v, u8 vector)
{
    if (!(v->debug_flags & SOCLE_DEBUG_BP))
        return VCPU_RESUME;
    if (vector == VEC_BP)
        return leave(v, VEC_BP, 0);
    v->rip = v->next_rip;
    v->event = (struct event){true, false, vector, EVENT_SOFT, 0};
    return VCPU_RESUME;
}

enum vcpu_action debug_stepped(struct vcpu *v)
{
    return v->debug_flags & SOCLE_DEBUG_STEP ? leave(v, VEC_DB, DR6_STEP) : raise_db(v, DR6_STEP);
}

static enum vcpu_action write_dr(struct vcpu *v, u8 nr, u64 value)
{
    struct socle_debug d = v->own_debug;

    *(nr < 4 ? &d.db[nr] : nr == 6 ? &d.dr6 : &d.dr7) = value;
    if (debug_set(v, &d))
        return vcpu_raise_gp(v);
    vcpu_load_dr(v);
    return vcpu_skip(v);
}

enum vcpu_action debug_mov_dr(struct vcpu *v, const struct insn *i)
{
    const struct socle_debug *own = &v->own_debug;
    u8 nr = i->reg == 4 || i->reg == 5 ? i->reg + 2 : i->reg;
    struct socle_debug d;

    if (!(v->debug_flags & DEBUG_TAKEN) || vcpu_cpl(v))
        return VCPU_RESUME;
    if (nr != i->reg && (v->sregs.cr4 & CR4_DE))
        return vcpu_raise_ud(v);
    vendor->get_debug(v, &d);
    if ((d.dr7 & DR7_ACCESS) && (v->debug_flags & SOCLE_DEBUG_HW))
        return leave(v, VEC_DB, DR6_ACCESS);
    if (d.dr7 & DR7_ACCESS) { /* #DB clears it */
        v->own_debug.dr7 &= ~DR7_ACCESS;
        load_own(v);
        return raise_db(v, DR6_ACCESS);
    }
    if (!i->rm_is_dst)
        return write_dr(v, nr, zero_extend(v->gpr[i->rm], i->op_size));
    v->gpr[i->rm] = zero_extend(nr < 4 ? own->db[nr] : nr == 6 ? own->dr6 : own->dr7, i->op_size);
    return vcpu_skip(v);
}
