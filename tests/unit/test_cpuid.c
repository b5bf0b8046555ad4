/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/vlapic.c
/* CPUID: dom0's view of a made-up processor with every feature, guests' tables against a simple
 * model, and sizes of XSAVE areas against the processor that runs the test. */
#include "tests/unit/vcpu_fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static bool use_hardware;
static u32 max_basic, max_extended;

static struct cpuid_regs everything(u32 leaf, u32 subleaf)
{
    static const u32 size[10] = {0, 0, 256, 64, 64, 64, 512, 1024, 128, 8};
    static const u32 offset[10] = {0, 0, 576, 960, 1024, 1088, 1152, 1664, 0, 2688};

    if (leaf == 0)
        return (struct cpuid_regs){max_basic, 1, 2, 3};
    if (leaf == 0x80000000)
        return (struct cpuid_regs){max_extended, 1, 2, 3};
    if (leaf == 0x80000008)
        return (struct cpuid_regs){0x3930, ~0u, ~0u, ~0u};
    if (leaf == 0xd && subleaf == 0)
        return (struct cpuid_regs){0x602ff, 0x2000, 0x2b00, 0};
    if (leaf == 0xd && subleaf >= 2 && subleaf < 10)
        return (struct cpuid_regs){size[subleaf], offset[subleaf], subleaf == 5 ? 2 : 0, ~0u};
    return (struct cpuid_regs){~0u, ~0u, ~0u, ~0u};
}

static struct cpuid_regs test_cpuid(u32 leaf, u32 subleaf)
{
    return use_hardware ? cpuid(leaf, subleaf) : everything(leaf, subleaf);
}

#define cpuid(leaf, subleaf) test_cpuid(leaf, subleaf)
#define xgetbv(index)        (v->xcr0)
static struct vcpu *v;
#include "core/cpuid.c"
#undef xgetbv
#undef cpuid

static struct domain guest = {.flags = DOMAIN_LAPIC};

static int setup(void **state)
{
    (void)state;
    use_hardware = false;
    max_basic = 0x20;
    max_extended = 0x80000026;
    cpuid_init();
    v = fake_vcpu(&dom0, 5);
    return 0;
}

static int setup_guest(void **state)
{
    setup(state);
    v->domain = &guest;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_free(v);
    return 0;
}

static struct cpuid_regs ask(u32 leaf, u32 subleaf, u64 cr4)
{
    for (u32 i = 0; i < 4; i++)
        v->gpr[i] = 0xaaaaaaaa00000000; /* upper halves become 0 */
    v->gpr[RAX] |= leaf;
    v->gpr[RCX] |= subleaf;
    v->rip = 0x1000;
    assert_int_equal(exit_cpuid(v, cr4), VCPU_RESUME);
    assert_int_equal(v->rip, v->next_rip);
    for (u32 i = 0; i < 4; i++)
        assert_int_equal(v->gpr[i] >> 32, 0);
    return (struct cpuid_regs){(u32)v->gpr[RAX], (u32)v->gpr[RBX], (u32)v->gpr[RCX],
                               (u32)v->gpr[RDX]};
}

/* Features by leaf, register (0 = EAX..) and bit: what dom0 must not see, whatever the processor
 * has. */
