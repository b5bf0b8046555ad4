/* SPDX-License-Identifier: BSD-2-Clause */
/* CPUID: dom0's allow-list, guests' tables, and the fields that change while a vCPU runs. */
#include "core/cpuid.h"

#include "core/exits.h"
#include "core/lib.h"
#include "core/vendor.h"

#define ALL      0xffffffffu
#define SIG_KVMK 0x4b4d564bu
#define ANY      0xffffffffu /* every subleaf */

#define F1_ECX_X2APIC   BIT(21)
#define F1_ECX_DEADLINE BIT(24)
#define F1_ECX_OSXSAVE  BIT(27)
#define F1_ECX_GUEST    BIT(31)
#define F1_EDX_APIC     BIT(9)
#define F6_EAX_ARAT     BIT(2)
#define F7_EBX_ADJUST   BIT(1)
#define F7_ECX_OSPKE    BIT(4)
#define F7_ECX_RDPID    BIT(22)
#define FD1_EAX_XSAVEC  BIT(1)
#define FD1_EAX_XSAVES  BIT(3)
#define FE1_EDX_RDTSCP  BIT(27)
#define FE7_EDX_TSC     BIT(8) /* invariant TSC */

u64 host_xcr0_mask;
u32 host_mxcsr_mask;
u64 host_phys_mask;
u32 host_va_spare;
bool host_has_tsc_aux;

static u32 highest_basic, highest_extended;
static u64 host_cr4_mask, host_efer_mask;

/* Size, offset in the standard format, and alignment in the compacted one, of each XSAVE component.
 */
static struct {
    u32 size, offset;
    bool aligned;
} component[10];

/* ---- dom0: what of the processor's own leaves it sees ---- */

/* What is not listed is 0. Left out is what Socle itself uses (VMX, SVM), and what has MSRs or
 * state that Socle does not switch: performance counters, machine check, MONITOR, speculation
 * control, CET, AMX, MPX, TSX, PT, LBR, resource director, SGX, SEV, WAITPKG, RDPRU, XSAVES. */
static const struct policy {
    u32 leaf, subleaf;
    u32 eax, ebx, ecx, edx;
} policies[] = {
    {0x1, ANY, ALL, ALL, 0xf7fa3203, 0x1f8bbb7f},
    {0x7, 0, 0x1, 0xfdbf27eb, 0x1a415f4f, 0x80451c},
    {0x7, 1, 0x801cb0, 0, 0, 0x4030}, /* AVX-VNNI, BF16, IFMA, fast string operations */
    {0xd, 0, 0, 0, 0, 0},
    {0xd, 1, 0x7, 0, 0, 0}, /* XSAVEOPT, XSAVEC, XGETBV1 */
    {0xd, ANY, ALL, ALL, ALL, 0},
    {0x15, ANY, ALL, ALL, ALL, 0},
    {0x16, ANY, ALL, ALL, ALL, 0},
    {0x80000001, ANY, ALL, ALL, 0x6109f3, 0xedd3bb7f},
    {0x80000008, ANY, ALL, 0x24000205, 0x3f0ff, 0}, /* CLZERO, XSAVEERPTR, WBNOINVD */
    {0x80000019, ANY, ALL, ALL, 0, 0},
    {0x8000001a, ANY, ALL, 0, 0, 0},
    {0x8000001e, ANY, ALL, ALL, ALL, 0},
    {0x80000021, ANY, 0x20000c65, 0, 0, 0}, /* LFENCE and selector behaviour, fast strings, *_NO */
};

/* These it sees whole. */
static const u32 whole[] = {0x0,        0x2,        0x4,        0xb,        0x18,
                            0x1f,       0x80000000, 0x80000002, 0x80000003, 0x80000004,
                            0x80000005, 0x80000006, 0x8000001d, 0x80000026};

static const struct policy *find_policy(u32 leaf, u32 subleaf)
{
    static const struct policy all = {.eax = ALL, .ebx = ALL, .ecx = ALL, .edx = ALL};

    for (u32 i = 0; i < ARRAY_SIZE(whole); i++)
        if (whole[i] == leaf)
            return &all;
    for (u32 i = 0; i < ARRAY_SIZE(policies); i++)
        if (policies[i].leaf == leaf &&
            (policies[i].subleaf == ANY || policies[i].subleaf == subleaf))
            return &policies[i];
    return NULL;
}

/* Above the highest leaf the processor would answer with another's data. */
static bool exists(u32 leaf)
{
    return leaf <= (leaf < 0x80000000 ? highest_basic : highest_extended);
}

