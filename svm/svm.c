/* SPDX-License-Identifier: BSD-2-Clause */
/* AMD SVM: finding and enabling it, and a vCPU's state outside of the run loop. */
#include "svm/svm.h"
#include "core/debug.h"
#include "core/lib.h"
#include "core/paging.h"
#include "core/pcpu.h"
#include "core/trap.h"
#include "core/vendor.h"

#define MSR_VM_CR       0xc0010114
#define MSR_VM_HSAVE_PA 0xc0010117
#define DE_CFG_LFENCE   BIT(1)
#define TSS_BUSY        BIT(1)
#define VM_CR_SVMDIS    BIT(4)

/* So many PAUSEs, at most so many cycles apart, give way. */
#define PAUSE_COUNT 3000
#define PAUSE_GAP   128
#define HAS_FILTER  (BIT(10) | BIT(12))

/* #AC and #DB too: a guest could keep the processor in their delivery for ever (CVE-2015-5307). */
#define EXCEPTIONS (BIT(VEC_MC) | BIT(VEC_AC) | BIT(VEC_DB))

#define IOPM_SIZE  12288
#define MSRPM_SIZE 8192

static const struct npt_format npt_format_svm = NPT_FORMAT_SVM;

struct svm_features svm_features = {.asids = ~0u, .next_rip = true, .pause_filter = true};

/* One bit per port; dom0's is all zeros: it owns the machine's ports. */
static u8 iopm_dom0[IOPM_SIZE] ALIGNED(4096);
static u8 iopm_guest[IOPM_SIZE] ALIGNED(4096);
static u8 msrpm[MSRPM_SIZE] ALIGNED(4096);

/* The MSRs that VMLOAD and VMSAVE or VMRUN itself switch. Guests read and write all but PAT and
 * EFER without an exit. */
static const struct {
    u32 index;
    u32 offset;
} msr_fields[] = {
    {MSR_STAR, offsetof(struct vmcb, star)},
    {MSR_LSTAR, offsetof(struct vmcb, lstar)},
    {MSR_CSTAR, offsetof(struct vmcb, cstar)},
    {MSR_SFMASK, offsetof(struct vmcb, sfmask)},
    {MSR_FS_BASE, offsetof(struct vmcb, fs.base)},
    {MSR_GS_BASE, offsetof(struct vmcb, gs.base)},
    {MSR_KERNEL_GS_BASE, offsetof(struct vmcb, kernel_gs_base)},
    {MSR_SYSENTER_CS, offsetof(struct vmcb, sysenter_cs)},
    {MSR_SYSENTER_ESP, offsetof(struct vmcb, sysenter_esp)},
    {MSR_SYSENTER_EIP, offsetof(struct vmcb, sysenter_eip)},
    {MSR_PAT, offsetof(struct vmcb, pat)},
    {MSR_EFER, offsetof(struct vmcb, efer)},
};

static bool svm_detect(const char **why)
{
    u64 vm_cr = 0;

    *why = "this processor has no SVM (AMD-V)";
    if (cpuid(0x80000000, 0).eax < 0x8000000a || !(cpuid(0x80000001, 0).ecx & BIT(2)))
        return false;
    *why =
        "SVM (AMD-V) is switched off and locked by the firmware: enable it in the firmware's setup";
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS))
        return false;
    *why = "this processor has SVM, but no nested paging";
    return cpuid(0x8000000a, 0).edx & BIT(0);
}

/* Two bits per MSR: read, write (AMD APM vol. 2, 15.11). */
static void allow_msr(u32 msr)
{
    u32 bit = msr >= 0xc0000000 ? 0x800 * 8 + (msr & 0x1fff) * 2 : msr * 2;

    msrpm[bit / 8] &= (u8) ~(3u << (bit % 8));
}

static void init_permission_maps(void)
{
    memset(iopm_guest, 0xff, sizeof(iopm_guest));
    memset(msrpm, 0xff, sizeof(msrpm));
    for (u32 i = 0; i < ARRAY_SIZE(msr_fields); i++)
        if (msr_fields[i].index != MSR_PAT && msr_fields[i].index != MSR_EFER)
            allow_msr(msr_fields[i].index);
}

static int svm_init_cpu(struct pcpu *cpu)
{
    struct cpuid_regs features = cpuid(0x8000000a, 0);
    void *save_area = pool_alloc(NULL);
    u64 de_cfg;

    if (!save_area)
        return -E_NOMEM;
    if (cpu->id == 0)
        init_permission_maps();
    svm_features.asids = MIN(svm_features.asids, features.ebx);
    svm_features.next_rip &= !vendor_plain && (features.edx & BIT(3));
    svm_features.pause_filter &= !vendor_plain && (features.edx & HAS_FILTER) == HAS_FILTER;
    /* LFENCE serializes: dom0 relies on it against speculation, and cannot turn it on itself. */
    if (rdmsr_safe(MSR_DE_CFG, &de_cfg))
        wrmsr(MSR_DE_CFG, de_cfg | DE_CFG_LFENCE);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, virt_to_phys(save_area));
    cpu->asid_next = 1;
    cpu->asid_generation = 1;
    /* From here on GIF is what keeps interrupts, NMI and INIT out; IF stays 1, because VMRUN passes
     * it on as "physical interrupts are open" (AMD APM vol. 2, 15.21.1). */
    __asm__ volatile("clgi\n\tsti" : : : "memory");
    return 0;
}

