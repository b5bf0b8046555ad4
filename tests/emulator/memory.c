// SPDX-License-Identifier: BSD-2-Clause
/* A guest's memory through /dev/kvm's own interface, without QEMU: a few instructions that write
 * and read what Linux moves, merges, swaps and logs under them. Runs in dom0 (test_memory.py); on
 * Linux's own KVM all but Socle's counts are checked too. usage: memory CASE...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dom0-shim/kmod/uapi.h"

#define PAGE      4096ul
#define MIB       (1ul << 20)
#define GIB       (1ul << 30)
#define BASE      0x40000000ul /* of the memory under test, guest-physical */
#define CODE      0x1000ul
#define CODE_SLOT 30
#define TEST_SLOT 1
#define MAX_VCPUS 2

/* ---- the guest: 32-bit, no paging
 * ---------------------------------------------------------------- */

/* EAX value, EBX first address, ECX how many, EDX distance; the next of EAX is one more. Each ends
 * with HLT. */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        ".globl guest_start, guest_write, guest_sum, guest_spin, guest_end\n"
        "guest_start:\n"
        "guest_write:\n"
        "1:	movl %eax, (%ebx)\n"
        "	addl %edx, %ebx\n"
        "	incl %eax\n"
        "	decl %ecx\n"
        "	jnz 1b\n"
        "	hlt\n"
        "guest_sum:\n"
        "	xorl %eax, %eax\n"
        "2:	addl (%ebx), %eax\n"
        "	addl %edx, %ebx\n"
        "	decl %ecx\n"
        "	jnz 2b\n"
        "	hlt\n"
        "guest_spin:\n"
        "3:	incl (%ebx)\n"
        "	jmp 3b\n"
        "guest_end:\n"
        ".code64\n"
        ".popsection\n");
extern const uint8_t guest_start[], guest_write[], guest_sum[], guest_spin[], guest_end[];

/* ---- failing
 * ------------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    _exit(1);
}

#define CHECK(what) \
    ((what) ? (void)0 : fail("line %d: not so: %s (errno %d)", __LINE__, #what, errno))

static void equal(int line, const char *what, uint64_t is, uint64_t want)
{
    if (is != want)
        fail("line %d: %s is %llu (%#llx), not %llu (errno %d)", line, what, (unsigned long long)is,
             (unsigned long long)is, (unsigned long long)want, errno);
}

#define EQUAL(is, want) equal(__LINE__, #is, is, want)

static void errno_is(int line, const char *what, long result, int want)
{
    int is = result < 0 ? errno : 0;

    if (is != want)
        fail("line %d: %s gives errno %d (%s), not %d (%s)", line, what, is, strerror(is), want,
             strerror(want));
}

#define ERRNO(call, want) errno_is(__LINE__, #call, call, want)

/* ---- a VM
 * ---------------------------------------------------------------------------------------- */

struct vcpu {
    int fd;
    struct kvm_run *run;
};

struct vm {
    int fd;
    int vcpus;
    struct vcpu vcpu[MAX_VCPUS];
    void *code;
    size_t run_bytes;
};

static int kvm = -1;

static int set_slot(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
                    const void *memory)
{
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .flags = flags,
                                                 .guest_phys_addr = gpa,
                                                 .memory_size = size,
                                                 .userspace_addr = (uintptr_t)memory};

    return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void *memory_of(size_t size, int flags, int fd)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | flags : flags, fd, 0);

    if (memory == MAP_FAILED)
        fail("no memory: mmap of %zu bytes: %s", size, strerror(errno));
    return memory;
}

static void *plain(size_t size)
{
    void *memory = memory_of(size, 0, -1);

    CHECK(!madvise(memory, size, MADV_NOHUGEPAGE));
    return memory;
}

static void *aligned(size_t size, size_t alignment)
{
    uintptr_t start = (uintptr_t)memory_of(size + alignment, 0, -1);

    return (void *)((start + alignment - 1) & ~(alignment - 1));
}

static void vm_new(struct vm *vm)
{
    *vm = (struct vm){.fd = ioctl(kvm, KVM_CREATE_VM, 0)};
    CHECK(vm->fd >= 0);
    vm->run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vm->code = plain(PAGE);
    memcpy(vm->code, guest_start, guest_end - guest_start);
    CHECK(!set_slot(vm, CODE_SLOT, 0, CODE, PAGE, vm->code));
}

