"""Frames through the real tshark, held against what the pcap probe's decoder makes of them.

tshark takes most of a second to start, so all frames made by hand go through one.
"""

import random
import struct
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.fragments import PATIENCE_NS
from probes.frames import ETHERNET, LINUX_SLL, LINUX_SLL2, LOOP, NULL, FrameDecoder
from probes.probe import DropSite, PacketCounts, Restart, Verdict
from probes.segment import Segment
from probes.tshark.probe import TsharkFilesProbe
from probes.tshark.rows import FIELDS, RowError, RowReader
from tests.probes.test_frames import LINK_LAYERS
from tests.probes.tshark.packets import (
    CLIENT,
    CLIENT6,
    IPV4,
    IPV6,
    LINE,
    SERVER,
    SERVER6,
    Frame,
    at,
    cut,
    ethernet,
    fragments,
    ipv4,
    ipv6,
    pcapng,
    tcp,
    timed,
    udp,
    whole,
)
from tests.segments import PORTS, segments_of

WLAN = 105
USER0 = 147


class Answer(NamedTuple):
    """What became of one frame."""

    segment: Segment | None
    verdicts: Counter[Verdict]

    @property
    def verdict(self) -> Verdict:
        (verdict,) = self.verdicts.elements()
        return verdict


class Answers(NamedTuple):
    frames: list[Answer]
    counts: PacketCounts


def ask_tshark(frames: Sequence[Frame], folder: Path, *, frames_per_tshark: int = 250_000) -> Answers:
    """Through the whole probe; each frame's answer is noted on the way."""
    path = folder / "frames.pcapng"
    path.write_bytes(pcapng(frames))
    noted: list[Answer] = []
    with pytest.MonkeyPatch.context() as patch:
        read = RowReader.read

        def read_and_note(reader: RowReader, text: str) -> tuple[int, Segment | None]:
            before = reader._seen.copy()
            number, segment = read(reader, text)
            noted.append(Answer(segment, reader._seen - before))
            return number, segment

        patch.setattr(RowReader, "read", read_and_note)
        probe = TsharkFilesProbe([str(path)], PORTS, frames_per_tshark=frames_per_tshark)
        try:
            segments = [segment for batch in probe.batches() for segment in batch]
        finally:
            probe.close()
    assert segments == [answer.segment for answer in noted if answer.segment is not None]
    assert len(noted) == len(frames)
    return Answers(noted, probe.counts)


def ask_decoder(frames: Sequence[Frame]) -> Answers:
    counts = PacketCounts()
    decoder = FrameDecoder(PORTS, counts)
    answers = []
    for at_ns, frame in timed(frames):
        before = counts.seen.copy()
        segment = decoder.decode(at_ns, frame.link_type, frame.data, frame.wire_length)
        answers.append(Answer(segment, counts.seen - before))
    decoder.flush()
    return Answers(answers, counts)


def changed(data: bytes, position: int, value: bytes) -> bytes:
    return data[:position] + value + data[position + len(value) :]


def extended(*headers: tuple[int, bytes], payload: bytes | None = None, last: int = 6) -> bytes:
    """IPv6 with extension headers: number, and contents without their first byte, the next header."""
    numbers = [number for number, _ in headers[1:]] + [last]
    chain = b"".join(
        bytes((following,)) + contents for following, (_, contents) in zip(numbers, headers, strict=True)
    )
    return ipv6(chain + (tcp() if payload is None else payload), following=headers[0][0])


HOP_BY_HOP = (0, bytes.fromhex("00050200000000"))
DESTINATION = (60, bytes.fromhex("00010400000000"))
ROUTING = (43, bytes.fromhex("02000000000000") + bytes(range(16)))
AUTHENTICATION = (51, bytes.fromhex("0400000000000100000001") + bytes(12))
ATOMIC_FRAGMENT = (44, bytes.fromhex("00000000001234"))

IP4 = ipv4(tcp())
IP6 = ipv6(tcp())
ETH4 = ethernet(IP4)
ETH6 = ethernet(IP6)
BIG = tcp(b"x" * 70_000)


def sll(packet: bytes) -> bytes:
    return bytes.fromhex("0000000100060200000000010000") + ETH4[12:14] + packet


