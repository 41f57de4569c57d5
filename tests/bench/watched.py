"""`smtp-horizon watch` under measurement: each of its probes, and what it has taken so far.

Processor time of a process is that of its own clock (clock_getcpuclockid(3)), to the nanosecond: proc(5) stat
would round it to hundredths of a second. What its children took is known when they have ended, and in
hundredths. What the eBPF filter takes is charged to whoever sends or receives at the time, so it comes from
the kernel's own account of BPF programs (BPF_ENABLE_STATS).
"""

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil

from monitor.sessions.record import Envelope, SessionRecord, TapResult, TransactionOutcome
from tests.lab.network import Namespace
from tests.lab.watch import Watch, sample_sum

NOBODY: Final = "nobody"
EBPF: Final = "eBPF"
TLS_TAP: Final = "eBPF, with the TLS tap"
LIBPCAP: Final = "libpcap"
PYSHARK: Final = "pyshark"

# Longer than watch waits for stragglers of a closed connection before it writes the record.
RECORDS_WAIT_SECONDS: Final = 10.0
_LIBBPF: Final = "libbpf.so.1"  # Debian's libbpfcc, which the eBPF probe uses, brings it
_BPF_STATS_RUN_TIME: Final = 0  # linux/bpf.h
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers_types.h: the clock that counts what the scheduler gave


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
        return sum(taken_seconds(process) for process in self.processes())

    def resident_bytes(self) -> int:
        """Pages that several processes share count once: Pss of proc(5) smaps_rollup."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def peak_bytes(self) -> int:
        """VmHWM of proc(5) status, in KiB there."""
        peaks = 0
        for process in self.processes():
            status = Path(f"/proc/{process.pid}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
            peaks += int(line.split()[1]) * 1024
        return peaks

    def bpf_seconds(self) -> float:
        """Of all BPF programs that it and what it runs hold, since the account was opened; 0 without any."""
        taken_ns: dict[str, int] = {}
        for process in self.processes():
            for descriptor in Path(f"/proc/{process.pid}/fdinfo").iterdir():
                try:
                    lines = descriptor.read_text().splitlines()
                except OSError:
                    continue  # closed meanwhile
                said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                # Several descriptors may be of one program.
                if "run_time_ns" in said:
                    taken_ns[said["prog_id"]] = int(said["run_time_ns"])
        return sum(taken_ns.values()) / 1e9

    def drops_told(self) -> int:
        """What it says at its end. Before that, of the pyshark probe's drops not all are known."""
        told = re.search(r"packets lost before they could be read: (\d+)", self.said())
        return int(told[1]) if told else 0

    def end(self) -> int:
        """Stops it, and returns how many packets it lost."""
        counted = sample_sum(self.metrics(), "smtp_monitor_packets_dropped_total")
        self.stop()
        if (drops := self.drops_told()) < counted:
            raise RuntimeError(f"watch does not tell of its drops any more: {self.said()[-1000:]}")
        return drops

    def await_records(self, count: int, *, timeout_seconds: float = RECORDS_WAIT_SECONDS) -> None:
        """Until so many are written, or time is up. Asks no metrics: a scrape costs watch something."""
        deadline = time.monotonic() + timeout_seconds
        written = 0
        with self.records_file.open("rb") as file:
            while written < count and time.monotonic() < deadline:
                time.sleep(0.1)
                written += file.read().count(b"\n")

    def written(self) -> list[SessionRecord]:
        lines = self.records_file.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=SessionRecord) for line in lines]


class EbpfWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path, *options: str) -> None:
        super().__init__(namespace, folder, "--probe", "ebpf", *options)

    def bpf_seconds(self) -> float:
        """Raises RuntimeError where there is no program to ask: its time would be missing."""
        seconds = super().bpf_seconds()
        if not seconds:
            raise RuntimeError("the kernel has no account of a BPF program of watch")
        return seconds


class TappingWatch(EbpfWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder, "--tls-tap")


class PysharkWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder, "--probe", "pyshark")


class LibpcapWatch(MeasuredWatch):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        self._command[:1] = [sys.executable, "-m", "tests.bench.watch_libpcap"]


KINDS: Final[dict[str, Callable[[Namespace, Path], MeasuredWatch]]] = {
    EBPF: EbpfWatch,
    TLS_TAP: TappingWatch,
    LIBPCAP: LibpcapWatch,
    PYSHARK: PysharkWatch,
}


def count_right(records: Iterable[SessionRecord], envelope: Envelope) -> int:
    """Those that are complete and say of the envelope what the traffic made of it."""
    return sum(record.capture.complete and record.envelope is envelope for record in records)


def count_tapped(records: Iterable[SessionRecord]) -> int:
    """Those of which the TLS tap saw all that the server decrypted: one message, accepted."""
    return sum(
        record.tapped is not None
        and record.tapped.result is TapResult.WHOLE
        and [transaction.outcome for transaction in record.tapped.transactions]
        == [TransactionOutcome.ACCEPTED]
        for record in records
    )


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


def host_seconds(host: Namespace, but: list[psutil.Process]) -> float:
    """Of all processes of the host but these, and of what they started and saw end."""
    left_out = {process.pid for process in but}
    total = 0.0
    for number in host.processes():
        if number not in left_out:
            try:
                total += taken_seconds(psutil.Process(number))
            except (psutil.NoSuchProcess, OSError):
                continue  # its parent has its time now
    return total


def taken_seconds(process: psutil.Process) -> float:
    """With what it started, and saw end. Raises OSError or NoSuchProcess when it is gone."""
    # The clock's number: clock_getcpuclockid(3) in glibc, MAKE_PROCESS_CPUCLOCK in Linux.
    own = time.clock_gettime(~process.pid << 3 | _CPUCLOCK_SCHED)
    taken = process.cpu_times()
    return own + float(taken.children_user + taken.children_system)
