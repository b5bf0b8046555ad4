/* SPDX-License-Identifier: BSD-2-Clause */
/* The scheduler: which entity a processor runs next, until when, and which processor must think
 * again. It knows no vCPU: struct sched_entity is embedded in one. A run queue per processor shares
 * it out in proportion to weights by virtual runtime; idle processors take work from the others.
 *
 * The owning processor calls, in its loop: sched_pick(), sched_release() of what ran before once
 * its state is in memory, sched_next_event() to set its timer, and then runs the entity. Everything
 * but what is marked "own processor" may be called from any processor, at any time. Times are TSC
 * ticks: `now` is the calling processor's TSC; TSCs must agree up to small errors. No lock is held
 * on return, and none but one queue's at a time (plus tries for a second).
 *
 * "kick" results: the processor that has to call sched_pick() and sched_next_event() again, which
 * may be the caller's own, or SCHED_NO_KICK. The caller sends the interrupt; it must never be lost.
 */
#pragma once

#include "core/heap.h"
#include "core/spinlock.h"

#define SCHED_MAX_CPUS  256
#define SCHED_CPU_WORDS (SCHED_MAX_CPUS / 64)
#define SCHED_NO_KICK   (-1)
#define SCHED_NEVER     (~0ull)

#define SCHED_WEIGHT_MIN     1u
#define SCHED_WEIGHT_MAX     65536u
#define SCHED_WEIGHT_DEFAULT 1024u

enum sched_state {
    SCHED_STOPPED,  /* does not run until sched_start() or sched_handoff() */
    SCHED_BLOCKED,  /* waits for sched_wake() */
    SCHED_RUNNABLE, /* in a queue */
    SCHED_RUNNING,  /* on a processor */
};

/* Bits of sched_entity.flags; changed atomically, except by the queue's processor under the queue's
 * lock. */
#define SCHED_F_LOADED 0x1u /* its state may be in its processor's registers: it can't move */
#define SCHED_F_WAKE   0x2u /* woken while it ran, or while it could not go where it may run */
#define SCHED_F_STOP   0x4u /* stops at its processor's next decision */
/* It comes from another queue: vruntime is relative, the timer is not queued. */
#define SCHED_F_TRANSIT 0x8u
#define SCHED_F_TIMER   0x10u /* ... and it has a timer */

/* All but run_tsc and wait_tsc is the scheduler's own. It is guarded by the lock of the queue of
 * `cpu`. */
struct sched_entity {
    struct heap_node node; /* in the queue while RUNNABLE */
    u64 vruntime;          /* ticks at the default weight; comparable within one queue */
    s64 lag;               /* vruntime - min_vruntime when it last left a queue */
    u64 inverse;           /* 2^42 / weight */
    u32 weight;
    u32 cpu; /* the processor whose queue it belongs to */
    u32 state;
    u32 flags;
    u64 run_tsc;  /* ticks that it ran, up to the last decision */
    u64 wait_tsc; /* ticks that it waited in queues */
    u64 wait_start;
    struct heap_node timer;
    u64 affinity[SCHED_CPU_WORDS];
};

struct runqueue {
    struct spinlock lock;
    u32 cpu;
    s32 kick;     /* own processor: after sched_pick(), a processor to kick, or SCHED_NO_KICK */
    u32 nr;       /* entities that are RUNNABLE here or RUNNING; other processors look at it */
    bool idle;    /* found nothing, and nothing was given to it since */
    bool decided; /* own processor: sched_handoff() has chosen already */
    struct sched_entity *curr;
    struct heap queue; /* RUNNABLE entities by vruntime */
    struct heap timers;
    u64 min_vruntime; /* never goes back */
    u64 weight;       /* sum over the queue */
    u64 run_start;    /* what curr ran is accounted up to here */
    u64 slice_start;
    u64 armed; /* what sched_next_event() returned */
} ALIGNED(64);

/* Boot: once, before anything else here. Slices and limits follow from the TSC's frequency. */
void sched_init(u64 tsc_khz);

/* Boot: adds processor `cpu` (below SCHED_MAX_CPUS) with its queue, which stays for ever. Before
 * any entity is started; not concurrently. */
void sched_add_cpu(struct runqueue *rq, u32 cpu);

/* Makes a STOPPED entity with the default weight that may run anywhere, at home on an added
 * processor. To free one: sched_stop() and sched_timer_set(SCHED_NEVER), with no other user left.
 */
void sched_entity_init(struct sched_entity *e, u32 cpu);

/* SCHED_WEIGHT_MIN to SCHED_WEIGHT_MAX. */
void sched_set_weight(struct sched_entity *e, u32 weight, u64 now);

