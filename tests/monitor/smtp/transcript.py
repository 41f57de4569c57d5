r"""SMTP sessions as they are written in the RFCs, and what a `Dialogue` makes of them.

    S: 220 mx.example            a line of the server, CRLF at its end
    C: EHLO client.example       a line of the client, who has heard all that the server said before
    c: QUIT                      a line of the client, sent before it heard the server's last lines
    C< a\nb   S< 250-a\x20       raw bytes: no line end but those written, Python's escapes
    C- 12     S- 12              so many bytes of that side were not captured
    /                            the next line of the same side travels in a segment of its own
    --        --?                the connection ends; its end was not captured
    = > EHLO client.example      what the dialogue reports up to here, all of it, since the last such lines
    = nothing

Lines of one side that follow each other share a segment. Reports are written so:

    banner 220                       BannerReceived
    > MAIL <a@b> SIZE=10             CommandSent; `> ?` an unknown verb, `> . 120` a message of 120 bytes
    < MAIL <a@b> 250                 CommandAnswered; `250~` of which a part was lost, `-` none, `?` none seen
    body  tls  lost                  BodyStarted, TlsAccepted, CommandsLost
    ! bare_lf                        AnomalySeen

Every transcript is played twice, the second time byte by byte: the reports must be the same, at the same
lines. And whatever is reported, it must hold to the promises in `Ledger`.
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from monitor.side import Side
from monitor.smtp.dialogue import Dialogue
from monitor.smtp.events import (
    AnomalySeen,
    BannerReceived,
    BodyStarted,
    CommandAnswered,
    CommandSent,
    CommandsLost,
    Event,
    TlsAccepted,
)
from monitor.smtp.grammar import AUTHENTICATORS, END_OF_DATA, Command
from monitor.smtp.replies import Reply

SECRET = "s3cret"
"""Stands in bodies and in AUTH exchanges; it must be in no report."""

GREETED = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-STARTTLS
    S: 250 CHUNKING
"""
GREETED_WITHOUT_PIPELINING = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250 mx.example
"""
RECIPIENT_GIVEN = (
    GREETED
    + """
    C: MAIL FROM:<a@client.example>
    S: 250 sender ok
    C: RCPT TO:<b@example.test>
    S: 250 recipient ok
"""
)
BODY_BEGUN = (
    RECIPIENT_GIVEN
    + """
    C: DATA
    S: 354 go ahead
"""
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one side that travel together."""

    side: Side
    data: bytes
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    side: Side
    length: int


@dataclass(frozen=True, slots=True)
class Close:
    in_doubt: bool


@dataclass(slots=True)
class Expected:
    reports: list[str] = field(default_factory=list)


Step = Piece | Loss | Close | Expected


