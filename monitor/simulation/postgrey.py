"""What postgrey 1.37 would have decided, beside a Postfix that asks it last.

One decision for each recipient that reaches it. Its lists of clients are reverse DNS names and its owner's
own lines: packets don't show them, and they are left out.

Source: the program itself (its manual, and `smtpd_access_policy` in it), and its whitelist_recipients.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from monitor.sessions.record import Envelope, Reach, SessionRecord
from monitor.simulation.attempts import (
    SECOND_US,
    AttemptOutcome,
    Question,
    on_the_wire,
    outcome_of,
    seconds_between,
)
from monitor.simulation.rules import Rules
from monitor.simulation.store import Store
from monitor.simulation.tables import Acquaintance, Waiting
from monitor.simulation.tallies import Decision, Greylister, Tallies

DELAY_SECONDS: Final = 300  # --delay
RETRY_WINDOW_SECONDS: Final = 2 * 86_400  # --retry-window
MAX_AGE_SECONDS: Final = 35 * 86_400  # --max-age
CLIENT_SUCCESSES: Final = 5  # --auto-whitelist-clients
CLIENT_PAUSE_SECONDS: Final = 3_600  # "Only one attempt per hour counts."
IPV4_PREFIX_BITS: Final = 24  # --ipv4cidr
IPV6_PREFIX_BITS: Final = 64  # --ipv6cidr

_WHITELISTED_RECIPIENT: Final = re.compile(rb"(?:postmaster|abuse)(?:\+[^@]+)?@", re.IGNORECASE)
_BATV_TAG: Final = re.compile(rb"[0-9a-z]{10}")
_EXTENSION: Final = re.compile(rb"\+.*")
_DIGITS: Final = re.compile(rb"\b\d+\b")
_CLOSING: Final = 421  # RFC 5321 section 4.2.2: the connection is over, whatever the command was
_AUTHENTICATED: Final = 235


class Postgrey(Rules):
    name = Greylister.POSTGREY
    pending_seconds = RETRY_WINDOW_SECONDS
    known_seconds = MAX_AGE_SECONDS

    def __init__(self, store: Store, tallies: Tallies, limit: int, delay_seconds: int) -> None:
        known = ("postgrey_passed", "postgrey_clients")
        super().__init__(store, tallies, limit, "postgrey_pending", known)
        self._delay_seconds = delay_seconds
        self._passed, self._clients = self._known

    def questions(self, record: SessionRecord, connected_us: int) -> Iterable[Question]:
        if not record.greylisters or any(auth.code == _AUTHENTICATED for auth in record.auth):
            return
        client = record.real_client.ip
        is_any = False
        for transaction in record.transactions:
            for recipient in transaction.recipients:
                is_any = True
                code = recipient.code
                if code is not None and (code // 100 == 5 or code == _CLOSING):
                    continue
                if (
                    code is None
                    or code // 100 not in (2, 4)
                    or recipient.after_seconds is None
                    or recipient.address is None
                    or transaction.mail_from is None
                ):
                    yield Question(connected_us, client, Decision.UNKNOWN)
                    continue
                yield Question(
                    connected_us,
                    client,
                    at_us=connected_us + round(recipient.after_seconds * SECOND_US),
                    sender=on_the_wire(transaction.mail_from),
                    recipient=on_the_wire(recipient.address),
                    outcome=outcome_of(transaction, recipient),
                )
        if record.envelope in (Envelope.HIDDEN, Envelope.PARTIAL):
            yield Question(connected_us, client, Decision.OUT_OF_SIGHT)
        elif record.envelope is Envelope.UNKNOWN or not (is_any or _is_known_empty(record)):
            yield Question(connected_us, client, Decision.UNKNOWN)

    def decide(self, question: Question) -> Decision:
        network = network_of(question.client)
        owner = self._digest(network)
        if question.unread is not None:
            self._pending.doubt(owner)
            return question.unread
        if _WHITELISTED_RECIPIENT.match(question.recipient):
            return Decision.PASSED_KNOWN
        triplet = self._digest(network, substituted(question.sender).lower(), question.recipient.lower())
        client_key, at_us = self._digest(question.client.encode()), question.at_us
        client = self._client(client_key, at_us)
        if client is not None and client.times >= CLIENT_SUCCESSES:
            if _is_pause_over(client, at_us):
                self._clients.put(client_key, client._replace(last_us=at_us))
            self._note_return(triplet, at_us)
            return Decision.PASSED_KNOWN
        passed = self._passed.find(triplet)
        if passed is not None and seconds_between(passed.last_us, at_us) <= MAX_AGE_SECONDS:
            self._passed.put(triplet, passed._replace(last_us=max(passed.last_us, at_us)))
            return Decision.PASSED_KNOWN
        waiting = self._pending.find(triplet)
        if waiting is not None and seconds_between(waiting.first_us, at_us) > RETRY_WINDOW_SECONDS:
            self._came_too_late(triplet, waiting)
            waiting = None
        # A first attempt in the future: records came in the wrong order, and this one was the first.
        first_us = at_us if waiting is None else min(waiting.first_us, at_us)
        if seconds_between(first_us, at_us) < self._delay_seconds:
            self._put_off_again(triplet, owner, waiting, Waiting(first_us, question.outcome))
            return Decision.DEFERRED
        if waiting is not None:
            self._came_again(triplet, waiting, at_us)
        self._passed.put(triplet, Acquaintance(at_us, at_us, 1))
        if client is None or _is_pause_over(client, at_us):
            times = 1 if client is None else client.times + 1
            self._clients.put(client_key, Acquaintance(at_us, at_us, times))
        self._shrink()
        return Decision.PASSED_ON_RETRY

    def _client(self, key: bytes, at_us: int) -> Acquaintance | None:
        client = self._clients.find(key)
        if client is not None and seconds_between(client.last_us, at_us) > MAX_AGE_SECONDS:
            return None
        return client

    def _put_off_again(self, triplet: bytes, owner: bytes, before: Waiting | None, now: Waiting) -> None:
        if before is None:
            self._put_off(triplet, owner, now)
            return
        both = Waiting(now.first_us, max(before.outcome, now.outcome))
        if both != before:
            self._pending.change(triplet, both)

    def _note_return(self, triplet: bytes, at_us: int) -> None:
        """It leaves the triplet as it was; but who came again must not count as one who never did."""
        waiting = self._pending.find(triplet)
        if (
            waiting is not None
            and waiting.outcome is not AttemptOutcome.CAME_AGAIN
            and seconds_between(waiting.first_us, at_us) <= RETRY_WINDOW_SECONDS
        ):
            self._observe_delay(waiting, at_us)
            self._pending.change(triplet, waiting._replace(outcome=AttemptOutcome.CAME_AGAIN))


def network_of(client: str) -> bytes:
    """The client's network, as text. An IPv4 address in IPv6 clothes counts as IPv4, as Postfix has it."""
    address = ip_address(client)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, IPV6_PREFIX_BITS), strict=False).network_address).encode()
        address = address.ipv4_mapped
    return str(ip_network((address, IPV4_PREFIX_BITS), strict=False).network_address).encode()


def substituted(sender: bytes) -> bytes:
    """The sender without what changes from mail to mail: BATV's tag, an extension, VERP's numbers."""
    user, at, domain = sender.partition(b"@")
    if not at:
        return sender
    if user.startswith(b"prvs="):
        parts = user.rstrip(b"=").split(b"=")
        if len(parts) == 3:
            # prvs=tag=user; some have it the other way round.
            is_swapped = _BATV_TAG.match(parts[2]) and not _BATV_TAG.match(parts[1])
            user = parts[1] if is_swapped else parts[2]
    return _DIGITS.sub(b"#", _EXTENSION.sub(b"", user)) + at + domain


def _is_pause_over(client: Acquaintance, at_us: int) -> bool:
    return at_us < client.last_us or seconds_between(client.last_us, at_us) >= CLIENT_PAUSE_SECONDS


def _is_known_empty(record: SessionRecord) -> bool:
    """Whether nothing that the session may have asked it is missing from the capture."""
    found = record.greylisters.get("policy_service")
    return found is not None and found.reach is not Reach.UNKNOWN
