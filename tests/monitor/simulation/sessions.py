"""Finished sessions written by hand, as short as the tests want them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from monitor.sessions.record import (
    By,
    Data,
    Endpoint,
    Envelope,
    GreylisterReach,
    Reach,
    Recipient,
    SessionRecord,
    Transaction,
    TransactionOutcome,
)
from monitor.simulation.simulation import Simulation
from tests.monitor.conftest import CLEARTEXT

BEGIN = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEGIN_NS = int(BEGIN.timestamp()) * 1_000_000_000
MINUTE, HOUR, DAY = 60, 3_600, 86_400

ACCEPTED, REJECTED = TransactionOutcome.ACCEPTED, TransactionOutcome.REJECTED
ABORTED, UNKNOWN = TransactionOutcome.ABORTED, TransactionOutcome.UNKNOWN
DECIDED = GreylisterReach(Reach.DECIDED)
NO_ENVELOPE = GreylisterReach(Reach.NO_ENVELOPE)
STARTTLS = GreylisterReach(Reach.BYPASSED, By.STARTTLS)
IMPLICIT_TLS = GreylisterReach(Reach.BLIND, By.IMPLICIT_TLS)


def reaches(
    greylite: GreylisterReach, policy_service: GreylisterReach = DECIDED
) -> dict[str, GreylisterReach]:
    return {"greylite": greylite, "policy_service": policy_service}


def mail(
    sender: str | None = "a@client.example",
    to: Sequence[tuple[str | None, int | None]] = (("b@example.test", 250),),
    outcome: TransactionOutcome = ABORTED,
    *,
    after: float = 0,
    data_code: int | None = None,
    mail_code: int | None = 250,
    mail_params: dict[str, str | None] | None = None,
) -> Transaction:
    """A transaction; ABORTED: the client goes away after RCPT, and nobody has the mail."""
    return Transaction(
        sender,
        mail_code,
        mail_params or {},
        tuple(Recipient(address, code, {}, None if code is None else after) for address, code in to),
        None if data_code is None else Data("DATA", 100, data_code),
        outcome,
    )


def session(at: float, *mails: Transaction, client: str = "192.0.2.1", **changes: Any) -> SessionRecord:
    """A clear session that begins `at` seconds after noon."""
    return replace(
        CLEARTEXT,
        **{
            "start": (BEGIN + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "client": Endpoint(client, 40_000),
            "auth": (),
            "duration_seconds": 1.0,
            "transactions": mails,
            "greylisters": reaches(DECIDED),
            **changes,
        },
    )


def hidden(at: float, client: str = "192.0.2.1", by: GreylisterReach = STARTTLS) -> SessionRecord:
    return session(at, client=client, envelope=Envelope.HIDDEN, greylisters=reaches(by))


def at_ns(seconds: float) -> int:
    return BEGIN_NS + int(seconds * 1_000_000) * 1_000


def decided(simulation: Simulation) -> dict[str, int]:
    """All decisions that were taken, of all greylisters."""
    return {choice.value: count for (_, choice), count in simulation.decisions.items() if count}


def ended(simulation: Simulation) -> dict[str, int]:
    """All fates that came."""
    return {fate.value: count for (_, fate), count in simulation.fates.items() if count}


def each_decision(simulation: Simulation, *records: SessionRecord) -> list[list[str]]:
    """What each record was decided on, in alphabetical order."""
    found = []
    for record in records:
        before = dict(simulation.decisions)
        simulation.record(record)
        found.append(
            [
                choice.value
                for (name, choice), count in simulation.decisions.items()
                for _ in range(count - before[name, choice])
            ]
        )
    return found


def much_later(simulation: Simulation, seconds: float) -> None:
    """Ticks until nothing that is too old is left."""
    for tick in range(3):
        simulation.tick(at_ns(seconds + 2 * tick))
