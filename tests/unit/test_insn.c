/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/insn.c
// LIBS: -lZydis
/* The decoder against Zydis, over all opcodes, ModRM bytes, modes and many prefixes; the arithmetic
 * against the processor that runs the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <Zydis/Zydis.h>
#include "core/errno.h"
#include "core/insn.h"

static u64 random_state = 0x5eed5eed5eed5eedull;

static u64 random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

/* ---- against Zydis ---- */

/* Zydis's names of each operation. */
static const char *const names[] = {
    [INSN_ADD] = "add",
    [INSN_OR] = "or",
    [INSN_ADC] = "adc",
    [INSN_SBB] = "sbb",
    [INSN_AND] = "and",
    [INSN_SUB] = "sub",
    [INSN_XOR] = "xor",
    [INSN_CMP] = "cmp",
    [INSN_ROL] = "rol",
    [INSN_ROR] = "ror",
    [INSN_RCL] = "rcl",
    [INSN_RCR] = "rcr",
    [INSN_SHL] = "shl",
    [INSN_SHR] = "shr",
    [INSN_SAR] = "sar",
    [INSN_BT] = "bt",
    [INSN_BTS] = "bts",
    [INSN_BTR] = "btr",
    [INSN_BTC] = "btc",
    [INSN_TEST] = "test",
    [INSN_NOT] = "not",
    [INSN_NEG] = "neg",
    [INSN_INC] = "inc",
    [INSN_DEC] = "dec",
    [INSN_XADD] = "xadd",
    [INSN_CMPXCHG] = "cmpxchg",
    [INSN_CMPXCHG8B] = "cmpxchg8b cmpxchg16b",
    [INSN_XCHG] = "xchg",
    [INSN_MOV] = "mov movnti",
    [INSN_MOVZX] = "movzx",
    [INSN_MOVSX] = "movsx movsxd",
    [INSN_MOVBE] = "movbe",
    [INSN_MOV_SREG] = "mov",
    [INSN_PUSH] = "push",
    [INSN_POP] = "pop",
    [INSN_MOVS] = "movsb movsw movsd movsq",
    [INSN_CMPS] = "cmpsb cmpsw cmpsd cmpsq",
    [INSN_STOS] = "stosb stosw stosd stosq",
    [INSN_LODS] = "lodsb lodsw lodsd lodsq",
    [INSN_SCAS] = "scasb scasw scasd scasq",
    [INSN_INS] = "insb insw insd",
    [INSN_OUTS] = "outsb outsw outsd",
    [INSN_MOV_CR] = "mov",
    [INSN_MOV_DR] = "mov",
    [INSN_INT] = "int int3",
    [INSN_CPUID] = "cpuid",
    [INSN_HLT] = "hlt",
    [INSN_INVD] = "invd",
    [INSN_WBINVD] = "wbinvd wbnoinvd",
    [INSN_RDMSR] = "rdmsr",
    [INSN_WRMSR] = "wrmsr",
    [INSN_XSETBV] = "xsetbv",
    [INSN_VMMCALL] = "vmmcall",
};

static bool named[ARRAY_SIZE(names)][ZYDIS_MNEMONIC_MAX_VALUE + 1];
/* What we promise to decode: where it has a memory operand, and always. */
static bool supported[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static bool intercepted[ZYDIS_MNEMONIC_MAX_VALUE + 1];

static bool word_in(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = words; (at = strstr(at, word)); at += n) {
        if ((at == words || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) {
            return true;
        }
    }
    return false;
}

static int setup(void **state)
{
    (void)state;
    for (size_t op = 1; op < ARRAY_SIZE(names); op++) {
        for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
            if (word_in(names[op], ZydisMnemonicGetString(m))) {
                named[op][m] = true;
                supported[m] = true;
                intercepted[m] |= op >= INSN_CPUID;
            }
        }
    }
    return 0;
}

