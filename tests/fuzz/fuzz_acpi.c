/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as ACPI tables. Checksums are put right, so that what is behind them is reached. */
// SOURCES: drivers/acpi.c core/lib.c
#include "drivers/acpi.h"

#include "core/lib.h"

#include <stdlib.h>
#include <string.h>

#define BASE 0xe0000u

static u8 mem[0x4000]; /* at BASE */
static struct acpi_info info;

static bool read_mem(paddr_t pa, void *buf, size_t len)
{
    if (pa < BASE || pa - BASE >= sizeof(mem) || len > sizeof(mem) - (pa - BASE))
        return false;
    memcpy(buf, mem + (pa - BASE), len);
    return true;
}

static void fix_sum(u8 *p, size_t sum_at, size_t len)
{
    u8 s = 0;

    p[sum_at] = 0;
    for (size_t i = 0; i < len; i++)
        s = (u8)(s + p[i]);
    p[sum_at] = (u8)-s;
}

static void table(u32 at, const char *sig, const u8 *body, size_t len)
{
    u32 total = (u32)len + 36;

    memcpy(mem + at, sig, 4);
    memcpy(mem + at + 4, &total, 4);
    memcpy(mem + at + 36, body, len);
    fix_sum(mem + at, 9, total);
}

/* RSDP at 0, RSDT at 64 with three tables, then the tables at multiples of 4 KiB. */
static void build(const u8 *data, size_t size)
{
    static const char *const sigs[3] = {"APIC", "FACP", "HPET"};
    u32 pointers[3], rsdt = BASE + 64;

    memcpy(mem, "RSD PTR ", 8);
    memcpy(mem + 16, &rsdt, 4);
    fix_sum(mem, 8, 20);
    for (u32 i = 0; i < 3; i++) {
        size_t len = size ? MIN(size - 1, data[0] * (i ? 1u : 15u)) : 0;

        pointers[i] = BASE + 0x1000 * (i + 1);
        table(pointers[i] - BASE, sigs[i], data + (size ? 1 : 0), len);
        data += size ? len + 1 : 0;
        size -= size ? len + 1 : 0;
    }
    table(64, "RSDT", (const u8 *)pointers, sizeof(pointers));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct acpi_root root;

    memset(mem, 0, sizeof(mem));
    if (size && (data[0] & 1))
        build(data + 1, size - 1);
    else
        memcpy(mem, data, MIN(size, sizeof(mem)));
    if (acpi_open(&root, read_mem, data, size) == 0)
        acpi_parse(&root, &info);
    if (info.cpu_count > ACPI_MAX_CPUS)
        abort();
    return 0;
}
