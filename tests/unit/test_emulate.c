/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/emulate.c core/gmem.c core/insn.c core/vlapic.c
/* The emulator: every form of instruction on MMIO against the processor that runs the test, with a
 * device behind dom0's protocol; and what guests, dom0 and races can do to that protocol. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/mman.h>
#include "guest_model.h"

#define CODE     0x41000000ull
#define CODE_GPA 0x5000ull
#define DEV      0x40000000ull /* two pages of MMIO; natively, two pages of memory */
#define DEV_GPA  0xfd000000ull
#define DEV_SIZE 8192
#define RAM      0x42000000ull /* two pages */
#define RAM_GPA  0x8000ull
#define STACK    0x43000000ull
#define APIC     0x44000000ull

static struct vcpu *const v = &model.v;
static u8 device[DEV_SIZE];
static u32 device_reads, device_writes;

static u64 random_state = 0x123456789abcdefull;

static u64 random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

/* ---- a guest with the device, and dom0 ---- */

static void start(enum model_mode mode)
{
    model_init(mode);
    for (u64 page = 0; page < 0x2000; page += PAGE_SIZE) {
        model_map(CODE + page, CODE_GPA + page, PG_U);
        model_page(CODE_GPA + page, PAGE_RAM);
        model_map(DEV + page, DEV_GPA + page, PG_W | PG_U);
        model_page(DEV_GPA + page, PAGE_MMIO);
        model_map(RAM + page, RAM_GPA + page, PG_W | PG_U);
        model_page(RAM_GPA + page, PAGE_RAM);
        model_map(STACK + page, RAM_GPA + 0x2000 + page, PG_W | PG_U);
        model_page(RAM_GPA + 0x2000 + page, PAGE_RAM);
    }
    model_map(APIC, APIC_DEFAULT_PA, PG_W);
    v->rip = CODE;
    v->gpr[RSP] = STACK + 0x1000;
    memset(device, 0, sizeof(device));
    device_reads = device_writes = 0;
}

#define CODE_IS(...)                                        \
    do {                                                    \
        const u8 bytes_[] = {__VA_ARGS__};                  \
        memcpy(model_at(CODE_GPA), bytes_, sizeof(bytes_)); \
    } while (0)

/* dom0's RUN: gives the answer, and goes on with the instruction. */
static enum vcpu_action run_answered(void)
{
    enum vcpu_action action;

    assert_int_not_equal(v->io.kind, IO_NONE);
    if (v->io.kind == IO_IN || v->io.kind == IO_MMIO_READ)
        v->io.data = load_u64(model.page.data);
    if (v->io.kind == IO_MMIO_WRITE) {
        v->io.kind = IO_NONE;
        return VCPU_RESUME;
    }
    action = emulate_complete(v);
    model_check_windows();
    return action;
}

static void device_access(void)
{
    u64 at = model.page.mmio.gpa - DEV_GPA, size = model.page.mmio.size;

    assert_int_equal(model.page.exit, SOCLE_EXIT_MMIO);
    assert_true(size >= 1 && size <= 8 && at <= DEV_SIZE - size);
    assert_true((at & 0xfff) + size <= PAGE_SIZE);
    if (model.page.mmio.write) {
        memcpy(device + at, model.page.data, size);
        memset(model.page.data, 0xa5, 8);
        device_writes++;
    } else {
        memset(model.page.data, 0xa5, 8); /* what is beyond the size is anything */
        memcpy(model.page.data, device + at, size);
        device_reads++;
    }
}

static enum vcpu_action npf(gpa_t gpa, bool write)
{
    enum vcpu_action action = exit_npf(v, gpa, write, false);

    model_check_windows();
    return action;
}

/* Serves MMIO exits until something else happens. */
static enum vcpu_action serve(enum vcpu_action action)
{
    while (action == VCPU_EXIT && model.page.exit == SOCLE_EXIT_MMIO) {
        device_access();
        action = run_answered();
    }
    return action;
}

static void assert_exit(enum vcpu_action action, enum socle_exit reason)
{
    assert_int_equal(action, VCPU_EXIT);
    assert_int_equal(model.page.exit, reason);
}

static void assert_mmio(enum vcpu_action action, bool write, gpa_t gpa, u8 size)
{
    assert_exit(action, SOCLE_EXIT_MMIO);
    assert_int_equal(model.page.mmio.write, write);
    assert_int_equal(model.page.mmio.gpa, gpa);
    assert_int_equal(model.page.mmio.size, size);
}

static void assert_raised(enum vcpu_action action, u8 vector)
{
    assert_int_equal(action, VCPU_RESUME);
    assert_true(v->event.valid);
    assert_int_equal(v->event.vector, vector);
}

/* ---- against the processor ---- */

static struct {
    u64 gpr[16];
    u64 rflags;
} native;

static u8 *native_code, *native_device;

static u8 *put(u8 *p, const void *bytes, size_t n)
{
    memcpy(p, bytes, n);
    return p + n;
}
#define PUT(p, ...) put(p, (u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}))

static u8 *put_address(u8 *p, const void *address)
{
    return put(PUT(p, 0x48, 0xb8), &address, 8); /* mov rax, address */
}

static u8 *put_registers(u8 *p, u8 opcode)
{
    for (u8 r = 1; r < 16; r++)
        if (r != RSP)
            p = PUT(p, r < 8 ? 0x48 : 0x4c, opcode, (u8)(0x40 | (r & 7) << 3), (u8)(r * 8));
    return p;
}