static const struct {
    enum insn_mode mode;
    ZydisMachineMode machine;
    ZydisStackWidth stack;
} modes[] = {
    {INSN_MODE_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    {INSN_MODE_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
    {INSN_MODE_16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
};

struct reference {
    bool valid;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/* Zydis's register as our number; *high for AH..BH. */
static u8 register_number(ZydisRegister reg, bool *high)
{
    u8 id = reg == ZYDIS_REGISTER_NONE ? INSN_NO_REG : (u8)ZydisRegisterGetId(reg);

    *high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8 && id >= 4) {
        id -= 4; /* AH CH DH BH are in the middle of Zydis's list */
    }
    return id;
}

static const char *differs_memory(const struct insn *insn, const ZydisDecodedOperand *op)
{
    bool high, rip = op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP;

    if (!insn->has_mem) {
        return "no memory operand";
    }
    if (rip != insn->rip_relative) {
        return "rip_relative";
    }
    if (insn->base != (rip ? INSN_NO_REG : register_number(op->mem.base, &high))) {
        return "base";
    }
    if (insn->index != register_number(op->mem.index, &high)) {
        return "index";
    }
    if (insn->index != INSN_NO_REG && insn->scale != op->mem.scale) {
        return "scale";
    }
    if (insn->disp != op->mem.disp.value) {
        return "disp";
    }
    if (insn->seg != ZydisRegisterGetId(op->mem.segment)) {
        return "segment";
    }
    if (insn->mem_size * 8 != op->size) {
        return "mem_size";
    }
    if (insn->op == INSN_MOVS || insn->op == INSN_CMPS) {
        return NULL; /* two operands: seen to by differs() */
    }
    if (insn->mem_read != !!(op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)) {
        return "mem_read";
    }
    if (insn->mem_write != !!(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
        return "mem_write";
    }
    return NULL;
}

/* The effective address with random registers; Zydis knows no bit strings and no POP [rSP]. */
static const char *differs_address(const struct insn *insn, const struct reference *ref,
                                   const ZydisDecodedOperand *op)
{
    ZydisRegisterContext context;
    u64 gprs[16], rip = random_u64() >> 1, expected;
    bool bits = insn->op >= INSN_BT && insn->op <= INSN_BTC && !insn->has_imm;

    for (int i = 0; i < 16; i++) {
        gprs[i] = random_u64();
        context.values[ZYDIS_REGISTER_RAX + i] = gprs[i];
        context.values[ZYDIS_REGISTER_EAX + i] = (u32)gprs[i];
        context.values[ZYDIS_REGISTER_AX + i] = (u16)gprs[i];
    }
    if (bits || insn->op == INSN_POP || ref->insn.raw.sib.base == 5) {
        return NULL;
    }
    if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&ref->insn, op, rip, &context, &expected))) {
        return "address (unknown to Zydis)";
    }
    if (insn->mode != INSN_MODE_64) {
        expected = (u32)expected;
    }
    return insn_effective_address(insn, gprs, rip, 0) == expected ? NULL : "address";
}

static const char *differs_register(const struct insn *insn, const struct reference *ref,
                                    const ZydisDecodedOperand *op)
{
    bool is_rm = op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM, high;
    u8 number = register_number(op->reg.value, &high);

    if (is_rm ? insn->rm != number + (high ? 4 : 0)
              : insn->reg != number || insn->reg_high != high) {
        return is_rm ? "rm" : "reg";
    }
    if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        return NULL;
    }
    if (is_rm && ref->insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD) {
        return NULL; /* 66 MOVSXD: Zydis has 2 bytes of a register, but 4 of memory, as we */
    }
    if (op->size != 8 * (is_rm && insn->op != INSN_MOV_SREG ? insn->mem_size : insn->op_size)) {
        return is_rm ? "size of rm" : "size of reg";
    }
    return NULL;
}

/* Zydis 4.0 takes SIB base 5 without displacement (mod 0) for R13 when REX.B is set; but REX.B is
 * not looked at there (SDM vol. 2, table 2-5), as objdump and processors agree. */
static void correct_zydis(struct reference *ref)
{
    for (u8 i = 0; i < ref->insn.operand_count; i++) {
        ZydisDecodedOperand *op = &ref->operands[i];

        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && ref->insn.raw.modrm.mod == 0 &&
            ref->insn.raw.modrm.rm == 4 && ref->insn.raw.sib.base == 5 &&
            ref->insn.address_width != 16) {
            op->mem.base = ZYDIS_REGISTER_NONE;
            op->mem.disp.value = ref->insn.raw.disp.value;
        }
    }
}

