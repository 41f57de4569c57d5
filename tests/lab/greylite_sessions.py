"""What greylite is asked: sessions of every kind that its source treats apart, or that real clients have.

A session is a row of steps, so that the same can be said to the server itself and through greylite:

    str         a command; its reply is awaited
    bytes       sent as they are; nothing is awaited
    int         so many replies are awaited
    a function  what else the client does
"""

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.lab.raw_client import ConversationEndedError, RawClient, trusting_context
from tests.lab.scenario import RECIPIENT, SENDER
from tests.lab.server import UNKNOWN_RECIPIENT
from tests.lab.truth import Endpoint


class Caller(RawClient):
    """A raw client that can do TLS before anything else was said, on a connection that it has."""

    def tls_at_once(self) -> None:
        self._handshake(trusting_context(), None)


Step = str | bytes | int | Callable[[Caller], None]


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    steps: tuple[Step, ...]
    banner: str = "220 mx.example.test"
    replies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The scripted server's, see `scripted_server.py`."""
    sendmail: bool = False
    """Said to sendmail instead."""
    tls_server: bool = False
    """The scripted server begins with TLS, as on port 465."""
    banner_awaited: bool = True


@dataclass(frozen=True, slots=True)
class Played:
    client: Endpoint
    codes: tuple[int, ...]
    """Of the replies, the banner's included."""
    owed: bool
    """A reply that the client waited for never came."""
    waited_seconds: float
    """For the last reply, or in vain."""


def play(kind: Kind, server: Endpoint, client_ip: str) -> Played:
    codes: list[int] = []
    owed = False
    began = time.monotonic()
    with Caller(server, client_ip, await_banner=False) as client:
        local = client.local
        try:
            if kind.banner_awaited:
                codes.append(client.reply()[0])
            for step in kind.steps:
                began = time.monotonic()
                match step:
                    case str():
                        codes.append(client.command(step))
                    case bytes():
                        client.send_bytes(step)
                    case int():
                        codes += [client.reply()[0] for _ in range(step)]
                    case _:
                        step(client)
        except (ConversationEndedError, OSError, ssl.SSLError, ValueError):
            owed = True
    return Played(local, tuple(codes), owed, time.monotonic() - began)


# ------------------------------------------------------------------ what the client does


def tls(client: Caller) -> None:
    client.starttls(trusting_context(), sni="mx.example.test")


def distrusted_tls(client: Caller) -> None:
    client.starttls(trusting_context(verify=True), sni="mx.example.test")


def client_hello(client: Caller) -> None:
    client.start_handshake_only()


def reset(client: Caller) -> None:
    client.abort()


EHLO: Final = "EHLO client.test"
MAIL: Final = f"MAIL FROM:<{SENDER}>"
RCPT: Final = f"RCPT TO:<{RECIPIENT}>"
BODY: Final = b"Subject: lab\r\n\r\ntext\r\n.\r\n"
MESSAGE: Final[tuple[Step, ...]] = (MAIL, RCPT, "DATA", BODY, 1)
GROUP: Final = f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode()
LATIN: Final = "müller".encode("latin-1")


def raw(line: bytes) -> tuple[bytes, int]:
    """A command that is no text."""
    return line + b"\r\n", 1


def padded(command: str, octets: int) -> str:
    """The command, with a parameter that makes its line so long, line end included."""
    return command + " X=" + "x" * (octets - len(command) - len(" X=\r\n"))


