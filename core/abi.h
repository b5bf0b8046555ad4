/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The interface between Socle and the management domain's kernel: CPUID leaf, hypercalls, and the
 * pages that both sides share. Included by Socle and by dom0-shim; nothing else may define any of
 * it.
 *
 * A hypercall is VMMCALL (AMD) or VMCALL (Intel) at CPL 0 in 64-bit mode: number in RAX, arguments
 * in RDI, RSI, RDX, R10, R8; the result is in RAX, a negative errno on failure. Other registers are
 * kept. A call either does all that it says or changes nothing; where it may do a bounded piece, it
 * says -EAGAIN, and the same call continues. Calls from anyone but dom0's kernel are refused.
 *
 * "gpa" arguments name whole, page-aligned pages of dom0's own RAM (dom0's guest-physical addresses
 * are machine addresses). Socle copies what it reads there once, before it checks it. */
#pragma once

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include "core/types.h"
#endif

#define SOCLE_ABI_VERSION 1

/* CPUID: EBX:ECX:EDX of the base leaf spell "SocleSocle\0\0"; EAX is the highest leaf of the range.
 */
#define SOCLE_CPUID_BASE    0x40000100u
#define SOCLE_CPUID_INFO    0x40000101u /* EAX ABI version, EBX 0 = VMMCALL, 1 = VMCALL, ECX flags */
#define SOCLE_SMALL_EXEC    0x1u        /* guests' executable leaves are 4 KiB: ask for no others */
#define SOCLE_CPUID_SIG_EBX 0x6c636f53u /* "Socl" */
#define SOCLE_CPUID_SIG_ECX 0x636f5365u /* "eSoc" */
#define SOCLE_CPUID_SIG_EDX 0x0000656cu /* "le" */

#define SOCLE_HC_BASE 0x50c10000u

enum socle_hypercall {
    /* (gpa): struct socle_info */
    SOCLE_HC_INFO = SOCLE_HC_BASE,
    /* (position, gpa): struct socle_log_chunk from that byte position of the log on */
    SOCLE_HC_LOG_READ,
    /* (gpa, vector): the events page and dom0's vector for it; gpa 0 ends it */
    SOCLE_HC_EVENTS,
    /* (): a new domain's id, 1..SOCLE_MAX_DOMAINS-1 */
    SOCLE_HC_DOMAIN_CREATE,
    /* (domain): 0, or -EAGAIN while there is more to take down */
    SOCLE_HC_DOMAIN_DESTROY,
    /* (domain, SOCLE_PARAM_*, value) */
    SOCLE_HC_DOMAIN_SET,
    /* (domain, gpa): struct socle_domain_info of the first domain from that id on */
    SOCLE_HC_DOMAIN_NEXT,
    /* (domain, gfn, mfn, pages, SOCLE_MAP_*): maps an extent that must be dom0's RAM; large leaves
     * are used where alignment allows, and an extent of more than 512 pages must allow them: gfn
     * and mfn equal modulo 512. Existing leaves in the range are replaced. -ENOMEM: the range is
     * left without memory. */
    SOCLE_HC_MAP,
    /* (domain, gfn, pages): when it returns 0, no processor can reach the old pages any more */
    SOCLE_HC_UNMAP,
    /* (domain, gfn, at most SOCLE_MAP_MAX_PAGES): for dirty logging: the next write to each page is
     * a fault, or is in DIRTY_LOG, which is so only with the feature "pml"; flushed as UNMAP */
    SOCLE_HC_PROTECT,
    /* (domain, APIC id, gpa of its page, event port): the vCPU's handle; it lives as long as its
       domain */
    SOCLE_HC_VCPU_CREATE,
    /* (vCPU, SOCLE_RUN_* flags): SOCLE_RAN_*; -EBUSY for a moment, while another processor leaves
     * it */
    SOCLE_HC_VCPU_RUN,
    /* (vCPU): 0 when the vCPU runs nowhere and will not start by itself; -EAGAIN: it was kicked,
       ask again */
    SOCLE_HC_VCPU_STOP,
    /* (vCPU, SOCLE_STATE_*, gpa, bytes): the vCPU must be stopped or have exited (-EBUSY) */
    SOCLE_HC_VCPU_GET,
    SOCLE_HC_VCPU_SET,
    /* (vCPU, SOCLE_SIGNAL_*) */
    SOCLE_HC_VCPU_SIGNAL,
    /* (vCPU, gpa): struct socle_vcpu_stats; vCPUs of dom0 too: handle 0..n-1 */
    SOCLE_HC_VCPU_STATS,
    /* (domain, address, data): an MSI as a device writes it; the number of vCPUs that took it */
    SOCLE_HC_MSI,
    /* (domain, address, SOCLE_DOORBELL(...), data to match): -EEXIST, -ENOENT, -ENOSPC */
    SOCLE_HC_DOORBELL_ADD,
    SOCLE_HC_DOORBELL_REMOVE,
    /* (domain, gpa, vCPU): takes from the log of writes to what PROTECT was called for; the number
     * of gfns, u64 each, that it now holds. vCPU 0: of all, with all writes from before the call;
     * SOCLE_DIRTY_MAX: there may be more. Else all of one that is stopped */
    SOCLE_HC_DIRTY_LOG,
    SOCLE_HC_END
};

