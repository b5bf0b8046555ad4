/* SPDX-License-Identifier: BSD-2-Clause */
/* Socle's page heap: zeroed 4 KiB pages for page tables, vCPU state and the like, each charged to
 * the domain that causes it. Any part may call it, on any processor; the pool's lock is taken
 * inside and nothing is locked under it. Running out is NULL, never a panic: callers return
 * -E_NOMEM. */
#pragma once

#include "core/types.h"

/* What one domain has taken from the pool; changed under the pool's lock. */
struct charge {
    u64 pages;
    u64 limit; /* pages never exceeds it by an allocation; UINT64_MAX: no limit */
};

/* Gives the pool its memory: base is a page-aligned virtual address in the direct map. Returns a
 * zeroed, page-aligned part of it that is never handed out, of table_bytes. Boot only. */
void *pool_init(void *base, u64 bytes, u64 table_bytes);

/* A zeroed page, or NULL when the pool is empty or charge is at its limit. charge NULL: Socle's
 * own. */
void *pool_alloc(struct charge *charge);

/* Gives back a page of pool_alloc(), or the NULL that it returned, to the same charge. Whoever
 * frees makes sure that no processor, hardware page walks included, can still reach it. */
void pool_free(void *page, struct charge *charge);

u64 pool_free_pages(void);
u64 pool_total_pages(void);
