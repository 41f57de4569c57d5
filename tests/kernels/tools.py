"""QEMU, and busybox: what `make kernels` needs besides the lab.

QEMU is installed as the lab's tools are: where that removes and changes nothing. busybox is only unpacked,
into the lab's cache: Debian's package with the static one would replace the other, which a machine may need
to boot.
"""

import shutil
from pathlib import Path
from typing import Final

from tests.kernels.machine import PROGRAM
from tests.lab.debian_root import LabUnavailableError, debian_root, release
from tests.lab.packages import install

_QEMU: Final = "qemu-system-x86"
_BUSYBOX: Final = "busybox-static"


def ensure_tools() -> None:
    """Fetches what is missing. Raises LabUnavailableError."""
    if shutil.which(PROGRAM) is None:
        install([_QEMU])
    busybox()


def busybox() -> Path:
    """The static one. Raises LabUnavailableError."""
    folder = debian_root((release(),), _BUSYBOX)
    found = [folder / place for place in ("usr/bin/busybox", "bin/busybox") if (folder / place).exists()]
    if not found:
        raise LabUnavailableError(f"{folder} has no busybox")
    return found[0].resolve()
