#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes a bootable ISO: GRUB, Socle, dom0's kernel with its command line, and dom0's initrd.
. "$(dirname "$0")/lib.sh"

usage() {
    cat <<'END'
usage: mkiso.sh OUT.iso DOM0-COMMAND-LINE [OPTION]...
Paths are relative to the repository's root. The command line is dom0's kernel's, written as the kernel
reads it: socle.run="a b" keeps the space, \" is a quote.
  --socle-args ARGS  Socle's own command line
  --socle FILE       another image than build/socle.elf
  --kernel FILE      another kernel than build/dom0/vmlinuz; "" for none
  --initrd FILE      another initrd than build/dom0/initrd.img; "" for none
END
}

socle=build/socle.elf kernel=build/dom0/vmlinuz initrd=build/dom0/initrd.img socle_args=
case ${1--h} in -h | --help) usage; exit ;; esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
out=$1 cmdline=$2
shift 2
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { usage >&2; exit 2; }
    case $1 in
    --socle-args) socle_args=$2 ;;
    --socle) socle=$2 ;;
    --kernel) kernel=$2 ;;
    --initrd) initrd=$2 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift 2
done

# Splits a kernel command line into its words and quotes each for GRUB, which puts its own quotes and
# backslashes into what it passes on.
grub_words() {
    printf '%s' "$1" | awk '
    function put() { gsub(/\047/, "\047\\\047\047", word); if (any) printf " \047%s\047", word; word = ""; any = 0 }
    {
        for (i = 1; i <= length($0); i++) {
            c = substr($0, i, 1)
            after = substr($0, i + 1, 1)
            if (c == "\\" && (after == "\\" || after == "\"")) {
                word = word after
                i++
            } else if (c == "\"") {
                quoted = !quoted
            } else if (c == " " && !quoted) {
                put()
            } else {
                word = word c
                any = 1
            }
        }
        put()
    }'
}

work=$(mktemp -d "$out.XXXXXX")
tree=$work/tree
trap 'rm -rf "$work"' EXIT
mkdir -p "$tree/boot/grub"
ln "$socle" "$tree/boot/socle.elf" 2>/dev/null || cp "$socle" "$tree/boot/socle.elf"
{
    cat <<'END'
if serial --unit=0 --speed=115200; then
    terminal_input console serial
    terminal_output console serial
fi
set timeout=1
set timeout_style=hidden
menuentry "Socle" {
END
    echo "    echo 'GRUB: loading Socle and dom0'"
    echo "    multiboot2 /boot/socle.elf$(grub_words "$socle_args")"
    if [ -n "$kernel" ]; then
        cp "$kernel" "$tree/boot/vmlinuz"
        echo "    module2 /boot/vmlinuz$(grub_words "$cmdline")"
    fi
    if [ -n "$initrd" ]; then
        ln "$initrd" "$tree/boot/initrd.img" 2>/dev/null || cp "$initrd" "$tree/boot/initrd.img"
        echo "    module2 /boot/initrd.img"
    fi
    echo "}"
} >"$tree/boot/grub/grub.cfg"
grub-mkrescue -o "$out" "$tree" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "grub-mkrescue failed"; }
