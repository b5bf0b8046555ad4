# SPDX-License-Identifier: BSD-2-Clause
"""The boot: by GRUB's ISO (Multiboot 2) and by QEMU's -kernel (Multiboot 1), on 1, 2 and 4 processors."""
import re
import subprocess

import pytest

from boots import NAMES, WAYS, boot, memory_of
from machine import BUILD


@pytest.fixture(params=[f"{name}-{way}" for name in NAMES for way in WAYS])
def booted(request):
    return boot(*request.param.rsplit("-", 1))


def number(pattern, text):
    match = re.search(pattern, text)
    assert match, f"no {pattern!r} in:\n{text}"
    return int(match.group(1), 0)


def heap_range(report):
    """What the log says of Socle's heap: its start and end."""
    log = report.section["log"]
    start = number(r"heap \(at (0x[0-9a-f]+)\)", log)
    return start, start + number(r"(\d+) MiB are Socle's heap", log) * (1 << 20)


def image_range():
    table = subprocess.run(["nm", BUILD / "socle.elf"], check=True, capture_output=True, text=True).stdout
    return tuple(int(re.search(rf"^(\w+) \w {name}$", table, re.M).group(1), 16)
                 for name in ("image_start", "image_end"))


def io_memory(report, what):
    """The ranges, end exclusive, of /proc/iomem's top level that are `what`."""
    found = re.findall(rf"^(\w+)-(\w+) : {what}$", report.section["iomem"], re.M)
    assert found
    return [(int(start, 16), int(end, 16) + 1) for start, end in found]


def test_log_on_the_serial_port(booted):
    said = [line for line in booted.console.splitlines() if re.search(r"\] socle: ", line)]
    wanted = [r"Socle [\d.]+, build id [0-9a-f]{40}$", r"memory: \d+ MiB, ", r"TSC: \d+ kHz$",
              r"processors: \d+, svm", r"dom0: Linux 6\.", r"starting dom0$"]
    at = 0
    for pattern in wanted:  # in this order
        at = next((i for i in range(at, len(said)) if re.search(pattern, said[i])), None)
        assert at is not None, f"no {pattern!r} in order in {said}"
    assert "socle: error" not in booted.console and "PANIC" not in booted.console


def test_log_in_the_ring(booted):
    """soclectl log shows what the serial port showed."""
    log = booted.section["log"].strip().splitlines()
    assert len(log) >= 6
    assert all(line in booted.console[:booted.console.index("dom0: Debian")] for line in log)


def test_all_processors(booted):
    n = booted.processors
    assert number(r"processors: (\d+)", booted.section["log"]) == n
    assert int(booted.section["nproc"]) == n
    assert booted.section["runs_on"].split() == [str(i) for i in range(n)]
    assert len(re.findall(r"^processor\s*:", booted.section["cpuinfo"], re.M)) == n
    assert number(r"CPUs +(\d+)", booted.section["info"]) == n


def test_tsc_rate(booted):
    """Socle's is the one that dom0 measures for itself by the ACPI PM timer."""
    socle = number(r"TSC: (\d+) kHz", booted.section["log"])
    assert socle == pytest.approx(int(booted.section["tsc"]), rel=0.001)
    mhz = float(re.search(r"tsc: Detected ([\d.]+) MHz", booted.section["dmesg"]).group(1))
    assert mhz * 1000 == pytest.approx(socle, abs=2)


def test_memory(booted):
    """All of the machine's RAM that is not Socle's is dom0's."""
    start, end = heap_range(booted)
    total = number(r"memory: (\d+) MiB", booted.section["log"])
    wanted = memory_of(f"svm-{booted.processors}")
    assert wanted - 2 <= total <= wanted
    ram = sum(last - first for first, last in io_memory(booted, "System RAM"))
    assert ram / (1 << 20) == pytest.approx(wanted - (end - start) / (1 << 20), abs=4)


def test_own_memory_is_not_in_dom0s_map(booted):
    for start, end in (heap_range(booted), image_range()):
        assert not [r for r in io_memory(booted, "System RAM") if r[0] < end and start < r[1]]
        assert [r for r in io_memory(booted, "Reserved") if r[0] <= start and end <= r[1]]


def test_own_memory_is_out_of_dom0s_reach(booted):
    """A process of dom0's root dies by a signal; dom0's kernel gets an error; nobody gets a value."""
    heap = f"{heap_range(booted)[0]:#x}"
    for place in (heap, "0x200000"):
        for access in ("read", "write"):
            said = booted.section[f"{access} {place}"]
            assert "value" not in said
            assert number(r"status (\d+)", said) == 128 + 11
            assert re.search(rf"dom0's vCPU \d+: {access} at {int(place, 16):x} refused",
                             booted.section["log_after"])
    assert re.search(r"^0$", booted.section["kernel_read"], re.M)  # bytes that dd could read
    after = booted.section["after"]
    assert after.startswith("alive")
    assert not re.search(r"\b(BUG|Oops)\b", after)
    assert "end" in booted.section


def test_options_by_grub(machine):
    """The log goes to the second serial port, and the heap is as large as asked for."""
    com2 = BUILD / "logs/emulator/com2.log"
    m = machine(name="svm-1", boot="iso", socle_args="serial=com2 pool=64M",
                cmdline='socle.run="soclectl log; soclectl info"', extra=["-serial", f"file:{com2}"])
    m.wait_for(r"^socle\.run: exit 0$", 120)
    m.wait_exit(30)
    log = com2.read_text().replace("\r", "")
    assert re.search(r"^\[ *[\d.]+\] socle: Socle [\d.]+, build id", log, re.M)
    assert "socle: starting dom0\n" in log
    assert "socle: starting dom0\n" not in m.text[:m.text.index("dom0: Debian")]
    assert "socle: starting dom0\n" in m.text
    assert 64 <= number(r"(\d+) MiB are Socle's heap", log) <= 64 + 2 + 2048 // 64
    assert re.search(r"^heap +\d\d\.\d MiB", m.text, re.M)


def test_options_that_make_no_sense(machine):
    """A serial port that there is no such: the first is used, and the log says so."""
    m = machine(name="svm-1", boot="kernel", socle_args="serial=com9 pool=1", initrd="")
    m.wait_for(r"socle: warning: serial=com9: expected com1, com2 or off; com1 is used$", 30)
    m.wait_for(r"socle: error: cannot start: pool=1 is not a size", 30)


def test_no_serial_output(machine):
    m = machine(name="svm-1", boot="kernel", socle_args="serial=off", cmdline='socle.run="soclectl log"')
    m.wait_for(r"^dom0: Debian", 60)
    assert "socle: " not in m.text[:m.text.index("dom0: Debian")]
    m.wait_for(r"socle: starting dom0$", 60)
    m.wait_exit(30)
