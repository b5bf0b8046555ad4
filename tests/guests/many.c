/* SPDX-License-Identifier: BSD-2-Clause */
/* As many processors as -append says: started one by one by INIT and SIPI, then reached by each
 * kind of destination that there is, in xAPIC and x2APIC mode. */
#include "tests/guests/guest.h"

const char guest_name[] = "many";

#define AP_PAGE  0x8000u
#define MANY     256
#define STACK    1024
#define LIMIT_MS 20000
#define LOGICAL  0x800u
#define LOWEST   0x100u
#define TO_ALL   0x80000u
enum { HIT = 0x40, MODE = 0x41 };

extern u8 ap_trampoline[], ap_trampoline_end[];
extern void (*ap_function)(void);
extern u32 ap_next;
extern u8 stacks[MANY * STACK] ALIGNED(16);
void many_start(void);
u8 stacks[MANY * STACK] ALIGNED(16);
u32 ap_next;

static u32 count;
static volatile u32 hits[MANY], all_hits, nmis, ready, mode_wanted;

/* The trampoline's stack is one for all: each takes its own. */
__asm__("many_start:\n\t"
        "movl $1, %eax\n\t"
        "lock xaddl %eax, ap_next(%rip)\n\t"
        "incl %eax\n\t"
        "shll $10, %eax\n\t"
        "leaq stacks(%rip), %rsp\n\t"
        "addq %rax, %rsp\n\t"
        "call many_main\n\t");
void many_main(void);

static void on_hit(UNUSED struct frame *frame)
{
    __atomic_add_fetch(&hits[apic_id()], 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&all_hits, 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
}

static void on_mode(UNUSED struct frame *frame)
{
    apic_write(APIC_EOI, 0);
}

static void on_nmi(UNUSED struct frame *frame)
{
    __atomic_add_fetch(&nmis, 1, __ATOMIC_SEQ_CST);
}

void many_main(void)
{
    for (;;) {
        apic_enable(mode_wanted);
        __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
        for (u32 mode = mode_wanted; mode == mode_wanted;) {
            sti_hlt_cli();
        }
    }
}

static void start_all(void)
{
    u8 *page = (u8 *)(u64)AP_PAGE;
    u64 start = rdtsc();

    __asm__("" : "+r"(page)); /* a constant address is no object to the compiler */
    memcpy(page, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    ap_function = many_start;
    for (u32 id = 1; id < count; id++) {
        apic_send(id, ICR_INIT);
        apic_send(id, ICR_SIPI | AP_PAGE >> 12);
        CHECK(wait_for(&ready, id, LIMIT_MS), "processor %u does not start", id);
    }
    print("many: %u processors started in %lu ms\n", ready + 1, (rdtsc() - start) / tsc_per_ms());
}

static void expect_hits(const char *what, u32 wanted)
{
    CHECK(wait_for(&all_hits, wanted, LIMIT_MS), "%s: %u of %u took it", what, all_hits, wanted);
    for (u64 start = rdtsc(); rdtsc() - start < tsc_per_ms() / 4;) {
        pause();
    }
    CHECK(all_hits == wanted, "%s: %u took it, not %u", what, all_hits, wanted);
}

static void clear_hits(void)
{
    all_hits = 0;
    for (u32 i = 0; i < count; i++) {
        hits[i] = 0;
    }
}

static void to_each(void)
{
    clear_hits();
    for (u32 id = 1; id < count; id++) {
        apic_send(id, ICR_FIXED | HIT);
        expect_hits("physical", id);
        CHECK(hits[id] == 1, "processor %u: %u interrupts", id, hits[id]);
    }
}

static void to_others(void)
{
    clear_hits();
    apic_send(0, ICR_FIXED | ICR_TO_OTHERS | HIT);
    expect_hits("all others", count - 1);
    CHECK(!hits[0], "the sender took it");
    apic_send(0, ICR_FIXED | TO_ALL | HIT);
    take_interrupts();
    expect_hits("all", 2 * count - 1);
    CHECK(hits[0] == 1, "the sender did not take it");
    nmis = 0;
    apic_send(0, ICR_NMI | ICR_TO_OTHERS);
    CHECK(wait_for(&nmis, count - 1, LIMIT_MS), "NMI: %u took it", nmis);
}

/* Logical ids of x2APICs: 16 in a cluster. */
static void to_clusters(void)
{
    for (u32 first = 16; first + 16 <= count; first += 16) {
        u32 cluster = first / 16 << 16;

        clear_hits();
        apic_send(cluster | 0xffff, ICR_FIXED | LOGICAL | HIT);
        expect_hits("a cluster", 16);
        CHECK(hits[first] && hits[first + 15], "another cluster took it");
        clear_hits();
        apic_send(cluster | 0x8002, ICR_FIXED | LOGICAL | HIT);
        expect_hits("two of a cluster", 2);
        CHECK(hits[first + 1] && hits[first + 15], "others of the cluster took it");
        clear_hits();
        apic_send(cluster | 0xffff, ICR_FIXED | LOGICAL | LOWEST | HIT);
        expect_hits("lowest priority", 1);
    }
    clear_hits();
    apic_send(0xffffffff, ICR_FIXED | HIT);
    take_interrupts();
    expect_hits("broadcast", count);
}

static void switch_mode(u32 x2apic)
{
    u32 before = ready;

    mode_wanted = x2apic;
    apic_send(0, ICR_FIXED | ICR_TO_OTHERS | MODE);
    CHECK(wait_for(&ready, before + count - 1, LIMIT_MS), "only %u change their mode",
          ready - before);
    apic_enable(x2apic);
}

static void all_kinds(const char *mode)
{
    u64 start = rdtsc();

    to_each();
    to_others();
    if (x2apic_on()) {
        to_clusters();
    }
    print("many: %s: all %u reached, %lu ms\n", mode, count, (rdtsc() - start) / tsc_per_ms());
}

void guest_main(void)
{
    const char *text = command_line();

    while (*text && *text++ != ' ') { /* the file's name */
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        count = count * 10 + (u32)(*text - '0');
    }
    CHECK(count > 1 && count <= MANY, "-append NUMBER");
    handlers[2] = on_nmi;
    handlers[HIT] = on_hit;
    handlers[MODE] = on_mode;
    apic_enable(false);
    start_all();
    all_kinds("xAPIC");
    switch_mode(1);
    all_kinds("x2APIC");
    pass();
}
