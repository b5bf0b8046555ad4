/* SPDX-License-Identifier: BSD-2-Clause */
/* A stopped vCPU's state, as dom0 gets and sets it (SOCLE_STATE_* in abi.h). All that could make
 * the processor refuse the vCPU, or fault in Socle when the state is loaded, is refused here. */
#pragma once

#include "core/vcpu.h"

/* Sets a section from buf, or gets it there. buf: PAGE_SIZE bytes of Socle's own, page-aligned;
 * len: what the caller says that it holds. Returns 0 (MSRS: how many were done), or -E_INVAL (no
 * such section, wrong length, not a legal state), -E_OPNOTSUPP. After an error nothing has changed.
 */
int state_access(struct vcpu *v, u64 section, void *buf, u32 len, bool set);
