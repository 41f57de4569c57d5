"""What postgrey would have decided, recipient by recipient."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from monitor.sessions.record import Auth, Direction, Envelope, GreylisterReach, Reach, Transaction
from monitor.simulation.postgrey import network_of, substituted
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import Greylister
from tests.monitor.simulation.sessions import (
    ACCEPTED,
    DAY,
    HOUR,
    MINUTE,
    NO_ENVELOPE,
    REJECTED,
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

POSTGREY = Greylister.POSTGREY

DELAY = 300


@pytest.fixture
def postgrey() -> Iterator[Simulation]:
    with closing(Simulation(["postgrey"])) as simulation:
        yield simulation


@pytest.mark.parametrize(("seconds", "decision"), [(DELAY - 1, "deferred"), (DELAY, "passed_on_retry")])
def test_a_triplet_passes_after_the_delay(postgrey: Simulation, seconds: int, decision: str) -> None:
    assert each_decision(postgrey, session(0, mail()), session(seconds, mail())) == [["deferred"], [decision]]


def test_it_reads_whole_seconds_from_its_clock(postgrey: Simulation) -> None:
    """299.1 seconds later the clock shows 300 more."""
    assert each_decision(postgrey, session(0.9, mail()), session(300.0, mail()))[1] == ["passed_on_retry"]


def test_coming_too_soon_does_not_begin_the_delay_anew(postgrey: Simulation) -> None:
    records = (session(0, mail()), session(299, mail()), session(300, mail()), session(301, mail()))
    assert each_decision(postgrey, *records) == [
        ["deferred"],
        ["deferred"],
        ["passed_on_retry"],
        ["passed_known"],
    ]
    assert ended(postgrey) == {"retried": 1}


def test_the_delay_can_be_chosen() -> None:
    with closing(Simulation(["postgrey"], postgrey_delay_seconds=3)) as postgrey:
        assert each_decision(postgrey, session(0, mail()), session(2, mail()), session(3, mail())) == [
            ["deferred"],
            ["deferred"],
            ["passed_on_retry"],
        ]


@pytest.mark.parametrize(("seconds", "decision"), [(2 * DAY, "passed_on_retry"), (2 * DAY + 1, "deferred")])
def test_a_triplet_waits_two_days(postgrey: Simulation, seconds: int, decision: str) -> None:
    """From its first attempt: the one in between does not make it longer."""
    records = (session(0, mail()), session(100, mail()), session(seconds, mail()))
    assert each_decision(postgrey, *records)[2] == [decision]


@pytest.mark.parametrize(("seconds", "decision"), [(35 * DAY, "passed_known"), (35 * DAY + 1, "deferred")])
def test_a_triplet_that_passed_is_known_35_days_from_its_last_use(
    postgrey: Simulation, seconds: int, decision: str
) -> None:
    records = (session(0, mail()), session(DELAY, mail()), session(30 * DAY, mail()))
    each_decision(postgrey, *records)
    assert each_decision(postgrey, session(30 * DAY + seconds, mail())) == [[decision]]


def test_every_recipient_is_asked_for(postgrey: Simulation) -> None:
    first = mail(to=[("b@example.test", 250), ("c@example.test", 450)])
    later = mail(to=[("b@example.test", 250), ("c@example.test", 250), ("d@example.test", 250)])
    assert each_decision(postgrey, session(0, first), session(DELAY, later)) == [
        ["deferred"] * 2,
        ["deferred"] + ["passed_on_retry"] * 2,
    ]


@pytest.mark.parametrize(
    ("code", "decisions"),
    [
        (250, ["deferred"]),
        (251, ["deferred"]),
        (450, ["deferred"]),
        (451, ["deferred"]),
        (452, ["deferred"]),
        (421, []),
        (550, []),
        (503, []),
        (None, ["unknown"]),
        (354, ["unknown"]),
    ],
)
def test_it_is_asked_where_nothing_before_it_refused(
    postgrey: Simulation, code: int | None, decisions: list[str]
) -> None:
    assert each_decision(postgrey, session(0, mail(to=[("b@example.test", code)]))) == [decisions]


def test_the_network_counts_and_not_the_address(postgrey: Simulation) -> None:
    found = each_decision(
        postgrey,
        session(0, mail(), client="192.0.2.1"),
        session(DELAY, mail(), client="192.0.2.254"),
        session(2 * DELAY, mail(), client="192.0.3.1"),
        session(3 * DELAY, mail(), client="2001:db8:0:1::1"),
        session(4 * DELAY, mail(), client="2001:db8:0:1:ffff::1"),
        session(5 * DELAY, mail(), client="2001:db8:0:2::1"),
    )
    assert [decision for (decision,) in found] == [
        "deferred",
        "passed_on_retry",
        "deferred",
        "deferred",
        "passed_on_retry",
        "deferred",
    ]


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.129", b"192.0.2.0"),
        ("::ffff:192.0.2.129", b"192.0.2.0"),
        ("2001:db8:1:2:3:4:5:6", b"2001:db8:1:2::"),
    ],
)
def test_networks_of_clients(client: str, network: bytes) -> None:
    assert network_of(client) == network


@pytest.mark.parametrize(
    ("sender", "key"),
    [
        (b"", b""),
        (b"postmaster", b"postmaster"),
        (b"a@x.test", b"a@x.test"),
        (b"a+tag-1@x.test", b"a@x.test"),
        (b"list-12345-7@x.test", b"list-#-#@x.test"),
        (b"list12-345@x.test", b"list12-#@x.test"),  # digits count only between word boundaries
        (b"a_12@x.test", b"a_12@x.test"),
        ("ü12@x.test".encode(), "ü#@x.test".encode()),  # a byte beyond ASCII is no part of a word to it
        (b"a@12.test", b"a@12.test"),  # only before the @
        (b"a@b+c@d", b"a@b+c@d"),  # the first @ parts
        (b"prvs=0123456789=joe@x.test", b"joe@x.test"),
        (b"prvs=joe=0123456789@x.test", b"joe@x.test"),
        (b"prvs=0123456789abc=abcdefghij@x.test", b"abcdefghij@x.test"),  # two tags: the standard's order
        (b"prvs=tag=joe@x.test", b"joe@x.test"),  # none: the same
        (b"prvs=0123456789=joe=@x.test", b"joe@x.test"),  # Perl's split drops what is empty at the end
        (b"prvs=0123456789=a=b@x.test", b"prvs=#=a=b@x.test"),
        (b"prvs=joe@x.test", b"prvs=joe@x.test"),
        (b"PRVS=0123456789=joe@x.test", b"PRVS=#=joe@x.test"),
    ],
)
def test_senders_lose_what_changes_from_mail_to_mail(sender: bytes, key: bytes) -> None:
    """The right-hand side is what postgrey 1.37's own `do_sender_substitutions` answers."""
    assert substituted(sender) == key


