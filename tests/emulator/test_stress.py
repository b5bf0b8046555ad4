# SPDX-License-Identifier: BSD-2-Clause
"""stress-ng in two Linux guests, which are migrated from one QEMU to the next all the time. Only under FULL=1;
STRESS_SECONDS says how long each guest is under stress."""
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from machine import BUILD, cpio
from qemus import Dom0, outcome
from test_guest import assert_alone, assert_calm, info

SECONDS = int(os.environ.get("STRESS_SECONDS", "3600"))
STRESS = ("stress-ng --cpu 1 --cpu-method all --vm 1 --vm-bytes 24M --vm-method all --switch 1 --timer 1 --timer-freq 200"
          f" --sem 1 --mutex 1 --verify --timeout {SECONDS}s; echo STRESS ended: $?; sleep 1000000")


def program_with_libraries(path):
    """An archive for the end of an initrd."""
    out = BUILD / "tests/stress.cpio"
    listed = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+)", listed)
    files = {"/bin/stress-ng": path, **{library: library for library in libraries}}
    with open(out, "wb") as archive:
        cpio({name: Path(os.path.realpath(file)) for name, file in files.items()}, archive)
    return out


@pytest.mark.skipif(os.environ.get("FULL") != "1", reason="takes hours: FULL=1")
def test_stress_with_migration_loops(machine, say):
    files = {"test/stress.cpio": program_with_libraries(shutil.which("stress-ng"))}
    host = Dom0(machine, files=files, memory=4096)
    host.sh("cp /guest/initrd.img /run/initrd; truncate -s %512 /run/initrd; cat /test/stress.cpio >>/run/initrd")
    before = info(host.m)
    guests = [start(host, n) for n in range(2)]
    for guest in guests:
        guest.wait("dispatching hogs", 300)
    moves, limit = 0, time.monotonic() + SECONDS * host.m.scale
    while time.monotonic() < limit:
        for n in range(2):
            guests[n] = move(host, n, guests[n])
            moves += 1
    for guest in guests:
        guest.wait("^STRESS ended: 0", 600)
    say(f"{moves} migrations in {SECONDS} s")
    host.quit_all()
    assert_alone(host.m, before)
    assert_calm(host.m)


def start(host, n, *arguments):
    return host.qemu("-m 256 -smp 2 -kernel /guest/vmlinuz -initrd /run/initrd -append 'console=ttyS0 quiet'",
                     f"-fw_cfg name=opt/guest.run,string='{STRESS}'", *arguments)


def move(host, n, source):
    target = start(host, n, f"-incoming unix:/run/move{n}")
    source("migrate", uri=f"unix:/run/move{n}")
    outcome(source, 300)
    # What it has said so far is in the old QEMU's file; what follows must not be a kernel's complaint.
    assert "fail" not in source.console().lower().replace("failed: 0", "")
    source.quit()
    time.sleep(5 * host.m.scale)
    assert target.status() == "running"
    return target
