"""The probe and tcpdump side by side, and tshark's opinion of what tcpdump saw, as segments too."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from probes.probe import Probe
from probes.segment import Segment, flow_of
from tests.lab.network import Namespace

PORT: Final = 2525
OTHER_PORT: Final = 2526

FIELDS: Final = (
    *("frame.time_epoch", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport"),
    *("tcp.flags", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.payload"),
)


OpenProbe = Callable[[Sequence[str], frozenset[int]], Probe]


class Recording:
    """What the probe saw, from its start to the end of `recorded`."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.segments: list[Segment] = []
        self.counts = probe.counts

    def await_up(self, expected: dict[str, bool], timeout_seconds: float = 5) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self.probe.interfaces_up() != expected:
            assert time.monotonic() < deadline, self.probe.interfaces_up()
            time.sleep(0.02)


@contextmanager
def recorded(
    namespace: Namespace, interfaces: Sequence[str], open_probe: OpenProbe, *, hold: bool = False
) -> Iterator[Recording]:
    """Runs a probe in a namespace, in a thread of its own, until all is read that was captured by the end of
    the block. With `hold` it reads nothing before that."""
    ready, stop = threading.Event(), threading.Event()
    recordings: list[Recording] = []

    def run() -> None:
        namespace.enter_thread()
        probe = open_probe(interfaces, frozenset({PORT}))
        try:
            recordings.append(Recording(probe))
            ready.set()
            if hold:
                stop.wait()
            is_stopped = False
            for batch in probe.batches():
                recordings[0].segments.extend(batch)
                if stop.is_set() and not is_stopped:
                    is_stopped = True
                    probe.stop()
        finally:
            probe.close()

    with namespace.threads(1) as threads:
        running = threads.submit(run)
        while not ready.wait(0.02):
            if running.done():
                running.result()
        try:
            yield recordings[0]
        finally:
            stop.set()
            running.result(timeout=20)


@contextmanager
def dumped(namespace: Namespace, interface: str, path: Path) -> Iterator[Path]:
    """Runs tcpdump in a namespace."""
    arguments = [
        "tcpdump",
        "-i",
        interface,
        "-U",
        "--immediate-mode",
        "-B",
        "65536",
        "-s",
        "0",
        "-w",
        str(path),
    ]
    process = subprocess.Popen(
        namespace.command([*arguments, "-Z", "root"]), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    with process, process.stderr:
        while b"listening on" not in (line := process.stderr.readline()):
            assert line, "tcpdump ended"
        try:
            yield path
            time.sleep(0.2)  # it says not when it has written the last packet
        finally:
            process.terminate()
            process.stderr.read()


def by_tshark(path: Path, *, port: int = PORT) -> list[Segment]:
    """The segments of a capture file as tshark decodes them; payloads as tcpdump has them."""
    arguments = ["tshark", "-r", str(path), "-T", "fields", "-E", "occurrence=l"]
    for preference in ("tcp.desegment_tcp_streams:FALSE", "ip.defragment:TRUE", "ipv6.defragment:TRUE"):
        arguments += ["-o", preference]
    for field in FIELDS:
        arguments += ["-e", field]
    lines = subprocess.run(
        [*arguments, "-Y", f"tcp.port == {port} and not icmp and not icmpv6"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [_segment(*line.split("\t")) for line in lines]


def count_by_tshark(path: Path, wanted: str) -> int:
    """How many packets of a capture file match a display filter."""
    arguments = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.number", "-Y", wanted]
    return subprocess.run(arguments, capture_output=True, check=True).stdout.count(b"\n")


def _segment(
    at: str,
    source_v4: str,
    destination_v4: str,
    source_v6: str,
    destination_v6: str,
    source_port: str,
    destination_port: str,
    flags: str,
    sequence: str,
    acknowledgement: str,
    length: str,
    payload: str,
) -> Segment:
    seconds, _, fraction = at.partition(".")
    return Segment(
        at_ns=int(seconds) * 1_000_000_000 + int(fraction),
        flow=flow_of(
            ip_address(source_v4 or source_v6).packed,
            int(source_port),
            ip_address(destination_v4 or destination_v6).packed,
            int(destination_port),
        ),
        flags=int(flags, 16) & 0xFF,
        sequence=int(sequence),
        acknowledgement=int(acknowledgement),
        length=int(length),
        payload=bytes.fromhex(payload.replace(":", "")),
    )


def timeless(segments: Iterable[Segment]) -> list[Segment]:
    """Sorted, with no time: the order in which two processors handle two flows is nobody's."""
    return in_order(segment.replace(at_ns=0) for segment in segments)


def in_order(segments: Iterable[Segment]) -> list[Segment]:
    """By time, and where that is the same, by all else."""
    return sorted(
        segments, key=lambda segment: (segment.at_ns, segment.flow, segment.sequence, repr(segment))
    )
