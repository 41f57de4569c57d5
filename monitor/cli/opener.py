"""A process that opens files for `watch`, once that has no right to.

    watch  ── "a/var/log/smtp-horizon.jsonl" ──▶  opener
           ◀──────── 0, and a descriptor ────────

It is begun first, and keeps the rights that files ask for. Until it is sealed it opens what it is asked to;
after that only the same again, in the same way. So whoever owns the parser can have the records opened anew,
and the databases read anew, and no more. It reads nothing of the network, and ends with the process that
began it.
"""

import errno
import os
import socket
from enum import Enum
from types import TracebackType
from typing import Final, Self

from monitor import files
from monitor.cli import children
from monitor.rights import ROOT, User
from probes import capabilities
from probes.capabilities import Capability
from probes.safe_path import PATH_BYTES_MAX, UnsafePathError, absolute

NAME: Final = "horizon-opener"
"""What `ps -o comm` shows, by which to tell it from the other."""


class Purpose(Enum):
    """How a file is opened."""

    READ = b"r"
    APPEND = b"a"


_OPEN: Final = {Purpose.READ: files.open_to_read, Purpose.APPEND: files.open_to_append}
_SEAL: Final = b"s"
_REQUEST_BYTES_MAX: Final = 1 + PATH_BYTES_MAX
_NUMBER_BYTES: Final = 4  # an errno, or 0
_REASON_BYTES_MAX: Final = 2 * 4096  # of an UnsafePathError: a path, and some words
_ANSWER_BYTES_MAX: Final = _NUMBER_BYTES + _REASON_BYTES_MAX


class Opener:
    """The near end. For one thread. A context manager: at its end the process ends too."""

    def __init__(self, connection: socket.socket, process: int) -> None:
        self._connection = connection
        self._process = process

    @classmethod
    def start(cls, user: User) -> Self:
        """`user`: who will ask, later, with no other rights. To be called while there is one thread, and
        before anything is open that a process of root's should not hold."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = os.fork()
        if not process:
            status = 1
            try:
                here.close()
                _prepare(user)
                _serve(there, user)
                status = 0
            finally:
                os._exit(status)
        there.close()
        return cls(here, process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        os.waitpid(self._process, 0)

    def open_to_read(self, path: str) -> int:
        """A descriptor. Raises OSError, as open would."""
        return self._open(Purpose.READ, path)

    def open_to_append(self, path: str) -> int:
        """A descriptor; a file that is not there is made, for its owner alone. Raises OSError, as open
        would."""
        return self._open(Purpose.APPEND, path)

    def seal(self) -> None:
        """From now on only what was asked for before is opened. Raises OSError where nobody is there to."""
        self._ask(_SEAL)

    def _open(self, purpose: Purpose, path: str) -> int:
        number, reason, descriptors = self._ask(purpose.value + os.fsencode(absolute(path)))
        if reason:
            why, _, remedy = os.fsdecode(reason).partition("\0")
            raise UnsafePathError(path, why, remedy)
        if number:
            raise OSError(number, os.strerror(number), path)
        (descriptor,) = descriptors
        return descriptor

    def _ask(self, request: bytes) -> tuple[int, bytes, list[int]]:
        try:
            self._connection.send(request)
            answer, descriptors, _, _ = socket.recv_fds(self._connection, _ANSWER_BYTES_MAX, 1)
        except ConnectionError:  # which main() would take for a reader who has seen enough
            answer, descriptors = b"", []
        if not answer:
            raise OSError(errno.EIO, "the process that opens files has ended")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        number = int.from_bytes(answer[:_NUMBER_BYTES], "little")
        return number, answer[_NUMBER_BYTES:], list(descriptors)


def _prepare(user: User) -> None:
    # What whoever started us has opened stays so: it may be asked for, as /dev/stdout or /dev/fd/3.
    children.begin(NAME)
    if os.geteuid() == ROOT:
        # The saved ids let it take that user's rights for a moment, without the capability to take anybody's.
        os.setresgid(ROOT, ROOT, user.gid)
        os.setresuid(ROOT, ROOT, user.uid)
    capabilities.keep_only({Capability.DAC_OVERRIDE} if os.geteuid() == ROOT else ())
    capabilities.forbid_new_privileges()
    capabilities.forbid_dumps()


def _serve(connection: socket.socket, user: User) -> None:
    """Until the other end is closed."""
    known: set[bytes] = set()
    is_sealed = False
    while request := connection.recv(_REQUEST_BYTES_MAX):
        descriptor = None
        try:
            if request == _SEAL:
                is_sealed = True
            elif is_sealed and request not in known:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            else:
                known.add(request)
                descriptor = _OPEN[Purpose(request[:1])](os.fsdecode(request[1:]), user)
        except OSError as error:
            number = (error.errno or errno.EIO).to_bytes(_NUMBER_BYTES, "little")
            connection.send(number + _reason(error)[:_REASON_BYTES_MAX])
        else:
            answer = bytes(_NUMBER_BYTES)
            if descriptor is None:
                connection.send(answer)
            else:
                socket.send_fds(connection, [answer], [descriptor])
                os.close(descriptor)


def _reason(error: OSError) -> bytes:
    """What the number does not say."""
    return os.fsencode(f"{error.why}\0{error.remedy}") if isinstance(error, UnsafePathError) else b""
