/* SPDX-License-Identifier: BSD-2-Clause */
/* SVM's run loop with a processor that follows a script: injection, ASIDs, and the way to dom0. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c svm/run.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_machine.h"
#include "core/paging.h"
#include "svm/svm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define STEPS     16
#define ASIDS     8
#define INFO      BIT(31) /* EXITINTINFO and EVENTINJ: valid */
#define HAS_ERROR BIT(11)
#define NMI_INFO  (INFO | 2 << 8 | VEC_NMI)
#define EXC(v)    (INFO | 3 << 8 | (v))

/* An entry as the processor sees it, and how the guest leaves again. */
struct step {
    u64 exit_code, exit_info1, exit_int_info;
    void (*hook)(struct vcpu *v, struct vmcb *c);
    /* seen */
    const struct vcpu *v;
    u64 event_inj, int_ctl, int_state;
    u32 asid, intercept1;
    u16 intercept_cr_write;
    u8 tlb_control;
};

struct svm_features svm_features = {.asids = ASIDS, .next_rip = true};
static struct step steps[STEPS];
static u32 step_count, emulated, rechecks;
static jmp_buf end_of_script;
static struct vcpu *v; /* dom0's */

void svm_enter(u64 *gpr, paddr_t vmcb)
{
    struct vmcb *c = phys_to_virt(vmcb);
    struct step *s = &steps[step_count++];

    s->v = this_cpu()->current;
    assert_ptr_equal(gpr, s->v->gpr);
    assert_ptr_equal(c, s->v->vendor);
    s->event_inj = c->event_inj;
    s->int_ctl = c->int_ctl;
    s->int_state = c->int_state;
    s->asid = c->asid;
    s->intercept1 = c->intercept1;
    s->intercept_cr_write = c->intercept_cr_write;
    s->tlb_control = c->tlb_control;
    if (!s->exit_code && !s->hook)
        longjmp(end_of_script, 1);
    if (!(c->intercept1 & INTERCEPT(VINTR)) && s->exit_code != SVM_EXIT_INTR)
        c->int_ctl &= ~INT_CTL_IRQ; /* delivered */
    c->exit_code = s->exit_code;
    c->exit_info1 = s->exit_info1;
    c->exit_int_info = s->exit_int_info;
    c->next_rip = c->rip + 2;
    if (s->hook)
        s->hook(this_cpu()->current, c);
}

void svm_get_sregs(struct vcpu *w, struct socle_sregs *s)
{
    (void)w;
    (void)s;
}

void svm_take_interrupts(void)
{
}

void svm_recheck_interrupts(void)
{
    rechecks++;
}

#define FAKE_EXIT(...)      \
    {                       \
        emulated++;         \
        return VCPU_RESUME; \
    }
enum vcpu_action exit_cpuid(UNUSED struct vcpu *w, UNUSED u64 cr4) FAKE_EXIT() enum vcpu_action
    exit_rdmsr(UNUSED struct vcpu *w) FAKE_EXIT() enum vcpu_action exit_wrmsr(UNUSED struct vcpu *w)
        FAKE_EXIT() enum vcpu_action
    exit_xsetbv(UNUSED struct vcpu *w, UNUSED u8 cpl, UNUSED u64 cr4) FAKE_EXIT() enum vcpu_action
    exit_io(UNUSED struct vcpu *w, UNUSED u16 port, UNUSED u8 size, UNUSED bool in)
        FAKE_EXIT() enum vcpu_action
    exit_npf(UNUSED struct vcpu *w, UNUSED gpa_t gpa, UNUSED bool write, UNUSED bool fetch)
        FAKE_EXIT() enum vcpu_action exit_emulate(UNUSED struct vcpu *w)
            FAKE_EXIT() enum vcpu_action
    exit_find_next_rip(UNUSED struct vcpu *w, UNUSED enum insn_op op) FAKE_EXIT()

        static int start(void **state)
{
    (void)state;
    fake_start(1);
    fake_leave(0, VCPU_YIELD);
    v = pcpus[0]->dom0;
    memset(v->vendor, 0, PAGE_SIZE);
    memset(steps, 0, sizeof(steps));
    step_count = emulated = rechecks = 0;
    pcpus[0]->asid_next = 1;
    pcpus[0]->asid_generation = 1;
    return 0;
}

/* Until an entry without an exit; the steps are then steps[0] to steps[step_count - 1]. */
static void play(void)
{
    if (!setjmp(end_of_script))
        for (struct vcpu *w = vcpu_pick(); w; w = vcpu_pick()) {
            enum vcpu_action action = svm_run(w);

            vcpu_put(w, action);
        }
    v->pending = 0;
}

