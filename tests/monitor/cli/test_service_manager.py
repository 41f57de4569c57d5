"""What systemd is told, by a real `watch`, through a real socket."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from monitor.cli.service_manager import ServiceManager, taken_from

StartWatch = Callable[..., Any]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The manager's end, and its name as the variable has it."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path if request.param == "path" else f"\0{path}")
        listening.settimeout(30)
        yield listening, path if request.param == "path" else f"@{path}"


def told(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


def test_it_is_told_of_the_beginning_and_of_the_end(
    manager: tuple[socket.socket, str],
    start_watch: StartWatch,
    smtp_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    listening, name = manager
    if name.startswith("/"):
        # watch goes on as another user, who could not connect here any more.
        tmp_path.chmod(0o700)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    watch = start_watch("--records", str(tmp_path / "records.jsonl"))
    ready, status = told(listening)
    assert ready == "READY=1"
    assert status == "STATUS=watching lo with the ebpf probe; 0 sessions so far"
    watch.signal(signal.SIGTERM)
    assert told(listening)[0] == "STOPPING=1"
    assert watch.wait() == 0
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1)


def test_no_program_that_is_started_could_speak_for_watch(
    start_watch: StartWatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        watch = start_watch("--probe", "pyshark")
        seen = []
        for process in psutil.Process(watch.process.pid).children(recursive=True):
            if process.name() in ("dumpcap", "tshark"):
                seen.append(process.name())
                assert "NOTIFY_SOCKET" not in process.environ()
    assert "dumpcap" in seen


@pytest.mark.parametrize("name", [None, "", "nothing", "vsock:2:1", "/nonexistent/notify", "@nobody-listens"])
def test_without_a_socket_nobody_is_told(name: str | None) -> None:
    manager = ServiceManager.named(name)
    manager.ready("watching")
    manager.stopping()
    manager.close()


def test_a_manager_that_has_gone_or_is_slow_stops_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(path)
    manager = ServiceManager.named(path)
    for _ in range(10_000):
        manager.status("watching")
    listening.close()
    os.unlink(path)
    manager.status("watching")
    manager.close()


def test_the_variables_are_taken_away() -> None:
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "HOME": "/"}
    assert taken_from(environment) == "/run/notify"
    assert environment == {"HOME": "/"}


def test_an_interface_may_have_any_name(manager: tuple[socket.socket, str]) -> None:
    """The kernel takes bytes that are no UTF-8, as any in a file's name."""
    listening, name = manager
    with closing(ServiceManager.named(name)) as told_of:
        told_of.status(os.fsdecode(b"watching eth\xff"))
    assert listening.recv(4096) == b"STATUS=watching eth\xff"