static void flat(struct kvm_segment *s, int type)
{
    *s = (struct kvm_segment){
        .limit = 0xffffffff, .selector = 8, .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

static struct vcpu *vcpu_new(struct vm *vm)
{
    struct vcpu *v = &vm->vcpu[vm->vcpus];
    struct kvm_sregs s;

    v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, vm->vcpus++);
    CHECK(v->fd >= 0);
    v->run = memory_of(vm->run_bytes, MAP_SHARED, v->fd);
    CHECK(!ioctl(v->fd, KVM_GET_SREGS, &s));
    flat(&s.cs, 11);
    flat(&s.ds, 3);
    s.es = s.fs = s.gs = s.ss = s.ds;
    s.cr0 |= 1;
    CHECK(!ioctl(v->fd, KVM_SET_SREGS, &s));
    return v;
}

static void vm_end(struct vm *vm)
{
    for (int i = 0; i < vm->vcpus; i++) {
        munmap(vm->vcpu[i].run, vm->run_bytes);
        close(vm->vcpu[i].fd);
    }
    close(vm->fd);
    munmap(vm->code, PAGE);
}

/* A VM with that memory at BASE */
static struct vm *vm_with(struct vm *vm, void *memory, size_t size, uint32_t flags)
{
    vm_new(vm);
    CHECK(!set_slot(vm, TEST_SLOT, flags, BASE, size, memory));
    vcpu_new(vm);
    return vm;
}

static void prepare(struct vcpu *v, const uint8_t *entry, uint64_t base, uint32_t count,
                    uint32_t distance, uint32_t value)
{
    struct kvm_regs regs = {.rip = CODE + (entry - guest_start),
                            .rflags = 2,
                            .rax = value,
                            .rbx = base,
                            .rcx = count,
                            .rdx = distance};

    CHECK(!ioctl(v->fd, KVM_SET_REGS, &regs));
}

static int run(struct vcpu *v)
{
    int r;

    do
        r = ioctl(v->fd, KVM_RUN, 0);
    while (r < 0 && errno == EINTR);
    return r;
}

static uint32_t call(struct vcpu *v, const uint8_t *entry, uint64_t base, uint32_t count,
                     uint32_t distance, uint32_t value)
{
    struct kvm_regs regs;
    int r;

    prepare(v, entry, base, count, distance, value);
    r = run(v);
    if (r < 0 || v->run->exit_reason != KVM_EXIT_HLT)
        fail("the guest stops with exit %u (%d, errno %d)", v->run->exit_reason, r, errno);
    CHECK(!ioctl(v->fd, KVM_GET_REGS, &regs));
    return regs.rax;
}

/* Pages from BASE on: each gets a number, from first on; the sum of what they have */
static void write_pages(struct vm *vm, uint32_t count, uint32_t first)
{
    call(&vm->vcpu[0], guest_write, BASE, count, PAGE, first);
}

static void write_page(struct vcpu *v, uint32_t page, uint32_t value)
{
    call(v, guest_write, BASE + page * PAGE, 1, PAGE, value);
}

static uint32_t sum_pages(struct vm *vm, uint32_t count)
{
    return call(&vm->vcpu[0], guest_sum, BASE, count, PAGE, 0);
}

static uint32_t sum_of(uint32_t count, uint32_t first)
{
    return count * first + (uint32_t)((uint64_t)count * (count - 1) / 2);
}

/* ---- what Socle counts
 * --------------------------------------------------------------------------- */

static int socle = -1; /* -1: on Linux's own KVM */

static struct socle_info info(void)
{
    struct socle_info i = {0};

    if (socle >= 0)
        CHECK(!ioctl(socle, SOCLE_IOC_INFO, &i));
    return i;
}

/* Of the domain whose first vCPU this process has: pages that are mapped, and the faults until now
 */
static void count(uint64_t *mapped, uint64_t *faults)
{
    struct socle_ioc_domain next = {0};
    struct socle_ioc_stats stats = {0};
    char name[17];

    snprintf(name, sizeof(name), "memory-%d", getpid());
    for (; !ioctl(socle, SOCLE_IOC_DOMAIN, &next); next.first = next.info.id + 1) {
        if (strncmp(next.info.name, name, sizeof(next.info.name)))
            continue;
        stats.handle = next.info.vcpu_handle[0];
        CHECK(!ioctl(socle, SOCLE_IOC_STATS, &stats));
        *mapped = next.info.mapped_pages;
        *faults = stats.stats.count[SOCLE_STAT_FAULT];
        return;
    }
    fail("no domain is called %s", name);
}

static void mapped_at_most(uint64_t pages)
{
    uint64_t mapped = 0, faults;

    if (socle >= 0)
        count(&mapped, &faults);
    if (mapped > pages)
        fail("%llu pages are mapped, not %llu", (unsigned long long)mapped,
             (unsigned long long)pages);
}

/* Touches a page in each piece of the guest's memory: a leaf of that size must come from one fault.
 */
static void leaves_are(struct vm *vm, size_t size, size_t leaf)
{
    uint64_t faults, mapped;
    uint32_t n = size / leaf;

    EQUAL(call(&vm->vcpu[0], guest_sum, BASE + leaf / 2, n, leaf, 0), 0);
    if (socle >= 0) {
        count(&mapped, &faults);
        CHECK(mapped >= size / PAGE);
    }
    write_pages(vm, size / PAGE, 1);
    EQUAL(sum_pages(vm, size / PAGE), sum_of(size / PAGE, 1));
    if (socle >= 0) {
        count(&mapped, &faults);
        CHECK(faults <= 2 * n + 2); /* one more for the right to write; two for the code */
        printf("%llu faults, %llu pages of 4 KiB mapped; ", (unsigned long long)faults,
               (unsigned long long)mapped);
    }
}

/* ---- small things
 * -------------------------------------------------------------------------------- */

static void put(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail("cannot write %s to %s: %s", text, file, strerror(errno));
    close(fd);
}

static uint64_t get(const char *file, const char *field)
{
    char line[256];
    FILE *f = fopen(file, "r");
    uint64_t n = 0;

    if (!f)
        fail("cannot read %s: %s", file, strerror(errno));
    while (fgets(line, sizeof(line), f)) {
        const char *text = line + strspn(line, " ");

        if (!strncmp(text, field, strlen(field)))
            n += strtoull(text + strlen(field), NULL, 10);
    }
    fclose(f);
    return n;
}

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static bool bit(const uint64_t *bitmap, uint32_t n)
{
    return bitmap[n / 64] >> n % 64 & 1;
}

static int dirty_log(struct vm *vm, uint32_t slot, void *bitmap)
{
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};

    return ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

static int clear_log(struct vm *vm, uint32_t slot, uint64_t first, uint32_t pages, void *bitmap)
{
    struct kvm_clear_dirty_log log = {
        .slot = slot, .first_page = first, .num_pages = pages, .dirty_bitmap = bitmap};

    return ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log);
}

static int enable(struct vm *vm, uint32_t cap, uint32_t flags, uint64_t value)
{
    struct kvm_enable_cap c = {.cap = cap, .flags = flags, .args = {value}};

    return ioctl(vm->fd, KVM_ENABLE_CAP, &c);
}

/* ---- errors
 * -------------------------------------------------------------------------------------- */

static void test_region_errors(void)
{
    uint32_t slots = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
    uint8_t *m = plain(16 * PAGE);
    struct vm v, *vm = &v;

    vm_new(vm);
    ERRNO(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, 8), EFAULT);
    ERRNO(set_slot(vm, 1, 4, BASE, PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, PAGE + 1, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE + 8, PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, PAGE, m + 8), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, PAGE, (void *)0xffff800000000000), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, 1ul << 47, m), EINVAL);
    ERRNO(set_slot(vm, 2 << 16, 0, BASE, PAGE, m), EINVAL);
    ERRNO(set_slot(vm, slots, 0, BASE, PAGE, m) && errno == EINVAL ? 0 : slots < 32764 ? 1 : 0, 0);
    ERRNO(set_slot(vm, 1, 0, -PAGE, 2 * PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, 1ul << 52, PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, 0, m), EINVAL); /* there is none to delete */
    ERRNO(set_slot(vm, 1, 0, BASE, 8 * PAGE, m), 0);
    ERRNO(set_slot(vm, 1, 0, BASE, 8 * PAGE, m), 0);
    ERRNO(set_slot(vm, 2, 0, BASE + 7 * PAGE, 2 * PAGE, m), EEXIST);
    ERRNO(set_slot(vm, 1, 0, BASE, 4 * PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE, 8 * PAGE, m + PAGE), EINVAL);
    ERRNO(set_slot(vm, 1, KVM_MEM_READONLY, BASE, 8 * PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 2, 0, BASE + 8 * PAGE, 2 * PAGE, m), 0);
    ERRNO(set_slot(vm, 1, 0, BASE + PAGE, 8 * PAGE, m), EEXIST);
    ERRNO(set_slot(vm, 1, 0, 1ul << 52, 8 * PAGE, m), EINVAL);
    ERRNO(set_slot(vm, 1, 0, BASE + 64 * PAGE, 8 * PAGE, m), 0);
    ERRNO(set_slot(vm, 2, 0, BASE, 2 * PAGE, m), 0);
    ERRNO(set_slot(vm, 1, 0, -PAGE, 0, NULL), 0); /* to delete, the address may be any */
    ERRNO(set_slot(vm, 1, 0, 0, 0, NULL), EINVAL);
    vm_end(vm);
}

