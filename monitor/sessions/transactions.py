"""Answered commands -> mail transactions, as the server must have seen them.

Everything is decided when the reply comes (or can no longer come), because only then is it known what the server made of a
command: a second MAIL that it refuses leaves the first transaction open, and the recipients that follow belong to that.
"""

from dataclasses import dataclass, field

from monitor.sessions.record import Data, Recipient, Transaction, TransactionOutcome
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import END_OF_DATA, GREETINGS, TLS_STARTERS, Command
from monitor.smtp.replies import Reply


@dataclass(slots=True)
class _Open:
    """A transaction under construction."""

    mail_from: str | None
    mail_code: int | None
    mail_params: dict[str, str | None]
    recipients: list[Recipient] = field(default_factory=list)
    verb: str | None = None
    wire_bytes: int | None = 0
    code: int | None = None
    finished: bool = False
    in_doubt: bool = False

    def frozen(self) -> Transaction:
        data = Data(self.verb, self.wire_bytes, self.code) if self.verb is not None else None
        return Transaction(
            self.mail_from,
            self.mail_code,
            self.mail_params,
            tuple(self.recipients),
            data,
            self._outcome(),
        )

    def _outcome(self) -> TransactionOutcome:
        if self.finished and self.code is not None and self.code // 100 == 2:
            return TransactionOutcome.ACCEPTED
        if self.code is not None and self.code // 100 in (4, 5):
            return TransactionOutcome.REJECTED
        if self.mail_code is not None and self.mail_code // 100 != 2:
            return TransactionOutcome.REJECTED
        if self.in_doubt:
            return TransactionOutcome.UNKNOWN
        codes = [recipient.code for recipient in self.recipients]
        if codes and all(code is not None and code // 100 != 2 for code in codes):
            return TransactionOutcome.REJECTED
        return TransactionOutcome.ABORTED


class Transactions:
    """Collects the transactions of one session. The caller bounds how many commands come in."""

    __slots__ = ("_answered", "_current", "_list")

    def __init__(self) -> None:
        self._list: list[_Open] = []
        self._current: _Open | None = None
        self._answered: tuple[Command, _Open] | None = None

    def __len__(self) -> int:
        return len(self._list)

    def answered(self, event: CommandAnswered) -> None:
        """Takes the reply to a command, or the news that none was seen."""
        command, reply = event.command, event.reply
        match command.verb:
            case "MAIL":
                self._mail(command, reply, in_doubt=event.in_doubt)
            case "RCPT":
                self._recipient(command, reply, in_doubt=event.in_doubt)
            case "BDAT":
                self._chunk(command, reply, in_doubt=event.in_doubt)
            case "DATA":
                self._data(reply, in_doubt=event.in_doubt)
            case verb if verb == END_OF_DATA:
                self._message(command, reply, in_doubt=event.in_doubt)
            case verb if verb == "RSET" or verb in GREETINGS or verb in TLS_STARTERS or verb == "XCLIENT":
                if reply is not None and reply.positive:
                    self._current = None
                elif event.in_doubt:
                    self.lost()

    def lost(self) -> None:
        """Commands may have been lost: how the open transaction goes on is not known."""
        if self._current is not None:
            self._current.in_doubt = True

    def frozen(self) -> tuple[Transaction, ...]:
        return tuple(transaction.frozen() for transaction in self._list)

    def _mail(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        path = command.path
        transaction = _Open(
            path.address if path is not None else None,
            reply.code if reply is not None else None,
            path.params if path is not None else {},
            in_doubt=in_doubt,
        )
        self._list.append(transaction)
        if reply is None or reply.positive or self._current is None:
            self._current = transaction

    def _recipient(self, command: Command, reply: Reply | None, *, in_doubt: bool) -> None:
        if self._current is None or command.path is None:
            return
        self._current.in_doubt |= in_doubt
        code = reply.code if reply is not None else None
        self._current.recipients.append(Recipient(command.path.address, code, command.path.params))

    def _data(self, reply: Reply | None, *, in_doubt: bool) -> None:
        if self._current is None:
            return
        self._current.in_doubt |= in_doubt
        if reply is None:
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

    def _final(self, current: _Open, command: Command, reply: Reply | None) -> None:
        """The final reply to a message, or one of them."""
        if reply is None or reply.intermediate:
            return
        if not (current.finished and current.code is not None and current.code // 100 == 2):
            # Of several replies a positive one counts: the message was accepted for somebody.
            current.code = reply.code
        current.finished = True
        self._answered = (command, current)
        # A refused chunk ends the message, but the client may not know it yet: the chunks that it has sent
        # meanwhile are refused as well, and belong to the same transaction.
        if reply.positive or command.verb != "BDAT":
            self._current = None
