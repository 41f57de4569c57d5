"""TLS records of both sides, whole, in other pieces, and with losses."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import Final
from zlib import crc32

from monitor.side import Side
from monitor.tls.handshake import TlsReader
from tests.fuzz.script import Script, long_piece
from tests.fuzz.seeds import captured_sessions
from tests.fuzz.words import TLS

MAX_BYTES: Final = 1_500
WORDS: Final = TLS
_BUFFERED_LIMIT_BYTES: Final = 2 * 65_536

_PIECE, _LONG_PIECE, _LOSS = 0, 1, 2

Step = tuple[Side, bytes | int]


def check(data: bytes) -> object:
    steps = list(_steps(Script(data)))
    whole = _read(steps)
    # Behind a hole a record is sought where a piece begins: there pieces matter.
    if not any(isinstance(what, int) for _, what in steps):
        split = _read(_split(steps, Random(crc32(data))))
        assert split == whole, (split, whole)
    return whole


def seeds() -> Iterator[bytes]:
    for _, segments in captured_sessions(MAX_BYTES):
        pieces = [(side, segment.payload) for side, segment in segments if segment.payload]
        begin = next((at for at, (_, data) in enumerate(pieces) if data[:2] == b"\x16\x03"), None)
        if begin is not None:
            yield b"".join(
                bytes((_LONG_PIECE << 1 | side,)) + long_piece(data) for side, data in pieces[begin:]
            )


def _steps(script: Script) -> Iterator[Step]:
    while script.more:
        op = script.byte()
        kind = op >> 1 & 3
        what: bytes | int = script.long_piece() if kind == _LONG_PIECE else script.piece()
        if kind == _LOSS:
            assert isinstance(what, bytes)
            what = len(what)
        if what != b"":
            yield Side(op & 1), what


def _split(steps: Iterable[Step], rng: Random) -> Iterator[Step]:
    for side, what in steps:
        assert isinstance(what, bytes)
        at = 0
        while at < len(what):
            size = rng.choice((1, 2, 7, 100))
            yield side, what[at : at + size]
            at += size


def _read(steps: Iterable[Step]) -> object:
    reader = TlsReader()
    clear = [b"", b""]
    passed = 0
    for side, what in steps:
        if isinstance(what, int):
            reader.lost(side, what)
            continue
        unneeded = reader.unneeded_bytes(side)
        assert unneeded >= 0
        if 0 < len(what) <= unneeded:
            reader.passed(side, len(what))  # as streams do
            passed += len(what)
        else:
            clear[side] += reader.receive(side, what)
        assert reader.buffered_bytes <= _BUFFERED_LIMIT_BYTES
    facts = reader.facts
    told = None
    if facts is not None:
        told = (facts.version, facts.cipher, facts.sni, facts.alpn, facts.ja4)
    return clear, told, reader.established, reader.in_doubt, reader.failed_visibly
