/* SPDX-License-Identifier: BSD-2-Clause */
/* Random accesses, interrupts, timer ticks and saved states: whatever a guest and dom0 do, the
 * virtual local APIC stays consistent. */
// SOURCES: core/vlapic.c
#include <stdlib.h>
#include <string.h>

#include "core/errno.h"
#include "core/vlapic.h"
#include "drivers/tsc.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(cond)  \
    do {             \
        if (!(cond)) \
            abort(); \
    } while (0)

struct input {
    const u8 *data;
    size_t left;
};

static u64 take(struct input *in, u32 bytes)
{
    u64 value = 0;

    for (; bytes && in->left; bytes--, in->left--)
        value = value << 8 | *in->data++;
    return value;
}

/* The plain way, for comparison. */
static int highest(const struct vlapic_word *set)
{
    for (int v = 255; v >= 0; v--)
        if (set[v / 32].value & (1u << v % 32))
            return v;
    return -1;
}

static void check_set(const struct vlapic_word *set, u8 words)
{
    for (u32 i = 0; i < 8; i++)
        CHECK(!!set[i].value == !!(words & 1 << i));
}

static void check_priorities(struct vlapic *l)
{
    int pending = vlapic_pending(l);
    int irr = highest(&l->reg[VLAPIC_REG_IRR]), isr = highest(&l->reg[VLAPIC_REG_ISR]);
    int tpr = (int)l->reg[VLAPIC_REG_TPR].value, service = isr < 0 ? 0 : isr & 0xf0;
    int ppr = tpr >> 4 >= service >> 4 ? tpr : service;

    check_set(&l->reg[VLAPIC_REG_IRR], l->irr_words);
    check_set(&l->reg[VLAPIC_REG_ISR], l->isr_words);
    CHECK(!(l->reg[VLAPIC_REG_ISR].value & 0xffff));
    CHECK(tpr <= 0xff && vlapic_cr8(l) == tpr >> 4);
    CHECK(vlapic_ppr(l) == ppr);
    CHECK(pending == (irr >= 0 && irr >> 4 > ppr >> 4 ? irr : -1));
    CHECK(vlapic_blocked_by_tpr(l) ==
          (irr >= 0 && irr >> 4 > service >> 4 && irr >> 4 <= tpr >> 4));
}

static void check_timer(struct vlapic *l, u64 now)
{
    u32 lvt = l->reg[VLAPIC_REG_LVT_TIMER].value;
    bool tsc = lvt & 0x40000;

    CHECK((lvt & 0x60000) != 0x60000);
    CHECK(tsc || !l->tsc_deadline);
    if (tsc && !l->tsc_deadline)
        CHECK(l->timer_deadline == VLAPIC_NEVER);
    if (!tsc && l->timer_deadline != VLAPIC_NEVER)
        CHECK(l->timer_period * 1000 >= VLAPIC_MIN_PERIOD_NS * 2999ull);
    CHECK(vlapic_mode(l) != VLAPIC_XAPIC ||
          vlapic_mmio_read(l, VLAPIC_REG_TMCCT * 16, now) <= l->reg[VLAPIC_REG_TMICT].value);
    if (vlapic_timer_fire(l, now))
        CHECK(l->timer_deadline > now);
}

static void check_round_trip(struct vlapic *l, u64 now)
{
    u8 a[VLAPIC_STATE_BYTES], b[VLAPIC_STATE_BYTES];

    vlapic_get_state(l, a, now);
    vlapic_set_state(l, a, now);
    vlapic_get_state(l, b, now);
    memcpy(b + VLAPIC_REG_TMCCT * 16, a + VLAPIC_REG_TMCCT * 16, 4);
    CHECK(!memcmp(a, b, sizeof(a)));
}

static void check_effect(const struct vlapic_effect *e)
{
    struct apic_msg m;

    CHECK(!(e->flags & ~0xffu));
    if (e->flags & VLAPIC_IPI) {
        CHECK(apic_msg_from_icr(e->icr, true, &m) == 0);
        CHECK(m.shorthand != APIC_TO_SELF && m.mode != APIC_EXTINT);
        CHECK(m.mode > APIC_LOWEST || m.vector >= 16);
    }
    if (e->flags & VLAPIC_EOI)
        CHECK(e->eoi_vector >= 16);
}