# Where both should agree.
AGREED: dict[str, Frame] = {
    "IPv4": whole(ETH4),
    "IPv6": whole(ETH6),
    "IPv4 options": whole(ethernet(ipv4(tcp(), options=b"\1" * 8))),
    "an IPv4 option of a wrong length": whole(ethernet(ipv4(tcp(), options=b"\7\0\0\0"))),
    "hop-by-hop": whole(ethernet(extended(HOP_BY_HOP))),
    "destination options, twice": whole(ethernet(extended(DESTINATION, DESTINATION))),
    "routing": whole(ethernet(extended(ROUTING))),
    "authentication": whole(ethernet(extended(AUTHENTICATION))),
    "atomic fragment": whole(ethernet(extended(ATOMIC_FRAGMENT))),
    "all extension headers": whole(
        ethernet(extended(HOP_BY_HOP, DESTINATION, ROUTING, ATOMIC_FRAGMENT, AUTHENTICATION))
    ),
    "no next header": whole(ethernet(ipv6(b"", following=59))),
    "total length 0": whole(ethernet(ipv4(tcp(), total=0))),
    "total length 0, cut": cut(ethernet(ipv4(tcp(), total=0)), 60),
    "total length 0, too long for the field": whole(ethernet(ipv4(BIG, total=0))),
    "payload length 0": whole(ethernet(ipv6(tcp(), length=0))),
    "payload length 0, too long for the field": cut(ethernet(ipv6(BIG, length=0)), 96),
    "jumbogram": whole(
        ethernet(
            ipv6(b"\6\0\xc2\4" + struct.pack("!I", 8 + len(BIG)) + BIG, following=0, length=0),
        )
    ),
    "a super-segment": whole(ethernet(ipv4(tcp(b"x" * 65_495)))),
    "padding": whole(ethernet(ipv4(tcp(b""))) + b"\xaa" * 6),
    "padding, IPv6": whole(ethernet(ipv6(tcp(b""))) + b"\xaa" * 6),
    "a payload that is cut": cut(ETH4, 60),
    "a payload that is cut, IPv6": cut(ETH6, 80),
    "another port": whole(ethernet(ipv4(tcp(destination=443)))),
    "UDP": whole(ethernet(ipv4(udp(b"hello", 25), protocol=17))),
    "UDP, IPv6": whole(ethernet(ipv6(udp(b"hello", 25), following=17))),
    "UDP behind hop-by-hop": whole(ethernet(extended(HOP_BY_HOP, payload=udp(b"hello", 25), last=17))),
    "ARP": whole(ethernet(bytes.fromhex("0001080006040001") + bytes(20), 0x0806)),
    "IEEE 802.3": whole(bytes(12) + b"\0\x26\x42\x42\3" + bytes(35)),
    "an unknown ethertype": whole(ethernet(b"hello", 0x1234)),
    "an unknown protocol": whole(ethernet(ipv4(b"hello", protocol=253))),
    "an unknown protocol, empty": whole(ethernet(ipv4(b"", protocol=253))),
    "ESP": whole(ethernet(ipv4(bytes(40), protocol=50))),
    "ICMP about mail": whole(ethernet(ipv4(bytes.fromhex("0303000000000000") + IP4[:28], protocol=1))),
    "ICMP about mail, all of it": whole(ethernet(ipv4(bytes.fromhex("0303000000000000") + IP4, protocol=1))),
    "ICMPv6 about mail": whole(ethernet(ipv6(bytes.fromhex("0104000000000000") + IP6, following=58))),
    "ICMP about a fragment of mail": whole(
        ethernet(
            ipv4(bytes.fromhex("0303000000000000") + fragments(IP4, 24, 99)[0].data[14:], protocol=1),
        )
    ),
    "data in the SYN": whole(ethernet(ipv4(tcp(flags=0x02)))),
    "FIN": whole(ethernet(ipv4(tcp(b"", flags=0x11)))),
    "RST": whole(ethernet(ipv4(tcp(b"", flags=0x04)))),
    "reserved flags": whole(ethernet(ipv4(tcp(flags=0xE18)))),
    "congestion flags": whole(ethernet(ipv4(tcp(flags=0x1D8)))),
    "the sequence number goes round": whole(ethernet(ipv4(tcp(sequence=2**32 - 5)))),
    "to itself": whole(ethernet(ipv4(tcp(source=25), destination=CLIENT))),
    "port 0": whole(ethernet(ipv4(tcp(source=0)))),
    "from a port that tshark dissects": whole(ethernet(ipv4(tcp(source=1194)))),
    "a TCP option of a wrong length": whole(ethernet(ipv4(tcp(options=b"\2\0\0\0")))),
    "don't fragment": whole(ethernet(ipv4(tcp(), fragment=0x4000))),
    "a reserved bit beside don't fragment": whole(ethernet(ipv4(tcp(), fragment=0x8000))),
    "four VLAN tags": whole(ethernet(b"\0\5\x81\0" * 3 + b"\0\5\x08\0" + IP4, 0x8100)),
    "VLAN inside Linux SLL": whole(sll(IP4)[:14] + b"\x81\0\0\5\x08\0" + IP4, LINUX_SLL),
    "null of FreeBSD": whole(b"\x1c\0\0\0" + IP6, NULL),
    "null of NetBSD, other byte order": whole(b"\0\0\0\x18" + IP6, NULL),
    "null without IP": whole(b"\0\0\0\7" + bytes(40), NULL),
    "IPv4 as a link type": whole(IP4, 228),
    "IPv6 as a link type": whole(IP6, 229),
    "raw IPv6": whole(IP6, 101),
    "a link type that nobody knows": whole(ETH4, USER0),
    "version 6 behind the ethertype of version 4": whole(changed(ETH4, 14, b"\x65")),
    "an IPv4 header of 16 bytes": whole(changed(ETH4, 14, b"\x44")),
    "an IPv4 header that goes into TCP": whole(changed(ETH4, 14, b"\x4f")),
    "version 2": whole(changed(ETH4, 14, b"\x25")),
    "a total length below the header's": whole(ethernet(ipv4(tcp(), total=19))),
    "a total length without TCP": whole(ethernet(ipv4(tcp(), total=20))),
    "a total length within TCP": whole(ethernet(ipv4(tcp(), total=39))),
    "a payload length within TCP": whole(ethernet(ipv6(tcp(), length=19))),
    "an extension header beyond the packet": whole(
        ethernet(ipv6(b"\6\xff\5\2\0\0\0\0" + tcp(), following=0)),
    ),
    **{
        f"a TCP header of {4 * words} bytes": whole(ethernet(ipv4(tcp(offset=words)))) for words in (0, 4, 15)
    },
    **{
        f"a TCP header of {4 * words} bytes, IPv6": whole(ethernet(ipv6(tcp(offset=words))))
        for words in (0, 4, 15)
    },
}

