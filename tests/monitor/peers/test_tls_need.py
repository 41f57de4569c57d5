"""What a peer does where it does not get TLS."""

import pytest

from tests.monitor.peers.conftest import MakeDiary
from tests.monitor.peers.diary import Diary

WITHOUT_TLS = ["not_offered", "masked", "refused", "failed", "abandoned"]


@pytest.mark.parametrize(
    ("outcome", "in_clear", "without_mail"),
    [
        ("not_offered", "falls_back", "requires"),
        ("masked", "falls_back", "requires"),
        ("refused", "falls_back", "requires"),
        ("failed", "falls_back", "requires"),
        ("abandoned", "falls_back", "requires"),
        ("unused", "never_asks", None),
        ("not_reached", "never_asks", None),
        ("established", "untested", "untested"),
        ("unknown", "untested", None),
    ],
)
def test_what_one_session_shows(
    make_diary: MakeDiary, outcome: str, in_clear: str, without_mail: str | None
) -> None:
    needs = make_diary().tell(f"0s 192.0.2.1 {outcome} a>b:250").tell("tick 3d").needs
    assert list(needs) == [in_clear]
    needs = make_diary().tell(f"0s 192.0.2.1 {outcome}").tell("tick 3d").needs
    assert list(needs) == ([without_mail] if without_mail else [])  # of the rest nothing is known, so no peer


def test_a_refusal_whose_session_was_not_seen_to_its_end_shows_nothing(diary: Diary) -> None:
    assert not diary.tell("0s 192.0.2.1 refused open").tell("tick 3d").needs


@pytest.mark.parametrize("outcome", WITHOUT_TLS)
@pytest.mark.parametrize(
    ("later", "need"),
    [
        ("1m 192.0.2.1 unused a>b:250", "falls_back"),
        ("1m 192.0.2.1 not_reached a>b:250", "falls_back"),
        ("1m 192.0.2.1 unknown a>b:250 lost", "falls_back"),
        ("1m 192.0.2.1 established a>b:250", "falls_back"),
        ("1m 192.0.2.1 established", "requires"),  # it waited for its TLS
        ("1m 192.0.2.1 unused", "requires"),
        ("1m 192.0.2.2 unused a>b:250 outbound", "requires"),
        ("1m 192.0.2.1 unknown lost", "untested"),
        ("1m 192.0.2.1 unused open", "untested"),
    ],
)
def test_who_went_away_requires_tls_unless_it_comes_back_in_clear(
    diary: Diary, outcome: str, later: str, need: str
) -> None:
    diary.tell(f"0s 192.0.2.1 {outcome}")
    assert list(diary.needs) == ["untested"]
    assert list(diary.tell(later).tell("tick 3d").needs) == [need]


@pytest.mark.parametrize(
    ("later", "need"),
    [
        ("1d-2d1s 192.0.2.1 unused a>b:250", "falls_back"),
        ("1d-2d1s 192.0.2.1 unknown lost", "untested"),
        ("1d-2d1s1us 192.0.2.1 unknown lost", "requires"),
        ("tick 2d1h1s", "untested"),
        ("tick 2d1h1s1us", "requires"),
    ],
)
def test_the_window_ends_after_two_days_and_a_late_record(diary: Diary, later: str, need: str) -> None:
    assert list(diary.tell("0s 192.0.2.1 refused").tell(later).needs) == [need]


