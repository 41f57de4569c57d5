"""Senders that come back to a Postfix that asks postgrey: too early, in time, from elsewhere, as others.

Every case has a recipient of its own, so that cases do not meet in postgrey's table.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tests.lab.network import client_address
from tests.lab.postfix import MX
from tests.lab.postgrey import DELAY_SECONDS
from tests.lab.postgrey_log import Reason
from tests.lab.postgrey_sessions import MORE_NETWORKS
from tests.lab.raw_client import RawClient, trusting_context
from tests.lab.scenario import body
from tests.lab.server import MAIL_DOMAIN
from tests.lab.truth import Endpoint

# postgrey counts in whole seconds: the next one has begun after so long, and a delay of so many is over.
_NEXT_SECOND: Final = 1.1


class Round(IntEnum):
    """All attempts of one round come before those of the next."""

    FIRST = 0
    EARLY = 1
    """A second later."""
    LATE = 2
    """When the delay is over."""
    AGAIN = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    round: Round
    reason: Reason
    """What postgrey says to it."""
    client: str = client_address(1)
    sender: str = "sender@client.test"
    recipient: str = "user+{name}"
    """The local part."""
    in_tls: bool = False


FIRST, EARLY, LATE, AGAIN = Round
NEW, EARLY_RETRY, FOUND = Reason.NEW, Reason.EARLY_RETRY, Reason.TRIPLET_FOUND
WHITELISTED: Final = Reason.RECIPIENT_WHITELIST
_SAME_24: Final = client_address(2)
_OTHER_24: Final = f"{MORE_NETWORKS[0]}1"
_OTHER_64: Final = f"{MORE_NETWORKS[2]}1"

CASES: Final = {
    "comes back too early, then in time": (
        Attempt(FIRST, NEW),
        Attempt(EARLY, EARLY_RETRY),
        Attempt(LATE, FOUND),
        Attempt(AGAIN, FOUND),
    ),
    "comes back once, in time": (Attempt(FIRST, NEW), Attempt(LATE, FOUND)),
    "never comes back": (Attempt(FIRST, NEW),),
    "comes back too early only": (Attempt(FIRST, NEW), Attempt(EARLY, EARLY_RETRY)),
    "another address of the same /24": (
        Attempt(FIRST, NEW),
        Attempt(EARLY, EARLY_RETRY, _SAME_24),
        Attempt(LATE, FOUND, client_address(3)),
    ),
    "an address of another /24": (Attempt(FIRST, NEW), Attempt(LATE, NEW, _OTHER_24)),
    "another address of the same /64": (
        Attempt(FIRST, NEW, client_address(5, 6)),
        Attempt(EARLY, EARLY_RETRY, client_address(6, 6)),
        Attempt(LATE, FOUND, client_address(7, 6)),
    ),
    "an address of another /64": (
        Attempt(FIRST, NEW, client_address(5, 6)),
        Attempt(LATE, NEW, _OTHER_64),
        Attempt(AGAIN, FOUND, client_address(5, 6)),
    ),
    "another extension of the sender": (
        Attempt(FIRST, NEW, sender="sender+one@client.test"),
        Attempt(EARLY, EARLY_RETRY, sender="sender+two+three@client.test"),
        Attempt(LATE, FOUND),
    ),
    "another extension of the recipient": (
        Attempt(FIRST, NEW, recipient="user+one+{name}"),
        Attempt(LATE, NEW, recipient="user+two+{name}"),
    ),
    "other numbers in the sender": (
        Attempt(FIRST, NEW, sender="list-7-1201=x@client.test"),
        Attempt(EARLY, EARLY_RETRY, sender="list-8-1=x@client.test"),
        Attempt(LATE, FOUND, sender="list-00-55555=x@client.test"),
    ),
    "numbers that are part of a word": (
        Attempt(FIRST, NEW, sender="user12@client.test"),
        Attempt(EARLY, NEW, sender="user13@client.test"),
        Attempt(LATE, NEW, sender="user_12@client.test"),
        Attempt(AGAIN, NEW, sender="user_13@client.test"),
    ),
    "numbers in the sender's domain": (
        Attempt(FIRST, NEW, sender="sender@1.client.test"),
        Attempt(LATE, NEW, sender="sender@2.client.test"),
    ),
    "another BATV tag": (
        Attempt(FIRST, NEW, sender="prvs=0123456789=sender@client.test"),
        Attempt(EARLY, EARLY_RETRY, sender="prvs=99aabbccdd=sender@client.test"),
        Attempt(LATE, FOUND, sender="prvs=sender=0123456789@client.test"),
        Attempt(AGAIN, FOUND),
    ),
    "BATV with a tag that is too short": (
        Attempt(FIRST, NEW, sender="prvs=012345=sender@client.test"),
        Attempt(LATE, FOUND),
    ),
    "upper and lower case": (
        Attempt(FIRST, NEW, sender="Sender@Client.test", recipient="USER+{name}"),
        Attempt(EARLY, EARLY_RETRY, sender="sENDER@client.TEST", recipient="User+{name}"),
        Attempt(LATE, FOUND),
    ),
    "the null sender": (
        Attempt(FIRST, NEW, sender=""),
        Attempt(EARLY, EARLY_RETRY, sender=""),
        Attempt(LATE, FOUND, sender=""),
    ),
    "two senders": (
        Attempt(FIRST, NEW),
        Attempt(LATE, NEW, sender="other@client.test"),
        Attempt(LATE, FOUND),
    ),
    "quotes that need not be": (
        Attempt(FIRST, NEW, sender='"sender"@client.test', recipient='"user+{name}"'),
        Attempt(LATE, FOUND),
    ),
    "letters beyond ASCII": (
        Attempt(FIRST, NEW, recipient="MÜLLER+{name}"),
        Attempt(EARLY, EARLY_RETRY, recipient="mÜller+{name}"),
        Attempt(LATE, NEW, recipient="müller+{name}"),
    ),
    "a whitelisted recipient": (
        Attempt(FIRST, WHITELISTED, recipient="postmaster+{name}"),
        Attempt(EARLY, WHITELISTED, recipient="ABUSE+{name}"),
        Attempt(LATE, NEW, recipient="postmasters+{name}"),
    ),
    # Beyond a stream watcher's sight, but not beyond postgrey's.
    "first in TLS, then in clear": (
        Attempt(FIRST, NEW, in_tls=True),
        Attempt(LATE, FOUND),
    ),
    "first in clear, then in TLS": (
        Attempt(FIRST, NEW),
        Attempt(LATE, FOUND, in_tls=True),
        Attempt(AGAIN, FOUND),
    ),
    "in TLS only": (
        Attempt(FIRST, NEW, in_tls=True),
        Attempt(EARLY, EARLY_RETRY, in_tls=True),
        Attempt(LATE, FOUND, in_tls=True),
    ),
    # One client's successes: at most one an hour counts for its whitelisting.
    **{
        f"success {number} of the same client": (
            Attempt(FIRST, NEW, f"{MORE_NETWORKS[1]}9"),
            Attempt(LATE, FOUND, f"{MORE_NETWORKS[1]}9"),
        )
        for number in range(1, 7)
    },
    "after six successes of the same client": (Attempt(AGAIN, NEW, f"{MORE_NETWORKS[1]}9"),),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt as it happened."""

    case: str
    name: str
    attempt: Attempt
    client: Endpoint
    server: Endpoint
    connected_at: float
    """On the monotonic clock: a client's port may come again."""
    code: int
    """The reply to RCPT."""


