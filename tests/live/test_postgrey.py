"""postgrey, behind a real Postfix, beside what smtp-horizon says of it: the model of policy services, which
tells of each session whether the service had something to decide on, and the simulation, which tells what it
decided.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from monitor.sessions.record import Channel, Envelope, GreylisterReach, Reach, SessionRecord
from monitor.simulation.attempts import SECOND_US
from monitor.simulation.simulation import Simulation
from monitor.simulation.state_file import open_file
from monitor.simulation.tables import KnownTable, PendingTable
from monitor.simulation.tallies import Decision, Greylister
from tests.lab.network import Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.postfix import Postfix
from tests.lab.postgrey import DELAY_SECONDS, Postgrey
from tests.lab.postgrey_log import Answer, Reason
from tests.lab.postgrey_retries import CASES, Round, Tried, come_and_come_back
from tests.lab.postgrey_sessions import (
    KINDS,
    RESET_UNANSWERED,
    Difference,
    Session,
    add_client_networks,
    drive,
    faces,
    name_in,
)
from tests.lab.truth import Endpoint
from tests.lab.watch import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

IN_TLS = (Envelope.HIDDEN, Envelope.PARTIAL)
SIMULATED_OTHERWISE = {
    "the policy service is down": "Postfix's own 4xx looks like a deferral",
    "VRFY": "no recipient is in the record",
    RESET_UNANSWERED: "no reply tells that the recipient came so far",
    "unknown recipient after the policy": "a 5xx looks like that of a restriction before the policy",
    "relaying refused after the policy": "a 5xx looks like that of a restriction before the policy",
}
"""Kinds of session in clear, and why the simulation can't count what postgrey said."""
RETRIES_SIMULATED_OTHERWISE = {
    ("first in TLS, then in clear", Round.LATE): "the first attempt was out of sight",
    ("first in clear, then in TLS", Round.AGAIN): "the retry that passed was out of sight",
    ("quotes that need not be", Round.LATE): "postgrey is told addresses without their quotes",
}


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of one run."""

    records: list[SessionRecord]
    """In the order in which watch wrote them."""
    sessions: list[tuple[Session, SessionRecord]]
    tried: list[tuple[Tried, SessionRecord]]
    answers: dict[str, list[Answer]]
    """postgrey's, in its order, by the name of the session or case that they belong to."""
    table: dict[str, tuple[int, int]]
    clients: dict[str, tuple[int, int]]

    def asked(self, session: Session) -> bool:
        return bool(self.answers.get(session.name))


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network() as network:
        yield live_through(network)


def live_through(network: Network) -> Run:
    host, folder = network.server, network.folder
    add_client_networks(network)
    with (
        Postgrey(host, folder / "postgrey") as postgrey,
        Postfix(host, folder / "postfix", faces(postgrey)),
        Watch(host, folder) as watch,
    ):
        with network.client.threads(8) as threads:
            sessions = drive(threads, postgrey)
            tried = come_and_come_back(threads)
        watch.await_silence()
        assert watch.stop() == 0, watch.said()
        assert postgrey.stop() == 0, postgrey.said()
        lines = watch.records_file.read_bytes().splitlines()
        records = [msgspec.json.decode(line, type=SessionRecord) for line in lines]
        happened = with_records([*sessions, *tried], records)
        answers = defaultdict(list)
        for answer in postgrey.answers():
            name = name_in(answer.recipient)
            assert name is not None, answer
            answers[name].append(answer)
        return Run(
            records,
            [(one, record) for one, record in happened if isinstance(one, Session)],
            [(one, record) for one, record in happened if isinstance(one, Tried)],
            dict(answers),
            postgrey.table(),
            postgrey.clients(),
        )


def with_records(
    happened: list[Session | Tried], records: list[SessionRecord]
) -> list[tuple[Session | Tried, SessionRecord]]:
    """Each with its record: those whose two ends are the same pair in order of time."""
    happened = sorted(happened, key=lambda one: (one.client, one.server, one.connected_at))
    records = sorted(records, key=lambda record: (*ends(record), record.start))
    assert [(one.client, one.server) for one in happened] == [ends(record) for record in records]
    pairs = sorted(zip(happened, records, strict=True), key=lambda pair: pair[0].connected_at)
    for one, record in pairs:
        assert {name_in(to) for to, _ in recipients(record)} <= {one.name}
    return pairs


def ends(record: SessionRecord) -> tuple[Endpoint, Endpoint]:
    return (record.client.ip, record.client.port), (record.server.ip, record.server.port)


def decided(record: SessionRecord) -> bool:
    found = record.greylisters["policy_service"]
    assert found in (GreylisterReach(Reach.DECIDED), GreylisterReach(Reach.NO_ENVELOPE)), "all was captured"
    return found.reach is Reach.DECIDED


