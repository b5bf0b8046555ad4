/* SPDX-License-Identifier: BSD-2-Clause */
/* VMX found and brought up: what is refused and why, and the controls that are chosen of what a
 * processor offers. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c tests/unit/fake_vmx.c tests/unit/vmcs_check.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_vmx.h"
#include "core/errno.h"
#include "core/gmem.h"
#include "core/npt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define LOCKED        BIT(0)
#define ALLOWED       BIT(2)
#define OTHER_CONTROL BIT(18) /* SGX */
#define ALL_OPTIONAL  "ept vpid preemption-timer tpr-shadow apicv pause-loop pml tsc-scaling"

static struct vmcs_cpu good_cpu;
static jmp_buf entered;

bool vmx_enter(UNUSED u64 *gpr, UNUSED bool launched)
{
    assert_int_equal(fake_vmx_check_and_say(), 0);
    longjmp(entered, 1);
}

int gmem_access(UNUSED struct vcpu *v, UNUSED gpa_t gpa, UNUSED void *buf, UNUSED size_t len,
                UNUSED u32 access)
{
    return -E_FAULT;
}

#define FAKE_EXIT(name, ...)           \
    enum vcpu_action name(__VA_ARGS__) \
    {                                  \
        return VCPU_RESUME;            \
    }
FAKE_EXIT(exit_cpuid, UNUSED struct vcpu *v, UNUSED u64 cr4)
FAKE_EXIT(exit_rdmsr, UNUSED struct vcpu *v)
FAKE_EXIT(exit_wrmsr, UNUSED struct vcpu *v)
FAKE_EXIT(exit_xsetbv, UNUSED struct vcpu *v, UNUSED u8 cpl, UNUSED u64 cr4)
FAKE_EXIT(exit_io, UNUSED struct vcpu *v, UNUSED u16 port, UNUSED u8 size, UNUSED bool in)
FAKE_EXIT(exit_npf, UNUSED struct vcpu *v, UNUSED gpa_t gpa, UNUSED bool write, UNUSED bool fetch)
FAKE_EXIT(exit_emulate, UNUSED struct vcpu *v)

/* A machine whose processors are as the firmware left them. */
static int start(void **state)
{
    (void)state;
    fake_vmx_start();
    fake_start(2);
    fake_vmx = fake_vmx_firmware;
    vmx_features = (struct vmx_features){0};
    return 0;
}

static int end(void **state)
{
    (void)state;
    fake_vmx_cpu = good_cpu;
    vendor_plain = false;
    return 0;
}

static int first(void **state)
{
    (void)state;
    good_cpu = fake_vmx_cpu;
    return 0;
}

static int bring_up(u32 id)
{
    return vmx_ops.init_cpu(pcpus[id]);
}

static void names_are(const char *expected)
{
    char text[128];

    vmx_ops.features(text, sizeof(text));
    assert_string_equal(text, expected);
}

/* Both halves: a control that may not be 1 cannot have to be. */
static void forbid(u64 *capability, u32 control)
{
    *capability &= ~((u64)control << 32 | control);
}

/* ---- detection ---- */

static void refused(const char *cause)
{
    const char *why = NULL;

    assert_false(vmx_ops.detect(&why));
    assert_string_equal(why, cause);
    fake_vmx = fake_vmx_firmware;
    fake_vmx_cpu = good_cpu;
}

static void detected(void)
{
    const char *why;

    assert_true(vmx_ops.detect(&why));
    fake_vmx = fake_vmx_firmware;
    fake_vmx_cpu = good_cpu;
}

static void test_detection_by_firmware(void **state)
{
    (void)state;
    detected();
    fake_vmx.control = 0;
    detected();
    fake_vmx.control = ALLOWED;
    detected();
    fake_vmx.has_control = false;
    detected();
    fake_vmx.control = LOCKED;
    refused("VMX (Intel VT-x) is switched off and locked by the firmware: enable it in the "
            "firmware's setup");
    /* Inside SMX alone, which Socle is not. */
    fake_vmx.control = LOCKED | BIT(1);
    refused("VMX (Intel VT-x) is switched off and locked by the firmware: enable it in the "
            "firmware's setup");
}

