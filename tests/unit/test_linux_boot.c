/* SPDX-License-Identifier: BSD-2-Clause */
/* bzImage checks, placement and boot parameters. With SOCLE_TEST_KERNEL=/boot/vmlinuz... a real one
 * too. */
// SOURCES: core/linux_boot.c boot/boot_info.c core/lib.c
#include "core/linux_boot.h"

#include "core/errno.h"
#include "core/lib.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MIB (1ull << 20)

static u8 file[0x10000];
static struct linux_image image;
static const char *why;

static void put16(u32 at, u16 v)
{
    memcpy(file + at, &v, 2);
}

static void put32(u32 at, u32 v)
{
    memcpy(file + at, &v, 4);
}

static int setup(void **state)
{
    (void)state;
    memset(file, 0xcc, sizeof(file));
    file[0x1f1] = 4;
    put32(0x1f4, (sizeof(file) - 5 * 512) / 16);
    put16(0x1fe, 0xaa55);
    file[0x201] = 0x6a;
    memcpy(file + 0x202, "HdrS", 4);
    put16(0x206, 0x20f);
    file[0x211] = 1;
    put32(0x22c, 0x7fffffff);
    put32(0x230, 0x200000);
    file[0x234] = 1;
    put16(0x236, 0x7f);
    put32(0x238, 2047);
    put32(0x248, 0x400);
    put32(0x24c, 0x8000);
    put32(0x258, 0x1000000);
    put32(0x25c, 0);
    put32(0x260, 0x2000000);
    assert_int_equal(linux_parse(file, sizeof(file), &image, &why), 0);
    return 0;
}

static void test_parse(void **state)
{
    (void)state;
    assert_null(why);
    assert_int_equal(image.setup_size, 5 * 512);
    assert_int_equal(image.kernel_size, sizeof(file) - 5 * 512);
    assert_int_equal(image.init_size, 0x2000000);
    assert_int_equal(image.pref_address, 0x1000000);
    assert_int_equal(image.alignment, 0x200000);
    assert_int_equal(image.initrd_max, 0x7fffffff);
    assert_int_equal(image.cmdline_max, 2047);
    file[0x1f1] = 0; /* the old way to say 4 */
    assert_int_equal(linux_parse(file, sizeof(file), &image, &why), 0);
    assert_int_equal(image.setup_size, 5 * 512);
}

