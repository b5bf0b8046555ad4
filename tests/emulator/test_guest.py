# SPDX-License-Identifier: BSD-2-Clause
"""Guests of Debian's own QEMU in dom0: devices, power, clock, memory, and that nothing of them stays behind.

Booting takes most of the time, so each test boots once and checks much. FULL=1 adds machines and repetitions.
"""
import os
import re
import time

import pytest

from machine import BUILD

FULL = os.environ.get("FULL") == "1"

# What no kernel may say while guests run.
STALLS = re.compile(r"^.*(?:rcu: INFO|self-detected stall|soft lockup|hung_task|blocked for more than|"
                    r"BUG:|WARNING: CPU|Oops|socle: .*cannot revoke).*$", re.M)

# Sourced in dom0: what the tests say often. A guest's console is in $G/NAME/console.log.
LIBRARY = rb"""
G=/run/guests

# until SECONDS COMMAND...: waits until the command succeeds
until_ok() {
    end=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift
    until "$@"; do
        [ $(cut -d. -f1 /proc/uptime) -lt $end ] || { echo "timed out: $*"; return 1; }
        usleep 100000
    done
}

# A guest's monitor (QMP): a pipe each way
monitor_of() {
    mkfifo /run/$1.in /run/$1.out 2>/dev/null
    echo "-chardev pipe,id=monitor,path=/run/$1 -mon chardev=monitor,mode=control"
}
open_monitor() {
    cat /run/$1.out >>/run/$1.monitor &
    echo '{"execute": "qmp_capabilities"}' >/run/$1.in
}

# guest NAME ARGUMENT...: socle-guest, with a monitor
guest() {
    name=$1
    shift
    socle-guest $name $(monitor_of $name) "$@" || return
    open_monitor $name
}

monitor() { echo "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"$2\"}}" >/run/$1.in; }
# asks NAME LINE ANSWER: whether the monitor's answer has that text
asks() { : >/run/$1.monitor; monitor $1 "$2"; usleep 300000; grep -q -e "$3" /run/$1.monitor; }
says() { tr -d '\r' <$G/$1/console.log | grep -aq -e "$2"; }
count() { tr -d '\r' <$G/$1/console.log | grep -ac -e "$2"; }
says_times() { [ "$(count "$1" "$3")" -ge "$2" ]; }
lives() { kill -0 $(cat $G/$1/pid) 2>/dev/null; }
ended() { ! lives $1; }
console() { tail -n ${2-40} $G/$1/console.log; cat $G/$1/qemu.log; }
rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$(cat $G/$1/pid)/status; }
# Linux splits a huge page of which parts were given back only when it must: reclaim makes it, mostly.
# Each processor keeps free pages of its own, tens of MiB, which MemAvailable does not count.
available() {
    for i in 1 2 3 4; do echo 3 >/proc/sys/vm/drop_caches; done
    awk '/^MemAvailable:/ { kib += $2 } /^ *count:/ { kib += 4 * $2 } END { print kib }' /proc/meminfo /proc/zoneinfo
}
freed() {
    mount -t debugfs none /sys/kernel/debug 2>/dev/null
    echo 1 >/sys/kernel/debug/split_huge_pages
    [ $(available) -ge $(($1 + 40960)) ]
}
"""


def scaled_machines(*names):
    """The machines of this run; FULL=1 adds those named here."""
    wanted = os.environ.get("MACHINES", "svm-1 svm-2").split()
    return wanted + [n for n in names if FULL and n not in wanted]


def dom0(machine, name, files=None, **arguments):
    """A machine at dom0's shell, with the library loaded. On Bochs' the guests too have the kernel that need not be
    unpacked."""
    if name.startswith("vmx"):
        files = {"guest/vmlinuz": BUILD / "guest/vmlinuz-flat", **(files or {})}
        arguments["initrd"] = BUILD / "dom0/initrd.img"
    m = machine(name=name, cmdline="socle.demo=0", files={"test/lib": LIBRARY, **(files or {})}, **arguments)
    m.login(180)
    sh(m, ". /test/lib")
    return m


def sh(m, command, timeout=60, status=0):
    """A command in dom0's shell that must end with that status; returns its output."""
    result = m.shell(command, timeout)
    if status is not None and result.status != status:
        logs = m.shell("tail -n 30 /run/guests/*/console.log /run/guests/*/qemu.log", 30).output
        m.fail(f"{command!r} in dom0: status {result.status}\n{result.output}\n-- guests' logs:\n{logs}")
    return result.output.replace("\r", "")


def wait(m, seconds, condition):
    sh(m, f"until_ok {int(seconds * m.scale)} {condition}", seconds + 60)


