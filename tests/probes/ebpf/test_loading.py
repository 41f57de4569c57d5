"""The loader runs as root: nothing that another user could have left decides what it imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.traps import Traps, imported_by_loader

ASK = """
from probes.ebpf.program import tried
from probes.probe import ProbeUnavailable
try:
    print(*tried())
except ProbeUnavailable as reason:
    print(reason)
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    return imported_by_loader()


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
