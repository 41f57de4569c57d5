"""Which session a stream belongs to, and that nobody else ever gets it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.sessions.direction import OurAddresses
from monitor.sessions.record import Channel, Direction, SessionRecord, Tapped, TapResult
from monitor.sessions.site import Outside, Site
from monitor.sessions.table import SessionTable
from monitor.tapped.streams import SLACK_NS, Limits, TappedStreams
from probes.segment import Segment
from probes.tls_tap.event import Kind, TapEvent
from tests.monitor.tapped.inside import CAPTURES_WITH_TLS, Inside, sessions_inside
from tests.monitor.tapped.kernel import COOKIE, FLOW, SECOND_NS, START_NS, events_of
from tests.monitor.tapped.transcripts import GREETING, MESSAGE, QUIT
from tests.segments import PORTS, frozen_records, segments_of

SESSION = GREETING + MESSAGE + QUIT


@dataclass
class Tap:
    """The streams, and what they complain of."""

    limits: Limits | None = None
    mismatches: list[str] = field(default_factory=list)
    streams: TappedStreams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = TappedStreams(self.mismatches.append, self.limits)

    def see(self, events: Iterable[TapEvent]) -> "Tap":
        for event in events:
            self.streams.event(event)
        return self

    def ask(self, begin_seconds: float = 0, end_seconds: float = 60, **changes: object) -> Tapped | None:
        return self.streams.take(outside(begin_seconds, end_seconds, **changes))


def outside(begin_seconds: float = 0, end_seconds: float = 60, **changes: object) -> Outside:
    """A session that began and ended so long after START_NS."""
    facts: dict[str, object] = {
        "flow": FLOW,
        "community_id": "1:x",
        "direction": Direction.INBOUND,
        "first_at_ns": START_NS + int(begin_seconds * SECOND_NS),
        "last_at_ns": START_NS + int(end_seconds * SECOND_NS),
        "channel": Channel.STARTTLS,
        "established": True,
        "ruled_out": False,
        "whole": True,
        "encrypted_bytes": 9_000,
    }
    return Outside(**(facts | changes))  # type: ignore[arg-type]


def stream(transcript: str = SESSION, *, at_seconds: float = 1, cookie: int = COOKIE) -> list[TapEvent]:
    """Whose first event is so long after START_NS."""
    step_ns = 1_000
    at_ns = START_NS + int(at_seconds * SECOND_NS) - step_ns
    return events_of(transcript, at_ns=at_ns, step_ns=step_ns, cookie=cookie)


def result_of(tapped: Tapped | None) -> str | None:
    return None if tapped is None else tapped.result.value


def test_a_session_gets_the_stream_that_began_within_it_and_no_other_gets_it_again() -> None:
    tap = Tap().see(stream())
    tapped = tap.ask()
    assert tapped is not None
    assert tapped.result is TapResult.WHOLE
    assert [transaction.mail_from for transaction in tapped.transactions] == ["a@client.example"]
    assert len(tap.streams) == 0
    assert result_of(tap.ask()) == "missed"


def test_where_nothing_was_seen_an_encrypted_session_is_missed_and_another_has_nothing() -> None:
    tap = Tap().see(events_of(SESSION, flow=FLOW[::-1]))
    assert result_of(tap.ask()) == "missed"
    assert tap.ask(established=False) is None
    assert tap.ask(established=False, ruled_out=True) is None
    assert len(tap.streams) == 1


def test_a_later_stream_of_the_same_addresses_and_ports_stays_for_the_next_session() -> None:
    tap = Tap().see(stream(at_seconds=1)).see(stream(GREETING, at_seconds=61, cookie=8))
    first, second = tap.ask(0, 60), tap.ask(60.5, 100)
    assert first is not None
    assert second is not None
    assert (first.result, len(first.transactions)) == (TapResult.WHOLE, 1)
    assert (second.result, len(second.transactions)) == (TapResult.WHOLE, 0)


def test_an_earlier_stream_of_the_same_addresses_and_ports_is_no_later_sessions() -> None:
    tap = Tap().see(stream(at_seconds=1)).see(stream(GREETING, at_seconds=61, cookie=8))
    second = tap.ask(60.5, 100)
    assert second is not None
    assert (second.result, len(second.transactions)) == (TapResult.WHOLE, 0)
    assert len(tap.streams) == 0


SLACK_SECONDS = SLACK_NS / SECOND_NS


@pytest.mark.parametrize(
    ("at_seconds", "result", "left"),
    [
        (10 - 2 * SLACK_SECONDS, "missed", 0),
        (10 - SLACK_SECONDS / 2, "unsure", 0),
        (10, "whole", 0),
        (60, "whole", 0),
        (60 + SLACK_SECONDS / 2, "unsure", 1),
        (60 + 2 * SLACK_SECONDS, "missed", 1),
    ],
)
def test_what_began_near_a_session_may_be_anothers(at_seconds: float, result: str, left: int) -> None:
    tap = Tap().see(stream(at_seconds=at_seconds))
    tapped = tap.ask(10, 60)
    assert result_of(tapped) == result
    assert tapped is not None
    assert bool(tapped.transactions) is (result == "whole")
    assert len(tap.streams) == left


def test_of_two_streams_within_one_session_neither_is_listed() -> None:
    tap = Tap().see(stream(at_seconds=1)).see(stream(at_seconds=2, cookie=8))
    assert tap.ask() == Tapped(TapResult.UNSURE, (), ())
    assert len(tap.streams) == 0


def test_bytes_that_may_be_another_connections_are_not_listed() -> None:
    events = stream()
    for index in range(len(events)):
        doubted = [*events[:index], replace(events[index], is_unsure=True), *events[index + 1 :]]
        assert Tap().see(doubted).ask() == Tapped(TapResult.UNSURE, (), ())


def test_an_end_that_comes_after_the_session_had_its_stream_begins_no_other() -> None:
    *events, end = stream()
    tap = Tap().see(events)
    assert result_of(tap.ask()) == "whole"
    tap.see([end])
    assert len(tap.streams) == 0


@given(st.permutations(range(4)))
def test_streams_that_run_side_by_side_do_not_mix(order: list[int]) -> None:
    flows = [FLOW[:-1] + bytes((number,)) for number in range(4)]
    of_each = [
        events_of("\n".join([GREETING, *[MESSAGE] * number, QUIT]), flow=flow, cookie=number)
        for number, flow in enumerate(flows)
    ]
    tap = Tap()
    for index in range(max(map(len, of_each))):
        tap.see(of_each[number][index] for number in order if index < len(of_each[number]))
    for number in order:
        tapped = tap.ask(flow=flows[number])
        assert tapped is not None
        assert (tapped.result, len(tapped.transactions)) == (TapResult.WHOLE, number)


# ---------------------------------------------------------------------- bounds


def test_over_the_number_of_streams_the_one_that_was_silent_for_longest_goes() -> None:
    tap = Tap(Limits(streams=3))
    for cookie in range(5):
        tap.see(stream(cookie=cookie, at_seconds=cookie)[:3])
    assert len(tap.streams) == 3
    tap.see(stream(at_seconds=2, cookie=2)[3:4])
    tap.see(stream(cookie=9, at_seconds=9))
    assert result_of(tap.ask(1.5, 2.5)) == "partial"
    assert result_of(tap.ask(2.6, 3.5)) == "missed"


def test_over_the_memory_of_all_the_one_that_keeps_most_goes() -> None:
    limit = 100_000
    tap = Tap(Limits(kept_bytes=limit))
    small = stream(GREETING)
    tap.see(small[:-1])
    recipients = "C: MAIL FROM:<>\nS: 250 ok\n" + "C: RCPT TO:<b@example.test>\nS: 250 ok\n" * 200
    most = 0
    for cookie in range(100, 110):
        for event in events_of(recipients, flow=FLOW[::-1], cookie=cookie):
            tap.see([event])
            most = max(most, tap.streams.kept_bytes)
    assert limit // 2 < most <= limit
    assert result_of(tap.see(small[-1:]).ask()) == "whole"


def test_a_client_that_says_much_before_it_is_answered_is_within_the_bound() -> None:
    tap = Tap(Limits(kept_bytes=100_000))
    for number, kind in enumerate([Kind.BEGUN, Kind.REPLY, *[Kind.COMMANDS] * 500]):
        text = b"220" if kind is Kind.REPLY else b"MAIL FROM:<" + b"x" * 1_000 + b">\r\n"
        tap.see([TapEvent(START_NS + SECOND_NS, FLOW, COOKIE, number, kind, text=text)])
        assert tap.streams.kept_bytes <= 100_000
    assert result_of(tap.ask()) == "partial"


def test_nothing_is_kept_of_what_was_taken_or_forgotten() -> None:
    tap = Tap(Limits(streams=5))
    for cookie in range(20):
        tap.see(stream(cookie=cookie, at_seconds=cookie))
    while len(tap.streams):
        tap.ask(0, 100)
    assert tap.streams.kept_bytes == 0


def test_who_was_silent_for_too_long_is_forgotten() -> None:
    tap = Tap(Limits(idle_seconds=100)).see(stream(at_seconds=0)).see(stream(at_seconds=50, cookie=8))
    tap.streams.tick(START_NS + 120 * SECOND_NS)
    assert len(tap.streams) == 1
    tap.see(events_of("", flow=FLOW[::-1], at_ns=START_NS + 200 * SECOND_NS)[:1])
    assert len(tap.streams) == 1
    tap.streams.tick(START_NS)  # a clock that was set back forgets nothing
    assert len(tap.streams) == 1


# ---------------------------------------------------------------------- with the table


def watched(segments: Iterable[Segment], tap: Tap) -> list[SessionRecord]:
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, Site(OurAddresses(), tapped=tap.streams.take), records.append)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    return records


def test_sessions_of_a_capture_in_clear_have_nothing_inside() -> None:
    assert all(record.tapped is None for record in watched(segments_of("plain_single"), Tap()))


def test_without_a_tap_no_session_has_anything_inside() -> None:
    assert all(record.tapped is None for record in frozen_records(segments_of("starttls_tls13")))


@pytest.mark.parametrize("name", CAPTURES_WITH_TLS)
def test_captured_sessions_are_tied_to_what_their_clients_did_and_contradict_nothing(name: str) -> None:
    segments = segments_of(name)
    tap = Tap()
    inside: dict[tuple[str, int], list[Inside]] = {}
    for one in sessions_inside(name):
        inside.setdefault(one.client, []).append(one)
    told: dict[str, Inside] = {}
    for cookie, record in enumerate(frozen_records(segments)):
        ones = inside.get((record.client.ip, record.client.port), [])
        if ones and (record.starttls.requested or record.tls is not None):
            told[record.community_id + record.start] = one = ones.pop(0)
            tap.see(one.events(record, cookie))
    records = watched(segments, tap)
    assert tap.mismatches == []
    assert len(told) > 0
    for record in records:
        found = told.get(record.community_id + record.start)
        if found is None:
            continue
        assert record.tapped is not None
        if found.is_within_other_tls:
            assert record.tapped == Tapped(TapResult.PARTIAL)
            continue
        assert record.tapped.result is TapResult.WHOLE
        mails = [data for _, data in found.said if data.startswith(b"MAIL")]
        assert len(record.tapped.transactions) == len(mails)


def test_a_session_that_is_decrypted_on_another_s_machine_is_not_missed() -> None:
    tap = Tap()
    assert tap.ask(direction=Direction.OUTBOUND) is None
    assert tap.ask(direction=Direction.INTERNAL) is None
    assert tap.ask(direction=Direction.UNKNOWN) == Tapped(TapResult.MISSED)
    assert tap.ask() == Tapped(TapResult.MISSED)
