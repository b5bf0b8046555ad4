/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets CR3 above the processor's physical addresses. #GP is right; where nobody looks (nested
 * paging on QEMU's TCG) the next entry into the guest fails, and that may end this guest, but
 * nothing else. */
#include "tests/guests/guest.h"

const char guest_name[] = "badcr3";

void guest_main(void)
{
    u64 cr3 = READ_CR(3);
    u32 width = cpuid(0x80000008, 0).eax & 0xff;

    print("guest badcr3: ok\n"); /* it may end any time */
    for (u32 bit = width; bit < 63; bit++) {
        int vector = TRY_WRITE_CR(3, cr3 | BIT(bit));

        cpuid(0, 0);
        WRITE_CR(3, cr3);
        print("badcr3: bit %u: %s\n", bit, vector == GP ? "#GP" : "taken");
    }
    pass();
}
