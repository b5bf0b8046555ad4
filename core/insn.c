/* SPDX-License-Identifier: BSD-2-Clause */
/* x86 instruction decoder, by tables. References: AMD64 APM vol. 3 (appendix A: opcode maps; 1.2:
 * prefixes; 1.4: ModRM and SIB), Intel SDM vol. 2 (appendix A). */
#include "core/insn.h"
#include "core/lib.h"

/* A table entry is an insn_op or'ed with the fields and flags below; 0 is "not supported". */
#define OP_MASK 0xffu

/* Operand size, and size of the memory access where it differs. */
enum size_kind {
    KIND_V,    /* 2, 4 or 8: mode, 66h prefix, REX.W; for memory: same as the operand */
    KIND_BV,   /* 1 when bit 0 of the opcode is clear, else KIND_V */
    KIND_BZ,   /* same, but at most 4 */
    KIND_PUSH, /* KIND_V, but 8 rather than 4 in 64-bit mode */
    KIND_Y,    /* 4, with REX.W 8 */
    KIND_PAIR, /* twice that */
    KIND_1,
    KIND_2,
    KIND_4,
    KIND_NAT, /* 4, in 64-bit mode 8 */
};
#define SIZE(kind)       ((u32)KIND_##kind << 8)
#define MEM(kind)        ((u32)KIND_##kind << 12)
#define SIZE_KIND(entry) ((entry) >> 8 & 0xf)
#define MEM_KIND(entry)  ((entry) >> 12 & 0xf)

/* Immediate. */
enum imm_kind {
    IMM_NONE,
    IMM_OPERAND, /* as large as the operand, at most 4 bytes */
    IMM_SIGNED,  /* 1 byte, sign-extended */
    IMM_BYTE,    /* 1 byte, zero-extended */
    IMM_ONE,     /* the number 1, which takes no byte */
    IMM_OFFSET,  /* not an immediate: an absolute address */
};
#define IMM(kind)       ((u32)IMM_##kind << 16)
#define IMM_KIND(entry) ((entry) >> 16 & 7)

#define BIT32(n) (1u << (n))
#define F_MODRM  BIT32(19)
#define F_DST    BIT32(20) /* rm_is_dst */
#define F_GROUP  BIT32(21) /* the op field is a group, whose entry is or'ed to this one */
#define F_MEM    BIT32(22) /* illegal with a register as r/m */
#define F_REG    BIT32(23) /* r/m is a register whatever ModRM.mod says */
#define F_SI     BIT32(24) /* string instruction: memory at seg:rSI */
#define F_DI     BIT32(25) /* string instruction: memory at ES:rDI */
#define F_NP     BIT32(26) /* illegal with 66h, F2h or F3h */

#define E_G   (F_MODRM | F_DST | SIZE(BV)) /* operand forms in the manuals' letters */
#define G_E   (F_MODRM | SIZE(BV))
#define EV_GV (F_MODRM | F_DST)
#define ACC_I (SIZE(BV) | IMM(OPERAND))

enum group { G_ALU, G_SHIFT, G_UNARY, G_INC, G_INC_PUSH, G_POP, G_MOV, G_BIT, G_CX8 };
#define GROUP(g) (G_##g | F_GROUP)

/* Opcode tables, packed by hand. */
/* clang-format off */
static const u32 groups[][8] = {
    [G_ALU] = {INSN_ADD, INSN_OR, INSN_ADC, INSN_SBB, INSN_AND, INSN_SUB, INSN_XOR, INSN_CMP},
    [G_SHIFT] = {INSN_ROL, INSN_ROR, INSN_RCL, INSN_RCR, INSN_SHL, INSN_SHR, INSN_SHL, INSN_SAR},
    [G_UNARY] = {INSN_TEST | IMM(OPERAND), INSN_TEST | IMM(OPERAND), INSN_NOT, INSN_NEG},
    [G_INC] = {INSN_INC | F_DST | SIZE(1), INSN_DEC | F_DST | SIZE(1)},
    [G_INC_PUSH] = {INSN_INC | F_DST, INSN_DEC | F_DST, [6] = INSN_PUSH | SIZE(PUSH)},
    [G_POP] = {INSN_POP | F_DST | SIZE(PUSH)},
    [G_MOV] = {INSN_MOV | F_DST},
    [G_BIT] = {[4] = INSN_BT, INSN_BTS, INSN_BTR, INSN_BTC},
    [G_CX8] = {[1] = INSN_CMPXCHG8B | F_DST | F_MEM | SIZE(Y) | MEM(PAIR)},
};

