// SPDX-License-Identifier: GPL-2.0
/* KVM_GET_STATS_FD: a file that describes its own layout (Documentation/virt/kvm/api.rst, 4.133): header, name,
 * descriptors, numbers. What Socle counts has KVM's name where it is the same thing.
 */
#include "socle_kvm.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>

#define NAME_BYTES 48 /* as KVM's */

/* The kernel's own structure has no room for the name. */
struct descriptor {
	struct kvm_stats_desc desc;
	char name[NAME_BYTES];
};

struct stat_source {
	const char *name;
	u32 flags;
	s16 exponent;
	u16 from; /* a number that the reader knows */
};

#define COUNT(n, f)   { n, KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE, 0, f }
#define INSTANT(n, f) { n, KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_NONE, 0, f }
#define TIME_NS(n, f)                                                                              \
	{ n, KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS | KVM_STATS_BASE_POW10, -9, f }

enum { CPU_TIME = SOCLE_STATS };

static const struct stat_source vcpu_sources[] = {
	COUNT("exits", SOCLE_STAT_EXITS),
	COUNT("irq_exits", SOCLE_STAT_INTERRUPT),
	COUNT("irq_window_exits", SOCLE_STAT_WINDOW),
	COUNT("cpuid_exits", SOCLE_STAT_CPUID),
	COUNT("msr_read_exits", SOCLE_STAT_MSR_READ),
	COUNT("msr_write_exits", SOCLE_STAT_MSR_WRITE),
	COUNT("cr_exits", SOCLE_STAT_CR),
	COUNT("halt_exits", SOCLE_STAT_HLT),
	COUNT("io_exits", SOCLE_STAT_IO),
	COUNT("doorbell_writes", SOCLE_STAT_DOORBELL),
	COUNT("mmio_exits", SOCLE_STAT_MMIO),
	COUNT("apic_mmio_exits", SOCLE_STAT_APIC_MMIO),
	COUNT("pf_taken", SOCLE_STAT_FAULT),
	COUNT("hypercalls", SOCLE_STAT_HYPERCALL),
	COUNT("exception_exits", SOCLE_STAT_EXCEPTION),
	COUNT("other_exits", SOCLE_STAT_OTHER),
	COUNT("dom0_exits", SOCLE_STAT_TO_DOM0),
	COUNT("irq_injections", SOCLE_STAT_INJECTED),
	COUNT("ipis", SOCLE_STAT_IPI),
	COUNT("timer_interrupts", SOCLE_STAT_TIMER),
	COUNT("tlb_flush", SOCLE_STAT_FLUSH),
	COUNT("switches", SOCLE_STAT_SWITCH),
	TIME_NS("cpu_time", CPU_TIME),
};

enum { VM_MAPPED_PAGES, VM_HYPERVISOR_PAGES, VM_CPU_TIME };

static const struct stat_source vm_sources[] = {
	INSTANT("mapped_pages", VM_MAPPED_PAGES),
	INSTANT("hypervisor_pages", VM_HYPERVISOR_PAGES),
	TIME_NS("cpu_time", VM_CPU_TIME),
};

/* ---- the numbers ------------------------------------------------------------------------------ */

static int read_vcpu(const struct sk_vcpu *vcpu, void *page, u64 *numbers)
{
	const struct socle_vcpu_stats *stats = page;
	long r = hc2(SOCLE_HC_VCPU_STATS, vcpu->handle, virt_to_phys(page));
	u32 i;

	if (r < 0)
		return r;
	for (i = 0; i < ARRAY_SIZE(vcpu_sources); i++)
		numbers[i] = vcpu_sources[i].from == CPU_TIME ? stats->cpu_ns :
								stats->count[vcpu_sources[i].from];
	return 0;
}

static int read_vm(const struct sk_vm *vm, void *page, u64 *numbers)
{
	const struct socle_domain_info *info = page;
	long r = hc2(SOCLE_HC_DOMAIN_NEXT, vm->domain, virt_to_phys(page));

	if (r < 0)
		return r;
	if (info->id != vm->domain)
		return -EIO;
	numbers[VM_MAPPED_PAGES] = info->mapped_pages;
	numbers[VM_HYPERVISOR_PAGES] = info->pool_pages;
	numbers[VM_CPU_TIME] = info->cpu_ns;
	return 0;
}

/* ---- the file --------------------------------------------------------------------------------- */

