"""What tshark is asked of each frame, and what its answer means.

tshark finds its way to the TCP segment, through whatever encapsulation, and puts IP fragments together. It is
asked for nothing above TCP: that is the parser's.
"""

import socket
from typing import Final, NamedTuple

from probes.probe import PacketCounts, Verdict
from probes.segment import Segment

FIELDS: Final = (
    "frame.number",
    "frame.time_epoch",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.flags.mf",
    "ip.frag_offset",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.offset",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.len",
    "tcp.payload",
)
"""Fields of Wireshark's display filter reference, which a row holds in this order. Of a field that occurs
several times, as the addresses in a tunnel, it holds the last: the innermost."""

OUTPUT_FORMAT: Final = ("-T", "fields", "-E", "separator=/t", "-E", "occurrence=l")
"""One row a frame. `occurrence=l`: the last of each."""

# https://www.iana.org/assignments/protocol-numbers
_TCP_NUMBER: Final = "6"
# A boolean is 1 in Wireshark 4.0, True from 4.2 on.
_TRUE: Final = frozenset(("1", "True"))

_NO_OFFSET: Final = frozenset(("", "0"))

# Names in frame.protocols. An ICMP error quotes the TCP header of the packet that it is about.
_NETWORK_LAYERS: Final = frozenset(("ip", "ipv6"))
_QUOTING: Final = frozenset(("icmp", "icmpv6"))
# What tshark finds in a frame whose link type it can't dissect.
_UNKNOWN_LINK: Final = frozenset(("", "data", "user_dlt"))


class _Row(NamedTuple):
    """The text of each of `FIELDS`; empty where the frame has none."""

    number: str
    time_epoch: str
    protocols: str
    ip_source: str
    ip_destination: str
    ip_protocol: str
    ip_more: str
    ip_offset: str
    ipv6_source: str
    ipv6_destination: str
    ipv6_fragment_next: str
    ipv6_more: str
    ipv6_offset: str
    source_port: str
    destination_port: str
    sequence: str
    acknowledgement: str
    flags: str
    length: str
    payload: str

    def is_fragment_of_tcp(self) -> bool:
        """A part of an IP datagram, the last of which to come completes it."""
        if self.ip_protocol == _TCP_NUMBER and (self.ip_more in _TRUE or self.ip_offset not in _NO_OFFSET):
            return True
        return self.ipv6_fragment_next == _TCP_NUMBER and (
            self.ipv6_more in _TRUE or self.ipv6_offset not in _NO_OFFSET
        )


class RowError(Exception):
    """A row that is no answer to what was asked."""


class RowReader:
    """Rows of tshark -> segments; counts a verdict for each, as probes.frames does."""

    __slots__ = ("_ports", "_seen")

    def __init__(self, ports: frozenset[int], counts: PacketCounts) -> None:
        self._ports = ports
        self._seen = counts.seen

    def read(self, text: str) -> tuple[int, Segment | None]:
        """The frame's number, from 1 on, and the segment that it holds or completes. Raises RowError."""
        values = text.split("\t")
        if len(values) != len(FIELDS):
            raise RowError(f"{len(values)} fields instead of {len(FIELDS)}")
        row = _Row._make(values)
        try:
            return int(row.number), self._segment(row)
        except (ValueError, OSError) as error:  # OSError: inet_pton
            raise RowError(str(error)) from error

    def _segment(self, row: _Row) -> Segment | None:
        layers = row.protocols.split(":")
        if row.is_fragment_of_tcp():
            self._seen[Verdict.FRAGMENT] += 1
            if not row.source_port:
                return None
        if "tcp" not in layers or not _QUOTING.isdisjoint(layers):
            self._seen[Verdict.UNSUPPORTED if layers[0] in _UNKNOWN_LINK else Verdict.NOT_TCP] += 1
            return None
        if not (row.source_port and row.destination_port and row.flags and row.sequence and row.length):
            self._seen[Verdict.MALFORMED] += 1
            return None
        ports = int(row.source_port), int(row.destination_port)
        if self._ports.isdisjoint(ports):
            self._seen[Verdict.OTHER_PORT] += 1
            return None
        network = next(layer for layer in reversed(layers) if layer in _NETWORK_LAYERS)
        if network == "ip":
            family, source, destination = socket.AF_INET, row.ip_source, row.ip_destination
        else:
            family, source, destination = socket.AF_INET6, row.ipv6_source, row.ipv6_destination
        self._seen[Verdict.SEGMENT] += 1
        return Segment(
            _nanoseconds(row.time_epoch),
            socket.inet_pton(family, source),
            ports[0],
            socket.inet_pton(family, destination),
            ports[1],
            int(row.flags, 16),
            int(row.sequence),
            int(row.acknowledgement or 0),
            int(row.length),
            bytes.fromhex(row.payload),
        )


def _nanoseconds(time_epoch: str) -> int:
    """`1795355448.010408000` -> nanoseconds since the epoch."""
    seconds, _, fraction = time_epoch.partition(".")
    if len(fraction) != 9:
        raise ValueError(f"no time in nanoseconds: {time_epoch!r}")
    return int(seconds + fraction)
