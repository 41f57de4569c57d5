"""Whole conversations for hypothesis, over a faithful network: in clear to their end, or to real TLS."""

from collections.abc import Callable
from functools import cache
from typing import Final

from hypothesis import strategies as st

from monitor.side import Side
from probes.segment import reverse
from tests.monitor.sessions.wire import Wire
from tests.segments import PORTS, segments_of

C, S = Side.CLIENT, Side.SERVER

OK: Final = "S: 250 ok"
ACCEPTED: Final = f"C: MAIL FROM:<a@client.example>\n{OK}\nC: RCPT TO:<b@example.test>\n{OK}\n"
_SENDER: Final = b"MAIL FROM:<p@client.example>\r\n"
_RECIPIENTS: Final = b"RCPT TO:<q@example.test>\r\nRCPT TO:<r@example.test>\r\n"

Step = Callable[[Wire], Wire]


def _said(transcript: str) -> Step:
    return lambda wire: wire.say(transcript)


def _at_once(client: bytes, server: bytes) -> Step:
    """What each side pipelines travels in one packet."""
    return lambda wire: wire.send(C, client).send(S, server)


STEPS: Final = [
    *map(
        _said,
        (
            ACCEPTED,
            "C: MAIL FROM:<x@client.example>\nS: 550 no",
            f"C: MAIL FROM:<>\n{OK}\nC: RCPT TO:<c@example.test>\nS: 450 later",
            f"C: MAIL FROM:<y@client.example> SIZE=9 BODY=8BITMIME\nS: 250-your\nS: 250-sender\n{OK}",
            "C: RCPT TO:<nobody@example.test>\nS: 503 what",
            f"{ACCEPTED}C: DATA\nS: 354 go\nC: STARTTLS\nC: QUIT\nC: .\n{OK}",
            f"{ACCEPTED}C: DATA\nS: 354-go\nS: 354 on\nC: ..\nC: 250 ok\nC: .\nS: 554-no\nS: 554 never",
            "C: DATA\nS: 503 no",
            f"{ACCEPTED}C: BDAT 12 LAST\nC: QUITxxxxxx\n{OK}",
            f"C: RSET\n{OK}",
            f"C: EHLO again.example\nS: 250-mx\nS: 250-PIPELINING\n{OK}",
            "C: AUTH PLAIN\nS: 334 \nC: c2VjcmV0\nS: 235 in",
            "C: AUTH LOGIN\nS: 334 a\nC: *\nS: 501 cancelled",
            "C: STARTTLS\nS: 454 no",
            f"C: NOOP\n{OK}",
            "C: VRFY somebody\nS: 252-perhaps\nS: 252 try",
            "C: WHAT\nS: 500 what",
        ),
    ),
]
PIPELINED: Final = [
    _at_once(_SENDER + _RECIPIENTS, b"250 ok\r\n250 ok\r\n550 no\r\n"),
    _at_once(_SENDER + _RECIPIENTS + b"RSET\r\n", b"250 ok\r\n450 no\r\n250-ok\r\n250 ok\r\n250 ok\r\n"),
    lambda wire: (
        wire.send(C, _SENDER + _RECIPIENTS + b"DATA\r\n")
        .send(S, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        .send(C, b"QUIT\r\n.\r\n")
        .send(S, b"250 queued\r\n")
    ),
    _at_once(_SENDER + _RECIPIENTS + b"DATA\r\n", b"451 no\r\n503 no\r\n503 no\r\n503 no\r\n"),
]
WRONG_CODES: Final = [
    *map(
        _said,
        (
            "C: RCPT TO:<somebody@example.test>\nS: 354 what",
            f"{ACCEPTED}C: DATA\nS: 250 what",
            "C: AUTH LOGIN\nS: 250 what",
            "C: STARTTLS\nS: 354 what",
            "C: NOOP\nS: 999 what",
        ),
    )
]
"""Which no server gives to these commands."""
BEGINNINGS: Final = st.sampled_from(
    [
        "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS",
        "S: 220-mx\nS: 220 ESMTP\nC: EHLO c\nS: 250 mx",
        "S: 220 mx\nC: HELO c\nS: 250 mx",
        "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 XXXXXXXA",
        "S: 220 mx\nC: EHLO c\nS: 500 what\nC: HELO c\nS: 250 mx",
        "C: PROXY TCP4 198.51.100.7 192.0.2.2 5555 25\nS: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 PIPELINING",
    ]
)
ENDS: Final = st.sampled_from(["", "C: QUIT\nS: 221 bye", "S: 421 bye", "C: STARTTLS\nS: 220 go"])


@cache
def encrypted_sessions() -> tuple[tuple[tuple[Side, bytes], ...], ...]:
    """What both sides of real ones sent from the first TLS byte on."""
    found = []
    for name in ("starttls_tls12", "starttls_tls13", "starttls_other_clients"):
        by_client: dict[bytes, list[tuple[Side, bytes]]] = {}
        for segment in segments_of(name):
            side = C if segment.destination_port in PORTS else S
            pieces = by_client.setdefault(segment.flow if side is C else reverse(segment.flow), [])
            if pieces or segment.payload.startswith(b"\x16\x03"):
                pieces.append((side, segment.payload))
        found += [tuple(piece for piece in pieces if piece[1]) for pieces in by_client.values() if pieces]
    return tuple(found)


@st.composite
def conversations(draw: st.DrawFn, *, wrong: bool = False) -> Wire:
    """A whole one, in which no step occurs twice: after a loss, one would be as good as the other.

    `wrong`: with codes that mean nothing there, and with pipelining that nobody offered.
    """
    beginning = draw(BEGINNINGS)
    wire = Wire().open().say(beginning)
    steps = STEPS + (PIPELINED if wrong or "PIPELINING" in beginning else []) + (WRONG_CODES if wrong else [])
    for step in draw(st.lists(st.sampled_from(steps), max_size=8, unique=True)):
        step(wire)
    end = draw(ENDS)
    wire.say(end)
    if end.startswith("C: STARTTLS") and draw(st.booleans()):
        wire.play(draw(st.sampled_from(encrypted_sessions())))
    return wire.reset(C) if draw(st.booleans()) else wire.close(draw(st.sampled_from(Side)))
