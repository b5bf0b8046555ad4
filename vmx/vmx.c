/* SPDX-License-Identifier: BSD-2-Clause */
/* Intel VMX: finding and enabling it, and a vCPU's state outside of the run loop. */
#include "vmx/vmx.h"
#include "core/debug.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/trap.h"
#include "core/vendor.h"
#include "drivers/apic.h"
#include "drivers/tsc.h"

#define MSR_FEATURE_CONTROL   0x3a
#define MSR_ARCH_CAPABILITIES 0x10a
#define FEATURE_LOCKED        BIT(0)
#define FEATURE_VMX           BIT(2)
#define MSR_VMX_BASIC         0x480
#define VMX_BASIC_TRUE        BIT(55)
#define MSR_VMX_PROC          0x482
#define MSR_VMX_MISC          0x485
#define MSR_VMX_PROC2         0x48b
#define MSR_VMX_EPT_VPID      0x48c
#define MSR_VMX_TRUE_PIN      0x48d
#define MSR_VMX_TRUE_PROC     0x48e
#define MSR_VMX_TRUE_EXIT     0x48f
#define MSR_VMX_TRUE_ENTRY    0x490
#define EPT_NEEDED            (BIT(6) | BIT(14) | BIT(16) | BIT(20) | BIT(25))
#define EPT_1GIB              BIT(17)
#define EPT_DIRTY             BIT(21)
#define INVEPT_SINGLE_CONTEXT 1ull

/* In TSC ticks: a loop of PAUSEs at most this far apart that goes on for so long gives way. */
#define PAUSE_GAP    128
#define PAUSE_WINDOW 4096

/* #AC and #DB too: a guest could keep the processor in their delivery for ever (CVE-2015-5307). */
#define EXCEPTIONS (BIT(VEC_MC) | BIT(VEC_AC) | BIT(VEC_DB))

#define EPTP_WB_4_LEVELS 0x1eull
#define EPTP_DIRTY       BIT(6)
#define HOST_CS          0x08
#define HOST_SS          0x10
#define HOST_TR          0x20
#define RIGHTS_UNUSABLE  BIT(16)
#define RIGHTS_PRESENT   BIT(7)
#define RIGHTS_ACCESSED  BIT(0)
#define TSS_BUSY         BIT(1)

/* Bits that a guest sees as it set them, while the processor has others. */
#define CR0_OWNED (CR0_NE | CR0_CD | CR0_NW)
/* Bits that a guest changes without an exit; it is not offered the others. */
#define CR4_FREE                                                                                  \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |     \
     CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | \
     CR4_SMAP | CR4_PKE | CR4_LA57)

static struct npt_format npt_format_ept = NPT_FORMAT_EPT;

struct vmx_features vmx_features;

/* One bit per port; dom0's are all zeros: it owns the machine's ports. */
static u8 io_bitmap_dom0[2 * PAGE_SIZE] ALIGNED(4096);
static u8 io_bitmap_guest[2 * PAGE_SIZE] ALIGNED(4096);
static u8 msr_bitmap[PAGE_SIZE] ALIGNED(4096);
static u8 msr_bitmap_x2apic[PAGE_SIZE] ALIGNED(4096);

/* A guest's write makes an exit, so what each processor has is known; but for KERNEL_GS_BASE, which
 * SWAPGS changes too. */
static const u32 syscall_msrs[SYSCALL_MSRS] = {MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK,
                                               MSR_KERNEL_GS_BASE};
static u64 loaded_msrs[MAX_PCPUS][SYSCALL_MSRS];

/* The MSRs that are fields. Guests read and write all but PAT and EFER without an exit. */
static const struct {
    u32 index;
    u32 field;
} msr_fields[] = {
    {MSR_FS_BASE, VMCS_GUEST_BASE + 2 * SOCLE_SEG_FS},
    {MSR_GS_BASE, VMCS_GUEST_BASE + 2 * SOCLE_SEG_GS},
    {MSR_SYSENTER_CS, VMCS_GUEST_SYSENTER_CS},
    {MSR_SYSENTER_ESP, VMCS_GUEST_SYSENTER_ESP},
    {MSR_SYSENTER_EIP, VMCS_GUEST_SYSENTER_EIP},
    {MSR_PAT, VMCS_GUEST_PAT},
    {MSR_EFER, VMCS_GUEST_EFER},
};

/* ---- the processors ---- */

