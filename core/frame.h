/* SPDX-License-Identifier: BSD-2-Clause */
/* Who owns each frame of RAM, and how often dom0's frames are lent to guests: the one place that
 * decides what may be mapped (invariant 2 of the design). Nested page tables ask here before they
 * map, and give back here after the flush. Callable on any processor; a lock per 2 MiB of RAM is
 * taken inside, and nothing is locked under it.
 *
 * A lend counts mappings in guests, one per 4 KiB page. Large leaves count in their 2 MiB group, so
 * that one costs one increment; so a lend is given back in the units it was taken in (`huge`), and
 * splitting a 2 MiB leaf says so here. */
#pragma once

#include "core/types.h"

#define FRAME_NONE  0 /* no RAM: devices, holes, everything beyond the table */
#define FRAME_SOCLE 1
#define FRAME_DOM0  2

#define FRAME_GROUP 512 /* frames per 2 MiB */

struct frame {
    u32 maps; /* 4 KiB leaves that map it */
    u16 owner;
};

/* Bytes of the table for frames [0, max_pfn). */
u64 frame_table_bytes(pfn_t max_pfn);

/* Boot only: takes a zeroed, 8-byte aligned table of that size; all frames are FRAME_NONE. */
void frame_init(void *table, pfn_t max_pfn);

/* Boot only, by one processor: owners are constant after it. The range must be within the table,
 * and not lent. */
void frame_set_owner_range(pfn_t pfn, u64 n, u16 owner);

/* FRAME_NONE for frames beyond the table. */
u16 frame_owner(pfn_t pfn);

/* 0 if all n frames are dom0's, or with `holes` dom0's or no RAM, so that dom0's own map may have
 * them; else -E_PERM. n >= 1; the caller bounds it (one step a frame, or a group of dom0's). */
int frame_check(pfn_t pfn, u64 n, bool holes);

/* Counts n >= 1 frames as mapped once more by a guest; all must be dom0's. huge: by large leaves;
 * pfn and n are multiples of FRAME_GROUP. All or nothing: -E_PERM, or -E_OVERFLOW at 2^32 mappings
 * in one group. */
int frame_lend(pfn_t pfn, u64 n, bool huge);

/* The opposite, in the same units; no processor may be able to reach them through that mapping any
 * more. */
void frame_unlend(pfn_t pfn, u64 n, bool huge);

/* One 2 MiB leaf at pfn became 512 leaves of 4 KiB. Never fails. */
void frame_lend_split(pfn_t pfn);

/* Mappings of all frames in guests, in 4 KiB pages. */
u64 frame_lent_pages(void);
