"""Commands and replies, each to its own."""

import pytest

from monitor.smtp.events import BannerReceived, CommandAnswered
from monitor.smtp.matching import QUEUE_LIMIT
from tests.monitor.smtp.transcript import (
    BODY_BEGUN,
    GREETED,
    GREETED_WITHOUT_PIPELINING,
    RECIPIENT_GIVEN,
    check,
)


def test_a_whole_session() -> None:
    check("""
        S: 220 mx.example ESMTP
        = banner 220
        C: EHLO client.example
        = > EHLO client.example
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250 SIZE
        = < EHLO client.example 250
        C: MAIL FROM:<a@client.example> SIZE=20
        S: 250 2.1.0 Ok
        = > MAIL <a@client.example> SIZE=20
        = < MAIL <a@client.example> 250
        C: RCPT TO:<b@example.test>
        S: 550 5.1.1 no such user
        = > RCPT <b@example.test>
        = < RCPT <b@example.test> 550
        C: RCPT TO:<c@example.test>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 go ahead
        = > RCPT <c@example.test>
        = < RCPT <c@example.test> 250
        = > DATA
        = < DATA 354
        = body
        C: s3cret
        C: .
        = > . 11
        S: 250 queued
        = < . 250
        C: QUIT
        S: 221 bye
        = > QUIT
        = < QUIT 221
        --
        = nothing
    """)


# ---------------------------------------------------------------------- banners


@pytest.mark.parametrize("banner", ["S: 220-mx\nS: 220-\nS: 220 ready", "S: 220", "S< 220-mx\\r\\n220\\r\\n"])
def test_a_banner_may_have_several_lines_or_no_text(banner: str) -> None:
    check(f"""
        {banner}
        = banner 220
        C: QUIT
        S: 221 bye
        = > QUIT
        = < QUIT 221
    """)


def test_the_banners_text_is_kept_line_by_line() -> None:
    played = check("S: 220-mx.example\nS: 220 ready")
    banner = played.events[0]
    assert isinstance(banner, BannerReceived)
    assert banner.reply.text == "mx.example\nready"


def test_a_server_may_refuse_in_its_banner() -> None:
    check("""
        S: 554 no service for you
        = banner 554
        C: QUIT
        S: 221 bye
        = > QUIT
        = < QUIT 221
    """)


def test_a_client_that_speaks_before_the_banner_is_an_early_talker() -> None:
    check("""
        C: EHLO client.example
        = ! early_talker
        = > EHLO client.example
        S: 220 mx.example
        = banner 220
        S: 250 hello
        = < EHLO client.example 250
    """)


def test_half_a_banner_is_no_banner() -> None:
    """What postscreen waits for: a client that takes the teaser for the greeting."""
    check("""
        S: 220-wait for it
        C: EHLO client.example
        = ! early_talker
        = > EHLO client.example
        S: 220 ready
        = banner 220
    """)


def test_a_client_that_crosses_with_the_banner_is_an_early_talker() -> None:
    check("""
        S: 220 ready
        c: EHLO client.example
        = banner 220
        = ! early_talker
        = > EHLO client.example
    """)


# ---------------------------------------------------------------------- replies


@pytest.mark.parametrize(
    "code", ["200", "251", "299", "450", "499", "521", "556", "599", "000", "111", "999"]
)
def test_any_code_is_an_answer(code: str) -> None:
    check(
        f"""
        C: MAIL FROM:<a@client.example>
        S: {code} whatever
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> {code}
        C: NOOP
        S: 250 ok
        = > NOOP
        = < NOOP 250
        """,
        after=GREETED,
    )


@pytest.mark.parametrize("reply", ["S: 250", "S< 250 \\r\\n", "S< 250\\n", "S: 250Ok", "S< 250\\tok\\r\\n"])
def test_a_reply_may_be_bare_or_odd(reply: str) -> None:
    """Passed over, it would leave its command to take the next one's reply."""
    check(
        f"""
        C: NOOP
        {reply}
        = > NOOP
        = < NOOP 250
        C: VRFY b
        S: 550 no
        = > VRFY
        = < VRFY 550
        """,
        after=GREETED,
    )


def test_several_lines_are_one_reply() -> None:
    played = check(
        """
        C: HELP
        S: 214-one
        S: 214-
        S: 214 three
        = > HELP
        = < HELP 214
        """,
        after=GREETED,
    )
    answer = played.events[-1]
    assert isinstance(answer, CommandAnswered)
    assert answer.reply is not None
    assert answer.reply.lines == (b"one", b"", b"three")


