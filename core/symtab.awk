# SPDX-License-Identifier: BSD-2-Clause
# Turns `nm -n socle.elf` (text symbols, by address) into the NASM source of the table that core/symtab.c
# reads. With no input it makes the empty table of the first link.
# mawk has no 64-bit integers: addresses are handled as strings; all of the image is in the top 4 GiB.

BEGIN { count = 0; offset = 0 }

$2 ~ /^[tTwW]$/ && $1 ~ /^ffffffff/ {
    low = substr($1, 9)
    if ($3 == "text_start" || low == last_low)
        next                    # no function; a second name of the same function
    last_low = low
    addr[count] = low
    name[count++] = $3
}

END {
    print "section .rodata.symtab progbits alloc noexec nowrite align=4"
    print "global symtab_count, symtab_addrs, symtab_names, symtab_strings"
    print "symtab_count: dd " count
    print "symtab_addrs:"
    for (i = 0; i < count; i++)
        print "    dd 0x" addr[i]
    print "symtab_names:"
    for (i = 0; i < count; i++) {
        print "    dd " offset
        offset += length(name[i]) + 1
    }
    print "symtab_strings:"
    for (i = 0; i < count; i++)
        print "    db '" name[i] "', 0"
    print "section .note.GNU-stack noalloc noexec nowrite progbits"
}
