"""Which processes are mail servers, in every network namespace of this machine, and which TLS libraries they
use.

All of it is read from /proc, and processes end meanwhile: what is gone is left out, and nothing here raises
for it. So is what may not be looked into without CAP_SYS_PTRACE.

No psutil: it knows neither other network namespaces nor which file is mapped, and it is more than what reads
these few files.
"""

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from probes.tls_tap.linkage import Linkage, linkage_of
from probes.tls_tap.mapped import Identity, TlsLibrary, installed_for, libraries_of

_INIT: Final = 1
"""It holds the sockets of socket units, and is everybody's ancestor."""

# /proc/PID/net/tcp: fields of a line, and the state of one who listens (include/net/tcp_states.h).
_LOCAL, _STATE, _INODE = 1, 3, 9
_LISTENS: Final = "0A"


@dataclass(slots=True)
class MailServer:
    """Who listens with one socket, or with some."""

    pid: int
    """The eldest of those that hold the socket."""
    name: str
    """As `ps -o comm` shows it."""
    ports: set[int] = field(default_factory=set)
    processes: set[int] = field(default_factory=set)
    """Those that hold a socket, and their descendants."""
    mapped: dict[Identity, TlsLibrary] = field(default_factory=dict)
    installed: dict[Identity, TlsLibrary] = field(default_factory=dict)
    """Where no process has one mapped that the next would map too: what lies in the default folders of its
    root. Postfix' master has none, and its smtpd come with the connections."""
    linkage: Linkage | None = None
    """Of what listens. Only asked where no process has a library mapped."""

    @property
    def libraries(self) -> list[TlsLibrary]:
        """Those that a tap has to attach to."""
        return [*self.mapped.values(), *self.installed.values()]

    @property
    def why_out_of_reach(self) -> str | None:
        """The rest of a sentence that begins with its name. None where a tap reaches it, as far as can be
        told before it speaks TLS."""
        if self.mapped or self.installed:
            return None
        if self.linkage is Linkage.GO:
            return "is a Go program: its TLS is out of reach"
        if self.linkage is Linkage.STATIC:
            return "is statically linked: its TLS is out of reach"
        return "runs where neither OpenSSL's nor GnuTLS' library is: its TLS is out of reach"

    @property
    def is_elsewhere(self) -> bool:
        """It has another network than this process: a container's, say."""
        return _network(self.pid) not in (None, _network(os.getpid()))


class MailServers(NamedTuple):
    seen: list[MailServer]
    unseen: set[int]
    """Ports on which somebody listens whom this user may not look at, or who is the kernel."""


def mail_servers(ports: Container[int]) -> MailServers:
    """Those that listen on these ports, in every network namespace of which a process is seen from here.

    On a machine with 2,000 processes it takes 0.15 s, and 0.3 s if all of them are mail servers.
    """
    processes = _processes()
    listening = dict(_listening(_one_of_each_network(processes), ports))
    holders = _holders(processes, listening.keys()) if listening else {}
    children = _children(processes) if holders else {}
    servers: dict[int, MailServer] = {}
    for inode, pids in holders.items():
        # Those who hold it have it from the one who made it, unless that has ended.
        eldest = min(pids, key=_started)
        server = servers.setdefault(eldest, MailServer(eldest, _name(eldest)))
        server.ports.add(listening[inode])
        server.processes |= _families(pids, children)
    for server in servers.values():
        _look_for_libraries(server)
    seen = sorted(servers.values(), key=lambda server: (min(server.ports), server.pid))
    return MailServers(seen, {port for inode, port in listening.items() if inode not in holders})


def _look_for_libraries(server: MailServer) -> None:
    # The eldest first: it is the least likely to end before its library is opened.
    for pid in sorted(server.processes, key=lambda pid: (pid != server.pid, pid)):
        for library in libraries_of(pid):
            server.mapped.setdefault(library.identity, library)
    if not server.mapped:
        server.linkage = linkage_of(server.pid)
        if server.linkage in (Linkage.GO, Linkage.STATIC):
            return
    if all(library.is_deleted for library in server.mapped.values()):
        server.installed = {library.identity: library for library in installed_for(server.pid)}


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _one_of_each_network(processes: Iterable[int]) -> list[int]:
    """A process of each network namespace."""
    seen: dict[str, int] = {}
    for pid in processes:
        if (network := _network(pid)) is not None:
            seen.setdefault(network, pid)
    return list(seen.values())


def _network(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def _listening(processes: Iterable[int], ports: Container[int]) -> Iterator[tuple[int, int]]:
    """Inodes of the sockets that listen in these processes' networks, and their ports."""
    for pid in processes:
        for family in ("tcp", "tcp6"):
            try:
                with open(f"/proc/{pid}/net/{family}", encoding="ascii") as table:
                    next(table, None)
                    for line in table:
                        fields = line.split()
                        # Who listens comes first: tcp_seq_next() in net/ipv4/tcp_ipv4.c
                        if fields[_STATE] != _LISTENS:
                            break
                        port = int(fields[_LOCAL].rpartition(":")[2], 16)
                        if port in ports:
                            yield int(fields[_INODE]), port
            except OSError:
                continue


def _holders(processes: Iterable[int], inodes: Container[int]) -> dict[int, list[int]]:
    """Socket inode -> the processes that have it open."""
    found: dict[int, list[int]] = {}
    for pid in processes:
        folder = f"/proc/{pid}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{folder}/{descriptor}")
            except OSError:
                continue
            if target.startswith("socket:[") and (inode := int(target[8:-1])) in inodes:
                pids = found.setdefault(inode, [])
                if pid not in pids:
                    pids.append(pid)
    return found


def _children(processes: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for pid in processes:
        if (fields := _status(pid)) is not None:
            found.setdefault(int(fields[1]), []).append(pid)
    return found


def _families(pids: Iterable[int], children: dict[int, list[int]]) -> set[int]:
    """They and their descendants."""
    waiting, found = list(pids), set[int]()
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            if pid != _INIT:
                waiting.extend(children.get(pid, ()))
    return found


def _started(pid: int) -> tuple[int, int]:
    """For comparing: when, in ticks. One that has ended is the youngest."""
    fields = _status(pid)
    return (int(fields[19]), pid) if fields is not None else (1 << 64, pid)


def _status(pid: int) -> list[bytes] | None:
    """/proc/PID/stat from the third field on: the name before may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().rstrip("\n")
    except OSError:
        return "?"
    return "".join(character if character.isprintable() else "?" for character in name)
