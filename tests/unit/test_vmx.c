/* SPDX-License-Identifier: BSD-2-Clause */
/* VMX's run loop with a processor that follows a script: injection, flushes, and the way to dom0.
 */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c tests/unit/fake_vmx.c tests/unit/vmcs_check.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_vmx.h"
#include "core/exits.h"
#include "core/gmem.h"
#include "core/paging.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define STEPS     16
#define LENGTH    3 /* of every instruction */
#define HAS_ERROR BIT(11)
#define NMI_INFO  (INTR_INFO_VALID | 2 << 8 | VEC_NMI)
#define EXC(v)    (INTR_INFO_VALID | 3 << 8 | (v))
#define IRQ(v)    (INTR_INFO_VALID | (v))
#define NONE      0xffff /* the script's end */

/* An entry as the processor sees it, and how the guest leaves again. */
struct step {
    u32 reason;
    u64 qualification, idt_info, intr_info;
    void (*hook)(struct vcpu *v);
    /* seen */
    const struct vcpu *v;
    u64 entry_info, entry_error, shadow, rip;
    u32 proc, flushes;
    u64 service, eoi_exits[4];
    bool launched;
};

static struct step steps[STEPS];
static u32 step_count, emulated;
static jmp_buf end_of_script;
static struct vcpu *v; /* dom0's */
static u64 guest_memory[4];
static int gmem_result;

bool vmx_enter(u64 *gpr, bool launched)
{
    struct step *s = &steps[step_count++];
    struct vcpu *w = this_cpu()->current;

    s->v = w;
    assert_ptr_equal(gpr, w->gpr);
    s->launched = launched;
    s->flushes = fake_vmx_flushes;
    s->entry_info = vmread(VMCS_ENTRY_INTR_INFO);
    s->entry_error = vmread(VMCS_ENTRY_INTR_ERROR);
    s->shadow = vmread(VMCS_INTERRUPTIBILITY);
    s->proc = (u32)vmread(VMCS_PROC);
    s->rip = vmread(VMCS_GUEST_RIP);
    if (w->lapic.virtualized) {
        s->service = vmread(VMCS_INTERRUPT_STATUS);
        for (u32 i = 0; i < 4; i++)
            s->eoi_exits[i] = vmread(VMCS_EOI_EXITS + 2 * i);
    }
    assert_int_equal(fake_vmx_check_and_say(), 0);
    if (s->reason == NONE)
        longjmp(end_of_script, 1);
    vmwrite(VMCS_ENTRY_INTR_INFO, 0);
    vmwrite(VMCS_EXIT_REASON, s->reason);
    vmwrite(VMCS_QUALIFICATION, s->qualification);
    vmwrite(VMCS_EXIT_INTR_INFO, s->intr_info);
    vmwrite(VMCS_EXIT_INTR_ERROR, 0);
    vmwrite(VMCS_IDT_INFO, s->idt_info);
    vmwrite(VMCS_IDT_ERROR, 0);
    vmwrite(VMCS_EXIT_LENGTH, LENGTH);
    if (s->hook)
        s->hook(w);
    return true;
}

int gmem_access(UNUSED struct vcpu *w, gpa_t gpa, void *buf, size_t len, u32 access)
{
    assert_int_equal(gpa, 0x5020);
    assert_int_equal(access, 0);
    assert_int_equal(len, sizeof(guest_memory));
    memcpy(buf, guest_memory, len);
    return gmem_result;
}

#define FAKE_EXIT(name, ...)           \
    enum vcpu_action name(__VA_ARGS__) \
    {                                  \
        emulated++;                    \
        return VCPU_RESUME;            \
    }
