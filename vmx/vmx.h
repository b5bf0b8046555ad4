/* SPDX-License-Identifier: BSD-2-Clause */
/* Intel VMX: the VMCS's fields (Intel SDM vol. 3D, appendix B) and what vmx/'s files share. Private
 * to vmx/. */
#pragma once

#include "core/panic.h"
#include "core/types.h"
#include "core/vcpu.h"
#include "core/x86.h"

/* ---- controls (vol. 3C, 25.6 to 25.8) ---- */

enum {
    PIN_EXTERNAL_INTERRUPT = BIT(0),
    PIN_NMI = BIT(3),
    PIN_VIRTUAL_NMIS = BIT(5),
    PIN_PREEMPTION_TIMER = BIT(6),
};

enum {
    PROC_INTERRUPT_WINDOW = BIT(2),
    PROC_TSC_OFFSET = BIT(3),
    PROC_HLT = BIT(7),
    PROC_MWAIT = BIT(10),
    PROC_RDPMC = BIT(11),
    PROC_CR8_LOAD = BIT(19),
    PROC_CR8_STORE = BIT(20),
    PROC_TPR_SHADOW = BIT(21),
    PROC_NMI_WINDOW = BIT(22),
    PROC_MOV_DR = BIT(23),
    PROC_IO_BITMAPS = BIT(25),
    PROC_MSR_BITMAPS = BIT(28),
    PROC_MONITOR = BIT(29),
};
#define PROC_SECONDARY 0x80000000u

enum {
    PROC2_EPT = BIT(1),
    PROC2_RDTSCP = BIT(3),
    PROC2_X2APIC = BIT(4),
    PROC2_VPID = BIT(5),
    PROC2_WBINVD = BIT(6),
    PROC2_UNRESTRICTED = BIT(7),
    PROC2_APIC_REGISTERS = BIT(8),
    PROC2_VIRTUAL_INTERRUPTS = BIT(9),
    PROC2_PAUSE_LOOP = BIT(10),
    PROC2_INVPCID = BIT(12),
    PROC2_LOG = BIT(17), /* page-modification logging */
    PROC2_TSC_SCALING = BIT(25),
};
#define PROC2_APIC (PROC2_X2APIC | PROC2_APIC_REGISTERS | PROC2_VIRTUAL_INTERRUPTS)

enum {
    EXIT_SAVE_DEBUG = BIT(2),
    EXIT_HOST_64 = BIT(9),
    EXIT_ACK_INTERRUPT = BIT(15),
    EXIT_SAVE_PAT = BIT(18),
    EXIT_LOAD_PAT = BIT(19),
    EXIT_SAVE_EFER = BIT(20),
    EXIT_LOAD_EFER = BIT(21),
};

enum {
    ENTRY_LOAD_DEBUG = BIT(2),
    ENTRY_IA32E = BIT(9),
    ENTRY_LOAD_PAT = BIT(14),
    ENTRY_LOAD_EFER = BIT(15),
};

/* ---- fields ---- */

