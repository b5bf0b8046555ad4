/* SPDX-License-Identifier: BSD-2-Clause */
/* Intel VMX: the run loop, injection, and the decoding of exits. */
#include "core/cpuid.h"
#include "core/debug.h"
#include "core/exits.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/log.h"
#include "core/pcpu.h"
#include "drivers/tsc.h"
#include "vmx/vmx.h"

#define ENTRY_FAILED BIT(31) /* of the exit reason */

#define IO_SIZE(qualification) ((u8)(((qualification)&7) + 1))
#define IO_IN                  BIT(3)
#define IO_STRING              BIT(4)

#define EPT_WRITE         BIT(1)
#define EPT_FETCH         BIT(2)
#define EPT_NMI_UNBLOCKED BIT(12)

#define CR_NUMBER(qualification) ((qualification)&0xf)
#define CR_GPR(qualification)    ((qualification) >> 8 & 0xf)

#define PDPTE_RESERVED 0x1e6ull

#define RIGHTS_LONG   BIT(13) /* CS: 64-bit code */
#define RIGHTS_TSS_32 BIT(3)  /* TR: not a 16-bit TSS */

/* Bochs (2.7) makes no exit for an interrupt while the guest has interrupts off: this timer then
 * is what takes the processor back. */
#define LONGEST_ENTRY_MS 10

/* ---- before the entry ---- */

/* An error code is pushed in protected mode only (Intel SDM vol. 3C, 27.2.1.3). */
static void inject(const struct event *e)
{
    bool has_error = e->has_error && (vmread(VMCS_GUEST_CR0) & CR0_PE);

    vmwrite(VMCS_ENTRY_INTR_INFO,
            e->vector | (u64)e->type << 8 | INTR_INFO_VALID | (has_error ? INTR_INFO_ERROR : 0));
    if (has_error)
        vmwrite(VMCS_ENTRY_INTR_ERROR, (u16)e->error);
}

/* An event on its way in is the end of the shadow, and of a wait for IRET if it is an NMI: the
 * entry does not take them together (Intel SDM vol. 3C, 27.3.1.5). A software interrupt, which only
 * dom0 can leave here, comes by executing its instruction again. */
static void inject_again(struct vcpu *v)
{
    u64 state = vmread(VMCS_INTERRUPTIBILITY);
    u64 over = SHADOW | (v->event.type == EVENT_NMI ? BLOCKED_BY_NMI : 0);

    v->event.valid = false;
    if (unlikely(v->event.type >= EVENT_SOFT))
        return;
    if (unlikely(state & over))
        vmwrite(VMCS_INTERRUPTIBILITY, state & ~over);
    inject(&v->event);
}

static void set_proc(struct vcpu *v, u32 controls)
{
    vmx_of(v)->proc = controls;
    vmwrite(VMCS_PROC, controls);
}

static void open_window(struct vcpu *v, u32 window)
{
    if (!(vmx_of(v)->proc & window))
        set_proc(v, vmx_of(v)->proc | window);
}

static enum vcpu_action close_window(struct vcpu *v, u32 window)
{
    v->count[SOCLE_STAT_WINDOW]++;
    set_proc(v, vmx_of(v)->proc & ~window);
    return VCPU_RESUME;
}

/* The processor keeps the next NMI out until the IRET of this one's handler. */
static bool inject_nmi(struct vcpu *v)
{
    if (v->irq_blocked)
        return false;
    if (vmread(VMCS_INTERRUPTIBILITY) & (SHADOW | BLOCKED_BY_NMI)) {
        open_window(v, PROC_NMI_WINDOW);
        return false;
    }
    v->nmi_pending = false;
    inject(&(struct event){.vector = VEC_NMI, .type = EVENT_NMI});
    v->count[SOCLE_STAT_INJECTED]++;
    return true;
}

static void inject_interrupt(struct vcpu *v, bool busy, u8 vector)
{
    if (busy || !(v->rflags & RFLAGS_IF) || (vmread(VMCS_INTERRUPTIBILITY) & SHADOW)) {
        open_window(v, PROC_INTERRUPT_WINDOW);
        return;
    }
    inject(&(struct event){.vector = vector, .type = EVENT_INTERRUPT});
    vcpu_accept_interrupt(v, vector);
    if (v->lapic.virtualized)
        vmx_sync_interrupts(v);
}

