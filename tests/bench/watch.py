"""`smtp-horizon watch` in a real kernel: what a session costs while it happens.

Three workloads on two hosts of namespaces. smtp-source against smtp-sink, one short message a session, at a
steady pace; the same as fast as they go, which shows what is lost when watch can't keep up; and STARTTLS
through a real Postfix, whose own processor time is what that of watch is held against.

Processor time of watch is that of all its threads and of the programs that it runs, from proc(5) stat. Its
start is left out, but that of tshark is in it: the first packet starts it. What the eBPF filter takes is
charged to whoever sends or receives at the time, so it comes from the kernel's own account
(BPF_ENABLE_STATS). The server's is the sum of all other processes of its host, ended ones included.
"""

import ctypes
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil
from rich.console import Console

from monitor.sessions.record import Envelope, SessionRecord
from tests.bench.figures import Spread, mebibytes, microseconds, milliseconds, print_table, times, whole
from tests.lab import postfix, scenario
from tests.lab.network import INTERFACE, Namespace, Network, client_address, server_address
from tests.lab.packages import ensure
from tests.lab.postfix import Postfix
from tests.lab.watch import Watch, sample_sum

ROUNDS: Final = 3
PLAIN_SESSIONS: Final = 10_000
STEADY_SESSIONS: Final = 5_000
STEADY_PER_SECOND: Final = 500  # chosen because it is busy for a mail server, and leaves both cores time
STEADY_BURST: Final = 50
STARTTLS_SESSIONS: Final = 2_000
PARALLEL: Final = 10  # as many as keep both programs busy on two cores
MESSAGE_BYTES: Final = 4_096  # chosen because it is a short text mail with its header lines
# Longer than watch waits for stragglers of a closed connection before it writes the record.
RECORDS_WAIT_SECONDS: Final = 10.0

EBPF: Final = "eBPF"
LIBPCAP: Final = "libpcap"
PYSHARK: Final = "pyshark"
NOBODY: Final = "nobody"

_SERVER: Final = server_address(1)
_LIBBPF: Final = "libbpf.so.1"  # Debian's libbpfcc, which the eBPF probe uses, brings it
_BPF_STATS_RUN_TIME: Final = 0  # linux/bpf.h
_SINK: Final = ["smtp-sink", "-u", "nobody", "-h", "mx.test", f"{_SERVER}:25", "1000"]
_SOURCE: Final = [
    *("smtp-source", "-M", "client.test", "-f", "a@client.test", "-t", "b@mx.test"),
    *("-s", str(PARALLEL), "-l", str(MESSAGE_BYTES), "-m"),
]


class MeasuredWatch(Watch):
    """Tells what the process has taken so far."""

    def __enter__(self) -> Self:
        super().__enter__()
        assert self._process is not None
        self.process = psutil.Process(self._process.pid)
        return self

    def processes(self) -> list[psutil.Process]:
        """It, and what it runs now."""
        return [self.process, *self.process.children(recursive=True)]

    def processor_seconds(self) -> float:
        """With what it ran, and saw end."""
        return sum(_taken_seconds(process) for process in self.processes())

    def resident_bytes(self) -> int:
        """Pages that several processes share count for each."""
        return sum(process.memory_info().rss for process in self.processes())

    def peak_bytes(self) -> int:
        """VmHWM of proc(5) status, in KiB there."""
        peaks = 0
        for process in self.processes():
            status = Path(f"/proc/{process.pid}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
            peaks += int(line.split()[1]) * 1024
        return peaks

    def bpf_seconds(self) -> float:
        """Of all BPF programs that it holds, since the account was opened; 0 without any."""
        total_ns = 0
        for descriptor in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            for line in descriptor.read_text().splitlines():
                if line.startswith("run_time_ns:"):
                    total_ns += int(line.split()[1])
        return total_ns / 1e9

    def drops_told(self) -> int:
        """What it says at its end. Before that, of the pyshark probe's drops not all are known."""
        told = re.search(r"packets lost before they could be read: (\d+)", self.said())
        return int(told[1]) if told else 0

    def await_records(self, count: int) -> None:
        """Until so many are written, or time is up. Asks no metrics: a scrape costs watch something."""
        deadline = time.monotonic() + RECORDS_WAIT_SECONDS
        written = 0
        with self.records_file.open("rb") as file:
            while written < count and time.monotonic() < deadline:
                time.sleep(0.1)
                written += file.read().count(b"\n")


class EbpfWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder, "--probe", "ebpf")


class PysharkWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder, "--probe", "pyshark")


class LibpcapWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        self._command[:1] = [sys.executable, "-m", "tests.bench.watch_libpcap"]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    sessions: int
    envelope: Envelope
    """What a record must say of each."""
    serve: Callable[[Network], AbstractContextManager[object]]
    drive: Callable[[Network, int], None]
    """So many sessions; returns when they are over."""
    must_be_whole: bool = True
    """False where it is no fault to drop packets."""
    watchers: tuple[str, ...] = (NOBODY, EBPF, LIBPCAP)
    """Who takes turns."""


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
    drops: int = 0
    lag_seconds: float = 0
    """How far watch was behind the wire when the last session was over."""

    def is_whole(self, sessions: int) -> bool:
        """Whether every session is in the records, known for what it was, with nothing dropped."""
        return self.records == self.right == sessions and self.drops == 0


@contextmanager
def smtp_sink(network: Network) -> Iterator[None]:
    process = network.server.start(_SINK)
    try:
        network.server.await_listeners([(_SERVER, 25)])
        yield
    finally:
        process.terminate()
        process.wait()


def smtp_source(network: Network, sessions: int) -> None:
    network.client.run([*_SOURCE, str(sessions), f"{_SERVER}:25"])


def steady_smtp_source(network: Network, sessions: int) -> None:
    """In bursts: smtp-source knows no pauses shorter than a second."""
    started = time.monotonic()
    for sent in range(0, sessions, STEADY_BURST):
        time.sleep(max(0.0, started + sent / STEADY_PER_SECOND - time.monotonic()))
        smtp_source(network, min(STEADY_BURST, sessions - sent))


def real_postfix(network: Network) -> Postfix:
    return Postfix(network.server, network.folder / "postfix", (postfix.MX,))


def starttls_clients(network: Network, sessions: int) -> None:
    """Raises what a session raised: none of them may be missing."""
    with network.client.threads(PARALLEL) as threads:
        for _ in threads.map(
            scenario.starttls, repeat((_SERVER, 25), sessions), repeat(client_address(1), sessions)
        ):
            pass


STEADY: Final = Workload(
    f"{STEADY_PER_SECOND} a second, in clear",
    STEADY_SESSIONS,
    Envelope.VISIBLE,
    smtp_sink,
    steady_smtp_source,
    watchers=(NOBODY, EBPF, LIBPCAP, PYSHARK),
)
FLAT_OUT: Final = Workload(
    "as fast as they go, in clear",
    PLAIN_SESSIONS,
    Envelope.VISIBLE,
    smtp_sink,
    smtp_source,
    must_be_whole=False,
)
STARTTLS: Final = Workload(
    "STARTTLS with Postfix", STARTTLS_SESSIONS, Envelope.HIDDEN, real_postfix, starttls_clients
)
_KINDS: Final[dict[str, Callable[[Namespace, Path], MeasuredWatch] | None]] = {
    NOBODY: None,
    EBPF: EbpfWatch,
    LIBPCAP: LibpcapWatch,
    PYSHARK: PysharkWatch,
}

Runs = dict[str, list[Run]]


def measure(workload: Workload, sessions: int, rounds: int = ROUNDS) -> Runs:
    """By watcher. Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    runs: Runs = {watcher: [] for watcher in workload.watchers}
    with bpf_stats():
        for _ in range(rounds):
            for watcher in workload.watchers:
                runs[watcher].append(once(workload, sessions, _KINDS[watcher]))
    return runs


@contextmanager
def bpf_stats() -> Iterator[None]:
    """The kernel keeps account of BPF programs' time meanwhile.

    By a descriptor, not by kernel.bpf_stats_enabled: nothing has to be restored, even if the run is killed.
    """
    library = ctypes.CDLL(_LIBBPF)
    descriptor = library.bpf_enable_stats(_BPF_STATS_RUN_TIME)
    if descriptor < 0:
        raise OSError(-descriptor, os.strerror(-descriptor), "BPF_ENABLE_STATS")
    try:
        yield
    finally:
        os.close(descriptor)


def once(workload: Workload, sessions: int, kind: Callable[[Namespace, Path], MeasuredWatch] | None) -> Run:
    """On two hosts of its own: ports in TIME_WAIT are not the next run's trouble."""
    with Network(addresses=1) as network, ExitStack() as running:
        running.enter_context(workload.serve(network))
        if kind is None:
            elapsed, server = _drive(workload, network, sessions, list)
            return Run(elapsed, server)
        watch = running.enter_context(kind(network.server, network.folder))
        seconds_before, bpf_before = watch.processor_seconds(), watch.bpf_seconds()
        elapsed, server = _drive(workload, network, sessions, watch.processes)
        lag_seconds = watch.sample_sum("smtp_monitor_lag_seconds")
        watch.await_records(sessions)
        watch_seconds = watch.processor_seconds() - seconds_before
        bpf_seconds = watch.bpf_seconds() - bpf_before
        resident_bytes, peak_bytes = watch.resident_bytes(), watch.peak_bytes()
        metrics = watch.metrics()
        watch.stop()
        drops = watch.drops_told()
        if drops < sample_sum(metrics, "smtp_monitor_packets_dropped_total"):
            raise RuntimeError(f"watch does not tell of its drops any more: {watch.said()[-1000:]}")
        lines = watch.records_file.read_bytes().splitlines()
        records = [msgspec.json.decode(line, type=SessionRecord) for line in lines]
    return Run(
        elapsed,
        server,
        watch_seconds,
        bpf_seconds,
        resident_bytes,
        peak_bytes,
        packets=int(sample_sum(metrics, "smtp_monitor_packets_total", verdict="segment")),
        records=len(records),
        right=sum(record.capture.complete and record.envelope is workload.envelope for record in records),
        drops=drops,
        lag_seconds=lag_seconds,
    )


