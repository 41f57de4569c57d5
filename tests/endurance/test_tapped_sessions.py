"""5,000 sessions inside TLS with Postfix: what the tap tells is what Postfix logged, session by session."""

import os
from collections import Counter
from typing import Final

import pytest

from tests.endurance.enduring import shown
from tests.lab.laboratory import laboratory
from tests.lab.packages import LabUnavailableError
from tests.tls_tap.crowd import Crowd, drive

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

SESSIONS: Final = 5_000


@pytest.fixture(scope="module")
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    try:
        with laboratory() as lab:
            crowd = drive(lab, tmp_path_factory.mktemp("crowd"), SESSIONS)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with shown(request.config):
        messages = sum(len(truth.inside.messages or ()) for truth in crowd.logged if truth.inside is not None)
        print(f"\n{len(crowd.logged):,} sessions with {messages:,} messages logged by Postfix")
    return crowd


def test_there_are_as_many_as_there_were(crowd: Crowd) -> None:
    assert len(crowd.records) == len(crowd.logged) == len(crowd.told) == SESSIONS
    assert Counter(record["tapped"]["result"] for record in crowd.records) == {"whole": SESSIONS}


def test_each_is_recorded_with_what_its_client_did_and_what_postfix_logged(crowd: Crowd) -> None:
    assert not crowd.complaints()


def test_nothing_was_lost(crowd: Crowd) -> None:
    assert crowd.status == 0
    assert not crowd.losses()
