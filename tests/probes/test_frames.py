"""Frames of real captures, under every link layer and with every header that may stand in between."""

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.frames import ETHERNET, LINUX_SLL, LINUX_SLL2, LOOP, NULL, RAW_LINK_TYPES, FrameDecoder
from probes.pcap.files import CaptureFilesProbe
from probes.probe import PacketCounts, Verdict

PORTS = frozenset((25, 465, 587))
LINK_TYPES = (NULL, ETHERNET, LOOP, LINUX_SLL, 228, 229, LINUX_SLL2, *RAW_LINK_TYPES)


def decode_all(frames):
    counts = PacketCounts()
    decoder = FrameDecoder(PORTS, counts)
    segments = [segment for frame in frames if (segment := decoder.decode(*frame)) is not None]
    return segments, counts


def verdict_of(frame, link_type=ETHERNET, wire_length=None):
    counts = PacketCounts()
    FrameDecoder(PORTS, counts).decode(0, link_type, frame, wire_length or len(frame))
    assert counts.seen.total() == 1
    return next(iter(counts.seen))


@pytest.fixture
def data_frames(frames_of):
    """Ethernet frames with a payload on a watched port: IPv4, then IPv6."""

    def with_payload(name):
        decoder = FrameDecoder(PORTS, PacketCounts())
        return [f for f in frames_of(name) if (s := decoder.decode(*f)) is not None and s.length > 8]

    return with_payload("plain_single"), with_payload("ipv6")


@pytest.mark.parametrize("name", ["plain_single", "ipv6", "anydev_sll", "scans", "long_lines", "abrupt_ends"])
def test_segments_are_those_that_tshark_sees(name, capture, frames_of, tshark_segments):
    segments, counts = decode_all(frames_of(name))
    expected = tshark_segments(capture(name))
    assert segments == expected
    assert counts.seen[Verdict.SEGMENT] == len(expected) > 0
    assert counts.seen.total() == len(frames_of(name))


def test_the_fast_path_says_what_the_general_one_says(frames_of):
    frames = frames_of("bdat")
    general = FrameDecoder(PORTS, PacketCounts())
    assert decode_all(frames)[0] == [
        s
        for at_ns, _, frame, wire_length in frames
        if (s := general._ethertype(at_ns, frame, 12, 14, wire_length)) is not None
    ]


def behind(link_type, header):
    """Replaces the Ethernet header."""

    def rewrite(frame):
        return frame._replace(
            link_type=link_type,
            frame=header(frame.frame) + frame.frame[14:],
            wire_length=frame.wire_length - 14 + len(header(frame.frame)),
        )

    return rewrite


def ethertype(frame):
    return frame[12:14]


def vlan(*tags):
    return lambda frame: frame[:12] + b"".join(struct.pack("!HH", tag, 77) for tag in tags) + ethertype(frame)


LINK_LAYERS = {
    "VLAN": (behind(ETHERNET, vlan(0x8100)), "<"),
    "QinQ": (behind(ETHERNET, vlan(0x88A8, 0x8100)), "<"),
    "old QinQ, three tags": (behind(ETHERNET, vlan(0x9100, 0x8100, 0x8100)), "<"),
    "Linux SLL": (behind(LINUX_SLL, lambda f: b"\0\0\0\1\0\6" + f[6:12] + b"\0\0" + ethertype(f)), "<"),
    "Linux SLL with VLAN": (
        behind(LINUX_SLL, lambda f: b"\0\0\0\1\0\6" + f[6:12] + b"\0\0\x81\0\0\x05" + ethertype(f)),
        "<",
    ),
    "Linux SLL2": (
        behind(LINUX_SLL2, lambda f: ethertype(f) + b"\0\0\0\0\0\2\0\1\0\6" + f[6:12] + b"\0\0"),
        "<",
    ),
    "raw IP": (behind(101, lambda f: b""), "<"),
    "NULL, little endian": (
        behind(NULL, lambda f: b"\2\0\0\0" if ethertype(f) == b"\x08\0" else b"\x1e\0\0\0"),
        "<",
    ),
    "NULL, big endian": (
        behind(NULL, lambda f: b"\0\0\0\2" if ethertype(f) == b"\x08\0" else b"\0\0\0\x18"),
        ">",
    ),
    "LOOP": (behind(LOOP, lambda f: b"\0\0\0\2" if ethertype(f) == b"\x08\0" else b"\0\0\0\x18"), "<"),
}


