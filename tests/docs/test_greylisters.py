"""docs/greylisters.md says of each reach model what the model does, and its example works as it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from monitor.greylisters import MODELS, StreamWatcher, TlsEnds
from monitor.sessions.record import By, Reach
from tests.monitor.greylisters.sight import in_words
from tests.segments import capture_path

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docs" / "greylisters.md").read_text()
HEADER: Final = ["wire", "`reach`", "`by`", "why"]


def section(title: str) -> str:
    """What stands under that heading."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line[1:-1].split(" |")] for line in lines]


def first_names(text: str) -> list[str]:
    """The first cells that are a name alone."""
    return [found[1] for row in rows(text) if (found := re.fullmatch(r"`([\w-]+)`", row[0]))]


def test_every_model_has_its_section_and_no_other_program_has() -> None:
    with_a_table = [title for title in re.findall(r"^## (.+)$", TEXT, re.M) if HEADER in rows(section(title))]
    assert sorted(with_a_table) == [model.name for model in MODELS]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_result_of_a_model_has_its_row_and_no_other_row_is_there(model: type[StreamWatcher]) -> None:
    header, *rules = rows(section(model.name))
    assert header == HEADER
    said = set()
    for wire, reach, by, _ in rules:
        assert wire
        assert re.fullmatch(r"`\w+`", reach)
        assert re.fullmatch(r"(`\w+`)?", by)
        said.add(f"{reach} by {by}".replace("`", "") if by else reach.strip("`"))
    assert said == {in_words(found) for found in model.results}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_section_says_what_the_model_leaves_out(model: type[StreamWatcher]) -> None:
    assert "\nLeft out" in section(model.name)


def test_the_words_of_an_answer_are_those_that_there_are() -> None:
    assert first_names(section("The two words of an answer")) == ["reach", *Reach, "by", *By]


def test_every_place_where_tls_may_end_is_documented_for_every_model() -> None:
    text = section("Where TLS ends")
    assert first_names(text) == ["--tls-ends", *TlsEnds]
    header = " ".join(rows(text)[0])
    for model in MODELS:
        assert model.name in header
    for choice in TlsEnds:
        assert f"`{choice.value}`" in text


@pytest.fixture(scope="module")
def with_the_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, compiled if it is, with the example in the one file that the document names."""
    copy = tmp_path_factory.mktemp("with_the_example")
    for library in ROOT.glob("*.so"):
        shutil.copy(library, copy)
    for package in ("monitor", "probes"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    example = section("Adding a model").split("```python\n")[1].split("```")[0]
    (copy / "monitor" / "greylisters" / "sender_filter.py").write_text(example)
    return copy


def run(copy: Path, capture: str, *arguments: str) -> str:
    """What `read` says of a capture, in a process that finds that copy first."""
    code = "from monitor.cli.main import main; main()"
    path = str(capture_path(capture))
    return subprocess.run(
        [sys.executable, "-c", code, "read", *arguments, path],
        check=True,
        capture_output=True,
        text=True,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        timeout=60,
    ).stdout


def found_by_the_example(copy: Path, capture: str, *arguments: str) -> list[Any]:
    lines = run(copy, capture, "--format", "jsonl", *arguments).splitlines()
    return [json.loads(line)["greylisters"]["sender_filter"] for line in lines]


DECIDED: Final = {"reach": "decided", "by": None}


@pytest.mark.parametrize(
    ("capture", "found"),
    [
        ("plain_single", DECIDED),
        ("starttls_tls13", {"reach": "bypassed", "by": "starttls"}),
        ("starttls_454", DECIDED),
        ("smtps_465", {"reach": "blind", "by": "implicit_tls"}),
    ],
)
def test_the_example_finds_what_its_program_would_have_done(
    capture: str, found: dict[str, str | None], with_the_example: Path
) -> None:
    assert found_by_the_example(with_the_example, capture)[0] == found


@pytest.mark.parametrize("capture", ["starttls_tls13", "smtps_465"])
def test_the_example_is_told_where_tls_ends(capture: str, with_the_example: Path) -> None:
    assert found_by_the_example(with_the_example, capture, "--tls-ends", "proxy")[0] == DECIDED


def test_the_metrics_find_the_example_by_themselves(with_the_example: Path) -> None:
    metrics = run(with_the_example, "plain_single", "--format", "metrics")
    assert (
        'smtp_greylister_sessions_total{by="none",greylister="sender_filter",reach="decided"} 1.0' in metrics
    )
    assert "sender_filter" not in {model.name for model in MODELS}


def test_the_example_is_tidy(with_the_example: Path) -> None:
    path = with_the_example / "monitor" / "greylisters" / "sender_filter.py"
    for check in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), str(path)],
            check=True,
            cwd=with_the_example,
            timeout=60,
        )
