/* SPDX-License-Identifier: BSD-2-Clause */
/* What the rest of Socle gives to a module, in host form: linked into every unit test and fuzz
 * target. All are weak, so a test may have its own. */
#include "core/log.h"
#include "core/panic.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WEAK __attribute__((weak))

WEAK NORETURN void panic(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("panic: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

/* Silent unless SOCLE_TEST_LOG is set. */
WEAK void log_print(const char *mark, const char *fmt, ...)
{
    va_list ap;

    if (!getenv("SOCLE_TEST_LOG"))
        return;
    va_start(ap, fmt);
    fputs(mark ? mark : "", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

WEAK bool log_allowed(struct log_limit *limit)
{
    limit->count++;
    return true;
}