@pytest.mark.parametrize("layer", LINK_LAYERS)
def test_every_link_layer_carries_the_same_segments(layer, frames_of, write_pcap, tshark_segments, tmp_path):
    rewrite, order = LINK_LAYERS[layer]
    frames = frames_of("plain_single") + frames_of("ipv6")
    ip_frames = [f for f in frames if ethertype(f.frame) in (b"\x08\0", b"\x86\xdd")]
    expected, _ = decode_all(ip_frames)
    path = write_pcap(tmp_path / "other.pcap", [rewrite(f) for f in ip_frames], order=order)
    probe = CaptureFilesProbe([str(path)], PORTS)
    assert [segment for batch in probe.batches() for segment in batch] == expected
    assert tshark_segments(path) == expected  # so the headers made here are right


@pytest.mark.parametrize(
    ("name", "link_type"), [("plain_single", 228), ("ipv6", 229), ("ipv6", 12), ("ipv6", 14)]
)
def test_link_types_that_are_plain_ip(name, link_type, frames_of):
    version = b"\x08\0" if name == "plain_single" else b"\x86\xdd"
    ip_frames = [f for f in frames_of(name) if ethertype(f.frame) == version]
    raw = [
        f._replace(link_type=link_type, frame=f.frame[14:], wire_length=f.wire_length - 14) for f in ip_frames
    ]
    assert decode_all(raw)[0] == decode_all(ip_frames)[0] != []


def test_editcap_chops_ethernet_off_and_nothing_changes(capture, tmp_path, run_tool, frames_of):
    raw = tmp_path / "raw.pcap"
    run_tool(["editcap", "-C", "14", "-L", "-F", "pcap", "-T", "rawip", capture("starttls_454"), raw])
    probe = CaptureFilesProbe([str(raw)], PORTS)
    assert [s for batch in probe.batches() for s in batch] == decode_all(frames_of("starttls_454"))[0]


def test_ipv4_options_are_stepped_over(data_frames):
    for frame in data_frames[0]:
        data = bytearray(frame.frame)
        data[14] = 0x47
        data[16:18] = struct.pack("!H", int.from_bytes(data[16:18], "big") + 8)
        data[34:34] = b"\x01" * 8
        longer = frame._replace(frame=bytes(data), wire_length=len(data))
        assert decode_all([longer])[0] == decode_all([frame])[0]


def with_extension_headers(frame, headers):
    """`headers`: (number, eight or more bytes whose first is the next header)."""
    data = bytearray(frame.frame)
    chain = b""
    numbers = [number for number, _ in headers] + [6]
    for following, (_, header) in zip(numbers[1:], headers, strict=True):
        chain += bytes((following,)) + header[1:]
    data[20] = numbers[0]
    data[18:20] = struct.pack("!H", int.from_bytes(data[18:20], "big") + len(chain))
    data[54:54] = chain
    return frame._replace(frame=bytes(data), wire_length=len(data))


EXTENSION_HEADERS = [
    (0, bytes.fromhex("0000050200000000")),  # hop-by-hop: router alert
    (60, bytes.fromhex("000101040000000001080000000000000000")[:16]),
    (43, bytes.fromhex("0002000000000000") + bytes(range(16))),  # routing, type 0, no segments left
    (44, bytes.fromhex("0000000000001234")),  # atomic fragment
    (51, bytes.fromhex("000400000000000100000001") + bytes(12)),
]


@pytest.mark.parametrize("upto", range(1, len(EXTENSION_HEADERS) + 1))
def test_ipv6_extension_headers_are_stepped_over(upto, data_frames, write_pcap, tshark_segments, tmp_path):
    longer = [with_extension_headers(frame, EXTENSION_HEADERS[:upto]) for frame in data_frames[1]]
    expected, _ = decode_all(data_frames[1])
    segments, counts = decode_all(longer)
    assert segments == expected != []
    assert counts.seen == Counter({Verdict.SEGMENT: len(expected)})
    assert tshark_segments(write_pcap(tmp_path / "headers.pcap", longer)) == expected


