/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads what a Multiboot loader left in memory. Called once, by the boot entry. The input is not
 * trusted to be well formed: sizes and strings are bounded, and nothing is followed that `phys`
 * doesn't allow. */
#pragma once

#include "boot/boot_info.h"

#define MULTIBOOT1_MAGIC 0x2badb002u /* in EAX at entry */
#define MULTIBOOT2_MAGIC 0x36d76289u

/* Where [pa, pa + len) of physical memory can be read, or NULL. */
typedef const void *(*boot_phys_fn)(paddr_t pa, size_t len);

/* Both fill *bi, zeroed first, and return 0, -E_INVAL (damaged), -E_2BIG (memory map too long) or
 * -E_NOENT (no memory map in it, or no RAM in that).
 *
 * Multiboot 1: QEMU, iPXE and GRUB Legacy put the file's name before the text of a command line,
 * GRUB 2 does not. The first word is left out for those loaders, and for any when it starts with
 * '/' or '('. */
int multiboot1_parse(paddr_t info, boot_phys_fn phys, struct boot_info *bi);

/* info: 8-byte aligned, max_len bytes may be read. Command lines are taken as they are. */
int multiboot2_parse(const void *info, size_t max_len, struct boot_info *bi);