/* The processor's leaf through the allow-list. */
static struct cpuid_regs filtered(u32 leaf, u32 subleaf)
{
    const struct policy *p = find_policy(leaf, subleaf);
    struct cpuid_regs r;

    if (!p || !exists(leaf))
        return (struct cpuid_regs){0};
    r = cpuid(leaf, subleaf);
    return (struct cpuid_regs){r.eax & p->eax, r.ebx & p->ebx, r.ecx & p->ecx, r.edx & p->edx};
}

/* Size of an XSAVE area for these components. */
static u32 xsave_size(u64 mask, bool compacted)
{
    u32 end = 576;

    for (u32 i = 2; i < ARRAY_SIZE(component); i++) {
        u32 start = component[i].offset;

        if (!(mask & BIT(i)))
            continue;
        if (compacted)
            start = component[i].aligned ? (u32)ALIGN_UP(end, 64) : end;
        end = MAX(start + component[i].size, compacted ? 0 : end);
    }
    return end;
}

static void host_xsave_leaf(u32 subleaf, struct cpuid_regs *r)
{
    if (subleaf == 0) {
        r->eax = (u32)host_xcr0_mask;
        r->edx = (u32)(host_xcr0_mask >> 32);
        r->ecx = xsave_size(host_xcr0_mask, false);
    } else if (subleaf > 1 && (subleaf > 63 || !(host_xcr0_mask & BIT(subleaf)))) {
        *r = (struct cpuid_regs){0};
    }
}

/* KVM's leaves, for a kernel that knows them, and Socle's (see abi.h). */
static struct cpuid_regs hypervisor_leaf(u32 leaf)
{
    switch (leaf) {
    case 0x40000000:
        return (struct cpuid_regs){0x40000001, SIG_KVMK, 0x564b4d56, 0x4d};
    case 0x40000001: /* CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, CLOCKSOURCE_STABLE */
        return (struct cpuid_regs){.eax = BIT(0) | BIT(1) | BIT(3) | BIT(24)};
    case SOCLE_CPUID_BASE:
        return (struct cpuid_regs){SOCLE_CPUID_INFO, SOCLE_CPUID_SIG_EBX, SOCLE_CPUID_SIG_ECX,
                                   SOCLE_CPUID_SIG_EDX};
    case SOCLE_CPUID_INFO:
        return (struct cpuid_regs){.eax = SOCLE_ABI_VERSION,
                                   .ebx = vendor->abi_call,
                                   .ecx = vendor->npt_format->max_exec_leaf ? 0 : SOCLE_SMALL_EXEC};
    default:
        return (struct cpuid_regs){0};
    }
}

static struct cpuid_regs host_leaf(u32 apic_id, u32 leaf, u32 subleaf)
{
    struct cpuid_regs r;

    if (leaf >> 16 == 0x4000)
        return hypervisor_leaf(leaf);
    r = filtered(leaf, subleaf);
    switch (leaf) {
    case 1:
        r.ebx = (r.ebx & 0xffffff) | apic_id << 24;
        r.ecx |= F1_ECX_X2APIC | F1_ECX_DEADLINE | F1_ECX_GUEST;
        break;
    case 6:
        r.eax |= F6_EAX_ARAT;
        break;
    case 7:
        r.ebx |= subleaf ? 0 : F7_EBX_ADJUST;
        break;
    case 0xd:
        host_xsave_leaf(subleaf, &r);
        break;
    case 0xb:
    case 0x1f:
    case 0x80000026:
        r.edx = exists(leaf) ? apic_id : 0;
        break;
    case 0x80000007:
        r.edx |= FE7_EDX_TSC;
        break;
    case 0x8000001e:
        r.eax = exists(leaf) ? apic_id : 0;
        break;
    }
    return r;
}

/* ---- guests: the table that dom0 made ---- */

static u32 bucket_of(u32 leaf)
{
    return (leaf ^ leaf >> 26) % CPUID_BUCKETS;
}

