/* SPDX-License-Identifier: BSD-2-Clause */
/* The boot, from the entry to the run loop; and what its parts share. */
#pragma once

#include "boot/boot_info.h"

/* Called by start.asm, on the boot tables: the first 4 GiB one to one and at DIRECT_BASE, the image
 * high. */
NORETURN void boot_main(u32 magic, u32 info);

/* This machine, or what the loader gave, can't be used: says why in one line and halts. Boot only.
 */
NORETURN void fatal(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The highest place in RAM below `end` for `size` bytes at a multiple of `align` (a power of two)
 * that neither the image nor a module touches; never page 0. 0: there is none. Boot only. */
paddr_t boot_find_ram(u64 size, paddr_t end, u64 align);

/* ---- the other processors (smp.c) ---- */

/* Starts all processors of acpi_info but this one. */
struct acpi_info;
void smp_start(const struct acpi_info *acpi);

/* Control registers and XCR0 of the calling processor, as Socle wants them. */
void pcpu_init_registers(void);

/* Where start.asm takes a started processor, on its own stack. */
NORETURN void ap_main(void);

/* Lets the started processors into the run loop; or halt: their interrupts are off, so nothing else
 * stops them. */
void smp_end_wait(bool run);

/* ---- the first domain, out of the modules (dom0.c) ---- */

/* Ends the boot (fatal) without a kernel, so that this is said first of all. */
void dom0_check_modules(const struct boot_info *bi);

/* Loads the kernel and its initrd, maps the machine for dom0, and starts its vCPUs, one bound to
 * each processor; they run as soon as the processors enter the run loop. heap: Socle's; rsdp: where
 * firmware's RSDP was found, 0 where only the copy in *bi is known. Ends the boot where it can't.
 */
void dom0_build(const struct boot_info *bi, const struct addr_range *heap, paddr_t rsdp);
