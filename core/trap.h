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

/* The one interrupt descriptor table. */
struct idt_gate {
    u16 offset_low, selector;
    u16 flags, offset_mid;
    u32 offset_high, reserved;
};
extern struct idt_gate trap_idt[256];

/* Called by trap.asm. */
void trap_entry(struct trap_frame *frame);

/* Loads that table on the calling processor. */
void trap_init_cpu(void);

/* Reads an MSR that may not exist: false when the processor raised #GP. */
bool rdmsr_safe(u32 msr, u64 *value);