/* Executes the instruction with native's registers; all but RSP count. */
static void run_native(const u8 *bytes, u8 length)
{
    void *rax = &native.gpr[RAX];
    u8 *p = native_code;

    p = PUT(p, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push */
    p = PUT(put_address(p, &native.rflags), 0xff, 0x30, 0x9d);              /* push [rax]; popf */
    p = put_registers(put_address(p, native.gpr), 0x8b);
    p = PUT(p, 0x48, 0x8b, 0x00);
    p = put(p, bytes, length);
    p = put(PUT(p, 0x48, 0xa3), &rax, 8); /* mov [rax's place], rax */
    p = put_registers(put_address(p, native.gpr), 0x89);
    p = PUT(p, 0x9c, 0x8f, 0x80, 0x80, 0, 0, 0, 0xfc); /* pushf; pop [rax + 128]; cld */
    p = PUT(p, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
    ((void (*)(void))(uintptr_t)native_code)();
}

static bool is_string(enum insn_op op)
{
    return op >= INSN_MOVS && op <= INSN_SCAS;
}

static bool is_bit(enum insn_op op)
{
    return op >= INSN_BT && op <= INSN_BTC;
}

/* The nested page fault that the processor would have at the instruction at rip now. */
static enum vcpu_action fault_at_rip(void)
{
    struct insn i;
    u64 address;
    bool write;

    assert_int_equal(insn_decode(&i, model_at(CODE_GPA), 15, INSN_MODE_64), 0);
    address = insn_effective_address(&i, v->gpr, v->rip, 0);
    write = i.mem_write && i.op != INSN_MOVS;
    return npf(DEV_GPA + (address - DEV), write);
}

/* Bits of the flags that the manuals define after this instruction. */
static u64 defined_flags(const struct insn *i)
{
    u64 all = BIT(0) | BIT(2) | BIT(4) | BIT(6) | BIT(7) | BIT(11);

    if (i->op >= INSN_ROL && i->op <= INSN_SAR)
        return 0;
    if (is_bit(i->op))
        return BIT(0) | BIT(6);
    if (i->op == INSN_AND || i->op == INSN_OR || i->op == INSN_XOR || i->op == INSN_TEST)
        return all & ~BIT(4);
    return all;
}

static void random_registers(const struct insn *i)
{
    bool aligned = i->lock || i->op == INSN_XCHG || i->op == INSN_CMPXCHG8B;
    u64 offset = random_u64() % 4090;

    for (u32 r = 0; r < 16; r++)
        v->gpr[r] = random_u64() >> random_u64() % 64;
    if (is_bit(i->op) && !i->has_imm)
        v->gpr[i->reg] &= 0x3fff;
    v->gpr[RBX] = DEV + (aligned ? offset & ~15ull : offset);
    v->rflags = RFLAGS_FIXED | (random_u64() & 0x8d5);
    if (is_string(i->op)) {
        v->gpr[RSI] = DEV + 2048 + random_u64() % 4096;
        v->gpr[RDI] = DEV + 2048 + random_u64() % 4096;
        v->gpr[RCX] = 1 + random_u64() % 100;
        v->rflags |= random_u64() & RFLAGS_DF;
    }
}

static void random_device(const struct insn *i)
{
    for (u32 n = 0; n < DEV_SIZE; n++)
        device[n] = (u8)random_u64();
    if (i->op == INSN_CMPS || i->op == INSN_SCAS) {
        memset(device, (int)v->gpr[RAX] & 1, DEV_SIZE);
        device[random_u64() % DEV_SIZE] = 7;
    } else if (i->op == INSN_CMPXCHG && random_u64() & 1) {
        memcpy(device + (v->gpr[RBX] - DEV), &v->gpr[RAX], 8);
    } else if (i->op == INSN_CMPXCHG8B && random_u64() & 1) {
        memcpy(device + (v->gpr[RBX] - DEV), &v->gpr[RAX], i->mem_size / 2);
        memcpy(device + (v->gpr[RBX] - DEV) + i->mem_size / 2, &v->gpr[RDX], i->mem_size / 2);
    }
    memcpy(native_device, device, DEV_SIZE);
}

static void compare(const struct insn *i, const u8 *bytes)
{
    u64 flags = defined_flags(i);
    bool good = !((native.rflags ^ v->rflags) & flags);

    native.gpr[RSP] = v->gpr[RSP];
    good &= !memcmp(native.gpr, v->gpr, sizeof(native.gpr));
    good &= !memcmp(native_device, device, DEV_SIZE);
    if (good)
        return;
    for (u32 n = 0; n < i->length; n++)
        print_error("%02x ", bytes[n]);
    for (u32 r = 0; r < 16; r++)
        if (native.gpr[r] != v->gpr[r])
            print_error(" register %u: %llx, processor %llx", r, (unsigned long long)v->gpr[r],
                        (unsigned long long)native.gpr[r]);
    print_error(" flags %llx, processor %llx\n", (unsigned long long)(v->rflags & flags),
                (unsigned long long)(native.rflags & flags));
    fail();
}

static void check_against_processor(const struct insn *i, const u8 *bytes)
{
    enum vcpu_action action = VCPU_RESUME;

    random_registers(i);
    random_device(i);
    memcpy(model_at(CODE_GPA), bytes, 15);
    v->rip = CODE;
    memcpy(native.gpr, v->gpr, sizeof(native.gpr));
    native.rflags = v->rflags;
    run_native(bytes, i->length);
    for (u32 n = 0; v->rip == CODE && n < 200; n++) {
        action = serve(fault_at_rip());
        assert_int_equal(action, VCPU_RESUME);
        assert_false(v->event.valid);
    }
    assert_int_equal(v->rip, CODE + i->length);
    assert_true(v->retired);
    compare(i, bytes);
}

/* Instructions that are emulated and that the processor can be asked about. */
static bool is_wanted(const struct insn *i, bool has_movbe)
{
    bool known = is_string(i->op) || (i->base == RBX && i->index == INSN_NO_REG && !i->disp) ||
                 (i->base == INSN_NO_REG && (u64)i->disp - DEV < DEV_SIZE);
    bool bit_of_base = is_bit(i->op) && !i->has_imm && i->reg == RBX;

    if (!i->has_mem || !known || i->seg >= INSN_FS || i->addr_size != 8 || bit_of_base ||
        (i->reg == RSP && !i->reg_high))
        return false;
    if (i->op == INSN_MOVBE)
        return has_movbe;
    return i->op <= INSN_MOVBE || is_string(i->op);
}

static u8 make_bytes(u8 bytes[24], u32 map, u8 opcode)
{
    static const u8 prefixes[][2] = {{0x90}, {0x66}, {0x48},       {0x40},
                                     {0x4c}, {0x44}, {0xf0},       {0xf0, 0x48},
                                     {0xf3}, {0xf2}, {0xf3, 0x48}, {0x66, 0xf2}};
    const u8 *prefix = prefixes[random_u64() % ARRAY_SIZE(prefixes)];
    u64 address = DEV + random_u64() % 4096, immediate = random_u64();
    u8 *p = bytes;

    for (u32 n = 0; n < 2 && prefix[n] && prefix[n] != 0x90; n++)
        *p++ = prefix[n];
    if (map)
        *p++ = 0x0f;
    if (map == 2)
        *p++ = 0x38;
    *p++ = opcode;
    if (map == 0 && opcode >= 0xa0 && opcode <= 0xa3)
        p = put(p, &address, 8);
    else
        *p++ = (u8)(0x03 | (random_u64() & 7) << 3); /* [rbx] */
    p = put(p, &immediate, 8);
    return (u8)(p - bytes);
}

static void like_the_processor(void **state)
{
    bool has_movbe = cpuid(1, 0).ecx & BIT(22);
    u32 done[256] = {0};
    struct insn i;
    u8 bytes[24];

    (void)state;
    start(MODE_LONG);
    for (u32 n = 0; n < 60000; n++) {
        u32 map = random_u64() % 3;
        u8 opcode = (u8)(map == 2 ? 0xf0 | (random_u64() & 1) : random_u64());
        u8 length = make_bytes(bytes, map, opcode);

        if (insn_decode(&i, bytes, MIN(length, 15), INSN_MODE_64) || !is_wanted(&i, has_movbe))
            continue;
        check_against_processor(&i, bytes);
        done[i.op]++;
    }
    for (enum insn_op op = INSN_ADD; op <= INSN_SCAS; op++)
        if (op != INSN_MOV_SREG && op != INSN_PUSH && op != INSN_POP &&
            (op != INSN_MOVBE || has_movbe))
            assert_true(done[op] > 0);
}

/* ---- MMIO and dom0 ---- */

static void read_and_write(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x8b, 0x03, 0x89, 0x43, 0x04); /* mov eax,[rbx]; mov [rbx+4],eax */
    v->gpr[RBX] = DEV + 0x10;
    v->gpr[RAX] = ~0ull;
    memcpy(device + 0x10, "\x78\x56\x34\x12\xff", 5);
    assert_mmio(npf(DEV_GPA + 0x10, false), false, DEV_GPA + 0x10, 4);
    assert_int_equal(v->rip, CODE); /* nothing has happened yet */
    assert_int_equal(v->gpr[RAX], ~0ull);
    device_access();
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 2);
    assert_int_equal(v->gpr[RAX], 0x12345678);
    assert_int_equal(v->io.kind, IO_NONE);
    assert_mmio(npf(DEV_GPA + 0x14, true), true, DEV_GPA + 0x14, 4);
    assert_int_equal(model.page.rip, CODE + 5); /* a write is posted: the instruction is over */
    assert_int_equal(load_u32(model.page.data), 0x12345678);
    assert_int_equal(v->io.kind, IO_MMIO_WRITE);
    assert_int_equal(v->count[SOCLE_STAT_MMIO], 2);
}

