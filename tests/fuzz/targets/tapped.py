"""Events of a tap in any order, with holes: what sessions get of them, and that of the same text in other
pieces."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import Final
from zlib import crc32

import msgspec

from monitor.sessions.record import Channel, Direction, Tapped, TapResult
from monitor.sessions.site import Outside
from monitor.tapped.streams import Limits, TappedStreams
from probes.segment import flow_of
from probes.tls_tap.event import Kind, TapEvent
from tests.fuzz.script import Script, piece
from tests.fuzz.words import SMTP
from tests.monitor.tapped.clear import lists_of
from tests.monitor.tapped.kernel import Kernel, halves, spoken
from tests.monitor.tapped.transcripts import SESSIONS

MAX_BYTES: Final = 900
WORDS: Final = SMTP

CPU_LIMIT_NS: Final = 50_000_000
"""Each input is played twice, the second time in pieces of a byte or two, each of them an event."""

_LIMITS: Final = Limits(streams=3, kept_bytes=30_000, idle_seconds=1.0)
_FLOWS: Final = tuple(flow_of(b"\x0a\x00\x00\x01", port, b"\x0a\x00\x00\x02", 25) for port in (1_024, 1_025))
_COOKIES: Final = 2
_STEP_NS: Final = 10_000_000

# An operation's lowest three bits are the kind of event, or that a session asks for its stream.
_TAKE: Final = 0
_OTHER_FLOW: Final = 0x08
_OTHER_COOKIE: Final = 0x10
_HOLE: Final = 0x20
_UNSURE: Final = 0x40
_LATER: Final = 0x80

_Stream = tuple[bytes, int]


def check(data: bytes) -> object:
    steps = list(_steps(Script(data)))
    told = _play(steps)
    assert _play(_split(steps, Random(crc32(data)))) == told
    return told


def seeds() -> Iterator[bytes]:
    for transcript in SESSIONS.values():
        for greeting in ("", "S: 220 mx.example\n"):
            events = Kernel(cut=halves).begin().say(spoken(greeting + transcript)).end().events
            yield b"".join(map(_op, events))[: MAX_BYTES - 1] + bytes((_TAKE,))


def _op(event: TapEvent) -> bytes:
    if event.kind in (Kind.COMMANDS, Kind.REPLY):
        return bytes((event.kind,)) + piece(event.text)
    is_measured = event.kind in (Kind.MESSAGE, Kind.CHUNK, Kind.LOST)
    return bytes((event.kind,)) + (event.length.to_bytes(2, "big") if is_measured else b"")


def _steps(script: Script) -> Iterator[TapEvent | Outside]:
    """As long as nothing but the text of commands differs, events come at the same times."""
    at_ns = _STEP_NS
    numbers: dict[_Stream, int] = {}
    while script.more:
        op = script.byte()
        at_ns += _STEP_NS * 200 if op & _LATER else _STEP_NS
        flow = _FLOWS[bool(op & _OTHER_FLOW)]
        if op & 7 == _TAKE:
            yield _outside(flow, at_ns, established=bool(op & _UNSURE))
            continue
        key = (flow, bool(op & _OTHER_COOKIE) % _COOKIES)
        numbers[key] = numbers.get(key, -1) + (2 if op & _HOLE else 1)
        kind = Kind(op & 7)
        text = script.piece() if kind in (Kind.COMMANDS, Kind.REPLY) else b""
        length = script.number(2) if kind in (Kind.MESSAGE, Kind.CHUNK, Kind.LOST) else 0
        yield TapEvent(at_ns, *key, numbers[key], kind, length, text, bool(op & _UNSURE))


def _outside(flow: bytes, at_ns: int, *, established: bool) -> Outside:
    return Outside(
        flow=flow,
        community_id="1:x",
        direction=Direction.INBOUND,
        first_at_ns=at_ns - 100 * _STEP_NS,
        last_at_ns=at_ns,
        channel=Channel.STARTTLS,
        established=established,
        ruled_out=not established,
        whole=True,
        encrypted_bytes=1_000,
    )


def _split(steps: Iterable[TapEvent | Outside], random: Random) -> Iterator[TapEvent | Outside]:
    """The same with other pieces of text; numbers follow suit, and holes stay where they were."""
    shift: dict[_Stream, int] = {}
    for step in steps:
        if isinstance(step, Outside):
            yield step
            continue
        key = (step.flow, step.cookie)
        at = 0
        while True:
            size = random.choice((1, 1, 2, 7, 60)) if step.kind is Kind.COMMANDS else len(step.text)
            yield msgspec.structs.replace(
                step, number=step.number + shift.get(key, 0), text=step.text[at : at + size]
            )
            at += size
            if at >= len(step.text):
                break
            shift[key] = shift.get(key, 0) + 1


def _play(steps: Iterable[TapEvent | Outside]) -> list[object]:
    told: list[object] = []
    streams = TappedStreams(told.append, _LIMITS)
    for step in steps:
        if isinstance(step, Outside):
            tapped = streams.take(step)
            told.append(None if tapped is None else (tapped.result, lists_of(tapped)))
            _check(tapped)
        else:
            streams.event(step)
        assert len(streams) <= _LIMITS.streams
        assert 0 <= streams.kept_bytes <= _LIMITS.kept_bytes
    return told


def _check(tapped: Tapped | None) -> None:
    if tapped is None:
        return
    assert msgspec.json.decode(msgspec.json.encode(tapped), type=Tapped) == tapped
    is_listed = bool(tapped.transactions or tapped.auth)
    assert not is_listed or tapped.result in (TapResult.WHOLE, TapResult.PARTIAL)
    for transaction in tapped.transactions:
        for recipient in transaction.recipients:
            assert recipient.after_seconds is None or recipient.after_seconds >= 0