static void test_log_errors(void)
{
    uint64_t bits[4] = {~0ull, ~0ull, ~0ull, ~0ull};
    uint8_t *m = plain(512 * PAGE);
    struct vm v, *vm = &v;

    vm_new(vm);
    CHECK(!set_slot(vm, 1, KVM_MEM_LOG_DIRTY_PAGES, BASE, 200 * PAGE, m));
    CHECK(!set_slot(vm, 2, 0, BASE + 512 * PAGE, 200 * PAGE, m));
    ERRNO(ioctl(vm->fd, KVM_GET_DIRTY_LOG, 8), EFAULT);
    ERRNO(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, 8), EFAULT);
    ERRNO(dirty_log(vm, 0xffff, bits), EINVAL);
    ERRNO(dirty_log(vm, 2 << 16, bits), EINVAL);
    ERRNO(dirty_log(vm, 3, bits), ENOENT);
    ERRNO(dirty_log(vm, 2, bits), ENOENT);
    ERRNO(dirty_log(vm, 1, (void *)8), EFAULT);
    ERRNO(clear_log(vm, 0xffff, 0, 64, bits), EINVAL);
    ERRNO(clear_log(vm, 3, 1, 64, bits), EINVAL);
    ERRNO(clear_log(vm, 3, 0, 64, bits), ENOENT);
    ERRNO(clear_log(vm, 2, 0, 64, bits), ENOENT);
    ERRNO(clear_log(vm, 1, 8, 64, bits), EINVAL);
    ERRNO(clear_log(vm, 1, 0, 65, bits), EINVAL);
    ERRNO(clear_log(vm, 1, 0, 256, bits), EINVAL);
    ERRNO(clear_log(vm, 1, 256, 64, bits), EINVAL);
    ERRNO(clear_log(vm, 1, 1ull << 62, 64, bits), EINVAL);
    ERRNO(clear_log(vm, 1, 128, 72, (void *)8), EFAULT);
    ERRNO(clear_log(vm, 1, 128, 72, bits), 0);
    ERRNO(clear_log(vm, 1, 192, 8, bits), 0);
    ERRNO(clear_log(vm, 1, 0, 0, NULL), 0);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, KVM_DIRTY_LOG_INITIALLY_SET), EINVAL);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 4), EINVAL);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1, 1), EINVAL);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 3), 0);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 1), 0);
    ERRNO(enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 0), 0);
    EQUAL(ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
    vm_end(vm);
}

static void test_ring_errors(void)
{
    uint64_t bits[4];
    struct vm v, *vm = &v;
    struct vcpu *c;

    vm_new(vm);
    EQUAL(ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING), 65536 * 16);
    ERRNO(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0), EINVAL);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 0), EINVAL);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 20000), EINVAL);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 512), EINVAL);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 65536 * 32), E2BIG);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0, 16384), 0);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 16384), EINVAL);
    ERRNO(dirty_log(vm, 0xffff, bits), ENXIO);
    ERRNO(clear_log(vm, 0xffff, 0, 64, bits), ENXIO);
    EQUAL(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0), 0);
    c = vcpu_new(vm);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, c->fd, 64 * PAGE) == MAP_FAILED &&
          errno == EINVAL);
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, c->fd, 67 * PAGE) == MAP_FAILED);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, c->fd, 68 * PAGE) != MAP_FAILED);
    vm_end(vm);
    vm_new(vm);
    vcpu_new(vm);
    ERRNO(enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, 16384), EINVAL);
    vm_end(vm);
}

/* What is not there, or not for writing, is EFAULT for KVM_RUN; once it is there the guest goes on.
 */
static void test_no_memory(void)
{
    uint8_t *m = plain(64 * PAGE);
    struct vm v, *vm = vm_with(&v, m, 64 * PAGE, 0);
    struct vcpu *c = &vm->vcpu[0];

    write_pages(vm, 64, 1);
    CHECK(!mprotect(m, 64 * PAGE, PROT_READ));
    EQUAL(sum_pages(vm, 64), sum_of(64, 1));
    prepare(c, guest_write, BASE, 64, PAGE, 100);
    ERRNO(run(c), EFAULT);
    CHECK(!mprotect(m, 64 * PAGE, PROT_READ | PROT_WRITE));
    CHECK(!run(c));
    EQUAL(sum_pages(vm, 64), sum_of(64, 100));
    CHECK(!munmap(m + 8 * PAGE, PAGE));
    prepare(c, guest_sum, BASE, 64, PAGE, 0);
    ERRNO(run(c), EFAULT);
    ERRNO(run(c), EFAULT);
    CHECK(mmap(m + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
               -1, 0) == m + 8 * PAGE);
    CHECK(!run(c));
    EQUAL(sum_pages(vm, 64), sum_of(64, 100) - 108);
    /* the memory moves away */
    CHECK(mremap(m, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, plain(8 * PAGE)) !=
          MAP_FAILED);
    prepare(c, guest_sum, BASE, 64, PAGE, 0);
    ERRNO(run(c), EFAULT);
    vm_end(vm);
}

static void test_read_only(void)
{
    uint8_t *m = plain(16 * PAGE);
    struct vm v, *vm;
    struct vcpu *c;

    for (int i = 0; i < 16; i++)
        *(uint32_t *)(m + i * PAGE) = i;
    vm = vm_with(&v, m, 16 * PAGE, KVM_MEM_READONLY);
    c = &vm->vcpu[0];
    EQUAL(sum_pages(vm, 16), sum_of(16, 0));
    prepare(c, guest_write, BASE + 3 * PAGE, 2, PAGE, 0x1234);
    for (int i = 0; i < 2; i++) {
        CHECK(!run(c));
        EQUAL(c->run->exit_reason, KVM_EXIT_MMIO);
        EQUAL(c->run->mmio.phys_addr, BASE + (3 + i) * PAGE);
        EQUAL(c->run->mmio.is_write, 1);
        EQUAL(c->run->mmio.len, 4);
        EQUAL(*(uint32_t *)c->run->mmio.data, 0x1234 + i);
    }
    CHECK(!run(c));
    EQUAL(c->run->exit_reason, KVM_EXIT_HLT);
    EQUAL(sum_pages(vm, 16), sum_of(16, 0));
    /* the process may write, and the guest sees it; its dirty log stays empty */
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES, BASE, 16 * PAGE, m));
    *(uint32_t *)(m + 5 * PAGE) = 105;
    EQUAL(sum_pages(vm, 16), sum_of(16, 0) + 100);
    uint64_t bits = 1;
    CHECK(!dirty_log(vm, TEST_SLOT, &bits));
    EQUAL(bits, 0);
    /* memory of a file that is open for reading */
    CHECK(!set_slot(vm, 2, KVM_MEM_READONLY, BASE + MIB, PAGE,
                    mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open("/proc/self/exe", O_RDONLY), 0)));
    EQUAL(call(c, guest_sum, BASE + MIB, 1, 4, 0), 0x464c457f);
    vm_end(vm);
}

