"""A metrics server with a web configuration, and the real curl to ask it."""

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from monitor.cli.serving import Serving, WebFiles
from monitor.metrics.web.config import load
from tests.monitor.metrics.conftest import StartServing
from tests.monitor.metrics.web.authority import Authority, make_authority

CERTIFIED: Final = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"


@dataclass(frozen=True, slots=True)
class Curled:
    curl_status: int
    status: int
    """0: no HTTP answer came."""
    headers: dict[str, str]
    """Names in lower case."""
    body: str


@dataclass(frozen=True, slots=True)
class Served:
    server: Serving
    file: Path
    folder: Path

    def curl(self, *options: str, path: str = "/metrics") -> Curled:
        url = self.server.url.removesuffix("/metrics") + path
        done = subprocess.run(
            ["curl", "--silent", "--include", "--max-time", "20", "--cacert", "authority.pem", *options, url],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        head, _, body = done.stdout.partition("\n\n")
        status = re.match(r"HTTP/1\.1 (\d+)", head)
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        return Curled(
            done.returncode,
            int(status[1]) if status else 0,
            {name.lower(): value for name, value in headers.items()},
            body,
        )

    def reload(self, text: str, is_in_force: Callable[[], bool]) -> None:
        """Returns when it is."""
        self.file.write_text(text)
        contents = {}

        def read(path: Path) -> bytes:
            contents[str(path)] = content = path.read_bytes()
            return content

        load(str(self.file), read)
        self.server.replace(WebFiles(str(self.file), contents))
        deadline = time.monotonic() + 20
        while not is_in_force():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Beside it a certificate for the server: server.pem and server.key."""
    made = make_authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server", "DNS:localhost,IP:127.0.0.1", "serverAuth")
    return made


@pytest.fixture
def serve(authority: Authority, start_serving: StartServing) -> Callable[[str], Served]:
    """A web configuration's text -> a server that has it. Files are in the authority's folder."""

    def start(text: str) -> Served:
        file = authority.folder / "web.yml"
        file.write_text(text)
        return Served(start_serving(load(str(file))), file, authority.folder)

    return start