#define SOCLE_MAX_DOMAINS 256
#define SOCLE_MAX_VCPUS   1024 /* in all */

struct socle_info {
    u32 abi_version;
    u32 cpus;
    char version[32];
    char build_id[48];  /* hexadecimal */
    char vendor[8];     /* "svm" or "vmx" */
    char features[128]; /* names of the processor features in use, separated by spaces */
    u64 tsc_khz;
    u64 ram_bytes;   /* all of the machine's */
    u64 image_bytes; /* Socle's image */
    u64 pool_bytes;  /* Socle's heap */
    u64 pool_free_bytes;
    u64 uptime_ns;
    u64 frames_lent; /* mappings of dom0 frames in guests */
    u32 domains;
    u32 vcpus;
    u64 tsc_scaling; /* 1: vCPUs' TSCs may have other rates: SOCLE_STATE_TSC_KHZ */
    u64 tsc_boot;    /* the TSC where Socle's clock is 0 */
};

struct socle_log_chunk {
    u64 next;  /* position to ask for next */
    u32 bytes; /* 0: nothing newer */
    char text[4084];
};

/* SOCLE_HC_DOMAIN_SET */
#define SOCLE_PARAM_WEIGHT   1 /* 1..65536, default 1024: share of processor time */
#define SOCLE_PARAM_AFFINITY 2 /* bit n: may run on processor n, for the first 64; 0 = all */
#define SOCLE_PARAM_LAPIC    3 /* 1: vCPUs have a local APIC in Socle; before the first vCPU only */
#define SOCLE_PARAM_CLOCK    4 /* paravirtual clock minus Socle's, in ns */
#define SOCLE_PARAM_NAME_LO  5 /* a name of up to 16 bytes, for lists and logs */
#define SOCLE_PARAM_NAME_HI  6

/* SOCLE_HC_MAP */
#define SOCLE_MAP_WRITE     0x1
#define SOCLE_MAP_EXEC      0x2
#define SOCLE_MAP_ROM       0x4 /* without WRITE: a write is an MMIO exit, not a page fault exit */
#define SOCLE_MAP_MMIO      0x8 /* no memory there: accesses are MMIO exits; mfn is ignored */
#define SOCLE_MAP_MAX_PAGES 0x40000ul /* 1 GiB a call */

#define SOCLE_DIRTY_MAX 512

struct socle_domain_info {
    u32 id;
    u32 vcpus;
    char name[16];
    u64 mapped_pages; /* 4 KiB pages mapped */
    u64 pool_pages;   /* Socle's memory charged to it */
    u64 cpu_ns;
    u32 weight;
    u32 state; /* 0 stopped, 1 blocked, 2 runnable or running, 3 dying: of its most active vCPU */
    u32 vcpu_handle[16]; /* the first 16 */
};

