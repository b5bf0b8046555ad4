/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as a kernel (with its magic numbers put in), a memory map and what is in use. */
// SOURCES: core/linux_boot.c boot/boot_info.c core/lib.c
#include "core/linux_boot.h"

#include "core/lib.h"

#include <stdlib.h>
#include <string.h>

#define HEADER 0x290

static u8 file[0x4000];
static struct boot_info bi;
static struct addr_range taken[16];

static bool in_ram(u64 start, u64 size)
{
    for (u32 i = 0; i < bi.map_count; i++)
        if (bi.map[i].type == MEM_RAM && start >= bi.map[i].base &&
            start + size <= bi.map[i].base + bi.map[i].length)
            return true;
    return false;
}

static bool apart(u64 a, u64 a_size, u64 b, u64 b_size)
{
    return a + a_size <= b || b + b_size <= a;
}

static void check_place(const struct linux_placement *p, const struct linux_image *k, u32 n)
{
    if (!in_ram(p->kernel, k->init_size) || !IS_ALIGNED(p->kernel, k->alignment) ||
        p->kernel + k->init_size > BIT(32) || p->kernel < k->pref_address)
        abort();
    if (!in_ram(p->params, LINUX_PARAMS_SPAN) || p->params + LINUX_PARAMS_SPAN > 0x90000)
        abort();
    if (p->initrd && (!in_ram(p->initrd, p->initrd_size) || !IS_ALIGNED(p->initrd, PAGE_SIZE) ||
                      p->initrd + p->initrd_size - 1 > k->initrd_max ||
                      !apart(p->initrd, p->initrd_size, p->kernel, k->init_size)))
        abort();
    for (u32 i = 0; i < n; i++) {
        u64 size = taken[i].end - taken[i].start;

        if (taken[i].end > taken[i].start &&
            (!apart(p->kernel, k->init_size, taken[i].start, size) ||
             !apart(p->params, LINUX_PARAMS_SPAN, taken[i].start, size) ||
             (p->initrd && !apart(p->initrd, p->initrd_size, taken[i].start, size))))
            abort();
    }
}

/* What is behind the header: ranges of 17 bytes, whose first says what they are. */
static u32 read_ranges(const u8 *data, size_t size, struct addr_range *initrd)
{
    u32 n = 0;

    for (; size >= 17; data += 17, size -= 17) {
        u64 base = load_u64(data + 1) & 0x1ffffffff, len = load_u64(data + 9) & 0x1ffffffff;

        if (data[0] < 0xa0)
            boot_map_add(&bi, base, len, data[0] < 0x80 ? MEM_RAM : data[0] & 7);
        else if (data[0] < 0xf0 && n < ARRAY_SIZE(taken))
            taken[n++] = (struct addr_range){base, data[0] & 1 ? load_u64(data + 9) : base + len};
        else
            *initrd = (struct addr_range){base, base + len};
    }
    return n;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct addr_range initrd = {0, 0};
    struct boot_space space = {.map = bi.map};
    struct linux_placement place;
    struct linux_image image;
    static u8 page[4096];
    const char *why;
    u32 n;

    linux_parse(data, size, &image, &why);
    if (size < HEADER)
        return 0;
    memcpy(file, data, HEADER);
    memcpy(file + 0x1fe, "\x55\xaa", 2);
    memcpy(file + 0x202, "HdrS\x0f\x02", 6);
    file[0x1f1] &= 15;
    file[0x211] |= 1;
    file[0x234] |= 1;
    file[0x236] |= 1;
    if (linux_parse(file, sizeof(file), &image, &why)) {
        if (!why)
            abort();
        return 0;
    }
    memset(&bi, 0, sizeof(bi));
    n = read_ranges(data + HEADER, size - HEADER, &initrd);
    if (boot_map_normalize(&bi))
        return 0;
    space.map_count = bi.map_count;
    for (u32 i = 0; i < n; i++)
        boot_space_take(&space, taken[i].start, taken[i].end);
    if (linux_place(&space, &image, &initrd, &place, &why))
        return 0;
    check_place(&place, &image, n);
    linux_fill_boot_params(page, file, &place, bi.map, bi.map_count, 0);
    return 0;
}
