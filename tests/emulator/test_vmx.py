# SPDX-License-Identifier: BSD-2-Clause
"""Intel VMX, on Bochs: dom0's shell, with all features and with none of the optional ones."""
import re

import pytest
from machine import BUILD

ALL = "ept vpid preemption-timer tpr-shadow apicv pause-loop"
FEATURES = {"vmx-haswell": ALL, "vmx-skylake": ALL + " pml tsc-scaling", "vmx-plain": "ept"}


@pytest.mark.parametrize("name", ["vmx-haswell", "vmx-skylake", "vmx-plain", "vmx-haswell-2",
                                  "vmx-haswell-4"])
def test_dom0(machine, name):
    model, _, processors = name.rpartition("-") if name[-1].isdigit() else (name, "", "1")
    m = machine(name=name, cmdline="socle.demo=0")
    log = m.expect(r"processors: (\d+), vmx \((.*)\), x2APIC$")
    assert log.groups() == (processors, FEATURES[model])
    m.login(180)
    info = m.shell("soclectl info; nproc; grep -c vmx /proc/cpuinfo; cat /proc/interrupts").output
    assert f"\n{processors}\n0\n" in info
    m.send("poweroff\n")
    m.wait_exit(60)


# TIMER HZ: the guest tests/guests/timer.c under QEMU, at the machine's rate without HZ.
TSC_SCRIPT = b"""#!/bin/sh
soclectl info
timer() {
    timeout -s KILL 200 qemu-system-x86_64 -accel kvm -cpu host${1:+,tsc-frequency=$1} -m 64 -nodefaults \\
        -display none -no-reboot -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \\
        -kernel /test/timer.elf 2>&1 </dev/null | sed "s/^/$1 /"
}
timer 100000000
timer 12345678
timer
timeout -s KILL 200 /test/tsc_scaling_sync </dev/null 2>&1
echo "sync $?"
"""

# A busy guest, tests/guests/migrate.c, is written to a file while it runs (its writes are logged), and read back.
MIGRATE_SCRIPT = b"""#!/bin/sh
has() { until [ $(grep -c 'TICK\\|FAIL' /run/$1) -ge $2 ]; do sleep 1; done; }
guest() {
    name=$1
    shift
    timeout -s KILL 250 qemu-system-x86_64 -accel kvm -cpu host -m 32 -nodefaults -display none -monitor stdio \\
        -serial file:/run/$name -kernel /test/migrate.elf -append '4 200' "$@" >/run/$name.monitor 2>&1
    sed "s/^/$name /" /run/$name /run/$name.monitor
}
touch /run/before /run/after
(has before 3; echo 'migrate exec:cat>/run/state'; echo 'info migrate'; echo quit) | guest before
(has after 3; echo quit) | guest after -incoming 'exec:cat </run/state'
"""


def run_tsc_script(dom0_run, name, cmdline="", migrate=False):
    files = {"test/run": TSC_SCRIPT, "test/migrate": MIGRATE_SCRIPT,
             "test/migrate.elf": BUILD / "tests/guests/migrate.elf", "test/timer.elf": BUILD / "tests/guests/timer.elf",
             "test/tsc_scaling_sync": BUILD / "selftests/bin/x86_64/tsc_scaling_sync"}
    return dom0_run("sh /test/run" + "; sh /test/migrate" * migrate, 300, name=name, files=files,
                    initrd=BUILD / "dom0/initrd.img", cmdline=cmdline).output.replace("\r", "")


def test_tsc_scaling_and_migration(dom0_run):
    """Guests' TSCs run four times and half as fast as the machine's (25 MHz) beside the APIC timer's 1 GHz, as do
    their deadlines; and KVM's own test, whose guests' TSCs are to agree. Dom0 without AVX-512, PKU and XSAVE's optimized
    and compacted forms: with them Linux finds the state to be wrong on this model of Bochs', and programs crash."""
    said = run_tsc_script(dom0_run, "vmx-skylake", cmdline="clearcpuid=304,515,320,321,322", migrate=True)
    assert " tsc-scaling" in said
    for name, rate in (("100000000", 100000000), ("12345678", 12345678), ("", 25000000)):
        measured = re.search(rf"^{name} timer: (\d+) TSC ticks and (\d+) APIC", said, re.M)
        assert measured, said
        assert abs(int(measured.group(1)) * 1e9 / int(measured.group(2)) / rate - 1) < 0.01, said
        assert f"\n{name} guest timer: ok\n" in said
    assert "\nsync 0\n" in said
    check_migration(said)


def check_migration(said):
    """The guest goes on from where it was, and finds nothing wrong."""
    assert "FAIL" not in said and re.search(r"^before .*status: completed", said, re.M), said
    before, after = ([int(ms) for ms in re.findall(rf"^{name} TICK (\d+) ms", said, re.M)]
                     for name in ("before", "after"))
    assert len(after) >= 3 and before[-1] < after[0] < before[-1] + 3000, said


def test_no_tsc_scaling(dom0_run):
    """As KVM without it: QEMU says what is the matter, and KVM's own test that it cannot run."""
    said = run_tsc_script(dom0_run, "svm-1")
    assert re.search(r"^100000000 .*TSC frequency mismatch", said, re.M)
    assert re.findall(r"^(\d*) guest timer: ok", said, re.M) == [""]
    assert "\nsync 4\n" in said
