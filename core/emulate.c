/* SPDX-License-Identifier: BSD-2-Clause */
/* Executes the instructions that exits need done: MMIO, string port I/O, CR8. An instruction
 * changes nothing before all that it reads is there. When dom0 must answer a read, the exit leaves
 * everything as it was; with the answer the instruction is executed anew from its bytes, and takes
 * what it has read from v->replay. What it writes to dom0's MMIO goes out after its end, one exit
 * each.
 *
 * A guest may change the instruction at any time, so what is decoded need not be what exited: each
 * exit carries out only what the processor has checked the rights for, and lets the guest run on
 * otherwise. */
#include "core/exits.h"
#include "core/doorbell.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/log.h"
#include "core/x86.h"

#define MAX_ELEMENTS 64 /* of a repeated string instruction in one go */

/* Results besides gmem.h's errors. */
#define ASK_DOM0 (-E_BUSY) /* an MMIO read is prepared in v->page */

enum target { TARGET_RAM, TARGET_APIC, TARGET_MMIO };

struct emulation {
    struct vcpu *v;
    u8 bytes[INSN_MAX_LENGTH];
    u8 fetched;
    struct insn insn;
    u64 next_rip;
    bool done;    /* the instruction is over; else it is to be executed again (REP) */
    u8 used;      /* of v->replay.read */
    bool special; /* an operand is not RAM */

    /* What the processor has found out already: where in guest-physical memory the access went. */
    bool has_hint;
    bool hint_write;
    gpa_t hint;
};

/* An operand in memory, of up to 16 bytes: those before the end of its first page are at gpa[0]. */
struct operand {
    gpa_t gpa[2];
    u8 first;
    u8 size;
};

/* ---- registers ---- */

static u64 reg_get(const struct vcpu *v, u8 reg, bool high, u8 size)
{
    return zero_extend(v->gpr[reg] >> (high ? 8 : 0), size);
}

/* As the processor does: 32-bit results clear the upper half, smaller ones leave the rest alone. */
static void reg_put(struct vcpu *v, u8 reg, bool high, u8 size, u64 value)
{
    u64 *r = &v->gpr[reg], mask = size == 1 ? 0xff : 0xffff;

    if (size >= 4)
        *r = zero_extend(value, size);
    else if (high)
        *r = (*r & ~0xff00ull) | (value & 0xff) << 8;
    else
        *r = (*r & ~mask) | (value & mask);
}

static enum insn_mode code_mode(const struct vcpu *v)
{
    if (vcpu_is_64bit(v))
        return INSN_MODE_64;
    return v->sregs.seg[SOCLE_SEG_CS].attr & BIT(10) ? INSN_MODE_32 : INSN_MODE_16;
}

static u64 seg_base(const struct vcpu *v, u8 seg)
{
    return vcpu_is_64bit(v) && seg < SOCLE_SEG_FS ? 0 : v->sregs.seg[seg].base;
}

/* ---- the instruction's bytes ---- */

/* Adds to e->bytes up to the end of the page. */
static int fetch_more(struct emulation *e)
{
    struct vcpu *v = e->v;
    gva_t gva = seg_base(v, SOCLE_SEG_CS) + v->rip + e->fetched;
    size_t n = MIN(sizeof(e->bytes) - e->fetched, PAGE_SIZE - (gva & ~PAGE_MASK));
    int err =
        gmem_read_linear(v, vcpu_is_64bit(v) ? gva : (u32)gva, e->bytes + e->fetched, n, PF_FETCH);

    if (!err)
        e->fetched = (u8)(e->fetched + n);
    return err;
}

