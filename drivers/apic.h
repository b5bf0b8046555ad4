/* SPDX-License-Identifier: BSD-2-Clause */
/* The physical local APIC, which Socle alone drives: xAPIC by its page, x2APIC by its MSRs,
 * whichever the firmware left on (x2APIC is turned on where the processor has it). */
#pragma once

#include "core/types.h"

/* Socle's own vectors. They are of the highest priority class, so that they arrive while a
 * level-triggered interrupt of dom0 is in service; Linux allocates no device vector above 0xeb. */
enum {
    APIC_VECTOR_TIMER = 0xf0,
    APIC_VECTOR_KICK = 0xf1,
    APIC_VECTOR_STOP = 0xf2,
    APIC_VECTOR_ERROR = 0xfe,
    APIC_VECTOR_SPURIOUS = 0xff
};

/* Maps the APIC, once, on the boot processor. */
void apic_init(void);

/* Turns on the calling processor's APIC: all local interrupts masked but the timer. */
void apic_init_cpu(void);

u32 apic_id(void);
void apic_eoi(void);
bool apic_is_x2apic(void);

/* Measures the one-shot timer against the TSC, where there is no TSC-deadline mode; boot processor
 * only. */
void apic_timer_calibrate(u64 tsc_khz);

/* The timer's interrupt comes at or soon after this host TSC; ~0ull: never. A deadline further away
 * than the counter reaches comes early; the caller then sets it again. */
void apic_timer_set(u64 deadline);

/* Sends to one processor: a vector, INIT, or STARTUP with a page number. */
#define APIC_SEND_INIT    0x500u
#define APIC_SEND_STARTUP 0x600u
void apic_send(u32 apic_id, u32 command);

/* Stops all other processors, for panic. */
void apic_stop_others(void);

/* Whether a vector came through the APIC, not from the PICs, and has not been ended. */
bool apic_in_service(u8 vector);

/* Whether a vector in service was level-triggered. */
bool apic_is_level(u8 vector);

/* Dom0's logical destination, so that its devices' logical interrupts find this processor. xAPIC
 * only. */
void apic_set_logical(u32 ldr, u32 dfr);
