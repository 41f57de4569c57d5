"""Fragments of a few datagrams, held against what is left when each is put together in one go."""

from collections.abc import Iterator
from random import Random
from typing import Final

from probes.fragments import Datagram, DatagramKey, Fragment, Reassembler
from probes.probe import DropSite, PacketCounts
from tests.fuzz.script import Script

MAX_BYTES: Final = 600
WORDS: Final = (bytes(4), b"\x01\x02\x08\x08", b"\x81\x10\x08\x08")
_CONTENT: Final = bytes(range(256)) * 8


def check(data: bytes) -> object:
    """Each fragment's bytes are those that stand at its place in the one content there is."""
    script = Script(data)
    counts = PacketCounts()
    table = Reassembler(counts)
    at_ns = 0
    added = given = 0
    outcomes = []
    while script.more:
        head, offset, length, captured = (script.byte() for _ in range(4))
        if head & 0x40:
            at_ns += script.byte() * 10**9
        begin = offset * 8
        length += 1
        fragment = Fragment(
            begin, length, _CONTENT[begin : begin + min(captured, length)], head & 1, not head & 0x80
        )
        key = DatagramKey(b"\1\2\3\4", b"\5\6\7\x08", head >> 1 & 3, 6)
        whole = table.add(at_ns, key, fragment)
        added += 1
        if whole is not None:
            given += 1
            _check_datagram(whole)
            outcomes.append(tuple(whole))
    table.flush()
    assert table.held_bytes == 0
    assert counts.dropped[DropSite.FRAGMENTS] + given <= added
    return outcomes, counts.dropped[DropSite.FRAGMENTS]


def _check_datagram(whole: Datagram) -> None:
    assert whole.payload == _CONTENT[: len(whole.payload)]
    assert len(whole.payload) <= whole.length


def seeds() -> Iterator[bytes]:
    rng = Random(2)
    for pieces in (1, 2, 3, 8):
        rows = [bytes((0x80 if at == pieces - 1 else 0, at * 2, 15, 16)) for at in range(pieces)]
        yield b"".join(rows)
        yield b"".join(rng.sample(rows, len(rows)))
        yield b"".join(rows + rows)
        yield b"".join(rows[1:])
        yield b"".join(row + bytes((row[0] | 2,)) + row[1:] for row in rows)
