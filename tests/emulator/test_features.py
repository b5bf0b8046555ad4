# SPDX-License-Identifier: BSD-2-Clause
"""What users of QEMU do with guests: firmware and image formats, displays, vhost, NMI, memory hot-plug."""
import hashlib
import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from machine import BUILD
from qemus import booted_dom0, clean_after, connect, receive

FULL = os.environ.get("FULL") == "1"
FIRMWARE = Path("/usr/share/OVMF")
QEMU_MODULES = "/usr/lib/x86_64-linux-gnu/qemu"
SPICE_MODULES = ["ui-spice-core.so", "ui-opengl.so", "hw-display-qxl.so"]

# A line each way over AF_VSOCK.
VSOCK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int answer(int s, struct sockaddr_vm *address)
{
    char line[100] = "";
    int c;

    if (bind(s, (void *)address, sizeof(*address)) || listen(s, 1))
        return fail("listen");
    c = accept(s, NULL, NULL);
    if (c < 0 || read(c, line, sizeof(line) - 1) <= 0)
        return fail("read");
    printf("heard %s\n", line);
    dprintf(c, "and back: %s", line);
    return 0;
}

/* vsock listen PORT | vsock CID PORT LINE */
int main(int argc, char **argv)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = atoi(argv[2])};
    int s = socket(AF_VSOCK, SOCK_STREAM, 0);
    char line[100] = "";

    if (s < 0)
        return fail("socket");
    if (argc == 3)
        return answer(s, &address);
    address.svm_cid = atoi(argv[1]);
    if (connect(s, (void *)&address, sizeof(address)))
        return fail("connect");
    if (write(s, argv[3], strlen(argv[3])) < 0 || read(s, line, sizeof(line) - 1) <= 0)
        return fail("answer");
    printf("got %s\n", line);
    return 0;
}
"""

# In the guest: what it finds at its start, then, again and again, what has changed.
LINUX = rb"""
dmesg -c >/dev/null
ip addr flush dev eth0
ip addr add 192.168.7.2/24 dev eth0
ping -c 2 192.168.7.1 >/dev/null && echo "PING ok"
wget -q -O /tmp/blob http://192.168.7.1/blob && echo "HTTP $(md5sum </tmp/blob)"
wget -q -O /tmp/vsock http://192.168.7.1/vsock && chmod +x /tmp/vsock
modprobe vmw_vsock_virtio_transport
/tmp/vsock 2 1234 'hello by vsock'
/tmp/vsock listen 1235 &
sleep 1
echo READY
while :; do
    for state in /sys/devices/system/memory/memory*/state; do
        [ "$(cat $state)" = online ] || echo online >$state
    done
    echo "MEMORY $(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
    dmesg -c | sed 's/^/DMESG /'
    usleep 300000
