/* SPDX-License-Identifier: BSD-2-Clause */
/* The boot: from what the loader left to the run loop.
 *
 * Options on Socle's own command line:
 *   serial=com1|com2|off   where the log goes besides its ring; com1 if not given
 *   features=plain         no use of the processor's optional features, as a test
 *   pool=SIZE              Socle's heap without the frame table, as in 64M; if not given, 16 MiB
 * and a 64th of the memory */
#include "core/main.h"
#include "boot/multiboot.h"
#include "core/cpuid.h"
#include "core/frame.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/trap.h"
#include "core/vendor.h"
#include "drivers/acpi.h"
#include "drivers/apic.h"
#include "drivers/tsc.h"
#include "drivers/uart.h"

#define FOUR_GIB   BIT(32) /* as far as the boot tables reach */
#define MIB        ((u64)1 << 20)
#define POOL_BASE  (16 * MIB)
#define POOL_SHARE 64
#define MB2_MAX    (16 * MIB)

const struct vendor_ops *vendor;
bool vendor_plain;

static struct boot_info boot_info;
static struct addr_range heap;
static struct acpi_root acpi_root;
static struct acpi_info acpi;

void fatal(const char *fmt, ...)
{
    char text[240];
    va_list ap;

    va_start(ap, fmt);
    fmt_vprint(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_error("cannot start: %s", text);
    smp_end_wait(false);
    cpu_halt_forever();
}

/* ---- what the loader left ---- */

static const void *boot_phys(paddr_t pa, size_t len)
{
    return pa && pa < FOUR_GIB && len <= FOUR_GIB - pa ? phys_to_virt(pa) : NULL;
}

static void parse_boot_info(u32 magic, u32 info)
{
    int err;

    if (magic == MULTIBOOT1_MAGIC)
        err = multiboot1_parse(info, boot_phys, &boot_info);
    else if (magic == MULTIBOOT2_MAGIC)
        err = multiboot2_parse(phys_to_virt(info), MIN(MB2_MAX, FOUR_GIB - info), &boot_info);
    else
        fatal("the loader speaks neither Multiboot 1 nor Multiboot 2 (magic 0x%x)", magic);
    if (err)
        fatal("the loader's information is damaged or has no usable memory map (error %d)", err);
}

static void choose_serial_port(void)
{
    char port[8] = "";

    if (!cmdline_option(boot_info.cmdline, "serial", port, sizeof(port)) || !strcmp(port, "com1"))
        return;
    if (!strcmp(port, "com2"))
        uart_init(UART_COM2);
    else if (!strcmp(port, "off"))
        uart_init(0);
    else
        log_warn("serial=%s: expected com1, com2 or off; com1 is used", port);
}

/* ---- memory ---- */

paddr_t boot_find_ram(u64 size, paddr_t end, u64 align)
{
    struct boot_space s = {.map = boot_info.map, .map_count = boot_info.map_count};

    boot_space_take(&s, (paddr_t)image_start, (paddr_t)image_end);
    for (u32 i = 0; i < boot_info.module_count; i++)
        boot_space_take(&s, boot_info.modules[i].start, boot_info.modules[i].end);
    return boot_space_find(&s, PAGE_SIZE, end, size, align, true);
}

static u64 ram_end;

static void measure_ram(void)
{
    for (u32 i = 0; i < boot_info.map_count; i++) {
        if (boot_info.map[i].type == MEM_RAM) {
            ram_end = boot_info.map[i].base + boot_info.map[i].length;
            machine_ram_bytes += boot_info.map[i].length;
        }
    }
}

static bool try_heap(u64 pool, u64 table)
{
    u64 size = ALIGN_UP(pool + table, SIZE_2M);

    heap.start = boot_find_ram(size, FOUR_GIB, SIZE_2M);
    heap.end = heap.start + size;
    return heap.start;
}

/* Without a size asked for, a heap that finds no place below 4 GiB may be smaller. */
static void choose_heap(void)
{
    u64 table = frame_table_bytes(ram_end >> PAGE_SHIFT), share = machine_ram_bytes / POOL_SHARE,
        pool;
    char text[24];

    if (cmdline_option(boot_info.cmdline, "pool", text, sizeof(text))) {
        if (parse_u64(text, &pool) || pool < MIB || pool >= FOUR_GIB)
            fatal("pool=%s is not a size from 1M to 4G", text);
        if (!try_heap(pool, table))
            fatal("no free memory below 4 GiB for a heap of %s: give a smaller pool=", text);
        return;
    }
    while (!try_heap(POOL_BASE + share, table)) {
        if (share < MIB)
            fatal("no free memory below 4 GiB for Socle's heap");
        share /= 2;
    }
}

static void own_pages(paddr_t start, paddr_t end, u16 owner)
{
    if (start < end)
        frame_set_owner_range(start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT, owner);
}

static void init_memory(void)
{
    pfn_t frames = ram_end >> PAGE_SHIFT;

    frame_init(
        pool_init(phys_to_virt(heap.start), heap.end - heap.start, frame_table_bytes(frames)),
        frames);
    for (u32 i = 0; i < boot_info.map_count; i++) {
        const struct mem_range *m = &boot_info.map[i];

        if (m->type == MEM_RAM)
            own_pages(ALIGN_UP(m->base, PAGE_SIZE), (m->base + m->length) & PAGE_MASK, FRAME_DOM0);
    }
    own_pages((paddr_t)image_start, (paddr_t)image_end, FRAME_SOCLE);
    own_pages(heap.start, heap.end, FRAME_SOCLE);
    log_info("memory: %lu MiB, of which %lu MiB are Socle's heap (at 0x%lx) and %lu KiB its image",
             machine_ram_bytes / MIB, (heap.end - heap.start) / MIB, heap.start,
             image_bytes() / 1024);
}

/* ---- firmware ---- */

static bool read_firmware(paddr_t pa, void *buf, size_t len)
{
    if (pa > host_phys_mask || len - 1 > host_phys_mask - pa)
        return false;
    phys_read(buf, pa, len);
    return true;
}

static void read_acpi(void)
{
    if (acpi_open(&acpi_root, read_firmware, boot_info.rsdp, boot_info.rsdp_len))
        log_warn("no ACPI tables: only the boot processor can be used");
    else if (acpi_parse(&acpi_root, &acpi))
        log_warn("ACPI names no processors: only the boot processor can be used");
}

/* ---- the boot processor ---- */

static void init_boot_cpu(struct pcpu *cpu)
{
    pcpus[0] = cpu;
    pcpu_count = 1;
    pcpu_init_tables(cpu);
    cpuid_init();
    pcpu_init_registers();
    read_acpi();
    tsc_calibrate(acpi.pm_timer_port);
    log_clock = tsc_uptime_ns;
    apic_init();
    apic_init_cpu();
    cpu->apic_id = apic_id();
    apic_timer_calibrate(tsc_khz);
    sched_init(tsc_khz);
    sched_add_cpu(&cpu->rq, 0);
    cpu->online = true;
    if (vendor->init_cpu(cpu))
        fatal("%s cannot be turned on", vendor->name);
}

/* On the boot processor's own stack and on Socle's own tables. */
static NORETURN void boot_on_own_stack(void)
{
    char features[128];

    init_boot_cpu(this_cpu());
    smp_start(&acpi);
    vendor->features(features, sizeof(features));
    log_info("processors: %u, %s (%s), %s", pcpu_count, vendor->name, features,
             apic_is_x2apic() ? "x2APIC" : "xAPIC");
    dom0_build(&boot_info, &heap, acpi_root.rsdp);
    smp_end_wait(true);
    vcpu_loop();
}

static NORETURN void continue_on(void *stack, void (*function)(void))
{
    __asm__ volatile("mov %0, %%rsp\n\txor %%ebp, %%ebp\n\tcall *%1\n\tud2"
                     :
                     : "r"(stack), "r"(function)
                     : "memory");
    __builtin_unreachable();
}

static void choose_vendor(void)
{
    char features[8] = "";

    vendor = cpuid(0, 0).ebx == 0x756e6547 ? &vmx_ops : &svm_ops; /* "Genu" */
    cmdline_option(boot_info.cmdline, "features", features, sizeof(features));
    vendor_plain = !strcmp(features, "plain");
}

void boot_main(u32 magic, u32 info)
{
    const char *why;
    char id[48];
    void *stack;
    struct pcpu *pcpu;

    uart_init(UART_COM1);
    log_sink = uart_write;
    trap_init_cpu();
    parse_boot_info(magic, info);
    choose_serial_port();
    build_id_text(id, sizeof(id));
    log_info("Socle " SOCLE_VERSION ", build id %s", id);
    choose_vendor();
    if (!vendor->detect(&why))
        fatal("%s", why);
    if (!(cpuid(1, 0).ecx & BIT(26)))
        fatal("this processor has no XSAVE");
    dom0_check_modules(&boot_info);
    measure_ram();
    choose_heap();
    init_memory();
    paging_init(heap.start, heap.end - heap.start);
    stack = paging_map_stack(0, &pcpu);
    if (!stack)
        fatal("no memory for a stack");
    continue_on(stack, boot_on_own_stack);
}
