"""What an expression may name: metrics that are exported or recorded, their labels, and their values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import promql_parser
import yaml
from promql_parser import AggModifierType, AggregateExpr

from monitor.metrics.families import FAMILIES, Kind
from tests.dashboards.past import GENERATED_RULES
from tests.dashboards.promql_nodes import Matcher, selectors

Labels = dict[str, tuple[str, ...] | None]
"""By name, the closed set of values; None where there is none."""

OF_THE_SCRAPE: Final[Labels] = {"instance": None, "job": None}
"""Added by Prometheus."""

# https://prometheus.io/docs/concepts/jobs_instances/#automatically-generated-labels-and-time-series
OF_PROMETHEUS: Final = (
    *("up", "scrape_duration_seconds", "scrape_samples_scraped"),
    *("scrape_samples_post_metric_relabeling", "scrape_series_added"),
)
# prometheus_client.ProcessCollector
OF_THE_PROCESS: Final = (
    *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
    *("process_start_time_seconds", "process_open_fds", "process_max_fds"),
)
# https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/#inspecting-alerts-during-runtime
OF_ALERTS: Final = ("ALERTS", "ALERTS_FOR_STATE")
_ALERT_STATES: Final = ("pending", "firing")

_LITERALS: Final = re.compile(r"[\w./+-]*(\|[\w./+-]*)*")
"""A regular expression that is a choice of words, which all of ours are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule or an alert."""

    name: str
    expression: str
    labels: Mapping[str, str]
    is_alert: bool


def load_rules(folder: Path = GENERATED_RULES) -> list[Rule]:
    return [
        Rule(rule.get("record") or rule["alert"], rule["expr"], rule.get("labels") or {}, "alert" in rule)
        for file in sorted(folder.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def vocabulary(rules: Sequence[Rule]) -> dict[str, Labels | None]:
    """By metric, its labels; None where nothing is known of them."""
    known: dict[str, Labels | None] = {}
    for family in FAMILIES:
        labels: Labels = {label.name: label.values for label in family.labels} | OF_THE_SCRAPE
        if family.kind is Kind.HISTOGRAM:
            known |= {f"{family.name}{suffix}": labels for suffix in ("_sum", "_count")}
            known[f"{family.name}_bucket"] = labels | {"le": None}
        else:
            known[family.name] = labels
    known |= dict.fromkeys((*OF_PROMETHEUS, *OF_THE_PROCESS), OF_THE_SCRAPE)
    # What a recorded series bears follows from its rule: aggregations decide it, and they are checked.
    known |= {rule.name: None for rule in rules if not rule.is_alert}
    known |= dict.fromkeys(OF_ALERTS, _labels_of_alerts([rule for rule in rules if rule.is_alert]))
    return known


def _labels_of_alerts(alerts: Sequence[Rule]) -> Labels:
    """What alerts bear: labels of their own, and those of the series that they come from."""
    labels: Labels = dict(OF_THE_SCRAPE)
    for alert in alerts:
        labels |= dict.fromkeys(alert.labels) | dict.fromkeys(_borne(alert.expression))
    labels["alertname"] = tuple(alert.name for alert in alerts)
    labels["alertstate"] = _ALERT_STATES
    return labels


def faults(expression: str, known: Mapping[str, Labels | None]) -> Iterator[str]:
    """What the expression names and nothing has. Raises ValueError where it cannot be parsed."""
    for selector in selectors(expression):
        if selector.metric not in known:
            yield f"no metric {selector.metric or '(without a name)'}"
            continue
        labels = known[selector.metric]
        if labels is not None:
            for matcher in selector.matchers:
                yield from _matcher_faults(selector.metric, matcher, labels)
    yield from _aggregation_faults(expression, known)


def _matcher_faults(metric: str, matcher: Matcher, labels: Labels) -> Iterator[str]:
    if matcher.label not in labels:
        yield f"{metric} has no label {matcher.label}"
        return
    values = labels[matcher.label]
    if values is None or matcher.value == "":
        return
    if matcher.operator in ("=", "!="):
        named = [matcher.value]
    elif _LITERALS.fullmatch(matcher.value):
        named = matcher.value.split("|")
    else:
        yield f"{metric}: {matcher.label}{matcher.operator}{matcher.value!r} is no plain choice of values"
        return
    for value in named:
        if value not in values:
            yield f"{metric}: {matcher.label} is never {value!r}"


def _aggregation_faults(expression: str, known: Mapping[str, Labels | None]) -> Iterator[str]:
    """Labels by which something is added up, and which nothing inside has."""
    found: list[tuple[list[str], str]] = []

    def note(node: Any) -> None:
        if not isinstance(node, AggregateExpr) or node.modifier is None:
            return
        if node.modifier.type == AggModifierType.By:
            found.append((node.modifier.labels, node.prettify()))

    promql_parser.walk(promql_parser.parse(expression), note)
    for by, inside in found:
        if "label_replace" in inside or "label_join" in inside:
            continue
        borne: set[str] = set()
        for selector in selectors(inside):
            labels = known.get(selector.metric)
            if labels is None:
                borne |= set(by)
            else:
                borne |= set(labels)
        for label in by:
            if label not in borne:
                yield f"adds up by {label}, which nothing in it has: {' '.join(inside.split())}"


def _borne(expression: str) -> set[str]:
    found: set[str] = set()

    def note(node: Any) -> None:
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), note)
    for selector in selectors(expression):
        found.update(
            label.name for family in FAMILIES if family.name == selector.metric for label in family.labels
        )
    return found
