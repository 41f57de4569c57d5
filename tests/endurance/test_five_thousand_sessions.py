"""5,000 real sessions, watched through a tshark that is replaced again and again: all there, all right."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.endurance import crowd
from tests.endurance.crowd import Crowd
from tests.endurance.enduring import IS_TSHARK, EnduringWatch, Lives, imperfections, report, shown
from tests.endurance.memory import Sample, figures
from tests.lab import opensmtpd
from tests.lab.compare import differences, unmatched
from tests.lab.laboratory import Laboratory, laboratory
from tests.lab.network import server_address
from tests.lab.packages import LabUnavailableError
from tests.lab.truth import SessionTruth
from tests.lab.watch import sample_sum

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

# Chosen so that both are replaced about ten times in the 110,000 packets and 100 seconds of the run.
LIVES = Lives(frames_per_tshark=12_000, seconds_per_dumpcap=10)
LEAST_RESTARTS = 5
# How far watch may be behind before the crowd waits for it: what goes through in a few seconds.
LAG_SESSIONS = 300

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    records: list[Record]
    metrics: str
    crowd: Crowd
    server_truths: list[SessionTruth]
    """Of Postfix and Exim."""
    status: int
    said: str
    samples: list[Sample]


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    try:
        with laboratory() as lab:
            run = live_through(lab)
            with shown(request.config):
                report(
                    "real mail servers and clients",
                    sessions=len(run.records),
                    packets=int(sample_sum(run.metrics, "smtp_monitor_packets_total", verdict="segment")),
                    seconds=run.crowd.seconds,
                    samples=run.samples,
                )
            yield run
    except LabUnavailableError as reason:
        pytest.skip(str(reason))


def live_through(lab: Laboratory) -> Run:
    folder = lab.network.folder
    with EnduringWatch(lab.network.server, folder, LIVES) as watch:
        driven = crowd.drive(
            lab, lambda over: void(watch.await_sum("smtp_sessions_total", over - LAG_SESSIONS))
        )
        watch.await_sum("smtp_sessions_total", crowd.SESSIONS)
        watch.await_silence()
        metrics = watch.metrics()
        status = watch.stop()
        records = watch.records()
    truths = []
    for server in (lab.postfix, lab.exim):
        addresses = {address for address, _ in server.listeners}
        mine = sum(record["server"]["ip"] in addresses for record in records)
        truths += server.settle(mine)
    return Run(records, metrics, driven, truths, status, watch.said(), watch.samples)


def void(_: object) -> None:
    """For a callback that answers nothing."""


def is_bulk(record: Record) -> bool:
    return [helo["name"] for helo in record["helo"]] == [crowd.SOURCE_NAME]


def test_watch_saw_exactly_as_many_sessions_as_there_were(run: Run) -> None:
    assert len(run.records) == crowd.SESSIONS
    assert sample_sum(run.metrics, "smtp_sessions_total") == crowd.SESSIONS
    assert sample_sum(run.metrics, "smtp_monitor_records_total", result="written") == crowd.SESSIONS


def test_watch_ends_in_good_order_after_them(run: Run) -> None:
    assert run.status == 0, run.said
    assert "Traceback" not in run.said


def test_nothing_was_lost_and_every_session_was_seen_whole(run: Run) -> None:
    assert imperfections(run.metrics) == {}
    assert not [record for record in run.records if not record["capture"]["complete"]]


def test_tshark_and_dumpcap_were_replaced_again_and_again(run: Run) -> None:
    if not IS_TSHARK:
        pytest.skip("another probe was asked for")
    processes = {one.program: one.processes for one in figures(run.samples)}
    assert min(processes["tshark"], processes["dumpcap"]) > LEAST_RESTARTS
    planned = sample_sum(run.metrics, "smtp_monitor_tshark_restarts_total", reason="planned")
    assert planned >= LEAST_RESTARTS


def test_records_equal_what_the_clients_did_and_were_answered(run: Run) -> None:
    pairs, complaints = unmatched(run.records, run.crowd.truths)
    assert len(pairs) == len(run.crowd.truths) > 800, complaints[:10]
    assert not all_differences(pairs)


def test_records_equal_what_the_servers_logged_session_by_session(run: Run) -> None:
    opensmtpd_servers = {server_address(opensmtpd.NUMBER, family) for family in (4, 6)}
    logged = [record for record in run.records if record["server"]["ip"] not in opensmtpd_servers]
    pairs, complaints = unmatched(logged, run.server_truths)
    assert not complaints
    assert len(pairs) > 4_900
    assert not all_differences(pairs)


def test_each_bulk_message_stands_in_one_record_alone(run: Run) -> None:
    seen = Counter(
        (transaction["mail_from"], to["address"])
        for record in run.records
        if is_bulk(record)
        for transaction in record["transactions"]
        for to in transaction["recipients"]
    )
    assert seen == Counter(run.crowd.bulk)


def test_bulk_records_are_alike_but_for_names_and_times(run: Run) -> None:
    alike = Counter(str(likeness(record)) for record in run.records if is_bulk(record))
    assert len(alike) == 1, alike
    assert sum(alike.values()) == len(run.crowd.bulk)


def test_each_relayed_mail_came_in_a_session_of_its_own_and_in_tls(run: Run) -> None:
    relayed = [
        record["envelope"]
        for record in run.records
        if {helo["name"] for helo in record["helo"]} == {crowd.RELAY_NAME}
    ]
    assert relayed == ["hidden"] * crowd.RELAYED


def all_differences(pairs: list[tuple[Record, SessionTruth]]) -> list[str]:
    return [f"{truth.client}: {line}" for record, truth in pairs for line in differences(record, truth)]


def likeness(record: Record) -> Record:
    """What one of smtp-source's sessions has in common with all others."""
    (transaction,) = record["transactions"]
    (to,) = transaction["recipients"]
    return {
        **{name: record[name] for name in ("server", "direction", "channel", "envelope", "ended", "capture")},
        **{name: record[name] for name in ("banner", "helo", "starttls", "tls", "auth", "anomalies")},
        "codes": (transaction["mail_code"], to["code"], transaction["data"]["code"]),
        "verb": transaction["data"]["verb"],
        "outcome": transaction["outcome"],
        "is as long as it was": 0 <= transaction["data"]["wire_bytes"] - crowd.MESSAGE_BYTES < 500,
        "encrypted": record["bytes"]["encrypted"],
    }
