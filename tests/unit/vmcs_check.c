/* SPDX-License-Identifier: BSD-2-Clause */
/* The rules of VM entry, in the manual's order. Each function says whether its rule holds. */
#include "tests/unit/vmcs_check.h"

#define MASK(n)         ((n) < 64 ? BIT(n) - 1 : ~0ull)
#define BITS(v, hi, lo) (((v) >> (lo)) & MASK((hi) - (lo) + 1))
#define IMPLIES(a, b)   (!(a) || (b))

/* ---- fields (vol. 3D, appendix B) ---- */

enum {
    VPID = 0x0000,
    NOTIFICATION_VECTOR = 0x0002,
    GUEST_SELECTOR = 0x0800,
    GUEST_UINV = 0x0814,
    HOST_SELECTOR = 0x0c00,
    IO_BITMAP_A = 0x2000,
    IO_BITMAP_B = 0x2002,
    MSR_BITMAP = 0x2004,
    EXIT_MSR_STORE = 0x2006,
    EXIT_MSR_LOAD = 0x2008,
    ENTRY_MSR_LOAD = 0x200a,
    PML = 0x200e,
    VIRTUAL_APIC = 0x2012,
    APIC_ACCESS = 0x2014,
    POSTED_DESCRIPTOR = 0x2016,
    VMFUNC_CONTROLS = 0x2018,
    EPT_POINTER = 0x201a,
    EPTP_LIST = 0x2024,
    VMREAD_BITMAP = 0x2026,
    VMWRITE_BITMAP = 0x2028,
    VE_INFORMATION = 0x202a,
    SPPT_POINTER = 0x2030,
    TSC_MULTIPLIER = 0x2032,
    PROC3 = 0x2034,
    LINK_POINTER = 0x2800,
    GUEST_DEBUGCTL = 0x2802,
    GUEST_PAT = 0x2804,
    GUEST_EFER = 0x2806,
    GUEST_PERF_GLOBAL = 0x2808,
    GUEST_PDPTE = 0x280a,
    GUEST_BNDCFGS = 0x2812,
    GUEST_RTIT = 0x2814,
    GUEST_PKRS = 0x2818,
    HOST_PAT = 0x2c00,
    HOST_EFER = 0x2c02,
    HOST_PERF_GLOBAL = 0x2c04,
    HOST_PKRS = 0x2c06,
    PIN = 0x4000,
    PROC = 0x4002,
    CR3_TARGET_COUNT = 0x400a,
    EXIT = 0x400c,
    EXIT_MSR_STORE_COUNT = 0x400e,
    EXIT_MSR_LOAD_COUNT = 0x4010,
    ENTRY = 0x4012,
    ENTRY_MSR_LOAD_COUNT = 0x4014,
    ENTRY_INFO = 0x4016,
    ENTRY_ERROR = 0x4018,
    ENTRY_LENGTH = 0x401a,
    TPR_THRESHOLD = 0x401c,
    PROC2 = 0x401e,
    GUEST_LIMIT = 0x4800,
    GDTR_LIMIT = 0x4810,
    IDTR_LIMIT = 0x4812,
    GUEST_RIGHTS = 0x4814,
    INTERRUPTIBILITY = 0x4824,
    ACTIVITY = 0x4826,
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_BASE = 0x6806,
    GDTR_BASE = 0x6816,
    IDTR_BASE = 0x6818,
    GUEST_DR7 = 0x681a,
    GUEST_RIP = 0x681e,
    GUEST_RFLAGS = 0x6820,
    PENDING_DEBUG = 0x6822,
    GUEST_SYSENTER_ESP = 0x6824,
    GUEST_SYSENTER_EIP = 0x6826,
    GUEST_S_CET = 0x6828,
    GUEST_SSP = 0x682a,
    GUEST_SSP_TABLE = 0x682c,
    HOST_CR0 = 0x6c00,
    HOST_CR3 = 0x6c02,
    HOST_CR4 = 0x6c04,
    HOST_FS_BASE = 0x6c06,
    HOST_TR_BASE = 0x6c0a,
    HOST_GDTR_BASE = 0x6c0c,
    HOST_IDTR_BASE = 0x6c0e,
    HOST_SYSENTER_ESP = 0x6c10,
    HOST_SYSENTER_EIP = 0x6c12,
    HOST_RIP = 0x6c16,
    HOST_S_CET = 0x6c18,
    HOST_SSP = 0x6c1a,
    HOST_SSP_TABLE = 0x6c1c,
};

enum { ES, CS, SS, DS, FS, GS, LDTR, TR };

static u64 get(const struct vmcs *m, u32 field)
{
    return m->read(m->fields, field);
}

static bool pin(const struct vmcs *m, u32 bit)
{
    return get(m, PIN) >> bit & 1;
}

static bool proc(const struct vmcs *m, u32 bit)
{
    return get(m, PROC) >> bit & 1;
}

static bool proc2(const struct vmcs *m, u32 bit)
{
    return proc(m, 31) && (get(m, PROC2) >> bit & 1);
}

static bool on_exit(const struct vmcs *m, u32 bit)
{
    return get(m, EXIT) >> bit & 1;
}

static bool on_entry(const struct vmcs *m, u32 bit)
{
    return get(m, ENTRY) >> bit & 1;
}

#define external_interrupt_exiting(m) pin(m, 0)
#define nmi_exiting(m)                pin(m, 3)
#define virtual_nmis(m)               pin(m, 5)
#define preemption_timer(m)           pin(m, 6)
#define posted_interrupts(m)          pin(m, 7)
#define tertiary(m)                   proc(m, 17)
#define tpr_shadow(m)                 proc(m, 21)
#define nmi_window(m)                 proc(m, 22)
#define io_bitmaps(m)                 proc(m, 25)
#define msr_bitmaps(m)                proc(m, 28)
#define secondary(m)                  proc(m, 31)
#define apic_accesses(m)              proc2(m, 0)
#define ept(m)                        proc2(m, 1)
#define x2apic_mode(m)                proc2(m, 4)
#define vpid(m)                       proc2(m, 5)
#define unrestricted(m)               proc2(m, 7)
#define apic_registers(m)             proc2(m, 8)
#define virtual_interrupts(m)         proc2(m, 9)
#define vm_functions(m)               proc2(m, 13)
#define vmcs_shadowing(m)             proc2(m, 14)
#define pml(m)                        proc2(m, 17)
#define ept_violation_ve(m)           proc2(m, 18)
#define mode_based_execute(m)         proc2(m, 22)
#define sub_page(m)                   proc2(m, 23)
#define pt_guest_physical(m)          proc2(m, 24)
#define tsc_scaling(m)                proc2(m, 25)
#define host_64(m)                    on_exit(m, 9)
#define ia32e(m)                      on_entry(m, 9)

