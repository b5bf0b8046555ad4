/* SPDX-License-Identifier: BSD-2-Clause */
/* Multiboot 1 and 2 information, whole and damaged, and the memory map's normal form. */
// SOURCES: boot/multiboot.c boot/boot_info.c core/lib.c
#include "boot/multiboot.h"

#include "core/errno.h"
#include "core/lib.h"

#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

static u8 mem[0x4000]; /* physical memory from 0 */
static struct boot_info bi;

static const void *phys(paddr_t pa, size_t len)
{
    return pa < sizeof(mem) && len <= sizeof(mem) - pa ? mem + pa : NULL;
}

static void put32(size_t at, u32 v)
{
    memcpy(mem + at, &v, 4);
}

static void put64(size_t at, u64 v)
{
    memcpy(mem + at, &v, 8);
}

static u32 put_text(size_t at, const char *s)
{
    memcpy(mem + at, s, strlen(s) + 1);
    return (u32)at;
}

static void check_map(const struct mem_range *want, u32 n)
{
    assert_int_equal(bi.map_count, n);
    for (u32 i = 0; i < n; i++) {
        assert_int_equal(bi.map[i].base, want[i].base);
        assert_int_equal(bi.map[i].length, want[i].length);
        assert_int_equal(bi.map[i].type, want[i].type);
    }
}

static void test_normalize(void **state)
{
    const struct mem_range want[] = {
        {0, 0x9fc00, MEM_RAM},       {0x9fc00, 0x400, MEM_RESERVED},
        {0x100000, 0x1000, MEM_RAM}, {0x101000, 0x1000, MEM_ACPI},
        {0x102000, 0xe000, MEM_RAM}, {0x110000, 0x2000, MEM_BAD},
        {0x112000, 0xe000, MEM_RAM}, {BIT(40), BIT(52) - BIT(40), MEM_RESERVED},
    };

    (void)state;
    memset(&bi, 0, sizeof(bi));
    boot_map_add(&bi, 0x110000, 0x10000, MEM_RAM); /* not sorted */
    boot_map_add(&bi, 0x9fc00, 0x400, MEM_RESERVED);
    boot_map_add(&bi, 0, 0xa0000, MEM_RAM); /* over a reserved one */
    boot_map_add(&bi, 0x100000, 0x10000, MEM_RAM);
    boot_map_add(&bi, 0x100000, 0x18000, MEM_RAM); /* twice */
    boot_map_add(&bi, 0x101000, 0x1000, MEM_ACPI);
    boot_map_add(&bi, 0x110000, 0x2000, MEM_BAD);
    boot_map_add(&bi, 0x111000, 0x1000, MEM_RESERVED);
    boot_map_add(&bi, BIT(40), UINT64_MAX, 77); /* unknown type, beyond the end */
    boot_map_add(&bi, 0x5000, 0, MEM_BAD);
    boot_map_add(&bi, BIT(60), 0x1000, MEM_RAM);
    assert_int_equal(boot_map_normalize(&bi), 0);
    check_map(want, ARRAY_SIZE(want));
    assert_int_equal(boot_map_normalize(&bi), 0);
    check_map(want, ARRAY_SIZE(want));
}

static void test_map_limits(void **state)
{
    (void)state;
    memset(&bi, 0, sizeof(bi));
    assert_int_equal(boot_map_normalize(&bi), -E_NOENT);
    boot_map_add(&bi, 0, 4096, MEM_RESERVED);
    assert_int_equal(boot_map_normalize(&bi), -E_NOENT);
    memset(&bi, 0, sizeof(bi));
    for (u64 i = 0; i < BOOT_MAX_RANGES; i++)
        assert_int_equal(boot_map_add(&bi, i * 0x2000, 0x1000, MEM_RAM), 0);
    assert_int_equal(boot_map_add(&bi, 0x200000, 1, MEM_RAM), -E_2BIG);
    assert_int_equal(boot_map_normalize(&bi), 0);
    assert_int_equal(bi.map_count, BOOT_MAX_RANGES);
    bi.map[0].length = BIT(30); /* covers all the others: one is left */
    assert_int_equal(boot_map_normalize(&bi), 0);
    assert_int_equal(bi.map_count, 1);
    boot_map_add(&bi, 0, BIT(30), MEM_RAM);
    for (u64 i = 0; i < 200; i++) /* each splits it once more */
        assert_int_equal(boot_map_add(&bi, i * 0x2000, 0x1000, MEM_NVS), 0);
    assert_int_equal(boot_map_normalize(&bi), -E_2BIG);
}