ADDRESSES = {IPV4: (CLIENT, SERVER), IPV6: (CLIENT6, SERVER6)}


def outer4(payload: bytes, protocol: int) -> bytes:
    return ipv4(payload, protocol=protocol, source=bytes((192, 0, 2, 1)), destination=bytes((192, 0, 2, 2)))


def outer6(payload: bytes, following: int) -> bytes:
    network = bytes.fromhex("20010db8") + bytes(11)
    return ipv6(payload, following=following, source=network + b"\1", destination=network + b"\2")


def tunnels(inner: bytes, ethertype: int) -> dict[str, bytes]:
    """The packet in whatever tshark takes off."""
    gre = struct.pack("!HH", 0, ethertype) + inner
    bridged = struct.pack("!HHI", 0x2000, 0x6558, 42 << 8) + ethernet(inner)
    vxlan = udp(struct.pack("!II", 0x08 << 24, 42 << 8) + ethernet(inner), 4789)
    geneve = udp(struct.pack("!HHI", 0, 0x6558, 42 << 8) + ethernet(inner), 6081)
    gtp = udp(struct.pack("!BBHI", 0x30, 0xFF, len(inner), 7) + inner, 2152, 2152)
    ppp = struct.pack("!H", 0x21 if ethertype == IPV4 else 0x57) + inner
    number = 4 if ethertype == IPV4 else 41
    mpls = struct.pack("!I", 100 << 12 | 0x100 | 64) + inner
    mpls_in_gre = struct.pack("!HH", 0, 0x8847) + mpls
    return {
        "GRE over IPv4": outer4(gre, 47),
        "GRE over IPv6": outer6(gre, 47),
        "Ethernet in GRE": outer4(bridged, 47),
        "IPv4": outer4(inner, number),
        "IPv6": outer6(inner, number),
        "VXLAN over IPv4": outer4(vxlan, 17),
        "VXLAN over IPv6": outer6(vxlan, 17),
        "GENEVE over IPv4": outer4(geneve, 17),
        "GENEVE over IPv6": outer6(geneve, 17),
        "GTP": outer4(gtp, 17),
        "MPLS": mpls,
        "MPLS over IPv4": outer4(mpls_in_gre, 47),
        "MPLS over IPv6": outer6(mpls_in_gre, 47),
        "PPPoE": struct.pack("!BBHH", 0x11, 0, 7, len(ppp)) + ppp,
        "IPv4 in GRE over IPv6": outer6(struct.pack("!HH", 0, IPV4) + outer4(inner, number), 47),
    }


ETHERTYPES = {"MPLS": 0x8847, "PPPoE": 0x8864}

TUNNELLED: dict[str, tuple[Frame, int]] = {
    f"IPv{version} in {name}": (whole(ethernet(packet, ETHERTYPES.get(name))), ethertype)
    for version, ethertype in ((4, IPV4), (6, IPV6))
    for name, packet in tunnels(IP4 if version == 4 else IP6, ethertype).items()
}


