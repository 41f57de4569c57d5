"""recordio itself, between tcpserver and a sendmail that does STARTTLS through its pipes, beside
`smtp-horizon watch`: what stands in recordio's log is held against the record of the same session.

The log is read without our parser (tests/lab/recordio_log.py). And tcpserver alone, which decides by the
client's address, as programs do that greylist by address.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

import pytest

from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.raw_client import ConversationEndedError, RawClient, trusting_context
from tests.lab.recordio_log import RecordioLog
from tests.lab.scenario import RECIPIENT, SENDER, TLS_1_2, body, send
from tests.lab.sendmail import prepare_sendmail
from tests.lab.server import BUSY_RECIPIENT, MAIL_DOMAIN, UNKNOWN_RECIPIENT
from tests.lab.tcpserver import TcpServer, make_rules
from tests.lab.truth import NO_TLS, Endpoint, SessionTruth
from tests.lab.watch import Watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

Record = dict[str, Any]
Conversation = Callable[[RawClient], None]

RECORDED: Final = (server_address(1), 25)
GUARDED: Final = (server_address(2), 25)
# A client has each address once: ports alone come again.
DENIED_CLIENT, ALLOWED_CLIENT = 99, 98
OTHER: Final = f"user2@{MAIL_DOMAIN}"


# ------------------------------------------------------------------ what is said


def mail(client: RawClient) -> None:
    client.hello()
    send(client)
    client.quit()


def mail_after_helo(client: RawClient) -> None:
    client.hello(verb="HELO")
    send(client, RECIPIENT, OTHER)
    client.quit()


def long_mail(client: RawClient) -> None:
    client.hello()
    send(client, lines=3_000)
    client.quit()


def odd_bytes(client: RawClient) -> None:
    """recordio keeps all 256 of them."""
    client.hello()
    client.mail(SENDER)
    client.recipient(RECIPIENT)
    client.data(bytes(byte for byte in range(256) if byte not in b"\r\n") + b"\r\n+ \r\n[EOF]\r\n \r\n+\r\n")
    client.quit()


def pipelined(client: RawClient) -> None:
    client.hello()
    client.pipelined(SENDER, [RECIPIENT, UNKNOWN_RECIPIENT, OTHER], body())
    client.pipelined(SENDER, [RECIPIENT], body(300))
    client.quit()


def several(client: RawClient) -> None:
    client.hello()
    send(client)
    client.mail("")
    client.recipient(RECIPIENT)
    client.rset()
    send(client, RECIPIENT, OTHER, BUSY_RECIPIENT)
    client.command("NOOP")
    client.quit()


def all_refused(client: RawClient) -> None:
    client.hello()
    client.mail(SENDER)
    client.recipient(UNKNOWN_RECIPIENT)
    client.recipient("user@elsewhere.test")
    client.quit()


def no_mail(client: RawClient) -> None:
    client.hello()
    client.command("NOOP")
    client.command("VRFY root")
    client.command("HELP")
    client.command("NONSENSE")
    client.quit()


def quit_at_once(client: RawClient) -> None:
    client.quit()


def nothing(client: RawClient) -> None:
    client.close()


def aborted(client: RawClient) -> None:
    client.hello()
    client.mail(SENDER)
    client.abort()


def closed_in_a_line(client: RawClient) -> None:
    client.hello()
    client.send_bytes(b"MAIL FROM:<a@cli")
    client.close()


def closed_in_a_body(client: RawClient) -> None:
    client.hello()
    client.mail(SENDER)
    client.recipient(RECIPIENT)
    client.send_unanswered_body(b"Subject: cut\r\n\r\nwithout an en")
    client.close()


def starttls(client: RawClient, *, old: bool = False, messages: int = 1, ends: bool = True) -> None:
    client.hello()
    assert client.starttls(trusting_context(TLS_1_2 if old else None), sni="mx.example.test")
    client.hello()
    for _ in range(messages):
        send(client, lines=200)
    if ends:
        client.quit()
    else:
        client.abort()


def starttls_without_mail(client: RawClient) -> None:
    client.hello()
    assert client.starttls(trusting_context())
    client.hello()
    client.quit()


def starttls_without_hello(client: RawClient) -> None:
    assert client.starttls(trusting_context())
    client.hello()
    send(client)
    client.quit()


def mail_then_starttls(client: RawClient) -> None:
    client.hello()
    send(client)
    assert client.starttls(trusting_context())
    client.hello()
    send(client)
    client.quit()


def recipient_then_starttls(client: RawClient) -> None:
    """sendmail takes no STARTTLS within a transaction."""
    client.hello()
    client.mail(SENDER)
    client.recipient(RECIPIENT)
    assert client.ask_starttls() == 503
    client.rset()
    assert client.starttls(trusting_context())
    client.hello()
    send(client)
    client.quit()


def starttls_twice(client: RawClient) -> None:
    client.hello()
    assert client.starttls(trusting_context())
    client.hello()
    client.command("STARTTLS")
    send(client)
    client.quit()


def starttls_with_an_argument(client: RawClient) -> None:
    client.hello()
    client.command("STARTTLS now")
    send(client)
    client.quit()


def distrust(client: RawClient) -> None:
    client.hello()
    assert not client.starttls(trusting_context(verify=True), sni="mx.example.test")
    client.close()


def garbage_after_220(client: RawClient) -> None:
    client.hello()
    client.ask_starttls()
    client.send_bytes(b"\xff\xfe no TLS at all\r\n" * 3)
    client.close()


def clear_after_220(client: RawClient) -> None:
    client.hello()
    client.ask_starttls()
    client.send_bytes(b"MAIL FROM:<clear@client.test>\r\n")
    client.close()


def closed_after_220(client: RawClient) -> None:
    client.hello()
    client.ask_starttls()
    client.close()


def closed_in_the_handshake(client: RawClient) -> None:
    client.hello()
    client.ask_starttls()
    client.start_handshake_only()
    client.abort()


def closed_after_the_handshake(client: RawClient) -> None:
    client.hello()
    assert client.starttls(trusting_context())
    client.close()


def tls_at_once(client: RawClient) -> None:
    client.start_handshake_only()
    client.close()


SILENT_IN_TLS: Final = "closed after the handshake"
KINDS: Final[dict[str, Conversation]] = {
    "mail": mail,
    "mail after HELO": mail_after_helo,
    "long mail": long_mail,
    "odd bytes": odd_bytes,
    "pipelined": pipelined,
    "several": several,
    "all refused": all_refused,
    "no mail": no_mail,
    "QUIT at once": quit_at_once,
    "nothing": nothing,
    "aborted": aborted,
    "closed in a line": closed_in_a_line,
    "closed in a body": closed_in_a_body,
    "STARTTLS": starttls,
    "STARTTLS, TLS 1.2": partial(starttls, old=True),
    "STARTTLS, three messages": partial(starttls, messages=3),
    "STARTTLS, aborted": partial(starttls, ends=False),
    "STARTTLS without mail": starttls_without_mail,
    "STARTTLS without EHLO": starttls_without_hello,
    "mail, then STARTTLS": mail_then_starttls,
    "recipient, then STARTTLS": recipient_then_starttls,
    "STARTTLS twice": starttls_twice,
    "STARTTLS with an argument": starttls_with_an_argument,
    "distrust": distrust,
    "garbage after 220": garbage_after_220,
    "clear after 220": clear_after_220,
    "closed after 220": closed_after_220,
    "closed in the handshake": closed_in_the_handshake,
    SILENT_IN_TLS: closed_after_the_handshake,
    "TLS at once": tls_at_once,
}
TURNS: Final = 3


# ------------------------------------------------------------------ what came of it


@dataclass(frozen=True, slots=True)
class Session:
    kind: str
    record: Record
    log: RecordioLog
    spoke_in_tls: bool
    """The client has established TLS, and said something inside."""

    @property
    def reset(self) -> bool:
        """Reset by the client: then the log may have what the server wrote afterwards, and nobody sent."""
        return bool(self.record["ended"] == "reset")

    @property
    def expected(self) -> str:
        """What can be read in the log. Ciphertext that is a handshake and no more hides no mail."""
        if self.log.readable_mail:
            return "decided"
        return "blind" if self.log.opaque_client is not None and self.spoke_in_tls else "no_envelope"

    @property
    def opaque_from(self) -> Record | None:
        server = self.log.opaque_server
        if self.reset and server is not None and server >= self.record["bytes"]["server"]:
            server = None
        found = {"client": self.log.opaque_client, "server": server}
        return None if found == {"client": None, "server": None} else found


@dataclass(frozen=True, slots=True)
class Day:
    sessions: list[Session]
    unrecorded: list[str]
    guarded: list[Record]
    """At tcpserver with rules."""
    guard_said: str
    heard_by_denied: bytes


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network(addresses=99) as network:
        yield live_through(network)


def live_through(network: Network) -> Day:
    host, folder = network.server, network.folder
    command = prepare_sendmail(root := folder / "sendmail")
    rules = make_rules(folder / "rules", f"{client_address(DENIED_CLIENT)}:deny", ":allow")
    with (
        TcpServer(host, folder / "recorded", RECORDED, ["recordio", *command], root=root) as recorded,
        TcpServer(host, folder / "guarded", GUARDED, command, root=root, rules=rules) as guarded,
        Watch(host, folder) as watch,
        network.client.threads(4) as threads,
    ):
        numbers = count(1)
        driven = {
            name: [threads.submit(drive, conversation, next(numbers)) for _ in range(TURNS)]
            for name, conversation in KINDS.items()
        }
        denied = [
            threads.submit(knock, client_address(DENIED_CLIENT), in_tls=in_tls) for in_tls in (False, True)
        ]
        for allowed in (mail, starttls):
            threads.submit(drive, allowed, ALLOWED_CLIENT, GUARDED).result()
        heard = b"".join(future.result() for future in denied)
        truths = [(name, future.result()) for name, futures in driven.items() for future in futures]
        recorded.await_silence()
        guarded.await_silence()
        watch.await_silence()
        watch.stop()
        records = {endpoint(record["client"]): record for record in watch.records()}
        return Day(
            sessions=[
                Session(
                    name,
                    records[truth.client],
                    RecordioLog.read(recorded.log_of(truth.client).read_bytes()),
                    truth.tls_version not in (None, NO_TLS) and name != SILENT_IN_TLS,
                )
                for name, truth in truths
                if truth.client in records
            ],
            unrecorded=[name for name, truth in truths if truth.client not in records],
            guarded=[record for record in records.values() if endpoint(record["server"]) == GUARDED],
            guard_said=guarded.said(),
            heard_by_denied=heard,
        )


def drive(conversation: Conversation, number: int, server: Endpoint = RECORDED) -> SessionTruth:
    with RawClient(server, client_address(number)) as client:
        conversation(client)
        return client.truth()


def knock(address: str, *, in_tls: bool) -> bytes:
    """All that a client hears that says EHLO, or begins TLS, without waiting for the banner."""
    with RawClient(GUARDED, address, await_banner=False) as client:
        try:
            if in_tls:
                client.start_handshake_only()
            else:
                client.send_line("EHLO client.test")
            client.reply()
        except (ConversationEndedError, OSError):
            return b""
    return b"a reply"


def endpoint(fields: Record) -> Endpoint:
    return fields["ip"], fields["port"]


# ------------------------------------------------------------------ the questions


def test_every_session_was_recorded_by_both(day: Day) -> None:
    assert not day.unrecorded
    assert Counter(session.kind for session in day.sessions) == dict.fromkeys(KINDS, TURNS)
    assert all(session.log.lines > 0 for session in day.sessions)


def test_the_log_has_as_many_bytes_of_each_side_as_the_record(day: Day) -> None:
    different = [
        (session.kind, side, len(logged), sent)
        for session in day.sessions
        for side, logged in (("client", session.log.client), ("server", session.log.server))
        if len(logged) != (sent := session.record["bytes"][side])
        and not (session.reset and side == "server" and len(logged) > sent)
    ]
    assert not different


def test_the_log_turns_to_ciphertext_at_the_byte_that_the_record_names(day: Day) -> None:
    different = [
        (session.kind, session.opaque_from, session.record["opaque_from"])
        for session in day.sessions
        if session.opaque_from != session.record["opaque_from"]
    ]
    assert not different
    assert sum(session.record["opaque_from"] is not None for session in day.sessions) > 40


def test_the_model_says_what_can_be_read_in_the_log(day: Day) -> None:
    different = [
        (session.kind, session.expected, said)
        for session in day.sessions
        if (said := session.record["greylisters"]["recordio"])["reach"] != session.expected
        or (said["by"] is None) != (session.expected != "blind")
    ]
    assert not different
    assert {session.expected for session in day.sessions} == {"decided", "blind", "no_envelope"}


def test_no_command_can_be_read_behind_the_220(day: Day) -> None:
    sent = [b"EHLO client.test", b"MAIL FROM:<" + SENDER.encode(), b"RCPT TO:<", b"Subject: lab", b"QUIT"]
    for session in day.sessions:
        if session.expected == "blind":
            ciphertext = session.log.client[session.log.opaque_client :]
            assert ciphertext.count(b"\n") > 0 or len(ciphertext) < 1_500, session.kind
            assert not [command for command in sent if command in ciphertext], session.kind


def test_a_client_that_tcpserver_denies_hears_nothing_and_others_are_served_in_tls_too(day: Day) -> None:
    """What decides by address has decided before the first byte: TLS takes nothing from it."""
    assert day.heard_by_denied == b""
    assert day.guard_said.count("tcpserver: deny ") == 2
    assert day.guard_said.count("tcpserver: ok ") == 2
    assert {record["envelope"] for record in day.guarded} == {"none", "visible", "hidden"}
    for record in day.guarded:
        assert record["greylisters"]["jgreylist"] == {"reach": "decided", "by": None}
        denied = record["client"]["ip"] == client_address(DENIED_CLIENT)
        assert (record["bytes"]["server"] == 0) == denied, record
