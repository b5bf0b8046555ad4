/* SPDX-License-Identifier: BSD-2-Clause */
/* Run queues: proportional share by virtual runtime, wake-ups, work stealing, handoff, timers. */
#include "core/sched.h"

#include "core/lib.h"
#include "core/panic.h"

#define STEAL_SCAN 64 /* entities looked at in a queue for one that may move */

static u64 tick_khz;
#define LATENCY   (tick_khz * 6) /* everybody in a queue runs once within this, if slices allow */
#define MIN_SLICE (tick_khz / 2) /* and how far ahead another must be to preempt */
#define BOOST     (tick_khz * 3) /* what a sleeper can save up, in vruntime */

static struct runqueue *queues[SCHED_MAX_CPUS];
static u64 online_cpus[SCHED_CPU_WORDS];
static u64 idle_cpus[SCHED_CPU_WORDS] ALIGNED(64); /* hints: runqueue.idle decides */

/* ---- processors
 * ---------------------------------------------------------------------------------- */

static inline bool test_cpu(const u64 *mask, u32 cpu)
{
    return __atomic_load_n(&mask[cpu / 64], __ATOMIC_RELAXED) & BIT(cpu % 64);
}

/* The first processor that is in both masks, or SCHED_NO_KICK. */
static int first_cpu(const u64 *a, const u64 *b)
{
    for (u32 i = 0; i < SCHED_CPU_WORDS; i++) {
        u64 both = __atomic_load_n(&a[i], __ATOMIC_RELAXED);

        both &= __atomic_load_n(&b[i], __ATOMIC_RELAXED);
        if (both)
            return (int)(i * 64) + __builtin_ctzll(both);
    }
    return SCHED_NO_KICK;
}

static void set_idle(struct runqueue *rq, bool idle)
{
    if (rq->idle == idle)
        return;
    rq->idle = idle;
    __atomic_fetch_xor(&idle_cpus[rq->cpu / 64], BIT(rq->cpu % 64), __ATOMIC_SEQ_CST);
}

void sched_init(u64 tsc_khz)
{
    memset(queues, 0, sizeof(queues));
    memset(online_cpus, 0, sizeof(online_cpus));
    memset(idle_cpus, 0, sizeof(idle_cpus));
    tick_khz = tsc_khz;
}

void sched_add_cpu(struct runqueue *rq, u32 cpu)
{
    ASSERT(cpu < SCHED_MAX_CPUS && !queues[cpu]);
    memset(rq, 0, sizeof(*rq));
    rq->cpu = cpu;
    rq->kick = SCHED_NO_KICK;
    queues[cpu] = rq;
    online_cpus[cpu / 64] |= BIT(cpu % 64);
}

/* ---- entities and the queue that they belong to
 * -------------------------------------------------- */

static void set_state(struct sched_entity *e, enum sched_state state)
{
    __atomic_store_n(&e->state, state, __ATOMIC_RELEASE);
}

static u32 flags_of(const struct sched_entity *e)
{
    return __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE);
}

static void clear_flags(struct sched_entity *e, u32 flags)
{
    if (flags_of(e) & flags)
        __atomic_fetch_and(&e->flags, ~flags, __ATOMIC_SEQ_CST);
}

void sched_entity_init(struct sched_entity *e, u32 cpu)
{
    ASSERT(cpu < SCHED_MAX_CPUS && queues[cpu]);
    memset(e, 0, sizeof(*e));
    memset(e->affinity, 0xff, sizeof(e->affinity));
    e->weight = SCHED_WEIGHT_DEFAULT;
    e->inverse = BIT(42) / SCHED_WEIGHT_DEFAULT;
    e->cpu = cpu;
    e->flags = SCHED_F_TRANSIT;
}

/* Begins a move to another processor: once rq's lock is released, the entity is that one's,
 * wherever it is looked at first. So a move never needs two locks. */
static void depart(struct runqueue *rq, struct sched_entity *e, u32 cpu)
{
    u32 flags = SCHED_F_TRANSIT;

    if (heap_queued(&e->timer)) {
        heap_remove(&rq->timers, &e->timer);
        flags |= SCHED_F_TIMER;
    }
    e->vruntime -= rq->min_vruntime;
    __atomic_fetch_or(&e->flags, flags, __ATOMIC_SEQ_CST);
    __atomic_store_n(&e->cpu, cpu, __ATOMIC_RELEASE);
}

