"""Which command a reply answers: the queue of the commands that wait for theirs.

As long as nothing was lost that is a matter of counting: replies come in the order of the commands, pipelined
(RFC 2920) or not, one each; but AUTH is answered at every step of its exchange, and the end of a message once
for each recipient by LMTP (RFC 2033 section 4.2) and PRDR.

When bytes were lost the two sides may be out of step: which command a reply answers is no longer known. Then
replies are matched to nothing, until something proves which is which: a code that only one command has (354,
334, 221, …), or a client that cannot have anything outstanding because it waited. Between loss and proof,
codes are None. Better no code than another command's.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from monitor.smtp.events import CommandAnswered, Event
from monitor.smtp.grammar import AUTHENTICATORS, END_OF_DATA, GREETINGS, PIPELINABLE, TLS_STARTERS, Command
from monitor.smtp.replies import Reply

QUEUE_LIMIT: Final = 4_096
"""Unanswered commands: chosen above any server's; the oldest are given up beyond it."""

# Which command a reply code belongs to, where only one kind has it: RFC 5321 section 4.2.3, RFC 4954
# section 6.
_ONLY_ANSWER_TO: Final[dict[int, frozenset[str]]] = {
    220: TLS_STARTERS | {"XCLIENT"},
    221: frozenset({"QUIT"}),
    235: AUTHENTICATORS,
    334: AUTHENTICATORS,
    354: frozenset({"DATA", "XEXCH50"}),
}
_PER_RECIPIENT_FOLLOWS: Final = 353  # PRDR, draft-hall-prdr: a reply for each recipient, then one for all


