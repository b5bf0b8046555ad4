/* SPDX-License-Identifier: BSD-2-Clause */
/* The sections of a vCPU's state: copied out, or checked and copied in. */
#include "core/state.h"

#include "core/cpuid.h"
#include "core/debug.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/msr.h"
#include "core/vendor.h"
#include "drivers/tsc.h"

#define MSRS_MAX 256

#define RFLAGS_KNOWN 0x3f7fd5ull
#define CR0_KNOWN                                                                              \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
     CR0_PG)

#define SEG_ATTR_LONG BIT(9)
#define SEG_ATTR_BIG  BIT(10)

/* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX push an error code. */
#define ERROR_CODE_VECTORS 0x60227d00u

/* ---- general registers ---- */

/* TF, while it is a debugger's. */
static u64 steps(const struct vcpu *v)
{
    return v->debug_flags & SOCLE_DEBUG_STEP ? RFLAGS_TF : 0;
}

static void get_regs(struct vcpu *v, void *buf)
{
    struct socle_regs *r = buf;

    memcpy(r->gpr, v->gpr, sizeof(r->gpr));
    r->rip = v->rip;
    r->rflags = v->rflags & ~steps(v);
}

static int set_regs(struct vcpu *v, const void *buf)
{
    const struct socle_regs *r = buf;

    memcpy(v->gpr, r->gpr, sizeof(v->gpr));
    v->rip = r->rip;
    v->rflags = (r->rflags & RFLAGS_KNOWN) | RFLAGS_FIXED | steps(v);
    return 0;
}

/* ---- control and segment registers ---- */

/* Long mode is active when it is enabled and paging is on, and only then (AMD APM vol. 2, 14.6
 * and 15.5.1). */
static bool mode_legal(const struct socle_sregs *s)
{
    u16 cs = s->seg[SOCLE_SEG_CS].attr;
    bool active = (s->efer & EFER_LME) && (s->cr0 & CR0_PG);

    if (!!(s->efer & EFER_LMA) != active)
        return false;
    if (!active)
        return !(cs & SEG_ATTR_LONG);
    return (s->cr4 & CR4_PAE) &&
           (cs & (SEG_ATTR_LONG | SEG_ATTR_BIG)) != (SEG_ATTR_LONG | SEG_ATTR_BIG);
}

static bool segments_legal(const struct socle_sregs *s)
{
    static const u8 wide[] = {SOCLE_SEG_FS, SOCLE_SEG_GS, SOCLE_SEG_LDTR, SOCLE_SEG_TR};

    for (u32 i = 0; i < SOCLE_SEGS; i++)
        if (s->seg[i].attr & ~0xfff)
            return false;
    for (u32 i = 0; i < ARRAY_SIZE(wide); i++)
        if (!is_canonical(s->seg[wide[i]].base))
            return false;
    return is_canonical(s->gdt_base) && is_canonical(s->idt_base) && s->gdt_limit <= 0xffff &&
           s->idt_limit <= 0xffff;
}

static bool sregs_legal(const struct vcpu *v, const struct socle_sregs *s)
{
    return cr0_is_legal(s->cr0) && !(s->cr3 & ~host_phys_mask) && !(s->cr4 & ~cpuid_cr4_mask(v)) &&
           !(s->efer & ~cpuid_efer_mask(v)) && s->cr8 <= 15 && mode_legal(s) && segments_legal(s);
}

static void get_sregs(struct vcpu *v, void *buf)
{
    struct socle_sregs *s = buf;

    vendor->get_sregs(v, s);
    s->cr8 = vlapic_cr8(&v->lapic);
    s->apic_base = vcpu_apic_base(v);
}

static int set_sregs(struct vcpu *v, const void *buf)
{
    struct socle_sregs s = *(const struct socle_sregs *)buf;
    int err;

    if (!sregs_legal(v, &s))
        return -E_INVAL;
    err = msr_set_apic_base(v, s.apic_base);
    if (err)
        return err;
    s.cr0 = (s.cr0 & CR0_KNOWN) | CR0_ET;
    vlapic_set_cr8(&v->lapic, (u8)s.cr8);
    vendor->set_sregs(v, &s);
    return 0;
}

/* ---- extended state ---- */

/* Fields of the standard format's image. */
enum { XSAVE_MXCSR = 24, XSAVE_XSTATE_BV = 512, XSAVE_XCOMP_BV = 520, XSAVE_HEADER_END = 576 };

static void get_xsave(struct vcpu *v, void *buf)
{
    memcpy(buf, v->xsave_area, PAGE_SIZE);
}

