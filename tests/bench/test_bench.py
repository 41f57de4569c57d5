"""The benchmarks run, and notice a run that went wrong; how fast anything was is no business of a test."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import pytest
from rich.console import Console

from tests.bench import __main__ as bench
from tests.bench import flood, mail_client, many_open, message_size, read, scrape_flood, watch
from tests.bench.figures import Spread
from tests.bench.goals import Goal
from tests.bench.message_size import Batch
from tests.bench.scale import FULL, QUICK, Scale
from tests.bench.watched import EBPF, LIBPCAP, NOBODY, PYSHARK, taken_seconds
from tests.lab.packages import LabUnavailableError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root")


@contextmanager
def lab() -> Iterator[None]:
    try:
        yield
    except LabUnavailableError as reason:
        pytest.skip(str(reason))


def shown(show: Callable[[Console], None], folder: Path) -> str:
    with (folder / "shown").open("w") as file:
        show(Console(width=260, file=file))
    return (folder / "shown").read_text()


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


def test_the_clock_of_a_process_tells_what_it_took_and_what_its_children_took() -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    program = f"import subprocess, sys\n{spin}\nsubprocess.run([sys.executable, '-c', sys.argv[1]])\n"
    program += "print(flush=True)\ninput()"
    command = [sys.executable, "-c", program, spin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = time.monotonic()
        # A child's share is known in hundredths of a second, and may be cut off there.
        assert 0.38 <= taken_seconds(psutil.Process(process.pid)) < before
        process.kill()


@pytest.mark.thorough
@pytest.mark.skipif(
    not all(Path(f"/usr/bin/{name}").exists() for name in ("tshark", "ndpiReader", "tcpdump")),
    reason="needs tshark, ndpiReader and tcpdump",
)
def test_the_benchmark_of_read_runs_and_shows_every_reader(tmp_path: Path) -> None:
    readings = read.measure(QUICK)
    assert readings.sessions == {
        read.PLAIN: 1,
        read.COMPRESSED: 1,
        read.LONG: QUICK.copies,
        read.LONGEST: 2 * QUICK.copies,
    }
    assert readings.packets[read.FIRST] == 1
    assert readings.packets[read.LONG] == QUICK.copies * readings.packets[read.PLAIN]
    told = shown(lambda console: read.show(console, readings), tmp_path)
    readers = (
        read.HORIZON,
        read.HORIZON_PYSHARK,
        read.TSHARK,
        read.PYSHARK,
        read.DPKT,
        read.NDPI,
        read.TCPDUMP,
    )
    assert all(f"| {reader} " in told for reader in readers)
    assert [goal.limit for goal in read.goals(readings)] == [1 / 10, 1 / 3, 3, 1 / 500, read.FLAT]


OWN_DEVICES: Final = """
mount -t tmpfs devices /dev
mknod -m 666 /dev/null c 1 3
"$@"
stat --format %u:%g /dev/null
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's tcpdump gives files away")
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")
def test_the_machines_null_device_stays_roots(tmp_path: Path) -> None:
    read.make_files(tmp_path, QUICK.capture, 1)
    tmp_path.chmod(0o755)
    command = read._COMMANDS[read.TCPDUMP](tmp_path / read.PLAIN)
    said = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", OWN_DEVICES, "sh", *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "0:0\n"


def test_what_is_measured_in_fewer_rounds_is_held_against_the_same_rounds() -> None:
    case, other = (read.HORIZON, read.PLAIN), (read.PYSHARK, read.PLAIN)
    costs = {case: [read.Cost(1, 10), read.Cost(9, 90)], other: [read.Cost(4, 20)]}
    readings = read.Readings({}, {}, costs)
    assert readings.ratio(case, other).text(str) == "0.25 (0.25 to 0.25)"
    assert readings.growth(case, other).text(str) == "0.5 (0.5 to 0.5)"


