/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes to CR8, EFER, XCR0 and debug registers that must be refused by #GP, with the register as
 * it was, and privileged instructions in ring 3. CR0, CR3 and CR4 are badstate.elf's. */
#include "tests/guests/guest.h"

const char guest_name[] = "badcr";

static u32 failures, checks;

/* `unchecked`: the processor itself decides, without an exit, and QEMU's TCG does not look. */
static void expect(const char *what, int vector, bool unchecked)
{
    checks++;
    if (vector != GP) {
        print("badcr: %s: %d instead of #GP%s\n", what, vector, unchecked ? " (tolerated)" : "");
        failures += !unchecked;
    }
}

static int try_xsetbv(u32 index, u64 value)
{
    return TRY("xsetbv", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static void ignore(UNUSED struct frame *frame)
{
}

/* QEMU 7.2's TCG aborts at a write of CR8 while the hypervisor below waits for an interrupt window:
 * first no interrupt may be left. */
static void check_cr8(void)
{
    pic_setup(0);
    handlers[0x20] = handlers[0x27] = ignore;
    take_interrupts();
    expect("CR8 = 16", TRY_WRITE_CR(8, 16), true);
    expect("CR8 = all ones", TRY_WRITE_CR(8, ~0ull), true);
    WRITE_CR(8, 0);
}

static void check_efer(void)
{
    u64 efer = rdmsr(MSR_EFER);
    static const u8 reserved[] = {1, 7, 9, 16, 17, 31, 32, 63};

    for (u32 i = 0; i < ARRAY_SIZE(reserved); i++) {
        expect("EFER reserved bit", try_wrmsr(MSR_EFER, efer | BIT(reserved[i])), false);
    }
    expect("EFER without LME under paging", try_wrmsr(MSR_EFER, efer & ~EFER_LME), false);
    if (!(cpuid(0x80000001, 0).ecx & BIT(2))) {
        expect("EFER.SVME", try_wrmsr(MSR_EFER, efer | EFER_SVME), false);
    }
    CHECK(rdmsr(MSR_EFER) == efer, "EFER was 0x%lx, is 0x%lx", efer, rdmsr(MSR_EFER));
}

static void user_xsetbv(void)
{
    expect("XSETBV in ring 3", try_xsetbv(0, 3), false);
    leave_user();
}

static void check_xcr0(void)
{
    if (!(cpuid(1, 0).ecx & BIT(26))) {
        print("badcr: no XSAVE\n");
        return;
    }
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    CHECK(cpuid(1, 0).ecx & BIT(27), "CPUID does not show OSXSAVE");
    CHECK(try_xsetbv(0, 3) == NO_FAULT, "XCR0 does not take x87 and SSE");
    expect("XCR0 without x87", try_xsetbv(0, 2), false);
    expect("XCR0 = 0", try_xsetbv(0, 0), false);
    expect("XCR0 AVX without SSE", try_xsetbv(0, 5), false);
    expect("XCR0 all ones", try_xsetbv(0, ~0ull), false);
    expect("XCR0 bit 63", try_xsetbv(0, BIT(63) | 3), false);
    expect("XCR1", try_xsetbv(1, 3), false);
    expect("XCR 0x80000000", try_xsetbv(0x80000000, 3), false);
    enter_user(user_xsetbv);
}

static void user_registers(void)
{
    u64 value = 0;

    expect("MOV from CR0 in ring 3", TRY("mov %%cr0, %0", : "+r"(value)), false);
    expect("MOV to CR0 in ring 3", TRY_WRITE_CR(0, 0x80000011), false);
    expect("MOV to CR3 in ring 3", TRY_WRITE_CR(3, 0), false);
    expect("MOV to CR4 in ring 3", TRY_WRITE_CR(4, 0), false);
    expect("MOV from DR7 in ring 3", TRY("mov %%dr7, %0", : "+r"(value)), false);
    expect("RDMSR in ring 3", try_rdmsr(MSR_EFER, &value), false);
    expect("WRMSR in ring 3", try_wrmsr(MSR_EFER, 0), false);
    expect("HLT in ring 3", TRY("hlt", : : : "memory"), false);
    expect("INVLPG in ring 3", TRY("invlpg (%0)", : : "r"(page_map) : "memory"), false);
    expect("WBINVD in ring 3", TRY("wbinvd", : : : "memory"), false);
    leave_user();
}

static void check_dr(void)
{
    expect("DR6 upper half", TRY("mov %0, %%dr6", : : "r"(BIT(40))), true);
    expect("DR7 upper half", TRY("mov %0, %%dr7", : : "r"(BIT(40))), true);
    __asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
}

void guest_main(void)
{
    check_cr8();
    check_efer();
    check_xcr0();
    check_dr();
    enter_user(user_registers);
    CHECK(!failures, "%u of %u writes were not refused", failures, checks);
    pass();
}
