/* SPDX-License-Identifier: BSD-2-Clause */
/* The CMOS clock, read once at boot, before dom0 owns it. */
#pragma once

#include "core/types.h"

/* Seconds since 1970-01-01 (the clock is taken as UTC and in 2000-2099), or 0 if the clock makes no
 * sense. */
u64 rtc_read(void);

/* The clock's registers as they are: second, minute, hour, day, month, year, status B. */
enum { RTC_SEC, RTC_MIN, RTC_HOUR, RTC_DAY, RTC_MONTH, RTC_YEAR, RTC_STATUS_B, RTC_REGS };

/* rtc_read()'s arithmetic, on register values. */
u64 rtc_decode(const u8 regs[RTC_REGS]);
