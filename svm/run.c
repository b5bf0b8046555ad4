/* SPDX-License-Identifier: BSD-2-Clause */
/* AMD SVM: the run loop, injection, and the decoding of exits. */
#include "core/debug.h"
#include "core/exits.h"
#include "core/paging.h"
#include "core/panic.h"
#include "core/pcpu.h"
#include "svm/svm.h"

#define IOIO_IN         BIT(0)
#define IOIO_STRING     BIT(2)
#define IOIO_SIZE(info) ((u8)((info) >> 4 & 7))

#define NPF_WRITE BIT(1)
#define NPF_FETCH BIT(4)

/* ---- before the entry ---- */

/* A tag (ASID) of its own on this processor; old ones are never used again before all are flushed.
 */
static void assign_tag(struct vcpu *v, struct vmcb *c)
{
    struct pcpu *cpu = this_cpu();

    if (cpu->asid_next >= svm_features.asids) {
        cpu->asid_next = 1;
        cpu->asid_generation++;
        c->tlb_control = TLB_CONTROL_FLUSH_ALL;
    }
    v->tag = (u32)cpu->asid_next++;
    v->tag_generation = cpu->asid_generation;
    c->asid = v->tag;
}

static void inject(struct vmcb *c, u8 vector, u8 type, bool has_error, u32 error)
{
    c->event_inj = vector | (u64)type << 8 | EVENT_INJ_VALID | (has_error ? EVENT_INJ_ERROR : 0) |
                   (u64)error << 32;
}

/* Asks for an exit as soon as the guest can take an interrupt: a virtual interrupt that is never
 * delivered, because its exit comes first (AMD APM vol. 2, 15.21.4). While one waits, QEMU (7.2)
 * aborts at a guest's write of CR8. */
static void open_interrupt_window(struct vmcb *c)
{
    c->intercept_cr_write |= BIT(8);
    c->int_ctl |= INT_CTL_NOW;
    c->intercept1 |= INTERCEPT(VINTR);
}

static void close_interrupt_window(struct vmcb *c)
{
    c->int_ctl &= ~INT_CTL_NOW;
    c->intercept1 &= ~INTERCEPT(VINTR);
}

/* While a handler of the last NMI runs, the next one waits for its IRET; and that one must not be
 * caught a second time. */
static bool inject_nmi(struct vcpu *v, struct vmcb *c)
{
    if (c->exit_code == SVM_EXIT_IRET || (c->int_state & 1) || v->irq_blocked)
        return false;
    c->intercept1 |= INTERCEPT(IRET);
    if (v->nmi_masked)
        return false;
    v->nmi_pending = false;
    v->nmi_masked = true;
    inject(c, VEC_NMI, EVENT_NMI, false, 0);
    return true;
}

static void inject_interrupt(struct vcpu *v, struct vmcb *c, int vector)
{
    if (!(v->rflags & RFLAGS_IF) || (c->int_state & 1) || (c->event_inj & EVENT_INJ_VALID)) {
        open_interrupt_window(c);
        return;
    }
    close_interrupt_window(c);
    inject(c, (u8)vector, EVENT_INTERRUPT, false, 0);
    vcpu_accept_interrupt(v, (u8)vector);
}

/* Events in the order of their priority; at most one is delivered by an entry. */
static void prepare_events(struct vcpu *v, struct vmcb *c)
{
    int vector;

    c->event_inj = 0;
    if (v->event.valid) {
        inject(c, v->event.vector, v->event.type, v->event.has_error, v->event.error);
        v->event.valid = false;
    } else if (v->nmi_pending && inject_nmi(v, c)) {
        v->count[SOCLE_STAT_INJECTED]++;
    }
    vector = vcpu_next_interrupt(v);
    if (unlikely(vector == VCPU_WINDOW))
        open_interrupt_window(c);
    else if (unlikely(vector >= 0))
        inject_interrupt(v, c, vector);
    else if (unlikely(v->lapic.irr_words) && vlapic_blocked_by_tpr(&v->lapic))
        c->intercept_cr_write |= BIT(8);
    /* An interrupt that the guest can take at once goes in as a virtual one. The event field would
     * do as well, but QEMU (7.2) delivers that one again if the entry meets a request to its
     * thread. */
    if ((c->event_inj & (EVENT_INJ_VALID | EVENT_INJ_TYPE)) == EVENT_INJ_VALID &&
        !(c->int_ctl & INT_CTL_IRQ)) {
        c->int_ctl = (u32)c->int_ctl | INT_CTL_NOW | (c->event_inj & 0xff) << INT_CTL_VECTOR_SHIFT;
        c->event_inj = 0;
    }
}

/* ---- after the exit ---- */

/* An event whose delivery the exit interrupted comes again at the next entry; a software interrupt
 * does so by executing its instruction again. */