/* Bit n: may run on processor n. Returns a kick, or -E_INVAL where no added processor is left. An
 * entity that runs on a processor that is now forbidden leaves it at that one's next decision. */
int sched_set_affinity(struct sched_entity *e, const u64 affinity[SCHED_CPU_WORDS], u64 now);

/* STOPPED to RUNNABLE on processor `cpu`; if that is forbidden, or busy while another is idle,
 * elsewhere. Returns a kick, or -E_BUSY where the entity is not STOPPED. */
int sched_start(struct sched_entity *e, u32 cpu, u64 now);

/* BLOCKED to RUNNABLE, on its last processor or an idle one. While it is RUNNING, makes its next
 * sched_block() fail, and returns its processor, so that it looks at what it was woken for. Nothing
 * in other states. */
int sched_wake(struct sched_entity *e, u64 now);

/* Own processor. To be called before the check for a reason not to block: from here on sched_wake()
 * makes sched_block() and sched_handoff() fail. Without it, they may fail for a wake-up of long
 * ago. */
static inline void sched_prepare_block(struct sched_entity *e)
{
    __atomic_fetch_and(&e->flags, ~SCHED_F_WAKE, __ATOMIC_SEQ_CST);
}

/* Own processor: RUNNING to BLOCKED, or STOPPED where that was asked for. Returns false where a
 * wake-up has come meanwhile, which it takes: the entity goes on. */
bool sched_block(struct sched_entity *e, u64 now);

/* Own processor: the current entity e lets whoever waits here go first; sched_pick() must follow.
 */
void sched_give_way(struct sched_entity *e, u64 now);

/* To STOPPED. Returns 0; or -E_AGAIN while it is RUNNING: kick its processor (sched_cpu()) and ask
 * again. Its state may still be in that processor's registers: see sched_loaded(). */
int sched_stop(struct sched_entity *e);

/* Own processor: RUNNING to STOPPED; a wake-up that has come meanwhile is forgotten. */
void sched_end(struct sched_entity *e, u64 now);

/* sched_pick() without its short way. */
struct sched_entity *sched_choose(struct runqueue *rq, u64 now);

/* Own processor: the entity to run now, or NULL: idle until a kick or the next event. rq->kick may
 * name a processor to kick. */
static inline struct sched_entity *sched_pick(struct runqueue *rq, u64 now)
{
    if (!rq->decided)
        return sched_choose(rq, now);
    rq->decided = false;
    return rq->curr;
}

/* Own processor: the state of e, which ran here and does no more, is in memory; only now may it
 * move. Must be called before this processor's next sched_pick(), except for pinned entities.
 * Returns a kick. */
int sched_release(struct sched_entity *e, u64 now);

/* Own processor: `from`, RUNNING here, blocks, and `to`, STOPPED, becomes RUNNABLE here;
 * sched_pick() must follow. Where nothing else is runnable here, both are very short. Otherwise
 * nothing has changed: -E_AGAIN when a wake-up for `from` has come meanwhile (taken, as by
 * sched_block()); -E_BUSY when `to` is not STOPPED or can't run here (see sched_start()). */
int sched_handoff(struct runqueue *rq, struct sched_entity *from, struct sched_entity *to, u64 now);

/* Own processor, the way back: `from`, RUNNING here, becomes STOPPED, `to` is woken; sched_pick()
 * must follow. Returns a kick, for where `to` does not live here. */
int sched_handback(struct runqueue *rq, struct sched_entity *from, struct sched_entity *to,
                   u64 now);

/* Own processor, after sched_pick(): the end of the current entity's slice,
 * SCHED_NEVER with nobody else in the queue, or the first timer. Later changes that bring
 * it forward cause a kick. It does not change by a handoff or a handback that had the short way. */
u64 sched_next_event(struct runqueue *rq);

/* Sets the entity's only timer, which follows it from processor to processor; deadlines from 2^63
 * on, like SCHED_NEVER, mean none. Returns a kick: where it's the caller's own, sched_next_event()
 * is enough. */
int sched_timer_set(struct sched_entity *e, u64 deadline);

/* Own processor: takes the next entity whose timer is due, in order, or NULL. The timer is then
 * off; the entity is not woken. */
struct sched_entity *sched_timer_expired(struct runqueue *rq, u64 now);

/* A look without lock: may be old news, unless something else keeps it from changing. */
static inline enum sched_state sched_state(const struct sched_entity *e)
{
    return __atomic_load_n(&e->state, __ATOMIC_ACQUIRE);
}

static inline u32 sched_cpu(const struct sched_entity *e)
{
    return __atomic_load_n(&e->cpu, __ATOMIC_ACQUIRE);
}

static inline bool sched_loaded(const struct sched_entity *e)
{
    return __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & SCHED_F_LOADED;
}
