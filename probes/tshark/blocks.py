"""The pcapng that dumpcap and editcap write, taken apart into frames that any tshark can be given.

The frames of all sources go to one tshark, as one section. Each source numbers its interfaces from zero, so
their frames get the number that the interface has among those of all.

The format: draft-ietf-opsawg-pcapng. All programs run on this machine, so all write its byte order.
"""

import sys
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Final

_BLOCK_HEADER: Final = Struct("=II")  # type, total length
_SECTION: Final = Struct("=IIIHHqI")
_UINT32: Final = Struct("=I")
_TIME: Final = Struct("=II")  # high and low half
_OPTION: Final = Struct("=HH")  # code, length

_SECTION_HEADER_TYPE: Final = 0x0A0D0D0A
_INTERFACE_DESCRIPTION_TYPE: Final = 1
_INTERFACE_STATISTICS_TYPE: Final = 5
_ENHANCED_PACKET_TYPE: Final = 6

# The shortest that a block of a type can be; of other types, what is around their contents.
_SHORTEST: Final = {
    _SECTION_HEADER_TYPE: 28,
    _INTERFACE_DESCRIPTION_TYPE: 20,
    _INTERFACE_STATISTICS_TYPE: 24,
    _ENHANCED_PACKET_TYPE: 32,
}
_SHORTEST_OF_ALL: Final = 12

# Where an enhanced packet block holds the interface's number, the time, the captured length, and the frame.
_NUMBER_AT: Final = 8
_TIME_AT: Final = 12
_CAPTURED_AT: Final = 20
_FRAME_AT: Final = 28

# Where the options of these blocks begin; what was dropped; and the unit of time, a negative power of ten
# unless its highest bit is set, which no program here does.
_STATISTICS_OPTIONS_AT: Final = 20
_ISB_IFDROP: Final = 5
_DESCRIPTION_OPTIONS_AT: Final = 16
_IF_TSRESOL: Final = 9
_TSRESOL_DEFAULT: Final = 6

# Wireshark's own limit for a block, of which most is for one frame (wiretap/pcapng.c).
_MAX_BLOCK_BYTES: Final = 16 * 2**20

SECTION_HEADER: Final = _SECTION.pack(_SECTION_HEADER_TYPE, 28, 0x1A2B3C4D, 1, 0, -1, 28)
"""What a stream of pcapng begins with; the section's length is left open."""


FrameSink = Callable[[list[bytes]], Awaitable[None]]
"""Takes frames as enhanced packet blocks; waits while it has too many."""


class NotPcapng(Exception):
    """The bytes are no pcapng of this machine's byte order."""


class Interfaces:
    """The interfaces of all sources, numbered in the order in which they were first met."""

    def __init__(self) -> None:
        self.descriptions: list[bytes] = []
        """Their interface description blocks."""
        self._numbers: dict[bytes, int] = {}

    def number(self, description: bytes) -> int:
        """Of this block; the same for the same block, so that a restarted dumpcap adds none."""
        number = self._numbers.setdefault(description, len(self.descriptions))
        if number == len(self.descriptions):
            self.descriptions.append(description)
        return number


class BlockReader:
    """The output of one dumpcap or editcap, in pieces of any size."""

    def __init__(self, interfaces: Interfaces) -> None:
        self.dropped = 0
        """Packets that the capturing program says it lost; it says so when it ends."""
        self.has_begun = False
        """Whether it has described an interface: from then on it captures."""
        self.latest_ns = 0
        """Time stamp of the last frame, in nanoseconds since the epoch."""
        self._interfaces = interfaces
        self._numbers: list[int] = []
        self._nanoseconds: list[int] = []
        """In a unit of each interface's time stamps."""
        self._rest = b""

    def read(self, piece: bytes) -> list[bytes]:
        """The enhanced packet blocks that are complete now. Raises NotPcapng."""
        data = self._rest + piece
        frames: list[bytes] = []
        start = 0
        while start + _BLOCK_HEADER.size <= len(data):
            kind, length = _BLOCK_HEADER.unpack_from(data, start)
            if length < _SHORTEST.get(kind, _SHORTEST_OF_ALL) or length % 4 or length > _MAX_BLOCK_BYTES:
                raise NotPcapng
            end = start + length
            if end > len(data):
                break
            block = data[start:end]
            if kind == _ENHANCED_PACKET_TYPE:
                number, frame = self._renumbered(block)
                frames.append(frame)
                high, low = _TIME.unpack_from(block, _TIME_AT)
                self.latest_ns = (high << 32 | low) * self._nanoseconds[number]
            elif kind == _INTERFACE_DESCRIPTION_TYPE:
                self._numbers.append(self._interfaces.number(block))
                self._nanoseconds.append(_nanoseconds(block))
                self.has_begun = True
            elif kind == _INTERFACE_STATISTICS_TYPE:
                self.dropped += _dropped(block)
            elif kind == _SECTION_HEADER_TYPE:
                self._numbers.clear()
                self._nanoseconds.clear()
            start = end
        self._rest = data[start:]
        return frames

    def _renumbered(self, block: bytes) -> tuple[int, bytes]:
        """Its source's number of the interface, and the block with ours."""
        (number,) = _UINT32.unpack_from(block, _NUMBER_AT)
        (captured,) = _UINT32.unpack_from(block, _CAPTURED_AT)
        if number >= len(self._numbers) or _FRAME_AT + captured + _UINT32.size > len(block):
            raise NotPcapng
        if number == self._numbers[number]:
            return number, block
        return number, block[:_NUMBER_AT] + _UINT32.pack(self._numbers[number]) + block[_NUMBER_AT + 4 :]


def frame_hash(block: bytes) -> int:
    """Of the frame in an enhanced packet block, whenever it was captured."""
    (captured,) = _UINT32.unpack_from(block, _CAPTURED_AT)
    return hash(block[_FRAME_AT : _FRAME_AT + captured])


def _dropped(block: bytes) -> int:
    """What an interface statistics block says was lost."""
    value = _option(block, _STATISTICS_OPTIONS_AT, _ISB_IFDROP)
    return int.from_bytes(value, sys.byteorder) if len(value) == 8 else 0


def _nanoseconds(block: bytes) -> int:
    """In a unit of the time stamps of an interface description block."""
    value = _option(block, _DESCRIPTION_OPTIONS_AT, _IF_TSRESOL)
    power = value[0] if value else _TSRESOL_DEFAULT
    return int(10 ** max(0, 9 - power))


def _option(block: bytes, start: int, wanted: int) -> bytes:
    """The value of an option; empty if the block has none."""
    end = len(block) - _UINT32.size
    while start + _OPTION.size <= end:
        code, length = _OPTION.unpack_from(block, start)
        start += _OPTION.size
        if code == wanted and start + length <= end:
            return block[start : start + length]
        start += (length + 3) // 4 * 4
    return b""