static void load_state(struct vlapic *l, struct input *in, u64 now)
{
    u8 page[VLAPIC_STATE_BYTES];
    u8 n = (u8)take(in, 1), fill = n & 1 ? 0xff : 0;

    memset(page, fill, sizeof(page));
    for (; n > 1; n -= 2)
        page[take(in, 2) % sizeof(page)] = (u8)take(in, 1);
    vlapic_set_state(l, page, now);
}

static void interrupts(struct vlapic *l, struct input *in)
{
    int vector;

    switch (take(in, 1) % 4) {
    case 0:
        vector = (int)take(in, 1);
        vlapic_post(l, (u8)vector, take(in, 1) & 1);
        break;
    case 1:
        vector = vlapic_pending(l);
        if (vector < 0)
            break;
        vlapic_accept(l, (u8)vector);
        CHECK(highest(&l->reg[VLAPIC_REG_ISR]) == vector);
        break;
    case 2:
        vector = highest(&l->reg[VLAPIC_REG_ISR]);
        CHECK(vlapic_eoi(l) <= vector);
        CHECK(vector < 0 || highest(&l->reg[VLAPIC_REG_ISR]) < vector);
        break;
    case 3:
        vlapic_set_cr8(l, (u8)take(in, 1));
        break;
    }
}

static void decode(struct vlapic *l, struct input *in)
{
    u64 addr = take(in, 8);
    struct apic_msg m;

    if (apic_msg_from_msi(take(in, 1) & 1 ? addr : 0xfee00000 | (addr & 0xffffffff000ffffcull),
                          (u32)take(in, 4), &m) == 0)
        CHECK(m.mode != APIC_REMOTE && (m.mode > APIC_LOWEST || m.vector >= 16));
    if (vlapic_match(l, m.dest, m.logical))
        CHECK(vlapic_mode(l) != VLAPIC_DISABLED);
    apic_msg_from_icr(addr, take(in, 1) & 1, &m);
}

/* The MSRs that matter, more often than they'd come by themselves. */
static u32 pick_msr(struct input *in)
{
    u8 n = (u8)take(in, 1);

    if (n >= 0xf0)
        return MSR_TSC_DEADLINE;
    return n >= 0xe8 ? MSR_APIC_BASE : MSR_X2APIC_FIRST + n % 0x48;
}

static void step(struct vlapic *l, struct input *in, u64 *now)
{
    struct vlapic_effect e = {0};
    u64 value;
    u32 msr;

    switch (take(in, 1) % 12) {
    case 0 ... 2:
        value = take(in, 2) & 0xfff;
        if (vlapic_mode(l) == VLAPIC_XAPIC)
            vlapic_mmio_write(l, (u32)(value & ~0xfull) | (value % 16 == 1), (u32)take(in, 4), *now,
                              &e);
        break;
    case 3 ... 5:
        msr = pick_msr(in);
        value = take(in, msr == MSR_APIC_BASE ? 2 : msr == MSR_TSC_DEADLINE ? 8 : 4);
        if (msr == MSR_APIC_BASE)
            value |= APIC_DEFAULT_PA;
        if (vlapic_msr_write(l, msr, value, *now, &e) < 0)
            CHECK(!e.flags);
        break;
    case 6:
        vlapic_msr_read(l, pick_msr(in), *now, &value);
        vlapic_mmio_read(l, (u32)take(in, 2) & 0xfff, *now);
        break;
    case 7:
        *now += take(in, 5);
        break;
    case 8:
        load_state(l, in, *now);
        break;
    case 9:
        decode(l, in);
        value = take(in, 8);
        l->tsc_ratio = value & 1 ? value : TSC_RATIO_ONE;
        vlapic_tsc_changed(l, take(in, 8), *now);
        break;
    case 10:
        value = take(in, 1);
        if (value < 8)
            vlapic_reset(l, value & 1);
        else if (value < 40)
            vlapic_set_base(l, APIC_DEFAULT_PA | take(in, 2), true, &e);
        else
            check_round_trip(l, *now);
        break;
    case 11:
        interrupts(l, in);
        break;
    }
    check_effect(&e);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct input in = {data, size};
    static struct vlapic_word page[VLAPIC_REGS];
    static struct vlapic l;
    u64 now = 1ull << 40;

    vlapic_init(&l, page, (u32)take(&in, 2), take(&in, 1) & 1, 2999999);
    while (in.left) {
        step(&l, &in, &now);
        CHECK(!(l.base & APIC_BASE_X2APIC) || (l.base & APIC_BASE_ENABLE));
        check_priorities(&l);
        check_timer(&l, now);
    }
    return 0;
}
