# SPDX-License-Identifier: BSD-2-Clause
"""What exits cost under Socle and under Linux's KVM: the same guest, QEMU, kernel and initrd on the same
emulated machine, which counts instructions (one is one TSC tick there). The guest is tests/guests/cost.c.
That is QEMU's AMD processor. Beside it, what the same costs under Socle on Bochs' Intel processor, where
the TSC counts instructions too; Linux's KVM is not run there.

usage: bench.py [--json] [--no-vmx]    prints a table, or a JSON array of {measure, socle, kvm, ratio},
where Intel's measures begin with "VMX: " and have no kvm; --no-vmx leaves them out. The logs and
result.json are left in build/bench/. Fails where a side does not give the first two measures, or its
TSC does not count instructions.
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
LOOP_LENGTH = 2001  # cost.c's; what a loop of so many instructions costs
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
QEMU = {"name": "svm-1", "icount": True, "timeout": 300}
MACHINES = {
    "socle": QEMU,
    "kvm": QEMU | {"boot": "linux"},
    "vmx": {"name": "vmx-haswell", "initrd": BUILD / "dom0/initrd.img", "timeout": 60},
}


class BenchError(Exception):
    """A side did not give its measures; the text says why."""


def run_machine(side):
    """A second time where dom0 fails on Bochs: 2.7 delivers a virtual interrupt in spite of IF = 0 when a
    physical one comes just then."""
    attempts = 2 if side == "vmx" else 1
    for attempt in range(1, attempts + 1):
        try:
            return run_in_dom0(COMMAND, cmdline=CMDLINE, directory=OUT / side,
                               files={"bench/cost.elf": BUILD / "tests/guests/cost.elf"}, **MACHINES[side])
        except MachineError as error:
            if attempt == attempts:
                raise BenchError(f"{side}: {error}") from error
            (OUT / side / "console.log").rename(OUT / f"{side}-failed.log")
            print(f"bench: {side}: once more, see {OUT}/{side}-failed.log", file=sys.stderr)


def run_side(side):
    """The costs by name, of one of MACHINES."""
    result = run_machine(side)
    costs = {name: int(value) for name, value in re.findall(r"^cost (\S+) (\d+)$", result.output, re.M)}
    said = "side kvm" if side == "kvm" else "side socle"
    if said not in result.output or not all(name in costs for name in REQUIRED):
        tail = "\n".join(result.output.splitlines()[-40:])
        raise BenchError(f"{side}: the guest gave no result (exit {result.status}), see {OUT / side}/:\n{tail}")
    if costs.get("loop") != LOOP_LENGTH:
        raise BenchError(f"{side}: {LOOP_LENGTH} instructions took {costs.get('loop')} TSC ticks")
    if "guest cost: ok" not in result.output:
        print(f"bench: {side}: the guest ended early; some measures are missing", file=sys.stderr)
    return costs


def rows_of(costs):
    """Those of Socle and KVM, then those of VMX."""
    rows = []
    for prefix, socle, kvm in (("", costs["socle"], costs["kvm"]), ("VMX: ", costs.get("vmx", {}), {})):
        for name, label in MEASURES.items():
            ours, theirs = socle.get(name), kvm.get(name)
            if ours is None and theirs is None:
                continue
            ratio = round(ours / theirs, 3) if ours is not None and theirs else None
            rows.append({"measure": prefix + label, "socle": ours, "kvm": theirs, "ratio": ratio})
    return rows


def print_table(rows):
    """A line for each measure, with VMX's in a column of their own."""
    vmx = {row["measure"].removeprefix("VMX: "): row["socle"] for row in rows if row["measure"].startswith("VMX: ")}
    svm = {row["measure"]: row for row in rows if not row["measure"].startswith("VMX: ")}
    labels = [label for label in MEASURES.values() if label in svm or label in vmx]
    width = max(map(len, labels))
    print(f"{'instructions':<{width}}  {'Socle':>8}  {'KVM':>8}  {'ratio':>6}" + ("  Socle, VMX" if vmx else ""))
    for label in labels:
        row = svm.get(label, {})
        cells = ["-" if cell is None else f"{cell:,}" for cell in (row.get("socle"), row.get("kvm"), vmx.get(label))]
        ratio = "-" if row.get("ratio") is None else f"{row['ratio']:.2f}"
        print(f"{label:<{width}}  {cells[0]:>8}  {cells[1]:>8}  {ratio:>6}" + (f"  {cells[2]:>10}" if vmx else ""))


def main():
    parser = argparse.ArgumentParser(prog="bench.py", description="Costs of exits, beside Linux's KVM.")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    parser.add_argument("--no-vmx", action="store_true", help="leave Intel's processor in Bochs out")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    names = ["socle", "kvm"] if arguments.no_vmx else ["vmx", "socle", "kvm"]  # the slow one first
    print("bench: an emulated machine with Socle and one with Linux's KVM; " +
          ("half a minute" if arguments.no_vmx else "one with Socle in Bochs: two minutes"), file=sys.stderr)
    with ThreadPoolExecutor(max_workers=2) as pool:
        sides = {side: pool.submit(run_side, side) for side in names}
    failed = [str(f.exception()) for f in sides.values() if isinstance(f.exception(), BenchError)]
    if failed:
        sys.exit("bench: " + "\nbench: ".join(failed))
    rows = rows_of({side: future.result() for side, future in sides.items()})
    (OUT / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