/* Names the first thing in which our decoding differs from Zydis's, or NULL. */
static const char *differs(const struct insn *insn, const struct reference *ref)
{
    const u64 repeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    bool string = insn->op >= INSN_MOVS && insn->op <= INSN_OUTS, imm = false;
    u8 memories = 0;

    if (insn->length != ref->insn.length) {
        return "length";
    }
    if (!named[insn->op][ref->insn.mnemonic]) {
        return "op";
    }
    if (insn->lock != !!(ref->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK)) {
        return "lock";
    }
    if (insn->addr_size * 8 != ref->insn.address_width) {
        return "addr_size";
    }
    if (insn->rep != (string && (ref->insn.attributes & repeats)) ||
        insn->repne != !!(ref->insn.attributes & ZYDIS_ATTRIB_HAS_REPNE)) {
        return "rep";
    }
    for (u8 i = 0; i < ref->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &ref->operands[i];
        bool rm = op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
        const char *wrong = NULL;

        if (rm && (i == 0) != insn->rm_is_dst && ref->insn.operand_count_visible > 1) {
            return "rm_is_dst";
        }
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->encoding != ZYDIS_OPERAND_ENCODING_NONE) {
            memories++;
            wrong = differs_memory(insn, op);
            wrong = wrong ? wrong : differs_address(insn, ref, op);
        } else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && string) {
            bool source = ZydisRegisterGetId(op->mem.base) == 6;

            memories++;
            if (source || (insn->op != INSN_MOVS && insn->op != INSN_CMPS)) {
                wrong = differs_memory(insn, op);
            } else if (op->mem.segment != ZYDIS_REGISTER_ES || op->size != 8 * insn->mem_size) {
                wrong = "second memory operand";
            }
        } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                   (rm || op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)) {
            wrong = differs_register(insn, ref, op);
        } else if (i == 1 && op->type == ZYDIS_OPERAND_TYPE_REGISTER && insn->op >= INSN_ROL &&
                   insn->op <= INSN_SAR) {
            wrong = insn->reg == 1 ? NULL : "shift count register";
        } else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            imm = true;
            wrong = insn->has_imm && insn->imm == op->imm.value.u ? NULL : "imm";
        }
        if (wrong) {
            return wrong;
        }
    }
    if (insn->has_mem != (memories != 0)) {
        return "has_mem";
    }
    return imm != insn->has_imm ? "has_imm" : NULL;
}

/* The same names for other instructions, loads of segment registers, and an encoding that nobody
 * uses: not among what we promise. */
static bool left_out(const ZydisDecodedInstruction *insn)
{
    bool first_map = insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;

    if (insn->mnemonic == ZYDIS_MNEMONIC_CMPSD || insn->mnemonic == ZYDIS_MNEMONIC_MOVSD) {
        return !first_map;
    }
    return first_map && (insn->opcode == 0x82 || insn->opcode == 0x8e);
}

/* Whether we promise to decode what Zydis has decoded. */
static bool must_accept(const struct reference *ref)
{
    if (!ref->valid || ref->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        left_out(&ref->insn)) {
        return false;
    }
    if (intercepted[ref->insn.mnemonic]) {
        return true;
    }
    for (u8 i = 0; supported[ref->insn.mnemonic] && i < ref->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &ref->operands[i];
        ZydisRegisterClass class = op->type == ZYDIS_OPERAND_TYPE_REGISTER
                                       ? ZydisRegisterGetClass(op->reg.value)
                                       : ZYDIS_REGCLASS_INVALID;

        if ((op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
             op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) ||
            class == ZYDIS_REGCLASS_CONTROL) {
            return true;
        }
    }
    return false;
}

static unsigned long accepted, refused;

