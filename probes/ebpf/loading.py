"""What is compiled for the kernel, and how it is loaded: in a process of its own, which ends then."""

import socket
import subprocess
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from probes import isolation
from probes.probe import ProbeUnavailable

LIBBPF: Final = "libbpf.so.1"  # bcc's library brings it

_ANSWER_BYTES: Final = 65_536


class ProgramKind(StrEnum):
    """Where a program is called, and so what it is given."""

    SOCKET_FILTER = "socket_filter"
    PROBE = "probe"
    """At a function, or where it returns: the processor's registers."""
    TRACEPOINT = "tracepoint"


class Variant(Struct, frozen=True):
    """One of several programs for the same: the first that the kernel takes is loaded."""

    name: str
    constants: dict[str, int]
    """For the compiler, beside the build's."""
    capabilities: tuple[int, ...] = ()
    """Without which it is not tried."""


class Build(Struct, kw_only=True):
    """What `probes.ebpf.loader` compiles and loads."""

    sources: list[str]
    """Paths of C files, which are compiled as one text in this order."""
    constants: dict[str, int]
    """For the compiler."""
    variants: tuple[Variant, ...] = (Variant("", {}),)
    """The best first."""
    ports: list[int]
    """Those which are watched: the map `watched_ports` has them."""
    programs: dict[str, ProgramKind]
    """By the name of its function."""
    turns: dict[str, list[str]] = {}
    """Tables of programs that go on for others, by name: which programs stand in it."""
    maps: list[str]
    capabilities: list[int]
    """Without which it can't be loaded."""
    whose: str
    """Who needs it, what it is, for what, and what else could be done: for whoever reads why it failed."""
    what: str
    purpose: str
    instead: str


class Answer(Struct):
    """Of the loader."""

    message: str = ""
    remedy: str = ""
    """Both empty where it succeeded."""
    variant: str = ""
    why_not_better: str = ""


class Loaded(NamedTuple):
    programs: dict[str, int]
    """Their descriptors, by name."""
    maps: dict[str, int]
    variant: str
    why_not_better: str
    """Why the first variant was not loaded; empty where it was."""


def load(build: Build) -> Loaded:
    """Raises ProbeUnavailable."""
    names = [*build.programs, *build.maps]
    here, there = socket.socketpair()
    with here, there:
        finished = subprocess.run(  # noqa: S603  ourselves
            isolation.python("probes.ebpf.loader", str(there.fileno()), msgspec.json.encode(build).decode()),
            cwd=isolation.FOLDER,
            env=isolation.ENVIRONMENT,
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        there.close()
        answer, descriptors, _, _ = socket.recv_fds(here, _ANSWER_BYTES, len(names))
    if len(descriptors) == len(names):
        said = msgspec.json.decode(answer, type=Answer)
        found = dict(zip(names, descriptors, strict=True))
        return Loaded(
            {name: found[name] for name in build.programs},
            {name: found[name] for name in build.maps},
            said.variant,
            said.why_not_better,
        )
    for descriptor in descriptors:
        socket.close(descriptor)
    if not answer:
        lines = finished.stderr.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise ProbeUnavailable(
            f"the compiler of the {build.what} ended early ({last})", "see `smtp-horizon doctor`"
        )
    said = msgspec.json.decode(answer, type=Answer)
    raise ProbeUnavailable(said.message, said.remedy)
