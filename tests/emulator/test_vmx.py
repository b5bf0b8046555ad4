# SPDX-License-Identifier: BSD-2-Clause
"""Intel VMX, on Bochs: dom0's shell, with all features and with none of the optional ones."""
import pytest

ALL = "ept vpid preemption-timer tpr-shadow apicv pause-loop"
FEATURES = {"vmx-haswell": ALL, "vmx-skylake": ALL, "vmx-plain": "ept"}


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
