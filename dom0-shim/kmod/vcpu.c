// SPDX-License-Identifier: GPL-2.0
/* vCPU file descriptors and KVM_RUN. */
#include "socle_kvm.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/vmalloc.h>
#include <asm/pvclock.h>

/* ---- events: hard interrupt context ----------------------------------------------------------- */

static void deliver_eois(struct sk_vcpu *vcpu)
{
	unsigned int i, bit;

	for (i = 0; i < ARRAY_SIZE(vcpu->page->eoi); i++) {
		unsigned long bits;

		if (!READ_ONCE(vcpu->page->eoi[i]))
			continue;
		bits = xchg(&vcpu->page->eoi[i], 0);
		for_each_set_bit(bit, &bits, 64)
			sk_ioapic_eoi(vcpu->vm, i * 64 + bit);
	}
}

/* Ends RUN where it goes on with nothing to do there; enter() looks after it has told where it is. */
static void kick(struct sk_vcpu *vcpu)
{
	int cpu = READ_ONCE(vcpu->cpu);

	if (cpu >= 0 && cpu != smp_processor_id())
		smp_send_reschedule(cpu);
}

static void vcpu_event(struct sk_port *port)
{
	struct sk_vcpu *vcpu = container_of(port, struct sk_vcpu, port);

	if (!vcpu->vm->split)
		deliver_eois(vcpu);
	smp_store_mb(vcpu->event, 1);
	if (vcpu->vm->split)
		kick(vcpu);
	wake_up(&vcpu->wait);
}

/* ---- running ---------------------------------------------------------------------------------- */

/* Socle must not run the vCPU while nobody is in KVM_RUN: userspace may change its state then. */
static void stop(struct sk_vcpu *vcpu)
{
	while (hc1(SOCLE_HC_VCPU_STOP, vcpu->handle) == -EAGAIN)
		cond_resched();
}

/* With the IOAPIC in userspace, KVM_RUN ends for each of these. */
static bool eoi_waits(const struct sk_vcpu *vcpu)
{
	const u64 *eoi = vcpu->page->eoi;

	return vcpu->vm->split &&
	       READ_ONCE(eoi[0]) | READ_ONCE(eoi[1]) | READ_ONCE(eoi[2]) | READ_ONCE(eoi[3]);
}

static bool must_leave(const struct sk_vcpu *vcpu)
{
	return signal_pending(current) || eoi_waits(vcpu);
}

/* Whoever gives a reason to leave after the look sends an interrupt. -EBUSY: Socle was not called, and has not taken
 * an answer.
 */
static long enter(struct sk_vcpu *vcpu)
{
	long r = -EBUSY;

	raw_local_irq_disable();
	smp_store_mb(vcpu->cpu, raw_smp_processor_id());
	if (must_leave(vcpu))
		raw_local_irq_enable();
	else
		r = hc_run(vcpu->handle, 0);
	WRITE_ONCE(vcpu->cpu, -1);
	return r;
}

static int run_once(struct sk_vcpu *vcpu, u64 flags)
{
	long r = flags ? hc2(SOCLE_HC_VCPU_RUN, vcpu->handle, flags) : enter(vcpu);

	if (r >= 0) /* Socle has taken the answer */
		vcpu->completion = false;
	vcpu->exited = r == SOCLE_RAN_EXIT;
	return r;
}

static int interrupted(struct sk_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_INTR;
	return -EINTR;
}

/* The instruction of the last exit ends before userspace sees the vCPU again; this may be one more exit. Dom0's own
 * interrupts may cut a RUN short: then it is asked for again, but not forever.
 */
static int finish_exit(struct sk_vcpu *vcpu)
{
	bool pending = vcpu->completion;
	int tries = 16;
	int r;

	while (pending && tries--) {
		r = run_once(vcpu, SOCLE_RUN_COMPLETE_ONLY);
		if (r < 0 && r != -EBUSY)
			return r;
		if (r != SOCLE_RAN_EXIT)
			continue;
		r = sk_exit_handle(vcpu);
		if (r <= 0)
			return r;
		pending = vcpu->completion;
	}
	return 1;
}

