/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables in a made-up BIOS area, whole and damaged. */
// SOURCES: drivers/acpi.c core/lib.c
#include "drivers/acpi.h"

#include "core/errno.h"
#include "core/lib.h"

#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#define RSDP 0xf5a20
#define RSDT 0xf6000
#define XSDT 0xf6200
#define MADT 0xf7000
#define FADT 0xfa000
#define DMAR 0xfc000

static u8 mem[0x100000];
static struct acpi_info info;
static struct acpi_root root;

static bool read_mem(paddr_t pa, void *buf, size_t len)
{
    if (pa >= sizeof(mem) || len > sizeof(mem) - pa)
        return false;
    memcpy(buf, mem + pa, len);
    return true;
}

static void put32(u32 at, u32 v)
{
    memcpy(mem + at, &v, 4);
}

static void put64(u32 at, u64 v)
{
    memcpy(mem + at, &v, 8);
}

static void fix_sum(u32 at, u32 sum_at, u32 len)
{
    u8 s = 0;

    mem[at + sum_at] = 0;
    for (u32 i = 0; i < len; i++)
        s = (u8)(s + mem[at + i]);
    mem[at + sum_at] = (u8)-s;
}

static void seal(u32 at, const char *sig, u32 len)
{
    memcpy(mem + at, sig, 4);
    put32(at + 4, len);
    fix_sum(at, 9, len);
}

static u32 add(u32 at, const void *entry, u32 len)
{
    memcpy(mem + at, entry, len);
    return at + len;
}

