/* SPDX-License-Identifier: BSD-2-Clause */
/* A vCPU's life: RUN, exits, blocking, stopping and the domain's end, on processors that take
 * turns. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free -lpthread
#include "tests/unit/fake_machine.h"
#include "core/event.h"
#include "drivers/apic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <pthread.h>
#include <sched.h>
#include <cmocka.h>

#define EVENTS_PA     DOM0_PA(100)
#define EVENTS_VECTOR 0x60

#define call0(cpu, nr)             fake_call(cpu, nr, 0, 0, 0, 0, 0)
#define call1(cpu, nr, a)          fake_call(cpu, nr, a, 0, 0, 0, 0)
#define call2(cpu, nr, a, b)       fake_call(cpu, nr, a, b, 0, 0, 0)
#define call3(cpu, nr, a, b, c)    fake_call(cpu, nr, a, b, c, 0, 0)
#define call4(cpu, nr, a, b, c, d) fake_call(cpu, nr, a, b, c, d, 0)

static u32 domain, handle;
static struct vcpu *v;
static struct fake_totals before;

static struct vcpu *dom0_of(u32 cpu)
{
    return pcpus[cpu]->dom0;
}

/* A machine of `cpus` with one domain of n vCPUs. */
static void machine(u32 cpus, u32 n)
{
    fake_start(cpus);
    before = fake_totals();
    assert_int_equal(call2(0, SOCLE_HC_EVENTS, EVENTS_PA, EVENTS_VECTOR), 0);
    domain = fake_domain(n, 0);
    handle = fake_handle(domain, 0);
    v = vcpu_table[handle];
}

static void turn_all(void)
{
    for (u32 i = 0; i < pcpu_count; i++)
        fake_enter(i);
}

/* By a vCPU of dom0 that neither sleeps nor waits. */
static s64 destroy(u32 id)
{
    u32 cpu = 0;
    s64 r;
    int tries = 0;

    while (sched_state(&dom0_of(cpu)->se) < SCHED_RUNNABLE)
        cpu++;
    while ((r = call1(cpu, SOCLE_HC_DOMAIN_DESTROY, id)) == -E_AGAIN) {
        assert_true(++tries < 100);
        turn_all();
    }
    return r;
}

/* All that the test took comes back. */
static int end(void)
{
    struct fake_totals after;

    assert_int_equal(destroy(domain), 0);
    assert_int_equal(call0(0, SOCLE_HC_EVENTS), 0);
    after = fake_totals();
    assert_memory_equal(&before, &after, sizeof(before));
    return 0;
}

/* RUN on `cpu`, which then runs the vCPU. */
static void run_into_guest(u32 cpu)
{
    fake_run(cpu, handle, 0);
    assert_ptr_equal(fake_enter(cpu), v);
}

static bool event_pending(u32 port)
{
    struct socle_events *e = (struct socle_events *)RAM(EVENTS_PA);
    u64 bit = BIT(port % 64);

    return __atomic_fetch_and(&e->pending[port / 64], ~bit, __ATOMIC_SEQ_CST) & bit;
}

static void take_interrupt(struct vcpu *who, int vector)
{
    assert_int_equal(vcpu_next_interrupt(who), vector);
    vcpu_accept_interrupt(who, (u8)vector);
    vlapic_eoi(&who->lapic);
}

static enum vcpu_action io_exit(u8 in)
{
    v->page->io.in = in;
    v->io = (struct io_state){.kind = in ? IO_IN : IO_OUT};
    return vcpu_exit(v, SOCLE_EXIT_IO);
}

/* ---- the plain ways ---- */

static void test_handoff_and_back(void **state)
{
    (void)state;
    machine(1, 1);
    run_into_guest(0);
    v->rip = 0x1234;
    fake_leave(0, io_exit(1));
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_EXIT);
    assert_int_equal(fake_page(v)->exit, SOCLE_EXIT_IO);
    assert_int_equal(fake_page(v)->rip, 0x1234);
    assert_int_equal(dom0.refs | v->domain->refs, 0);
    assert_false(event_pending(100));

    /* The answer is taken once, at RUN. */
    *(u64 *)fake_page(v)->data = 0x55;
    run_into_guest(0);
    assert_int_equal(fake.completions, 1);
    assert_int_equal(v->io.data, 0x55);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    end();
}

