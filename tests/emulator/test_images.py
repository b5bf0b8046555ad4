# SPDX-License-Identifier: BSD-2-Clause
"""The images by themselves, on Linux's own KVM instead of Socle: what fails here is no fault of Socle's."""


def test_run_passes_command_output_and_status(dom0_run):
    result = dom0_run("echo 'one  \"two\"' \\\\three $HOME; exit 7", name="svm-1", boot="linux")
    assert result.status == 7
    assert 'one  "two" \\three /root' in result.output


def test_files_are_added_to_the_initrd(dom0_run):
    result = dom0_run("/test/hello", name="svm-1", boot="linux", files={"test/hello": b"#!/bin/sh\necho hello\n"})
    assert result.status == 0
    assert "hello" in result.output


# icount: Linux's own KVM does not guard against interrupts that QEMU's VMRUN loses to its other threads.
def test_disk_image_boots_by_its_own_boot_loader(dom0_run):
    result = dom0_run(
        "qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -display none -serial stdio -no-reboot"
        " -drive file=/guest/disk.img,if=virtio,format=raw -fw_cfg name=opt/guest.run,string='df /; false'",
        name="svm-1", boot="linux", icount=True, timeout=300)
    assert "guest: GRUB loads the kernel" in result.output
    assert "root file system on /dev/vda1" in result.output
    assert "guest.run: exit 1" in result.output


def test_shell_guest_and_power(machine):
    m = machine(name="svm-1", boot="linux", icount=True)
    m.wait_for(r"^dom0: starting guest 'demo'", 120)
    m.wait_for(r"^demo: Debian kernel .* root file system on /dev/vda1", 300)
    m.login()
    assert m.shell("uname -s; false") == (1, "Linux\n")
    m.send("socle-console demo\n")
    m.expect("Ctrl-X leaves")
    m.send("\n")
    m.expect("# ", 30)
    m.send("cat /proc/mounts | grep vda; echo $((40+2))\n")
    m.expect("^/dev/vda1 / ext4", 30)
    m.expect("^42$")
    m.send("\x18")
    m.login(30)
    m.send("poweroff\n")
    m.wait_exit(30)
