"""What the kernel does not do for `watch` any more once it watches: a filter of system calls (seccomp(2)).

A program that has everything open needs few of them, but which few depends on the C library, on Python and on
the machine. A list of what is allowed would break `watch` with an update of any of them, so here is what is
denied: what somebody who owns the parser would do next, and what attacks on kernels begin with. An allow-list
stands in deploy/smtp-horizon.service, where systemd looks after it.

Denied means EPERM: whoever owns the parser can end the process anyhow, and a mistake of ours should be an
error with a name, not an outage. The kernel's log tells of each (`type=1326`), if its settings say so.

libseccomp's own module does the work (Debian: python3-seccomp). Where that is missing, `watch` goes on
without.
"""

import errno
import os
import socket
from typing import Any, Final

from probes.capabilities import Capability, Needs

_INSTEAD: Final = "apt-get install python3-seccomp"

# Whatever the probe is. Names that a machine does not know deny nothing there.
_NEVER: Final = (
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_open"),
    *("pidfd_getfd", "pidfd_send_signal"),
    # the kernel, and doors of its that attacks have come through
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot"),
    *("perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("keyctl", "add_key", "request_key", "iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "syslog"),
    *("acct", "quotactl", "quotactl_fd", "swapon", "swapoff", "nfsservctl", "uselib"),
    # the machine's clock and name
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "stime"),
    *("sethostname", "setdomainname"),
    # name spaces and file systems
    *("unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "open_tree"),
    *("move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "name_to_handle_at"),
    *("open_by_handle_at", "fanotify_init", "mknod", "mknodat"),
)

# Where the probe starts no programs: no program, no process, no file that is written, no way out.
_ONLY_FOR_PROGRAMS: Final = (
    *("execve", "execveat", "fork", "vfork", "connect", "sendmsg", "sendmmsg", "creat", "truncate"),
    *("truncate64", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "rmdir", "chmod", "fchmodat", "chown", "chown32", "lchown", "lchown32"),
    *("fchown", "fchown32", "fchownat", "setxattr", "lsetxattr", "removexattr", "lremovexattr"),
    *("utime", "utimes"),
)

_CLONE_NEW: Final = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
"""linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME is for clone3."""
_CLONE_THREAD: Final = 0x10000
_BPF_ON_MAPS: Final = (1, 2, 3, 24)
"""linux/bpf.h: BPF_MAP_LOOKUP_ELEM, UPDATE and DELETE, and BPF_MAP_LOOKUP_BATCH."""
_TIOCSTI: Final = 0x5412
"""asm-generic/ioctls.h: types into the terminal."""
_TIOCLINUX: Final = 0x541C
"""The same by pasting, on a console."""
_SOL_PACKET: Final = 263
_NETLINK_ROUTE: Final = 0
_NETLINK_ADDRESS_BYTES: Final = 12
"""struct sockaddr_nl, of which the addresses of interfaces are asked. Those of packet sockets (20 bytes),
IPv4 (16) and IPv6 (28) are longer."""
_INT: Final = 0xFFFFFFFF
"""Of an argument's 64 bits, those that the kernel looks at."""


class FilterRefusedError(Exception):
    """By the kernel; the message says why."""


def why_unavailable() -> str | None:
    """What is missing, and what mends it; None where the module is there."""
    try:
        import seccomp  # noqa: F401, PLC0415 - its absence is a finding
    except ImportError:
        return f"libseccomp's Python module is missing; {_INSTEAD}"
    return None


def deny_what_is_not_needed(needs: Needs) -> None:
    """For this thread and those that it starts, for good, under no_new_privs. Raises FilterRefusedError."""
    import seccomp  # noqa: PLC0415

    rules = _Rules(seccomp)
    rules.deny(*(call for call in _NEVER if call not in needs.system_calls))
    # Its flags are in memory, where no filter looks. The C library takes clone then.
    rules.say_missing("clone3")
    for flag in _CLONE_NEW:
        rules.deny_where("clone", 0, flag, flag)
    rules.deny_where("ioctl", 1, _INT, _TIOCSTI)
    rules.deny_where("ioctl", 1, _INT, _TIOCLINUX)
    if needs.programs:
        rules.deny("bpf")
    else:
        _deny_what_only_programs_need(rules, needs)
    try:
        rules.load()
    except OSError as error:
        raise FilterRefusedError(f"the kernel takes no filter of system calls ({error.strerror})") from error


def _deny_what_only_programs_need(rules: "_Rules", needs: Needs) -> None:
    rules.deny(*_ONLY_FOR_PROGRAMS)
    rules.deny_where("clone", 0, _CLONE_THREAD, 0)
    rules.deny_unless("kill", 0, os.getpid())
    rules.deny_unless("tgkill", 0, os.getpid())
    # Flags that are in memory again.
    if "openat2" not in needs.system_calls:
        rules.say_missing("openat2")
    for call, flags in (("open", 1), ("openat", 2)):
        for mode in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_RDWR):
            rules.deny_where(call, flags, os.O_ACCMODE, mode)
        for flag in (os.O_CREAT, os.O_TRUNC):
            rules.deny_where(call, flags, flag, flag)
    rules.deny_all_but("bpf", 0, *_BPF_ON_MAPS)
    rules.deny_above("sendto", 5, _NETLINK_ADDRESS_BYTES)
    if Capability.NET_RAW in needs.capabilities:
        # libpcap asks interfaces for their time stamps by a socket of any kind, first by AF_UNIX.
        rules.deny_all_but("socket", 0, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET)
    else:
        rules.deny_all_but("socket", 0, socket.AF_NETLINK)
        # As promiscuous mode, and rings that see more than the filter.
        rules.deny_where("setsockopt", 1, _INT, _SOL_PACKET)
    rules.deny_netlink_but_routes()


