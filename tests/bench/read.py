"""`smtp-horizon read` on a capture, with both probes, beside tshark, pyshark, and a loop that only fetches.

They take turns, so that whatever else the machine does meets all of them. A capture of one packet shows what
starting alone costs; not an empty one, for which the pyshark probe would start no tshark. Figures are of
whole processes with all that they start, from the start of the interpreter to its exit.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard
from rich.console import Console

from tests.bench.figures import Spread, mebibytes, microseconds, milliseconds, print_table, times, whole
from tests.endurance.multiplier import FILE_HEADER_BYTES, PACKET_HEADER
from tests.lab.watch import PROGRAM

CAPTURE: Final = Path(__file__).parents[1] / "captures" / "mid.pcap.zst"
ROUNDS: Final = 5
# Chosen because pyshark by itself reads them in two seconds; all of the capture would take it half a minute.
PART_PACKETS: Final = 1_500

HORIZON: Final = "smtp-horizon"
HORIZON_PYSHARK: Final = "smtp-horizon, pyshark"
TSHARK: Final = "tshark"
PYSHARK: Final = "pyshark"
BARE_LOOP: Final = "bare loop"
COMPRESSED: Final = "mid.pcap.zst"
PLAIN: Final = "mid.pcap"
PART: Final = "part.pcap"
FIRST: Final = "first.pcap"

_FOLDER: Final = Path(__file__).parent
_COMMANDS: Final[dict[str, Callable[[Path], list[str | Path]]]] = {
    HORIZON: lambda file: [PROGRAM, "read", "--format", "jsonl", file],
    HORIZON_PYSHARK: lambda file: [PROGRAM, "read", "--probe", "pyshark", "--format", "jsonl", file],
    TSHARK: lambda file: [
        *("tshark", "-n", "-r", file, "-Y", "smtp", "-T", "fields"),
        *("-e", "smtp.req.command", "-e", "smtp.req.parameter", "-e", "smtp.response.code"),
    ],
    PYSHARK: lambda file: [sys.executable, _FOLDER / "bare_pyshark.py", file],
    BARE_LOOP: lambda file: [sys.executable, _FOLDER / "bare_loop.py", file],
}
# Who reads which file: libpcap knows no compression, and pyshark is slow.
_CASES: Final = (
    *((reader, file) for file in (PLAIN, COMPRESSED) for reader in (HORIZON, TSHARK)),
    (HORIZON_PYSHARK, PLAIN),
    (PYSHARK, PART),
    (BARE_LOOP, PLAIN),
    *((reader, FIRST) for reader in _COMMANDS),
)

Case = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cost:
    processor_seconds: float
    """User and system."""
    peak_bytes: int
    """Resident memory of the largest process."""


@dataclass(frozen=True, slots=True)
class Readings:
    sessions: int
    packets: dict[str, int]
    """By file."""
    costs: dict[Case, list[Cost]]
    """In the order of the rounds."""

    def seconds(self, reader: str, file: str) -> Spread:
        return Spread.of(cost.processor_seconds for cost in self.costs[reader, file])

    def ratio(self, one: Case, other: Case) -> Spread:
        """Processor time, round by round."""
        pairs = zip(self.costs[one], self.costs[other], strict=True)
        return Spread.of(mine.processor_seconds / theirs.processor_seconds for mine, theirs in pairs)

    def per_packet(self, reader: str, file: str) -> Spread:
        """Seconds, without the start, which a longer capture pays no second time."""
        pairs = zip(self.costs[reader, file], self.costs[reader, FIRST], strict=True)
        # What the first packet takes is with the start.
        packets = self.packets[file] - 1
        return Spread.of((run.processor_seconds - start.processor_seconds) / packets for run, start in pairs)


def measure(capture: Path = CAPTURE, rounds: int = ROUNDS) -> Readings:
    """Raises RuntimeError where a reader fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "output"
        plain = zstandard.decompress(capture.read_bytes())
        (folder / COMPRESSED).symlink_to(capture)
        (folder / PLAIN).write_bytes(plain)
        ends = list(_ends_of_packets(plain))
        (folder / PART).write_bytes(plain[: ends[:PART_PACKETS][-1]])
        (folder / FIRST).write_bytes(plain[: ends[0]])
        packets = {PLAIN: len(ends), COMPRESSED: len(ends), PART: min(len(ends), PART_PACKETS), FIRST: 1}
        costs: dict[Case, list[Cost]] = {case: [] for case in _CASES}
        said: dict[Case, bytes] = {}
        for _ in range(rounds):
            for reader, file in _CASES:
                costs[reader, file].append(run(_COMMANDS[reader](folder / file), output))
                said[reader, file] = output.read_bytes()
        return Readings(sessions_in(said, packets), packets, costs)


