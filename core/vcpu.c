/* SPDX-License-Identifier: BSD-2-Clause */
/* vCPUs: creation, waking and stopping, exits to dom0, and what the run loops need. */
#include "core/vcpu.h"
#include "core/cpuid.h"
#include "core/debug.h"
#include "core/event.h"
#include "core/exits.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/msr.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/pvclock.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

#define NOT_LOADED  (~0u)
#define RAN_WAITING (-1)

_Static_assert(sizeof(struct vcpu) <= PAGE_SIZE, "a vCPU is one page");

struct vcpu *vcpu_table[SOCLE_MAX_VCPUS];
static struct spinlock table_lock;

/* ---- creation ---- */

static void reset_sregs(struct socle_sregs *s)
{
    memset(s, 0, sizeof(*s));
    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++)
        s->seg[i] = (struct socle_segment){.limit = 0xffff, .attr = 0x93};
    s->seg[SOCLE_SEG_CS] = (struct socle_segment){
        .base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .attr = 0x9b};
    s->seg[SOCLE_SEG_LDTR] = (struct socle_segment){.limit = 0xffff, .attr = 0x82};
    s->seg[SOCLE_SEG_TR] = (struct socle_segment){.limit = 0xffff, .attr = 0x8b};
    s->gdt_limit = s->idt_limit = 0xffff;
    s->cr0 = CR0_ET | CR0_NW | CR0_CD;
}

void vcpu_reset(struct vcpu *v)
{
    struct socle_sregs s;
    struct socle_debug debug = {.dr6 = 0xffff0ff0, .dr7 = 0x400};

    vlapic_reset(&v->lapic, true);
    memset(v->gpr, 0, sizeof(v->gpr));
    v->gpr[RDX] = 0x600;
    v->rip = 0xfff0;
    v->rflags = RFLAGS_FIXED;
    v->event.valid = false;
    v->nmi_masked = v->nmi_pending = false; /* not sipi_pending: one may have come since the INIT */
    v->extint_ready = false;
    v->io.kind = IO_NONE;
    reset_sregs(&s);
    vendor->set_sregs(v, &s);
    vendor->set_debug(v, &debug);
    vendor->set_shadow(v, false);
    vcpu_apic_changed(v);
}

static int allocate_parts(struct vcpu *v)
{
    struct charge *charge = &v->domain->charge;

    v->xsave_area = pool_alloc(charge);
    v->cpuid = pool_alloc(charge);
    v->lapic.reg = pool_alloc(charge);
    if (!v->xsave_area || !v->cpuid || !v->lapic.reg)
        return -E_NOMEM;
    if (v->domain->npt.lends && vendor->npt_format->log) {
        v->dirty_log = pool_alloc(charge);
        if (!v->dirty_log)
            return -E_NOMEM;
        memset(v->dirty_log, 0xff, PAGE_SIZE); /* DIRTY_NONE */
    }
    return vendor->vcpu_init(v);
}

static void free_parts(struct vcpu *v)
{
    struct charge *charge = &v->domain->charge;

    vendor->vcpu_free(v);
    pool_free(v->xsave_area, charge);
    pool_free(v->cpuid, charge);
    pool_free(v->lapic.reg, charge);
    pool_free(v->dirty_log, charge);
    pool_free(v, charge);
}

static int reserve_handle(struct vcpu *v)
{
    u32 i;

    spin_lock(&table_lock);
    for (i = 0; i < SOCLE_MAX_VCPUS && vcpu_table[i]; i++)
        ;
    if (i < SOCLE_MAX_VCPUS)
        vcpu_table[i] = v;
    spin_unlock(&table_lock);
    v->handle = i;
    return i < SOCLE_MAX_VCPUS ? 0 : -E_NOSPC;
}

/* There is room, and the APIC id is new. */
static int check_new(const struct domain *d, u32 apic_id)
{
    if (d->vcpu_count == DOMAIN_MAX_VCPUS)
        return -E_NOSPC;
    for (u32 i = 0; i < d->vcpu_count; i++)
        if (d->vcpus[i]->apic_id == apic_id)
            return -E_EXIST;
    return 0;
}