enum vmcs_field {
    VMCS_VPID = 0x0000,
    VMCS_GUEST_SELECTOR = 0x0800, /* ES CS SS DS FS GS LDTR TR, two apart */
    VMCS_INTERRUPT_STATUS = 0x0810,
    VMCS_LOG_INDEX = 0x0812,
    VMCS_HOST_SELECTOR = 0x0c00, /* ES CS SS DS FS GS TR */
    VMCS_IO_BITMAP_A = 0x2000,
    VMCS_IO_BITMAP_B = 0x2002,
    VMCS_MSR_BITMAP = 0x2004,
    VMCS_LOG = 0x200e,
    VMCS_TSC_OFFSET = 0x2010,
    VMCS_VIRTUAL_APIC = 0x2012,
    VMCS_EPTP = 0x201a,
    VMCS_EOI_EXITS = 0x201c, /* four, two apart */
    VMCS_TSC_MULTIPLIER = 0x2032,
    VMCS_GUEST_PHYSICAL = 0x2400,
    VMCS_LINK = 0x2800,
    VMCS_GUEST_DEBUGCTL = 0x2802,
    VMCS_GUEST_PAT = 0x2804,
    VMCS_GUEST_EFER = 0x2806,
    VMCS_GUEST_PDPTE0 = 0x280a,
    VMCS_HOST_PAT = 0x2c00,
    VMCS_HOST_EFER = 0x2c02,
    VMCS_PIN = 0x4000,
    VMCS_PROC = 0x4002,
    VMCS_EXCEPTIONS = 0x4004,
    VMCS_PF_ERROR_MASK = 0x4006,
    VMCS_PF_ERROR_MATCH = 0x4008,
    VMCS_CR3_TARGETS = 0x400a,
    VMCS_EXIT_CONTROLS = 0x400c,
    VMCS_EXIT_MSR_STORES = 0x400e,
    VMCS_EXIT_MSR_LOADS = 0x4010,
    VMCS_ENTRY_CONTROLS = 0x4012,
    VMCS_ENTRY_MSR_LOADS = 0x4014,
    VMCS_ENTRY_INTR_INFO = 0x4016,
    VMCS_ENTRY_INTR_ERROR = 0x4018,
    VMCS_TPR_THRESHOLD = 0x401c,
    VMCS_PROC2 = 0x401e,
    VMCS_PAUSE_GAP = 0x4020,
    VMCS_PAUSE_WINDOW = 0x4022,
    VMCS_INSTRUCTION_ERROR = 0x4400,
    VMCS_EXIT_REASON = 0x4402,
    VMCS_EXIT_INTR_INFO = 0x4404,
    VMCS_EXIT_INTR_ERROR = 0x4406,
    VMCS_IDT_INFO = 0x4408,
    VMCS_IDT_ERROR = 0x440a,
    VMCS_EXIT_LENGTH = 0x440c,
    VMCS_GUEST_LIMIT = 0x4800, /* as the selectors; then GDTR, IDTR */
    VMCS_GUEST_GDTR_LIMIT = 0x4810,
    VMCS_GUEST_IDTR_LIMIT = 0x4812,
    VMCS_GUEST_RIGHTS = 0x4814,
    VMCS_INTERRUPTIBILITY = 0x4824,
    VMCS_GUEST_ACTIVITY = 0x4826,
    VMCS_GUEST_SYSENTER_CS = 0x482a,
    VMCS_PREEMPTION_TIMER = 0x482e,
    VMCS_HOST_SYSENTER_CS = 0x4c00,
    VMCS_CR0_MASK = 0x6000,
    VMCS_CR4_MASK = 0x6002,
    VMCS_CR0_SHADOW = 0x6004,
    VMCS_CR4_SHADOW = 0x6006,
    VMCS_QUALIFICATION = 0x6400,
    VMCS_GUEST_CR0 = 0x6800,
    VMCS_GUEST_CR3 = 0x6802,
    VMCS_GUEST_CR4 = 0x6804,
    VMCS_GUEST_BASE = 0x6806, /* as the limits */
    VMCS_GUEST_GDTR_BASE = 0x6816,
    VMCS_GUEST_IDTR_BASE = 0x6818,
    VMCS_GUEST_DR7 = 0x681a,
    VMCS_GUEST_RSP = 0x681c,
    VMCS_GUEST_RIP = 0x681e,
    VMCS_GUEST_RFLAGS = 0x6820,
    VMCS_PENDING_DEBUG = 0x6822,
    VMCS_GUEST_SYSENTER_ESP = 0x6824,
    VMCS_GUEST_SYSENTER_EIP = 0x6826,
    VMCS_HOST_CR0 = 0x6c00,
    VMCS_HOST_CR3 = 0x6c02,
    VMCS_HOST_CR4 = 0x6c04,
    VMCS_HOST_FS_BASE = 0x6c06, /* and GS's */
    VMCS_HOST_TR_BASE = 0x6c0a,
    VMCS_HOST_GDTR_BASE = 0x6c0c,
    VMCS_HOST_IDTR_BASE = 0x6c0e,
    VMCS_HOST_SYSENTER_ESP = 0x6c10, /* and EIP */
    VMCS_HOST_RIP = 0x6c16,
};

#define SHADOW_STI     BIT(0)
#define SHADOW_MOV_SS  BIT(1)
#define SHADOW         (SHADOW_STI | SHADOW_MOV_SS)
#define BLOCKED_BY_NMI BIT(3)
#define PENDING_BS     BIT(14) /* of the pending debug exceptions */

/* Entry, exit and IDT-vectoring information: as struct event has it, and: */
#define INTR_INFO_ERROR BIT(11)
#define INTR_INFO_VALID BIT(31)

/* ---- exit reasons (vol. 3D, appendix C) ---- */

