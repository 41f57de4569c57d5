"""What the simulated greylisters have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Final

from monitor.sessions.record import SessionRecord
from monitor.simulation.attempts import SECOND_US, AttemptOutcome, Question
from monitor.simulation.store import Store
from monitor.simulation.tables import KnownTable, PendingTable, Waiting
from monitor.simulation.tallies import Decision, Fate, Greylister, Tallies

LATE_SECONDS: Final = 3_600
"""How long a row is kept beyond its time, for records that come late: a record comes when its session ends,
and the question may have been asked at its beginning. Chosen as longer than servers leave a session open;
whether a row still holds is judged by the question's own time, so what is kept longer changes no decision."""

_FATES: Final = {
    AttemptOutcome.PUT_OFF: Fate.NEVER_RETRIED,
    AttemptOutcome.REFUSED: Fate.REFUSED_MEANWHILE,
    AttemptOutcome.UNKNOWN: Fate.UNKNOWN,
    AttemptOutcome.ACCEPTED: Fate.ACCEPTED_MEANWHILE,
    AttemptOutcome.CAME_AGAIN: Fate.RETRIED,
}


class Rules(ABC):
    """One greylister: what it is asked in a session, what it decides, and when it forgets."""

    name: ClassVar[Greylister]
    pending_seconds: ClassVar[int]
    """How long a triplet may take to come again."""
    known_seconds: ClassVar[int]
    """How long somebody known may stay away."""

    def __init__(
        self, store: Store, tallies: Tallies, limit: int, pending: str, known: tuple[str, ...]
    ) -> None:
        self._store = store
        self._digest = store.digests
        self._tallies = tallies
        self._limit = limit
        self._pending: PendingTable = store.pending(pending)
        self._known: tuple[KnownTable, ...] = tuple(map(store.known, known))
        self.measure()

    @abstractmethod
    def questions(self, record: SessionRecord, connected_us: int) -> Iterable[Question]:
        """What it is asked in this session; touches nothing."""

    @abstractmethod
    def decide(self, question: Question) -> Decision | None:
        """Looks it up and remembers it. None where there was nothing to decide. Raises sqlite3.Error."""

    def expire(self, now_us: int) -> None:
        """Takes away a step's worth of what is too old, and of what is too much. Raises sqlite3.Error."""
        late_us = now_us - LATE_SECONDS * SECOND_US
        for outcome in self._pending.take_older(late_us - self.pending_seconds * SECOND_US):
            self._ended(_FATES[outcome])
        for table in self._known:
            table.take_older(late_us - self.known_seconds * SECOND_US)
        self._shrink()

    def measure(self) -> None:
        """Takes over how many rows there are."""
        self._tallies.pending[self.name,] = self._pending.rows
        self._tallies.known[self.name,] = self._known[0].rows

    def _put_off(self, triplet: bytes, owner: bytes, waiting: Waiting) -> None:
        self._pending.add(triplet, owner, waiting)
        self._shrink()

    def _came_again(self, triplet: bytes, waiting: Waiting, at_us: int) -> None:
        self._pending.remove(triplet)
        self._ended(Fate.RETRIED)
        self._observe_delay(waiting, at_us)

    def _observe_delay(self, waiting: Waiting, at_us: int) -> None:
        # Where the real server took the first mail, or may have, what comes now is another one: that it took
        # hours says nothing about retries.
        if waiting.outcome is AttemptOutcome.PUT_OFF:
            self._tallies.retry_delays[self.name,].observe(max(0, at_us - waiting.first_us) / SECOND_US)

    def _came_too_late(self, triplet: bytes, waiting: Waiting) -> None:
        self._pending.remove(triplet)
        self._ended(_FATES[waiting.outcome])

    def _ended(self, fate: Fate, triplets: int = 1) -> None:
        self._tallies.fates[self.name, fate] += triplets

    def _shrink(self) -> None:
        """A table opened with a smaller limit than it was filled with gets there in steps."""
        if self._pending.rows > self._limit:
            taken = self._pending.take_oldest(self._pending.rows - self._limit)
            self._ended(Fate.FORGOTTEN, len(taken))
        for table in self._known:
            if table.rows > self._limit:
                self._tallies.known_forgotten[self.name,] += table.take_oldest(table.rows - self._limit)
