/* SPDX-License-Identifier: BSD-2-Clause */
/* The hypercalls of abi.h. Everything that dom0 gives is hostile: copied once, checked, then used.
 */
#ifndef SOCLE_CORE_HYPERCALL_H
#define SOCLE_CORE_HYPERCALL_H

#include "core/vcpu.h"

/* Executes the call in d's registers; the result is in *result if the return is VCPU_RESUME.
 * VCPU_HANDOFF: RUN, whose result comes later. */
enum vcpu_action hypercall(struct vcpu *d, s64 *result);

#endif
