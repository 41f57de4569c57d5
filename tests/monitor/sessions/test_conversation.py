"""Whole connections, real TLS bytes included -> what the contract says of their records."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from monitor.side import Side
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript, client_context, server_context
from tests.monitor.tls.real_tls import Wire as TlsWire

C, S = Side.CLIENT, Side.SERVER

GREETING = """
S: 220 mx.example ESMTP
C: EHLO client.example
S: 250-mx.example
S: 250-PIPELINING
S: 250 STARTTLS
"""
UPGRADE = (
    GREETING
    + """
C: STARTTLS
S: 220 go ahead
"""
)
MAIL = """
C: MAIL FROM:<a@client.example>
S: 250 ok
C: RCPT TO:<b@example.test>
S: 250 ok
"""
MESSAGE = """
C: DATA
S: 354 go on
C: hello
C: .
S: 250 queued
"""
QUIT = """
C: QUIT
S: 221 bye
"""


def verdict(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["channel"], record["envelope"], record["starttls"]["outcome"]


# ---------------------------------------------------------------------- in clear


def test_a_mail_in_clear_is_visible() -> None:
    record = Wire().open().say(GREETING + MAIL + MESSAGE + QUIT).close(S).record()
    assert verdict(record) == ("cleartext", "visible", "unused")
    assert record["banner"] == {"code": 220, "text": "mx.example ESMTP"}
    assert record["helo"] == [{"verb": "EHLO", "name": "client.example", "code": 250}]
    assert record["starttls"] == {"offered": True, "requested": 0, "codes": [], "outcome": "unused"}
    assert record["transactions"] == [
        {
            "mail_from": "a@client.example",
            "mail_code": 250,
            "mail_params": {},
            "recipients": [{"address": "b@example.test", "code": 250, "params": {}, "after_seconds": 0.011}],
            "data": {"verb": "DATA", "wire_bytes": 10, "code": 250},
            "outcome": "accepted",
        }
    ]
    assert record["tls"] is None
    assert record["ended"] == "quit"
    assert record["capture"] == {"complete": True, "gap_bytes": 0, "midstream": False, "truncated": False}
    assert record["anomalies"] == []
    assert record["bytes"]["encrypted"] == 0
    assert record["bytes"]["cleartext"] == record["bytes"]["client"] + record["bytes"]["server"]


def test_the_record_names_both_ends_and_the_time() -> None:
    wire = Wire(587).open().say(GREETING).close()
    record = wire.record()
    assert record["client"] == {"ip": "192.0.2.1", "port": 40_000}
    assert record["server"] == {"ip": "192.0.2.2", "port": 587}
    assert record["start"] == "2026-09-21T14:13:20.001000Z"
    assert record["duration_seconds"] == pytest.approx((wire.at_ns - wire.segments[0].at_ns) / 1e9)
    assert record["direction"] == "unknown"
    assert record["schema_version"] == 1


@pytest.mark.parametrize(
    ("lines", "ended"),
    [(QUIT, "quit"), ("C: NOOP\nS: 250 ok", "client_closed")],
)
def test_who_quits_has_quit(lines: str, ended: str) -> None:
    assert Wire().open().say(GREETING + lines).close().record()["ended"] == ended


def test_who_closes_first_has_closed() -> None:
    assert Wire().open().say("S: 421 too busy").close(S).record()["ended"] == "server_closed"


def test_a_reset_is_a_reset() -> None:
    record = Wire().open().say(GREETING).reset(C).record()
    assert record["ended"] == "reset"
    assert verdict(record) == ("cleartext", "none", "unused")


def test_what_is_still_open_at_the_end_of_the_capture_is_undecided() -> None:
    record = Wire().open().say(GREETING).record()
    assert record["ended"] == "capture_ended"
    assert not record["capture"]["complete"]
    assert verdict(record) == ("unknown", "unknown", "unknown")


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ("S: 220 mx\nC: QUIT\nS: 221 bye", "not_reached"),
        ("S: 220 mx\nC: HELO c\nS: 250 mx", "not_reached"),
        ("S: 554 no", "not_reached"),
        ("S: 220 mx\nC: EHLO c\nS: 502 what", "not_reached"),
        ("S: 220 mx\nC: EHLO c\nS: 250 mx", "not_offered"),
        ("S: 220 mx\nC: EHLO c\nS: 250-mx\nS: 250 XXXXXXXA", "masked"),
        (GREETING + "C: XXXXXXXX\nS: 500 what", "masked"),
        (GREETING, "unused"),
        (GREETING + "C: STARTTLS\nS: 454 not now", "refused"),
        (GREETING + "C: STARTTLS\nS: 502 no\nC: STARTTLS\nS: 503 no", "refused"),
        (GREETING + "C: STARTTLS", "abandoned"),
        (UPGRADE, "abandoned"),
        (UPGRADE + "C: MAIL FROM:<a@b>\nS: 530 TLS first", "abandoned"),
    ],
)
def test_outcomes_without_tls(lines: str, outcome: str) -> None:
    record = Wire().open().say(lines).close().record()
    assert record["channel"] == "cleartext"
    assert record["starttls"]["outcome"] == outcome
    assert ("starttls_masked" in record["anomalies"]) is (outcome == "masked")


def test_a_refused_starttls_goes_on_in_clear() -> None:
    record = Wire().open().say(GREETING + "C: STARTTLS\nS: 454 no" + MAIL + MESSAGE + QUIT).close().record()
    assert verdict(record) == ("cleartext", "visible", "refused")
    assert record["starttls"]["codes"] == [454]
    assert record["transactions"][0]["outcome"] == "accepted"


def test_http_on_port_25_is_nobodys_envelope() -> None:
    record = (
        Wire().open().say("S: 220 mx\nC: GET / HTTP/1.1\nC: Host: mx").say("S: 500 what").close().record()
    )
    assert verdict(record) == ("cleartext", "none", "not_reached")
    assert record["tls"] is None


def test_a_scan_that_says_nothing_is_none() -> None:
    record = Wire().open().close().record()
    assert verdict(record) == ("cleartext", "none", "not_reached")
    assert record["banner"] is None
    assert record["ended"] == "client_closed"


# ---------------------------------------------------------------------- STARTTLS


def test_starttls_hides_the_envelope(tls_mail: Transcript) -> None:
    record = Wire().open().say(UPGRADE).play(tls_mail).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["starttls"]["codes"] == [220]
    assert record["tls"]["version"] == "TLSv1.3"
    assert record["tls"]["ja4"].startswith("t13i")
    assert record["bytes"]["encrypted"] == sum(len(data) for _, data in tls_mail)
    assert record["anomalies"] == []
    assert record["capture"]["complete"]


def test_x_anonymoustls_counts_as_starttls(tls_mail: Transcript) -> None:
    record = Wire().open().say(UPGRADE.replace("STARTTLS", "X-ANONYMOUSTLS")).play(tls_mail).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["starttls"]["requested"] == 1


def test_refused_and_then_accepted(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + "C: STARTTLS\nS: 454 not yet\nC: STARTTLS\nS: 220 now")
    record = wire.play(tls_mail).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["starttls"]["codes"] == [454, 220]
    assert record["starttls"]["requested"] == 2


def test_a_mail_before_starttls_makes_it_partial(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + MAIL + "C: RSET\nS: 250 ok\nC: STARTTLS\nS: 220 go")
    record = wire.play(tls_mail).close().record()
    assert verdict(record) == ("starttls", "partial", "established")
    assert record["transactions"][0]["outcome"] == "aborted"


def test_an_encrypted_alert_and_a_close_is_failed(failed_tls: Transcript) -> None:
    record = Wire().open().say(UPGRADE).play(failed_tls).close().record()
    assert verdict(record) == ("starttls", "none", "failed")
    assert record["tls"]["version"] == "TLSv1.3"


def test_a_handshake_that_stops_is_failed(tls_mail: Transcript) -> None:
    record = Wire().open().say(UPGRADE).play(tls_mail[:2]).reset(C).record()
    assert verdict(record) == ("starttls", "none", "failed")
    assert record["ended"] == "reset"


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2"])
def test_older_versions_too(version: str, certificate: Path) -> None:
    number = ssl.TLSVersion[version]
    tls = TlsWire(client_context(None, number), server_context(certificate, number))
    tls.shake_hands()
    failed = Wire().open().say(UPGRADE).play(tls.transcript).close().record()
    assert verdict(failed) == ("starttls", "none", "failed")
    tls.say(C, b"EHLO c\r\n")
    tls.say(S, b"250 mx\r\n")
    record = Wire().open().say(UPGRADE).play(tls.transcript).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["tls"]["version"] == version.replace("_", ".")


@pytest.mark.parametrize("how", ["nothing", "reset", "garbage", "more clear text"])
def test_abandoned_in_every_way(how: str) -> None:
    wire = Wire().open().say(UPGRADE)
    if how == "garbage":
        wire.send(C, b"\xff\x00\xfe\r\n")
    if how == "more clear text":
        wire.say(MAIL)
    record = (wire.reset(C) if how == "reset" else wire.close()).record()
    envelope = "visible" if how == "more clear text" else "none"
    assert verdict(record) == ("cleartext", envelope, "abandoned")
    assert record["starttls"]["codes"] == [220]


def test_a_lost_220_with_tls_behind_it_is_starttls(tls_mail: Transcript) -> None:
    wire = Wire().open().say(UPGRADE).play(tls_mail).close()
    without = [segment for segment in wire.segments if not segment.payload.startswith(b"220 go")]
    wire.segments = without
    record = wire.record()
    assert verdict(record) == ("starttls", "unknown", "established")
    assert record["starttls"]["codes"] == [None]
    assert record["capture"]["gap_bytes"] == len(b"220 go ahead\r\n")
    assert not record["capture"]["complete"]


# ---------------------------------------------------------------------- attacks on STARTTLS


def test_bytes_in_the_segment_of_starttls_are_an_injection(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\nRSET\r\n").say("S: 220 go")
    record = wire.play(tls_mail).close().record()
    assert record["anomalies"] == ["starttls_injection"]
    assert verdict(record) == ("starttls", "hidden", "established")


def test_bytes_that_cross_with_the_220_are_an_injection(tls_mail: Transcript) -> None:
    wire = Wire().open().say(UPGRADE).send(C, b"MAIL FROM:<evil@client.example>\r\n", crossing=True)
    record = wire.play(tls_mail).close().record()
    assert record["anomalies"] == ["starttls_injection"]
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["transactions"] == []


@pytest.mark.parametrize("size", [1, 3, 5, 10_000])
def test_a_hello_that_comes_too_early_is_read_all_the_same(size: int, tls_mail: Transcript) -> None:
    (_, hello), *rest = tls_mail
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n").say("S: 220 go")
    for at in range(0, len(hello), size):
        wire.send(C, hello[at : at + size], crossing=True)
    record = wire.play(rest).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["tls"]["ja4"] is not None
    assert record["anomalies"] == ["starttls_injection"]


@pytest.mark.parametrize("cut", [1, 4, 5, 50])
def test_a_hello_that_begins_before_the_220_is_one_hello(cut: int, tls_mail: Transcript) -> None:
    (_, hello), *rest = tls_mail
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\n" + hello[:cut]).say("S: 220 go")
    record = wire.send(C, hello[cut:]).play(rest).close().record()
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["tls"]["ja4"] is not None


@pytest.mark.parametrize("glued", [True, False])
def test_server_bytes_behind_the_220_are_a_response_injection(glued: bool, tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + "C: STARTTLS")
    if glued:
        wire.send(S, b"220 go\r\n250 injected\r\n")
    else:
        wire.say("S: 220 go\nS: 250 injected")
    record = wire.play(tls_mail).close().record()
    assert record["anomalies"] == ["response_injection"]
    assert verdict(record) == ("starttls", "hidden", "established")


def test_clear_text_after_tls_is_read_again(tls_mail: Transcript) -> None:
    wire = Wire().open().say(UPGRADE).play(tls_mail)
    record = wire.say(MAIL + QUIT).close().record()
    assert record["anomalies"] == ["cleartext_after_tls"]
    assert verdict(record) == ("starttls", "hidden", "established")
    assert record["transactions"][0]["recipients"][0]["code"] == 250
    assert record["ended"] == "quit"


# ---------------------------------------------------------------------- implicit TLS


@pytest.mark.parametrize(
    ("port", "anomalies"), [(465, []), (25, ["tls_without_starttls"]), (587, ["tls_without_starttls"])]
)
def test_tls_from_the_first_byte_is_implicit(port: int, anomalies: list[str], tls_mail: Transcript) -> None:
    record = Wire(port).open().play(tls_mail).close().record()
    assert verdict(record) == ("implicit_tls", "hidden", "not_reached")
    assert record["anomalies"] == anomalies
    assert record["starttls"]["offered"] is None
    assert record["bytes"]["cleartext"] == 0


def test_clear_text_after_implicit_tls_does_not_undo_it(tls_mail: Transcript) -> None:
    record = Wire(465).open().play(tls_mail).say("S: 421 bye").close(S).record()
    assert record["channel"] == "implicit_tls"
    assert record["envelope"] == "hidden"
    assert record["anomalies"] == ["cleartext_after_tls"]


def test_clear_text_on_465_is_clear_text() -> None:
    record = Wire(465).open().say(GREETING + MAIL + QUIT).close().record()
    assert verdict(record) == ("cleartext", "visible", "unused")


def test_a_tls_client_has_no_tls_channel_to_a_server_in_clear(tls_mail: Transcript) -> None:
    wire = Wire().open().say("S: 220 mx").send(*tls_mail[0]).say("S: 500 what")
    record = wire.close().record()
    assert verdict(record) == ("cleartext", "none", "not_reached")
    assert record["anomalies"][-1] == "tls_without_starttls"


def test_tls_that_nobody_had_agreed_on_is_not_starttls(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING).send(*tls_mail[0]).say("S: 500 what").say(QUIT)
    record = wire.close().record()
    assert verdict(record) == ("cleartext", "none", "unused")
    assert "tls_without_starttls" in record["anomalies"]


def test_tls_after_a_refused_starttls_is_not_starttls(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + "C: STARTTLS\nS: 454 no").send(*tls_mail[0]).say("S: 500 what")
    record = wire.close().record()
    assert verdict(record) == ("cleartext", "none", "refused")


# ---------------------------------------------------------------------- PROXY protocol

V1 = b"PROXY TCP4 198.51.100.7 192.0.2.2 5555 25\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xc0\x00\x02\x02\x15\xb3\x00\x19"
CLIENT = {"ip": "198.51.100.7", "port": 5555}


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_proxy_header_names_the_client_wherever_it_is_cut(header: bytes, tls_mail: Transcript) -> None:
    whole = Wire().open().send(C, header).say(GREETING + MAIL + QUIT).close().record()
    assert whole["proxied_client"] == CLIENT
    assert verdict(whole) == ("cleartext", "visible", "unused")
    assert whole["anomalies"] == []
    for cut in range(1, len(header)):
        wire = Wire().open().send(C, header[:cut]).send(C, header[cut:]).say(GREETING)
        assert wire.say(MAIL + QUIT).close().record()["proxied_client"] == CLIENT, cut
    record = Wire(465).open().send(C, header).play(tls_mail).close().record()
    assert record["proxied_client"] == CLIENT
    assert record["channel"] == "implicit_tls"
    glued = Wire(465).open().send(C, header + tls_mail[0][1]).play(tls_mail[1:]).close().record()
    assert glued["tls"] == record["tls"]


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", V2[:12] + b"\x20\x00\x00\x00"], ids=["UNKNOWN", "LOCAL"]
)
def test_a_health_check_names_nobody(header: bytes) -> None:
    record = Wire().open().send(C, header).say("S: 220 mx").say(QUIT).close().record()
    assert record["proxied_client"] is None
    assert verdict(record) == ("cleartext", "none", "not_reached")
    assert record["ended"] == "quit"


def test_there_is_one_proxy_header_however_it_is_cut() -> None:
    second = b"PROXY TCP4 203.0.113.9 192.0.2.2 1 25\r\n"
    glued = Wire().open().send(C, V1 + second).say(GREETING).close().record()
    apart = Wire().open().send(C, V1).send(C, second).say(GREETING).close().record()
    assert glued["proxied_client"] == apart["proxied_client"] == CLIENT
