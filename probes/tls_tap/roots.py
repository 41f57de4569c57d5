"""Files as a process sees them, whose root may be a container's.

Whoever owns a container can make any name in it a symlink. Opened from outside, an absolute one leads to the
host's files; so the kernel is told to resolve names as if that root was ours: openat2(2).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, Structure, byref, c_long, c_size_t, c_uint64, create_string_buffer, get_errno, sizeof
from typing import Final

# linux/openat2.h; the number is that of every architecture.
_OPENAT2: Final = 437
_RESOLVE_IN_ROOT: Final = 0x10

_OVERLAYFS: Final = 0x794C7630
"""OVERLAYFS_SUPER_MAGIC of linux/magic.h."""
_STATFS_BYTES: Final = 256
"""More than struct statfs has anywhere. What kind of file system it is stands first in it."""

_libc: Final = CDLL(None, use_errno=True)


class _OpenHow(Structure):
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class Root:
    """The root directory of a process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def names(self, folder: str) -> list[str]:
        """What is in the folder; nothing where there is none."""
        try:
            descriptor = self._open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return os.listdir(descriptor)
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> os.stat_result | None:
        """Of a regular file; None where there is none."""
        try:
            descriptor = self._open(path, os.O_PATH)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return status if stat.S_ISREG(status.st_mode) else None

    def open(self, path: str) -> int:
        """A descriptor of a regular file, to read it. Raises OSError."""
        # Only looked at before it is opened: to open a device may do something.
        place = self._open(path, os.O_PATH)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise FileNotFoundError(f"{path} is no regular file")
            return os.open(f"/proc/self/fd/{place}", os.O_RDONLY)
        finally:
            os.close(place)

    def _open(self, path: str, flags: int) -> int:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
        name = os.fsencode(path)
        result: int = _libc.syscall(
            c_long(_OPENAT2), c_long(self._descriptor), name, byref(how), c_size_t(sizeof(how))
        )
        if result < 0:
            number = get_errno()
            raise OSError(number, os.strerror(number), path)
        return result


@contextmanager
def root_of(pid: int) -> Iterator[Root]:
    """Raises OSError where the process has ended or may not be looked into."""
    descriptor = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Root(descriptor)
    finally:
        os.close(descriptor)


def real_file(descriptor: int) -> tuple[int, ...]:
    """What two descriptors have in common that lead to the same file below an overlay.

    Containers of one image share its files, each through an overlayfs of its own with a device number of its
    own. What is attached to such a file is attached to the one below, and so for all of them; twice would
    count twice. The number of the inode is that of the one below; size and time tell apart those of images
    that lie on different devices.
    """
    status = os.fstat(descriptor)
    if _is_overlay(descriptor):
        return (status.st_ino, status.st_size, status.st_mtime_ns)
    return (status.st_dev, status.st_ino)


def _is_overlay(descriptor: int) -> bool:
    answer = create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, answer) != 0:
        return False
    return c_long.from_buffer(answer).value == _OVERLAYFS