def info(m):
    """What guests take of Socle: the lines of `soclectl info` that must come back."""
    text = sh(m, "soclectl info")
    return {key: re.search(rf"^{key} +(.*)$", text, re.M).group(1)
            for key in ("heap free", "frames lent", "domains", "vCPUs")}


def assert_alone(m, before):
    """Nothing is left of any guest."""
    limit = time.monotonic() + 20 * m.scale
    while info(m) != before and time.monotonic() < limit:  # an end comes in pieces
        time.sleep(0.5)
    assert info(m) == before
    domains = sh(m, "soclectl list").splitlines()[1:]
    assert len(domains) == 1 and domains[0].split()[1] == "dom0"


def assert_calm(m):
    """No kernel has complained, neither dom0's nor a guest's."""
    text = m.text + sh(m, "dmesg") + sh(m, "cat /run/guests/*/console.log 2>/dev/null; true")
    assert not STALLS.findall(text)


def stats(m):
    """[{"domain": .., "apic_id": .., "exits": ...}] for each vCPU."""
    import json
    return json.loads(sh(m, "soclectl stat --json --once"))["vcpus"]


# ---- devices ----------------------------------------------------------------------------------------

CLOCK_CGI = b"""#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
read -r up _ </proc/uptime
echo "$up $(date +%s)"
"""

# Runs in the guest; each step says what it found.
DEVICES = rb"""
clock() { # dom0's and the guest's uptime and date, as close together as this goes
    for i in 1 2 3 4 5; do
        read -r a _ </proc/uptime
        there=$(wget -q -O - http://10.0.2.2/cgi-bin/clock) || there="- -"
        read -r b _ </proc/uptime
        echo "CLOCK $a $b $(date +%s) $there"
    done
}

echo "SOURCE $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
clock
echo "RNG $(cat /sys/class/misc/hw_random/rng_current) $(head -c 64 /dev/hwrng | wc -c)"
wget -q -O /tmp/blob http://10.0.2.2/blob && echo "HTTP $(md5sum </tmp/blob)"
rm -f /tmp/blob

mkdir -p /tmp/share
mount -t 9p -o trans=virtio,version=9p2000.L share /tmp/share && echo "9P $(cat /tmp/share/from-dom0)"
dd if=/dev/urandom of=/tmp/share/from-guest bs=64k count=16 2>/dev/null
echo "9PSUM $(md5sum </tmp/share/from-guest)"
sync

dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null && echo "DISK $(md5sum </dev/vda1 | cut -c1-32)"
echo written >/root/file && sync && echo 3 >/proc/sys/vm/drop_caches && echo "DISKWRITE $(cat /root/file)"

stty raw -echo </dev/hvc0
exec 3<>/dev/hvc0
echo "hvc0 ready" >&3
read -r line <&3
echo "HVC $line"
echo "guest has: $line" >&3

touch_all() { dd if=/dev/zero of=/dev/shm/fill bs=1M count=110 2>/dev/null; rm /dev/shm/fill; }
touch_all
echo "MEM-FULL $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
until [ $(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) -lt 185000 ]; do usleep 100000; done
usleep 500000
echo "MEM-SMALL"
until [ $(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) -gt 210000 ]; do usleep 100000; done
touch_all
echo "MEM-BACK"
clock
grep -E 'LOC|RES|CAL|virtio' /proc/interrupts
"""


@pytest.mark.parametrize("name", scaled_machines("svm-4") + ["vmx-haswell"])
def test_devices_clock_and_memory(machine, name):
    m = dom0(machine, name, files={"test/devices": DEVICES, "www/cgi-bin/clock": CLOCK_CGI})
    before = info(m)
    blob = sh(m, "dd if=/dev/urandom of=/www/blob bs=64k count=48 2>/dev/null; md5sum </www/blob").strip()
    sh(m, "httpd -h /www -p 127.0.0.1:80; mkdir -p /test/share; echo 'hello from dom0' >/test/share/from-dom0;"
          "mkfifo /run/vc.in /run/vc.out; (cat /run/vc.out >/run/vc.log &)")
    board = "pc" if name == "svm-2" else "q35"
    sh(m, f"guest g -machine {board} -fw_cfg name=opt/guest.run,file=/test/devices"
          " -virtfs local,path=/test/share,mount_tag=share,security_model=none"
          " -device virtio-serial-pci -chardev pipe,id=vc,path=/run/vc -device virtconsole,chardev=vc")
    wait(m, 180, "grep -q 'hvc0 ready' /run/vc.log")
    sh(m, "echo 'a line of dom0' >/run/vc.in")
    wait(m, 60, "grep -q 'guest has: a line of dom0' /run/vc.log")
    wait(m, 60, "says g MEM-FULL")
    check_huge_leaves(m)
    check_balloon(m)
    wait(m, 60, "says g 'guest.run: exit'")
    wait(m, 30, "ended g")
    log = sh(m, "cat /run/guests/g/console.log")
    print(log)
    assert re.search(rf"^HTTP {blob}$", log, re.M)
    assert re.search(r"^RNG virtio_rng\.\d+ 64$", log, re.M)
    assert "9P hello from dom0\n" in log
    assert f"9PSUM {sh(m, 'md5sum </test/share/from-guest').strip()}\n" in log
    assert "HVC a line of dom0\n" in log
    assert re.search(r"^DISK [0-9a-f]{32}$", log, re.M) and "DISKWRITE written\n" in log
    assert "SOURCE kvm-clock\n" in log
    check_clock(log)
    assert_alone(m, before)
    assert_calm(m)


