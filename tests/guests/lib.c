/* SPDX-License-Identifier: BSD-2-Clause */
/* The test guests' common code; see guest.h. */
#include "tests/guests/guest.h"

#include <stdarg.h>

#define COM1      0x3f8
#define EXIT_PORT 0xf4
#define AP_PAGE   0x8000u
#define WINDOW    0xc0000000u /* no RAM and no device is there at 1:1 that guests use otherwise */

struct idt_entry {
    u16 offset_low, selector, attributes, offset_mid;
    u32 offset_high, reserved;
};
struct idt_entry idt[256];
void (*handlers[256])(struct frame *);
volatile u64 catch_rip, catch_rsp, catch_error;
volatile int caught;

extern u32 *multiboot_info;
extern u8 ap_trampoline[], ap_trampoline_end[];
extern void (*ap_function)(void);
extern volatile u32 ap_count;
void on_exception(struct frame *frame);
void guest_start(void);

void *memcpy(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

/* ---- console -----------------------------------------------------------------------------------
 */
static void put(char c)
{
    for (u32 tries = 0; !(inb(COM1 + 5) & 0x20) && tries < 100000; tries++) {
        pause();
    }
    outb(COM1, (u8)c);
}

static void put_number(u64 value, u32 base, u32 width)
{
    char digits[20];
    u32 n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value || n < width);
    while (n) {
        put(digits[--n]);
    }
}

static void vprint(const char *f, va_list args)
{
    for (; *f; f++) {
        u32 width = 0;
        bool wide = false;

        if (*f != '%') {
            put(*f);
            continue;
        }
        for (f++; (*f >= '0' && *f <= '9') || *f == 'l'; f++) {
            wide |= *f == 'l';
            width = *f == 'l' ? width : width * 10 + (u32)(*f - '0');
        }
        if (*f == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++) {
                put(*s);
            }
        } else if (*f == 'c') {
            put((char)va_arg(args, int));
        } else if (*f == 'd') {
            s64 value = wide ? va_arg(args, s64) : va_arg(args, int);

            if (value < 0) {
                put('-');
            }
            put_number(value < 0 ? -(u64)value : (u64)value, 10, width);
        } else {
            put_number(wide ? va_arg(args, u64) : va_arg(args, u32), *f == 'x' ? 16 : 10, width);
        }
    }
}

void print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

static void NORETURN leave(u8 code)
{
    outb(EXIT_PORT, code);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

const char *command_line(void)
{
    return multiboot_info[0] & BIT(2) ? (const char *)(u64)multiboot_info[4] : "";
}

void pass(void)
{
    print("guest %s: ok\n", guest_name);
    leave(0x10);
}

void fail(const char *format, ...)
{
    va_list args;

    print("guest %s: FAIL ", guest_name);
    va_start(args, format);
    vprint(format, args);
    va_end(args);
    print("\n");
    leave(0x11);
}

/* ---- exceptions and interrupts -----------------------------------------------------------------
 */
void on_exception(struct frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
    } else if (catch_rip && frame->vector < 32) {
        caught = (int)frame->vector;
        catch_error = frame->error;
        frame->rip = catch_rip;
        frame->rsp = catch_rsp;
        catch_rip = 0;
    } else {
        fail("unexpected vector %lu, error 0x%lx, at 0x%lx, CR2 0x%lx", frame->vector, frame->error,
             frame->rip, READ_CR(2));
    }
}

void guest_start(void)
{
    for (u32 i = 0; i < 256; i++) {
        u64 stub = (u64)exception_stubs + 16 * i;

        /* user code may raise vector 0xff (leave_user) */
        idt[i] = (struct idt_entry){
            (u16)stub, 0x08, i == 0xff ? 0xee00 : 0x8e00, (u16)(stub >> 16), (u32)(stub >> 32), 0};
    }
    load_idt();
    guest_main();
}

volatile u8 *map_window(u64 physical)
{
    page_directories[WINDOW >> 21] = ALIGN_DOWN(physical, SIZE_2M) | 0x87;
    __asm__ volatile("invlpg (%0)" : : "r"((u64)WINDOW) : "memory");
    return (volatile u8 *)(u64)WINDOW + (physical & (SIZE_2M - 1));
}

/* ---- time --------------------------------------------------------------------------------------
 */
bool is_amd(void)
{
    u32 ebx = cpuid(0, 0).ebx;

    return ebx == 0x68747541 || ebx == 0x6f677948; /* "Auth", "Hygo" */
}