/* Whether a capability MSR allows these controls to be 1 (Intel SDM vol. 3D, A.3). */
static bool allows(u32 msr, u32 controls)
{
    return !(controls & ~(rdmsr(msr) >> 32));
}

/* A guest can stop the processor for ever by the page size of code (CVE-2018-12207), unless this
 * says otherwise: PSCHANGE_MC_NO. */
static bool safe_large_exec(void)
{
    u64 capabilities;

    return (cpuid(7, 0).edx & BIT(29)) && rdmsr_safe(MSR_ARCH_CAPABILITIES, &capabilities) &&
           (capabilities & BIT(6));
}

static bool vmx_detect(const char **why)
{
    u64 control = rdmsr_safe(MSR_FEATURE_CONTROL, &control) ? control : 0;

    *why = "this processor has no VMX (Intel VT-x)";
    if (!(cpuid(1, 0).ecx & BIT(5)))
        return false;
    *why = "VMX (Intel VT-x) is switched off and locked by the firmware: enable it in the "
           "firmware's setup";
    if ((control & (FEATURE_LOCKED | FEATURE_VMX)) == FEATURE_LOCKED)
        return false;
    *why = "this processor has VMX, but no EPT";
    if (!allows(MSR_VMX_PROC, PROC_SECONDARY) || !allows(MSR_VMX_PROC2, PROC2_EPT) ||
        (rdmsr(MSR_VMX_EPT_VPID) & EPT_NEEDED) != EPT_NEEDED)
        return false;
    *why = "this processor has VMX, but no unrestricted guest";
    if (!allows(MSR_VMX_PROC2, PROC2_UNRESTRICTED))
        return false;
    npt_format_ept.max_leaf = rdmsr(MSR_VMX_EPT_VPID) & EPT_1GIB ? 2 : 1;
    if (!safe_large_exec())
        npt_format_ept.max_exec_leaf = 0;
    *why = "this processor has VMX, but not its TRUE controls";
    return rdmsr(MSR_VMX_BASIC) & VMX_BASIC_TRUE;
}

/* A bit for each MSR's reads in the first 2 KiB, low and high MSRs, then for writes (Intel SDM vol.
 * 3C, 25.6.9). */
static void allow_msr(u8 *bitmap, u32 msr, bool read, bool write)
{
    u32 bit = (msr >= 0xc0000000 ? 1024 * 8 : 0) + (msr & 0x1fff);
    u8 mask = (u8)(1u << (bit % 8));

    if (read)
        bitmap[bit / 8] &= (u8)~mask;
    if (write)
        bitmap[2048 + bit / 8] &= (u8)~mask;
}

static void init_permission_maps(void)
{
    memset(io_bitmap_guest, 0xff, sizeof(io_bitmap_guest));
    memset(msr_bitmap, 0xff, sizeof(msr_bitmap));
    for (u32 i = 0; i < ARRAY_SIZE(msr_fields); i++)
        if (msr_fields[i].index != MSR_PAT && msr_fields[i].index != MSR_EFER)
            allow_msr(msr_bitmap, msr_fields[i].index, true, true);
    for (u32 i = 0; i < SYSCALL_MSRS; i++)
        allow_msr(msr_bitmap, syscall_msrs[i], true, i == KERNEL_GS);
    /* What the processor carries out itself (Intel SDM vol. 3C, 30.5). */
    memcpy(msr_bitmap_x2apic, msr_bitmap, sizeof(msr_bitmap));
    for (u32 reg = 0; reg < VLAPIC_REGS; reg++)
        allow_msr(msr_bitmap_x2apic, MSR_X2APIC_FIRST + reg, vlapic_is_plain(reg),
                  reg == VLAPIC_REG_EOI);
}

/* What must be 1, what is needed, and what is wanted and can be had; 0 if a need cannot be met. */
static u32 choose(u32 msr, u32 needed, u32 wanted)
{
    u64 capability = rdmsr(msr);

    if (needed & ~(capability >> 32))
        return 0;
    return (u32)capability | needed | (wanted & (u32)(capability >> 32));
}

