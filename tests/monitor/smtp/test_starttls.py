"""STARTTLS, RFC 3207: where SMTP ends, and where it goes on."""

import pytest

from monitor.smtp.transitions import Phase
from tests.monitor.smtp.transcript import BODY_BEGUN, GREETED, RECIPIENT_GIVEN, check, escaped


@pytest.mark.parametrize(
    "line",
    ["STARTTLS\\r\\n", "starttls\\r\\n", "StartTLS  \\r\\n", "STARTTLS\\r\\r\\n", "X-ANONYMOUSTLS\\r\\n"],
)
def test_a_220_turns_the_connection_over_to_tls(line: str) -> None:
    verb = "X-ANONYMOUSTLS" if line.startswith("X") else "STARTTLS"
    played = check(
        f"""
        C< {line}
        = > {verb}
        S: 220 ready
        = < {verb} 220
        = tls
        """,
        after=GREETED,
    )
    assert played.dialogue.phase is Phase.TLS
    assert played.dialogue.upgrade_heard_from == played.dialogue._last_reply_end


def test_the_verb_may_be_cut_anywhere() -> None:
    line = b"STARTTLS\r\n"
    for cut in range(1, len(line)):
        check(
            f"""
            C< {escaped(line[:cut])}
            /
            C< {escaped(line[cut:])}
            S: 220 ready
            = > STARTTLS
            = < STARTTLS 220
            = tls
            """,
            after=GREETED,
        )


@pytest.mark.parametrize("code", ["454", "500", "501", "502", "503", "504", "530", "538", "554", "421"])
def test_any_other_code_leaves_the_connection_in_clear(code: str) -> None:
    check(
        f"""
        C: STARTTLS
        S: {code} no
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        = > STARTTLS
        = < STARTTLS {code}
        = > MAIL <a@client.example>
        = < MAIL <a@client.example> 250
        """,
        after=GREETED,
    )


def test_starttls_with_an_argument_is_refused_like_any() -> None:
    check(
        """
        C: STARTTLS please
        S: 501 no parameters allowed
        = > STARTTLS
        = < STARTTLS 501
        C: STARTTLS
        S: 220 ready
        = > STARTTLS
        = < STARTTLS 220
        = tls
        """,
        after=GREETED,
    )


def test_starttls_may_be_refused_twice() -> None:
    check(
        """
        C: STARTTLS
        S: 454 not now
        C: STARTTLS
        S: 454 not now
        C: NOOP
        S: 250 ok
        = > STARTTLS
        = < STARTTLS 454
        = > STARTTLS
        = < STARTTLS 454
        = > NOOP
        = < NOOP 250
        """,
        after=GREETED,
    )


def test_starttls_without_an_answer() -> None:
    check("C: STARTTLS\n--\n= > STARTTLS\n= < STARTTLS -", after=GREETED)


def test_starttls_within_a_message_is_text() -> None:
    played = check(
        """
        C: STARTTLS
        C: .
        S: 250 ok
        = > . 13
        = < . 250
        """,
        after=BODY_BEGUN,
    )
    assert played.dialogue.phase is Phase.COMMANDS


def test_starttls_within_a_chunk_is_data() -> None:
    check(
        """
        C: BDAT 20 LAST
        C: STARTTLS
        C: STARTTLS
        S: 250 ok
        = > BDAT 20 LAST
        = < BDAT 250
        C: NOOP
        = > NOOP
        """,
        after=RECIPIENT_GIVEN,
    )


def test_starttls_within_an_auth_exchange_is_a_password() -> None:
    check(
        """
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: STARTTLS
        S: 334 UGFzc3dvcmQ6
        C: STARTTLS
        S: 535 no
        = > AUTH LOGIN
        = ! cleartext_auth
        = < AUTH LOGIN 334
        = < AUTH LOGIN 334
        = < AUTH LOGIN 535
        """,
        after=GREETED,
    )


# ---------------------------------------------------------------------- injection


def test_what_was_injected_before_the_220_is_kept_aside() -> None:
    """CVE-2011-0411: the dialogue does not read it as commands; its reader decides."""
    played = check(
        """
        C: STARTTLS
        C: RSET
        = > STARTTLS
        S: 220 ready
        = < STARTTLS 220
        = tls
        """,
        after=GREETED,
    )
    assert played.dialogue.take_held() == b"RSET\r\n"
    assert played.dialogue.take_held() == b""


def test_what_was_sent_before_a_refusal_are_commands() -> None:
    check(
        """
        C: STARTTLS
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        S: 454 no
        S: 250 ok
        S: 250 ok
        = > STARTTLS
        = < STARTTLS 454
        = ! unauthorized_pipelining
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        = < MAIL <a@client.example> 250
        = < RCPT <b@example.test> 250
        """,
        after=GREETED,
    )


def test_what_the_server_says_behind_its_220_is_not_read() -> None:
    """CVE-2021-38371."""
    played = check(
        """
        C: STARTTLS
        S: 220 ready
        = > STARTTLS
        = < STARTTLS 220
        = tls
        """,
        after=GREETED,
    )
    rest = played.dialogue.server(b"250 injected\r\n", 10_000)
    assert rest == []
    assert played.dialogue.unread_server == b"250 injected\r\n"


def test_after_tls_the_dialogue_may_go_on_in_clear() -> None:
    dialogue = check("C: STARTTLS\nS: 220 ready", after=GREETED).dialogue
    dialogue.clear_again()
    assert dialogue.client_in_clear
    assert dialogue.server_in_clear
    assert [type(event).__name__ for event in dialogue.client(b"NOOP\r\n", 10_000)] == ["CommandSent"]


# ---------------------------------------------------------------------- masking


@pytest.mark.parametrize("line", ["XXXXXXXX", "XXXXXXXA"])
def test_a_masked_request_asks_for_nothing(line: str) -> None:
    check(
        f"""
        C: {line}
        S: 500 what?
        = > STARTTLS masked
        = ! starttls_masked
        = < STARTTLS 500
        C: NOOP
        = > NOOP
        """,
        after=GREETED,
    )


def test_a_masked_request_is_none_even_if_the_server_says_220() -> None:
    check(
        """
        C: XXXXXXXX
        S: 220 odd
        C: NOOP
        = > STARTTLS masked
        = ! starttls_masked
        = < STARTTLS 220
        = > NOOP
        """,
        after=GREETED,
    )