def wlan(*packets: bytes) -> bytes:
    """An aggregate of several packets in one frame: IEEE 802.11 section 9.3.2.2.2."""
    parts = []
    for packet in packets:
        body = bytes.fromhex("aaaa03000000") + struct.pack("!H", IPV4) + packet
        part = b"\2" * 6 + b"\3" * 6 + struct.pack("!H", len(body)) + body
        parts.append(part + bytes(-len(part) % 4))
    head = bytes.fromhex("88020000") + b"\1" * 6 + b"\2" * 6 + b"\3" * 6 + bytes(2)
    return head + bytes.fromhex("8000") + b"".join(parts)


def sflow(*sampled: bytes) -> bytes:
    """Samples of Ethernet frames: sFlow version 5."""
    samples = b""
    for frame in sampled:
        padded = frame + bytes(-len(frame) % 4)
        record = struct.pack("!6I", 1, 16 + len(padded), 1, len(frame), 0, len(frame)) + padded
        sample = struct.pack("!8I", 1, 1, 100, 100, 0, 1, 2, 1) + record
        samples += struct.pack("!II", 1, len(sample)) + sample
    datagram = struct.pack("!II4s4I", 5, 1, SERVER, 0, 1, 1000, len(sampled)) + samples
    return ethernet(ipv4(udp(datagram, 6343), protocol=17))


STRANGER = ipv4(udp(b"hello", 9999), protocol=17, source=bytes((10, 9, 9, 9)))
FAR_FUTURE_NS = (253_402_300_799 + 1) * 10**9

# Where tshark differs, or knows more.
OTHERS: dict[str, Frame] = {
    "sliced": whole(ETH4[:60]),
    "version 6 whole, behind the ethertype of version 4": whole(ethernet(IP6, IPV4)),
    "version 4 whole, behind the ethertype of version 6": whole(ethernet(IP4, IPV6)),
    "a chain of extension headers": whole(ethernet(extended(*[DESTINATION] * 9))),
    "authentication, IPv4": whole(ethernet(ipv4(b"\6" + AUTHENTICATION[1] + tcp(), protocol=51))),
    "a source route": whole(ethernet(ipv4(tcp(), options=b"\1\x83\7\4\x0a\0\0\7"))),
    "RST with a cause": whole(ethernet(ipv4(tcp(b"goodbye", flags=0x04)))),
    "five VLAN tags": whole(ethernet(b"\0\5\x81\0" * 4 + b"\0\5\x08\0" + IP4, 0x8100)),
    "IEEE 802.2": whole(
        bytes(12) + struct.pack("!H", 8 + len(IP4)) + bytes.fromhex("aaaa030000000800") + IP4
    ),
    "WLAN": whole(wlan(IP4), WLAN),
    "WLAN, two segments": whole(wlan(IP4, ipv4(tcp(b""), source=bytes((10, 9, 9, 9)))), WLAN),
    "WLAN, mail and a stranger": whole(wlan(IP4, STRANGER), WLAN),
    "WLAN, a stranger and mail": whole(wlan(STRANGER, IP4), WLAN),
    "sFlow": whole(sflow(ETH4)),
    "sFlow, mail and a stranger": whole(sflow(ETH4, ethernet(STRANGER))),
    "sFlow, two segments": whole(sflow(ETH4, ethernet(ipv4(tcp(b""))))),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """Of all frames made by hand, each seen a second after the last one."""
    named = {**AGREED, **{name: frame for name, (frame, _) in TUNNELLED.items()}, **OTHERS}
    found = ask_tshark(list(named.values()), tmp_path_factory.mktemp("frames"))
    assert not found.counts.dropped
    assert not found.counts.restarts
    return dict(zip(named, found.frames, strict=True))


@pytest.mark.parametrize("name", AGREED)
def test_a_frame_gives_what_the_pcap_probe_makes_of_it(name: str, answers: dict[str, Answer]) -> None:
    number = list(AGREED).index(name)
    assert answers[name] == ask_decoder(list(AGREED.values())[: number + 1]).frames[number]


@pytest.mark.parametrize("name", TUNNELLED)
def test_mail_in_a_tunnel_has_the_inner_addresses(name: str, answers: dict[str, Answer]) -> None:
    answer = answers[name]
    segment = answer.segment
    assert segment is not None
    assert answer.verdicts == {Verdict.SEGMENT: 1}
    assert (segment.source, segment.destination) == ADDRESSES[TUNNELLED[name][1]]
    assert (segment.source_port, segment.destination_port) == (40_000, 25)
    assert (segment.length, segment.payload) == (len(LINE), LINE)


def test_a_frame_sliced_on_the_wire_is_as_long_as_it_is(answers: dict[str, Answer]) -> None:
    """The next segment shows the gap."""
    segment = answers["sliced"].segment
    assert segment is not None
    assert (segment.length, segment.payload) == (6, LINE[:6])


def test_the_version_counts_and_not_the_ethertype_of_ipv4(answers: dict[str, Answer]) -> None:
    assert answers["version 6 whole, behind the ethertype of version 4"].verdict is Verdict.SEGMENT
    assert answers["version 4 whole, behind the ethertype of version 6"].verdict is Verdict.NOT_TCP


@pytest.mark.parametrize(
    "name", ["a chain of extension headers", "authentication, IPv4", "five VLAN tags", "IEEE 802.2", "WLAN"]
)
def test_tshark_finds_its_way_further(name: str, answers: dict[str, Answer]) -> None:
    segment = answers[name].segment
    assert segment is not None
    assert segment.payload == LINE
    assert ask_decoder([OTHERS[name]]).frames[0].segment is None


def test_of_a_source_route_the_last_address_is_the_destination(answers: dict[str, Answer]) -> None:
    segment = answers["a source route"].segment
    assert segment is not None
    assert segment.destination == bytes((10, 0, 0, 7))


def test_what_a_reset_says_is_no_payload(answers: dict[str, Answer]) -> None:
    """No parser looks at it."""
    segment = answers["RST with a cause"].segment
    assert segment is not None
    assert (segment.length, segment.payload) == (7, b"")


@pytest.mark.parametrize("name", ["WLAN, two segments", "WLAN, mail and a stranger"])
def test_packets_side_by_side_are_not_mixed(name: str, answers: dict[str, Answer]) -> None:
    assert answers[name] == Answer(None, Counter({Verdict.UNSUPPORTED: 1}))


def test_the_last_of_several_packets_can_be_told_if_it_alone_is_tcp(answers: dict[str, Answer]) -> None:
    segment = answers["WLAN, a stranger and mail"].segment
    assert segment is not None
    assert (segment.source, segment.destination, segment.payload) == (CLIENT, SERVER, LINE)


@pytest.mark.parametrize("name", ["sFlow", "sFlow, mail and a stranger", "sFlow, two segments"])
def test_a_sample_of_mail_is_not_mail(name: str, answers: dict[str, Answer]) -> None:
    assert answers[name] == Answer(None, Counter({Verdict.NOT_TCP: 1}))


# Cut headers

CUTTABLE = {
    "IPv4": ETH4,
    "IPv6": ETH6,
    "IPv4 options": AGREED["IPv4 options"].data,
    "extension headers": AGREED["all extension headers"].data,
    "QinQ": ethernet(b"\0\5\x81\0\0\5\x86\xdd" + IP6, 0x88A8),
}


@pytest.fixture(scope="module")
def cut_answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Frame, Answer, Answer]]:
    """Each frame cut at every length: tshark's answer, and the decoder's."""
    frames = [cut(data, size) for data in CUTTABLE.values() for size in range(1, len(data) + 1)]
    frames += [cut(sll(IP4), size, LINUX_SLL) for size in range(1, len(sll(IP4)) + 1)]
    frames += [cut(b"\2\0\0\0" + IP4, size, NULL) for size in range(1, len(IP4) + 5)]
    frames += [cut(IP4, size, 101) for size in range(1, len(IP4) + 1)]
    frames += [cut(IP6, size, 229) for size in range(1, len(IP6) + 1)]
    found = ask_tshark(frames, tmp_path_factory.mktemp("cut"))
    return list(zip(frames, found.frames, ask_decoder(frames).frames, strict=True))


