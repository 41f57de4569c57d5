"""Session records as JSON lines, to a file or to standard output.

- One record, one line; one write for each, or for all that are given together. A line is never cut in two:
  where the disk takes only a part of a write, that part is taken back, and its records are lost whole.
- A full disk or a broken one is a lost record and a warning, never an exception; when space returns, writing
  goes on.
- Control characters that JSON would leave as they are come out as \\u escapes: the text of a record is from
  the wire, and people look at it in terminals.
- A new file is readable by its owner only. A file that exists keeps its mode: logrotate, or whoever created
  it, has chosen it.
"""

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from monitor.sessions.record import SessionRecord

STANDARD_OUTPUT: Final = "-"
NEW_FILE_MODE: Final = 0o600  # envelopes are personal data
WARNING_INTERVAL_SECONDS: Final = (
    60.0  # chosen so that a disk that is full all night doesn't fill the log too
)

_LOG: Final = logging.getLogger(__name__)

_UNSAFE: Final = re.compile(
    # In UTF-8, no character's bytes occur inside another's, so bytes can be searched. JSON escapes U+0000 to
    # U+001F itself. What is left: DEL, the C1 controls (a terminal takes U+009B for ESC [), and of Unicode
    # the line and paragraph separators and the bidirectional controls (UAX #9).
    rb"\x7f"
    rb"|\xc2[\x80-\x9f]"
    rb"|\xd8\x9c"  # U+061C
    rb"|\xe2\x80[\x8e\x8f\xa8-\xae]"  # U+200E, U+200F, U+2028 to U+202E
    rb"|\xe2\x81[\xa6-\xa9]"  # U+2066 to U+2069
)
_DELETE: Final = b"\x7f"  # of what is unsafe, all that is ASCII
_LINE_FEED: Final = 10
_encoder: Final = msgspec.json.Encoder()
_line: Final = bytearray()
"""Every record is encoded in here: a buffer that has to grow for each costs half as much again."""


class ReaderGoneError(Exception):
    """Whoever read our standard output, or the pipe that we write to, has closed it."""


def encode(record: SessionRecord) -> bytes:
    """One line of JSON, its line feed included, safe to show in a terminal. For one thread."""
    _encoder.encode_into(record, _line)
    _line.append(_LINE_FEED)
    if _line.isascii() and _DELETE not in _line:
        return bytes(_line)  # as nearly all are; the search below takes twice the time of the rest
    return _UNSAFE.sub(_escape, _line)


def _escape(character: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(character[0].decode())


class RecordsWriter:
    """Appends records to one place. Not for more than one thread, nor two programs on one file."""

    def __init__(self, path: str, open_to_append: Callable[[str], int] | None = None) -> None:
        """`path` names a file, or is `-` for standard output. Raises OSError where it can't be opened.

        `open_to_append` gives a descriptor for a path, or raises OSError: for who may not open it himself.
        """
        self._path = path
        self._open_to_append = open_to_append or _open_to_append
        self._name = "standard output" if path == STANDARD_OUTPUT else path
        self._descriptor = self._open()
        self._unfinished = b""
        self._lost = 0
        self._warned_at: float | None = None

    def write(self, *records: SessionRecord) -> bool:
        """Whether the records were written. Raises ReaderGoneError, and nothing else."""
        try:
            self._put(b"".join(map(encode, records)))
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            self._warn_of_loss(error, len(records))
            return False
        if self._lost:
            self._say_of_return()
        return True

    def reopen(self) -> bool:
        """For logrotate, which has moved the file away: goes on in a new one of the same name. Whether it
        does."""
        if self._path == STANDARD_OUTPUT:
            return False
        try:
            descriptor = self._open()
        except OSError as error:
            _LOG.warning(
                "records: cannot reopen %s: %s; going on in the old file", self._path, error.strerror
            )
            return False
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._unfinished = b""
        return True

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor == -1:
            return
        if self._unfinished:
            with suppress(OSError):
                os.write(self._descriptor, self._unfinished)
        if self._path != STANDARD_OUTPUT:
            os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return 1
        descriptor = self._open_to_append(self._path)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            _LOG.warning("records: everybody on this machine can read %s; chmod o-r it", self._path)
        return descriptor

    def _put(self, lines: bytes) -> None:
        """One write, in all but the worst case. Returns with the lines out, or begun in a pipe, which will
        get the rest before anything else; raises OSError with nothing of them left."""
        if self._unfinished:
            self._unfinished = self._unfinished[os.write(self._descriptor, self._unfinished) :]
            if self._unfinished:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._descriptor, lines[written:] if written else lines)
        except OSError:
            if written and not self._take_back(written):
                self._unfinished = lines[written:]
            else:
                raise

    def _take_back(self, written: int) -> bool:
        """Cuts what was begun off the file. False for a pipe or a terminal, which can't be cut."""
        try:
            begin = os.lseek(self._descriptor, -written, os.SEEK_CUR)
            os.ftruncate(self._descriptor, begin)
        except OSError:
            return False
        return True

    def _warn_of_loss(self, error: OSError, lost: int) -> None:
        self._lost += lost
        now = time.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the file"
            _LOG.warning(
                "records: cannot write to %s: %s; %s; lost so far: %d",
                self._name,
                error.strerror,
                remedy,
                self._lost,
            )

    def _say_of_return(self) -> None:
        _LOG.warning("records: writing to %s again; lost in between: %d", self._name, self._lost)
        self._lost = 0


def _open_to_append(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, NEW_FILE_MODE)