static void arrive(struct runqueue *rq, struct sched_entity *e)
{
    u32 flags = flags_of(e);

    if (likely(!(flags & SCHED_F_TRANSIT)))
        return;
    e->vruntime += rq->min_vruntime;
    if (flags & SCHED_F_TIMER)
        heap_insert(&rq->timers, &e->timer, e->timer.key);
    clear_flags(e, SCHED_F_TRANSIT | SCHED_F_TIMER);
}

/* Locks the queue that the entity belongs to. Another turn means that the entity has moved
 * meanwhile, so another processor got on. */
static struct runqueue *lock_home(struct sched_entity *e)
{
    for (;;) {
        u32 cpu = sched_cpu(e);
        struct runqueue *rq = queues[cpu];

        spin_lock(&rq->lock);
        if (likely(e->cpu == cpu)) {
            arrive(rq, e);
            return rq;
        }
        spin_unlock(&rq->lock);
    }
}

/* ---- virtual time (rq's lock held)
 * --------------------------------------------------------------- */

static struct sched_entity *first_waiting(const struct runqueue *rq)
{
    struct heap_node *n = heap_first(&rq->queue);

    return n ? container_of(n, struct sched_entity, node) : NULL;
}

/* Charges the current entity for what it ran. Where another processor's TSC has been ahead, that
 * comes later. */
static void account(struct runqueue *rq, u64 now)
{
    const struct sched_entity *first = first_waiting(rq);
    struct sched_entity *e = rq->curr;
    u64 lowest, ran = now - rq->run_start;

    if (!e || (s64)ran <= 0)
        return;
    rq->run_start = now;
    e->run_tsc += ran;
    e->vruntime += scale(ran, e->inverse);
    lowest = first && heap_before(first->vruntime, e->vruntime) ? first->vruntime : e->vruntime;
    if (heap_before(rq->min_vruntime, lowest))
        rq->min_vruntime = lowest;
}

/* A sleeper keeps at most the boost. It can't be further ahead than when it went to sleep: then it
 * has slept through half of the numbers. */
static inline void limit_boost(const struct runqueue *rq, struct sched_entity *e)
{
    s64 ahead = (s64)(e->vruntime - rq->min_vruntime);

    if (ahead < -(s64)BOOST || ahead > e->lag)
        e->vruntime = rq->min_vruntime - BOOST;
}

/* Whether e takes curr's place before the slice ends: it is behind by what a minimum slice costs
 * it, so a heavy one does sooner. */
static bool preempts(const struct sched_entity *e, const struct sched_entity *curr)
{
    s64 behind = (s64)(curr->vruntime - e->vruntime);

    return behind > 0 && (u64)behind > scale(MIN_SLICE, e->inverse);
}

/* curr's share of the time in which everybody has a turn. */
static u64 slice_of(const struct runqueue *rq)
{
    u64 period = MAX(LATENCY, rq->nr * MIN_SLICE);
    u64 weight = rq->curr->weight;

    return MAX(MIN_SLICE, period * weight / (rq->weight + weight));
}

static u64 next_event(const struct runqueue *rq)
{
    u64 end = SCHED_NEVER;

    if (rq->curr && heap_first(&rq->queue))
        end = rq->slice_start + slice_of(rq);
    return heap_first(&rq->timers) ? MIN(heap_first(&rq->timers)->key, end) : end;
}

/* ---- in and out of a queue (rq's lock held)
 * ------------------------------------------------------ */

static void enqueue(struct runqueue *rq, struct sched_entity *e, u64 now)
{
    e->wait_start = now;
    set_state(e, SCHED_RUNNABLE);
    rq->weight += e->weight;
    heap_insert(&rq->queue, &e->node, e->vruntime);
}

static void dequeue(struct runqueue *rq, struct sched_entity *e)
{
    rq->weight -= e->weight;
    heap_remove(&rq->queue, &e->node);
}

/* RUNNABLE or RUNNING to STOPPED or BLOCKED. */
static void leave(struct runqueue *rq, struct sched_entity *e, enum sched_state state)
{
    if (e->state == SCHED_RUNNABLE) {
        dequeue(rq, e);
    } else {
        rq->curr = NULL;
        rq->decided = false;
    }
    __atomic_store_n(&rq->nr, rq->nr - 1, __ATOMIC_RELAXED);
    e->lag = (s64)(e->vruntime - rq->min_vruntime);
    clear_flags(e, SCHED_F_WAKE | SCHED_F_STOP);
    set_state(e, state);
}

