/* SPDX-License-Identifier: BSD-2-Clause */
/* The hypercalls of dom0's kernel, and what a guest's hypercall gets. */
#include "core/exits.h"
#include "core/doorbell.h"
#include "core/event.h"
#include "core/frame.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/state.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

struct args {
    u64 a, b, c, d, e;
};

/* ---- copies ---- */

/* A whole page of dom0's RAM. */
static int check_page(u64 gpa)
{
    if (gpa & ~PAGE_MASK)
        return -E_INVAL;
    return frame_check(gpa >> PAGE_SHIFT, 1, false);
}

static int copy_out(u64 gpa, const void *data, size_t len)
{
    int err = check_page(gpa);

    if (!err)
        phys_write(gpa, data, len);
    return err;
}

/* ---- information ---- */

static s64 call_info(const struct args *x)
{
    struct socle_info *info = memset(this_cpu()->buffer, 0, PAGE_SIZE);

    info->abi_version = SOCLE_ABI_VERSION;
    info->cpus = pcpu_count;
    fmt_print(info->version, sizeof(info->version), "%s", SOCLE_VERSION);
    build_id_text(info->build_id, sizeof(info->build_id));
    fmt_print(info->vendor, sizeof(info->vendor), "%s", vendor->name);
    vendor->features(info->features, sizeof(info->features));
    info->tsc_khz = tsc_khz;
    info->tsc_scaling = tsc_scaling;
    info->tsc_boot = tsc_boot;
    info->ram_bytes = machine_ram_bytes;
    info->image_bytes = image_bytes();
    info->pool_bytes = pool_total_pages() * PAGE_SIZE;
    info->pool_free_bytes = pool_free_pages() * PAGE_SIZE;
    info->uptime_ns = tsc_uptime_ns();
    info->frames_lent = frame_lent_pages();
    for (struct domain *d = domain_next(0); d; d = domain_after(d)) {
        info->domains++;
        info->vcpus += d->vcpu_count;
    }
    return copy_out(x->a, info, sizeof(*info));
}

static s64 call_log_read(const struct args *x)
{
    struct socle_log_chunk *chunk = memset(this_cpu()->buffer, 0, PAGE_SIZE);
    u64 position = x->a;

    chunk->bytes = (u32)log_read(&position, chunk->text, sizeof(chunk->text));
    chunk->next = position;
    return copy_out(x->b, chunk, sizeof(*chunk));
}

static s64 call_domain_next(const struct args *x)
{
    struct socle_domain_info *info = this_cpu()->buffer;
    struct domain *d = domain_next(x->a);

    if (!d)
        return -E_NOENT;
    domain_describe(d, info);
    domain_put(d);
    return copy_out(x->b, info, sizeof(*info));
}

static s64 stats_of(struct vcpu *v, u64 gpa)
{
    struct socle_vcpu_stats *s = memset(this_cpu()->buffer, 0, PAGE_SIZE);
    u32 state = sched_state(&v->se);

    s->domain = v->domain->id;
    s->apic_id = v->apic_id;
    s->cpu = sched_cpu(&v->se);
    s->state = MIN(state, SCHED_RUNNABLE);
    s->cpu_ns = tsc_to_ns(v->se.run_tsc);
    memcpy(s->count, v->count, sizeof(s->count));
    return copy_out(gpa, s, sizeof(*s));
}

/* ---- memory ---- */

/* The table functions do a piece at a time; this many, and then dom0's interrupts get their turn. A
 * call that is repeated passes over what is done already, 4,096 leaves a piece: more than PROTECT's
 * longest extent has. */
#define PIECES 72