static void test_detection_by_cpuid(void **state)
{
    (void)state;
    fake_vmx.cpuid_ecx &= ~(u32)BIT(5);
    fake_vmx.control = LOCKED; /* not the cause to name */
    refused("this processor has no VMX (Intel VT-x)");
}

static void test_detection_of_ept(void **state)
{
    static const u8 needed[] = {6, 14, 16, 20, 25}; /* of IA32_VMX_EPT_VPID_CAP */
    const char *cause = "this processor has VMX, but no EPT";

    (void)state;
    forbid(&fake_vmx_cpu.proc, PROC_SECONDARY);
    refused(cause);
    forbid(&fake_vmx_cpu.proc2, PROC2_EPT);
    refused(cause);
    for (u32 i = 0; i < ARRAY_SIZE(needed); i++) {
        fake_vmx_cpu.ept_vpid &= ~BIT(needed[i]);
        refused(cause);
    }
}

static void test_detection_of_the_rest(void **state)
{
    (void)state;
    forbid(&fake_vmx_cpu.proc2, PROC2_UNRESTRICTED);
    refused("this processor has VMX, but no unrestricted guest");
    fake_vmx_cpu.basic &= ~BIT(55);
    refused("this processor has VMX, but not its TRUE controls");
}

static void test_largest_page(void **state)
{
    (void)state;
    detected();
    assert_int_equal(vmx_ops.npt_format->max_leaf, 2);
    fake_vmx_cpu.ept_vpid &= ~BIT(17);
    detected();
    assert_int_equal(vmx_ops.npt_format->max_leaf, 1);
    detected();
}

/* ---- bring-up ---- */

static void test_unlocked_is_locked(void **state)
{
    (void)state;
    fake_vmx.control = OTHER_CONTROL;
    assert_int_equal(bring_up(0), 0);
    assert_int_equal(fake_vmx.control, OTHER_CONTROL | LOCKED | ALLOWED);
    assert_true(fake_vmx.cr4 & CR4_VMXE);
    assert_int_equal(fake_vmx.vmxons, 1);
}

/* A write would fault: the fake insists on it. */
static void test_locked_stays(void **state)
{
    (void)state;
    fake_vmx.control = OTHER_CONTROL | LOCKED | ALLOWED;
    assert_int_equal(bring_up(0), 0);
    assert_int_equal(fake_vmx.control, OTHER_CONTROL | LOCKED | ALLOWED);
    assert_int_equal(fake_vmx.vmxons, 1);
}

static void test_vmxon_that_fails(void **state)
{
    (void)state;
    fake_vmx.vmxon_fails = true;
    assert_int_equal(bring_up(0), -E_NODEV);
}

static void test_no_memory(void **state)
{
    struct charge all = {.limit = ~0ull};

    (void)state;
    while (pool_alloc(&all)) {
    }
    assert_int_equal(bring_up(0), -E_NOMEM);
    assert_int_equal(fake_vmx.vmxons, 0);
}

/* ---- the choice of controls ---- */

struct group {
    u64 *capability;
    const u32 *chosen;
    u32 required, optional;
};

static const struct group groups[] = {
    {&fake_vmx_cpu.pin, &vmx_features.pin, PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMIS,
     PIN_PREEMPTION_TIMER},
    {&fake_vmx_cpu.proc, &vmx_features.proc,
     PROC_TSC_OFFSET | PROC_HLT | PROC_MWAIT | PROC_RDPMC | PROC_CR8_LOAD | PROC_CR8_STORE |
         PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_MONITOR | PROC_SECONDARY,
     PROC_TPR_SHADOW},
    {&fake_vmx_cpu.proc2, &vmx_features.proc2, PROC2_EPT | PROC2_UNRESTRICTED,
     PROC2_VPID | PROC2_PAUSE_LOOP | PROC2_LOG | PROC2_TSC_SCALING | PROC2_RDTSCP | PROC2_INVPCID |
         PROC2_WBINVD | PROC2_APIC},
    {&fake_vmx_cpu.exit, &vmx_features.exit,
     EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACK_INTERRUPT | EXIT_SAVE_PAT | EXIT_LOAD_PAT |
         EXIT_SAVE_EFER | EXIT_LOAD_EFER,
     0},
    {&fake_vmx_cpu.entry, &vmx_features.entry, ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER,
     0},
};

