"""The exposition text: against golden files, against promtool, and against the list of families.

After a wanted change: UPDATE_GOLDEN=1 pytest tests/monitor/metrics/test_collector.py, and read the diff.
"""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitor.anomalies import Anomaly
from monitor.cli.observers import Observers
from monitor.metrics.collector import MonitorCollector, TapCounters, exposition, registry_of
from monitor.metrics.families import FAMILIES, SESSIONS, Kind
from monitor.metrics.labels import TLS_VERSIONS
from monitor.metrics.lag import Lag
from monitor.metrics.tally import Tally
from monitor.sessions.record import (
    Channel,
    Direction,
    Endpoint,
    Envelope,
    SessionRecord,
    Tapped,
    TapResult,
)
from tests.lab.prometheus import PROMTOOL, WHERE_FROM
from tests.monitor.metrics.conftest import OPTIONS, GivenProbe, GivenTable

MakeRecord = Callable[..., SessionRecord]

GOLDEN = Path(__file__).parent / "golden"


def _without_build(text: str) -> str:
    return re.sub(r"^smtp_monitor_build_info\{.*\}", "smtp_monitor_build_info{}", text, flags=re.M)


@pytest.mark.parametrize(
    "scenario", ["nothing_yet", "cleartext", "starttls", "tapped", "smtps", "scan", "lost", "anomalies"]
)
def test_the_exposition_equals_the_golden_file(
    scenario: str, collector: MonitorCollector, observers: Observers, make_record: MakeRecord
) -> None:
    if scenario == "anomalies":
        observers.record(make_record(anomalies=(Anomaly.CLEARTEXT_AUTH, Anomaly.BARE_LF)), written=False)
    elif scenario != "nothing_yet":
        observers.record(make_record(scenario), written=True)
    text = _without_build(exposition(collector).decode())
    if scenario != "nothing_yet":  # the zeros are in that one; the others hold what is counted
        text = "".join(line for line in text.splitlines(keepends=True) if not re.search(r"^#| 0\.0$", line))
    golden = GOLDEN / f"{scenario}.metrics"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_family_is_exposed_with_its_kind_help_and_labels(
    collector: MonitorCollector, tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record())
    exposed = {
        metric.name: metric for metric in text_string_to_metric_families(exposition(collector).decode())
    }
    assert len(exposed) == len(FAMILIES)
    for family in FAMILIES:
        metric = exposed[family.name.removesuffix("_total")]
        assert metric.documentation == family.help
        assert metric.type == family.kind
        for sample in metric.samples:
            assert set(sample.labels) - {"le"} == set(family.label_names)


def test_every_child_of_a_closed_set_is_there_at_zero(collector: MonitorCollector) -> None:
    exposed = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in text_string_to_metric_families(exposition(collector).decode())
        for sample in metric.samples
    }
    for port, direction, channel, envelope in product(
        ("25", "465", "587", "other"), Direction, Channel, Envelope
    ):
        labels = {"port": port, "direction": direction, "channel": channel, "envelope": envelope}
        assert exposed[(SESSIONS.name, *sorted(labels.items()))] == 0
    for version in TLS_VERSIONS:
        assert exposed[("smtp_tls_handshakes_total", ("port", "25"), ("version", version))] == 0
    for anomaly in Anomaly:
        assert exposed[("smtp_anomalies_total", ("anomaly", anomaly))] == 0


def test_no_traffic_adds_a_series(collector: MonitorCollector, tally: Tally, make_record: MakeRecord) -> None:
    series = exposition(collector).count(b"\n")
    for variant in ("cleartext", "starttls", "tapped", "smtps", "scan", "lost"):
        tally.count(make_record(variant, anomalies=tuple(Anomaly)))
    assert exposition(collector).count(b"\n") == series


def test_the_tap_is_told_of_where_one_runs(observers: Observers, probe: GivenProbe) -> None:
    class GivenTap:
        libraries = 2
        events_lost = 5

    def told(tap: TapCounters | None) -> list[bytes]:
        collector = MonitorCollector(observers, probe, GivenTable(), Lag(), tap=tap)
        return re.findall(rb"^smtp_monitor_tls_tap_\w+ .*$", exposition(collector), flags=re.M)

    assert told(GivenTap()) == [
        b"smtp_monitor_tls_tap_enabled 1.0",
        b"smtp_monitor_tls_tap_libraries 2.0",
        b"smtp_monitor_tls_tap_events_lost_total 5.0",
    ]
    assert [line.split()[1] for line in told(None)] == [b"0.0", b"0.0", b"0.0"]


def test_what_is_put_off_inside_tls_is_exposed_where_a_tap_runs(
    probe: GivenProbe, make_record: MakeRecord
) -> None:
    def told(observers: Observers) -> dict[bytes, bytes]:
        collector = MonitorCollector(observers, probe, GivenTable(), Lag())
        lines = re.findall(rb"^smtp_tapped_returns_.* .*$", exposition(collector), flags=re.M)
        return dict(line.rsplit(b" ", 1) for line in lines)

    def later(hours: int, **changes: object) -> SessionRecord:
        at = f"2026-11-22T{12 + hours}"
        return make_record("tapped", start=f"{at}:00:00.123456Z", end=f"{at}:00:00.543456Z", **changes)

    with (
        closing(Observers(OPTIONS, is_tapped=True)) as with_a_tap,
        closing(Observers(OPTIONS, is_tapped=False)) as without,
    ):
        at_zero = told(with_a_tap)
        assert len(at_zero) == 5 + 2 + 1
        assert set(at_zero.values()) == {b"0.0"}
        for record in (later(0), later(1), later(2, client=Endpoint("198.51.100.1", 40_000))):
            with_a_tap.record(record)
            without.record(record)
        unsure = later(3, client=Endpoint("198.51.100.1", 40_000), tapped=Tapped(TapResult.UNSURE))
        with_a_tap.record(unsure)
        with_a_tap.record(later(4, client=Endpoint("203.0.113.1", 40_000)))
        assert told(with_a_tap) == at_zero | {
            b'smtp_tapped_returns_total{return="inside_tls"}': b"1.0",
            b'smtp_tapped_returns_unknown_total{reason="in_doubt"}': b"1.0",
            b"smtp_tapped_returns_pending": b"1.0",
        }
        assert told(without) == at_zero


def test_no_address_or_name_is_ever_exposed(
    collector: MonitorCollector, tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record("cleartext"))
    tally.count(make_record("starttls"))
    tally.count(make_record("tapped"))
    text = exposition(collector)
    for secret in (b"192.0.2", b"example", b"PLAIN ", b"t13d"):
        assert secret not in text


@pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM)
@pytest.mark.parametrize("with_process", [True, False])
def test_promtool_finds_nothing_to_say(
    with_process: bool, collector: MonitorCollector, tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record(), written=True)
    text = generate_latest(registry_of(collector, with_process))
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (b"process_cpu_seconds_total" in text) is with_process
    assert b"_created" not in text


def test_a_counter_ends_in_total_and_nothing_else_does() -> None:
    for family in FAMILIES:
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER)
        assert family.name.startswith("smtp_")
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
