"""ClientHello and ServerHello: a body that is right about its own length, in records that are right, too."""

from collections.abc import Iterator
from typing import Final

from monitor.side import Side
from monitor.tls.handshake import TlsReader
from tests.fuzz.seeds import captured_sessions
from tests.fuzz.words import TLS

MAX_BYTES: Final = 800
WORDS: Final = TLS
_RECORD_BYTES: Final = 16_384


def check(data: bytes) -> object:
    """The first byte says whose hello the rest is."""
    side = Side(data[0] & 1 if data else 0)
    body = data[1:]
    message = bytes((2 if side else 1,)) + len(body).to_bytes(3, "big") + body
    reader = TlsReader()
    for at in range(0, len(message), _RECORD_BYTES):
        piece = message[at : at + _RECORD_BYTES]
        assert reader.receive(side, b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece) == b""
    assert reader.buffered_bytes == 0
    facts = reader.facts
    if facts is None:
        return None
    assert facts.ja4 is None or len(facts.ja4) == 36
    return facts.version, facts.cipher, facts.sni, facts.alpn, facts.ja4


def seeds() -> Iterator[bytes]:
    for _, segments in captured_sessions(3_000):
        for side, segment in segments:
            if segment.payload[:2] == b"\x16\x03" and segment.payload[5:6] == bytes((side + 1,)):
                size = int.from_bytes(segment.payload[6:9], "big")
                yield bytes((side,)) + segment.payload[9 : 9 + size]
