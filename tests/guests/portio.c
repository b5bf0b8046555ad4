/* SPDX-License-Identifier: BSD-2-Clause */
/* IN and OUT of all sizes on all ports that do not end the guest by design, and string I/O across
 * pages and into memory that is not mapped. */
#include "tests/guests/guest.h"

const char guest_name[] = "portio";

/* Where a write resets, powers off, ejects, or writes to memory. */
static const struct {
    u16 first, last;
} spared[] = {
    {0x60, 0x64},   {0x92, 0x92},     {0xb2, 0xb3},     {0xf4, 0xf7},
    {0x3f8, 0x3ff}, {0x510, 0x51b},   {0x600, 0x6ff},   {0xa00, 0xa1f},
    {0xcd8, 0xcff}, {0xae00, 0xafff}, {0xb000, 0xb0ff},
};
#define ODD 0xa5a5a5a5a5a5a5a5ull

static u8 *const buffer = (u8 *)0x400000; /* three pages of 2 MiB */

static bool may_write(u32 port)
{
    for (u32 i = 0; i < ARRAY_SIZE(spared); i++) {
        if (port + 3 >= spared[i].first && port <= spared[i].last) {
            return false;
        }
    }
    return true;
}

static void one_port(u16 port)
{
    u64 byte = ODD, word = ODD, dword = ODD;

    __asm__ volatile("inb %w1, %b0" : "+a"(byte) : "d"(port));
    __asm__ volatile("inw %w1, %w0" : "+a"(word) : "d"(port));
    __asm__ volatile("inl %w1, %k0" : "+a"(dword) : "d"(port));
    CHECK((byte ^ ODD) >> 8 == 0, "IN AL from 0x%x made 0x%lx", port, byte);
    CHECK((word ^ ODD) >> 16 == 0, "IN AX from 0x%x made 0x%lx", port, word);
    CHECK(dword >> 32 == 0, "IN EAX from 0x%x made 0x%lx", port, dword);
    if (may_write(port)) {
        u32 value = random32();

        __asm__ volatile("outb %b0, %w1" : : "a"(value), "d"(port));
        __asm__ volatile("outw %w0, %w1" : : "a"(value), "d"(port));
        __asm__ volatile("outl %k0, %w1" : : "a"(value), "d"(port));
    }
}

static void all_ports(void)
{
    for (u32 port = 0; port < 0x500; port++) {
        one_port((u16)port);
    }
    for (u32 port = 0x500; port < 0x10000; port += port >= 0xfff0 ? 1 : 61) {
        one_port((u16)port);
    }
}

/* fw_cfg item 0 reads "QEMU", and then zeros. */
static void select_signature(void)
{
    __asm__ volatile("outw %w0, %w1" : : "a"(0), "d"(0x510));
}

static bool is_signature(const u8 *p)
{
    return p[0] == 'Q' && p[1] == 'E' && p[2] == 'M' && p[3] == 'U';
}

/* The second of the buffer's three 2 MiB pages, mapped or not. */
static void map_middle(bool mapped)
{
    u64 *leaf = &page_directories[((u64)buffer >> 21) + 1];

    *leaf = mapped ? *leaf | 1 : *leaf & ~1ull;
    __asm__ volatile("invlpg (%0)" : : "r"(buffer + SIZE_2M) : "memory");
}

static void string_in(void)
{
    u8 *to = buffer + SIZE_2M - 2, *at = to;
    u64 count = 0x1800;

    select_signature();
    memset(to, 0xff, count + 1);
    __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(0x511) : "memory");
    CHECK(count == 0 && at == to + 0x1800, "REP INSB: RCX %lu, RDI +%lu", count, (u64)(at - to));
    CHECK(is_signature(to) && to[4] == 0 && to[0x17ff] == 0 && to[0x1800] == 0xff,
          "REP INSB stored %x %x %x %x", to[0], to[1], to[2], to[3]);

    /* backwards, words */
    at = to + 2;
    count = 4;
    __asm__ volatile("std; rep insw; cld" : "+D"(at), "+c"(count) : "d"(0x608) : "memory");
    CHECK(count == 0 && at == to - 6, "backward REP INSW: RCX %lu, RDI %ld", count, (s64)(at - to));
    count = 0;
    __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(0x511) : "memory");
    CHECK(at == to - 6, "REP INSB of nothing moved RDI");
}

/* Two bytes fit; the third faults with the registers on it, and the instruction can go on. */
static void string_in_fault(void)
{
    u8 *to = buffer + SIZE_2M - 2;
    u64 at = (u64)to, count = 4;
    int vector;

    select_signature();
    map_middle(false);
    vector = TRY("rep insb", : "+D"(at), "+c"(count) : "d"(0x511) : "memory");
    CHECK(vector == PF, "REP INSB into an unmapped page raised %d", vector);
    CHECK(READ_CR(2) == (u64)to + 2, "CR2 is 0x%lx, not 0x%lx", READ_CR(2), (u64)to + 2);
    CHECK(catch_error == PF_WRITE, "the page fault's error code is 0x%lx", catch_error);
    CHECK(count == 2 && at == (u64)to + 2, "fault with RCX %lu, RDI +%lu", count, at - (u64)to);
    map_middle(true);
    __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(0x511) : "memory");
    CHECK(to[0] == 'Q' && to[1] == 'E', "continued REP INSB stored %x %x", to[0], to[1]);
    if (!is_signature(to)) { /* KVM does so */
        print("portio: the IN of a faulting REP INSB was done and lost (tolerated)\n");
    }

    map_middle(false);
    at = (u64)buffer + SIZE_2M;
    vector = TRY("insl", : "+D"(at) : "d"(0x608) : "memory");
    CHECK(vector == PF && at == (u64)buffer + SIZE_2M, "INSD into an unmapped page raised %d",
          vector);
    vector = TRY("outsl", : "+S"(at) : "d"(0x80) : "memory");
    CHECK(vector == PF, "OUTSD from an unmapped page raised %d", vector);
    CHECK(catch_error == 0, "the page fault's error code is 0x%lx", catch_error);
    map_middle(true);
}

static void string_out(void)
{
    static const char text[] = "portio: this line was written by REP OUTSB\n";
    const char *from = (char *)buffer + SIZE_2M - 10;
    u64 count = sizeof(text) - 1;
    u32 config[2] = {0x80000000, 0x80001234};
    const u32 *words = config;

    memcpy(buffer + SIZE_2M - 10, text, sizeof(text));
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(0x3f8) : "memory");
    CHECK(count == 0, "REP OUTSB left RCX %lu", count);
    count = 2;
    __asm__ volatile("rep outsl" : "+S"(words), "+c"(count) : "d"(0xcf8) : "memory");
    CHECK(inl(0xcf8) == config[1], "REP OUTSD to 0xcf8: it is 0x%x", inl(0xcf8));
}

void guest_main(void)
{
    string_in();
    string_in_fault();
    string_out();
    all_ports();
    pass();
}
