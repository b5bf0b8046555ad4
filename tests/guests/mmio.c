/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads and writes memory that no RAM is behind, in all sizes and kinds of instruction: holes up to
 * the end of physical addresses, ROM, the local APIC's page, IOAPIC, HPET. */
#include "tests/guests/guest.h"

const char guest_name[] = "mmio";

static const u64 values[] = {0, ~0ull, 0x123456789abcdef0 >> 4 | 0x12345678};
#define ODD 0xa5a5a5a5a5a5a5a5ull

static u32 accesses;

/* Loads by each size; what a load leaves of the register must be as the manual says. */
static void load_all(volatile u8 *p, u64 at)
{
    u64 r[4] = {ODD, ODD, ODD, ODD}, zx = ODD, sx = ODD;

    __asm__ volatile("movb %1, %b0" : "+r"(r[0]) : "m"(*p));
    __asm__ volatile("movw %1, %w0" : "+r"(r[1]) : "m"(*p));
    __asm__ volatile("movl %1, %k0" : "+r"(r[2]) : "m"(*p));
    __asm__ volatile("movq %1, %q0" : "+r"(r[3]) : "m"(*p));
    __asm__ volatile("movzbl %1, %k0" : "+r"(zx) : "m"(*p));
    __asm__ volatile("movswq %1, %q0" : "+r"(sx) : "m"(*p));
    CHECK((r[0] ^ ODD) >> 8 == 0, "byte load at 0x%lx made 0x%lx", at, r[0]);
    CHECK((r[1] ^ ODD) >> 16 == 0, "word load at 0x%lx made 0x%lx", at, r[1]);
    CHECK(r[2] >> 32 == 0, "32-bit load at 0x%lx made 0x%lx", at, r[2]);
    CHECK(zx >> 8 == 0, "MOVZX at 0x%lx made 0x%lx", at, zx);
    CHECK((u64)(s64)(s16)sx == sx, "MOVSX at 0x%lx made 0x%lx", at, sx);
    accesses += 6;
}

static void store_all(volatile u8 *p, u64 value)
{
    __asm__ volatile("movb %b1, %0" : "=m"(*p) : "r"(value) : "memory");
    __asm__ volatile("movw %w1, %0" : "=m"(*p) : "r"(value) : "memory");
    __asm__ volatile("movl %k1, %0" : "=m"(*p) : "r"(value) : "memory");
    __asm__ volatile("movq %q1, %0" : "=m"(*p) : "r"(value) : "memory");
    accesses += 4;
}

/* Instructions that read, change and write, and string instructions. */
static void other_kinds(volatile u8 *p, u64 at)
{
    u64 value = ODD, count = 3, zero = 0;
    volatile u8 *to = p;
    u8 ram[16] ALIGNED(16) = {0};
    const u8 *from = ram;

    __asm__ volatile("xchgl %k0, %1" : "+r"(value), "+m"(*p) : : "memory");
    __asm__ volatile("lock orl $5, %0" : "+m"(*p) : : "memory");
    __asm__ volatile("addb $5, %0" : "+m"(*p) : : "memory");
    __asm__ volatile("cmpw $5, %0" : : "m"(*p) : "memory");
    __asm__ volatile("testl %k1, %0" : : "m"(*p), "r"(value) : "memory");
    __asm__ volatile("lock btsl $3, %0" : "+m"(*p) : : "memory");
    __asm__ volatile("lock cmpxchgl %k2, %1" : "+a"(zero), "+m"(*p) : "r"(value) : "memory");
    __asm__ volatile("lock xaddl %k0, %1" : "+r"(value), "+m"(*p) : : "memory");
    __asm__ volatile("negl %0" : "+m"(*p) : : "memory");
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(0) : "memory");
    CHECK(count == 0 && to == p + 12, "REP STOSD at 0x%lx: RCX %lu, RDI +%lu", at, count,
          (u64)(to - p));
    to = p;
    count = 3;
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    CHECK(count == 0 && to == p + 12 && from == ram + 12, "REP MOVSD at 0x%lx: RCX %lu", at, count);
    accesses += 17;
}

static void touch(u64 physical)
{
    volatile u8 *p = map_window(physical);

    load_all(p, physical);
    for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
        store_all(p, values[i]);
    }
}

static void holes(void)
{
    u32 width = cpuid(0x80000008, 0).eax & 0xff;

    for (u64 at = 0xc0000000; at < 0xfec00000; at += 0x1010101) {
        touch(at);
    }
    other_kinds(map_window(0xd0000000), 0xd0000000);
    /* across a page, and a 16-byte one across the same */
    touch(0xd0000fff);
    touch(0xd0000ffd);
    other_kinds(map_window(0xd0000ffa), 0xd0000ffa);
    for (u32 bit = 34; bit < width; bit++) {
        touch(BIT(bit) + 8 * bit);
        touch(BIT(bit + 1) - 16);
    }
    for (u64 at = 0xfff00000; at < 0xffffffff; at += 0x11111) {
        touch(at);
    }
}

