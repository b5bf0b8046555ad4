/* SPDX-License-Identifier: BSD-2-Clause */
/* Spins with interrupts off, for ever: others must get their share, and QEMU must be able to end
 * it. */
#include "tests/guests/guest.h"

const char guest_name[] = "spin";

void guest_main(void)
{
    print("guest spin: ok\n"); /* it spins from here on */
    for (;;) {
        __asm__ volatile("");
    }
}