def check_huge_leaves(m):
    """Most of the guest's memory came in pieces of 2 MiB."""
    listed = sh(m, "soclectl list").splitlines()[2].split()
    huge = int(re.search(r"AnonHugePages: +(\d+)", sh(m, "cat /proc/$(cat $G/g/pid)/smaps_rollup")).group(1))
    faults = sum(v["fault"] for v in stats(m) if v["domain"] != 0)
    print(f"dom0 has {huge} kB huge; domain {listed}; {faults} faults")
    assert huge > 150 << 10
    mapped = float(listed[4])
    assert mapped > 180
    assert faults < 0.25 * mapped * 256


def check_balloon(m):
    full, free = int(sh(m, "rss g")), int(sh(m, "available"))
    sh(m, "monitor g 'balloon 192'")
    wait(m, 60, "says g MEM-SMALL")
    wait(m, 60, "asks g 'info balloon' actual=192")
    small = int(sh(m, "rss g"))
    wait(m, 60, f"freed {free}")
    more = int(sh(m, "available"))
    print(f"balloon: QEMU's RSS {full} -> {small} kB, MemAvailable {free} -> {more} kB")
    assert 54 << 10 <= full - small <= 68 << 10
    assert 32 << 10 <= more - free
    sh(m, "monitor g 'balloon 256'")
    wait(m, 60, "says g MEM-BACK")
    back = int(sh(m, "rss g"))
    print(f"deflated: {back} kB")
    assert back >= small + (40 << 10)


def check_clock(log):
    """Over the guest's run its clock goes as fast as dom0's, and it knows the time of day."""
    samples = [list(map(float, line.split()[1:])) for line in log.splitlines() if re.match(r"CLOCK( [\d.]+){5}$", line)]
    assert len(samples) >= 4, "the guest got no clock of dom0"
    samples.sort(key=lambda s: s[0])
    half = len(samples) // 2
    first = min(samples[:half], key=lambda s: s[1] - s[0])
    last = min(samples[half:], key=lambda s: s[1] - s[0])
    guest = (last[0] + last[1] - first[0] - first[1]) / 2
    there = last[3] - first[3]
    doubt = (last[1] - last[0] + first[1] - first[0]) / 2
    print(f"clock: guest {guest:.2f} s, dom0 {there:.2f} s, read within {doubt:.2f} s")
    assert there > 3
    assert abs(guest - there) <= 0.02 * there + doubt
    assert abs(last[2] - last[4]) <= 2


# ---- processors, pause, reset, reboot, power-off -------------------------------------------------------

# Runs in the guest at its first two boots, which it counts on its disk; each processor counts on its own.
POWER = rb"""
boots=$(($(cat /root/boots 2>/dev/null) + 1))
echo $boots >/root/boots
sync
echo "BOOT $boots, $(nproc) processors"
rm -f /dev/shm/count.*
for n in 0 1; do
    taskset $((1 << n)) sh -c 'i=0; while :; do i=$((i + 1)); [ $((i % 2000)) != 0 ] || echo $i >/dev/shm/count.'$n'; done' &
done
if [ $boots = 2 ]; then
    sleep 3
    echo "REBOOTING"
    reboot -f
fi
until [ -s /dev/shm/count.0 ] && [ -s /dev/shm/count.1 ]; do usleep 100000; done
while :; do
    read -r up _ </proc/uptime
    echo "TICK $up $(cat /dev/shm/count.0) $(cat /dev/shm/count.1)"
    [ $boots -lt 3 ] || break
    sleep 1
done
sleep 3
echo "TICK $up $(cat /dev/shm/count.0) $(cat /dev/shm/count.1)"
grep -E 'LOC|RES|CAL|TLB' /proc/interrupts
dmesg | grep -o 'kvm-guest: .*'
read -r _ user nice system idle wait irq softirq stolen _ </proc/stat
echo "STOLEN $stolen of $((user + nice + system + idle + wait + irq + softirq + stolen))"
"""


