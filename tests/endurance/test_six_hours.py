"""Six hours of mail through tshark: every record is there and right, and no program's memory grows."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.endurance import six_hours
from tests.endurance.enduring import IS_TSHARK, EnduringWatch, imperfections, report, shown
from tests.endurance.memory import MAIN, Sample, figures, growing
from tests.endurance.multiplier import Capture, read_capture
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.replay import silent_network
from tests.lab.watch import sample_sum

pytestmark = pytest.mark.endurance

# tshark is replaced after as many frames as always, so that it grows as far as it ever does.
LEAST_RESTARTS = 3
# From a pipe frames come faster than tshark takes them, and wait in smtp-horizon. Chosen as much as may wait,
# and as twice what its heap was seen to spread by while they come and go (16 MiB).
WAITING_BYTES = 32 * 2**20
# The one that is replaced, and the one that takes its place.
MOST_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Run:
    records: list[dict[str, Any]]
    status: int
    said: str
    samples: list[Sample]
    seconds: float
    sent: int
    """Packets of sessions."""
    metrics: str | None
    """None where a file was read: there is no packet to lose."""


Runs = dict[str, Callable[[Capture, Path], Run]]


def from_a_pipe(capture: Capture, folder: Path) -> Run:
    reading = six_hours.read_from_pipe(capture, six_hours.SESSIONS, folder)
    return Run(
        reading.records, reading.status, reading.said, reading.samples, reading.seconds, reading.packets, None
    )


def over_a_cable(capture: Capture, folder: Path) -> Run:
    if os.geteuid() != 0:
        pytest.skip("namespaces and capturing need root")
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    begun = time.monotonic()
    with silent_network() as network, EnduringWatch(network.server, folder) as watch:
        sent = six_hours.replay(network, capture, six_hours.SESSIONS, watch)
        watch.await_sum("smtp_monitor_packets_total", sent, verdict="segment")
        watch.await_sum("smtp_sessions_total", six_hours.SESSIONS)
        watch.await_silence()
        metrics = watch.metrics()
        status = watch.stop()
        samples = watch.samples
    seconds = time.monotonic() - begun
    return Run(watch.records(), status, watch.said(), samples, seconds, sent, metrics)


WAYS: Runs = {"from a pipe": from_a_pipe, "over a cable": over_a_cable}


@pytest.fixture(scope="module")
def capture() -> Capture:
    return read_capture()


@pytest.fixture(scope="module", params=list(WAYS))
def run(request: pytest.FixtureRequest, capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Run:
    how: str = request.param
    run = WAYS[how](capture, tmp_path_factory.mktemp("six_hours"))
    with shown(request.config):
        report(
            f"six hours {how}",
            sessions=len(run.records),
            packets=run.sent,
            seconds=run.seconds,
            samples=run.samples,
        )
    return run


def test_it_ends_in_good_order(run: Run) -> None:
    assert run.status == 0, run.said
    assert "Traceback" not in run.said


def test_every_session_has_its_record_and_none_has_two(run: Run, capture: Capture) -> None:
    complaints = six_hours.complaints(run.records, capture, six_hours.SESSIONS, timed=run.metrics is None)
    assert not complaints[:10]
    assert len(run.records) == six_hours.SESSIONS


def test_nothing_is_lost_on_a_cable(run: Run) -> None:
    if run.metrics is None:
        pytest.skip("this is about live capture")
    assert imperfections(run.metrics) == {}
    assert sample_sum(run.metrics, "smtp_monitor_packets_total", verdict="segment") == run.sent
    assert sample_sum(run.metrics, "smtp_sessions_total") == six_hours.SESSIONS


def test_no_memory_grows(run: Run) -> None:
    watched = {one.program for one in figures(run.samples)}
    assert watched >= ({MAIN, "tshark"} if IS_TSHARK else {MAIN})
    tolerances = {MAIN: WAITING_BYTES} if run.metrics is None else {}
    assert not growing(run.samples, tolerances)


def test_tshark_is_replaced_and_none_is_left_over(run: Run) -> None:
    if not IS_TSHARK:
        pytest.skip("another probe was asked for")
    (tshark,) = (one for one in figures(run.samples) if one.program == "tshark")
    assert tshark.processes > LEAST_RESTARTS
    assert tshark.at_once <= MOST_AT_ONCE