FAKE_EXIT(exit_cpuid, UNUSED struct vcpu *w, UNUSED u64 cr4)
FAKE_EXIT(exit_rdmsr, UNUSED struct vcpu *w)
FAKE_EXIT(exit_wrmsr, UNUSED struct vcpu *w)
FAKE_EXIT(exit_xsetbv, UNUSED struct vcpu *w, UNUSED u8 cpl, UNUSED u64 cr4)
FAKE_EXIT(exit_io, UNUSED struct vcpu *w, UNUSED u16 port, UNUSED u8 size, UNUSED bool in)
FAKE_EXIT(exit_npf, UNUSED struct vcpu *w, UNUSED gpa_t gpa, UNUSED bool write, UNUSED bool fetch)
FAKE_EXIT(exit_emulate, UNUSED struct vcpu *w)

static int start(void **state)
{
    (void)state;
    fake_vmx_start();
    fake_start(1);
    fake_leave(0, VCPU_YIELD);
    v = pcpus[0]->dom0;
    memset(steps, 0, sizeof(steps));
    for (u32 i = 0; i < STEPS; i++)
        steps[i].reason = NONE;
    *fake_vmcs(v, VMCS_GUEST_CR0) |= CR0_PE;
    step_count = emulated = 0;
    return 0;
}

/* Until an entry without an exit; the steps are then steps[0] to steps[step_count - 1]. */
static void play(void)
{
    if (!setjmp(end_of_script))
        for (struct vcpu *w = vcpu_pick(); w; w = vcpu_pick()) {
            enum vcpu_action action;

            vendor->load(w);
            action = vendor->run(w);
            vendor->save(w);
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
    return s->proc & PROC_INTERRUPT_WINDOW;
}

/* ---- injection ---- */

static void test_order_of_events(void **state)
{
    (void)state;
    vcpu_raise(v, VEC_PF, true, 0x17);
    v->nmi_pending = true;
    post(0x41);
    steps[0].reason = VMX_EXIT_CPUID;
    steps[1].reason = VMX_EXIT_NMI_WINDOW;
    steps[2].reason = VMX_EXIT_INTERRUPT_WINDOW;
    play();
    assert_int_equal(steps[0].entry_info, EXC(VEC_PF) | HAS_ERROR);
    assert_int_equal(steps[0].entry_error, 0x17);
    assert_true(window(&steps[0]));
    assert_true(steps[0].proc & PROC_NMI_WINDOW);
    assert_int_equal(steps[1].entry_info, NMI_INFO);
    assert_int_equal(steps[2].entry_info, IRQ(0x41));
    assert_false(steps[2].proc & PROC_NMI_WINDOW);
    assert_int_equal(steps[3].entry_info, 0);
    assert_false(window(&steps[3]));
    assert_int_equal(v->lapic.reg[VLAPIC_REG_ISR + 2].value, 2);
    assert_false(steps[0].launched);
    assert_true(steps[1].launched);
}

static void test_no_error_code_in_real_mode(void **state)
{
    (void)state;
    *fake_vmcs(v, VMCS_GUEST_CR0) &= ~CR0_PE;
    vcpu_raise_gp(v);
    play();
    assert_int_equal(steps[0].entry_info, EXC(VEC_GP));
}

static void enable_interrupts(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
}

static void test_interrupt_window(void **state)
{
    (void)state;
    v->rflags &= ~RFLAGS_IF;
    post(0x41);
    steps[0].reason = VMX_EXIT_INTERRUPT_WINDOW;
    steps[0].hook = enable_interrupts;
    play();
    assert_true(window(&steps[0]));
    assert_int_equal(steps[0].entry_info, 0);
    assert_false(window(&steps[1]));
    assert_int_equal(steps[1].entry_info, IRQ(0x41));
}

static void set_shadow(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_INTERRUPTIBILITY, SHADOW_STI | BLOCKED_BY_NMI);
    post(0x41);
}

/* The shadow holds interrupts back, and ends with the instruction, which a completed exit is. */
static void test_shadow(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_CPUID; /* not completed by the fake */
    steps[0].hook = set_shadow;
    steps[1].reason = VMX_EXIT_WBINVD;
    play();
    assert_int_equal(steps[1].shadow, SHADOW_STI | BLOCKED_BY_NMI);
    assert_true(window(&steps[1]));
    assert_int_equal(steps[1].entry_info, 0);
    assert_int_equal(steps[2].shadow, BLOCKED_BY_NMI);
    assert_int_equal(steps[2].entry_info, IRQ(0x41));
    assert_int_equal(steps[2].rip, steps[1].rip + LENGTH);
}

