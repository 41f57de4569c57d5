"""What a session costs `smtp-horizon watch` when its message is a thousand times as large.

One watch sees both sizes, in turns, at the same pace of sessions a second; what it takes while nothing
happens is measured before each turn and subtracted from both, since it would hide the difference. The cable
carries super-segments of up to 64 kB, as a card with offloads shows them to the host. Shown beside, and held
against nothing: smaller ones, which smtp-source makes because it writes 4 kB at a time, and packets as they
are on the wire, without offloads.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console

from monitor.sessions.record import Envelope
from tests.bench import traffic
from tests.bench.figures import Spread, microseconds, print_table, significant, whole
from tests.bench.goals import Goal
from tests.bench.scale import Scale
from tests.bench.watched import EbpfWatch, bpf_stats, count_right
from tests.lab.network import INTERFACE, Namespace, Network
from tests.lab.packages import ensure

MOST: Final = 1.3
# Sessions that nobody measures, after the start: they bring in what is loaded at its first use.
_WARMING_SESSIONS: Final = 20
# Longer than watch keeps what it may still need of sessions that are over.
_SETTLING_SECONDS: Final = 3.0


class PacedDrive(Protocol):
    def __call__(self, network: Network, sessions: int, *, per_second: int, message_bytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    envelope: Envelope
    serve: Callable[[Network], AbstractContextManager[object]]
    drive: PacedDrive
    per_second: int
    is_offloaded: bool = True
    is_goal: bool = False
    """Held against the goal, and so measured several times, with more sessions."""


# Chosen because client and server leave time on two cores for watch, with messages of 1 MB.
_CLEAR_PER_SECOND: Final = 100
# Chosen because Postfix writes what it is sent to its queue: 50 MB a second.
_STARTTLS_PER_SECOND: Final = 50

CASES: Final = (
    Case(
        "in clear",
        Envelope.VISIBLE,
        traffic.swallower,
        traffic.clear_clients,
        _CLEAR_PER_SECOND,
        is_goal=True,
    ),
    Case(
        "in clear, smtp-source",
        Envelope.VISIBLE,
        traffic.swallower,
        traffic.paced_smtp_source,
        _CLEAR_PER_SECOND,
    ),
    Case(
        "in clear, no offloads",
        Envelope.VISIBLE,
        traffic.swallower,
        traffic.clear_clients,
        _CLEAR_PER_SECOND,
        is_offloaded=False,
    ),
    Case(
        "STARTTLS",
        Envelope.HIDDEN,
        traffic.real_postfix,
        traffic.starttls_clients,
        _STARTTLS_PER_SECOND,
        is_goal=True,
    ),
    Case(
        "STARTTLS, no offloads",
        Envelope.HIDDEN,
        traffic.real_postfix,
        traffic.starttls_clients,
        _STARTTLS_PER_SECOND,
        is_offloaded=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """Up to a moment."""

    at_seconds: float
    watch_seconds: float
    bpf_seconds: float
    packets: int
    """That came to the server's card or went out there; a super-segment is one."""
    packet_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Of sessions with messages of one size."""

    sessions: int
    elapsed_seconds: float
    """Of the sessions alone."""
    watch_seconds: float
    """Without what it would have taken doing nothing."""
    idle_seconds: float
    """That is, this."""
    bpf_seconds: float
    packets: int
    packet_bytes: int

    def cost_seconds(self) -> float:
        return self.watch_seconds + self.bpf_seconds


@dataclass(frozen=True, slots=True)
class Measured:
    case: Case
    small: list[Batch]
    large: list[Batch]
    records: int
    right: int
    drops: int
    sessions: int
    """In all."""

    def ratio(self) -> Spread:
        large, small = ([batch.cost_seconds() for batch in side] for side in (self.large, self.small))
        return Spread.of_ratios(large, small)

    def ratio_with_idle(self) -> Spread:
        """As if the heartbeat were part of a session."""
        large, small = (
            [batch.cost_seconds() + batch.idle_seconds for batch in side] for side in (self.large, self.small)
        )
        return Spread.of_ratios(large, small)

    def fault(self) -> str:
        if self.drops:
            return f"{self.drops:,} packets dropped"
        return "" if self.records == self.right == self.sessions else "sessions are missing"


def measure(case: Case, scale: Scale) -> Measured:
    """Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    rounds = scale.size_rounds if case.is_goal else 1
    with (
        bpf_stats(),
        Network(addresses=1, offload=case.is_offloaded, on_disk=True) as network,
        case.serve(network),
        EbpfWatch(network.server, network.folder) as watch,
    ):
        meter = _Meter(case, scale, network, watch)
        meter.warm_up()
        batches: dict[int, list[Batch]] = {size: [] for size in scale.size_bytes}
        for number in range(rounds):
            for size in scale.size_bytes[:: -1 if number % 2 else 1]:
                batches[size].append(meter.batch(size))
        drops = watch.end()
        records = watch.written()
    small, large = scale.size_bytes
    right = count_right(records, case.envelope)
    return Measured(case, batches[small], batches[large], len(records), right, drops, meter.sessions)


