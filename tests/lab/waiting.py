"""Waiting for a program that was started, and what it says where it does not come to that."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def await_condition(
    condition: Callable[[], object], process: "subprocess.Popen[bytes]", log: Path, seconds: float = 30
) -> None:
    """`log`: what the process says. Fails with that where it has ended, or takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
