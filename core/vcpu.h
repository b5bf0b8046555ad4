/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtual processor: what the vendor parts and core know of it, its life between runnable,
 * blocked and stopped, and its exits to dom0. The run loop in svm/ and vmx/ calls the functions of
 * the second half. */
#pragma once

#include "core/domain.h"
#include "core/sched.h"
#include "core/vlapic.h"

#define TLB_UNSEEN (~0ull) /* in tlb_seen: the next entry needs a new tag */

/* Work to do before the next entry, one word, tested once. Set by any processor, atomically. */
#define PENDING_EVENT    BIT(0) /* the local APIC has something new: INIT, SIPI, NMI, ExtINT */
#define PENDING_RESCHED  BIT(1) /* the scheduler must decide anew */
#define PENDING_COMPLETE BIT(2) /* an instruction waits for dom0's answer */
#define PENDING_CLOCK    BIT(3) /* the paravirtual clock must be written again */
#define PENDING_WAIT     BIT(4) /* dom0's vCPU: RUN has not returned yet */
#define PENDING_TIMER    BIT(5) /* the local APIC's timer is due */
#define PENDING_STEP     BIT(6) /* an instruction is done that TF was set for */

/* What a handler wants of the run loop. All but RESUME take the vCPU off the processor. */
enum vcpu_action {
    VCPU_RESUME,
    VCPU_YIELD,   /* stays runnable */
    VCPU_BLOCK,   /* waits for an interrupt */
    VCPU_EXIT,    /* dom0 must see to it: exit_* says what */
    VCPU_HANDOFF, /* dom0's vCPU: RUN */
};

/* Numbered as SOCLE_MP_*. */
enum vcpu_activity { ACTIVITY_RUN, ACTIVITY_WAIT_INIT, ACTIVITY_WAIT_SIPI, ACTIVITY_HALTED };

/* An exception, interrupt or NMI on its way in. */
struct event {
    bool valid;
    bool has_error;
    u8 vector;
    u8 type; /* EVENT_* */
    u32 error;
};
enum {
    EVENT_INTERRUPT = 0,
    EVENT_NMI = 2,
    EVENT_EXCEPTION = 3,
    EVENT_SOFT = 4,
    EVENT_INT3 = 6 /* from dom0: RIP is at the instruction, not behind it, until the entry */
};

/* What an instruction that dom0 answers waits for. */
enum io_kind {
    IO_NONE,
    IO_IN,
    IO_OUT,
    IO_INS,
    IO_OUTS,
    IO_MMIO_READ,
    IO_MMIO_WRITES, /* not the last one of its instruction */
    IO_MMIO_WRITE,  /* needs nothing more */
    IO_MSR_READ,
    IO_MSR_WRITE,
    IO_EXTINT
};

#define CPUID_BUCKETS 64

struct io_state {
    enum io_kind kind;
    u8 size;
    u32 count;
    gpa_t gpa;
    u32 error; /* MSR: dom0 wants #GP */
    u64 data;  /* dom0's answer */
    u64 rip;   /* of the instruction and the one after it: nothing is completed elsewhere */
    u64 next_rip;
    gva_t gva; /* IO_INS, IO_OUTS: first element, address size, REP */
    u8 addr_size;
    bool rep;
};

/* What an instruction has read of MMIO so far, for when it is executed anew with the next answer,
 * and what it still has to write there. At most two operands, each cut in two by a page's end. */
#define REPLAY_MAX 4
struct mmio_access {
    gpa_t gpa;
    u64 data;
    u8 size;
};
struct replay {
    u8 reads;
    u8 writes;
    struct mmio_access read[REPLAY_MAX];
    struct mmio_access write[REPLAY_MAX];
};

/* A free entry of the log of writes. The processor that runs the vCPU fills them as it likes. */
#define DIRTY_NONE (~0ull)

