# SPDX-License-Identifier: BSD-2-Clause
"""Machines and modules that Socle cannot start with: one line names the cause, then it halts."""
import random
import re
import socket
import subprocess
import time

import pytest

from machine import BUILD, SCALE

WAYS = ["kernel", "iso"]
CAUSE = r"^\[ *[\d.]+\] socle: error: cannot start: (.*)$"
VM_CR = 0xc0010114
VM_CR_LOCKED_OFF = 0x18  # SVMDIS and LOCK

# What is missing: Machine's arguments, and what the line must say.
MACHINES = {
    "no-svm": ({"cpu": ",-svm"}, r"this processor has no SVM \(AMD-V\)"),
    "no-nested-paging": ({"cpu": ",-npt"}, r"SVM, but no nested paging"),
    "no-xsave": ({"cpu": ",-xsave"}, r"no XSAVE"),
    "no-module": ({"kernel": ""}, r"no dom0 kernel: give it as the first module"),
    "little-memory": ({"memory": 24}, r"no free memory below 4 GiB for Socle's heap"),
    "little-memory-for-dom0": ({"memory": 64}, r"no free memory for the kernel below 4 GiB"),
    "huge-pool": ({"memory": 256, "socle_args": "pool=3G"}, r"give a smaller pool="),
    "nonsense-pool": ({"socle_args": "pool=lots"}, r"pool=lots is not a size"),
}

# What stands in the place of dom0's kernel, made from the right file.
KERNELS = {
    "empty": (lambda good: b"", r"too short for a Linux kernel"),
    "header-only": (lambda good: good[:300], r"too short for a Linux kernel"),
    "setup-only": (lambda good: good[:8192], r"damaged or cut off"),
    "cut-off": (lambda good: good[:len(good) // 2], r"damaged or cut off: the file is shorter"),
    "garbage": (lambda good: random.Random(1).randbytes(1 << 20), r"not a Linux kernel"),
    "zeros": (lambda good: bytes(1 << 20), r"not a Linux kernel"),
    "no-64-bit": (lambda good: good[:0x236] + b"\0\0" + good[0x238:], r"not a 64-bit kernel"),
    "bad-init-size": (lambda good: good[:0x260] + b"\0\0\0\0" + good[0x264:], r"init_size makes no sense"),
}


def assert_halts_with(m, cause):
    """Exactly one line names the cause; the machine stands still behind it, and does not start again."""
    said = m.wait_for(CAUSE, 30).group(1)
    assert re.search(cause, said)
    time.sleep(0.3)
    text = m.text
    assert m.qmp("query-status")["status"] == "running"
    for registers in m.hmp("info registers -a").split("CPU#")[1:]:
        assert "HLT=1" in registers
    assert len(re.findall(CAUSE, text, re.M)) == 1
    assert len(re.findall(r"socle: Socle [\d.]+", text)) == 1
    assert text == m.text and text.endswith(said + "\n")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", MACHINES)
def test_bad_machine(machine, way, case):
    arguments, cause = MACHINES[case]
    m = machine(**{"name": "svm-2", "boot": way, "initrd": "", "reboot": True} | arguments)
    assert_halts_with(m, cause)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", KERNELS)
def test_bad_kernel(machine, tmp_path, way, case):
    damage, cause = KERNELS[case]
    bad = tmp_path / "vmlinuz"
    bad.write_bytes(damage((BUILD / "dom0/vmlinuz").read_bytes()))
    assert_halts_with(machine(name="svm-1", boot=way, kernel=bad, initrd="", reboot=True), cause)


@pytest.mark.parametrize("way", WAYS)
def test_initrd_in_the_place_of_the_kernel(machine, way):
    m = machine(name="svm-1", boot=way, kernel=BUILD / "guest/initrd.img", initrd="", reboot=True)
    assert_halts_with(m, r"the first module, is not a Linux kernel")


def test_no_64_bit_mode(machine):
    m = machine(name="svm-1", boot="kernel", cpu=",-lm", initrd="", reboot=True)
    m.wait_for(r"^socle: this processor has no 64-bit mode$", 60)
    time.sleep(0.3)
    assert m.text.count("socle:") == 1
    assert "HLT=1" in m.hmp("info registers")


def test_damaged_initrd_is_dom0s_business(machine, tmp_path):
    """Socle starts dom0 all the same, whose kernel says that it has no root file system."""
    bad = tmp_path / "initrd.img"
    bad.write_bytes(random.Random(2).randbytes(1 << 20))
    m = machine(name="svm-1", boot="kernel", initrd=bad)
    m.wait_for(r"socle: starting dom0$", 60)
    m.wait_for(r"Kernel panic - not syncing: VFS: Unable to mount root fs", 90, fatal=None)
    assert "cannot start" not in m.text


class Debugger:
    """As much of GDB's remote protocol as it takes to answer one function call in the function's place."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60 * SCALE)
        self.socket.connect(path)
        self.data = b""

    def ask(self, text):
        self.socket.sendall(f"${text}#{sum(text.encode()) & 0xff:02x}".encode())
        while not (match := re.search(rb"\$([^#]*)#..", self.data)):
            received = self.socket.recv(65536)
            assert received, "the emulator closed the debugger's connection"
            self.data += received
        self.data = self.data[match.end():]
        self.socket.sendall(b"+")
        return match.group(1).decode()

    def registers(self):
        """The 17 of 64 bits, as a list; the rest behind them, as text."""
        text = self.ask("g")
        values = [int.from_bytes(bytes.fromhex(text[16 * n:16 * n + 16]), "little") for n in range(17)]
        return values, text[16 * 17:]

    def set_registers(self, values, rest):
        assert self.ask("G" + b"".join(v.to_bytes(8, "little") for v in values).hex() + rest) == "OK"

    def read_u64(self, address):
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},8")), "little")

    def write_u64(self, address, value):
        assert self.ask(f"M{address:x},8:{value.to_bytes(8, 'little').hex()}") == "OK"


RAX, RSI, RDI, RSP, RIP = 0, 4, 5, 7, 16


def symbol(name):
    table = subprocess.run(["nm", BUILD / "socle.elf"], check=True, capture_output=True, text=True).stdout
    return int(re.search(rf"^(\w+) \w {name}$", table, re.M).group(1), 16)


@pytest.mark.parametrize("way", WAYS)
def test_svm_locked_by_firmware(machine, tmp_path_factory, way):
    """QEMU has no VM_CR that firmware could have locked, so a debugger answers rdmsr_safe(VM_CR)."""
    path = tmp_path_factory.mktemp("gdb") / "gdb"
    m = machine(name="svm-1", boot=way, initrd="", reboot=True,
                extra=["-S", "-gdb", f"unix:{path},server=on,wait=off"])
    for _ in range(200):
        if path.exists():
            break
        time.sleep(0.05)
    gdb = Debugger(str(path))
    stop = symbol("rdmsr_safe")
    assert gdb.ask(f"Z1,{stop:x},1") == "OK"
    gdb.ask("c")
    values, rest = gdb.registers()
    assert values[RIP] == stop and values[RDI] == VM_CR
    gdb.write_u64(values[RSI], VM_CR_LOCKED_OFF)
    values[RAX] = 1
    values[RIP] = gdb.read_u64(values[RSP])
    values[RSP] += 8
    gdb.set_registers(values, rest)
    assert gdb.ask(f"z1,{stop:x},1") == "OK"
    gdb.socket.sendall(b"$D#44")
    assert_halts_with(m, r"SVM \(AMD-V\) is switched off and locked by the firmware")
