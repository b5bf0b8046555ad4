# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots and migration by Debian's QEMU: nothing of a guest is lost, and it stands still for a short time only.

The guest is tests/guests/migrate.c, which checks its memory, registers, clocks and interrupts all the time, or Linux.
One boot of dom0 serves all tests; FULL=1 adds Debian's own KVM beside it.
"""
import os
import re
import shutil
import time

import pytest
from machine import BUILD
from qemus import Dom0, booted_dom0, clean_after, downtime, goes_on, outcome, qcow2, ticks

FULL = os.environ.get("FULL") == "1"
FLAT = {"test/migrate.elf": BUILD / "tests/guests/migrate.elf"}
BUSY = "-smp 2 -append '16 1000'"


@pytest.fixture(scope="module", params=["socle"] + ["kvm"] * FULL)
def booted(request):
    """One dom0 for all tests here: on Socle, or without it, by Debian's KVM."""
    directory = BUILD / f"logs/emulator/test_migration-{request.param}"
    shutil.rmtree(directory, ignore_errors=True)
    disks = directory / "disks"
    files = {**FLAT, "test/busy": BUSY_LINUX,
             "test/state.qcow2": qcow2(disks, "state.qcow2", 64),
             "test/disk.qcow2": qcow2(disks, "disk.qcow2", 64, "-u", "-b", "/guest/disk.img", "-F", "raw")}
    yield from booted_dom0(directory, "kernel" if request.param == "socle" else "linux", files=files, memory=3072)


@pytest.fixture
def host(request, booted):
    yield from clean_after(request, booted)


def clock_goes_on(before, after, most):
    """The guest's clock after is later than before, by no more than so many seconds."""
    passed = (after[0] - before[0]) / 1000
    assert 0 < passed <= most, (before, after)


def test_snapshot_in_qcow2(host):
    """savevm and loadvm, in one QEMU and into a new one: the guest goes on from that moment."""
    drive = "-drive file=/test/state.qcow2,if=virtio,format=qcow2"
    q = host.flat("migrate", BUSY, drive)
    saved = goes_on(q)[-1]
    assert q.hmp("savevm one") == ""
    assert q.hmp("info snapshots").count("one") == 1
    later = goes_on(q)[-1]
    assert q.hmp("loadvm one") == ""
    had = len(ticks(q))
    again = goes_on(q)
    assert saved[0] <= again[had][0] <= saved[0] + 3000 and again[had][0] < later[0] + 1000
    assert again[had][1] <= later[1]
    q.quit()
    q = host.flat("migrate", BUSY, drive, "-loadvm one")
    clock_goes_on(saved, goes_on(q)[0], 3)
    q.quit()


@pytest.mark.parametrize("board", ["q35", "pc"])
def test_to_a_file_and_back(host, board):
    """Stopped, written to a file, and read by another QEMU later: the guest's clock does not count the time between."""
    q = host.flat("migrate", "-smp 2 -append '16 1000 x2apic'", machine=board)
    goes_on(q)
    q("migrate", uri="exec:cat >/run/state")
    outcome(q)
    assert q.status() == "postmigrate"
    last = ticks(q)[-1]
    q.quit()
    time.sleep(3)
    q = host.flat("migrate", "-smp 2 -append '16 1000 x2apic' -incoming 'exec:cat /run/state'", machine=board)
    clock_goes_on(last, goes_on(q)[0], 3)
    q.quit()
    host.sh("rm /run/state")


def live(host, uri, *arguments):
    """A QEMU with a busy guest, and one that waits for it."""
    source = host.flat("migrate", BUSY, *arguments)
    goes_on(source)
    return source, host.flat("migrate", BUSY, f"-incoming {uri}", *arguments)


