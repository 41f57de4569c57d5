"""One connection inside TLS: `TapEvent`s in, `Tapped` out."""

from typing import Final

from msgspec.structs import replace

from monitor.sessions.ledger import Ledger
from monitor.sessions.record import Recipient, Tapped, TapResult, Transaction
from monitor.smtp.dialogue import HELD_LIMIT_BYTES, Dialogue
from monitor.smtp.events import CommandAnswered, CommandSent, CommandsLost, Event
from monitor.smtp.transitions import AWAITS_REPLY, NOT_SMTP, Phase
from monitor.tapped.opening import Opening, is_greeting, opening
from probes.tls_tap.event import Kind, TapEvent

_LAST_LINE: Final = b".\r\n"
_END: Final = b"\r\n" + _LAST_LINE
_BANNER: Final = b"220"
_NS_PER_SECOND: Final = 1_000_000_000
_AWAITS_SMTP_REPLY: Final = AWAITS_REPLY - NOT_SMTP


class TappedStream:
    """Follows one connection from the first event that the tap has of it.

    The dialogue hears all that a bystander would hear without TLS, but for the words of replies and for the
    bytes of messages. What it reports of bad manners is not of interest here: when the client sent something
    is not to be seen from inside.
    """

    __slots__ = (
        "_began",
        "_closed",
        "_dialogue",
        "_ended",
        "_ledger",
        "_lost",
        "_next_number",
        "_opening",
        "_quit_answered",
        "_replied",
        "_said",
        "_server_spoke_last",
        "exchanges",
        "first_at_ns",
        "greeted",
        "is_unsure",
        "kept_bytes",
        "key",
        "last_at_ns",
        "plain_bytes",
    )

    def __init__(self, event: TapEvent) -> None:
        """`event`: its first, which `event` is to be told as well."""
        self.key: Final = (event.flow, event.cookie)
        self.first_at_ns: Final = event.at_ns
        self.last_at_ns = event.at_ns
        self.is_unsure = False
        """Some of it may belong to another connection."""
        self.kept_bytes = 0
        """Memory that it takes beyond what every stream does."""
        self.exchanges = 0
        """How often the server answered what it had read."""
        self.plain_bytes = 0
        """At least so many bytes were inside TLS, both directions."""
        self.greeted: bool | None = None
        """The server greeted the client inside TLS; None where that is not known."""
        self._began = event.kind is Kind.BEGUN and event.number == 0
        self._dialogue = Dialogue(from_the_start=self._began, tapped=True)
        self._ledger = Ledger()
        self._opening: bytes | None = b"" if self._began else None
        """What the client said before the first reply, which tells what that is; None once it has come."""
        self._next_number = event.number
        self._lost = not self._began
        self._closed = self._ended = False
        self._quit_answered = False
        self._server_spoke_last = True
        self._said = 0
        """Bytes of the server's side, as the dialogue has heard them."""
        self._replied = False
        """A reply came since the client last spoke."""

    @property
    def is_silent(self) -> bool:
        """Nothing was read or written, as far as the tap tells."""
        return not self.plain_bytes

    @property
    def _is_whole(self) -> bool:
        """Known once it is over."""
        return (
            not self._lost
            and not self._ledger.overflowed
            and self._dialogue.phase not in NOT_SMTP
            and (self._is_over or self._quit_answered)
        )

    @property
    def _is_over(self) -> bool:
        """The client said no more than was heard."""
        return self._closed or self._ended

    def event(self, event: TapEvent) -> None:
        """Takes the next event."""
        self.last_at_ns = event.at_ns
        self.is_unsure |= event.is_unsure
        if event.number != self._next_number or self._ended:
            self._closed = self._ended = False
            self._lose()
        self._next_number = event.number + 1
        match event.kind:
            case Kind.COMMANDS:
                self._count_read(len(event.text))
                self._commands(event.text)
            case Kind.REPLY:
                self._count_written(len(event.text))
                self._reply(event.text)
            case Kind.MESSAGE:
                self._count_read(event.length)
                self._message(event.length)
            case Kind.CHUNK:
                self._count_read(event.length)
                self._chunk(event.length)
            case Kind.LOST:
                self._count_read(event.length)
                self._lose()
            case Kind.ENDED:
                self._ended = True
            case Kind.CLOSED:
                self._closed = True
        self.kept_bytes = self._ledger.kept_bytes + self._dialogue.buffered_bytes + len(self._opening or b"")

    def close(self, since_ns: int) -> Tapped:
        """The connection is over. To be called once.

        `since_ns`: when its session began, from where `after_seconds` counts.
        """
        if self._opening:
            self._hear(self._opening)  # never answered
        if self._dialogue.phase is Phase.BODY:
            self._take(self._dialogue.client_lost(0))  # how much of it came is not told before its end
        self._take(self._dialogue.closed(in_doubt=self._lost or not self._is_over))
        if not (self._is_over or self._quit_answered):
            self._ledger.lost()
        return Tapped(
            TapResult.WHOLE if self._is_whole else TapResult.PARTIAL,
            tuple(_later(transaction, self.first_at_ns - since_ns) for transaction in self._ledger.frozen()),
            self._ledger.auth,
        )

    # ------------------------------------------------------------------ what the two sides said

    def _commands(self, text: bytes) -> None:
        if self._opening is not None:
            self._opening += text
            if len(self._opening) > HELD_LIMIT_BYTES:
                self._lose()
            return
        if self._lost and self._replied and self._dialogue.phase in _AWAITS_SMTP_REPLY:
            # The server has answered and reads commands again; but after a loss nobody knows which answer was
            # that which decides what the client says next.
            self._lose()
        self._replied = False
        self._hear(text)

    def _reply(self, code: bytes) -> None:
        if self._opening is not None:
            self._open(self._opening, code)
        self._say(code)
        self._replied = True

    def _open(self, spoken: bytes, code: bytes) -> None:
        """The first reply comes, after the client said that."""
        self._opening = None
        self.greeted = is_greeting(spoken, code)
        match opening(spoken, code):
            case Opening.BANNER:
                self._hear(spoken)
            case Opening.ANSWER:
                self._say(_BANNER)  # the dialogue begins with one; this came before TLS
                self._hear(spoken)
            case Opening.UNCLEAR:
                self._lose()

    def _message(self, length: int) -> None:
        dialogue = self._dialogue
        if dialogue.phase is Phase.LOST:
            dialogue.client_left_out(length, b"", 0)
        elif dialogue.phase is not Phase.BODY:
            self._lose()
        elif length == len(_LAST_LINE):
            self._hear(_LAST_LINE)
        elif length < len(_END):
            self._lose()  # no message is so long
        else:
            if length > len(_END):
                dialogue.client_left_out(length - len(_END), b"", 0)
            self._hear(_END)

    def _chunk(self, length: int) -> None:
        if not length:
            return
        is_expected = self._dialogue.client_left_out(length, b"", 0)
        if not is_expected or self._dialogue.phase is Phase.CHUNK:
            self._lose()

    def _lose(self) -> None:
        """Bytes of both sides were lost, nobody knows how many."""
        self._lost = True
        self._opening = None
        self._take(self._dialogue.server_lost(0))
        self._take(self._dialogue.client_lost(0))

    def _hear(self, text: bytes) -> None:
        """The client says something."""
        if text:
            self._take(self._dialogue.client(text, self._said))
            self._take_text()

    def _say(self, code: bytes) -> None:
        """The server ends a reply."""
        line = code + b" \r\n"
        self._take(self._dialogue.server(line, self._said))
        self._said += len(line)
        self._take_text()

    def _take_text(self) -> None:
        """Whatever a line begins with, it is no TLS."""
        while self._dialogue.unread_client:
            self._take(self._dialogue.client_text(self._dialogue.unread_client))

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, CommandAnswered):
                self._ledger.answered(event, max(0, self.last_at_ns - self.first_at_ns))
                if event.command.verb == "QUIT":
                    self._quit_answered = event.reply is not None and event.reply.positive
            elif isinstance(event, CommandSent):
                self._ledger.sent(event.command)
            elif isinstance(event, CommandsLost):
                self._lost = True
                self._ledger.lost()

    # ------------------------------------------------------------------ for who holds it against the packets

    def _count_read(self, length: int) -> None:
        self._closed = False  # whoever said that the client had gone, it had not
        self.plain_bytes += length
        self._server_spoke_last = False

    def _count_written(self, length: int) -> None:
        self.plain_bytes += length
        if not self._server_spoke_last:
            self.exchanges += 1
        self._server_spoke_last = True


def _later(transaction: Transaction, by_ns: int) -> Transaction:
    """The same, its times counted from so much earlier on."""
    recipients = tuple([_answered_later(recipient, by_ns) for recipient in transaction.recipients])
    return replace(transaction, recipients=recipients)


def _answered_later(recipient: Recipient, by_ns: int) -> Recipient:
    if recipient.after_seconds is None:
        return recipient
    after_seconds = round(recipient.after_seconds + by_ns / _NS_PER_SECOND, 6)
    return replace(recipient, after_seconds=max(0.0, after_seconds))