#define ALU_ROWS(n, op)                                                        \
    [(n) ... (n) + 1] = (op) | E_G, [(n) + 2 ... (n) + 3] = (op) | G_E,        \
    [(n) + 4 ... (n) + 5] = (op) | ACC_I

static const u32 one_byte[256] = {
    ALU_ROWS(0x00, INSN_ADD),                       ALU_ROWS(0x08, INSN_OR),
    ALU_ROWS(0x10, INSN_ADC),                       ALU_ROWS(0x18, INSN_SBB),
    ALU_ROWS(0x20, INSN_AND),                       ALU_ROWS(0x28, INSN_SUB),
    ALU_ROWS(0x30, INSN_XOR),                       ALU_ROWS(0x38, INSN_CMP),
    [0x63] = INSN_MOVSX | F_MODRM | MEM(4),
    [0x6c ... 0x6d] = INSN_INS | SIZE(BZ) | F_DI | F_DST,
    [0x6e ... 0x6f] = INSN_OUTS | SIZE(BZ) | F_SI,
    [0x80 ... 0x81] = GROUP(ALU) | E_G | IMM(OPERAND),
    [0x83] = GROUP(ALU) | E_G | IMM(SIGNED),        [0x84 ... 0x85] = INSN_TEST | E_G,
    [0x86 ... 0x87] = INSN_XCHG | E_G,              [0x88 ... 0x89] = INSN_MOV | E_G,
    [0x8a ... 0x8b] = INSN_MOV | G_E,               [0x8c] = INSN_MOV_SREG | EV_GV | MEM(2),
    [0x8f] = GROUP(POP) | F_MODRM,
    [0xa0 ... 0xa1] = INSN_MOV | SIZE(BV) | IMM(OFFSET),
    [0xa2 ... 0xa3] = INSN_MOV | SIZE(BV) | IMM(OFFSET) | F_DST,
    [0xa4 ... 0xa5] = INSN_MOVS | SIZE(BV) | F_SI | F_DST,
    [0xa6 ... 0xa7] = INSN_CMPS | SIZE(BV) | F_SI,  [0xa8 ... 0xa9] = INSN_TEST | ACC_I,
    [0xaa ... 0xab] = INSN_STOS | SIZE(BV) | F_DI | F_DST,
    [0xac ... 0xad] = INSN_LODS | SIZE(BV) | F_SI,  [0xae ... 0xaf] = INSN_SCAS | SIZE(BV) | F_DI,
    [0xc0 ... 0xc1] = GROUP(SHIFT) | E_G | IMM(BYTE),
    [0xc6 ... 0xc7] = GROUP(MOV) | G_E | IMM(OPERAND),
    [0xcc] = INSN_INT,                              [0xcd] = INSN_INT | IMM(BYTE),
    [0xd0 ... 0xd1] = GROUP(SHIFT) | E_G | IMM(ONE),
    [0xd2 ... 0xd3] = GROUP(SHIFT) | E_G,
    [0xf4] = INSN_HLT,
    [0xf6 ... 0xf7] = GROUP(UNARY) | E_G,           [0xfe] = GROUP(INC) | F_MODRM,
    [0xff] = GROUP(INC_PUSH) | F_MODRM,
};

static const u32 two_byte[256] = {
    [0x08] = INSN_INVD,                             [0x09] = INSN_WBINVD,
    [0x20] = INSN_MOV_CR | F_MODRM | F_REG | F_DST | SIZE(NAT),
    [0x22] = INSN_MOV_CR | F_MODRM | F_REG | SIZE(NAT),
    [0x21] = INSN_MOV_DR | F_MODRM | F_REG | F_DST | SIZE(NAT),
    [0x23] = INSN_MOV_DR | F_MODRM | F_REG | SIZE(NAT),
    [0x30] = INSN_WRMSR,                            [0x32] = INSN_RDMSR,
    [0xa2] = INSN_CPUID,
    [0xa3] = INSN_BT | EV_GV,                       [0xab] = INSN_BTS | EV_GV,
    [0xb3] = INSN_BTR | EV_GV,                      [0xbb] = INSN_BTC | EV_GV,
    [0xb0 ... 0xb1] = INSN_CMPXCHG | E_G,           [0xb6] = INSN_MOVZX | F_MODRM | MEM(1),
    [0xb7] = INSN_MOVZX | F_MODRM | MEM(2),         [0xba] = GROUP(BIT) | EV_GV | IMM(BYTE),
    [0xbe] = INSN_MOVSX | F_MODRM | MEM(1),         [0xbf] = INSN_MOVSX | F_MODRM | MEM(2),
    [0xc0 ... 0xc1] = INSN_XADD | E_G,
    [0xc3] = INSN_MOV | EV_GV | F_MEM | F_NP | SIZE(Y),
    [0xc7] = GROUP(CX8) | F_MODRM,
};
/* clang-format on */

