"""What inputs are made of at first: the traffic of tests/captures."""

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Final

import pcapy

from monitor.side import Side
from probes.segment import SYN, Segment, reverse
from tests.capture_truth import CAPTURES
from tests.segments import PORTS, segments_of

# Those of more than this hold mostly the same again.
_LARGEST_CAPTURE_BYTES: Final = 300_000
_SESSIONS_A_CAPTURE: Final = 6
_FRAMES_A_CAPTURE: Final = 200


@cache
def captured_sessions(max_bytes: int) -> tuple[tuple[int, tuple[tuple[Side, Segment], ...]], ...]:
    """The port and the segments of some sessions of each capture, up to so many bytes of payload each."""
    sessions = []
    for name in _names():
        by_client: dict[bytes, list[tuple[Side, Segment]]] = {}
        for segment in segments_of(name):
            from_client = segment.destination_port in PORTS
            client = segment.flow if from_client else reverse(segment.flow)
            if client not in by_client and not segment.flags & SYN:
                continue
            by_client.setdefault(client, []).append((Side.CLIENT if from_client else Side.SERVER, segment))
        for client, segments in islice(by_client.items(), _SESSIONS_A_CAPTURE):
            sessions.append((int.from_bytes(client[-2:], "big"), tuple(_first(segments, max_bytes))))
    return tuple(sessions)


@cache
def captured_frames() -> tuple[tuple[int, tuple[bytes, ...]], ...]:
    """The link type and the first frames of each capture."""
    found = []
    for name in _names():
        opened = pcapy.open_offline(str(CAPTURES / f"{name}.pcap"))
        frames: list[bytes] = []
        while len(frames) < _FRAMES_A_CAPTURE:
            header, data = opened.next()
            if header is None:
                break
            frames.append(data)
        found.append((opened.datalink(), tuple(frames)))
    return tuple(found)


def _names() -> list[str]:
    return sorted(
        path.stem for path in CAPTURES.glob("*.pcap") if path.stat().st_size < _LARGEST_CAPTURE_BYTES
    )


def _first(segments: list[tuple[Side, Segment]], max_bytes: int) -> Iterator[tuple[Side, Segment]]:
    for side, segment in segments:
        max_bytes -= len(segment.payload) + 12
        if max_bytes < 0:
            return
        yield side, segment
