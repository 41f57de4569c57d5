"""What the three mail servers have in common."""

import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.network import Namespace
from tests.lab.truth import Endpoint, SessionTruth

# Recipients whose fate is fixed on every server; all others of MAIL_DOMAIN are accepted.
MAIL_DOMAIN: Final = "example.test"
UNKNOWN_RECIPIENT: Final = f"nosuch@{MAIL_DOMAIN}"  # 550
BUSY_RECIPIENT: Final = f"busy@{MAIL_DOMAIN}"  # 450


# Those that run now: their logs are shown with a test that failed.
running: Final[list["MailServer"]] = []


class MailServer(ABC):
    """A mail server in a namespace: a context manager, with its log as a witness afterwards."""

    name: str
    log: Path
    listeners: frozenset[Endpoint]
    start_seconds = 15.0
    """How long it may take, on a busy machine."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and returns when it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # What an earlier one has begun outlives it for a moment: Postfix' smtpd(8) listens, too.
        self.namespace.await_free(self.listeners)
        self._process = self._launch()
        running.append(self)
        try:
            self.namespace.await_listeners(self.listeners, timeout_seconds=self.start_seconds)
        except TimeoutError as error:
            raise self._failed(str(error)) from error
        if self._process.poll() is not None:
            raise self._failed("it has ended, and another listens there")

    def _failed(self, why: str) -> RuntimeError:
        self.stop()
        return RuntimeError(f"{self.name} did not start: {why}\n{self.last_said()}")

    def said(self) -> str:
        """Its log: nothing, while it only listens and has not said a word."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def last_said(self) -> str:
        """The end of its log."""
        return self.said()[-2000:]

    def stop(self) -> None:
        if self._process is None:
            return
        running.remove(self)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def settle(self, sessions: int, *, timeout_seconds: float = 10) -> list[SessionTruth]:
        """The log's sessions, once it has ended that many of them (or time is up: the log is what it is)."""
        deadline = time.monotonic() + timeout_seconds
        while len(seen := self.sessions()) < sessions and time.monotonic() < deadline:
            time.sleep(0.1)
        return seen

    @abstractmethod
    def sessions(self) -> list[SessionTruth]:
        """What its log says of each session that has ended."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...