static void post(u8 vector)
{
    vlapic_post(&v->lapic, vector, false);
}

static bool window(const struct step *s)
{
    return (s->int_ctl & INT_CTL_IRQ) && (s->intercept1 & INTERCEPT(VINTR));
}

/* The vector that this entry delivers as a virtual interrupt; -1: none. */
static int virtual(const struct step *s)
{
    bool none = !(s->int_ctl & INT_CTL_IRQ) || (s->intercept1 & INTERCEPT(VINTR));

    return none ? -1 : (int)(s->int_ctl >> INT_CTL_VECTOR_SHIFT);
}

/* ---- injection ---- */

static void test_precedence(void **state)
{
    (void)state;
    vcpu_raise(v, VEC_PF, true, 0x17);
    v->nmi_pending = true;
    post(0x41);
    steps[0].exit_code = SVM_EXIT_CPUID;
    steps[1].exit_code = SVM_EXIT_CPUID;
    play();
    assert_int_equal(steps[0].event_inj, EXC(VEC_PF) | HAS_ERROR | 0x17ull << 32);
    assert_true(window(&steps[0]));
    assert_int_equal(steps[1].event_inj, NMI_INFO);
    assert_true(window(&steps[1]));
    assert_int_equal(virtual(&steps[2]), 0x41);
    assert_int_equal(steps[2].event_inj, 0);
    assert_int_equal(v->lapic.reg[VLAPIC_REG_ISR + 2].value, 2);
}

static void enable_interrupts(struct vcpu *w, struct vmcb *c)
{
    (void)w;
    c->rflags |= RFLAGS_IF;
}

static void set_pending(struct vcpu *w, struct vmcb *c)
{
    (void)w;
    (void)c;
    post(0x61);
}

static void test_interrupt_window(void **state)
{
    (void)state;
    v->rflags &= ~RFLAGS_IF;
    post(0x41);
    steps[0].exit_code = SVM_EXIT_VINTR;
    steps[0].hook = enable_interrupts;
    play();
    assert_true(window(&steps[0]));
    assert_true(steps[0].intercept_cr_write & BIT(8));
    assert_int_equal(steps[0].event_inj, 0);
    assert_false(window(&steps[1]));
    assert_int_equal(virtual(&steps[1]), 0x41);
    assert_int_equal(rechecks, 1);
}

/* A physical interrupt comes before a virtual one, which then waits in v->event; once delivered, it
 * does not come again. */
static void test_forestalled_interrupt(void **state)
{
    (void)state;
    post(0x41);
    steps[0].exit_code = SVM_EXIT_INTR;
    steps[1].exit_code = SVM_EXIT_CPUID;
    play();
    assert_int_equal(virtual(&steps[0]), 0x41);
    assert_int_equal(virtual(&steps[1]), 0x41);
    assert_int_equal(virtual(&steps[2]), -1);
    assert_int_equal(steps[2].event_inj, 0);
    assert_int_equal(v->count[SOCLE_STAT_INJECTED], 1);
    assert_int_equal(rechecks, 2);
}

static void leave_pending(struct vcpu *w, struct vmcb *c)
{
    (void)w;
    c->int_ctl |= INT_CTL_IRQ;
}

/* QEMU's report of an interrupted delivery: still pending, and an exception. */
static void test_interrupted_virtual_interrupt(void **state)
{
    (void)state;
    post(0x41);
    steps[0].exit_code = SVM_EXIT_NPF;
    steps[0].exit_int_info = EXC(0x41);
    steps[0].hook = leave_pending;
    play();
    assert_int_equal(virtual(&steps[0]), 0x41);
    assert_int_equal(virtual(&steps[1]), 0x41);
    assert_int_equal(steps[1].event_inj, 0);
}

/* An interrupt whose delivery was interrupted, and the next one: the second needs the window. */
static void test_requeued_interrupt_and_window(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_NPF;
    steps[0].exit_int_info = INFO | 0x51;
    steps[0].hook = set_pending;
    play();
    assert_int_equal(steps[1].event_inj, INFO | 0x51);
    assert_true(window(&steps[1]));
}

static void set_shadow(struct vcpu *w, struct vmcb *c)
{
    (void)w;
    c->int_state = 1;
    post(0x41);
}

/* The shadow holds interrupts back, and ends with the instruction, which a completed exit is. */
static void test_shadow(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_CPUID; /* not completed by the fake */
    steps[0].hook = set_shadow;
    steps[1].exit_code = SVM_EXIT_WBINVD;
    play();
    assert_int_equal(steps[1].int_state, 1);
    assert_true(window(&steps[1]));
    assert_int_equal(steps[2].int_state, 0);
    assert_int_equal(virtual(&steps[2]), 0x41);
}

