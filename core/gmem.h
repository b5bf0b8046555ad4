/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest's memory, as its own exit handlers see it: the walk of the guest's page tables, and
 * copies from and to guest-physical or linear addresses. Only for the vCPU whose exit this
 * processor handles (that is what keeps npt_lookup() and the frames that it finds safe), with
 * v->sregs filled. Every frame is reached through the domain's own nested tables, so none but its
 * own can be.
 *
 * All return 0 or
 * - -E_FAULT: an exception for the guest is in v->event (or the guest changes its page tables at
 *   this moment): enter it, and the instruction starts again or the exception is delivered;
 * - -E_AGAIN: dom0 must map a page first, and v->page->fault says which: the caller returns
 *   vcpu_exit(v, SOCLE_EXIT_FAULT), and the instruction starts again later;
 * - -E_INVAL: no memory is there: MMIO, a write to ROM, and for dom0 itself all that is not mapped.
 */
#pragma once

#include "core/vcpu.h"

/* The guest-physical address of a linear one. `access`: PF_WRITE, PF_FETCH or 0; whether it is a
 * user's is decided by CPL. Rights are checked, and accessed and dirty bits set, as the processor
 * does; but protection keys are not looked at. */
int gmem_translate(struct vcpu *v, gva_t gva, u32 access, gpa_t *gpa);

/* Where the RAM at gpa is. -E_INVAL: there is none for such an access, or dom0 has nothing there.
 */
int gmem_find_ram(struct vcpu *v, gpa_t gpa, u32 access, paddr_t *pa);

/* Copies guest-physical memory within one page to buf; or, if `access` is PF_WRITE, from buf. */
int gmem_access(struct vcpu *v, gpa_t gpa, void *buf, size_t len, u32 access);

/* The same with linear addresses, at most PAGE_SIZE bytes, which may cross into a second page. A
 * write that fails has changed nothing (unless dom0 unmaps at the same moment). */
int gmem_access_linear(struct vcpu *v, gva_t gva, void *buf, size_t len, u32 access);

static inline u8 vcpu_cpl(const struct vcpu *v)
{
    return v->sregs.seg[SOCLE_SEG_SS].attr >> 5 & 3;
}

/* The code segment is a 64-bit one. */
static inline bool vcpu_is_64bit(const struct vcpu *v)
{
    return (v->sregs.efer & EFER_LMA) && (v->sregs.seg[SOCLE_SEG_CS].attr & BIT(9));
}