static void memory_needs_no_emulation(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0xf0, 0x01, 0x03); /* lock add [rbx],eax */
    v->gpr[RBX] = RAM + 8;
    assert_int_equal(npf(DEV_GPA, true), VCPU_RESUME);
    assert_int_equal(v->rip, CODE);
    assert_int_equal(load_u32(model_at(RAM_GPA + 8)), 0);
    CODE_IS(0xf3, 0xa4);
    v->gpr[RSI] = v->gpr[RDI] = RAM + 8;
    v->gpr[RCX] = 5;
    assert_int_equal(npf(DEV_GPA, true), VCPU_RESUME);
    assert_int_equal(v->gpr[RCX], 5);
    CODE_IS(0x01, 0xc0); /* add eax,eax: has no memory at all */
    assert_int_equal(npf(DEV_GPA, true), VCPU_RESUME);
    assert_int_equal(v->rip, CODE);
    assert_int_equal(model.exits, 0);
}

/* 16 bytes over the end of a page: three pieces each way. */
static void crossing(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x48, 0x0f, 0xc7, 0x0b); /* cmpxchg16b [rbx] */
    v->gpr[RBX] = DEV + 0xffd;
    v->gpr[RAX] = 1;
    for (u32 i = 0; i < 16; i++)
        device[0xffd + i] = (u8)(0x10 + i);
    assert_int_equal(serve(npf(DEV_GPA + 0xffd, true)), VCPU_RESUME);
    assert_int_equal(v->gpr[RAX], 0x1716151413121110);
    assert_int_equal(v->gpr[RDX], 0x1f1e1d1c1b1a1918);
    assert_int_equal(v->rip, CODE + 4);
    assert_int_equal(device_reads, 3);
    assert_int_equal(device_writes, 3);
    assert_int_equal(v->io.kind, IO_NONE);
    /* From memory into the device. */
    CODE_IS(0x48, 0x89, 0x03); /* mov [rbx],rax */
    v->rip = CODE;
    model_map(DEV + 0x1000, RAM_GPA, PG_W);
    assert_mmio(npf(DEV_GPA + 0xffd, true), true, DEV_GPA + 0xffd, 3);
    assert_memory_equal(model.page.data, "\x10\x11\x12", 3);
    assert_memory_equal(model_at(RAM_GPA), "\x13\x14\x15\x16\x17", 5);
    assert_int_equal(run_answered(), VCPU_RESUME);
    CODE_IS(0x48, 0x8b, 0x0b); /* mov rcx,[rbx] */
    v->rip = CODE;
    memcpy(device + 0xffd, "abc", 3);
    assert_int_equal(serve(npf(DEV_GPA + 0xffd, false)), VCPU_RESUME);
    assert_int_equal(v->gpr[RCX], 0x1716151413636261);
}

