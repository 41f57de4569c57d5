"""Asks a Prometheus what Grafana would ask it for a board, and says what came back without data."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from tests.dashboards.board_reader import (
    Model,
    Query,
    VariableQuery,
    annotation_queries,
    any_of,
    expand,
    panel_queries,
    read_variable_query,
    uid_of,
    variables_of,
)

_ANSWER_SECONDS: Final = 60

_open = build_opener(ProxyHandler({})).open


class PrometheusError(Exception):
    """Prometheus' own words."""


class Ask(Protocol):
    def __call__(self, path: str, **parameters: Any) -> Any:
        """`data` of what /api/v1/path answers. Raises PrometheusError."""


def ask(url: str, path: str, **parameters: Any) -> Any:
    """The same, of the Prometheus at that URL."""
    asked = f"{url}/api/v1/{path}?{urlencode(parameters, doseq=True)}"
    try:
        with _open(asked, timeout=_ANSWER_SECONDS) as answer:
            return json.load(answer)["data"]
    except HTTPError as error:
        raise PrometheusError(f"{json.load(error)['error']}: {parameters}") from error


@dataclass(frozen=True, slots=True)
class View:
    """What a reader of a board has chosen to see."""

    begin: int
    end: int
    """Seconds since the epoch."""
    step: int
    """Seconds from one point of a line to the next: $__interval."""
    rate_interval: str
    """$__rate_interval, which Grafana makes four scrapes long at least."""

    def values(self) -> dict[str, str]:
        """https://grafana.com/docs/grafana/latest/dashboards/variables/add-template-variables/#global-variables"""
        seconds = self.end - self.begin
        return {
            "__rate_interval": self.rate_interval,
            "__interval": f"{self.step}s",
            "__interval_ms": str(self.step * 1000),
            "__range": f"{seconds}s",
            "__range_s": str(seconds),
            "__range_ms": str(seconds * 1000),
            "__from": str(self.begin * 1000),
            "__to": str(self.end * 1000),
        }


@dataclass(frozen=True, slots=True)
class Unanswered:
    query: Query
    why: str

    def __str__(self) -> str:
        return f"{self.query}: {self.why}\n    {self.query.expression}"


def unanswered(board: Model, asking: Ask, view: View) -> Iterator[Unanswered]:
    """The variables, panels and annotations that get an error, no series, or no value that is a number."""
    values = view.values()
    for variable in variables_of(board):
        found: list[str] = []
        why = "no values"
        try:
            found = _values_of(board, variable, asking, values, view)
        except (PrometheusError, ValueError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"
        if not found:
            yield Unanswered(Query(uid_of(board), f"${variable['name']}", str(variable.get("query"))), why)
        values[variable["name"]] = variable.get("allValue") or any_of(found or ["nothing"])
    for query in (*panel_queries(board), *annotation_queries(board)):
        fault = _fault(query, asking, values, view)
        if fault is not None:
            yield Unanswered(query, fault)


def _fault(query: Query, asking: Ask, values: Mapping[str, str], view: View) -> str | None:
    try:
        expression = expand(query.expression, values)
    except KeyError as error:
        return f"there is no variable {error}"
    try:
        results = (
            asking("query", query=expression, time=view.end)
            if query.is_instant
            else asking("query_range", query=expression, start=view.begin, end=view.end, step=view.step)
        )
    except PrometheusError as error:
        return f"error: {error}"
    if not results["result"]:
        return "no series"
    return None if any(not math.isnan(value) for value in _numbers(results)) else "only NaN"


def _numbers(results: Mapping[str, Any]) -> Iterator[float]:
    if results["resultType"] == "scalar":
        yield float(results["result"][1])
        return
    for series in results["result"]:
        for _, value in series.get("values") or [series["value"]]:
            yield float(value)


def _values_of(
    board: Model, variable: Model, asking: Ask, values: Mapping[str, str], view: View
) -> list[str]:
    """What may be chosen: of a query all that Prometheus has, of other kinds what is written there."""
    kind = variable.get("type")
    if kind == "datasource":
        return ["the datasource"]
    if kind != "query":
        query = variable.get("query")
        return query.split(",") if isinstance(query, str) else []
    asked = read_variable_query(uid_of(board), variable)
    return sorted(_found(asked, expand(asked.expression, values), asking, view))


def _found(asked: VariableQuery, expression: str, asking: Ask, view: View) -> set[str]:
    during = {"start": view.begin, "end": view.end}
    match asked.function:
        case "label_values":
            selector = {"match[]": expression} if expression else {}
            return set(asking(f"label/{asked.label}/values", **selector, **during))
        case "label_names":
            return set(asking("labels", **during))
        case "metrics":
            names = asking("label/__name__/values", **during)
            return {name for name in names if re.search(expression, name)}
        case _:
            return {
                str(series["metric"]) for series in asking("query", query=expression, time=view.end)["result"]
            }