static int take_eoi(struct sk_vcpu *vcpu)
{
	unsigned long *eoi = (unsigned long *)vcpu->page->eoi;
	unsigned int vector;

	for_each_set_bit(vector, eoi, 256)
		if (test_and_clear_bit(vector, eoi) && sk_irq_needs_eoi(vcpu->vm, vector))
			return vector;
	return -1;
}

/* 1: nothing for userspace */
static int eoi_to_user(struct sk_vcpu *vcpu)
{
	int vector = eoi_waits(vcpu) ? take_eoi(vcpu) : -1;

	if (vector < 0)
		return 1;
	vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	vcpu->run->eoi.vector = vector;
	return 0;
}

static int leave(struct sk_vcpu *vcpu)
{
	int r = finish_exit(vcpu);

	if (r <= 0)
		return r;
	return signal_pending(current) ? interrupted(vcpu) : eoi_to_user(vcpu);
}

/* The ends of interrupts from before the exit come first. */
static int handle_exit(struct sk_vcpu *vcpu)
{
	vcpu->unhandled = !eoi_to_user(vcpu);
	return vcpu->unhandled ? 0 : sk_exit_handle(vcpu);
}

static int ring_full(struct sk_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
	return 0;
}

/* Who changes the policy waits while `entering` is set: it is never seen too late. Nothing sleeps here. */
static int run_by_policy(struct sk_vcpu *vcpu)
{
	int r = 0;

	smp_store_mb(vcpu->entering, true);
	if (unlikely(vcpu->policy != atomic_read(&vcpu->vm->policy)))
		r = sk_policy_apply(vcpu);
	if (!r)
		r = run_once(vcpu, 0);
	smp_store_release(&vcpu->entering, false);
	return r;
}

static int run_loop(struct sk_vcpu *vcpu)
{
	bool kept = false;
	int r;

	for (;;) {
		if (must_leave(vcpu)) {
			r = leave(vcpu);
			if (r <= 0)
				return r;
		}
		if (sk_dirty_ring_full(vcpu)) {
			r = finish_exit(vcpu);
			return r > 0 ? ring_full(vcpu) : r;
		}
		sk_pv_steal(vcpu, kept);
		r = run_by_policy(vcpu);
		kept = r == SOCLE_RAN_INTERRUPTED;
		switch (r) {
		case SOCLE_RAN_EXIT:
			r = handle_exit(vcpu);
			if (r <= 0)
				return r;
			break;
		case SOCLE_RAN_INTERRUPTED:
			break;
		case SOCLE_RAN_BLOCKED:
			wait_event_interruptible(vcpu->wait, xchg(&vcpu->event, 0));
			break;
		case -EBUSY: /* another processor is just leaving it, or there is a reason not to enter */
			break;
		default:
			return r < 0 ? r : -EIO;
		}
		sk_pv_give_way(vcpu);
	}
}

/* The exit that userspace is about to see has been copied to kvm_run already; a port write has no more exits. */
static int finish_first(struct sk_vcpu *vcpu)
{
	int tries = 16;
	int r;

	vcpu->finish_now = false;
	do {
		r = run_once(vcpu, SOCLE_RUN_COMPLETE_ONLY);
	} while (r != SOCLE_RAN_EXIT && (r >= 0 || r == -EBUSY) && tries--);
	return min(r, 0);
}

/* Userspace's answer to the last exit, copied once; the sizes are our own. */
static void take_answer(struct sk_vcpu *vcpu)
{
	enum sk_answer answer = vcpu->answer;

	vcpu->answer = SK_ANSWER_NONE;
	if (answer == SK_ANSWER_PIO_IN)
		memcpy(vcpu->page->data, vcpu->pio, vcpu->answer_bytes);
	else if (answer == SK_ANSWER_MMIO_READ)
		memcpy(vcpu->page->data, vcpu->run->mmio.data, vcpu->answer_bytes);
	else if (answer != SK_ANSWER_NONE)
		vcpu->page->msr.error = !!READ_ONCE(vcpu->run->msr.error);
	if (answer == SK_ANSWER_MSR_READ)
		vcpu->page->msr.value = READ_ONCE(vcpu->run->msr.data);
}

