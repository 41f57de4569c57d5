"""Sessions that keep to their grammar, invented from a seed; and the same with bytes lost.

The input is the seed, so nothing is learned from coverage here.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from tests.monitor.smtp import test_properties as properties

MAX_BYTES: Final = 12
WORDS: Final = (b"\0",)

CPU_LIMIT_NS: Final = 100_000_000
"""It invents three sessions, and reads each twice, with all that is checked of every event."""


def _alone(test: Any) -> Callable[..., None]:
    """What hypothesis tries some hundred seeds of."""
    tried: Callable[..., None] = test.hypothesis.inner_test
    return tried


_is_read_as_it_was = _alone(properties.test_a_session_is_read_as_it_was)
_any_split = _alone(properties.test_any_split_of_the_same_bytes_gives_the_same_events)
_nothing_is_wrong = _alone(properties.test_after_losses_nothing_definite_is_wrong)


def check(data: bytes) -> object:
    seed = int.from_bytes(data, "big")
    rng = Random(seed)
    _is_read_as_it_was(seed)
    _any_split(seed, rng.getrandbits(30))
    _nothing_is_wrong(rng.choice((0.02, 0.1, 0.3)), seed, rng.getrandbits(30), rng.random() < 0.7)
    return None


def seeds() -> Iterator[bytes]:
    rng = Random(3)
    yield from (rng.randbytes(8) for _ in range(64))
