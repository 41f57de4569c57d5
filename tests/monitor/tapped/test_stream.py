"""What one connection carried inside TLS: the same as its words would have shown in clear."""

from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.sessions.ledger import LISTED_ITEMS_LIMIT
from monitor.sessions.record import Auth, Tapped, TapResult, TransactionOutcome
from monitor.smtp.dialogue import HELD_LIMIT_BYTES
from monitor.tapped.stream import TappedStream
from probes.tls_tap.event import Kind, TapEvent
from tests.monitor.tapped.clear import CAPTURES_IN_CLEAR, lists_of, record_in_clear, sessions_in_clear
from tests.monitor.tapped.kernel import (
    COOKIE,
    FLOW,
    SECOND_NS,
    START_NS,
    Kernel,
    bytewise,
    events_of,
    halves,
    pieces,
    spoken,
    whole,
)
from tests.monitor.tapped.transcripts import (
    CANCELLED,
    CHUNKS,
    EMPTY_MESSAGE,
    GREETING,
    LOGIN,
    MESSAGE,
    ONE_EMPTY_LINE,
    PLAIN,
    QUIT,
    REFUSED,
    SESSIONS,
)
from tests.wrong import wrong_lists


def stream_of(events: Iterable[TapEvent]) -> TappedStream:
    stream: TappedStream | None = None
    for event in events:
        stream = stream or TappedStream(event)
        stream.event(event)
    assert stream is not None
    return stream


def tapped(events: Iterable[TapEvent]) -> Tapped:
    return stream_of(events).close(START_NS)


@pytest.mark.parametrize("name", SESSIONS)
def test_inside_is_seen_what_would_be_seen_in_clear(name: str) -> None:
    found = tapped(events_of(SESSIONS[name]))
    assert found.result is TapResult.WHOLE
    assert lists_of(found) == lists_of(record_in_clear(spoken(SESSIONS[name])))


@pytest.mark.parametrize("name", SESSIONS)
def test_whether_the_server_greets_inside_changes_nothing(name: str) -> None:
    said = spoken("S: 220-mx.example\nS: 220 mx.example\n" + SESSIONS[name])
    stream = stream_of(Kernel().begin().say(said).end().events)
    found = stream.close(START_NS)
    assert stream.greeted
    assert found.result is TapResult.WHOLE
    assert lists_of(found) == lists_of(record_in_clear(said, with_banner=False))


@given(st.sampled_from(sorted(SESSIONS)), st.booleans(), st.randoms(use_true_random=False))
def test_any_split_gives_the_same(name: str, greets: bool, random: Random) -> None:
    said = spoken(("S: 220 mx.example\n" if greets else "") + SESSIONS[name])
    cut = tapped(Kernel(cut=pieces(random)).begin().say(said).end().events)
    bytes_alone = tapped(Kernel(cut=bytewise).begin().say(said).end().events)
    together = tapped(Kernel().begin().say(said).end().events)
    assert cut.result is bytes_alone.result is together.result
    assert lists_of(cut) == lists_of(bytes_alone) == lists_of(together)


@pytest.mark.parametrize(
    ("exchange", "mechanism", "code"),
    [
        (PLAIN, "PLAIN", 235),
        (LOGIN, "LOGIN", 235),
        (CANCELLED, "CRAM-MD5", 501),
        (REFUSED, "LOGIN", 535),
    ],
)
def test_an_auth_has_its_last_reply_and_the_mail_behind_it_is_read(
    exchange: str, mechanism: str, code: int
) -> None:
    found = tapped(events_of(GREETING + exchange + MESSAGE + QUIT))
    assert found.auth == (Auth(mechanism, code),)
    assert [transaction.outcome for transaction in found.transactions] == [TransactionOutcome.ACCEPTED]


@pytest.mark.parametrize(
    ("transcript", "length"),
    [(MESSAGE, 34), (EMPTY_MESSAGE, 3), (ONE_EMPTY_LINE, 5), (CHUNKS, 20)],
)
def test_the_size_of_a_message_is_exact(transcript: str, length: int) -> None:
    (transaction,) = tapped(events_of(GREETING + transcript)).transactions
    assert transaction.data is not None
    assert transaction.data.wire_bytes == length