static const char *compare(const u8 bytes[16], size_t m, const ZydisDecoder *decoder)
{
    struct reference ref;
    struct insn insn, again;
    int err = insn_decode(&insn, bytes, INSN_MAX_LENGTH, modes[m].mode);

    ref.valid = ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(decoder, bytes, INSN_MAX_LENGTH, &ref.insn, ref.operands));
    if (err) {
        refused++;
        return err != -E_INVAL && err != -E_OPNOTSUPP ? "wrong error"
               : must_accept(&ref)                    ? "not accepted"
                                                      : NULL;
    }
    accepted++;
    if (!ref.valid) {
        return "illegal";
    }
    if (insn_decode(&again, bytes, insn.length, modes[m].mode) ||
        memcmp(&insn, &again, sizeof(insn)) ||
        insn_decode(&again, bytes, insn.length - 1, modes[m].mode) != -E_AGAIN) {
        return "short buffer";
    }
    correct_zydis(&ref);
    return differs(&insn, &ref);
}

static unsigned complaints;

static void complain(const u8 bytes[16], const char *what, size_t m, const ZydisDecoder *decoder)
{
    struct reference ref;
    char text[256] = "(illegal)";
    ZydisFormatter formatter;

    if (ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(decoder, bytes, INSN_MAX_LENGTH, &ref.insn, ref.operands))) {
        ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
        ZydisFormatterFormatInstruction(&formatter, &ref.insn, ref.operands,
                                        ref.insn.operand_count_visible, text, sizeof(text), 0,
                                        NULL);
    }
    print_error("%zu-bit:", 8 * (size_t)modes[m].mode);
    for (int i = 0; i < INSN_MAX_LENGTH; i++) {
        print_error(" %02x", bytes[i]);
    }
    print_error("  %s: %s\n", text, what);
    if (++complaints >= 20) {
        fail_msg("too many differences");
    }
}

/* A few random prefixes, biased to none and to the ones that matter. Returns how many bytes. */
static size_t random_prefixes(u8 *bytes)
{
    static const u8 prefixes[] = {0x66, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e,
                                  0x64, 0x65, 0x40, 0x41, 0x42, 0x44, 0x48, 0x49, 0x4f, 0x48};
    u64 r = random_u64();
    size_t n = r % 100 < 97 ? r % 4 : r % 13;

    for (size_t i = 0; i < n; i++) {
        bytes[i] = prefixes[random_u64() % ARRAY_SIZE(prefixes)];
    }
    return n;
}

static void test_against_zydis(void **state)
{
    static const u8 maps[][3] = {{0}, {1, 0x0f}, {2, 0x0f, 0x38}};

    (void)state;
    for (size_t m = 0; m < ARRAY_SIZE(modes); m++) {
        ZydisDecoder decoder;

        ZydisDecoderInit(&decoder, modes[m].machine, modes[m].stack);
        for (u32 i = 0; i < ARRAY_SIZE(maps) * 256 * 256 * 8; i++) {
            const u8 *map = maps[(i >> 16) % ARRAY_SIZE(maps)];
            u64 tail[4] = {random_u64(), random_u64(), random_u64(), random_u64()};
            u8 bytes[32];
            const char *wrong;
            size_t n;

            memcpy(bytes, tail, sizeof(bytes));
            n = random_prefixes(bytes);
            memcpy(bytes + n, map + 1, map[0]);
            n += map[0];
            bytes[n] = i >> 8;
            bytes[n + 1] = i;
            if (map[0] == 2 && i % 8) { /* of 0F 38 we know two */
                bytes[n] = "\xf0\xf1"[random_u64() % 2];
            }
            wrong = compare(bytes, m, &decoder);
            if (wrong) {
                complain(bytes, wrong, m, &decoder);
            }
        }
    }
    print_message("%lu accepted, %lu refused\n", accepted, refused);
    assert_int_equal(complaints, 0);
    assert_true(accepted > 500000);
}

/* ---- addresses ---- */

static u64 address_of(const char *bytes, size_t len, enum insn_mode mode, const u64 gprs[16],
                      u64 seg_base)
{
    struct insn insn;

    assert_int_equal(insn_decode(&insn, (const u8 *)bytes, len, mode), 0);
    assert_true(insn.has_mem);
    return insn_effective_address(&insn, gprs, 0x1000, seg_base);
}

#define ADDRESS(bytes, ...) address_of(bytes, sizeof(bytes) - 1, __VA_ARGS__)

