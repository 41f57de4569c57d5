"""The rows: triplets that wait to come again, and who is known.

Keys are digests, times are microseconds since the epoch. Nothing here commits, and no step touches more than
a bounded number of rows.
"""

import sqlite3
from collections.abc import Iterable
from string import Template
from typing import Final, NamedTuple

from monitor.simulation.attempts import AttemptOutcome

PENDING_TABLES: Final = ("greylite_pending", "postgrey_pending")
KNOWN_TABLES: Final = ("greylite_verified", "postgrey_passed", "postgrey_clients")

STEP_ROWS: Final = 1_000
"""What one step of expiry takes away: about 10 ms. Once a second that is more than new triplets come."""
OWNER_ROWS: Final = 10_000
"""What is changed at once of one client's triplets; chosen because it takes less than a tenth of a second."""

_PENDING: Final = (
    "CREATE TABLE $table (triplet BLOB PRIMARY KEY, owner BLOB NOT NULL, first_us INTEGER NOT NULL,"
    " outcome INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX ${table}_by_age ON $table (first_us)",
    "CREATE INDEX ${table}_by_owner ON $table (owner, outcome)",
)
_KNOWN: Final = (
    "CREATE TABLE $table (key BLOB PRIMARY KEY, since_us INTEGER NOT NULL, last_us INTEGER NOT NULL,"
    " times INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX ${table}_by_age ON $table (last_us)",
)


DIGEST_BYTES: Final = 16  # 128 bits: no two of a million triplets share one
_TIME_MAX_US: Final = (
    253_402_300_800_000_000  # the end of the year 9999, and of what a record's times can say
)
_TIMES_MAX: Final = 2**53


def _is_no_digest(column: str) -> str:
    return f"typeof({column}) <> 'blob' OR length({column}) <> {DIGEST_BYTES}"


def _is_no_number(column: str, least: int, most: int) -> str:
    return f"typeof({column}) <> 'integer' OR {column} NOT BETWEEN {least} AND {most}"


def _is_no_time(column: str) -> str:
    return _is_no_number(column, -_TIME_MAX_US, _TIME_MAX_US)


_ILL_PENDING: Final = (
    _is_no_digest("triplet"),
    _is_no_digest("owner"),
    _is_no_time("first_us"),
    _is_no_number("outcome", min(AttemptOutcome), max(AttemptOutcome)),
)
_ILL_KNOWN: Final = (
    _is_no_digest("key"),
    _is_no_time("since_us"),
    _is_no_time("last_us"),
    _is_no_number("times", 0, _TIMES_MAX),
)
_ILL_FORMED_ROW: Final = "a row holds what was never written there"


def schema() -> Iterable[str]:
    """The statements that make all tables."""
    for tables, statements in ((PENDING_TABLES, _PENDING), (KNOWN_TABLES, _KNOWN)):
        for table in tables:
            yield from (_sql(statement, table) for statement in statements)


def ill_formed() -> Iterable[tuple[str, str]]:
    """Each table, and the statement that finds a row in it that nobody can have written here: SQLite itself
    takes any value in any column."""
    for tables, conditions in ((PENDING_TABLES, _ILL_PENDING), (KNOWN_TABLES, _ILL_KNOWN)):
        for table in tables:
            words = ("SELECT 1 FROM $table WHERE", " OR ".join(conditions), "LIMIT 1")
            yield table, _sql(" ".join(words), table)


class Waiting(NamedTuple):
    """A triplet that was put off."""

    first_us: int
    outcome: AttemptOutcome


class Acquaintance(NamedTuple):
    """Whoever passes without being asked."""

    since_us: int
    last_us: int
    times: int