/* As QEMU's -kernel -initrd leaves it. */
static void make_mb1(const char *loader, const char *cmdline, const char *mod0, const char *mod1)
{
    memset(mem, 0, sizeof(mem));
    put32(0x1000, 1 | 4 | 8 | 64 | 512);
    put32(0x1000 + 4, 639);
    put32(0x1000 + 8, 64512);
    put32(0x1000 + 16, put_text(0x2000, cmdline));
    put32(0x1000 + 20, 2);
    put32(0x1000 + 24, 0x1100);
    put32(0x1100, 0x400000);
    put32(0x1104, 0x500001);
    put32(0x1108, put_text(0x2800, mod0));
    put32(0x1110, 0x501000);
    put32(0x1114, 0x501000);
    put32(0x1118, put_text(0x3000, mod1));
    put32(0x1000 + 44, 48);
    put32(0x1000 + 48, 0x1200);
    put32(0x1200, 20);
    put64(0x1204, 0);
    put64(0x120c, 0x9fc00);
    put32(0x1214, 1);
    put32(0x1218, 20);
    put64(0x121c, 0x100000);
    put64(0x1224, 0x3f00000);
    put32(0x122c, 1);
    put32(0x1000 + 64, put_text(0x3f00, loader));
}

static void test_mb1(void **state)
{
    const struct mem_range want[] = {{0, 0x9fc00, MEM_RAM}, {0x100000, 0x3f00000, MEM_RAM}};

    (void)state;
    make_mb1("qemu", "socle.elf serial=com1  debug", "vmlinuz console=ttyS0 quiet", "initrd.img");
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), 0);
    check_map(want, 2);
    assert_string_equal(bi.loader, "qemu");
    assert_string_equal(bi.cmdline, "serial=com1  debug");
    assert_int_equal(bi.module_count, 2);
    assert_int_equal(bi.modules[0].start, 0x400000);
    assert_int_equal(bi.modules[0].end, 0x500001);
    assert_string_equal(bi.modules[0].cmdline, "console=ttyS0 quiet");
    assert_string_equal(bi.modules[1].cmdline, "");
    assert_int_equal(bi.rsdp_len, 0);

    make_mb1("GRUB 2.06", "debug x=1", "root=/dev/vda1", "/initrd word");
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), 0);
    assert_string_equal(bi.cmdline, "debug x=1");
    assert_string_equal(bi.modules[0].cmdline, "root=/dev/vda1");
    assert_string_equal(bi.modules[1].cmdline, "word");

    put32(0x1000, 1); /* the memory sizes only, which are not enough */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), -E_NOENT);
    assert_int_equal(bi.module_count, 0);
    assert_string_equal(bi.loader, "");
}

static void test_mb1_damaged(void **state)
{
    (void)state;
    assert_int_equal(multiboot1_parse(sizeof(mem) - 50, phys, &bi), -E_INVAL);
    make_mb1("qemu", "a b", "c d", "e f");
    put32(0x1000 + 24, 0xfffffff0); /* modules out of reach */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), -E_INVAL);

    make_mb1("qemu", "a b", "c d", "e f");
    put32(0x1104, 0x3fffff); /* ends before it starts */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), -E_INVAL);

    make_mb1("qemu", "a b", "c d", "e f");
    put32(0x1218, 3); /* entry shorter than an entry */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), -E_INVAL);
    put32(0x1218, 0xffffffff); /* and longer than all */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), 0);
    put32(0x1000 + 44, 0xffffffff);
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), -E_INVAL);

    make_mb1("qemu", "a b", "c d", "e f");
    put32(0x1000 + 20, 0xffffffff); /* too many modules: the first four count */
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), 0);
    assert_int_equal(bi.module_count, BOOT_MAX_MODULES);

    /* A name without an end, text without an end. */
    memset(mem + 0x2000, 'x', 0x2000);
    assert_int_equal(multiboot1_parse(0x1000, phys, &bi), 0);
    assert_int_equal(strlen(bi.loader), 63);
    assert_int_equal(strlen(bi.cmdline), BOOT_CMDLINE_SIZE - 1);
    assert_int_equal(strlen(bi.modules[0].cmdline), BOOT_MODULE_CMDLINE - 1);
}