static struct vmx_features choose_features(void)
{
    u32 wanted = vendor_plain ? 0 : ~0u; /* of what is optional */
    struct vmx_features f = {
        .pin = choose(MSR_VMX_TRUE_PIN, PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMIS,
                      PIN_PREEMPTION_TIMER & wanted),
        .proc = choose(MSR_VMX_TRUE_PROC,
                       PROC_TSC_OFFSET | PROC_HLT | PROC_MWAIT | PROC_RDPMC | PROC_CR8_LOAD |
                           PROC_CR8_STORE | PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_MONITOR |
                           PROC_SECONDARY,
                       PROC_TPR_SHADOW & wanted),
        .proc2 =
            choose(MSR_VMX_PROC2, PROC2_EPT | PROC2_UNRESTRICTED,
                   PROC2_RDTSCP | PROC2_INVPCID | PROC2_WBINVD |
                       ((PROC2_VPID | PROC2_PAUSE_LOOP | PROC2_LOG | PROC2_TSC_SCALING) & wanted)),
        .exit = choose(MSR_VMX_TRUE_EXIT,
                       EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACK_INTERRUPT | EXIT_SAVE_PAT |
                           EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER,
                       0),
        .entry = choose(MSR_VMX_TRUE_ENTRY, ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER, 0),
        .timer_shift = rdmsr(MSR_VMX_MISC) & 0x1f,
    };

    if (f.proc & PROC_TPR_SHADOW)
        f.proc &= ~(u32)(PROC_CR8_LOAD | PROC_CR8_STORE);
    if ((f.proc & PROC_TPR_SHADOW) && allows(MSR_VMX_PROC2, PROC2_APIC))
        f.apic = PROC2_APIC;
    if (!(rdmsr(MSR_VMX_EPT_VPID) & EPT_DIRTY))
        f.proc2 &= ~(u32)PROC2_LOG;
    return f;
}

static bool vmxon(paddr_t region)
{
    bool failed;

    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(region) : "memory");
    return !failed;
}

static void *alloc_region(struct charge *charge)
{
    u32 *region = pool_alloc(charge);

    if (region)
        *region = rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
    return region;
}

/* All processors must offer the same. */
static int vmx_init_cpu(struct pcpu *cpu)
{
    void *region = alloc_region(NULL);
    u64 control = rdmsr(MSR_FEATURE_CONTROL);
    struct vmx_features f = choose_features();

    if (!region)
        return -E_NOMEM;
    if (cpu->id == 0) {
        vmx_features = f;
        npt_format_ept.log = f.proc2 & PROC2_LOG ? NPT_EPT_DIRTY : 0;
        tsc_scaling = f.proc2 & PROC2_TSC_SCALING;
        init_permission_maps();
        irq_entries_are_timed = f.pin & PIN_PREEMPTION_TIMER;
    }
    if (!f.pin || !f.proc || !f.proc2 || !f.exit || !f.entry ||
        memcmp(&f, &vmx_features, sizeof(f)) != 0)
        return -E_NODEV;
    for (u32 i = 0; i < SYSCALL_MSRS; i++)
        loaded_msrs[cpu->id][i] = rdmsr(syscall_msrs[i]);
    if (!(control & FEATURE_LOCKED))
        wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_LOCKED | FEATURE_VMX);
    write_cr4(read_cr4() | CR4_VMXE);
    return vmxon(virt_to_phys(region)) ? 0 : -E_NODEV;
}

static void vmx_feature_names(char *text, size_t size)
{
    fmt_print(text, size, "ept%s%s%s%s%s%s%s", vmx_features.proc2 & PROC2_VPID ? " vpid" : "",
              vmx_features.pin & PIN_PREEMPTION_TIMER ? " preemption-timer" : "",
              vmx_features.proc & PROC_TPR_SHADOW ? " tpr-shadow" : "",
              vmx_features.apic ? " apicv" : "",
              vmx_features.proc2 & PROC2_PAUSE_LOOP ? " pause-loop" : "",
              vmx_features.proc2 & PROC2_LOG ? " pml" : "", tsc_scaling ? " tsc-scaling" : "");
}

/* ---- the current VMCS ---- */

static void vmptrld(const struct vcpu *v)
{
    paddr_t pa = virt_to_phys(vmx_of(v)->vmcs);

    __asm__ volatile("vmptrld %0" : : "m"(pa) : "cc", "memory");
}

static void vmclear(const struct vcpu *v)
{
    paddr_t pa = virt_to_phys(vmx_of(v)->vmcs);

    __asm__ volatile("vmclear %0" : : "m"(pa) : "cc", "memory");
    vmx_of(v)->launched = false;
}

