/* SPDX-License-Identifier: GPL-2.0 */
/* The hypercalls of core/abi.h as functions. All may be called in any context, with any locks held: none
 * sleeps. Those that may say "-EAGAIN, call again" are repeated here where a single piece is bounded.
 */
#ifndef SOCLE_KMOD_HYPERCALL_H
#define SOCLE_KMOD_HYPERCALL_H

#include <linux/errno.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <asm/processor.h>

#include "core/abi.h"

/* Set once at load from the CPUID leaf: VMCALL (Intel) instead of VMMCALL (AMD) */
extern bool sk_use_vmcall;

static inline long hc5(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 r10 asm("r10") = d;
	register u64 r8 asm("r8") = e;
	long ret;

	if (sk_use_vmcall)
		asm volatile("vmcall"
			     : "=a"(ret)
			     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			     : "memory");
	else
		asm volatile("vmmcall"
			     : "=a"(ret)
			     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			     : "memory");
	return ret;
}

/* VCPU_RUN, called with interrupts off, and over with them on: an interrupt that came meanwhile is pending behind STI
 * until the hypercall, which it ends.
 */
static inline long hc_run(u32 vcpu, u64 flags)
{
	long ret;

	if (sk_use_vmcall)
		asm volatile("sti; vmcall"
			     : "=a"(ret)
			     : "a"(SOCLE_HC_VCPU_RUN), "D"(vcpu), "S"(flags)
			     : "memory");
	else
		asm volatile("sti; vmmcall"
			     : "=a"(ret)
			     : "a"(SOCLE_HC_VCPU_RUN), "D"(vcpu), "S"(flags)
			     : "memory");
	return ret;
}

static inline long hc1(u64 nr, u64 a)
{
	return hc5(nr, a, 0, 0, 0, 0);
}

static inline long hc2(u64 nr, u64 a, u64 b)
{
	return hc5(nr, a, b, 0, 0, 0);
}

static inline long hc3(u64 nr, u64 a, u64 b, u64 c)
{
	return hc5(nr, a, b, c, 0, 0);
}

static inline long hc4(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	return hc5(nr, a, b, c, d, 0);
}

/* Maps one extent; see SOCLE_HC_MAP. */
static inline long hc_map(u32 domain, u64 gfn, u64 mfn, u64 pages, u64 flags)
{
	long r;

	while ((r = hc5(SOCLE_HC_MAP, domain, gfn, mfn, pages, flags)) == -EAGAIN)
		cpu_relax();
	return r;
}

static inline long hc_msi(u32 domain, u64 address, u32 data)
{
	return hc3(SOCLE_HC_MSI, domain, address, data);
}

static inline long hc_signal(u32 vcpu, u64 what)
{
	return hc2(SOCLE_HC_VCPU_SIGNAL, vcpu, what);
}

#endif
