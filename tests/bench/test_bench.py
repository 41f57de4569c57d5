"""The benchmarks run, and notice a run that went wrong; how fast anything was is no business of a test."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from rich.console import Console

from tests.bench import read, watch
from tests.bench.figures import Spread
from tests.lab.packages import LabUnavailableError

CAPTURES = Path(__file__).parents[1] / "captures"


def test_a_spread_is_the_median_between_the_least_and_the_most() -> None:
    assert Spread.of([5, 1, 2]).text(str) == "2 (1 to 5)"


def test_a_run_takes_at_least_the_time_and_the_memory_that_its_program_used(tmp_path: Path) -> None:
    program = "import time\nblock = b'x' * 50_000_000\nwhile time.process_time() < 0.2: pass\nprint('end')"
    cost = read.run([sys.executable, "-c", program], tmp_path / "output")
    assert cost.processor_seconds >= 0.2
    assert cost.peak_bytes >= 50_000_000
    assert (tmp_path / "output").read_text() == "end\n"


def test_a_run_takes_what_the_programs_took_that_its_program_ran(tmp_path: Path) -> None:
    child = "import time\nblock = b'x' * 50_000_000\nwhile time.process_time() < 0.2: pass"
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    cost = read.run([sys.executable, "-c", program, child], tmp_path / "output")
    assert cost.processor_seconds >= 0.2
    assert cost.peak_bytes >= 50_000_000


def test_a_small_program_is_not_charged_with_the_memory_of_who_measures_it(tmp_path: Path) -> None:
    block = b"x" * 100_000_000
    assert read.run(["true"], tmp_path / "output").peak_bytes < len(block) // 4


def test_a_program_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="status 1"):
        read.run(["false"], tmp_path / "output")


@pytest.mark.skipif(not Path("/usr/bin/tshark").exists(), reason="needs tshark")
def test_the_benchmark_of_read_runs_and_shows_every_reader(tmp_path: Path) -> None:
    capture = tmp_path / "one.pcap.zst"
    capture.write_bytes(zstandard.compress((CAPTURES / "plain_single.pcap").read_bytes()))
    readings = read.measure(capture, rounds=1)
    assert readings.sessions == 1
    assert readings.packets[read.FIRST] == 1 < readings.packets[read.PART] == readings.packets[read.PLAIN]
    assert set(readings.costs) >= {(read.HORIZON_PYSHARK, read.PLAIN), (read.PYSHARK, read.PART)}
    with (tmp_path / "shown").open("w") as file:
        read.show(Console(width=220, file=file), readings)
    shown = (tmp_path / "shown").read_text()
    readers = (read.HORIZON, read.HORIZON_PYSHARK, read.TSHARK, read.PYSHARK, read.BARE_LOOP)
    assert all(f"| {reader} " in shown for reader in readers)


@pytest.mark.parametrize(
    ("reader", "file", "output"),
    [
        (read.HORIZON, read.COMPRESSED, b"record\n"),
        (read.HORIZON_PYSHARK, read.PLAIN, b"record\n"),
        (read.HORIZON_PYSHARK, read.PLAIN, b""),
        (read.TSHARK, read.PLAIN, b""),
        (read.PYSHARK, read.PART, b"9\n"),
        (read.BARE_LOOP, read.PLAIN, b"9\n"),
    ],
)
def test_a_reader_that_gives_up_early_is_no_measurement(reader: str, file: str, output: bytes) -> None:
    two, ten = b"record\nrecord\n", b"10\n"
    said = {
        (name, place): two
        for name in (read.HORIZON, read.HORIZON_PYSHARK)
        for place in (read.PLAIN, read.COMPRESSED)
    }
    said |= {
        (read.TSHARK, read.PLAIN): two,
        (read.PYSHARK, read.PART): ten,
        (read.BARE_LOOP, read.PLAIN): ten,
    }
    packets = {read.PLAIN: 10, read.PART: 10}
    assert read.sessions_in(said, packets) == 2
    with pytest.raises(RuntimeError, match=r"less|9 packets of 10"):
        read.sessions_in({**said, (reader, file): output}, packets)


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root")
def test_the_benchmark_of_watch_runs_and_tells_a_wrong_run_from_a_whole_one(tmp_path: Path) -> None:
    sessions = 20
    try:
        runs = watch.measure(watch.STEADY, sessions, rounds=1)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    assert watch.is_whole(runs, sessions)
    (run,) = runs[watch.EBPF]
    assert run.bpf_seconds > 0
    (alone,), (with_tshark,) = runs[watch.LIBPCAP], runs[watch.PYSHARK]
    assert with_tshark.resident_bytes > alone.resident_bytes + 100 * 2**20
    for wrong in (replace(run, records=19), replace(run, right=19), replace(run, drops=1)):
        assert not watch.is_whole({**runs, watch.EBPF: [wrong]}, sessions)
    with (tmp_path / "shown").open("w") as file:
        watch.show(Console(width=220, file=file), watch.STEADY, sessions, runs)
    shown = (tmp_path / "shown").read_text()
    assert all(f"| {watcher} " in shown for watcher in (watch.EBPF, watch.LIBPCAP, watch.PYSHARK))
