/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtual local APIC: register rules, interrupt priorities, timer, saved state. */
#include "core/vlapic.h"

#include "core/lib.h"
#include "core/panic.h"
#include "drivers/tsc.h"

#define APIC_VERSION   0x50014u /* integrated, LVT entries 0..5, no suppression of EOI broadcasts */
#define ESR_SEND_VEC   0x20u
#define ESR_RECV_VEC   0x40u
#define ESR_REGISTER   0x80u
#define ICR_BUSY       0x1000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TSC        0x40000u

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC };

/* ---- what each register allows ---- */

enum {
    RD = 0x01, /* in either mode */
    WR = 0x02,
    X_RD = 0x04, /* in xAPIC mode only */
    X_WR = 0x08,
    X2_WR = 0x10
};

struct reg_rule {
    u32 holds;   /* the bits that the guest may write, and that saved state may have */
    u16 ignored; /* read-only bits, which may be written with any value */
    u8 access;
    u8 effect; /* VLAPIC_* flags of a write */
};

/* SDM vol. 3, tables 10-1 and 10-6. Reserved bits are ignored in xAPIC mode, #GP in x2APIC mode. */
static const struct reg_rule rules[VLAPIC_REGS] = {
    [VLAPIC_REG_ID... VLAPIC_REG_VERSION] = {0, 0, RD, 0},
    [VLAPIC_REG_TPR] = {0xff, 0, RD | WR, 0},
    [VLAPIC_REG_APR] = {0, 0, X_RD, 0},
    [VLAPIC_REG_PPR] = {0, 0, RD, 0},
    [VLAPIC_REG_EOI] = {0, 0, X_RD | WR, 0},
    [VLAPIC_REG_RRD] = {0, 0, X_RD, 0},
    [VLAPIC_REG_LDR] = {0xff000000, 0, RD | X_WR, VLAPIC_DEST},
    [VLAPIC_REG_DFR] = {0xf0000000, 0, X_RD | X_WR, VLAPIC_DEST},
    [VLAPIC_REG_SVR] = {0x3ff, 0, RD | WR, 0},
    [VLAPIC_REG_ISR... VLAPIC_REG_IRR + 7] = {0xffffffff, 0, RD, 0},
    [VLAPIC_REG_ESR] = {0, 0, RD | WR, 0},
    [VLAPIC_REG_ICR] = {0xccfff, ICR_BUSY, RD | WR, 0},
    [VLAPIC_REG_ICR2] = {0xff000000, 0, X_RD | X_WR, 0},
    [VLAPIC_REG_LVT_TIMER] = {0x700ff, 0x1000, RD | WR, VLAPIC_TIMER},
    [VLAPIC_REG_LVT_THERMAL... VLAPIC_REG_LVT_PMC] = {0x107ff, 0x1000, RD | WR, 0},
    [VLAPIC_REG_LVT_LINT0... VLAPIC_REG_LVT_LINT1] = {0x1a7ff, 0x5000, RD | WR, 0},
    [VLAPIC_REG_LVT_ERROR] = {0x100ff, 0x1000, RD | WR, 0},
    [VLAPIC_REG_TMICT] = {0xffffffff, 0, RD | WR, VLAPIC_TIMER},
    [VLAPIC_REG_TMCCT] = {0, 0, RD, 0},
    [VLAPIC_REG_TDCR] = {0xb, 0, RD | WR, VLAPIC_TIMER},
    [VLAPIC_REG_SELF_IPI] = {0xff, 0, X2_WR, 0},
};

/* Other processors look at a few registers (vlapic_match, vlapic_accepts). */
static void reg_set(struct vlapic *l, u32 reg, u32 value)
{
    __atomic_store_n(&l->reg[reg].value, value, __ATOMIC_RELAXED);
}

static u32 reg_get(const struct vlapic *l, u32 reg)
{
    return __atomic_load_n(&l->reg[reg].value, __ATOMIC_RELAXED);
}

