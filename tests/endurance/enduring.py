"""What both proofs of endurance need: the probe's name, and watch with an account of its memory."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest
from _pytest.capture import CaptureManager
from rich.console import Console

from tests.bench.figures import mebibytes, print_table, whole
from tests.endurance.memory import Sample, Sampler, figures
from tests.lab.network import Namespace
from tests.lab.watch import PROGRAM, Watch, sample_sum

PROBE: Final = os.environ.get("ENDURANCE_PROBE", "pyshark")
"""The one whose memory grows by itself, unless another is asked for."""
IS_TSHARK: Final = PROBE == "pyshark"
FILE_PROBE: Final = PROBE if IS_TSHARK else "pcap"
"""What reads files: eBPF can't."""

# How long nothing at all may come of what was sent. Chosen as dozens of times what a tshark takes to start on
# a busy machine; it is waited for in full only where something is lost.
PATIENCE_SECONDS: Final = 30.0

_RESTARTS: Final = "smtp_monitor_tshark_restarts_total"

# A report that is piped into a file has no terminal to fit in.
_FILE_WIDTH: Final = 160


class Lives(NamedTuple):
    """How long programs live until they are replaced."""

    frames_per_tshark: int
    seconds_per_dumpcap: float


def smtp_horizon(lives: Lives | None = None) -> list[str | Path]:
    """The program; with settings that its command line doesn't have."""
    if lives is None or not IS_TSHARK:
        return [PROGRAM]
    return [sys.executable, "-m", "tests.endurance.often_replaced", *map(str, lives)]


class EnduringWatch(Watch):
    """Its memory is sampled from when it is up until it is told to stop."""

    def __init__(self, namespace: Namespace, folder: Path, lives: Lives | None = None) -> None:
        super().__init__(namespace, folder, "--probe", PROBE)
        self._command[:1] = smtp_horizon(lives)
        self._sampler: Sampler | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        assert self._process is not None
        self._sampler = Sampler(self._process.pid)
        self._sampler.__enter__()
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_seconds: float = 20) -> int:
        if self._sampler is not None:
            self._sampler.stop()
        return super().stop(number, timeout_seconds=timeout_seconds)

    @property
    def samples(self) -> list[Sample]:
        """Empty before it is up."""
        return self._sampler.samples if self._sampler is not None else []

    def await_sum(self, name: str, wanted: float, **labels: str) -> float:
        """Until the samples of that name add up to so much, or nothing more comes. Returns what they do."""
        seen, since = -1.0, time.monotonic()
        while True:
            before, seen = seen, self.sample_sum(name, **labels)
            if seen != before:
                since = time.monotonic()
            if seen >= wanted or time.monotonic() > since + PATIENCE_SECONDS or not self.running():
                return seen
            time.sleep(0.1)


def imperfections(metrics: str) -> dict[str, float]:
    """Every sample that must be zero and is not: lost packets, sessions not seen whole, strays, tsharks that
    died."""
    names = (
        "smtp_monitor_packets_dropped_total",
        "smtp_monitor_sessions_incomplete_total",
        "smtp_tcp_handshakes_incomplete_total",
        "smtp_tcp_stray_segments_total",
    )
    found = {name: sample_sum(metrics, name) for name in names}
    found["unplanned restarts"] = sample_sum(metrics, _RESTARTS) - sample_sum(
        metrics, _RESTARTS, reason="planned"
    )
    return {name: value for name, value in found.items() if value}


@contextmanager
def shown(config: pytest.Config) -> Iterator[None]:
    """What is printed meanwhile is seen, though pytest captures what tests print."""
    capturing = config.pluginmanager.getplugin("capturemanager")
    assert isinstance(capturing, CaptureManager)
    with capturing.global_and_fixture_disabled():
        yield


def report(title: str, *, sessions: int, packets: int, seconds: float, samples: Sequence[Sample]) -> None:
    memory = figures(samples)
    replaced = sum(one.processes - 1 for one in memory if one.program == "tshark")
    print_table(
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH),
        f"{title}: {sessions:,} sessions, {packets:,} packets in {seconds:.0f} seconds; "
        f"tshark replaced {replaced} times",
        ["MiB", "processes", "at once", "most in 1st third", "most in last third", "peak", "final"],
        [
            [
                one.program,
                whole(one.processes),
                whole(one.at_once),
                *map(mebibytes, (one.first_bytes, one.last_bytes, one.peak_bytes, one.final_bytes)),
            ]
            for one in memory
        ],
    )