/* Fetches and decodes the instruction at rip. -E_OPNOTSUPP: not one that the decoder knows. */
static int decode(struct emulation *e)
{
    static const u64 masks[] = {
        [INSN_MODE_16] = 0xffff, [INSN_MODE_32] = 0xffffffff, [INSN_MODE_64] = ~0ull};
    enum insn_mode mode = code_mode(e->v);
    int err = fetch_more(e);

    if (err)
        return err;
    err = insn_decode(&e->insn, e->bytes, e->fetched, mode);
    if (err == -E_AGAIN) {
        err = fetch_more(e);
        if (err)
            return err;
        err = insn_decode(&e->insn, e->bytes, e->fetched, mode);
    }
    e->next_rip = (e->v->rip + e->insn.length) & masks[mode];
    return err ? -E_OPNOTSUPP : 0;
}

/* ---- ways out ---- */

/* The instruction is beyond Socle. A guest's user must not be able to stop its machine with it. */
static enum vcpu_action exit_emulation(struct emulation *e)
{
    struct vcpu *v = e->v;

    if (!v->page)
        log_limited(
            "dom0's vCPU %u: no emulation of the instruction at rip %lx (%02x %02x %02x %02x)",
            v->handle, v->rip, e->bytes[0], e->bytes[1], e->bytes[2], e->bytes[3]);
    if (!v->page || vcpu_cpl(v))
        return vcpu_raise_ud(v);
    v->page->insn.length = e->fetched;
    memcpy(v->page->insn.bytes, e->bytes, sizeof(e->bytes));
    return vcpu_exit(v, SOCLE_EXIT_EMULATION);
}

/* dom0 maps a page, and then the instruction starts again; with what it had read of MMIO already,
 * since a read may have effects in a device. */
static enum vcpu_action exit_fault(struct vcpu *v)
{
    v->count[SOCLE_STAT_FAULT]++;
    if (v->replay.reads)
        v->io = (struct io_state){.kind = IO_MMIO_READ, .rip = v->rip};
    return vcpu_exit(v, SOCLE_EXIT_FAULT);
}

/* What a failed step means for the run loop. */
static enum vcpu_action leave(struct emulation *e, int err)
{
    switch (err) {
    case 0:
    case -E_FAULT:
        return VCPU_RESUME;
    case -E_AGAIN:
        return exit_fault(e->v);
    case ASK_DOM0:
        return vcpu_exit(e->v, SOCLE_EXIT_MMIO);
    default:
        return exit_emulation(e);
    }
}

/* ---- operands in memory ---- */

/* Away from its default page, where there never is memory, it is seen only where no memory is, as
 * in KVM. */
static bool is_apic(const struct vcpu *v, gpa_t gpa)
{
    gpa_t page = gpa & PAGE_MASK;
    struct npt_leaf leaf;

    return page == (v->lapic.base & PAGE_MASK) && domain_has(v->domain, DOMAIN_LAPIC) &&
           vlapic_mode(&v->lapic) == VLAPIC_XAPIC &&
           (page == APIC_DEFAULT_PA || (npt_lookup(&v->domain->npt, page, &leaf) && leaf.mmio));
}

/* What an access would reach: an enum target, or an error of gmem.h. */
static int target_of(struct vcpu *v, gpa_t gpa, bool write)
{
    struct npt_leaf leaf;

    if (is_apic(v, gpa))
        return TARGET_APIC;
    if (!npt_lookup(&v->domain->npt, gpa, &leaf))
        return gmem_not_mapped(v, gpa, write ? PF_WRITE : 0, false);
    if (leaf.mmio || (write && leaf.rom))
        return v->page ? TARGET_MMIO : -E_INVAL;
    if (write && !leaf.write)
        return gmem_not_mapped(v, gpa, PF_WRITE, true);
    return TARGET_RAM;
}

static int check_target(struct emulation *e, gpa_t gpa, bool read, bool write)
{
    int target = read ? target_of(e->v, gpa, false) : TARGET_RAM;

    if (target == TARGET_RAM && write)
        target = target_of(e->v, gpa, true);
    if (target < 0)
        return target;
    e->special |= target != TARGET_RAM;
    return 0;
}

