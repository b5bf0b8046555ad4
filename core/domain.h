/* SPDX-License-Identifier: BSD-2-Clause */
/* A domain: memory, vCPUs and what they are charged to. Dom0 is one too; what it may do more is in
 * `flags`. */
#pragma once

#include "core/abi.h"
#include "core/npt.h"
#include "core/pool.h"

#define DOMAIN_DEVICES    BIT(0) /* owns the machine's devices: ports, IOAPICs, interrupts */
#define DOMAIN_HYPERCALLS BIT(1) /* may call everything in abi.h */
#define DOMAIN_LAPIC      BIT(2) /* its vCPUs have a local APIC */

#define DOMAIN_MAX_VCPUS 256

struct vcpu;
struct doorbell_table;

struct domain {
    u32 id;
    u32 flags;
    u32 refs; /* hypercalls in progress; dying domains get no new ones */
    bool dying;
    u64 epoch; /* its vCPUs are stopped for ever: see all_quiet() */
    char name[17];
    struct npt npt;
    struct charge charge;
    struct spinlock destroy_lock; /* tried, never waited for */
    struct spinlock lock;         /* vcpu table, parameters, doorbells */
    u64 tlb_generation;           /* counts flushes; see npt_flush in domain.c */
    u32 weight;
    u64 affinity;
    s64 clock_offset_ns; /* paravirtual clock minus tsc_uptime_ns() */
    u32 vcpu_count;
    struct vcpu **vcpus; /* a pool page: by order of creation */
    struct doorbell_table *doorbells;
};

extern struct domain dom0;

/* Boot: dom0 with empty tables. 0 or -E_NOMEM. */
int domain_init_dom0(void);

static inline bool domain_has(const struct domain *d, u32 flag)
{
    return d->flags & flag;
}

/* A new domain: its id, or -E_NOMEM, -E_NOSPC. */
int domain_create(void);

/* Takes a reference, NULL if there is no such domain or it is dying. domain_put gives it back. */
struct domain *domain_get(u64 id);
bool domain_get_of(struct domain *d); /* the same for one that is known: false when it is dying */
void domain_put(struct domain *d);

/* A bounded piece of the end of a domain. 0, -E_AGAIN, -E_NOENT. */
int domain_destroy(u64 id);

/* -E_INVAL: no such parameter or value; -E_BUSY: too late for it. */
int domain_set(struct domain *d, u64 param, u64 value);

/* The next domain with an id of at least `id`, with a reference; NULL at the end. domain_after(d)
 * gives d's reference back and goes on behind it. */
struct domain *domain_next(u64 id);
struct domain *domain_after(struct domain *d);

/* Fills one entry of a list. */
void domain_describe(struct domain *d, struct socle_domain_info *out);
