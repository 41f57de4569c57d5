"""One connection on a watched port: its packets in, one `SessionRecord` out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from monitor.anomalies import NO_ANOMALIES, Anomaly
from monitor.proxy_protocol import ProxyHeader
from monitor.sessions.addresses import address_text
from monitor.sessions.community_id import community_id
from monitor.sessions.conversation import Conversation, EventSink
from monitor.sessions.ledger import Ledger
from monitor.sessions.lists import with_item
from monitor.sessions.reach import Ending, Reaches
from monitor.sessions.record import (
    SCHEMA_VERSION,
    Banner,
    ByteCounts,
    Capture,
    Channel,
    Direction,
    Ended,
    Endpoint,
    Envelope,
    Helo,
    OpaqueFrom,
    SessionRecord,
    Starttls,
    Tapped,
    Tls,
)
from monitor.sessions.site import Outside, Site
from monitor.sessions.transactions import seconds
from monitor.sessions.verdicts import Facts, channel, envelope, starttls_offered, starttls_outcome
from monitor.side import Side
from monitor.smtp.events import AnomalySeen, BannerReceived, CommandAnswered, CommandSent, CommandsLost, Event
from monitor.smtp.grammar import GREETINGS, TLS_STARTERS, Command
from monitor.smtp.replies import Reply
from monitor.streams import Streams
from probes.segment import Segment, ends

_NEEDED_BYTES: Final = 8_192
"""What a session may keep before it counts as much: a mail to a dozen recipients."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MASKED_KEYWORD_LENGTH: Final = len("STARTTLS")


