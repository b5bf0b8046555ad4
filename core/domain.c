/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains: table, creation, parameters and their end; and the flush that taking memory back needs.
 */
#include "core/domain.h"
#include "core/doorbell.h"
#include "core/lib.h"
#include "core/machine.h"
#include "core/pcpu.h"
#include "core/pvclock.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

#define DESTROY_VCPUS 16 /* of one piece */
/* Interrupts and QEMU's answers come from dom0: when it has work, a guest that computes waits. */
#define DOM0_WEIGHT     8192
#define LAST_FREE_SHARE 8 /* one domain may take all but an eighth of the heap */

struct domain dom0;
static struct domain *domains[SOCLE_MAX_DOMAINS];
static struct spinlock table_lock;
u64 pcpu_epoch;

_Static_assert(sizeof(struct domain) <= PAGE_SIZE, "a domain is one page");

static int init_domain(struct domain *d, u32 flags, bool lends)
{
    d->flags = flags;
    d->weight = SCHED_WEIGHT_DEFAULT;
    d->vcpus = pool_alloc(&d->charge);
    if (!d->vcpus)
        return -E_NOMEM;
    return npt_init(&d->npt, vendor->npt_format, &d->charge, lends);
}

int domain_init_dom0(void)
{
    int err;

    dom0.charge.limit = ~0ull;
    memcpy(dom0.name, "dom0", sizeof("dom0"));
    domains[0] = &dom0;
    err = init_domain(&dom0, DOMAIN_DEVICES | DOMAIN_HYPERCALLS | DOMAIN_LAPIC, false);
    dom0.weight = DOM0_WEIGHT;
    return err;
}

static int publish(struct domain *d)
{
    spin_lock(&table_lock);
    for (d->id = 1; d->id < SOCLE_MAX_DOMAINS && domains[d->id]; d->id++)
        ;
    if (d->id < SOCLE_MAX_DOMAINS)
        domains[d->id] = d;
    spin_unlock(&table_lock);
    return d->id < SOCLE_MAX_DOMAINS ? (int)d->id : -E_NOSPC;
}

static void free_domain(struct domain *d)
{
    pool_free(d->vcpus, &d->charge);
    pool_free(d, NULL);
}

int domain_create(void)
{
    struct domain *d = pool_alloc(NULL);
    int id;

    if (!d)
        return -E_NOMEM;
    d->charge.limit = pool_total_pages() - pool_total_pages() / LAST_FREE_SHARE;
    d->clock_offset_ns = -(s64)tsc_uptime_ns();
    id = init_domain(d, 0, true);
    if (id == 0) {
        id = publish(d);
        if (id > 0)
            return id;
        while (npt_destroy_piece(&d->npt) == -E_AGAIN)
            ;
    }
    free_domain(d);
    return id;
}

/* Counted before the look: either this sees that d is dying, or the destroyer sees the reference.
 */
bool domain_get_of(struct domain *d)
{
    __atomic_fetch_add(&d->refs, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&d->dying, __ATOMIC_SEQ_CST))
        return true;
    domain_put(d);
    return false;
}

struct domain *domain_get(u64 id)
{
    struct domain *d = NULL;

    if (id >= SOCLE_MAX_DOMAINS)
        return NULL;
    spin_lock(&table_lock);
    if (domains[id] && domain_get_of(domains[id]))
        d = domains[id];
    spin_unlock(&table_lock);
    return d;
}

void domain_put(struct domain *d)
{
    __atomic_fetch_sub(&d->refs, 1, __ATOMIC_ACQ_REL);
}

struct domain *domain_next(u64 id)
{
    struct domain *d = NULL;

    for (; id < SOCLE_MAX_DOMAINS && !d; id++)
        d = domain_get(id);
    return d;
}

struct domain *domain_after(struct domain *d)
{
    u32 id = d->id;

    domain_put(d);
    return domain_next(id + 1);
}

/* ---- the end of a domain ---- */

/* The domain, with its destroy lock: one destroyer at a time. It stays in the table until that one
 * has taken it out, so the lock is tried while it is certain to be there. */
