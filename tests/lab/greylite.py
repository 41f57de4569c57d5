"""greylite 2.3 (https://github.com/OlliL/greylite), where the environment's GREYLITE names the program: what
it is run with, and what it leaves behind of a session.

Debian has no package of it, and nothing of it is in this repository.
"""

import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

VARIABLE: Final = "GREYLITE"
PROGRAM: Final = os.environ.get(VARIABLE, "")

# Longer than it waits for either side (40 s, a constant of the program), and a session that it holds up.
_ENDED_WITHIN_SECONDS: Final = 60.0

# The names are those that its queries use.
_TABLES: Final = """
CREATE TABLE pending (ip, envsender, envrecipient, tsfirstdelivery, tslastdelivery, attempts);
CREATE TABLE verified (ip, ts);
"""
# A shell's script: its database is one for each client's address, so that no session knows of another.
_RUN: Final = 'DBFILE="$0/$TCPREMOTEIP.db" GREYLIST= LOGTHRESHOLD=7 exec "$@"'

_CLIENT_LINE: Final = re.compile(r"^greylite: Got message from client: '(.*)$", re.MULTILINE)
_TOO_LONG: Final = "Maximum command length"
# What it says when a session ends while it still reads lines. Once it has stepped aside it says none of them.
_ENDED_READING: Final = (
    "dropped the connection",
    "Read timeout reached",
    "closed connection prematurely",
    "Error in read()",
    "QUIT command",
    "Service unavailable",
    _TOO_LONG,
)
_ENDED: Final = "Child exited"


def missing() -> str | None:
    """Why it can't be run, or None."""
    if not PROGRAM:
        return f"the environment's {VARIABLE} names no greylite 2.3; its author's README says how to get one"
    return None if shutil.which(PROGRAM) else f"{VARIABLE}={PROGRAM} is no program"


def wrapped(databases: Path, command: list[str | Path]) -> list[str | Path]:
    """The command, with greylite before it."""
    return ["sh", "-c", _RUN, databases, Path(PROGRAM).resolve(), *command]


def is_verified(file: Path, client_ip: str) -> bool:
    """It passes this address on unread from now on."""
    with closing(sqlite3.connect(file)) as database:
        return bool(database.execute("SELECT 1 FROM verified WHERE ip = ?", (client_ip,)).fetchall())


def make_database(databases: Path, client_ip: str) -> Path:
    """An empty one for the session of this client."""
    file = databases / f"{client_ip}.db"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(_TABLES)
    return file


@dataclass(frozen=True, slots=True)
class Left:
    """What greylite left behind of one session."""

    pending: tuple[tuple[str, str], ...]
    """Sender and recipient that it has decided on."""
    lines_read: tuple[str, ...]
    """The client's lines that it has read, in its debug log."""
    stepped_aside: bool
    """The session's end found it passing on bytes, and reading no lines."""

    cut_off: bool
    """It closed on an argument that is too long for it."""

    @classmethod
    def of(cls, log: Path, database: Path) -> Self:
        """Waits until the session's process has ended; raises TimeoutError."""
        deadline = time.monotonic() + _ENDED_WITHIN_SECONDS
        while _ENDED not in (said := log.read_text(encoding="latin-1") if log.exists() else ""):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{log.name}: greylite still runs: {said[-500:]}")
            time.sleep(0.05)
        with closing(sqlite3.connect(database)) as opened:
            rows = opened.execute("SELECT envsender, envrecipient FROM pending").fetchall()
        return cls(
            tuple((str(sender), str(recipient)) for sender, recipient in rows),
            tuple(line.rstrip("\r'") for line in _CLIENT_LINE.findall(said)),
            not rows and not any(phrase in said for phrase in _ENDED_READING),
            _TOO_LONG in said,
        )