static void test_complete_only(void **state)
{
    (void)state;
    machine(1, 1);
    /* Nothing to finish: it does not run at all. */
    fake_run(0, handle, SOCLE_RUN_COMPLETE_ONLY);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    run_into_guest(0);
    fake_leave(0, io_exit(1));
    fake_enter(0);
    fake_run(0, handle, SOCLE_RUN_COMPLETE_ONLY);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake.completions, 1);
    assert_int_equal(sched_state(&v->se), SCHED_STOPPED);
    assert_int_equal(fake_result(0), SOCLE_RAN_EXIT);
    assert_int_equal(fake_page(v)->exit, SOCLE_EXIT_NONE);
    /* The next RUN goes on as usual. */
    run_into_guest(0);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    end();
}

static void test_blocked_and_woken_by_msi(void **state)
{
    (void)state;
    machine(1, 1);
    v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    v->rflags |= RFLAGS_IF;
    run_into_guest(0);
    fake_leave(0, exit_hlt(v));
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_BLOCKED);
    fake_run(0, handle, 0);
    assert_int_equal(fake_result(0), SOCLE_RAN_BLOCKED);

    assert_int_equal(call3(0, SOCLE_HC_MSI, domain, 0xfee00000, 0x41), 1);
    fake_until(0, v);
    assert_int_equal(v->activity, ACTIVITY_RUN);
    take_interrupt(v, 0x41);
    /* Nobody waits for this exit: an event, and the next RUN has it. */
    fake_leave(0, io_exit(0));
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_true(event_pending(100));
    fake_run(0, handle, 0);
    assert_int_equal(fake_result(0), SOCLE_RAN_EXIT);
    end();
}

