"""Whose rights this process has, and how it takes another user's for a moment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

ROOT: Final = 0


class User(NamedTuple):
    name: str
    uid: int
    gid: int


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