static void test_requeue(void **state)
{
    static const struct {
        u64 info;
        bool again;
    } cases[] = {
        {IRQ(0x41), true},
        {NMI_INFO, true},
        {EXC(VEC_PF) | HAS_ERROR, true},
        {INTR_INFO_VALID | 4 << 8 | 0x80, false}, /* INT 0x80, INT1, INT3 are executed again */
        {INTR_INFO_VALID | 5 << 8 | VEC_DB, false},
        {INTR_INFO_VALID | 6 << 8 | VEC_BP, false},
    };

    (void)state;
    v->nmi_masked = true;
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        steps[i].reason = VMX_EXIT_EPT_VIOLATION;
        steps[i].idt_info = cases[i].info;
    }
    play();
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(steps[i + 1].entry_info, cases[i].again ? cases[i].info : 0);
    assert_int_equal(steps[1].shadow, BLOCKED_BY_NMI);
    assert_int_equal(steps[2].shadow, 0); /* its delivery will block them */
}

static void test_nmi_waits_for_iret(void **state)
{
    (void)state;
    v->nmi_masked = true;
    v->nmi_pending = true;
    steps[0].reason = VMX_EXIT_CPUID;
    play();
    assert_int_equal(steps[0].entry_info, 0);
    assert_true(steps[0].proc & PROC_NMI_WINDOW);
    assert_true(v->nmi_pending);
}

/* An IRET that faults has ended the blocking already: the handler is not over. */
static void test_iret_that_faults(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_EPT_VIOLATION;
    steps[0].qualification = BIT(12);
    play();
    assert_int_equal(steps[1].shadow, BLOCKED_BY_NMI);
}

static void nmi_blocked(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_INTERRUPTIBILITY, BLOCKED_BY_NMI);
}

/* An instruction's task switch ends behind it, an event's where the event came; and IRET lets NMIs
 * in, while one that comes by a task gate blocks the next. */
static void test_task_switches(void **state)
{
    static const struct {
        u32 source;
        u64 idt_info, length, shadow;
        bool event;
    } cases[] = {
        {SOCLE_TASK_JMP, 0, LENGTH, BLOCKED_BY_NMI, false},
        {SOCLE_TASK_IRET, 0, LENGTH, 0, false},
        {SOCLE_TASK_GATE, INTR_INFO_VALID | EVENT_SOFT << 8 | 0x80, LENGTH, BLOCKED_BY_NMI, false},
        {SOCLE_TASK_GATE, INTR_INFO_VALID | 6 << 8 | VEC_BP, LENGTH, BLOCKED_BY_NMI, false},
        {SOCLE_TASK_GATE, EXC(VEC_DF) | HAS_ERROR, 0, BLOCKED_BY_NMI, true},
        {SOCLE_TASK_GATE, IRQ(0x41), 0, BLOCKED_BY_NMI, true},
        {SOCLE_TASK_GATE, NMI_INFO, 0, BLOCKED_BY_NMI, true},
    };

    static struct socle_vcpu_page page;

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        start(state);
        v->page = &page;
        steps[0].reason = VMX_EXIT_TASK_SWITCH;
        steps[0].qualification = (u64)cases[i].source << 30 | 0x28;
        steps[0].idt_info = cases[i].idt_info;
        steps[0].hook = cases[i].idt_info == NMI_INFO ? NULL : nmi_blocked;
        play();
        assert_int_equal(page.exit, SOCLE_EXIT_TASK);
        assert_int_equal(page.task.selector, 0x28);
        assert_int_equal(page.task.source, cases[i].source);
        assert_int_equal(page.task.next_rip - v->rip, cases[i].length);
        assert_int_equal(v->event.valid, cases[i].event);
        assert_int_equal(*fake_vmcs(v, VMCS_INTERRUPTIBILITY), cases[i].shadow);
    }
    start(state); /* dom0's kernel has no tasks */
    steps[0].reason = VMX_EXIT_TASK_SWITCH;
    play();
    assert_int_equal(steps[1].entry_info, EXC(VEC_GP) | HAS_ERROR);
}

