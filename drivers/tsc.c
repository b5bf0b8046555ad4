/* SPDX-License-Identifier: BSD-2-Clause */
/* The time-stamp counter's rate. */
#include "drivers/tsc.h"
#include "core/io.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/panic.h"
#include "core/x86.h"

#define PM_TIMER_HZ    3579545u
#define PIT_HZ         1193182u
#define MEASURE_MS     50u
#define PIT_CHANNEL_2  0x42
#define PIT_COMMAND    0x43
#define PIT_GATE       0x61
#define PIT_OUT2       0x20
#define SPIN_LIMIT     100000000u
#define PM_TIMER_READS 5

u64 tsc_khz;
u64 tsc_boot;
u32 tsc_pv_mul;
s8 tsc_pv_shift;
bool tsc_scaling;

/* Reads the timer, and returns the TSC of that moment: of a few readings the fastest, for an SMI
 * (or an emulator's pause) between the two makes a pair worthless. */
static u64 read_pm_timer(u16 port, u32 *value)
{
    u64 best = ~0ull, at = 0;

    for (u32 i = 0; i < PM_TIMER_READS; i++) {
        u64 before = rdtsc(), took;
        u32 now = inl(port);

        took = rdtsc() - before;
        if (took < best) {
            best = took;
            at = before + took / 2;
            *value = now;
        }
    }
    return at;
}

/* Returns the TSC ticks of MEASURE_MS, 0 if the timer stands still. The 24-bit form wraps after 4.7
 * s. */
static u64 measure_pm_timer(u16 port)
{
    u32 wanted = PM_TIMER_HZ * MEASURE_MS / 1000, first = 0, last = 0, passed = 0;
    u64 start = read_pm_timer(port, &first), end;

    for (u32 i = 0; i < SPIN_LIMIT && passed < wanted; i++)
        passed = (inl(port) - first) & 0xffffff;
    if (passed < wanted)
        return 0;
    end = read_pm_timer(port, &last);
    return (end - start) * wanted / ((last - first) & 0xffffff);
}

static u64 measure_pit(void)
{
    u32 count = PIT_HZ * MEASURE_MS / 1000, i;
    u8 gate = inb(PIT_GATE) & 0xfc;
    u64 start;

    outb(PIT_GATE, gate | 1);
    outb(PIT_COMMAND, 0xb0); /* channel 2, both bytes, mode 0: the output rises at the end */
    outb(PIT_CHANNEL_2, (u8)count);
    outb(PIT_CHANNEL_2, (u8)(count >> 8));
    start = rdtsc();
    for (i = 0; i < SPIN_LIMIT && !(inb(PIT_GATE) & PIT_OUT2); i++)
        ;
    outb(PIT_GATE, gate);
    return i < SPIN_LIMIT ? rdtsc() - start : 0;
}

void tsc_calibrate(u16 pm_timer_port)
{
    u64 ticks = pm_timer_port ? measure_pm_timer(pm_timer_port) : 0;

    if (!ticks)
        ticks = measure_pit();
    if (!ticks)
        panic("neither the ACPI PM timer nor the 8254 runs: the TSC's rate cannot be measured");
    tsc_khz = ticks / MEASURE_MS;
    tsc_boot = rdtsc();
    tsc_pv_factors(tsc_khz, &tsc_pv_mul, &tsc_pv_shift);
    log_info("TSC: %lu kHz", tsc_khz);
}

u64 tsc_to_ns(u64 ticks)
{
    ticks = tsc_pv_shift < 0 ? ticks >> -tsc_pv_shift : ticks << tsc_pv_shift;
    return scale(ticks, tsc_pv_mul);
}

u64 tsc_uptime_ns(void)
{
    return tsc_to_ns(rdtsc() - tsc_boot);
}
