/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/state.c core/cpuid.c core/msr.c core/pvclock.c core/vlapic.c core/debug.c
/* Any bytes as any section of a vCPU's state, and exits in between: nothing is accepted that the
 * processor would refuse or that would fault when it is loaded. The rules are written down here a
 * second time. */
#include "tests/unit/vcpu_fake.h"

#include "core/exits.h"
#include "core/lib.h"
#include "core/pvclock.h"
#include "core/state.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static struct domain guest;
static struct vcpu *vcpus[2];
static u8 buf[4096] ALIGNED(4096);

#define REQUIRE(condition) \
    do {                   \
        if (!(condition))  \
            abort();       \
    } while (0)

/* AMD APM vol. 2, 15.5.1, canonicalization and consistency checks. */
static void check_sregs(const struct socle_sregs *s)
{
    bool paged_long = (s->efer & EFER_LME) && (s->cr0 & CR0_PG);
    u16 cs = s->seg[SOCLE_SEG_CS].attr;

    REQUIRE(!(s->efer & EFER_SVME) && !(s->efer & ~0xd01ull));
    REQUIRE((s->cr0 & CR0_CD) || !(s->cr0 & CR0_NW));
    REQUIRE(!(s->cr0 >> 32) && !(s->cr3 & ~host_phys_mask) && !(s->cr4 >> 32));
    REQUIRE(!(s->cr4 & (CR4_VMXE | BIT(23) | BIT(15) | BIT(19))));
    REQUIRE(!(s->cr4 & CR4_LA57) || (cpuid(7, 0).ecx & BIT(16)));
    REQUIRE(!(s->cr0 & CR0_PG) || (s->cr0 & CR0_PE));
    REQUIRE(!paged_long || ((s->cr4 & CR4_PAE) && (s->cr0 & CR0_PE)));
    REQUIRE(!paged_long || (cs & 0x600) != 0x600);
    REQUIRE(paged_long == !!(s->efer & EFER_LMA));
    REQUIRE(s->cr8 < 16);
}

static void check_vcpu(struct vcpu *v)
{
    const u8 *x = v->xsave_area;

    REQUIRE(!(load_u64(x + 512) & ~host_xcr0_mask));
    for (u32 i = 520; i < 576; i++)
        REQUIRE(!x[i]);
    REQUIRE(!(load_u32(x + 24) & ~host_mxcsr_mask));
    REQUIRE((v->xcr0 & 1) && !(v->xcr0 & ~(host_xcr0_mask | 1)));
    REQUIRE(!(v->xcr0 & 4) || (v->xcr0 & 2));
    REQUIRE((v->rflags & 2) && !(v->rflags >> 22));
    REQUIRE(!(fake.debug.dr6 >> 32) && !(fake.debug.dr7 >> 32));
    REQUIRE(v->activity <= ACTIVITY_HALTED);
    REQUIRE(!v->event.valid || v->event.type != EVENT_EXCEPTION ||
            (v->event.vector < 32 && v->event.vector != 2));
    REQUIRE(is_canonical(fake.lstar) && is_canonical(fake.gs_base));
    check_sregs(&fake.sregs);
}

static void start(void)
{
    memset(&fake, 0, sizeof(fake));
    guest = (struct domain){.id = 1, .flags = DOMAIN_LAPIC, .vcpus = vcpus, .vcpu_count = 2};
    cpuid_init();
    for (u32 i = 0; i < 2; i++) {
        vcpus[i] = fake_vcpu(&guest, i);
        vcpus[i]->rflags = 2;
    }
}

static void one_exit(struct vcpu *v, u8 which)
{
    v->event.valid = false;
    memcpy(v->gpr, buf, 32);
    switch (which & 3) {
    case 0:
        exit_cpuid(v, load_u64(buf + 32));
        break;
    case 1:
        if (exit_rdmsr(v) == VCPU_EXIT)
            msr_complete(v);
        break;
    case 2:
        if (exit_wrmsr(v) == VCPU_EXIT)
            msr_complete(v);
        break;
    case 3:
        exit_xsetbv(v, 0, CR4_OSXSAVE);
        break;
    }
    if (v->pending)
        pvclock_update(v);
}

/* Records: section, length / 8, then so many bytes; sections above 15 are exits. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static const u16 bytes[16] = {0,
                                  sizeof(struct socle_regs),
                                  sizeof(struct socle_sregs),
                                  4096,
                                  8,
                                  0,
                                  1024,
                                  sizeof(struct socle_vcpu_events),
                                  sizeof(struct socle_debug),
                                  4,
                                  0,
                                  sizeof(struct socle_guest_debug)};

    start();
    while (size >= 2) {
        u8 section = data[0];
        u32 given = data[1] * 8u, len = section < 16 && bytes[section] ? bytes[section] : given;
        struct vcpu *v = vcpus[section >> 7];

        data += 2;
        size -= 2;
        given = (u32)MIN(given, size);
        memset(buf, 0, sizeof(buf));
        memcpy(buf, data, given);
        data += given;
        size -= given;
        if (section & 0x40) {
            one_exit(v, section);
        } else {
            state_access(v, section & 15, buf, len, true);
            state_access(v, section & 15, buf, len, false);
        }
        check_vcpu(v);
    }
    fake_free(vcpus[0]);
    fake_free(vcpus[1]);
    return 0;
}
