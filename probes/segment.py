"""One TCP segment as it was seen, from whatever source."""

from typing import Final, NamedTuple

# TCP flags, RFC 9293 section 3.1, as they stand in the header's fourteenth byte.
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10


class Segment(NamedTuple):
    """A TCP segment between two endpoints.

    A NamedTuple and not a dataclass: one is made for every packet, and a tuple costs a third.
    """

    at_ns: int
    """When it was captured: nanoseconds since the epoch, UTC."""
    source: bytes
    """Source address in network order: 4 bytes (IPv4) or 16 (IPv6)."""
    source_port: int
    destination: bytes
    """Destination address in network order, as long as `source`."""
    destination_port: int
    flags: int
    """FIN, SYN, RST, PSH, ACK; other bits may be set and are ignored."""
    sequence: int
    """Sequence number of the first payload byte (of the SYN itself in a SYN), 0 … 2**32 - 1."""
    acknowledgement: int
    """Acknowledgement number; without meaning unless ACK is set."""
    length: int
    """Payload bytes on the wire, by the IP header's length; up to 64 kB and more in a super-segment."""
    payload: bytes
    """The captured part of the payload: `length` bytes, or fewer where the capture cut the packet short."""