CLEAR: Final = [
    Kind("EHLO", (EHLO, *MESSAGE, "QUIT")),
    Kind("HELO", ("HELO client.test", *MESSAGE, "QUIT")),
    Kind("no HELO", (*MESSAGE, "QUIT")),
    Kind("HELO with a quote and two words", ("HELO 'client test", *MESSAGE)),
    Kind("no MAIL", (EHLO, RCPT)),
    Kind("lower case", (EHLO.lower(), MAIL.lower(), RCPT.lower(), "data", BODY, 1)),
    Kind("line feeds alone", (b"EHLO client.test\n", 1, MAIL.encode() + b"\n", 1, RCPT.encode() + b"\n", 1)),
    Kind("two recipients", (EHLO, MAIL, RCPT, "RCPT TO:<user2@example.test>", "DATA", BODY, 1)),
    Kind("RCPT refused, then accepted", (EHLO, MAIL, RCPT, RCPT), replies={"RCPT": ["550 no", "250 ok"]}),
    Kind("RCPT deferred, then accepted", (EHLO, MAIL, RCPT, RCPT), replies={"RCPT": ["450 no", "250 ok"]}),
    Kind("RCPT refused", (EHLO, MAIL, RCPT, "QUIT"), replies={"RCPT": ["550 no"]}),
    Kind("RCPT 251", (EHLO, MAIL, RCPT), replies={"RCPT": ["251 will forward"]}),
    Kind("RCPT 250 in two lines", (EHLO, MAIL, RCPT), replies={"RCPT": ["250-ok\r\n250 ok"]}),
    Kind("RCPT 251 in two lines", (EHLO, MAIL, RCPT), replies={"RCPT": ["251-ok\r\n251 ok"]}),
    Kind("MAIL refused, RCPT accepted", (EHLO, MAIL, RCPT), replies={"MAIL": ["550 no"]}),
    Kind("MAIL 250 in two lines", (EHLO, MAIL, RCPT), replies={"MAIL": ["250-ok\r\n250 ok"]}),
    Kind("RSET before RCPT", (EHLO, MAIL, "RSET", MAIL, RCPT)),
    Kind("VRFY, NOOP, unknown verb", (EHLO, "VRFY root", "NOOP", "NONSENSE", "", MAIL, RCPT)),
    Kind("QUIT at once", ("QUIT",)),
    Kind("QUIT refused", ("QUIT", MAIL, RCPT), replies={"QUIT": ["503 not yet"]}),
    Kind("QUIT 221 in two lines", (EHLO, "QUIT"), replies={"QUIT": ["221-bye\r\n221 bye"]}),
    Kind("nothing", ()),
    Kind("EHLO and nothing", (EHLO,)),
    Kind("reset after MAIL", (EHLO, MAIL, reset)),
    Kind("closed in a line", (EHLO, b"MAIL FROM:<a@cli")),
    Kind("HELP 214 in one line", (EHLO, "HELP", MAIL, RCPT), replies={"HELP": ["214 help"]}),
    Kind("XCLIENT", (EHLO, "XCLIENT ADDR=10.0.0.1", MAIL, RCPT), replies={"XCLIENT": ["220 again"]}),
    Kind("421 to a command", (EHLO, "NOOP"), replies={"NOOP": ["421 too busy"]}),
    Kind(
        "client does not wait for the banner", (EHLO.encode() + b"\r\n", 2, MAIL, RCPT), banner_awaited=False
    ),
]

PIPELINED: Final = [
    Kind("pipelined", (EHLO, GROUP, 3, BODY, 1)),
    Kind(
        "pipelined, RCPT refused", (EHLO, GROUP, 3, "QUIT"), replies={"RCPT": ["550 no"], "DATA": ["503 no"]}
    ),
    Kind("pipelined, RCPT refused, 354", (EHLO, GROUP, 3, b".\r\n", 1), replies={"RCPT": ["550 no"]}),
    Kind("pipelined from EHLO on", (EHLO.encode() + b"\r\n" + GROUP, 4)),
    Kind(
        "pipelined, sender not readable",
        (EHLO, b'MAIL FROM:<"a b"@client.test>\r\n' + RCPT.encode() + b"\r\n", 2),
    ),
    Kind(
        "pipelined, first recipient not readable",
        (EHLO, MAIL, b"RCPT TO:<postmaster>\r\n" + RCPT.encode() + b"\r\n", 2),
    ),
    Kind(
        "pipelined, 550 in two lines",
        (EHLO, GROUP, 3),
        replies={"RCPT": ["550-no\r\n550 no"], "DATA": ["503 no"]},
    ),
    Kind(
        "pipelined, only recipient not readable",
        (EHLO, MAIL, b"RCPT TO:<postmaster>\r\nDATA\r\n", 2, BODY, 1),
    ),
    Kind(
        "pipelined, sender not readable, RCPT refused",
        (EHLO, b"MAIL FROM:<root>\r\n" + RCPT.encode() + b"\r\n", 2),
        replies={"RCPT": ["550 no"]},
    ),
    Kind(
        "pipelined, 550 in two lines, then 250 and 354",
        (EHLO, MAIL, RCPT.encode() + b"\r\n" + RCPT.encode() + b"\r\nDATA\r\n", 3, BODY, 1),
        replies={"RCPT": ["550-no\r\n550 no", "250 ok"]},
    ),
    Kind(
        "pipelined, 550 in two lines, then 250",
        (EHLO, MAIL, RCPT.encode() + b"\r\n" + RCPT.encode() + b"\r\n", 2),
        replies={"RCPT": ["550-no\r\n550 no", "250 ok"]},
    ),
]

