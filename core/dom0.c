/* SPDX-License-Identifier: BSD-2-Clause */
/* The dom0 builder. Dom0's guest-physical addresses are machine addresses. */
#include "core/main.h"
#include "core/cpuid.h"
#include "core/lib.h"
#include "core/linux_boot.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/vendor.h"

#define MAX_PADDR          BIT(44) /* of dom0's map: beyond is nothing but the tables' own size */
#define HDR_KERNEL_VERSION 0x20e

/* Segment attributes as in struct socle_segment. */
#define ATTR_CODE32 0xc9b
#define ATTR_DATA32 0xc93
#define ATTR_TSS32  0x8b
#define SEL_CODE    0x10
#define SEL_DATA    0x18

/* Dom0's own memory map, in `map`; the rest is not used. */
static struct boot_info view;

/* What dom0 can't reach: Socle's image and heap, and the local APIC's registers. */
static struct addr_range holes[3];

static u8 header[PAGE_SIZE]; /* the kernel file's first page */
static u8 page[PAGE_SIZE];

/* ---- the kernel and its data ---- */

void dom0_check_modules(const struct boot_info *bi)
{
    if (!bi->module_count)
        fatal("no dom0 kernel: give it as the first module, its initrd as the second");
    if (bi->module_count > 2)
        log_warn("%u modules: only the first, dom0's kernel, and the second, its initrd, are used",
                 bi->module_count);
}

static void parse_kernel(const struct boot_module *kernel, struct linux_image *image)
{
    u64 size = kernel->end - kernel->start;
    const char *why;

    phys_read(header, kernel->start, MIN(size, PAGE_SIZE));
    if (linux_parse(header, size, image, &why))
        fatal("dom0's kernel, the first module, is %s", why);
    if (strlen(kernel->cmdline) > image->cmdline_max)
        fatal("dom0's command line is longer than the %u characters that its kernel takes",
              image->cmdline_max);
}

static void log_kernel_version(const struct boot_module *kernel)
{
    paddr_t at = kernel->start + 0x200 + load_u16(header + HDR_KERNEL_VERSION);
    char text[80];

    if (!load_u16(header + HDR_KERNEL_VERSION) || at + sizeof(text) > kernel->end)
        return;
    phys_read(text, at, sizeof(text));
    text[sizeof(text) - 1] = '\0';
    log_info("dom0: Linux %s", text);
}

/* Firmware's map; what is Socle's is reserved. */
static void make_memory_map(const struct boot_info *bi, const struct addr_range *heap)
{
    memcpy(view.map, bi->map, sizeof(view.map));
    view.map_count = bi->map_count;
    if (boot_map_add(&view, (paddr_t)image_start, (u64)(image_end - image_start), MEM_RESERVED) ||
        boot_map_add(&view, heap->start, heap->end - heap->start, MEM_RESERVED) ||
        boot_map_normalize(&view) || view.map_count > LINUX_MAX_E820)
        fatal("the machine's memory map has more ranges than a Linux kernel takes");
}

/* The ranges may overlap. */
static void move_memory(paddr_t dst, paddr_t src, u64 len)
{
    for (u64 done = 0, n; done < len && dst != src; done += n) {
        u64 at;

        n = MIN(len - done, PAGE_SIZE);
        at = dst < src ? done : len - done - n;
        phys_read(page, src + at, n);
        phys_write(dst + at, page, n);
    }
}

static void load_kernel(const struct boot_info *bi, paddr_t rsdp, struct linux_placement *place)
{
    const struct boot_module *kernel = &bi->modules[0], *initrd = &bi->modules[1];
    struct boot_space space = {.map = view.map, .map_count = view.map_count};
    struct addr_range where = {initrd->start, initrd->end};
    struct linux_image image;
    const char *why;

    parse_kernel(kernel, &image);
    log_kernel_version(kernel);
    boot_space_take(&space, kernel->start, kernel->end);
    if (linux_place(&space, &image, bi->module_count > 1 ? &where : NULL, place, &why))
        fatal("dom0: %s", why);
    move_memory(place->kernel, kernel->start + image.setup_size, image.kernel_size);
    if (place->initrd)
        move_memory(place->initrd, initrd->start, place->initrd_size);
    phys_write(place->cmdline, kernel->cmdline, strlen(kernel->cmdline) + 1);
    if (!rsdp && bi->rsdp_len) { /* only the loader's copy is known: dom0 gets one of that */
        rsdp = place->rsdp;
        phys_write(rsdp, bi->rsdp, bi->rsdp_len);
    }
    if (linux_fill_boot_params(page, header, place, view.map, view.map_count, rsdp))
        fatal("dom0's boot parameters have no room for the memory map");
    phys_write(place->params, page, PAGE_SIZE);
}

