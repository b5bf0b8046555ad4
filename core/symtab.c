/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks an address up in the table of function names that the build embeds. */
#include "core/symtab.h"

/* Made by core/symtab.awk, sorted by address. The image is linked into the top 4 GiB, so the low
 * half of an address tells it; the last entry is the end of the code. */
extern const u32 symtab_count;
extern const struct {
    u32 addr, name; /* an offset into symtab_strings */
} symtab[];
extern const char symtab_strings[];

#define IMAGE_HIGH_HALF 0xffffffffull

const char *symtab_lookup(u64 addr, u64 *offset)
{
    u32 low = (u32)addr, first = 0, last = symtab_count;

    if (addr >> 32 != IMAGE_HIGH_HALF)
        return NULL;
    while (first < last) { /* first: number of entries at or below the address */
        u32 middle = first + (last - first) / 2;

        if (symtab[middle].addr <= low)
            first = middle + 1;
        else
            last = middle;
    }
    if (first == 0 || first == symtab_count)
        return NULL;
    *offset = low - symtab[first - 1].addr;
    return symtab_strings + symtab[first - 1].name;
}
