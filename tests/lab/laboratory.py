"""The whole lab: two hosts, three mail servers on the one, two relaying clients on the other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab.exim import Exim, EximClient
from tests.lab.network import Network
from tests.lab.opensmtpd import OpenSmtpd
from tests.lab.packages import ensure
from tests.lab.postfix import Postfix
from tests.lab.postfix_client import PostfixClient
from tests.lab.server import MailServer


@dataclass(frozen=True, slots=True)
class Laboratory:
    network: Network
    postfix: Postfix
    exim: Exim
    opensmtpd: OpenSmtpd
    postfix_client: PostfixClient
    exim_client: EximClient

    @property
    def servers(self) -> tuple[MailServer, ...]:
        """Those on the watched host."""
        return self.postfix, self.exim, self.opensmtpd


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """Fetches what is missing, starts everything, and removes every trace of it afterwards.

    Raises LabUnavailableError.
    """
    ensure()
    with Network() as network, ExitStack() as running:
        folder = network.folder
        lab = Laboratory(
            network,
            Postfix(network.server, folder / "postfix"),
            Exim(network.server, folder / "exim"),
            OpenSmtpd(network.server, folder / "opensmtpd"),
            PostfixClient(network.client, folder / "postfix-client"),
            EximClient(network.client, folder / "exim-client"),
        )
        starting = (*lab.servers, lab.postfix_client)
        for server in starting:
            running.callback(server.stop)
        with ThreadPoolExecutor(len(starting)) as threads:
            list(threads.map(MailServer.start, starting))
        yield lab
