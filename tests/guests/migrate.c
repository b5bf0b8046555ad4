/* SPDX-License-Identifier: BSD-2-Clause */
/* A busy guest that notices what a snapshot or a migration loses: it writes memory all the time and
 * looks at what it wrote before, and at its registers, clocks and interrupts. A line each half
 * second says how far it is; the first thing that is wrong ends it. QEMU's -append: "MIB
 * PAGES-PER-SECOND [x2apic]". */
#include "tests/guests/guest.h"

const char guest_name[] = "migrate";

#define FIRST_PAGE   0x1000000u
#define TICK_MS      10
#define VECTOR_HELD  0x31 /* in service, never ended */
#define VECTOR_IRR   0x51 /* requested; the TPR holds it back */
#define VECTOR_PING  0x81
#define VECTOR_PONG  0x82
#define VECTOR_TIMER 0xa0
#define VECTOR_PIT   0x20
#define TPR          0x60u
#define MSR_CLOCK    0x4b564d01u
#define NS_PER_MS    1000000ul
#define NS_PER_S     1000000000ul
#define AWAY_NS      (NS_PER_S / 4)
#define LATE_NS      (2 * NS_PER_S)
#define XSAVE_BYTES  1024
#define XCR0_WANTED  7u /* x87, SSE, AVX */

static struct ALIGNED(64) time_info {
    volatile u32 version;
    u32 pad0;
    volatile u64 tsc_timestamp, system_time;
    volatile u32 mul;
    volatile s8 shift;
    volatile u8 flags;
    u8 pad[2];
} clock_info;

/* Where a processor is in its own time; both have one. */
static struct processor {
    volatile u32 ticks;
    u64 tsc, last_ns, tick_ns;
    u64 resumed_ns; /* after a time in which it did not run at all */
    u32 ticks_seen;
} processors[2];

static volatile u32 pit_ticks, pongs;
static u64 timer_count, longest_gap;
static u32 xcr0;
static bool two, x2apic;
static u8 ALIGNED(64) image[XSAVE_BYTES], seen[XSAVE_BYTES];

/* ---- clocks ------------------------------------------------------------------------------------
 */

static u64 clock_at(u64 *tsc)
{
    u32 version;
    u64 delta, ns;

    do {
        version = clock_info.version & ~1u;
        *tsc = rdtsc();
        delta = *tsc - clock_info.tsc_timestamp;
        delta = clock_info.shift < 0 ? delta >> -clock_info.shift : delta << clock_info.shift;
        ns = clock_info.system_time + (u64)(((unsigned __int128)delta * clock_info.mul) >> 32);
    } while (version != clock_info.version);
    return ns;
}

/* Neither clock goes back. */
static u64 now(struct processor *p)
{
    u64 tsc, ns = clock_at(&tsc), gap = ns - p->last_ns;

    CHECK((s64)(tsc - p->tsc) >= 0, "the TSC went back from 0x%lx to 0x%lx", p->tsc, tsc);
    CHECK((s64)gap >= 0, "the clock went back from %lu to %lu ns", p->last_ns, ns);
    if (p->tsc)
        longest_gap = MAX(longest_gap, gap);
    if (gap > AWAY_NS)
        p->resumed_ns = ns;
    p->tsc = tsc;
    p->last_ns = ns;
    return ns;
}

/* How long the processor has worked since that moment */
static u64 worked_since(const struct processor *p, u64 ns)
{
    return p->last_ns - MAX(p->resumed_ns, ns);
}

static void check_ticks(struct processor *p, const char *who)
{
    u64 late, at = now(p);

    if (p->ticks != p->ticks_seen || !p->tick_ns) {
        p->ticks_seen = p->ticks;
        p->tick_ns = at;
    }
    late = worked_since(p, p->tick_ns);
    CHECK(late < LATE_NS, "%s: no timer tick for %lu ms", who, late / NS_PER_MS);
}

/* ---- registers that keep what they were given
 * ---------------------------------------------------- */

