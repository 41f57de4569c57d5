"""What is compiled says the same as its sources, and is made of them as they stand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from monitor import streams
from scripts.native import PACKAGES, ROOT, libraries, sources
from tests.segments import capture_path

CAPTURES: Final = sorted(path.name.partition(".")[0] for path in (ROOT / "tests/captures").glob("*.truth.*"))

pytestmark = pytest.mark.skipif(not libraries(), reason="nothing is compiled here")


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program that has its sources alone."""
    copy = tmp_path_factory.mktemp("pure")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return copy


def run(house: Path, code: str, *arguments: str) -> str:
    """What Python says in a process that finds the program there."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        timeout=300,
    ).stdout


def test_every_module_of_the_list_has_its_library_and_there_is_no_other() -> None:
    beside = {
        path.with_name(path.name.partition(".")[0] + ".py") for path in libraries() if path.parent != ROOT
    }
    assert beside == {ROOT / source for source in sources()}
    assert Path(streams.__file__).suffix == ".so"


@pytest.mark.parametrize("output", ["jsonl", "metrics"])
def test_the_compiled_program_and_its_sources_say_the_same_of_all_captures(output: str, pure: Path) -> None:
    where = "import monitor.streams; print(monitor.streams.__file__)"
    assert run(pure, where).strip() == str(pure / "monitor/streams.py")
    code = "from monitor.cli.main import main; main()"
    files = [str(capture_path(name)) for name in CAPTURES]
    said = [run(house, code, "read", "--format", output, *files).splitlines() for house in (ROOT, pure)]
    assert len(said[0]) > len(files) > 30
    assert said[0] == said[1]


def test_a_source_that_has_changed_since_it_was_compiled_is_named(tmp_path: Path) -> None:
    copied = [*sources(), "scripts/native.py", "build/native/compiled.json"]
    for name in [*copied, *(str(path.relative_to(ROOT)) for path in libraries())]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)  # with other times
    code = "from scripts.native import outdated; print(*outdated())"
    assert run(tmp_path, code).split() == []
    with (tmp_path / "monitor/side.py").open("a") as changed:
        changed.write("# a word more\n")
    (tmp_path / "monitor/streams.py").unlink()
    assert run(tmp_path, code).split() == ["monitor/side.py", "monitor/streams.py"]
