/* SPDX-License-Identifier: BSD-2-Clause */
/* Multiboot 1 (specification 0.6.96) and Multiboot 2 (2.0) information. */
#include "boot/multiboot.h"

#include "core/lib.h"
#include "core/log.h"

/* NULL: there is no room for it. */
static struct boot_module *add_module(struct boot_info *bi, u32 start, u32 end)
{
    struct boot_module *m = &bi->modules[bi->module_count];

    if (bi->module_count == BOOT_MAX_MODULES) {
        log_warn("boot: a module at 0x%x is one too many and is left out", start);
        return NULL;
    }
    m->start = start;
    m->end = end;
    bi->module_count++;
    return m;
}

/* Text of at most len bytes that need not end with a NUL. */
static void copy_text(const u8 *text, size_t len, char *dst, size_t size)
{
    size_t n = 0;

    for (; n < len && text[n] && n < size - 1; n++)
        dst[n] = (char)text[n];
    dst[n] = 0;
    if (n < len && text[n])
        log_warn("boot: a text is longer than %zu characters and was cut: %s", size - 1, dst);
}

/* ---- Multiboot 1 ---- */

enum {
    MB1_FLAGS = 0,
    MB1_CMDLINE = 16,
    MB1_MODS_COUNT = 20,
    MB1_MODS_ADDR = 24,
    MB1_MMAP_LENGTH = 44,
    MB1_MMAP_ADDR = 48,
    MB1_LOADER = 64,
    MB1_SIZE = 88,

    MB1_HAS_CMDLINE = 1 << 2,
    MB1_HAS_MODS = 1 << 3,
    MB1_HAS_MMAP = 1 << 6,
    MB1_HAS_LOADER = 1 << 9,
};

static char char_at(boot_phys_fn phys, paddr_t pa)
{
    const char *p = phys(pa, 1);

    return p ? *p : 0;
}

static paddr_t skip_file_name(boot_phys_fn phys, paddr_t pa, const char *loader)
{
    char c = char_at(phys, pa);
    u32 left = 4096;

    if (c != '/' && c != '(' && strcmp(loader, "qemu") != 0 && strncmp(loader, "iPXE", 4) != 0 &&
        strncmp(loader, "GNU GRUB 0.", 11) != 0)
        return pa;
    for (; left && c && c != ' '; left--)
        c = char_at(phys, ++pa);
    for (; left && c == ' '; left--)
        c = char_at(phys, ++pa);
    return pa;
}

/* The text at pa, as far as it can be read. */
static void read_string(boot_phys_fn phys, paddr_t pa, char *dst, size_t size)
{
    size_t len = 0;

    while (len < size && char_at(phys, pa + len))
        len++;
    copy_text(phys(pa, len), len, dst, size);
}

static int mb1_modules(boot_phys_fn phys, u32 addr, u32 count, struct boot_info *bi)
{
    for (u32 i = 0; i < count && i <= BOOT_MAX_MODULES; i++) {
        const u8 *p = phys(addr + 16ull * i, 16);
        struct boot_module *m;

        if (!p || load_u32(p + 4) < load_u32(p))
            return -E_INVAL;
        m = add_module(bi, load_u32(p), load_u32(p + 4));
        if (m && load_u32(p + 8))
            read_string(phys, skip_file_name(phys, load_u32(p + 8), bi->loader), m->cmdline,
                        sizeof(m->cmdline));
    }
    return 0;
}

static int mb1_memory_map(boot_phys_fn phys, paddr_t addr, u32 length, struct boot_info *bi)
{
    paddr_t end = addr + length;

    if (length > 0x10000) /* no map is near this long: the field is damaged */
        return -E_INVAL;
    /* An entry's size does not count the size field itself. */
    while (addr + 24 <= end) {
        const u8 *p = phys(addr, 24);
        int err;

        if (!p || load_u32(p) < 20)
            return -E_INVAL;
        err = boot_map_add(bi, load_u64(p + 4), load_u64(p + 12), load_u32(p + 20));
        if (err)
            return err;
        addr += load_u32(p) + 4ull;
    }
    return 0;
}

