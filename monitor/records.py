"""Session records as JSON lines, to a file or to standard output.

- One record, one line; one write for each, or for all that are given together. A line is never cut in two:
  where the disk takes only a part of a write, that part is taken back, and its records are lost whole.
- A full disk or a broken one is a lost record, never an exception; when space returns, writing goes on. There
  is a warning when that begins and one when it is over.
- A file that was deleted is made anew before the next record, and one that was moved away soon after.
- Who must not be kept waiting does not wait for a pipe: what it has no room for waits here, up to a bound,
  and what goes over the bound is a lost record.
- Control characters that JSON would leave as they are come out as \\u escapes: the text of a record is from
  the wire, and people look at it in terminals.
- A new file is readable by its owner only. A file that exists keeps its mode: logrotate, or whoever created
  it, has chosen it.
"""

import errno
import logging
import os
import re
import select
import stat
import time
from collections.abc import Callable
from typing import Final

import msgspec

from monitor.files import open_to_append, open_to_read
from monitor.sessions.record import SessionRecord

STANDARD_OUTPUT: Final = "-"
WAITING_BYTES: Final = 16 << 20
"""What may wait for the reader of a pipe: chosen as much as waits for us in the probe's buffer: some
10,000 records."""
LAST_WAIT_SECONDS: Final = 2.0
"""How long that reader may take in the end: chosen as long as reading what was captured last may take."""
LOOK_SECONDS: Final = 1.0
"""How often it is looked whether the file is still there: chosen as far longer than logrotate needs to put a
new one in its place."""
SILENCE_SECONDS: Final = 60.0
"""How long after one loss was told of the next is not: chosen so that a disk which is full now and then, or a
reader who is slow, doesn't fill the log."""

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
_STANDARD_OUTPUT: Final = 1
_DELETE: Final = b"\x7f"  # of what is unsafe, all that is ASCII
_LINE_FEED: Final = 10
_encoder: Final = msgspec.json.Encoder()
_line: Final = bytearray()
"""Every record is encoded in here: a buffer that has to grow for each costs half as much again."""


_REMEDIES: Final = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EAGAIN: "read faster, or write to a file",
}