static bool is_x2apic(const struct vlapic *l)
{
    return l->base & APIC_BASE_X2APIC; /* never without ENABLE: base_legal() */
}

/* An x2APIC's logical id follows from its id (SDM vol. 3, 10.12.10.2). */
static u32 x2apic_ldr(u32 id)
{
    return (id >> 4) << 16 | 1u << (id & 0xf);
}

/* ---- IRR, ISR, TMR ---- */

/* The highest vector of the set that begins at register `reg`, or -1; words has a bit for each word
 * that may be other than 0. */
static inline int vector_highest(const struct vlapic *l, enum vlapic_reg reg, u32 words)
{
    while (words) {
        /* 31 ^ clz is one BSR; 31 - clz is not. */
        u32 word = 31u ^ (u32)__builtin_clz(words);
        u32 bits = l->reg[reg + word].value;

        if (likely(bits))
            return (int)(word * 32 | (31u ^ (u32)__builtin_clz(bits)));
        words &= ~(1u << word);
    }
    return -1;
}

static inline void vector_clear(struct vlapic_word *set, u8 *words, u32 vector)
{
    set[vector / 32].value &= ~(1u << (vector % 32));
    if (!set[vector / 32].value)
        *words &= (u8) ~(1u << (vector / 32));
}

static bool software_enabled(const struct vlapic *l)
{
    return reg_get(l, VLAPIC_REG_SVR) & APIC_SVR_ENABLE;
}

bool vlapic_accepts(const struct vlapic *l)
{
    return vlapic_mode(l) != VLAPIC_DISABLED && software_enabled(l);
}

bool vlapic_post(struct vlapic *l, u8 vector, bool level)
{
    u32 bit = 1u << (vector % 32);
    u32 *levels = &l->pir_level[vector / 32];
    u32 old;

    if (vector < 16)
        return false;
    if (!!(__atomic_load_n(levels, __ATOMIC_RELAXED) & bit) != level) {
        if (level)
            __atomic_fetch_or(levels, bit, __ATOMIC_RELAXED);
        else
            __atomic_fetch_and(levels, ~bit, __ATOMIC_RELAXED);
    }
    old = __atomic_fetch_or(&l->pir[vector / 32], bit, __ATOMIC_RELEASE);
    __atomic_store_n(&l->pir_pending, 1, __ATOMIC_RELEASE);
    return !(old & bit);
}

/* Moves what was posted into IRR and TMR. */
static void sync_posted(struct vlapic *l)
{
    if (!__atomic_load_n(&l->pir_pending, __ATOMIC_RELAXED))
        return;
    /* The flag goes down before the words are read: a bit that comes later raises it again. */
    __atomic_exchange_n(&l->pir_pending, 0, __ATOMIC_ACQ_REL);
    for (u32 i = 0; i < ARRAY_SIZE(l->pir); i++) {
        u32 *tmr = &l->reg[VLAPIC_REG_TMR + i].value;
        u32 bits, levels;

        if (!__atomic_load_n(&l->pir[i], __ATOMIC_RELAXED))
            continue;
        bits = __atomic_exchange_n(&l->pir[i], 0, __ATOMIC_ACQUIRE);
        levels = __atomic_load_n(&l->pir_level[i], __ATOMIC_RELAXED);
        if (vlapic_mode(l) == VLAPIC_DISABLED)
            continue;
        l->reg[VLAPIC_REG_IRR + i].value |= bits;
        l->irr_words |= (u8)(1u << i);
        *tmr = (*tmr & ~bits) | (levels & bits);
    }
}

/* SDM vol. 3, 10.8.3.1. */
u8 vlapic_ppr(const struct vlapic *l)
{
    int isr = vector_highest(l, VLAPIC_REG_ISR, l->isr_words);
    u32 class = isr < 0 ? 0 : (u32)isr & 0xf0;
    u32 tpr = l->reg[VLAPIC_REG_TPR].value;

    return (u8)((tpr & 0xf0) >= class ? tpr : class);
}

