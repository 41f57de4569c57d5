"""The bytes of one captured frame -> a Segment.

    frame ── link layer ──▶ IPv4 or IPv6 ──▶ TCP ──▶ Segment
                              │    ▲
                              ▼    │ whole datagrams
                            fragments

Only TCP with one end on a watched port comes out. Every frame counts one `Verdict`; the fragment that
completes a datagram counts once more, by what the datagram held. Nothing in a frame raises.

Lengths are the IP header's: Ethernet padding is no payload, and a payload cut by the snap length is still
counted whole. TCP checksums are not looked at: with offload, those of locally sent packets are always wrong.
A total length beyond the frame is taken at its word, as the trace of a packet broker that slices frames.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from probes.fragments import MAX_DATAGRAM_BYTES, Datagram, DatagramKey, Fragment, Reassembler
from probes.probe import PacketCounts, Verdict
from probes.segment import Segment

if TYPE_CHECKING:
    from mypy_extensions import i64  # an int, which mypyc keeps in a machine word

# Link types: https://www.tcpdump.org/linktypes.html. Where two numbers stand for one thing, the first is
# what capture files hold (LINKTYPE_), the others what libpcap calls it on some system (DLT_).
NULL: Final = 0
ETHERNET: Final = 1
RAW_LINK_TYPES: Final = (101, 12, 14)
LOOP: Final = 108
LINUX_SLL: Final = 113
IPV4_LINK_TYPE: Final = 228
IPV6_LINK_TYPE: Final = 229
LINUX_SLL2: Final = 276
IP_LINK_TYPES: Final = frozenset((*RAW_LINK_TYPES, IPV4_LINK_TYPE, IPV6_LINK_TYPE))

# https://www.iana.org/assignments/ieee-802-numbers
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_IPV6: Final = 0x86DD
# 802.1Q, 802.1ad, and the number that switches used for QinQ before 802.1ad.
ETHERTYPES_VLAN: Final = frozenset((0x8100, 0x88A8, 0x9100))
# Chosen because two tags are common, three are seen, and a loop needs an end.
MAX_VLAN_TAGS: Final = 4

# AF_INET is 2 everywhere; AF_INET6 differs: Linux, Windows, NetBSD and OpenBSD, FreeBSD, Darwin.
ADDRESS_FAMILIES_IPV4: Final = frozenset((2,))
ADDRESS_FAMILIES_IPV6: Final = frozenset((10, 23, 24, 28, 30))

# https://www.iana.org/assignments/protocol-numbers
PROTOCOL_HOP_BY_HOP: Final = 0
PROTOCOL_TCP: Final = 6
PROTOCOL_ROUTING: Final = 43
PROTOCOL_FRAGMENT: Final = 44
PROTOCOL_AH: Final = 51
PROTOCOL_DESTINATION_OPTIONS: Final = 60
# Extension headers that say their length in units of 8 bytes, the first unit not counted (RFC 8200
# section 4).
OPTION_HEADERS: Final = frozenset((PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_DESTINATION_OPTIONS))
MAY_LEAD_TO_TCP: Final = OPTION_HEADERS | {PROTOCOL_TCP, PROTOCOL_AH}
# RFC 8200 section 4.1: each at most once, destination options twice, which makes seven.
MAX_EXTENSION_HEADERS: Final = 8

_IPV4: Final = Struct("!BxHHHxB2x4s4s")
_IPV6: Final = Struct("!4xHBx16s16s")
_FRAGMENT_HEADER: Final = Struct("!BxHI")  # RFC 8200 section 4.5

_MORE_FRAGMENTS: Final = 0x2000
_FRAGMENT_OFFSET: Final = 0x1FFF
_IS_FRAGMENT: Final = _MORE_FRAGMENTS | _FRAGMENT_OFFSET


class FrameDecoder:
    """Decodes the frames of one capture, in its order."""

    __slots__ = ("_counts", "_is_watched", "_other_ports", "_reassembler", "_seen", "_segments")

    def __init__(self, ports: frozenset[int], counts: PacketCounts) -> None:
        # 1 at each watched port: cheaper to look up than a set.
        is_watched = bytearray(65_536)
        for port in ports:
            is_watched[port] = 1
        self._is_watched = bytes(is_watched)
        self._counts = counts
        self._seen = counts.seen
        self._segments: i64 = 0
        self._other_ports: i64 = 0
        self._reassembler = Reassembler(counts)

    def decode(self, at_ns: int, link_type: int, frame: bytes, wire_length: int) -> Segment | None:
        """The segment in a frame, if it holds one on a watched port.

        `wire_length` is the frame's length before the snap length cut it.
        """
        segment = self.decode_within(at_ns, link_type, frame, 0, len(frame), wire_length=wire_length)
        self.settle()
        return segment

    def decode_ip(self, at_ns: int, packet: bytes, wire_length: int) -> Segment | None:
        """The same for a packet that begins with its IP header; `wire_length` is from there on."""
        segment = self._ip(at_ns, packet, 0, wire_length)
        self.settle()
        return segment

    def decode_within(
        self, at_ns: int, link_type: i64, data: bytes, start: i64, end: i64, *, wire_length: i64
    ) -> Segment | None:
        """The same for a frame that is `data[start:end]`. `counts` know of it after `settle`."""
        if link_type == ETHERNET:
            ethertype_at = start + 12
            network = start + 14
        elif link_type == LINUX_SLL:
            ethertype_at = start + 14
            network = start + 16
        elif link_type == LINUX_SLL2:
            ethertype_at = start
            network = start + 20
        else:
            return self._other_link_layer(at_ns, link_type, data[start:end], wire_length)
        # The common cases, without copying the frame: the same as _ethertype, _ip, _ipv4 and _ipv6.
        if end >= network + 34:
            if (
                data[network] == 0x45
                and data[network + 9] == PROTOCOL_TCP
                and data[ethertype_at] == 0x08
                and data[ethertype_at + 1] == 0x00
                and not data[network + 6] & 0x3F  # no fragment
                and not data[network + 7]
            ):
                tcp = network + 20
                datagram_end = network + _uint16(data, network + 2)
                if datagram_end >= tcp:
                    flow = data[network + 12 : network + 24]
                    return self._tcp(at_ns, data, tcp, datagram_end, captured_end=end, flow=flow)
            elif (
                data[network] >> 4 == 6
                and data[network + 6] == PROTOCOL_TCP
                and data[ethertype_at] == 0x86
                and data[ethertype_at + 1] == 0xDD
            ):
                tcp = network + 40
                datagram_end = tcp + _uint16(data, network + 4)
                if datagram_end > tcp and end >= tcp + 4:
                    flow = data[network + 8 : network + 44]
                    return self._tcp(at_ns, data, tcp, datagram_end, captured_end=end, flow=flow)
        return self._ethertype(at_ns, data[start:end], ethertype_at - start, network - start, wire_length)

    def settle(self) -> None:
        """Brings `counts` up to date: what is common is added up here, and entered at times."""
        if self._segments:
            self._seen[Verdict.SEGMENT] += self._segments
            self._segments = 0
        if self._other_ports:
            self._seen[Verdict.OTHER_PORT] += self._other_ports
            self._other_ports = 0

    def flush(self) -> None:
        """Counts fragments that wait for others as dropped: no more frames will come."""
        self._reassembler.flush()

    def _count(self, verdict: Verdict) -> Segment | None:
        """Counts a frame that gives no segment."""
        self._seen[verdict] += 1
        return None

    # Link layers

    def _ethertype(
        self, at_ns: int, frame: bytes, position: i64, network: i64, wire_length: i64
    ) -> Segment | None:
        """What the ethertype at `position` announces stands at `network`, behind any VLAN tags."""
        if len(frame) < network:
            return self._count(Verdict.MALFORMED)
        ethertype = _uint16(frame, position)
        for _ in range(MAX_VLAN_TAGS):
            if ethertype not in ETHERTYPES_VLAN:
                break
            if len(frame) < network + 4:
                return self._count(Verdict.MALFORMED)
            ethertype = _uint16(frame, network + 2)
            network += 4
        if ethertype == ETHERTYPE_IPV4:
            return self._ip(at_ns, frame, network, wire_length, version=4)
        if ethertype == ETHERTYPE_IPV6:
            return self._ip(at_ns, frame, network, wire_length, version=6)
        return self._count(Verdict.NOT_TCP)

    def _other_link_layer(self, at_ns: int, link_type: i64, frame: bytes, wire_length: i64) -> Segment | None:
        """Those without an ethertype."""
        if link_type in (NULL, LOOP):
            return self._address_family(at_ns, frame, wire_length)
        if link_type in IP_LINK_TYPES:
            return self._ip(at_ns, frame, 0, wire_length)
        return self._count(Verdict.UNSUPPORTED)

    def _address_family(self, at_ns: int, frame: bytes, wire_length: i64) -> Segment | None:
        """BSD loopback: the address family in four bytes, in the byte order of the machine that captured
        (NULL) or the network's (LOOP)."""
        if len(frame) < 4:
            return self._count(Verdict.MALFORMED)
        family = int.from_bytes(frame[:4], "big")
        if family > 0xFFFF:
            family = int.from_bytes(frame[:4], "little")
        if family in ADDRESS_FAMILIES_IPV4:
            return self._ip(at_ns, frame, 4, wire_length, version=4)
        if family in ADDRESS_FAMILIES_IPV6:
            return self._ip(at_ns, frame, 4, wire_length, version=6)
        return self._count(Verdict.NOT_TCP)

    # Network layers

    def _ip(self, at_ns: int, frame: bytes, start: i64, wire_length: i64, version: i64 = 0) -> Segment | None:
        """`version` is what the link layer announced; 0 if it did not."""
        if len(frame) <= start:
            return self._count(Verdict.MALFORMED)
        found = frame[start] >> 4
        if version and found != version:
            return self._count(Verdict.MALFORMED)
        if found == 4:
            return self._ipv4(at_ns, frame, start, wire_length)
        if found == 6:
            return self._ipv6(at_ns, frame, start, wire_length)
        return self._count(Verdict.MALFORMED)

    def _ipv4(self, at_ns: int, frame: bytes, start: i64, wire_length: i64) -> Segment | None:
        """RFC 791 section 3.1."""
        if len(frame) < start + _IPV4.size:
            return self._count(Verdict.MALFORMED)
        version_and_length, total_length, identification, fragment, protocol, source, destination = (
            _IPV4.unpack_from(frame, start)
        )
        header_end = start + (version_and_length & 15) * 4
        # Total length 0: captured before the hardware cut it up, or too long for the field (TSO, BIG TCP).
        end = start + total_length if total_length else wire_length
        if header_end < start + 20 or end < header_end:
            return self._count(Verdict.MALFORMED)
        if protocol != PROTOCOL_TCP:
            return self._count(Verdict.NOT_TCP)
        addresses = source + destination
        if not fragment & _IS_FRAGMENT:
            return self._tcp_behind(at_ns, frame, header_end, end, addresses)
        datagram = self._fragment(
            at_ns,
            DatagramKey(source, destination, identification, protocol),
            Fragment(
                (fragment & _FRAGMENT_OFFSET) * 8,
                end - header_end,
                frame[header_end:end],
                protocol,
                bool(fragment & _MORE_FRAGMENTS),
            ),
        )
        return self._tcp_behind(at_ns, datagram.payload, 0, datagram.length, addresses) if datagram else None

    def _ipv6(self, at_ns: int, frame: bytes, start: i64, wire_length: i64) -> Segment | None:
        """RFC 8200 section 3."""
        header_end = start + _IPV6.size
        if len(frame) < header_end:
            return self._count(Verdict.MALFORMED)
        payload_length, next_header, source, destination = _IPV6.unpack_from(frame, start)
        # Payload length 0: a jumbogram (RFC 2675), as BIG TCP makes them, or one that hardware will cut up.
        end = header_end + payload_length if payload_length else wire_length
        if end < header_end:
            return self._count(Verdict.MALFORMED)
        addresses = source + destination
        return self._next_header(at_ns, frame, header_end, end, addresses, next_header=next_header)

    def _next_header(
        self,
        at_ns: int,
        frame: bytes,
        start: i64,
        end: i64,
        addresses: bytes,
        *,
        next_header: int,
        reassembled: bool = False,
    ) -> Segment | None:
        """IPv6's chain of extension headers (RFC 8200 section 4)."""
        for _ in range(MAX_EXTENSION_HEADERS):
            if next_header == PROTOCOL_TCP:
                return self._tcp_behind(at_ns, frame, start, end, addresses)
            if next_header not in MAY_LEAD_TO_TCP and next_header != PROTOCOL_FRAGMENT:
                return self._count(Verdict.NOT_TCP)
            if len(frame) < start + 8 or end < start + 8:
                return self._count(Verdict.MALFORMED)
            if next_header == PROTOCOL_FRAGMENT:
                following, fragment, identification = _FRAGMENT_HEADER.unpack_from(frame, start)
                if fragment & 0xFFF9:  # else an atomic fragment: a whole packet (RFC 6946)
                    if reassembled:
                        return self._count(Verdict.MALFORMED)
                    if following not in MAY_LEAD_TO_TCP:
                        return self._count(Verdict.NOT_TCP)
                    datagram = self._fragment(
                        at_ns,
                        DatagramKey(addresses[:16], addresses[16:], identification, -1),
                        Fragment(
                            fragment & 0xFFF8,
                            end - start - 8,
                            frame[start + 8 : end],
                            following,
                            bool(fragment & 1),
                        ),
                    )
                    if datagram is None:
                        return None
                    return self._next_header(
                        at_ns,
                        datagram.payload,
                        0,
                        datagram.length,
                        addresses,
                        next_header=datagram.protocol,
                        reassembled=True,
                    )
                start += 8
            elif next_header == PROTOCOL_AH:
                following = frame[start]
                start += (frame[start + 1] + 2) * 4  # RFC 4302 section 2.2
            else:
                following = frame[start]
                start += (frame[start + 1] + 1) * 8
            next_header = following
        return self._count(Verdict.MALFORMED)

    def _fragment(self, at_ns: int, key: DatagramKey, fragment: Fragment) -> Datagram | None:
        """Counts a fragment; the datagram, if this one completed it."""
        if (
            fragment.length <= 0
            or (fragment.more and fragment.length % 8)
            or fragment.offset + fragment.length > MAX_DATAGRAM_BYTES
        ):
            self._seen[Verdict.MALFORMED] += 1
            return None
        self._seen[Verdict.FRAGMENT] += 1
        return self._reassembler.add(at_ns, key, fragment)

    # Transport layer

    def _tcp_behind(self, at_ns: int, frame: bytes, start: i64, end: i64, addresses: bytes) -> Segment | None:
        """What stands at `start`, behind an IP header with these addresses."""
        flow = addresses + frame[start : start + 4]
        return self._tcp(at_ns, frame, start, end, captured_end=len(frame), flow=flow)

    def _tcp(
        self, at_ns: int, data: bytes, start: i64, end: i64, *, captured_end: i64, flow: bytes
    ) -> Segment | None:
        """RFC 9293 section 3.1. Only the first 14 bytes need to have been captured; the datagram goes on to
        `end`."""
        if captured_end < start + 14:
            return self._count(Verdict.MALFORMED)
        if not self._is_watched[_uint16(data, start)] and not self._is_watched[_uint16(data, start + 2)]:
            self._other_ports += 1
            return None
        data_offset = data[start + 12]
        payload_start = start + (data_offset >> 4) * 4
        if data_offset < 0x50 or end < payload_start:
            return self._count(Verdict.MALFORMED)
        self._segments += 1
        payload_end = captured_end if captured_end < end else end
        return Segment(
            at_ns,
            flow,
            data[start + 13],
            _uint32(data, start + 4),
            _uint32(data, start + 8),
            end - payload_start,
            # Compiled, a slice of bytes must not end before it begins: a frame may be cut in its options.
            data[payload_start:payload_end] if payload_start < payload_end else b"",
        )


def _uint16(data: bytes, position: i64) -> i64:
    first: i64 = data[position]
    second: i64 = data[position + 1]
    return first << 8 | second


def _uint32(data: bytes, position: i64) -> i64:
    first: i64 = data[position]
    second: i64 = data[position + 1]
    third: i64 = data[position + 2]
    fourth: i64 = data[position + 3]
    return first << 24 | second << 16 | third << 8 | fourth
