/* SPDX-License-Identifier: BSD-2-Clause */
/* CPUID, port I/O and HLT in each of the processor's modes; the code is in modes.asm. */
#include "tests/guests/guest.h"

const char guest_name[] = "modes";

u32 run_modes(u32 vendor); /* a bit for each mode that was in order, in the order of names[] */

void guest_main(void)
{
    static const char *const names[] = {"32-bit without paging", "32-bit paging", "PAE paging",
                                        "real mode", "long mode"};
    u32 done;

    pic_setup(1);
    apic_enable(false);
    apic_write(APIC_LVT_LINT0, 0x700);
    done = run_modes(cpuid(0, 0).ebx);
    for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
        print("modes: %s: %s\n", names[i], done & BIT(i) ? "ok" : "wrong");
    }
    CHECK(done == 31, "a mode is wrong (0x%x)", done);
    pass();
}
