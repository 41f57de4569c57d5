"""What was put off, and whether it came again."""

import pytest

from monitor.peers import RETURNS, After, Return
from monitor.peers.returns import THINGS_OF_ONE_PEER_LIMIT
from tests.monitor.peers.conftest import MakeDiary
from tests.monitor.peers.diary import Diary, mail_refused

FIRST = "0s 192.0.2.1 unused a>b:450"


def test_everything_that_can_be_counted_is_there_from_the_start(diary: Diary) -> None:
    assert set(diary.peers.returns) == set(RETURNS)
    assert len(RETURNS) == 4 + 3 + 3
    assert not any(diary.peers.returns.values())
    assert set(diary.peers.put_off) == set(diary.peers.pending) == set(After)
    assert not any(diary.peers.given_up.values())


# ---------------------------------------------------------------------- a recipient or a message


@pytest.mark.parametrize(
    ("later", "counted"),
    [
        ("6m 192.0.2.1 unused a>b:250/250", "put_off clear"),
        ("6m 192.0.2.1 unused a>b:450", "put_off clear"),  # put off again: it came all the same
        ("6m 192.0.2.1 unused a>b:550", "put_off clear"),
        ("6m 192.0.2.1 masked a>b:-", "put_off clear"),
        ("6m 192.0.2.1 established a>b:250", "put_off clear"),  # in clear, and STARTTLS afterwards
        ("6m 192.0.2.77 unused a>b:250/250", "put_off other_address"),
        ("6m 192.0.3.1 unused a>b:250/250", "put_off pending"),  # another /24
        ("6m 192.0.2.77 unused a>c:250/250", "put_off pending"),
        ("6m 192.0.2.1 unused a>c:250/250", "put_off pending"),
        ("6m 192.0.2.1 unused c>b:250/250", "put_off pending"),
        ("6m 192.0.2.1 established", "put_off dark"),
        ("6m 192.0.2.1 not_reached tls", "put_off dark"),
        ("6m 192.0.2.1 established c>d:250", "put_off dark"),  # the rest of it is hidden
        ("6m 192.0.2.77 established", "put_off pending"),  # whose mail it carried is not known
        ("6m 192.0.2.1 unused", "put_off pending"),
        ("6m 192.0.2.1 not_reached", "put_off pending"),
        ("6m 192.0.2.1 unused a>b:250/250 outbound", "put_off pending"),
        ("6m 192.0.2.1 unused a>b:250/250 internal", "put_off clear"),
        ("6m 192.0.2.1 unused a>b:250/250 unknown", "put_off clear"),
        ("6m 192.0.2.1 unknown lost", "put_off in_doubt"),
        ("6m 192.0.2.1 unused open", "put_off in_doubt"),
        ("6m 192.0.2.1 unused c>d:250 gap", "put_off in_doubt"),
        ("6m 192.0.2.1 established c>d:250 gap", "put_off in_doubt"),
        ("6m 192.0.2.1 unused c>d:250 overflow", "put_off in_doubt"),
        ("6m 192.0.2.1 unused a>b:250 gap", "put_off clear"),  # what it shows, it shows
        ("6m 192.0.2.1 established gap", "put_off dark"),  # bytes of ciphertext tell nothing
        ("6m 192.0.2.1 unused gap", "put_off pending"),  # known to have had no MAIL
        ("6m 192.0.2.77 unknown lost", "put_off pending"),
        ("tick 3d", "put_off never"),
    ],
)  # fmt: skip
def test_a_recipient_put_off_comes_again_in_one_way(diary: Diary, later: str, counted: str) -> None:
    assert diary.tell(FIRST).returns == {"put_off pending": 1}
    assert diary.tell(later).returns == {counted: 1}


@pytest.mark.parametrize(
    ("mail", "put_off"),
    [
        ("a>b:450", 1),
        ("a>b:421", 1),
        (">b:450", 1),  # the null sender is one, too
        ("a>b:250/451", 1),
        ("a>b:250/250", 0),
        ("a>b:250/550", 0),
        ("a>b:250/-", 0),
        ("a>b:250", 0),
        ("a>b:550", 0),
        ("a>b:550/451", 0),  # the message was put off for others than this one
        ("a>b:-", 0),
        ("?>b:450", 0),
        ("a>?:450", 0),
        ("a>b:450 a>b:250/250", 0),  # the last answer in the session counts
        ("a>b:450 a>b:-", 0),
        ("a>b:250/250 a>b:450", 1),
        ("a>b:450 a>b:450", 1),  # once more in the same session is no return, and no second thing
        ("a>b:450 a>c:450", 2),
    ],
)
def test_what_the_last_answer_of_a_session_puts_off(diary: Diary, mail: str, put_off: int) -> None:
    diary.tell(f"0s 192.0.2.1 unused {mail}")
    assert diary.peers.put_off[After.PUT_OFF] == diary.peers.pending[After.PUT_OFF] == put_off
    assert not any(diary.peers.returns.values())


