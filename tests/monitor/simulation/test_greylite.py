"""What greylite would have decided, session by session."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from monitor.sessions.record import (
    By,
    Direction,
    Endpoint,
    GreylisterReach,
    Reach,
    SessionRecord,
    Transaction,
)
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import Greylister
from tests.monitor.simulation.sessions import (
    ABORTED,
    ACCEPTED,
    DAY,
    DECIDED,
    HOUR,
    IMPLICIT_TLS,
    NO_ENVELOPE,
    REJECTED,
    STARTTLS,
    UNKNOWN,
    at_ns,
    decided,
    each_decision,
    ended,
    hidden,
    mail,
    much_later,
    reaches,
    session,
)

GREYLITE = Greylister.GREYLITE


@pytest.fixture
def greylite() -> Iterator[Simulation]:
    with closing(Simulation(["greylite"])) as simulation:
        yield simulation


def test_the_first_attempt_is_put_off_and_the_second_passes_however_soon(greylite: Simulation) -> None:
    assert each_decision(greylite, session(0, mail()), session(0.5, mail())) == [
        ["deferred"],
        ["passed_on_retry"],
    ]
    assert ended(greylite) == {"retried": 1}
    assert greylite.pending == {("greylite",): 0}
    assert greylite.known == {("greylite",): 1}


def test_another_sender_recipient_or_client_is_another_triplet(greylite: Simulation) -> None:
    records = (
        session(0, mail()),
        session(1, mail("other@client.example")),
        session(2, mail(to=[("other@example.test", 250)])),
        session(3, mail(), client="192.0.2.9"),
    )
    assert each_decision(greylite, *records) == [["deferred"]] * 4


def test_case_makes_another_triplet(greylite: Simulation) -> None:
    assert each_decision(greylite, session(0, mail("a@x.test")), session(1, mail("A@x.test"))) == [
        ["deferred"],
        ["deferred"],
    ]


def test_a_session_is_decided_once_at_its_first_recipient_that_is_not_refused(greylite: Simulation) -> None:
    refused = mail("z@client.example", [("no@example.test", 550), ("busy@example.test", 450)], REJECTED)
    taken = mail(to=[("no@example.test", 550), ("b@example.test", 250), ("c@example.test", 250)])
    assert each_decision(greylite, session(0, refused, taken, mail("late@client.example"))) == [["deferred"]]
    assert each_decision(greylite, session(1, mail())) == [["passed_on_retry"]]


def test_the_attempt_is_dated_by_the_answer_to_its_recipient(greylite: Simulation) -> None:
    """Eighteen hours from the answer; the session began 100 seconds before it."""
    assert each_decision(greylite, session(0, mail(after=100)), session(18 * HOUR + 100, mail())) == [
        ["deferred"],
        ["passed_on_retry"],
    ]


@pytest.mark.parametrize(
    ("seconds", "decision"), [(18 * HOUR, "passed_on_retry"), (18 * HOUR + 1, "deferred")]
)
def test_a_triplet_waits_eighteen_hours(greylite: Simulation, seconds: int, decision: str) -> None:
    assert each_decision(greylite, session(0, mail()), session(seconds, mail()))[1] == [decision]


@pytest.mark.parametrize(
    ("seconds", "decision"), [(480 * HOUR, "passed_known"), (480 * HOUR + 1, "deferred")]
)
def test_an_address_is_known_480_hours_from_its_last_use(
    greylite: Simulation, seconds: int, decision: str
) -> None:
    used = session(20 * DAY, client="192.0.2.1", greylisters=reaches(NO_ENVELOPE))
    again = session(20 * DAY + seconds, mail("new@client.example"))
    found = each_decision(greylite, session(0, mail()), session(1, mail()), used, again)
    assert found == [["deferred"], ["passed_on_retry"], ["passed_known"], [decision]]


@pytest.mark.parametrize(
    "reach",
    [
        DECIDED,
        STARTTLS,
        IMPLICIT_TLS,
        NO_ENVELOPE,
        GreylisterReach(Reach.STALLED),
        GreylisterReach(Reach.UNKNOWN),
    ],
    ids=lambda reach: f"{reach.reach.value}-{reach.by}",
)
def test_a_known_address_passes_unread_whatever_the_session_is(
    greylite: Simulation, reach: GreylisterReach
) -> None:
    each_decision(greylite, session(0, mail()), session(1, mail()))
    assert each_decision(greylite, session(2, mail("x@client.example"), greylisters=reaches(reach))) == [
        ["passed_known"]
    ]


def test_a_session_that_was_open_before_its_address_was_known_is_read(greylite: Simulation) -> None:
    """It looks at connect. The long session's record comes last, and begins first."""
    long = session(0, mail("long@client.example", after=60))
    found = each_decision(greylite, session(10, mail()), session(20, mail()), long)
    assert found == [["deferred"], ["passed_on_retry"], ["deferred"]]