static u32 make_madt(void)
{
    u32 at = MADT + 44;

    put32(MADT + 36, 0xfee00000);
    at = add(at, (u8[]){0, 8, 0, 0, 1, 0, 0, 0}, 8);
    at = add(at, (u8[]){0, 8, 1, 2, 1, 0, 0, 0}, 8);
    at = add(at, (u8[]){0, 8, 2, 4, 0, 0, 0, 0}, 8);    /* not enabled */
    at = add(at, (u8[]){0, 8, 3, 0xff, 0, 0, 0, 0}, 8); /* unused */
    at = add(at, (u8[]){1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0}, 12);
    at = add(at, (u8[]){2, 10, 0, 0, 2, 0, 0, 0, 0, 0}, 10);
    at = add(at, (u8[]){9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0}, 16);
    at = add(at, (u8[]){9, 16, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, 16); /* 2 again */
    at = add(at, (u8[]){5, 12, 0, 0, 0, 0, 0xe1, 0xfe, 0, 0, 0, 0}, 12);
    seal(MADT, "APIC", at - MADT);
    return at;
}

static void make_rsdp(u8 revision)
{
    memcpy(mem + RSDP, "RSD PTR ", 8);
    mem[RSDP + 15] = revision;
    put32(RSDP + 16, RSDT);
    put32(RSDP + 20, 36);
    put64(RSDP + 24, XSDT);
    fix_sum(RSDP, 8, 20);
    fix_sum(RSDP, 32, 36);
}

static int setup(void **state)
{
    (void)state;
    memset(mem, 0, sizeof(mem));
    make_rsdp(2);
    make_madt();
    put32(FADT + 76, 0xb008);
    mem[FADT + 91] = 4;
    put32(FADT + 112, 0x100);
    seal(FADT, "FACP", 116);
    seal(DMAR, "DMAR", 48);
    put32(RSDT + 36, FADT);
    put32(RSDT + 40, MADT);
    seal(RSDT, "RSDT", 44);
    put64(XSDT + 36, UINT64_MAX - 10); /* can't be read */
    put64(XSDT + 44, 0);
    put64(XSDT + 52, FADT);
    put64(XSDT + 60, MADT);
    put64(XSDT + 68, DMAR);
    seal(XSDT, "XSDT", 76);
    return 0;
}

static int open_and_parse(void)
{
    int err = acpi_open(&root, read_mem, NULL, 0);

    return err ? err : acpi_parse(&root, &info);
}

static void test_all(void **state)
{
    paddr_t pa;
    u32 len;

    (void)state;
    assert_int_equal(open_and_parse(), 0);
    assert_int_equal(root.rsdp, RSDP);
    assert_int_equal(root.entry_size, 8);
    assert_int_equal(info.cpu_count, 3); /* not the one that is not enabled */
    assert_int_equal(info.apic_id[0], 0);
    assert_int_equal(info.apic_id[1], 2);
    assert_int_equal(info.apic_id[2], 300);
    assert_int_equal(info.pm_timer_port, 0xb008);
    assert_int_equal(acpi_find_table(&root, "DMAR", &pa, &len), 0);
    assert_int_equal(pa, DMAR);
    assert_int_equal(len, 48);
    assert_int_equal(acpi_find_table(&root, "IVRS", &pa, &len), -E_NOENT);
}

static void test_where_rsdp_is(void **state)
{
    u8 copy[36];

    (void)state;
    memcpy(copy, mem + RSDP, sizeof(copy));
    assert_int_equal(acpi_open(&root, read_mem, copy, 36), 0); /* given */
    assert_int_equal(root.rsdp, 0);
    assert_int_equal(root.entry_size, 8);
    assert_int_equal(acpi_open(&root, read_mem, copy, 20), 0); /* the short one knows no XSDT */
    assert_int_equal(root.entry_size, 4);
    copy[3] ^= 1; /* bad copy: scan */
    assert_int_equal(acpi_open(&root, read_mem, copy, 36), 0);
    assert_int_equal(root.rsdp, RSDP);

    memcpy(mem + 0x9fc10, mem + RSDP, 36); /* in the EBDA */
    put32(0x40e, 0x9fc0);
    assert_int_equal(acpi_open(&root, read_mem, NULL, 0), 0);
    assert_int_equal(root.rsdp, 0x9fc10);
    mem[0x9fc10 + 8]++;
    assert_int_equal(acpi_open(&root, read_mem, NULL, 0), 0);
    assert_int_equal(root.rsdp, RSDP);
    mem[RSDP]++;
    assert_int_equal(acpi_open(&root, read_mem, NULL, 0), -E_NOENT);
    assert_int_equal(acpi_parse(&root, &info), -E_NOENT);
    assert_int_equal(info.cpu_count, 0);
}

static void test_bad_tables(void **state)
{
    (void)state;
    mem[XSDT + 50]++; /* bad XSDT: RSDT */
    assert_int_equal(open_and_parse(), 0);
    assert_int_equal(root.entry_size, 4);
    mem[FADT + 50]++;
    assert_int_equal(open_and_parse(), 0);
    assert_int_equal(info.pm_timer_port, 0);
    put32(MADT + 4, 0xffffffff);
    assert_int_equal(open_and_parse(), -E_NOENT);
    seal(MADT, "APIC", 40); /* too short to hold anything */
    assert_int_equal(open_and_parse(), -E_NOENT);
    seal(RSDT, "RSDT", 35);
    assert_int_equal(open_and_parse(), -E_NOENT);
    make_rsdp(0);
    seal(XSDT, "XSDT", 76);
    assert_int_equal(open_and_parse(), -E_NOENT); /* revision 0 has no XSDT */
}

static void test_damaged_madt(void **state)
{
    u32 end = make_madt();

    (void)state;
    for (u8 len = 0; len < 8; len++) { /* the second entry has a wrong length */
        mem[MADT + 53] = len;
        seal(MADT, "APIC", end - MADT);
        open_and_parse();
        assert_in_range(info.cpu_count, 1, ACPI_MAX_CPUS);
    }
    for (u32 cut = 44; cut < end - MADT; cut++) {
        seal(MADT, "APIC", cut);
        open_and_parse();
    }
}

static void test_many(void **state)
{
    u32 at = MADT + 44;

    (void)state;
    for (u32 i = 0; i < 600; i++)
        at = add(at, (u8[]){9, 16, 0, 0, (u8)i, (u8)(i >> 8), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 16);
    seal(MADT, "APIC", at - MADT);
    assert_int_equal(open_and_parse(), 0);
    assert_int_equal(info.cpu_count, ACPI_MAX_CPUS);
    assert_int_equal(info.apic_id[511], 511);
}

static void test_long_fadt(void **state)
{
    (void)state;
    mem[FADT + 208] = 1; /* port space */
    put64(FADT + 212, 0x608);
    seal(FADT, "FACP", 276);
    assert_int_equal(open_and_parse(), 0);
    assert_int_equal(info.pm_timer_port, 0x608);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all, setup),
        cmocka_unit_test_setup(test_where_rsdp_is, setup),
        cmocka_unit_test_setup(test_bad_tables, setup),
        cmocka_unit_test_setup(test_damaged_madt, setup),
        cmocka_unit_test_setup(test_many, setup),
        cmocka_unit_test_setup(test_long_fadt, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
