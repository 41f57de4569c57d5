"""Whole sessions over a faithful network, whatever the two sides say: their record, and that of the same
bytes in other packets."""

from collections.abc import Iterator
from random import Random
from typing import Final
from zlib import crc32

from monitor.side import Side
from probes.segment import FIN, RST
from tests.degrade import duplicate, resegment
from tests.fuzz.record_rules import check_record
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_sessions
from tests.fuzz.words import SMTP, TLS
from tests.monitor.sessions.wire import Wire
from tests.segments import frozen_records
from tests.timeless import timeless

MAX_BYTES: Final = 900
WORDS: Final = (*SMTP, *TLS)
_PORTS: Final = (25, 587, 465, 25)

_SMALL_BYTES: Final = 400
"""Up to here a segment for each byte costs little."""

# An operation's lowest bit is the side; above it, what it is.
_LINE, _LONG_PIECE, _END, _PIECE = range(4)
_CROSSING: Final = 0x08
_RESET: Final = 0x10


def check(data: bytes) -> object:
    wire = _wire(Script(data))
    records = frozen_records(wire.segments)
    assert len(records) == 1
    line, record = check_record(records[0])
    rng = Random(crc32(data))
    sizes = rng.choice((1, 2, 9, 200) if len(data) < _SMALL_BYTES else (9, 60, 200))
    copy = duplicate(0.3)(resegment(lambda rng: rng.randint(1, sizes))(wire.segments, rng), rng)
    (other,) = frozen_records(copy)
    _, again = check_record(other)
    assert timeless(again) == timeless(record), (timeless(again), timeless(record))
    return line


def seeds() -> Iterator[bytes]:
    for port, segments in captured_sessions(MAX_BYTES):
        ops = [bytes((_PORTS.index(port),))]
        for side, segment in segments:
            payload = segment.payload
            if payload.endswith(b"\n") and payload.count(b"\n") == 1:
                ops.append(bytes((_LINE << 1 | side,)) + payload)
            elif payload:
                ops.append(bytes((_LONG_PIECE << 1 | side,)) + long_piece(payload))
            if segment.flags & (FIN | RST):
                ops.append(bytes((_END << 1 | side | (_RESET if segment.flags & RST else 0),)))
        yield b"".join(ops)


def _wire(script: Script) -> Wire:
    wire = Wire(_PORTS[script.byte() & 3]).open()
    closed = [False, False]
    while script.more:
        op = script.byte()
        side = Side(op & 1)
        kind = op >> 1 & 3
        if kind == _END:
            if op & _RESET:
                return wire.reset(side)
            if not closed[side]:
                wire.finish(side)
            closed[side] = True
            continue
        data = (
            script.line() if kind == _LINE else script.long_piece() if kind == _LONG_PIECE else script.piece()
        )
        if data and not closed[side]:
            wire.send(side, data, crossing=bool(op & _CROSSING))
    return wire
