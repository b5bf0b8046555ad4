/* SPDX-License-Identifier: BSD-2-Clause */
/* Events for dom0's kernel. */
#include "core/event.h"
#include "core/abi.h"
#include "core/errno.h"
#include "core/frame.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/vcpu.h"

#define EVENTS_SLOT SOCLE_MAX_VCPUS /* of the shared pages: behind those of the vCPUs */

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

void event_raise(u32 port)
{
    bool set;

    if (port >= SOCLE_EVENT_PORTS)
        return;
    spin_lock(&lock);
    set = set_bits(port);
    spin_unlock(&lock);
    if (set && this_cpu()->dom0)
        vcpu_post(this_cpu()->dom0, events_vector, false);
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

int event_register(u64 gpa, u64 vector)
{
    int err;

    if (!gpa) {
        unregister();
        return 0;
    }
    if ((gpa & ~PAGE_MASK) || vector < 32 || vector > 255)
        return -E_INVAL;
    if (events)
        return -E_BUSY;
    err = frame_pin_shared(gpa >> PAGE_SHIFT);
    if (err)
        return err;
    replace(paging_map_shared(EVENTS_SLOT, gpa), gpa >> PAGE_SHIFT, (u8)vector);
    return 0;
}
