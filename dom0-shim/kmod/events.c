// SPDX-License-Identifier: GPL-2.0
/* The events page: Socle sets a bit per port and injects one vector into dom0; here ports are handed out
 * and their handlers called, in hard interrupt context.
 */
#include "socle_kvm.h"

#include <linux/bitmap.h>
#include <linux/vmalloc.h>
#include <asm/irq.h>
#include <asm/irq_vectors.h>

static struct socle_events *events;
static struct sk_port __rcu **ports;
static unsigned long *used;
static DEFINE_SPINLOCK(ports_lock);

static void dispatch(u32 nr)
{
	struct sk_port *port;

	rcu_read_lock();
	port = rcu_dereference(ports[nr]);
	if (port)
		port->notify(port);
	rcu_read_unlock();
}

static void scan_word(u32 word)
{
	unsigned long bits = xchg(&events->pending[word], 0);
	unsigned int bit;

	for_each_set_bit(bit, &bits, 64)
		dispatch(word * 64 + bit);
}

/* Summary first: a bit that Socle sets meanwhile is then seen by this scan or the next one. */
static void scan(void)
{
	unsigned int i, bit;

	for (i = 0; i < ARRAY_SIZE(events->summary); i++) {
		unsigned long bits;

		if (!READ_ONCE(events->summary[i]))
			continue;
		bits = xchg(&events->summary[i], 0);
		for_each_set_bit(bit, &bits, 64)
			if (i * 64 + bit < SOCLE_EVENT_WORDS)
				scan_word(i * 64 + bit);
	}
}

int sk_port_add(struct sk_port *port)
{
	unsigned long flags;
	u32 nr;

	spin_lock_irqsave(&ports_lock, flags);
	nr = find_first_zero_bit(used, SOCLE_EVENT_PORTS);
	if (nr < SOCLE_EVENT_PORTS) {
		__set_bit(nr, used);
		port->nr = nr;
		rcu_assign_pointer(ports[nr], port);
	}
	spin_unlock_irqrestore(&ports_lock, flags);
	return nr < SOCLE_EVENT_PORTS ? 0 : -ENOSPC;
}

void sk_port_remove(struct sk_port *port)
{
	unsigned long flags;

	if (!port->nr)
		return;
	local_irq_save(flags);
	scan();
	spin_lock(&ports_lock);
	RCU_INIT_POINTER(ports[port->nr], NULL);
	__clear_bit(port->nr, used);
	spin_unlock(&ports_lock);
	local_irq_restore(flags);
	port->nr = 0;
}

static void free_all(void)
{
	bitmap_free(used);
	vfree(ports);
	free_page((unsigned long)events);
}

/* The vector is the one that Linux keeps for KVM's posted interrupt wake-ups: the only vector of its own
 * that a module can have.
 */
int sk_events_init(void)
{
	long r;

	BUILD_BUG_ON(sizeof(struct socle_events) != PAGE_SIZE);
	BUILD_BUG_ON(sizeof(struct socle_vcpu_page) != PAGE_SIZE);
	events = (void *)get_zeroed_page(GFP_KERNEL);
	ports = vzalloc(sizeof(*ports) * SOCLE_EVENT_PORTS);
	used = bitmap_zalloc(SOCLE_EVENT_PORTS, GFP_KERNEL);
	if (!events || !ports || !used) {
		free_all();
		return -ENOMEM;
	}
	__set_bit(0, used); /* no port has number 0 */
	kvm_set_posted_intr_wakeup_handler(scan);
	r = hc2(SOCLE_HC_EVENTS, virt_to_phys(events), POSTED_INTR_WAKEUP_VECTOR);
	if (r < 0) {
		pr_err("Socle refused the events page (error %ld)\n", r);
		kvm_set_posted_intr_wakeup_handler(NULL);
		free_all();
		return r;
	}
	return 0;
}

void sk_events_exit(void)
{
	hc2(SOCLE_HC_EVENTS, 0, 0);
	kvm_set_posted_intr_wakeup_handler(NULL); /* waits for running handlers */
	free_all();
}