static int begin_destroy(u64 id, struct domain **out)
{
    int err = -E_NOENT;

    spin_lock(&table_lock);
    if (id && id < SOCLE_MAX_DOMAINS && domains[id]) {
        *out = domains[id];
        __atomic_store_n(&domains[id]->dying, true, __ATOMIC_SEQ_CST);
        err = spin_trylock(&domains[id]->destroy_lock) ? 0 : -E_AGAIN;
    }
    spin_unlock(&table_lock);
    return err;
}

static bool all_stopped(struct domain *d)
{
    bool stopped = true;

    for (u32 i = 0; i < d->vcpu_count; i++)
        if (vcpu_stop(d->vcpus[i]) || sched_loaded(&d->vcpus[i]->se))
            stopped = false;
    return stopped;
}

/* Whether no processor can still have a pointer to one of d's vCPUs from before they stopped: the
 * scheduler and the timers keep one for a few steps. The laggards are kicked. */
static bool all_quiet(struct domain *d)
{
    bool quiet = true;

    if (!d->epoch) {
        for (u32 i = 0; i < d->vcpu_count; i++)
            sched_timer_set(&d->vcpus[i]->se, SCHED_NEVER);
        d->epoch = __atomic_add_fetch(&pcpu_epoch, 1, __ATOMIC_SEQ_CST);
    }
    for (u32 i = 0; i < pcpu_count; i++) {
        if (pcpus[i] == this_cpu() ||
            __atomic_load_n(&pcpus[i]->epoch, __ATOMIC_ACQUIRE) >= d->epoch)
            continue;
        pcpu_kick((int)i);
        quiet = false;
    }
    return quiet;
}

static int destroy_vcpus(struct domain *d)
{
    /* Without a reference nobody can start a vCPU any more: so it is looked for first. */
    bool used = __atomic_load_n(&d->refs, __ATOMIC_SEQ_CST);

    if (!all_stopped(d) || used || (d->vcpu_count && !all_quiet(d)))
        return -E_AGAIN;
    for (u32 i = 0; d->vcpu_count; i++) {
        if (i == DESTROY_VCPUS)
            return -E_AGAIN;
        vcpu_destroy(d->vcpus[--d->vcpu_count]);
    }
    return 0;
}

int domain_destroy(u64 id)
{
    struct domain *d = NULL;
    int err = begin_destroy(id, &d);

    if (err)
        return err;
    err = destroy_vcpus(d);
    if (!err) {
        doorbell_free_all(d);
        err = npt_destroy_piece(&d->npt);
    }
    if (err) {
        spin_unlock(&d->destroy_lock);
        return err;
    }
    spin_lock(&table_lock);
    domains[id] = NULL;
    spin_unlock(&table_lock);
    free_domain(d);
    return 0;
}

/* ---- parameters ---- */

static int set_affinity(struct domain *d, u64 mask)
{
    if (pcpu_count < 64 && mask && !(mask & (BIT(pcpu_count) - 1)))
        return -E_INVAL;
    d->affinity = mask;
    for (u32 i = 0; i < d->vcpu_count; i++)
        vcpu_follow_affinity(d->vcpus[i]);
    return 0;
}

static int set_weight(struct domain *d, u64 weight)
{
    if (weight < SCHED_WEIGHT_MIN || weight > SCHED_WEIGHT_MAX)
        return -E_INVAL;
    d->weight = (u32)weight;
    for (u32 i = 0; i < d->vcpu_count; i++)
        sched_set_weight(&d->vcpus[i]->se, d->weight, rdtsc());
    return 0;
}

static int set_lapic(struct domain *d, u64 on)
{
    if (on > 1)
        return -E_INVAL;
    if (d->vcpu_count)
        return -E_BUSY;
    d->flags = on ? d->flags | DOMAIN_LAPIC : d->flags & ~(u32)DOMAIN_LAPIC;
    return 0;
}

static int set_clock(struct domain *d, u64 offset)
{
    d->clock_offset_ns = (s64)offset;
    for (u32 i = 0; i < d->vcpu_count; i++)
        pvclock_changed(d->vcpus[i]);
    return 0;
}

