"""Python's smtplib as a client, which is what most scripts send their mail with."""

import smtplib
import socket
import ssl
from typing import Final

from tests.lab.chronicle import Chronicle
from tests.lab.raw_client import trusting_context
from tests.lab.truth import Endpoint, SessionTruth

_TIMEOUT_SECONDS: Final = 10.0


def send_with_smtplib(
    server: Endpoint, client_ip: str, sender: str, recipients: list[str], message: bytes, *, tls: bool = False
) -> SessionTruth:
    """One message, of lines ended by CRLF, none of which begins with a dot."""
    with smtplib.SMTP(
        *server, local_hostname="library.test", timeout=_TIMEOUT_SECONDS, source_address=(client_ip, 0)
    ) as session:
        assert isinstance(session.sock, socket.socket)
        chronicle = Chronicle("smtplib", session.sock.getsockname()[:2], server)
        _hello(session, chronicle)
        if tls:
            chronicle.hello_sent("")  # no name is sent for a server that is an address
            context = trusting_context()
            code, _ = session.starttls(context=context)
            chronicle.starttls(code)
            assert isinstance(session.sock, ssl.SSLSocket)
            version, cipher = session.sock.version(), session.sock.cipher()
            assert version is not None
            assert cipher is not None
            chronicle.tls_established(version, cipher[0])
            _hello(session, chronicle)
        chronicle.mail(sender, session.mail(sender)[0])
        for to in recipients:
            chronicle.recipient(to, session.rcpt(to)[0])
        chronicle.data("DATA", len(message) + len(".\r\n"), session.data(message)[0])
        session.quit()
        chronicle.end("quit")
        return chronicle.truth()


def _hello(session: smtplib.SMTP, chronicle: Chronicle) -> None:
    code, _ = session.ehlo("library.test")
    chronicle.helo(
        "EHLO", "library.test", code, frozenset(keyword.upper() for keyword in session.esmtp_features)
    )