static void doorbells(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x66, 0x89, 0x03);
    v->gpr[RBX] = DEV + 0x20;
    v->gpr[RAX] = 0x12345;
    model.bell = DEV_GPA + 0x20;
    assert_int_equal(npf(DEV_GPA + 0x20, true), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 3);
    assert_int_equal(model.bells, 1);
    assert_int_equal(model.bell_data, 0x2345);
    assert_int_equal(model.exits, 0);
    assert_int_equal(v->count[SOCLE_STAT_DOORBELL], 1);
    model.bell_pio = true;
    model.bell = 0xc050;
    v->next_rip = CODE + 1;
    v->rip = CODE;
    assert_int_equal(exit_io(v, 0xc050, 1, false), VCPU_RESUME);
    assert_int_equal(model.bells, 2);
    assert_int_equal(model.bell_data, 0x45);
    assert_int_equal(v->rip, CODE + 1);
    assert_exit(exit_io(v, 0xc050, 1, true), SOCLE_EXIT_IO); /* a read is none */
}

/* The guest, or dom0, changes something while the answer is on its way. */
static void changed_before_the_answer(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x8b, 0x03);
    v->gpr[RBX] = DEV;
    assert_mmio(npf(DEV_GPA, false), false, DEV_GPA, 4);
    CODE_IS(0x8a, 0x4b, 0x08); /* mov cl,[rbx+8]: the answer is not its */
    device_access();
    memset(model.page.data, 0x77, 8);
    assert_mmio(run_answered(), false, DEV_GPA + 8, 1);
    device[8] = 0x42;
    device_access();
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->gpr[RCX], 0x42);
    v->rip = CODE; /* another size */
    CODE_IS(0x8b, 0x03);
    assert_mmio(npf(DEV_GPA, false), false, DEV_GPA, 4);
    CODE_IS(0x8a, 0x03);
    assert_mmio(run_answered(), false, DEV_GPA, 1);
    CODE_IS(0x90); /* not even MMIO */
    v->gpr[RAX] = 5;
    assert_int_equal(model.exits, 4);
    v->rip = CODE + 0x100; /* dom0 has set registers: nothing is completed there */
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 0x100);
    assert_int_equal(v->gpr[RAX], 5);
    assert_int_equal(v->replay.reads, 0);
    v->rip = CODE;
    CODE_IS(0x8b, 0x03);
    assert_mmio(npf(DEV_GPA, false), false, DEV_GPA, 4);
    model_store(model_entry(CODE, 1), 0);
    assert_raised(run_answered(), VEC_PF);
    assert_int_equal(v->event.error, PF_FETCH);
    assert_int_equal(v->sregs.cr2, CODE);
}

/* A page is needed between the read and the end: the device is not read again. */
static void fault_after_the_read(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0xa5); /* movsd */
    v->gpr[RSI] = DEV;
    v->gpr[RDI] = RAM;
    memcpy(device, "wxyz", 4);
    assert_mmio(npf(DEV_GPA, false), false, DEV_GPA, 4);
    device_access();
    model_page(RAM_GPA, PAGE_NONE);
    assert_exit(run_answered(), SOCLE_EXIT_FAULT);
    assert_int_equal(model.page.fault.gpa, RAM_GPA);
    assert_true(model.page.fault.write);
    memset(model.page.data, 0x5a, 8);
    model_page(CODE_GPA, PAGE_NONE);
    model_page(RAM_GPA, PAGE_RAM);
    assert_exit(run_answered(), SOCLE_EXIT_FAULT);
    assert_int_equal(model.page.fault.gpa, CODE_GPA);
    assert_true(model.page.fault.fetch);
    model_page(CODE_GPA, PAGE_RAM);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_memory_equal(model_at(RAM_GPA), "wxyz", 4);
    assert_int_equal(device_reads, 1);
    assert_int_equal(v->gpr[RSI], DEV + 4);
    assert_int_equal(v->gpr[RDI], RAM + 4);
    assert_int_equal(v->rip, CODE + 1);
}

static void string_moves(void **state)
{
    u8 want[100];

    (void)state;
    start(MODE_LONG);
    CODE_IS(0xf3, 0xa4); /* rep movsb from the device to memory */
    v->gpr[RSI] = DEV + 0x30;
    v->gpr[RDI] = RAM + 0xff0;
    v->gpr[RCX] = 100;
    for (u32 i = 0; i < 100; i++)
        want[i] = device[0x30 + i] = (u8)(i * 3 + 1);
    while (v->rip == CODE)
        assert_int_equal(serve(npf(DEV_GPA + (v->gpr[RSI] - DEV), false)), VCPU_RESUME);
    assert_int_equal(device_reads, 100);
    assert_memory_equal(model_at(RAM_GPA + 0xff0), want, 16);
    assert_memory_equal(model_at(RAM_GPA + 0x1000), want + 16, 84);
    v->rip = CODE; /* two reads at the same offset of two pages */
    CODE_IS(0xa6, 0xf3, 0xa4);
    v->gpr[RSI] = DEV + 0x30;
    v->gpr[RDI] = RAM + 0x30;
    *model_at(RAM_GPA + 0x30) = device[0x30] + 1;
    assert_int_equal(serve(npf(DEV_GPA + 0x30, false)), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 1);
    assert_int_equal(v->rflags & (RFLAGS_ZF | BIT(0)), BIT(0));
    device_reads = 0;
    CODE_IS(0xf3, 0xa4);
    /* ... and back, until a page fault in the middle. */
    v->rip = CODE;
    v->gpr[RDI] = DEV + 0x200;
    v->gpr[RSI] = RAM + 0xff0;
    v->gpr[RCX] = 100;
    model_store(model_entry(RAM + 0x1000, 1), 0);
    while (!v->event.valid)
        assert_int_equal(serve(npf(DEV_GPA + (v->gpr[RDI] - DEV), true)), VCPU_RESUME);
    assert_int_equal(v->sregs.cr2, RAM + 0x1000);
    assert_int_equal(v->gpr[RCX], 84);
    assert_int_equal(v->gpr[RSI], RAM + 0x1000);
    assert_int_equal(v->rip, CODE);
    assert_memory_equal(device + 0x200, want, 16);
    assert_int_equal(device_writes, 16);
}

