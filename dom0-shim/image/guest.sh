#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds a guest: build/guest/vmlinuz (Debian's stock kernel), initrd.img, and disk.img, which SeaBIOS boots:
# MBR, GRUB, one ext4 partition with the root file system. Needs neither root nor loop devices.
. "$(dirname "$0")/lib.sh"

out=build/guest
work=$out/work
disk_mib=40
modules="virtio_pci virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_scsi
    9p 9pnet_virtio vmw_vsock_virtio_transport qemu_fw_cfg ext4 crc32c_generic crc32c_intel
    ahci ata_piix sd_mod sr_mod nvme e1000 e1000e"

rm -rf $work
mkdir -p $work
cp $cache/kernel/boot/vmlinuz-* $out/vmlinuz

say "GUEST initrd.img"
add_busybox $work/initrd
# shellcheck disable=SC2086
add_modules $work/initrd $modules
install -m 755 $image/guest-init $work/initrd/init
install -m 755 $image/guest-rc $work/initrd/etc/rc
install -m 644 $image/common $work/initrd/etc/common
make_cpio $work/initrd | zstd -q -15 -T0 -f -o $out/initrd.img

say "GUEST disk.img"
root=$work/root
cp -a $work/initrd $root
rm $root/init
mkdir -p $root/boot/grub
cp $out/vmlinuz $out/initrd.img $root/boot/
cp $image/guest-grub.cfg $root/boot/grub/grub.cfg
truncate -s ${disk_mib}M $work/disk.img
echo 'start=2048, type=83, bootable' | /sbin/sfdisk -q $work/disk.img
# Features that GRUB reads; no journal, for the image is small and rebuilt at will.
/sbin/mke2fs -q -t ext4 -L guest-root -O ^has_journal,^metadata_csum_seed,^orphan_file,^64bit \
    -E offset=1048576,root_owner=0:0 -N 2048 -m 0 -d $root $work/disk.img $((disk_mib - 1))M
grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o $work/core.img \
    biosdisk part_msdos ext2 normal linux serial terminal minicmd echo
grub=/usr/lib/grub/i386-pc
[ "$(stat -c %s $work/core.img)" -le $((2047 * 512)) ] || die "GRUB does not fit before the partition"
dd if=$grub/boot.img of=$work/disk.img bs=440 count=1 conv=notrunc status=none
dd if=$work/core.img of=$work/disk.img bs=512 seek=1 conv=notrunc status=none
mv $work/disk.img $out/disk.img
rm -rf $work
