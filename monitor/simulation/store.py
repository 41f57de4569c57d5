"""The database while it is in use: when it commits, and what happens when the disk does not take it."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from monitor.simulation.state_check import DatabaseErrors
from monitor.simulation.state_file import open_file, open_memory
from monitor.simulation.tables import KnownTable, PendingTable

COMMIT_SECONDS: Final = 10.0
"""What a kill may cost: less than a scrape's interval or two."""
COMMIT_CHANGES: Final = 1_000
"""And what a commit may hold, in questions: under a flood it stays as short as it is on a quiet day."""
WARNING_INTERVAL_SECONDS: Final = 60.0  # as for the records: a disk full all night doesn't fill the log too

_LOG: Final = logging.getLogger(__name__)


class Store:
    """Not for more than one thread. Raises `DatabaseErrors` in use; its user tells `failed` of them."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises SimulationStateError. `path`: None for a table in memory."""
        self._path = path
        self._clock = clock
        self.connection, self.digests = open_memory() if path is None else open_file(path)
        self._tables: list[PendingTable | KnownTable] = []
        self._committed_at = clock()
        self._changes = 0
        self._is_closed = False
        self._warned_at: float | None = None
        self.connection.execute("BEGIN")

    def pending(self, name: str) -> PendingTable:
        table = PendingTable(self.connection, name)
        self._tables.append(table)
        return table

    def known(self, name: str) -> KnownTable:
        table = KnownTable(self.connection, name)
        self._tables.append(table)
        return table

    def changed(self) -> None:
        """A question was answered."""
        self._changes += 1

    def commit_if_due(self) -> None:
        if self._changes >= COMMIT_CHANGES or self._clock() - self._committed_at >= COMMIT_SECONDS:
            self._commit()

    def close(self) -> None:
        """Commits. May be called twice."""
        if not self._is_closed:
            self._commit()
            self.abandon()

    def abandon(self) -> None:
        """Closes without a commit."""
        self._is_closed = True
        with suppress(*DatabaseErrors):
            self.connection.close()

    def failed(self, error: Exception) -> None:
        """Goes back to the last commit: half of a decision is worse than none."""
        with suppress(*DatabaseErrors):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.connection.execute("BEGIN")
        for table in self._tables:
            table.rolled_back()
        self._changes = 0
        self._committed_at = now = self._clock()
        if self._warned_at is None or now - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            _LOG.warning(
                "simulation: cannot write to %s: %s; %s; the triplets of the last seconds are lost",
                self._path or "memory",
                error,
                "free some space" if is_full else "check the file",
            )

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
            self.connection.execute("BEGIN")
        except DatabaseErrors as error:
            self.failed(error)
        else:
            for table in self._tables:
                table.committed()
            self._changes = 0
            self._committed_at = self._clock()
