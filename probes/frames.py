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

from collections.abc import Callable
from struct import Struct
from typing import Final

from probes.fragments import MAX_DATAGRAM_BYTES, Datagram, DatagramKey, Fragment, Reassembler
from probes.probe import PacketCounts, Verdict
from probes.segment import Segment, flow_of

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

# Ethernet, IPv4 without options and TCP up to its flags, in one go: ethertype; version and header length;
# total length; flags and fragment offset; protocol; addresses and ports; sequence and acknowledgement
# numbers, data offset, flags.
_PLAIN_FRAME: Final = Struct("!12xHBxH2xHxB2x12sIIBB")
_IPV4: Final = Struct("!BxHHHxB2x4s4s")
_IPV6: Final = Struct("!4xHBx16s16s")
_TCP: Final = Struct("!HHIIBB")
_UINT16: Final = Struct("!H")
_FRAGMENT_HEADER: Final = Struct("!BxHI")  # RFC 8200 section 4.5

_MORE_FRAGMENTS: Final = 0x2000
_FRAGMENT_OFFSET: Final = 0x1FFF
_IS_FRAGMENT: Final = _MORE_FRAGMENTS | _FRAGMENT_OFFSET

# Every packet makes a Segment, and the tuple's own constructor takes a third of the time of the class's.
_new_tuple = tuple.__new__
# An attribute of an enum costs as much as the sum it stands in.
_SEGMENT: Final = Verdict.SEGMENT


