"""`smtp-horizon watch` in a flood of scrapes: whether mail is still recorded, and a good client answered.

Six clients on the watched host send complete requests as fast as they can, three that read the answers and
three that hang up at once, while smtp-source sends mail as fast as it goes; and a good client scrapes every
second. Without a flood, with one in clear, over TLS, and with right and wrong passwords.
"""

import base64
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final

import bcrypt
from rich.console import Console

from monitor.sessions.record import Envelope
from tests.bench import scrape_client, traffic
from tests.bench.figures import Spread, microseconds, milliseconds, print_table, whole
from tests.bench.goals import Goal
from tests.bench.mail_client import any_certificate
from tests.bench.watched import EbpfWatch, count_right, taken_seconds
from tests.lab.network import Namespace, Network
from tests.lab.packages import ensure
from tests.lab.watch import LISTEN, sample_sum
from tests.monitor.metrics.web.authority import make_authority

CLIENTS: Final = ("reads", "hangs-up") * 3
EVERY_SECONDS: Final = 1.0  # the shortest pace at which Prometheus is asked to scrape, in practice
TIMEOUT_SECONDS: Final = 10.0  # Prometheus' own
_USER, _PASSWORD = "prometheus", "right"
_COST: Final = 10  # htpasswd's and exporter-toolkit's usual one


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    is_flooded: bool = True
    is_tls: bool = False
    has_passwords: bool = False

    def credentials(self) -> tuple[str, ...]:
        """Of the flood: a right one, and three that are wrong, each of them new."""
        if not self.has_passwords:
            return ()
        return (f"{_USER}:{_PASSWORD}", f"{_USER}:wrong *", "nobody:wrong *", "user *:wrong")


CASES: Final = (
    Case("no flood", is_flooded=False),
    Case("in clear"),
    Case("TLS", is_tls=True),
    Case("TLS and passwords", is_tls=True, has_passwords=True),
)


@dataclass(slots=True)
class Scrapes:
    """Of the good client."""

    seconds: list[float] = field(default_factory=list)
    """Those that were answered."""
    unanswered: int = 0
    lag_seconds: list[float] = field(default_factory=lambda: [0.0])
    """How far `watch` was behind the wire, as they say."""


@dataclass(frozen=True, slots=True)
class Measured:
    case: Case
    sessions: int
    records: int
    right: int
    drops: int
    elapsed_seconds: float
    """From the first mail to the last."""
    watch_seconds: float
    """Processor time of the process that captures, since it began to."""
    flood_seconds: float
    flood_sent: int
    flood_answered: int
    scrapes: Scrapes


class ScrapedWatch(EbpfWatch):
    def __init__(self, namespace: Namespace, folder: Path, case: Case) -> None:
        self._case = case
        options = []
        if case.is_tls or case.has_passwords:
            options = ["--web-config", str(_web_config(folder, case))]
        super().__init__(namespace, folder, *options)

    def metrics(self) -> str:
        with self._namespace.threads(1) as thread:
            return thread.submit(scrape, self._case).result()


def scrape(case: Case) -> str:
    """As the good client does. Raises OSError."""
    scheme = "https" if case.is_tls else "http"
    request = urllib.request.Request(f"{scheme}://{LISTEN[0]}:{LISTEN[1]}/metrics")
    if case.has_passwords:
        known = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {known}")
    context: ssl.SSLContext | None = any_certificate() if case.is_tls else None
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:
        text: str = answer.read().decode()
    return text


