"""Recording rules and alerts: Prometheus' own linter and tests, names that are really exported, and that each
alert is tested in both ways. Their runbooks are in test_runbooks.py."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from promql_parser import AggregateExpr

from dashboards import rules
from dashboards.rules import greylisters, shares, tap, traffic, watcher
from dashboards.rules.rule import Alert, Group, Recording, Severity
from dashboards.rules.text import text
from tests.dashboards.vocabulary import faults, load_rules, vocabulary
from tests.lab.prometheus import PROMTOOL, WHERE_FROM

DASHBOARDS: Final = Path(rules.__file__).parents[1]
GENERATED: Final = DASHBOARDS / "generated" / "rules"
TESTS: Final = DASHBOARDS / "rules" / "tests"
TEST_FILES: Final = sorted(path.name for path in TESTS.glob("*.test.yml"))

GROUPS: Final[tuple[Group, ...]] = (
    *shares.GROUPS,
    greylisters.GROUP,
    watcher.GROUP,
    traffic.GROUP,
    tap.GROUP,
)
RECORDINGS: Final = [rule for group in GROUPS for rule in group.rules if isinstance(rule, Recording)]
ALERTS: Final = [rule for group in GROUPS for rule in group.rules if isinstance(rule, Alert)]
RULES: Final[list[Recording | Alert]] = [*RECORDINGS, *ALERTS]
KNOWN: Final = vocabulary(load_rules())

needs_promtool = pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=300)


def cases() -> Iterator[dict[str, Any]]:
    """The test groups of all files."""
    for name in TEST_FILES:
        yield from yaml.safe_load((TESTS / name).read_text())["tests"]


def verdicts(case: dict[str, Any], alert: str) -> list[bool]:
    """At each of its times, whether the alert is expected."""
    asked = [test for test in case.get("alert_rule_test", []) if test["alertname"] == alert]
    return [bool(test.get("exp_alerts")) for test in asked]


# -- the files


def test_the_generated_files_are_what_the_source_makes() -> None:
    assert {path.name: path.read_text() for path in GENERATED.iterdir()} == rules.files()


def test_the_same_source_makes_the_same_text_twice() -> None:
    assert rules.files() == rules.files()


def test_yaml_holds_each_expression_as_it_was_written() -> None:
    loaded = [
        rule["expr"]
        for content in rules.files().values()
        for group in yaml.safe_load(content)["groups"]
        for rule in group["rules"]
    ]
    assert loaded == [rule.expression for rule in RULES]


# -- promtool


@needs_promtool
@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_rules_pass_the_linter_of_prometheus(name: str) -> None:
    done = promtool("check", "rules", "--lint-fatal", GENERATED / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.thorough
@needs_promtool
@pytest.mark.parametrize("name", TEST_FILES)
def test_rules_give_what_their_tests_say(name: str) -> None:
    done = promtool("test", "rules", TESTS / name)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_linter_refuses_a_rule_that_stands_twice(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yml"
    twice.write_text(text([Group("twice", [RECORDINGS[0], RECORDINGS[0]])]))
    assert promtool("check", "rules", "--lint-fatal", twice).returncode != 0


@pytest.mark.thorough
@needs_promtool
def test_a_changed_threshold_fails_its_tests(tmp_path: Path) -> None:
    shutil.copytree(GENERATED, tmp_path / "generated" / "rules")
    shutil.copytree(TESTS, tmp_path / "rules" / "tests")
    alerts = tmp_path / "generated" / "rules" / "alerts.yml"
    before = alerts.read_text()
    alerts.write_text(before.replace("smtp_monitor_lag_seconds > 1\n", "smtp_monitor_lag_seconds > 2\n"))
    assert alerts.read_text() != before
    done = promtool("test", "rules", tmp_path / "rules" / "tests" / "watcher.test.yml")
    assert done.returncode != 0
    assert "SmtpHorizonFallingBehind" in done.stdout + done.stderr


# -- each alert is tested in both ways


@pytest.mark.parametrize("alert", [alert.name for alert in ALERTS])
def test_each_alert_has_a_test_that_fires_and_one_that_is_quiet(alert: str) -> None:
    mine = [case for case in cases() if case["name"].startswith(f"{alert} ")]
    assert any(any(verdicts(case, alert)) for case in mine if " fires " in case["name"])
    assert any(
        verdicts(case, alert) and not any(verdicts(case, alert))
        for case in mine
        if f"{alert} is quiet " in case["name"]
    )


def test_tests_ask_for_alerts_that_there_are() -> None:
    asked = {test["alertname"] for case in cases() for test in case.get("alert_rule_test", [])}
    assert asked == {alert.name for alert in ALERTS}


def test_each_recording_rule_is_asked_for_in_a_test_or_used_by_an_alert() -> None:
    asked = " ".join(test["expr"] for case in cases() for test in case.get("promql_expr_test", []))
    used = " ".join(alert.expression for alert in ALERTS)
    series = {recording.record for recording in RECORDINGS}
    # Those of a family differ in their window alone, which is in the name and the expression alike.
    assert {record for record in series if record not in asked + used and _stem(record) not in asked} == set()


def test_tests_feed_series_that_are_exported() -> None:
    series = [fed["series"] for case in cases() for fed in case["input_series"]]
    assert [fault for name in series for fault in faults(name, KNOWN)] == []


def _stem(record: str) -> str:
    """Without the window at its end."""
    return re.sub(r"\d+[mhd]$", "", record)


# -- names


def test_rules_name_metrics_labels_and_values_that_are_exported() -> None:
    found = {rule.expression: list(faults(rule.expression, KNOWN)) for rule in RULES}
    assert {expression: wrong for expression, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum(increase(smtp_session_total[1h]))", "no metric smtp_session_total"),
        ('increase(smtp_sessions_total{envelop="hidden"}[1h])', "has no label envelop"),
        ('increase(smtp_sessions_total{envelope=~"hidden|masked"}[1h])', "envelope is never 'masked'"),
        ("instance:smtp_sessions_hidden:ratio_increase2d", "no metric instance:smtp_sessions_hidden"),
        ("sum by (port) (smtp_sessions_open)", "adds up by port"),
    ],
)
def test_a_name_that_is_not_exported_is_found(expression: str, fault: str) -> None:
    assert any(fault in found for found in faults(expression, KNOWN))


@pytest.mark.parametrize("record", sorted({recording.record for recording in RECORDINGS}))
def test_the_name_of_a_recorded_series_begins_with_the_labels_that_it_bears(record: str) -> None:
    for recording in RECORDINGS:
        if recording.record == record:
            borne = [*_grouped_by(recording.expression), *recording.labels]
            assert record.startswith("_".join(borne) + ":")


def test_a_window_in_a_name_is_that_of_the_expression() -> None:
    for recording in RECORDINGS:
        window = recording.record.removeprefix(_stem(recording.record))
        if window:
            assert f"[{window}]" in recording.expression
            assert recording.expression.count("[") == recording.expression.count(f"[{window}]")


def _grouped_by(expression: str) -> list[str]:
    """In the order in which they are named."""
    found: dict[str, None] = {}

    def note(node: Any) -> None:
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            found.update(dict.fromkeys(node.modifier.labels))

    promql_parser.walk(promql_parser.parse(expression), note)
    return list(found)


# -- what alerts say


def test_no_two_alerts_have_one_name() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_waits_and_says_what_it_is(alert: Alert) -> None:
    document = yaml.safe_load(text([Group("one", [alert])]))["groups"][0]["rules"][0]
    assert document["alert"].startswith("SmtpHorizon")
    assert document["for"] not in {"", "0s", "0m"}
    assert Severity(document["labels"]["severity"])
    assert document["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert not document["annotations"]["summary"].endswith(".")
    assert document["annotations"]["description"].endswith(".")
    assert document["annotations"]["runbook_url"].endswith(f"/dashboards/runbooks/{alert.name}.md")


def test_only_what_stops_measuring_is_critical() -> None:
    critical = {alert.name for alert in ALERTS if alert.severity is Severity.CRITICAL}
    assert critical == {"SmtpHorizonCaptureDown", "SmtpHorizonExporterGone"}
