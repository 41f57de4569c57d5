"""The locks are what pyproject.toml asks for, say nothing of where packages come from, and nothing goes round
them. That they can be installed is tried by whoever builds the image."""

import re
from pathlib import Path
from typing import Final

import pytest

from scripts.lock import DEPLOY, asked_for, problems

LOCKS: Final = asked_for()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_all_that_is_asked_for_and_no_more(lock: Path) -> None:
    assert problems(lock, LOCKS[lock]) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_place_to_get_packages_from(lock: Path) -> None:
    assert not re.search(r"://|index|find-links|trusted-host|@ ", lock.read_text())


def _changed(tmp_path: Path, pattern: str, replacement: str) -> list[str]:
    lock = DEPLOY / "requirements.lock"
    text, count = re.subn(pattern, replacement, lock.read_text(), count=1, flags=re.S)
    assert count == 1
    (tmp_path / lock.name).write_text(text)
    return problems(tmp_path / lock.name, LOCKS[lock])


@pytest.mark.parametrize(
    ("pattern", "replacement", "said"),
    [
        (r"h11==[^\n]+\n(    --hash[^\n]+\n)+", "", "h11>=0.16 is missing, which pyproject.toml asks for"),
        (r"lxml==[^\n]+\n(    --hash[^\n]+\n)+", "", "is missing, which pyshark asks for"),
        (r"click==[^ ]+", "click==7.0", "click is 7.0, and pyproject.toml asks for click>="),
        (r"rich==", "rich>=", "no pinned version with its hashes: rich>="),
        (r"(mdurl==[^ ]+) \\\n(    --hash[^\n]+\n)+", r"\1\n", "no pinned version with its hashes: mdurl"),
        (r"\Z", f"left-pad==1.0 --hash=sha256:{'0' * 64}\n", "nobody needs left-pad"),
        (r"\A", "--index-url https://example.test/simple\n", "no pinned version with its hashes: --index"),
    ],
)
def test_a_lock_that_is_wrong_is_known(tmp_path: Path, pattern: str, replacement: str, said: str) -> None:
    assert [problem for problem in _changed(tmp_path, pattern, replacement) if said in problem]


def test_a_lock_that_is_not_there_is_known(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.lock", []) == ["none.lock is not there"]


def test_the_image_installs_nothing_but_what_is_locked_and_its_own_wheel() -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel)[^&\n]+", text)
    assert len(installs) == 4
    locked = [line for line in installs if "--require-hashes" in line]
    assert [re.search(r"deploy/\S+", line)[0] for line in locked] == [  # type: ignore[index]
        "deploy/build.lock",
        "deploy/requirements.lock",
    ]
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line
        if line.startswith("pip wheel"):
            assert "--no-build-isolation" in line
