"""What each model declares is what it finds, all of it and nothing else, however the bytes come."""

import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.greylisters import MODELS, StreamWatcher, TlsEnds, models
from monitor.sessions.record import GreylisterReach
from monitor.side import Side
from tests.degrade import duplicate, lose, reorder, resegment
from tests.monitor.greylisters.sight import (
    GREETING,
    MAIL,
    QUIT,
    RCPT,
    STARTTLS,
    midstream,
    records_under,
    said,
)
from tests.monitor.sessions.conversations import conversations
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript
from tests.segments import segments_of

C: Final = Side.CLIENT
PROBED: Final = ("starttls_aborts", "auth_clear", "bdat", "smtps_465")
"""Captures in which every kind of result but stalling is found."""


def transcripts(tls_mail: Transcript) -> list[Wire]:
    return [
        said(GREETING + MAIL + RCPT + QUIT),
        said(GREETING + MAIL + QUIT),
        said(GREETING + QUIT),
        said(GREETING + "C: AUTH PLAIN eA==\nS: 235 in\n"),
        said(GREETING + "C: DATA\nS: 354 go on\n"),
        said(GREETING + "C: RCPT TO:<postmaster>\nS: 250 ok\n"),
        midstream(said(GREETING + QUIT)),
        Wire().open().say(GREETING + STARTTLS).play(tls_mail).close(),
        Wire(465).open().play(tls_mail).close(),
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_result_is_found_in_some_session_and_no_other(
    model: type[StreamWatcher], tls_mail: Transcript
) -> None:
    found = {
        record.greylisters[model.name]
        for tls_ends in TlsEnds
        for wire in transcripts(tls_mail)
        for record in records_under(tls_ends, wire.segments)
    }
    assert found == model.results


def reaches(wire: Wire, tls_ends: TlsEnds) -> dict[str, GreylisterReach]:
    (record,) = records_under(tls_ends, wire.segments)
    return record.greylisters


@given(conversations(), st.integers(0, 1 << 30), st.sampled_from([1, 2, 5, 40]), st.sampled_from(TlsEnds))
@settings(max_examples=150)
def test_any_split_of_the_bytes_gives_the_same(wire: Wire, seed: int, size: int, tls_ends: TlsEnds) -> None:
    true = reaches(wire, tls_ends)
    for degrade in (resegment(lambda rng: rng.randint(1, size)), duplicate(0.5)):
        (record,) = records_under(tls_ends, degrade(wire.segments, random.Random(seed)))
        assert record.greylisters == true
    assert all(true[model.name] in model.results for model in MODELS)


@given(conversations(), st.integers(0, 1 << 30), st.sampled_from(TlsEnds))
@settings(max_examples=300)
def test_missing_and_shuffled_packets_never_give_a_definite_wrong_one(
    wire: Wire, seed: int, tls_ends: TlsEnds
) -> None:
    true = reaches(wire, tls_ends)
    for degrade in (lose(0.03), lose(0.1), lose(0.3), reorder(4)):
        for record in records_under(tls_ends, degrade(wire.segments, random.Random(seed))):
            for greylister, found in record.greylisters.items():
                assert found.reach == "unknown" or found == true[greylister], greylister


CUTS: Final[list[tuple[str, Callable[[random.Random], int]]]] = [
    ("pieces of one byte", lambda _: 1),
    ("pieces of up to forty", lambda rng: rng.randint(1, 40)),
]


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
@pytest.mark.parametrize("name", PROBED)
@pytest.mark.parametrize(("how", "size"), CUTS, ids=[how for how, _ in CUTS])
def test_any_split_of_a_capture_gives_the_same(
    how: str, size: Callable[[random.Random], int], name: str, tls_ends: TlsEnds
) -> None:
    segments = segments_of(name)
    true = [record.greylisters for record in records_under(tls_ends, segments)]
    pieces = resegment(size)(segments, random.Random(how))
    assert [record.greylisters for record in records_under(tls_ends, pieces)] == true


def test_models_have_names_of_their_own_and_stand_by_name() -> None:
    names = [model.name for model in MODELS]
    assert names == sorted(set(names))
    assert [model.name for model in models(TlsEnds.SERVER)] == names
