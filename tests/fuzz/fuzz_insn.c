/* SPDX-License-Identifier: BSD-2-Clause */
// SOURCES: core/insn.c
/* The decoder on arbitrary bytes: no crash, no byte read past the end, and a result that more bytes
 * never change. */
#include <stdlib.h>
#include <string.h>
#include "core/errno.h"
#include "core/insn.h"

static void must(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* Decodes a copy of exactly len bytes, so that the sanitizer sees any read past them. */
static int decode(struct insn *insn, const u8 *data, size_t len, enum insn_mode mode)
{
    u8 *copy = malloc(len ? len : 1);
    int err;

    memcpy(copy, data, len);
    err = insn_decode(insn, copy, len, mode);
    free(copy);
    must(err == 0 || err == -E_AGAIN || err == -E_INVAL || err == -E_OPNOTSUPP);
    must(err != -E_AGAIN || len < INSN_MAX_LENGTH);
    must(err || (insn->length > 0 && insn->length <= len && insn->length <= INSN_MAX_LENGTH));
    return err;
}

static void execute(const struct insn *insn, const u8 *data, size_t size)
{
    u64 gprs[16] = {0}, flags = 2, result;

    memcpy(gprs, data, MIN(size, sizeof(gprs)));
    if (insn->has_mem) {
        u64 address = insn_effective_address(insn, gprs, gprs[0], gprs[1]);

        must(insn->mode == INSN_MODE_64 || address <= 0xffffffff);
        must(insn->seg <= INSN_GS && (insn->base < 16 || insn->base == INSN_NO_REG) &&
             (insn->index < 16 || insn->index == INSN_NO_REG));
    } else {
        must(!insn->mem_read && !insn->mem_write && !insn->lock);
    }
    must(insn->reg < 16 && insn->rm < 16);
    if (insn->op <= INSN_CMPXCHG) {
        result = insn_alu(insn->op, gprs[2], gprs[3], insn->op_size, &flags);
        must(insn->op_size == 8 || result >> 8 * insn->op_size == 0);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static const enum insn_mode modes[] = {INSN_MODE_16, INSN_MODE_32, INSN_MODE_64};

    for (size_t m = 0; m < ARRAY_SIZE(modes); m++) {
        struct insn insn, before;
        int err = -E_AGAIN;

        for (size_t len = 0; len <= MIN(size, 16); len++) {
            int err_before = err;

            before = insn;
            err = decode(&insn, data, len, modes[m]);
            must(len == 0 || err_before == -E_AGAIN || err == err_before);
            must(len == 0 || err_before != 0 || memcmp(&insn, &before, sizeof(insn)) == 0);
            must(err || err_before == 0 || insn.length == len);
        }
        if (!err) {
            execute(&insn, data, size);
        }
    }
    return 0;
}
