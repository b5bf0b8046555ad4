/* SPDX-License-Identifier: BSD-2-Clause */
/* Integer and address types, and the few macros that every part uses. Anyone may include this. */
#pragma once

#include "core/errno.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

typedef u64 paddr_t; /* host physical address */
typedef u64 gpa_t;   /* guest physical address */
typedef u64 gva_t;   /* guest linear address */
typedef u64 pfn_t;   /* page frame number: an address >> PAGE_SHIFT */

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ull
#define PAGE_MASK  (~(PAGE_SIZE - 1))
#define SIZE_2M    (1ull << 21)
#define SIZE_1G    (1ull << 30)

#define BIT(n)                (1ull << (n))
#define PAGE_LEFT(a)          (PAGE_SIZE - ((a) & ~PAGE_MASK)) /* bytes to the end of its page */
#define ARRAY_SIZE(a)         (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a)        (((x) + (a)-1) & ~((u64)(a)-1))
#define ALIGN_DOWN(x, a)      ((x) & ~((u64)(a)-1))
#define IS_ALIGNED(x, a)      (((x) & ((u64)(a)-1)) == 0)
#define MIN(a, b)             ((a) < (b) ? (a) : (b))
#define MAX(a, b)             ((a) > (b) ? (a) : (b))
#define container_of(p, t, m) ((t *)((char *)(p)-offsetof(t, m)))

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define PACKED            __attribute__((packed))
#define ALIGNED(n)        __attribute__((aligned(n)))
#define NORETURN          __attribute__((noreturn))
#define UNUSED            __attribute__((unused))
#define likely(x)         __builtin_expect(!!(x), 1)
#define unlikely(x)       __builtin_expect(!!(x), 0)