def recipients(record: SessionRecord) -> list[tuple[str, int | None]]:
    """Those in clear, with the replies. postgrey is told an address without its quotes."""
    return [
        ((recipient.address or "").replace('"', ""), recipient.code)
        for transaction in record.transactions
        for recipient in transaction.recipients
    ]


# ---------------------------------------------------------------------- was it asked?


def test_every_kind_of_session_occurred(run: Run) -> None:
    records = [record for _, record in run.sessions]
    assert len(records) > 100
    assert {(record.channel, record.envelope) for record in records} == {
        *((Channel.CLEARTEXT, Envelope.VISIBLE), (Channel.CLEARTEXT, Envelope.NONE)),
        *((Channel.STARTTLS, Envelope.HIDDEN), (Channel.STARTTLS, Envelope.PARTIAL)),
        *((Channel.STARTTLS, Envelope.NONE), (Channel.IMPLICIT_TLS, Envelope.NONE)),
        (Channel.IMPLICIT_TLS, Envelope.HIDDEN),
    }
    assert {session.kind for session, _ in run.sessions} == {*KINDS, RESET_UNANSWERED}
    assert {session.difference for session, _ in run.sessions} == {*Difference, None}
    assert {decided(record) for record in records} == {True, False}
    clients = {record.client.ip for record in records}
    assert {client.rpartition(":" if ":" in client else ".")[0] for client in clients} == {
        *("10.77.1", "10.77.2", "10.77.3"),
        *("fd77::1", "fd77:0:0:1:"),
    }


def test_postgrey_was_asked_in_exactly_the_sessions_that_the_model_calls_decided(run: Run) -> None:
    wrong = [
        f"{session.kind}: {len(run.answers.get(session.name, []))} questions, "
        f"the model says {record.greylisters['policy_service']}"
        for session, record in run.sessions
        if session.difference is None and run.asked(session) != decided(record)
    ]
    assert not wrong


def test_what_the_model_cannot_know_makes_the_named_differences(run: Run) -> None:
    agreeing = [
        f"{session.kind}: {session.difference}"
        for session, record in run.sessions
        if session.difference is not None and run.asked(session) == decided(record)
    ]
    assert not agreeing
    # It errs one way: it counts what postgrey might have been asked. VRFY is the only exception.
    missed = {session.kind for session, record in run.sessions if run.asked(session) > decided(record)}
    assert missed == {"VRFY"}


def test_postgrey_was_asked_about_every_recipient_in_clear_that_only_it_could_refuse(run: Run) -> None:
    compared = 0
    for session, record in run.sessions:
        if record.channel is not Channel.CLEARTEXT or session.difference is not None:
            continue
        answered = run.answers.get(session.name, [])
        assert all(answer.deferred for answer in answered), "each of these triplets was new"
        asked = Counter(answer.recipient for answer in answered)
        seen = Counter(to for to, _ in recipients(record))
        assert asked <= seen, session.kind
        codes = [code for to, code in recipients(record) if to in seen - asked]
        assert all(code is not None and code >= 500 for code in codes), session.kind
        compared += asked.total()
    assert compared > 40


def test_postgrey_has_the_triplets_of_dark_sessions_which_their_records_lack(run: Run) -> None:
    dark = [(session, record) for session, record in run.sessions if record.envelope is Envelope.HIDDEN]
    assert all(record.transactions == () for _, record in dark)
    asked = {session.name for session, _ in dark if run.asked(session)}
    assert len(asked) > 15
    assert {name_in(key) for key in run.table} >= asked
    assert len(dark) - len(asked) == sum(session.difference is not None for session, _ in dark)


# ---------------------------------------------------------------------- what did it say?


def test_postgrey_says_to_each_attempt_what_its_rules_are_known_to_be(run: Run) -> None:
    assert {one.case for one, _ in run.tried} == set(CASES)
    wrong = [
        f"{one.case}, {one.attempt.round.name}: {answer.reason}, {one.code}"
        for one, _, answer in attempts(run)
        if answer.reason is not one.attempt.reason or one.code != (450 if answer.deferred else 250)
    ]
    assert not wrong


def attempts(run: Run) -> Iterator[tuple[Tried, SessionRecord, Answer]]:
    """Each attempt with its record and with what postgrey said to it."""
    waiting = {one.name: iter(run.answers[one.name]) for one, _ in run.tried}
    for one, record in run.tried:
        yield one, record, next(waiting[one.name])
    assert not [answer for answers in waiting.values() for answer in answers]


def test_successes_within_an_hour_count_once_for_a_clients_whitelisting(run: Run) -> None:
    assert {count for count, _ in run.clients.values()} == {1}
    reasons = {answer.reason for answers in run.answers.values() for answer in answers}
    assert Reason.CLIENT_AWL not in reasons


