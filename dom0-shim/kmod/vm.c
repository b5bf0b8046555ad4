// SPDX-License-Identifier: GPL-2.0
/* VM file descriptors: a VM is a domain of Socle, with the parts of the PC that KVM keeps in the kernel. Its files
 * (the VM's and each vCPU's) hold references; the domain goes with the last one.
 */
#include "socle_kvm.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/timekeeping.h>

#include <asm/pvclock-abi.h>

#define MIN_MMU_PAGES 64 /* KVM's */

/* ---- creation and end ------------------------------------------------------------------------- */

static void domain_destroy(u32 domain)
{
	long r;

	while ((r = hc1(SOCLE_HC_DOMAIN_DESTROY, domain)) == -EAGAIN)
		cond_resched();
	if (r)
		pr_err("domain %u did not go (error %ld)\n", domain, r);
}

/* The name in Socle's lists and log: the program's and its process id */
static void domain_name(u32 domain)
{
	char name[17] = {};
	u64 half[2];

	snprintf(name, sizeof(name), "%.8s-%d", current->comm, task_tgid_nr(current));
	memcpy(half, name, sizeof(half));
	hc3(SOCLE_HC_DOMAIN_SET, domain, SOCLE_PARAM_NAME_LO, half[0]);
	hc3(SOCLE_HC_DOMAIN_SET, domain, SOCLE_PARAM_NAME_HI, half[1]);
}

/* With vm->lock, or before anybody else has the VM. Both clocks run by the TSC: they differ by a constant. */
static long clock_set(struct sk_vm *vm, u64 ns)
{
	vm->clock_offset = ns - sk_socle_clock(rdtsc_ordered());
	return hc3(SOCLE_HC_DOMAIN_SET, vm->domain, SOCLE_PARAM_CLOCK, vm->clock_offset);
}

static int domain_create(struct sk_vm *vm)
{
	long r = hc1(SOCLE_HC_DOMAIN_CREATE, 0);

	if (r < 0) {
		pr_warn_ratelimited("Socle gives no new domain (error %ld)\n", r);
		return r;
	}
	vm->domain = r;
	domain_name(vm->domain);
	clock_set(vm, 0);
	return 0;
}

static void vm_init_parts(struct sk_vm *vm)
{
	refcount_set(&vm->users, 1);
	vm->creator = task_pid_nr(current);
	vm->tsc_khz = sk_tsc_khz;
	mutex_init(&vm->lock);
	mutex_init(&vm->ioeventfd_lock);
	INIT_LIST_HEAD(&vm->ioeventfds);
	sk_pic_init(vm);
	sk_ioapic_init(vm);
}

static struct sk_vm *vm_new(void)
{
	struct sk_vm *vm = kvzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	int r;

	if (!vm)
		return ERR_PTR(-ENOMEM);
	vm_init_parts(vm);
	r = sk_coalesced_init(vm);
	if (r)
		goto no_ring;
	r = sk_irq_init(vm);
	if (r)
		goto no_routes;
	r = domain_create(vm);
	if (r)
		goto no_domain;
	r = sk_memory_init(vm);
	if (r)
		goto no_memory;
	return vm;

no_memory:
	domain_destroy(vm->domain);
no_domain:
	sk_irq_destroy(vm);
no_routes:
	sk_coalesced_destroy(vm);
no_ring:
	kvfree(vm);
	return ERR_PTR(r);
}

void sk_vm_get(struct sk_vm *vm)
{
	refcount_inc(&vm->users);
}

/* No thread is in any of the VM's ioctls, so all vCPUs are stopped. What could still call in (eventfds, the timer,
 * event ports) goes first, then the memory, the domain, and last the pages that Socle shared.
 */
static void vm_destroy(struct sk_vm *vm)
{
	u32 i;

	sk_irqfd_release_all(vm);
	sk_ioeventfd_release_all(vm);
	sk_pit_destroy(vm);
	for (i = 0; i < vm->vcpu_count; i++)
		sk_port_remove(&vm->vcpus[i]->port);
	synchronize_rcu();
	sk_memory_destroy(vm);
	domain_destroy(vm->domain);
	for (i = 0; i < vm->vcpu_count; i++)
		sk_vcpu_free(vm->vcpus[i]);
	sk_coalesced_destroy(vm);
	sk_irq_destroy(vm);
	sk_policy_destroy(vm);
	kvfree(vm);
}

