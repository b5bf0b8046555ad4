# SPDX-License-Identifier: BSD-2-Clause
"""Debian as dom0: what it detects, its devices and their interrupts, and its end."""
import re
import subprocess
import time

import pytest

from boots import CHECKSUM, NAMES, WAYS, WRITTEN, boot
from machine import BUILD, ROOT

# A line of dom0's kernel log that says that something went wrong; and what Debian's kernel says of the
# emulated machine without Socle too.
TROUBLE = re.compile(r"\bBUG\b|^\[[ \d.]+\] WARNING: |Oops|Call Trace|lockup|\bstall|general protection|"
                     r"Hardware Error|Machine check|nobody cared|No irq handler|[Uu]nexpected|unstable|"
                     r"APIC error|unchecked MSR|timed out|[Tt]imeout|hung|backwards|skew|"
                     r"Unknown NMI|spurious|checksum error|I/O error|not responding|Failed to", re.M)
QUIET = re.compile(r"Spectre|Speculative|module verification failed|lockup_detector")


@pytest.fixture(params=[f"{name}-{way}" for name in NAMES for way in WAYS])
def booted(request):
    return boot(*request.param.rsplit("-", 1))


def interrupts(report, name):
    """How many of the interrupts `name` came, by processor."""
    lines = [line.split() for line in report.section["interrupts"].splitlines()
             if re.search(rf"(^ *|\W){name}\b", line)]
    assert lines, f"no interrupt {name}"
    return [sum(int(words[1 + i]) for words in lines) for i in range(report.processors)]


def test_detects_its_hypervisor(booted):
    dmesg = booted.section["dmesg"]
    assert "Hypervisor detected: KVM" in dmesg
    assert re.search(r"kvm-clock: Using msrs", dmesg)
    assert "kvm-clock" in booted.section["clock"]
    assert re.search(r"\] x2apic enabled", dmesg)
    assert re.search(r"Switched APIC routing to (physical|cluster) x2apic", dmesg)
    assert "TSC deadline timer available" in dmesg


def test_sees_no_virtualization_extension(booted):
    flags = re.findall(r"^flags\s*: (.*)", booted.section["cpuinfo"], re.M)
    assert len(flags) == booted.processors
    for words in map(str.split, flags):
        assert {"hypervisor", "x2apic", "tsc_deadline_timer", "constant_tsc", "nonstop_tsc"} <= set(words)
        assert not {"svm", "vmx", "npt"} & set(words)


def test_finds_socle_by_its_leaf(booted):
    """socle.ko loads only where the leaf is; soclectl asks by it."""
    assert "dom0: /dev/kvm by Socle (socle.ko)" in booted.console
    info = booted.section["info"]
    for line in (r"version +[\d.]+", r"build id +[0-9a-f]{40}", r"vendor +svm", r"features +.*npt",
                 r"domains +1", rf"vCPUs +{booted.processors}", r"frames lent +0"):
        assert re.search(rf"^{line}\s*$", info, re.M), line
    assert re.search(rf"^ +0 +dom0 +{booted.processors} +running", booted.section["list"], re.M)


@pytest.mark.parametrize("disk", ["sda", "vda"])
def test_disk(booted, disk):
    """Reads by DMA and interrupts, AHCI and virtio; and what was written is on the host's side."""
    said = booted.section[f"disk {disk}"]
    assert CHECKSUM in said and "write failed" not in said
    assert booted.disks["ahci" if disk == "sda" else "virtio"] == WRITTEN


@pytest.mark.parametrize("driver", ["e1000", "virtio_net"])
def test_network(booted, driver):
    """A file over HTTP from the host's side."""
    assert CHECKSUM in booted.section[f"fetch {driver}"]


def test_device_interrupts(booted):
    """Edge (serial), level (e1000's INTx) and MSI arrive."""
    for name in ("ttyS0", "ahci", r"eth[01]", r"virtio\d-req\.\d", r"virtio\d-input\.0"):
        assert sum(interrupts(booted, name)) > 0, name
    assert re.search(r"IO-APIC +\d+-fasteoi +eth", booted.section["interrupts"])


def test_timers_and_ipis(booted):
    assert min(interrupts(booted, "LOC")) > 50
    if booted.processors > 1:
        assert min(interrupts(booted, "RES")) > 0
        assert min(interrupts(booted, "CAL")) > 0
    assert sum(interrupts(booted, "SPU")) == 0
    assert re.search(r"^ *ERR: +0$", booted.section["interrupts"], re.M)


def test_time_passes_as_it_should(booted):
    before, after = map(float, booted.section["sleep"].split())
    assert 1.99 <= after - before < 3
    seconds = next(int(line) for line in booted.section["clock"].splitlines() if line.isdigit())
    assert abs(seconds - time.time()) < 600


def test_kernel_log_is_clean(booted):
    trouble = [line for line in booted.section["dmesg"].splitlines()
               if TROUBLE.search(line) and not QUIET.search(line)]
    assert trouble == []


def test_powers_off(booted):
    assert booted.status == 0
    assert re.search(r"reboot: Power down\s*$", booted.console)


@pytest.mark.parametrize("way", WAYS)
def test_reboot_and_poweroff(machine, way):
    """`reboot` starts the machine anew, Socle included; `poweroff` turns it off."""
    m = machine(name="svm-2", boot=way, cmdline="socle.demo=0", reboot=True)
    m.login()
    m.send("reboot\n")
    m.expect(r"reboot: Restarting system", 30)
    m.expect(r"socle: Socle [\d.]+, build id", 60)
    m.login()
    assert m.shell("nproc; soclectl info >/dev/null").output.strip() == "2"
    m.send("poweroff\n")
    m.expect(r"reboot: Power down", 30)
    assert m.wait_exit(30) == 0
    assert len(re.findall(r"socle: Socle [\d.]+, build id", m.text)) == 2


def cloud_kernel():
    """The kernel of Debian's cloud flavour, of the same version; downloaded once."""
    directory = BUILD / "cache/cloud"
    if not list(directory.glob("boot/vmlinuz-*")):
        script = ('. dom0-shim/image/lib.sh; version=$(kernel_version);'
                  ' unpack_deb "linux-image-${version%-*}-cloud-amd64" build/cache/cloud')
        subprocess.run(["bash", "-c", script], cwd=ROOT, check=True, timeout=300)
    return next(directory.glob("boot/vmlinuz-*"))


def test_cloud_kernel(dom0_run):
    """Its modules are not in the initrd; it comes to its shell on all processors all the same."""
    result = dom0_run("uname -r; nproc; dmesg | grep -E 'Hypervisor detected|x2apic enabled'", name="svm-2",
                      boot="kernel", kernel=cloud_kernel())
    assert result.status == 0
    assert "-cloud-amd64" in result.output and "\n2\n" in result.output
    assert "Hypervisor detected: KVM" in result.output and "x2apic enabled" in result.output


def test_command_line_arrives_unchanged(dom0_run):
    """dom0's command line arrives byte for byte, by GRUB too."""
    command = "cat /proc/cmdline; echo \"a  'b' \\\\ $((1 + 1))\""
    result = dom0_run(command, name="svm-1", boot="iso", cmdline="test.comma=1,2 test.equals=a=b")
    assert "test.comma=1,2 test.equals=a=b" in result.output
    assert "a  'b' \\ 2" in result.output
