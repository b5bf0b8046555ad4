// SPDX-License-Identifier: GPL-2.0
/* KVM_IRQFD: an eventfd whose signal raises an interrupt. The wake-up runs in atomic context, under the
 * eventfd's own lock, and injects at once. The entry goes when userspace deassigns it, when the eventfd's last
 * file is closed (EPOLLHUP), or with the VM; the wait queue can't be left in a wake-up, so a work item does it.
 */
#include "socle_kvm.h"

#include <linux/file.h>
#include <linux/poll.h>
#include <linux/workqueue.h>

struct irqfd {
	struct sk_vm *vm;
	struct eventfd_ctx *eventfd;
	u32 gsi;
	struct list_head list; /* under vm->irqfd_lock; empty: on its way out */
	wait_queue_entry_t wait;
	poll_table poll;
	struct work_struct release;
};

static struct workqueue_struct *release_queue;

static void irqfd_release(struct work_struct *work)
{
	struct irqfd *irqfd = container_of(work, struct irqfd, release);
	u64 count;

	eventfd_ctx_remove_wait_queue(irqfd->eventfd, &irqfd->wait, &count);
	eventfd_ctx_put(irqfd->eventfd);
	kfree(irqfd);
}

/* Under vm->irqfd_lock; does its work once. */
static void irqfd_retire(struct irqfd *irqfd)
{
	if (list_empty(&irqfd->list))
		return;
	list_del_init(&irqfd->list);
	queue_work(release_queue, &irqfd->release);
}

static int irqfd_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct irqfd *irqfd = container_of(wait, struct irqfd, wait);
	__poll_t events = key_to_poll(key);
	unsigned long flags;
	int taken = 0;
	u64 count;

	if (events & EPOLLIN) {
		eventfd_ctx_do_read(irqfd->eventfd, &count);
		sk_irq_pulse(irqfd->vm, irqfd->gsi);
		taken = 1;
	}
	if (events & EPOLLHUP) {
		spin_lock_irqsave(&irqfd->vm->irqfd_lock, flags);
		irqfd_retire(irqfd);
		spin_unlock_irqrestore(&irqfd->vm->irqfd_lock, flags);
	}
	return taken;
}

static void irqfd_queue(struct file *file, wait_queue_head_t *head, poll_table *poll)
{
	struct irqfd *irqfd = container_of(poll, struct irqfd, poll);

	add_wait_queue_priority(head, &irqfd->wait);
}

static bool irqfd_find(struct sk_vm *vm, struct eventfd_ctx *eventfd)
{
	struct irqfd *irqfd;

	list_for_each_entry(irqfd, &vm->irqfds, list)
		if (irqfd->eventfd == eventfd)
			return true;
	return false;
}

static int irqfd_start(struct sk_vm *vm, struct irqfd *irqfd, struct file *file)
{
	bool busy;

	init_waitqueue_func_entry(&irqfd->wait, irqfd_wake);
	init_poll_funcptr(&irqfd->poll, irqfd_queue);
	INIT_WORK(&irqfd->release, irqfd_release);
	spin_lock_irq(&vm->irqfd_lock);
	busy = irqfd_find(vm, irqfd->eventfd);
	if (!busy)
		list_add_tail(&irqfd->list, &vm->irqfds);
	spin_unlock_irq(&vm->irqfd_lock);
	if (busy)
		return -EBUSY;
	/* The file reference that the caller holds keeps EPOLLHUP, and so the release, away until here. Signals
	 * from before have left the count up.
	 */
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
		sk_irq_pulse(vm, irqfd->gsi);
	return 0;
}

static int irqfd_assign(struct sk_vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd *irqfd;
	struct fd f;
	int r;

	irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);
	if (!irqfd)
		return -ENOMEM;
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;
	INIT_LIST_HEAD(&irqfd->list);
	f = fdget(args->fd);
	if (!f.file) {
		kfree(irqfd);
		return -EBADF;
	}
	irqfd->eventfd = eventfd_ctx_fileget(f.file);
	if (IS_ERR(irqfd->eventfd)) {
		r = PTR_ERR(irqfd->eventfd);
		kfree(irqfd);
		goto out;
	}
	r = irqfd_start(vm, irqfd, f.file);
	if (r) {
		eventfd_ctx_put(irqfd->eventfd);
		kfree(irqfd);
	}
out:
	fdput(f);
	return r;
}

static int irqfd_deassign(struct sk_vm *vm, const struct kvm_irqfd *args)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fdget(args->fd);
	struct irqfd *irqfd, *next;

	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	spin_lock_irq(&vm->irqfd_lock);
	list_for_each_entry_safe(irqfd, next, &vm->irqfds, list)
		if (irqfd->eventfd == eventfd && irqfd->gsi == args->gsi)
			irqfd_retire(irqfd);
	spin_unlock_irq(&vm->irqfd_lock);
	eventfd_ctx_put(eventfd);
	flush_workqueue(release_queue);
	return 0;
}

int sk_irqfd(struct sk_vm *vm, const struct kvm_irqfd *args)
{
	int r;

	if (args->flags & ~KVM_IRQFD_FLAG_DEASSIGN || args->gsi >= SK_MAX_GSI)
		return -EINVAL;
	if (!READ_ONCE(vm->irqchip))
		return -EAGAIN;
	/* an entry may only be retired when it is in its eventfd's wait queue */
	mutex_lock(&vm->lock);
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		r = irqfd_deassign(vm, args);
	else
		r = irqfd_assign(vm, args);
	mutex_unlock(&vm->lock);
	return r;
}

void sk_irqfd_release_all(struct sk_vm *vm)
{
	struct irqfd *irqfd, *next;

	spin_lock_irq(&vm->irqfd_lock);
	list_for_each_entry_safe(irqfd, next, &vm->irqfds, list)
		irqfd_retire(irqfd);
	spin_unlock_irq(&vm->irqfd_lock);
	flush_workqueue(release_queue);
}

int sk_irqfd_init(void)
{
	release_queue = alloc_workqueue("socle-irqfd", 0, 0);
	return release_queue ? 0 : -ENOMEM;
}

void sk_irqfd_exit(void)
{
	destroy_workqueue(release_queue);
}
