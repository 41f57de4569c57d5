"""Whom `watch` goes on as, and whose rights a path asks for.

What a stranger may write into, he may also put a symbolic link into. So root opens nothing in a folder of the
user that it will become: who owns that user, by owning the parser, would choose what root opens at the next
SIGHUP, or the next start. What stands there is opened with that user's own rights.
"""

import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from probes import capabilities
from probes.capabilities import Capability

ROOT: Final = 0
USER: Final = "smtp-horizon"
"""Whom to become where nobody says, if there is one of that name."""
NOBODY: Final = "nobody"

LINKS_MAX: Final = 40  # as many as the kernel follows: path_resolution(7)


class User(NamedTuple):
    name: str
    uid: int
    gid: int


class CannotBecomeError(Exception):
    """One line: whom, and what to do."""


def current() -> User:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in many containers
        name = str(uid)
    return User(name, uid, os.getegid())


def to_become(wanted: str | None) -> User:
    """`wanted`: a name; None for the one that is taken where nobody says. Raises CannotBecomeError."""
    me = current()
    if me.uid != ROOT:
        if wanted not in (None, me.name):
            raise CannotBecomeError(f"only root can become user {wanted!r}; start it as that, or as root")
        return me
    for name in (USER, NOBODY) if wanted is None else (wanted,):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        user = User(entry.pw_name, entry.pw_uid, entry.pw_gid)
        _check(user)
        return user
    remedy = f"adduser --system --group --no-create-home {wanted or USER}"
    raise CannotBecomeError(
        f"there is no user {wanted or NOBODY!r} to go on as; {remedy}, or name one with --user"
    )


def _check(user: User) -> None:
    """In a container root may lack what it takes. Raises CannotBecomeError."""
    missing = {Capability.SETGID, Capability.SETUID} - capabilities.in_effect()
    if user.uid != ROOT and missing:
        names = " and ".join(f"CAP_{capability.name}" for capability in sorted(missing))
        raise CannotBecomeError(
            f"cannot go on as {user.name}: {names} missing; grant that, start it as {user.name},"
            " or stay root with --user root"
        )


def forget_groups() -> None:
    """Those of root's that are not the first: with another user's rights they would be too many."""
    if os.geteuid() == ROOT:
        with suppress(PermissionError):  # no CAP_SETGID: it will stay root
            os.setgroups([])


@contextmanager
def rights_of(user: User) -> Iterator[None]:
    """For one thread alone: all that this process does meanwhile is done as that user."""
    me, group = os.geteuid(), os.getegid()
    if (me, group) == (user.uid, user.gid):
        yield
        return
    os.setegid(user.gid)
    try:
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(me)
        os.setegid(group)


@contextmanager
def rights_at(path: str, user: User) -> Iterator[None]:
    """Those that are enough for what stands at this path: the user's, if he could have put it there."""
    if os.geteuid() == ROOT and user.uid != ROOT and may_choose(user, path):
        with rights_of(user):
            yield
    else:
        yield


def may_choose(user: User, path: str) -> bool:
    """Whether this user can change what the path leads to: a folder on the way, where a symbolic link leads
    too, is his to write into."""
    at = "/"
    links = 0
    rest = deque(_parts(os.path.abspath(path)))
    while rest:
        part = rest.popleft()
        if part == "..":
            at = os.path.dirname(at)  # no symbolic link any more, so that is its parent
            continue
        if at.startswith("/proc/") and at.endswith("/fd"):
            return False  # as /dev/stdout: what whoever started us has opened, whatever the link's text is
        folder, here = os.lstat(at), os.path.join(at, part)
        is_open = folder.st_uid == user.uid or _may_write(user, at)
        try:
            entry = os.lstat(here)
        except OSError:  # a name that is free
            return is_open
        # In a sticky folder, as /tmp, everybody may change only what is theirs.
        is_sticky = folder.st_mode & stat.S_ISVTX
        if is_open and (not is_sticky or user.uid in (folder.st_uid, entry.st_uid)):
            return True
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > LINKS_MAX:
                return True
            target = os.readlink(here)
            rest.extendleft(reversed(_parts(target)))
            at = "/" if target.startswith("/") else at
        else:
            at = here
    return False


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _may_write(user: User, folder: str) -> bool:
    with rights_of(user):
        return os.access(folder, os.W_OK, effective_ids=True)