class FrameDecoder:
    """Decodes the frames of one capture, in its order."""

    __slots__ = ("_counts", "_link_layers", "_ports", "_reassembler", "_seen")

    def __init__(self, ports: frozenset[int], counts: PacketCounts) -> None:
        self._ports = ports
        self._counts = counts
        self._seen = counts.seen
        self._reassembler = Reassembler(counts)
        self._link_layers: dict[int, Callable[[int, bytes, int], Segment | None]] = {
            ETHERNET: self._ethernet,
            NULL: self._null,
            LOOP: self._null,
            LINUX_SLL: self._linux_sll,
            LINUX_SLL2: self._linux_sll2,
            IPV4_LINK_TYPE: self.decode_ip,
            IPV6_LINK_TYPE: self.decode_ip,
            **dict.fromkeys(RAW_LINK_TYPES, self.decode_ip),
        }

    def decode(self, at_ns: int, link_type: int, frame: bytes, wire_length: int) -> Segment | None:
        """The segment in a frame, if it holds one on a watched port.

        `wire_length` is the frame's length before the snap length cut it.
        """
        if link_type == ETHERNET and len(frame) >= 48:
            (
                ethertype,
                version_and_length,
                total_length,
                fragment,
                protocol,
                flow,
                sequence,
                acknowledgement,
                data_offset,
                flags,
            ) = _PLAIN_FRAME.unpack_from(frame)
            # The common case, without a call: the same as _ethernet, _ipv4 and _tcp.
            if (
                ethertype == ETHERTYPE_IPV4
                and version_and_length == 0x45
                and protocol == PROTOCOL_TCP
                and not fragment & _IS_FRAGMENT
            ):
                if flow[8] << 8 | flow[9] not in self._ports and flow[10] << 8 | flow[11] not in self._ports:
                    self._seen[Verdict.OTHER_PORT] += 1
                    return None
                payload_start = 34 + (data_offset >> 4) * 4
                end = 14 + total_length
                if payload_start <= end and data_offset >= 0x50:
                    self._seen[_SEGMENT] += 1
                    return _new_tuple(
                        Segment,
                        (
                            at_ns,
                            flow,
                            flags,
                            sequence,
                            acknowledgement,
                            end - payload_start,
                            frame[payload_start:end],
                            0,
                        ),
                    )
        link_layer = self._link_layers.get(link_type)
        if link_layer is None:
            return self._count(Verdict.UNSUPPORTED)
        return link_layer(at_ns, frame, wire_length)

    def decode_ip(self, at_ns: int, packet: bytes, wire_length: int) -> Segment | None:
        """The same for a packet that begins with its IP header; `wire_length` is from there on."""
        return self._ip(at_ns, packet, 0, wire_length)

    def flush(self) -> None:
        """Counts fragments that wait for others as dropped: no more frames will come."""
        self._reassembler.flush()

    def _count(self, verdict: Verdict) -> Segment | None:
        """Counts a frame that gives no segment."""
        self._seen[verdict] += 1
        return None

    # Link layers

    def _ethernet(self, at_ns: int, frame: bytes, wire_length: int) -> Segment | None:
        return self._ethertype(at_ns, frame, 12, wire_length)

    def _linux_sll(self, at_ns: int, frame: bytes, wire_length: int) -> Segment | None:
        return self._ethertype(at_ns, frame, 14, wire_length)

    def _linux_sll2(self, at_ns: int, frame: bytes, wire_length: int) -> Segment | None:
        return self._ethertype(at_ns, frame, 0, wire_length, network_start=20)

    def _ethertype(
        self, at_ns: int, frame: bytes, position: int, wire_length: int, network_start: int | None = None
    ) -> Segment | None:
        """What the ethertype at `position` announces stands behind it, or at `network_start`."""
        start = position + 2 if network_start is None else network_start
        if len(frame) < start:
            return self._count(Verdict.MALFORMED)
        (ethertype,) = _UINT16.unpack_from(frame, position)
        for _ in range(MAX_VLAN_TAGS):
            if ethertype not in ETHERTYPES_VLAN:
                break
            if len(frame) < start + 4:
                return self._count(Verdict.MALFORMED)
            (ethertype,) = _UINT16.unpack_from(frame, start + 2)
            start += 4
        if ethertype == ETHERTYPE_IPV4:
            return self._ip(at_ns, frame, start, wire_length, version=4)
        if ethertype == ETHERTYPE_IPV6:
            return self._ip(at_ns, frame, start, wire_length, version=6)
        return self._count(Verdict.NOT_TCP)

    def _null(self, at_ns: int, frame: bytes, wire_length: int) -> Segment | None:
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

    def _ip(
        self, at_ns: int, frame: bytes, start: int, wire_length: int, version: int | None = None
    ) -> Segment | None:
        """`version` is what the link layer announced, if it did."""
        if len(frame) <= start:
            return self._count(Verdict.MALFORMED)
        found = frame[start] >> 4
        if version is not None and found != version:
            return self._count(Verdict.MALFORMED)
        if found == 4:
            return self._ipv4(at_ns, frame, start, wire_length)
        if found == 6:
            return self._ipv6(at_ns, frame, start, wire_length)
        return self._count(Verdict.MALFORMED)

    def _ipv4(self, at_ns: int, frame: bytes, start: int, wire_length: int) -> Segment | None:
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
        ends = (source, destination)
        if not fragment & _IS_FRAGMENT:
            return self._tcp(at_ns, frame, header_end, end, ends)
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
        return self._tcp(at_ns, datagram.payload, 0, datagram.length, ends) if datagram else None

    def _ipv6(self, at_ns: int, frame: bytes, start: int, wire_length: int) -> Segment | None:
        """RFC 8200 section 3."""
        header_end = start + _IPV6.size
        if len(frame) < header_end:
            return self._count(Verdict.MALFORMED)
        payload_length, next_header, source, destination = _IPV6.unpack_from(frame, start)
        # Payload length 0: a jumbogram (RFC 2675), as BIG TCP makes them, or one that hardware will cut up.
        end = header_end + payload_length if payload_length else wire_length
        if end < header_end:
            return self._count(Verdict.MALFORMED)
        ends = (source, destination)
        return self._next_header(at_ns, frame, header_end, end, ends, next_header=next_header)

    def _next_header(
        self,
        at_ns: int,
        frame: bytes,
        start: int,
        end: int,
        ends: tuple[bytes, bytes],
        *,
        next_header: int,
        reassembled: bool = False,
    ) -> Segment | None:
        """IPv6's chain of extension headers (RFC 8200 section 4)."""
        for _ in range(MAX_EXTENSION_HEADERS):
            if next_header == PROTOCOL_TCP:
                return self._tcp(at_ns, frame, start, end, ends)
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
                        DatagramKey(*ends, identification, -1),
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
                        ends,
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

    def _tcp(
        self, at_ns: int, frame: bytes, start: int, end: int, ends: tuple[bytes, bytes]
    ) -> Segment | None:
        """RFC 9293 section 3.1. Only the first 14 bytes need to have been captured."""
        if len(frame) < start + _TCP.size:
            return self._count(Verdict.MALFORMED)
        source_port, destination_port, sequence, acknowledgement, data_offset, flags = _TCP.unpack_from(
            frame, start
        )
        if source_port not in self._ports and destination_port not in self._ports:
            return self._count(Verdict.OTHER_PORT)
        payload_start = start + (data_offset >> 4) * 4
        if data_offset < 0x50 or end < payload_start:
            return self._count(Verdict.MALFORMED)
        self._seen[Verdict.SEGMENT] += 1
        return Segment(
            at_ns,
            flow_of(ends[0], source_port, ends[1], destination_port),
            flags,
            sequence,
            acknowledgement,
            end - payload_start,
            frame[payload_start:end],
        )