static void stack_operands(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0xff, 0x33, 0x8f, 0x43, 0x08); /* push [rbx]; pop [rbx+8] */
    v->gpr[RBX] = DEV;
    memcpy(device, "\1\2\3\4\5\6\7\x8", 8);
    assert_int_equal(serve(npf(DEV_GPA, false)), VCPU_RESUME);
    assert_int_equal(v->gpr[RSP], STACK + 0xff8);
    assert_memory_equal(model_at(RAM_GPA + 0x2ff8), device, 8);
    assert_int_equal(serve(npf(DEV_GPA + 8, true)), VCPU_RESUME);
    assert_int_equal(v->gpr[RSP], STACK + 0x1000);
    assert_memory_equal(device + 8, device, 8);
    assert_int_equal(v->rip, CODE + 5);
    start(MODE_FLAT32); /* 16-bit operand, 32-bit stack */
    memcpy(model_page(0x6000, PAGE_RAM), (u8[]){0x66, 0xff, 0x33}, 3);
    v->rip = 0x6000;
    v->gpr[RBX] = DEV_GPA + 2;
    v->gpr[RSP] = RAM_GPA + 0x100;
    memcpy(device, "abcdef", 6);
    assert_int_equal(serve(npf(DEV_GPA + 2, false)), VCPU_RESUME);
    assert_memory_equal(model_at(RAM_GPA + 0xfe), "cd", 2);
    assert_int_equal(v->gpr[RSP], RAM_GPA + 0xfe);
}

static void segments_and_modes(void **state)
{
    (void)state;
    start(MODE_REAL);
    v->sregs.seg[SOCLE_SEG_CS].base = 0x5000;
    v->sregs.seg[SOCLE_SEG_ES].base = 0xfcfff000;
    memcpy(model_at(0x5ffe), (u8[]){0x26, 0xa0}, 2); /* mov al,es:[0x1234], over the page's end */
    memcpy(model_at(0x6000), (u8[]){0x34, 0x12}, 2);
    v->rip = 0xffe;
    device[0x234] = 0x99;
    assert_int_equal(serve(npf(DEV_GPA + 0x234, false)), VCPU_RESUME);
    assert_int_equal(v->gpr[RAX], 0x99);
    assert_int_equal(v->rip, 0x1002);
    v->sregs.seg[SOCLE_SEG_ES].selector = 0xbeef;
    memcpy(model_at(0x5000), (u8[]){0x26, 0x8c, 0x06, 0x00, 0x10}, 5); /* mov es:[0x1000],es */
    v->rip = 0;
    assert_int_equal(serve(npf(DEV_GPA, true)), VCPU_RESUME);
    assert_memory_equal(device, "\xef\xbe", 2);
    start(MODE_LONG);
    CODE_IS(0x65, 0x8b, 0x03); /* mov eax,gs:[rbx] */
    v->sregs.seg[SOCLE_SEG_GS].base = DEV - 0x1000;
    v->sregs.seg[SOCLE_SEG_DS].base = 0x777000; /* ignored in 64-bit mode */
    v->gpr[RBX] = 0x1040;
    device[0x40] = 7;
    assert_int_equal(serve(npf(DEV_GPA + 0x40, false)), VCPU_RESUME);
    assert_int_equal(v->gpr[RAX], 7);
    v->rip = CODE;
    CODE_IS(0x8b, 0x03);
    v->gpr[RBX] = DEV + 0x40;
    assert_int_equal(serve(npf(DEV_GPA + 0x40, false)), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 2);
}

static void rom(void **state)
{
    (void)state;
    start(MODE_LONG);
    model_page(RAM_GPA, PAGE_ROM);
    *model_at(RAM_GPA + 4) = 0x40;
    CODE_IS(0x80, 0x03, 0x02); /* add byte [rbx],2 */
    v->gpr[RBX] = RAM + 4;
    assert_mmio(npf(RAM_GPA + 4, true), true, RAM_GPA + 4, 1);
    assert_int_equal(model.page.data[0], 0x42);
    assert_int_equal(*model_at(RAM_GPA + 4), 0x40);
    assert_int_equal(npf(RAM_GPA, false), VCPU_RESUME);
}

static void local_apic(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x8b, 0x83, 0x30, 0, 0, 0, 0x89, 0x83, 0x80, 0, 0, 0); /* version; TPR */
    v->gpr[RBX] = APIC;
    assert_int_equal(npf(APIC_DEFAULT_PA + 0x30, false), VCPU_RESUME);
    assert_int_equal(v->gpr[RAX], vlapic_mmio_read(&v->lapic, 0x30, 0));
    v->gpr[RAX] = 0x50;
    assert_int_equal(npf(APIC_DEFAULT_PA + 0x80, true), VCPU_RESUME);
    assert_int_equal(vlapic_cr8(&v->lapic), 5);
    assert_int_equal(v->rip, CODE + 12);
    v->rip = CODE;
    CODE_IS(0xc7, 0x83, 0x00, 0x03, 0, 0, 0x31, 0x40, 0x0c, 0); /* ICR: 31h to all others */
    assert_int_equal(npf(APIC_DEFAULT_PA + 0x300, true), VCPU_RESUME);
    assert_int_equal(model.effects, 2);
    assert_true(model.effect.flags & VLAPIC_IPI);
    assert_int_equal(model.effect.icr & 0xff, 0x31);
    assert_int_equal(model.exits, 0);
    assert_int_equal(v->count[SOCLE_STAT_APIC_MMIO], 3);
    v->rip = CODE;
    v->page = NULL; /* dom0 has one too */
    assert_int_equal(npf(APIC_DEFAULT_PA + 0x300, true), VCPU_RESUME);
    v->page = &model.page;
    v->lapic.base |= APIC_BASE_X2APIC; /* x2APIC: the page is like any other */
    assert_exit(npf(APIC_DEFAULT_PA, true), SOCLE_EXIT_FAULT);
    v->lapic.base &= ~APIC_BASE_X2APIC;
    v->lapic.base += 0x200000; /* elsewhere, once dom0 has said that no memory is there */
    assert_exit(npf(APIC_DEFAULT_PA + 0x200000, true), SOCLE_EXIT_FAULT);
    assert_exit(npf(APIC_DEFAULT_PA, true), SOCLE_EXIT_FAULT);
    model_page(APIC_DEFAULT_PA + 0x200000, PAGE_MMIO);
    model_map(APIC, APIC_DEFAULT_PA + 0x200000, PG_W);
    v->rip = CODE;
    assert_int_equal(npf(APIC_DEFAULT_PA + 0x200300, true), VCPU_RESUME);
    assert_int_equal(v->count[SOCLE_STAT_APIC_MMIO], 5);
    model_map(APIC, APIC_DEFAULT_PA, PG_W);
    v->lapic.base -= 0x200000;
    model.domain.flags = 0;
    assert_exit(npf(APIC_DEFAULT_PA, true), SOCLE_EXIT_FAULT);
    model_page(APIC_DEFAULT_PA, PAGE_MMIO);
    v->rip = CODE;
    assert_mmio(npf(APIC_DEFAULT_PA + 0x300, true), true, APIC_DEFAULT_PA + 0x300, 4);
}

