"""A server on the loopback interface that says what a test wants, a client that does, and the packets between
the two: for `watch` while they pass, and for `read` afterwards."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_QUIET_SECONDS: Final = 0.3
# tcpdump shows a packet some time after it has passed.
_TCPDUMP_WAIT_SECONDS: Final = 1.5


class Server:
    """Answers each line with the reply of its verb; to AUTH and what follows it as a challenge wants."""

    def __init__(self, banner: bytes = b"220 mx.example ESMTP", text: bytes = b"ok") -> None:
        self.banner = banner
        self.text = text
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: Final[int] = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        challenges = 0
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            connection.sendall(self.banner + b"\r\n")
            for line in lines:
                verb = line[:8].upper().split(b" ")[0].split(b"\t")[0].strip()
                if challenges:
                    challenges -= 1
                    connection.sendall(b"334 UGFzc3dvcmQ6\r\n" if challenges else b"235 welcome\r\n")
                elif verb == b"EHLO":
                    connection.sendall(
                        b"250-mx.example\r\n250-"
                        + self.text
                        + b"\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
                    )
                elif verb == b"AUTH":
                    has_response = len(line.split()) > 2
                    challenges = 0 if has_response else 2 if b"LOGIN" in line.upper() else 1
                    connection.sendall(
                        b"334 VXNlcm5hbWU6\r\n" if challenges else b"535 " + self.text + b"\r\n"
                    )
                elif verb == b"STARTTLS":
                    connection.sendall(b"220 go ahead\r\n")
                elif verb == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                elif verb == b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                else:
                    connection.sendall(b"250 " + self.text + b"\r\n")


def converse(port: int, pieces: Sequence[bytes]) -> None:
    """Sends each piece when the answer to the one before has come, or none comes; and closes."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _hear(connection)
        for piece in pieces:
            with contextlib.suppress(OSError):
                connection.sendall(piece)
            _hear(connection)


def _hear(connection: socket.socket) -> None:
    connection.settimeout(_QUIET_SECONDS)
    with contextlib.suppress(OSError):
        connection.recv(65_536)


class Tcpdump:
    """Of one port on the loopback interface, into a file; a context manager."""

    def __init__(self, port: int, file: Path) -> None:
        self._command = ["tcpdump", "-i", "lo", "-U", "-B", "65536", "-Z", "root", "-w", str(file)]
        self._command += ["tcp", "port", str(port)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        while b"listening on" not in self._process.stderr.readline():
            assert self._process.poll() is None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(_TCPDUMP_WAIT_SECONDS)
        self._process.terminate()
        self._process.communicate()


def on_a_terminal(command: Sequence[str]) -> bytes:
    """What the program writes to both its outputs, where they are a terminal."""
    ours, its = os.openpty()
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm-256color"}
    )
    os.close(its)
    output = bytearray()
    with contextlib.suppress(OSError):  # EIO: it has ended
        while piece := os.read(ours, 65_536):
            output += piece
    os.close(ours)
    assert process.wait() == 0
    return bytes(output)