def test_lines_with_different_codes_are_different_replies() -> None:
    check(
        """
        C: NOOP
        C: HELP
        S: 250-one
        S: 214 two
        = > NOOP
        = ! unauthorized_pipelining
        = > HELP
        = < NOOP 250~
        = < HELP 214
        """,
        after=GREETED,
    )


def test_a_line_that_is_no_reply_is_reported_and_passed_over() -> None:
    check(
        """
        C: NOOP
        S: hello?
        S: 250 ok
        = > NOOP
        = ! reply_mismatch
        = < NOOP 250
        """,
        after=GREETED,
    )


def test_a_reply_without_a_command_is_reported() -> None:
    check(
        """
        S: 250 what?
        = ! reply_mismatch
        C: NOOP
        S: 451 ok
        = > NOOP
        = < NOOP 451
        """,
        after=GREETED,
    )


def test_a_reply_that_cannot_be_the_commands_whose_turn_it_was() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        S: 354 go ahead
        = > MAIL <a@client.example>
        = ! reply_mismatch
        = < MAIL <a@client.example> 354
        """,
        after=GREETED,
    )


def test_354_is_the_answer_to_data_though_the_server_forgot_one_before() -> None:
    check(
        """
        C: RCPT TO:<c@example.test>
        C: DATA
        S: 354 go ahead
        = > RCPT <c@example.test>
        = > DATA
        = ! reply_mismatch
        = < RCPT <c@example.test> ?
        = < DATA 354
        = body
        """,
        after=RECIPIENT_GIVEN,
    )


def test_421_may_come_unasked() -> None:
    check(
        """
        S: 421 timeout
        = nothing
        --
        = nothing
        """,
        after=GREETED,
    )


def test_421_may_answer_any_command() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        S: 421 going down
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        = < MAIL <a@client.example> 421
        --
        = < RCPT <b@example.test> -
        """,
        after=GREETED,
    )


def test_421_within_a_message_does_not_answer_it() -> None:
    check(
        """
        C: s3cret
        S: 421 too slow
        = nothing
        --
        = > . 8
        = < . -
        """,
        after=BODY_BEGUN,
    )


def test_421_answers_no_half_command() -> None:
    check(
        """
        C< MAIL
        S: 421 timeout
        C<  FROM:<a@client.example>\\r\\n
        = > MAIL <a@client.example>
        --
        = < MAIL <a@client.example> -
        """,
        after=GREETED,
    )


def test_a_reply_may_come_before_its_command_is_complete() -> None:
    check(
        """
        C< MAIL FROM:
        S: 501 I have seen enough
        = nothing
        C< <a@client.example>\\r\\n
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> 501
        """,
        after=GREETED,
    )


def test_of_two_replies_before_a_command_is_complete_the_second_is_nobodys() -> None:
    check(
        """
        C< MAIL FROM:
        S: 501 I have seen enough
        S: 502 and more than that
        = ! reply_mismatch
        C< <a@client.example>\\r\\n
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> 501
        """,
        after=GREETED,
    )


# ---------------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "line",
    ["FOO bar", "", "   ", "GET / HTTP/1.1", "\\x00\\xff\\x01", "WIZ", "X" * 100, "STARTTLSX", "DATAS"],
)
def test_an_unknown_verb_holds_its_place_in_the_queue(line: str) -> None:
    check(
        f"""
        C< MAIL FROM:<a@client.example>\\r\\n{line}\\r\\nQUIT\\r\\n
        = > MAIL <a@client.example>
        = > ?
        = ! unauthorized_pipelining
        = > QUIT
        S: 250 ok
        S: 500 what?
        S: 221 bye
        = < MAIL <a@client.example> 250
        = < ? 500
        = < QUIT 221
        """,
        after=GREETED,
    )


def test_ehlo_in_mid_session_may_change_what_was_offered() -> None:
    check(
        """
        C: EHLO client.example
        S: 250 no extensions now
        = > EHLO client.example
        = < EHLO client.example 250
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        = > MAIL <a@client.example>
        = ! unauthorized_pipelining
        = > RCPT <b@example.test>
        """,
        after=GREETED,
    )


def test_helo_takes_pipelining_back() -> None:
    check(
        """
        C: HELO client.example
        S: 250 hello
        C: RSET
        C: RSET
        = > HELO client.example
        = < HELO client.example 250
        = > RSET
        = ! unauthorized_pipelining
        = > RSET
        """,
        after=GREETED,
    )