/* Translates an operand's address and makes sure that it can be accessed. */
static int locate(struct emulation *e, struct operand *m, gva_t gva, u8 size, bool read, bool write)
{
    u32 access = write ? PF_WRITE : 0;
    int err = 0;

    m->size = size;
    m->first = (u8)MIN(size, PAGE_SIZE - (gva & ~PAGE_MASK));
    if (e->has_hint && e->hint_write == write && m->first == size &&
        !((gva ^ e->hint) & ~PAGE_MASK))
        m->gpa[0] = e->hint;
    else
        err = gmem_translate(e->v, gva, access, &m->gpa[0]);
    if (!err)
        err = check_target(e, m->gpa[0], read, write);
    if (err || m->first == size)
        return err;
    err = gmem_translate(e->v, gva + m->first, access, &m->gpa[1]);
    return err ? err : check_target(e, m->gpa[1], read, write);
}

/* The next piece of an operand, `done` bytes in: of one page, and of 8 bytes at most. */
static u8 piece(const struct operand *m, u8 done, gpa_t *gpa)
{
    u8 left = done < m->first ? m->first - done : m->size - done;

    *gpa = done < m->first ? m->gpa[0] + done : m->gpa[1] + (done - m->first);
    return MIN(left, 8);
}

static void describe_mmio(struct vcpu *v, gpa_t gpa, u8 size, bool write)
{
    v->page->mmio.gpa = gpa;
    v->page->mmio.size = size;
    v->page->mmio.write = write;
}

static int read_mmio(struct emulation *e, gpa_t gpa, u8 size, u64 *value)
{
    struct vcpu *v = e->v;
    struct replay *r = &v->replay;
    const struct mmio_access *known = &r->read[e->used];

    if (e->used == REPLAY_MAX)
        return -E_INVAL;
    if (e->used < r->reads && known->gpa == gpa && known->size == size) {
        *value = known->data;
        e->used++;
        return 0;
    }
    r->reads = e->used;
    v->io = (struct io_state){.kind = IO_MMIO_READ, .gpa = gpa, .size = size, .rip = v->rip};
    describe_mmio(v, gpa, size, false);
    return ASK_DOM0;
}

static int write_mmio(struct vcpu *v, gpa_t gpa, u8 size, u64 value)
{
    struct replay *r = &v->replay;

    if (r->writes == REPLAY_MAX)
        return -E_INVAL;
    r->write[r->writes++] = (struct mmio_access){gpa, value, size};
    return 0;
}

static void write_apic(struct vcpu *v, gpa_t gpa, u64 value)
{
    struct vlapic_effect effect = {.flags = 0};

    vlapic_mmio_write(&v->lapic, gpa & ~PAGE_MASK, (u32)value, rdtsc(), &effect);
    vcpu_apply_effect(v, &effect);
}

static int access_piece(struct emulation *e, gpa_t gpa, u8 size, u64 *value, bool write)
{
    struct vcpu *v = e->v;
    int target = target_of(v, gpa, write);

    switch (target) {
    case TARGET_RAM:
        return write ? gmem_write(v, gpa, value, size) : gmem_read(v, gpa, value, size, false);
    case TARGET_APIC:
        if (write)
            write_apic(v, gpa, *value);
        else
            *value = vlapic_mmio_read(&v->lapic, gpa & ~PAGE_MASK, rdtsc());
        return 0;
    case TARGET_MMIO:
        return write ? write_mmio(v, gpa, size, *value) : read_mmio(e, gpa, size, value);
    default:
        return target;
    }
}

/* Reads or writes an operand of up to 16 bytes. */
static int access_operand(struct emulation *e, const struct operand *m, u64 value[2], bool write)
{
    u8 n;

    for (u8 done = 0; done < m->size; done += n) {
        u64 part = 0;
        gpa_t gpa;
        int err;

        n = piece(m, done, &gpa);
        if (write)
            memcpy(&part, (u8 *)value + done, n);
        err = access_piece(e, gpa, n, &part, write);
        if (err)
            return err;
        if (!write)
            memcpy((u8 *)value + done, &part, n);
    }
    return 0;
}