void sk_vm_put(struct sk_vm *vm)
{
	if (refcount_dec_and_test(&vm->users))
		vm_destroy(vm);
}

/* ---- irqchip ---------------------------------------------------------------------------------- */

static int create_irqchip(struct sk_vm *vm)
{
	long r;

	if (vm->irqchip)
		return -EEXIST;
	if (vm->vcpu_count)
		return -EINVAL;
	r = hc3(SOCLE_HC_DOMAIN_SET, vm->domain, SOCLE_PARAM_LAPIC, 1);
	if (r)
		return r;
	smp_store_release(&vm->irqchip, true);
	return 0;
}

static int irqchip_get(struct sk_vm *vm, struct kvm_irqchip *chip)
{
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		sk_pic_get(vm, chip->chip_id, &chip->chip.pic);
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		sk_ioapic_get(vm, &chip->chip.ioapic);
		return 0;
	default:
		return -EINVAL;
	}
}

static int irqchip_set(struct sk_vm *vm, const struct kvm_irqchip *chip)
{
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		sk_pic_set(vm, chip->chip_id, &chip->chip.pic);
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		sk_ioapic_set(vm, &chip->chip.ioapic);
		return 0;
	default:
		return -EINVAL;
	}
}

static long ioctl_irqchip(struct sk_vm *vm, unsigned int cmd, struct kvm_irqchip __user *user)
{
	struct kvm_irqchip *chip;
	long r = -ENXIO;

	chip = memdup_user(user, sizeof(*chip));
	if (IS_ERR(chip))
		return PTR_ERR(chip);
	if (!sk_has_pic(vm))
		goto out;
	r = cmd == KVM_GET_IRQCHIP ? irqchip_get(vm, chip) : irqchip_set(vm, chip);
	if (!r && cmd == KVM_GET_IRQCHIP && copy_to_user(user, chip, sizeof(*chip)))
		r = -EFAULT;
out:
	kfree(chip);
	return r;
}

static long ioctl_irq_line(struct sk_vm *vm, unsigned int cmd, struct kvm_irq_level __user *user)
{
	struct kvm_irq_level level;

	if (copy_from_user(&level, user, sizeof(level)))
		return -EFAULT;
	if (!READ_ONCE(vm->irqchip))
		return -ENXIO;
	level.status = sk_irq_set(vm, level.irq, SK_SOURCE_USER, level.level != 0);
	if (cmd == KVM_IRQ_LINE_STATUS && copy_to_user(user, &level, sizeof(level)))
		return -EFAULT;
	return 0;
}

static long create_pit(struct sk_vm *vm, u32 flags)
{
	long r;

	mutex_lock(&vm->lock);
	if (vm->pit)
		r = -EEXIST;
	else if (!sk_has_pic(vm))
		r = -ENOENT;
	else
		r = sk_pit_create(vm, flags);
	mutex_unlock(&vm->lock);
	return r;
}

static long ioctl_create_pit(struct sk_vm *vm, const struct kvm_pit_config __user *user)
{
	struct kvm_pit_config config;

	return copy_from_user(&config, user, sizeof(config)) ? -EFAULT : create_pit(vm, config.flags);
}

/* KVM_GET_PIT and KVM_SET_PIT: the channels alone */
static long ioctl_old_pit(struct sk_vm *vm, unsigned int cmd, struct kvm_pit_state __user *user)
{
	struct sk_pit *pit = READ_ONCE(vm->pit);
	struct kvm_pit_state2 state;
	struct kvm_pit_state old;

	BUILD_BUG_ON(sizeof(old) != sizeof(state.channels));
	if (copy_from_user(&old, user, sizeof(old)))
		return -EFAULT;
	if (!pit)
		return -ENXIO;
	sk_pit_get(pit, &state);
	if (cmd == KVM_GET_PIT)
		return copy_to_user(user, state.channels, sizeof(old)) ? -EFAULT : 0;
	memcpy(state.channels, &old, sizeof(old));
	return sk_pit_set(pit, &state);
}

static long ioctl_pit(struct sk_vm *vm, unsigned int cmd, struct kvm_pit_state2 __user *user)
{
	struct sk_pit *pit = READ_ONCE(vm->pit);
	struct kvm_pit_state2 state;

	if (!pit)
		return -ENXIO;
	if (cmd == KVM_GET_PIT2) {
		sk_pit_get(pit, &state);
		return copy_to_user(user, &state, sizeof(state)) ? -EFAULT : 0;
	}
	if (copy_from_user(&state, user, sizeof(state)))
		return -EFAULT;
	return sk_pit_set(pit, &state);
}

