/* SPDX-License-Identifier: BSD-2-Clause */
/* The rules of VM entry: a good VMCS breaks none of them, and for each there is one that breaks it
 * alone. */
// SOURCES: tests/unit/vmcs_check.c
#include "tests/unit/vmcs_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FIELDS      0x7000
#define CONTROLS(m) ((m) | ~0ull << 32)   /* all may be 1 */
#define ODD         0x0000800000000000ull /* not canonical */
#define FAR         BIT(46)               /* not in physical memory */
#define VALID       BIT(31)
#define EVENT(t, v) (VALID | (t) << 8 | (v))

/* What must be 1 is as in processors of today. Of each kind of controls one bit is not allowed. */
static const struct vmcs_cpu good_cpu = {
    .misc = 4 << 16 | BIT(8) | BIT(7) | BIT(6),
    .ept_vpid = BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(25),
    .vmfunc = BIT(0),
    .pin = CONTROLS(0x16) & ~BIT(63),
    .proc = CONTROLS(0x04006172) & ~BIT(32) & ~BIT(59),
    .proc2 = CONTROLS(0) & ~BIT(63),
    .proc3 = BIT(4),
    .exit = CONTROLS(0x36dfb) & ~BIT(63),
    .entry = CONTROLS(0x11fb) & ~BIT(63),
    .cr0_fixed0 = 0x80000021,
    .cr0_fixed1 = 0xffffffff,
    .cr4_fixed0 = 0x2000,
    .cr4_fixed1 = 0xff77ff,
    .efer = 0xd01,
    .debugctl = 0x3,
    .perf_global = 0xf,
    .rtit = 0xf,
    .phys_bits = 46,
    .linear_bits = 48,
};

struct set {
    u32 field;
    u64 value;
};

static const struct set good_fields[] = {
    {0x0000, 1},      /* VPID */
    {0x0002, 0xf2},   /* notification vector */
    {0x2000, 0x1000}, /* I/O bitmaps */
    {0x2002, 0x2000},
    {0x2004, 0x3000},     /* MSR bitmap */
    {0x2012, 0x4000},     /* virtual APIC */
    {0x2014, 0x5000},     /* APIC accesses */
    {0x2016, 0x6040},     /* posted interrupts */
    {0x200e, 0x7000},     /* PML */
    {0x201a, 0x805e},     /* EPTP: write-back, four levels, accessed flags */
    {0x2032, 1ull << 48}, /* TSC multiplier */
    {0x2800, ~0ull},
    {0x2804, 0x0007040600070406},
    {0x2806, 0xd01},
    {0x2c00, 0x0007040600070406},
    {0x2c02, 0xd01},
    {0x4000, 0xff},       /* with virtual NMIs, preemption timer, posted interrupts */
    {0x4002, 0xb6a06172}, /* with secondary controls, bitmaps, TPR shadow */
    {0x400c, 0x3fefff},   /* 64-bit host, acknowledge, PAT, EFER */
    {0x4012, 0xd3ff},     /* IA-32e mode, PAT, EFER, debug controls */
    {0x401e, 0x20203ab},  /* as of today, all of the APIC, PML, TSC scaling */
    {0x0800, 0x10},       /* ES CS SS DS FS GS LDTR TR */
    {0x0802, 0x08},
    {0x0804, 0x10},
    {0x0806, 0x10},
    {0x080e, 0x40},
    {0x4800, 0xffffffff},
    {0x4802, 0xffffffff},
    {0x4804, 0xffffffff},
    {0x4806, 0xffffffff},
    {0x4808, 0xffffffff},
    {0x480a, 0xffffffff},
    {0x480e, 0x67},
    {0x4810, 0x7f},
    {0x4812, 0xfff},
    {0x4814, 0xc093},
    {0x4816, 0xa09b},
    {0x4818, 0xc093},
    {0x481a, 0xc093},
    {0x481c, 0xc093},
    {0x481e, 0xc093},
    {0x4820, BIT(16)},
    {0x4822, 0x8b},
    {0x6800, 0x80050033},
    {0x6802, 0x9000},
    {0x6804, 0x26f0},
    {0x6810, 0xffff888000000000}, /* GS base */
    {0x681a, 0x400},
    {0x681e, 0xffffffff81000000},
    {0x6820, 0x202},
    {0x0c02, 0x08}, /* host CS SS TR */
    {0x0c04, 0x10},
    {0x0c0c, 0x20},
    {0x6c00, 0x80010033},
    {0x6c02, 0xa000},
    {0x6c04, 0x426b0},
    {0x6c16, 0xffffffff80200000},
};

