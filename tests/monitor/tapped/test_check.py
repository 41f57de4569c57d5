"""The packets' tale against what was inside. What contradicts is found; and nothing that is right ever is."""

import pytest

from monitor.sessions.record import Channel, Tapped, TapResult
from tests.monitor.tapped.kernel import Kernel, spoken
from tests.monitor.tapped.test_streams import Tap, stream
from tests.monitor.tapped.transcripts import GREETING, MESSAGE, QUIT

BANNER = "S: 220 mx.example\n"
MAIL = GREETING + MESSAGE + QUIT
NEVER = {"established": False, "ruled_out": True}
UNKNOWN = {"established": False, "ruled_out": False}
CLEARTEXT, STARTTLS, IMPLICIT = Channel.CLEARTEXT, Channel.STARTTLS, Channel.IMPLICIT_TLS


def is_contradicted(transcript: str, **verdict: object) -> bool:
    tap = Tap().see(stream(transcript))
    tapped = tap.ask(**{"community_id": "1:this", **verdict})  # type: ignore[arg-type]
    assert tapped is not None
    assert tapped.result == "whole"
    assert tap.mismatches in ([], ["1:this"])
    return bool(tap.mismatches)


@pytest.mark.parametrize("channel", [CLEARTEXT, STARTTLS, Channel.UNKNOWN])
def test_encryption_that_was_never_established_while_a_mail_went_through_it(channel: Channel) -> None:
    assert is_contradicted(MAIL, channel=channel, **NEVER)


def test_a_server_that_reads_by_functions_which_the_tap_does_not_know_is_missed_not_mistaken() -> None:
    mismatches = Tap().see(stream(""))
    tapped = mismatches.ask(established=True)
    assert tapped == Tapped(TapResult.MISSED)
    assert not mismatches.mismatches


def test_a_greeting_inside_what_began_with_starttls() -> None:
    assert is_contradicted(BANNER + MAIL, channel=STARTTLS)
    assert not is_contradicted(BANNER + MAIL, channel=IMPLICIT)


def test_no_greeting_inside_what_was_tls_from_the_first_byte() -> None:
    assert is_contradicted(MAIL, channel=IMPLICIT)
    assert not is_contradicted(MAIL, channel=STARTTLS)


def test_more_bytes_inside_than_outside() -> None:
    assert is_contradicted(MAIL, encrypted_bytes=100)
    assert not is_contradicted(MAIL, encrypted_bytes=100, whole=False)


@pytest.mark.parametrize("transcript", ["", GREETING, MAIL, BANNER + MAIL])
def test_what_is_unknown_contradicts_nothing(transcript: str) -> None:
    assert not is_contradicted(transcript, channel=Channel.UNKNOWN, **UNKNOWN)


@pytest.mark.parametrize(
    "transcript",
    [
        "",  # closed right after the handshake
        "C: EHLO client.example",  # and before the server answered
        GREETING,
        GREETING + QUIT,
        BANNER,
        BANNER + QUIT,
        "C: EHLO a\n" + BANNER,  # spoke too early, and never more
    ],
)
def test_a_handshake_that_looks_failed_because_so_little_came_after_it_contradicts_nothing(
    transcript: str,
) -> None:
    assert not is_contradicted(transcript, channel=Channel.UNKNOWN, **NEVER)


@pytest.mark.parametrize(
    "transcript",
    [
        "S: 421 you took too long",  # a time-out after STARTTLS
        "C: EHLO a\nS: 421 we are closing",
        "C: EHLO a\nS: 554 you did not wait",
        "C: XCLIENT NAME=a\nS: 220 mx.example",
        "C: s3cret",
    ],
)
@pytest.mark.parametrize("channel", [STARTTLS, IMPLICIT])
def test_what_may_or_may_not_stand_for_a_greeting_contradicts_nothing(
    transcript: str, channel: Channel
) -> None:
    tap = Tap().see(stream(transcript))
    tap.ask(channel=channel)
    assert tap.mismatches == []


@pytest.mark.parametrize("missing", range(1, 8))
def test_a_stream_that_was_not_seen_whole_contradicts_nothing(missing: int) -> None:
    events = Kernel(step_ns=1).begin().say(spoken(MAIL)).end().events
    for left in (events[missing:], events[:missing] + events[missing + 1 :], events[:-missing]):
        for verdict in (NEVER, {"channel": IMPLICIT}, {"encrypted_bytes": 1}):
            tap = Tap().see(left)
            tapped = tap.ask(**verdict)
            if tapped is not None and tapped.result != "whole":
                assert tap.mismatches == []
