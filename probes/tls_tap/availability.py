"""Whether libraries can be tapped on this machine, by this user."""

import os
import platform
import struct
from ctypes import CDLL, addressof, c_char_p, c_int, c_long, c_ulong, create_string_buffer, get_errno
from pathlib import Path
from typing import Final

from probes.capabilities import Capability, in_effect
from probes.probe import ProbeUnavailable

_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC
"""PROC_PID_INIT_INO of linux/proc_ns.h."""
_UPROBES: Final = Path("/sys/bus/event_source/devices/uprobe/type")
_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_TRACEPOINT: Final = "events/tcp/tcp_rcv_space_adjust/id"
"""By it the kernel tells when a program has read from a TCP socket."""

_PERF_EVENT_OPEN: Final = {"x86_64": 298, "ppc64le": 319, "s390x": 331}.get(platform.machine(), 241)
"""The number of the system call; that of newer architectures is 241."""
# struct perf_event_attr of linux/perf_event.h, until config2.
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQIIQQ")
_CLOSE_ON_EXEC: Final = 8
_EVERY_PROCESS, _FIRST_PROCESSOR, _NO_GROUP = -1, 0, -1

_AS_ROOT: Final = "sudo smtp-horizon watch --tls-tap"


def why_unavailable() -> ProbeUnavailable | None:
    """Found by setting a probe, on a file that nobody runs; None where it can be. Nothing stays behind.

    Whether a BPF program loads is the eBPF probe's to say.
    """
    if (reason := why_out_of_the_question()) is not None:
        return reason
    if not _UPROBES.exists():
        return ProbeUnavailable("this kernel has no uprobes", "a kernel with CONFIG_UPROBE_EVENTS=y")
    if not any(os.path.exists(folder / _TRACEPOINT) for folder in _TRACEFS):
        return _why_no_tracepoint()
    try:
        os.close(_uprobe(Path(__file__), 0))
    except PermissionError:
        # Which may take the instructions of any program apart: CAP_PERFMON was enough from Linux 5.8 on, and
        # is not since 6.16 and the stable kernels of that time.
        return ProbeUnavailable("no privilege: this kernel wants CAP_SYS_ADMIN for uprobes", _AS_ROOT)
    except OSError as error:
        return ProbeUnavailable(f"the kernel sets no uprobe: {error.strerror}", _AS_ROOT)
    return None


def why_out_of_the_question() -> ProbeUnavailable | None:
    """Found without trying."""
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        return ProbeUnavailable(
            "the kernel names processes by other numbers than this container does",
            "docker run --pid=host ...",
        )
    if lacking := _lacking():
        return ProbeUnavailable(f"no privilege: {' and '.join(lacking)} missing", _AS_ROOT)
    return None


def _why_no_tracepoint() -> ProbeUnavailable:
    mounted = [folder for folder in _TRACEFS if os.path.ismount(folder)]
    if not mounted:
        return ProbeUnavailable("tracefs is not mounted", f"mount -t tracefs nodev {_TRACEFS[0]}")
    if not os.access(mounted[0], os.X_OK, effective_ids=True):
        return ProbeUnavailable(f"no privilege to look into {mounted[0]}", _AS_ROOT)
    return ProbeUnavailable(
        "this kernel does not tell of reads from TCP sockets", "a kernel of 4.16 or newer"
    )


def _lacking() -> list[str]:
    """SYS_PTRACE lets one look into other users' processes. What uprobes take is found by trying."""
    have = in_effect()
    wanted = () if Capability.SYS_ADMIN in have else (Capability.BPF,)
    return [f"CAP_{each.name}" for each in (*wanted, Capability.SYS_PTRACE) if each not in have]


def _uprobe(path: Path, offset: int) -> int:
    """A descriptor of the probe, which is gone once that is closed. Raises OSError."""
    name = create_string_buffer(os.fsencode(path))
    kind = int(_UPROBES.read_text(encoding="ascii"))
    attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, 0, 0, 0, 0, 0, 0, 0, addressof(name), offset)
    result: int = CDLL(None, use_errno=True).syscall(
        c_long(_PERF_EVENT_OPEN),
        c_char_p(attributes),
        c_int(_EVERY_PROCESS),
        c_int(_FIRST_PROCESSOR),
        c_int(_NO_GROUP),
        c_ulong(_CLOSE_ON_EXEC),
    )
    if result < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number))
    return result
