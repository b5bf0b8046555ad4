// SPDX-License-Identifier: GPL-2.0
/* KVM_IOEVENTFD: a guest's write signals an eventfd. Socle matches it (a doorbell) and raises an event port,
 * and the guest goes on. Where Socle has no room for a doorbell, the write exits and is matched here.
 */
#include "socle_kvm.h"

#include <linux/rculist.h>

struct ioeventfd {
	struct sk_port port;
	struct rcu_head rcu;
	struct list_head list; /* under vm->ioeventfd_lock; read under RCU */
	struct eventfd_ctx *eventfd;
	u64 address;
	u64 datamatch;
	u32 length; /* 0: any */
	bool pio;
	bool match; /* only datamatch */
	bool soft;  /* not in Socle */
};

static void ioeventfd_notify(struct sk_port *port)
{
	eventfd_signal(container_of(port, struct ioeventfd, port)->eventfd, 1);
}

static void ioeventfd_free(struct rcu_head *rcu)
{
	struct ioeventfd *ioeventfd = container_of(rcu, struct ioeventfd, rcu);

	eventfd_ctx_put(ioeventfd->eventfd);
	kfree(ioeventfd);
}

static u64 doorbell(const struct ioeventfd *e)
{
	return SOCLE_DOORBELL(e->port.nr, e->length,
			      (e->pio ? SOCLE_DOORBELL_PIO : 0) | (e->match ? SOCLE_DOORBELL_MATCH : 0));
}

/* Two that would take the same write */
static bool clash(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->pio == b->pio && a->address == b->address &&
	       (!a->length || !b->length || a->length == b->length) &&
	       (!a->match || !b->match || a->datamatch == b->datamatch);
}

static bool same(const struct ioeventfd *a, const struct ioeventfd *b)
{
	return a->eventfd == b->eventfd && a->pio == b->pio && a->address == b->address &&
	       a->length == b->length && a->match == b->match &&
	       (!a->match || a->datamatch == b->datamatch);
}

static int start(struct sk_vm *vm, struct ioeventfd *e)
{
	long r = sk_port_add(&e->port);

	if (!r) {
		r = hc4(SOCLE_HC_DOORBELL_ADD, vm->domain, e->address, doorbell(e), e->datamatch);
		if (r < 0) {
			sk_port_remove(&e->port);
			synchronize_rcu();
		}
	}
	if (r == -ENOSPC || r == -ENOMEM) {
		e->soft = true;
		atomic_inc(&vm->soft_ioeventfds);
		r = 0;
	}
	if (!r)
		list_add_tail_rcu(&e->list, &vm->ioeventfds);
	return r;
}

/* Writes of before are delivered: sk_port_remove() looks for them after Socle has taken the doorbell away. */
static void stop(struct sk_vm *vm, struct ioeventfd *e)
{
	if (e->soft)
		atomic_dec(&vm->soft_ioeventfds);
	else
		hc4(SOCLE_HC_DOORBELL_REMOVE, vm->domain, e->address, doorbell(e), e->datamatch);
	sk_port_remove(&e->port);
	list_del_rcu(&e->list);
	call_rcu(&e->rcu, ioeventfd_free);
}

static int assign(struct sk_vm *vm, const struct ioeventfd *wanted)
{
	struct ioeventfd *e, *other;
	int r = 0;

	e = kmemdup(wanted, sizeof(*wanted), GFP_KERNEL_ACCOUNT);
	if (!e)
		return -ENOMEM;
	e->port.notify = ioeventfd_notify;
	mutex_lock(&vm->ioeventfd_lock);
	list_for_each_entry(other, &vm->ioeventfds, list)
		if (clash(other, e))
			r = -EEXIST;
	if (!r)
		r = start(vm, e);
	mutex_unlock(&vm->ioeventfd_lock);
	if (r)
		kfree(e);
	return r;
}

static int deassign(struct sk_vm *vm, const struct ioeventfd *wanted)
{
	struct ioeventfd *e, *next;
	int r = -ENOENT;

	mutex_lock(&vm->ioeventfd_lock);
	list_for_each_entry_safe(e, next, &vm->ioeventfds, list) {
		if (!same(e, wanted))
			continue;
		stop(vm, e);
		r = 0;
		break;
	}
	mutex_unlock(&vm->ioeventfd_lock);
	eventfd_ctx_put(wanted->eventfd);
	return r;
}

static bool length_is_valid(const struct kvm_ioeventfd *args)
{
	switch (args->len) {
	case 0: /* any length; then there is no data to match */
		return !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	case 1:
	case 2:
	case 4:
	case 8:
		return true;
	default:
		return false;
	}
}

int sk_ioeventfd(struct sk_vm *vm, const struct kvm_ioeventfd *args)
{
	const u32 known = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO |
			  KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct ioeventfd wanted = {
		.address = args->addr,
		.length = args->len,
		.pio = args->flags & KVM_IOEVENTFD_FLAG_PIO,
		.match = args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH,
	};
	int r;

	if (args->flags & ~known || !length_is_valid(args) || args->addr + args->len < args->addr)
		return -EINVAL;
	if (wanted.match)
		wanted.datamatch = args->datamatch;
	if (wanted.match && args->len < 8)
		wanted.datamatch &= (1ull << args->len * 8) - 1;
	wanted.eventfd = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(wanted.eventfd))
		return PTR_ERR(wanted.eventfd);
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return deassign(vm, &wanted);
	r = assign(vm, &wanted);
	if (r)
		eventfd_ctx_put(wanted.eventfd);
	return r;
}

bool sk_ioeventfd_write(struct sk_vm *vm, bool pio, u64 addr, u32 len, const void *data)
{
	struct ioeventfd *e;
	bool done = false;
	u64 value = 0;

	if (!atomic_read(&vm->soft_ioeventfds) || len > sizeof(value))
		return false;
	memcpy(&value, data, len);
	rcu_read_lock();
	list_for_each_entry_rcu(e, &vm->ioeventfds, list) {
		if (!e->soft || e->pio != pio || e->address != addr ||
		    (e->length && e->length != len) || (e->match && e->datamatch != value))
			continue;
		eventfd_signal(e->eventfd, 1);
		done = true;
		break;
	}
	rcu_read_unlock();
	return done;
}

void sk_ioeventfd_release_all(struct sk_vm *vm)
{
	struct ioeventfd *e, *next;

	mutex_lock(&vm->ioeventfd_lock);
	list_for_each_entry_safe(e, next, &vm->ioeventfds, list)
		stop(vm, e);
	mutex_unlock(&vm->ioeventfd_lock);
}