/* PIT channel 2, gated by port 0x61, mode 0: its output rises after the count, here 4 ms. */
static u64 measure_tsc(void)
{
    u16 count = PIT_HZ / 250;

    outb(0x61, (u8)((inb(0x61) & ~2u) | 1));
    outb(0x43, 0xb0);
    outb(0x42, (u8)count);
    outb(0x42, (u8)(count >> 8));
    u64 start = rdtsc();
    while (!(inb(0x61) & 0x20)) {
    }
    return (rdtsc() - start) / 4;
}

u64 tsc_per_ms(void)
{
    static u64 least;

    if (!least) {
        least = measure_tsc();
        for (u32 i = 0; i < 4; i++) {
            u64 measured = measure_tsc();

            least = MIN(least, measured);
        }
    }
    return least;
}

bool wait_for(const volatile u32 *word, u32 value, u32 ms)
{
    u64 start = rdtsc(), ticks = tsc_per_ms() * ms;

    while (*word < value) {
        if (rdtsc() - start > ticks) {
            return false;
        }
        pause();
    }
    return true;
}

u32 random32(void)
{
    static u64 state = 0x9e3779b97f4a7c15;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return (u32)(state >> 32);
}

/* ---- local APIC --------------------------------------------------------------------------------
 */
bool has_x2apic(void)
{
    return cpuid(1, 0).ecx & BIT(21);
}

bool x2apic_on(void)
{
    return rdmsr(MSR_APIC_BASE) & APIC_BASE_X2APIC;
}

u32 apic_read(u32 reg)
{
    if (x2apic_on()) {
        return (u32)rdmsr(MSR_X2APIC_FIRST + reg / 16);
    }
    return *(volatile u32 *)(u64)(APIC_BASE_ADDRESS + reg);
}

void apic_write(u32 reg, u32 value)
{
    if (x2apic_on()) {
        wrmsr(MSR_X2APIC_FIRST + reg / 16, value);
    } else {
        *(volatile u32 *)(u64)(APIC_BASE_ADDRESS + reg) = value;
    }
}

u32 apic_id(void)
{
    u32 id = apic_read(APIC_ID);

    return x2apic_on() ? id : id >> 24;
}

void apic_send(u32 apic_id, u32 icr_low)
{
    if (x2apic_on()) {
        wrmsr(MSR_X2APIC_FIRST + APIC_ICR / 16, (u64)apic_id << 32 | icr_low);
        return;
    }
    apic_write(APIC_ICR_HIGH, apic_id << 24);
    apic_write(APIC_ICR, icr_low);
}

void apic_enable(bool x2apic)
{
    u64 base = rdmsr(MSR_APIC_BASE);

    /* x2APIC mode is left by way of the disabled state only. */
    if ((base & APIC_BASE_X2APIC) && !x2apic) {
        base &= ~(APIC_BASE_ENABLE | APIC_BASE_X2APIC);
        wrmsr(MSR_APIC_BASE, base);
    }
    wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
    if (x2apic) {
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE | APIC_BASE_X2APIC);
    }
    apic_write(APIC_SVR, 0x1ef);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, LVT_MASKED);
    apic_write(APIC_TPR, 0);
}

u32 start_others(void (*function)(void))
{
    u8 *page = (u8 *)(u64)AP_PAGE;

    __asm__("" : "+r"(page)); /* a constant address is no object to the compiler */
    memcpy(page, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    ap_function = function;
    u32 before = ap_count;
    u64 pause_ticks = tsc_per_ms() * 10;
    apic_send(0, ICR_INIT | ICR_TO_OTHERS);
    for (u64 start = rdtsc(); rdtsc() - start < pause_ticks;) {
        pause();
    }
    apic_send(0, ICR_SIPI | ICR_TO_OTHERS | AP_PAGE >> 12);
    wait_for(&ap_count, before + 1, 1000);
    return ap_count - before;
}

/* ---- legacy PIC and PIT ------------------------------------------------------------------------
 */
void pic_setup(u16 enabled)
{
    static const u8 master[] = {0x20, 4, 1}, slave[] = {0x28, 2, 1};

    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    for (u32 i = 0; i < 3; i++) {
        outb(0x21, master[i]);
        outb(0xa1, slave[i]);
    }
    outb(0x21, (u8)~enabled);
    outb(0xa1, (u8)(~enabled >> 8));
}

static void pit_program(u8 mode, u16 count)
{
    outb(0x43, mode);
    outb(0x40, (u8)count);
    outb(0x40, (u8)(count >> 8));
}

void pit_oneshot(u16 count)
{
    pit_program(0x30, count);
}

void pit_periodic(u16 count)
{
    pit_program(0x34, count);
}
