"""What `make fresh` starts in a root ends with it, and leaves nothing mounted on this machine."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from scripts.fresh import listening, named_in

ROOT: Final = Path(__file__).parents[1]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and another root, need root")

# A root with the programs of this machine; and a process that outlives the one that started it, in a session
# of its own, as a server does. Ctrl-C does not reach it.
IN_A_ROOT: Final = """
import ctypes, sys
from pathlib import Path
from scripts import fresh

ctypes.CDLL(None).prctl(fresh._PR_SET_CHILD_SUBREAPER, 1)
path = Path(sys.argv[1])
for name in ("bin", "lib", "lib64", "sbin"):
    (path / name).symlink_to(f"usr/{name}")
for name in ("proc", "sys", "dev", "run", "root"):
    (path / name).mkdir()
root = fresh.Root(path, {}, [Path("/usr")])
(path / "root/smtp-horizon").mkdir()
try:
    root.run("sh", "-c", sys.argv[2])
except fresh.Failed as reason:
    print(reason)
finally:
    print("left:", fresh.descendants_left())
    fresh.remove(path)
"""
SLEEP: Final = f"sleep {4_000_000 + os.getpid()}"
"""One that no other process of pytest's starts: they share the machine's process numbers."""
OUTLIVES: Final = f"setsid --fork {SLEEP}; grep -c . /proc/self/mountinfo; ls -d /etc /root; pwd"


def start(path: Path, script: str) -> "subprocess.Popen[str]":
    path.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", IN_A_ROOT, path, script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def sleepers() -> list[str]:
    found = subprocess.run(
        ["grep", "-alw", SLEEP.split()[1], *proc_files()], capture_output=True, text=True, check=False
    )
    return [file for file in found.stdout.split() if b"sleep" in read(file)]


def proc_files() -> list[str]:
    return [str(file / "cmdline") for file in Path("/proc").iterdir() if file.name.isdigit()]


def read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


@needs_root
def test_what_outlives_its_command_is_ended_and_the_root_is_removed(tmp_path: Path) -> None:
    with start(tmp_path / "root", OUTLIVES) as program:
        said, _ = program.communicate(timeout=60)
    mounts, *rest = said.splitlines()
    assert int(mounts) > 5
    # No /etc: it is another root.
    assert rest == [
        "/root",
        "/root/smtp-horizon",
        "left: []",
    ]
    assert not sleepers()
    assert not (tmp_path / "root").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@needs_root
def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    with start(tmp_path / "root", "exit 3") as program:
        said, _ = program.communicate(timeout=60)
    assert said == "sh -c 'exit 3': status 3\nleft: []\n"


@needs_root
def test_interrupted_it_ends_all_the_same(tmp_path: Path) -> None:
    with start(tmp_path / "root", f"{OUTLIVES}; echo waiting; exec {SLEEP}") as program:
        assert program.stdout is not None
        while program.stdout.readline() != "waiting\n":
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
    assert said == "left: []\n"
    deadline = time.monotonic() + 20
    while sleepers():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (tmp_path / "root").exists()


STUBBORN: Final = f"""
import os, signal, time
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"told\\n"))
os.write(1, b"waiting\\n")
time.sleep({SLEEP.split()[1]})
"""


@needs_root
def test_interrupted_twice_it_does_not_wait(tmp_path: Path) -> None:
    # No shell: where it has just begun to wait for a program, it may take note of a signal only at its end.
    stubborn = f"exec python3 -c {shlex.quote(STUBBORN)}"
    with start(tmp_path / "root", stubborn) as program:
        assert program.stdout is not None
        for line in ("waiting\n", "told\n"):
            while program.stdout.readline() != line:
                assert program.poll() is None
            program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=40)  # in good order it would have 60 s
    assert said.splitlines()[-1] == "left: []"
    assert not sleepers()
    assert not (tmp_path / "root").exists()


MADE_HALF: Final = f"""
import subprocess, sys
from pathlib import Path
from scripts import fresh

def unpack(release, path):
    path.mkdir()
    subprocess.Popen(["setsid", *{SLEEP.split()}], cwd=path)
    raise fresh.Terminated

fresh.FOLDER = Path(sys.argv[1])
fresh.unpack = unpack
try:
    with fresh.fresh_root("trixie", keep=False):
        pass
except fresh.Terminated:
    print(*fresh.FOLDER.iterdir())
"""


@needs_root
def test_what_makes_the_root_is_ended_too(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", MADE_HALF, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (made.stderr, made.stdout.splitlines()[-1]) == ("", "")
    assert not sleepers()


def test_the_paths_that_settings_name_are_found(tmp_path: Path) -> None:
    index = tmp_path / "simple"
    index.mkdir()
    (tmp_path / "ca.pem").touch()
    texts = [
        f"[global]\nextra-index-url = file://{index} https://index.example/simple\ncert={tmp_path}/ca.pem\n",
        f"{tmp_path}/nosuch 180 / /etc",
    ]
    assert list(named_in(texts)) == [index, tmp_path / "ca.pem"]


def test_a_port_on_which_something_listens_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in listening()
    assert port not in listening()
