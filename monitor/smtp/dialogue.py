"""The SMTP dialogue of one connection, both directions, as a passive reader follows it.

Bytes go in as they are known to have been sent and heard, events come out. What makes it more than two line
readers is the queue between them: each command waits there for its own reply, pipelined (RFC 2920) or not,
and for STARTTLS, AUTH and DATA the reply decides what the client's next bytes are (see `transitions`).

When bytes were lost the two sides may be out of step: which command a reply answers is no longer known. Then
replies are matched to nothing, until something proves which is which: a code that only one command has (354,
334, 221, …), or a client that cannot have anything outstanding because it waited. Between loss and proof,
codes are None. Better no code than another command's.

`heard` is what the sender of some client bytes had acknowledged of the server's stream, in bytes. It tells a
client that waited for a reply from one whose bytes merely crossed with it.
"""

from collections import deque
from typing import Final

from monitor.anomalies import Anomaly
from monitor.smtp.body import BodyReader
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
from monitor.smtp.grammar import (
    AUTHENTICATORS,
    END_OF_DATA,
    GREETINGS,
    KNOWN_VERBS,
    LINE_LIMIT_BYTES,
    PIPELINABLE,
    TLS_STARTERS,
    Command,
    line_limit_octets,
    parse_command,
)
from monitor.smtp.replies import KEPT_LINE_BYTES, REPLY_LINE_OCTETS, Reply, ReplyReader, looks_like_reply
from monitor.smtp.transitions import AWAITS_REPLY, TRANSITIONS, Input, Phase

HELD_LIMIT_BYTES: Final = 65_536
"""Client bytes that wait for the reply which says what they are: chosen to hold what a blind sender can have
in flight (the largest window without window scaling)."""
QUEUE_LIMIT: Final = 4_096
"""Unanswered commands: chosen above any server's; the oldest are given up beyond it."""

# Which command a reply code belongs to, where only one kind has it: RFC 5321 section 4.2.3, RFC 4954 section
# 6.
_ONLY_ANSWER_TO: Final[dict[int, frozenset[str]]] = {
    220: TLS_STARTERS | {"XCLIENT"},
    221: frozenset({"QUIT"}),
    235: AUTHENTICATORS,
    334: AUTHENTICATORS,
    354: frozenset({"DATA", "XEXCH50"}),
}
_SERVICE_NOT_AVAILABLE: Final = 421  # "to any command", RFC 5321 section 4.2.3, and to none
_PER_RECIPIENT_FOLLOWS: Final = 353  # PRDR, draft-hall-prdr: a reply for each recipient, then one for all