/* SOCLE_HC_VCPU_RUN */
#define SOCLE_RUN_COMPLETE_ONLY 0x1 /* finish a pending I/O instruction, then stop: EXIT_NONE */

#define SOCLE_RAN_EXIT        0 /* the vCPU's page says why; it stays stopped until the next RUN */
#define SOCLE_RAN_INTERRUPTED 1 /* dom0 has an interrupt; the vCPU stays runnable; call again */
/* The vCPU waits (HLT, wait for SIPI); Socle wakes and runs it by itself; its event port is raised
 * at the next exit that needs dom0. */
#define SOCLE_RAN_BLOCKED 2

/* SOCLE_HC_VCPU_SIGNAL */
#define SOCLE_SIGNAL_NMI        1
#define SOCLE_SIGNAL_EXTINT     2 /* the PIC's output is high: SOCLE_EXIT_EXTINT follows */
#define SOCLE_SIGNAL_EXTINT_OFF 3
#define SOCLE_SIGNAL_INIT       4

/* SOCLE_HC_DOORBELL_*: a write that matches sets the event port and lets the guest go on. */
#define SOCLE_DOORBELL_PIO   0x0100
#define SOCLE_DOORBELL_MATCH 0x0200 /* only this data; else any */
/* len: 0 (any length), 1, 2, 4, 8 */
#define SOCLE_DOORBELL(port, len, flags) (((u64)(port) << 16) | (flags) | (len))

/* The events page: a bit per port in pending[], a bit per word of pending[] in summary[]. Socle
 * sets the pending bit, then the summary bit, then injects the vector into the vCPU of dom0 on the
 * same processor. The receiver takes both with atomic exchanges, the summary first. */
#define SOCLE_EVENT_WORDS 504
#define SOCLE_EVENT_PORTS (SOCLE_EVENT_WORDS * 64)
struct socle_events {
    u64 summary[8];
    u64 pending[SOCLE_EVENT_WORDS];
};

enum socle_exit {
    SOCLE_EXIT_NONE,
    SOCLE_EXIT_IO,    /* io; IN: data[] is taken at the next RUN */
    SOCLE_EXIT_MMIO,  /* mmio; a read takes data[] at the next RUN */
    SOCLE_EXIT_FAULT, /* fault: nothing is mapped at gpa, or not for that access: MAP, then RUN */
    SOCLE_EXIT_MSR_READ,   /* msr; value and msr.error are taken at the next RUN */
    SOCLE_EXIT_MSR_WRITE,  /* msr; msr.error is taken at the next RUN */
    SOCLE_EXIT_EXTINT,     /* give the PIC's vector in extint_vector, or -1, at the next RUN */
    SOCLE_EXIT_HLT,        /* only without a local APIC in Socle */
    SOCLE_EXIT_SHUTDOWN,   /* triple fault */
    SOCLE_EXIT_EMULATION,  /* insn: an instruction on MMIO that Socle does not emulate */
    SOCLE_EXIT_FAILED,     /* failed: the processor refused the vCPU's state, or an exit unknown to
                              Socle */
    SOCLE_EXIT_DEBUG,      /* debug: #DB or #BP that the debugger asked for */
    SOCLE_EXIT_DIRTY,      /* take DIRTY_LOG until it is empty, then RUN */
    SOCLE_EXIT_TASK,       /* task: make the switch, then RUN */
    SOCLE_EXIT_IRQ_WINDOW, /* what irq_window asks for */
    SOCLE_EXIT_UD          /* with SOCLE_TRAP_UD */
};

/* An answer to SOCLE_EXIT_MSR_READ and WRITE with SOCLE_TRAP_MSRS: Socle shall do it */
#define SOCLE_MSR_SOCLE 2

enum { SOCLE_TASK_CALL, SOCLE_TASK_IRET, SOCLE_TASK_JMP, SOCLE_TASK_GATE };

struct socle_segment {
    u64 base;
    u32 limit;
    u16 selector;
    u16 attr; /* descriptor bits 40-47 and 52-55 as VMCB has them: type 0-3, s 4, dpl 5-6, p 7, avl
               * 8, l 9, db 10, g 11 */
};

