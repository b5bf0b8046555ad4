/* SPDX-License-Identifier: BSD-2-Clause */
/* Exceptions and interrupts that reach Socle itself. */
#pragma once

#include "core/types.h"

/* As trap.asm pushes it. */
struct trap_frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};

/* Called by trap.asm. */
void trap_entry(struct trap_frame *frame);

/* Loads the one interrupt descriptor table on the calling processor. */
void trap_init_cpu(void);

/* Reads an MSR that may not exist: false when the processor raised #GP. */
bool rdmsr_safe(u32 msr, u64 *value);
