"""The server of ssl_server.py, as a process in a namespace."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.lab import ssl_server
from tests.lab.certificates import make_certificate
from tests.lab.network import Namespace, server_address
from tests.lab.server import MailServer
from tests.lab.truth import SessionTruth

ADDRESS: Final = server_address(24)


class PythonServer(MailServer):
    name = "python"

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        *,
        address: str = ADDRESS,
        before: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`before`: what stands before its command, as `unshare ...`."""
        super().__init__(namespace, folder)
        self.log = folder / "log"
        self.address = address
        self.listeners = frozenset(
            (self.address, port) for port in (ssl_server.STARTTLS_PORT, ssl_server.TLS_PORT)
        )
        self._before, self._environment = before, environment or {}

    def _launch(self) -> subprocess.Popen[bytes]:
        made = make_certificate(self.folder)
        what: list[str | Path] = [self.address, made.certificate, made.key]
        with self.log.open("ab") as log:
            return self.namespace.start(
                [*self._before, sys.executable, ssl_server.__file__, *what],
                output=log,
                env={**os.environ, **self._environment},
            )

    def sessions(self) -> list[SessionTruth]:
        """It keeps no account of them."""
        return []