static int operand_read(struct emulation *e, const struct operand *m, u64 value[2])
{
    value[0] = value[1] = 0;
    return access_operand(e, m, value, false);
}

/* Sends what the instruction has written to dom0's MMIO, one exit each. */
static enum vcpu_action send_writes(struct vcpu *v)
{
    struct replay *r = &v->replay;

    while (r->writes) {
        struct mmio_access w = r->write[0];

        r->writes--;
        memmove(&r->write[0], &r->write[1], r->writes * sizeof(w));
        if (doorbell_ring(v->domain, w.gpa, w.size, w.data, false)) {
            v->count[SOCLE_STAT_DOORBELL]++;
            continue;
        }
        v->io = (struct io_state){.kind = r->writes ? IO_MMIO_WRITES : IO_MMIO_WRITE};
        describe_mmio(v, w.gpa, w.size, true);
        memcpy(v->page->data, &w.data, sizeof(w.data));
        return vcpu_exit(v, SOCLE_EXIT_MMIO);
    }
    return VCPU_RESUME;
}

/* ---- instructions with one operand in memory ---- */

static u64 source(const struct vcpu *v, const struct insn *i)
{
    return i->has_imm ? i->imm : reg_get(v, i->reg, i->reg_high, i->op_size);
}

static void set_reg(struct vcpu *v, const struct insn *i, u64 value)
{
    reg_put(v, i->reg, i->reg_high, i->op_size, value);
}

static u64 swap_bytes(u64 value, u8 size)
{
    return __builtin_bswap64(value) >> (64 - 8 * size);
}

static void compute_cmpxchg(struct vcpu *v, const struct insn *i, u64 *mem)
{
    insn_alu(INSN_CMPXCHG, v->gpr[RAX], *mem, i->op_size, &v->rflags);
    if (v->rflags & RFLAGS_ZF)
        *mem = reg_get(v, i->reg, i->reg_high, i->op_size);
    else
        reg_put(v, RAX, false, i->op_size, *mem);
}

/* CMPXCHG8B and CMPXCHG16B, whose memory operand is two halves. */
static void compute_cmpxchg_pair(struct vcpu *v, const struct insn *i, u64 mem[2])
{
    u8 half = i->mem_size / 2;
    u64 low = zero_extend(mem[0], half), high = half == 8 ? mem[1] : mem[0] >> 32;
    bool same = low == zero_extend(v->gpr[RAX], half) && high == zero_extend(v->gpr[RDX], half);

    v->rflags = (v->rflags & ~RFLAGS_ZF) | (same ? RFLAGS_ZF : 0);
    if (!same) {
        reg_put(v, RAX, false, half, low);
        reg_put(v, RDX, false, half, high);
    } else if (half == 8) {
        mem[0] = v->gpr[RBX];
        mem[1] = v->gpr[RCX];
    } else {
        mem[0] = zero_extend(v->gpr[RBX], 4) | v->gpr[RCX] << 32;
    }
}

/* The arithmetic forms: memory is the first operand, or the second and the result goes to a
 * register. */
static void compute_alu(struct vcpu *v, const struct insn *i, u64 *mem)
{
    u64 reg = source(v, i), value = zero_extend(*mem, i->op_size);

    if (i->rm_is_dst) {
        *mem = insn_alu(i->op, value, reg, i->op_size, &v->rflags);
    } else {
        reg = insn_alu(i->op, reg, value, i->op_size, &v->rflags);
        if (i->op != INSN_CMP && i->op != INSN_TEST)
            set_reg(v, i, reg);
    }
}

static void compute_swap(struct vcpu *v, const struct insn *i, u64 *mem)
{
    u64 old = *mem, reg = source(v, i);

    *mem = i->op == INSN_XADD ? insn_alu(INSN_XADD, old, reg, i->op_size, &v->rflags) : reg;
    set_reg(v, i, old);
}

