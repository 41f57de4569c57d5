"""The demonstration for a machine that has no mail server of its own: `python -m tests.lab.demo`, as root.

A real Postfix and its clients live in network namespaces. `smtp-horizon watch` looks on from the server's
side through eBPF, and what it counts is shown as it grows, until Ctrl-C. Its metrics can be scraped from the
host. Nothing is left behind.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from monitor.cli.listeners import is_taken, listener_on
from monitor.metrics.tally import Tally
from monitor.peers import Peers
from monitor.report.findings import Observed, Sight, funnel, sight
from monitor.report.layout import percent
from monitor.report.table import print_report
from monitor.sessions.record import SessionRecord
from tests.lab import postfix, scenario
from tests.lab.doorway import Doorway
from tests.lab.exposition import Scrape, read_exposition
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.postfix import Postfix
from tests.lab.raw_client import ConversationEndedError, RawClient
from tests.lab.scenario import Conversation
from tests.lab.truth import Endpoint
from tests.lab.watch import LISTEN, Watch

SESSIONS_MAX: Final = 2_000  # enough to see it grow for two minutes; then the machine is left in peace
SESSIONS_PER_SECOND: Final = 15
CLIENTS: Final = 6  # threads: sessions overlap, and two cores stay free for others
REFRESH_SECONDS: Final = 0.5
LINE_SECONDS: Final = 5.0  # where the output is no terminal
PORTS: Final = (25, 465, 587)
BAR_WIDTH: Final = 60

_FACES: Final = (postfix.MX, postfix.SUBMISSION, postfix.SMTPS, postfix.NO_TLS_FACE, postfix.BROKEN_KEY)
_MX: Final = (server_address(1), 25)
_MX6: Final = (server_address(1, 6), 25)
_SMTPS: Final = (server_address(1), 465)
_SUBMISSION: Final = (server_address(1), 587)
_NO_TLS: Final = (server_address(2), 25)
_BROKEN_KEY: Final = (server_address(3), 25)

# Of a hundred sessions, how many are of which kind: invented, but not unlike an inbound server's day.
_MIX: Final[list[tuple[int, Conversation, Endpoint]]] = [
    (42, scenario.starttls, _MX),
    (8, partial(scenario.starttls, version=scenario.TLS_1_2), _MX),
    (8, scenario.starttls, _MX6),
    (6, partial(scenario.starttls, login=True), _SUBMISSION),
    (6, partial(scenario.implicit_tls, login=True), _SMTPS),
    (10, scenario.plain, _MX),
    (4, scenario.some_refused, _MX),
    (4, scenario.starttls_refused, _NO_TLS),
    (4, scenario.starttls_refused, _BROKEN_KEY),
    (2, scenario.starttls_abandoned, _MX),
    (2, scenario.starttls_failing, _MX),
    (2, partial(scenario.leave_after, step="banner", how=RawClient.close), _MX),
    (2, partial(scenario.leave_after, step="recipient", how=RawClient.abort), _MX),
]

_INTRODUCTION: Final = """\
A real Postfix and its clients talk to each other in network namespaces of their own.
smtp-horizon looks on through eBPF. Metrics: http://{host}:{port}/metrics
"""


class Traffic:
    """Drives sessions at a steady pace, in threads, until it has driven all or is told to stop."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive)

    @property
    def is_over(self) -> bool:
        """All sessions have been driven."""
        return not self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _drive(self) -> None:
        plan = [(conversation, server) for count, conversation, server in _MIX for _ in range(count)]
        random.Random(len(plan)).shuffle(plan)
        with self._network.client.threads(CLIENTS) as threads:
            for number, (conversation, server) in zip(range(SESSIONS_MAX), cycle(plan), strict=False):
                if self._stop.wait(1 / SESSIONS_PER_SECOND):
                    break
                family = 6 if ":" in server[0] else 4
                client = client_address(1 + number % 60, family)
                threads.submit(have, conversation, server, client)


def have(conversation: Conversation, server: Endpoint, client: str) -> None:
    # On a busy machine one may fail; what watch saw of the session counts all the same.
    with contextlib.suppress(OSError, ConversationEndedError):
        conversation(server, client)


def where_to_serve() -> Endpoint:
    """Where this host gets the metrics. The service of this machine goes on, if it has the usual port."""
    if not is_taken(*LISTEN):
        return LISTEN
    who = listener_on(LISTEN[1]) or "another program"
    print(
        f"{LISTEN[0]}:{LISTEN[1]} is in use by {who}, which goes on: these metrics are at a free port.",
        flush=True,
    )
    return LISTEN[0], 0