static bool phys_ok(const struct vmcs *m, u64 address)
{
    return !(address & ~MASK(m->cpu->phys_bits));
}

static bool aligned(const struct vmcs *m, u32 field, u32 bits)
{
    u64 address = get(m, field);

    return !(address & MASK(bits)) && phys_ok(m, address);
}

static bool canonical(const struct vmcs *m, u64 address)
{
    u32 unused = 64 - m->cpu->linear_bits;

    return (u64)((s64)(address << unused) >> unused) == address;
}

static bool fits(u64 controls, u64 capability)
{
    return !((u32)capability & ~controls) && !(controls & ~(capability >> 32));
}

static bool in_fixed(u64 value, u64 fixed0, u64 fixed1)
{
    return !(fixed0 & ~value) && !(value & ~fixed1);
}

/* ---- 27.2.1.1: execution controls ---- */

static bool pin_controls(const struct vmcs *m)
{
    return fits(get(m, PIN), m->cpu->pin);
}

static bool proc_controls(const struct vmcs *m)
{
    return fits(get(m, PROC), m->cpu->proc);
}

static bool proc2_controls(const struct vmcs *m)
{
    return IMPLIES(secondary(m), fits(get(m, PROC2), m->cpu->proc2));
}

static bool proc3_controls(const struct vmcs *m)
{
    return IMPLIES(tertiary(m), !(get(m, PROC3) & ~m->cpu->proc3));
}

static bool cr3_targets(const struct vmcs *m)
{
    return get(m, CR3_TARGET_COUNT) <= BITS(m->cpu->misc, 24, 16);
}

static bool io_bitmap_addresses(const struct vmcs *m)
{
    return IMPLIES(io_bitmaps(m), aligned(m, IO_BITMAP_A, 12) && aligned(m, IO_BITMAP_B, 12));
}

static bool msr_bitmap_address(const struct vmcs *m)
{
    return IMPLIES(msr_bitmaps(m), aligned(m, MSR_BITMAP, 12));
}

static bool virtual_apic_address(const struct vmcs *m)
{
    return IMPLIES(tpr_shadow(m), aligned(m, VIRTUAL_APIC, 12));
}

static bool tpr_threshold_reserved(const struct vmcs *m)
{
    return IMPLIES(tpr_shadow(m) && !virtual_interrupts(m), !(get(m, TPR_THRESHOLD) >> 4));
}

static bool tpr_threshold_and_vtpr(const struct vmcs *m)
{
    if (!tpr_shadow(m) || virtual_interrupts(m) || apic_accesses(m) || !m->virtual_apic)
        return true;
    return BITS(get(m, TPR_THRESHOLD), 3, 0) <= m->virtual_apic[0x80] >> 4;
}

static bool virtual_nmis_need_exiting(const struct vmcs *m)
{
    return IMPLIES(virtual_nmis(m), nmi_exiting(m));
}

static bool nmi_window_needs_virtual_nmis(const struct vmcs *m)
{
    return IMPLIES(nmi_window(m), virtual_nmis(m));
}

static bool apic_access_address(const struct vmcs *m)
{
    return IMPLIES(apic_accesses(m), aligned(m, APIC_ACCESS, 12));
}

static bool apic_needs_tpr_shadow(const struct vmcs *m)
{
    return IMPLIES(x2apic_mode(m) || apic_registers(m) || virtual_interrupts(m), tpr_shadow(m));
}

static bool x2apic_or_accesses(const struct vmcs *m)
{
    return !(x2apic_mode(m) && apic_accesses(m));
}

static bool delivery_needs_exiting(const struct vmcs *m)
{
    return IMPLIES(virtual_interrupts(m), external_interrupt_exiting(m));
}

static bool posting_needs_delivery(const struct vmcs *m)
{
    return IMPLIES(posted_interrupts(m), virtual_interrupts(m));
}

static bool posting_needs_acknowledge(const struct vmcs *m)
{
    return IMPLIES(posted_interrupts(m), on_exit(m, 15));
}

static bool notification_vector(const struct vmcs *m)
{
    return IMPLIES(posted_interrupts(m), get(m, NOTIFICATION_VECTOR) <= 0xff);
}

static bool descriptor_address(const struct vmcs *m)
{
    return IMPLIES(posted_interrupts(m), aligned(m, POSTED_DESCRIPTOR, 6));
}

static bool vpid_not_zero(const struct vmcs *m)
{
    return IMPLIES(vpid(m), BITS(get(m, VPID), 15, 0));
}

static bool eptp_type(const struct vmcs *m)
{
    u64 type = BITS(get(m, EPT_POINTER), 2, 0);

    return IMPLIES(ept(m), (type == 0 && (m->cpu->ept_vpid & BIT(8))) ||
                               (type == 6 && (m->cpu->ept_vpid & BIT(14))));
}

static bool eptp_walk(const struct vmcs *m)
{
    u64 walk = BITS(get(m, EPT_POINTER), 5, 3);

    return IMPLIES(ept(m), (walk == 3 && (m->cpu->ept_vpid & BIT(6))) ||
                               (walk == 4 && (m->cpu->ept_vpid & BIT(7))));
}

static bool eptp_accessed(const struct vmcs *m)
{
    return IMPLIES(ept(m) && (get(m, EPT_POINTER) & BIT(6)), m->cpu->ept_vpid & BIT(21));
}

static bool eptp_reserved(const struct vmcs *m)
{
    u64 eptp = get(m, EPT_POINTER);

    return IMPLIES(ept(m), !BITS(eptp, 11, 8) && phys_ok(m, eptp) &&
                               IMPLIES(eptp & BIT(7), m->cpu->ept_vpid & BIT(23)));
}

static bool pml_needs_ept(const struct vmcs *m)
{
    return IMPLIES(pml(m), ept(m));
}

static bool pml_address(const struct vmcs *m)
{
    return IMPLIES(pml(m), aligned(m, PML, 12));
}

static bool unrestricted_needs_ept(const struct vmcs *m)
{
    return IMPLIES(unrestricted(m), ept(m));
}

static bool mode_based_needs_ept(const struct vmcs *m)
{
    return IMPLIES(mode_based_execute(m), ept(m));
}

