"""greylite 2.3, statement by statement: what the program was seen to do, or does by its source."""

import ctypes
import re
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.greylisters import TlsEnds
from monitor.greylisters.greylite import ARGUMENT_OCTETS, LINE_OCTETS, address_in
from monitor.side import Side
from tests.monitor.greylisters.sight import GREETING, MAIL, QUIT, RCPT, STARTTLS, midstream, said, seen_by
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript

C, S = Side.CLIENT, Side.SERVER
REFUSED_RCPT: Final = "C: RCPT TO:<x@example.test>\nS: 550 no\n"
DATA: Final = "C: DATA\nS: 354 go on\nC: hello\nC: .\nS: 250 queued\n"


def greylite(transcript: str, tls_ends: TlsEnds = TlsEnds.SERVER) -> str:
    """After a greeting."""
    return seen_by("greylite", said(GREETING + transcript), tls_ends)


def greylite_of_bytes(*lines: tuple[Side, bytes]) -> str:
    """After a greeting, lines that a transcript can't hold."""
    return seen_by("greylite", Wire().open().say(GREETING).play(lines).close())


def answered(line: bytes, reply: bytes = b"250 ok") -> str:
    """After a greeting, a client's line and its reply, and an end."""
    return greylite_of_bytes((C, line + b"\r\n"), (S, reply + b"\r\n"))


def padded(beginning: bytes, octets: int, end: bytes = b"\r\n") -> bytes:
    """A line of that many octets, line end included."""
    return beginning + b"x" * (octets - len(beginning) - len(end)) + end


# ---------------------------------------------------------------------- the decision


def test_it_decides_at_the_first_rcpt_that_is_not_refused() -> None:
    assert greylite(MAIL + RCPT + DATA + QUIT) == "decided"


def test_what_comes_after_the_decision_changes_nothing(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + MAIL + RCPT + "C: RSET\nS: 250 ok\n" + STARTTLS)
    assert seen_by("greylite", wire.play(tls_mail).close()) == "decided"
    assert greylite(MAIL + RCPT + "C: AUTH PLAIN eA==\nS: 235 in\n") == "decided"
    assert greylite(MAIL + RCPT + REFUSED_RCPT + "C: BDAT 2 LAST\nC: \nS: 250 ok\n") == "decided"


@pytest.mark.parametrize("code", [250, 251, 252])
def test_any_reply_but_4xx_and_5xx_counts(code: int) -> None:
    assert greylite(f"{MAIL}C: RCPT TO:<b@example.test>\nS: {code} ok\n") == "decided"


def test_a_decision_at_the_first_line_of_a_longer_reply() -> None:
    assert greylite(MAIL + "C: RCPT TO:<b@example.test>\nS: 251-ok\nS: 251 ok\n") == "decided"


def test_a_refused_rcpt_decides_nothing_and_the_next_may() -> None:
    assert greylite(MAIL + REFUSED_RCPT + QUIT) == "no_envelope"
    assert greylite(MAIL + "C: RCPT TO:<b@example.test>\nS: 450 later\n" + QUIT) == "no_envelope"
    assert greylite(MAIL + REFUSED_RCPT + RCPT) == "decided"


def test_helo_is_not_needed() -> None:
    assert seen_by("greylite", said("S: 220 mx\n" + MAIL + RCPT)) == "decided"


def test_mail_is_not_needed() -> None:
    assert greylite(RCPT) == "decided"
    assert greylite(MAIL + "C: RSET\nS: 250 ok\n" + RCPT) == "decided"


def test_a_rcpt_that_nobody_answered_decides_nothing() -> None:
    assert greylite(MAIL + "C: RCPT TO:<b@example.test>\n") == "no_envelope"


