/* SPDX-License-Identifier: BSD-2-Clause */
/* The log: lines into a ring and to a sink, under one lock. */
#include "core/log.h"

#include "core/lib.h"
#include "core/spinlock.h"

#define LOG_RING   65536u
#define LOG_TEXT   240
#define LOG_PREFIX 64

#define LIMIT_BURST     20
#define LIMIT_PERIOD_US 200000 /* one more line each: 5 a second */

u64 (*log_clock)(void);
void (*log_sink)(const char *text, size_t len);

static struct spinlock log_lock;
static char ring[LOG_RING];
static u64 ring_head; /* bytes ever written */

static u64 now_us(void)
{
    return log_clock ? log_clock() / 1000 : 0;
}

static bool lock_bounded(void)
{
    for (u32 i = 0; i < 1000000; i++) {
        if (spin_trylock(&log_lock))
            return true;
        __builtin_ia32_pause();
    }
    return false;
}

static void put_line(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ring[(ring_head + i) % LOG_RING] = line[i];
    ring_head += len;
    if (log_sink)
        log_sink(line, len);
}

void log_print(const char *mark, const char *fmt, ...)
{
    char line[LOG_PREFIX + LOG_TEXT + 1];
    u64 us = now_us();
    size_t start, len, end;
    bool locked = true;
    va_list ap;

    start = (size_t)fmt_print(line, LOG_PREFIX, "[%5lu.%06lu] socle: %s", us / 1000000,
                              us % 1000000, mark ? mark : "");
    va_start(ap, fmt);
    len = (size_t)fmt_vprint(line + start, LOG_TEXT + 1, fmt, ap);
    va_end(ap);
    end = start + MIN(len, LOG_TEXT);

    /* Text may come from a domain: it can neither fake a second line nor steer a terminal. */
    for (size_t i = start; i < end; i++)
        if ((u8)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[end++] = '\n';

    if (mark)
        spin_lock(&log_lock);
    else
        locked = lock_bounded();
    put_line(line, end);
    if (locked)
        spin_unlock(&log_lock);
}

/* A bucket: `count` lines are in it, one leaks out each period since window_start. */
static bool limit_pass(struct log_limit *l, u64 now, u32 *left_out)
{
    u64 leaked = now > l->window_start ? (now - l->window_start) / LIMIT_PERIOD_US : 0;

    l->window_start = leaked < l->count ? l->window_start + leaked * LIMIT_PERIOD_US : now;
    l->count = leaked < l->count ? l->count - (u32)leaked : 0;
    if (l->count >= LIMIT_BURST) {
        l->suppressed++;
        return false;
    }
    l->count++;
    *left_out = l->suppressed;
    l->suppressed = 0;
    return true;
}

bool log_allowed(struct log_limit *limit)
{
    u64 now = now_us();
    u32 left_out = 0;
    bool pass;

    spin_lock(&log_lock);
    pass = limit_pass(limit, now, &left_out);
    spin_unlock(&log_lock);
    if (left_out)
        log_warn("%u lines like the next one were left out", left_out);
    return pass;
}

size_t log_read(u64 *pos, void *buf, size_t len)
{
    char *out = buf;
    size_t n;

    spin_lock(&log_lock);
    *pos = MIN(*pos, ring_head);
    if (ring_head - *pos > LOG_RING)
        *pos = ring_head - LOG_RING;
    n = MIN(len, ring_head - *pos);
    for (size_t i = 0; i < n; i++)
        out[i] = ring[(*pos + i) % LOG_RING];
    *pos += n;
    spin_unlock(&log_lock);
    return n;
}
