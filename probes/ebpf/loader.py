"""Compiles and loads programs for the kernel, and hands over what it gave: a process of its own.

bcc brings a compiler of 150 MB, which nobody needs once the programs are loaded: it goes with this process.
What stays are descriptors, of programs and of maps. `probes.ebpf.loading` starts it:

    python -I -m probes.ebpf.loader SOCKET BUILD

It answers on the descriptor SOCKET with one message of JSON, and the descriptors where it succeeded.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_ulonglong
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from probes.capabilities import Capability, in_effect
from probes.ebpf.loading import Answer, Build, ProgramKind
from probes.ebpf.refusal import RejectedError, first_error, why_refused
from probes.probe import ProbeUnavailable

_EDGE_BYTES: Final = 65_536
"""How much is read at the beginning and at the end of what libbcc and clang said. Between them may be 100 MB:
a line for each instruction that the verifier walked."""

KERNEL_SOURCE: Final = Path(__file__).parent / "kernel_source"
_IN_SYS_ADMIN: Final = frozenset({Capability.BPF, Capability.PERFMON})
"""What that includes, as before Linux 5.8 there was nothing finer."""


def main() -> None:
    answer_to, build = sys.argv[1], msgspec.json.decode(sys.argv[2], type=Build)
    with socket.socket(fileno=int(answer_to)) as parent:
        try:
            answer, descriptors = _load_best(build)
        except ProbeUnavailable as reason:
            said = Answer(str(reason).removesuffix(f"; {reason.remedy}"), reason.remedy)
            parent.sendall(msgspec.json.encode(said))
        else:
            socket.send_fds(parent, [msgspec.json.encode(answer)], descriptors)


def _load_best(build: Build) -> tuple[Answer, list[int]]:
    """The first variant that this process may load, and that the verifier takes. Any other refusal would be
    the same for all of them. Raises ProbeUnavailable."""
    bcc = _import_bcc(build)
    held = in_effect()
    _check(held, build)
    why_not: list[str] = []
    rejected: dict[tuple[tuple[str, int], ...], RejectedError] = {}
    for variant in build.variants:
        if missing := _missing(held, variant.capabilities):
            why_not.append(f"{' and '.join(missing)} missing")
            continue
        constants = tuple(variant.constants.items())
        if constants in rejected:
            continue
        try:
            descriptors = _load(bcc, build, build.constants | variant.constants)
        except RejectedError as reason:
            rejected[constants] = reason
            why_not.append(f"the kernel's verifier rejects it: {reason}")
        else:
            return Answer(variant=variant.name, why_not_better=why_not[0] if why_not else ""), descriptors
    last = list(rejected.values())[-1]
    raise last.unavailable(build)


def _load(bcc: ModuleType, build: Build, constants: dict[str, int]) -> list[int]:
    """Descriptors of the programs and of the maps. Raises ProbeUnavailable, RejectedError."""
    kinds = {
        ProgramKind.SOCKET_FILTER: bcc.BPF.SOCKET_FILTER,
        ProgramKind.PROBE: bcc.BPF.KPROBE,
        ProgramKind.TRACEPOINT: bcc.BPF.TRACEPOINT,
    }
    programs: dict[str, int] = {}
    bpf = None
    with _standard_error_kept() as said:
        try:
            bpf = _compile(bcc, build, constants)
            for name, kind in build.programs.items():
                programs[name] = bpf.load_func(name.encode(), kinds[kind]).fd
        except Exception as error:  # bcc raises no other class
            if bpf is not None:
                bpf.cleanup()  # its maps, before another variant's are made
            raise why_refused(said(), str(error), build) from None
    watched = bpf[b"watched_ports"]
    for word in {port // 64 for port in build.ports}:
        bits = sum(1 << port % 64 for port in build.ports if port // 64 == word)
        watched[c_int(word)] = c_ulonglong(bits)
    for table, names in build.turns.items():
        for place, name in enumerate(names):
            bpf[table.encode()][c_int(place)] = c_int(programs[name])
    return [*programs.values(), *(bpf[name.encode()].map_fd for name in build.maps)]


def _import_bcc(build: Build) -> ModuleType:
    try:
        import bcc  # noqa: PLC0415  only who captures live needs it
    except (ImportError, OSError) as error:
        raise ProbeUnavailable(
            f"the {build.whose} needs bcc, and Python can't import it ({first_error(str(error))})",
            "run `apt-get install python3-bpfcc` and use a virtual environment made by "
            f"`/usr/bin/python3 -m venv --system-site-packages`, {build.instead}",
        ) from None
    if not hasattr(bcc, "BPF"):
        raise ProbeUnavailable(
            f"the bcc that Python imports is not the BPF Compiler Collection ({bcc.__file__})",
            "run `pip uninstall bcc` and `apt-get install python3-bpfcc`",
        )
    return bcc  # type: ignore[no-any-return]


def _check(held: frozenset[int], build: Build) -> None:
    """Raises ProbeUnavailable where capabilities are missing."""
    if missing := _missing(held, build.capabilities):
        wanted = " and ".join(map(_capability, build.capabilities))
        raise ProbeUnavailable(
            f"no privilege {build.purpose}: {' and '.join(missing)} missing",
            f"run it as root, or grant {wanted} (systemd: AmbientCapabilities=)",
        )


def _missing(held: frozenset[int], wanted: Iterable[int]) -> list[str]:
    """The names of those that are not held."""
    everything = Capability.SYS_ADMIN in held
    return [
        _capability(number)
        for number in wanted
        if number not in held and not (everything and number in _IN_SYS_ADMIN)
    ]


def _capability(number: int) -> str:
    return f"CAP_{Capability(number).name}"


def _compile(bcc: ModuleType, build: Build, constants: dict[str, int]) -> Any:
    """With the maps, which bcc makes at once."""
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_SOURCE)
    # One text: bcc understands its maps only in the main file.
    text = "".join(f'#line 1 "{Path(source).name}"\n{Path(source).read_text()}' for source in build.sources)
    cflags = [f"-D{name}={value}" for name, value in constants.items()]
    return bcc.BPF(text=text.encode(), cflags=cflags)


@contextmanager
def _standard_error_kept() -> Iterator[Callable[[], str]]:
    """Keeps what libbcc and clang write to standard error. Gives a function that tells it, or
    how it begins and ends.

    They write to the descriptor, so it is the descriptor that must be turned aside.
    """
    sys.stderr.flush()
    standard_error = os.dup(2)
    with open(os.memfd_create("said"), "w+b") as kept:  # no file: the disk may be full, /tmp read-only

        def said() -> str:
            size = kept.seek(0, os.SEEK_END)
            kept.seek(0)
            begin = kept.read(_EDGE_BYTES)
            kept.seek(max(len(begin), size - _EDGE_BYTES))
            return (begin + kept.read()).decode(errors="replace")

        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


if __name__ == "__main__":
    main()