static void test_interrupted(void **state)
{
    (void)state;
    machine(1, 1);
    run_into_guest(0);
    fake_interrupt(0, 0x35);
    fake_until(0, dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    assert_int_equal(sched_state(&v->se), SCHED_RUNNABLE);
    assert_int_equal(vcpu_next_interrupt(dom0_of(0)), 0x35);

    /* With an interrupt that it has not taken, RUN does not wait. */
    fake_run(0, handle, 0);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    take_interrupt(dom0_of(0), 0x35);
    run_into_guest(0);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    assert_int_equal(fake_result(0), SOCLE_RAN_EXIT);
    end();
}

static void test_timer_wakes(void **state)
{
    struct vlapic_effect e;

    (void)state;
    machine(1, 1);
    v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    v->rflags |= RFLAGS_IF;
    run_into_guest(0);
    vlapic_mmio_write(&v->lapic, VLAPIC_REG_LVT_TIMER * 16, 0x50, rdtsc(), &e);
    vlapic_mmio_write(&v->lapic, VLAPIC_REG_TMICT * 16, 5000000, rdtsc(), &e);
    vcpu_apply_effect(v, &e);
    assert_true(fake.timer[0] < SCHED_NEVER);
    fake_leave(0, exit_hlt(v));
    while (rdtsc() < fake.timer[0])
        ;
    fake_interrupt(0, APIC_VECTOR_TIMER);
    fake_until(0, v);
    assert_int_equal(vcpu_next_interrupt(v), 0x50);
    assert_int_equal(v->count[SOCLE_STAT_TIMER], 1);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    end();
}

/* A timer that is due when it is set: its interrupt is there before the next entry. */
static void test_due_timer_fires_at_once(void **state)
{
    struct vlapic_effect e;

    (void)state;
    machine(1, 1);
    v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    v->rflags |= RFLAGS_IF;
    run_into_guest(0);
    vlapic_mmio_write(&v->lapic, VLAPIC_REG_LVT_TIMER * 16, 0x40050, rdtsc(), &e);
    vlapic_msr_write(&v->lapic, MSR_TSC_DEADLINE, 1, rdtsc(), &e);
    vcpu_apply_effect(v, &e);
    assert_int_equal(fake.timer[0], SCHED_NEVER);
    assert_int_equal(vcpu_next_interrupt(v), 0x50);
    assert_int_equal(v->count[SOCLE_STAT_TIMER], 1);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    end();
}

/* The window opens when the guest can take an interrupt, and what dom0 then gives goes in. */
static void test_interrupt_window(void **state)
{
    (void)state;
    machine(1, 1);
    fake_page(v)->irq_window = 1;
    run_into_guest(0);
    assert_int_equal(vcpu_next_interrupt(v), VCPU_WINDOW);
    v->rflags |= RFLAGS_IF;
    assert_int_equal(vcpu_pending_work(v), VCPU_EXIT);
    assert_int_equal(fake_page(v)->exit, SOCLE_EXIT_IRQ_WINDOW);
    assert_int_equal(fake_page(v)->extint_open, 1);
    fake_leave(0, VCPU_EXIT);
    fake_enter(0);

    fake_page(v)->irq_window = 0;
    fake_page(v)->extint_vector = 0x31;
    run_into_guest(0);
    assert_int_equal(fake_page(v)->extint_vector, -1);
    assert_int_equal(vcpu_next_interrupt(v), 0x31);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    assert_int_equal(fake_page(v)->extint_open, 0); /* it is not through yet */
    run_into_guest(0);
    vcpu_accept_interrupt(v, 0x31);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    assert_int_equal(fake_page(v)->extint_open, 1);
    end();
}

/* The PIC's output is high, but LINT0 is masked: nothing until the guest opens it. */
static void test_masked_pic(void **state)
{
    struct vlapic_effect e;

    (void)state;
    machine(1, 1);
    v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    v->rflags |= RFLAGS_IF;
    fake_page(v)->extint_vector = -1;
    vlapic_mmio_write(&v->lapic, VLAPIC_REG_LVT_LINT0 * 16, APIC_LVT_MASKED, rdtsc(), &e);
    assert_int_equal(call2(0, SOCLE_HC_VCPU_SIGNAL, handle, SOCLE_SIGNAL_EXTINT), 0);
    run_into_guest(0);
    assert_int_equal(vcpu_pending_work(v), VCPU_RESUME);
    assert_int_equal(vcpu_next_interrupt(v), -1);
    vlapic_mmio_write(&v->lapic, VLAPIC_REG_LVT_LINT0 * 16, APIC_EXTINT << 8, rdtsc(), &e);
    assert_int_equal(vcpu_next_interrupt(v), VCPU_WINDOW);
    assert_int_equal(vcpu_pending_work(v), VCPU_EXIT);
    assert_int_equal(fake_page(v)->exit, SOCLE_EXIT_EXTINT);
    fake_leave(0, VCPU_EXIT);
    fake_enter(0);
    end();
}

static void test_init_and_sipi(void **state)
{
    struct apic_msg msg = {.dest = 1, .mode = APIC_INIT};
    struct vcpu *ap;

    (void)state;
    machine(1, 2);
    ap = vcpu_table[fake_handle(domain, 1)];
    fake_run(0, ap->handle, 0);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_BLOCKED);
    assert_int_equal(irq_deliver(v->domain, v, &msg), 1);
    msg.mode = APIC_SIPI;
    msg.vector = 0x9a;
    assert_int_equal(irq_deliver(v->domain, v, &msg), 1);
    fake_until(0, ap);
    assert_int_equal(ap->rip, 0);
    assert_int_equal(((struct socle_sregs *)ap->vendor)->seg[SOCLE_SEG_CS].base, 0x9a000);
    fake_leave(0, VCPU_YIELD);
    end();
}

/* ---- several processors ---- */

