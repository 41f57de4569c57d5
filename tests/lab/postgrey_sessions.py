"""Sessions for a Postfix that asks postgrey: every way to come to a recipient, and not to.

Each session has a name of its own, which every address in it bears as an extension, so that postgrey's log,
which knows no ports, tells whose question it was asked.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from tests.lab.network import INTERFACE, Network, client_address
from tests.lab.postfix import BROKEN_KEY, CLEAR_AUTH, MX, NO_TLS_FACE, PROXIED, SMTPS, SUBMISSION, Face
from tests.lab.postgrey import Postgrey
from tests.lab.raw_client import ConversationEndedError, RawClient, trusting_context
from tests.lab.sasl import PASSWORD, USER
from tests.lab.scenario import TLS_1_2, TLS_1_3, body
from tests.lab.server import MAIL_DOMAIN, UNKNOWN_RECIPIENT
from tests.lab.truth import Endpoint

ELSEWHERE: Final = "elsewhere.test"
REFUSED_SENDER: Final = "refused@client.test"

_POLICY_FIRST: Final = Face("policyfirst", 7, 25)
_STRICT_SENDER: Final = Face("strictsender", 8, 25)
"""Refuses a sender, at RCPT."""
_STRICT_AT_ONCE: Final = Face("strictatonce", 9, 25)
"""Refuses a sender, at MAIL."""
_CLOSED: Final = Face("closed", 10, 25)
"""Refuses every client, in the banner."""
_UNSERVED: Final = Face("unserved", 11, 25)
"""Its policy service doesn't listen."""
_NOBODY_LISTENS: Final = 10_099

_NAMED: Final = re.compile(r"\+(?P<name>[sr]\d+)\b")


class Difference(StrEnum):
    """Why postgrey was not asked although the model says `decided`; or asked although it doesn't."""

    REFUSED_BEFORE = "an earlier restriction refused the recipient"
    EXEMPT = "an earlier restriction permitted the client, because it had logged in"
    NONE_IN_TLS = "no recipient came inside TLS"
    SERVICE_DOWN = "the policy service did not answer"
    VRFY = "Postfix asks about the argument of VRFY too"


@dataclass(frozen=True, slots=True)
class Session:
    name: str
    kind: str
    client: Endpoint
    server: Endpoint
    connected_at: float
    """On the monotonic clock: a client's port may come again."""
    difference: Difference | None
    """The one that is known of its kind."""