static void single_step_behind_sti(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF);
    vmwrite(VMCS_INTERRUPTIBILITY, SHADOW_STI);
}

/* A debugger steps over STI: the trap exits, the pending single step is in the qualification only.
 */
static void test_event_ends_shadow(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_EXCEPTION;
    steps[0].intr_info = EXC(VEC_DB);
    steps[0].qualification = BIT(14);
    steps[0].hook = single_step_behind_sti;
    play();
    assert_int_equal(steps[1].entry_info, EXC(VEC_DB));
    assert_int_equal(steps[1].shadow, 0);
}

/* ---- the local APIC, where the processor ends interrupts ---- */

static void use_x2apic(struct vcpu *w)
{
    struct vlapic_effect e;

    assert_int_equal(vlapic_set_base(&w->lapic, 0xfee00d00, true, &e), 0);
    vcpu_apic_changed(w);
    vlapic_msr_write(&w->lapic, MSR_X2APIC_FIRST + VLAPIC_REG_SVR, 0x1ff, 0, &e);
    assert_true(w->lapic.virtualized);
}

/* What the processor does for a write of EOI. */
static void end_highest(struct vcpu *w)
{
    struct vlapic_word *word = &w->lapic.reg[VLAPIC_REG_ISR + 2];

    assert_true(word->value);
    word->value &= ~(1u << (31 - __builtin_clz(word->value)));
}

/* Ends make no exit, but of what another one waits for. */
static void test_the_next_comes_when_one_ends(void **state)
{
    (void)state;
    use_x2apic(v);
    post(0x58);
    post(0x41);
    steps[0] = (struct step){.reason = VMX_EXIT_EOI, .qualification = 0x58, .hook = end_highest};
    steps[1].reason = VMX_EXIT_CPUID;
    play();
    assert_int_equal(steps[0].entry_info, IRQ(0x58));
    assert_int_equal(steps[0].service, 0x5800);
    assert_int_equal(steps[0].eoi_exits[1], BIT(0x58 - 64));
    assert_int_equal(steps[1].entry_info, IRQ(0x41));
    assert_int_equal(steps[1].service, 0x4100);
    assert_int_equal(steps[1].eoi_exits[1], 0);
    assert_int_equal(steps[2].entry_info, 0);
    assert_int_equal(emulated, 1);
}

static void post_lower(struct vcpu *w)
{
    vlapic_post(&w->lapic, 0x41, false);
}

static void test_one_comes_while_a_higher_is_in_service(void **state)
{
    (void)state;
    use_x2apic(v);
    post(0x58);
    steps[0] = (struct step){.reason = VMX_EXIT_CPUID, .hook = post_lower};
    steps[1] = (struct step){.reason = VMX_EXIT_EOI, .qualification = 0x58, .hook = end_highest};
    play();
    assert_int_equal(steps[0].eoi_exits[1], 0);
    assert_int_equal(steps[1].entry_info, 0);
    assert_int_equal(steps[1].eoi_exits[1], BIT(0x58 - 64));
    assert_int_equal(steps[2].entry_info, IRQ(0x41));
}

static void test_level_is_told(void **state)
{
    struct pcpu *cpu = pcpus[0];

    (void)state;
    use_x2apic(v);
    cpu->level_held[1] |= BIT(0x41 - 64);
    vlapic_post(&v->lapic, 0x41, true);
    steps[0] = (struct step){.reason = VMX_EXIT_EOI, .qualification = 0x41, .hook = end_highest};
    play();
    assert_int_equal(steps[0].eoi_exits[1], BIT(0x41 - 64));
    assert_int_equal(cpu->level_held[1], 0); /* ended in the physical APIC */
}