static void requeue_event(struct vcpu *v, struct vmcb *c)
{
    u64 info = c->exit_int_info;
    u8 type = info >> 8 & 7;
    bool injected = (c->event_inj | EVENT_INJ_VALID) == info;

    if (type == EVENT_SOFT && !injected)
        return;
    if (type == EVENT_EXCEPTION && ((info & 0xff) == VEC_BP || (info & 0xff) == 4) && !injected)
        return;
    v->event = (struct event){true, !!(info & EVENT_INJ_ERROR), (u8)info, type, (u32)(info >> 32)};
}

/* A virtual interrupt may have been forestalled, or interrupted, by the exit: then it comes again.
 * QEMU leaves it pending when its delivery is interrupted, and calls it an exception. */
static void end_virtual_interrupt(struct vcpu *v, struct vmcb *c)
{
    svm_recheck_interrupts();
    if (c->intercept1 & INTERCEPT(VINTR))
        return;
    if (c->int_ctl & INT_CTL_IRQ) {
        v->event = (struct event){true, false, (u8)(c->int_ctl >> INT_CTL_VECTOR_SHIFT),
                                  EVENT_INTERRUPT, 0};
        c->exit_int_info = 0;
    }
    c->int_ctl &= ~INT_CTL_NOW;
}

/* False: the instruction at rip is not `op` (any more), or not to be read; *action is what follows.
 */
static bool decode_next_rip(struct vcpu *v, enum insn_op op, enum vcpu_action *action)
{
    svm_get_sregs(v, &v->sregs);
    *action = exit_find_next_rip(v, op);
    return *action == VCPU_RESUME && v->next_rip != v->rip;
}

static bool find_next_rip(struct vcpu *v, enum insn_op op, enum vcpu_action *action)
{
    if (!svm_features.next_rip)
        return decode_next_rip(v, op, action);
    v->next_rip = vmcb_of(v)->next_rip;
    return true;
}

static enum vcpu_action handle_io(struct vcpu *v, struct vmcb *c)
{
    u64 info = c->exit_info1;

    v->count[SOCLE_STAT_IO]++;
    v->next_rip = c->exit_info2;
    if (likely(!(info & IOIO_STRING)))
        return exit_io(v, (u16)(info >> 16), IOIO_SIZE(info), info & IOIO_IN);
    svm_get_sregs(v, &v->sregs);
    return exit_emulate(v);
}

static enum vcpu_action handle_exception(struct vcpu *v, struct vmcb *c)
{
    u8 vector = (u8)(c->exit_code - SVM_EXIT_EXCP_BASE);

    v->count[SOCLE_STAT_EXCEPTION]++;
    if (vector == VEC_MC)
        panic("machine check");
    if (vector == VEC_UD)
        return vcpu_raise_ud(v);
    if (vector != VEC_AC)
        return debug_exception(v, vector);
    return vcpu_raise(v, vector, true, (u32)c->exit_info1);
}

/* The HLT right behind an STI is executed here. QEMU's VMRUN (before 9.1) does not load the
 * interrupt shadow: the guest would take the next interrupt ahead of its HLT, and then sleep
 * through what that interrupt told it. */
static enum vcpu_action handle_interrupt(struct vcpu *v, struct vmcb *c)
{
    enum vcpu_action action = VCPU_RESUME;

    v->count[SOCLE_STAT_INTERRUPT]++;
    svm_take_interrupts();
    if (unlikely(c->int_state & 1) && !c->cpl && decode_next_rip(v, INSN_HLT, &action))
        return exit_hlt(v);
    return action;
}

static enum vcpu_action emulate(struct vcpu *v)
{
    v->count[SOCLE_STAT_CR]++;
    svm_get_sregs(v, &v->sregs);
    return exit_emulate(v);
}

static enum vcpu_action dispatch_exit(struct vcpu *v, struct vmcb *c)
{
    enum vcpu_action action;