/* Around accesses to the VMCS of a vCPU that is loaded here or stopped. */
static void vmcs_begin(const struct vcpu *v)
{
    if (!pcpu_has(v))
        vmptrld(v);
}

static void vmcs_end(const struct vcpu *v)
{
    if (pcpu_has(v))
        return;
    vmclear(v);
    if (this_cpu()->current)
        vmptrld(this_cpu()->current);
}

/* ---- a new vCPU ---- */

/* What a field holds that nobody has written is not said (Intel SDM vol. 3C, 25.11.3). */
static const u16 zero_fields[] = {
    VMCS_PF_ERROR_MASK,  VMCS_PF_ERROR_MATCH,  VMCS_CR3_TARGETS,      VMCS_EXIT_MSR_STORES,
    VMCS_EXIT_MSR_LOADS, VMCS_ENTRY_MSR_LOADS, VMCS_ENTRY_INTR_INFO,  VMCS_CR4_SHADOW,
    VMCS_GUEST_DEBUGCTL, VMCS_GUEST_ACTIVITY,  VMCS_INTERRUPTIBILITY, VMCS_PENDING_DEBUG,
    VMCS_GUEST_EFER,     VMCS_GUEST_DR7,       VMCS_TSC_OFFSET,
};

static const struct {
    u16 field, count; /* two apart */
} zero_ranges[] = {
    {VMCS_HOST_SELECTOR, 7},     {VMCS_HOST_SYSENTER_CS, 1},  {VMCS_HOST_FS_BASE, 2},
    {VMCS_HOST_SYSENTER_ESP, 2}, {VMCS_GUEST_SYSENTER_CS, 1}, {VMCS_GUEST_SYSENTER_ESP, 2},
};

static u32 proc2_of(const struct vcpu *v)
{
    return vmx_features.proc2 &
           (domain_has(v->domain, DOMAIN_DEVICES) ? ~(u32)(PROC2_WBINVD | PROC2_LOG) : ~0u);
}

static void init_controls(const struct vcpu *v)
{
    bool owner = domain_has(v->domain, DOMAIN_DEVICES);
    const u8 *io_bitmap = owner ? io_bitmap_dom0 : io_bitmap_guest;

    vmwrite(VMCS_PIN, vmx_features.pin);
    vmwrite(VMCS_PROC, vmx_features.proc);
    vmwrite(VMCS_PROC2, proc2_of(v));
    vmwrite(VMCS_EXIT_CONTROLS, vmx_features.exit);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_features.entry);
    vmwrite(VMCS_EXCEPTIONS, EXCEPTIONS);
    vmwrite(VMCS_IO_BITMAP_A, image_to_phys(io_bitmap));
    vmwrite(VMCS_IO_BITMAP_B, image_to_phys(io_bitmap) + PAGE_SIZE);
    vmwrite(VMCS_MSR_BITMAP, image_to_phys(msr_bitmap));
    vmwrite(VMCS_EPTP, virt_to_phys(v->domain->npt.root) | EPTP_WB_4_LEVELS);
    for (u32 i = 0; i < ARRAY_SIZE(zero_fields); i++)
        vmwrite(zero_fields[i], 0);
    for (u32 i = 0; i < ARRAY_SIZE(zero_ranges); i++)
        for (u32 j = 0; j < zero_ranges[i].count; j++)
            vmwrite(zero_ranges[i].field + 2 * j, 0);
    vmwrite(VMCS_LINK, ~0ull);
    vmwrite(VMCS_CR0_MASK, CR0_OWNED);
    vmwrite(VMCS_CR4_MASK, ~CR4_FREE);
    vmwrite(VMCS_GUEST_PAT, PAT_RESET);
}

/* The fields that a processor has only with the feature. */
static void init_optional_controls(const struct vcpu *v)
{
    if (vmx_features.proc2 & PROC2_VPID)
        vmwrite(VMCS_VPID, v->handle + 1);
    if (vmx_features.proc2 & PROC2_PAUSE_LOOP) {
        vmwrite(VMCS_PAUSE_GAP, PAUSE_GAP);
        vmwrite(VMCS_PAUSE_WINDOW, PAUSE_WINDOW);
    }
    if (tsc_scaling)
        vmwrite(VMCS_TSC_MULTIPLIER, TSC_RATIO_ONE);
    if (vmx_features.proc & PROC_TPR_SHADOW) {
        vmwrite(VMCS_VIRTUAL_APIC, virt_to_phys(v->lapic.reg));
        vmwrite(VMCS_TPR_THRESHOLD, 0);
    }
    for (u32 i = 0; vmx_features.apic && i < 4; i++)
        vmwrite(VMCS_EOI_EXITS + 2 * i, 0);
    if (v->dirty_log) {
        vmwrite(VMCS_LOG, virt_to_phys(v->dirty_log));
        vmwrite(VMCS_LOG_INDEX, SOCLE_DIRTY_MAX - 1);
    }
}