static const struct {
    u32 leaf, reg, bit;
    const char *name;
} hidden[] = {
    {1, 2, 2, "DTES64"},
    {1, 2, 3, "MONITOR"},
    {1, 2, 5, "VMX"},
    {1, 2, 6, "SMX"},
    {1, 2, 7, "EIST"},
    {1, 2, 15, "PDCM"},
    {1, 3, 7, "MCE"},
    {1, 3, 14, "MCA"},
    {1, 3, 21, "DS"},
    {1, 3, 22, "ACPI"},
    {1, 3, 29, "TM"},
    {7, 1, 2, "SGX"},
    {7, 1, 4, "HLE"},
    {7, 1, 11, "RTM"},
    {7, 1, 12, "RDT-M"},
    {7, 1, 14, "MPX"},
    {7, 1, 15, "RDT-A"},
    {7, 1, 25, "PT"},
    {7, 2, 5, "WAITPKG"},
    {7, 2, 7, "CET_SS"},
    {7, 2, 13, "TME"},
    {7, 2, 23, "KL"},
    {7, 2, 24, "BUS_LOCK"},
    {7, 2, 29, "ENQCMD"},
    {7, 2, 30, "SGX_LC"},
    {7, 2, 31, "PKS"},
    {7, 3, 5, "UINTR"},
    {7, 3, 9, "SRBDS_CTRL"},
    {7, 3, 16, "TSXLDTRK"},
    {7, 3, 18, "PCONFIG"},
    {7, 3, 19, "LBR"},
    {7, 3, 20, "CET_IBT"},
    {7, 3, 22, "AMX_BF16"},
    {7, 3, 24, "AMX_TILE"},
    {7, 3, 25, "AMX_INT8"},
    {7, 3, 26, "SPEC_CTRL"},
    {7, 3, 27, "STIBP"},
    {7, 3, 28, "L1D_FLUSH"},
    {7, 3, 29, "ARCH_CAP"},
    {7, 3, 30, "CORE_CAP"},
    {7, 3, 31, "SSBD"},
    {0x80000001, 2, 2, "SVM"},
    {0x80000001, 2, 3, "EXTAPIC"},
    {0x80000001, 2, 9, "OSVW"},
    {0x80000001, 2, 10, "IBS"},
    {0x80000001, 2, 12, "SKINIT"},
    {0x80000001, 2, 13, "WDT"},
    {0x80000001, 2, 15, "LWP"},
    {0x80000001, 2, 17, "TCE"},
    {0x80000001, 2, 19, "NODEID_MSR"},
    {0x80000001, 2, 23, "PERFCTR_CORE"},
    {0x80000001, 2, 24, "PERFCTR_NB"},
    {0x80000001, 2, 26, "BPEXT"},
    {0x80000001, 2, 28, "PERFCTR_LLC"},
    {0x80000001, 2, 29, "MWAITX"},
    {0x80000001, 3, 25, "FXSR_OPT"},
    {0x80000008, 1, 3, "INVLPGB"},
    {0x80000008, 1, 4, "RDPRU"},
    {0x80000008, 1, 12, "IBPB"},
    {0x80000008, 1, 14, "IBRS"},
    {0x80000008, 1, 15, "STIBP"},
    {0x80000008, 1, 24, "SSBD"},
    {0x80000008, 1, 25, "VIRT_SSBD"},
    {0x80000021, 0, 7, "UAI"},
    {0x80000021, 0, 8, "AUTOIBRS"},
    {0x80000021, 0, 27, "SBPB"},
    {0xd, 0, 17, "XTILECFG"},
};

static const struct {
    u32 leaf, reg, bit;
} offered[] = {
    {1, 2, 0},           {1, 2, 17},          {1, 2, 21},          {1, 2, 24},
    {1, 2, 26},          {1, 2, 28},          {1, 2, 31},          {1, 3, 9},
    {1, 3, 12},          {1, 3, 16},          {1, 3, 26},          {7, 1, 0},
    {7, 1, 1},           {7, 1, 7},           {7, 1, 10},          {7, 1, 20},
    {7, 2, 2},           {7, 2, 3},           {7, 2, 22},          {6, 0, 2},
    {0x80000001, 2, 22}, {0x80000001, 3, 20}, {0x80000001, 3, 26}, {0x80000001, 3, 27},
    {0x80000001, 3, 29}, {0x80000007, 3, 8},
};

static u32 bit_of(u32 leaf, u32 reg, u32 bit)
{
    struct cpuid_regs r = ask(leaf, 0, 0);

    return (u32[]){r.eax, r.ebx, r.ecx, r.edx}[reg] >> bit & 1;
}

static void test_dom0_features(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(hidden); i++)
        if (bit_of(hidden[i].leaf, hidden[i].reg, hidden[i].bit))
            fail_msg("dom0 sees %s", hidden[i].name);
    for (u32 i = 0; i < ARRAY_SIZE(offered); i++)
        if (!bit_of(offered[i].leaf, offered[i].reg, offered[i].bit))
            fail_msg("dom0 does not see leaf %x bit %u", offered[i].leaf, offered[i].bit);
}

