"""Segments that no faithful network delivers, of several connections, through the table: any flags, any
order, any numbers, cut short, left out, at any time."""

from collections.abc import Iterator
from typing import Final

from monitor.side import Side
from probes.segment import ACK, FIN, LEFT_OUT, RST, SYN, Segment, flow_of
from tests.fuzz.record_rules import check_record
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_sessions
from tests.fuzz.words import SMTP, TLS
from tests.segments import frozen_records

MAX_BYTES: Final = 900
WORDS: Final = (*SMTP, *TLS)
_PORTS: Final = (25, 465)
_HOSTS: Final = (b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02")
_START_NS: Final = 1_790_000_000 * 10**9
_MODULUS: Final = 1 << 32
_FIRST: Final = ((1 << 32) - 40, 70_000)
"""The client's numbers run over 2**32 soon."""

# A segment's first byte: side, which of four connections, and what is unusual about it.
_ODD_FLAGS: Final = 0x08
_ODD_NUMBERS: Final = 0x10
_CUT_SHORT: Final = 0x20
_LATER: Final = 0x40
_AGAIN: Final = 0x80
_FLAGS: Final = FIN | SYN | RST | ACK
_FLAG_OF_LEFT_OUT: Final = 0x80


def check(data: bytes) -> object:
    segments = list(_segments(Script(data)))
    lines = []
    for record in frozen_records(segments):
        line, found = check_record(record)
        lines.append(line)
        assert found["bytes"]["client"] <= (1 << 31) * len(segments)
    return lines


def seeds() -> Iterator[bytes]:
    for port, segments in captured_sessions(MAX_BYTES):
        connection = 4 if port == 465 else 0
        rows = []
        for side, segment in segments:
            odd = segment.flags & (SYN | FIN | RST) or not segment.flags & ACK
            head = side | connection | (_ODD_FLAGS if odd else 0)
            flags = bytes((segment.flags & _FLAGS,)) if odd else b""
            rows.append(bytes((head,)) + flags + long_piece(segment.payload))
        yield b"".join(rows)


def _segments(script: Script) -> Iterator[Segment]:
    at_ns = _START_NS
    following = {connection: list(_FIRST) for connection in range(4)}
    past: list[Segment] = []
    while script.more:
        head = script.byte()
        at_ns += 1_000_000
        if head & _LATER:
            at_ns += (script.byte() - 8) * 10 ** (head & 7) * 1_000_000
        if head & _AGAIN and past:
            segment = past[-1 - script.byte() % len(past)].replace(at_ns=at_ns)
            past.append(segment)
            yield segment
            continue
        side, connection = Side(head & 1), head >> 1 & 3
        flags = ACK
        if head & _ODD_FLAGS:
            flags = script.byte()
            flags = LEFT_OUT if flags & _FLAG_OF_LEFT_OUT else flags & _FLAGS
        numbers = following[connection]
        sequence, acknowledgement = numbers[side], numbers[1 - side]
        if head & _ODD_NUMBERS:
            sequence += _jump(script)
            acknowledgement += _jump(script)
        payload = script.long_piece()
        length = len(payload)
        left = 0
        if head & _CUT_SHORT:
            length += script.number(2)
        if flags & LEFT_OUT:
            left = script.byte() - 5
            payload = payload[-4:]
        if not head & _ODD_NUMBERS:
            numbers[side] = sequence + length + bool(flags & (SYN | FIN))
        ends = ((_HOSTS[0], 40_000 + (connection & 1)), (_HOSTS[1], _PORTS[connection >> 1]))
        segment = Segment(
            at_ns,
            flow_of(*ends[side], *ends[1 - side]),
            flags,
            sequence % _MODULUS,
            acknowledgement % _MODULUS if flags & ACK else 0,
            length,
            payload,
            left,
        )
        past.append(segment)
        yield segment


def _jump(script: Script) -> int:
    """From where a number would stand: mostly near."""
    far = script.byte()
    return far - 200 if far < 250 else script.number(4)