int vlapic_pending_slow(struct vlapic *l)
{
    int vector;

    sync_posted(l);
    vector = vector_highest(l, VLAPIC_REG_IRR, l->irr_words);
    return (vector & ~0xf) > (vlapic_ppr(l) & 0xf0) ? vector : -1;
}

bool vlapic_blocked_by_tpr(struct vlapic *l)
{
    int vector, isr = vector_highest(l, VLAPIC_REG_ISR, l->isr_words);

    sync_posted(l);
    vector = vector_highest(l, VLAPIC_REG_IRR, l->irr_words) & ~0xf;
    return vector > MAX(isr & ~0xf, 0) && vector <= (int)(l->reg[VLAPIC_REG_TPR].value & 0xf0);
}

/* SDM vol. 3C, 30.5: the guest reads the words themselves. What the processor changes in IRR and
 * ISR is not in the hints. */
void vlapic_set_virtualized(struct vlapic *l, bool on)
{
    l->virtualized = on;
    if (!on)
        return;
    reg_set(l, VLAPIC_REG_ID, l->id);
    reg_set(l, VLAPIC_REG_VERSION, APIC_VERSION);
    reg_set(l, VLAPIC_REG_LDR, x2apic_ldr(l->id));
}

/* ICR's upper half is elsewhere. */
bool vlapic_is_plain(u32 reg)
{
    return (rules[reg].access & RD) && reg != VLAPIC_REG_TMCCT && reg != VLAPIC_REG_ICR;
}

u8 vlapic_in_service(const struct vlapic *l)
{
    return (u8)MAX(vector_highest(l, VLAPIC_REG_ISR, l->isr_words), 0);
}

void vlapic_accept(struct vlapic *l, u8 vector)
{
    ASSERT(l->reg[VLAPIC_REG_IRR + vector / 32].value & (1u << (vector % 32)));
    vector_clear(&l->reg[VLAPIC_REG_IRR], &l->irr_words, vector);
    l->reg[VLAPIC_REG_ISR + vector / 32].value |= 1u << (vector % 32);
    l->isr_words |= (u8)(1u << (vector / 32));
}

int vlapic_eoi(struct vlapic *l)
{
    int highest = vector_highest(l, VLAPIC_REG_ISR, l->isr_words);
    u32 vector = (u32)highest;

    if (highest < 0)
        return -1;
    vector_clear(&l->reg[VLAPIC_REG_ISR], &l->isr_words, vector);
    return vlapic_is_level(l, (u8)vector) ? highest : -1;
}

/* ---- errors and the local vector table ---- */

/* False: the entry has an illegal vector. */
static bool lvt_raise(struct vlapic *l, enum vlapic_reg reg)
{
    u32 lvt = l->reg[reg].value;

    if (lvt & APIC_LVT_MASKED)
        return true;
    if ((lvt & 0xff) < 16)
        return false;
    vlapic_post(l, (u8)lvt, false);
    return true;
}

static void error_raise(struct vlapic *l, u8 error)
{
    bool known = l->esr_pending & error;

    l->esr_pending |= error;
    if (!known && !lvt_raise(l, VLAPIC_REG_LVT_ERROR))
        l->esr_pending |= ESR_RECV_VEC;
}

static void lvt_mask_all(struct vlapic *l)
{
    for (u32 i = VLAPIC_REG_LVT_TIMER; i <= VLAPIC_REG_LVT_ERROR; i++)
        reg_set(l, i, l->reg[i].value | APIC_LVT_MASKED);
}

bool vlapic_accepts_extint(const struct vlapic *l)
{
    u32 lvt = l->reg[VLAPIC_REG_LVT_LINT0].value;

    return vlapic_mode(l) == VLAPIC_DISABLED || (lvt & (APIC_LVT_MASKED | 0x700)) == APIC_EXTINT
                                                                                         << 8;
}

/* ---- timer ---- */

static enum timer_mode timer_mode(const struct vlapic *l)
{
    return (enum timer_mode)((l->reg[VLAPIC_REG_LVT_TIMER].value & LVT_TIMER_MODE) >> 17);
}

