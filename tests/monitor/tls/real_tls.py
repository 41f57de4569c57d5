"""Real handshakes: two of Python's TLS objects wired to each other, and what passed between them."""

import ssl
import subprocess
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from monitor.side import Side
from monitor.tls.handshake import TlsReader

Transcript = list[tuple[Side, bytes]]
"""Who sent what, in order."""


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate with its key in one file."""
    path = folder / "certificate.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-keyout {path} -out {folder / 'only.pem'} "
        "-subj /CN=mx.example.test -addext subjectAltName=DNS:mx.example.test"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "only.pem").read_text())
    return path


def client_context(certificate: Path | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Trusts that certificate alone; None: checks nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate:
        context.load_verify_locations(certificate)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _only(context, version)


def server_context(certificate: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return _only(context, version)


def _only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what some tests are about
        context.minimum_version = context.maximum_version = version
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Wire:
    """A client and a server. Each step carries over what a side wrote, and keeps it."""

    def __init__(
        self,
        client: ssl.SSLContext,
        server: ssl.SSLContext,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._in = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self._out = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self.ends = (
            client.wrap_bio(self._in[0], self._out[0], server_hostname=name, session=session),
            server.wrap_bio(self._in[1], self._out[1], server_side=True),
        )
        self.transcript: Transcript = []
        self.failures: list[ssl.SSLError] = []

    def shake_hands(self) -> None:
        for _ in range(6):
            for side in Side:
                try:
                    self.ends[side].do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as failure:
                    self.failures.append(failure)
                self._carry(side)

    def say(self, side: Side, text: bytes) -> None:
        self.ends[side].write(text)
        self._carry(side)
        other = Side(1 - side)
        try:
            self.ends[other].read(65536)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as failure:
            self.failures.append(failure)
        self._carry(other)

    def close(self, side: Side) -> None:
        with suppress(ssl.SSLError):  # the other side has not answered yet
            self.ends[side].unwrap()
        self._carry(side)

    def _carry(self, side: Side) -> None:
        written = self._out[side].read()
        if written:
            self.transcript.append((side, written))
            self._in[1 - side].write(written)


def talk(wire: Wire) -> Transcript:
    """A handshake and a few lines of mail."""
    wire.shake_hands()
    wire.say(Side.CLIENT, b"EHLO client.example\r\n")
    wire.say(Side.SERVER, b"250 mx.example.test\r\n")
    wire.say(Side.CLIENT, b"MAIL FROM:<a@client.example>\r\n")
    wire.say(Side.SERVER, b"250 2.1.0 Ok\r\n")
    return wire.transcript


def read(transcript: Iterable[tuple[Side, bytes]], reader: TlsReader | None = None) -> TlsReader:
    """Gives it all to a reader; no byte of it may be taken for clear text."""
    reader = reader or TlsReader()
    for side, data in transcript:
        assert reader.receive(side, data) == b""
    return reader


def cut(transcript: Sequence[tuple[Side, bytes]], size: int) -> Transcript:
    """The same bytes in pieces of that size."""
    return [(side, data[at : at + size]) for side, data in transcript for at in range(0, len(data), size)]
