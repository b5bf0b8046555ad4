/* SPDX-License-Identifier: BSD-2-Clause */
/* Nested page tables (EPT or NPT) of one domain, 4 levels, 48 bits of guest-physical address.
 * Vendor-neutral: the bits come from a struct npt_format. Called by hypercalls, the dom0 builder
 * and exit handlers.
 *
 * Changes take npt->lock inside; the caller holds no lock that comes after it (npt > frame group,
 * pool). An entry changes by one 64-bit store. What hardware may still use is taken back in one
 * order only: clear the entries, flush everywhere, then drop the lend counts and free the tables.
 * Until the flush a cleared leaf keeps its frame number without its present bits, and an unlinked
 * table is not touched.
 *
 * Looking up is lock-free. A lookup, and every use of the frame that it found, must be either
 *  - under npt->lock, or
 *  - on a processor that npt_flush() waits for until the use is over: one that handles an exit of a
 * vCPU on these tables, before its next entry. It must not take npt->lock meanwhile, since the
 * holder may be waiting for it. So no table is freed under a walk, and when npt_unmap() returns
 * nobody uses the old frames any more. */
#pragma once

#include "core/pool.h"
#include "core/spinlock.h"

#define NPT_LEVELS   4 /* level 0: 4 KiB leaves, 1: 2 MiB, 2: 1 GiB, 3: the root */
#define NPT_GFN_BITS 36
#define NPT_MFN_BITS 40

/* For npt_map() beside SOCLE_MAP_*, never from a hypercall: device memory, not RAM. */
#define NPT_MAP_DEVICE 0x100

/* Bits of an entry. Bit 7 marks a leaf above level 0, bits 12-51 are the frame, in both formats.
 * Accessed and dirty bits are set from the start, so hardware writes no entry but one: where it
 * logs writes, it sets the dirty bit of a 4 KiB leaf that npt_protect() has cleared. A store that
 * this bit is lost to does no harm, for the write has been logged; and hardware sets it in no entry
 * that is not present any more. */
struct npt_format {
    u64 present; /* hardware uses the entry if any of these is set */
    u64 table;   /* an entry that points to a table: all rights */
    u64 leaf;    /* each present leaf has these */
    u64 write;
    u64 log;      /* the dirty bit, where hardware logs the writes that set it; else 0 */
    u64 exec_on;  /* set in executable leaves */
    u64 exec_off; /* set in the others */
    u64 ram;      /* memory types */
    u64 device;
    u64 rom;          /* software: a write is MMIO */
    u64 mmio;         /* software: the whole entry of a non-present leaf; in no other entry */
    u8 max_leaf;      /* highest level of a leaf */
    u8 max_exec_leaf; /* 0 where large executable leaves hit an erratum (CVE-2018-12207) */
};

/* AMD64 APM vol. 2, 15.25 and 5.3: long-mode entries; every nested access is a user access. RAM and
 * devices are both write-back: MTRRs and the guest's PAT apply. */
#define NPT_FORMAT_SVM                                                                        \
    {                                                                                         \
        .present = BIT(0), .table = 0x27, .leaf = 0x65, .write = BIT(1), .exec_off = BIT(63), \
        .rom = BIT(11), .mmio = BIT(10), .max_leaf = 2, .max_exec_leaf = 2,                   \
    }
/* Intel SDM vol. 3C, 29.3.2: read, write, execute in bits 0-2, memory type in 3-5 (6 WB, 0 UC), A
 * 8, D 9. */
#define NPT_EPT_DIRTY BIT(9)
#define NPT_FORMAT_EPT                                                                     \
    {                                                                                      \
        .present = 7, .table = 0x107, .leaf = 0x301, .write = BIT(1), .exec_on = BIT(2),   \
        .ram = 6 << 3, .rom = BIT(11), .mmio = BIT(10), .max_leaf = 2, .max_exec_leaf = 2, \
    }

struct npt {
    u64 *root; /* NULL once destroyed */
    const struct npt_format *format;
    struct charge *charge; /* pays for the tables */
    u64 mapped_pages;      /* present, in 4 KiB pages; written under the lock */
    bool lends;            /* a guest's: maps dom0's frames, counted. Else dom0's own map */
    bool logged;           /* leaves may be clean: processors must log, from the next flush on */
    struct spinlock lock;
};

struct npt_leaf {
    u64 entry; /* as hardware sees it */
    u64 mfn;   /* of the 4 KiB page that was asked for */
    u8 level;
    bool present;
    bool write; /* write, exec, rom: only when present; not where hardware would log the write */
    bool exec;
    bool rom;
    bool mmio; /* marked as MMIO; not present */
};

/* -E_NOMEM, or 0. format and charge must outlive the tables. */
int npt_init(struct npt *npt, const struct npt_format *format, struct charge *charge, bool lends);

/* All the functions with `done` do a bounded piece of work, from gfn upwards, and say in *done how
 * many pages it covers. 0: all is done. -E_AGAIN: go on with gfn + *done. Another error: this call
 * changed nothing and *done is 0. -E_INVAL: no pages, or beyond the address range. */

/* Maps [gfn, gfn + pages) to the frames from mfn on, in the largest leaves that alignment allows;
 * flags are SOCLE_MAP_* and NPT_MAP_DEVICE. What was mapped there is replaced, with a flush before
 * reuse; what is the same, or only gains rights, costs no flush. MMIO ignores mfn. -E_INVAL: flags
 * that exclude each other, or mfn out of range; -E_PERM: a frame that is not dom0's (its own map
 * may have devices too); -E_NOMEM; -E_OVERFLOW. */
int npt_map(struct npt *npt, u64 gfn, u64 mfn, u64 pages, u32 flags, u64 *done);

/* Unmaps, flushes, and gives the frames back. Leaves that lie partly outside are split. In a
 * guest's tables it never fails for want of memory: the whole leaf goes, and the guest faults it in
 * again; in dom0's: -E_NOMEM. */
int npt_unmap(struct npt *npt, u64 gfn, u64 pages, u64 *done);

/* From when it returns, a first write to each page faults, or hardware logs it (npt_format.log; not
 * to large leaves, since it would log one of their pages). Flushes; want of memory as above. */
int npt_protect(struct npt *npt, u64 gfn, u64 pages, u64 *done);

/* What is at gpa; false (and *out all zero but entry and level) if there is neither memory nor an
 * MMIO mark. See above for who may call it. */
bool npt_lookup(const struct npt *npt, gpa_t gpa, struct npt_leaf *out);

/* Takes a piece down: -E_AGAIN while there is more, 0 when all, the root too, is given back. No
 * vCPU may run on the tables any more. */
int npt_destroy_piece(struct npt *npt);

/* Elsewhere, and by tests: returns when no processor uses a translation or a table of npt that was
 * cleared before the call, and lookups that began before it are over. Called with npt->lock held or
 * without: it must not wait for a processor that merely spins for that lock. */
void npt_flush(struct npt *npt);
