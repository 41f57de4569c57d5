"""What clients say inside TLS: every kind of it, for a tap of the server's TLS library.

Each session has a sender of its own, so that nothing of it can be taken for another's.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.lab.network import client_address
from tests.lab.raw_client import ConversationEndedError, RawClient, trusting_context
from tests.lab.sasl import PASSWORD, USER
from tests.lab.scenario import RECIPIENT, TLS_1_2, TLS_1_3, body
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT
from tests.lab.truth import Endpoint, SessionTruth

OTHER: Final = f"user2@{MAIL_DOMAIN}"
NO_RELAY: Final = "user@elsewhere.test"
MEGABYTE: Final = 1_000_000
GRANTED: Final = 235  # RFC 4954, section 6
_BODY_LINE: Final = b"A line of a large message, of as many bytes as fit in one line of a mail...\r\n"

Words = Callable[[RawClient], None]
"""What the client says once TLS is there, and how it goes away."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a client comes to speak inside TLS."""

    server: Endpoint
    version: ssl.TLSVersion

    @property
    def is_implicit(self) -> bool:
        return self.server[1] == 465


def sender(client: RawClient, number: int = 0) -> str:
    """Of the session's message of that number; nobody else's."""
    ends = ".".join(f"{ip}.{port}" for ip, port in (client.local, client.remote))
    return f"{ends.replace(':', '-')}.{number}@client.test"