/* BLOCKED to RUNNABLE. Returns a kick. */
static int activate(struct runqueue *rq, struct sched_entity *e, u64 now)
{
    account(rq, now);
    limit_boost(rq, e);
    enqueue(rq, e, now);
    __atomic_store_n(&rq->nr, rq->nr + 1, __ATOMIC_RELAXED);
    if (rq->idle) {
        set_idle(rq, false);
        return (int)rq->cpu;
    }
    if (rq->curr && (preempts(e, rq->curr) || next_event(rq) < rq->armed))
        return (int)rq->cpu;
    return SCHED_NO_KICK; /* without curr, it is about to decide */
}

/* Where e should run: on `cpu`, if that may be and it's idle or no other is. */
static u32 choose_cpu(const struct sched_entity *e, u32 cpu)
{
    bool allowed = test_cpu(e->affinity, cpu);
    int other;

    if (allowed && test_cpu(idle_cpus, cpu))
        return cpu;
    other = first_cpu(e->affinity, idle_cpus);
    if (other < 0 && !allowed)
        other = first_cpu(e->affinity, online_cpus);
    return other < 0 ? cpu : (u32)other;
}

/* Whether e, BLOCKED, can leave rq. If it can't, but must, sched_release() will finish what place()
 * began. */
static bool can_leave(const struct runqueue *rq, struct sched_entity *e)
{
    if (!(flags_of(e) & SCHED_F_LOADED))
        return true;
    if (test_cpu(e->affinity, rq->cpu))
        return false;
    if (__atomic_fetch_or(&e->flags, SCHED_F_WAKE, __ATOMIC_SEQ_CST) & SCHED_F_LOADED)
        return false;
    clear_flags(e, SCHED_F_WAKE);
    return true;
}

/* Makes e, BLOCKED in rq, RUNNABLE on `cpu` or where else it's better. Releases rq's lock; returns
 * a kick. If e is no longer BLOCKED after a move, somebody else has decided about it since. */
static int place(struct runqueue *rq, struct sched_entity *e, u32 cpu, u64 now)
{
    int kick = SCHED_NO_KICK;

    cpu = choose_cpu(e, cpu);
    while (e->state == SCHED_BLOCKED && cpu != rq->cpu && can_leave(rq, e)) {
        account(rq, now);
        depart(rq, e, cpu);
        spin_unlock(&rq->lock);
        rq = lock_home(e);
        cpu = test_cpu(e->affinity, rq->cpu) ? rq->cpu : choose_cpu(e, rq->cpu);
    }
    if (e->state == SCHED_BLOCKED && test_cpu(e->affinity, rq->cpu))
        kick = activate(rq, e, now);
    spin_unlock(&rq->lock);
    return kick;
}

/* ---- transitions
 * --------------------------------------------------------------------------------- */

void sched_set_weight(struct sched_entity *e, u32 weight, u64 now)
{
    struct runqueue *rq = lock_home(e);

    account(rq, now);
    if (e->state == SCHED_RUNNABLE)
        rq->weight += weight - (u64)e->weight;
    e->weight = weight;
    e->inverse = BIT(42) / weight;
    spin_unlock(&rq->lock);
}

int sched_set_affinity(struct sched_entity *e, const u64 affinity[SCHED_CPU_WORDS], u64 now)
{
    struct runqueue *rq;
    int kick = SCHED_NO_KICK;

    if (first_cpu(affinity, online_cpus) < 0)
        return -E_INVAL;
    rq = lock_home(e);
    for (u32 i = 0; i < SCHED_CPU_WORDS; i++)
        __atomic_store_n(&e->affinity[i], affinity[i], __ATOMIC_RELAXED);
    if (!test_cpu(affinity, rq->cpu) && e->state == SCHED_RUNNABLE) {
        leave(rq, e, SCHED_BLOCKED);
        return place(rq, e, rq->cpu, now);
    }
    if (!test_cpu(affinity, rq->cpu) && e->state == SCHED_RUNNING)
        kick = (int)rq->cpu;
    spin_unlock(&rq->lock);
    return kick;
}

