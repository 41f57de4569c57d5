"""Policy services and milters: what the server had to ask them about."""

import pytest

from monitor.greylisters import TlsEnds
from monitor.side import Side
from tests.monitor.greylisters.sight import GREETING, MAIL, QUIT, RCPT, STARTTLS, midstream, said, seen_by
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript


@pytest.mark.parametrize("code", [250, 450, 550])
def test_a_recipient_is_asked_about_whatever_becomes_of_it(code: int) -> None:
    transcript = f"{GREETING}{MAIL}C: RCPT TO:<b@c>\nS: {code} as you like\n"
    assert seen_by("policy_service", said(transcript)) == "decided"


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 530, 555])
def test_a_recipient_that_the_server_does_not_look_at_is_nothing_to_ask_about(code: int) -> None:
    transcript = f"{GREETING}{MAIL}C: RCPT TO:<b@c>\nS: {code} no\n"
    assert seen_by("policy_service", said(transcript + QUIT)) == "no_envelope"
    assert seen_by("policy_service", said(transcript + RCPT)) == "decided"


def test_auth_and_data_take_nothing_from_it() -> None:
    auth = GREETING + "C: AUTH PLAIN eA==\nS: 235 in\n" + MAIL + RCPT
    assert seen_by("policy_service", said(auth)) == "decided"


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_tls_takes_nothing_from_it_wherever_it_ends(tls_ends: TlsEnds, tls_mail: Transcript) -> None:
    wires = [
        Wire().open().say(GREETING + STARTTLS).play(tls_mail).close(),
        Wire().open().say(GREETING + MAIL + STARTTLS).play(tls_mail).close(),
        Wire(465).open().play(tls_mail).close(),
    ]
    assert [seen_by("policy_service", wire, tls_ends) for wire in wires] == ["decided"] * 3


def test_a_mail_without_a_recipient_is_nothing_to_ask_about() -> None:
    assert seen_by("policy_service", said(GREETING + MAIL + QUIT)) == "no_envelope"
    assert seen_by("policy_service", said(GREETING + "C: RCPT\nS: 501 what\n")) == "no_envelope"
    assert seen_by("policy_service", Wire().open().reset(Side.CLIENT)) == "no_envelope"


def test_a_handshake_that_failed_brought_no_recipient(failed_tls: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(failed_tls).close()
    assert seen_by("policy_service", wire) == "no_envelope"


def test_what_was_not_captured_is_unknown() -> None:
    assert seen_by("policy_service", Wire().open().say(GREETING + MAIL)) == "unknown"
    assert seen_by("policy_service", midstream(said(GREETING + MAIL + QUIT))) == "unknown"


def test_a_recipient_that_was_seen_is_enough() -> None:
    assert seen_by("policy_service", midstream(said(GREETING + MAIL + RCPT))) == "decided"


def test_where_encryption_is_neither_sure_nor_ruled_out_it_is_unknown(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail[:1]).close()
    assert seen_by("policy_service", wire) == "no_envelope"
    whole = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    from_the_server = [data for side, data in tls_mail if side is Side.SERVER]
    holed = Wire()
    holed.segments = [segment for segment in whole.segments if segment.payload not in from_the_server]
    assert seen_by("policy_service", holed) == "unknown"
