# SPDX-License-Identifier: BSD-2-Clause
"""A debugger of a guest: QEMU's gdbstub in dom0, spoken to from here over dom0's network card."""
import re
import socket

import pytest

from test_guest import dom0, scaled_machines, sh, wait

# Reads and writes something, over and over, that the debugger waits for.
LOOP = rb"""
grep -wE 'uptime_proc_show|panic_timeout' /proc/kallsyms
n=0
while :; do
    n=$((n + 1))
    read -r up _ </proc/uptime
    echo $n >/proc/sys/kernel/panic
    [ $((n % 10)) != 0 ] || echo "ROUND $n"
    usleep 20000
done
"""
RIP = 16  # in a g packet of x86-64, in units of 8 bytes


class Gdb:
    """The little of GDB's remote protocol that is needed."""

    def __init__(self, port, timeout):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(b"$%s#%02x" % (text.encode(), sum(text.encode()) & 0xff))

    def receive(self):
        while self.file.read(1) != b"$":  # acknowledgements
            pass
        text = b""
        while (byte := self.file.read(1)) != b"#":
            text += byte
        self.file.read(2)
        self.socket.sendall(b"+")
        return text.decode()

    def ask(self, text):
        self.send(text)
        return self.receive()

    def ok(self, text):
        assert self.ask(text) == "OK", text

    def rip(self):
        return int.from_bytes(bytes.fromhex(self.ask("g"))[8 * RIP:8 * RIP + 8], "little")

    def stop(self, text):
        """c or s; what made the guest stop."""
        answer = self.ask(text)
        assert answer.startswith("T05"), answer
        return answer


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def step(gdb, start):
    """Ten instructions at the beginning of a function, each another one."""
    seen = [start]
    for _ in range(10):
        gdb.stop("s")
        seen.append(gdb.rip())
    assert 0 < seen[1] - start <= 15 and all(a != b for a, b in zip(seen, seen[1:])), [hex(rip) for rip in seen]


@pytest.mark.parametrize("name", scaled_machines()[-1:])
def test_gdb(machine, name):
    port = free_port()
    m = dom0(machine, name, files={"test/loop": LOOP}, extra=[
        "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:1234"])
    sh(m, "modprobe virtio_net; ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up")
    sh(m, "guest g -gdb tcp::1234 -fw_cfg name=opt/guest.run,file=/test/loop"
          " -append 'console=ttyS0 quiet cryptomgr.notests root=/dev/vda1 nokaslr'")
    wait(m, 180, "says g 'ROUND 10$'")
    symbols = {name: int(address, 16) for address, name in
               re.findall(r"^([0-9a-f]{16}) \w (\w+)\s*$", sh(m, "cat $G/g/console.log"), re.M)}
    function, variable = symbols["uptime_proc_show"], symbols["panic_timeout"]
    gdb = Gdb(port, 60 * m.scale)
    gdb.send("?")
    while not gdb.receive().startswith("T05"):  # that the connection has stopped it is said too
        pass
    for kind in "10":  # in the debug registers, and as INT3 in memory
        gdb.ok(f"Z{kind},{function:x},1")
        for _ in range(2):
            gdb.stop("c")
            assert gdb.rip() == function
            gdb.ok(f"z{kind},{function:x},1")  # as GDB itself goes on from a breakpoint
            step(gdb, function)
            gdb.ok(f"Z{kind},{function:x},1")
        gdb.ok(f"z{kind},{function:x},1")
    gdb.ok(f"Z2,{variable:x},4")
    values = []
    for _ in range(2):
        assert f"watch:{variable:x};" in gdb.stop("c")
        values.append(int.from_bytes(bytes.fromhex(gdb.ask(f"m{variable:x},4")), "little"))
    assert values[1] == values[0] + 1
    gdb.ok(f"z2,{variable:x},4")
    gdb.ok("D")
    rounds = int(sh(m, "count g ROUND", status=None))
    wait(m, 60, f"says_times g {rounds + 3} ROUND")
    sh(m, "kill $(cat $G/g/pid)")
