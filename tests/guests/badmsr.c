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

/* Writes that would end the guest lawfully. */
static bool spared(u32 msr)
{
    return msr == MSR_EFER || msr == MSR_APIC_BASE;
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
    /* An address with reserved bits, and long mode turned off under paging, must not pass. */
    CHECK(try_wrmsr(MSR_APIC_BASE, ~0ull) == GP, "APIC_BASE takes all ones");
    CHECK(try_wrmsr(MSR_EFER, 0) == GP, "EFER takes 0 under paging");
    CHECK(try_wrmsr(MSR_EFER, ~0ull) == GP, "EFER takes all ones");
    pass();
}
