"""Who could have chosen what a path leads to: real users, folders, links, pipes and access control lists."""

import errno
import os
import pwd
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest

from monitor.files import open_to_append, open_to_read, rights_to_open
from monitor.rights import User
from probes.safe_path import Place, PlaceChangedError, UnsafePathError, trusted, walked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make other users' files")


def _user(name: str) -> User:
    entry = pwd.getpwnam(name)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


STRANGER: Final = _user("daemon")
SERVICE: Final = _user("games")
"""Whom root will become. Each has a group of his own."""


_PLANTING: Final = """
import os, sys
records, secret = sys.argv[1:]
while True:
    for plant in (lambda: os.symlink(secret, records), lambda: os.mkfifo(records), lambda: os.mknod(records)):
        try:
            plant()
            os.unlink(records)
        except OSError:
            pass
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of root's, where everybody may look into all that is above it."""
    folder = Path(mkdtemp(dir="/var/lib"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def given(path: Path, user: User) -> Path:
    os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return path


def made(path: Path, mode: int = 0o755, user: User | None = None) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path if user is None else given(path, user)


def touched(path: Path, user: User | None = None) -> Path:
    path.touch(0o644)
    return path if user is None else given(path, user)


def give_access(path: Path, user: User, rights: int) -> None:
    """By an access control list, as setfacl does: acl(5), linux/posix_acl_xattr.h."""
    nobody = 2**32 - 1
    entries = ((1, 7, nobody), (2, rights, user.uid), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)


def refusal(path: Path | str, user: User | None = SERVICE) -> str:
    """The same for reading and for writing; and nothing is made."""
    said = set()
    for attempt in (open_to_append, open_to_read):
        with pytest.raises(UnsafePathError) as raised:
            attempt(str(path), user)
        assert (raised.value.errno, raised.value.filename) == (errno.EPERM, str(path))
        said.add(raised.value.strerror)
    (text,) = said
    assert text is not None
    return text


def appended(path: Path | str, user: User | None = SERVICE) -> os.stat_result:
    """What is there once it was opened."""
    descriptor = open_to_append(str(path), user)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def end_of(path: Path | str, user: User | None = SERVICE) -> Place:
    uid = None if user is None else user.uid
    with walked(str(path), trusted(uid), uid) as place:
        return place


class TestFolders:
    def test_one_of_roots_is_fine(self, folder: Path) -> None:
        there = appended(folder / "records")
        assert (there.st_uid, stat.S_IMODE(there.st_mode)) == (0, 0o600)
        assert appended(folder / "records").st_ino == there.st_ino

    def test_one_of_another_users_is_not(self, folder: Path) -> None:
        theirs = made(folder / "theirs", user=STRANGER)
        said = refusal(theirs / "records")
        assert said == f"{theirs} belongs to daemon: give it to root, or use another folder"
        assert not list(theirs.iterdir())

    def test_nor_one_that_is_below_such_a_folder(self, folder: Path) -> None:
        below = made(made(folder / "theirs", user=STRANGER) / "roots")
        assert refusal(below / "records").startswith(f"{folder}/theirs belongs to daemon: ")

    @pytest.mark.parametrize("mode", [0o777, 0o757])
    def test_one_that_everybody_may_write_into_is_not(self, folder: Path, mode: int) -> None:
        open_to_all = made(folder / "open", mode)
        said = refusal(open_to_all / "records")
        assert said == (
            f"everybody may write into {open_to_all} (mode {mode:04o}): chmod o-w it, or use another folder"
        )

    def test_one_of_a_group_with_another_user_in_it_is_not(self, folder: Path) -> None:
        of_group = made(folder / "group", 0o775)
        os.chown(of_group, 0, STRANGER.gid)
        said = refusal(of_group / "records")
        assert said == (
            f"group daemon may write into {of_group} (mode 0775): chmod g-w it, or use another folder"
        )
        os.chown(of_group, 0, 54_321)  # and nobody knows who is in this one
        assert refusal(of_group / "records").startswith("group 54321 may write into ")

    def test_one_of_roots_group_is_fine_as_logrotate_finds(self, folder: Path) -> None:
        assert appended(made(folder / "group", 0o775) / "records").st_uid == 0

    def test_an_access_control_list_counts(self, folder: Path) -> None:
        listed = made(folder / "listed")
        give_access(listed, STRANGER, 7)
        assert refusal(listed / "records").startswith(f"daemon may write into {listed} ")
        give_access(listed, STRANGER, 5)
        assert appended(listed / "records").st_uid == 0
        give_access(listed, SERVICE, 7)
        assert appended(listed / "of the service").st_uid == SERVICE.uid


class TestFiles:
    def test_another_users_is_refused_wherever_it_is(self, folder: Path) -> None:
        theirs = touched(folder / "records", STRANGER)
        assert refusal(theirs) == f"{theirs} belongs to daemon: give it to root, or use another file"

    def test_a_symbolic_link_of_roots_is_followed_and_the_way_behind_it_is_checked(
        self, folder: Path
    ) -> None:
        made(folder / "roots")
        (folder / "link").symlink_to("roots/records")
        (folder / "roots" / "up").symlink_to("../roots")
        assert appended(folder / "link").st_ino == (folder / "roots/records").stat().st_ino
        assert appended(folder / "roots/up/../link").st_ino == (folder / "roots/records").stat().st_ino
        theirs = made(folder / "theirs", user=STRANGER)
        (folder / "to them").symlink_to(theirs)
        assert refusal(folder / "to them" / "records").startswith(f"{theirs} belongs to daemon: ")

    def test_a_circle_of_links_is_what_it_is(self, folder: Path) -> None:
        (folder / "circle").symlink_to("circle")
        with pytest.raises(OSError, match="Too many levels") as raised:
            open_to_append(str(folder / "circle"), SERVICE)
        assert raised.value.errno == errno.ELOOP

    def test_a_relative_path_begins_where_we_are(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(made(folder / "theirs", user=STRANGER))
        assert refusal("records").startswith(f"{folder}/theirs belongs to daemon: ")

    def test_what_is_no_folder_has_nothing_below_it(self, folder: Path) -> None:
        touched(folder / "file")
        for path in (f"{folder}/file/below", f"{folder}/file/"):
            with pytest.raises(NotADirectoryError):
                open_to_append(path, SERVICE)
        with pytest.raises(IsADirectoryError):
            open_to_append(str(folder), SERVICE)
        with pytest.raises(FileNotFoundError):
            open_to_append(f"{folder}/nosuch/records", SERVICE)

    def test_devices_and_what_is_open_already_are_fine(self, folder: Path) -> None:
        assert stat.S_ISCHR(appended("/dev/null").st_mode)
        receiving, sending = os.pipe()
        for path in (
            f"/dev/fd/{sending}",
            f"/proc/self/fd/{sending}",
            f"/proc/self/task/{os.getpid()}/fd/{sending}",
        ):
            assert appended(path).st_ino == os.fstat(sending).st_ino
        os.close(receiving)
        os.close(sending)
        with touched(folder / "theirs", STRANGER).open("ab") as file:
            assert appended(f"/dev/fd/{file.fileno()}").st_uid == STRANGER.uid

    def test_a_named_pipe_must_be_roots(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        assert stat.S_ISFIFO(appended(folder / "pipe").st_mode)
        os.mkfifo(folder / "their pipe")
        given(folder / "their pipe", STRANGER)
        assert refusal(folder / "their pipe").startswith(f"{folder}/their pipe belongs to daemon: ")


class TestStickyFolders:
    """As /tmp."""

    @pytest.fixture
    def sticky(self, folder: Path) -> Path:
        return made(folder / "sticky", 0o1777)

    def test_a_new_file_is_made_for_its_owner_alone(self, sticky: Path) -> None:
        there = appended(sticky / "records", None)
        assert (there.st_uid, stat.S_IMODE(there.st_mode)) == (0, 0o600)
        assert appended(sticky / "records", None).st_ino == there.st_ino

    @pytest.mark.parametrize("kind", ["file", "link", "dangling", "pipe", "folder"])
    def test_nothing_that_another_user_put_there_is_opened(self, sticky: Path, kind: str) -> None:
        target = touched(sticky.parent / "roots")
        planted = sticky / "records"
        match kind:
            case "file":
                planted.touch()
            case "link":
                planted.symlink_to(target)
            case "dangling":
                planted.symlink_to(sticky.parent / "nosuch")
            case "pipe":
                os.mkfifo(planted)
            case "folder":
                planted.mkdir()
        given(planted, STRANGER)
        path = planted / "below" if kind == "folder" else planted
        assert refusal(path).startswith(f"{planted} belongs to daemon: ")
        assert not (sticky.parent / "nosuch").exists()

    def test_a_hard_link_to_a_file_of_roots_is_refused(self, sticky: Path) -> None:
        (sticky / "records").hardlink_to(
            touched(sticky.parent / "roots")
        )  # as where the kernel allows him that
        assert refusal(sticky / "records").startswith(f"{sticky}/records is a hard link to a file ")

    def test_one_of_another_users_is_not(self, sticky: Path) -> None:
        given(sticky, STRANGER)
        assert refusal(sticky / "records").startswith(f"{sticky} belongs to daemon: ")

    def test_what_is_put_there_after_the_walk_is_not_opened(self, sticky: Path) -> None:
        with walked(str(sticky / "records"), trusted()) as place:
            (sticky / "records").symlink_to(touched(sticky.parent / "roots"))
            with pytest.raises(PlaceChangedError):
                place.open(os.O_WRONLY | os.O_CREAT, 0o600)
        (sticky / "records").unlink()
        touched(sticky / "records")
        with walked(str(sticky / "records"), trusted()) as place:
            (sticky / "records").rename(sticky / "records.1")
            with pytest.raises(PlaceChangedError):
                place.open(os.O_WRONLY)
            touched(sticky / "records", STRANGER)
            with pytest.raises(PlaceChangedError):
                place.open(os.O_WRONLY)

    def test_nor_is_it_read(self, sticky: Path) -> None:
        with walked(str(sticky / "database"), trusted()) as place:
            touched(sticky / "database", STRANGER)
            with pytest.raises(FileNotFoundError):
                place.open(os.O_RDONLY)

    def test_no_race_is_won(self, sticky: Path) -> None:
        """A stranger plants links, pipes and files while root takes his own away, as logrotate does."""
        secret, records = touched(sticky.parent / "secret"), sticky / "records"
        command = ["setpriv", "--reuid", STRANGER.name, "--clear-groups", "/usr/bin/python3", "-c", _PLANTING]
        planted = opened = 0
        with subprocess.Popen([*command, records, secret]) as planting:
            try:
                deadline = time.monotonic() + 60
                while (planted < 100 or opened < 100) and time.monotonic() < deadline:
                    try:
                        there = appended(records, None)
                    except UnsafePathError:
                        planted += 1
                    except OSError as error:
                        if error.errno != errno.EBUSY:  # it has changed too often
                            raise
                    else:
                        opened += 1
                        assert (there.st_uid, there.st_ino != secret.stat().st_ino) == (0, True)
                    records.unlink(missing_ok=True)
            finally:
                planting.kill()
        assert planted >= 100
        assert opened >= 100


class TestTheUserThatRootWillBecome:
    def test_what_he_could_have_chosen_is_opened_with_his_rights(self, folder: Path) -> None:
        theirs = made(folder / "theirs", user=SERVICE)
        assert appended(theirs / "records").st_uid == SERVICE.uid
        secret = touched(folder / "secret")
        secret.chmod(0o600)
        (theirs / "link").symlink_to(secret)
        for attempt in (open_to_read, open_to_append):
            with pytest.raises(PermissionError):
                attempt(str(theirs / "link"), SERVICE)
        assert os.geteuid() == 0

    def test_a_folder_that_only_root_may_look_into_stays_closed_to_him(self, folder: Path) -> None:
        closed = made(folder / "closed", 0o700)
        touched(closed / "readable")
        theirs = made(folder / "theirs", user=SERVICE)
        (theirs / "link").symlink_to(closed / "readable")
        with pytest.raises(PermissionError):
            open_to_read(str(theirs / "link"), SERVICE)

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda folder: folder / "file", False),
            (lambda folder: given(folder, SERVICE) / "file", True),
            (lambda folder: made(given(folder, SERVICE) / "roots") / "file", True),
            (lambda folder: made(folder / "sticky", 0o1777) / "free", True),
            (lambda folder: touched(made(folder / "sticky", 0o1777) / "roots"), False),
            (lambda folder: touched(made(folder / "sticky", 0o1777) / "his", SERVICE), True),
            (lambda folder: touched(folder / "his", SERVICE), False),
            (lambda folder: made(made(folder / "closed", 0o700) / "sticky", 0o1777) / "free", False),
            (lambda folder: made(made(folder / "closed", 0o711) / "sticky", 0o1777) / "free", True),
            (lambda folder: made(folder / "closed", 0o700) / ".." / "file", False),
            (lambda _: Path("/proc/self/fd/1"), False),
        ],
    )
    def test_whether_he_could_have_is_known(
        self, make: Callable[[Path], Path], expected: bool, folder: Path
    ) -> None:
        assert end_of(make(folder)).is_of_user is expected

    def test_a_link_of_roots_into_his_folder_is_his(self, folder: Path) -> None:
        theirs = made(folder / "theirs", user=SERVICE)
        (folder / "link").symlink_to(theirs / "anything")
        (folder / "links").symlink_to(theirs)
        assert end_of(folder / "link").is_of_user
        assert end_of(folder / "links" / "anything").is_of_user

    def test_a_folder_of_his_group_is_his(self, folder: Path) -> None:
        of_group = made(folder / "group", 0o770)
        os.chown(of_group, 0, SERVICE.gid)
        assert end_of(of_group / "records").is_of_user

    def test_somebody_else_is_no_more_trusted_for_it(self, folder: Path) -> None:
        assert refusal(made(folder / "theirs", user=STRANGER) / "records").startswith(
            f"{folder}/theirs belongs"
        )
        assert refusal(made(folder / "his", user=SERVICE) / "records", None).startswith(
            f"{folder}/his belongs"
        )


class TestFilesWithOthersBesideThem:
    """As SQLite's."""

    @staticmethod
    def rights(path: Path) -> int:
        """Who opens it."""
        with rights_to_open(str(path), (".key", "-wal"), SERVICE):
            return os.geteuid()

    def test_they_are_opened_with_the_rights_of_whose_folder_it_is(self, folder: Path) -> None:
        assert self.rights(folder / "state") == 0
        assert self.rights(made(folder / "his", user=SERVICE) / "state") == SERVICE.uid

    def test_they_are_in_no_folder_where_everybody_can_put_one(self, folder: Path) -> None:
        sticky = made(folder / "sticky", 0o1777)
        with pytest.raises(UnsafePathError, match="there will be files beside it: use another folder"):
            self.rights(sticky / "state")

    @pytest.mark.parametrize("ending", ["", ".key", "-wal"])
    def test_none_is_another_users_nor_anything_but_a_file(self, folder: Path, ending: str) -> None:
        theirs = touched(folder / f"state{ending}", STRANGER)
        with pytest.raises(UnsafePathError, match=f"{theirs} belongs to daemon"):
            self.rights(folder / "state")
        theirs.unlink()
        os.mkfifo(theirs)
        with pytest.raises(OSError, match="it is no regular file"):
            self.rights(folder / "state")


def test_in_a_name_space_where_root_has_another_number_its_files_are_trusted() -> None:
    ask = "from probes.safe_path import *\nwith walked('/usr/bin/env', trusted()) as place: print(place.name)"
    said = subprocess.run(
        [
            *("setpriv", "--reuid", STRANGER.name, "--clear-groups", "unshare", "--user", "--map-root-user"),
            *("/usr/bin/python3", "-c", ask),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    unreadable = ("Permission denied", "No module named 'probes'")  # by Python's version
    if any(words in said.stderr for words in ("unshare failed", *unreadable)):
        pytest.skip("no user namespaces here, or this folder is root's alone")
    assert (said.stdout, said.stderr) == ("env\n", "")
