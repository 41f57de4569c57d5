"""The made-up past is the same each time, and has in it what it says."""

import io
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from monitor.metrics.families import FAMILIES, Kind
from monitor.sessions.record import Envelope
from tests.dashboards.backfill import backfill
from tests.dashboards.mail_days import (
    DISK_FULL,
    INTERFACE_DOWN,
    PACKET_LOSS,
    STRIPPING,
    TAP_DETACHED,
    TAP_OVERRUN,
    Happening,
    MailDays,
)
from tests.dashboards.openmetrics import Series, write
from tests.dashboards.past import Past, is_available
from tests.lab.prometheus import WHERE_FROM

END: Final = 1_795_435_200
STEP_SECONDS: Final = 300
DAYS: Final = 1

needs_prometheus = pytest.mark.skipif(not is_available(), reason=WHERE_FROM)

Times = list[tuple[int, float]]


@pytest.fixture(scope="module")
def series() -> Series:
    return backfill(DAYS, END, step=STEP_SECONDS)


def text_of(series: Series) -> str:
    output = io.StringIO()
    write(series, output)
    return output.getvalue()


def sums(series: Series, name: str, *matchers: str) -> Times:
    """By time, the sum of all series of that name in whose labels these texts stand."""
    total: dict[int, float] = {}
    for family in series.families.values():
        for (sample_name, *_), found in family.series.items():
            if sample_name == name and all(matcher in found.written for matcher in matchers):
                for at, value in zip(found.times, found.values, strict=True):
                    total[at] = total.get(at, 0) + value
    return sorted(total.items())


def grew_during(times: Times) -> set[int]:
    """The ends of the steps in which it grew."""
    return {after[0] for before, after in pairwise(times) if after[1] > before[1]}


def steps_of(happening: Happening) -> set[int]:
    ends = range(END - DAYS * 86_400 + STEP_SECONDS, END + 1, STEP_SECONDS)
    return {at for at in ends if happening.at(END - (at - STEP_SECONDS))}


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_text(series: Series) -> None:
    assert text_of(backfill(DAYS, END, step=STEP_SECONDS)) == text_of(series)


@pytest.mark.thorough
def test_another_seed_gives_another(series: Series) -> None:
    assert text_of(backfill(DAYS, END, step=STEP_SECONDS, seed=2)) != text_of(series)


def test_every_exported_family_is_in_it(series: Series) -> None:
    named = {name.removesuffix("_total") for name in series.families}
    assert {family.name.removesuffix("_total") for family in FAMILIES} <= named


def test_no_counter_falls(series: Series) -> None:
    for family in FAMILIES:
        if family.kind is Kind.COUNTER:
            values = [value for _, value in sums(series, family.name)]
            assert values == sorted(values), family.name


def test_packets_are_lost_in_the_hour_that_says_so_and_in_no_other(series: Series) -> None:
    lost = grew_during(sums(series, "smtp_monitor_packets_dropped_total"))
    assert lost
    assert lost <= steps_of(PACKET_LOSS)


def test_starttls_is_masked_in_the_bout_and_after_it_only_by_sessions_still_open(series: Series) -> None:
    masked = grew_during(sums(series, "smtp_starttls_total", 'outcome="masked"'))
    assert len(masked) >= 5
    assert masked <= steps_of(STRIPPING) | {max(steps_of(STRIPPING)) + STEP_SECONDS}


def test_records_fail_while_the_disk_is_full_and_at_no_other_time(series: Series) -> None:
    failed = grew_during(sums(series, "smtp_monitor_records_total", 'result="failed"'))
    assert failed
    assert failed <= steps_of(DISK_FULL)


def test_an_interface_is_down_for_ten_minutes(series: Series) -> None:
    down = [at for at, value in sums(series, "smtp_monitor_capture_up", 'interface="eth1"') if value == 0]
    assert len(down) * STEP_SECONDS == INTERFACE_DOWN.lasted_seconds
    assert {value for _, value in sums(series, "smtp_monitor_capture_up", 'interface="eth0"')} == {1}


def test_the_tap_is_attached_to_nothing_for_half_an_hour_and_misses_what_comes(series: Series) -> None:
    libraries = sums(series, "smtp_monitor_tls_tap_libraries")
    none = [at for at, count in libraries if count == 0]
    assert len(none) * STEP_SECONDS == TAP_DETACHED.lasted_seconds
    seen = grew_during(sums(series, "smtp_tapped_sessions_total", 'result="whole"'))
    missed = grew_during(sums(series, "smtp_tapped_sessions_total", 'result="missed"'))
    assert not seen & steps_of(TAP_DETACHED)
    assert len(missed & steps_of(TAP_DETACHED)) >= 3


def test_the_tap_loses_events_while_too_many_come_and_at_no_other_time(series: Series) -> None:
    lost = grew_during(sums(series, "smtp_monitor_tls_tap_events_lost_total"))
    assert lost
    assert lost <= steps_of(TAP_OVERRUN)


def test_every_encrypted_session_is_tapped_but_what_we_send(series: Series) -> None:
    def encrypted(*labels: str) -> float:
        hidden = sums(series, "smtp_sessions_total", 'envelope="hidden"', *labels)
        partial = sums(series, "smtp_sessions_total", 'envelope="partial"', *labels)
        return hidden[-1][1] + partial[-1][1]

    sent = encrypted('direction="outbound"')
    assert sent > 0
    assert sums(series, "smtp_tapped_sessions_total")[-1][1] == encrypted() - sent


