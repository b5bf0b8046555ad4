// SPDX-License-Identifier: GPL-2.0
/* /dev/socle: soclectl's view of the hypervisor. Root only; it changes nothing. */
#include "socle_kvm.h"
#include "uapi.h"

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static long get_info(void *page, void __user *argp)
{
	long r = hc1(SOCLE_HC_INFO, virt_to_phys(page));

	if (r < 0)
		return r;
	return copy_to_user(argp, page, sizeof(struct socle_info)) ? -EFAULT : 0;
}

static long get_log(void *page, struct socle_ioc_log __user *user)
{
	u64 position;
	long r;

	if (get_user(position, &user->position))
		return -EFAULT;
	r = hc2(SOCLE_HC_LOG_READ, position, virt_to_phys(page));
	if (r < 0)
		return r;
	return copy_to_user(&user->chunk, page, sizeof(user->chunk)) ? -EFAULT : 0;
}

static long get_domain(void *page, struct socle_ioc_domain __user *user)
{
	u32 first;
	long r;

	if (get_user(first, &user->first))
		return -EFAULT;
	r = hc2(SOCLE_HC_DOMAIN_NEXT, first, virt_to_phys(page));
	if (r < 0)
		return r;
	return copy_to_user(&user->info, page, sizeof(user->info)) ? -EFAULT : 0;
}

static long get_stats(void *page, struct socle_ioc_stats __user *user)
{
	u32 handle;
	long r;

	if (get_user(handle, &user->handle))
		return -EFAULT;
	r = hc2(SOCLE_HC_VCPU_STATS, handle, virt_to_phys(page));
	if (r < 0)
		return r;
	return copy_to_user(&user->stats, page, sizeof(user->stats)) ? -EFAULT : 0;
}

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;
	void *page = (void *)get_zeroed_page(GFP_KERNEL);
	long r;

	if (!page)
		return -ENOMEM;
	switch (cmd) {
	case SOCLE_IOC_INFO:
		r = get_info(page, argp);
		break;
	case SOCLE_IOC_LOG:
		r = get_log(page, argp);
		break;
	case SOCLE_IOC_DOMAIN:
		r = get_domain(page, argp);
		break;
	case SOCLE_IOC_STATS:
		r = get_stats(page, argp);
		break;
	default:
		r = -ENOTTY;
	}
	free_page((unsigned long)page);
	return r;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = control_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice control_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "socle",
	.fops = &control_fops,
	.mode = 0600,
};

int sk_control_init(void)
{
	BUILD_BUG_ON(sizeof(struct socle_info) > PAGE_SIZE);
	BUILD_BUG_ON(sizeof(struct socle_log_chunk) > PAGE_SIZE);
	BUILD_BUG_ON(sizeof(struct socle_domain_info) > PAGE_SIZE);
	return misc_register(&control_device);
}

void sk_control_exit(void)
{
	misc_deregister(&control_device);
}
