"""Whether libraries can be tapped on this machine, by this user."""

import os
from typing import Final

from probes.capabilities import Capability, in_effect
from probes.probe import ProbeUnavailable
from probes.tls_tap.program import RECEIVED
from probes.tls_tap.tracing import TRACEFS, UPROBES, Tracepoint, tracepoint, wanted_to_attach

_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC
"""PROC_PID_INIT_INO of linux/proc_ns.h."""
_AS_ROOT: Final = "sudo smtp-horizon watch --tls-tap"


def check() -> Tracepoint:
    """The one that is needed. For a process of its own, see `tracepoint`. Raises ProbeUnavailable."""
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        raise ProbeUnavailable(
            "the kernel names processes by other numbers than this container does",
            "docker run --pid=host ...",
        )
    if lacking := _lacking():
        raise ProbeUnavailable(f"no privilege: {' and '.join(lacking)} missing", _AS_ROOT)
    if not UPROBES.exists():
        raise ProbeUnavailable("this kernel has no uprobes", "a kernel with CONFIG_UPROBE_EVENTS=y")
    if wanted_to_attach() not in in_effect():
        raise ProbeUnavailable("no privilege: this kernel wants CAP_SYS_ADMIN for uprobes", _AS_ROOT)
    try:
        return tracepoint(*RECEIVED)
    except PermissionError:
        raise ProbeUnavailable(f"no privilege to look into {TRACEFS}", _AS_ROOT) from None
    except OSError:
        raise ProbeUnavailable(
            "this kernel does not tell of reads from TCP sockets", "a kernel of 4.16 or newer"
        ) from None


def _lacking() -> list[str]:
    """SYS_PTRACE lets one look into other users' processes. What uprobes take is found by trying."""
    have = in_effect()
    wanted = () if Capability.SYS_ADMIN in have else (Capability.BPF,)
    return [f"CAP_{each.name}" for each in (*wanted, Capability.SYS_PTRACE) if each not in have]
