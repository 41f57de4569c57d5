"""Whom `watch` goes on as."""

import os
import pwd
from contextlib import suppress
from typing import Final

from monitor.rights import ROOT, User
from probes import capabilities
from probes.capabilities import Capability

USER: Final = "smtp-horizon"
"""Whom to become where nobody says, if there is one of that name."""
NOBODY: Final = "nobody"


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
