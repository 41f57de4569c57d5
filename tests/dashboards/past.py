"""A Prometheus that serves samples of the past, and what rules would have recorded of them."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import ProxyHandler, build_opener

import promql_parser
import yaml

from tests.dashboards.asking import ask
from tests.dashboards.openmetrics import Series, write
from tests.lab.prometheus import PROMETHEUS, PROMTOOL

GENERATED_RULES: Final = Path(__file__).parents[2] / "dashboards" / "generated" / "rules"

_READY_SECONDS: Final = 60
# One block for all. With promtool's two hours it reads the whole file once for each two hours in it.
_BLOCK: Final = "8760h"

Rule = Mapping[str, Any]


class Past:
    """A context manager; the data goes with the folder."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._port = port or _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def take(self, series: Series) -> None:
        """Adds these samples, and (re)starts the server."""
        file = self._folder / "samples.om"
        with file.open("w", encoding="utf-8") as output:
            write(series, output)
        made = subprocess.run(
            [
                *(PROMTOOL, "tsdb", "create-blocks-from", "openmetrics"),
                *(f"--max-block-duration={_BLOCK}", file, self._data),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        file.unlink()
        if made.returncode != 0:
            raise RuntimeError(f"promtool: {made.stderr or made.stdout}")
        self._stop()
        self._start()

    def evaluate(self, files: Iterable[Path], begin: int, end: int, step: int) -> None:
        """Adds what the rules of these files would have recorded, evaluated each `step` seconds, and ALERTS
        of their alerts."""
        for level in _levels(_rules(files)):
            series = Series()
            for rule in level:
                for result in self.ask("query_range", query=rule["expr"], start=begin, end=end, step=step)[
                    "result"
                ]:
                    if "record" in rule:
                        _add_recorded(series, rule, result)
                    else:
                        _add_alert(series, rule, result, step)
            if series.families:
                self.take(series)

    def ask(self, path: str, **parameters: Any) -> Any:
        """See asking.Ask."""
        return ask(self.url, path, **parameters)

    def wait(self) -> None:
        assert self._server is not None
        self._server.wait()

    def _start(self) -> None:
        configuration = self._folder / "prometheus.yml"
        configuration.write_text("global: {}\n")
        log = self._folder / "prometheus.log"
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                [
                    *(PROMETHEUS, f"--config.file={configuration}", f"--storage.tsdb.path={self._data}"),
                    # It drops what is old, unless it is told to keep it.
                    *("--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{self._port}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError(f"Prometheus did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), _open(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def _stop(self) -> None:
        if self._server is None:
            return
        os.killpg(self._server.pid, signal.SIGTERM)
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._server = None


_open = build_opener(ProxyHandler({})).open


def is_available() -> bool:
    return PROMETHEUS.exists()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _rules(files: Iterable[Path]) -> list[Rule]:
    return [
        rule
        for file in files
        for group in yaml.safe_load(file.read_text()).get("groups", [])
        for rule in group["rules"]
    ]


def _levels(rules: list[Rule]) -> list[list[Rule]]:
    """Rules that need no other one, then those that need only these, and so on; alerts last."""
    recorded = {rule["record"] for rule in rules if "record" in rule}
    levels: list[list[Rule]] = []
    left = [rule for rule in rules if "record" in rule]
    while left:
        level = [rule for rule in left if not _names(rule["expr"]) & recorded]
        if not level:
            raise ValueError(f"rules that need each other: {sorted(recorded)}")
        levels.append(level)
        left = [rule for rule in left if rule not in level]
        recorded = {rule["record"] for rule in left}
    alerts = [rule for rule in rules if "alert" in rule]
    return [*levels, alerts] if alerts else levels


def _names(expression: str) -> set[str]:
    names: set[str] = set()

    def note(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), note)
    return names


def _add_recorded(series: Series, rule: Rule, result: Mapping[str, Any]) -> None:
    labels = {key: value for key, value in result["metric"].items() if key != "__name__"}
    labels |= rule.get("labels", {})
    for at, value in result["values"]:
        if not math.isnan(float(value)):
            series.add_sample(rule["record"], labels, int(at), float(value))


def _add_alert(series: Series, rule: Rule, result: Mapping[str, Any], step: int) -> None:
    """As Prometheus does: pending until it has held for `for`, then firing."""
    labels = {key: value for key, value in result["metric"].items() if key != "__name__"}
    labels |= rule.get("labels", {}) | {"alertname": rule["alert"]}
    needed = promql_parser.parse_duration(rule["for"]).total_seconds() if "for" in rule else 0
    since, before = 0, -math.inf
    for at, _ in result["values"]:
        if at - before > step:
            since = at
        before = at
        state = "firing" if at - since >= needed else "pending"
        series.add_sample("ALERTS", {**labels, "alertstate": state}, int(at), 1)