def test_no_secret_and_no_body_is_anywhere_in_what_a_stream_keeps() -> None:
    for transcript in SESSIONS.values():
        assert b"s3cret" not in msgspec.json.encode(tapped(events_of(transcript, cut=halves)))


def test_times_count_from_the_sessions_first_packet() -> None:
    events = events_of(GREETING + MESSAGE)
    (transaction,) = stream_of(events).close(START_NS - 2 * SECOND_NS).transactions
    replies = [event for event in events if event.kind is Kind.REPLY]
    assert transaction.recipients[0].after_seconds == 2 + (replies[2].at_ns - START_NS) / SECOND_NS


@pytest.mark.parametrize(
    "ending",
    [
        "C: MAIL FROM:<a@client.example>",
        "C: MAIL FROM:<a@client.example>\nS: 250 ok\nC: RCPT TO:<b@example.test>\nS: 250 ok",
        MESSAGE.partition("    C: .\n")[0],
        MESSAGE.partition("    S: 250 queued\n")[0],
        "C: BDAT 100",
    ],
)
def test_what_the_client_left_unfinished_was_aborted(ending: str) -> None:
    said = spoken(GREETING + ending)
    found, clear = tapped(events_of(GREETING + ending)), record_in_clear(said)
    for transaction in clear["transactions"]:
        if transaction["data"] is not None and b"\r\n.\r\n" not in b"".join(data for _, data in said):
            transaction["data"]["wire_bytes"] = None  # how much of it came is told only at its end
    assert found.result is TapResult.WHOLE
    assert lists_of(found) == lists_of(clear)


UNFINISHED = GREETING + MESSAGE + "C: MAIL FROM:<a@client.example>\nS: 250 ok"


def test_a_stream_that_the_server_never_freed_is_whole_only_after_a_quit() -> None:
    def without_end(transcript: str) -> Tapped:
        return tapped(events_of(transcript)[:-1])

    assert without_end(GREETING + MESSAGE + QUIT).result is TapResult.WHOLE
    cut_short = without_end(UNFINISHED)
    assert cut_short.result is TapResult.PARTIAL
    assert [transaction.outcome for transaction in cut_short.transactions] == ["accepted", "unknown"]


def test_or_when_it_found_that_the_client_has_gone() -> None:
    for after in (Kernel.close, lambda kernel: kernel.close().say(spoken("S: 421 gone")).close().end()):
        found = tapped(after(Kernel().begin().say(spoken(UNFINISHED))).events)
        assert found.result is TapResult.WHOLE
        assert [transaction.outcome for transaction in found.transactions] == ["accepted", "aborted"]


def test_who_says_more_had_not_gone() -> None:
    said = spoken("C: RCPT TO:<b@example.test>\nS: 250 ok")
    goes_on = Kernel().begin().say(spoken(UNFINISHED)).close().say(said)
    found = tapped(goes_on.events)
    assert found.result is TapResult.PARTIAL
    assert [transaction.outcome for transaction in found.transactions] == ["accepted", "unknown"]
    assert tapped(goes_on.close().events).result is TapResult.WHOLE


def test_a_stream_joined_on_its_way_lists_what_came_after_the_next_reply() -> None:
    events = [
        event for event in events_of(GREETING + MESSAGE + MESSAGE + QUIT) if event.kind is not Kind.BEGUN
    ]
    for joined_at in range(len(events)):
        found = tapped(events[joined_at:])
        assert found.result is TapResult.PARTIAL
        if joined_at < len(events) // 2:
            assert [transaction.outcome for transaction in found.transactions][-1:] == ["accepted"]


@pytest.mark.parametrize(
    ("transcript", "greeted"),
    [
        ("S: 220 mx.example\nC: EHLO a\nS: 250 ok", True),
        ("S: 421 too busy", None),  # or after STARTTLS, a time-out
        ("S: 554 go away", None),
        ("C: EHLO a\nS: 250 ok", False),
        ("C: EHLO a\nS: 220 mx.example\nS: 250 ok", True),
        ("C: EHLO a\nS: 554 you did not wait", None),
        ("C: MAIL FROM:<a@b>\nS: 250 ok", False),
        ("C: XCLIENT NAME=a\nS: 220 mx.example", None),
        ("C: STARTTLS\nS: 220 mx.example", None),
        ("", None),
        ("C: EHLO a", None),
    ],
)
def test_whether_the_server_greeted_inside_tls(transcript: str, greeted: bool | None) -> None:
    for cut in (whole, bytewise):
        assert stream_of(events_of(transcript, cut=cut)).greeted is greeted