static void test_requeue(void **state)
{
    static const struct {
        u64 info;
        bool again;
    } cases[] = {
        {INFO | 0x41, true},
        {NMI_INFO, true},
        {EXC(VEC_PF) | HAS_ERROR | 2ull << 32, true},
        {EXC(VEC_BP), false}, /* INT3 and INTO are executed again */
        {EXC(4), false},
        {INFO | 4 << 8 | 0x80, false}, /* INT 0x80 too */
    };

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        steps[i].exit_code = SVM_EXIT_NPF;
        steps[i].exit_int_info = cases[i].info;
    }
    play();
    assert_int_equal(virtual(&steps[1]), 0x41);
    for (u32 i = 1; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(steps[i + 1].event_inj, cases[i].again ? cases[i].info : 0);
}

static void second_nmi(struct vcpu *w, struct vmcb *c)
{
    (void)c;
    w->nmi_pending = true;
}

/* A second NMI waits for the IRET of the first one's handler, and that IRET is caught only once. */
static void test_nmi_waits_for_iret(void **state)
{
    (void)state;
    v->nmi_pending = true;
    steps[0].exit_code = SVM_EXIT_CPUID;
    steps[0].hook = second_nmi;
    steps[1].exit_code = SVM_EXIT_IRET;
    steps[2].exit_code = SVM_EXIT_CPUID;
    steps[3].exit_code = SVM_EXIT_IRET;
    play();
    assert_int_equal(steps[0].event_inj, NMI_INFO);
    assert_int_equal(steps[1].event_inj, 0);
    assert_true(steps[1].intercept1 & INTERCEPT(IRET));
    assert_int_equal(steps[2].event_inj, 0);
    assert_false(steps[2].intercept1 & INTERCEPT(IRET));
    assert_int_equal(steps[3].event_inj, NMI_INFO);
    assert_false(steps[4].intercept1 & INTERCEPT(IRET));
    assert_false(v->nmi_masked);
}

/* Masked by what dom0 has set, without an interception so far. */
static void test_nmi_masked_from_outside(void **state)
{
    (void)state;
    v->nmi_pending = v->nmi_masked = true;
    play();
    assert_int_equal(steps[0].event_inj, 0);
    assert_true(steps[0].intercept1 & INTERCEPT(IRET));
}

static void test_cr8_is_watched_while_it_holds_something_back(void **state)
{
    (void)state;
    vlapic_set_cr8(&v->lapic, 5);
    post(0x41);
    steps[0].exit_code = SVM_EXIT_WRITE_CR8;
    play();
    assert_int_equal(steps[0].event_inj, 0);
    assert_int_equal(steps[0].int_ctl & INT_CTL_TPR, 5);
    assert_true(steps[0].intercept_cr_write & BIT(8));
    assert_int_equal(emulated, 1);
}

static void test_ud(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_EXCP_BASE + VEC_UD;
    play();
    assert_int_equal(steps[1].event_inj, EXC(VEC_UD));
}

static void test_debug_and_alignment_exceptions_go_back(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_EXCP_BASE + VEC_DB;
    steps[1].exit_code = SVM_EXIT_EXCP_BASE + VEC_AC;
    steps[2].exit_code = SVM_EXIT_RDPMC;
    steps[3].exit_code = SVM_EXIT_SKINIT;
    play();
    assert_int_equal(steps[1].event_inj, EXC(VEC_DB));
    assert_int_equal(steps[2].event_inj, EXC(VEC_AC) | HAS_ERROR);
    assert_int_equal(steps[3].event_inj, EXC(VEC_GP) | HAS_ERROR);
    assert_int_equal(steps[4].event_inj, EXC(VEC_UD));
}

/* ---- ASIDs ---- */

static void taken_back(struct vcpu *w, struct vmcb *c)
{
    (void)c;
    npt_flush(&w->domain->npt);
}

static void test_asids(void **state)
{
    (void)state;
    for (u32 i = 0; i < 9; i++) {
        steps[i].exit_code = SVM_EXIT_CPUID;
        steps[i].hook = i ? taken_back : NULL;
    }
    play();
    assert_int_equal(steps[0].asid, 1);
    assert_int_equal(steps[1].asid, 1); /* nothing was taken back */
    for (u32 i = 2; i < ASIDS; i++) {
        assert_int_equal(steps[i].asid, i);
        assert_int_equal(steps[i].tlb_control, 0);
    }
    /* They begin again: all translations go, and no other vCPU may go on with its old one. */
    assert_int_equal(steps[ASIDS].asid, 1);
    assert_int_equal(steps[ASIDS].tlb_control, TLB_CONTROL_FLUSH_ALL);
    assert_int_equal(pcpus[0]->asid_generation, 2);
    assert_int_equal(steps[ASIDS + 1].asid, 2);
    assert_int_equal(steps[ASIDS + 1].tlb_control, 0);
}

