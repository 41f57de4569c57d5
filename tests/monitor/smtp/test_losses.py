"""What is known after bytes were lost, and what is not."""

import pytest

from tests.monitor.smtp.transcript import (
    BODY_BEGUN,
    GREETED,
    GREETED_WITHOUT_PIPELINING,
    RECIPIENT_GIVEN,
    check,
)

SMALL = GREETED_WITHOUT_PIPELINING


def test_a_lost_reply_leaves_its_command_without_a_code_and_the_next_with_its_own() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        S- 20
        C: DATA
        S: 503 no
        C: QUIT
        = > MAIL <a@client.example>
        = > DATA
        = < MAIL <a@client.example> ?
        = < DATA 503
        = > QUIT
        S: 221 bye
        = < QUIT 221
        """,
        after=SMALL,
    )


def test_a_line_of_auth_is_over_where_the_next_one_begins_in_the_same_packet() -> None:
    """So it was answered, and the reply that comes is another's."""
    check(
        """
        S- 40
        C< \\r\\nnext
        S: 334 more
        = < AUTH LOGIN ?
        """,
        after=f"{SMALL}C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6",
    )


def test_after_a_loss_a_reply_of_another_kind_is_no_answer() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        S- 20
        C: DATA
        S: 503 no
        C: NOOP
        S: 235 come in
        C: QUIT
        S: 221 bye
        = > MAIL <a@client.example>
        = > DATA
        = < MAIL <a@client.example> ?
        = < DATA 503
        = > NOOP
        = > QUIT
        = < NOOP ?
        = < QUIT 221
        """,
        after=SMALL,
    )


def test_the_rest_of_a_cut_354_is_no_answer_to_the_message() -> None:
    check(
        """
        C: DATA
        S< 354-go
        S- 9
        S< 354 ahead
        S- 2
        = > DATA
        = < DATA 354~
        = body
        C: text
        C: .
        = > . 9
        S: 451 no
        = < . 451
        """,
        after=RECIPIENT_GIVEN,
    )


def test_a_354_is_no_answer_to_a_data_whose_client_went_on_before_it() -> None:
    """It waited for its reply, so that was lost: the message is skipped, and the next DATA among it."""
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: DATA
        S< 250-ok\\r\\n250 o
        S- 5
        S< 4 go ahead\\r\\n
        = > MAIL <a@client.example>
        = > DATA
        C: s3cret
        C: .
        C: MAIL FROM:<c@client.example>
        C: RCPT TO:<d@example.test>
        C: DATA
        = < MAIL <a@client.example> 250~
        = < DATA ?
        = lost
        S: 451 no
        S: 250 ok
        S: 250 ok
        S: 354 go ahead
        C: EHLO s3cret
        C: .
        C: QUIT
        = nothing
        S: 550 no
        S: 221 bye
        """,
        after=RECIPIENT_GIVEN,
    )


def test_the_rest_of_a_cut_challenge_is_no_answer_to_the_line_behind_it() -> None:
    check(
        """
        S< 334-a
        S- 3
        = < AUTH LOGIN 334~
        S< 334 a
        S- 3
        C: s3cret
        S: 454 no
        C: NOOP
        S: 250 ok
        = < AUTH LOGIN 454
        = > NOOP
        = < NOOP 250
        """,
        after=f"{SMALL}C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: s3cret",
    )


def test_of_pipelined_replies_one_is_lost_and_none_is_guessed() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C: DATA
        S- 8
        S: 250 ok
        S: 550 no
        S: 354 go ahead
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        = > RCPT <c@example.test>
        = > DATA
        = lost
        = < MAIL <a@client.example> ?
        = < RCPT <b@example.test> ?
        = < RCPT <c@example.test> ?
        = < DATA 354
        = body
        """,
        after=GREETED,
    )


def test_the_code_of_a_reply_whose_end_was_lost_counts() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        S< 550-no
        S- 20
        C: NOOP
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> 550~
        = > NOOP
        """,
        after=SMALL,
    )


def test_a_client_that_may_have_been_offered_pipelining_is_not_taken_for_one_that_waits() -> None:
    check(
        """
        S: 220 mx
        C: EHLO client.example
        S- 40
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        = banner 220
        = > EHLO client.example
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        --?
        = < EHLO client.example ?
        = < MAIL <a@client.example> ?
        = < RCPT <b@example.test> ?
        """
    )