/* What the processor allows is in use, and nothing else; the first entry of a vCPU keeps to it. */
static void chosen_is_legal(void)
{
    struct vcpu *v;

    for (u32 i = 0; i < ARRAY_SIZE(groups); i++) {
        assert_int_equal(*groups[i].chosen & ~(*groups[i].capability >> 32), 0);
        if (i != 1) /* of TPR shadow and CR8's exits, one does */
            assert_int_equal(*groups[i].chosen & groups[i].required, groups[i].required);
    }
    assert_int_equal(vmx_features.apic & ~(fake_vmx_cpu.proc2 >> 32), 0);
    fake_vmx_start();
    fake_start(1);
    v = pcpus[0]->dom0;
    fake_leave(0, VCPU_YIELD);
    *fake_vmcs(v, VMCS_GUEST_CR0) |= CR0_PE;
    v = vcpu_pick();
    vendor->load(v);
    if (!setjmp(entered))
        vendor->run(v);
    vendor->save(v);
    vcpu_put(v, VCPU_YIELD);
}

/* All that is optional and at hand but for what the missing control takes along. */
static struct vmx_features without(const struct vmx_features *all, u32 group, u32 control)
{
    struct vmx_features f = *all;
    bool apic = group == 2 && (control & PROC2_APIC);

    if (group == 0)
        f.pin &= ~control;
    if (group == 2)
        f.proc2 &= ~control;
    if (group == 1) {
        f.proc &= ~(u32)PROC_TPR_SHADOW;
        f.proc |= PROC_CR8_LOAD | PROC_CR8_STORE;
        apic = true;
    }
    if (apic)
        f.apic = 0;
    return f;
}

static void test_all_features(void **state)
{
    (void)state;
    assert_int_equal(bring_up(0), 0);
    names_are(ALL_OPTIONAL);
    assert_int_equal(vmx_features.apic, PROC2_APIC);
    assert_int_equal(vmx_features.proc2 & PROC2_APIC, 0);
    assert_int_equal(vmx_features.proc & (PROC_CR8_LOAD | PROC_CR8_STORE), 0);
    assert_int_equal(vmx_features.timer_shift, fake_vmx_cpu.misc & 0x1f);
    chosen_is_legal();
}

static void each_missing(u32 group, const struct vmx_features *all, void **state)
{
    for (u32 bit = 0; bit < 32; bit++) {
        struct vmx_features expected = without(all, group, 1u << bit);

        if (!(groups[group].optional >> bit & 1))
            continue;
        start(state);
        forbid(groups[group].capability, 1u << bit);
        assert_int_equal(bring_up(0), 0);
        assert_memory_equal(&vmx_features, &expected, sizeof(expected));
        chosen_is_legal();
        fake_vmx_cpu = good_cpu;
    }
}

static void test_each_optional_feature_missing(void **state)
{
    struct vmx_features all;

    assert_int_equal(bring_up(0), 0);
    all = vmx_features;
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++)
        each_missing(i, &all, state);
}

static void test_all_optional_features_missing(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++)
        forbid(groups[i].capability, groups[i].optional);
    assert_int_equal(bring_up(0), 0);
    names_are("ept");
    assert_int_equal(vmx_features.apic, 0);
    chosen_is_legal();
}

/* The rest of what is optional are instructions that a guest would miss. */
static void test_plain(void **state)
{
    u32 instructions = PROC2_RDTSCP | PROC2_INVPCID | PROC2_WBINVD;

    (void)state;
    vendor_plain = true;
    assert_int_equal(bring_up(0), 0);
    names_are("ept");
    assert_int_equal(vmx_features.proc2, PROC2_EPT | PROC2_UNRESTRICTED | instructions);
    assert_int_equal(vmx_features.proc & PROC_CR8_LOAD, PROC_CR8_LOAD);
    assert_int_equal(vmx_features.apic, 0);
    chosen_is_legal();
}