void vcpu_follow_affinity(struct vcpu *v)
{
    u64 mask = v->domain->affinity, affinity[SCHED_CPU_WORDS];

    memset(affinity, mask ? 0 : 0xff, sizeof(affinity));
    affinity[0] = mask ? mask : ~0ull;
    pcpu_kick(sched_set_affinity(&v->se, affinity, rdtsc()));
}

static void init_vcpu(struct vcpu *v, u32 apic_id, u32 port)
{
    struct domain *d = v->domain;

    v->apic_id = apic_id;
    v->port = port;
    v->cpu_loaded = NOT_LOADED;
    vlapic_init(&v->lapic, v->lapic.reg, apic_id, d->vcpu_count == 0, (u32)tsc_khz);
    v->activity =
        d->vcpu_count == 0 || !domain_has(d, DOMAIN_LAPIC) ? ACTIVITY_RUN : ACTIVITY_WAIT_SIPI;
    v->pending = PENDING_EVENT;
    sched_entity_init(&v->se, this_cpu()->id);
    sched_set_weight(&v->se, d->weight, rdtsc());
    vcpu_follow_affinity(v);
    /* All components in their initial state: x87 control word and MXCSR alone are not zero. */
    v->xcr0 = 1;
    *(u16 *)v->xsave_area = 0x037f;
    *(u32 *)((char *)v->xsave_area + 24) = 0x1f80;
    vcpu_reset(v);
    if (!domain_has(d, DOMAIN_LAPIC))
        vlapic_set_base(&v->lapic, APIC_DEFAULT_PA, true, &(struct vlapic_effect){0});
}

/* From the handle on anybody can find v, so nothing may fail any more; and without its page nobody
 * can run it, so that comes last. */
static int create_locked(struct domain *d, u32 apic_id, paddr_t page_pa, u32 port)
{
    struct vcpu *v = pool_alloc(&d->charge);
    int err;

    if (!v)
        return -E_NOMEM;
    v->domain = d;
    err = allocate_parts(v);
    if (!err) {
        init_vcpu(v, apic_id, port);
        err = reserve_handle(v);
    }
    if (err) {
        free_parts(v);
        return err;
    }
    d->vcpus[d->vcpu_count] = v;
    __atomic_store_n(&d->vcpu_count, d->vcpu_count + 1, __ATOMIC_RELEASE);
    if (page_pa)
        __atomic_store_n(&v->page, paging_map_shared(v->handle, page_pa), __ATOMIC_RELEASE);
    return (int)v->handle;
}

int vcpu_create(struct domain *d, u32 apic_id, paddr_t page_pa, u32 port)
{
    int ret;

    spin_lock(&d->lock);
    ret = check_new(d, apic_id);
    if (!ret)
        ret = create_locked(d, apic_id, page_pa, port);
    spin_unlock(&d->lock);
    return ret;
}

void vcpu_destroy(struct vcpu *v)
{
    if (v->page)
        paging_unmap_shared(v->handle);
    spin_lock(&table_lock);
    vcpu_table[v->handle] = NULL;
    spin_unlock(&table_lock);
    free_parts(v);
}

struct vcpu *vcpu_get(u64 handle)
{
    struct vcpu *v;

    if (handle >= SOCLE_MAX_VCPUS)
        return NULL;
    spin_lock(&table_lock);
    v = vcpu_table[handle];
    if (v && !domain_get_of(v->domain))
        v = NULL;
    spin_unlock(&table_lock);
    return v;
}

/* ---- waking and stopping ---- */

static void wake(struct vcpu *v)
{
    pcpu_kick(sched_wake(&v->se, rdtsc()));
}

void vcpu_notify(struct vcpu *v)
{
    vcpu_set_pending(v, PENDING_EVENT);
    if (!pcpu_has(v)) /* it looks before it enters the guest, and before it blocks */
        wake(v);
}

void vcpu_post(struct vcpu *v, u8 vector, bool level)
{
    if (vlapic_post(&v->lapic, vector, level))
        vcpu_notify(v);
}