/* ---- dirty logs
 * ---------------------------------------------------------------------------------- */

static void test_dirty_log(void)
{
    uint8_t *m = plain(300 * PAGE);
    struct vm v, *vm = vm_with(&v, m, 300 * PAGE, 0);
    struct vcpu *c = &vm->vcpu[0];
    uint64_t bits[5];

    write_pages(vm, 300, 1);
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE, 300 * PAGE, m));
    write_page(c, 3, 7);
    write_page(c, 70, 7);
    write_page(c, 299, 7);
    sum_pages(vm, 300);
    m[PAGE * 9] = 1; /* the process's own writes are not the guest's */
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[0], 1 << 3);
    EQUAL(bits[1], 1 << 6);
    EQUAL(bits[2] | bits[3], 0);
    EQUAL(bits[4], 1ull << 43);
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[0] | bits[1] | bits[4], 0);
    /* a slot that moves takes its log along */
    write_page(c, 5, 8);
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE + 4 * MIB, 300 * PAGE, m));
    call(c, guest_write, BASE + 4 * MIB + 6 * PAGE, 1, PAGE, 9);
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[0], 3 << 5);
    vm_end(vm);
}

static void test_clear_log(void)
{
    uint8_t *m = plain(300 * PAGE);
    struct vm v, *vm = vm_with(&v, m, 300 * PAGE, 0);
    struct vcpu *c = &vm->vcpu[0];
    uint64_t bits[5], mask[5] = {~0ull, 0, 0, 0, ~0ull};

    write_pages(vm, 300, 1);
    CHECK(!enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE));
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE, 300 * PAGE, m));
    write_page(c, 3, 7);
    write_page(c, 70, 7);
    for (int i = 0; i < 2; i++) { /* asking changes nothing */
        CHECK(!dirty_log(vm, TEST_SLOT, bits));
        EQUAL(bits[0], 1 << 3);
        EQUAL(bits[1], 1 << 6);
    }
    CHECK(!clear_log(vm, TEST_SLOT, 0, 64, mask));
    CHECK(!clear_log(vm, TEST_SLOT, 256, 44, mask));
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[0], 0);
    EQUAL(bits[1], 1 << 6);
    write_page(c, 3, 8);
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[0], 1 << 3);
    mask[1] = ~(1ull << 6);
    CHECK(!clear_log(vm, TEST_SLOT, 64, 64, &mask[1])); /* not that bit */
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[1], 1 << 6);
    vm_end(vm);
}

/* All pages count as written at first, and large leaves are left alone until a piece is cleared. */
static void test_initially_set(void)
{
    size_t size = 4 * MIB, pages = size / PAGE;
    uint8_t *m = aligned(size, 2 * MIB);
    uint64_t bits[16], mask[16] = {0}, mapped, before, after;
    struct vm v, *vm;

    CHECK(!madvise(m, size, MADV_HUGEPAGE));
    vm = vm_with(&v, m, size, 0);
    CHECK(!enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 3));
    write_pages(vm, pages, 1);
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE, size, m));
    if (socle >= 0) {
        count(&mapped, &before);
        write_pages(vm, pages, 1);
        count(&mapped, &after);
        EQUAL(after, before);
    }
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    for (int i = 0; i < 16; i++)
        EQUAL(bits[i], ~0ull);
    mask[8] = 6;
    CHECK(!clear_log(vm, TEST_SLOT, 0, pages, mask));
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[8], ~6ull);
    EQUAL(bits[7] & bits[9], ~0ull);
    write_page(&vm->vcpu[0], 513, 5);
    write_page(&vm->vcpu[0], 515, 5);
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    EQUAL(bits[8], ~4ull);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1) - 514 - 516 + 10);
    vm_end(vm);
    vm_with(vm, m, 100 * PAGE, 0);
    CHECK(!enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, 3));
    CHECK(!set_slot(vm, 2, KVM_MEM_LOG_DIRTY_PAGES, BASE + MIB, 100 * PAGE, m));
    CHECK(!dirty_log(vm, 2, bits));
    EQUAL(bits[0], ~0ull);
    EQUAL(bits[1], (1ull << 36) - 1);
    vm_end(vm);
}

#define RING 1024

static struct kvm_dirty_gfn *ring_of(struct vcpu *v)
{
    void *ring = mmap(NULL, RING * 16, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 64 * PAGE);

    CHECK(ring != MAP_FAILED);
    return ring;
}

/* Takes what is new from *next on into the bitmap; how much it was */
static uint32_t harvest(struct kvm_dirty_gfn *ring, uint32_t *next, uint64_t *bits)
{
    uint32_t n = 0;

    for (;; (*next)++, n++) {
        struct kvm_dirty_gfn *e = &ring[*next % RING];

        if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
            return n;
        EQUAL(e->slot, TEST_SLOT);
        CHECK(e->offset < 3000);
        bits[e->offset / 64] |= 1ull << e->offset % 64;
        __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    }
}