def test_pipelined_commands_are_read_one_by_one() -> None:
    wire = Wire().open().say(GREETING)
    wire.send(C, b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n")
    wire.say("S: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go on\nC: .\nS: 250 queued").close()
    assert seen_by("greylite", wire) == "decided"


@pytest.mark.parametrize(
    "line",
    [
        "RCPT TO:<b@c>",
        "rcpt to:b@c",
        "RcPt  \tTo:<b@c>",
        "RCPT TO: <b@c> NOTIFY=NEVER",
        "RCPT TO:<@r.example:b@c>",
    ],
)
def test_rcpt_in_any_case_and_with_any_blanks_after_the_verb(line: str) -> None:
    assert greylite(f"{MAIL}C: {line}\nS: 250 ok\n") == "decided"


@pytest.mark.parametrize("line", ["RCPT TO :<b@c>", "RCPT TO <b@c>", " RCPT TO:<b@c>", "RCPT:<b@c>", "RCPT"])
def test_what_it_does_not_take_for_a_rcpt_goes_by(line: str) -> None:
    """Its expression is anchored, and has the colon right behind the word."""
    assert greylite(f"{MAIL}C: {line}\nS: 250 ok\n{QUIT}") == "no_envelope"
    assert greylite(f"{MAIL}C: {line}\nS: 250 ok\n{DATA}") == "bypassed by data"


def test_a_mail_that_it_does_not_take_for_one_is_not_searched_for_an_address() -> None:
    assert greylite('C: MAIL FROM:<"q"@b>\nS: 250 ok\n' + RCPT) == "stalled"
    assert greylite('C: MAIL FROM :<"q"@b>\nS: 250 ok\n' + RCPT) == "decided"


# ---------------------------------------------------------------------- stepping aside


def test_starttls_takes_the_session_out_of_its_reach(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("greylite", wire) == "bypassed by starttls"


def test_a_mail_without_a_recipient_before_starttls_saves_nothing(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + MAIL + STARTTLS).play(tls_mail).close()
    assert seen_by("greylite", wire) == "bypassed by starttls"


def test_the_220_suffices_whatever_follows(failed_tls: Transcript) -> None:
    assert greylite(STARTTLS) == "bypassed by starttls"
    assert greylite(STARTTLS + MAIL + RCPT + DATA) == "bypassed by starttls"
    assert greylite("C: starttls\nS: 220-go\nS: 220 ahead\n") == "bypassed by starttls"
    wire = Wire().open().say(GREETING + STARTTLS).play(failed_tls).close()
    assert seen_by("greylite", wire) == "bypassed by starttls"


def test_commands_in_the_segment_of_starttls_are_passed_on_unread() -> None:
    wire = Wire().open().say(GREETING).send(C, b"STARTTLS\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n")
    assert seen_by("greylite", wire.say("S: 220 go ahead").close()) == "bypassed by starttls"


@pytest.mark.parametrize("code", [454, 500, 502, 554])
def test_it_watches_on_where_starttls_is_refused(code: int) -> None:
    refused = f"C: STARTTLS\nS: {code} no\n"
    assert greylite(refused + MAIL + RCPT) == "decided"
    assert greylite(refused + STARTTLS) == "bypassed by starttls"
    assert greylite(refused + QUIT) == "no_envelope"


def test_exchanges_own_starttls_is_no_word_to_it(tls_mail: Transcript) -> None:
    asked = GREETING + "C: X-ANONYMOUSTLS\nS: 220 go ahead\n"
    assert seen_by("greylite", Wire().open().say(asked).play(tls_mail).close()) == "stalled"
    assert seen_by("greylite", said(asked + MAIL + RCPT)) == "decided"


@pytest.mark.parametrize(
    "line_and_replies",
    [
        "C: AUTH PLAIN eA==\nS: 235 in\n",
        "C: auth login\nS: 334 a\nC: eA==\nS: 334 b\nC: eA==\nS: 235 in\n",
        "C: AUTH LOGIN\nS: 334 a\nC: eA==\nS: 535 no\n",
        "C: AUTH LOGIN\nS: 334 a\nC: *\nS: 501 cancelled\n",
        "C: AUTH LOGIN\nS: 334 a\n",
    ],
)
def test_an_answer_to_the_auth_line_suffices(line_and_replies: str) -> None:
    assert greylite(line_and_replies + MAIL + RCPT + DATA) == "bypassed by auth"


@pytest.mark.parametrize("code", [454, 503, 504, 535])
def test_it_watches_on_where_the_auth_line_itself_is_refused(code: int) -> None:
    assert greylite(f"C: AUTH PLAIN eA==\nS: {code} no\n{MAIL}{RCPT}") == "decided"


def test_a_bare_auth_is_no_auth_to_it() -> None:
    assert greylite("C: AUTH\nS: 235 in\n" + MAIL + RCPT) == "decided"
    assert greylite("C: AUTH \nS: 235 in\n" + MAIL + RCPT) == "bypassed by auth"


def test_the_exchange_of_an_auth_that_it_does_not_know_is_not_followed() -> None:
    """It reads those lines, and they are not kept: a line too long may be among them."""
    assert greylite("C: X-EXPS NTLM eA==\nS: 235 in\n" + MAIL + RCPT) == "decided"
    assert greylite("C: X-EXPS NTLM\nS: 334 a\nC: eA==\nS: 235 in\n" + MAIL + RCPT) == "unknown"
    assert greylite("C: AUTH\nS: 334 a\nC: eA==\nS: 235 in\n" + MAIL + RCPT) == "unknown"


def test_data_before_an_accepted_rcpt_takes_the_session_out_of_its_reach() -> None:
    assert greylite(MAIL + REFUSED_RCPT + DATA) == "bypassed by data"
    assert greylite("C: DATA\nS: 250 as you like\n" + MAIL + RCPT) == "bypassed by data"


def test_it_watches_on_where_data_is_refused() -> None:
    assert greylite("C: DATA\nS: 503 what\n" + MAIL + RCPT) == "decided"


# ---------------------------------------------------------------------- the greeting


@pytest.mark.parametrize("code", [421, 450, 521, 554])
def test_a_refusing_banner_ends_the_connection(code: int) -> None:
    assert seen_by("greylite", said(f"S: {code} no\n{MAIL}{RCPT}")) == "no_envelope"
    assert seen_by("greylite", said(f"S: {code}-no\nS: {code} really\n{MAIL}{RCPT}")) == "no_envelope"
    long = Wire().open().send(S, padded(b"%d " % code, 2_000)).say(MAIL + RCPT).close()
    assert seen_by("greylite", long) == "no_envelope"


def test_a_banner_of_two_lines_stalls() -> None:
    assert (
        seen_by("greylite", said("S: 220-mx\nS: 220 ESMTP\nC: EHLO c\nS: 250 mx\n" + MAIL + RCPT))
        == "stalled"
    )


@pytest.mark.parametrize(("octets", "found"), [(LINE_OCTETS, "decided"), (LINE_OCTETS + 1, "stalled")])
def test_a_banner_over_its_buffer_stalls(octets: int, found: str) -> None:
    wire = Wire().open().send(S, padded(b"220 ", octets)).say(MAIL + RCPT).close()
    assert seen_by("greylite", wire) == found


def test_a_client_that_talks_before_the_banner_is_read_after_it() -> None:
    wire = Wire().open().send(C, b"HELO c\r\n").say("S: 220 mx\nS: 250 mx\n" + MAIL + RCPT).close()
    assert seen_by("greylite", wire) == "decided"


def test_a_server_that_says_nothing_leaves_nothing_to_decide() -> None:
    assert seen_by("greylite", Wire().open().close()) == "no_envelope"
    assert seen_by("greylite", Wire().open().reset(C)) == "no_envelope"


# ---------------------------------------------------------------------- replies that stall it


def test_only_a_250_may_have_more_than_one_line() -> None:
    assert greylite("C: HELP\nS: 214-a\nS: 214 b\n" + MAIL + RCPT) == "stalled"
    assert greylite("C: NOOP\nS: 250-a\nS: 250-b\nS: 250 c\n" + MAIL + RCPT) == "decided"
    assert greylite("C: HELP\nS: 214 a\n" + MAIL + RCPT) == "decided"


@pytest.mark.parametrize(
    "line", ["MAIL FROM:<a@b>", "RCPT TO:<b@c>", "STARTTLS", "AUTH PLAIN eA==", "DATA", "QUIT"]
)
def test_a_refusal_of_more_than_one_line_stalls(line: str) -> None:
    assert greylite(f"C: {line}\nS: 550-no\nS: 550 no\n{MAIL}{RCPT}") == "stalled"
    assert greylite(f"C: {line}\nS: 450-no\nS: 450 no\n{MAIL}{RCPT}") == "stalled"


@pytest.mark.parametrize(("octets", "found"), [(LINE_OCTETS, "decided"), (LINE_OCTETS + 1, "stalled")])
def test_a_line_of_an_ehlo_reply_over_its_buffer_stalls(octets: int, found: str) -> None:
    for line in (b"250-", b"250 "):
        replies = padded(line, octets) + (b"250 ok\r\n" if line.endswith(b"-") else b"")
        wire = Wire().open().say("S: 220 mx\nC: EHLO c").send(S, replies).say(MAIL + RCPT).close()
        assert seen_by("greylite", wire) == found


def test_a_reply_with_a_nul_stalls() -> None:
    assert answered(b"NOOP", b"250 o\0k") == "stalled"


def test_an_unsolicited_421_decides_nothing() -> None:
    assert greylite(MAIL + "S: 421 too slow\n") == "no_envelope"
    assert greylite(MAIL + "C: RCPT TO:<b@c>\nS: 421 too busy\n") == "no_envelope"


# ---------------------------------------------------------------------- lines that stall it


@pytest.mark.parametrize(
    "verb", [b"NOOP ", b"MAIL FROM:<a@b> ", b"RCPT TO:<a@b> ", b"AUTH PLAIN ", b"BOGUS "]
)
def test_a_line_over_its_buffer_stalls_whatever_the_answer(verb: bytes) -> None:
    for reply in (b"250 ok\r\n", b"550 no\r\n"):
        assert greylite_of_bytes((C, padded(verb, LINE_OCTETS + 1)), (S, reply)) == "stalled"
        assert greylite_of_bytes((C, padded(verb, 20_000)), (S, reply)) == "stalled"
    assert greylite_of_bytes((C, padded(verb, LINE_OCTETS + 1))) == "stalled"


def test_a_line_that_fills_its_buffer_is_read() -> None:
    line = padded(b"RCPT TO:<a@b> ", LINE_OCTETS)
    assert len(line) == 1_023
    assert greylite_of_bytes((C, line), (S, b"250 ok\r\n")) == "decided"
    assert greylite_of_bytes((C, padded(b"NOOP ", LINE_OCTETS)), (S, b"250 ok\r\n")) == "no_envelope"
    assert (
        greylite_of_bytes((C, padded(b"RCPT TO:<a@b> ", LINE_OCTETS, b"\n")), (S, b"250 ok\r\n")) == "decided"
    )


def test_a_line_with_a_nul_stalls() -> None:
    for line in (b"NOOP \0", b"N\0OP", b"MAIL FROM:<a\0@b>", b"RCPT TO:<a@b> \0", b"AUTH PLAIN \0"):
        assert answered(line) == "stalled"
        assert answered(line, b"500 what") == "stalled"


def test_a_chunk_stalls() -> None:
    chunk = "C: BDAT 7 LAST\nC: hello\nS: {}\n"
    assert greylite(MAIL + chunk.format("503 what")) == "stalled"
    assert greylite(MAIL + REFUSED_RCPT + chunk.format("250 ok")) == "stalled"
    assert greylite(MAIL + REFUSED_RCPT + "C: BDAT 7\nC: hello\n") == "stalled"


def test_bdat_that_no_chunk_follows_is_answered_and_read_on() -> None:
    assert greylite("C: BDAT 0 LAST\nS: 503 what\n" + MAIL + RCPT) == "decided"
    assert greylite("C: BDAT what\nS: 501 what\n" + MAIL + RCPT) == "decided"


@pytest.mark.parametrize("verb", [b"HELO", b"EHLO"])
def test_a_long_name_closes_the_connection(verb: bytes) -> None:
    for octets, found in ((511, "decided"), (512, "stalled")):
        line = verb + b" " + b"n" * octets + b"\r\n"
        wire = Wire().open().say("S: 220 mx").send(C, line).say("S: 250 mx\n" + MAIL + RCPT).close()
        assert seen_by("greylite", wire) == found
    for no_name in (b"n" * 300 + b" " + b"n" * 300, b"n" * 600 + b"'"):
        line = verb + b" " + no_name + b"\r\n"
        wire = Wire().open().say("S: 220 mx").send(C, line).say("S: 250 mx\n" + MAIL + RCPT).close()
        assert seen_by("greylite", wire) == "decided"


def test_a_long_name_that_was_refused_does_not() -> None:
    wire = Wire().open().say("S: 220 mx").send(C, padded(b"EHLO ", 700)).say("S: 501 no\n" + MAIL + RCPT)
    assert seen_by("greylite", wire.close()) == "decided"


# ---------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "path", ['<"john doe"@c.example>', "<postmaster>", "<b@[192.0.2.1]>", "", "<müller@ü>", "<@>"]
)
def test_it_stalls_where_nothing_looks_like_an_address(path: str) -> None:
    assert greylite(f"{MAIL}C: RCPT TO:{path}\nS: 250 ok\n") == "stalled"
    assert greylite(f"C: MAIL FROM:{path}\nS: 250 ok\n{RCPT}") == "stalled"


def test_a_refused_path_is_not_searched() -> None:
    assert (
        greylite("C: MAIL FROM:<postmaster>\nS: 553 no\n" + MAIL + "C: RCPT TO:<x>\nS: 550 no\n" + RCPT)
        == "decided"
    )


@pytest.mark.parametrize(
    "path", ["<müller@x.example>", "<user@münchen.test>", '<"a@b"@c>', "<>", "<> ENVID=id1@p"]
)
def test_it_takes_what_looks_like_an_address_for_one(path: str) -> None:
    assert greylite(f"C: MAIL FROM:{path}\nS: 250 ok\n{RCPT}") == "decided"
    assert greylite(f"{MAIL}C: RCPT TO:{path}\nS: 250 ok\n") == "decided"


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("<müller@x>", "ller@x"),
        ("<user@münchen.test>", "user@m"),
        ('<"a@b"@c>', "a@b"),
        ("<> ENVID=id1@p", "ENVID=id1@p"),
        ("<>", ""),
        ("<a@b.c-d>", "a@b.c"),
        ("<a@b..c>", "a@b"),
        ("<a@-b.c>", "a@-b.c"),
        ("<A.b+c@D.Example.>", "A.b+c@D.Example"),
        ("<@r.example:b@c>", "b@c"),
        ("<!x@y>", "x@y"),
        ("<a@_>", None),
        ("<postmaster>", None),
    ],
)
def test_the_address_that_it_takes(line: str, address: str | None) -> None:
    assert address_in(b"MAIL FROM:" + line.encode()) == (None if address is None else address.encode())


