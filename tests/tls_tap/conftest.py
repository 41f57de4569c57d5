"""One lab for all of these tests, and watch with its tap beside it."""

from collections.abc import Iterator

import pytest

from tests.lab.laboratory import Laboratory, laboratory
from tests.lab.packages import LabUnavailableError


@pytest.fixture(scope="session")
def lab() -> Iterator[Laboratory]:
    try:
        with laboratory() as lab:
            yield lab
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
