"""A virtual machine that boots one kernel with one initramfs, reports, and switches itself off.

QEMU translates its instructions (TCG): on a machine that is virtual itself, KVM may be there and hang. The
machine has no network and no disk. It has two serial lines: the console, and the results as one JSON object a
line. Never boot it with mitigations=off: then the verifier does not follow speculation, and accepts more.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

PROGRAM: Final = "qemu-system-x86_64"
RESULTS: Final = "/dev/ttyS1"
"""Inside the machine: where results are written."""
END: Final = {"end": True}
"""The last result: without it the machine did not come to its end."""
_LAST_LINES: Final = 25
_LAST_BYTES: Final = 65_536

# loglevel: warnings come to the console, too. A panic ends the machine.
_KERNEL_ARGUMENTS: Final = "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic"

# What a kernel says when it is at odds with itself, or with us.
_COMPLAINT: Final = re.compile(
    r"WARNING: |BUG: |Oops: |Kernel panic|general protection|Call Trace|rcu:.*(stall|kthread)|soft lockup"
    r"|blocked for more than|UBSAN|KASAN|refcount_t|Out of memory|segfault at"
)
_STARTED: Final = re.compile(r"^\[ *\d+\.\d+\] ")


class MachineError(Exception):
    """It could not be started, did not come to its end, or its kernel complained."""


@dataclass(frozen=True, slots=True)
class Finished:
    results: list[dict[str, Any]]
    console: str
    seconds: float


def boot(
    image: Path, initramfs: Path, *, memory_mb: int, processors: int, seconds: float, name: str
) -> Finished:
    """Returns when it has switched itself off, which must be within so many seconds. Raises MachineError."""
    if shutil.which(PROGRAM) is None:
        raise MachineError(f"there is no {PROGRAM}: apt-get install qemu-system-x86")
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="smtp-horizon-kernels-") as folder:
        console, results = Path(folder, "console"), Path(folder, "results")
        command = _command(image, initramfs, memory_mb, processors, console, results)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
            )
            amiss = done.stderr.decode(errors="replace").strip() if done.returncode else ""
        except subprocess.TimeoutExpired:
            amiss = f"it was still running after {seconds:.0f} s, and was ended"
        said = console.read_text(errors="replace") if console.exists() else ""
        found = results.read_text(errors="replace") if results.exists() else ""
    complaints = kernel_complaints(said)
    if complaints:
        raise MachineError(f"{name}: its kernel complained: {complaints[0]}\n{last_lines(said)}")
    if amiss:
        raise MachineError(f"{name}: {amiss}\n{last_lines(said)}")
    return Finished(parsed(found, name, said), said, monotonic() - began)


def parsed(text: str, name: str, console: str) -> list[dict[str, Any]]:
    """The results, without the END. Raises MachineError where that is missing, or a line is none of ours."""
    try:
        results = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise MachineError(f"{name}: what it said can't be read: {error}\n{last_lines(console)}") from None
    if not results or results[-1] != END:
        raise MachineError(f"{name}: it did not come to its end\n{last_lines(console)}")
    return results[:-1]


def kernel_complaints(console: str) -> list[str]:
    """Lines of the kernel itself; what programs say on the console may hold such words, too."""
    lines = [line.strip() for line in console.splitlines()]
    return [line for line in lines if _STARTED.match(line) and _COMPLAINT.search(line)]


def last_lines(console: str) -> str:
    lines = [line.rstrip() for line in console[-_LAST_BYTES:].splitlines() if line.strip()]
    return "\n".join(f"    | {line}" for line in lines[-_LAST_LINES:]) or "    | (its console is empty)"


def _command(
    image: Path, initramfs: Path, memory_mb: int, processors: int, console: Path, results: Path
) -> Sequence[str | Path]:
    return [
        # However we end: a machine that hangs would run for ever.
        *("setpriv", "--pdeathsig", "KILL"),
        PROGRAM,
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-m", f"{memory_mb}M", "-smp", str(processors)),
        *("-no-user-config", "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-serial", f"file:{results}"),
        *("-kernel", image, "-initrd", initramfs, "-append", _KERNEL_ARGUMENTS),
    ]