static void assert_zero(u32 leaf, u32 subleaf)
{
    struct cpuid_regs r = ask(leaf, subleaf, 0), zero = {0};

    assert_memory_equal(&r, &zero, sizeof(r));
}

static void test_dom0_leaves(void **state)
{
    static const u32 none[] = {
        3,          5,          9,          0xa,        0xf,        0x10,       0x12,
        0x14,       0x19,       0x1b,       0x1c,       0x1d,       0x1e,       0x20,
        0x21,       0xffff,     0x8000000a, 0x8000001b, 0x8000001c, 0x8000001f, 0x80000020,
        0x80000022, 0x80000027, 0x40000002, 0x40000102, 0xc0000000};

    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(none); i++)
        assert_zero(none[i], 0);
    assert_int_equal(ask(1, 0, 0).ebx >> 24, 5);
    assert_int_equal(ask(0xb, 0, 0).edx, 5);
    assert_int_equal(ask(0x1f, 1, 0).edx, 5);
    assert_int_equal(ask(0x80000026, 0, 0).edx, 5);
    assert_int_equal(ask(0x8000001e, 0, 0).eax, 5);
    assert_int_equal(ask(7, 0, 0).eax, 1);
    assert_zero(7, 2);
    max_basic = 0xd;
    max_extended = 0x80000008;
    cpuid_init();
    assert_zero(0x1f, 0);
    assert_zero(0x8000001e, 0);
}

