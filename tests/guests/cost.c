/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what exits cost, as "cost NAME TICKS" lines: the median of RUNS, less the empty
 * measurement. On an emulated machine that counts instructions, a tick is an instruction: "loop" is
 * LOOP_LENGTH there. */
#include "tests/guests/guest.h"

const char guest_name[] = "cost";

#define WARM_UP     16
#define RUNS        64
#define VECTOR      0x50
#define PM_TIMER    0x608
#define HPET_ID     0xfed00000ull
#define LOOP_LENGTH 2001 /* instructions of loop() */

static u64 samples[RUNS], empty;
static volatile u64 handled_at;

static u64 median(void)
{
    for (u32 i = 1; i < RUNS; i++) {
        for (u32 j = i; j > 0 && samples[j - 1] > samples[j]; j--) {
            u64 swap = samples[j];

            samples[j] = samples[j - 1];
            samples[j - 1] = swap;
        }
    }
    return samples[RUNS / 2];
}

/* `end` is when it is over: rdtsc(), or the time that a handler noted. */
#define MEASURE(end, ...)                                                 \
    ({                                                                    \
        for (u32 run_ = 0; run_ < WARM_UP + RUNS; run_++) {               \
            u64 start_ = rdtsc();                                         \
            __VA_ARGS__;                                                  \
            u64 end_ = end;                                               \
            samples[run_ < WARM_UP ? 0 : run_ - WARM_UP] = end_ - start_; \
        }                                                                 \
        median();                                                         \
    })
#define COST(name, end, ...) print("cost %s %lu\n", name, MEASURE(end, __VA_ARGS__) - empty)

static void on_interrupt(UNUSED struct frame *frame)
{
    handled_at = rdtsc();
    wrmsr(MSR_X2APIC_FIRST + APIC_EOI / 16, 0);
}

static void hypercall(bool amd)
{
    u64 rax = 0x1234;

    if (amd) {
        __asm__ volatile("vmmcall" : "+a"(rax) : : "memory");
    } else {
        __asm__ volatile("vmcall" : "+a"(rax) : : "memory");
    }
}

static void loop(void)
{
    u32 rounds;

    __asm__ volatile("movl %1, %0\n\t"
                     "1: decl %0\n\t"
                     "jnz 1b"
                     : "=r"(rounds)
                     : "i"(LOOP_LENGTH / 2)
                     : "cc");
}

static void wait_handled(void)
{
    while (!handled_at) {
    }
    handled_at = 0;
}

static void interrupts(void)
{
    u32 self = ICR_FIXED | ICR_TO_SELF | VECTOR;
    u64 at = 0;

    handlers[VECTOR] = on_interrupt;
    sti();
    COST("self-ipi", at, {
        wrmsr(MSR_X2APIC_FIRST + APIC_ICR / 16, self);
        while (!handled_at) {
        }
        at = handled_at;
        handled_at = 0;
    });
    COST("self-ipi-eoi", rdtsc(), {
        wrmsr(MSR_X2APIC_FIRST + APIC_ICR / 16, self);
        wait_handled();
    });
    if (cpuid(1, 0).ecx & BIT(24)) {
        apic_write(APIC_LVT_TIMER, LVT_TSC_DEADLINE | VECTOR);
        COST("tsc-deadline", rdtsc(), {
            wrmsr(MSR_TSC_DEADLINE, 1);
            wait_handled();
        });
    }
    cli();
}

void guest_main(void)
{
    bool amd = is_amd();
    volatile u32 *xapic_eoi = (volatile u32 *)(u64)(APIC_BASE_ADDRESS + APIC_EOI);
    volatile u32 *hpet = (volatile u32 *)HPET_ID;
    u64 cr0 = READ_CR(0), cr4 = READ_CR(4);

    /* Or each exit would cost more from the firmware's PIT's next tick on. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    empty = MEASURE(rdtsc(), );
    COST("loop", rdtsc(), loop());
    COST("cpuid", rdtsc(), cpuid(0, 0));
    COST("hypercall", rdtsc(), hypercall(amd));
    COST("tsc-adjust-read", rdtsc(), rdmsr(MSR_TSC_ADJUST));
    COST("cr0-wp", rdtsc(), WRITE_CR(0, cr0 ^= CR0_WP));
    COST("cr4-pge", rdtsc(), WRITE_CR(4, cr4 ^= CR4_PGE));
    COST("wbinvd", rdtsc(), __asm__ volatile("wbinvd" : : : "memory"));
    COST("port-in-pic", rdtsc(), inb(0x21));
    COST("port-out-pic", rdtsc(), outb(0x21, 0xff));
    COST("port-in-qemu", rdtsc(), inl(PM_TIMER));
    COST("mmio-in-qemu", rdtsc(), (void)*hpet);
    apic_enable(false);
    COST("xapic-eoi", rdtsc(), *xapic_eoi = 0);
    if (has_x2apic()) {
        apic_enable(true);
        COST("x2apic-eoi", rdtsc(), wrmsr(MSR_X2APIC_FIRST + APIC_EOI / 16, 0));
        interrupts();
    }
    pass();
}