/* A register of 32 bits that keeps what it is given makes results visible: the timer's count. */
static void arithmetic(void)
{
    volatile u32 *r = (volatile u32 *)(u64)(APIC_BASE_ADDRESS + APIC_TIMER_INITIAL);
    u64 value = 0x11, old = 0x2345;

    *r = 0x1000;
    __asm__ volatile("lock addl $0x234, %0" : "+m"(*r));
    CHECK(*r == 0x1234, "ADD made 0x%x", *r);
    __asm__ volatile("xchgl %k0, %1" : "+r"(value), "+m"(*r));
    CHECK(value == 0x1234 && *r == 0x11, "XCHG made 0x%lx, 0x%x", value, *r);
    __asm__ volatile("lock xaddl %k0, %1" : "+r"(value), "+m"(*r));
    CHECK(value == 0x11 && *r == 0x1245, "XADD made 0x%lx, 0x%x", value, *r);
    __asm__ volatile("lock cmpxchgl %k2, %1" : "+a"(old), "+m"(*r) : "r"(7) : "cc");
    CHECK(old == 0x1245 && *r == 0x1245, "CMPXCHG without match: 0x%lx, 0x%x", old, *r);
    __asm__ volatile("lock cmpxchgl %k2, %1" : "+a"(old), "+m"(*r) : "r"(7) : "cc");
    CHECK(old == 0x1245 && *r == 7, "CMPXCHG with match: 0x%lx, 0x%x", old, *r);
    __asm__ volatile("notl %0" : "+m"(*r));
    CHECK(*r == 0xfffffff8, "NOT made 0x%x", *r);
    __asm__ volatile("incl %0; shll $4, %0; btrl $31, %0; sbbl $1, %0" : "+m"(*r) : : "cc");
    CHECK(*r == 0x7fffff8e, "INC SHL BTR SBB made 0x%x", *r);
    *r = 0;
}

/* All of the page; the interrupt command only with fixed delivery, for INIT and SMI are lawful
 * ends. */
static void local_apic(void)
{
    apic_enable(false);
    arithmetic();
    for (u32 offset = 0; offset < 0xff9; offset++) {
        volatile u8 *p = (volatile u8 *)(u64)(APIC_BASE_ADDRESS + offset);

        load_all(p, APIC_BASE_ADDRESS + offset);
        for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
            u64 clear = ALIGN_DOWN(offset, 16) == APIC_ICR || offset + 8 > APIC_ICR ? 0x700 : 0;

            store_all(p, offset > APIC_ICR - 8 && offset < APIC_ICR + 16 ? 0 : values[i] & ~clear);
        }
    }
    apic_enable(false);
    arithmetic();
    CHECK((apic_read(APIC_VERSION) & 0xf0) == 0x10, "the local APIC's version is 0x%x",
          apic_read(APIC_VERSION));
}

static void io_apic(void)
{
    volatile u32 *index = (volatile u32 *)map_window(0xfec00000), *data = index + 4;

    for (u32 offset = 0; offset < 0x100; offset++) {
        volatile u8 *p = (volatile u8 *)index + offset;

        load_all(p, 0xfec00000 + offset);
        *index = 0xff; /* no such register */
        store_all(p, 0xff);
        *index = 0xff;
        store_all(p, ~0ull);
    }
    for (u32 i = 0; i < 0x100; i++) {
        *index = i;
        *data = 0xffffffff;
        *index = i;
        *data = i % 2 ? 0x01000000 : LVT_MASKED | 0x77;
    }
    *index = 0x10; /* entry 0, both halves */
    CHECK(*data == (LVT_MASKED | 0x77), "IOAPIC entry 0 is 0x%x", *data);
}

static void hpet(void)
{
    u8 *p = (u8 *)map_window(0xfed00000);

    for (u32 offset = 0; offset < 0x400; offset++) {
        load_all(p + offset, 0xfed00000 + offset);
        if (offset >= 0x18) { /* never started: its configuration is at 0x10 */
            store_all(p + offset, 0);
            store_all(p + offset, random32());
        }
    }
}

void guest_main(void)
{
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR);
    holes();
    print("mmio: holes: %u accesses\n", accesses);
    local_apic();
    print("mmio: local APIC: %u accesses\n", accesses);
    io_apic();
    hpet();
    print("mmio: %u accesses\n", accesses);
    pass();
}
