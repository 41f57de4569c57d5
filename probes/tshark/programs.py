"""Wireshark's programs: where they are, whether they are new enough, and the surroundings they run in."""

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass
from shutil import which
from typing import Final, Self

from probes.probe import ProbeUnavailable

# Debian 12's: the oldest that was tried. Older ones may lack fields, or write them another way.
OLDEST_VERSION: Final = (4, 0)

# A user's own preferences, disabled protocols and plug-ins would make records depend on whose they are.
ENVIRONMENT: Final = {**os.environ, "WIRESHARK_CONFIG_DIR": "/nonexistent"}

# Chosen because the longest of their messages is a screenful.
LAST_WORDS_BYTES: Final = 4096

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
        tshark = _found("tshark")
        _check_version(tshark)
        return cls(tshark, _found(source))


def tshark_version(tshark: str) -> str:
    """As `4.0.17`. Raises ProbeUnavailable."""
    try:
        said = subprocess.run(  # noqa: S603 - a path that `which` found
            [tshark, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
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


def _found(program: str) -> str:
    path = which(program)
    if path is None:
        raise ProbeUnavailable(f"{program} is not installed", "apt-get install tshark")
    return path


async def last_words_of(process: asyncio.subprocess.Process) -> str:
    """What a process says on standard error until its end, in one line: the last of it, if it is long."""
    assert process.stderr is not None
    said = b""
    while piece := await process.stderr.read(LAST_WORDS_BYTES):
        said = (said + piece)[-LAST_WORDS_BYTES:]
    return " ".join(said.decode("utf-8", "replace").split())