static void svm_feature_names(char *text, size_t size)
{
    fmt_print(text, size, "npt%s%s", svm_features.next_rip ? " nrips" : "",
              svm_features.pause_filter ? " pause-filter" : "");
}

static void init_controls(struct vcpu *v, struct vmcb *c)
{
    bool owner = domain_has(v->domain, DOMAIN_DEVICES);

    c->intercept_exceptions = EXCEPTIONS;
    c->intercept1 = INTERCEPT(INTR) | INTERCEPT(NMI) | INTERCEPT(SMI) | INTERCEPT(INIT) |
                    INTERCEPT(RDPMC) | INTERCEPT(CPUID) | INTERCEPT(RSM) | INTERCEPT(INVD) |
                    INTERCEPT(HLT) | INTERCEPT(INVLPGA) | INTERCEPT(IOIO) | INTERCEPT(MSR) |
                    INTERCEPT(SHUTDOWN);
    c->intercept2 = INTERCEPT(VMRUN) | INTERCEPT(VMMCALL) | INTERCEPT(VMLOAD) | INTERCEPT(VMSAVE) |
                    INTERCEPT(STGI) | INTERCEPT(CLGI) | INTERCEPT(SKINIT) | INTERCEPT(MONITOR) |
                    INTERCEPT(MWAIT) | INTERCEPT(MWAIT_ARMED) | INTERCEPT(XSETBV) |
                    INTERCEPT(RDPRU) | (owner ? 0 : INTERCEPT(WBINVD));
    if (svm_features.pause_filter) {
        c->intercept1 |= INTERCEPT(PAUSE);
        c->pause_count = PAUSE_COUNT;
        c->pause_threshold = PAUSE_GAP;
    }
    c->iopm = image_to_phys(owner ? iopm_dom0 : iopm_guest);
    c->msrpm = image_to_phys(msrpm);
    c->int_ctl = INT_CTL_MASKING;
    c->nested_ctl = 1;
    c->nested_cr3 = virt_to_phys(v->domain->npt.root);
    c->pat = PAT_RESET;
}

static int svm_vcpu_init(struct vcpu *v)
{
    struct vmcb *c = pool_alloc(&v->domain->charge);

    if (!c)
        return -E_NOMEM;
    v->vendor = c;
    init_controls(v, c);
    return 0;
}

static void svm_vcpu_free(struct vcpu *v)
{
    pool_free(v->vendor, &v->domain->charge);
}

static void svm_load(struct vcpu *v)
{
    __asm__ volatile("vmload %0" : : "a"(virt_to_phys(v->vendor)) : "memory");
}

static void svm_save(struct vcpu *v)
{
    __asm__ volatile("vmsave %0" : : "a"(virt_to_phys(v->vendor)) : "memory");
}

/* QEMU's VMRUN (7.2) loads DR7, but arms no breakpoint: MOV does. Not where Socle is itself. */
static void arm_breakpoints(const struct vcpu *v)
{
    for (u32 i = 0; i < 4; i++)
        if (paging_is_own(v->dr[i]))
            return;
    vcpu_load_dr(v);
    write_dr7(vmcb_of(v)->dr7 & ~DR7_ACCESS);
}

static void load_all(struct vcpu *v)
{
    svm_load(v);
    if (unlikely(v->debug_flags & SOCLE_DEBUG_HW))
        arm_breakpoints(v);
}

static void save_all(struct vcpu *v)
{
    svm_save(v);
    if (unlikely(v->debug_flags & SOCLE_DEBUG_HW))
        write_dr7(DR7_FIXED);
}

static struct vmcb_segment *segment_of(struct vmcb *c, u32 i)
{
    struct vmcb_segment *const map[SOCLE_SEGS] = {&c->es, &c->cs, &c->ss,   &c->ds,
                                                  &c->fs, &c->gs, &c->ldtr, &c->tr};

    return map[i];
}

void svm_get_sregs(struct vcpu *v, struct socle_sregs *s)
{
    struct vmcb *c = vmcb_of(v);

    if (pcpu_has(v))
        svm_save(v); /* VMRUN leaves FS, GS, LDTR and TR in the processor */
    for (u32 i = 0; i < SOCLE_SEGS; i++) {
        struct vmcb_segment *seg = segment_of(c, i);

        s->seg[i] = (struct socle_segment){seg->base, seg->limit, seg->selector, seg->attr};
    }
    /* CPL is a field of its own, and the only truth (AMD APM vol. 2, 15.5.1). */
    s->seg[SOCLE_SEG_SS].attr =
        (u16)((s->seg[SOCLE_SEG_SS].attr & ~0x60u) | (u32)(c->cpl & 3) << 5);
    s->seg[SOCLE_SEG_TR].attr |= TSS_BUSY; /* whatever was loaded, a loaded one is busy */
    s->gdt_base = c->gdtr.base;
    s->gdt_limit = c->gdtr.limit;
    s->idt_base = c->idtr.base;
    s->idt_limit = c->idtr.limit;
    s->cr0 = c->cr0;
    s->cr2 = c->cr2;
    s->cr3 = c->cr3;
    s->cr4 = c->cr4;
    s->efer = c->efer & ~EFER_SVME;
}

