/* SPDX-License-Identifier: BSD-2-Clause */
/* The scheduler on simulated processors with a virtual clock, and its races with real threads. */
// SOURCES: core/sched.c core/heap.c
#include "core/sched.h"
#include "core/errno.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define MS        1000000ull /* ticks: the TSC runs at 1 GHz */
#define US        1000ull
#define LATENCY   (6 * MS)
#define MIN_SLICE (MS / 2)
#define BOOST     (3 * MS)
#define TASKS     400

/* An entity that runs for `burst` ticks, then sleeps for `sleep`; burst 0: never sleeps. */
struct task {
    struct sched_entity e;
    u64 burst, sleep;
    u64 left;    /* of the burst */
    u64 last_on; /* when it last had a processor */
    u64 max_gap; /* the longest wait for one */
    int on;      /* the processor, or -1 */
    u32 turns, moves, last_cpu;
};

static struct runqueue rq[SCHED_MAX_CPUS];
static struct task tasks[TASKS];
static u32 cpus;
static u64 now;
static struct task *running[SCHED_MAX_CPUS];
static u64 since[SCHED_MAX_CPUS];
static u64 event[SCHED_MAX_CPUS];
static bool kicked[SCHED_MAX_CPUS];

static u64 next_random(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static struct task *task_of(struct sched_entity *e)
{
    return e ? container_of(e, struct task, e) : NULL;
}

static void machine(u32 nr_cpus)
{
    memset(tasks, 0, sizeof(tasks));
    memset(running, 0, sizeof(running));
    memset(kicked, 0, sizeof(kicked));
    sched_init(MS);
    now = 1000 * MS;
    cpus = nr_cpus;
    for (u32 i = 0; i < cpus; i++) {
        sched_add_cpu(&rq[i], i);
        event[i] = now;
    }
    for (int i = 0; i < TASKS; i++) {
        sched_entity_init(&tasks[i].e, 0);
        tasks[i].on = -1;
    }
}

static void kick(int cpu)
{
    assert_true(cpu >= SCHED_NO_KICK && cpu < (int)cpus);
    if (cpu >= 0)
        kicked[cpu] = true;
}

static bool may_run_on(const struct task *t, u32 cpu)
{
    return t->e.affinity[cpu / 64] & BIT(cpu % 64);
}

static void pin(struct task *t, u32 cpu)
{
    u64 mask[SCHED_CPU_WORDS] = {0};

    mask[cpu / 64] = BIT(cpu % 64);
    kick(sched_set_affinity(&t->e, mask, now));
}

static void start(struct task *t, u32 cpu, u32 weight)
{
    sched_set_weight(&t->e, weight, now);
    t->left = t->burst;
    t->last_on = now;
    kick(sched_start(&t->e, cpu, now));
}

/* Takes the task's time off its burst; at the burst's end it sleeps. */
static void spend(u32 cpu)
{
    struct task *t = running[cpu];
    u64 ran = now - since[cpu];

    since[cpu] = now;
    if (!t)
        return;
    t->last_on = now;
    if (!t->burst)
        return;
    assert_true(ran <= t->left);
    t->left -= ran;
    if (!t->left) {
        t->left = t->burst;
        sched_timer_set(&t->e, now + t->sleep);
        sched_prepare_block(&t->e);
        assert_true(sched_block(&t->e, now));
    }
}

static void take(u32 cpu, struct task *t)
{
    running[cpu] = t;
    if (!t)
        return;
    assert_true(may_run_on(t, cpu));
    assert_int_equal(t->on, -1);
    assert_int_equal(sched_state(&t->e), SCHED_RUNNING);
    t->on = (int)cpu;
    t->turns++;
    t->max_gap = MAX(t->max_gap, now - t->last_on);
    t->moves += t->last_cpu != cpu;
    t->last_cpu = cpu;
}

static void decide(u32 cpu)
{
    struct task *prev = running[cpu];
    struct sched_entity *due;
    struct task *next;

    kicked[cpu] = false;
    spend(cpu);
    while ((due = sched_timer_expired(&rq[cpu], now)))
        kick(sched_wake(due, now));
    next = task_of(sched_pick(&rq[cpu], now));
    kick(rq[cpu].kick);
    if (next != prev) {
        if (prev) {
            prev->on = -1;
            kick(sched_release(&prev->e, now));
        }
        take(cpu, next);
    }
    event[cpu] = sched_next_event(&rq[cpu]);
    assert_true(next || event[cpu] == SCHED_NEVER || heap_first(&rq[cpu].timers));
}

static u64 time_of(u32 cpu)
{
    u64 t = event[cpu];

    if (kicked[cpu])
        return now;
    if (running[cpu] && running[cpu]->burst)
        t = MIN(t, since[cpu] + running[cpu]->left);
    return MAX(t, now);
}

/* No entity in a queue is further from its virtual time than what slices and boost allow. */
static void check_queue(const struct runqueue *q)
{
    u32 count = q->curr != NULL;
    u64 weight = 0;

    for (struct heap_node *n = heap_first(&q->queue); n; n = heap_next(n)) {
        struct sched_entity *e = container_of(n, struct sched_entity, node);
        s64 ahead = (s64)(e->vruntime - q->min_vruntime);
        s64 limit = (s64)(2 * LATENCY + cpus * MS + q->nr * MIN_SLICE);

        assert_int_equal(e->cpu, q->cpu);
        assert_int_equal(e->state, SCHED_RUNNABLE);
        assert_true(ahead >= -(s64)BOOST - 1);
        assert_true(ahead <= limit * 1024 / e->weight + limit);
        count++;
        weight += e->weight;
    }
    assert_int_equal(q->nr, count);
    assert_int_equal(q->weight, weight);
}

static void run_until(u64 end)
{
    for (;;) {
        u32 first = 0;

        for (u32 i = 1; i < cpus; i++)
            if (time_of(i) < time_of(first))
                first = i;
        if (time_of(first) >= end)
            break;
        now = time_of(first);
        decide(first);
        check_queue(&rq[first]);
    }
    now = end;
    for (u32 i = 0; i < cpus; i++)
        decide(i);
}

static void assert_near(u64 value, u64 wanted, double part)
{
    double error = (double)value / (double)wanted - 1;

    if (error > part || error < -part)
        fail_msg("%llu is not within %.1f %% of %llu", (unsigned long long)value, part * 100,
                 (unsigned long long)wanted);
}

/* ---- shares ------------------------------------------------------------------------------------
 */

static void shares_follow_weights(void **state)
{
    static const u32 weights[][3] = {
        {1024, 2048, 4096}, {1, 2, 4}, {16384, 32768, 65536}, {1000, 2000, 4000}};

    (void)state;
    for (u32 w = 0; w < ARRAY_SIZE(weights); w++) {
        machine(1);
        rq[0].min_vruntime = 0 - 50 * MS; /* wraps on the way */
        for (int i = 0; i < 3; i++)
            start(&tasks[i], 0, weights[w][i]);
        run_until(now + 30000 * MS);
        for (int i = 0; i < 3; i++)
            assert_near(tasks[i].e.run_tsc, (30000 * MS << i) / 7, 0.01);
    }
}

static void extreme_weights_get_their_share(void **state)
{
    (void)state;
    machine(1);
    start(&tasks[0], 0, 1);
    start(&tasks[1], 0, 65536);
    start(&tasks[2], 0, 256);
    run_until(now + 200000 * MS);
    assert_near(tasks[1].e.run_tsc, 200000 * MS, 0.01);
    assert_near(tasks[2].e.run_tsc, 200000 * MS / 257, 0.02);
    assert_true(tasks[0].e.run_tsc >= MIN_SLICE && tasks[0].e.run_tsc < 10 * MS);
}

static void a_new_weight_counts_from_now_on(void **state)
{
    u64 before;

    (void)state;
    machine(1);
    start(&tasks[0], 0, 1024);
    start(&tasks[1], 0, 1024);
    run_until(now + 5000 * MS);
    assert_near(tasks[0].e.run_tsc, 2500 * MS, 0.01);
    before = tasks[0].e.run_tsc;
    sched_set_weight(&tasks[0].e, 3072, now);
    run_until(now + 10000 * MS);
    assert_near(tasks[0].e.run_tsc - before, 7500 * MS, 0.01);
}

static void nobody_starves_among_a_hundred(void **state)
{
    (void)state;
    machine(1);
    for (int i = 0; i < 100; i++) {
        tasks[i].burst = i % 3 == 0 ? 700 * US + i * US : 0;
        tasks[i].sleep = 20 * MS;
        start(&tasks[i], 0, i < 50 ? 512 : 1024);
    }
    run_until(now + 10000 * MS);
    for (int i = 0; i < 100; i++)
        assert_true(tasks[i].max_gap < 250 * MS);
    for (int i = 1; i < 49; i += 3) /* those that never sleep: half against whole weight */
        assert_near(tasks[i].e.run_tsc * 2, tasks[i + 51].e.run_tsc, 0.03);
}

/* A sleeper with any rhythm, against one that always runs. */
static void sleeping_does_not_pay(void **state)
{
    static const u64 times[] = {20 * US, 100 * US, 600 * US, 3 * MS, 10 * MS};
    const u64 total = 3000 * MS;

    (void)state;
    for (u32 b = 0; b < ARRAY_SIZE(times); b++) {
        for (u32 s = 0; s < ARRAY_SIZE(times); s++) {
            machine(1);
            start(&tasks[0], 0, 1024);
            tasks[1].burst = times[b];
            tasks[1].sleep = times[s];
            start(&tasks[1], 0, 1024);
            run_until(now + total);
            assert_true(tasks[1].e.run_tsc <= total / 2 + BOOST + LATENCY);
            assert_true(tasks[0].e.run_tsc + tasks[1].e.run_tsc == total);
        }
    }
}

static void a_long_sleep_earns_the_boost_only(void **state)
{
    u64 before[2];

    (void)state;
    machine(1);
    start(&tasks[0], 0, 1024);
    tasks[1].burst = MS;
    tasks[1].sleep = 10000 * MS;
    start(&tasks[1], 0, 1024);
    run_until(now + 10000 * MS - 1); /* nobody disturbs the first one meanwhile: no account */
    tasks[1].burst = tasks[1].left = 100 * MS;
    before[0] = tasks[0].e.run_tsc;
    before[1] = tasks[1].e.run_tsc;
    run_until(now + 60 * MS);
    assert_true(tasks[1].e.run_tsc - before[1] <= (60 * MS + BOOST) / 2 + MIN_SLICE + 3 * MS);
    assert_true(tasks[1].e.run_tsc - before[1] >= 60 * MS / 2 - 3 * MS);
    assert_true(tasks[0].e.run_tsc - before[0] >= 60 * MS / 2 - BOOST - 3 * MS);
}

static void a_sleep_through_half_of_the_numbers_is_a_sleep(void **state)
{
    (void)state;
    machine(1);
    tasks[0].burst = MS;
    tasks[0].sleep = 1 << 30;
    start(&tasks[0], 0, 1024);
    run_until(now + 2 * MS);
    assert_int_equal(tasks[0].e.state, SCHED_BLOCKED);
    rq[0].min_vruntime += BIT(63) + 12345;
    kick(sched_wake(&tasks[0].e, now));
    assert_true(tasks[0].e.vruntime == rq[0].min_vruntime - BOOST);
}

static void a_woken_one_preempts_when_far_behind(void **state)
{
    (void)state;
    machine(1);
    tasks[1].burst = MS;
    tasks[1].sleep = BIT(40);
    start(&tasks[1], 0, 1024);
    run_until(now + 2 * MS); /* sleeps */
    start(&tasks[0], 0, 1024);
    run_until(now + 100 * MS);
    assert_int_equal(sched_wake(&tasks[1].e, now), 0);
    decide(0);
    assert_ptr_equal(rq[0].curr, &tasks[1].e);

    now += MS; /* sleeps again; woken soon after, it has nothing saved up */
    decide(0);
    assert_ptr_equal(rq[0].curr, &tasks[0].e);
    tasks[1].e.vruntime = tasks[0].e.vruntime;
    tasks[1].e.lag = BIT(40);
    now += MIN_SLICE / 2;
    kick(sched_wake(&tasks[1].e, now));
    decide(0);
    assert_ptr_equal(rq[0].curr, &tasks[0].e);
}

/* ---- several processors ------------------------------------------------------------------------
 */

static void idle_processors_take_work(void **state)
{
    u64 total = 0;

    (void)state;
    machine(4);
    for (u32 i = 0; i < 4; i++) /* virtual times have nothing in common */
        rq[i].min_vruntime = i * 0x4321000000000000ull;
    for (int i = 0; i < 9; i++) {
        tasks[i].burst = i % 2 ? 2 * MS : 0;
        tasks[i].sleep = MS;
        start(&tasks[i], 0, 1024);
    }
    run_until(now + 5000 * MS);
    for (int i = 0; i < 9; i++) {
        total += tasks[i].e.run_tsc;
        assert_true(tasks[i].e.run_tsc > 200 * MS);
        assert_true(tasks[i].max_gap < 100 * MS);
    }
    assert_near(total, 4 * 5000 * MS, 0.001);
}

static void a_move_keeps_the_lag(void **state)
{
    struct sched_entity *e = &tasks[1].e;

    (void)state;
    machine(2);
    rq[0].min_vruntime = 77 * MS;
    rq[1].min_vruntime = 0x9000000000000000ull;
    pin(&tasks[0], 0);
    pin(&tasks[1], 0);
    sched_start(&tasks[0].e, 0, now);
    sched_pick(&rq[0], now);
    sched_start(e, 0, now);
    e->lag = MS;
    heap_remove(&rq[0].queue, &e->node);
    e->vruntime += MS; /* is ahead by so much */
    heap_insert(&rq[0].queue, &e->node, e->vruntime);
    assert_null(sched_pick(&rq[1], now)); /* not allowed there */
    sched_set_affinity(e, (u64[SCHED_CPU_WORDS]){3}, now);
    sched_pick(&rq[0], now);
    assert_int_equal(rq[0].kick, 1); /* now it is: the idle one is told */
    assert_ptr_equal(sched_pick(&rq[1], now), e);
    assert_true(e->vruntime == 0x9000000000000000ull + MS);
    assert_int_equal(rq[0].nr, 1);
}

static void pinned_ones_never_move(void **state)
{
    (void)state;
    machine(4);
    for (u32 i = 0; i < 12; i++) {
        tasks[i].burst = 300 * US + i * 50 * US;
        tasks[i].sleep = 500 * US;
        if (i < 8) {
            pin(&tasks[i], i % 4);
            tasks[i].last_cpu = i % 4;
        }
        start(&tasks[i], i % 4, 1024);
        assert_true(may_run_on(&tasks[i], tasks[i].e.cpu));
    }
    run_until(now + 2000 * MS);
    for (u32 i = 0; i < 12; i++) {
        assert_true(tasks[i].e.run_tsc > 100 * MS);
        if (i < 8)
            assert_int_equal(tasks[i].moves, 0);
        else
            assert_true(tasks[i].moves > 0);
    }
}

static void affinity_changes_in_every_state(void **state)
{
    static const u64 nowhere[SCHED_CPU_WORDS] = {BIT(63)};

    (void)state;
    machine(2);
    assert_int_equal(sched_set_affinity(&tasks[0].e, nowhere, now), -E_INVAL);
    for (int i = 0; i < 3; i++)
        pin(&tasks[i], 0);
    tasks[2].burst = MS;
    tasks[2].sleep = 5 * MS;
    for (int i = 0; i < 3; i++)
        start(&tasks[i], 1, 1024);
    run_until(now + 20 * MS);
    assert_true(tasks[2].moves == 0 && !running[1]);
    for (int i = 0; i < 3; i++)
        pin(&tasks[i], 1);
    run_until(now + 20 * MS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tasks[i].e.cpu, 1);
    assert_null(running[0]);
    assert_non_null(running[1]);
    assert_int_equal(rq[0].nr, 0);
}

static void wakes_an_idle_processor(void **state)
{
    (void)state;
    machine(2);
    run_until(now + MS);
    assert_int_equal(sched_start(&tasks[0].e, 0, now), 0); /* 0 is idle: goes there */
    decide(0);
    assert_int_equal(sched_start(&tasks[1].e, 0, now), 1); /* 0 is busy, 1 idle */
    assert_int_equal(tasks[1].e.cpu, 1);
    assert_int_equal(sched_start(&tasks[1].e, 0, now), -E_BUSY);
    decide(1);
    assert_ptr_equal(rq[1].curr, &tasks[1].e);
    /* No idle one: it must cause a slice for who runs there alone. */
    assert_int_equal(sched_start(&tasks[2].e, 1, now), 1);
}

static void what_is_loaded_stays_until_released(void **state)
{
    struct sched_entity *a = &tasks[0].e, *b = &tasks[1].e;

    (void)state;
    machine(2);
    pin(&tasks[1], 0);
    sched_pick(&rq[1], now); /* idle */
    sched_start(a, 0, now);
    assert_int_equal(a->cpu, 1);
    assert_int_equal(sched_stop(a), 0);
    assert_null(sched_pick(&rq[1], now));
    sched_set_affinity(a, (u64[SCHED_CPU_WORDS]){1}, now);
    sched_start(a, 0, now);
    assert_ptr_equal(sched_pick(&rq[0], now), a);
    sched_set_affinity(a, (u64[SCHED_CPU_WORDS]){3}, now);
    sched_start(b, 0, now);
    now += 10 * MS;
    assert_ptr_equal(sched_pick(&rq[0], now), b);
    assert_null(sched_pick(&rq[1], now)); /* a's state is not in memory yet */
    assert_int_equal(sched_release(a, now), 1);
    assert_ptr_equal(sched_pick(&rq[1], now), a);
    /* Forbidden while it runs: it leaves at the next decision, and moves when it's released. */
    assert_int_equal(sched_set_affinity(a, (u64[SCHED_CPU_WORDS]){1}, now), 1);
    assert_null(sched_pick(&rq[1], now));
    assert_int_equal(a->state, SCHED_BLOCKED);
    assert_int_equal(sched_wake(a, now), SCHED_NO_KICK);
    assert_int_equal(a->state, SCHED_BLOCKED);
    sched_release(a, now);
    assert_int_equal(a->state, SCHED_RUNNABLE);
    assert_int_equal(a->cpu, 0);
}

static void all_256_processors(void **state)
{
    u64 total = 0;

    (void)state;
    machine(256);
    for (int i = 0; i < 300; i++) {
        tasks[i].burst = i % 2 ? 0 : 3 * MS;
        tasks[i].sleep = MS;
        if (i < 3)
            pin(&tasks[i], 255);
        start(&tasks[i], i % 7, 1024);
    }
    run_until(now + 30 * MS);
    for (int i = 0; i < 300; i++)
        total += tasks[i].e.run_tsc;
    assert_true(total > 240 * 30 * MS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tasks[i].last_cpu, 255);
}

/* ---- slices and timers -------------------------------------------------------------------------
 */

static void no_tick_for_one(void **state)
{
    (void)state;
    machine(1);
    assert_null(sched_pick(&rq[0], now));
    assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
    start(&tasks[0], 0, 1024);
    run_until(now + 50 * MS);
    assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
    assert_int_equal(tasks[0].turns, 1);
    start(&tasks[1], 0, 1024);
    run_until(now + 50 * MS);
    assert_true(sched_next_event(&rq[0]) <= now + LATENCY / 2);
    assert_true(sched_next_event(&rq[0]) > now - MS);
    assert_in_range(tasks[0].turns, 5, 20);
    sched_stop(&tasks[rq[0].curr == &tasks[0].e].e);
    assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
}

static void timers_come_in_order(void **state)
{
    (void)state;
    machine(1);
    for (u64 i = 0; i < 100; i++)
        sched_timer_set(&tasks[i].e, now + (i * 37 % 100) * US);
    sched_timer_set(&tasks[0].e, SCHED_NEVER);
    sched_timer_set(&tasks[1].e, BIT(63)); /* a number that no time reaches */
    sched_timer_set(&tasks[2].e, now + 55 * US);
    assert_true(sched_next_event(&rq[0]) == now + US);
    assert_null(sched_timer_expired(&rq[0], now));
    for (u64 t = 1; t < 100; t++) {
        if (t != 37 && t != 74)
            assert_int_equal((task_of(sched_timer_expired(&rq[0], now + t * US)) - tasks) * 37 %
                                 100 * (t != 55),
                             t * (t != 55));
        if (t == 55)
            assert_non_null(sched_timer_expired(&rq[0], now + t * US));
        assert_null(sched_timer_expired(&rq[0], now + t * US));
    }
    assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
    /* Earlier than what the processor waits for: a kick; later: none. */
    assert_int_equal(sched_timer_set(&tasks[0].e, now + MS), 0);
    sched_next_event(&rq[0]);
    assert_int_equal(sched_timer_set(&tasks[1].e, now + 2 * MS), SCHED_NO_KICK);
    assert_int_equal(sched_timer_set(&tasks[2].e, now), 0);
    assert_ptr_equal(sched_timer_expired(&rq[0], now), &tasks[2].e);
}

static void a_timer_follows_its_entity(void **state)
{
    (void)state;
    machine(2);
    run_until(now + MS);
    sched_start(&tasks[0].e, 0, now);
    decide(0);
    sched_timer_set(&tasks[1].e, now + MS);
    assert_int_equal(sched_start(&tasks[1].e, 0, now), 1);
    assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
    assert_true(sched_next_event(&rq[1]) == now + MS);
    assert_null(sched_timer_expired(&rq[0], now + MS));
    assert_ptr_equal(sched_timer_expired(&rq[1], now + MS), &tasks[1].e);
}

/* ---- stop, handoff -----------------------------------------------------------------------------
 */

static void stops_in_every_state(void **state)
{
    struct sched_entity *e = &tasks[0].e;

    (void)state;
    machine(1);
    assert_int_equal(sched_stop(e), 0);
    sched_start(e, 0, now);
    assert_int_equal(sched_stop(e), 0); /* RUNNABLE */
    assert_null(sched_pick(&rq[0], now));
    sched_start(e, 0, now);
    assert_ptr_equal(sched_pick(&rq[0], now), e);
    assert_int_equal(sched_stop(e), -E_AGAIN);
    assert_int_equal(sched_stop(e), -E_AGAIN);
    now += MS;
    assert_null(sched_pick(&rq[0], now));
    assert_int_equal(sched_state(e), SCHED_STOPPED);
    assert_true(sched_loaded(e));
    sched_release(e, now);
    assert_false(sched_loaded(e));
    assert_int_equal(sched_stop(e), 0);
    assert_int_equal(e->run_tsc, MS);
    assert_int_equal(sched_wake(e, now), SCHED_NO_KICK);
    assert_int_equal(sched_state(e), SCHED_STOPPED);

    sched_start(e, 0, now);
    sched_pick(&rq[0], now);
    sched_stop(e);
    assert_true(sched_block(e, now)); /* blocks where it should stop: stops */
    assert_int_equal(sched_state(e), SCHED_STOPPED);

    sched_start(e, 0, now);
    sched_pick(&rq[0], now);
    assert_true(sched_block(e, now));
    assert_int_equal(sched_stop(e), 0); /* BLOCKED */

    sched_start(e, 0, now);
    sched_pick(&rq[0], now);
    sched_wake(e, now); /* forgotten */
    sched_end(e, now);
    assert_int_equal(sched_state(e), SCHED_STOPPED);
    assert_null(sched_pick(&rq[0], now));
    sched_release(e, now);
    assert_int_equal(sched_state(e), SCHED_STOPPED);
    assert_int_equal(rq[0].nr, 0);
}

static void a_wake_up_while_running_is_kept(void **state)
{
    struct sched_entity *e = &tasks[0].e;

    (void)state;
    machine(1);
    sched_start(e, 0, now);
    sched_pick(&rq[0], now);
    assert_int_equal(sched_wake(e, now), 0);
    assert_false(sched_block(e, now));
    assert_int_equal(sched_state(e), SCHED_RUNNING);
    assert_true(sched_block(e, now));
    sched_wake(e, now);
    sched_pick(&rq[0], now);
    sched_wake(e, now);
    sched_prepare_block(e); /* what it was woken for is looked at after this */
    assert_true(sched_block(e, now));
}

static void handoff_and_back(void **state)
{
    struct sched_entity *dom0 = &tasks[0].e, *guest = &tasks[1].e;

    (void)state;
    machine(1);
    pin(&tasks[0], 0);
    sched_start(dom0, 0, now);
    assert_ptr_equal(sched_pick(&rq[0], now), dom0);
    for (int i = 0; i < 1000; i++) {
        now += 10 * US;
        assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), 0);
        assert_int_equal(rq[0].decided, i > 0); /* the first time, it had yet to arrive */
        assert_int_equal(sched_state(dom0), SCHED_BLOCKED);
        assert_ptr_equal(sched_pick(&rq[0], now), guest);
        assert_true(sched_next_event(&rq[0]) == SCHED_NEVER);
        check_queue(&rq[0]);
        now += 30 * US;
        if (i % 3 == 0)
            sched_wake(guest, now); /* forgotten when it stops */
        assert_int_equal(sched_handback(&rq[0], guest, dom0, now), SCHED_NO_KICK);
        assert_true(rq[0].decided);
        assert_int_equal(sched_state(guest), SCHED_STOPPED);
        assert_ptr_equal(sched_pick(&rq[0], now), dom0);
        sched_release(guest, now);
        check_queue(&rq[0]);
    }
    now += 10 * US;
    sched_end(dom0, now);
    assert_int_equal(dom0->run_tsc, 1001 * 10 * US);
    assert_int_equal(guest->run_tsc, 1000 * 30 * US);
}

