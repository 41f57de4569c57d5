"""What the filter may write into the ring buffer: any field, in records that the kernel has framed."""

from collections.abc import Iterator
from typing import Final

from probes.ebpf import event
from probes.ebpf.clock import BootClock
from probes.ebpf.event import EventReader
from probes.frames import FrameDecoder
from probes.probe import PacketCounts
from probes.segment import LEFT_OUT
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_sessions
from tests.probes.tshark.packets import fragments, ipv4, ipv6, tcp
from tests.segments import PORTS

MAX_BYTES: Final = 1_200
WORDS: Final = (b"\xff\xff\xff\xff", bytes(4), b"\x80\0\0\0", b"\7\xff", b"E\0", b"`\0")
_ROOMS: Final = (0, 64, 256, 1_536, 4_096)  # `hand_up` of event.c
_KINDS: Final = (0, 4, 5, 6, 7)


class _Clock(BootClock):
    """The same in every process."""

    def __init__(self) -> None:
        super().__init__()
        self.utc_minus_boot_ns = self.least_utc_minus_boot_ns = 1_790_000_000 * 10**9


_CLOCK: Final = _Clock()


def check(data: bytes) -> object:
    script = Script(data)
    records = []
    expected = 0
    while script.more:
        record, segments = _record(script)
        records.append(record)
        expected += segments
    counts = PacketCounts()
    reader = EventReader(FrameDecoder(PORTS, counts), _CLOCK)
    found = reader.read(b"".join(records))
    one_by_one = EventReader(FrameDecoder(PORTS, PacketCounts()), _CLOCK)
    assert [segment for record in records for segment in one_by_one.read(record)] == found
    assert sum(not segment.flags & LEFT_OUT for segment in found) >= reader.segments_seen
    assert expected <= len(found) <= expected + len(records)
    for segment in found:
        assert len(segment.payload) <= max(segment.length, 4) or segment.length < 64
        assert len(segment.flow) in (12, 36)
    return [segment.values() for segment in found], sorted(counts.seen.items())


def _record(script: Script) -> tuple[bytes, int]:
    """As the kernel lays it, and how many segments it is at least."""
    kind = _KINDS[script.byte() % 5]
    payload = script.long_piece()
    room = next((room for room in _ROOMS if len(payload) <= room), _ROOMS[-1])
    captured = min(len(payload), room)
    odd = script.byte()
    skipped = script.number(4) if odd & 1 else 0
    body = event._EVENT.pack(
        event._EVENT.size - 8 + room,
        script.number(8) >> 1 if odd & 2 else 5 * 10**9,
        len(payload) + (script.number(2) if odd & 4 else 0),
        captured,
        script.number(4),
        script.number(4),
        skipped,
        script.number(4) if odd & 1 else 0,
        script.byte() - 5,
        script.take(4),
        kind,
        script.byte(),
        script.take(36),
    )
    record = body + payload[:captured].ljust(room, b"\xee")
    record += bytes(-len(record) % 8)
    if kind == 0:
        return record, 0
    return record, (skipped > 0) + (kind in (4, 6))


def seeds() -> Iterator[bytes]:
    flow = bytes(range(32)) + b"\x9c\x40\0\x19"
    for _, segments in captured_sessions(MAX_BYTES - 300):
        rows = []
        for _, segment in segments[:20]:
            numbers = segment.sequence.to_bytes(4, "big") + segment.acknowledgement.to_bytes(4, "big")
            rows.append(
                b"\1" + long_piece(segment.payload) + b"\0" + numbers + b"\5" + bytes(4)
                + bytes((segment.flags,)) + segment.flow.ljust(36, b"\0")
            )  # fmt: skip
        yield b"".join(rows)[:MAX_BYTES]
    for packet in (ipv4(tcp(b"EHLO x\r\n" * 12)), ipv6(tcp(b"EHLO x\r\n" * 12))):
        yield b"".join(
            b"\0" + long_piece(one.data[14:]) + bytes(9) + b"\5" + bytes(5) + flow
            for one in fragments(packet, 48)
        )
    yield b"".join(
        bytes((kind,)) + b"\0\4EHLO" + b"\1\0\1\0\0" + bytes(8) + b"\0\2\0\0" + b"\5\x17\3\3\0\x18" + flow
        for kind in range(1, 5)
    )
