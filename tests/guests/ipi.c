/* SPDX-License-Identifier: BSD-2-Clause */
/* Two processors: start-up by INIT and SIPI, twice; interrupts to and fro in xAPIC and x2APIC mode,
 * with the receiver halted and busy; NMIs; self-IPI. */
#include "tests/guests/guest.h"

const char guest_name[] = "ipi";

#define ROUNDS 500
enum { PING = 0x40, PONG = 0x41, WAKE = 0x42, SELF = 0x43 };

#define KVM_FEATURES    0x40000001
#define KVM_UNHALT      BIT(7)
#define KVM_SEND_IPI    BIT(11)
#define KVM_SCHED_YIELD BIT(13)
enum { HC_KICK_CPU = 5, HC_SEND_IPI = 10, HC_SCHED_YIELD = 11 };

static volatile u32 pongs, nmis, selves, ap_ready, ap_mode, mode_wanted, bsp_id, ap_id;
static volatile u32 deaf_halts, deaf_halts_wanted;
static volatile bool pong_wanted = true;

static void on_ping(UNUSED struct frame *frame)
{
    apic_write(APIC_EOI, 0);
    if (pong_wanted) {
        apic_send(bsp_id, ICR_FIXED | PONG);
    }
}

static void on_pong(UNUSED struct frame *frame)
{
    pongs++;
    apic_write(APIC_EOI, 0);
}

static void on_wake(UNUSED struct frame *frame)
{
    apic_write(APIC_EOI, 0);
}

static void on_self(UNUSED struct frame *frame)
{
    selves++;
    apic_write(APIC_EOI, 0);
}

static void on_nmi(UNUSED struct frame *frame)
{
    nmis++;
}

static void ap_main(void)
{
    for (;;) {
        if (!ap_ready || ap_mode != mode_wanted) {
            apic_enable(mode_wanted);
            ap_mode = mode_wanted;
            ap_id = apic_id();
            __atomic_add_fetch(&ap_ready, 1, __ATOMIC_SEQ_CST);
        }
        if (deaf_halts != deaf_halts_wanted) {
            __asm__ volatile("cli; hlt" : : : "memory");
            deaf_halts++;
        }
        sti_hlt_cli();
    }
}

static void ping_pong(const char *mode)
{
    u64 start = rdtsc(), limit = tsc_per_ms() * 20000;

    pongs = 0;
    for (u32 round = 1; round <= ROUNDS; round++) {
        apic_send(ap_id, ICR_FIXED | PING);
        while (pongs < round) {
            if (round % 2) {
                sti_hlt_cli();
            } else {
                take_interrupts();
            }
            CHECK(rdtsc() - start < limit, "%s: %u of %u round trips in 20 s", mode, pongs, ROUNDS);
        }
    }
    print("ipi: %s: %u round trips\n", mode, pongs);
}

static void send_nmis(const char *mode)
{
    nmis = 0;
    for (u32 i = 1; i <= 50; i++) {
        apic_send(ap_id, ICR_NMI);
        CHECK(wait_for(&nmis, i, 2000), "%s: NMI %u did not arrive", mode, i);
    }
    apic_send(0, ICR_NMI | ICR_TO_OTHERS);
    CHECK(wait_for(&nmis, 51, 2000), "%s: the NMI to all others did not arrive", mode);
}

static void self_ipis(const char *mode)
{
    selves = 0;
    for (u32 i = 1; i <= 50; i++) {
        apic_send(0, ICR_FIXED | ICR_TO_SELF | SELF);
        if (x2apic_on()) {
            wrmsr(MSR_X2APIC_FIRST + APIC_SELF_IPI / 16, SELF); /* merges with the first */
        }
        take_interrupts();
        CHECK(selves >= i, "%s: self-IPI %u did not arrive", mode, i);
    }
}

static void all_kinds(const char *mode)
{
    CHECK(wait_for(&ap_ready, 1, 2000), "%s: the other processor is not ready", mode);
    bsp_id = apic_id();
    CHECK(ap_id != bsp_id, "%s: both processors are APIC %u", mode, ap_id);
    ping_pong(mode);
    send_nmis(mode);
    self_ipis(mode);
    print("ipi: %s: NMIs and self-IPIs\n", mode);
}

static s64 kvm_call(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
    u64 rax = nr, rbx = a, rcx = b, rdx = c, rsi = d;

    if (is_amd())
        __asm__ volatile("vmmcall"
                         : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi)
                         :
                         : "memory");
    else
        __asm__ volatile("vmcall"
                         : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi)
                         :
                         : "memory");
    return (s64)rax;
}

/* KVM's hypercalls: interrupts to a set of processors, and the end of a HLT with interrupts off. */
static void paravirtual(void)
{
    u32 features = cpuid(KVM_FEATURES, 0).eax, wanted = KVM_UNHALT | KVM_SEND_IPI | KVM_SCHED_YIELD;

    CHECK((features & wanted) == wanted, "KVM's features are %x", features);
    pongs = nmis = 0;
    CHECK(kvm_call(HC_SEND_IPI, BIT(ap_id), 0, 0, ICR_FIXED | PING) == 1, "no IPI was sent");
    for (u64 start = rdtsc(); !pongs && rdtsc() - start < tsc_per_ms() * 2000;) {
        take_interrupts();
    }
    CHECK(pongs == 1, "%u answers to an IPI by hypercall", pongs);
    CHECK(kvm_call(HC_SEND_IPI, 0, BIT(0), ap_id - 64, ICR_NMI) == 1, "no NMI was sent");
    CHECK(wait_for(&nmis, 1, 2000), "the NMI by hypercall did not arrive");
    CHECK(kvm_call(HC_SEND_IPI, 0, BIT(63), ap_id, ICR_NMI) == 0, "an NMI for nobody was sent");
    CHECK(kvm_call(HC_SEND_IPI, 3, 0, 0, ICR_FIXED | ICR_TO_OTHERS | PING) == -22, "a shorthand");
    CHECK(kvm_call(HC_SCHED_YIELD, ap_id, 0, 0, 0) == 0, "no yield");
    for (u32 i = 1; i <= 5; i++) {
        deaf_halts_wanted = i;
        apic_send(ap_id, ICR_FIXED | WAKE);
        for (u64 start = rdtsc(); rdtsc() - start < tsc_per_ms() * 20;) {
            pause();
        }
        CHECK(deaf_halts == i - 1, "HLT %u ended too early", i);
        CHECK(kvm_call(HC_KICK_CPU, 0, ap_id, 0, 0) == 0, "no kick");
        CHECK(wait_for(&deaf_halts, i, 2000), "kick %u did not end the HLT", i);
    }
    print("ipi: hypercalls\n");
}

void guest_main(void)
{
    handlers[2] = on_nmi;
    handlers[PING] = on_ping;
    handlers[PONG] = on_pong;
    handlers[WAKE] = on_wake;
    handlers[SELF] = on_self;
    apic_enable(false);
    bsp_id = apic_id();
    CHECK(start_others(ap_main) == 1, "no second processor started");
    all_kinds("xAPIC");

    ap_ready = 0;
    CHECK(start_others(ap_main) == 1, "the second processor did not start again");
    CHECK(has_x2apic(), "no x2APIC");
    CHECK(wait_for(&ap_ready, 1, 2000), "the other processor is not ready again");
    ap_ready = 0;
    mode_wanted = 1;
    apic_send(ap_id, ICR_FIXED | WAKE);
    CHECK(wait_for(&ap_ready, 1, 2000), "the other processor did not change to x2APIC");
    apic_enable(true);
    all_kinds("x2APIC");
    paravirtual();
    pass();
}