static void compute_move(struct vcpu *v, const struct insn *i, u64 *mem)
{
    u64 value = i->rm_is_dst ? source(v, i) : *mem;

    if (i->op == INSN_MOVBE)
        value = swap_bytes(value, i->op_size);
    else if (i->op == INSN_MOVSX)
        value = (u64)sign_extend(value, i->mem_size);
    if (i->rm_is_dst)
        *mem = value;
    else
        set_reg(v, i, value);
}

/* Computes on v's registers and mem. */
static void compute(struct vcpu *v, const struct insn *i, u64 mem[2])
{
    switch (i->op) {
    case INSN_MOV:
    case INSN_MOVZX:
    case INSN_MOVSX:
    case INSN_MOVBE:
        compute_move(v, i, mem);
        break;
    case INSN_MOV_SREG:
        mem[0] = v->sregs.seg[i->reg].selector;
        break;
    case INSN_XCHG:
    case INSN_XADD:
        compute_swap(v, i, mem);
        break;
    case INSN_CMPXCHG:
        compute_cmpxchg(v, i, mem);
        break;
    case INSN_CMPXCHG8B:
        compute_cmpxchg_pair(v, i, mem);
        break;
    default:
        compute_alu(v, i, mem);
    }
}

static int run_operand(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    u64 mem[2], gpr[16], rflags = v->rflags;
    struct operand m;
    gva_t gva = insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg));
    int err = locate(e, &m, gva, i->mem_size, i->mem_read, i->mem_write);

    if (err || !e->special)
        return err;
    err = i->mem_read ? operand_read(e, &m, mem) : 0;
    if (err)
        return err;
    memcpy(gpr, v->gpr, sizeof(gpr));
    compute(v, i, mem);
    err = i->mem_write ? access_operand(e, &m, mem, true) : 0;
    if (err) {
        memcpy(v->gpr, gpr, sizeof(gpr));
        v->rflags = rflags;
    }
    e->done = !err;
    return err;
}

/* ---- instructions with two ---- */

/* PUSH and POP with a memory operand. */
static int run_stack(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    bool push = i->op == INSN_PUSH;
    u8 width = vcpu_is_64bit(v) ? 8 : v->sregs.seg[SOCLE_SEG_SS].attr & BIT(10) ? 4 : 2;
    u64 top = v->gpr[RSP] - (push ? i->op_size : 0), value[2];
    gva_t stack = seg_base(v, SOCLE_SEG_SS) + zero_extend(top, width);
    gva_t gva = insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg));
    struct operand from, to;
    int err;

    stack = zero_extend(stack, MAX(i->mode, 4));
    err = locate(e, &from, push ? gva : stack, i->op_size, true, false);
    if (!err)
        err = locate(e, &to, push ? stack : gva, i->op_size, false, true);
    if (err || !e->special)
        return err;
    err = operand_read(e, &from, value);
    if (!err)
        err = access_operand(e, &to, value, true);
    if (err)
        return err;
    reg_put(v, RSP, false, width, top + (push ? 0 : i->op_size));
    e->done = true;
    return 0;
}

static bool uses_si(enum insn_op op)
{
    return op == INSN_MOVS || op == INSN_CMPS || op == INSN_LODS || op == INSN_OUTS;
}

static bool uses_di(enum insn_op op)
{
    return op != INSN_LODS && op != INSN_OUTS;
}

static bool is_compare(enum insn_op op)
{
    return op == INSN_CMPS || op == INSN_SCAS;
}

static int string_locate(struct emulation *e, struct operand *src, struct operand *dst)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    bool compare = is_compare(i->op);
    int err = 0;

    if (uses_si(i->op))
        err = locate(e, src, insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg)),
                     i->op_size, true, false);
    if (!err && uses_di(i->op))
        err = locate(e, dst, insn_string_dst(i, v->gpr, seg_base(v, SOCLE_SEG_ES)), i->op_size,
                     compare, !compare);
    return err;
}

