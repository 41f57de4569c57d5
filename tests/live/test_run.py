"""`make run` beside a service that has the port of the metrics."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.lab.watch import LISTEN

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root"),
]


def test_it_says_who_has_the_port_and_serves_at_another() -> None:
    try:
        taken = socket.create_server(LISTEN)
    except OSError:
        pytest.skip(f"something listens on {LISTEN[0]}:{LISTEN[1]} already")
    with taken:
        running = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.run", "lo"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert running.stderr is not None
            said = ""
            while "metrics are at" not in said:
                line = running.stderr.readline()
                assert line, said
                said += line
        finally:
            running.send_signal(signal.SIGTERM)
            shown, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert f"metrics are at http://{LISTEN[0]}:" in said
    assert f"metrics are at http://{LISTEN[0]}:{LISTEN[1]}/" not in said
    assert f"{LISTEN[0]}:{LISTEN[1]} is in use by " in shown
    assert f"(process {os.getpid()}), which goes on" in shown
