# SPDX-License-Identifier: BSD-2-Clause
"""Guests' memory is Linux's memory: it is merged, swapped, bound, shared, watched and logged under guests that run, and
nothing of a VM stays behind. memory.c's checks and QEMU's memory backends, in one boot of each machine."""
import os
import re

import pytest

import bochs
import machine

FULL = os.environ.get("FULL") == "1"

EVERYWHERE = ["region_errors", "log_errors", "ring_errors", "no_memory", "read_only", "dirty_log", "clear_log",
              "initially_set", "dirty_ring", "huge_pages", "discard", "uffd_missing", "uffd_wp", "killed"]
# Where there is a disk to swap to, two NUMA nodes, and 4 GiB.
LARGE = ["hugetlb_2m", "hugetlb_1g", "ksm", "swap", "overcommit", "hot", "numa", "shared", "uffd_minor", "lives", "many"]

# QEMU's backends: what /proc/PID/numa_maps shows of the guest's memory
BACKENDS = {
    "bound": ("memory-backend-ram,host-nodes=1,policy=bind,prealloc=on", "bind:1 .*N1=[0-9]"),
    "memfd": ("memory-backend-memfd,share=on,prealloc=on", "memfd.*dirty=16384"),
    "hugetlb": ("memory-backend-memfd,hugetlb=on,hugetlbsize=2M", "memfd.*huge.*kernelpagesize_kB=2048"),
    "file": ("memory-backend-file,mem-path=/dev/shm/qemu,share=on,prealloc=on", "shm/qemu.*dirty=16384"),
}
CASES = EVERYWHERE + LARGE + [f"qemu_{name}" for name in BACKENDS] + ["qemu_ring"] + (["qemu_many"] if FULL else [])

SCRIPT = """#!/bin/sh
mkdir -p /dev/shm && mount -t tmpfs none /dev/shm
[ ! -e /dev/vda ] || { mkswap /dev/vda >/dev/null && swapon /dev/vda; }

# backend NAME ARGUMENT PATTERN: a guest with that memory runs, and Linux shows the memory so
backend() {
    echo "== qemu_$1"
    echo 40 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
    qemu-system-x86_64 -accel kvm -cpu host -m 64 -nodefaults -display none -machine q35,memory-backend=m \\
        -object $2,id=m,size=64M -kernel /test/spin.elf -serial file:/tmp/$1.out -pidfile /tmp/$1.pid -daemonize
    status=1
    for i in $(seq 100); do
        if grep -q spin /tmp/$1.out && grep -q "$3" /proc/$(cat /tmp/$1.pid)/numa_maps; then
            status=0
            break
        fi
        usleep 100000
    done
    [ $status = 0 ] || { cat /tmp/$1.out; grep -v file=/usr/lib /proc/$(cat /tmp/$1.pid)/numa_maps; }
    kill $(cat /tmp/$1.pid)
    printf '\\n== %s ended: %d\\n' qemu_$1 $status
}

# A guest's state to a file, with dirty rings
ring() {
    echo "== qemu_ring"
    (sleep 2; printf 'migrate "exec:cat >/tmp/state"\\ninfo migrate\\nquit\\n') |
        qemu-system-x86_64 -accel kvm,dirty-ring-size=4096 -cpu host -m 64 -nodefaults -display none \\
        -kernel /test/spin.elf -serial file:/tmp/ring.out -monitor stdio >/tmp/ring.log 2>&1
    grep -q spin /tmp/ring.out && grep -q "Migration status: completed" /tmp/ring.log
    status=$?
    [ $status = 0 ] || cat /tmp/ring.log
    printf '\\n== %s ended: %d\\n' qemu_ring $status
}

# 64 of QEMU's guests at once; each waits for ever when it has said so
many() {
    echo "== qemu_many"
    status=0
    for i in $(seq 64); do
        qemu-system-x86_64 -M microvm -accel kvm -cpu host -m 16 -nodefaults -display none -kernel /test/badmsr.elf \\
            -serial file:/tmp/many$i.out -pidfile /tmp/many$i.pid -daemonize || status=1
    done
    soclectl info | grep domains
    for i in $(seq 600); do
        [ $(grep -l ok /tmp/many*.out | wc -l) = 64 ] && break
        sleep 1
    done
    [ $(grep -l ok /tmp/many*.out | wc -l) = 64 ] || { cat /tmp/many*.out; status=1; }
    kill -9 $(cat /tmp/many*.pid)
    sleep 5
    soclectl info | grep domains
    printf '\\n== %s ended: %d\\n' qemu_many $status
}
"""


@pytest.fixture(scope="module", params=["svm-2"] + (["vmx-skylake-2"] if FULL else []))
def report(request):
    directory = machine.BUILD / f"logs/emulator/test_memory-{request.param}"
    directory.mkdir(parents=True, exist_ok=True)
    script, arguments = SCRIPT, {}
    if request.param.startswith("svm"):
        swap = directory / "swap.img"
        with open(swap, "wb") as file:
            file.truncate(256 << 20)
        nodes = [f"-object memory-backend-ram,id=node{n},size=2G -numa node,memdev=node{n}{processors}"
                 for n, processors in ((0, ",cpus=0-1"), (1, ""))]
        arguments = {"memory": 4096, "cmdline": "hugepagesz=1G hugepages=1",
                     "extra": ["-drive", f"file={swap},if=virtio,format=raw", *" ".join(nodes).split()]}
        script += f"LIVES={1000 if FULL else 250} /test/memory {' '.join(EVERYWHERE + LARGE)}\n"
        script += "".join(f"backend {name} '{how}' '{shown}'\n" for name, (how, shown) in BACKENDS.items())
        script += "ring\nmany\n" if FULL else "ring\n"
    else:
        script += f"/test/memory {' '.join(EVERYWHERE)}\n"
    script += "dmesg | grep -i -e 'BUG:' -e 'WARNING: CPU' -e 'cannot revoke'; true\n"
    programs = machine.BUILD / "tests"
    files = {"test/run": script.encode(), "test/memory": programs / "emulator/memory",
             **{f"test/{guest}.elf": programs / f"guests/{guest}.elf" for guest in ("spin", "badmsr")}}
    slowness = 1 if request.param.startswith("svm") else bochs.SLOWNESS
    return machine.run_in_dom0("sh /test/run", timeout=(1800 if FULL else 400) * slowness, name=request.param, files=files,
                               directory=directory, **arguments).output


@pytest.mark.parametrize("case", CASES)
def test_memory(case, report):
    said = re.search(rf"^== {case}\n((?s:.*?))^== {case} ended: (\d+)$", report, re.M)
    if not said and case not in EVERYWHERE and "== many\n" not in report:
        pytest.skip("on the other machine")
    assert said, f"it did not end:\n{report[-2000:]}"
    assert said.group(2) == "0", said.group(1)


def test_kernel_is_content(report):
    assert not re.search(r"BUG:|WARNING: CPU|cannot revoke", report)