@pytest.mark.parametrize(
    ("reader", "file", "output"),
    [
        (read.HORIZON, read.COMPRESSED, b"line\n"),
        (read.HORIZON, read.LONG, b"line\nline\n"),
        (read.HORIZON, read.LONGEST, b"line\n" * 4),
        (read.HORIZON_PYSHARK, read.PLAIN, b"line\n"),
        (read.HORIZON_PYSHARK, read.PLAIN, b""),
        (read.TSHARK, read.PLAIN, b""),
        (read.TSHARK, read.LONG, b"line\n"),
        (read.PYSHARK, read.PLAIN, b"9\n"),
        (read.DPKT, read.LONG, b"19\n"),
        (read.BARE_LOOP, read.LONG, b"19\n"),
    ],
)
def test_a_reader_that_gives_up_early_is_no_measurement(reader: str, file: str, output: bytes) -> None:
    packets = {read.PLAIN: 10, read.COMPRESSED: 10, read.LONG: 20, read.LONGEST: 40, read.FIRST: 1}
    # Two lines of one copy.
    said = {
        (name, place): b"line\n" * (packets[place] // 5)
        for name in (read.HORIZON, read.HORIZON_PYSHARK, read.TSHARK)
        for place in packets
    }
    said |= {(read.PYSHARK, read.PLAIN): b"10\n", (read.DPKT, read.LONG): b"20\n"}
    said |= {(read.BARE_LOOP, read.LONG): b"20\n"}
    assert read.sessions_in(said, packets)[read.LONG] == 4
    with pytest.raises(RuntimeError, match=r"lines of|9 packets of"):
        read.sessions_in({**said, (reader, file): output}, packets)


def test_a_message_is_as_long_as_it_is_asked_for_and_ends_as_one() -> None:
    for size in (1_000, 1_000_000):
        message = mail_client.message(size)
        assert 0.9 * size < len(message) < 1.1 * size
        assert message.endswith(b"\r\n.\r\n")
        assert message.count(b"\r\n.\r\n") == 1


@pytest.mark.live
@pytest.mark.thorough
@needs_root
def test_the_benchmark_of_watch_runs_and_tells_a_wrong_run_from_a_whole_one(tmp_path: Path) -> None:
    with lab():
        measured = watch.measure(watch.STEADY, QUICK)
    assert all(measured.is_whole(watcher) for watcher in (EBPF, LIBPCAP, PYSHARK))
    (run,) = measured.runs[EBPF]
    assert run.bpf_seconds > 0
    assert run.server_seconds > 0
    (alone,), (with_tshark,) = measured.runs[LIBPCAP], measured.runs[PYSHARK]
    assert with_tshark.resident_bytes > alone.resident_bytes + 100 * 2**20
    for wrong in (replace(run, records=19), replace(run, right=19), replace(run, drops=1)):
        assert not replace(measured, runs={EBPF: [run, wrong]}).is_whole(EBPF)
    told = shown(lambda console: watch.show(console, measured), tmp_path)
    assert all(f"| {watcher} " in told for watcher in (NOBODY, EBPF, LIBPCAP, PYSHARK))


def test_watch_is_held_against_the_server_and_its_pace_unwatched_pair_by_pair() -> None:
    unwatched = [watch.Run(1.0, 8), watch.Run(2.0, 8)]
    watched = [
        watch.Run(2.0, 10, 0.5, 0.5, records=9, right=9),
        watch.Run(2.0, 10, 1.5, 0.5, records=9, right=9),
    ]
    measured = watch.Measured(watch.POSTFIX, 9, {NOBODY: unwatched, EBPF: watched})
    cost, throughput = watch.goals(measured)
    assert cost.measured.text(str) == "0.15000000000000002 (0.1 to 0.2)"
    assert throughput.measured.text(str) == "0.75 (0.5 to 1.0)"
    lossy = replace(measured, runs={NOBODY: unwatched, EBPF: [watched[0], replace(watched[1], records=8)]})
    assert [goal.fault for goal in watch.goals(lossy)] == ["sessions are missing"] * 2


def test_at_full_speed_one_lost_session_or_packet_misses_the_goal() -> None:
    whole = watch.Run(1.0, 1, records=9, right=9)
    for runs, is_met in (
        ([whole, whole, whole], True),
        ([whole, whole, replace(whole, right=8)], False),
        ([whole, whole, replace(whole, drops=1)], False),
    ):
        (goal,) = watch.goals(watch.Measured(watch.FLAT_OUT, 9, {EBPF: runs}))
        assert goal.is_met() is is_met


@pytest.mark.live
@pytest.mark.thorough
@needs_root
@pytest.mark.parametrize("number", [0, 3])
def test_the_benchmark_of_sizes_runs(number: int, tmp_path: Path) -> None:
    case = message_size.CASES[number]
    with lab():
        measured = message_size.measure(case, QUICK)
    assert not measured.fault()
    (small,), (large,) = measured.small, measured.large
    assert large.packet_bytes - small.packet_bytes > QUICK.size_sessions * 90_000
    assert min(small.watch_seconds, large.watch_seconds, small.bpf_seconds, large.bpf_seconds) > 0
    (goal,) = message_size.goals(measured)
    assert goal.measured.median == pytest.approx(large.cost_seconds() / small.cost_seconds())
    told = shown(lambda console: message_size.show(console, [measured, measured]), tmp_path)
    assert f"| {case.name} " in told


def test_what_watch_takes_doing_nothing_is_no_part_of_the_ratio() -> None:
    small, large = Batch(10, 1, 1.0, 5.0, 0.5, 100, 10_000), Batch(10, 1, 1.5, 5.0, 1.5, 100, 10_000)
    measured = message_size.Measured(message_size.CASES[0], [small], [large], 20, 20, 0, 20)
    assert measured.ratio().median == 2
    assert measured.ratio_with_idle().median == pytest.approx(8 / 6.5)
    assert not measured.fault()
    assert replace(measured, drops=1).fault()
    assert replace(measured, right=19).fault()
    assert replace(measured, records=19).fault()


@pytest.mark.live
@pytest.mark.thorough
@needs_root
def test_the_benchmark_of_the_crowd_sees_every_session_stand_open(tmp_path: Path) -> None:
    with lab():
        measured = many_open.measure(QUICK)
    assert measured.seen_open == measured.sessions == measured.records == QUICK.open_sessions
    assert not measured.fault()
    assert replace(measured, seen_open=199).fault()
    assert replace(measured, records=199).fault()
    assert replace(measured, drops=1).fault()
    assert "seen open" in shown(lambda console: many_open.show(console, measured), tmp_path)


@pytest.mark.live
@pytest.mark.thorough
@needs_root
@pytest.mark.parametrize("case", [scrape_flood.CASES[1], scrape_flood.CASES[3]], ids=lambda case: case.name)
def test_the_benchmark_of_the_flood_of_scrapes_floods_and_scrapes(
    case: scrape_flood.Case, tmp_path: Path
) -> None:
    with lab():
        measured = scrape_flood.measure(case, QUICK.scraped_sessions)
    assert measured.records == measured.right == measured.sessions == QUICK.scraped_sessions
    assert measured.drops == 0
    assert measured.flood_sent > len(scrape_flood.CLIENTS)
    assert measured.scrapes.seconds
    told = shown(lambda console: scrape_flood.show(console, [measured]), tmp_path)
    assert f"| {case.name} " in told
    recorded, answered = scrape_flood.goals(
        replace(measured, right=measured.right - 1, scrapes=scrape_flood.Scrapes([0.1], unanswered=1))
    )
    assert not recorded.is_met()
    assert not answered.is_met()


@pytest.mark.live
@pytest.mark.thorough
@needs_root
def test_the_benchmark_of_the_flood_sends_mail_into_it(tmp_path: Path) -> None:
    with lab():
        measured = flood.measure(QUICK)
    assert measured.right == measured.sessions >= 2 * flood.PER_SECOND
    assert measured.resident_most >= measured.resident_before
    assert measured.segments < measured.sessions * 30  # those of the sessions, and none of the flood
    told = shown(lambda console: flood.show(console, measured), tmp_path)
    assert f"flood of {QUICK.flood_packets:,} SYNs" in told
    recorded, resident = flood.goals(
        replace(measured, right=measured.sessions - 1, resident_most=200_000_001)
    )
    assert not recorded.is_met()
    assert not resident.is_met()


def test_what_fails_in_one_benchmark_takes_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Scale] = []

    def fails(_: Console, scale: Scale) -> list[Goal]:
        asked.append(scale)
        raise RuntimeError("broken")

    def measures(_: Console, scale: Scale) -> list[Goal]:
        asked.append(scale)
        return [Goal("pace", 1, Spread.of([1]))]

    monkeypatch.setattr(bench, "BENCHMARKS", {"one": fails, "other": measures})
    status: list[int] = []
    told = shown(lambda console: status.append(bench.run(console, ["one", "other"], FULL)), tmp_path)
    assert status == [1]
    assert asked == [FULL, FULL]
    assert "| pace " in told
    assert capsys.readouterr().err == "not measured: one: broken\n"