def test_precopy_of_a_busy_guest(host, say):
    """There and back again: TCP, then a Unix socket."""
    source, target = live(host, "tcp:127.0.0.1:6999")
    last = ticks(source)[-1]
    stood = []
    for uri in "tcp:127.0.0.1:6999", "unix:/run/migrate":
        source("migrate", uri=uri)
        result = outcome(source)
        stood.append(downtime(source, target))
        say(f"{uri}: {result['total-time']} ms, {result['ram']['dirty-sync-count']} rounds, QEMU's downtime "
            f"{result['downtime']} ms, from STOP to RESUME {stood[-1]:.0f} ms (aim: under 300)")
        first, *_, newest = goes_on(target)
        clock_goes_on(last, first, 20 * host.m.scale)
        assert newest[2] > first[2] and newest[3] > first[3] and newest[4] > first[4] and newest[5] > first[5]
        last = newest
        source.quit()
        if uri.startswith("tcp"):
            source, target = target, host.flat("migrate", BUSY, "-incoming unix:/run/migrate")
    target.quit()
    assert min(stood) < 300 * host.m.scale  # either may meet a busy computer


def test_postcopy_of_a_guest_that_never_converges(host, say):
    """It dirties more than may be sent; the pages follow it, on demand."""
    capabilities = [{"capability": "postcopy-ram", "state": True}, {"capability": "postcopy-blocktime", "state": True}]
    source = host.flat("migrate", "-smp 2 -append '16 20000'")
    last = goes_on(source)[-1]
    target = host.flat("migrate", "-smp 2 -append '16 20000' -incoming defer")
    target("migrate-set-capabilities", capabilities=capabilities)
    target("migrate-incoming", uri="tcp:127.0.0.1:6999")
    source("migrate-set-capabilities", capabilities=capabilities[:1])
    source("migrate-set-parameters", max_bandwidth=8 << 20, max_postcopy_bandwidth=8 << 20)
    source("migrate", uri="tcp:127.0.0.1:6999")
    while source("query-migrate").get("ram", {}).get("dirty-sync-count", 0) < 2:
        time.sleep(0.2)
    source("migrate-start-postcopy")
    result = outcome(source)
    stood = downtime(source, target)
    blocked = target("query-migrate")
    say(f"postcopy: {result['total-time']} ms, {result['ram']['postcopy-requests']} pages asked for, from STOP to "
        f"RESUME {stood:.0f} ms, vCPUs blocked {blocked.get('postcopy-vcpu-blocktime')} ms")
    assert result["ram"]["postcopy-requests"] > 0
    assert stood < 1000 * host.m.scale
    clock_goes_on(last, goes_on(target)[0], 40 * host.m.scale)
    source.quit()
    target.quit()


def test_between_machines(host, machine, say):
    """To another machine with its own Socle and dom0; there the guest's clocks go on."""
    other = Dom0(machine, host.m.name, files=FLAT, boot=host.m.boot, memory=1024)
    port = other.take_port()
    source = host.flat("migrate", BUSY)
    goes_on(source)
    target = other.flat("migrate", BUSY, f"-incoming tcp:0.0.0.0:{port}")
    last = ticks(source)[-1]
    source("migrate", uri=f"tcp:10.0.2.2:{other.ports[port]}")
    result = outcome(source)
    say(f"to another machine: {result['total-time']} ms, QEMU's downtime {result['downtime']} ms")
    first, *_, newest = goes_on(target)
    clock_goes_on(last, first, 40 * host.m.scale)
    assert newest[2] > first[2] and newest[3] > first[3] and newest[4] > first[4] and newest[5] > first[5]
    source.quit()
    target.quit()


# In the guest. Memory and disk are written and read back all the time; what the kernel says is seen.
BUSY_LINUX = rb"""
dmesg -c >/dev/null
(while :; do i=$((i + 1)); done) &
dd if=/dev/urandom of=/dev/shm/keep bs=1M count=8 2>/dev/null
keep=$(md5sum </dev/shm/keep)
n=0
while :; do
    n=$((n + 1))
    dd if=/dev/urandom of=/dev/shm/block bs=64k count=8 2>/dev/null
    dd if=/dev/shm/block of=/root/block.$((n % 8)) bs=64k conv=fsync 2>/dev/null
    dd if=/root/block.$((n % 8)) of=/dev/shm/back bs=64k iflag=direct 2>/dev/null
    cmp /dev/shm/block /dev/shm/back || echo "WRONG disk"
    [ "$(md5sum </dev/shm/keep)" = "$keep" ] || echo "WRONG memory"
    read -r up _ </proc/uptime
    echo "LINUX $n $up $(date +%s)"
    dmesg -c | sed 's/^/DMESG /'
    usleep 100000
done
"""
# All but how long an interrupt took: that the computer is busy is no fault
COMPLAINTS = re.compile(r"^DMESG (?!.*hrtimer: interrupt took)", re.M)
LINUX = re.compile(r"^LINUX (\d+) ([\d.]+) (\d+)$", re.M)