static void test_hypervisor_leaves(void **state)
{
    struct cpuid_regs r = ask(0x40000000, 0, 0);

    (void)state;
    assert_memory_equal(&r.ebx, "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(r.eax, 0x40000001);
    assert_int_equal(ask(0x40000001, 0, 0).eax, 0x0100000b);
    r = ask(SOCLE_CPUID_BASE, 0, 0);
    assert_memory_equal(&r.ebx, "SocleSocle\0\0", 12);
    assert_int_equal(ask(SOCLE_CPUID_INFO, 0, 0).ebx, 1);
}

static void test_mirrors(void **state)
{
    (void)state;
    assert_false(ask(1, 0, 0).ecx & BIT(27));
    assert_true(ask(1, 0, CR4_OSXSAVE).ecx & BIT(27));
    assert_false(ask(7, 0, 0).ecx & BIT(4));
    assert_true(ask(7, 0, CR4_PKE).ecx & BIT(4));
    vlapic_set_base(&v->lapic, APIC_DEFAULT_PA, true, &(struct vlapic_effect){0});
    assert_false(ask(1, 0, 0).edx & BIT(9));
}

static void test_xsave_leaf(void **state)
{
    (void)state;
    assert_int_equal(host_xcr0_mask, 0x2e7);
    assert_int_equal(ask(0xd, 0, 0).eax, 0x2e7);
    assert_int_equal(ask(0xd, 0, 0).ebx, 576);
    assert_int_equal(ask(0xd, 0, 0).ecx, 2696);
    assert_int_equal(ask(0xd, 1, 0).eax, 7);
    assert_int_equal(ask(0xd, 1, 0).ecx, 0); /* no supervisor state */
    assert_int_equal(ask(0xd, 2, 0).eax, 256);
    assert_zero(0xd, 3);
    assert_zero(0xd, 17);
    assert_zero(0xd, 64);
    v->xcr0 = 0x7;
    assert_int_equal(ask(0xd, 0, 0).ebx, 832);
    assert_int_equal(ask(0xd, 1, 0).ebx, 832);
    v->xcr0 = 0x207;
    assert_int_equal(ask(0xd, 0, 0).ebx, 2696);
    assert_int_equal(ask(0xd, 1, 0).ebx, 840);
    v->xcr0 = 0x2e7; /* 576 + 256 + 64 (aligned) + 512 + 1024 + 8 */
    assert_int_equal(ask(0xd, 1, 0).ebx, 2440);
}

static void test_xsave_size_as_hardware(void **state)
{
    u32 lo, hi;

    (void)state;
    if (!(cpuid(1, 0).ecx & BIT(27)))
        skip();
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    use_hardware = true;
    memset(component, 0, sizeof(component));
    cpuid_init();
    if (lo & ~host_xcr0_mask)
        skip();
    assert_int_equal(xsave_size(lo, false), cpuid(0xd, 0).ebx);
    /* With XSAVES the compacted size has supervisor components in it: none are on in XSS under most
     * kernels, and then the two are equal. */
    if ((cpuid(0xd, 1).eax & BIT(1)) && !cpuid(0xd, 1).ecx)
        assert_int_equal(xsave_size(lo, true), cpuid(0xd, 1).ebx);
    assert_true(host_mxcsr_mask & 0x8000);
}

static void test_xcr0(void **state)
{
    (void)state;
    for (u64 x = 0; x < 0x10000; x++) {
        u64 avx512 = x & 0xe0;
        bool legal = (x & 1) && !(x & ~0x2e7ull) && (!(x & 4) || (x & 2)) &&
                     (!avx512 || (avx512 == 0xe0 && (x & 4)));

        assert_int_equal(cpuid_xcr0_legal(v, x), legal);
    }
    assert_false(cpuid_xcr0_legal(v, 1 | BIT(62)));
    v->domain = &guest;
    v->guest_xcr0_mask = 3;
    assert_true(cpuid_xcr0_legal(v, 3));
    assert_false(cpuid_xcr0_legal(v, 7));
    v->guest_xcr0_mask = 0;
    assert_true(cpuid_xcr0_legal(v, 1));
}

static void add(struct socle_cpuid *t, u32 *n, u32 leaf, u32 subleaf, bool by, u32 a, u32 b, u32 c,
                u32 d)
{
    t[(*n)++] = (struct socle_cpuid){leaf, subleaf, by, a, b, c, d, 0xffffffff};
}

static u32 small_table(struct socle_cpuid *t, bool intel)
{
    u32 n = 0;

    add(t, &n, 0, 0, false, 0xd, intel ? 0x756e6547 : 0x68747541, 0, 0);
    add(t, &n, 1, 0, false, 0x600, 0x05000000, BIT(26) | BIT(17), BIT(9));
    add(t, &n, 7, 0, true, 0, BIT(0) | BIT(7), BIT(3), 0);
    add(t, &n, 0xb, 0, true, 1, 2, 0x100, 5);
    add(t, &n, 0xb, 1, true, 4, 4, 0x201, 5);
    add(t, &n, 0xd, 0, true, 0x7, 1, 832, 0);
    add(t, &n, 0xd, 1, true, 0x2, 1, 0, 0);
    add(t, &n, 0x40000000, 0, false, 0x40000001, 1, 2, 3);
    add(t, &n, 0x80000000, 0, false, 0x80000008, 1, 2, 3);
    add(t, &n, 0x80000001, 0, false, 0, 0, 0, BIT(20) | BIT(29));
    return n;
}

static void test_five_levels(void **state)
{
    struct socle_cpuid with = {.leaf = 7, .ecx = BIT(16)}, without = {.leaf = 7};

    (void)state;
    assert_int_equal(cpuid_set(v, &without, 1), 0);
    assert_false(cpuid_cr4_mask(v) & CR4_LA57);
    assert_int_equal(cpuid_set(v, &with, 1), 0);
    assert_true(cpuid_cr4_mask(v) & CR4_LA57);
    assert_true(is_canonical(BIT(56) - 1) && is_canonical(~BIT(56) + 1));
    assert_false(is_canonical(BIT(56)));
    use_hardware = true;
    cpuid_init();
    assert_int_equal(is_canonical(BIT(47)), !!(cpuid(7, 0).ecx & BIT(16)));
}

static void test_guest_table(void **state)
{
    struct socle_cpuid t[128];
    u32 n = small_table(t, false);

    (void)state;
    assert_int_equal(cpuid_set(v, t, n), 0);
    assert_int_equal(ask(1, 77, CR4_OSXSAVE).ecx, BIT(26) | BIT(17) | BIT(27));
    assert_int_equal(ask(1, 0, 0).ecx, BIT(26) | BIT(17));
    assert_int_equal(ask(0xb, 1, 0).ecx, 0x201);
    assert_int_equal(ask(0xb, 0x302, 0).ecx, 2);
    assert_int_equal(ask(0xb, 2, 0).edx, 5);
    assert_zero(2, 0);
    assert_zero(0xe, 0); /* above the highest: AMD answers 0 */
    assert_zero(0x80000009, 0);
    assert_zero(0x40000002, 0);
    assert_zero(7, 1);
    assert_int_equal(v->guest_xcr0_mask, 7);
    assert_int_equal(ask(0xd, 0, 0).ebx, 576);
    v->xcr0 = 7;
    assert_int_equal(ask(0xd, 0, 0).ebx, 832);
    assert_int_equal(ask(0xd, 1, 0).ebx, 832);
    assert_int_equal(cpuid_efer_mask(v), EFER_SCE | EFER_NXE | EFER_LME | EFER_LMA);
    assert_true(cpuid_cr4_mask(v) & CR4_SMEP);
    assert_true(cpuid_cr4_mask(v) & CR4_PKE);
    assert_true(cpuid_cr4_mask(v) & CR4_PCIDE);
    assert_false(cpuid_cr4_mask(v) & (CR4_SMAP | CR4_UMIP | CR4_LA57 | CR4_VMXE));
    assert_int_equal(cpuid_set(v, t, 129), -E_INVAL);
    assert_int_equal(cpuid_set(v, t, 0), 0);
    assert_zero(1, 0);
    assert_int_equal(v->guest_xcr0_mask, 0);
}

static void test_guest_intel(void **state)
{
    struct socle_cpuid t[128];

    (void)state;
    cpuid_set(v, t, small_table(t, true));
    assert_zero(2, 0);
    assert_int_equal(ask(0xe, 1, 0).eax, 2);  /* leaf 0xd, subleaf 1 */
    assert_int_equal(ask(0x1f, 0, 0).eax, 7); /* the table has no 0x1f: like any other */
    assert_int_equal(ask(0x80000009, 0, 0).eax, 7);
    assert_int_equal(ask(0xb, 2, 0).edx, 5);
}

static const struct socle_cpuid *model(const struct socle_cpuid *t, u32 n, u32 leaf, u32 subleaf)
{
    for (u32 i = 0; i < n; i++)
        if (t[i].leaf == leaf && (!t[i].by_subleaf || t[i].subleaf == subleaf))
            return &t[i];
    return NULL;
}

/* Random full tables: each lookup finds what a search from the front finds. */
static void test_guest_lookup(void **state)
{
    static const u32 class[] = {0, 0x40000000, 0x80000000, 0xc0000000};
    struct socle_cpuid t[128];

    (void)state;
    srandom(1);
    for (u32 round = 0; round < 50; round++) {
        u32 n = (u32)random() % 129;

        for (u32 i = 0; i < n; i++)
            t[i] = (struct socle_cpuid){class[random() % 4] + (u32)random() % 40,
                                        (u32)random() % 4,
                                        random() % 2,
                                        i,
                                        0,
                                        0,
                                        0,
                                        (u32)random()};
        assert_int_equal(cpuid_set(v, t, n), 0);
        for (u32 i = 0; i < 2000; i++) {
            u32 leaf = class[random() % 4] + (u32)random() % 48, subleaf = (u32)random() % 5;
            const struct socle_cpuid *want = model(t, n, leaf, subleaf),
                                     *got = find(v, leaf, subleaf);

            assert_int_equal(!want, !got);
            if (want)
                assert_int_equal(want->eax, got->eax);
        }
    }
}

int main(void)
{
#define TEST(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define GUEST(f) cmocka_unit_test_setup_teardown(f, setup_guest, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_dom0_features), TEST(test_dom0_leaves),  TEST(test_hypervisor_leaves),
        TEST(test_mirrors),       TEST(test_xsave_leaf),   TEST(test_xsave_size_as_hardware),
        TEST(test_xcr0),          GUEST(test_guest_table), GUEST(test_guest_intel),
        GUEST(test_guest_lookup), GUEST(test_five_levels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
