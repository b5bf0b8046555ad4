# SPDX-License-Identifier: BSD-2-Clause
"""Emulated machines that boot Socle: started, watched and always ended here.

Everything is bounded by time; SOCLE_TIMEOUT_SCALE stretches the bounds on a slow computer.
`python3 tests/emulator/machine.py run [MACHINE]` is what `make run` calls.
"""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import bochs

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
SCALE = float(os.environ.get("SOCLE_TIMEOUT_SCALE", "1"))

# QEMU 7.2's emulated AMD processor without what its SVM lacks or Linux would stumble over.
SVM_CPU = ("EPYC,+svm,+npt,-xsavec,-xsaves,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,"
           "-3dnowprefetch,-osvw,-topoext,-nrip-save")
DOM0_CMDLINE = "console=ttyS0 quiet cryptomgr.notests"

# What ends a wait at once, for it will not get better: Socle's or a Linux kernel's end.
FATAL = re.compile(r"Kernel panic - not syncing|^\[ *[\d.]+\] socle: (PANIC|error: cannot start)", re.M)

Result = namedtuple("Result", "status output")


class MachineError(AssertionError):
    """The machine did not do what was waited for; the text has the end of its log."""


def parse_name(name):
    """svm-2 is QEMU's AMD machine with 2 processors, vmx-haswell-2 one of Bochs'; vmx-haswell has 1, and
    bochs is another name for it."""
    name = re.sub(r"^bochs(?=-\d|$)", "vmx-haswell", name)
    match = re.fullmatch(r"(svm(?=-\d)|" + "|".join(bochs.MODELS) + r")(?:-(\d+))?", name)
    if not match:
        raise ValueError(f"no such machine: {name!r} (known: svm-N, bochs, {', '.join(bochs.MODELS)}, each with -N "
                         "for N processors)")
    return match.group(1), int(match.group(2) or 1)


