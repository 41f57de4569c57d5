"""The loader runs as root: nothing that another user could have left decides what it imports. And what it
keeps of what libbcc says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.ebpf import loader
from probes.ebpf.refusal import verifiers_words
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


def test_of_a_long_log_the_beginning_and_the_end_are_kept() -> None:
    with loader._standard_error_kept() as said:
        os.write(2, b"bpf: Failed to load program: Argument list too long\n")
        for _ in range(300):  # 10 MB; a program that is too large to be walked makes 100
            os.write(2, b"1985: (85) call bpf_skb_load_bytes#26\n" * 1_000)
        os.write(2, b"BPF program is too large. Processed 1000001 insn\n")
        os.write(2, b"processed 1000001 insns (limit 1000000)\n")
        told = said()
    assert told.startswith("bpf: Failed to load program: Argument list too long\n")
    assert verifiers_words(told) == "BPF program is too large. Processed 1000001 insn"
    assert len(told) <= 2 * loader._EDGE_BYTES


def test_a_short_log_is_kept_whole() -> None:
    with loader._standard_error_kept() as said:
        os.write(2, b"could not open bpf map: flows, error: Operation not permitted\n")
        assert said() == "could not open bpf map: flows, error: Operation not permitted\n"