def test_case_is_ignored(postgrey: Simulation) -> None:
    other = mail("A@CLIENT.example", [("B@Example.TEST", 250)])
    assert each_decision(postgrey, session(0, mail()), session(DELAY, other))[1] == ["passed_on_retry"]


@pytest.mark.parametrize("address", ["postmaster@example.test", "Abuse@example.test", "abuse+x@example.test"])
def test_postmaster_and_abuse_are_never_put_off(postgrey: Simulation, address: str) -> None:
    assert each_decision(postgrey, session(0, mail(to=[(address, 250)]))) == [["passed_known"]]
    assert postgrey.pending == {("postgrey",): 0}


@pytest.mark.parametrize("address", ["postmaster", "abuse.me@example.test", "my-abuse@example.test"])
def test_what_only_looks_like_them_is_put_off(postgrey: Simulation, address: str) -> None:
    assert each_decision(postgrey, session(0, mail(to=[(address, 250)]))) == [["deferred"]]


# ---------------------------------------------------------------------- known clients


def make_known(postgrey: Simulation, pause: int = HOUR, times: int = 5, client: str = "192.0.2.1") -> float:
    """Triplets that pass one after another, `pause` seconds apart. When the last passed."""
    for number in range(times):
        triplet = mail(f"{chr(97 + number)}@client.example")
        postgrey.record(session(number * pause, triplet, client=client))
        postgrey.record(session(number * pause + DELAY, triplet, client=client))
    return (times - 1) * pause + DELAY


