"""pcapng files: sections of blocks, of which some hold a frame.

Section numbers are those of draft-ietf-opsawg-pcapng. Sections and interfaces may differ in all: byte order,
link type, snap length, clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd
from struct import Struct
from typing import TYPE_CHECKING, Final

from probes.frames import FrameDecoder
from probes.pcap.opening import CutShort, check_time
from probes.pcap.reader import CaptureReader
from probes.segment import Segment

if TYPE_CHECKING:
    from mypy_extensions import i64  # an int, which mypyc keeps in a machine word

# Sections 4.1 to 4.4, and appendix A.
SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6
OBSOLETE_PACKET: Final = 2

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D  # section 4.1
VERSIONS: Final = ((1, 0), (1, 2))  # section 4.1: 1.2 is the same
# Options of an interface: section 4.2. The end of all: section 3.5.
END_OF_OPTIONS: Final = 0
TIME_RESOLUTION: Final = 9
TIME_OFFSET: Final = 14
MICROSECONDS: Final = 6  # section 4.2: the resolution where none is said

# Section 3.1: type and length, and the length again at the end.
SMALLEST_BLOCK_BYTES: Final = 12
TAIL_BYTES: Final = 4
# What stands before a frame, and before the options of an interface.
ENHANCED_HEAD_BYTES: Final = 28
SIMPLE_HEAD_BYTES: Final = 12
SECTION_HEAD_BYTES: Final = 24
INTERFACE_HEAD_BYTES: Final = 16
# libpcap's INITIAL_MAX_BLOCKSIZE, which it allows a block before it knows the snap length.
MAX_BLOCK_BYTES: Final = 16 * 2**20
# Chosen because dumpcap on every interface of a big host describes a few hundred.
MAX_INTERFACES: Final = 65_536
# The year 2096. Chosen because greater ones are looked at closely, and up to 2**62 comparing is cheap.
PLAUSIBLE_NS: Final = 4 * 10**18


class _Layouts:
    """How the fields of blocks lie, in the byte order of their section."""

    __slots__ = ("enhanced", "head", "interface", "obsolete", "offset", "option", "section", "simple")

    def __init__(self, order: str) -> None:
        """`<` or `>`."""
        self.head = Struct(order + "II")  # type, length
        self.enhanced = Struct(order + "8x5I")  # interface, time (high, low), captured length, wire length
        self.obsolete = Struct(order + "8xHxx4I")  # the same
        self.simple = Struct(order + "8xI")  # wire length
        self.section = Struct(order + "8xIHH")  # byte order, version
        self.interface = Struct(order + "8xHxxI")  # link type, snap length
        self.option = Struct(order + "HH")  # code, length
        self.offset = Struct(order + "q")  # seconds


_BIG_ENDIAN: Final = _Layouts(">")
_LITTLE_ENDIAN: Final = _Layouts("<")


class _Interface:
    """What an interface description block says."""

    __slots__ = ("_dividend", "_divisor", "_offset_ns", "link_type", "snap_length")

    def __init__(self, link_type: i64, snap_length: i64, resolution: int, offset_seconds: int) -> None:
        """`resolution` of its clock: a negative power of ten, or of two with the highest bit set."""
        self.link_type: i64 = link_type
        self.snap_length: i64 = snap_length
        ticks_per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        common = gcd(10**9, ticks_per_second)
        self._dividend = 10**9 // common
        self._divisor = ticks_per_second // common
        self._offset_ns = offset_seconds * 10**9

    def nanoseconds(self, ticks: int) -> int:
        """Since the epoch. Raises CutShort."""
        at_ns = ticks * self._dividend
        if self._divisor != 1:
            at_ns //= self._divisor
        at_ns += self._offset_ns
        if not -PLAUSIBLE_NS < at_ns < PLAUSIBLE_NS:
            check_time(at_ns // 10**9)
        return at_ns


class PcapngReader(CaptureReader):
    """Frames from the uncompressed bytes of a pcapng file."""

    def __init__(
        self, pieces: Iterator[bytes], decoder: FrameDecoder, parts_max: Callable[[], int] | None = None
    ) -> None:
        super().__init__(pieces, decoder, parts_max)
        self._layouts = _BIG_ENDIAN
        self._interfaces: list[_Interface] = []

    def _walk(self, limit: i64, segments: list[Segment]) -> None:
        data = self._data
        position = self._position
        last = self.frames_read + limit
        kind: i64
        length: i64
        while self.frames_read < last:
            end = position + SMALLEST_BLOCK_BYTES
            if end <= len(data):
                kind, length = self._layouts.head.unpack_from(data, position)
                if kind == SECTION_HEADER:  # the same in both byte orders
                    self._layouts = _layouts_after(data[position + 8 : end])
                    _, length = self._layouts.head.unpack_from(data, position)
                if not SMALLEST_BLOCK_BYTES <= length <= MAX_BLOCK_BYTES or length % 4:
                    raise CutShort(f"it is damaged (a block of {length} bytes)")
                end = position + length
            if end > len(data):
                self._position = position
                if not self._fetch(end - position):
                    return
                data = self._data
                position = 0
                continue
            contents_end = end - TAIL_BYTES
            # libpcap does not look at the one behind a section header either.
            if data[contents_end:end] != data[position + 4 : position + 8] and kind != SECTION_HEADER:
                raise CutShort("it is damaged (a block with two lengths)")
            if kind in (ENHANCED_PACKET, SIMPLE_PACKET, OBSOLETE_PACKET):
                segment = self._frame(kind, data, position, contents_end)
                if segment is not None:
                    segments.append(segment)
                self.frames_read += 1
            else:
                self._others_read += 1
                if kind == INTERFACE_DESCRIPTION:
                    self._add_interface(data, position, contents_end)
                elif kind == SECTION_HEADER:
                    self._begin_section(data, position, contents_end)
            position = end
        self._position = position

    def _frame(self, kind: i64, data: bytes, position: i64, end: i64) -> Segment | None:
        """The segment in a block with a frame. Raises CutShort."""
        at_ns = 0
        number: i64 = 0
        captured: i64
        wire_length: i64
        if kind == SIMPLE_PACKET:  # of the first interface, at a time that it does not say
            start = position + SIMPLE_HEAD_BYTES
            _check_room(start, end)
            (wire_length,) = self._layouts.simple.unpack_from(data, position)
            interface = self._interface(0)
            captured = wire_length
            if 0 < interface.snap_length < captured:
                captured = interface.snap_length
        else:
            start = position + ENHANCED_HEAD_BYTES
            _check_room(start, end)
            layout = self._layouts.enhanced if kind == ENHANCED_PACKET else self._layouts.obsolete
            ticks_high: int
            ticks_low: int
            number, ticks_high, ticks_low, captured, wire_length = layout.unpack_from(data, position)
            interface = self._interface(number)
            at_ns = interface.nanoseconds(ticks_high << 32 | ticks_low)
        _check_room(start + captured, end)
        return self._decoder.decode_within(
            at_ns, interface.link_type, data, start, start + captured, wire_length=wire_length
        )

    def _interface(self, number: i64) -> _Interface:
        """Raises CutShort."""
        if number >= len(self._interfaces):
            raise CutShort(f"it is damaged (a packet of interface {number}, which is not described)")
        return self._interfaces[number]

    def _begin_section(self, data: bytes, position: i64, end: i64) -> None:
        """Section 4.1. Raises CutShort."""
        _check_room(position + SECTION_HEAD_BYTES, end)
        magic, major, minor = self._layouts.section.unpack_from(data, position)
        if magic != BYTE_ORDER_MAGIC:
            raise CutShort("it is damaged (a section without a byte order)")
        if (major, minor) not in VERSIONS:
            raise CutShort(f"it is of version {major}.{minor} of pcapng, and not 1.0")
        self._interfaces = []

    def _add_interface(self, data: bytes, position: i64, end: i64) -> None:
        """Section 4.2. Raises CutShort."""
        option = position + INTERFACE_HEAD_BYTES
        _check_room(option, end)
        if len(self._interfaces) >= MAX_INTERFACES:
            raise CutShort(f"it describes over {MAX_INTERFACES} interfaces")
        link_type, snap_length = self._layouts.interface.unpack_from(data, position)
        resolution = MICROSECONDS
        offset_seconds = 0
        while option + self._layouts.option.size <= end:
            self._others_read += 1
            code, length = self._layouts.option.unpack_from(data, option)
            if code == END_OF_OPTIONS:
                break
            value = option + self._layouts.option.size
            _check_room(value + length, end)
            if code == TIME_RESOLUTION and length == 1:
                resolution = data[value]
            elif code == TIME_OFFSET and length == 8:
                (offset_seconds,) = self._layouts.offset.unpack_from(data, value)
            option = value + (length + 3) // 4 * 4
        self._interfaces.append(_Interface(link_type, snap_length, resolution, offset_seconds))


def _layouts_after(magic: bytes) -> _Layouts:
    """In the byte order in which this is the magic number; where it is none, that is found out later."""
    return _BIG_ENDIAN if int.from_bytes(magic, "big") == BYTE_ORDER_MAGIC else _LITTLE_ENDIAN


def _check_room(needed: i64, end: i64) -> None:
    """Raises CutShort where what is needed goes over the end of its block."""
    if needed > end:
        raise CutShort("it is damaged (a block that is too short for what it holds)")
