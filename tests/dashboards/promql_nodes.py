"""What stands in an expression: its selectors with all that is around them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from promql_parser import Call, Expr, MatchOp, MatrixSelector, VectorSelector, parse, walk

# MatchOp cannot be a key.
_OPERATORS: Final = (
    (MatchOp.Equal, "="),
    (MatchOp.NotEqual, "!="),
    (MatchOp.Re, "=~"),
    (MatchOp.NotRe, "!~"),
)


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    operator: str
    """=, !=, =~ or !~"""
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    metric: str
    """Empty where there is no name."""
    matchers: tuple[Matcher, ...]
    offset: timedelta | None
    range: timedelta | None
    """None for an instant vector."""
    function: str | None
    """Whose argument it is directly, as `rate`."""


def selectors(expression: str) -> list[Selector]:
    """Raises ValueError where it cannot be parsed."""
    return list(_selectors(parse(expression)))


def _selectors(root: Expr) -> Iterator[Selector]:
    above: list[Any] = []
    found: list[Selector] = []

    def enter(node: Any) -> None:
        if isinstance(node, VectorSelector):
            found.append(_selector(node, above))
        above.append(node)

    def leave(_: Any) -> None:
        above.pop()

    walk(root, enter, leave)
    return iter(found)


def _selector(node: VectorSelector, above: list[Any]) -> Selector:
    matchers = [
        Matcher(matcher.name, _operator(matcher.op), matcher.value) for matcher in node.matchers.matchers
    ]
    metric = node.name or ""
    for matcher in matchers:
        if matcher.label == "__name__" and matcher.operator == "=":
            metric = matcher.value
    matrix = above[-1] if above and isinstance(above[-1], MatrixSelector) else None
    around = above[:-1] if matrix is not None else above
    call = around[-1] if around and isinstance(around[-1], Call) else None
    return Selector(
        metric=metric,
        matchers=tuple(matcher for matcher in matchers if matcher.label != "__name__"),
        offset=node.offset,
        range=matrix.range if matrix is not None else None,
        function=call.func.name if call is not None else None,
    )


def _operator(found: MatchOp) -> str:
    return next(text for operator, text in _OPERATORS if operator == found)