def test_a_chain_of_extension_headers_ends_somewhere(data_frames):
    endless = with_extension_headers(data_frames[1][0], [EXTENSION_HEADERS[1]] * 100)
    assert verdict_of(endless.frame) is Verdict.MALFORMED


def test_ethernet_padding_is_no_payload(frames_of):
    short = [f for f in frames_of("scans") if len(f.frame) < 60]
    padded = [f._replace(frame=f.frame.ljust(60, b"\xaa"), wire_length=60) for f in short]
    assert decode_all(padded)[0] == decode_all(short)[0] != []


def test_without_a_length_in_the_ip_header_the_frame_says_it(data_frames):
    """As segmentation offload and BIG TCP leave it."""
    for frames, field in zip(data_frames, (16, 18), strict=True):
        for frame in frames:
            data = bytearray(frame.frame)
            data[field : field + 2] = b"\0\0"
            cut = bytes(data[:90])
            (segment,), _ = decode_all([frame._replace(frame=cut)])
            (expected,), _ = decode_all([frame])
            assert segment.replace(payload=b"") == expected.replace(payload=b"")
            assert expected.payload.startswith(segment.payload)
            assert segment.payload


@pytest.mark.parametrize("snap_length", [48, 54, 60, 68, 96])
def test_a_short_snap_length_keeps_the_lengths(snap_length, frames_of):
    frames = [f for f in frames_of("starttls_tls13") if ethertype(f.frame) == b"\x08\0"]
    whole, _ = decode_all(frames)
    cut, counts = decode_all([f._replace(frame=f.frame[:snap_length]) for f in frames])
    assert counts.seen[Verdict.MALFORMED] == 0
    assert [s.replace(payload=b"") for s in cut] == [s.replace(payload=b"") for s in whole]
    for short, full in zip(cut, whole, strict=True):
        assert full.payload.startswith(short.payload)
        assert len(short.payload) <= max(snap_length - 54, 0)


def test_headers_that_are_cut_short_are_malformed(data_frames):
    for frames, last_header_byte in zip(data_frames, (48, 68), strict=True):
        whole = frames[0].frame
        for size in range(last_header_byte):
            assert verdict_of(whole[:size], wire_length=len(whole)) is Verdict.MALFORMED
        assert verdict_of(whole[:last_header_byte], wire_length=len(whole)) is Verdict.SEGMENT


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (14, b"\x65"),  # version 6 behind the ethertype of version 4
        (14, b"\x44"),  # a header of 16 bytes
        (16, b"\x00\x13"),  # shorter than its own header
        (16, b"\x00\x30"),  # no room for the TCP header
        (46, b"\x40"),  # a TCP header of 16 bytes
    ],
)
def test_headers_that_contradict_themselves_are_malformed(position, value, data_frames):
    frame = bytearray(data_frames[0][0].frame)
    frame[position : position + len(value)] = value
    assert verdict_of(bytes(frame)) is Verdict.MALFORMED


def test_a_frame_sliced_on_the_wire_keeps_its_length(data_frames):
    frame = data_frames[0][0]
    (whole,), _ = decode_all([frame])
    (sliced,), _ = decode_all([frame._replace(frame=frame.frame[:70], wire_length=70)])
    assert sliced.length == whole.length
    assert len(sliced.payload) == 4


def test_a_super_segment_is_one_segment(data_frames):
    head = bytearray(data_frames[0][0].frame[:66])
    head[16:18] = struct.pack("!H", 65_535)
    (segment,), _ = decode_all([(0, ETHERNET, bytes(head) + bytes(65_483), 65_549)])
    assert segment.length == len(segment.payload) == 65_483


def test_tcp_of_no_watched_port_is_another_port(data_frames):
    frame = bytearray(data_frames[0][0].frame)
    frame[34:38] = struct.pack("!HH", 50_000, 443)
    assert verdict_of(bytes(frame)) is Verdict.OTHER_PORT


