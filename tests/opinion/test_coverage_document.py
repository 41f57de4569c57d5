"""docs/coverage.md tells of every known difference, and of none that is not in the table."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.capture_truth import capture_names
from tests.opinion.known_differences import COMPARED, KNOWN, MENDED, Kind, Known

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text()
NO_LONGER: Final = "## Known differences of 4.0, gone in 4.4\n"


def _sections(text: str) -> dict[str, str]:
    """Each kind's text by its name."""
    pieces = re.split(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    return {
        heading.strip("`"): body
        for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)
        if heading.startswith("`")
    }


def _line(row: Known) -> str:
    frames = ", ".join(map(str, row.frames))
    return f"- `{row.capture}`, {row.client}, frame{'s' if len(row.frames) > 1 else ''} {frames}"


def test_every_kind_of_difference_is_documented_and_no_other_is() -> None:
    assert set(_sections(DOCUMENT)) == set(Kind) == set(KNOWN)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_is_explained_and_lists_the_connections_and_frames_of_the_table(kind: Kind) -> None:
    section = _sections(DOCUMENT)[kind]
    lines = section.strip().splitlines()
    listed = [line for line in lines if line.startswith("- `")]
    assert listed == [_line(row) for row in KNOWN[kind]]
    assert len(lines) > len(listed) + 1


def test_what_a_later_release_mended_is_told_apart() -> None:
    assert set(_sections(DOCUMENT.split(NO_LONGER)[1])) == MENDED


def test_the_releases_and_the_number_of_captures_are_those_that_were_compared() -> None:
    assert {tuple(map(int, found)) for found in re.findall(r"\*\*tshark (\d+)\.(\d+)", DOCUMENT)} == set(
        COMPARED
    )
    assert f"in {len([*capture_names(), 'mid'])} captures" in DOCUMENT
