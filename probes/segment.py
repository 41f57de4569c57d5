"""One TCP segment as it was seen, from whatever source."""

from typing import Any, Final

from mypy_extensions import mypyc_attr

# TCP flags, RFC 9293 section 3.1, as they stand in the header's fourteenth byte.
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

LEFT_OUT: Final = 0x100
"""No flag of TCP: a stretch of the stream, in order, which the probe saw pass and left out, because nobody
needs it. See `Segment.left`."""


_FIELDS: Final = ("at_ns", "flow", "flags", "sequence", "acknowledgement", "length", "payload", "left")


@mypyc_attr(acyclic=True)
class Segment:
    """A TCP segment between two endpoints.

    Not to be changed: whoever has it may keep it. Written out, and neither a tuple nor a dataclass, as one is
    made for every packet: compiled, this takes a third of the time.
    """

    __slots__ = ("acknowledgement", "at_ns", "flags", "flow", "left", "length", "payload", "sequence")

    def __init__(  # noqa: PLR0917  by position: by name it takes longer
        self,
        at_ns: int,
        flow: bytes,
        flags: int,
        sequence: int,
        acknowledgement: int,
        length: int,
        payload: bytes,
        left: int = 0,
    ) -> None:
        self.at_ns = at_ns
        """When it was captured: nanoseconds since the epoch, UTC."""
        self.flow = flow
        """From whom to whom, as it stands in the packet: source address, destination address, source port,
        destination port. 12 bytes (IPv4) or 36 (IPv6). One value and not four: every packet is looked up by
        it."""
        self.flags = flags
        """FIN, SYN, RST, PSH, ACK, or LEFT_OUT; other bits may be set and are ignored."""
        self.sequence = sequence
        """Sequence number of the first payload byte (of the SYN itself in a SYN), 0 … 2**32 - 1."""
        self.acknowledgement = acknowledgement
        """Acknowledgement number; without meaning unless ACK is set."""
        self.length = length
        """Payload bytes on the wire, by the IP header's length; up to 64 kB and more in a super-segment."""
        self.payload = payload
        """The captured part of the payload: `length` bytes, or fewer where the capture cut the packet short.
        Of a stretch that was left out, its last four bytes where the reader needs them."""
        self.left = left
        """Where a stretch that was left out ended. In TLS: so many bytes before the end of a record; below 0:
        behind so many bytes of a record's header, which stand at the end of `payload`. In a chunk: so many
        bytes before its end. In a message: 1 if its end may be in the stretch, 0 if not."""

    def replace(self, **changes: Any) -> "Segment":
        """The same but for these."""
        return Segment(*[changes.get(name, getattr(self, name)) for name in _FIELDS])

    def values(self) -> tuple[object, ...]:
        """In the order of the constructor."""
        return tuple([getattr(self, name) for name in _FIELDS])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segment) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    def __repr__(self) -> str:
        return f"Segment({', '.join(f'{name}={getattr(self, name)!r}' for name in _FIELDS)})"

    @property
    def source(self) -> bytes:
        """Address in network order: 4 bytes (IPv4) or 16 (IPv6)."""
        return ends(self.flow)[0][0]

    @property
    def destination(self) -> bytes:
        """As long as `source`."""
        return ends(self.flow)[1][0]

    @property
    def source_port(self) -> int:
        return ends(self.flow)[0][1]

    @property
    def destination_port(self) -> int:
        return ends(self.flow)[1][1]


def flow_of(source: bytes, source_port: int, destination: bytes, destination_port: int) -> bytes:
    """The `flow` of a Segment; addresses in network order."""
    return source + destination + (source_port << 16 | destination_port).to_bytes(4, "big")


def ends(flow: bytes) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Source and destination, each an address in network order and a port: the inverse of `flow_of`."""
    middle = len(flow) // 2 - 2
    return (flow[:middle], flow[-4] << 8 | flow[-3]), (flow[middle:-4], flow[-2] << 8 | flow[-1])


def reverse(flow: bytes) -> bytes:
    """The same connection's flow the other way."""
    middle = len(flow) // 2 - 2
    return flow[middle:-4] + flow[:middle] + flow[-2:] + flow[-4:-2]