Conversation = Callable[[RawClient, str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    face: Face
    conversation: Conversation
    difference: Difference | None = None
    times: int = 1
    in_tls: bool = False
    """From the first byte."""
    await_banner: bool = True


def faces(postgrey: Postgrey) -> tuple[Face, ...]:
    """All faces of a Postfix that asks this postgrey."""
    asks = postgrey.restriction
    unlisted = (
        f"check_recipient_access inline:{{ {{{UNKNOWN_RECIPIENT} = 550 5.1.1 No such user}} }}, "
        "permit_sasl_authenticated, reject_unauth_destination"
    )
    usual = f"{unlisted}, {asks}"
    refused = f"check_sender_access inline:{{ {{{REFUSED_SENDER} = 554 5.7.1 Not you}} }}"
    return (
        *(
            _asking(face, usual)
            for face in (MX, SUBMISSION, SMTPS, NO_TLS_FACE, BROKEN_KEY, CLEAR_AUTH, PROXIED)
        ),
        _asking(_POLICY_FIRST, f"{asks}, {unlisted}"),
        _asking(_STRICT_SENDER, usual, f"{{ smtpd_sender_restrictions = {refused} }}"),
        _asking(
            _STRICT_AT_ONCE,
            usual,
            f"{{ smtpd_sender_restrictions = {refused} }}",
            "smtpd_delay_reject=no",
        ),
        _asking(_CLOSED, usual, "smtpd_client_restrictions=reject", "smtpd_delay_reject=no"),
        _asking(
            _UNSERVED,
            f"{unlisted}, check_policy_service inet:127.0.0.1:{_NOBODY_LISTENS}",
            "smtpd_policy_service_retry_delay=1s",
        ),
    )


def _asking(face: Face, restrictions: str, *options: str) -> Face:
    return Face(
        face.name,
        face.number,
        face.port,
        (
            *face.options,
            f"{{ smtpd_recipient_restrictions = {restrictions} }}",
            "recipient_delimiter=+",
            *options,
        ),
    )


def name_in(address: str) -> str | None:
    """The name of the session that an address belongs to."""
    found = _NAMED.search(address)
    return found["name"] if found else None


# ---------------------------------------------------------------------- who comes whence

MORE_NETWORKS: Final = ("10.77.2.", "10.77.3.", "fd77:0:0:1::")
"""Addresses 1 to 9 of them are the client's too."""
_ROUTE: Final = "fd77:0:0:1::/64"


def add_client_networks(network: Network) -> None:
    """Gives the client's host addresses in two more /24 and one more /64."""
    for prefix in MORE_NETWORKS:
        for number in range(1, 10):
            address = f"{prefix}{number}/{'128' if ':' in prefix else '16'}"
            nodad = ["nodad"] if ":" in prefix else []
            network.client.run(["ip", "address", "add", address, "dev", INTERFACE, *nodad])
    network.server.run(["ip", "route", "add", _ROUTE, "dev", INTERFACE])


def _client_address(number: int, family: int) -> str:
    if family == 6:
        return client_address(5 + number % 20, 6) if number % 3 else f"fd77:0:0:1::{number % 9 + 1}"
    prefixes = ("10.77.1.", *MORE_NETWORKS[:2])
    return f"{prefixes[number % 3]}{number % 9 + 1}"


# ---------------------------------------------------------------------- what is said


def user(name: str, local: str = "user") -> str:
    return f"{local}+{name}@{MAIL_DOMAIN}"


def sender(name: str) -> str:
    return f"sender+{name}@client.test"


def unknown(name: str) -> str:
    local, _, domain = UNKNOWN_RECIPIENT.partition("@")
    return f"{local}+{name}@{domain}"


def elsewhere(name: str) -> str:
    return f"user+{name}@{ELSEWHERE}"


def _send(client: RawClient, name: str, *recipients: str, mail_from: str | None = None) -> None:
    client.mail(sender(name) if mail_from is None else mail_from)
    for recipient in recipients or (user(name),):
        client.recipient(recipient)
    client.data(body())


def message(
    client: RawClient, name: str, *, recipients: int = 1, verb: str = "EHLO", null_sender: bool = False
) -> None:
    client.hello(verb=verb)
    _send(
        client,
        name,
        *(user(name, f"user{number}") for number in range(recipients)),
        mail_from="" if null_sender else None,
    )
    client.quit()


def without_greeting(client: RawClient, name: str) -> None:
    _send(client, name)
    client.quit()


def several_messages(client: RawClient, name: str) -> None:
    client.hello()
    _send(client, name)
    _send(client, name, user(name, "other"), mail_from="")
    client.hello()
    _send(client, name)
    client.quit()


def pipelined(client: RawClient, name: str, *, messages: int = 1) -> None:
    client.hello()
    for _ in range(messages):
        client.pipelined(sender(name), [user(name), user(name, "other")], body())
    client.quit()


def chunks(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.recipient(user(name))
    client.chunks([body(), body()])
    client.quit()


def reset_before_recipient(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.rset()
    _send(client, name)
    client.quit()


def reset_after_recipient(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.recipient(user(name))
    client.rset()
    client.quit()


def odd_lines(client: RawClient, name: str, *, lines: tuple[str, ...]) -> None:
    client.hello()
    for line in lines:
        client.command(line.format(name=name, domain=MAIL_DOMAIN))
    client.quit()


def starttls(
    client: RawClient,
    name: str,
    *,
    then: Conversation = message,
    version: ssl.TLSVersion = TLS_1_3,
) -> None:
    client.hello()
    _upgrade(client, version)
    then(client, name)


def mail_then_starttls(client: RawClient, name: str, *, then: Conversation = message) -> None:
    client.hello()
    client.mail(sender(name))
    _upgrade(client)
    then(client, name)


def recipient_then_starttls(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.recipient(user(name))
    client.rset()
    _upgrade(client)
    client.hello()
    client.quit()


def _upgrade(client: RawClient, version: ssl.TLSVersion = TLS_1_3) -> None:
    if not client.starttls(trusting_context(version)):
        raise ConversationEndedError("TLS failed")


def starttls_refused(client: RawClient, name: str) -> None:
    client.hello()
    client.ask_starttls()
    _send(client, name)
    client.quit()


def starttls_abandoned(client: RawClient, _name: str) -> None:
    client.hello()
    client.ask_starttls()
    client.close()


def starttls_failing(client: RawClient, _name: str) -> None:
    client.hello()
    if client.starttls(trusting_context(verify=True), sni="mx.example.test"):
        raise ConversationEndedError("TLS should have failed")
    client.close()


def handshake_cut_off(client: RawClient, _name: str) -> None:
    client.hello()
    client.ask_starttls()
    client.start_handshake_only()
    client.abort()


def tls_where_none_is_due(client: RawClient, _name: str) -> None:
    client.start_handshake_only()
    with suppress(ConversationEndedError, OSError, ValueError):
        client.reply()
    client.close()


def login(client: RawClient, name: str, *, password: str = PASSWORD) -> None:
    client.hello()
    client.auth_plain(USER, password)
    _send(client, name)
    client.quit()


def no_mail(client: RawClient, _name: str) -> None:
    client.hello()
    client.command("NOOP")
    client.quit()


def quit_at_once(client: RawClient, _name: str) -> None:
    client.quit()


def speak_http(client: RawClient, _name: str) -> None:
    client.command("GET / HTTP/1.1")
    client.await_close()


def mail_only(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.quit()


def data_only(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.command("DATA")
    client.quit()


def leave(client: RawClient, name: str, *, after: str, how: Callable[[RawClient], None]) -> None:
    """Goes away without QUIT after banner, helo, mail or recipient."""
    if after != "banner":
        client.hello()
    if after in ("mail", "recipient"):
        client.mail(sender(name))
    if after == "recipient":
        client.recipient(user(name))
    how(client)


def leave_in_the_middle_of_rcpt(client: RawClient, name: str) -> None:
    client.hello()
    client.mail(sender(name))
    client.send_bytes(f"RCPT TO:<{user(name)}>".encode())
    client.close()


def leave_unheard(client: RawClient, name: str) -> None:
    """Sends all in one segment and its FIN behind it, and doesn't wait for an answer."""
    client.send_bytes(f"EHLO c.test\r\nMAIL FROM:<{sender(name)}>\r\nRCPT TO:<{user(name)}>\r\n".encode())
    client.close()


def to(client: RawClient, name: str, *, recipients: tuple[Callable[[str], str], ...]) -> None:
    client.hello()
    _send(client, name, *(recipient(name) for recipient in recipients))
    client.quit()


def refused_sender(client: RawClient, name: str, *, goes_on: bool = True) -> None:
    client.hello()
    client.mail(REFUSED_SENDER)
    if goes_on:
        client.recipient(user(name))
    client.quit()


def refused_by_banner(client: RawClient, name: str) -> None:
    client.hello()
    client.pipelined(sender(name), [user(name)], body())
    client.quit()


def behind_a_proxy(client: RawClient, name: str) -> None:
    client.send_bytes(f"PROXY TCP4 203.0.113.7 192.0.2.1 {client.local[1]} 25\r\n".encode())
    client.await_banner()
    message(client, name)


def _odd(*lines: str) -> Conversation:
    return partial(odd_lines, lines=lines)


def _to(*recipients: Callable[[str], str]) -> Conversation:
    return partial(to, recipients=recipients)


def _leave(after: str, how: Callable[[RawClient], None]) -> Conversation:
    return partial(leave, after=after, how=how)


_MAIL: Final = "MAIL FROM:<sender+{name}@client.test>"
_RCPT: Final = "RCPT TO:<user+{name}@{domain}>"

KINDS: Final = {
    # In clear, with a recipient.
    "a message": Kind(MX, message, times=4),
    "a message after HELO": Kind(MX, partial(message, verb="HELO")),
    "a message without a greeting": Kind(MX, without_greeting),
    "five recipients": Kind(MX, partial(message, recipients=5), times=2),
    "from the null sender": Kind(MX, partial(message, null_sender=True), times=2),
    "several messages": Kind(MX, several_messages, times=2),
    "pipelined": Kind(MX, pipelined, times=2),
    "two messages pipelined": Kind(MX, partial(pipelined, messages=2)),
    "in chunks": Kind(MX, chunks),
    "RSET after MAIL": Kind(MX, reset_before_recipient),
    "RSET after RCPT": Kind(MX, reset_after_recipient),
    "behind a proxy": Kind(PROXIED, behind_a_proxy, await_banner=False),
    "lower case and blanks": Kind(
        MX, _odd("mail from: <sender+{name}@client.test>", "rcpt to: <user+{name}@{domain}>")
    ),
    "a path without brackets": Kind(
        MX, _odd("MAIL FROM:sender+{name}@client.test", "RCPT TO:user+{name}@{domain}")
    ),
    "a source route": Kind(MX, _odd(_MAIL, "RCPT TO:<@relay.test:user+{name}@{domain}>")),
    "a quoted local part": Kind(MX, _odd(_MAIL, 'RCPT TO:<"a user+{name}"@{domain}>')),
    "an address beyond ASCII": Kind(
        MX, _odd("MAIL FROM:<sender+{name}@client.test> SMTPUTF8", "RCPT TO:<müller+{name}@{domain}>")
    ),
    "RCPT with parameters": Kind(MX, _odd(_MAIL, _RCPT + " NOTIFY=NEVER ORCPT=rfc822;x@y.test")),
    # STARTTLS.
    "STARTTLS, a message": Kind(MX, starttls, times=4),
    "STARTTLS, TLS 1.2": Kind(MX, partial(starttls, version=TLS_1_2), times=2),
    "STARTTLS, pipelined": Kind(MX, partial(starttls, then=pipelined)),
    "STARTTLS, several messages": Kind(MX, partial(starttls, then=several_messages)),
    "STARTTLS, null sender": Kind(MX, partial(starttls, then=partial(message, null_sender=True))),
    "STARTTLS, leaves after RCPT": Kind(
        MX, partial(starttls, then=_leave("recipient", RawClient.abort)), times=2
    ),
    "STARTTLS, unknown recipient after the policy": Kind(_POLICY_FIRST, partial(starttls, then=_to(unknown))),
    "STARTTLS to submission, no login": Kind(SUBMISSION, starttls),
    "MAIL, STARTTLS, a message": Kind(MX, mail_then_starttls),
    "RCPT, STARTTLS, nothing": Kind(MX, recipient_then_starttls),
    "STARTTLS refused, mail in clear": Kind(BROKEN_KEY, starttls_refused, times=2),
    "STARTTLS not offered, mail in clear": Kind(NO_TLS_FACE, starttls_refused, times=2),
    "STARTTLS abandoned": Kind(MX, starttls_abandoned),
    "STARTTLS failed": Kind(MX, starttls_failing, times=2),
    "handshake cut off": Kind(MX, handshake_cut_off),
    # TLS from the first byte.
    "implicit TLS, a message": Kind(SMTPS, message, times=3, in_tls=True),
    "implicit TLS, pipelined": Kind(SMTPS, pipelined, in_tls=True),
    "implicit TLS, a wrong password": Kind(SMTPS, partial(login, password="wrong"), in_tls=True),
    "TLS on port 25": Kind(MX, tls_where_none_is_due),
    "implicit TLS, handshake cut off": Kind(SMTPS, tls_where_none_is_due, await_banner=False),
    # AUTH.
    "AUTH in clear refused": Kind(CLEAR_AUTH, partial(login, password="wrong")),
    # No recipient.
    "no mail": Kind(MX, no_mail, times=2),
    "QUIT at once": Kind(MX, quit_at_once),
    "HTTP": Kind(MX, speak_http),
    "MAIL only": Kind(MX, mail_only),
    "MAIL only, sender refused": Kind(_STRICT_AT_ONCE, partial(refused_sender, goes_on=False)),
    "DATA without RCPT": Kind(MX, data_only),
    "closed after the banner": Kind(MX, _leave("banner", RawClient.close)),
    "closed after EHLO": Kind(MX, _leave("helo", RawClient.close)),
    "closed after MAIL": Kind(MX, _leave("mail", RawClient.close)),
    "closed after RCPT": Kind(MX, _leave("recipient", RawClient.close)),
    "closed within RCPT": Kind(MX, leave_in_the_middle_of_rcpt),
    "closed unheard": Kind(MX, leave_unheard),
    "reset after the banner": Kind(MX, _leave("banner", RawClient.abort)),
    "reset after EHLO": Kind(MX, _leave("helo", RawClient.abort)),
    "reset after MAIL": Kind(MX, _leave("mail", RawClient.abort)),
    "reset after RCPT": Kind(MX, _leave("recipient", RawClient.abort)),
    # Recipients that are refused anyway.
    "unknown recipient after the policy": Kind(_POLICY_FIRST, _to(unknown)),
    "relaying refused after the policy": Kind(_POLICY_FIRST, _to(elsewhere)),
    "unknown and known recipients": Kind(MX, _to(unknown, user)),
    "relaying refused, and a known recipient": Kind(MX, _to(elsewhere, user)),
    "RCPT before MAIL, and after": Kind(MX, _odd(_RCPT, _MAIL, _RCPT)),
    "another sender where one is refused": Kind(_STRICT_SENDER, message),
    # The model and postgrey differ.
    "unknown recipient": Kind(MX, _to(unknown), Difference.REFUSED_BEFORE),
    "relaying refused": Kind(MX, _to(elsewhere), Difference.REFUSED_BEFORE),
    "sender refused at RCPT": Kind(_STRICT_SENDER, refused_sender, Difference.REFUSED_BEFORE),
    "STARTTLS, unknown recipient": Kind(MX, partial(starttls, then=_to(unknown)), Difference.REFUSED_BEFORE),
    "implicit TLS, relaying refused": Kind(SMTPS, _to(elsewhere), Difference.REFUSED_BEFORE, in_tls=True),
    "AUTH in clear": Kind(CLEAR_AUTH, login, Difference.EXEMPT, times=2),
    "submission": Kind(SUBMISSION, partial(starttls, then=login), Difference.EXEMPT, times=2),
    "implicit TLS, login": Kind(SMTPS, login, Difference.EXEMPT, times=2, in_tls=True),
    "submission without TLS": Kind(SUBMISSION, _odd(_MAIL, _RCPT)),
    "RCPT before MAIL": Kind(MX, _odd(_RCPT)),
    "RCPT after a refused MAIL": Kind(_STRICT_AT_ONCE, refused_sender),
    "refused by the banner": Kind(_CLOSED, refused_by_banner),
    "RCPT with an unknown parameter": Kind(MX, _odd(_MAIL, _RCPT + " X-ODD=1")),
    "STARTTLS, no mail": Kind(MX, partial(starttls, then=no_mail), Difference.NONE_IN_TLS, times=2),
    "STARTTLS, MAIL only": Kind(MX, partial(starttls, then=mail_only), Difference.NONE_IN_TLS),
    "STARTTLS, reset after EHLO": Kind(
        MX, partial(starttls, then=_leave("helo", RawClient.abort)), Difference.NONE_IN_TLS
    ),
    "MAIL, STARTTLS, no mail": Kind(MX, partial(mail_then_starttls, then=no_mail), Difference.NONE_IN_TLS),
    "implicit TLS, no mail": Kind(SMTPS, no_mail, Difference.NONE_IN_TLS, in_tls=True),
    "the policy service is down": Kind(_UNSERVED, message, Difference.SERVICE_DOWN),
    "VRFY": Kind(MX, _odd("VRFY user+{name}@{domain}"), Difference.VRFY),
}
RESET_UNANSWERED: Final = "reset while the policy service thinks"


def drive(threads: ThreadPoolExecutor, postgrey: Postgrey) -> list[Session]:
    """Has a session of each kind, some of them several times and over IPv6; raises the first error."""
    futures = []
    for number, (label, kind, family) in enumerate(_plan()):
        server = kind.face.listeners[family == 6]
        futures.append(
            threads.submit(_have, f"s{number}", label, kind, server, _client_address(number, family))
        )
    sessions = [future.result() for future in futures]
    sessions.append(threads.submit(_reset_unanswered, postgrey, f"s{len(sessions)}").result())
    return sessions


def _plan() -> Iterator[tuple[str, Kind, int]]:
    for label, kind in KINDS.items():
        for turn in range(kind.times):
            yield label, kind, 6 if turn % 2 else 4


def _have(name: str, label: str, kind: Kind, server: Endpoint, client_ip: str) -> Session:
    tls = trusting_context() if kind.in_tls else None
    with RawClient(server, client_ip, tls=tls, await_banner=kind.await_banner) as client:
        session = Session(name, label, client.local, server, time.monotonic(), kind.difference)
        kind.conversation(client, name)
        return session


def _reset_unanswered(postgrey: Postgrey, name: str) -> Session:
    server = MX.listeners[0]
    with RawClient(server, client_address(1)) as client, postgrey.held_up():
        session = Session(name, RESET_UNANSWERED, client.local, server, time.monotonic(), None)
        client.hello()
        client.mail(sender(name))
        client.send_line(f"RCPT TO:<{user(name)}>")
        postgrey.await_question()
        client.abort()
        return session