static void init_host_state(void)
{
    vmwrite(VMCS_HOST_CR0, read_cr0());
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
    vmwrite(VMCS_HOST_PAT, rdmsr(MSR_PAT));
    vmwrite(VMCS_HOST_SELECTOR + 2 * SOCLE_SEG_CS, HOST_CS);
    vmwrite(VMCS_HOST_SELECTOR + 2 * SOCLE_SEG_SS, HOST_SS);
    vmwrite(VMCS_HOST_SELECTOR + 2 * 6, HOST_TR);
    vmwrite(VMCS_HOST_IDTR_BASE, (u64)trap_idt);
    vmwrite(VMCS_HOST_RIP, (u64)vmx_exited);
}

static int vmx_vcpu_init(struct vcpu *v)
{
    struct vmx_vcpu *x = pool_alloc(&v->domain->charge);

    if (!x)
        return -E_NOMEM;
    v->vendor = x;
    x->vmcs = alloc_region(&v->domain->charge);
    if (!x->vmcs)
        return -E_NOMEM;
    x->proc = vmx_features.proc;
    x->host_cpu = ~0u;
    vmclear(v);
    vmcs_begin(v);
    init_controls(v);
    init_optional_controls(v);
    init_host_state();
    vmcs_end(v);
    return 0;
}

static void vmx_vcpu_free(struct vcpu *v)
{
    struct vmx_vcpu *x = vmx_of(v);

    if (x)
        pool_free(x->vmcs, &v->domain->charge);
    pool_free(x, &v->domain->charge);
}

/* ---- registers ---- */

static struct socle_segment get_segment(u32 i)
{
    u32 rights = (u32)vmread(VMCS_GUEST_RIGHTS + 2 * i);
    u16 attr = (u16)((rights & 0xff) | (rights >> 4 & 0xf00));

    if (rights & RIGHTS_UNUSABLE)
        attr &= (u16)~RIGHTS_PRESENT;
    return (struct socle_segment){vmread(VMCS_GUEST_BASE + 2 * i),
                                  (u32)vmread(VMCS_GUEST_LIMIT + 2 * i),
                                  (u16)vmread(VMCS_GUEST_SELECTOR + 2 * i), attr};
}

/* The entry insists on an accessed type, and on a busy TSS (Intel SDM vol. 3C, 27.3.1.2). */
static void set_segment(u32 i, const struct socle_segment *s)
{
    u32 rights = (s->attr & 0xffu) | (s->attr & 0xf00u) << 4;

    if (i == SOCLE_SEG_TR)
        rights |= TSS_BUSY | RIGHTS_ACCESSED | RIGHTS_PRESENT;
    else if (!(s->attr & RIGHTS_PRESENT))
        rights |= RIGHTS_UNUSABLE;
    else if (i < SOCLE_SEG_LDTR)
        rights |= RIGHTS_ACCESSED;
    vmwrite(VMCS_GUEST_SELECTOR + 2 * i, s->selector);
    vmwrite(VMCS_GUEST_LIMIT + 2 * i, s->limit);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * i, rights);
    vmwrite(VMCS_GUEST_BASE + 2 * i, s->base);
}

void vmx_get_sregs(struct vcpu *v, struct socle_sregs *s)
{
    vmcs_begin(v);
    for (u32 i = 0; i < SOCLE_SEGS; i++)
        s->seg[i] = get_segment(i);
    s->gdt_base = vmread(VMCS_GUEST_GDTR_BASE);
    s->gdt_limit = (u32)vmread(VMCS_GUEST_GDTR_LIMIT);
    s->idt_base = vmread(VMCS_GUEST_IDTR_BASE);
    s->idt_limit = (u32)vmread(VMCS_GUEST_IDTR_LIMIT);
    s->cr0 = (vmread(VMCS_GUEST_CR0) & ~CR0_OWNED) | (vmread(VMCS_CR0_SHADOW) & CR0_OWNED);
    s->cr2 = pcpu_has(v) ? read_cr2() : vmx_of(v)->cr2;
    s->cr3 = vmread(VMCS_GUEST_CR3);
    s->cr4 = vmread(VMCS_GUEST_CR4) & CR4_FREE;
    s->efer = vmread(VMCS_GUEST_EFER);
    vmcs_end(v);
}

