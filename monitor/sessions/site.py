"""What is known of the place where we watch, beside the packets."""

from collections.abc import Callable, Sequence
from typing import Final

from monitor.sessions.direction import OurAddresses
from monitor.sessions.reach import ReachModel
from monitor.sessions.record import Location


def _nowhere(_address: str) -> Location | None:
    return None


class Site:
    __slots__ = ("greylisters", "locate", "ours")

    def __init__(
        self,
        ours: OurAddresses,
        greylisters: Sequence[ReachModel] = (),
        locate: Callable[[str], Location | None] = _nowhere,
    ) -> None:
        self.ours: Final = ours
        self.greylisters: Final = greylisters
        """Whose reach every record tells."""
        self.locate: Final = locate
        """Where an address is."""
