"""A collector over the observers, with a probe and a table whose numbers are given."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.parameters import Countries
from monitor.cli.serving import Serving
from monitor.cli.users import current
from monitor.metrics.collector import MonitorCollector
from monitor.metrics.lag import Lag
from monitor.metrics.server import listen
from monitor.metrics.tally import Tally
from monitor.metrics.web.settings import WebSettings
from probes.probe import DropSite, FilterVariant, PacketCounts, Sieve, Verdict
from probes.segment import Segment


@dataclass
class GivenProbe:
    name: str = "ebpf"
    sieve: Sieve | None = None
    filter_variant: FilterVariant | None = FilterVariant.FULL
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


StartServing = Callable[[WebSettings], Serving]


@contextmanager
def logging_to_standard_error() -> Iterator[None]:
    """What is begun meanwhile logs there, as under `watch`."""
    with open(2, "w", closefd=False) as stream:
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        yield
        logging.getLogger().removeHandler(handler)


@pytest.fixture
def start_serving(collector: MonitorCollector) -> Iterator[StartServing]:
    """Web settings -> the process that serves with them, as `watch` starts it."""
    with ExitStack() as started:

        def start(web: WebSettings) -> Serving:
            serving = Serving.start(listen("127.0.0.1", 0), web, current())
            started.callback(serving.close)
            serving.begin(collector)
            return serving

        yield start
