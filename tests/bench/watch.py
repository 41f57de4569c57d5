"""`smtp-horizon watch` in a real kernel: what a session costs while it happens.

Four workloads on two hosts of namespaces. smtp-source against smtp-sink, one short message a session, at a
steady pace, with each of the probes; the same as fast as they go, which shows whether watch keeps up; and as
fast as a real Postfix takes them, in clear and with STARTTLS: its own processor time is what that of watch is
held against, and its throughput unwatched what that watched is.

Processor time of watch is that of all its threads and of the programs that it runs. Its start is left out,
but that of tshark is in it: the first packet starts it. The server's is the sum of all other processes of its
host, ended ones included.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console

from monitor.sessions.record import Envelope
from tests.bench import traffic
from tests.bench.figures import (
    Spread,
    mebibytes,
    microseconds,
    milliseconds,
    print_table,
    significant,
    whole,
)
from tests.bench.goals import Goal
from tests.bench.scale import Scale
from tests.bench.traffic import Drive
from tests.bench.watched import (
    EBPF,
    KINDS,
    LIBPCAP,
    NOBODY,
    PYSHARK,
    TLS_TAP,
    MeasuredWatch,
    bpf_stats,
    count_right,
    count_tapped,
    host_seconds,
)
from tests.lab.network import INTERFACE, Namespace, Network
from tests.lab.packages import ensure
from tests.lab.watch import sample_sum

STEADY_PER_SECOND: Final = 500  # chosen because it is busy for a mail server, and leaves both cores time

# How much of a mail server's own processor time watching it may take, and of its throughput must be left.
MOST_OF_SERVER: Final = 0.03
LEAST_OF_THROUGHPUT: Final = 0.98


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    envelope: Envelope
    """What a record must say of each."""
    serve: Callable[[Network], AbstractContextManager[object]]
    drive: Drive
    """So many sessions; returns when they are over."""
    watchers: tuple[str, ...]
    """Who takes turns."""
    amount: Callable[[Scale], tuple[int, int]]
    """Rounds, and sessions."""


@dataclass(frozen=True, slots=True)
class Run:
    """One workload, watched or not."""

    elapsed_seconds: float
    server_seconds: float
    watch_seconds: float = 0
    bpf_seconds: float = 0
    resident_bytes: int = 0
    """Afterwards."""
    peak_bytes: int = 0
    """Of its whole life; eBPF's compiler is part of it."""
    packets: int = 0
    records: int = 0
    right: int = 0
    """Records that are complete and say of the envelope what the workload made of it."""
    tapped: int = 0
    """Records that have the whole envelope inside TLS."""
    drops: int = 0
    lag_seconds: float = 0
    """How far watch was behind the wire when the last session was over."""

    def is_whole(self, sessions: int) -> bool:
        """Whether every session is in the records, known for what it was, with nothing dropped."""
        return self.records == self.right == sessions and self.drops == 0

    def of_server(self) -> float:
        return (self.watch_seconds + self.bpf_seconds) / self.server_seconds


STEADY: Final = Workload(
    f"{STEADY_PER_SECOND} a second, in clear",
    Envelope.VISIBLE,
    traffic.smtp_sink,
    partial(traffic.paced_smtp_source, per_second=STEADY_PER_SECOND),
    (NOBODY, EBPF, LIBPCAP, PYSHARK),
    lambda scale: (scale.steady_rounds, scale.steady_sessions),
)
FLAT_OUT: Final = Workload(
    "as fast as they go, in clear",
    Envelope.VISIBLE,
    traffic.smtp_sink,
    traffic.smtp_source,
    (NOBODY, EBPF, LIBPCAP),
    lambda scale: (scale.flat_out_rounds, scale.flat_out_sessions),
)
POSTFIX: Final = Workload(
    "Postfix, in clear",
    Envelope.VISIBLE,
    traffic.real_postfix,
    traffic.smtp_source,
    (NOBODY, EBPF),
    lambda scale: (scale.postfix_rounds, scale.postfix_sessions),
)
STARTTLS: Final = Workload(
    "Postfix, STARTTLS",
    Envelope.HIDDEN,
    traffic.real_postfix,
    traffic.starttls_clients,
    (NOBODY, EBPF, TLS_TAP),
    lambda scale: (scale.postfix_rounds, scale.postfix_sessions),
)
WORKLOADS: Final = (STEADY, FLAT_OUT, POSTFIX, STARTTLS)


@dataclass(frozen=True, slots=True)
class Measured:
    workload: Workload
    sessions: int
    """Of each run."""
    runs: dict[str, list[Run]]
    """By watcher, in the order of the rounds."""

    def is_whole(self, watcher: str) -> bool:
        return all(run.is_whole(self.sessions) for run in self.runs[watcher])

    def throughput(self, watcher: str) -> Spread:
        """Watched by it / by nobody, round by round."""
        unwatched, watched = ([run.elapsed_seconds for run in self.runs[who]] for who in (NOBODY, watcher))
        return Spread.of_ratios(unwatched, watched)


