"""The SMTP dialogue of one connection, both directions, as a passive reader follows it.

Bytes go in as they are known to have been sent and heard, events come out. What makes it more than two line
readers is what stands between them: each command waits for its own reply (see `matching`), and for STARTTLS,
AUTH and DATA the reply decides what the client's next bytes are (see `transitions`).

`heard` is what the sender of some client bytes had acknowledged of the server's stream, in bytes. It tells a
client that waited for a reply from one whose bytes merely crossed with it.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from monitor.anomalies import NO_ANOMALIES, Anomaly
from monitor.smtp.body import BodyReader
from monitor.smtp.events import (
    AnomalySeen,
    BannerReceived,
    BodyStarted,
    CommandSent,
    CommandsLost,
    Event,
    TlsAccepted,
)
from monitor.smtp.grammar import (
    AUTHENTICATORS,
    END_OF_DATA,
    KNOWN_VERBS,
    LINE_LIMIT_BYTES,
    PIPELINABLE,
    TLS_STARTERS,
    Command,
    line_limit_octets,
    parse_command,
)
from monitor.smtp.matching import ReplyQueue
from monitor.smtp.replies import KEPT_REPLY_BYTES, REPLY_LINE_OCTETS, Reply, ReplyReader, looks_like_reply
from monitor.smtp.transitions import AWAITS_REPLY, NOT_SMTP, TRANSITIONS, Input, Phase

HELD_LIMIT_BYTES: Final = 65_536
"""Client bytes that wait for the reply which says what they are: chosen to hold what a blind sender can have
in flight (the largest window without window scaling)."""
_AWAITS_SMTP_REPLY: Final = AWAITS_REPLY - NOT_SMTP
_SERVICE_NOT_AVAILABLE: Final = 421  # "to any command", RFC 5321 section 4.2.3, and to none


@mypyc_attr(acyclic=True)
class Dialogue:
    """Reads one connection's clear text. No input raises; any split of the same bytes gives the same
    events."""

    __slots__ = (
        "_banner_end",
        "_banner_expected",
        "_body",
        "_body_began_unseen",
        "_body_has_gap",
        "_body_reply_lost",
        "_body_unsearched",
        "_bytes_lost",
        "_chunk_left",
        "_cut_line",
        "_early_reply",
        "_feet_sought_at",
        "_heard",
        "_held",
        "_held_is_text",
        "_last_reply_end",
        "_queue",
        "_replies",
        "_reply_since_command",
        "_reported",
        "_server_at",
        "_server_cut",
        "_server_held",
        "_server_in_line",
        "_server_lost_since_command",
        "_server_skips_line",
        "phase",
        "unread_client",
        "unread_server",
    )

    def __init__(self, *, from_the_start: bool = True, tapped: bool = False) -> None:
        """
        Args:
            from_the_start: the connection was seen from its first byte.
            tapped: see ReplyQueue.
        """
        self.phase = Phase.COMMANDS if from_the_start else Phase.LOST
        self.unread_client = b""
        """From a line on that begins with a byte which no command begins with, but TLS does: somebody else
        must say what it is. If it is text, `client_text` takes it."""
        self.unread_server = b""
        """What came behind the 220 of STARTTLS: no longer ours to read."""
        self._reported = NO_ANOMALIES
        self._queue = ReplyQueue(from_the_start=from_the_start, tapped=tapped)
        # Client
        self._held = b""
        self._held_is_text = False
        """Its first line at least, whatever it begins with."""
        self._heard = 0
        self._cut_line: bytes | None = None
        self._chunk_left = 0
        self._feet_sought_at: int | None = None
        self._body: BodyReader | None = None
        self._body_has_gap = False
        self._body_reply_lost = False
        self._body_began_unseen = False
        self._body_unsearched = False
        self._bytes_lost = not from_the_start
        # Server
        self._server_cut = False
        self._server_in_line = from_the_start
        self._server_skips_line = False
        self._server_lost_since_command = False
        self._banner_expected = from_the_start
        self._server_at = 0
        self._server_held = b""
        self._replies = ReplyReader()
        self._reply_since_command: Reply | None = None
        self._banner_end = 0
        self._last_reply_end = 0
        self._early_reply: Reply | None = None

    # ------------------------------------------------------------------ what goes in

    def client(self, data: bytes, heard: int) -> list[Event]:
        """Takes the client's next bytes.

        Args:
            data: the bytes.
            heard: how much of the server's stream their sender had acknowledged, in bytes.
        """
        self._heard = heard
        if self.phase is Phase.TURNED:
            return []
        if not self._queue.in_step and self.phase in AWAITS_REPLY:
            self._look_for_step()
        if self._held:
            self._held += data
        else:
            self._held = data
            self._held_is_text = False
        self._read_client()
        while self._held and self.phase in AWAITS_REPLY and not self._queue.in_step:
            self._look_for_step()  # as if the rest had come by itself
            if self.phase in AWAITS_REPLY:
                break
            self._read_client()
        return self._client_read()

    def client_text(self, data: bytes) -> list[Event]:
        """Takes back what was left in `unread_client`: it is text."""
        self.unread_client = b""
        self._held = data
        self._held_is_text = True
        self._read_client()
        return self._client_read()

    def _client_read(self) -> list[Event]:
        if self._held and self.phase in (Phase.AUTH_SENT, Phase.DATA_SENT, Phase.BLOB_SENT):
            self._out_of_order(Anomaly.UNAUTHORIZED_PIPELINING)
        if len(self._held) > HELD_LIMIT_BYTES:
            self._lose_client(Input.OVERFLOW)  # what is held back will never be known
        return self._queue.take_events()

    def server(self, data: bytes, at: int) -> list[Event]:
        """Takes the server's next bytes, which begin at byte `at` of its stream."""
        self._server_at = at - len(self._server_held)
        self._server_held = self._server_held + data if self._server_held else data
        self._read_server()
        return self._queue.take_events()

    def client_left_out(self, length: int, edge: bytes, left: int) -> bool:
        """Takes note of client bytes which the probe left out; see `probes.segment.Segment.left`.

        Returns:
            False where they are needed, and so are lost.
        """
        if self.phase is Phase.BODY:
            self._message().left_out(length, edge)
            self._body_unsearched |= left > 0
            return True
        if self.phase is Phase.CHUNK and length <= self._chunk_left and not self._held:
            self.chunk_passed(length)
            return True
        if self.phase is Phase.LOST:
            self._queue.give_up_all()  # as of any bytes that are skipped until a command is recognised
            self._feet_sought_at = None
            return True
        return False

    def chunk_passed(self, length: int) -> None:
        """So many bytes of a chunk came, of those that nobody needs to see."""
        self._chunk_left -= length
        if not self._chunk_left:
            self._move(Input.END_OF_DATA)

    @property
    def unneeded_client_bytes(self) -> int:
        """How many of the client's next bytes are nobody's: those of a chunk, but for its last."""
        return self._chunk_left - 1 if self.phase is Phase.CHUNK else 0

    def client_lost(self, length: int) -> list[Event]:
        """`length` bytes of the client were not captured (0: unknown how many)."""
        self._bytes_lost = True
        if self.phase is Phase.BODY:
            self._message().lost(length)
            self._body_has_gap = True
        elif self.phase is Phase.CHUNK and 0 < length <= self._chunk_left:
            self._chunk_left -= length
            if not self._chunk_left:
                self._move(Input.END_OF_DATA)
        elif self.phase not in NOT_SMTP:
            self._lose_client()
        return self._queue.take_events()

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
        self._server_skips_line = False
        self._body_reply_lost = True
        self._server_lost_since_command = True
        self._feet_sought_at = None
        awaited = self.phase in AWAITS_REPLY and self.phase not in NOT_SMTP
        if self._banner_expected and not self._replies.midway:
            self._banner_expected = False
            if self._queue:
                self._queue.lose_step()
        elif self._replies.damaged and not self._banner_expected and self._queue.in_step and self._queue:
            if len(self._queue) > 1:
                # The rest of this reply was lost, and perhaps the next command's with it.
                self._queue.lose_step(first_is_certain=True)
            elif awaited:
                self._finish_partial_reply()
        elif self._queue:
            self._queue.lose_step()
            if awaited:
                self._move(Input.REPLY_LOSS)
                self._held = b""
                self._emit(CommandsLost())
        return self._queue.take_events()

    def closed(self, *, in_doubt: bool) -> list[Event]:
        """The connection is over, and nothing more comes.

        Args:
            in_doubt: its end was not captured, so that there may have been replies which we did not see.
        """
        self._finish_partial_reply()
        if self._held and not self._queue.in_step and self.phase in _AWAITS_SMTP_REPLY:
            self._lose_client()  # the reply that would have told what they are was lost, or went unrecognised
        if self.phase is Phase.BODY:
            early, self._early_reply = self._early_reply, None
            unknown = self._body_has_gap or in_doubt or (self._body_unsearched and early is not None)
            self._end_of_data(None if unknown else self._message().wire_bytes)
            if early is not None:
                self._answer(early)
        self._queue.give_up_all(in_doubt=in_doubt or not self._queue.in_step)
        return self._queue.take_events()

    def clear_again(self) -> None:
        """The connection is in clear, though STARTTLS was accepted: TLS has ended, or never began."""
        self._move(Input.CLEAR_AGAIN)
        self._held = b""
        self._queue.begin_again()

    def take_held(self) -> bytes:
        """What the client sent behind STARTTLS before its reply came."""
        held, self._held = self._held, b""
        return held

    @property
    def buffered_bytes(self) -> int:
        """Bytes of traffic kept."""
        buffered = len(self._held) + len(self._server_held) + self._replies.buffered_bytes
        if self._body is not None:
            buffered += self._body.buffered_bytes
        return buffered + len(self._cut_line) if self._cut_line is not None else buffered

    @property
    def client_in_clear(self) -> bool:
        """The client's last bytes were understood: it speaks clear text, and none of it is missing."""
        return self.phase is not Phase.LOST and self.phase not in NOT_SMTP

    @property
    def server_in_clear(self) -> bool:
        """The same of the server's."""
        understood = self._queue.in_step or not self._server_held
        return self._server_in_line and understood and self.phase is not Phase.TLS

    @property
    def server_thread_lost(self) -> bool:
        """Bytes of the server were lost, and no reply was recognised since."""
        return not self._server_in_line

    @property
    def server_mid_line(self) -> bool:
        """The server's last byte was not a line's last."""
        return self._server_in_line and (self._server_cut or bool(self._server_held))

    @property
    def all_was_seen(self) -> bool:
        """No byte of either side was lost so far."""
        return not self._bytes_lost

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
                self._queue.give_up_all()  # what is skipped may hold commands, and what comes may answer them
                position = len(data)
                break
            begins_line = self.phase is Phase.COMMANDS and self._cut_line is None
            if begins_line and not self._held_is_text and _may_begin_tls(data[position]):
                self.unread_client = data[position:]
                position = len(data)
                break
            end = data.find(b"\n", position)
            if end < 0:
                if len(data) - position > LINE_LIMIT_BYTES or self._cut_line is not None:
                    if self._cut_line is None:
                        self._cut_line = data[position : position + LINE_LIMIT_BYTES]
                    position = len(data)
                break
            self._held_is_text = False
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
            if self._replies.damaged:
                self._replies.rest()  # of the challenge that this line answers, a part of which was lost
            self._move(Input.SECRET)
            return
        bare_lf = whole and not line.endswith(b"\r")
        command = parse_command(line, whole=whole)
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
        body = self._message()
        used = body.feed(data)
        if used is None:
            return len(data)
        early, self._early_reply = self._early_reply, None
        if self._body_has_gap and self._body_reply_lost:
            # Its own end and reply may be among what was lost, and this be the end of another.
            self._end_of_data(None)
            self._queue.commands_lost()
            self._emit(CommandsLost())
            return used
        unknown = self._body_began_unseen or (self._body_unsearched and early is not None)
        self._end_of_data(None if unknown else body.wire_bytes)
        if early is not None:
            self._answer(early)
        return used

    def _message(self) -> BodyReader:
        """The reader of the message, made for the first of them."""
        if self._body is None:
            self._body = BodyReader()
        return self._body

    def _end_of_data(self, wire_bytes: int | None) -> None:
        """The message is over: at its end, or where the connection or our sight of it ended."""
        self._move(Input.END_OF_DATA)
        command = Command(END_OF_DATA, size_bytes=wire_bytes)
        self._emit(CommandSent(command))
        self._queue.add(command)

    def _check_turn(self) -> None:
        """Was it this command's turn? RFC 5321 section 4.3.1, RFC 2920 section 3.1."""
        queue = self._queue
        if not queue.in_step:
            self._look_for_step()
            return
        if self._replies.damaged and self._heard:
            self._finish_partial_reply()  # the client goes on, so the server had ended it
        if self._banner_expected or self._heard < self._banner_end:
            queue.client_waits = False
            self._out_of_order(Anomaly.EARLY_TALKER)
        before = queue.last_sent
        crossed = before is None and self._heard < self._last_reply_end
        if queue.more_may_follow and (crossed or self._early_reply is not None):
            queue.lose_step()  # they may come before the reply to this
        if crossed:
            before = queue.last_answered
        if before is not None and (before not in PIPELINABLE or queue.pipelining is False):
            queue.client_waits = False
            self._out_of_order(Anomaly.UNAUTHORIZED_PIPELINING)

    def _send(self, command: Command) -> None:
        """Queues a command and takes up the phase that it begins."""
        self._emit(CommandSent(command))
        self._reply_since_command = None
        self._server_lost_since_command = False
        self._queue.add(command)
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
        elif verb == "XEXCH50" and command.size_bytes is not None:
            self._chunk_left = command.size_bytes
            self._move(Input.BLOB)
        else:
            self._move(Input.OTHER)
        early, self._early_reply = self._early_reply, None
        if early is not None:
            self._answer(early)

    def _lose_client(self, cause: Input = Input.CLIENT_LOSS) -> None:
        """Client bytes were lost where commands may have stood. What was begun may still say something."""
        self._bytes_lost = True
        begun = self._held if self._cut_line is None else self._cut_line
        if self.phase is Phase.COMMANDS and b" " in begun and not begun.startswith(b" "):
            command = parse_command(begun, whole=False)
            if command.verb in KNOWN_VERBS:
                self._check_turn()
                if command.verb in AUTHENTICATORS:
                    self._anomaly(Anomaly.CLEARTEXT_AUTH)
                self._emit(CommandSent(command))
                self._queue.add(command)
        self._queue.commands_lost()
        self._held = b""
        self._cut_line = None
        self._move(cause)
        self._feet_sought_at = None
        self._early_reply = None
        self._emit(CommandsLost())

    def _may_find_feet(self) -> bool:
        """After a loss: does a line begin here? Only where the client speaks after it heard a whole reply."""
        return self._feet_sought_at is not None and self._heard >= self._feet_sought_at

    def _find_feet(self) -> None:
        self._move(Input.FOUND)
        self._feet_sought_at = None
        self._queue.resume()

    def _look_for_step(self) -> None:
        """Out of step, and the client speaks: if it has heard all that the server said, then the last thing
        said may be known for the reply to its last command."""
        reply = self._reply_since_command
        if reply is not None and self._heard >= self._last_reply_end:
            certain = not self._server_lost_since_command
            if self._queue.step_proven_by(certain=certain):
                self._replies.rest()  # of an earlier reply, whose end was lost
                if certain:
                    self._answer(reply)
                return
        if self.phase is Phase.DATA_SENT and self._queue.client_waits and self._heard <= self._server_read_to:
            # Who waits for the reply to DATA has heard it, and we have read as far: so it was lost, and a 354
            # to come is a later DATA's.
            self._finish_partial_reply()
            self._lose_client(Input.REPLY_LOSS)

    # ------------------------------------------------------------------ the server's side

    @property
    def _server_read_to(self) -> int:
        """How many bytes of the server's stream came or are known to be lost."""
        return self._server_at + len(self._server_held)

    def _read_server(self) -> None:
        data = self._server_held
        position = 0
        while position < len(data) and self.phase not in NOT_SMTP:
            if not self._server_in_line:
                position += self._find_reply_line(data[position:] if position else data)
                if not self._server_in_line:
                    break
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
        elif self.phase is Phase.TURNED:
            self._server_held = b""
        elif len(rest) > LINE_LIMIT_BYTES:
            # A line without an end: its beginning is kept, and the rest is skipped to the next line feed.
            self._server_at += len(rest) - KEPT_REPLY_BYTES
            self._server_held = rest[:KEPT_REPLY_BYTES]
            if not self._server_cut:
                self._server_cut = True
                self._anomaly(Anomaly.LINE_TOO_LONG)
        else:
            self._server_held = rest

    def _find_reply_line(self, data: bytes) -> int:
        """After a loss: how many bytes come before the first line that is known to be a reply's."""
        position = 0
        while True:
            if self._server_skips_line:
                end = data.find(b"\n", position)
                if end < 0:
                    return len(data)
                position = end + 1
                self._server_skips_line = False
            beginning = data[position : position + 4]
            if looks_like_reply(beginning):
                self._server_in_line = True
                return position
            if len(beginning) < 4 and b"\n" not in beginning:
                return position
            self._server_skips_line = True

    def _read_reply_line(self, line: bytes, end: int) -> None:
        if len(line) + 1 > REPLY_LINE_OCTETS:
            self._anomaly(Anomaly.LINE_TOO_LONG)
        self._server_cut = False
        replies = self._replies.line(line[:-1] if line.endswith(b"\r") else line)
        if replies is None:
            self._out_of_order(Anomaly.REPLY_MISMATCH)
            if self._bytes_lost:
                self._server_in_line = False  # it may have turned to TLS, unnoticed
            return
        for reply in replies:
            self._last_reply_end = end
            self._take_reply(reply)

    def _take_reply(self, reply: Reply) -> None:
        self._reply_since_command = reply
        if self._banner_expected:
            self._banner_expected = False
            self._banner_end = self._last_reply_end
            self._emit(BannerReceived(reply))
            return
        if self.phase is Phase.LOST:
            # After a 354 or 334 the client's next line is none of ours, however much it looks like a command.
            self._feet_sought_at = None if reply.intermediate else self._last_reply_end
        if self._queue:
            self._answer(reply)
        elif reply.code == _SERVICE_NOT_AVAILABLE:
            pass  # it ends the connection, and answers nothing
        elif self.phase is Phase.BODY:
            self._answer_within_body(reply)
        elif self.phase is Phase.COMMANDS and (self._held or self._cut_line is not None):
            self._answer_early(reply)  # the command's line is not complete, and the server did not wait
        else:
            self._out_of_order(Anomaly.REPLY_MISMATCH)
        if not self._queue and self.phase is not Phase.BODY:
            self._reply_since_command = None  # no command is left that it might be the answer to
        self._read_client()

    def _answer_within_body(self, reply: Reply) -> None:
        """A reply before the message's end was seen: an end that only the server took for one, an end that
        was lost, or a server that did not wait."""
        if reply.intermediate:  # the rest of the 354, a part of which was lost
            self._out_of_order(Anomaly.REPLY_MISMATCH)
            return
        body = self._message()
        loose_end_bytes = body.loose_end_bytes
        # A server accepts no message before its end, and answers it once.
        end_unseen = self._body_unsearched and (reply.positive or self._early_reply is not None)
        if loose_end_bytes is not None and not self._body_reply_lost:
            if not self._body_has_gap:
                self._anomaly(Anomaly.BARE_LF)
            self._end_of_data(None if self._body_began_unseen else loose_end_bytes)
            self._held = body.take_after_loose_end() + self._held
            self._answer(reply)
        elif loose_end_bytes is not None or self._body_has_gap or end_unseen:
            first = self._early_reply if end_unseen and self._early_reply is not None else reply
            self._end_of_data(None)
            if not self._body_reply_lost:
                self._answer(first)
            self._lose_client()
            self._feet_sought_at = self._last_reply_end
        else:
            self._answer_early(reply)

    def _answer_early(self, reply: Reply) -> None:
        """A reply to what the client has not finished yet; the first of them, if there are more."""
        if self._early_reply is None:
            self._early_reply = reply
        else:
            self._out_of_order(Anomaly.REPLY_MISMATCH)

    def _answer(self, reply: Reply) -> None:
        """Finds the command that a reply answers, and does what follows from it."""
        if self._queue.contradicts(reply):
            self._out_of_order(Anomaly.REPLY_MISMATCH)
            if not reply.whole:
                return  # the rest of the 354 or 334 before it, of which a part was lost
        if self._bytes_lost and self._queue.is_nobodys(reply):
            self._queue.lose_step()  # its command is among what was lost, or was taken for something else
        command = self._queue.answer(reply)
        if command is not None:
            self._follow(command, reply)

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
                self._body_reply_lost = self._body_unsearched = False
                self._emit(BodyStarted())
        elif verb in AUTHENTICATORS or verb == "XEXCH50":
            if not lost:
                self._move(outcome)
        elif verb in ("TURN", "ATRN") and reply.positive:
            self._move(Input.TURN_ACCEPTED)
            self._emit(CommandsLost())  # what the two say to each other now is not followed

    def _finish_partial_reply(self) -> None:
        """The rest of a reply was lost, and the dialogue went on: what was seen of it is all there is."""
        reply = self._replies.rest()
        if reply is None:
            return
        if self._banner_expected:
            self._banner_expected = False
            self._emit(BannerReceived(reply))
        elif self._queue:
            self._answer(reply)

    # ------------------------------------------------------------------ small things

    def _move(self, happened: Input) -> None:
        self.phase = TRANSITIONS[self.phase][happened]

    def _out_of_order(self, anomaly: Anomaly) -> None:
        """Something came that was not its turn; but after a loss, who knows whose turn it is."""
        if not self._bytes_lost:
            self._anomaly(anomaly)

    def _anomaly(self, anomaly: Anomaly) -> None:
        """Each anomaly is reported once a connection."""
        if anomaly not in self._reported:
            self._reported |= {anomaly}
            self._emit(AnomalySeen(anomaly))

    def _emit(self, event: Event) -> None:
        self._queue.report(event)


def _may_begin_tls(octet: int) -> bool:
    """And no command: the types of records (RFC 8446 section 5.1), and the length of a hello in SSLv2's
    format."""
    return octet >= 0x80 or 0x14 <= octet <= 0x17
