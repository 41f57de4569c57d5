"""Held against the real program: a Postfix that asked a real postgrey, and what both of them did."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from monitor.sessions.record import Envelope, SessionRecord
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import Greylister
from tests.capture_truth import CAPTURES
from tests.monitor.simulation.sessions import decided, each_decision
from tests.segments import frozen_records, segments_of

POSTGREY = Greylister.POSTGREY

CAPTURE = "greylist_postgrey"
DELAY_SECONDS = 3  # it ran as postgrey --delay=3


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    truth: dict[str, Any] = json.loads((CAPTURES / f"{CAPTURE}.truth.json").read_text())
    return truth


@pytest.fixture(scope="module")
def records() -> list[SessionRecord]:
    return frozen_records(segments_of(CAPTURE))


def visible(
    truth: dict[str, Any], records: list[SessionRecord]
) -> Iterator[tuple[SessionRecord, dict[str, Any]]]:
    """Each session in clear, and what the server's own log has of it."""
    logged = {tuple(session["client"]): session for session in truth["server_log_sessions"]}
    for record in records:
        if record.envelope is Envelope.VISIBLE:
            yield record, logged[record.client.ip, record.client.port]


def test_each_session_is_decided_as_the_real_postgrey_decided_it(
    truth: dict[str, Any], records: list[SessionRecord]
) -> None:
    with closing(Simulation(["postgrey"], postgrey_delay_seconds=DELAY_SECONDS)) as simulation:
        sessions = list(visible(truth, records))
        assert len(sessions) == 8
        for record, logged in sessions:
            (decisions,) = each_decision(simulation, record)
            greylisted = [reject["to"] for reject in logged["rejects"] if "Greylisted" in reject["line"]]
            passed = [address for mail in logged["transactions"] for address in mail["rcpts"]]
            assert decisions.count("deferred") == len(greylisted)
            assert len(decisions) - decisions.count("deferred") == len(passed)
            codes = [to.code for mail in record.transactions for to in mail.recipients]
            assert (codes.count(450), codes.count(250)) == (len(greylisted), len(passed))
        assert decided(simulation) == {"deferred": 7, "passed_on_retry": 4, "passed_known": 1}


def test_what_tls_hid_is_out_of_sight(records: list[SessionRecord]) -> None:
    with closing(Simulation(["postgrey"], postgrey_delay_seconds=DELAY_SECONDS)) as simulation:
        for record in records:
            simulation.record(record)
        assert decided(simulation)["out_of_sight"] == 2
        # Of one that passed, the network had a hidden session in between: that may have been its retry.
        assert decided(simulation)["passed_on_retry"] == 4
        assert simulation.retry_delays[POSTGREY,].count == 3


def test_with_its_usual_delay_all_would_still_wait(records: list[SessionRecord]) -> None:
    with closing(Simulation(["postgrey"])) as simulation:
        for record in records:
            simulation.record(record)
        assert set(decided(simulation)) == {"deferred", "out_of_sight"}


def test_greylite_before_that_server_sees_no_recipient_accepted_until_postgrey_lets_it(
    records: list[SessionRecord],
) -> None:
    with closing(Simulation(["greylite"])) as simulation:
        for record in records:
            simulation.record(record)
        counts = decided(simulation)
        assert counts["unread_tls"] == 2
        assert counts["deferred"] >= 1
