"""Root is told of a file where another user may plant names: it refuses in one line, and touches nothing."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest

from tests.mmdb import write_mmdb
from tests.segments import capture_path

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is root who must not open it"),
]
PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
STRANGER: Final = pwd.getpwnam("daemon")
PATIENCE_SECONDS: Final = 60.0
WATCH: Final = ("watch", "--interface", "lo", "--listen", "127.0.0.1:0")
READ: Final = ("read", capture_path("starttls_tls13"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of root's, where everybody may look into all that is above it."""
    folder = Path(mkdtemp(dir="/var/lib"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def give_away(path: Path) -> Path:
    os.chown(path, STRANGER.pw_uid, STRANGER.pw_gid, follow_symlinks=False)
    return path


def state(path: Path) -> None:
    """A good one, with its key."""
    subprocess.run(
        [PROGRAM, *READ, "--simulate", "greylite", "--simulate-state", path], check=True, capture_output=True
    )


def database(path: Path) -> None:
    write_mmdb(path, {"192.0.2.0/24": {"country_code": "DE"}})


@pytest.mark.parametrize(
    ("command", "option", "make"),
    [
        (WATCH, ("--records",), Path.touch),
        (WATCH, ("--simulate", "greylite", "--simulate-state"), state),
        (READ, ("--simulate", "greylite", "--simulate-state"), state),
        (WATCH, ("--geoip",), database),
        (READ, ("--geoip",), database),
        (WATCH, ("--web-config",), Path.touch),
        (WATCH, ("--config",), Path.touch),
    ],
    ids=["records", "state", "state of read", "geoip", "geoip of read", "web-config", "config"],
)
@pytest.mark.parametrize("planted", ["folder", "file", "link"])
def test_what_another_user_could_have_put_there_is_refused(
    command: tuple[str | Path, ...],
    option: tuple[str, ...],
    make: Callable[[Path], None],
    planted: str,
    folder: Path,
) -> None:
    roots = folder / "roots"
    make(roots)
    before = roots.read_bytes()
    theirs = folder / "theirs"
    theirs.mkdir()
    named = theirs / "named"
    match planted:
        case "folder":
            named.symlink_to(roots)
            give_away(theirs)
        case "file":
            make(named)
            give_away(named)
        case "link":
            named.symlink_to(roots)
            give_away(named)
            theirs.chmod(0o1777)
    done = subprocess.run(
        [PROGRAM, *command, *option, named],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    whose = theirs if planted == "folder" else named
    what = "folder" if planted == "folder" else "file"
    assert f"{whose} belongs to daemon: give it to root, or use another {what}" in line
    assert (roots.read_bytes(), roots.stat().st_uid) == (before, 0)


def test_a_certificate_is_no_exception(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    for name in ("cert", "key"):
        (theirs / name).touch()
    give_away(theirs)
    (folder / "web.yml").write_text(
        f"tls_server_config:\n  cert_file: {theirs}/cert\n  key_file: {theirs}/key\n"
    )
    done = subprocess.run(
        [PROGRAM, *WATCH, "--web-config", folder / "web.yml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 2
    assert (
        f"{theirs}/cert, named in {folder}/web.yml: cannot be read: {theirs} belongs to daemon: "
        in done.stderr
    )


@pytest.mark.parametrize("option", ["--config", "--web-config"])
def test_settings_that_everybody_may_write_are_refused(option: str, folder: Path) -> None:
    settings = folder / "settings"
    settings.touch()
    settings.chmod(0o666)
    done = subprocess.run(
        [PROGRAM, *WATCH, option, settings],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 2
    assert (
        f"everybody may write into {settings} (mode 0666): chmod o-w it, or use another file" in done.stderr
    )


def test_settings_may_come_through_a_pipe_of_the_shells(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'{PROGRAM} watch --config <(sleep 0.5; echo "wrong = 1")'],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 2
    assert "unknown key 'wrong'" in done.stderr


def test_what_is_put_there_while_it_runs_is_not_opened_either(folder: Path) -> None:
    """logrotate has moved the file of a folder that is open to all, and somebody is faster than SIGHUP."""
    sticky, secret, log = folder / "sticky", folder / "secret", folder / "log"
    sticky.mkdir()
    sticky.chmod(0o1777)
    secret.touch(0o600)
    records = sticky / "records"
    with (
        log.open("wb") as output,
        subprocess.Popen([PROGRAM, *WATCH, "--user", "root", "--records", records], stderr=output) as watch,
    ):
        try:
            await_line(log, "session records go to")
            records.rename(sticky / "records.1")
            give_away(sticky / "records.1")
            records.symlink_to(secret)
            give_away(records)
            watch.send_signal(signal.SIGHUP)
            await_line(log, f"cannot reopen {records}: {records} belongs to daemon: ")
            records.unlink()
            watch.send_signal(signal.SIGHUP)
            await_line(log, "records reopened")
        finally:
            watch.terminate()
    assert watch.returncode == 0
    assert secret.stat().st_size == 0
    assert records.stat().st_uid == 0


def await_line(log: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
