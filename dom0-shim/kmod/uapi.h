/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* /dev/socle: what soclectl asks of socle.ko. The structures are Socle's own (core/abi.h). */
#ifndef SOCLE_KMOD_UAPI_H
#define SOCLE_KMOD_UAPI_H

#include <linux/ioctl.h>

#include "core/abi.h"

struct socle_ioc_log {
	u64 position; /* in: the first byte wanted */
	struct socle_log_chunk chunk;
};

struct socle_ioc_list {
	u32 first; /* in: the first domain id wanted */
	u32 reserved;
	struct socle_domain_list list;
};

struct socle_ioc_stats {
	u32 handle; /* in: a vCPU's handle */
	u32 reserved;
	struct socle_vcpu_stats stats;
};

#define SOCLE_IOC_INFO	_IOR(0xb5, 0x01, struct socle_info)
#define SOCLE_IOC_LOG	_IOWR(0xb5, 0x02, struct socle_ioc_log)
#define SOCLE_IOC_LIST	_IOWR(0xb5, 0x03, struct socle_ioc_list)
#define SOCLE_IOC_STATS _IOWR(0xb5, 0x04, struct socle_ioc_stats)

#endif
