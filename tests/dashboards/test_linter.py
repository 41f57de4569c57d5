"""The boards pass the linter's rules, and each rule reports a board that breaks it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

import pytest

from tests.dashboards.board_reader import GENERATED_BOARDS, load_boards, panels_of, uid_of
from tests.dashboards.linter import NOT_PORTED, RULES, lint
from tests.dashboards.small_board import EXPRESSION, small_board

# Of dashboard-linter at commit 4d0844b, docs/index.md.
GRAFANAS_RULES: Final = {
    *(
        "template-datasource-rule",
        "template-job-rule",
        "template-instance-rule",
        "template-label-promql-rule",
    ),
    *("template-on-time-change-reload-rule", "panel-datasource-rule", "panel-title-description-rule"),
    *("panel-units-rule", "panel-no-targets-rule", "target-logql-rule", "target-logql-auto-rule"),
    *("target-promql-rule", "target-rate-interval-rule", "target-job-rule", "target-instance-rule"),
    *("target-counter-agg-rule", "uneditable-dashboard"),
}

EXEMPT: Final[dict[tuple[str, str, str], str]] = {}
"""Rule, board and place -> why it may. What is in here and not found is an error too."""

BOARDS: Final = load_boards()

Model = dict[str, Any]


def panel(board: Model) -> Model:
    found: Model = board["panels"][0]
    return found


def target(board: Model) -> Model:
    found: Model = panel(board)["targets"][0]
    return found


def variable(board: Model, name: str) -> Model:
    return next(found for found in board["templating"]["list"] if found["name"] == name)


def ask(expression: str) -> Callable[[Model], None]:
    return lambda board: target(board).update(expr=expression)


def without_variable(name: str) -> Callable[[Model], None]:
    return lambda board: board["templating"]["list"].remove(variable(board, name))


def change_variable(variable_name: str, /, **changes: object) -> Callable[[Model], None]:
    return lambda board: variable(board, variable_name).update(changes)


def change_panel(**changes: object) -> Callable[[Model], None]:
    return lambda board: panel(board).update(changes)


def unit(name: str) -> Callable[[Model], None]:
    return lambda board: panel(board)["fieldConfig"]["defaults"].update(unit=name)


def second_unit(name: str) -> Callable[[Model], None]:
    properties = [{"id": "unit", "value": name}]
    return lambda board: panel(board)["fieldConfig"]["overrides"].append({"properties": properties})


def annotate(datasource: str) -> Callable[[Model], None]:
    annotation = {"name": "Restarts", "datasource": {"type": "prometheus", "uid": datasource}, "expr": "up"}
    return lambda board: board["annotations"].update(list=[annotation])


BROKEN: Final[list[tuple[str, str, Callable[[Model], None]]]] = [
    # The rule, what is wrong, and the change that makes it so.
    ("template-datasource-rule", "no variable", without_variable("datasource")),
    ("template-datasource-rule", "of another kind", change_variable("datasource", query="loki")),
    ("template-datasource-rule", "another name", change_variable("datasource", name="prom")),
    ("template-datasource-rule", "without a label", change_variable("datasource", label="")),
    ("template-instance-rule", "no variable", without_variable("instance")),
    ("template-instance-rule", "typed by hand", change_variable("instance", type="textbox")),
    ("template-instance-rule", "only one", change_variable("instance", multi=False)),
    ("template-instance-rule", "not all", change_variable("instance", includeAll=False)),
    ("template-instance-rule", "another datasource", change_variable("instance", datasource={"uid": "P1"})),
    ("template-label-promql-rule", "no function", change_variable("instance", query="instance")),
    (
        "template-label-promql-rule",
        "no selector",
        change_variable("instance", query="label_values(smtp_sessions_total{, instance)"),
    ),
    (
        "template-label-promql-rule",
        "no variable of that name",
        change_variable("instance", query='label_values(up{job="$job"}, instance)'),
    ),
    ("template-on-time-change-reload-rule", "asked once", change_variable("instance", refresh=1)),
    ("panel-datasource-rule", "a panel's, by name", change_panel(datasource={"uid": "P1809F7CD0C75ACF3"})),
    ("panel-datasource-rule", "a panel's, none", change_panel(datasource=None)),
    ("panel-datasource-rule", "a query's", lambda board: target(board).update(datasource={"uid": "P1"})),
    ("panel-datasource-rule", "an annotation's", annotate("P1")),
    ("panel-title-description-rule", "no title", change_panel(title="")),
    ("panel-title-description-rule", "no description", change_panel(description=None)),
    ("panel-units-rule", "none", unit("")),
    ("panel-units-rule", "one that Grafana has not", unit("mails")),
    ("panel-units-rule", "one of a single series", second_unit("mails")),
    ("panel-no-targets-rule", "none", change_panel(targets=[])),
    ("target-promql-rule", "a parenthesis", ask(EXPRESSION + ")")),
    ("target-promql-rule", "nothing", ask("")),
    ("target-promql-rule", "no range", ask('rate(smtp_sessions_total{instance=~"$instance"})')),
    ("target-promql-rule", "no such variable", ask(EXPRESSION.replace("$instance", "$host"))),
    ("target-rate-interval-rule", "rate", ask(EXPRESSION.replace("$__rate_interval", "5m"))),
    (
        "target-rate-interval-rule",
        "irate, within",
        ask('max(irate(smtp_sessions_total{instance=~"$instance"}[1m])) > 1'),
    ),
    ("target-instance-rule", "none", ask("sum(rate(smtp_sessions_total[$__rate_interval]))")),
    ("target-instance-rule", "one server", ask(EXPRESSION.replace("=~", "="))),
    ("target-instance-rule", "half of it", ask(f"{EXPRESSION} / sum(smtp_sessions_open)")),
    (
        "target-instance-rule",
        "a recorded series of each server",
        ask("instance:smtp_sessions_hidden:ratio_increase1d"),
    ),
    ("target-counter-agg-rule", "as it is", ask('sum(smtp_sessions_total{instance=~"$instance"})')),
    (
        "target-counter-agg-rule",
        "another function",
        ask('delta(smtp_sessions_total{instance=~"$instance"}[$__rate_interval])'),
    ),
    (
        "target-counter-agg-rule",
        "a histogram",
        ask('histogram_quantile(0.5, smtp_session_duration_seconds_bucket{instance=~"$instance"})'),
    ),
    ("uneditable-dashboard", "said so", lambda board: board.update(editable=True)),
    ("uneditable-dashboard", "not said", lambda board: board.pop("editable")),
]


def test_every_rule_of_grafanas_is_here_or_has_a_reason_not_to_be() -> None:
    assert set(RULES) | set(NOT_PORTED) == GRAFANAS_RULES
    assert not set(RULES) & set(NOT_PORTED)
    assert all(NOT_PORTED.values())


def test_every_rule_is_broken_by_some_board() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_a_board_without_fault_passes() -> None:
    assert lint(small_board()) == []


@pytest.mark.parametrize(
    ("rule", "what", "change"), BROKEN, ids=[f"{rule}: {what}" for rule, what, _ in BROKEN]
)
def test_a_board_that_breaks_a_rule_is_reported(
    rule: str, what: str, change: Callable[[Model], None]
) -> None:
    board = small_board()
    change(board)
    assert rule in {finding.rule for finding in lint(board)}, what


def test_a_panel_in_a_collapsed_row_is_looked_at() -> None:
    board = small_board()
    hidden = deepcopy(panel(board))
    hidden["description"] = ""
    board["panels"].append({"type": "row", "title": "More", "panels": [hidden]})
    assert [finding.rule for finding in lint(board)] == ["panel-title-description-rule"]


@pytest.mark.parametrize(
    "expression",
    [
        'sum(increase(smtp_sessions_total{instance=~"$instance"}[$__range]))',
        'sum(increase(smtp_sessions_total{instance=~"$instance"}[1d] offset 7d))',
        'instance:smtp_sessions_hidden:ratio_increase1d{instance=~"$instance"}',
        "policy:smtp_sessions_regained:increase1d",
        'ALERTS{alertstate="firing"}',
        "vector(0.94)",
    ],
)
def test_what_is_right_is_not_reported(expression: str) -> None:
    assert lint(small_board(expression)) == []


def test_words_in_place_of_numbers_need_no_unit() -> None:
    board = small_board()
    defaults = panel(board)["fieldConfig"]["defaults"]
    defaults["unit"] = ""
    defaults["mappings"] = [{"type": "value", "options": {"1": {"text": "up"}}}]
    assert lint(board) == []
    defaults["mappings"] = []
    assert [finding.rule for finding in lint(board)] == ["panel-units-rule"]


def test_there_are_boards() -> None:
    assert BOARDS, f"none in {GENERATED_BOARDS}"
    assert all(any(True for _ in panels_of(board)) for board in BOARDS)


@pytest.mark.parametrize("board", BOARDS, ids=uid_of)
def test_our_boards_pass(board: Model) -> None:
    found = [finding for finding in lint(board) if (finding.rule, finding.board, finding.place) not in EXEMPT]
    assert not found, "\n".join(map(str, found))


def test_every_exemption_is_needed() -> None:
    found = {(finding.rule, finding.board, finding.place) for board in BOARDS for finding in lint(board)}
    assert set(EXEMPT) <= found
