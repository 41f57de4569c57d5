"""Whether somebody else can choose what a path leads to.

Who may write into a folder can put a symbolic link there, a file of his own or a named pipe, for root to
open. So a path is walked from the root folder down. Each folder on the way must belong to somebody who is
trusted, and nobody else may write into it. In a sticky folder, as /tmp, everybody may make new names, and
nobody may take another's away: there, what stands at the next name must itself belong to somebody who is
trusted. So must the file in the end.

OpenSSH (StrictModes), sudo, logrotate and systemd ("unsafe path transition") ask the same.

The walk holds a descriptor of each thing that it has looked at, and goes on from that descriptor. So what was
checked is what is opened, whatever happens to the names meanwhile.
"""

import errno
import grp
import os
import pwd
import re
import stat
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from struct import iter_unpack
from typing import Final, NamedTuple

ROOT: Final = 0

PATH_BYTES_MAX: Final = 4095  # linux/limits.h: PATH_MAX, without the NUL at the end
LINKS_MAX: Final = 40  # as many as the kernel follows: path_resolution(7)
_GROUPS_REMEMBERED: Final = 64  # chosen as more than there are on the way to a few files

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DESCRIPTORS: Final = re.compile(r"/proc/\d+(/task/\d+)?/fd")
"""What a process has open: links whose text is not what they lead to."""

# acl(5). The attribute is a version and then entries: linux/posix_acl_xattr.h.
_ACL: Final = "system.posix_acl_access"
_ACL_HEADER_BYTES: Final = 4
_ACL_ENTRY: Final = "<HHI"
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_WRITE, _SEARCH = 2, 1
"""In a mode for others, and in a list's entry."""
_GROUP_BITS: Final = 3


class UnsafePathError(OSError):
    """Somebody who is not trusted could have put there what a path leads to. `strerror` has both parts."""

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(errno.EPERM, f"{why}: {remedy}", path)
        self.why = why
        """Which file or folder, and whose it is."""
        self.remedy = remedy


class PlaceChangedError(OSError):
    """Another thing stands there than a moment ago. Walk again."""


class Place(NamedTuple):
    """Where a path ends. As long as the walk lasts."""

    folder: int
    """A descriptor."""
    name: str
    status: os.stat_result | None
    """Of what stands there; None for a name that is free."""
    is_shared: bool
    """Everybody may make other names beside it."""
    is_of_user: bool
    """The user who is trusted beside us could have chosen it."""
    is_descriptor: bool
    """As /dev/stdout: what whoever started us has opened."""

    def open(self, flags: int, mode: int = 0) -> int:
        """A descriptor of what stands there; for a name that is free, and with O_CREAT, of a new file. Raises
        PlaceChangedError, and OSError."""
        if self.status is not None:
            flags &= ~os.O_CREAT
        elif flags & os.O_CREAT:
            flags |= os.O_EXCL
        else:  # not even looked for: somebody may have put it there since
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.name)
        if not self.is_descriptor:
            flags |= os.O_NOFOLLOW
        try:
            descriptor = os.open(self.name, flags | os.O_CLOEXEC, mode, dir_fd=self.folder)
        except FileExistsError as error:
            raise PlaceChangedError(*error.args) from None
        except FileNotFoundError as error:
            if self.status is None:  # the folder is gone
                raise
            raise PlaceChangedError(*error.args) from None
        if self.status is not None and not os.path.samestat(self.status, os.fstat(descriptor)):
            os.close(descriptor)
            raise PlaceChangedError(errno.ESTALE, os.strerror(errno.ESTALE), self.name)
        return descriptor


def trusted(user: int | None = None) -> frozenset[int]:
    """Root, who we are, that user, and the owner of the root folder: in a user namespace that may be another
    number than root's."""
    beside_us = frozenset() if user is None else frozenset({user})
    return beside_us | {ROOT, os.geteuid(), os.stat("/").st_uid}


