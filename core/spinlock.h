/* SPDX-License-Identifier: BSD-2-Clause */
/* Ticket locks. Interrupts are always off in Socle, so a lock needs no interrupt variant; no lock
 * is held across work that a domain can prolong. Lock order: domain > run queue > pool > log. */
#pragma once

#include "core/types.h"

struct spinlock {
    u16 next;
    u16 owner;
};

static inline void spin_lock(struct spinlock *l)
{
    u16 ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

    while (__atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket)
        __builtin_ia32_pause();
}

static inline bool spin_trylock(struct spinlock *l)
{
    u16 owner = __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE);
    u16 expected = owner;

    return __atomic_compare_exchange_n(&l->next, &expected, (u16)(owner + 1), false,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void spin_unlock(struct spinlock *l)
{
    __atomic_store_n(&l->owner, (u16)(l->owner + 1), __ATOMIC_RELEASE);
}
