/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing processors up; for boot only. What runs later is in core/pcpu.h. */
#ifndef SOCLE_CORE_SMP_H
#define SOCLE_CORE_SMP_H

#include "core/pcpu.h"
#include "core/types.h"

/* Control registers and XCR0 of the calling processor, as Socle wants them. */
void pcpu_init_registers(struct pcpu *cpu);

/* Where start.asm takes a started processor, on its own stack. */
NORETURN void ap_main(void);

/* Lets the started processors into the run loop. */
void smp_release(void);

/* Lets them halt instead: their interrupts are off, so nothing else stops them. */
void smp_give_up(void);

#endif