struct vcpu {
    u64 gpr[16]; /* hardware order; first, for the entry code */
    u64 rip;
    u64 rflags;
    u64 next_rip; /* of the instruction that exited, set by the vendor part */
    bool retired; /* that instruction is done: its interrupt shadow ends */
    u32 pending;
    u32 activity;
    u32 traps; /* SOCLE_TRAP_* */
    struct domain *domain;
    void *vendor; /* VMCB or VMCS, owned by svm/ or vmx/ */
    struct vlapic lapic;
    struct sched_entity se;

    u32 handle;
    u32 apic_id;
    u32 tag; /* ASID or VPID, valid on cpu_loaded in tag_generation */
    u64 tag_generation;
    u64 tlb_seen;               /* the domain's flushes that this vCPU's tag has followed */
    u32 cpu_loaded;             /* the processor whose registers hold this vCPU's state; ~0: none */
    struct spinlock state_lock; /* dom0's calls on this vCPU; tried, never waited for */

    struct event event; /* to inject at the next entry */
    bool nmi_pending;
    bool init_pending;
    bool sipi_pending;
    bool kicked; /* KVM_HC_KICK_CPU: the next HLT ends at once */
    bool nmi_masked;
    u8 sipi_vector;
    u8 extint_vector; /* got from dom0, if extint_ready */
    union {
        u32 irq_special; /* 0: only the local APIC has interrupts */
        struct {
            bool extint_pending; /* the PIC's output */
            bool extint_ready;
            bool irq_window;  /* dom0 wants to inject */
            bool irq_blocked; /* by the debugger */
        };
    };

    /* Exit to dom0. */
    struct socle_vcpu_page *page; /* shared, NULL for dom0's own */
    u32 port;
    bool exit_ready;         /* an exit that nobody has fetched yet */
    struct vcpu *waiter;     /* dom0's vCPU inside RUN */
    struct vcpu *waiting_on; /* the same from the other side */
    s64 wait_result;
    struct io_state io;
    struct replay replay; /* emulate.c */
    bool complete_only;   /* stop as soon as io is done */

    /* State that is in the processor only while the vCPU is loaded. */
    u64 xcr0;
    u64 dr[4];        /* the debugger's, if it has any */
    void *xsave_area; /* a pool page */
    u64 *dirty_log;   /* a pool page, NULL where there is none: SOCLE_DIRTY_MAX addresses */
    u64 tsc_aux;

    u32 debug_flags;              /* SOCLE_DEBUG_* */
    struct socle_debug own_debug; /* the guest's, while there is a debugger of the processor */

    struct socle_sregs sregs; /* filled by the vendor part for the emulator */
    bool cr2_dirty;           /* sregs.cr2 is new: the vendor part loads it at the next entry */
    u64 tsc_adjust;
    s64 tsc_offset;
    u64 apic_base; /* without a LAPIC only; see vcpu_apic_base() */
    u64 clock_msr;
    u32 clock_version;
    bool clock_stood_still;         /* dom0 says so; the guest is to be told */
    struct socle_cpuid *cpuid;      /* a pool page */
    u8 cpuid_bucket[CPUID_BUCKETS]; /* first entry of each chain, from 1; 0: none (cpuid.c) */
    u64 guest_xcr0_mask;            /* from CPUID leaf 0xd */

    u64 count[SOCLE_STATS];
};

extern struct vcpu *vcpu_table[SOCLE_MAX_VCPUS];

static inline void vcpu_set_pending(struct vcpu *v, u32 bits)
{
    __atomic_fetch_or(&v->pending, bits, __ATOMIC_RELEASE);
}

/* The APIC_BASE MSR. */
static inline u64 vcpu_apic_base(const struct vcpu *v)
{
    return domain_has(v->domain, DOMAIN_LAPIC) ? v->lapic.base : v->apic_base;
}

/* Ends of an exit. The instruction that exited is done: */
static inline enum vcpu_action vcpu_skip(struct vcpu *v)
{
    v->rip = v->next_rip;
    v->retired = true;
    if (unlikely(v->rflags & RFLAGS_TF))
        vcpu_set_pending(v, PENDING_STEP);
    return VCPU_RESUME;
}