/* What RUN of two processors at once may do to one vCPU. */
static void test_second_run_is_busy(void **state)
{
    (void)state;
    machine(2, 1);
    run_into_guest(0);
    assert_int_equal(call2(1, SOCLE_HC_VCPU_RUN, handle, 0), -E_BUSY);
    assert_int_equal(call4(1, SOCLE_HC_VCPU_GET, handle, 1, DOM0_PA(50), 144), -E_BUSY);
    fake_leave(0, io_exit(0));
    fake_enter(0);
    end();
}

/* Between RUN's two halves, on the processor that makes it: the state lock is held. */
static void test_run_keeps_others_out(void **state)
{
    s64 result;

    (void)state;
    machine(2, 1);
    fake_enter(0);
    dom0_of(0)->gpr[RAX] = SOCLE_HC_VCPU_RUN;
    dom0_of(0)->gpr[RDI] = handle;
    dom0_of(0)->gpr[RSI] = 0;
    assert_int_equal(hypercall(dom0_of(0), &result), VCPU_HANDOFF);
    assert_int_equal(call4(1, SOCLE_HC_VCPU_SET, handle, 1, DOM0_PA(50), 144), -E_BUSY);
    assert_int_equal(call2(1, SOCLE_HC_VCPU_RUN, handle, 0), -E_BUSY);
    assert_int_equal(call1(1, SOCLE_HC_DOMAIN_DESTROY, domain), -E_AGAIN);
    fake_leave(0, VCPU_HANDOFF);
    fake_enter(0);
    fake_enter(1);
    end();
}

/* The vCPU exits after RUN saw it running and before RUN waits for it: the exit is not lost. */
static void test_exit_between_the_halves_of_run(void **state)
{
    s64 result;

    (void)state;
    machine(2, 1);
    run_into_guest(0);
    fake_interrupt(0, 0x35);
    fake_until(0, dom0_of(0));
    take_interrupt(dom0_of(0), 0x35);
    /* It goes on on the other processor, whose dom0 sleeps. */
    fake_leave(1, exit_hlt(dom0_of(1)));
    assert_ptr_equal(fake_enter(1), v);
    fake_enter(0);
    dom0_of(0)->gpr[RAX] = SOCLE_HC_VCPU_RUN;
    dom0_of(0)->gpr[RDI] = handle;
    assert_int_equal(hypercall(dom0_of(0), &result), VCPU_HANDOFF);
    fake_enter(1);
    fake_leave(1, io_exit(1));
    assert_int_equal(sched_state(&v->se), SCHED_STOPPED);
    fake_cpu = 0;
    fake_leave(0, VCPU_HANDOFF);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    fake_enter(1);
    fake_run(0, handle, 0);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_EXIT);
    assert_int_equal(fake.completions, 0);
    end();
}

static void test_stop_ends_the_wait(void **state)
{
    (void)state;
    machine(2, 1);
    run_into_guest(0);
    assert_int_equal(call1(1, SOCLE_HC_VCPU_STOP, handle), -E_AGAIN);
    assert_true(fake.kicked[0]);
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    assert_int_equal(call1(1, SOCLE_HC_VCPU_STOP, handle), 0);
    assert_int_equal(call4(1, SOCLE_HC_VCPU_GET, handle, 1, DOM0_PA(50), 144), 0);
    /* It does not start by itself. */
    assert_int_equal(call2(1, SOCLE_HC_VCPU_SIGNAL, handle, SOCLE_SIGNAL_NMI), 0);
    turn_all();
    assert_int_equal(sched_state(&v->se), SCHED_STOPPED);
    end();
}

/* A vCPU that wants to block and finds work goes on, and is still marked as on its processor: else
 * another one could take it while its state is in this one's registers. */
static void test_failed_block_stays_loaded(void **state)
{
    (void)state;
    machine(2, 1);
    v->rflags |= RFLAGS_IF;
    run_into_guest(0);
    v->nmi_pending = true;
    v->activity = ACTIVITY_HALTED;
    fake_leave(0, VCPU_BLOCK);
    assert_ptr_equal(fake_enter(0), v);
    assert_true(sched_loaded(&v->se));
    fake_leave(0, io_exit(0));
    fake_enter(0);
    assert_false(sched_loaded(&v->se));
    end();
}

