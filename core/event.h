/* SPDX-License-Identifier: BSD-2-Clause */
/* Events for dom0's kernel: a page of bits and one interrupt vector (abi.h, struct socle_events).
 */
#pragma once

#include "core/types.h"

/* Sets a port's bit and interrupts dom0, if possible on this processor. Any processor; nothing
 * happens while dom0 has registered no page. */
void event_raise(u32 port);

/* Registers dom0's page and vector (gpa 0: ends it). 0, -E_INVAL (vector, gpa), -E_PERM (not dom0's
 * page), -E_BUSY (there is one, or another call is at it). */
int event_register(u64 gpa, u64 vector);
