"""What greylite 2.3 would have decided, without its rules of suspicion.

One decision a session, at the first recipient that the server does not refuse. What a session lets it read is
said by its reach model; here is only its table.

Source: the program itself, read and run; docs/greylisters.md.
"""

from collections.abc import Iterable
from typing import Final

from monitor.greylisters.greylite import address_in
from monitor.sessions.record import By, GreylisterReach, Reach, Recipient, SessionRecord, Transaction
from monitor.simulation.attempts import (
    SECOND_US,
    Question,
    on_the_wire,
    outcome_of,
    seconds_between,
)
from monitor.simulation.rules import Rules
from monitor.simulation.store import Store
from monitor.simulation.tables import Acquaintance, Waiting
from monitor.simulation.tallies import Decision, Fate, Greylister, Tallies

PENDING_SECONDS: Final = 18 * 3_600
"""STALE_PENDING_ENTRIES_PERIOD; what is older may be pruned."""
VERIFIED_SECONDS: Final = 480 * 3_600
"""STALE_VERIFIED_ENTRIES_PERIOD, since the last use."""

_WITHOUT_TRIPLET: Final = {
    GreylisterReach(Reach.BYPASSED, By.STARTTLS): Decision.UNREAD_TLS,
    GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS): Decision.UNREAD_TLS,
    GreylisterReach(Reach.BYPASSED, By.AUTH): Decision.UNREAD_OTHER,
    GreylisterReach(Reach.BYPASSED, By.DATA): Decision.UNREAD_OTHER,
    GreylisterReach(Reach.STALLED): Decision.STALLED,
}
"""All else is unknown."""
_MAY_HIDE_A_RETRY: Final = frozenset({Decision.UNREAD_TLS, Decision.UNREAD_OTHER, Decision.UNKNOWN})


class Greylite(Rules):
    name = Greylister.GREYLITE
    pending_seconds = PENDING_SECONDS
    known_seconds = VERIFIED_SECONDS

    def __init__(self, store: Store, tallies: Tallies, limit: int) -> None:
        super().__init__(store, tallies, limit, "greylite_pending", ("greylite_verified",))
        (self._verified,) = self._known

    def questions(self, record: SessionRecord, connected_us: int) -> Iterable[Question]:
        found = record.greylisters.get(self.name)
        if found is not None:
            yield _question(record, found, connected_us)

    def decide(self, question: Question) -> Decision | None:
        address = self._digest(question.client.encode())
        if self._is_verified(address, question.connected_us):
            return Decision.PASSED_KNOWN
        if question.is_empty:
            return None
        if question.unread is not None:
            if question.unread in _MAY_HIDE_A_RETRY:
                self._pending.doubt(address)
            return question.unread
        at_us = question.at_us
        triplet = self._digest(question.client.encode(), question.sender, question.recipient)
        waiting = self._pending.find(triplet)
        if waiting is not None and seconds_between(waiting.first_us, at_us) <= PENDING_SECONDS:
            self._came_again(triplet, waiting, at_us)
            self._ended(Fate.RELEASED, self._pending.remove_of(address))
            self._verified.put(address, Acquaintance(at_us, at_us, 1))
            self._shrink()
            return Decision.PASSED_ON_RETRY
        if waiting is not None:
            self._came_too_late(triplet, waiting)
        self._put_off(triplet, address, Waiting(at_us, question.outcome))
        return Decision.DEFERRED

    def _is_verified(self, address: bytes, connected_us: int) -> bool:
        """It looks once, at connect: a session that was open already when its address was verified is read
        on."""
        verified = self._verified.find(address)
        if (
            verified is None
            or verified.since_us > connected_us
            or seconds_between(verified.last_us, connected_us) > VERIFIED_SECONDS
        ):
            return False
        if connected_us > verified.last_us:
            self._verified.put(address, verified._replace(last_us=connected_us))
        return True


def _question(record: SessionRecord, found: GreylisterReach, connected_us: int) -> Question:
    client = record.real_client.ip
    if found.reach is Reach.NO_ENVELOPE:
        return Question(connected_us, client, is_empty=True)
    if found.reach is not Reach.DECIDED:
        return Question(connected_us, client, _WITHOUT_TRIPLET.get(found, Decision.UNKNOWN))
    asked = _first_not_refused(record)
    if asked is None:  # a recipient without any MAIL is not in the record
        return Question(connected_us, client, Decision.UNKNOWN)
    transaction, recipient = asked
    # A refused MAIL leaves no sender behind.
    is_mail_refused = transaction.mail_code is not None and transaction.mail_code // 100 in (4, 5)
    sender = b"" if is_mail_refused else _read_by_it(transaction.mail_from, transaction.mail_params)
    to = _read_by_it(recipient.address, recipient.params)
    if sender is None or to is None or recipient.after_seconds is None:
        return Question(connected_us, client, Decision.UNKNOWN)
    return Question(
        connected_us,
        client,
        at_us=connected_us + round(recipient.after_seconds * SECOND_US),
        sender=sender,
        recipient=to,
        outcome=outcome_of(transaction, recipient),
    )


def _first_not_refused(record: SessionRecord) -> tuple[Transaction, Recipient] | None:
    for transaction in record.transactions:
        for recipient in transaction.recipients:
            if recipient.code is not None and recipient.code // 100 not in (4, 5):
                return transaction, recipient
    return None


def _read_by_it(address: str | None, params: dict[str, str | None]) -> bytes | None:
    """It takes the first thing in the line that looks like an address, and that may be a parameter."""
    if address is None:
        return None
    words = [f"<{address}>", *(key if value is None else f"{key}={value}" for key, value in params.items())]
    return address_in(on_the_wire(" ".join(words)))