# ---------------------------------------------------------------------- does the simulation say the same?


Decisions = dict[tuple[str, str], Counter[Decision]]
"""What the simulation counted, by the session's community id and start."""


@pytest.fixture(scope="module")
def simulated(run: Run) -> Decisions:
    simulation = Simulation([Greylister.POSTGREY], postgrey_delay_seconds=DELAY_SECONDS)
    decisions = {}
    before = Counter(simulation.decisions)
    for record in run.records:
        simulation.record(record)
        now = Counter(simulation.decisions)
        decisions[identity(record)] = Counter({name: times for (_, name), times in (now - before).items()})
        before = now
    simulation.close()
    assert len(decisions) == len(run.records)
    return decisions


def identity(record: SessionRecord) -> tuple[str, str]:
    return record.community_id, record.start


def expected(record: SessionRecord, answers: Iterable[Answer]) -> Counter[Decision]:
    """What the simulation has to count, by what postgrey said."""
    seen = {to for to, _ in recipients(record)}
    counted = Counter(
        decision_of(answer) for answer in answers if record.envelope not in IN_TLS or answer.recipient in seen
    )
    if record.envelope in IN_TLS:
        counted[Decision.OUT_OF_SIGHT] += 1
    return counted


def decision_of(answer: Answer) -> Decision:
    if answer.deferred:
        return Decision.DEFERRED
    return Decision.PASSED_KNOWN if answer.waited_seconds is None else Decision.PASSED_ON_RETRY


def test_the_simulation_decides_on_every_session_as_postgrey_did(run: Run, simulated: Decisions) -> None:
    otherwise = {
        session.kind: (simulated[identity(record)], expected(record, answers))
        for session, record in run.sessions
        for answers in [run.answers.get(session.name, [])]
        if simulated[identity(record)] != expected(record, answers)
    }
    assert otherwise.keys() == SIMULATED_OTHERWISE.keys(), otherwise


def test_the_simulation_decides_on_every_retry_as_postgrey_did(run: Run, simulated: Decisions) -> None:
    otherwise = {
        (one.case, one.attempt.round): (simulated[identity(record)], answer)
        for one, record, answer in attempts(run)
        if simulated[identity(record)] != expected(record, [answer])
    }
    assert otherwise.keys() == RETRIES_SIMULATED_OTHERWISE.keys(), otherwise
    decisions = sum(simulated.values(), Counter())
    assert decisions.keys() == {
        *(Decision.DEFERRED, Decision.PASSED_ON_RETRY, Decision.PASSED_KNOWN),
        *(Decision.OUT_OF_SIGHT, Decision.UNKNOWN),
    }


def test_the_simulations_table_is_postgreys(run: Run, tmp_path: Path) -> None:
    """But for the triplets of sessions that are simulated otherwise, and of those that were out of sight."""
    otherwise = {session.name for session, _ in run.sessions if session.kind in SIMULATED_OTHERWISE}
    otherwise |= {session.name for session, _ in run.sessions if session.kind == "a quoted local part"}
    otherwise |= {
        one.name for one, _ in run.tried if (one.case, one.attempt.round) in RETRIES_SIMULATED_OTHERWISE
    }
    named = [(session.name, record) for session, record in run.sessions]
    named += [(one.name, record) for one, record in run.tried]
    otherwise |= {name for name, record in named if record.envelope in IN_TLS}

    simulation = Simulation([Greylister.POSTGREY], tmp_path / "state", postgrey_delay_seconds=DELAY_SECONDS)
    for name, record in named:
        if name not in otherwise:
            simulation.record(record)
    pending, known = simulation.pending[Greylister.POSTGREY,], simulation.known[Greylister.POSTGREY,]
    simulation.close()

    table = {key: times for key, times in run.table.items() if name_in(key) not in otherwise}
    has_passed = {key: last - first >= DELAY_SECONDS for key, (first, last) in table.items()}
    assert Counter(has_passed.values()) == {False: pending, True: known}
    assert pending > 50
    assert known > 10
    connection, digests = open_file(tmp_path / "state")
    try:
        waiting, passed = (
            PendingTable(connection, "postgrey_pending"),
            KnownTable(connection, "postgrey_passed"),
        )
        for key, (first, last) in table.items():
            network, sender, recipient = key.split("/")
            digest = digests(str(ip_address(network)).encode(), sender.encode(), recipient.encode())
            if has_passed[key]:
                acquaintance = passed.find(digest)
                assert acquaintance is not None, key
                assert abs(acquaintance.last_us // SECOND_US - last) <= 1, key
            else:
                triplet = waiting.find(digest)
                assert triplet is not None, key
                assert abs(triplet.first_us // SECOND_US - first) <= 1, key
    finally:
        connection.close()
