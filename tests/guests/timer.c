/* SPDX-License-Identifier: BSD-2-Clause */
/* The local APIC's timer: one-shot, periodic, TSC-deadline; nothing early, nothing twice, nothing
 * lost, and late by less than half a second (the emulated machine may be busy). */
#include "tests/guests/guest.h"

const char guest_name[] = "timer";

#define VECTOR  0x50
#define LATE_MS 500

static volatile u32 fired;
static volatile u64 fired_at;
static u64 ticks_per_ms; /* of the APIC timer */

static void on_timer(UNUSED struct frame *frame)
{
    fired_at = rdtsc();
    fired++;
    apic_write(APIC_EOI, 0);
}

/* With interrupts on, halted or busy. */
static void spend(u32 ms)
{
    u64 start = rdtsc();

    sti();
    while (rdtsc() - start < ms * tsc_per_ms()) {
        pause();
    }
    cli();
}

static void measure_rate(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xb); /* by 1 */
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR);
    apic_write(APIC_TIMER_INITIAL, 0xffffffff);
    u64 start = rdtsc();
    spend(20);
    u32 left = apic_read(APIC_TIMER_CURRENT);
    u64 elapsed = rdtsc() - start;
    apic_write(APIC_TIMER_INITIAL, 0);
    ticks_per_ms = (0xffffffff - left) * tsc_per_ms() / elapsed;
    print("timer: %lu TSC ticks and %lu APIC timer ticks per ms\n", tsc_per_ms(), ticks_per_ms);
    CHECK(ticks_per_ms > 1000 && ticks_per_ms < 10000000, "the timer's rate is absurd");
    CHECK(fired == 0, "a masked timer fired");
}

static void check_time(const char *what, u64 start, u64 ms)
{
    u64 us = (fired_at - start) * 1000 / tsc_per_ms();

    CHECK((s64)(fired_at - start) > 0 && us + us / 20 + 50 >= ms * 1000,
          "%s of %lu ms fired after %lu us", what, ms, us);
    CHECK(us < (ms + LATE_MS) * 1000, "%s of %lu ms fired after %lu us", what, ms, us);
}

static void one_shot(void)
{
    apic_write(APIC_LVT_TIMER, VECTOR);
    for (u32 ms = 1; ms <= 16; ms *= 2) {
        fired = 0;
        u64 start = rdtsc();
        apic_write(APIC_TIMER_INITIAL, (u32)(ms * ticks_per_ms));
        while (!fired) {
            sti_hlt_cli();
        }
        check_time("one-shot", start, ms);
        CHECK(apic_read(APIC_TIMER_CURRENT) == 0, "one-shot: the count is not 0 at the end");
        spend(3);
        CHECK(fired == 1, "one-shot fired %u times", fired);
    }
    fired = 0;
    apic_write(APIC_TIMER_INITIAL, (u32)(5 * ticks_per_ms));
    apic_write(APIC_TIMER_INITIAL, 0);
    spend(8);
    CHECK(fired == 0, "a stopped one-shot fired");
}

static void periodic(void)
{
    fired = 0;
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR);
    u64 start = rdtsc();
    apic_write(APIC_TIMER_INITIAL, (u32)ticks_per_ms);
    while (fired < 50) {
        sti_hlt_cli();
    }
    check_time("50 periods", start, 49);
    apic_write(APIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC | VECTOR);
    take_interrupts();
    u32 count = fired;
    spend(5);
    CHECK(fired == count, "a masked periodic timer fired");
    apic_write(APIC_TIMER_INITIAL, 0);
}

static void deadline(void)
{
    if (!(cpuid(1, 0).ecx & BIT(24))) {
        print("timer: no TSC-deadline mode\n");
        return;
    }
    apic_write(APIC_LVT_TIMER, LVT_TSC_DEADLINE | VECTOR);
    for (u32 ms = 1; ms <= 16; ms *= 2) {
        fired = 0;
        u64 start = rdtsc(), at = start + ms * tsc_per_ms();
        wrmsr(MSR_TSC_DEADLINE, at);
        CHECK(ms < 16 || rdmsr(MSR_TSC_DEADLINE) == at, "the deadline reads 0x%lx, not 0x%lx",
              rdmsr(MSR_TSC_DEADLINE), at);
        while (!fired) {
            sti_hlt_cli();
        }
        CHECK(fired_at >= at, "deadline fired %lu ticks early", at - fired_at);
        check_time("deadline", start, ms);
        CHECK(rdmsr(MSR_TSC_DEADLINE) == 0, "the deadline is not 0 after it fired");
    }
    fired = 0;
    wrmsr(MSR_TSC_DEADLINE, 1);
    spend(1);
    CHECK(fired == 1, "a deadline in the past fired %u times", fired);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 5 * tsc_per_ms());
    wrmsr(MSR_TSC_DEADLINE, 0);
    spend(8);
    CHECK(fired == 1, "a cancelled deadline fired");
}

static void all_kinds(const char *mode)
{
    fired = 0;
    measure_rate();
    one_shot();
    periodic();
    deadline();
    print("timer: %s mode done\n", mode);
}

void guest_main(void)
{
    handlers[VECTOR] = on_timer;
    apic_enable(false);
    all_kinds("xAPIC");
    if (has_x2apic()) {
        apic_enable(true);
        all_kinds("x2APIC");
    }
    pass();
}
