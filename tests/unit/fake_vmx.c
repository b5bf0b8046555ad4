/* SPDX-License-Identifier: BSD-2-Clause */
/* VMX's code with its instructions replaced. */
#include "tests/unit/fake_vmx.h"

#include "core/cpuid.h"
#include "core/gmem.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/paging.h"
#include "core/trap.h"
#include "drivers/tsc.h"

#include <stdio.h>
#include <string.h>

#define REVISION           0x5a5a5aull
#define TPR_SHADOW         BIT(21)
#define VIRTUAL_APIC       0x2012
#define UNWRITTEN          0xa5 /* each byte of a field that nobody has written */
#define HOST_CR0           0x80010033ull
#define HOST_CR3           0x200000ull
#define HOST_CR4           0x406b0ull
#define HOST_EFER          0xd01ull
#define HOST_IDT           0xffffffff80300000ull
#define CAPABLE(must, may) ((must) | (u64)(must | may) << 32)
#define FEATURE_CONTROL    0x3a
#define CONTROL_LOCKED     BIT(0)
#define CONTROL_VMX        BIT(2)

bool vendor_plain;
u32 fake_vmx_flushes;
char vmx_exited[1];

const struct fake_vmx fake_vmx_firmware = {
    .has_control = true,
    .control = CONTROL_LOCKED | CONTROL_VMX,
    .cpuid_ecx = BIT(5) | BIT(26),
    .cr4 = HOST_CR4,
};
struct fake_vmx fake_vmx;

/* As a server processor of 2017 and later, with nothing besides what Socle may use. */
struct vmcs_cpu fake_vmx_cpu = {
    .basic = REVISION | BIT(55),
    .misc = 5 | 4 << 16 | BIT(8) | BIT(7) | BIT(6),
    .ept_vpid = BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(25),
    .pin = CAPABLE(0x16u, 0xe9u),
    .proc = CAPABLE(0x04006172u, 0xfff99e8cu),
    .proc2 = CAPABLE(0u, 0x02037fffu),
    .exit = CAPABLE(0x36dfbu, 0x7cba04u),
    .entry = CAPABLE(0x11fbu, 0xe204u),
    .cr0_fixed0 = 0x80000021,
    .cr0_fixed1 = 0xffffffff,
    .cr4_fixed0 = 0x2000,
    .cr4_fixed1 = 0x7727ff | BIT(11),
    .efer = 0xd01,
    .debugctl = 0xdfc3,
    .perf_global = 0xf0000000f,
    .phys_bits = VMX_PHYS_BITS,
    .linear_bits = 48,
};

static const void *current; /* the VMCS */

/* ---- fields: a VMCS has room for 32 of each width and kind ---- */

static u64 *field_in(const void *vmcs, u32 encoding)
{
    u32 index = encoding >> 1 & 0x1ff, kind = encoding >> 10 & 3, width = encoding >> 13;

    ASSERT(vmcs && index < 32 && width < 4 && !(encoding & 1));
    return (u64 *)vmcs + (width * 4 + kind) * 32 + index;
}

u64 *fake_vmcs(const struct vcpu *v, u32 field)
{
    return field_in(vmx_of(v)->vmcs, field);
}

u64 vmread(u32 field)
{
    return *field_in(current, field);
}

/* What SIDT stores is lost: see below. */
void vmwrite(u32 field, u64 value)
{
    *field_in(current, field) = field == VMCS_HOST_IDTR_BASE ? HOST_IDT : value;
}

/* ---- instructions ---- */

static void clear(void *vmcs)
{
    if (*(u64 *)vmcs == REVISION) /* a new one */
        memset(vmcs, UNWRITTEN, PAGE_SIZE);
    if (current == vmcs)
        current = NULL;
}

struct idt_gate trap_idt[256];

/* The processor would fault. */
static void turn_on(void)
{
    ASSERT((fake_vmx.control & CONTROL_LOCKED) && (fake_vmx.control & CONTROL_VMX));
    ASSERT(fake_vmx.cr4 & CR4_VMXE);
    fake_vmx.vmxons++;
}

static bool fake_vmxon_failed(void)
{
    return fake_vmx.vmxon_fails;
}