static long ioctl_reinject(struct sk_vm *vm, const struct kvm_reinject_control __user *user)
{
	struct sk_pit *pit = READ_ONCE(vm->pit);
	struct kvm_reinject_control control;

	if (copy_from_user(&control, user, sizeof(control)))
		return -EFAULT;
	if (!pit)
		return -ENXIO;
	sk_pit_set_reinject(pit, control.pit_reinject);
	return 0;
}

/* ---- clock, CPU numbers, capabilities --------------------------------------------------------- */

#define CLOCK_FLAGS (KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

/* The TSC and the time of day of one moment: of a few readings the fastest, for dom0 may have to wait between them. */
static u64 read_both_clocks(u64 *realtime)
{
	u64 best = U64_MAX, at = 0;
	int i;

	for (i = 0; i < 4; i++) {
		u64 before = rdtsc_ordered();
		u64 now = ktime_get_real_ns();
		u64 took = rdtsc_ordered() - before;

		if (took >= best)
			continue;
		best = took;
		at = before + took / 2;
		*realtime = now;
	}
	return at;
}

static long ioctl_get_clock(struct sk_vm *vm, struct kvm_clock_data __user *user)
{
	struct kvm_clock_data data = { .flags = CLOCK_FLAGS };

	mutex_lock(&vm->lock);
	data.host_tsc = read_both_clocks(&data.realtime);
	data.clock = sk_socle_clock(data.host_tsc) + vm->clock_offset;
	mutex_unlock(&vm->lock);
	return copy_to_user(user, &data, sizeof(data)) ? -EFAULT : 0;
}

/* With REALTIME the clock is what it would be now, had it gone on since then. */
static long ioctl_set_clock(struct sk_vm *vm, const struct kvm_clock_data __user *user)
{
	struct kvm_clock_data data;
	long r;

	if (copy_from_user(&data, user, sizeof(data)))
		return -EFAULT;
	if (data.flags & ~CLOCK_FLAGS)
		return -EINVAL;
	mutex_lock(&vm->lock);
	if (data.flags & KVM_CLOCK_REALTIME) {
		u64 now = ktime_get_real_ns();

		if (now > data.realtime)
			data.clock += now - data.realtime;
	}
	r = clock_set(vm, data.clock);
	mutex_unlock(&vm->lock);
	return r;
}

/* The wall-clock time at which the guest's clock was 0. The version is odd while the rest is written; other vCPUs may
 * be reading. As in KVM nobody is told where no memory is there.
 */
void sk_vm_set_wall_clock(struct sk_vcpu *vcpu, u64 gpa)
{
	struct sk_vm *vm = vcpu->vm;
	struct pvclock_wall_clock wall;
	u64 realtime, clock;
	u32 rest;

	vm->wall_clock = gpa;
	if (!gpa || sk_memory_access(vcpu, gpa, &wall, sizeof(wall), false))
		return;
	wall.version += 1 + (wall.version & 1);
	if (sk_memory_access(vcpu, gpa, &wall.version, sizeof(wall.version), true))
		return;
	clock = sk_socle_clock(read_both_clocks(&realtime)) + READ_ONCE(vm->clock_offset);
	wall.sec = div_u64_rem(realtime - clock, NSEC_PER_SEC, &rest);
	wall.nsec = rest;
	smp_wmb();
	sk_memory_access(vcpu, gpa, &wall, sizeof(wall), true);
	smp_wmb();
	wall.version++;
	sk_memory_access(vcpu, gpa, &wall.version, sizeof(wall.version), true);
}

static long ioctl_set_boot_cpu(struct sk_vm *vm, unsigned long id)
{
	long r = -EBUSY;

	mutex_lock(&vm->lock);
	if (!vm->vcpu_count) {
		vm->boot_cpu_id = id;
		r = 0;
	}
	mutex_unlock(&vm->lock);
	return r;
}

static long ioctl_set_tsc_khz(struct sk_vm *vm, unsigned long arg)
{
	u32 khz = sk_state_tsc_khz(arg);

	if (!khz)
		return -EINVAL;
	WRITE_ONCE(vm->tsc_khz, khz);
	return 0;
}

