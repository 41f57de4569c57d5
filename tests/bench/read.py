"""`smtp-horizon read` on a capture, with both probes, beside other readers of captures and bare loops.

They take turns, so that whatever else the machine does meets all of them. Ten copies of the capture, one
after the other, are what the goals are measured on; twenty show whether memory grows. A capture of one packet
shows what starting alone costs; not an empty one, for which the pyshark probe would start no tshark. Figures
are of whole processes with all that they start, from the start of the interpreter to its exit.
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

from tests.bench.copies import write_copies
from tests.bench.figures import (
    Spread,
    mebibytes,
    microseconds,
    milliseconds,
    print_table,
    significant,
    whole,
)
from tests.bench.goals import Goal
from tests.bench.scale import Scale
from tests.endurance.multiplier import FILE_HEADER_BYTES, PACKET_HEADER, packets_in
from tests.lab.watch import PROGRAM

HORIZON: Final = "smtp-horizon"
HORIZON_PYSHARK: Final = "smtp-horizon, pyshark"
TSHARK: Final = "tshark"
PYSHARK: Final = "pyshark"
DPKT: Final = "dpkt loop"
NDPI: Final = "ndpiReader"
TCPDUMP: Final = "tcpdump"
BARE_LOOP: Final = "bare loop"
COMPRESSED: Final = "mid.pcap.zst"
PLAIN: Final = "mid.pcap"
LONG: Final = "copies.pcap"
LONGEST: Final = "twice-the-copies.pcap"
FIRST: Final = "first.pcap"

# Chosen because an allocator's own habits move a peak by some percent; what keeps something of each session
# would grow by more.
FLAT: Final = 1.1

_FOLDER: Final = Path(__file__).parent
_COMMANDS: Final[dict[str, Callable[[Path], list[str | Path]]]] = {
    HORIZON: lambda file: [PROGRAM, "read", "--format", "jsonl", file],
    HORIZON_PYSHARK: lambda file: [PROGRAM, "read", "--probe", "pyshark", "--format", "jsonl", file],
    TSHARK: lambda file: [
        *("tshark", "-n", "-r", file, "-Y", "smtp", "-T", "fields"),
        *("-e", "smtp.req.command", "-e", "smtp.req.parameter", "-e", "smtp.response.code"),
    ],
    PYSHARK: lambda file: [sys.executable, _FOLDER / "bare_pyshark.py", file],
    DPKT: lambda file: [sys.executable, _FOLDER / "bare_dpkt.py", file],
    NDPI: lambda file: ["ndpiReader", "-q", "-i", file],
    # -Z: else root's tcpdump gives what it writes, the machine's /dev/null, to the user that it becomes.
    TCPDUMP: lambda file: ["tcpdump", "-Z", "root", "-r", file, "-w", "/dev/null"],
    BARE_LOOP: lambda file: [sys.executable, _FOLDER / "bare_loop.py", file],
}
# Who reads which file: libpcap knows no compression, and pyshark is slow.
_CASES: Final = (
    *((reader, LONG) for reader in (HORIZON, TSHARK, DPKT, NDPI, TCPDUMP, BARE_LOOP)),
    *((reader, file) for file in (PLAIN, COMPRESSED) for reader in (HORIZON, TSHARK)),
    (HORIZON_PYSHARK, PLAIN),
    (PYSHARK, PLAIN),
    (HORIZON, LONGEST),
    *((reader, FIRST) for reader in _COMMANDS),
)
_LONG_CASES: Final = frozenset({(PYSHARK, PLAIN), (HORIZON, LONGEST)})
_COUNTED_LINES: Final = (
    *((HORIZON, file) for file in (PLAIN, COMPRESSED, LONG, LONGEST)),
    (HORIZON_PYSHARK, PLAIN),
    *((TSHARK, file) for file in (PLAIN, COMPRESSED, LONG)),
)
# Each ratio, and how much of the other the first may take.
_RATIOS: Final = (
    ("smtp-horizon / tshark, on the copies", (HORIZON, LONG), (TSHARK, LONG), 1 / 10),
    ("smtp-horizon / dpkt loop, on the copies", (HORIZON, LONG), (DPKT, LONG), 1 / 3),
    ("smtp-horizon / ndpiReader, on the copies", (HORIZON, LONG), (NDPI, LONG), 3.0),
    ("smtp-horizon / pyshark", (HORIZON, PLAIN), (PYSHARK, PLAIN), 1 / 500),
    ("smtp-horizon / tcpdump, on the copies", (HORIZON, LONG), (TCPDUMP, LONG), None),
    ("smtp-horizon / bare loop, on the copies", (HORIZON, LONG), (BARE_LOOP, LONG), None),
    ("smtp-horizon / tshark", (HORIZON, PLAIN), (TSHARK, PLAIN), None),
    ("smtp-horizon / tshark, compressed", (HORIZON, COMPRESSED), (TSHARK, COMPRESSED), None),
    ("smtp-horizon, pyshark / smtp-horizon", (HORIZON_PYSHARK, PLAIN), (HORIZON, PLAIN), None),
    ("smtp-horizon, pyshark / tshark", (HORIZON_PYSHARK, PLAIN), (TSHARK, PLAIN), None),
    ("pyshark / smtp-horizon, pyshark", (PYSHARK, PLAIN), (HORIZON_PYSHARK, PLAIN), None),
    ("smtp-horizon: starting / all", (HORIZON, FIRST), (HORIZON, PLAIN), None),
    ("smtp-horizon: starting / all, on the copies", (HORIZON, FIRST), (HORIZON, LONG), None),
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
    sessions: dict[str, int]
    packets: dict[str, int]
    """Both by file."""
    costs: dict[Case, list[Cost]]
    """In the order of the rounds; what takes long has fewer of them, the first."""

    def seconds(self, reader: str, file: str) -> Spread:
        return Spread.of(cost.processor_seconds for cost in self.costs[reader, file])

    def peak(self, reader: str, file: str) -> Spread:
        return Spread.of(cost.peak_bytes for cost in self.costs[reader, file])

    def ratio(self, one: Case, other: Case) -> Spread:
        """Processor time, round by round."""
        ones, others = ([cost.processor_seconds for cost in self.costs[case]] for case in (one, other))
        return Spread.of_ratios(ones, others)

    def growth(self, one: Case, other: Case) -> Spread:
        """Memory, round by round."""
        ones, others = ([cost.peak_bytes for cost in self.costs[case]] for case in (one, other))
        return Spread.of_ratios(ones, others)

    def per_packet(self, reader: str, file: str) -> Spread:
        """Seconds, without the start, which a longer capture pays no second time."""
        pairs = zip(self.costs[reader, file], self.costs[reader, FIRST], strict=False)
        # What the first packet takes is with the start.
        packets = self.packets[file] - 1
        return Spread.of((run.processor_seconds - start.processor_seconds) / packets for run, start in pairs)


def measure(scale: Scale) -> Readings:
    """Raises RuntimeError where a reader fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "output"
        packets = make_files(folder, scale.capture, scale.copies)
        costs: dict[Case, list[Cost]] = {case: [] for case in _CASES}
        said: dict[Case, bytes] = {}
        for number in range(scale.read_rounds):
            for reader, file in _CASES:
                if (reader, file) in _LONG_CASES and number >= scale.long_read_rounds:
                    continue
                costs[reader, file].append(run(_COMMANDS[reader](folder / file), output))
                said[reader, file] = output.read_bytes()
        return Readings(sessions_in(said, packets), packets, costs)


