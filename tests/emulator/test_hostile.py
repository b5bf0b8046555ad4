# SPDX-License-Identifier: BSD-2-Clause
"""Guests that misuse every way into the hypervisor. Each may harm itself; Socle, dom0 and the next guest live,
what a guest had comes back, and the log says what happened."""
import re

import bochs
import machine
import pytest

# Runs to its own end and says "ok": it took all that it asked for, or was refused as it should be.
GOOD = ["ud2", "triple", "hypercalls", "badmsr", "mmio", "portio", "badcr", "modes", "task", "pic", "timer"]
TWO_VCPUS = ["ipi", "selfmod"]
NEVER_ENDS = ["spin"]
ALL = GOOD + TWO_VCPUS + NEVER_ENDS

SCRIPT = """#!/bin/sh
# The counters that must come back.
counters() { soclectl info | grep -E '^(heap free|frames lent|domains|vCPUs)' | tr -s ' ' | tr '\\n' ';'; }
run() { # NAME SECONDS QEMU-ARGUMENTS
    name=$1 seconds=$2
    shift 2
    timeout -s KILL $seconds qemu-system-x86_64 -accel kvm -cpu host -m 64 -nodefaults -display none -no-reboot \\
        -serial file:/tmp/$name.out -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel /test/$name.elf "$@" \\
        >/tmp/$name.err 2>&1
    echo "status $name $?"
    sed "s/^/output $name: /" /tmp/$name.out /tmp/$name.err
    echo "after $name: $(counters)"
}
echo "before: $(counters)"
CALLS
soclectl log | sed 's/^/log: /'
uptime
"""


# Bochs takes the processor away from a guest that has interrupts off by the preemption timer alone.
NOT_PLAIN = TWO_VCPUS + NEVER_ENDS


@pytest.fixture(scope="module", params=["svm-2", "vmx-haswell", "vmx-plain"])
def report(request):
    """One boot runs them all."""
    slowness = bochs.SLOWNESS if request.param.startswith("vmx") else 1
    calls = [f"run {g} {60 * slowness}" for g in GOOD]
    if request.param != "vmx-plain":
        calls += [f"run {g} {60 * slowness} -smp 2" for g in TWO_VCPUS]
        calls += [f"run {g} {10 * slowness}" for g in NEVER_ENDS]
    files = {f"test/{g}.elf": machine.BUILD / f"tests/guests/{g}.elf" for g in ALL}
    files["test/run"] = SCRIPT.replace("CALLS", "\n".join(calls)).encode()
    directory = machine.BUILD / f"logs/emulator/test_hostile-{request.param}"
    return machine.run_in_dom0("sh /test/run", timeout=900, name=request.param, files=files, directory=directory,
                               initrd=machine.BUILD / "dom0/initrd.img").output


@pytest.fixture
def guest(request, report):
    """Its name, where it has run."""
    if "plain" in request.node.name and request.param in NOT_PLAIN:
        pytest.skip("not preempted here")
    return request.param


def test_dom0_lives(report):
    assert "load average" in report
    assert not re.search(r"PANIC|rcu.*stall|soft lockup|Oops|BUG:", report)


@pytest.mark.parametrize("guest", GOOD + TWO_VCPUS, indirect=True)
def test_guest_says_ok(report, guest):
    lines = "\n".join(line for line in report.splitlines() if f" {guest}" in line)
    assert f"guest {guest}: ok" in lines, lines


@pytest.mark.parametrize("guest", NEVER_ENDS, indirect=True)
def test_guest_that_never_ends_can_be_killed(report, guest):
    assert f"status {guest} 137" in report


@pytest.mark.parametrize("guest", ALL, indirect=True)
def test_nothing_is_left_behind(report, guest):
    before = re.search(r"^before: (.*)", report, re.M).group(1)
    after = re.search(rf"^after {guest}: (.*)", report, re.M).group(1)
    assert after.strip() == before.strip()


def test_log_names_the_triple_fault(report):
    assert re.search(r"^log: .*domain \d+ .*triple fault", report, re.M)
