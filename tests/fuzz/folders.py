"""Where fuzzing keeps what it makes: nowhere that is tracked."""

import atexit
import os
from pathlib import Path
from typing import Final

from scripts.native import ROOT

BUILD: Final = ROOT / "build" / "fuzz"


def scratch_file(name: str) -> Path:
    """In memory, where that can be; gone with the process."""
    memory = Path("/dev/shm")
    path = (memory if memory.is_dir() else BUILD) / f"smtp-horizon-fuzz-{name}-{os.getpid()}"
    atexit.register(path.unlink, missing_ok=True)
    return path