#define SOCLE_DATA_BYTES 1024

/* One page per vCPU, dom0's memory. Socle writes all of it but the fields marked "in", which it
 * copies once at RUN; nothing in it is trusted. */
struct socle_vcpu_page {
    u32 exit;        /* enum socle_exit */
    u32 extint_open; /* the local APIC lets an interrupt of dom0's through, and none waits there */
    u64 rip;         /* these five: as KVM_RUN gives them to its user; after STOP as well */
    u64 rflags;
    u64 cr8;
    u64 apic_base;
    union {
        struct {
            u16 port;
            u8 size;   /* 1, 2, 4 */
            u8 in;     /* 1: IN or INS */
            u32 count; /* > 1 only for string instructions; count * size <= SOCLE_DATA_BYTES */
        } io;
        struct {
            u64 gpa;
            u8 size; /* 1..8 */
            u8 write;
        } mmio;
        struct {
            u64 gpa;
            u8 write;
            u8 fetch;
            u8 present; /* something is mapped, but not for this access */
        } fault;
        struct {
            u32 index;
            u32 error; /* out: not 0: the errno by which Socle, asked to do it, has refused;
                        * in: SOCLE_MSR_SOCLE, or not 0: the instruction raises #GP */
            u64 value; /* in, for a read */
        } msr;
        struct {
            u8 length;
            u8 bytes[15];
        } insn;
        struct {
            u64 reason; /* the vendor's exit code */
            u64 info[2];
        } failed;
        struct {
            u32 exception;
            u32 reserved;
            u64 pc;
            u64 dr6;
            u64 dr7;
        } debug;
        struct {
            u64 next_rip; /* where the old task goes on */
            u16 selector; /* of the new TSS */
            u8 source;    /* SOCLE_TASK_* */
        } task;
        u8 pad[64];
    };
    s32 extint_vector; /* in; Socle writes -1 when it has taken it */
    u32 irq_window;    /* in: exit when an interrupt of dom0's can be taken */
    u64 waited;        /* TSC ticks that it has waited for a processor, when it last got one */
    u64 reserved1[10];
    u64 eoi[4]; /* a bit per vector: level-triggered interrupts that the guest has ended; the event
                 * port is raised too; the receiver takes the words with atomic exchanges */
    u8 reserved2[768];
    u8 data[SOCLE_DATA_BYTES] __attribute__((aligned(1024))); /* in and out */
    u8 reserved3[2048];
};

/* SOCLE_HC_VCPU_GET/SET sections */
#define SOCLE_STATE_REGS        1 /* struct socle_regs */
#define SOCLE_STATE_SREGS       2 /* struct socle_sregs; SET: -EINVAL if they cannot be together */
#define SOCLE_STATE_XSAVE       3 /* standard-format XSAVE area of what XCR0 can have */
#define SOCLE_STATE_XCR0        4 /* u64 */
#define SOCLE_STATE_MSRS        5 /* struct socle_msr[], at most 256; the result is the number done */
#define SOCLE_STATE_LAPIC       6  /* 1024 bytes, as KVM_GET_LAPIC */
#define SOCLE_STATE_EVENTS      7  /* struct socle_vcpu_events */
#define SOCLE_STATE_DEBUG       8  /* struct socle_debug */
#define SOCLE_STATE_MP          9  /* u32 SOCLE_MP_* */
#define SOCLE_STATE_CPUID       10 /* struct socle_cpuid[], at most SOCLE_CPUID_MAX; SET only */
#define SOCLE_STATE_GUEST_DEBUG 11 /* struct socle_guest_debug; SET only */
#define SOCLE_STATE_TSC_KHZ     12 /* u32; SET only; the TSC's value stays as it is */
#define SOCLE_STATE_TSC_OFFSET  13 /* u64: the TSC minus the processor's, which is scaled first */
#define SOCLE_STATE_TRAPS       14 /* u32 SOCLE_TRAP_*; SET only */

#define SOCLE_TRAP_MSRS 0x1 /* all RDMSR and WRMSR are exits first, but of x2APIC's registers */
#define SOCLE_TRAP_UD   0x2 /* what would raise #UD is an exit */

