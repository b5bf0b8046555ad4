// SPDX-License-Identifier: BSD-2-Clause
/* What /dev/kvm answers to what it must refuse, or to what is at the border: a line "name: result"
 * for each question. Under Socle they must be those of Linux's own KVM (test_conformance.py
 * compares). Results are "ok", a number where it says something, or the error's name. Every VM here
 * is small, and runs no more than an instruction or two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef KVM_CAP_VM_DEVICE_CONTROL
#define KVM_CAP_VM_DEVICE_CONTROL 80
#endif

#define PAGE 4096ul

static void *volatile bad = (void *)8;

static int kvm;
static const char *group = "";

static void say(const char *name, const char *text)
{
    printf("%s %s: %s\n", group, name, text);
    fflush(stdout);
}

static void outcome(const char *name, long r, bool value)
{
    int error = errno;
    char number[32];

    snprintf(number, sizeof(number), "%ld", r);
    say(name, r < 0 ? strerrorname_np(error) : value ? number : "ok");
}

/* Does it work, and what does it answer? */
#define OK(name, call)    outcome(name, call, false)
#define VALUE(name, call) outcome(name, call, true)

static long own(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument);
}

static long with(int fd, unsigned long request, unsigned long argument)
{
    return ioctl(fd, request, argument);
}

/* One that does not come back is an error of its own: EINTR. */
static long run(int vcpu, unsigned long argument)
{
    long r;

    alarm(3);
    r = ioctl(vcpu, KVM_RUN, argument);
    alarm(0);
    return r;
}

/* Memory of which only the first `bytes` can be reached */
static void *edge(size_t bytes)
{
    char *pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    mprotect(pages + 3 * PAGE, PAGE, PROT_NONE);
    return pages + 3 * PAGE - bytes;
}

/* ---- machines ---------------------------------------------------------------------------------
 */

struct machine {
    int vm, vcpu;
    struct kvm_run *run;
    unsigned char *memory;
};

static int new_vm(void)
{
    int vm = with(kvm, KVM_CREATE_VM, 0);

    if (vm < 0) {
        perror("KVM_CREATE_VM");
        exit(2);
    }
    return vm;
}

static int region(int vm, unsigned slot, unsigned flags, uint64_t gpa, uint64_t bytes, void *at)
{
    struct kvm_userspace_memory_region r = {slot, flags, gpa, bytes, (uintptr_t)at};

    return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static struct machine new_machine(bool irqchip)
{
    struct machine m = {.vm = new_vm()};

    if (irqchip)
        own(m.vm, KVM_CREATE_IRQCHIP, NULL);
    m.memory = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    region(m.vm, 0, 0, 0, 16 * PAGE, m.memory);
    m.vcpu = with(m.vm, KVM_CREATE_VCPU, 0);
    m.run = mmap(NULL, with(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
                 m.vcpu, 0);
    return m;
}

/* In real mode at address 0x1000 */
static void put_code(struct machine *m, const void *code, size_t bytes)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = 0x1000, .rflags = 2, .rsp = 0x800};

    memcpy(m->memory + 0x1000, code, bytes);
    own(m->vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    own(m->vcpu, KVM_SET_SREGS, &sregs);
    own(m->vcpu, KVM_SET_REGS, &regs);
}

static void end(struct machine *m)
{
    munmap(m->run, with(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    close(m->vcpu);
    close(m->vm);
    munmap(m->memory, 16 * PAGE);
}

/* ---- /dev/kvm ---------------------------------------------------------------------------------
 */

static void capabilities(void)
{
    int vm = new_vm();
    char name[16];
    long i;

    group = "capability";
    for (i = 0; i < 236; i++) {
        snprintf(name, sizeof(name), "%ld", i);
        VALUE(name, with(kvm, KVM_CHECK_EXTENSION, i));
    }
    group = "capability of a VM";
    for (i = 0; i < 236; i++) {
        snprintf(name, sizeof(name), "%ld", i);
        if (with(kvm, KVM_CHECK_EXTENSION, i) != with(vm, KVM_CHECK_EXTENSION, i))
            VALUE(name, with(vm, KVM_CHECK_EXTENSION, i));
    }
    OK("4711", with(vm, KVM_CHECK_EXTENSION, 4711));
    VALUE("-1", with(vm, KVM_CHECK_EXTENSION, -1));
    close(vm);
}

static void system_cpuid(void)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 512 * sizeof(cpuid->entries[0]));
    static const unsigned sizes[] = {0, 1, 3, 256, 511, 1u << 20, ~0u};
    char name[64];
    unsigned i;

    group = "GET_SUPPORTED_CPUID";
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        cpuid->nent = sizes[i];
        snprintf(name, sizeof(name), "of %u entries", sizes[i]);
        OK(name, own(kvm, KVM_GET_SUPPORTED_CPUID, cpuid));
    }
    OK("at a bad address", own(kvm, KVM_GET_SUPPORTED_CPUID, bad));
    cpuid = edge(sizeof(*cpuid) + 2 * sizeof(cpuid->entries[0]));
    cpuid->nent = 256;
    OK("that does not fit", own(kvm, KVM_GET_SUPPORTED_CPUID, cpuid));
    group = "GET_EMULATED_CPUID";
    cpuid->nent = 0;
    OK("of no entry", own(kvm, KVM_GET_EMULATED_CPUID, cpuid));
    OK("at a bad address", own(kvm, KVM_GET_EMULATED_CPUID, bad));
}

static void system_msrs(void)
{
    struct {
        struct kvm_msr_list list;
        uint32_t indices[1024];
    } *list = calloc(1, sizeof(*list));
    struct {
        struct kvm_msrs msrs;
        struct kvm_msr_entry entries[300];
    } *msrs = calloc(1, sizeof(*msrs));

    group = "GET_MSR_INDEX_LIST";
    OK("of 0", own(kvm, KVM_GET_MSR_INDEX_LIST, list));
    say("says how many", list->list.nmsrs > 10 ? "yes" : "no");
    list->list.nmsrs--;
    OK("of one less", own(kvm, KVM_GET_MSR_INDEX_LIST, list));
    OK("of all", own(kvm, KVM_GET_MSR_INDEX_LIST, list));
    list->list.nmsrs = ~0u;
    OK("of very many", own(kvm, KVM_GET_MSR_INDEX_LIST, list));
    OK("at a bad address", own(kvm, KVM_GET_MSR_INDEX_LIST, bad));
    group = "GET_MSR_FEATURE_INDEX_LIST";
    list->list.nmsrs = 0;
    OK("of 0", own(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, list));
    OK("of all", own(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, list));
    OK("at a bad address", own(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, bad));
    group = "GET_MSRS of the system";
    VALUE("of none", own(kvm, KVM_GET_MSRS, msrs));
    msrs->msrs.nmsrs = 1;
    msrs->entries[0].index = 0x4711;
    VALUE("of an unknown one", own(kvm, KVM_GET_MSRS, msrs));
    msrs->entries[0].index = 0x8b;
    msrs->msrs.nmsrs = 2;
    msrs->entries[1].index = 0x4711;
    VALUE("of a known and an unknown one", own(kvm, KVM_GET_MSRS, msrs));
    msrs->msrs.nmsrs = 256;
    VALUE("of 256", own(kvm, KVM_GET_MSRS, msrs));
    msrs->msrs.nmsrs = ~0u;
    VALUE("of very many", own(kvm, KVM_GET_MSRS, msrs));
    VALUE("at a bad address", own(kvm, KVM_GET_MSRS, bad));
    msrs = edge(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry));
    msrs->msrs.nmsrs = 2;
    VALUE("that do not fit", own(kvm, KVM_GET_MSRS, msrs));
}

static void system_attributes(void)
{
    uint64_t value;
    struct kvm_device_attr attr = {.attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (uintptr_t)&value};

    group = "system attribute";
    OK("has", own(kvm, KVM_HAS_DEVICE_ATTR, &attr));
    OK("get", own(kvm, KVM_GET_DEVICE_ATTR, &attr));
    OK("set", own(kvm, KVM_SET_DEVICE_ATTR, &attr));
    attr.addr = 8;
    OK("has, at a bad address", own(kvm, KVM_HAS_DEVICE_ATTR, &attr));
    OK("get to a bad address", own(kvm, KVM_GET_DEVICE_ATTR, &attr));
    attr.attr = 99;
    OK("has an unknown one", own(kvm, KVM_HAS_DEVICE_ATTR, &attr));
    OK("get an unknown one", own(kvm, KVM_GET_DEVICE_ATTR, &attr));
    attr.attr = KVM_X86_XCOMP_GUEST_SUPP;
    attr.group = 1;
    OK("has one of an unknown group", own(kvm, KVM_HAS_DEVICE_ATTR, &attr));
    OK("has, argument at a bad address", own(kvm, KVM_HAS_DEVICE_ATTR, bad));
}