BYPASSED: Final = [
    Kind("DATA 354 before RCPT", (EHLO, MAIL, "DATA", BODY, 1, "QUIT")),
    Kind("DATA 354 after refused RCPT", (EHLO, MAIL, RCPT, "DATA", BODY, 1), replies={"RCPT": ["550 no"]}),
    Kind("DATA 503, then RCPT", (EHLO, MAIL, "DATA", RCPT), replies={"DATA": ["503 no"]}),
    Kind("DATA 354 in two lines", (EHLO, MAIL, "DATA", BODY, 1), replies={"DATA": ["354-go\r\n354 on"]}),
    Kind("AUTH 334, 235", (EHLO, "AUTH LOGIN", "YWxpY2U=", *MESSAGE)),
    Kind("AUTH 235 at once", (EHLO, "AUTH PLAIN AGEAYg==", *MESSAGE), replies={"AUTH": ["235 welcome"]}),
    Kind("AUTH 334, cancelled", (EHLO, "AUTH LOGIN", "*", *MESSAGE), replies={"RESPONSE": ["501 cancelled"]}),
    Kind("AUTH 334, 535", (EHLO, "AUTH LOGIN", "bm8=", *MESSAGE), replies={"RESPONSE": ["535 wrong"]}),
    Kind("AUTH 535 at once", (EHLO, "AUTH PLAIN AGEAYg==", *MESSAGE), replies={"AUTH": ["535 wrong"]}),
    Kind("AUTH 454", (EHLO, "AUTH PLAIN AGEAYg==", *MESSAGE), replies={"AUTH": ["454 later"]}),
    Kind(
        "AUTH 535 in two lines",
        (EHLO, "AUTH PLAIN AGEAYg==", MAIL, RCPT),
        replies={"AUTH": ["535-no\r\n535 no"]},
    ),
    Kind("bare AUTH 334", (EHLO, "AUTH", "YWxpY2U=", *MESSAGE)),
    Kind("bare AUTH 501", (EHLO, "AUTH", *MESSAGE), replies={"AUTH": ["501 which?"]}),
    Kind("lower case auth", (EHLO, "auth login", "YWxpY2U=", *MESSAGE)),
    Kind("AUTH and a tab", (EHLO, "AUTH\tLOGIN", "YWxpY2U=", *MESSAGE)),
    Kind(
        "X-EXPS 334",
        (EHLO, "X-EXPS LOGIN", "YWxpY2U=", MAIL, RCPT),
        replies={"X-EXPS": ["334 "], "YWXPY2U=": ["235 ok"]},
    ),
    Kind("STARTTLS 220, then in clear", (EHLO, "STARTTLS", EHLO, *MESSAGE)),
    Kind("STARTTLS 220, then closed", (EHLO, "STARTTLS")),
    Kind("STARTTLS 220, then garbage", (EHLO, "STARTTLS", "garbage", *MESSAGE)),
    Kind(
        "STARTTLS 220 in two lines", (EHLO, "STARTTLS", *MESSAGE), replies={"STARTTLS": ["220-go\r\n220 on"]}
    ),
    Kind("STARTTLS 454, then in clear", (EHLO, "STARTTLS", *MESSAGE), replies={"STARTTLS": ["454 later"]}),
    Kind("STARTTLS 502, then in clear", (EHLO, "STARTTLS", *MESSAGE), replies={"STARTTLS": ["502 no"]}),
    Kind(
        "STARTTLS 454 in two lines",
        (EHLO, "STARTTLS", MAIL, RCPT),
        replies={"STARTTLS": ["454-no\r\n454 no"]},
    ),
    Kind("lower case starttls", (EHLO, "starttls", EHLO, *MESSAGE)),
    Kind("STARTTLS and more in one segment", (EHLO, b"STARTTLS\r\n" + GROUP, 4, BODY, 1)),
    Kind("STARTTLS after MAIL", (EHLO, MAIL, "STARTTLS", EHLO, *MESSAGE)),
    Kind("masked STARTTLS", (EHLO, "XXXXXXXX", *MESSAGE), replies={"XXXXXXXX": ["220 go ahead"]}),
    Kind(
        "X-ANONYMOUSTLS 220, TLS",
        (EHLO, "X-ANONYMOUSTLS", client_hello, 1),
        replies={"X-ANONYMOUSTLS": ["220 go ahead"]},
    ),
    Kind("STARTTLS behind a blank", (EHLO, " STARTTLS", EHLO, *MESSAGE)),
]

