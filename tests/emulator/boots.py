# SPDX-License-Identifier: BSD-2-Clause
"""One boot per machine and way to boot, from which test_boot.py and test_dom0.py both read.

dom0 runs one script, whose sections come back as text; disks and a web server are on the host's side.
"""
import contextlib
import functools
import hashlib
import http.server
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

from conftest import MACHINES
from machine import BUILD, Machine, quote

WAYS = ["kernel", "iso"]
DATA = random.Random(3).randbytes(4 << 20)
CHECKSUM = hashlib.md5(DATA).hexdigest()
WRITTEN = b"written by dom0"

# The processors that Socle is tested with are 1, 2 and 4; MACHINES can name others.
NAMES = MACHINES + (["svm-4"] if MACHINES == ["svm-1", "svm-2"] else [])

# Runs as root in dom0. tsc: the TSC's rate by the ACPI PM timer (port 0x608 on QEMU's machines), in kHz.
# read, write: one 32-bit access to physical memory.
PROBE = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

/* The timer, and the TSC of that moment: of some readings the fastest, for the emulator may pause in one. */
static uint64_t read_timer(uint32_t *value)
{
    uint64_t best = UINT64_MAX, at = 0;

    for (int i = 0; i < 20; i++) {
        uint64_t before = __rdtsc();
        uint32_t now = inl(0x608);
        uint64_t took = __rdtsc() - before;

        if (took < best) {
            best = took;
            at = before + took / 2;
            *value = now;
        }
    }
    return at;
}

static uint64_t measure(void)
{
    uint32_t first, last;
    uint64_t start = read_timer(&first), end;

    usleep(500000);
    end = read_timer(&last);
    return (uint64_t)((double)(end - start) * 3579.545 / ((last - first) & 0xffffff));
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 1;
    if (!strcmp(argv[1], "tsc")) {
        if (iopl(3))
            return perror("iopl"), 1;
        printf("%llu\n", (unsigned long long)measure());
        return 0;
    }
    off_t at = strtoull(argv[2], NULL, 0);
    int file = open("/dev/mem", O_RDWR | O_SYNC);
    volatile uint32_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, at);

    if (file < 0 || page == MAP_FAILED)
        return perror("/dev/mem"), 1;
    if (!strcmp(argv[1], "write"))
        *page = 0;
    printf("value %08x\n", *page);
    return 0;
}
"""

SCRIPT = r"""
section() { echo "@@ $1"; }
cd /sys/class/net
for name in e*; do
    driver=$(basename "$(readlink $name/device/driver)")
    [ $driver = e1000 ] && net=10.0.2 || net=10.0.3
    ip address add $net.15/24 dev $name
    ip link set $name up
    section "fetch $driver"
    wget -q -O - http://$net.2:PORT/data | md5sum
done
cd /
for disk in sda vda; do
    section "disk $disk"
    dd if=/dev/$disk bs=1M count=4 2>/dev/null | md5sum
    printf 'WRITTEN' | dd of=/dev/$disk bs=1M seek=4 conv=notrunc,fsync 2>/dev/null || echo write failed
done
section nproc; nproc
section runs_on
for n in $(seq 0 $(($(nproc) - 1))); do taskset -c $n awk '{ print $39 }' /proc/self/stat; done
section tsc; /test/probe tsc
section sleep; read before _ </proc/uptime; sleep 2; read after _ </proc/uptime; echo $before $after
section clock; cat /sys/devices/system/clocksource/clocksource0/available_clocksource; date -u +%s
section cpuinfo; cat /proc/cpuinfo
section memory; head -n 1 /proc/meminfo
section iomem; cat /proc/iomem
section info; soclectl info
section list; soclectl list
section interrupts; cat /proc/interrupts
section dmesg; dmesg
dmesg -c >/dev/null
section log; soclectl log
set -- $(sed -n 's/.*heap (at \(0x[0-9a-f]*\)).*/\1/p' /run/log) 0x200000
for at; do
    for access in read write; do
        # Socle's line about it is on the same serial port.
        section "$access $at"; usleep 300000; /test/probe $access $at; status=$?; usleep 300000; echo "status $status"
    done
done
section kernel_read; usleep 300000; dd if=/dev/mem bs=4096 count=1 skip=512 2>/dev/null | wc -c
section after
echo alive
dmesg
section log_after; soclectl log
section end
""".replace("WRITTEN", WRITTEN.decode()).replace("section log; soclectl log\n",
                                                 "section log; soclectl log | tee /run/log\n")


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def _web_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@functools.cache
def probe():
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "probe"
        subprocess.run(["gcc", "-O1", "-static", "-x", "c", "-o", program, "-"], input=PROBE, text=True, check=True)
        return program.read_bytes()


def _devices(directory):
    """One disk and one network card of each of two kinds."""
    arguments = []
    for name, device in (("ahci", "ide-hd,bus=ide.5"), ("virtio", "virtio-blk-pci")):
        disk = directory / f"{name}.disk"
        disk.write_bytes(DATA + bytes(1 << 20))
        arguments += ["-drive", f"if=none,id={name},file={disk},format=raw",
                      "-device", f"{device},drive={name}"]
    for subnet, device in ((2, "e1000"), (3, "virtio-net-pci")):
        arguments += ["-netdev", f"user,id=net{subnet},net=10.0.{subnet}.0/24",
                      "-device", f"{device},netdev=net{subnet},romfile="]
    return arguments + ["-boot", "d"]


def _sections(text):
    parts = re.split(r"^@@ (.*)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def memory_of(name):
    return 5120 if name == "svm-4" else 2048  # beyond 4 GiB too


def _boot(name, way):
    directory = BUILD / "logs/emulator" / f"boot-{name}-{way}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with _web_server() as port:
        script = SCRIPT.replace("PORT", str(port)).encode()
        with Machine(name, way, cmdline=f"socle.run={quote('sh /test/script')}", memory=memory_of(name),
                     files={"test/script": script, "test/probe": probe()}, extra=_devices(directory),
                     directory=directory) as m:
            m.wait_for(r"^socle\.run: exit \d+$", 150)
            status = m.wait_exit(30)
    disks = {}
    for disk in directory.glob("*.disk"):
        disks[disk.stem] = disk.read_bytes()[len(DATA):][:len(WRITTEN)]
        os.unlink(disk)
    return SimpleNamespace(console=m.text, section=_sections(m.text), status=status, disks=disks,
                           processors=int(name.split("-")[1]))


@functools.cache
def _boot_once(name, way):
    try:
        return _boot(name, way)
    except Exception as error:  # each test that wants this boot shall say why there is none
        return error


def boot(name, way):
    result = _boot_once(name, way)
    if isinstance(result, Exception):
        raise result
    return result
