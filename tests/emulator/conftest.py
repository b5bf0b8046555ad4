# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the emulator tests. MACHINES="svm-1 svm-2" says on which machines each test runs."""
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import machine as machine_module  # noqa: E402

MACHINES = os.environ.get("MACHINES", "svm-1 svm-2").split()


def pytest_generate_tests(metafunc):
    if "machine_name" in metafunc.fixturenames:
        metafunc.parametrize("machine_name", MACHINES)


# Fixtures that boot once for many tests
SHARED = ("booted", "outcomes", "report")
# What takes longest comes first, so that no machine runs alone at the end.
SLOWEST = ("test_selftests", "test_migration", "test_features", "test_vmx", "test_hostile", "test_hotplug",
           "test_guest")


@pytest.hookimpl(tryfirst=True)  # ahead of pytest-xdist, which reads the marks
def pytest_collection_modifyitems(items):
    """Where tests run side by side (pytest-xdist), those that share a boot run in the same process."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        for fixture in set(SHARED) & set(item.fixturenames):
            where = item.module.__name__.replace("test_dom0", "test_boot")  # their boots are the same
            item.add_marker(pytest.mark.xdist_group(f"{where}-{params.get(fixture, '')}"))
    items.sort(key=lambda item: SLOWEST.index(item.module.__name__) if item.module.__name__ in SLOWEST else 9)


@pytest.fixture
def say(request):
    """say(text): a figure that the end of the run shows."""
    return lambda text: request.node.user_properties.append(("said", text))


def pytest_terminal_summary(terminalreporter):
    reports = [r for r in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
               if r.when == "call" and r.user_properties]
    for report in reports:
        for _, text in report.user_properties:
            terminalreporter.write_line(f"{report.location[2]}: {text}")


@pytest.fixture
def log_directory(request):
    directory = machine_module.BUILD / "logs/emulator" / re.sub(r"[^\w.-]+", "_", request.node.name)
    shutil.rmtree(directory, ignore_errors=True)
    return directory


@pytest.fixture
def machine(request, log_directory):
    """start(**arguments of Machine): a machine, started; all of a test's machines end with the test."""
    machines = []

    def start(**arguments):
        directory = log_directory / str(len(machines))
        m = machine_module.Machine(directory=directory, **arguments)
        machines.append(m)
        request.node.machines = machines
        return m.start()

    yield start
    for m in machines:
        m.close()


@pytest.fixture
def dom0_run(log_directory):
    """dom0_run(command, **arguments of Machine): boots, runs the command in dom0, returns its Result."""
    count = 0

    def run(command, timeout=180, **arguments):
        nonlocal count
        count += 1
        return machine_module.run_in_dom0(command, timeout, directory=log_directory / f"run{count}",
                                          **arguments)

    return run


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for m in getattr(item, "machines", []):
            report.sections.append((f"console of {m.name} ({m.log})", m.tail(60)))