static void faults(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x8b, 0x03);
    assert_exit(npf(0x77123, true), SOCLE_EXIT_FAULT);
    assert_int_equal(model.page.fault.gpa, 0x77123);
    assert_true(model.page.fault.write && !model.page.fault.fetch && !model.page.fault.present);
    assert_exit(exit_npf(v, 0x77123, false, true), SOCLE_EXIT_FAULT);
    assert_true(!model.page.fault.write && model.page.fault.fetch);
    model_page(0x77000, PAGE_READONLY);
    assert_exit(npf(0x77123, true), SOCLE_EXIT_FAULT);
    assert_true(model.page.fault.present);
    assert_int_equal(v->count[SOCLE_STAT_FAULT], 3);
    assert_int_equal(npf(0x77123, false), VCPU_RESUME);
    assert_int_equal(exit_npf(v, 0x77123, false, true), VCPU_RESUME);
    assert_int_equal(v->io.kind, IO_NONE);
    assert_false(v->event.valid);
    v->page = NULL;
    assert_raised(npf(0x99000, false), VEC_GP);
    v->event.valid = false;
    assert_raised(npf(DEV_GPA, false), VEC_GP);
    v->event.valid = false;
    assert_int_equal(npf(0x77123, false), VCPU_RESUME);
    assert_false(v->event.valid);
}

static void beyond_the_emulator(void **state)
{
    const u8 fld[] = {0xd9, 0x03};

    (void)state;
    start(MODE_LONG);
    memcpy(model_at(CODE_GPA), fld, 2);
    v->gpr[RBX] = DEV;
    assert_exit(npf(DEV_GPA, false), SOCLE_EXIT_EMULATION);
    assert_int_equal(model.page.insn.length, 15);
    assert_memory_equal(model.page.insn.bytes, fld, 2);
    assert_int_equal(v->rip, CODE);
    model_set_cpl(3);
    assert_raised(npf(DEV_GPA, false), VEC_UD);
    model_set_cpl(0);
    CODE_IS(0x8b, 0x03);
    v->event.valid = true; /* the access is the delivery's, not the instruction's */
    assert_exit(npf(DEV_GPA, false), SOCLE_EXIT_EMULATION);
    v->event.valid = false;
    assert_exit(exit_npf(v, DEV_GPA, false, true), SOCLE_EXIT_EMULATION);
    v->gpr[RBX] = APIC;
    v->page = NULL;
    memcpy(model_at(CODE_GPA), fld, 2);
    assert_raised(npf(APIC_DEFAULT_PA, false), VEC_UD);
}

/* What a user may put in the place of an MMIO instruction is not carried out with the guest
 * kernel's rights. */
static void swapped_instructions(void **state)
{
    (void)state;
    start(MODE_LONG);
    model_set_cpl(3);
    v->gpr[RDI] = DEV;
    CODE_IS(0x6c); /* insb */
    assert_int_equal(npf(DEV_GPA, true), VCPU_RESUME);
    CODE_IS(0x44, 0x0f, 0x22, 0xc0); /* mov cr8,rax */
    assert_int_equal(npf(DEV_GPA, true), VCPU_RESUME);
    assert_int_equal(exit_emulate(v), VCPU_RESUME);
    CODE_IS(0xc6, 0x07, 0x01); /* mov byte [rdi],1: not what exits for a port or CR8 */
    assert_int_equal(exit_emulate(v), VCPU_RESUME);
    CODE_IS(0x06);
    assert_int_equal(exit_emulate(v), VCPU_RESUME);
    assert_false(v->event.valid);
    assert_int_equal(v->rip, CODE);
    assert_int_equal(model.exits, 0);
    /* A page that the user may not write; the fault was another's. */
    CODE_IS(0xc6, 0x07, 0x01);
    model_map(DEV, DEV_GPA, PG_U);
    assert_raised(npf(DEV_GPA, false), VEC_PF);
    assert_int_equal(v->event.error, PF_PRESENT | PF_WRITE | PF_USER);
}

/* ---- ports ---- */

