/* SPDX-License-Identifier: BSD-2-Clause */
/* The boot, from the entry to the run loop; and what its parts share. */
#ifndef SOCLE_CORE_MAIN_H
#define SOCLE_CORE_MAIN_H

#include "core/types.h"

/* Called by start.asm, on the boot tables: the first 4 GiB one to one and at DIRECT_BASE, the image
 * high. */
NORETURN void boot_main(u32 magic, u32 info);

/* This machine, or what the loader gave, can't be used: says why in one line and halts. Boot only.
 */
NORETURN void fatal(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The highest place in RAM below `end` for `size` bytes at a multiple of `align` (a power of two)
 * that neither the image nor a module touches; never page 0. 0: there is none. Boot only. */
paddr_t boot_find_ram(u64 size, paddr_t end, u64 align);

#endif