static void system_rest(void)
{
    group = "/dev/kvm";
    VALUE("GET_API_VERSION", with(kvm, KVM_GET_API_VERSION, 0));
    OK("GET_API_VERSION with an argument", with(kvm, KVM_GET_API_VERSION, 1));
    OK("CREATE_VM of type 1", with(kvm, KVM_CREATE_VM, 1));
    OK("CREATE_VM of type -1", with(kvm, KVM_CREATE_VM, -1));
    OK("GET_VCPU_MMAP_SIZE with an argument", with(kvm, KVM_GET_VCPU_MMAP_SIZE, 1));
    OK("X86_GET_MCE_CAP_SUPPORTED at a bad address", own(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, bad));
    OK("an unknown ioctl", with(kvm, _IO(KVMIO, 0xff), 0));
    OK("a VM's ioctl", with(kvm, KVM_CREATE_VCPU, 0));
    OK("a vCPU's ioctl", with(kvm, KVM_RUN, 0));
    OK("GET_TSC_KHZ", with(kvm, KVM_GET_TSC_KHZ, 0));
    OK("another device's ioctl", with(kvm, 0x5401, 0));
}

/* ---- VMs: memory ------------------------------------------------------------------------------
 */

static void memory(void)
{
    char *at = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int vm = new_vm();
    unsigned slots = with(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);

    group = "SET_USER_MEMORY_REGION";
    OK("at a bad address", own(vm, KVM_SET_USER_MEMORY_REGION, bad));
    OK("of a slot beyond the last", region(vm, 0xffff, 0, 0, PAGE, at));
    OK("the first beyond the last", region(vm, slots, 0, 0, PAGE, at));
    OK("the last", region(vm, slots - 1, 0, 0x10000000, PAGE, at));
    OK("of address space 1", region(vm, 2 << 16, 0, 0, PAGE, at));
    OK("of an unaligned size", region(vm, 0, 0, 0, PAGE + 1, at));
    OK("at an unaligned guest address", region(vm, 0, 0, 0x10, PAGE, at));
    OK("at an unaligned user address", region(vm, 0, 0, 0, PAGE, at + 16));
    OK("with an unknown flag", region(vm, 0, 4, 0, PAGE, at));
    OK("with all flags", region(vm, 0, ~0u, 0, PAGE, at));
    OK("around the end of addresses", region(vm, 0, 0, 0xfffffffffffff000, 2 * PAGE, at));
    OK("up to the end of addresses", region(vm, 0, 0, 0xfffffffffffff000, PAGE, at));
    OK("of too much memory", region(vm, 0, 0, 0, 1ull << 43, at));
    OK("at a kernel's address", region(vm, 0, 0, 0, PAGE, (void *)0xffff800000000000));
    OK("around the end of user addresses", region(vm, 0, 0, 0, 1ul << 47, (void *)0x7ffffffff000));
    OK("where nothing is mapped", region(vm, 0, 0, 0, PAGE, (void *)0x10000));
    OK("taken away", region(vm, 0, 0, 0, 0, at));
    OK("taken away again", region(vm, 0, 0, 0, 0, at));
    OK("made", region(vm, 0, 0, 0, 4 * PAGE, at));
    OK("made again", region(vm, 0, 0, 0, 4 * PAGE, at));
    OK("of another size", region(vm, 0, 0, 0, 8 * PAGE, at));
    OK("at another user address", region(vm, 0, 0, 0, 4 * PAGE, at + PAGE));
    OK("made read-only", region(vm, 0, KVM_MEM_READONLY, 0, 4 * PAGE, at));
    OK("with logging on", region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 4 * PAGE, at));
    OK("that overlaps", region(vm, 1, 0, 3 * PAGE, 4 * PAGE, at));
    OK("that is inside", region(vm, 1, 0, PAGE, PAGE, at));
    OK("that touches", region(vm, 1, 0, 4 * PAGE, 4 * PAGE, at));
    OK("moved onto another", region(vm, 1, 0, 2 * PAGE, 4 * PAGE, at));
    OK("moved within itself", region(vm, 1, 0, 6 * PAGE, 4 * PAGE, at));
    OK("with logging off", region(vm, 0, 0, 0, 4 * PAGE, at));
    OK("read-only and logged", region(vm, 2, 3, 64 * PAGE, PAGE, at));
    OK("with logging of a read-only one off", region(vm, 2, 2, 64 * PAGE, PAGE, at));
    close(vm);
    munmap(at, 64 * PAGE);
}

static long dirty_log(int vm, unsigned slot, void *bitmap)
{
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};

    return ioctl(vm, KVM_GET_DIRTY_LOG, &log);
}

static long clear_log(int vm, unsigned slot, uint64_t first, unsigned pages, void *bitmap)
{
    struct kvm_clear_dirty_log log = {
        .slot = slot, .first_page = first, .num_pages = pages, .dirty_bitmap = bitmap};

    return ioctl(vm, KVM_CLEAR_DIRTY_LOG, &log);
}

static void dirty(void)
{
    char *at = mmap(NULL, 256 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = {1}};
    uint64_t bitmap[64] = {0};
    int vm = new_vm();

    group = "GET_DIRTY_LOG";
    region(vm, 0, 0, 0, 128 * PAGE, at);
    region(vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 128 * PAGE, 128 * PAGE, at);
    OK("at a bad address", own(vm, KVM_GET_DIRTY_LOG, bad));
    OK("of a slot beyond the last", dirty_log(vm, 0xffff, bitmap));
    OK("of an absent slot", dirty_log(vm, 7, bitmap));
    OK("of address space 1", dirty_log(vm, 3 << 16, bitmap));
    OK("of a slot without logging", dirty_log(vm, 0, bitmap));
    OK("of a slot with logging", dirty_log(vm, 1, bitmap));
    OK("to a bad address", dirty_log(vm, 1, bad));
    group = "CLEAR_DIRTY_LOG";
    OK("without the capability", clear_log(vm, 1, 0, 128, bitmap));
    OK("enabled with an unknown flag", (cap.args[0] = 8, own(vm, KVM_ENABLE_CAP, &cap)));
    OK("enabled with the second alone", (cap.args[0] = 2, own(vm, KVM_ENABLE_CAP, &cap)));
    OK("enabled with flags", (cap.args[0] = 1, cap.flags = 1, own(vm, KVM_ENABLE_CAP, &cap)));
    OK("enabled", (cap.flags = 0, own(vm, KVM_ENABLE_CAP, &cap)));
    OK("at a bad address", own(vm, KVM_CLEAR_DIRTY_LOG, bad));
    OK("of an absent slot", clear_log(vm, 7, 0, 128, bitmap));
    OK("of a slot beyond the last", clear_log(vm, 0xffff, 0, 128, bitmap));
    OK("of a slot without logging", clear_log(vm, 0, 0, 128, bitmap));
    OK("of all", clear_log(vm, 1, 0, 128, bitmap));
    OK("of the second half", clear_log(vm, 1, 64, 64, bitmap));
    OK("of nothing", clear_log(vm, 1, 0, 0, bitmap));
    OK("from an odd page", clear_log(vm, 1, 1, 64, bitmap));
    OK("of odd pages", clear_log(vm, 1, 0, 65, bitmap));
    OK("beyond the end", clear_log(vm, 1, 128, 64, bitmap));
    OK("over the end", clear_log(vm, 1, 64, 128, bitmap));
    OK("over the end of numbers", clear_log(vm, 1, ~63ull, 64, bitmap));
    OK("from a bad address", clear_log(vm, 1, 0, 128, bad));
    close(vm);
    munmap(at, 256 * PAGE);
}

/* ---- VMs: interrupts --------------------------------------------------------------------------
 */

static long irqchip(int vm, unsigned long request, unsigned id)
{
    struct kvm_irqchip chip;

    memset(&chip, 0, sizeof(chip));
    chip.chip_id = id;
    return ioctl(vm, request, &chip);
}

static long irq_line(int vm, unsigned irq, unsigned level)
{
    struct kvm_irq_level line = {.irq = irq, .level = level};

    return ioctl(vm, KVM_IRQ_LINE, &line);
}

static long pit2(int vm, unsigned flags)
{
    struct kvm_pit_config config = {.flags = flags};

    return ioctl(vm, KVM_CREATE_PIT2, &config);
}