/* Events in the order of their priority; at most one is delivered by an entry. */
static void prepare_events(struct vcpu *v)
{
    bool busy = v->event.valid;
    int vector;

    if (busy)
        inject_again(v);
    if (unlikely(v->nmi_pending)) {
        if (busy)
            open_window(v, PROC_NMI_WINDOW);
        else
            busy = inject_nmi(v);
    }
    vector = vcpu_next_interrupt(v);
    if (unlikely(vector == VCPU_WINDOW))
        open_window(v, PROC_INTERRUPT_WINDOW);
    else if (unlikely(vector >= 0))
        inject_interrupt(v, busy, (u8)vector);
    else if (unlikely(v->lapic.irr_words) && vlapic_blocked_by_tpr(&v->lapic))
        open_window(v, PROC_CR8_LOAD); /* looked at again when the guest writes TPR */
    else if (unlikely(v->lapic.irr_words) && v->lapic.virtualized)
        vmx_sync_interrupts(v); /* ... or ends another */
}

/* PAE paging's four entries, which MOV to CR0 and CR3 load (Intel SDM vol. 3A, 4.4.1). */
static enum vcpu_action load_pdptes(struct vcpu *v)
{
    struct socle_sregs *s = &v->sregs;
    u64 pdpte[4];
    int err;

    vmx_of(v)->pdptes_due = false;
    vmx_get_sregs(v, s);
    if (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || (s->efer & EFER_LMA))
        return VCPU_RESUME;
    err = gmem_access(v, s->cr3 & 0xffffffe0, pdpte, sizeof(pdpte), 0);
    if (err == -E_AGAIN) {
        vmx_of(v)->pdptes_due = true;
        return vcpu_exit(v, SOCLE_EXIT_FAULT);
    }
    for (u32 i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i,
                err || (pdpte[i] & (PDPTE_RESERVED | ~host_phys_mask)) ? 0 : pdpte[i]);
    return VCPU_RESUME;
}

/* ---- after the exit ---- */

/* An event whose delivery the exit interrupted comes again at the next entry; a software interrupt
 * or exception does so by executing its instruction again. */
static void requeue_event(struct vcpu *v)
{
    u32 info = (u32)vmread(VMCS_IDT_INFO);
    u8 type = info >> 8 & 7;

    if (likely(!(info & INTR_INFO_VALID)) || type >= EVENT_SOFT)
        return;
    v->event = (struct event){true, !!(info & INTR_INFO_ERROR), (u8)info, type,
                              (u32)vmread(VMCS_IDT_ERROR)};
}

static bool long_code(void)
{
    return (vmread(VMCS_GUEST_EFER) & EFER_LMA) &&
           (vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS) & RIGHTS_LONG);
}

/* EIP wraps. */
static void find_next_rip(struct vcpu *v)
{
    v->next_rip = v->rip + vmread(VMCS_EXIT_LENGTH);
    if (unlikely((v->next_rip ^ v->rip) >> 32) && !long_code())
        v->next_rip = (u32)v->next_rip;
}

/* The instruction that exited is `handler`'s. */
static enum vcpu_action skip(struct vcpu *v, enum vcpu_action (*handler)(struct vcpu *))
{
    find_next_rip(v);
    return handler(v);
}

static u8 cpl(void)
{
    return vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_SS) >> 5 & 3;
}

static enum vcpu_action emulate(struct vcpu *v)
{
    vmx_get_sregs(v, &v->sregs);
    return exit_emulate(v);
}

static enum vcpu_action handle_io(struct vcpu *v)
{
    u64 q = vmread(VMCS_QUALIFICATION);

    v->count[SOCLE_STAT_IO]++;
    find_next_rip(v);
    if (unlikely(q & IO_STRING))
        return emulate(v);
    return exit_io(v, (u16)(q >> 16), IO_SIZE(q), q & IO_IN);
}

/* NMIs were unblocked by an IRET that has not come to its end (Intel SDM vol. 3C, 28.2.3). */
static void block_nmi_again(const struct vcpu *v, u64 q)
{
    if (unlikely(q & EPT_NMI_UNBLOCKED) && !v->event.valid)
        vmwrite(VMCS_INTERRUPTIBILITY, vmread(VMCS_INTERRUPTIBILITY) | BLOCKED_BY_NMI);
}

static enum vcpu_action handle_ept_violation(struct vcpu *v)
{
    u64 q = vmread(VMCS_QUALIFICATION);

