/* SPDX-License-Identifier: BSD-2-Clause */
/* Puts the processor into a state that it must refuse by #GP. Where nobody looks (an unintercepted
 * write on QEMU's TCG), the next entry into the guest fails or the guest is lost: that may end this
 * guest, but nothing else. The command line is a digit, which picks the state; without it, all are
 * tried in turn. */
#include "tests/guests/guest.h"

const char guest_name[] = "badstate";

static void report(const char *what, int vector)
{
    cpuid(0, 0); /* an exit, so an entry */
    print("badstate: %s: %s\n", what, vector == GP ? "#GP" : "taken");
}

static void write_cr0(const char *what, u64 value)
{
    u64 cr0 = READ_CR(0);

    report(what, TRY_WRITE_CR(0, value));
    WRITE_CR(0, cr0);
}

static void write_cr3(const char *what, u64 value)
{
    u64 cr3 = READ_CR(3);

    report(what, TRY_WRITE_CR(3, value));
    WRITE_CR(3, cr3);
}

static void write_cr4(const char *what, u64 value)
{
    u64 cr4 = READ_CR(4);

    report(what, TRY_WRITE_CR(4, value));
    WRITE_CR(4, cr4);
}

static void attempt(char which)
{
    u64 cr0 = READ_CR(0), cr3 = READ_CR(3), cr4 = READ_CR(4);

    switch (which) {
    case '0':
        write_cr0("CR0 bit 32", cr0 | BIT(32));
        write_cr0("CR0 bit 63", cr0 | BIT(63));
        break;
    case '1':
        write_cr0("CR0.NW without CD", cr0 | CR0_NW);
        break;
    case '2':
        write_cr0("CR0.PG without PE", cr0 & ~CR0_PE);
        break;
    case '3':
        write_cr0("CR0 without PG in 64-bit code", cr0 & ~CR0_PG);
        break;
    case '4':
        write_cr3("CR3 above the physical addresses", cr3 | BIT(cpuid(0x80000008, 0).eax & 0xff));
        break;
    case '5':
        write_cr3("CR3 bit 62", cr3 | BIT(62));
        break;
    case '6':
        write_cr4("CR4 without PAE in long mode", cr4 & ~CR4_PAE);
        break;
    case '7':
        write_cr4("CR4 bit 15", cr4 | BIT(15));
        write_cr4("CR4 bit 31", cr4 | BIT(31));
        break;
    case '8':
        write_cr4("CR4 bit 63", cr4 | BIT(63));
        break;
    case '9':
        write_cr4("CR4.VMXE", cr4 | CR4_VMXE);
        write_cr4("CR4.LA57", cr4 | CR4_LA57);
        write_cr4("CR4.PCIDE", cr4 | CR4_PCIDE);
        break;
    }
}

void guest_main(void)
{
    const char *last = command_line();

    print("guest badstate: ok\n"); /* it may end any time */
    while (*last && last[1]) {
        last++;
    }
    for (char which = '0'; which <= '9'; which++) {
        if (*last < '0' || *last > '9' || *last == which) {
            attempt(which);
        }
    }
    pass();
}
