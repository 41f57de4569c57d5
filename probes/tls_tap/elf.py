"""ELF files that a stranger may have made: read with pyelftools, and with a bound on what that may cost.

In a container its owner says what stands in a library's file, and which file that is.
"""

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from elftools.elf.elffile import ELFFile

_READS: Final = 8_000
"""How often one file is read from. Every loop of pyelftools reads, so that it bounds them all. Debian's
libgnutls takes 1,900, most of them for the table by which names are found; 8,000 are 30 ms."""
_READ_BYTES: Final = 65_536
"""What is read at once, at most. The longest that an honest file asks for is a note of some hundred bytes."""

# Elf64_Ehdr in elf.h: class and byte order, and the machine behind the file's type.
_IDENT: Final = slice(4, 6)
_MACHINE: Final = slice(18, 20)
_HEADER_BYTES: Final = 20


class NoUsableElfError(Exception):
    """The message says why: no ELF file, cut short, one for another machine, or not what it ought to be."""


@contextmanager
def opened(source: str | os.PathLike[str] | int) -> Iterator[ELFFile]:
    """The ELF file of that path or descriptor; the descriptor stays open.

    What goes wrong while it is open, in here or with whoever reads on, becomes NoUsableElfError; but a file
    that can't be opened or read is an OSError.
    """
    try:
        with _open(source) as file:
            _check_machine(file)
            yield ELFFile(_Metered(file))  # type: ignore[arg-type]  # it reads, seeks and tells
    except (OSError, NoUsableElfError):
        raise
    except Exception as error:  # pyelftools takes a file at its word: ELFError, but also any that Python has
        raise NoUsableElfError(f"no sound ELF file ({type(error).__name__}: {error})") from error


def _open(source: str | os.PathLike[str] | int) -> IO[bytes]:
    # Nobody is to wait for a FIFO's other end.
    descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise NoUsableElfError("no regular file")
    return file


def _check_machine(file: IO[bytes]) -> None:
    """Where a function's arguments are depends on it, and so a 32-bit server on a 64-bit kernel is none to
    be tapped."""
    file.seek(0)
    theirs = file.read(_HEADER_BYTES)
    if len(theirs) < _HEADER_BYTES or not theirs.startswith(b"\x7fELF"):
        raise NoUsableElfError("no ELF file")
    with open("/proc/self/exe", "rb") as own:
        ours = own.read(_HEADER_BYTES)
    if theirs[_IDENT] != ours[_IDENT] or theirs[_MACHINE] != ours[_MACHINE]:
        (number,) = struct.unpack_from("=H", theirs, _MACHINE.start)
        raise NoUsableElfError(f"for another machine or word size (e_machine {number})")


class _Metered:
    """What pyelftools needs of a file, until the bounds above."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _READS
        self.tell = file.tell

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place, whence)
        except OSError as error:  # before the file's beginning, or further than any file goes
            raise NoUsableElfError(f"something of it is at {place:#x}") from error

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0 or not 0 <= size <= _READ_BYTES:
            raise NoUsableElfError("its tables are larger than those of any library that is known")
        return self._file.read(size)
