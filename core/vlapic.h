/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtual local APIC of a vCPU: registers, priorities and timer, as xAPIC and x2APIC (Intel SDM
 * vol. 3 ch. 10, AMD APM vol. 2 ch. 16). It is pure state: it calls nobody, and tells in a struct
 * vlapic_effect what must happen outside. Times are host TSC values that the caller gives.
 *
 * Only the processor that the vCPU belongs to may call these functions, with the exception of
 * vlapic_post(), vlapic_accepts(), vlapic_match() and vlapic_mode(), which any processor may call
 * at any time, and of the decoders, which have no state. */
#pragma once

#include "core/types.h"
#include "core/x86.h"

/* Register n of VLAPIC_REG_* is MSR 0x800 + n, and at n * 16 in memory. */

enum vlapic_reg {
    VLAPIC_REG_ID = 0x02,
    VLAPIC_REG_VERSION = 0x03,
    VLAPIC_REG_TPR = 0x08,
    VLAPIC_REG_APR = 0x09,
    VLAPIC_REG_PPR = 0x0a,
    VLAPIC_REG_EOI = 0x0b,
    VLAPIC_REG_RRD = 0x0c,
    VLAPIC_REG_LDR = 0x0d,
    VLAPIC_REG_DFR = 0x0e,
    VLAPIC_REG_SVR = 0x0f,
    VLAPIC_REG_ISR = 0x10, /* eight each */
    VLAPIC_REG_TMR = 0x18,
    VLAPIC_REG_IRR = 0x20,
    VLAPIC_REG_ESR = 0x28,
    VLAPIC_REG_ICR = 0x30,
    VLAPIC_REG_ICR2 = 0x31,
    VLAPIC_REG_LVT_TIMER = 0x32,
    VLAPIC_REG_LVT_THERMAL = 0x33,
    VLAPIC_REG_LVT_PMC = 0x34,
    VLAPIC_REG_LVT_LINT0 = 0x35,
    VLAPIC_REG_LVT_LINT1 = 0x36,
    VLAPIC_REG_LVT_ERROR = 0x37,
    VLAPIC_REG_TMICT = 0x38,
    VLAPIC_REG_TMCCT = 0x39,
    VLAPIC_REG_TDCR = 0x3e,
    VLAPIC_REG_SELF_IPI = 0x3f,
    VLAPIC_REGS = 0x40
};

#define APIC_SVR_ENABLE 0x100u
#define APIC_LVT_MASKED 0x10000u

#define VLAPIC_NEVER (~0ull)
/* Shorter periods are stretched: no guest may keep Socle busy. */
#define VLAPIC_MIN_PERIOD_NS 20000u
#define VLAPIC_STATE_BYTES   1024
#define APIC_DEST_ALL        0xffffffffu

enum vlapic_mode { VLAPIC_DISABLED, VLAPIC_XAPIC, VLAPIC_X2APIC };

/* The delivery modes, as encoded in ICR, LVT and MSI data. */
enum apic_delivery {
    APIC_FIXED,
    APIC_LOWEST,
    APIC_SMI,
    APIC_REMOTE, /* reserved: KVM_HC_KICK_CPU's */
    APIC_NMI,
    APIC_INIT,
    APIC_SIPI,
    APIC_EXTINT
};

enum apic_shorthand { APIC_TO_DEST, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };

struct apic_msg {
    u32 dest;     /* APIC_DEST_ALL: everyone */
    u8 mode;      /* enum apic_delivery */
    u8 vector;    /* >= 16 where mode is fixed or lowest */
    u8 shorthand; /* enum apic_shorthand */
    bool logical;
    bool level;
};

/* What a register write asks of the caller. */
#define VLAPIC_IPI   0x01u /* route icr: apic_msg_from_icr(icr, true, ...) */
#define VLAPIC_EOI   0x02u /* eoi_vector, level-triggered, has ended: tell the IOAPIC */
#define VLAPIC_TIMER 0x04u /* timer_deadline may be another */
#define VLAPIC_DEST  0x08u /* LDR, DFR or mode: what vlapic_match() finds may be another */
#define VLAPIC_MODE  0x10u /* vlapic_mode() changed */

