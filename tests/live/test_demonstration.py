"""What `make run` shows on a machine that has no mail server."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.watch import LISTEN, sample_sum

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="the demonstration needs root"),
]

PATIENCE_SECONDS = 30


def test_it_serves_metrics_to_the_host_and_ends_with_a_report_on_ctrl_c() -> None:
    try:
        ensure(demonstration=True)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with socket.socket() as probing:
        if probing.connect_ex(LISTEN) == 0:
            pytest.skip(f"something listens on {LISTEN[0]}:{LISTEN[1]} already")
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        sessions = await_sessions(20, running)
    finally:
        running.send_signal(signal.SIGINT)
        shown, complaints = running.communicate(timeout=PATIENCE_SECONDS)
    assert (running.returncode, complaints) == (0, "")
    assert sessions >= 20, shown
    found = re.search(
        r"([\d.]+) %  of sessions: (\d+) of (\d+) \(without (\d+) that carried no mail\)", shown
    )
    assert found, shown
    assert 40 < float(found[1]) < 95
    assert int(found[3]) + int(found[4]) >= sessions
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"-{running.pid}-" not in left


def await_sessions(wanted: int, running: "subprocess.Popen[str]") -> int:
    """Waits until the metrics, as the host sees them, count that many sessions, or there is no hope of it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    counted = 0.0
    while counted < wanted and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            with urlopen(f"http://{LISTEN[0]}:{LISTEN[1]}/metrics", timeout=5) as answer:
                counted = sample_sum(answer.read().decode(), "smtp_sessions_total")
        except OSError:
            continue
    return int(counted)
