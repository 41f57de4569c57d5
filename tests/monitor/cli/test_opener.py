"""The process that opens files: what it opens, with whose rights, and what it does not."""

import errno
import os
import pwd
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.cli.opener import NAME, Opener
from monitor.rights import User
from probes.safe_path import UnsafePathError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can open for another user")

_NOBODY = pwd.getpwnam("nobody")
NOBODY = User("nobody", _NOBODY.pw_uid, _NOBODY.pw_gid)


@pytest.fixture
def opener() -> Iterator[Opener]:
    with Opener.start(NOBODY) as opener:
        yield opener


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of the user's, which he can reach."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(0o711)
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, NOBODY.uid, NOBODY.gid)
    return folder


def _process(opener: Opener) -> int:
    (process,) = (
        int(path.name) for path in Path("/proc").glob("[0-9]*") if _stat(path)[:2] == [NAME, str(os.getpid())]
    )
    return process


def _stat(path: Path) -> list[str]:
    """A process' name and parent."""
    try:
        text = (path / "stat").read_text()
    except OSError:
        return []
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, rest.split()[1]]


def test_it_opens_what_only_root_may_and_makes_new_files_for_root_alone(
    opener: Opener, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    descriptor = opener.open_to_append(str(tmp_path / "records"))
    os.write(descriptor, b"a record\n")
    os.close(descriptor)
    status = (tmp_path / "records").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)
    descriptor = opener.open_to_read(str(tmp_path / "records"))
    assert os.read(descriptor, 100) == b"a record\n"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("rest", "number"), [("./" * 2100 + "records", errno.ENAMETOOLONG), ("a\0b", errno.EINVAL)]
)
def test_what_is_no_path_is_refused_and_nothing_else_is_opened_in_its_place(
    opener: Opener, tmp_path: Path, rest: str, number: int
) -> None:
    with pytest.raises(OSError, match=f"Errno {number}"):
        opener.open_to_append(f"{tmp_path}/{rest}")
    assert list(tmp_path.iterdir()) == []
    os.close(opener.open_to_append(str(tmp_path / "records")))  # it goes on


def test_once_sealed_it_opens_the_same_again_and_nothing_else(opener: Opener, tmp_path: Path) -> None:
    records, other = str(tmp_path / "records"), str(tmp_path / "other")
    Path(other).touch()
    os.close(opener.open_to_append(records))
    opener.seal()
    os.rename(records, records + ".1")
    os.close(opener.open_to_append(records))
    assert Path(records).exists()
    for attempt, path in (
        (opener.open_to_read, other),
        (opener.open_to_append, other),
        (opener.open_to_read, records),  # in another way
        (opener.open_to_append, records + ".1"),
        (opener.open_to_append, ""),
    ):
        with pytest.raises(PermissionError):
            attempt(path)


def test_what_is_missing_is_said_as_open_would(opener: Opener, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nosuch"):
        opener.open_to_read(str(tmp_path / "nosuch"))


def test_a_link_in_a_folder_of_the_users_leads_root_nowhere(
    opener: Opener, theirs: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (theirs / "records").symlink_to(secret)
    for attempt in (opener.open_to_read, opener.open_to_append):
        with pytest.raises(PermissionError):
            attempt(str(theirs / "records"))
    os.close(opener.open_to_read(str(secret)))  # which it could, by its own name


def test_in_a_folder_of_the_users_files_are_his(opener: Opener, theirs: Path) -> None:
    os.close(opener.open_to_append(str(theirs / "records")))
    status = (theirs / "records").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, NOBODY.uid, NOBODY.gid)


def test_why_a_path_is_not_safe_is_said_as_there(opener: Opener, tmp_path: Path) -> None:
    folder = tmp_path / "daemons"
    folder.mkdir()
    os.chown(folder, pwd.getpwnam("daemon").pw_uid, 0)
    with pytest.raises(UnsafePathError) as raised:
        opener.open_to_append(str(folder / "records"))
    assert raised.value.strerror == f"{folder} belongs to daemon: give it to root, or use another folder"
    assert not list(folder.iterdir())


def test_signals_for_the_whole_service_do_not_end_it(opener: Opener, tmp_path: Path) -> None:
    os.close(opener.open_to_append(str(tmp_path / "records")))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(_process(opener), number)
    os.close(opener.open_to_append(str(tmp_path / "records")))


def test_when_it_has_been_killed_that_is_an_error_like_any(opener: Opener, tmp_path: Path) -> None:
    os.kill(_process(opener), signal.SIGKILL)
    with pytest.raises(OSError, match="has ended") as raised:
        opener.open_to_read(str(tmp_path))
    assert raised.value.errno == errno.EIO
    with pytest.raises(OSError, match="has ended") as raised:
        opener.seal()
    assert raised.value.errno == errno.EIO  # no broken pipe, which would be a reader who has seen enough


def test_it_ends_with_whom_it_serves(tmp_path: Path) -> None:
    with Opener.start(NOBODY) as opener:
        opener.seal()  # an answer: it has its name by now
        process = _process(opener)
    assert not Path(f"/proc/{process}").exists()