/* TDCR bits 3, 1, 0 make 0..7: divide by 2, 4 .. 128, 1 (SDM vol. 3, figure 10-10). */
static u32 timer_divide_shift(const struct vlapic *l)
{
    u32 tdcr = l->reg[VLAPIC_REG_TDCR].value;

    return (((tdcr & 3) | (tdcr & 8) >> 1) + 1) & 7;
}

static void timer_stop(struct vlapic *l)
{
    l->timer_deadline = VLAPIC_NEVER;
    l->tsc_deadline = 0;
}

/* Counts down from `count`, then periodically from TMICT. The APIC's bus clock is 1 GHz. */
static void timer_count(struct vlapic *l, u32 count, u64 now)
{
    u64 initial = l->reg[VLAPIC_REG_TMICT].value;
    u32 shift = timer_divide_shift(l);

    timer_stop(l);
    if (!initial)
        return;
    l->timer_period = scale(MAX(initial << shift, VLAPIC_MIN_PERIOD_NS), l->tsc_per_ns);
    l->timer_period = MAX(l->timer_period, 1);
    l->timer_deadline = now + scale((u64)count << shift, l->tsc_per_ns);
}

/* Arms for a guest TSC value. What can't be expressed in host TSC is too far away to come. */
static void timer_arm_tsc(struct vlapic *l, u64 guest_deadline, u64 now)
{
    u64 guest_now = tsc_scale(now, l->tsc_ratio) + l->tsc_offset;

    timer_stop(l);
    if (!guest_deadline)
        return;
    l->tsc_deadline = guest_deadline;
    if (guest_deadline <= guest_now)
        l->timer_deadline = now;
    else if (__builtin_add_overflow(now, tsc_unscale(guest_deadline - guest_now, l->tsc_ratio),
                                    &l->timer_deadline))
        l->timer_deadline = VLAPIC_NEVER;
}

/* The value of TMCCT: 0 only when nothing is left, for a saved timer must still expire. */
static u32 timer_current(const struct vlapic *l, u64 now)
{
    u64 left = l->timer_deadline - now;
    u64 count;

    if (l->timer_deadline == VLAPIC_NEVER || timer_mode(l) == TIMER_TSC)
        return 0;
    if (now >= l->timer_deadline) {
        if (timer_mode(l) != TIMER_PERIODIC)
            return 0;
        left = l->timer_period - (now - l->timer_deadline) % l->timer_period;
    }
    count = (scale(left, l->ns_per_tsc) >> timer_divide_shift(l)) + 1;
    return (u32)MIN(count, l->reg[VLAPIC_REG_TMICT].value);
}

bool vlapic_timer_fire(struct vlapic *l, u64 now)
{
    if (now < l->timer_deadline)
        return false;
    if (timer_mode(l) == TIMER_PERIODIC)
        l->timer_deadline += ((now - l->timer_deadline) / l->timer_period + 1) * l->timer_period;
    else
        timer_stop(l);
    if (!lvt_raise(l, VLAPIC_REG_LVT_TIMER))
        error_raise(l, ESR_RECV_VEC);
    return true;
}

void vlapic_tsc_changed(struct vlapic *l, u64 offset, u64 now)
{
    l->tsc_offset = offset;
    if (l->tsc_deadline)
        timer_arm_tsc(l, l->tsc_deadline, now);
}

/* Going into or out of TSC-deadline mode disarms the timer; going between the others lets it run
 * (SDM vol. 3, 10.5.4 and 10.5.4.1). */
static void timer_write_lvt(struct vlapic *l, u32 value)
{
    if ((value ^ l->reg[VLAPIC_REG_LVT_TIMER].value) & LVT_TSC) {
        timer_stop(l);
        reg_set(l, VLAPIC_REG_TMICT, 0);
    }
    reg_set(l, VLAPIC_REG_LVT_TIMER, value);
}

