"""Inputs made of others, for what no coverage can be measured of: the compiled code."""

from collections.abc import Sequence
from random import Random
from typing import Final

_INTERESTING: Final = (
    0,
    1,
    2,
    5,
    0x0A,
    0x0D,
    0x10,
    0x14,
    0x16,
    0x17,
    0x20,
    0x2D,
    0x2E,
    0x7F,
    0x80,
    0xFE,
    0xFF,
)
_MOST_CHANGES: Final = 5


def mutate(rng: Random, corpus: Sequence[bytes], words: Sequence[bytes], max_bytes: int) -> bytes:
    """One of the corpus, with a few changes. `words`: what the format is made of."""
    data = bytearray(rng.choice(corpus))
    for _ in range(1 + int(rng.random() ** 2 * _MOST_CHANGES)):
        at = int(rng.random() * (len(data) + 1))
        size = 1 + int(rng.random() ** 3 * 40)
        what = int(rng.random() * 9)
        if what == 0:
            data[at : at + 1] = bytes((int(rng.random() * 256),))
        elif what == 1 and at < len(data):
            data[at] ^= 1 << int(rng.random() * 8)
        elif what == 2:
            data[at : at + 1] = bytes((rng.choice(_INTERESTING),))
        elif what == 3:
            del data[at : at + size]
        elif what == 4:
            data[at:at] = data[at : at + size]  # the same twice
        elif what == 5:
            other = rng.choice(corpus)
            begin = int(rng.random() * (len(other) + 1))
            data[at:at] = other[begin : begin + 4 * size]
        elif what == 6:
            other = rng.choice(corpus)
            data[at:] = other[int(rng.random() * (len(other) + 1)) :]
        elif what == 7:
            data[at : at + (size if size > 20 else 0)] = rng.choice(words)
        else:
            begin = int(rng.random() * (len(data) + 1))
            moved = data[begin : begin + size]
            del data[begin : begin + size]
            data[at:at] = moved
    return bytes(data[:max_bytes])
