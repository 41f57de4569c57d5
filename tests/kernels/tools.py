"""QEMU, and busybox: what `make kernels` needs besides the lab.

QEMU is installed where that removes nothing. busybox is only unpacked, into the lab's cache: Debian's package
with the static one would replace the other, which a machine may need to boot.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.kernels.machine import PROGRAM
from tests.lab.packages import CACHE, LabUnavailableError, apt

_QEMU: Final = "qemu-system-x86"
_BUSYBOX: Final = "busybox-static"
_BUSYBOX_PLACES: Final = ("usr/bin/busybox", "bin/busybox")


def ensure_tools() -> None:
    """Fetches what is missing. Raises LabUnavailableError."""
    if shutil.which(PROGRAM) is None:
        _install(_QEMU)
    busybox()


def busybox() -> Path:
    """The static one. Raises LabUnavailableError."""
    folder = CACHE / _BUSYBOX
    for place in _BUSYBOX_PLACES:
        if (folder / place).exists():
            return folder / place
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as downloads:
        if not _with_lists("download", _BUSYBOX, folder=downloads):
            raise LabUnavailableError(f"apt-get could not download {_BUSYBOX}")
        (package,) = Path(downloads).glob("*.deb")
        unpacked = Path(downloads, "unpacked")
        subprocess.run(["dpkg", "--extract", package, unpacked], check=True)
        unpacked.rename(folder)
    return busybox()


def _install(package: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise LabUnavailableError(f"missing: {package}; install it, as root")
    words = ("install", "--yes", "--no-install-recommends", package)
    removed = removals(_simulated(words))
    if removed:
        raise LabUnavailableError(f"{package} can't be installed without removing {' '.join(removed)}")
    if not _with_lists(*words):
        raise LabUnavailableError(f"apt-get could not install {package}")


def _simulated(words: tuple[str, ...]) -> str:
    command = ["apt-get", "--simulate", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def removals(simulation: str) -> list[str]:
    """The packages that apt-get would remove, by what it says it would do."""
    return [line.split()[1] for line in simulation.splitlines() if line.startswith("Remv ")]


def _with_lists(*words: str, folder: str | None = None) -> bool:
    """A fresh machine has no package lists yet, an old one has stale ones."""
    return apt(*words, folder=folder) or (apt("update") and apt(*words, folder=folder))
