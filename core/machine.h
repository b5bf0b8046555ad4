/* SPDX-License-Identifier: BSD-2-Clause */
/* Facts about this image and this machine, and the machine's reset. Anyone may ask. */
#pragma once

#include "core/types.h"

extern u64 machine_ram_bytes; /* set by boot */

/* The image in memory; physical addresses. */
extern char image_start[], image_end[];
u64 image_bytes(void);

/* The linker's build id in hexadecimal. */
void build_id_text(char *text, size_t size);

/* By the chipset's reset register, the keyboard controller, or a triple fault. */
NORETURN void machine_reset(void);
