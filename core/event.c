/* SPDX-License-Identifier: BSD-2-Clause */
/* Events for dom0's kernel. */
#include "core/event.h"
#include "core/abi.h"
#include "core/frame.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/vcpu.h"

#define EVENTS_SLOT SOCLE_MAX_VCPUS /* of the shared pages: behind those of the vCPUs */

static struct spinlock registering; /* tried, never waited for */
static struct spinlock lock;
static struct socle_events *events;
static pfn_t events_pfn;
static u8 events_vector;

/* Under the lock, so that the page cannot go away meanwhile. */
static bool set_bits(u32 port)
{
    struct socle_events *e = events;
    u32 word = port / 64;

    if (!e)
        return false;
    __atomic_fetch_or(&e->pending[word], BIT(port % 64), __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&e->summary[word / 64], BIT(word % 64), __ATOMIC_SEQ_CST);
    return true;
}

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
    struct vcpu *v;
    bool set;

    if (port >= SOCLE_EVENT_PORTS)
        return;
    spin_lock(&lock);
    set = set_bits(port);
    spin_unlock(&lock);
    v = set ? receiver() : NULL;
    if (v)
        vcpu_post(v, events_vector, false);
}

static struct socle_events *replace(struct socle_events *e, pfn_t pfn, u8 vector)
{
    struct socle_events *old;

    spin_lock(&lock);
    old = events;
    events = e;
    events_pfn = pfn;
    events_vector = vector;
    spin_unlock(&lock);
    return old;
}

static void unregister(void)
{
    pfn_t pfn = events_pfn;

    if (!replace(NULL, 0, 0))
        return;
    paging_unmap_shared(EVENTS_SLOT);
    frame_unpin_shared(pfn);
}

static int register_page(u64 gpa, u8 vector)
{
    int err = events ? -E_BUSY : frame_pin_shared(gpa >> PAGE_SHIFT);

    if (!err)
        replace(paging_map_shared(EVENTS_SLOT, gpa), gpa >> PAGE_SHIFT, vector);
    return err;
}

int event_register(u64 gpa, u64 vector)
{
    int err = 0;

    if (gpa && ((gpa & ~PAGE_MASK) || vector < 32 || vector > 255))
        return -E_INVAL;
    if (!spin_trylock(&registering))
        return -E_BUSY;
    if (gpa)
        err = register_page(gpa, (u8)vector);
    else
        unregister();
    spin_unlock(&registering);
    return err;
}