static void svm_set_sregs(struct vcpu *v, const struct socle_sregs *s)
{
    struct vmcb *c = vmcb_of(v);

    if (pcpu_has(v))
        svm_save(v); /* the MSRs that VMLOAD takes along stay */
    for (u32 i = 0; i < SOCLE_SEGS; i++)
        *segment_of(c, i) = (struct vmcb_segment){s->seg[i].selector, s->seg[i].attr & 0xfff,
                                                  s->seg[i].limit, s->seg[i].base};
    c->cpl = s->seg[SOCLE_SEG_SS].attr >> 5 & 3;
    c->gdtr.base = s->gdt_base;
    c->gdtr.limit = s->gdt_limit & 0xffff;
    c->idtr.base = s->idt_base;
    c->idtr.limit = s->idt_limit & 0xffff;
    v->tlb_seen = TLB_UNSEEN; /* an ASID's translations outlive the paging state */
    c->cr0 = s->cr0;
    c->cr2 = s->cr2;
    c->cr3 = s->cr3;
    c->cr4 = s->cr4;
    c->efer = s->efer | EFER_SVME;
    if (pcpu_has(v))
        svm_load(v);
}

static u64 *msr_field(struct vmcb *c, u32 index)
{
    for (u32 i = 0; i < ARRAY_SIZE(msr_fields); i++)
        if (msr_fields[i].index == index)
            return (u64 *)((u8 *)c + msr_fields[i].offset);
    return NULL;
}

static bool svm_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    u64 *field = msr_field(vmcb_of(v), index);

    if (pcpu_has(v))
        svm_save(v);
    if (field)
        *value = index == MSR_EFER ? *field & ~EFER_SVME : *field;
    return field;
}

static bool svm_set_msr(struct vcpu *v, u32 index, u64 value)
{
    u64 *field = msr_field(vmcb_of(v), index);

    if (pcpu_has(v))
        svm_save(v);
    if (field)
        *field = index == MSR_EFER ? value | EFER_SVME : value;
    if (pcpu_has(v))
        svm_load(v);
    return field;
}

static void svm_get_debug(struct vcpu *v, struct socle_debug *d)
{
    memcpy(d->db, v->dr, sizeof(d->db));
    d->dr6 = vmcb_of(v)->dr6;
    d->dr7 = vmcb_of(v)->dr7;
}

static void svm_set_debug(struct vcpu *v, const struct socle_debug *d)
{
    memcpy(v->dr, d->db, sizeof(v->dr));
    vmcb_of(v)->dr6 = d->dr6;
    vmcb_of(v)->dr7 = d->dr7;
}

/* INT3 makes no exit for #BP in QEMU (7.2): there it is one of INT n. */
static void svm_update_intercepts(struct vcpu *v)
{
    struct vmcb *c = vmcb_of(v);

    c->intercept_dr = v->debug_flags & DEBUG_TAKEN ? ~0u : 0;
    c->intercept_exceptions = EXCEPTIONS | (v->traps & SOCLE_TRAP_UD ? BIT(VEC_UD) : 0);
    c->msrpm = image_to_phys(v->traps & SOCLE_TRAP_MSRS ? iopm_guest : msrpm); /* all ones */
    c->intercept1 &= ~INTERCEPT(SWINT);
    if (v->debug_flags & SOCLE_DEBUG_BP) {
        c->intercept_exceptions |= BIT(VEC_BP);
        c->intercept1 |= svm_features.next_rip ? 0 : INTERCEPT(SWINT);
    }
}

static bool svm_get_shadow(struct vcpu *v)
{
    return vmcb_of(v)->int_state & 1;
}

static void svm_set_shadow(struct vcpu *v, bool shadow)
{
    vmcb_of(v)->int_state = shadow;
}

static void svm_update_tsc(struct vcpu *v)
{
    vmcb_of(v)->tsc_offset = (u64)v->tsc_offset;
}

const struct vendor_ops svm_ops = {
    .name = "svm",
    .npt_format = &npt_format_svm,
    .abi_call = 0,
    .detect = svm_detect,
    .init_cpu = svm_init_cpu,
    .features = svm_feature_names,
    .load = load_all,
    .run = svm_run,
    .save = save_all,
    .idle = svm_idle,
    .vcpu_init = svm_vcpu_init,
    .vcpu_free = svm_vcpu_free,
    .get_sregs = svm_get_sregs,
    .set_sregs = svm_set_sregs,
    .get_msr = svm_get_msr,
    .set_msr = svm_set_msr,
    .get_debug = svm_get_debug,
    .set_debug = svm_set_debug,
    .update_intercepts = svm_update_intercepts,
    .get_shadow = svm_get_shadow,
    .set_shadow = svm_set_shadow,
    .update_tsc = svm_update_tsc,
};
