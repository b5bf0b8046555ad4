/* SPDX-License-Identifier: BSD-2-Clause */
/* Linux/x86 boot protocol 2.12 and later (Linux, Documentation/x86/boot.rst and zero-page.rst). */
#include "core/linux_boot.h"

#include "core/lib.h"

/* Offsets in the file's first sectors and, the same, in boot_params. */
enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4, /* in 16 bytes */
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200, /* its second byte is the header's length from 0x202 on */
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMDLINE_PTR = 0x228,
    HDR_INITRD_MAX = 0x22c,
    HDR_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_SETUP_DATA = 0x250,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_NEEDED = 0x268,
    HDR_END_MAX = 0x290, /* boot_params has something else from here on */

    BP_VIDEO_MODE = 0x006,
    BP_VIDEO_COLS = 0x007,
    BP_VIDEO_LINES = 0x00e,
    BP_VIDEO_IS_VGA = 0x00f,
    BP_VIDEO_POINTS = 0x010,
    BP_RSDP = 0x070,
    BP_E820_COUNT = 0x1e8,
    BP_E820_TABLE = 0x2d0,
    E820_ENTRY = 20,

    LOADED_HIGH = 0x01,
    XLF_KERNEL_64 = 0x01,
};

#define SECTOR       512u
#define LOW_START    0x10000ull
#define LOW_END      0x90000ull
#define HIGH_START   0x100000ull
#define FOUR_GIB     BIT(32)
#define CMDLINE_ROOM 2048

/* The low `size` bytes. */
static void store(u8 *p, u64 value, size_t size)
{
    memcpy(p, &value, size);
}

/* What is wrong with the header, or NULL. */
static const char *header_fault(const u8 *p, size_t len)
{
    if (len < HDR_NEEDED)
        return "too short for a Linux kernel";
    if (load_u16(p + HDR_BOOT_FLAG) != 0xaa55)
        return "not a Linux kernel: no boot sector signature";
    if (memcmp(p + HDR_MAGIC, "HdrS", 4) != 0)
        return "not a Linux kernel: no setup header";
    if (load_u16(p + HDR_VERSION) < 0x20c)
        return "a Linux kernel that is too old: boot protocol below 2.12 (Linux 3.8)";
    if (!(p[HDR_LOADFLAGS] & LOADED_HIGH))
        return "a zImage; only a bzImage can be loaded";
    if (!(load_u16(p + HDR_XLOADFLAGS) & XLF_KERNEL_64))
        return "not a 64-bit kernel";
    if (!p[HDR_RELOCATABLE])
        return "not a relocatable kernel (CONFIG_RELOCATABLE)";
    return NULL;
}

static const char *size_fault(const u8 *p, size_t len, const struct linux_image *k)
{
    u64 payload = load_u32(p + HDR_PAYLOAD_OFFSET) + (u64)load_u32(p + HDR_PAYLOAD_LENGTH);
    u64 loaded = (u64)load_u32(p + HDR_SYSSIZE) * 16;

    if (k->setup_size >= len)
        return "damaged or cut off: the file ends in the setup sectors";
    if (!loaded || loaded > len - k->setup_size)
        return "damaged or cut off: the file is shorter than its header says";
    if (payload > loaded)
        return "damaged: the compressed kernel reaches beyond the file";
    if (k->init_size < loaded || k->init_size > SIZE_1G)
        return "damaged: init_size makes no sense";
    if (k->alignment < PAGE_SIZE || k->alignment > SIZE_1G || (k->alignment & (k->alignment - 1)))
        return "damaged: the kernel's alignment makes no sense";
    if (k->pref_address < HIGH_START || k->pref_address >= FOUR_GIB ||
        !IS_ALIGNED(k->pref_address, k->alignment))
        return "damaged: the preferred load address makes no sense";
    return NULL;
}

int linux_parse(const void *image, size_t len, struct linux_image *out, const char **why)
{
    const u8 *p = image;

    *why = header_fault(p, len);
    if (*why)
        return -E_INVAL;
    *out = (struct linux_image){
        .setup_size = ((p[HDR_SETUP_SECTS] ? p[HDR_SETUP_SECTS] : 4u) + 1) * SECTOR,
        .kernel_size = load_u32(p + HDR_SYSSIZE) * 16,
        .init_size = load_u32(p + HDR_INIT_SIZE),
        .alignment = load_u32(p + HDR_ALIGNMENT),
        .pref_address = load_u64(p + HDR_PREF_ADDRESS),
        .initrd_max = load_u32(p + HDR_INITRD_MAX),
        .cmdline_max = load_u32(p + HDR_CMDLINE_SIZE),
    };
    *why = size_fault(p, len, out);
    return *why ? -E_INVAL : 0;
}

