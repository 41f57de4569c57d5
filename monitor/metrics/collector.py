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
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from monitor.metrics import families
from monitor.metrics.families import DURATION_BUCKETS_SECONDS, Family, Kind
from monitor.metrics.lag import Lag
from monitor.metrics.tally import Tally
from probes.probe import DropSite, Probe, Restart, Verdict


class TableCounters(Protocol):
    """What the table of open sessions counts: monitor.sessions.table.SessionTable."""

    @property
    def open_sessions(self) -> int: ...
    @property
    def handshakes_incomplete(self) -> int: ...
    @property
    def strays(self) -> int: ...


class MonitorCollector(Collector):
    """One scrape reads one snapshot of the tally; the rest are single integers of the capture thread, whose
    reading can't be torn."""

    def __init__(self, tally: Tally, probe: Probe, table: TableCounters, lag: Lag) -> None:
        self._tally = tally
        self._probe = probe
        self._table = table
        self._lag = lag

    def collect(self) -> Iterable[Metric]:
        counts = self._tally.snapshot()
        yield self._family(families.SESSIONS, counts.sessions)
        yield self._family(families.STARTTLS, counts.starttls)
        yield self._family(families.TLS_HANDSHAKES, counts.tls_handshakes)
        yield self._family(families.MESSAGES, counts.messages)
        yield self._family(families.RECIPIENTS, counts.recipients)
        yield self._family(families.AUTH, counts.auth)
        yield self._family(families.BYTES, counts.bytes)
        yield self._family(families.ANOMALIES, counts.anomalies)
        yield self._family(families.GREYLISTER_SESSIONS, counts.greylister_sessions)
        yield self._family(families.GREYLISTER_MESSAGES, counts.greylister_messages)
        yield self._family(families.GREYLISTER_RECIPIENTS, counts.greylister_recipients)
        yield _duration(counts.duration_buckets, counts.duration_seconds_sum)
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
        build = (version("smtp-horizon"), platform.python_version())
        yield self._family(families.BUILD_INFO, {build: 1})

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


def _duration(buckets: list[int], seconds_sum: float) -> Metric:
    bounds = [*(str(bound) for bound in DURATION_BUCKETS_SECONDS), "+Inf"]
    metric = HistogramMetricFamily(families.SESSION_DURATION.name, families.SESSION_DURATION.help, labels=())
    metric.add_metric((), list(zip(bounds, accumulate(buckets), strict=True)), seconds_sum)
    return metric
