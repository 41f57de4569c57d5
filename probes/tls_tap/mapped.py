"""The TLS libraries of one process: those that it has mapped, and those that lie where it would look.

Processes end while one looks at them, and that is nothing to raise for: they have none then. To look into
other users' processes takes CAP_SYS_PTRACE.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from probes.tls_tap.roots import Root, root_of

_MAPPED: Final = re.compile(
    # addresses, rights, offset, device, inode, path: proc_pid_maps(5). The hash in the name is from where a
    # Python wheel brought the library. NSS' libssl3.so is none of these.
    rb"^([0-9a-f]+-[0-9a-f]+) r-xp [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+) +"
    rb"(/[^\n]*/lib(?:ssl|gnutls)(?:-[0-9a-f]{6,})?\.so[\w.-]*)( \(deleted\))?$",
    re.MULTILINE,
)
_MAPS_BYTES: Final = 4 << 20
"""Of one process' maps: 20 kB for Postfix, some 300 kB for a JVM. Its owner can make more of them."""
_LIBRARIES: Final = 8
"""Of one process; chosen as more than anybody has."""

_FOLDERS: Final = ("usr/lib", "usr/lib64", "usr/local/lib", "lib", "lib64")
"""Where loaders look, and below it the multiarch folders."""
_MULTIARCH: Final = re.compile(r"\w+-linux-\w+")
_INSTALLED: Final = re.compile(r"lib(?:ssl|gnutls)\.so\.[\d.]+")


class Identity(NamedTuple):
    """A file, whatever its name: device and inode as they stand in /proc/PID/maps.

    stat(2) has another device for it on btrfs, and before Linux 6.8 on overlayfs. The same file of an image
    may have one for each container; `roots.real_file` tells whether two are one.
    """

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class TlsLibrary:
    identity: Identity
    pid: int
    """A process that has it mapped, or in whose root it lies."""
    path: str
    """As the process sees it; where it is mapped, as it was seen before a chroot."""
    addresses: str | None = None
    """Where it is mapped, as /proc/PID/map_files names it. None where it is only installed."""
    is_deleted: bool = False
    """It was removed or replaced since: what starts now maps another."""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


def libraries_of(pid: int) -> list[TlsLibrary]:
    """Those that the process has mapped, to run what is in them."""
    found: dict[Identity, TlsLibrary] = {}
    for match in _MAPPED.finditer(_maps(pid)):
        addresses, major, minor, inode, path, deleted = match.groups()
        identity = Identity(os.makedev(int(major, 16), int(minor, 16)), int(inode))
        if identity not in found:
            where = os.fsdecode(path)
            found[identity] = TlsLibrary(identity, pid, where, addresses.decode(), deleted is not None)
        if len(found) == _LIBRARIES:
            break
    return list(found.values())


def installed_for(pid: int) -> list[TlsLibrary]:
    """Those in the default folders of the process' root."""
    found: dict[Identity, TlsLibrary] = {}
    with suppress(OSError), root_of(pid) as root:
        for path in _installed(root):
            if (status := root.stat(path)) is not None:
                identity = Identity(status.st_dev, status.st_ino)
                found.setdefault(identity, TlsLibrary(identity, pid, f"/{path}"))
            if len(found) == _LIBRARIES:
                break
    return list(found.values())


def _installed(root: Root) -> Iterator[str]:
    for folder in _FOLDERS:
        below = [f"{folder}/{name}" for name in root.names(folder) if _MULTIARCH.fullmatch(name)]
        for place in (folder, *sorted(below)):
            yield from (f"{place}/{name}" for name in sorted(root.names(place)) if _INSTALLED.fullmatch(name))


def open_library(library: TlsLibrary) -> int:
    """A descriptor to read it by, and to attach to it by `/proc/self/fd/DESCRIPTOR`: the file itself, though
    it may have been replaced or its process may see it no more.

    Raises FileNotFoundError where it is out of reach: the process has ended, say, or another file is there
    now.
    """
    for descriptor in _ways(library):
        if _is_the_one(library.identity, os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)
    raise FileNotFoundError(f"{library.path} of process {library.pid} is gone, or another file now")


def _ways(library: TlsLibrary) -> Iterator[int]:
    """To open it; the best comes first."""
    if library.addresses is not None:
        # Whatever became of its name. Takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
        with suppress(OSError):
            yield os.open(f"/proc/{library.pid}/map_files/{library.addresses}", os.O_RDONLY)
    # Postfix' smtpd changes its root once all libraries are loaded; then the name is one of ours.
    for pid in (library.pid, os.getpid()) if library.addresses is not None else (library.pid,):
        with suppress(OSError), root_of(pid) as root:
            yield root.open(library.path)


def _is_the_one(identity: Identity, status: os.stat_result) -> bool:
    is_device_sure = os.major(identity.device) != 0 and os.major(status.st_dev) != 0
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_ino == identity.inode
        and (status.st_dev == identity.device or not is_device_sure)
    )


def _maps(pid: int) -> bytes:
    """In pieces, as the kernel hands it out, until it is enough."""
    pieces: list[bytes] = []
    length = 0
    try:
        with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
            while length < _MAPS_BYTES and (piece := file.read(65_536)):
                pieces.append(piece)
                length += len(piece)
    except OSError:
        return b""
    return b"".join(pieces)
