/* SPDX-License-Identifier: BSD-2-Clause */
/* Hypercalls by number, from ring 0 and ring 3: a guest has none of Socle's, so each is answered by
 * #UD or by a negative error, and changes nothing else. Numbers that KVM gives to every guest may
 * do as KVM does. */
#include "tests/guests/guest.h"

const char guest_name[] = "hypercalls";

#define KVM_NUMBERS 13 /* 0..12 have a meaning in KVM */

static u32 refused, undefined, answered;

static void call(u64 number, bool amd)
{
    register u64 r10 __asm__("r10") = (u64)random32() << 32 | random32();
    register u64 r8 __asm__("r8") = random32();
    u64 rax = number, rbx = random32(), rcx = random32(), rdi = random32() & PAGE_MASK;
    u64 rsi = random32() % 3, rdx = (u64)random32() << 12, kept = rbx;
    int vector;

    if (amd) {
        vector = TRY("vmmcall",
                     : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi), "+D"(rdi), "+r"(r10),
                       "+r"(r8)
                     :
                     : "memory");
    } else {
        vector = TRY("vmcall",
                     : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi), "+D"(rdi), "+r"(r10),
                       "+r"(r8)
                     :
                     : "memory");
    }
    if (vector == UD) {
        undefined++;
        return;
    }
    CHECK(vector == NO_FAULT, "number 0x%lx raised %d", number, vector);
    CHECK(rbx == kept, "number 0x%lx changed RBX to 0x%lx", number, rbx);
    if ((s64)rax >= -4095 && (s64)rax < 0) {
        refused++;
        return;
    }
    answered++;
    CHECK(number < KVM_NUMBERS, "number 0x%lx was answered 0x%lx", number, rax);
}

static void call_all(void)
{
    bool amd = is_amd();

    for (u64 number = 0; number <= 0x200; number++) {
        call(number, amd);
    }
    for (int round = 0; round < 3; round++) {
        for (u64 number = 0x50c10000; number <= 0x50c10100; number++) {
            call(number, amd);
        }
    }
    call(~0ull, amd);
    call(0x150c10000, amd);
}

static void call_all_as_user(void)
{
    call_all();
    leave_user();
}

static void say(const char *who)
{
    print("hypercalls: %s: %u refused, %u #UD, %u answered\n", who, refused, undefined, answered);
    refused = undefined = answered = 0;
}

void guest_main(void)
{
    call_all();
    say("ring 0");
    enter_user(call_all_as_user);
    say("ring 3");
    pass();
}
