"""Traffic that is made to break a reader: each kind in any size, with ordinary sessions between."""

import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from probes.segment import ACK, PSH, SYN
from tests.floods.capture import CLIENTS, LARGEST_PAYLOAD_BYTES, SERVER, Connection, Tap

ORDINARY: Final = 20
"""Ordinary sessions in each flood, at even distances."""
ORDINARY_SENDER: Final = "ordinary{}@client.example"
_ORDINARY_NUMBER: Final = 900_000_000
"""Of their connections: beyond those of any flood."""
_STEPS: Final = 100
_REORDERED_BYTES: Final = 1 << 20
_HOLE_BYTES: Final = 1 << 29  # half of the largest window, RFC 7323 section 2.3


class Flood(NamedTuple):
    name: str
    size: int
    unit: str
    step_us: int
    """From packet to packet."""
    run: Callable[[Tap, int], Iterator[None]]
    """Sends it all, and pauses often, for an ordinary session to come between."""
    records: int = 1
    """What the flood itself leaves at its full size, ordinary sessions not counted."""

    def write(self, tap: Tap, size: int) -> None:
        """All of it, and the ordinary sessions."""
        sent = 0
        for step, _ in enumerate(self.run(tap, size)):
            while sent < ORDINARY and step * ORDINARY >= sent * _STEPS:
                Connection(tap, _ORDINARY_NUMBER + sent).send_mail(ORDINARY_SENDER.format(sent))
                sent += 1
        assert sent == ORDINARY, f"{self.name}: {sent} ordinary sessions"


def _steps(size: int) -> Iterator[range]:
    """All numbers below `size`, in so many pieces."""
    for step in range(_STEPS):
        yield range(size * step // _STEPS, size * (step + 1) // _STEPS)


def _half_open(tap: Tap, size: int) -> Iterator[None]:
    """SYNs from addresses drawn by lot, each answered, and none of the answers."""
    chance = random.Random(1)
    for numbers in _steps(size):
        for _ in numbers:
            client = (CLIENTS + chance.getrandbits(24), chance.randrange(1024, 65_536))
            first = chance.getrandbits(32)
            tap.tcp(client, SERVER, (SYN, first, 0))
            tap.tcp(SERVER, client, (SYN | ACK, first ^ 0x5A5A, first + 1))
        yield


def _silent(tap: Tap, size: int) -> Iterator[None]:
    """Connections that are opened and say nothing, all at once."""
    for numbers in _steps(size):
        for number in numbers:
            Connection(tap, number).open()
        yield


def _tiny(tap: Tap, size: int) -> Iterator[None]:
    """Sessions of a scanner: banner, QUIT, end."""
    for numbers in _steps(size):
        for number in numbers:
            connection = Connection(tap, number)
            connection.greet()
            connection.say(b"QUIT\r\n")
            connection.hear(b"221 Bye\r\n")
            connection.close()
        yield


def _line(tap: Tap, size: int) -> Iterator[None]:
    """One command line."""
    return _stream(tap, size, b"EHLO ", b"x", from_client=True)


def _reply(tap: Tap, size: int) -> Iterator[None]:
    """One reply to EHLO, of lines without end."""
    return _stream(tap, size, b"", b"250-X-KEYWORD with parameters\r\n", from_client=False)


def _stream(tap: Tap, size: int, begin: bytes, unit: bytes, *, from_client: bool) -> Iterator[None]:
    connection = Connection(tap, 0)
    connection.greet()
    connection.say(b"EHLO client.example\r\n" if not from_client else begin)
    piece = unit * (LARGEST_PAYLOAD_BYTES // len(unit))
    for numbers in _steps(-(-size // len(piece))):
        for _ in numbers:
            if from_client:
                connection.say(piece)
                connection.hear()
            else:
                connection.hear(piece)
                connection.say()
        yield


def _recipients(tap: Tap, size: int) -> Iterator[None]:
    """One transaction, its recipients pipelined a hundred at a time."""
    connection = Connection(tap, 0)
    connection.greet()
    connection.say(b"EHLO client.example\r\n")
    connection.hear(b"250-mx.example.test\r\n250 PIPELINING\r\n")
    connection.say(b"MAIL FROM:<a@client.example>\r\n")
    connection.hear(b"250 Ok\r\n")
    for numbers in _steps(size // 100):
        for number in numbers:
            connection.say(
                b"".join([b"RCPT TO:<u%d@example.test>\r\n" % (number * 100 + n) for n in range(100)])
            )
            connection.hear(b"250 Ok\r\n" * 100)
        yield


def _disorder(tap: Tap, size: int) -> Iterator[None]:
    """Pieces of one stream in any order, with holes that are never filled."""
    chance = random.Random(2)
    connection = Connection(tap, 0)
    connection.greet()
    begin = connection.sent
    for numbers in _steps(size):
        for number in numbers:
            where = begin + number // 8 + chance.randrange(_REORDERED_BYTES)
            tap.tcp(connection.client, SERVER, (ACK | PSH, where, connection.received), b"NOOP\r\n")
        yield


def _fragments(tap: Tap, size: int) -> Iterator[None]:
    """First, middle and overlapping fragments of datagrams that are never complete."""
    chance = random.Random(3)
    for numbers in _steps(size):
        for number in numbers:
            offset = 8 * chance.randrange(8_000)
            tap.fragment(CLIENTS + chance.getrandbits(20), number & 0xFFFF, offset, b"x" * 1_400, more=True)
        yield


def _sparse(tap: Tap, size: int) -> Iterator[None]:
    """One stream of which a byte in half a gigabyte was captured, so that its counts need more than 32 bits;
    the server has acknowledged all."""
    connection = Connection(tap, 0)
    connection.greet()
    for numbers in _steps(size // _HOLE_BYTES):
        for _ in numbers:
            connection.sent += _HOLE_BYTES - 1
            connection.hear()
            connection.say(b"x")
        yield
    connection.close()


FLOODS: Final = (
    Flood("handshakes never completed", 1_000_000, "SYNs", 10, _half_open, records=0),
    Flood("connections open and silent", 100_000, "connections", 10, _silent, records=100_000),
    Flood("tiny sessions", 1_000_000, "sessions", 10, _tiny, records=1_000_000),
    Flood("one line", 10**9, "bytes", 1_000, _line),
    Flood("one reply to EHLO", 10**9, "bytes", 1_000, _reply),
    Flood("recipients of one message", 1_000_000, "RCPTs", 1_000, _recipients),
    Flood("segments in any order", 1_000_000, "segments", 10, _disorder),
    Flood("fragments", 1_000_000, "fragments", 10, _fragments, records=0),
    Flood("a stream with holes of gigabytes", 1 << 42, "bytes", 1_000, _sparse),
)
