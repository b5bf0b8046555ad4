# SPDX-License-Identifier: BSD-2-Clause
"""Bochs' machines: a second SVM beside QEMU's, which has next-RIP save, and processors that must be refused."""
import pytest

CAUSE = r"^\[ *[\d.]+\] socle: error: cannot start: (.*)$"


@pytest.mark.parametrize("name", ["svm-bochs", "svm-bochs-2"])
def test_log_on_the_second_svm(machine, name):
    m = machine(name=name, initrd="")
    assert m.expect(r"processors: (\d+), svm \((.*)\), (?:xAPIC|x2APIC)$").groups() == \
        (name.partition("bochs-")[2] or "1", "npt nrips")
    m.expect(r"socle: starting dom0$")


def test_no_ept(machine):
    """Socle says so and halts: the emulator would end at a fault."""
    m = machine(name="vmx-penryn", kernel="", initrd="")
    said = m.expect(CAUSE).group(1)
    assert said == "this processor has VMX, but no EPT"
    assert m.process.poll() is None


def test_dom0_on_the_second_svm(machine):
    """dom0 turns ACPI on, by which the firmware's SMI comes while dom0 runs."""
    m = machine(name="svm-bochs", cmdline="socle.demo=0")
    m.login(90)
    assert "features     npt nrips\n" in m.shell("soclectl info").output
    m.send("poweroff\n")
    m.wait_exit(30)
