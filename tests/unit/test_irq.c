/* SPDX-License-Identifier: BSD-2-Clause */
/* Interrupts: physical ones on their way to dom0 and back, and messages between vCPUs. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "tests/unit/fake_machine.h"
#include "drivers/apic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define VCPUS 4

static u32 domain;
static struct vcpu *v[VCPUS], *dom0_vcpu;

static int start(void **state)
{
    (void)state;
    fake_start(2);
    dom0_vcpu = pcpus[0]->dom0;
    domain = fake_domain(VCPUS, 0);
    for (u32 i = 0; i < VCPUS; i++) {
        v[i] = vcpu_table[fake_handle(domain, i)];
        v[i]->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    }
    fake_cpu = 0;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    while (fake_call(0, SOCLE_HC_DOMAIN_DESTROY, domain, 0, 0, 0, 0) == -E_AGAIN)
        fake_enter(1);
    return 0;
}

/* ---- physical interrupts ---- */

static void test_edge_is_ended_at_once(void **state)
{
    (void)state;
    irq_physical(0x41);
    assert_int_equal(fake.eois[0], 1);
    assert_int_equal(vlapic_pending(&dom0_vcpu->lapic), 0x41);
    vlapic_accept(&dom0_vcpu->lapic, 0x41);
    assert_int_equal(vlapic_eoi(&dom0_vcpu->lapic), -1); /* and its end is nobody's business */
}

/* Neither the APIC's nor dom0's to end there. */
static void test_what_comes_from_a_pic_is_left_out(void **state)
{
    (void)state;
    fake.from_pic[0x30] = true;
    irq_physical(0x30);
    assert_int_equal(fake.eois[0], 0);
    assert_int_equal(vlapic_pending(&dom0_vcpu->lapic), -1);
}

static void test_own_vectors_do_not_reach_dom0(void **state)
{
    (void)state;
    irq_physical(APIC_VECTOR_TIMER);
    irq_physical(APIC_VECTOR_KICK);
    irq_physical(APIC_VECTOR_ERROR);
    assert_int_equal(fake.eois[0], 3);
    irq_physical(APIC_VECTOR_SPURIOUS); /* is not in service */
    assert_int_equal(fake.eois[0], 3);
    assert_int_equal(vlapic_pending(&dom0_vcpu->lapic), -1);
    assert_true(dom0_vcpu->pending & PENDING_RESCHED);
}

/* Dom0 takes the vector, handles it, and ends it. */
static void dom0_handles(u8 vector)
{
    struct vlapic_effect e;

    assert_int_equal(vlapic_pending(&dom0_vcpu->lapic), vector);
    vlapic_accept(&dom0_vcpu->lapic, vector);
    vlapic_mmio_write(&dom0_vcpu->lapic, VLAPIC_REG_EOI * 16, 0, rdtsc(), &e);
    vcpu_apply_effect(dom0_vcpu, &e);
}

static void test_level_is_ended_by_dom0(void **state)
{
    (void)state;
    fake.level[0x51] = true;
    irq_physical(0x51);
    assert_int_equal(fake.eois[0], 0);
    dom0_handles(0x51);
    assert_int_equal(fake.eois[0], 1);
    irq_physical(0x51);
    assert_int_equal(fake.eois[0], 1);
    dom0_handles(0x51);
    assert_int_equal(fake.eois[0], 2);
}

static void end_level(u8 vector)
{
    struct vlapic_effect e = {.flags = VLAPIC_EOI, .eoi_vector = vector};

    vcpu_apply_effect(dom0_vcpu, &e);
}

/* The physical APIC ends the highest in service, whichever is meant: so a lower one's end waits. */
static void test_level_ends_in_the_order_of_vectors(void **state)
{
    (void)state;
    fake.level[0x31] = fake.level[0x52] = fake.level[0x91] = true;
    irq_physical(0x31);
    irq_physical(0x52);
    irq_physical(0x91);
    end_level(0x31);
    end_level(0x52);
    assert_int_equal(fake.eois[0], 0);
    end_level(0x91);
    assert_int_equal(fake.eois[0], 3);
    irq_physical(0x31);
    irq_physical(0x41); /* edge-triggered, above it */
    assert_int_equal(fake.eois[0], 4);
    end_level(0x31);
    assert_int_equal(fake.eois[0], 5);
}

