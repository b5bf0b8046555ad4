/* SPDX-License-Identifier: BSD-2-Clause */
/* Exceptions and interrupts that reach Socle itself, and the panic that ends it. */
#include "core/trap.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/machine.h"
#include "core/panic.h"
#include "core/pcpu.h"
#include "core/symtab.h"
#include "drivers/apic.h"

#define KERNEL_CS       0x08
#define GATE_INTERRUPT  0x8e00u
#define TRAP_STUB_SIZE  16
#define BACKTRACE_DEPTH 16

struct PACKED table_pointer {
    u16 limit;
    u64 base;
};

extern char trap_stubs[], rdmsr_faulting[], rdmsr_failed[], text_start[], text_end[];

struct idt_gate trap_idt[256];
static u32 panicking;

void trap_init_cpu(void)
{
    struct table_pointer pointer = {sizeof(trap_idt) - 1, (u64)trap_idt};

    for (u32 v = 0; v < 256; v++) {
        u64 stub = (u64)trap_stubs + v * TRAP_STUB_SIZE;

        trap_idt[v] = (struct idt_gate){.offset_low = (u16)stub,
                                        .selector = KERNEL_CS,
                                        .flags = GATE_INTERRUPT,
                                        .offset_mid = (u16)(stub >> 16),
                                        .offset_high = (u32)(stub >> 32)};
    }
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void print_backtrace(u64 rip, u64 rbp)
{
    for (int i = 0; i < BACKTRACE_DEPTH && rip >= (u64)text_start && rip < (u64)text_end; i++) {
        u64 offset;
        const char *name = symtab_lookup(rip, &offset);

        log_emergency("  %016lx %s+0x%lx", rip, name ? name : "?", name ? offset : 0);
        /* Frames lie on this processor's stack; anything else ends the walk. */
        if ((rbp & 7) || (rbp ^ (u64)__builtin_frame_address(0)) >= PCPU_SLOT_SIZE)
            return;
        rip = ((u64 *)rbp)[1];
        rbp = ((u64 *)rbp)[0];
    }
}

static void print_frame(const struct trap_frame *f)
{
    log_emergency("vector %lu error %lx rip %016lx rflags %08lx cs %lx", f->vector, f->error,
                  f->rip, f->rflags, f->cs);
    log_emergency("rax %016lx rbx %016lx rcx %016lx", f->rax, f->rbx, f->rcx);
    log_emergency("rdx %016lx rsi %016lx rdi %016lx", f->rdx, f->rsi, f->rdi);
    log_emergency("rbp %016lx rsp %016lx r8  %016lx", f->rbp, f->rsp, f->r8);
    log_emergency("r9  %016lx r10 %016lx r11 %016lx", f->r9, f->r10, f->r11);
    log_emergency("r12 %016lx r13 %016lx r14 %016lx", f->r12, f->r13, f->r14);
    log_emergency("r15 %016lx cr2 %016lx cr3 %016lx", f->r15, read_cr2(), read_cr3());
}

static NORETURN void stop_machine(const struct trap_frame *frame, u64 rip, u64 rbp)
{
    char id[48];

    if (frame)
        print_frame(frame);
    log_emergency("backtrace:");
    print_backtrace(rip, rbp);
    build_id_text(id, sizeof(id));
    log_emergency("Socle " SOCLE_VERSION ", build id %s", id);
    apic_stop_others();
    cpu_halt_forever();
}

/* A second processor's panic, or one inside of a panic, adds nothing. */
static void claim_panic(void)
{
    if (__atomic_exchange_n(&panicking, 1, __ATOMIC_ACQ_REL))
        cpu_halt_forever();
}

void panic(const char *fmt, ...)
{
    char text[240];
    va_list ap;

    claim_panic();
    va_start(ap, fmt);
    fmt_vprint(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_emergency("PANIC: %s", text);
    stop_machine(NULL, (u64)__builtin_return_address(0), *(u64 *)__builtin_frame_address(0));
}

void trap_entry(struct trap_frame *frame)
{
    if (frame->vector >= 32) {
        irq_physical((u8)frame->vector);
        return;
    }
    if (frame->vector == VEC_NMI)
        return; /* a kick; the pending work is looked at in any case */
    if (frame->vector == VEC_GP && frame->rip == (u64)rdmsr_faulting) {
        frame->rip = (u64)rdmsr_failed;
        return;
    }
    claim_panic();
    log_emergency("PANIC: exception %lu in Socle", frame->vector);
    stop_machine(frame, frame->rip, frame->rbp);
}

void pcpu_init_tables(struct pcpu *cpu)
{
    struct table_pointer pointer = {sizeof(cpu->gdt) - 1, (u64)cpu->gdt};
    u64 tss = (u64)cpu->tss;

    cpu->gdt[1] = 0x00af9b000000ffff; /* KERNEL_CS */
    cpu->gdt[2] = 0x00cf93000000ffff;
    cpu->gdt[4] = 0x0000890000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
    cpu->gdt[5] = tss >> 32;
    cpu->tss[25] = 104u << 16; /* no I/O bitmap */
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("pushq $8\n\tlea 1f(%%rip), %%rax\n\tpushq %%rax\n\tlretq\n1:\n\t"
                     "mov $0x10, %%eax\n\tmov %%eax, %%ss\n\tmov $0x20, %%eax\n\tltr %%ax\n\t"
                     "xor %%eax, %%eax\n\tmov %%eax, %%ds\n\tmov %%eax, %%es\n\t"
                     "mov %%eax, %%fs\n\tmov %%eax, %%gs"
                     :
                     :
                     : "rax", "memory");
    trap_init_cpu();
}
