"""Wireshark's programs: where they are, whether they are new enough, and the surroundings they run in."""

import re
import subprocess
from dataclasses import dataclass
from typing import Final, Self

from probes import isolation
from probes.probe import ProbeUnavailable

# Debian 12's: the oldest that was tried. Older ones may lack fields, or write them another way.
OLDEST_VERSION: Final = (4, 0)

# A user's own preferences, disabled protocols, plug-ins and scripts would make records depend on whose they
# are, and a script that prints would stand between the rows. Plug-ins and scripts lie in the home directory.
ENVIRONMENT: Final = {
    **isolation.ENVIRONMENT,
    "WIRESHARK_CONFIG_DIR": "/nonexistent",
    "HOME": "/nonexistent",
}

# From a page cache that is cold, tshark needs a second or two.
_VERSION_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs that one probe needs."""

    tshark: str
    source: str
    """dumpcap for live capture, editcap for files."""

    @classmethod
    def find(cls, source: str) -> Self:
        """Raises ProbeUnavailable."""
        tshark = found("tshark")
        _check_version(tshark)
        return cls(tshark, found(source))


def tshark_version(tshark: str) -> str:
    """As `4.0.17`. Raises ProbeUnavailable."""
    try:
        said = subprocess.run(  # noqa: S603 - a path that `found` gave
            [tshark, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=isolation.FOLDER,
            env=ENVIRONMENT,
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeUnavailable(f"{tshark} does not run ({error})", "reinstall it") from error
    found = re.search(r"\d+\.\d+\.\d+", said.stdout.partition("\n")[0])
    if said.returncode or not found:
        last_words = (said.stderr.strip().splitlines() or ["no version"])[-1]
        raise ProbeUnavailable(f"{tshark} does not run ({last_words})", "reinstall it")
    return found[0]


def _check_version(tshark: str) -> None:
    version = tshark_version(tshark)
    if tuple(map(int, version.split(".")[:2])) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ProbeUnavailable(
            f"{tshark} is version {version}, and {oldest} is the oldest that the pyshark probe understands",
            "install a newer one",
        )


def found(program: str) -> str:
    """Its path. Raises ProbeUnavailable."""
    path = isolation.program(program)
    if path is None:
        raise ProbeUnavailable(f"{program} is not installed", "apt-get install tshark")
    return path
