"""What `smtp-horizon watch` holds in memory when many sessions stand open at once, all of them real.

Several clients and servers share them, since a process may have only so many descriptors, and an address so
many ports.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import traffic
from tests.bench.figures import Spread, megabytes, print_table, whole
from tests.bench.goals import Goal
from tests.bench.scale import Scale
from tests.bench.watched import EbpfWatch
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import ensure

MOST_RESIDENT_BYTES: Final = 200 * 10**6
# Chosen because each then has 10,000 sessions: within the ports of an address (net.ipv4.ip_local_port_range)
# and the descriptors that a process may have where nobody has set less.
_PAIRS: Final = 5
# Of all clients together. Chosen because it is memory that is measured here, not speed.
PER_SECOND: Final = 1_000
# Chosen far beyond what it takes to read what a ring buffer holds, or to write the records.
_PATIENCE_SECONDS: Final = 20.0
_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Measured:
    sessions: int
    opening_seconds: float
    resident_before: int
    resident_bytes: int
    """With all of them open."""
    resident_afterwards: int
    peak_bytes: int
    seen_open: int
    """By watch, while all of them were."""
    records: int
    drops: int

    def fault(self) -> str:
        if self.drops:
            return f"{self.drops:,} packets dropped"
        if self.seen_open != self.sessions:
            return f"only {self.seen_open:,} seen open"
        return "" if self.records == self.sessions else f"only {self.records:,} recorded"


def measure(scale: Scale) -> Measured:
    """Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    each, sessions = scale.open_sessions // _PAIRS, scale.open_sessions // _PAIRS * _PAIRS
    with Network(addresses=_PAIRS, on_disk=True) as network, ExitStack() as running:
        for number in range(1, _PAIRS + 1):
            running.enter_context(traffic.swallower(network, server_address(number)))
        watch = running.enter_context(EbpfWatch(network.server, network.folder))
        resident_before = watch.resident_bytes()
        started = time.monotonic()
        with _clients(network, each) as clients:
            for client in clients:
                _await_open(client)
            opening_seconds = time.monotonic() - started
            seen_open = _await_seen(watch, sessions)
            resident_bytes = watch.resident_bytes()
        watch.await_records(sessions, timeout_seconds=_PATIENCE_SECONDS)
        resident_afterwards, peak_bytes = watch.resident_bytes(), watch.peak_bytes()
        drops = watch.end()
        records = len(watch.written())
    return Measured(
        sessions,
        opening_seconds,
        resident_before,
        resident_bytes,
        resident_afterwards,
        peak_bytes,
        seen_open,
        records,
        drops,
    )


@contextmanager
def _clients(network: Network, sessions: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Each with so many sessions, which it closes at the end."""
    with ExitStack() as running:
        numbers = range(1, _PAIRS + 1)
        yield [running.enter_context(_start_client(network, number, sessions)) for number in numbers]


def _start_client(network: Network, number: int, sessions: int) -> subprocess.Popen[str]:
    ends = (server_address(number), client_address(number))
    numbers = (sessions, PER_SECOND // _PAIRS)
    return subprocess.Popen(
        network.client.command([sys.executable, _FOLDER / "open_sessions.py", *ends, *map(str, numbers)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _await_open(client: subprocess.Popen[str]) -> None:
    assert client.stdout is not None
    if client.stdout.readline() != "open\n":
        raise RuntimeError("a client could not open its sessions: has it descriptors enough (ulimit -n)?")


def _await_seen(watch: EbpfWatch, sessions: int) -> int:
    """How many sessions it knows to be open, once it has read all that was sent."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        seen = int(watch.sample_sum("smtp_sessions_open"))
        if seen == sessions or time.monotonic() > deadline:
            return seen
        time.sleep(1)


def goals(measured: Measured) -> list[Goal]:
    resident = Spread.of([measured.resident_bytes])
    name = f"watch, {measured.sessions:,} sessions open at once: resident memory"
    return [Goal(name, MOST_RESIDENT_BYTES, resident, fault=measured.fault(), write=megabytes)]


def show(console: Console, measured: Measured) -> None:
    resident = measured.resident_bytes
    print_table(
        console,
        f"watch, {measured.sessions:,} sessions open at once: opened in {measured.opening_seconds:.0f} s; "
        "resident memory",
        ["before", "with all open", "a session", "when all are closed", "at its peak", "seen open", "records",
         "dropped"],
        [
            [
                megabytes(measured.resident_before),
                megabytes(resident),
                f"{whole((resident - measured.resident_before) / measured.sessions)} bytes",
                megabytes(measured.resident_afterwards),
                megabytes(measured.peak_bytes),
                whole(measured.seen_open),
                whole(measured.records),
                whole(measured.drops),
            ]
        ],
    )  # fmt: skip