def measure(case: Case, sessions: int) -> Measured:
    """Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    with (
        Network(addresses=1, on_disk=True) as network,
        traffic.smtp_sink(network),
        ScrapedWatch(network.server, network.folder, case) as watch,
    ):
        scrapes = Scrapes()
        began, before = time.monotonic(), taken_seconds(watch.process)
        with _flood(network.server, case) as said, _good_client(network.server, case, scrapes):
            started = time.monotonic()
            traffic.smtp_source(network, sessions)
            elapsed = time.monotonic() - started
            watch.await_records(sessions, timeout_seconds=30)
        watch_seconds = taken_seconds(watch.process) - before
        flood_seconds = time.monotonic() - began
        drops = watch.end()
        records = watch.written()
    right = count_right(records, Envelope.VISIBLE)
    told = [json.loads(line) for line in said]
    sent, answered = (sum(one[what] for one in told) for what in ("sent", "answered"))
    return Measured(
        case,
        sessions,
        len(records),
        right,
        drops,
        elapsed,
        watch_seconds,
        flood_seconds,
        sent,
        answered,
        scrapes,
    )


@contextmanager
def _flood(host: Namespace, case: Case) -> Iterator[list[str]]:
    """Of what the clients said at their end."""
    channel = "tls" if case.is_tls else "clear"
    command = [sys.executable, "-m", scrape_client.__name__, LISTEN[0], str(LISTEN[1])]
    clients = [
        host.start([*command, manners, channel, *case.credentials()], stdout=subprocess.PIPE)
        for manners in (CLIENTS if case.is_flooded else ())
    ]
    said: list[str] = []
    try:
        yield said
    finally:
        for client in clients:
            client.send_signal(signal.SIGTERM)
        said += [client.communicate()[0].decode() for client in clients]


@contextmanager
def _good_client(host: Namespace, case: Case, scrapes: Scrapes) -> Iterator[None]:
    is_over = Event()

    def run() -> None:
        host.enter_thread()
        while not is_over.is_set():
            begin = time.monotonic()
            text = ""
            with suppress(OSError):
                text = scrape(case)
            taken = time.monotonic() - begin
            if "smtp_sessions_total" in text:
                scrapes.seconds.append(taken)
                scrapes.lag_seconds.append(sample_sum(text, "smtp_monitor_lag_seconds"))
            else:
                scrapes.unanswered += 1
            is_over.wait(max(0.0, EVERY_SECONDS - taken))

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _web_config(folder: Path, case: Case) -> Path:
    lines = []
    if case.is_tls:
        make_authority(folder, "web").issue("server", f"IP:{LISTEN[0]}", "serverAuth")
        lines += ["tls_server_config: {cert_file: server.pem, key_file: server.key}"]
    if case.has_passwords:
        hashed = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(_COST)).decode()
        lines += [f"basic_auth_users: {{{_USER}: {hashed}}}"]
    file = folder / "web.yml"
    file.write_text("\n".join(lines))
    return file


def goals(measured: Measured) -> list[Goal]:
    name = f"watch, flood of scrapes, {measured.case.name}"
    scrapes = measured.scrapes
    asked = len(scrapes.seconds) + scrapes.unanswered
    fault = f"{measured.drops:,} packets dropped" if measured.drops else ""
    recorded, answered = (
        Spread.of([measured.right / measured.sessions]),
        Spread.of([len(scrapes.seconds) / asked]),
    )
    return [
        Goal(f"{name}: sessions recorded / sent", 1, recorded, is_least=True, is_for_each=True, fault=fault),
        Goal(f"{name}: scrapes answered / asked", 1, answered, is_least=True, is_for_each=True),
    ]


def show(console: Console, several: list[Measured]) -> None:
    print_table(
        console,
        f"watch, flood of scrapes by {len(CLIENTS)} clients, and {several[0].sessions:,} sessions flat out",
        ["flood", "requests/s", "answered/s", "sessions/s", "watch, µs a session", "records", "right",
         "dropped", "behind, ms", "scrapes", "not answered", "median, ms", "slowest, ms"],
        [_row(measured) for measured in several],
    )  # fmt: skip


def _row(measured: Measured) -> list[str]:
    seconds = measured.scrapes.seconds or [float("nan")]
    return [
        measured.case.name,
        whole(measured.flood_sent / measured.flood_seconds),
        whole(measured.flood_answered / measured.flood_seconds),
        whole(measured.sessions / measured.elapsed_seconds),
        microseconds(measured.watch_seconds / measured.sessions),
        whole(measured.records),
        whole(measured.right),
        whole(measured.drops),
        milliseconds(max(measured.scrapes.lag_seconds)),
        whole(len(seconds)),
        whole(measured.scrapes.unanswered),
        milliseconds(Spread.of(seconds).median),
        milliseconds(max(seconds)),
    ]