static void in_and_out(void **state)
{
    static const u64 want[] = {0x1122334455667799, 0x112233445566aa99, 0xddbbaa99};

    (void)state;
    start(MODE_LONG);
    for (u32 i = 0; i < 3; i++) {
        v->rip = CODE;
        v->next_rip = CODE + 2;
        v->retired = false;
        v->gpr[RAX] = 0x1122334455667788;
        assert_exit(exit_io(v, 0x60, 1 << i, false), SOCLE_EXIT_IO);
        assert_int_equal(load_u64(model.page.data), 0x1122334455667788 & (BIT(8 << i) - 1));
        assert_true(model.page.io.port == 0x60 && model.page.io.size == 1 << i);
        assert_true(!model.page.io.in && model.page.io.count == 1);
        assert_int_equal(model.page.rip, CODE);
        memset(model.page.data, 0, 8);
        assert_int_equal(run_answered(), VCPU_RESUME);
        assert_int_equal(v->rip, CODE + 2);
        assert_int_equal(v->gpr[RAX], 0x1122334455667788);
        v->rip = CODE;
        v->next_rip = CODE + 2;
        assert_exit(exit_io(v, 0x64, 1 << i, true), SOCLE_EXIT_IO);
        assert_true(model.page.io.in);
        memcpy(model.page.data, "\x99\xaa\xbb\xdd\xff\xff\xff\xff", 8);
        v->next_rip = 0;
        assert_int_equal(run_answered(), VCPU_RESUME);
        assert_int_equal(v->gpr[RAX], want[i]);
        assert_int_equal(v->rip, CODE + 2);
        assert_true(v->retired);
    }
    assert_exit(exit_io(v, 0x64, 1, true), SOCLE_EXIT_IO);
    v->rip = 0x1000;
    v->gpr[RAX] = 0;
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->rip, 0x1000);
    assert_int_equal(v->gpr[RAX], 0);
    v->page = NULL;
    assert_raised(exit_io(v, 0x64, 1, true), VEC_GP);
}

static void assert_io(enum vcpu_action action, bool in, u16 port, u8 size, u32 count)
{
    assert_exit(action, SOCLE_EXIT_IO);
    assert_int_equal(model.page.io.in, in);
    assert_int_equal(model.page.io.port, port);
    assert_int_equal(model.page.io.size, size);
    assert_int_equal(model.page.io.count, count);
}

static void outs(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0xf3, 0x6f); /* rep outsd */
    for (u32 i = 0; i < 0x2000; i++)
        *model_at(RAM_GPA + i) = (u8)(i ^ i >> 8);
    v->gpr[RSI] = RAM + 0x102;
    v->gpr[RCX] = 2000;
    v->gpr[RDX] = 0xabc01f0;
    assert_io(exit_emulate(v), false, 0x1f0, 4, 256);
    assert_memory_equal(model.page.data, model_at(RAM_GPA + 0x102), 1024);
    assert_int_equal(v->gpr[RCX], 2000); /* registers change at the end, not at the exit */
    assert_int_equal(v->gpr[RSI], RAM + 0x102);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->gpr[RCX], 2000 - 256);
    assert_int_equal(v->gpr[RSI], RAM + 0x502);
    assert_int_equal(v->rip, CODE);
    v->gpr[RSI] = RAM + 0xf02; /* up to the page's end ... */
    assert_io(exit_emulate(v), false, 0x1f0, 4, 63);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_io(exit_emulate(v), false, 0x1f0, 4, 1); /* ... one that crosses it */
    assert_memory_equal(model.page.data, model_at(RAM_GPA + 0xffe), 2);
    assert_memory_equal(model.page.data + 2, model_at(RAM_GPA + 0x1000), 2);
    assert_int_equal(run_answered(), VCPU_RESUME);
    v->gpr[RCX] = 3;
    assert_io(exit_emulate(v), false, 0x1f0, 4, 3);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->rip, CODE + 2);
    assert_int_equal(v->gpr[RCX], 0);
    v->rip = CODE;
    v->retired = false;
    assert_int_equal(exit_emulate(v), VCPU_RESUME); /* nothing to do */
    assert_int_equal(v->rip, CODE + 2);
    assert_true(v->retired);
    v->rip = CODE;
    v->gpr[RCX] = 9;
    v->gpr[RSI] = DEV;
    assert_exit(exit_emulate(v), SOCLE_EXIT_EMULATION);
}

static void ins(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0xf3, 0x66, 0x6d); /* rep insw */
    v->gpr[RDI] = RAM + 0xffc;
    v->gpr[RCX] = 5;
    v->gpr[RDX] = 0x1f0;
    assert_io(exit_emulate(v), true, 0x1f0, 2, 2);
    memcpy(model.page.data, "qrst", 4);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_memory_equal(model_at(RAM_GPA + 0xffc), "qrst", 4);
    assert_int_equal(v->gpr[RDI], RAM + 0x1000);
    assert_int_equal(v->gpr[RCX], 3);
    assert_int_equal(v->rip, CODE);
    assert_io(exit_emulate(v), true, 0x1f0, 2, 3);
    memcpy(model.page.data, "uvwxyz", 6);
    model_page(RAM_GPA + 0x1000, PAGE_NONE); /* dom0 takes the page: the device's data waits */
    assert_exit(run_answered(), SOCLE_EXIT_FAULT);
    assert_int_equal(model.page.fault.gpa, RAM_GPA + 0x1000);
    assert_true(model.page.fault.write);
    model_page(RAM_GPA + 0x1000, PAGE_RAM);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_memory_equal(model_at(RAM_GPA + 0x1000), "uvwxyz", 6);
    assert_int_equal(v->rip, CODE + 3);
    /* Backwards, one at a time; with the code gone when the answer comes. */
    v->rip = CODE;
    v->rflags |= RFLAGS_DF;
    v->gpr[RCX] = 2;
    assert_io(exit_emulate(v), true, 0x1f0, 2, 1);
    model_page(CODE_GPA, PAGE_NONE);
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->gpr[RDI], RAM + 0x1004);
    model_page(CODE_GPA, PAGE_RAM);
    assert_io(exit_emulate(v), true, 0x1f0, 2, 1);
    v->gpr[RCX] = 0; /* dom0 meddles */
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(v->gpr[RDI], RAM + 0x1004);
}

