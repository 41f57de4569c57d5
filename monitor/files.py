"""How files are opened that may lie anywhere, and be anything.

Nothing is opened that another user could have chosen: see probes.safe_path. One user is an exception: the one
whom root will become. What he could have chosen is opened, with his own rights. With root's, whoever owns the
parser would choose what root opens at the next SIGHUP, or at the next start.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from monitor.rights import ROOT, User, rights_of
from probes.isolation import is_privileged
from probes.safe_path import Place, PlaceChangedError, UnsafePathError, check_writers, trusted, walked

NEW_FILE_MODE: Final = 0o600  # envelopes are personal data

_TRIES_MAX: Final = 10  # chosen as far more than logrotate needs: it changes a name once
_READ: Final = os.O_RDONLY | os.O_NONBLOCK


def open_to_read(path: str, user: User | None = None) -> int:
    """A descriptor. Waits for nobody: a named pipe may have no writer. Raises OSError, or UnsafePathError."""
    return _opened(path, user, lambda _: _READ)


def open_to_append(path: str, user: User | None = None) -> int:
    """A descriptor; a file that is not there is made, for its owner alone.

    Waits for nobody: a named pipe that is open both ways needs no reader, and keeps what it has. Raises
    OSError, or UnsafePathError.
    """
    return _opened(path, user, _flags_to_append)


def is_there_to_append(path: str, user: User | None = None) -> bool:
    """Whether a file is there that `open_to_append` would open; False where it would make one. Makes none.
    Raises OSError, or UnsafePathError, where it would."""
    with walked(path, _trust(user), _uid(user)) as place, ExitStack() as rights:
        if place.status is None:
            if user is not None and place.is_of_user and os.geteuid() == ROOT:
                rights.enter_context(rights_of(user))
            check_room(f"/proc/self/fd/{place.folder}", path)
            return False
    os.close(open_to_append(path, user))
    return True


def check_room(folder: str, path: str) -> None:
    """Whether a new file may be made in the folder, for that path. Raises OSError."""
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise OSError(errno.EACCES, "no file can be made there", path)


def open_data(path: str) -> int:
    """As `open_to_read`. But who has no privileges may read whose data he likes, as he may capture files."""
    return open_to_read(path) if is_privileged() else os.open(path, _READ | os.O_CLOEXEC)


def read_believed(descriptor: int, path: str, user: User | None = None) -> bytes:
    """The whole of a file of settings; closes it. Nobody else may write into it. Raises OSError."""
    os.set_blocking(descriptor, True)  # it may come through a pipe of the shell's
    with open(descriptor, "rb") as file:
        check_writers(descriptor, path, _trust(user))
        return file.read()


def check_regular(descriptor: int, path: str) -> None:
    """For what is read again: of a pipe, nothing would be left. Raises OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)


@contextmanager
def rights_to_open(path: str, endings: Iterable[str], user: User | None = None) -> Iterator[None]:
    """For who opens a file by its name, and others beside it, whose names end so: takes the rights that they
    are to be opened with.

    All are regular files, or not there yet, in a folder where nobody else can make or change a name. So they
    may be opened later than they are checked. Raises OSError, or UnsafePathError.
    """
    is_of_user = False
    for ending in ("", *endings):
        with walked(path + ending, _trust(user), _uid(user)) as place:
            is_of_user |= place.is_of_user
            if place.is_shared:
                raise UnsafePathError(
                    path,
                    f"everybody may make names in the folder of {path}, and there will be files beside it",
                    "use another folder",
                )
            if place.status is not None and not stat.S_ISREG(place.status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", path + ending)
    with ExitStack() as rights:
        if user is not None and is_of_user and os.geteuid() == ROOT:
            rights.enter_context(rights_of(user))
        yield


def _opened(path: str, user: User | None, flags: Callable[[Place], int]) -> int:
    for _ in range(_TRIES_MAX):
        try:
            with walked(path, _trust(user), _uid(user)) as place:
                if user is None or not place.is_of_user or os.geteuid() != ROOT:
                    return place.open(flags(place), NEW_FILE_MODE)
            with rights_of(user), walked(path, _trust(user)) as place:
                return place.open(flags(place), NEW_FILE_MODE)
        except PlaceChangedError:
            continue
    raise OSError(errno.EBUSY, "somebody changes it again and again", path)


def _flags_to_append(place: Place) -> int:
    flags = os.O_APPEND | os.O_CREAT | os.O_NOCTTY
    if place.status is not None and stat.S_ISFIFO(place.status.st_mode):
        return flags | os.O_RDWR
    if place.status is not None and stat.S_ISREG(place.status.st_mode):
        flags |= os.O_NONBLOCK  # if it is a pipe by now, it must not hold us up before we see that
    return flags | os.O_WRONLY


def _trust(user: User | None) -> frozenset[int]:
    return trusted(_uid(user))


def _uid(user: User | None) -> int | None:
    return None if user is None else user.uid