static void test_dirty_ring(void)
{
    uint32_t pages = 3000, next[2] = {0}, fulls = 0, seen = 0;
    uint8_t *m = plain(pages * PAGE);
    struct vm v, *vm = &v;
    struct kvm_dirty_gfn *ring[2];
    uint64_t bits[2][47] = {0};
    int r;

    vm_new(vm);
    CHECK(!enable(vm, KVM_CAP_DIRTY_LOG_RING, 0, RING * 16));
    CHECK(!set_slot(vm, TEST_SLOT, 0, BASE, pages * PAGE, m));
    ring[0] = ring_of(vcpu_new(vm));
    ring[1] = ring_of(vcpu_new(vm));
    write_pages(vm, pages, 1);
    EQUAL(harvest(ring[0], &next[0], bits[0]), 0);
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE, pages * PAGE, m));
    /* each vCPU's writes are in its own ring */
    call(&vm->vcpu[0], guest_write, BASE + 10 * PAGE, 10, PAGE, 1);
    call(&vm->vcpu[1], guest_write, BASE + 40 * PAGE, 10, PAGE, 1);
    EQUAL(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0), 0);
    EQUAL(harvest(ring[0], &next[0], bits[0]), 10);
    EQUAL(harvest(ring[1], &next[1], bits[1]), 10);
    EQUAL(bits[0][0], 0x3fful << 10);
    EQUAL(bits[1][0], 0x3fful << 40);
    call(&vm->vcpu[1], guest_write, BASE + 12 * PAGE, 1, PAGE, 2);
    EQUAL(harvest(ring[1], &next[1], bits[1]), 0); /* not watched before the reset */
    EQUAL(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0), 20);
    call(&vm->vcpu[1], guest_write, BASE + 12 * PAGE, 1, PAGE, 3);
    EQUAL(harvest(ring[1], &next[1], bits[1]), 1);
    EQUAL(bits[1][0], 0x3fful << 40 | 1 << 12);
    /* a full ring stops the vCPU until there is room */
    memset(bits, 0, sizeof(bits));
    prepare(&vm->vcpu[0], guest_write, BASE, pages, PAGE, 500);
    for (;;) {
        r = run(&vm->vcpu[0]);
        CHECK(!r);
        if (vm->vcpu[0].run->exit_reason == KVM_EXIT_HLT)
            break;
        EQUAL(vm->vcpu[0].run->exit_reason, KVM_EXIT_DIRTY_RING_FULL);
        CHECK(!run(&vm->vcpu[0]));
        EQUAL(vm->vcpu[0].run->exit_reason, KVM_EXIT_DIRTY_RING_FULL);
        CHECK(harvest(ring[0], &next[0], bits[0]) >= RING / 4);
        CHECK(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) > 0);
        fulls++;
    }
    CHECK(fulls >= 2);
    harvest(ring[0], &next[0], bits[0]);
    CHECK(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) >= 0);
    for (uint32_t i = 0; i < pages; i++)
        seen += bit(bits[0], i);
    CHECK(seen >= pages - 1); /* page 12 may still be open for writing, from the other vCPU */
    EQUAL(sum_pages(vm, pages), sum_of(pages, 500));
    /* nonsense in the ring harms nobody */
    for (uint32_t i = 0; i < RING; i++)
        ring[0][i] = (struct kvm_dirty_gfn){.flags = i % 3 ? 3 : 2,
                                            .slot = i * 0x10001,
                                            .offset = i % 2 ? -1ull - i : 1ull << (i % 64)};
    CHECK(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) <= RING);
    CHECK(ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) <= RING);
    run(&vm->vcpu[0]);
    vm_end(vm);
}

/* ---- how Linux backs it
 * -------------------------------------------------------------------------- */

static void test_huge_pages(void)
{
    size_t size = 32 * MIB;
    uint8_t *m = aligned(size, 2 * MIB);
    struct vm v, *vm;

    CHECK(!madvise(m, size, MADV_HUGEPAGE));
    for (size_t i = 0; i < size; i += 2 * MIB)
        m[i + 8] = 1;
    vm = vm_with(&v, m, size, 0);
    leaves_are(vm, size, 2 * MIB);
    /* a page of one goes: the rest keeps its contents */
    CHECK(!madvise(m + 2 * MIB + 5 * PAGE, PAGE, MADV_DONTNEED));
    EQUAL(sum_pages(vm, size / PAGE), sum_of(size / PAGE, 1) - (512 + 5 + 1));
    vm_end(vm);
}

static void huge(const char *file, size_t size, int flags)
{
    uint8_t *m;
    struct vm v;

    put(file, "8");
    m = memory_of(size, MAP_HUGETLB | flags, -1);
    vm_with(&v, m, size, 0);
    m[8] = 1;
    leaves_are(&v, size, flags ? GIB : 2 * MIB);
    vm_end(&v);
    munmap(m, size);
    put(file, "0");
}

