"""Where messages and chunks end, and that nothing in them is taken for anything else."""

import pytest

from monitor.smtp.body import KEPT_AFTER_LOOSE_END_BYTES
from monitor.smtp.dialogue import HELD_LIMIT_BYTES
from monitor.smtp.transitions import Phase
from tests.monitor.smtp.transcript import BODY_BEGUN, GREETED, RECIPIENT_GIVEN, check, escaped

PLAIN_GREETED = "S: 220 mx\nC: LHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING"


def test_a_message_of_no_lines() -> None:
    check("C: .\nS: 250 ok\n= > . 3\n= < . 250", after=BODY_BEGUN)


def test_the_end_may_be_cut_at_every_byte() -> None:
    message = b"s3cret\r\n.\r\nQUIT\r\n"
    for first in range(len(message) + 1):
        for second in range(first, len(message) + 1):
            pieces = (message[:first], message[first:second], message[second:])
            spoken = "\n/\n".join(f"C< {escaped(piece)}" for piece in pieces)
            check(
                f"{spoken}\n= > . 11\n= > QUIT\nS: 250 ok\nS: 221 bye\n= < . 250\n= < QUIT 221",
                after=BODY_BEGUN,
            )


@pytest.mark.parametrize(
    "line",
    [
        "..",
        "...",
        ". ",
        ".s3cret",
        " .",
        "QUIT",
        "MAIL FROM:<s3cret@x>",
        "EHLO s3cret",
        "",
        "250 s3cret",
        ".\\r",
    ],
)
def test_a_line_of_a_message_is_no_end_and_no_command(line: str) -> None:
    length = len(line.replace("\\r", "\r")) + len("\r\n.\r\n")
    check(f"C< {line}\\r\\n.\\r\\n\nS: 250 ok\n= > . {length}\n= < . 250", after=BODY_BEGUN)


def test_the_next_mail_in_the_same_segment() -> None:
    check(
        """
        C: s3cret
        C: .
        C: MAIL FROM:<x@client.example>
        C: RCPT TO:<y@example.test>
        C: DATA
        = > . 11
        = > MAIL <x@client.example>
        = > RCPT <y@example.test>
        = > DATA
        S: 554 spam
        S: 250 ok
        S: 250 ok
        S: 354 go ahead
        = < . 554
        = < MAIL <x@client.example> 250
        = < RCPT <y@example.test> 250
        = < DATA 354
        = body
        """,
        after=BODY_BEGUN,
    )


def test_a_message_of_100_megabytes_keeps_nothing() -> None:
    dialogue = check(BODY_BEGUN).dialogue
    heard = 10_000
    megabyte = (b"x" * 76 + b"\r\n") * 13_444
    for _ in range(100):
        assert dialogue.client(megabyte, heard) == []
        assert dialogue.buffered_bytes == 0
    assert len(dialogue.client(b".\r\n", heard)) == 1


def test_a_message_that_never_ends() -> None:
    check("C: s3cret\n--\n= > . 8\n= < . -", after=BODY_BEGUN)
    check("C: s3cret\n--?\n= > . ?\n= < . ?", after=BODY_BEGUN)


def test_a_server_may_answer_before_the_end() -> None:
    check("C: s3cret\nS: 552 too big\n= nothing\nC: .\n= > . 11\n= < . 552", after=BODY_BEGUN)
    check("C: s3cret\nS: 552 too big\n= nothing\n--\n= > . 8\n= < . 552", after=BODY_BEGUN)


# ---------------------------------------------------------------------- DATA refused


def test_after_a_refused_data_there_is_no_body() -> None:
    check(
        "C: DATA\nS: 554 no\nC: RSET\nS: 250 ok\n= > DATA\n= < DATA 554\n= > RSET\n= < RSET 250",
        after=RECIPIENT_GIVEN,
    )


def test_a_body_behind_a_refused_data_is_commands_as_to_the_server_but_none_of_it_is_told() -> None:
    """The server reads it as commands and answers each line; so must we, to stay in step."""
    check(
        """
        C: DATA
        C: Subject: s3cret
        C: .
        C: QUIT
        = > DATA
        = ! unauthorized_pipelining
        S: 554 no
        S: 500 what?
        S: 500 what?
        S: 221 bye
        = < DATA 554
        = > ?
        = > ?
        = > QUIT
        = < ? 500
        = < ? 500
        = < QUIT 221
        """,
        after=RECIPIENT_GIVEN,
    )


