"""recordio: what stands in its log to be read."""

import pytest

from monitor.greylisters import TlsEnds
from monitor.side import Side
from tests.monitor.greylisters.sight import GREETING, MAIL, QUIT, RCPT, STARTTLS, midstream, said, seen_by
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript

C = Side.CLIENT


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_a_mail_in_clear_stands_in_the_log(tls_ends: TlsEnds) -> None:
    assert seen_by("recordio", said(GREETING + MAIL + RCPT + QUIT), tls_ends) == "decided"
    assert seen_by("recordio", said(GREETING + MAIL), tls_ends) == "decided"
    assert seen_by("recordio", said(GREETING + "C: MAIL FROM:<a@b>\nS: 550 no\n"), tls_ends) == "decided"


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_a_session_without_mail_leaves_nothing_to_read(tls_ends: TlsEnds) -> None:
    assert seen_by("recordio", said(GREETING + QUIT), tls_ends) == "no_envelope"
    assert seen_by("recordio", Wire().open().reset(C), tls_ends) == "no_envelope"


@pytest.mark.parametrize(
    ("tls_ends", "found"),
    [
        (TlsEnds.SERVER, "blind by starttls"),
        (TlsEnds.UCSPI_TLS, "stalled by starttls"),
        (TlsEnds.PROXY, "decided"),
    ],
)
def test_behind_starttls_it_depends_on_where_tls_ends(
    tls_ends: TlsEnds, found: str, tls_mail: Transcript
) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("recordio", wire, tls_ends) == found


@pytest.mark.parametrize(
    ("tls_ends", "found"),
    [
        (TlsEnds.SERVER, "blind by implicit_tls"),
        (TlsEnds.UCSPI_TLS, "blind by implicit_tls"),
        (TlsEnds.PROXY, "decided"),
    ],
)
def test_tls_from_the_first_byte_is_no_race(tls_ends: TlsEnds, found: str, tls_mail: Transcript) -> None:
    assert seen_by("recordio", Wire(465).open().play(tls_mail).close(), tls_ends) == found


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_a_mail_before_starttls_stands_in_the_log(tls_ends: TlsEnds, tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + MAIL + STARTTLS).play(tls_mail).close()
    assert seen_by("recordio", wire, tls_ends) == "decided"


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_after_a_handshake_that_failed_there_was_nothing_to_read(
    tls_ends: TlsEnds, failed_tls: Transcript
) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(failed_tls).close()
    assert seen_by("recordio", wire, tls_ends) == "no_envelope"


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_what_was_not_captured_is_unknown(tls_ends: TlsEnds) -> None:
    assert seen_by("recordio", Wire().open().say(GREETING), tls_ends) == "unknown"
    assert seen_by("recordio", midstream(said(GREETING + QUIT)), tls_ends) == "unknown"
