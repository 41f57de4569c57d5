"""What holds for any conversation, however it is cut, shuffled, or seen in part."""

import json
import random
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.records import encode
from monitor.side import Side
from tests.degrade import duplicate, lose, reorder, resegment
from tests.fuzz.record_rules import check_record
from tests.monitor.sessions.conversations import OK, conversations
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript
from tests.segments import frozen_records, records_of
from tests.timeless import timeless
from tests.wrong import wrong_facts

C, S = Side.CLIENT, Side.SERVER


@given(conversations(wrong=True), st.integers(0, 1 << 30), st.sampled_from([1, 2, 5, 40]))
@settings(max_examples=150, deadline=None)
def test_any_segmentation_gives_the_same_record(wire: Wire, seed: int, size: int) -> None:
    rng = random.Random(seed)
    true = timeless(wire.record())
    assert true["capture"]["complete"]
    for frozen in frozen_records(wire.segments):
        check_record(frozen)
    for degrade in (resegment(lambda rng: rng.randint(1, size)), duplicate(0.5)):
        (record,) = records_of(degrade(wire.segments, rng))
        assert timeless(record) == true


@given(conversations(), st.integers(0, 1 << 30))
@settings(max_examples=300, deadline=None)
def test_loss_never_gives_a_wrong_definite_answer(wire: Wire, seed: int) -> None:
    rng = random.Random(seed)
    true = wire.record()
    share = rng.choice((0.03, 0.1, 0.3))
    for record in records_of(lose(share)(wire.segments, rng)):
        assert not wrong_facts(record, true)


@given(conversations(), st.integers(0, 1 << 30))
@settings(max_examples=150, deadline=None)
def test_reordering_never_gives_a_wrong_definite_answer(wire: Wire, seed: int) -> None:
    true = wire.record()
    for record in records_of(reorder(4)(wire.segments, random.Random(seed))):
        assert not wrong_facts(record, true)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_loss_around_tls_never_gives_a_wrong_definite_answer(
    share: float, tls_mail: Transcript, failed_tls: Transcript
) -> None:
    opening = "S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 STARTTLS\n"
    upgrade = opening + "C: STARTTLS\nS: 220 go"
    wires = [
        Wire().open().say(upgrade).play(tls_mail).close(),
        Wire().open().say(upgrade).play(failed_tls).close(),
        Wire().open().say(upgrade).play(tls_mail[:3]).reset(C),
        Wire().open().say(upgrade).play(tls_mail).say("C: MAIL FROM:<a@b>\nS: 250 ok").close(),
        Wire().open().say(opening).send(*tls_mail[0]).say("S: 500 what").close(),
        Wire(465).open().play(tls_mail).close(),
        Wire(465).open().play(failed_tls).close(),
        Wire().open().say("S: 220 mx").send(*tls_mail[0]).say("S: 500 what").close(),
    ]
    for number, wire in enumerate(wires):
        true = wire.record()
        for seed in range(150):
            for record in records_of(lose(share)(wire.segments, random.Random(seed))):
                assert not wrong_facts(record, true), (number, seed)


HOSTILE = st.binary(max_size=60) | st.sampled_from(
    [b'"\\\x00\x1b[31m\x7f\xc2\x9b', "\u2028\u202e".encode(), "\u00e9".encode() * 5_000, b"\xff" * 300]
)


@given(HOSTILE, HOSTILE, HOSTILE)
@settings(max_examples=200, deadline=None)
def test_a_record_is_one_line_of_json_whatever_the_names_are(one: bytes, two: bytes, three: bytes) -> None:
    wire = Wire().open().send(S, b"220 " + one + b"\r\n")
    wire.send(C, b"EHLO " + two + b"\r\n").send(S, b"250-" + three + b"\r\n250 " + one + b"\r\n")
    wire.send(C, b"MAIL FROM:<" + one + b"> " + two + b"=" + three + b"\r\n").say(OK)
    wire.send(C, b"RCPT TO:" + three + b"\r\n").say(OK)
    wire.send(C, b"AUTH " + two + b"\r\n").say("S: 504 what").close()
    (record,) = frozen_records(wire.segments)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert not any(byte < 0x20 or byte == 0x7F for byte in line[:-1])
    assert json.loads(line.decode("utf-8"))["schema_version"] == 1


@pytest.mark.parametrize("seed", range(40))
def test_no_secret_and_no_body_byte_is_in_a_record(seed: int) -> None:
    rng = random.Random(seed)
    words = [secrets.token_hex(12) for _ in range(6)]
    wire = Wire().open().say("S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 AUTH PLAIN LOGIN")
    wire.say(f"C: AUTH PLAIN {words[0]}\nS: 535 no")
    wire.say(f"C: AUTH LOGIN\nS: 334 a\nC: {words[1]}\nS: 334 b\nC: MAIL {words[2]}\nS: 235 in")
    wire.say(f"C: MAIL FROM:<a@b>\n{OK}\nC: RCPT TO:<c@d>\n{OK}\nC: DATA\nS: 354 go")
    wire.say(
        f"C: {words[3]}\nC: RCPT TO:<{words[4]}@body>\nC: {words[5]}\nC: .\n{OK}\nC: QUIT\nS: 221 bye"
    ).close()
    copies = [wire.segments, resegment(lambda rng: rng.randint(1, 9))(wire.segments, rng)]
    copies += [lose(share)(copy, rng) for copy in list(copies) for share in (0.02, 0.1, 0.3)]
    for copy in copies:
        for record in frozen_records(copy):
            line = encode(record).decode().lower()
            assert not any(word[at : at + 6] in line for word in words for at in range(18)), line