@pytest.mark.parametrize("octets", [ARGUMENT_OCTETS, ARGUMENT_OCTETS + 1])
def test_it_closes_on_an_address_of_512_bytes(octets: int) -> None:
    address = b"@example.test".rjust(octets, b"a")
    found = "decided" if octets == 511 else "stalled"
    assert greylite_of_bytes((C, b"RCPT TO:<" + address + b">\r\n"), (S, b"250 ok\r\n")) == found
    mail = (C, b"MAIL FROM:<" + address + b">\r\n"), (S, b"250 ok\r\n")
    assert greylite_of_bytes(*mail, (C, b"RCPT TO:<b@c>\r\n"), (S, b"250 ok\r\n")) == found
    assert greylite_of_bytes((C, b"RCPT TO:<" + address + b">\r\n"), (S, b"550 no\r\n")) == "no_envelope"


EXPRESSION: Final = rb"[-&*+./0-9=?a-zA-Z^_{}~]+@([-a-zA-Z0-9_]+\.)*[a-zA-Z0-9]+"
ONE_ADDRESS: Final = re.compile(EXPRESSION)
# Mostly what the expression is about, so that much of it matches nearly.
LINES: Final = st.one_of(
    st.binary(max_size=40),
    st.text("aZ9-_.@@.<> =!+\t", max_size=40).map(str.encode),
    st.lists(
        st.sampled_from([b"a", b"@", b".", b"-", b"_", b"a@", b"a.", b"-.", b"<>", b"\xc3\xbc", b'"', b" "])
    ).map(b"".join),
)


