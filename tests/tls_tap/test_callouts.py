"""A server that is a client meanwhile, in the same process: before it answers RCPT, Exim asks another server
whether there is such a recipient, inside TLS. What it says there is no part of the session that it serves."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from tests.lab import exim, scenario
from tests.lab.compare import differences_inside
from tests.lab.exim import Exim
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.python_server import PythonServer
from tests.lab.scenario import TLS_1_2, TLS_1_3
from tests.lab.tls_scenario import Way, converse, one_message
from tests.lab.truth import SessionTruth
from tests.tls_tap.tapped_watch import TappedWatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

ASKED: Final = client_address(20)
EXIM: Final = server_address(exim.NUMBER)
_ROUTES: Final = f"""
begin routers
asked:
  driver = manualroute
  transport = asked
  route_list = * {ASKED}
begin transports
asked:
  driver = smtp
"""


class AskingExim(Exim):
    def _configure(self) -> None:
        super()._configure()
        settings = self.folder / "etc/exim4/exim4.conf"
        asking = "accept domains = example.test\n  verify = recipient/callout=10s,no_cache\n"
        text = settings.read_text().replace("accept domains = example.test\n", asking)
        assert asking in text
        settings.write_text(text + _ROUTES)


@dataclass(frozen=True, slots=True)
class Place:
    network: Network
    watch: TappedWatch


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("callouts")
    with (
        Network() as network,
        PythonServer(network.client, folder / "python", address=ASKED),
        AskingExim(network.server, network.folder / "exim"),
        TappedWatch(network.server, folder) as watch,
    ):
        yield Place(network, watch)


CONVERSATIONS: Final[dict[str, Callable[[], SessionTruth]]] = {
    "in clear": partial(scenario.plain, (EXIM, 25), client_address(3)),
    "starttls": partial(converse, Way((EXIM, 25), TLS_1_3), client_address(3), one_message),
    "implicit": partial(converse, Way((EXIM, 465), TLS_1_2), client_address(3), one_message),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_a_server_says_as_a_client_is_not_in_the_session_that_it_serves(place: Place, name: str) -> None:
    with place.network.client.threads(1) as thread:
        truth = thread.submit(CONVERSATIONS[name]).result()
    record = place.watch.record_of(truth)
    asked = [one for one in place.watch.records() if one["server"]["ip"] == ASKED]
    assert asked
    assert asked[-1]["envelope"] == "hidden", "the callout was inside TLS"
    assert not differences_inside(record, truth)
