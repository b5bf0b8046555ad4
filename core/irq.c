/* SPDX-License-Identifier: BSD-2-Clause */
/* Interrupts between processors, domains and devices. */
#include "core/irq.h"
#include "core/event.h"
#include "core/log.h"
#include "core/pcpu.h"
#include "core/vendor.h"
#include "drivers/apic.h"

bool irq_entries_are_timed;

static bool test_and_clear(u64 *map, u8 vector)
{
    bool was = map[vector / 64] >> (vector % 64) & 1;

    map[vector / 64] &= ~BIT(vector % 64);
    return was;
}

static int highest_bit(const u64 *map)
{
    for (int i = 3; i >= 0; i--)
        if (map[i])
            return i * 64 + 63 - __builtin_clzll(map[i]);
    return -1;
}

/* The local APIC ends the highest vector in service, whichever dom0 has in mind: so an end is
 * passed on when its vector is the highest of those held. */
static void end_level_interrupts(struct pcpu *cpu)
{
    int v;

    while ((v = highest_bit(cpu->level_held)) >= 0 && test_and_clear(cpu->level_done, (u8)v)) {
        test_and_clear(cpu->level_held, (u8)v);
        apic_eoi();
    }
}

/* A device's interrupt is dom0's, with its vector, on the vCPU of the same number. */
static void forward_to_dom0(struct pcpu *cpu, u8 vector)
{
    bool level = apic_is_level(vector);
    bool accepted = cpu->dom0 && vlapic_accepts(&cpu->dom0->lapic);

    /* Dom0 would end a PIC's interrupt at the PIC alone. LINT0's mask keeps them out, but not in
     * Bochs. */
    if (!apic_in_service(vector))
        return;
    if (accepted && level) {
        cpu->level_held[vector / 64] |= BIT(vector % 64);
        test_and_clear(cpu->level_done, vector); /* of an end that had no beginning here */
    } else {
        apic_eoi();
    }
    if (accepted)
        vcpu_post(cpu->dom0, vector, level);
}

void irq_physical(u8 vector)
{
    struct pcpu *cpu = this_cpu();

    switch (vector) {
    case APIC_VECTOR_TIMER:
    case APIC_VECTOR_KICK:
        apic_eoi();
        if (vector == APIC_VECTOR_TIMER)
            cpu->timer_deadline = ~0ull;
        if (cpu->current)
            vcpu_set_pending(cpu->current, PENDING_RESCHED);
        break;
    case APIC_VECTOR_STOP:
        cpu_halt_forever();
    case APIC_VECTOR_SPURIOUS:
        break;
    case APIC_VECTOR_ERROR:
        apic_eoi();
        log_limited("local APIC error on processor %u", cpu->id);
        break;
    default:
        forward_to_dom0(cpu, vector);
    }
    pcpu_flush_host_pending();
}

static bool addressed(const struct vcpu *v, const struct vcpu *from, const struct apic_msg *msg)
{
    if (msg->shorthand == APIC_TO_DEST)
        return vlapic_match(&v->lapic, msg->dest, msg->logical);
    return msg->shorthand == APIC_TO_ALL || (msg->shorthand == APIC_TO_SELF) == (v == from);
}

/* One vCPU takes the message: true, or false where its local APIC refuses. */
static bool deliver_to(struct vcpu *v, const struct apic_msg *msg)
{
    switch (msg->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!vlapic_accepts(&v->lapic))
            return false;
        vcpu_post(v, msg->vector, msg->level);
        return true;
    case APIC_NMI:
        __atomic_store_n(&v->nmi_pending, true, __ATOMIC_RELEASE);
        break;
    case APIC_INIT:
        v->sipi_pending = false;
        __atomic_store_n(&v->init_pending, true, __ATOMIC_RELEASE);
        break;
    case APIC_SIPI:
        v->sipi_vector = msg->vector;
        __atomic_store_n(&v->sipi_pending, true, __ATOMIC_RELEASE);
        break;
    case APIC_REMOTE:
        __atomic_store_n(&v->kicked, true, __ATOMIC_RELEASE);
        break;
    default:
        return false;
    }
    vcpu_notify(v);
    return true;
}