def test_a_frame_cut_anywhere_gives_what_the_pcap_probe_makes_of_it(
    cut_answers: list[tuple[Frame, Answer, Answer]],
) -> None:
    different = [(frame, answer, expected) for frame, answer, expected in cut_answers if answer != expected]
    assert len(cut_answers) > 600
    # Of the TCP header tshark wants 16 bytes before 4.6; since then 14, as the decoder does.
    cuttable = {(frame.link_type, frame.wire_length) for frame, _, _ in cut_answers}
    assert len(different) in (0, 2 * len(cuttable))
    for frame, answer, expected in different:
        assert len(LINE) + 20 - (frame.wire_length - len(frame.data)) in (14, 15)
        assert answer.verdict is Verdict.MALFORMED
        assert expected.verdict is Verdict.SEGMENT


# Link layers of real packets


def test_every_link_layer_carries_the_same_segments(tmp_path: Path) -> None:
    expected = [segment for name in ("plain_single", "ipv6") for segment in segments_of(name)]
    frames: list[Frame] = []
    layers = [rewrite for rewrite, order in LINK_LAYERS.values() if order == "<"]
    assert len(layers) > 8
    for rewrite in layers:
        for segment in expected:
            is_ipv4 = len(segment.source) == 4
            header = tcp(
                segment.payload,
                source=segment.source_port,
                destination=segment.destination_port,
                sequence=segment.sequence,
                flags=segment.flags,
            )
            make = ipv4 if is_ipv4 else ipv6
            data = ethernet(make(header, source=segment.source, destination=segment.destination))
            other = rewrite(_Rewritable(segment.at_ns, ETHERNET, data, len(data)))
            frames.append(Frame(other.frame, other.wire_length, other.link_type, other.at_ns))
    found = ask_tshark(frames, tmp_path)
    segments = [answer.segment for answer in found.frames]
    unacknowledged = [segment.replace(acknowledgement=2000) for segment in expected]
    assert segments == unacknowledged * len(layers)
    assert {frame.link_type for frame in frames} >= {NULL, ETHERNET, LOOP, LINUX_SLL, LINUX_SLL2, 101}