static bool sub_page_needs_ept(const struct vmcs *m)
{
    return IMPLIES(sub_page(m), ept(m));
}

static bool sub_page_table(const struct vmcs *m)
{
    return IMPLIES(sub_page(m), aligned(m, SPPT_POINTER, 12));
}

static bool vm_function_controls(const struct vmcs *m)
{
    return IMPLIES(vm_functions(m), !(get(m, VMFUNC_CONTROLS) & ~m->cpu->vmfunc));
}

static bool eptp_switching(const struct vmcs *m)
{
    return IMPLIES(vm_functions(m) && (get(m, VMFUNC_CONTROLS) & 1),
                   ept(m) && aligned(m, EPTP_LIST, 12));
}

static bool shadowing_bitmaps(const struct vmcs *m)
{
    return IMPLIES(vmcs_shadowing(m),
                   aligned(m, VMREAD_BITMAP, 12) && aligned(m, VMWRITE_BITMAP, 12));
}

static bool ve_information(const struct vmcs *m)
{
    return IMPLIES(ept_violation_ve(m), aligned(m, VE_INFORMATION, 12));
}

static bool pt_needs(const struct vmcs *m)
{
    return IMPLIES(pt_guest_physical(m), ept(m) && on_entry(m, 18) && on_exit(m, 25));
}

static bool tsc_multiplier(const struct vmcs *m)
{
    return IMPLIES(tsc_scaling(m), get(m, TSC_MULTIPLIER));
}

/* ---- 27.2.1.2: exit controls ---- */

static bool msr_area(const struct vmcs *m, u32 count, u32 address)
{
    u64 n = get(m, count);

    return IMPLIES(n, aligned(m, address, 4) && phys_ok(m, get(m, address) + n * 16 - 1));
}

static bool exit_controls(const struct vmcs *m)
{
    return fits(get(m, EXIT), m->cpu->exit);
}

static bool timer_to_save(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 22), preemption_timer(m));
}

static bool exit_msr_stores(const struct vmcs *m)
{
    return msr_area(m, EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE);
}

static bool exit_msr_loads(const struct vmcs *m)
{
    return msr_area(m, EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD);
}

/* ---- 27.2.1.3: entry controls ---- */

enum {
    INTERRUPT = 0,
    NMI = 2,
    EXCEPTION = 3,
    SOFT_INT = 4,
    SOFT_EXCEPTION = 6,
    OTHER = 7,
    NOTHING
};

static u32 injected(const struct vmcs *m)
{
    u64 info = get(m, ENTRY_INFO);

    return info & BIT(31) ? (u32)BITS(info, 10, 8) : NOTHING;
}

static u8 injected_vector(const struct vmcs *m)
{
    return (u8)get(m, ENTRY_INFO);
}

static bool injects_error(const struct vmcs *m)
{
    return injected(m) != NOTHING && (get(m, ENTRY_INFO) & BIT(11));
}

static bool protected_mode(const struct vmcs *m)
{
    return get(m, GUEST_CR0) & BIT(0);
}

static bool entry_controls(const struct vmcs *m)
{
    return fits(get(m, ENTRY), m->cpu->entry);
}

static bool event_type(const struct vmcs *m)
{
    u32 type = injected(m);

    return type != 1 && IMPLIES(type == OTHER, m->cpu->proc >> 32 & BIT(27));
}

static bool event_vector(const struct vmcs *m)
{
    switch (injected(m)) {
    case NMI:
        return injected_vector(m) == 2;
    case EXCEPTION:
        return injected_vector(m) <= 31;
    case OTHER:
        return injected_vector(m) == 0;
    default:
        return true;
    }
}

/* #DF, #TS, #NP, #SS, #GP, #PF, #AC. */
static bool has_error_code(u8 vector)
{
    return vector < 32 && (0x00027d00u >> vector & 1);
}

static bool error_code_of_exceptions_only(const struct vmcs *m)
{
    return IMPLIES(injects_error(m),
                   injected(m) == EXCEPTION && IMPLIES(unrestricted(m), protected_mode(m)));
}

/* Processors that have CET leave it to software. */
static bool error_code_by_vector(const struct vmcs *m)
{
    if (injected(m) != EXCEPTION || (m->cpu->basic & BIT(56)) ||
        (unrestricted(m) && !protected_mode(m)))
        return true;
    return injects_error(m) == has_error_code(injected_vector(m));
}

static bool event_reserved(const struct vmcs *m)
{
    return IMPLIES(injected(m) != NOTHING, !BITS(get(m, ENTRY_INFO), 30, 12));
}

static bool error_code_reserved(const struct vmcs *m)
{
    return IMPLIES(injects_error(m), !BITS(get(m, ENTRY_ERROR), 31, 16));
}

static bool instruction_length(const struct vmcs *m)
{
    u64 length = get(m, ENTRY_LENGTH);

    return IMPLIES(injected(m) >= SOFT_INT && injected(m) <= SOFT_EXCEPTION,
                   length <= 15 && (length || (m->cpu->misc & BIT(30))));
}

static bool entry_msr_loads(const struct vmcs *m)
{
    return msr_area(m, ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD);
}

static bool not_of_smm(const struct vmcs *m)
{
    return !on_entry(m, 10) && !on_entry(m, 11);
}

/* ---- 27.2.2: host control registers and MSRs ---- */

static bool pat_legal(u64 pat)
{
    for (u32 i = 0; i < 8; i++) {
        u8 type = (u8)(pat >> 8 * i);

        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

static bool s_cet_legal(const struct vmcs *m, u64 cet)
{
    return canonical(m, cet) && !BITS(cet, 9, 6) && BITS(cet, 11, 10) != 3;
}

static bool host_cr0(const struct vmcs *m)
{
    return in_fixed(get(m, HOST_CR0), m->cpu->cr0_fixed0, m->cpu->cr0_fixed1);
}

static bool host_cr4(const struct vmcs *m)
{
    return in_fixed(get(m, HOST_CR4), m->cpu->cr4_fixed0, m->cpu->cr4_fixed1);
}

static bool host_cet_wp(const struct vmcs *m)
{
    return IMPLIES(get(m, HOST_CR4) & BIT(23), get(m, HOST_CR0) & BIT(16));
}

static bool host_cr3(const struct vmcs *m)
{
    return phys_ok(m, get(m, HOST_CR3));
}

static bool host_sysenter(const struct vmcs *m)
{
    return canonical(m, get(m, HOST_SYSENTER_ESP)) && canonical(m, get(m, HOST_SYSENTER_EIP));
}

static bool host_perf_global(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 12), !(get(m, HOST_PERF_GLOBAL) & ~m->cpu->perf_global));
}