static void other_generation(struct vcpu *w, struct vmcb *c)
{
    (void)w;
    (void)c;
    pcpus[0]->asid_generation++;
    pcpus[0]->asid_next = 3;
}

static void came_from_elsewhere(struct vcpu *w, struct vmcb *c)
{
    (void)c;
    w->cpu_loaded = 1;
}

static void test_new_asid_where_the_old_one_is_stale(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_CPUID;
    steps[0].hook = other_generation;
    steps[1].exit_code = SVM_EXIT_CPUID;
    steps[1].hook = came_from_elsewhere;
    play();
    assert_int_equal(steps[1].asid, 3);
    assert_int_equal(steps[2].asid, 4);
    assert_int_equal(v->cpu_loaded, 0);
}

/* ---- dom0 and a guest ---- */

static u32 handle;

static void call_run(struct vcpu *w, struct vmcb *c)
{
    assert_ptr_equal(w, v);
    c->efer = EFER_LMA;
    c->cs.attr = BIT(9);
    c->rax = SOCLE_HC_VCPU_RUN;
    w->gpr[RDI] = handle;
    w->gpr[RSI] = 0;
}

static void user_call(struct vcpu *w, struct vmcb *c)
{
    call_run(w, c);
    c->cpl = 3;
}

static void test_run_and_unknown_exit(void **state)
{
    struct fake_totals before = fake_totals();
    struct vcpu *g;
    u32 domain;

    (void)state;
    domain = fake_domain(1, 0);
    handle = fake_handle(domain, 0);
    g = vcpu_table[handle];
    memset(g->vendor, 0, PAGE_SIZE);
    fake_leave(0, VCPU_YIELD);
    steps[0].exit_code = SVM_EXIT_VMMCALL;
    steps[0].hook = call_run;
    steps[1].exit_code = 0x399;
    steps[1].exit_info1 = 77;
    play();
    assert_ptr_equal(steps[1].v, g);
    assert_ptr_equal(steps[2].v, v);
    assert_true(steps[1].asid != steps[0].asid);
    assert_int_equal(steps[2].asid, steps[0].asid);
    assert_int_equal(v->gpr[RAX], SOCLE_RAN_EXIT);
    assert_int_equal(fake_page(g)->exit, SOCLE_EXIT_FAILED);
    assert_int_equal(fake_page(g)->failed.reason, 0x399);
    assert_int_equal(fake_page(g)->failed.info[0], 77);
    vcpu_put(v, VCPU_YIELD);
    assert_int_equal(fake_call(0, SOCLE_HC_DOMAIN_DESTROY, domain, 0, 0, 0, 0), 0);
    assert_int_equal(fake_totals().pool, before.pool);
}

static void test_user_mode_may_not_call(void **state)
{
    (void)state;
    steps[0].exit_code = SVM_EXIT_VMMCALL;
    steps[0].hook = user_call;
    play();
    assert_int_equal(v->gpr[RAX], (u64)-1); /* KVM_EPERM */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_precedence, start),
        cmocka_unit_test_setup(test_interrupt_window, start),
        cmocka_unit_test_setup(test_forestalled_interrupt, start),
        cmocka_unit_test_setup(test_interrupted_virtual_interrupt, start),
        cmocka_unit_test_setup(test_requeued_interrupt_and_window, start),
        cmocka_unit_test_setup(test_shadow, start),
        cmocka_unit_test_setup(test_requeue, start),
        cmocka_unit_test_setup(test_nmi_waits_for_iret, start),
        cmocka_unit_test_setup(test_nmi_masked_from_outside, start),
        cmocka_unit_test_setup(test_cr8_is_watched_while_it_holds_something_back, start),
        cmocka_unit_test_setup(test_ud, start),
        cmocka_unit_test_setup(test_debug_and_alignment_exceptions_go_back, start),
        cmocka_unit_test_setup(test_asids, start),
        cmocka_unit_test_setup(test_new_asid_where_the_old_one_is_stale, start),
        cmocka_unit_test_setup(test_run_and_unknown_exit, start),
        cmocka_unit_test_setup(test_user_mode_may_not_call, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