class _Rewritable(NamedTuple):
    """As tests.probes.conftest has frames."""

    at_ns: int
    link_type: int
    frame: bytes
    wire_length: int


# Fragments

SECOND = 10**9
LONG4 = ipv4(tcp(b"A" * 60))
LONG6 = ipv6(tcp(b"A" * 60))


def _fragment_cases(packet: bytes) -> dict[str, list[Frame]]:
    """Where both should agree; each with its own identification, and all at one time."""

    def pieces(number: int, size: int) -> list[Frame]:
        return fragments(packet, size, number)

    doubled = [frame for frame in pieces(5, 40) for _ in range(2)]
    return {
        "in order": pieces(1, 24),
        "backwards": pieces(2, 24)[::-1],
        "of eight bytes": pieces(3, 8),
        "mixed": random.Random(4).sample(pieces(4, 8), 10),
        "doubled": doubled,
        "twice": pieces(6, 40) * 2,
        "of another port": fragments(
            ipv4(tcp(destination=443)) if packet is LONG4 else ipv6(tcp(destination=443)), 24, 7
        ),
        "a fragment twice, before another": [*pieces(8, 24)[:1] * 2, *pieces(8, 24)[1:]],
        "incomplete": pieces(10, 24)[:1] + pieces(10, 24)[2:],
        "contradicting": [pieces(9, 40)[0], _with_other_bytes(pieces(9, 40)[0]), pieces(9, 40)[1]],
    }


def _with_other_bytes(frame: Frame) -> Frame:
    return frame._replace(data=frame.data[:-8] + b"contrary")


FRAGMENTED = {
    f"{version}: {name}": at(1_764_000_000 * SECOND, frames)
    for version, packet in (("IPv4", LONG4), ("IPv6", LONG6))
    for name, frames in _fragment_cases(packet).items()
}


@pytest.fixture(scope="module")
def fragment_answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    frames = [frame for case in FRAGMENTED.values() for frame in case]
    return ask_tshark(frames, tmp_path_factory.mktemp("fragments"))


@pytest.mark.parametrize("name", FRAGMENTED)
def test_fragments_give_what_the_pcap_probe_makes_of_them(name: str, fragment_answers: Answers) -> None:
    start = sum(len(case) for case in list(FRAGMENTED.values())[: list(FRAGMENTED).index(name)])
    found = fragment_answers.frames[start : start + len(FRAGMENTED[name])]
    assert found == ask_decoder(FRAGMENTED[name]).frames
    assert any(answer.segment for answer in found) != name.endswith(
        ("another port", "incomplete", "contradicting")
    )


def test_fragments_that_were_given_up_are_counted_as_the_pcap_probe_counts_them(
    fragment_answers: Answers,
) -> None:
    expected = ask_decoder([frame for case in FRAGMENTED.values() for frame in case])
    # Incomplete: three of four. Contradicting: two of three, since the decoder looks at nothing that comes
    # after the contradiction, and to tshark's watch what contradicts looks like a copy.
    assert expected.counts.dropped == {DropSite.FRAGMENTS: 2 * (3 + 2)}
    assert fragment_answers.counts.dropped == expected.counts.dropped


def old_and_new(packet: bytes, later_ns: int) -> list[Frame]:
    """A datagram's first half, and later the second half of another of the same identification."""
    return at(1_764_000_000 * SECOND, fragments(packet, 40)[:1]) + at(
        1_764_000_000 * SECOND + later_ns, fragments(packet, 40)[1:]
    )


@pytest.mark.parametrize("packet", [LONG4, LONG6], ids=["IPv4", "IPv6"])
def test_a_new_datagram_is_not_filled_up_with_an_old_one(packet: bytes, tmp_path: Path) -> None:
    found = ask_tshark(
        [*old_and_new(packet, PATIENCE_NS), *at(1_764_000_100 * SECOND, fragments(packet, 40))], tmp_path
    )
    assert [answer.segment is not None for answer in found.frames] == [False, False, False, True]
    assert found.counts.seen == {Verdict.FRAGMENT: 4, Verdict.SEGMENT: 1}
    assert found.counts.dropped == {DropSite.FRAGMENTS: 2}


