# SPDX-License-Identifier: BSD-2-Clause
"""QEMUs inside dom0, whose monitors (QMP), displays (VNC) and consoles the host's tests talk to by TCP."""
import json
import re
import socket
import struct
import subprocess
import time

from machine import SCALE, Machine, MachineError
from test_guest import assert_alone, assert_calm, dom0, info, sh

FIRST_PORT = 7000  # in dom0


def free_ports(count):
    """Ports of the host that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def qcow2(directory, name, mib, *arguments):
    """A new image; arguments: of qemu-img create."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments, path, f"{mib}M"], check=True)
    return path


def connect(port, timeout=30):
    connection = socket.create_connection(("127.0.0.1", port), timeout * SCALE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, "the connection ended"
        data += piece
    return data


class Dom0:
    """A machine at dom0's shell, whose ports FIRST_PORT... the host reaches."""

    def __init__(self, machine, name="svm-2", ports=8, files=None, extra=(), **arguments):
        self.ports = dict(zip(range(FIRST_PORT, FIRST_PORT + ports), free_ports(ports)))
        self.free = list(self.ports)
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-10.0.2.15:{there}" for there, host in self.ports.items())
        network = ["-nic", f"user,model=virtio-net-pci{forwards}", *extra]
        self.m = dom0(machine, name, files=files, extra=network, **arguments)
        self.sh("ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2;"
                "mkdir -p $G")
        self.count = 0
        self.running = []

    def sh(self, command, timeout=60, status=0):
        try:
            return sh(self.m, command, timeout, status)
        except MachineError:
            if self.m.process.poll() is None:  # where the processors are, should they hang
                text = self.m.hmp("info registers -a")
                print("\n".join(re.findall(r"^CPU.*|^RIP.*|^RSP.*|^CR0.*", text.replace("\r", ""), re.M)))
            raise

    def quit_all(self):
        for qemu in list(self.running):
            qemu.kill()

    def take_port(self):
        return self.free.pop(0)

    def qemu(self, *arguments, **options):
        return Qemu(self, *arguments, **options)

    def flat(self, name, *arguments, memory=128, **options):
        """One of tests/guests, which the test has put into /test."""
        return self.qemu(f"-m {memory}", f"-kernel /test/{name}.elf", *arguments, **options)

    def linux(self, script, *arguments, append="", memory=192, **options):
        """The stock kernel in its initrd, which runs the script, a file of dom0's."""
        return self.qemu(f"-m {memory} -kernel /guest/vmlinuz -initrd /guest/initrd.img"
                         f" -append 'console=ttyS0 quiet cryptomgr.notests {append}'"
                         f" -fw_cfg name=opt/guest.run,file={script}", *arguments, **options)


def booted_dom0(directory, boot="kernel", **arguments):
    """A fixture's generator: one dom0 for all tests of a module."""
    machines = []

    def start(**more):
        machines.append(Machine(directory=directory, boot=boot, **more))
        return machines[0].start()

    try:
        yield Dom0(start, **arguments)
    finally:
        for m in machines:
            m.close()


def clean_after(request, host):
    """The same for one test, after which nothing of its QEMUs may be left."""
    request.node.machines = [host.m]
    socle = host.m.boot != "linux"
    before = info(host.m) if socle else None
    yield host
    host.quit_all()
    if socle:
        assert_alone(host.m, before)
        assert_calm(host.m)


class Qemu:
    """One QEMU in dom0, with a monitor; vnc=True: with a display, serial=True: with a console to type on."""

    def __init__(self, host, *arguments, machine="q35", vnc=False, serial=False):
        self.host, self.m = host, host.m
        host.count += 1
        self.name = f"q{host.count}"
        self.console_log = f"/run/guests/{self.name}/console.log"
        self.seen = 0  # how much of the console wait_new() has passed
        self.port = host.take_port()
        self.vnc_port = host.take_port() if vnc else None
        console = f"-serial file:{self.console_log}"
        if serial:
            self.pipe = f"/run/{self.name}.serial"
            host.sh(f"mkdir -p $G/{self.name}; mkfifo {self.pipe}.in {self.pipe}.out;"
                    f"(cat {self.pipe}.out >{self.console_log} &)")
            console = f"-chardev pipe,id=com1,path={self.pipe} -serial chardev:com1"
        display = f"-vnc 0.0.0.0:{self.vnc_port - 5900}" if vnc else "-display none"
        self.arguments = (f"qemu-system-x86_64 -machine {machine},accel=kvm -cpu host -nodefaults {display}"
                          f" -daemonize -pidfile $G/{self.name}/pid {console}"
                          f" -qmp tcp:0.0.0.0:{self.port},server=on,wait=off " + " ".join(arguments))
        host.sh(f"mkdir -p $G/{self.name}; {self.arguments} 2>$G/{self.name}/qemu.log")
        host.running.append(self)
        self.qmp = Qmp(host.ports[self.port], self)

    def __call__(self, command, **arguments):
        return self.qmp(command, **arguments)

    def hmp(self, line):
        return self.qmp("human-monitor-command", **{"command-line": line})

    def console(self):
        return self.host.sh(f"cat {self.console_log}", 60).replace("\r", "")

    def wait(self, pattern, seconds=60):
        """Waits until the console has a line that grep finds."""
        self.host.sh(f"until_ok {int(seconds * self.m.scale)} says {self.name} '{pattern}'", seconds + 60)

    def type(self, text):
        """Text for the guest's COM1, where serial=True."""
        octal = "".join(f"\\{ord(c):03o}" for c in text)
        self.host.sh(f"printf '{octal}' >{self.pipe}.in")

    def wait_new(self, pattern, seconds=60):
        """The groups of what the console shows after what the last call has seen."""
        limit = time.monotonic() + seconds * self.m.scale
        while True:
            text = self.console()
            match = re.compile(pattern).search(text, self.seen)
            if match:
                self.seen = match.end()
                return match.groups()
            assert time.monotonic() < limit, f"no {pattern!r} in {text}"
            time.sleep(0.2)

    def status(self):
        return self.qmp("query-status")["status"]

    def quit(self):
        self.qmp("quit")
        self._ended()

    def kill(self):
        self.host.sh(f"kill -9 $(cat $G/{self.name}/pid)", status=None)
        self._ended()

    def wait_end(self, seconds=60):
        """Until QEMU has ended by itself, as after the guest's power-off."""
        self.host.sh(f"until_ok {int(seconds * self.m.scale)} ended {self.name}", seconds + 60)
        self._ended()

    def _ended(self):
        self.qmp.close()
        self.host.sh(f"until_ok {int(20 * self.m.scale)} ended {self.name}", 60)
        self.host.free += filter(None, (self.port, self.vnc_port))
        self.host.running.remove(self)

    def vnc(self):
        return Vnc(self.host.ports[self.vnc_port])


class Qmp:
    """QMP by TCP. Events are kept: {name: [(seconds of dom0's clock, data), ...]}."""

    def __init__(self, port, owner):
        self.owner, self.events = owner, {}
        limit = time.monotonic() + 30 * SCALE
        while True:  # the forwarder accepts before QEMU listens
            self.socket = connect(port)
            self.lines = self.socket.makefile("r")
            try:
                if self.lines.readline():
                    break
            except OSError:
                pass
            if time.monotonic() > limit:
                raise MachineError(f"{owner.name}: no QMP")
            time.sleep(0.2)
        self("qmp_capabilities")

    def _line(self):
        line = self.lines.readline()
        if not line:
            log = self.owner.host.sh(f"tail -n 20 $G/{self.owner.name}/*.log", status=None)
            raise MachineError(f"{self.owner.name}: QEMU has ended\n{log}")
        message = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            at = stamp["seconds"] + stamp["microseconds"] / 1e6
            self.events.setdefault(message["event"], []).append((at, message.get("data")))
        return message

    def __call__(self, command, **arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = self._line()
            if "error" in answer:
                raise MachineError(f"{self.owner.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def event(self, name, seconds=60):
        """The next event of that name that nobody has asked for: (dom0's clock, data)."""
        limit = time.monotonic() + seconds * SCALE
        while not self.events.get(name):
            if time.monotonic() > limit:
                raise MachineError(f"{self.owner.name}: no {name} within {seconds} s; {self.events}")
            self("query-name")  # events come before its answer
            time.sleep(0.1)
        return self.events[name].pop(0)

    def close(self):
        self.lines.close()
        self.socket.close()


class Vnc:
    """RFB 3.8 without a password; pictures come raw, 32 bits a pixel."""

    def __init__(self, port):
        self.socket = connect(port)
        assert self._read(4) == b"RFB "
        self._read(8)
        self.socket.sendall(b"RFB 003.008\n")
        assert 1 in self._read(self._read(1)[0])
        self.socket.sendall(b"\1")
        assert self._read(4) == bytes(4)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self._read(4))
        self._read(16)
        self.name = self._read(struct.unpack(">I", self._read(4))[0]).decode()
        self.socket.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.socket.sendall(struct.pack(">BxHii", 2, 2, 0, -223))  # raw; the size may change
        self.picture = bytearray(self.width * self.height * 4)

    def _read(self, count):
        return receive(self.socket, count)

    def ask(self, incremental):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self, timeout=30):
        """Takes one update into the picture; the number of pixels that came, or 0 after the time."""
        self.socket.settimeout(timeout)
        try:
            kind = self._read(1)[0]
        except TimeoutError:
            return 0
        finally:
            self.socket.settimeout(60)
        assert kind == 0, f"VNC: message {kind}"
        return sum(self._rectangle() for _ in range(struct.unpack(">xH", self._read(3))[0]))

    def _rectangle(self):
        x, y, width, height, encoding = struct.unpack(">HHHHi", self._read(12))
        if encoding == -223:
            self.width, self.height = width, height
            self.picture = bytearray(width * height * 4)
            return 0
        data = self._read(width * height * 4)
        for row in range(height):
            at = ((y + row) * self.width + x) * 4
            self.picture[at:at + width * 4] = data[row * width * 4:(row + 1) * width * 4]
        return width * height

    def pixel(self, x, y):
        return int.from_bytes(self.picture[(y * self.width + x) * 4:][:3], "little")

    def pixels(self):
        """The picture's bytes as PPM has them: red, green, blue."""
        rgb = bytearray(self.width * self.height * 3)
        for i in range(3):
            rgb[i::3] = self.picture[2 - i::4]
        return bytes(rgb)

    def close(self):
        self.socket.close()


# ---- migration ------------------------------------------------------------------------------------------

TICK = re.compile(r"^TICK (\d+) ms, round (\d+), ticks (\d+) (\d+), PIT (\d+), pongs (\d+), gap (\d+) us$", re.M)


def ticks(qemu):
    """What the guest tests/guests/migrate.c has said, as lists of numbers; it must not have failed."""
    text = qemu.console()
    assert "FAIL" not in text, text
    return [list(map(int, line)) for line in TICK.findall(text)]


def goes_on(qemu, seconds=30, count=3):
    """Waits for more of the guest's lines; returns all that this QEMU has had."""
    had = len(ticks(qemu))
    qemu.host.sh(f"until_ok {int(seconds * qemu.m.scale)} says_times {qemu.name} {had + count} 'TICK\\|FAIL'",
                 seconds + 60)
    return ticks(qemu)


def outcome(source, seconds=120):
    """Waits for the migration's end."""
    limit = time.monotonic() + seconds * SCALE
    while True:
        info = source("query-migrate")
        if info.get("status") in ("completed", "failed", "cancelled"):
            assert info["status"] == "completed", info
            return info
        assert time.monotonic() < limit, info
        time.sleep(0.2)


def downtime(source, target):
    """Milliseconds of dom0's clock in which the guest ran nowhere."""
    stopped, _ = source.qmp.event("STOP")
    resumed, _ = target.qmp.event("RESUME")
    return (resumed - stopped) * 1000