def absolute(path: str) -> str:
    """From here, with all its `..`: what they lead to is known only where the links in front of them are.

    Raises OSError, also for what the kernel would not take for a path.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "there is a NUL character in the path", path)
    whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    if len(os.fsencode(whole)) > PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return whole


@contextmanager
def walked(
    path: str, trust: Collection[int], user: int | None = None, *, is_believed: bool = False
) -> Iterator[Place]:
    """Where the path ends.

    `user`: one of those who are trusted, see `Place.is_of_user`. `is_believed`: nobody else may write into
    the file either. Raises UnsafePathError, and OSError where it leads nowhere.
    """
    try:
        place = _Walk(path, trust, user)
        with place:
            yield place.to_its_end(is_believed=is_believed)
    except OSError as error:
        error.filename = path  # and not the part of it
        raise


def check_writers(descriptor: int, path: str, trust: Collection[int]) -> None:
    """For a file whose content is believed. Raises UnsafePathError where others may write into it."""
    writers = _writers(descriptor)
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and not writers.are_among(trust):
        raise UnsafePathError(path, *writers.complaint(path, trust, "file"))


class _Walk:
    """A context manager, which closes what it has open."""

    def __init__(self, path: str, trust: Collection[int], user: int | None) -> None:
        self._path, self._trust, self._user = path, trust, user
        self._rest = deque(_parts(absolute(path)))
        self._at, self._folder = "/", os.open("/", _LOOK)
        self._links = 0
        self._is_of_user = False
        self._can_user_come = True
        """Whether the user may go into all folders from the root folder to here."""

    def __enter__(self) -> "_Walk":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def to_its_end(self, *, is_believed: bool) -> Place:
        while True:
            status, writers = os.fstat(self._folder), _writers(self._folder)
            is_sticky, is_shared = bool(status.st_mode & stat.S_ISVTX), not writers.are_among(self._trust)
            self._check_owner(status, self._at)
            if is_shared and not is_sticky:
                raise UnsafePathError(self._path, *writers.complaint(self._at, self._trust, "folder"))
            self._can_user_come &= self._user == status.st_uid or self._user in _searchers(self._folder)
            may_user_write = self._can_user_come and (self._user == status.st_uid or self._user in writers)
            if not self._rest:
                return Place(self._folder, ".", status, is_shared, self._is_of_user, is_descriptor=False)
            part = self._rest.popleft()
            if not self._rest and _DESCRIPTORS.fullmatch(self._at):
                status = os.stat(part, dir_fd=self._folder)
                return Place(self._folder, part, status, is_shared, self._is_of_user, is_descriptor=True)
            try:
                entry = os.open(part, _LOOK, dir_fd=self._folder)
            except FileNotFoundError:
                if self._rest or self._path.endswith("/"):
                    raise
                is_of_user = self._is_of_user or may_user_write
                return Place(self._folder, part, None, is_shared, is_of_user, is_descriptor=False)
            try:
                there, here = os.fstat(entry), os.path.join(self._at, part)
                if is_shared or not (stat.S_ISDIR(there.st_mode) or stat.S_ISLNK(there.st_mode)):
                    self._check_owner(there, here)
                # In a sticky folder a user may change what is his, and all if it is his.
                owners = (status.st_uid, there.st_uid)
                self._is_of_user |= may_user_write and (not is_sticky or self._user in owners)
                if stat.S_ISLNK(there.st_mode):
                    self._follow(os.readlink("", dir_fd=entry))
                elif stat.S_ISDIR(there.st_mode):
                    self._can_user_come |= part == ".."
                    self._go_into(entry, os.path.dirname(self._at) if part == ".." else here)
                elif self._rest or self._path.endswith("/"):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                else:
                    if is_shared and there.st_nlink > 1:
                        raise UnsafePathError(
                            self._path,
                            f"{here} is a hard link to a file that has other names",
                            "remove it, or use another folder",
                        )
                    if is_believed:
                        check_writers(entry, here, self._trust)
                    return Place(self._folder, part, there, is_shared, self._is_of_user, is_descriptor=False)
            finally:
                os.close(entry)

    def _check_owner(self, status: os.stat_result, where: str) -> None:
        if status.st_uid not in self._trust:
            what = "folder" if stat.S_ISDIR(status.st_mode) else "file"
            raise UnsafePathError(
                self._path,
                f"{where} belongs to {_user_name(status.st_uid)}",
                f"give it to {_user_name(os.geteuid())}, or use another {what}",
            )

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._rest.extendleft(reversed(_parts(target)))
        if target.startswith("/"):
            root = os.open("/", _LOOK)
            self._go_into(root, "/")
            self._can_user_come = True
            os.close(root)

    def _go_into(self, folder: int, at: str) -> None:
        os.dup2(folder, self._folder, inheritable=False)
        self._at = at


class _Allowed(NamedTuple):
    """Who has a right to a file or folder. Its owner, who can give it to himself, is not among them."""

    users: frozenset[int]
    groups: frozenset[int]
    """Without root's."""
    is_everybody: bool
    mode: int

    def __contains__(self, user: object) -> bool:
        return (
            self.is_everybody
            or user in self.users
            or any(user in (_members(group) or ()) for group in self.groups)
        )

    def are_among(self, trust: Collection[int]) -> bool:
        return not self.is_everybody and self.users.issubset(trust) and not self._strange_groups(trust)

    def _strange_groups(self, trust: Collection[int]) -> list[int]:
        """Those of which somebody is not trusted, or nobody knows."""
        return [
            group
            for group in self.groups
            if (members := _members(group)) is None or not members.issubset(trust)
        ]

    def complaint(self, where: str, trust: Collection[int], what: str) -> tuple[str, str]:
        """Who may write there and should not; what to do. `what`: file or folder."""
        if self.is_everybody:
            who, bits = "everybody", "o-w"
        elif groups := self._strange_groups(trust):
            who, bits = f"group {_group_name(groups[0])}", "g-w"
        else:
            who, bits = _user_name(next(user for user in self.users if user not in trust)), "g-w"
        return (
            f"{who} may write into {where} (mode {self.mode:04o})",
            f"chmod {bits} it, or use another {what}",
        )


