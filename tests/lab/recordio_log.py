"""recordio's log, read back to the two byte streams that it copied. https://cr.yp.to/ucspi-tcp/recordio.html

Each line: the process's number, `<` for what the client sent or `>` for what the server sent, a blank, the
bytes as they came; then a blank where a line feed ended them, `+` where they go on in the next line of that
direction. `[EOF]`, with neither behind it, is the end.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

_LINE: Final = re.compile(rb"\d+ ([<>]) (.*)", re.DOTALL)
# Content type (a handshake, or the alert that refuses one) and major version: RFC 8446 section 5.1.
_TLS_RECORD: Final = re.compile(rb"[\x15\x16]\x03")
_STARTTLS: Final = re.compile(rb"STARTTLS[ \t\r]*\Z", re.IGNORECASE)
_READY: Final = re.compile(rb"220(?!-)")
_MAIL: Final = re.compile(rb"MAIL[ \t]+FROM\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RecordioLog:
    client: bytes
    server: bytes
    opaque_client: int | None
    """Where the client's ciphertext begins, None where none came: the first TLS record in a place where one
    can be, which is the stream's beginning or the byte behind a STARTTLS line."""
    opaque_server: int | None
    """The same: the beginning, or the byte behind a `220` line."""
    lines: int

    @classmethod
    def read(cls, log: bytes) -> Self:
        """Raises ValueError for a line that recordio doesn't write."""
        streams = {b"<": b"", b">": b""}
        lines = log.split(b"\n")[:-1]
        for line in lines:
            found = _LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"not recordio's: {line!r}")
            side, data = found[1], found[2]
            if data != b"[EOF]":
                if data[-1:] not in (b" ", b"+"):
                    raise ValueError(f"neither whole nor partial: {line!r}")
                streams[side] += data[:-1] + (b"\n" if data.endswith(b" ") else b"")
        client, server = streams[b"<"], streams[b">"]
        return cls(
            client,
            server,
            _first_record(client, _STARTTLS),
            _first_record(server, _READY),
            len(lines),
        )

    @property
    def readable_mail(self) -> bool:
        """A whole MAIL line stands in the log to be read."""
        readable = self.client if self.opaque_client is None else self.client[: self.opaque_client]
        return any(_MAIL.match(line) for line in readable.split(b"\n")[:-1])


def _first_record(stream: bytes, line_before: re.Pattern[bytes]) -> int | None:
    at = 0
    while not _TLS_RECORD.match(stream, at):
        while True:
            end = stream.find(b"\n", at)
            if end < 0:
                return None
            line, at = stream[at:end], end + 1
            if line_before.match(line):
                break
    return at