/* What is left is counted at the new rate. */
static void timer_write_divide(struct vlapic *l, u32 value, u64 now)
{
    u32 count = timer_current(l, now);

    reg_set(l, VLAPIC_REG_TDCR, value);
    if (l->timer_deadline != VLAPIC_NEVER && timer_mode(l) != TIMER_TSC)
        timer_count(l, count, now);
}

/* ---- reset and modes ---- */

void vlapic_reset(struct vlapic *l, bool init)
{
    u64 base = APIC_DEFAULT_PA | APIC_BASE_ENABLE | (l->base & APIC_BASE_BSP);

    if (!init)
        __atomic_store_n(&l->base, base, __ATOMIC_RELAXED);
    sync_posted(l);
    for (u32 i = 0; i < VLAPIC_REGS; i++)
        reg_set(l, i, 0);
    l->isr_words = 0;
    l->irr_words = 0;
    l->esr_pending = 0;
    reg_set(l, VLAPIC_REG_DFR, rules[VLAPIC_REG_DFR].holds);
    reg_set(l, VLAPIC_REG_SVR, 0xff);
    lvt_mask_all(l);
    /* The wire from the PIC is open from the start, as in KVM: not every firmware opens it. */
    if (l->base & APIC_BASE_BSP)
        reg_set(l, VLAPIC_REG_LVT_LINT0, APIC_EXTINT << 8);
    timer_stop(l);
}

void vlapic_init(struct vlapic *l, struct vlapic_word *reg, u32 id, bool bsp, u32 tsc_khz)
{
    ASSERT(tsc_khz);
    *l = (struct vlapic){.reg = reg, .id = id, .base = bsp ? APIC_BASE_BSP : 0};
    l->tsc_ratio = TSC_RATIO_ONE;
    l->tsc_khz = tsc_khz;
    l->tsc_per_ns = ((u64)tsc_khz << 32) / 1000000;
    l->ns_per_tsc = (1000000ull << 32) / tsc_khz;
    vlapic_reset(l, false);
}

/* SDM vol. 3, figure 10-27. */
static bool base_legal(u64 old, enum vlapic_mode from, u64 value, bool host)
{
    u64 enable = value & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    u64 allowed = APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_X2APIC | PAGE_MASK;

    if ((value & ~allowed) || enable == APIC_BASE_X2APIC)
        return false;
    if (host)
        return true;
    return !((old ^ value) & PAGE_MASK) &&
           !(from == VLAPIC_DISABLED && (enable & APIC_BASE_X2APIC)) &&
           !(from == VLAPIC_X2APIC && enable == APIC_BASE_ENABLE);
}

int vlapic_set_base(struct vlapic *l, u64 value, bool host, struct vlapic_effect *e)
{
    enum vlapic_mode from = vlapic_mode(l);

    e->flags = 0;
    if (!base_legal(l->base, from, value, host))
        return -E_INVAL;
    __atomic_store_n(&l->base, value, __ATOMIC_RELAXED);
    if (vlapic_mode(l) == from)
        return 0;
    reg_set(l, VLAPIC_REG_ICR2, 0);
    e->flags = VLAPIC_MODE | VLAPIC_DEST;
    if (vlapic_mode(l) == VLAPIC_DISABLED) {
        vlapic_reset(l, true);
        e->flags |= VLAPIC_TIMER;
    }
    return 0;
}

/* ---- register reads and writes ---- */

static u32 reg_read(struct vlapic *l, u32 reg, u64 now)
{
    switch (reg) {
    case VLAPIC_REG_ID:
        return is_x2apic(l) ? l->id : l->id << 24;
    case VLAPIC_REG_VERSION:
        return APIC_VERSION;
    case VLAPIC_REG_PPR:
        return vlapic_ppr(l);
    case VLAPIC_REG_LDR:
        return is_x2apic(l) ? x2apic_ldr(l->id) : l->reg[reg].value;
    case VLAPIC_REG_DFR:
        return l->reg[reg].value | ~rules[reg].holds;
    case VLAPIC_REG_TMCCT:
        return timer_current(l, now);
    case VLAPIC_REG_TMR ... VLAPIC_REG_IRR + 7:
        sync_posted(l);
        break;
    }
    return l->reg[reg].value;
}