def come_and_come_back(threads: ThreadPoolExecutor) -> list[Tried]:
    """Makes all attempts, one at a time, within a case in its order; takes a little longer than the delay."""
    tried = []
    began = time.monotonic()
    for turn in Round:
        if turn is LATE:
            time.sleep(max(0.0, began + DELAY_SECONDS + _NEXT_SECOND - time.monotonic()))
        elif turn is not FIRST:
            time.sleep(_NEXT_SECOND)
        tried += [threads.submit(_try, *which).result() for which in _attempts(turn)]
        if turn is FIRST:
            began = time.monotonic()
    return tried


def _attempts(turn: Round) -> Iterator[tuple[str, str, Attempt]]:
    for number, (case, attempts) in enumerate(CASES.items()):
        for attempt in attempts:
            if attempt.round is turn:
                yield case, f"r{number}", attempt


def _try(case: str, name: str, attempt: Attempt) -> Tried:
    server = MX.listeners[":" in attempt.client]
    with RawClient(server, attempt.client) as client:
        connected_at = time.monotonic()
        client.hello()
        if attempt.in_tls:
            assert client.starttls(trusting_context())
            client.hello()
        client.mail(attempt.sender, " SMTPUTF8")
        code = client.recipient(f"{attempt.recipient.format(name=name)}@{MAIL_DOMAIN}")
        client.data(body())
        local = client.local
        client.quit()
        return Tried(case, name, attempt, local, server, connected_at, code)
