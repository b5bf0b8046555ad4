/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory, strings, formatting. The host build has its own libc for the functions with libc's names.
 */
#include "core/lib.h"

#ifndef SOCLE_HOST

/* String instructions: fast on every processor that has ERMS, and no vector registers are touched.
 */
void *memcpy(void *dst, const void *src, size_t n)
{
    void *d = dst;

    __asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    void *d = dst;

    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
    u8 *d = dst;
    const u8 *s = src;

    if (d <= s || d >= s + n)
        return memcpy(dst, src, n);
    d += n - 1;
    s += n - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory", "cc");
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;

    for (; n && *x == *y; n--, x++, y++)
        ;
    return n ? *x - *y : 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n && *a && *a == *b; n--, a++, b++)
        ;
    return n ? (u8)*a - (u8)*b : 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

#endif /* !SOCLE_HOST */

struct fmt_out {
    char *buf;
    size_t size;
    size_t len;
};

struct fmt_spec {
    u32 width;
    u32 longs; /* number of 'l', or 'z' as one: 0 means int */
    bool zero;
};

static void emit(struct fmt_out *o, char c)
{
    if (o->len + 1 < o->size)
        o->buf[o->len] = c;
    o->len++;
}

static void emit_text(struct fmt_out *o, const struct fmt_spec *spec, const char *s, size_t len)
{
    for (size_t i = len; i < spec->width; i++)
        emit(o, ' ');
    for (size_t i = 0; i < len; i++)
        emit(o, s[i]);
}

static void emit_number(struct fmt_out *o, const struct fmt_spec *spec, u64 v, u32 base,
                        const char *sign)
{
    char digits[24];
    size_t i = sizeof(digits), sign_len = strlen(sign);

    do {
        digits[--i] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (spec->zero)
        while (i > sign_len && sizeof(digits) - i + sign_len < spec->width)
            digits[--i] = '0';
    while (sign_len)
        digits[--i] = sign[--sign_len];
    emit_text(o, spec, digits + i, sizeof(digits) - i);
}

static const char *read_spec(const char *fmt, struct fmt_spec *spec)
{
    *spec = (struct fmt_spec){0};
    for (; *fmt == '0'; fmt++)
        spec->zero = true;
    for (; *fmt >= '0' && *fmt <= '9'; fmt++)
        spec->width = spec->width * 10 + (u32)(*fmt - '0');
    for (; *fmt == 'l' || *fmt == 'z'; fmt++)
        spec->longs++;
    return fmt;
}

int fmt_vprint(char *buf, size_t size, const char *fmt, va_list ap)
{
    struct fmt_out o = {.buf = buf, .size = size};
    struct fmt_spec spec;

    for (; *fmt; fmt++) {
        const char *s;
        s64 v;

        if (*fmt != '%') {
            emit(&o, *fmt);
            continue;
        }
        fmt = read_spec(fmt + 1, &spec);
        switch (*fmt) {
        case 's':
            s = va_arg(ap, const char *);
            s = s ? s : "(null)";
            emit_text(&o, &spec, s, strlen(s));
            break;
        case 'd':
            v = spec.longs ? va_arg(ap, s64) : va_arg(ap, int);
            emit_number(&o, &spec, v < 0 ? -(u64)v : (u64)v, 10, v < 0 ? "-" : "");
            break;
        case 'u':
        case 'x':
            emit_number(&o, &spec, spec.longs ? va_arg(ap, u64) : va_arg(ap, u32),
                        *fmt == 'u' ? 10 : 16, "");
            break;
        case 0: /* a format that ends in the middle of a directive */
            fmt--;
            break;
        default: /* "%%", and what is not known shows as itself */
            emit(&o, *fmt);
        }
    }
    if (size)
        buf[MIN(o.len, size - 1)] = 0;
    return (int)o.len;
}

int fmt_print(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = fmt_vprint(buf, size, fmt, ap);
    va_end(ap);
    return n;
}

bool cmdline_option(const char *cmdline, const char *name, char *value, size_t size)
{
    size_t name_len = strlen(name), n, skip;
    bool found = false;

    /* The last one counts: what is appended by hand in the boot menu overrides what was there. */
    for (const char *p = cmdline; *p; p += n) {
        for (; *p == ' '; p++)
            ;
        for (n = 0; p[n] && p[n] != ' '; n++)
            ;
        if (n < name_len || strncmp(p, name, name_len) != 0 || (n > name_len && p[name_len] != '='))
            continue;
        found = n != 0;
        skip = MIN(n, name_len + 1);
        fmt_print(value, MIN(size, n - skip + 1), "%s", p + skip);
    }
    return found;
}

int parse_u64(const char *s, u64 *out)
{
    const char *digits = s;
    u64 v = 0;
    u32 shift = 0;

    for (; *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
            return -E_INVAL;
    if (s == digits)
        return -E_INVAL;
    if (*s) {
        char c = *s++ | 0x20;

        shift = c == 'k' ? 10 : c == 'm' ? 20 : c == 'g' ? 30 : 0;
        if (!shift || *s || v > UINT64_MAX >> shift)
            return -E_INVAL;
    }
    *out = v << shift;
    return 0;
}
