"""Every query of every board has an answer: in a Prometheus that scrapes a watch over real traffic, in one
whose watch has a tap, and in one that has seen two weeks."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dashboards.rules import tap
from dashboards.rules.rule import Alert
from monitor.metrics.families import TLS_TAP_ENABLED
from tests.capture_truth import CAPTURES
from tests.dashboards.asking import Ask, Unanswered, View, ask, unanswered
from tests.dashboards.backfill import backfill
from tests.dashboards.board_reader import Query, expand, load_boards, panel_queries, uid_of, variables_of
from tests.dashboards.linter import STAND_INS
from tests.dashboards.past import GENERATED_RULES, Past
from tests.dashboards.promql_nodes import selectors
from tests.dashboards.small_board import small_board
from tests.dashboards.vocabulary import Rule, load_rules
from tests.lab import scenario
from tests.lab.laboratory import laboratory
from tests.lab.network import Namespace, Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.prometheus import PROMTOOL, WHERE_FROM, Prometheus
from tests.lab.replay import as_ethernet, replay, silent_network
from tests.lab.server import BUSY_RECIPIENT
from tests.lab.watch import LISTEN, Watch
from tests.mmdb import write_mmdb
from tests.segments import capture_path

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root"),
    pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM),
]

NAMES: Final = sorted(path.name.partition(".")[0] for path in CAPTURES.glob("*.pcap*"))
PACKETS_PER_SECOND: Final = 10_000

BOARDS: Final = load_boards()
RULES: Final = load_rules()
RECORDED: Final = [rule for rule in RULES if not rule.is_alert]

PARSED_WITH: Final = STAND_INS | {
    variable["name"]: "" for board in BOARDS for variable in variables_of(board)
}

LONG_AGO: Final = timedelta(days=1)
"""No run of a test is that long."""

NOT_IN_A_MINUTE: Final[dict[tuple[str, str], str]] = {}
"""Board and place -> why a minute's traffic cannot answer it, beside those that look back."""

PAST_DAYS: Final = 15
"""A week, compared with the week before."""
PAST_END: Final = 1_795_435_200
PAST_STEP_SECONDS: Final = 900

# What the datasource of a Grafana makes of $__rate_interval unless told otherwise: four scrapes of 15 s.
RATE_INTERVAL: Final = "1m"

_CONFIGURATION: Final = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: smtp-horizon
    static_configs:
      - targets: ["{host}:{port}"]
"""
_PUT_OFF_AT: Final = ((server_address(1), 25), client_address(60))
_PUT_OFF: Final = (scenario.RECIPIENT, BUSY_RECIPIENT)
_PROMETHEUS_URL: Final = "http://127.0.0.1:9090"
_PATIENCE_SECONDS: Final = 20

Model = dict[str, Any]


class RulingPrometheus(Prometheus):
    """Evaluates our rules, and each second rather than each minute."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        rules = folder / "rules"
        rules.mkdir()
        for file in GENERATED_RULES.glob("*.yml"):
            content = yaml.safe_load(file.read_text())
            for group in content["groups"]:
                group["interval"] = "1s"
            (rules / file.name).write_text(yaml.safe_dump(content))
        configuration = _CONFIGURATION.format(rules=rules, host=LISTEN[0], port=LISTEN[1])
        (folder / "prometheus.yml").write_text(configuration)


@dataclass(frozen=True, slots=True)
class Answering:
    """A Prometheus, and what of it there is to see."""

    ask: Ask
    view: View

    def unanswered(self, board: Model) -> list[Unanswered]:
        return list(unanswered(board, self.ask, self.view))


