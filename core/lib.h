/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory and string functions and formatted output into buffers: the part of a C library that Socle
 * needs. Anyone may call these; none allocates. */
#pragma once

#include "core/types.h"
#include <stdarg.h>

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);

/* Formats into buf[size], always terminated; knows %s %d %u %x %% with l, ll, z, width and
 * '0'. Returns the length that the whole text would have had. */
int fmt_print(char *buf, size_t size, const char *fmt, ...) PRINTF_LIKE(3, 4);
int fmt_vprint(char *buf, size_t size, const char *fmt, va_list ap);

/* Finds option `name` ("name=value" or "name") in a space-separated command line and copies its
 * value into value[size] (size may be 0). The last one counts. Returns true when the option is
 * there. */
bool cmdline_option(const char *cmdline, const char *name, char *value, size_t size);

/* Parses an unsigned decimal number, with an optional K, M or G suffix, that
 * fills the whole string. Returns 0, or -E_INVAL. */
int parse_u64(const char *s, u64 *out);

/* Little-endian fields at any alignment: firmware tables, boot images, instruction bytes. */
#define DEFINE_LOAD(type)                         \
    static inline type load_##type(const void *p) \
    {                                             \
        type v;                                   \
        __builtin_memcpy(&v, p, sizeof(v));       \
        return v;                                 \
    }
DEFINE_LOAD(u16)
DEFINE_LOAD(u32)
DEFINE_LOAD(u64)

/* The low `size` bytes (1, 2, 4, 8) of a number, zero- or sign-extended. */
static inline u64 zero_extend(u64 value, u8 size)
{
    return size < 8 ? value & (BIT(8 * size) - 1) : value;
}

static inline s64 sign_extend(u64 value, u8 size)
{
    u8 unused = (64 - 8 * size) & 63;

    return (s64)(value << unused) >> unused;
}

/* value * factor, where factor has 32 fraction bits. */
static inline u64 scale(u64 value, u64 factor)
{
    return (u64)(((unsigned __int128)value * factor) >> 32);
}
