"""What holds for any sequence of sessions."""

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.sessions.record import SessionRecord, Transaction
from monitor.simulation.simulation import Simulation
from monitor.simulation.tallies import DECISIONS, FATES, Decision, Fate, Greylister
from tests.monitor.simulation.oracle import PlainGreylite, PlainPostgrey
from tests.monitor.simulation.sessions import (
    ABORTED,
    ACCEPTED,
    DAY,
    HOUR,
    MINUTE,
    REJECTED,
    UNKNOWN,
    each_decision,
    hidden,
    mail,
    session,
)

BOTH = ("greylite", "postgrey")

Event = tuple[float, str, Transaction | None]
"""Seconds after the one before, the client, and its mail; None where TLS hides it."""

# Steps around the windows' edges, and small ones back: what a session that ended late makes of the order.
STEPS = st.one_of(
    st.sampled_from((0, 1, 299, 300, 301, HOUR - 1, HOUR, 18 * HOUR, 18 * HOUR + 1, 2 * DAY, 2 * DAY + 1)),
    st.sampled_from((20 * DAY, 20 * DAY + 1, 35 * DAY, 35 * DAY + 1)),
    st.integers(-30 * MINUTE, 30 * MINUTE),
    st.floats(0, 10, allow_nan=False).map(lambda seconds: round(seconds, 6)),
)
CLIENTS = st.sampled_from(("192.0.2.1", "192.0.2.2", "198.51.100.1"))
MAILS = st.builds(
    mail,
    st.sampled_from(("a@x.test", "A@x.test", "", "üb@x.test")),
    st.lists(
        st.tuples(st.sampled_from(("b@y.test", "c@y.test")), st.sampled_from((250, 450, 550))),
        min_size=1,
        max_size=3,
    ).filter(lambda recipients: any(code == 250 for _, code in recipients)),
    st.sampled_from((ACCEPTED, REJECTED, ABORTED, UNKNOWN)),
    after=st.sampled_from((0, 0.5, 100.25)),
)
EVENTS = st.lists(st.tuples(STEPS, CLIENTS, st.none() | MAILS), max_size=40)


def records(events: list[Event]) -> list[SessionRecord]:
    at: float = 40 * DAY
    made = []
    for step, client, attempt in events:
        at += step
        made.append(hidden(at, client) if attempt is None else session(at, attempt, client=client))
    return made


@settings(deadline=None)
@given(EVENTS)
def test_greylite_decides_as_a_plain_dictionary_does(events: list[Event]) -> None:
    plain = PlainGreylite()
    with closing(Simulation(["greylite"])) as simulation:
        for record in records(events):
            assert each_decision(simulation, record) == [plain.decisions(record)]


@settings(deadline=None)
@given(EVENTS)
def test_postgrey_decides_as_a_plain_dictionary_does(events: list[Event]) -> None:
    plain = PlainPostgrey()
    with closing(Simulation(["postgrey"])) as simulation:
        for record in records(events):
            assert each_decision(simulation, record) == [sorted(plain.decisions(record))]


@settings(deadline=None, max_examples=30)
@given(EVENTS, st.sets(st.integers(0, 39), max_size=5))
def test_restarts_change_nothing(events: list[Event], restarts: set[int]) -> None:
    """Neither a decision nor a fate; the counters of all runs together are those of one."""
    with (
        closing(Simulation(BOTH)) as steady,
        closing(Simulation(BOTH)) as totals,
        tempfile.TemporaryDirectory() as directory,
    ):
        path = Path(directory) / "state"
        current = Simulation(BOTH, path)
        for place, record in enumerate(records(events)):
            if place in restarts:
                _add(totals, current)
                current.close()
                current = Simulation(BOTH, path)
            assert each_decision(current, record) == each_decision(steady, record)
        _add(totals, current)
        assert totals.decisions == steady.decisions
        assert totals.fates == steady.fates
        assert (current.pending, current.known) == (steady.pending, steady.known)
        current.close()


def _add(totals: Simulation, run: Simulation) -> None:
    for key, count in run.decisions.items():
        totals._tallies.decisions[key] += count
    for ending, count in run.fates.items():
        totals._tallies.fates[ending] += count


@settings(deadline=None)
@given(EVENTS, st.integers(1, 3))
def test_the_sums_agree_and_the_tables_stay_within_their_bound(events: list[Event], limit: int) -> None:
    with closing(Simulation(BOTH, limit_rows=limit)) as simulation:
        came = records(events)
        for record in came:
            simulation.record(record)
            assert all(rows <= limit for rows in (*simulation.pending.values(), *simulation.known.values()))
        greylite, postgrey = Greylister.GREYLITE, Greylister.POSTGREY
        decisions, fates = simulation.decisions, simulation.fates
        assert sum(count for (name, _), count in decisions.items() if name is greylite) == len(came)
        asked = sum(
            sum(to.code != 550 for to in record.transactions[0].recipients) if record.transactions else 1
            for record in came
        )
        assert sum(count for (name, _), count in decisions.items() if name is postgrey) == asked
        for name in (greylite, postgrey):
            ended = sum(count for (whose, _), count in fates.items() if whose is name)
            put_off = decisions[name, Decision.DEFERRED]
            waiting = simulation.pending[name,]
            # postgrey may put one triplet off several times.
            assert ended + waiting == put_off if name is greylite else ended + waiting <= put_off
            assert simulation.retry_delays[name,].count <= fates[name, Fate.RETRIED] + waiting
            assert simulation.retry_delays[name,].sum_seconds >= 0


def test_all_counters_are_there_before_anything_is_counted() -> None:
    with closing(Simulation(BOTH)) as simulation:
        assert set(simulation.decisions) == {
            (name, choice) for name in Greylister for choice in DECISIONS[name]
        }
        assert set(simulation.fates) == {(name, fate) for name in Greylister for fate in FATES[name]}
        assert set(DECISIONS[Greylister.GREYLITE] | DECISIONS[Greylister.POSTGREY]) == set(Decision)
        before = [set(counts) for counts in (simulation.decisions, simulation.fates, simulation.pending)]
        simulation.record(session(0, mail()))
        assert [
            set(counts) for counts in (simulation.decisions, simulation.fates, simulation.pending)
        ] == before