/* What Zydis does not tell: wraparound, bit strings, POP, string destinations. */
static void test_addresses(void **state)
{
    u64 gprs[16] = {
        [0] = -17ull, [1] = 0x123, [4] = 0x8000, [3] = 0xffff, [6] = 2, [7] = 0x1fffffff0};
    struct insn insn;

    (void)state;
    /* mov [bx+si], al: the offset wraps at 64 KiB, the linear address at 4 GiB */
    assert_int_equal(ADDRESS("\x88\x00", INSN_MODE_16, gprs, 0x10000), 0x10001);
    assert_int_equal(ADDRESS("\x88\x00", INSN_MODE_16, gprs, 0xffffffff), 0);
    /* mov [rdi], al with and without an address size prefix, and a segment base */
    assert_int_equal(ADDRESS("\x88\x07", INSN_MODE_64, gprs, 1), 0x1fffffff1);
    assert_int_equal(ADDRESS("\x64\x67\x88\x07", INSN_MODE_64, gprs, 0x100000000), 0x1fffffff0);
    /* mov [rip+0x10], al */
    assert_int_equal(ADDRESS("\x88\x05\x10\0\0\0", INSN_MODE_64, gprs, 0), 0x1016);
    /* bt [rsp], eax with eax = -17: one doubleword below; bit 15 of the word, one word below that
     */
    assert_int_equal(ADDRESS("\x0f\xa3\x04\x24", INSN_MODE_64, gprs, 0), 0x7ffc);
    assert_int_equal(ADDRESS("\x66\x0f\xa3\x04\x24", INSN_MODE_64, gprs, 0), 0x7ffc);
    assert_int_equal(ADDRESS("\x48\x0f\xa3\x0c\x24", INSN_MODE_64, gprs, 0), 0x8020);
    assert_int_equal(ADDRESS("\x0f\xba\x24\x24\xff", INSN_MODE_64, gprs, 0), 0x8000);
    /* pop [rsp] uses rsp after its own increment, push [rsp] before its decrement */
    assert_int_equal(ADDRESS("\x8f\x04\x24", INSN_MODE_64, gprs, 0), 0x8008);
    assert_int_equal(ADDRESS("\x66\x8f\x04\x24", INSN_MODE_32, gprs, 0), 0x8002);
    assert_int_equal(ADDRESS("\xff\x34\x24", INSN_MODE_64, gprs, 0), 0x8000);
    /* rep movsb fs:[si] to es:[di] */
    assert_int_equal(insn_decode(&insn, (const u8 *)"\xf3\x64\xa4", 3, INSN_MODE_16), 0);
    assert_true(insn.rep && !insn.repne && insn.seg == INSN_FS && insn.mem_read && insn.mem_write);
    assert_int_equal(insn_effective_address(&insn, gprs, 0, 0x500), 0x502);
    assert_int_equal(insn_string_dst(&insn, gprs, 0x10020), 0x20010);
}

/* ---- errors ---- */

static int decode(const char *bytes, size_t len, enum insn_mode mode)
{
    struct insn insn;

    return insn_decode(&insn, (const u8 *)bytes, len, mode);
}

#define DECODE(bytes, mode) decode(bytes, sizeof(bytes) - 1, mode)
#define FOURTEEN_66         "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"

