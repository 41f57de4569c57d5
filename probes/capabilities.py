"""What a thread may do that an ordinary user may not, in the kernel's words: capabilities(7).

They belong to threads, not to processes: what is given up here is given up for the thread that calls, and for
those that it starts afterwards.

No library: the one that is looked after (libcap-ng's) is no package of PyPI's, and what gives privileges up
must not be missing; the wrappers of prctl(2) on PyPI had their last release in 2022 or before. It is three
system calls.
"""

import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, Structure, byref, c_int, c_uint32, c_ulong, get_errno
from enum import IntEnum
from typing import Final, NamedTuple


class Capability(IntEnum):
    """Those that matter here, with the numbers of linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    """Includes PERFMON and BPF."""
    PERFMON = 38
    BPF = 39


class Needs(NamedTuple):
    """What a probe goes on to need of the kernel, once it is open."""

    capabilities: frozenset[Capability] = frozenset()
    programs: tuple[str, ...] = ()
    """Paths of those that it starts. They get the capabilities, too."""
    system_calls: tuple[str, ...] = ()
    """Names of those that hardly any program needs, and this one does."""


_Set = frozenset[Capability] | frozenset[int]

# linux/capability.h
_VERSION_3: Final = 0x20080522
_LAST: Final = 63
# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NAME: Final = 15
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc: Final = CDLL(None, use_errno=True)


class _Header(Structure):
    _fields_ = (("version", c_uint32), ("pid", c_int))


class _Half(Structure):
    """One for the numbers below 32, one for those above."""

    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


def in_effect() -> frozenset[int]:
    return _read("effective")


def permitted() -> frozenset[int]:
    """Those that can be put into effect."""
    return _read("permitted")


def keep_only(kept: Iterable[int], *, for_programs: bool = False) -> None:
    """Gives up all others for good. `for_programs`: programs that are started have those kept as well,
    whatever their files say.

    The bounding set, which limits what programs may gain, can be made smaller only with CAP_SETPCAP; without,
    no_new_privs has to see to it alone.
    """
    keeping = frozenset(kept) & permitted()
    # A change of the user took them out of effect.
    _write(permitted(), permitted(), frozenset())
    if Capability.SETPCAP in in_effect():
        for number in range(_LAST + 1):
            # -1 for numbers that this kernel does not know.
            if number not in keeping and _libc.prctl(_PR_CAPBSET_READ, c_ulong(number), 0, 0, 0) == 1:
                _prctl(_PR_CAPBSET_DROP, number)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _write(keeping, keeping, keeping if for_programs else frozenset())
    if for_programs:
        for number in keeping:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


@contextmanager
def only_in_effect(*kept: int) -> Iterator[None]:
    """To find out what can be done without the others."""
    before, may, passed_on = in_effect(), permitted(), _read("inheritable")
    _write(before & set(kept), may, passed_on)
    try:
        yield
    finally:
        _write(before, may, passed_on)


def stay_permitted_as_another_user() -> None:
    """Otherwise the kernel takes them all when the last of a thread's user ids is root no more."""
    _prctl(_PR_SET_KEEPCAPS, 1)


def forbid_new_privileges() -> None:
    """No program that is started gains any, by set-user-ID or by capabilities of its file."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_dumps() -> None:
    """No core dump, and nobody of the same user looks into the memory."""
    _prctl(_PR_SET_DUMPABLE, 0)
    # A change of the user may undo that: proc(5), suid_dumpable.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_name(name: str) -> None:
    """What `ps -o comm` shows: 15 bytes."""
    if _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0):
        _fail()


def _read(which: str) -> frozenset[int]:
    halves = (_Half * 2)()
    if _libc.capget(byref(_Header(_VERSION_3, 0)), halves):
        _fail()
    bits = getattr(halves[0], which) | getattr(halves[1], which) << 32
    return frozenset(number for number in range(_LAST + 1) if bits >> number & 1)


def _write(effective: _Set, may: _Set, inheritable: _Set) -> None:
    halves = (_Half * 2)()
    for which, numbers in (("effective", effective), ("permitted", may), ("inheritable", inheritable)):
        bits = sum(1 << number for number in numbers)
        setattr(halves[0], which, bits & 0xFFFF_FFFF)
        setattr(halves[1], which, bits >> 32)
    if _libc.capset(byref(_Header(_VERSION_3, 0)), halves):
        _fail()


def _prctl(option: int, *arguments: int) -> None:
    # All of them: some options demand that those without a meaning are 0.
    padded = [c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded) < 0:
        _fail()


def _fail() -> None:
    number = get_errno()
    raise OSError(number, os.strerror(number))
