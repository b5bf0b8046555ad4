// SPDX-License-Identifier: GPL-2.0
/* Module entry: looks for Socle, then offers /dev/kvm (and /dev/socle). The system ioctls are here. */
#include "socle_kvm.h"

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <asm/pvclock.h>

bool sk_use_vmcall __ro_after_init;
bool sk_small_exec __ro_after_init;
u32 sk_tsc_khz __ro_after_init;
bool sk_tsc_scaling __ro_after_init;
bool sk_pml __ro_after_init;
static u64 socle_tsc_boot __ro_after_init;
static u32 clock_mul __ro_after_init;
static s8 clock_shift __ro_after_init;

struct cap_answer {
	u16 cap;
	u32 answer;
};

/* Whatever is not here is answered 0. */
static const struct cap_answer caps[] = {
	{ KVM_CAP_IRQCHIP, 1 },
	{ KVM_CAP_HLT, 1 },
	{ KVM_CAP_MMU_SHADOW_CACHE_CONTROL, 1 },
	{ KVM_CAP_LAST_CPU, 1 },
	{ KVM_CAP_USER_MEMORY, 1 },
	{ KVM_CAP_SET_TSS_ADDR, 1 },
	{ KVM_CAP_EXT_CPUID, 1 },
	{ KVM_CAP_CLOCKSOURCE, 1 },
	{ KVM_CAP_MAX_VCPUS, SK_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, SK_MAX_VCPU_ID },
	{ KVM_CAP_NR_MEMSLOTS, SK_MEM_SLOTS },
	{ KVM_CAP_NOP_IO_DELAY, 1 },
	{ KVM_CAP_MP_STATE, 1 },
	{ KVM_CAP_COALESCED_MMIO, 2 },
	{ KVM_CAP_COALESCED_PIO, 1 },
	{ KVM_CAP_SYNC_MMU, 1 },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
	  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET },
	{ KVM_CAP_DIRTY_LOG_RING, SK_DIRTY_RING_MAX },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, SK_DIRTY_RING_MAX },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1 },
	{ KVM_CAP_USER_NMI, 1 },
	{ KVM_CAP_IRQ_ROUTING, SK_MAX_GSI },
	{ KVM_CAP_IRQ_INJECT_STATUS, 1 },
	{ KVM_CAP_SPLIT_IRQCHIP, 1 },
	{ KVM_CAP_X2APIC_API, SK_X2APIC_FLAGS },
	{ KVM_CAP_IRQFD, 1 },
	{ KVM_CAP_IRQFD_RESAMPLE, 1 },
	{ KVM_CAP_MCE, SK_MCE_BANKS },
	{ KVM_CAP_PIT, 1 },
	{ KVM_CAP_PIT2, 1 },
	{ KVM_CAP_PIT_STATE2, 1 },
	{ KVM_CAP_REINJECT_CONTROL, 1 },
	{ KVM_CAP_SET_BOOT_CPU_ID, 1 },
	{ KVM_CAP_IOEVENTFD, 1 },
	{ KVM_CAP_IOEVENTFD_ANY_LENGTH, 1 },
	{ KVM_CAP_IOEVENTFD_NO_LENGTH, 1 },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, 1 },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_KVMCLOCK_CTRL, 1 },
	{ KVM_CAP_INTERNAL_ERROR_DATA, 1 },
	{ KVM_CAP_VCPU_EVENTS, 1 },
	{ KVM_CAP_DEBUGREGS, 1 },
	{ KVM_CAP_X86_ROBUST_SINGLESTEP, 1 },
	{ KVM_CAP_SET_GUEST_DEBUG, 1 },
	{ KVM_CAP_SET_GUEST_DEBUG2, SK_GUESTDBG },
	{ KVM_CAP_ENABLE_CAP, 1 },
	{ KVM_CAP_ENABLE_CAP_VM, 1 },
	{ KVM_CAP_CHECK_EXTENSION_VM, 1 },
	{ KVM_CAP_XSAVE, 1 },
	{ KVM_CAP_XSAVE2, SK_XSAVE_BYTES },
	{ KVM_CAP_XCRS, 1 },
	{ KVM_CAP_GET_TSC_KHZ, 1 },
	{ KVM_CAP_TSC_DEADLINE_TIMER, 1 },
	{ KVM_CAP_SIGNAL_MSI, 1 },
	{ KVM_CAP_READONLY_MEM, 1 },
	{ KVM_CAP_IOAPIC_POLARITY_IGNORED, 1 },
	{ KVM_CAP_IMMEDIATE_EXIT, 1 },
	{ KVM_CAP_GET_MSR_FEATURES, 1 },
	{ KVM_CAP_SREGS2, 1 },
	{ KVM_CAP_SYS_ATTRIBUTES, 1 },
	{ KVM_CAP_VCPU_ATTRIBUTES, 1 },
	{ KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS },
	{ KVM_CAP_BINARY_STATS_FD, 1 },
	{ KVM_CAP_MSR_PLATFORM_INFO, 1 },
	{ KVM_CAP_EXCEPTION_PAYLOAD, 1 },
	{ KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1 },
	{ KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1 },
	{ KVM_CAP_X86_USER_SPACE_MSR, 1 },
	{ KVM_CAP_X86_MSR_FILTER, 1 },
	{ KVM_CAP_DISABLE_QUIRKS2, SK_QUIRKS },
	{ KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1 },
};

