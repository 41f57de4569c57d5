"""Copies of the captures as a bad tap would have seen them: never a wrong definite answer."""

import random
from typing import Any

import pytest

from tests.capture_truth import capture_names
from tests.degrade import (
    Degrade,
    duplicate,
    lose,
    lose_bursts,
    midstream,
    one_direction,
    reorder,
    resegment,
    snap,
    wrap_sequence,
)
from tests.lab.compare import key
from tests.segments import records_of, segments_of
from tests.timeless import timeless
from tests.wrong import wrong_facts

SMALL = [name for name in capture_names() if name not in ("interleaved", "smtp_source_plain")]

LOSSY: dict[str, Degrade] = {
    "one in a hundred lost": lose(0.01),
    "one in twenty lost": lose(0.05),
    "one in four lost": lose(0.25),
    "one in twenty lost, in bursts": lose_bursts(0.05),
    "reordered by up to three": reorder(3),
    "reordered by up to eight": reorder(8),
    "snap length 96": snap(96),
    "snap length 68": snap(68),
    "the first fifth missing": midstream(0.2),
    "the first half missing": midstream(0.5),
    "only the servers' side": one_direction(from_watched_port=True),
    "only the clients' side": one_direction(from_watched_port=False),
}
HARMLESS: dict[str, Degrade] = {
    "one in three doubled": duplicate(0.3),
    "every packet doubled": duplicate(1.0),
    "pieces of 1 to 40 bytes": resegment(lambda rng: rng.randint(1, 40)),
    "sequence numbers wrap": lambda segments, rng: wrap_sequence(segments),
}


@pytest.mark.parametrize("how", LOSSY)
@pytest.mark.parametrize("name", [*SMALL, "mid"])
def test_what_was_lost_is_unknown_and_never_wrong(name: str, how: str) -> None:
    segments = segments_of(name)
    true = by_endpoints(records_of(segments))
    for seed in range(1 if name == "mid" else 3):
        degraded = records_of(LOSSY[how](segments, random.Random(seed)))
        for record in degraded:
            wrong = min((wrong_facts(record, one) for one in true[key(record)]), key=len)
            assert not wrong, f"{name}, {how}, seed {seed}, {key(record)}: {wrong}"


@pytest.mark.parametrize("how", HARMLESS)
@pytest.mark.parametrize("name", SMALL)
def test_what_only_looks_different_gives_the_same_records(name: str, how: str) -> None:
    segments = segments_of(name)
    true = sorted(map(timeless, records_of(segments)), key=str)
    seen = sorted(map(timeless, records_of(HARMLESS[how](segments, random.Random(1)))), key=str)
    assert seen == true


def test_single_bytes_give_the_same_records() -> None:
    for name in ("starttls_tls13", "auth_clear", "starttls_454", "smtps_465", "pipelined"):
        segments = segments_of(name)
        bytewise = records_of(resegment(lambda rng: 1)(segments, random.Random(0)))
        assert list(map(timeless, bytewise)) == list(map(timeless, records_of(segments)))


def test_of_a_lossy_capture_most_is_still_known() -> None:
    """Unknown is never wrong, but a reader that always said unknown would be useless."""
    segments = segments_of("mid")
    degraded = records_of(lose(0.01)(segments, random.Random(7)))
    unknown = sum(record["envelope"] == "unknown" for record in degraded)
    assert unknown / len(degraded) < 0.1


def by_endpoints(records: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found
