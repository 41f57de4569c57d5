"""Those who speak TLS on the server's machine and are no servers, and clients that come again by the same
port."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab import exim, scenario
from tests.lab.chasquid import chasquid
from tests.lab.compare import differences_inside, key
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.postfix_client import PostfixClient
from tests.lab.python_server import PythonServer
from tests.lab.scenario import TLS_1_2, TLS_1_3
from tests.lab.swaks import run_swaks
from tests.lab.tls_scenario import Way, converse, numbered
from tests.lab.truth import SessionTruth
from tests.tls_tap.tapped_watch import Record, TappedWatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

MX: Final = server_address(1)
RELAY_SENDER: Final = "relay@client.test"
CLIENT_PORT: Final = 23_000


@pytest.fixture(scope="module")
def watch(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TappedWatch]:
    with TappedWatch(lab.network.server, tmp_path_factory.mktemp("watch")) as watch:
        yield watch
        assert watch.sample_sum("smtp_monitor_verdict_mismatches_total") == 0
        assert watch.sample_sum("smtp_monitor_tls_tap_events_lost_total") == 0
        assert watch.stop() == 0


def records_since(watch: TappedWatch, before: int, wanted: int) -> list[Record]:
    deadline = time.monotonic() + 20
    while len(found := watch.records()[before:]) < wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_clients_on_the_machine_are_not_taken_for_servers(
    lab: Laboratory, watch: TappedWatch, tmp_path: Path
) -> None:
    """Postfix' smtp(8) and swaks: to a server in another network namespace, whose own side is all that is
    read along, and to those in this one."""
    before, libraries = len(watch.records()), watch.sample_sum("smtp_monitor_tls_tap_libraries")
    elsewhere = client_address(20)
    relay = PostfixClient(lab.network.server, lab.network.folder / "own-client")
    message = scenario.body().replace(b"..", b" .")
    with PythonServer(lab.network.client, tmp_path / "python", address=elsewhere), relay:
        # A server is found when it first reads; where its library is new, its first session may be missed.
        swaks_to(lab, elsewhere, 23_099)
        watch.await_libraries(int(libraries) + 1)
        before += len(records_since(watch, before, 1))
        relay.deliver([elsewhere, MX, server_address(exim.NUMBER)], RELAY_SENDER, message)
        assert relay.await_deliveries() == ["sent"] * 3
        truth = swaks_to(lab, elsewhere, 23_100)
        # What stays in this namespace passes no interface that is watched.
        found = records_since(watch, before, 2)
    assert [record["server"]["ip"] for record in found] == [elsewhere] * 2
    by_relay, by_swaks = sorted(found, key=lambda record: record["start"])
    assert not differences_inside(by_swaks, truth)
    assert by_relay["tapped"]["result"] == "whole"
    (transaction,) = by_relay["tapped"]["transactions"]
    assert (transaction["mail_from"], transaction["outcome"]) == (RELAY_SENDER, "accepted")


def test_of_a_server_elsewhere_nothing_is_told_though_its_client_is_here(
    lab: Laboratory, watch: TappedWatch
) -> None:
    """chasquid, as its TLS is Go's own, stands for one on another machine."""
    before = len(watch.records())
    folder = lab.network.folder / "chasquid"
    folder.mkdir()
    with chasquid(lab.network.client, folder, client_address(21)):
        truth = swaks_to(lab, client_address(21), 23_101)
        (record,) = records_since(watch, before, 1)
    assert truth.inside is not None
    assert truth.inside.transactions
    assert (record["direction"], record["envelope"]) == ("outbound", "hidden")
    assert record["tapped"] is None


def swaks_to(lab: Laboratory, server: str, port: int) -> SessionTruth:
    """From the machine of the servers, by that port of its own: another's may be in TIME-WAIT."""
    return run_swaks(
        *(lab.network.server, (server, 25), (server_address(30), port), "--tls"),
        *("--from", "swaks@client.test", "--to", scenario.RECIPIENT),
        direction="outbound",
    )


def test_clients_that_come_again_by_the_same_port_get_what_is_theirs(
    lab: Laboratory, watch: TappedWatch
) -> None:
    ways = [Way((MX, 25), TLS_1_3), Way((MX, 465), TLS_1_2)] * 2
    before = len(watch.records())
    truths: list[SessionTruth] = []
    with lab.network.client.threads(1) as thread:
        for number, way in enumerate(ways):
            for _ in range(2):
                port = CLIENT_PORT + number // 2
                words = numbered(len(truths))
                truth = thread.submit(converse, way, client_address(3), words, port=port).result()
                truths.append(truth)
                time.sleep(0.5)
    records = records_since(watch, before, len(truths))
    assert sorted(map(key, records)) == sorted(truth.key for truth in truths)
    assert {record["tapped"]["result"] for record in records} == {"whole"}
    for each in {truth.key for truth in truths}:
        mine = sorted(
            (record for record in records if key(record) == each), key=lambda record: record["start"]
        )
        theirs = [truth for truth in truths if truth.key == each]
        assert len(mine) == len(theirs) > 1
        assert not [line for pair in zip(mine, theirs, strict=True) for line in differences_inside(*pair)]


def test_where_they_come_again_at_once_nobody_gets_what_is_anothers(
    lab: Laboratory, watch: TappedWatch
) -> None:
    way = Way((MX, 25), TLS_1_3)
    before = len(watch.records())
    with lab.network.client.threads(1) as thread:
        truths = [
            thread.submit(converse, way, client_address(3), numbered(number), port=CLIENT_PORT + 10).result()
            for number in range(8)
        ]
    records = sorted(records_since(watch, before, len(truths)), key=lambda record: record["start"])
    assert len(records) == len(truths)
    results = [record["tapped"]["result"] for record in records]
    assert set(results) <= {"whole", "unsure"}
    print(results)
    for record, truth in zip(records, truths, strict=True):
        if record["tapped"]["result"] == "whole":
            assert not differences_inside(record, truth)
        else:
            assert not record["tapped"]["transactions"]