static void test_errors(void **state)
{
    (void)state;
    assert_int_equal(DECODE("", INSN_MODE_64), -E_AGAIN);
    assert_int_equal(DECODE("\x0f", INSN_MODE_64), -E_AGAIN);
    assert_int_equal(DECODE(FOURTEEN_66, INSN_MODE_64), -E_AGAIN);
    assert_int_equal(DECODE(FOURTEEN_66 "\xf4", INSN_MODE_64), 0);
    assert_int_equal(DECODE(FOURTEEN_66 "\x0f\xa2", INSN_MODE_64), -E_INVAL);
    assert_int_equal(DECODE(FOURTEEN_66 "\x66\x66", INSN_MODE_64), -E_INVAL);
    assert_int_equal(DECODE("\xf0\x01\x00", INSN_MODE_64), 0);            /* lock add [rax], eax */
    assert_int_equal(DECODE("\xf0\x03\x00", INSN_MODE_64), -E_INVAL);     /* lock add eax, [rax] */
    assert_int_equal(DECODE("\xf0\x01\xc0", INSN_MODE_64), -E_INVAL);     /* lock add eax, eax */
    assert_int_equal(DECODE("\xf0\x39\x00", INSN_MODE_64), -E_INVAL);     /* lock cmp [rax], eax */
    assert_int_equal(DECODE("\x0f\x22\xc8", INSN_MODE_64), -E_INVAL);     /* mov cr1, rax */
    assert_int_equal(DECODE("\x8e\x08", INSN_MODE_64), -E_OPNOTSUPP);     /* mov cs, [rax] */
    assert_int_equal(DECODE("\xe8\0\0\0\0", INSN_MODE_64), -E_OPNOTSUPP); /* call */
    assert_int_equal(DECODE("\x90", INSN_MODE_64), -E_OPNOTSUPP);         /* nop */
}

/* ---- arithmetic against this processor ---- */

#define ARITHMETIC 0x8d5ull /* OF SF ZF AF PF CF */
#define CF         0x001ull
#define AF         0x010ull
#define OF         0x800ull

/* Steps over the red zone, runs one instruction with given flags, and takes the flags after it. */
#define WITH_FLAGS(text) \
    "lea -256(%%rsp), %%rsp; push %[f]; popfq; " text "; pushfq; pop %[f]; lea 256(%%rsp), %%rsp"

#define RUN2(name, suffix, type)                               \
    {                                                          \
        type d = (type)*dst, s = (type)src;                    \
        __asm__ volatile(WITH_FLAGS(name suffix " %[s], %[d]") \
                         : [d] "+&q"(d), [f] "+&r"(*flags)     \
                         : [s] "q"(s)                          \
                         : "cc", "memory");                    \
        *dst = d;                                              \
    }
#define RUN1(name, suffix, type)                           \
    {                                                      \
        type d = (type)*dst;                               \
        __asm__ volatile(WITH_FLAGS(name suffix " %[d]")   \
                         : [d] "+&q"(d), [f] "+&r"(*flags) \
                         :                                 \
                         : "cc", "memory");                \
        *dst = d;                                          \
    }
#define RUN_CL(name, suffix, type)                             \
    {                                                          \
        type d = (type)*dst;                                   \
        __asm__ volatile(WITH_FLAGS(name suffix " %%cl, %[d]") \
                         : [d] "+&q"(d), [f] "+&r"(*flags)     \
                         : "c"(src)                            \
                         : "cc", "memory");                    \
        *dst = d;                                              \
    }
#define SIZES(run, name)           \
    switch (size) {                \
    case 1:                        \
        run(name, "b", u8) break;  \
    case 2:                        \
        run(name, "w", u16) break; \
    case 4:                        \
        run(name, "l", u32) break; \
    default:                       \
        run(name, "q", u64) break; \
    }
#define SIZES_NO_BYTE(run, name)   \
    switch (size) {                \
    case 2:                        \
        run(name, "w", u16) break; \
    case 4:                        \
        run(name, "l", u32) break; \
    default:                       \
        run(name, "q", u64) break; \
    }
