"""Compiles and loads the filter, and hands over what the kernel gave: a process of its own.

bcc brings a compiler of 150 MB, which nobody needs once the filter is loaded: it goes with this process. What
stays are descriptors, of the program and of its maps. `probes.ebpf.program` starts it:

    python -m probes.ebpf.loader SOCKET FOLDER CONSTANTS PORTS

It answers on the descriptor SOCKET with one message of JSON, and the descriptors where it succeeded.
"""

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_ulonglong
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from probes.capabilities import Capability, in_effect
from probes.probe import ProbeUnavailable

SOURCES: Final = ("event.c", "packet.c", "handshake.c", "appetite.c", "filter.c")
"""One text for the compiler, in this order: bcc understands its maps only in the main file."""
MAPS: Final = ("events", "flows", "asked", "handshakes", "handshake_counts", "passed_by")
"""The maps whose descriptors follow the program's, in this order."""
_FUNCTION: Final = b"hand_up_watched"

_USE_PCAP: Final = "or let `--probe auto` capture with libpcap"


def main() -> None:
    answer_to, folder, constants, ports = sys.argv[1:]
    with socket.socket(fileno=int(answer_to)) as parent:
        try:
            descriptors = _load(Path(folder), json.loads(constants), json.loads(ports))
        except ProbeUnavailable as reason:
            said = {"message": str(reason).removesuffix(f"; {reason.remedy}"), "remedy": reason.remedy}
            parent.sendall(json.dumps(said).encode())
        else:
            socket.send_fds(parent, [b"{}"], descriptors)


def _load(folder: Path, constants: dict[str, int], ports: list[int]) -> list[int]:
    """Descriptors of the program and of MAPS. Raises ProbeUnavailable."""
    bcc = _import_bcc()
    held = in_effect()
    _check(held)
    if not held & {Capability.PERFMON, Capability.SYS_ADMIN}:
        # Without it the kernel lets no program walk through a packet's bytes: against speculative reading.
        constants["APPETITE"] = 0
    with _standard_error_kept() as said:
        bpf = _compile(bcc, folder, constants, said)
        try:
            program: int = bpf.load_func(_FUNCTION, bcc.BPF.SOCKET_FILTER).fd
        except Exception as error:  # bcc raises no other class
            raise _refused(said(), str(error)) from None
    watched = bpf[b"watched_ports"]
    for word in {port // 64 for port in ports}:
        bits = sum(1 << port % 64 for port in ports if port // 64 == word)
        watched[c_int(word)] = c_ulonglong(bits)
    return [program, *(bpf[name.encode()].map_fd for name in MAPS)]


def _import_bcc() -> ModuleType:
    try:
        import bcc  # noqa: PLC0415  only who captures live needs it
    except (ImportError, OSError) as error:
        raise ProbeUnavailable(
            f"the eBPF probe needs bcc, and Python can't import it ({_first_line(str(error))})",
            "run `apt-get install python3-bpfcc` and use a virtual environment made by "
            f"`/usr/bin/python3 -m venv --system-site-packages`, {_USE_PCAP}",
        ) from None
    if not hasattr(bcc, "BPF"):
        raise ProbeUnavailable(
            f"the bcc that Python imports is not the BPF Compiler Collection ({bcc.__file__})",
            "run `pip uninstall bcc` and `apt-get install python3-bpfcc`",
        )
    return bcc  # type: ignore[no-any-return]


def _check(held: frozenset[int]) -> None:
    """Raises ProbeUnavailable where capabilities are missing."""
    missing = [] if Capability.NET_RAW in held else ["CAP_NET_RAW"]
    if not held & {Capability.BPF, Capability.SYS_ADMIN}:
        missing.append("CAP_BPF")
    if missing:
        raise ProbeUnavailable(
            f"no privilege to capture with eBPF: {' and '.join(missing)} missing",
            "run it as root, or grant CAP_NET_RAW and CAP_BPF (systemd: AmbientCapabilities=)",
        )


def _compile(bcc: ModuleType, folder: Path, constants: dict[str, int], said: Callable[[], str]) -> Any:
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "kernel_source")
    text = "".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in SOURCES)
    try:
        return bcc.BPF(text=text.encode(), cflags=[f"-D{name}={value}" for name, value in constants.items()])
    except Exception as error:  # bcc raises no other class
        raise _refused(said(), str(error)) from None


def _refused(said: str, error: str) -> ProbeUnavailable:
    """Tells a kernel that forbids from a kernel or compiler that can't."""
    if "Operation not permitted" in said or "super-user privileges" in error:
        return ProbeUnavailable(
            "the kernel forbids BPF here (a container, seccomp, a limit on locked memory or lockdown)",
            f"run it on the host or with CAP_BPF in the first user namespace, {_USE_PCAP}",
        )
    return ProbeUnavailable(
        f"the eBPF filter can't be loaded: {_first_line(said) or _first_line(error)}",
        f"it needs Linux 5.8 or newer with BPF (here: {platform.release()}), {_USE_PCAP}",
    )


def _first_line(text: str) -> str:
    """The first line that names an error, or else the first of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")


@contextmanager
def _standard_error_kept() -> Iterator[Callable[[], str]]:
    """Keeps what libbcc and clang write to standard error; gives a function that tells it.

    They write to the descriptor, so it is the descriptor that must be turned aside.
    """
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as kept:

        def said() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


if __name__ == "__main__":
    main()