static void test_destroy_while_it_runs(void **state)
{
    (void)state;
    machine(2, 1);
    run_into_guest(0);
    assert_int_equal(call1(1, SOCLE_HC_DOMAIN_DESTROY, domain), -E_AGAIN);
    assert_int_equal(call2(1, SOCLE_HC_VCPU_RUN, handle, 0), -E_NOENT);
    assert_int_equal(call3(1, SOCLE_HC_MSI, domain, 0xfee00000, 0x41), -E_NOENT);
    assert_int_equal(v->domain->refs, 1); /* of RUN */
    assert_ptr_equal(fake_enter(0), dom0_of(0));
    assert_int_equal(fake_result(0), SOCLE_RAN_INTERRUPTED);
    end();
}

/* Every processor has to pass by before a vCPU is freed; one that sleeps is woken for it. */
static void test_destroy_waits_for_all_processors(void **state)
{
    (void)state;
    machine(3, 1);
    fake_leave(2, exit_hlt(dom0_of(2)));
    assert_null(fake_enter(2));
    assert_int_equal(call1(0, SOCLE_HC_DOMAIN_DESTROY, domain), -E_AGAIN);
    fake_enter(1);
    assert_int_equal(call1(0, SOCLE_HC_DOMAIN_DESTROY, domain), -E_AGAIN);
    assert_ptr_equal(vcpu_table[handle], v);
    assert_true(fake.kicked[2]);
    fake_enter(2);
    assert_int_equal(call1(0, SOCLE_HC_DOMAIN_DESTROY, domain), 0);
    assert_null(vcpu_table[handle]);
    domain = fake_domain(1, 0);
    end();
}

/* An event reaches dom0 also where its own vCPU on that processor is not in use. */
static void test_event_goes_to_a_living_vcpu(void **state)
{
    (void)state;
    machine(2, 1);
    dom0_of(1)->lapic.reg[VLAPIC_REG_SVR].value = 0;
    fake_cpu = 1;
    event_raise(77);
    assert_true(event_pending(77));
    assert_int_equal(vcpu_next_interrupt(dom0_of(1)), -1);
    assert_int_equal(vcpu_next_interrupt(dom0_of(0)), EVENTS_VECTOR);
    end();
}

/* ---- a thread for each processor ---- */

#define GUESTS  3
#define SECONDS 2

static struct {
    u32 stop;
    u32 handles[GUESTS];
    u32 on_cpu[GUESTS]; /* processors that run it now */
    u32 exits[GUESTS];  /* what the guest has done, and what dom0 was told */
    u32 seen[GUESTS];
    u64 progress[CPUS];
    enum vcpu_action (*dom0)(struct vcpu *, u64);
    enum vcpu_action (*guest)(struct vcpu *, u64);
} race;

static u64 next_random(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 11;
}

static u32 index_of(const struct vcpu *g)
{
    u32 i = 0;

    while (race.handles[i] != g->handle)
        i++;
    return i;
}

/* The guest: halts, exits or goes on. */
static enum vcpu_action play_guest(struct vcpu *g, u64 random)
{
    u32 i = index_of(g);
    enum vcpu_action action = VCPU_RESUME;

    if (__atomic_fetch_add(&race.on_cpu[i], 1, __ATOMIC_SEQ_CST))
        abort(); /* on two processors */
    if (random % 8 == 0) {
        __atomic_fetch_add(&race.exits[i], 1, __ATOMIC_SEQ_CST);
        g->page->failed.reason = race.exits[i];
        action = vcpu_exit(g, SOCLE_EXIT_FAILED);
    } else if (random % 8 == 1) {
        g->next_rip = g->rip;
        action = exit_hlt(g);
    } else {
        int vector = vcpu_next_interrupt(g);

        if (vector >= 0) {
            vcpu_accept_interrupt(g, (u8)vector);
            vlapic_eoi(&g->lapic);
        }
        g->nmi_pending = false;
    }
    if (__atomic_fetch_sub(&race.on_cpu[i], 1, __ATOMIC_SEQ_CST) != 1)
        abort();
    return action;
}

