"""Answered commands -> what a record lists of them, as far as there is room.

Whoever follows a dialogue keeps one: a session for what stands in clear on the wire, a tap for what stands
inside TLS.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from monitor.sessions.lists import with_item
from monitor.sessions.record import Auth
from monitor.sessions.transactions import Transactions
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import AUTHENTICATORS, END_OF_DATA, Command

LISTED_ITEMS_LIMIT: Final = 4_096
"""Transactions, recipients, AUTHs and HELOs that one ledger lists, all together. Chosen as four times the
recipients that common servers take in one transaction (Postfix's `smtpd_recipient_limit`: 1,000)."""
LISTED_TEXT_LIMIT_CHARACTERS: Final = 1 << 18
"""Their names and addresses, all together: 64 characters each at the limit above."""

_ITEM_BYTES: Final = 400
"""What an item in these lists, or a command that waits for its reply, needs besides its text (measured: 200
to 400)."""
# These are answered more than once, or not by themselves; and few of them wait at a time.
_NOT_COUNTED_AS_WAITING: Final = AUTHENTICATORS | {END_OF_DATA, "BDAT"}


@mypyc_attr(acyclic=True)
class Ledger(Transactions):
    """The transactions of one dialogue, its AUTHs, and the bound on both. One object with the transactions,
    as every open session has it."""

    __slots__ = ("_auth", "_characters", "_exchange", "_items", "_waiting_bytes", "overflowed")

    def __init__(self) -> None:
        super().__init__()
        self.overflowed = False
        """Something found no room."""
        self._auth: list[Auth] | None = None
        self._exchange: Command | None = None
        self._items = self._characters = self._waiting_bytes = 0

    def sent(self, command: Command) -> None:
        """Takes note of a command that waits for its reply from now on."""
        if command.verb not in _NOT_COUNTED_AS_WAITING:
            self._waiting_bytes += _ITEM_BYTES + len(command.line) + _characters(command)

    def answered(self, event: CommandAnswered, after_ns: int) -> None:
        """Takes the reply to a command, or the news that none was seen.

        `after_ns`: see Transactions.
        """
        command = event.command
        verb = command.verb
        if verb not in _NOT_COUNTED_AS_WAITING:
            self._waiting_bytes -= _ITEM_BYTES + len(command.line) + _characters(command)
        elif verb in AUTHENTICATORS:
            self._authenticated(event)
        if command.path is None or self.room(_characters(command)):
            super().answered(event, after_ns)

    def room(self, characters: int) -> bool:
        """Is there room for one more item with so much text? If so, it is taken."""
        if (
            not self.overflowed  # the end is left out, not something between
            and self._items < LISTED_ITEMS_LIMIT
            and self._characters + characters <= LISTED_TEXT_LIMIT_CHARACTERS
        ):
            self._items += 1
            self._characters += characters
            return True
        self.overflowed = True
        return False

    @property
    def auth(self) -> tuple[Auth, ...]:
        return tuple(self._auth or ())

    @property
    def kept_bytes(self) -> int:
        """Memory for what is listed, and for commands that wait for their replies."""
        return self._waiting_bytes + self._items * _ITEM_BYTES + self._characters

    def _authenticated(self, event: CommandAnswered) -> None:
        """The replies within an exchange are answers too, and the last of them counts."""
        command, reply = event.command, event.reply
        auth = Auth(command.name, reply.code if reply is not None else None)
        if self._exchange is command:
            if (reply is not None or event.in_doubt) and self._auth:
                self._auth[-1] = auth
        elif self.room(len(command.name)):
            self._auth = with_item(self._auth, auth)
        self._exchange = command


def _characters(command: Command) -> int:
    """How much a command says besides its verb."""
    path = command.path
    if path is None:
        return len(command.name)
    characters = len(path.address)
    for keyword, value in path.params.items():
        characters += len(keyword) + len(value or "")
    return characters