class Ledger:
    """A dialogue, and the promises about its events that hold for every traffic."""

    def __init__(self, *, from_the_start: bool = True) -> None:
        self.dialogue = Dialogue(from_the_start=from_the_start)
        self.events: list[Event] = []
        self.closed = False
        self._server_at = 0
        self._sent: list[Command] = []
        self._next = 0
        self._anomalies: set[str] = set()

    def take(self, step: Piece | Loss | Close) -> None:
        dialogue = self.dialogue
        match step:
            case Piece(Side.CLIENT, data, heard):
                self._write_down(dialogue.client(data, heard))
                self._take_back()
            case Piece(Side.SERVER, data):
                self._write_down(dialogue.server(data, self._server_at))
                self._take_back()
                self._server_at += len(data)
            case Loss(Side.CLIENT, length):
                self._write_down(dialogue.client_lost(length))
            case Loss(Side.SERVER, length):
                self._write_down(dialogue.server_lost(length))
                self._server_at += length
            case Close(in_doubt):
                self._write_down(dialogue.closed(in_doubt=in_doubt))
                self.closed = True
                assert self._next == len(self._sent), f"never answered: {self._sent[self._next :]}"

    def _take_back(self) -> None:
        """Nothing is TLS here."""
        while self.dialogue.unread_client:
            self._write_down(self.dialogue.client_text(self.dialogue.unread_client))

    def _write_down(self, events: list[Event]) -> None:
        for event in events:
            self._check_secrecy(event)
            if isinstance(event, CommandSent):
                assert event.command not in self._sent[self._next :]
                self._sent.append(event.command)
            elif isinstance(event, CommandAnswered):
                self._check_answer(event)
            elif isinstance(event, AnomalySeen):
                assert event.anomaly not in self._anomalies, "reported twice"
                self._anomalies.add(event.anomaly)
        self.events += events

    def _check_secrecy(self, event: Event) -> None:
        assert SECRET not in repr(spelled_out(event))

    def _check_answer(self, event: CommandAnswered) -> None:
        """In the order of the commands, once each but for those that have several replies."""
        command = event.command
        if self._next and command is self._sent[self._next - 1]:
            several = command.verb in AUTHENTICATORS or command.verb == END_OF_DATA or command.last
            assert several, f"answered twice: {event}"
            return
        assert self._next < len(self._sent), f"answered before it was sent: {event}"
        assert command is self._sent[self._next], f"not its turn: {event}"
        assert event.reply is None or not event.in_doubt
        self._next += 1


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a transcript."""

    reports: list[str]
    events: list[Event]
    dialogue: Dialogue


def check(transcript: str, *, after: str = "", from_the_start: bool = True) -> Played:
    """Plays a transcript and holds it against the reports written in it. `after`: what came before, whose
    reports are passed over."""
    steps = [*parse(after), Expected(["..."]), *parse(transcript)] if after else list(parse(transcript))
    steps = _with_heard(steps)
    _play(_bytewise(steps), from_the_start=from_the_start)
    return _play(steps, from_the_start=from_the_start)


def escaped(data: bytes) -> str:
    """Bytes as a `C<` or `S<` line takes them."""
    return repr(data)[2:-1]


def parse(transcript: str) -> Iterator[Step]:
    """The steps of a transcript. `heard` is -1 where the last words of the server were not heard."""
    together: tuple[str, bytes] | None = None
    expected: Expected | None = None
    for line in filter(None, map(str.strip, transcript.splitlines())):
        mark, _, rest = line.partition(" ")
        speech = _speech(mark, rest)
        if together is not None and (speech is None or speech[0] != together[0]):
            yield _piece(*together)
            together = None
        if mark != "=":
            expected = None
        if speech is not None:
            together = (speech[0], together[1] + speech[1] if together is not None else speech[1])
        elif mark == "=":
            if expected is None:
                expected = Expected()
                yield expected
            if rest != "nothing":
                expected.reports.append(rest)
        elif mark in ("C-", "S-"):
            yield Loss(Side.CLIENT if mark == "C-" else Side.SERVER, int(rest))
        elif mark in ("--", "--?"):
            yield Close(in_doubt=mark == "--?")
        else:
            assert mark == "/", f"not a line of a transcript: {line}"
    if together is not None:
        yield _piece(*together)


def _speech(mark: str, rest: str) -> tuple[str, bytes] | None:
    if mark in ("C:", "c:", "S:"):
        return mark[0], rest.encode() + b"\r\n"
    if mark in ("C<", "c<", "S<"):
        raw, _ = codecs.escape_decode(rest.encode())
        assert isinstance(raw, bytes)
        return mark[0], raw
    return None


def _piece(who: str, data: bytes) -> Piece:
    return Piece(Side.SERVER if who == "S" else Side.CLIENT, data, -1 if who == "c" else 0)


def _with_heard(steps: list[Step]) -> list[Step]:
    """The same, each piece of the client with the bytes of the server that it had heard."""
    said = before_last_words = 0
    speaking = False
    timed: list[Step] = []
    for step in steps:
        match step:
            case Piece(Side.CLIENT, data, heard):
                timed.append(Piece(Side.CLIENT, data, before_last_words if heard < 0 else said))
                speaking = False
                continue
            case Piece(Side.SERVER, data):
                length = len(data)
            case Loss(Side.SERVER, lost):
                length = lost
            case _:
                length = 0
        if length:
            if not speaking:
                before_last_words = said
            speaking = True
            said += length
        timed.append(step)
    return timed


def _bytewise(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Piece):
            for index in range(len(step.data)):
                yield Piece(step.side, step.data[index : index + 1], step.heard)
        else:
            yield step


def _play(steps: Sequence[Step] | Iterator[Step], *, from_the_start: bool) -> Played:
    ledger = Ledger(from_the_start=from_the_start)
    cut_off = Ledger(from_the_start=from_the_start)
    checked = 0
    for step in steps:
        if isinstance(step, Expected):
            if step.reports != ["..."]:
                seen = [report(event) for event in ledger.events[checked:]]
                assert seen == step.reports, "\n".join(["expected:", *step.reports, "", "reported:", *seen])
            checked = len(ledger.events)
        else:
            ledger.take(step)
            if not isinstance(step, Close):
                cut_off.take(step)
    cut_off.take(Close(in_doubt=True))  # the promises must hold for any end
    return Played(list(map(report, ledger.events)), ledger.events, ledger.dialogue)


def spelled_out(said: object) -> object:
    """All that events and their parts say."""
    if isinstance(said, list):
        return [spelled_out(one) for one in said]
    if not type(said).__module__.startswith("monitor.smtp."):
        return said
    parts = {name: getattr(said, name) for name in dir(said) if not name.startswith("__")}
    return {name: spelled_out(part) for name, part in parts.items() if not callable(part)}


# ---------------------------------------------------------------------- events in words


def report(event: Event) -> str:
    """An event in the notation above."""
    match event:
        case BannerReceived(reply):
            return f"banner {_code(reply)}"
        case CommandSent(command):
            return f"> {describe(command)}"
        case CommandAnswered(command, None, in_doubt):
            return f"< {_short(command)} {'?' if in_doubt else '-'}"
        case CommandAnswered(command, reply, _):
            assert reply is not None
            return f"< {_short(command)} {_code(reply)}"
        case AnomalySeen(anomaly):
            return f"! {anomaly}"
        case BodyStarted():
            return "body"
        case TlsAccepted():
            return "tls"
        case CommandsLost():
            return "lost"


def describe(command: Command) -> str:
    """A command with all that is known of it."""
    words = [_short(command)]
    if command.path is not None:
        words += [
            keyword if value is None else f"{keyword}={value}"
            for keyword, value in command.path.params.items()
        ]
    if command.verb == END_OF_DATA:
        words.append("?" if command.size_bytes is None else str(command.size_bytes))
    elif command.size_bytes is not None:
        words.append(str(command.size_bytes))
    marks: dict[str, Callable[[Command], bool]] = {
        "LAST": lambda one: one.last,
        "masked": lambda one: one.masked,
        "cut": lambda one: one.cut,
    }
    return " ".join(words + [mark for mark, applies in marks.items() if applies(command)])


def _short(command: Command) -> str:
    if command.path is not None:
        return f"{command.verb} <{command.path.address}>"
    return f"{command.verb} {command.name}" if command.name else command.verb


def _code(reply: Reply) -> str:
    return f"{reply.code:03}" if reply.whole else f"{reply.code:03}~"
