"""What is known of the place where we watch, beside the packets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monitor.sessions.direction import OurAddresses
from monitor.sessions.reach import ReachModel
from monitor.sessions.record import Location


def _nowhere(_address: str) -> Location | None:
    return None


@dataclass(frozen=True, slots=True)
class Site:
    ours: OurAddresses
    greylisters: Sequence[ReachModel] = ()
    """Whose reach every record tells."""
    locate: Callable[[str], Location | None] = _nowhere
    """Where an address is."""
