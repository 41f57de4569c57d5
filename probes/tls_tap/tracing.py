"""Where programs are called from: functions of a file, and tracepoints of the kernel (perf_event_open(2)).

No library: bcc's own would keep its compiler in memory for two system calls.
"""

import os
import re
from ctypes import (
    CDLL,
    Structure,
    addressof,
    byref,
    c_uint32,
    c_uint64,
    create_string_buffer,
    get_errno,
    sizeof,
)
from fcntl import ioctl
from pathlib import Path
from platform import machine
from struct import calcsize
from typing import Final, NamedTuple, Self

from probes.capabilities import Capability, only_in_effect
from probes.probe import ProbeUnavailable

TRACEFS: Final = Path("/sys/kernel/tracing")
UPROBES: Final = Path("/sys/bus/event_source/devices/uprobe/type")

# linux/perf_event.h
_PERF_TYPE_TRACEPOINT: Final = 2
_IOC_ENABLE: Final = 0x2400
_IOC_SET_BPF: Final = 0x40042408
_FLAG_FD_CLOEXEC: Final = 1 << 3
_EVERY_PROCESS: Final = -1
# sched.h, sys/mount.h
_CLONE_NEWNS: Final = 0x00020000
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 0x80000

# A line of a tracepoint's format, as `	field:__u16 sport;	offset:16;	size:2;	signed:0;`
_FIELD: Final = re.compile(r"^\s+field:[^;]*?(\w+)(?:\[\d+\])?;\s*offset:(\d+);", re.MULTILINE)


class Machine(NamedTuple):
    """What is this processor's own: where `struct pt_regs` has a function's arguments and its result."""

    perf_event_open: int
    """The system call's number, of which the C library has no function."""
    arguments_at: tuple[int, int, int, int]
    result_at: int


_MACHINES: Final = {
    # asm/ptrace.h: the arguments are in rdi, rsi, rdx, rcx; the result in rax
    "x86_64": Machine(298, (112, 104, 96, 88), 80),
    # x0 to x3, and x0
    "aarch64": Machine(241, (0, 8, 16, 24), 0),
}

_libc: Final = CDLL(None, use_errno=True)


class _Attributes(Structure):
    """`struct perf_event_attr`, as far as it is needed: PERF_ATTR_SIZE_VER1."""

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample", c_uint64 * 3),
        ("flags", c_uint64),
        ("wakeup", c_uint32),
        ("breakpoint", c_uint32),
        ("path", c_uint64),
        ("offset", c_uint64),
    )


class Tracepoint(NamedTuple):
    """One of the kernel's, as the running kernel has it."""

    number: int
    fields_at: dict[str, int]

    @classmethod
    def described(cls, number: str, description: str) -> Self:
        """By what the kernel has in its files `id` and `format`."""
        return cls(int(number), {field: int(at) for field, at in _FIELD.findall(description)})


def this_machine() -> Machine:
    """Raises ProbeUnavailable."""
    found = _MACHINES.get(machine())
    if found is None or calcsize("P") != 8:
        raise ProbeUnavailable(
            f"the TLS tap does not know this processor ({machine()})", f"it knows {' and '.join(_MACHINES)}"
        )
    return found


def tracepoint(group: str, name: str) -> Tracepoint:
    """For a process of its own: it may be given a name space of its own, too. Raises OSError where there is
    none, and ProbeUnavailable where nobody can tell."""
    if not os.path.ismount(TRACEFS):
        _mount_for_this_process()
    folder = TRACEFS / "events" / group / name
    return Tracepoint.described((folder / "id").read_text(), (folder / "format").read_text())


def _mount_for_this_process() -> None:
    """Containers have no tracefs. Raises ProbeUnavailable."""
    nothing, tracefs, here = b"none", b"tracefs", os.fsencode(TRACEFS)
    if (
        _libc.unshare(_CLONE_NEWNS)
        or _libc.mount(nothing, b"/", None, c_uint64(_MS_REC | _MS_SLAVE), None)
        or _libc.mount(nothing, here, tracefs, c_uint64(0), None)
    ):
        raise ProbeUnavailable(
            f"tracefs is not mounted, and can't be ({os.strerror(get_errno())})",
            f"mount -t tracefs nodev {TRACEFS}",
        )


class Attached:
    """A program that is called from somewhere, until this is closed."""

    def __init__(self, program: int, attributes: _Attributes) -> None:
        """Raises OSError."""
        self._descriptor = _open(attributes)
        try:
            ioctl(self._descriptor, _IOC_SET_BPF, program)
            ioctl(self._descriptor, _IOC_ENABLE, 0)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _open(attributes: _Attributes) -> int:
    """A descriptor of the event. Raises OSError."""
    attributes.size = sizeof(attributes)
    descriptor: int = _libc.syscall(
        this_machine().perf_event_open, byref(attributes), _EVERY_PROCESS, 0, -1, _FLAG_FD_CLOEXEC
    )
    if descriptor < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


def at_function(program: int, path: str, offset: int, *, at_return: bool) -> Attached:
    """In every process that has this file mapped, now or later. `offset`: of the function in the file. Raises
    OSError."""
    name = create_string_buffer(os.fsencode(path))
    return Attached(program, _of_function(addressof(name), offset, at_return=at_return))


def wanted_to_attach() -> Capability:
    """What it takes to attach to functions, which is tried: CAP_PERFMON, and on newer kernels (as 6.18; some
    took it over) CAP_SYS_ADMIN."""
    name = create_string_buffer(os.fsencode(__file__))  # of a file that nobody runs
    with only_in_effect(Capability.PERFMON):
        try:
            os.close(_open(_of_function(addressof(name), 0, at_return=False)))
        except PermissionError:
            return Capability.SYS_ADMIN
    return Capability.PERFMON


def _of_function(name: int, offset: int, *, at_return: bool) -> _Attributes:
    """`name`: the address of the path, which must be there until the event is open."""
    attributes = _Attributes()
    attributes.type = int(UPROBES.read_text())
    attributes.config = int(at_return)  # format/retprobe
    attributes.path = name
    attributes.offset = offset
    return attributes


def at_tracepoint(program: int, where: Tracepoint) -> Attached:
    """Raises OSError."""
    attributes = _Attributes()
    attributes.type = _PERF_TYPE_TRACEPOINT
    attributes.config = where.number
    return Attached(program, attributes)