/* With the PIC in userspace, kvm_run carries its wish for an interrupt window, and with the local APIC its TPR. */
static int without_pic(struct sk_vcpu *vcpu)
{
	u64 cr8 = READ_ONCE(vcpu->run->cr8);

	vcpu->page->irq_window = READ_ONCE(vcpu->run->request_interrupt_window);
	if (vcpu->vm->irqchip || cr8 == vcpu->cr8)
		return 0;
	return cr8 > 15 ? -EINVAL : sk_state_set_cr8(vcpu, cr8);
}

/* What KVM gives at every return, and QEMU takes over. */
static void give_state(struct sk_vcpu *vcpu)
{
	const struct socle_vcpu_page *page = vcpu->page;
	struct kvm_run *run = vcpu->run;
	bool can_interrupt = page->rflags & X86_EFLAGS_IF;

	vcpu->cr8 = page->cr8;
	run->if_flag = can_interrupt;
	run->cr8 = vcpu->cr8;
	run->apic_base = page->apic_base;
	run->flags = 0;
	run->ready_for_interrupt_injection = sk_has_pic(vcpu->vm) ||
					     (can_interrupt && page->extint_open);
}

/* A triple fault that userspace has left pending (KVM_VCPUEVENT_VALID_TRIPLE_FAULT) */
static int shut_down(struct sk_vcpu *vcpu)
{
	vcpu->triple_fault = false;
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

static int run_guest(struct sk_vcpu *vcpu)
{
	bool leave = READ_ONCE(vcpu->run->immediate_exit);
	int r;

	vcpu->has_run = true;
	vcpu->exited = false;
	take_answer(vcpu);
	if (!sk_has_pic(vcpu->vm)) {
		r = without_pic(vcpu);
		if (r)
			return r;
	}
	if (unlikely(vcpu->triple_fault) && !leave)
		return shut_down(vcpu);
	r = vcpu->unhandled ? handle_exit(vcpu) : 1;
	if (r > 0 && leave)
		r = finish_exit(vcpu);
	if (r > 0) /* immediate_exit leaves the last exit's reason as it is */
		r = leave ? -EINTR : run_loop(vcpu);
	if (!r && vcpu->finish_now)
		r = finish_first(vcpu);
	if (!vcpu->exited)
		stop(vcpu);
	if (sk_pml && vcpu->vm->dirty_ring_bytes)
		sk_memory_take_vcpu_log(vcpu);
	give_state(vcpu);
	return r;
}

/* kvm_run may also carry registers, each way. */
static int run(struct sk_vcpu *vcpu)
{
	u64 valid = READ_ONCE(vcpu->run->kvm_valid_regs);
	u64 dirty = READ_ONCE(vcpu->run->kvm_dirty_regs);
	int r = 0;

	if ((valid | dirty) & ~(u64)KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (unlikely(dirty))
		r = sk_state_sync_in(vcpu, dirty);
	if (!r)
		r = run_guest(vcpu);
	if (unlikely(valid))
		sk_state_sync_out(vcpu, valid);
	return r;
}

/* What is blocked but for the time of the RUN ends the RUN, and no more: real_blocked says so, as for sigtimedwait(). */
static int run_with_signals(struct sk_vcpu *vcpu)
{
	int r;

	if (!vcpu->sigset_active)
		return run(vcpu);
	sigprocmask(SIG_SETMASK, &vcpu->sigset, &current->real_blocked);
	r = run(vcpu);
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
	return r;
}

/* ---- ioctls ----------------------------------------------------------------------------------- */

static long set_signal_mask(struct sk_vcpu *vcpu, const struct kvm_signal_mask __user *user)
{
	struct kvm_signal_mask mask;
	sigset_t sigset;

	if (!user) {
		vcpu->sigset_active = false;
		return 0;
	}
	if (copy_from_user(&mask, user, sizeof(mask)))
		return -EFAULT;
	if (mask.len != sizeof(sigset))
		return -EINVAL;
	if (copy_from_user(&sigset, user->sigset, sizeof(sigset)))
		return -EFAULT;
	sigdelsetmask(&sigset, sigmask(SIGKILL) | sigmask(SIGSTOP));
	vcpu->sigset = sigset;
	vcpu->sigset_active = true;
	return 0;
}

static long queue_interrupt(struct sk_vcpu *vcpu, const struct kvm_interrupt __user *user)
{
	struct kvm_interrupt irq;

	if (copy_from_user(&irq, user, sizeof(irq)))
		return -EFAULT;
	if (irq.irq > 255)
		return -EINVAL;
	if (!vcpu->vm->irqchip)
		return sk_state_queue_interrupt(vcpu, irq.irq);
	if (!vcpu->vm->split)
		return -ENXIO;
	if (vcpu->page->extint_vector >= 0)
		return -EEXIST;
	vcpu->page->extint_vector = irq.irq;
	return 0;
}

static long set_vapic(struct sk_vcpu *vcpu, const struct kvm_vapic_addr __user *user)
{
	struct kvm_vapic_addr va;

	if (!vcpu->vm->irqchip)
		return -EINVAL;
	if (copy_from_user(&va, user, sizeof(va)))
		return -EFAULT;
	return va.vapic_addr ? -EINVAL : 0; /* no TPR page: guests' TPR accesses do not leave Socle */
}

static long set_mce(struct sk_vcpu *vcpu, unsigned int cmd, const void __user *user)
{
	struct kvm_x86_mce mce;
	u64 cap;

	if (cmd == KVM_X86_SETUP_MCE)
		return copy_from_user(&cap, user, sizeof(cap)) ? -EFAULT : sk_mce_setup(vcpu, cap);
	return copy_from_user(&mce, user, sizeof(mce)) ? -EFAULT : sk_mce_inject(vcpu, &mce);
}

static long enable_cap(struct sk_vcpu *vcpu, const struct kvm_enable_cap __user *user)
{
	struct kvm_enable_cap cap;

	if (copy_from_user(&cap, user, sizeof(cap)))
		return -EFAULT;
	if (cap.flags || cap.cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
		return -EINVAL;
	vcpu->enforce_pv = cap.args[0];
	vcpu->policy = -1;
	return 0;
}

/* The guest's clock is to tell it that it stood still: in its structure, where Socle leaves the flag as it is. */
static long clock_control(struct sk_vcpu *vcpu)
{
	struct socle_msr *msr = vcpu->buffer;
	u8 flags;
	u64 gpa;

	*msr = (struct socle_msr){ .index = MSR_KVM_SYSTEM_TIME_NEW };
	if (sk_state_get(vcpu, SOCLE_STATE_MSRS, sizeof(*msr)) != 1 ||
	    !(msr->value & KVM_MSR_ENABLED))
		return -EINVAL;
	gpa = (msr->value & ~(u64)KVM_MSR_ENABLED) +
	      offsetof(struct pvclock_vcpu_time_info, flags);
	if (sk_memory_access(vcpu, gpa, &flags, sizeof(flags), false))
		return 0; /* a clock at an address without memory */
	flags |= PVCLOCK_GUEST_STOPPED;
	sk_memory_access(vcpu, gpa, &flags, sizeof(flags), true);
	return 0;
}

static long vcpu_ioctl_locked(struct sk_vcpu *vcpu, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;

	switch (cmd) {
	case KVM_RUN:
		return arg ? -EINVAL : run_with_signals(vcpu);
	case KVM_SET_SIGNAL_MASK:
		return set_signal_mask(vcpu, argp);
	case KVM_INTERRUPT:
		return queue_interrupt(vcpu, argp);
	case KVM_NMI:
		return hc_signal(vcpu->handle, SOCLE_SIGNAL_NMI);
	case KVM_SET_VAPIC_ADDR:
		return set_vapic(vcpu, argp);
	case KVM_X86_SETUP_MCE:
	case KVM_X86_SET_MCE:
		return set_mce(vcpu, cmd, argp);
	case KVM_GET_TSC_KHZ:
		return vcpu->tsc_khz;
	case KVM_SET_TSC_KHZ:
		return sk_state_set_tsc_khz(vcpu, arg);
	case KVM_ENABLE_CAP:
		return enable_cap(vcpu, argp);
	case KVM_TRANSLATE:
		return sk_guest_ioctl_translate(vcpu, argp);
	case KVM_KVMCLOCK_CTRL:
		return clock_control(vcpu);
	case KVM_GET_STATS_FD:
		return sk_stats_vcpu_fd(vcpu);
	case KVM_GET_MSRS:
		return sk_msr_get(vcpu, argp);
	case KVM_SET_MSRS:
		return sk_msr_set(vcpu, argp);
	case KVM_SET_CPUID:
		return sk_cpuid_set_old(vcpu, argp);
	case KVM_SET_CPUID2:
		return sk_cpuid_set(vcpu, argp);
	case KVM_GET_CPUID2:
		return sk_cpuid_get(vcpu, argp);
	default:
		return sk_state_ioctl(vcpu, cmd, argp);
	}
}

static long vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct sk_vcpu *vcpu = file->private_data;
	long r;

	if (vcpu->vm->mm != current->mm)
		return -EIO;
	if (_IOC_TYPE(cmd) != KVMIO)
		return -EINVAL;
	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	r = vcpu_ioctl_locked(vcpu, cmd, arg);
	mutex_unlock(&vcpu->mutex);
	return r == -ENOTTY ? -EINVAL : r;
}

/* ---- mapping: kvm_run, port data, the coalesced ring ------------------------------------------ */

static vm_fault_t vcpu_fault(struct vm_fault *vmf)
{
	struct sk_vcpu *vcpu = vmf->vma->vm_file->private_data;
	struct page *page;

	switch (vmf->pgoff) {
	case 0:
		page = virt_to_page(vcpu->run);
		break;
	case KVM_PIO_PAGE_OFFSET:
		page = virt_to_page(vcpu->pio);
		break;
	case KVM_COALESCED_MMIO_PAGE_OFFSET:
		page = vcpu->vm->ring_page;
		break;
	default:
		if (!sk_dirty_ring_has(vcpu->vm, vmf->pgoff))
			return VM_FAULT_SIGBUS;
		page = sk_dirty_ring_page(vcpu, vmf->pgoff);
	}
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct vcpu_vm_ops = {
	.fault = vcpu_fault,
};

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct sk_vcpu *vcpu = file->private_data;
	bool ring = sk_dirty_ring_has(vcpu->vm, vma->vm_pgoff) ||
		    sk_dirty_ring_has(vcpu->vm, vma->vm_pgoff + vma_pages(vma) - 1);

	if (ring && (vma->vm_flags & (VM_SHARED | VM_EXEC)) != VM_SHARED)
		return -EINVAL;
	vma->vm_ops = &vcpu_vm_ops;
	return 0;
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	struct sk_vcpu *vcpu = file->private_data;

	if (vcpu) /* else it never came to be */
		sk_vm_put(vcpu->vm);
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.release = vcpu_release,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vcpu_mmap,
	.llseek = noop_llseek,
};

/* ---- creation --------------------------------------------------------------------------------- */

void sk_vcpu_free(struct sk_vcpu *vcpu)
{
	free_page((unsigned long)vcpu->run);
	free_page((unsigned long)vcpu->pio);
	free_page((unsigned long)vcpu->page);
	free_page((unsigned long)vcpu->buffer);
	vfree(vcpu->dirty_ring.gfns);
	kfree(vcpu->cpuid);
	kfree(vcpu);
}

static struct sk_vcpu *vcpu_new(struct sk_vm *vm, u32 id)
{
	struct sk_vcpu *vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL_ACCOUNT);

	if (!vcpu)
		return NULL;
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->run = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->pio = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->page = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->buffer = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vcpu->run || !vcpu->pio || !vcpu->page || !vcpu->buffer || sk_dirty_ring_new(vcpu)) {
		sk_vcpu_free(vcpu);
		return NULL;
	}
	mutex_init(&vcpu->mutex);
	init_waitqueue_head(&vcpu->wait);
	vcpu->port.notify = vcpu_event;
	vcpu->page->extint_vector = -1;
	vcpu->cpu = -1;
	vcpu->policy = -1;
	sk_msr_init(vcpu);
	return vcpu;
}