def _drive(
    workload: Workload, network: Network, sessions: int, not_the_server: Callable[[], list[psutil.Process]]
) -> tuple[float, float]:
    """Seconds on the clock, and of the server's processor time."""
    server_before = _processor_seconds(network.server, not_the_server())
    started = time.monotonic()
    workload.drive(network, sessions)
    elapsed = time.monotonic() - started
    return elapsed, _processor_seconds(network.server, not_the_server()) - server_before


def _processor_seconds(host: Namespace, but: list[psutil.Process]) -> float:
    """Of all processes of the host but these, and of what they started and saw end."""
    left_out = {process.pid for process in but}
    total = 0.0
    for number in host.processes():
        if number not in left_out:
            try:
                total += _taken_seconds(psutil.Process(number))
            except psutil.NoSuchProcess:
                continue  # its parent has its time now
    return total


def _taken_seconds(process: psutil.Process) -> float:
    """With what it started, and saw end."""
    taken = process.cpu_times()
    return float(taken.user + taken.system + taken.children_user + taken.children_system)


def is_whole(runs: Runs, sessions: int) -> bool:
    """Whether every run that was watched is."""
    watched = (run for watcher, several in runs.items() if watcher != NOBODY for run in several)
    return all(run.is_whole(sessions) for run in watched)


def show(console: Console, workload: Workload, sessions: int, runs: Runs) -> None:
    rounds = len(runs[NOBODY])
    print_table(
        console,
        f"watch, {workload.name}: {sessions:,} sessions; median of {rounds} (least to most)",
        ["watched by", "sessions/s", "watch, µs a session", "filter, µs a session", "watch, µs a packet",
         "resident MiB", "peak MiB", "watch / server", "records", "right", "dropped",
         "behind, ms"],
        [_row(watcher, sessions, several) for watcher, several in runs.items()],
    )  # fmt: skip


def _row(watcher: str, sessions: int, runs: list[Run]) -> list[str]:
    pace = Spread.of(sessions / run.elapsed_seconds for run in runs).text(whole)
    if watcher == NOBODY:
        return [watcher, pace, *[""] * 10]
    user_space = in_kernel = ""
    # Packets that were dropped cost nothing: a session's cost would look small.
    if all(run.is_whole(sessions) for run in runs):
        user_space = Spread.of(run.watch_seconds / sessions for run in runs).text(microseconds)
        if all(run.bpf_seconds for run in runs):
            in_kernel = Spread.of(run.bpf_seconds / sessions for run in runs).text(microseconds)
    per_packet = Spread.of(run.watch_seconds / run.packets for run in runs if run.packets)
    ratio = ""
    if all(run.server_seconds for run in runs):  # a short run may be over within a tick of its clock
        ratios = ((run.watch_seconds + run.bpf_seconds) / run.server_seconds for run in runs)
        ratio = Spread.of(ratios).text(times)
    return [
        watcher,
        pace,
        user_space,
        in_kernel,
        microseconds(per_packet.median),
        mebibytes(max(run.resident_bytes for run in runs)),
        mebibytes(max(run.peak_bytes for run in runs)),
        ratio,
        *(_ends([getattr(run, name) for run in runs]) for name in ("records", "right", "drops")),
        milliseconds(max(run.lag_seconds for run in runs)),
    ]


def _ends(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def commands() -> list[str]:
    """As one would type them, each on its host."""
    return [
        f"smtp-horizon watch --probe ebpf --interface {INTERFACE} --records FILE",
        f"smtp-horizon watch --probe pyshark --interface {INTERFACE} --records FILE",
        shlex.join(_SINK),
        shlex.join([*_SOURCE, str(PLAIN_SESSIONS), f"{_SERVER}:25"]),
    ]