enum vmx_exit {
    VMX_EXIT_EXCEPTION = 0, /* or NMI */
    VMX_EXIT_INTERRUPT = 1,
    VMX_EXIT_TRIPLE_FAULT = 2,
    VMX_EXIT_INIT = 3,
    VMX_EXIT_INTERRUPT_WINDOW = 7,
    VMX_EXIT_NMI_WINDOW = 8,
    VMX_EXIT_TASK_SWITCH = 9,
    VMX_EXIT_CPUID = 10,
    VMX_EXIT_GETSEC = 11,
    VMX_EXIT_HLT = 12,
    VMX_EXIT_INVD = 13,
    VMX_EXIT_RDPMC = 15,
    VMX_EXIT_RSM = 17,
    VMX_EXIT_VMCALL = 18,
    VMX_EXIT_VMCLEAR = 19,
    VMX_EXIT_VMXON = 27,
    VMX_EXIT_CR = 28,
    VMX_EXIT_DR = 29,
    VMX_EXIT_IO = 30,
    VMX_EXIT_RDMSR = 31,
    VMX_EXIT_WRMSR = 32,
    VMX_EXIT_MWAIT = 36,
    VMX_EXIT_MONITOR = 39,
    VMX_EXIT_PAUSE = 40,
    VMX_EXIT_MACHINE_CHECK = 41, /* during the entry */
    VMX_EXIT_EOI = 45,
    VMX_EXIT_EPT_VIOLATION = 48,
    VMX_EXIT_INVEPT = 50,
    VMX_EXIT_PREEMPTION_TIMER = 52,
    VMX_EXIT_INVVPID = 53,
    VMX_EXIT_WBINVD = 54,
    VMX_EXIT_XSETBV = 55,
    VMX_EXIT_LOG_FULL = 62,
};

/* ---- a vCPU ---- */

/* The MSRs of SYSCALL, and the last, of SWAPGS, which no VMCS field has. */
#define SYSCALL_MSRS 5
#define KERNEL_GS    4

struct vmx_vcpu {
    void *vmcs;       /* a pool page */
    u32 proc;         /* the primary controls as they are in the VMCS */
    u32 host_cpu;     /* whose tables are in the host state */
    bool launched;    /* on the processor that has loaded it */
    bool pdptes_due;  /* new paging state: PAE paging needs its four entries before the entry */
    u64 eoi_exits[4]; /* as they are in the VMCS */
    u64 msr[SYSCALL_MSRS];
    u64 cr2;
    u64 dr6;
};

static inline struct vmx_vcpu *vmx_of(const struct vcpu *v)
{
    return v->vendor;
}

/* What the processors have, the least of all; the controls in use (vmx.c). */
struct vmx_features {
    u32 pin, proc, proc2, exit, entry;
    u32 apic;        /* of proc2 in x2APIC mode: the processor delivers interrupts itself */
    u32 timer_shift; /* preemption timer: TSC ticks of its own, as a power of two */
};
extern struct vmx_features vmx_features;

#ifdef SOCLE_HOST
u64 vmread(u32 field);
void vmwrite(u32 field, u64 value);
#else
static inline u64 vmread(u32 field)
{
    u64 value;
    bool failed;

    __asm__ volatile("vmread %2, %0" : "=rm"(value), "=@ccbe"(failed) : "r"((u64)field));
    if (unlikely(failed))
        panic("VMREAD %x", field);
    return value;
}

static inline void vmwrite(u32 field, u64 value)
{
    bool failed;

    __asm__ volatile("vmwrite %1, %2" : "=@ccbe"(failed) : "rm"(value), "r"((u64)field));
    if (unlikely(failed))
        panic("VMWRITE %x, %lx", field, value);
}
#endif

/* entry.asm: runs the guest until the next exit; registers but RSP in gpr[]. False: the entry
 * failed, and VMCS_INSTRUCTION_ERROR says why. */
bool vmx_enter(u64 *gpr, bool launched);
extern char vmx_exited[];

/* run.c: enters the loaded vCPU until a handler wants something else. */
enum vcpu_action vmx_run(struct vcpu *v);

/* vmx.c: the VMCS is current on the processor while its vCPU is loaded. */
void vmx_get_sregs(struct vcpu *v, struct socle_sregs *s);
void vmx_set_cr0(struct vcpu *v, u64 cr0);
void vmx_flush(const struct vcpu *v);
void vmx_sync_interrupts(struct vcpu *v);

/* Opens the door for physical interrupts, once; and sleeps until one comes. */
#ifdef SOCLE_HOST
void vmx_take_interrupts(void);
void vmx_idle(void);
#else
static inline void vmx_take_interrupts(void)
{
    __asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
}

static inline void vmx_idle(void)
{
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}
#endif
