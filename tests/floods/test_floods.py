"""Floods at a fiftieth of their size; `make floods` has them whole."""

import pytest

from tests.floods.floods import FLOODS, Flood
from tests.floods.holds import faults
from tests.floods.reading import read

SCALE = 50


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_a_flood_breaks_no_promise(flood: Flood) -> None:
    size = flood.size // SCALE
    assert faults(flood, size, read(flood, size)) == []