static void chips(void)
{
    struct kvm_pit_state2 state = {0};
    struct kvm_reinject_control control = {.pit_reinject = 1};
    int vm = new_vm();

    group = "irqchip";
    OK("get before there is one", irqchip(vm, KVM_GET_IRQCHIP, 0));
    OK("set before there is one", irqchip(vm, KVM_SET_IRQCHIP, 0));
    OK("line before there is one", irq_line(vm, 1, 1));
    OK("PIT's state before there is one", own(vm, KVM_GET_PIT2, &state));
    OK("reinjection before there is a PIT", own(vm, KVM_REINJECT_CONTROL, &control));
    OK("MSI before there is one",
       own(vm, KVM_SIGNAL_MSI, &(struct kvm_msi){.address_lo = 0xfee00000}));
    OK("created", own(vm, KVM_CREATE_IRQCHIP, NULL));
    OK("created again", own(vm, KVM_CREATE_IRQCHIP, NULL));
    OK("get chip 2", irqchip(vm, KVM_GET_IRQCHIP, 2));
    OK("get chip 3", irqchip(vm, KVM_GET_IRQCHIP, 3));
    OK("get chip -1", irqchip(vm, KVM_GET_IRQCHIP, -1));
    OK("set chip 3", irqchip(vm, KVM_SET_IRQCHIP, 3));
    OK("set chip 0", irqchip(vm, KVM_SET_IRQCHIP, 0));
    OK("set chip 2", irqchip(vm, KVM_SET_IRQCHIP, 2));
    OK("get at a bad address", own(vm, KVM_GET_IRQCHIP, bad));
    OK("set at a bad address", own(vm, KVM_SET_IRQCHIP, bad));
    OK("line 1", irq_line(vm, 1, 1));
    OK("line 1 off", irq_line(vm, 1, 0));
    OK("line 1 at level 7", irq_line(vm, 1, 7));
    OK("line 24", irq_line(vm, 24, 1));
    OK("line 4711", irq_line(vm, 4711, 1));
    OK("line -1", irq_line(vm, -1, 1));
    OK("line at a bad address", own(vm, KVM_IRQ_LINE, bad));
    OK("line's status at a bad address", own(vm, KVM_IRQ_LINE_STATUS, bad));
    group = "PIT";
    OK("reinjection before there is one", own(vm, KVM_REINJECT_CONTROL, &control));
    OK("get before there is one", own(vm, KVM_GET_PIT2, &state));
    OK("made", pit2(vm, KVM_PIT_SPEAKER_DUMMY));
    OK("made again", pit2(vm, 0));
    OK("at a bad address", own(vm, KVM_CREATE_PIT2, bad));
    OK("of the old kind", with(vm, KVM_CREATE_PIT, 0));
    OK("get", own(vm, KVM_GET_PIT2, &state));
    OK("set", own(vm, KVM_SET_PIT2, &state));
    OK("get to a bad address", own(vm, KVM_GET_PIT2, bad));
    OK("set from a bad address", own(vm, KVM_SET_PIT2, bad));
    OK("get the old way", own(vm, KVM_GET_PIT, &state));
    OK("set the old way", own(vm, KVM_SET_PIT, &state));
    OK("reinjection", own(vm, KVM_REINJECT_CONTROL, &control));
    OK("reinjection at a bad address", own(vm, KVM_REINJECT_CONTROL, bad));
    close(vm);
    vm = new_vm();
    own(vm, KVM_CREATE_IRQCHIP, NULL);
    OK("with unknown flags", pit2(vm, ~0u));
    close(vm);
    vm = new_vm();
    OK("without an irqchip", pit2(vm, 0));
    close(vm);
    group = "irqchip";
    vm = new_vm();
    with(vm, KVM_CREATE_VCPU, 0);
    OK("after a vCPU", own(vm, KVM_CREATE_IRQCHIP, NULL));
    close(vm);
}

static long route(int vm, unsigned nr, unsigned flags, unsigned gsi, unsigned type,
                  unsigned entry_flags, unsigned chip, unsigned pin)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry[2];
    } r = {.head = {.nr = nr, .flags = flags}};
    int i;

    for (i = 0; i < 2; i++) {
        r.entry[i].gsi = gsi;
        r.entry[i].type = type;
        r.entry[i].flags = entry_flags;
        r.entry[i].u.irqchip.irqchip = chip;
        r.entry[i].u.irqchip.pin = pin;
    }
    return ioctl(vm, KVM_SET_GSI_ROUTING, &r);
}