class _Table:
    """Keeps count of its rows, because SQLite would have to walk through them."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        (self.rows,) = connection.execute(_sql("SELECT count(*) FROM $table", name)).fetchone()
        self._committed_rows = self.rows

    def committed(self) -> None:
        """What was done is there to stay."""
        self._committed_rows = self.rows

    def rolled_back(self) -> None:
        """What was done since the last commit is undone."""
        self.rows = self._committed_rows


class PendingTable(_Table):
    """Triplets that wait to come again. An owner is a client, or its network."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        super().__init__(connection, name)
        self._find = _sql("SELECT first_us, outcome FROM $table WHERE triplet = ?", name)
        self._add = _sql("INSERT INTO $table VALUES (?, ?, ?, ?)", name)
        self._change = _sql("UPDATE $table SET first_us = ?, outcome = ? WHERE triplet = ?", name)
        self._remove = _sql("DELETE FROM $table WHERE triplet = ?", name)
        self._of_owner = _sql("SELECT triplet FROM $table WHERE owner = ? LIMIT ?", name)
        self._settled_of_owner = _sql(
            "SELECT triplet FROM $table WHERE owner = ? AND outcome < ? LIMIT ?", name
        )
        self._doubt = _sql("UPDATE $table SET outcome = ? WHERE triplet = ?", name)
        self._older = _sql(
            "SELECT triplet, outcome FROM $table WHERE first_us < ? ORDER BY first_us LIMIT ?", name
        )
        self._first = _sql("SELECT triplet, outcome FROM $table ORDER BY first_us LIMIT ?", name)

    def find(self, triplet: bytes) -> Waiting | None:
        row = self._connection.execute(self._find, (triplet,)).fetchone()
        return None if row is None else Waiting(_numbers(row[:1])[0], _outcome(row[1]))

    def add(self, triplet: bytes, owner: bytes, waiting: Waiting) -> None:
        self._connection.execute(self._add, (triplet, owner, *waiting))
        self.rows += 1

    def change(self, triplet: bytes, waiting: Waiting) -> None:
        self._connection.execute(self._change, (*waiting, triplet))

    def remove(self, triplet: bytes) -> None:
        self.rows -= self._connection.execute(self._remove, (triplet,)).rowcount

    def remove_of(self, owner: bytes) -> int:
        """How many it were."""
        triplets = self._connection.execute(self._of_owner, (owner, OWNER_ROWS)).fetchall()
        self._remove_all(triplets)
        return len(triplets)

    def doubt(self, owner: bytes) -> None:
        """Any of the owner's triplets may have come where nobody could see it."""
        settled = self._connection.execute(
            self._settled_of_owner, (owner, AttemptOutcome.UNKNOWN, OWNER_ROWS)
        ).fetchall()
        if settled:
            self._connection.executemany(
                self._doubt, [(AttemptOutcome.UNKNOWN, triplet) for (triplet,) in settled]
            )

    def take_older(self, before_us: int) -> list[AttemptOutcome]:
        """Takes away a step's worth of what was first seen before then."""
        return self._take(self._connection.execute(self._older, (before_us, STEP_ROWS)).fetchall())

    def take_oldest(self, rows: int) -> list[AttemptOutcome]:
        return self._take(self._connection.execute(self._first, (min(rows, STEP_ROWS),)).fetchall())

    def _take(self, found: list[tuple[bytes, int]]) -> list[AttemptOutcome]:
        self._remove_all([(triplet,) for triplet, _ in found])
        return [_outcome(outcome) for _, outcome in found]

    def _remove_all(self, triplets: list[tuple[bytes]]) -> None:
        if triplets:
            self.rows -= self._connection.executemany(self._remove, triplets).rowcount


class KnownTable(_Table):
    """Who passes without being asked, until it has not come for too long."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        super().__init__(connection, name)
        self._find = _sql("SELECT since_us, last_us, times FROM $table WHERE key = ?", name)
        self._add = _sql("INSERT INTO $table VALUES (?, ?, ?, ?)", name)
        self._change = _sql("UPDATE $table SET since_us = ?, last_us = ?, times = ? WHERE key = ?", name)
        older = "DELETE FROM $table WHERE key IN (SELECT key FROM $table "
        self._older = _sql(f"{older}WHERE last_us < ? ORDER BY last_us LIMIT ?)", name)
        self._first = _sql(f"{older}ORDER BY last_us LIMIT ?)", name)

    def find(self, key: bytes) -> Acquaintance | None:
        row = self._connection.execute(self._find, (key,)).fetchone()
        return None if row is None else Acquaintance(*_numbers(row))

    def put(self, key: bytes, acquaintance: Acquaintance) -> None:
        changed = self._connection.execute(self._change, (*acquaintance, key)).rowcount
        if not changed:
            self._connection.execute(self._add, (key, *acquaintance))
            self.rows += 1

    def take_older(self, before_us: int) -> int:
        """Takes away a step's worth of what was last seen before then. How many rows it were."""
        return self._take(self._older, (before_us, STEP_ROWS))

    def take_oldest(self, rows: int) -> int:
        return self._take(self._first, (min(rows, STEP_ROWS),))

    def _take(self, statement: str, parameters: tuple[int, ...]) -> int:
        taken = self._connection.execute(statement, parameters).rowcount
        self.rows -= taken
        return taken


def _numbers(values: tuple[int, ...]) -> tuple[int, ...]:
    """They were, when the state was opened; a disk may have damaged it since. Raises sqlite3.DataError."""
    if not all(type(value) is int for value in values):
        raise sqlite3.DataError(_ILL_FORMED_ROW)
    return values


def _outcome(value: int) -> AttemptOutcome:
    """Raises sqlite3.DataError."""
    try:
        return AttemptOutcome(value)
    except ValueError as error:
        raise sqlite3.DataError(_ILL_FORMED_ROW) from error


def _sql(statement: str, table: str) -> str:
    """The names are the constants above: nothing of the traffic is ever part of a statement."""
    return Template(statement).substitute(table=table)