static struct kept {
    u32 msr;
    bool optional; /* not on every processor */
    u64 value;
} kept[] = {
    {0x174, false, 8},                       /* SYSENTER_CS */
    {0x175, false, 0x456789a0},              /* SYSENTER_ESP */
    {0x176, false, 0x56789ab0},              /* SYSENTER_EIP */
    {0xc0000081, false, 0x0023001000000000}, /* STAR */
    {0xc0000082, false, 0xffffffff81000010}, /* LSTAR */
    {0xc0000083, false, 0xffffffff81000020}, /* CSTAR */
    {0xc0000084, false, 0x47700},            /* SFMASK */
    {0xc0000100, false, 0x7f0012345678},     /* FS base */
    {0xc0000101, false, 0xffff888012345678}, /* GS base */
    {0xc0000102, false, 0x7f0087654321},     /* KERNEL_GS_BASE */
    {0xc0000103, true, 0x1005},              /* TSC_AUX */
    {0x277, false, 0x0407050600070106},      /* PAT */
    {0x2ff, false, 0xc06},                   /* MTRR default type */
    {0x250, false, 0x0606060606060606},      /* fixed MTRRs */
    {0x268, false, 0x0505050505050505},
    {0x200, false, 0xc0000006}, /* a variable one */
    {0x201, false, 0xfc0000800},
    {0x400, true, 0}, /* machine check bank 0: control */
    {MSR_TSC_ADJUST, true, 0x1000000},
};

static void keep_msrs(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(kept); i++) {
        struct kept *k = &kept[i];
        int vector = try_wrmsr(k->msr, k->value);

        CHECK(vector == NO_FAULT || k->optional, "MSR 0x%x does not take 0x%lx", k->msr, k->value);
        if (vector != NO_FAULT)
            k->msr = 0;
    }
}

static void check_msrs(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(kept); i++) {
        if (kept[i].msr) {
            u64 value = rdmsr(kept[i].msr);

            CHECK(value == kept[i].value, "MSR 0x%x is 0x%lx, not 0x%lx", kept[i].msr, value,
                  kept[i].value);
        }
    }
}

#define DR(n, value) __asm__ volatile("mov %0, %%dr" #n : : "r"((u64)(value)))
#define CHECK_DR(n, value)                                                        \
    do {                                                                          \
        u64 dr_;                                                                  \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(dr_));                       \
        CHECK(dr_ == (value), "DR" #n " is 0x%lx, not 0x%lx", dr_, (u64)(value)); \
    } while (0)

/* Breakpoints on addresses that nobody comes to; with two of them on, the hypervisor must switch
 * the registers. */
static void keep_debug(void)
{
    DR(0, 0x100000000000);
    DR(1, 0x200000000001);
    DR(2, 0x300000000002);
    DR(3, 0x400000000003);
    DR(6, 0xffff0ff1);
    DR(7, 0x405);
}

static void check_debug(void)
{
    CHECK_DR(0, 0x100000000000ull);
    CHECK_DR(1, 0x200000000001ull);
    CHECK_DR(2, 0x300000000002ull);
    CHECK_DR(3, 0x400000000003ull);
    CHECK_DR(6, 0xffff0ff1ull);
    CHECK_DR(7, 0x405ull);
}

/* XMM and, where there is AVX, the upper halves of YMM: a pattern in all of them. */
static void keep_fpu(void)
{
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR | CR4_OSXSAVE);
    xcr0 = cpuid(0xd, 0).eax & XCR0_WANTED;
    __asm__ volatile("xsetbv" : : "c"(0), "a"(xcr0), "d"(0));
    for (u32 i = 160; i < 832; i++)
        image[i] = i < 416 || i >= 576 ? (u8)(i * 7 + 1) : 0;
    image[0] = 0x7f; /* the x87 control word but for its rounding, which is up */
    image[1] = 0x0b;
    *(u32 *)&image[24] = 0x5f80; /* MXCSR */
    *(u64 *)&image[512] = xcr0;
    __asm__ volatile("xrstor %0" : : "m"(image), "a"(xcr0), "d"(0));
}