int sched_start(struct sched_entity *e, u32 cpu, u64 now)
{
    struct runqueue *rq = lock_home(e);

    if (e->state != SCHED_STOPPED) {
        spin_unlock(&rq->lock);
        return -E_BUSY;
    }
    set_state(e, SCHED_BLOCKED);
    return place(rq, e, cpu, now);
}

int sched_wake(struct sched_entity *e, u64 now)
{
    struct runqueue *rq = lock_home(e);
    int kick = SCHED_NO_KICK;

    if (e->state == SCHED_BLOCKED)
        return place(rq, e, rq->cpu, now);
    if (e->state == SCHED_RUNNING) {
        __atomic_fetch_or(&e->flags, SCHED_F_WAKE, __ATOMIC_SEQ_CST);
        kick = (int)rq->cpu;
    }
    spin_unlock(&rq->lock);
    return kick;
}

bool sched_block(struct sched_entity *e, u64 now)
{
    struct runqueue *rq = lock_home(e);
    bool woken = flags_of(e) & SCHED_F_WAKE;

    ASSERT(rq->curr == e);
    account(rq, now);
    if (woken)
        clear_flags(e, SCHED_F_WAKE);
    else
        leave(rq, e, flags_of(e) & SCHED_F_STOP ? SCHED_STOPPED : SCHED_BLOCKED);
    spin_unlock(&rq->lock);
    return !woken;
}

void sched_give_way(struct sched_entity *e, u64 now)
{
    struct runqueue *rq = lock_home(e);
    const struct sched_entity *first = first_waiting(rq);

    account(rq, now);
    if (first && !heap_before(first->vruntime, e->vruntime))
        e->vruntime = first->vruntime + 1;
    rq->slice_start = now - slice_of(rq);
    spin_unlock(&rq->lock);
}

int sched_stop(struct sched_entity *e)
{
    struct runqueue *rq = lock_home(e);
    int ret = 0;

    if (e->state == SCHED_RUNNING) {
        __atomic_fetch_or(&e->flags, SCHED_F_STOP, __ATOMIC_SEQ_CST);
        ret = -E_AGAIN;
    } else if (e->state == SCHED_RUNNABLE) {
        leave(rq, e, SCHED_STOPPED);
    } else {
        clear_flags(e, SCHED_F_WAKE);
        set_state(e, SCHED_STOPPED);
    }
    spin_unlock(&rq->lock);
    return ret;
}

/* ---- decisions
 * ----------------------------------------------------------------------------------- */

void sched_end(struct sched_entity *e, u64 now)
{
    struct runqueue *rq = lock_home(e);

    ASSERT(rq->curr == e);
    account(rq, now);
    leave(rq, e, SCHED_STOPPED);
    spin_unlock(&rq->lock);
}

static inline void set_current(struct runqueue *rq, struct sched_entity *e, u64 now)
{
    set_state(e, SCHED_RUNNING);
    /* No other flag is possible here. */
    __atomic_store_n(&e->flags, SCHED_F_LOADED, __ATOMIC_RELAXED);
    rq->curr = e;
    rq->run_start = now;
    rq->slice_start = now;
}

/* The current entity or the first in the queue. An idle processor is told about what has to wait.
 */
static struct sched_entity *decide(struct runqueue *rq, u64 now)
{
    struct sched_entity *first = first_waiting(rq);
    struct sched_entity *curr = rq->curr;
    bool over;

    if (!first)
        return curr;
    over = curr && now - rq->slice_start >= slice_of(rq);
    if (!curr || preempts(first, curr) || (over && heap_before(first->vruntime, curr->vruntime))) {
        dequeue(rq, first);
        if ((s64)(now - first->wait_start) > 0) /* another processor's TSC may be ahead */
            first->wait_tsc += now - first->wait_start;
        if (curr)
            enqueue(rq, curr, now);
        set_idle(rq, false);
        set_current(rq, first, now);
    } else if (over) {
        rq->slice_start = now;
    }
    first = first_waiting(rq);
    if (first && rq->kick == SCHED_NO_KICK)
        rq->kick = first_cpu(first->affinity, idle_cpus);
    return rq->curr;
}

static struct sched_entity *first_movable(const struct runqueue *rq, u32 cpu)
{
    struct heap_node *n = heap_first(&rq->queue);

