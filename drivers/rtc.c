/* SPDX-License-Identifier: BSD-2-Clause */
/* CMOS clock (Motorola MC146818A and its descendants). */
#include "drivers/rtc.h"

#include "core/io.h"
#include "core/lib.h"

#define STATUS_A     0x0a
#define A_UPDATING   0x80
#define B_BINARY     0x04
#define B_24_HOURS   0x02
#define HOUR_PM      0x80
#define UPDATE_POLLS 20000 /* an update takes 2 ms, a poll two port accesses of about 1 us */

static u8 cmos_read(u8 index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void read_regs(u8 regs[RTC_REGS])
{
    static const u8 index[RTC_REGS] = {0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x0b};

    for (u32 i = 0; i < UPDATE_POLLS && (cmos_read(STATUS_A) & A_UPDATING); i++)
        ;
    for (u32 i = 0; i < RTC_REGS; i++)
        regs[i] = cmos_read(index[i]);
}

static u32 from_bcd(u8 v, bool binary)
{
    return binary ? v : (v >> 4) * 10u + (v & 15);
}

u64 rtc_decode(const u8 regs[RTC_REGS])
{
    static const u16 month_start[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    bool binary = regs[RTC_STATUS_B] & B_BINARY, clock24 = regs[RTC_STATUS_B] & B_24_HOURS;
    u32 hour = from_bcd(clock24 ? regs[RTC_HOUR] : regs[RTC_HOUR] & ~HOUR_PM, binary);
    u32 sec = from_bcd(regs[RTC_SEC], binary), min = from_bcd(regs[RTC_MIN], binary);
    u32 day = from_bcd(regs[RTC_DAY], binary), month = from_bcd(regs[RTC_MONTH], binary);
    u32 year = from_bcd(regs[RTC_YEAR], binary);
    u64 days;

    if (!clock24)
        hour = hour % 12 + (regs[RTC_HOUR] & HOUR_PM ? 12 : 0);
    if (sec > 59 || min > 59 || hour > 23 || !day || day > 31 || !month || month > 12 || year > 99)
        return 0;
    /* 10957 days from 1970 to 2000; every fourth year from 2000 to 2099 is a leap year. */
    days = 10957 + year * 365 + (year + 3) / 4 + month_start[month - 1] + day - 1;
    days += month > 2 && year % 4 == 0;
    return ((days * 24 + hour) * 60 + min) * 60 + sec;
}

u64 rtc_read(void)
{
    u8 regs[RTC_REGS], again[RTC_REGS];

    /* Two equal readings: no update fell between the registers. */
    for (u32 i = 0; i < 5; i++) {
        read_regs(regs);
        read_regs(again);
        if (!memcmp(regs, again, sizeof(regs)))
            break;
    }
    return rtc_decode(again);
}
