"""`make run` and what `make test` sets up, on a Debian of its own with Exim: see beside_exim4.sh."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.debian_root import release
from tests.lab.packages import LabUnavailableError, ensure

ROOT: Final = Path(__file__).parents[2]
FRESH: Final = ROOT / "scripts/fresh.py"
_CANNOT_BEGIN: Final = 2


@pytest.mark.live
@pytest.mark.thorough
@pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own, with namespaces in it, needs root")
def test_nothing_that_was_on_the_machine_is_changed() -> None:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    command = [sys.executable, str(FRESH), release(), "tests/lab/beside_exim4.sh"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == _CANNOT_BEGIN:
        pytest.skip(done.stdout.strip().rpartition("\n")[2])
    assert done.returncode == 0, done.stdout