static bool host_pat(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 19), pat_legal(get(m, HOST_PAT)));
}

static bool host_efer_reserved(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 21), !(get(m, HOST_EFER) & ~m->cpu->efer));
}

static bool host_efer_mode(const struct vmcs *m)
{
    u64 efer = get(m, HOST_EFER);

    return IMPLIES(on_exit(m, 21),
                   BITS(efer, 8, 8) == host_64(m) && BITS(efer, 10, 10) == host_64(m));
}

static bool host_cet(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 28),
                   s_cet_legal(m, get(m, HOST_S_CET)) && canonical(m, get(m, HOST_SSP)) &&
                       !BITS(get(m, HOST_SSP), 1, 0) && canonical(m, get(m, HOST_SSP_TABLE)));
}

static bool host_pkrs(const struct vmcs *m)
{
    return IMPLIES(on_exit(m, 29), !(get(m, HOST_PKRS) >> 32));
}

/* ---- 27.2.3: host segments and descriptor tables; the host is in long mode ---- */

enum { HOST_CS = HOST_SELECTOR + 2, HOST_TR = HOST_SELECTOR + 12 };

static bool host_selectors(const struct vmcs *m)
{
    for (u32 field = HOST_SELECTOR; field <= HOST_TR; field += 2)
        if (get(m, field) & 7)
            return false;
    return true;
}

static bool host_cs_and_tr(const struct vmcs *m)
{
    return get(m, HOST_CS) && get(m, HOST_TR);
}

static bool host_bases(const struct vmcs *m)
{
    for (u32 field = HOST_FS_BASE; field <= HOST_IDTR_BASE; field += 2)
        if (!canonical(m, get(m, field)))
            return false;
    return true;
}

/* ---- 27.2.4: address-space size; likewise ---- */

static bool host_is_64(const struct vmcs *m)
{
    return host_64(m);
}

static bool host_pae(const struct vmcs *m)
{
    return IMPLIES(host_64(m), get(m, HOST_CR4) & BIT(5));
}

static bool host_rip(const struct vmcs *m)
{
    return IMPLIES(host_64(m), canonical(m, get(m, HOST_RIP)));
}

/* ---- 27.3.1.1: guest control registers, debug registers, MSRs ---- */

#define CR0_PAGING_AND_PE (BIT(31) | BIT(0))
#define CR0_CACHES        (BIT(30) | BIT(29))

static bool paging(const struct vmcs *m)
{
    return get(m, GUEST_CR0) & BIT(31);
}

static bool guest_cr0(const struct vmcs *m)
{
    u64 free = CR0_CACHES | (unrestricted(m) ? CR0_PAGING_AND_PE : 0);

    return in_fixed(get(m, GUEST_CR0), m->cpu->cr0_fixed0 & ~free, m->cpu->cr0_fixed1 | CR0_CACHES);
}

static bool paging_needs_protection(const struct vmcs *m)
{
    return IMPLIES(paging(m), protected_mode(m));
}

static bool guest_cr4(const struct vmcs *m)
{
    return in_fixed(get(m, GUEST_CR4), m->cpu->cr4_fixed0, m->cpu->cr4_fixed1);
}

static bool guest_cet_wp(const struct vmcs *m)
{
    return IMPLIES(get(m, GUEST_CR4) & BIT(23), get(m, GUEST_CR0) & BIT(16));
}

static bool guest_debugctl(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 2), !(get(m, GUEST_DEBUGCTL) & ~m->cpu->debugctl));
}

static bool long_mode_needs_paging(const struct vmcs *m)
{
    return IMPLIES(ia32e(m), paging(m) && (get(m, GUEST_CR4) & BIT(5)));
}

static bool pcid_needs_long_mode(const struct vmcs *m)
{
    return IMPLIES(get(m, GUEST_CR4) & BIT(17), ia32e(m));
}

static bool guest_cr3(const struct vmcs *m)
{
    return phys_ok(m, get(m, GUEST_CR3));
}

static bool guest_dr7(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 2), !(get(m, GUEST_DR7) >> 32));
}

static bool guest_sysenter(const struct vmcs *m)
{
    return canonical(m, get(m, GUEST_SYSENTER_ESP)) && canonical(m, get(m, GUEST_SYSENTER_EIP));
}

static bool guest_perf_global(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 13), !(get(m, GUEST_PERF_GLOBAL) & ~m->cpu->perf_global));
}

static bool guest_pat(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 14), pat_legal(get(m, GUEST_PAT)));
}

static bool guest_efer_reserved(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 15), !(get(m, GUEST_EFER) & ~m->cpu->efer));
}

static bool guest_efer_lma(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 15), BITS(get(m, GUEST_EFER), 10, 10) == ia32e(m));
}

static bool guest_efer_lme(const struct vmcs *m)
{
    u64 efer = get(m, GUEST_EFER);

    return IMPLIES(on_entry(m, 15) && paging(m), BITS(efer, 8, 8) == BITS(efer, 10, 10));
}

static bool guest_bndcfgs(const struct vmcs *m)
{
    u64 bounds = get(m, GUEST_BNDCFGS);

    return IMPLIES(on_entry(m, 16), !BITS(bounds, 11, 2) && canonical(m, bounds & ~MASK(12)));
}

static bool guest_rtit(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 18), !(get(m, GUEST_RTIT) & ~m->cpu->rtit));
}

static bool guest_uinv(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 19), get(m, GUEST_UINV) <= 0xff);
}

static bool guest_cet(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 20), s_cet_legal(m, get(m, GUEST_S_CET)) &&
                                        !BITS(get(m, GUEST_SSP), 1, 0) &&
                                        canonical(m, get(m, GUEST_SSP_TABLE)));
}

static bool guest_pkrs(const struct vmcs *m)
{
    return IMPLIES(on_entry(m, 22), !(get(m, GUEST_PKRS) >> 32));
}

/* ---- 27.3.1.2: guest segments ---- */

static u64 rights(const struct vmcs *m, u32 i)
{
    return get(m, GUEST_RIGHTS + 2 * i);
}

static u64 selector(const struct vmcs *m, u32 i)
{
    return get(m, GUEST_SELECTOR + 2 * i);
}

static u64 base(const struct vmcs *m, u32 i)
{
    return get(m, GUEST_BASE + 2 * i);
}

