// SPDX-License-Identifier: BSD-2-Clause
/* KVM's interrupt controllers by its raw interface: errors and limits, saved state, message
 * routing, irqfds with resampling, and the split irqchip. Built with the library of KVM's
 * selftests. */
#define _GNU_SOURCE /* program_invocation_name */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "apic.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define IOAPIC    0xfec00000ul
#define LEVEL     0x8000u
#define PIN       10
#define VECTOR    0x55
#define GSI_LIMIT 4096 /* KVM_MAX_IRQ_ROUTES */
#define MANY      64

#define REFUSED(error, call) \
    TEST_ASSERT((call) == -1 && errno == (error), #call ": not errno %d, but %d", error, errno)
#define ACCEPTED(call) TEST_ASSERT((call) == 0, #call ": errno %d", errno)

static int enable(struct kvm_vm *vm, unsigned cap, uint64_t argument)
{
    struct kvm_enable_cap enable = {.cap = cap, .args = {argument}};

    return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

/* ---- GSI routing ---- */

static struct {
    struct kvm_irq_routing header;
    struct kvm_irq_routing_entry entries[GSI_LIMIT + 1];
} routing;

static void route_chip(unsigned gsi, unsigned chip, unsigned pin)
{
    routing.entries[routing.header.nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {chip, pin}};
}

static void route_msi(unsigned gsi, uint32_t low, uint32_t high, uint32_t data)
{
    routing.entries[routing.header.nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {low, high, data, {0}}};
}

/* Sets what was collected, and begins anew. */
static int set_routing(struct kvm_vm *vm)
{
    int r = ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routing);

    memset(&routing, 0, sizeof(routing));
    return r;
}

static int signal_msi(struct kvm_vm *vm, uint32_t low, uint32_t high, uint32_t data)
{
    struct kvm_msi msi = {.address_lo = low, .address_hi = high, .data = data};

    return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

static int irq_line(struct kvm_vm *vm, unsigned gsi, int level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    return ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &line) ? -1 : line.status;
}

static int irqfd(struct kvm_vm *vm, int fd, unsigned gsi, unsigned flags, int resample)
{
    struct kvm_irqfd args = {.fd = fd, .gsi = gsi, .flags = flags, .resamplefd = resample};

    return ioctl(vm->fd, KVM_IRQFD, &args);
}

static void test_routing_errors(void)
{
    struct kvm_vm *vm = vm_create_barebones();

    route_msi(0, 0xfee00000, 0, 0x41);
    REFUSED(EINVAL, set_routing(vm));
    vm_create_irqchip(vm);
    route_msi(GSI_LIMIT - 1, 0xfee00000, 0, 0x41);
    route_chip(5, KVM_IRQCHIP_PIC_MASTER, 5);
    route_chip(5, KVM_IRQCHIP_IOAPIC, 23);
    ACCEPTED(set_routing(vm));
    route_msi(GSI_LIMIT, 0xfee00000, 0, 0x41);
    REFUSED(EINVAL, set_routing(vm));
    route_chip(5, KVM_IRQCHIP_IOAPIC, 24);
    REFUSED(EINVAL, set_routing(vm));
    route_chip(5, KVM_IRQCHIP_PIC_SLAVE, 8);
    REFUSED(EINVAL, set_routing(vm));
    route_chip(5, 3, 0);
    REFUSED(EINVAL, set_routing(vm));
    route_chip(5, KVM_IRQCHIP_IOAPIC, 1);
    route_chip(5, KVM_IRQCHIP_IOAPIC, 2);
    REFUSED(EINVAL, set_routing(vm));
    route_msi(5, 0xfee00000, 0, 0x41);
    route_msi(5, 0xfee00000, 0, 0x42);
    REFUSED(EINVAL, set_routing(vm));
    route_msi(5, 0xfee00000, 0, 0x41);
    routing.entries[0].flags = KVM_MSI_VALID_DEVID;
    ACCEPTED(set_routing(vm));
    route_msi(5, 0xfee00000, 0, 0x41);
    routing.entries[0].flags = 2;
    REFUSED(EINVAL, set_routing(vm));
    route_chip(5, KVM_IRQCHIP_IOAPIC, 1);
    routing.entries[0].flags = KVM_MSI_VALID_DEVID;
    REFUSED(EINVAL, set_routing(vm));
    routing.header.flags = 1;
    REFUSED(EINVAL, set_routing(vm));
    routing.header.nr = GSI_LIMIT + 1;
    REFUSED(EINVAL, set_routing(vm));
    for (unsigned i = 0; i < GSI_LIMIT; i++)
        route_msi(i, 0xfee00000, 0, 0x41);
    ACCEPTED(set_routing(vm));
    TEST_ASSERT(kvm_check_cap(KVM_CAP_IRQ_ROUTING) == GSI_LIMIT, "KVM_CAP_IRQ_ROUTING");
    kvm_vm_free(vm);
}

static void test_errors_without_chips(void)
{
    struct kvm_irqchip chip = {.chip_id = 0};
    struct kvm_vm *vm = vm_create_barebones();
    int fd = eventfd(0, 0);

    REFUSED(ENXIO, irq_line(vm, 0, 1));
    REFUSED(ENXIO, ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
    REFUSED(EINVAL, signal_msi(vm, 0xfee00000, 0, 0x41));
    REFUSED(EINVAL, irqfd(vm, fd, 0, 0, 0));
    ACCEPTED(irqfd(vm, fd, 0, KVM_IRQFD_FLAG_DEASSIGN, 0));

    vm_create_irqchip(vm);
    REFUSED(EEXIST, ioctl(vm->fd, KVM_CREATE_IRQCHIP));
    REFUSED(EEXIST, enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    chip.chip_id = 3;
    REFUSED(EINVAL, ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
    REFUSED(EINVAL, ioctl(vm->fd, KVM_SET_IRQCHIP, &chip));
    TEST_ASSERT(irq_line(vm, GSI_LIMIT + 5, 1) == -1, "a line without a route");
    kvm_vm_free(vm);
    close(fd);
}

static void test_irqfd_errors(void)
{
    struct kvm_vm *vm = vm_create_barebones();
    int fd = eventfd(0, 0), second = eventfd(0, 0), file = open("/dev/null", O_RDWR);

    vm_create_irqchip(vm);
    REFUSED(EINVAL, irqfd(vm, fd, 5, 4, 0));
    REFUSED(EBADF, irqfd(vm, 999, 5, 0, 0));
    REFUSED(EINVAL, irqfd(vm, file, 5, 0, 0));
    REFUSED(EBADF, irqfd(vm, fd, 5, KVM_IRQFD_FLAG_RESAMPLE, 999));
    REFUSED(EINVAL, irqfd(vm, fd, 5, KVM_IRQFD_FLAG_RESAMPLE, file));
    ACCEPTED(irqfd(vm, fd, 5, KVM_IRQFD_FLAG_RESAMPLE, second));
    REFUSED(EBUSY, irqfd(vm, fd, 6, 0, 0));
    ACCEPTED(irqfd(vm, fd, 6, KVM_IRQFD_FLAG_DEASSIGN, 0)); /* none of that GSI */
    REFUSED(EBUSY, irqfd(vm, fd, 5, 0, 0));
    ACCEPTED(irqfd(vm, fd, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
    ACCEPTED(irqfd(vm, fd, 5, 0, 0));
    REFUSED(EBADF, irqfd(vm, 999, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
    close(fd); /* an eventfd that is gone leaves by itself */
    ACCEPTED(irqfd(vm, second, 5, 0, 0));
    kvm_vm_free(vm);
    close(second);
    close(file);
}

/* ---- saved state ---- */

static void round_trip(struct kvm_vm *vm, struct kvm_irqchip *chip, const char *what)
{
    struct kvm_irqchip got = {.chip_id = chip->chip_id};

    ACCEPTED(ioctl(vm->fd, KVM_SET_IRQCHIP, chip));
    ACCEPTED(ioctl(vm->fd, KVM_GET_IRQCHIP, &got));
    TEST_ASSERT(!memcmp(chip, &got, sizeof(got)), "%s comes back as another", what);
}

static void test_chips_state(void)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct kvm_pit_config config = {0};
    struct kvm_reinject_control control = {.pit_reinject = 0};
    struct kvm_pit_state2 pit = {0}, got;
    struct kvm_vm *vm = vm_create_barebones();

    vm_create_irqchip(vm);
    chip.chip.ioapic.base_address = IOAPIC;
    chip.chip.ioapic.id = 3;
    chip.chip.ioapic.ioregsel = 0x12;
    for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        chip.chip.ioapic.redirtbl[i].bits = 0x0300000000010030 + i;
    chip.chip.ioapic.redirtbl[7].bits |= LEVEL;
    chip.chip.ioapic.irr = 1 << 7;
    round_trip(vm, &chip, "the IOAPIC");
    memset(&chip.chip, 0, sizeof(chip.chip));
    chip.chip_id = KVM_IRQCHIP_PIC_SLAVE;
    chip.chip.pic = (struct kvm_pic_state){.last_irr = 0x10,
                                           .irr = 0x10,
                                           .imr = 0xf5,
                                           .isr = 2,
                                           .irq_base = 0x28,
                                           .priority_add = 3,
                                           .init4 = 1,
                                           .elcr = 0x80,
                                           .elcr_mask = 0xde};
    round_trip(vm, &chip, "the PIC");

    REFUSED(ENXIO, ioctl(vm->fd, KVM_GET_PIT2, &pit));
    REFUSED(ENXIO, ioctl(vm->fd, KVM_REINJECT_CONTROL, &control));
    ACCEPTED(ioctl(vm->fd, KVM_CREATE_PIT2, &config));
    REFUSED(EEXIST, ioctl(vm->fd, KVM_CREATE_PIT2, &config));
    ACCEPTED(ioctl(vm->fd, KVM_REINJECT_CONTROL, &control));
    ACCEPTED(ioctl(vm->fd, KVM_GET_PIT2, &pit));
    pit.channels[0].count = 0x8000;
    pit.channels[0].mode = 2;
    pit.channels[2].gate = 1;
    pit.flags = KVM_PIT_FLAGS_HPET_LEGACY;
    ACCEPTED(ioctl(vm->fd, KVM_SET_PIT2, &pit));
    ACCEPTED(ioctl(vm->fd, KVM_GET_PIT2, &got));
    TEST_ASSERT(got.channels[0].count == 0x8000 && got.channels[0].mode == 2 &&
                    got.channels[2].gate == 1 && got.flags == KVM_PIT_FLAGS_HPET_LEGACY,
                "the PIT comes back as another");
    kvm_vm_free(vm);
}

/* ---- local APICs, set from outside: no guest runs ---- */

static void lapic_on(struct kvm_vcpu *vcpu, bool x2apic, bool plain)
{
    struct kvm_lapic_state s;
    uint64_t base = vcpu_get_msr(vcpu, MSR_IA32_APICBASE) & ~(uint64_t)X2APIC_ENABLE;

    vcpu_set_msr(vcpu, MSR_IA32_APICBASE, base | (x2apic ? X2APIC_ENABLE : 0));
    vcpu_ioctl(vcpu, KVM_GET_LAPIC, &s);
    TEST_ASSERT(*(uint32_t *)(s.regs + APIC_ID) == (plain ? vcpu->id : vcpu->id << 24),
                "vCPU %u: the id's register is 0x%x", vcpu->id, *(uint32_t *)(s.regs + APIC_ID));
    *(uint32_t *)(s.regs + APIC_SPIV) = 0x1ff;
    vcpu_ioctl(vcpu, KVM_SET_LAPIC, &s);
}

/* The vector is pending there; takes it out. */
static bool got_vector(struct kvm_vcpu *vcpu, unsigned vector)
{
    struct kvm_lapic_state s;
    uint32_t *word = (uint32_t *)(s.regs + APIC_IRR + vector / 32 * 16);
    bool got;

    vcpu_ioctl(vcpu, KVM_GET_LAPIC, &s);
    got = *word >> (vector % 32) & 1;
    *word = 0;
    if (got)
        vcpu_ioctl(vcpu, KVM_SET_LAPIC, &s);
    return got;
}

static uint64_t takers(struct kvm_vcpu **vcpus, unsigned count)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < count; i++)
        bits |= (uint64_t)got_vector(vcpus[i], VECTOR) << i;
    return bits;
}

/* The first x2apics of them are such. */
static struct kvm_vm *apics(unsigned count, struct kvm_vcpu **vcpus, uint64_t flags,
                            unsigned x2apics)
{
    struct kvm_vm *vm = vm_create_barebones();

    vm_create_irqchip(vm);
    if (flags)
        ACCEPTED(enable(vm, KVM_CAP_X2APIC_API, flags));
    for (unsigned i = 0; i < count; i++) {
        vcpus[i] = __vm_vcpu_add(vm, i);
        vcpu_init_cpuid(vcpus[i], kvm_get_supported_cpuid());
        lapic_on(vcpus[i], i < x2apics, i < x2apics && (flags & KVM_X2APIC_API_USE_32BIT_IDS));
    }
    return vm;
}

#define MSI(id)      (0xfee00000u | (id) << 12)
#define LOGICAL      4u
#define HINT         8u
#define SENT(n, ...) TEST_ASSERT(signal_msi(vm, __VA_ARGS__) == (n), "signalled " #__VA_ARGS__)
#define TAKEN(by)    TEST_ASSERT((bits = takers(vcpus, count)) == (by), "taken by 0x%lx", bits)

static void test_broadcast(void)
{
    struct kvm_vcpu *vcpus[3];
    struct kvm_vm *vm = apics(3, vcpus, 0, 3);
    const unsigned count = 3;
    uint64_t bits;

    SENT(3, MSI(0xff), 0, VECTOR); /* the quirk: eight bits are enough */
    TAKEN(7);
    SENT(1, MSI(1), 0x12345600, VECTOR); /* there is no upper half */
    TAKEN(2);
    SENT(0, MSI(9), 0, VECTOR);
    kvm_vm_free(vm);

    vm = apics(3, vcpus, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK | KVM_X2APIC_API_USE_32BIT_IDS, 3);
    REFUSED(EINVAL, enable(vm, KVM_CAP_X2APIC_API, 4));
    SENT(0, MSI(0xff), 0, VECTOR);
    SENT(3, MSI(0xff), 0xffffff00, VECTOR);
    TAKEN(7);
    REFUSED(EINVAL, signal_msi(vm, MSI(1), 1, VECTOR));
    route_msi(1, MSI(1), 1, VECTOR);
    REFUSED(EINVAL, set_routing(vm));
    SENT(0, MSI(1), 0x100, VECTOR);
    TAKEN(0);
    kvm_vm_free(vm);
}

/* Clusters of 16 in x2APIC mode, by physical and logical ids, lowest priority, and all of them. */
static void test_many_x2apics(void)
{
    static struct kvm_vcpu *vcpus[MANY];
    const unsigned count = MANY;
    struct kvm_vm *vm = apics(
        MANY, vcpus, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK | KVM_X2APIC_API_USE_32BIT_IDS, MANY);
    uint64_t bits;

    for (unsigned i = 0; i < MANY; i += 7) {
        SENT(1, MSI(i), 0, VECTOR);
        TAKEN(1ull << i);
    }
    SENT(2, MSI(0x05) | LOGICAL, 0x20000, VECTOR); /* cluster 2, members 0 and 2 */
    TAKEN(5ull << 32);
    SENT(16, MSI(0xff) | LOGICAL, 0x3ff00, VECTOR);
    TAKEN(0xffffull << 48);
    SENT(1, MSI(0xff) | LOGICAL | HINT, 0x1ff00, VECTOR);
    bits = takers(vcpus, count);
    TEST_ASSERT(bits && !(bits & (bits - 1)) && (bits >> 16) < 0x10000, "lowest priority: 0x%lx",
                bits);
    SENT(1, MSI(0xff) | LOGICAL, 0x0ff00, VECTOR | 0x100);
    bits = takers(vcpus, count);
    TEST_ASSERT(bits && !(bits & (bits - 1)) && bits < 0x10000, "lowest priority: 0x%lx", bits);
    SENT(MANY, MSI(0xff), 0xffffff00, VECTOR);
    TAKEN(~0ull);
    SENT(0, MSI(0x01) | LOGICAL, 0x40000, VECTOR);
    kvm_vm_free(vm);
}

static void test_lapic_formats(void)
{
    struct kvm_vcpu *vcpus[3];
    struct kvm_vm *vm = apics(3, vcpus, KVM_X2APIC_API_USE_32BIT_IDS, 3);
    struct kvm_lapic_state s;

    vcpu_ioctl(vcpus[2], KVM_GET_LAPIC, &s);
    TEST_ASSERT(*(uint32_t *)(s.regs + 0xd0) == 4, "LDR 0x%x", *(uint32_t *)(s.regs + 0xd0));
    *(uint32_t *)(s.regs + APIC_ID) = 2 << 24;
    REFUSED(EINVAL, __vcpu_ioctl(vcpus[2], KVM_SET_LAPIC, &s));
    *(uint32_t *)(s.regs + APIC_ID) = 2;
    ACCEPTED(__vcpu_ioctl(vcpus[2], KVM_SET_LAPIC, &s));
    kvm_vm_free(vm);
}

/* ---- guests: each vector counts ---- */

static volatile unsigned long counts[256];
static volatile bool end_at_pic;

static void handler(struct ex_regs *regs)
{
    counts[regs->vector]++;
    if (end_at_pic)
        __asm__ volatile("outb %b0, $0x20" : : "a"(0x20));
    else
        x2apic_write_reg(APIC_EOI, 0);
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)IOAPIC = reg;
    *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static void out(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %b0, %w1" : : "a"(value), "Nd"(port));
}

/* What came since the last time: waits with interrupts on until the host has more to say. */
static void tell_counts(void)
{
    for (;;) {
        __asm__ volatile("sti; nop; nop; cli");
        GUEST_SYNC(counts[VECTOR]);
    }
}

static void ioapic_guest(void)
{
    out(0x21, 0xff); /* the line goes to the PICs too */
    out(0xa1, 0xff);
    x2apic_enable();
    ioapic_write(0x10 + 2 * PIN + 1, 0);
    ioapic_write(0x10 + 2 * PIN, VECTOR | LEVEL);
    tell_counts();
}

static void pic_guest(void)
{
    end_at_pic = true;
    out(0x20, 0x11);
    out(0x21, VECTOR & ~7);
    out(0x21, 4);
    out(0x21, 1);
    out(0x21, (uint8_t) ~(1 << (VECTOR & 7)));
    tell_counts();
}

static void x2apic_guest(void)
{
    x2apic_enable();
    tell_counts();
}

static unsigned long run_guest(struct kvm_vcpu *vcpu)
{
    struct ucall uc;

    vcpu_run(vcpu);
    TEST_ASSERT(vcpu->run->exit_reason == KVM_EXIT_IO, "exit %u", vcpu->run->exit_reason);
    TEST_ASSERT(get_ucall(vcpu, &uc) == UCALL_SYNC, "%s", (char *)uc.args[0]);
    return uc.args[1];
}

static struct kvm_vm *guest(struct kvm_vcpu **vcpu, void (*code)(void), bool split)
{
    struct kvm_vm *vm = ____vm_create(VM_MODE_DEFAULT, 1024);

    kvm_vm_elf_load(vm, program_invocation_name);
    if (split)
        ACCEPTED(enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    else
        vm_create_irqchip(vm);
    *vcpu = vm_vcpu_add(vm, 0, code);
    vm_init_descriptor_tables(vm);
    vcpu_init_descriptor_tables(*vcpu);
    for (unsigned v = 0x30; v < 0x60; v++)
        vm_install_exception_handler(vm, v, handler);
    virt_pg_map(vm, IOAPIC, IOAPIC);
    return vm;
}

static bool signalled(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t count;

    return poll(&p, 1, 5000) == 1 && read(fd, &count, sizeof(count)) == sizeof(count) && count == 1;
}

static bool quiet(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 50) == 0;
}

static void raise_line(int fd)
{
    uint64_t one = 1;

    TEST_ASSERT(write(fd, &one, sizeof(one)) == sizeof(one), "write to an eventfd");
}

/* The line stays up until the guest's end of interrupt, which asks for its state; two irqfds share
 * a GSI. */
static void test_resample(unsigned gsi, void (*code)(void))
{
    int line = eventfd(0, 0), asked = eventfd(0, 0), other = eventfd(0, 0),
        other_asked = eventfd(0, 0);
    struct kvm_vcpu *vcpu;
    struct kvm_vm *vm = guest(&vcpu, code, false);
    unsigned long before = run_guest(vcpu);

    ACCEPTED(irqfd(vm, line, gsi, KVM_IRQFD_FLAG_RESAMPLE, asked));
    ACCEPTED(irqfd(vm, other, gsi, KVM_IRQFD_FLAG_RESAMPLE, other_asked));
    for (unsigned i = 0; i < 5; i++) {
        raise_line(line);
        TEST_ASSERT(quiet(asked), "asked before the guest has ended it");
        TEST_ASSERT(run_guest(vcpu) == before + i + 1, "interrupts of round %u", i);
        TEST_ASSERT(signalled(asked) && signalled(other_asked), "not asked in round %u", i);
        TEST_ASSERT(run_guest(vcpu) == before + i + 1, "the line did not drop in round %u", i);
        TEST_ASSERT(quiet(asked), "asked without an interrupt");
    }
    raise_line(other); /* and it goes with its irqfds */
    ACCEPTED(irqfd(vm, other, gsi, KVM_IRQFD_FLAG_DEASSIGN, 0));
    ACCEPTED(irqfd(vm, line, gsi, KVM_IRQFD_FLAG_DEASSIGN, 0));
    run_guest(vcpu);
    before = run_guest(vcpu);
    TEST_ASSERT(run_guest(vcpu) == before, "the line is still up");
    kvm_vm_free(vm);
    close(line), close(asked), close(other), close(other_asked);
}

/* ---- the split irqchip ---- */

static void masked_guest(void)
{
    x2apic_enable();
    x2apic_write_reg(0x350, 0x10000); /* LINT0 */
    tell_counts();
}

static unsigned exit_of(struct kvm_vcpu *vcpu)
{
    vcpu_run(vcpu);
    return vcpu->run->exit_reason;
}

static void test_split_errors(void)
{
    struct kvm_irqchip chip = {.chip_id = 0};
    struct kvm_vm *vm = vm_create_barebones();
    int line = eventfd(0, 0), asked = eventfd(0, 0);

    REFUSED(EINVAL, enable(vm, KVM_CAP_SPLIT_IRQCHIP, GSI_LIMIT + 1));
    ACCEPTED(enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    REFUSED(EEXIST, enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    REFUSED(EEXIST, ioctl(vm->fd, KVM_CREATE_IRQCHIP));
    REFUSED(ENXIO, ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
    REFUSED(ENXIO, ioctl(vm->fd, KVM_SET_IRQCHIP, &chip));
    TEST_ASSERT(irq_line(vm, 4, 1) == -1, "a route from the start");
    route_chip(4, KVM_IRQCHIP_IOAPIC, 4);
    REFUSED(EINVAL, set_routing(vm));
    REFUSED(EINVAL, irqfd(vm, line, 4, KVM_IRQFD_FLAG_RESAMPLE, asked));
    ACCEPTED(irqfd(vm, line, 4, 0, 0));
    kvm_vm_free(vm);
    vm = vm_create_barebones();
    __vm_vcpu_add(vm, 0);
    REFUSED(EEXIST, enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
    kvm_vm_free(vm);
    close(line), close(asked);
}

/* The end of a level-triggered interrupt of a reserved GSI, and of no other, before anything that
 * follows it */
static void test_split_ends(void)
{
    struct kvm_vcpu *vcpu;
    struct kvm_vm *vm = guest(&vcpu, x2apic_guest, true);
    unsigned long before = run_guest(vcpu);

    route_msi(5, MSI(0), 0, VECTOR | LEVEL);
    route_msi(6, MSI(0), 0, VECTOR + 1);
    route_msi(30, MSI(0), 0, (VECTOR + 2) | LEVEL);
    ACCEPTED(set_routing(vm));
    for (unsigned i = 0; i < 5; i++) {
        TEST_ASSERT(irq_line(vm, 5, 1) == 1, "round %u", i);
        TEST_ASSERT(exit_of(vcpu) == KVM_EXIT_IOAPIC_EOI, "exit %u", vcpu->run->exit_reason);
        TEST_ASSERT(vcpu->run->eoi.vector == VECTOR, "vector %u", vcpu->run->eoi.vector);
        TEST_ASSERT(run_guest(vcpu) == before + i + 1, "interrupts of round %u", i);
    }
    TEST_ASSERT(irq_line(vm, 6, 1) == 1 && irq_line(vm, 30, 1) == 1, "not taken");
    run_guest(vcpu);
    TEST_ASSERT(run_guest(vcpu) == before + 5, "an interrupt too many");
    sync_global_from_guest(vm, counts);
    TEST_ASSERT(counts[VECTOR + 1] == 1 && counts[VECTOR + 2] == 1, "%lu, %lu", counts[VECTOR + 1],
                counts[VECTOR + 2]);
    kvm_vm_free(vm);
}

/* The PIC's interrupts: userspace asks for a window, and gives the vector when it opens. */
static void test_split_window(void)
{
    struct kvm_interrupt interrupt = {.irq = VECTOR};
    struct kvm_vcpu *vcpu;
    struct kvm_vm *vm = guest(&vcpu, x2apic_guest, true);
    unsigned long before = run_guest(vcpu);

    for (unsigned i = 0; i < 5; i++) {
        TEST_ASSERT(!vcpu->run->if_flag && !vcpu->run->ready_for_interrupt_injection, "ready");
        vcpu->run->request_interrupt_window = 1;
        TEST_ASSERT(exit_of(vcpu) == KVM_EXIT_IRQ_WINDOW_OPEN, "exit %u", vcpu->run->exit_reason);
        TEST_ASSERT(vcpu->run->if_flag && vcpu->run->ready_for_interrupt_injection, "not ready");
        vcpu->run->request_interrupt_window = 0;
        ACCEPTED(__vcpu_ioctl(vcpu, KVM_INTERRUPT, &interrupt));
        REFUSED(EEXIST, __vcpu_ioctl(vcpu, KVM_INTERRUPT, &interrupt));
        TEST_ASSERT(run_guest(vcpu) == before + i + 1, "interrupts of round %u", i);
    }
    interrupt.irq = 256;
    REFUSED(EINVAL, __vcpu_ioctl(vcpu, KVM_INTERRUPT, &interrupt));
    kvm_vm_free(vm);

    vm = guest(&vcpu, masked_guest, true);
    vcpu->run->request_interrupt_window = 1;
    run_guest(vcpu);
    run_guest(vcpu);
    TEST_ASSERT(!vcpu->run->ready_for_interrupt_injection, "LINT0 is masked");
    kvm_vm_free(vm);

    vm = guest(&vcpu, x2apic_guest, false);
    REFUSED(ENXIO, __vcpu_ioctl(vcpu, KVM_INTERRUPT, &(struct kvm_interrupt){.irq = VECTOR}));
    kvm_vm_free(vm);
}

#define RUN(test)    \
    do {             \
        puts(#test); \
        test;        \
    } while (0)

int main(void)
{
    setlinebuf(stdout);
    RUN(test_errors_without_chips());
    RUN(test_routing_errors());
    RUN(test_irqfd_errors());
    RUN(test_chips_state());
    RUN(test_broadcast());
    RUN(test_lapic_formats());
    RUN(test_many_x2apics());
    RUN(test_resample(PIN, ioapic_guest));
    RUN(test_resample(VECTOR & 7, pic_guest));
    RUN(test_split_errors());
    RUN(test_split_ends());
    RUN(test_split_window());
    return 0;
}