static void handoff_respects_others(void **state)
{
    struct sched_entity *dom0 = &tasks[0].e, *guest = &tasks[1].e, *other = &tasks[2].e;

    (void)state;
    machine(1);
    sched_start(dom0, 0, now);
    sched_pick(&rq[0], now);
    sched_start(other, 0, now);
    sched_set_weight(guest, 1, now);
    now += MS;
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), 0);
    assert_false(rq[0].decided);
    assert_int_equal(rq[0].nr, 2);
    sched_pick(&rq[0], now);
    now += MS;
    sched_pick(&rq[0], now);
    now += MS;
    sched_pick(&rq[0], now);
    assert_true(other->run_tsc > 0);
    while (rq[0].curr != guest) {
        now += MS;
        sched_pick(&rq[0], now);
    }
    /* An interrupt for dom0 takes the processor from the guest. */
    now += 5 * MS;
    sched_stop(other);
    assert_int_equal(sched_wake(dom0, now), 0);
    assert_ptr_equal(sched_pick(&rq[0], now), dom0);
    /* The guest waits in the queue: dom0 may hand over to it again only by blocking. */
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), -E_BUSY);
    assert_true(sched_block(dom0, now));
    assert_ptr_equal(sched_pick(&rq[0], now), guest);
    sched_wake(dom0, now); /* the guest exits when dom0 waits already */
    assert_int_equal(sched_handback(&rq[0], guest, dom0, now), SCHED_NO_KICK);
    assert_ptr_equal(sched_pick(&rq[0], now), dom0);
}