/* Names end up in logs and on terminals: printable characters only. */
static int set_name(struct domain *d, u32 offset, u64 text)
{
    char part[8];

    memcpy(part, &text, 8);
    for (u32 i = 0; i < 8; i++)
        d->name[offset + i] = part[i] >= ' ' && part[i] <= '~' ? part[i] : '\0';
    return 0;
}

static int set_locked(struct domain *d, u64 param, u64 value)
{
    switch (param) {
    case SOCLE_PARAM_WEIGHT:
        return set_weight(d, value);
    case SOCLE_PARAM_AFFINITY:
        return set_affinity(d, value);
    case SOCLE_PARAM_LAPIC:
        return set_lapic(d, value);
    case SOCLE_PARAM_CLOCK:
        return set_clock(d, value);
    case SOCLE_PARAM_NAME_LO:
        return set_name(d, 0, value);
    case SOCLE_PARAM_NAME_HI:
        return set_name(d, 8, value);
    default:
        return -E_INVAL;
    }
}

/* Under the lock, so that a vCPU that is just being made follows either the old value or the new
 * one. */
int domain_set(struct domain *d, u64 param, u64 value)
{
    int err;

    /* Dom0's vCPUs are bound to their processors, and it has its APIC from the start. */
    if (d == &dom0 && param != SOCLE_PARAM_WEIGHT)
        return -E_INVAL;
    spin_lock(&d->lock);
    err = set_locked(d, param, value);
    spin_unlock(&d->lock);
    return err;
}

static u32 describe_state(const struct domain *d)
{
    u32 state = 0;

    if (d->dying)
        return 3;
    for (u32 i = 0; i < d->vcpu_count; i++) {
        u32 s = sched_state(&d->vcpus[i]->se);

        state = MAX(state, MIN(s, (u32)SCHED_RUNNABLE));
    }
    return state;
}

void domain_describe(struct domain *d, struct socle_domain_info *out)
{
    memset(out, 0, sizeof(*out));
    out->id = d->id;
    out->vcpus = d->vcpu_count;
    memcpy(out->name, d->name, sizeof(out->name));
    out->mapped_pages = d->npt.mapped_pages;
    if (d == &dom0) /* its identity map has devices and holes too */
        out->mapped_pages = (machine_ram_bytes - image_bytes()) / PAGE_SIZE - pool_total_pages();
    out->pool_pages = d->charge.pages;
    out->weight = d->weight;
    out->state = describe_state(d);
    for (u32 i = 0; i < d->vcpu_count; i++) {
        out->cpu_ns += tsc_to_ns(d->vcpus[i]->se.run_tsc);
        if (i < ARRAY_SIZE(out->vcpu_handle))
            out->vcpu_handle[i] = d->vcpus[i]->handle;
    }
}

/* ---- flush ---- */

/* A processor that runs this domain leaves it, or enters it again and then sees the new generation:
 * either way it has dropped what was cleared before, and its lookups are over. It waits for nothing
 * of ours meanwhile, so the wait is short. */
static void wait_for_processor(struct pcpu *cpu, const struct domain *d)
{
    u64 entries = __atomic_load_n(&cpu->entries, __ATOMIC_ACQUIRE);

    if (__atomic_load_n(&cpu->active, __ATOMIC_ACQUIRE) != d)
        return;
    pcpu_kick((int)cpu->id);
    while (__atomic_load_n(&cpu->active, __ATOMIC_ACQUIRE) == d &&
           __atomic_load_n(&cpu->entries, __ATOMIC_ACQUIRE) == entries)
        cpu_relax();
}

void npt_flush(struct npt *npt)
{
    struct domain *d = container_of(npt, struct domain, npt);

    __atomic_fetch_add(&d->tlb_generation, 1, __ATOMIC_SEQ_CST);
    for (u32 i = 0; i < pcpu_count; i++)
        if (pcpus[i] != this_cpu())
            wait_for_processor(pcpus[i], d);
}