static s64 map_extent(struct domain *d, u64 gfn, u64 mfn, u64 pages, u64 flags)
{
    u64 done, total = 0;
    int err = 0;

    if ((flags & ~(u64)(SOCLE_MAP_WRITE | SOCLE_MAP_EXEC | SOCLE_MAP_ROM | SOCLE_MAP_MMIO)) ||
        pages > SOCLE_MAP_MAX_PAGES)
        return -E_INVAL;
    /* So that large leaves serve: few entries are written, whatever its size. */
    if (pages > 512 && !(flags & SOCLE_MAP_MMIO) && ((gfn ^ mfn) & 511))
        return -E_INVAL;
    /* All of it before the first piece: a foreign frame at the end must not leave the rest mapped.
     */
    if (!(flags & SOCLE_MAP_MMIO))
        err = frame_check(mfn, pages, false);
    if (err)
        return err;
    do {
        err = npt_map(&d->npt, gfn + total, mfn + total, pages - total, (u32)flags, &done);
        total += done;
    } while (err == -E_AGAIN);
    if (err && total)
        npt_unmap(&d->npt, gfn, total, &done);
    return err;
}

typedef int (*take_fn)(struct npt *, u64, u64, u64 *);

/* Piece by piece; a repeated call skips what is done already, so dom0 repeats it unchanged. */
static s64 take_extent(struct domain *d, take_fn take, u64 gfn, u64 pages)
{
    u64 done, total = 0;
    int err = -E_AGAIN;

    if (take == npt_protect && pages > SOCLE_MAP_MAX_PAGES)
        return -E_INVAL;
    for (int i = 0; i < PIECES && err == -E_AGAIN; i++) {
        err = take(&d->npt, gfn + total, pages - total, &done);
        total += done;
    }
    return err;
}

static u32 take_log(u64 *log, u64 *gfns, u32 n)
{
    for (u32 i = 0; log && i < SOCLE_DIRTY_MAX && n < SOCLE_DIRTY_MAX; i++) {
        u64 gpa = __atomic_load_n(&log[i], __ATOMIC_RELAXED);

        if (gpa != DIRTY_NONE)
            gpa = __atomic_exchange_n(&log[i], DIRTY_NONE, __ATOMIC_RELAXED);
        if (gpa != DIRTY_NONE)
            gfns[n++] = gpa >> PAGE_SHIFT;
    }
    return n;
}

/* The flush makes the processors leave the guest, with all that they have logged. One vCPU's (0:
 * all) is taken when that is stopped. */
static s64 take_logs(struct domain *d, u64 gpa, u64 handle)
{
    u32 vcpus = __atomic_load_n(&d->vcpu_count, __ATOMIC_ACQUIRE), n = 0;
    u64 *gfns = this_cpu()->buffer;
    int err = check_page(gpa);

    if (err || !d->npt.logged)
        return err;
    if (!handle)
        npt_flush(&d->npt);
    for (u32 i = 0; i < vcpus; i++) {
        if (!handle || d->vcpus[i]->handle == handle)
            n = take_log(d->vcpus[i]->dirty_log, gfns, n);
    }
    phys_write(gpa, gfns, n * sizeof(*gfns));
    return n;
}

/* ---- vCPUs ---- */

/* With v's state lock. If d is to wait for v, waiting_on is set, and the lock is kept until v runs:
 * the second half is put_handoff() in vcpu.c. */
static s64 start_vcpu(struct vcpu *d, struct vcpu *v, u64 flags)
{
    if (sched_state(&v->se) == SCHED_BLOCKED)
        return SOCLE_RAN_BLOCKED;
    if (__atomic_load_n(&v->exit_ready, __ATOMIC_SEQ_CST)) {
        if (!vcpu_settled(v))
            return SOCLE_RAN_INTERRUPTED; /* almost there */
        v->exit_ready = false;
        return SOCLE_RAN_EXIT;
    }
    if (v->waiter)
        return -E_BUSY;
    if (vcpu_settled(v)) {
        v->complete_only = flags & SOCLE_RUN_COMPLETE_ONLY;
        if (v->complete_only && v->io.kind == IO_NONE)
            return SOCLE_RAN_INTERRUPTED;
        vcpu_take_answer(v);
    }
    d->waiting_on = v;
    return SOCLE_RAN_EXIT;
}

