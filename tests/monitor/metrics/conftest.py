"""A collector over the observers, with a probe and a table whose numbers are given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.parameters import Countries
from monitor.metrics.collector import MonitorCollector
from monitor.metrics.lag import Lag
from monitor.metrics.tally import Tally
from probes.probe import DropSite, PacketCounts, Sieve, Verdict
from probes.segment import Segment


@dataclass
class GivenProbe:
    name: str = "ebpf"
    sieve: Sieve | None = None
    counts: PacketCounts = field(default_factory=PacketCounts)
    interfaces: dict[str, bool] = field(default_factory=dict)

    def batches(self) -> Iterator[Sequence[Segment]]:
        return iter(())

    def is_caught_up(self) -> bool:
        return True

    def interfaces_up(self) -> dict[str, bool]:
        return self.interfaces

    def stop(self) -> None:
        """Has nothing to stop."""

    def close(self) -> None:
        """Holds nothing."""


@dataclass
class GivenTable:
    open_sessions: int = 0
    handshakes_incomplete: int = 0
    strays: int = 0


OPTIONS = SiteOptions(
    ports=frozenset((25, 465, 587)),
    local_network=(),
    tls_ends="server",
    geoip=(),
    countries=Countries(0),
    simulate=("greylite", "postgrey"),
    simulate_state=None,
    simulate_delay=None,
)


@pytest.fixture
def observers() -> Iterator[Observers]:
    observers = Observers(OPTIONS)
    yield observers
    observers.close()


@pytest.fixture
def tally(observers: Observers) -> Tally:
    return observers.tally


@pytest.fixture
def probe() -> GivenProbe:
    probe = GivenProbe(interfaces={"eth0": True, "eth1": False})
    probe.counts.seen.update({Verdict.SEGMENT: 120, Verdict.NOT_TCP: 3})
    probe.counts.dropped[DropSite.RING_BUFFER] = 7
    return probe


@pytest.fixture
def collector(observers: Observers, probe: GivenProbe) -> MonitorCollector:
    return MonitorCollector(
        observers, probe, GivenTable(open_sessions=2, handshakes_incomplete=5, strays=11), Lag()
    )
