"""200 sessions at once with Postfix; tests/endurance has 5,000."""

import os
from typing import Final

import pytest

from tests.lab.laboratory import Laboratory
from tests.tls_tap.crowd import Crowd, drive

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

SESSIONS: Final = 200


@pytest.fixture(scope="module")
def crowd(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    return drive(lab, tmp_path_factory.mktemp("crowd"), SESSIONS)


def test_each_is_recorded_with_what_its_client_did_and_what_postfix_logged(crowd: Crowd) -> None:
    assert len(crowd.records) == len(crowd.logged) == len(crowd.told) == SESSIONS
    assert not crowd.complaints()


def test_nothing_was_lost(crowd: Crowd) -> None:
    assert crowd.status == 0
    assert not crowd.losses()