/* EFER.LMA is also a control of the entry. */
static void set_efer(u64 efer)
{
    u64 controls = vmread(VMCS_ENTRY_CONTROLS) & ~(u64)ENTRY_IA32E;

    vmwrite(VMCS_ENTRY_CONTROLS, controls | (efer & EFER_LMA ? ENTRY_IA32E : 0));
    vmwrite(VMCS_GUEST_EFER, efer);
}

/* Checked by the caller. Paging on with LME is long mode (vol. 3A, 10.8.5). */
void vmx_set_cr0(struct vcpu *v, u64 cr0)
{
    u64 efer = vmread(VMCS_GUEST_EFER) & ~EFER_LMA;

    set_efer(efer | ((cr0 & CR0_PG) && (efer & EFER_LME) ? EFER_LMA : 0));
    vmwrite(VMCS_GUEST_CR0, (cr0 & ~CR0_OWNED) | CR0_NE);
    vmwrite(VMCS_CR0_SHADOW, cr0);
    v->tlb_seen = TLB_UNSEEN; /* a VPID's translations outlive the paging state */
    vmx_of(v)->pdptes_due = true;
}

static void vmx_set_sregs(struct vcpu *v, const struct socle_sregs *s)
{
    vmcs_begin(v);
    for (u32 i = 0; i < SOCLE_SEGS; i++)
        set_segment(i, &s->seg[i]);
    vmwrite(VMCS_GUEST_GDTR_BASE, s->gdt_base);
    vmwrite(VMCS_GUEST_GDTR_LIMIT, s->gdt_limit & 0xffff);
    vmwrite(VMCS_GUEST_IDTR_BASE, s->idt_base);
    vmwrite(VMCS_GUEST_IDTR_LIMIT, s->idt_limit & 0xffff);
    vmwrite(VMCS_GUEST_EFER, s->efer);
    vmx_set_cr0(v, s->cr0);
    vmwrite(VMCS_GUEST_CR3, s->cr3);
    vmwrite(VMCS_GUEST_CR4, (s->cr4 & CR4_FREE) | CR4_VMXE);
    vmx_of(v)->cr2 = s->cr2;
    if (pcpu_has(v))
        write_cr2(s->cr2);
    vmcs_end(v);
}

static int syscall_index(u32 index)
{
    for (int i = 0; i < SYSCALL_MSRS; i++)
        if (syscall_msrs[i] == index)
            return i;
    return -1;
}

static void load_syscall_msr(u32 i, u64 value)
{
    u64 *loaded = &loaded_msrs[this_cpu()->id][i];

    if (*loaded != value || i == KERNEL_GS)
        wrmsr(syscall_msrs[i], *loaded = value);
}

static u32 field_of(u32 index)
{
    for (u32 i = 0; i < ARRAY_SIZE(msr_fields); i++)
        if (msr_fields[i].index == index)
            return msr_fields[i].field;
    return 0;
}

static bool vmx_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    int i = syscall_index(index);
    u32 field = field_of(index);

    if (i >= 0)
        *value = i == KERNEL_GS && pcpu_has(v) ? rdmsr(index) : vmx_of(v)->msr[i];
    if (!field)
        return i >= 0;
    vmcs_begin(v);
    *value = vmread(field);
    vmcs_end(v);
    return true;
}

static bool vmx_set_msr(struct vcpu *v, u32 index, u64 value)
{
    int i = syscall_index(index);
    u32 field = field_of(index);

    if (i >= 0) {
        vmx_of(v)->msr[i] = value;
        if (pcpu_has(v))
            load_syscall_msr((u32)i, value);
        return true;
    }
    if (!field)
        return false;
    vmcs_begin(v);
    if (index == MSR_EFER)
        set_efer(value);
    else
        vmwrite(field, value);
    vmcs_end(v);
    return true;
}

static void vmx_get_debug(struct vcpu *v, struct socle_debug *d)
{
    memcpy(d->db, v->dr, sizeof(d->db));
    d->dr6 = pcpu_has(v) ? read_dr6() : vmx_of(v)->dr6;
    vmcs_begin(v);
    d->dr7 = vmread(VMCS_GUEST_DR7);
    vmcs_end(v);
}