    block_nmi_again(v, q);
    vmx_get_sregs(v, &v->sregs);
    return exit_npf(v, vmread(VMCS_GUEST_PHYSICAL), q & EPT_WRITE, q & EPT_FETCH);
}

/* Into and out of long mode (Intel SDM vol. 3A, 4.10.1 and 10.8.5); else the entry would fail. */
static bool may_switch_paging(bool on)
{
    u64 efer = vmread(VMCS_GUEST_EFER), cr4 = vmread(VMCS_GUEST_CR4);
    u64 cs = vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS);
    u64 tr = vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_TR);

    if (!on)
        return !(cr4 & CR4_PCIDE) && !long_code();
    if (!(efer & EFER_LME))
        return true;
    return (cr4 & CR4_PAE) && ((efer & EFER_LMA) || (!(cs & RIGHTS_LONG) && (tr & RIGHTS_TSS_32)));
}

/* The guest wants one of the bits that it does not own. */
static enum vcpu_action move_to_cr0(struct vcpu *v, u64 cr0)
{
    if (!cr0_is_legal(cr0) || !may_switch_paging(cr0 & CR0_PG))
        return vcpu_raise_gp(v);
    vmx_set_cr0(v, cr0 | CR0_ET);
    return vcpu_skip(v);
}

static enum vcpu_action handle_cr(struct vcpu *v)
{
    u64 q = vmread(VMCS_QUALIFICATION);
    u64 value = CR_GPR(q) == RSP ? vmread(VMCS_GUEST_RSP) : v->gpr[CR_GPR(q)];

    v->count[SOCLE_STAT_CR]++;
    find_next_rip(v);
    switch (CR_NUMBER(q)) {
    case 0:
        return move_to_cr0(v, value);
    case 4:
        return vcpu_raise_gp(v);
    default:
        if (vmx_features.proc & PROC_TPR_SHADOW)
            set_proc(v, vmx_of(v)->proc & ~(u32)PROC_CR8_LOAD);
        return emulate(v);
    }
}

static enum vcpu_action handle_exception(struct vcpu *v)
{
    u32 info = (u32)vmread(VMCS_EXIT_INTR_INFO);

    if ((info >> 8 & 7) == EVENT_NMI) { /* more of them stay blocked until an IRET */
        __asm__ volatile("int $2" : : : "memory");
        return VCPU_RESUME;
    }
    v->count[SOCLE_STAT_EXCEPTION]++;
    if ((u8)info == VEC_MC)
        panic("machine check");
    if ((u8)info == VEC_UD)
        return vcpu_raise_ud(v);
    if ((u8)info == VEC_DB) /* the exit has not changed DR6 (Intel SDM vol. 3C, 28.1) */
        write_dr6(read_dr6() | vmread(VMCS_QUALIFICATION));
    if ((u8)info == VEC_DB || (u8)info == VEC_BP)
        return debug_exception(v, (u8)info);
    return vcpu_raise(v, (u8)info, info & INTR_INFO_ERROR, (u32)vmread(VMCS_EXIT_INTR_ERROR));
}

/* Also where an interrupt waits that made no exit (see LONGEST_ENTRY_MS). */
static enum vcpu_action handle_preemption_timer(struct vcpu *v)
{
    v->count[SOCLE_STAT_INTERRUPT]++;
    vmx_take_interrupts();
    if (rdtsc() >= this_cpu()->timer_deadline)
        vcpu_set_pending(v, PENDING_RESCHED);
    return VCPU_RESUME;
}

/* Dom0 makes the switch (Intel SDM vol. 3C, 26.4.2); its own kernel makes none. The processor has
 * checked the way to the TSS's descriptor; what comes by a task gate and is no instruction's is in
 * v->event. */
static enum vcpu_action handle_task_switch(struct vcpu *v)
{
    u64 q = vmread(VMCS_QUALIFICATION), state = vmread(VMCS_INTERRUPTIBILITY) & ~BLOCKED_BY_NMI;
    u8 source = q >> 30 & 3;

