/* SPDX-License-Identifier: BSD-2-Clause */
/* RSDP, RSDT or XSDT, MADT, FADT. Reference: ACPI specification 6.5. */
#include "drivers/acpi.h"

#include "core/lib.h"
#include "core/log.h"

#define RSDP_V1_LEN   20
#define RSDP_V2_LEN   36
#define HEADER_LEN    36
#define TABLE_MAX     0x100000 /* none that Socle wants is near this */
#define ROOT_MAX      0x4000
#define BIOS_AREA     0xe0000
#define BIOS_AREA_END 0x100000
#define EBDA_SEGMENT  0x40e
#define SPACE_PORT    1
#define MADT_ENABLED  1 /* else it may be plugged in later, or never */

static u8 sum(const u8 *p, size_t len)
{
    u8 s = 0;

    while (len--)
        s = (u8)(s + *p++);
    return s;
}

static bool table_sum_ok(phys_read_fn read, paddr_t pa, u32 len)
{
    u8 buf[256], s = 0;

    for (u32 n; len; len -= n, pa += n) {
        n = MIN(len, (u32)sizeof(buf));
        if (!read(pa, buf, n))
            return false;
        s = (u8)(s + sum(buf, n));
    }
    return s == 0;
}

/* Reads a table's header and checks all of it. sig: NUL-terminated, for the log. Returns 0,
 * -E_NOENT if it is another table, -E_INVAL if it is a bad one. */
static int check_table(phys_read_fn read, paddr_t pa, const char *sig, u32 max, u32 *len)
{
    u8 header[HEADER_LEN];

    if (!read(pa, header, sizeof(header)))
        return -E_INVAL;
    if (memcmp(header, sig, 4) != 0)
        return -E_NOENT;
    *len = load_u32(header + 4);
    if (*len < HEADER_LEN || *len > max || !table_sum_ok(read, pa, *len)) {
        log_warn("acpi: table %s at 0x%lx is damaged and is left out", sig, pa);
        return -E_INVAL;
    }
    return 0;
}

/* If p is an RSDP: takes the XSDT where there is a good one, else the RSDT. */
static bool use_rsdp(struct acpi_root *root, const u8 *p, size_t len)
{
    bool v2 = len >= RSDP_V2_LEN && p[15] >= 2 && sum(p, RSDP_V2_LEN) == 0;

    if (len < RSDP_V1_LEN || memcmp(p, "RSD PTR ", 8) != 0 || sum(p, RSDP_V1_LEN) != 0)
        return false;
    root->table = v2 ? load_u64(p + 24) : 0;
    root->entry_size = 8;
    if (root->table && !check_table(root->read, root->table, "XSDT", ROOT_MAX, &root->table_len))
        return true;
    root->table = load_u32(p + 16);
    root->entry_size = 4;
    return root->table && !check_table(root->read, root->table, "RSDT", ROOT_MAX, &root->table_len);
}

static bool scan(struct acpi_root *root, paddr_t start, paddr_t end)
{
    u8 p[RSDP_V2_LEN];

    for (paddr_t pa = start; pa + RSDP_V1_LEN <= end; pa += 16) {
        size_t len = pa + RSDP_V2_LEN <= end ? RSDP_V2_LEN : RSDP_V1_LEN;

        root->rsdp = pa;
        if (root->read(pa, p, len) && use_rsdp(root, p, len))
            return true;
    }
    return false;
}

int acpi_open(struct acpi_root *root, phys_read_fn read, const void *rsdp, size_t rsdp_len)
{
    u8 segment[2] = {0};
    paddr_t ebda;

    *root = (struct acpi_root){.read = read};
    read(EBDA_SEGMENT, segment, sizeof(segment));
    ebda = (paddr_t)load_u16(segment) << 4;
    if (use_rsdp(root, rsdp, rsdp_len) || (ebda && scan(root, ebda, ebda + 1024)) ||
        scan(root, BIOS_AREA, BIOS_AREA_END))
        return 0;
    *root = (struct acpi_root){.read = read};
    return -E_NOENT;
}

int acpi_find_table(const struct acpi_root *root, const char *sig, paddr_t *pa, u32 *len)
{
    for (u32 at = HEADER_LEN; at + root->entry_size <= root->table_len; at += root->entry_size) {
        u8 entry[8] = {0};

        if (!root->entry_size || !root->read(root->table + at, entry, root->entry_size))
            break;
        *pa = load_u64(entry);
        if (*pa && !check_table(root->read, *pa, sig, TABLE_MAX, len))
            return 0;
    }
    return -E_NOENT;
}

static void add_cpu(struct acpi_info *info, u32 apic_id)
{
    /* Firmware may list a processor twice, as local APIC and as x2APIC (ACPI 6.5, 5.2.12.12). */
    for (u32 i = 0; i < info->cpu_count; i++)
        if (info->apic_id[i] == apic_id)
            return;
    if (info->cpu_count == ACPI_MAX_CPUS)
        log_warn("acpi: no room for the processor with APIC id %u", apic_id);
    else
        info->apic_id[info->cpu_count++] = apic_id;
}

/* One entry of the MADT (ACPI 6.5, 5.2.12), of which the first len bytes are at p. */
static void madt_entry(struct acpi_info *info, const u8 *p, u32 len)
{
    switch (p[0]) {
    case 0: /* local APIC; id 0xff marks an unused entry */
        if (len >= 8 && p[3] != 0xff && (p[4] & MADT_ENABLED))
            add_cpu(info, p[3]);
        break;
    case 9: /* local x2APIC */
        if (len >= 16 && load_u32(p + 4) != 0xffffffff && (p[8] & MADT_ENABLED))
            add_cpu(info, load_u32(p + 4));
        break;
    }
}

static int parse_madt(const struct acpi_root *root, struct acpi_info *info)
{
    paddr_t pa;
    u32 len, entry_len;
    u8 entry[16] = {0};

    if (acpi_find_table(root, "APIC", &pa, &len) || len < 44)
        return -E_NOENT;
    for (u32 at = 44; at + 2 <= len; at += entry_len) {
        if (!root->read(pa + at, entry, 2))
            break;
        entry_len = entry[1];
        if (entry_len < 2 || entry_len > len - at) {
            log_warn("acpi: the MADT is damaged at byte %u; what follows is left out", at);
            break;
        }
        if (root->read(pa + at, entry, MIN(entry_len, (u32)sizeof(entry))))
            madt_entry(info, entry, MIN(entry_len, (u32)sizeof(entry)));
    }
    return info->cpu_count ? 0 : -E_NOENT;
}

static void parse_fadt(const struct acpi_root *root, struct acpi_info *info)
{
    u8 p[220] = {0};
    paddr_t pa;
    u32 len;

    if (acpi_find_table(root, "FACP", &pa, &len) || len < 116 ||
        !root->read(pa, p, MIN(len, (u32)sizeof(p))))
        return;
    if (p[91] == 4) /* PM_TMR_LEN */
        info->pm_timer_port = (u16)load_u32(p + 76);
    if (p[208] == SPACE_PORT && load_u64(p + 212) && load_u64(p + 212) <= 0xfffc)
        info->pm_timer_port = (u16)load_u64(p + 212); /* X_PM_TMR_BLK */
}

int acpi_parse(const struct acpi_root *root, struct acpi_info *info)
{
    memset(info, 0, sizeof(*info));
    parse_fadt(root, info);
    return parse_madt(root, info);
}
