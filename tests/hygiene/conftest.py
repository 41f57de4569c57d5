"""Everything that a run says, of whatever a test has said on the wire: live and from a capture."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.hygiene.wire import Server, Tcpdump, on_a_terminal
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.waiting import await_condition

PROGRAM: Final = str(Path(sys.executable).with_name("smtp-horizon"))
SETTLED_SECONDS: Final = 3.0
"""Longer than watch waits for stragglers of a closed connection before it writes the record."""


@dataclass(slots=True)
class Said:
    """By format, each whole."""

    records: bytes = b""
    metrics: bytes = b""
    log: bytes = b""
    read_jsonl: bytes = b""
    read_metrics: bytes = b""
    table: bytes = b""
    """On a terminal."""
    read_errors: bytes = b""

    def all(self) -> dict[str, bytes]:
        return asdict(self)


Happening = Callable[[Server, int], None]
"""Speaks to the server; the number is that of watch's process, which looks on."""


def hear(
    folder: Path, server: Server, happening: Happening, environment: Mapping[str, str] | None = None
) -> Said:
    said = Said()
    log, records, capture = folder / "log", folder / "records.jsonl", folder / "traffic.pcap"
    command = [PROGRAM, "watch", "--interface", "lo", "--listen", "127.0.0.1:0", "--log-level", "debug"]
    command += ["--ports", str(server.port), "--records", str(records)]
    with ExitStack() as running:
        with log.open("wb") as output:
            watch = subprocess.Popen(command, stderr=output, env={**os.environ, **(environment or {})})
        running.callback(watch.kill)
        await_condition(lambda: b"metrics are at" in log.read_bytes(), watch, log)
        running.enter_context(Tcpdump(server.port, capture))
        happening(server, watch.pid)
        time.sleep(SETTLED_SECONDS)
        (url,) = [word for word in log.read_text().split() if word.startswith("http://")]
        with urllib.request.urlopen(url, timeout=10) as answer:
            said.metrics = answer.read()
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(20) == 0
    said.records, said.log = records.read_bytes(), log.read_bytes()
    read = [PROGRAM, "read", "--ports", str(server.port), "--format"]
    for kind in ("jsonl", "metrics"):
        done = subprocess.run([*read, kind, str(capture)], capture_output=True, check=True)
        setattr(said, f"read_{kind}", done.stdout)
        said.read_errors += done.stderr
    said.table = on_a_terminal([*read, "table", str(capture)])
    return said


@pytest.fixture(scope="module", autouse=True)
def lab() -> None:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