#define ALU(name, run, sizes)                                      \
    static void cpu_##name(u64 *dst, u64 src, u8 size, u64 *flags) \
    {                                                              \
        (void)src;                                                 \
        sizes(run, #name)                                          \
    }

ALU(add, RUN2, SIZES)
ALU(or, RUN2, SIZES)
ALU(adc, RUN2, SIZES)
ALU(sbb, RUN2, SIZES)
ALU(and, RUN2, SIZES)
ALU(sub, RUN2, SIZES)
ALU(xor, RUN2, SIZES)
ALU(cmp, RUN2, SIZES)
ALU(test, RUN2, SIZES)
ALU(xadd, RUN2, SIZES)
ALU(rol, RUN_CL, SIZES)
ALU(ror, RUN_CL, SIZES)
ALU(rcl, RUN_CL, SIZES)
ALU(rcr, RUN_CL, SIZES)
ALU(shl, RUN_CL, SIZES)
ALU(shr, RUN_CL, SIZES)
ALU(sar, RUN_CL, SIZES)
ALU(not, RUN1, SIZES)
ALU(neg, RUN1, SIZES)
ALU(inc, RUN1, SIZES)
ALU(dec, RUN1, SIZES)
ALU(bt, RUN2, SIZES_NO_BYTE)
ALU(bts, RUN2, SIZES_NO_BYTE)
ALU(btr, RUN2, SIZES_NO_BYTE)
ALU(btc, RUN2, SIZES_NO_BYTE)

static const struct {
    enum insn_op op;
    void (*run)(u64 *dst, u64 src, u8 size, u64 *flags);
    u64 undefined;
} alu_ops[] = {
    {INSN_ADD, cpu_add, 0},     {INSN_OR, cpu_or, AF},      {INSN_ADC, cpu_adc, 0},
    {INSN_SBB, cpu_sbb, 0},     {INSN_AND, cpu_and, AF},    {INSN_SUB, cpu_sub, 0},
    {INSN_XOR, cpu_xor, AF},    {INSN_CMP, cpu_cmp, 0},     {INSN_TEST, cpu_test, AF},
    {INSN_XADD, cpu_xadd, 0},   {INSN_CMPXCHG, cpu_cmp, 0}, {INSN_NOT, cpu_not, 0},
    {INSN_NEG, cpu_neg, 0},     {INSN_INC, cpu_inc, 0},     {INSN_DEC, cpu_dec, 0},
    {INSN_ROL, cpu_rol, 0},     {INSN_ROR, cpu_ror, 0},     {INSN_RCL, cpu_rcl, 0},
    {INSN_RCR, cpu_rcr, 0},     {INSN_SHL, cpu_shl, AF},    {INSN_SHR, cpu_shr, AF},
    {INSN_SAR, cpu_sar, AF},    {INSN_BT, cpu_bt, 0x894},   {INSN_BTS, cpu_bts, 0x894},
    {INSN_BTR, cpu_btr, 0x894}, {INSN_BTC, cpu_btc, 0x894},
};

/* Small, extreme and arbitrary numbers. */
static u64 random_operand(void)
{
    u64 r = random_u64();

    switch (r >> 61) {
    case 0:
        return random_u64() % 4 - 2;
    case 1:
        return (1ull << (random_u64() & 63)) - (random_u64() & 1);
    case 2:
        return 0x8080808080808080ull - random_u64() % 3;
    default:
        return random_u64();
    }
}

static void check_alu(size_t i, u8 size)
{
    u64 dst = random_operand(), src = random_operand(),
        mask = size < 8 ? (1ull << 8 * size) - 1 : -1ull;
    u64 flags = 0x202 | (random_u64() & ARITHMETIC), ours = flags, theirs = flags,
        undefined = alu_ops[i].undefined;
    u64 result, expected = dst;
    enum insn_op op = alu_ops[i].op;

    if (op >= INSN_ROL && op <= INSN_SAR) {
        u8 count = src & (size == 8 ? 63 : 31);

        undefined |= count != 1 ? OF : 0;
        undefined |= op >= INSN_SHL && count >= 8 * size ? CF : 0;
        undefined = count ? undefined : 0;
    }
    result = insn_alu(op, dst, src, size, &ours);
    alu_ops[i].run(&expected, src, size, &theirs);
    expected &= mask;
    if (op == INSN_CMP || op == INSN_CMPXCHG) {
        expected = (dst - src) & mask; /* the processor keeps dst */
    } else if (op == INSN_TEST) {
        expected = dst & src & mask;
    }
    if (result != expected || (ours ^ theirs) & ~undefined) {
        fail_msg("%s size %u dst %lx src %lx flags %lx: %lx flags %lx, expected %lx flags %lx",
                 names[op], size, dst, src, flags, result, ours, expected, theirs);
    }
}

static void test_alu(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(alu_ops); i++) {
        bool bits = alu_ops[i].op >= INSN_BT && alu_ops[i].op <= INSN_BTC;

        for (u8 size = bits ? 2 : 1; size <= 8; size *= 2) {
            for (int n = 0; n < 5000; n++) {
                check_alu(i, size);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_zydis),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_alu),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
