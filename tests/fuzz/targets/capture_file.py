"""Capture files, held against libpcap: as many frames of the same contents, and an end where it ends."""

from collections.abc import Iterator
from random import Random
from struct import pack
from typing import Final
from zlib import crc32

from probes.frames import ETHERNET, FrameDecoder
from probes.pcap.classic import PcapReader
from probes.pcap.files import CaptureFilesProbe
from probes.pcap.opening import PCAPNG_MAGIC, CutShort
from probes.pcap.pcapng import PcapngReader
from probes.probe import PacketCounts, ProbeError
from probes.segment import Segment
from tests.fuzz.folders import scratch_file
from tests.fuzz.seeds import captured_frames
from tests.probes.by_libpcap import by_libpcap
from tests.probes.tshark.packets import Frame, pcap, pcapng
from tests.segments import PORTS

MAX_BYTES: Final = 1_500
WORDS: Final = (
    *(pack("<I", number) for number in (1, 2, 3, 5, 6, 12, 16, 20, 28, 32, 0x1A2B3C4D, 0x0A0D0D0A, 2**31)),
    *(pack(">I", number) for number in (1, 6, 12, 28, 32, 0x1A2B3C4D, 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34)),
    *(pack("<HH", code, length) for code, length in ((9, 1), (14, 8), (0, 0), (2, 4))),
)
# Version 2.0 to 2.2, whose lengths libpcap always takes the other way round; here, only where they must be.
_VERY_OLD: Final = frozenset(pack(f"{order}HH", 2, minor) for order in "<>" for minor in range(3))
_PATH: Final = scratch_file("capture_file")


def check(data: bytes) -> object:
    _PATH.write_bytes(data)
    segments, trouble = _read()
    is_whole = not trouble
    if "is no pcap or pcapng" not in trouble and "is empty" not in trouble:
        _check_pieces(data, segments, is_whole=is_whole)
    timeless = [segment.replace(at_ns=0).values() for segment in segments]
    is_pcapng = data.startswith(PCAPNG_MAGIC)
    theirs = by_libpcap(_PATH)
    if not is_pcapng and data[4:8] in _VERY_OLD:
        pass
    elif theirs is None:
        assert is_pcapng or not is_whole
    elif "a packet's time" in trouble:  # to libpcap, each is as good as another
        assert timeless == [one.values() for one in theirs[0][: len(timeless)]]
    elif theirs[1] or not is_pcapng:
        assert ([one.values() for one in theirs[0]], theirs[1]) == (timeless, is_whole)
    else:  # it refuses some that are right
        assert timeless[: len(theirs[0])] == [one.values() for one in theirs[0]]
    return [segment.values() for segment in segments], is_whole


def _read() -> tuple[list[Segment], str]:
    """The segments, and what went wrong, if anything."""
    segments: list[Segment] = []
    try:
        probe = CaptureFilesProbe([str(_PATH)], PORTS)
        for batch in probe.batches():
            segments.extend(batch)
    except ProbeError as error:
        message = str(error)
        assert "\n" not in message
        return segments, message
    return segments, ""


def _check_pieces(data: bytes, segments: list[Segment], *, is_whole: bool) -> None:
    """The same file as a pipe may bring it."""
    rng = Random(crc32(data))
    size = rng.choice((1, 3, 50, 1_000))
    decoder = FrameDecoder(PORTS, PacketCounts())
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    again: list[Segment] = []
    ended_well = True
    try:
        kind = PcapngReader if data.startswith(PCAPNG_MAGIC) else PcapReader
        reader = kind(pieces, decoder)
        while reader.read(3, again):
            pass
    except CutShort:
        ended_well = False
    assert (again, ended_well) == (segments, is_whole)


def seeds() -> Iterator[bytes]:
    for link_type, frames in captured_frames():
        some = [Frame(frame[:200], len(frame), link_type) for frame in frames[:8]]
        for order in "<>":
            yield pcap(some, order, is_nano=order == ">")[:MAX_BYTES]
            yield pcapng(some, order)[:MAX_BYTES]
        if link_type == ETHERNET:
            yield pcap(some)[:20] + b"\x71\0\0\0" + pcap(some)[24:MAX_BYTES]
