"""The pcapng files that libpcap refuses: interfaces that differ in link type or snap length.

Ten times slower than libpcap, so it is asked only for those. Section numbers are those of
draft-ietf-opsawg-pcapng.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from pcapng import FileScanner
from pcapng.blocks import (
    KNOWN_BLOCKS,
    EnhancedPacket,
    InterfaceDescription,
    InterfaceStatistics,
    NameResolution,
    ObsoletePacket,
    SectionHeader,
    SimplePacket,
    register_block,
)
from pcapng.structs import TYPE_BYTES, TYPE_I64, Option, OptionsField

from probes.pcap.opening import CutShort, at_least, check_time

# libpcap's INITIAL_MAX_BLOCKSIZE, which it allows a block before it knows the snap length.
MAX_BLOCK_BYTES: Final = 16 * 2**20
# Chosen because dumpcap on every interface of a big host describes a few hundred.
MAX_INTERFACES: Final = 65_536
# Chosen because it is what a pipe holds by default; a few interface descriptions take a few hundred bytes.
MAX_LEADING_BYTES: Final = 64 * 1024

_PACKET_BLOCKS: Final = (EnhancedPacket, ObsoletePacket, SimplePacket)

_BLOCK_INTERFACE: Final = 1  # section 4.2
_BLOCKS_WITH_A_PACKET: Final = frozenset((2, 3, 6))  # appendix A, sections 4.4 and 4.3
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D  # section 4.1


# python-pcapng 2.1 decodes every option of every block, and raises at some that are right (an interface's
# IPv6 address, a comment given twice). These read less, so that there is less to raise at.


@register_block
class _Interface(InterfaceDescription):  # type: ignore[misc]
    __slots__ = ()
    schema = (
        *InterfaceDescription.schema[:-1],
        (
            "options",
            OptionsField(
                [
                    *(Option(code, f"option_{code}", TYPE_BYTES, multiple=True) for code in (1, 4, 5)),
                    Option(9, "if_tsresol", TYPE_BYTES),
                    Option(14, "if_tsoffset", TYPE_I64),
                ]
            ),
            None,
        ),
    )


@register_block
class _Packet(EnhancedPacket):  # type: ignore[misc]
    __slots__ = ()
    schema = tuple(EnhancedPacket.schema[:-1])  # the last is its options


for _block in (NameResolution, InterfaceStatistics):
    KNOWN_BLOCKS.pop(_block.magic_number, None)  # then they are skipped


class PcapngReader:
    """Frames from the uncompressed bytes of a pcapng file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._file = _PieceFile(pieces)
        self._blocks = iter(FileScanner(self._file))
        self._block_end = 0
        self._clocks: dict[int, Callable[[int], int]] = {}

    def frames(self) -> Iterator[tuple[int, int, bytes, int]]:
        """Time, link type, frame and wire length of each packet.

        Raises CutShort where the file ends too soon or is damaged.
        """
        while True:
            try:
                block = next(self._blocks, None)
                frame = self._frame(block) if isinstance(block, _PACKET_BLOCKS) else None
            except CutShort:
                raise
            # The library raises what its parts raise: KeyError, ValueError, struct.error ...
            except Exception as error:
                raise CutShort(
                    f"it is cut short or damaged ({str(error) or type(error).__name__})"
                ) from error
            if block is None:
                if self._file.tell() != self._block_end:  # inside a block, where the library says nothing
                    raise CutShort("it is cut short")
                return
            self._block_end = self._file.tell()
            if frame is not None:
                yield frame
            elif isinstance(block, SectionHeader):
                self._clocks.clear()
            elif isinstance(block, InterfaceDescription) and block.interface_id >= MAX_INTERFACES:
                raise CutShort(f"it describes over {MAX_INTERFACES} interfaces")

    def _frame(self, block: Any) -> tuple[int, int, bytes, int]:
        interface = block.interface
        at_ns = 0
        if not isinstance(block, SimplePacket):  # which has no time
            clock = self._clocks.get(block.interface_id)
            if clock is None:
                clock = self._clocks[block.interface_id] = _clock(interface)
            at_ns = clock(block.timestamp_high << 32 | block.timestamp_low)
            check_time(at_ns // 10**9)
        return at_ns, interface.link_type, block.packet_data, block.packet_len


def _clock(interface: Any) -> Callable[[int], int]:
    """From an interface's ticks to nanoseconds since the epoch. In integers: the library's float loses the
    nanoseconds."""
    options = interface.options
    resolution = options["if_tsresol"][0] if "if_tsresol" in options else 6  # section 4.2: microseconds
    offset_ns = options["if_tsoffset"] * 10**9 if "if_tsoffset" in options else 0
    ticks_per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    return lambda ticks: ticks * 10**9 // ticks_per_second + offset_ns


class _PieceFile:
    """Pieces as the file object that python-pcapng asks for; refuses what no block may ask."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._position = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BLOCK_BYTES:
            raise CutShort(f"it is damaged (a block of {size} bytes)")
        while len(self._buffer) < size and (piece := next(self._pieces, b"")):
            self._buffer += piece
        wanted = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._position += len(wanted)
        return wanted

    def tell(self) -> int:
        return self._position


@dataclass(frozen=True, slots=True)
class LeadingBlocks:
    """What stands before the first packet of a pcapng file."""

    head: bytes
    """All that was read to find that out; the packets begin in it, at `length`."""
    length: int
    libpcap_reads_it: bool
    """All its interfaces are alike, and nothing in it is strange."""


def leading_blocks(pieces: Iterator[bytes]) -> LeadingBlocks:
    """Says beforehand whether libpcap will refuse a file that can be read only once."""
    head = b""
    position = 0
    words = Struct("<II")
    interface_kinds: set[bytes] = set()
    while position + 16 <= MAX_LEADING_BYTES:
        head += at_least(position + 16 - len(head), pieces)
        if len(head) < position + 16:  # the end of the file
            complete = position <= len(head)
            return LeadingBlocks(head, min(position, len(head)), complete and len(interface_kinds) == 1)
        if position == 0 and int.from_bytes(head[8:12], "big") == _BYTE_ORDER_MAGIC:
            words = Struct(">II")
        kind, length = words.unpack_from(head, position)
        if kind in _BLOCKS_WITH_A_PACKET:
            return LeadingBlocks(head, position, len(interface_kinds) == 1)
        if length < 12 or length % 4:
            break
        if kind == _BLOCK_INTERFACE:
            interface_kinds.add(head[position + 8 : position + 16])
        position += length
    return LeadingBlocks(head, min(position, len(head)), False)