static void routing(void)
{
    int vm = new_vm();

    group = "SET_GSI_ROUTING";
    OK("before there is an irqchip", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_MSI, 0, 0, 0));
    own(vm, KVM_CREATE_IRQCHIP, NULL);
    OK("at a bad address", own(vm, KVM_SET_GSI_ROUTING, bad));
    OK("of none", route(vm, 0, 0, 0, 0, 0, 0, 0));
    OK("with flags", route(vm, 1, 1, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("of too many", route(vm, 5000, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("of very many", route(vm, ~0u, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("of a GSI beyond the last", route(vm, 1, 0, 4711, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("of GSI -1", route(vm, 1, 0, -1, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("of type 0", route(vm, 1, 0, 5, 0, 0, 2, 5));
    OK("of an unknown type", route(vm, 1, 0, 5, 99, 0, 2, 5));
    OK("to the IOAPIC", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("to the IOAPIC with an entry's flag", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 1, 2, 5));
    OK("to the IOAPIC's pin 24", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 24));
    OK("to the PIC's pin 8", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 0, 8));
    OK("to the second PIC", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 1, 2));
    OK("to chip 3", route(vm, 1, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 3, 5));
    OK("to the same chip twice", route(vm, 2, 0, 5, KVM_IRQ_ROUTING_IRQCHIP, 0, 2, 5));
    OK("to an MSI", route(vm, 1, 0, 40, KVM_IRQ_ROUTING_MSI, 0, 0, 0));
    OK("to an MSI with a device id", route(vm, 1, 0, 40, KVM_IRQ_ROUTING_MSI, 1, 0, 0));
    OK("to an MSI with an unknown flag", route(vm, 1, 0, 40, KVM_IRQ_ROUTING_MSI, 2, 0, 0));
    OK("to two MSIs", route(vm, 2, 0, 40, KVM_IRQ_ROUTING_MSI, 0, 0, 0));
    group = "SIGNAL_MSI";
    OK("at a bad address", own(vm, KVM_SIGNAL_MSI, bad));
    OK("with an unknown flag",
       own(vm, KVM_SIGNAL_MSI, &(struct kvm_msi){.address_lo = 0xfee00000, .flags = 2}));
    OK("with a device id",
       own(vm, KVM_SIGNAL_MSI, &(struct kvm_msi){.address_lo = 0xfee00000, .flags = 1}));
    VALUE("to nobody",
          own(vm, KVM_SIGNAL_MSI, &(struct kvm_msi){.address_lo = 0xfee55000, .data = 0x41}));
    VALUE("to a high address",
          own(vm, KVM_SIGNAL_MSI,
              &(struct kvm_msi){.address_lo = 0xfee55000, .address_hi = 1, .data = 0x41}));
    VALUE("to a foreign address",
          own(vm, KVM_SIGNAL_MSI, &(struct kvm_msi){.address_lo = 0x1000, .data = 0x41}));
    close(vm);
}

static long irqfd(int vm, int fd, unsigned gsi, unsigned flags, int resample)
{
    struct kvm_irqfd args = {.fd = fd, .gsi = gsi, .flags = flags, .resamplefd = resample};

    return ioctl(vm, KVM_IRQFD, &args);
}

static void irqfds(void)
{
    int vm = new_vm(), event = eventfd(0, 0), other = eventfd(0, 0),
        null = open("/dev/null", O_RDWR);

    group = "IRQFD";
    OK("before there is an irqchip", irqfd(vm, event, 5, 0, -1));
    own(vm, KVM_CREATE_IRQCHIP, NULL);
    OK("at a bad address", own(vm, KVM_IRQFD, bad));
    OK("of no file", irqfd(vm, -1, 5, 0, -1));
    OK("of a file that is none", irqfd(vm, null, 5, 0, -1));
    OK("of the VM", irqfd(vm, vm, 5, 0, -1));
    OK("with an unknown flag", irqfd(vm, event, 5, 4, -1));
    OK("with all flags", irqfd(vm, event, 5, ~0u, -1));
    OK("of a GSI beyond the last", irqfd(vm, eventfd(0, 0), 4711, 0, -1));
    OK("of GSI -1", irqfd(vm, eventfd(0, 0), -1, 0, -1));
    OK("taken away before", irqfd(vm, event, 5, KVM_IRQFD_FLAG_DEASSIGN, -1));
    OK("taken away of no file", irqfd(vm, -1, 5, KVM_IRQFD_FLAG_DEASSIGN, -1));
    OK("taken away of a file that is none", irqfd(vm, null, 5, KVM_IRQFD_FLAG_DEASSIGN, -1));
    OK("made", irqfd(vm, event, 5, 0, -1));
    OK("made again", irqfd(vm, event, 5, 0, -1));
    OK("made for another GSI", irqfd(vm, event, 6, 0, -1));
    OK("a second one of the GSI", irqfd(vm, other, 5, 0, -1));
    OK("taken away from another GSI", irqfd(vm, event, 7, KVM_IRQFD_FLAG_DEASSIGN, -1));
    OK("taken away", irqfd(vm, event, 5, KVM_IRQFD_FLAG_DEASSIGN, -1));
    OK("with resampling by no file", irqfd(vm, event, 9, KVM_IRQFD_FLAG_RESAMPLE, -1));
    OK("with resampling by a file that is none",
       irqfd(vm, event, 9, KVM_IRQFD_FLAG_RESAMPLE, null));
    OK("taken away with resampling",
       irqfd(vm, event, 9, KVM_IRQFD_FLAG_RESAMPLE | KVM_IRQFD_FLAG_DEASSIGN, other));
    close(vm);
    close(event);
    close(other);
    close(null);
}

static long ioeventfd(int vm, int fd, uint64_t address, unsigned len, unsigned flags,
                      uint64_t match)
{
    struct kvm_ioeventfd args = {
        .datamatch = match, .addr = address, .len = len, .fd = fd, .flags = flags};

    return ioctl(vm, KVM_IOEVENTFD, &args);
}

static void ioeventfds(void)
{
    int vm = new_vm(), event = eventfd(0, 0), other = eventfd(0, 0),
        null = open("/dev/null", O_RDWR);
    const unsigned match = KVM_IOEVENTFD_FLAG_DATAMATCH, pio = KVM_IOEVENTFD_FLAG_PIO;
    const unsigned away = KVM_IOEVENTFD_FLAG_DEASSIGN;

    group = "IOEVENTFD";
    OK("at a bad address", own(vm, KVM_IOEVENTFD, bad));
    OK("of no file", ioeventfd(vm, -1, 0x1000, 4, 0, 0));
    OK("of a file that is none", ioeventfd(vm, null, 0x1000, 4, 0, 0));
    OK("with an unknown flag", ioeventfd(vm, event, 0x8000, 4, 32, 0));
    OK("with KVM's own flag", ioeventfd(vm, event, 0x8000, 4, 16, 0));
    OK("for virtio-ccw", ioeventfd(vm, event, 0x8000, 8, 8, 0));
    OK("of length 3", ioeventfd(vm, event, 0x1000, 3, 0, 0));
    OK("of length 16", ioeventfd(vm, event, 0x1000, 16, 0, 0));
    OK("of any length with a match", ioeventfd(vm, event, 0x1000, 0, match, 0));
    OK("around the end of addresses", ioeventfd(vm, event, ~0ull, 4, 0, 0));
    OK("made", ioeventfd(vm, event, 0x1000, 4, 0, 0));
    OK("made again", ioeventfd(vm, event, 0x1000, 4, 0, 0));
    OK("made by another", ioeventfd(vm, other, 0x1000, 4, 0, 0));
    OK("with a match where there is one of all", ioeventfd(vm, other, 0x1000, 4, match, 5));
    OK("of another length", ioeventfd(vm, other, 0x1000, 2, 0, 0));
    OK("of any length", ioeventfd(vm, other, 0x1000, 0, 0, 0));
    OK("of a port", ioeventfd(vm, event, 0x1000, 2, pio, 0));
    OK("of a port of 8 bytes", ioeventfd(vm, event, 0x1000, 8, pio, 0));
    OK("of a port of any length", ioeventfd(vm, event, 0x1008, 0, pio, 0));
    OK("of a port beyond the last", ioeventfd(vm, event, 0x10000, 2, pio, 0));
    OK("with a match", ioeventfd(vm, event, 0x2000, 4, match, 5));
    OK("with the same match", ioeventfd(vm, other, 0x2000, 4, match, 5));
    OK("with another match", ioeventfd(vm, other, 0x2000, 4, match, 6));
    OK("with a match of too many bytes", ioeventfd(vm, event, 0x3000, 1, match, 0x100));
    OK("taken away by another", ioeventfd(vm, other, 0x1000, 4, away, 0));
    OK("taken away with another match", ioeventfd(vm, event, 0x2000, 4, match | away, 6));
    OK("taken away without the match", ioeventfd(vm, event, 0x2000, 4, away, 5));
    OK("taken away of another length", ioeventfd(vm, event, 0x1000, 8, away, 0));
    OK("taken away", ioeventfd(vm, event, 0x1000, 4, away, 0));
    OK("taken away again", ioeventfd(vm, event, 0x1000, 4, away, 0));
    OK("taken away of no file", ioeventfd(vm, -1, 0x2000, 4, match | away, 5));
    close(vm);
    close(event);
    close(other);
    close(null);
}

static long zone(int vm, unsigned long request, uint64_t address, unsigned size, unsigned pio)
{
    struct kvm_coalesced_mmio_zone z = {.addr = address, .size = size};

    z.pio = pio;
    return ioctl(vm, request, &z);
}

static void zones(void)
{
    int vm = new_vm(), i;
    long r = 0;

    group = "COALESCED_MMIO";
    OK("at a bad address", own(vm, KVM_REGISTER_COALESCED_MMIO, bad));
    OK("made", zone(vm, KVM_REGISTER_COALESCED_MMIO, 0xa0000, 0x20000, 0));
    OK("made again", zone(vm, KVM_REGISTER_COALESCED_MMIO, 0xa0000, 0x20000, 0));
    OK("of ports", zone(vm, KVM_REGISTER_COALESCED_MMIO, 0x70, 1, 1));
    OK("of an unknown kind", zone(vm, KVM_REGISTER_COALESCED_MMIO, 0x70, 1, 2));
    OK("of no size", zone(vm, KVM_REGISTER_COALESCED_MMIO, 0xb0000, 0, 0));
    OK("around the end of addresses", zone(vm, KVM_REGISTER_COALESCED_MMIO, ~0ull, 0x1000, 0));
    OK("taken away", zone(vm, KVM_UNREGISTER_COALESCED_MMIO, 0xa0000, 0x20000, 0));
    OK("taken away again", zone(vm, KVM_UNREGISTER_COALESCED_MMIO, 0xa0000, 0x20000, 0));
    OK("that never was taken away", zone(vm, KVM_UNREGISTER_COALESCED_MMIO, 0x12340000, 0x1000, 0));
    OK("of an unknown kind taken away", zone(vm, KVM_UNREGISTER_COALESCED_MMIO, 0x70, 1, 2));
    OK("taken away at a bad address", own(vm, KVM_UNREGISTER_COALESCED_MMIO, bad));
    for (i = 0; i < 100 && r >= 0; i++)
        r = zone(vm, KVM_REGISTER_COALESCED_MMIO, 0x100000 + i * PAGE, PAGE, 0);
    OK("a hundred of them", r);
    close(vm);
}

/* ---- VMs: the rest ----------------------------------------------------------------------------
 */

static long enable(int fd, unsigned cap, uint64_t arg, unsigned flags)
{
    struct kvm_enable_cap enable = {.cap = cap, .flags = flags, .args = {arg}};

    return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

static void enabling(void)
{
    int vm = new_vm();

    group = "ENABLE_CAP";
    OK("at a bad address", own(vm, KVM_ENABLE_CAP, bad));
    OK("of an unknown one", enable(vm, 4711, 1, 0));
    OK("of one that cannot be", enable(vm, KVM_CAP_IRQCHIP, 1, 0));
    OK("with flags", enable(vm, KVM_CAP_MSR_PLATFORM_INFO, 1, 1));
    OK("MSR_PLATFORM_INFO", enable(vm, KVM_CAP_MSR_PLATFORM_INFO, 0, 0));
    OK("EXCEPTION_PAYLOAD", enable(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1, 0));
    OK("X86_TRIPLE_FAULT_EVENT", enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1, 0));
    OK("X86_USER_SPACE_MSR", enable(vm, KVM_CAP_X86_USER_SPACE_MSR, 7, 0));
    OK("X86_USER_SPACE_MSR of an unknown reason", enable(vm, KVM_CAP_X86_USER_SPACE_MSR, 8, 0));
    OK("EXIT_ON_EMULATION_FAILURE", enable(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1, 0));
    OK("EXIT_ON_EMULATION_FAILURE of 2", enable(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 2, 0));
    OK("DISABLE_QUIRKS2", enable(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN, 0));
    OK("DISABLE_QUIRKS2 of an unknown one", enable(vm, KVM_CAP_DISABLE_QUIRKS2, 1ull << 40, 0));
    OK("MAX_VCPU_ID too large", enable(vm, KVM_CAP_MAX_VCPU_ID, 1 << 20, 0));
    OK("MAX_VCPU_ID", enable(vm, KVM_CAP_MAX_VCPU_ID, 4, 0));
    OK("MAX_VCPU_ID the same", enable(vm, KVM_CAP_MAX_VCPU_ID, 4, 0));
    OK("MAX_VCPU_ID another", enable(vm, KVM_CAP_MAX_VCPU_ID, 5, 0));
    OK("X2APIC_API of an unknown flag", enable(vm, KVM_CAP_X2APIC_API, 8, 0));
    OK("SPLIT_IRQCHIP of too many pins", enable(vm, KVM_CAP_SPLIT_IRQCHIP, 4711, 0));
    OK("EXIT_HYPERCALL of an unknown one", enable(vm, KVM_CAP_EXIT_HYPERCALL, 1, 0));
    OK("X86_DISABLE_EXITS of an unknown one", enable(vm, KVM_CAP_X86_DISABLE_EXITS, 1 << 20, 0));
    OK("DIRTY_LOG_RING of an odd size", enable(vm, KVM_CAP_DIRTY_LOG_RING, 12345, 0));
    OK("DIRTY_LOG_RING of nothing", enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 0));
    OK("HYPERV_SYNIC of a VM", enable(vm, KVM_CAP_HYPERV_SYNIC, 0, 0));
    close(vm);
}

static long clock_set(int vm, unsigned flags, uint64_t realtime)
{
    struct kvm_clock_data data = {.clock = 1000000000, .flags = flags, .realtime = realtime};

    return ioctl(vm, KVM_SET_CLOCK, &data);
}

static void clocks(void)
{
    struct kvm_clock_data data = {0};
    int vm = new_vm();

    group = "clock";
    OK("get", own(vm, KVM_GET_CLOCK, &data));
    OK("get to a bad address", own(vm, KVM_GET_CLOCK, bad));
    OK("set from a bad address", own(vm, KVM_SET_CLOCK, bad));
    OK("set", clock_set(vm, 0, 0));
    own(vm, KVM_GET_CLOCK, &data);
    say("goes on", data.clock >= 1000000000 && data.clock < 3000000000 ? "yes" : "no");
    OK("set with what get gave", own(vm, KVM_SET_CLOCK, &data));
    OK("set with the stable flag", clock_set(vm, KVM_CLOCK_TSC_STABLE, 0));
    OK("set with the TSC's flag", clock_set(vm, KVM_CLOCK_HOST_TSC, 0));
    OK("set with the time of day", clock_set(vm, KVM_CLOCK_REALTIME, ~0ull));
    own(vm, KVM_GET_CLOCK, &data);
    say("did not go back", data.clock >= 1000000000 && data.clock < 3000000000 ? "yes" : "no");
    OK("set with flag 1", clock_set(vm, 1, 0));
    OK("set with an unknown flag", clock_set(vm, 16, 0));
    close(vm);
}

static long filter(int vm, unsigned flags, unsigned range_flags, unsigned base, unsigned count,
                   void *bitmap)
{
    struct kvm_msr_filter f = {.flags = flags};

    f.ranges[3].flags = range_flags;
    f.ranges[3].base = base;
    f.ranges[3].nmsrs = count;
    f.ranges[3].bitmap = bitmap;
    return ioctl(vm, KVM_X86_SET_MSR_FILTER, &f);
}

static void filters(void)
{
    uint8_t *bitmap = calloc(1, 0x2000);
    int vm = new_vm();

    group = "X86_SET_MSR_FILTER";
    OK("at a bad address", own(vm, KVM_X86_SET_MSR_FILTER, bad));
    OK("empty", filter(vm, 0, 0, 0, 0, NULL));
    OK("that denies all", filter(vm, KVM_MSR_FILTER_DEFAULT_DENY, 0, 0, 0, NULL));
    OK("with an unknown flag", filter(vm, 2, 0, 0, 0, NULL));
    OK("of one", filter(vm, 0, KVM_MSR_FILTER_READ, 0x35, 1, bitmap));
    OK("of one, neither read nor written", filter(vm, 0, 0, 0x35, 1, bitmap));
    OK("of one with an unknown flag", filter(vm, 0, 4, 0x35, 1, bitmap));
    OK("of none with an unknown flag", filter(vm, 0, 4, 0x35, 0, bitmap));
    OK("of the most", filter(vm, 1, 3, 0, 0x600 * 8, bitmap));
    OK("of more than the most", filter(vm, 1, 3, 0, 0x600 * 8 + 1, bitmap));
    OK("of very many", filter(vm, 1, 3, 0, ~0u, bitmap));
    OK("with a bitmap at a bad address", filter(vm, 0, 3, 0, 64, bad));
    close(vm);
    free(bitmap);
}

static void vm_rest(void)
{
    struct kvm_create_device device = {.type = 99};
    uint64_t address = 0xfeffc000;
    int vm = new_vm(), second, twin;

    group = "VM";
    OK("CREATE_VCPU -1", with(vm, KVM_CREATE_VCPU, -1));
    OK("CREATE_VCPU beyond the last",
       with(vm, KVM_CREATE_VCPU, with(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID)));
    OK("SET_BOOT_CPU_ID beyond the last", with(vm, KVM_SET_BOOT_CPU_ID, 1 << 20));
    OK("SET_BOOT_CPU_ID", with(vm, KVM_SET_BOOT_CPU_ID, 1));
    OK("SET_TSS_ADDR", with(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
    OK("SET_TSS_ADDR at the end", with(vm, KVM_SET_TSS_ADDR, 0xffffe000));
    OK("SET_TSS_ADDR beyond the end", with(vm, KVM_SET_TSS_ADDR, 1ul << 32));
    OK("SET_IDENTITY_MAP_ADDR", own(vm, KVM_SET_IDENTITY_MAP_ADDR, &address));
    OK("SET_IDENTITY_MAP_ADDR at a bad address", own(vm, KVM_SET_IDENTITY_MAP_ADDR, bad));
    OK("SET_NR_MMU_PAGES", with(vm, KVM_SET_NR_MMU_PAGES, 1024));
    OK("SET_NR_MMU_PAGES too few", with(vm, KVM_SET_NR_MMU_PAGES, 1));
    VALUE("GET_NR_MMU_PAGES", with(vm, KVM_GET_NR_MMU_PAGES, 0));
    second = with(vm, KVM_CREATE_VCPU, 5);
    OK("CREATE_VCPU 5", second);
    twin = with(vm, KVM_CREATE_VCPU, 5);
    OK("CREATE_VCPU 5 again", twin);
    OK("SET_BOOT_CPU_ID after a vCPU", with(vm, KVM_SET_BOOT_CPU_ID, 0));
    OK("SET_IDENTITY_MAP_ADDR after a vCPU", own(vm, KVM_SET_IDENTITY_MAP_ADDR, &address));
    OK("MAX_VCPU_ID after a vCPU", enable(vm, KVM_CAP_MAX_VCPU_ID, 6, 0));
    OK("SET_TSC_KHZ after a vCPU", with(vm, KVM_SET_TSC_KHZ, 0));
    say("GET_TSC_KHZ", with(vm, KVM_GET_TSC_KHZ, 0) > 1000 ? "a rate" : "none");
    OK("CREATE_DEVICE of an unknown kind", own(vm, KVM_CREATE_DEVICE, &device));
    OK("CREATE_DEVICE at a bad address", own(vm, KVM_CREATE_DEVICE, bad));
    OK("MEMORY_ENCRYPT_OP", own(vm, KVM_MEMORY_ENCRYPT_OP, NULL));
    OK("XEN_HVM_CONFIG at a bad address", own(vm, KVM_XEN_HVM_CONFIG, bad));
    OK("HYPERV_EVENTFD at a bad address", own(vm, KVM_HYPERV_EVENTFD, bad));
    OK("SET_PMU_EVENT_FILTER at a bad address", own(vm, KVM_SET_PMU_EVENT_FILTER, bad));
    OK("RESET_DIRTY_RINGS", with(vm, KVM_RESET_DIRTY_RINGS, 0));
    OK("an unknown ioctl", with(vm, _IO(KVMIO, 0xff), 0));
    OK("a vCPU's ioctl", with(vm, KVM_RUN, 0));
    OK("another device's ioctl", with(vm, 0x5401, 0));
    say("mapped", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, vm, 0) == MAP_FAILED
                      ? strerrorname_np(errno)
                      : "ok");
    close(second);
    close(vm);
}

static void statistics(void)
{
    struct machine m = new_machine(false);
    int fds[2] = {with(m.vm, KVM_GET_STATS_FD, 0), with(m.vcpu, KVM_GET_STATS_FD, 0)}, i;
    struct kvm_stats_header header;
    char *all = malloc(1 << 20), name[64];
    long whole, bytes;
    unsigned j;

    group = "GET_STATS_FD";
    for (i = 0; i < 2; i++) {
        static const char *const whose[] = {"the VM's", "the vCPU's"};

        snprintf(name, sizeof(name), "%s header", whose[i]);
        VALUE(name, read(fds[i], &header, sizeof(header)));
        snprintf(name, sizeof(name), "%s place of the name", whose[i]);
        VALUE(name, header.id_offset);
        snprintf(name, sizeof(name), "%s size of a name", whose[i]);
        VALUE(name, header.name_size);
        snprintf(name, sizeof(name), "%s whole is as described", whose[i]);
        whole = pread(fds[i], all, 1 << 20, 0);
        for (bytes = 0, j = 0; j < header.num_desc; j++)
            bytes +=
                8 *
                ((struct kvm_stats_desc *)(all + header.desc_offset +
                                           j * (sizeof(struct kvm_stats_desc) + header.name_size)))
                    ->size;
        say(name, whole == header.data_offset + bytes ? "yes" : "no");
        snprintf(name, sizeof(name), "%s beyond the end", whose[i]);
        VALUE(name, pread(fds[i], all, 8, 1 << 20));
        snprintf(name, sizeof(name), "%s to a bad address", whose[i]);
        VALUE(name, pread(fds[i], bad, 8, 0));
        snprintf(name, sizeof(name), "%s written", whose[i]);
        VALUE(name, write(fds[i], all, 8));
        close(fds[i]);
    }
    end(&m);
    free(all);
}

/* ---- vCPUs: registers -------------------------------------------------------------------------
 */

static void bad_addresses(void)
{
    static const struct {
        const char *name;
        unsigned long request;
    } requests[] = {
#define R(name) {#name, KVM_##name}
        R(GET_REGS),
        R(SET_REGS),
        R(GET_SREGS),
        R(SET_SREGS),
        R(GET_SREGS2),
        R(SET_SREGS2),
        R(GET_FPU),
        R(SET_FPU),
        R(GET_XSAVE),
        R(SET_XSAVE),
        R(GET_XSAVE2),
        R(GET_XCRS),
        R(SET_XCRS),
        R(GET_LAPIC),
        R(SET_LAPIC),
        R(GET_MP_STATE),
        R(SET_MP_STATE),
        R(GET_VCPU_EVENTS),
        R(SET_VCPU_EVENTS),
        R(GET_DEBUGREGS),
        R(SET_DEBUGREGS),
        R(SET_GUEST_DEBUG),
        R(GET_MSRS),
        R(SET_MSRS),
        R(GET_CPUID2),
        R(SET_CPUID2),
        R(SET_CPUID),
        R(INTERRUPT),
        R(SET_SIGNAL_MASK),
        R(TRANSLATE),
        R(ENABLE_CAP),
        R(SET_VAPIC_ADDR),
        R(TPR_ACCESS_REPORTING),
        R(X86_SETUP_MCE),
        R(X86_SET_MCE),
        R(HAS_DEVICE_ATTR),
        R(GET_DEVICE_ATTR),
        R(SET_DEVICE_ATTR),
        R(GET_NESTED_STATE),
        R(SET_NESTED_STATE),
        R(GET_SUPPORTED_HV_CPUID),
#undef R
    };
    struct machine m = new_machine(true);
    unsigned i;

    group = "at a bad address";
    for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        OK(requests[i].name, own(m.vcpu, requests[i].request, bad));
    end(&m);
}

static void special_registers(void)
{
    struct machine m = new_machine(true);
    struct kvm_sregs2 sregs2;
    struct kvm_sregs good, s;

    own(m.vcpu, KVM_GET_SREGS, &good);
#define TRY(name, change) (s = good, change, OK(name, own(m.vcpu, KVM_SET_SREGS, &s)))
    group = "SET_SREGS";
    TRY("as they are", (void)0);
    TRY("PG without PE", s.cr0 = (s.cr0 | 1u << 31) & ~1);
    TRY("high bits of CR0", s.cr0 |= 1ull << 32);
    TRY("NW without CD", s.cr0 = (s.cr0 | 1 << 29) & ~(1ull << 30));
    TRY("unknown bits of CR4", s.cr4 |= 1ull << 31);
    TRY("VMXE", s.cr4 |= 1 << 13);
    TRY("LA57", s.cr4 |= 1 << 12);
    TRY("CR3 too high", s.cr3 = 1ull << 60);
    TRY("CR3 too high in long mode",
        (s.cr3 = 1ull << 60, s.cr4 |= 1 << 5, s.cr0 |= 1u << 31 | 1, s.efer |= 0x500));
    TRY("LMA without LME", s.efer |= 1 << 10);
    TRY("LME and PG without LMA", (s.efer |= 1 << 8, s.cr0 |= 1u << 31 | 1));
    TRY("LMA without PAE", (s.efer |= 0x500, s.cr0 |= 1u << 31 | 1));
    TRY("a 64-bit segment without long mode", s.cs.l = 1);
    TRY("a 64-bit and 32-bit segment in long mode",
        (s.cs.l = s.cs.db = 1, s.cr4 |= 1 << 5, s.cr0 |= 1u << 31 | 1, s.efer |= 0x500));
    TRY("CR8 of 16", s.cr8 = 16);
    TRY("APIC_BASE with unknown bits", s.apic_base |= 1);
    TRY("APIC_BASE too high", s.apic_base |= 1ull << 60);
    TRY("APIC_BASE of x2APIC alone", s.apic_base = (s.apic_base | 1 << 10) & ~(1ull << 11));
    TRY("an interrupt", s.interrupt_bitmap[0] = 1ull << 33);
    TRY("two interrupts", s.interrupt_bitmap[1] = 3);
    TRY("as they were", (void)0);
    TRY("EFER's unknown bits", s.efer |= 1ull << 40);
#undef TRY
    own(m.vcpu, KVM_SET_SREGS, &good);
    group = "SET_SREGS2";
    OK("get", own(m.vcpu, KVM_GET_SREGS2, &sregs2));
    VALUE("flags", sregs2.flags);
    OK("as they are", own(m.vcpu, KVM_SET_SREGS2, &sregs2));
    sregs2.flags = 2;
    OK("with an unknown flag", own(m.vcpu, KVM_SET_SREGS2, &sregs2));
    sregs2.flags = 1;
    OK("with PDPTRs where there is no PAE", own(m.vcpu, KVM_SET_SREGS2, &sregs2));
    end(&m);
}

static void extended_registers(void)
{
    struct machine m = new_machine(true);
    struct kvm_xcrs xcrs;
    uint64_t *xsave = calloc(1, PAGE);

    group = "XCRS";
    OK("get", own(m.vcpu, KVM_GET_XCRS, &xcrs));
    VALUE("number", xcrs.nr_xcrs);
    VALUE("XCR0", xcrs.xcrs[0].value);
    xcrs.flags = 1;
    OK("with flags", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.flags = 0;
    xcrs.nr_xcrs = 17;
    OK("of too many", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.nr_xcrs = 0;
    OK("of none", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].xcr = 1;
    OK("of another number", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.xcrs[0].xcr = 0;
    xcrs.xcrs[0].value = 0;
    OK("without the FPU", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.xcrs[0].value = 1ull << 40 | 1;
    OK("with an unknown component", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    xcrs.xcrs[0].value = 5;
    OK("with AVX and without SSE", own(m.vcpu, KVM_SET_XCRS, &xcrs));
    group = "XSAVE";
    OK("get", own(m.vcpu, KVM_GET_XSAVE, xsave));
    OK("set", own(m.vcpu, KVM_SET_XSAVE, xsave));
    xsave[64] |= 1ull << 40;
    OK("with an unknown component", own(m.vcpu, KVM_SET_XSAVE, xsave));
    xsave[64] = 3;
    xsave[65] = 1ull << 63;
    OK("compacted", own(m.vcpu, KVM_SET_XSAVE, xsave));
    xsave[65] = 0;
    xsave[66] = 1;
    OK("with a reserved byte of the header", own(m.vcpu, KVM_SET_XSAVE, xsave));
    xsave[66] = 0;
    xsave[3] = 0xffffffff;
    OK("with a bad MXCSR", own(m.vcpu, KVM_SET_XSAVE, xsave));
    end(&m);
    free(xsave);
}

static void events(void)
{
    struct machine m = new_machine(true);
    struct kvm_vcpu_events good, e;

    own(m.vcpu, KVM_GET_VCPU_EVENTS, &good);
#define TRY(name, change) (e = good, change, OK(name, own(m.vcpu, KVM_SET_VCPU_EVENTS, &e)))
    group = "VCPU_EVENTS";
    VALUE("flags", good.flags);
    TRY("as they are", (void)0);
    TRY("an unknown flag", e.flags |= 1 << 10);
    TRY("payload without the capability", e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD);
    TRY("triple fault without the capability", e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
    TRY("exception 32", (e.exception.injected = 1, e.exception.nr = 32));
    TRY("exception 2", (e.exception.injected = 1, e.exception.nr = 2));
    TRY("exception 13",
        (e.exception.injected = 1, e.exception.nr = 13, e.exception.has_error_code = 1));
    TRY("none", (void)0);
    TRY("a pending NMI", (e.nmi.pending = 1, e.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING));
    TRY("no pending NMI", e.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING);
    TRY("a SIPI's vector", (e.sipi_vector = 0x10, e.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR));
    TRY("an interrupt", (e.interrupt.injected = 1, e.interrupt.nr = 0x40));
    TRY("an interrupt's shadow", (e.interrupt.shadow = 1, e.flags |= KVM_VCPUEVENT_VALID_SHADOW));
    enable(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1, 0);
    enable(m.vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1, 0);
    own(m.vcpu, KVM_GET_VCPU_EVENTS, &good);
    VALUE("flags with the capabilities", good.flags);
    TRY("a pending exception 33", (e.exception.pending = 1, e.exception.nr = 33));
    TRY("a pending exception with a payload",
        (e.exception.pending = 1, e.exception.nr = 14, e.exception_has_payload = 1,
         e.exception_payload = 0x1234));
    TRY("none with the capabilities", (e.exception.pending = e.exception.injected = 0));
    TRY("a pending triple fault", e.triple_fault.pending = 1);
    m.run->exit_reason = 99;
    OK("RUN with it", run(m.vcpu, 0));
    VALUE("its exit", m.run->exit_reason);
    own(m.vcpu, KVM_GET_VCPU_EVENTS, &e);
    VALUE("it is over", e.triple_fault.pending);
#undef TRY
    end(&m);
}

static void debug_registers(void)
{
    struct machine m = new_machine(true);
    struct kvm_debugregs good, d;

    own(m.vcpu, KVM_GET_DEBUGREGS, &good);
#define TRY(name, change) (d = good, change, OK(name, own(m.vcpu, KVM_SET_DEBUGREGS, &d)))
    group = "DEBUGREGS";
    VALUE("DR6", good.dr6);
    VALUE("DR7", good.dr7);
    TRY("as they are", (void)0);
    TRY("flags", d.flags = 1);
    TRY("DR6 too high", d.dr6 |= 1ull << 32);
    TRY("DR7 too high", d.dr7 |= 1ull << 32);
    TRY("DR0 not canonical", d.db[0] = 1ull << 60);
#undef TRY
    end(&m);
}

static void mp_states(void)
{
    struct machine with_apic = new_machine(true), without = new_machine(false);
    char name[64];
    unsigned i;

    group = "MP_STATE";
    for (i = 0; i < 12; i++) {
        struct kvm_mp_state state = {i};

        snprintf(name, sizeof(name), "%u", i);
        OK(name, own(with_apic.vcpu, KVM_SET_MP_STATE, &state));
        snprintf(name, sizeof(name), "%u without an irqchip", i);
        OK(name, own(without.vcpu, KVM_SET_MP_STATE, &state));
    }
    end(&with_apic);
    end(&without);
}

/* ---- vCPUs: MSRs, CPUID -----------------------------------------------------------------------
 */

static long msr(int vcpu, unsigned long request, unsigned index, uint64_t value)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[2];
    } m = {.head = {.nmsrs = 2}};

    m.entry[0].index = index;
    m.entry[0].data = value;
    m.entry[1].index = 0x10;
    return ioctl(vcpu, request, &m);
}

static void msrs(void)
{
    static const struct {
        const char *name;
        unsigned index;
        uint64_t value;
    } sets[] = {
        {"an unknown MSR", 0x4711, 0},
        {"MSR -1", ~0u, 0},
        {"APIC_BASE too high", 0x1b, 1ull << 60},
        {"APIC_BASE with unknown bits", 0x1b, 0xfee00801},
        {"PAT of an unknown type", 0x277, 2},
        {"PAT", 0x277, 0x0007040600070406},
        {"LSTAR not canonical", 0xc0000082, 1ull << 60},
        {"KERNEL_GS_BASE", 0xc0000102, 0xffff800000000000},
        {"EFER's unknown bits", 0xc0000080, 1ull << 40},
        {"EFER of SVM", 0xc0000080, 1 << 12},
        {"MTRRcap", 0xfe, 0x508},
        {"another MTRRcap", 0xfe, 0x509},
        {"MTRR's default type", 0x2ff, 0xc06},
        {"MTRR's bad default type", 0x2ff, 0xc02},
        {"a variable MTRR", 0x200, 6},
        {"a variable MTRR of a bad type", 0x200, 2},
        {"a fixed MTRR", 0x250, 0x0606060606060606},
        {"a fixed MTRR of a bad type", 0x250, 0x0606060602060606},
        {"MCG_STATUS", 0x17a, 1},
        {"MCG_CTL", 0x17b, 1},
        {"MC0_CTL", 0x400, ~0ull},
        {"MC0_STATUS", 0x401, 5},
        {"TSC_ADJUST", 0x3b, 5},
        {"TSC_DEADLINE", 0x6e0, 0},
        {"TSC_AUX", 0xc0000103, 5},
        {"TSC_AUX too high", 0xc0000103, 1ull << 32},
        {"the clock", 0x4b564d01, 0x2001},
        {"the clock off", 0x4b564d01, 0},
        {"the old clock off", 0x12, 0},
        {"the wall clock", 0x4b564d00, 0x3000},
        {"steal time's reserved bits", 0x4b564d03, 3},
        {"HWCR's unknown bits", 0xc0010015, 1},
        {"HWCR", 0xc0010015, 1 << 24},
        {"PLATFORM_INFO", 0xce, 0xff00},
        {"MISC_ENABLE", 0x1a0, 1},
        {"POWER_CTL", 0x1fc, 1},
        {"UCODE_REV", 0x8b, 1ull << 32},
        {"DEBUGCTL", 0x1d9, 1},
        {"SPEC_CTRL too high", 0x48, 1ull << 40},
        {"XSS", 0xda0, 1},
        {"SMBASE", 0x9e, 0x30000},
        {"x2APIC's ID", 0x802, 0},
        {"x2APIC's TPR", 0x808, 0},
    };
    struct machine m = new_machine(true);
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[300];
    } *many = calloc(1, sizeof(*many));
    unsigned i;

    group = "SET_MSRS";
    for (i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        VALUE(sets[i].name, msr(m.vcpu, KVM_SET_MSRS, sets[i].index, sets[i].value));
    VALUE("none", own(m.vcpu, KVM_SET_MSRS, many));
    many->head.nmsrs = 256;
    VALUE("256", own(m.vcpu, KVM_SET_MSRS, many));
    many->head.nmsrs = 255;
    for (i = 0; i < 300; i++)
        many->entry[i].index = 0x277;
    VALUE("255", own(m.vcpu, KVM_GET_MSRS, many));
    many->head.nmsrs = ~0u;
    VALUE("very many", own(m.vcpu, KVM_SET_MSRS, many));
    group = "GET_MSRS";
    for (i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        VALUE(sets[i].name, msr(m.vcpu, KVM_GET_MSRS, sets[i].index, 0));
    many->head.nmsrs = 256;
    VALUE("256", own(m.vcpu, KVM_GET_MSRS, many));
    many = edge(sizeof(many->head) + sizeof(many->entry[0]));
    many->head.nmsrs = 2;
    VALUE("that do not fit", own(m.vcpu, KVM_GET_MSRS, many));
    end(&m);
}

static void cpuids(void)
{
    struct machine m = new_machine(true);
    struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 300 * sizeof(c->entries[0]));

    group = "CPUID2";
    OK("get of a new vCPU", own(m.vcpu, KVM_GET_CPUID2, c));
    VALUE("entries of a new vCPU", c->nent);
    c->nent = 257;
    OK("set too many", own(m.vcpu, KVM_SET_CPUID2, c));
    c->nent = ~0u;
    OK("set very many", own(m.vcpu, KVM_SET_CPUID2, c));
    c->nent = 0;
    OK("set none", own(m.vcpu, KVM_SET_CPUID2, c));
    c->nent = 2;
    c->entries[1].function = 1;
    OK("set two", own(m.vcpu, KVM_SET_CPUID2, c));
    c->nent = 1;
    OK("get into one", own(m.vcpu, KVM_GET_CPUID2, c));
    VALUE("entries said then", c->nent);
    c->nent = 300;
    OK("get", own(m.vcpu, KVM_GET_CPUID2, c));
    VALUE("entries", c->nent);
    c->nent = 2;
    put_code(&m, "\xe6\x80", 2); /* out %al, $0x80 */
    OK("RUN", run(m.vcpu, 0));
    OK("set the same after RUN", own(m.vcpu, KVM_SET_CPUID2, c));
    c->entries[1].ecx ^= 1;
    OK("set another after RUN", own(m.vcpu, KVM_SET_CPUID2, c));
    c->nent = 1;
    OK("set fewer after RUN", own(m.vcpu, KVM_SET_CPUID2, c));
    end(&m);
    free(c);
}

/* ---- vCPUs: running ---------------------------------------------------------------------------
 */

static long signal_mask(int vcpu, unsigned length)
{
    struct {
        struct kvm_signal_mask head;
        uint8_t set[16];
    } mask = {.head = {.len = length}};

    return ioctl(vcpu, KVM_SET_SIGNAL_MASK, &mask);
}

static long guest_debug(int vcpu, unsigned control)
{
    struct kvm_guest_debug debug = {.control = control};

    return ioctl(vcpu, KVM_SET_GUEST_DEBUG, &debug);
}

static void running(void)
{
    struct machine m = new_machine(true), user = new_machine(false);
    struct kvm_interrupt irq = {.irq = 256};
    struct kvm_mp_state halted = {KVM_MP_STATE_RUNNABLE};

    group = "RUN";
    OK("with an argument", run(m.vcpu, 1));
    m.run->kvm_valid_regs = 8;
    OK("with unknown valid registers", run(m.vcpu, 0));
    m.run->kvm_valid_regs = 0;
    m.run->kvm_dirty_regs = 8;
    OK("with unknown dirty registers", run(m.vcpu, 0));
    m.run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
    memset(&m.run->s.regs.sregs, 0xff, sizeof(m.run->s.regs.sregs));
    OK("with bad dirty registers", run(m.vcpu, 0));
    m.run->kvm_dirty_regs = 0;
    m.run->immediate_exit = 1;
    OK("left at once", run(m.vcpu, 0));
    m.run->immediate_exit = 0;
    put_code(&m, "\xe4\x70\xf4", 3); /* in $0x70, %al; hlt */
    OK("of a port read", run(m.vcpu, 0));
    VALUE("exit", m.run->exit_reason);
    VALUE("interrupts can be taken", m.run->ready_for_interrupt_injection);
    m.run->immediate_exit = 1;
    OK("left at once behind it", run(m.vcpu, 0));
    m.run->immediate_exit = 0;
    put_code(&user, "\xf4", 1);
    OK("of HLT without an irqchip", run(user.vcpu, 0));
    VALUE("exit of HLT", user.run->exit_reason);
    user.run->cr8 = 16;
    OK("with a bad CR8", run(user.vcpu, 0));
    user.run->cr8 = 0;
    OK("with the CR8 from before", run(user.vcpu, 0));
    put_code(&m, "\x0f\x0b", 2); /* ud2, and no vectors: a triple fault */
    memset(m.memory, 0xff, 0x400);
    own(m.vcpu, KVM_SET_MP_STATE, &halted);
    OK("where no instruction can be", run(m.vcpu, 0));
    VALUE("its exit", m.run->exit_reason);
    group = "vCPU";
    OK("INTERRUPT 256", own(m.vcpu, KVM_INTERRUPT, &irq));
    OK("INTERRUPT 256 without an irqchip", own(user.vcpu, KVM_INTERRUPT, &irq));
    irq.irq = 0x40;
    OK("INTERRUPT", own(m.vcpu, KVM_INTERRUPT, &irq));
    OK("INTERRUPT without an irqchip", own(user.vcpu, KVM_INTERRUPT, &irq));
    OK("INTERRUPT twice without an irqchip", own(user.vcpu, KVM_INTERRUPT, &irq));
    OK("NMI", with(m.vcpu, KVM_NMI, 0));
    OK("NMI without an irqchip", with(user.vcpu, KVM_NMI, 0));
    OK("SET_SIGNAL_MASK of length 4", signal_mask(m.vcpu, 4));
    OK("SET_SIGNAL_MASK of length 8", signal_mask(m.vcpu, 8));
    OK("SET_SIGNAL_MASK of length 16", signal_mask(m.vcpu, 16));
    OK("SET_SIGNAL_MASK of none", own(m.vcpu, KVM_SET_SIGNAL_MASK, NULL));
    OK("SET_GUEST_DEBUG off", guest_debug(m.vcpu, 0));
    OK("SET_GUEST_DEBUG of an unknown kind", guest_debug(m.vcpu, 1 << 28 | 1));
    end(&m);
    end(&user);
}

static void local_apics(void)
{
    struct machine m = new_machine(true), user = new_machine(false);
    struct kvm_lapic_state lapic;
    struct kvm_vapic_addr vapic = {0};
    struct kvm_tpr_access_ctl tpr = {.enabled = 1};

    group = "local APIC";
    OK("get", own(m.vcpu, KVM_GET_LAPIC, &lapic));
    OK("set", own(m.vcpu, KVM_SET_LAPIC, &lapic));
    OK("get without an irqchip", own(user.vcpu, KVM_GET_LAPIC, &lapic));
    OK("set without an irqchip", own(user.vcpu, KVM_SET_LAPIC, &lapic));
    OK("SET_VAPIC_ADDR", own(m.vcpu, KVM_SET_VAPIC_ADDR, &vapic));
    OK("SET_VAPIC_ADDR without an irqchip", own(user.vcpu, KVM_SET_VAPIC_ADDR, &vapic));
    tpr.flags = 1;
    OK("TPR_ACCESS_REPORTING with flags", own(m.vcpu, KVM_TPR_ACCESS_REPORTING, &tpr));
    end(&m);
    end(&user);
}

static long setup_mce(int vcpu, uint64_t cap)
{
    return ioctl(vcpu, KVM_X86_SETUP_MCE, &cap);
}

static long set_mce(int vcpu, unsigned bank, uint64_t status)
{
    struct kvm_x86_mce mce = {.bank = bank, .status = status};

    return ioctl(vcpu, KVM_X86_SET_MCE, &mce);
}

static void machine_checks(void)
{
    struct machine m = new_machine(true);

    group = "machine check";
    OK("no bank", setup_mce(m.vcpu, 0));
    OK("33 banks", setup_mce(m.vcpu, 33));
    OK("an unknown capability", setup_mce(m.vcpu, 1ull << 40 | 10));
    OK("10 banks", setup_mce(m.vcpu, 10));
    OK("10 banks with MCG_CTL", setup_mce(m.vcpu, 1 << 8 | 10));
    OK("of a bank beyond the last", set_mce(m.vcpu, 10, 1ull << 63));
    OK("that is none", set_mce(m.vcpu, 0, 0));
    OK("corrected", set_mce(m.vcpu, 0, 1ull << 63));
    end(&m);
}

static long tsc_offset(int vcpu, unsigned long request, unsigned attribute, void *at)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = attribute, .addr = (uintptr_t)at};

    return ioctl(vcpu, request, &attr);
}

static void vcpu_rest(void)
{
    struct machine m = new_machine(true);
    struct kvm_translation tr = {.linear_address = 0x1234};
    struct kvm_device_attr attr = {.group = 5};
    uint64_t offset = 12345;

    group = "vCPU";
    OK("ENABLE_CAP of an unknown one", enable(m.vcpu, 4711, 1, 0));
    OK("ENABLE_CAP of the VM's", enable(m.vcpu, KVM_CAP_EXCEPTION_PAYLOAD, 1, 0));
    OK("ENABLE_CAP with flags", enable(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1, 1));
    OK("KVMCLOCK_CTRL without a clock", with(m.vcpu, KVM_KVMCLOCK_CTRL, 0));
    msr(m.vcpu, KVM_SET_MSRS, 0x4b564d01, 0x2001);
    OK("KVMCLOCK_CTRL", with(m.vcpu, KVM_KVMCLOCK_CTRL, 0));
    OK("ENABLE_CAP", enable(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1, 0));
    VALUE("set the clock that CPUID does not have", msr(m.vcpu, KVM_SET_MSRS, 0x4b564d01, 0x2001));
    VALUE("get the clock that CPUID does not have", msr(m.vcpu, KVM_GET_MSRS, 0x4b564d01, 0));
    OK("SET_TSC_KHZ 0", with(m.vcpu, KVM_SET_TSC_KHZ, 0));
    say("GET_TSC_KHZ", with(m.vcpu, KVM_GET_TSC_KHZ, 0) > 1000 ? "a rate" : "none");
    OK("TRANSLATE", own(m.vcpu, KVM_TRANSLATE, &tr));
    VALUE("TRANSLATE's valid", tr.valid);
    VALUE("TRANSLATE's address", tr.physical_address);
    OK("has the TSC's offset", tsc_offset(m.vcpu, KVM_HAS_DEVICE_ATTR, 0, &offset));
    OK("has another attribute", tsc_offset(m.vcpu, KVM_HAS_DEVICE_ATTR, 1, &offset));
    OK("set the TSC's offset", tsc_offset(m.vcpu, KVM_SET_DEVICE_ATTR, 0, &offset));
    offset = 0;
    OK("get the TSC's offset", tsc_offset(m.vcpu, KVM_GET_DEVICE_ATTR, 0, &offset));
    say("the TSC's offset", offset ? "given" : "not given");
    OK("set the TSC's offset from a bad address", tsc_offset(m.vcpu, KVM_SET_DEVICE_ATTR, 0, bad));
    OK("get the TSC's offset to a bad address", tsc_offset(m.vcpu, KVM_GET_DEVICE_ATTR, 0, bad));
    OK("get another attribute", tsc_offset(m.vcpu, KVM_GET_DEVICE_ATTR, 1, &offset));
    OK("has an attribute of another group", own(m.vcpu, KVM_HAS_DEVICE_ATTR, &attr));
    OK("an unknown ioctl", with(m.vcpu, _IO(KVMIO, 0xff), 0));
    OK("a VM's ioctl", with(m.vcpu, KVM_CREATE_VCPU, 9));
    OK("another device's ioctl", with(m.vcpu, 0x5401, 0));
    OK("SET_TSC_KHZ very high", with(m.vcpu, KVM_SET_TSC_KHZ, 0xfffffffful));
    say("mapped too far", mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, m.vcpu, 0) == MAP_FAILED
                              ? strerrorname_np(errno)
                              : "ok");
    end(&m);
}

/* ---- another process, and files that outlive others -------------------------------------------
 */

static void another_process(void)
{
    struct machine m = new_machine(true);
    struct kvm_regs regs;

    group = "another process";
    fflush(stdout);
    if (fork() == 0) {
        OK("a VM's ioctl", with(m.vm, KVM_CHECK_EXTENSION, 0));
        OK("another VM's ioctl", with(m.vm, KVM_CREATE_VCPU, 3));
        OK("a vCPU's ioctl", own(m.vcpu, KVM_GET_REGS, &regs));
        OK("RUN", run(m.vcpu, 0));
        OK("an unknown ioctl of the VM", with(m.vm, _IO(KVMIO, 0xff), 0));
        OK("a foreign ioctl of the vCPU", with(m.vcpu, 0x5401, 0));
        OK("a VM of its own", with(kvm, KVM_CREATE_VM, 0));
        _exit(0);
    }
    wait(NULL);
    OK("afterwards", own(m.vcpu, KVM_GET_REGS, &regs));
    close(m.vm);
    group = "without the VM's file";
    OK("a vCPU's ioctl", own(m.vcpu, KVM_GET_REGS, &regs));
    put_code(&m, "\xe6\x80", 2);
    OK("RUN", run(m.vcpu, 0));
    VALUE("its exit", m.run->exit_reason);
    end(&m);
}

static void ring(int number)
{
    (void)number;
}

int main(void)
{
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ring}, NULL);
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        perror("/dev/kvm");
        return 2;
    }
    capabilities();
    system_cpuid();
    system_msrs();
    system_attributes();
    system_rest();
    memory();
    dirty();
    chips();
    routing();
    irqfds();
    ioeventfds();
    zones();
    enabling();
    clocks();
    filters();
    vm_rest();
    statistics();
    bad_addresses();
    special_registers();
    extended_registers();
    events();
    debug_registers();
    mp_states();
    msrs();
    cpuids();
    running();
    local_apics();
    machine_checks();
    vcpu_rest();
    another_process();
    printf("done\n");
    return 0;
}
