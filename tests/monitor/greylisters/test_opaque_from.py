"""Where TLS begins in each side's stream."""

import random
from typing import Any

import pytest

from monitor.side import Side
from tests.degrade import resegment
from tests.monitor.greylisters.sight import GREETING, MAIL, QUIT, RCPT, STARTTLS, midstream, said
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript
from tests.segments import records_of

C, S = Side.CLIENT, Side.SERVER


def octets(side: Side, transcript: str) -> int:
    """What that side says in it."""
    who = "C: " if side is C else "S: "
    return sum(len(line) - len(who) + 2 for line in transcript.splitlines() if line.startswith(who))


def opaque_from(wire: Wire) -> Any:
    return wire.record()["opaque_from"]


def without(wire: Wire, data: bytes) -> Wire:
    """The same, but that one segment was not captured."""
    holed = Wire()
    holed.segments = [segment for segment in wire.segments if segment.payload != data]
    assert len(holed.segments) == len(wire.segments) - 1
    return holed


def test_nothing_is_opaque_in_clear() -> None:
    assert opaque_from(said(GREETING + MAIL + RCPT + QUIT)) is None
    assert opaque_from(said(GREETING + STARTTLS + MAIL)) is None
    assert opaque_from(Wire().open().reset(C)) is None


def test_behind_starttls_it_is_the_byte_after_the_220(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS
    wire = Wire().open().say(clear).play(tls_mail).close()
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}


def test_the_byte_does_not_depend_on_the_segments(tls_mail: Transcript) -> None:
    clear = GREETING + MAIL + RCPT + STARTTLS
    wire = Wire().open().say(clear).play(tls_mail).close()
    for seed in range(20):
        pieces = resegment(lambda rng: rng.randint(1, 40))(wire.segments, random.Random(seed))
        (record,) = records_of(pieces)
        assert record["opaque_from"] == {"client": octets(C, clear), "server": octets(S, clear)}


def test_tls_from_the_first_byte_is_opaque_from_there(tls_mail: Transcript) -> None:
    assert opaque_from(Wire(465).open().play(tls_mail).close()) == {"client": 0, "server": 0}


def test_a_proxy_header_is_no_part_of_it(tls_mail: Transcript) -> None:
    header = b"PROXY TCP4 192.0.2.9 192.0.2.2 5000 465\r\n"
    for glued in (False, True):
        wire = Wire(465).open()
        if glued:
            wire.send(C, header + tls_mail[0][1]).play(tls_mail[1:])
        else:
            wire.send(C, header).play(tls_mail)
        assert opaque_from(wire.close()) == {"client": len(header), "server": 0}


def test_a_client_alone_in_tls_leaves_the_server_readable(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING).send(*tls_mail[0]).say("S: 500 what").close()
    assert opaque_from(wire) == {"client": octets(C, GREETING), "server": None}


def test_a_hello_in_the_segment_of_starttls(tls_mail: Transcript) -> None:
    (_, hello), *rest = tls_mail
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n" + hello).say("S: 220 go ahead")
    clear = GREETING + STARTTLS
    assert opaque_from(wire.play(rest).close()) == {"client": octets(C, clear), "server": octets(S, clear)}


def test_a_220_and_the_servers_hello_in_one_segment(tls_mail: Transcript) -> None:
    (_, hello), (_, answer), *rest = tls_mail
    clear = GREETING + STARTTLS
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n" + hello)
    wire.send(S, b"220 go ahead\r\n" + answer).play(rest).close()
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_hello_that_begins_before_the_220(cut: int, tls_mail: Transcript) -> None:
    (_, hello), *rest = tls_mail
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n" + hello[:cut]).say("S: 220 go ahead")
    wire.send(C, hello[cut:]).play(rest).close()
    clear = GREETING + STARTTLS
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}


def test_a_command_injected_behind_starttls_is_clear_text(tls_mail: Transcript) -> None:
    injected = b"NOOP\r\n"
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n" + injected).say("S: 220 go ahead")
    wire.play(tls_mail).close()
    clear = GREETING + STARTTLS
    assert wire.record()["anomalies"] == ["starttls_injection"]
    assert opaque_from(wire) == {"client": octets(C, clear) + len(injected), "server": octets(S, clear)}


def test_a_reply_injected_behind_the_220_is_clear_text(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS + "S: 250 injected\n"
    wire = Wire().open().say(clear).play(tls_mail).close()
    assert wire.record()["anomalies"] == ["response_injection"]
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}


def test_a_lost_220_leaves_the_servers_byte_open_or_right(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS
    wire = without(Wire().open().say(clear).play(tls_mail).close(), b"220 go ahead\r\n")
    found = opaque_from(wire)
    assert found["client"] in (None, octets(C, clear))
    assert found["server"] in (None, octets(S, clear))


def test_a_lost_hello_leaves_its_byte_open(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS
    wire = Wire().open().say(clear).play(tls_mail).close()
    assert opaque_from(without(wire, tls_mail[0][1]))["client"] is None
    assert opaque_from(without(wire, tls_mail[1][1]))["server"] is None


def test_midstream_nobody_knows_the_byte(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert opaque_from(midstream(wire)) == {"client": None, "server": None}


def test_clear_text_after_tls_does_not_move_the_byte(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS
    wire = Wire().open().say(clear).play(tls_mail).say(MAIL + RCPT).close()
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}


def test_a_second_starttls_does_not_move_the_byte(tls_mail: Transcript) -> None:
    clear = GREETING + STARTTLS
    wire = Wire().open().say(clear).play(tls_mail).say(MAIL + STARTTLS).play(tls_mail).close()
    assert opaque_from(wire) == {"client": octets(C, clear), "server": octets(S, clear)}