/* One element, but for the index and count registers. */
static int string_element(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    u64 value[2] = {v->gpr[RAX], 0}, other[2];
    struct operand src = {.size = 0}, dst = {.size = 0};
    int err = string_locate(e, &src, &dst);

    if (err || !e->special)
        return err;
    if (uses_si(i->op))
        err = operand_read(e, &src, value);
    if (!err && is_compare(i->op)) {
        err = operand_read(e, &dst, other);
        if (!err)
            insn_alu(INSN_CMP, value[0], other[0], i->op_size, &v->rflags);
    } else if (!err && uses_di(i->op)) {
        err = access_operand(e, &dst, value, true);
    } else if (!err) {
        reg_put(v, RAX, false, i->op_size, value[0]);
    }
    return err;
}

static void string_advance(struct vcpu *v, bool si, bool di, u8 addr_size, u64 bytes)
{
    u64 step = v->rflags & RFLAGS_DF ? 0 - bytes : bytes;

    if (si)
        reg_put(v, RSI, false, addr_size, v->gpr[RSI] + step);
    if (di)
        reg_put(v, RDI, false, addr_size, v->gpr[RDI] + step);
}

/* MOVS, CMPS, STOS, LODS, SCAS: some elements; the rest when the instruction is executed again. */
static int run_string(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;

    for (int n = 0; n < MAX_ELEMENTS && !v->replay.writes; n++) {
        u64 count = i->rep ? reg_get(v, RCX, false, i->addr_size) : 1;
        int err;

        e->special = false;
        err = count ? string_element(e) : 0;
        if (err || (count && !e->special))
            return err;
        e->done = count <= 1;
        if (!count)
            return 0;
        string_advance(v, uses_si(i->op), uses_di(i->op), i->addr_size, i->op_size);
        if (i->rep)
            reg_put(v, RCX, false, i->addr_size, count - 1);
        if (is_compare(i->op) && !(v->rflags & RFLAGS_ZF) == !i->repne)
            e->done = true;
        if (e->done)
            return 0;
        e->has_hint = false;
        e->used = v->replay.reads = 0;
    }
    return 0;
}

/* ---- MMIO ---- */

static int run(struct emulation *e)
{
    enum insn_op op = e->insn.op;

    if (!e->insn.has_mem)
        return 0; /* it is another by now */
    switch (op) {
    case INSN_MOVS:
    case INSN_CMPS:
    case INSN_STOS:
    case INSN_LODS:
    case INSN_SCAS:
        e->has_hint &= op != INSN_CMPS; /* which of two reads? */
        return run_string(e);
    case INSN_PUSH:
    case INSN_POP:
        return run_stack(e);
    case INSN_MOV_SREG:
        return e->insn.rm_is_dst ? run_operand(e) : -E_OPNOTSUPP;
    case INSN_INS:
    case INSN_OUTS: /* these exit for their ports first: not what the processor has checked */
        return 0;
    default:
        return op <= INSN_MOVBE ? run_operand(e) : -E_OPNOTSUPP;
    }
}

static enum vcpu_action emulate_mmio(struct emulation *e)
{
    struct vcpu *v = e->v;
    int err = decode(e);

    if (!err)
        err = run(e);
    if (err != -E_AGAIN && err != ASK_DOM0)
        v->replay.reads = 0;
    if (err) {
        v->replay.writes = 0;
        return leave(e, err);
    }
    if (e->done) {
        v->next_rip = e->next_rip;
        vcpu_skip(v);
    }
    return send_writes(v);
}

/* The access is not an instruction's operand, but its code, or part of the delivery of an event. */
static bool is_operand_access(const struct vcpu *v, bool fetch)
{
    return !fetch && !v->event.valid;
}

static enum vcpu_action exit_mmio(struct vcpu *v, gpa_t gpa, bool write, bool fetch)
{
    struct emulation e = {.v = v, .has_hint = true, .hint_write = write, .hint = gpa};

    return is_operand_access(v, fetch) ? emulate_mmio(&e) : exit_emulation(&e);
}

enum vcpu_action exit_npf(struct vcpu *v, gpa_t gpa, bool write, bool fetch)
{
    u32 access = (write ? PF_WRITE : 0) | (fetch ? PF_FETCH : 0);
    struct npt_leaf leaf;

