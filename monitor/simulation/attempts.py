"""Session record -> what a greylister is asked, and what the real server made of it."""

import re
from enum import IntEnum
from typing import Final, NamedTuple

from monitor.sessions.record import Recipient, Transaction, TransactionOutcome
from monitor.simulation.tallies import Decision

SECOND_US: Final = 1_000_000

# How a record shows a byte that is not UTF-8.
_ESCAPED_BYTE: Final = re.compile(rb"\\x([89a-f][0-9a-f])")


class AttemptOutcome(IntEnum):
    """What the real server made of the attempts of one triplet: of several, the highest counts."""

    PUT_OFF = 0
    """Answered 4xx, or the session broke off before the mail was accepted."""
    REFUSED = 1
    """The recipient was accepted, and the message refused with 5xx."""
    UNKNOWN = 2
    ACCEPTED = 3
    CAME_AGAIN = 4
    """And was let through by a list before the triplet was looked up, which leaves it as it was."""


class Question(NamedTuple):
    """What the greylister is asked; or, where it can't be asked, what that counts as."""

    connected_us: int
    """Epoch: the session's first packet."""
    client: str
    """Its address."""
    unread: Decision | None = None
    """None where there is a triplet, or nothing at all."""
    is_empty: bool = False
    """Nothing to decide on: only the address is looked up."""
    at_us: int = 0
    """Epoch: the server's answer to the recipient."""
    sender: bytes = b""
    recipient: bytes = b""
    outcome: AttemptOutcome = AttemptOutcome.UNKNOWN


def on_the_wire(text: str) -> bytes:
    """A record's text as the bytes that were sent."""
    raw = text.encode("utf-8", "surrogatepass")
    if b"\\x" in raw:
        raw = _ESCAPED_BYTE.sub(lambda found: bytes((int(found[1], 16),)), raw)
    return raw


def outcome_of(transaction: Transaction, recipient: Recipient) -> AttemptOutcome:
    """What the real server made of the mail for this recipient, which it did not refuse with 5xx at RCPT."""
    if recipient.code is not None and recipient.code // 100 == 4:
        return AttemptOutcome.PUT_OFF
    match transaction.outcome:
        case TransactionOutcome.ACCEPTED:
            return AttemptOutcome.ACCEPTED
        case TransactionOutcome.ABORTED:
            return AttemptOutcome.PUT_OFF
        case TransactionOutcome.REJECTED if transaction.data is not None:
            # A code to the DATA line itself is not in the record: that one stays unknown.
            code = transaction.data.code
            if code is not None and code // 100 in (4, 5):
                return AttemptOutcome.PUT_OFF if code // 100 == 4 else AttemptOutcome.REFUSED
    return AttemptOutcome.UNKNOWN


def seconds_between(earlier_us: int, later_us: int) -> int:
    """Whole seconds on the clock, as both programs count them; 0 where records came in the wrong order."""
    return max(0, later_us // SECOND_US - earlier_us // SECOND_US)
