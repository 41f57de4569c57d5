"""Which protocol a connection's bytes belong to: PROXY header, SMTP, TLS, and SMTP again.

Each side is in clear or in TLS on its own, because a 220 to STARTTLS is a promise that either side may break.
The client's first bytes decide whether it speaks TLS from the start; its first bytes after the 220, whether
TLS follows.

    client:  [PROXY header]  SMTP ... STARTTLS │ TLS ...           │ SMTP
    server:                  SMTP ...      220 │ [clear text] TLS  │ SMTP

Sans-IO: bytes in, events out, through `EventSink`.
"""

from abc import ABC, abstractmethod
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.anomalies import Anomaly
from monitor.proxy_protocol import NeedMore, ProxyHeader, read_proxy_header
from monitor.side import Side
from monitor.smtp.dialogue import Dialogue
from monitor.smtp.events import AnomalySeen, Event, TlsAccepted
from monitor.smtp.transitions import Phase
from monitor.streams import StreamReader
from monitor.tls.handshake import TlsReader
from monitor.tls.records import find_record, looks_like_tls

_CLIENT: Final = Side.CLIENT  # an attribute of an enum costs as much as what is done with it

IMPLICIT_TLS_PORT: Final = 465  # RFC 8314 section 7.3

# Longest PROXY header that is waited for: a version 2 header with its vendor fields (section 2.2.7 of its
# specification names none that come near this). Beyond it the bytes are the client's own.
_OPENING_LIMIT_BYTES: Final = 2_048


@mypyc_attr(allow_interpreted_subclasses=True)
class EventSink(ABC):
    """Takes what happens in a conversation."""

    __slots__ = ()

    @abstractmethod
    def event(self, event: Event) -> None: ...

    @abstractmethod
    def proxied(self, header: ProxyHeader) -> None: ...


class _NobodyListens(EventSink):
    """What happens in a conversation that is over."""

    __slots__ = ()

    def event(self, event: Event) -> None:
        pass

    def proxied(self, header: ProxyHeader) -> None:
        pass


_NOBODY_LISTENS: Final = _NobodyListens()


@mypyc_attr(acyclic=True)
class Sender:
    """One side, as far as it is known."""

    __slots__ = (
        "clear_text_seen",
        "in_tls",
        "lost_before_tls",
        "opaque_from",
        "opening",
        "sent_tls",
        "upgrading",
    )

    def __init__(self) -> None:
        self.clear_text_seen = False
        """It has sent clear text."""
        self.sent_tls = False
        """It has sent TLS bytes."""
        self.in_tls = False
        """So it does now."""
        self.upgrading = False
        """STARTTLS was answered 2xx, and what it sends next is not known yet."""
        self.lost_before_tls = False
        """Bytes that it sent before TLS were lost."""
        self.opaque_from: int | None = None
        """Where in its stream it first sent TLS; None where it did not, and where bytes before were lost: TLS
        may have begun in them."""
        self.opening = b""
        """Bytes of which it can't be told yet whether TLS begins with them."""