    v->count[SOCLE_STAT_OTHER]++;
    if (!v->page)
        return vcpu_raise_gp(v);
    v->next_rip = v->rip;
    if (!v->event.valid)
        find_next_rip(v);
    if (source == SOCLE_TASK_IRET)
        vmwrite(VMCS_INTERRUPTIBILITY, state);
    else if (v->event.valid && v->event.type == EVENT_NMI)
        vmwrite(VMCS_INTERRUPTIBILITY, state | BLOCKED_BY_NMI);
    v->page->task.next_rip = v->next_rip;
    v->page->task.selector = (u16)q;
    v->page->task.source = source;
    return vcpu_exit(v, SOCLE_EXIT_TASK);
}

/* The processor has ended it; others may have waited for that. */
static enum vcpu_action handle_eoi(struct vcpu *v)
{
    u8 vector = (u8)vmread(VMCS_QUALIFICATION);

    v->count[SOCLE_STAT_OTHER]++;
    vmx_sync_interrupts(v);
    if (vlapic_is_level(&v->lapic, vector))
        vcpu_apply_effect(v, &(struct vlapic_effect){.flags = VLAPIC_EOI, .eoi_vector = vector});
    return VCPU_RESUME;
}

static enum vcpu_action dispatch_exit(struct vcpu *v, u32 reason)
{
    switch (reason) {
    case VMX_EXIT_CPUID:
        find_next_rip(v);
        return exit_cpuid(v, vmread(VMCS_GUEST_CR4));
    case VMX_EXIT_VMCALL:
        find_next_rip(v);
        return exit_hypercall(v, cpl(), long_code());
    case VMX_EXIT_RDMSR:
        return skip(v, exit_rdmsr);
    case VMX_EXIT_WRMSR:
        return skip(v, exit_wrmsr);
    case VMX_EXIT_IO:
        return handle_io(v);
    case VMX_EXIT_EPT_VIOLATION:
        return handle_ept_violation(v);
    case VMX_EXIT_LOG_FULL: /* dom0 empties it before it runs the vCPU again */
        v->count[SOCLE_STAT_OTHER]++;
        block_nmi_again(v, vmread(VMCS_QUALIFICATION));
        vmwrite(VMCS_LOG_INDEX, SOCLE_DIRTY_MAX - 1);
        return vcpu_exit(v, SOCLE_EXIT_DIRTY);
    case VMX_EXIT_INTERRUPT: /* the processor has acknowledged it */
        v->count[SOCLE_STAT_INTERRUPT]++;
        irq_physical((u8)vmread(VMCS_EXIT_INTR_INFO));
        return VCPU_RESUME;
    case VMX_EXIT_PREEMPTION_TIMER:
        return handle_preemption_timer(v);
    case VMX_EXIT_PAUSE:
        return exit_pause(v);
    case VMX_EXIT_EOI:
        return handle_eoi(v);
    case VMX_EXIT_INTERRUPT_WINDOW:
        return close_window(v, PROC_INTERRUPT_WINDOW);
    case VMX_EXIT_NMI_WINDOW:
        return close_window(v, PROC_NMI_WINDOW);
    case VMX_EXIT_HLT:
        return skip(v, exit_hlt);
    case VMX_EXIT_CR:
        return handle_cr(v);
    case VMX_EXIT_DR:
        v->count[SOCLE_STAT_CR]++;
        return emulate(v);
    case VMX_EXIT_EXCEPTION:
        return handle_exception(v);
    case VMX_EXIT_TASK_SWITCH:
        return handle_task_switch(v);
    case VMX_EXIT_XSETBV:
        find_next_rip(v);
        return exit_xsetbv(v, cpl(), vmread(VMCS_GUEST_CR4));
    case VMX_EXIT_WBINVD:
    case VMX_EXIT_INVD: /* it would throw away others' data */
        v->count[SOCLE_STAT_OTHER]++;
        return skip(v, vcpu_skip);
    case VMX_EXIT_RDPMC:
        v->count[SOCLE_STAT_OTHER]++;
        return vcpu_raise_gp(v);
    case VMX_EXIT_INIT: /* of one processor alone; nobody sends it to a running machine */
        return VCPU_RESUME;
    case VMX_EXIT_TRIPLE_FAULT:
        return vcpu_shutdown(v);
    case VMX_EXIT_VMCLEAR ... VMX_EXIT_VMXON:
    case VMX_EXIT_GETSEC:
    case VMX_EXIT_RSM:
    case VMX_EXIT_INVEPT:
    case VMX_EXIT_INVVPID:
    case VMX_EXIT_MONITOR:
    case VMX_EXIT_MWAIT:
        v->count[SOCLE_STAT_OTHER]++;
        return vcpu_raise_ud(v);
    default:
        return vcpu_fail(v, reason, vmread(VMCS_QUALIFICATION), vmread(VMCS_GUEST_PHYSICAL));
    }
}

