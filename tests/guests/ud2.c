/* SPDX-License-Identifier: BSD-2-Clause */
/* UD2 in ring 0: caught by the guest's handler, then without an IDT, which is a triple fault. */
#include "tests/guests/guest.h"

const char guest_name[] = "ud2";

void guest_main(void)
{
    for (int i = 0; i < 1000; i++) {
        int vector = TRY("ud2", : : : "memory");

        CHECK(vector == UD, "ud2 raised %d", vector);
    }
    idt_pointer.limit = 0;
    load_idt();
    print("guest ud2: ok\n"); /* nothing can be said later */
    __asm__ volatile("ud2");
    fail("lives on without an IDT");
}
