"""Samples of many moments, as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/).

A family's samples stand together there, and in it those of each series, in the order of time; the buckets of
a histogram, its sum and its count are one. So all are kept until the last has come, two numbers a sample.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TextIO

from prometheus_client.core import Metric

_KINDS: Final = frozenset(("counter", "gauge", "histogram"))


@dataclass(slots=True)
class Samples:
    """Of one series."""

    written: str
    """Name and labels, as they stand before each value."""
    point: str
    """What belongs together at one moment, of a histogram: the labels but for `le`."""
    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class SeriesFamily:
    kind: str
    series: dict[tuple[str, ...], Samples] = field(default_factory=dict)
    """By the sample's name and label values."""


class Series:
    def __init__(self) -> None:
        self.families: dict[str, SeriesFamily] = {}

    def add(self, metric: Metric, at: int, labels: Mapping[str, str]) -> None:
        """What was exposed at that second, with the labels that the scrape adds."""
        kind = metric.type if metric.type in _KINDS else "unknown"
        known = self.families.setdefault(metric.name, SeriesFamily(kind)).series
        for sample in metric.samples:
            key = (sample.name, *sample.labels.values())
            found = known.get(key)
            if found is None:
                found = known[key] = _series(sample.name, {**sample.labels, **labels})
            found.times.append(at)
            found.values.append(sample.value)

    def add_sample(self, name: str, labels: Mapping[str, str], at: int, value: float) -> None:
        """One sample of a series that is no counter and no histogram."""
        known = self.families.setdefault(name, SeriesFamily("unknown")).series
        new = _series(name, labels)
        found = known.setdefault((new.written,), new)
        found.times.append(at)
        found.values.append(value)


def write(series: Series, output: TextIO) -> None:
    for name, family in series.families.items():
        output.write(f"# TYPE {name} {family.kind}\n")
        lines = _points(family) if family.kind == "histogram" else _lines(family)
        output.writelines(lines)
    output.write("# EOF\n")


def _lines(family: SeriesFamily) -> Iterator[str]:
    for samples in family.series.values():
        for at, value in zip(samples.times, samples.values, strict=True):
            yield f"{samples.written} {_number(value)} {at}\n"


def _points(family: SeriesFamily) -> Iterator[str]:
    together: dict[str, list[Samples]] = {}
    for samples in family.series.values():
        together.setdefault(samples.point, []).append(samples)
    for parts in together.values():
        for number, at in enumerate(parts[0].times):
            for part in parts:
                yield f"{part.written} {_number(part.values[number])} {at}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == value // 1 else repr(value)


def _series(name: str, labels: Mapping[str, str]) -> Samples:
    point = {key: value for key, value in labels.items() if key != "le"}
    return Samples(f"{name}{_written(labels)}", _written(point))


def _written(labels: Mapping[str, str]) -> str:
    pairs = (f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items()))
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
