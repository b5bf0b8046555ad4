/* SPDX-License-Identifier: BSD-2-Clause */
/* What every boot path (Multiboot 1, Multiboot 2, UEFI) hands to Socle: copied out of the loader's
 * memory, so that nothing of the loader's is needed afterwards but the modules. */
#pragma once

#include "core/types.h"

#define BOOT_MAX_RANGES     256
#define BOOT_MAX_MODULES    4
#define BOOT_CMDLINE_SIZE   512
#define BOOT_MODULE_CMDLINE 2048 /* Linux's own limit on x86: 2047 and a NUL */
#define BOOT_RSDP_SIZE      36

/* Types of memory, numbered as in BIOS E820 (ACPI 6.5, table 15.3). */
enum { MEM_RAM = 1, MEM_RESERVED = 2, MEM_ACPI = 3, MEM_NVS = 4, MEM_BAD = 5 };

struct mem_range {
    u64 base;
    u64 length;
    u32 type;
};

/* [start, end) in physical memory. */
struct addr_range {
    paddr_t start;
    paddr_t end;
};

struct boot_module {
    paddr_t start;
    paddr_t end;
    char cmdline[BOOT_MODULE_CMDLINE]; /* without the file's name */
};

struct boot_info {
    /* Sorted, not overlapping, below 2^52; bytes, not pages: a range need not be page-aligned. */
    struct mem_range map[BOOT_MAX_RANGES];
    u32 map_count;
    u32 module_count;
    struct boot_module modules[BOOT_MAX_MODULES];
    char cmdline[BOOT_CMDLINE_SIZE]; /* without the image's name */
    char loader[64];
    u8 rsdp[BOOT_RSDP_SIZE];
    u32 rsdp_len; /* valid bytes in rsdp: 0 none (scan for it), 20 or 36 */
};

/* Appends a range as the firmware gave it; joins it to the last one where it continues it, ignores
 * empty ones. Unknown types become reserved. Returns 0, or -E_2BIG when the table is full. */
int boot_map_add(struct boot_info *bi, u64 base, u64 length, u32 type);

/* Sorts the map and removes overlaps: where ranges overlap the least usable type wins (bad,
 * reserved, NVS, ACPI, RAM). Returns 0, -E_2BIG if the result has too many ranges, -E_NOENT if
 * there is no RAM in it. */
int boot_map_normalize(struct boot_info *bi);

/* Where something can be put: a normalized map, and what is in use. */
struct boot_space {
    const struct mem_range *map;
    u32 map_count;
    u32 taken_count;
    struct addr_range taken[20];
};

/* [start, end), which may be empty, is in use. */
void boot_space_take(struct boot_space *s, paddr_t start, paddr_t end);

/* The lowest (or highest) free place in RAM in [low, high), low > 0, for `size` bytes at a multiple
 * of align, a power of two. 0: there is none. */
paddr_t boot_space_find(const struct boot_space *s, paddr_t low, paddr_t high, u64 size, u64 align,
                        bool highest);
