"""The loader runs as root: nothing that another user could have left decides what it imports."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes.ebpf.program import why_unavailable
from tests.traps import Traps

ASK = "from probes.ebpf.program import why_unavailable as why; print(why() or 'nothing is missing')"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Top-level names of all that the loader imports, as it says itself."""
    said: list[str] = []
    run = subprocess.run

    def run_and_listen(command: list[str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
        finished: subprocess.CompletedProcess[bytes] = run(
            [command[0], "-X", "importtime", *command[1:]], **options
        )
        said.append(finished.stderr.decode())
        return finished

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", run_and_listen)
        why_unavailable()
    names = re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", said[0], re.MULTILINE)
    assert {"probes", "msgspec", "socket", "ctypes", "encodings"} <= set(names)
    return set(names)


@pytest.mark.parametrize("place", ["current folder", "environment"])
def test_the_loader_imports_nothing_that_was_planted(tmp_path: Path, imported: set[str], place: str) -> None:
    traps = Traps(tmp_path / "traps")
    traps.modules(imported)
    is_here = place == "current folder"
    finished = subprocess.run(
        [sys.executable, "-I", "-c", ASK],  # what whoever started us does to ourselves is not the question
        cwd=traps.folder if is_here else "/",
        env=os.environ if is_here else os.environ | traps.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert traps.sprung == []
    assert finished.stderr == ""
    assert "ended early" not in finished.stdout
