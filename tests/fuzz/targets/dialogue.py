"""The SMTP parser: both sides' bytes in any order, with losses, whole and in other pieces."""

import re
from collections.abc import Iterable, Iterator
from random import Random
from typing import Final
from zlib import crc32

from monitor.side import Side
from monitor.smtp.dialogue import HELD_LIMIT_BYTES
from monitor.smtp.events import Event
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_sessions
from tests.fuzz.words import SMTP
from tests.monitor.smtp.transcript import Close, Ledger, Loss, Piece, report

MAX_BYTES: Final = 900
WORDS: Final = SMTP
_BUFFERED_LIMIT_BYTES: Final = 3 * HELD_LIMIT_BYTES

# An operation's lowest bit is the side; above it, what it is.
_LINE, _LONG_PIECE, _LOSS, _PIECE = range(4)
_NOT_ALL_HEARD: Final = 0x08
_END_IN_DOUBT: Final = 0x10
_MIDSTREAM: Final = 0x01

# A known difference: such a line is set aside, to be looked at for TLS. If it waited for a reply, it is read
# only after the other replies of the same piece.
_ODD_LINE: Final = re.compile(rb"(?:\A|\n)[\x14-\x17\x80-\xff]")

Step = Piece | Loss


class _Promises(Ledger):
    """An input may say the secret where it is none."""

    def _check_secrecy(self, event: Event) -> None:
        pass


def check(data: bytes) -> object:
    script = Script(data)
    head = script.byte()
    steps = list(_steps(script))
    from_the_start, in_doubt = not head & _MIDSTREAM, bool(head & _END_IN_DOUBT)
    reports = _play(steps, from_the_start=from_the_start, in_doubt=in_doubt)
    split = _play(_split(steps, Random(crc32(data))), from_the_start=from_the_start, in_doubt=in_doubt)
    if split != reports:
        said = b"".join(step.data for step in steps if isinstance(step, Piece) and step.side is Side.CLIENT)
        assert _ODD_LINE.search(said), (split, reports)
    return reports


def seeds() -> Iterator[bytes]:
    for _, segments in captured_sessions(MAX_BYTES):
        ops = [b"\0"]
        for side, segment in segments:
            if segment.payload:
                ops.append(_op(side, segment.payload))
        yield b"".join(ops)


def _op(side: Side, payload: bytes) -> bytes:
    if payload.endswith(b"\n") and payload.count(b"\n") == 1:
        return bytes((_LINE << 1 | side,)) + payload
    return bytes((_LONG_PIECE << 1 | side,)) + long_piece(payload)


def _steps(script: Script) -> Iterator[Step]:
    said = 0
    while script.more:
        op = script.byte()
        side = Side(op & 1)
        kind = op >> 1 & 3
        if kind == _LOSS:
            length = script.byte()
            said += length if side is Side.SERVER else 0
            yield Loss(side, length)
            continue
        data = (
            script.line() if kind == _LINE else script.long_piece() if kind == _LONG_PIECE else script.piece()
        )
        if data:
            yield Piece(side, data, max(said - 9, 0) if op & _NOT_ALL_HEARD else said)
            said += len(data) if side is Side.SERVER else 0


def _split(steps: Iterable[Step], rng: Random) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Loss):
            yield step
            continue
        at = 0
        while at < len(step.data):
            size = rng.choice((1, 1, 2, 7, 60))
            yield Piece(step.side, step.data[at : at + size], step.heard)
            at += size


def _play(steps: Iterable[Step], *, from_the_start: bool, in_doubt: bool) -> list[str]:
    ledger = _Promises(from_the_start=from_the_start)
    for step in steps:
        ledger.take(step)
        assert ledger.dialogue.buffered_bytes <= _BUFFERED_LIMIT_BYTES
    ledger.take(Close(in_doubt))
    return list(map(report, ledger.events))
