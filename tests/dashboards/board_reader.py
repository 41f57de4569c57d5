"""Boards as Grafana reads them: panels, expressions, variables. Classic schema JSON in, small objects out."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GENERATED_BOARDS: Final = Path(__file__).parents[2] / "dashboards" / "generated" / "boards"

Model = dict[str, Any]

NOT_DATA: Final = frozenset(("row", "text", "dashlist", "news"))
"""Kinds of panels that ask nothing."""

# https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]|\$(\w+)")

# https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
_FUNCTION: Final = re.compile(r"^\s*(label_values|label_names|metrics|query_result)\((.*)\)\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a board."""

    board: str
    """The board's uid."""
    place: str
    """The panel's title and the query's letter, or the annotation's name."""
    expression: str
    is_instant: bool = False

    def __str__(self) -> str:
        return f"{self.board}: {self.place}"


@dataclass(frozen=True, slots=True)
class VariableQuery:
    """What fills a variable's list."""

    board: str
    name: str
    function: str
    """label_values, label_names, metrics or query_result."""
    expression: str
    """A selector; a pattern for metrics; empty where the function has none."""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.board}: ${self.name}"


def load_boards(folder: Path = GENERATED_BOARDS) -> list[Model]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def uid_of(board: Model) -> str:
    return str(board.get("uid") or "no uid")


def panels_of(board: Model) -> Iterator[Model]:
    """All panels, rows and what stands in collapsed rows included."""
    for panel in board.get("panels") or []:
        yield panel
        yield from panel.get("panels") or []


def targets_of(panel: Model) -> list[Model]:
    return panel.get("targets") or []


def panel_queries(board: Model) -> Iterator[Query]:
    for panel in panels_of(board):
        for target in targets_of(panel):
            place = f"{panel.get('title', 'no title')} ({target.get('refId', '?')})"
            yield Query(uid_of(board), place, target.get("expr", ""), bool(target.get("instant")))


def annotation_queries(board: Model) -> Iterator[Query]:
    for annotation in (board.get("annotations") or {}).get("list") or []:
        expression = annotation.get("expr") or (annotation.get("target") or {}).get("expr")
        if expression:
            yield Query(uid_of(board), f"annotation {annotation['name']}", expression)


def variables_of(board: Model) -> list[Model]:
    return (board.get("templating") or {}).get("list") or []


def variable_queries(board: Model) -> Iterator[VariableQuery]:
    """Raises ValueError for a query that Grafana could not read."""
    for variable in variables_of(board):
        if variable.get("type") == "query":
            yield read_variable_query(uid_of(board), variable)


def read_variable_query(board: str, variable: Model) -> VariableQuery:
    """Raises ValueError."""
    query = variable.get("query") or ""
    text = query if isinstance(query, str) else str(query.get("query") or "")
    found = _FUNCTION.match(text)
    if found is None:
        raise ValueError(f"no function of a variable: {text!r}")
    function, inside = found[1], found[2].strip()
    if function == "label_values":
        selector, comma, label = inside.rpartition(",")
        if not re.fullmatch(r"\w+", label.strip()):
            raise ValueError(f"no label at its end: {text!r}")
        return VariableQuery(
            board, variable["name"], function, selector.strip() if comma else "", label.strip()
        )
    return VariableQuery(board, variable["name"], function, inside)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Puts values in the place of Grafana's variables. Raises KeyError for one that has none."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2] or found[3]], text)


def any_of(values: list[str]) -> str:
    """What Grafana makes of a variable that is several values, in a matcher of regular expressions."""
    escaped = [re.sub(r"([\\^$*+?.()|{}\[\]])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
