"""Real packets, fragmented as a router would, in every order and with every accident."""

import random
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.fragments import (
    COPY_PATIENCE_NS,
    FRAGMENT_OVERHEAD_BYTES,
    MAX_DATAGRAMS,
    MAX_HELD_BYTES,
    PATIENCE_NS,
    DatagramKey,
    Fragment,
    Reassembler,
)
from probes.frames import FrameDecoder
from probes.pcap.files import CaptureFilesProbe
from probes.probe import DropSite, PacketCounts, Verdict

PORTS = frozenset((25, 465, 587))


def fragments_of(frame, fragment_bytes, identification):
    """RFC 791 section 3.2 and RFC 8200 section 4.5."""
    data = frame.frame
    fragmented = []
    ipv6 = data[12:14] == b"\x86\xdd"
    header_end = 54 if ipv6 else 14 + (data[14] & 15) * 4
    payload = data[header_end:]
    for start in range(0, len(payload), fragment_bytes):
        piece = payload[start : start + fragment_bytes]
        more = start + fragment_bytes < len(payload)
        header = bytearray(data[:header_end])
        if ipv6:
            header[18:20] = struct.pack("!H", len(piece) + 8)
            header[20] = 44
            header += struct.pack("!BBHI", 6, 0, start | more, identification)
        else:
            header[16:22] = struct.pack(
                "!HHH", header_end - 14 + len(piece), identification, start // 8 | (0x2000 if more else 0)
            )
            header[24:26] = b"\0\0"
            header[24:26] = struct.pack("!H", checksum(header[14:]))
        whole = bytes(header) + piece
        fragmented.append(frame._replace(frame=whole, wire_length=len(whole)))
    return fragmented


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@pytest.fixture
def decoder():
    return FrameDecoder(PORTS, PacketCounts())


@pytest.fixture
def packets(frames_of):
    """Real packets with a payload, both IP versions."""
    decoder = FrameDecoder(PORTS, PacketCounts())
    frames = frames_of("plain_single") + frames_of("ipv6") + frames_of("long_lines")[:60]
    return [
        f
        for f in frames
        if (s := decoder.decode(*f)) is not None and 0 < len(f.frame) < 3000 and s.length > 30
    ]


def decode_all(decoder, frames):
    return [segment for frame in frames if (segment := decoder.decode(*frame)) is not None]


def without_time(segments):
    return [segment.replace(at_ns=0) for segment in segments]


@pytest.mark.parametrize("fragment_bytes", [8, 24, 512])
@pytest.mark.parametrize("order", ["sent", "backwards", "shuffled"])
def test_a_fragmented_packet_is_the_packet(fragment_bytes, order, packets, decoder):
    for number, packet in enumerate(packets):
        fragments = fragments_of(packet, fragment_bytes, number)
        if order == "backwards":
            fragments.reverse()
        elif order == "shuffled":
            random.Random(number).shuffle(fragments)
        fresh = FrameDecoder(PORTS, PacketCounts())
        expected = decode_all(fresh, [packet])
        assert decode_all(decoder, fragments) == expected != []
    decoder.flush()
    assert decoder._counts.dropped[DropSite.FRAGMENTS] == 0


def test_tshark_puts_the_same_fragments_together(packets, write_pcap, tshark_segments, tmp_path):
    fragmented = [f for n, packet in enumerate(packets) for f in fragments_of(packet, 56, n)]
    path = write_pcap(tmp_path / "fragments.pcap", fragmented)
    probe = CaptureFilesProbe([str(path)], PORTS)
    segments = [segment for batch in probe.batches() for segment in batch]
    assert segments == tshark_segments(path)
    assert len(segments) == len(packets)
    assert probe.counts.seen == Counter({Verdict.FRAGMENT: len(fragmented), Verdict.SEGMENT: len(packets)})


def test_fragments_cut_by_the_snap_length_keep_the_length(packets, decoder):
    packet = max(packets, key=lambda packet: len(packet.frame) * (packet.frame[12:14] == b"\x08\0"))
    fragments = fragments_of(packet, 104, 7)
    cut = [f._replace(frame=f.frame[:96]) for f in fragments]
    (segment,) = decode_all(decoder, cut)
    (whole,) = decode_all(decoder, [packet])
    assert segment.length == whole.length
    assert whole.payload.startswith(segment.payload)
    assert len(segment.payload) == 96 - 34 - 32


def test_doubled_fragments_give_one_segment_and_no_loss(packets, decoder):
    for number, packet in enumerate(packets):
        twice = [f for fragment in fragments_of(packet, 48, number) for f in (fragment, fragment)]
        assert len(decode_all(decoder, twice)) == 1
    decoder.flush()
    assert decoder._counts.dropped[DropSite.FRAGMENTS] == 0


def test_an_identification_may_be_used_again(packets, decoder):
    fragments = fragments_of(packets[0], 48, 1)
    later = [f._replace(at_ns=f.at_ns + COPY_PATIENCE_NS) for f in fragments]
    assert len(decode_all(decoder, fragments + later)) == 2


def test_a_missing_fragment_gives_nothing_and_is_counted(packets, decoder):
    fragments = fragments_of(packets[0], 24, 1)
    assert decode_all(decoder, fragments[:1] + fragments[2:]) == []
    assert decoder._counts.seen == Counter({Verdict.FRAGMENT: len(fragments) - 1})
    decoder.flush()
    assert decoder._counts.dropped[DropSite.FRAGMENTS] == len(fragments) - 1


def test_fragments_are_forgotten_after_their_time(packets, decoder):
    first, *rest = fragments_of(packets[0], 24, 1)
    late = [f._replace(at_ns=first.at_ns + PATIENCE_NS) for f in rest]
    assert decode_all(decoder, [first, *late]) == []
    assert decoder._counts.dropped[DropSite.FRAGMENTS] == 1