    switch (c->exit_code) {
    case SVM_EXIT_CPUID:
        return find_next_rip(v, INSN_CPUID, &action) ? exit_cpuid(v, c->cr4) : action;
    case SVM_EXIT_VMMCALL:
        return find_next_rip(v, INSN_VMMCALL, &action)
                   ? exit_hypercall(v, c->cpl, (c->efer & EFER_LMA) && (c->cs.attr & BIT(9)))
                   : action;
    case SVM_EXIT_MSR:
        if (!find_next_rip(v, c->exit_info1 ? INSN_WRMSR : INSN_RDMSR, &action))
            return action;
        return c->exit_info1 ? exit_wrmsr(v) : exit_rdmsr(v);
    case SVM_EXIT_IOIO:
        return handle_io(v, c);
    case SVM_EXIT_NPF:
        svm_get_sregs(v, &v->sregs);
        return exit_npf(v, c->exit_info2, c->exit_info1 & NPF_WRITE, c->exit_info1 & NPF_FETCH);
    case SVM_EXIT_INTR:
        return handle_interrupt(v, c);
    case SVM_EXIT_VINTR:
        v->count[SOCLE_STAT_WINDOW]++;
        close_interrupt_window(c);
        return VCPU_RESUME;
    case SVM_EXIT_HLT:
        return find_next_rip(v, INSN_HLT, &action) ? exit_hlt(v) : action;
    case SVM_EXIT_PAUSE:
        return exit_pause(v);
    case SVM_EXIT_WRITE_CR8:
        c->intercept_cr_write &= (u16)~BIT(8);
        return emulate(v);
    case SVM_EXIT_READ_DR0 ... SVM_EXIT_WRITE_DR15:
    case SVM_EXIT_SWINT:
        return emulate(v);
    case SVM_EXIT_EXCP_BASE + VEC_DB:
    case SVM_EXIT_EXCP_BASE + VEC_BP:
    case SVM_EXIT_EXCP_BASE + VEC_UD:
    case SVM_EXIT_EXCP_BASE + VEC_AC:
    case SVM_EXIT_EXCP_BASE + VEC_MC:
        return handle_exception(v, c);
    case SVM_EXIT_IRET: /* still to come: a further NMI waits for the exit after this one */
        c->intercept1 &= ~INTERCEPT(IRET);
        v->nmi_masked = false;
        return VCPU_RESUME;
    case SVM_EXIT_XSETBV:
        return find_next_rip(v, INSN_XSETBV, &action) ? exit_xsetbv(v, c->cpl, c->cr4) : action;
    case SVM_EXIT_WBINVD:
        v->count[SOCLE_STAT_OTHER]++;
        return find_next_rip(v, INSN_WBINVD, &action) ? vcpu_skip(v) : action;
    case SVM_EXIT_INVD: /* it would throw away others' data */
        v->count[SOCLE_STAT_OTHER]++;
        return find_next_rip(v, INSN_INVD, &action) ? vcpu_skip(v) : action;
    case SVM_EXIT_RDPMC:
        v->count[SOCLE_STAT_OTHER]++;
        return vcpu_raise_gp(v);
    case SVM_EXIT_NMI:
    case SVM_EXIT_SMI: /* it is taken where GIF is set next; RSM is not the guest's */
    case SVM_EXIT_INIT:
        return handle_interrupt(v, c);
    case SVM_EXIT_SHUTDOWN:
        return vcpu_shutdown(v);
    case SVM_EXIT_RSM:
    case SVM_EXIT_INVLPGA:
    case SVM_EXIT_VMRUN:
    case SVM_EXIT_VMLOAD ... SVM_EXIT_SKINIT: /* VMSAVE, STGI, CLGI between them */
    case SVM_EXIT_MONITOR ... SVM_EXIT_MWAIT_ARMED:
    case SVM_EXIT_RDPRU:
        v->count[SOCLE_STAT_OTHER]++;
        return vcpu_raise_ud(v);
    default:
        return vcpu_fail(v, c->exit_code, c->exit_info1, c->exit_info2);
    }
}

/* ---- the loop ---- */

static void enter_guest(struct vcpu *v, struct vmcb *c)
{
    if (unlikely(v->retired)) {
        c->int_state &= ~1ull;
        v->retired = false;
    }
    if (unlikely(v->cr2_dirty)) {
        c->cr2 = v->sregs.cr2;
        v->cr2_dirty = false;
    }
    prepare_events(v, c);
    c->tlb_control = 0;
    if (unlikely(vcpu_enter(v)) || v->tag_generation != this_cpu()->asid_generation)
        assign_tag(v, c);
    c->int_ctl = (c->int_ctl & ~INT_CTL_TPR) | vlapic_cr8(&v->lapic);
    c->rax = v->gpr[RAX];
    c->rsp = v->gpr[RSP];
    c->rip = v->rip;
    c->rflags = v->rflags;
    svm_enter(v->gpr, virt_to_phys(c));
    v->gpr[RAX] = c->rax;
    v->gpr[RSP] = c->rsp;
    v->rip = c->rip;
    v->rflags = c->rflags;
    v->count[SOCLE_STAT_EXITS]++;
    vlapic_set_cr8(&v->lapic, c->int_ctl & INT_CTL_TPR);
    if (unlikely(c->int_ctl & INT_CTL_IGNORE_TPR))
        end_virtual_interrupt(v, c);
    if (unlikely(c->exit_int_info & EVENT_INJ_VALID))
        requeue_event(v, c);
}

/* The work is looked at once: what another processor adds after that comes with a kick, which ends
 * the entry at once; and a question to dom0 that cannot be asked yet stays pending on purpose. */
static enum vcpu_action run_once(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);

    if (unlikely(__atomic_load_n(&v->pending, __ATOMIC_ACQUIRE))) {
        enum vcpu_action action = vcpu_pending_work(v);

        if (action != VCPU_RESUME)
            return action;
    }
    enter_guest(v, c);
    return dispatch_exit(v, c);
}

enum vcpu_action svm_run(struct vcpu *v)
{
    enum vcpu_action action = VCPU_RESUME;

    while (action == VCPU_RESUME)
        action = run_once(v);
    return action;
}
