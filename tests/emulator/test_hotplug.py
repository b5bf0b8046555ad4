# SPDX-License-Identifier: BSD-2-Clause
"""Processors and devices that come and go while a stock Linux runs, with all interrupt controllers in the kernel and
with the local APICs only (kernel-irqchip=split), and QEMU's microvm. One boot of dom0 serves all."""
import re
import shutil
import time

import pytest
from machine import BUILD, SCALE, Machine, MachineError
from qemus import Dom0
from test_guest import assert_alone, assert_calm, info

# Runs in the guest: takes what comes, and tells what there is whenever that changes.
WATCH = rb"""
modprobe -a virtio_pci virtio_blk virtio_net
cd /sys/devices/system/cpu
while :; do
    for c in cpu[0-9]*; do
        [ "$(cat $c/online 2>/dev/null)" = 0 ] && echo 1 >$c/online && echo "ONLINE $c"
    done
    now="cpus=$(nproc) disks=$(ls /sys/block | grep -c '^vd') nets=$(ls /sys/class/net | grep -c '^eth')"
    [ "$now" = "$last" ] || echo "HAS $now"
    last=$now
    usleep 200000
done
"""

@pytest.fixture(scope="module")
def booted():
    directory = BUILD / "logs/emulator/test_hotplug"
    shutil.rmtree(directory, ignore_errors=True)
    machines = []

    def start(**arguments):
        machines.append(Machine(directory=directory, **arguments))
        return machines[0].start()

    yield Dom0(start, files={"test/many.elf": BUILD / "tests/guests/many.elf", "test/watch": WATCH, "test/use": b"cat /proc/interrupts\n"})
    machines[0].close()


@pytest.fixture
def host(request, booted):
    request.node.machines = [booted.m]
    before = info(booted.m)
    yield booted
    booted.quit_all()
    assert_alone(booted.m, before)
    assert_calm(booted.m)


class Guest:
    """A stock Linux that tells what it has."""

    def __init__(self, host, machine, *arguments):
        self.qemu = host.qemu("-m 192 -smp 1,maxcpus=4 -kernel /guest/vmlinuz -initrd /guest/initrd.img",
                              "-append 'console=ttyS0 quiet cryptomgr.notests'",
                              "-fw_cfg name=opt/guest.run,file=/test/watch", *arguments, machine=machine)
        self.has(cpus=1, disks=0, nets=0, seconds=180)

    def has(self, seconds=60, **wanted):
        """Waits until the last that the guest told is this."""
        limit = time.monotonic() + seconds * SCALE
        while True:
            told = re.findall(r"^HAS cpus=(\d+) disks=(\d+) nets=(\d+)$", self.qemu.console(), re.M)
            if told and dict(zip(("cpus", "disks", "nets"), map(int, told[-1]))) == wanted:
                return
            if time.monotonic() > limit:
                raise MachineError(f"not {wanted}: {self.qemu.console()[-3000:]}")
            time.sleep(0.5)

    def plug_processor(self, name):
        """In the last free place, so that ids do not come in order."""
        free = [place for place in self.qemu("query-hotpluggable-cpus") if "qom-path" not in place][0]
        self.qemu("device_add", driver=free["type"], id=name, **free["props"])

    def unplug(self, name):
        self.qemu("device_del", id=name)
        while True:
            _, data = self.qemu.qmp.event("DEVICE_DELETED")
            if data.get("device") == name:
                return

    def processors(self):
        """Two come, one goes, and comes again: QEMU keeps the vCPU of the one that went."""
        self.plug_processor("a")
        self.has(cpus=2, disks=0, nets=0)
        self.plug_processor("b")
        self.has(cpus=3, disks=0, nets=0)
        self.unplug("a")
        self.has(cpus=2, disks=0, nets=0)
        self.plug_processor("c")
        self.has(cpus=3, disks=0, nets=0)
        assert self.qemu.console().count("ONLINE cpu") == 3

    def devices(self, *buses):
        for _ in range(2):
            self.qemu("blockdev-add", node_name="disk", driver="null-co", size=1 << 20, **{"read-zeroes": True})
            self.qemu("device_add", driver="virtio-blk-pci", id="blk", drive="disk", bus=buses[0])
            self.qemu("netdev_add", type="user", id="wire")
            self.qemu("device_add", driver="virtio-net-pci", id="net", netdev="wire", romfile="", bus=buses[-1])
            self.has(cpus=3, disks=1, nets=1)
            self.unplug("net")
            self.unplug("blk")
            self.has(cpus=3, disks=0, nets=0)
            self.qemu("netdev_del", id="wire")
            self.qemu("blockdev-del", node_name="disk")


def test_hotplug_with_the_local_apics_only(host):
    ports = [f"-device pcie-root-port,id=port{i},chassis={i},slot={i}" for i in (1, 2)]
    guest = Guest(host, "q35,kernel-irqchip=split", *ports)
    guest.processors()
    guest.devices("port1", "port2")


def test_hotplug_with_all_controllers(host):
    guest = Guest(host, "pc")
    guest.processors()
    guest.devices("pci.0")


def test_microvm(host):
    """It has no PIC and no PIT; its disk's interrupts are level-triggered."""
    qemu = host.linux("/test/use", "-drive file=/guest/disk.img,if=none,id=disk,format=raw,snapshot=on",
                      "-device virtio-blk-pci,drive=disk", machine="microvm,pcie=on,rtc=on",
                      append="root=/dev/vda1 pci=nomsi")
    qemu.wait("guest.run: exit 0", 180)
    console = qemu.console()
    assert "root file system on /dev/vda1" in console
    assert re.search(r"^ *\d+: +[1-9]\d* +IO-APIC +\d+-fasteoi +virtio0$", console, re.M), console


def test_64_processors(host):
    """Each is started by INIT and SIPI and reached by every kind of message (tests/guests/many.c)."""
    qemu = host.flat("many", "-smp 64 -append 64", memory=64)
    qemu.wait("^guest many: ", 120)
    console = qemu.console()
    print(console)
    assert "guest many: ok" in console