/* ---- its nested page tables ---- */

static void map_extent(paddr_t start, paddr_t end, u32 flags)
{
    pfn_t pfn = start >> PAGE_SHIFT;
    u64 pages = (end - start) >> PAGE_SHIFT, done;
    int err = -E_AGAIN;

    while (err == -E_AGAIN) {
        err = npt_map(&dom0.npt, pfn, pfn, pages, flags, &done);
        pfn += done;
        pages -= done;
    }
    if (err)
        fatal("dom0's memory from 0x%lx on cannot be mapped (error %d)", pfn << PAGE_SHIFT, err);
}

/* Maps [start, end) but for the holes from number `hole` on. */
static void map_around_holes(paddr_t start, paddr_t end, u32 flags, u32 hole)
{
    if (start >= end)
        return;
    if (hole == ARRAY_SIZE(holes)) {
        map_extent(start, end, flags);
        return;
    }
    map_around_holes(start, MIN(holes[hole].start, end), flags, hole + 1);
    map_around_holes(MAX(holes[hole].end, start), end, flags, hole + 1);
}

/* RAM and the rest are mapped apart: in EPT their memory types differ. */
static void map_machine(const struct addr_range *heap)
{
    const u32 flags = SOCLE_MAP_WRITE | SOCLE_MAP_EXEC;
    paddr_t limit = MIN(host_phys_mask + 1, MAX_PADDR), pos = 0;

    holes[0] = (struct addr_range){(paddr_t)image_start, (paddr_t)image_end};
    holes[1] = *heap;
    holes[2] = (struct addr_range){APIC_DEFAULT_PA, APIC_DEFAULT_PA + PAGE_SIZE};
    for (u32 i = 0; i < view.map_count; i++) {
        const struct mem_range *m = &view.map[i];
        paddr_t start = ALIGN_UP(m->base, PAGE_SIZE);
        paddr_t end = MIN((m->base + m->length) & PAGE_MASK, limit);

        if ((m->type != MEM_RAM && m->type != MEM_ACPI && m->type != MEM_NVS) || start >= end)
            continue;
        map_around_holes(pos, start, flags | NPT_MAP_DEVICE, 0);
        map_around_holes(start, end, flags, 0);
        pos = end;
    }
    map_around_holes(pos, limit, flags | NPT_MAP_DEVICE, 0);
}

/* ---- its vCPUs ---- */

/* The 32-bit entry of Linux/x86's boot protocol: flat segments, paging off, boot parameters in ESI.
 */
static void set_boot_state(struct vcpu *v, const struct linux_placement *place)
{
    const struct socle_segment data = {.limit = ~0u, .selector = SEL_DATA, .attr = ATTR_DATA32};
    struct socle_sregs s;

    vendor->get_sregs(v, &s);
    for (u32 i = 0; i < SOCLE_SEG_LDTR; i++)
        s.seg[i] = data;
    s.seg[SOCLE_SEG_CS].selector = SEL_CODE;
    s.seg[SOCLE_SEG_CS].attr = ATTR_CODE32;
    s.seg[SOCLE_SEG_TR].attr = ATTR_TSS32;
    s.cr0 = CR0_ET | CR0_PE;
    vendor->set_sregs(v, &s);
    v->rip = place->kernel;
    v->gpr[RSI] = place->params;
    v->rflags = RFLAGS_FIXED;
    v->activity = ACTIVITY_RUN;
}

static void create_vcpu(struct pcpu *cpu)
{
    int handle = vcpu_create(&dom0, cpu->apic_id, 0, 0);
    u64 affinity[SCHED_CPU_WORDS] = {0};

    if (handle < 0)
        fatal("no memory for dom0's vCPU %u (error %d)", cpu->id, handle);
    cpu->dom0 = vcpu_table[handle];
    affinity[cpu->id / 64] = BIT(cpu->id % 64);
    sched_set_affinity(&cpu->dom0->se, affinity, rdtsc());
}

void dom0_build(const struct boot_info *bi, const struct addr_range *heap, paddr_t rsdp)
{
    struct linux_placement place;

    make_memory_map(bi, heap);
    load_kernel(bi, rsdp, &place);
    if (domain_init_dom0())
        fatal("no memory for dom0's page tables");
    map_machine(heap);
    for (u32 i = 0; i < pcpu_count; i++)
        create_vcpu(pcpus[i]);
    set_boot_state(pcpus[0]->dom0, &place);
    log_info("starting dom0");
    /* Nobody needs a kick: all processors choose anew when they enter the run loop. */
    for (u32 i = 0; i < pcpu_count; i++)
        sched_start(&pcpus[i]->dom0->se, i, rdtsc());
}
