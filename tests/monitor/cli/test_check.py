"""`watch --check`: finds what would keep `watch` from beginning, in its words, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monitor.cli.listeners import Listener
from monitor.simulation.simulation import Simulation

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can capture, and become another user")

HERE = ("--interface", "lo", "--listen", "127.0.0.1:0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def run(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, PROGRAM, "watch", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_good_settings_are_said_to_be_and_nothing_is_made(folder: Path) -> None:
    state, records = folder / "state", folder / "records.jsonl"
    simulated = ("--simulate", "greylite", "--simulate-state", str(state))
    done = run("--check", *HERE, "--records", str(records), *simulated)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "settings, files and privileges are good: watch can begin",
        f"watch will make {state}",
        f"watch will make {state}.key",
        f"watch will make {records}",
    ]
    assert list(folder.iterdir()) == []


def test_files_that_are_there_stay_as_they_are(folder: Path) -> None:
    state, records = folder / "state", folder / "records.jsonl"
    Simulation(["greylite"], state).close()
    records.write_text('{"half": ')
    before = contents(folder)
    simulated = ("--simulate", "greylite", "--simulate-state", str(state))
    done = run("--check", *HERE, "--records", str(records), *simulated)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "settings, files and privileges are good: watch can begin\n"
    assert contents(folder) == before


def test_every_problem_has_its_line(folder: Path) -> None:
    state = folder / "state"
    Simulation(["greylite"], state).close()
    state.write_bytes(state.read_bytes()[:20_000])
    before = contents(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            *("--check", "--interface", "nosuch0", "--listen", f"127.0.0.1:{port}"),
            *("--records", f"{folder}/nowhere/records.jsonl", "--web-config", f"{folder}/web.yml"),
            *("--geoip", f"{folder}/geo.mmdb", "--simulate", "greylite", "--simulate-state", str(state)),
        )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    for line, part in zip(
        sorted(lines),
        sorted(
            [
                f"Error: {folder}/geo.mmdb: cannot be read",
                f"Error: {state} is damaged (",
                f"Error: {folder}/web.yml: cannot be read",
                f"Error: cannot serve metrics on 127.0.0.1:{port}: Address already in use by ",
                f"Error: cannot write records to {folder}/nowhere/records.jsonl: No such file",
                "Error: there is no interface 'nosuch0'",
            ]
        ),
        strict=True,
    ):
        assert line.startswith(part)
    assert contents(folder) == before


def _of_another_user(folder: Path) -> Path:
    plants = folder / "plants"
    plants.mkdir()
    plants.chmod(0o777)
    return plants


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "web.yml")
    return str(folder / "web.yml")


def _simulated(folder: Path, *, key: bytes = b"", link: str = "") -> tuple[str, ...]:
    if key:
        (folder / "state.key").write_bytes(key)
    if link:
        (folder / link).symlink_to("nowhere")
    return "--simulate", "greylite", "--simulate-state", str(folder / "state")


WRONG: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "an interface": lambda _: ("--interface", "nosuch0"),
    "no folder for records": lambda folder: ("--records", f"{folder}/nowhere/records"),
    "records in a folder of everybody's": lambda folder: ("--records", f"{_of_another_user(folder)}/records"),
    "a folder for records": lambda folder: ("--records", str(folder)),
    "no folder for the state": lambda f: ("--simulate", "greylite", "--simulate-state", f"{f}/nowhere/state"),
    "a state in a folder of everybody's": lambda folder: (
        *("--simulate", "greylite", "--simulate-state", f"{_of_another_user(folder)}/state"),
    ),
    "a key of another length beside no state": lambda folder: _simulated(folder, key=b"short"),
    "a state that leads nowhere": lambda folder: _simulated(folder, link="state"),
    "a key that leads nowhere": lambda folder: _simulated(folder, link="state.key"),
    "one file for records and state": lambda folder: ("--records", f"{folder}/./state", *_simulated(folder)),
    "a state and nothing to simulate": lambda folder: ("--simulate-state", f"{folder}/state"),
    "a database": lambda folder: ("--geoip", f"{folder}/geo.mmdb"),
    "a web configuration": lambda folder: ("--web-config", f"{folder}/web.yml"),
    "a web configuration that can be read once": lambda folder: ("--web-config", _pipe(folder)),
    "a user": lambda _: ("--user", "nosuch"),
    "an address that is not here": lambda _: ("--listen", "192.0.2.1:9825"),
    "a setting": lambda _: ("--probe", "tcpdump"),
    "a file of settings": lambda folder: ("--config", f"{folder}/settings.toml"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("what", WRONG)
def test_it_finds_what_watch_finds_and_says_the_same(what: str, folder: Path) -> None:
    arguments = (*HERE, *WRONG[what](folder))
    checked = run(*arguments, "--check")
    begun = run(*arguments)
    assert (checked.returncode, begun.returncode) == (2, 2)
    assert checked.stderr.count("\n") == begun.stderr.count("\n") == 1
    assert checked.stderr == begun.stderr


def test_without_privilege_it_says_what_to_do() -> None:
    bare = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    done = run("--check", *HERE, "--user", "root", before=bare)
    assert done.returncode == 2
    assert "CAP_NET_RAW and CAP_BPF missing" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_state_in_use_is_found(folder: Path, start_watch: Callable[..., Any]) -> None:
    state = folder / "state"
    simulated = ("--simulate", "greylite", "--simulate-state", str(state))
    watch = start_watch(*simulated)
    done = run("--check", *HERE, *simulated)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{state} is in use by another program" in done.stderr
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0


def test_it_is_no_setting(folder: Path) -> None:
    """Or a service would check for ever."""
    settings = folder / "settings.toml"
    settings.write_text("check = true\n")
    assert f"{settings}:1: unknown key 'check'" in run("--config", str(settings)).stderr


def test_who_holds_the_port_has_no_say_in_what_a_terminal_does() -> None:
    assert str(Listener("\x1b]0;x\a\n", 7, None)) == r"\x1b]0;x\x07 (process 7)"


def test_who_holds_the_port_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        said = run("--interface", "lo", "--listen", f"127.0.0.1:{port}").stderr
        name = Path("/proc/self/comm").read_text().strip()
    assert f"Address already in use by {name} (process {os.getpid()}); stop that, or name another" in said
