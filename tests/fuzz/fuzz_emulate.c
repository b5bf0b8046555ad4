/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests with any code, registers and page tables, and a dom0 that answers, unmaps and meddles at
 * any time: the emulator touches only frames that are mapped (the model aborts otherwise), asks
 * dom0 only for what the interface allows, and does a bounded amount of work. */
// SOURCES: core/emulate.c core/gmem.c core/insn.c core/vlapic.c
#include "tests/unit/guest_model.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK MODEL_CHECK
#define CODE  0x400000ull
#define RAM   0x410000ull
#define DEV   0x420000ull
#define APIC  0x430000ull
#define STEPS 40

static struct input {
    const u8 *data;
    size_t left;
} in;

static u64 take(u32 bytes)
{
    u64 value = 0;

    for (; bytes && in.left; bytes--, in.left--)
        value = value << 8 | *in.data++;
    return value;
}

/* Mostly addresses where something is. */
static u64 take_address(void)
{
    static const u64 places[] = {CODE, RAM, DEV, APIC, RAM + 0x1000, DEV + 0x1000, TABLES_GPA, 0};
    u64 kind = take(1);

    if (kind & 0x80)
        return take(8);
    return places[kind & 7] + (kind & 0x40 ? 0xff0 + take(1) % 32 : take(2) % 0x1000);
}

static void start(void)
{
    enum model_mode mode = take(1) % MODES;

    model_init(mode);
    for (u64 page = 0; page < 0x2000; page += PAGE_SIZE) {
        model_map(CODE + page, CODE + page, PG_W | PG_U);
        model_map(RAM + page, RAM + page, PG_W | PG_U);
        model_map(DEV + page, DEV + page, PG_W | PG_U);
        model_page(CODE + page, PAGE_RAM);
        model_page(RAM + page, PAGE_RAM);
        model_page(DEV + page, PAGE_MMIO);
    }
    model_map(APIC, APIC_DEFAULT_PA, PG_W | PG_U);
    model.v.rip = CODE;
    model.bell = DEV + 8;
    for (u32 i = 0; i < 16; i++)
        model.v.gpr[i] = take_address();
    if (!take(1))
        model.v.page = NULL;
    memset(model.page.reserved3, 0xc5, sizeof(model.page.reserved3));
}

static void meddle(void)
{
    struct vcpu *v = &model.v;
    struct model_page *p = &model.pages[take(1) % model.page_count];
    u8 *byte;

    switch (take(1) % 8) {
    case 0: /* dom0 maps something else */
        model_page(p->gfn << PAGE_SHIFT, p->frame < FRAMES ? take(1) % 5 : PAGE_MMIO);
        break;
    case 1: /* the guest writes: data, or its page tables */
        byte = model_at(take_address());
        if (byte)
            *byte = (u8)take(1);
        break;
    case 2:
        v->gpr[take(1) % 16] = take_address();
        break;
    case 3:
        v->rip = take_address();
        break;
    case 4:
        v->rflags = take(3);
        break;
    case 5:
        v->sregs.seg[take(1) % SOCLE_SEGS].base = take_address();
        break;
    case 6:
        v->sregs.seg[take(1) % SOCLE_SEGS].attr = (u16)take(2);
        break;
    default:
        v->sregs.cr0 ^= take(1) & 1 ? CR0_WP : CR0_PG;
        v->sregs.cr4 = take(4);
        v->sregs.efer ^= take(1) & 1 ? EFER_NXE : EFER_LMA;
    }
}

static void put_code(void)
{
    u64 length = take(1) % 16;

    for (u64 i = 0; i < length; i++) {
        u8 *byte = model_at(CODE + ((model.v.rip - CODE + i) & 0x1fff));

        if (byte)
            *byte = (u8)take(1);
    }
}