static void handoff_can_be_refused(void **state)
{
    struct sched_entity *dom0 = &tasks[0].e, *guest = &tasks[1].e;

    (void)state;
    machine(2);
    pin(&tasks[0], 0);
    sched_start(dom0, 0, now);
    sched_pick(&rq[0], now);
    sched_wake(dom0, now);
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), -E_AGAIN);
    assert_int_equal(sched_state(dom0), SCHED_RUNNING);
    assert_int_equal(sched_state(guest), SCHED_STOPPED);
    pin(&tasks[1], 1);
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), -E_BUSY);
    assert_int_equal(sched_state(dom0), SCHED_RUNNING);
    /* It ran elsewhere: it comes, with its timer, when it's released there. */
    sched_start(guest, 1, now);
    assert_ptr_equal(sched_pick(&rq[1], now), guest);
    sched_timer_set(guest, now + MS);
    sched_set_affinity(guest, (u64[SCHED_CPU_WORDS]){3}, now);
    sched_stop(guest);
    assert_null(sched_pick(&rq[1], now));
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), -E_BUSY);
    sched_release(guest, now);
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), 0);
    assert_ptr_equal(sched_pick(&rq[0], now), guest);
    assert_true(sched_next_event(&rq[0]) == now + MS);
    /* dom0 is asked to stop: it does, instead of blocking. */
    sched_handback(&rq[0], guest, dom0, now);
    assert_ptr_equal(sched_pick(&rq[0], now), dom0);
    sched_stop(dom0);
    assert_int_equal(sched_handoff(&rq[0], dom0, guest, now), 0);
    assert_int_equal(sched_state(dom0), SCHED_STOPPED);
    assert_ptr_equal(sched_pick(&rq[0], now), guest);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

