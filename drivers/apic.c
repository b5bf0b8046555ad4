/* SPDX-License-Identifier: BSD-2-Clause */
/* The physical local APIC (Intel SDM vol. 3, ch. 11; AMD APM vol. 2, ch. 16). */
#include "drivers/apic.h"
#include "core/io.h"
#include "core/log.h"
#include "core/paging.h"
#include "core/vlapic.h"

#define LVTT_DEADLINE    0x40000u
#define ICR_PENDING      0x1000u
#define ICR_ASSERT       0x4000u
#define ICR_ALL_BUT_SELF 0xc0000u
#define PIC_MASTER_MASK  0x21
#define PIC_SLAVE_MASK   0xa1

#define TDCR_DIVIDE_BY_16 0x3u
#define TIMER_SHIFT       32

static volatile u32 *mmio;
static bool x2apic, deadline_mode;
static u64 ticks_per_tsc; /* of the one-shot counter, fixed point */
static u64 longest_tsc;   /* what the counter reaches */

static u32 read_reg(u32 reg)
{
    return x2apic ? (u32)rdmsr(MSR_X2APIC_FIRST + reg) : mmio[reg * 4];
}

static void write_reg(u32 reg, u32 value)
{
    if (x2apic)
        wrmsr(MSR_X2APIC_FIRST + reg, value);
    else
        mmio[reg * 4] = value;
}

void apic_init(void)
{
    struct cpuid_regs features = cpuid(1, 0);

    x2apic = features.ecx & BIT(21);
    deadline_mode = features.ecx & BIT(24);
    mmio = paging_map_lapic();
    /* The PICs' interrupts are exceptions' vectors as the firmware leaves them. */
    outb(PIC_MASTER_MASK, 0xff);
    outb(PIC_SLAVE_MASK, 0xff);
}

void apic_init_cpu(void)
{
    /* Where dom0's map has its hole, wherever the firmware has left it. */
    u64 base = (rdmsr(MSR_APIC_BASE) & ~PAGE_MASK) | APIC_DEFAULT_PA | APIC_BASE_ENABLE;

    wrmsr(MSR_APIC_BASE, base);
    if (x2apic)
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
    /* First of all: a disabled APIC keeps every LVT entry masked (Intel SDM vol. 3A, 11.4.7.2). */
    write_reg(VLAPIC_REG_SVR, APIC_SVR_ENABLE | APIC_VECTOR_SPURIOUS);
    write_reg(VLAPIC_REG_TPR, 0);
    for (u32 reg = VLAPIC_REG_LVT_THERMAL; reg <= VLAPIC_REG_LVT_ERROR; reg++)
        write_reg(reg, APIC_LVT_MASKED);
    write_reg(VLAPIC_REG_TDCR, TDCR_DIVIDE_BY_16);
    write_reg(VLAPIC_REG_LVT_TIMER, APIC_VECTOR_TIMER | (deadline_mode ? LVTT_DEADLINE : 0));
}

u32 apic_id(void)
{
    return x2apic ? read_reg(VLAPIC_REG_ID) : read_reg(VLAPIC_REG_ID) >> 24;
}

bool apic_is_x2apic(void)
{
    return x2apic;
}

void apic_eoi(void)
{
    write_reg(VLAPIC_REG_EOI, 0);
}

void apic_timer_calibrate(u64 tsc_khz)
{
    u64 start, elapsed, ticks;

    if (deadline_mode)
        return;
    write_reg(VLAPIC_REG_TMICT, ~0u); /* does not run out meanwhile */
    start = rdtsc();
    while (rdtsc() - start < tsc_khz * 10)
        cpu_relax();
    ticks = ~0u - read_reg(VLAPIC_REG_TMCCT);
    elapsed = rdtsc() - start;
    write_reg(VLAPIC_REG_TMICT, 0);
    ticks_per_tsc = (ticks << TIMER_SHIFT) / elapsed;
    longest_tsc = (elapsed << 30) / MAX(ticks, 1u);
    log_info("local APIC timer: %lu kHz", (ticks * tsc_khz / elapsed));
}

void apic_timer_set(u64 deadline)
{
    u64 now, delta;

    if (deadline_mode) {
        wrmsr(MSR_TSC_DEADLINE, deadline == ~0ull ? 0 : deadline);
        return;
    }
    if (deadline == ~0ull) {
        write_reg(VLAPIC_REG_TMICT, 0);
        return;
    }
    now = rdtsc();
    delta = deadline > now ? MIN(deadline - now, longest_tsc) : 0;
    write_reg(VLAPIC_REG_TMICT, (u32)((delta * ticks_per_tsc) >> TIMER_SHIFT) + 1);
}

/* xAPIC: the command register takes one command at a time. The wait ends: delivery depends on no
 * domain. */
void apic_send(u32 dest, u32 command)
{
    command |= ICR_ASSERT;
    if (x2apic) {
        wrmsr(MSR_X2APIC_FIRST + VLAPIC_REG_ICR, (u64)dest << 32 | command);
        return;
    }
    while (mmio[VLAPIC_REG_ICR * 4] & ICR_PENDING)
        cpu_relax();
    mmio[VLAPIC_REG_ICR2 * 4] = dest << 24;
    mmio[VLAPIC_REG_ICR * 4] = command;
}

void apic_stop_others(void)
{
    if (mmio)
        apic_send(0, ICR_ALL_BUT_SELF | APIC_VECTOR_STOP);
}

bool apic_in_service(u8 vector)
{
    return read_reg(VLAPIC_REG_ISR + vector / 32) >> (vector % 32) & 1;
}

bool apic_is_level(u8 vector)
{
    return read_reg(VLAPIC_REG_TMR + vector / 32) >> (vector % 32) & 1;
}

void apic_set_logical(u32 ldr, u32 dfr)
{
    if (x2apic)
        return;
    write_reg(VLAPIC_REG_DFR, dfr);
    write_reg(VLAPIC_REG_LDR, ldr);
}
