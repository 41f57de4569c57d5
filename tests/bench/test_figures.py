"""How measurements become figures and verdicts."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import goals
from tests.bench.figures import Spread, megabytes, significant
from tests.bench.goals import Goal


def test_a_spread_is_the_median_between_the_least_and_the_most() -> None:
    assert Spread.of([5, 1, 2]).text(str) == "2 (1 to 5)"


def test_ratios_are_taken_pair_by_pair_and_what_has_no_partner_is_left_out() -> None:
    assert Spread.of_ratios([10, 1, 6, 7], [5, 4, 6]).text(str) == "1.0 (0.25 to 2.0)"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1 / 500, "0.002"), (0.98, "0.98"), (1 / 3, "0.333"), (13.62, "13.6"), (1234.5, "1,234")],
)
def test_a_ratio_has_three_digits_wherever_they_are(ratio: float, text: str) -> None:
    assert significant(ratio) == text


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("most", 1.3, Spread(1.3, 1.0, 9.0)), "met"),
        (Goal("most", 1.3, Spread(1.31, 1.0, 9.0)), "missed"),
        (Goal("least", 0.98, Spread(0.98, 0.5, 1.0), is_least=True), "met"),
        (Goal("least", 0.98, Spread(0.97, 0.5, 1.0), is_least=True), "missed"),
        (Goal("each, most", 5, Spread(1, 1, 5), is_for_each=True), "met"),
        (Goal("each, most", 5, Spread(1, 1, 6), is_for_each=True), "missed"),
        (Goal("each, least", 1, Spread(1, 1, 1), is_least=True, is_for_each=True), "met"),
        (Goal("each, least", 1, Spread(1, 0.9, 1), is_least=True, is_for_each=True), "missed"),
        (Goal("faulty", 5, Spread(1, 1, 1), fault="9 packets dropped"), "missed: 9 packets dropped"),
    ],
)
def test_a_goal_is_met_by_the_median_or_where_it_must_be_by_each_measurement(
    goal: Goal, verdict: str
) -> None:
    assert goal.verdict() == verdict


def test_the_table_of_goals_says_limit_measurement_and_verdict(tmp_path: Path) -> None:
    several = [
        Goal("pace", 0.98, Spread(0.99, 0.9, 1.0), is_least=True),
        Goal("memory", 200 * 10**6, Spread(250e6, 240e6, 260e6), write=megabytes),
    ]
    with (tmp_path / "shown").open("w") as file:
        goals.show(Console(width=200, file=file), several)
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in (tmp_path / "shown").read_text().splitlines()
        if line.startswith(("| pace", "| memory"))
    ]
    assert rows == [
        ["pace", "≥ 0.98", "0.99 (0.9 to 1)", "met"],
        ["memory", "≤ 200.0 MB", "250.0 MB (240.0 MB to 260.0 MB)", "missed"],
    ]