def _writers(descriptor: int) -> _Allowed:
    """Who may write into a file, or make and take away names in a folder."""
    return _allowed(descriptor, _WRITE)


def _searchers(descriptor: int) -> _Allowed:
    """Who may go into a folder."""
    return _allowed(descriptor, _SEARCH)


def _allowed(descriptor: int, right: int) -> _Allowed:
    status = os.fstat(descriptor)
    users, groups = set[int](), set[int]()
    if status.st_mode & right << _GROUP_BITS:  # or the mask of an access control list
        groups.add(status.st_gid)
        with suppress(OSError):  # it has none
            acl = os.getxattr(f"/proc/self/fd/{descriptor}", _ACL)
            for tag, rights, number in iter_unpack(_ACL_ENTRY, acl[_ACL_HEADER_BYTES:]):
                if rights & right and tag in (_ACL_USER, _ACL_GROUP):
                    (users if tag == _ACL_USER else groups).add(number)
    mode = stat.S_IMODE(status.st_mode)
    return _Allowed(frozenset(users), frozenset(groups - {ROOT}), bool(mode & right), mode)


@lru_cache(_GROUPS_REMEMBERED)  # a directory service may take long, and a file is looked at each second
def _members(group: int) -> frozenset[int] | None:
    """None where nobody knows."""
    try:
        names = grp.getgrgid(group).gr_mem
    except KeyError:
        return None
    members = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group}
    for name in names:
        with suppress(KeyError):  # a name without a user
            members.add(pwd.getpwnam(name).pw_uid)
    return frozenset(members)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
