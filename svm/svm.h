/* SPDX-License-Identifier: BSD-2-Clause */
/* AMD SVM: the VMCB's layout (AMD APM vol. 2, appendix B) and what svm/'s files share. Private to
 * svm/. */
#pragma once

#include "core/vcpu.h"

enum svm_exit {
    SVM_EXIT_WRITE_CR8 = 0x18,
    SVM_EXIT_READ_DR0 = 0x20,
    SVM_EXIT_WRITE_DR15 = 0x3f,
    SVM_EXIT_EXCP_BASE = 0x40,
    SVM_EXIT_INTR = 0x60,
    SVM_EXIT_NMI = 0x61,
    SVM_EXIT_SMI = 0x62,
    SVM_EXIT_INIT = 0x63,
    SVM_EXIT_VINTR = 0x64,
    SVM_EXIT_RDPMC = 0x6f,
    SVM_EXIT_CPUID = 0x72,
    SVM_EXIT_RSM = 0x73,
    SVM_EXIT_IRET = 0x74,
    SVM_EXIT_SWINT = 0x75,
    SVM_EXIT_INVD = 0x76,
    SVM_EXIT_PAUSE = 0x77,
    SVM_EXIT_HLT = 0x78,
    SVM_EXIT_INVLPGA = 0x7a,
    SVM_EXIT_IOIO = 0x7b,
    SVM_EXIT_MSR = 0x7c,
    SVM_EXIT_SHUTDOWN = 0x7f,
    SVM_EXIT_VMRUN = 0x80,
    SVM_EXIT_VMMCALL = 0x81,
    SVM_EXIT_VMLOAD = 0x82,
    SVM_EXIT_VMSAVE = 0x83,
    SVM_EXIT_STGI = 0x84,
    SVM_EXIT_CLGI = 0x85,
    SVM_EXIT_SKINIT = 0x86,
    SVM_EXIT_WBINVD = 0x89,
    SVM_EXIT_MONITOR = 0x8a,
    SVM_EXIT_MWAIT = 0x8b,
    SVM_EXIT_MWAIT_ARMED = 0x8c,
    SVM_EXIT_XSETBV = 0x8d,
    SVM_EXIT_RDPRU = 0x8e,
    SVM_EXIT_NPF = 0x400,
};

/* The intercept of an exit: of those from INTR on in the first word, of those from VMRUN on in the
 * second. */
#define INTERCEPT(exit) ((u32)BIT(SVM_EXIT_##exit % 32))

#define INT_CTL_TPR          0x0full
#define INT_CTL_IRQ          BIT(8)
#define INT_CTL_PRIO_HIGHEST (0xfull << 16)
#define INT_CTL_IGNORE_TPR   BIT(20)
#define INT_CTL_MASKING      BIT(24)
#define INT_CTL_VECTOR_SHIFT 32
/* A virtual interrupt that nothing but the guest's IF and shadow holds back. */
#define INT_CTL_NOW (INT_CTL_IRQ | INT_CTL_IGNORE_TPR | INT_CTL_PRIO_HIGHEST)

#define TLB_CONTROL_FLUSH_ALL 1

#define EVENT_INJ_TYPE  (7ull << 8)
#define EVENT_INJ_ERROR BIT(11)
#define EVENT_INJ_VALID BIT(31)

struct vmcb_segment {
    u16 selector;
    u16 attr;
    u32 limit;
    u64 base;
};

struct vmcb {
    u16 reserved0;
    u16 intercept_cr_write;   /* 002 */
    u32 intercept_dr;         /* 004: reads, then writes */
    u32 intercept_exceptions; /* 008 */
    u32 intercept1;
    u32 intercept2; /* 010 */
    u8 reserved2[0x3c - 0x14];
    u16 pause_threshold; /* 03c */
    u16 pause_count;
    u64 iopm; /* 040 */
    u64 msrpm;
    u64 tsc_offset;
    u32 asid; /* 058 */
    u8 tlb_control;
    u8 reserved3[3];
    u64 int_ctl; /* 060 */
    u64 int_state;
    u64 exit_code; /* 070 */
    u64 exit_info1;
    u64 exit_info2;
    u64 exit_int_info;
    u64 nested_ctl; /* 090 */
    u8 reserved4[0xa8 - 0x98];
    u64 event_inj; /* 0a8 */
    u64 nested_cr3;
    u64 reserved5;
    u64 clean; /* 0c0 */
    u64 next_rip;
    u8 reserved6[0x400 - 0xd0];
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr; /* 400 */
    u8 reserved7[0x4cb - 0x4a0];
    u8 cpl; /* 4cb */
    u32 reserved8;
    u64 efer; /* 4d0 */
    u8 reserved9[0x548 - 0x4d8];
    u64 cr4; /* 548 */
    u64 cr3;
    u64 cr0;
    u64 dr7;
    u64 dr6;
    u64 rflags; /* 570 */
    u64 rip;
    u8 reserved10[0x5d8 - 0x580];
    u64 rsp; /* 5d8 */
    u8 reserved11[0x5f8 - 0x5e0];
    u64 rax; /* 5f8 */
    u64 star;
    u64 lstar;
    u64 cstar;
    u64 sfmask;
    u64 kernel_gs_base;
    u64 sysenter_cs;
    u64 sysenter_esp;
    u64 sysenter_eip;
    u64 cr2; /* 640 */
    u8 reserved12[0x668 - 0x648];
    u64 pat; /* 668 */
    u8 reserved13[0x1000 - 0x670];
};

_Static_assert(offsetof(struct vmcb, iopm) == 0x40, "VMCB layout");
_Static_assert(offsetof(struct vmcb, int_ctl) == 0x60, "VMCB layout");
_Static_assert(offsetof(struct vmcb, event_inj) == 0xa8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rflags) == 0x570, "VMCB layout");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8, "VMCB layout");
_Static_assert(offsetof(struct vmcb, pat) == 0x668, "VMCB layout");
_Static_assert(sizeof(struct vmcb) == 4096, "VMCB layout");

/* What the processors have, the least of all (svm.c). */
struct svm_features {
    u32 asids;
    bool next_rip;
    bool pause_filter; /* with its threshold */
};
extern struct svm_features svm_features;

static inline struct vmcb *vmcb_of(const struct vcpu *v)
{
    return v->vendor;
}

/* entry.asm: runs the guest until the next exit; registers but RAX and RSP in gpr[]. */
void svm_enter(u64 *gpr, paddr_t vmcb);

/* run.c: enters the loaded vCPU until a handler wants something else. */
enum vcpu_action svm_run(struct vcpu *v);

/* svm.c */
void svm_get_sregs(struct vcpu *v, struct socle_sregs *s);

/* Opens the door for physical interrupts, once; and sleeps until one comes. */
#ifdef SOCLE_HOST
void svm_take_interrupts(void);
void svm_idle(void);
void svm_recheck_interrupts(void);
#else
static inline void svm_take_interrupts(void)
{
    __asm__ volatile("stgi\n\tnop\n\tclgi" : : : "memory");
}

static inline void svm_idle(void)
{
    __asm__ volatile("cli\n\tstgi\n\tsti\n\thlt\n\tclgi" : : : "memory");
}

/* Makes the local APIC say again whether an interrupt is pending, by setting the task priority to
 * what it is. QEMU's VMRUN (7.2) sets up a virtual interrupt without a lock, and can so lose the
 * message about a physical one that arrives right then; a processor with nothing else to leave the
 * guest for would never learn of it. */
static inline void svm_recheck_interrupts(void)
{
    write_cr8(0);
}
#endif