struct socle_regs {
    u64 gpr[16]; /* hardware order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
    u64 rip;
    u64 rflags;
};

enum {
    SOCLE_SEG_ES,
    SOCLE_SEG_CS,
    SOCLE_SEG_SS,
    SOCLE_SEG_DS,
    SOCLE_SEG_FS,
    SOCLE_SEG_GS,
    SOCLE_SEG_LDTR,
    SOCLE_SEG_TR,
    SOCLE_SEGS
};

struct socle_sregs {
    struct socle_segment seg[SOCLE_SEGS];
    u64 gdt_base, idt_base;
    u32 gdt_limit, idt_limit;
    u64 cr0, cr2, cr3, cr4, cr8;
    u64 efer;
    u64 apic_base;
};

struct socle_msr {
    u32 index;
    u32 reserved;
    u64 value;
};

#define SOCLE_MP_RUNNABLE 0
#define SOCLE_MP_UNINIT   1 /* waits for INIT */
#define SOCLE_MP_INIT     2 /* waits for SIPI */
#define SOCLE_MP_HALTED   3

struct socle_vcpu_events {
    u8 exception_pending; /* an exception to raise at the next entry */
    u8 exception_nr;
    u8 exception_has_error;
    u8 interrupt_injected; /* an interrupt accepted but not yet delivered */
    u32 exception_error;
    u8 interrupt_nr;
    u8 interrupt_soft;
    u8 shadow; /* bit 0: STI or MOV SS blocks interrupts for one instruction */
    u8 nmi_injected;
    u8 nmi_pending; /* SET: 2 leaves it, and the PIC's interrupt, as they are */
    u8 nmi_masked;
    u8 sipi_vector;
    u8 reserved;
};

struct socle_debug {
    u64 db[4];
    u64 dr6, dr7;
};

#define SOCLE_DEBUG_ON    0x1
#define SOCLE_DEBUG_STEP  0x2
#define SOCLE_DEBUG_BP    0x4  /* #BP makes an exit */
#define SOCLE_DEBUG_HW    0x8  /* db and dr7 are in the processor instead of the guest's own */
#define SOCLE_DEBUG_BLOCK 0x10 /* no interrupt, no NMI */
struct socle_guest_debug {
    u32 flags; /* SOCLE_DEBUG_*; without ON all is off */
    u32 reserved;
    u64 db[4];
    u64 dr7;
};

#define SOCLE_CPUID_MAX 128
struct socle_cpuid {
    u32 leaf;
    u32 subleaf;
    u32 by_subleaf; /* 1: subleaf must match too */
    u32 eax, ebx, ecx, edx;
    u32 reserved;
};

enum socle_stat {
    SOCLE_STAT_EXITS, /* all of them */
    SOCLE_STAT_INTERRUPT,
    SOCLE_STAT_WINDOW,
    SOCLE_STAT_CPUID,
    SOCLE_STAT_MSR_READ,
    SOCLE_STAT_MSR_WRITE,
    SOCLE_STAT_CR,
    SOCLE_STAT_HLT,
    SOCLE_STAT_IO,
    SOCLE_STAT_DOORBELL,
    SOCLE_STAT_MMIO,
    SOCLE_STAT_APIC_MMIO,
    SOCLE_STAT_FAULT,
    SOCLE_STAT_HYPERCALL,
    SOCLE_STAT_EXCEPTION,
    SOCLE_STAT_OTHER,
    SOCLE_STAT_TO_DOM0, /* exits that dom0 had to answer */
    SOCLE_STAT_INJECTED,
    SOCLE_STAT_IPI,
    SOCLE_STAT_TIMER,
    SOCLE_STAT_FLUSH,
    SOCLE_STAT_SWITCH, /* times it was given a processor */
    SOCLE_STATS
};

struct socle_vcpu_stats {
    u32 domain;
    u32 apic_id;
    u32 cpu;   /* where it last ran */
    u32 state; /* as in struct socle_domain_info */
    u64 cpu_ns;
    u64 count[SOCLE_STATS];
};