static u64 limit(const struct vmcs *m, u32 i)
{
    return get(m, GUEST_LIMIT + 2 * i);
}

static bool usable(const struct vmcs *m, u32 i)
{
    return !(rights(m, i) & BIT(16));
}

static u32 type(const struct vmcs *m, u32 i)
{
    return rights(m, i) & 0xf;
}

static u32 dpl(const struct vmcs *m, u32 i)
{
    return rights(m, i) >> 5 & 3;
}

static u32 rpl(const struct vmcs *m, u32 i)
{
    return selector(m, i) & 3;
}

static bool v8086(const struct vmcs *m)
{
    return get(m, GUEST_RFLAGS) & BIT(17);
}

/* CS always counts; the unusable bit of the others says whether they do. */
static bool counts(const struct vmcs *m, u32 i)
{
    return i == CS || i == TR || usable(m, i);
}

#define ALL_OF(i, first, last, holds)           \
    do {                                        \
        for (u32 i = (first); i <= (last); i++) \
            if (!(holds))                       \
                return false;                   \
        return true;                            \
    } while (0)

static bool tr_selector(const struct vmcs *m)
{
    return !(selector(m, TR) & 4);
}

static bool ldtr_selector(const struct vmcs *m)
{
    return IMPLIES(usable(m, LDTR), !(selector(m, LDTR) & 4));
}

static bool ss_rpl(const struct vmcs *m)
{
    return v8086(m) || unrestricted(m) || rpl(m, SS) == rpl(m, CS);
}

static bool v8086_bases(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, IMPLIES(v8086(m), base(m, i) == (selector(m, i) & 0xffff) << 4));
}

static bool wide_bases(const struct vmcs *m)
{
    return canonical(m, base(m, TR)) && canonical(m, base(m, FS)) && canonical(m, base(m, GS));
}

static bool ldtr_base(const struct vmcs *m)
{
    return IMPLIES(usable(m, LDTR), canonical(m, base(m, LDTR)));
}

static bool cs_base(const struct vmcs *m)
{
    return !(base(m, CS) >> 32);
}

static bool narrow_bases(const struct vmcs *m)
{
    ALL_OF(i, ES, DS, IMPLIES(i != CS && usable(m, i), !(base(m, i) >> 32)));
}

static bool v8086_limits(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, IMPLIES(v8086(m), limit(m, i) == 0xffff));
}

static bool v8086_rights(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, IMPLIES(v8086(m), rights(m, i) == 0xf3));
}

static bool cs_type(const struct vmcs *m)
{
    u32 t = type(m, CS);

    return v8086(m) || (t & 9) == 9 || (t == 3 && unrestricted(m));
}

static bool ss_type(const struct vmcs *m)
{
    return v8086(m) || !usable(m, SS) || type(m, SS) == 3 || type(m, SS) == 7;
}

static bool data_type(const struct vmcs *m)
{
    ALL_OF(i, ES, GS,
           v8086(m) || i == CS || i == SS || !usable(m, i) ||
               ((type(m, i) & 1) && IMPLIES(type(m, i) & 8, type(m, i) & 2)));
}

static bool code_or_data(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, v8086(m) || !counts(m, i) || (rights(m, i) & BIT(4)));
}

static bool cs_dpl(const struct vmcs *m)
{
    if (v8086(m))
        return true;
    if (type(m, CS) == 3)
        return dpl(m, CS) == 0;
    return type(m, CS) < 12 ? dpl(m, CS) == dpl(m, SS) : dpl(m, CS) <= dpl(m, SS);
}

static bool ss_dpl_and_rpl(const struct vmcs *m)
{
    return v8086(m) || unrestricted(m) || dpl(m, SS) == rpl(m, SS);
}

static bool ss_dpl_of_real_mode(const struct vmcs *m)
{
    return v8086(m) || IMPLIES(type(m, CS) == 3 || !protected_mode(m), dpl(m, SS) == 0);
}

static bool data_dpl(const struct vmcs *m)
{
    ALL_OF(i, ES, GS,
           v8086(m) || unrestricted(m) || i == CS || i == SS || !usable(m, i) || type(m, i) > 11 ||
               dpl(m, i) >= rpl(m, i));
}

static bool present(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, v8086(m) || !counts(m, i) || (rights(m, i) & BIT(7)));
}

#define RIGHTS_RESERVED(r) (BITS(r, 11, 8) || BITS(r, 31, 17))

static bool rights_reserved(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, v8086(m) || !counts(m, i) || !RIGHTS_RESERVED(rights(m, i)));
}

static bool cs_not_both(const struct vmcs *m)
{
    return IMPLIES(ia32e(m) && !v8086(m) && (rights(m, CS) & BIT(13)), !(rights(m, CS) & BIT(14)));
}

static bool granular(const struct vmcs *m, u32 i)
{
    bool g = rights(m, i) & BIT(15);

    return IMPLIES(BITS(limit(m, i), 11, 0) != 0xfff, !g) && IMPLIES(BITS(limit(m, i), 31, 20), g);
}

static bool granularity(const struct vmcs *m)
{
    ALL_OF(i, ES, GS, v8086(m) || !counts(m, i) || granular(m, i));
}

static bool tr_type(const struct vmcs *m)
{
    return type(m, TR) == 11 || (type(m, TR) == 3 && !ia32e(m));
}

static bool tr_rights(const struct vmcs *m)
{
    return (rights(m, TR) & (BIT(4) | BIT(7))) == BIT(7) && !RIGHTS_RESERVED(rights(m, TR));
}

static bool tr_granularity(const struct vmcs *m)
{
    return granular(m, TR);
}

static bool tr_usable(const struct vmcs *m)
{
    return usable(m, TR);
}

static bool ldtr_rights(const struct vmcs *m)
{
    return !usable(m, LDTR) ||
           ((rights(m, LDTR) & 0x9f) == 0x82 && !RIGHTS_RESERVED(rights(m, LDTR)));
}

static bool ldtr_granularity(const struct vmcs *m)
{
    return IMPLIES(usable(m, LDTR), granular(m, LDTR));
}

/* ---- 27.3.1.3: guest descriptor tables ---- */

static bool table_bases(const struct vmcs *m)
{
    return canonical(m, get(m, GDTR_BASE)) && canonical(m, get(m, IDTR_BASE));
}

static bool table_limits(const struct vmcs *m)
{
    return get(m, GDTR_LIMIT) <= 0xffff && get(m, IDTR_LIMIT) <= 0xffff;
}

