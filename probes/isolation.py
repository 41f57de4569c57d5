"""What the programs that we start get from whoever started us: nothing.

They run with our privileges, often as root. The current folder, the environment and the home directory may be
in another user's hands, and each can name code to load: a `tempfile.py` in the current folder, PYTHONPATH,
LD_PRELOAD, WIRESHARK_CONFIG_DIR, plug-ins below HOME.
"""

import sys
from typing import Final

FOLDER: Final = "/"
"""Where they run: only root can put a file there."""

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""As sudo's `secure_path` and systemd have it."""

ENVIRONMENT: Final = {
    "PATH": PATH,
    "LC_ALL": "C.UTF-8",  # what they say is read by us
}
"""All of it: no LD_*, PYTHON* or BCC_*, and no TMPDIR."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours.

    `-I`: no module comes from the current folder, PYTHONPATH or the user's own site-packages, and PYTHON* is
    ignored. The virtual environment that we run in stays.
    """
    return [sys.executable, "-I", "-m", module, *arguments]
