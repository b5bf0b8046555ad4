/* SPDX-License-Identifier: BSD-2-Clause */
/* The time-stamp counter: Socle's only clock. */
#pragma once

#include "core/types.h"

/* Measures the TSC against the ACPI PM timer (port, 0: none), else the 8254's channel 2. Boot
 * processor, about 50 ms. Panics if neither runs. */
void tsc_calibrate(u16 pm_timer_port);

extern u64 tsc_khz;
extern u64 tsc_boot; /* TSC at calibration: the start of Socle's time */

/* Nanoseconds of a TSC difference, and since tsc_boot; with the factors that guests use. */
u64 tsc_to_ns(u64 ticks);
u64 tsc_uptime_ns(void);

/* These are kvmclock's: ns = (ticks << shift or >> -shift) * mul >> 32. The factor is 2^31..2^32.
 */
extern u32 tsc_pv_mul;
extern s8 tsc_pv_shift;

static inline void tsc_pv_factors(u64 khz, u32 *mul, s8 *shift)
{
    u64 ns_per_ms = 1000000ull << 32;

    for (*shift = 0; ns_per_ms / khz < BIT(31); --*shift)
        ns_per_ms <<= 1;
    for (; ns_per_ms / khz >= BIT(32); ++*shift)
        ns_per_ms >>= 1;
    *mul = (u32)(ns_per_ms / khz);
}

/* ---- other rates than the machine's ---- */

extern bool tsc_scaling; /* guests may have them: the vendor part says so at boot */

/* A ratio is the guest's ticks for one of the host's, with 48 fraction bits. */
#define TSC_RATIO_ONE BIT(48)

static inline u64 tsc_scale(u64 ticks, u64 ratio)
{
    return (u64)((unsigned __int128)ticks * ratio >> 48);
}

/* The ticks of the host in which at least so many of the guest's pass; ~0: more than 64 bits hold.
 * In C the division would need a library. */
static inline u64 tsc_unscale(u64 ticks, u64 ratio)
{
    u64 high = ticks >> 16, low = ticks << 48;

    if (likely(ratio == TSC_RATIO_ONE))
        return ticks;
    if (high + 1 >= ratio)
        return ~0ull;
    __asm__("divq %2" : "+a"(low), "+d"(high) : "r"(ratio) : "cc");
    return low + !!high;
}