class Conversation(StreamReader):
    """Reads both streams of one connection."""

    __slots__ = (
        "_at_opening",
        "_client_end",
        "_lost_in_tls",
        "_proxy_header_read",
        "_server_spoke_after_220",
        "_sink",
        "client",
        "dialogue",
        "encrypted_bytes",
        "implicit",
        "port",
        "server",
        "tls",
        "upgraded",
    )

    def __init__(self, sink: EventSink, *, port: int, from_the_start: bool) -> None:
        self._sink = sink
        self.port = port
        self.dialogue = Dialogue(from_the_start=from_the_start)
        self.client = Sender()
        self.server = Sender()
        self.tls: TlsReader | None = None
        self.encrypted_bytes = 0
        self._client_end = 0
        self.implicit = False
        """The client's first bytes of all were TLS."""
        self.upgraded = False
        """STARTTLS was answered 2xx."""
        self._at_opening = from_the_start
        self._proxy_header_read = False
        self._lost_in_tls = False
        self._server_spoke_after_220 = False

    # ------------------------------------------------------------------ what the streams deliver

    def data(self, side: Side, data: bytes, at: int, heard: int) -> int:
        sender = self.server
        if side is _CLIENT:
            sender = self.client
            self._client_end = at + len(data)
        if sender.in_tls:
            self._tls_data(side, data, at, heard)
        elif side is _CLIENT:
            self._client(data, at, heard)
        else:
            self._server(data, at)
        if sender.in_tls:
            assert self.tls is not None
            return self.tls.unneeded_bytes(side)
        return self.dialogue.unneeded_client_bytes if side is _CLIENT else 0

    def passed(self, side: Side, length: int) -> None:
        if side is Side.CLIENT:
            self._client_end += length
        if self._of(side).in_tls:
            self.encrypted_bytes += length
            assert self.tls is not None
            self.tls.passed(side, length)
        else:
            self.dialogue.chunk_passed(length)

    def left_out(self, side: Side, length: int, edge: bytes, left: int) -> bool:
        if self._of(side).in_tls:
            self.encrypted_bytes += length
            assert self.tls is not None
            self.tls.left_out(side, edge, left)
            return True
        return side is Side.CLIENT and self.dialogue.client_left_out(length, edge, left)

    def lost(self, side: Side, length: int) -> None:
        sender = self._of(side)
        # What stands before a hole and what comes behind it make no beginning together.
        if side is Side.SERVER or not self._at_opening:
            sender.opening = b""
        if sender.in_tls:
            self.encrypted_bytes += length
            self._lost_in_tls = True
            assert self.tls is not None
            self.tls.lost(side, length)
            return
        if side is Side.CLIENT:
            if self._at_opening:
                self._at_opening, sender.opening = False, b""
            self._events(self.dialogue.client_lost(length))
        elif not sender.upgrading:
            self._events(self.dialogue.server_lost(length))
        sender.lost_before_tls = True
        if sender.upgrading or self.tls is not None:
            # TLS may have been in them; from now on it is recognised by its records.
            self._reader().lost(side, length)

    def end(self, *, in_doubt: bool) -> None:
        """Nothing more comes. `in_doubt`: the connection's end was not captured."""
        opening = self.client.opening
        if opening:
            # Too little to tell what it is: then it is a line that never ended.
            self.client.opening, self._at_opening = b"", False
            self._events(self.dialogue.client(opening, 0))
            if self.dialogue.unread_client:
                self._events(self.dialogue.client_text(self.dialogue.unread_client))
        self._events(self.dialogue.closed(in_doubt=in_doubt))
        # Who listened holds us too: in a ring, both would wait for the garbage collector.
        self._sink = _NOBODY_LISTENS

    # ------------------------------------------------------------------ verdicts

    @property
    def buffered_bytes(self) -> int:
        buffered = len(self.client.opening) + len(self.server.opening) + self.dialogue.buffered_bytes
        return buffered + self.tls.buffered_bytes if self.tls is not None else buffered

    @property
    def dark(self) -> bool:
        """Encrypted in both directions: nothing but the end is of interest."""
        return self.client.in_tls and self.server.in_tls and self.encryption_established

    @property
    def encryption_established(self) -> bool:
        return self.tls is not None and self.client.sent_tls and self.tls.established

    @property
    def encryption_ruled_out(self) -> bool:
        """What was captured shows that encryption was not established up to here: it takes both sides, and
        one of them is known to have spoken clear text throughout, or the handshake to have come to
        nothing."""
        if self.encryption_established:
            return False
        if self.tls is not None and (self.client.in_tls or self.server.in_tls):
            return not self.tls.in_doubt
        if self.client.upgrading:
            return self.tls is None or not self.tls.in_doubt
        return self.dialogue.client_in_clear or self.dialogue.server_in_clear

    @property
    def in_clear_to_the_end(self) -> bool:
        """Both sides spoke clear text, and the last that was captured of each was understood."""
        return self.dialogue.client_in_clear and self.dialogue.server_in_clear

    # ------------------------------------------------------------------ the client's side

    def _client(self, data: bytes, at: int, heard: int) -> None:
        if self._at_opening:
            self._open(data, at, heard)
        elif self.client.upgrading:
            self._client_after_220(data, at, heard)
        elif self.dialogue.phase is Phase.LOST and looks_like_tls(data):
            self._start_tls(Side.CLIENT, data, at, heard)
        else:
            opening, self.client.opening = self.client.opening, b""
            self._client_in_clear(opening + data if opening else data, heard)

    def _open(self, data: bytes, at: int, heard: int) -> None:
        """The client's first bytes: a PROXY header, TLS, or SMTP."""
        sender = self.client
        opening = sender.opening + data
        header = read_proxy_header(opening) if not self._proxy_header_read else None
        if isinstance(header, NeedMore) and len(opening) <= _OPENING_LIMIT_BYTES:
            sender.opening = opening
            return
        if isinstance(header, ProxyHeader):
            self._proxy_header_read = True
            self._sink.proxied(header)
            at += header.length - len(sender.opening)
            opening = opening[header.length :]
            if not opening:
                sender.opening = b""
                return
        is_tls = looks_like_tls(opening)
        if is_tls is None and len(opening) < _OPENING_LIMIT_BYTES:
            sender.opening = opening
            return
        if not isinstance(header, ProxyHeader):
            at -= len(sender.opening)
        sender.opening = b""
        self._at_opening = False
        if is_tls:
            self.implicit = True
            self._start_tls(Side.CLIENT, opening, at, heard)
        else:
            self._client_in_clear(opening, heard)

    def _client_in_clear(self, data: bytes, heard: int) -> None:
        self._events(self.dialogue.client(data, heard))
        if len(self.dialogue.unread_client) < len(data):
            self.client.clear_text_seen = True
        self._look_at_unread(heard)

    def _look_at_unread(self, heard: int) -> None:
        """TLS that nobody has agreed on may begin with any line."""
        while self.dialogue.unread_client:
            unread = self.dialogue.unread_client
            is_tls = looks_like_tls(unread) if not self.client.sent_tls else False  # only once
            if is_tls is False:
                self.client.clear_text_seen = True
                self._events(self.dialogue.client_text(unread))
                continue
            self.dialogue.unread_client = b""
            if is_tls:
                self._start_tls(Side.CLIENT, unread, self._client_end - len(unread), heard)
            else:
                self.client.opening = unread

    def _client_after_220(self, data: bytes, at: int, heard: int) -> None:
        opening, at = self.client.opening + data, at - len(self.client.opening)
        self.client.opening = b""
        if heard < self.dialogue.upgrade_heard_from:
            # Sent before the 220 was heard. A server that keeps to RFC 3207 throws it away.
            self._sink.event(AnomalySeen(Anomaly.STARTTLS_INJECTION))
            begin = find_record(opening)
            opening, at = opening[begin:], at + begin
        is_tls = looks_like_tls(opening)
        if is_tls is None:
            self.client.opening = opening
        elif is_tls:
            self._start_tls(Side.CLIENT, opening, at, heard)
        elif self.tls is None or not self.tls.in_doubt:
            # The client breaks its promise and goes on in clear.
            self.client.upgrading = self.server.upgrading = False
            self.dialogue.clear_again()
            self._client_in_clear(opening, heard)

    # ------------------------------------------------------------------ the server's side

    def _server(self, data: bytes, at: int) -> None:
        if self.server.opening:
            data, at = self.server.opening + data, at - len(self.server.opening)
            self.server.opening = b""
        while data and not self.server.upgrading:
            size = len(data)
            lost = self.dialogue.phase is Phase.LOST
            if lost or self.client.in_tls or self.upgraded or not at:
                # TLS may begin here: after a loss with any piece, else with any line.
                if not lost:
                    size = data.find(b"\n") + 1 or size
                is_tls = looks_like_tls(data) if lost or not self.dialogue.server_mid_line else False
                if is_tls is None:
                    self.server.opening = data
                    return
                if is_tls:
                    self._start_tls(Side.SERVER, data, at, 0)
                    return
            self._server_in_clear(data[:size], at)
            unread = self._unread_after_220()
            data, at = unread + data[size:], at + size - len(unread)
        if data:
            self._server_after_220(data, at)

    def _server_in_clear(self, data: bytes, at: int) -> None:
        self.server.clear_text_seen = True
        self._events(self.dialogue.server(data, at))
        self._look_at_unread(0)  # it may have waited for this reply

    def _unread_after_220(self) -> bytes:
        """What came behind it in the same piece."""
        if not self.server.upgrading:
            return b""
        unread, self.dialogue.unread_server = self.dialogue.unread_server, b""
        return unread

    def _server_after_220(self, data: bytes, at: int) -> None:
        data, at = self.server.opening + data, at - len(self.server.opening)
        self.server.opening = b""
        begin = find_record(data)
        if begin:
            if self.tls is not None and self.tls.in_doubt:
                return  # the middle of a record, perhaps
            self._server_spoke_after_220 = True
            if self.client.sent_tls:
                self._sink.event(AnomalySeen(Anomaly.RESPONSE_INJECTION))
            data, at = data[begin:], at + begin
        if looks_like_tls(data):
            self._start_tls(Side.SERVER, data, at, 0)
        else:
            self.server.opening = data

    # ------------------------------------------------------------------ TLS

    def _start_tls(self, side: Side, data: bytes, at: int, heard: int) -> None:
        reader = self._reader()
        sender = self._of(side)
        sender.in_tls = sender.sent_tls = True
        sender.upgrading = False
        if side is Side.CLIENT:
            if not self.upgraded and self.dialogue.phase is not Phase.LOST and self.port != IMPLICIT_TLS_PORT:
                self._sink.event(AnomalySeen(Anomaly.TLS_WITHOUT_STARTTLS))
            if self._server_spoke_after_220:
                self._sink.event(AnomalySeen(Anomaly.RESPONSE_INJECTION))
        if sender.opaque_from is None and not sender.lost_before_tls:
            sender.opaque_from = at
        if self.dialogue.phase is Phase.LOST and not self.upgraded:
            reader.lost(side, 0)
        if side is Side.CLIENT and not self.server.sent_tls and self.dialogue.server_thread_lost:
            reader.lost(Side.SERVER, 0)
        self._tls_data(side, data, at, heard)

    def _tls_data(self, side: Side, data: bytes, at: int, heard: int) -> None:
        assert self.tls is not None
        rest = self.tls.receive(side, data)
        self.encrypted_bytes += len(data) - len(rest)
        if not rest:
            return
        if self.tls.established:
            self._sink.event(AnomalySeen(Anomaly.CLEARTEXT_AFTER_TLS))
        self._of(side).in_tls = False
        if self.dialogue.phase is Phase.TLS:
            self.dialogue.clear_again()
            if self._lost_in_tls:
                self._events(self.dialogue.client_lost(0))  # clear text may have been among it
        at += len(data) - len(rest)
        if side is Side.CLIENT:
            self._client_in_clear(rest, heard)
        else:
            self._server_in_clear(rest, at)

    def _of(self, side: Side) -> Sender:
        return self.client if side is _CLIENT else self.server

    def _reader(self) -> TlsReader:
        if self.tls is None:
            self.tls = TlsReader()
        return self.tls

    # ------------------------------------------------------------------

    def _events(self, events: list[Event]) -> None:
        for event in events:
            self._sink.event(event)
            if isinstance(event, TlsAccepted):
                self._upgrade()

    def _upgrade(self) -> None:
        self.upgraded = True
        self.client.upgrading = self.server.upgrading = True
        held = self.dialogue.take_held()
        if held:
            # After a loss, the 220 may answer what was held back.
            if self.dialogue.all_was_seen:
                self._sink.event(AnomalySeen(Anomaly.STARTTLS_INJECTION))
            held = held[find_record(held) :]
            if looks_like_tls(held):
                self._start_tls(Side.CLIENT, held, self._client_end - len(held), 0)
            else:
                self.client.opening = held