static void vmx_set_debug(struct vcpu *v, const struct socle_debug *d)
{
    memcpy(v->dr, d->db, sizeof(v->dr));
    vmx_of(v)->dr6 = d->dr6;
    if (pcpu_has(v))
        write_dr6(d->dr6);
    vmcs_begin(v);
    vmwrite(VMCS_GUEST_DR7, d->dr7);
    vmwrite(VMCS_PENDING_DEBUG, 0); /* Bochs (2.7): the step over an instruction that exited */
    vmcs_end(v);
}

static bool vmx_get_shadow(struct vcpu *v)
{
    u64 state;

    vmcs_begin(v);
    state = vmread(VMCS_INTERRUPTIBILITY);
    vmcs_end(v);
    return state & SHADOW;
}

static void vmx_set_shadow(struct vcpu *v, bool shadow)
{
    vmcs_begin(v);
    vmwrite(VMCS_INTERRUPTIBILITY, shadow ? SHADOW_STI : 0);
    vmcs_end(v);
}

static void vmx_update_tsc(struct vcpu *v)
{
    vmcs_begin(v);
    if (tsc_scaling)
        vmwrite(VMCS_TSC_MULTIPLIER, v->lapic.tsc_ratio);
    vmwrite(VMCS_TSC_OFFSET, (u64)v->tsc_offset);
    vmcs_end(v);
}

/* ---- the local APIC ---- */

/* Which vector the next EOI ends, and which ends make an exit: of level-triggered interrupts, and
 * of the one that keeps others waiting. The processor could deliver these itself (RVI), but Bochs
 * (2.7) then does so when a physical interrupt arrives, though the guest has interrupts off. */
void vmx_sync_interrupts(struct vcpu *v)
{
    const struct vlapic_word *tmr = &v->lapic.reg[VLAPIC_REG_TMR];
    u64 *exits = vmx_of(v)->eoi_exits;
    u8 vector = vlapic_in_service(&v->lapic);

    vmwrite(VMCS_INTERRUPT_STATUS, (u64)vector << 8);
    for (u32 i = 0; i < 4; i++) {
        u64 wanted = tmr[2 * i].value | (u64)tmr[2 * i + 1].value << 32;

        if (v->lapic.irr_words && vector / 64 == i)
            wanted |= BIT(vector % 64);
        if (wanted != exits[i])
            vmwrite(VMCS_EOI_EXITS + 2 * i, exits[i] = wanted);
    }
}

/* In x2APIC mode the processor ends interrupts and answers reads itself. An xAPIC's page would have
 * to be mapped for that, and no guest that matters for speed stays in that mode. */
static void vmx_update_apic(struct vcpu *v)
{
    bool asks = v->traps & SOCLE_TRAP_MSRS;
    bool on = vmx_features.apic && domain_has(v->domain, DOMAIN_LAPIC) &&
              vlapic_mode(&v->lapic) == VLAPIC_X2APIC && !asks;
    const u8 *bitmap = on ? msr_bitmap_x2apic : msr_bitmap;

    vlapic_set_virtualized(&v->lapic, on);
    vmcs_begin(v);
    vmwrite(VMCS_PROC2, proc2_of(v) | (on ? vmx_features.apic : 0));
    vmwrite(VMCS_MSR_BITMAP, image_to_phys(asks ? io_bitmap_guest : bitmap)); /* all ones */
    if (on)
        vmx_sync_interrupts(v);
    vmcs_end(v);
}

static void vmx_update_intercepts(struct vcpu *v)
{
    u32 *proc = &vmx_of(v)->proc;

    *proc &= ~(u32)PROC_MOV_DR;
    *proc |= v->debug_flags & DEBUG_TAKEN ? PROC_MOV_DR : 0;
    vmcs_begin(v);
    vmwrite(VMCS_PROC, *proc);
    vmwrite(VMCS_EXCEPTIONS, EXCEPTIONS | (v->debug_flags & SOCLE_DEBUG_BP ? BIT(VEC_BP) : 0) |
                                 (v->traps & SOCLE_TRAP_UD ? BIT(VEC_UD) : 0));
    vmcs_end(v);
    vmx_update_apic(v);
}

/* ---- on and off the processor ---- */