@mypyc_attr(acyclic=True)
class ReplyQueue:
    """The commands of one connection that wait for their replies, oldest first."""

    __slots__ = (
        "_accepted_recipients",
        "_ehlo_answered",
        "_events",
        "_first_is_certain",
        "_greeting_waits",
        "_lmtp",
        "_replies_left",
        "_tapped",
        "_waiting",
        "client_waits",
        "in_step",
        "last_answered",
        "more_may_follow",
        "pipelining",
    )

    def __init__(self, *, from_the_start: bool, tapped: bool = False) -> None:
        """`tapped`: heard at the server, behind its TLS. Replies come without their words, so nobody knows
        what EHLO was offered; nor whether the client waited, as its bytes come when the server read
        them."""
        nothing_yet = from_the_start and not tapped
        self._events: list[Event] | None = None
        # It is empty most of the time, and seldom holds more than three: even an empty list would be larger.
        self._waiting: tuple[Command, ...] = ()
        self.last_answered: str | None = None
        """The verb of the command that was answered last; None where that is not known."""
        # What the server said it can do, and what the client makes of it.
        self.pipelining: bool | None = False if nothing_yet else None
        """PIPELINING was offered; None where that is not known."""
        self._lmtp: bool | None = False if nothing_yet else None
        """The server answers for each recipient; None where the greeting was not seen."""
        self._accepted_recipients: int | None = 0 if from_the_start else None
        """Since the last MAIL; None where some may have been missed."""
        self._replies_left = 0
        """To the oldest command, which is the end of a message and has had a reply already."""
        self.more_may_follow = False
        """The last reply was to a message, of which nobody knows for how many recipients it is answered."""
        self.in_step = from_the_start
        """The next reply is known to be the oldest command's."""
        self._first_is_certain = False
        """Out of step, but for the next reply."""
        self.client_waits = not tapped
        """The client was not caught sending what had to wait for a reply."""
        self._tapped = tapped
        self._ehlo_answered = False
        self._greeting_waits = False
        """One may be among the commands that wait."""

    def report(self, event: Event) -> None:
        """Takes what happened besides, so that it stands in its place among the answers."""
        if self._events is None:
            self._events = [event]
        else:
            self._events.append(event)

    def take_events(self) -> list[Event]:
        """All that was reported since the last time."""
        events, self._events = self._events, None
        return [] if events is None else events

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def last_sent(self) -> str | None:
        """The verb of the command that was sent last, if it still waits."""
        return self._waiting[-1].verb if self._waiting else None

    def add(self, command: Command) -> None:
        """A command was sent."""
        if len(self._waiting) >= QUEUE_LIMIT:
            self._give_up(in_doubt=True)
            self.lose_step()
        self._waiting += (command,)
        self.more_may_follow = False
        if command.verb in GREETINGS:
            self._greeting_waits = True

    # ------------------------------------------------------------------ replies

    def contradicts(self, reply: Reply) -> bool:
        """Whether a reply can't be the oldest command's, though it is its turn."""
        return self.in_step and reply.intermediate and _may_answer(reply, self._waiting[0]) is False

    def is_nobodys(self, reply: Reply) -> bool:
        """Whether it is the turn of a command, but a reply belongs to another kind than any that waits."""
        return self.in_step and all(_may_answer(reply, command) is False for command in self._waiting)

    def answer(self, reply: Reply) -> Command | None:
        """Takes a reply while commands wait. Returns the command that it answers, None where that is not
        known."""
        # Most codes belong to no kind of command: then the queue, which may be long, is not looked through.
        proven = reply.code in _ONLY_ANSWER_TO and any(
            _may_answer(reply, command) for command in self._waiting
        )
        if self.in_step or self._first_is_certain:
            self._first_is_certain = False
            proven = proven and reply.intermediate
        elif proven:
            self.in_step = True
        else:
            self.last_answered = None
            return None
        while proven and not _may_answer(reply, self._waiting[0]):
            self._give_up(in_doubt=True)
        command = self._waiting[0]
        if not self._more_follow(command, reply):
            self._waiting = self._waiting[1:]
            self._replies_left = 0
        self.last_answered = command.verb
        self.report(CommandAnswered(command, reply))
        self._learn(command, reply)
        return command

    def _more_follow(self, command: Command, reply: Reply) -> bool:
        """More replies to the same command are to come."""
        verb = command.verb
        if verb in AUTHENTICATORS:
            return reply.intermediate
        if verb != END_OF_DATA and not command.last:
            return False
        announced = reply.code == _PER_RECIPIENT_FOLLOWS
        if announced or (self._lmtp and not self._replies_left):
            recipients = self._accepted_recipients
            if recipients is None:
                self.lose_step()  # how many will follow is not known
                return False
            self._replies_left = recipients + 2 if announced else max(recipients, 1)
        elif self._lmtp is None and self._accepted_recipients != 1:
            if len(self._waiting) > 1:
                self.lose_step()  # the next reply may be another recipient's, or the next command's
            else:
                self.more_may_follow = True
            return False
        self._replies_left -= 1
        return self._replies_left > 0

    def _learn(self, command: Command, reply: Reply) -> None:
        """What a reply tells about those to come."""
        if not reply.positive:
            return
        verb = command.verb
        if verb == "RCPT":
            if self._accepted_recipients is not None:
                self._accepted_recipients += 1
        elif verb in ("MAIL", "RSET", "XCLIENT"):
            self._accepted_recipients = 0
        elif verb in GREETINGS:
            self._accepted_recipients = 0
            self._lmtp = verb == "LHLO"
            self._ehlo_answered = verb != "HELO"
            if b"PIPELINING" in reply.keywords():
                self.pipelining = True
            else:
                self.pipelining = False if reply.whole and not self._tapped else None

    # ------------------------------------------------------------------ losses

    def lose_step(self, *, first_is_certain: bool = False) -> None:
        """Replies were lost, or commands. `first_is_certain`: the next reply is still the oldest one's."""
        self.in_step = False
        self._first_is_certain = first_is_certain
        self._replies_left = 0
        if self._greeting_waits:
            self._greeting_waits = any(command.verb in GREETINGS for command in self._waiting)
            if self._greeting_waits:
                self.pipelining = None  # its reply may be among what was lost

    def commands_lost(self) -> None:
        """Commands were lost: RCPTs may be among them, an LHLO, and where no EHLO was answered yet, one."""
        self.give_up_all()
        self.lose_step()
        self._accepted_recipients = self._lmtp = None
        if not self._ehlo_answered:
            self.pipelining = None

    def begin_again(self) -> None:
        """Nothing is known of what the two said to each other before."""
        self._accepted_recipients = None
        self.pipelining = None

    def resume(self) -> None:
        """A command was recognised after a loss. A client that may not pipeline has waited for all replies
        before it; one that may, perhaps not."""
        self.give_up_all()
        self.in_step = self._must_wait_after(None)

    def step_proven_by(self, *, certain: bool) -> bool:
        """Out of step, and the client speaks after it heard all that was said: does that prove that the last
        reply was the last command's? It does if the client had to wait for it. Then the two are in step
        again, and the commands before are given up.

        Args:
            certain: nothing was lost since the last command. Otherwise it is given up as well: the code may
                be another's.
        """
        if not self._waiting or not self._must_wait_after(self._waiting[-1]):
            return False
        while len(self._waiting) > certain:
            self._give_up(in_doubt=True)
        self.in_step = True
        return True

    def _must_wait_after(self, command: Command | None) -> bool:
        if not self.client_waits:
            return False
        return self.pipelining is False or (command is not None and command.verb not in PIPELINABLE)

    # ------------------------------------------------------------------ no replies

    def give_up_all(self, *, in_doubt: bool = True) -> None:
        """No reply will be matched to any of the commands that wait.

        Args:
            in_doubt: there may have been replies which were not seen.
        """
        while self._waiting:
            self._give_up(in_doubt=in_doubt)

    def _give_up(self, *, in_doubt: bool) -> None:
        """The same of the oldest command."""
        command, self._waiting = self._waiting[0], self._waiting[1:]
        self._replies_left = 0
        self.report(CommandAnswered(command, None, in_doubt))
        if in_doubt:
            if command.verb in ("MAIL", "RCPT", "RSET") or command.verb in GREETINGS:
                self._accepted_recipients = None
            if command.verb in GREETINGS:
                self.pipelining = None
                if self._lmtp or command.verb == "LHLO":
                    self._lmtp = None  # whether it was accepted decides how a message is answered


def _may_answer(reply: Reply, command: Command) -> bool | None:
    """Whether a reply whose code belongs to one kind of command belongs to this one; None for other codes."""
    own = _ONLY_ANSWER_TO.get(reply.code)
    # A STARTTLS that was overwritten on its way is no STARTTLS to the server.
    return None if own is None else command.verb in own and not command.masked
