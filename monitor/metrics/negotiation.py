"""Which format and which coding a client is answered in: Accept and Accept-Encoding, RFC 9110 section 12.5.

prometheus_client's own choice takes no notice of weights, and raises for a version that is no number.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_PLAIN_1_0_0, generate_latest, openmetrics
from prometheus_client.registry import Collector

_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")  # RFC 9110 section 12.4.2


@dataclass(frozen=True, slots=True)
class Format:
    content_type: str
    render: Callable[[Collector], bytes]


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of Accept."""

    type: str
    subtype: str
    parameters: Mapping[str, str]
    weight: float

    @property
    def precedence(self) -> tuple[bool, bool, int]:
        """The most specific range decides about a format."""
        return self.type != "*", self.subtype != "*", len(self.parameters)

    def matches(self, offered: "_Range") -> bool:
        return (
            self.type in ("*", offered.type)
            and self.subtype in ("*", offered.subtype)
            and self.parameters.items() <= offered.parameters.items()
        )


def choose_format(accept: str) -> Format:
    """The plain text format where nothing that we have is asked for: Prometheus' exporters send no 406."""
    ranges = [*enumerate(filter(None, map(_range, accept.split(","))))]
    chosen, best = FORMATS[0], (0.0, 0)
    for candidate, offered in _OFFERED:
        matching = [entry for entry in ranges if entry[1].matches(offered)]
        if matching:
            position, decisive = max(matching, key=lambda entry: entry[1].precedence)
            rank = (decisive.weight, -position)
            if decisive.weight > 0 and rank > best:
                chosen, best = candidate, rank
    return chosen


def gzip_is_preferred(accept_encoding: str) -> bool:
    """Where neither gzip nor an answer without coding is acceptable, it has none: RFC 9110 section 12.5.3."""
    weights: dict[str, float] = {}
    for element in accept_encoding.split(","):
        coding, _, parameters = element.partition(";")
        weight = _weight(parameters)
        if weight is not None:
            weights[coding.strip().lower()] = weight
    others = weights.get("*", 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", others))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _range(element: str) -> _Range | None:
    """None where it is not well-formed."""
    name, _, rest = element.partition(";")
    kind, slash, subtype = (part.strip().lower() for part in name.partition("/"))
    if not (kind and slash and subtype) or (kind == "*" and subtype != "*"):
        return None
    parameters: dict[str, str] = {}
    for text in filter(str.strip, rest.split(";")):
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            return None
        parameters[key.lower()] = value.strip('"').lower()
    weight = parameters.pop("q", "1")
    if not _WEIGHT.fullmatch(weight):
        return None
    return _Range(kind, subtype, parameters, float(weight))


def _weight(parameters: str) -> float | None:
    """Of a coding; None where it is not well-formed."""
    if not parameters.strip():
        return 1.0
    key, _, value = (part.strip() for part in parameters.partition("="))
    return float(value) if key.lower() == "q" and _WEIGHT.fullmatch(value) else None


# The forms in which Prometheus, of all its versions, asks for metrics. They differ in how a name is escaped
# that has more than letters, digits and underscores: ours have not.
FORMATS: Final = (
    Format(CONTENT_TYPE_PLAIN_0_0_4, generate_latest),
    *(
        Format(
            f"{CONTENT_TYPE_PLAIN_1_0_0}; escaping={escaping}", partial(generate_latest, escaping=escaping)
        )
        for escaping in (openmetrics.exposition.UNDERSCORES, openmetrics.exposition.ALLOWUTF8)
    ),
    *(
        Format(
            f"application/openmetrics-text; version=1.0.0; charset=utf-8; escaping={escaping}",
            partial(openmetrics.exposition.generate_latest, escaping=escaping, version="1.0.0"),
        )
        for escaping in (openmetrics.exposition.UNDERSCORES, openmetrics.exposition.ALLOWUTF8)
    ),
)
_OFFERED: Final = [
    (candidate, offered) for candidate in FORMATS if (offered := _range(candidate.content_type)) is not None
]
