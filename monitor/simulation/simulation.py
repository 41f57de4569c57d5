"""The front: finished session records in, counters out."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from monitor.sessions.record import Direction, SessionRecord, epoch_us
from monitor.simulation.attempts import SECOND_US, Question
from monitor.simulation.greylite import Greylite
from monitor.simulation.postgrey import DELAY_SECONDS, Postgrey
from monitor.simulation.rules import Rules
from monitor.simulation.state_check import DatabaseErrors
from monitor.simulation.state_file import SimulationStateError, unusable
from monitor.simulation.store import Store
from monitor.simulation.tallies import Decision, Fate, Greylister, RetryDelays, Tallies

LIMIT_ROWS: Final = 1_000_000
"""Of each table. Chosen because it is many days of triplets for most sites, and 100 MB."""


class Simulation:
    """Not for more than one thread; only the counters may be read from others.

    Traffic never raises: where the disk fails, the counters go on, and `unknown` counts what could not be
    looked up.
    """

    def __init__(
        self,
        greylisters: Collection[str],
        path: Path | None = None,
        *,
        postgrey_delay_seconds: int = DELAY_SECONDS,
        limit_rows: int = LIMIT_ROWS,
    ) -> None:
        """Raises SimulationStateError, and ValueError for a greylister that it doesn't know.

        Args:
            greylisters: names out of `Greylister`.
            path: where the tables live; None for memory, which ends with the program.
            postgrey_delay_seconds: its --delay.
            limit_rows: the most rows that each table may have.
        """
        names = tuple(dict.fromkeys(map(Greylister, greylisters)))
        self._tallies = Tallies(names)
        self._store = Store(path)
        self._rules: list[Rules] = []
        try:
            if Greylister.GREYLITE in names:
                self._rules.append(Greylite(self._store, self._tallies, limit_rows))
            if Greylister.POSTGREY in names:
                self._rules.append(Postgrey(self._store, self._tallies, limit_rows, postgrey_delay_seconds))
        except DatabaseErrors as error:  # a damaged file shows when its rows are counted
            self._store.abandon()
            raise SimulationStateError(unusable(error, path)) from error
        self._now_us = 0
        self._expired_us = 0

    @property
    def decisions(self) -> Mapping[tuple[Greylister, Decision], int]:
        """By greylister and decision: all that each can take are there from the start."""
        return self._tallies.decisions

    @property
    def fates(self) -> Mapping[tuple[Greylister, Fate], int]:
        """By greylister and fate; each triplet that was put off is counted once, when it stops waiting."""
        return self._tallies.fates

    @property
    def pending(self) -> Mapping[tuple[Greylister], int]:
        """Triplets that wait now."""
        return self._tallies.pending

    @property
    def known(self) -> Mapping[tuple[Greylister], int]:
        """Known now: to greylite, addresses; to postgrey, triplets that passed."""
        return self._tallies.known

    @property
    def known_forgotten(self) -> Mapping[tuple[Greylister], int]:
        """Known ones that were forgotten before their time, because a table was full."""
        return self._tallies.known_forgotten

    @property
    def retry_delays(self) -> Mapping[tuple[Greylister], RetryDelays]:
        """From the first attempt to the one that passed, where the real server had put off the first."""
        return self._tallies.retry_delays

    def record(self, record: SessionRecord) -> None:
        """Takes a finished session."""
        if record.direction is Direction.OUTBOUND or not record.greylisters:
            return
        connected_us = epoch_us(record.start)
        for rules in self._rules:
            for question in rules.questions(record, connected_us):
                decision = self._decide(rules, question)
                if decision is not None:
                    self._tallies.decisions[rules.name, decision] += 1
        self._now_us = max(self._now_us, connected_us + round(record.duration_seconds * SECOND_US))
        self._pass_time()

    def tick(self, now_ns: int) -> None:
        """Lets time pass where no record comes. It may step back, when somebody sets the clock."""
        self._now_us = now_ns // 1_000
        self._pass_time()

    def close(self) -> None:
        """Commits. May be called twice."""
        self._store.close()

    def _decide(self, rules: Rules, question: Question) -> Decision | None:
        try:
            decision = rules.decide(question)
        except DatabaseErrors as error:
            self._store.failed(error)
            return Decision.UNKNOWN
        self._store.changed()
        return decision

    def _pass_time(self) -> None:
        if abs(self._now_us - self._expired_us) >= SECOND_US:
            self._expired_us = self._now_us
            for rules in self._rules:
                try:
                    rules.expire(self._now_us)
                except DatabaseErrors as error:
                    self._store.failed(error)
        self._store.commit_if_due()
        for rules in self._rules:
            rules.measure()  # last, because a commit that fails takes rows back