def plainly(line: bytes) -> bytes | None:
    found = ONE_ADDRESS.search(line)
    return found[0] if found is not None else (b"" if b"<>" in line else None)


@given(LINES)
@settings(max_examples=1_500)
def test_the_address_is_the_first_match_of_its_expression(line: bytes) -> None:
    assert address_in(line) == plainly(line)


@pytest.mark.parametrize(
    "line",
    [
        b"a" * 1_023,
        b"a" * 1_020 + b"@-",
        b"a@-" * 341,
        b"a@a." * 255,
        b"a@" + b"a." * 510 + b"!",
        b"a@" + b"-." * 510 + b"!",
        b"a@" + b"-." * 255 + b"!a@" + b"_." * 250 + b"!",
        b"@" * 1_023,
        b"a@" * 511,
        b"-@-." * 255,
    ],
)
def test_the_longest_lines_give_the_same(line: bytes) -> None:
    assert len(line) <= LINE_OCTETS
    assert address_in(line) == plainly(line)


class _Span(ctypes.Structure):
    _fields_ = (("start", ctypes.c_int), ("end", ctypes.c_int))


EXTENDED, IGNORING_CASE = 1, 2
"""REG_EXTENDED and REG_ICASE, as the program asks for them; glibc's regex.h."""
REGEX_T_ROOM_BYTES: Final = 1_024