def test_a_client_that_speaks_before_the_greeting_is_answered_by_what_follows_that() -> None:
    said = spoken("C: MAIL FROM:<a@client.example>\nS: 220 mx.example\nS: 503 EHLO first")
    (transaction,) = tapped(Kernel().begin().say(said).end().events).transactions
    assert transaction.mail_code == 503


def test_a_first_refusal_that_may_stand_for_a_greeting_answers_nothing() -> None:
    found = tapped(events_of("C: MAIL FROM:<a@client.example>\nS: 554 you did not wait"))
    assert found.result is TapResult.PARTIAL
    assert all(transaction.mail_code is None for transaction in found.transactions)


# Where the LHLO was lost nobody knows, in clear or inside, that a second reply may follow.
WITH_HOLES = sorted(SESSIONS.keys() - {"lmtp"})


@pytest.mark.parametrize("name", WITH_HOLES)
@pytest.mark.parametrize("greets", [False, True])
def test_no_hole_makes_anything_definite_and_wrong(name: str, greets: bool) -> None:
    said = spoken(("S: 220 mx.example\n" if greets else "") + SESSIONS[name])
    for cut in (whole, halves, bytewise):
        events = Kernel(cut=cut).begin().say(said).close().end().events
        truth = lists_of(tapped(events))
        for first in range(len(events)):
            for length in (1, 2, 3, 5, 8, 13):
                left = events[:first] + events[first + length :]
                if not left or first + length > len(events):
                    continue
                found = tapped(left)
                reaches_the_end = first + length == len(events)
                ended_by_quit = not reaches_the_end or length <= 2
                if not (ended_by_quit and found.result is TapResult.WHOLE):
                    assert found.result is TapResult.PARTIAL, (first, length)
                assert not wrong_lists(lists_of(found), truth), (cut, first, length)


@given(st.sampled_from(WITH_HOLES), st.sampled_from(WITH_HOLES), st.data())
def test_no_number_of_holes_makes_anything_definite_and_wrong(
    name: str, other: str, data: st.DataObject
) -> None:
    said = spoken(SESSIONS[name] + SESSIONS[other])
    random = data.draw(st.randoms(use_true_random=False))
    events = Kernel(cut=pieces(random)).begin().say(said).close().end().events
    truth = lists_of(tapped(events))
    left = [event for event in events if random.random() < 0.9] or events[:1]
    assert not wrong_lists(lists_of(tapped(left)), truth)


@given(st.sampled_from(WITH_HOLES), st.data())
def test_what_the_tap_could_not_tell_makes_nothing_definite_and_wrong(name: str, data: st.DataObject) -> None:
    random = data.draw(st.randoms(use_true_random=False))
    events = Kernel(cut=pieces(random)).begin().say(spoken(SESSIONS[name] + MESSAGE)).end().events
    truth = lists_of(tapped(events))
    seen = [
        replace(event, kind=Kind.LOST, text=b"", length=event.length or len(event.text))
        if event.kind in (Kind.COMMANDS, Kind.MESSAGE, Kind.CHUNK) and random.random() < 0.1
        else event
        for event in events
    ]
    found = tapped(seen)
    assert found.result is (TapResult.WHOLE if seen == events else TapResult.PARTIAL)
    assert not wrong_lists(lists_of(found), truth)


