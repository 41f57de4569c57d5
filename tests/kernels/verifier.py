"""What each kernel's verifier says of every program: whether it loads, and how many instructions were walked.

Each of Debian's kernels boots with nothing but busybox and `try_programs`, which takes seconds.
"""

import os
import platform
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any, Final

from probes.tls_tap.program import RECEIVED
from scripts.native import ROOT
from tests.kernels.archive import Archive
from tests.kernels.debian import Kernel
from tests.kernels.machine import END, RESULTS, MachineError, boot, parsed
from tests.kernels.recording import FULL, INDEX, PLAIN, TAP, Recording
from tests.kernels.tools import busybox

MOST_WALKED: Final = 700_000
"""Of the 1,000,000 that the kernel allows (BPF_COMPLEXITY_LIMIT_INSNS): a compiler of another version, or a
kernel that was updated, must not be what takes the rest."""
WITHOUT_PERFMON: Final = "plain, without CAP_PERFMON"

_PROGRAM: Final = Path(__file__).with_name("try_programs.c")
_TRACEPOINT_FILE: Final = "tracepoint"
_SECONDS: Final = 180.0
_LAST_LINES: Final = 6
_WIDTH: Final = 150
_MEMORY_MB: Final = 1024

# try_programs.c
_SET: Final = struct.Struct("=64sIII")
_MAP: Final = struct.Struct("=5I")
_CODE: Final = struct.Struct("=64sII")

_MOUNTS: Final = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev 2>/dev/null
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b stty -F {results} raw 2>/dev/null
"""
_LOOK: Final = """\
$b mount -t tracefs trace /sys/kernel/tracing
$b od -An -v -tx1 /sys/kernel/tracing/events/{group}/{name}/format | $b tr -d ' \\n' > /format
echo '{{"format": "'$($b cat /format)'"}}' > {results}
echo '{end}' > {results}
$b poweroff -f
"""
_TRY: Final = """\
/try_programs /programs > {results}
echo '{{"status": '$?'}}' > {results}
echo '{end}' > {results}
$b poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    kernel: str
    name: str
    """The set's."""
    program: str
    instructions: int
    walked: int
    refused: str
    attaching: str | None
    """Why it could not be attached to a socket; empty where it could, None where it is no filter, or was
    refused."""
    words: str
    """The verifier's last ones."""

    @property
    def faults(self) -> list[str]:
        where = f"{self.kernel}: {self.name}: {self.program}"
        if self.refused:
            last = [line[:_WIDTH] for line in self.words.splitlines() if line.strip()][-_LAST_LINES:]
            return [f"{where} is rejected ({self.refused}):", *(f"    | {line}" for line in last)]
        found = []
        if self.walked > MOST_WALKED:
            found.append(f"{where}: {self.walked:,} instructions walked, over {MOST_WALKED:,}")
        if self.walked < 0:
            found.append(f"{where}: the verifier did not say how many instructions it walked")
        return found