def test_a_refused_mail_puts_off_the_recipients_that_were_sent_with_it(diary: Diary) -> None:
    record = diary.record("0s 192.0.2.1 unused a>b:503")
    diary.peers.record(mail_refused(record, 550))
    assert not diary.peers.put_off[After.PUT_OFF]
    diary.peers.record(mail_refused(record, 451))
    assert diary.peers.put_off[After.PUT_OFF] == 1


def test_a_session_with_gaps_puts_off_what_may_have_been_accepted_in_a_gap(diary: Diary) -> None:
    assert diary.tell("0s 192.0.2.1 unused a>b:450 gap").returns == {"put_off in_doubt": 1}


def test_what_is_put_off_again_is_the_same_thing_until_its_window_is_over(diary: Diary) -> None:
    diary.tell(FIRST)
    diary.tell("1m 192.0.2.1 unused a>b:450").tell("2m 192.0.2.1 unused a>b:450")
    diary.tell("3m 192.0.2.1 unused a>b:250/250").tell("1d 192.0.2.1 unused a>b:451")
    assert diary.returns == {"put_off clear": 1}
    diary.tell("2d2s 192.0.2.1 unused a>b:450")
    assert diary.returns == {"put_off clear": 1, "put_off pending": 1}


def test_the_first_return_counts(diary: Diary) -> None:
    diary.tell(FIRST)
    diary.tell("1m 192.0.2.1 established").tell("2m 192.0.2.1 unused a>b:250/250").tell("tick 9d")
    assert diary.returns == {"put_off dark": 1}
    diary.tell("10d 192.0.2.5 unused a>b:450").tell("10d1m 192.0.2.5 unused a>b:250/250")
    assert diary.tell("10d2m 192.0.2.5 established").returns == {"put_off dark": 1, "put_off clear": 1}


