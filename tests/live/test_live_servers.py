"""Real mail servers and clients, watched by `smtp-horizon watch` while it happens.

One run of the whole lab (see tests/lab/scenario.py for its sessions), and then many questions to it: what
watch recorded is held against what each client did and was answered, against what each server logged, against
what `read` says of a tcpdump of the same traffic, and against the metrics that a real Prometheus scraped.
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab import exim, opensmtpd, postfix, scenario
from tests.lab.compare import differences, unmatched
from tests.lab.laboratory import Laboratory, laboratory
from tests.lab.network import client_address, server_address
from tests.lab.packages import LabUnavailableError
from tests.lab.prometheus import PROMTOOL, Prometheus
from tests.lab.raw_client import RawClient
from tests.lab.smtplib_client import send_with_smtplib
from tests.lab.swaks import run_swaks
from tests.lab.truth import SessionTruth
from tests.lab.watch import PROGRAM, Tcpdump, Watch, read_records, sample_sum
from tests.timeless import timeless

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

POSTFIX_ADDRESSES = {server_address(face.number, family) for face in postfix.FACES for family in (4, 6)}
SERVERS = {
    "postfix": POSTFIX_ADDRESSES,
    "exim": {server_address(exim.NUMBER, family) for family in (4, 6)},
    "opensmtpd": {server_address(opensmtpd.NUMBER, family) for family in (4, 6)},
}
SINK = client_address(2), 25  # on the other host: who talks to it from the watched one is outbound
RELAY_SENDER = "relay@client.test"
SMTP_SOURCE_SESSIONS = 100

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    """All that is known of the run."""

    records: list[Record]
    read_again: list[Record]
    """What `read` says of the tcpdump."""
    client_truths: list[SessionTruth]
    server_truths: dict[str, list[SessionTruth]]
    metrics: str
    """Scraped when all sessions but one were over."""
    prometheus: dict[str, float | None]
    watch_status: int
    watch_said: str
    read_status: int
    postfix_client_outcomes: list[str]
    exim_client_log: str
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    try:
        with laboratory() as lab:
            yield live_through(lab)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))


def live_through(lab: Laboratory) -> Day:
    host, folder = lab.network.server, lab.network.folder
    started = time.monotonic()
    with (
        Tcpdump(host, folder / "traffic.pcap") as tcpdump,
        Watch(host, folder) as watch,
        Prometheus(host, folder) as prometheus,
    ):
        up = time.monotonic()
        truths = drive(lab)
        watch.await_silence()
        driven = time.monotonic()
        metrics = watch.metrics()
        counted = sample_sum(metrics, "smtp_sessions_total")
        scraped = {
            "up": prometheus.await_value("up", 1),
            "sessions": prometheus.await_value("sum(smtp_sessions_total)", counted),
        }
        # One session is still open when watch is told to stop.
        with lab.network.client.threads(1) as thread:
            left_open = thread.submit(leave_open).result()
        tcpdump.stop()
        status = watch.stop()
        left_open.chronicle.end("capture_ended")
        truths.append(left_open.truth())
        records = watch.records()
        left_open.abort()
    server_truths = {
        server.name: server.settle(len(records_of(server.name, records))) for server in lab.servers
    }
    ended = time.monotonic()
    read = subprocess.run(
        [
            *(PROGRAM, "read", "--format", "jsonl", tcpdump.file),
            *("--local-network", "10.77.0.0/24", "--local-network", "fd77::/112"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return Day(
        records=records,
        read_again=read_records(read.stdout),
        client_truths=truths,
        server_truths={**server_truths, "postfix": unproxied(server_truths["postfix"], truths)},
        metrics=metrics,
        prometheus=scraped,
        watch_status=status,
        watch_said=watch.said(),
        read_status=read.returncode,
        postfix_client_outcomes=lab.postfix_client.await_deliveries(),
        exim_client_log=lab.exim_client.log.read_text(),
        seconds={
            "watch up": up - started,
            "driven": driven - up,
            "all": ended - started,
            "read": time.monotonic() - ended,
        },
    )


def drive(lab: Laboratory) -> list[SessionTruth]:
    """All sessions; returns the truths of those clients that keep one."""
    client = lab.network.client
    with client.threads(8) as threads:
        truths = scenario.drive(threads)
        message = scenario.body().replace(b"..", b" .")
        recipients = [scenario.RECIPIENT, "nosuch@example.test"]
        for server in ((server_address(1), 25), (server_address(exim.NUMBER), 25)):
            for tls in (False, True, True):
                sent = threads.submit(
                    send_with_smtplib,
                    *(server, client_address(3), "library@client.test", recipients, message),
                    tls=tls,
                )
                truths.append(sent.result())
        with pytest.raises(ConnectionRefusedError):  # which leaves no record
            threads.submit(RawClient, (server_address(50), 25), client_address(3)).result()
    truths += drive_swaks(lab)
    to_mx = ("-f", "source@client.test", "-t", scenario.RECIPIENT, server_address(1))
    source = postfix.program("smtp-source")
    client.run([*source, "-s", "5", "-m", str(SMTP_SOURCE_SESSIONS), "-l", "3000", *to_mx])
    client.run([*source, "-d", "-s", "3", "-m", "30", "-r", "3", *to_mx])
    # With TLS where it is offered; refused by the broken key and by the one without; failing with OpenSMTPD.
    relayed = [server_address(number) for number in (1, 3, 2, exim.NUMBER, opensmtpd.NUMBER, 1, 1, 3)]
    lab.postfix_client.deliver(relayed, RELAY_SENDER, message)
    lab.postfix_client.await_deliveries()
    text = message.replace(b"\r\n", b"\n").decode()
    for number in (1, 2, 3, exim.NUMBER, opensmtpd.NUMBER):
        for in_clear in (False, True):
            lab.exim_client.deliver(server_address(number), text, sender=RELAY_SENDER, in_clear=in_clear)
    return truths


def drive_swaks(lab: Laboratory) -> list[SessionTruth]:
    """swaks chooses among the servers' offers; and from the watched host outwards."""
    inward = [
        ((server_address(1), 25), ()),
        ((server_address(1), 25), ("--tls",)),
        ((server_address(1), 25), ("--to", f"{scenario.RECIPIENT},nosuch@example.test")),
        ((server_address(1), 25), ("--to", "nosuch@example.test")),
        ((server_address(1), 465), ("--tlsc",)),
        ((server_address(1, 6), 25), ("--tls",)),
        ((server_address(1, 6), 25), ()),
        ((server_address(2), 25), ("--tls-optional",)),
        ((server_address(3), 25), ("--tls-optional",)),
        ((server_address(4), 25), ("--auth", "LOGIN", "--au", "alice", "--ap", "secret")),
        ((server_address(4), 25), ("--auth", "PLAIN", "--au", "alice", "--ap", "wrong")),
        ((server_address(exim.NUMBER), 25), ("--protocol", "SMTP")),
        ((server_address(exim.NUMBER), 25), ("--tls",)),
        ((server_address(exim.NUMBER), 465), ("--tlsc",)),
    ]
    common = ("--from", "swaks@client.test", "--to", scenario.RECIPIENT, "--ehlo", "swaks.test")
    truths = [
        run_swaks(
            lab.network.client, server, (client_address(4, 6 if ":" in server[0] else 4), port), *common, *how
        )
        for port, (server, how) in enumerate(inward, 20_000)
    ]
    serve = [*postfix.program("smtp-sink"), "-u", "nobody", f"{SINK[0]}:{SINK[1]}", "10"]
    sink = lab.network.client.start(serve)
    try:
        lab.network.client.await_listeners([SINK])
        truths += [
            run_swaks(
                lab.network.server, SINK, (server_address(40), 20_000 + turn), *common, direction="outbound"
            )
            for turn in range(3)
        ]
    finally:
        sink.terminate()
        sink.wait()
    return truths


