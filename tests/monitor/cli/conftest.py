"""The real program as a daemon, on the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class SmtpServer:
    """Answers every line with 250, but QUIT with 221."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 mx.example ESMTP\r\n")
            for line in lines:
                is_quit = line.upper().startswith(b"QUIT")
                connection.sendall(b"221 bye\r\n" if is_quit else b"250 ok\r\n")
                if is_quit:
                    return

    def begin_session(self) -> socket.socket:
        """A client which has said MAIL, and goes on when it likes."""
        client = socket.create_connection(("127.0.0.1", self.port))
        for line in (b"", b"EHLO client.example\r\n", b"MAIL FROM:<a@client.example>\r\n"):
            client.sendall(line)
            client.recv(100)
        return client

    def whole_session(self) -> None:
        with self.begin_session() as client:
            client.sendall(b"QUIT\r\n")
            while client.recv(100):
                pass

    def mail(self) -> None:
        """A session with one recipient."""
        with self.begin_session() as client:
            for line in (b"RCPT TO:<b@example.test>\r\n", b"RSET\r\n", b"QUIT\r\n"):
                client.sendall(line)
                client.recv(100)

    def close(self) -> None:
        self._listener.close()


class Watch:
    """A running `smtp-horizon watch`."""

    def __init__(self, folder: Path, *arguments: str, program: Sequence[str | Path] = (PROGRAM,)) -> None:
        self._log = folder / "log"
        self._output = folder / "output"
        with self._log.open("wb") as log, self._output.open("wb") as output:
            options = ["--interface", "lo", "--listen", "127.0.0.1:0", *arguments]
            command = [*program, "watch", *options]
            self.process = subprocess.Popen(command, stdout=output, stderr=log)
        wait_until(lambda: self.process.poll() is not None or "metrics are at" in self.log, 20)
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def url(self) -> str:
        return next(word for word in self.log.split() if word.startswith("http://"))

    def samples(self) -> dict[str, float]:
        with urllib.request.urlopen(self.url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def total(self, name: str) -> float:
        return sum(value for sample, value in self.samples().items() if sample.partition("{")[0] == name)

    def child(self, name: str) -> int:
        """The process that it runs under this name."""
        (found,) = (
            child.pid for child in psutil.Process(self.process.pid).children() if child.name() == name
        )
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(10)


StartWatch = Callable[..., Watch]


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    yield server
    server.close()


@pytest.fixture
def start_watch(tmp_path: Path, smtp_server: SmtpServer) -> Iterator[StartWatch]:
    """`start_watch("--records", path)`: watches the port of `smtp_server`."""
    if os.geteuid() != 0:
        pytest.skip("capturing needs root")
    started: list[Watch] = []

    def start(*arguments: str, program: Sequence[str | Path] = (PROGRAM,)) -> Watch:
        watch = Watch(tmp_path, "--ports", str(smtp_server.port), *arguments, program=program)
        started.append(watch)
        return watch

    yield start
    for watch in started:
        if watch.process.poll() is None:
            watch.process.kill()
            watch.process.wait()


@pytest.fixture
def eventually() -> Callable[..., None]:
    return wait_until