static size_t tag_at;

static size_t tag(u32 type, u32 size)
{
    size_t at = tag_at;

    put32(at, type);
    put32(at + 4, size);
    tag_at += ALIGN_UP((u64)size, 8);
    return at + 8;
}

static void make_mb2(void)
{
    size_t at;

    memset(mem, 0, sizeof(mem));
    tag_at = 8;
    put_text(tag(1, 8 + 6), "x=1 y");
    put_text(tag(2, 8 + 10), "GRUB 2.06");
    at = tag(3, 16 + 8);
    put32(at, 0x400000);
    put32(at + 4, 0x500000);
    put_text(at + 8, "root=/d");
    at = tag(6, 16 + 2 * 24);
    put32(at, 24);
    put64(at + 8, 0x100000);
    put64(at + 16, 0x1000000);
    put32(at + 24, 1);
    put64(at + 32, 0xfd000000);
    put64(at + 40, 0x1000);
    put32(at + 48, 2);
    tag(8, 38);
    memset(mem + tag(15, 8 + 36), 'N', 36);
    memset(mem + tag(14, 8 + 20), 'O', 20);
    tag(99, 13);
    tag(0, 8);
    put32(0, (u32)tag_at);
}

static void test_mb2(void **state)
{
    const struct mem_range want[] = {{0x100000, 0x1000000, MEM_RAM},
                                     {0xfd000000, 0x1000, MEM_RESERVED}};

    (void)state;
    make_mb2();
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), 0);
    check_map(want, 2);
    assert_string_equal(bi.cmdline, "x=1 y");
    assert_string_equal(bi.loader, "GRUB 2.06");
    assert_int_equal(bi.module_count, 1);
    assert_int_equal(bi.modules[0].end, 0x500000);
    assert_string_equal(bi.modules[0].cmdline, "root=/d");
    assert_int_equal(bi.rsdp_len, 36); /* the new one, whatever the order */
    assert_int_equal(bi.rsdp[0], 'N');
}

static void test_mb2_damaged(void **state)
{
    (void)state;
    make_mb2();
    assert_int_equal(multiboot2_parse(mem, 4, &bi), -E_INVAL);
    for (size_t len = 8; len < tag_at; len++) { /* cut anywhere */
        u8 *copy = test_malloc(len);

        memcpy(copy, mem, len);
        multiboot2_parse(copy, len, &bi);
        test_free(copy);
    }
    put32(0, 0xffffffff); /* longer than what can be read */
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), 0);
    put32(12, 7); /* tag smaller than its head */
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), -E_INVAL);
    put32(12, 0xfffffff8); /* larger than the rest */
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), -E_INVAL);

    make_mb2();
    tag_at -= 8;
    put32(tag(6, 40), 16); /* entries too small */
    put32(0, (u32)tag_at);
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), -E_INVAL);

    make_mb2();
    memset(mem + 16, 'y', 6); /* text that fills its tag */
    assert_int_equal(multiboot2_parse(mem, sizeof(mem), &bi), 0);
    assert_string_equal(bi.cmdline, "yyyyyy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalize), cmocka_unit_test(test_map_limits),
        cmocka_unit_test(test_mb1),       cmocka_unit_test(test_mb1_damaged),
        cmocka_unit_test(test_mb2),       cmocka_unit_test(test_mb2_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