/* Each exit is told once, and its page is of that exit or, if another RUN was quicker, a later one.
 */
static void take_result(struct vcpu *d)
{
    u32 i = (u32)d->gpr[R15];

    if (!d->gpr[R14])
        return;
    d->gpr[R14] = 0;
    if (d->gpr[RAX] == SOCLE_RAN_EXIT)
        __atomic_fetch_add(&race.seen[i], 1, __ATOMIC_SEQ_CST);
}

static enum vcpu_action dom0_call(struct vcpu *d, u64 nr, u64 a, u64 b, u64 c, u64 e)
{
    d->gpr[RAX] = nr;
    d->gpr[RDI] = a;
    d->gpr[RSI] = b;
    d->gpr[RDX] = c;
    d->gpr[R10] = e;
    d->next_rip = d->rip;
    return exit_hypercall(d, 0, true);
}

static enum vcpu_action play_dom0(struct vcpu *d, u64 random)
{
    int vector = vcpu_next_interrupt(d);
    u32 i = (u32)(random >> 8) % GUESTS;
    u64 h = race.handles[i];

    take_result(d);
    race.progress[fake_cpu]++;
    if (vector >= 0) {
        vcpu_accept_interrupt(d, (u8)vector);
        vlapic_eoi(&d->lapic);
    }
    switch (random % 16) {
    case 0:
        return dom0_call(d, SOCLE_HC_VCPU_STOP, h, 0, 0, 0);
    case 1:
        return dom0_call(d, SOCLE_HC_VCPU_GET, h, SOCLE_STATE_REGS, DOM0_PA(50 + fake_cpu),
                         sizeof(struct socle_regs));
    case 2:
        return dom0_call(d, SOCLE_HC_VCPU_SET, h, SOCLE_STATE_DEBUG, DOM0_PA(50 + fake_cpu), 8);
    case 3:
        return dom0_call(d, SOCLE_HC_VCPU_SIGNAL, h, SOCLE_SIGNAL_NMI, 0, 0);
    case 4:
    case 5:
        return dom0_call(d, SOCLE_HC_MSI, domain, 0xfee00000 | i << 12, 0x40 + random % 64, 0);
    case 6:
        return dom0_call(d, SOCLE_HC_DOMAIN_SET, domain, SOCLE_PARAM_AFFINITY, random >> 16 & 7, 0);
    default:
        d->gpr[R14] = 1;
        d->gpr[R15] = i;
        return dom0_call(d, SOCLE_HC_VCPU_RUN, h, 0, 0, 0);
    }
}

static void sleep_until_interrupt(void)
{
    while (!__atomic_load_n(&race.stop, __ATOMIC_ACQUIRE)) {
        if (__atomic_exchange_n(&fake.kicked[fake_cpu], false, __ATOMIC_SEQ_CST)) {
            irq_physical(APIC_VECTOR_KICK);
            return;
        }
        if (rdtsc() >= fake.timer[fake_cpu]) {
            irq_physical(APIC_VECTOR_TIMER);
            return;
        }
        sched_yield();
    }
}

static enum vcpu_action run_once(struct vcpu *g, u64 *seed)
{
    u64 random;

    if (__atomic_load_n(&g->pending, __ATOMIC_ACQUIRE)) {
        enum vcpu_action action = vcpu_pending_work(g);

        if (action != VCPU_RESUME)
            return action;
    }
    vcpu_enter(g);
    if (__atomic_exchange_n(&fake.kicked[fake_cpu], false, __ATOMIC_SEQ_CST)) {
        irq_physical(APIC_VECTOR_KICK);
        return VCPU_RESUME;
    }
    random = next_random(seed);
    if (random % 64 == 0)
        irq_physical(APIC_VECTOR_TIMER);
    return g->page ? race.guest(g, random >> 8) : race.dom0(g, random >> 8);
}

