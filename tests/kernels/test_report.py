"""The tables, and where they are put."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernels import report
from tests.kernels.__main__ import PAGE
from tests.kernels.test_verifier import GOOD, REFUSED
from tests.kernels.test_work import GOOD as ACCOUNT
from tests.kernels.work import Outcome


def test_each_kernel_has_a_column_and_each_set_a_row() -> None:
    tap = [
        replace(GOOD, name="TLS tap", program=name, walked=walked)
        for name, walked in (("a", 10), ("b", 2_000))
    ]
    lines = report.verdict_table([GOOD, *tap, replace(REFUSED, kernel="5.10")]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["programs", "6.1", "5.10"]
    assert cells[2:] == [
        ["full", "700,000", "rejected: hand_up_watched"],
        ["TLS tap", "2 load, at most 2,000", "–"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_work_is_told_with_its_differences() -> None:
    good = Outcome("6.1", True, 200.4, ACCOUNT, [])
    bad = replace(good, with_compiler=False, account=ACCOUNT | {"against_clients": ["x"]}, faults=["x"])
    text = report.work_table([good, bad])
    assert "| 81; all " in text
    assert "| 81; 1 differences" in text
    assert "| none " in text


def test_tables_replace_the_ones_before_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\n\nold\n\n{report.END}\nafter\n")
    report.write(page, ["| new |"], "About.")
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n\n20")
    assert text.endswith(f": About.\n\n| new |\n\n{report.END}\nafter\n")
    report.write(page, ["| newer |"], "About.")
    assert "| new |" not in page.read_text()


def test_a_page_without_a_place_stays_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no place"):
        report.write(page, ["| new |"], "About.")
    assert page.read_text() == "nothing here\n"


def test_the_documentation_has_a_place_for_them() -> None:
    assert PAGE.read_text().count(report.BEGIN) == PAGE.read_text().count(report.END) == 1
