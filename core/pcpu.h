/* SPDX-License-Identifier: BSD-2-Clause */
/* What belongs to one physical processor. Found from the stack pointer, so that no segment register
 * is needed: guests' FS, GS and TR may stay loaded while Socle runs. */
#pragma once

#include "core/sched.h"

/* A slot of Socle's address space per processor: struct pcpu at its start, the stack at its end,
 * between them nothing, so that a stack that overflows faults. */
#define PCPU_SLOT_SIZE 65536ull
#define PCPU_SIZE      8192ull
#define STACK_SIZE     16384ull

#define MAX_PCPUS SCHED_MAX_CPUS

struct vcpu;
struct domain;

struct window {
    u64 *pte;
    u64 va;
    paddr_t pa;
};

struct pcpu {
    u32 id; /* 0..pcpu_count-1; dom0's vCPU of the same number is bound to it */
    u32 apic_id;
    bool online;
    struct runqueue rq;
    struct vcpu *current;  /* whose registers are in the processor, running or not */
    struct vcpu *released; /* off the processor, its state in memory, not yet free to move */
    struct vcpu *next;     /* chosen already, if `decided` */
    bool decided;
    struct vcpu *dom0;  /* dom0's vCPU here */
    u64 timer_deadline; /* what the physical timer is set to, host TSC */

    /* The domain whose translations the processor may use now, NULL when it runs none, and the
     * number of entries so far: npt_flush waits for either to change. */
    struct domain *active;
    u64 entries;
    u64 epoch; /* the last pcpu_epoch in which it held no pointer to a vCPU but the one that it runs
                */
    u64 flush_host; /* requests to drop Socle's own stale translations, counted */
    u64 flush_host_done;

    /* Level-triggered interrupts that dom0 has not ended yet (irq.c). */
    u64 level_held[4];
    u64 level_done[4];

    struct window window[2];
    u64 gdt[8];
    u32 tss[28];
    void *buffer; /* a page for the hypercall in progress: one is over before the next one starts */
    u64 asid_next;
    u64 asid_generation;
};

_Static_assert(sizeof(struct pcpu) <= PCPU_SIZE, "struct pcpu has room for two pages");

extern struct pcpu *pcpus[MAX_PCPUS];
extern u32 pcpu_count;

/* Counts the vCPUs' ends (domain.c): what was unlinked in one epoch is freed when all processors
 * have seen the next one. */
extern u64 pcpu_epoch;

static inline void pcpu_quiet(struct pcpu *cpu)
{
    __atomic_store_n(&cpu->epoch, __atomic_load_n(&pcpu_epoch, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
}

#ifdef SOCLE_HOST
struct pcpu *this_cpu(void);
#else
static inline struct pcpu *this_cpu(void)
{
    return (struct pcpu *)((u64)__builtin_frame_address(0) & ~(PCPU_SLOT_SIZE - 1));
}
#endif

/* Whether v's registers are in the calling processor. */
static inline bool pcpu_has(const struct vcpu *v)
{
    return this_cpu()->current == v;
}

/* Makes processor `cpu` leave its guest, or its idle sleep, soon, and look at its pending work; any
 * other number, such as SCHED_NO_KICK: nobody. */
void pcpu_kick(int cpu);

/* Drops a stale translation of Socle's own address space everywhere before it returns. Processors
 * that run a guest do so at their next exit, before they touch any such page. */
void pcpu_flush_host(void *va);
void pcpu_flush_host_pending(void);

/* Makes GDT, TSS, IDT and control registers of the calling processor Socle's own. */
void pcpu_init_tables(struct pcpu *cpu);
