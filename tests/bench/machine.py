"""What was measured, and where: without it no figure means anything."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path


def describe() -> list[str]:
    """Lines of a list. A load: somebody else is at work, and figures are too high, not all alike."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    tshark = subprocess.run(["tshark", "--version"], capture_output=True, text=True, check=True).stdout
    return [
        f"{os.cpu_count()} cores, {processor[1] if processor else platform.machine()}",
        f"Linux {platform.release()}, Python {platform.python_version()}",
        f"smtp-horizon {version('smtp-horizon')}, {tshark.splitlines()[0].rstrip('.')}",
        f"load before: {os.getloadavg()[0]:.1f}",
    ]