static void ins_faults_first(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x6c);
    v->gpr[RDI] = RAM;
    model_map(RAM, RAM_GPA, PG_U);
    assert_raised(exit_emulate(v), VEC_PF);
    assert_int_equal(v->event.error, PF_PRESENT | PF_WRITE);
    v->event.valid = false;
    model_map(RAM, RAM_GPA, PG_W);
    model_page(RAM_GPA, PAGE_READONLY);
    assert_exit(exit_emulate(v), SOCLE_EXIT_FAULT);
    assert_int_equal(v->io.kind, IO_NONE);
    v->gpr[RDI] = DEV;
    assert_exit(exit_emulate(v), SOCLE_EXIT_EMULATION);
    v->page = NULL;
    assert_raised(exit_emulate(v), VEC_GP);
    /* 16-bit: the offset wraps, the upper halves stay. */
    start(MODE_REAL);
    memcpy(model_at(CODE_GPA), (u8[]){0xf3, 0x6c}, 2);
    v->rip = CODE_GPA;
    v->sregs.seg[SOCLE_SEG_ES].base = RAM_GPA & ~0xfffull;
    v->gpr[RDI] = 0xaaaa00000000 | 0xffff;
    v->gpr[RCX] = 0xbbbb00010001;
    model_page(RAM_GPA + 0xf000, PAGE_RAM);
    assert_io(exit_emulate(v), true, 0, 1, 1);
    model.page.data[0] = 0x3c;
    assert_int_equal(run_answered(), VCPU_RESUME);
    assert_int_equal(*model_at(RAM_GPA + 0xffff), 0x3c);
    assert_int_equal(v->gpr[RDI], 0xaaaa00000000);
    assert_int_equal(v->gpr[RCX], 0xbbbb00010000);
    assert_int_equal(v->rip, CODE_GPA + 2);
}

/* ---- CR8 and next_rip ---- */

static void cr8(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x44, 0x0f, 0x22, 0xc1, 0x44, 0x0f, 0x20, 0xc2); /* mov cr8,rcx; mov rdx,cr8 */
    v->gpr[RCX] = 0xb;
    v->gpr[RDX] = ~0ull;
    assert_int_equal(exit_emulate(v), VCPU_RESUME);
    assert_int_equal(vlapic_cr8(&v->lapic), 0xb);
    assert_int_equal(exit_emulate(v), VCPU_RESUME);
    assert_int_equal(v->gpr[RDX], 0xb);
    assert_int_equal(v->rip, CODE + 8);
    v->rip = CODE;
    v->gpr[RCX] = 0x10;
    assert_raised(exit_emulate(v), VEC_GP);
    assert_int_equal(v->rip, CODE);
    assert_int_equal(vlapic_cr8(&v->lapic), 0xb);
}

static void next_rip(void **state)
{
    (void)state;
    start(MODE_LONG);
    CODE_IS(0x66, 0x0f, 0xa2);
    assert_int_equal(exit_find_next_rip(v, INSN_CPUID), VCPU_RESUME);
    assert_int_equal(v->next_rip, CODE + 3);
    assert_int_equal(v->rip, CODE);
    assert_int_equal(exit_find_next_rip(v, INSN_HLT), VCPU_RESUME);
    assert_int_equal(v->next_rip, CODE);
    v->rip = CODE + 0xffe; /* ends with the page: the next one is not looked at */
    memcpy(model_at(CODE_GPA + 0xffe), "\x0f\xa2", 2);
    model_page(CODE_GPA + 0x1000, PAGE_NONE);
    assert_int_equal(exit_find_next_rip(v, INSN_CPUID), VCPU_RESUME);
    assert_int_equal(v->next_rip, CODE + 0x1000);
    v->rip = CODE + 0xffe;
    memcpy(model_at(CODE_GPA + 0xffe), "\x66\x0f", 2);
    assert_exit(exit_find_next_rip(v, INSN_CPUID), SOCLE_EXIT_FAULT);
    assert_int_equal(model.page.fault.gpa, CODE_GPA + 0x1000);
    assert_true(model.page.fault.fetch);
    model_map(CODE + 0x1000, 0, 0);
    model_store(model_entry(CODE + 0x1000, 1), 0);
    assert_raised(exit_find_next_rip(v, INSN_CPUID), VEC_PF);
    assert_int_equal(v->next_rip, v->rip);
    v->page = NULL;
    v->event.valid = false;
    v->rip = CODE;
    assert_int_equal(exit_find_next_rip(v, INSN_CPUID), VCPU_RESUME);
    assert_int_equal(v->next_rip, CODE + 3);
    model_page(CODE_GPA, PAGE_MMIO);
    assert_int_equal(exit_find_next_rip(v, INSN_CPUID), VCPU_RESUME);
    assert_int_equal(v->next_rip, CODE);
    start(MODE_REAL);
    v->sregs.seg[SOCLE_SEG_CS].base = 0xffff0000; /* as after a reset */
    model_page(0xfffff000, PAGE_RAM);
    memcpy(model_at(0xfffffffe), "\x0f\xa2", 2);
    v->rip = 0xfffe;
    assert_int_equal(exit_find_next_rip(v, INSN_CPUID), VCPU_RESUME);
    assert_int_equal(v->next_rip, 0);
}

static int map_native(void **state)
{
    (void)state;
    native_code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    native_device = mmap((void *)(uintptr_t)DEV, DEV_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return native_code == MAP_FAILED || (u64)(uintptr_t)native_device != DEV;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_the_processor),
        cmocka_unit_test(read_and_write),
        cmocka_unit_test(memory_needs_no_emulation),
        cmocka_unit_test(crossing),
        cmocka_unit_test(doorbells),
        cmocka_unit_test(changed_before_the_answer),
        cmocka_unit_test(fault_after_the_read),
        cmocka_unit_test(string_moves),
        cmocka_unit_test(stack_operands),
        cmocka_unit_test(segments_and_modes),
        cmocka_unit_test(rom),
        cmocka_unit_test(local_apic),
        cmocka_unit_test(faults),
        cmocka_unit_test(beyond_the_emulator),
        cmocka_unit_test(swapped_instructions),
        cmocka_unit_test(in_and_out),
        cmocka_unit_test(outs),
        cmocka_unit_test(ins),
        cmocka_unit_test(ins_faults_first),
        cmocka_unit_test(cr8),
        cmocka_unit_test(next_rip),
    };

    return cmocka_run_group_tests(tests, map_native, NULL);
}