int sk_check_extension(struct sk_vm *vm, long cap)
{
	size_t i;

	if (cap == KVM_CAP_TSC_CONTROL || cap == KVM_CAP_VM_TSC_CONTROL)
		return sk_tsc_scaling;
	if (cap == KVM_CAP_NR_VCPUS) /* as many as can run at once */
		return min_t(u32, num_online_cpus(), SK_MAX_VCPUS);
	for (i = 0; i < ARRAY_SIZE(caps); i++)
		if (caps[i].cap == cap)
			return caps[i].answer;
	return 0;
}

static long device_attr(unsigned int cmd, const struct kvm_device_attr __user *user)
{
	struct kvm_device_attr attr;
	u64 xcr0 = sk_state_supported_xcr0();

	if (copy_from_user(&attr, user, sizeof(attr)))
		return -EFAULT;
	if (attr.group || attr.attr != KVM_X86_XCOMP_GUEST_SUPP)
		return -ENXIO;
	if (cmd == KVM_GET_DEVICE_ATTR && put_user(xcr0, (u64 __user *)(unsigned long)attr.addr))
		return -EFAULT;
	return 0;
}

static long system_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;
	u64 value;

	switch (cmd) {
	case KVM_GET_API_VERSION:
		return arg ? -EINVAL : KVM_API_VERSION;
	case KVM_CREATE_VM:
		return arg ? -EINVAL : sk_vm_create();
	case KVM_CHECK_EXTENSION:
		return sk_check_extension(NULL, arg);
	case KVM_GET_VCPU_MMAP_SIZE:
		return arg ? -EINVAL : SK_MMAP_PAGES * PAGE_SIZE;
	case KVM_GET_SUPPORTED_CPUID:
		return sk_cpuid_supported(argp);
	case KVM_GET_MSR_INDEX_LIST:
		return sk_msr_index_list(argp);
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
		return sk_msr_feature_list(argp);
	case KVM_GET_MSRS:
		return sk_msr_get_features(argp);
	case KVM_X86_GET_MCE_CAP_SUPPORTED:
		value = sk_mce_supported();
		return copy_to_user(argp, &value, sizeof(value)) ? -EFAULT : 0;
	case KVM_GET_DEVICE_ATTR:
	case KVM_HAS_DEVICE_ATTR:
		return device_attr(cmd, argp);
	default:
		return -EINVAL;
	}
}

static const struct file_operations system_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = system_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice kvm_device = {
	.minor = KVM_MINOR,
	.name = "kvm",
	.fops = &system_fops,
};

/* ---- Socle ------------------------------------------------------------------------------------ */