def test_fragments_given_to_two_tsharks_are_counted_as_dropped(tmp_path: Path) -> None:
    """The second one knows nothing of the first one's when the identification is used again."""
    start = 1_764_000_000 * SECOND
    frames = [*at(start, fragments(LONG4, 24)), *at(start + PATIENCE_NS, fragments(LONG4, 40))]
    del frames[3]
    found = ask_tshark(frames, tmp_path, frames_per_tshark=3)
    assert [answer.segment is not None for answer in found.frames] == [False] * 4 + [True]
    assert found.counts.restarts == {Restart.PLANNED: 1}
    assert found.counts.dropped == {DropSite.FRAGMENTS: 3}


def test_fragments_cut_by_the_snap_length_give_nothing(tmp_path: Path) -> None:
    """Which the pcap probe puts together."""
    first, second = fragments(LONG4, 40)
    shorter = cut(second.data, len(second.data) - 4)
    start = 1_764_000_000 * SECOND
    frames = [first, shorter]
    for number in (2, 3):
        whole_one, other = fragments(LONG4, 40, number)
        pieces = [cut(whole_one.data, 60), other]
        frames += pieces if number == 2 else pieces[::-1]
    found = ask_tshark(at(start, frames), tmp_path)
    assert found.counts.seen == {Verdict.FRAGMENT: 6}
    assert found.counts.dropped == {DropSite.FRAGMENTS: 6}
    assert ask_decoder(at(start, frames)).counts.seen == {Verdict.FRAGMENT: 6, Verdict.SEGMENT: 3}


# Nothing in a frame raises


def _hostile(seed: int) -> list[Frame]:
    """Random bytes, and headers with some bytes overwritten and the end cut off."""
    chance = random.Random(seed)
    models = [*AGREED.values(), *(frame for frame, _ in TUNNELLED.values()), *OTHERS.values()]
    models += fragments(LONG4, 24) + fragments(LONG6, 24)
    models = [frame for frame in models if len(frame.data) < 1000]
    frames = []
    for _ in range(300):
        link_type = chance.choice((ETHERNET, NULL, LOOP, LINUX_SLL, LINUX_SLL2, 101, 228, 229, WLAN, USER0))
        data = bytearray(chance.randbytes(chance.randrange(1, 120)))
        if chance.random() < 0.8:
            model = chance.choice(models)
            link_type, data = model.link_type, bytearray(model.data)
            for _ in range(chance.randrange(4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        size = chance.randrange(1, len(data) + 1) if chance.random() < 0.3 else len(data)
        frames.append(Frame(bytes(data[:size]), len(data) + chance.choice((0, 0, 0, 7)), link_type))
    return frames


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64))
def test_every_frame_gets_its_verdict_whatever_it_holds(seed: int, tmp_path: Path) -> None:
    found = ask_tshark(_hostile(seed), tmp_path)
    for segment, verdicts in found.frames:
        assert verdicts.total() == 1 or (verdicts.total() == 2 and verdicts[Verdict.FRAGMENT] == 1)
        if segment is not None:
            assert 0 <= len(segment.payload) <= segment.length
            assert len(segment.source) == len(segment.destination)
    assert not found.counts.restarts
    assert not found.counts.dropped[DropSite.TSHARK]


# Rows that tshark would not write


def _row(**values: str) -> str:
    """Of a plain segment."""
    row = {
        "frame.number": "1",
        "frame.time_epoch": "1764000000.000000000",
        "frame.protocols": "eth:ethertype:ip:tcp:data",
        "ip.src": "10.0.0.1",
        "ip.dst": "10.0.0.2",
        "ip.proto": "6",
        "tcp.srcport": "40000",
        "tcp.dstport": "25",
        "tcp.seq_raw": "1",
        "tcp.ack_raw": "2",
        "tcp.flags": "0x0018",
        "tcp.len": "0",
    } | {name.replace("__", "."): value for name, value in values.items()}
    return "\t".join(row.get(name, "") for name in FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        _row() + "\t",
        _row(frame__number=""),
        _row(frame__number="one"),
        _row(frame__time_epoch=""),
        _row(frame__time_epoch="1764000000.0"),
        _row(tcp__srcport="smtp"),
        _row(tcp__srcport="65536"),
        _row(tcp__flags="many"),
        _row(tcp__payload="4"),
        _row(ip__src="mail"),
        _row(ip__src=""),
        _row(ip__src="::1"),
    ],
)
def test_what_is_no_answer_raises(text: str) -> None:
    with pytest.raises(RowError):
        RowReader(PORTS, PacketCounts()).read(text)


