/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads all MSRs of the ranges that have any, and writes odd values to them. Refusals must be #GP;
 * the guest goes on in each case. */
#include "tests/guests/guest.h"

const char guest_name[] = "badmsr";

static const struct {
    u32 first, last;
} ranges[] = {
    {0, 0x2000},
    {0x40000000, 0x40000100},
    {0x4b564cf0, 0x4b564d10}, /* KVM's paravirtual MSRs */
    {0xc0000000, 0xc0002000},
    {0xc0010000, 0xc0012000},
    {0xfffffff0, 0xfffffffe},
};

static const u64 values[] = {0, ~0ull, 0xdeadbeefcafebabe, 0x8000000000000000, 0x100002};

static u32 reads_refused, writes_refused, changed;

/* Writes that would end the guest lawfully, the last two because they go to its memory. */
static bool spared(u32 msr)
{
    return msr == MSR_EFER || msr == MSR_APIC_BASE || msr == 0x11 || msr == 0x4b564d00;
}

static void probe(u32 msr)
{
    u64 before = 0, after = 0;
    int vector = try_rdmsr(msr, &before);

    CHECK(vector == NO_FAULT || vector == GP, "RDMSR 0x%x raised %d", msr, vector);
    reads_refused += vector == GP;
    for (u32 i = 0; i < ARRAY_SIZE(values) && !spared(msr); i++) {
        vector = try_wrmsr(msr, values[i]);
        CHECK(vector == NO_FAULT || vector == GP, "WRMSR 0x%x raised %d", msr, vector);
        writes_refused += vector == GP;
    }
    if (try_rdmsr(msr, &after) == NO_FAULT && after != before) {
        changed++;
        try_wrmsr(msr, before);
    }
}

/* The wall-clock time at which the clock was 0: now or a moment ago, and the same when asked again.
 * Where no memory is, none is written, and nobody is harmed. */
static void wall_clock(u32 msr)
{
    static volatile u32 wall[2048] ALIGNED(
        4096); /* version, s, ns; the second one crosses a page */
    volatile u32 *again = (volatile u32 *)((u64)wall + 4090);
    u64 value;

    CHECK(try_wrmsr(msr, (u64)wall) == NO_FAULT && try_rdmsr(msr, &value) == NO_FAULT,
          "WRMSR 0x%x: no wall clock", msr);
    CHECK(value == (u64)wall, "MSR 0x%x is not as written: 0x%lx", msr, value);
    CHECK(wall[0] && !(wall[0] & 1), "wall clock: version %u", wall[0]);
    CHECK(wall[1] > 1700000000 && wall[2] < 1000000000, "wall clock: %u s %u ns", wall[1], wall[2]);
    wrmsr(msr, (u64)again);
    CHECK(again[1] - wall[1] <= 1, "wall clock: %u s, then %u s", wall[1], again[1]);
    wrmsr(msr, 1ull << 46);
}

void guest_main(void)
{
    u32 count = 0;

    for (u32 i = 0; i < ARRAY_SIZE(ranges); i++) {
        for (u64 msr = ranges[i].first; msr <= ranges[i].last; msr++, count++) {
            probe((u32)msr);
        }
    }
    print("badmsr: %u MSRs, %u reads refused, %u of %u writes refused, %u MSRs changed\n", count,
          reads_refused, writes_refused, count * (u32)ARRAY_SIZE(values), changed);
    wall_clock(0x11);
    wall_clock(0x4b564d00);
    /* An address with reserved bits, and long mode turned off under paging, must not pass. */
    CHECK(try_wrmsr(MSR_APIC_BASE, ~0ull) == GP, "APIC_BASE takes all ones");
    CHECK(try_wrmsr(MSR_EFER, 0) == GP, "EFER takes 0 under paging");
    CHECK(try_wrmsr(MSR_EFER, ~0ull) == GP, "EFER takes all ones");
    pass();
}
