"""What real clients said inside TLS to real mail servers, and what `watch --tls-tap` tells of it.

One run of the whole lab, with every kind of conversation that tests/lab knows, and then many questions to it.
What the record tells of the inside is held against what the client did and was answered.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab import exim, opensmtpd, postfix, python_server, scenario, tls_scenario
from tests.lab.compare import differences, differences_inside, unmatched
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.openssl_client import run_openssl
from tests.lab.python_server import PythonServer
from tests.lab.sasl import PASSWORD, USER
from tests.lab.scenario import RECIPIENT, TLS_1_2, TLS_1_3
from tests.lab.server import BUSY_RECIPIENT, UNKNOWN_RECIPIENT
from tests.lab.smtplib_client import send_with_smtplib
from tests.lab.swaks import run_swaks
from tests.lab.tls_scenario import (
    GREETED,
    LARGE,
    LOGGED_IN,
    UNGREETED,
    VANISHING,
    Way,
    converse,
    larger_message,
    resets_at_once,
    waits,
)
from tests.lab.truth import SessionTruth
from tests.lab.watch import Watch, sample_sum

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

MX: Final = server_address(1), 25
SMTPS: Final = server_address(1), 465
SUBMISSION: Final = server_address(1), 587
IMPATIENT: Final = server_address(postfix.IMPATIENT.number), 25
EXIM: Final = server_address(exim.NUMBER), 25
EXIM_SMTPS: Final = server_address(exim.NUMBER), 465
OPENSMTPD: Final = server_address(opensmtpd.NUMBER), 25
PYTHON: Final = python_server.ADDRESS, 25
PYTHON_SMTPS: Final = python_server.ADDRESS, 465

WORDS: Final = {
    MX: (*GREETED, *VANISHING, *UNGREETED),
    SMTPS: (*GREETED, *LARGE, *LOGGED_IN, *VANISHING, *UNGREETED),
    (server_address(1, 6), 25): GREETED[:3],
    SUBMISSION: LOGGED_IN,
    IMPATIENT: (waits,),
    EXIM: (*GREETED, *LARGE, *LOGGED_IN, *VANISHING, *UNGREETED),
    EXIM_SMTPS: (*GREETED, *LOGGED_IN, *VANISHING, *UNGREETED),
    (server_address(exim.NUMBER, 6), 465): GREETED[:3],
    PYTHON: (*GREETED, *LOGGED_IN, *VANISHING, *UNGREETED),
    PYTHON_SMTPS: (*GREETED, *VANISHING, *UNGREETED),
}
LARGER: Final = [Way(MX, TLS_1_3), Way(EXIM_SMTPS, TLS_1_2)]
RESUMING: Final = [
    *(Way(server, version) for server in (MX, SMTPS, PYTHON) for version in (TLS_1_2, TLS_1_3)),
    *(Way(EXIM, version) for version in (TLS_1_2, TLS_1_3)),
]

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A session, and what its client tells of it."""

    kind: str
    truth: SessionTruth


@dataclass(frozen=True, slots=True)
class Run:
    told: list[Told]
    records: list[Record]
    metrics: str
    status: int
    said: str

    def pairs(self, kind: str | None = None) -> list[tuple[Record, Told]]:
        told = {id(one.truth): one for one in self.told}
        pairs, complaints = unmatched(self.records, [one.truth for one in self.told])
        assert not complaints
        return [
            (record, told[id(truth)])
            for record, truth in pairs
            if kind is None or told[id(truth)].kind == kind
        ]


