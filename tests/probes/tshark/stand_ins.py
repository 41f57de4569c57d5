"""Programs in the place of Wireshark's: as root none is found on the environment's PATH."""

import os
from pathlib import Path

import pytest

from probes import isolation


def look_first_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process."""
    monkeypatch.setattr(isolation, "PATH", f"{folder}:{isolation.PATH}")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def in_place_of(program: str | Path, stand_in: Path) -> list[str]:
    """What starts a command for which the one program is the other."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ["unshare", *as_root, "--mount", "sh", "-c", mount, str(stand_in), str(program)]
