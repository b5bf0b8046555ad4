/* SPDX-License-Identifier: BSD-2-Clause */
/* Events for dom0's kernel. */
#include "core/event.h"
#include "core/frame.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/vcpu.h"

#define EVENTS_SLOT SOCLE_MAX_VCPUS /* of the shared pages: behind those of the vCPUs */

static struct spinlock registering; /* tried, never waited for */
static struct spinlock lock;        /* while it is held, the page cannot go away */
static struct socle_events *events;
static u8 events_vector;

/* Dom0's vCPU on this processor, or any other whose local APIC is on: dom0 may have stopped using
 * one. */
static struct vcpu *receiver(void)
{
    struct vcpu *v = this_cpu()->dom0;

    if (v && vlapic_accepts(&v->lapic))
        return v;
    for (u32 i = 0; i < dom0.vcpu_count; i++)
        if (vlapic_accepts(&dom0.vcpus[i]->lapic))
            return dom0.vcpus[i];
    return NULL;
}

void event_raise(u32 port)
{
    struct socle_events *e;
    struct vcpu *v;
    u32 word = port / 64;
    u8 vector;

    if (port >= SOCLE_EVENT_PORTS)
        return;
    spin_lock(&lock);
    e = events;
    vector = events_vector;
    if (e) {
        __atomic_fetch_or(&e->pending[word], BIT(port % 64), __ATOMIC_SEQ_CST);
        __atomic_fetch_or(&e->summary[word / 64], BIT(word % 64), __ATOMIC_SEQ_CST);
    }
    spin_unlock(&lock);
    v = e ? receiver() : NULL;
    if (v)
        vcpu_post(v, vector, false);
}

static void replace(struct socle_events *e, u8 vector)
{
    spin_lock(&lock);
    events = e;
    events_vector = vector;
    spin_unlock(&lock);
}

int event_register(u64 gpa, u64 vector)
{
    int err = 0;

    if (gpa && ((gpa & ~PAGE_MASK) || vector < 32 || vector > 255))
        return -E_INVAL;
    if (!spin_trylock(&registering))
        return -E_BUSY;
    if (gpa) {
        err = events ? -E_BUSY : frame_check(gpa >> PAGE_SHIFT, 1, false);
        if (!err)
            replace(paging_map_shared(EVENTS_SLOT, gpa), (u8)vector);
    } else if (events) {
        replace(NULL, 0);
        paging_unmap_shared(EVENTS_SLOT);
    }
    spin_unlock(&registering);
    return err;
}
