"""TLS as a bystander reads it, both directions of one connection: what was agreed on, and how it ended.

A `RecordReader` for each direction finds the records, a `HelloCollector` the hello in them, and an
`Establishment` judges what they prove.

What no bystander can tell is not told: a session of which deciding bytes were lost is in doubt, and so is one
that goes on in SSLv2, whose records have no types.
"""

from dataclasses import dataclass
from typing import Final

from monitor.side import Side
from monitor.tls.establishment import Establishment
from monitor.tls.hellos import (
    CLIENT_HELLO,
    EARLY_DATA,
    SERVER_HELLO,
    parse_client_hello,
    parse_server_hello,
)
from monitor.tls.ja4 import ja4
from monitor.tls.messages import HelloCollector
from monitor.tls.names import VERSIONS, cipher_name
from monitor.tls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    SSLV2_CLIENT_HELLO,
    SSLV2_SERVER_HELLO,
    RecordReader,
    RecordSink,
)

# An alert in clear: its level and its description, RFC 5246 section 7.2. Encrypted ones are longer.
_CLEAR_ALERT_BYTES: Final = 2
_FATAL: Final = 2
_UNKNOWN_LEVEL: Final = 0


@dataclass(slots=True)
class TlsFacts:
    """From the two hello messages, as they come; None where that hello was not seen, or does not say."""

    version: str | None = None
    """SSLv2, SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3: what the server selected."""
    cipher: str | None = None
    """OpenSSL's name, else IANA's, else `0x1234`. None for SSLv2, where the client selects it later."""
    sni: str | None = None
    alpn: str | None = None
    """The first protocol that the client offered."""
    ja4: str | None = None
    """None for a hello in the SSLv2 format too: its three-byte ciphers have no form in JA4."""


