"""The rules of Grafana's dashboard-linter that apply to our boards, in Python.

https://github.com/grafana/dashboard-linter, as of commit 4d0844b (June 2026). Each function says what
Grafana's rule of that name demands; where ours demands more or something else, it says so.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tests.dashboards.board_reader import (
    NOT_DATA,
    Model,
    expand,
    panel_queries,
    panels_of,
    read_variable_query,
    targets_of,
    uid_of,
    variables_of,
)
from tests.dashboards.promql_nodes import Selector, selectors

DATASOURCES: Final = frozenset(("$datasource", "${datasource}"))
_BUILT_IN: Final = frozenset(("-- Grafana --", "-- Mixed --", "-- Dashboard --"))
"""Grafana's own, which every Grafana has by that name."""

RATE_INTERVAL: Final = timedelta(seconds=699)
"""Stands for $__rate_interval while an expression is looked at: a duration that nobody writes by hand."""

STAND_INS: Final = {
    "__rate_interval": "699s",
    "__interval": "31s",
    "__interval_ms": "31000",
    "__range": "1h7m",
    "__range_s": "4020",
    "__range_ms": "4020000",
    "__from": "1795431600000",
    "__to": "1795435200000",
}
"""In the place of Grafana's own variables, so that an expression can be parsed."""

UNITS: Final = frozenset(
    # Grafana's ids (packages/grafana-data/src/valueFormats/categories.ts), of what mail is measured in.
    (
        *(
            "none",
            "string",
            "short",
            "percent",
            "percentunit",
            "locale",
            "sci",
            "bool",
            "bool_yes_no",
            "bool_on_off",
        ),
        *("bytes", "decbytes", "bits", "decbits", "Bps", "binBps", "bps", "binbps", "pps"),
        *("ns", "µs", "ms", "s", "m", "h", "d", "dtdurations", "dtdurationms", "dthms", "dtdhms", "hertz"),
        *("cps", "ops", "reqps", "rps", "wps", "cpm", "opm", "rpm", "mps", "mpm"),
        *("dateTimeAsIso", "dateTimeAsIsoNoDateIfToday", "dateTimeFromNow", "dateTimeAsSystem"),
    )
)
_OWN_UNIT: Final = re.compile(r"(suffix|prefix):.+")
"""Which Grafana takes for units that it has no id for; its linter does not know them."""