def test_a_further_refusal_does_not_begin_the_window_anew(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 refused").tell("2d 192.0.2.1 refused").tell("tick 2d2h")
    assert list(diary.needs) == ["requires"]


def test_the_last_that_was_seen_wins(diary: Diary) -> None:
    for lines, need in (
        ("0s 192.0.2.1 unused a>b:250", "never_asks"),
        ("1m 192.0.2.1 refused a>b:250", "falls_back"),
        ("2m 192.0.2.1 refused", "falls_back"),
        ("tick 3d", "requires"),
        ("4d 192.0.2.1 refused a>b:250", "falls_back"),
        ("5d 192.0.2.1 refused", "falls_back"),
        ("tick 8d", "requires"),
        ("9d 192.0.2.1 established", "requires"),
        ("10d 192.0.2.1 unused a>b:250", "falls_back"),  # it was without TLS before, and sends in clear now
    ):
        assert list(diary.tell(lines).needs) == [need]


def test_who_falls_back_by_sessions_that_do_not_ask_still_falls_back(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 failed").tell("2s 192.0.2.1 unused a>b:250").tell("2s 192.0.2.1 unused c>d:250")
    assert list(diary.needs) == ["falls_back"]


def test_a_session_that_began_before_shows_only_what_it_shows_itself(diary: Diary) -> None:
    diary.tell("10s 192.0.2.1 refused").tell("5s-1m 192.0.2.1 unused a>b:250")
    assert list(diary.needs) == ["never_asks"]
    assert list(diary.tell("tick 3d").needs) == ["requires"]


@pytest.mark.parametrize(
    ("overtaking", "need"),
    [
        ("1m 192.0.2.1 unused a>b:250", "falls_back"),
        ("1m 192.0.2.1 unknown lost", "untested"),
        ("1m 192.0.2.1 established", "requires"),
    ],
)
def test_a_refusal_whose_record_was_overtaken(diary: Diary, overtaking: str, need: str) -> None:
    diary.tell(overtaking).tell("0s 192.0.2.1 refused").tell("3m 192.0.2.1 established").tell("tick 3d")
    assert list(diary.needs) == [need]


def test_hidden_sessions_follow_the_need_of_their_peer(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 established").tell("1s 192.0.2.1 established a>b:250")
    diary.tell("2s 192.0.2.2 established").tell("3s 192.0.2.3 unused a>b:250")
    assert diary.needs == {"untested": (2, 3), "never_asks": (1, 0)}
    diary.tell("1m 192.0.2.1 refused").tell("1m 192.0.2.2 refused a>b:250")
    assert diary.needs == {"untested": (1, 2), "falls_back": (1, 1), "never_asks": (1, 0)}
    diary.tell("tick 3d")
    assert diary.needs == {"requires": (1, 2), "falls_back": (1, 1), "never_asks": (1, 0)}


def test_only_starttls_counts_as_hidden_by_starttls(diary: Diary) -> None:
    diary.tell("0s 192.0.2.1 established").tell("1s 192.0.2.1 not_reached tls").tell(
        "2s 192.0.2.9 not_reached tls"
    )
    diary.tell("3s 192.0.2.1 failed").tell("4s 192.0.2.1 established lost")
    assert diary.needs == {"untested": (1, 1)}


def test_a_clock_that_is_set_back_forgets_who_went_away(diary: Diary) -> None:
    diary.tell("3h 192.0.2.1 refused").tell("tick 1h").tell("tick 9d")
    assert list(diary.needs) == ["untested"]


def test_who_was_not_seen_for_longest_makes_room_with_all_its_sessions(make_diary: MakeDiary) -> None:
    diary = make_diary(peers_limit=2)
    diary.tell("0s 192.0.2.1 established").tell("1s 192.0.2.2 established").tell("2s 192.0.2.2 refused")
    diary.tell("3s 192.0.2.1 refused a>b:250").tell("4s 192.0.2.1 established")
    assert diary.needs == {"untested": (1, 1), "falls_back": (1, 2)}
    diary.tell("5s 192.0.2.3 established")
    assert diary.needs == {"untested": (1, 1), "falls_back": (1, 2)}
    assert diary.peers.peers_forgotten == 1
    diary.tell("tick 3d")  # nobody is left who went away
    assert diary.needs == {"untested": (1, 1), "falls_back": (1, 2)}
    for number in range(20):
        diary.tell(f"4d 198.51.100.{number} established")
    assert diary.needs == {"untested": (2, 2)}
    assert diary.peers.peers_forgotten == 21
