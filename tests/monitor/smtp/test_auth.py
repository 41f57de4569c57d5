"""AUTH, RFC 4954: its mechanism and its outcome are told, and nothing of what was said between."""

import pytest

from tests.monitor.smtp.transcript import GREETED, check

AUTH_BEGUN = GREETED + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6"


@pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
def test_an_initial_response(verb: str) -> None:
    check(
        f"""
        C: {verb} PLAIN s3cret
        S: 235 welcome
        C: NOOP
        S: 250 ok
        = > {verb} PLAIN
        = ! cleartext_auth
        = < {verb} PLAIN 235
        = > NOOP
        = < NOOP 250
        """,
        after=GREETED,
    )


def test_a_chain_of_challenges() -> None:
    check(
        """
        C: AUTH LOGIN
        S: 334 s3cret
        C: s3cret
        S: 334 s3cret
        C: s3cret
        S: 235 welcome
        = > AUTH LOGIN
        = ! cleartext_auth
        = < AUTH LOGIN 334
        = < AUTH LOGIN 334
        = < AUTH LOGIN 235
        C: NOOP
        S: 250 ok
        = > NOOP
        = < NOOP 250
        """,
        after=GREETED,
    )


def test_a_client_may_cancel() -> None:
    check("C: *\nS: 501 cancelled\nC: NOOP\n= < AUTH LOGIN 501\n= > NOOP", after=AUTH_BEGUN)


@pytest.mark.parametrize(
    "password",
    ["QUIT", "STARTTLS", "MAIL FROM:<s3cret>", "BDAT 1000 LAST", "DATA", ".", "", "AUTH PLAIN s3cret"],
)
def test_a_password_may_look_like_a_command(password: str) -> None:
    check(
        f"""
        C: {password}
        S: 235 welcome
        C: NOOP
        S: 250 ok
        = < AUTH LOGIN 235
        = > NOOP
        = < NOOP 250
        """,
        after=AUTH_BEGUN,
    )


def test_a_client_that_does_not_wait() -> None:
    check(
        """
        C: AUTH LOGIN
        C: s3cret
        C: s3cret
        = > AUTH LOGIN
        = ! cleartext_auth
        = ! unauthorized_pipelining
        S: 334 user
        S: 334 password
        S: 235 welcome
        = < AUTH LOGIN 334
        = < AUTH LOGIN 334
        = < AUTH LOGIN 235
        C: NOOP
        = > NOOP
        """,
        after=GREETED,
    )


def test_what_was_sent_behind_a_refused_auth_are_commands_as_to_the_server() -> None:
    check(
        """
        C: AUTH LOGIN
        C: s3cret
        C: NOOP
        S: 503 not now
        S: 500 what?
        S: 250 ok
        = > AUTH LOGIN
        = ! cleartext_auth
        = ! unauthorized_pipelining
        = < AUTH LOGIN 503
        = > ?
        = > NOOP
        = < ? 500
        = < NOOP 250
        """,
        after=GREETED,
    )


@pytest.mark.parametrize("code", ["421", "500", "535"])
def test_a_server_may_give_up_before_the_response(code: str) -> None:
    check(f"S: {code} too slow\nC: NOOP\n= < AUTH LOGIN {code}\n= > NOOP", after=AUTH_BEGUN)


def test_the_response_of_a_client_that_vanishes() -> None:
    check("C< s3cret\n--\n= < AUTH LOGIN -", after=AUTH_BEGUN)
    check("C: s3cret\n--\n= < AUTH LOGIN -", after=AUTH_BEGUN)


def test_a_response_without_end_is_not_kept_beyond_its_bound() -> None:
    played = check(f"C< {'s3cret' * 3_000}\nC: \nS: 235 fine\n= < AUTH LOGIN 235", after=AUTH_BEGUN)
    assert played.dialogue.buffered_bytes == 0


def test_a_secret_in_place_of_the_mechanism() -> None:
    check(
        """
        C: AUTH =s3cret
        S: 504 no
        = > AUTH OTHER
        = ! cleartext_auth
        = < AUTH OTHER 504
        """,
        after=GREETED,
    )


@pytest.mark.parametrize("loss", ["C- 10", "S- 10"])
def test_after_a_loss_a_secret_is_no_command(loss: str) -> None:
    """However much it looks like one: only a reply that is no 334 can be followed by a command."""
    check(
        f"""
        C: AUTH LOGIN
        {loss}
        S: 334 go on
        C: EHLO s3cret
        S: 235 fine
        C: NOOP
        S: 250 ok
        """,
        after=GREETED,
    )