def test_xclient_restarts_the_session() -> None:
    check(
        """
        C: XCLIENT ADDR=192.0.2.9 NAME=real.example
        S: 220 mx.example
        C: EHLO real.example
        S: 250 hello
        = > XCLIENT
        = < XCLIENT 220
        = > EHLO real.example
        = < EHLO real.example 250
        """,
        after=GREETED,
    )


def test_what_is_not_mail_holds_its_place_too() -> None:
    check(
        """
        C: XFORWARD NAME=x ADDR=192.0.2.9
        S: 250 ok
        C: ETRN example.test
        S: 458 no
        C: VRFY b
        S: 252 maybe
        = > XFORWARD
        = < XFORWARD 250
        = > ETRN
        = < ETRN 458
        = > VRFY
        = < VRFY 252
        """,
        after=GREETED,
    )


@pytest.mark.parametrize("verb", ["TURN", "ATRN"])
def test_when_the_two_have_turned_neither_is_followed(verb: str) -> None:
    played = check(
        f"""
        C: {verb}
        S: 250 your turn
        S: EHLO server.example
        = > {verb}
        = < {verb} 250
        = lost
        C: 250 hello
        S: MAIL FROM:<a@client.example>
        C- 100
        S- 100
        --
        = nothing
        """,
        after=GREETED,
    )
    assert played.dialogue.buffered_bytes == 0


def test_a_refused_turn_changes_nothing() -> None:
    check(
        """
        C: TURN
        S: 502 no
        C: QUIT
        S: 221 bye
        = > TURN
        = < TURN 502
        = > QUIT
        = < QUIT 221
        """,
        after=GREETED,
    )


# ---------------------------------------------------------------------- pipelining


def test_each_recipient_has_its_own_code() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C: RCPT TO:<d@example.test>
        C: DATA
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        = > RCPT <c@example.test>
        = > RCPT <d@example.test>
        = > DATA
        S: 250 ok
        S: 250 ok
        S: 550-no
        S: 550 such user
        S: 450 later
        S: 354 go ahead
        = < MAIL <a@client.example> 250
        = < RCPT <b@example.test> 250
        = < RCPT <c@example.test> 550
        = < RCPT <d@example.test> 450
        = < DATA 354
        = body
        """,
        after=GREETED,
    )


@pytest.mark.parametrize("verb", ["NOOP", "VRFY b", "HELP", "EHLO x", "FOO"])
def test_only_some_commands_may_be_followed_at_once(verb: str) -> None:
    check(
        f"""
        C: {verb}
        C: RSET
        = > {"?" if verb == "FOO" else "EHLO x" if verb == "EHLO x" else verb.split(maxsplit=1)[0]}
        = ! unauthorized_pipelining
        = > RSET
        """,
        after=GREETED,
    )


def test_pipelining_that_was_not_offered() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        = > MAIL <a@client.example>
        = ! unauthorized_pipelining
        = > RCPT <b@example.test>
        """,
        after=GREETED_WITHOUT_PIPELINING,
    )


def test_pipelining_shows_in_what_was_heard_though_the_reply_was_captured_first() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        c: RCPT TO:<b@example.test>
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> 250
        = ! unauthorized_pipelining
        = > RCPT <b@example.test>
        """,
        after=GREETED_WITHOUT_PIPELINING,
    )


def test_the_queue_is_bounded_and_beyond_it_nothing_is_guessed() -> None:
    flood = "\n".join(["C: RSET"] * (QUEUE_LIMIT + 1))
    played = check(f"{flood}\nS: 250 ok\nS: 250 ok\n--?", after=GREETED)
    answers = [event for event in played.events if isinstance(event, CommandAnswered)][1:]
    assert len(answers) == QUEUE_LIMIT + 1
    assert all(answer.reply is None and answer.in_doubt for answer in answers)


# ---------------------------------------------------------------------- line ends


def test_a_command_may_end_in_a_bare_line_feed() -> None:
    check(
        """
        C< NOOP\\n
        S: 250 ok
        = ! bare_lf
        = > NOOP
        = < NOOP 250
        """,
        after=GREETED,
    )


def test_anomalies_are_reported_once() -> None:
    check(
        """
        C< NOOP\\n
        S: 250 ok
        C< NOOP\\n
        = ! bare_lf
        = > NOOP
        = < NOOP 250
        = > NOOP
        """,
        after=GREETED,
    )
