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
#include "core/debug.h"
#include "core/doorbell.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/lib.h"
#include "core/log.h"

#define MAX_ELEMENTS 64 /* of a repeated string instruction in one go */

/* Results besides gmem.h's errors. */
#define ASK_DOM0 (-E_BUSY) /* an MMIO read is prepared in v->page */

enum target { TARGET_RAM, TARGET_APIC, TARGET_MMIO };

struct emulation {
    struct vcpu *v;
    u8 bytes[INSN_MAX_LENGTH];
    u8 fetched;
    struct insn insn;
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

/* As the processor does: 32-bit results clear the upper half, smaller ones leave the rest alone. */
static void reg_put(struct vcpu *v, u8 reg, u8 size, u64 value)
{
    u64 kept = size < 4 ? ~zero_extend(~0ull, size) : 0;

    v->gpr[reg] = (v->gpr[reg] & kept) | zero_extend(value, size);
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

/* Fetches the instruction at rip, page by page as far as needed, decodes it, and says where the
 * next one is. -E_OPNOTSUPP: not one that the decoder knows. */
static int decode(struct emulation *e)
{
    struct vcpu *v = e->v;
    enum insn_mode mode = code_mode(v);
    int err;

    do {
        gva_t gva = zero_extend(seg_base(v, SOCLE_SEG_CS) + v->rip + e->fetched, MAX(mode, 4));
        u64 n = MIN(sizeof(e->bytes) - e->fetched, PAGE_LEFT(gva));

        err = gmem_access_linear(v, gva, e->bytes + e->fetched, n, PF_FETCH);
        if (err)
            return err;
        e->fetched = (u8)(e->fetched + n);
        err = insn_decode(&e->insn, e->bytes, e->fetched, mode);
    } while (err == -E_AGAIN);
    if (err)
        return -E_OPNOTSUPP;
    v->next_rip = zero_extend(v->rip + e->insn.length, mode);
    return 0;
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
    if (!v->page || (vcpu_cpl(v) && !(v->traps & SOCLE_TRAP_UD)))
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
    if (err == -E_AGAIN)
        return exit_fault(e->v);
    if (err == ASK_DOM0)
        return vcpu_exit(e->v, SOCLE_EXIT_MMIO);
    return err == -E_FAULT ? VCPU_RESUME : exit_emulation(e);
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

/* What an access (PF_WRITE, PF_FETCH or 0) would reach: an enum target, or an error of gmem.h. */
static int target_of(struct vcpu *v, gpa_t gpa, u32 access)
{
    paddr_t pa;
    int err;

    if (is_apic(v, gpa))
        return TARGET_APIC;
    err = gmem_find_ram(v, gpa, access, &pa);
    if (err == -E_INVAL && v->page)
        return TARGET_MMIO;
    return err ? err : TARGET_RAM;
}

/* Translates an operand's address and makes sure that it can be accessed. */
static int locate(struct emulation *e, struct operand *m, gva_t gva, u8 size, bool write)
{
    u32 access = write ? PF_WRITE : 0;
    bool known;

    m->size = size;
    m->first = (u8)MIN(size, PAGE_SIZE - (gva & ~PAGE_MASK));
    m->gpa[0] = e->hint;
    known = e->has_hint && e->hint_write == write && m->first == size &&
            !((gva ^ e->hint) & ~PAGE_MASK);
    for (u32 part = 0; part < (m->first < size ? 2 : 1); part++) {
        int target = 0;

        if (!known)
            target = gmem_translate(e->v, gva + part * m->first, access, &m->gpa[part]);
        if (!target)
            target = target_of(e->v, m->gpa[part], access);
        if (target < 0)
            return target;
        e->special |= target != TARGET_RAM;
    }
    return 0;
}

static void prepare_mmio(struct vcpu *v, enum io_kind kind, gpa_t gpa, u8 size)
{
    v->io = (struct io_state){.kind = kind, .gpa = gpa, .size = size, .rip = v->rip};
    v->page->mmio.gpa = gpa;
    v->page->mmio.size = size;
    v->page->mmio.write = kind != IO_MMIO_READ;
}

static int read_mmio(struct emulation *e, gpa_t gpa, u8 size, u64 *value)
{
    struct replay *r = &e->v->replay;
    const struct mmio_access *known = &r->read[e->used];

    if (e->used == REPLAY_MAX)
        return -E_INVAL;
    if (e->used < r->reads && known->gpa == gpa && known->size == size) {
        *value = known->data;
        e->used++;
        return 0;
    }
    r->reads = e->used;
    prepare_mmio(e->v, IO_MMIO_READ, gpa, size);
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
    u32 access = write ? PF_WRITE : 0;
    int target = target_of(v, gpa, access);

    switch (target) {
    case TARGET_RAM:
        return gmem_access(v, gpa, value, size, access);
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

/* Reads or writes an operand, in pieces of one page each, and of 8 bytes at most. */
static int access_operand(struct emulation *e, const struct operand *m, u64 *value, bool write)
{
    u8 n;

    for (u8 done = 0; done < m->size; done += n) {
        bool first = done < m->first;
        gpa_t gpa = first ? m->gpa[0] + done : m->gpa[1] + (done - m->first);
        u64 part = 0;
        int err;

        n = MIN((first ? m->first : m->size) - done, 8);
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
        prepare_mmio(v, r->writes ? IO_MMIO_WRITES : IO_MMIO_WRITE, w.gpa, w.size);
        memcpy(v->page->data, &w.data, sizeof(w.data));
        return vcpu_exit(v, SOCLE_EXIT_MMIO);
    }
    return VCPU_RESUME;
}

/* ---- instructions with operands in memory ---- */

static u64 source(const struct vcpu *v, const struct insn *i)
{
    return i->has_imm ? i->imm : zero_extend(v->gpr[i->reg] >> (i->reg_high ? 8 : 0), i->op_size);
}

static void set_reg(struct vcpu *v, const struct insn *i, u64 value)
{
    if (i->reg_high)
        v->gpr[i->reg] = (v->gpr[i->reg] & ~0xff00ull) | (value & 0xff) << 8;
    else
        reg_put(v, i->reg, i->op_size, value);
}

static void compute_cmpxchg(struct vcpu *v, const struct insn *i, u64 *mem)
{
    insn_alu(INSN_CMPXCHG, v->gpr[RAX], *mem, i->op_size, &v->rflags);
    if (v->rflags & RFLAGS_ZF)
        *mem = source(v, i);
    else
        reg_put(v, RAX, i->op_size, *mem);
}

/* CMPXCHG8B and CMPXCHG16B, whose memory operand is two halves. */
static void compute_cmpxchg_pair(struct vcpu *v, const struct insn *i, u64 mem[2])
{
    u8 half = i->mem_size / 2, *upper = (u8 *)mem + half;

    if (!memcmp(mem, &v->gpr[RAX], half) && !memcmp(upper, &v->gpr[RDX], half)) {
        v->rflags |= RFLAGS_ZF;
        memcpy(mem, &v->gpr[RBX], half);
        memcpy(upper, &v->gpr[RCX], half);
    } else {
        v->rflags &= ~RFLAGS_ZF;
        v->gpr[RAX] = v->gpr[RDX] = 0;
        memcpy(&v->gpr[RAX], mem, half);
        memcpy(&v->gpr[RDX], upper, half);
    }
}

/* All that insn_alu() knows: memory is the first operand, or the second and the result goes to a
 * register. */
static void compute_alu(struct vcpu *v, const struct insn *i, u64 *mem)
{
    u64 reg = source(v, i);

    if (i->rm_is_dst) {
        *mem = insn_alu(i->op, *mem, reg, i->op_size, &v->rflags);
    } else {
        reg = insn_alu(i->op, reg, *mem, i->op_size, &v->rflags);
        if (i->op != INSN_CMP && i->op != INSN_SCAS)
            set_reg(v, i, reg);
    }
}

static u8 stack_width(const struct vcpu *v)
{
    return vcpu_is_64bit(v) ? 8 : v->sregs.seg[SOCLE_SEG_SS].attr & BIT(10) ? 4 : 2;
}

/* Computes on v's registers and mem. */
static void compute(struct vcpu *v, const struct insn *i, u64 mem[2])
{
    u64 old = mem[0];

    switch (i->op) {
    case INSN_MOVS:
        break;
    case INSN_CMPS:
        insn_alu(INSN_CMPS, mem[0], mem[1], i->op_size, &v->rflags);
        break;
    case INSN_PUSH:
        reg_put(v, RSP, stack_width(v), v->gpr[RSP] - i->op_size);
        break;
    case INSN_POP:
        reg_put(v, RSP, stack_width(v), v->gpr[RSP] + i->op_size);
        break;
    case INSN_MOVSX:
        set_reg(v, i, (u64)sign_extend(mem[0], i->mem_size));
        break;
    case INSN_MOV_SREG:
        mem[0] = v->sregs.seg[i->reg].selector;
        break;
    case INSN_XCHG:
    case INSN_XADD:
        mem[0] = insn_alu(i->op, old, source(v, i), i->op_size, &v->rflags);
        set_reg(v, i, old);
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

/* Where PUSH writes and POP reads. */
static gva_t stack_address(const struct vcpu *v, const struct insn *i)
{
    u64 top = v->gpr[RSP] - (i->op == INSN_PUSH ? i->op_size : 0);

    return zero_extend(seg_base(v, SOCLE_SEG_SS) + zero_extend(top, stack_width(v)),
                       MAX(i->mode, 4));
}

/* Finds what the instruction reads and what it writes (CMPS reads both): one place for most. */
static int locate_operands(struct emulation *e, struct operand *src, struct operand *dst,
                           bool write)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    gva_t from = insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg)), to = from;
    int err;

    if (i->op == INSN_MOVS || i->op == INSN_CMPS)
        to = insn_string_dst(i, v->gpr, seg_base(v, SOCLE_SEG_ES));
    else if (i->op == INSN_PUSH)
        to = stack_address(v, i);
    else if (i->op == INSN_POP)
        from = stack_address(v, i);
    err = locate(e, src, from, i->mem_size, write && from == to);
    *dst = *src;
    return err || from == to ? err : locate(e, dst, to, i->mem_size, write);
}

/* Executes the instruction, or one element of a string. A failure changes nothing. */
static int execute(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    bool read = i->mem_read || i->op == INSN_POP, write = i->mem_write || i->op == INSN_PUSH;
    u64 mem[2] = {0, 0}, gpr[16], rflags = v->rflags;
    struct operand src, dst;
    int err = locate_operands(e, &src, &dst, write);

    if (err || !e->special)
        return err;
    if (read)
        err = access_operand(e, &src, mem, false);
    if (!err && i->op == INSN_CMPS)
        err = access_operand(e, &dst, &mem[1], false);
    if (err)
        return err;
    memcpy(gpr, v->gpr, sizeof(gpr));
    compute(v, i, mem);
    err = write ? access_operand(e, &dst, mem, true) : 0;
    if (err) {
        memcpy(v->gpr, gpr, sizeof(gpr));
        v->rflags = rflags;
    }
    return err;
}

static void string_advance(struct vcpu *v, bool si, bool di, u8 addr_size, u64 bytes)
{
    u64 step = v->rflags & RFLAGS_DF ? 0 - bytes : bytes;

    if (si)
        reg_put(v, RSI, addr_size, v->gpr[RSI] + step);
    if (di)
        reg_put(v, RDI, addr_size, v->gpr[RDI] + step);
}

/* ---- MMIO ---- */

/* Executes the instruction; of a repeated string instruction some elements, and the rest when it is
 * executed again. */
static int run(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    bool two = i->op == INSN_MOVS || i->op == INSN_CMPS;
    bool compare = i->op == INSN_CMPS || i->op == INSN_SCAS;

    if (!i->has_mem || i->op == INSN_INS || i->op == INSN_OUTS)
        return 0; /* another by now: INS and OUTS would exit for their ports first */
    e->has_hint &= i->op != INSN_CMPS; /* which of two reads? */
    for (int n = 0; n < MAX_ELEMENTS && !e->done && !v->replay.writes; n++) {
        u64 count = i->rep ? zero_extend(v->gpr[RCX], i->addr_size) : 1;
        int err;

        e->special = false;
        err = count ? execute(e) : 0;
        if (err || !e->special)
            return err;
        if (i->op >= INSN_MOVS && i->op <= INSN_SCAS)
            string_advance(v, i->base == RSI, two || i->base == RDI, i->addr_size, i->op_size);
        if (i->rep)
            reg_put(v, RCX, i->addr_size, count - 1);
        e->done = count == 1 || (compare && !(v->rflags & RFLAGS_ZF) == !i->repne);
        e->has_hint = false;
        e->used = v->replay.reads = 0;
    }
    return 0;
}

static enum vcpu_action emulate_mmio(struct emulation *e)
{
    struct vcpu *v = e->v;
    int err;

    v->replay.writes = 0;
    err = decode(e);
    if (!err)
        err = run(e);
    if (err)
        return leave(e, err);
    if (e->done)
        vcpu_skip(v);
    return send_writes(v);
}

enum vcpu_action exit_npf(struct vcpu *v, gpa_t gpa, bool write, bool fetch)
{
    struct emulation e = {.v = v, .has_hint = true, .hint_write = write, .hint = gpa};
    int target = target_of(v, gpa, (write ? PF_WRITE : 0) | (fetch ? PF_FETCH : 0));
    const char *what = write ? "write" : fetch ? "fetch" : "read";

    v->replay.reads = 0;
    switch (target) {
    case TARGET_RAM:
        v->count[SOCLE_STAT_FAULT]++; /* mapped meanwhile */
        return VCPU_RESUME;
    case TARGET_APIC:
    case TARGET_MMIO:
        v->count[target == TARGET_APIC ? SOCLE_STAT_APIC_MMIO : SOCLE_STAT_MMIO]++;
        /* The access may be no operand's, but one to the code, or of the delivery of an event. */
        return fetch || v->event.valid ? exit_emulation(&e) : emulate_mmio(&e);
    case -E_AGAIN:
        return exit_fault(v);
    default:
        log_limited("dom0's vCPU %u: %s at %lx refused, rip %lx", v->handle, what, gpa, v->rip);
        return vcpu_raise_gp(v);
    }
}

/* ---- port I/O ---- */

static enum vcpu_action ask_io(struct vcpu *v, enum io_kind kind, u16 port, u8 size, u32 count)
{
    v->io.kind = kind;
    v->io.size = size;
    v->io.count = count;
    v->io.rip = v->rip;
    v->io.next_rip = v->next_rip;
    v->page->io.port = port;
    v->page->io.size = size;
    v->page->io.in = kind == IO_IN || kind == IO_INS;
    v->page->io.count = count;
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
    if (!in)
        memcpy(v->page->data, &data, sizeof(data));
    return ask_io(v, in ? IO_IN : IO_OUT, port, size, 1);
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

static enum vcpu_action string_io(struct emulation *e)
{
    struct vcpu *v = e->v;
    struct insn *i = &e->insn;
    bool ins = i->op == INSN_INS;
    u64 count = i->rep ? zero_extend(v->gpr[RCX], i->addr_size) : 1;
    gva_t gva = insn_effective_address(i, v->gpr, v->rip, seg_base(v, i->seg));
    u32 n = io_elements(v, i, gva, count);
    struct operand m;
    int err;

    if (!count)
        return vcpu_skip(v);
    /* INS: the memory must be there, before the device is asked. */
    err = ins ? locate(e, &m, gva, i->op_size, true)
              : gmem_access_linear(v, gva, v->page->data, n * i->op_size, 0);
    if (err || e->special)
        return leave(e, err ? err : -E_OPNOTSUPP);
    v->io = (struct io_state){.gva = gva, .addr_size = i->addr_size, .rep = i->rep};
    return ask_io(v, ins ? IO_INS : IO_OUTS, (u16)v->gpr[RDX], i->op_size, n);
}

static enum vcpu_action complete_string_io(struct vcpu *v, const struct io_state *io)
{
    bool ins = io->kind == IO_INS;
    u64 left = io->rep ? zero_extend(v->gpr[RCX], io->addr_size) : 1, n = MIN(io->count, left);
    int err = ins ? gmem_access_linear(v, io->gva, v->page->data, n * io->size, PF_WRITE) : 0;

    if (err == -E_AGAIN) { /* dom0 took the page meanwhile: the data waits */
        v->io = *io;
        return exit_fault(v);
    }
    if (err || !n)
        return VCPU_RESUME;
    string_advance(v, !ins, ins, io->addr_size, n * io->size);
    if (io->rep)
        reg_put(v, RCX, io->addr_size, left - n);
    return left == n ? vcpu_skip(v) : VCPU_RESUME;
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
    return vcpu_skip(v);
}

enum vcpu_action exit_emulate(struct vcpu *v)
{
    struct emulation e = {.v = v};
    int err;

    v->replay.reads = 0;
    err = decode(&e);
    if (err)
        return err == -E_OPNOTSUPP ? VCPU_RESUME : leave(&e, err);
    switch (e.insn.op) {
    case INSN_MOV_CR:
        return access_cr8(&e);
    case INSN_MOV_DR:
        return debug_mov_dr(v, &e.insn);
    case INSN_INT:
        return debug_int(v, e.insn.has_imm ? (u8)e.insn.imm : VEC_BP);
    case INSN_INS:
    case INSN_OUTS:
        return v->page ? string_io(&e) : vcpu_raise_gp(v);
    default:
        return VCPU_RESUME;
    }
}

enum vcpu_action exit_find_next_rip(struct vcpu *v, enum insn_op op)
{
    struct emulation e = {.v = v};
    int err;

    v->replay.reads = 0;
    err = decode(&e);
    if (err == -E_AGAIN)
        return exit_fault(v);
    if (err || e.insn.op != op)
        v->next_rip = v->rip;
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
    v->next_rip = io.next_rip;
    switch (io.kind) {
    case IO_IN:
        reg_put(v, RAX, io.size, io.data);
        return vcpu_skip(v);
    case IO_OUT:
        return vcpu_skip(v);
    case IO_INS:
    case IO_OUTS:
        return complete_string_io(v, &io);
    case IO_MMIO_READ:
        return complete_read(v, &io);
    default:
        return VCPU_RESUME;
    }
}