def test_a_client_is_known_after_five_triplets_that_passed(postgrey: Simulation) -> None:
    make_known(postgrey, times=4)
    assert each_decision(postgrey, session(10 * HOUR, mail("new@client.example"))) == [["deferred"]]
    assert each_decision(postgrey, session(11 * HOUR, mail("new@client.example"))) == [["passed_on_retry"]]
    assert each_decision(postgrey, session(12 * HOUR, mail("newer@client.example"))) == [["passed_known"]]


@pytest.mark.parametrize(("pause", "decision"), [(HOUR, "passed_known"), (HOUR - 1, "deferred")])
def test_only_one_triplet_an_hour_counts_for_that(postgrey: Simulation, pause: int, decision: str) -> None:
    end = make_known(postgrey, pause)
    assert each_decision(postgrey, session(end + 1, mail("new@client.example"))) == [[decision]]


def test_that_goes_by_the_address_and_not_by_the_network(postgrey: Simulation) -> None:
    end = make_known(postgrey)
    assert each_decision(postgrey, session(end + 1, mail("new@client.example"), client="192.0.2.2")) == [
        ["deferred"]
    ]


@pytest.mark.parametrize(("seconds", "decision"), [(35 * DAY, "passed_known"), (35 * DAY + 1, "deferred")])
def test_a_client_stays_known_35_days(postgrey: Simulation, seconds: int, decision: str) -> None:
    end = make_known(postgrey)
    used = end + 30 * DAY
    postgrey.record(session(used, mail("x@client.example")))
    assert each_decision(postgrey, session(used + seconds, mail("y@client.example"))) == [[decision]]


def test_who_came_again_as_a_known_client_is_not_one_who_never_did(postgrey: Simulation) -> None:
    """Its triplet is left as it was: postgrey does not look at it any more."""
    make_known(postgrey, times=4)
    postgrey.record(session(10 * HOUR, mail("early@client.example")))
    postgrey.record(session(10 * HOUR, mail("fifth@client.example")))
    postgrey.record(session(11 * HOUR, mail("fifth@client.example")))
    assert each_decision(postgrey, session(12 * HOUR, mail("early@client.example"))) == [["passed_known"]]
    assert postgrey.pending == {("postgrey",): 1}
    much_later(postgrey, 10 * HOUR + 2 * DAY + HOUR + 1)
    assert ended(postgrey) == {"retried": 6}
    assert postgrey.retry_delays[POSTGREY,].count == 6


# ---------------------------------------------------------------------- what can't be seen


def test_what_tls_hides_is_out_of_our_sight_and_not_of_its(postgrey: Simulation) -> None:
    assert each_decision(postgrey, hidden(0), hidden(1)) == [["out_of_sight"], ["out_of_sight"]]


def test_of_a_session_that_began_in_clear_both_halves_count(postgrey: Simulation) -> None:
    assert each_decision(postgrey, session(0, mail(), envelope=Envelope.PARTIAL)) == [
        ["deferred", "out_of_sight"]
    ]


@pytest.mark.parametrize(
    ("envelope", "reach", "decisions"),
    [
        (Envelope.NONE, NO_ENVELOPE, []),
        (Envelope.NONE, GreylisterReach(Reach.UNKNOWN), ["unknown"]),
        (Envelope.UNKNOWN, GreylisterReach(Reach.UNKNOWN), ["unknown"]),
    ],
    ids=["nothing", "commands lost", "unknown"],
)
def test_a_session_without_recipients_is_unknown_only_if_some_were_lost(
    postgrey: Simulation, envelope: Envelope, reach: GreylisterReach, decisions: list[str]
) -> None:
    record = session(0, envelope=envelope, greylisters=reaches(reach, reach))
    assert each_decision(postgrey, record) == [decisions]


