"""The sessions that are driven through the lab's servers: every kind that a mail server meets in a day.

A conversation is a function of where to go and whence; `conversations()` lists them all, some many times.
They run in several threads at once, so sessions overlap.
"""

import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tests.lab import exim, opensmtpd, postfix
from tests.lab.network import client_address, server_address
from tests.lab.raw_client import ConversationEndedError, RawClient, trusting_context
from tests.lab.sasl import PASSWORD, USER
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT
from tests.lab.truth import Endpoint, SessionTruth

Conversation = Callable[[Endpoint, str], SessionTruth]

SENDER: Final = "a@client.test"
RECIPIENT: Final = f"user1@{MAIL_DOMAIN}"
TLS_1_2: Final = ssl.TLSVersion.TLSv1_2
TLS_1_3: Final = ssl.TLSVersion.TLSv1_3


def body(lines: int = 20) -> bytes:
    """A message of that many lines, one of which looks like a command and one of which is a dot."""
    text = b"Subject: lab\r\n\r\nSTARTTLS\r\nMAIL FROM:<x@y.test>\r\n..\r\n"
    return text + b"A line of the lab's message, as long as lines are.\r\n" * lines


def send(client: RawClient, *recipients: str, lines: int = 20) -> None:
    client.mail(SENDER)
    for to in recipients or (RECIPIENT,):
        client.recipient(to)
    client.data(body(lines))


def plain(server: Endpoint, client_ip: str, *, verb: str = "EHLO", lines: int = 20) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello(verb=verb)
        send(client, lines=lines)
        client.quit()
        return client.truth()