#define THREADS 2
#define SOULS   6

static u32 thread_kicks[THREADS];
static u32 finish;

/* What only the entity's processor touches, without any lock: release and pick must order it. */
static struct soul {
    u32 work; /* atomic: what others want it to do */
    u64 done;
    u32 owner;
} souls[SOULS];

static u64 host_ticks(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

static void thread_kick(int cpu)
{
    if (cpu >= 0)
        __atomic_store_n(&thread_kicks[cpu], 1, __ATOMIC_SEQ_CST);
}

static bool finished(void)
{
    return __atomic_load_n(&finish, __ATOMIC_SEQ_CST);
}

/* Runs the entity until it blocks, is kicked, or has run enough. */
static void live(u32 cpu, struct sched_entity *e)
{
    struct soul *s = &souls[task_of(e) - tasks];
    u32 nobody = 0;

    if (!__atomic_compare_exchange_n(&s->owner, &nobody, cpu + 1, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED))
        abort();
    for (int i = 0; i < 20; i++) {
        if (__atomic_exchange_n(&thread_kicks[cpu], 0, __ATOMIC_SEQ_CST))
            break;
        sched_prepare_block(e);
        if (__atomic_load_n(&s->work, __ATOMIC_SEQ_CST)) {
            __atomic_fetch_sub(&s->work, 1, __ATOMIC_SEQ_CST);
            s->done++;
        } else if (sched_block(e, host_ticks())) {
            break;
        }
    }
    __atomic_store_n(&s->owner, 0, __ATOMIC_RELAXED);
}

static void *processor(void *arg)
{
    u32 cpu = (u32)(uintptr_t)arg;
    struct sched_entity *prev = NULL, *due;

    while (!finished()) {
        struct sched_entity *e;

        while ((due = sched_timer_expired(&rq[cpu], host_ticks())))
            thread_kick(sched_wake(due, host_ticks()));
        e = sched_pick(&rq[cpu], host_ticks());
        thread_kick(rq[cpu].kick);
        if (prev && prev != e)
            thread_kick(sched_release(prev, host_ticks()));
        prev = e;
        if (e) {
            live(cpu, e);
            continue;
        }
        /* Idle until a kick or the next event, as the hypervisor. */
        while (!__atomic_exchange_n(&thread_kicks[cpu], 0, __ATOMIC_SEQ_CST) && !finished() &&
               host_ticks() < sched_next_event(&rq[cpu]))
            sched_yield();
    }
    if (prev)
        sched_release(prev, host_ticks());
    return NULL;
}

static void post(int i)
{
    __atomic_fetch_add(&souls[i].work, 1, __ATOMIC_SEQ_CST);
    thread_kick(sched_wake(&tasks[i].e, host_ticks()));
}

static bool all_work_done(u64 timeout_ms)
{
    u64 end = host_ticks() + timeout_ms * MS;

    for (int i = 0; i < SOULS; i++)
        while (__atomic_load_n(&souls[i].work, __ATOMIC_SEQ_CST)) {
            if (host_ticks() > end)
                return false;
            sched_yield();
        }
    return true;
}

static void start_threads(pthread_t threads[THREADS], u32 count)
{
    memset(souls, 0, sizeof(souls));
    memset(thread_kicks, 0, sizeof(thread_kicks));
    finish = 0;
    for (u32 i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, processor, (void *)(uintptr_t)i), 0);
}