/* Only TPR holds it back: the write of CR8 makes an exit, and the others do not. */
static void test_tpr_is_watched_while_it_matters(void **state)
{
    (void)state;
    vlapic_set_cr8(&v->lapic, 5);
    steps[0].reason = VMX_EXIT_CPUID;
    steps[0].hook = post_lower;
    steps[1] = (struct step){.reason = VMX_EXIT_CR, .qualification = 8};
    play();
    assert_false(steps[0].proc & PROC_CR8_LOAD);
    assert_true(steps[1].proc & PROC_CR8_LOAD);
    assert_int_equal(emulated, 2);
    assert_true(steps[2].proc & PROC_CR8_LOAD); /* the fake has not lowered it */
}

/* ---- exits ---- */

static void wrap(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_GUEST_RIP, 0xfffffffe);
}

static void test_rip_wraps(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_WBINVD;
    steps[0].hook = wrap;
    play();
    assert_int_equal(steps[1].rip, (u32)(0xfffffffe + LENGTH));
}

static void test_instructions_that_nobody_is_offered(void **state)
{
    static const u32 reasons[] = {VMX_EXIT_VMCLEAR,
                                  20,
                                  24,
                                  VMX_EXIT_VMXON,
                                  VMX_EXIT_INVEPT,
                                  VMX_EXIT_GETSEC,
                                  VMX_EXIT_MONITOR,
                                  VMX_EXIT_MWAIT};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(reasons); i++)
        steps[i].reason = reasons[i];
    play();
    for (u32 i = 0; i < ARRAY_SIZE(reasons); i++)
        assert_int_equal(steps[i + 1].entry_info, EXC(VEC_UD));
}

static void test_exceptions_go_back(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_EXCEPTION;
    steps[0].intr_info = EXC(VEC_AC) | HAS_ERROR;
    steps[1].reason = VMX_EXIT_RDPMC;
    play();
    assert_int_equal(steps[1].entry_info, EXC(VEC_AC) | HAS_ERROR);
    assert_int_equal(steps[2].entry_info, EXC(VEC_GP) | HAS_ERROR);
}

/* MOV to CR0 from RBX of values that no processor takes, and to CR4 of a bit that is not offered.
 */
static void test_bad_control_registers(void **state)
{
    static const u64 bad[] = {CR0_PG, CR0_PE | CR0_NW, CR0_PE | BIT(32), CR0_PE | CR0_PG};

    (void)state;
    *fake_vmcs(v, VMCS_GUEST_EFER) = EFER_LME; /* without CR4.PAE */
    for (u32 i = 0; i <= ARRAY_SIZE(bad); i++) {
        memset(steps, 0, sizeof(steps));
        step_count = 0;
        steps[0].reason = VMX_EXIT_CR;
        steps[0].qualification = (i < ARRAY_SIZE(bad) ? 0 : 4) | RBX << 8;
        steps[1].reason = NONE;
        v->gpr[RBX] = i < ARRAY_SIZE(bad) ? bad[i] : CR4_VMXE;
        play();
        assert_int_equal(steps[1].entry_info, EXC(VEC_GP) | HAS_ERROR);
        assert_int_equal(steps[1].rip, steps[0].rip);
        v->event.valid = false;
    }
    assert_int_equal(*fake_vmcs(v, VMCS_GUEST_CR0), CR0_NE | CR0_ET | CR0_PE);
}

static void paging_on(struct vcpu *w)
{
    w->gpr[RBX] = CR0_PG | CR0_NE | CR0_PE;
    vmwrite(VMCS_GUEST_CR3, 0x5020);
    vmwrite(VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE);
}

/* ---- paging, by bits of CR0 that make an exit ---- */

