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

struct socle_ioc_domain {
	u32 first; /* in: the domain wanted is the first one from this id on; ENOENT: there is none */
	u32 reserved;
	struct socle_domain_info info;
};

struct socle_ioc_stats {
	u32 handle; /* in: a vCPU's handle */
	u32 reserved;
	struct socle_vcpu_stats stats;
};

#define SOCLE_IOC_INFO	 _IOR(0xb5, 0x01, struct socle_info)
#define SOCLE_IOC_LOG	 _IOWR(0xb5, 0x02, struct socle_ioc_log)
#define SOCLE_IOC_DOMAIN _IOWR(0xb5, 0x03, struct socle_ioc_domain)
#define SOCLE_IOC_STATS	 _IOWR(0xb5, 0x04, struct socle_ioc_stats)

#endif
