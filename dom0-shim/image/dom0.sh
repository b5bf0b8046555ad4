#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds build/dom0/vmlinuz (Debian's stock kernel) and initrd.img: busybox, Debian's QEMU with its libraries
# and firmware, drivers, the guest, and on top what changes often: socle.ko, soclectl, the scripts.
# The two halves are archives of their own, so that a new socle.ko costs no compression of the rest.
# small.img is the same without QEMU, the guest and most drivers, for emulators that are slow.
# usage: dom0.sh base | dom0.sh initrd
. "$(dirname "$0")/lib.sh"

out=build/dom0
modules="virtio_pci virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_scsi
    ahci ata_piix sd_mod sr_mod nvme usb_storage xhci_pci ehci_pci usbhid hid_generic
    e1000 e1000e igb r8169 tun bridge vhost_net vhost_vsock ext4 crc32c_generic crc32c_intel vfat
    nls_cp437 nls_ascii isofs loop 9p 9pnet_virtio msr cpuid kvm kvm_amd kvm_intel"
small_modules="ata_piix sd_mod sr_mod e1000 msr cpuid"
firmware="/usr/share/seabios/bios-256k.bin /usr/share/seabios/bios.bin /usr/share/seabios/bios-microvm.bin
    /usr/share/seabios/vgabios-stdvga.bin /usr/share/seabios/vgabios-virtio.bin
    /usr/share/qemu/kvmvapic.bin /usr/share/qemu/linuxboot.bin /usr/share/qemu/linuxboot_dma.bin
    /usr/share/qemu/multiboot.bin /usr/share/qemu/multiboot_dma.bin /usr/share/qemu/pvh.bin
    /usr/lib/ipxe/qemu/efi-e1000.rom /usr/lib/ipxe/qemu/efi-e1000e.rom
    /usr/lib/ipxe/qemu/efi-virtio.rom"

# The program, and the libraries that it is linked with; its loadable modules (displays, sound) stay out.
add_qemu() {
    local root=$1 file

    for file in /usr/bin/qemu-system-x86_64 $(ldd /usr/bin/qemu-system-x86_64 | grep -o '/[^ ]*'); do
        mkdir -p "$root/usr/$(dirname "${file#/usr}")"
        cp -L "$file" "$root/usr/${file#/usr}"
    done
    mkdir -p "$root/lib64" "$root/usr/share/qemu/keymaps"
    mv "$root"/usr/lib64/* "$root/lib64/" && rmdir "$root/usr/lib64"
    for file in $firmware; do
        [ -e "$file" ] || die "$file is missing: apt-get install ipxe-qemu seabios qemu-system-data"
        cp -L "$file" "$root/usr/share/qemu/"
    done
    cp /usr/share/qemu/keymaps/en-us "$root/usr/share/qemu/keymaps/"
    # QEMU finds its firmware beside its data; the loader finds the libraries by its cache.
    mkdir -p "$root/etc" && touch "$root/etc/ld.so.conf"
    echo /usr/lib/x86_64-linux-gnu >"$root/etc/ld.so.conf"
    /sbin/ldconfig -r "$root"
}

build_base() {
    local root=$out/base

    say "DOM0  base.img (QEMU $(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p'), drivers, guest)"
    rm -rf $root
    mkdir -p $root/guest
    cp $cache/kernel/boot/vmlinuz-* $out/vmlinuz
    add_busybox $root
    # shellcheck disable=SC2086
    add_modules $root $modules
    add_qemu $root
    cp build/guest/vmlinuz build/guest/initrd.img build/guest/disk.img $root/guest/
    make_cpio $root | zstd -q -12 -T0 >$out/base.img
    rm -rf $root
    add_busybox $root
    # shellcheck disable=SC2086
    add_modules $root $small_modules
    make_cpio $root | zstd -q -12 >$out/small-base.img
    rm -rf $root
}

# put_together BASE OUT: the kernel wants an archive that is appended to be aligned.
put_together() {
    cat "$1" $out/top.img >"$2.new"
    truncate -s %512 "$2.new"
    mv "$2.new" "$2"
}

build_initrd() {
    local root=$out/top

    say "DOM0  initrd.img"
    rm -rf $root
    mkdir -p $root/etc $root/bin $root/sbin $root/usr/bin $root/lib/socle
    install -m 755 $image/dom0-init $root/init
    install -m 755 $image/dom0-rc $root/etc/rc
    install -m 755 $image/dom0-run $root/etc/socle-run
    install -m 644 $image/dom0-profile $root/etc/profile
    install -m 644 $image/common $root/etc/common
    install -m 755 $image/socle-guest $image/socle-console $root/bin/
    install -m 755 $image/dom0-halt $root/sbin/poweroff
    ln -s poweroff $root/sbin/reboot
    ln -s poweroff $root/sbin/halt
    # Without this, Linux's own KVM locks up an emulated host (the peer in comparisons).
    mkdir -p $root/etc/modprobe.d
    echo 'options kvm lapic_timer_advance_ns=0' >$root/etc/modprobe.d/kvm.conf
    echo 'root:x:0:0:root:/root:/bin/sh' >$root/etc/passwd
    echo 'root:x:0:' >$root/etc/group
    echo '127.0.0.1 localhost dom0' >$root/etc/hosts
    if [ -e build/socle.ko ]; then
        strip --strip-debug -o $root/lib/socle/socle.ko build/socle.ko
        /sbin/modinfo -F depends build/socle.ko | tr ',' ' ' >$root/lib/socle/depends
    fi
    [ ! -e build/soclectl ] || install -m 755 build/soclectl $root/usr/bin/soclectl
    make_cpio $root | zstd -q -6 >$out/top.img
    put_together $out/base.img $out/initrd.img
    put_together $out/small-base.img $out/small.img
    rm -rf $root
}

mkdir -p $out
case ${1-} in
base) build_base ;;
initrd) build_initrd ;;
*) die "usage: dom0.sh base | initrd" ;;
esac
