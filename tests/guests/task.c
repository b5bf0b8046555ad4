/* SPDX-License-Identifier: BSD-2-Clause */
/* Task switches between 32-bit tasks, each with its own page tables; the code is in task.asm. */
#include "tests/guests/guest.h"

const char guest_name[] = "task";

u32 run_tasks(void); /* a bit for each switch that was in order, in the order of names[] */

void guest_main(void)
{
    static const char *const names[] = {"JMP and JMP back",   "CALL and IRET",
                                        "INT by a task gate", "double fault by a task gate",
                                        "a selector's fault", "interrupt by a task gate"};
    u32 done;

    pic_setup(1);
    apic_enable(false);
    apic_write(APIC_LVT_LINT0, 0x700);
    done = run_tasks();
    for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
        print("task: %s: %s\n", names[i], done & BIT(i) ? "ok" : "wrong");
    }
    CHECK(done == BIT(ARRAY_SIZE(names)) - 1, "a task switch is wrong (0x%x)", done);
    pass();
}
