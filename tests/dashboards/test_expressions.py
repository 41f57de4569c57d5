"""Boards, rules and alerts name what is exported; and what is exported is shown or watched somewhere."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from dashboards import promql
from monitor.metrics.families import FAMILIES, SESSIONS, Family
from tests.dashboards.board_reader import (
    Query,
    annotation_queries,
    expand,
    load_boards,
    panel_queries,
    uid_of,
    variable_queries,
    variables_of,
)
from tests.dashboards.linter import STAND_INS
from tests.dashboards.promql_nodes import selectors
from tests.dashboards.small_board import small_board
from tests.dashboards.vocabulary import Rule, faults, load_rules, vocabulary

UNUSED: Final[Mapping[str, str]] = {
    "smtp_monitor_ebpf_filter": "fixed from the start to the end of watch, whose log and doctor say it too"
}
"""Families that no board and no rule uses -> why. What is in here and used is an error too."""

BOARDS: Final = load_boards()
RULES: Final = load_rules()
KNOWN: Final = vocabulary(RULES)

Model = dict[str, Any]


def expressions_of(board: Model) -> Iterator[Query]:
    """Of its panels, annotations and variables. The board's own variables are empty there: what may be chosen
    is asked of Prometheus."""
    values = STAND_INS | {variable["name"]: "" for variable in variables_of(board)}
    for query in (*panel_queries(board), *annotation_queries(board)):
        yield Query(query.board, query.place, expand(query.expression, values))
    for asked in variable_queries(board):
        if asked.expression:
            yield Query(asked.board, str(asked), expand(asked.expression, values))


def faults_of(board: Model) -> list[str]:
    return [
        f"{query}: {fault}" for query in expressions_of(board) for fault in faults(query.expression, KNOWN)
    ]


def labels_asked_of(board: Model) -> Iterator[tuple[str, str]]:
    for asked in variable_queries(board):
        if asked.function == "label_values" and asked.expression:
            values = {variable["name"]: "" for variable in variables_of(board)}
            for selector in selectors(expand(asked.expression, values)):
                yield selector.metric, asked.label


def named_in_all() -> set[str]:
    expressions = [query.expression for board in BOARDS for query in expressions_of(board)]
    expressions += [rule.expression for rule in RULES]
    return {selector.metric for expression in expressions for selector in selectors(expression)}


NAMED: Final = named_in_all()


def is_named(family: Family, named: set[str]) -> bool:
    return any(re.fullmatch(rf"{family.name}(_bucket|_sum|_count)?", name) for name in named)


@pytest.mark.parametrize("board", BOARDS, ids=uid_of)
def test_a_board_names_metrics_labels_and_values_that_are_exported(board: Model) -> None:
    found = faults_of(board)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("board", BOARDS, ids=uid_of)
def test_a_variable_asks_for_a_label_that_its_metric_has(board: Model) -> None:
    for metric, label in labels_asked_of(board):
        assert label in (KNOWN[metric] or {}), f"{metric} has no label {label}"


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.name} {number}" for number, rule in enumerate(RULES)])
def test_a_rule_names_metrics_labels_and_values_that_are_exported(rule: Rule) -> None:
    found = list(faults(rule.expression, KNOWN))
    assert not found, "\n".join(found)


def test_there_are_boards_and_rules() -> None:
    assert BOARDS
    assert any(rule.is_alert for rule in RULES)
    assert any(not rule.is_alert for rule in RULES)


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_every_exported_metric_is_used_or_exempt_with_a_reason(family: Family) -> None:
    is_used = is_named(family, NAMED)
    if family.name in UNUSED:
        assert not is_used, f"{family.name} is used: it needs no exemption"
        assert UNUSED[family.name]
    else:
        assert is_used, f"no board and no rule uses {family.name}"


def test_only_exported_metrics_are_exempt() -> None:
    assert set(UNUSED) <= {family.name for family in FAMILIES}


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(smtp_session_total[5m])", "no metric smtp_session_total"),
        ("rate(smtp_session_duration_seconds[5m])", "no metric smtp_session_duration_seconds"),
        ("instance:smtp_sessions_hiden:ratio_increase1d", "no metric instance:smtp_sessions_hiden:"),
        ('rate({__name__="smtp_session_total"}[5m])', "no metric smtp_session_total"),
        ('rate({port="25"}[5m])', "no metric (without a name)"),
        ('rate(smtp_sessions_total{outcome="hidden"}[5m])', "has no label outcome"),
        ('rate(smtp_sessions_total{envelope="hiden"}[5m])', "envelope is never 'hiden'"),
        ('rate(smtp_sessions_total{envelope=~"hidden|visble"}[5m])', "envelope is never 'visble'"),
        ('rate(smtp_sessions_total{envelope!~"hid.*"}[5m])', "no plain choice of values"),
        ("sum by (mechanism) (rate(smtp_sessions_total[5m]))", "adds up by mechanism"),
        ("sum by (le) (rate(smtp_session_duration_seconds_count[5m]))", "adds up by le"),
        ('ALERTS{alertname="SmtpHorizonNoSuchAlert"}', "alertname is never 'SmtpHorizonNoSuchAlert'"),
    ],
)
def test_what_is_not_exported_is_reported(expression: str, fault: str) -> None:
    assert any(fault in found for found in faults(expression, KNOWN))


@pytest.mark.parametrize(
    "expression",
    [
        'sum by (port) (rate(smtp_sessions_total{instance=~"a|b",envelope=~"hidden|partial"}[5m]))',
        "histogram_quantile(0.9, sum by (le) (rate(smtp_session_duration_seconds_bucket[5m])))",
        'smtp_sessions_total{port="25"} offset 1w',
        "rate(process_cpu_seconds_total[5m]) and on (instance) up == 1",
        'ALERTS{alertstate="firing"}',
    ],
)
def test_what_is_exported_is_not_reported(expression: str) -> None:
    assert list(faults(expression, KNOWN)) == []


def test_a_broken_board_is_reported() -> None:
    assert faults_of(small_board()) == []
    renamed = small_board('rate(smtp_mail_sessions_total{instance=~"$instance"}[$__rate_interval])')
    assert faults_of(renamed) == ["smtp-horizon-small: Sessions (A): no metric smtp_mail_sessions_total"]
    no_such_value = small_board(
        promql.rate(promql.select(SESSIONS, envelope="hidden")).replace("hidden", "dark")
    )
    assert faults_of(no_such_value) == [
        "smtp-horizon-small: Sessions (A): smtp_sessions_total: envelope is never 'dark'"
    ]
