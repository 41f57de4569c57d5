"""PromQL out of metric families. A label or value that a family does not have is an error when the boards and
rules are made, not an empty panel at night.

Everything is text: these functions only save the typing, and check what can be checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.metrics.families import Family, Kind


@dataclass(frozen=True, slots=True)
class Not:
    """Matches all values but these."""

    values: tuple[str, ...]


Match = str | Sequence[str] | Not


def but(*values: str) -> Not:
    return Not(values)


def select(family: Family, *, suffix: str = "", scope: str = "", **labels: Match) -> str:
    """`smtp_sessions_total{direction="inbound",envelope=~"hidden|partial"}`.

    Args:
        family: one of monitor.metrics.families.
        suffix: `_bucket`, `_sum` or `_count` of a histogram.
        scope: matchers that are not the family's own, as `instance=~"$instance"`.
        labels: a value, several, or `but(...)`. Raises ValueError for a label or value that there is none of.
    """
    if (family.kind is Kind.HISTOGRAM) != bool(suffix):
        raise ValueError(f"{family.name}: a histogram has a suffix, and nothing else has")
    matchers = [scope] if scope else []
    matchers += [_matcher(family, name, match) for name, match in sorted(labels.items())]
    return f"{family.name}{suffix}{{{','.join(matchers)}}}" if matchers else f"{family.name}{suffix}"


def _matcher(family: Family, name: str, match: Match) -> str:
    known = {label.name: label.values for label in family.labels}
    if name not in known:
        raise ValueError(f"{family.name} has no label {name}; it has {', '.join(known)}")
    values = match.values if isinstance(match, Not) else (match,) if isinstance(match, str) else tuple(match)
    closed_set = known[name]
    for value in values:
        if closed_set is not None and value not in closed_set:
            raise ValueError(f"{family.name}: {name} is never {value!r}; it is {', '.join(closed_set)}")
    if len(values) == 1:
        operator = "!=" if isinstance(match, Not) else "="
    else:
        operator = "!~" if isinstance(match, Not) else "=~"
    return f'{name}{operator}"{"|".join(values)}"'


def increase(selector: str, window: str, *, offset: str = "") -> str:
    """`increase(…[1d])`, or with an offset `increase(…[1d] offset 1w)`."""
    return f"increase({selector}[{window}]{f' offset {offset}' if offset else ''})"


def rate(selector: str, window: str = "$__rate_interval") -> str:
    return f"rate({selector}[{window}])"


def total(expression: str, *by: str) -> str:
    """`sum(…)`, or `sum by (…) (…)`."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def ratio(part: str, whole: str) -> str:
    """A share; without a result where the whole is nothing, rather than NaN."""
    return f"({part}) / ({whole} > 0)"
