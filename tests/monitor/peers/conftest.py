"""A diary of sessions for tests of who comes back."""

from collections.abc import Callable

import pytest

from tests.monitor.peers.diary import Diary, MakeRecord

MakeDiary = Callable[..., Diary]


@pytest.fixture
def diary(make_record: MakeRecord) -> Diary:
    return Diary(make_record)


@pytest.fixture
def tapped_diary(make_record: MakeRecord) -> Diary:
    """One where a tap runs."""
    return Diary(make_record, is_tapped=True)


@pytest.fixture
def make_diary(make_record: MakeRecord) -> MakeDiary:
    """`make_diary(things_limit=3)`: one whose `Peers` has these limits."""
    return lambda **limits: Diary(make_record, **limits)