/* ---- the loop ---- */

static void arm_preemption_timer(void)
{
    u64 now = rdtsc(), deadline = this_cpu()->timer_deadline, ticks;

    if (!(vmx_features.pin & PIN_PREEMPTION_TIMER))
        return;
    ticks = deadline > now ? MIN(deadline - now, tsc_khz * LONGEST_ENTRY_MS) : 0;
    vmwrite(VMCS_PREEMPTION_TIMER, (ticks >> vmx_features.timer_shift) + 1);
}

static void end_shadow(struct vcpu *v)
{
    u64 state = vmread(VMCS_INTERRUPTIBILITY);

    v->retired = false;
    if (unlikely(state & SHADOW))
        vmwrite(VMCS_INTERRUPTIBILITY, state & ~(u64)SHADOW);
}

/* False: the processor refused. */
static bool enter_guest(struct vcpu *v)
{
    if (v->retired)
        end_shadow(v);
    if (unlikely(v->cr2_dirty)) {
        write_cr2(v->sregs.cr2);
        v->cr2_dirty = false;
    }
    prepare_events(v);
    if (unlikely(vcpu_enter(v)))
        vmx_flush(v);
    arm_preemption_timer();
    vmwrite(VMCS_GUEST_RSP, v->gpr[RSP]);
    vmwrite(VMCS_GUEST_RIP, v->rip);
    vmwrite(VMCS_GUEST_RFLAGS, v->rflags);
    if (unlikely(!vmx_enter(v->gpr, vmx_of(v)->launched)))
        return false;
    vmx_of(v)->launched = true;
    v->gpr[RSP] = vmread(VMCS_GUEST_RSP);
    v->rip = vmread(VMCS_GUEST_RIP);
    v->rflags = vmread(VMCS_GUEST_RFLAGS);
    v->count[SOCLE_STAT_EXITS]++;
    requeue_event(v);
    return true;
}

/* What the entry's checks are about (Intel SDM vol. 3C, 27.3.1). */
static enum vcpu_action entry_failed(struct vcpu *v, u64 reason)
{
    log_limited(
        "VM entry: cr0 %lx cr3 %lx cr4 %lx efer %lx rflags %lx, cs %lx ss %lx tr %lx, event %lx, "
        "shadow %lx",
        vmread(VMCS_GUEST_CR0), vmread(VMCS_GUEST_CR3), vmread(VMCS_GUEST_CR4),
        vmread(VMCS_GUEST_EFER), v->rflags, vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS),
        vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_SS), vmread(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_TR),
        vmread(VMCS_ENTRY_INTR_INFO), vmread(VMCS_INTERRUPTIBILITY));
    vmwrite(VMCS_ENTRY_INTR_INFO, 0);
    if ((reason & 0xffff) == VMX_EXIT_MACHINE_CHECK)
        panic("machine check");
    return vcpu_fail(v, reason, vmread(VMCS_QUALIFICATION), vmread(VMCS_INSTRUCTION_ERROR));
}

/* The work is looked at once: what another processor adds after that comes with a kick, which ends
 * the entry at once; and a question to dom0 that cannot be asked yet stays pending on purpose. */
static enum vcpu_action run_once(struct vcpu *v)
{
    enum vcpu_action action = VCPU_RESUME;
    u32 reason;

    if (unlikely(__atomic_load_n(&v->pending, __ATOMIC_ACQUIRE)))
        action = vcpu_pending_work(v);
    if (unlikely(vmx_of(v)->pdptes_due) && action == VCPU_RESUME)
        action = load_pdptes(v);
    if (unlikely(action != VCPU_RESUME))
        return action;
    if (unlikely(!enter_guest(v)))
        return entry_failed(v, ENTRY_FAILED);
    reason = (u32)vmread(VMCS_EXIT_REASON);
    if (unlikely(reason & ENTRY_FAILED))
        return entry_failed(v, reason);
    return dispatch_exit(v, reason & 0xffff);
}

enum vcpu_action vmx_run(struct vcpu *v)
{
    enum vcpu_action action = VCPU_RESUME;

    while (action == VCPU_RESUME)
        action = run_once(v);
    return action;
}
