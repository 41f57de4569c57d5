"""Where watch looks: on `any` interface each session is seen once, whichever way its packets take."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab import postfix, scenario
from tests.lab.compare import differences, unmatched
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.postfix import Postfix
from tests.lab.truth import SessionTruth
from tests.lab.watch import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network() as network, Postfix(network.server, network.folder / "postfix", (postfix.MX,)):
        yield network


def have_sessions(network: Network) -> list[SessionTruth]:
    """From the other host, and from the watched host to itself: over the loopback interface."""
    conversations = (scenario.plain, scenario.starttls, scenario.pipelined, scenario.in_chunks)
    truths = []
    with network.client.threads(2) as outside, network.server.threads(2) as inside:
        for family in (4, 6):
            mx = server_address(1, family), 25
            for conversation in conversations:
                inward = outside.submit(conversation, mx, client_address(5, family))
                internal = inside.submit(conversation, mx, server_address(30, family))
                truths += [inward.result(), replace(internal.result(), direction="internal")]
    return truths


@pytest.mark.parametrize(
    ("interface", "directions"),
    [
        ("any", {"inbound", "internal"}),
        pytest.param("lo", {"internal"}, marks=pytest.mark.thorough),
        pytest.param("mail0", {"inbound"}, marks=pytest.mark.thorough),
    ],
)
def test_each_session_on_the_interface_is_seen_once(
    network: Network, interface: str, directions: set[str]
) -> None:
    folder = network.folder / interface
    folder.mkdir()
    with Watch(network.server, folder, interface=interface) as watch:
        truths = have_sessions(network)
        watch.await_silence()
        assert watch.stop() == 0
        records = watch.records()
    pairs, complaints = unmatched(records, [truth for truth in truths if truth.direction in directions])
    assert not complaints
    assert not [line for record, truth in pairs for line in differences(record, truth)]
