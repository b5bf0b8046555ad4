/* SPDX-License-Identifier: BSD-2-Clause */
/* Instructions that exit and that change between runs, and, with two processors, while they run:
 * what the hypervisor decodes may not be what exited. */
#include "tests/guests/guest.h"

const char guest_name[] = "selfmod";

/* Padded by NOPs; RET follows. RDI and RSI are the address of the local APIC's version. */
static const struct {
    u8 code[8];
    u8 reg; /* which of eax, ecx, edx, ebx gets it */
} loads[] = {
    {{0x8b, 0x07, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90}, 0},    /* mov eax,[rdi] */
    {{0x8b, 0x0e, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90}, 1},    /* mov ecx,[rsi] */
    {{0x8b, 0x57, 0x00, 0x90, 0x90, 0x90, 0x90, 0x90}, 2},    /* mov edx,[rdi+0] */
    {{0x8b, 0x9e, 0x00, 0x00, 0x00, 0x00, 0x90, 0x90}, 3},    /* mov ebx,[rsi+0] */
    {{0x8b, 0x0c, 0x27, 0x90, 0x90, 0x90, 0x90, 0x90}, 1},    /* mov ecx,[rdi] by SIB */
    {{0x3e, 0x8b, 0x17, 0x90, 0x90, 0x90, 0x90, 0x90}, 2},    /* DS prefix */
    {{0x67, 0x40, 0x8b, 0x07, 0x90, 0x90, 0x90, 0x90}, 0},    /* 32-bit address, REX */
    {{0x8b, 0x04, 0x25, 0x30, 0x00, 0xe0, 0xfe, 0x90}, 0xff}, /* sign-extended: #PF */
};
static const u8 cpuids[][8] = {
    {0x0f, 0xa2, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90},
    {0x66, 0x0f, 0xa2, 0x90, 0x90, 0x90, 0x90, 0x90},
    {0x40, 0x0f, 0xa2, 0x90, 0x90, 0x90, 0x90, 0x90},
    {0x3e, 0x66, 0x67, 0x48, 0x0f, 0xa2, 0x90, 0x90},
    {0xf2, 0x2e, 0x36, 0x26, 0x65, 0x64, 0x0f, 0xa2},
};

static u64 slot[2] ALIGNED(16) = {0, 0xc3};
static volatile u32 ap_rounds, stop;

struct regs {
    u32 a, c, d, b;
};

static u64 as_word(const u8 *code)
{
    return *(const u64 *)code;
}

static int run_slot(struct regs *r)
{
    u64 address = APIC_BASE_ADDRESS + APIC_VERSION;

    return TRY("call *%[slot]",
               : "+a"(r->a), "+c"(r->c), "+d"(r->d), "+b"(r->b)
               : "D"(address), "S"(address), [slot] "r"((u64)slot)
               : "memory");
}

static void change_loads(u32 version)
{
    for (u32 round = 0; round < 2000; round++) {
        u32 n = random32() % (ARRAY_SIZE(loads) - 1);
        struct regs r = {1, 2, 3, 4};

        __atomic_store_n(&slot[0], as_word(loads[n].code), __ATOMIC_SEQ_CST);
        CHECK(run_slot(&r) == NO_FAULT, "load %u raised %d", n, caught);
        for (u32 i = 0; i < 4; i++) {
            u32 got = (&r.a)[i], wanted = i == loads[n].reg ? version : i + 1;

            CHECK(got == wanted, "load %u: register %u is 0x%x, not 0x%x", n, i, got, wanted);
        }
    }
}

static void change_cpuids(void)
{
    struct cpuid right = cpuid(0, 0);

    for (u32 round = 0; round < 2000; round++) {
        u32 n = random32() % ARRAY_SIZE(cpuids);
        struct regs r = {0};

        __atomic_store_n(&slot[0], as_word(cpuids[n]), __ATOMIC_SEQ_CST);
        CHECK(run_slot(&r) == NO_FAULT, "CPUID %u raised %d", n, caught);
        CHECK(r.a == right.eax && r.b == right.ebx, "CPUID %u answered 0x%x", n, r.a);
    }
}

static u64 race[2];

static void flip(void)
{
    while (!stop) {
        __atomic_store_n(&slot[0], race[++ap_rounds & 1], __ATOMIC_SEQ_CST);
    }
}

/* Each run may do either instruction, or fault; the guest goes on. */
static void run_race(u64 a, u64 b)
{
    race[0] = a;
    race[1] = b;
    for (u32 i = 0; i < 3000; i++) {
        struct regs r = {0};

        run_slot(&r);
    }
}

void guest_main(void)
{
    apic_enable(false);
    u32 version = apic_read(APIC_VERSION);

    change_loads(version);
    change_cpuids();
    race[0] = as_word(loads[0].code);
    race[1] = as_word(loads[1].code);
    if (start_others(flip) == 0) {
        print("selfmod: one processor only: no race\n");
        pass();
    }
    run_race(as_word(loads[0].code), as_word(loads[3].code));
    run_race(as_word(cpuids[0]), as_word(cpuids[1]));
    print("selfmod: %u changes by the other processor\n", ap_rounds);
    /* What exited may now be no load at all; QEMU may stop the guest for that. */
    print("guest selfmod: ok\n");
    run_race(as_word(loads[0].code), 0x9090909090909090);
    run_race(as_word(loads[0].code), 0x909090909090310f); /* rdtsc */
    run_race(as_word(cpuids[0]), 0x909090909090310f);
    stop = 1;
    print("selfmod: all races are over\n");
    pass();
}
