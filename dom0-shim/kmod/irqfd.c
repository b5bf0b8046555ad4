// SPDX-License-Identifier: GPL-2.0
/* KVM_IRQFD: an eventfd whose signal raises an interrupt. The wake-up runs in atomic context, under the
 * eventfd's own lock, and injects at once. The entry goes when userspace deassigns it, when the eventfd's last
 * file is closed (EPOLLHUP), or with the VM; the wait queue can't be left in a wake-up, so a work item does it.
 *
 * An irqfd with resampling holds its line up until the guest ends the interrupt; then the line drops, and the second
 * eventfd asks whether it shall rise again. Locks: an eventfd's > vm->irqfd_lock > the chips'.
 */
#include "socle_kvm.h"

#include <linux/file.h>
#include <linux/poll.h>
#include <linux/workqueue.h>

struct irqfd {
	struct sk_vm *vm;
	struct eventfd_ctx *eventfd;
	struct eventfd_ctx *resample; /* or NULL */
	struct list_head resampler;   /* in vm->resamplers */
	u32 gsi;
	struct list_head list; /* under vm->irqfd_lock; empty: on its way out */
	wait_queue_entry_t wait;
	poll_table poll;
	struct work_struct release;
};

static struct workqueue_struct *release_queue;

static void inject(struct irqfd *irqfd)
{
	if (irqfd->resample)
		sk_irq_set(irqfd->vm, irqfd->gsi, SK_SOURCE_RESAMPLE, 1);
	else
		sk_irq_pulse(irqfd->vm, irqfd->gsi);
}

/* ---- resampling: one source holds a GSI's line for all its irqfds ------------------------------- */

static bool gsi_resamples(struct sk_vm *vm, u32 gsi)
{
	struct irqfd *irqfd;

	list_for_each_entry_rcu(irqfd, &vm->resamplers, resampler,
				lockdep_is_held(&vm->irqfd_lock))
		if (irqfd->gsi == gsi)
			return true;
	return false;
}

/* The line drops before anybody is told, so that it can rise at once. */
void sk_irqfd_ended(struct sk_vm *vm, u32 chip, u32 pin)
{
	struct irqfd *irqfd;
	int gsi;

	if (list_empty(&vm->resamplers))
		return;
	gsi = sk_irq_gsi_of(vm, chip, pin);
	rcu_read_lock();
	if (gsi < 0 || !gsi_resamples(vm, gsi))
		goto out;
	sk_irq_set(vm, gsi, SK_SOURCE_RESAMPLE, 0);
	list_for_each_entry_rcu(irqfd, &vm->resamplers, resampler)
		if (irqfd->gsi == gsi)
			eventfd_signal(irqfd->resample, 1);
out:
	rcu_read_unlock();
}

static void resampler_add(struct irqfd *irqfd)
{
	spin_lock_irq(&irqfd->vm->irqfd_lock);
	list_add_tail_rcu(&irqfd->resampler, &irqfd->vm->resamplers);
	spin_unlock_irq(&irqfd->vm->irqfd_lock);
}

static void resampler_remove(struct irqfd *irqfd)
{
	struct sk_vm *vm = irqfd->vm;

	spin_lock_irq(&vm->irqfd_lock);
	list_del_rcu(&irqfd->resampler);
	if (!gsi_resamples(vm, irqfd->gsi))
		sk_irq_set(vm, irqfd->gsi, SK_SOURCE_RESAMPLE, 0);
	spin_unlock_irq(&vm->irqfd_lock);
	synchronize_rcu();
	eventfd_ctx_put(irqfd->resample);
}

/* ---- life --------------------------------------------------------------------------------------- */

static void irqfd_release(struct work_struct *work)
{
	struct irqfd *irqfd = container_of(work, struct irqfd, release);
	u64 count;

	eventfd_ctx_remove_wait_queue(irqfd->eventfd, &irqfd->wait, &count);
	if (irqfd->resample)
		resampler_remove(irqfd);
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
		inject(irqfd);
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

	spin_lock_irq(&vm->irqfd_lock);
	busy = irqfd_find(vm, irqfd->eventfd);
	if (!busy)
		list_add_tail(&irqfd->list, &vm->irqfds);
	spin_unlock_irq(&vm->irqfd_lock);
	if (busy)
		return -EBUSY;
	if (irqfd->resample)
		resampler_add(irqfd);
	/* The file reference that the caller holds keeps EPOLLHUP, and so the release, away until here. Signals
	 * from before have left the count up.
	 */
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
		inject(irqfd);
	return 0;
}

static struct irqfd *irqfd_new(struct sk_vm *vm, u32 gsi)
{
	struct irqfd *irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);

	if (!irqfd)
		return NULL;
	irqfd->vm = vm;
	irqfd->gsi = gsi;
	INIT_LIST_HEAD(&irqfd->list);
	init_waitqueue_func_entry(&irqfd->wait, irqfd_wake);
	init_poll_funcptr(&irqfd->poll, irqfd_queue);
	INIT_WORK(&irqfd->release, irqfd_release);
	return irqfd;
}

static void irqfd_free(struct irqfd *irqfd)
{
	if (irqfd->resample)
		eventfd_ctx_put(irqfd->resample);
	if (irqfd->eventfd)
		eventfd_ctx_put(irqfd->eventfd);
	kfree(irqfd);
}

static int irqfd_open(struct irqfd *irqfd, const struct kvm_irqfd *args, struct file *file)
{
	struct eventfd_ctx *ctx = eventfd_ctx_fileget(file);

	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	irqfd->eventfd = ctx;
	if (!(args->flags & KVM_IRQFD_FLAG_RESAMPLE))
		return 0;
	ctx = eventfd_ctx_fdget(args->resamplefd);
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	irqfd->resample = ctx;
	return 0;
}

/* Only the in-kernel chips know of the end of an interrupt. */
static int irqfd_assign(struct sk_vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd *irqfd;
	struct fd f;
	int r;

	if (!vm->irqchip || (args->flags & KVM_IRQFD_FLAG_RESAMPLE && vm->split))
		return -EINVAL;
	irqfd = irqfd_new(vm, args->gsi);
	if (!irqfd)
		return -ENOMEM;
	f = fdget(args->fd);
	r = f.file ? irqfd_open(irqfd, args, f.file) : -EBADF;
	if (!r)
		r = irqfd_start(vm, irqfd, f.file);
	if (r)
		irqfd_free(irqfd);
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

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
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
