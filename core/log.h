/* SPDX-License-Identifier: BSD-2-Clause */
/* Socle's log: every line goes to the serial port and into a ring that dom0 can read. Any processor
 * may call it at any time; it never blocks on a domain. */
#pragma once

#include "core/types.h"

/* One line without its newline; cut at 240 characters. The emergency is panic's: it waits only a
 * bounded time for the log's lock, then writes without it. */
#define log_info(...)      log_print("", __VA_ARGS__)
#define log_warn(...)      log_print("warning: ", __VA_ARGS__)
#define log_error(...)     log_print("error: ", __VA_ARGS__)
#define log_emergency(...) log_print(NULL, __VA_ARGS__)
void log_print(const char *mark, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* For lines that a domain can cause: at most a burst of 20 and then 5 a second per call site's
 * state; what was left out is counted and said with the next line that passes. */
struct log_limit {
    u64 window_start;
    u32 count;
    u32 suppressed;
};
bool log_allowed(struct log_limit *limit);
#define log_limited(...)                \
    do {                                \
        static struct log_limit limit_; \
        if (log_allowed(&limit_))       \
            log_warn(__VA_ARGS__);      \
    } while (0)

/* Copies up to len bytes of the log from position *pos (bytes since boot) into buf, or from the
 * oldest byte that is still there when *pos has been overwritten, and moves *pos behind them.
 * Returns how many. */
size_t log_read(u64 *pos, void *buf, size_t len);

/* Set once at boot. Nanoseconds since boot (NULL: lines are stamped 0), and where each whole line
 * goes besides the ring (NULL: nowhere). The sink is called with the lock held and must not log. */
extern u64 (*log_clock)(void);
extern void (*log_sink)(const char *text, size_t len);
