/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as the loader's information; the map that comes out must be in normal form. */
// SOURCES: boot/multiboot.c boot/boot_info.c core/lib.c
#include "boot/multiboot.h"

#include "core/lib.h"

#include <stdlib.h>
#include <string.h>

static const u8 *mem;
static size_t mem_size;
static struct boot_info bi;

static const void *phys(paddr_t pa, size_t len)
{
    return pa < mem_size && len <= mem_size - pa ? mem + pa : NULL;
}

static void check(bool good)
{
    u64 end = 0;

    if (bi.map_count > BOOT_MAX_RANGES || bi.module_count > BOOT_MAX_MODULES ||
        memchr(bi.cmdline, 0, sizeof(bi.cmdline)) == NULL)
        abort();
    for (u32 i = 0; i < bi.module_count; i++)
        if (bi.modules[i].end < bi.modules[i].start ||
            !memchr(bi.modules[i].cmdline, 0, sizeof(bi.modules[i].cmdline)))
            abort();
    for (u32 i = 0; good && i < bi.map_count; i++) {
        if (bi.map[i].base < end || !bi.map[i].length || bi.map[i].type < 1 || bi.map[i].type > 5)
            abort();
        end = bi.map[i].base + bi.map[i].length;
    }
    if (end > BIT(52))
        abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    mem = data;
    mem_size = size;
    check(multiboot1_parse(0, phys, &bi) == 0);
    check(multiboot2_parse(data, size, &bi) == 0);
    return 0;
}
