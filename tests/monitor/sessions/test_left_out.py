"""Stretches that the probe left out: the record is the same where nobody needed them, and else unknown."""

from monitor.side import Side
from probes.segment import LEFT_OUT, Segment
from tests.monitor.sessions.wire import Wire
from tests.segments import records_of
from tests.timeless import timeless

C, S = Side.CLIENT, Side.SERVER
DATA = """\
S: 220 mx.example.test ESMTP
C: EHLO client.example
S: 250 mx.example.test
C: MAIL FROM:<a@client.example>
S: 250 ok
C: RCPT TO:<b@example.test>
S: 250 ok
C: DATA
S: 354 go on"""


def left_out(segments: list[Segment], first: int, last: int, left: int = 0) -> list[Segment]:
    """The same with those from `first` to `last` left out, the last one's end being the edge."""
    begin, end = segments[first], segments[last]
    length = sum(segment.length for segment in segments[first : last + 1])
    stretch = begin.replace(
        at_ns=end.at_ns, flags=LEFT_OUT, acknowledgement=0, length=length, payload=end.payload[-4:], left=left
    )
    return [*segments[:first], stretch, *segments[last + 1 :]]


def place_of(wire: Wire, payload: bytes) -> int:
    return next(place for place, segment in enumerate(wire.segments) if segment.payload == payload)


def message(*pieces: bytes, ending: str = "S: 250 queued\nC: QUIT\nS: 221 bye") -> Wire:
    wire = Wire().open().say(DATA)
    for piece in pieces:
        wire.send(C, piece)
    return wire.say(ending).close()


def test_the_middle_of_a_message_is_only_counted() -> None:
    wire = message(b"one\r\n", b"two\r\n", b"three\r\n", b"four\r\n.\r\n")
    segments = left_out(wire.segments, place_of(wire, b"two\r\n"), place_of(wire, b"three\r\n"))
    (record,) = records_of(segments)
    assert timeless(record) == timeless(wire.record())
    assert record["transactions"][0]["data"]["wire_bytes"] == 26
    assert record["capture"]["complete"]


def test_an_end_that_begins_at_the_edge_of_what_was_left_out_is_seen() -> None:
    for cut in range(1, 5):
        body = b"one\r\ntwo\r\n.\r\n"
        wire = message(b"zero\r\n", body[:-cut], body[-cut:])
        at = place_of(wire, body[:-cut])
        (record,) = records_of(left_out(wire.segments, at, at))
        assert timeless(record) == timeless(wire.record()), cut
        assert record["transactions"][0]["outcome"] == "accepted"


def test_where_an_end_may_hide_a_positive_answer_leaves_the_length_unknown() -> None:
    wire = message(b"one\r\n", b"two\r\n.\r\n" + b"RSET\r\n" * 9)
    at = place_of(wire, b"two\r\n.\r\n" + b"RSET\r\n" * 9)
    (record,) = records_of(left_out(wire.segments, at, at, left=1))
    assert record["transactions"][0]["data"] == {"verb": "DATA", "wire_bytes": None, "code": 250}
    assert record["transactions"][0]["outcome"] == "accepted"


def test_where_an_end_may_hide_a_refusal_is_the_message_s_and_its_length_unknown() -> None:
    wire = message(b"one\r\n", b"two\r\n", ending="S: 552 too big")
    at = place_of(wire, b"two\r\n")
    (record,) = records_of(left_out(wire.segments, at, at, left=1))
    (whole,) = records_of(wire.segments)
    assert record["transactions"][0]["data"] == {"verb": "DATA", "wire_bytes": None, "code": 552}
    assert whole["transactions"][0]["data"]["code"] == 552
    assert record["envelope"] == whole["envelope"] == "visible"


def test_a_chunk_is_only_counted() -> None:
    wire = Wire().open().say(DATA.replace("C: DATA\nS: 354 go on", "C: BDAT 12 LAST"))
    wire.send(C, b"QUIT\r\n").send(C, b"RSET\r\n")
    wire.say("S: 250 queued\nC: QUIT\nS: 221 bye").close()
    at = place_of(wire, b"RSET\r\n") - 1
    for last, left in ((at, 6), (at + 1, 0)):
        (record,) = records_of(left_out(wire.segments, at, last, left))
        assert timeless(record) == timeless(wire.record())


def test_commands_that_were_left_out_are_lost() -> None:
    wire = message(b"one\r\n.\r\n")
    at = place_of(wire, b"RCPT TO:<b@example.test>\r\n")
    (record,) = records_of(left_out(wire.segments, at, at))
    assert record["capture"]["gap_bytes"] == 26
    assert not record["capture"]["complete"]
    assert record["transactions"][0]["recipients"] == []
