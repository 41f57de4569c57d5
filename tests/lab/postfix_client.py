"""Postfix's own smtp(8) client: an instance that relays what it is handed on the loopback interface.

The recipient names the server: mail for 10.77.0.1@example.test goes to 10.77.0.1, port 25, with TLS where the
server offers it. Its log has no local ports, but the queue names under which the servers took the messages.
"""

import re
import smtplib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab.network import Namespace, client_address, server_address
from tests.lab.postfix import LOG, launch_postfix, prepare_postfix
from tests.lab.server import MAIL_DOMAIN, MailServer
from tests.lab.truth import Endpoint, SessionTruth

_INJECTION: Final[Endpoint] = ("127.0.0.1", 10025)

_SETTINGS: Final = """\
myhostname = relay.client.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtp_tls_security_level = may
smtp_tls_loglevel = 1
transport_maps = texthash:$config_directory/transport
virtual_transport = error:none of ours
bounce_queue_lifetime = 0
"""
_DELIVERED: Final = re.compile(r" to=<[^>]+>, .*status=(?P<status>\w+) \(")


class PostfixClient(MailServer):
    """A server to those who hand it mail, a client to the rest of the lab."""

    name = "postfix client"

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(namespace, folder)
        self.log = folder / LOG
        self.listeners = frozenset({_INJECTION})
        self._handed_over = 0

    def _launch(self) -> subprocess.Popen[bytes]:
        configuration = prepare_postfix(
            self.folder,
            _SETTINGS,
            f"{_INJECTION[0]}:{_INJECTION[1]} inet n - n - - smtpd\n",
        )
        servers = [
            address(number) for address in (server_address, client_address) for number in range(1, 100)
        ]
        (configuration / "transport").write_text(
            "".join(f"{server}@{MAIL_DOMAIN} smtp:[{server}]:25\n" for server in servers)
        )
        return launch_postfix(self.namespace, self.folder)

    def deliver(self, servers: Sequence[str], sender: str, message: bytes) -> None:
        """Relays one message to each of the servers, at its own pace."""
        with self.namespace.threads(1) as thread:
            thread.submit(self._hand_over, servers, sender, message).result()
        self._handed_over += len(servers)

    def await_deliveries(self, *, timeout_seconds: float = 15) -> list[str]:
        """The outcome of each message so far: sent, bounced or deferred."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            outcomes = _DELIVERED.findall(self.said())
            if len(outcomes) >= self._handed_over:
                return outcomes
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._handed_over} messages handed over, {len(outcomes)} delivered")
            time.sleep(0.1)

    def sessions(self) -> list[SessionTruth]:
        return []

    def _hand_over(self, servers: Sequence[str], sender: str, message: bytes) -> None:
        with smtplib.SMTP(*_INJECTION) as session:
            for server in servers:
                session.sendmail(sender, f"{server}@{MAIL_DOMAIN}", message)