struct stats_image {
	struct kvm_stats_header header;
	char name[NAME_BYTES];
	struct descriptor descriptors[];
};

/* Everything but the numbers, which follow */
static void describe(struct stats_image *image, const struct stat_source *sources, u32 count)
{
	u32 i;

	image->header = (struct kvm_stats_header){
		.name_size = NAME_BYTES,
		.num_desc = count,
		.id_offset = offsetof(struct stats_image, name),
		.desc_offset = offsetof(struct stats_image, descriptors),
		.data_offset = struct_size(image, descriptors, count),
	};
	for (i = 0; i < count; i++) {
		struct descriptor *d = &image->descriptors[i];

		d->desc.flags = sources[i].flags;
		d->desc.exponent = sources[i].exponent;
		d->desc.size = 1;
		d->desc.offset = i * sizeof(u64);
		strscpy(d->name, sources[i].name, NAME_BYTES);
	}
}

static ssize_t give(const struct stats_image *image, char __user *user, size_t size, loff_t *offset)
{
	size_t bytes = image->header.data_offset + image->header.num_desc * sizeof(u64);

	return simple_read_from_buffer(user, size, offset, image, bytes);
}

static struct stats_image *new_image(const struct stat_source *sources, u32 count)
{
	struct stats_image *image;

	image = kvzalloc(struct_size(image, descriptors, count) + count * sizeof(u64), GFP_KERNEL);
	if (image)
		describe(image, sources, count);
	return image;
}

static u64 *numbers_of(struct stats_image *image)
{
	return (void *)image + image->header.data_offset;
}

static ssize_t vcpu_stats_read(struct file *file, char __user *user, size_t size, loff_t *offset)
{
	struct stats_image *image = new_image(vcpu_sources, ARRAY_SIZE(vcpu_sources));
	void *page = (void *)get_zeroed_page(GFP_KERNEL);
	const struct sk_vcpu *vcpu = file->private_data;
	ssize_t r = -ENOMEM;

	if (image && page) {
		snprintf(image->name, NAME_BYTES, "kvm-%d/vcpu-%u", vcpu->vm->creator, vcpu->id);
		r = read_vcpu(vcpu, page, numbers_of(image));
		if (!r)
			r = give(image, user, size, offset);
	}
	free_page((unsigned long)page);
	kvfree(image);
	return r;
}

static ssize_t vm_stats_read(struct file *file, char __user *user, size_t size, loff_t *offset)
{
	struct stats_image *image = new_image(vm_sources, ARRAY_SIZE(vm_sources));
	void *page = (void *)get_zeroed_page(GFP_KERNEL);
	const struct sk_vm *vm = file->private_data;
	ssize_t r = -ENOMEM;

	if (image && page) {
		snprintf(image->name, NAME_BYTES, "kvm-%d", vm->creator);
		r = read_vm(vm, page, numbers_of(image));
		if (!r)
			r = give(image, user, size, offset);
	}
	free_page((unsigned long)page);
	kvfree(image);
	return r;
}

static int vcpu_stats_release(struct inode *inode, struct file *file)
{
	const struct sk_vcpu *vcpu = file->private_data;

	sk_vm_put(vcpu->vm);
	return 0;
}

static int vm_stats_release(struct inode *inode, struct file *file)
{
	sk_vm_put(file->private_data);
	return 0;
}

static const struct file_operations vcpu_stats_fops = {
	.owner = THIS_MODULE,
	.read = vcpu_stats_read,
	.release = vcpu_stats_release,
	.llseek = noop_llseek,
};

static const struct file_operations vm_stats_fops = {
	.owner = THIS_MODULE,
	.read = vm_stats_read,
	.release = vm_stats_release,
	.llseek = noop_llseek,
};

/* The file holds the VM. */
static long stats_fd(const char *name, const struct file_operations *fops, void *what,
		     struct sk_vm *vm)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);
	struct file *file;

	if (fd < 0)
		return fd;
	file = anon_inode_getfile(name, fops, what, O_RDONLY);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	sk_vm_get(vm);
	file->f_mode |= FMODE_PREAD;
	fd_install(fd, file);
	return fd;
}

long sk_stats_vm_fd(struct sk_vm *vm)
{
	return stats_fd("kvm-vm-stats", &vm_stats_fops, vm, vm);
}

long sk_stats_vcpu_fd(struct sk_vcpu *vcpu)
{
	return stats_fd("kvm-vcpu-stats", &vcpu_stats_fops, vcpu, vcpu->vm);
}