@pytest.fixture(scope="module")
def now() -> Iterator[Answering]:
    """All captures were replayed before a watch, with all that it can count, while Prometheus scraped it."""
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with silent_network() as network:
        geoip = write_mmdb(
            network.folder / "countries.mmdb", {"10.77.1.0/25": {"country": {"iso_code": "DE"}}}
        )
        options = (
            *("--probe", "ebpf", "--local-network", "10.77.0.0/24", "--geoip", geoip),
            # Shorter than the retries in the capture of postgrey take.
            *("--simulate", "greylite", "--simulate", "postgrey", "--simulate-delay", "3"),
        )
        with (
            Watch(network.server, network.folder, *options) as watch,
            RulingPrometheus(network.server, network.folder) as prometheus,
            network.server.threads(1) as thread,
        ):
            assert prometheus.await_value("up", 1) == 1
            begin = int(time.time())
            for name in NAMES:
                frames = network.folder / f"{name}.pcap"
                as_ethernet(capture_path(name), frames)
                replay(network, frames, packets_per_second=PACKETS_PER_SECOND)
            await_rest(watch)
            counted = watch.sample_sum("smtp_sessions_total")
            assert prometheus.await_value("sum(smtp_sessions_total)", counted) == counted
            time.sleep(2)  # a rule, and a rule that needs it

            def asking(path: str, **parameters: Any) -> Any:
                return thread.submit(partial(ask, _PROMETHEUS_URL, path, **parameters)).result()

            yield Answering(asking, View(begin, int(time.time()), 1, RATE_INTERVAL))


