"""`watch` goes on as a user who may not look into the folder that it was installed in."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.lab.waiting import await_condition

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("smtp-horizon")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone may look into the folder"),
    pytest.mark.skipif(ROOT.parent == Path("/"), reason="a folder is hidden by one above it"),
]

# In a mount name space of its own, the folder above this repository becomes one that only root may look into,
# as /root is. The folder of the test is elsewhere.
HIDING = """
set -e
mount --bind "$ROOT" "$HERE"
mount -t tmpfs -o mode=0700 none "$ABOVE"
mkdir -p "$ROOT"
mount --move "$HERE" "$ROOT"
cd /
exec "$@"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's own: this repository may lie beside that, and what is above it is hidden."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        yield Path(folder)


@pytest.mark.parametrize("probe", ["ebpf", "pyshark"])
def test_nothing_is_imported_late(probe: str, place: Path) -> None:
    here = place / "here"
    here.mkdir()
    log = place / "log"
    listener = socket.create_server(("127.0.0.1", 0))
    watch = ["watch", "--interface", "lo", "--listen", "127.0.0.1:0", "--probe", probe]
    watch += ["--ports", str(listener.getsockname()[1])]
    watch += ["--records", str(place / "records"), "--simulate", "greylite"]
    environment = {**os.environ, "ROOT": str(ROOT), "ABOVE": str(ROOT.parent), "HERE": str(here)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", HIDING, "sh", PROGRAM, *watch], stderr=output, env=environment
        )
    try:
        await_condition(lambda: "metrics are at" in log.read_text(), process, log)
        process_folder = Path(f"/proc/{process.pid}/root{ROOT.parent}")
        assert process_folder.stat().st_mode & 0o777 == 0o700
        assert "running as nobody" in log.read_text() or "running as smtp-horizon" in log.read_text()
        (url,) = (word for word in log.read_text().split() if word.startswith("http://"))
        _have_a_session(listener)
        await_condition(
            lambda: b'smtp_monitor_records_total{result="written"} 1.0' in _get(url), process, log
        )
        for path in ("", "/nosuch"):
            _get(url.removesuffix("/metrics") + path)
        process.send_signal(signal.SIGHUP)
        await_condition(lambda: "records reopened" in log.read_text(), process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        listener.close()
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert "Error" not in log.read_text()


def _have_a_session(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            for sender, receiver, said in (
                (server, client, b"220 mx.example\r\n"),
                (client, server, b"EHLO client.example\r\n"),
                (server, client, b"250 mx.example\r\n"),
                (client, server, b"QUIT\r\n"),
                (server, client, b"221 bye\r\n"),
            ):
                sender.sendall(said)
                assert receiver.recv(100) == said


def _get(url: str) -> bytes:
    try:
        with urlopen(url, timeout=10) as answer:
            body: bytes = answer.read()
    except OSError as error:  # 404
        body = str(error).encode()
    return body