def not_attached(verdicts: Sequence[Verdict]) -> list[str]:
    """Filters that no socket takes. Where a set has several, the first one that can be attached leads to
    the others."""
    found = []
    for kernel, name in dict.fromkeys((one.kernel, one.name) for one in verdicts):
        filters = [
            one for one in verdicts if (one.kernel, one.name) == (kernel, name) and one.attaching is not None
        ]
        if filters and all(one.attaching for one in filters):
            found.append(f"{kernel}: {name} can't be attached to a socket: {filters[0].attaching}")
    return found


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the loader had compiled, in two folders: with all capabilities, and without CAP_PERFMON."""

    whole: Path
    confined: Path

    def packed(self, kernel: str) -> bytes:
        """For try_programs.c: what that kernel is to load."""
        sets = [*self._recordings(self.whole, (FULL, PLAIN, TAP + kernel))]
        confined = [*self._recordings(self.confined, (PLAIN,))]
        parts = [struct.pack("=I", len(sets) + len(confined))]
        parts += [_packed(name, recording, without_perfmon=False) for name, recording in sets]
        parts += [_packed(WITHOUT_PERFMON, recording, without_perfmon=True) for _, recording in confined]
        return b"".join(parts)

    def _recordings(self, folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Recording]]:
        index = loads((folder / INDEX).read_text())
        for name in names:
            for key in index[name]:
                yield "TLS tap" if name.startswith(TAP) else name, Recording.read(folder / f"{key}.json")


def record(folder: Path, kernels: Sequence[Kernel]) -> Recorded:
    """Compiles everything for these kernels and this machine's. Raises MachineError."""
    tracepoints = folder / "tracepoints"
    tracepoints.mkdir()
    for kernel in kernels:
        (tracepoints / kernel.release).write_text(_tracepoint(kernel))
    recorded = Recorded(folder / "whole", folder / "confined")
    ways: list[tuple[Path, list[str], list[Path]]] = [
        (recorded.whole, [], [tracepoints]),
        (recorded.confined, ["setpriv", "--bounding-set=-perfmon,-sys_admin"], []),
    ]
    for into, before, more in ways:
        into.mkdir()
        command: list[str | Path] = [*before, sys.executable, "-m", "tests.kernels.recorder", into, *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MachineError(f"the programs can't be compiled: {done.stderr.strip()[-1500:]}")
    return recorded


def compiled_loader(folder: Path) -> Path:
    program = folder / "try_programs"
    command: list[str | Path] = [
        "cc",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-static",
        "-o",
        program,
        _PROGRAM,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"{_PROGRAM.name} can't be compiled: {done.stderr.strip()}")
    return program


def verdicts(kernels: Sequence[Kernel], recorded: Recorded, folder: Path) -> list[Verdict]:
    """Of all kernels, this machine's last. Raises MachineError."""
    program = compiled_loader(folder)

    def inside(kernel: Kernel) -> list[Verdict]:
        return _in_machine(kernel, recorded, program, folder)

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as threads:
        found = [verdict for some in threads.map(inside, kernels) for verdict in some]
    return found + _here(recorded, program, folder)


def _in_machine(kernel: Kernel, recorded: Recorded, program: Path, folder: Path) -> list[Verdict]:
    initramfs = folder / f"{kernel.release}.cpio"
    with Archive(initramfs) as archive:
        _busybox(archive, _MOUNTS.format(results=RESULTS) + _TRY.format(results=RESULTS, end=dumps(END)))
        archive.file(program, "/try_programs")
        packed = folder / f"{kernel.release}.programs"
        packed.write_bytes(recorded.packed(kernel.release))
        archive.file(packed, "/programs")
    done = boot(
        kernel.image, initramfs, memory_mb=_MEMORY_MB, processors=1, seconds=_SECONDS, name=kernel.release
    )
    return _read(done.results, kernel.release)


def _here(recorded: Recorded, program: Path, folder: Path) -> list[Verdict]:
    release = platform.release()
    packed = folder / "here.programs"
    packed.write_bytes(recorded.packed(release))
    done = subprocess.run([program, packed], capture_output=True, text=True, timeout=_SECONDS, check=False)
    text = done.stdout + dumps({"status": done.returncode}) + "\n" + dumps(END)
    return _read(parsed(text, release, done.stderr), release)


def _read(results: list[dict[str, Any]], kernel: str) -> list[Verdict]:
    *tried, last = results
    if last != {"status": 0} or {one["kernel"] for one in tried} != {kernel}:
        raise MachineError(f"{kernel}: not all programs were tried: {last}, after {len(tried)}")
    return [
        Verdict(
            kernel=kernel,
            name=one["set"],
            program=one["program"],
            instructions=one["instructions"],
            walked=one["walked"],
            refused=one["refused"],
            attaching={"": None, "Success": ""}.get(one["attaching"], one["attaching"]),
            words=bytes.fromhex(one["words"]).decode(errors="replace"),
        )
        for one in tried
    ]


def _tracepoint(kernel: Kernel) -> str:
    """The description of the TLS tap's tracepoint there: asked of the kernel once, and kept beside it."""
    kept = kernel.folder / _TRACEPOINT_FILE
    if not kept.exists():
        group, name = RECEIVED
        with tempfile.TemporaryDirectory() as folder:
            initramfs = Path(folder, "look.cpio")
            with Archive(initramfs) as archive:
                look = _LOOK.format(results=RESULTS, group=group, name=name, end=dumps(END))
                _busybox(archive, _MOUNTS.format(results=RESULTS) + look)
            done = boot(
                kernel.image,
                initramfs,
                memory_mb=_MEMORY_MB,
                processors=1,
                seconds=_SECONDS,
                name=kernel.release,
            )
        whole = kept.with_suffix(".new")
        whole.write_bytes(bytes.fromhex(done.results[0]["format"]))
        whole.rename(kept)
    return kept.read_text()


def _busybox(archive: Archive, script: str) -> None:
    for name in ("dev", "proc", "sys"):
        archive.folder(name)
    archive.file(busybox(), "/bin/busybox")
    archive.text("/init", script, 0o755)


def _packed(name: str, recording: Recording, *, without_perfmon: bool) -> bytes:
    parts = [_SET.pack(name.encode(), without_perfmon, len(recording.maps), len(recording.programs))]
    parts += [
        _MAP.pack(each.kind, each.key_bytes, each.value_bytes, each.entries, each.flags)
        for each in recording.maps
    ]
    for program, code in recording.programs.items():
        instructions = bytearray(code.instructions)
        for at, number in code.maps_at:
            struct.pack_into("=i", instructions, at, number)
        parts.append(_CODE.pack(program.encode(), code.kind, len(instructions) // 8))
        parts.append(bytes(instructions))
    return b"".join(parts)