static int vcpu_check(struct sk_vm *vm, u32 id)
{
	u32 i;

	if (vm->max_vcpu_ids && id >= vm->max_vcpu_ids)
		return -EINVAL;
	if (vm->vcpu_count >= SK_MAX_VCPUS)
		return -EINVAL;
	for (i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpus[i]->id == id)
			return -EEXIST;
	return 0;
}

/* From here on the vCPU is part of its domain and lives as long. */
static int vcpu_join(struct sk_vm *vm, struct sk_vcpu *vcpu)
{
	bool boot = vcpu->id == vm->boot_cpu_id;
	long r = sk_port_add(&vcpu->port);

	if (r)
		return r;
	r = hc4(SOCLE_HC_VCPU_CREATE, vm->domain, vcpu->id, virt_to_phys(vcpu->page), vcpu->port.nr);
	if (r < 0) {
		sk_port_remove(&vcpu->port);
		synchronize_rcu();
		return r;
	}
	vcpu->handle = r;
	vm->vcpus[vm->vcpu_count++] = vcpu;
	r = sk_state_init(vcpu, boot);
	if (r < 0)
		pr_warn("domain %u: vCPU %u does not take its first state (error %ld)\n", vm->domain,
			vcpu->id, r);
	if (boot && sk_has_pic(vm)) {
		smp_store_release(&vm->boot_vcpu, vcpu);
		sk_pic_refresh(vm);
	}
	return 0;
}