/* ---- domains that come and go meanwhile ---- */

/* Arms a timer, halts, exits or goes on. */
static enum vcpu_action play_mortal(struct vcpu *g, u64 random)
{
    struct vlapic_effect e;

    switch (random % 8) {
    case 0:
        return vcpu_exit(g, SOCLE_EXIT_SHUTDOWN);
    case 1:
        vlapic_mmio_write(&g->lapic, VLAPIC_REG_TMICT * 16, 1 + random % 4096, rdtsc(), &e);
        vcpu_apply_effect(g, &e);
        return VCPU_RESUME;
    case 2:
        g->next_rip = g->rip;
        return exit_hlt(g);
    default:
        g->nmi_pending = false;
        return VCPU_RESUME;
    }
}

/* Any call on handles and domains that may be there or not. */
static enum vcpu_action play_hostile(struct vcpu *d, u64 random)
{
    u64 h = 3 + random % 5, id = 1 + random % 3, gfn = random >> 8 & 15;

    race.progress[fake_cpu]++;
    while (vcpu_next_interrupt(d) >= 0) {
        vcpu_accept_interrupt(d, (u8)vcpu_next_interrupt(d));
        vlapic_eoi(&d->lapic);
    }
    switch (random >> 32 & 15) {
    case 0:
        return dom0_call(d, SOCLE_HC_DOMAIN_CREATE, 0, 0, 0, 0);
    case 1:
    case 2:
        return dom0_call(d, SOCLE_HC_DOMAIN_DESTROY, id, 0, 0, 0);
    case 3:
        return dom0_call(d, SOCLE_HC_DOMAIN_SET, id, SOCLE_PARAM_LAPIC, 1, 0);
    case 4:
    case 5:
        return dom0_call(d, SOCLE_HC_VCPU_CREATE, id, random >> 8 & 3, DOM0_PA(gfn), gfn);
    case 6:
        return dom0_call(d, SOCLE_HC_VCPU_STOP, h, 0, 0, 0);
    case 7:
        return dom0_call(d, SOCLE_HC_VCPU_SET, h, SOCLE_STATE_DEBUG, DOM0_PA(50), 8);
    case 8:
        return dom0_call(d, SOCLE_HC_VCPU_SIGNAL, h, 1 + (random >> 12 & 3), 0, 0);
    case 9:
        return dom0_call(d, SOCLE_HC_MSI, id, 0xfee00000, 0x40 + random % 64, 0);
    case 10:
        d->gpr[R8] = SOCLE_MAP_WRITE;
        return dom0_call(d, SOCLE_HC_MAP, id, gfn, DOM0_PFN(gfn), 4);
    case 11:
        return dom0_call(d, SOCLE_HC_UNMAP, id, gfn, 4, 0);
    case 12:
        return dom0_call(d, SOCLE_HC_EVENTS, random & 256 ? EVENTS_PA : 0, EVENTS_VECTOR, 0, 0);
    case 13:
        return dom0_call(d, SOCLE_HC_DOORBELL_ADD, id, gfn, SOCLE_DOORBELL(gfn, 4, 0), 0);
    default:
        return dom0_call(d, SOCLE_HC_VCPU_RUN, h, 0, 0, 0);
    }
}

static void *processor(void *arg)
{
    u64 seed = 0x9e3779b97f4a7c15ull * ((u64)arg + 1);

    fake_cpu = (u32)(u64)arg;
    while (!__atomic_load_n(&race.stop, __ATOMIC_ACQUIRE)) {
        struct vcpu *g = vcpu_pick();
        enum vcpu_action action = VCPU_RESUME;

        if (!g) {
            sleep_until_interrupt();
            continue;
        }
        while (action == VCPU_RESUME)
            action =
                __atomic_load_n(&race.stop, __ATOMIC_ACQUIRE) ? VCPU_YIELD : run_once(g, &seed);
        vcpu_put(g, action);
    }
    return NULL;
}