def test_a_body_behind_an_accepted_data_is_a_body() -> None:
    check(
        """
        C: DATA
        C: MAIL FROM:<s3cret@x>
        C: .
        C: QUIT
        = > DATA
        = ! unauthorized_pipelining
        S: 354 go ahead
        = < DATA 354
        = body
        = > . 25
        = > QUIT
        """,
        after=RECIPIENT_GIVEN,
    )


def test_what_a_blind_sender_sends_is_held_back_within_bounds() -> None:
    dialogue = check("C: DATA", after=RECIPIENT_GIVEN).dialogue
    for _ in range(20):
        dialogue.client(b"s3cret\r\n" * 1_000, 10_000)
        assert dialogue.buffered_bytes <= HELD_LIMIT_BYTES
    assert dialogue.phase is Phase.LOST


# ---------------------------------------------------------------------- smuggling

SMUGGLED = b"MAIL FROM:<x@evil.example>\r\nRCPT TO:<y@example.test>\r\nDATA\r\n"


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n"])
def test_an_end_that_only_the_server_took_for_one(end: bytes) -> None:
    """CVE-2023-51764, -51765, -51766."""
    check(
        f"""
        C< {escaped(b"s3cret" + end + SMUGGLED + b"s3cret")}
        = nothing
        S: 250 ok
        = ! bare_lf
        = > . {len(b"s3cret" + end)}
        = < . 250
        = > MAIL <x@evil.example>
        = > RCPT <y@example.test>
        = > DATA
        S: 250 ok
        S: 250 ok
        S: 354 go ahead
        = < MAIL <x@evil.example> 250
        = < RCPT <y@example.test> 250
        = < DATA 354
        = body
        C< \\r\\n.\\r\\n
        = > . 11
        """,
        after=BODY_BEGUN,
    )


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n"])
def test_an_end_that_the_server_did_not_take_for_one(end: bytes) -> None:
    body = b"s3cret" + end + b"MAIL FROM:<s3cret@x>\r\n.\r\n"
    check(
        f"C< {escaped(body)}\nS: 250 ok\nC: NOOP\n= > . {len(body)}\n= < . 250\n= > NOOP",
        after=BODY_BEGUN,
    )


def test_what_follows_a_loose_end_is_kept_within_bounds() -> None:
    dialogue = check(BODY_BEGUN).dialogue
    dialogue.client(b"\n.\n", 10_000)
    for _ in range(100):
        dialogue.client(b"s3cret\r\n" * 1_000, 10_000)
        assert dialogue.buffered_bytes <= KEPT_AFTER_LOOSE_END_BYTES


# ---------------------------------------------------------------------- BDAT


def test_chunks_are_counted_whatever_they_hold() -> None:
    content = b"QUIT\r\n\x00\xff.\r\nSTARTTLS\r\n\r\n.\r\n"
    check(
        f"""
        C< BDAT {len(content)}\\r\\n{escaped(content)}
        S: 250 ok
        C< BDAT {len(content)} LAST\\r\\n{escaped(content)}
        S: 250 queued
        C: QUIT
        = > BDAT {len(content)}
        = < BDAT 250
        = > BDAT {len(content)} LAST
        = < BDAT 250
        = > QUIT
        """,
        after=RECIPIENT_GIVEN,
    )


def test_a_last_chunk_of_nothing() -> None:
    check(
        "C: BDAT 0 LAST\nC: QUIT\n= > BDAT 0 LAST\n= > QUIT\nS: 250 ok\n= < BDAT 250", after=RECIPIENT_GIVEN
    )


def test_pipelined_chunks_of_which_one_is_refused() -> None:
    """RFC 3030 section 2: the chunk is sent all the same, and thrown away."""
    check(
        """
        C< BDAT 6\\r\\ns3cretBDAT 5\\r\\nQUIT\\nBDAT 4 LAST\\r\\n\\r\\n.\\nNOOP\\r\\n
        = > BDAT 6
        = > BDAT 5
        = > BDAT 4 LAST
        = > NOOP
        S: 250 ok
        S: 552 too much
        S: 503 too late
        S: 250 ok
        = < BDAT 250
        = < BDAT 552
        = < BDAT 503
        = < NOOP 250
        """,
        after=RECIPIENT_GIVEN,
    )


def test_a_chunk_beyond_32_bits() -> None:
    dialogue = check("C: BDAT 5000000000\n= > BDAT 5000000000", after=RECIPIENT_GIVEN).dialogue
    assert dialogue.client_lost(4_999_999_990) == []
    assert dialogue.client(b"x" * 10, 10_000) == []
    assert dialogue.phase is Phase.COMMANDS