class ReaderGoneError(Exception):
    """Whoever read what we write has closed his end."""


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
    """Appends records to one place. For one thread.

    Several programs may append to one file: the kernel lets in one write after the other. Only when the disk
    is full, one may find half a line of another before its own.
    """

    def __init__(
        self,
        path: str,
        to_append: Callable[[str], int] = open_to_append,
        to_read: Callable[[str], int] = open_to_read,
        *,
        may_wait: bool = True,
    ) -> None:
        """`path` names a file, or is `-` for standard output. Raises OSError where it can't be opened.

        `to_append` and `to_read` give a descriptor for a path, or raise OSError: for who may not open it
        himself.
        `may_wait`: False to lose records sooner than wait for the reader of a pipe; then `follow` must be
        called again and again.
        """
        self._path = path
        self._open_to_append, self._open_to_read = to_append, to_read
        self._may_wait = may_wait
        self._name = "standard output" if path == STANDARD_OUTPUT else path
        self._descriptor = -1
        self._is_named_file = self._is_pipe = False
        self._is_line_cut = False
        """Whether the file ends in half a line."""
        self._is_away = self._is_away_told = False
        self._poll = select.poll()
        self._open()
        self._waiting = bytearray()
        """Lines that a pipe has not taken yet. The first may have begun."""
        self._look_at = 0.0
        self._lost = 0
        self._is_loss_told = False
        self._told_at = -SILENCE_SECONDS

    def write(self, *records: SessionRecord) -> bool:
        """Whether the records were written, or wait for a pipe to take them. Raises ReaderGoneError, and
        nothing else."""
        try:
            self._put(b"".join(map(encode, records)))
        except BrokenPipeError as error:
            self._forget_what_waits(but=len(records))
            raise ReaderGoneError from error
        except OSError as error:
            self._count_loss(error, len(records))
            return False
        if self._lost:
            self._tell_of_return()
        return True

    def follow(self) -> None:
        """Gives a pipe what waits for it, and looks whether the file is still where it was. Raises
        ReaderGoneError."""
        if self._waiting:
            try:
                self._give_what_waits()
            except BrokenPipeError as error:
                self._forget_what_waits()
                raise ReaderGoneError from error
        elif self._is_named_file and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            was_away, self._is_away = self._is_away, self._was_moved()
            # At the first look it may be that somebody who rotates it is about to make the new one.
            if was_away and self._is_away:
                self._leave_moved_file()

    def reopen(self) -> bool:
        """For logrotate, which has moved the file away: goes on in a new one of the same name. Whether it
        does."""
        if self._path == STANDARD_OUTPUT:
            return False
        try:
            self._open()
        except OSError as error:
            _LOG.warning(
                "records: cannot reopen %s: %s; going on in the old file", self._path, error.strerror
            )
            return False
        return True

    def close(self) -> bool:
        """Whether all that was written is out. May be called twice."""
        if self._descriptor == -1:
            return True
        deadline = time.monotonic() + LAST_WAIT_SECONDS
        try:
            while self._waiting and (left_seconds := deadline - time.monotonic()) > 0:
                self._give_what_waits(left_seconds)
        except BrokenPipeError as error:
            _LOG.warning("records: cannot write to %s: %s", self._name, error.strerror)
        is_all_out = not self._waiting
        self._forget_what_waits()
        if self._lost:
            _LOG.warning("records: not written to %s of late: %d", self._name, self._lost)
        if self._descriptor != _STANDARD_OUTPUT:
            os.close(self._descriptor)
        self._descriptor = -1
        return is_all_out

    def _open(self) -> None:
        """Anew, if it was open. Raises OSError; then all is as before."""
        descriptor = _STANDARD_OUTPUT if self._path == STANDARD_OUTPUT else self._open_to_append(self._path)
        if not self._may_wait and os.isatty(descriptor):
            descriptor = _without_waiting(descriptor)
        there = os.fstat(descriptor)
        mode = there.st_mode
        if self._descriptor != -1:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._is_away = self._is_away_told = False
        # /dev/stdout leads to a file without a name too, if that was deleted.
        is_named = self._path != STANDARD_OUTPUT and there.st_nlink > 0
        self._is_named_file = stat.S_ISREG(mode) and is_named
        self._is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        if not self._is_named_file:
            return
        self._is_line_cut = self._ends_in_half_line()
        if self._is_line_cut:
            _LOG.warning(
                "records: the last line of %s is cut short, as by a power cut; going on below it", self._path
            )
        if mode & stat.S_IROTH:
            _LOG.warning("records: everybody on this machine can read %s; chmod o-r it", self._path)

    def _ends_in_half_line(self) -> bool:
        """False where it can't be read."""
        try:
            with open(self._open_to_read(self._path), "rb", buffering=0) as file:
                if not file.seek(0, os.SEEK_END):
                    return False
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:
            return False

    def _put(self, lines: bytes) -> None:
        """Returns with the lines out, or waiting for a pipe; raises OSError with nothing of them left."""
        if self._is_pipe and not self._may_wait:
            if len(self._waiting) + len(lines) > WAITING_BYTES:
                raise BlockingIOError(errno.EAGAIN, "its reader is too slow")
            self._waiting += lines
            self._give_what_waits()
            return
        if self._is_named_file and os.fstat(self._descriptor).st_nlink == 0:
            self._open()
            _LOG.warning("records: somebody has deleted %s; made it anew", self._path)
        if self._is_line_cut:
            lines = b"\n" + lines
        self._write_whole(lines)
        self._is_line_cut = False

    def _write_whole(self, lines: bytes) -> None:
        """One write, in all but the worst case."""
        written = 0
        try:
            while written < len(lines):
                try:
                    written += os.write(self._descriptor, lines[written:] if written else lines)
                except BlockingIOError:  # of a pipe that somebody else has made so
                    self._poll.poll()
        except OSError:
            if written and not self._take_back(written):
                self._is_line_cut = True
            raise

    def _take_back(self, written: int) -> bool:
        """Cuts what was begun off the file. False for a pipe or a terminal, which can't be cut, and where
        another program has added something since."""
        try:
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size != end:
                return False
            os.ftruncate(self._descriptor, end - written)
        except OSError:
            return False
        return True

    def _give_what_waits(self, timeout_seconds: float = 0.0) -> None:
        """As much as the pipe takes now; or the first of it within that time. Raises BrokenPipeError."""
        while self._waiting and self._poll.poll(timeout_seconds * 1000):
            # So much never blocks when the poll has said that there is room: but for terminals, and where
            # somebody else writes to the same pipe.
            try:
                written = os.write(self._descriptor, bytes(self._waiting[: select.PIPE_BUF]))
            except BlockingIOError:
                return
            except OSError as error:  # a socket's reader was reset, a terminal has hung up
                raise BrokenPipeError(errno.EPIPE, error.strerror) from error
            del self._waiting[:written]

    def _forget_what_waits(self, but: int = 0) -> None:
        """`but`: so many records of it count as lost already."""
        lost = self._waiting.count(b"\n") - but
        self._waiting.clear()
        if lost > 0:
            _LOG.warning("records: lost, because nobody has read them from %s: %d", self._name, lost)

    def _was_moved(self) -> bool:
        # Opened and not looked at: the folder may be one that only others may look into.
        try:
            there = self._open_to_read(self._path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # nobody can tell
        try:
            return not os.path.samestat(os.fstat(there), os.fstat(self._descriptor))
        finally:
            os.close(there)

    def _leave_moved_file(self) -> None:
        try:
            self._open()
        except OSError as error:
            if not self._is_away_told:
                self._is_away_told = True
                _LOG.warning(
                    "records: somebody has moved %s, and it can't be made anew: %s; going on in the old file",
                    self._path,
                    error.strerror,
                )
        else:
            _LOG.warning("records: somebody has moved %s; going on in a new file", self._path)

    def _count_loss(self, error: OSError, lost: int) -> None:
        self._lost += lost
        if self._is_loss_told or not self._may_tell():
            return
        self._is_loss_told = True
        _LOG.warning(
            "records: cannot write to %s: %s; %s; records are lost until then",
            self._name,
            error.strerror,
            _REMEDIES.get(error.errno or 0, "check the file"),
        )

    def _tell_of_return(self) -> None:
        if self._is_loss_told or self._may_tell():
            _LOG.warning("records: writing to %s again; lost in between: %d", self._name, self._lost)
            self._lost, self._is_loss_told = 0, False

    def _may_tell(self) -> bool:
        now = time.monotonic()
        if now - self._told_at < SILENCE_SECONDS:
            return False
        self._told_at = now
        return True


def _without_waiting(terminal: int) -> int:
    """The same terminal, opened anew: to set the flag on what we were given would set it for all who share
    it. Where it has no name here, as in a container, it stays as it is."""
    try:
        anew = os.open(os.ttyname(terminal), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return terminal
    if terminal != _STANDARD_OUTPUT:
        os.close(terminal)
    return anew