NOT_PORTED: Final = {
    "template-job-rule": "The boards know no job: a server is its instance, whatever the job is called.",
    "target-job-rule": "As above.",
    "target-logql-rule": "No board asks Loki.",
    "target-logql-auto-rule": "No board asks Loki.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    board: str
    """Its uid."""
    place: str
    """The panel's title, the variable's name; empty where it is the whole board."""
    what: str

    def __str__(self) -> str:
        return f"{self.board}: {self.place or 'board'}: {self.what} [{self.rule}]"


Complaint = tuple[str, str]
"""Place and what."""


def lint(board: Model) -> list[Finding]:
    return [
        Finding(rule, uid_of(board), place, what)
        for rule, complaints in RULES.items()
        for place, what in complaints(board)
    ]


def template_datasource(board: Model) -> Iterator[Complaint]:
    """One datasource variable, named `datasource`, of Prometheus, labelled so that people know what it is."""
    found = [variable for variable in variables_of(board) if variable.get("type") == "datasource"]
    if len(found) != 1:
        yield "", f"{len(found)} datasource variables, not one"
    for variable in found:
        if variable.get("name") != "datasource":
            yield variable.get("name", ""), "is not named datasource"
        if variable.get("query") != "prometheus":
            yield variable.get("name", ""), "is not of Prometheus"
        if variable.get("label") != "Data source":
            yield variable.get("name", ""), "is not labelled Data source"


def template_instance(board: Model) -> Iterator[Complaint]:
    """A variable `instance`, asked of that datasource, of which several and all can be chosen.

    Grafana's also wants the label Instance and `.+` for all. Ours is for people, who say server; and the list
    of what was found, rather than `.+`, keeps `process_` and `scrape_` metrics of other programs out.
    """
    found = [variable for variable in variables_of(board) if variable.get("name") == "instance"]
    if not found:
        yield "", "has no variable instance"
    for variable in found:
        if variable.get("type") != "query":
            yield "instance", "is not a query"
        if _uid(variable.get("datasource")) not in DATASOURCES:
            yield "instance", "does not ask the chosen datasource"
        if not variable.get("multi") or not variable.get("includeAll"):
            yield "instance", "does not let several and all be chosen"
        if not variable.get("label"):
            yield "instance", "has no label"


def template_label_promql(board: Model) -> Iterator[Complaint]:
    """What fills a variable is a function that Grafana has, with a selector that can be parsed."""
    for variable in _query_variables(board):
        try:
            query = read_variable_query(uid_of(board), variable)
            if query.expression and query.function != "metrics":
                selectors(_expanded(query.expression, board))
        except (ValueError, KeyError) as error:
            yield variable.get("name", ""), f"cannot be asked for: {error}"


def template_on_time_change_reload(board: Model) -> Iterator[Complaint]:
    """Variables are asked anew when the time range changes: last week's server is in the list."""
    for variable in _query_variables(board):
        if variable.get("refresh") != 2:
            yield variable.get("name", ""), "is not asked anew when the time range changes"


def panel_datasource(board: Model) -> Iterator[Complaint]:
    """Panels use the datasource variable. Ours: so does every query, variable and annotation."""
    for panel in _data_panels(board):
        if _uid(panel.get("datasource")) not in DATASOURCES:
            yield _title(panel), f"uses {_uid(panel.get('datasource')) or 'no datasource'}"
    for place, uid in _datasources(board, ""):
        if uid not in DATASOURCES | _BUILT_IN:
            yield place, f"a datasource by name: {uid}"


def panel_title_description(board: Model) -> Iterator[Complaint]:
    """Every panel has both. Ours: texts too."""
    for panel in panels_of(board):
        if panel.get("type") != "row" and not (panel.get("title") and panel.get("description")):
            yield _title(panel), "has no title or no description"


def panel_units(board: Model) -> Iterator[Complaint]:
    """Every panel has a unit that Grafana has, or says words in place of numbers.

    Grafana's takes an empty list of mappings for words; ours does not.
    """
    for panel in _data_panels(board):
        config = panel.get("fieldConfig") or {}
        defaults, overrides = config.get("defaults") or {}, config.get("overrides") or []
        own = [item for override in overrides for item in override.get("properties") or []]
        shows_text = bool((panel.get("options") or {}).get("reduceOptions", {}).get("fields"))
        if shows_text or defaults.get("mappings") or any(item["id"] == "mappings" for item in own):
            continue
        units = [item.get("value") for item in own if item["id"] == "unit"]
        units += [defaults["unit"]] if defaults.get("unit") else []
        if not units:
            yield _title(panel), "has no unit"
        for unit in units:
            if unit not in UNITS and not _OWN_UNIT.fullmatch(str(unit)):
                yield _title(panel), f"has a unit that Grafana does not: {unit}"


def panel_no_targets(board: Model) -> Iterator[Complaint]:
    """Every panel asks something."""
    for panel in _data_panels(board):
        if not targets_of(panel):
            yield _title(panel), "asks nothing"


def target_promql(board: Model) -> Iterator[Complaint]:
    """Every query can be parsed, and names only variables that the board or Grafana has."""
    for query in panel_queries(board):
        try:
            selectors(_expanded(query.expression, board))
        except ValueError as error:
            yield query.place, f"cannot be parsed: {error}"
        except KeyError as error:
            yield query.place, f"there is no variable {error}"


def target_rate_interval(board: Model) -> Iterator[Complaint]:
    """`rate` and `irate` over $__rate_interval, which follows the width of the picture. Other functions may
    have what range they want."""
    for place, selector in _parsed(board):
        if selector.range is None or selector.range == RATE_INTERVAL:
            continue
        if selector.function in ("rate", "irate"):
            yield place, f"{selector.function} of {selector.metric} is not over $__rate_interval"
        elif selector.function is None:
            yield place, f"{selector.metric} has a range and no function"


def target_instance(board: Model) -> Iterator[Complaint]:
    """Every selector has `instance=~"$instance"`.

    Not those of recorded series whose rule has added the servers up, as their name's level says (`port:…`),
    nor of Prometheus' own ALERTS.
    """
    wanted = _all_values(board).get("instance")
    for place, selector in _parsed(board):
        level = selector.metric.partition(":")[0] if ":" in selector.metric else None
        if selector.metric == "ALERTS" or (level is not None and "instance" not in level):
            continue
        if not any(
            (matcher.label, matcher.operator, matcher.value) == ("instance", "=~", wanted)
            for matcher in selector.matchers
        ):
            yield place, f"{selector.metric} is not of the chosen servers"


def target_counter_agg(board: Model) -> Iterator[Complaint]:
    """A counter is never shown as it is: it goes through rate, irate or increase.

    Grafana's looks only at counters without matchers.
    """
    for place, selector in _parsed(board):
        is_counter = (
            selector.metric.endswith(("_total", "_bucket", "_count", "_sum")) and ":" not in selector.metric
        )
        if is_counter and selector.function not in ("rate", "irate", "increase"):
            yield place, f"{selector.metric} is a counter, and not in rate, irate or increase"


def uneditable(board: Model) -> Iterator[Complaint]:
    """What is made from code is not changed by hand."""
    if board.get("editable", True):
        yield "", "can be edited"


RULES: Final[Mapping[str, Callable[[Model], Iterator[Complaint]]]] = {
    "template-datasource-rule": template_datasource,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}


def _expanded(expression: str, board: Model) -> str:
    """With something in the place of each variable. Raises KeyError for one that the board does not have."""
    return expand(expression, STAND_INS | _all_values(board))


def _all_values(board: Model) -> dict[str, str]:
    """A value for each of the board's variables, which no expression has by itself."""
    return {variable["name"]: f"value of {variable['name']}" for variable in variables_of(board)}


def _parsed(board: Model) -> Iterator[tuple[str, Selector]]:
    """The selectors of all queries that can be parsed; the others are another rule's."""
    for query in panel_queries(board):
        try:
            found = selectors(_expanded(query.expression, board))
        except (ValueError, KeyError):
            continue
        for selector in found:
            yield query.place, selector


def _query_variables(board: Model) -> list[Model]:
    return [variable for variable in variables_of(board) if variable.get("type") == "query"]


def _data_panels(board: Model) -> list[Model]:
    return [panel for panel in panels_of(board) if panel.get("type") not in NOT_DATA]


def _title(panel: Model) -> str:
    return str(panel.get("title") or f"panel {panel.get('id', '?')}")


def _uid(datasource: Any) -> str:
    return str(datasource.get("uid") or "") if isinstance(datasource, dict) else str(datasource or "")


def _datasources(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every `datasource` in the JSON, with the title or name of what it stands in."""
    if isinstance(node, list):
        for item in node:
            yield from _datasources(item, place)
    elif isinstance(node, dict):
        place = str(node.get("title") or node.get("name") or place)
        for key, value in node.items():
            if key == "datasource" and value is not None:
                yield place, _uid(value)
            else:
                yield from _datasources(value, place)