@pytest.fixture(scope="module")
def run(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("conversations")
    server = lab.network.server
    with PythonServer(server, folder / "python"), Watch(server, folder, "--tls-tap") as watch:
        with lab.network.client.threads(32) as threads:  # Exim waits for its clients, two seconds each
            told = list(drive(lab, threads, folder))
        watch.await_silence()
        metrics = watch.metrics()
        status = watch.stop()
        yield Run(told, watch.records(), metrics, status, watch.said())


def drive(lab: Laboratory, threads: ThreadPoolExecutor, folder: Path) -> Iterator[Told]:
    addresses = itertools.cycle(range(5, 35))

    def begin(conversation: Callable[..., Any], where: Any, *more: Any) -> Any:
        server = where.server if isinstance(where, Way) else where
        client = client_address(next(addresses), 6 if ":" in server[0] else 4)
        return threads.submit(conversation, where, client, *more)

    words = [
        *(
            (Way(server, version), one)
            for server, all_words in WORDS.items()
            for one in all_words
            for version in (TLS_1_2, TLS_1_3)
        ),
        *((way, larger_message) for way in LARGER),
    ]
    futures = [(one.__name__, begin(converse, way, one)) for way, one in words]
    resuming = [begin(tls_scenario.resumed, way) for way in RESUMING]
    failing = [
        begin(scenario.starttls_failing, server) for server in (MX, EXIM, OPENSMTPD, PYTHON) for _ in range(2)
    ]
    abandoned = [
        begin(conversation, server)
        for conversation in (scenario.starttls_abandoned, scenario.starttls_hello_then_reset)
        for server in (MX, EXIM, PYTHON)
    ]
    futures += [("handshake failed", future) for future in (*failing, *abandoned)]
    futures.append(("handshake failed", begin(tls_scenario.starttls_and_nothing, IMPATIENT)))
    futures += [("clear", begin(scenario.several_messages, server)) for server in (MX, EXIM)]
    futures += [("partly clear", begin(scenario.starttls_after_mail, server)) for server in (MX, EXIM)]
    futures += [("library", future) for future in with_smtplib(threads)]
    yield from (Told("swaks", truth) for truth in with_swaks(lab))
    yield from (Told("openssl", truth) for truth in with_openssl(lab, folder))
    yield from (Told(kind, future.result()) for kind, future in futures)
    yield from (Told("resumed", truth) for future in resuming for truth in future.result())


def with_smtplib(threads: ThreadPoolExecutor) -> Iterator[Any]:
    message = scenario.body().replace(b"..", b" .")
    for number, server in enumerate((MX, EXIM, PYTHON)):
        recipients = [RECIPIENT, UNKNOWN_RECIPIENT, BUSY_RECIPIENT]
        arguments = (server, client_address(3), f"library{number}@client.test", recipients, message)
        yield threads.submit(send_with_smtplib, *arguments, tls=True)


def with_swaks(lab: Laboratory) -> Iterator[SessionTruth]:
    common = ("--to", f"{RECIPIENT},{UNKNOWN_RECIPIENT}", "--ehlo", "swaks.test")
    login = ("--au", USER, "--ap", PASSWORD)
    ways = [
        (MX, ("--tls",)),
        (SMTPS, ("--tlsc", "--auth", "LOGIN", *login)),
        (SUBMISSION, ("--tls", "--auth", "PLAIN", *login)),
        (EXIM, ("--tls", "--auth", "LOGIN", *login)),
        (EXIM_SMTPS, ("--tlsc", "--tls-protocol", "tlsv1_2")),
    ]
    for port, (server, how) in enumerate(ways, 21_000):
        sender = ("--from", f"swaks{port}@client.test")
        yield run_swaks(lab.network.client, server, (client_address(4), port), *sender, *common, *how)


def with_openssl(lab: Laboratory, folder: Path) -> Iterator[SessionTruth]:
    """Each session of TLS twice: begun, and resumed from its file."""
    ports = itertools.count(22_000)
    for server, version in itertools.product((MX, SMTPS), ("-tls1_2", "-tls1_3")):
        kept = folder / f"{server[1]}{version}"
        for how in ("-sess_out", "-sess_in"):
            port = next(ports)
            truth, is_resumed = run_openssl(
                *(lab.network.client, server, (client_address(4), port), version, how, kept),
                sender=f"openssl{port}@client.test",
                recipients=[RECIPIENT, UNKNOWN_RECIPIENT],
                text=scenario.body(),
            )
            assert is_resumed is (how == "-sess_in")
            yield truth


QUIET_ENDS: Final = {words.__name__ for words in (*VANISHING, *UNGREETED)}
UNSPOKEN: Final = {words.__name__ for words in UNGREETED}


def excused(record: Record, told: Told) -> SessionTruth:
    """The truth, without what cannot be known."""
    truth = told.truth
    if told.kind in UNSPOKEN:
        # From outside this is no different from a handshake that came to nothing.
        truth = replace(truth, envelope=None, starttls_outcome=None)
    if told.kind in QUIET_ENDS and is_exims(record):
        # It ends TLS when the client has gone, and then says 421 in clear.
        truth = replace(truth, anomalies=None)
    return truth


def is_exims(record: Record) -> bool:
    return record["server"]["ip"] in (EXIM[0], server_address(exim.NUMBER, 6))


def test_watch_ends_in_good_order_and_lost_nothing(run: Run) -> None:
    assert run.status == 0, run.said
    assert "Traceback" not in run.said
    assert sample_sum(run.metrics, "smtp_monitor_tls_tap_events_lost_total") == 0
    assert sample_sum(run.metrics, "smtp_monitor_packets_dropped_total") == 0


def test_what_clients_did_and_were_answered_inside_tls_is_what_the_tap_tells(run: Run) -> None:
    wrong = [
        f"{told.kind} with {record['server']}: {line}"
        for record, told in run.pairs()
        if told.kind != resets_at_once.__name__
        for line in differences_inside(record, told.truth)
    ]
    assert not wrong


def test_a_reset_right_after_the_handshake_may_come_before_the_server_knows_that_tls_is_there(
    run: Run,
) -> None:
    """Then its handshake has failed, or ends after the session's last packet."""
    tapped = [record["tapped"] for record, told in run.pairs(resets_at_once.__name__)]
    assert len(tapped) == 12
    listed = [one for one in tapped if one is not None]
    assert {one["result"] for one in listed} <= {"whole", "partial", "unsure"}
    assert not [one for one in listed if one["transactions"] or one["auth"]]


def test_for_all_others_the_record_stays_what_a_bystander_sees(run: Run) -> None:
    wrong = [
        f"{told.kind} with {record['server']}: {line}"
        for record, told in run.pairs()
        for line in differences(record, excused(record, told))
    ]
    assert not wrong
    hidden = [record for record, told in run.pairs() if told.kind in {one.__name__ for one in GREETED}]
    assert {record["envelope"] for record in hidden} == {"hidden"}
    assert not [record for record in hidden if record["transactions"]]


def test_every_record_is_of_a_session_that_somebody_tells_of(run: Run) -> None:
    assert len(run.pairs()) == len(run.records) == len(run.told) > 300


@pytest.mark.parametrize("kind", ["handshake failed", "clear"])
def test_where_tls_was_never_there_nothing_is_said_to_be_inside(run: Run, kind: str) -> None:
    pairs = run.pairs(kind)
    assert pairs
    assert {record["tapped"] for record, _ in pairs} == {None}


def test_nobody_is_in_a_session_of_somebody_else(run: Run) -> None:
    """Every session has senders of its own."""
    seen = Counter(
        address
        for record in run.records
        for address in {
            one["mail_from"] for one in (record["tapped"] or {"transactions": []})["transactions"]
        }
        if address and address != scenario.SENDER
    )
    assert len(seen) > 300
    assert set(seen.values()) == {1}


def test_the_packets_never_tell_another_tale(run: Run) -> None:
    assert sample_sum(run.metrics, "smtp_monitor_verdict_mismatches_total") == 0


def test_metrics_agree_with_the_records(run: Run) -> None:
    tapped = [record["tapped"] for record in run.records if record["tapped"]]
    for result in ("whole", "partial", "unsure", "missed"):
        counted = sum(one["result"] == result for one in tapped)
        assert sample_sum(run.metrics, "smtp_tapped_sessions_total", result=result) == counted, result
    transactions = [transaction for one in tapped for transaction in one["transactions"]]
    assert sample_sum(run.metrics, "smtp_tapped_messages_total") == len(transactions)
    recipients = sum(len(transaction["recipients"]) for transaction in transactions)
    assert sample_sum(run.metrics, "smtp_tapped_recipients_total") == recipients
    assert sample_sum(run.metrics, "smtp_tapped_auth_total") == sum(len(one["auth"]) for one in tapped)