/* Entries of one bucket are chained by their `reserved` field; both count from 1. */
static const struct socle_cpuid *find(const struct vcpu *v, u32 leaf, u32 subleaf)
{
    for (u32 i = v->cpuid_bucket[bucket_of(leaf)]; i; i = v->cpuid[i - 1].reserved) {
        const struct socle_cpuid *e = &v->cpuid[i - 1];

        if (e->leaf == leaf && (!e->by_subleaf || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

/* A leaf that the table has not: Intel's processors answer for one above the highest with the
 * highest basic leaf, others with 0; and of the topology leaves a subleaf without data still has
 * the APIC id. */
static struct cpuid_regs missing_leaf(const struct vcpu *v, u32 leaf, u32 subleaf)
{
    const struct socle_cpuid *e = leaf == 0xb || leaf == 0x1f ? find(v, leaf, 1) : NULL;
    const struct socle_cpuid *top = find(v, leaf & (leaf >> 28 == 4 ? 0xffffff00 : 0x80000000), 0);

    if (e)
        return (struct cpuid_regs){.ecx = subleaf & 0xff, .edx = e->edx};
    if (top && leaf <= top->eax)
        return (struct cpuid_regs){0};
    top = find(v, 0, 0);
    if (top && top->ebx == 0x756e6547) /* "Genu" */
        e = find(v, top->eax, subleaf);
    return e ? (struct cpuid_regs){e->eax, e->ebx, e->ecx, e->edx} : (struct cpuid_regs){0};
}

int cpuid_set(struct vcpu *v, const struct socle_cpuid *entries, u32 n)
{
    const struct socle_cpuid *xsave;

    if (n > SOCLE_CPUID_MAX)
        return -E_INVAL;
    memcpy(v->cpuid, entries, n * sizeof(*entries));
    memset(v->cpuid_bucket, 0, sizeof(v->cpuid_bucket));
    /* From the end, so that of two equal entries the first is found. */
    for (u32 i = n; i; i--) {
        u8 *bucket = &v->cpuid_bucket[bucket_of(v->cpuid[i - 1].leaf)];

        v->cpuid[i - 1].reserved = *bucket;
        *bucket = (u8)i;
    }
    xsave = find(v, 0xd, 0);
    v->guest_xcr0_mask = xsave ? (xsave->eax | (u64)xsave->edx << 32) & host_xcr0_mask : 0;
    return 0;
}

/* ---- both ---- */

static struct cpuid_regs leaf_of(const struct vcpu *v, u32 leaf, u32 subleaf)
{
    const struct socle_cpuid *e;

    if (domain_has(v->domain, DOMAIN_HYPERCALLS))
        return host_leaf(v->apic_id, leaf, subleaf);
    e = find(v, leaf, subleaf);
    if (likely(e != NULL))
        return (struct cpuid_regs){e->eax, e->ebx, e->ecx, e->edx};
    return missing_leaf(v, leaf, subleaf);
}

bool cpuid_offers_call(const struct vcpu *v, u64 nr)
{
    static const u8 features[KVM_CALLS] = {[5] = 7, [10] = 11, [11] = 13}; /* UNHALT, IPI, YIELD */
    u32 base =
        leaf_of(v, 0x40000000, 0).ebx == SIG_KVMK ? 0x40000000 : 0x40000100; /* behind Hyper-V's */

    return nr < KVM_CALLS && features[nr] && (leaf_of(v, base + 1, 0).eax >> features[nr] & 1);
}

static void set_bits(u32 *reg, u32 bits, bool on)
{
    *reg = on ? *reg | bits : *reg & ~bits;
}

/* Fields that mirror the vCPU's control registers. */
static void mirror_state(const struct vcpu *v, u32 leaf, u32 subleaf, u64 cr4, struct cpuid_regs *r)
{
    if (leaf == 1) {
        set_bits(&r->ecx, F1_ECX_OSXSAVE, cr4 & CR4_OSXSAVE);
        if (!(vcpu_apic_base(v) & APIC_BASE_ENABLE))
            r->edx &= ~(u32)F1_EDX_APIC;
    } else if (leaf == 7 && subleaf == 0) {
        set_bits(&r->ecx, F7_ECX_OSPKE, cr4 & CR4_PKE);
    } else if (leaf == 0xd && subleaf == 0) {
        r->ebx = xsave_size(xgetbv(0), false); /* v's own, while v is loaded */
    } else if (leaf == 0xd && subleaf == 1 && (r->eax & (FD1_EAX_XSAVEC | FD1_EAX_XSAVES))) {
        r->ebx = xsave_size(xgetbv(0), true);
    }
}

enum vcpu_action exit_cpuid(struct vcpu *v, u64 cr4)
{
    u32 leaf = (u32)v->gpr[RAX], subleaf = (u32)v->gpr[RCX];
    struct cpuid_regs r = leaf_of(v, leaf, subleaf);

    v->count[SOCLE_STAT_CPUID]++;
    if (leaf <= 0xd)
        mirror_state(v, leaf, subleaf, cr4, &r);
    v->gpr[RAX] = r.eax;
    v->gpr[RBX] = r.ebx;
    v->gpr[RCX] = r.ecx;
    v->gpr[RDX] = r.edx;
    return vcpu_skip(v);
}

/* ---- what follows from it ---- */

/* CR4's optional bits, each by the feature that brings it. */
static u64 cr4_of(struct cpuid_regs f1, struct cpuid_regs f7)
{
    u64 cr4 = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
              CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;

    cr4 |= f1.ecx & BIT(26) ? CR4_OSXSAVE : 0;
    cr4 |= f1.ecx & BIT(17) ? CR4_PCIDE : 0;
    cr4 |= f7.ebx & BIT(0) ? CR4_FSGSBASE : 0;
    cr4 |= f7.ebx & BIT(7) ? CR4_SMEP : 0;
    cr4 |= f7.ebx & BIT(20) ? CR4_SMAP : 0;
    cr4 |= f7.ecx & BIT(2) ? CR4_UMIP : 0;
    cr4 |= f7.ecx & BIT(3) ? CR4_PKE : 0;
    cr4 |= f7.ecx & BIT(16) ? CR4_LA57 : 0;
    return cr4;
}

static u64 efer_of(struct cpuid_regs fe1)
{
    return EFER_SCE | (fe1.edx & BIT(20) ? EFER_NXE : 0) |
           (fe1.edx & BIT(29) ? EFER_LME | EFER_LMA : 0);
}

u64 cpuid_cr4_mask(const struct vcpu *v)
{
    return host_cr4_mask & cr4_of(leaf_of(v, 1, 0), leaf_of(v, 7, 0));
}

u64 cpuid_efer_mask(const struct vcpu *v)
{
    return host_efer_mask & efer_of(leaf_of(v, 0x80000001, 0));
}

/* What XSETBV accepts of any mask (Intel SDM vol. 1, 13.3): x87 always, AVX with SSE, AVX-512 whole
 * and with AVX. */
static bool combination_legal(u64 xcr0)
{
    u64 avx512 = xcr0 & XCR0_AVX512;

    if (!(xcr0 & XCR0_X87) || ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE)))
        return false;
    return !avx512 || (avx512 == XCR0_AVX512 && (xcr0 & XCR0_AVX));
}

bool cpuid_xcr0_legal(const struct vcpu *v, u64 xcr0)
{
    u64 mask = domain_has(v->domain, DOMAIN_HYPERCALLS) ? host_xcr0_mask : v->guest_xcr0_mask;

    return !(xcr0 & ~(mask | XCR0_X87)) && combination_legal(xcr0);
}

/* ---- at boot ---- */

static void find_components(void)
{
    struct cpuid_regs r = cpuid(0xd, 0);

    host_xcr0_mask = r.eax & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU);
    for (u32 i = 2; i < ARRAY_SIZE(component); i++) {
        if (!(host_xcr0_mask & BIT(i)))
            continue;
        r = cpuid(0xd, i);
        component[i].size = r.eax;
        component[i].offset = r.ebx;
        component[i].aligned = r.ecx & BIT(1);
        if (!r.eax || r.eax > PAGE_SIZE || r.ebx > PAGE_SIZE - r.eax)
            host_xcr0_mask &= ~BIT(i);
    }
    if (!combination_legal(host_xcr0_mask))
        host_xcr0_mask &= ~XCR0_AVX512;
}

/* Intel SDM vol. 1, 11.6.6: 0 stands for the first processors' mask. */
static u32 read_mxcsr_mask(void)
{
    u8 area[512] ALIGNED(16) = {0};
    u32 mask;

    fxsave(area);
    mask = load_u32(area + 28);
    return mask ? mask : 0xffbf;
}

void cpuid_init(void)
{
    u32 bits = 36;

    highest_basic = cpuid(0, 0).eax;
    highest_extended = cpuid(0x80000000, 0).eax;
    find_components();
    host_mxcsr_mask = read_mxcsr_mask();
    if (highest_extended >= 0x80000008)
        bits = cpuid(0x80000008, 0).eax & 0xff;
    host_phys_mask = BIT(bits) - 1;
    host_has_tsc_aux =
        (filtered(0x80000001, 0).edx & FE1_EDX_RDTSCP) || (filtered(7, 0).ecx & F7_ECX_RDPID);
    host_cr4_mask = cr4_of(filtered(1, 0), filtered(7, 0));
    host_efer_mask = efer_of(filtered(0x80000001, 0));
    host_va_spare = host_cr4_mask & CR4_LA57 ? 7 : 16;
}