static void self_ipi(struct vlapic *l, u8 vector)
{
    if (vector < 16)
        error_raise(l, ESR_SEND_VEC);
    else if (vlapic_accepts(l))
        vlapic_post(l, vector, false);
}

/* ICR was written: what the sender itself does (SDM vol. 3, 10.6.1). */
static void icr_send(struct vlapic *l, struct vlapic_effect *e)
{
    u64 icr = l->reg[VLAPIC_REG_ICR].value | (u64)l->reg[VLAPIC_REG_ICR2].value << 32;
    struct apic_msg msg;
    int error = apic_msg_from_icr(icr, is_x2apic(l), &msg);

    if (error == -E_RANGE)
        error_raise(l, ESR_SEND_VEC);
    if (error)
        return;
    if (msg.shorthand == APIC_TO_SELF) {
        self_ipi(l, msg.vector);
        return;
    }
    e->icr = (u32)icr | (u64)msg.dest << 32;
    e->flags |= VLAPIC_IPI;
}

static void eoi_write(struct vlapic *l, struct vlapic_effect *e)
{
    int vector = vlapic_eoi(l);

    if (vector >= 0) {
        e->eoi_vector = (u8)vector;
        e->flags |= VLAPIC_EOI;
    }
}

/* Timer mode 3 is reserved; where it can't be refused it counts as mode 2. ICR keeps its reserved
 * bits in xAPIC mode, as KVM's does. */
static u32 reg_held(u32 reg, u32 value)
{
    if (reg == VLAPIC_REG_ICR)
        return value & ~ICR_BUSY;
    value &= rules[reg].holds;
    if (reg == VLAPIC_REG_LVT_TIMER && (value & LVT_TSC))
        value &= ~(LVT_TIMER_MODE ^ LVT_TSC);
    return value;
}

/* The value has been checked, or cut down by reg_held(). */
static void reg_write(struct vlapic *l, u32 reg, u32 value, u64 now, struct vlapic_effect *e)
{
    e->flags |= rules[reg].effect;
    /* Software-disabling masks the LVT and keeps it masked (SDM vol. 3, 10.4.7.2). */
    if (reg >= VLAPIC_REG_LVT_TIMER && reg <= VLAPIC_REG_LVT_ERROR && !software_enabled(l))
        value |= APIC_LVT_MASKED;
    switch (reg) {
    case VLAPIC_REG_EOI:
        eoi_write(l, e);
        break;
    case VLAPIC_REG_SVR:
        reg_set(l, reg, value);
        if (!software_enabled(l))
            lvt_mask_all(l);
        break;
    case VLAPIC_REG_ESR:
        reg_set(l, reg, l->esr_pending);
        l->esr_pending = 0;
        break;
    case VLAPIC_REG_ICR:
        reg_set(l, reg, value);
        icr_send(l, e);
        break;
    case VLAPIC_REG_LVT_TIMER:
        timer_write_lvt(l, value);
        break;
    case VLAPIC_REG_TMICT:
        if (timer_mode(l) == TIMER_TSC)
            break;
        reg_set(l, reg, value);
        timer_count(l, value, now);
        break;
    case VLAPIC_REG_TDCR:
        timer_write_divide(l, value, now);
        break;
    case VLAPIC_REG_SELF_IPI:
        self_ipi(l, (u8)value);
        break;
    default:
        reg_set(l, reg, value);
    }
}

/* The register at an offset of the page; one that does not exist is noted in ESR. */
static const struct reg_rule *mmio_rule(struct vlapic *l, u32 offset)
{
    u32 reg = offset >> 4;

    if (reg < VLAPIC_REGS && (rules[reg].access & ~X2_WR))
        return &rules[reg];
    error_raise(l, ESR_REGISTER);
    return NULL;
}