def leave_open() -> RawClient:
    client = RawClient((server_address(1), 25), client_address(3))
    client.hello()
    client.mail(scenario.SENDER)
    return client


def unproxied(logged: list[SessionTruth], truths: list[SessionTruth]) -> list[SessionTruth]:
    """Behind a proxy, Postfix logs the client that the PROXY header names: put the real one in its place."""
    clients = {truth.proxied_client: truth.client for truth in truths if truth.proxied_client}
    return [
        replace(truth, client=clients[truth.client], proxied_client=truth.client)
        if truth.client in clients
        else truth
        for truth in logged
    ]


def records_of(server: str, records: list[Record]) -> list[Record]:
    return [record for record in records if record["server"]["ip"] in SERVERS[server]]


def over(records: list[Record]) -> list[Record]:
    """Without the one that was still open when watch was told to stop."""
    return [record for record in records if record["ended"] != "capture_ended"]


def all_differences(pairs: list[tuple[Record, SessionTruth]]) -> list[str]:
    return [f"{truth.client}: {line}" for record, truth in pairs for line in differences(record, truth)]


def test_watch_ends_in_good_order_when_it_is_told_to(day: Day) -> None:
    assert day.watch_status == 0, day.watch_said
    assert "Traceback" not in day.watch_said


def test_the_lab_has_driven_hundreds_of_sessions(day: Day) -> None:
    assert len(day.records) > 350
    assert {truth.witness for truth in day.client_truths} == {"raw client", "swaks", "smtplib"}
    assert {record["server"]["ip"] for record in day.records} >= {
        *(server_address(number) for number in (1, 2, 3, 4, 5, 6, exim.NUMBER, opensmtpd.NUMBER)),
        server_address(1, 6),
        server_address(exim.NUMBER, 6),
        SINK[0],
    }


