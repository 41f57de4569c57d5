"""What the programs that we start get from whoever started us: nothing.

They run with our privileges, often as root. The current folder, the environment and the home directory may be
in another user's hands, and each can name code to load: a `tempfile.py` in the current folder, PYTHONPATH,
LD_PRELOAD, WIRESHARK_CONFIG_DIR, plug-ins below HOME.
"""

import os
import sys
from shutil import which
from typing import Final

from probes import capabilities
from probes.probe import ProbeUnavailable
from probes.safe_path import ROOT, UnsafePathError, walked

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


def program(name: str) -> str | None:
    """Its path; None where there is none. Raises ProbeUnavailable for one that we should not start.

    Without privileges it is found on the user's PATH, as in his shell. With privileges it is looked for on
    `PATH` above, and only root may be able to replace it.
    """
    if not is_privileged():
        found = which(name)
        return None if found is None else os.path.abspath(found)
    found = which(name, path=PATH)
    if found is None:
        if elsewhere := which(name):
            raise ProbeUnavailable(
                f"{elsewhere} is not started with privileges: it is in none of the system's folders",
                f"install {name} from a package, or link it into /usr/local/bin",
            )
        return None
    try:
        with walked(found, {ROOT, os.stat("/").st_uid}, is_believed=True):
            return found
    except UnsafePathError as unsafe:
        raise ProbeUnavailable(
            f"{found} is not started with privileges: {unsafe.why}", unsafe.remedy
        ) from None


def is_privileged() -> bool:
    return os.geteuid() == ROOT or bool(capabilities.permitted())