static enum vcpu_action call_run(struct vcpu *d, const struct args *x, s64 *result)
{
    struct vcpu *v = vcpu_get(x->a);

    *result = -E_NOENT;
    if (!v)
        return VCPU_RESUME;
    *result = -E_INVAL;
    if (v->page && !(x->b & ~(u64)SOCLE_RUN_COMPLETE_ONLY)) {
        *result = -E_BUSY;
        if (spin_trylock(&v->state_lock)) {
            *result = start_vcpu(d, v, x->b);
            if (d->waiting_on)
                return VCPU_HANDOFF; /* the reference lasts until the wait ends */
            spin_unlock(&v->state_lock);
        }
    }
    domain_put(v->domain);
    return VCPU_RESUME;
}

/* GET copies in as well: MSRS names in the buffer what it wants. */
static s64 copy_state(struct vcpu *v, const struct args *x, bool set)
{
    void *buffer = memset(this_cpu()->buffer, 0, PAGE_SIZE);
    int n = x->d > PAGE_SIZE ? -E_INVAL : check_page(x->c);

    if (n)
        return n;
    phys_read(buffer, x->c, x->d);
    n = state_access(v, x->b, buffer, (u32)x->d, set);
    return n >= 0 && !set && copy_out(x->c, buffer, x->d) ? -E_PERM : n;
}

/* With the state lock, so that no RUN comes between. */
static s64 get_or_set_state(struct vcpu *v, const struct args *x, bool set)
{
    s64 result;

    if (!spin_trylock(&v->state_lock))
        return -E_BUSY;
    result = vcpu_settled(v) ? copy_state(v, x, set) : -E_BUSY;
    spin_unlock(&v->state_lock);
    return result;
}

static s64 signal_vcpu(struct vcpu *v, u64 what)
{
    bool *const signals[] = {[SOCLE_SIGNAL_NMI] = &v->nmi_pending,
                             [SOCLE_SIGNAL_EXTINT] = &v->extint_pending,
                             [SOCLE_SIGNAL_EXTINT_OFF] = &v->extint_pending,
                             [SOCLE_SIGNAL_INIT] = &v->init_pending};

    if (!what || what >= ARRAY_SIZE(signals))
        return -E_INVAL;
    __atomic_store_n(signals[what], what != SOCLE_SIGNAL_EXTINT_OFF, __ATOMIC_RELEASE);
    if (what != SOCLE_SIGNAL_EXTINT_OFF)
        vcpu_notify(v);
    return 0;
}

static s64 vcpu_call(u64 nr, const struct args *x)
{
    struct vcpu *v = vcpu_get(x->a);
    s64 result = -E_INVAL;

    if (!v)
        return -E_NOENT;
    if (nr == SOCLE_HC_VCPU_STATS)
        result = stats_of(v, x->b);
    else if (!v->page)
        result = -E_INVAL; /* dom0 has its own vCPUs in hand already */
    else if (nr == SOCLE_HC_VCPU_STOP)
        result = vcpu_stop(v);
    else if (nr == SOCLE_HC_VCPU_GET || nr == SOCLE_HC_VCPU_SET)
        result = get_or_set_state(v, x, nr == SOCLE_HC_VCPU_SET);
    else if (nr == SOCLE_HC_VCPU_SIGNAL)
        result = signal_vcpu(v, x->b);
    domain_put(v->domain);
    return result;
}

/* ---- domains ---- */

static s64 create_vcpu(struct domain *d, const struct args *x)
{
    int err = check_page(x->c);

    if (x->b > 0xffffffff || !x->c || x->d >= SOCLE_EVENT_PORTS)
        return -E_INVAL;
    return err ? err : vcpu_create(d, (u32)x->b, x->c, (u32)x->d);
}