/* An end without a beginning must not end a later interrupt before dom0 does. */
static void test_stray_end(void **state)
{
    (void)state;
    fake.level[0x31] = fake.level[0x52] = true;
    end_level(0x31);
    assert_int_equal(fake.eois[0], 0);
    irq_physical(0x31);
    irq_physical(0x52);
    end_level(0x52);
    assert_int_equal(fake.eois[0], 1);
    end_level(0x31);
    assert_int_equal(fake.eois[0], 2);
}

static void test_dom0_that_takes_none(void **state)
{
    (void)state;
    dom0_vcpu->lapic.reg[VLAPIC_REG_SVR].value &= ~APIC_SVR_ENABLE;
    fake.level[0x51] = true;
    irq_physical(0x51);
    irq_physical(0x41);
    assert_int_equal(fake.eois[0], 2);
    assert_int_equal(vlapic_pending(&dom0_vcpu->lapic), -1);
}

/* The IOAPIC of a guest is in dom0: a bit in its page tells. */
static void test_guests_level_end(void **state)
{
    struct vlapic_effect e = {.flags = VLAPIC_EOI, .eoi_vector = 0x91};

    (void)state;
    vcpu_apply_effect(v[0], &e);
    assert_int_equal(fake_page(v[0])->eoi[2], BIT(0x11));
    assert_int_equal(fake.eois[0], 0);
}

/* ---- messages ---- */

/* The vCPUs that took it, as bits. */
static u32 takers(struct vcpu *from, const struct apic_msg *msg)
{
    u32 bits = 0;
    int n = irq_deliver(v[0]->domain, from, msg);

    for (u32 i = 0; i < VCPUS; i++) {
        if (vlapic_pending(&v[i]->lapic) < 0)
            continue;
        assert_int_equal(vlapic_pending(&v[i]->lapic), msg->vector);
        vlapic_accept(&v[i]->lapic, msg->vector);
        vlapic_eoi(&v[i]->lapic);
        bits |= 1u << i;
    }
    assert_int_equal(__builtin_popcount(bits), n);
    return bits;
}

static void test_destinations(void **state)
{
    struct apic_msg msg = {.vector = 0x41, .dest = 2};

    (void)state;
    assert_int_equal(takers(v[0], &msg), 1 << 2);
    msg.dest = 9;
    assert_int_equal(takers(v[0], &msg), 0);
    msg.dest = APIC_DEST_ALL;
    assert_int_equal(takers(v[0], &msg), 15);
    msg.shorthand = APIC_TO_SELF;
    assert_int_equal(takers(v[1], &msg), 1 << 1);
    msg.shorthand = APIC_TO_OTHERS;
    assert_int_equal(takers(v[1], &msg), 15 & ~(1 << 1));
    msg.shorthand = APIC_TO_ALL;
    v[3]->lapic.reg[VLAPIC_REG_SVR].value = 0xff; /* it takes none now */
    assert_int_equal(takers(v[1], &msg), 7);
}

static void test_lowest_priority_goes_to_one(void **state)
{
    struct apic_msg msg = {.mode = APIC_LOWEST, .dest = APIC_DEST_ALL};
    u32 all = 0;

    (void)state;
    for (u32 i = 0; i < VCPUS; i++) {
        msg.vector = (u8)(0x41 + i);
        all |= takers(NULL, &msg);
    }
    assert_int_equal(all, 15); /* they take turns */
    for (u32 i = 0; i < VCPUS - 1; i++)
        v[i]->lapic.reg[VLAPIC_REG_SVR].value = 0xff;
    assert_int_equal(takers(NULL, &msg), 1 << 3);
    v[3]->lapic.reg[VLAPIC_REG_SVR].value = 0xff;
    assert_int_equal(takers(NULL, &msg), 0);
}

static void test_ipi_by_icr(void **state)
{
    struct vlapic_effect e = {.flags = VLAPIC_IPI, .icr = 2ull << 32 | 0x41};

    (void)state;
    vcpu_apply_effect(v[0], &e);
    assert_int_equal(vlapic_pending(&v[2]->lapic), 0x41);
    assert_int_equal(v[0]->count[SOCLE_STAT_IPI], 1);
    e.icr = 2ull << 32 | 0x305; /* a reserved mode */
    vcpu_apply_effect(v[0], &e);
    assert_int_equal(v[0]->count[SOCLE_STAT_IPI], 1);
}

