# SPDX-License-Identifier: BSD-2-Clause
# What the image scripts share. They run from the repository's root and write below build/ only; none
# needs root, except that missing package lists are fetched with sudo.
# shellcheck shell=bash
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
image=dom0-shim/image
cache=build/cache

die() { echo "${0##*/}: $*" >&2; exit 1; }
say() { echo "  ${*}"; }

# The version of Debian's stock kernel that the images use, e.g. 6.1.0-56-amd64.
kernel_version() { cat $cache/kernel-version; }

# unpack_deb PACKAGE DIRECTORY: downloads a Debian package and unpacks it, without installing it.
unpack_deb() {
    local dir=$2 debs=$cache/debs

    mkdir -p "$debs"
    (cd "$debs" && { ls "$1"_*.deb >/dev/null 2>&1 ||
        apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$1"; }) || return 1
    rm -rf "$dir" "$dir.new"
    dpkg-deb -x "$debs/$1"_*.deb "$dir.new"
    mv "$dir.new" "$dir"
}

# add_modules ROOT NAME...: copies kernel modules with all that they depend on into ROOT, with small
# indexes for modprobe. A name that the kernel does not have is an error.
add_modules() {
    local root=$1 version base
    shift
    version=$(kernel_version)
    base=lib/modules/$version
    mkdir -p "$root/$base"
    cp $cache/kernel/$base/modules.{order,builtin,builtin.modinfo} "$root/$base/"
    awk -v names="$*" '
        function key(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
        { sub(/:/, "", $1); needs[key($1)] = $0 }
        END {
            count = split(names, name, " ")
            for (i = 1; i <= count; i++) {
                gsub(/-/, "_", name[i])
                if (!(name[i] in needs)) { print "no such kernel module: " name[i] >"/dev/stderr"; exit 1 }
                print needs[name[i]]
            }
        }' $cache/kernel/$base/modules.dep | tr ' ' '\n' | sort -u >"$root.modules" ||
        die "the list of kernel modules is wrong"
    tar -C $cache/kernel/$base -cf - -T "$root.modules" | tar -C "$root/$base" -xf -
    rm "$root.modules"
    depmod -b "$root" "$version"
}

# add_busybox ROOT: busybox and a link for each of its commands.
add_busybox() {
    local root=$1 applet

    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,proc,sys,dev,run,tmp,root,etc,mnt,var/tmp,var/log}
    chmod 1777 "$root/tmp" "$root/var/tmp"
    cp /bin/busybox "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    ln -s ../bin/busybox "$root/sbin/init"
    ln -s ../bin/busybox "$root/sbin/modprobe" # where the kernel looks for it
}

# make_cpio ROOT: writes ROOT as an archive for the kernel, all of it owned by root, to standard output.
make_cpio() {
    (cd "$1" && find . -exec touch -h -d @1 {} + && find . | LC_ALL=C sort |
        cpio --quiet --reproducible --owner=0:0 -o -H newc)
}
