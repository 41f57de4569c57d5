"""The simulation of postgrey against the real one, over years: postgrey lets whoever asks it say what time it
is, so it is asked thousands of questions, and a record of each goes to the simulation.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from msgspec.structs import replace

from monitor.sessions.record import (
    Endpoint,
    GreylisterReach,
    Reach,
    Recipient,
    SessionRecord,
    Transaction,
    TransactionOutcome,
)
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import Decision, Greylister
from tests.lab.network import Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.postgrey import Postgrey
from tests.lab.postgrey_log import Answer, Reason
from tests.monitor.conftest import CLEARTEXT

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace, and postgrey's own user, need root"),
]

BEGAN: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
DELAY: Final = 300
HOUR: Final = 3_600
DAY: Final = 24 * HOUR

SENDERS: Final = (
    *("", "a@client.test", "A+1@client.test", "a+2@Client.test", "list-12-345=x@client.test"),
    *("list-9-1=x@client.test", "b12@client.test", "b13@client.test", "nodomain", "@client.test"),
    *("prvs=0123456789=a@client.test", "prvs=a=0123456789@client.test", "prvs=a=short@client.test"),
    *("prvs=0123456789=0123456780@client.test", "prvs=a=b=c@client.test", "prvs=a=@client.test"),
    *("b_12@client.test", "b_13@client.test", "1é2@client.test", "3é4@client.test"),
    *("MÜLLER@client.test", "mÜller@client.test", "a@b@client.test"),
)
RECIPIENTS: Final = ("User@example.test", "user@EXAMPLE.test", "user+x@example.test", "abuse@example.test")
# Around everything that the rules compare with, and how often each comes.
PAUSES: Final = {
    **dict.fromkeys((0, 1, 60, DELAY - 1, DELAY, DELAY + 1), 6),
    **dict.fromkeys((HOUR - DELAY, HOUR - 1, HOUR, HOUR + 1), 4),
    **dict.fromkeys((5 * HOUR, 2 * DAY - 1, 2 * DAY, 2 * DAY + 1), 1),
}
# postgrey takes old triplets away at night, by the machine's clock; the simulation does it by the records'.
# Within an epoch none gets as old as that, and each epoch has clients of its own.
EPOCH: Final = 30 * DAY
NEXT_EPOCH: Final = 80 * DAY
EPOCHS: Final = 60
QUESTIONS_PER_EPOCH: Final = 200


@dataclass(frozen=True, slots=True)
class Question:
    at: int
    """Seconds since 1970."""
    client: str
    sender: str
    recipient: str

    def for_postgrey(self) -> dict[str, str | int]:
        return {
            "policy_test_time": self.at,
            "client_address": self.client,
            "sender": self.sender,
            "recipient": self.recipient,
        }

    def for_the_simulation(self) -> SessionRecord:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)
        return replace(
            CLEARTEXT,
            start=at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            duration_seconds=0.0,
            client=Endpoint(self.client, 40_000),
            auth=(),
            greylisters={"policy_service": GreylisterReach(Reach.DECIDED)},
            transactions=(
                Transaction(
                    self.sender,
                    250,
                    {},
                    (Recipient(self.recipient, 250, {}, 0.0),),
                    None,
                    TransactionOutcome.ABORTED,
                ),
            ),
        )


def questions(seed: int) -> Iterator[Question]:
    """Half of them ask again what was asked before, some of these from another client."""
    chance = random.Random(seed)
    for epoch in range(EPOCHS):
        clients = [f"10.{epoch}.{host}" for host in ("1.1", "1.200", "2.1")]
        clients += [f"fd77:{epoch:x}:{host}" for host in ("0:0::1", "0:0:8000::1", "0:1::1")]
        senders = chance.sample(SENDERS, 8)
        began = at = BEGAN + epoch * NEXT_EPOCH
        last = Question(at, clients[0], senders[0], RECIPIENTS[0])
        for pause in chance.choices(list(PAUSES), list(PAUSES.values()), k=QUESTIONS_PER_EPOCH):
            at += pause
            if at - began > EPOCH:
                break
            client, sender, recipient = last.client, last.sender, last.recipient
            if chance.random() < 0.5:
                sender, recipient = chance.choice(senders), chance.choice(RECIPIENTS)
            if chance.random() < 0.2:
                client = chance.choice(clients)
            last = Question(at, client, sender, recipient)
            yield last


def decision_of(answer: Answer) -> Decision:
    if answer.deferred:
        return Decision.DEFERRED
    return Decision.PASSED_KNOWN if answer.waited_seconds is None else Decision.PASSED_ON_RETRY


@pytest.fixture
def postgrey() -> Iterator[Postgrey]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    # It has every answer written through to the disk; in memory that takes no time.
    with Network() as network, TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        with Postgrey(network.server, Path(folder, "postgrey"), delay_seconds=DELAY) as postgrey:
            yield postgrey


def test_the_simulation_decides_as_postgrey_over_years(postgrey: Postgrey) -> None:
    asked = list(questions(seed=4))
    postgrey.ask([question.for_postgrey() for question in asked])
    answers = postgrey.answers()
    simulation = Simulation([Greylister.POSTGREY], postgrey_delay_seconds=DELAY)
    wrong = []
    for question, answer in zip(asked, answers, strict=True):
        assert (answer.client, answer.sender, answer.recipient) == (
            question.client,
            question.sender,
            question.recipient,
        )
        before = Counter(simulation.decisions)
        simulation.record(question.for_the_simulation())
        ((_, decision),) = Counter(simulation.decisions) - before
        if decision is not decision_of(answer):
            wrong.append(f"{question}: {answer}, simulated: {decision}")
    simulation.close()
    assert not wrong, f"{len(wrong)} of {len(asked)}"
    reasons = Counter(answer.reason for answer in answers)
    assert all(reasons[reason] > 300 for reason in Reason), reasons
