"""A real Prometheus that scrapes watch, in the same namespace."""

import json
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from tests.lab.network import Namespace
from tests.lab.packages import SERVERS_ROOT
from tests.lab.watch import LISTEN, Process, fetch

# Run where they lie: they need nothing of their root but the C library, which the machine has, too.
PROMETHEUS: Final = SERVERS_ROOT / "usr/bin/prometheus"
PROMTOOL: Final = SERVERS_ROOT / "usr/bin/promtool"
WHERE_FROM: Final = "Prometheus and its promtool come with make lab, as root"

_LISTEN: Final = "127.0.0.1:9090"
_CONFIGURATION: Final = """\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: smtp-horizon
    static_configs:
      - targets: ["{host}:{port}"]
"""


class Prometheus(Process):
    def __init__(self, namespace: Namespace, folder: Path) -> None:
        configuration = folder / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(host=LISTEN[0], port=LISTEN[1]))
        super().__init__(
            namespace,
            [
                *(PROMETHEUS, f"--config.file={configuration}"),
                *(f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={_LISTEN}"),
            ],
            folder / "prometheus.log",
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self._await("Server is ready")
        return self

    def query(self, expression: str) -> float | None:
        """The value of an expression with one result; None where it has none yet."""
        answer = json.loads(
            fetch(self._namespace, f"http://{_LISTEN}/api/v1/query?query={quote(expression)}")
        )
        results = answer["data"]["result"]
        return float(results[0]["value"][1]) if results else None

    def await_value(self, expression: str, value: float, *, timeout_seconds: float = 10) -> float | None:
        """What the expression is worth once it is that value, or when time is up."""
        deadline = time.monotonic() + timeout_seconds
        while (seen := self.query(expression)) != value and time.monotonic() < deadline:
            time.sleep(0.2)
        return seen
