"""An SMTP session on descriptors 0 and 1 that answers as a script says: for replies that the lab's mail
servers don't give. It is no mail server, and nobody's opinion on SMTP: the program before it is under test.

`python scripted_server.py FOLDER`, run by tcpserver: the script is FOLDER/$TCPREMOTEIP, JSON with a `banner`,
`replies` by verb, lists of which the last one stays, and `tls`, a certificate's and a key's file where all of
it is to be inside TLS.
"""

import json
import os
import re
import sys
from collections.abc import Callable

REPLIES = {
    "HELO": "250 mx.example.test",
    "EHLO": "250-mx.example.test\r\n250-STARTTLS\r\n250 PIPELINING",
    "MAIL": "250 sender ok",
    "RCPT": "250 recipient ok",
    "DATA": "354 go on",
    ".": "250 kept",
    "BDAT": "250 chunk kept",
    "RSET": "250 ok",
    "NOOP": "250 ok",
    "VRFY": "252 perhaps",
    "AUTH": "334 ",
    "RESPONSE": "235 welcome",
    "STARTTLS": "220 go ahead",
    "QUIT": "221 bye",
}
"""What it says where the script has nothing; `.` is the end of a message, RESPONSE what follows a 334."""


READ_SIZE = 65_536


class Stream:
    """Descriptors 0 and 1, be they pipes or a socket."""

    def __init__(self) -> None:
        self._buffer = b""

    def line(self) -> bytes:
        """With its line feed; raises EOFError."""
        while b"\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def skip(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()
        self._buffer = self._buffer[size:]

    def write(self, data: bytes) -> None:
        os.write(1, data)

    def _fill(self) -> None:
        self._buffer += self._read()

    def _read(self) -> bytes:
        data = os.read(0, READ_SIZE)
        if not data:
            raise EOFError
        return data


class TlsStream(Stream):
    def __init__(self, certificate: str, key: str) -> None:
        super().__init__()
        import ssl  # noqa: PLC0415 -- takes as long to start as all the rest

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._wants_more = ssl.SSLWantReadError
        self._repeat(self._tls.do_handshake)
        self.write(b"")

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        super().write(self._outgoing.read())

    def _fill(self) -> None:
        self._repeat(self._more)

    def _more(self) -> None:
        self._buffer += self._tls.read(READ_SIZE)

    def _repeat(self, step: Callable[[], None]) -> None:
        while True:
            try:
                return step()
            except self._wants_more:
                super().write(self._outgoing.read())
                self._incoming.write(self._read())


def main(folder: str) -> None:
    with open(os.path.join(folder, os.environ["TCPREMOTEIP"]), encoding="utf-8") as file:
        script = json.load(file)
    replies = {**{verb: [reply] for verb, reply in REPLIES.items()}, **script["replies"]}
    stream = TlsStream(*script["tls"]) if script["tls"] else Stream()

    def answer(verb: str) -> str:
        waiting = replies.get(verb, ["500 what?"])
        reply: str = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if reply:
            stream.write(reply.encode() + b"\r\n")
        return reply

    if script["banner"]:
        stream.write(script["banner"].encode() + b"\r\n")
    while True:
        line = stream.line()
        words = re.findall(r"[^\s:]+", line.decode("latin-1").upper()) or [""]
        verb = words[0]
        chunk = re.match(rb"BDAT (\d+)", line, re.IGNORECASE)
        if chunk and not replies["BDAT"][0].startswith("5"):
            stream.skip(int(chunk[1]))
        said = answer(verb)
        if verb == "DATA" and said.startswith("354"):
            while stream.line() != b".\r\n":
                pass
            answer(".")
        elif said.startswith("334"):
            stream.line()
            answer("RESPONSE")
        elif verb == "QUIT" or said.startswith("421"):
            return


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (EOFError, BrokenPipeError, ConnectionError):
        sys.exit(0)
