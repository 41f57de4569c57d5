"""The process that serves `/metrics` beside `watch`: how it begins and ends, and what it may take."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import pytest

from monitor.cli.serving import NAME, NICENESS
from monitor.metrics.server import ANSWERED_MAX, DESCRIPTORS_KEPT, WAITING_MAX
from tests.monitor.cli.conftest import PROGRAM, StartWatch, Watch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root")

Eventually = Callable[..., None]

FLOOD: Final = 1_200  # requests


@contextmanager
def open_clock(process: int) -> Iterator[Callable[[], float]]:
    """Of a process' own processor time, from here on."""
    clock = ~process << 3 | 2  # CPUCLOCK_SCHED of linux/posix-timers_types.h: in nanoseconds
    begin = time.clock_gettime(clock)
    yield lambda: time.clock_gettime(clock) - begin


def _address(watch: Watch) -> tuple[str, int]:
    parts = urlsplit(watch.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _is_over(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def idle() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def test_it_stands_behind_the_capture_and_holds_little(start_watch: StartWatch) -> None:
    watch = start_watch("--records", "-")
    server = psutil.Process(watch.child(NAME))
    assert server.nice() == min(19, psutil.Process(watch.process.pid).nice() + NICENESS)
    assert os.sched_getscheduler(server.pid) == os.SCHED_BATCH
    limit = WAITING_MAX + ANSWERED_MAX + DESCRIPTORS_KEPT
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    assert re.search(rf"^Max open files +{limit} +{limit} ", limits, flags=re.M)
    links = {number: os.readlink(f"/proc/{server.pid}/fd/{number}") for number in range(3, 20)
             if Path(f"/proc/{server.pid}/fd/{number}").exists()}  # fmt: skip
    # The listening socket, the way to watch, and the event loop's own: nothing of what watch has open.
    assert len(links) <= 6
    assert all(link.startswith(("socket:", "anon_inode:")) for link in links.values())
    assert os.readlink(f"/proc/{server.pid}/fd/1") == os.devnull


def test_when_it_is_killed_watch_says_so_writes_its_records_and_ends_with_status_1(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    with smtp_server.begin_session():
        os.kill(watch.child(NAME), signal.SIGKILL)
        assert watch.wait() == 1
    assert "ERROR the metrics server has ended" in watch.log
    assert path.read_bytes().count(b"\n") == 1


def test_it_ends_with_watch_however_watch_ends(start_watch: StartWatch, eventually: Eventually) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        watch = start_watch()
        server = watch.child(NAME)
        watch.signal(number)
        assert watch.wait() == status
        eventually(lambda server=server: _is_over(server))
        socket.create_server(_address(watch)).close()  # the port is free


def test_a_signal_to_all_processes_is_one_to_watch(smtp_server: Any, tmp_path: Path) -> None:
    """As from a terminal, or from systemd."""
    starts_a_group = (
        sys.executable,
        "-c",
        "import os, sys; os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])",
    )
    records = tmp_path / "records.jsonl"
    options = ("--ports", str(smtp_server.port), "--records", str(records))
    watch = Watch(tmp_path, *options, program=(*starts_a_group, PROGRAM))
    os.killpg(watch.process.pid, signal.SIGHUP)
    assert watch.samples()
    smtp_server.whole_session()
    os.killpg(watch.process.pid, signal.SIGINT)
    assert watch.wait() == 0
    assert "ERROR" not in watch.log
    assert records.read_bytes().count(b"\n") == 1


def test_a_server_that_gets_no_processor_holds_nothing_up(start_watch: StartWatch, smtp_server: Any) -> None:
    watch = start_watch("--records", "-")
    server = watch.child(NAME)
    os.kill(server, signal.SIGSTOP)
    try:
        smtp_server.whole_session()
        watch.signal(signal.SIGTERM)
        assert watch.process.wait(20) == 0
        assert watch.output.count("\n") == 1
        assert "the metrics server does not end yet" in watch.log
    finally:
        os.kill(server, signal.SIGCONT)


def test_few_descriptors_and_many_idle_clients_end_nothing(
    smtp_server: Any, tmp_path: Path, idle: ExitStack
) -> None:
    options = ("--ports", str(smtp_server.port), "--records", "-")
    limited = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh")
    watch = Watch(tmp_path, *options, program=(*limited, PROGRAM))
    try:
        for _ in range(120):
            idle.enter_context(socket.create_connection(_address(watch)))
        for _ in range(3):
            assert watch.total("smtp_monitor_capture_up") == 1
        smtp_server.whole_session()
        watch.signal(signal.SIGHUP)
        watch.signal(signal.SIGTERM)
        assert watch.wait() == 0
    finally:
        watch.process.kill()
        watch.process.wait()
    assert watch.output.count("\n") == 1
    assert "Traceback" not in watch.log
    assert "ERROR" not in watch.log


def test_whatever_is_asked_for_the_log_stays_short(start_watch: StartWatch) -> None:
    watch = start_watch()
    before = watch.log
    for accept in (
        "application/openmetrics-text;version=a",
        "text/plain;version=..",
        ";;,=;q=",
        "q=1;" * 1000,
    ):
        for _ in range(20):
            connection = http.client.HTTPConnection(*_address(watch), timeout=20)
            connection.request("GET", "/metrics", headers={"Accept": accept})
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            connection.close()
    assert watch.log == before


def test_a_flood_of_requests_is_no_work_for_the_process_that_captures(start_watch: StartWatch) -> None:
    """Processor time, so that it does not matter how busy the machine is."""
    watch = start_watch()
    address = _address(watch)
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

    def flood(count: int) -> int:
        answered = 0
        for _ in range(count):
            with socket.create_connection(address, 60) as connection:
                connection.sendall(request)
                answered += connection.recv(65536).startswith(b"HTTP/1.1 200")
        return answered

    with open_clock(watch.process.pid) as taken_seconds, ThreadPoolExecutor(6) as clients:
        begin = time.monotonic()
        assert sum(clients.map(flood, [FLOOD // 6] * 6)) == FLOOD
        elapsed = time.monotonic() - begin
        taken = taken_seconds()
    # Snapshots of a millisecond or two, and what it takes doing nothing.
    assert taken < 0.3 + 0.02 * elapsed


def test_where_it_cannot_listen_nothing_is_left_running(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = "{}:{}".format(*taken.getsockname())
        command = [PROGRAM, "watch", "--interface", "lo", "--listen", where]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
