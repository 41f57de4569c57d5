"""The integers as metric families, built when somebody asks.

A scrape looks like this (shortened; every child of a closed set is there, at zero, from the first scrape):

    # HELP smtp_sessions_total Sessions that ended, by whether somebody reading the stream could ...
    # TYPE smtp_sessions_total counter
    smtp_sessions_total{channel="starttls",direction="inbound",envelope="hidden",port="25"} 4711.0
    smtp_sessions_total{channel="cleartext",direction="inbound",envelope="visible",port="25"} 1174.0
    # TYPE smtp_starttls_total counter
    smtp_starttls_total{direction="inbound",outcome="established",port="25"} 4711.0
    smtp_starttls_total{direction="inbound",outcome="refused",port="25"} 12.0
    # TYPE smtp_tls_handshakes_total counter
    smtp_tls_handshakes_total{port="25",version="TLSv1.3"} 4650.0
    # TYPE smtp_messages_total counter
    smtp_messages_total{outcome="accepted",port="25"} 1020.0
    # TYPE smtp_recipients_total counter
    smtp_recipients_total{port="25",reply_class="2xx"} 1101.0
    # TYPE smtp_session_duration_seconds histogram
    smtp_session_duration_seconds_bucket{le="0.1"} 3017.0
    # TYPE smtp_monitor_packets_dropped_total counter
    smtp_monitor_packets_dropped_total{where="kernel"} 0.0
    # TYPE smtp_monitor_capture_up gauge
    smtp_monitor_capture_up{interface="eth0",probe="ebpf"} 1.0
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from monitor.metrics import families
from monitor.metrics.families import Family, Kind
from monitor.metrics.labels import DURATION_BUCKETS_SECONDS, Confinement
from monitor.metrics.lag import Lag
from monitor.metrics.tally import Tally
from monitor.peers import After, GivenUp, Peers, Return, Returns
from monitor.simulation.tallies import RETRY_DELAY_BUCKETS_SECONDS, Greylister
from probes.probe import DropSite, FilterVariant, Probe, Restart, Verdict

if TYPE_CHECKING:  # SQLite is loaded where somebody simulates
    from monitor.simulation.simulation import Simulation

VERSION: Final = version("smtp-horizon")
"""Looked up before privileges are given up: it stands in a file, perhaps in a folder that is root's."""

LabelsT = TypeVar("LabelsT", bound=tuple[StrEnum, ...])


class TableCounters(Protocol):
    """What the table of open sessions counts: monitor.sessions.table.SessionTable."""

    @property
    def open_sessions(self) -> int: ...
    @property
    def handshakes_incomplete(self) -> int: ...
    @property
    def strays(self) -> int: ...


class Counting(Protocol):
    """All that counts finished sessions: monitor.cli.observers.Observers."""

    @property
    def tally(self) -> Tally: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def simulation(self) -> "Simulation | None": ...


class TapCounters(Protocol):
    """What the tap of the mail server's TLS library counts: probes.tls_tap.TlsTap."""

    @property
    def libraries(self) -> int: ...
    @property
    def events_lost(self) -> int: ...