static void test_hugetlb_2m(void)
{
    huge("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 16 * MIB, 0);
}

/* The page is from the command line: so much is not free in one piece later. */
static void test_hugetlb_1g(void)
{
    uint8_t *m = memory_of(GIB, MAP_HUGETLB | 30 << MAP_HUGE_SHIFT, -1);
    uint64_t mapped, faults;
    struct vm v, *vm = vm_with(&v, m, GIB, 0);

    *(uint32_t *)(m + GIB - PAGE) = 5;
    EQUAL(call(&vm->vcpu[0], guest_sum, BASE + 3 * PAGE, 256, 4 * MIB - PAGE, 0), 0);
    call(&vm->vcpu[0], guest_write, BASE, 256, 4 * MIB, 1);
    EQUAL(call(&vm->vcpu[0], guest_sum, BASE, 256, 4 * MIB, 0), sum_of(256, 1));
    EQUAL(call(&vm->vcpu[0], guest_sum, BASE + GIB - PAGE, 1, 4, 0), 5);
    if (socle >= 0) {
        count(&mapped, &faults);
        CHECK(mapped >= GIB / PAGE);
        CHECK(faults <= 4);
        printf("%llu faults; ", (unsigned long long)faults);
    }
    /* dirty logging takes it to pieces */
    CHECK(!set_slot(vm, TEST_SLOT, KVM_MEM_LOG_DIRTY_PAGES, BASE, GIB, m));
    write_page(&vm->vcpu[0], 100000, 9);
    uint64_t *bits = calloc(4096, 8);
    CHECK(!dirty_log(vm, TEST_SLOT, bits));
    for (uint32_t i = 0; i < 262144; i++)
        EQUAL(bit(bits, i), i == 100000);
    vm_end(vm);
}

#define KSM "/sys/kernel/mm/ksm/"

static void ksm_wait(uint64_t pages)
{
    for (int i = 0; get(KSM "pages_sharing", "") < pages; i++) {
        if (i > 300)
            fail("KSM merges %llu pages, not %llu",
                 (unsigned long long)get(KSM "pages_sharing", ""), (unsigned long long)pages);
        pause_ms(100);
    }
}

static void test_ksm(void)
{
    size_t pages = 1024;
    struct vm v[2];
    uint8_t *m[2];

    for (int i = 0; i < 2; i++) {
        m[i] = plain(pages * PAGE);
        CHECK(!madvise(m[i], pages * PAGE, MADV_MERGEABLE));
        write_pages(vm_with(&v[i], m[i], pages * PAGE, 0), pages, 1000);
    }
    put(KSM "pages_to_scan", "2000");
    put(KSM "sleep_millisecs", "5");
    put(KSM "run", "1");
    ksm_wait(pages);
    mapped_at_most(pages + 16);
    for (int i = 0; i < 2; i++)
        EQUAL(sum_pages(&v[i], pages), sum_of(pages, 1000));
    /* a write is the writer's alone */
    write_pages(&v[0], pages / 2, 5000);
    EQUAL(sum_pages(&v[1], pages), sum_of(pages, 1000));
    EQUAL(sum_pages(&v[0], pages / 2), sum_of(pages / 2, 5000));
    EQUAL(sum_pages(&v[0], pages), sum_of(pages / 2, 5000) + sum_of(pages / 2, 1000 + pages / 2));
    write_pages(&v[0], pages, 1000);
    ksm_wait(pages);
    put(KSM "run", "2"); /* all apart again */
    EQUAL(get(KSM "pages_sharing", ""), 0);
    for (int i = 0; i < 2; i++) {
        EQUAL(sum_pages(&v[i], pages), sum_of(pages, 1000));
        vm_end(&v[i]);
    }
}

/* Swap space is on before; what the guest does not use goes there, and comes back when it does. */
static void test_swap(void)
{
    uint32_t pages = 4096;
    uint8_t *m = plain(pages * PAGE);
    struct vm v, *vm = vm_with(&v, m, pages * PAGE, 0);
    uint64_t swapped;

    for (uint32_t round = 1; round < 4; round++) {
        write_pages(vm, pages, round * 10000);
        for (int i = 0; i < 3; i++) {
            CHECK(!madvise(m, pages * PAGE, MADV_PAGEOUT));
            swapped = get("/proc/self/smaps", "Swap:") / 4;
            if (swapped > pages * 9 / 10)
                break;
        }
        printf("%llu of %u pages out; ", (unsigned long long)swapped, pages);
        CHECK(swapped > pages * 9 / 10);
        mapped_at_most(pages / 10 + 8);
        EQUAL(sum_pages(vm, pages), sum_of(pages, round * 10000));
    }
    vm_end(vm);
}

#define CGROUP "/sys/fs/cgroup/"

/* From here on the process has so much. */
static void enter_cgroup(const char *bytes)
{
    char pid[16];

    mount("none", CGROUP, "cgroup2", 0, NULL);
    put(CGROUP "cgroup.subtree_control", "+memory");
    CHECK(!mkdir(CGROUP "guest", 0755) || errno == EEXIST);
    put(CGROUP "guest/memory.max", bytes);
    snprintf(pid, sizeof(pid), "%d", getpid());
    put(CGROUP "guest/cgroup.procs", pid);
}

/* Has half of what it wants: Linux takes pages away behind the guest's back. */
static void test_overcommit(void)
{
    size_t size = 32 * MIB;
    uint32_t pages = size / PAGE;
    uint8_t *m = plain(size);
    struct vm v, *vm;

    enter_cgroup("16M");
    vm = vm_with(&v, m, size, 0);
    write_pages(vm, pages, 1);
    printf("%llu of %zu MiB swapped; ", (unsigned long long)get("/proc/self/smaps", "Swap:") / 1024,
           size / MIB);
    CHECK(get("/proc/self/smaps", "Swap:") >= size / 2 / 1024);
    mapped_at_most(pages / 2);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1));
    vm_end(vm);
}

/* What the guest uses all the time stays, once Linux has had time to ask who uses what. */
static void test_hot(void)
{
    enum { HOT = 512, PAGES = 5120, STEP = 32, ROUNDS = 2, FIRST = 96 };
    uint8_t *m = plain(PAGES * PAGE);
    uint32_t out = 0, looks = 0;
    uint64_t entry[HOT];
    struct vm v, *vm;
    int map = open("/proc/self/pagemap", O_RDONLY);

    enter_cgroup("12M");
    vm = vm_with(&v, m, PAGES * PAGE, 0);
    write_pages(vm, HOT, 1);
    for (uint32_t i = HOT; i < PAGES * ROUNDS; i += STEP, looks++) {
        EQUAL(sum_pages(vm, HOT), sum_of(HOT, 1));
        call(&vm->vcpu[0], guest_write, BASE + (HOT + i % (PAGES - HOT)) * PAGE, STEP, PAGE, i);
        EQUAL(pread(map, entry, sizeof(entry), (uintptr_t)m / PAGE * 8), sizeof(entry));
        for (uint32_t j = 0; j < HOT; j++)
            out += looks >= FIRST && !(entry[j] >> 63);
    }
    printf("of %u hot pages %u were away at %u looks; ", HOT, out, looks - FIRST);
    CHECK(out < HOT / 8);
    vm_end(vm);
}

static int node_of(void *page)
{
    int status = -1;

    CHECK(!syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0));
    return status;
}

static void test_numa(void)
{
    uint32_t pages = 1024;
    struct vm v, *vm;

    for (unsigned long node = 0; node < 2; node++) {
        uint8_t *m = plain(pages * PAGE);
        unsigned long mask = 1ul << node, other = 1ul << !node;

        CHECK(!syscall(SYS_mbind, m, pages * PAGE, 2 /* MPOL_BIND */, &mask, 8ul, 0u));
        vm = vm_with(&v, m, pages * PAGE, 0);
        write_pages(vm, pages, 1);
        for (uint32_t i = 0; i < pages; i++)
            EQUAL(node_of(m + i * PAGE), node);
        /* it moves under the guest */
        CHECK(!syscall(SYS_mbind, m, pages * PAGE, 2, &other, 8ul, 2u /* MPOL_MF_MOVE */));
        EQUAL(node_of(m), !node);
        EQUAL(node_of(m + (pages - 1) * PAGE), !node);
        EQUAL(sum_pages(vm, pages), sum_of(pages, 1));
        write_pages(vm, pages, 7);
        EQUAL(sum_pages(vm, pages), sum_of(pages, 7));
        vm_end(vm);
    }
}

static void shared(int fd)
{
    uint32_t pages = 1024;
    struct vm v, *vm;
    uint8_t *m, *other;

    CHECK(fd >= 0 && !ftruncate(fd, pages * PAGE));
    m = memory_of(pages * PAGE, MAP_SHARED, fd);
    other = memory_of(pages * PAGE, MAP_SHARED, fd);
    vm = vm_with(&v, m, pages * PAGE, 0);
    write_pages(vm, pages, 1);
    for (uint32_t i = 0; i < pages; i++)
        EQUAL(*(uint32_t *)(other + i * PAGE), i + 1);
    if (!fork()) { /* another process, by the file */
        uint8_t *third = memory_of(pages * PAGE, MAP_SHARED, fd);

        *(uint32_t *)(third + 9 * PAGE) += 1000;
        _exit(0);
    }
    wait(NULL);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1) + 1000);
    /* what is taken out of the file reads as zero */
    CHECK(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16 * PAGE, 16 * PAGE));
    mapped_at_most(pages - 16 + 8);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1) + 1000 - sum_of(16, 17));
    vm_end(vm);
    close(fd);
}