u32 vlapic_mmio_read(struct vlapic *l, u32 offset, u64 now)
{
    if (!mmio_rule(l, offset) || (offset & 0xf) > 3)
        return 0;
    return reg_read(l, offset >> 4, now) >> (offset & 3) * 8;
}

void vlapic_mmio_write(struct vlapic *l, u32 offset, u32 value, u64 now, struct vlapic_effect *e)
{
    const struct reg_rule *rule = mmio_rule(l, offset);

    e->flags = 0;
    if (rule && !(offset & 0xf) && (rule->access & (WR | X_WR)))
        reg_write(l, offset >> 4, reg_held(offset >> 4, value), now, e);
}

int vlapic_msr_read(struct vlapic *l, u32 msr, u64 now, u64 *value)
{
    u32 reg = msr - MSR_X2APIC_FIRST;

    if (msr == MSR_TSC_DEADLINE)
        *value = l->tsc_deadline;
    else if (msr == MSR_APIC_BASE)
        *value = l->base;
    else if (!is_x2apic(l) || reg >= VLAPIC_REGS || !(rules[reg].access & RD))
        return -E_INVAL;
    else
        *value = reg_read(l, reg, now);
    if (msr == MSR_X2APIC_FIRST + VLAPIC_REG_ICR)
        *value |= (u64)l->reg[VLAPIC_REG_ICR2].value << 32;
    return 0;
}

static int x2apic_write(struct vlapic *l, u32 reg, u64 value, u64 now, struct vlapic_effect *e)
{
    if (!is_x2apic(l) || reg >= VLAPIC_REGS || !(rules[reg].access & (WR | X2_WR)))
        return -E_INVAL;
    if ((u32)value & ~(rules[reg].holds | rules[reg].ignored))
        return -E_INVAL;
    if (reg == VLAPIC_REG_LVT_TIMER && (value & LVT_TIMER_MODE) == LVT_TIMER_MODE)
        return -E_INVAL;
    if (reg == VLAPIC_REG_ICR)
        reg_set(l, VLAPIC_REG_ICR2, (u32)(value >> 32));
    else if (value >> 32)
        return -E_INVAL;
    reg_write(l, reg, (u32)value & rules[reg].holds, now, e);
    return 0;
}

int vlapic_msr_write(struct vlapic *l, u32 msr, u64 value, u64 now, struct vlapic_effect *e)
{
    e->flags = 0;
    if (msr == MSR_APIC_BASE)
        return vlapic_set_base(l, value, false, e);
    if (msr != MSR_TSC_DEADLINE)
        return x2apic_write(l, msr - MSR_X2APIC_FIRST, value, now, e);
    if (timer_mode(l) == TIMER_TSC) {
        timer_arm_tsc(l, value, now);
        e->flags = VLAPIC_TIMER;
    }
    return 0;
}

/* ---- saved state ---- */

void vlapic_get_state(struct vlapic *l, u8 page[VLAPIC_STATE_BYTES], u64 now)
{
    vlapic_timer_fire(l, now);
    sync_posted(l);
    memset(page, 0, VLAPIC_STATE_BYTES);
    for (u32 i = 0; i < VLAPIC_REGS; i++) {
        u32 value = i == VLAPIC_REG_ID ? l->id << 24 : reg_read(l, i, now);

        memcpy(page + i * 16, &value, sizeof(value));
    }
}

/* Vectors below 16 are no interrupts: IRR keeps their bits, as KVM does, but their class is never
 * above PPR's. */