    v->replay.reads = v->replay.writes = 0;
    if (is_apic(v, gpa)) {
        v->count[SOCLE_STAT_APIC_MMIO]++;
        return exit_mmio(v, gpa, write, fetch);
    }
    npt_lookup(&v->domain->npt, gpa, &leaf);
    if (leaf.present && (fetch ? leaf.exec : !write || leaf.write)) {
        v->count[SOCLE_STAT_FAULT]++; /* mapped meanwhile */
        return VCPU_RESUME;
    }
    if (v->page && (leaf.mmio || (write && leaf.rom))) {
        v->count[SOCLE_STAT_MMIO]++;
        return exit_mmio(v, gpa, write, fetch);
    }
    if (gmem_not_mapped(v, gpa, access, leaf.present) == -E_AGAIN)
        return exit_fault(v);
    log_limited("dom0's vCPU %u: %s at %lx refused, rip %lx", v->handle,
                write   ? "write"
                : fetch ? "fetch"
                        : "read",
                gpa, v->rip);
    return vcpu_raise_gp(v);
}

/* ---- port I/O ---- */

static enum vcpu_action ask_io(struct vcpu *v)
{
    v->page->io.port = v->io.port;
    v->page->io.size = v->io.size;
    v->page->io.in = v->io.kind == IO_IN || v->io.kind == IO_INS;
    v->page->io.count = v->io.count;
    return vcpu_exit(v, SOCLE_EXIT_IO);
}

enum vcpu_action exit_io(struct vcpu *v, u16 port, u8 size, bool in)
{
    u64 data = zero_extend(v->gpr[RAX], size);

    if (!v->page)
        return vcpu_raise_gp(v);
    if (!in && doorbell_ring(v->domain, port, size, data, true)) {
        v->count[SOCLE_STAT_DOORBELL]++;
        return vcpu_skip(v);
    }
    v->io = (struct io_state){.kind = in ? IO_IN : IO_OUT,
                              .size = size,
                              .port = port,
                              .count = 1,
                              .rip = v->rip,
                              .next_rip = v->next_rip};
    if (!in)
        memcpy(v->page->data, &data, sizeof(data));
    return ask_io(v);
}

/* How many elements from gva on one exit can carry: of one page, but one may cross into the next.
 */
static u32 io_elements(const struct vcpu *v, const struct insn *i, gva_t gva, u64 count)
{
    u64 in_page = (PAGE_SIZE - (gva & ~PAGE_MASK)) / i->op_size;

    if ((v->rflags & RFLAGS_DF) || !in_page)
        return 1;
    return (u32)MIN(MIN(count, in_page), SOCLE_DATA_BYTES / i->op_size);
}

/* INS: the memory must be there, before the device is asked. */
static int check_ins(struct emulation *e, gva_t gva)
{
    struct operand m;
    int err = locate(e, &m, gva, e->insn.op_size, false, true);

    return !err && e->special ? -E_OPNOTSUPP : err;
}

static enum vcpu_action string_io(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    u64 count = i->rep ? reg_get(v, RCX, false, i->addr_size) : 1;
    gva_t gva = insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg));
    u32 n = io_elements(v, i, gva, count);
    int err;

    if (!count) {
        v->next_rip = e->next_rip;
        return vcpu_skip(v);
    }
    err = i->op == INSN_INS ? check_ins(e, gva)
                            : gmem_read_linear(v, gva, v->page->data, n * i->op_size, 0);
    if (err)
        return leave(e, err);
    v->io = (struct io_state){.kind = i->op == INSN_INS ? IO_INS : IO_OUTS,
                              .size = i->op_size,
                              .port = (u16)v->gpr[RDX],
                              .count = n,
                              .rip = v->rip,
                              .next_rip = e->next_rip,
                              .gva = gva,
                              .addr_size = i->addr_size,
                              .rep = i->rep};
    return ask_io(v);
}

