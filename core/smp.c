/* SPDX-License-Identifier: BSD-2-Clause */
/* The processors: their start, and what one asks of another. */
#include "core/main.h"
#include "core/cpuid.h"
#include "core/log.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/vendor.h"
#include "drivers/acpi.h"
#include "drivers/apic.h"
#include "drivers/tsc.h"

#define LOW_END  0xa0000ull /* RAM that a processor in real mode reaches */
#define INIT_US  10000      /* Intel SDM vol. 3A, 9.4.4.1 */
#define FIRST_US 2000       /* for the first SIPI, before the second one */
#define START_US 1000000    /* a processor that needs longer is left out */

/* From start.asm; physical addresses. */
extern char trampoline_start[], trampoline_end[];

struct pcpu *pcpus[MAX_PCPUS];
u32 pcpu_count;

/* Read by start.asm. */
extern u64 ap_boot_cr3, ap_boot_stack;
u64 ap_boot_cr3, ap_boot_stack;

/* What the started processors wait for. */
static enum { NOT_YET, RUN, GIVE_UP } verdict;

/* ---- each processor ---- */

void pcpu_init_registers(void)
{
    u32 features = cpuid(0, 0).eax >= 7 ? cpuid(7, 0).ebx : 0;
    u64 cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;

    cr4 |= cpuid(1, 0).edx & BIT(7) ? CR4_MCE : 0;
    cr4 |= features & BIT(7) ? CR4_SMEP : 0;
    cr4 |= features & BIT(20) ? CR4_SMAP : 0;
    write_cr0(CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE); /* after INIT, caches are off */
    write_cr4(cr4);
    xsetbv(0, host_xcr0_mask);
}

void ap_main(void)
{
    struct pcpu *cpu = this_cpu();

    pcpu_init_tables(cpu);
    pcpu_init_registers();
    apic_init_cpu();
    if (vendor->init_cpu(cpu)) {
        log_error("processor %u: %s cannot be turned on", cpu->id, vendor->name);
        cpu_halt_forever();
    }
    __atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
    while (__atomic_load_n(&verdict, __ATOMIC_ACQUIRE) == NOT_YET)
        cpu_relax();
    if (verdict == GIVE_UP)
        cpu_halt_forever();
    vcpu_loop();
}

/* ---- starting them ---- */

static bool comes_online(const struct pcpu *cpu, u32 us)
{
    u64 start = rdtsc(), ticks = us * tsc_khz / 1000;

    while (!__atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE)) {
        if (rdtsc() - start >= ticks)
            return false;
        cpu_relax();
    }
    return true;
}

/* The trampoline is at `page`. A late riser would use the next one's stack: it is put back to
 * sleep. */
static bool start_cpu(const struct pcpu *cpu, paddr_t page)
{
    u32 startup = APIC_SEND_STARTUP | (u32)(page >> PAGE_SHIFT);

    apic_send(cpu->apic_id, APIC_SEND_INIT);
    comes_online(cpu, INIT_US); /* not yet: it waits for the first SIPI */
    apic_send(cpu->apic_id, startup);
    if (comes_online(cpu, FIRST_US))
        return true;
    apic_send(cpu->apic_id, startup);
    if (comes_online(cpu, START_US))
        return true;
    apic_send(cpu->apic_id, APIC_SEND_INIT);
    log_warn("the processor with APIC id %u does not start and is left out", cpu->apic_id);
    return false;
}

/* Makes the next processor known; its slot is used again if the one before did not come. */
static struct pcpu *prepare_cpu(u32 apic_id)
{
    static u64 stack; /* the top */
    static struct pcpu *cpu;

    if (!cpu || pcpus[cpu->id] == cpu)
        stack = (u64)paging_map_stack(pcpu_count, &cpu);
    if (!stack)
        return NULL;
    cpu->id = pcpu_count;
    cpu->apic_id = apic_id;
    ap_boot_cr3 = read_cr3();
    ap_boot_stack = stack;
    return cpu;
}

static void start_cpus(const struct acpi_info *acpi, paddr_t page)
{
    for (u32 i = 0; i < acpi->cpu_count; i++) {
        u32 apic_id = acpi->apic_id[i];
        struct pcpu *cpu;

        if (apic_id == pcpus[0]->apic_id)
            continue;
        cpu = pcpu_count < MAX_PCPUS ? prepare_cpu(apic_id) : NULL;
        if (!cpu) {
            log_warn("no room for the processor with APIC id %u", apic_id);
        } else if (start_cpu(cpu, page)) {
            sched_add_cpu(&cpu->rq, cpu->id);
            pcpus[pcpu_count++] = cpu;
        }
    }
}

void smp_start(const struct acpi_info *acpi)
{
    static u8 saved[PAGE_SIZE], code[PAGE_SIZE];
    u64 size = (u64)(trampoline_end - trampoline_start);
    paddr_t page = boot_find_ram(PAGE_SIZE, LOW_END, PAGE_SIZE);

    if (!page) {
        log_warn("no free memory below 640 KiB: only the boot processor can be used");
        return;
    }
    phys_read(saved, page, size);
    phys_read(code, (paddr_t)trampoline_start, size);
    phys_write(page, code, size);
    start_cpus(acpi, page);
    phys_write(page, saved, size);
}

void smp_end_wait(bool run)
{
    __atomic_store_n(&verdict, run ? RUN : GIVE_UP, __ATOMIC_RELEASE);
}

/* ---- what one asks of another ---- */

void pcpu_kick(int id)
{
    struct pcpu *cpu = this_cpu();

    if (id >= 0 && id != (int)cpu->id)
        apic_send(pcpus[id]->apic_id, APIC_VECTOR_KICK);
    else if (id >= 0 && cpu->current)
        vcpu_set_pending(cpu->current, PENDING_RESCHED);
}

void pcpu_flush_host_pending(void)
{
    struct pcpu *cpu = this_cpu();
    u64 asked = __atomic_load_n(&cpu->flush_host, __ATOMIC_ACQUIRE);

    if (likely(asked == cpu->flush_host_done))
        return;
    write_cr3(read_cr3()); /* what changes is not mapped as global */
    __atomic_store_n(&cpu->flush_host_done, asked, __ATOMIC_RELEASE);
}

void pcpu_flush_host(void *va)
{
    invlpg(va);
    for (u32 i = 0; i < pcpu_count; i++) {
        u64 asked;

        if (pcpus[i] == this_cpu())
            continue;
        asked = __atomic_add_fetch(&pcpus[i]->flush_host, 1, __ATOMIC_SEQ_CST);
        pcpu_kick((int)i);
        /* Two may wait for each other: each answers while it waits. */
        while (__atomic_load_n(&pcpus[i]->flush_host_done, __ATOMIC_ACQUIRE) < asked) {
            pcpu_flush_host_pending();
            cpu_relax();
        }
    }
}