done
"""


def program(name, source):
    path = BUILD / f"tests/{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".c").write_text(source)
    subprocess.run(["gcc", "-O1", "-static", "-o", path, path.with_suffix(".c")], check=True)
    return path


def libraries(files):
    """The files that these need and QEMU itself does not: dom0 has the others."""
    def needed(file):
        said = subprocess.run(["ldd", file], check=True, capture_output=True, text=True).stdout
        return set(re.findall(r"=> (/\S+)", said))

    return set().union(*map(needed, files)) - needed("/usr/bin/qemu-system-x86_64")


def spice_files():
    modules = [f"{QEMU_MODULES}/{name}" for name in SPICE_MODULES]
    files = {path: os.path.realpath(path) for path in [*modules, *libraries(modules)]}
    found = {f"usr/{re.sub('^/(usr/)?', '', path)}": Path(real) for path, real in files.items()}
    return {**found, "usr/share/qemu/vgabios-qxl.bin": Path("/usr/share/seabios/vgabios-qxl.bin")}


@pytest.fixture(scope="module")
def booted(request):
    directory = BUILD / "logs/emulator/test_features"
    shutil.rmtree(directory, ignore_errors=True)
    files = {"test/vga.elf": BUILD / "tests/guests/vga.elf", "test/linux": LINUX, "www/vsock": program("vsock", VSOCK),
             **efi_files(directory), **spice_files()}
    yield from booted_dom0(directory, files=files, memory=3072)


@pytest.fixture
def host(request, booted):
    yield from clean_after(request, booted)


# ---- displays -------------------------------------------------------------------------------------------

def draw(q, vnc, place):
    """The guest draws a rectangle; returns its place and colour, once the display has it."""
    q.type(chr(place))
    x, y, color = map(int, q.wait_new(r"DREW (\d+) (\d+) (\d+)"))
    limit = time.monotonic() + 20 * q.m.scale
    while vnc.pixel(x, y) != color:
        assert time.monotonic() < limit, (hex(vnc.pixel(x, y)), hex(color))
        vnc.ask(True)
        vnc.update(2)
    return x, y, color


def test_vnc_and_screendump(host):
    """What the guest writes to the frame buffer is seen, by the log of dirty pages alone."""
    q = host.flat("vga", "-vga std", vnc=True, serial=True)
    q.wait_new("TEXT")
    vnc = q.vnc()
    vnc.ask(False)
    assert vnc.update()
    before = vnc.picture[:]
    q.type("x")
    q.wait_new("TEXT")
    while vnc.picture[:] == before or len(vnc.picture) != len(before):
        vnc.ask(True)
        assert vnc.update(), "the text changed, the picture did not"
    q.type("x")
    q.wait_new("GRAPHICS")
    drawn = [draw(q, vnc, place) for place in (64, 9, 18, 63, 36, 128)]
    assert (vnc.width, vnc.height) == (640, 480)
    assert all(vnc.pixel(x + 39, y + 39) == color for x, y, color in drawn[1:])
    q("screendump", filename="/run/shot.ppm")
    ppm = b"P6\n640 480\n255\n" + vnc.pixels()
    assert host.sh("md5sum </run/shot.ppm").split()[0] == hashlib.md5(ppm).hexdigest()
    vnc.close()
    q.quit()


def spice_link(port):
    """A client's first words, for the main channel (spice-protocol's RedLinkMess and RedLinkReply); the answer's
    error, and the server's public key."""
    connection = connect(port)
    body = struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18)
    connection.sendall(b"REDQ" + struct.pack("<III", 2, 2, len(body)) + body)
    magic, major, _, size = struct.unpack("<4sIII", receive(connection, 16))
    assert (magic, major) == (b"REDQ", 2)
    error, key = struct.unpack("<I162s", receive(connection, size)[:166])
    connection.close()
    return error, key


def test_spice(host):
    port = host.take_port()
    q = host.flat("vga", f"-vga qxl -spice addr=0.0.0.0,port={port},disable-ticketing=on", serial=True)
    q.wait_new("TEXT")
    error, key = spice_link(host.ports[port])
    assert error == 0 and any(key)
    q("screendump", filename="/run/before.ppm")
    q.type("x")
    q.wait_new("TEXT")
    limit = time.monotonic() + 20 * q.m.scale
    while "differ" not in host.sh("cmp /run/before.ppm /run/after.ppm 2>&1; true"):
        assert time.monotonic() < limit, "the text changed, the picture did not"
        q("screendump", filename="/run/after.ppm")
    q.quit()
    host.free.append(port)


# ---- vhost, NMI, memory hot-plug: one Linux guest ----------------------------------------------------------

def test_vhost_nmi_and_memory(host):
    blob = host.sh("modprobe -a tun bridge vhost_net vhost_vsock; ip link add br0 type bridge;"
                   "ip addr add 192.168.7.1/24 dev br0; ip link set br0 up; mkdir -p /www;"
                   "dd if=/dev/urandom of=/www/blob bs=64k count=64 2>/dev/null; httpd -h /www -p 192.168.7.1:80;"
                   "(/www/vsock listen 1234 >/run/vsock &) ; md5sum </www/blob").strip()
    q = host.linux("/test/linux", "-smp 2 -netdev tap,id=n,ifname=tap0,script=no,downscript=no,vhost=on",
                   "-device virtio-net-pci,netdev=n,romfile= -device vhost-vsock-pci,guest-cid=3",
                   memory="256,slots=4,maxmem=1G")
    host.sh("ip link set tap0 master br0; ip link set tap0 up")
    q.wait("READY", 120)
    text = q.console()
    assert "PING ok" in text and f"HTTP {blob}" in text and "got and back: hello by vsock" in text
    assert "heard hello by vsock" in host.sh("cat /run/vsock")
    assert "got and back: from dom0" in host.sh("/www/vsock 3 1235 'from dom0'")
    check_vhost(host, q)
    q("inject-nmi")
    q.wait("DMESG.*NMI received")
    check_memory(q)
    text = re.sub(r"DMESG.*(NMI|Do you have a strange power|Dazed and confused).*\n", "", q.console())
    assert not re.search(r"DMESG.*(WARN|BUG|Oops|stall|error)", text), text
    q.quit()
    host.sh("ip link del br0")


