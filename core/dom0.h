/* SPDX-License-Identifier: BSD-2-Clause */
/* The dom0 builder: makes the first domain out of the loader's modules. Boot only. */
#ifndef SOCLE_CORE_DOM0_H
#define SOCLE_CORE_DOM0_H

#include "boot/boot_info.h"
#include "core/types.h"

/* Ends the boot (fatal) without a kernel, so that this is said first of all. */
void dom0_check_modules(const struct boot_info *bi);

/* Loads the kernel and its initrd, maps the machine for dom0, and starts its vCPUs, one bound to
 * each processor; they run as soon as the processors enter the run loop. heap: Socle's; rsdp: where
 * firmware's RSDP was found, 0 where only the copy in *bi is known. Ends the boot where it can't.
 */
void dom0_build(const struct boot_info *bi, const struct addr_range *heap, paddr_t rsdp);

#endif
