/* SPDX-License-Identifier: BSD-2-Clause */
/* Instruction decoder: the length of the instructions that Socle executes, and the full meaning
 * of those that may access emulated memory (MMIO). Pure functions on bytes and numbers, without
 * state or side effects; anyone may call them. Reading guest memory and writing registers is the
 * caller's work. */
#pragma once

#include "core/types.h"

#define INSN_MAX_LENGTH 15
#define INSN_NO_REG     0xff

/* The code segment's default size; the value is the default address size in bytes. */
enum insn_mode { INSN_MODE_16 = 2, INSN_MODE_32 = 4, INSN_MODE_64 = 8 };

/* Segment registers in the processors' own order. */
enum insn_seg { INSN_ES, INSN_CS, INSN_SS, INSN_DS, INSN_FS, INSN_GS };

/* clang-format off */
enum insn_op {
    INSN_NONE,
    /* Arithmetic, in the order of the opcode map; see insn_alu(). A shift count is imm, or CL when
     * !has_imm; a bit number is imm or reg. */
    INSN_ADD, INSN_OR, INSN_ADC, INSN_SBB, INSN_AND, INSN_SUB, INSN_XOR, INSN_CMP,
    INSN_ROL, INSN_ROR, INSN_RCL, INSN_RCR, INSN_SHL, INSN_SHR, INSN_SAR,
    INSN_BT, INSN_BTS, INSN_BTR, INSN_BTC,
    INSN_TEST, INSN_NOT, INSN_NEG, INSN_INC, INSN_DEC, INSN_XADD, INSN_CMPXCHG,
    /* Moves. */
    INSN_CMPXCHG8B, /* and 16B: mem_size tells */
    INSN_XCHG,
    INSN_MOV, /* and MOVNTI */
    INSN_MOVZX,
    INSN_MOVSX, /* and MOVSXD */
    INSN_MOVBE,
    INSN_MOV_SREG, /* to memory; reg is an enum insn_seg */
    INSN_PUSH, INSN_POP,
    INSN_MOVS, /* memory operand: seg:rSI, and a second one: ES:rDI */
    INSN_CMPS, /* likewise */
    INSN_STOS, INSN_LODS, INSN_SCAS, INSN_INS, INSN_OUTS,
    /* System. */
    INSN_MOV_CR, /* reg is the control register's number, rm the general register's */
    INSN_MOV_DR, /* likewise */
    INSN_INT,    /* imm, or INT3: 3 */
    INSN_CPUID,
    INSN_HLT,
    INSN_INVD,
    INSN_WBINVD, /* and WBNOINVD */
    INSN_RDMSR,
    INSN_WRMSR,
    INSN_XSETBV,
    INSN_VMMCALL
};
/* clang-format on */

/* General registers are numbered as in hardware: rax rcx rdx rbx rsp rbp rsi rdi r8..r15. */
struct insn {
    enum insn_op op;
    u8 length;      /* bytes, 1..15 */
    u8 mode;        /* the enum insn_mode that it was decoded in */
    u8 op_size;     /* operand: 1, 2, 4, 8 or 16 bytes */
    u8 mem_size;    /* access to memory in bytes: differs from op_size for MOVZX, Sreg and so on */
    u8 addr_size;   /* 2, 4 or 8 bytes: truncates the offset, and chooses CX, ECX or RCX for REP */
    u8 seg;         /* enum insn_seg of the memory operand, defaults resolved */
    bool lock;      /* LOCK prefix, legal here; XCHG with memory is locked without it too */
    bool rep;       /* only string and port string instructions: repeats rCX times */
    bool repne;     /* with rep, CMPS and SCAS: ends at ZF = 1 rather than ZF = 0 */
    bool has_mem;   /* a memory operand at seg:(base + index * scale + disp) */
    bool mem_read;  /* the memory operand is read; for MOVS and CMPS, seg:rSI */
    bool mem_write; /* ... is written; for MOVS, ES:rDI */
    bool rm_is_dst; /* first operand: memory (or rm), second: reg or imm; otherwise reg is first */
    bool has_imm;   /* the second operand is imm, not reg */
    bool reg_high;  /* reg is AH, CH, DH or BH: bits 15:8 of rax..rbx; reg is then 0..3 */
    bool rip_relative; /* base is the next instruction's address */
    u8 reg;            /* register operand (rAX where it is implied) */
    u8 rm;    /* second register operand, as encoded, when it could be memory but !has_mem */
    u8 base;  /* or INSN_NO_REG */
    u8 index; /* or INSN_NO_REG */
    u8 scale; /* 1, 2, 4 or 8 */
    s64 disp; /* sign-extended */
    u64 imm;  /* sign-extended, but shift count and bit number zero-extended */
};

/* Decodes the instruction at bytes[0..len) into *insn. Bytes past its end never matter. Returns 0,
 * or an error, and then *insn is undefined:
 * - -E_AGAIN: more bytes are needed (len < 15): fetch them and call again;
 * - -E_INVAL: the processor would refuse it: illegal LOCK, operand or mode, or over 15 bytes;
 * - -E_OPNOTSUPP: not one of the instructions above (it may be illegal as well).
 * Privilege, CPUID features and real mode are not looked at. */
int insn_decode(struct insn *insn, const u8 *bytes, size_t len, enum insn_mode mode);

/* The linear address of the memory operand; has_mem must be true. `rip` is the instruction's own
 * address, `seg_base` the base of insn->seg (in 64-bit mode the caller passes 0 for all but FS and
 * GS). Covers what a bit string's register offset (BT m, r) and POP's own increment of rSP add. For
 * MOVS and CMPS it is the source; insn_string_dst() gives the ES:rDI side. Limits and canonical
 * form are not checked. */
u64 insn_effective_address(const struct insn *insn, const u64 gprs[16], u64 rip, u64 seg_base);
u64 insn_string_dst(const struct insn *insn, const u64 gprs[16], u64 es_base);

/* Executes INSN_ADD..INSN_CMPXCHG and MOVBE on `size`-byte operands (1, 2, 4, 8; upper bits of dst
 * and src are ignored). Returns the zero-extended result and updates CF PF AF ZF SF OF in *rflags;
 * what the manuals leave undefined is left alone, or zero. CMP and TEST return what they compute,
 * which is not stored; CMPS and SCAS are CMP; XADD is ADD; for CMPXCHG dst is the accumulator and
 * src the memory operand, compared as CMP does; for BT* src is the bit number; for shifts src is
 * the count. Any other op returns src. */
u64 insn_alu(enum insn_op op, u64 dst, u64 src, u8 size, u64 *rflags);