def test_a_chunk_without_a_size_is_none() -> None:
    check("C: BDAT LAST\nC: NOOP\n= > BDAT\n= > NOOP", after=RECIPIENT_GIVEN)


def test_a_loss_within_a_chunk_is_counted() -> None:
    check(
        "C< BDAT 20 LAST\\r\\ns3cret\nC- 10\nC< QUITNOOP\\r\\n\n= > BDAT 20 LAST\n= > NOOP",
        after=RECIPIENT_GIVEN,
    )


def test_exchanges_blob() -> None:
    """XEXCH50: its bytes come after a 354."""
    check(
        """
        C: XEXCH50 8 2
        S: 354 send
        C< s3cret\\r\\n
        S: 250 ok
        C: NOOP
        = > XEXCH50 8
        = < XEXCH50 354
        = ! reply_mismatch
        = > NOOP
        """,
        after=RECIPIENT_GIVEN,
    )


# ---------------------------------------------------------------------- a reply for each recipient

TWO_OF_THREE = """
    C: MAIL FROM:<a@client.example>
    S: 250 ok
    C: RCPT TO:<b@example.test>
    C: RCPT TO:<c@example.test>
    C: RCPT TO:<d@example.test>
    S: 250 ok
    S: 550 no
    S: 250 ok
"""


@pytest.mark.parametrize(
    ("message", "mark"),
    [("C: DATA\nS: 354 go ahead\nC: s3cret\nC: .", "."), ("C< BDAT 6 LAST\\r\\ns3cret", "BDAT")],
)
def test_lmtp_answers_for_each_accepted_recipient(message: str, mark: str) -> None:
    """RFC 2033 section 4.2."""
    played = check(
        f"""
        {message}
        C: NOOP
        S: 250 for b
        S: 452 for d
        S: 250 noop
        """,
        after=PLAIN_GREETED + TWO_OF_THREE,
    )
    assert played.reports[-3:] == [f"< {mark} 250", f"< {mark} 452", "< NOOP 250"]


def test_lmtp_counts_recipients_whose_replies_come_after_the_pipelined_chunk() -> None:
    check(
        """
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C< BDAT 6 LAST\\r\\ns3cret
        C: NOOP
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 for b
        S: 250 for c
        S: 451 noop
        = > MAIL <a@client.example>
        = > RCPT <b@example.test>
        = > RCPT <c@example.test>
        = > BDAT 6 LAST
        = > NOOP
        = < MAIL <a@client.example> 250
        = < RCPT <b@example.test> 250
        = < RCPT <c@example.test> 250
        = < BDAT 250
        = < BDAT 250
        = < NOOP 451
        """,
        after=PLAIN_GREETED,
    )


def test_prdr_announces_its_replies() -> None:
    check(
        """
        C: DATA
        S: 354 go ahead
        C: .
        C: QUIT
        S: 353 content analysis
        S: 250 for b
        S: 550 for d
        S: 250 for all
        S: 221 bye
        = > DATA
        = < DATA 354
        = body
        = > . 3
        = > QUIT
        = < . 353
        = < . 250
        = < . 550
        = < . 250
        = < QUIT 221
        """,
        after=GREETED + TWO_OF_THREE,
    )


def test_lmtp_with_a_lost_reply_to_a_recipient_does_not_guess_how_many_follow() -> None:
    played = check(
        """
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        S- 8
        S: 250 ok
        C: DATA
        S: 354 go ahead
        C: .
        C: RSET
        S: 250 for b
        S: 450 for c
        S: 250 reset
        """,
        after=PLAIN_GREETED,
    )
    assert "< . 250" in played.reports
    assert not [words for words in played.reports if words.startswith("< RSET")]


def test_where_the_reply_to_lhlo_was_lost_nobody_knows_for_how_many_a_message_is_answered() -> None:
    played = check(
        """
        S: 220 mx
        C: LHLO client.example
        S- 20
        C: AUTH PLAIN
        S: 454 not now
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@example.test>
        C: RCPT TO:<c@example.test>
        C: BDAT 3 LAST
        C< abc
        C: MAIL FROM:<d@client.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 for b
        S: 450 for c
        S: 250 ok
        S: 354 go ahead
        """
    )
    assert played.reports[-4:] == ["< BDAT 250", "< MAIL <d@client.example> ?", "< DATA 354", "body"]
