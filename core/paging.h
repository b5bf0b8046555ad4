/* SPDX-License-Identifier: BSD-2-Clause */
/* Socle's own address space: its image (W^X), its heap, its processors' stacks, device registers,
 * the pages that it shares with dom0, and a few windows per processor for one access each to
 * anything else. No guest's and none of dom0's memory is mapped here otherwise. One set of tables
 * for all processors. */
#pragma once

#include "core/types.h"

#define DIRECT_BASE 0xffff800000000000ull /* the heap, at its physical address */
#define IMAGE_BASE  0xffffffff80000000ull /* the image, likewise */
#define WINDOW_BASE 0xffffff0000000000ull /* the rest is between here and there */

static inline paddr_t virt_to_phys(const void *va)
{
    return (paddr_t)va - DIRECT_BASE;
}

static inline void *phys_to_virt(paddr_t pa)
{
    return (void *)(pa + DIRECT_BASE);
}

static inline paddr_t image_to_phys(const void *va)
{
    return (paddr_t)va - IMAGE_BASE;
}

/* Whether Socle may have something in the 8 bytes from there on: the heap is below 4 GiB, and the
 * image below the kernels' usual place. */
static inline bool paging_is_own(u64 va)
{
    return va + 8 - DIRECT_BASE < BIT(32) ||
           va + 8 - WINDOW_BASE < IMAGE_BASE + BIT(24) - WINDOW_BASE;
}

/* Builds the tables from pool pages and switches the calling processor to them. heap: [base, base +
 * size), 2 MiB aligned. Boot only. */
void paging_init(paddr_t heap, u64 size);

/* Maps the local APIC's registers, uncached; boot only. */
volatile void *paging_map_lapic(void);

/* The stack of processor `cpu`, its top, and its struct pcpu with its buffer. Boot only; pool
 * pages. NULL when the pool is exhausted. */
struct pcpu;
void *paging_map_stack(u32 cpu, struct pcpu **pcpu);

/* Maps a page that dom0 shares with Socle into slot `index` (0..PAGING_SHARED_SLOTS-1); the caller
 * has asked the frame table. Unmap makes it unreachable on every processor before it returns. */
#define PAGING_SHARED_SLOTS 2048
void *paging_map_shared(u32 index, paddr_t pa);
void paging_unmap_shared(u32 index);

/* A window of the calling processor onto one page, until the slot is used again. The caller has
 * asked the frame table. Slots: */
enum { WINDOW_WALK, WINDOW_COPY, WINDOWS };
void *window_map(unsigned int slot, paddr_t pa);
void window_unmap(unsigned int slot);

/* Copies between Socle's memory and any physical memory, page by page through WINDOW_COPY; after
 * the boot the caller has asked the frame table. */
void phys_read(void *dst, paddr_t src, size_t len);
void phys_write(paddr_t dst, const void *src, size_t len);
