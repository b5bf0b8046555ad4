# SPDX-License-Identifier: BSD-2-Clause
"""usage: flat_kernel.py VMLINUZ STUB KERNEL OUT

The same kernel as a bzImage that is not compressed: Bochs takes a minute to unpack Debian's.
STUB (flat_kernel.asm, assembled) leads to the kernel's image, which starts KERNEL bytes behind it. That must be a
multiple of 2 MiB: loaders that heed the alignment (GRUB, Socle) want 0x200000, QEMU, which loads at 1 MiB, 0x100000.
"""
import lzma
import struct
import sys
from pathlib import Path

SETUP_SECTS, SYSSIZE, PAYLOAD, INIT_SIZE = 0x1f1, 0x1f4, 0x248, 0x260  # Linux: Documentation/x86/boot.rst
PT_LOAD = 1


def load_segments(elf):
    """The kernel as it lies in memory without the zeros at its end, and how much room it takes with them."""
    offset, = struct.unpack_from("<Q", elf, 32)
    count, = struct.unpack_from("<H", elf, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", elf, offset + 56 * i) for i in range(count)]
    loads = [h for h in headers if h[0] == PT_LOAD]
    base = min(h[4] for h in loads)
    size = max(h[4] + h[6] for h in loads) - base
    image = bytearray(size)
    for _, _, start, _, address, length, _, _ in loads:
        image[address - base:address - base + length] = elf[start:start + length]
    return image.rstrip(b"\0"), size


def main(vmlinuz, stub, behind, out):
    kernel = int(behind, 0)
    header = bytearray(Path(vmlinuz).read_bytes())
    setup = (header[SETUP_SECTS] + 1) * 512
    start, length = struct.unpack_from("<II", header, PAYLOAD)
    image, size = load_segments(lzma.LZMADecompressor().decompress(header[setup + start:setup + start + length]))
    body = Path(stub).read_bytes().ljust(kernel, b"\0") + image
    body += bytes(-len(body) % 16)
    struct.pack_into("<I", header, SYSSIZE, len(body) // 16)
    struct.pack_into("<II", header, PAYLOAD, 0, 0)
    struct.pack_into("<I", header, INIT_SIZE, kernel + size)
    Path(out).write_bytes(header[:setup] + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
