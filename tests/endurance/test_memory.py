"""The account of memory tells growth from a sawtooth."""

import subprocess
import sys
import time

from tests.endurance.memory import MAIN, TOLERANCE_BYTES, Sample, Sampler, figures, growing

MIB = 2**20


def samples(program: str, sizes: list[int], *, lives: int = 1) -> list[Sample]:
    """One a second, of as many processes one after the other."""
    return [
        Sample(second, second * lives // len(sizes), program, size * MIB) for second, size in enumerate(sizes)
    ]


def test_a_process_that_grows_is_told_by_name() -> None:
    (line,) = growing(samples("tshark", list(range(150, 240))) + samples(MAIN, [80] * 90))
    assert line == "tshark: 179.0 MiB in the first third, 239.0 MiB in the last"


def test_one_that_is_replaced_before_it_is_large_does_not_grow() -> None:
    sawtooth = samples("tshark", [*range(150, 180)] * 9, lives=9)
    assert not growing(sawtooth)
    (tshark,) = figures(sawtooth)
    assert (tshark.processes, tshark.at_once) == (9, 1)
    assert (tshark.peak_bytes, tshark.final_bytes) == (179 * MIB, 179 * MIB)


def test_growth_up_to_the_tolerance_is_none() -> None:
    tolerance = TOLERANCE_BYTES // MIB
    assert not growing(samples(MAIN, [80] * 30 + [80 + tolerance] * 60))
    assert growing(samples(MAIN, [80] * 30 + [81 + tolerance] * 60))


def test_a_program_may_have_a_tolerance_of_its_own() -> None:
    grown = samples(MAIN, [80] * 30 + [100] * 60)
    assert growing(grown)
    assert not growing(grown, {MAIN: 20 * MIB})
    assert growing(grown, {"tshark": 20 * MIB})


def test_the_sampler_sees_what_a_process_started_and_what_that_started() -> None:
    grandparent = (
        "import subprocess, sys\nblock = b'x' * 50_000_000\nsubprocess.run(['sh', '-c', 'sleep 60; true'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", grandparent]) as process:
        try:
            with Sampler(process.pid, every_seconds=0.05) as sampler:
                deadline = time.monotonic() + 20
                while not any(one.program == "sleep" for one in sampler.samples):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            for child in sampler.descendants():
                child.kill()
            process.kill()
    assert {one.program for one in sampler.samples} == {MAIN, "sh", "sleep"}
    assert max(one.resident_bytes for one in sampler.samples if one.program == MAIN) >= 50_000_000