/* KVM_CAP_MAX_VCPU_ID can be given once, before the first vCPU. */
static long set_max_vcpu_id(struct sk_vm *vm, u64 ids)
{
	long r = -EINVAL;

	if (ids > SK_MAX_VCPU_ID)
		return -EINVAL;
	mutex_lock(&vm->lock);
	if (vm->max_vcpu_ids == ids) {
		r = 0;
	} else if (!vm->max_vcpu_ids && !vm->vcpu_count) {
		vm->max_vcpu_ids = ids;
		r = 0;
	}
	mutex_unlock(&vm->lock);
	return r;
}

static long set_flag(bool *flag, u64 value)
{
	WRITE_ONCE(*flag, value);
	return 0;
}

static long ioctl_enable_cap(struct sk_vm *vm, const struct kvm_enable_cap __user *user)
{
	struct kvm_enable_cap cap;
	u64 value;

	if (copy_from_user(&cap, user, sizeof(cap)))
		return -EFAULT;
	if (cap.flags)
		return -EINVAL;
	value = cap.args[0];
	switch (cap.cap) {
	case KVM_CAP_MAX_VCPU_ID:
		return set_max_vcpu_id(vm, value);
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return sk_memory_manual_protect(vm, &cap);
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return sk_dirty_ring_enable(vm, value);
	case KVM_CAP_SPLIT_IRQCHIP:
		return sk_irq_enable_split(vm, value);
	case KVM_CAP_X2APIC_API:
		return sk_irq_enable_x2apic(vm, value);
	case KVM_CAP_MSR_PLATFORM_INFO:
		return set_flag(&vm->hide_platform_info, !value);
	case KVM_CAP_EXCEPTION_PAYLOAD:
		return set_flag(&vm->exception_payload, value);
	case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
		return set_flag(&vm->triple_fault_event, value);
	case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
		return sk_policy_exit_on_emulation_failure(vm, value);
	case KVM_CAP_X86_USER_SPACE_MSR:
		return sk_policy_set_msr_exits(vm, value);
	case KVM_CAP_DISABLE_QUIRKS2:
		return sk_policy_disable_quirks(vm, value);
	default:
		return -EINVAL;
	}
}

/* A limit on shadow pages, of which there are none: it is kept */
static long ioctl_set_mmu_pages(struct sk_vm *vm, unsigned long pages)
{
	if (pages < MIN_MMU_PAGES)
		return -EINVAL;
	WRITE_ONCE(vm->mmu_pages, pages);
	return 0;
}

/* There are no kinds of devices here. */
static long ioctl_create_device(const struct kvm_create_device __user *user)
{
	struct kvm_create_device device;

	return copy_from_user(&device, user, sizeof(device)) ? -EFAULT : -ENODEV;
}

/* The page is for real mode on old Intel processors; nested paging needs none. */
static long ioctl_identity_map(struct sk_vm *vm, const u64 __user *user)
{
	u64 address;

	if (copy_from_user(&address, user, sizeof(address)))
		return -EFAULT;
	return READ_ONCE(vm->vcpu_count) ? -EINVAL : 0;
}

/* ---- ioctls ----------------------------------------------------------------------------------- */

static long ioctl_memory_region(struct sk_vm *vm, const void __user *user)
{
	struct kvm_userspace_memory_region region;

	if (copy_from_user(&region, user, sizeof(region)))
		return -EFAULT;
	return sk_memory_set_region(vm, &region);
}

static long ioctl_irqfd(struct sk_vm *vm, const void __user *user)
{
	struct kvm_irqfd args;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	return sk_irqfd(vm, &args);
}

static long ioctl_ioeventfd(struct sk_vm *vm, const void __user *user)
{
	struct kvm_ioeventfd args;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;
	return sk_ioeventfd(vm, &args);
}

static long ioctl_signal_msi(struct sk_vm *vm, const void __user *user)
{
	struct kvm_msi msi;

	if (copy_from_user(&msi, user, sizeof(msi)))
		return -EFAULT;
	return READ_ONCE(vm->irqchip) ? sk_irq_signal_msi(vm, &msi) : -EINVAL;
}

static long ioctl_coalesced(struct sk_vm *vm, unsigned int cmd, const void __user *user)
{
	struct kvm_coalesced_mmio_zone zone;

	if (copy_from_user(&zone, user, sizeof(zone)))
		return -EFAULT;
	return cmd == KVM_REGISTER_COALESCED_MMIO ? sk_coalesced_register(vm, &zone) :
						    sk_coalesced_unregister(vm, &zone);
}

static long ioctl_create_irqchip(struct sk_vm *vm)
{
	long r;

	mutex_lock(&vm->lock);
	r = create_irqchip(vm);
	mutex_unlock(&vm->lock);
	return r;
}