@contextmanager
def stage(console: Console) -> Iterator[tuple[Watch, Traffic, Endpoint]]:
    """Everything started, in order; and everything ended, in the reverse order. And where metrics are."""
    with ExitStack() as running:
        with console.status("Starting a mail server to watch"):
            ensure(demonstration=True)
            network = running.enter_context(Network())
            doorway = running.enter_context(Doorway(network.server, LISTEN, where_to_serve()))
            running.enter_context(Postfix(network.server, network.folder / "postfix", _FACES))
            watch = running.enter_context(Watch(network.server, network.folder))
        traffic = Traffic(network)
        running.callback(traffic.stop)
        traffic.start()
        yield watch, traffic, doorway.outside


def demonstrate(console: Console) -> int:
    """Until Ctrl-C; returns the exit status. Raises LabUnavailableError, OSError, RuntimeError."""
    with stage(console) as (watch, traffic, (host, port)):
        console.print(_INTRODUCTION.format(host=host, port=port), highlight=False, soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            show_growing(console, watch, traffic)
        traffic.stop()
        last = read_exposition(watch.metrics())
        status = watch.stop()
        observed = observed_of(watch.records_file, last)
    console.print()
    print_report(console, observed)
    return status


def observed_of(records_file: Path, last: Scrape) -> Observed:
    """The records hold what the last scrape could not: sessions that watch ended when it was told to stop."""
    tally, peers = Tally(PORTS), Peers()
    with records_file.open("rb") as lines:
        for line in lines:
            record = msgspec.json.decode(line, type=SessionRecord)
            tally.count(record)
            peers.record(record)
    return Observed(
        counts=tally.snapshot(),
        ports=tally.ports,
        packets=last.packets,
        handshakes_incomplete=last.handshakes_incomplete,
        peers=peers,
        simulation=None,
    )


def show_growing(console: Console, watch: Watch, traffic: Traffic) -> None:
    """On a terminal one block that is drawn anew, elsewhere a line now and then; until Ctrl-C."""
    while watch.running() and not console.is_terminal:
        time.sleep(LINE_SECONDS)
        console.print(one_line(read_exposition(watch.metrics())), highlight=False, soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while watch.running():
            live.update(block(read_exposition(watch.metrics()), is_over=traffic.is_over), refresh=True)
            time.sleep(REFRESH_SECONDS)
    raise RuntimeError(f"watch ended: {watch.said()[-1000:]}")


def one_line(scrape: Scrape) -> str:
    seen = sight(scrape.counts)
    return (
        f"{seen.sessions:,} sessions; beyond the reach of a stream watcher: "
        f"{percent(seen.hidden, seen.with_mail)} of the {seen.with_mail:,} that carried mail"
    )


def block(scrape: Scrape, *, is_over: bool) -> RenderableType:
    seen, steps = sight(scrape.counts), funnel(scrape.counts)
    answer = Text.assemble(
        (percent(seen.hidden, seen.with_mail), "bold green"),
        f"  of {seen.with_mail:,} sessions with mail are beyond the reach of a stream watcher",
    )
    numbers = Table.grid(padding=(0, 2))
    numbers.add_column()
    numbers.add_column(justify="right")
    numbers.add_column(style="dim")
    refused, broken = steps.fell_out.get("refused", 0), steps.requested - steps.established
    for name, count, meaning in (
        ("hidden", seen.hidden, "encrypted before any mail"),
        ("visible", seen.visible + seen.partial, "anybody on the way can read who writes to whom"),
        ("no mail", seen.none, "scans, and sessions that broke off"),
        (
            "STARTTLS",
            steps.established,
            f"established; {refused} refused, {broken - refused} failed or abandoned",
        ),
    ):
        numbers.add_row(name, f"{count:,}", meaning)
    rest = "all sessions driven" if is_over else "more sessions come"
    foot = Text(f"{scrape.open_sessions} open now; {rest}; Ctrl-C ends", style="dim")
    return Group(answer, bar(seen), Text(), numbers, Text(), foot)


def bar(seen: Sight) -> Text:
    hidden = seen.hidden * BAR_WIDTH // seen.with_mail if seen.with_mail else 0
    return Text.assemble(("█" * hidden, "green"), ("░" * (BAR_WIDTH - hidden), "red"))


def main() -> int:
    console = Console()
    if os.geteuid() != 0:
        print("the demonstration needs root, for network namespaces and to capture", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return demonstrate(console)
    except KeyboardInterrupt:
        return 0  # before there was anything to show
    except (LabUnavailableError, OSError, RuntimeError) as error:
        print(f"the demonstration can't run: {error}", file=sys.stderr)
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