static void move_to_this_cpu(struct vmx_vcpu *x)
{
    struct pcpu *cpu = this_cpu();

    if (x->host_cpu == cpu->id)
        return;
    x->host_cpu = cpu->id;
    vmwrite(VMCS_HOST_TR_BASE, (u64)cpu->tss);
    vmwrite(VMCS_HOST_GDTR_BASE, (u64)cpu->gdt);
}

/* Dom0 may have set RFLAGS and the shadow each as it likes. Behind MOV SS the entry asks nothing of
 * IF, but that TF's single step is pending (Intel SDM vol. 3C, 27.3.1.5). */
static u64 legal_shadow(const struct vcpu *v, u64 state)
{
    u64 pending;

    if (!(state & SHADOW))
        return state;
    if (v->debug_flags & SOCLE_DEBUG_STEP) /* the step over STI is done */
        return state & ~(u64)SHADOW;
    pending = vmread(VMCS_PENDING_DEBUG) & ~PENDING_BS;
    vmwrite(VMCS_PENDING_DEBUG, pending | (v->rflags & RFLAGS_TF ? PENDING_BS : 0));
    return (state & ~(u64)SHADOW) | SHADOW_MOV_SS;
}

static void vmx_load(struct vcpu *v)
{
    struct vmx_vcpu *x = vmx_of(v);
    u64 state;

    vmptrld(v);
    move_to_this_cpu(x);
    for (u32 i = 0; i < SYSCALL_MSRS; i++)
        load_syscall_msr(i, x->msr[i]);
    write_cr2(x->cr2);
    write_dr6(x->dr6);
    state = vmread(VMCS_INTERRUPTIBILITY) & ~(u64)BLOCKED_BY_NMI;
    vmwrite(VMCS_INTERRUPTIBILITY, legal_shadow(v, state) | (v->nmi_masked ? BLOCKED_BY_NMI : 0));
}

/* VMCLEAR writes the VMCS to memory, so that any processor may load it next. */
static void vmx_save(struct vcpu *v)
{
    struct vmx_vcpu *x = vmx_of(v);

    x->msr[KERNEL_GS] = rdmsr(MSR_KERNEL_GS_BASE);
    x->cr2 = read_cr2();
    x->dr6 = read_dr6();
    v->nmi_masked = vmread(VMCS_INTERRUPTIBILITY) & BLOCKED_BY_NMI;
    vmclear(v);
}

/* Translations through the domain's tables, whatever VPID made them (Intel SDM vol. 3C, 29.4.3.1).
 * A vCPU's first entry comes with a flush, and so does the begin of logging. Without EPTP_DIRTY
 * hardware takes clean leaves for any others, and logs nothing; but it also makes a write of each
 * step through the guest's page tables, so guests that are not logged do without. */
void vmx_flush(const struct vcpu *v)
{
    u64 flags = EPTP_WB_4_LEVELS | (v->domain->npt.logged ? EPTP_DIRTY : 0);
    struct {
        u64 eptp, reserved;
    } descriptor = {virt_to_phys(v->domain->npt.root) | flags, 0};

    vmwrite(VMCS_EPTP, descriptor.eptp);
    __asm__ volatile("invept %0, %1"
                     :
                     : "m"(descriptor), "r"(INVEPT_SINGLE_CONTEXT)
                     : "cc", "memory");
}

static void vmx_sleep(void)
{
    if (irq_entries_are_timed)
        apic_timer_set(this_cpu()->timer_deadline);
    vmx_idle();
}

const struct vendor_ops vmx_ops = {
    .name = "vmx",
    .npt_format = &npt_format_ept,
    .abi_call = 1,
    .detect = vmx_detect,
    .init_cpu = vmx_init_cpu,
    .features = vmx_feature_names,
    .load = vmx_load,
    .run = vmx_run,
    .save = vmx_save,
    .idle = vmx_sleep,
    .vcpu_init = vmx_vcpu_init,
    .vcpu_free = vmx_vcpu_free,
    .get_sregs = vmx_get_sregs,
    .set_sregs = vmx_set_sregs,
    .get_msr = vmx_get_msr,
    .set_msr = vmx_set_msr,
    .get_debug = vmx_get_debug,
    .set_debug = vmx_set_debug,
    .update_intercepts = vmx_update_intercepts,
    .get_shadow = vmx_get_shadow,
    .set_shadow = vmx_set_shadow,
    .update_tsc = vmx_update_tsc,
    .update_apic = vmx_update_apic,
};
