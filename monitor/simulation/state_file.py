"""The file that the table lives in, its key, and what keeps strangers out of both.

    PATH       SQLite, 0600: digests and times
    PATH.key   32 random bytes, 0600: without them no digest can be tried out against an address
    PATH-wal   SQLite's log, the mode of PATH; gone after an orderly end, unless only root may write into
               the folder: then it stays, and is read at the next start

All are opened at the start, and nothing by its name after that.

The key is a file of its own so that the state can be copied or handed on without it.
"""

import errno
import os
import secrets
import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import Final

from monitor.simulation.state_check import (
    KEY_PROOF,
    PAGE_BYTES,
    STATE_BYTES_MAX,
    DamagedError,
    DatabaseErrors,
    check,
    close_untouched,
    confine,
)
from monitor.simulation.tables import DIGEST_BYTES, schema

BESIDE: Final = (".key", "-journal", "-wal", "-shm")
"""How the names of the files beside it end: ours, and SQLite's: https://www.sqlite.org/tempfiles.html."""
STATE_VERSION: Final = 1
"""In SQLite's `user_version`. Raise it when the tables change."""
APPLICATION_ID: Final = 0x534D5448
"""In SQLite's `application_id`: "SMTH". Another program's database has another, or none."""
KEY_BYTES: Final = 32  # as long as BLAKE2b's security asks; it takes up to 64
FILE_MODE: Final = 0o600
CACHE_KIB: Final = 16_384  # chosen so that the inner pages of full tables stay in memory

# https://www.sqlite.org/fileformat.html section 1.3
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_USER_VERSION_AT: Final = 60
_APPLICATION_ID_AT: Final = 68
_PRIMARY_CODE: Final = 0xFF
"""Of an extended result code: https://www.sqlite.org/rescode.html"""
_DAMAGE: Final = (
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG),
    *(sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH),
)
"""Result codes of a file that SQLite can't make sense of, or not within our bounds."""


class SimulationStateError(Exception):
    """One line: what, where, what to do."""


class Digests:
    """Keyed digests: whoever has the file, but not the key, can't try addresses out."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        self._keyed = blake2b(key=key, digest_size=DIGEST_BYTES)

    def __call__(self, *parts: bytes) -> bytes:
        """The parts hold no line feed: they come from one line each."""
        digest = self._keyed.copy()
        digest.update(b"\n".join(parts))
        return digest.digest()


def open_memory() -> tuple[sqlite3.Connection, Digests]:
    """A table that ends with the program, and a key that nobody ever sees."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    digests = Digests(secrets.token_bytes(KEY_BYTES))
    connection.execute("BEGIN")
    _make_tables(connection, digests)
    connection.execute("COMMIT")
    return connection, digests


def open_file(path: Path) -> tuple[sqlite3.Connection, Digests]:
    """Makes the file and its key where they are not there yet. Raises SimulationStateError.

    Nothing is written to a file that isn't ours or is damaged, nor to one that another program has open.
    """
    path = path.absolute()
    try:
        is_new = _make_or_check(path)
        digests = Digests(_key(path.with_name(path.name + ".key"), is_new=is_new))
    except OSError as error:
        raise SimulationStateError(
            f"cannot use {error.filename or path} for the simulation: {error.strerror};"
            " name another file with --simulate-state"
        ) from error
    try:
        # One thread at a time: state_check takes another for a while.
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            _open(connection, digests, path, is_new=is_new)
        except BaseException:
            close_untouched(connection)
            raise
    except DamagedError as error:
        raise SimulationStateError(_damaged(path, str(error))) from error
    except DatabaseErrors as error:
        raise SimulationStateError(unusable(error, path)) from error
    return connection, digests


def missing(path: Path) -> list[Path]:
    """What `open_file` would make; empty where the state is there. Makes nothing. Raises SimulationStateError
    for what would keep it from that, and OSError."""
    path = path.absolute()
    key = path.with_name(path.name + ".key")
    if os.path.lexists(path):
        if path.stat().st_size:
            return []
        with path.open("r+b"):  # made by a program that was killed before it went on
            pass
    if os.path.lexists(key):
        _key(key, is_new=False)
        return [path]
    return [path, key]


