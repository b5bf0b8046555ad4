/* SPDX-License-Identifier: BSD-2-Clause */
/* Instructions that Socle carries out itself: on MMIO and the local APIC's page, port I/O for dom0
 * to answer, CR8. The entry points of exits are in core/exits.h. */
#ifndef SOCLE_CORE_EMULATE_H
#define SOCLE_CORE_EMULATE_H

#include "core/vcpu.h"

/* Goes on with the instruction that v->io says waits for dom0 (IO_IN..IO_MMIO_WRITE), before the
 * next entry and on the processor that will do it. v->sregs is filled; v->io.data has the first 8
 * bytes of v->page->data (and INS takes the rest from there). v->page->data must stay as it is over
 * a SOCLE_EXIT_FAULT that comes between the answer and the end of an INS. */
enum vcpu_action emulate_complete(struct vcpu *v);

#endif