def sessions_in(said: dict[Case, bytes], packets: dict[str, int]) -> int:
    """How many there are in the capture. Whoever gave up early would look fast: raises RuntimeError."""
    lines = {case: output.count(b"\n") for case, output in said.items()}
    sessions = {lines[HORIZON, PLAIN], lines[HORIZON, COMPRESSED], lines[HORIZON_PYSHARK, PLAIN]}
    if len(sessions) != 1 or not min(sessions) or not lines[TSHARK, PLAIN]:
        raise RuntimeError(f"some reader saw nothing, or less: {lines}")
    for reader, file in ((PYSHARK, PART), (BARE_LOOP, PLAIN)):
        if (counted := int(said[reader, file])) != packets[file]:
            raise RuntimeError(f"{reader} saw {counted} packets of {packets[file]}")
    return sessions.pop()


def _ends_of_packets(plain: bytes) -> Iterator[int]:
    """Where in the file each packet ends."""
    place = FILE_HEADER_BYTES
    while place < len(plain):
        place += PACKET_HEADER.size + PACKET_HEADER.unpack_from(plain, place)[2]
        yield place


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
        f"read: {readings.sessions} sessions in {readings.packets[PLAIN]:,} packets; "
        f"median of {rounds} (least to most)",
        ["reader", "file", "processor ms", "µs a session", "µs a packet", "peak MiB"],
        [_row(readings, *case) for case in _CASES],
    )
    mine = (HORIZON, PLAIN)
    starting = readings.ratio((HORIZON, FIRST), mine)
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
            [
                "smtp-horizon, pyshark / smtp-horizon",
                readings.ratio((HORIZON_PYSHARK, PLAIN), mine).text(times),
            ],
            [
                "smtp-horizon, pyshark / tshark",
                readings.ratio((HORIZON_PYSHARK, PLAIN), (TSHARK, PLAIN)).text(times),
            ],
            ["pyshark / smtp-horizon, pyshark; a packet", _of_pyshark(readings).text(times)],
            ["smtp-horizon / bare loop", readings.ratio(mine, (BARE_LOOP, PLAIN)).text(times)],
            ["smtp-horizon: starting / all", starting.text(times)],
        ],
    )


def _of_pyshark(readings: Readings) -> Spread:
    """What a packet costs it, without its start, by what one costs our probe: they read different files."""
    ours = readings.per_packet(HORIZON_PYSHARK, PLAIN).median
    theirs = readings.per_packet(PYSHARK, PART)
    return Spread(theirs.median / ours, theirs.least / ours, theirs.most / ours)


def _row(readings: Readings, reader: str, file: str) -> list[str]:
    peak = Spread.of(cost.peak_bytes for cost in readings.costs[reader, file])
    per_session, per_packet = "", ""
    if file != FIRST:
        seconds = readings.per_packet(reader, file).median
        per_packet = microseconds(seconds)
        if file != PART:
            per_session = whole(seconds * readings.packets[file] / readings.sessions * 1e6)
    return [
        reader,
        file,
        readings.seconds(reader, file).text(milliseconds),
        per_session,
        per_packet,
        mebibytes(peak.median),
    ]


def commands() -> list[str]:
    """As one would type them."""
    return [
        shlex.join(str(part) for part in command)
        for command in (
            [Path(PROGRAM.name), *_COMMANDS[HORIZON](Path("FILE"))[1:]],
            [Path(PROGRAM.name), *_COMMANDS[HORIZON_PYSHARK](Path("FILE"))[1:]],
            _COMMANDS[TSHARK](Path("FILE")),
            ["python", "tests/bench/bare_pyshark.py", "FILE"],
            ["python", "tests/bench/bare_loop.py", "FILE"],
        )
    ]
