"""Real frames, other programs' opinion of them, and a writer of capture files."""

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pcapy
import pytest

from probes.segment import Segment, flow_of

CAPTURES = Path(__file__).parents[1] / "captures"
PORTS = frozenset((25, 465, 587))


class Frame(NamedTuple):
    at_ns: int
    link_type: int
    frame: bytes
    wire_length: int


def _read_frames(path: Path) -> list[Frame]:
    pcap = pcapy.open_offline(str(path))
    frames: list[Frame] = []

    def receive(header, data):
        seconds, microseconds = header.getts()
        frames.append(Frame(seconds * 10**9 + microseconds * 1000, pcap.datalink(), data, header.getlen()))

    while pcap.dispatch(1000, receive):
        pass
    return frames


def _write_pcap(
    path: Path,
    frames: Iterable[Frame],
    *,
    order: str = "<",
    nanoseconds: bool = False,
    snap_length: int = 262_144,
) -> Path:
    """A pcap file of the frames, which must share a link type."""
    frames = list(frames)
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    with path.open("wb") as file:
        file.write(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap_length, frames[0].link_type))
        for at_ns, _, frame, wire_length in frames:
            seconds, rest_ns = divmod(at_ns, 10**9)
            fraction = rest_ns if nanoseconds else rest_ns // 1000
            file.write(struct.pack(order + "IIII", seconds, fraction, len(frame), wire_length) + frame)
    return path


def _tshark_segments(path: Path) -> list[Segment]:
    """What tshark says of the watched segments: the oracle of these tests. Times to the microsecond."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    fields = [
        "frame.time_epoch",
        "ip.src",
        "ipv6.src",
        "tcp.srcport",
        "ip.dst",
        "ipv6.dst",
        "tcp.dstport",
        "tcp.flags",
    ]
    fields += ["tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.payload"]
    command = ["tshark", "-n", "-r", str(path), "-Y", f"tcp.port in {{{','.join(map(str, sorted(PORTS)))}}}"]
    command += ["-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields", "-E", "separator=|"]
    for name in fields:
        command += ["-e", name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    segments = []
    for line in output.splitlines():
        (
            time,
            ip4_from,
            ip6_from,
            port_from,
            ip4_to,
            ip6_to,
            port_to,
            flags,
            sequence,
            ack,
            length,
            payload,
        ) = line.split("|")
        seconds, fraction = time.split(".")
        segments.append(
            Segment(
                int(seconds) * 10**9 + int(fraction[:6]) * 1000,
                flow_of(
                    ip_address(ip4_from or ip6_from).packed,
                    int(port_from),
                    ip_address(ip4_to or ip6_to).packed,
                    int(port_to),
                ),
                int(flags, 16) & 0xFF,
                int(sequence),
                int(ack),
                int(length),
                bytes.fromhex(payload),
            )
        )
    return segments


@pytest.fixture
def capture() -> Callable[[str], Path]:
    """The path of a shipped capture."""
    return lambda name: CAPTURES / f"{name}.pcap"


@pytest.fixture
def frames_of() -> Callable[[str], list[Frame]]:
    return lambda name: _read_frames(CAPTURES / f"{name}.pcap")


@pytest.fixture
def write_pcap() -> Callable[..., Path]:
    return _write_pcap


@pytest.fixture
def tshark_segments() -> Callable[[Path], list[Segment]]:
    return _tshark_segments


@pytest.fixture
def make_frame() -> Callable[[int, int, bytes, int], Frame]:
    return Frame


@pytest.fixture
def ports() -> frozenset[int]:
    return PORTS


@pytest.fixture
def run_tool() -> Callable[[Sequence[str | Path]], bytes]:
    """Runs a program, or skips the test where it is missing; gives its standard output."""

    def run(command: Sequence[str | Path]) -> bytes:
        if shutil.which(str(command[0])) is None:
            pytest.skip(f"{command[0]} is not installed")
        return subprocess.run(command, check=True, capture_output=True).stdout

    return run