static void test_parse_damaged(void **state)
{
    static const struct {
        u32 at;
        u32 value;
        const char *why;
    } damage[] = {
        {0x1fe, 0, "signature"},          {0x202, 0, "setup header"},
        {0x206, 0x20b, "too old"},        {0x210, 0, "zImage"},
        {0x234, 0x7f0000, "relocatable"}, {0x236, 0x7e, "64-bit"},
        {0x1f4, 0xffffffff, "shorter"},   {0x1f4, 0, "shorter"},
        {0x1f1, 0xff, "setup sectors"},   {0x24c, 0xffffffff, "beyond"},
        {0x248, 0xffffffff, "beyond"},    {0x260, 0x100, "init_size"},
        {0x260, 0xffffffff, "init_size"}, {0x230, 0, "alignment"},
        {0x230, 0x300000, "alignment"},   {0x230, 0x80000000, "alignment"},
        {0x258, 0, "preferred"},          {0x258, 0x1000001, "preferred"},
        {0x25c, 1, "preferred"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        setup(state);
        put32(damage[i].at, damage[i].value);
        assert_int_equal(linux_parse(file, sizeof(file), &image, &why), -E_INVAL);
        if (!strstr(why, damage[i].why))
            fail_msg("0x%x: %s", damage[i].at, why);
    }
    setup(state);
    for (size_t len = 0; len < sizeof(file); len += len < 0x300 ? 1 : 4093) {
        u8 *cut = test_malloc(len + 1);

        memcpy(cut, file, len);
        assert_int_equal(linux_parse(cut, len, &image, &why), -E_INVAL);
        assert_non_null(why);
        test_free(cut);
    }
}

static const struct mem_range pc_map[] = {
    {0, 0x9fc00, MEM_RAM},     {0x9fc00, 0x400, MEM_RESERVED},    {0xf0000, 0x10000, MEM_RESERVED},
    {MIB, 511 * MIB, MEM_RAM}, {4096 * MIB, 4096 * MIB, MEM_RAM},
};

static struct boot_space space_of(const struct mem_range *map, u32 n,
                                  const struct addr_range *taken, u32 taken_count)
{
    struct boot_space s = {.map = map, .map_count = n};

    for (u32 i = 0; i < taken_count; i++)
        boot_space_take(&s, taken[i].start, taken[i].end);
    return s;
}

static int place(const struct mem_range *map, u32 n, const struct addr_range *taken,
                 u32 taken_count, u64 initrd, u64 initrd_end, struct linux_placement *p)
{
    const struct addr_range r = {initrd, initrd_end};
    struct boot_space s = space_of(map, n, taken, taken_count);

    return linux_place(&s, &image, &r, p, &why);
}

static void test_highest_place(void **state)
{
    const struct addr_range taken[] = {{500 * MIB, 511 * MIB + 1}, {4, 4}, {MIB, 2 * MIB}};
    struct boot_space s = space_of(pc_map, 5, taken, 3);

    (void)state;
    assert_int_equal(boot_space_find(&s, 4096, ~0ull, MIB, MIB, true), 8191 * MIB);
    assert_int_equal(boot_space_find(&s, 4096, 4096 * MIB, 4096, 4096, true), 512 * MIB - 4096);
    assert_int_equal(boot_space_find(&s, 4096, 4096 * MIB, 2 * MIB, 2 * MIB, true), 498 * MIB);
    assert_int_equal(boot_space_find(&s, 4096, MIB, 8192, 4096, true), 0x9d000);
    assert_int_equal(boot_space_find(&s, 4096, 2 * MIB, MIB, 4096, true), 0);
    assert_int_equal(boot_space_find(&s, 4096, 0x2000, 4096, 4096, true), 4096);
    assert_int_equal(boot_space_find(&s, 4096, 0x2000, 4097, 4096, true), 0);
}

static void test_place(void **state)
{
    const struct addr_range taken[] = {{MIB, 3 * MIB}, {0x8000, 0x12000}, {4 * MIB, 9 * MIB}};
    struct boot_space s = space_of(pc_map, 5, taken, 3);
    struct linux_placement p;

    (void)state;
    /* All where it wants to be; the trampoline page is avoided. */
    assert_int_equal(place(pc_map, 5, taken, 3, 64 * MIB, 80 * MIB + 5, &p), 0);
    assert_int_equal(p.kernel, 16 * MIB);
    assert_int_equal(p.initrd, 64 * MIB);
    assert_int_equal(p.initrd_size, 16 * MIB + 5);
    assert_int_equal(p.params, 0x12000);
    assert_int_equal(p.cmdline, 0x13000);
    assert_in_range(p.rsdp, p.cmdline + 2048, p.params + LINUX_PARAMS_SPAN - 36);

    /* The initrd is in the kernel's place: the kernel goes behind it. */
    assert_int_equal(place(pc_map, 5, taken, 3, 12 * MIB, 45 * MIB, &p), 0);
    assert_int_equal(p.kernel, 46 * MIB);
    assert_int_equal(p.initrd, 12 * MIB);

    /* Not page-aligned; above 4 GiB; partly outside RAM: it moves. */
    assert_int_equal(place(pc_map, 5, taken, 3, 64 * MIB + 16, 65 * MIB, &p), 0);
    assert_int_equal(p.initrd, 3 * MIB);
    assert_int_equal(place(pc_map, 5, taken, 3, 5000 * MIB, 5008 * MIB, &p), 0);
    assert_int_equal(p.initrd, 48 * MIB);
    assert_int_equal(p.initrd_size, 8 * MIB);
    assert_int_equal(place(pc_map, 5, taken, 3, 511 * MIB, 513 * MIB, &p), 0);
    assert_int_equal(p.initrd, 9 * MIB);
    assert_int_equal(place(pc_map, 5, taken, 3, 0, 0, &p), 0);
    assert_int_equal(p.initrd, 0);
    assert_int_equal(linux_place(&s, &image, NULL, &p, &why), 0);
    assert_int_equal(p.initrd_size, 0);
}

static void test_place_limits(void **state)
{
    const struct mem_range small[] = {{0, 0xa0000, MEM_RAM}, {MIB, 63 * MIB, MEM_RAM}};
    const struct addr_range low[] = {{0x10000, 0x8f000}}, high[] = {{40 * MIB, UINT64_MAX}};
    struct linux_placement p;

    (void)state;
    /* It may move over itself where there is no other room. */
    assert_int_equal(place(small, 2, NULL, 0, 48 * MIB + 1, 63 * MIB + 1, &p), 0);
    assert_int_equal(p.initrd, MIB);
    assert_int_equal(place(small, 2, NULL, 0, 48 * MIB + 1, 64 * MIB, &p), 0);
    assert_int_equal(p.initrd, 48 * MIB);
    assert_int_equal(place(small, 2, NULL, 0, 30 * MIB, 40 * MIB, &p), -E_NOMEM);
    assert_non_null(strstr(why, "kernel"));
    assert_int_equal(place(small, 2, low, 1, 0, 0, &p), -E_NOMEM);
    assert_non_null(strstr(why, "parameters"));
    assert_int_equal(place(small, 2, high, 1, 0, 0, &p), -E_NOMEM);
    assert_int_equal(place(small, 2, NULL, 0, 0x100000000, 0x100000000 + 17 * MIB, &p), -E_NOMEM);
    assert_non_null(strstr(why, "initrd"));
    image.initrd_max = 50 * MIB - 1;
    assert_int_equal(place(pc_map, 5, NULL, 0, 64 * MIB, 65 * MIB, &p), 0);
    assert_int_equal(p.initrd, MIB);
    assert_int_equal(place(pc_map, 5, NULL, 0, 49 * MIB, 50 * MIB, &p), 0);
    assert_int_equal(p.initrd, 49 * MIB);
}

static void test_params(void **state)
{
    struct linux_placement p = {.kernel = 0x1000000,
                                .initrd = 0x4000000,
                                .initrd_size = 0x123456,
                                .params = 0x10000,
                                .cmdline = 0x11000};
    static struct mem_range many[LINUX_MAX_E820 + 1];
    u8 *bp = test_malloc(4096);

    (void)state;
    memset(bp, 0xee, 4096);
    assert_int_equal(linux_fill_boot_params(bp, file, &p, pc_map, 5, 0xf5a20), 0);
    assert_int_equal(load_u64(bp + 0x70), 0xf5a20);
    assert_int_equal(bp[0x06], 3);
    assert_int_equal(bp[0x1e8], 5);
    assert_int_equal(bp[0x1ef], 0); /* sentinel: a loader that clears the rest leaves 0 */
    assert_int_equal(load_u32(bp + 0x202), 0x53726448);
    assert_int_equal(bp[0x210], 0xff);
    assert_int_equal(load_u16(bp + 0x1fa), 0xffff);
    assert_int_equal(load_u32(bp + 0x214), 0x1000000);
    assert_int_equal(load_u32(bp + 0x218), 0x4000000);
    assert_int_equal(load_u32(bp + 0x21c), 0x123456);
    assert_int_equal(load_u32(bp + 0x228), 0x11000);
    assert_int_equal(load_u64(bp + 0x250), 0);
    assert_int_equal(load_u32(bp + 0x260), 0x2000000);
    assert_int_equal(bp[0x26b], 0xcc);
    assert_int_equal(bp[0x26c], 0); /* the header ends where the jump goes */
    assert_int_equal(load_u64(bp + 0x2d0 + 3 * 20), MIB);
    assert_int_equal(load_u64(bp + 0x2d0 + 3 * 20 + 8), 511 * MIB);
    assert_int_equal(load_u32(bp + 0x2d0 + 3 * 20 + 16), MEM_RAM);
    assert_int_equal(bp[4095], 0);
    assert_int_equal(linux_fill_boot_params(bp, file, &p, many, LINUX_MAX_E820, 0), 0);
    assert_int_equal(linux_fill_boot_params(bp, file, &p, many, LINUX_MAX_E820 + 1, 0), -E_2BIG);
    test_free(bp);
}

static void test_real_kernel(void **state)
{
    const char *path = getenv("SOCLE_TEST_KERNEL");
    static u8 real[64 << 20];
    size_t len;
    FILE *f;

    (void)state;
    if (!path)
        skip();
    f = fopen(path, "rb");
    assert_non_null(f);
    len = fread(real, 1, sizeof(real), f);
    fclose(f);
    if (linux_parse(real, len, &image, &why))
        fail_msg("%s: %s", path, why);
    assert_int_equal(image.pref_address, 0x1000000);
    assert_int_equal(linux_parse(real, len / 2, &image, &why), -E_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_parse, setup),
        cmocka_unit_test_setup(test_parse_damaged, setup),
        cmocka_unit_test_setup(test_place, setup),
        cmocka_unit_test_setup(test_place_limits, setup),
        cmocka_unit_test_setup(test_highest_place, setup),
        cmocka_unit_test_setup(test_params, setup),
        cmocka_unit_test_setup(test_real_kernel, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