def test_what_is_no_tcp_is_told_apart(data_frames):
    frame = bytearray(data_frames[0][0].frame)
    frame[23] = 17
    assert verdict_of(bytes(frame)) is Verdict.NOT_TCP
    frame[12:14] = b"\x08\x06"
    assert verdict_of(bytes(frame)) is Verdict.NOT_TCP
    assert verdict_of(bytes.fromhex("00000007") + bytes(40), link_type=NULL) is Verdict.NOT_TCP


def test_a_link_layer_that_nobody_knows_is_unsupported(data_frames):
    assert verdict_of(data_frames[0][0].frame, link_type=105) is Verdict.UNSUPPORTED


def test_checksums_are_not_looked_at(data_frames):
    frame = data_frames[0][0]
    data = bytearray(frame.frame)
    data[50:52] = b"\xde\xad"
    assert decode_all([frame._replace(frame=bytes(data))])[0] == decode_all([frame])[0]


def check_one_verdict(link_type, frame, wire_length):
    counts = PacketCounts()
    segment = FrameDecoder(frozenset(range(65_536)), counts).decode(1, link_type, frame, wire_length)
    assert counts.seen.total() == 1 or (counts.seen.total() == 2 and counts.seen[Verdict.FRAGMENT] == 1)
    if segment is not None:
        assert 0 <= len(segment.payload) <= segment.length
        assert len(segment.source) == len(segment.destination)


@given(
    link_type=st.sampled_from((*LINK_TYPES, 999)), frame=st.binary(max_size=200), more=st.integers(0, 2**20)
)
def test_random_bytes_never_raise(link_type, frame, more):
    check_one_verdict(link_type, frame, len(frame) + more)


@given(
    changes=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 120),
    version=st.booleans(),
)
def test_damaged_headers_never_raise(changes, cut, version):
    ipv4 = bytes.fromhex("45000064000040004006000001020304050607080019c3500000000100000002501801000000000000")
    ipv6 = bytes.fromhex("60000000004c0640") + bytes(range(32)) + ipv4[20:40]
    frame = bytearray(bytes(12) + (b"\x08\0" + ipv4 if version else b"\x86\xdd" + ipv6) + bytes(60))
    for position, value in changes:
        frame[position] = value
    check_one_verdict(ETHERNET, bytes(frame[:cut]), len(frame))


@given(
    link_type=st.sampled_from((*LINK_TYPES, 999)),
    head=st.sampled_from(("0800", "86dd", "8100 0000 0800", "8100 0000 86dd", "0806")),
    network=st.sampled_from(
        (
            "45000064000040004006000001020304050607080019c3500000000100000002501801000000000000",
            "6000000000400640" + bytes(range(32)).hex() + "0019c3500000000100000002501801000000000000",
        )
    ),
    changes=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3),
    size=st.integers(0, 140),
    around=st.tuples(st.binary(max_size=40), st.binary(max_size=40)),
)
def test_a_frame_is_the_same_wherever_it_lies(link_type, head, network, changes, size, around):
    padding = {LINUX_SLL: 14, LINUX_SLL2: 0}.get(link_type, 12)
    between = {LINUX_SLL2: 18}.get(link_type, 0)
    has_ethertype = link_type in (ETHERNET, LINUX_SLL, LINUX_SLL2)
    begin = bytes(padding) + bytes.fromhex(head) + bytes(between) if has_ethertype else b""
    frame = bytearray(begin + bytes.fromhex(network) + bytes(80))
    for position, value in changes:
        frame[position] = value
    alone = bytes(frame[:size])
    counts = PacketCounts()
    decoder = FrameDecoder(PORTS, counts)
    before, behind = around
    found = decoder.decode_within(
        7, link_type, before + alone + behind, len(before), len(before) + len(alone), wire_length=200
    )
    decoder.settle()
    general = FrameDecoder(PORTS, PacketCounts())
    if has_ethertype:
        expected = general._ethertype(7, alone, padding, len(begin[: padding + 2 + between]), 200)
    else:
        expected = general._other_link_layer(7, link_type, alone, 200)
    general.settle()
    assert (found, counts.seen) == (expected, general._counts.seen)
