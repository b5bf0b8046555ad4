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
static void host_log(const char *level, const char *fmt, va_list ap)
{
    if (!getenv("SOCLE_TEST_LOG"))
        return;
    fprintf(stderr, "%s: ", level);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

#define HOST_LOG(name, level)            \
    WEAK void name(const char *fmt, ...) \
    {                                    \
        va_list ap;                      \
                                         \
        va_start(ap, fmt);               \
        host_log(level, fmt, ap);        \
        va_end(ap);                      \
    }

HOST_LOG(log_info, "info")
HOST_LOG(log_warn, "warning")
HOST_LOG(log_error, "error")

WEAK bool log_allowed(struct log_limit *limit)
{
    limit->count++;
    return true;
}