    for (u32 seen = 0; n && seen < STEAL_SCAN; n = heap_next(n), seen++) {
        struct sched_entity *e = container_of(n, struct sched_entity, node);

        if (test_cpu(e->affinity, cpu) && !(flags_of(e) & SCHED_F_LOADED))
            return e;
    }
    return NULL;
}

/* What other processors may know of a queue that they do not lock, or that is not there. */
static u32 nr_of(const struct runqueue *rq)
{
    return rq ? __atomic_load_n(&rq->nr, __ATOMIC_RELAXED) : 0;
}

/* Takes an entity that may run on `cpu` out of src. It is then BLOCKED, on its way to `cpu`. */
static struct sched_entity *take_from(struct runqueue *src, u32 cpu, u64 now)
{
    struct sched_entity *e;

    if (nr_of(src) < 2 || src->cpu == cpu || !spin_trylock(&src->lock))
        return NULL;
    e = src->nr >= 2 ? first_movable(src, cpu) : NULL;
    if (e) {
        account(src, now);
        leave(src, e, SCHED_BLOCKED);
        depart(src, e, cpu);
    }
    spin_unlock(&src->lock);
    return e;
}

/* Takes an entity for processor `cpu` from the longest queue, else from any. A queue with one
 * entity keeps it: its processor runs it or is on the way to it. */
static struct sched_entity *steal(u32 cpu, u64 now)
{
    struct sched_entity *e = NULL;
    u32 longest = cpu;

    for (u32 i = 0; i < SCHED_MAX_CPUS; i++)
        if (nr_of(queues[i]) > nr_of(queues[longest]))
            longest = i;
    for (u32 i = 0; i < SCHED_MAX_CPUS && longest != cpu && !e; i++)
        e = take_from(queues[(longest + i) % SCHED_MAX_CPUS], cpu, now);
    return e;
}

/* Nothing is left in rq, whose lock is held and kept. The processor says that it's idle before it
 * looks around, so that what comes after that look comes here. */
static struct sched_entity *go_idle(struct runqueue *rq, u64 now)
{
    struct sched_entity *e;

    set_idle(rq, true);
    spin_unlock(&rq->lock);
    e = rq->kick == SCHED_NO_KICK ? steal(rq->cpu, now) : NULL; /* only one kick can be told */
    if (e)
        rq->kick = sched_wake(e, now);
    spin_lock(&rq->lock);
    e = decide(rq, now);
    if (!e)
        set_idle(rq, true);
    return e;
}

struct sched_entity *sched_choose(struct runqueue *rq, u64 now)
{
    struct sched_entity *e;

    rq->kick = SCHED_NO_KICK;
    spin_lock(&rq->lock);
    account(rq, now);
    e = rq->curr;
    if (e && unlikely(flags_of(e) & SCHED_F_STOP)) {
        leave(rq, e, SCHED_STOPPED);
    } else if (e && unlikely(!test_cpu(e->affinity, rq->cpu))) {
        leave(rq, e, SCHED_BLOCKED);
        rq->kick = place(rq, e, rq->cpu, now);
        spin_lock(&rq->lock);
    }
    e = decide(rq, now);
    if (!e)
        e = go_idle(rq, now);
    spin_unlock(&rq->lock);
    if (rq->kick == (s32)rq->cpu)
        rq->kick = SCHED_NO_KICK;
    return e;
}

int sched_release(struct sched_entity *e, u64 now)
{
    u32 old = __atomic_fetch_and(&e->flags, ~SCHED_F_LOADED, __ATOMIC_SEQ_CST);
    struct runqueue *rq;

    if (sched_state(e) == SCHED_RUNNABLE)
        return first_cpu(e->affinity, idle_cpus);
    if (likely(!(old & SCHED_F_WAKE)))
        return SCHED_NO_KICK;
    rq = lock_home(e);
    if (e->state == SCHED_BLOCKED && (flags_of(e) & SCHED_F_WAKE)) {
        clear_flags(e, SCHED_F_WAKE);
        return place(rq, e, rq->cpu, now);
    }
    spin_unlock(&rq->lock);
    return SCHED_NO_KICK;
}

/* ---- handoff
 * ------------------------------------------------------------------------------------- */

/* Puts `to`, if it is in state `was` here, in the place of `from`, which gets `state`, without the
 * queue. False where that is not to be had. rq's lock is held. */
