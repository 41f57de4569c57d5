"""tcpserver (ucspi-tcp): takes connections and runs a program for each, which has the connection as its
descriptors 0 and 1. https://cr.yp.to/ucspi-tcp/tcpserver.html
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.certificates import SERVER_NAME
from tests.lab.network import Namespace
from tests.lab.packages import SERVERS_ROOT
from tests.lab.truth import Endpoint
from tests.lab.unpacked import with_mounts

PROGRAM: Final = Path("/usr/bin/tcpserver")
TCPRULES: Final = Path("/usr/bin/tcprules")

_CONCURRENT: Final = 100
# Each connection's descriptor 2 gets a file of its own: what several programs write to one would mix.
_LOGGED: Final = 'exec 2>"$0/$TCPREMOTEIP-$TCPREMOTEPORT"; exec "$@"'


class TcpServer:
    """Listens on one address; a context manager."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        listener: Endpoint,
        command: Sequence[str | Path],
        *,
        root: Path | None = None,
        rules: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            folder: for logs; made here.
            root: the folder of the unpacked program that is to be run, see `unpacked.py`.
            rules: made by `make_rules`.
        """
        self._namespace = namespace
        self._listener = listener
        self._sessions = folder / "sessions"
        self._log = folder / "log"
        # Says what it does; asks nobody for names.
        own: list[str | Path] = [PROGRAM, "-v", "-R", "-H", "-l", SERVER_NAME, "-c", str(_CONCURRENT)]
        if rules is not None:
            own += ["-x", rules]
        own += [listener[0], str(listener[1])]
        self._command: list[str | Path] = [*own, "sh", "-c", _LOGGED, self._sessions, *command]
        if root is not None:
            self._command = with_mounts(root, self._command, SERVERS_ROOT)
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        self._command = ["env", *variables, *self._command]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._sessions.mkdir(parents=True)
        self._sessions.chmod(0o777)
        with self._log.open("wb") as log:
            self._process = self._namespace.start(self._command, output=log)
        self._namespace.await_listeners([self._listener])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(5)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def await_silence(self, *, timeout_seconds: float = 15) -> None:
        """Until the program of every connection has ended."""
        deadline = time.monotonic() + timeout_seconds
        while not self._last_status().startswith("0/"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._listener}: programs still run: {self._last_status()}")
            time.sleep(0.05)

    def _last_status(self) -> str:
        return self.said().rpartition("tcpserver: status: ")[2]

    def log_of(self, client: Endpoint) -> Path:
        """What the program of this client's connection wrote to its descriptor 2."""
        return self._sessions / f"{client[0]}-{client[1]}"


def make_rules(file: Path, *rules: str) -> Path:
    """Compiles rules like `10.77.1.2:deny` for `TcpServer`."""
    subprocess.run(
        [TCPRULES, file, file.with_suffix(".new")],
        input="".join(f"{rule}\n" for rule in rules),
        text=True,
        check=True,
        capture_output=True,
    )
    return file