ADDRESSES: Final = [
    Kind("null sender", (EHLO, "MAIL FROM:<>", RCPT)),
    Kind("null sender, ENVID with an address", (EHLO, "MAIL FROM:<> ENVID=id1@p", RCPT)),
    Kind("null recipient", (EHLO, MAIL, "RCPT TO:<>")),
    Kind("quoted sender", (EHLO, 'MAIL FROM:<"a b"@client.test>', RCPT)),
    Kind("quoted sender with an address inside", (EHLO, 'MAIL FROM:<"a@b"@client.test>', RCPT)),
    Kind("quoted sender, AUTH=<>", (EHLO, 'MAIL FROM:<"a b"@client.test> AUTH=<>', RCPT)),
    Kind("quoted recipient", (EHLO, MAIL, 'RCPT TO:<"user 1"@example.test>')),
    Kind("RCPT TO:<postmaster>", (EHLO, MAIL, "RCPT TO:<postmaster>")),
    Kind("sender without a domain", (EHLO, "MAIL FROM:<root>", RCPT)),
    Kind("address literal", (EHLO, MAIL, "RCPT TO:<user@[10.77.0.1]>")),
    Kind("umlaut in the local part", (EHLO, MAIL, *raw(b"RCPT TO:<" + LATIN + b"@example.test>"))),
    Kind("umlaut in the domain", (EHLO, MAIL, *raw(b"RCPT TO:<user@" + LATIN + b".test>"))),
    Kind("umlaut behind the @", (EHLO, MAIL, *raw(b"RCPT TO:<user@" + "ümlaut".encode() + b".test>"))),
    Kind("source route", (EHLO, MAIL, "RCPT TO:<@relay.test,@b.test:user1@example.test>")),
    Kind("no brackets", (EHLO, f"MAIL FROM:{SENDER}", f"RCPT TO:{RECIPIENT}")),
    Kind("nothing behind the colon", (EHLO, "MAIL FROM:", RCPT)),
    Kind("blanks behind the colon", (EHLO, f"MAIL FROM:  <{SENDER}>", f"RCPT TO:  <{RECIPIENT}>")),
    Kind("a blank before the colon", (EHLO, MAIL, f"RCPT TO :<{RECIPIENT}>")),
    Kind("two blanks behind RCPT", (EHLO, f"MAIL  FROM:<{SENDER}>", f"RCPT  TO:<{RECIPIENT}>")),
    Kind("a tab behind RCPT", (EHLO, MAIL, f"RCPT\tTO:<{RECIPIENT}>")),
    Kind("a blank before RCPT", (EHLO, MAIL, f" RCPT TO:<{RECIPIENT}>")),
    Kind("a domain that ends in a hyphen", (EHLO, MAIL, "RCPT TO:<user@example.test->")),
    Kind("address of 511 bytes", (EHLO, MAIL, f"RCPT TO:<{'x' * 506}@a.de>")),
    Kind("address of 512 bytes", (EHLO, MAIL, f"RCPT TO:<{'x' * 507}@a.de>")),
    Kind("sender of 512 bytes", (EHLO, f"MAIL FROM:<{'x' * 507}@a.de>", RCPT)),
]