def quote(value):
    """A value for NAME=VALUE on dom0's or a guest's kernel command line (image/common reads it)."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def qemu_command(name, memory=2048, cpu="", icount=False):
    """The machine alone. cpu: more flags, such as ",-npt". icount: exact and repeatable, one thread."""
    _, processors = parse_name(name)
    # One thread runs all processors: with one for each, QEMU 7.2's FXRSTOR and XRSTOR on any processor change a word
    # of the first one's state (hflags2: GIF, nested paging) without a lock, and undo what that one does to it.
    accel = ["-accel", "tcg,thread=single"]
    if icount:
        accel = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01,clock=vm"]
    return ["qemu-system-x86_64", "-machine", "q35", *accel, "-smp", str(processors), "-m", str(memory),
            "-display", "none", "-nodefaults", "-cpu", SVM_CPU + cpu]


def cpio(files, out):
    """Writes {path: bytes, or Path of a file or folder} as an archive that may follow an initrd."""
    with tempfile.TemporaryDirectory() as tree:
        for path, content in files.items():
            target = Path(tree) / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path) and content.is_dir():
                shutil.copytree(content, target, symlinks=True)
            elif isinstance(content, Path):
                shutil.copy(content, target)
            else:
                target.write_bytes(content)
                target.chmod(0o755)
        subprocess.run("find . | cpio --quiet --owner=0:0 -o -H newc", shell=True, cwd=tree, stdout=out,
                       check=True)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """One emulated machine.

    name       svm-1, svm-2, ...; Bochs' vmx-haswell, vmx-haswell-2, ... (parse_name, bochs.MODELS)
    boot       "kernel": QEMU's -kernel (Multiboot 1); "iso": GRUB (Multiboot 2); "linux": dom0's kernel
               alone, without Socle (its /dev/kvm is then Linux's own). Bochs has the ISO only
    cmdline    more for dom0's kernel command line
    socle_args Socle's own command line
    kernel, initrd, socle: other files than the built ones; kernel or initrd "": none. Bochs gets dom0's
               uncompressed kernel, and an initrd without QEMU
    files      {path: bytes or Path} to add to dom0's initrd
    cpu, icount, extra: QEMU's only; extra: more arguments
    directory  for its log (console.log) and temporary files
    """

    def __init__(self, name="svm-2", boot="kernel", cmdline="", socle_args="", memory=None, cpu="",
                 kernel=None, initrd=None, socle=None, files=None, extra=(), icount=False, reboot=False,
                 directory=None):
        self.name, self.boot = name, boot
        self.model = bochs.MODELS.get(parse_name(name)[0])  # None: QEMU's
        self.files, self.extra = files, list(extra)
        self.socle = BUILD / "socle.elf" if socle is None else socle
        if self.model:
            assert boot != "linux" and not (cpu or icount or extra or reboot), f"{name}: not with Bochs"
            self.memory, self.scale = memory or bochs.MEMORY, SCALE * bochs.SLOWNESS
            images, common_args, common_cmdline = bochs.IMAGES, self.model.socle_args, bochs.CMDLINE
        else:
            self.memory, self.scale = memory or 2048, SCALE
            images, common_args, common_cmdline = ("vmlinuz", "initrd.img"), "", ""
            self.command = qemu_command(name, self.memory, cpu, icount) + ([] if reboot else ["-no-reboot"])
        self.cmdline = " ".join(filter(None, (DOM0_CMDLINE, common_cmdline, cmdline)))
        self.socle_args = f"{common_args} {socle_args}".strip()
        self.kernel = BUILD / "dom0" / images[0] if kernel is None else kernel
        self.initrd = BUILD / "dom0" / images[1] if initrd is None else initrd
        self.directory = Path(directory or tempfile.mkdtemp(prefix="machine-", dir=_logs()))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "console.log"
        self.sockets = tempfile.mkdtemp(prefix="socle-")  # short: a socket's path has a limit
        self.process = self.serial = self._qmp = None
        self.seen = 0  # how much of the log expect() has passed

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    # -- start and end

    def start(self):
        if self.model:
            self.serial = bochs.Serial(self.log)
            self.command = bochs.command(self.model, parse_name(self.name)[1], self.memory, self._iso(),
                                         self.serial.port, self.directory)
            self._launch(stdin=subprocess.DEVNULL)
            return self
        self.command += self._boot_arguments()
        self.command += [
            # Not a socket with a log file: QEMU 7.2 doubles characters there.
            "-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial",
            "-qmp", f"unix:{self.sockets}/qmp,server=on,wait=off", *self.extra]
        with open(self.log, "wb") as console:
            self._launch(stdin=subprocess.PIPE, stdout=console)
        self.serial = self.process.stdin
        return self

    def _launch(self, stdin, stdout=None):
        (self.directory / "command").write_text(" ".join(map(str, self.command)) + "\n")
        with open(self.directory / "emulator.log", "wb") as said:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdin=stdin, stdout=stdout or said,
                                            stderr=said, preexec_fn=_die_with_parent)

    def _initrd(self):
        if not self.files:
            return self.initrd
        initrd = self.directory / "initrd.img"
        with open(initrd, "wb") as out:
            out.write(Path(self.initrd).read_bytes())
            out.flush()
            cpio(self.files, out)
        return initrd

    def _iso(self):
        iso = self.directory / "boot.iso"
        subprocess.run([ROOT / "dom0-shim/image/mkiso.sh", iso, self.cmdline, "--socle-args",
                        self.socle_args, "--socle", str(self.socle), "--kernel", str(self.kernel),
                        "--initrd", str(self._initrd())], check=True, cwd=ROOT, timeout=60 * SCALE)
        return iso

    def _boot_arguments(self):
        if self.boot == "iso":
            return ["-cdrom", str(self._iso())]
        initrd = self._initrd()
        if self.boot == "linux":
            return ["-kernel", str(self.kernel), "-initrd", str(initrd), "-append", self.cmdline]
        modules = []  # QEMU doubles a comma that is meant as itself
        if self.kernel:
            modules.append(f"{self.kernel} {self.cmdline}".replace(",", ",,"))
        if initrd:
            modules.append(str(initrd).replace(",", ",,"))
        arguments = ["-kernel", str(self.socle)]
        if modules:
            arguments += ["-initrd", ",".join(modules)]
        if self.socle_args:
            arguments += ["-append", self.socle_args]
        return arguments

    def close(self):
        """Ends the machine, however it is; its log stays."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for connection in (self.serial, self._qmp):
            if connection:
                connection.close()
        shutil.rmtree(self.sockets, ignore_errors=True)
        for name in ("boot.iso", "initrd.img"):
            (self.directory / name).unlink(missing_ok=True)

    # -- reading the console

    @property
    def text(self):
        """All that the console has shown, without carriage returns."""
        return self.log.read_bytes().decode("utf-8", "replace").replace("\r", "")

    def tail(self, lines=40):
        said = (self.directory / "emulator.log").read_text(errors="replace")
        if self.model:
            said = bochs.tail(self.directory)
        return "\n".join(self.text.splitlines()[-lines:]) + (f"\n-- the emulator says:\n{said}" if said else "")

    def fail(self, what):
        if self.model and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # shows where processor 0 is, and ends
            time.sleep(2)
        raise MachineError(f"{self.name}: {what}\n-- {self.log}, the end:\n{self.tail()}")

    def wait_for(self, pattern, timeout=60, start=0, fatal=FATAL):
        """Waits until the console's text, from start on, matches; returns the match. Fails at once where
        the machine ends or panics first (fatal=None: a panic is expected)."""
        limit = time.monotonic() + timeout * self.scale
        while True:
            running = self.process.poll() is None
            text = self.text
            match = re.compile(pattern, re.M).search(text, start)
            if match:
                return match
            if fatal and fatal.search(text, start):
                time.sleep(1)  # for the rest of what it has to say
                self.fail(f"panic while waiting for {pattern!r}")
            if not running:
                self.fail(f"the machine ended while waiting for {pattern!r}")
            if time.monotonic() > limit:
                self.fail(f"no {pattern!r} within {timeout * self.scale:.0f} s")
            time.sleep(0.05)

    def wait_exit(self, timeout=60):
        """Waits until the machine has powered off (or rebooted, where reboot is off)."""
        try:
            return self.process.wait(timeout * self.scale)
        except subprocess.TimeoutExpired:
            return self.fail(f"still running after {timeout * self.scale:.0f} s")

    # -- talking to it

    def send(self, text):
        """Types text on the serial console."""
        self.serial.write(text.encode())
        self.serial.flush()

    def expect(self, pattern, timeout=60):
        """Like wait_for, but only in what came after the last match of expect."""
        match = self.wait_for(pattern, timeout, start=self.seen)
        self.seen = match.end()
        return match

    def login(self, timeout=120):
        """Waits for dom0's shell; start the machine with socle.demo=0 to come there without a guest."""
        self.expect(r"dom0:\S+# ", timeout)

    def shell(self, command, timeout=60):
        """Runs a command in dom0's shell (after login) and returns its Result."""
        mark = time.monotonic_ns()
        self.seen = len(self.text)
        # The quotes keep the typed line, which is echoed, from matching.
        self.send(f"echo B''EGIN-{mark}; {command}; printf '\\nE''ND-{mark} %d\\n' $?\n")
        match = self.expect(rf"^BEGIN-{mark}\n((?s:.*?))\n^END-{mark} (\d+)$", timeout)
        return Result(int(match.group(2)), match.group(1))

    def qmp(self, execute, **arguments):
        """One QMP command to the emulator, QEMU; returns its answer."""
        if not self._qmp:
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.settimeout(30 * SCALE)
            self._qmp.connect(f"{self.sockets}/qmp")
            self._qmp_lines = self._qmp.makefile("r")
            self._qmp_lines.readline()
            self.qmp("qmp_capabilities")
        self._qmp.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode())
        for line in self._qmp_lines:
            answer = json.loads(line)
            if "error" in answer:
                raise MachineError(f"QMP {execute}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        return self.fail(f"QMP {execute}: no answer")

    def hmp(self, line):
        """One line to the emulator's human monitor, such as "info registers"; returns its text."""
        return self.qmp("human-monitor-command", **{"command-line": line})


def run_in_dom0(command, timeout=180, **machine):
    """Boots, runs a shell command in dom0 (socle.run) and powers off. Returns its Result: the exit status
    and what came on the console between bring-up and the end."""
    machine["cmdline"] = f"{machine.get('cmdline', '')} socle.run={quote(command)}".strip()
    with Machine(**machine) as m:
        match = m.wait_for(r"^socle\.run: exit (\d+)$", timeout)
        ready = re.search(r"^dom0: (no )?/dev/kvm.*\n", m.text, re.M)
        output = m.text[ready.end() if ready else 0:match.start()].removesuffix("\n")
        m.wait_exit(30)
        return Result(int(match.group(1)), output)


def _logs():
    (BUILD / "logs").mkdir(parents=True, exist_ok=True)
    return BUILD / "logs"


def run_bochs(name):
    with Machine(name, cmdline="socle.demo=0") as m:
        print(f"run: booting emulated machine {name} (Bochs, 1 minute); Ctrl-C ends it at any time", flush=True)
        bochs.terminal(m)


def main(arguments):
    """run [MACHINE]: boots the ISO with the console on this terminal."""
    if not 1 <= len(arguments) <= 2 or arguments[0] != "run":
        sys.exit("usage: machine.py run [MACHINE]")
    name = arguments[1] if len(arguments) > 1 else "svm-2"
    if parse_name(name)[0] in bochs.MODELS:
        run_bochs(name)
        return
    command = qemu_command(name) + ["-cdrom", str(BUILD / "socle.iso"), "-serial", "mon:stdio",
                                    "-nic", "user,model=virtio-net-pci"]
    print(f"run: booting build/socle.iso on emulated machine {name} (QEMU TCG); Ctrl-A X ends it at any time",
          flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