class CLibrarysExpression:
    """The same expression in the C library, which finds the leftmost longest match (POSIX)."""

    def __init__(self, pattern: bytes) -> None:
        self._library = ctypes.CDLL(None)
        self._compiled = ctypes.create_string_buffer(REGEX_T_ROOM_BYTES)
        assert self._library.regcomp(self._compiled, pattern, EXTENDED | IGNORING_CASE) == 0

    def search(self, line: bytes) -> bytes | None:
        span = (_Span * 1)()
        if self._library.regexec(self._compiled, line, 1, span, 0) != 0:
            return None
        return line[span[0].start : span[0].end]


@pytest.fixture(scope="module")
def c_librarys_expression() -> CLibrarysExpression:
    return CLibrarysExpression(EXPRESSION)


@given(line=st.text("aZ9-_.@<> =!+", max_size=40))
@example(line="a@b.c-d")
@example(line="a@b._")
@settings(max_examples=500)
def test_the_address_is_what_the_c_library_finds(
    c_librarys_expression: CLibrarysExpression, line: str
) -> None:
    found = c_librarys_expression.search(line.encode())
    assert address_in(line.encode()) == (b"" if found is None and "<>" in line else found)


# ---------------------------------------------------------------------- TLS that nobody asked for


@pytest.mark.parametrize("port", [25, 465])
def test_tls_from_the_first_byte_is_all_ciphertext(port: int, tls_mail: Transcript) -> None:
    wire = Wire(port).open().play(tls_mail).close()
    assert seen_by("greylite", wire) == "blind by implicit_tls"


