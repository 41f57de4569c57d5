"""Each test belongs to one target of the Makefile, and CI calls that target."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
MARKERS: Final = ("live", "thorough", "endurance")

_LIST: Final = """
import json, pytest
class List:
    def pytest_collection_modifyitems(self, items):
        names = [{mark.name for mark in item.iter_markers()} for item in items]
        print("LISTED", json.dumps([[item.nodeid, sorted(name)] for item, name in zip(items, names)]))
pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider"], plugins=[List()])
"""


def selections() -> Iterator[tuple[str, list[str]]]:
    """The targets that CI calls, and the words behind `pytest` in each of their lines."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^(?:\w+=\S+ )?make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert recipe, target
        for words in re.findall(r"\$\(BIN\)/pytest ([^;\n]+)", recipe[1]):
            yield target, shlex.split(words)


def selects(words: list[str], test: str, marks: list[str]) -> bool:
    """Whether pytest would run the test if it were called with these words."""
    # What stands behind -m is an expression of Python's, too.
    wanted = eval(words[words.index("-m") + 1], {marker: marker in marks for marker in MARKERS})
    ignored = [word.partition("=")[2] for word in words if word.startswith("--ignore=")]
    folders = [word for word in words if word.startswith("tests/")]
    return (
        bool(wanted)
        and not test.startswith(tuple(ignored))
        and (not folders or test.startswith(tuple(folders)))
    )


@pytest.fixture(scope="module")
def tests() -> Any:
    """Each test's name, and its marks."""
    listing = subprocess.run(
        [sys.executable, "-c", _LIST], capture_output=True, text=True, cwd=ROOT, check=True
    )
    (line,) = (line for line in listing.stdout.splitlines() if line.startswith("LISTED "))
    return json.loads(line.removeprefix("LISTED "))


def test_every_test_is_run_by_one_target_that_ci_calls(tests: list[tuple[str, list[str]]]) -> None:
    ways = list(selections())
    assert len(tests) > 4_000
    by_target = {
        test: [target for target, words in ways if selects(words, test, marks)] for test, marks in tests
    }
    assert {test: targets for test, targets in by_target.items() if len(targets) != 1} == {}
    assert {target for targets in by_target.values() for target in targets} == {target for target, _ in ways}


def test_make_test_watches_each_mail_server_and_proves_that_privileges_are_given_up(
    tests: list[tuple[str, list[str]]],
) -> None:
    words = [words for target, words in selections() if target == "test"]
    mine = [test for test, marks in tests if any(selects(each, test, marks) for each in words)]
    assert [test for test in mine if test.startswith("tests/live/test_live_servers.py")]
    assert [test for test in mine if test.startswith("tests/live/test_privileges.py")]