/* What XRSTOR of the standard format refuses (Intel SDM vol. 1, 13.8). MXCSR is loaded even where
 * XSTATE_BV says that SSE is in its initial state. */
static int set_xsave(struct vcpu *v, const void *buf)
{
    const u8 *image = buf;
    u8 rest = 0;

    for (u32 i = XSAVE_XCOMP_BV; i < XSAVE_HEADER_END; i++)
        rest |= image[i];
    if (rest || (load_u64(image + XSAVE_XSTATE_BV) & ~host_xcr0_mask) ||
        (load_u32(image + XSAVE_MXCSR) & ~host_mxcsr_mask))
        return -E_INVAL;
    memcpy(v->xsave_area, buf, PAGE_SIZE);
    return 0;
}

static int set_xcr0(struct vcpu *v, const void *buf)
{
    u64 xcr0 = *(const u64 *)buf;

    if (!cpuid_xcr0_legal(v, xcr0))
        return -E_INVAL;
    v->xcr0 = xcr0;
    return 0;
}

/* ---- MSRs: as many as there are ---- */

static int get_or_set_msrs(struct vcpu *v, struct socle_msr *msr, u32 len, bool set)
{
    u32 n = len / sizeof(*msr), i;

    if (len % sizeof(*msr) || n > MSRS_MAX)
        return -E_INVAL;
    for (i = 0; i < n; i++)
        if (set ? msr_set(v, msr[i].index, msr[i].value) : msr_get(v, msr[i].index, &msr[i].value))
            break;
    return (int)i;
}

/* ---- local APIC ---- */

static void get_lapic(struct vcpu *v, void *buf)
{
    vlapic_get_state(&v->lapic, buf, rdtsc());
}

static int set_lapic(struct vcpu *v, const void *buf)
{
    vlapic_set_state(&v->lapic, buf, rdtsc());
    vcpu_apic_changed(v);
    return 0;
}

/* ---- events ---- */

static void get_events(struct vcpu *v, void *buf)
{
    struct socle_vcpu_events *e = buf;
    const struct event *event = &v->event;
    bool exception = event->valid && (event->type == EVENT_EXCEPTION || event->type == EVENT_INT3);
    bool soft = event->valid && event->type == EVENT_SOFT;
    bool interrupt = soft || (event->valid && event->type == EVENT_INTERRUPT);
    u8 vector = interrupt ? event->vector : 0;

    if (!interrupt && v->extint_ready) { /* the PIC has it in service */
        interrupt = true;
        vector = v->extint_vector;
    }
    *e = (struct socle_vcpu_events){.exception_pending = exception,
                                    .exception_nr = exception ? event->vector : 0,
                                    .exception_has_error = exception && event->has_error,
                                    .exception_error = exception ? event->error : 0,
                                    .interrupt_injected = interrupt,
                                    .interrupt_nr = vector,
                                    .interrupt_soft = soft,
                                    .shadow = vendor->get_shadow(v),
                                    .nmi_injected = event->valid && event->type == EVENT_NMI,
                                    .nmi_pending = v->nmi_pending,
                                    .nmi_masked = v->nmi_masked,
                                    .sipi_vector = v->sipi_vector};
}

/* Socle holds one event on its way in, and the PIC's interrupt that comes after it; get_events()
 * never shows more. */
static bool events_legal(const struct socle_vcpu_events *e)
{
    bool soft = e->interrupt_injected && e->interrupt_soft;

    if (!!e->exception_pending + soft + !!e->nmi_injected > 1)
        return false;
    if (!e->exception_pending)
        return true;
    if (e->exception_nr > 31 || e->exception_nr == VEC_NMI)
        return false;
    return !e->exception_has_error || (ERROR_CODE_VECTORS >> e->exception_nr & 1);
}

static struct event event_of(const struct socle_vcpu_events *e)
{
    if (e->exception_pending)
        return (struct event){true, e->exception_has_error, e->exception_nr,
                              e->exception_nr == VEC_BP ? EVENT_INT3 : EVENT_EXCEPTION,
                              e->exception_has_error ? e->exception_error : 0};
    if (e->nmi_injected)
        return (struct event){true, false, VEC_NMI, EVENT_NMI, 0};
    if (e->interrupt_injected)
        return (struct event){true, false, e->interrupt_nr,
                              e->interrupt_soft ? EVENT_SOFT : EVENT_INTERRUPT, 0};
    return (struct event){0};
}