def make_files(folder: Path, capture: Path, copies: int) -> dict[str, int]:
    """Returns how many packets are in each."""
    plain = compressed = capture.read_bytes()
    if capture.suffix == ".zst":
        plain = zstandard.decompress(compressed)
    else:
        compressed = zstandard.compress(plain)
    (folder / COMPRESSED).write_bytes(compressed)
    (folder / PLAIN).write_bytes(plain)
    write_copies(plain, copies, folder / LONG)
    write_copies(plain, 2 * copies, folder / LONGEST)
    first_length = PACKET_HEADER.unpack_from(plain, FILE_HEADER_BYTES)[2]
    (folder / FIRST).write_bytes(plain[: FILE_HEADER_BYTES + PACKET_HEADER.size + first_length])
    packets = sum(1 for _ in packets_in(plain))
    return {
        PLAIN: packets,
        COMPRESSED: packets,
        LONG: copies * packets,
        LONGEST: 2 * copies * packets,
        FIRST: 1,
    }


def sessions_in(said: dict[Case, bytes], packets: dict[str, int]) -> dict[str, int]:
    """How many there are in each file. Whoever gave up early would look fast: raises RuntimeError."""
    lines = {case: output.count(b"\n") for case, output in said.items()}
    for reader, file in _COUNTED_LINES:
        # Copies hold as many for each packet.
        in_one = lines[TSHARK if reader == TSHARK else HORIZON, PLAIN]
        if not in_one or lines[reader, file] * packets[PLAIN] != in_one * packets[file]:
            raise RuntimeError(f"{reader} says {lines[reader, file]} lines of {file}, and {in_one} of one")
    for reader, file in ((PYSHARK, PLAIN), (DPKT, LONG), (BARE_LOOP, LONG)):
        if (counted := int(said[reader, file])) != packets[file]:
            raise RuntimeError(f"{reader} saw {counted} packets of {packets[file]}")
    sessions = lines[HORIZON, PLAIN]
    return {file: sessions * count // packets[PLAIN] for file, count in packets.items() if file != FIRST}


def run(command: list[str | Path], output: Path) -> Cost:
    launcher: list[str | Path] = [sys.executable, "-I", "-S", _FOLDER / "launcher.py", output]
    said = subprocess.run([*launcher, *command], stdout=subprocess.PIPE, text=True, check=True).stdout
    answer = json.loads(said)
    if answer["status"] != 0:
        raise RuntimeError(f"{shlex.join(map(str, command))}: status {answer['status']}")
    return Cost(answer["processor_seconds"], answer["peak_bytes"])


def show(console: Console, readings: Readings) -> None:
    print_table(
        console,
        f"read: {readings.sessions[PLAIN]:,} sessions in {readings.packets[PLAIN]:,} packets, and copies: "
        f"{readings.sessions[LONG]:,} sessions in {readings.packets[LONG]:,} packets; "
        f"median of {len(readings.costs[HORIZON, PLAIN])} (least to most), "
        f"of {len(readings.costs[PYSHARK, PLAIN])} for pyshark and twice the copies",
        ["reader", "file", "processor ms", "µs a session", "µs a packet", "peak MiB"],
        [_row(readings, *case) for case in _CASES],
    )
    print_table(
        console,
        "Processor time, round by round",
        ["ratio", "median (least to most)"],
        [[name, readings.ratio(one, other).text(significant)] for name, one, other, _ in _RATIOS],
    )


def goals(readings: Readings) -> list[Goal]:
    time_goals = [
        Goal(f"read, processor time: {name}", limit, readings.ratio(one, other))
        for name, one, other, limit in _RATIOS
        if limit is not None
    ]
    memory = readings.growth((HORIZON, LONGEST), (HORIZON, LONG))
    return [*time_goals, Goal("read, peak memory: twice the copies / the copies", FLAT, memory)]


def _row(readings: Readings, reader: str, file: str) -> list[str]:
    per_session, per_packet = "", ""
    if file != FIRST:
        # A short capture may cost less than the start varies.
        seconds = max(0.0, readings.per_packet(reader, file).median)
        per_packet = microseconds(seconds)
        per_session = whole(seconds * readings.packets[file] / readings.sessions[file] * 1e6)
    return [
        reader,
        file,
        readings.seconds(reader, file).text(milliseconds),
        per_session,
        per_packet,
        mebibytes(readings.peak(reader, file).median),
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
            ["python", "tests/bench/bare_dpkt.py", "FILE"],
            _COMMANDS[NDPI](Path("FILE")),
            _COMMANDS[TCPDUMP](Path("FILE")),
            ["python", "tests/bench/bare_loop.py", "FILE"],
        )
    ]