/* ---- 27.3.1.4: guest RIP and RFLAGS ---- */

static bool code_64(const struct vmcs *m)
{
    return ia32e(m) && (rights(m, CS) & BIT(13));
}

static bool rip_32(const struct vmcs *m)
{
    return code_64(m) || !(get(m, GUEST_RIP) >> 32);
}

/* Less than canonical: an instruction may have ended at the last address. */
static bool rip_64(const struct vmcs *m)
{
    u64 high = get(m, GUEST_RIP) >> m->cpu->linear_bits;

    return IMPLIES(code_64(m), high == 0 || high == MASK(64 - m->cpu->linear_bits));
}

static bool rflags_reserved(const struct vmcs *m)
{
    u64 rflags = get(m, GUEST_RFLAGS);

    return !(rflags >> 22) && (rflags & (BIT(15) | BIT(5) | BIT(3) | BIT(1))) == BIT(1);
}

static bool rflags_vm(const struct vmcs *m)
{
    return IMPLIES(v8086(m), !ia32e(m) && protected_mode(m));
}

static bool rflags_if(const struct vmcs *m)
{
    return IMPLIES(injected(m) == INTERRUPT, get(m, GUEST_RFLAGS) & BIT(9));
}

/* ---- 27.3.1.5: guest non-register state ---- */

enum { ACTIVE, HLT, SHUTDOWN, WAIT_FOR_SIPI };
#define BY_STI     BIT(0)
#define BY_MOV_SS  BIT(1)
#define BY_SMI     BIT(2)
#define BY_NMI     BIT(3)
#define IN_ENCLAVE BIT(4)

static u64 blocking(const struct vmcs *m)
{
    return get(m, INTERRUPTIBILITY);
}

static bool shadow(const struct vmcs *m)
{
    return blocking(m) & (BY_STI | BY_MOV_SS);
}

static bool activity_supported(const struct vmcs *m)
{
    u64 activity = get(m, ACTIVITY);

    return activity == ACTIVE || (activity <= WAIT_FOR_SIPI && (m->cpu->misc >> 5 & BIT(activity)));
}

static bool halted_at_cpl0(const struct vmcs *m)
{
    return IMPLIES(get(m, ACTIVITY) == HLT, dpl(m, SS) == 0);
}

static bool shadow_is_active(const struct vmcs *m)
{
    return IMPLIES(shadow(m), get(m, ACTIVITY) == ACTIVE);
}

static bool wakes_from_hlt(const struct vmcs *m)
{
    switch (injected(m)) {
    case INTERRUPT:
    case NMI:
        return true;
    case EXCEPTION:
        return injected_vector(m) == 1 || injected_vector(m) == 18;
    case OTHER:
        return injected_vector(m) == 0;
    default:
        return false;
    }
}

static bool event_in_activity(const struct vmcs *m)
{
    if (injected(m) == NOTHING)
        return true;
    switch (get(m, ACTIVITY)) {
    case ACTIVE:
        return true;
    case HLT:
        return wakes_from_hlt(m);
    case SHUTDOWN:
        return injected(m) == NMI || (injected(m) == EXCEPTION && injected_vector(m) == 18);
    default:
        return false;
    }
}

static bool blocking_reserved(const struct vmcs *m)
{
    return !(blocking(m) >> 5);
}

static bool sti_or_mov_ss(const struct vmcs *m)
{
    return (blocking(m) & (BY_STI | BY_MOV_SS)) != (BY_STI | BY_MOV_SS);
}

static bool sti_needs_if(const struct vmcs *m)
{
    return IMPLIES(blocking(m) & BY_STI, get(m, GUEST_RFLAGS) & BIT(9));
}

static bool interrupt_in_shadow(const struct vmcs *m)
{
    return !(injected(m) == INTERRUPT && shadow(m));
}

static bool nmi_behind_mov_ss(const struct vmcs *m)
{
    return !(injected(m) == NMI && (blocking(m) & BY_MOV_SS));
}

static bool outside_smm(const struct vmcs *m)
{
    return !(blocking(m) & BY_SMI);
}

static bool nmi_behind_sti(const struct vmcs *m)
{
    return !(injected(m) == NMI && (blocking(m) & BY_STI));
}

static bool nmi_while_blocked(const struct vmcs *m)
{
    return !(injected(m) == NMI && virtual_nmis(m) && (blocking(m) & BY_NMI));
}

static bool enclave(const struct vmcs *m)
{
    return IMPLIES(blocking(m) & IN_ENCLAVE, m->cpu->sgx && !(blocking(m) & BY_MOV_SS));
}

static bool pending_debug_reserved(const struct vmcs *m)
{
    u64 p = get(m, PENDING_DEBUG);

    return !BITS(p, 11, 4) && !BITS(p, 13, 13) && !BITS(p, 15, 15) && !(p >> 17) &&
           IMPLIES(p & BIT(16), m->cpu->rtm);
}

/* A single step that the shadow holds back waits there. */
static bool pending_single_step(const struct vmcs *m)
{
    bool steps = (get(m, GUEST_RFLAGS) & BIT(8)) && !(get(m, GUEST_DEBUGCTL) & BIT(1));

    return IMPLIES(shadow(m) || get(m, ACTIVITY) == HLT,
                   BITS(get(m, PENDING_DEBUG), 14, 14) == steps);
}

static bool link_pointer(const struct vmcs *m)
{
    return !~get(m, LINK_POINTER) || aligned(m, LINK_POINTER, 12);
}

/* ---- 27.3.1.6: guest page-directory-pointer-table entries ---- */

static bool pdptes(const struct vmcs *m)
{
    bool pae = paging(m) && (get(m, GUEST_CR4) & BIT(5)) && !ia32e(m);

    for (u32 i = 0; pae && ept(m) && i < 4; i++) {
        u64 e = get(m, GUEST_PDPTE + 2 * i);

        if ((e & 1) && (BITS(e, 2, 1) || BITS(e, 8, 5) || !phys_ok(m, e)))
            return false;
    }
    return true;
}

/* ---- all of them ---- */