def test_tls_in_the_middle_is_a_line_with_nuls_to_it(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING).send(*tls_mail[0]).say("S: 500 what").close()
    assert seen_by("greylite", wire) == "stalled"


# ---------------------------------------------------------------------- ends


def test_quit_leaves_nothing_to_decide() -> None:
    assert greylite(QUIT) == "no_envelope"
    assert greylite(MAIL + QUIT) == "no_envelope"
    assert greylite("C: QUIT\nS: 221-bye\nS: 221 bye\n") == "no_envelope"


def test_a_session_that_breaks_off_leaves_nothing_to_decide() -> None:
    assert greylite(MAIL) == "no_envelope"
    assert seen_by("greylite", Wire().open().say(GREETING + MAIL).reset(C)) == "no_envelope"


def test_a_session_whose_end_was_not_captured_is_unknown() -> None:
    assert seen_by("greylite", Wire().open().say(GREETING + MAIL)) == "unknown"
    assert seen_by("greylite", Wire().open().say(GREETING + MAIL + RCPT)) == "decided"
    assert seen_by("greylite", Wire().open().say(GREETING + MAIL + QUIT)) == "no_envelope"


def test_a_session_whose_beginning_was_not_captured_is_unknown() -> None:
    assert seen_by("greylite", midstream(said(GREETING + MAIL + RCPT + DATA + QUIT))) == "unknown"


def test_after_a_hole_before_the_decision_nothing_is_sure() -> None:
    wire = said(GREETING + MAIL + RCPT + DATA)
    for number, segment in enumerate(wire.segments):
        if not segment.payload:
            continue
        holed = Wire()
        holed.segments = wire.segments[:number] + wire.segments[number + 1 :]
        assert seen_by("greylite", holed) in ("unknown", "decided"), segment


# ---------------------------------------------------------------------- where TLS ends


def test_ucspi_tls_makes_no_difference(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("greylite", wire, TlsEnds.UCSPI_TLS) == "bypassed by starttls"
    wire = Wire(465).open().play(tls_mail).close()
    assert seen_by("greylite", wire, TlsEnds.UCSPI_TLS) == "blind by implicit_tls"


def test_behind_a_proxy_it_reads_what_we_cannot(tls_mail: Transcript) -> None:
    wire = Wire().open().say(GREETING + STARTTLS).play(tls_mail).close()
    assert seen_by("greylite", wire, TlsEnds.PROXY) == "unknown by starttls"
    wire = Wire(465).open().play(tls_mail).close()
    assert seen_by("greylite", wire, TlsEnds.PROXY) == "unknown by implicit_tls"


def test_behind_a_proxy_auth_and_data_take_sessions_away_all_the_same() -> None:
    assert greylite("C: AUTH PLAIN eA==\nS: 235 in\n" + MAIL, TlsEnds.PROXY) == "bypassed by auth"
    assert greylite(MAIL + REFUSED_RCPT + DATA, TlsEnds.PROXY) == "bypassed by data"
    assert greylite(MAIL + RCPT, TlsEnds.PROXY) == "decided"