static bool wants_interrupt_of_dom0(struct vcpu *v)
{
    if (v->extint_ready || v->irq_blocked)
        return false;
    return (v->irq_window || v->extint_pending) && vlapic_accepts_extint(&v->lapic);
}

bool vcpu_has_event(struct vcpu *v)
{
    if (__atomic_load_n(&v->pending, __ATOMIC_ACQUIRE) & (PENDING_TIMER | PENDING_STEP))
        return true;
    if (v->activity == ACTIVITY_WAIT_SIPI || v->activity == ACTIVITY_WAIT_INIT)
        return v->init_pending || v->sipi_pending;
    if (v->event.valid || v->init_pending || (v->nmi_pending && !v->nmi_masked) || v->kicked)
        return true;
    if (!(v->rflags & RFLAGS_IF) || v->irq_blocked)
        return false;
    return vlapic_pending(&v->lapic) >= 0 || v->extint_ready || wants_interrupt_of_dom0(v);
}

/* ---- dom0's vCPU inside RUN, and the vCPU that it waits for ---- */

/* Takes the waiter off v: whoever does it ends the wait. */
static struct vcpu *claim_waiter(struct vcpu *v)
{
    return __atomic_exchange_n(&v->waiter, NULL, __ATOMIC_SEQ_CST);
}

bool vcpu_settled(struct vcpu *v)
{
    if (sched_state(&v->se) != SCHED_STOPPED)
        return false;
    /* Its processor is on the way from that decision to sched_release(), and waits for nothing. */
    while (sched_loaded(&v->se))
        cpu_relax();
    return true;
}

/* v does not run any more: if somebody waits for it, RUN returns `result` there. */
static void end_run(struct vcpu *v, s64 result)
{
    struct vcpu *waiter = claim_waiter(v);

    if (waiter) {
        __atomic_store_n(&waiter->wait_result, result, __ATOMIC_RELEASE);
        wake(waiter);
    }
}

/* What KVM_RUN gives its user with whatever ends it. */
static void describe(struct vcpu *v)
{
    struct socle_vcpu_page *p = v->page;

    p->extint_open = !v->extint_ready && vlapic_accepts_extint(&v->lapic);
    p->rip = v->rip;
    p->rflags = v->rflags;
    p->cr8 = vlapic_cr8(&v->lapic);
    p->apic_base = vcpu_apic_base(v);
}

int vcpu_stop(struct vcpu *v)
{
    if (sched_stop(&v->se)) {
        pcpu_kick((int)sched_cpu(&v->se));
        return -E_AGAIN;
    }
    end_run(v, SOCLE_RAN_INTERRUPTED);
    if (sched_loaded(&v->se))
        return -E_AGAIN;
    if (v->page) /* a new vCPU has none for a moment */
        describe(v);
    return 0;
}

