"""libpcap's opinion of a capture file."""

from pathlib import Path
from typing import Any

import pcapy

from probes.frames import FrameDecoder
from probes.probe import PacketCounts
from probes.segment import Segment
from tests.segments import PORTS


def by_libpcap(path: Path) -> tuple[list[Segment], bool] | None:
    """The segments of a file, without their times, and whether libpcap found nothing wrong; None where it
    does not even begin."""
    decoder = FrameDecoder(PORTS, PacketCounts())
    segments = []
    try:
        opened = pcapy.open_offline(str(path))
    except pcapy.PcapError:
        return None

    def receive(header: Any, frame: bytes) -> None:
        segment = decoder.decode(0, opened.datalink(), frame, header.getlen())
        if segment is not None:
            segments.append(segment)

    try:
        while opened.dispatch(100, receive):
            pass
    except pcapy.PcapError:
        return segments, False
    return segments, True
