"""systemd-analyze: the machine's; or the one that the lab has unpacked, for a machine without systemd."""

import os
import shutil
from typing import Final

from tests.lab.packages import SERVERS_ROOT

# Nothing of systemd but its files in /usr is asked.
_WITH_ITS_USR: Final = 'mount --bind "$0/usr" /usr && exec "$@"'


def is_there() -> bool:
    return shutil.which("systemd-analyze") is not None or (
        os.geteuid() == 0 and (SERVERS_ROOT / "usr/bin/systemd-analyze").exists()
    )


def systemd_analyze() -> list[str]:
    """The first words of a command."""
    if shutil.which("systemd-analyze") is not None:
        return ["systemd-analyze"]
    return ["unshare", "--mount", "sh", "-c", _WITH_ITS_USR, str(SERVERS_ROOT), "systemd-analyze"]
