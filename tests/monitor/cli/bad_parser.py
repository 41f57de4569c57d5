"""A process that gives its privileges up as `watch` does, and then tries what whoever owns its parser would.

    python bad_parser.py [keeps_net_raw] [keeps_bpf] [starts_programs] [no_seccomp]
    python bad_parser.py keeps_the_tap

as root. It prints JSON: by attempt, the name of the error, or null where it succeeded.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from monitor.cli.privileges import give_up
from monitor.cli.users import to_become
from probes.capabilities import Capability, Needs
from probes.tls_tap.keeper import needs as keepers_needs

# asm/unistd_64.h
SYS_SENDTO, SYS_CLONE, SYS_PTRACE, SYS_UNSHARE, SYS_BPF = 44, 56, 101, 272, 321
SYS_PERF_EVENT_OPEN = 298
SYS_IO_URING_SETUP, SYS_CLONE3, SYS_OPENAT2 = 425, 435, 437
CLONE_NEWUSER = 0x10000000
# linux/bpf.h
BPF_MAP_CREATE = 0
BPF_MAP_TYPE_LRU_HASH = 9
PTRACE_SEIZE = 0x4206

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: Any) -> Callable[[], None]:
    def attempt() -> None:
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    return attempt


def libc_call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def outcome(attempt: Callable[[], Any]) -> str | None:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def new_map() -> int:
    """Numbers by numbers, as linux/bpf.h's union bpf_attr asks for it. A descriptor."""
    attributes = struct.pack("=5I", BPF_MAP_TYPE_LRU_HASH, 4, 4, 64, 0).ljust(72, b"\0")
    descriptor: int = libc.syscall(SYS_BPF, BPF_MAP_CREATE, attributes, 72)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "")
    return descriptor


def make_map() -> None:
    os.close(new_map())


def look_into_map(map_descriptor: int) -> None:
    """All that `probes.ebpf.program` goes on to do with those of the filter."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    key, value = ctypes.c_uint32(1), ctypes.c_uint32(7)
    keys, values, count, place = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)(), ctypes.c_uint32(64), key
    for result in (
        libbpf.bpf_map_update_elem(
            map_descriptor, ctypes.byref(key), ctypes.byref(value), ctypes.c_uint64(0)
        ),
        libbpf.bpf_map_lookup_elem(map_descriptor, ctypes.byref(key), ctypes.byref(value)),
        libbpf.bpf_map_lookup_batch(
            map_descriptor, None, ctypes.byref(place), keys, values, ctypes.byref(count), None
        ),
        libbpf.bpf_map_delete_elem(map_descriptor, ctypes.byref(ctypes.c_uint32(1))),
    ):
        if result not in (0, -errno.ENOENT):  # which says that there are no more
            raise OSError(-result, "")


def clone3() -> None:
    """As fork, with the flags in memory (struct clone_args, which ask for SIGCHLD)."""
    child = libc.syscall(SYS_CLONE3, struct.pack("=4Q7Q", 0, 0, 0, 0, signal.SIGCHLD, *[0] * 6), 88)
    if child < 0:
        raise OSError(ctypes.get_errno(), "")
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def clone_into_name_space() -> None:
    child = libc.syscall(SYS_CLONE, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "")
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def process_of_nobody() -> int:
    """It runs until its standard input is closed: until the end of this one."""
    read, _ = os.pipe()
    command = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "cat"]
    neighbour = subprocess.Popen(command, stdin=read)
    while psutil.Process(neighbour.pid).uids().real == 0:
        time.sleep(0.01)
    return neighbour.pid


def open_to_write() -> None:
    os.close(os.open("/dev/null", os.O_WRONLY))


def ordinary() -> None:
    """What `watch` itself goes on to do."""
    assert psutil.net_if_addrs()["lo"]
    assert socket.if_nameindex()
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    with open("/proc/self/stat", "rb") as file:
        assert file.read()


def main() -> None:
    if "no_seccomp" in sys.argv:
        sys.modules["seccomp"] = None  # type: ignore[assignment]  # so that it can't be imported
    kept = frozenset(
        Capability[argument.removeprefix("keeps_").upper()]
        for argument in sys.argv
        if argument.startswith("keeps_") and argument != "keeps_the_tap"
    )
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    to_somebody = struct.pack("=HHiHBB8s", socket.AF_PACKET, 0x0008, 1, 0, 0, 6, bytes(8))
    neighbour, roots, known_map = process_of_nobody(), os.getppid(), new_map()
    programs = ("/bin/true",) if "starts_programs" in sys.argv else ()
    needs = keepers_needs() if "keeps_the_tap" in sys.argv else Needs(kept, programs)
    give_up(to_become("nobody"), needs)
    attempts: dict[str, Callable[[], Any]] = {
        "mount": lambda: libc_call(libc.mount, b"none", b"/mnt", b"tmpfs", ctypes.c_uint64(0), None),
        "read the memory of a process of root's": lambda: open(f"/proc/{roots}/mem", "rb").close(),
        "perf events": call(SYS_PERF_EVENT_OPEN, bytes(128), -1, 0, -1, 0),
        "read /etc/shadow": lambda: open("/etc/shadow", "rb").close(),
        "become root": lambda: os.setuid(0),
        "fork": fork,
        "execve": lambda: os.execv("/nonexistent", ["nonexistent"]),
        "write a file": open_to_write,
        "openat2": call(SYS_OPENAT2, -100, b"/dev/null", bytes(24), 24),
        "clone3": clone3,
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
        "TCP socket": lambda: socket.socket().close(),
        "connect": lambda: tcp.connect(("127.0.0.1", 1)),
        "send a datagram": lambda: udp.sendto(b"secret", ("127.0.0.1", 9)),
        "send a packet": call(SYS_SENDTO, packets.fileno(), b"secret", 6, 0, to_somebody, 20),
        "promiscuous mode": lambda: packets.setsockopt(263, 1, struct.pack("=iHH8s", 1, 1, 0, bytes(8))),
        "make a BPF map": make_map,
        "ptrace": call(SYS_PTRACE, PTRACE_SEIZE, neighbour, 0, 0),
        "signal a process of the same user": lambda: os.kill(neighbour, 0),
        "name space of users, by clone": clone_into_name_space,
        "name space of users": call(SYS_UNSHARE, CLONE_NEWUSER),
        "io_uring": call(SYS_IO_URING_SETUP, 1, bytes(120)),
        "look into a BPF map": lambda: look_into_map(known_map),
        "ordinary work": ordinary,
    }
    print(json.dumps({name: outcome(attempt) for name, attempt in attempts.items()}))


if __name__ == "__main__":
    main()
