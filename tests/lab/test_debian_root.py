"""Roots are there wholly or not at all, however many make them at a time, and whoever is killed at it."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

# A small one, without dependencies; twice, so that there are roots that wait for each other.
_MAKE: Final = """
from tests.lab.debian_root import CACHE, make_roots, release
make_roots((release(),), {CACHE / release() / name: ("netbase",) for name in ("one", "two")})
"""


def making(cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _MAKE],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def release_folder(cache: Path) -> Path:
    (folder,) = (cache / "smtp-horizon-lab").iterdir()
    return folder


def assert_whole(cache: Path) -> None:
    folder = release_folder(cache)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "one", "two"]
    for name in ("one", "two"):
        assert (folder / name / "etc/services").exists()


@pytest.mark.thorough  # reads Debian's lists of packages
def test_two_that_make_the_same_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    makers = [making(tmp_path) for _ in range(2)]
    for maker in makers:
        _, said = maker.communicate(timeout=300)
        assert maker.returncode == 0, said
    assert_whole(tmp_path)


@pytest.mark.thorough
def test_what_a_killed_one_left_is_taken_for_nothing_and_removed(tmp_path: Path) -> None:
    maker = making(tmp_path)
    while not list(tmp_path.glob("smtp-horizon-lab/*/unfinished-*/lists/*")):
        assert maker.poll() is None
        time.sleep(0.02)
    os.killpg(maker.pid, signal.SIGKILL)
    maker.communicate()
    assert not [path for path in release_folder(tmp_path).iterdir() if path.name in ("one", "two")]
    again = making(tmp_path)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert_whole(tmp_path)


def _everybodys(cache: Path) -> None:
    (cache / "smtp-horizon-lab").mkdir()
    (cache / "smtp-horizon-lab").chmod(0o777)


def _in_a_home_of(user: str) -> Callable[[Path], None]:
    def make(cache: Path) -> None:
        os.chown(cache, pwd.getpwnam(user).pw_uid, -1)

    return make


def _behind_a_link(cache: Path) -> None:
    """What it leads to may be root's today."""
    (cache / "own").mkdir()
    (cache / "home").mkdir()
    (cache / "home/link").symlink_to(cache / "own")
    os.chown(cache / "home/link", pwd.getpwnam("daemon").pw_uid, -1, follow_symlinks=False)
    (cache / "home").chmod(0o1777)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make other users' files")
@pytest.mark.parametrize(
    ("plant", "below", "said"),
    [
        (_everybodys, "", "everybody may write into {}/smtp-horizon-lab (mode 0777)"),
        (_in_a_home_of("daemon"), "", "{} belongs to daemon"),
        (_behind_a_link, "home/link", "{}/home/link belongs to daemon"),
    ],
)
def test_what_another_user_may_have_put_there_is_not_run(
    tmp_path: Path, plant: Callable[[Path], None], below: str, said: str
) -> None:
    plant(tmp_path)
    maker = making(tmp_path / below)
    _, told = maker.communicate(timeout=300)
    assert maker.returncode == 1
    assert said.format(tmp_path) in told
    assert not list(tmp_path.rglob("lock"))
