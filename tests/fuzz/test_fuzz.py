"""What fuzzing starts from is right, and what goes wrong is noticed."""

import time
from pathlib import Path

import pytest

from scripts.native import libraries
from tests.fuzz.__main__ import TARGETS, run
from tests.fuzz.trial import CPU_LIMIT_NS, Trials
from tests.fuzz.worker import Twin, Way, load

ENOUGH_SEEDS = 12


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_seeds(name: str) -> None:
    target = load(name)
    seeds = [seed[: target.MAX_BYTES] for seed in target.seeds()]
    for seed in seeds[:: 1 + len(seeds) // ENOUGH_SEEDS]:
        assert target.check(seed) == target.check(seed)


def test_what_raises_is_written_down_once(tmp_path: Path) -> None:
    def check(data: bytes) -> object:
        return data[7]

    trials = Trials(check, tmp_path)
    for data in (b"12345678", b"short", b"shorter"):
        trials.try_one(data)
    assert trials.inputs == 3
    (kind,) = trials.found
    assert kind.startswith("IndexError")
    names = {path.suffix: path for path in tmp_path.iterdir()}
    assert names[""].read_bytes() == b"short"
    assert "IndexError" in names[".txt"].read_text()


def test_what_is_slow_is_written_down_if_it_is_so_every_time(tmp_path: Path) -> None:
    tried = []

    def check(data: bytes) -> None:
        tried.append(data)
        if data == b"always" or len(tried) == 1:
            begin = time.process_time_ns()
            while time.process_time_ns() < begin + 2 * CPU_LIMIT_NS:
                pass

    trials = Trials(check, tmp_path)
    trials.try_one(b"once")
    assert not trials.found
    trials.try_one(b"always")
    assert trials.found == {"slow"}
    assert trials.slowest == b"always"


def test_a_process_that_dies_leaves_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import os, signal\n"
        "from tests.fuzz.targets.proxy_header import MAX_BYTES, WORDS, seeds\n"
        "def check(data):\n"
        "    if b'TCP6' in data: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run("dying", Way.HAVOC, 5, 1, tmp_path / "fuzz", package="")
    assert done.result["failures"] == ["died with -11"]
    (written,) = (path for path in (tmp_path / "fuzz/failures/dying").iterdir() if not path.suffix)
    assert b"TCP6" in written.read_bytes()


@pytest.mark.skipif(not libraries(), reason="nothing is compiled here")
def test_another_outcome_of_the_sources_is_noticed(tmp_path: Path) -> None:
    target = load("proxy_header")
    seeds = list(target.seeds())
    outcomes = [target.check(seed) for seed in seeds]
    trials = Trials(target.check, tmp_path)
    with Twin("proxy_header") as twin:
        twin.compare(seeds, outcomes, trials)
        assert not trials.found
        twin.compare(seeds[:2], [outcomes[1], outcomes[1]], trials)
    assert trials.found == {"another outcome"}
    (written,) = (path for path in tmp_path.iterdir() if not path.suffix)
    assert written.read_bytes() == seeds[0]