static int vcpu_file(struct sk_vcpu *vcpu, struct file **file)
{
	char name[32];
	int fd = get_unused_fd_flags(O_CLOEXEC);

	if (fd < 0)
		return fd;
	snprintf(name, sizeof(name), "kvm-vcpu:%u", vcpu->id);
	*file = anon_inode_getfile(name, &vcpu_fops, vcpu, O_RDWR);
	if (IS_ERR(*file)) {
		put_unused_fd(fd);
		return PTR_ERR(*file);
	}
	return fd;
}

/* The file comes before the hypercall, which can't be undone. Its release drops a reference to the VM. */
static long vcpu_create(struct sk_vm *vm, u32 id)
{
	struct sk_vcpu *vcpu;
	struct file *file;
	int fd, r = vcpu_check(vm, id);

	if (r)
		return r;
	vcpu = vcpu_new(vm, id);
	if (!vcpu)
		return -ENOMEM;
	fd = vcpu_file(vcpu, &file);
	if (fd < 0) {
		sk_vcpu_free(vcpu);
		return fd;
	}
	sk_vm_get(vm);
	r = vcpu_join(vm, vcpu);
	if (r) {
		put_unused_fd(fd);
		file->private_data = NULL;
		fput(file);
		sk_vm_put(vm);
		sk_vcpu_free(vcpu);
		return r;
	}
	fd_install(fd, file);
	return fd;
}

long sk_vcpu_create(struct sk_vm *vm, u32 id)
{
	long r;

	if (id >= SK_MAX_VCPU_ID)
		return -EINVAL;
	mutex_lock(&vm->lock);
	r = vcpu_create(vm, id);
	mutex_unlock(&vm->lock);
	return r;
}
