"""`smtp-horizon watch` as a process in the watched host's namespace, and tcpdump beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.lab.network import INTERFACE, Namespace

PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
LISTEN: Final = ("127.0.0.1", 9825)
# tcpdump shows a packet some time after it has passed: without the wait its last block is lost.
_TCPDUMP_WAIT_SECONDS: Final = 1.5
# Longer than watch waits for stragglers of a closed connection before it writes the record.
_QUIET_SECONDS: Final = 3.0


class Process:
    """A program in a namespace, with a log; a context manager."""

    def __init__(
        self,
        namespace: Namespace,
        command: list[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._namespace = namespace
        self._environment = {**os.environ, **(environment or {})}
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        """Once it is stopped."""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = self._namespace.start(self._command, output=log, env=self._environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_seconds: float = 20) -> int:
        """Sends the signal, and returns the exit status; what was stopped before stays so."""
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self.status = self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.status = self._process.wait()
                raise
            finally:
                self._process = None
        assert self.status is not None
        return self.status

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _await(self, what: str, *, timeout_seconds: float = 15) -> None:
        """Until the log says it."""
        deadline = time.monotonic() + timeout_seconds
        while what not in self.said():
            if not self.running() or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start: {self.said()[-1000:]}")
            time.sleep(0.02)


class Watch(Process):
    start_seconds = 15.0
    """How long it may take, on a busy machine."""
    answer_seconds = 5.0
    """How long a scrape may take."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        *options: str,
        interface: str = INTERFACE,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (PROGRAM,),
    ) -> None:
        """`program`: the first words of the command."""
        self.records_file = folder / "records.jsonl"
        listen = f"{LISTEN[0]}:{LISTEN[1]}"
        super().__init__(
            namespace,
            [
                *program,
                *("watch", "--interface", interface, "--listen", listen),
                *("--records", str(self.records_file), *options),
            ],
            folder / "watch.log",
            environment,
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        super().__enter__()
        deadline = time.monotonic() + self.start_seconds
        while True:
            try:
                if self.sample_sum("smtp_monitor_capture_up") == 1:
                    return self
            except OSError:
                pass
            if not self.running() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"watch did not start: {self.said()[-2000:]}")
            time.sleep(0.05)

    def metrics(self) -> str:
        url = f"http://{LISTEN[0]}:{LISTEN[1]}/metrics"
        return fetch(self._namespace, url, timeout_seconds=self.answer_seconds)

    def sample_sum(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name that bear these labels, as of now."""
        return sample_sum(self.metrics(), name, **labels)

    def await_silence(self, *, timeout_seconds: float = 15) -> None:
        """Until no session is open any more, and no record of a closed one has come for a while."""
        deadline = time.monotonic() + timeout_seconds
        quiet_since, counted = time.monotonic(), -1.0
        while time.monotonic() < min(deadline, quiet_since + _QUIET_SECONDS):
            metrics = self.metrics()
            seen = sample_sum(metrics, "smtp_sessions_total")
            if seen != counted or sample_sum(metrics, "smtp_sessions_open") > 0:
                quiet_since, counted = time.monotonic(), seen
            time.sleep(0.1)

    def records(self) -> list[dict[str, Any]]:
        return read_records(self.records_file.read_text())


class Tcpdump(Process):
    def __init__(self, namespace: Namespace, file: Path) -> None:
        self.file = file
        super().__init__(
            namespace,
            ["tcpdump", "-i", INTERFACE, "-U", "-B", "65536", "-Z", "root", "-w", file, "tcp"],
            file.with_suffix(".log"),
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self._await("listening on")
        return self

    def stop(self, number: signal.Signals = signal.SIGINT, *, timeout_seconds: float = 20) -> int:
        if self.running():
            time.sleep(_TCPDUMP_WAIT_SECONDS)
        return super().stop(number, timeout_seconds=timeout_seconds)


def fetch(namespace: Namespace, url: str, *, timeout_seconds: float = 5) -> str:
    """An HTTP answer, asked for inside the namespace. Raises OSError."""

    def get() -> str:
        with urlopen(url, timeout=timeout_seconds) as answer:
            text: str = answer.read().decode()
            return text

    with namespace.threads(1) as thread:
        return thread.submit(get).result()


def sample_sum(exposition: str, name: str, **labels: str) -> float:
    """The sum of all samples of that name that bear these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def read_records(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]
