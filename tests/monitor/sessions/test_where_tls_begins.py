"""TLS that begins where nobody agreed on it is found wherever packets are cut."""

from functools import partial
from random import Random

import pytest

from monitor.side import Side
from tests.degrade import resegment
from tests.monitor.sessions.wire import Wire
from tests.segments import records_of
from tests.timeless import timeless

C, S = Side.CLIENT, Side.SERVER

GREETING = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 STARTTLS"
UPGRADE = f"{GREETING}\nC: STARTTLS\nS: 220 go"
RECORD = b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00"  # a handshake message that says nothing
ALERT = b"\x15\x03\x01\x00\x02\x02\x28"

SESSIONS = {
    "behind a command": Wire().open().say(GREETING).send(C, RECORD),
    "behind a command in the same packet": Wire().open().say(GREETING).send(C, b"NOOP\r\n" + RECORD),
    "behind what waited for a reply": Wire()
    .open()
    .say(f"{GREETING}\nC: MAIL FROM:<a@b>\nS: 250 ok\nC: RCPT TO:<c@d>\nS: 250 ok")
    .send(C, b"DATA\r\n" + RECORD, crossing=True)
    .say("S: 554 no"),
    "a line of eight-bit text": Wire()
    .open()
    .say(GREETING)
    .send(C, b"\xc3\xa9\r\nNOOP\r\n")
    .say("S: 500 what"),
    "within a long line": Wire().open().say(GREETING).send(C, b"x" * 20_000).send(C, RECORD),
    "again, where it had ended": Wire().open().say(UPGRADE).send(C, (RECORD + b"NOOP\r\n") * 3),
    "the answer, behind text": Wire().open().say(GREETING).send(C, RECORD).send(S, b"500 what\r\n" + ALERT),
    "the answer, within a line": Wire().open().say(GREETING).send(C, RECORD).send(S, b"\x14x" + ALERT),
    "the answer, behind text after the 220": Wire()
    .open()
    .say(UPGRADE)
    .send(C, RECORD)
    .send(S, b"250 x" + ALERT),
    "what only a client begins with, behind the 220": Wire()
    .open()
    .say(UPGRADE)
    .send(S, b"x\xff\xff\x01")
    .send(S, b"\x80\x2e\x01\x00\x02"),
    "behind the 220 in its packet": Wire()
    .open()
    .say(f"{GREETING}\nC: STARTTLS")
    .send(S, b"220 go\r\nx" + ALERT),
    "behind what was thrown away": Wire()
    .open()
    .say(f"{GREETING}\nC: STARTTLS")
    .send(S, b"220 go\r\n")
    .send(C, b"NOOP\r\n" + RECORD, crossing=True),
    "behind what was held back": Wire()
    .open()
    .say(GREETING)
    .send(C, b"STARTTLS\r\nNOOP\r\n" + RECORD)
    .say("S: 220 go"),
    "a server that speaks first": Wire().open().send(S, RECORD),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_the_record_is_the_same_wherever_packets_are_cut(name: str) -> None:
    wire = SESSIONS[name]
    true = timeless(wire.record())
    for size in range(1, 8):
        cut = resegment(partial(_constant, size))
        (record,) = records_of(cut(wire.segments, Random(0)))
        assert timeless(record) == true, size


def _constant(size: int, _: Random) -> int:
    return size


def test_what_it_was_is_told() -> None:
    found = {name: wire.record()["opaque_from"] for name, wire in SESSIONS.items()}
    greeting, upgrade = 21, 31
    assert found["behind a command"] == {"client": greeting, "server": None}
    assert found["behind a command in the same packet"] == {"client": greeting + 6, "server": None}
    assert found["a line of eight-bit text"] is None
    assert found["within a long line"] is None
    assert found["behind what was thrown away"] == {"client": upgrade + 6, "server": None}
    assert found["behind what was held back"] == {"client": upgrade + 6, "server": None}
    assert found["again, where it had ended"] == {"client": upgrade, "server": None}
