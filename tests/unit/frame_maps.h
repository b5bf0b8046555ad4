/* SPDX-License-Identifier: BSD-2-Clause */
/* The owner table, with a look into it. */
#ifndef TESTS_FRAME_MAPS_H
#define TESTS_FRAME_MAPS_H

#include "core/frame.c"

/* Mappings of one frame in guests, small and large leaves together. */
static inline u64 frame_maps(pfn_t pfn)
{
    return pfn < frame_end ? (u64)frames[pfn].maps + group_of(pfn)->lends : 0;
}

#endif
