# SPDX-License-Identifier: BSD-2-Clause
"""What exits cost under Socle and under Linux's KVM: the same guest, QEMU, kernel and initrd on the same
emulated machine, which counts instructions (one is one TSC tick there). The guest is tests/guests/cost.c.

usage: bench.py [--json]    prints a table, or a JSON array of {measure, socle, kvm, ratio}; the logs and
result.json are left in build/bench/. Fails where a side does not give the first two measures.
"""
import argparse
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "emulator"))
from machine import BUILD, MachineError, run_in_dom0  # noqa: E402

OUT = BUILD / "bench"
REQUIRED = ("cpuid", "hypercall")
# The guest's names, in the order of the table.
MEASURES = {
    "cpuid": "CPUID exit",
    "hypercall": "hypercall (unknown number)",
    "tsc-adjust-read": "RDMSR TSC_ADJUST",
    "wbinvd": "WBINVD",
    "cr0-wp": "CR0.WP changed",
    "cr4-pge": "CR4.PGE changed",
    "x2apic-eoi": "EOI, x2APIC",
    "xapic-eoi": "EOI, xAPIC by MMIO",
    "self-ipi": "self-IPI, sent to handler",
    "self-ipi-eoi": "self-IPI, sent to EOI done",
    "tsc-deadline": "TSC deadline already due, set to EOI done",
    "port-in-pic": "IN answered in the kernel (PIC)",
    "port-out-pic": "OUT answered in the kernel (PIC)",
    "port-in-qemu": "IN answered by QEMU (PM timer)",
    "mmio-in-qemu": "MMIO read answered by QEMU (HPET)",
}
# Prints which side it is, then what the guest says.
COMMAND = ("[ -d /sys/module/socle ] && echo side socle || echo side kvm; "
           "timeout 60 qemu-system-x86_64 -machine q35 -accel kvm -cpu host -m 64 -display none -nodefaults "
           "-no-reboot -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel /bench/cost.elf "
           "</dev/null")
CMDLINE = "tsc=reliable nokaslr panic=-1 kvm.lapic_timer_advance_ns=0"


class BenchError(Exception):
    """A side did not give its measures; the text says why."""


def run_side(side):
    """The costs by name, under "socle" or "kvm"."""
    try:
        result = run_in_dom0(COMMAND, timeout=300, name="svm-1", boot="linux" if side == "kvm" else "kernel",
                             cmdline=CMDLINE, files={"bench/cost.elf": BUILD / "tests/guests/cost.elf"},
                             icount=True, directory=OUT / side)
    except MachineError as error:
        raise BenchError(f"{side}: {error}") from error
    costs = {name: int(value) for name, value in re.findall(r"^cost (\S+) (\d+)$", result.output, re.M)}
    if f"side {side}" not in result.output or not all(name in costs for name in REQUIRED):
        tail = "\n".join(result.output.splitlines()[-40:])
        raise BenchError(f"{side}: the guest gave no result (exit {result.status}), see {OUT / side}/:\n{tail}")
    if "guest cost: ok" not in result.output:
        print(f"bench: {side}: the guest ended early; some measures are missing", file=sys.stderr)
    return costs


def print_table(rows):
    width = max(len(row["measure"]) for row in rows)
    print(f"{'instructions':<{width}}  {'Socle':>8}  {'KVM':>8}  {'ratio':>6}")
    for row in rows:
        cells = ["-" if row[side] is None else f"{row[side]:,}" for side in ("socle", "kvm")]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        print(f"{row['measure']:<{width}}  {cells[0]:>8}  {cells[1]:>8}  {ratio:>6}")


def main():
    parser = argparse.ArgumentParser(prog="bench.py", description="Costs of exits, beside Linux's KVM.")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    print("bench: one emulated machine with Socle, one with Linux's KVM; about half a minute", file=sys.stderr)
    with ThreadPoolExecutor() as pool:
        sides = {side: pool.submit(run_side, side) for side in ("socle", "kvm")}
    failed = [str(f.exception()) for f in sides.values() if isinstance(f.exception(), BenchError)]
    if failed:
        sys.exit("bench: " + "\nbench: ".join(failed))
    socle, kvm = (sides[side].result() for side in ("socle", "kvm"))
    rows = []
    for name, label in MEASURES.items():
        if name in socle or name in kvm:
            ours, theirs = socle.get(name), kvm.get(name)
            ratio = round(ours / theirs, 3) if ours is not None and theirs else None
            rows.append({"measure": label, "socle": ours, "kvm": theirs, "ratio": ratio})
    (OUT / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
