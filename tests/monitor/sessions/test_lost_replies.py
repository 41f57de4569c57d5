"""A packet of replies is lost, and the client pipelines without leave: still nothing definite is wrong."""

from monitor.side import Side
from tests.monitor.sessions.conversations import encrypted_sessions
from tests.monitor.sessions.wire import Wire
from tests.segments import records_of

C, S = Side.CLIENT, Side.SERVER
GREETING = "S: 220 mx\nC: EHLO c\nS: 250 mx"
FIRST = b"MAIL FROM:<p@client.example>\r\nRCPT TO:<q@example.test>\r\n"
SECOND = b"MAIL FROM:<r@client.example>\r\nRCPT TO:<s@example.test>\r\nDATA\r\n"


def test_encryption_that_was_not_recognised_is_not_ruled_out() -> None:
    wire = Wire().open().say(GREETING).send(C, FIRST).send(S, b"250 ok\r\n550 no\r\n")
    lost = wire.segments[-1]
    wire.send(C, SECOND).send(S, b"451 no\r\n503 no\r\n503 no\r\n").say("C: STARTTLS\nS: 220 go")
    wire.play(encrypted_sessions()[0]).close()
    assert wire.record()["channel"] == "starttls"
    (record,) = records_of(segment for segment in wire.segments if segment is not lost)
    assert (record["channel"], record["envelope"]) == ("unknown", "unknown")
    assert record["starttls"]["outcome"] == "unknown"


def test_a_second_starttls_is_no_injection_because_the_reply_to_the_first_was_not_recognised() -> None:
    wire = Wire().open().say(GREETING).send(C, SECOND).send(S, b"451 no\r\n503 no\r\n503 no\r\n")
    lost = wire.segments[-1]
    wire.say("C: RSET\nS: 250 ok\nC: STARTTLS\nS: 454 no\nC: STARTTLS\nS: 220 go").close()
    (record,) = records_of(segment for segment in wire.segments if segment is not lost)
    assert record["anomalies"] == ["unauthorized_pipelining"] == wire.record()["anomalies"]
