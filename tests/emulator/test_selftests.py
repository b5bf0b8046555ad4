#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""KVM's own selftests (selftests.list) in dom0 on Socle: one boot runs them all, each is a test here.

`make selftests` runs this file as a program, which shows each result as it comes (TESTS="NAME..." picks some).
"""
import os
import re
import shlex
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from machine import BUILD, Machine, MachineError  # noqa: E402

# What each runs: names that contain this.
MACHINES = {"svm-2": "", "vmx-haswell-2": "", "vmx-skylake-2": "dirty_log"}
# Not in Bochs: they wait for processors to stand still, or start hundreds of threads.
NOT_IN_BOCHS = {"memslot_perf_test", "rseq_test", "hardware_disable_test"}
KSFT_SKIP = 4
TEXT_MAX = 4000  # of what a test says, the end
PROGRAMS = BUILD / "selftests/bin"
LOGS = BUILD / "logs/emulator/selftests"


class Case(namedtuple("Case", "name limit arguments reason")):
    @property
    def label(self):
        """What its marks and its result are called: a program may come twice, with other arguments."""
        return " ".join([self.name, *self.arguments])


Outcome = namedtuple("Outcome", "status text seconds")  # status: of the program, or None: it did not end


def read_list():
    """The cases of selftests.list, in its order; one with a reason is not run."""
    cases = []
    for line in Path(__file__).with_name("selftests.list").read_text().splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] == "without":
            cases.append(Case(words[1], 0, [], " ".join(words[2:])))
        else:
            cases.append(Case(words[0], int(words[1]), words[2:], None))
    return cases


CASES = read_list()


def read_kvm():
    """What Linux's own KVM makes of each: selftests.kvm."""
    lines = Path(__file__).with_name("selftests.kvm").read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def script(cases, scale):
    """What dom0 runs. The marks begin a line, whatever a test has written last."""
    lines = ["#!/bin/sh", "cd /selftests"]
    for case in cases:
        command = shlex.join([f"./{case.name}", *case.arguments])
        limit = int(case.limit * scale)
        if "kvm_clock" in case.name:  # it compares the guest's clock with the TSC
            lines.append("echo tsc >/sys/devices/system/clocksource/clocksource0/current_clocksource")
        if "-H" in case.arguments:  # max_guest_memory_test: huge pages, each slot of 1 GiB shows the same ones
            lines.append("echo 512 >/proc/sys/vm/nr_hugepages")
        if "anonymous_hugetlb_2mb" in case.arguments:
            lines.append("echo 16 >/proc/sys/vm/nr_hugepages")
        lines.append(f"echo '== {case.label}'; timeout -s KILL {limit} {command} </dev/null 2>&1; "
                     f"printf '\\n== {case.label} ended: %d\\n' $?")
    return "\n".join(lines).encode() + b"\n"


def run(name, cases):
    """Yields (case, outcome). A test that ends the machine fails, and the rest runs on a new one."""
    directory = LOGS / name
    shutil.rmtree(directory, ignore_errors=True)
    boots = 0
    while cases:
        boots += 1
        files = {f"selftests/{case.name}": PROGRAMS / case.name for case in cases}
        m = Machine(name=name, cmdline="socle.run=/selftests/run", files=files, directory=directory / str(boots))
        files["selftests/run"] = script(cases, m.scale)
        with m:
            m.expect("^dom0: /dev/kvm by Socle", 120)  # where it does not load, dom0 falls back to Linux's own
            m.expect(f"^== {re.escape(cases[0].label)}$", 30)
            while cases:
                case = cases.pop(0)
                start, begin = time.monotonic(), m.seen
                try:
                    end = m.expect(f"^== {re.escape(case.label)} ended: (\\d+)$", case.limit + 30)
                except MachineError as error:
                    yield case, Outcome(None, str(error), time.monotonic() - start)
                    break
                text = m.text[begin:end.start()].strip()
                yield case, Outcome(int(end.group(1)), text[-TEXT_MAX:], time.monotonic() - start)


def verdict(outcome):
    if outcome.status is None:
        return "failed (the machine did not go on)"
    return {0: "passed", KSFT_SKIP: "skipped", 137: "failed (out of time)"}.get(
        outcome.status, f"failed (status {outcome.status})")


@pytest.fixture(scope="module", params=MACHINES)
def outcomes(request):
    cases = [c for c in CASES if not c.reason and MACHINES[request.param] in c.name]
    if request.param.startswith("vmx"):  # Bochs' machines have not the memory for the huge pages
        cases = [c for c in cases if "-H" not in c.arguments and c.name not in NOT_IN_BOCHS]
    return {case.label: outcome for case, outcome in run(request.param, cases)}


def test_list_is_complete():
    assert {case.name for case in CASES} >= set(read_kvm())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label.removeprefix("x86_64/").replace(" ", ""))
def test_selftest(case, outcomes):
    if case.reason:
        pytest.skip(case.reason)
    if case.label not in outcomes:
        pytest.skip("on other machines")
    outcome = outcomes[case.label]
    if outcome.status == KSFT_SKIP:
        pytest.skip(outcome.text)
    assert outcome.status == 0, f"{verdict(outcome)}\n{outcome.text}"


def main(patterns):
    count = {"passed": 0, "failed": 0, "skipped": 0}
    kvm = read_kvm()
    chosen = [case for case in CASES if not patterns or any(pattern in case.name for pattern in patterns)]
    for case in chosen:
        if case.reason:
            count["skipped"] += 1
            print(f"{case.name:56} skipped: {case.reason} (KVM: {kvm.get(case.name, 'not known')})")
    for case, outcome in run(next(iter(MACHINES)), [case for case in chosen if not case.reason]):
        result = verdict(outcome)
        count[result.split()[0]] += 1
        print(f"{case.label:56} {result} ({outcome.seconds:.1f} s) (KVM: {kvm.get(case.name, 'not known')})", flush=True)
        if outcome.status != 0:
            print("\n".join(f"    {line}" for line in outcome.text.splitlines()[-40:]), flush=True)
    print(", ".join(f"{number} {result}" for result, number in count.items()))
    return bool(count["failed"])


if __name__ == "__main__":
    sys.exit(main(os.environ.get("TESTS", "").split() + sys.argv[1:]))