class MonitorCollector(Collector):
    """One scrape reads one snapshot of the tally; the rest are single integers of the capture thread, whose
    reading can't be torn."""

    def __init__(
        self,
        counting: Counting,
        probe: Probe,
        table: TableCounters,
        lag: Lag,
        confinement: Mapping[Confinement, bool] | None = None,
        *,
        tap: TapCounters | None = None,
    ) -> None:
        """`tap`: None where none runs."""
        self._tally = counting.tally
        self._peers = counting.peers
        self._simulation = counting.simulation
        self._probe = probe
        self._table = table
        self._lag = lag
        self._confinement = confinement or {}
        self._tap = tap

    def collect(self) -> Iterable[Metric]:
        counts = self._tally.snapshot()
        yield self._family(families.SESSIONS, counts.sessions)
        yield self._family(families.STARTTLS, counts.starttls)
        yield self._family(families.TLS_HANDSHAKES, counts.tls_handshakes)
        yield self._family(families.MESSAGES, counts.messages)
        yield self._family(families.RECIPIENTS, counts.recipients)
        yield self._family(families.AUTH, counts.auth)
        yield self._family(families.NULL_SENDER_MESSAGES, counts.null_sender_messages)
        yield self._family(families.TAPPED_SESSIONS, counts.tapped_sessions)
        yield self._family(families.TAPPED_MESSAGES, counts.tapped_messages)
        yield self._family(families.TAPPED_RECIPIENTS, counts.tapped_recipients)
        yield self._family(families.TAPPED_AUTH, counts.tapped_auth)
        yield from self._of_tapped_returns(self._peers.tapped_returns)
        yield self._family(families.BYTES, counts.bytes)
        yield self._family(families.ANOMALIES, counts.anomalies)
        yield self._family(families.GREYLISTER_SESSIONS, counts.greylister_sessions)
        yield self._family(families.GREYLISTER_MESSAGES, counts.greylister_messages)
        yield self._family(families.GREYLISTER_RECIPIENTS, counts.greylister_recipients)
        yield self._family(families.COUNTRY_SESSIONS, counts.country_sessions)
        yield from self._of_peers(self._peers)
        yield from self._of_simulation(self._simulation)
        yield _histogram(
            families.SESSION_DURATION,
            DURATION_BUCKETS_SECONDS,
            {(): (counts.duration_buckets, counts.duration_seconds_sum)},
        )
        yield self._family(families.SESSIONS_OPEN, {(): self._table.open_sessions})
        yield self._family(families.HANDSHAKES_INCOMPLETE, {(): self._table.handshakes_incomplete})
        yield self._family(families.STRAYS, {(): self._table.strays})
        seen, dropped = self._probe.counts.seen, self._probe.counts.dropped
        # Looked up one by one: the capture thread may add a key meanwhile, so they are never iterated.
        yield self._family(families.PACKETS, {(verdict.value,): seen[verdict] for verdict in Verdict})
        yield self._family(families.PACKETS_DROPPED, {(site.value,): dropped[site] for site in DropSite})
        yield self._family(families.LAG, {(): self._lag.seconds})
        restarts = self._probe.counts.restarts
        yield self._family(families.TSHARK_RESTARTS, {(why.value,): restarts[why] for why in Restart})
        yield self._family(families.SESSIONS_INCOMPLETE, counts.sessions_incomplete)
        yield self._family(families.RECORDS, counts.records)
        interfaces = self._probe.interfaces_up()
        yield self._family(
            families.CAPTURE_UP, {(name, self._probe.name): int(is_up) for name, is_up in interfaces.items()}
        )
        variant = self._probe.filter_variant
        yield self._family(
            families.EBPF_FILTER, {(each.value,): int(each is variant) for each in FilterVariant}
        )
        yield self._family(
            families.CONFINED, {(by.value,): int(is_so) for by, is_so in self._confinement.items()}
        )
        yield self._family(families.VERDICT_MISMATCHES, {(): counts.verdict_mismatches})
        yield from self._of_tap(self._tap)
        build = (VERSION, platform.python_version())
        yield self._family(families.BUILD_INFO, {build: 1})

    def _of_tap(self, tap: TapCounters | None) -> Iterable[Metric]:
        """All at zero where none runs."""
        yield self._family(families.TLS_TAP_ENABLED, {(): int(tap is not None)})
        yield self._family(families.TLS_TAP_LIBRARIES, {(): tap.libraries if tap is not None else 0})
        yield self._family(families.TLS_TAP_EVENTS_LOST, {(): tap.events_lost if tap is not None else 0})

    def _of_peers(self, peers: Peers) -> Iterable[Metric]:
        yield self._family(families.PEER_RETURNS, _by_text(peers.returns))
        yield self._family(families.PEER_RETURNS_UNKNOWN, _by_text(peers.given_up))
        pending = {(after,): peers.pending[after] for after in After}
        yield self._family(families.PEER_RETURNS_PENDING, _by_text(pending))
        yield self._family(families.PEERS, _by_text(peers.peers))
        yield self._family(families.PEER_DARK_SESSIONS, _by_text(peers.dark_sessions))
        yield self._family(families.PEERS_FORGOTTEN, {(): peers.peers_forgotten})

    def _of_tapped_returns(self, tapped: Returns | None) -> Iterable[Metric]:
        """All at zero where no tap runs."""
        returns: dict[tuple[Return], int] = {}
        given_up: dict[tuple[GivenUp], int] = {}
        if tapped is not None:
            returns = {(how,): count for (_, how), count in tapped.returns.items()}
            given_up = {(why,): count for (_, why), count in tapped.given_up.items()}
        yield self._family(families.TAPPED_RETURNS, _by_text(returns))
        yield self._family(families.TAPPED_RETURNS_UNKNOWN, _by_text(given_up))
        pending = tapped.pending[After.PUT_OFF] if tapped is not None else 0
        yield self._family(families.TAPPED_RETURNS_PENDING, {(): pending})

    def _of_simulation(self, simulation: "Simulation | None") -> Iterable[Metric]:
        """All at zero where nothing is simulated."""
        delays: dict[tuple[str, ...], tuple[list[int], float]]
        delays = {(name.value,): ([0] * (len(RETRY_DELAY_BUCKETS_SECONDS) + 1), 0.0) for name in Greylister}
        if simulation is not None:
            for labels, seen in simulation.retry_delays.items():
                delays[_text(labels)] = (seen.buckets.copy(), seen.sum_seconds)
        none_yet: dict[tuple[Greylister], int] = {}
        decisions = _by_text(simulation.decisions if simulation else {})
        fates = _by_text(simulation.fates if simulation else {})
        pending = simulation.pending if simulation else none_yet
        known = simulation.known if simulation else none_yet
        forgotten = simulation.known_forgotten if simulation else none_yet
        yield self._family(families.SIMULATION_DECISIONS, decisions)
        yield self._family(families.SIMULATION_TRIPLETS, fates)
        yield self._family(families.SIMULATION_PENDING, _by_text(pending))
        yield self._family(families.SIMULATION_KNOWN, _by_text(known))
        yield self._family(families.SIMULATION_KNOWN_FORGOTTEN, _by_text(forgotten))
        yield _histogram(families.SIMULATION_RETRY_DELAY, RETRY_DELAY_BUCKETS_SECONDS, delays)

    def _family(self, family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
        """All children of the closed sets, at zero where nothing was counted, then those counted."""
        make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
        metric = make(family.name, family.help, labels=family.label_names)
        children = dict.fromkeys(family.children(self._tally.ports), 0) | dict(values)
        for labels, value in children.items():
            metric.add_metric(labels, value)
        return metric


def registry_of(collector: MonitorCollector, with_process: bool) -> CollectorRegistry:
    """A registry of its own, so that nothing else in the process is exposed.

    `with_process` adds process_cpu_seconds_total and its like: true for a monitor that runs on, false for a
    capture file, whose numbers may end up beside those of another process.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    if with_process:
        ProcessCollector(registry=registry)
    return registry


def exposition(collector: MonitorCollector) -> bytes:
    """The text format of one moment: what `smtp-horizon read --format metrics` prints."""
    return generate_latest(registry_of(collector, with_process=False))


def _histogram(
    family: Family, bounds: Sequence[float], children: Mapping[tuple[str, ...], tuple[list[int], float]]
) -> Metric:
    """`children`: by label values, what each bucket alone has (one more than bounds), and the sum."""
    metric = HistogramMetricFamily(family.name, family.help, labels=family.label_names)
    names = [*map(str, bounds), "+Inf"]
    for labels, (buckets, total) in children.items():
        metric.add_metric(labels, list(zip(names, accumulate(buckets), strict=True)), total)
    return metric


def _by_text(values: Mapping[LabelsT, int]) -> dict[tuple[str, ...], float]:
    return {_text(labels): value for labels, value in values.items()}


def _text(labels: tuple[StrEnum, ...]) -> tuple[str, ...]:
    return tuple(label.value for label in labels)