def test_a_session_that_shows_the_thing_and_goes_dark_brought_it_in_clear(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 unused a>b:450 a>c:450").tell("1m 192.0.2.1 established a>b:250/250")
    assert diary.returns == {"put_off clear": 1, "put_off dark": 1}


def test_each_address_of_a_pool_puts_off_for_itself(diary: Diary) -> None:
    diary.tell(FIRST).tell("1m 192.0.2.2 unused a>b:450").tell("2m 192.0.2.3 unused a>b:450")
    assert diary.returns == {"put_off other_address": 2, "put_off pending": 1}
    diary.tell("3m 192.0.2.1 unused a>b:250/250")
    assert diary.returns == {"put_off other_address": 3}


@pytest.mark.parametrize(
    ("one", "other", "counted"),
    [
        ("192.0.2.0", "192.0.2.255", "other_address"),
        ("192.0.2.255", "192.0.3.0", "pending"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::1", "other_address"),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", "pending"),
        ("::ffff:192.0.2.1", "192.0.2.1", "clear"),
        ("::ffff:192.0.2.1", "192.0.2.2", "other_address"),
        ("::ffff:192.0.2.1", "::ffff:192.0.9.1", "pending"),
        ("2001:DB8::1", "2001:db8:0::1", "clear"),
    ],
)
def test_a_network_is_a_24_or_a_64(diary: Diary, one: str, other: str, counted: str) -> None:
    diary.tell(f"0s {one} unused a>b:450").tell(f"1m {other} unused a>b:250/250")
    assert diary.returns == {f"put_off {counted}": 1}


def test_sender_and_recipient_are_not_run_together(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 unused a>bc:450").tell("1m 192.0.2.1 unused ab>c:250/250")
    assert diary.returns == {"put_off pending": 1}


# ---------------------------------------------------------------------- STARTTLS


@pytest.mark.parametrize(
    ("outcome", "after"),
    [("refused", "starttls_refused"), ("failed", "starttls_failed"), ("abandoned", "starttls_failed")],
)
@pytest.mark.parametrize(
    ("later", "counted"),
    [
        ("6m 192.0.2.1 unused a>b:250/250", "clear"),
        ("6m 192.0.2.1 not_reached a>b:250/250", "clear"),
        ("6m 192.0.2.1 unknown a>b:550 lost", "clear"),
        ("6m 192.0.2.1 established a>b:250/250", "clear"),
        ("6m 192.0.2.1 established", "dark"),
        ("6m 192.0.2.1 not_reached tls", "dark"),
        ("6m 192.0.2.1 unused", "pending"),
        ("6m 192.0.2.1 unknown lost", "in_doubt"),
        ("6m 192.0.2.1 unused open", "in_doubt"),
        ("6m 192.0.2.2 unused a>b:250/250", "pending"),  # whose mail it is can't be known
        ("6m 192.0.2.1 unused a>b:250/250 outbound", "pending"),
        ("tick 3d", "never"),
    ],
)
def test_after_starttls_a_peer_comes_back_in_one_way(
    diary: Diary, outcome: str, after: str, later: str, counted: str
) -> None:
    assert diary.tell(f"0s 192.0.2.1 {outcome}").returns == {f"{after} pending": 1}
    assert diary.tell(later).returns == {f"{after} {counted}": 1}


@pytest.mark.parametrize("outcome", ["refused", "failed", "abandoned"])
def test_a_mail_in_clear_in_the_same_session_is_a_return(diary: Diary, outcome: str) -> None:
    diary.tell(f"0s 192.0.2.1 {outcome} a>b:250/250")
    assert list(diary.returns.values()) == [1]
    assert sum(diary.peers.returns[after, Return.CLEAR] for after in After) == 1


@pytest.mark.parametrize(
    "outcome", ["not_reached", "not_offered", "masked", "unused", "established", "unknown"]
)
def test_other_outcomes_of_starttls_put_nothing_off(diary: Diary, outcome: str) -> None:
    diary.tell(f"0s 192.0.2.1 {outcome}").tell(f"1m 192.0.2.1 {outcome} a>b:250/250")
    assert not diary.returns


def test_starttls_counts_once_for_each_peer_in_a_window(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 refused").tell("1m 192.0.2.1 refused").tell("2m 192.0.2.1 refused a>b:250/250")
    diary.tell("3m 192.0.2.1 refused").tell("3m 192.0.2.2 refused").tell("4m 192.0.2.1 failed")
    assert diary.returns == {
        "starttls_refused clear": 1, "starttls_refused pending": 1, "starttls_failed pending": 1,
    }  # fmt: skip
    diary.tell("2d2s 192.0.2.1 refused")
    assert diary.peers.put_off[After.STARTTLS_REFUSED] == 3


def test_a_refusal_whose_session_was_not_seen_to_its_end_is_in_doubt(diary: Diary) -> None:
    assert diary.tell("0s 192.0.2.1 refused open").returns == {"starttls_refused in_doubt": 1}


# ---------------------------------------------------------------------- windows and clocks


# FIRST ends at 1s: its window is over at 2d1s.
@pytest.mark.parametrize(
    ("later", "counted"),
    [
        ("1d-2d1s 192.0.2.1 unused a>b:250/250", "put_off clear"),
        ("1d-2d1s1us 192.0.2.1 unused a>b:250/250", "put_off never"),
        ("1d-2d1s 192.0.2.2 unused a>b:250/250", "put_off other_address"),
        ("1d-2d1s1us 192.0.2.2 unused a>b:250/250", "put_off never"),
        ("1d-2d1s 192.0.2.1 established", "put_off dark"),
        ("1d-2d1s1us 192.0.2.1 established", "put_off never"),
        ("1d-2d1s 192.0.2.1 unknown lost", "put_off in_doubt"),
        ("1d-2d1s1us 192.0.2.1 unknown lost", "put_off never"),
    ],
)
def test_a_return_has_ended_within_two_days(diary: Diary, later: str, counted: str) -> None:
    assert diary.tell(FIRST).tell(later).tell("tick 4d").returns == {counted: 1}


def test_a_record_that_comes_late_is_waited_for(diary: Diary) -> None:
    diary.tell(FIRST).tell("tick 2d1h1s")
    assert diary.returns == {"put_off pending": 1}
    diary.tell("2d-2d1s 192.0.2.1 unused a>b:250/250")
    assert diary.returns == {"put_off clear": 1}


def test_never_is_counted_when_no_record_can_be_late_any_more(diary: Diary) -> None:
    diary.tell(FIRST).tell("tick 2d1h1s")
    assert diary.returns == {"put_off pending": 1}
    assert diary.tell("tick 2d1h1s1us").returns == {"put_off never": 1}


def test_records_make_time_pass_as_ticks_do(diary: Diary) -> None:
    assert diary.tell(FIRST).tell("3d 198.51.100.9 not_reached").returns == {"put_off never": 1}


def test_what_another_address_puts_off_after_the_window_does_not_put_the_first_in_doubt(diary: Diary) -> None:
    diary.tell(FIRST).tell("2d1m 192.0.2.2 unused a>b:450")
    assert diary.returns == {"put_off never": 1, "put_off pending": 1}


def test_a_session_that_began_before_is_no_return(diary: Diary) -> None:
    diary.tell("10s 192.0.2.1 unused a>b:450").tell("10s 192.0.2.9 refused")
    diary.tell("5s-1h 192.0.2.1 established").tell("5s-1h 192.0.2.9 unused c>d:250")
    assert diary.returns == {"put_off pending": 1, "starttls_refused pending": 1}


def test_sessions_side_by_side_with_the_same_recipient_are_in_doubt(diary: Diary) -> None:
    diary.tell("10s 192.0.2.1 unused a>b:450").tell("5s-1h 192.0.2.1 unused a>b:450")
    diary.tell("10s 192.0.7.1 unused c>d:450").tell("5s-1h 192.0.7.2 unused c>d:450")
    assert diary.returns == {"put_off in_doubt": 2, "put_off pending": 1}


@pytest.mark.parametrize(
    ("overtaking", "late", "counted"),
    [
        ("1m 192.0.2.1 established", FIRST, "put_off dark"),
        ("1m 192.0.2.1 unused c>d:250", FIRST, "put_off in_doubt"),  # with b or without: not known any more
        ("1m 192.0.2.1 unknown lost", FIRST, "put_off in_doubt"),
        ("1m 192.0.2.2 unused a>b:250", FIRST, "put_off pending"),
        ("1m 192.0.2.1 unused c>d:250", "0s 192.0.2.1 refused", "starttls_refused clear"),
        ("1m 192.0.2.1 established", "0s 192.0.2.1 failed", "starttls_failed dark"),
        ("1m 192.0.2.1 unknown lost", "0s 192.0.2.1 failed", "starttls_failed in_doubt"),
        ("1m 192.0.2.1 unused", "0s 192.0.2.1 failed", "starttls_failed pending"),
        ("0s500000us 192.0.2.1 unused c>d:250", "0s 192.0.2.1 failed", "starttls_failed pending"),
    ],
)
def test_a_return_whose_record_overtook_that_of_the_putting_off(
    diary: Diary, overtaking: str, late: str, counted: str
) -> None:
    assert diary.tell(overtaking).tell(late).returns == {counted: 1}


def test_an_hour_after_its_end_no_record_can_be_overtaken(diary: Diary) -> None:
    diary.tell("1m 192.0.2.1 established").tell("tick 1h1m2s").tell("30m 192.0.2.1 refused")
    assert diary.returns == {"starttls_refused pending": 1}


def test_a_clock_that_is_set_back_puts_all_that_waits_in_doubt(diary: Diary) -> None:
    diary.tell("3h 192.0.2.1 unused a>b:450").tell("3h 192.0.2.1 failed").tell("2h1s 192.0.2.9 not_reached")
    assert diary.returns == {"put_off pending": 1, "starttls_failed pending": 1}  # an hour is only lateness
    diary.tell("tick 2h")
    assert diary.returns == {"put_off in_doubt": 1, "starttls_failed in_doubt": 1}
    diary.tell("2h 192.0.2.1 unused a>b:450").tell("2h6m 192.0.2.1 unused a>b:250/250").tell("tick 5d")
    assert diary.returns == {
        "put_off in_doubt": 1, "starttls_failed in_doubt": 1, "put_off clear": 1,
    }  # fmt: skip


# ---------------------------------------------------------------------- bounds


def test_the_oldest_things_make_room_and_are_counted(make_diary: MakeDiary) -> None:
    diary = make_diary(things_limit=3)
    for number in range(10):
        diary.tell(f"{number}m 192.0.{number}.1 unused a>b:450")
    assert diary.returns == {"put_off forgotten": 7, "put_off pending": 3}
    diary.tell("1h 192.0.6.1 unused a>b:250/250").tell("1h 192.0.7.1 unused a>b:250/250")
    assert diary.returns == {"put_off forgotten": 7, "put_off clear": 1, "put_off pending": 2}


def test_a_settled_thing_that_makes_room_is_not_counted_twice(make_diary: MakeDiary) -> None:
    diary = make_diary(things_limit=1)
    diary.tell(FIRST).tell("1m 192.0.2.1 unused a>b:250/250").tell("2m 192.0.9.1 unused a>b:450")
    assert diary.returns == {"put_off clear": 1, "put_off pending": 1}


def test_one_peer_cannot_push_out_what_the_others_left(diary: Diary) -> None:
    diary.tell(FIRST)
    for number in range(THINGS_OF_ONE_PEER_LIMIT + 5):
        diary.tell(f"1m 198.51.100.1 unused a>{number}:450")
    assert diary.returns == {"put_off forgotten": 5, "put_off pending": THINGS_OF_ONE_PEER_LIMIT + 1}
    diary.tell("2m 198.51.100.1 unused a>4:450 a>5:250")
    assert diary.peers.returns[After.PUT_OFF, Return.CLEAR] == 1
