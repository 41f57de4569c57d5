"""What is counted: decisions, what became of the triplets that waited, and how long they took to come again.

All keys are there from the start and only their values change, so that another thread may read.
"""

from bisect import bisect_left
from collections.abc import Collection
from enum import StrEnum
from typing import Final


class Greylister(StrEnum):
    """The programs that can be simulated."""

    GREYLITE = "greylite"
    POSTGREY = "postgrey"


class Decision(StrEnum):
    """What the greylister would have done. greylite decides once a session, postgrey once a recipient."""

    DEFERRED = "deferred"
    """Put off: never seen, or come again too soon."""
    PASSED_ON_RETRY = "passed_on_retry"
    """It had been put off, and came again."""
    PASSED_KNOWN = "passed_known"
    """The address, the triplet or the recipient is on one of its lists."""
    UNREAD_TLS = "unread_tls"
    """Let through unread: TLS took the session out of its sight."""
    UNREAD_OTHER = "unread_other"
    """Let through unread: it steps aside at AUTH, and at DATA before an accepted recipient."""
    OUT_OF_SIGHT = "out_of_sight"
    """It would have decided; we can't see on what. Counted once a session, also where it decides on each
    recipient."""
    STALLED = "stalled"
    """It would have held the session up and then closed it."""
    UNKNOWN = "unknown"
    """What would tell was not captured, or the table could not be asked."""


DECISIONS: Final = {
    Greylister.GREYLITE: frozenset(Decision) - {Decision.OUT_OF_SIGHT},
    Greylister.POSTGREY: frozenset(
        {Decision.DEFERRED, Decision.PASSED_ON_RETRY, Decision.PASSED_KNOWN}
        | {Decision.OUT_OF_SIGHT, Decision.UNKNOWN}
    ),
}
"""Those that each can take."""


class Fate(StrEnum):
    """What became of a triplet that was put off in the simulation."""

    RETRIED = "retried"
    """It came again, and passed."""
    NEVER_RETRIED = "never_retried"
    """It did not come again in time, though the real server did not take its mail either."""
    ACCEPTED_MEANWHILE = "accepted_meanwhile"
    """It did not come again, and had no reason to: the real server had taken the mail."""
    REFUSED_MEANWHILE = "refused_meanwhile"
    """It did not come again, and had no reason to: the real server had refused the message for good."""
    RELEASED = "released"
    """Another triplet of its address passed, and greylite let the whole address through."""
    FORGOTTEN = "forgotten"
    """The table was full, and this was the oldest."""
    UNKNOWN = "unknown"
    """It was not seen again, but may have come: its client had sessions that could not be read, or what the
    real server answered was not captured."""


FATES: Final = {
    Greylister.GREYLITE: frozenset(Fate),
    Greylister.POSTGREY: frozenset(Fate) - {Fate.RELEASED},
}
"""Those that each can bring."""

RETRY_DELAY_BUCKETS_SECONDS: Final = (
    1,  # at once: a sender with a second MX in its hand
    10,
    60,  # programs that only pretend to be mail servers
    300,  # postgrey's delay; Postfix's minimal_backoff_time
    400,  # qmail's first retry
    900,  # Exim's default rule; Exchange
    1_800,  # RFC 5321 section 4.5.4.1: "the retry interval SHOULD be at least 30 minutes"
    3_600,
    7_200,
    14_400,  # when servers begin to tell the sender of the delay
    28_800,
    64_800,  # greylite forgets
    86_400,
    172_800,  # postgrey's retry window
)


class RetryDelays:
    """How long triplets took from the first attempt to the one that passed."""

    __slots__ = ("buckets", "sum_seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(RETRY_DELAY_BUCKETS_SECONDS) + 1)
        """Of each bucket alone, not cumulative; the last is for all that took longer."""
        self.sum_seconds = 0.0

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(RETRY_DELAY_BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class Tallies:
    """The counters of all greylisters that are simulated."""

    __slots__ = ("decisions", "fates", "known", "known_forgotten", "pending", "retry_delays")

    def __init__(self, greylisters: Collection[Greylister]) -> None:
        self.decisions = {(name, choice): 0 for name in greylisters for choice in sorted(DECISIONS[name])}
        self.fates = {(name, choice): 0 for name in greylisters for choice in sorted(FATES[name])}
        self.pending = {(name,): 0 for name in greylisters}
        self.known = {(name,): 0 for name in greylisters}
        self.known_forgotten = {(name,): 0 for name in greylisters}
        self.retry_delays = {(name,): RetryDelays() for name in greylisters}
