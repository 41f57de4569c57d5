"""pcap files: a header, then frames with a header each.

Section numbers are those of draft-ietf-opsawg-pcap. What it leaves open is as libpcap has it (sf-pcap.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

from probes.frames import FrameDecoder
from probes.pcap.opening import KUZNETZOV_MAGIC, NANOSECONDS_MAGIC, PCAP_HEADER_BYTES, PCAP_MAGICS, CutShort
from probes.pcap.reader import CaptureReader
from probes.segment import Segment

if TYPE_CHECKING:
    from mypy_extensions import i64  # an int, which mypyc keeps in a machine word

# Section 4.
MAJOR_VERSION: Final = 2
MINOR_VERSION: Final = 4
# libpcap's MAXIMUM_SNAPLEN: what claims to be longer is damage.
MAX_FRAME_BYTES: Final = 262_144


class PcapReader(CaptureReader):
    """Frames from the uncompressed bytes of a pcap file."""

    def __init__(
        self, pieces: Iterator[bytes], decoder: FrameDecoder, parts_max: Callable[[], int] | None = None
    ) -> None:
        """Raises CutShort."""
        super().__init__(pieces, decoder, parts_max)
        self._fetch(PCAP_HEADER_BYTES)
        order = "<" if self._data[3::-1] in PCAP_MAGICS else ">"
        magic, major, minor, snap_length, link_type = Struct(order + "IHH8xII").unpack_from(self._data)
        if major != MAJOR_VERSION or minor > MINOR_VERSION:
            raise CutShort(f"it is of version {major}.{minor} of pcap, and not 2.4")
        self._position = PCAP_HEADER_BYTES
        self._is_big_endian = order == ">"
        # Seconds, fraction, captured length, wire length. Kuznetzov's have eight bytes more.
        self._header_bytes: i64 = 24 if magic == KUZNETZOV_MAGIC else 16
        self._fraction_ns: i64 = 1 if magic == NANOSECONDS_MAGIC else 1000
        # Before 2.4 the two lengths stood the other way round, or either way.
        self._is_old = minor < MINOR_VERSION
        # To libpcap, 0 is no limit, nor is what a signed number can't hold. A frame ends there.
        self._snap_length: i64 = snap_length if 0 < snap_length < 2**31 else MAX_FRAME_BYTES
        # Above these bits: how long the checksums behind Ethernet frames are.
        self._link_type: i64 = link_type & 0x03FF_FFFF

    def _walk(self, limit: i64, segments: list[Segment]) -> None:
        seconds: i64
        fraction: i64
        captured: i64
        wire_length: i64
        data = self._data
        big_endian = self._is_big_endian
        position = self._position
        last = self.frames_read + limit
        while self.frames_read < last:
            start = end = position + self._header_bytes
            if start <= len(data):
                seconds = _uint32(data, position, big_endian=big_endian)
                fraction = _uint32(data, position + 4, big_endian=big_endian)
                captured = _uint32(data, position + 8, big_endian=big_endian)
                wire_length = _uint32(data, position + 12, big_endian=big_endian)
                if self._is_old and captured > wire_length:
                    captured, wire_length = wire_length, captured
                if captured > MAX_FRAME_BYTES:
                    raise CutShort(f"it is damaged (a packet of {captured} bytes)")
                end = start + captured
            if end > len(data):
                self._position = position
                if not self._fetch(end - position):
                    return
                data = self._data
                position = 0
                continue
            segment = self._decoder.decode_within(
                seconds * 1_000_000_000 + fraction * self._fraction_ns,
                self._link_type,
                data,
                start,
                end if captured <= self._snap_length else start + self._snap_length,
                wire_length=wire_length,
            )
            if segment is not None:
                segments.append(segment)
            self.frames_read += 1
            position = end
        self._position = position


def _uint32(data: bytes, position: i64, *, big_endian: bool) -> i64:
    """By its bytes and not by `struct`, which compiled takes four times as long."""
    first: i64 = data[position]
    second: i64 = data[position + 1]
    third: i64 = data[position + 2]
    fourth: i64 = data[position + 3]
    if big_endian:
        return first << 24 | second << 16 | third << 8 | fourth
    return fourth << 24 | third << 16 | second << 8 | first