static void test_shared(void)
{
    shared(memfd_create("guest", 0));
    shared(open("/dev/shm/guest", O_RDWR | O_CREAT | O_TRUNC, 0600));
}

/* A balloon's way, and fork's: pages that the process gives back or shares with a child */
static void test_discard(void)
{
    uint32_t pages = 1024;
    uint8_t *m = plain(pages * PAGE);
    struct vm v, *vm = vm_with(&v, m, pages * PAGE, 0);
    int go[2], status;
    pid_t child;

    write_pages(vm, pages, 1);
    CHECK(!madvise(m, pages / 2 * PAGE, MADV_DONTNEED));
    mapped_at_most(pages / 2 + 8);
    EQUAL(sum_pages(vm, pages), sum_of(pages / 2, 1 + pages / 2));
    write_pages(vm, pages, 1);
    CHECK(!pipe(go));
    child = fork();
    if (!child) { /* its copy is as it was at the fork */
        char byte;
        uint32_t sum = 0;

        CHECK(read(go[0], &byte, 1) == 1);
        for (uint32_t i = 0; i < pages; i++)
            sum += *(uint32_t *)(m + i * PAGE);
        _exit(sum != sum_of(pages, 1));
    }
    write_pages(vm, pages, 300);
    CHECK(write(go[1], "", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child);
    EQUAL(status, 0);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 300));
    vm_end(vm);
}

/* ---- userfaultfd
 * --------------------------------------------------------------------------------- */

struct pager {
    int uffd;
    uint64_t mode;
    uint8_t *alias; /* of shared memory, for minor faults */
    uint8_t *start;
    volatile uint32_t faults;
};

static void pager_answer(struct pager *p, uint64_t address)
{
    uint64_t page = address & ~(PAGE - 1);

    if (p->mode == UFFDIO_REGISTER_MODE_MISSING) {
        static uint32_t content[PAGE / 4];
        struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)content, .len = PAGE};

        content[0] = (page - (uintptr_t)p->start) / PAGE + 1;
        CHECK(!ioctl(p->uffd, UFFDIO_COPY, &copy));
    } else if (p->mode == UFFDIO_REGISTER_MODE_MINOR) {
        struct uffdio_continue go = {.range = {.start = page, .len = PAGE}};

        *(uint32_t *)(p->alias + (page - (uintptr_t)p->start)) += 1;
        CHECK(!ioctl(p->uffd, UFFDIO_CONTINUE, &go));
    } else {
        struct uffdio_writeprotect off = {.range = {.start = page, .len = PAGE}};

        CHECK(!ioctl(p->uffd, UFFDIO_WRITEPROTECT, &off));
    }
}

static void *pager_main(void *arg)
{
    struct pager *p = arg;
    struct uffd_msg message;

    while (read(p->uffd, &message, sizeof(message)) == sizeof(message)) {
        if (message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        p->faults++;
        pager_answer(p, message.arg.pagefault.address);
    }
    return NULL;
}

static void pager_start(struct pager *p, uint8_t *memory, size_t size, uint64_t mode,
                        uint8_t *alias)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features =
                                 mode == UFFDIO_REGISTER_MODE_MINOR ? UFFD_FEATURE_MINOR_SHMEM : 0};
    struct uffdio_register area = {.range = {.start = (uintptr_t)memory, .len = size},
                                   .mode = mode};
    pthread_t thread;

    *p = (struct pager){
        .uffd = syscall(SYS_userfaultfd, O_CLOEXEC), .mode = mode, .start = memory, .alias = alias};
    CHECK(p->uffd >= 0);
    CHECK(!ioctl(p->uffd, UFFDIO_API, &api));
    CHECK(!ioctl(p->uffd, UFFDIO_REGISTER, &area));
    CHECK(!pthread_create(&thread, NULL, pager_main, p));
}

static void test_uffd_missing(void)
{
    uint32_t pages = 512;
    uint8_t *m = plain(pages * PAGE);
    struct vm v, *vm;
    struct pager p;

    pager_start(&p, m, pages * PAGE, UFFDIO_REGISTER_MODE_MISSING, NULL);
    vm = vm_with(&v, m, pages * PAGE, 0);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1));
    EQUAL(p.faults, pages);
    CHECK(!madvise(m + 10 * PAGE, PAGE, MADV_DONTNEED)); /* as post-copy does */
    write_page(&vm->vcpu[0], 10, 5);
    EQUAL(p.faults, pages + 1);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1) - 11 + 5);
    vm_end(vm);
}

static void test_uffd_minor(void)
{
    uint32_t pages = 512;
    int fd = memfd_create("guest", 0);
    uint8_t *m, *alias;
    struct vm v, *vm;
    struct pager p;

    CHECK(!ftruncate(fd, pages * PAGE));
    m = memory_of(pages * PAGE, MAP_SHARED, fd);
    alias = memory_of(pages * PAGE, MAP_SHARED, fd);
    for (uint32_t i = 0; i < pages; i++)
        *(uint32_t *)(alias + i * PAGE) = i;
    pager_start(&p, m, pages * PAGE, UFFDIO_REGISTER_MODE_MINOR, alias);
    vm = vm_with(&v, m, pages * PAGE, 0);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1));
    EQUAL(p.faults, pages);
    vm_end(vm);
}

/* As background snapshots do: each first write waits for the pager, also where the guest could
 * write already. */
