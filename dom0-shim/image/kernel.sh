#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Fetches Debian's stock kernel into build/cache/kernel, and its version into build/cache/kernel-version.
# The machine's own kernel is not touched.
. "$(dirname "$0")/lib.sh"

newest_kernel() { apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-\(6.*\)/\1/p'; }

fetch() {
    local version

    version=$(newest_kernel)
    [ -n "$version" ] || return 1
    say "FETCH linux-image-$version"
    unpack_deb "linux-image-$version" $cache/kernel || return 1
    depmod -b $cache/kernel "$version"
    echo "$version" >$cache/kernel-version
}

mkdir -p $cache
fetch || {
    say "UPDATE package lists"
    if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
    fetch
} || die "Debian's linux-image-amd64 cannot be fetched: check that apt-get works"