static void expect_bad_cr0(void (*prepare)(struct vcpu *w), u64 cr0)
{
    start(NULL);
    steps[0].reason = VMX_EXIT_CR;
    steps[0].qualification = RBX << 8;
    steps[0].hook = prepare;
    v->gpr[RBX] = cr0;
    play();
    assert_int_equal(steps[1].entry_info, EXC(VEC_GP) | HAS_ERROR);
    assert_int_equal(steps[1].rip, steps[0].rip);
}

static void enable_long_mode(struct vcpu *w)
{
    (void)w;
    vmwrite(VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE);
    vmwrite(VMCS_GUEST_EFER, EFER_LME);
}

static void set_long_mode(struct vcpu *w)
{
    enable_long_mode(w);
    vmx_set_cr0(w, CR0_PG | CR0_NE | CR0_ET | CR0_PE);
}

static void with_long_code(struct vcpu *w)
{
    enable_long_mode(w);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS, 0x209b);
}

static void with_16_bit_tss(struct vcpu *w)
{
    enable_long_mode(w);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_TR, 0x83);
}

static void with_pcid(struct vcpu *w)
{
    set_long_mode(w);
    vmwrite(VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE | CR4_PCIDE);
}

static void in_long_code(struct vcpu *w)
{
    set_long_mode(w);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS, 0x209b);
}

/* What the processor refuses in a MOV to CR0 it refuses in an entry too. */
static void test_bad_paging_switches(void **state)
{
    (void)state;
    expect_bad_cr0(with_long_code, CR0_PG | CR0_CD | CR0_PE);
    expect_bad_cr0(with_16_bit_tss, CR0_PG | CR0_CD | CR0_PE);
    expect_bad_cr0(with_pcid, CR0_CD | CR0_PE);
    expect_bad_cr0(in_long_code, CR0_CD | CR0_PE);
}

static void test_pae_paging_loads_its_entries(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++)
        guest_memory[i] = i << 12 | 1;
    guest_memory[2] |= 2; /* a reserved bit: the entry would fail */
    guest_memory[0] |= BIT(63);
    gmem_result = 0;
    steps[0].reason = VMX_EXIT_CR;
    steps[0].qualification = RBX << 8;
    steps[0].hook = paging_on;
    play();
    assert_int_equal(steps[1].rip, steps[0].rip + LENGTH);
    assert_int_equal(*fake_vmcs(v, VMCS_GUEST_PDPTE0), 0);
    assert_int_equal(*fake_vmcs(v, VMCS_GUEST_PDPTE0 + 2), 0x1001);
    assert_int_equal(*fake_vmcs(v, VMCS_GUEST_PDPTE0 + 4), 0);
    assert_int_equal(*fake_vmcs(v, VMCS_GUEST_PDPTE0 + 6), 0x3001);
    assert_false(vmx_of(v)->pdptes_due);
}

/* ---- translations ---- */

static void taken_back(struct vcpu *w)
{
    npt_flush(&w->domain->npt);
}

static void came_from_elsewhere(struct vcpu *w)
{
    w->cpu_loaded = 1;
}

static void test_flushes(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++)
        steps[i].reason = VMX_EXIT_CPUID;
    steps[1].hook = taken_back;
    steps[3].hook = came_from_elsewhere;
    play();
    assert_int_equal(steps[1].flushes, steps[0].flushes); /* nothing was taken back */
    assert_int_equal(steps[2].flushes, steps[0].flushes + 1);
    assert_int_equal(steps[3].flushes, steps[0].flushes + 1);
    assert_int_equal(steps[4].flushes, steps[0].flushes + 2);
}

/* The VPID's translations are of the old paging state. */
static void test_new_paging_state_flushes(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_CPUID;
    steps[1].reason = VMX_EXIT_CR;
    v->gpr[RAX] = CR0_PE | CR0_CD;
    steps[2].reason = VMX_EXIT_CPUID;
    play();
    assert_int_equal(steps[1].flushes, steps[0].flushes);
    assert_int_equal(steps[2].flushes, steps[1].flushes + 1);
    assert_int_equal(steps[3].flushes, steps[2].flushes);
}