struct vlapic_effect {
    u32 flags; /* VLAPIC_*; the other fields are only set if it says so */
    u8 eoi_vector;
    u64 icr; /* in x2APIC form: destination in bits 63:32, APIC_DEST_ALL for a broadcast */
};

/* The registers lie as in memory, so that the processor can work on them itself (Intel SDM vol. 3C,
 * 30.1, "virtual-APIC page"). */
struct vlapic_word {
    u32 value;
    u32 unused[3];
};

struct vlapic {
    struct vlapic_word *reg; /* some are made when read: ID, PPR, TMCCT, an x2APIC's LDR */
    u8 isr_words;            /* bit n: reg[VLAPIC_REG_ISR + n] may be other than 0 */
    u8 irr_words;
    u8 esr_pending;   /* becomes ESR when ESR is written */
    bool virtualized; /* the processor itself ends interrupts: it changes ISR */
    u32 id;           /* x2APIC id; constant */
    u64 base;         /* the APIC_BASE MSR */

    u64 timer_deadline; /* host TSC of the next expiry, may be past; or VLAPIC_NEVER */
    u64 timer_period;   /* in host TSC ticks */
    u64 tsc_deadline;   /* the TSC_DEADLINE MSR (guest TSC), 0 when not armed */
    u64 tsc_ratio;      /* guest TSC = tsc_scale(host TSC, tsc_ratio) + tsc_offset */
    u64 tsc_offset;
    u32 tsc_khz;    /* the guest's */
    u64 tsc_per_ns; /* both with 32 fraction bits */
    u64 ns_per_tsc;

    /* What other processors write: a bit per vector, and then the flag. */
    u32 pir[8] ALIGNED(64);
    u8 pir_pending;
    u32 pir_level[8]; /* trigger mode of the vectors in pir */
};

/* reg: VLAPIC_REGS words of the caller's. A power-up reset follows. tsc_khz: of the host, not 0;
 * the guest's is the same. */
void vlapic_init(struct vlapic *l, struct vlapic_word *reg, u32 id, bool bsp, u32 tsc_khz);

/* Power-up reset, or what INIT does (`init`): that keeps the mode. What was posted is dropped. */
void vlapic_reset(struct vlapic *l, bool init);

static inline enum vlapic_mode vlapic_mode(const struct vlapic *l)
{
    u64 base = __atomic_load_n(&l->base, __ATOMIC_RELAXED);

    return (enum vlapic_mode)(((base >> 11) & 1) + ((base >> 10) & 1));
}

/* ---- registers ---- */

/* Access in xAPIC mode; offset is within the page of APIC_BASE. The caller made sure of the mode.
 * What is wrong is ignored and noted in ESR. A read gives the bytes from that offset on, in the low
 * part. */
u32 vlapic_mmio_read(struct vlapic *l, u32 offset, u64 now);
void vlapic_mmio_write(struct vlapic *l, u32 offset, u32 value, u64 now, struct vlapic_effect *e);

/* MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC_FIRST..MSR_X2APIC_LAST. -E_INVAL: #GP, and nothing
 * has changed. */
int vlapic_msr_read(struct vlapic *l, u32 msr, u64 now, u64 *value);
int vlapic_msr_write(struct vlapic *l, u32 msr, u64 value, u64 now, struct vlapic_effect *e);

/* Sets APIC_BASE. A guest may go disabled > xAPIC > x2APIC > disabled or xAPIC > disabled only, the
 * host between any two modes, and to any page. -E_INVAL: not legal. */
int vlapic_set_base(struct vlapic *l, u64 value, bool host, struct vlapic_effect *e);

static inline u8 vlapic_cr8(const struct vlapic *l)
{
    return (l->reg[VLAPIC_REG_TPR].value >> 4) & 0xf;
}