static enum vcpu_action complete_string_io(struct vcpu *v, const struct io_state *io)
{
    bool ins = io->kind == IO_INS;
    u64 left = io->rep ? reg_get(v, RCX, false, io->addr_size) : 1, n = MIN(io->count, left);
    int err = ins ? gmem_write_linear(v, io->gva, v->page->data, n * io->size) : 0;

    if (err == -E_AGAIN) { /* dom0 took the page meanwhile: the data waits */
        v->io = *io;
        return exit_fault(v);
    }
    if (err || !n)
        return VCPU_RESUME;
    string_advance(v, !ins, ins, io->addr_size, n * io->size);
    if (io->rep)
        reg_put(v, RCX, false, io->addr_size, left - n);
    if (left == n) {
        v->next_rip = io->next_rip;
        vcpu_skip(v);
    }
    return VCPU_RESUME;
}

static enum vcpu_action complete_io(struct vcpu *v, const struct io_state *io)
{
    if (io->kind == IO_IN)
        reg_put(v, RAX, false, io->size, io->data);
    v->next_rip = io->next_rip;
    return vcpu_skip(v);
}

/* ---- CR8, and the rest of the entry points ---- */

static enum vcpu_action access_cr8(struct emulation *e)
{
    struct vcpu *v = e->v;
    u64 *reg = &v->gpr[e->insn.rm];

    if (e->insn.reg != 8 || vcpu_cpl(v))
        return VCPU_RESUME;
    if (e->insn.rm_is_dst)
        *reg = vlapic_cr8(&v->lapic);
    else if (*reg & ~0xfull)
        return vcpu_raise_gp(v);
    else
        vlapic_set_cr8(&v->lapic, (u8)*reg);
    v->next_rip = e->next_rip;
    return vcpu_skip(v);
}

enum vcpu_action exit_emulate(struct vcpu *v)
{
    struct emulation e = {.v = v};
    int err;

    v->replay.reads = v->replay.writes = 0;
    err = decode(&e);
    if (err == -E_OPNOTSUPP)
        return VCPU_RESUME;
    if (err)
        return leave(&e, err);
    if (e.insn.op == INSN_MOV_CR)
        return access_cr8(&e);
    if (e.insn.op != INSN_INS && e.insn.op != INSN_OUTS)
        return VCPU_RESUME;
    if (v->page)
        return string_io(&e);
    return vcpu_raise_gp(v);
}

enum vcpu_action exit_find_next_rip(struct vcpu *v, enum insn_op op)
{
    struct emulation e = {.v = v};
    int err;

    v->replay.reads = 0;
    v->next_rip = v->rip;
    err = decode(&e);
    if (err == -E_AGAIN)
        return exit_fault(v);
    if (!err && e.insn.op == op)
        v->next_rip = e.next_rip;
    return VCPU_RESUME;
}

static enum vcpu_action complete_read(struct vcpu *v, const struct io_state *io)
{
    struct emulation e = {.v = v};
    struct replay *r = &v->replay;

    if (io->size && r->reads < REPLAY_MAX)
        r->read[r->reads++] =
            (struct mmio_access){io->gpa, zero_extend(io->data, io->size), io->size};
    return emulate_mmio(&e);
}

enum vcpu_action emulate_complete(struct vcpu *v)
{
    struct io_state io = v->io;

    v->io.kind = IO_NONE;
    if (io.kind == IO_MMIO_WRITES)
        return send_writes(v);
    if (io.rip != v->rip) { /* dom0 has set the registers, or reset the vCPU */
        v->replay.reads = 0;
        return VCPU_RESUME;
    }
    switch (io.kind) {
    case IO_IN:
    case IO_OUT:
        return complete_io(v, &io);
    case IO_INS:
    case IO_OUTS:
        v->replay.reads = 0;
        return complete_string_io(v, &io);
    case IO_MMIO_READ:
        return complete_read(v, &io);
    default:
        return VCPU_RESUME;
    }
}
