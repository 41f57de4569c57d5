"""The two ends of a connection."""

from enum import IntEnum


class Side(IntEnum):
    """Who sent it. An IntEnum, so that a pair of things is indexed by it."""

    CLIENT = 0
    SERVER = 1
