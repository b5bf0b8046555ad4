/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of Socle's own functions, for backtraces and exit traces. The table is made from the first
 * link of the image and put into the second one (core/symtab.awk); anyone may read it at any time.
 */
#pragma once

#include "core/types.h"

/* Finds the function that holds addr. Returns its name and stores addr's distance from its start in
 * *offset; returns NULL where addr lies outside Socle's code. The name lives for ever. */
const char *symtab_lookup(u64 addr, u64 *offset);