def test_a_clock_that_steps_back_changes_nothing(packets, decoder):
    first, *rest = fragments_of(packets[0], 24, 1)
    early = [f._replace(at_ns=first.at_ns - 3600 * 10**9) for f in rest]
    assert len(decode_all(decoder, [first, *early])) == 1
    again = [f._replace(at_ns=first.at_ns - 7200 * 10**9) for f in (first, *rest)]
    assert len(decode_all(decoder, again)) == 1


def test_fragments_of_other_protocols_are_not_kept(packets, decoder):
    for packet in packets[:1] + packets[-1:]:
        for fragment in fragments_of(packet, 48, 1):
            data = bytearray(fragment.frame)
            data[54 if data[12:14] == b"\x86\xdd" else 23] = 17
            assert decoder.decode(*fragment._replace(frame=bytes(data))) is None
    assert set(decoder._counts.seen) == {Verdict.NOT_TCP}
    assert decoder._reassembler.held_bytes == 0


@pytest.mark.parametrize(
    ("offset_and_flags", "payload_bytes"),
    [
        (0x2000, 20),  # more follow, but not a multiple of eight bytes
        (0x2000, 0),
        (0x1FFF, 64),  # ends beyond 65,535 bytes
    ],
)
def test_a_fragment_that_no_datagram_can_hold_is_malformed(offset_and_flags, payload_bytes, packets, decoder):
    frame = bytearray(fragments_of(packets[0], 64, 1)[0].frame[: 34 + payload_bytes])
    frame[16:18] = struct.pack("!H", 20 + payload_bytes)
    frame[20:22] = struct.pack("!H", offset_and_flags)
    assert decoder.decode(0, 1, bytes(frame), len(frame)) is None
    assert decoder._counts.seen == Counter({Verdict.MALFORMED: 1})


def key(number=1):
    return DatagramKey(b"\1\2\3\4", b"\5\6\7\x08", number, 6)


def piece(offset, length, *, more=True, filled_with=b"x"):
    return Fragment(offset, length, filled_with * length, 6, more)


@pytest.mark.parametrize(
    "intruder",
    [
        piece(8, 16, filled_with=b"y"),  # over two
        piece(0, 8, filled_with=b"y"),  # same place, other bytes
        piece(16, 16),  # over the second's second half
        piece(0, 24, more=False),  # ends before the second
        piece(8, 8, more=False),
    ],
)
def test_an_overlap_ends_the_datagram(intruder):
    counts = PacketCounts()
    reassembler = Reassembler(counts)
    assert reassembler.add(0, key(), piece(0, 8)) is None
    assert reassembler.add(0, key(), piece(16, 8)) is None
    assert reassembler.add(0, key(), intruder) is None
    assert counts.dropped[DropSite.FRAGMENTS] == 3
    assert reassembler.held_bytes == 0
    # Nor does what comes after complete it.
    assert reassembler.add(1, key(), piece(0, 8)) is None
    assert reassembler.add(1, key(), piece(8, 8, more=False)) is None
    assert reassembler.held_bytes == 0


@pytest.mark.parametrize("intruder", [piece(24, 8), piece(24, 8, more=False), piece(8, 8, more=False)])
def test_a_datagram_ends_in_one_place(intruder):
    counts = PacketCounts()
    reassembler = Reassembler(counts)
    assert reassembler.add(0, key(), piece(16, 8, more=False)) is None
    assert reassembler.add(0, key(), intruder) is None
    assert counts.dropped[DropSite.FRAGMENTS] == 2


def test_too_many_datagrams_push_out_the_oldest():
    counts = PacketCounts()
    reassembler = Reassembler(counts)
    for number in range(MAX_DATAGRAMS + 10):
        assert reassembler.add(number, key(number), piece(0, 8)) is None
    assert counts.dropped[DropSite.FRAGMENTS] == 10
    assert reassembler.held_bytes == MAX_DATAGRAMS * (8 + FRAGMENT_OVERHEAD_BYTES)
    assert reassembler.add(2000, key(9), piece(8, 8, more=False)) is None
    assert reassembler.add(2000, key(MAX_DATAGRAMS), piece(8, 8, more=False)) is not None


@pytest.mark.parametrize("fragment_bytes", [8, 1480, 60_000])
def test_memory_has_a_bound(fragment_bytes):
    counts = PacketCounts()
    reassembler = Reassembler(counts)
    sent = 0
    for number in range(200):
        for offset in range(8, 65_000 - fragment_bytes, max(fragment_bytes, 64)):
            assert reassembler.add(number, key(number), piece(offset, fragment_bytes)) is None
            sent += 1
            assert reassembler.held_bytes <= MAX_HELD_BYTES
    reassembler.flush()
    assert reassembler.held_bytes == 0
    assert counts.dropped[DropSite.FRAGMENTS] == sent


@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 40),
            st.integers(1, 4),
            st.booleans(),
            st.integers(-2 * PATIENCE_NS, 2 * PATIENCE_NS),
        ),
        max_size=80,
    )
)
def test_whatever_arrives_every_fragment_is_used_dropped_or_a_copy(arrivals):
    counts = PacketCounts()
    reassembler = Reassembler(counts)
    for number, offset, length, more, at_ns in arrivals:
        datagram = reassembler.add(at_ns, key(number), piece(offset * 8, length * 8, more=more))
        if datagram is not None:
            assert len(datagram.payload) == datagram.length
    reassembler.flush()
    assert counts.dropped[DropSite.FRAGMENTS] <= len(arrivals)
    assert reassembler.held_bytes == 0