class _Rules:
    def __init__(self, seccomp: Any) -> None:
        self._seccomp = seccomp
        self._filter = seccomp.SyscallFilter(seccomp.ALLOW)
        self._filter.set_attr(seccomp.Attr.CTL_LOG, 1)
        # Of all threads, or of none: one that was started too early is an error, not a hole.
        self._filter.set_attr(seccomp.Attr.CTL_TSYNC, 1)
        self._eperm = seccomp.ERRNO(errno.EPERM)

    def deny(self, *calls: str) -> None:
        for call in calls:
            self._add(self._eperm, call)

    def say_missing(self, call: str) -> None:
        self._add(self._seccomp.ERRNO(errno.ENOSYS), call)

    def deny_where(self, call: str, argument: int, mask: int, value: int) -> None:
        self._add(self._eperm, call, self._seccomp.Arg(argument, self._seccomp.MASKED_EQ, mask, value))

    def deny_unless(self, call: str, argument: int, value: int) -> None:
        self._add(self._eperm, call, self._seccomp.Arg(argument, self._seccomp.NE, value))

    def deny_above(self, call: str, argument: int, value: int) -> None:
        self._add(self._eperm, call, self._seccomp.Arg(argument, self._seccomp.GT, value))

    def deny_all_but(self, call: str, argument: int, *allowed: int) -> None:
        most = max(allowed)
        for value in set(range(most)).difference(allowed):
            self.deny_where(call, argument, _INT, value)
        self.deny_above(call, argument, most)

    def deny_netlink_but_routes(self) -> None:
        is_netlink = self._seccomp.Arg(0, self._seccomp.EQ, socket.AF_NETLINK)
        self._add(self._eperm, "socket", is_netlink, self._seccomp.Arg(2, self._seccomp.NE, _NETLINK_ROUTE))

    def load(self) -> None:
        self._filter.load()

    def _add(self, action: Any, call: str, *conditions: Any) -> None:
        try:
            self._filter.add_rule(action, call, *conditions)
        except (RuntimeError, ValueError) as error:
            if self._seccomp.resolve_syscall(self._seccomp.Arch(), call) >= 0:
                raise AssertionError(f"{call}: {error}") from error