/* As the paravirtual clock's structure for this rate has it (Documentation/virt/kvm/x86/msr.rst): a factor of 2^31 to
 * 2^32
 */
static void __init clock_factors(u32 khz)
{
	u64 ns_per_ms = (u64)NSEC_PER_MSEC << 32;

	for (; ns_per_ms / khz < BIT_ULL(31); clock_shift--)
		ns_per_ms <<= 1;
	for (; ns_per_ms / khz >= BIT_ULL(32); clock_shift++)
		ns_per_ms >>= 1;
	clock_mul = ns_per_ms / khz;
}

u64 sk_socle_clock(u64 tsc)
{
	return pvclock_scale_delta(tsc - socle_tsc_boot, clock_mul, clock_shift);
}

static bool __init socle_is_here(void)
{
	u32 eax, ebx, ecx, edx;

	cpuid(SOCLE_CPUID_BASE, &eax, &ebx, &ecx, &edx);
	return ebx == SOCLE_CPUID_SIG_EBX && ecx == SOCLE_CPUID_SIG_ECX &&
	       edx == SOCLE_CPUID_SIG_EDX && eax >= SOCLE_CPUID_INFO;
}

static int __init say_hello(void)
{
	struct socle_info *info = (void *)get_zeroed_page(GFP_KERNEL);
	long r;

	if (!info)
		return -ENOMEM;
	r = hc1(SOCLE_HC_INFO, virt_to_phys(info));
	if (r < 0) {
		pr_err("Socle refuses hypercalls (error %ld): is this kernel its dom0?\n", r);
		r = -ENODEV;
		goto out;
	}
	sk_tsc_khz = info->tsc_khz;
	sk_tsc_scaling = info->tsc_scaling;
	sk_pml = strnstr(info->features, "pml", sizeof(info->features));
	socle_tsc_boot = info->tsc_boot;
	clock_factors(sk_tsc_khz);
	pr_info("Socle %.31s, %u processors, %.7s, TSC %u kHz\n", info->version, info->cpus,
		info->vendor, sk_tsc_khz);
	r = 0;
out:
	free_page((unsigned long)info);
	return r;
}

static int __init find_socle(void)
{
	u32 eax, ebx, ecx, edx;

	if (!socle_is_here()) {
		pr_err("no Socle hypervisor here (CPUID leaf %#x is absent): boot this kernel as Socle's dom0\n",
		       SOCLE_CPUID_BASE);
		return -ENODEV;
	}
	cpuid(SOCLE_CPUID_INFO, &eax, &ebx, &ecx, &edx);
	if (eax != SOCLE_ABI_VERSION) {
		pr_err("Socle speaks ABI version %u, this module %u: install the pair that was built together\n",
		       eax, SOCLE_ABI_VERSION);
		return -ENODEV;
	}
	sk_use_vmcall = ebx & 1;
	sk_small_exec = ecx & SOCLE_SMALL_EXEC;
	return say_hello();
}

static int __init socle_init(void)
{
	int r = find_socle();

	if (r)
		return r;
	r = sk_events_init();
	if (r)
		return r;
	r = sk_irqfd_init();
	if (r)
		goto no_irqfd;
	r = misc_register(&kvm_device);
	if (r) {
		pr_err("cannot register /dev/kvm (error %d): is another KVM module loaded?\n", r);
		goto no_kvm;
	}
	r = sk_control_init();
	if (r)
		goto no_control;
	return 0;

no_control:
	misc_deregister(&kvm_device);
no_kvm:
	sk_irqfd_exit();
no_irqfd:
	sk_events_exit();
	return r;
}

static void __exit socle_exit(void)
{
	sk_control_exit();
	misc_deregister(&kvm_device);
	sk_irqfd_exit();
	sk_events_exit();
	rcu_barrier(); /* ioeventfds and routing tables still to be freed */
}

module_init(socle_init);
module_exit(socle_exit);
MODULE_DESCRIPTION("KVM's interface on the Socle hypervisor");
MODULE_LICENSE("GPL");
