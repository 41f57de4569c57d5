"""Frames one after the other, fragments among them, through one decoder; each also as it lies in a file."""

from collections.abc import Iterator
from random import Random
from typing import Final

from probes.frames import (
    ETHERNET,
    IPV4_LINK_TYPE,
    LINUX_SLL,
    LINUX_SLL2,
    LOOP,
    NULL,
    RAW_LINK_TYPES,
    FrameDecoder,
)
from probes.probe import PacketCounts, Verdict
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_frames
from tests.probes.tshark.packets import ethernet, fragments, ipv4, ipv6, tcp
from tests.segments import PORTS

MAX_BYTES: Final = 1_500
LINK_TYPES: Final = (ETHERNET, LINUX_SLL, LINUX_SLL2, NULL, LOOP, RAW_LINK_TYPES[0], IPV4_LINK_TYPE, 105)
WORDS: Final = tuple(
    bytes.fromhex(word)
    for word in (
        *("0800", "86dd", "8100", "88a8", "9100", "4500", "4600", "60000000", "06", "2c", "00", "3c", "2b"),
        *("33", "2000", "2001", "4000", "0001", "0019", "01d1", "024b", "5018", "f018", "ffff", "0000"),
    )
)
_SECOND_NS: Final = 10**9


def check(data: bytes) -> object:
    script = Script(data)
    counts, counts_in_place = PacketCounts(), PacketCounts()
    alone, in_place = FrameDecoder(PORTS, counts), FrameDecoder(PORTS, counts_in_place)
    link_type = LINK_TYPES[script.byte() & 7]
    at_ns = 0
    frames = 0
    found = []
    while script.more and frames < 64:
        head = script.byte()
        frame = script.long_piece()
        at_ns += (head & 0x3F) * _SECOND_NS
        wire_length = len(frame) + (script.number(2) if head & 0x40 else 0)
        frames += 1
        segment = alone.decode(at_ns, link_type, frame, wire_length)
        around = b"\x45" * (head & 31)
        within = around + frame + around
        other = in_place.decode_within(
            at_ns, link_type, within, len(around), len(around) + len(frame), wire_length=wire_length
        )
        assert segment == other
        if segment is not None:
            assert 0 <= len(segment.payload) <= segment.length
            assert len(segment.flow) in (12, 36)
            assert PORTS & {segment.source_port, segment.destination_port}
            assert 0 <= segment.sequence < 1 << 32
            assert 0 <= segment.flags < 0x100
            found.append(segment.values())
    in_place.settle()
    alone.flush()
    in_place.flush()
    assert counts == counts_in_place
    completed = counts.seen.total() - frames
    assert 0 <= completed <= counts.seen[Verdict.FRAGMENT]
    assert counts.dropped.total() <= counts.seen[Verdict.FRAGMENT]
    return found, sorted(counts.seen.items()), sorted(counts.dropped.items())


def seeds() -> Iterator[bytes]:
    for link_type, frames in captured_frames():
        first = bytes((LINK_TYPES.index(link_type),))
        for begin in range(0, min(len(frames), 24), 4):
            yield first + b"".join(b"\0" + long_piece(frame[:300]) for frame in frames[begin : begin + 4])
    rng = Random(1)
    for packet in (ipv4(tcp(b"EHLO x\r\n" * 12)), ipv6(tcp(b"EHLO x\r\n" * 12))):
        for size in (24, 48):
            pieces = fragments(packet, size)
            for order in (pieces, pieces[::-1], rng.sample(pieces, len(pieces)), pieces + pieces):
                yield b"\0" + b"".join(b"\0" + long_piece(one.data) for one in order)
        inside = packet
        for ethertype in (0x8100, 0x88A8):
            inside = ethernet(inside)[12:]
            yield b"\0" + b"\0" + long_piece(bytes(12) + ethertype.to_bytes(2, "big") + b"\0\1" + inside)