/* Generous: the host may be busy. */
static void wait_for_progress(u32 cpu)
{
    u64 seen = __atomic_load_n(&race.progress[cpu], __ATOMIC_RELAXED);

    for (u32 ms = 0; ms < 20000; ms++) {
        if (__atomic_load_n(&race.progress[cpu], __ATOMIC_RELAXED) != seen)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    fail_msg("processor %u's dom0 stands still", cpu);
}

/* A thread for each processor, for some seconds. A wake-up that is lost shows as a dom0 vCPU that
 * makes no more progress: no interrupt comes from outside. */
static void let_them_race(void)
{
    pthread_t threads[CPUS];

    for (u32 i = 0; i < 3; i++)
        fake_leave(i, VCPU_YIELD);
    fake.threads = true;
    for (u64 i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, processor, (void *)i);
    nanosleep(&(struct timespec){.tv_sec = SECONDS}, NULL);
    for (u32 i = 0; i < 3; i++)
        wait_for_progress(i);
    __atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    fake.threads = false;
    fake_interrupt(0, 0x35);
    fake_until(0, dom0_of(0));
}

/* The exits of guest i that dom0 was told of, or will be. */
static u32 exits_told(u32 i)
{
    u32 told = race.seen[i] + vcpu_table[race.handles[i]]->exit_ready;

    for (u32 cpu = 0; cpu < 3; cpu++) {
        struct vcpu *d = dom0_of(cpu);
        s64 result = d->waiting_on ? d->wait_result : (s64)d->gpr[RAX];

        told += d->gpr[R14] && d->gpr[R15] == i && result == SOCLE_RAN_EXIT;
    }
    return told;
}

/* No processor stops for ever, no vCPU runs on two, no exit is lost or told twice. */
static void test_processors_race(void **state)
{
    (void)state;
    machine(3, GUESTS);
    memset(&race, 0, sizeof(race));
    race.dom0 = play_dom0;
    race.guest = play_guest;
    for (u32 i = 0; i < GUESTS; i++) {
        struct vcpu *g = vcpu_table[race.handles[i] = fake_handle(domain, i)];

        g->activity = ACTIVITY_RUN;
        g->rflags |= RFLAGS_IF;
        g->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    }
    let_them_race();
    for (u32 i = 0; i < GUESTS; i++)
        assert_int_equal(exits_told(i), race.exits[i]);
    end();
}

/* Nothing that is freed is used (the fake heap would tell), and in the end all is back. */
static void test_domains_come_and_go(void **state)
{
    struct fake_totals after;

    (void)state;
    fake_start(3);
    before = fake_totals();
    memset(&race, 0, sizeof(race));
    race.dom0 = play_hostile;
    race.guest = play_mortal;
    let_them_race();
    call0(0, SOCLE_HC_EVENTS);
    for (u32 id = 1; id < SOCLE_MAX_DOMAINS; id++)
        destroy(id);
    after = fake_totals();
    assert_memory_equal(&before, &after, sizeof(before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handoff_and_back),
        cmocka_unit_test(test_complete_only),
        cmocka_unit_test(test_blocked_and_woken_by_msi),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_timer_wakes),
        cmocka_unit_test(test_due_timer_fires_at_once),
        cmocka_unit_test(test_interrupt_window),
        cmocka_unit_test(test_masked_pic),
        cmocka_unit_test(test_init_and_sipi),
        cmocka_unit_test(test_second_run_is_busy),
        cmocka_unit_test(test_run_keeps_others_out),
        cmocka_unit_test(test_exit_between_the_halves_of_run),
        cmocka_unit_test(test_stop_ends_the_wait),
        cmocka_unit_test(test_failed_block_stays_loaded),
        cmocka_unit_test(test_destroy_while_it_runs),
        cmocka_unit_test(test_destroy_waits_for_all_processors),
        cmocka_unit_test(test_event_goes_to_a_living_vcpu),
        cmocka_unit_test(test_processors_race),
        cmocka_unit_test(test_domains_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
