/* SPDX-License-Identifier: BSD-2-Clause */
/* Interrupts of the PIT by way of the PIC and the local APIC's LINT0 as ExtINT. */
#include "tests/guests/guest.h"

const char guest_name[] = "pic";

#define TICKS 100

static volatile u32 ticks;

static void on_tick(UNUSED struct frame *frame)
{
    ticks++;
    outb(0x20, 0x20); /* EOI */
}

static void count_ticks(const char *how, bool halted)
{
    u64 start = rdtsc();

    ticks = 0;
    while (ticks < TICKS) {
        if (halted) {
            sti_hlt_cli();
        } else {
            take_interrupts();
        }
        CHECK(rdtsc() - start < 20000 * tsc_per_ms(), "%s: %u ticks in 20 s", how, ticks);
    }
    u64 ms = (rdtsc() - start) / tsc_per_ms();
    print("pic: %s: %u ticks of 1 ms in %lu ms\n", how, TICKS, ms);
}

/* With interrupts off, so that one waits most of the time */
static void write_cr8_while_one_waits(void)
{
    u64 start = rdtsc();

    while (rdtsc() - start < 20 * tsc_per_ms()) {
        WRITE_CR(8, 0xf);
        WRITE_CR(8, 0);
    }
    count_ticks("after CR8", false);
}

void guest_main(void)
{
    handlers[0x20] = on_tick;
    apic_enable(false);
    tsc_per_ms();
    pic_setup(1);
    apic_write(APIC_LVT_LINT0, 0x700);
    pit_periodic(PIT_HZ / 1000);
    count_ticks("halted", true);
    count_ticks("busy", false);
    write_cr8_while_one_waits();

    outb(0x21, 0xff);
    take_interrupts();
    ticks = 0;
    volatile u32 never = 0;
    sti();
    wait_for(&never, 1, 10);
    cli();
    CHECK(ticks == 0, "%u ticks of a masked input", ticks);
    outb(0x21, 0xfe);
    count_ticks("unmasked again", true);
    pass();
}
