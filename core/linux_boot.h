/* SPDX-License-Identifier: BSD-2-Clause */
/* Dom0's kernel: checks a bzImage, says where it and its data go, fills its boot parameters. Pure
 * computation for the dom0 builder, by Linux's Documentation/x86/boot.rst; nothing here moves
 * memory. */
#pragma once

#include "boot/boot_info.h"

#define LINUX_MAX_E820    128
#define LINUX_PARAMS_SPAN 0x2000 /* what linux_placement.params has room for */

struct linux_image {
    u32 setup_size;  /* bytes before the part that is loaded */
    u32 kernel_size; /* bytes to load, from setup_size on */
    u32 init_size;   /* bytes that the kernel needs from its load address on */
    u32 alignment;   /* of the load address */
    u64 pref_address;
    u64 initrd_max;  /* highest address that the initrd may occupy */
    u32 cmdline_max; /* longest command line, without its NUL */
};

/* image[len]: the whole file. Returns 0, or -E_INVAL with the cause in words in *why. */
int linux_parse(const void *image, size_t len, struct linux_image *out, const char **why);

struct linux_placement {
    paddr_t kernel; /* init_size bytes, below 4 GiB */
    paddr_t initrd; /* 0: none; page-aligned, below 4 GiB. May overlap where the initrd is now */
    u64 initrd_size;
    paddr_t params;  /* one page, in 0x10000-0x90000; LINUX_PARAMS_SPAN bytes are free there: */
    paddr_t cmdline; /* its second page, up to 2048 bytes */
    paddr_t rsdp;    /* room for a copy of the RSDP, behind the command line */
};

/* Chooses places in `s`, where up to 16 ranges are taken (Socle, the kernel's module, ...), and
 * takes them. `initrd`: where that module is now (not taken in `s`), or NULL; it stays there if it
 * can. Nothing else is placed over where it is now. Returns 0, -E_NOMEM with the cause in *why. */
int linux_place(struct boot_space *s, const struct linux_image *image,
                const struct addr_range *initrd, struct linux_placement *out, const char **why);

/* Fills the 4096-byte boot_params page, from a file that linux_parse() found good, for the 32-bit
 * or 64-bit entry: E820 from `map` (dom0's own), a BIOS machine's text screen, rsdp 0 if Linux
 * shall scan for it. Returns 0, -E_2BIG if map_count is over LINUX_MAX_E820. */
int linux_fill_boot_params(void *page, const void *file, const struct linux_placement *place,
                           const struct mem_range *map, size_t map_count, paddr_t rsdp);