class Session(EventSink):
    """Follows one connection from its first segment to its record."""

    __slots__ = (
        "_anomalies",
        "_banner",
        "_banner_seen",
        "_commands_lost",
        "_conversation",
        "_ehlo_answered",
        "_first_at_ns",
        "_helo",
        "_keyword_masked",
        "_ledger",
        "_mail_in_clear",
        "_midstream",
        "_offer_unseen",
        "_offered",
        "_proxied",
        "_quit_answered",
        "_quit_sent",
        "_reaches",
        "_request_masked",
        "_starttls_codes",
        "_starttls_requested",
        "accounted_bytes",
        "flow",
        "last_at_ns",
        "streams",
        "touched_ns",
    )

    def __init__(
        self,
        flow: bytes,
        at_ns: int,
        reaches: Reaches,
        *,
        midstream: bool,
    ) -> None:
        """`reaches`: of this session alone."""
        self.flow: Final = flow
        """From the client, see Segment."""
        self._first_at_ns = self.last_at_ns = at_ns
        self._conversation = Conversation(self, port=ends(flow)[1][1], from_the_start=not midstream)
        self.streams = Streams(self._conversation)
        self.touched_ns = at_ns
        """The table's note of when it last saw this session active."""
        self.accounted_bytes = 0
        """The table's note of what this session buffered."""
        self._proxied: Endpoint | None = None
        self._banner: Banner | None = None
        self._helo: list[Helo] | None = None
        self._ledger = Ledger()
        self._anomalies = NO_ANOMALIES
        self._starttls_requested = 0
        self._starttls_codes: list[int | None] | None = None
        self._midstream = midstream
        self._request_masked = self._keyword_masked = False
        self._ehlo_answered = self._offered = self._offer_unseen = False
        self._mail_in_clear = False
        self._quit_sent = self._quit_answered = False
        self._commands_lost = midstream
        self._banner_seen = False
        self._reaches = reaches
        if midstream:
            reaches.lost()

    # ------------------------------------------------------------------ what happens in it

    def segment(self, side: Side, segment: Segment) -> None:
        """Takes a segment that one side sent."""
        at_ns = segment.at_ns
        if at_ns > self.last_at_ns:
            self.last_at_ns = at_ns
        self.streams.segment(side, segment)

    def event(self, event: Event) -> None:
        """Takes what the dialogue reports."""
        match event:
            case CommandAnswered():
                self._answered(event)
            case CommandSent():
                self._sent(event.command)
            case AnomalySeen():
                self._anomalies |= {event.anomaly}
            case BannerReceived():
                self._banner_seen = True
                self._reaches.greeted(event.reply)
                if event.reply.whole:
                    self._banner = Banner(event.reply.code, event.reply.text)
            case CommandsLost():
                # What comes behind the encryption changes nothing of what was hidden by it.
                if not self._conversation.encryption_established:
                    self._commands_lost = True
                    self._reaches.lost()
                self._ledger.lost()

    def proxied(self, header: ProxyHeader) -> None:
        """A PROXY header named the real client, or nobody."""
        if header.ip is not None and header.port is not None:
            self._proxied = Endpoint(header.ip, header.port)

    def _sent(self, command: Command) -> None:
        verb = command.verb
        self._ledger.sent(command)
        self._quit_sent = verb == "QUIT"
        if verb == "MAIL":
            self._mail_in_clear |= command.names_a_path and not self._conversation.encryption_established
        elif verb in TLS_STARTERS:
            self._starttls_requested += 1
            self._request_masked |= command.masked

    def _answered(self, event: CommandAnswered) -> None:
        command, reply = event.command, event.reply
        verb = command.verb
        if reply is not None and not self._banner_seen:
            self._banner_seen = True  # it was lost, and what it said
            self._reaches.lost()
        self._reaches.answered(event)
        if verb in TLS_STARTERS:
            self._starttls_codes = with_item(self._starttls_codes, reply.code if reply is not None else None)
        elif verb in GREETINGS:
            self._greeted(command, reply, in_doubt=event.in_doubt)
        elif verb == "QUIT":
            self._quit_answered = reply is not None and reply.positive
        self._ledger.answered(event, self.last_at_ns - self._first_at_ns)

    def _greeted(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        if not command.cut and self._ledger.room(len(command.name)):
            code = reply.code if reply is not None else None
            self._helo = with_item(self._helo, Helo(command.verb, command.name, code))
        if reply is None:
            self._offer_unseen |= in_doubt
            return
        if not reply.positive or command.verb == "HELO":
            return
        self._ehlo_answered = True
        keywords = reply.keywords()
        if b"STARTTLS" in keywords:
            self._offered = True
        elif any(_is_masked(keyword) for keyword in keywords):
            self._keyword_masked = True
            self._anomalies |= {Anomaly.STARTTLS_MASKED}
        elif not reply.whole:
            self._offer_unseen = True

    @property
    def buffered_bytes(self) -> int:
        """Memory that the session keeps beyond what every session needs: bytes that can't go on yet, or of
        which it can't tell yet what they are; commands that wait for their replies; long lists."""
        kept = self.streams.held_bytes + self._conversation.buffered_bytes + self._ledger.kept_bytes
        return max(0, kept - _NEEDED_BYTES)

    @property
    def may_buffer(self) -> bool:
        """Has `buffered_bytes` to be asked? Not of a session that is encrypted and in order: it keeps
        nothing."""
        return not self._conversation.dark or self.streams.held_bytes > 0 or self.accounted_bytes > 0

    # ------------------------------------------------------------------ the record

    def record(self, site: Site, unseen_end: Ended | None = None) -> SessionRecord:
        """Ends the session and freezes it. To be called once.

        `unseen_end`: why it is no longer followed, where the connection's own end was not seen.
        """
        self.streams.flush()
        self._conversation.end(in_doubt=unseen_end is not None or not self.streams.whole)
        end_seen = unseen_end is None or self._quit_answered
        if not end_seen:
            self._ledger.lost()
        ended = self._how_it_ended() if end_seen or unseen_end is None else unseen_end
        (client_address, client_port), (server_address, server_port) = ends(self.flow)
        client_ip, server_ip = address_text(client_address), address_text(server_address)
        whole = self.streams.whole and not self._midstream
        facts = self._facts(whole=whole, end_seen=end_seen)
        direction = site.ours.direction(client_ip, server_ip)
        verdict, carried_by = envelope(facts), channel(facts)
        flow_hash = community_id(client_address, client_port, server_address, server_port)
        sent = self.streams.length(Side.CLIENT)
        received = self.streams.length(Side.SERVER)
        encrypted = self._conversation.encrypted_bytes
        # By position, and each thing after the name of its field: msgspec takes two dozen arguments by name
        # in six times the time.
        return SessionRecord(
            SCHEMA_VERSION,
            flow_hash,  # community_id
            _rfc3339(self._first_at_ns),  # start
            _rfc3339(self.last_at_ns),  # end
            Endpoint(client_ip, client_port),
            Endpoint(server_ip, server_port),
            direction,
            self._proxied,
            carried_by,  # channel
            verdict,  # envelope
            self._banner,
            tuple(self._helo or ()),
            Starttls(
                starttls_offered(facts), facts.requested, facts.codes, starttls_outcome(facts, carried_by)
            ),
            self._tls(),
            self._ledger.auth,
            self._ledger.frozen(),
            ByteCounts(
                client=sent, server=received, cleartext=sent + received - encrypted, encrypted=encrypted
            ),
            ended,
            Capture(
                complete=whole and end_seen,
                gap_bytes=self.streams.gap_bytes,
                midstream=self._midstream,
                truncated=self.streams.truncated,
            ),
            self._all_anomalies(),
            seconds(self.last_at_ns - self._first_at_ns),  # duration_seconds
            self._opaque_from(),
            # The mail that we send passes no greylister of ours.
            self._reaches.ended(_ending(facts, verdict, carried_by))
            if direction is not Direction.OUTBOUND
            else {},
            site.locate(self._proxied.ip if self._proxied is not None else client_ip),  # client_location
            self._tapped(site.tapped, facts, carried_by, direction, flow_hash)
            if site.tapped is not None
            else None,
        )

    def _tapped(
        self,
        tapped: Callable[[Outside], Tapped | None],
        facts: Facts,
        carried_by: Channel,
        direction: Direction,
        flow_hash: str,
    ) -> Tapped | None:
        return tapped(
            Outside(
                flow=self.flow,
                community_id=flow_hash,
                direction=direction,
                first_at_ns=self._first_at_ns,
                last_at_ns=self.last_at_ns,
                channel=carried_by,
                established=facts.established,
                ruled_out=facts.ruled_out,
                whole=facts.whole and facts.end_seen,
                encrypted_bytes=self._conversation.encrypted_bytes,
            )
        )

    def _all_anomalies(self) -> tuple[Anomaly, ...]:
        anomalies = self._anomalies
        if self._ledger.overflowed:
            anomalies |= {Anomaly.LIST_OVERFLOW}
        return tuple(sorted(anomalies)) if anomalies else ()

    def _opaque_from(self) -> OpaqueFrom | None:
        conversation = self._conversation
        if not (conversation.client.sent_tls or conversation.server.sent_tls):
            return None
        if self._midstream or self.streams.start_unseen:
            return OpaqueFrom(None, None)
        return OpaqueFrom(conversation.client.opaque_from, conversation.server.opaque_from)

    def _how_it_ended(self) -> Ended:
        if self._quit_answered or (self._quit_sent and self.streams.reset_by is None):
            return Ended.QUIT
        if self.streams.reset_by is not None and self.streams.closed_first is None:
            return Ended.RESET
        return Ended.SERVER_CLOSED if self.streams.closed_first is Side.SERVER else Ended.CLIENT_CLOSED

    def _facts(self, *, whole: bool, end_seen: bool) -> Facts:
        conversation = self._conversation
        return Facts(
            established=conversation.encryption_established,
            # A session that was still open may yet turn to TLS; but hardly one that has begun a mail in
            # clear.
            ruled_out=conversation.encryption_ruled_out
            and (end_seen or (self._mail_in_clear and conversation.in_clear_to_the_end)),
            whole=whole,
            end_seen=end_seen,
            client_sent_tls=conversation.client.sent_tls,
            server_sent_tls=conversation.server.sent_tls,
            implicit=conversation.implicit,
            upgraded=conversation.upgraded,
            client_sent_clear_text=conversation.client.clear_text_seen,
            server_sent_clear_text=conversation.server.clear_text_seen,
            mail_in_clear=self._mail_in_clear,
            commands_lost=self._commands_lost,
            ehlo_answered=self._ehlo_answered,
            offered=self._offered,
            offer_unseen=self._offer_unseen,
            keyword_masked=self._keyword_masked,
            requested=self._starttls_requested,
            request_masked=self._request_masked,
            codes=tuple(self._starttls_codes or ()),
        )

    def _tls(self) -> Tls | None:
        reader = self._conversation.tls
        facts = reader.facts if reader is not None else None
        if facts is None:
            return None
        return Tls(facts.version, facts.cipher, facts.sni, facts.alpn, facts.ja4)


def _ending(facts: Facts, verdict: Envelope, carried_by: Channel) -> Ending:
    return Ending(
        envelope=verdict,
        channel=carried_by,
        began_in_tls=facts.implicit,
        client_sent_tls=facts.client_sent_tls,
        end_seen=facts.end_seen,
        commands_lost=facts.commands_lost,
    )


def _is_masked(keyword: bytes) -> bool:
    """XXXXXXXA and its kin: STARTTLS as overwritten by a firewall that does not want it."""
    return len(keyword) == _MASKED_KEYWORD_LENGTH and keyword.startswith(b"XXXXXXX")


def _rfc3339(at_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 text with microseconds."""
    seconds, rest_ns = divmod(at_ns, 1_000_000_000)
    # Seven digits, of which the first is cut off: quicker than to ask for six with zeros in front.
    return f"{_whole_seconds(seconds)}.{str(1_000_000 + rest_ns // 1_000)[1:]}Z"


@lru_cache(maxsize=8)
def _whole_seconds(seconds: int) -> str:
    """Sessions that end together begin and end in the same few seconds."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