/* RUN returns now, with `result` unless the other side has decided already. */
static void finish_wait(struct vcpu *d)
{
    struct vcpu *v = d->waiting_on, *expected = d;

    if (__atomic_compare_exchange_n(&v->waiter, &expected, NULL, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
        d->wait_result = SOCLE_RAN_INTERRUPTED;
    /* Else the other processor has claimed the wait and is about to say how it ended. */
    while (__atomic_load_n(&d->wait_result, __ATOMIC_ACQUIRE) == RAN_WAITING)
        cpu_relax();
    d->waiting_on = NULL;
    d->gpr[RAX] = (u64)d->wait_result;
    vcpu_skip(d);
    domain_put(v->domain);
}

/* ---- pending work ---- */

static void take_init(struct vcpu *v)
{
    v->init_pending = false;
    if (v->apic_id == v->domain->vcpus[0]->apic_id && domain_has(v->domain, DOMAIN_DEVICES))
        return; /* INIT of dom0's boot processor would be a warm reset of the machine; it has other
                   ways */
    vcpu_reset(v);
    v->activity = v->lapic.base & APIC_BASE_BSP ? ACTIVITY_RUN : ACTIVITY_WAIT_SIPI;
}

static void take_sipi(struct vcpu *v)
{
    struct socle_sregs s;

    v->sipi_pending = false;
    if (v->activity != ACTIVITY_WAIT_SIPI)
        return;
    reset_sregs(&s);
    s.seg[SOCLE_SEG_CS].selector = (u16)(v->sipi_vector << 8);
    s.seg[SOCLE_SEG_CS].base = (u64)v->sipi_vector << 12;
    vendor->set_sregs(v, &s);
    v->rip = 0;
    v->activity = ACTIVITY_RUN;
}

/* The PIC's vector, or without a local APIC any, is got from dom0 at the moment when it can be
 * taken. Until then the question stays pending and a window is open. */
static enum vcpu_action ask_for_interrupt(struct vcpu *v)
{
    enum socle_exit reason = v->irq_window ? SOCLE_EXIT_IRQ_WINDOW : SOCLE_EXIT_EXTINT;

    if (!wants_interrupt_of_dom0(v))
        return VCPU_RESUME;
    if (!(v->rflags & RFLAGS_IF) || vendor->get_shadow(v) || v->event.valid ||
        v->io.kind != IO_NONE)
        return VCPU_RESUME;
    v->extint_pending = false;
    v->irq_window = false;
    v->io.kind = IO_EXTINT;
    return vcpu_exit(v, reason);
}

static enum vcpu_action take_events(struct vcpu *v)
{
    if (v->init_pending)
        take_init(v);
    if (v->sipi_pending)
        take_sipi(v);
    if (v->activity == ACTIVITY_HALTED && vcpu_has_event(v)) {
        v->activity = ACTIVITY_RUN;
        v->kicked = false;
    }
    if (v->activity != ACTIVITY_RUN)
        return VCPU_BLOCK;
    if (v->event.valid && v->event.type == EVENT_INT3) {
        v->event.type = EVENT_EXCEPTION;
        v->rip++;
    }
    return ask_for_interrupt(v);
}

static void run_timers(struct pcpu *cpu, u64 now)
{
    struct sched_entity *e;

    while ((e = sched_timer_expired(&cpu->rq, now))) {
        struct vcpu *v = container_of(e, struct vcpu, se);

        vcpu_set_pending(v, PENDING_TIMER);
        wake(v);
    }
}

static struct vcpu *decide(struct pcpu *cpu)
{
    u64 now = rdtsc();
    struct sched_entity *e;

    run_timers(cpu, now);
    e = sched_pick(&cpu->rq, now);
    pcpu_kick(cpu->rq.kick);
    irq_arm_timer();
    return e ? container_of(e, struct vcpu, se) : NULL;
}

static enum vcpu_action reschedule(struct vcpu *v)
{
    struct pcpu *cpu = this_cpu();
    struct vcpu *next;

    pcpu_flush_host_pending();
    next = decide(cpu);
    if (next == v)
        return VCPU_RESUME;
    cpu->next = next;
    cpu->decided = true;
    return VCPU_YIELD;
}

static enum vcpu_action complete_io(struct vcpu *v)
{
    switch (v->io.kind) {
    case IO_NONE:
    case IO_MMIO_WRITE:
    case IO_EXTINT:
        v->io.kind = IO_NONE;
        return VCPU_RESUME;
    case IO_MSR_READ:
    case IO_MSR_WRITE:
        return msr_complete(v);
    default:
        vendor->get_sregs(v, &v->sregs);
        return emulate_complete(v);
    }
}

static enum vcpu_action do_pending_work(struct vcpu *v)
{
    enum vcpu_action action = VCPU_RESUME;
    u32 work = __atomic_exchange_n(&v->pending, 0, __ATOMIC_ACQ_REL);
    bool complete_only = false;

    if (work & PENDING_WAIT)
        finish_wait(v);
    if (work & PENDING_RESCHED) {
        action = reschedule(v);
        /* It may have found this vCPU's timer due. */
        work |= __atomic_exchange_n(&v->pending, 0, __ATOMIC_ACQ_REL);
    }
    if (work & PENDING_TIMER) {
        vcpu_timer_changed(v); /* on its processor: nobody else touches the local APIC */
        work |= PENDING_EVENT;
    }
    if (action == VCPU_RESUME && (work & PENDING_EVENT)) {
        action = take_events(v);
        work &= ~(u32)PENDING_EVENT;
    }
    /* Both use the guest's memory: npt_flush must wait for it, and see that it must (see npt.h). */
    if (work & (PENDING_COMPLETE | PENDING_CLOCK))
        (void)__atomic_exchange_n(&this_cpu()->active, v->domain, __ATOMIC_SEQ_CST);
    if (action == VCPU_RESUME && (work & PENDING_COMPLETE)) {
        work &= ~(u32)PENDING_COMPLETE;
        action = complete_io(v);
        complete_only = v->complete_only;
    }
    if (action == VCPU_RESUME && ((work | v->pending) & PENDING_STEP)) {
        work &= ~(u32)PENDING_STEP;
        __atomic_fetch_and(&v->pending, ~(u32)PENDING_STEP, __ATOMIC_RELAXED);
        action = debug_stepped(v);
    }
    if (action == VCPU_RESUME && complete_only) {
        vcpu_set_pending(v, work & PENDING_CLOCK);
        return vcpu_exit(v, SOCLE_EXIT_NONE);
    }
    if (action == VCPU_RESUME && (work & PENDING_CLOCK)) {
        work &= ~(u32)PENDING_CLOCK;
        action = pvclock_update(v);
    }
    vcpu_set_pending(v, work & (PENDING_EVENT | PENDING_COMPLETE | PENDING_CLOCK | PENDING_STEP));
    return action;
}

/* The work may wake somebody who comes before v on this processor. */
enum vcpu_action vcpu_pending_work(struct vcpu *v)
{
    enum vcpu_action action;

    do
        action = do_pending_work(v);
    while (action == VCPU_RESUME &&
           (__atomic_load_n(&v->pending, __ATOMIC_ACQUIRE) & PENDING_RESCHED));
    return action;
}

/* ---- for the run loops ---- */

struct vcpu *vcpu_pick(void)
{
    struct pcpu *cpu = this_cpu();
    struct vcpu *next = cpu->decided && cpu->next ? cpu->next : decide(cpu);
    int kick = SCHED_NO_KICK;

    cpu->decided = false;
    /* What goes on here was never off the processor for the scheduler: it must not be taken away.
     */
    if (cpu->released && cpu->released != next)
        kick = sched_release(&cpu->released->se, rdtsc());
    cpu->released = NULL;
    if (kick == (int)cpu->id && !next)
        next = decide(cpu);
    cpu->current = next;
    pcpu_kick(kick);
    if (!next)
        pcpu_quiet(cpu);
    return next;
}

static void put_blocked(struct vcpu *v, u64 now)
{
    vcpu_set_pending(v, PENDING_EVENT);
    sched_prepare_block(&v->se);
    if (vcpu_has_event(v) || !sched_block(&v->se, now))
        return;
    end_run(v, sched_state(&v->se) == SCHED_STOPPED ? SOCLE_RAN_INTERRUPTED : SOCLE_RAN_BLOCKED);
}

/* The decision has been made already (reschedule()), also that v stops; whom that wakes asks for
 * another one. */
static void put_yielded(struct pcpu *cpu, struct vcpu *v)
{
    if (likely(sched_state(&v->se) != SCHED_STOPPED))
        return;
    end_run(v, SOCLE_RAN_INTERRUPTED);
    if (cpu->decided && cpu->next)
        vcpu_set_pending(cpu->next, PENDING_RESCHED);
}

/* The order matters: whoever sees the exit must find v stopped, and whoever finds it stopped, the
 * exit. */
static void put_exited(struct pcpu *cpu, struct vcpu *v, u64 now)
{
    struct vcpu *waiter = claim_waiter(v);
    u32 port = v->port;
    int kick;

    if (waiter) {
        kick = sched_handback(&cpu->rq, &v->se, &waiter->se, now);
        __atomic_store_n(&waiter->wait_result, SOCLE_RAN_EXIT, __ATOMIC_RELEASE);
        pcpu_kick(kick);
        return;
    }
    __atomic_store_n(&v->exit_ready, true, __ATOMIC_SEQ_CST);
    sched_end(&v->se, now);
    /* Somebody may wait by now: it calls RUN again and finds exit_ready. */
    end_run(v, SOCLE_RAN_INTERRUPTED);
    event_raise(port);
}

/* d's wait for v has begun: makes v run if it is stopped, and d block, unless there is something
 * for d already. v is not started by anybody else, since the caller has its state lock. But while
 * it runs, it may exit at any time; so it must be found stopped before it is found to have no exit.
 */
static void run_and_block(struct pcpu *cpu, struct vcpu *d, struct vcpu *v, u64 now)
{
    if (vcpu_has_event(d))
        return;
    if (sched_state(&v->se) == SCHED_STOPPED && !v->exit_ready) {
        if (sched_handoff(&cpu->rq, &d->se, &v->se, now) != -E_BUSY)
            return;
        pcpu_kick(sched_start(&v->se, cpu->id, now));
    }
    /* It may have exited or blocked before it could see its waiter. */
    if (v->exit_ready || sched_state(&v->se) == SCHED_BLOCKED)
        return;
    sched_block(&d->se, now);
}

/* RUN, second half: see start_vcpu() in hypercall.c, which took v's state lock. */
static void put_handoff(struct pcpu *cpu, struct vcpu *d, u64 now)
{
    struct vcpu *v = d->waiting_on;

    vcpu_set_pending(d, PENDING_WAIT);
    sched_prepare_block(&d->se);
    d->wait_result = RAN_WAITING;
    __atomic_store_n(&v->waiter, d, __ATOMIC_SEQ_CST);
    run_and_block(cpu, d, v, now);
    spin_unlock(&v->state_lock);
}

void vcpu_put(struct vcpu *v, enum vcpu_action action)
{
    struct pcpu *cpu = this_cpu();
    u64 now = rdtsc();

    __atomic_store_n(&cpu->active, NULL, __ATOMIC_RELEASE);
    cpu->current = NULL;
    cpu->released = v;
    switch (action) {
    case VCPU_BLOCK:
        put_blocked(v, now);
        break;
    case VCPU_EXIT:
        put_exited(cpu, v, now);
        break;
    case VCPU_HANDOFF:
        put_handoff(cpu, v, now);
        break;
    default:
        put_yielded(cpu, v);
        break;
    }
}

void vcpu_load_dr(const struct vcpu *v)
{
    write_dr0(v->dr[0]);
    write_dr1(v->dr[1]);
    write_dr2(v->dr[2]);
    write_dr3(v->dr[3]);
}

/* The whole of the extended state is switched, whatever XCR0 the guests have: else one could turn a
 * component on and find another's registers in it. */
static void load_common(struct vcpu *v)
{
    xsetbv(0, host_xcr0_mask);
    xrstor(v->xsave_area, host_xcr0_mask);
    if (v->xcr0 != host_xcr0_mask)
        xsetbv(0, v->xcr0);
    vcpu_load_dr(v);
    if (host_has_tsc_aux)
        wrmsr(MSR_TSC_AUX, v->tsc_aux);
    v->count[SOCLE_STAT_SWITCH]++;
    if (v->page)
        v->page->waited = v->se.wait_tsc;
}

static void save_common(struct vcpu *v)
{
    v->xcr0 = xgetbv(0); /* QEMU's SVM does not stop XSETBV */
    if (v->xcr0 != host_xcr0_mask)
        xsetbv(0, host_xcr0_mask);
    xsave(v->xsave_area, host_xcr0_mask);
    v->dr[0] = read_dr0();
    v->dr[1] = read_dr1();
    v->dr[2] = read_dr2();
    v->dr[3] = read_dr3();
}

void vcpu_loop(void)
{
    for (;;) {
        struct vcpu *v = vcpu_pick();
        enum vcpu_action action;

        if (!v) {
            vendor->idle();
            continue;
        }
        vendor->load(v);
        load_common(v);
        action = vendor->run(v);
        save_common(v);
        vendor->save(v);
        vcpu_put(v, action);
    }
}

bool vcpu_enter(struct vcpu *v)
{
    struct pcpu *cpu = this_cpu();
    struct domain *d = v->domain;
    bool stale = v->cpu_loaded != cpu->id;
    u64 generation;

    pcpu_quiet(cpu);
    cpu->active = d;
    v->cpu_loaded = cpu->id;
    /* A full barrier: npt_flush either sees this entry, or this reads its new generation. */
    __atomic_exchange_n(&cpu->entries, cpu->entries + 1, __ATOMIC_SEQ_CST);
    generation = __atomic_load_n(&d->tlb_generation, __ATOMIC_ACQUIRE);
    if (v->tlb_seen != generation) {
        v->tlb_seen = generation;
        v->count[SOCLE_STAT_FLUSH]++;
        stale = true;
    }
    return stale;
}

void vcpu_set_xcr0(struct vcpu *v, u64 xcr0)
{
    v->xcr0 = xcr0;
    xsetbv(0, xcr0);
}

int vcpu_next_interrupt(struct vcpu *v)
{
    if (likely(!v->irq_special))
        return vlapic_pending(&v->lapic);
    if (v->irq_blocked)
        return -1;
    if (v->extint_ready)
        return v->extint_vector;
    if (wants_interrupt_of_dom0(v)) {
        vcpu_set_pending(v, PENDING_EVENT); /* also where the guest has just opened LINT0 */
        return VCPU_WINDOW;
    }
    return vlapic_pending(&v->lapic);
}

void vcpu_accept_interrupt(struct vcpu *v, u8 vector)
{
    v->count[SOCLE_STAT_INJECTED]++;
    if (v->extint_ready)
        v->extint_ready = false;
    else
        vlapic_accept(&v->lapic, vector);
}

/* ---- dom0's answers ---- */

void vcpu_take_answer(struct vcpu *v)
{
    volatile struct socle_vcpu_page *p = v->page;
    s32 vector = p->extint_vector;

    v->irq_window = p->irq_window;
    if (vector >= 0 && vector < 256) {
        v->extint_vector = (u8)vector;
        v->extint_ready = true;
    }
    p->extint_vector = -1;
    if (v->io.kind == IO_MSR_READ || v->io.kind == IO_MSR_WRITE) {
        v->io.data = p->msr.value;
        v->io.error = p->msr.error;
    } else if (v->io.kind == IO_IN || v->io.kind == IO_MMIO_READ) {
        v->io.data = *(const volatile u64 *)p->data;
    }
    if (v->io.kind != IO_NONE)
        vcpu_set_pending(v, PENDING_COMPLETE);
    vcpu_set_pending(v, PENDING_EVENT);
}

/* ---- ways out ---- */

/* Dom0 itself cannot go on: the machine has lost its drivers. */
static NORETURN void dom0_died(struct vcpu *v, const char *what)
{
    log_error("dom0's vCPU %u %s at rip %lx: resetting the machine", v->handle, what, v->rip);
    machine_reset();
}

enum vcpu_action vcpu_exit(struct vcpu *v, enum socle_exit reason)
{
    struct socle_vcpu_page *p = v->page;

    if (!p)
        dom0_died(v, "had an exit that nobody can answer");
    v->count[SOCLE_STAT_TO_DOM0]++;
    p->exit = reason;
    describe(v);
    return VCPU_EXIT;
}

enum vcpu_action vcpu_fail(struct vcpu *v, u64 reason, u64 info1, u64 info2)
{
    log_limited("domain %u (%s) vCPU %u stopped: exit %lx, %lx, %lx at rip %lx", v->domain->id,
                v->domain->name, v->apic_id, reason, info1, info2, v->rip);
    if (!v->page)
        dom0_died(v, "had an exit that Socle does not know");
    v->page->failed.reason = reason;
    v->page->failed.info[0] = info1;
    v->page->failed.info[1] = info2;
    return vcpu_exit(v, SOCLE_EXIT_FAILED);
}

enum vcpu_action vcpu_shutdown(struct vcpu *v)
{
    if (!v->page)
        dom0_died(v, "had a triple fault");
    log_limited("domain %u (%s) vCPU %u: triple fault", v->domain->id, v->domain->name, v->apic_id);
    return vcpu_exit(v, SOCLE_EXIT_SHUTDOWN);
}