struct decoder {
    const u8 *bytes;
    u8 len;
    u8 pos;
    bool overrun; /* a byte past the end was wanted (and read as 0): all else is meaningless */
    bool has_66;
    u8 rep; /* the last of F2h and F3h, or 0 */
    u8 rex;
    u8 modrm;
    u16 opcode; /* in the high byte: 0, 0Fh, or 38h for 0F 38 */
};

#define REX_W 8
#define REX_R 4
#define REX_X 2
#define REX_B 1

/* Reads a little-endian number of `size` bytes. */
static u64 fetch(struct decoder *d, u8 size)
{
    u64 value = 0;

    if (size > d->len - d->pos) {
        d->overrun = true;
        return 0;
    }
    for (u8 i = 0; i < size; i++)
        value |= (u64)d->bytes[d->pos++] << (8 * i);
    return value;
}

/* Reads prefixes and returns the first opcode byte. A REX counts only right before the opcode. In
 * 64-bit mode ES, CS, SS and DS overrides do nothing, not even undo FS or GS (APM vol. 3, 1.2.4).
 */
static u8 decode_prefixes(struct decoder *d, struct insn *insn)
{
    bool long_mode = insn->mode == INSN_MODE_64;

    for (;;) {
        u8 byte = fetch(d, 1);

        if (long_mode && (byte & 0xf0) == 0x40) {
            d->rex = byte;
            continue;
        }
        if ((byte & 0xe7) == 0x26)
            insn->seg = long_mode ? insn->seg : byte >> 3 & 3;
        else if ((byte & 0xfe) == 0x64)
            insn->seg = INSN_FS + (byte & 1);
        else if (byte == 0x66)
            d->has_66 = true;
        else if (byte == 0x67)
            insn->addr_size = insn->mode == INSN_MODE_32 ? 2 : 4;
        else if (byte == 0xf0)
            insn->lock = true;
        else if ((byte & 0xfe) == 0xf2)
            d->rep = byte;
        else
            return byte;
        d->rex = 0;
    }
}

/* Finds the table entry of the opcode, or 0. Entries with ModRM have it in d->modrm afterwards. */
static u32 decode_opcode(struct decoder *d, struct insn *insn)
{
    u32 entry;

    d->opcode = decode_prefixes(d, insn);
    entry = one_byte[d->opcode];
    if (d->opcode == 0x63 && insn->mode != INSN_MODE_64)
        return 0; /* ARPL */
    if (d->opcode == 0x0f) {
        d->opcode = 0x0f00 | fetch(d, 1);
        entry = two_byte[d->opcode & 0xff];
    }
    if (d->opcode == 0x0f01) {
        d->modrm = fetch(d, 1); /* all of it is opcode */
        return d->modrm == 0xd1 ? INSN_XSETBV | F_NP : d->modrm == 0xd9 ? INSN_VMMCALL : 0;
    }
    if (d->opcode == 0x0f38) {
        d->opcode = 0x3800 | fetch(d, 1);
        if ((d->opcode & 0xfe) == 0xf0 && !d->rep)
            entry = INSN_MOVBE | F_MODRM | F_MEM | (d->opcode & 1 ? F_DST : 0);
    }
    if (entry & F_MODRM)
        d->modrm = fetch(d, 1);
    if (entry & F_GROUP) {
        u32 member = groups[entry & OP_MASK][d->modrm >> 3 & 7];

        entry = member ? (entry & ~OP_MASK) | member : 0;
    }
    return entry;
}

