/* SPDX-License-Identifier: BSD-2-Clause */
/* What the test guests share: console, ports, MSRs, exceptions that can be expected, local APIC, a
 * second processor. A guest is one C file with guest_name and guest_main(); it ends with pass() or
 * fail(), which print "guest NAME: ok" or "guest NAME: FAIL why" on COM1 and leave QEMU by its
 * isa-debug-exit device at port 0xf4, where there is one. */
#ifndef SOCLE_TESTS_GUEST_H
#define SOCLE_TESTS_GUEST_H

#include "core/types.h"

extern const char guest_name[];
void guest_main(void);
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

/* %s %c %d %u %x, with l for 64 bits, and a width such as %08x */
void print(const char *format, ...) PRINTF_LIKE(1, 2);
void pass(void) NORETURN;
const char *command_line(void); /* QEMU's -append, after the file's name */
void fail(const char *format, ...) PRINTF_LIKE(1, 2) NORETURN;
#define CHECK(condition, ...)  \
    do {                       \
        if (!(condition)) {    \
            fail(__VA_ARGS__); \
        }                      \
    } while (0)

/* What an exception or interrupt handler sees; the other registers are not saved. */
struct frame {
    u64 r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};
/* Handlers by vector; an exception without one, and not expected by TRY, fails the guest. */
extern void (*handlers[256])(struct frame *);

/* TRY(instruction, : outputs : inputs : clobbers) executes it on the first processor and returns
 * the exception's vector, or NO_FAULT. RSP is then as before it. */
#define NO_FAULT (-1)
extern volatile u64 catch_rip, catch_rsp, catch_error;
extern volatile int caught;
#define TRY(instruction, ...)                                                           \
    ({                                                                                  \
        caught = NO_FAULT;                                                              \
        __asm__ volatile(                                                               \
            "movq %%rsp, catch_rsp(%%rip); movq $77f, catch_rip(%%rip)\n\t" instruction \
            "\n77:\tmovq $0, catch_rip(%%rip)" __VA_ARGS__);                            \
        caught;                                                                         \
    })
enum { UD = 6, DF = 8, GP = 13, PF = 14 };
#define PF_WRITE BIT(1)

#define CR0_PE      BIT(0)
#define CR0_WP      BIT(16)
#define CR0_NW      BIT(29)
#define CR0_PG      BIT(31)
#define CR4_PAE     BIT(5)
#define CR4_PGE     BIT(7)
#define CR4_OSFXSR  BIT(9)
#define CR4_LA57    BIT(12)
#define CR4_VMXE    BIT(13)
#define CR4_PCIDE   BIT(17)
#define CR4_OSXSAVE BIT(18)
#define EFER_LME    BIT(8)
#define EFER_SVME   BIT(12)

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_ADJUST   0x3bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_EFER         0xc0000080u

extern u64 page_map[512];
extern u64 page_directories[4 * 512]; /* 2 MiB leaves of the first 4 GiB */
extern u8 exception_stubs[256 * 16];
extern struct PACKED {
    u16 limit;
    u64 base;
} idt_pointer, gdt_pointer;
void load_idt(void);
void enter_user(void (*function)(void)); /* returns once it calls leave_user() */
void leave_user(void);

/* A 2 MiB window onto any physical address; returns where it is mapped, until the next call. */
volatile u8 *map_window(u64 physical);

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(u16 port, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u8 inb(u16 port)
{
    u8 value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u32 inl(u16 port)
{
    u32 value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u64 rdtsc(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static inline u64 rdmsr(u32 msr)
{
    u32 low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (u64)high << 32 | low;
}

static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline int try_rdmsr(u32 msr, u64 *value)
{
    u32 low = 0, high = 0;
    int vector = TRY("rdmsr", : "+a"(low), "+d"(high) : "c"(msr) : "memory");

    *value = (u64)high << 32 | low;
    return vector;
}

static inline int try_wrmsr(u32 msr, u64 value)
{
    return TRY("wrmsr", : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

struct cpuid {
    u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid r;

    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf)
                     : "memory");
    return r;
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

/* Takes what is pending. Not by PAUSE: QEMU's TCG keeps the shadow of STI beyond it. */
static inline void take_interrupts(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

/* Waits for an interrupt; interrupts are off before and after. */
static inline void sti_hlt_cli(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

#define READ_CR(n)                                                       \
    ({                                                                   \
        u64 cr_;                                                         \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(cr_) : : "memory"); \
        cr_;                                                             \
    })
#define WRITE_CR(n, value)     __asm__ volatile("mov %0, %%cr" #n : : "r"((u64)(value)) : "memory")
#define TRY_WRITE_CR(n, value) TRY("mov %0, %%cr" #n, : : "r"((u64)(value)) : "memory")

bool is_amd(void);
/* TSC ticks per millisecond, the least of some measurements by the PIT. */
u64 tsc_per_ms(void);
/* Waits until *word is at least `value`, for `ms` at most; says whether it came to that. */
bool wait_for(const volatile u32 *word, u32 value, u32 ms);
u32 random32(void);

/* ---- the local APIC; registers by their xAPIC offsets, in whichever mode it is ------------------
 */
#define APIC_BASE_ADDRESS 0xfee00000u
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
    APIC_SELF_IPI = 0x3f0,
};
#define APIC_BASE_ENABLE BIT(11)
#define APIC_BASE_X2APIC BIT(10)
#define ICR_INIT         0x4500u
#define ICR_SIPI         0x4600u
#define ICR_NMI          0x4400u
#define ICR_FIXED        0x4000u
#define ICR_TO_SELF      0x40000u
#define ICR_TO_OTHERS    0xc0000u
#define LVT_MASKED       0x10000u
#define LVT_PERIODIC     0x20000u
#define LVT_TSC_DEADLINE 0x40000u

bool has_x2apic(void);
bool x2apic_on(void);
void apic_enable(bool x2apic); /* SVR on, vector 0xef spurious, all LVTs masked, TPR 0 */
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
void apic_send(u32 apic_id, u32 icr_low); /* apic_id is ignored with a shorthand */
u32 apic_id(void);

/* Starts the other processors at function(), which runs with interrupts off and must be SMP-safe;
 * says how many came within a second. Only one other processor has a stack. */
u32 start_others(void (*function)(void));

/* ---- legacy PIC and PIT ------------------------------------------------------------------------
 */
/* Vectors 0x20-0x2f; all inputs masked but those in `enabled`. */
void pic_setup(u16 enabled);
void pit_oneshot(u16 count); /* IRQ 0 after count / 1.193182 MHz */
void pit_periodic(u16 count);
#define PIT_HZ 1193182u

#endif