int multiboot1_parse(paddr_t info, boot_phys_fn phys, struct boot_info *bi)
{
    const u8 *p = phys(info, MB1_SIZE);
    u32 flags;
    int err = 0;

    memset(bi, 0, sizeof(*bi));
    if (!p)
        return -E_INVAL;
    flags = load_u32(p + MB1_FLAGS);
    if (flags & MB1_HAS_LOADER)
        read_string(phys, load_u32(p + MB1_LOADER), bi->loader, sizeof(bi->loader));
    if (flags & MB1_HAS_CMDLINE)
        read_string(phys, skip_file_name(phys, load_u32(p + MB1_CMDLINE), bi->loader), bi->cmdline,
                    sizeof(bi->cmdline));
    if (flags & MB1_HAS_MODS)
        err = mb1_modules(phys, load_u32(p + MB1_MODS_ADDR), load_u32(p + MB1_MODS_COUNT), bi);
    if (!err && flags & MB1_HAS_MMAP)
        err = mb1_memory_map(phys, load_u32(p + MB1_MMAP_ADDR), load_u32(p + MB1_MMAP_LENGTH), bi);
    return err ? err : boot_map_normalize(bi);
}

/* ---- Multiboot 2 ---- */

enum {
    MB2_END = 0,
    MB2_CMDLINE = 1,
    MB2_LOADER = 2,
    MB2_MODULE = 3,
    MB2_MMAP = 6,
    MB2_ACPI_OLD = 14,
    MB2_ACPI_NEW = 15,
};

static int mb2_memory_map(const u8 *tag, u32 size, struct boot_info *bi)
{
    u32 entry = size >= 16 ? load_u32(tag + 8) : 0;

    if (entry < 24)
        return -E_INVAL;
    for (u32 at = 16; at <= size && size - at >= entry; at += entry) {
        int err =
            boot_map_add(bi, load_u64(tag + at), load_u64(tag + at + 8), load_u32(tag + at + 16));

        if (err)
            return err;
    }
    return 0;
}

/* The longer one counts, whatever their order. */
static void mb2_rsdp(const u8 *tag, u32 size, struct boot_info *bi)
{
    u32 len = load_u32(tag) == MB2_ACPI_NEW ? BOOT_RSDP_SIZE : 20;

    if (size - 8 < len || bi->rsdp_len >= len)
        return;
    memcpy(bi->rsdp, tag + 8, len);
    bi->rsdp_len = len;
}

static int mb2_tag(const u8 *tag, u32 size, struct boot_info *bi)
{
    struct boot_module *m;

    switch (load_u32(tag)) {
    case MB2_CMDLINE:
        copy_text(tag + 8, size - 8, bi->cmdline, sizeof(bi->cmdline));
        break;
    case MB2_LOADER:
        copy_text(tag + 8, size - 8, bi->loader, sizeof(bi->loader));
        break;
    case MB2_MODULE:
        if (size < 16 || load_u32(tag + 12) < load_u32(tag + 8))
            return -E_INVAL;
        m = add_module(bi, load_u32(tag + 8), load_u32(tag + 12));
        if (m)
            copy_text(tag + 16, size - 16, m->cmdline, sizeof(m->cmdline));
        break;
    case MB2_MMAP:
        return mb2_memory_map(tag, size, bi);
    case MB2_ACPI_OLD:
    case MB2_ACPI_NEW:
        mb2_rsdp(tag, size, bi);
        break;
    }
    return 0;
}

int multiboot2_parse(const void *info, size_t max_len, struct boot_info *bi)
{
    const u8 *p = info;
    size_t total, at = 8;

    memset(bi, 0, sizeof(*bi));
    if (max_len < 8)
        return -E_INVAL;
    total = MIN(load_u32(p), max_len);
    while (at + 8 <= total) {
        u32 size = load_u32(p + at + 4);
        int err;

        if (load_u32(p + at) == MB2_END)
            break;
        if (size < 8 || size > total - at)
            return -E_INVAL;
        err = mb2_tag(p + at, size, bi);
        if (err)
            return err;
        at += ALIGN_UP((u64)size, 8);
    }
    return boot_map_normalize(bi);
}