static void check_fpu(void)
{
    u32 end = xcr0 & 4 ? 832 : 416, got, high;

    __asm__ volatile("xgetbv" : "=a"(got), "=d"(high) : "c"(0));
    CHECK(got == xcr0, "XCR0 is 0x%x, not 0x%x", got, xcr0);
    __asm__ volatile("xsave %0" : "+m"(seen) : "a"(xcr0), "d"(0) : "memory");
    CHECK(*(u16 *)seen == 0x0b7f, "the x87 control word is 0x%x", *(u16 *)seen);
    CHECK(*(u32 *)&seen[24] == 0x5f80, "MXCSR is 0x%x", *(u32 *)&seen[24]);
    for (u32 i = 160; i < end; i++) {
        if (i < 416 || i >= 576)
            CHECK(seen[i] == image[i], "byte %u of XSAVE's area is 0x%x, not 0x%x", i, seen[i],
                  image[i]);
    }
}

/* ---- interrupts --------------------------------------------------------------------------------
 */

static void end_interrupt(void)
{
    apic_write(APIC_EOI, 0);
}

static void on_timer(struct frame *frame)
{
    (void)frame;
    processors[rdmsr(MSR_APIC_BASE) & BIT(8) ? 0 : 1].ticks++;
    end_interrupt();
}

static void on_pit(struct frame *frame)
{
    (void)frame;
    pit_ticks++;
    outb(0x20, 0x20);
}

static void on_held(struct frame *frame)
{
    (void)frame;
}

static void on_ping(struct frame *frame)
{
    (void)frame;
    end_interrupt();
    apic_send(0, ICR_FIXED | VECTOR_PONG);
}

static void on_pong(struct frame *frame)
{
    (void)frame;
    pongs++;
    end_interrupt();
}

static u32 apic_bit(u32 base, u32 vector)
{
    return apic_read(base + vector / 32 * 0x10) >> vector % 32 & 1;
}

static void start_timer(void)
{
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_TIMER_INITIAL, (u32)timer_count);
}

/* APIC timer counts in TICK_MS */
static void measure_timer(void)
{
    u64 tsc, start = clock_at(&tsc);

    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    apic_write(APIC_TIMER_INITIAL, 0xffffffff);
    while (clock_at(&tsc) - start < TICK_MS * NS_PER_MS)
        pause();
    timer_count = 0xffffffff - apic_read(APIC_TIMER_CURRENT);
}

static void keep_interrupts(void)
{
    handlers[VECTOR_TIMER] = on_timer;
    handlers[VECTOR_PIT] = on_pit;
    handlers[VECTOR_HELD] = on_held;
    handlers[VECTOR_PING] = on_ping;
    handlers[VECTOR_PONG] = on_pong;
    measure_timer();
    apic_write(APIC_LVT_LINT0, 0x700);
    pic_setup(1);
    pit_periodic(PIT_HZ / 50);
    apic_send(0, ICR_FIXED | ICR_TO_SELF | VECTOR_HELD);
    take_interrupts();
    apic_write(APIC_TPR, TPR);
    apic_send(0, ICR_FIXED | ICR_TO_SELF | VECTOR_IRR);
    start_timer();
}

static void check_interrupts(void)
{
    static u32 pit_seen;
    static u64 pit_ns;
    u64 at = processors[0].last_ns;

    CHECK(apic_bit(0x100, VECTOR_HELD), "vector 0x%x is no more in service", VECTOR_HELD);
    CHECK(apic_bit(0x200, VECTOR_IRR), "vector 0x%x is no more requested", VECTOR_IRR);
    CHECK(apic_read(APIC_TPR) == TPR && READ_CR(8) == TPR >> 4, "the TPR is 0x%x",
          apic_read(APIC_TPR));
    CHECK(apic_read(APIC_LVT_LINT0) == 0x700, "LVT LINT0 is 0x%x", apic_read(APIC_LVT_LINT0));
    CHECK(apic_read(APIC_SVR) == 0x1ef, "the SVR is 0x%x", apic_read(APIC_SVR));
    CHECK(apic_read(APIC_TIMER_INITIAL) == timer_count, "the timer's initial count is %u",
          apic_read(APIC_TIMER_INITIAL));
    CHECK(inb(0x21) == 0xfe, "the PIC's mask is 0x%x", inb(0x21));
    if (pit_ticks != pit_seen || !pit_ns) {
        pit_seen = pit_ticks;
        pit_ns = at;
    }
    CHECK(worked_since(&processors[0], pit_ns) < LATE_NS, "no PIT tick any more");
}

