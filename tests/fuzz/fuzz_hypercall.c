/* SPDX-License-Identifier: BSD-2-Clause */
/* A hostile dom0 on two processors: any calls with any arguments, while its guests run, exit, halt
 * and set timers. Whatever it did, destroying its domains brings everything back. */
// SOURCES: core/vcpu.c core/domain.c core/hypercall.c core/irq.c core/event.c core/doorbell.c
// SOURCES: core/exits.c core/sched.c core/heap.c core/vlapic.c core/npt.c core/frame.c core/pool.c
// SOURCES: tests/unit/fake_machine.c core/debug.c
// LIBS: -Wl,--wrap=pool_alloc -Wl,--wrap=pool_free
#include "core/doorbell.h"
#include "core/lib.h"
#include "core/panic.h"
#include "drivers/apic.h"
#include "tests/unit/fake_machine.h"

#define NCPUS    2
#define OP_BYTES 8
#define MAX_OPS  64

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const u64 hostile[16] = {0,
                                1,
                                ~0ull,
                                BIT(63),
                                BIT(36),
                                BIT(32) | 1,
                                BIT(12),
                                PAGE_SIZE + 1,
                                HOLE_PFN,
                                HOLE_PFN << PAGE_SHIFT,
                                MAX_PFN,
                                SOCLE_MAP_MAX_PAGES,
                                SOCLE_EVENT_PORTS,
                                0xfee00000,
                                1023,
                                4096};

enum kind { ANY, DOMAIN, VCPU, GPA, GFN, MFN, COUNT, SMALL, DATA, MSI, BELL };

/* What the arguments are meant to be. */
static const u8 kinds[][5] = {
    {GPA},                            /* INFO */
    {ANY, GPA},                       /* LOG_READ */
    {GPA, DATA},                      /* EVENTS */
    {ANY},                            /* DOMAIN_CREATE */
    {DOMAIN},                         /* DOMAIN_DESTROY */
    {DOMAIN, SMALL, SMALL},           /* DOMAIN_SET */
    {SMALL, GPA},                     /* DOMAIN_NEXT */
    {DOMAIN, GFN, MFN, COUNT, SMALL}, /* MAP */
    {DOMAIN, GFN, COUNT},             /* UNMAP */
    {DOMAIN, GFN, COUNT},             /* PROTECT */
    {DOMAIN, SMALL, GPA, SMALL},      /* VCPU_CREATE */
    {VCPU, ANY},                      /* VCPU_RUN */
    {VCPU},                           /* VCPU_STOP */
    {VCPU, SMALL, GPA, DATA},         /* VCPU_GET */
    {VCPU, SMALL, GPA, DATA},         /* VCPU_SET */
    {VCPU, SMALL},                    /* VCPU_SIGNAL */
    {VCPU, GPA},                      /* VCPU_STATS */
    {DOMAIN, MSI, DATA},              /* MSI */
    {DOMAIN, SMALL, BELL, SMALL},     /* DOORBELL_ADD */
    {DOMAIN, SMALL, BELL, SMALL},     /* DOORBELL_REMOVE */
    {DOMAIN, GPA},                    /* DIRTY_LOG */
    {ANY},                            /* none */
};

static u64 argument(enum kind kind, u8 byte)
{
    if (byte >= 240)
        return hostile[byte & 15];
    switch (kind) {
    case DOMAIN:
        return 1 + byte % 3;
    case VCPU:
        return NCPUS + byte % 6;
    case GPA:
        return DOM0_PA(byte & 7);
    case GFN:
        return (u64)byte << (byte & 1 ? 0 : 6);
    case MFN:
        return byte & 1 ? DOM0_PFN(byte) : DOM0_PFN((byte & 6) * 256ull);
    case COUNT:
        return byte & 1 ? byte >> 3 : byte * 64ull;
    case MSI:
        return 0xfee00000 | (byte & 3ull) << 12;
    case BELL:
        return SOCLE_DOORBELL(byte, 1 << (byte & 3), byte & 4 ? SOCLE_DOORBELL_PIO : 0);
    case SMALL:
        return byte % 12;
    case DATA:
        return byte;
    default:
        return 0;
    }
}

static void take_interrupts(struct vcpu *d)
{
    int vector;

    while ((vector = vcpu_next_interrupt(d)) >= 0) {
        vcpu_accept_interrupt(d, (u8)vector);
        vlapic_eoi(&d->lapic);
    }
}