void vlapic_set_state(struct vlapic *l, const u8 page[VLAPIC_STATE_BYTES], u64 now)
{
    u32 count = load_u32(page + VLAPIC_REG_TMCCT * 16);
    u64 tsc_deadline = l->tsc_deadline;

    sync_posted(l);
    for (u32 i = 0; i < VLAPIC_REGS; i++)
        reg_set(l, i, reg_held(i, load_u32(page + i * 16)));
    if (is_x2apic(l))
        reg_set(l, VLAPIC_REG_ICR2, load_u32(page + VLAPIC_REG_ICR2 * 16));
    reg_set(l, VLAPIC_REG_ESR, page[VLAPIC_REG_ESR * 16]);
    l->reg[VLAPIC_REG_ISR].value &= 0xffff0000;
    l->isr_words = 0;
    l->irr_words = 0;
    for (u32 i = 0; i < 8; i++) {
        l->isr_words |= (u8)(!!l->reg[VLAPIC_REG_ISR + i].value << i);
        l->irr_words |= (u8)(!!l->reg[VLAPIC_REG_IRR + i].value << i);
    }
    l->esr_pending = 0;
    if (timer_mode(l) == TIMER_TSC)
        timer_arm_tsc(l, tsc_deadline, now);
    else if (count || timer_mode(l) == TIMER_PERIODIC)
        timer_count(l, MIN(count, l->reg[VLAPIC_REG_TMICT].value), now);
    else
        timer_stop(l);
}

/* ---- destinations and messages ---- */

/* A logical id and destination are a cluster's number above `members` bits, one for each of it. */
static bool logical_match(u32 id, u32 dest, u32 members)
{
    return id >> members == dest >> members && (id & dest & ((1u << members) - 1));
}

bool vlapic_match(const struct vlapic *l, u32 dest, bool logical)
{
    enum vlapic_mode mode = vlapic_mode(l);
    u32 id = reg_get(l, VLAPIC_REG_LDR) >> 24;
    u32 model = reg_get(l, VLAPIC_REG_DFR) >> 28;

    if (mode == VLAPIC_DISABLED)
        return false;
    if (dest == APIC_DEST_ALL || (dest == 0xff && mode == VLAPIC_XAPIC))
        return true;
    if (!logical)
        return dest == l->id;
    if (mode == VLAPIC_X2APIC)
        return logical_match(x2apic_ldr(l->id), dest, 16);
    if (model == 0xf)
        return logical_match(id, dest, 8); /* flat: one cluster */
    return model == 0 && logical_match(id, dest, 4);
}

static int msg_check(const struct apic_msg *msg)
{
    if (msg->mode == APIC_REMOTE)
        return -E_INVAL;
    return msg->mode <= APIC_LOWEST && msg->vector < 16 ? -E_RANGE : 0;
}

int apic_msg_from_icr(u64 icr, bool x2apic, struct apic_msg *msg)
{
    u32 dest = (u32)(icr >> 32);

    if (!x2apic)
        dest = dest >> 24 == 0xff ? APIC_DEST_ALL : dest >> 24;
    /* The trigger mode means nothing but in INIT de-assert, which no processor knows any more. */
    *msg = (struct apic_msg){.dest = dest,
                             .mode = (icr >> 8) & 7,
                             .vector = (u8)icr,
                             .shorthand = (icr >> 18) & 3,
                             .logical = icr & BIT(11)};
    if (msg->mode == APIC_EXTINT)
        return -E_INVAL;
    if (msg->mode == APIC_INIT && (icr & BIT(15)) && !(icr & BIT(14)))
        return -E_INVAL;
    /* SDM vol. 3, table 10-3: to oneself only fixed. */
    if (msg->shorthand == APIC_TO_SELF && msg->mode != APIC_FIXED)
        return -E_INVAL;
    return msg_check(msg);
}

int apic_msg_from_msi(u64 addr, u32 data, struct apic_msg *msg)
{
    u32 dest = (u32)(addr >> 12 & 0xff) | (u32)(addr >> 32 & 0xffffff00);

    *msg = (struct apic_msg){.dest = dest,
                             .mode = (data >> 8) & 7,
                             .vector = (u8)data,
                             .logical = addr & BIT(2),
                             .level = data & BIT(15)};
    /* The redirection hint asks for one of those that the destination covers. */
    if ((addr & BIT(3)) && msg->mode == APIC_FIXED)
        msg->mode = APIC_LOWEST;
    return (addr & 0xfffff00000ull) == APIC_DEFAULT_PA ? msg_check(msg) : -E_INVAL;
}