def test_dark_mail_bounces_more_and_is_put_off_less_than_mail_in_sight(series: Series) -> None:
    def share(name: str, value: str, whole: str) -> float:
        return sums(series, name, value)[-1][1] / sums(series, whole)[-1][1]

    bounced = "smtp_null_sender_messages_total"
    in_sight = share(bounced, "cleartext", "smtp_messages_total")
    assert 0 < in_sight < share(bounced, "encrypted", "smtp_tapped_messages_total")
    dark = share("smtp_tapped_recipients_total", "4xx", "smtp_tapped_recipients_total")
    assert 0 < dark < share("smtp_recipients_total", "4xx", "smtp_recipients_total")


def test_mail_put_off_inside_tls_comes_again_there_and_more_often_than_mail_in_clear(series: Series) -> None:
    def of(name: str, *labels: str) -> float:
        return sums(series, name, *labels)[-1][1]

    dark, in_clear = "smtp_tapped_returns_total", "smtp_peer_returns_total"
    inside, settled = of(dark, 'return="inside_tls"'), of(dark)
    put_off = 'after="put_off"'
    again = of(in_clear, put_off, 'return="clear"') + of(in_clear, put_off, 'return="other_address"')
    assert again / of(in_clear, put_off) < inside / settled < 1
    for how in ("other_address", "dark", "never"):
        assert of(dark, f'return="{how}"') > 0, how
    assert of("smtp_tapped_returns_unknown_total") > 0
    assert of("smtp_tapped_returns_pending") > 0


def test_the_encrypted_share_grows_over_weeks() -> None:
    mail = MailDays(END, lambda _: None, seed=1)

    def share(days_before_end: int) -> float:
        begin = END - days_before_end * 86_400
        envelopes = Counter(
            record.envelope
            for start in range(begin, begin + 86_400, 3_600)
            for record, _ in mail.sessions(start, start + 3_600)
        )
        return envelopes[Envelope.HIDDEN] / envelopes.total()

    assert share(30) + 0.05 < share(2)


def test_text_is_that_of_open_metrics() -> None:
    series = Series()
    for at, seconds in ((10, 0.25), (20, 1.5)):
        durations = HistogramMetricFamily("duration_seconds", "")
        durations.add_metric([], [("1.0", 1), ("+Inf", at // 10)], seconds)
        series.add(durations, at, {"instance": 'a"b'})
    sessions = CounterMetricFamily("sessions_total", "", labels=["port"])
    sessions.add_metric(["25"], 7)
    series.add(sessions, 10, {"job": "smtp"})
    assert (
        text_of(series)
        == r"""# TYPE duration_seconds histogram
duration_seconds_bucket{instance="a\"b",le="1.0"} 1 10
duration_seconds_bucket{instance="a\"b",le="+Inf"} 1 10
duration_seconds_count{instance="a\"b"} 1 10
duration_seconds_sum{instance="a\"b"} 0.25 10
duration_seconds_bucket{instance="a\"b",le="1.0"} 1 20
duration_seconds_bucket{instance="a\"b",le="+Inf"} 2 20
duration_seconds_count{instance="a\"b"} 2 20
duration_seconds_sum{instance="a\"b"} 1.5 20
# TYPE sessions counter
sessions_total{job="smtp",port="25"} 7 10
# EOF
"""
    )


@needs_prometheus
def test_prometheus_takes_every_sample(series: Series, tmp_path: Path) -> None:
    written = [found for family in series.families.values() for found in family.series.values()]
    with Past(tmp_path) as past:
        past.take(series)
        taken = 0
        for name in past.ask("label/__name__/values"):
            counted = past.ask("query", query=f"sum(count_over_time({name}[25h]))", time=END)["result"]
            taken += int(counted[0]["value"][1])
        assert taken == sum(len(found.times) for found in written)
        at_the_end = past.ask("query", query='count({__name__=~".+"})', time=END)["result"]
        assert int(at_the_end[0]["value"][1]) == len(written)


@needs_prometheus
def test_rules_have_recorded_and_alerts_have_fired(series: Series, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(
        """
        groups:
          - name: test
            rules:
              - record: twice
                expr: 2 * once
              - record: once
                expr: sum by (instance) (smtp_monitor_capture_up)
                labels: {of: interfaces}
              - alert: Down
                expr: smtp_monitor_capture_up == 0
                for: 5m
                labels: {severity: critical}
        """
    )
    with Past(tmp_path) as past:
        past.take(series)
        past.evaluate([tmp_path / "rules.yml"], END - 86_400, END, STEP_SECONDS)
        (twice,) = past.ask("query", query="twice", time=END)["result"]
        assert twice["value"][1] == "4"
        assert twice["metric"]["of"] == "interfaces"
        states = {
            state: [at for at, _ in found["values"]]
            for state in ("pending", "firing")
            for found in past.ask(
                "query_range",
                query=f'ALERTS{{alertname="Down",alertstate="{state}",interface="eth1"}}',
                start=END - INTERFACE_DOWN.ended_before_end_seconds - 1200,
                end=END - INTERFACE_DOWN.ended_before_end_seconds,
                step=STEP_SECONDS,
            )["result"]
        }
        assert min(states["firing"]) - min(states["pending"]) == timedelta(minutes=5).total_seconds()