static u64 fields[FIELDS];
static u8 virtual_apic[4096];

static u64 read_field(const void *from, u32 encoding)
{
    assert_true(encoding < FIELDS);
    return ((const u64 *)from)[encoding];
}

static void set_good(void)
{
    memset(fields, 0, sizeof(fields));
    for (u32 i = 0; i < ARRAY_SIZE(good_fields); i++)
        fields[good_fields[i].field] = good_fields[i].value;
}

static u32 check(const struct vmcs_cpu *cpu, const struct vmcs_rule **broken, u32 max)
{
    struct vmcs m = {cpu, read_field, fields, virtual_apic};

    return vmcs_check(&m, broken, max);
}

static void expect_legal(const struct vmcs_cpu *cpu, const char *what)
{
    const struct vmcs_rule *broken[4];
    u32 n = check(cpu, broken, ARRAY_SIZE(broken));

    for (u32 i = 0; i < MIN(n, ARRAY_SIZE(broken)); i++)
        print_error("%s: %s: %s\n", what, broken[i]->section, broken[i]->text);
    assert_int_equal(n, 0);
}

/* ---- modes ---- */

#define REAL_MODE                                                                    \
    {0x4012, 0xd1ff}, {0x6800, 0x30}, {0x2806, 0}, {0x681e, 0xfff0}, {0x4816, 0x9b}, \
    {                                                                                \
        0x4802, 0xffff                                                               \
    }
#define UNRESTRICTED_OFF  \
    {                     \
        0x401e, 0x202032b \
    }
#define V8086                                                                                     \
    {0x4012, 0xd1ff}, {0x2806, 0}, {0x681e, 0x100}, {0x6820, 0x20202}, {0x4814, 0xf3},            \
        {0x4816, 0xf3}, {0x4818, 0xf3}, {0x481a, 0xf3}, {0x481c, 0xf3}, {0x481e, 0xf3},           \
        {0x4800, 0xffff}, {0x4802, 0xffff}, {0x4804, 0xffff}, {0x4806, 0xffff}, {0x4808, 0xffff}, \
        {0x480a, 0xffff}, {0x6806, 0x100}, {0x6808, 0x80}, {0x680a, 0x100}, {0x680c, 0x100},      \
    {                                                                                             \
        0x6810, 0                                                                                 \
    }

/* As odd as it may get. */
static const struct {
    const char *what;
    struct set set[26];
} legal[] = {
    {"long mode", {{0, 1}}},
    {"real mode", {REAL_MODE}},
    {"virtual-8086 mode", {V8086}},
    {"an error code", {{0x4016, EVENT(3, 14) | BIT(11)}, {0x4018, 0xffff}}},
    {"an exception in real mode", {REAL_MODE, {0x4016, EVENT(3, 13)}}},
    {"a software interrupt", {{0x4016, EVENT(4, 0x80)}, {0x401a, 2}}},
    {"an interrupt", {{0x4016, EVENT(0, 0xff)}, {0x4824, 8}}},
    {"an exception in a shadow", {{0x4016, EVENT(3, 1)}, {0x4824, 1}}},
    {"a halted processor wakes", {{0x4016, EVENT(3, 1)}, {0x4826, 1}}},
    {"a single step in a shadow", {{0x4824, 2}, {0x6820, 0x102}, {0x6822, BIT(14)}}},
    {"a branch step in a shadow", {{0x4824, 2}, {0x6820, 0x102}, {0x2802, 2}}},
    {"an instruction at the end of the lower half", {{0x681e, ODD}}},
    {"no data segments",
     {{0x4814, BIT(16)}, {0x4818, BIT(16)}, {0x481a, BIT(16)}, {0x481c, BIT(16)}}},
    {"an LDT", {{0x080c, 0x48}, {0x480c, 0xffff}, {0x4820, 0x82}}},
    {"code in a data segment", {REAL_MODE, {0x4816, 0x93}}},
    {"conforming code", {{0x4816, 0xa09f}, {0x4818, 0xc0f3}}},
    {"PAE paging", {REAL_MODE, {0x6800, 0x80000031}, {0x280a, 0x5001}, {0x280c, 0x1e6}}},
};