/* Only those that tests come by. */
static void instruction(const char *text, const struct vcpu *v)
{
    if (strstr(text, "vmclear"))
        clear(vmx_of(v)->vmcs);
    else if (strstr(text, "vmptrld"))
        current = vmx_of(v)->vmcs;
    else if (strstr(text, "invept"))
        fake_vmx_flushes++;
    else if (strstr(text, "vmxon"))
        turn_on();
    else
        ASSERT(strstr(text, "int $2"));
}

void vmx_take_interrupts(void)
{
}

void vmx_idle(void)
{
}

static u64 fake_rdmsr(u32 index)
{
    const struct vmcs_cpu *c = &fake_vmx_cpu;

    switch (index) {
    case FEATURE_CONTROL:
        ASSERT(fake_vmx.has_control);
        return fake_vmx.control;
    case 0x480:
        return c->basic;
    case 0x485:
        return c->misc;
    case 0x482:
    case 0x48e:
        return c->proc;
    case 0x48b:
        return c->proc2;
    case 0x48c:
        return c->ept_vpid;
    case 0x48d:
        return c->pin;
    case 0x48f:
        return c->exit;
    case 0x490:
        return c->entry;
    case MSR_EFER:
        return HOST_EFER;
    case MSR_PAT:
        return PAT_RESET;
    default:
        return 0;
    }
}

static void fake_wrmsr(u32 index, u64 value)
{
    if (index != FEATURE_CONTROL)
        return;
    ASSERT(!(fake_vmx.control & CONTROL_LOCKED));
    fake_vmx.control = value;
}

bool rdmsr_safe(u32 msr, u64 *value)
{
    if (msr == FEATURE_CONTROL && fake_vmx.has_control)
        *value = fake_vmx.control;
    return msr == FEATURE_CONTROL && fake_vmx.has_control;
}

static struct cpuid_regs fake_cpuid(u32 leaf)
{
    return (struct cpuid_regs){.ecx = leaf == 1 ? fake_vmx.cpuid_ecx : 0};
}

/* Assembly that names no variable but through its operands: its text and, where there is one, the
 * function's vCPU are what instruction() gets. */
static const struct vcpu *const v = NULL;
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define __asm__
#define volatile(...) instruction(#__VA_ARGS__, v)
#define rdmsr            fake_rdmsr
#define wrmsr            fake_wrmsr
#define cpuid(leaf, sub) fake_cpuid(leaf)
#define read_cr0()       HOST_CR0
#define read_cr2()       0ull
#define read_cr3()       HOST_CR3
#define read_cr4()       fake_vmx.cr4
#define read_dr6()       0xffff0ff0ull
#define write_cr2(value) ((void)(value))
#define write_cr4(value) (fake_vmx.cr4 = (value))
#define write_dr6(value) ((void)(value))
#include "vmx/run.c"
/* vmxon()'s variable, which only its instruction writes: declared and read, it is a function. */
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#define failed fake_vmxon_failed()
#include "vmx/vmx.c"
#undef failed

/* ---- for tests ---- */

void fake_vmx_start(void)
{
    vendor = &vmx_ops;
    current = NULL;
    fake_vmx = fake_vmx_firmware;
    fake_vmx.cr4 |= CR4_VMXE;
    vmx_features = choose_features();
    npt_format_ept.log = vmx_features.proc2 & PROC2_LOG ? NPT_EPT_DIRTY : 0;
    init_permission_maps();
    host_phys_mask = BIT(VMX_PHYS_BITS) - 1;
}

static u64 read_field(const void *vmcs, u32 encoding)
{
    return *field_in(vmcs, encoding);
}

u32 fake_vmx_check(const struct vmcs_rule **broken, u32 max)
{
    struct vmcs m = {.cpu = &fake_vmx_cpu, .read = read_field, .fields = current};

    if (vmread(VMCS_PROC) & TPR_SHADOW)
        m.virtual_apic = phys_to_virt(vmread(VIRTUAL_APIC));
    return vmcs_check(&m, broken, max);
}

u32 fake_vmx_check_and_say(void)
{
    const struct vmcs_rule *broken[8];
    u32 n = fake_vmx_check(broken, ARRAY_SIZE(broken));

    for (u32 i = 0; i < MIN(n, ARRAY_SIZE(broken)); i++)
        fprintf(stderr, "the entry fails by %s, %s\n", broken[i]->section, broken[i]->text);
    return n;
}