/* Controls that the processor insists on come along, whatever they are. */
static void test_must_be_one(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++)
        *groups[i].capability |= (u64)BIT(30) << 32 | BIT(30);
    assert_int_equal(bring_up(0), 0);
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++) {
        u32 must = (u32)*groups[i].capability;

        assert_int_equal(*groups[i].chosen & must, must);
    }
}

static void test_each_required_control_missing(void **state)
{
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++) {
        for (u32 bit = 0; bit < 32; bit++) {
            if (!(groups[i].required >> bit & 1))
                continue;
            start(state);
            forbid(groups[i].capability, 1u << bit);
            assert_int_equal(bring_up(0), -E_NODEV);
            assert_int_equal(fake_vmx.vmxons, 0);
            fake_vmx_cpu = good_cpu;
        }
    }
}

/* ---- the second processor ---- */

static void test_second_processor(void **state)
{
    (void)state;
    assert_int_equal(bring_up(0), 0);
    fake_vmx = fake_vmx_firmware;
    fake_vmx.control = 0;
    assert_int_equal(bring_up(1), 0);
    assert_int_equal(fake_vmx.control, LOCKED | ALLOWED);
    assert_int_equal(fake_vmx.vmxons, 1);
}

static void differs(const struct vmx_features *chosen)
{
    assert_int_equal(bring_up(1), -E_NODEV);
    assert_memory_equal(&vmx_features, chosen, sizeof(*chosen));
    fake_vmx_cpu = good_cpu;
}

static void test_second_processor_differs(void **state)
{
    struct vmx_features chosen;

    (void)state;
    assert_int_equal(bring_up(0), 0);
    chosen = vmx_features;
    for (u32 i = 0; i < ARRAY_SIZE(groups); i++) {
        for (u32 bit = 0; bit < 32; bit++) {
            if (!((groups[i].optional | groups[i].required) >> bit & 1))
                continue;
            forbid(groups[i].capability, 1u << bit);
            differs(&chosen);
        }
    }
    fake_vmx_cpu.misc ^= 1; /* the preemption timer's rate */
    differs(&chosen);
    assert_int_equal(fake_vmx.vmxons, 1);
}

/* What nobody uses may differ. */
static void test_second_processor_has_more(void **state)
{
    (void)state;
    vendor_plain = true;
    assert_int_equal(bring_up(0), 0);
    forbid(&fake_vmx_cpu.proc, PROC_TPR_SHADOW);
    forbid(&fake_vmx_cpu.pin, PIN_PREEMPTION_TIMER);
    assert_int_equal(bring_up(1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_detection_by_firmware, start, end),
        cmocka_unit_test_setup_teardown(test_detection_by_cpuid, start, end),
        cmocka_unit_test_setup_teardown(test_detection_of_ept, start, end),
        cmocka_unit_test_setup_teardown(test_detection_of_the_rest, start, end),
        cmocka_unit_test_setup_teardown(test_largest_page, start, end),
        cmocka_unit_test_setup_teardown(test_unlocked_is_locked, start, end),
        cmocka_unit_test_setup_teardown(test_locked_stays, start, end),
        cmocka_unit_test_setup_teardown(test_vmxon_that_fails, start, end),
        cmocka_unit_test_setup_teardown(test_no_memory, start, end),
        cmocka_unit_test_setup_teardown(test_all_features, start, end),
        cmocka_unit_test_setup_teardown(test_each_optional_feature_missing, start, end),
        cmocka_unit_test_setup_teardown(test_all_optional_features_missing, start, end),
        cmocka_unit_test_setup_teardown(test_plain, start, end),
        cmocka_unit_test_setup_teardown(test_must_be_one, start, end),
        cmocka_unit_test_setup_teardown(test_each_required_control_missing, start, end),
        cmocka_unit_test_setup_teardown(test_second_processor, start, end),
        cmocka_unit_test_setup_teardown(test_second_processor_differs, start, end),
        cmocka_unit_test_setup_teardown(test_second_processor_has_more, start, end),
    };

    return cmocka_run_group_tests(tests, first, NULL);
}
