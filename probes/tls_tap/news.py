"""What the tap's keeper says to `watch`."""

from typing import Final

from msgspec import Struct

NEWS_BYTES: Final = 65_536
"""Of one message, in JSON."""


class News(Struct):
    """What the keeper says: at first with descriptors, later whenever something is new."""

    libraries: int = 0
    """Files that are attached."""
    said: list[str] = []
    """For people, a line each."""
    message: str = ""
    """Of a ProbeUnavailable, and its remedy; then that was all."""
    remedy: str = ""