static s64 send_msi(struct domain *d, u64 address, u64 data)
{
    struct apic_msg msg;

    if (data > 0xffffffff || apic_msg_from_msi(address, (u32)data, &msg))
        return -E_INVAL;
    return irq_deliver(d, NULL, &msg);
}

static s64 call_on_domain(u64 nr, struct domain *d, const struct args *x)
{
    switch (nr) {
    case SOCLE_HC_DOMAIN_SET:
        return domain_set(d, x->b, x->c);
    case SOCLE_HC_MAP:
        return map_extent(d, x->b, x->c, x->d, x->e);
    case SOCLE_HC_UNMAP:
        return take_extent(d, npt_unmap, x->b, x->c);
    case SOCLE_HC_PROTECT:
        return take_extent(d, npt_protect, x->b, x->c);
    case SOCLE_HC_VCPU_CREATE:
        return create_vcpu(d, x);
    case SOCLE_HC_MSI:
        return send_msi(d, x->b, x->c);
    case SOCLE_HC_DOORBELL_ADD:
        return doorbell_add(d, x->b, x->c, x->d);
    case SOCLE_HC_DIRTY_LOG:
        return take_logs(d, x->b, x->c);
    default:
        return doorbell_remove(d, x->b, x->c, x->d);
    }
}

static s64 domain_call(u64 nr, const struct args *x)
{
    /* Of dom0 only parameters can be set. */
    struct domain *d = x->a || nr == SOCLE_HC_DOMAIN_SET ? domain_get(x->a) : NULL;
    s64 result;

    if (!d)
        return -E_NOENT;
    result = call_on_domain(nr, d, x);
    domain_put(d);
    return result;
}

static s64 call(u64 nr, const struct args *x)
{
    switch (nr) {
    case SOCLE_HC_INFO:
        return call_info(x);
    case SOCLE_HC_LOG_READ:
        return call_log_read(x);
    case SOCLE_HC_EVENTS:
        return event_register(x->a, x->b);
    case SOCLE_HC_DOMAIN_CREATE:
        return domain_create();
    case SOCLE_HC_DOMAIN_DESTROY:
        return domain_destroy(x->a);
    case SOCLE_HC_DOMAIN_NEXT:
        return call_domain_next(x);
    case SOCLE_HC_VCPU_STOP ... SOCLE_HC_VCPU_STATS:
        return vcpu_call(nr, x);
    case SOCLE_HC_DOMAIN_SET:
    case SOCLE_HC_MAP ... SOCLE_HC_VCPU_CREATE:
    case SOCLE_HC_MSI ... SOCLE_HC_DIRTY_LOG:
        return domain_call(nr, x);
    default:
        return -E_NOSYS;
    }
}

enum vcpu_action hypercall(struct vcpu *d, s64 *result)
{
    struct args x = {d->gpr[RDI], d->gpr[RSI], d->gpr[RDX], d->gpr[R10], d->gpr[R8]};

    if (d->gpr[RAX] == SOCLE_HC_VCPU_RUN)
        return call_run(d, &x, result);
    *result = call(d->gpr[RAX], &x);
    return VCPU_RESUME;
}

enum vcpu_action exit_hypercall(struct vcpu *v, u8 cpl, bool long_mode)
{
    enum vcpu_action action = VCPU_RESUME;
    s64 result = -KVM_ENOSYS;

    v->count[SOCLE_STAT_HYPERCALL]++;
    if (cpl != 0)
        result = -KVM_EPERM;
    else if (domain_has(v->domain, DOMAIN_HYPERCALLS) && long_mode &&
             (u32)v->gpr[RAX] >= SOCLE_HC_BASE)
        action = hypercall(v, &result);
    else if ((u32)v->gpr[RAX] < KVM_CALLS)
        result = exit_kvm_call(v, long_mode);
    if (action != VCPU_RESUME)
        return action;
    v->gpr[RAX] = long_mode ? (u64)result : (u32)result;
    return vcpu_skip(v);
}
