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

/* These are kvmclock's: ns = (ticks << shift or >> -shift) * mul >> 32. */
extern u32 tsc_pv_mul;
extern s8 tsc_pv_shift;
