/* SPDX-License-Identifier: BSD-2-Clause */
/* The end of the line: for Socle's own broken invariants only, never for what a domain or a caller
 * did. */
#pragma once

#include "core/types.h"

/* Prints the message, registers, a backtrace with symbols and the build id, stops every processor.
 */
NORETURN void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

#define ASSERT(cond)                                                         \
    do {                                                                     \
        if (unlikely(!(cond)))                                               \
            panic("%s:%d: assertion failed: %s", __FILE__, __LINE__, #cond); \
    } while (0)