def rounds(q, more=2, seconds=60):
    """Waits for that many more rounds of the Linux guest; returns all that this QEMU has had: number, uptime, date."""
    had = len(LINUX.findall(q.console()))
    q.host.sh(f"until_ok {int(seconds * q.m.scale)} says_times {q.name} {had + more} '^LINUX'", seconds + 60)
    text = q.console()
    assert "WRONG" not in text and not COMPLAINTS.search(text), text
    return [(int(n), float(up), int(date)) for n, up, date in LINUX.findall(text)]


def check_wall_clock(q, behind):
    """The guest knows the time of day, but for how long it did not run."""
    _, _, date = rounds(q, 1)[-1]
    now = int(q.host.sh("date +%s"))
    assert now - behind - 6 <= date <= now + 1


def snapshot_outside(q):
    """A new file takes the writes, is merged again, while the guest writes."""
    q("blockdev-snapshot-sync", device="disk", snapshot_file="/run/overlay.qcow2", format="qcow2")
    rounds(q)
    inserted = q("query-block")[0]["inserted"]
    assert inserted["file"] == "/run/overlay.qcow2"
    assert inserted["image"]["backing-image"]["filename"] == "/test/disk.qcow2"
    q("block-commit", job_id="commit", device="disk", base="/test/disk.qcow2")
    q.qmp.event("BLOCK_JOB_READY")
    rounds(q)
    q("block-job-complete", device="commit")
    _, data = q.qmp.event("BLOCK_JOB_COMPLETED")
    assert "error" not in data
    rounds(q)
    inserted = q("query-block")[0]["inserted"]
    assert inserted["file"] == "/test/disk.qcow2", inserted


def test_linux(host, say):
    """A busy Linux guest, which SeaBIOS and GRUB boot from a qcow2 image: an external snapshot, then from QEMU to QEMU,
    at last by a file."""
    arguments = ["-smp 2 -drive id=disk,file=/test/disk.qcow2,if=virtio,format=qcow2"
                 " -device virtio-rng-pci -device virtio-balloon-pci -netdev user,id=n -device virtio-net-pci,netdev=n"]

    def linux(*more):
        return host.qemu("-m 192 -fw_cfg name=opt/guest.run,file=/test/busy", *arguments, *more)

    q = linux()
    last = rounds(q, 3, 120)[-1]
    snapshot_outside(q)
    for uri in ["tcp:127.0.0.1:6999"] * (1 + FULL):
        target = linux(f"-incoming {uri}")
        last = rounds(q)[-1]
        q("migrate", uri=uri)
        result = outcome(q)
        stood = downtime(q, target)
        say(f"Linux: {result['total-time']} ms, {result['ram']['dirty-sync-count']} rounds, QEMU's downtime "
            f"{result['downtime']} ms, from STOP to RESUME {stood:.0f} ms")
        q.quit()
        q = target
        first = rounds(q)[0]
        assert first[0] - last[0] <= 100 and 0 < first[1] - last[1] < 20 * host.m.scale
        check_wall_clock(q, 0)
    q("migrate", uri="exec:cat >/run/state")
    outcome(q)
    last = rounds(q, 0)[-1]
    q.quit()
    time.sleep(2)
    q = linux("-incoming 'exec:cat /run/state'")
    first = rounds(q)[0]
    assert first[0] == last[0] + 1 and first[1] - last[1] < 10 * host.m.scale
    q.quit()