def test_a_time_that_no_calendar_knows_is_malformed() -> None:
    counts = PacketCounts()
    reader = RowReader(PORTS, counts)
    assert reader.read(_row(frame__time_epoch="253402300799.999999999"))[1] is not None
    assert reader.read(_row(frame__time_epoch="253402300800.000000000"))[1] is None
    assert reader.read(_row(frame__time_epoch="-253402300800.000000000"))[1] is None
    assert counts.seen == {Verdict.SEGMENT: 1, Verdict.MALFORMED: 2}


# tshark 4.4 does not name the IP layer in MPLS.
_NO_IPV4: Final = {"ip__src": "", "ip__dst": "", "ip__proto": ""}
_IPV6: Final = {"ipv6__src": "2001:db8::1", "ipv6__dst": "2001:db8::2"}


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"frame__protocols": "eth:ethertype:mpls:tcp:data"}, "10.0.0.1"),
        ({"frame__protocols": "eth:ethertype:mpls:tcp:data", **_NO_IPV4, **_IPV6}, "2001:db8::1"),
        ({"frame__protocols": "eth:ethertype:ip:gre:mpls:tcp:data"}, "10.0.0.1"),
        ({"frame__protocols": "eth:ethertype:ip:gre:mpls:tcp", "ip__proto": "47", **_IPV6}, "2001:db8::1"),
        ({"frame__protocols": "eth:ethertype:ipv6:gre:mpls:tcp", **_IPV6}, "10.0.0.1"),
        ({"frame__protocols": "eth:ethertype:mpls:ipv6:tcp", **_NO_IPV4, **_IPV6}, "2001:db8::1"),
        # An authentication header of IPv4, or what is below MPLS in IPv6? It can't be told.
        ({"frame__protocols": "eth:ethertype:ip:ah:gre:mpls:tcp", "ip__proto": "51", **_IPV6}, None),
        # Two packets in one frame.
        ({"frame__protocols": "wlan:llc:mpls:tcp:data:llc:mpls:tcp"}, None),
    ],
)
def test_an_ip_layer_that_mpls_hides_is_found_by_its_fields(
    values: dict[str, str], source: str | None
) -> None:
    counts = PacketCounts()
    _, segment = RowReader(PORTS, counts).read(_row(**values))
    assert (segment and str(ip_address(segment.source))) == source
    assert counts.seen == {Verdict.SEGMENT if source else Verdict.UNSUPPORTED: 1}


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"frame__protocols": "eth:ethertype:ip:udp:gtp:ip:tcp", "ip__proto": "17", **_IPV6}, "2001:db8::1"),
        ({"frame__protocols": "eth:ethertype:ipv6:udp:gtp:ip:tcp", **_NO_IPV4, **_IPV6}, "2001:db8::1"),
        ({"frame__protocols": "eth:ethertype:ipv6:udp:gtp:ip:tcp", **_IPV6}, "10.0.0.1"),
        ({"frame__protocols": "eth:ethertype:ipv6:ip:ah:tcp", "ip__proto": "51", **_IPV6}, "10.0.0.1"),
    ],
)
def test_ipv6_in_gtp_that_is_named_ipv4_is_found_by_its_fields(values: dict[str, str], source: str) -> None:
    """As tshark 4.6 names it."""
    counts = PacketCounts()
    _, segment = RowReader(PORTS, counts).read(_row(**values))
    assert segment is not None
    assert str(ip_address(segment.source)) == source
    assert counts.seen == {Verdict.SEGMENT: 1}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, Verdict.MALFORMED),
        ({"ip__proto": "59"}, Verdict.NOT_TCP),
        ({"ip__src": "", "ip__dst": "", "ip__proto": ""}, Verdict.MALFORMED),
    ],
)
def test_a_frame_that_is_over_in_mpls_was_cut_off_there(values: dict[str, str], verdict: Verdict) -> None:
    counts = PacketCounts()
    nothing_of_tcp = dict.fromkeys(("tcp__srcport", "tcp__dstport", "tcp__flags", "tcp__len"), "")
    row = _row(frame__protocols="eth:ethertype:mpls", **nothing_of_tcp, **values)
    assert RowReader(PORTS, counts).read(row)[1] is None
    assert counts.seen == {verdict: 1}


def test_what_waits_at_the_end_is_dropped() -> None:
    counts = PacketCounts()
    reader = RowReader(PORTS, counts)
    fragment = {"ip__flags__mf": "1", "tcp__srcport": "", "tcp__len": "", "frame__protocols": "eth:ip:data"}
    assert reader.read(_row(**fragment))[1] is None
    assert not counts.dropped
    reader.flush()
    assert counts.dropped == {DropSite.FRAGMENTS: 1}


def test_tcp_with_nothing_below_it_is_unsupported() -> None:
    counts = PacketCounts()
    _, segment = RowReader(PORTS, counts).read(_row(frame__protocols="tcp"))
    assert segment is None
    assert counts.seen == {Verdict.UNSUPPORTED: 1}