static int set_events(struct vcpu *v, const void *buf)
{
    const struct socle_vcpu_events *e = buf;

    if (!events_legal(e))
        return -E_INVAL;
    v->event = event_of(e);
    if (e->nmi_pending < 2) {
        v->extint_ready = e->interrupt_injected && (e->exception_pending || e->nmi_injected);
        v->extint_vector = e->interrupt_nr;
        v->nmi_pending = e->nmi_pending;
    }
    v->nmi_masked = e->nmi_masked;
    v->sipi_vector = e->sipi_vector;
    vendor->set_shadow(v, e->shadow & 1);
    return 0;
}

/* ---- the TSC's rate ---- */

static int set_tsc_khz(struct vcpu *v, const void *buf)
{
    u32 khz = *(const u32 *)buf;
    u64 ratio = tsc_unscale(khz, tsc_khz), value;

    if (khz == v->lapic.tsc_khz)
        return 0;
    if (!tsc_scaling || !ratio || ratio == ~0ull)
        return -E_INVAL;
    msr_get(v, MSR_TSC, &value);
    v->lapic.tsc_khz = khz;
    v->lapic.tsc_ratio = ratio;
    return msr_set(v, MSR_TSC, value);
}

static int set_tsc_offset(struct vcpu *v, const void *buf)
{
    msr_set_tsc_offset(v, *(const s64 *)buf);
    return 0;
}

/* ---- what comes to Socle and dom0 beyond the usual ---- */

static int set_traps(struct vcpu *v, const void *buf)
{
    v->traps = *(const u32 *)buf;
    vendor->update_intercepts(v);
    return 0;
}

/* ---- whether it runs ---- */

_Static_assert(ACTIVITY_WAIT_INIT == SOCLE_MP_UNINIT && ACTIVITY_WAIT_SIPI == SOCLE_MP_INIT &&
                   ACTIVITY_HALTED == SOCLE_MP_HALTED,
               "activities are numbered as dom0 sees them");

static int set_mp(struct vcpu *v, const void *buf)
{
    u32 mp = *(const u32 *)buf;

    if (mp > SOCLE_MP_HALTED)
        return -E_INVAL;
    v->activity = mp;
    return 0;
}

/* ---- all of them ---- */

static const struct section {
    u64 bytes; /* 0: of any length, or none */
    void (*get)(struct vcpu *v, void *buf);
    int (*set)(struct vcpu *v, const void *buf);
    u64 field; /* of struct vcpu, where GET is no more than its value */
} sections[] = {
    [SOCLE_STATE_REGS] = {sizeof(struct socle_regs), get_regs, set_regs},
    [SOCLE_STATE_SREGS] = {sizeof(struct socle_sregs), get_sregs, set_sregs},
    [SOCLE_STATE_XSAVE] = {PAGE_SIZE, get_xsave, set_xsave},
    [SOCLE_STATE_XCR0] = {sizeof(u64), NULL, set_xcr0, offsetof(struct vcpu, xcr0)},
    [SOCLE_STATE_LAPIC] = {VLAPIC_STATE_BYTES, get_lapic, set_lapic},
    [SOCLE_STATE_EVENTS] = {sizeof(struct socle_vcpu_events), get_events, set_events},
    [SOCLE_STATE_DEBUG] = {sizeof(struct socle_debug), debug_get, debug_set},
    [SOCLE_STATE_MP] = {sizeof(u32), NULL, set_mp, offsetof(struct vcpu, activity)},
    [SOCLE_STATE_GUEST_DEBUG] = {sizeof(struct socle_guest_debug), NULL, debug_set_guest},
    [SOCLE_STATE_TSC_KHZ] = {sizeof(u32), NULL, set_tsc_khz},
    [SOCLE_STATE_TSC_OFFSET] = {sizeof(u64), NULL, set_tsc_offset,
                                offsetof(struct vcpu, tsc_offset)},
    [SOCLE_STATE_TRAPS] = {sizeof(u32), NULL, set_traps},
};

int state_access(struct vcpu *v, u64 section, void *buf, u32 len, bool set)
{
    const struct section *s;

    if (section == SOCLE_STATE_MSRS)
        return get_or_set_msrs(v, buf, len, set);
    if (section == SOCLE_STATE_CPUID && set && len % sizeof(struct socle_cpuid) == 0)
        return cpuid_set(v, buf, len / sizeof(struct socle_cpuid));
    if (section == SOCLE_STATE_LAPIC && !domain_has(v->domain, DOMAIN_LAPIC))
        return -E_INVAL;
    if (section >= ARRAY_SIZE(sections) || len != sections[section].bytes)
        return -E_INVAL;
    s = &sections[section];
    if (set && s->set)
        return s->set(v, buf);
    if (set || (!s->get && !s->field))
        return -E_INVAL;
    if (s->get)
        s->get(v, buf);
    else
        memcpy(buf, (u8 *)v + s->field, len);
    return 0;
}