/* ---- placement ---- */

int linux_place(struct boot_space *s, const struct linux_image *image,
                const struct addr_range *initrd, struct linux_placement *out, const char **why)
{
    u64 high = MIN(image->initrd_max + 1, FOUR_GIB);
    struct addr_range *now = &s->taken[s->taken_count];
    bool stays = false;

    *out = (struct linux_placement){0};
    if (initrd && initrd->end > initrd->start) {
        out->initrd_size = initrd->end - initrd->start;
        stays = initrd->start >= HIGH_START &&
                boot_space_find(s, initrd->start, MIN(initrd->end, high), out->initrd_size,
                                PAGE_SIZE, false) == initrd->start;
        boot_space_take(s, initrd->start, initrd->end);
    }
    /* Below the preferred address the kernel would move itself there, over what is in the way. */
    *why = "no free memory for the kernel below 4 GiB";
    out->kernel = boot_space_find(s, image->pref_address, FOUR_GIB, image->init_size,
                                  image->alignment, false);
    if (!out->kernel)
        return -E_NOMEM;
    boot_space_take(s, out->kernel, out->kernel + image->init_size);

    *why = "no free memory for the kernel's parameters below 576 KiB";
    out->params = boot_space_find(s, LOW_START, LOW_END, LINUX_PARAMS_SPAN, PAGE_SIZE, false);
    if (!out->params)
        return -E_NOMEM;
    boot_space_take(s, out->params, out->params + LINUX_PARAMS_SPAN);
    out->cmdline = out->params + PAGE_SIZE;
    out->rsdp = out->cmdline + CMDLINE_ROOM;

    *why = "no free memory for the initrd";
    if (stays) {
        out->initrd = initrd->start;
    } else if (out->initrd_size) {
        now->end = now->start; /* it may move over itself */
        out->initrd = boot_space_find(s, HIGH_START, high, out->initrd_size, PAGE_SIZE, false);
        if (!out->initrd)
            return -E_NOMEM;
    }
    *why = NULL;
    return 0;
}

/* ---- boot parameters ---- */

int linux_fill_boot_params(void *page, const void *file, const struct linux_placement *place,
                           const struct mem_range *map, size_t map_count, paddr_t rsdp)
{
    const u8 *f = file;
    u8 *bp = page;
    u32 end = MIN(HDR_MAGIC + f[HDR_JUMP + 1], HDR_END_MAX);

    if (map_count > LINUX_MAX_E820)
        return -E_2BIG;
    memset(bp, 0, PAGE_SIZE);
    memcpy(bp + HDR_SETUP_SECTS, f + HDR_SETUP_SECTS, end - HDR_SETUP_SECTS);
    bp[BP_VIDEO_MODE] = 3;
    bp[BP_VIDEO_COLS] = 80;
    bp[BP_VIDEO_LINES] = 25;
    bp[BP_VIDEO_IS_VGA] = 1;
    bp[BP_VIDEO_POINTS] = 16;
    store(bp + BP_RSDP, rsdp, 8);

    bp[HDR_LOADER] = 0xff;                          /* no number assigned */
    bp[HDR_VID_MODE] = bp[HDR_VID_MODE + 1] = 0xff; /* "normal" */
    bp[HDR_LOADFLAGS] = LOADED_HIGH;
    store(bp + HDR_SETUP_DATA, 0, 8);
    store(bp + HDR_CODE32_START, place->kernel, 4);
    store(bp + HDR_RAMDISK_IMAGE, place->initrd, 4);
    store(bp + HDR_RAMDISK_SIZE, place->initrd ? place->initrd_size : 0, 4);
    store(bp + HDR_CMDLINE_PTR, place->cmdline, 4);

    bp[BP_E820_COUNT] = (u8)map_count;
    for (size_t i = 0; i < map_count; i++) /* struct mem_range begins as an entry does */
        memcpy(bp + BP_E820_TABLE + i * E820_ENTRY, &map[i], E820_ENTRY);
    return 0;
}
