/* SPDX-License-Identifier: BSD-2-Clause */
/* A triple fault: the machine must see a reset of this guest, and nothing else. */
#include "tests/guests/guest.h"

const char guest_name[] = "triple";

void guest_main(void)
{
    idt_pointer.limit = 0;
    load_idt();
    print("guest triple: ok\n"); /* nothing can be said later */
    __asm__ volatile("int3");
    fail("lives on without an IDT");
}