/* ---- the second processor
 * ------------------------------------------------------------------------ */

static void second_main(void)
{
    apic_enable(x2apic);
    keep_debug();
    keep_msrs();
    start_timer();
    for (;;) {
        sti_hlt_cli();
        check_debug();
        check_msrs();
    }
}

/* A ping is sent when the last was answered. */
static void check_second(void)
{
    static u32 sent;
    static u64 sent_ns;

    check_ticks(&processors[1], "the second processor");
    if (pongs < sent) {
        CHECK(worked_since(&processors[0], sent_ns) < LATE_NS, "no answer of the second processor");
        return;
    }
    sent++;
    sent_ns = processors[0].last_ns;
    apic_send(1, ICR_FIXED | VECTOR_PING);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static u64 number(const char **text)
{
    u64 value = 0;

    while (**text == ' ')
        ++*text;
    while (**text >= '0' && **text <= '9')
        value = value * 10 + (u64)(*(*text)++ - '0');
    return value;
}

static u64 pattern(u64 page, u64 round)
{
    return (page * 0x9e3779b97f4a7c15 + round) ^ page << 40;
}

/* A word at the page's start, and one somewhere in it */
static void turn_page(u64 page, u64 round)
{
    u64 *words = (u64 *)(FIRST_PAGE + page * 4096);
    u64 other = 1 + page % 511;

    CHECK(!round || words[0] == pattern(page, round), "page %lu has 0x%lx, not round %lu's 0x%lx",
          page, words[0], round, pattern(page, round));
    CHECK(!round || words[other] == ~words[0], "page %lu: word %lu is 0x%lx, not 0x%lx", page,
          other, words[other], ~words[0]);
    words[0] = pattern(page, round + 1);
    words[other] = ~words[0];
}

static void check_all(void)
{
    check_ticks(&processors[0], "the first processor");
    check_msrs();
    check_debug();
    check_fpu();
    check_interrupts();
    if (two)
        check_second();
}

static void report(u64 round)
{
    static u64 next;
    u64 at = processors[0].last_ns;

    if (at < next)
        return;
    print("TICK %lu ms, round %lu, ticks %u %u, PIT %u, pongs %u, gap %lu us\n", at / NS_PER_MS,
          round, processors[0].ticks, processors[1].ticks, pit_ticks, pongs, longest_gap / 1000);
    longest_gap = 0;
    next = at + NS_PER_S / 2;
}

static NORETURN void work(u64 pages, u64 per_second)
{
    u64 due = now(&processors[0]);

    for (u64 round = 0;; round++) {
        for (u64 page = 0; page < pages; page++) {
            turn_page(page, round);
            if (page % 64 == 0) {
                check_all();
                report(round);
            }
            due = MAX(due + NS_PER_S / per_second, processors[0].last_ns);
            sti();
            while (now(&processors[0]) < due)
                pause();
            cli();
        }
    }
}

void guest_main(void)
{
    const char *text = command_line();
    u64 mib, rate;

    while (*text && *text != ' ') /* the program's name */
        text++;
    mib = number(&text);
    rate = number(&text);
    CHECK(mib && rate, "usage: MIB PAGES-PER-SECOND [x2apic]");
    wrmsr(MSR_CLOCK, (u64)&clock_info | 1);
    x2apic = text[0] && text[1] == 'x';
    apic_enable(x2apic);
    keep_msrs();
    keep_debug();
    keep_fpu();
    keep_interrupts();
    two = start_others(second_main) != 0;
    print("guest migrate: %lu MiB, %s processor(s)\n", mib, two ? "two" : "one");
    work(mib << 8, rate);
}
