"""`smtp-horizon read` on a capture, beside tshark and beside a loop that only fetches the packets.

They take turns, so that whatever else the machine does meets all of them. An empty capture shows what
starting alone costs. Figures are of whole processes, from the start of the interpreter to its exit.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard
from rich.console import Console

from tests.bench.figures import Spread, mebibytes, microseconds, milliseconds, print_table, times, whole
from tests.lab.watch import PROGRAM

CAPTURE: Final = Path(__file__).parents[1] / "captures" / "mid.pcap.zst"
ROUNDS: Final = 5
# draft-ietf-opsawg-pcap section 4: a capture without a packet is a file header alone.
_FILE_HEADER_BYTES: Final = 24

HORIZON: Final = "smtp-horizon"
TSHARK: Final = "tshark"
BARE_LOOP: Final = "bare loop"
COMPRESSED: Final = "mid.pcap.zst"
PLAIN: Final = "mid.pcap"
EMPTY: Final = "empty.pcap"

_FOLDER: Final = Path(__file__).parent
_COMMANDS: Final[dict[str, Callable[[Path], list[str | Path]]]] = {
    HORIZON: lambda file: [PROGRAM, "read", "--format", "jsonl", file],
    TSHARK: lambda file: [
        *("tshark", "-n", "-r", file, "-Y", "smtp", "-T", "fields"),
        *("-e", "smtp.req.command", "-e", "smtp.req.parameter", "-e", "smtp.response.code"),
    ],
    BARE_LOOP: lambda file: [sys.executable, _FOLDER / "bare_loop.py", file],
}
# Who reads which file: libpcap knows no compression.
_CASES: Final = (
    *((reader, file) for file in (PLAIN, COMPRESSED) for reader in (HORIZON, TSHARK)),
    (BARE_LOOP, PLAIN),
    *((reader, EMPTY) for reader in _COMMANDS),
)

Case = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cost:
    processor_seconds: float
    """User and system."""
    peak_bytes: int
    """Resident memory."""


@dataclass(frozen=True, slots=True)
class Readings:
    sessions: int
    packets: int
    costs: dict[Case, list[Cost]]
    """In the order of the rounds."""

    def seconds(self, reader: str, file: str) -> Spread:
        return Spread.of(cost.processor_seconds for cost in self.costs[reader, file])

    def ratio(self, one: Case, other: Case) -> Spread:
        """Processor time, round by round."""
        pairs = zip(self.costs[one], self.costs[other], strict=True)
        return Spread.of(mine.processor_seconds / theirs.processor_seconds for mine, theirs in pairs)


def measure(capture: Path = CAPTURE, rounds: int = ROUNDS) -> Readings:
    """Raises RuntimeError where a reader fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "output"
        plain = zstandard.decompress(capture.read_bytes())
        (folder / COMPRESSED).symlink_to(capture)
        (folder / PLAIN).write_bytes(plain)
        (folder / EMPTY).write_bytes(plain[:_FILE_HEADER_BYTES])
        costs: dict[Case, list[Cost]] = {case: [] for case in _CASES}
        lines: dict[Case, int] = {}
        for _ in range(rounds):
            for reader, file in _CASES:
                costs[reader, file].append(run(_COMMANDS[reader](folder / file), output))
                lines[reader, file] = output.read_bytes().count(b"\n")
        packets = int(subprocess.check_output(_COMMANDS[BARE_LOOP](folder / PLAIN)))
        # Whoever gave up early would look fast.
        if not lines[HORIZON, PLAIN] == lines[HORIZON, COMPRESSED] > 0 < lines[TSHARK, PLAIN]:
            raise RuntimeError(f"some reader saw nothing, or less: {lines}")
        return Readings(lines[HORIZON, PLAIN], packets, costs)


def run(command: list[str | Path], output: Path) -> Cost:
    launcher: list[str | Path] = [sys.executable, "-I", "-S", _FOLDER / "launcher.py", output]
    said = subprocess.run([*launcher, *command], stdout=subprocess.PIPE, text=True, check=True).stdout
    answer = json.loads(said)
    if answer["status"] != 0:
        raise RuntimeError(f"{shlex.join(map(str, command))}: status {answer['status']}")
    return Cost(answer["processor_seconds"], answer["peak_bytes"])


def show(console: Console, readings: Readings) -> None:
    rounds = len(readings.costs[HORIZON, PLAIN])
    print_table(
        console,
        f"read: {readings.sessions} sessions in {readings.packets:,} packets; "
        f"median of {rounds} (least to most)",
        ["reader", "file", "processor ms", "µs a session", "µs a packet", "peak MiB"],
        [_row(readings, *case) for case in _CASES],
    )
    mine = (HORIZON, PLAIN)
    starting = readings.ratio((HORIZON, EMPTY), mine)
    print_table(
        console,
        "Processor time, round by round",
        ["ratio", "median (least to most)"],
        [
            ["smtp-horizon / tshark", readings.ratio(mine, (TSHARK, PLAIN)).text(times)],
            [
                "smtp-horizon / tshark, compressed",
                readings.ratio((HORIZON, COMPRESSED), (TSHARK, COMPRESSED)).text(times),
            ],
            ["smtp-horizon / bare loop", readings.ratio(mine, (BARE_LOOP, PLAIN)).text(times)],
            ["smtp-horizon: starting / all", starting.text(times)],
        ],
    )


def _row(readings: Readings, reader: str, file: str) -> list[str]:
    """What a session and a packet cost is without the start, which a longer capture pays no second time."""
    seconds = readings.seconds(reader, file)
    peak = Spread.of(cost.peak_bytes for cost in readings.costs[reader, file])
    work = seconds.median - readings.seconds(reader, EMPTY).median
    per_session, per_packet = "", ""
    if file != EMPTY:
        per_session, per_packet = whole(work / readings.sessions * 1e6), microseconds(work / readings.packets)
    return [reader, file, seconds.text(milliseconds), per_session, per_packet, mebibytes(peak.median)]


def commands() -> list[str]:
    """As one would type them."""
    return [
        shlex.join(str(part) for part in command)
        for command in (
            [Path(PROGRAM.name), *_COMMANDS[HORIZON](Path("FILE"))[1:]],
            _COMMANDS[TSHARK](Path("FILE")),
            ["python", "tests/bench/bare_loop.py", "FILE"],
        )
    ]