def test_a_lost_banner_is_nobodys_reply() -> None:
    check(
        """
        C: EHLO client.example
        S- 5
        S: 220 mx.example
        = ! early_talker
        = > EHLO client.example
        """
    )


def test_commands_are_found_again_where_the_client_has_heard_a_whole_reply() -> None:
    check(
        """
        C- 12
        = lost
        C< ient.example>\\r\\n
        = nothing
        S: 250 ok
        C: RCPT TO:<b@example.test>
        S: 550 no
        = > RCPT <b@example.test>
        = < RCPT <b@example.test> 550
        """,
        after=SMALL,
    )


@pytest.mark.parametrize("loss", ["C- 6\nS: 354 go ahead", "C- 6\nS- 14", "C: DATA\nS- 14"])
def test_after_a_loss_the_first_line_of_a_message_is_no_command(loss: str) -> None:
    played = check(
        f"{loss}\nC: MAIL FROM:<s3cret@x>\nC: .\nS: 250 ok\nC: NOOP\nS: 451 no", after=RECIPIENT_GIVEN
    )
    assert played.reports[-1] in ("> NOOP", "< NOOP 451", "lost")


def test_bytes_lost_within_a_message_are_counted() -> None:
    check("C: s3cret\nC- 1000\nC: s3cret\nC: .\nS: 250 ok\n= > . 1019\n= < . 250", after=BODY_BEGUN)


def test_a_lost_end_of_message_shows_in_its_reply() -> None:
    check(
        """
        C: s3cret
        C- 5
        S: 250 ok
        C: QUIT
        S: 221 bye
        = > . ?
        = < . 250
        = lost
        = > QUIT
        = < QUIT 221
        """,
        after=BODY_BEGUN,
    )


def test_after_a_loss_the_middle_of_a_line_is_no_reply_however_it_is_cut() -> None:
    check("C: NOOP\nS- 5\nS: abc 250 ok\nS: 451 no\n--?\n= > NOOP\n= < NOOP ?", after=GREETED)


def test_a_connection_met_in_the_middle() -> None:
    check(
        """
        C: s3cret
        S: 250 ok
        C: DATA
        S: 354 go ahead
        = > DATA
        = < DATA 354
        = body
        C: .
        S: 250 ok
        = > . 3
        = < . 250
        """,
        from_the_start=False,
    )


def test_what_was_begun_before_a_loss_is_told_without_its_arguments() -> None:
    check("C< MAIL FROM:<a@cl\nC- 20\n= > MAIL cut\n= < MAIL ?\n= lost", after=SMALL)
    check(
        "C< AUTH PLAIN s3c\nC- 20\n= ! cleartext_auth\n= > AUTH PLAIN\n= < AUTH PLAIN ?\n= lost", after=SMALL
    )


def test_a_message_whose_end_and_reply_may_be_lost_is_not_taken_for_the_next_one() -> None:
    check(
        """
        C: s3cret
        C- 100
        S- 50
        C: s3cret
        C: .
        S: 550 no
        C: NOOP
        = > . ?
        = < . ?
        = lost
        = > NOOP
        """,
        after=BODY_BEGUN,
    )


def test_a_lost_ehlo_may_have_been_offered_pipelining() -> None:
    check(
        """
        S: 220 mx
        C- 22
        S: 250-mx
        S: 250 PIPELINING
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        --?
        = banner 220
        = lost
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> ?
        """
    )


def test_what_was_left_of_a_lost_reply_is_not_a_later_commands() -> None:
    played = check(
        """
        C: VRFY b
        S- 8
        S< 250\\x20
        S- 6
        C: NOOP
        S: 502-no
        S< 502 n
        S- 6
        C: MAIL FROM:<a@client.example>
        S< 55
        S- 6
        C: RSET
        """,
        after=SMALL,
    )
    assert not [words for words in played.reports if words.startswith("< MAIL") and "502" in words]


def test_what_waited_for_a_lost_reply_to_the_end_was_never_understood() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        c: RCPT TO:<b@example.test>
        = > MAIL <a@client.example>
        = ! unauthorized_pipelining
        = > RCPT <b@example.test>
        S- 24
        C: MAIL FROM:<c@client.example>
        C: DATA
        S: 451 no
        S: 503 no
        = > MAIL <c@client.example>
        = > DATA
        C: STARTTLS
        S: 220 go
        = nothing
        --
        = < MAIL <a@client.example> ?
        = < RCPT <b@example.test> ?
        = < MAIL <c@client.example> ?
        = < DATA ?
        = lost
        """,
        after=SMALL,
    )
