"""What is measured again and again, and how it is shown: the median, and the least and the most beside it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Of at least one value."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1])

    @classmethod
    def of_ratios(cls, ones: Iterable[float], others: Iterable[float]) -> Self:
        """Pair by pair, in the order in which they were measured; what has no partner is left out."""
        return cls.of(one / other for one, other in zip(ones, others, strict=False))

    def text(self, write: Callable[[float], str]) -> str:
        return f"{write(self.median)} ({write(self.least)} to {write(self.most)})"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}"


def microseconds(seconds: float) -> str:
    """Two digits at least: what a packet costs is a few of them."""
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-5 else f"{seconds * 1e6:.1f}"


def mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.1f}"


def whole(number: float) -> str:
    return f"{number:,.0f}"


def times(ratio: float) -> str:
    return f"{ratio:.2f}"


def significant(ratio: float) -> str:
    """Three digits, wherever they are: one goal is a fraction of a percent, another a multiple."""
    return f"{ratio:,.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def print_table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As Markdown, so that docs/benchmarks.md takes it as it is; numbers to the right, names to the left."""
    table = Table(*columns, box=box.MARKDOWN)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(f"\n{title}\n", highlight=False, soft_wrap=True)
    console.print(table)
