/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory map that the boot paths build: one sorted list without overlaps. */
#include "boot/boot_info.h"

#include "core/lib.h"

#define PADDR_END BIT(52) /* architectural limit of physical addresses */

int boot_map_add(struct boot_info *bi, u64 base, u64 length, u32 type)
{
    struct mem_range *last = bi->map_count ? &bi->map[bi->map_count - 1] : NULL;

    if (base >= PADDR_END || !length)
        return 0;
    length = MIN(length, PADDR_END - base);
    if (type < MEM_RAM || type > MEM_BAD)
        type = MEM_RESERVED;
    if (last && last->type == type && last->base + last->length == base) {
        last->length += length;
        return 0;
    }
    if (bi->map_count == BOOT_MAX_RANGES)
        return -E_2BIG;
    bi->map[bi->map_count++] = (struct mem_range){base, length, type};
    return 0;
}

static void sort_u64(u64 *v, u32 n)
{
    for (u32 i = 1; i < n; i++) {
        u64 x = v[i];
        u32 k = i;

        for (; k && v[k - 1] > x; k--)
            v[k] = v[k - 1];
        v[k] = x;
    }
}

/* The type that wins at an address, 0 in a hole. */
static u32 type_at(const struct mem_range *map, u32 n, u64 addr)
{
    static const u8 rank[] = {
        [MEM_RAM] = 1, [MEM_ACPI] = 2, [MEM_NVS] = 3, [MEM_RESERVED] = 4, [MEM_BAD] = 5};
    u32 best = 0;

    for (u32 i = 0; i < n; i++)
        if (addr - map[i].base < map[i].length && rank[map[i].type] > rank[best])
            best = map[i].type;
    return best;
}

int boot_map_normalize(struct boot_info *bi)
{
    static struct mem_range raw[BOOT_MAX_RANGES]; /* boot only: too big for the stack */
    static u64 edge[2 * BOOT_MAX_RANGES];
    u32 n = bi->map_count;
    bool ram = false;

    memcpy(raw, bi->map, n * sizeof(raw[0]));
    for (u32 i = 0; i < n; i++) {
        edge[2 * i] = raw[i].base;
        edge[2 * i + 1] = raw[i].base + raw[i].length;
    }
    sort_u64(edge, 2 * n);
    bi->map_count = 0;
    for (u32 i = 0; i + 1 < 2 * n; i++) {
        u32 type = type_at(raw, n, edge[i]);

        if (type && boot_map_add(bi, edge[i], edge[i + 1] - edge[i], type))
            return -E_2BIG;
        ram |= type == MEM_RAM;
    }
    return ram ? 0 : -E_NOENT;
}