s64 irq_deliver_set(struct domain *d, const u64 bits[2], u32 first, const struct apic_msg *msg)
{
    u32 n = __atomic_load_n(&d->vcpu_count, __ATOMIC_ACQUIRE);
    s64 taken = 0;

    for (u32 i = 0; i < n; i++) {
        u32 at = d->vcpus[i]->apic_id - first;

        if (at < 128 && (bits[at / 64] >> at % 64 & 1))
            taken += deliver_to(d->vcpus[i], msg);
    }
    return taken;
}

/* Below the 8-bit broadcast: one vCPU at most has that id. */
static bool is_to_one(const struct apic_msg *msg)
{
    return msg->shorthand == APIC_TO_DEST && !msg->logical && msg->dest < 0xff;
}

/* Lowest priority: the vCPUs take turns, as the vector says; exact arbitration is nobody's need.
 * Ids are mostly in the order of creation. */
int irq_deliver(struct domain *d, struct vcpu *from, const struct apic_msg *msg)
{
    u32 n = __atomic_load_n(&d->vcpu_count, __ATOMIC_ACQUIRE);
    u32 first = is_to_one(msg) ? msg->dest : msg->vector;
    int limit = is_to_one(msg) || msg->mode == APIC_LOWEST ? 1 : (int)n;
    int taken = 0;

    for (u32 i = 0; i < n && taken < limit; i++) {
        struct vcpu *v = d->vcpus[(first + i) % n];

        if (addressed(v, from, msg))
            taken += deliver_to(v, msg);
    }
    return taken;
}

/* The end of a level-triggered interrupt: the IOAPIC is dom0's hardware, or emulated in dom0. */
static void level_ended(struct vcpu *v, u8 vector)
{
    struct pcpu *cpu = this_cpu();

    if (domain_has(v->domain, DOMAIN_DEVICES)) {
        cpu->level_done[vector / 64] |= BIT(vector % 64);
        end_level_interrupts(cpu);
    } else if (v->page) {
        __atomic_fetch_or(&v->page->eoi[vector / 64], BIT(vector % 64), __ATOMIC_RELEASE);
        event_raise(v->port);
    }
}

void vcpu_apply_effect(struct vcpu *v, const struct vlapic_effect *e)
{
    struct apic_msg msg;

    if ((e->flags & VLAPIC_IPI) && apic_msg_from_icr(e->icr, true, &msg) == 0) {
        v->count[SOCLE_STAT_IPI]++;
        irq_deliver(v->domain, v, &msg);
    }
    if (e->flags & VLAPIC_EOI)
        level_ended(v, e->eoi_vector);
    if (e->flags & VLAPIC_MODE)
        vcpu_apic_changed(v);
    else if (e->flags & VLAPIC_TIMER)
        vcpu_timer_changed(v);
    if ((e->flags & VLAPIC_DEST) && domain_has(v->domain, DOMAIN_DEVICES))
        apic_set_logical(v->lapic.reg[VLAPIC_REG_LDR].value, v->lapic.reg[VLAPIC_REG_DFR].value);
}

void irq_arm_timer(void)
{
    struct pcpu *cpu = this_cpu();
    u64 next = sched_next_event(&cpu->rq);

    if (next != cpu->timer_deadline) {
        cpu->timer_deadline = next;
        if (!irq_entries_are_timed)
            apic_timer_set(next);
    }
}

/* What is due already does not wait for the physical timer. */
void vcpu_timer_changed(struct vcpu *v)
{
    int kick;

    if (vlapic_timer_fire(&v->lapic, rdtsc()))
        v->count[SOCLE_STAT_TIMER]++;
    kick = sched_timer_set(&v->se, v->lapic.timer_deadline);
    if (kick == (int)this_cpu()->id)
        irq_arm_timer();
    else
        pcpu_kick(kick);
}

void vcpu_apic_changed(struct vcpu *v)
{
    if (vendor->update_apic)
        vendor->update_apic(v);
    vcpu_timer_changed(v);
}
