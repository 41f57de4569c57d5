"""Somebody sets the clock meanwhile, an hour forth and back: of the process alone.

How boot time becomes UTC is in tests/probes/ebpf/test_clock.py, what the table makes of time stamps that run
backwards in tests/monitor/sessions/test_table.py.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.monitor.cli.conftest import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root"),
]

_OTHER_CLOCK: Final = Path(__file__).with_name("other_clock.py")
StartWatch = Callable[..., Watch]


def test_a_clock_that_is_set_forth_and_back_changes_times_and_nothing_else(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    clock, path = tmp_path / "clock", tmp_path / "records.jsonl"
    clock.write_text("0")
    # As root: the clock is a file in a folder of root's.
    arguments = ("--records", str(path), "--user", "root")
    watch = start_watch(*arguments, program=[sys.executable, _OTHER_CLOCK, clock])

    def records() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    for number, ahead_seconds in enumerate((3_600, 0, -3_600), start=1):
        before = len(records())
        with smtp_server.begin_session() as client:
            smtp_server.whole_session()
            eventually(lambda before=before: len(records()) > before)
            set_clock = clock.with_name("set")
            set_clock.write_text(str(ahead_seconds))
            set_clock.rename(clock)
            time.sleep(0.5)  # more than a heartbeat
            client.sendall(b"QUIT\r\n")
            client.recv(100)
        smtp_server.whole_session()
        eventually(lambda number=number: len(records()) >= 3 * number)
        eventually(lambda: watch.samples()["smtp_monitor_lag_seconds"] == 0)
        after = datetime.fromisoformat(records()[-1]["start"])
        assert abs(after - datetime.now(UTC) - timedelta(seconds=ahead_seconds)) < timedelta(seconds=60)
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0
    # Before each step, over it, and after it.
    assert [(record["envelope"], record["ended"]) for record in records()] == [("visible", "quit")] * 9
    assert all(record["capture"]["complete"] for record in records())