static void test_nmi_init_and_sipi(void **state)
{
    struct apic_msg msg = {.mode = APIC_NMI, .shorthand = APIC_TO_OTHERS};

    (void)state;
    assert_int_equal(irq_deliver(v[0]->domain, v[0], &msg), VCPUS - 1);
    assert_true(!v[0]->nmi_pending && v[1]->nmi_pending && v[3]->nmi_pending);
    msg = (struct apic_msg){.mode = APIC_INIT, .dest = 1};
    assert_int_equal(irq_deliver(v[0]->domain, v[0], &msg), 1);
    msg = (struct apic_msg){.mode = APIC_SIPI, .dest = 1, .vector = 0x8};
    assert_int_equal(irq_deliver(v[0]->domain, v[0], &msg), 1);
    assert_true(v[1]->init_pending && v[1]->sipi_pending && v[1]->sipi_vector == 8);
    msg = (struct apic_msg){.mode = APIC_SMI, .dest = 1};
    assert_int_equal(irq_deliver(v[0]->domain, v[0], &msg), 0);
}

static s64 kvm_call(u64 nr, u64 b, u64 c, u64 d, u64 s)
{
    v[0]->gpr[RAX] = nr;
    v[0]->gpr[RBX] = b;
    v[0]->gpr[RCX] = c;
    v[0]->gpr[RDX] = d;
    v[0]->gpr[RSI] = s;
    return exit_kvm_call(v[0], true);
}

/* KVM's hypercalls, each only where CPUID has it. */
static void test_hypercalls(void **state)
{
    (void)state;
    assert_int_equal(kvm_call(10, 6, 0, 0, 0x41), -KVM_ENOSYS);
    fake.kvm_calls = 1 << 5 | 1 << 10 | 1 << 11;
    assert_int_equal(kvm_call(10, 6, 0, 0, 0x41), 2);
    assert_int_equal(vlapic_pending(&v[1]->lapic), 0x41);
    assert_int_equal(vlapic_pending(&v[2]->lapic), 0x41);
    assert_int_equal(vlapic_pending(&v[3]->lapic), -1);
    assert_int_equal(kvm_call(10, 0, 1, (u32)-61, 0x400), 1); /* an NMI to 3 */
    assert_true(v[3]->nmi_pending && !v[2]->nmi_pending);
    assert_int_equal(kvm_call(10, 1, 0, 0, 0x40041), -KVM_EINVAL); /* a shorthand */
    assert_int_equal(kvm_call(10, 1, 0, 0, 1), -KVM_EINVAL);
    vlapic_accept(&v[2]->lapic, 0x41);
    v[2]->activity = ACTIVITY_HALTED;
    assert_false(vcpu_has_event(v[2]));
    assert_int_equal(kvm_call(5, 0, 2, 0, 0), 0);
    assert_true(v[2]->kicked && vcpu_has_event(v[2]) && !v[1]->kicked);
    assert_int_equal(kvm_call(11, 2, 0, 0, 0), 0);
    assert_int_equal(kvm_call(~0ull, 0, 0, 0, 0), -KVM_ENOSYS);
}

static void test_timer_follows_the_local_apic(void **state)
{
    struct vlapic_effect e;
    u64 now = rdtsc();

    (void)state;
    vlapic_mmio_write(&dom0_vcpu->lapic, VLAPIC_REG_LVT_TIMER * 16, 0x50, now, &e);
    vlapic_mmio_write(&dom0_vcpu->lapic, VLAPIC_REG_TMICT * 16, ~0u, now, &e);
    vcpu_apply_effect(dom0_vcpu, &e);
    assert_int_equal(fake.timer[0], dom0_vcpu->lapic.timer_deadline);
    vlapic_mmio_write(&dom0_vcpu->lapic, VLAPIC_REG_TMICT * 16, 1000000, now, &e);
    vcpu_apply_effect(dom0_vcpu, &e);
    assert_int_equal(fake.timer[0], dom0_vcpu->lapic.timer_deadline);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(test_edge_is_ended_at_once),
        TEST(test_what_comes_from_a_pic_is_left_out),
        TEST(test_own_vectors_do_not_reach_dom0),
        TEST(test_level_is_ended_by_dom0),
        TEST(test_level_ends_in_the_order_of_vectors),
        TEST(test_stray_end),
        TEST(test_dom0_that_takes_none),
        TEST(test_guests_level_end),
        TEST(test_destinations),
        TEST(test_lowest_priority_goes_to_one),
        TEST(test_ipi_by_icr),
        TEST(test_nmi_init_and_sipi),
        TEST(test_hypercalls),
        TEST(test_timer_follows_the_local_apic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