static enum vcpu_action dom0_turn(struct vcpu *d, const u8 *op)
{
    static const u8 where[] = {RDI, RSI, RDX, R10, R8};
    u32 nr = op[1] % ARRAY_SIZE(kinds);

    take_interrupts(d);
    d->next_rip = d->rip + 3;
    if (op[1] == 255)
        return exit_hlt(d);
    d->gpr[RAX] = SOCLE_HC_BASE + nr;
    for (u32 i = 0; i < 5; i++)
        d->gpr[where[i]] = argument(kinds[nr][i], op[2 + i]);
    return exit_hypercall(d, op[7] == 255 ? 3 : 0, op[7] != 254);
}

static enum vcpu_action guest_turn(struct vcpu *v, const u8 *op)
{
    struct vlapic_effect e;

    v->next_rip = v->rip + 1;
    v->rflags = op[3] & 1 ? v->rflags | RFLAGS_IF : v->rflags & ~RFLAGS_IF;
    v->nmi_pending = false;
    if (op[3] & 2)
        v->lapic.reg[VLAPIC_REG_SVR].value |= APIC_SVR_ENABLE;
    switch (op[1] % 8) {
    case 0:
        return exit_hlt(v);
    case 1:
        return VCPU_YIELD;
    case 2:
        v->io = (struct io_state){.kind = (enum io_kind)(op[2] % (IO_MSR_WRITE + 1))};
        return vcpu_exit(v, SOCLE_EXIT_IO);
    case 3:
        return vcpu_fail(v, 1, 2, 3);
    case 4:
        vlapic_mmio_write(&v->lapic, (u32)(op[2] & 63) * 16, load_u32(op + 4), rdtsc(), &e);
        vcpu_apply_effect(v, &e);
        return VCPU_RESUME;
    case 5:
        if (vcpu_next_interrupt(v) >= 0)
            vcpu_accept_interrupt(v, (u8)vcpu_next_interrupt(v));
        return VCPU_RESUME;
    case 6:
        doorbell_ring(v->domain, op[2] % 12, (u8)(1 << (op[3] >> 6)), op[4] % 12, op[3] & 4);
        return VCPU_RESUME;
    default:
        return vcpu_shutdown(v);
    }
}

static void turn(const u8 *op)
{
    u32 cpu = op[0] % NCPUS;
    struct vcpu *v;

    if (op[0] & 0x80)
        fake_interrupt(cpu, op[0] & 0x40 ? APIC_VECTOR_TIMER : (u8)(0x30 + (op[1] & 63)));
    v = fake_enter(cpu);
    if (!v)
        fake_interrupt(cpu, 0x35); /* some device always comes */
    else
        fake_leave(cpu, v->page ? guest_turn(v, op) : dom0_turn(v, op));
    fake_enter(cpu);
}

static void end_all(void)
{
    for (u32 cpu = 0; cpu < NCPUS; cpu++) {
        fake_interrupt(cpu, 0x36);
        fake_until(cpu, pcpus[cpu]->dom0);
        take_interrupts(pcpus[cpu]->dom0);
    }
    for (u64 id = 1; id < 3 + MAX_OPS; id++) {
        u32 tries = 0;

        while (fake_call(0, SOCLE_HC_DOMAIN_DESTROY, id, 0, 0, 0, 0) == -E_AGAIN) {
            ASSERT(++tries < 1000);
            fake_interrupt(1, 0x36); /* its RUN ends, if it is in one */
            fake_until(1, pcpus[1]->dom0);
            take_interrupts(pcpus[1]->dom0);
        }
    }
    fake_call(0, SOCLE_HC_EVENTS, 0, 0, 0, 0, 0);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct fake_totals before;
    struct fake_totals after;

    if (!pcpu_count) {
        fake_start(NCPUS);
        before = fake_totals();
    }
    if (!size)
        return 0;
    for (u32 i = 0; i < data[0] % 3u; i++)
        fake_domain(2, 2 * i);
    for (size_t i = 1; i + OP_BYTES <= size && i < MAX_OPS * OP_BYTES; i += OP_BYTES)
        turn(data + i);
    end_all();
    after = fake_totals();
    ASSERT(!memcmp(&before, &after, sizeof(before)));
    ASSERT(!dom0.refs);
    return 0;
}