static u8 resolve_size(const struct decoder *d, const struct insn *insn, u8 kind)
{
    static const u8 sizes[][3] = {
        [KIND_V] = {2, 4, 8},    [KIND_BV] = {2, 4, 8}, [KIND_BZ] = {2, 4, 4},
        [KIND_PUSH] = {2, 8, 8}, [KIND_Y] = {4, 4, 8},  [KIND_PAIR] = {8, 8, 16},
        [KIND_1] = {1, 1, 1},    [KIND_2] = {2, 2, 2},  [KIND_4] = {4, 4, 4},
        [KIND_NAT] = {8, 8, 8},
    };
    bool narrow = (insn->mode == INSN_MODE_16) != d->has_66;

    if ((kind == KIND_BV || kind == KIND_BZ) && !(d->opcode & 1))
        return 1;
    if (insn->mode != INSN_MODE_64 && (kind == KIND_PUSH || kind == KIND_NAT))
        kind = kind == KIND_PUSH ? KIND_V : KIND_4;
    return sizes[kind][d->rex & REX_W ? 2 : !narrow];
}

static void decode_memory16(struct decoder *d, struct insn *insn)
{
    static const u8 bases[8] = {3, 3, 5, 5, 6, 7, 5, 3}; /* BX BX BP BP SI DI BP BX */
    u8 mod = d->modrm >> 6, rm = d->modrm & 7;

    if (mod == 0 && rm == 6)
        mod = 2;
    else
        insn->base = bases[rm];
    if (rm < 4)
        insn->index = rm & 1 ? 7 : 6; /* DI SI */
    insn->disp = sign_extend(fetch(d, mod), mod);
}

static void decode_memory(struct decoder *d, struct insn *insn)
{
    static const u8 disp_sizes[] = {0, 1, 4};
    u8 mod = d->modrm >> 6, base = d->modrm & 7, disp_size = disp_sizes[mod];
    bool sib = base == 4;

    if (sib) {
        u8 byte = fetch(d, 1);
        u8 index = (byte >> 3 & 7) | (d->rex & REX_X ? 8 : 0);

        insn->index = index == 4 ? INSN_NO_REG : index;
        insn->scale = 1 << (byte >> 6);
        base = byte & 7;
    }
    if (mod == 0 && base == 5) {
        disp_size = 4;
        insn->rip_relative = !sib && insn->mode == INSN_MODE_64;
    } else {
        insn->base = base | (d->rex & REX_B ? 8 : 0);
    }
    insn->disp = sign_extend(fetch(d, disp_size), disp_size);
}

static void decode_modrm(struct decoder *d, struct insn *insn, u32 entry)
{
    if (!(entry & F_GROUP)) {
        insn->reg = (d->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0);
        /* Without REX, byte registers 4..7 are AH, CH, DH and BH. */
        insn->reg_high = insn->op_size == 1 && !d->rex && insn->reg >= 4;
        insn->reg -= insn->reg_high ? 4 : 0;
    } else if (insn->op >= INSN_ROL && insn->op <= INSN_SAR) {
        insn->reg = 1; /* CL */
    }
    if (insn->op == INSN_MOV_SREG)
        insn->reg &= 7; /* eight registers: REX.R is ignored */
    if (d->modrm >= 0xc0 || (entry & F_REG)) {
        insn->rm = (d->modrm & 7) | (d->rex & REX_B ? 8 : 0);
        return;
    }
    insn->has_mem = true;
    if (insn->addr_size == 2)
        decode_memory16(d, insn);
    else
        decode_memory(d, insn);
}

static void decode_immediate(struct decoder *d, struct insn *insn, u32 entry)
{
    u8 kind = IMM_KIND(entry), size = MIN(insn->op_size, 4);

    insn->has_imm = kind != IMM_NONE && kind != IMM_OFFSET;
    if (kind == IMM_OFFSET) {
        insn->has_mem = true;
        insn->disp = sign_extend(fetch(d, insn->addr_size), insn->addr_size);
    } else if (kind == IMM_OPERAND) {
        insn->imm = (u64)sign_extend(fetch(d, size), size);
    } else if (kind == IMM_SIGNED) {
        insn->imm = (u64)sign_extend(fetch(d, 1), 1);
    } else if (kind == IMM_BYTE) {
        insn->imm = fetch(d, 1);
    } else {
        insn->imm = kind == IMM_ONE;
    }
}

_Static_assert(INSN_MOV_CR < 64, "operations with a memory operand must fit into a bit mask");