@pytest.mark.parametrize(
    ("reach", "decision"),
    [
        (STARTTLS, "unread_tls"),
        (IMPLICIT_TLS, "unread_tls"),
        (GreylisterReach(Reach.BYPASSED, By.AUTH), "unread_other"),
        (GreylisterReach(Reach.BYPASSED, By.DATA), "unread_other"),
        (GreylisterReach(Reach.STALLED), "stalled"),
        (GreylisterReach(Reach.UNKNOWN), "unknown"),
        (GreylisterReach(Reach.UNKNOWN, By.STARTTLS), "unknown"),
        (GreylisterReach(Reach.UNKNOWN, By.IMPLICIT_TLS), "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.reach.value}-{value.by}",
)
def test_a_session_out_of_reach_is_counted_for_what_took_it_away(
    greylite: Simulation, reach: GreylisterReach, decision: str
) -> None:
    """And its triplets are not remembered: the second one is as unknown as the first."""
    record = session(0, mail(), greylisters=reaches(reach))
    assert each_decision(greylite, record, record) == [[decision], [decision]]
    assert greylite.pending == {("greylite",): 0}


def test_nothing_is_decided_in_a_session_without_an_envelope(greylite: Simulation) -> None:
    greylite.record(session(0, greylisters=reaches(NO_ENVELOPE)))
    assert decided(greylite) == {}


def test_outbound_sessions_pass_no_greylister(greylite: Simulation) -> None:
    greylite.record(session(0, mail(), direction=Direction.OUTBOUND))
    greylite.record(session(0, mail(), greylisters={}))
    assert decided(greylite) == {}


def test_the_client_is_the_one_that_the_proxy_names(greylite: Simulation) -> None:
    found = each_decision(
        greylite,
        session(0, mail(), client="192.0.2.200", proxied_client=Endpoint("192.0.2.1", 1)),
        session(1, mail(), client="192.0.2.200"),
        session(2, mail(), client="192.0.2.1"),
    )
    assert found == [["deferred"], ["deferred"], ["passed_on_retry"]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("müller@x.test", "ller@x.test"),  # what it can't read is left out
        ("m\\xfcller@x.test", "ller@x.test"),  # a byte that is not UTF-8, as records show it
        ('"a@b"@c.test', "a@b"),
        ("a@x.test", "a@x.test"),
    ],
)
def test_addresses_are_taken_as_greylite_reads_them(greylite: Simulation, first: str, second: str) -> None:
    assert each_decision(greylite, session(0, mail(first)), session(1, mail(second))) == [
        ["deferred"],
        ["passed_on_retry"],
    ]


def test_a_parameter_may_look_like_the_sender_to_it(greylite: Simulation) -> None:
    found = each_decision(
        greylite,
        session(0, mail("", mail_params={"ENVID": "id1@p.test"})),
        session(1, mail("")),
        session(2, mail("", mail_params={"SIZE": "1", "ENVID": "id1@p.test"})),
    )
    assert found == [["deferred"], ["deferred"], ["passed_on_retry"]]


def test_a_refused_mail_leaves_no_sender(greylite: Simulation) -> None:
    assert each_decision(greylite, session(0, mail(mail_code=550)), session(1, mail(""))) == [
        ["deferred"],
        ["passed_on_retry"],
    ]


@pytest.mark.parametrize(
    "lost",
    [mail(None), mail(to=[(None, 250)]), mail(to=[])],
    ids=["sender", "recipient", "no recipient in the record"],
)
def test_what_was_not_captured_is_unknown(greylite: Simulation, lost: Transaction) -> None:
    assert each_decision(greylite, session(0, lost)) == [["unknown"]]


# ---------------------------------------------------------------------- what became of them


@pytest.mark.parametrize(
    ("attempt", "fate"),
    [
        (mail(outcome=ABORTED), "never_retried"),
        (mail(outcome=REJECTED, data_code=451), "never_retried"),
        (mail(outcome=REJECTED, data_code=554), "refused_meanwhile"),
        (mail(outcome=REJECTED), "unknown"),
        (mail(outcome=UNKNOWN), "unknown"),
        (mail(outcome=ACCEPTED, data_code=250), "accepted_meanwhile"),
    ],
    ids=["aborted", "451 to the message", "554 to the message", "DATA refused", "unknown", "accepted"],
)
def test_what_never_comes_again_is_told_by_what_the_server_made_of_it(
    greylite: Simulation, attempt: Transaction, fate: str
) -> None:
    greylite.record(session(0, attempt))
    greylite.tick(at_ns(18 * HOUR + HOUR))
    assert ended(greylite) == {}, "records may still come late"
    greylite.tick(at_ns(18 * HOUR + HOUR + 1))
    assert ended(greylite) == {fate: 1}
    assert greylite.pending == {("greylite",): 0}


def test_coming_too_late_is_the_end_of_one_triplet_and_the_beginning_of_another(greylite: Simulation) -> None:
    greylite.record(session(0, mail()))
    greylite.record(session(18 * HOUR + 1, mail()))
    assert decided(greylite) == {"deferred": 2}
    assert ended(greylite) == {"never_retried": 1}
    assert greylite.pending == {("greylite",): 1}


def test_one_that_passes_releases_the_others_of_its_address_and_of_no_other(greylite: Simulation) -> None:
    for number in range(3):
        greylite.record(session(number, mail(f"{number}@client.example")))
    greylite.record(session(3, mail(), client="192.0.2.9"))
    greylite.record(session(4, mail("1@client.example")))
    assert ended(greylite) == {"retried": 1, "released": 2}
    assert greylite.pending == {("greylite",): 1}


@pytest.mark.parametrize(
    ("between", "fate"),
    [
        (hidden(60), "unknown"),
        (hidden(60, by=GreylisterReach(Reach.UNKNOWN)), "unknown"),
        (hidden(60, client="192.0.2.9"), "never_retried"),
        (session(60, greylisters=reaches(NO_ENVELOPE)), "never_retried"),
    ],
    ids=["TLS", "unknown", "TLS of another client", "nothing to hide"],
)
def test_nobody_is_said_never_to_have_retried_who_came_again_unseen(
    greylite: Simulation, between: SessionRecord, fate: str
) -> None:
    greylite.record(session(0, mail()))
    greylite.record(between)
    much_later(greylite, 20 * HOUR)
    assert ended(greylite) == {fate: 1}


# ---------------------------------------------------------------------- delays


def test_the_delay_runs_from_the_first_answer_to_the_one_that_passes(greylite: Simulation) -> None:
    greylite.record(session(0, mail(after=0.25)))
    greylite.record(session(410, mail(after=0.75)))
    delays = greylite.retry_delays[GREYLITE,]
    assert (delays.count, delays.sum_seconds) == (1, 410.5)
    assert delays.buckets.index(1) == 5  # above 400 s, up to 900 s


def test_a_second_mail_is_no_retry_of_one_that_was_accepted(greylite: Simulation) -> None:
    greylite.record(session(0, mail(outcome=ACCEPTED, data_code=250)))
    greylite.record(session(2 * HOUR, mail()))
    assert decided(greylite) == {"deferred": 1, "passed_on_retry": 1}
    assert greylite.retry_delays[GREYLITE,].count == 0


def test_records_in_the_wrong_order_give_no_negative_delay(greylite: Simulation) -> None:
    found = each_decision(greylite, session(100, mail()), session(40, mail()))
    assert found == [["deferred"], ["passed_on_retry"]]
    delays = greylite.retry_delays[GREYLITE,]
    assert (delays.buckets[0], delays.sum_seconds) == (1, 0.0)
