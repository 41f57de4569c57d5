"""Answered commands -> mail transactions, as the server must have seen them.

Everything is decided when the reply comes (or can no longer come), because only then is it known what the
server made of a command: a second MAIL that it refuses leaves the first transaction open, and the recipients
that follow belong to that.
"""

from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from monitor.sessions.lists import with_item
from monitor.sessions.record import Data, Recipient, Transaction, TransactionOutcome
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import END_OF_DATA, GREETINGS, NO_PARAMS, TLS_STARTERS, Command
from monitor.smtp.replies import Reply


@mypyc_attr(acyclic=True)
@dataclass(slots=True)
class _Open:
    """A transaction under construction."""

    mail_from: str | None
    mail_code: int | None
    mail_params: dict[str, str | None]
    recipients: list[Recipient] | None = None
    verb: str | None = None
    wire_bytes: int | None = 0
    code: int | None = None
    finished: bool = False
    in_doubt: bool = False
    outcome: TransactionOutcome | None = None
    """None while it is open."""

    def frozen(self) -> Transaction:
        # Chunks may be among what was lost; the length of a message is told by its own beginning and end.
        wire_bytes = None if self.in_doubt and self.verb == "BDAT" else self.wire_bytes
        data = Data(self.verb, wire_bytes, self.code) if self.verb is not None else None
        return Transaction(
            self.mail_from,
            self.mail_code,
            self.mail_params,
            tuple(self.recipients or ()),
            data,
            self.outcome or self.decide(),
        )

    def decide(self) -> TransactionOutcome:
        if self.finished and self.code is not None and self.code // 100 == 2:
            return TransactionOutcome.ACCEPTED
        if self.code is not None and self.code // 100 in (4, 5):
            return TransactionOutcome.REJECTED
        if self.mail_code is not None and self.mail_code // 100 != 2:
            return TransactionOutcome.REJECTED
        if self.in_doubt:
            return TransactionOutcome.UNKNOWN
        codes = [recipient.code for recipient in self.recipients or ()]
        if codes and all(code is not None and code // 100 != 2 for code in codes):
            return TransactionOutcome.REJECTED
        return TransactionOutcome.ABORTED


def seconds(ns: int) -> float:
    """As records give them: to the microsecond."""
    return round(ns / 1e9, 6)


@mypyc_attr(acyclic=True)
class Transactions:
    """Collects the transactions of one dialogue. The caller bounds how many commands come in."""

    __slots__ = ("_adrift", "_answered", "_current", "_ever_lost", "_list")

    def __init__(self) -> None:
        self._list: list[_Open] | None = None
        self._current: _Open | None = None
        self._answered: tuple[Command, _Open] | None = None
        self._adrift = False
        """Commands were lost since the last MAIL."""
        self._ever_lost = False

    def __len__(self) -> int:
        return len(self._list or ())

    def answered(self, event: CommandAnswered, after_ns: int) -> None:
        """Takes the reply to a command, or the news that none was seen.

        `after_ns`: since the session's first packet.
        """
        command, reply = event.command, event.reply
        match command.verb:
            case "MAIL" if command.names_a_path:
                self._mail(command, reply, in_doubt=event.in_doubt)
            case "RCPT" if command.names_a_path:
                self._recipient(command, reply, after_ns, in_doubt=event.in_doubt)
            case "BDAT" if command.size_bytes is not None:
                self._chunk(command, reply, in_doubt=event.in_doubt)
            case "DATA":
                self._data(reply, in_doubt=event.in_doubt)
            case verb if verb == END_OF_DATA:
                self._message(command, reply, in_doubt=event.in_doubt)
            case verb if verb == "RSET" or verb in GREETINGS or verb in TLS_STARTERS or verb == "XCLIENT":
                if reply is not None and reply.positive:
                    self._close()
                elif event.in_doubt:
                    self.lost()

    def lost(self) -> None:
        """Commands may have been lost: what comes now may belong to another transaction than the open one."""
        if self._current is not None:
            self._current.in_doubt = True
            self._close()
        self._adrift = self._ever_lost = True

    def frozen(self) -> tuple[Transaction, ...]:
        return tuple(transaction.frozen() for transaction in self._list or ())

    def _mail(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        if reply is None and in_doubt and self._within_accepted_mail():
            self.lost()  # was it refused? Then the first transaction goes on
        if self._current is not None and self._current.mail_code is None and self._current.in_doubt:
            self._ever_lost = True  # was that one accepted? Then a refused MAIL leaves it open
        path = command.path
        transaction = _Open(
            path.address if path is not None else None,
            reply.code if reply is not None else None,
            path.params if path is not None else NO_PARAMS,
            in_doubt=in_doubt,
        )
        self._list = with_item(self._list, transaction)
        self._adrift = False
        if reply is None or reply.positive or not self._within_accepted_mail():
            self._close()
            self._current = transaction

    def _within_accepted_mail(self) -> bool:
        code = self._current.mail_code if self._current is not None else None
        return code is not None and code // 100 == 2

    def _recipient(self, command: Command, reply: Reply | None, after_ns: int, *, in_doubt: bool) -> None:
        current = self._current
        if (
            self._ever_lost
            and current is not None
            and not self._within_accepted_mail()
            and current.mail_code is not None
        ):
            return  # a refused MAIL has no recipients: this may be that of one before it, which was lost
        if current is None:
            # Outside of a transaction it is refused; it is listed with the last one, whose outcome stands.
            if not self._list or self._adrift:
                return
            current = self._list[-1]
        else:
            current.in_doubt |= in_doubt
        recipient = Recipient(
            command.path.address if command.path is not None else None,
            reply.code if reply is not None else None,
            command.path.params if command.path is not None else NO_PARAMS,
            seconds(after_ns) if reply is not None else None,
        )
        current.recipients = with_item(current.recipients, recipient)

    def _data(self, reply: Reply | None, *, in_doubt: bool) -> None:
        if self._current is None:
            return
        self._current.in_doubt |= in_doubt
        if reply is None:
            if in_doubt:
                self.lost()  # the message may have followed, and with it the end
            return
        if reply.intermediate:
            self._current.verb = "DATA"
            self._current.wire_bytes = None
            self._current.code = None
        elif not reply.positive:
            self._current.code = reply.code

    def _message(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        if self._answered is not None and self._answered[0] is command:
            current = self._answered[1]  # another of the replies for each recipient (LMTP, PRDR)
        elif self._current is not None:
            current = self._current
            current.verb = "DATA"
            current.wire_bytes = command.size_bytes
            current.in_doubt |= in_doubt
        else:
            return
        self._final(current, command, reply)

    def _chunk(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        if self._current is None:
            return
        current = self._current
        current.verb = "BDAT"
        current.in_doubt |= in_doubt
        if command.size_bytes is not None and current.wire_bytes is not None:
            current.wire_bytes += command.size_bytes
        if reply is not None and (command.last or not reply.positive):
            self._final(current, command, reply)
        elif command.last and in_doubt:
            self._close()  # whatever the answer was

    def _final(self, current: _Open, command: Command, reply: Reply | None) -> None:
        """The final reply to a message, or one of them."""
        if reply is None:
            if current is self._current and command.verb != "BDAT":
                self._close()
            return
        if reply.intermediate:
            return
        if not (current.finished and current.code is not None and current.code // 100 == 2):
            # Of several replies a positive one counts: the message was accepted for somebody.
            current.code = reply.code
        current.finished = True
        if current.outcome is not None:
            current.outcome = current.decide()
        self._answered = (command, current)
        # A refused chunk ends the message, but the client may not know it yet: the chunks that it has sent
        # meanwhile are refused as well, and belong to the same transaction.
        if current is self._current and (reply.positive or command.verb != "BDAT"):
            self._close()

    def _close(self) -> None:
        """The current transaction is over, and its outcome decided."""
        if self._current is not None:
            self._current.outcome = self._current.decide()
            self._current = None
