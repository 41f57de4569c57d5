"""What tshark is asked of each frame, and what its answer means.

tshark finds its way to the TCP segment, through whatever encapsulation, and puts IP fragments together. It is
asked for nothing above TCP: that is the parser's.
"""

import socket
from typing import Final, NamedTuple

from probes.pcap.opening import LATEST_SECONDS
from probes.probe import PacketCounts, Verdict
from probes.segment import Segment, flow_of
from probes.tshark.fragments import DatagramKey, FragmentWatch

FIELDS: Final = (
    "frame.number",
    "frame.time_epoch",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.id",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.fragment.overlap.conflict",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.ident",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.offset",
    "ipv6.fragment.overlap.conflict",
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
# What a fragment of TCP may begin with: of IPv4 also an authentication header, of IPv6 any extension header.
_IPV4_TO_TCP: Final = frozenset((_TCP_NUMBER, "51"))
_IPV6_TO_TCP: Final = frozenset((_TCP_NUMBER, "0", "43", "51", "60"))
# A boolean is 1 in Wireshark 4.0, True from 4.2 on.
_TRUE: Final = frozenset(("1", "True"))

_NO_OFFSET: Final = frozenset(("", "0"))

# Names in frame.protocols.
_TCP: Final = "tcp"
_NETWORK_LAYERS: Final = frozenset(("ip", "ipv6"))
# From Wireshark 4.4 on, an IP layer in MPLS is not named, though its fields are there.
_MPLS: Final = "mpls"
# An ICMP error quotes the TCP header of the packet that it is about, an sFlow datagram those of a sample.
_QUOTING: Final = frozenset(("icmp", "icmpv6", "sflow"))
# A frame that is over in one of these was cut off there. IP may also stand last because it is empty.
_CARRIERS: Final = frozenset(("eth", "vlan", "ieee8021ad", "sll", "null", "raw")) | {
    "ipv6.hopopts",
    "ipv6.dstopts",
    "ipv6.routing",
    "ipv6.fraghdr",
    "ah",
}
# What tshark finds in a frame whose link type it can't dissect.
_UNKNOWN_LINK: Final = frozenset(("", "data", "user_dlt"))

# Only a damaged or forged file has times from here on.
_NO_CALENDAR_NS: Final = (LATEST_SECONDS + 1) * 10**9

# The flags that a Segment holds; above them tshark has the reserved ones.
_FLAGS: Final = 0xFF


class _Row(NamedTuple):
    """The text of each of `FIELDS`; empty where the frame has none."""

    number: str
    time_epoch: str
    protocols: str
    ip_source: str
    ip_destination: str
    ip_protocol: str
    ip_identification: str
    ip_more: str
    ip_offset: str
    ip_contradiction: str
    ipv6_source: str
    ipv6_destination: str
    ipv6_fragment_next: str
    ipv6_identification: str
    ipv6_more: str
    ipv6_offset: str
    ipv6_contradiction: str
    source_port: str
    destination_port: str
    sequence: str
    acknowledgement: str
    flags: str
    length: str
    payload: str

    def ipv4_fragment(self) -> DatagramKey | None:
        """Of which datagram it is a part, by the inner IPv4 header; None if it is whole, or not TCP."""
        if self.ip_protocol in _IPV4_TO_TCP and (self.ip_more in _TRUE or self.ip_offset not in _NO_OFFSET):
            return DatagramKey(self.ip_source, self.ip_destination, self.ip_identification)
        return None

    def ipv6_fragment(self) -> DatagramKey | None:
        """The same by the inner IPv6 fragment header."""
        if self.ipv6_fragment_next in _IPV6_TO_TCP and (
            self.ipv6_more in _TRUE or self.ipv6_offset not in _NO_OFFSET
        ):
            return DatagramKey(self.ipv6_source, self.ipv6_destination, self.ipv6_identification)
        return None


class RowError(Exception):
    """A row that is no answer to what was asked."""


class RowReader:
    """Rows of tshark -> segments; counts a verdict for each, as probes.frames does."""

    __slots__ = ("_fragments", "_ports", "_seen")

    def __init__(self, ports: frozenset[int], counts: PacketCounts) -> None:
        self._ports = ports
        self._seen = counts.seen
        self._fragments = FragmentWatch(counts)

    def read(self, text: str) -> tuple[int, Segment | None]:
        """The frame's number, from 1 on, and the segment that it holds or completes. Raises RowError.

        With number 1 another tshark begins.
        """
        values = text.split("\t")
        if len(values) != len(FIELDS):
            raise RowError(f"{len(values)} fields instead of {len(FIELDS)}")
        row = _Row._make(values)
        try:
            number = int(row.number)
            if number == 1:
                self._fragments.begin_anew()
            return number, self._segment(row)
        except (ValueError, OverflowError, OSError) as error:  # a port beyond 65,535; OSError: inet_pton
            raise RowError(str(error)) from error

    def flush(self) -> None:
        """Counts fragments that wait for others as dropped: no more frames will come."""
        self._fragments.begin_anew()

    def _segment(self, row: _Row) -> Segment | None:
        layers = row.protocols.split(":")
        if not _QUOTING.isdisjoint(layers):
            return self._count(Verdict.NOT_TCP)
        at_ns = _nanoseconds(row.time_epoch)
        if abs(at_ns) >= _NO_CALENDAR_NS:
            return self._count(Verdict.MALFORMED)
        datagram = row.ipv4_fragment() or row.ipv6_fragment()
        if datagram is not None:
            self._count(Verdict.FRAGMENT)
            if not self._completes(at_ns, datagram, row):
                return None
        if _TCP not in layers:
            return self._count(_verdict_without_tcp(row, layers))
        if not (row.source_port and row.destination_port and row.flags and row.sequence and row.length):
            return self._count(Verdict.MALFORMED)
        network = _network_below_tcp(row, layers)
        if network is None:
            return self._count(Verdict.UNSUPPORTED)
        ports = int(row.source_port), int(row.destination_port)
        if self._ports.isdisjoint(ports):
            return self._count(Verdict.OTHER_PORT)
        if network == "ip":
            family, source, destination = socket.AF_INET, row.ip_source, row.ip_destination
        else:
            family, source, destination = socket.AF_INET6, row.ipv6_source, row.ipv6_destination
        self._seen[Verdict.SEGMENT] += 1
        return Segment(
            at_ns,
            flow_of(
                socket.inet_pton(family, source), ports[0], socket.inet_pton(family, destination), ports[1]
            ),
            int(row.flags, 16) & _FLAGS,
            int(row.sequence),
            int(row.acknowledgement or 0),
            int(row.length),
            bytes.fromhex(row.payload),
        )

    def _count(self, verdict: Verdict) -> Segment | None:
        """Counts a frame that gives no segment."""
        self._seen[verdict] += 1
        return None

    def _completes(self, at_ns: int, datagram: DatagramKey, row: _Row) -> bool:
        """Whether a fragment completes a datagram that may be believed. Of a first fragment that was cut
        short, tshark shows the ports, but no length."""
        if not row.length:
            self._fragments.wait(at_ns, datagram, row.ip_offset or row.ipv6_offset)
            return False
        contradicts = bool(row.ip_contradiction or row.ipv6_contradiction)
        return self._fragments.complete(at_ns, datagram, contradicts=contradicts)


def _verdict_without_tcp(row: _Row, layers: list[str]) -> Verdict:
    last = layers[-1]
    if layers[0] in _UNKNOWN_LINK:
        return Verdict.UNSUPPORTED
    if last in _CARRIERS:
        return Verdict.MALFORMED
    if last == "ip" and (row.ip_protocol == _TCP_NUMBER or not row.ip_destination):
        return Verdict.MALFORMED
    if last == "ipv6" and not row.ipv6_destination:
        return Verdict.MALFORMED
    if last == _MPLS and (row.ip_protocol == _TCP_NUMBER or not (row.ip_destination or row.ipv6_destination)):
        return Verdict.MALFORMED
    return Verdict.NOT_TCP


def _network_below_tcp(row: _Row, layers: list[str]) -> str | None:
    """The IP layer that TCP's fields belong to: the last one, if all of TCP stands above it.

    None where a frame holds several packets, as a frame of WLAN may: the last of one field can be one
    packet's, and the last of another field another's.
    """
    below = layers[: layers.index(_TCP)]
    above = layers[len(below) + 1 :]
    if not _NETWORK_LAYERS.isdisjoint(above) or _MPLS in above:
        return None
    if below[-1:] == ["ip"] and row.ip_protocol != _TCP_NUMBER and row.ipv6_destination:
        return "ipv6"  # Wireshark 4.6 calls it `ip` in GTP. TCP right behind IPv4 would be named in ip.proto.
    for layer in reversed(below):
        if layer in _NETWORK_LAYERS:
            return layer
        if layer == _MPLS:
            return _network_in_mpls(row)
    return None


def _network_in_mpls(row: _Row) -> str | None:
    """Which IP layer it is where none is named. None if it can't be told from another that is below MPLS."""
    if not row.ipv6_destination or row.ip_protocol == _TCP_NUMBER:
        return "ip"
    if row.ip_protocol not in _IPV4_TO_TCP:
        return "ipv6"
    return None


def _nanoseconds(time_epoch: str) -> int:
    """`1795355448.010408000` -> nanoseconds since the epoch."""
    seconds, _, fraction = time_epoch.partition(".")
    if len(fraction) != 9:
        raise ValueError(f"no time in nanoseconds: {time_epoch!r}")
    return int(seconds + fraction)
