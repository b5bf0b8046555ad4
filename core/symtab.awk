# SPDX-License-Identifier: BSD-2-Clause
# Turns `nm -n socle.elf` (text symbols, by address) into the NASM source of the table that core/symtab.c
# reads. With no input it makes the empty table of the first link.
# mawk has no 64-bit integers: addresses are handled as strings; all of the image is in the top 4 GiB.

BEGIN { count = 0; offset = 0 }

$2 ~ /^[tTwW]$/ && $1 ~ /^ffffffff/ && $3 != "text_start" {
    low = substr($1, 9)
    if (low == last_low)
        next                    # a second name of the same function
    last_low = low
    entries = entries "    dd 0x" low ", " offset "\n"
    strings = strings "    db '" $3 "', 0\n"
    offset += length($3) + 1
    count++
}

END {
    print "section .rodata.symtab progbits alloc noexec nowrite align=4"
    print "global symtab_count, symtab, symtab_strings"
    print "symtab_count: dd " count
    print "symtab:\n" entries
    print "symtab_strings:\n" strings
    print "section .note.GNU-stack noalloc noexec nowrite progbits"
}
