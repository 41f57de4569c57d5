"""Measures, and prints what was measured: `python -m tests.bench [read] [watch]`; both when none is named.

    read.py    whole processes on a capture file, beside tshark, pyshark, and a bare loop of libpcap's binding
    watch.py   the live watch in network namespaces; needs root

Ratios hold for the run that they stand in: only figures of one run on one machine are comparable.
"""

import os
import sys

from rich.console import Console

from tests.bench import machine, read, watch
from tests.lab.packages import LabUnavailableError

# A report that is piped into a file has no terminal to fit in.
_FILE_WIDTH = 220


def main() -> int:
    chosen = sys.argv[1:] or ["read", "watch"]
    if unknown := set(chosen) - {"read", "watch"}:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are read and watch", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    say_list(console, "Machine", machine.describe())
    try:
        if "read" in chosen:
            say_list(console, "Commands of read", read.commands(), code=True)
            read.show(console, read.measure())
        return measure_watch(console) if "watch" in chosen else 0
    except (LabUnavailableError, OSError, RuntimeError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1


def measure_watch(console: Console) -> int:
    """1 where a record is missing or wrong that must not be: such a figure says nothing."""
    if os.geteuid() != 0:
        print("watch needs root, for network namespaces and to capture: left out", file=sys.stderr)
        return 0
    say_list(console, "Commands of watch", watch.commands(), code=True)
    is_whole = True
    for workload in (watch.STEADY, watch.FLAT_OUT, watch.STARTTLS):
        runs = watch.measure(workload, workload.sessions)
        watch.show(console, workload, workload.sessions, runs)
        is_whole &= not workload.must_be_whole or watch.is_whole(runs, workload.sessions)
    if not is_whole:
        print("records are missing or wrong, or packets were dropped: see the tables", file=sys.stderr)
    return 0 if is_whole else 1


def say_list(console: Console, title: str, lines: list[str], *, code: bool = False) -> None:
    console.print(f"\n{title}\n", highlight=False)
    for line in lines:
        console.print(f"- `{line}`" if code else f"- {line}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