def test_every_way_to_be_seen_or_not_occurred(day: Day) -> None:
    assert {record["channel"] for record in day.records} == {"cleartext", "starttls", "implicit_tls"}
    assert {record["envelope"] for record in day.records} == {"visible", "partial", "hidden", "none"}
    outcomes = {record["starttls"]["outcome"] for record in day.records}
    came = {"not_reached", "not_offered", "unused", "refused", "established", "failed", "abandoned"}
    assert outcomes == came
    assert {record["direction"] for record in day.records} == {"inbound", "outbound"}


def test_relaying_clients_did_what_they_are_known_for(day: Day) -> None:
    # Debian 12's OpenSMTPD can't do TLS: Postfix's client tries again later, Exim's at once in clear.
    does_tls = any(truth.channel == "starttls" for truth in day.server_truths["opensmtpd"])
    sent = {"sent": 8} if does_tls else {"sent": 7, "deferred": 1}
    assert Counter(day.postfix_client_outcomes) == sent
    assert ("delivering unencrypted to" in day.exim_client_log) is not does_tls
    chunked = [
        record
        for record in day.records
        for transaction in record["transactions"]
        if transaction["mail_from"] == RELAY_SENDER and (transaction["data"] or {}).get("verb") == "BDAT"
    ]
    assert len({record["server"]["ip"] for record in chunked}) == 4


@pytest.mark.parametrize("server", SERVERS)
def test_each_server_logged_exactly_the_sessions_that_were_recorded(day: Day, server: str) -> None:
    _, complaints = unmatched(records_of(server, day.records), day.server_truths[server])
    assert not complaints


@pytest.mark.parametrize("server", SERVERS)
def test_records_equal_what_the_server_logged(day: Day, server: str) -> None:
    pairs, _ = unmatched(records_of(server, over(day.records)), day.server_truths[server])
    assert pairs
    assert not all_differences(pairs)


def test_records_equal_what_the_clients_did_and_were_answered(day: Day) -> None:
    pairs, complaints = unmatched(day.records, day.client_truths)
    assert len(pairs) == len(day.client_truths), complaints
    assert not all_differences(pairs)


def test_every_session_was_seen_whole(day: Day) -> None:
    assert not [record for record in over(day.records) if not record["capture"]["complete"]]


def test_the_session_that_was_open_at_the_end_is_recorded_as_such(day: Day) -> None:
    (record,) = (record for record in day.records if record["ended"] == "capture_ended")
    assert record["transactions"][0]["mail_code"] == 250
    assert not record["capture"]["complete"]


def test_reading_a_tcpdump_of_the_traffic_gives_the_same_records(day: Day) -> None:
    assert day.read_status == 0
    live = {identity(record): timeless(record) for record in day.records}
    read = {identity(record): timeless(record) for record in day.read_again}
    assert live.keys() == read.keys()
    different = [
        f"{session}: {name}: {record[name]!r} live, {read[session][name]!r} read"
        for session, record in live.items()
        for name in record
        if record[name] != read[session][name]
    ]
    assert not different


def test_metrics_agree_with_the_records(day: Day) -> None:
    records = over(day.records)
    assert len(records) == len(day.records) - 1
    assert sample_sum(day.metrics, "smtp_sessions_total") == len(records)
    for envelope in ("visible", "partial", "hidden", "none", "unknown"):
        counted = sum(record["envelope"] == envelope for record in records)
        assert sample_sum(day.metrics, "smtp_sessions_total", envelope=envelope) == counted, envelope
    recipients = sum(len(one["recipients"]) for record in records for one in record["transactions"])
    assert sample_sum(day.metrics, "smtp_recipients_total") == recipients
    encrypted = sum(record["bytes"]["encrypted"] for record in records)
    assert sample_sum(day.metrics, "smtp_bytes_total", visibility="encrypted") == encrypted
    assert sample_sum(day.metrics, "smtp_monitor_packets_dropped_total") == 0


def test_prometheus_scrapes_the_same_numbers(day: Day) -> None:
    assert day.prometheus == {"up": 1, "sessions": sample_sum(day.metrics, "smtp_sessions_total")}


def test_promtool_finds_nothing_to_complain_about(day: Day, tmp_path: Path) -> None:
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=day.metrics, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def identity(record: Record) -> tuple[str, int, str, int, str]:
    """Endpoints and how it ended: a pair of endpoints may meet twice, but here never alike."""
    client, server = record["client"], record["server"]
    return client["ip"], client["port"], server["ip"], server["port"], record["ended"]
