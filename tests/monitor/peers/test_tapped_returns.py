"""What was put off inside TLS, and whether it came again, as a tap saw it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.peers import After, GivenUp, Peers, Return, Returns
from monitor.sessions.record import SessionRecord
from tests.monitor.conftest import CLEARTEXT
from tests.monitor.peers.conftest import MakeDiary
from tests.monitor.peers.diary import Diary, nanoseconds
from tests.monitor.peers.test_peers import LENGTHS, MAILS, PEERS, WHEN, sessions, texts_within

FIRST = "0s 192.0.2.1 established whole a>b:450"


def _make_record(**changes: Any) -> SessionRecord:
    return replace(CLEARTEXT, **changes)


def _tapped(**limits: int) -> Diary:
    return Diary(_make_record, is_tapped=True, **limits)


def test_everything_that_can_be_counted_is_there_from_the_start(tapped_diary: Diary) -> None:
    tapped = tapped_diary.peers.tapped_returns
    assert tapped is not None
    assert tapped.returns == {(After.PUT_OFF, how): 0 for how in Return}
    assert tapped.given_up == {(After.PUT_OFF, why): 0 for why in GivenUp}
    assert tapped.put_off == tapped.pending == {After.PUT_OFF: 0}


def test_without_a_tap_nothing_is_counted_nor_kept(diary: Diary) -> None:
    assert diary.tell(FIRST).peers.tapped_returns is None
    assert not diary.returns


@pytest.mark.parametrize(
    ("later", "counted"),
    [
        ("6m 192.0.2.1 established whole a>b:250/250", "inside_tls"),
        ("6m 192.0.2.1 not_reached tls whole a>b:250/250", "inside_tls"),
        ("6m 192.0.2.1 established whole a>b:450", "inside_tls"),  # put off again: it came all the same
        ("6m 192.0.2.1 established partial a>b:250", "inside_tls"),  # what it shows, it shows
        ("6m 192.0.2.1 established gap whole a>b:250", "inside_tls"),  # bytes of ciphertext tell nothing
        ("6m 192.0.2.1 unused a>b:250/250", "clear"),
        ("6m 192.0.2.1 established a>b:250/250 whole", "clear"),  # in clear, and STARTTLS afterwards
        ("6m 192.0.2.1 established a>b:450 whole a>b:250", "clear"),  # first in clear
        ("6m 192.0.2.1 established a>b:250/250 missed", "clear"),
        ("6m 192.0.2.1 established c>d:250 whole a>b:250", "inside_tls"),
        ("6m 192.0.2.77 established whole a>b:250/250", "other_address"),
        ("6m 192.0.2.77 unused a>b:250/250", "other_address"),
        ("6m 192.0.3.1 established whole a>b:250/250", "pending"),  # another /24
        ("6m 192.0.2.1 established whole a>c:250/250", "pending"),
        ("6m 192.0.2.1 established whole c>b:250/250", "pending"),
        ("6m 192.0.2.1 unused a>c:250/250", "pending"),
        ("6m 192.0.2.1 established whole", "pending"),
        ("6m 192.0.2.1 established a>c:250 whole", "pending"),
        ("6m 192.0.2.1 unused", "pending"),
        ("6m 192.0.2.1 failed whole", "pending"),  # the tap saw a handshake, and nothing inside
        ("6m 192.0.2.1 refused", "pending"),
        ("6m 192.0.2.1 established missed", "dark"),
        ("6m 192.0.2.1 not_reached tls missed", "dark"),
        ("6m 192.0.2.1 established c>d:250 missed", "dark"),  # the rest of it is hidden
        ("6m 192.0.2.1 established", "dark"),  # no tap looked there
        ("6m 192.0.2.77 established missed", "pending"),  # whose mail it carried is not known
        ("6m 192.0.2.1 established unsure", "in_doubt"),
        ("6m 192.0.2.1 established partial", "in_doubt"),
        ("6m 192.0.2.1 established partial c>d:250", "in_doubt"),
        ("6m 192.0.2.1 failed partial", "in_doubt"),
        ("6m 192.0.2.1 unknown lost", "in_doubt"),
        ("6m 192.0.2.1 unknown lost missed", "in_doubt"),  # before it was encrypted it may have come in clear
        ("6m 192.0.2.1 unknown lost whole c>d:250", "in_doubt"),
        ("6m 192.0.2.1 established c>d:250 gap whole", "in_doubt"),
        ("6m 192.0.2.1 established c>d:250 gap missed", "in_doubt"),
        ("6m 192.0.2.1 unused c>d:250 overflow", "in_doubt"),
        ("6m 192.0.2.77 established unsure", "pending"),
        ("6m 192.0.2.1 established outbound whole a>b:250/250", "pending"),
        ("tick 3d", "never"),
    ],
)  # fmt: skip
def test_a_recipient_put_off_inside_tls_comes_again_in_one_way(
    tapped_diary: Diary, later: str, counted: str
) -> None:
    assert tapped_diary.tell(FIRST).tapped_returns == {"put_off pending": 1}
    assert tapped_diary.tell(later).tapped_returns == {f"put_off {counted}": 1}


@pytest.mark.parametrize(
    ("session", "counted"),
    [
        ("established whole a>b:450", "pending"),
        ("established whole >b:450", "pending"),  # the null sender is one, too
        ("established whole a>b:250/451", "pending"),
        ("not_reached tls whole a>b:421", "pending"),
        ("established a>b:250 whole a>b:450", "pending"),  # the last answer in the session counts
        ("established a>b:450 whole a>b:450", "pending"),
        ("established whole a>b:250/250 a>b:450", "pending"),
        ("established whole a>b:450 a>b:250/250", None),
        ("established a>b:450 whole a>b:250/250", None),
        ("established whole a>b:550", None),
        ("established whole a>b:250/250", None),
        ("established whole a>b:-", None),
        ("established whole ?>b:450", None),
        ("established whole a>?:450", None),
        ("established a>b:450 whole", None),  # in clear, and not inside
        ("established a>b:450 missed", None),
        ("unused a>b:450", None),
        ("refused", None),  # what STARTTLS puts off is none of its business
        ("failed whole", None),
        ("established partial a>b:450", "in_doubt"),  # it may have been accepted in a gap
        ("established c>d:250 gap whole a>b:450", "in_doubt"),
        ("unknown lost whole a>b:450", "in_doubt"),
    ],
)
def test_what_a_session_puts_off_inside_tls(tapped_diary: Diary, session: str, counted: str | None) -> None:
    tapped_diary.tell(f"0s 192.0.2.1 {session}")
    assert tapped_diary.tapped_returns == ({f"put_off {counted}": 1} if counted else {})


@pytest.mark.parametrize(
    ("overtaking", "counted"),
    [
        ("1m 192.0.2.1 established missed", "dark"),
        ("1m 192.0.2.1 established whole c>d:250", "in_doubt"),  # with b or without: not known any more
        ("1m 192.0.2.1 unused c>d:250", "in_doubt"),
        ("1m 192.0.2.1 established unsure", "in_doubt"),
        ("1m 192.0.2.1 established partial", "in_doubt"),
        ("1m 192.0.2.1 established whole", "pending"),
        ("1m 192.0.2.2 established whole a>b:250", "pending"),
        ("0s500000us 192.0.2.1 established whole c>d:250", "pending"),
    ],
)
def test_a_return_whose_record_overtook_that_of_the_putting_off(
    tapped_diary: Diary, overtaking: str, counted: str
) -> None:
    assert tapped_diary.tell(overtaking).tell(FIRST).tapped_returns == {f"put_off {counted}": 1}


def test_an_hour_after_its_end_no_record_can_be_overtaken(tapped_diary: Diary) -> None:
    tapped_diary.tell("1m 192.0.2.1 established missed").tell("tick 1h1m2s")
    assert tapped_diary.tell("30m 192.0.2.1 established whole a>b:450").tapped_returns == {
        "put_off pending": 1
    }


def test_time_that_passes_without_records_ends_the_window(tapped_diary: Diary) -> None:
    assert tapped_diary.tell(FIRST).tell("tick 2d1h1s").tapped_returns == {"put_off pending": 1}
    assert tapped_diary.tell("tick 2d1h1s1us").tapped_returns == {"put_off never": 1}


def test_a_clock_that_is_set_back_puts_all_that_waits_in_doubt(tapped_diary: Diary) -> None:
    tapped_diary.tell("3h 192.0.2.1 established whole a>b:450").tell("tick 1h")
    assert tapped_diary.tapped_returns == {"put_off in_doubt": 1}
    tapped_diary.tell("1h 192.0.2.1 established whole a>b:450")  # nothing that went before has overtaken it
    assert tapped_diary.tapped_returns == {"put_off in_doubt": 1, "put_off pending": 1}


def test_what_is_put_off_in_clear_and_inside_counts_on_both_sides(tapped_diary: Diary) -> None:
    tapped_diary.tell("0s 192.0.2.1 unused a>b:450").tell("6m 192.0.2.1 established whole a>b:450")
    assert tapped_diary.returns == {"put_off dark": 1}
    assert tapped_diary.tapped_returns == {"put_off pending": 1}
    tapped_diary.tell("12m 192.0.2.1 unused a>b:250/250")
    assert tapped_diary.returns == {"put_off dark": 1}
    assert tapped_diary.tapped_returns == {"put_off clear": 1}


def test_the_oldest_make_room_and_take_none_from_what_was_put_off_in_clear(make_diary: MakeDiary) -> None:
    diary = make_diary(is_tapped=True, things_limit=3, peers_limit=4)
    diary.tell("0s 192.0.2.1 unused a>b:450")
    for number in range(10):
        diary.tell(f"{number}m 192.0.{number}.1 established whole a>b:450")
    assert diary.returns == {"put_off dark": 1}
    assert diary.tapped_returns == {"put_off forgotten": 7, "put_off pending": 3}
    tapped = diary.peers._tapped
    assert tapped is not None
    assert len(tapped._lately) == 4


def test_no_address_and_no_envelope_stays_in_memory(tapped_diary: Diary) -> None:
    tapped_diary.tell("0s 203.0.113.77 established whole someone@secret.example>other@secret.test:450")
    tapped_diary.tell("1m 203.0.113.78 established missed")
    assert tapped_diary.tapped_returns == {"put_off pending": 1}
    texts = texts_within(tapped_diary.peers)
    assert sum(isinstance(text, bytes) and len(text) == 8 for text in texts) >= 4
    for text in texts:
        encoded = text.encode() if isinstance(text, str) else text
        for trace in (b"secret", b"someone", b"203.0.113", bytes((203, 0, 113))):
            assert trace not in encoded


# ---------------------------------------------------------------------- whatever the sessions are

TAPS = st.tuples(st.sampled_from(["whole", "whole", "partial", "unsure", "missed"]), MAILS).map(
    lambda tap: " ".join((tap[0], *(tap[1] if tap[0] in ("whole", "partial") else ())))
)


@st.composite
def tapped_sessions(draw: st.DrawFn) -> list[str]:
    """Of any outcome, with a tap that saw it well, badly, or when it should not have."""
    lines = draw(sessions())
    return [line if line.startswith("tick") else f"{line} {draw(TAPS | st.just(''))}" for line in lines]


def _of_streams(peers: Peers) -> object:
    """All that is counted of what a stream shows."""
    counted = (peers.returns, peers.given_up, peers.pending, peers.put_off)
    return [dict(one) for one in (*counted, peers.peers, peers.dark_sessions)], peers.peers_forgotten


@pytest.mark.parametrize("tap", ["whole c>d:250", "whole", "partial c>d:250", "partial", "unsure", "missed"])
@pytest.mark.parametrize(
    ("late", "counted"),
    [
        ("0s 192.0.2.1 unused a>b:450", "put_off dark"),
        ("0s 192.0.2.1 refused", "starttls_refused dark"),
        ("0s 192.0.2.1 failed", "starttls_failed dark"),
    ],
)
def test_to_what_was_put_off_in_clear_a_later_encrypted_session_is_dark_whatever_a_tap_saw(
    make_diary: MakeDiary, tap: str, late: str, counted: str
) -> None:
    later = f"1m 192.0.2.1 established {tap}"
    for lines in ((late, later), (later, late)):  # the second time its record overtakes
        diary = make_diary(is_tapped=True)
        for line in lines:
            diary.tell(line)
        assert diary.returns == {counted: 1}
        assert diary.tell("tick 3d").returns == {counted: 1}


@given(tapped_sessions(), st.sampled_from([1, 3, 200]))
@settings(max_examples=300, deadline=None)
def test_what_is_counted_of_the_stream_is_the_same_with_a_tap_and_without(
    lines: list[str], limit: int
) -> None:
    with_tap = _tapped(peers_limit=limit, things_limit=limit)
    records_only = Diary(_make_record, peers_limit=limit, things_limit=limit)
    without = Peers(peers_limit=limit, things_limit=limit)
    for line in lines:
        with_tap.tell(line)
        records_only.tell(line)
        if line.startswith("tick"):
            without.tick(nanoseconds(line.split()[1]))
        else:
            without.record(replace(with_tap.record(line), tapped=None))
        assert _of_streams(with_tap.peers) == _of_streams(records_only.peers) == _of_streams(without)


@given(tapped_sessions(), st.sampled_from([1, 2, 200]))
@settings(max_examples=300, deadline=None)
def test_the_sums_agree_after_every_record(lines: list[str], limit: int) -> None:
    diary = _tapped(peers_limit=limit, things_limit=limit)
    tapped = diary.peers.tapped_returns
    assert tapped is not None
    before = 0
    for line in lines:
        diary.tell(line)
        settled = _settled(tapped)
        assert settled >= before  # counters never go back
        before = settled
        assert 0 <= tapped.pending[After.PUT_OFF] <= limit
    diary.peers.tick(2**62)
    _settled(tapped)
    assert not tapped.pending[After.PUT_OFF]  # nothing waits for ever
    assert not len(tapped)
    assert not tapped._by_peer
    assert not tapped._by_pair
    inside = diary.peers._tapped
    assert inside is not None
    assert not len(inside._lately)


def _settled(tapped: Returns) -> int:
    settled = sum(tapped.returns.values()) + sum(tapped.given_up.values())
    assert tapped.put_off[After.PUT_OFF] == settled + tapped.pending[After.PUT_OFF]
    return settled


# What a session is to who reads the stream, and what shows the same to the mail server only.
MIRRORED = {
    "unused {mails}": "established whole {mails}",
    "unused c>d:250 {mails} overflow": "not_reached tls partial c>d:250 {mails}",
    "unused {mails} gap": "established partial {mails}",
    "unknown lost": "established unsure",
    "established": "not_reached tls missed",
    "established a>b:250 c>d:250": "established a>b:250 c>d:250 missed",
}


@st.composite
def mirrored(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Sessions in clear, and beside each one that carried the same inside TLS."""
    lines = []
    for _ in range(draw(st.integers(1, 25))):
        clear, inside = draw(st.sampled_from([*MIRRORED.items()]))
        mails, begin = " ".join(draw(MAILS)), draw(WHEN)
        if "gap" in clear and not mails:
            mails = "a>c:250"  # a session in clear without a MAIL had none, whatever its gaps hold
        when = f"{begin}-{begin}{draw(LENGTHS)}s {draw(PEERS)} "
        lines.append((when + clear.format(mails=mails), when + inside.format(mails=mails)))
    return lines


@given(mirrored(), st.sampled_from([2, 200]))
@settings(max_examples=300, deadline=None)
def test_the_same_sessions_come_to_the_same_inside_tls_as_in_clear(
    lines: list[tuple[str, str]], limit: int
) -> None:
    in_clear, inside = Diary(_make_record, things_limit=limit), _tapped(things_limit=limit)
    for clear_line, inside_line in lines:
        in_clear.tell(clear_line)
        inside.tell(inside_line)
        found = inside.tapped_returns
        clear = found.pop("put_off inside_tls", 0) + found.pop("put_off clear", 0)
        assert found | ({"put_off clear": clear} if clear else {}) == in_clear.returns
