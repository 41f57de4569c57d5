"""What holds for every traffic, tried with invented sessions whose truth is known."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.side import Side
from monitor.smtp.dialogue import HELD_LIMIT_BYTES
from monitor.smtp.events import CommandAnswered, CommandSent, Event
from monitor.smtp.grammar import END_OF_DATA, Command
from tests.monitor.smtp.simulation import Fact, Simulation, lose_some
from tests.monitor.smtp.transcript import Close, Ledger, Loss, Piece, describe, report

SEEDS = st.integers(0, 1 << 32)
BUFFERED_LIMIT_BYTES = 3 * HELD_LIMIT_BYTES
"""What is held back, a half message's loose end and a half reply, with the last segment."""

LINES = [
    line.encode() + b"\r\n"
    for line in (
        *("EHLO x", "LHLO x", "MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", ".", "BDAT 7", "BDAT 9 LAST"),
        *("AUTH PLAIN", "STARTTLS", "XEXCH50 5 2", "TURN", "QUIT", "RSET", "250-PIPELINING", "250 ok"),
        *("220 ok", "221 ok", "334 ", "353 ok", "354 ok", "421 no", "550 no"),
    )
]


def played(steps: list[Piece | Loss | Close], *, from_the_start: bool = True) -> Ledger:
    ledger = Ledger(from_the_start=from_the_start)
    for step in steps:
        ledger.take(step)
    return ledger


def facts_of(events: list[Event]) -> list[Fact]:
    """The commands and the codes that a dialogue reported."""
    facts: dict[Command, Fact] = {}
    for event in events:
        if isinstance(event, CommandSent):
            facts[event.command] = Fact(describe(event.command))
        elif isinstance(event, CommandAnswered) and event.reply is not None:
            facts[event.command].codes.append(event.reply.code)
    return list(facts.values())


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_a_session_is_read_as_it_was(seed: int) -> None:
    simulation = Simulation(seed)
    events = played(simulation.steps).events
    assert facts_of(events) == simulation.facts
    assert not [word for word in map(report, events) if word.startswith(("!", "lost"))] or (
        "! cleartext_auth" in map(report, events)
    )


# An LHLO was among what was lost, though an EHLO had been answered: a message's replies are then two.
@example(seed=4697, cuts=1047346)
# The reply to an LHLO was lost: the second one to its message was taken for the next command's.
@example(seed=10307909485792551888, cuts=425428815)
# The second reply to a message came when the next command's line had begun.
@example(seed=15937967625455409375, cuts=904771796)
@settings(max_examples=100, deadline=None)
@given(SEEDS, SEEDS)
def test_any_split_of_the_same_bytes_gives_the_same_events(seed: int, cuts: int) -> None:
    steps = lose_some(Simulation(seed).steps, cuts, 0.05)
    rng = random.Random(cuts)
    split: list[Piece | Loss | Close] = []
    for step in steps:
        if not isinstance(step, Piece):
            split.append(step)
            continue
        data = step.data
        while data:
            length = rng.choice((1, 1, 2, 3, 10, len(data)))
            split.append(Piece(step.side, data[:length], step.heard))
            data = data[length:]
    assert list(map(report, played(split).events)) == list(map(report, played(steps).events))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, losses=SEEDS, from_the_start=st.booleans())
def test_after_losses_nothing_definite_is_wrong(
    share: float, seed: int, losses: int, from_the_start: bool
) -> None:
    simulation = Simulation(seed, ambiguous=False)
    steps = simulation.steps
    if not from_the_start:
        steps = midstream(steps, random.Random(losses).randrange(len(steps)))
    events = played(lose_some(steps, losses, share), from_the_start=from_the_start).events
    true: dict[str, list[int]] = {}
    for fact in simulation.facts:
        true.setdefault(fact.command, []).extend(fact.codes)
    for event in events:
        if isinstance(event, CommandSent):
            assert possible(event.command, true), f"never sent: {report(event)}"
        elif isinstance(event, CommandAnswered) and event.reply is not None:
            assert event.reply.code in possible(event.command, true), f"never so answered: {report(event)}"


def midstream(steps: list[Piece | Loss | Close], start: int) -> list[Piece | Loss | Close]:
    """A session that was met in the middle. The server's bytes are counted from there."""
    missed = sum(
        len(step.data) for step in steps[:start] if isinstance(step, Piece) and step.side is Side.SERVER
    )
    return [
        Piece(step.side, step.data, max(step.heard - missed, 0)) if isinstance(step, Piece) else step
        for step in steps[start:]
    ]


def possible(command: Command, true: dict[str, list[int]]) -> list[int]:
    """The codes that a command can have been answered with, as far as it is known which one it was."""
    described = describe(command)
    if command.cut or described == f"{END_OF_DATA} ?" or command.verb == "AUTH":
        return [code for one, codes in true.items() if one.split()[0] == command.verb for code in codes]
    return true.get(described, [])


@settings(max_examples=300, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(Side),
            st.one_of(
                st.binary(max_size=300),
                st.integers(0, 5_000),
                st.sampled_from(
                    [*LINES, b"MAIL FROM:<", b"a@b>\r\n", b"\n.\n", b"\r", b"x" * 20_000, b"250-" * 5_000]
                ),
            ),
            st.booleans(),
        ),
        max_size=60,
    ),
)
def test_nothing_raises_and_memory_is_bounded(
    from_the_start: bool, steps: list[tuple[Side, bytes | int, bool]]
) -> None:
    ledger = Ledger(from_the_start=from_the_start)
    said = 0
    for side, what, heard_all in steps:
        if isinstance(what, int):
            ledger.take(Loss(side, what))
        else:
            ledger.take(Piece(side, what, said if heard_all else max(said - 9, 0)))
            said += len(what) if side is Side.SERVER else 0
        assert ledger.dialogue.buffered_bytes <= BUFFERED_LIMIT_BYTES
    ledger.take(Close(in_doubt=False))