static void set_fields(const struct set *set, u32 n)
{
    set_good();
    for (u32 i = 0; i < n && (set[i].field || set[i].value); i++)
        fields[set[i].field] = set[i].value;
}

static void test_legal(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(legal); i++) {
        set_fields(legal[i].set, ARRAY_SIZE(legal[i].set));
        expect_legal(&good_cpu, legal[i].what);
    }
}

/* ---- each rule broken; in the rules' order ---- */

static const struct broken {
    const char *section, *text; /* how it begins */
    struct set set[26];
} broken[] = {
    {"27.2.1.1", "pin-based", {{0x4000, 0xfb}}},
    {"27.2.1.1", "primary", {{0x4002, 0xbea06172}}},
    {"27.2.1.1", "secondary", {{0x401e, 0x820203ab}}},
    {"27.2.1.1", "tertiary", {{0x4002, 0xb6a26172}, {0x2034, BIT(5)}}},
    {"27.2.1.1", "CR3-target", {{0x400a, 5}}},
    {"27.2.1.1", "I/O bitmaps", {{0x2002, 0x2800}}},
    {"27.2.1.1", "MSR bitmap", {{0x2004, FAR}}},
    {"27.2.1.1", "TPR shadow", {{0x2012, 0x4800}}},
    {"27.2.1.1", "TPR threshold: res", {{0x401e, 0x20201aa}, {0x4000, 0x7f}, {0x401c, 0x10}}},
    {"27.2.1.1", "TPR threshold: not", {{0x401e, 0x20201aa}, {0x4000, 0x7f}, {0x401c, 0x3}}},
    {"27.2.1.1", "virtual NMIs", {{0x4000, 0xf7}}},
    {"27.2.1.1", "NMI-window", {{0x4002, 0xb6e06172}, {0x4000, 0xdf}}},
    {"27.2.1.1", "APIC-access", {{0x2014, FAR | 0x1000}}},
    {"27.2.1.1", "x2APIC mode, APIC", {{0x4002, 0xb6806172}}},
    {"27.2.1.1", "x2APIC mode: not", {{0x401e, 0x20203bb}}},
    {"27.2.1.1", "interrupt delivery", {{0x4000, 0xfe}}},
    {"27.2.1.1", "posted interrupts: with int", {{0x401e, 0x20201ab}}},
    {"27.2.1.1", "posted interrupts: with ack", {{0x400c, 0x3f6fff}}},
    {"27.2.1.1", "posted interrupts: the not", {{0x0002, 0x1f2}}},
    {"27.2.1.1", "posted interrupts: the des", {{0x2016, 0x6020}}},
    {"27.2.1.1", "VPID", {{0x0000, BIT(16)}}}, /* of 16 bits */
    {"27.2.1.1", "EPTP: mem", {{0x201a, 0x8058}}},
    {"27.2.1.1", "EPTP: len", {{0x201a, 0x8056}}},
    {"27.2.1.1", "EPTP: acc", {{0x201a, 0x805e}}},
    {"27.2.1.1", "EPTP: res", {{0x201a, 0x815e}}},
    {"27.2.1.1", "page-modification log: with", {{0x401e, 0x2020329}}},
    {"27.2.1.1", "page-modification log: a page", {{0x200e, 0x7008}}},
    {"27.2.1.1", "unrestricted", {{0x401e, 0x20003a9}}},
    {"27.2.1.1", "mode-based", {{0x401e, 0x2400329}}},
    {"27.2.1.1", "sub-page permissions: with", {{0x401e, 0x2800329}}},
    {"27.2.1.1", "sub-page permissions: the", {{0x401e, 0x2a203ab}, {0x2030, 8}}},
    {"27.2.1.1", "VM functions", {{0x401e, 0x20223ab}, {0x2018, 2}}},
    {"27.2.1.1", "EPTP switching", {{0x401e, 0x20223ab}, {0x2018, 1}, {0x2024, 8}}},
    {"27.2.1.1", "VMCS shadowing", {{0x401e, 0x20243ab}, {0x2028, 8}}},
    {"27.2.1.1", "EPT-violation", {{0x401e, 0x20603ab}, {0x202a, 8}}},
    {"27.2.1.1", "PT of", {{0x401e, 0x30203ab}}},
    {"27.2.1.1", "TSC", {{0x2032, 0}}},

    {"27.2.1.2", "exit controls", {{0x400c, 0x3feffd}}},
    {"27.2.1.2", "saving", {{0x400c, 0x7fefff}, {0x4000, 0xbf}}},
    {"27.2.1.2", "MSR-store", {{0x400e, 1}, {0x2006, 8}}},
    {"27.2.1.2", "MSR-load", {{0x4010, 2}, {0x2008, FAR - 16}}},

    {"27.2.1.3", "entry controls", {{0x4012, 0xd3fe}}},
    {"27.2.1.3", "event: its type", {{0x4016, EVENT(7, 0)}}},
    {"27.2.1.3", "event: its vector", {{0x4016, EVENT(2, 3)}}},
    {"27.2.1.3", "event: an error code of", {REAL_MODE, {0x4016, EVENT(3, 13) | BIT(11)}}},
    {"27.2.1.3", "event: an error code with", {{0x4016, EVENT(3, 13)}}},
    {"27.2.1.3", "event: res", {{0x4016, EVENT(3, 6) | BIT(12)}}},
    {"27.2.1.3", "event: the error", {{0x4016, EVENT(3, 14) | BIT(11)}, {0x4018, BIT(16)}}},
    {"27.2.1.3", "event: a soft", {{0x4016, EVENT(4, 0x80)}}},
    {"27.2.1.3", "MSR-load", {{0x4014, 1}, {0x200a, 4}}},
    {"27.2.1.3", "no entry to SMM", {{0x4012, 0xd7ff}}},

    {"27.2.2", "host CR0", {{0x6c00, 0x80010013}}},
    {"27.2.2", "host CR4:", {{0x6c04, 0x406b0}}},
    {"27.2.2", "host CR4.CET", {{0x6c04, 0xc426b0}, {0x6c00, 0x80000033}}},
    {"27.2.2", "host CR3", {{0x6c02, BIT(63) | 0xa000}}},
    {"27.2.2", "host SYSENTER", {{0x6c10, ODD}}},
    {"27.2.2", "host PERF", {{0x400c, 0x3fefff | BIT(12)}, {0x2c04, 0x10}}},
    {"27.2.2", "host PAT", {{0x2c00, 0x0207040600070406}}},
    {"27.2.2", "host EFER: ", {{0x2c02, 0x1d01}}},
    {"27.2.2", "host EFER.LMA", {{0x2c02, 0x901}}},
    {"27.2.2", "host S_CET", {{0x400c, 0x103fefff}, {0x6c1a, 2}}},
    {"27.2.2", "host PKRS", {{0x400c, 0x203fefff}, {0x2c06, BIT(32)}}},

    {"27.2.3", "host selectors", {{0x0c06, 0x13}}},
    {"27.2.3", "host CS and TR", {{0x0c0c, 0}}},
    {"27.2.3", "host FS", {{0x6c0e, ODD}}},

    {"27.2.4", "host address", {{0x400c, 0x3fedff}, {0x2c02, 0x801}}},
    {"27.2.4", "host CR4.PAE", {{0x6c04, 0x42690}}},
    {"27.2.4", "host RIP", {{0x6c16, ODD}}},

    {"27.3.1.1", "CR0: ", {{0x6800, 0x80050013}}},
    {"27.3.1.1", "CR0.PG", {REAL_MODE, {0x6800, 0x80000030}}},
    {"27.3.1.1", "CR4: ", {{0x6804, 0x6f0}}},
    {"27.3.1.1", "CR4.CET", {{0x6804, 0x8026f0}, {0x6800, 0x80040033}}},
    {"27.3.1.1", "DEBUGCTL", {{0x2802, BIT(2)}}},
    {"27.3.1.1", "IA-32e", {{0x6804, 0x26d0}}},
    {"27.3.1.1", "CR4.PCIDE", {REAL_MODE, {0x6804, 0x226f0}}},
    {"27.3.1.1", "CR3", {{0x6802, FAR}}},
    {"27.3.1.1", "DR7", {{0x681a, BIT(32) | 0x400}}},
    {"27.3.1.1", "SYSENTER", {{0x6826, ODD}}},
    {"27.3.1.1", "PERF", {{0x4012, 0xf3ff}, {0x2808, 0x10}}},
    {"27.3.1.1", "PAT", {{0x2804, 0x0007040600070403}}},
    {"27.3.1.1", "EFER: ", {{0x2806, 0xd03}}},
    {"27.3.1.1", "EFER.LMA", {REAL_MODE, {0x2806, 0x400}}},
    {"27.3.1.1", "EFER.LME", {{0x2806, 0xc01}}},
    {"27.3.1.1", "BNDCFGS", {{0x4012, 0x1d3ff}, {0x2812, 4}}},
    {"27.3.1.1", "RTIT", {{0x4012, 0x4d3ff}, {0x2814, 0x10}}},
    {"27.3.1.1", "UINV", {{0x4012, 0x8d3ff}, {0x0814, 0x100}}},
    {"27.3.1.1", "S_CET", {{0x4012, 0x10d3ff}, {0x6828, 0xc00}}},
    {"27.3.1.1", "PKRS", {{0x4012, 0x40d3ff}, {0x2818, BIT(32)}}},

    {"27.3.1.2", "TR selector", {{0x080e, 0x44}}},
    {"27.3.1.2", "LDTR selector", {{0x080c, 0x4c}, {0x4820, 0x82}}},
    {"27.3.1.2", "SS selector", {UNRESTRICTED_OFF, {0x0802, 0x0b}}},
    {"27.3.1.2", "virtual-8086: bases", {V8086, {0x6806, 0x200}}},
    {"27.3.1.2", "TR, FS, GS", {{0x680e, ODD}}},
    {"27.3.1.2", "LDTR: can", {{0x6812, ODD}, {0x4820, 0x82}}},
    {"27.3.1.2", "CS: base", {{0x6808, BIT(32)}}},
    {"27.3.1.2", "SS, DS, ES", {{0x680c, BIT(32)}}},
    {"27.3.1.2", "virtual-8086: limits", {V8086, {0x4800, 0xfffff}}},
    {"27.3.1.2", "virtual-8086: access", {V8086, {0x4814, 0x93}}},
    {"27.3.1.2", "CS: accessed", {{0x4816, 0xa09a}}},
    {"27.3.1.2", "SS: accessed", {{0x4818, 0xc091}}},
    {"27.3.1.2", "DS, ES, FS, GS: acc", {{0x481a, 0xc099}}},
    {"27.3.1.2", "segments: S", {{0x4814, 0xc083}}},
    {"27.3.1.2", "CS: DPL", {{0x4816, 0xa0fb}}},
    {"27.3.1.2", "SS: DPL as", {UNRESTRICTED_OFF, {0x4818, 0xc0f3}, {0x4816, 0xa0fb}}},
    {"27.3.1.2", "SS: DPL 0", {REAL_MODE, {0x4818, 0xc0f3}, {0x4816, 0xfb}}},
    {"27.3.1.2", "DS, ES, FS, GS: DPL", {UNRESTRICTED_OFF, {0x0806, 0x13}}},
    {"27.3.1.2", "segments: pre", {{0x481c, 0xc013}}},
    {"27.3.1.2", "segments: res", {{0x481e, 0xc193}}},
    {"27.3.1.2", "CS: not both", {{0x4816, 0xe09b}}},
    {"27.3.1.2", "segments: gran", {{0x4814, 0x4093}}},
    {"27.3.1.2", "TR: a busy", {{0x4822, 0x83}}},
    {"27.3.1.2", "TR: S", {{0x4822, 0x9b}}},
    {"27.3.1.2", "TR: gran", {{0x4822, 0x808b}}},
    {"27.3.1.2", "TR: usable", {{0x4822, 0x1008b}}},
    {"27.3.1.2", "LDTR: type", {{0x4820, 0x83}}},
    {"27.3.1.2", "LDTR: gran", {{0x4820, 0x82}, {0x480c, 0x100000}}},

    {"27.3.1.3", "GDTR, IDTR: can", {{0x6816, ODD}}},
    {"27.3.1.3", "GDTR, IDTR: lim", {{0x4812, 0x10000}}},

    {"27.3.1.4", "RIP: 32", {{0x4816, 0xc09b}}},
    {"27.3.1.4", "RIP: its", {{0x681e, BIT(48)}}},
    {"27.3.1.4", "RFLAGS: ", {{0x6820, 0x200}}},
    {"27.3.1.4", "RFLAGS.VM", {V8086, {0x6800, 0x30}}},
    {"27.3.1.4", "RFLAGS.IF", {{0x6820, 2}, {0x4016, EVENT(0, 0x20)}}},

    {"27.3.1.5", "activity: one", {{0x4826, 4}}},
    {"27.3.1.5", "activity: halted", {{0x4826, 1}, {0x4818, 0xc0f3}, {0x4816, 0xa0fb}}},
    {"27.3.1.5", "activity: active", {{0x4826, 2}, {0x4824, 1}}},
    {"27.3.1.5", "activity: the event", {{0x4826, 1}, {0x4016, EVENT(3, 14) | BIT(11)}}},
    {"27.3.1.5", "interruptibility: res", {{0x4824, BIT(5)}}},
    {"27.3.1.5", "interruptibility: not both", {{0x4824, 3}}},
    {"27.3.1.5", "interruptibility: STI", {{0x4824, 1}, {0x6820, 2}}},
    {"27.3.1.5", "interruptibility: no int", {{0x4824, 1}, {0x4016, EVENT(0, 0x20)}}},
    {"27.3.1.5", "interruptibility: no NMI behind MOV", {{0x4824, 2}, {0x4016, EVENT(2, 2)}}},
    {"27.3.1.5", "interruptibility: no SMI", {{0x4824, 4}}},
    {"27.3.1.5", "interruptibility: no NMI behind STI", {{0x4824, 1}, {0x4016, EVENT(2, 2)}}},
    {"27.3.1.5", "interruptibility: no NMI while", {{0x4824, 8}, {0x4016, EVENT(2, 2)}}},
    {"27.3.1.5", "interruptibility: an enclave", {{0x4824, 0x10}}},
    {"27.3.1.5", "pending debug exceptions: res", {{0x6822, BIT(13)}}},
    {"27.3.1.5", "pending debug exceptions: BS", {{0x4824, 1}, {0x6820, 0x302}}},
    {"27.3.1.5", "VMCS link", {{0x2800, 0x1008}}},

    {"27.3.1.6", "PAE", {REAL_MODE, {0x6800, 0x80000031}, {0x280c, 0x1003}}},
};

