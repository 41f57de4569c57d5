"""Every flood at its full size, and what it took: `python -m tests.floods [--scale N]`; N times smaller."""

import argparse
import sys
from typing import Final

from rich.console import Console

from tests.bench.figures import megabytes, print_table, whole
from tests.floods.floods import FLOODS
from tests.floods.holds import faults
from tests.floods.reading import read

_FILE_WIDTH: Final = 160


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.floods", description=__doc__)
    parser.add_argument("--scale", type=int, default=1, metavar="N")
    scale: int = parser.parse_args().scale
    rows, status = [], 0
    for flood in FLOODS:
        outcome = read(flood, flood.size // scale)
        found = faults(flood, flood.size // scale, outcome)
        status |= bool(found)
        rows.append(
            [
                flood.name,
                f"{whole(flood.size // scale)} {flood.unit}",
                whole(outcome.packets),
                whole(outcome.records),
                whole(outcome.longest_record_bytes),
                megabytes(outcome.peak_bytes),
                f"{outcome.processor_seconds:.1f}",
                "; ".join(found) or "holds",
            ]
        )
    print_table(
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH),
        "Floods through `smtp-horizon read`, each with ordinary sessions between",
        ["flood", "size", "packets", "its records", "longest, bytes", "resident, most", "seconds", "promise"],
        rows,
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