def check_vhost(host, q):
    """The kernel moves the packets: by vhost's worker, and its eventfds are KVM's."""
    pid = host.sh(f"cat $G/{q.name}/pid").strip()
    opened = host.sh(f"ls -l /proc/{pid}/fd")
    assert "/dev/vhost-net" in opened and "/dev/vhost-vsock" in opened
    assert len(re.findall(rf"vhost-{pid}", host.sh("ps; true"))) >= 2


def memory_of(q):
    return int(re.findall(r"^MEMORY (\d+)$", q.console(), re.M)[-1])


def check_memory(q):
    before = memory_of(q)
    q("object-add", **{"qom-type": "memory-backend-ram", "id": "m1", "size": 128 << 20})
    q("device_add", driver="pc-dimm", id="d1", memdev="m1")
    wait_for_memory(q, lambda kb: kb >= before + (120 << 10))
    assert q("query-memory-devices")[0]["data"]["hotplugged"]


def wait_for_memory(q, condition):
    limit = time.monotonic() + 60 * q.m.scale
    while not condition(memory_of(q)):
        assert time.monotonic() < limit, q.console()
        time.sleep(0.5)


# ---- firmware and image formats --------------------------------------------------------------------------

def efi_files(directory):
    """A FAT disk whose startup.nsh starts Linux, in three formats; Debian's firmware."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = directory / "efi.raw"
    (directory / "startup.nsh").write_text("fs0:\\vmlinuz.efi console=ttyS0 quiet cryptomgr.notests"
                                           " initrd=\\initrd.img guest.run=\"echo BOOTED\"\r\n")
    guest = BUILD / "guest"
    for command in (["truncate", "-s", "48M", raw], ["mformat", "-i", raw, "-F", "::"],
                    ["mcopy", "-i", raw, guest / "vmlinuz", "::vmlinuz.efi"],
                    ["mcopy", "-i", raw, guest / "initrd.img", "::initrd.img"],
                    ["mcopy", "-i", raw, directory / "startup.nsh", "::startup.nsh"],
                    ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, directory / "efi.vmdk"],
                    ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, directory / "efi.qcow2"]):
        subprocess.run(command, check=True)
    files = {f"test/efi.{kind}": directory / f"efi.{kind}" for kind in (["raw", "vmdk", "qcow2"] if FULL else ["vmdk"])}
    for part in ("CODE", "VARS"):
        files[f"usr/share/OVMF/OVMF_{part}_4M.fd"] = FIRMWARE / f"OVMF_{part}_4M.fd"
    return files


@pytest.mark.parametrize("kind", ["vmdk"] + ["raw", "qcow2"] * FULL)
def test_ovmf(host, kind):
    """UEFI from flash, its shell, the kernel's EFI stub, a shell; what the firmware wrote to its flash stays."""
    host.sh("cp /usr/share/OVMF/OVMF_VARS_4M.fd /run/vars.fd; md5sum </run/vars.fd >/run/vars.before")
    start = time.monotonic()
    q = host.qemu("-m 256 -drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"
                  " -drive if=pflash,unit=1,format=raw,file=/run/vars.fd"
                  f" -drive file=/test/efi.{kind},format={kind},if=virtio")
    q.wait("BOOTED", 240)
    print(f"OVMF, {kind}: {time.monotonic() - start:.0f} s to the kernel's end")
    q.wait_end()
    assert "wrote" in host.sh("md5sum </run/vars.fd | cmp -s - /run/vars.before || echo wrote")