/* Rules that a good processor keeps anyhow, or that come with another one. */
static void lesser_cpu(struct vmcs_cpu *cpu, const struct broken *b)
{
    *cpu = good_cpu;
    if (!strncmp(b->text, "EPTP: acc", 9))
        cpu->ept_vpid &= ~BIT(21);
    if (!strncmp(b->text, "unrestricted", 12)) /* no PML either */
        cpu->ept_vpid |= BIT(21);
}

/* Exactly that rule is reported. */
static bool break_one(u32 i)
{
    const struct broken *b = &broken[i];
    const struct vmcs_rule *found[4];
    struct vmcs_cpu cpu;
    u32 n;

    lesser_cpu(&cpu, b);
    set_fields(b->set, ARRAY_SIZE(b->set));
    n = check(&cpu, found, ARRAY_SIZE(found));
    if (n == 1 && found[0] == &vmcs_rules[i] && !strcmp(found[0]->section, b->section) &&
        !strncmp(found[0]->text, b->text, strlen(b->text)))
        return true;
    print_error("%s %s: %u rules reported\n", b->section, b->text, n);
    for (u32 j = 0; j < MIN(n, ARRAY_SIZE(found)); j++)
        print_error("    %s %s\n", found[j]->section, found[j]->text);
    return false;
}

static void test_each_rule(void **state)
{
    u32 good = 0;

    (void)state;
    assert_int_equal(ARRAY_SIZE(broken), vmcs_rule_count);
    for (u32 i = 0; i < ARRAY_SIZE(broken); i++)
        good += break_one(i);
    assert_int_equal(good, vmcs_rule_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legal),
        cmocka_unit_test(test_each_rule),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
