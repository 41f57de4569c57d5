"""Lines over the limits and lines without end: bounded, reported, and read on behind them."""

import pytest

from monitor.side import Side
from monitor.smtp.grammar import LINE_LIMIT_BYTES
from monitor.smtp.replies import KEPT_LINE_BYTES, KEPT_LINES, REPLY_LINE_OCTETS, ReplyReader
from tests.monitor.smtp.transcript import GREETED, Ledger, Piece, check, parse, spelled_out


@pytest.mark.parametrize(
    ("start", "limit"), [("NOOP ", 512), ("EHLO ", 512), ("MAIL FROM:<", 1_512), ("RCPT TO:<", 1_512)]
)
def test_a_line_over_its_limit_is_reported(start: str, limit: int) -> None:
    fits = start + "x" * (limit - 2 - len(start))
    assert "! line_too_long" not in check(f"C: {fits}", after=GREETED).reports
    assert "! line_too_long" in check(f"C: {fits}x", after=GREETED).reports


@pytest.mark.parametrize("beyond", [-1, 0, 1, 50_000])
def test_after_a_line_of_any_length_comes_the_next(beyond: int) -> None:
    played = check(
        f"C: MAIL FROM:<{'x' * (LINE_LIMIT_BYTES - 12 + beyond)}\nS: 500 too long\nC: NOOP\nS: 250 ok",
        after=GREETED,
    )
    over = beyond > 0  # the carriage return counts, the line feed does not
    assert ("> MAIL cut" in played.reports) is over
    assert "! line_too_long" in played.reports
    assert played.reports[-2:] == ["> NOOP", "< NOOP 250"]


def test_a_command_line_without_end_is_kept_within_bounds() -> None:
    ledger = Ledger()
    for _ in range(200):
        ledger.take(Piece(Side.CLIENT, b"x" * 1_448, 0))
        assert ledger.dialogue.buffered_bytes <= LINE_LIMIT_BYTES + 1_448


def test_a_reply_may_come_before_the_end_of_an_overlong_line() -> None:
    check(
        f"""
        C< NOOP {"x" * 20_000}
        S: 500 too long
        = nothing
        C< x\\r\\n
        = ! line_too_long
        = > NOOP cut
        = < NOOP 500
        """,
        after=GREETED,
    )


def test_a_reply_line_without_end_is_kept_within_bounds_and_read_on_behind() -> None:
    ledger = Ledger()
    for step in parse(GREETED + "C: NOOP"):
        if isinstance(step, Piece):
            ledger.take(step)
    ledger.take(Piece(Side.SERVER, b"250 "))
    for _ in range(200):
        ledger.take(Piece(Side.SERVER, b"x" * 1_448))
        assert ledger.dialogue.buffered_bytes <= LINE_LIMIT_BYTES + 1_448
    before = len(ledger.events)
    ledger.take(Piece(Side.SERVER, b"\r\n"))
    assert len(ledger.events) == before + 1


@pytest.mark.parametrize("length", [KEPT_LINE_BYTES - 1, KEPT_LINE_BYTES, KEPT_LINE_BYTES + 1, 20_000])
def test_of_a_long_reply_the_same_is_kept_however_it_came(length: int) -> None:
    line = b"220 " + bytes(48 + index % 10 for index in range(length)) + b"\r\n"
    whole, bytewise = Ledger(), Ledger()
    whole.take(Piece(Side.SERVER, line))
    for index in range(len(line)):
        bytewise.take(Piece(Side.SERVER, line[index : index + 1]))
    assert spelled_out(whole.events) == spelled_out(bytewise.events)


def test_a_reply_line_over_its_limit_is_reported() -> None:
    assert "! line_too_long" not in check(f"S: 220 {'x' * (REPLY_LINE_OCTETS - 6)}").reports
    assert "! line_too_long" in check(f"S: 220 {'x' * (REPLY_LINE_OCTETS - 5)}").reports


def test_of_a_reply_with_very_many_lines_the_first_are_kept_and_it_does_not_pass_for_whole() -> None:
    reader = ReplyReader()
    for _ in range(10_000):
        assert reader.line(b"250-" + b"x" * 2_000) == []
        assert reader.buffered_bytes <= KEPT_LINES * KEPT_LINE_BYTES
    (reply,) = reader.line(b"250 STARTTLS") or []
    assert len(reply.lines) == KEPT_LINES
    assert not reply.whole