HELD_UP: Final = [
    Kind("line of 1,023 bytes", (EHLO, padded(MAIL, 1_023), RCPT)),
    Kind("line of 1,024 bytes", (EHLO, padded(MAIL, 1_024), RCPT)),
    Kind(
        "refused line of 1,500 bytes", (EHLO, padded(MAIL, 1_500), RCPT), replies={"MAIL": ["552 too long"]}
    ),
    Kind("EHLO with a name of 511 bytes", ("EHLO " + "x" * 511, MAIL, RCPT)),
    Kind("EHLO with a name of 512 bytes", ("EHLO " + "x" * 512, MAIL, RCPT)),
    Kind(
        "EHLO with a name of 512 bytes, refused",
        ("EHLO " + "x" * 512, MAIL, RCPT),
        replies={"EHLO": ["501 no"]},
    ),
    Kind("EHLO with a quote and 600 bytes", ("EHLO '" + "x" * 600, MAIL, RCPT)),
    Kind("NUL in MAIL", (EHLO, *raw(b"MAIL FROM:<a\0b@client.test>"), RCPT)),
    Kind("BDAT before RCPT", (EHLO, MAIL, b"BDAT 5 LAST\r\nabcde", 1)),
    Kind("BDAT of nothing before RCPT", (EHLO, MAIL, "BDAT 0 LAST", RCPT), replies={"BDAT": ["503 no"]}),
    Kind(
        "BDAT before RCPT, unknown to the server",
        (EHLO, MAIL, b"BDAT 5 LAST\r\nabc\r\n", 2, RCPT),
        replies={"BDAT": ["502 no"]},
    ),
    Kind("BDAT after RCPT", (EHLO, MAIL, RCPT, b"BDAT 5 LAST\r\nabcde", 1)),
    Kind("banner in two lines", (EHLO, MAIL, RCPT), banner="220-mx\r\n220 mx"),
    Kind("banner 554", (), banner="554 no"),
    Kind("banner 421", (), banner="421 later"),
    Kind("banner 554 in two lines", (), banner="554-no\r\n554 no"),
    Kind("banner 554, client goes on", (EHLO, "QUIT"), banner="554 no"),
    Kind("HELP 214 in two lines", (EHLO, "HELP", MAIL, RCPT), replies={"HELP": ["214-help\r\n214 help"]}),
    Kind("RCPT 550 in two lines", (EHLO, MAIL, RCPT, RCPT), replies={"RCPT": ["550-no\r\n550 no", "250 ok"]}),
    Kind("MAIL 451 in two lines", (EHLO, MAIL, RCPT), replies={"MAIL": ["451-no\r\n451 no"]}),
    Kind(
        "EHLO 502 in two lines",
        (EHLO, "HELO client.test", MAIL, RCPT),
        replies={"EHLO": ["502-no\r\n502 no"]},
    ),
    Kind(
        "EHLO reply with a line of 1,100 bytes",
        (EHLO, MAIL, RCPT),
        replies={"EHLO": ["250-mx\r\n250-" + "x" * 1_100 + "\r\n250 ok"]},
    ),
    Kind("reply line of 1,023 bytes", (EHLO, "NOOP", MAIL, RCPT), replies={"NOOP": ["250 " + "x" * 1_017]}),
    Kind("reply line of 1,024 bytes", (EHLO, "NOOP", MAIL, RCPT), replies={"NOOP": ["250 " + "x" * 1_018]}),
    Kind("NUL in a reply", (EHLO, "NOOP", MAIL, RCPT), replies={"NOOP": ["250 a\0b"]}),
    Kind("reply line of 1,100 bytes", (EHLO, "NOOP", MAIL, RCPT), replies={"NOOP": ["250 " + "x" * 1_100]}),
    Kind(
        "TLS from the first byte",
        (Caller.tls_at_once, 1, EHLO, *MESSAGE),
        tls_server=True,
        banner_awaited=False,
    ),
    Kind("TLS from the first byte, where it begins in clear", (client_hello, 2), banner_awaited=False),
    Kind("TLS instead of a command", (EHLO, client_hello, 1)),
]

SENDMAIL: Final = [
    Kind("sendmail: clear", (EHLO, *MESSAGE, "QUIT"), sendmail=True),
    Kind("sendmail: pipelined", (EHLO, GROUP, 3, BODY, 1, "QUIT"), sendmail=True),
    Kind(
        "sendmail: refused, then accepted",
        (EHLO, MAIL, f"RCPT TO:<{UNKNOWN_RECIPIENT}>", RCPT),
        sendmail=True,
    ),
    Kind("sendmail: DATA without RCPT", (EHLO, MAIL, "DATA", "QUIT"), sendmail=True),
    Kind("sendmail: DATA without RCPT, then RCPT", (EHLO, MAIL, "DATA", RCPT), sendmail=True),
    Kind("sendmail: STARTTLS", (EHLO, tls, EHLO, *MESSAGE, "QUIT"), sendmail=True),
    Kind("sendmail: STARTTLS, no mail", (EHLO, tls, EHLO, "QUIT"), sendmail=True),
    Kind("sendmail: STARTTLS distrusted", (EHLO, distrusted_tls), sendmail=True),
    Kind("sendmail: STARTTLS, then closed", (EHLO, "STARTTLS"), sendmail=True),
    Kind("sendmail: STARTTLS, then reset", (EHLO, "STARTTLS", reset), sendmail=True),
    Kind("sendmail: STARTTLS, hello and reset", (EHLO, "STARTTLS", client_hello, reset), sendmail=True),
    Kind("sendmail: STARTTLS with an argument", (EHLO, "STARTTLS now", *MESSAGE), sendmail=True),
    Kind("sendmail: STARTTLS within a transaction", (EHLO, MAIL, "STARTTLS", RCPT), sendmail=True),
    Kind("sendmail: no mail", (EHLO, "NOOP", "VRFY root", "QUIT"), sendmail=True),
    Kind("sendmail: TLS from the first byte", (client_hello, 2), sendmail=True, banner_awaited=False),
]

KINDS: Final = [*CLEAR, *PIPELINED, *BYPASSED, *ADDRESSES, *HELD_UP, *SENDMAIL]
