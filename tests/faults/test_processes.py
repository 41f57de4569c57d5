"""What happens to the process of `watch` itself: stopped (as by a suspend), killed, not alone."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.monitor.cli.conftest import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root"),
]

_STOPPED_SECONDS: Final = 4.0
_MANY_RECIPIENTS: Final = 60

StartWatch = Callable[..., Watch]


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _session_of_many_recipients(port: int) -> int:
    """Its record is longer than a pipe takes at once. The port of the client."""
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as replies:
        lines = [b"RCPT TO:<%060d@example.test>\r\n" % number for number in range(_MANY_RECIPIENTS)]
        for line in (
            b"",
            b"EHLO client.example\r\n",
            b"MAIL FROM:<a@client.example>\r\n",
            *lines,
            b"QUIT\r\n",
        ):
            client.sendall(line)
            replies.readline()
        mine: int = client.getsockname()[1]
        return mine


def test_what_came_while_it_was_stopped_is_read_afterwards_and_the_lag_tells(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    """A suspended machine stops it in the same way, but then nothing comes either."""
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    lags, is_over = [0.0], threading.Event()

    def look() -> None:
        while not is_over.is_set():
            lags.append(watch.samples()["smtp_monitor_lag_seconds"])

    watch.signal(signal.SIGSTOP)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        ports = list(clients.map(_session_of_many_recipients, [smtp_server.port] * 100))
    time.sleep(max(0.0, started + _STOPPED_SECONDS - time.monotonic()))
    looker = threading.Thread(target=look)
    looker.start()
    watch.signal(signal.SIGCONT)
    try:
        eventually(lambda: len(_records(path)) == len(ports), 20)
    finally:
        is_over.set()
        looker.join()
    eventually(lambda: watch.samples()["smtp_monitor_lag_seconds"] == 0)
    records = _records(path)
    assert sorted(record["client"]["port"] for record in records) == sorted(ports)
    assert all(record["capture"]["complete"] for record in records)
    assert {len(record["transactions"][0]["recipients"]) for record in records} == {_MANY_RECIPIENTS}
    assert not watch.total("smtp_monitor_packets_dropped_total")
    assert max(lags) > _STOPPED_SECONDS / 2


def test_killed_it_leaves_no_half_line_and_the_next_one_goes_on_in_the_file(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "records.jsonl"
    for round_ in range(2):
        before = len(_records(path)) if path.exists() else 0
        watch = start_watch("--records", str(path))
        with ThreadPoolExecutor(4) as clients:
            talking = [clients.submit(_session_of_many_recipients, smtp_server.port) for _ in range(100)]
            eventually(lambda before=before: path.read_bytes().count(b"\n") > before, 20)
            watch.signal(signal.SIGKILL)
            assert watch.wait() == -signal.SIGKILL
            for session in talking:
                session.result()
        text = path.read_bytes()
        assert text.endswith(b"}\n")
        assert len(_records(path)) > before, round_


def test_two_on_one_machine_are_both_right_and_share_a_file_without_half_lines(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path, second = tmp_path / "records.jsonl", tmp_path / "second"
    second.mkdir()
    start_watch("--records", str(path))
    other = Watch(second, "--ports", str(smtp_server.port), "--records", str(path))
    try:
        with ThreadPoolExecutor(4) as clients:
            ports = list(clients.map(_session_of_many_recipients, [smtp_server.port] * 100))
        eventually(lambda: path.read_bytes().count(b"\n") == 2 * len(ports), 20)
    finally:
        other.process.kill()
        other.process.wait()
    lines = path.read_bytes().splitlines()
    assert min(map(len, lines)) > 4096, "else a pipe would do"
    assert Counter(json.loads(line)["client"]["port"] for line in lines) == Counter(ports * 2)