static long irq_ioctl(struct sk_vm *vm, unsigned int cmd, void __user *argp)
{
	switch (cmd) {
	case KVM_CREATE_IRQCHIP:
		return ioctl_create_irqchip(vm);
	case KVM_GET_IRQCHIP:
	case KVM_SET_IRQCHIP:
		return ioctl_irqchip(vm, cmd, argp);
	case KVM_IRQ_LINE:
	case KVM_IRQ_LINE_STATUS:
		return ioctl_irq_line(vm, cmd, argp);
	case KVM_CREATE_PIT:
		return create_pit(vm, KVM_PIT_SPEAKER_DUMMY);
	case KVM_GET_PIT:
	case KVM_SET_PIT:
		return ioctl_old_pit(vm, cmd, argp);
	case KVM_CREATE_PIT2:
		return ioctl_create_pit(vm, argp);
	case KVM_GET_PIT2:
	case KVM_SET_PIT2:
		return ioctl_pit(vm, cmd, argp);
	case KVM_REINJECT_CONTROL:
		return ioctl_reinject(vm, argp);
	case KVM_SET_GSI_ROUTING:
		return sk_irq_set_routing(vm, argp);
	case KVM_SIGNAL_MSI:
		return ioctl_signal_msi(vm, argp);
	case KVM_IRQFD:
		return ioctl_irqfd(vm, argp);
	case KVM_IOEVENTFD:
		return ioctl_ioeventfd(vm, argp);
	default:
		return -ENOTTY;
	}
}

static long vm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct sk_vm *vm = file->private_data;
	void __user *argp = (void __user *)arg;

	if (vm->mm != current->mm)
		return -EIO;
	switch (cmd) {
	case KVM_CREATE_VCPU:
		return sk_vcpu_create(vm, arg);
	case KVM_CHECK_EXTENSION:
		return sk_check_extension(vm, arg);
	case KVM_ENABLE_CAP:
		return ioctl_enable_cap(vm, argp);
	case KVM_SET_USER_MEMORY_REGION:
		return ioctl_memory_region(vm, argp);
	case KVM_GET_DIRTY_LOG:
		return sk_memory_dirty_log(vm, argp);
	case KVM_CLEAR_DIRTY_LOG:
		return sk_memory_clear_log(vm, argp);
	case KVM_RESET_DIRTY_RINGS:
		return sk_dirty_ring_reset(vm);
	case KVM_SET_TSS_ADDR: /* three pages for real mode on old Intel; no need of them here */
		return arg > ~0u - 3 * PAGE_SIZE ? -EINVAL : 0;
	case KVM_SET_IDENTITY_MAP_ADDR:
		return ioctl_identity_map(vm, argp);
	case KVM_SET_NR_MMU_PAGES:
		return ioctl_set_mmu_pages(vm, arg);
	case KVM_GET_NR_MMU_PAGES:
		return READ_ONCE(vm->mmu_pages);
	case KVM_CREATE_DEVICE:
		return ioctl_create_device(argp);
	case KVM_REGISTER_COALESCED_MMIO:
	case KVM_UNREGISTER_COALESCED_MMIO:
		return ioctl_coalesced(vm, cmd, argp);
	case KVM_SET_TSC_KHZ:
		return ioctl_set_tsc_khz(vm, arg);
	case KVM_GET_TSC_KHZ:
		return READ_ONCE(vm->tsc_khz);
	case KVM_SET_BOOT_CPU_ID:
		return ioctl_set_boot_cpu(vm, arg);
	case KVM_GET_CLOCK:
		return ioctl_get_clock(vm, argp);
	case KVM_SET_CLOCK:
		return ioctl_set_clock(vm, argp);
	case KVM_X86_SET_MSR_FILTER:
		return sk_policy_set_filter(vm, argp);
	case KVM_GET_STATS_FD:
		return sk_stats_vm_fd(vm);
	default:
		return irq_ioctl(vm, cmd, argp);
	}
}

static int vm_release(struct inode *inode, struct file *file)
{
	sk_vm_put(file->private_data);
	return 0;
}

static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.release = vm_release,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

long sk_vm_create(void)
{
	struct sk_vm *vm = vm_new();
	int fd;

	if (IS_ERR(vm))
		return PTR_ERR(vm);
	fd = anon_inode_getfd("kvm-vm", &vm_fops, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		sk_vm_put(vm);
	return fd;
}
