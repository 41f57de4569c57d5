"""The record layer of one direction: where each record begins and ends, its type and its length.

A record is a five-byte header (type, version, length) and as many bytes as it says. Bodies are skipped by
count; only those of handshake and alert records are handed on, for a hello or an alert level may be in them.

    FRAMED ──no record begins here──▶ CLEAR        what follows is not TLS, and is given back
       │
       └──bytes lost──▶ LOST ⇄ GUESSED             no header is certain: nothing is ever given back
    (SSLv2 answered) ──▶ OPAQUE                    its records have no types: nothing can be told

In LOST a record is sought at the start of each piece of bytes, since senders begin most segments with one.
What was found so stays a guess: when it proves wrong the search goes on, and it never makes anything clear
text.
"""

import re
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.side import Side

HEADER_BYTES: Final = 5
_MAY_BEGIN_RECORD: Final = re.compile(rb"[\x14-\x17](?:\x03|\Z)")  # type and version

# Content types, RFC 8446 section 5.1 and, for the heartbeat, RFC 6520 section 3.
CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
HEARTBEAT: Final = 24

# No content types: how messages in the SSLv2 format are reported, by their top bit and message type.
SSLV2_CLIENT_HELLO: Final = 0x81
SSLV2_SERVER_HELLO: Final = 0x84

# RFC 5246 section 6.2.3: 2**14 + 2048 bytes of ciphertext.
MAX_BODY_BYTES: Final = 18_432
# RFC 8446 section 5.2: 2**14 + 256. TLS 1.2 programs send no more either, and a guess should be strict.
MAX_GUESSED_BODY_BYTES: Final = 16_640

# RFC 5246 appendix E.2: two bytes of length, the message type 1, the version.
_V2_HELLO_PREFIX_BYTES: Final = 5
# The same: type, version, three lengths, one cipher kind and the shortest challenge.
_V2_HELLO_MIN_BYTES: Final = 9 + 3 + 16
# Message types of SSLv2.
_V2_CLIENT_HELLO_TYPE: Final = 1
_V2_SERVER_HELLO_TYPE: Final = 4


def looks_like_tls(data: bytes) -> bool | None:
    """Do the first bytes of a stream begin a TLS record or an SSLv2-format ClientHello?

    None where they are too few to say. No text is taken for either: both need control characters which no
    SMTP command, reply or banner holds.
    """
    if data[:1] >= b"\x80":
        return _begins_v2_hello(data)
    begins = _begins_record(data, 0, APPLICATION_DATA, MAX_BODY_BYTES)
    return None if begins and len(data) < HEADER_BYTES else begins


def find_record(data: bytes) -> int:
    """Behind what may be none: where the bytes are a record's header, as far as there are any; their number
    where nowhere."""
    for found in _MAY_BEGIN_RECORD.finditer(data):
        if _begins_record(data, found.start(), APPLICATION_DATA, MAX_BODY_BYTES):
            return found.start()
    return len(data)


def _begins_record(data: bytes, position: int, last_type: int, max_body_bytes: int) -> bool:
    """Whether the bytes from `position` on are, as far as there are any, those of a record's header."""
    visible = len(data) - position
    if visible >= HEADER_BYTES:
        length = data[position + 3] << 8 | data[position + 4]
        if not 0 < length <= max_body_bytes:
            return False
    return (
        (visible < 1 or CHANGE_CIPHER_SPEC <= data[position] <= last_type)
        and (visible < 2 or data[position + 1] == 3)
        and (visible < 3 or data[position + 2] <= 4)
        and (visible < 4 or data[position + 3] <= max_body_bytes >> 8)
    )


