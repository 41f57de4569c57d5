"""Whether a state is what this program writes: its tables and no others, whole, with values of their kind.

A disk may have damaged the file, and somebody who could write to it may have planted what SQLite would run or
follow: a view or a trigger, a column that is computed, a tree of pages that leads to itself. So the schema is
compared before anything is asked of a table, the pages are walked once before rows are, and each step has a
bound.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import Final

from monitor.simulation.tables import ill_formed, schema

VALUE_BYTES_MAX: Final = 64 * 1024
"""Of a value, a row and a statement. Ours have under 300 bytes; a damaged length may claim gigabytes."""
COLUMNS_MAX: Final = 16  # ours have four
SCHEMA_STEPS_MAX: Final = 20_000
"""Of SQLite's virtual machine, to read the schema: ours takes some 300."""
STATE_BYTES_MAX: Final = 2 * 1024**3
"""Of the file and of its log. Full tables take 500 MB."""
PAGE_BYTES: Final = 4096  # SQLite's default; the file says its own
_STACK_BYTES: Final = 512 * 1024**2
"""SQLite's check calls itself for each page under a page, 200 bytes of stack at a time, and a forged file of
`STATE_BYTES_MAX` is a chain of half a million; with smaller pages it would be of four. What is not used of it
is not there."""

KEY_PROOF: Final = "CREATE TABLE key_proof (proof BLOB NOT NULL)"

_OBJECTS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema"

DatabaseErrors: Final = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises. Its messages quote the file, and are decoded strictly."""


class DamagedError(Exception):
    """What is wrong with the file, in a few words."""


def confine(connection: sqlite3.Connection) -> None:
    """To be called before the file is looked into."""
    connection.text_factory = bytes  # no column of ours is text, and a damaged one need not be UTF-8
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, VALUE_BYTES_MAX)
    connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, COLUMNS_MAX)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def check(connection: sqlite3.Connection) -> None:
    """Raises DamagedError, and `DatabaseErrors`."""
    _check_schema(connection)
    # Not the header's: SQLite's log may have another.
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    if page_bytes != PAGE_BYTES:
        raise DamagedError(f"its pages have {page_bytes} bytes instead of {PAGE_BYTES}")
    _with_room(lambda: _check_pages(connection))
    for table, statement in ill_formed():
        if connection.execute(statement).fetchone() is not None:
            raise DamagedError(f"its table {table} holds what was never written there")


def close_untouched(connection: sqlite3.Connection) -> None:
    """Closes without moving what stands in SQLite's log into the file, as closing otherwise does."""
    connection.interrupt()
    connection.close()


def _check_schema(connection: sqlite3.Connection) -> None:
    """Nothing of a table is read, and no view is opened."""
    connection.set_progress_handler(lambda: 1, SCHEMA_STEPS_MAX)
    try:
        found = sorted(connection.execute(_OBJECTS).fetchall())
    finally:
        connection.set_progress_handler(None, 0)
    if found != _expected():
        raise DamagedError("its tables are not those that this program makes")


def _expected() -> list[tuple[bytes | None, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.text_factory = bytes
        for statement in (*schema(), KEY_PROOF):
            connection.execute(statement)
        return sorted(connection.execute(_OBJECTS).fetchall())
    finally:
        connection.close()


def _check_pages(connection: sqlite3.Connection) -> None:
    """Visits each page once, however the pages lead to each other."""
    problems: Iterable[tuple[bytes]] = connection.execute("PRAGMA quick_check(1)").fetchall()
    for (problem,) in problems:
        if problem != b"ok":
            said = problem.decode("ascii", "replace").splitlines()
            raise DamagedError(said[-1] if said else "its pages are damaged")


def _with_room(work: Callable[[], None]) -> None:
    """Does it in a thread with a large stack. Raises what it raises."""
    errors: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(_STACK_BYTES)
    try:
        thread = threading.Thread(target=do, name="simulation-check")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