/* ---- dom0 and a guest ---- */

static u32 handle;

static void call_run(struct vcpu *w)
{
    assert_ptr_equal(w, v);
    set_long_mode(w);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS, 0xa09b);
    vmwrite(VMCS_GUEST_LIMIT + 2 * SOCLE_SEG_CS, 0xffffffff);
    w->gpr[RAX] = SOCLE_HC_VCPU_RUN;
    w->gpr[RDI] = handle;
    w->gpr[RSI] = 0;
}

static void user_call(struct vcpu *w)
{
    call_run(w);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_CS, 0xa0fb);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * SOCLE_SEG_SS, 0xf3);
}

static void run_guest(u32 reason)
{
    struct vcpu *g;
    u32 domain = fake_domain(1, 0);

    handle = fake_handle(domain, 0);
    g = vcpu_table[handle];
    fake_leave(0, VCPU_YIELD);
    steps[0].reason = VMX_EXIT_VMCALL;
    steps[0].hook = call_run;
    steps[1].reason = reason;
    steps[1].qualification = 77;
    play();
    assert_ptr_equal(steps[1].v, g);
    assert_false(steps[1].launched);
    assert_ptr_equal(steps[2].v, v);
    assert_false(steps[2].launched); /* its VMCS was cleared meanwhile */
    assert_int_equal(v->gpr[RAX], SOCLE_RAN_EXIT);
    assert_int_equal(fake_page(g)->exit, SOCLE_EXIT_FAILED);
    assert_int_equal(fake_page(g)->failed.reason, reason);
    assert_int_equal(fake_page(g)->failed.info[0], 77);
    vcpu_put(v, VCPU_YIELD);
    assert_int_equal(fake_call(0, SOCLE_HC_DOMAIN_DESTROY, domain, 0, 0, 0, 0), 0);
}

static void test_run_and_unknown_exit(void **state)
{
    struct fake_totals before = fake_totals();

    (void)state;
    run_guest(0x63);
    assert_int_equal(fake_totals().pool, before.pool);
}

static void test_entry_that_fails(void **state)
{
    (void)state;
    run_guest((u32)BIT(31) | 33);
}

/* What the processor logs, at its index and downwards. */
static void log_write(struct vcpu *w, u64 gpa)
{
    u64 *log = phys_to_virt(vmread(VMCS_LOG)), index = vmread(VMCS_LOG_INDEX);

    assert_ptr_equal(log, w->dirty_log);
    assert_true(vmread(VMCS_PROC2) & PROC2_LOG);
    assert_true(vmread(VMCS_EPTP) & BIT(6));
    assert_in_range(index, 0, 511);
    log[index] = gpa;
    vmwrite(VMCS_LOG_INDEX, (u16)(index - 1));
}

static void fill_log(struct vcpu *w)
{
    for (u64 i = 0; i < 512; i++)
        log_write(w, i << PAGE_SHIFT);
    assert_int_equal(vmread(VMCS_LOG_INDEX), 0xffff);
}

static void log_two(struct vcpu *w)
{
    log_write(w, 0);
    log_write(w, 0x7000);
}

static s64 take_dirty(u32 domain)
{
    return fake_call(0, SOCLE_HC_DIRTY_LOG, domain, DOM0_PA(100), 0, 0, 0);
}

static void play_guest(u32 reason, void (*hook)(struct vcpu *))
{
    step_count = 0;
    memset(steps, 0, sizeof(steps));
    steps[0].reason = VMX_EXIT_VMCALL;
    steps[0].hook = call_run;
    steps[1].reason = reason;
    steps[1].hook = hook;
    steps[1].qualification = BIT(12); /* an IRET had unblocked NMIs */
    steps[2].reason = NONE;
    play();
    assert_ptr_equal(steps[2].v, v);
}

