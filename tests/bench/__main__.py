"""Measures, and prints what it measured: `python -m tests.bench [--quick] [NAME...]`; without a name, all.

    read    whole processes on capture files, beside tshark, pyshark, dpkt, ndpiReader and tcpdump
    watch   the live watch: what a session costs, beside the mail server; whether it keeps up
    size    the live watch, with messages of 1 MB and of 1 kB
    crowd   the live watch, with 50,000 sessions open at once
    flood   the live watch, in a flood of 1,000,000 SYNs
    scrape  the live watch, in a flood of scrapes
    tap     a mail server with the TLS tap, and without

All but read need root. `--quick` shows that everything runs: small sizes, and figures that say nothing.
Ratios hold for the run that they stand in: only figures of one run on one machine are comparable.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console

from probes.probe import ProbeError
from tests.bench import flood, goals, machine, many_open, message_size, read, scrape_flood, tap_cost, watch
from tests.bench.goals import Goal
from tests.bench.scale import FULL, QUICK, Scale
from tests.lab.packages import LabUnavailableError

# A report that is piped into a file has no terminal to fit in.
_FILE_WIDTH = 260


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    say_list(console, "Machine", machine.describe())
    names = [name for name in BENCHMARKS if name in asked.names or not asked.names]
    if os.geteuid() != 0 and names != ["read"]:
        print("all but read need root, for network namespaces and to capture: left out", file=sys.stderr)
        names = [name for name in names if name == "read"]
    return run(console, names, QUICK if asked.quick else FULL)


def run(console: Console, names: list[str], scale: Scale) -> int:
    """1 where something could not be measured. What goes wrong in one takes nothing from the others."""
    reached: list[Goal] = []
    failed: list[str] = []
    for name in names:
        started = time.monotonic()
        try:
            reached += BENCHMARKS[name](console, scale)
        except (LabUnavailableError, OSError, ProbeError, RuntimeError) as error:
            failed.append(f"{name}: {error}")
        console.print(f"\n({name}: {time.monotonic() - started:.0f} s)", highlight=False)
    goals.show(console, reached)
    for what in failed:
        print(f"not measured: {what}", file=sys.stderr)
    return 1 if failed else 0


def bench_read(console: Console, scale: Scale) -> list[Goal]:
    say_list(console, "Commands of read", read.commands(), code=True)
    readings = read.measure(scale)
    read.show(console, readings)
    return read.goals(readings)


def bench_watch(console: Console, scale: Scale) -> list[Goal]:
    say_list(console, "Commands of watch", watch.commands(scale), code=True)
    reached = []
    for workload in watch.WORKLOADS:
        measured = watch.measure(workload, scale)
        watch.show(console, measured)
        reached += watch.goals(measured)
    return reached


def bench_size(console: Console, scale: Scale) -> list[Goal]:
    several = [message_size.measure(case, scale) for case in message_size.CASES]
    message_size.show(console, several)
    return [goal for measured in several for goal in message_size.goals(measured)]


def bench_crowd(console: Console, scale: Scale) -> list[Goal]:
    measured = many_open.measure(scale)
    many_open.show(console, measured)
    return many_open.goals(measured)


def bench_flood(console: Console, scale: Scale) -> list[Goal]:
    measured = flood.measure(scale)
    flood.show(console, measured)
    return flood.goals(measured)


def bench_scrape(console: Console, scale: Scale) -> list[Goal]:
    several = [scrape_flood.measure(case, scale.scraped_sessions) for case in scrape_flood.CASES]
    scrape_flood.show(console, several)
    return [goal for measured in several for goal in scrape_flood.goals(measured)]


def bench_tap(console: Console, scale: Scale) -> list[Goal]:
    measured = tap_cost.measure(scale)
    tap_cost.show(console, measured)
    return tap_cost.goals(measured)


BENCHMARKS: Final[dict[str, Callable[[Console, Scale], list[Goal]]]] = {
    "read": bench_read,
    "watch": bench_watch,
    "size": bench_size,
    "crowd": bench_crowd,
    "flood": bench_flood,
    "scrape": bench_scrape,
    "tap": bench_tap,
}


def say_list(console: Console, title: str, lines: list[str], *, code: bool = False) -> None:
    console.print(f"\n{title}\n", highlight=False)
    for line in lines:
        console.print(f"- `{line}`" if code else f"- {line}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
