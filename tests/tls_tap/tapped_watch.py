"""`watch --tls-tap`, its keeper, and what it records of a session that a test has."""

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from monitor.cli.tapping import NAME
from tests.lab.compare import key
from tests.lab.network import Namespace
from tests.lab.truth import SessionTruth
from tests.lab.watch import Watch

PATIENCE_SECONDS: Final = 15.0

Record = dict[str, Any]


class TappedWatch(Watch):
    start_seconds = 60.0  # its programs are compiled and verified

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(namespace, folder, "--tls-tap", *options, environment=environment)

    @property
    def keeper(self) -> int:
        """The process that keeps the tap."""
        (pid,) = (child for child in children(self.pid) if name(child) == NAME)
        return pid

    def record_of(self, truth: SessionTruth) -> Record:
        """The last one of these two ends."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = [record for record in self.records() if key(record) == truth.key]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, f"no record of {truth.key}"
            time.sleep(0.1)

    def await_libraries(self, count: int) -> None:
        """Until the tap is attached to so many, or more."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.sample_sum("smtp_monitor_tls_tap_libraries") < count:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def is_there(process: int) -> bool:
    """Until its parent has taken note, what has ended is a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def kernel_numbers(process: int, kind: str) -> set[int]:
    """Of the BPF objects that a process holds: `kind` is prog or map."""
    found = set()
    for info in Path(f"/proc/{process}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it was closed
            lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
            if f"{kind}_id" in lines:
                found.add(int(lines[f"{kind}_id"]))
    return found