def measure(workload: Workload, scale: Scale) -> Measured:
    """Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    rounds, sessions = workload.amount(scale)
    runs: dict[str, list[Run]] = {watcher: [] for watcher in workload.watchers}
    with bpf_stats():
        for number in range(rounds):
            # Whoever comes second finds a warmer machine: they take turns at that, too.
            for watcher in workload.watchers[:: -1 if number % 2 else 1]:
                runs[watcher].append(once(workload, sessions, KINDS.get(watcher)))
    return Measured(workload, sessions, runs)


def once(workload: Workload, sessions: int, kind: Callable[[Namespace, Path], MeasuredWatch] | None) -> Run:
    """On two hosts of its own: ports in TIME_WAIT are not the next run's trouble."""
    with Network(addresses=1, on_disk=True) as network, ExitStack() as running:
        running.enter_context(workload.serve(network))
        if kind is None:
            elapsed, server = _drive(workload, network, sessions, list)
            return Run(elapsed, server)
        watch = running.enter_context(kind(network.server, network.folder))
        seconds_before = watch.processor_seconds()
        elapsed, server = _drive(workload, network, sessions, watch.processes)
        lag_seconds = watch.sample_sum("smtp_monitor_lag_seconds")
        watch.await_records(sessions)
        watch_seconds = watch.processor_seconds() - seconds_before
        # The account was opened before the program was loaded.
        bpf_seconds = watch.bpf_seconds()
        resident_bytes, peak_bytes = watch.resident_bytes(), watch.peak_bytes()
        packets = sample_sum(watch.metrics(), "smtp_monitor_packets_total", verdict="segment")
        drops = watch.end()
        records = watch.written()
    return Run(
        elapsed,
        server,
        watch_seconds,
        bpf_seconds,
        resident_bytes,
        peak_bytes,
        packets=int(packets),
        records=len(records),
        right=count_right(records, workload.envelope),
        tapped=count_tapped(records),
        drops=drops,
        lag_seconds=lag_seconds,
    )


def _drive(
    workload: Workload, network: Network, sessions: int, not_the_server: Callable[[], list[psutil.Process]]
) -> tuple[float, float]:
    """Seconds on the clock, and of the server's processor time."""
    server_before = host_seconds(network.server, not_the_server())
    started = time.monotonic()
    workload.drive(network, sessions)
    elapsed = time.monotonic() - started
    return elapsed, host_seconds(network.server, not_the_server()) - server_before


def goals(measured: Measured) -> list[Goal]:
    """Of `FLAT_OUT` that nothing is lost, of Postfix what it costs; `STEADY` is held against nothing."""
    workload, runs = measured.workload, measured.runs[EBPF]
    if workload is FLAT_OUT:
        recorded = Spread.of(run.right / measured.sessions for run in runs)
        drops = sum(run.drops for run in runs)
        fault = f"{drops:,} packets dropped" if drops else ""
        name = f"watch, {workload.name}: sessions recorded / sent"
        return [Goal(name, 1, recorded, is_least=True, is_for_each=True, fault=fault)]
    if workload is STEADY:
        return []
    fault = "" if measured.is_whole(EBPF) else "sessions are missing"
    cost = Spread.of(run.of_server() for run in runs)
    return [
        *_goals_of_tap(measured),
        Goal(f"watch, {workload.name}: processor time / server's", MOST_OF_SERVER, cost, fault=fault),
        Goal(
            f"watch, {workload.name}: throughput watched / unwatched",
            LEAST_OF_THROUGHPUT,
            measured.throughput(EBPF),
            is_least=True,
            fault=fault,
        ),
    ]


def _goals_of_tap(measured: Measured) -> list[Goal]:
    """Where it is among the watchers."""
    if TLS_TAP not in measured.runs:
        return []
    whole = Spread.of(run.tapped / measured.sessions for run in measured.runs[TLS_TAP])
    name = f"TLS tap, {measured.workload.name}: envelopes inside TLS recorded / sent"
    return [Goal(name, 1, whole, is_least=True, is_for_each=True)]


def show(console: Console, measured: Measured) -> None:
    print_table(
        console,
        f"watch, {measured.workload.name}: {measured.sessions:,} sessions; "
        f"median of {len(measured.runs[NOBODY])} (least to most)",
        ["watched by", "sessions/s", "of unwatched", "watch, µs a session", "filter, µs a session",
         "watch, µs a packet", "resident MiB", "peak MiB", "watch / server", "records", "right", "dropped",
         "behind, ms"],
        [_row(measured, watcher) for watcher in measured.runs],
    )  # fmt: skip


def _row(measured: Measured, watcher: str) -> list[str]:
    sessions, runs = measured.sessions, measured.runs[watcher]
    pace = Spread.of(sessions / run.elapsed_seconds for run in runs).text(whole)
    if watcher == NOBODY:
        return [watcher, pace, *[""] * 11]
    user_space = in_kernel = ""
    # Packets that were dropped cost nothing: a session's cost would look small.
    if measured.is_whole(watcher):
        user_space = Spread.of(run.watch_seconds / sessions for run in runs).text(microseconds)
        if all(run.bpf_seconds for run in runs):
            in_kernel = Spread.of(run.bpf_seconds / sessions for run in runs).text(microseconds)
    per_packet = Spread.of(run.watch_seconds / run.packets for run in runs if run.packets)
    return [
        watcher,
        pace,
        measured.throughput(watcher).text(significant),
        user_space,
        in_kernel,
        microseconds(per_packet.median),
        mebibytes(max(run.resident_bytes for run in runs)),
        mebibytes(max(run.peak_bytes for run in runs)),
        Spread.of(run.of_server() for run in runs).text(significant),
        *(_ends([getattr(run, name) for run in runs]) for name in ("records", "right", "drops")),
        milliseconds(max(run.lag_seconds for run in runs)),
    ]


def _ends(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def commands(scale: Scale) -> list[str]:
    """As one would type them, each on its host."""
    return [
        f"smtp-horizon watch --probe ebpf --interface {INTERFACE} --records FILE",
        f"smtp-horizon watch --probe pyshark --interface {INTERFACE} --records FILE",
        *traffic.commands(scale.flat_out_sessions),
    ]
