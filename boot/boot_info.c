/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory map that the boot paths build: one sorted list without overlaps. */
#include "boot/boot_info.h"

#include "core/lib.h"
#include "core/panic.h"

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

void boot_space_take(struct boot_space *s, paddr_t start, paddr_t end)
{
    ASSERT(s->taken_count < ARRAY_SIZE(s->taken));
    s->taken[s->taken_count++] = (struct addr_range){start, end};
}

/* The first thing that is in the way of [start, end), or NULL. */
static const struct addr_range *conflict(const struct boot_space *s, paddr_t start, paddr_t end)
{
    for (const struct addr_range *r = s->taken; r < s->taken + s->taken_count; r++)
        if (r->start < end && start < r->end && r->start < r->end)
            return r;
    return NULL;
}

/* The same in [low, high), all of it RAM. Each thing in the way is passed once. */
static paddr_t find_in_range(const struct boot_space *s, paddr_t low, paddr_t high, u64 size,
                             u64 align, bool highest)
{
    low = ALIGN_UP(low, align);
    while (low < high && size <= high - low) {
        paddr_t at = highest ? ALIGN_DOWN(high - size, align) : low;
        const struct addr_range *r = conflict(s, at, at + size);

        if (!r)
            return at;
        if (highest)
            high = r->start;
        else
            low = ALIGN_UP(MIN(r->end, high), align);
    }
    return 0;
}

paddr_t boot_space_find(const struct boot_space *s, paddr_t low, paddr_t high, u64 size, u64 align,
                        bool highest)
{
    paddr_t at = 0;

    for (u32 i = 0; i < s->map_count && !at; i++) {
        const struct mem_range *m = &s->map[highest ? s->map_count - 1 - i : i];

        if (m->type == MEM_RAM)
            at = find_in_range(s, MAX(m->base, low), MIN(m->base + m->length, high), size, align,
                               highest);
    }
    return at;
}
