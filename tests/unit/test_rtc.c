/* SPDX-License-Identifier: BSD-2-Clause */
/* The CMOS clock's registers as seconds since 1970. */
// SOURCES: drivers/rtc.c
#include "drivers/rtc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <cmocka.h>

static u8 bcd(int v)
{
    return (u8)(v / 10 * 16 + v % 10);
}

static void test_every_day(void **state)
{
    (void)state;
    for (u64 t = 946684800; t < 4102444800u; t += 86400 + 3607) { /* 2000 to 2099 */
        time_t tt = (time_t)t;
        struct tm *tm = gmtime(&tt);
        int h12 = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
        u8 pm = tm->tm_hour >= 12 ? 0x80 : 0;
        u8 binary24[RTC_REGS] = {(u8)tm->tm_sec,
                                 (u8)tm->tm_min,
                                 (u8)tm->tm_hour,
                                 (u8)tm->tm_mday,
                                 (u8)(tm->tm_mon + 1),
                                 (u8)(tm->tm_year - 100),
                                 0x06};
        u8 bcd12[RTC_REGS] = {bcd(tm->tm_sec),
                              bcd(tm->tm_min),
                              (u8)(bcd(h12) | pm),
                              bcd(tm->tm_mday),
                              bcd(tm->tm_mon + 1),
                              bcd(tm->tm_year - 100),
                              0};

        assert_int_equal(rtc_decode(binary24), t);
        assert_int_equal(rtc_decode(bcd12), t);
    }
}

static void test_nonsense(void **state)
{
    const u8 absent[RTC_REGS] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const u8 zero[RTC_REGS] = {0};

    (void)state;
    assert_int_equal(rtc_decode(absent), 0);
    assert_int_equal(rtc_decode(zero), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_day),
        cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