class TlsReader:
    """Reads both directions of a connection from the first TLS byte on, or from wherever the capture began.

    Where one direction was not captured at all, tell `lost` so: silence alone raises no doubt.
    """

    __slots__ = ("_judge", "_records")

    def __init__(self) -> None:
        self._judge = _Judge()
        self._records = [RecordReader(Side.CLIENT, self._judge), RecordReader(Side.SERVER, self._judge)]

    def receive(self, side: Side, data: bytes) -> bytes:
        """Takes the next bytes of a side. Returns those that are clear text again: where, at a known record
        boundary, no record begins, these bytes and from then on all of that side."""
        return self._records[side].receive(data)

    def unneeded_bytes(self, side: Side) -> int:
        """How many of a side's next bytes nobody needs to see."""
        return self._records[side].unneeded_bytes

    def passed(self, side: Side, length: int) -> None:
        """So many bytes of a side came, of those that nobody needs to see."""
        self._records[side].passed(length)

    def left_out(self, side: Side, edge: bytes, left: int) -> None:
        """Takes note of records which the probe left out; see `probes.segment.Segment.left`."""
        if not self.established:
            self._judge.framing_lost(side)  # it knows less than the probe
        self._records[side].left_out(edge, left)

    def lost(self, side: Side, length: int) -> None:
        """Takes note of bytes of a side that were not captured; 0: unknown how many."""
        if not self._records[side].lost(length):
            self._judge.framing_lost(side)

    @property
    def established(self) -> bool:
        """Both sides sent application data after the handshake."""
        return self._judge.establishment.established

    @property
    def in_doubt(self) -> bool:
        """Not established as far as was seen, but deciding bytes were lost or can't be read."""
        judge = self._judge
        return (judge.doubt or judge.sslv2_spoken) and not (self.established or judge.fatal_alert_seen)

    @property
    def failed_visibly(self) -> bool:
        """Not established, and an alert was seen: a fatal one in clear, or one that was encrypted."""
        judge = self._judge
        return not self.established and (judge.fatal_alert_seen or judge.establishment.encrypted_alert_seen)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of hellos that are not complete yet."""
        return self._judge.buffered_bytes

    @property
    def facts(self) -> TlsFacts | None:
        """What the hellos say; None where none was seen whole."""
        return self._judge.facts


class _Judge(RecordSink):
    """Hears of the records of both sides."""

    __slots__ = (
        "_alert_levels",
        "_collectors",
        "_early_data_offered",
        "_retry_seen",
        "doubt",
        "establishment",
        "facts",
        "fatal_alert_seen",
    )

    def __init__(self) -> None:
        super().__init__()
        self.establishment = Establishment()
        self.facts: TlsFacts | None = None
        self.doubt = False
        self.fatal_alert_seen = False
        self._collectors = [HelloCollector(CLIENT_HELLO), HelloCollector(SERVER_HELLO)]
        # The first byte of the alert record that is being read; None before it came.
        self._alert_levels: list[int | None] = [None, None]
        self._early_data_offered = False
        self._retry_seen = False

    @property
    def buffered_bytes(self) -> int:
        return self._collectors[0].buffered_bytes + self._collectors[1].buffered_bytes

    def fragment(self, side: Side, content_type: int, data: bytes) -> None:
        if content_type == ALERT:
            if self._alert_levels[side] is None and data:
                self._alert_levels[side] = data[0]
            return
        hello = self._collectors[side].receive(data)
        if hello is None:
            return
        if side is Side.CLIENT:
            self._client_hello(hello)
        else:
            self._server_hello(hello)

    def fragment_lost(self, side: Side, content_type: int, length: int) -> None:
        if content_type == ALERT:
            if self._alert_levels[side] is None:
                self._alert_levels[side] = _UNKNOWN_LEVEL
        elif not self._collectors[side].lost(length) and side is Side.SERVER:
            self.doubt = True

    def record(self, side: Side, content_type: int, length: int) -> None:
        if content_type == SSLV2_CLIENT_HELLO:
            self.sslv2_may_follow = True
            self.facts = TlsFacts()
        elif content_type == SSLV2_SERVER_HELLO:
            if side is Side.SERVER:
                self.facts = TlsFacts(version="SSLv2")
        else:
            self._tls_record(side, content_type, length)

    def framing_lost(self, side: Side) -> None:
        self.doubt = True
        self._collectors[side].restart()
        self._alert_levels[side] = None

    def _tls_record(self, side: Side, content_type: int, length: int) -> None:
        if side is Side.SERVER:
            self.sslv2_may_follow = False
        if content_type == ALERT:
            if length == _CLEAR_ALERT_BYTES and self._alert_levels[side] == _FATAL:
                self.fatal_alert_seen = True
            self._alert_levels[side] = None
        elif content_type in (CHANGE_CIPHER_SPEC, APPLICATION_DATA) and not self._retry_seen:
            # What follows is encrypted, handshake records too; but after a HelloRetryRequest both sides send
            # a ChangeCipherSpec that means nothing (RFC 8446 appendix D.4), and the ServerHello is to come.
            self._collectors[side].stop()
        self.establishment.record(side, content_type, length)

    def _client_hello(self, body: bytes) -> None:
        self._collectors[Side.CLIENT].stop()  # a second one, after a HelloRetryRequest, says nothing new
        hello = parse_client_hello(body)
        if hello is None:
            return
        self._early_data_offered = EARLY_DATA in hello.extensions
        facts = self.facts = self.facts or TlsFacts()
        facts.sni = _text(hello.server_name)
        facts.alpn = _text(hello.alpn)
        facts.ja4 = ja4(hello)

    def _server_hello(self, body: bytes) -> None:
        hello = parse_server_hello(body)
        self._retry_seen = hello is not None and hello.is_retry
        if not self._retry_seen:
            self._collectors[Side.SERVER].stop()
        if hello is None:
            return
        facts = self.facts = self.facts or TlsFacts()
        facts.version = VERSIONS.get(hello.version)
        facts.cipher = cipher_name(hello.cipher)
        if not hello.is_retry:
            self.establishment.server_hello(hello, self._early_data_offered)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode("utf-8", "backslashreplace")