static void test_uffd_wp(void)
{
    uint32_t pages = 512;
    uint8_t *m = plain(pages * PAGE);
    struct vm v, *vm = vm_with(&v, m, pages * PAGE, 0);
    struct uffdio_writeprotect on = {.range = {.start = (uintptr_t)m, .len = pages * PAGE},
                                     .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    struct pager p;

    write_pages(vm, pages, 1);
    pager_start(&p, m, pages * PAGE, UFFDIO_REGISTER_MODE_WP, NULL);
    CHECK(!ioctl(p.uffd, UFFDIO_WRITEPROTECT, &on));
    EQUAL(sum_pages(vm, pages), sum_of(pages, 1));
    EQUAL(p.faults, 0);
    write_pages(vm, pages / 2, 50);
    EQUAL(p.faults, pages / 2);
    write_pages(vm, pages / 2, 60);
    EQUAL(p.faults, pages / 2);
    CHECK(!ioctl(p.uffd, UFFDIO_WRITEPROTECT, &on));
    write_pages(vm, pages, 70);
    EQUAL(p.faults, pages / 2 + pages);
    EQUAL(sum_pages(vm, pages), sum_of(pages, 70));
    vm_end(vm);
}

/* ---- many, and their ends
 * ------------------------------------------------------------------------- */

struct counts {
    struct socle_info socle;
    uint64_t available; /* kB */
    uint64_t objects;   /* kB of the kernel's that it cannot give back */
};

static struct counts counts(void)
{
    uint64_t on_lists; /* pages of the processors' own lists, free but not in MemAvailable */

    pause_ms(300); /* what RCU frees later */
    put("/proc/sys/vm/drop_caches", "3");
    on_lists = get("/proc/zoneinfo", "count:");
    return (struct counts){.socle = info(),
                           .available = get("/proc/meminfo", "MemAvailable:") + 4 * on_lists,
                           .objects = get("/proc/meminfo", "SUnreclaim:") +
                                      get("/proc/meminfo", "KernelStack:") +
                                      get("/proc/meminfo", "PageTables:")};
}

/* Socle's to the page; Linux keeps so many kB in its caches, at most. */
static void same_counts(const struct counts *before, uint64_t slack)
{
    struct counts after = counts();

    for (int i = 0; i < 50 && after.socle.domains != before->socle.domains; i++)
        after = counts();
    EQUAL(after.socle.domains, before->socle.domains);
    EQUAL(after.socle.vcpus, before->socle.vcpus);
    EQUAL(after.socle.frames_lent, before->socle.frames_lent);
    EQUAL(after.socle.pool_free_bytes, before->socle.pool_free_bytes);
    printf("MemAvailable %+lld kB, unreclaimable %+lld kB; ",
           (long long)(after.available - before->available),
           (long long)(after.objects - before->objects));
    CHECK(after.available + slack > before->available);
    CHECK(after.objects < before->objects + slack);
}

static void life(void)
{
    uint8_t *m = plain(64 * PAGE);
    struct vm v, *vm = vm_with(&v, m, 64 * PAGE, KVM_MEM_LOG_DIRTY_PAGES);
    uint64_t bits;

    write_pages(vm, 64, 1);
    EQUAL(sum_pages(vm, 64), sum_of(64, 1));
    CHECK(!dirty_log(vm, TEST_SLOT, &bits));
    EQUAL(bits, ~0ull);
    vm_end(vm);
    munmap(m, 64 * PAGE);
}

static uint32_t lives = 1000;

static void test_lives(void)
{
    struct counts before;

    life();
    before = counts();
    for (uint32_t i = 0; i < lives; i++)
        life();
    printf("%u VMs; ", lives);
    same_counts(&before, 3072); /* of a thousand VMs less than a page each */
}

static void test_many(void)
{
    enum { N = 64 };
    struct counts before = counts();
    struct vm vm[N];
    uint8_t *m[N];

    for (uint32_t i = 0; i < N; i++) {
        m[i] = plain(256 * PAGE);
        vm_with(&vm[i], m[i], 256 * PAGE, 0);
        write_pages(&vm[i], 256, i);
    }
    if (socle >= 0)
        EQUAL(info().domains, before.socle.domains + N);
    for (uint32_t i = 0; i < N; i++)
        EQUAL(sum_pages(&vm[i], 256), sum_of(256, i));
    for (uint32_t i = 0; i < N; i++) {
        vm_end(&vm[i]);
        munmap(m[i], 256 * PAGE);
    }
    same_counts(&before, 16384);
}

static void *spin_main(void *arg)
{
    run(arg);
    return NULL;
}

static void test_killed(void)
{
    struct counts before = counts();

    for (int i = 0; i < 8; i++) {
        int ready[2];
        pid_t child;
        char byte;

        CHECK(!pipe(ready));
        child = fork();
        if (!child) {
            uint8_t *m = plain(256 * PAGE);
            struct vm v, *vm = vm_with(&v, m, 256 * PAGE, 0);
            pthread_t thread;

            vcpu_new(vm);
            write_pages(vm, 256, 1);
            for (int j = 0; j < 2; j++) {
                prepare(&vm->vcpu[j], guest_spin, BASE + j * PAGE, 0, 0, 0);
                CHECK(!pthread_create(&thread, NULL, spin_main, &vm->vcpu[j]));
            }
            while (*(volatile uint32_t *)m < 1000 || *(volatile uint32_t *)(m + PAGE) < 1000)
                pause_ms(1);
            CHECK(write(ready[1], "", 1) == 1);
            pause();
        }
        close(ready[1]);
        EQUAL(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        CHECK(!kill(child, SIGKILL));
        CHECK(waitpid(child, NULL, 0) == child);
    }
    same_counts(&before, 16384);
}

/* ---- the list
 * ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*test)(void);
} tests[] = {
    {"region_errors", test_region_errors},
    {"log_errors", test_log_errors},
    {"ring_errors", test_ring_errors},
    {"no_memory", test_no_memory},
    {"read_only", test_read_only},
    {"dirty_log", test_dirty_log},
    {"clear_log", test_clear_log},
    {"initially_set", test_initially_set},
    {"dirty_ring", test_dirty_ring},
    {"huge_pages", test_huge_pages},
    {"hugetlb_2m", test_hugetlb_2m},
    {"hugetlb_1g", test_hugetlb_1g},
    {"ksm", test_ksm},
    {"swap", test_swap},
    {"overcommit", test_overcommit},
    {"hot", test_hot},
    {"numa", test_numa},
    {"shared", test_shared},
    {"discard", test_discard},
    {"uffd_missing", test_uffd_missing},
    {"uffd_minor", test_uffd_minor},
    {"uffd_wp", test_uffd_wp},
    {"lives", test_lives},
    {"many", test_many},
    {"killed", test_killed},
};

/* Each in a process of its own, so that one's end is not the others'. */
static void run_test(const char *name, void (*test)(void))
{
    int status = 0;
    pid_t child;

    printf("\n== %s\n", name);
    fflush(stdout);
    child = fork();
    if (!child) {
        test();
        puts("done");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("ended by signal %d\n", WTERMSIG(status));
    printf("\n== %s ended: %d\n", name, WIFEXITED(status) ? WEXITSTATUS(status) : 2);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    CHECK(kvm >= 0);
    socle = open("/dev/socle", O_RDWR | O_CLOEXEC);
    if (getenv("LIVES"))
        lives = atoi(getenv("LIVES"));
    for (int i = 1; i < argc; i++)
        for (size_t t = 0; t < sizeof(tests) / sizeof(tests[0]); t++)
            if (!strcmp(argv[i], tests[t].name) || !strcmp(argv[i], "all"))
                run_test(tests[t].name, tests[t].test);
    return 0;
}