static inline bool swap(struct runqueue *rq, struct sched_entity *from, enum sched_state state,
                        struct sched_entity *to, enum sched_state was, u64 now)
{
    if (heap_first(&rq->queue) || sched_cpu(to) != rq->cpu || to->state != was ||
        (flags_of(to) & ~SCHED_F_LOADED) || !test_cpu(to->affinity, rq->cpu))
        return false;
    account(rq, now);
    from->lag = (s64)(from->vruntime - rq->min_vruntime);
    set_state(from, state);
    limit_boost(rq, to);
    set_current(rq, to, now);
    rq->kick = SCHED_NO_KICK;
    rq->decided = true;
    return true;
}

/* Brings `to`, STOPPED elsewhere, to rq. */
static void pull(struct runqueue *rq, struct sched_entity *to, u64 now)
{
    struct runqueue *home = lock_home(to);

    if (to->state == SCHED_STOPPED && home != rq && !(flags_of(to) & SCHED_F_LOADED) &&
        test_cpu(to->affinity, rq->cpu)) {
        account(home, now);
        depart(home, to, rq->cpu);
    }
    spin_unlock(&home->lock);
}

/* The long way; rq's lock is held, but not all the time. */
static __attribute__((noinline)) int handoff(struct runqueue *rq, struct sched_entity *from,
                                             struct sched_entity *to, u64 now)
{
    u32 flags;

    ASSERT(rq->curr == from);
    spin_unlock(&rq->lock);
    pull(rq, to, now);
    spin_lock(&rq->lock);
    flags = flags_of(from);
    if (flags & SCHED_F_WAKE) {
        clear_flags(from, SCHED_F_WAKE);
        return -E_AGAIN;
    }
    if (sched_cpu(to) != rq->cpu || to->state != SCHED_STOPPED || !test_cpu(to->affinity, rq->cpu))
        return -E_BUSY;
    arrive(rq, to);
    account(rq, now);
    leave(rq, from, flags & SCHED_F_STOP ? SCHED_STOPPED : SCHED_BLOCKED);
    activate(rq, to, now);
    return 0;
}

int sched_handoff(struct runqueue *rq, struct sched_entity *from, struct sched_entity *to, u64 now)
{
    int ret = 0;

    spin_lock(&rq->lock);
    if (unlikely((flags_of(from) & (SCHED_F_WAKE | SCHED_F_STOP)) ||
                 !swap(rq, from, SCHED_BLOCKED, to, SCHED_STOPPED, now)))
        ret = handoff(rq, from, to, now);
    spin_unlock(&rq->lock);
    return ret;
}

int sched_handback(struct runqueue *rq, struct sched_entity *from, struct sched_entity *to, u64 now)
{
    bool swapped;

    spin_lock(&rq->lock);
    ASSERT(rq->curr == from);
    swapped = swap(rq, from, SCHED_STOPPED, to, SCHED_BLOCKED, now);
    if (!swapped) {
        account(rq, now);
        leave(rq, from, SCHED_STOPPED);
    }
    clear_flags(from, SCHED_F_WAKE | SCHED_F_STOP);
    spin_unlock(&rq->lock);
    return swapped ? SCHED_NO_KICK : sched_wake(to, now);
}

/* ---- events
 * -------------------------------------------------------------------------------------- */

u64 sched_next_event(struct runqueue *rq)
{
    spin_lock(&rq->lock);
    rq->armed = next_event(rq);
    spin_unlock(&rq->lock);
    return rq->armed;
}

int sched_timer_set(struct sched_entity *e, u64 deadline)
{
    struct runqueue *rq = lock_home(e);
    int kick = SCHED_NO_KICK;

    if (heap_queued(&e->timer))
        heap_remove(&rq->timers, &e->timer);
    if (deadline < BIT(63))
        heap_insert(&rq->timers, &e->timer, deadline);
    if (next_event(rq) < rq->armed)
        kick = (int)rq->cpu;
    spin_unlock(&rq->lock);
    return kick;
}

struct sched_entity *sched_timer_expired(struct runqueue *rq, u64 now)
{
    struct sched_entity *e = NULL;
    struct heap_node *n;

    spin_lock(&rq->lock);
    n = heap_first(&rq->timers);
    if (n && n->key <= now) {
        heap_remove(&rq->timers, n);
        e = container_of(n, struct sched_entity, timer);
    }
    spin_unlock(&rq->lock);
    return e;
}