/* Fills in the rest of the memory operand: string registers, segment, direction of access. */
static void decode_access(const struct decoder *d, struct insn *insn, u32 entry)
{
    const u64 first_not_written = BIT(INSN_CMP) | BIT(INSN_TEST) | BIT(INSN_BT);
    const u64 first_not_read = BIT(INSN_MOV) | BIT(INSN_MOVBE) | BIT(INSN_MOV_SREG) |
                               BIT(INSN_POP) | BIT(INSN_STOS) | BIT(INSN_INS);

    if (entry & (F_SI | F_DI)) {
        insn->has_mem = true;
        insn->base = entry & F_SI ? 6 : 7;
        insn->rep = d->rep;
        insn->repne = d->rep == 0xf2;
    }
    if (entry & F_DI)
        insn->seg = INSN_ES;
    else if (insn->seg == INSN_NO_REG)
        insn->seg = insn->base == 4 || insn->base == 5 ? INSN_SS : INSN_DS;
    if (insn->has_mem) {
        insn->mem_write = insn->rm_is_dst && !(first_not_written >> insn->op & 1);
        insn->mem_read = !insn->rm_is_dst || !(first_not_read >> insn->op & 1);
    }
}

/* Refuses what the tables cannot say. Returns 0 or -E_INVAL. */
static int check(const struct decoder *d, const struct insn *insn, u32 entry)
{
    const u64 lockable = (BIT(INSN_CMP) - BIT(INSN_ADD)) | (BIT(INSN_TEST) - BIT(INSN_BTS)) |
                         (BIT(INSN_MOV) - BIT(INSN_NOT));

    if (insn->lock && !(insn->mem_write && (lockable >> insn->op & 1)))
        return -E_INVAL;
    if (((entry & F_MEM) && !insn->has_mem) || ((entry & F_NP) && (d->has_66 || d->rep)))
        return -E_INVAL;
    if (insn->op == INSN_MOV_CR && !(0x11d >> insn->reg & 1)) /* 0 2 3 4 8 */
        return -E_INVAL;
    if (insn->op == INSN_MOV_DR && insn->reg > 7)
        return -E_INVAL;
    return insn->op == INSN_MOV_SREG && insn->reg > INSN_GS ? -E_INVAL : 0;
}

int insn_decode(struct insn *insn, const u8 *bytes, size_t len, enum insn_mode mode)
{
    struct decoder d = {.bytes = bytes, .len = MIN(len, INSN_MAX_LENGTH)};
    u32 entry;

    *insn = (struct insn){.mode = mode,
                          .addr_size = mode,
                          .seg = INSN_NO_REG,
                          .base = INSN_NO_REG,
                          .index = INSN_NO_REG,
                          .scale = 1};
    entry = decode_opcode(&d, insn);
    if (entry) {
        insn->op = entry & OP_MASK;
        insn->rm_is_dst = entry & F_DST;
        insn->op_size = resolve_size(&d, insn, SIZE_KIND(entry));
        insn->mem_size = MEM_KIND(entry) ? resolve_size(&d, insn, MEM_KIND(entry)) : insn->op_size;
        if (entry & F_MODRM)
            decode_modrm(&d, insn, entry);
        decode_immediate(&d, insn, entry);
        decode_access(&d, insn, entry);
        insn->length = d.pos;
    }
    if (d.overrun)
        return len < INSN_MAX_LENGTH ? -E_AGAIN : -E_INVAL;
    return entry ? check(&d, insn, entry) : -E_OPNOTSUPP;
}

u64 insn_effective_address(const struct insn *insn, const u64 gprs[16], u64 rip, u64 seg_base)
{
    u64 offset = (u64)insn->disp;

    if (insn->rip_relative)
        offset += rip + insn->length;
    if (insn->base != INSN_NO_REG)
        offset += gprs[insn->base];
    if (insn->index != INSN_NO_REG)
        offset += gprs[insn->index] * insn->scale;
    if (insn->op == INSN_POP && insn->base == 4)
        offset += insn->op_size;
    if (insn->op >= INSN_BT && insn->op <= INSN_BTC && !insn->has_imm) {
        s64 bit = sign_extend(gprs[insn->reg], insn->op_size);

        offset += (u64)(bit >> 3) & ~(u64)(insn->op_size - 1);
    }
    return zero_extend(zero_extend(offset, insn->addr_size) + seg_base, MAX(insn->mode, 4));
}

u64 insn_string_dst(const struct insn *insn, const u64 gprs[16], u64 es_base)
{
    return zero_extend(zero_extend(gprs[7], insn->addr_size) + es_base, MAX(insn->mode, 4));
}