def large_body(size: int) -> bytes:
    """Some more bytes than that."""
    return b"Subject: large\r\n\r\n" + _BODY_LINE * (size // len(_BODY_LINE) + 1)


def numbered(number: int) -> Words:
    """One message, told from others of the same two ends by its sender."""

    def words(client: RawClient) -> None:
        message(client, number=number)
        client.quit()

    return words


def message(client: RawClient, *recipients: str, number: int = 0, text: bytes | None = None) -> None:
    client.mail(sender(client, number))
    for to in recipients or (RECIPIENT,):
        client.recipient(to)
    client.data(body() if text is None else text)


def one_message(client: RawClient) -> None:
    message(client)
    client.quit()


def many_messages(client: RawClient) -> None:
    for number in range(10):
        message(client, RECIPIENT, OTHER, number=number)
        if number % 3 == 0:
            client.rset()
    client.quit()


def reset_on_the_way(client: RawClient) -> None:
    client.mail(sender(client))
    client.recipient(RECIPIENT)
    client.rset()
    message(client, number=1)
    client.mail(sender(client, 2))
    client.hello("again.test")
    message(client, number=3)
    client.command("NOOP")
    client.command("VRFY somebody")
    client.quit()


def some_refused(client: RawClient) -> None:
    message(client, RECIPIENT, UNKNOWN_RECIPIENT, OTHER, BUSY_RECIPIENT, NO_RELAY)
    client.quit()


def all_refused(client: RawClient) -> None:
    message(client, UNKNOWN_RECIPIENT, NO_RELAY)  # DATA is, too
    client.rset()
    message(client, BUSY_RECIPIENT, number=1)
    client.quit()


def null_sender(client: RawClient) -> None:
    client.mail("")
    client.recipient(RECIPIENT)
    client.data(body())
    message(client, number=1)
    client.quit()


def parameters(client: RawClient) -> None:
    client.mail(sender(client), " SIZE=2000 BODY=8BITMIME")
    client.recipient(RECIPIENT)
    client.data(body())
    client.quit()


def pipelined(client: RawClient) -> None:
    client.pipelined(sender(client), [RECIPIENT, UNKNOWN_RECIPIENT, OTHER], body())
    client.pipelined(sender(client, 1), [f"user{number}@{MAIL_DOMAIN}" for number in range(100)], body(400))
    client.pipelined(sender(client, 2), [UNKNOWN_RECIPIENT], body())
    client.quit()


def pipelined_behind_a_message(client: RawClient) -> None:
    """A message, and in the same record of TLS the whole next transaction, until DATA."""
    chronicle = client.chronicle
    client.mail(sender(client))
    client.recipient(RECIPIENT)
    client.command("DATA")
    text = body() + b".\r\n"
    behind = f"MAIL FROM:<{sender(client, 1)}>\r\nRCPT TO:<{OTHER}>\r\nDATA\r\n".encode()
    client.send_bytes(text + behind)
    chronicle.data("DATA", len(text), client.reply()[0])
    chronicle.mail(sender(client, 1), client.reply()[0])
    chronicle.recipient(OTHER, client.reply()[0])
    client.reply()
    client.send_bytes(text)
    chronicle.data("DATA", len(text), client.reply()[0])
    client.quit()


def in_chunks(client: RawClient) -> None:
    client.mail(sender(client), " SIZE=100 BODY=8BITMIME")
    client.recipient(RECIPIENT)
    whole = body().replace(b"..", b".")
    client.chunks([whole[:7], whole[7:301], whole[301:]])
    client.mail(sender(client, 1))
    client.recipient(RECIPIENT)
    client.chunks([body(300)])
    client.quit()


def byte_by_byte(client: RawClient) -> None:
    """Each in a record of its own."""
    client.mail(sender(client))
    line = f"RCPT TO:<{RECIPIENT}>\r\n".encode()
    for at in range(len(line)):
        client.send_bytes(line[at : at + 1])
    client.chronicle.recipient(RECIPIENT, client.reply()[0])
    client.command("DATA")
    text = b"Subject: a\r\n\r\n..\r\nb\r\n.\r\n"
    for at in range(len(text)):
        client.send_bytes(text[at : at + 1])
    client.chronicle.data("DATA", len(text), client.reply()[0])
    client.quit()


def empty_message(client: RawClient) -> None:
    message(client, text=b"")
    message(client, number=1, text=b"\r\n")
    client.quit()


def large_message(client: RawClient) -> None:
    message(client, text=large_body(MEGABYTE))
    client.quit()


def large_chunks(client: RawClient) -> None:
    client.mail(sender(client))
    client.recipient(RECIPIENT)
    client.chunks([large_body(MEGABYTE), large_body(MEGABYTE)])
    client.quit()


def larger_message(client: RawClient) -> None:
    """As large as Postfix takes one."""
    message(client, text=large_body(10 * MEGABYTE))
    client.quit()


def logged_in_plain(client: RawClient) -> None:
    assert client.auth_plain(USER, PASSWORD) == GRANTED
    one_message(client)


def logged_in_plain_when_asked(client: RawClient) -> None:
    assert client.auth_plain_when_asked(USER, PASSWORD) == GRANTED
    one_message(client)


def logged_in_at_last(client: RawClient) -> None:
    """Wrong passwords first, and a change of mind."""
    client.auth_plain(USER, "wrong")
    client.auth_login(USER, "wrong")
    client.auth_cancelled()
    client.auth_plain_when_asked(USER, "wrong")
    assert client.auth_login(USER, PASSWORD) == GRANTED
    one_message(client)


def leaves_at_once(client: RawClient) -> None:
    client.close()


def resets_at_once(client: RawClient) -> None:
    client.abort()


def quits(client: RawClient) -> None:
    client.quit()


def leaves_after_mail(client: RawClient) -> None:
    client.mail(sender(client))
    client.close()


def leaves_in_a_command(client: RawClient) -> None:
    client.mail(sender(client))
    client.send_bytes(b"RCPT TO:<user1@exam")
    client.close()


def resets_in_a_message(client: RawClient) -> None:
    client.mail(sender(client))
    client.recipient(RECIPIENT)
    client.send_unanswered_body(body())
    client.abort()


def leaves_in_a_message(client: RawClient) -> None:
    client.mail(sender(client))
    client.recipient(RECIPIENT)
    client.send_unanswered_body(body(2_000))
    client.close()


def waits(client: RawClient) -> None:
    """Until the server has had enough."""
    client.mail(sender(client))
    client.reply()
    client.await_close()


GREETED: Final[tuple[Words, ...]] = (
    one_message,
    many_messages,
    reset_on_the_way,
    some_refused,
    all_refused,
    null_sender,
    parameters,
    pipelined,
    pipelined_behind_a_message,
    in_chunks,
    byte_by_byte,
    empty_message,
    quits,
)
"""They begin with EHLO, and end with QUIT."""
LARGE: Final[tuple[Words, ...]] = (large_message, large_chunks)
VANISHING: Final[tuple[Words, ...]] = (
    leaves_after_mail,
    leaves_in_a_command,
    leaves_in_a_message,
    resets_in_a_message,
)
"""They end without QUIT."""
LOGGED_IN: Final[tuple[Words, ...]] = (logged_in_plain, logged_in_plain_when_asked, logged_in_at_last)
UNGREETED: Final[tuple[Words, ...]] = (leaves_at_once, resets_at_once)
"""They say nothing at all."""


def converse(
    way: Way,
    client_ip: str,
    words: Words,
    *,
    port: int = 0,
    context: ssl.SSLContext | None = None,
    resume: ssl.SSLSession | None = None,
) -> SessionTruth:
    with connected(way, client_ip, port=port, context=context, resume=resume) as client:
        if words not in UNGREETED:
            client.hello()
        words(client)
        return client.truth()


def starttls_and_nothing(server: Endpoint, client_ip: str) -> SessionTruth:
    """Until the server has had enough."""
    with RawClient(server, client_ip) as client:
        client.hello()
        client.ask_starttls()
        client.await_close()
        return client.truth()


def connected(
    way: Way,
    client_ip: str,
    *,
    port: int = 0,
    context: ssl.SSLContext | None = None,
    resume: ssl.SSLSession | None = None,
) -> RawClient:
    """A client inside TLS that has said nothing yet. `context`: of the session that is resumed."""
    context = context or trusting_context(way.version)
    if way.is_implicit:
        return RawClient(way.server, client_ip, tls=context, port=port, resume=resume)
    with ExitStack() as unless_established:
        client = unless_established.enter_context(RawClient(way.server, client_ip, port=port))
        client.hello()
        if not client.starttls(context, resume=resume):
            raise ConversationEndedError("TLS failed")
        unless_established.pop_all()
        return client


def resumed(way: Way, client_ip: str) -> list[SessionTruth]:
    """Two connections, the second of which goes on with the TLS session of the first."""
    context = trusting_context(way.version)
    with connected(way, client_ip, context=context) as client:
        client.hello()
        message(client)
        session = client.tls_session
        client.quit()
        first = client.truth()
    with connected(way, client_ip, context=context, resume=session) as client:
        if not client.is_resumed:
            raise ConversationEndedError("the server did not resume the TLS session")
        client.hello()
        message(client)
        client.quit()
        return [first, client.truth()]


def conversations(
    servers: dict[Endpoint, tuple[Words, ...]],
) -> Iterator[tuple[Way, str, Words]]:
    """Each server's words, with either version of TLS, each from an address that tells the family."""
    number = 0
    for server, all_words in servers.items():
        family = 6 if ":" in server[0] else 4
        for version in (TLS_1_2, TLS_1_3):
            for words in all_words:
                number += 1
                yield Way(server, version), client_address(5 + number % 30, family), words
