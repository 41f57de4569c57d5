"""What the measurements are held against: one table, at the end of all others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from tests.bench.figures import Spread, print_table, significant


@dataclass(frozen=True, slots=True)
class Goal:
    name: str
    limit: float
    measured: Spread
    is_least: bool = False
    """The limit is the least that is wanted, not the most."""
    is_for_each: bool = False
    """Every measurement has to keep to it, not only the median."""
    fault: str = ""
    """Why the measurement says nothing."""
    write: Callable[[float], str] = significant

    def is_met(self) -> bool:
        if self.fault:
            return False
        if self.is_least:
            return (self.measured.least if self.is_for_each else self.measured.median) >= self.limit
        return (self.measured.most if self.is_for_each else self.measured.median) <= self.limit

    def verdict(self) -> str:
        met = "met" if self.is_met() else "missed"
        return f"{met}: {self.fault}" if self.fault else met


def show(console: Console, goals: Sequence[Goal]) -> None:
    print_table(
        console,
        "Goals",
        ["goal", "limit", "measured: median (least to most)", "met or missed"],
        [
            [
                goal.name,
                ("≥ " if goal.is_least else "≤ ") + goal.write(goal.limit),
                goal.measured.text(goal.write),
                goal.verdict(),
            ]
            for goal in goals
        ],
    )