def _begins_v2_hello(data: bytes) -> bool | None:
    """RFC 5246 appendix E.2; None where the bytes are too few to say."""
    if data[:1] < b"\x80":
        return None if not data else False
    if len(data) >= 3 and data[2] != _V2_CLIENT_HELLO_TYPE:
        return False
    if len(data) >= 4 and data[3] not in (0, 3):
        return False
    if len(data) < _V2_HELLO_PREFIX_BYTES:
        return None
    version_is_known = data[4] == 2 if data[3] == 0 else data[4] <= 4
    return version_is_known and (data[0] & 0x7F) << 8 | data[1] >= _V2_HELLO_MIN_BYTES


@mypyc_attr(allow_interpreted_subclasses=True)
class RecordSink(ABC):
    """Who hears of the records of both sides, and keeps what both must know of SSLv2."""

    __slots__ = ("sslv2_may_follow", "sslv2_spoken")

    def __init__(self) -> None:
        self.sslv2_may_follow = False
        """The client's hello had the SSLv2 format, and no TLS record has answered it: a first byte with its
        top bit set begins SSLv2."""
        self.sslv2_spoken = False
        """It did: nothing more can be told."""

    @abstractmethod
    def fragment(self, side: Side, content_type: int, data: bytes) -> None:
        """The next bytes of the body of a handshake or alert record."""

    @abstractmethod
    def fragment_lost(self, side: Side, content_type: int, length: int) -> None:
        """So many bytes of the body of a handshake or alert record were not captured."""

    @abstractmethod
    def record(self, side: Side, content_type: int, length: int) -> None:
        """A record came to its end. `length` is that of its body."""


class _Framing(Enum):
    FRAMED = auto()
    LOST = auto()
    GUESSED = auto()
    CLEAR = auto()
    OPAQUE = auto()