class Dialogue:
    """Reads one connection's clear text. No input raises; any split of the same bytes gives the same
    events."""

    __slots__ = (
        "_accepted_recipients",
        "_banner_expected",
        "_body",
        "_body_began_unseen",
        "_body_has_gap",
        "_body_reply_lost",
        "_bytes_lost",
        "_chunk_left",
        "_cut_line",
        "_early_reply",
        "_events",
        "_feet_sought_at",
        "_heard",
        "_held",
        "_in_step",
        "_last_answered",
        "_last_reply_end",
        "_lmtp",
        "_one_certain_reply",
        "_pending",
        "_pipelining",
        "_replies",
        "_replies_to_data_left",
        "_reply_since_command",
        "_reported",
        "_server_at",
        "_server_cut",
        "_server_held",
        "_server_in_line",
        "_server_lost_since_command",
        "phase",
        "unread_server",
    )

    def __init__(self, *, from_the_start: bool = True) -> None:
        """`from_the_start`: the connection was seen from its first byte."""
        self.phase = Phase.COMMANDS if from_the_start else Phase.LOST
        self.unread_server = b""
        """What came behind the 220 of STARTTLS: no longer ours to read."""
        self._events: list[Event] = []
        self._reported: set[Anomaly] = set()
        self._pending: deque[Command] = deque()
        self._in_step = from_the_start
        self._bytes_lost = not from_the_start
        self._one_certain_reply = False
        # Client
        self._held = b""
        self._heard = 0
        self._cut_line: bytes | None = None
        self._body = BodyReader()
        self._body_has_gap = False
        self._body_reply_lost = False
        self._body_began_unseen = False
        self._chunk_left = 0
        self._feet_sought_at: int | None = None
        # Server
        self._server_at = 0
        self._server_held = b""
        self._server_cut = False
        self._server_in_line = from_the_start
        self._replies = ReplyReader()
        self._reply_since_command: Reply | None = None
        self._server_lost_since_command = False
        self._banner_expected = from_the_start
        self._last_answered: Command | None = None
        self._last_reply_end = 0
        self._early_reply: Reply | None = None
        # What the server said it can do
        self._pipelining: bool | None = False if from_the_start else None
        self._lmtp = False
        self._accepted_recipients = 0
        self._replies_to_data_left = 0

    # ------------------------------------------------------------------ what goes in

    def client(self, data: bytes, heard: int) -> list[Event]:
        """Takes the client's next bytes.

        Args:
            data: the bytes.
            heard: how much of the server's stream their sender had acknowledged, in bytes.
        """
        self._heard = heard
        if not self._in_step and self.phase in AWAITS_REPLY:
            self._look_for_step()
        self._held = self._held + data if self._held else data
        self._read_client()
        if self._held and self.phase in (Phase.AUTH_SENT, Phase.DATA_SENT, Phase.BLOB_SENT):
            self._out_of_order(Anomaly.UNAUTHORIZED_PIPELINING)
        if len(self._held) > HELD_LIMIT_BYTES:
            self._overflow()
        return self._take_events()

    def server(self, data: bytes, at: int) -> list[Event]:
        """Takes the server's next bytes, which begin at byte `at` of its stream."""
        self._server_at = at - len(self._server_held)
        self._server_held = self._server_held + data if self._server_held else data
        self._read_server()
        return self._take_events()

    def client_lost(self, length: int) -> list[Event]:
        """`length` bytes of the client were not captured (0: unknown how many)."""
        self._bytes_lost = True
        if self.phase is Phase.BODY:
            self._body.lost(length)
            self._body_has_gap = True
        elif self.phase is Phase.CHUNK and 0 < length <= self._chunk_left:
            self._chunk_left -= length
            if not self._chunk_left:
                self._move(Input.END_OF_DATA)
        elif self.phase not in (Phase.TLS, Phase.TURNED):
            self._lose_client()
        return self._take_events()

    def server_lost(self, length: int) -> list[Event]:
        """`length` bytes of the server were not captured (0: unknown how many)."""
        self._bytes_lost = True
        before = self._replies.lost(self._server_held if self._server_in_line else b"")
        if before is not None:
            self._take_reply(before)
        self._server_at += len(self._server_held) + length
        self._server_held = b""
        self._server_cut = False
        self._server_in_line = False
        self._body_reply_lost = True
        self._server_lost_since_command = True
        awaited = self.phase in AWAITS_REPLY and self.phase not in (Phase.TLS, Phase.TURNED)
        if self._banner_expected and not self._replies.midway:
            self._banner_expected = False
        elif self._replies.damaged and not self._banner_expected and self._in_step and self._pending:
            if len(self._pending) > 1:
                # The rest of this reply was lost, and perhaps the next command's with it.
                self._in_step = False
                self._one_certain_reply = True
            elif awaited:
                self._finish_partial_reply()
        elif self._pending:
            self._in_step = False
            self._one_certain_reply = False
            if awaited:
                self._move(Input.REPLY_LOSS)
                self._held = b""
                self._emit(CommandsLost())
        return self._take_events()

    def closed(self, *, in_doubt: bool) -> list[Event]:
        """The connection is over, and nothing more comes.

        Args:
            in_doubt: its end was not captured, so that there may have been replies which we did not see.
        """
        self._finish_partial_reply()
        if self.phase is Phase.BODY:
            early, self._early_reply = self._early_reply, None
            self._end_of_data(None if self._body_has_gap or in_doubt else self._body.wire_bytes)
            if early is not None:
                self._answer(early)
        while self._pending:
            self._give_up(self._pending.popleft(), in_doubt=in_doubt or not self._in_step)
        return self._take_events()

    def clear_again(self) -> None:
        """The connection is in clear, though STARTTLS was accepted: TLS has ended, or never began."""
        self._move(Input.CLEAR_AGAIN)
        self._held = b""
        self._pipelining = None

    def take_held(self) -> bytes:
        """What the client sent behind STARTTLS before its reply came."""
        held, self._held = self._held, b""
        return held

    @property
    def buffered_bytes(self) -> int:
        """Bytes of traffic kept."""
        return len(self._held) + len(self._server_held) + self._body.buffered_bytes

    @property
    def between_commands(self) -> bool:
        """The client's next byte begins a line, as far as is known."""
        return self.phase is Phase.LOST or (self.phase is Phase.COMMANDS and not self._held)

    @property
    def client_in_clear(self) -> bool:
        """The client's last bytes were understood: it speaks clear text, and none of it is missing."""
        return self.phase not in (Phase.LOST, Phase.TLS, Phase.TURNED)

    @property
    def server_thread_lost(self) -> bool:
        """Bytes of the server were lost, and no reply was recognised since."""
        return not self._server_in_line

    @property
    def server_in_clear(self) -> bool:
        """The same of the server's."""
        return self._server_in_line and self.phase is not Phase.TLS

    @property
    def upgrade_heard_from(self) -> int:
        """Client bytes which had heard less of the server than this were sent before the last reply came."""
        return self._last_reply_end

    # ------------------------------------------------------------------ the client's side

    def _read_client(self) -> None:
        data = self._held
        position = 0
        while position < len(data) and self.phase not in AWAITS_REPLY:
            if self.phase is Phase.BODY:
                position += self._read_body(data[position:] if position else data)
                continue
            if self.phase is Phase.CHUNK:
                used = min(self._chunk_left, len(data) - position)
                position += used
                self._chunk_left -= used
                if not self._chunk_left:
                    self._move(Input.END_OF_DATA)
                continue
            if self.phase is Phase.LOST and not self._may_find_feet():
                self._give_up_all()  # what is skipped may hold commands, and so may what comes answer them
                position = len(data)
                break
            end = data.find(b"\n", position)
            if end < 0:
                if len(data) - position > LINE_LIMIT_BYTES or self._cut_line is not None:
                    if self._cut_line is None:
                        self._cut_line = data[position : position + LINE_LIMIT_BYTES]
                    position = len(data)
                break
            line = data[position:end]
            position = end + 1
            if self._cut_line is not None or len(line) > LINE_LIMIT_BYTES:
                line = (self._cut_line or line)[:LINE_LIMIT_BYTES]
                self._cut_line = None
                self._read_line(line, whole=False)
            else:
                self._read_line(line, whole=True)
        self._held = data[position:]

    def _read_line(self, line: bytes, *, whole: bool) -> None:
        if self.phase is Phase.AUTH_SECRET:
            self._move(Input.SECRET)
            return
        bare_lf = whole and not line.endswith(b"\r")
        command = parse_command(line[:-1] if line.endswith(b"\r") else line, whole=whole)
        if self.phase is Phase.LOST:
            if command.verb not in KNOWN_VERBS or (command.verb in ("MAIL", "RCPT") and command.path is None):
                self._feet_sought_at = None  # no command: we are not where we thought
                return
            self._find_feet()
        if bare_lf:
            self._anomaly(Anomaly.BARE_LF)
        if not whole or len(line) + 1 > line_limit_octets(command.verb):
            self._anomaly(Anomaly.LINE_TOO_LONG)
        self._check_turn()
        self._send(command)

    def _read_body(self, data: bytes) -> int:
        used = self._body.feed(data)
        if used is None:
            return len(data)
        early, self._early_reply = self._early_reply, None
        self._end_of_data(None if self._body_began_unseen else self._body.wire_bytes)
        if early is not None:
            self._answer(early)
        return used

    def _end_of_data(self, wire_bytes: int | None) -> None:
        """The message is over: at its end, or where the connection or our sight of it ended."""
        self._move(Input.END_OF_DATA)
        self._replies_to_data_left = max(self._accepted_recipients, 1) if self._lmtp else 1
        command = Command(END_OF_DATA, size_bytes=wire_bytes)
        self._emit(CommandSent(command))
        self._pending.append(command)

    def _check_turn(self) -> None:
        """Was it this command's turn? RFC 5321 section 4.3.1, RFC 2920 section 3.1."""
        if not self._in_step:
            self._look_for_step()
            return
        if self._replies.damaged and self._heard:
            self._finish_partial_reply()  # the client goes on, so the server had ended it
        if self._heard == 0:
            self._out_of_order(Anomaly.EARLY_TALKER)
        if self._pending:
            before: Command | None = self._pending[-1]
        else:
            before = self._last_answered if self._heard < self._last_reply_end else None
        if before is not None and (before.verb not in PIPELINABLE or self._pipelining is False):
            self._out_of_order(Anomaly.UNAUTHORIZED_PIPELINING)

    def _send(self, command: Command) -> None:
        """Queues a command and takes up the phase that it begins."""
        self._emit(CommandSent(command))
        self._reply_since_command = None
        self._server_lost_since_command = False
        if len(self._pending) >= QUEUE_LIMIT:
            self._give_up(self._pending.popleft(), in_doubt=True)
            self._in_step = False
        self._pending.append(command)
        verb = command.verb
        if command.masked:
            self._anomaly(Anomaly.STARTTLS_MASKED)
            self._move(Input.OTHER)
        elif verb in TLS_STARTERS:
            self._move(Input.STARTTLS)
        elif verb in AUTHENTICATORS:
            self._anomaly(Anomaly.CLEARTEXT_AUTH)
            self._move(Input.AUTH)
        elif verb == "DATA":
            self._move(Input.DATA)
        elif verb == "BDAT" and command.size_bytes is not None:
            self._chunk_left = command.size_bytes
            self._move(Input.COUNTED)
            if not self._chunk_left:
                self._move(Input.END_OF_DATA)
            if command.last:
                self._replies_to_data_left = max(self._accepted_recipients, 1) if self._lmtp else 1
        elif verb == "XEXCH50" and command.size_bytes is not None:
            self._chunk_left = command.size_bytes
            self._move(Input.BLOB)
        else:
            self._move(Input.OTHER)
        early, self._early_reply = self._early_reply, None
        if early is not None:
            self._answer(early)

    def _overflow(self) -> None:
        """Too much is held back: what it is will never be known."""
        self._lose_client(Input.OVERFLOW)

    def _lose_client(self, cause: Input = Input.CLIENT_LOSS) -> None:
        """Client bytes were lost where commands may have stood. What was begun may still say something."""
        if self.phase is Phase.COMMANDS and b" " in self._held and not self._held.startswith(b" "):
            command = parse_command(self._held, whole=False)
            if command.verb in KNOWN_VERBS:
                self._check_turn()
                if command.verb in AUTHENTICATORS:
                    self._anomaly(Anomaly.CLEARTEXT_AUTH)
                self._emit(CommandSent(command))
                self._pending.append(command)
        self._give_up_all()
        self._held = b""
        self._cut_line = None
        self._move(cause)
        self._in_step = False
        self._one_certain_reply = False
        self._feet_sought_at = None
        self._early_reply = None
        self._emit(CommandsLost())

    def _may_find_feet(self) -> bool:
        """After a loss: does a line begin here? Only where the client speaks after it heard a whole reply."""
        return self._feet_sought_at is not None and self._heard >= self._feet_sought_at

    def _find_feet(self) -> None:
        self._move(Input.FOUND)
        self._feet_sought_at = None
        self._give_up_all()
        # A client that may not pipeline has waited for all replies; one that may, perhaps not.
        self._in_step = self._pipelining is False

    def _look_for_step(self) -> None:
        """Out of step: does the fact that the client speaks now prove which reply was whose?

        It does if it had to wait for the reply to its last command, and has heard all that the server said:
        the last thing said was that reply.
        """
        reply = self._reply_since_command
        if not self._pending or reply is None or self._heard < self._last_reply_end:
            return
        must_wait = self._pending[-1].verb not in PIPELINABLE
        if not must_wait and self._pipelining is not False:
            return
        last = self._pending.pop()
        self._give_up_all()
        self._pending.append(last)
        self._in_step = True
        if self._server_lost_since_command:
            self._give_up_all()
        else:
            self._answer(reply)

    # ------------------------------------------------------------------ the server's side

    def _read_server(self) -> None:
        data = self._server_held
        position = 0
        if not self._server_in_line:
            if len(data) < 4 and b"\n" not in data:
                return
            if not looks_like_reply(data):
                position = data.find(b"\n") + 1 or len(data)
            self._server_in_line = position < len(data) or looks_like_reply(data)
        while position < len(data) and self.phase is not Phase.TLS:
            end = data.find(b"\n", position)
            if end < 0:
                break
            line = data[position:end]
            position = end + 1
            self._read_reply_line(line, self._server_at + position)
        rest = data[position:]
        self._server_at += position
        if self.phase is Phase.TLS:
            self.unread_server, self._server_held = rest, b""
            self._server_at += len(rest)
        elif len(rest) > LINE_LIMIT_BYTES:
            # A line without an end: its beginning is kept, and the rest is skipped to the next line feed.
            self._server_at += len(rest) - KEPT_LINE_BYTES
            self._server_held = rest[:KEPT_LINE_BYTES]
            if not self._server_cut:
                self._server_cut = True
                self._anomaly(Anomaly.LINE_TOO_LONG)
        else:
            self._server_held = rest

    def _read_reply_line(self, line: bytes, end: int) -> None:
        if len(line) + 1 > REPLY_LINE_OCTETS:
            self._anomaly(Anomaly.LINE_TOO_LONG)
        self._server_cut = False
        replies = self._replies.line(line[:-1] if line.endswith(b"\r") else line)
        if replies is None:
            self._out_of_order(Anomaly.REPLY_MISMATCH)
            return
        for reply in replies:
            self._last_reply_end = end
            self._take_reply(reply)

    def _take_reply(self, reply: Reply) -> None:
        self._reply_since_command = reply
        if self._banner_expected:
            self._banner_expected = False
            self._emit(BannerReceived(reply))
            return
        if self.phase is Phase.LOST and not reply.intermediate:
            self._feet_sought_at = self._last_reply_end
        if self._pending:
            self._answer(reply)
        elif self.phase is Phase.BODY:
            self._answer_within_body(reply)
        elif self._held and self.phase is Phase.COMMANDS:
            self._early_reply = (
                reply  # the command's line is not complete, and the server did not wait for that
            )
        elif reply.code != _SERVICE_NOT_AVAILABLE:
            self._out_of_order(Anomaly.REPLY_MISMATCH)
        self._read_client()

    def _answer_within_body(self, reply: Reply) -> None:
        """A reply before the message's end was seen: an end that only the server took for one, an end that
        was lost, or a server that did not wait. A 421 is none of these: it ends the connection, not the
        message."""
        if reply.code == _SERVICE_NOT_AVAILABLE:
            return
        if self._body.loose_end_bytes is not None:
            self._anomaly(Anomaly.BARE_LF)
            self._end_of_data(None if self._body_began_unseen else self._body.loose_end_bytes)
            self._held = self._body.take_after_loose_end() + self._held
            self._answer(reply)
        elif self._body_has_gap:
            self._end_of_data(None)
            if not self._body_reply_lost:
                self._answer(reply)
            self._lose_client()
            self._feet_sought_at = self._last_reply_end
        else:
            self._early_reply = reply

    def _answer(self, reply: Reply) -> None:
        """Finds the command that a reply answers, and does what follows from it."""
        own = _ONLY_ANSWER_TO.get(reply.code)
        if self._in_step or self._one_certain_reply:
            self._one_certain_reply = False
            if own is not None and reply.intermediate and self._pending[0].verb not in own:
                self._out_of_order(Anomaly.REPLY_MISMATCH)
                if any(command.verb in own for command in self._pending):
                    self._skip_to(own)
        elif own is not None and any(command.verb in own for command in self._pending):
            self._skip_to(own)
            self._in_step = True
        else:
            self._last_answered = None
            return
        command = self._pending[0]
        if not self._stays_in_queue(command, reply):
            self._pending.popleft()
        self._last_answered = command
        self._emit(CommandAnswered(command, reply))
        self._follow(command, reply)

    def _skip_to(self, verbs: frozenset[str]) -> None:
        while self._pending[0].verb not in verbs:
            self._give_up(self._pending.popleft(), in_doubt=True)

    def _stays_in_queue(self, command: Command, reply: Reply) -> bool:
        """More replies to the same command are to come."""
        if command.verb in AUTHENTICATORS:
            return reply.intermediate
        if command.verb == END_OF_DATA or (command.verb == "BDAT" and command.last):
            if reply.code == _PER_RECIPIENT_FOLLOWS:
                self._replies_to_data_left = self._accepted_recipients + 2
            self._replies_to_data_left -= 1
            return self._replies_to_data_left > 0
        return False

    def _follow(self, command: Command, reply: Reply) -> None:
        """What the reply to a command changes."""
        verb = command.verb
        outcome = Input.NEGATIVE
        if reply.positive:
            outcome = Input.POSITIVE
        elif reply.intermediate:
            outcome = Input.CONTINUE
        lost = self.phase is Phase.LOST
        if verb in TLS_STARTERS and not command.masked:
            if not lost or reply.positive:
                self._move(outcome)
            if self.phase is Phase.TLS:
                self._emit(TlsAccepted())
        elif verb == "DATA":
            if not lost or reply.intermediate:
                self._move(outcome)
            if self.phase is Phase.BODY:
                self._body = BodyReader()
                self._body_has_gap = self._body_began_unseen = lost
                self._body_reply_lost = False
                self._emit(BodyStarted())
        elif verb in AUTHENTICATORS or verb == "XEXCH50":
            if not lost:
                self._move(outcome)
        elif verb in ("TURN", "ATRN") and reply.positive:
            self._move(Input.TURN_ACCEPTED)
        elif verb in GREETINGS:
            self._greeted(verb, reply)
        elif reply.positive and verb == "RCPT":
            self._accepted_recipients += 1
        elif reply.positive and verb in ("MAIL", "RSET"):
            self._accepted_recipients = 0

    def _greeted(self, verb: str, reply: Reply) -> None:
        if not reply.positive:
            return
        self._accepted_recipients = 0
        self._lmtp = verb == "LHLO"
        if b"PIPELINING" in reply.keywords():
            self._pipelining = True
        else:
            self._pipelining = False if reply.whole else None

    def _finish_partial_reply(self) -> None:
        """The rest of a reply was lost, and the dialogue went on: what was seen of it is all there is."""
        reply = self._replies.rest()
        if reply is None:
            return
        if self._banner_expected:
            self._banner_expected = False
            self._emit(BannerReceived(reply))
        elif self._pending:
            self._answer(reply)

    # ------------------------------------------------------------------ small things

    def _give_up_all(self) -> None:
        while self._pending:
            self._give_up(self._pending.popleft(), in_doubt=True)

    def _give_up(self, command: Command, *, in_doubt: bool) -> None:
        self._emit(CommandAnswered(command, None, in_doubt))

    def _move(self, happened: Input) -> None:
        self.phase = TRANSITIONS[self.phase][happened]

    def _out_of_order(self, anomaly: Anomaly) -> None:
        """Something came that was not its turn; but after a loss, who knows whose turn it is."""
        if not self._bytes_lost:
            self._anomaly(anomaly)

    def _anomaly(self, anomaly: Anomaly) -> None:
        """Each anomaly is reported once a connection."""
        if anomaly not in self._reported:
            self._reported.add(anomaly)
            self._events.append(AnomalySeen(anomaly))

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events
