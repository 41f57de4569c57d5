"""filter.c and what belongs to it, compiled and loaded by bcc, and the ways into its maps."""

import mmap
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_ulonglong, create_string_buffer
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from probes.probe import ProbeUnavailable, Verdict

_FOLDER: Final = Path(__file__).parent
_SOURCES: Final = ("event.c", "packet.c", "appetite.c", "filter.c")
"""One text for the compiler, in this order: bcc understands its maps only in the main file."""
_FUNCTION: Final = b"hand_up_watched"

FLOWS: Final = 65_536
"""Connections of which the filter knows what nobody needs: as many as monitor.sessions follows. One that it
has forgotten is handed up whole. The kernel needs some 200 bytes for each, at once."""

# `struct flow_key` and `struct flow` of appetite.c.
FLOW_KEY_BYTES: Final = 36
FLOW_BYTES: Final = 88

# `enum verdict` of event.c.
_VERDICTS: Final = {1: Verdict.OTHER_PORT, 2: Verdict.NOT_TCP, 3: Verdict.MALFORMED, 5: Verdict.UNNEEDED}
_RING_BUFFER_FULL: Final = 4

# linux/capability.h. CAP_SYS_ADMIN includes CAP_BPF.
_CAP_NET_RAW: Final = 13
_CAP_SYS_ADMIN: Final = 21
_CAP_BPF: Final = 39

_USE_PCAP: Final = "or let `--probe auto` capture with libpcap"


class Program:
    """The loaded filter, not yet attached to anything.

    `ring_bytes` is the size of the ring buffer: a power of 2, and whole pages.
    Raises ProbeUnavailable.
    """

    def __init__(
        self, ports: frozenset[int], ring_bytes: int, *, flows: int = FLOWS, appetite: bool = True
    ) -> None:
        """`appetite`: False to hand up everything."""
        bcc = _import_bcc()
        _check_capabilities()
        constants = {
            "PAGE_SIZE": mmap.PAGESIZE,
            "RING_PAGES": ring_bytes // mmap.PAGESIZE,
            "FLOWS": flows,
            "APPETITE": int(appetite),
        }
        with _standard_error_kept() as said:
            self._bpf = _compile(bcc, constants, said)
            try:
                self.descriptor: int = self._bpf.load_func(_FUNCTION, bcc.BPF.SOCKET_FILTER).fd
            except Exception as error:  # bcc raises no other class
                self._bpf.cleanup()
                raise _refused(said(), str(error)) from None
        watched = self._bpf[b"watched_ports"]
        for word in {port // 64 for port in ports}:
            bits = sum(1 << port % 64 for port in ports if port // 64 == word)
            watched[c_int(word)] = c_ulonglong(bits)
        self._passed_by = self._bpf[b"passed_by"]
        self._maps = bcc.lib
        self._flows: int = self._bpf[b"flows"].map_fd
        self._asked: int = self._bpf[b"asked"].map_fd
        self._flow = create_string_buffer(FLOW_BYTES)
        self.events: int = self._bpf[b"events"].map_fd
        """Descriptor of the ring buffer; see probes.ebpf.ring."""

    def flow(self, key: bytes) -> bytes | None:
        """What the filter keeps of a connection (`struct flow`). `key`: FLOW_KEY_BYTES."""
        missing = self._maps.bpf_lookup_elem(self._flows, key, self._flow)
        return None if missing else self._flow.raw

    def forget_flow(self, key: bytes) -> None:
        self._maps.bpf_delete_elem(self._flows, key)

    def ask(self, key: bytes, what: bytes) -> None:
        """Tells the filter which bytes of a connection nobody needs (`struct ask`)."""
        self._maps.bpf_update_elem(self._asked, key, what, 0)

    def passed_by(self) -> dict[Verdict, int]:
        """Packets that the filter saw and did not hand up, since it was loaded."""
        return {verdict: self._count(index) for index, verdict in _VERDICTS.items()}

    def dropped(self) -> int:
        """Segments which found the ring buffer full, since the filter was loaded."""
        return self._count(_RING_BUFFER_FULL)

    def _count(self, index: int) -> int:
        return sum(self._passed_by[c_int(index)])

    def close(self) -> None:
        self._bpf.cleanup()


def why_unavailable() -> ProbeUnavailable | None:
    """Why the eBPF probe can't run here, found by loading its filter; None when it can.

    Nothing stays behind. An interface is not needed.
    """
    try:
        Program(frozenset(), mmap.PAGESIZE, flows=1_024).close()
    except ProbeUnavailable as reason:
        return reason
    return None


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


def _check_capabilities() -> None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            break
    missing = [] if held >> _CAP_NET_RAW & 1 else ["CAP_NET_RAW"]
    if not (held >> _CAP_BPF & 1 or held >> _CAP_SYS_ADMIN & 1):
        missing.append("CAP_BPF")
    if missing:
        raise ProbeUnavailable(
            f"no privilege to capture with eBPF: {' and '.join(missing)} missing",
            "run it as root, or grant CAP_NET_RAW and CAP_BPF (systemd: AmbientCapabilities=)",
        )


def _compile(bcc: ModuleType, constants: dict[str, int], said: Callable[[], str]) -> Any:
    before = os.environ.get("BCC_KERNEL_SOURCE")
    os.environ["BCC_KERNEL_SOURCE"] = str(_FOLDER / "kernel_source")
    try:
        text = "".join(f'#line 1 "{name}"\n{(_FOLDER / name).read_text()}' for name in _SOURCES)
        return bcc.BPF(text=text.encode(), cflags=[f"-D{name}={value}" for name, value in constants.items()])
    except Exception as error:  # bcc raises no other class
        raise _refused(said(), str(error)) from None
    finally:
        if before is None:
            del os.environ["BCC_KERNEL_SOURCE"]
        else:
            os.environ["BCC_KERNEL_SOURCE"] = before


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