def await_rest(watch: Watch) -> None:
    """Until no session has ended for longer than a closed one waits for stragglers; some never end."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    counted, since = -1.0, 0.0
    while time.monotonic() < deadline:
        seen = watch.sample_sum("smtp_sessions_total")
        if seen != counted:
            counted, since = seen, time.monotonic()
        elif time.monotonic() > since + 3:
            return
        time.sleep(0.2)


@pytest.fixture(scope="module")
def tapped() -> Iterator[Answering]:
    """Real servers and clients had their sessions, while a watch with a tap read along inside TLS."""
    try:
        with laboratory() as lab:
            yield from _tapped(lab.network)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))


def _tapped(network: Network) -> Iterator[Answering]:
    with (
        Watch(network.server, network.folder, "--tls-tap") as watch,
        RulingPrometheus(network.server, network.folder) as prometheus,
        network.server.threads(1) as thread,
    ):
        assert prometheus.await_value("up", 1) == 1
        begin = int(time.time())
        with network.client.threads(8) as clients:
            scenario.drive(clients)
            for _ in range(2):  # put off inside TLS, and come again
                clients.submit(scenario.starttls, *_PUT_OFF_AT, recipients=_PUT_OFF).result()
        await_rest(watch)
        counted = watch.sample_sum("smtp_sessions_total")
        assert prometheus.await_value("sum(smtp_sessions_total)", counted) == counted

        def asking(path: str, **parameters: Any) -> Any:
            return thread.submit(partial(ask, _PROMETHEUS_URL, path, **parameters)).result()

        yield Answering(asking, View(begin, int(time.time()), 1, RATE_INTERVAL))


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    series = backfill(PAST_DAYS, PAST_END, step=PAST_STEP_SECONDS)
    with Past(tmp_path_factory.mktemp("past")) as prometheus:
        prometheus.take(series)
        begin = PAST_END - PAST_DAYS * 86_400
        prometheus.evaluate(sorted(GENERATED_RULES.glob("*.yml")), begin, PAST_END, PAST_STEP_SECONDS)
        view = View(PAST_END - 86_400, PAST_END, PAST_STEP_SECONDS, f"{4 * PAST_STEP_SECONDS}s")
        yield Answering(prometheus.ask, view)


def is_excused(query: Query) -> bool:
    """From having an answer after a minute, of a watch without a tap; not after two weeks with one."""
    return (
        (query.board, query.place) in NOT_IN_A_MINUTE
        or looks_back(query.expression)
        or asks_of_a_tap(query.expression)
    )


def asks_of_a_tap(expression: str) -> bool:
    found = selectors(expand(expression, PARSED_WITH))
    return any(selector.metric == TLS_TAP_ENABLED.name for selector in found)


def looks_back(expression: str) -> bool:
    """To another day, itself or through what a rule recorded; or at alerts, which a good minute has not."""
    for selector in selectors(expand(expression, PARSED_WITH)):
        if selector.metric == "ALERTS" or (selector.offset is not None and selector.offset >= LONG_AGO):
            return True
        if any(looks_back(rule.expression) for rule in RECORDED if rule.name == selector.metric):
            return True
    return False


def report(found: list[Unanswered]) -> str:
    return "\n".join(map(str, found))


def test_there_are_boards() -> None:
    assert BOARDS


@pytest.mark.parametrize("board", BOARDS, ids=uid_of)
def test_every_query_of_a_board_has_an_answer_now(now: Answering, board: Model) -> None:
    found = [fault for fault in now.unanswered(board) if not is_excused(fault.query)]
    assert not found, report(found)


def test_where_no_tap_runs_nothing_is_said_of_what_is_inside_tls(now: Answering) -> None:
    asked = [query for board in BOARDS for query in panel_queries(board) if asks_of_a_tap(query.expression)]
    assert asked
    found = [
        fault for board in BOARDS for fault in now.unanswered(board) if asks_of_a_tap(fault.query.expression)
    ]
    assert [fault.query for fault in found] == asked
    assert {fault.why for fault in found} == {"no series"}


def test_every_query_on_what_is_inside_tls_has_an_answer_where_a_tap_runs(tapped: Answering) -> None:
    (board,) = (board for board in BOARDS if uid_of(board) == "smtp-horizon-inside")
    found = tapped.unanswered(board)
    assert not found, report(found)


def test_no_alert_on_the_tap_is_raised_where_it_sees_real_mail(tapped: Answering) -> None:
    names = {alert.name for alert in tap.GROUP.rules if isinstance(alert, Alert)}
    raised = tapped.ask("alerts")["alerts"]
    assert names & {alert["labels"]["alertname"] for alert in raised} == set()


@pytest.mark.parametrize("board", BOARDS, ids=uid_of)
def test_every_query_of_a_board_has_an_answer_after_two_weeks(past: Answering, board: Model) -> None:
    found = past.unanswered(board)
    assert not found, report(found)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ('rate(smtp_mail_sessions_total{instance=~"$instance"}[$__rate_interval])', "no series"),
        ('rate(smtp_sessions_total{instance=~"$instance",envelope="dark"}[$__rate_interval])', "no series"),
        ('sum(smtp_sessions_open{instance=~"$instance"}) / 0 * 0', "only NaN"),
        ('sum(smtp_sessions_open{instance=~"$instance"', "error"),
        ('sum(smtp_sessions_open{instance=~"$host"})', "there is no variable"),
    ],
)
def test_a_broken_board_is_reported(now: Answering, expression: str, why: str) -> None:
    assert now.unanswered(small_board()) == []
    (found,) = now.unanswered(small_board(expression))
    assert found.why.startswith(why)


def test_a_variable_that_nothing_fills_is_reported(now: Answering) -> None:
    board = small_board()
    for variable in board["templating"]["list"]:
        if variable["name"] == "instance":
            variable["query"] = "label_values(smtp_monitor_build, instance)"
    assert [str(fault.query) for fault in now.unanswered(board)] == [
        "smtp-horizon-small: $instance",
        "smtp-horizon-small: Sessions (A)",
    ]


@pytest.mark.parametrize("rule", RECORDED, ids=[f"{at} {rule.name}" for at, rule in enumerate(RECORDED)])
def test_a_recording_rule_records(now: Answering, past: Answering, rule: Rule) -> None:
    prometheus = past if looks_back(rule.expression) else now
    assert prometheus.ask("query", query=rule.name, time=prometheus.view.end)["result"]


def test_no_rule_fails_to_be_evaluated(now: Answering) -> None:
    groups = now.ask("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {rule.name for rule in RULES}
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule["health"] != "ok"] == []
