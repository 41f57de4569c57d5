"""How files are opened that may lie anywhere, and be anything."""

import os
import stat
from typing import Final

NEW_FILE_MODE: Final = 0o600  # envelopes are personal data


def open_to_read(path: str) -> int:
    """A descriptor. Waits for nobody: a named pipe may have no writer. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def open_to_append(path: str) -> int:
    """A descriptor; a file that is not there is made, for its owner alone.

    Waits for nobody: a named pipe that is open both ways needs no reader, and keeps what it has. Raises
    OSError.
    """
    way = os.O_RDWR if os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode) else os.O_WRONLY
    return os.open(path, way | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, NEW_FILE_MODE)
