"""OpenBSD spamd: it would stand in the server's place, and never offer STARTTLS."""

import pytest

from monitor.greylisters import TlsEnds
from monitor.greylisters.spamd import Spamd
from monitor.sessions.record import GreylisterReach, Reach
from monitor.side import Side
from monitor.smtp.events import CommandAnswered
from monitor.smtp.grammar import Command
from tests.monitor.greylisters.sight import GREETING, MAIL, QUIT, RCPT, STARTTLS, midstream, said, seen_by
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript

C = Side.CLIENT


@pytest.mark.parametrize("code", [250, 450, 503, 550])
def test_it_decides_at_the_first_rcpt_whatever_the_server_says(code: int) -> None:
    assert seen_by("spamd", said(f"{GREETING}{MAIL}C: RCPT TO:<b@c>\nS: {code} as you like\n")) == "decided"


def test_a_rcpt_that_nobody_answered_counts_too() -> None:
    assert seen_by("spamd", said(GREETING + MAIL + "C: RCPT TO:<b@c>\n")) == "decided"


def test_a_rcpt_that_names_nobody_does_not() -> None:
    assert seen_by("spamd", said(GREETING + MAIL + "C: RCPT\nS: 501 what\n")) == "no_envelope"


def test_auth_and_data_take_nothing_from_it() -> None:
    assert seen_by("spamd", said(GREETING + "C: AUTH PLAIN eA==\nS: 235 in\n" + MAIL + RCPT)) == "decided"
    assert (
        seen_by("spamd", said(GREETING + "C: DATA\nS: 354 go\nC: .\nS: 250 ok\n" + MAIL + RCPT)) == "decided"
    )


def test_a_session_in_starttls_would_have_to_fall_back(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("spamd", wire) == "decided by starttls"
    assert seen_by("spamd", said(GREETING + STARTTLS + MAIL + RCPT)) == "decided by starttls"


def test_a_recipient_before_starttls_is_decided_on() -> None:
    assert seen_by("spamd", said(GREETING + MAIL + RCPT + STARTTLS)) == "decided"


def test_a_refused_starttls_takes_nothing_from_it() -> None:
    refused = GREETING + "C: STARTTLS\nS: 454 no\n"
    assert seen_by("spamd", said(refused + MAIL + RCPT)) == "decided"
    assert seen_by("spamd", said(refused + QUIT)) == "no_envelope"
    assert seen_by("spamd", said(refused + STARTTLS)) == "decided by starttls"


def test_tls_that_nobody_agreed_on_can_not_be_greylisted(tls_mail: Transcript) -> None:
    assert seen_by("spamd", Wire(465).open().play(tls_mail).close()) == "blind by implicit_tls"
    assert seen_by("spamd", Wire(25).open().play(tls_mail).close()) == "blind by implicit_tls"
    wire = Wire().open().say(GREETING).send(*tls_mail[0]).say("S: 500 what").close()
    assert seen_by("spamd", wire) == "blind by implicit_tls"


def test_a_session_without_a_recipient_leaves_nothing_to_decide() -> None:
    assert seen_by("spamd", said(GREETING + MAIL + QUIT)) == "no_envelope"
    assert seen_by("spamd", Wire().open().reset(C)) == "no_envelope"


def test_what_was_not_captured_is_unknown() -> None:
    assert seen_by("spamd", Wire().open().say(GREETING + MAIL)) == "unknown"
    assert seen_by("spamd", midstream(said(GREETING + MAIL + RCPT))) == "unknown"
    assert seen_by("spamd", Wire().open().say(GREETING + "C: STARTTLS")) == "unknown"


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_where_tls_ends_makes_no_difference(tls_ends: TlsEnds, tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("spamd", wire, tls_ends) == "decided by starttls"
    assert seen_by("spamd", Wire(465).open().play(tls_mail).close(), tls_ends) == "blind by implicit_tls"


def test_a_starttls_whose_reply_may_have_been_lost_is_unknown() -> None:
    model = Spamd(TlsEnds.SERVER)
    assert model.answered(CommandAnswered(Command("STARTTLS"), None, in_doubt=True)) == GreylisterReach(
        Reach.UNKNOWN
    )
    assert model.answered(CommandAnswered(Command("STARTTLS"), None)) is None
