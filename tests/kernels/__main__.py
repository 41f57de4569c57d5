"""The BPF programs on the kernels that people have: `python -m tests.kernels [--all]`, as root.

Debian's kernels run in QEMU, without a network. This machine's own is tried without a virtual machine.

    verifier   every program on every kernel, with and without CAP_PERFMON: does the kernel load it, and how
               far from its limit?
    work       real mail servers and clients with `watch` beside them, and its records against what clients
               and servers say: on Debian 12's kernel, with --all on all of them

With --all, bcc compiles inside the virtual machine. Without, programs that it compiled here are loaded there.
When everything passes on all kernels, --all writes its tables into docs/kernels.md.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from scripts.native import ROOT
from tests.kernels import debian, report, verifier
from tests.kernels.debian import Kernel, KernelUnavailableError
from tests.kernels.machine import MachineError
from tests.kernels.tools import ensure_tools
from tests.kernels.verifier import Verdict
from tests.kernels.work import Outcome, work
from tests.lab.packages import LabUnavailableError, ensure

PAGE: Final = ROOT / "docs" / "kernels.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="the work on all kernels, with bcc itself")
    parser.add_argument("--verifier-only", action="store_true", help="only what each verifier says")
    wanted = parser.parse_args()
    if os.geteuid() != 0:
        print("make kernels: needs root, as whoever loads BPF programs does", file=sys.stderr)
        return 2
    try:
        ensure()
        ensure_tools()
        kernels, faults = _kernels()
        with tempfile.TemporaryDirectory(prefix="smtp-horizon-kernels-") as folder:
            verdicts, outcomes = _run(
                kernels, Path(folder), all_work=wanted.all, no_work=wanted.verifier_only
            )
    except (LabUnavailableError, MachineError, FileNotFoundError) as error:
        print(f"make kernels: {error}", file=sys.stderr)
        return 1
    faults += [fault for verdict in verdicts for fault in verdict.faults]
    faults += verifier.not_attached(verdicts)
    faults += [fault for outcome in outcomes for fault in outcome.faults]
    tables = [report.verdict_table(verdicts)]
    if outcomes:
        tables.append(report.work_table(outcomes))
    print("", *tables, sep="\n\n")
    for fault in faults:
        print(fault, file=sys.stderr)
    if wanted.all and len(kernels) < len(debian.RELEASES):
        print(f"{PAGE.name} is left as it is: not all kernels were tried")
    elif wanted.all and not faults:
        about = (
            "Debian's packages were " + ", ".join(f"{one.release} ({one.version})" for one in kernels) + "."
        )
        report.write(PAGE, tables, about)
    return int(bool(faults))


def _kernels() -> tuple[list[Kernel], list[str]]:
    """Those that are to be had, and what it is a fault not to have."""
    kernels, faults = [], []
    for release in debian.RELEASES:
        try:
            kernels.append(debian.fetched(release))
        except KernelUnavailableError as reason:
            print(f"skipped: Linux {release.series} of {release.suite}: {reason}")
            if release.is_required:
                faults.append(f"Debian's {release.series} is what this is about, and can't be had: {reason}")
    return kernels, faults


def _run(
    kernels: Sequence[Kernel], folder: Path, *, all_work: bool, no_work: bool
) -> tuple[list[Verdict], list[Outcome]]:
    """Raises MachineError."""
    began = monotonic()
    recorded = verifier.record(folder, kernels)
    _say(began, "compiled here, with bcc")
    verdicts = verifier.verdicts(kernels, recorded, folder)
    _say(began, f"{len(verdicts)} verdicts")
    outcomes = []
    required = {release.suite for release in debian.RELEASES if release.is_required}
    for kernel in kernels:
        if not no_work and (all_work or kernel.folder.name in required):
            outcomes.append(work(kernel, None if all_work else recorded, folder))
            _say(began, f"the work on {kernel.release}: {outcomes[-1].seconds:.0f} s")
    return verdicts, outcomes


def _say(began: float, what: str) -> None:
    print(f"{monotonic() - began:4.0f} s  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