@pytest.mark.parametrize("name", scaled_machines("svm-4"))
@pytest.mark.parametrize("board", ["pc", "q35"])
def test_two_processors_and_power(machine, name, board):
    """SeaBIOS, GRUB on the disk, kernel, shell; then QMP stop and cont, system_reset, the guest's own reboot and
    power-off."""
    if board == "q35" and name != "svm-2" and not FULL:
        pytest.skip("FULL=1")
    m = dom0(machine, name, files={"test/power": POWER})
    before = info(m)
    start = ("mkdir -p $G/g;"
             f"qemu-system-x86_64 -machine {board},accel=kvm -cpu host -smp 2 -m 256 -nodefaults -display none"
             " -drive file=/guest/disk.img,if=virtio,format=raw,snapshot=on -daemonize -pidfile $G/g/pid"
             " -fw_cfg name=opt/guest.run,file=/test/power -serial file:$G/g/console.log"
             " $(monitor_of g) 2>$G/g/qemu.log && open_monitor g")
    sh(m, start)
    wait(m, 180, "says_times g 5 TICK")
    log = sh(m, "cat $G/g/console.log")
    assert "guest: GRUB loads the kernel" in log
    assert "BOOT 1, 2 processors" in log
    ticks = [list(map(float, t.split())) for t in re.findall(r"^TICK ([\d. ]+)$", log, re.M)]
    assert len(ticks[-1]) == 3 and all(b > a for a, b in zip(ticks[-2], ticks[-1])), ticks
    check_pause(m)
    sh(m, "monitor g system_reset")
    wait(m, 180, "says g REBOOTING")
    wait(m, 180, "says g 'guest.run: exit'")
    wait(m, 30, "ended g")
    log = sh(m, "cat $G/g/console.log")
    print(log)
    assert [int(n) for n in re.findall(r"^BOOT (\d), 2 processors$", log, re.M)] == [1, 2, 3]
    check_paravirtual(log, busy=name == "svm-1")
    assert_alone(m, before)
    assert_calm(m)


def check_paravirtual(log, busy):
    """What the guest's kernel uses of KVM's. busy: its processors share one."""
    for feature in "PV spinlocks enabled", "setup PV IPIs", "setup PV sched yield":
        assert f"kvm-guest: {feature}" in log
    stolen, total = map(int, re.search(r"^STOLEN (\d+) of (\d+)$", log, re.M).groups())
    assert total / 10 * busy <= stolen < total


def check_pause(m):
    sh(m, "monitor g stop; usleep 500000")
    ticks = int(sh(m, "count g TICK", status=None))
    cpu = guest_cpu(m)
    sh(m, "sleep 3")
    assert int(sh(m, "count g TICK", status=None)) == ticks
    assert guest_cpu(m) == cpu
    sh(m, "monitor g cont")
    wait(m, 30, f"says_times g {ticks + 2} TICK")


def guest_cpu(m):
    return [v["cpu_ns"] for v in stats(m) if v["domain"] != 0]


# ---- five levels of page tables ------------------------------------------------------------------------

def test_five_levels(machine):
    """Where the processor has them, Linux uses them by itself: its addresses tell."""
    m = dom0(machine, "svm-1", cpu=",+la57")
    # The kernel's own area for virtual maps: 12.5 PiB, with four levels 32 TiB
    sh(m, "head -c 1024 /proc/kcore | hexdump -C | grep 'ff ff ff ff ff ff 31 00'")
    sh(m, "guest g")
    wait(m, 120, "says g '^guest: Debian'")
    assert "la57" in sh(m, "grep -m 1 ^flags /proc/cpuinfo")
    sh(m, "asks g 'info registers' 'GS =0000 ff[0-9a-e]'")
    assert_calm(m)


# ---- what is left behind -------------------------------------------------------------------------------

def test_killed_guests_leave_nothing(machine, machine_name):
    """QEMU is killed at ten moments, from before the firmware's first instruction to a busy kernel."""
    m = dom0(machine, machine_name)
    sh(m, "guest warm; usleep 700000; kill -9 $(cat $G/warm/pid)")  # what Linux itself caches
    time.sleep(2)
    before = info(m)
    memory = int(sh(m, "available"))
    sizes = ["-smp 2", "-m 512", "-machine pc -smp 2", "-smp 2 -m 128", ""]
    for i, moment in enumerate([0, 0.05, 0.2, 0.5, 1, 1.5, 2, 3, 5, 14]):
        sh(m, f"guest k{i} {sizes[i % len(sizes)]}; usleep {int(moment * 1e6)}; soclectl list;"
              f"kill -9 $(cat $G/k{i}/pid)")
        assert_alone(m, before)
    assert abs(memory - int(sh(m, "available"))) < 16 << 10
    assert_calm(m)
