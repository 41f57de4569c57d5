r"""Plays the tap's part in the kernel: what the two sides say inside TLS -> `TapEvent`s.

Written after the words of `probes.tls_tap.event`, and of nothing in the monitor: lines that hold a secret
are cut, as are bodies and the words of replies."""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from random import Random

from monitor.sessions.record import SessionRecord
from monitor.side import Side
from probes.segment import flow_of
from probes.tls_tap.event import Kind, TapEvent
from tests.monitor.smtp.transcript import Piece, parse

SECOND_NS = 1_000_000_000
START_NS = 1_790_000_000 * SECOND_NS
FLOW = flow_of(b"\xc0\x00\x02\x01", 40_000, b"\xc0\x00\x02\x02", 25)
COOKIE = 7

MAIL_VERBS = (
    b"HELO EHLO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT STARTTLS AUTH VRFY EXPN HELP ETRN XCLIENT XFORWARD"
).split()

Cut = Callable[[bytes], Sequence[bytes]]
"""Text -> its pieces."""


def whole(text: bytes) -> list[bytes]:
    return [text]


def bytewise(text: bytes) -> list[bytes]:
    return [text[index : index + 1] for index in range(len(text))]


def flow_from(record: SessionRecord) -> bytes:
    """Of the connection of a record."""
    client, server = record.client, record.server
    return flow_of(ip_address(client.ip).packed, client.port, ip_address(server.ip).packed, server.port)


def halves(text: bytes) -> list[bytes]:
    """Most often in the middle of a line."""
    return [text[: len(text) // 2], text[len(text) // 2 :]] if len(text) > 1 else [text]


def pieces(random: Random) -> Cut:
    def cut(text: bytes) -> list[bytes]:
        at = sorted(random.sample(range(1, len(text)), min(len(text) - 1, random.randrange(4))))
        return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]

    return cut


def spoken(transcript: str) -> list[tuple[Side, bytes]]:
    """`C:` and `S:` lines as tests.monitor.smtp.transcript has them; those of one side that follow each
    other are read or written together, and `/` parts them."""
    return [(step.side, step.data) for step in parse(transcript) if isinstance(step, Piece)]


class Kernel:
    """One connection."""

    def __init__(
        self,
        *,
        flow: bytes = FLOW,
        cookie: int = COOKIE,
        at_ns: int = START_NS,
        step_ns: int = SECOND_NS // 1_000,
        cut: Cut = whole,
    ) -> None:
        """The first event is a step after `at_ns`."""
        self.events: list[TapEvent] = []
        self._flow, self._cookie, self._cut = flow, cookie, cut
        self._at_ns, self._step_ns = at_ns, step_ns
        self._number = 0
        self._line = b""
        self._waiting = 0
        """Commands and messages that have no reply yet."""
        self._awaited = b""
        """DATA or AUTH, until its reply says what comes next."""
        self._body: bytes | None = None
        self._chunk_length = self._chunk_left = 0
        self._secret_awaited = False

    def begin(self) -> "Kernel":
        self._tell(Kind.BEGUN)
        return self

    def end(self) -> "Kernel":
        self._tell(Kind.ENDED)
        return self

    def close(self) -> "Kernel":
        """The client has gone."""
        self._tell(Kind.CLOSED)
        return self

    def say(self, said: Iterable[tuple[Side, bytes]]) -> "Kernel":
        for side, data in said:
            if side is Side.CLIENT:
                self._client(data)
            else:
                self._server(data)
        return self

    def _tell(self, kind: Kind, *, length: int = 0, text: bytes = b"") -> None:
        self._at_ns += self._step_ns
        self.events.append(TapEvent(self._at_ns, self._flow, self._cookie, self._number, kind, length, text))
        self._number += 1

    def _client(self, data: bytes) -> None:
        shown = b""
        while data:
            if self._body is not None or self._chunk_left:
                self._tell_commands(shown)
                shown = b""
                data = self._read_body(data) if self._body is not None else self._read_chunk(data)
                continue
            if self._awaited:
                # The client did not wait: what this is, the reply will tell, and it has not come.
                self._tell_commands(shown)
                self._tell(Kind.LOST, length=len(data))
                return
            self._line += data[:1]
            data = data[1:]
            if self._line.endswith(b"\n"):
                line, self._line = self._line, b""
                shown += self._command(line)
        self._tell_commands(shown)

    def _tell_commands(self, text: bytes) -> None:
        for piece in self._cut(text) if text else ():
            self._tell(Kind.COMMANDS, text=piece)

    def _command(self, line: bytes) -> bytes:
        """What is shown of a line."""
        self._waiting += 1
        if self._secret_awaited:
            self._secret_awaited = False
            return b""
        words = line.split()
        verb = words[0].upper() if words else b""
        if verb in (b"DATA", b"AUTH"):
            self._awaited = verb
        if verb == b"AUTH":
            return b" ".join(words[:2]) + b"\r\n"
        if verb == b"BDAT" and len(words) > 1 and words[1].isdigit():
            self._chunk_length = self._chunk_left = int(words[1])
        return line if verb in MAIL_VERBS else b"\n"

    def _read_body(self, data: bytes) -> bytes:
        assert self._body is not None
        self._body += data
        end = (b"\r\n" + self._body).find(b"\r\n.\r\n")
        if end < 0:
            return b""
        length = end + 3
        rest, self._body = self._body[length:], None
        self._tell(Kind.MESSAGE, length=length)
        self._waiting += 1
        return rest

    def _read_chunk(self, data: bytes) -> bytes:
        taken = min(self._chunk_left, len(data))
        self._chunk_left -= taken
        if not self._chunk_left:
            self._tell(Kind.CHUNK, length=self._chunk_length)
        return data[taken:]

    def _server(self, data: bytes) -> None:
        for line in data.splitlines():
            code = line[:3]
            if line[3:4] == b"-":
                continue
            self._tell(Kind.REPLY, text=code)
            if code == b"354" and self._awaited == b"DATA":
                self._body = b""
            self._secret_awaited = code == b"334"
            self._waiting = max(0, self._waiting - 1)
            if not self._waiting:
                self._awaited = b""


def events_of(transcript: str, **of: object) -> list[TapEvent]:
    """A whole stream."""
    return Kernel(**of).begin().say(spoken(transcript)).end().events  # type: ignore[arg-type]