/* ... or an exception comes in its place. */
static inline enum vcpu_action vcpu_raise(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
    v->event = (struct event){true, has_error, vector, EVENT_EXCEPTION, error};
    return VCPU_RESUME;
}

static inline enum vcpu_action vcpu_raise_gp(struct vcpu *v)
{
    return vcpu_raise(v, VEC_GP, true, 0);
}

/* A new vCPU in `d`, stopped, in the state after RESET. page_pa: dom0's page for it (checked by the
 * caller), 0 for dom0's own. Returns its handle, or -E_NOMEM, -E_NOSPC, -E_EXIST (APIC id). */
int vcpu_create(struct domain *d, u32 apic_id, paddr_t page_pa, u32 port);

/* Frees it; it is stopped and nobody can find it any more. */
void vcpu_destroy(struct vcpu *v);

/* By handle, with a reference on its domain (domain_put(v->domain)); NULL if there is none. */
struct vcpu *vcpu_get(u64 handle);

/* The domain's affinity is another. */
void vcpu_follow_affinity(struct vcpu *v);

/* The state after INIT. */
void vcpu_reset(struct vcpu *v);

/* Whether v would go on if it ran now. On its processor. */
bool vcpu_has_event(struct vcpu *v);

/* Something for v arrived: wakes it if it waits, makes its processor look if it runs. Any
 * processor. */
void vcpu_notify(struct vcpu *v);

/* Posts a fixed interrupt; any processor. */
void vcpu_post(struct vcpu *v, u8 vector, bool level);

/* 0, or -E_AGAIN while it still runs elsewhere (it was kicked) or is just being left. Ends a RUN
 * that waits. */
int vcpu_stop(struct vcpu *v);

/* v is stopped, and all its state is in memory. Waits for the processor that is just leaving it. */
bool vcpu_settled(struct vcpu *v);

/* ---- for the run loops ---- */

/* A processor's life. */
NORETURN void vcpu_loop(void);

/* Chooses what this processor runs now; NULL: nothing, sleep until an interrupt. */
struct vcpu *vcpu_pick(void);

/* Does what v->pending says, before an entry. */
enum vcpu_action vcpu_pending_work(struct vcpu *v);

/* Makes this processor one that npt_flush() waits for, from before the entry until vcpu_put().
 * True: the vCPU needs a new tag, because translations were taken back since it last ran or it ran
 * elsewhere. */
bool vcpu_enter(struct vcpu *v);

/* Takes v off this processor, its state already saved to memory. */
void vcpu_put(struct vcpu *v, enum vcpu_action action);

/* The next external interrupt to inject: a vector; -1: none; VCPU_WINDOW: none yet, but there must
 * be an exit when one can be taken. */
#define VCPU_WINDOW (-2)
int vcpu_next_interrupt(struct vcpu *v);

/* The processor took it. */
void vcpu_accept_interrupt(struct vcpu *v, u8 vector);

/* An exit to dom0 with this reason; fields of v->page besides it are set by the caller. */
enum vcpu_action vcpu_exit(struct vcpu *v, enum socle_exit reason);

/* Also for instructions that no domain is offered; dom0 may know better. */
static inline enum vcpu_action vcpu_raise_ud(struct vcpu *v)
{
    return unlikely(v->traps & SOCLE_TRAP_UD) ? vcpu_exit(v, SOCLE_EXIT_UD)
                                              : vcpu_raise(v, VEC_UD, false, 0);
}

/* A failed entry or an exit that Socle does not know: logs, ends the domain (dom0: the machine). */
enum vcpu_action vcpu_fail(struct vcpu *v, u64 reason, u64 info1, u64 info2);

/* Takes from v's page what dom0 answers to its last exit; copied once. v is stopped. */
void vcpu_take_answer(struct vcpu *v);

/* Brings v->dr into the processor. */
void vcpu_load_dr(const struct vcpu *v);

/* XSETBV, for the loaded vCPU; checked by the caller. */
void vcpu_set_xcr0(struct vcpu *v, u64 xcr0);

/* Triple fault. */
enum vcpu_action vcpu_shutdown(struct vcpu *v);