class _Meter:
    """One watch, and the sessions that it sees."""

    def __init__(self, case: Case, scale: Scale, network: Network, watch: EbpfWatch) -> None:
        self._case = case
        self._scale = scale
        self._network = network
        self._watch = watch
        self.sessions = 0
        """So far."""

    def warm_up(self) -> None:
        for size in self._scale.size_bytes:
            self._drive(_WARMING_SESSIONS, size)
        time.sleep(_SETTLING_SECONDS)

    def batch(self, size: int) -> Batch:
        sessions = self._scale.size_sessions if self._case.is_goal else self._scale.size_sessions_beside
        resting = self._taken()
        time.sleep(self._scale.idle_seconds)
        before = self._taken()
        elapsed = self._drive(sessions, size)
        after = self._taken()
        rested = before.watch_seconds - resting.watch_seconds
        idle = rested / (before.at_seconds - resting.at_seconds) * (after.at_seconds - before.at_seconds)
        return Batch(
            sessions,
            elapsed,
            after.watch_seconds - before.watch_seconds - idle,
            idle,
            after.bpf_seconds - before.bpf_seconds,
            after.packets - before.packets,
            after.packet_bytes - before.packet_bytes,
        )

    def _drive(self, sessions: int, size: int) -> float:
        """Until all of them are in the records; returns how long they took themselves."""
        self.sessions += sessions
        started = time.monotonic()
        self._case.drive(self._network, sessions, per_second=self._case.per_second, message_bytes=size)
        elapsed = time.monotonic() - started
        self._watch.await_records(self.sessions)
        return elapsed

    def _taken(self) -> Taken:
        packets, packet_bytes = card_counts(self._network.server)
        return Taken(
            time.monotonic(),
            self._watch.processor_seconds(),
            self._watch.bpf_seconds(),
            packets,
            packet_bytes,
        )


def card_counts(host: Namespace) -> tuple[int, int]:
    """Packets and bytes of its card, both ways."""
    (card,) = json.loads(host.run(["ip", "-json", "-stats", "link", "show", INTERFACE]).stdout)
    ways = [card["stats64"][way] for way in ("rx", "tx")]
    return sum(way["packets"] for way in ways), sum(way["bytes"] for way in ways)


def goals(measured: Measured) -> list[Goal]:
    if not measured.case.is_goal:
        return []
    name = f"watch, {measured.case.name}: processor time, messages of 1 MB / of 1 kB"
    return [Goal(name, MOST, measured.ratio(), fault=measured.fault())]


def show(console: Console, several: list[Measured]) -> None:
    first, beside = several[0], several[1].small[0].sessions
    print_table(
        console,
        f"watch, by the size of messages: {first.small[0].sessions:,} sessions of each size at a time "
        f"({beside} where no goal is); without what watch takes when nothing happens, in brackets with it; "
        "median (least to most)",
        ["traffic", "message", "sessions/s", "packets a session", "bytes a packet", "watch, µs a session",
         "filter, µs a session", "large / small", "(with idle)", "records", "right", "sent", "dropped"],
        [row for measured in several for row in _rows(measured)],
    )  # fmt: skip


def _rows(measured: Measured) -> list[list[str]]:
    counts = (measured.records, measured.right, measured.sessions, measured.drops)
    of_both = [
        measured.ratio().text(significant),
        f"({significant(measured.ratio_with_idle().median)})",
        *map(whole, counts),
    ]
    return [
        [measured.case.name, "small", *_costs(measured.small), *[""] * len(of_both)],
        [measured.case.name, "large", *_costs(measured.large), *of_both],
    ]


def _costs(batches: list[Batch]) -> list[str]:
    return [
        whole(Spread.of(batch.sessions / batch.elapsed_seconds for batch in batches).median),
        whole(Spread.of(batch.packets / batch.sessions for batch in batches).median),
        whole(Spread.of(batch.packet_bytes / batch.packets for batch in batches).median),
        Spread.of(batch.watch_seconds / batch.sessions for batch in batches).text(microseconds),
        Spread.of(batch.bpf_seconds / batch.sessions for batch in batches).text(microseconds),
    ]