def test_after_a_hole_the_next_mail_is_read_again() -> None:
    events = events_of(GREETING + MESSAGE * 6 + QUIT)
    for first in range(1, len(events) // 2):
        found = tapped(events[:first] + events[first + 3 :])
        assert [transaction.outcome for transaction in found.transactions][-2:] == ["accepted"] * 2


@pytest.mark.parametrize("refused", ["C: DATA\nS: 554 no", "C: AUTH PLAIN s3cret\nS: 535 no"])
def test_after_a_hole_what_is_refused_does_not_end_what_can_be_read(refused: str) -> None:
    events = events_of(GREETING + MESSAGE + "C: NOOP\nS: 250 ok\n" + refused + 3 * MESSAGE + QUIT)
    hole = next(index for index, event in enumerate(events) if event.kind is Kind.MESSAGE)
    found = tapped(events[:hole] + events[hole + 1 :])
    assert [transaction.outcome for transaction in found.transactions][-2:] == ["accepted"] * 2


@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_a_message_that_is_too_short_for_its_end_is_a_loss(length: int) -> None:
    events = [
        replace(event, length=length) if event.kind is Kind.MESSAGE else event
        for event in events_of(GREETING + MESSAGE + QUIT)
    ]
    assert tapped(events).result is TapResult.PARTIAL


@pytest.mark.parametrize("length", [1, 11, 13, 1 << 40])
def test_a_chunk_of_another_size_than_was_announced_is_a_loss(length: int) -> None:
    events = [
        replace(event, length=length) if event.length == 12 else event
        for event in events_of(GREETING + CHUNKS + QUIT)
    ]
    found = tapped(events)
    assert found.result is TapResult.PARTIAL
    assert all(
        transaction.data is None or transaction.data.wire_bytes is None for transaction in found.transactions
    )


@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.CHUNK])
def test_a_body_that_nobody_announced_is_a_loss(kind: Kind) -> None:
    events = events_of(GREETING + MESSAGE + QUIT)
    for at in range(1, len(events) - 1):
        if events[at - 1].kind is Kind.REPLY and events[at].kind is not Kind.MESSAGE:
            stray = TapEvent(START_NS, FLOW, COOKIE, at, kind, length=100)
            behind = [replace(event, number=event.number + 1) for event in events[at:]]
            assert tapped([*events[:at], stray, *behind]).result is TapResult.PARTIAL


def test_more_than_a_record_lists_is_left_out_and_the_result_is_partial() -> None:
    recipients = "C: RCPT TO:<b@example.test>\nS: 250 ok\n" * (LISTED_ITEMS_LIMIT + 10)
    found = tapped(events_of(GREETING + "C: MAIL FROM:<>\nS: 250 ok\n" + recipients + QUIT))
    assert found.result is TapResult.PARTIAL
    assert len(found.transactions[0].recipients) == LISTED_ITEMS_LIMIT - 1


def test_a_client_that_never_ends_its_first_line_is_not_waited_for() -> None:
    stream = stream_of(Kernel().begin().events)
    for number in range(1, 400):
        stream.event(TapEvent(START_NS, FLOW, COOKIE, number, Kind.COMMANDS, text=b"EHLO" + b"x" * 1_000))
        assert stream.kept_bytes <= 2 * HELD_LIMIT_BYTES
    assert stream.close(START_NS).result is TapResult.PARTIAL


def test_tls_within_tls_and_a_connection_turned_round_are_not_followed() -> None:
    for transcript in ("C: STARTTLS\nS: 220 go ahead", "C: ETRN a\nS: 250 ok\nC: TURN\nS: 250 ok"):
        stream = stream_of(events_of(GREETING + MESSAGE + transcript.replace("TURN\n", "TURN\n") + MESSAGE))
        found = stream.close(START_NS)
        assert [transaction.outcome for transaction in found.transactions][:1] == ["accepted"]


class TestCaptured:
    """Real sessions in clear, as if they had been inside TLS."""

    @pytest.mark.parametrize("name", CAPTURES_IN_CLEAR)
    def test_inside_is_seen_what_the_record_of_the_capture_says(self, name: str) -> None:
        are_whole = []
        for said, record in sessions_in_clear(name):
            found = tapped(Kernel(cut=halves).begin().say(said).end().events)
            are_whole.append(found.result is TapResult.WHOLE)
            # Who sends a message before it was asked for can't be followed inside.
            assert are_whole[-1] or "unauthorized_pipelining" in record["anomalies"]
            if are_whole[-1]:
                assert lists_of(found) == lists_of(record)
            assert not wrong_lists(lists_of(found), lists_of(record))
        assert any(are_whole)
