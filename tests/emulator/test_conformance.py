# SPDX-License-Identifier: BSD-2-Clause
"""What /dev/kvm refuses, and with which error: conformance.c under Socle and under Debian's own KVM, on the same machine.

Every answer must be the same, but for those that ALLOWED names with its reason.
"""
import re
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("conformance.c")

NO_HYPERV = "Hyper-V's interfaces are not offered"
NO_NESTING = "no nested virtualization"
NO_SMM = "no system management mode"
NO_PMU = "guests have no performance counters"
NO_TPR = "a guest's accesses to the TPR do not leave Socle: there is nothing to report"
LIMIT = "another limit"
LATER = "another part of the API, not offered yet"
ENTRY_FAILS = "the processor would refuse the entry; KVM notices that in KVM_RUN"

# The beginning of a line, as a regular expression: why Socle's answer may be another. Capabilities by their numbers.
ALLOWED = {
    r"capability 6:": NO_TPR,
    r"capability (10|25|66|128|192|223):": LIMIT,  # NR_MEMSLOTS, IRQ_ROUTING, MAX_VCPUS, MAX_VCPU_ID, dirty rings
    r"capability (44|45|46|96|123|148|149|154|155|161|167|191|199):": NO_HYPERV,
    r"capability (47|215):": "for what is not here: assigned devices, Hyper-V's and SEV's events",
    r"capability (59|183|187):": LATER,  # paravirtual features
    r"capability 95:": "no instruction is emulated that the processor does not have",
    r"capability 116:": "quirks that Socle does not have could not be switched off; DISABLE_QUIRKS2 says which can",
    r"capability (117|118):": NO_SMM,
    r"capability 143:": "Socle schedules: it does not give the processor away by HLT, MWAIT or PAUSE",
    r"capability 157:": NO_NESTING,
    r"capability 173:": NO_PMU,
    r"capability 182:": "Socle does not poll for a halted vCPU's events",
    r"capability (196|197|206):": "no SGX, no SEV",
    r"capability 201:": "KVM_HC_MAP_GPA_RANGE is SEV's and TDX's",
    r"capability 213:": "the quirks that there are",
    r"capability 220:": "CVE-2018-12207 is Socle's business",
    r"GET_EMULATED_CPUID": "no instruction is emulated that the processor does not have",
    r"PIT without an irqchip": "its ticks would go nowhere; an oversight of this release of KVM",
    r"SIGNAL_MSI (with a device id|to )": "KVM answers -1 (EPERM) where a VM has no vCPU at all",
    r"IOEVENTFD (with KVM's own flag|for virtio-ccw)": "KVM takes flags that mean nothing on x86, and never signals",
    r"VM HYPERV_EVENTFD|at a bad address GET_SUPPORTED_HV_CPUID": NO_HYPERV,
    r"VM SET_PMU_EVENT_FILTER": NO_PMU,
    r"at a bad address TPR_ACCESS_REPORTING": NO_TPR,
    r"at a bad address (GET|SET)_NESTED_STATE": NO_NESTING,
    r"SET_SREGS (CR3 too high|a 64-bit and 32-bit segment in long mode|EFER's unknown bits)": ENTRY_FAILS,
    r"MP_STATE 9": "AP_RESET_HOLD is SEV's",
    r"SET_MSRS EFER of SVM": NO_NESTING,
    r"SET_MSRS HWCR": "TscFreqSel: Linux as a guest asks for it; KVM has it since 6.8",
    r"(SET|GET)_MSRS SPEC_CTRL": "guests have no speculation controls",
    r"(SET|GET)_MSRS SMBASE": NO_SMM,
    r"(SET|GET)_MSRS steal time": LATER,
    r"CPUID2 entries": "as the documentation says; this release of KVM does not give the number of entries",
    r"vCPU SET_GUEST_DEBUG of an unknown kind": "KVM ignores what it does not know",
    r"vCPU SET_TSC_KHZ very high": "without TSC scaling in the processor there is one rate",
}


def build():
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "conformance"
        subprocess.run(["gcc", "-O1", "-static", "-Wall", "-o", program, SOURCE], check=True)
        return program.read_bytes()


def answers(start, program, **arguments):
    m = start(cmdline="socle.demo=0", files={"conformance": program}, **arguments)
    m.login()
    m.shell("dmesg -n 1; test -e /dev/kvm || modprobe kvm_amd")
    result = m.shell("/conformance", 90)
    m.close()
    lines = result.output.splitlines()
    assert result.status == 0 and lines[-1] == "done", result.output[-2000:]
    return [line.rsplit(": ", 1) for line in lines[:-1]]


def test_conformance(machine):
    program = build()
    kvm = answers(machine, program, name="svm-2", boot="linux")
    socle = answers(machine, program, name="svm-2")
    assert [name for name, _ in kvm] == [name for name, _ in socle], "not the same questions"
    others = [f"{name}: {there} by KVM, {here} by Socle"
              for (name, there), (_, here) in zip(kvm, socle) if there != here]
    assert len(kvm) > 700
    wrong = [line for line in others if not any(re.match(pattern, line) for pattern in ALLOWED)]
    assert not wrong, "\n".join(wrong)