static void test_log_of_writes(void **state)
{
    struct fake_totals before = fake_totals();
    u32 domain = fake_domain(2, 0);
    u64 *gfns = (u64 *)RAM(DOM0_PA(100)), done;
    struct vcpu *g;
    struct domain *d = domain_get(domain);

    (void)state;
    handle = fake_handle(domain, 0);
    g = vcpu_table[handle];
    fake_leave(0, VCPU_YIELD);
    play_guest(0x63, NULL);
    assert_false(*fake_vmcs(g, VMCS_EPTP) & BIT(6));
    assert_int_equal(npt_map(&d->npt, 0, DOM0_PFN(512), 8, SOCLE_MAP_WRITE, &done), 0);
    assert_int_equal(take_dirty(domain), 0);
    assert_int_equal(npt_protect(&d->npt, 0, 8, &done), 0);
    assert_int_equal(npt_unmap(&d->npt, 0, 8, &done), 0);
    domain_put(d);

    play_guest(VMX_EXIT_LOG_FULL, fill_log);
    assert_int_equal(fake_page(g)->exit, SOCLE_EXIT_DIRTY);
    assert_true(*fake_vmcs(g, VMCS_INTERRUPTIBILITY) & BLOCKED_BY_NMI);
    assert_int_equal(take_dirty(domain), SOCLE_DIRTY_MAX);
    for (u64 i = 0; i < 512; i++)
        assert_int_equal(gfns[i], 511 - i);
    assert_int_equal(take_dirty(domain), 0);
    play_guest(0x63, log_two);
    vcpu_table[fake_handle(domain, 1)]->dirty_log[5] = 0x12345000;
    assert_int_equal(take_dirty(domain), 3);
    assert_true(gfns[0] == 7 && gfns[1] == 0 && gfns[2] == 0x12345);
    assert_int_equal(take_dirty(domain), 0);
    vcpu_put(v, VCPU_YIELD);
    assert_int_equal(fake_call(0, SOCLE_HC_DOMAIN_DESTROY, domain, 0, 0, 0, 0), 0);
    assert_int_equal(fake_totals().pool, before.pool);
}

static void test_user_mode_may_not_call(void **state)
{
    (void)state;
    steps[0].reason = VMX_EXIT_VMCALL;
    steps[0].hook = user_call;
    play();
    assert_int_equal(v->gpr[RAX], (u64)-1); /* KVM_EPERM */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order_of_events, start),
        cmocka_unit_test_setup(test_no_error_code_in_real_mode, start),
        cmocka_unit_test_setup(test_interrupt_window, start),
        cmocka_unit_test_setup(test_shadow, start),
        cmocka_unit_test_setup(test_requeue, start),
        cmocka_unit_test_setup(test_nmi_waits_for_iret, start),
        cmocka_unit_test_setup(test_iret_that_faults, start),
        cmocka_unit_test_setup(test_task_switches, start),
        cmocka_unit_test_setup(test_event_ends_shadow, start),
        cmocka_unit_test_setup(test_rip_wraps, start),
        cmocka_unit_test_setup(test_instructions_that_nobody_is_offered, start),
        cmocka_unit_test_setup(test_exceptions_go_back, start),
        cmocka_unit_test_setup(test_bad_control_registers, start),
        cmocka_unit_test_setup(test_bad_paging_switches, start),
        cmocka_unit_test_setup(test_pae_paging_loads_its_entries, start),
        cmocka_unit_test_setup(test_the_next_comes_when_one_ends, start),
        cmocka_unit_test_setup(test_one_comes_while_a_higher_is_in_service, start),
        cmocka_unit_test_setup(test_level_is_told, start),
        cmocka_unit_test_setup(test_tpr_is_watched_while_it_matters, start),
        cmocka_unit_test_setup(test_flushes, start),
        cmocka_unit_test_setup(test_new_paging_state_flushes, start),
        cmocka_unit_test_setup(test_run_and_unknown_exit, start),
        cmocka_unit_test_setup(test_entry_that_fails, start),
        cmocka_unit_test_setup(test_log_of_writes, start),
        cmocka_unit_test_setup(test_user_mode_may_not_call, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