class RecordReader:
    """Walks the records of one direction."""

    __slots__ = (
        "_body_left",
        "_framing",
        "_held",
        "_length",
        "_side",
        "_sink",
        "_type",
        "_v2_hello_may_follow",
    )

    def __init__(self, side: Side, sink: RecordSink) -> None:
        self._side = side
        self._sink = sink
        self._framing = _Framing.FRAMED
        # The first bytes of a header whose rest has not come yet: at most four.
        self._held = b""
        self._type = 0
        self._length = 0
        self._body_left = 0
        # An SSLv2-format ClientHello may stand here: only as a client's first bytes.
        self._v2_hello_may_follow = side is Side.CLIENT

    def receive(self, data: bytes) -> bytes:
        """Takes the next bytes; returns those which are clear text again."""
        if self._body_left > len(data):
            self._body_left -= len(data)
            if self._type in (ALERT, HANDSHAKE):
                self._sink.fragment(self._side, self._type, data)
            return b""
        if self._framing is _Framing.CLEAR:
            return data
        if self._framing is _Framing.OPAQUE:
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._framing is _Framing.LOST:
            if not _is_chain(data):
                return b""
            self._framing = _Framing.GUESSED
        return self._walk(data)

    @property
    def unneeded_bytes(self) -> int:
        """How many of the next bytes are nobody's: those of the body of a record, but for its last."""
        return self._body_left - 1 if self._body_left and self._type not in (ALERT, HANDSHAKE) else 0

    def passed(self, length: int) -> None:
        """So many bytes came, of those that nobody needs to see."""
        self._body_left -= length

    def left_out(self, edge: bytes, left: int) -> None:
        """Records came and were left out by the probe; see `probes.segment.Segment.left`."""
        if self._framing not in (_Framing.FRAMED, _Framing.GUESSED):
            return
        self._held = edge[left:] if left < 0 else b""
        self._type = APPLICATION_DATA
        self._length = self._body_left = max(0, left)

    def lost(self, length: int) -> bool:
        """Takes note of bytes that were not captured (0: unknown how many). False where framing was lost."""
        if self._framing in (_Framing.CLEAR, _Framing.OPAQUE):
            return True
        of_this_body = min(length, self._body_left)
        if of_this_body:
            self._body_left -= of_this_body
            if self._type in (ALERT, HANDSHAKE):
                self._sink.fragment_lost(self._side, self._type, of_this_body)
            if not self._body_left:
                self._sink.record(self._side, self._type, self._length)
            if of_this_body == length:
                return True
        self._framing = _Framing.LOST
        self._body_left = 0
        self._held = b""
        self._v2_hello_may_follow = False
        return False

    def _walk(self, data: bytes) -> bytes:
        if self._sink.sslv2_spoken:
            return self._give_up()
        size = len(data)
        position = 0
        if self._body_left:
            position = self._body_left
            self._body_left = 0
            if self._type in (ALERT, HANDSHAKE):
                self._sink.fragment(self._side, self._type, data[:position])
            self._sink.record(self._side, self._type, self._length)
        guessed = self._framing is _Framing.GUESSED
        last_type, max_body_bytes = (
            (APPLICATION_DATA, MAX_GUESSED_BODY_BYTES) if guessed else (HEARTBEAT, MAX_BODY_BYTES)
        )
        while position < size:
            if data[position] >= 0x80 and (self._v2_hello_may_follow or self._sink.sslv2_may_follow):
                return self._read_v2(data, position)
            if not _begins_record(data, position, last_type, max_body_bytes):
                return self._no_record_begins(data, position)
            self._v2_hello_may_follow = False
            if size - position < HEADER_BYTES:
                self._held = data[position:]
                break
            length = data[position + 3] << 8 | data[position + 4]
            position = self._enter(data, position + HEADER_BYTES, data[position], length)
        return b""

    def _enter(self, data: bytes, position: int, content_type: int, length: int) -> int:
        """Reads a body, or what there is of it; returns where it ends in `data`."""
        end = position + length
        if content_type in (ALERT, HANDSHAKE):
            self._sink.fragment(self._side, content_type, data[position:end])
        if end > len(data):
            self._type = content_type
            self._length = length
            self._body_left = end - len(data)
        else:
            self._sink.record(self._side, content_type, length)
        return end

    def _no_record_begins(self, data: bytes, position: int) -> bytes:
        if self._framing is _Framing.GUESSED:
            self._framing = _Framing.LOST
            return b""
        self._framing = _Framing.CLEAR
        return data[position:]

    def _read_v2(self, data: bytes, position: int) -> bytes:
        """The bytes from `position` on begin with the top bit set, and SSLv2 is possible."""
        if self._sink.sslv2_may_follow:
            return self._read_v2_answer(data, position)
        begins = _begins_v2_hello(data[position:])
        if begins is None:
            self._held = data[position:]
            return b""
        self._v2_hello_may_follow = False
        if not begins:
            return self._no_record_begins(data, position)
        length = (data[position] & 0x7F) << 8 | data[position + 1]
        rest = data[self._enter(data, position + 2, SSLV2_CLIENT_HELLO, length) :]
        return self._walk(rest) if rest else b""

    def _read_v2_answer(self, data: bytes, position: int) -> bytes:
        if len(data) - position < 3:
            self._held = data[position:]
            return b""
        if data[position + 2] == _V2_SERVER_HELLO_TYPE:
            self._sink.record(
                self._side, SSLV2_SERVER_HELLO, (data[position] & 0x7F) << 8 | data[position + 1]
            )
        self._sink.sslv2_spoken = True
        return self._give_up()

    def _give_up(self) -> bytes:
        self._framing = _Framing.OPAQUE
        self._held = b""
        self._body_left = 0
        return b""


def _is_chain(data: bytes) -> bool:
    """Whether records, and nothing else, follow each other from the first byte to the last."""
    position = 0
    while position < len(data):
        if not _begins_record(data, position, APPLICATION_DATA, MAX_GUESSED_BODY_BYTES):
            return False
        if len(data) - position < HEADER_BYTES:
            break
        position += HEADER_BYTES + (data[position + 3] << 8 | data[position + 4])
    return True
