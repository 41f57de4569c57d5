"""Virtual environments: what an isolated process imports can't be changed by environment variables."""

import subprocess
import sys
from pathlib import Path


def environment_with(folder: Path, name: str, text: str) -> Path:
    """The Python of one that has this module before all that ours has."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / name).write_text(text)
    (packages / "ours.pth").write_text("\n".join(path for path in sys.path if path))
    return folder / "bin/python"