/* An instruction that reaches the emulator's depths, on operands that exist. */
static void put_template(void)
{
    static const char *const templates[] = {"\x8b\x03",
                                            "\x89\x03",
                                            "\x48\x0f\xb6\x03",
                                            "\x0f\x38\xf0\x03",
                                            "\x0f\x38\xf1\x03",
                                            "\xf0\x01\x03",
                                            "\xf0\x48\x0f\xc1\x03",
                                            "\x48\x87\x03",
                                            "\xf0\x0f\xb1\x0b",
                                            "\x48\x0f\xc7\x0b",
                                            "\x0f\xc7\x0b",
                                            "\x8c\x1b",
                                            "\x0f\xab\x03",
                                            "\xc1\x03\x05",
                                            "\xff\x33",
                                            "\x8f\x03",
                                            "\xf3\x48\xa5",
                                            "\xf3\xa6",
                                            "\xf2\xae",
                                            "\xf3\xaa",
                                            "\xac",
                                            "\xf3\x6d",
                                            "\xf3\x66\x6f",
                                            "\x6e",
                                            "\x44\x0f\x22\xc1",
                                            "\x44\x0f\x20\xc1",
                                            "\xc7\x03\x11\x22\x33\x44"};
    static const u8 places[] = {RBX, RSI, RDI, RSP};
    const char *text = templates[take(1) % ARRAY_SIZE(templates)];

    model.v.rip = CODE + 0xff0 + take(1) % 16; /* some cross into the next page */
    for (u32 i = 0; text[i]; i++) {
        u8 *byte = model_at(CODE + ((model.v.rip - CODE + i) & 0x1fff));

        if (byte)
            *byte = (u8)text[i];
    }
    for (u32 i = 0; i < ARRAY_SIZE(places); i++)
        model.v.gpr[places[i]] = take_address();
    model.v.gpr[RCX] = take(1);
}

static void check_exit(enum vcpu_action action)
{
    const struct socle_vcpu_page *page = &model.page;

    CHECK(action == VCPU_RESUME || (action == VCPU_EXIT && model.v.page));
    if (action == VCPU_RESUME)
        return;
    switch (page->exit) {
    case SOCLE_EXIT_IO:
        CHECK(page->io.size == 1 || page->io.size == 2 || page->io.size == 4);
        CHECK(page->io.count >= 1 && page->io.count * page->io.size <= SOCLE_DATA_BYTES);
        break;
    case SOCLE_EXIT_MMIO:
        CHECK(page->mmio.size >= 1 && page->mmio.size <= 8 && page->mmio.write <= 1);
        CHECK((page->mmio.gpa & ~PAGE_MASK) + page->mmio.size <= PAGE_SIZE);
        break;
    case SOCLE_EXIT_EMULATION:
        CHECK(page->insn.length <= 15);
        break;
    default:
        CHECK(page->exit == SOCLE_EXIT_FAULT);
    }
}

static enum vcpu_action answer(void)
{
    struct vcpu *v = &model.v;

    for (u32 i = 0; i < 8; i++)
        model.page.data[i] = (u8)take(1);
    if (v->io.kind == IO_IN || v->io.kind == IO_MMIO_READ)
        v->io.data = load_u64(model.page.data);
    if (v->io.kind != IO_NONE && v->io.kind != IO_MMIO_WRITE)
        return emulate_complete(v);
    v->io.kind = IO_NONE;
    return VCPU_RESUME;
}

static enum vcpu_action step(void)
{
    struct vcpu *v = &model.v;

    if (v->io.kind != IO_NONE)
        return answer();
    v->event.valid = !(take(1) % 16);
    switch (take(1) % 8) {
    case 0:
        v->next_rip = v->rip + 2;
        return exit_io(v, (u16)take(2), (u8)(1 << take(1) % 3), take(1) & 1);
    case 1:
        return exit_emulate(v);
    case 2:
        return exit_find_next_rip(v, INSN_CPUID);
    case 3:
        return exit_npf(v, take_address(), take(1) & 1, take(1) & 1);
    case 4:
        return exit_npf(v, APIC_DEFAULT_PA + take(2) % 0x1000, take(1) & 1, false);
    case 5:
        return exit_npf(v, (v->gpr[RSI] & 0x1fff) + DEV, take(1) & 1, false);
    case 6:
        return exit_npf(v, (v->gpr[RBX] & 0x1fff) + DEV, take(1) & 1, false);
    default:
        return exit_npf(v, DEV + take(2) % 0x2000, take(1) & 1, false);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    in = (struct input){data, size};
    start();
    for (u32 i = 0; i < STEPS && in.left; i++) {
        u32 before = model.window_maps;
        u8 what = (u8)take(1);

        if (what & 1)
            put_code();
        else if (what & 8)
            put_template();
        if (what & 2)
            meddle();
        if (what & 4)
            meddle();
        check_exit(step());
        model_check_windows();
        CHECK(model.window_maps - before < 8192);
        CHECK(model.v.replay.reads <= REPLAY_MAX && model.v.replay.writes < REPLAY_MAX);
        for (u32 n = 0; n < sizeof(model.page.reserved3); n++)
            CHECK(model.page.reserved3[n] == 0xc5);
    }
    return 0;
}
