/* SPDX-License-Identifier: BSD-2-Clause */
/* A machine on the host for the tests of domains, vCPUs and hypercalls: a few processors, RAM with
 * an owner table, the page heap, and a vendor part without a processor. The parts of core that run
 * guests are the real ones. A test either plays all processors in turn or gives each a thread. */
#ifndef TESTS_UNIT_FAKE_MACHINE_H
#define TESTS_UNIT_FAKE_MACHINE_H

#include "core/abi.h"
#include "core/domain.h"
#include "core/errno.h"
#include "core/exits.h"
#include "core/frame.h"
#include "core/exits.h"
#include "core/irq.h"
#include "core/pcpu.h"
#include "core/pool.h"
#include "core/vcpu.h"
#include "core/vendor.h"
#include "core/x86.h"

#define CPUS 4

/* RAM: Socle's, then dom0's, then a hole. */
#define SOCLE_FRAMES 512ull
#define HOLE_PFN     0x1f00ull
#define MAX_PFN      0x2000ull
#define DOM0_PFN(n)  (0x600ull + (n)) /* not in the middle of anything */
#define DOM0_PA(n)   (DOM0_PFN(n) << PAGE_SHIFT)
#define RAM(pa)      (&fake_ram[pa])
#define POOL_PAGES   1024

/* What handlers and fakes note. Of one processor where there is an index. */
struct fake {
    bool threads; /* a thread plays each processor */
    bool kicked[CPUS];
    u64 timer[CPUS];
    u32 eois[CPUS];
    bool level[256];    /* vectors that the physical APICs take as level-triggered */
    bool from_pic[256]; /* vectors that come past the APIC */
    u32 offset_updates, clock_changes, completions, state_calls;
    enum vcpu_action completion; /* what emulate_complete() says */
    bool shadow;
    u32 shared;    /* pages that are mapped */
    u32 kvm_calls; /* a bit for each that CPUID offers */
};
extern struct fake fake;
extern u8 *fake_ram;
extern __thread u32 fake_cpu; /* the processor that the caller is */
extern const struct vendor_ops fake_vendor;

/* A machine with dom0, one vCPU on each of the processors, and nothing else. */
void fake_start(u32 cpus);

/* What must come back to the same when all domains have gone. */
struct fake_totals {
    u64 pool, lent, dom0_charge, shared, domains, vcpus;
};
struct fake_totals fake_totals(void);

/* Runs processor `cpu` as the vendor's loop does until it is in a guest, which is returned, or has
 * nothing to do (NULL). */
struct vcpu *fake_enter(u32 cpu);

/* Lets slices end until `cpu` runs v, which is runnable. */
void fake_until(u32 cpu, const struct vcpu *v);

/* The guest on `cpu` has left with what its exit handler said; RESUME stays. */
void fake_leave(u32 cpu, enum vcpu_action action);

/* A physical interrupt, in the guest or in Socle's sleep. */
void fake_interrupt(u32 cpu, u8 vector);

/* Dom0's vCPU makes a hypercall on `cpu` and goes on there. For RUN, which may not come back at
 * once: fake_run(), after which fake_enter() shows who runs; and fake_result() when it is dom0. */
s64 fake_call(u32 cpu, u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e);
void fake_run(u32 cpu, u64 handle, u64 flags);
s64 fake_result(u32 cpu);

/* A domain with a local APIC per vCPU, and n vCPUs with the pages DOM0_PA(page...). */
u32 fake_domain(u32 n, u32 page);
u32 fake_handle(u32 domain, u32 index);
struct socle_vcpu_page *fake_page(const struct vcpu *v);

#endif