@pytest.mark.parametrize("lost", [mail(None), mail(to=[(None, 250)])], ids=["sender", "recipient"])
def test_what_was_not_captured_is_unknown(postgrey: Simulation, lost: Transaction) -> None:
    assert each_decision(postgrey, session(0, lost)) == [["unknown"]]


def test_who_has_logged_in_is_not_asked_about(postgrey: Simulation) -> None:
    postgrey.record(session(0, mail(), auth=(Auth("PLAIN", 535), Auth("LOGIN", 235))))
    assert decided(postgrey) == {}
    postgrey.record(session(0, mail(), auth=(Auth("PLAIN", 535),)))
    assert decided(postgrey) == {"deferred": 1}


def test_outbound_sessions_pass_no_greylister(postgrey: Simulation) -> None:
    postgrey.record(session(0, mail(), direction=Direction.OUTBOUND))
    postgrey.record(session(0, mail(), greylisters={}))
    assert decided(postgrey) == {}


# ---------------------------------------------------------------------- what became of them


@pytest.mark.parametrize(
    ("attempts", "fate"),
    [
        ([mail(to=[("b@example.test", 450)], outcome=REJECTED)], "never_retried"),
        ([mail()], "never_retried"),
        ([mail(outcome=ACCEPTED, data_code=250)], "accepted_meanwhile"),
        ([mail(outcome=ACCEPTED, data_code=250), mail()], "accepted_meanwhile"),
        ([mail(), mail(outcome=ACCEPTED, data_code=250)], "accepted_meanwhile"),
        ([mail(outcome=REJECTED, data_code=554)], "refused_meanwhile"),
        ([mail(to=[("b@example.test", 450), ("c@example.test", 550)], outcome=ACCEPTED)], "never_retried"),
    ],
    ids=["450", "gone", "taken", "taken, come again", "come again, taken", "554", "450, another was taken"],
)
def test_what_never_comes_again_is_told_by_what_the_server_made_of_it(
    postgrey: Simulation, attempts: list[Transaction], fate: str
) -> None:
    for number, attempt in enumerate(attempts):
        postgrey.record(session(number * MINUTE, attempt))
    postgrey.tick(at_ns(2 * DAY + HOUR))
    assert ended(postgrey) == {}, "records may still come late"
    postgrey.tick(at_ns(2 * DAY + HOUR + 1))
    assert ended(postgrey) == {fate: 1}
    assert postgrey.pending == {("postgrey",): 0}


@pytest.mark.parametrize(("client", "fate"), [("192.0.2.77", "unknown"), ("192.0.3.77", "never_retried")])
def test_a_hidden_session_of_the_same_network_may_have_been_the_retry(
    postgrey: Simulation, client: str, fate: str
) -> None:
    postgrey.record(session(0, mail()))
    postgrey.record(hidden(DELAY, client))
    much_later(postgrey, 3 * DAY)
    assert ended(postgrey) == {fate: 1}


def test_records_in_the_wrong_order_count_as_if_they_had_come_in_the_right_one(postgrey: Simulation) -> None:
    """The later record was the first attempt: the delay runs from that, and is never negative."""
    found = each_decision(postgrey, session(100, mail()), session(0, mail()), session(DELAY, mail()))
    assert found == [["deferred"], ["deferred"], ["passed_on_retry"]]
    assert postgrey.retry_delays[POSTGREY,].sum_seconds == DELAY


def test_a_triplet_is_counted_as_too_late_when_it_comes_too_late(postgrey: Simulation) -> None:
    postgrey.record(session(0, mail()))
    postgrey.record(session(2 * DAY + 1, mail()))
    assert ended(postgrey) == {"never_retried": 1}
    assert postgrey.pending == {("postgrey",): 1}