const struct vmcs_rule vmcs_rules[] = {
    {"27.2.1.1", "pin-based controls: within what the processor allows", pin_controls},
    {"27.2.1.1", "primary controls: within what the processor allows", proc_controls},
    {"27.2.1.1", "secondary controls: within what the processor allows", proc2_controls},
    {"27.2.1.1", "tertiary controls: within what the processor allows", proc3_controls},
    {"27.2.1.1", "CR3-target count: not above the processor's", cr3_targets},
    {"27.2.1.1", "I/O bitmaps: pages in physical memory", io_bitmap_addresses},
    {"27.2.1.1", "MSR bitmap: a page in physical memory", msr_bitmap_address},
    {"27.2.1.1", "TPR shadow: the virtual-APIC page is one", virtual_apic_address},
    {"27.2.1.1", "TPR threshold: reserved bits", tpr_threshold_reserved},
    {"27.2.1.1", "TPR threshold: not above VTPR's class", tpr_threshold_and_vtpr},
    {"27.2.1.1", "virtual NMIs: with NMI exiting only", virtual_nmis_need_exiting},
    {"27.2.1.1", "NMI-window exiting: with virtual NMIs only", nmi_window_needs_virtual_nmis},
    {"27.2.1.1", "APIC-access page: a page in physical memory", apic_access_address},
    {"27.2.1.1", "x2APIC mode, APIC registers, interrupt delivery: with TPR shadow only",
     apic_needs_tpr_shadow},
    {"27.2.1.1", "x2APIC mode: not with virtualized APIC accesses", x2apic_or_accesses},
    {"27.2.1.1", "interrupt delivery: with external-interrupt exiting only",
     delivery_needs_exiting},
    {"27.2.1.1", "posted interrupts: with interrupt delivery only", posting_needs_delivery},
    {"27.2.1.1", "posted interrupts: with acknowledge-interrupt-on-exit only",
     posting_needs_acknowledge},
    {"27.2.1.1", "posted interrupts: the notification vector is one", notification_vector},
    {"27.2.1.1", "posted interrupts: the descriptor is 64-byte aligned, in physical memory",
     descriptor_address},
    {"27.2.1.1", "VPID: not 0", vpid_not_zero},
    {"27.2.1.1", "EPTP: memory type", eptp_type},
    {"27.2.1.1", "EPTP: length of the walk", eptp_walk},
    {"27.2.1.1", "EPTP: accessed and dirty flags where the processor has them", eptp_accessed},
    {"27.2.1.1", "EPTP: reserved bits", eptp_reserved},
    {"27.2.1.1", "page-modification log: with EPT only", pml_needs_ept},
    {"27.2.1.1", "page-modification log: a page in physical memory", pml_address},
    {"27.2.1.1", "unrestricted guest: with EPT only", unrestricted_needs_ept},
    {"27.2.1.1", "mode-based execute control: with EPT only", mode_based_needs_ept},
    {"27.2.1.1", "sub-page permissions: with EPT only", sub_page_needs_ept},
    {"27.2.1.1", "sub-page permissions: the table is a page in physical memory", sub_page_table},
    {"27.2.1.1", "VM functions: within what the processor allows", vm_function_controls},
    {"27.2.1.1", "EPTP switching: with EPT and a page of EPTPs only", eptp_switching},
    {"27.2.1.1", "VMCS shadowing: the bitmaps are pages in physical memory", shadowing_bitmaps},
    {"27.2.1.1", "EPT-violation #VE: the information is a page in physical memory", ve_information},
    {"27.2.1.1", "PT of guest-physical addresses: with EPT, and RTIT_CTL loaded and cleared",
     pt_needs},
    {"27.2.1.1", "TSC multiplier: not 0", tsc_multiplier},

    {"27.2.1.2", "exit controls: within what the processor allows", exit_controls},
    {"27.2.1.2", "saving the preemption timer: only if there is one", timer_to_save},
    {"27.2.1.2", "MSR-store area: 16-byte aligned, in physical memory", exit_msr_stores},
    {"27.2.1.2", "MSR-load area: 16-byte aligned, in physical memory", exit_msr_loads},

    {"27.2.1.3", "entry controls: within what the processor allows", entry_controls},
    {"27.2.1.3", "event: its type is one", event_type},
    {"27.2.1.3", "event: its vector is one of its type", event_vector},
    {"27.2.1.3", "event: an error code of exceptions in protected mode only",
     error_code_of_exceptions_only},
    {"27.2.1.3", "event: an error code with the vectors that have one, and no others",
     error_code_by_vector},
    {"27.2.1.3", "event: reserved bits", event_reserved},
    {"27.2.1.3", "event: the error code has 16 bits", error_code_reserved},
    {"27.2.1.3", "event: a software event's instruction has 1 to 15 bytes", instruction_length},
    {"27.2.1.3", "MSR-load area: 16-byte aligned, in physical memory", entry_msr_loads},
    {"27.2.1.3", "no entry to SMM, nor an end of the dual monitor", not_of_smm},

    {"27.2.2", "host CR0: fixed bits", host_cr0},
    {"27.2.2", "host CR4: fixed bits", host_cr4},
    {"27.2.2", "host CR4.CET: with CR0.WP only", host_cet_wp},
    {"27.2.2", "host CR3: in physical memory", host_cr3},
    {"27.2.2", "host SYSENTER_ESP and EIP: canonical", host_sysenter},
    {"27.2.2", "host PERF_GLOBAL_CTRL: reserved bits", host_perf_global},
    {"27.2.2", "host PAT: memory types", host_pat},
    {"27.2.2", "host EFER: reserved bits", host_efer_reserved},
    {"27.2.2", "host EFER.LMA and LME: as the host's address-space size", host_efer_mode},
    {"27.2.2", "host S_CET, SSP and its table: canonical, no reserved bits", host_cet},
    {"27.2.2", "host PKRS: 32 bits", host_pkrs},

    {"27.2.3", "host selectors: RPL and TI are 0", host_selectors},
    {"27.2.3", "host CS and TR: not null", host_cs_and_tr},
    {"27.2.3", "host FS, GS, TR, GDTR, IDTR: canonical bases", host_bases},

    {"27.2.4", "host address-space size: 64 bits, as now", host_is_64},
    {"27.2.4", "host CR4.PAE: set in a 64-bit host", host_pae},
    {"27.2.4", "host RIP: canonical", host_rip},

    {"27.3.1.1", "CR0: fixed bits", guest_cr0},
    {"27.3.1.1", "CR0.PG: with PE only", paging_needs_protection},
    {"27.3.1.1", "CR4: fixed bits", guest_cr4},
    {"27.3.1.1", "CR4.CET: with CR0.WP only", guest_cet_wp},
    {"27.3.1.1", "DEBUGCTL: reserved bits", guest_debugctl},
    {"27.3.1.1", "IA-32e mode: with CR0.PG and CR4.PAE only", long_mode_needs_paging},
    {"27.3.1.1", "CR4.PCIDE: in IA-32e mode only", pcid_needs_long_mode},
    {"27.3.1.1", "CR3: in physical memory", guest_cr3},
    {"27.3.1.1", "DR7: 32 bits", guest_dr7},
    {"27.3.1.1", "SYSENTER_ESP and EIP: canonical", guest_sysenter},
    {"27.3.1.1", "PERF_GLOBAL_CTRL: reserved bits", guest_perf_global},
    {"27.3.1.1", "PAT: memory types", guest_pat},
    {"27.3.1.1", "EFER: reserved bits", guest_efer_reserved},
    {"27.3.1.1", "EFER.LMA: as the entry's IA-32e mode", guest_efer_lma},
    {"27.3.1.1", "EFER.LME: as LMA while paging is on", guest_efer_lme},
    {"27.3.1.1", "BNDCFGS: canonical, no reserved bits", guest_bndcfgs},
    {"27.3.1.1", "RTIT_CTL: reserved bits", guest_rtit},
    {"27.3.1.1", "UINV: a vector", guest_uinv},
    {"27.3.1.1", "S_CET, SSP and its table: canonical, no reserved bits", guest_cet},
    {"27.3.1.1", "PKRS: 32 bits", guest_pkrs},

    {"27.3.1.2", "TR selector: in the GDT", tr_selector},
    {"27.3.1.2", "LDTR selector: in the GDT", ldtr_selector},
    {"27.3.1.2", "SS selector: RPL as CS's", ss_rpl},
    {"27.3.1.2", "virtual-8086: bases are selectors * 16", v8086_bases},
    {"27.3.1.2", "TR, FS, GS: canonical bases", wide_bases},
    {"27.3.1.2", "LDTR: canonical base", ldtr_base},
    {"27.3.1.2", "CS: base of 32 bits", cs_base},
    {"27.3.1.2", "SS, DS, ES: bases of 32 bits", narrow_bases},
    {"27.3.1.2", "virtual-8086: limits of 64 KiB", v8086_limits},
    {"27.3.1.2", "virtual-8086: access rights f3", v8086_rights},
    {"27.3.1.2", "CS: accessed code, or data in an unrestricted guest", cs_type},
    {"27.3.1.2", "SS: accessed, writable data", ss_type},
    {"27.3.1.2", "DS, ES, FS, GS: accessed and readable", data_type},
    {"27.3.1.2", "segments: S is 1", code_or_data},
    {"27.3.1.2", "CS: DPL by its type", cs_dpl},
    {"27.3.1.2", "SS: DPL as RPL", ss_dpl_and_rpl},
    {"27.3.1.2", "SS: DPL 0 in real mode", ss_dpl_of_real_mode},
    {"27.3.1.2", "DS, ES, FS, GS: DPL not below RPL", data_dpl},
    {"27.3.1.2", "segments: present", present},
    {"27.3.1.2", "segments: reserved bits of the access rights", rights_reserved},
    {"27.3.1.2", "CS: not both L and D", cs_not_both},
    {"27.3.1.2", "segments: granularity as the limit has it", granularity},
    {"27.3.1.2", "TR: a busy TSS", tr_type},
    {"27.3.1.2", "TR: S, P, reserved bits", tr_rights},
    {"27.3.1.2", "TR: granularity as the limit has it", tr_granularity},
    {"27.3.1.2", "TR: usable", tr_usable},
    {"27.3.1.2", "LDTR: type, S, P, reserved bits", ldtr_rights},
    {"27.3.1.2", "LDTR: granularity as the limit has it", ldtr_granularity},

    {"27.3.1.3", "GDTR, IDTR: canonical bases", table_bases},
    {"27.3.1.3", "GDTR, IDTR: limits of 16 bits", table_limits},

    {"27.3.1.4", "RIP: 32 bits outside of 64-bit code", rip_32},
    {"27.3.1.4", "RIP: its high bits are equal in 64-bit code", rip_64},
    {"27.3.1.4", "RFLAGS: reserved bits", rflags_reserved},
    {"27.3.1.4", "RFLAGS.VM: in protected mode only", rflags_vm},
    {"27.3.1.4", "RFLAGS.IF: set when an interrupt is injected", rflags_if},

    {"27.3.1.5", "activity: one that the processor has", activity_supported},
    {"27.3.1.5", "activity: halted at SS.DPL 0 only", halted_at_cpl0},
    {"27.3.1.5", "activity: active behind STI or MOV SS", shadow_is_active},
    {"27.3.1.5", "activity: the event is one that ends it", event_in_activity},
    {"27.3.1.5", "interruptibility: reserved bits", blocking_reserved},
    {"27.3.1.5", "interruptibility: not both STI and MOV SS", sti_or_mov_ss},
    {"27.3.1.5", "interruptibility: STI with RFLAGS.IF only", sti_needs_if},
    {"27.3.1.5", "interruptibility: no interrupt behind STI or MOV SS", interrupt_in_shadow},
    {"27.3.1.5", "interruptibility: no NMI behind MOV SS", nmi_behind_mov_ss},
    {"27.3.1.5", "interruptibility: no SMI blocking outside of SMM", outside_smm},
    {"27.3.1.5", "interruptibility: no NMI behind STI (some processors)", nmi_behind_sti},
    {"27.3.1.5", "interruptibility: no NMI while virtual NMIs are blocked", nmi_while_blocked},
    {"27.3.1.5", "interruptibility: an enclave needs SGX, and no MOV SS", enclave},
    {"27.3.1.5", "pending debug exceptions: reserved bits", pending_debug_reserved},
    {"27.3.1.5", "pending debug exceptions: BS as TF has it, behind STI or MOV SS or halted",
     pending_single_step},
    {"27.3.1.5", "VMCS link pointer: none, or a page in physical memory", link_pointer},

    {"27.3.1.6", "PAE paging: reserved bits of its four entries", pdptes},
};
const u32 vmcs_rule_count = ARRAY_SIZE(vmcs_rules);

u32 vmcs_check(const struct vmcs *m, const struct vmcs_rule **broken, u32 max)
{
    u32 n = 0;

    for (u32 i = 0; i < vmcs_rule_count; i++) {
        if (vmcs_rules[i].holds(m))
            continue;
        if (n < max)
            broken[n] = &vmcs_rules[i];
        n++;
    }
    return n;
}
