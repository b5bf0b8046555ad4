# SPDX-License-Identifier: BSD-2-Clause
"""More virtual processors than real ones: four guests at once, and under FULL=1 guests with 16 and 64."""
import re

import pytest
from test_guest import FULL, assert_alone, assert_calm, dom0, info, scaled_machines, sh, stats, wait

COUNT = rb"""
i=0
while :; do
    i=$((i + 1))
    [ $((i % 4000)) != 0 ] || echo "COUNT $i"
done
"""
GUESTS = ["one", "two", "three", "four"]


@pytest.mark.parametrize("name", [n for n in scaled_machines("svm-1", "svm-4") if n != "svm-1"])
def test_four_guests_at_once(machine, name):
    m = dom0(machine, name, files={"test/count": COUNT})
    before = info(m)
    for i, guest in enumerate(GUESTS):
        sh(m, f"guest {guest} -m 192 -smp {i % 2 + 1} -fw_cfg name=opt/guest.run,file=/test/count")
    for guest in GUESTS:
        wait(m, 300, f"says_times {guest} 3 '^COUNT'")
    first = counts(m)
    sh(m, "sleep 45", 120)  # long enough for each to have run on either processor
    second = counts(m)
    gains = {guest: second[guest] - first[guest] for guest in GUESTS}
    print(gains)
    # All are as heavy and have one busy processor each; dom0 takes its part where it runs.
    assert min(gains.values()) > 0 and min(gains.values()) * 4 >= max(gains.values())
    running = [v for v in stats(m) if v["domain"] != 0 and v["apic_id"] == 0]
    assert len(running) == 4
    sh(m, "for guest in %s; do kill -9 $(cat $G/$guest/pid); done" % " ".join(GUESTS))
    assert_alone(m, before)
    assert_calm(m)


def counts(m):
    """How far each guest has counted; of the last line only a part may be there."""
    return {guest: max(map(int, re.findall(r"^COUNT (\d+)$", sh(m, f"tail -n 3 $G/{guest}/console.log"), re.M)))
            for guest in GUESTS}


@pytest.mark.skipif(not FULL, reason="minutes: FULL=1")
@pytest.mark.parametrize("vcpus", [16, 64])
def test_linux_with_many_processors(machine, vcpus):
    m = dom0(machine, "svm-4", memory=4096)
    before = info(m)
    sh(m, f"guest wide -m 1024 -smp {vcpus} -fw_cfg name=opt/guest.run,string='cat /proc/interrupts; sleep 1000000'")
    wait(m, 900, f"says wide '^guest: Debian.* {vcpus} CPU(s)'")
    assert re.search(rf"^ +1 +qemu\S+ +{vcpus} ", sh(m, "soclectl list"), re.M)
    sh(m, "kill -9 $(cat $G/wide/pid)")
    assert_alone(m, before)
    assert_calm(m)
