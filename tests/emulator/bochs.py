# SPDX-License-Identifier: BSD-2-Clause
"""Debian's Bochs 2.7: emulated machines that have Intel VMX. machine.py starts and ends them.

Slow: some 80 million instructions a second.
"""
import os
import select
import socket
import sys
import termios
import threading
import tty
from collections import namedtuple
from pathlib import Path

Model = namedtuple("Model", "processor socle_args", defaults=[""])
MODELS = {
    "vmx-haswell": Model("corei7_haswell_4770"),
    "vmx-skylake": Model("corei7_skylake_x"),
    "vmx-plain": Model("corei7_haswell_4770", "features=plain"),  # without what VMX leaves optional
    "vmx-penryn": Model("core2_penryn_t9600"),               # no EPT
    "svm-bochs": Model("trinity_apu"),
}
SLOWNESS = 5   # how much longer than on QEMU's machines anything may take
MEMORY = 1024  # MiB; Bochs keeps what is above 2048 in a file
# The kernel that need not be unpacked, and the initrd without QEMU.
IMAGES = ("vmlinuz-flat", "small.img")
# What these leave out takes Linux longer here than all the rest of its start.
CMDLINE = "nokaslr mitigations=off lsm="

# ips is the TSC's rate, and how many instructions make a second of the machine's time.
CONFIGURATION = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
plugin_ctrl: unmapped=true, biosdev=true, serial=true, speaker=false, extfpuirq=true, parallel=false, gameport=false
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model={processor}, count={processors}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
clock: sync=none, time0=utc
pci: enabled=1, chipset=i440fx
mouse: enabled=0
sound: waveoutdrv=dummy
ata0-master: type=cdrom, path={iso}, status=inserted
boot: cdrom
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}
log: {log}
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""
# For its debugger, which cannot be left out: go on; at SIGINT and at the end of all, show processor 0.
DEBUGGER = "c\nr\ncreg\nu /12\nprint-stack 16\nq\n"


def command(model, processors, memory, iso, port, directory):
    """Writes what the machine needs into the directory, and returns the command that starts it."""
    settings = {"processor": model.processor, "processors": processors, "memory": memory, "iso": iso,
                "port": port, "log": directory / "bochs.log", "ips": 25000000 if processors == 1 else 8000000}
    (directory / "bochsrc").write_text(CONFIGURATION.format(**settings))
    (directory / "debugger").write_text(DEBUGGER)
    return ["bochs", "-q", "-unlock", "-f", directory / "bochsrc", "-rc", directory / "debugger"]


def tail(directory):
    """Why it ended, and what its debugger showed."""
    log = (directory / "bochs.log").read_text(errors="replace").splitlines()
    shown = (directory / "emulator.log").read_text(errors="replace").partition("Next at t=0\n")[2]
    return "\n".join([line for line in log if "PANIC" in line] + shown.splitlines()[:80])


class Serial:
    """The other end of com1: Bochs connects to it; what it sends goes into the log."""

    def __init__(self, log):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.connection = None
        Path(log).write_bytes(b"")
        threading.Thread(target=self._copy, args=(log,), daemon=True).start()

    def _copy(self, log):
        try:
            self.connection, _ = self.server.accept()
            with open(log, "ab", buffering=0) as out:
                while data := self.connection.recv(65536):
                    out.write(data)
        except OSError:
            pass  # closed

    def write(self, data):
        self.connection.sendall(data)

    def flush(self):
        pass

    def close(self):
        for s in (self.server, self.connection):
            if s:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other end was first
                s.close()


def terminal(machine):
    """This terminal is the machine's console until the machine ends; Ctrl-C ends it."""
    inputs, shown = [0], 0
    saved = termios.tcgetattr(0) if sys.stdin.isatty() else None
    try:
        if saved:
            tty.setcbreak(0)
        while machine.process.poll() is None:
            text = machine.log.read_bytes()
            os.write(1, text[shown:])
            shown = len(text)
            if select.select(inputs, [], [], 0.05)[0]:
                typed = os.read(0, 1024)
                machine.serial.write(typed)
                inputs = inputs if typed else []
    except KeyboardInterrupt:
        pass
    finally:
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