def several_messages(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        send(client, RECIPIENT, f"user2@{MAIL_DOMAIN}", lines=200)
        client.mail("")
        client.recipient(RECIPIENT)
        client.rset()
        send(client)
        client.mail(SENDER)
        client.hello("again.test")
        send(client)
        client.command("NOOP")
        client.quit()
        return client.truth()


def some_refused(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        send(client, RECIPIENT, UNKNOWN_RECIPIENT, f"user2@{MAIL_DOMAIN}", BUSY_RECIPIENT)
        client.quit()
        return client.truth()


def all_refused(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.mail(SENDER)
        client.recipient(UNKNOWN_RECIPIENT)
        client.recipient("user@elsewhere.test")
        client.quit()
        return client.truth()


def pipelined(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.pipelined(SENDER, [RECIPIENT, UNKNOWN_RECIPIENT, f"user2@{MAIL_DOMAIN}"], body())
        client.pipelined(SENDER, [RECIPIENT], body(400))
        client.quit()
        return client.truth()


def in_chunks(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.mail(SENDER, " SIZE=100 BODY=8BITMIME")
        client.recipient(RECIPIENT)
        whole = body().replace(b"..", b".")
        client.chunks([whole[:7], whole[7:301], whole[301:]])
        client.mail(SENDER)
        client.recipient(RECIPIENT)
        client.chunks([body(300)])
        client.quit()
        return client.truth()


def starttls(
    server: Endpoint,
    client_ip: str,
    *,
    version: ssl.TLSVersion = TLS_1_3,
    sni: str | None = None,
    mail: bool = True,
    login: bool = False,
    recipients: tuple[str, ...] = (),
) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        if not client.starttls(trusting_context(version), sni=sni):
            raise ConversationEndedError("TLS failed")
        client.hello()
        if login:
            client.auth_plain(USER, PASSWORD)
        if mail:
            send(client, *recipients, lines=60)
        client.quit()
        return client.truth()


def starttls_after_mail(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        send(client)
        if not client.starttls(trusting_context()):
            raise ConversationEndedError("TLS failed")
        client.hello()
        send(client)
        client.quit()
        return client.truth()


def starttls_refused(server: Endpoint, client_ip: str, *, give_up: bool = False) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.ask_starttls()
        if not give_up:
            send(client)
        client.quit()
        return client.truth()


def starttls_abandoned(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.ask_starttls()
        client.close()
        return client.truth()


def starttls_hello_then_reset(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.ask_starttls()
        client.start_handshake_only()
        client.abort()
        return client.truth()


def starttls_failing(server: Endpoint, client_ip: str, *, version: ssl.TLSVersion = TLS_1_3) -> SessionTruth:
    """Fails by the client, which trusts no such certificate; or by the server, if it can't do TLS."""
    with RawClient(server, client_ip) as client:
        client.hello()
        if client.starttls(trusting_context(version, verify=True), sni="mx.example.test"):
            raise ConversationEndedError("TLS should have failed")
        client.close()
        return client.truth()


def implicit_tls(
    server: Endpoint, client_ip: str, *, version: ssl.TLSVersion = TLS_1_3, login: bool = False
) -> SessionTruth:
    with RawClient(server, client_ip, tls=trusting_context(version)) as client:
        client.hello()
        if login:
            client.auth_login(USER, PASSWORD)
        send(client)
        client.quit()
        return client.truth()


def submission_without_tls(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.mail(SENDER)
        client.quit()
        return client.truth()


def auth_in_clear(server: Endpoint, client_ip: str, *, mechanism: str = "PLAIN") -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        login = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        login(USER, "wrong")
        login(USER, PASSWORD)
        send(client)
        client.quit()
        return client.truth()


def behind_a_proxy(server: Endpoint, client_ip: str, *, version: int = 1) -> SessionTruth:
    # Documentation addresses; the port only has to differ from session to session.
    with RawClient(server, client_ip, await_banner=False) as client:
        source, port = "203.0.113.7", client.local[1]
        client.chronicle.proxied_client = source, port
        if version == 1:
            client.send_bytes(f"PROXY TCP4 {source} 192.0.2.1 {port} 25\r\n".encode())
        else:
            addresses = bytes([203, 0, 113, 7, 192, 0, 2, 1])
            ports = port.to_bytes(2, "big") + (25).to_bytes(2, "big")
            head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + (12).to_bytes(2, "big")
            client.send_bytes(head + addresses + ports)
        client.await_banner()
        client.hello()
        send(client)
        client.quit()
        return client.truth()


def leave_after(
    server: Endpoint, client_ip: str, *, step: str, how: Callable[[RawClient], None]
) -> SessionTruth:
    """Goes away without QUIT after a step: banner, helo, mail, recipient, body or message."""
    with RawClient(server, client_ip) as client:
        if step != "banner":
            client.hello()
        if step in ("mail", "recipient", "body", "message"):
            client.mail(SENDER)
        if step in ("recipient", "body", "message"):
            client.recipient(RECIPIENT)
        if step == "body":
            client.send_unanswered_body(body())
        if step == "message":
            client.data(body())
        how(client)
        return client.truth()


def wait_for_the_timeout(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.reply()
        client.await_close()
        return client.truth()


def err_too_often(server: Endpoint, client_ip: str) -> SessionTruth:
    with RawClient(server, client_ip) as client:
        client.hello()
        client.mail(SENDER)
        for _ in range(3):  # the face's hard error limit: then the server says 421 unasked
            client.recipient("user@elsewhere.test")
        client.reply()
        client.await_close()
        return client.truth()


# Places.
_MX: Final = [(server_address(1), 25), (server_address(1, 6), 25)]
_SUBMISSION: Final = [(server_address(1), 587)]
_SMTPS: Final = [(server_address(1), 465), (server_address(1, 6), 465)]
_NO_TLS: Final = [(server_address(postfix.NO_TLS_FACE.number), 25)]
_BROKEN_KEY: Final = [(server_address(postfix.BROKEN_KEY.number), 25)]
_CLEAR_AUTH: Final = [(server_address(postfix.CLEAR_AUTH.number), 25)]
_PROXIED: Final = [(server_address(postfix.PROXIED.number), 25)]
_IMPATIENT: Final = [(server_address(postfix.IMPATIENT.number), 25)]
_EXIM: Final = [(server_address(exim.NUMBER), 25), (server_address(exim.NUMBER, 6), 25)]
_EXIM_TLS: Final = [(server_address(exim.NUMBER), 465)]
_OPENSMTPD: Final = [(server_address(opensmtpd.NUMBER), 25)]

_STEPS: Final = ("banner", "helo", "mail", "recipient", "body", "message")


def conversations() -> Iterator[tuple[Conversation, Endpoint]]:
    """Every conversation with its server, in the order in which they start."""
    plan: list[tuple[int, Conversation, list[Endpoint]]] = [
        (1, wait_for_the_timeout, _IMPATIENT),
        (1, err_too_often, _IMPATIENT),
        (12, plain, _MX),
        (2, partial(plain, verb="HELO"), _MX),
        (2, partial(plain, lines=20_000), _MX),
        (3, several_messages, _MX),
        (4, some_refused, _MX),
        (2, all_refused, _MX),
        (4, pipelined, _MX),
        (4, in_chunks, _MX),
        (10, starttls, _MX),
        (4, partial(starttls, sni="mx.example.test"), _MX),
        (4, partial(starttls, version=TLS_1_2), _MX),
        (1, partial(starttls, mail=False), _MX),
        (2, starttls_after_mail, _MX),
        (2, starttls_abandoned, _MX),
        (2, starttls_hello_then_reset, _MX),
        (2, starttls_failing, _MX),
        (2, partial(starttls_failing, version=TLS_1_2), _MX),
        (3, implicit_tls, _SMTPS),
        (2, partial(implicit_tls, version=TLS_1_2, login=True), _SMTPS),
        (3, partial(starttls, login=True), _SUBMISSION),
        (2, submission_without_tls, _SUBMISSION),
        (5, starttls_refused, _NO_TLS),
        (8, starttls_refused, _BROKEN_KEY),
        (2, partial(starttls_refused, give_up=True), _BROKEN_KEY),
        (4, auth_in_clear, _CLEAR_AUTH),
        (3, partial(auth_in_clear, mechanism="LOGIN"), _CLEAR_AUTH),
        (2, behind_a_proxy, _PROXIED),
        (2, partial(behind_a_proxy, version=2), _PROXIED),
        *((1, partial(leave_after, step=step, how=RawClient.close), _MX) for step in _STEPS),
        *((1, partial(leave_after, step=step, how=RawClient.abort), _MX) for step in _STEPS),
        (4, plain, _EXIM),
        (2, some_refused, _EXIM),
        (2, in_chunks, _EXIM),
        (4, starttls, _EXIM),
        (2, partial(starttls, version=TLS_1_2), _EXIM),
        (1, starttls_failing, _EXIM),
        (3, implicit_tls, _EXIM_TLS),
        (8, plain, _OPENSMTPD),
        (2, some_refused, _OPENSMTPD),
        (3, starttls_failing, _OPENSMTPD),
    ]
    for times, conversation, servers in plan:
        for _ in range(times):
            for server in servers:
                yield conversation, server


# OpenSMTPD's log doesn't tell a client's ports apart, so each of its sessions has an address of its own;
# the first ones are for programs that choose for themselves.
_FIRST_CLIENT: Final = 5
_OPENSMTPD_CLIENTS: Final = range(40, 60)


def drive(threads: ThreadPoolExecutor) -> list[SessionTruth]:
    """Has all the conversations; raises the first error that any of them met."""
    own_addresses = iter(_OPENSMTPD_CLIENTS)
    futures = []
    for number, (conversation, server) in enumerate(conversations()):
        family = 6 if ":" in server[0] else 4
        if server in _OPENSMTPD:
            client = client_address(next(own_addresses), family)
        else:
            client = client_address(_FIRST_CLIENT + number % 30, family)
        futures.append(threads.submit(conversation, server, client))
    return [future.result() for future in futures]
