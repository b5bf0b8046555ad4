/* SPDX-License-Identifier: BSD-2-Clause */
/* The few static ACPI tables that Socle reads at boot; dom0 does the rest. Tables are read through
 * a callback, one small piece at a time, and a bad one is left out with a line in the log. */
#pragma once

#include "core/types.h"

#define ACPI_MAX_CPUS 512

/* Copies physical memory; false where it can't be read. */
typedef bool (*phys_read_fn)(paddr_t pa, void *buf, size_t len);

struct acpi_root {
    phys_read_fn read;
    paddr_t rsdp; /* where a scan found it; 0: it was given as a copy */
    paddr_t table;
    u32 table_len;
    u32 entry_size; /* 4: RSDT, 8: XSDT */
};

struct acpi_info {
    u32 apic_id[ACPI_MAX_CPUS]; /* of the processors that are enabled */
    u32 cpu_count;
    u16 pm_timer_port; /* 0: none. 3.579545 MHz */
};

/* Finds the table of tables: from a copy of the RSDP (rsdp_len 0: none), else by the scan that a
 * BIOS machine needs (ACPI 6.5, 5.2.5.1). Returns 0 or -E_NOENT. */
int acpi_open(struct acpi_root *root, phys_read_fn read, const void *rsdp, size_t rsdp_len);

/* The first good table with this signature: MADT is "APIC", and DMAR, IVRS, MCFG, ... Its header
 * and checksum are right and *len is at least 36. Returns 0 or -E_NOENT. */
int acpi_find_table(const struct acpi_root *root, const char *sig, paddr_t *pa, u32 *len);

/* Fills *info from MADT and FADT. Returns 0, or -E_NOENT without a MADT that names a
 * processor (the rest is filled all the same). */
int acpi_parse(const struct acpi_root *root, struct acpi_info *info);