#define FLAG_CF BIT(0)
#define FLAG_PF BIT(2)
#define FLAG_AF BIT(4)
#define FLAG_ZF BIT(6)
#define FLAG_SF BIT(7)
#define FLAG_OF BIT(11)
#define FLAGS   (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* Ends an operation: those of its flags that are in `change`, and the result's own. */
static u64 set_flags(u64 *rflags, u64 change, u64 flags, u64 result, u8 size)
{
    result = zero_extend(result, size);
    flags |= (__builtin_parity(result & 0xff) ? 0 : FLAG_PF) | (result ? 0 : FLAG_ZF) |
             (result >> (8 * size - 1) & 1 ? FLAG_SF : 0);
    *rflags = (*rflags & ~change) | (flags & change);
    return result;
}

/* Flags of an addition or subtraction: `carries` has the carry (borrow) out of each bit. Overflow
 * is where those into and out of the sign differ. */
static u64 carry_flags(u64 carries, u8 size)
{
    u8 top = 8 * size - 1;

    return (carries >> top & 1 ? FLAG_CF : 0) | (carries & 8 ? FLAG_AF : 0) |
           ((carries ^ carries << 1) >> top & 1 ? FLAG_OF : 0);
}

/* Shifts and rotates, one bit at a time: at most 63 steps, and exact for RCL and RCR too. */
static u64 alu_shift(enum insn_op op, u64 value, u8 count, u8 size, u64 *rflags)
{
    u8 top = 8 * size - 1;
    bool left = op == INSN_ROL || op == INSN_RCL || op == INSN_SHL;
    u64 carry = *rflags & FLAG_CF, overflow = 0;
    u64 change = op <= INSN_RCR ? FLAG_CF | FLAG_OF : FLAGS & ~FLAG_AF;

    count &= size == 8 ? 63 : 31;
    if (!count)
        return value;
    for (; count; count--) {
        u64 sign = value >> top & 1, out = left ? sign : value & 1;
        u64 in = op == INSN_ROL || op == INSN_ROR   ? out
                 : op == INSN_RCL || op == INSN_RCR ? carry
                 : op == INSN_SAR                   ? sign
                                                    : 0;

        value = left ? value << 1 | in : value >> 1 | in << top;
        overflow = (value >> top & 1) != sign ? FLAG_OF : 0;
        carry = out;
    }
    return set_flags(rflags, change, carry | overflow, value, size);
}

static u64 alu_bit(enum insn_op op, u64 value, u64 src, u8 size, u64 *rflags)
{
    u64 bit = BIT(src & (8 * size - 1)), flags = value & bit ? FLAG_CF : 0;

    if (op == INSN_BTS)
        value |= bit;
    else if (op == INSN_BTR)
        value &= ~bit;
    else if (op == INSN_BTC)
        value ^= bit;
    return set_flags(rflags, FLAG_CF, flags, value, size);
}

u64 insn_alu(enum insn_op op, u64 dst, u64 src, u8 size, u64 *rflags)
{
    u64 change = FLAGS, flags = 0, result;
    u64 carry = op == INSN_ADC || op == INSN_SBB ? *rflags & FLAG_CF : 0;

    dst = zero_extend(dst, size);
    src = zero_extend(src, size);
    if (op >= INSN_ROL && op <= INSN_SAR)
        return alu_shift(op, dst, (u8)src, size, rflags);
    if (op >= INSN_BT && op <= INSN_BTC)
        return alu_bit(op, dst, src, size, rflags);
    if (op == INSN_NEG) {
        src = dst;
        dst = 0;
    } else if (op == INSN_INC || op == INSN_DEC) {
        src = 1;
        change &= ~FLAG_CF;
    }
    switch (op) {
    case INSN_ADD:
    case INSN_ADC:
    case INSN_XADD:
    case INSN_INC:
        result = zero_extend(dst + src + carry, size);
        flags = carry_flags((dst & src) | ((dst | src) & ~result), size);
        break;
    case INSN_SUB:
    case INSN_SBB:
    case INSN_CMP:
    case INSN_CMPXCHG:
    case INSN_CMPS:
    case INSN_SCAS:
    case INSN_NEG:
    case INSN_DEC:
        result = zero_extend(dst - src - carry, size);
        flags = carry_flags((~dst & src) | ((~dst | src) & result), size);
        break;
    case INSN_AND:
    case INSN_TEST:
        result = dst & src;
        break;
    case INSN_OR:
        result = dst | src;
        break;
    case INSN_XOR:
        result = dst ^ src;
        break;
    case INSN_NOT:
        return zero_extend(~dst, size);
    case INSN_MOVBE:
        return __builtin_bswap64(src) >> (64 - 8 * size);
    default:
        return src;
    }
    return set_flags(rflags, change, flags, result, size);
}