static inline void vlapic_set_cr8(struct vlapic *l, u8 cr8)
{
    l->reg[VLAPIC_REG_TPR].value = (u32)(cr8 & 0xf) << 4;
}

/* KVM_GET_LAPIC and KVM_SET_LAPIC: each register at its xAPIC offset, the id in bits 31:24 in every
 * mode, ICR's destination at 0x310. SET takes any bytes, clears what no APIC can hold, keeps id and
 * mode, and drops what was posted; the caller re-arms the timer and rebuilds what depends on
 * vlapic_match(). */
void vlapic_get_state(struct vlapic *l, u8 page[VLAPIC_STATE_BYTES], u64 now);
void vlapic_set_state(struct vlapic *l, const u8 page[VLAPIC_STATE_BYTES], u64 now);

/* ---- interrupts in and out ---- */

/* Takes fixed interrupts: enabled, by software too. */
bool vlapic_accepts(const struct vlapic *l);

/* Makes an interrupt pending. Does not ask vlapic_accepts(). True if the vector was not posted yet:
 * then the vCPU has to be woken or kicked. Vectors below 16 are refused (false). */
bool vlapic_post(struct vlapic *l, u8 vector, bool level);

int vlapic_pending_slow(struct vlapic *l);

/* The vector to inject next, or -1. */
static inline int vlapic_pending(struct vlapic *l)
{
    if (likely(!(__atomic_load_n(&l->pir_pending, __ATOMIC_RELAXED) | l->irr_words)))
        return -1;
    return vlapic_pending_slow(l);
}

u8 vlapic_ppr(const struct vlapic *l);

/* Only TPR holds back the highest vector in IRR: the caller must see the next write of CR8. */
bool vlapic_blocked_by_tpr(struct vlapic *l);

/* The processor ends interrupts and reads the registers itself, in x2APIC mode, or no more. */
void vlapic_set_virtualized(struct vlapic *l, bool on);

/* The highest vector in service; 0: none. */
u8 vlapic_in_service(const struct vlapic *l);

static inline bool vlapic_is_level(const struct vlapic *l, u8 vector)
{
    return l->reg[VLAPIC_REG_TMR + vector / 32].value & (1u << (vector % 32));
}

/* What the word in memory has is what an x2APIC's register reads as, where virtualized. */
bool vlapic_is_plain(u32 reg);

/* Takes the vector that vlapic_pending() gave: from IRR to ISR. */
void vlapic_accept(struct vlapic *l, u8 vector);

/* Ends the highest interrupt in service. Returns its vector if it was level-triggered, else -1. */
int vlapic_eoi(struct vlapic *l);

/* LINT0 lets the PIC's interrupts through. */
bool vlapic_accepts_extint(const struct vlapic *l);

/* ---- timer ---- */

/* If the timer is due: posts its interrupt unless it's masked, and arms the next period (periods
 * that were missed are merged). True if it was due. */
bool vlapic_timer_fire(struct vlapic *l, u64 now);

/* The guest's TSC has this offset now, and may have another ratio. A deadline that is armed moves
 * in host time. */
void vlapic_tsc_changed(struct vlapic *l, u64 offset, u64 now);

/* ---- destinations ---- */

/* The message's destination field covers this APIC; a disabled one is never covered. An id above
 * 0xff is reached by its full value in xAPIC mode too, so that a vCPU that has not yet enabled
 * x2APIC can be started. */
bool vlapic_match(const struct vlapic *l, u32 dest, bool logical);

/* Decode an ICR value (in x2APIC form, or in xAPIC form with an 8-bit destination in 63:56) or an
 * MSI. An MSI's destination bits 31:8 are in address bits 63:40, as KVM has it. In ICR's 8-bit form
 * 0xff is everyone. -E_INVAL: nothing that could be delivered (reserved mode, vector below 16, no
 * MSI address, INIT de-assert). */
int apic_msg_from_icr(u64 icr, bool x2apic, struct apic_msg *msg);
int apic_msg_from_msi(u64 addr, u32 data, struct apic_msg *msg);
