// SOURCES: core/npt.c core/pool.c
// LIBS: -Wl,--wrap=pool_free -Wl,--wrap=frame_unlend
/* SPDX-License-Identifier: BSD-2-Clause */
/* Sequences of operations on nested page tables, against the shadow model; also out of memory. */
#include "tests/unit/npt_model.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct npt_format format;
    u8 head;

    if (!size)
        return 0;
    head = data[0];
    format = head & 1 ? format_ept : format_svm;
    format.max_leaf = MIN((head >> 1) & 3, 2);
    format.max_exec_leaf = MIN((head >> 3) & 3, 2);
    model_start(&format, head & 0x20);
    for (size_t i = 1; i + 6 <= size && i < 6 * 12; i += 6) {
        u64 bits = load_u32(data + i) | (u64)load_u16(data + i + 4) << 32;

        if (head & 0x40)
            model.charge.limit = model.charge.pages + (data[i + 5] & 7);
        model_random_op(bits | 1ull << 40);
    }
    model.charge.limit = UINT64_MAX;
    model_end();
    return 0;
}