static void end_threads(pthread_t threads[THREADS], u32 count)
{
    __atomic_store_n(&finish, 1, __ATOMIC_SEQ_CST);
    for (u32 i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* One entity that blocks whenever it can; a lost wake-up leaves work undone. */
static void no_wake_up_is_lost(void **state)
{
    pthread_t threads[THREADS];
    int rounds = 0;

    (void)state;
    machine(1);
    start_threads(threads, 1);
    thread_kick(sched_start(&tasks[0].e, 0, host_ticks()));
    for (u64 end = host_ticks() + 400 * MS; host_ticks() < end; rounds++) {
        post(0);
        if (rounds % 4 == 0)
            assert_true(all_work_done(10000));
    }
    assert_true(all_work_done(10000));
    end_threads(threads, 1);
    assert_int_equal(souls[0].done, rounds);
}

/* Random calls against two processors: nothing runs twice, no work stays undone, and all can be
 * stopped. */
static void random_op(u64 *seed, u64 posted[SOULS])
{
    u64 r = next_random(seed);
    int i = (int)((r >> 32) % SOULS);
    struct sched_entity *e = &tasks[i].e;

    switch (r % 16) {
    case 0:
        if (sched_stop(e) == -E_AGAIN)
            thread_kick((int)sched_cpu(e));
        break;
    case 1:
    case 2:
    case 3: {
        int ret = sched_start(e, (r >> 8) % THREADS, host_ticks());

        thread_kick(ret == -E_BUSY ? -1 : ret);
        break;
    }
    case 4:
        thread_kick(sched_set_affinity(e, (u64[SCHED_CPU_WORDS]){(r >> 8) % 3 + 1}, host_ticks()));
        break;
    case 5:
        thread_kick(sched_timer_set(e, host_ticks() + (r >> 8) % 64 * US));
        break;
    case 6:
        sched_set_weight(e, (r >> 8) % 4096 + 1, host_ticks());
        break;
    default:
        posted[i]++;
        post(i);
    }
}

static void stop_all(void)
{
    for (int i = 0; i < SOULS; i++) {
        thread_kick(sched_timer_set(&tasks[i].e, SCHED_NEVER));
        while (sched_stop(&tasks[i].e) || sched_loaded(&tasks[i].e)) {
            thread_kick((int)sched_cpu(&tasks[i].e));
            sched_yield();
        }
    }
}

static void a_storm_of_calls(void **state)
{
    pthread_t threads[THREADS];
    u64 posted[SOULS] = {0};
    u64 seed = 4711;

    (void)state;
    machine(THREADS);
    start_threads(threads, THREADS);
    for (u64 end = host_ticks() + 800 * MS; host_ticks() < end;)
        random_op(&seed, posted);
    for (int i = 0; i < SOULS; i++) { /* a stop that was asked for may come late: start again */
        while (__atomic_load_n(&souls[i].work, __ATOMIC_SEQ_CST)) {
            int ret = sched_start(&tasks[i].e, 0, host_ticks());

            thread_kick(ret == -E_BUSY ? -1 : ret);
            sched_yield();
        }
    }
    assert_true(all_work_done(10000));
    stop_all();
    end_threads(threads, THREADS);
    for (int i = 0; i < SOULS; i++)
        assert_int_equal(souls[i].done, posted[i]);
    for (u32 i = 0; i < THREADS; i++) {
        assert_int_equal(rq[i].nr, 0);
        assert_int_equal(rq[i].weight, 0);
        assert_null(heap_first(&rq[i].queue));
        assert_null(heap_first(&rq[i].timers));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(extreme_weights_get_their_share),
        cmocka_unit_test(a_new_weight_counts_from_now_on),
        cmocka_unit_test(nobody_starves_among_a_hundred),
        cmocka_unit_test(sleeping_does_not_pay),
        cmocka_unit_test(a_long_sleep_earns_the_boost_only),
        cmocka_unit_test(a_sleep_through_half_of_the_numbers_is_a_sleep),
        cmocka_unit_test(a_woken_one_preempts_when_far_behind),
        cmocka_unit_test(idle_processors_take_work),
        cmocka_unit_test(a_move_keeps_the_lag),
        cmocka_unit_test(pinned_ones_never_move),
        cmocka_unit_test(affinity_changes_in_every_state),
        cmocka_unit_test(wakes_an_idle_processor),
        cmocka_unit_test(what_is_loaded_stays_until_released),
        cmocka_unit_test(all_256_processors),
        cmocka_unit_test(no_tick_for_one),
        cmocka_unit_test(timers_come_in_order),
        cmocka_unit_test(a_timer_follows_its_entity),
        cmocka_unit_test(stops_in_every_state),
        cmocka_unit_test(a_wake_up_while_running_is_kept),
        cmocka_unit_test(handoff_and_back),
        cmocka_unit_test(handoff_respects_others),
        cmocka_unit_test(handoff_can_be_refused),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(a_storm_of_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