def _make_or_check(path: Path) -> bool:
    """Whether the file is new: just made, or made by a program that was killed before it went on."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        pass
    else:
        return True
    # Read as plain bytes: SQLite would already tidy up after whoever left a database here.
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return True
    for part in (path, path.with_name(path.name + "-wal")):
        if part.exists() and part.stat().st_size > STATE_BYTES_MAX:
            raise SimulationStateError(_damaged(path, f"{part} is larger than a state can be"))
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise SimulationStateError(
            f"{path} is no state of a simulation; name another file with --simulate-state"
        )
    if _number(header, _APPLICATION_ID_AT) != APPLICATION_ID:
        raise SimulationStateError(
            f"{path} is another program's database; name another file with --simulate-state"
        )
    version = _number(header, _USER_VERSION_AT)
    if version != STATE_VERSION:
        raise SimulationStateError(
            f"{path} has version {version} of the simulation's state, and this program knows"
            f" version {STATE_VERSION}; move it away, or name another file with --simulate-state"
        )
    return False


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "big")


def _key(path: Path, *, is_new: bool) -> bytes:
    """A new state takes a key that is already there: somebody may have removed the state to begin anew."""
    try:
        if is_new:
            return _make_key(path)
    except FileExistsError:
        pass
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        raise SimulationStateError(
            f"{path} is missing, and nothing in the simulation's state can be found without it;"
            " bring the key back, or move the state away to begin anew"
        ) from None
    if len(key) != KEY_BYTES:
        raise SimulationStateError(
            f"{path} has {f'{len(key)} bytes instead of' if len(key) < KEY_BYTES else 'more bytes than'}"
            f" {KEY_BYTES};"
            " bring the right key back, or move it and the state away to begin anew"
        )
    return key


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        if os.write(descriptor, key) < KEY_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)  # a table whose key a power failure took is of no use
    except OSError as error:
        path.unlink()  # half a key would be taken for a wrong one at the next start
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
    return key


def _open(connection: sqlite3.Connection, digests: Digests, path: Path, *, is_new: bool) -> None:
    confine(connection)
    if is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    # The lock is held from here to the end, and so SQLite needs no shared memory beside the file.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    if is_new:
        # Before WAL is on: so the version is in the file's own header from its first byte on.
        _make_tables(connection, digests)
    else:
        check(connection)
    proofs = connection.execute("SELECT proof FROM key_proof LIMIT 2").fetchall()
    connection.execute("COMMIT")
    if proofs != [(_proof(digests),)]:
        raise SimulationStateError(
            f"{path}.key is not the key of {path}; bring the right key back, or move both away to begin anew"
        )
    # WAL, and not a synchronous commit each time: a kill loses nothing that was committed, a power failure
    # the last commits at most, and neither ever corrupts. It saves two waits for the disk a commit, during
    # which nobody would read packets.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    # What it would put beside it for a moment: after its start the program may write no file by name.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA journal_size_limit = {CACHE_KIB * 1024}")


def _make_tables(connection: sqlite3.Connection, digests: Digests) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {STATE_VERSION}")
    for statement in schema():
        connection.execute(statement)
    connection.execute(KEY_PROOF)
    connection.execute("INSERT INTO key_proof VALUES (?)", (_proof(digests),))


def _proof(digests: Digests) -> bytes:
    """Tells whether a key is the one that the digests were made with."""
    return digests(b"smtp-horizon", b"the key of this state")


def unusable(error: Exception, path: Path | None) -> str:
    """What a SimulationStateError says of one of `DatabaseErrors`."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is in use by another program; end that, or name another file with --simulate-state"
    if code == sqlite3.SQLITE_FULL:
        return f"cannot use {path} for the simulation: {error}; free some space"
    if isinstance(error, UnicodeDecodeError):
        return _damaged(path, "its schema is not UTF-8")
    if code in _DAMAGE:
        return _damaged(path, str(error))
    return f"cannot use {path} for the simulation: {error}; mend that, or move it away to begin anew"


def _damaged(path: Path | None, what: str) -> str:
    return (
        f"{path} is damaged ({what}); move it away to begin anew, or name another file with --simulate-state"
    )
