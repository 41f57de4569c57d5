"""What is known of the place where we watch, beside the packets."""

from collections.abc import Callable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.sessions.direction import OurAddresses
from monitor.sessions.reach import ReachModel
from monitor.sessions.record import Channel, Direction, Location, Tapped


def nowhere(_address: str) -> Location | None:
    """Where nobody knows where addresses are."""
    return None


@mypyc_attr(acyclic=True)
class Outside:
    """What is known of a session from its packets, for whoever looks inside its TLS."""

    __slots__ = (
        "channel",
        "community_id",
        "direction",
        "encrypted_bytes",
        "established",
        "first_at_ns",
        "flow",
        "last_at_ns",
        "ruled_out",
        "whole",
    )

    def __init__(
        self,
        *,
        flow: bytes,
        community_id: str,
        direction: Direction,
        first_at_ns: int,
        last_at_ns: int,
        channel: Channel,
        established: bool,
        ruled_out: bool,
        whole: bool,
        encrypted_bytes: int,
    ) -> None:
        self.flow: Final = flow
        """From the client, see Segment."""
        self.community_id: Final = community_id
        self.direction: Final = direction
        self.first_at_ns: Final = first_at_ns
        """The first packet."""
        self.last_at_ns: Final = last_at_ns
        self.channel: Final = channel
        self.established: Final = established
        """Encryption was established."""
        self.ruled_out: Final = ruled_out
        """It was not. Where neither holds, nobody knows."""
        self.whole: Final = whole
        """Every byte was captured."""
        self.encrypted_bytes: Final = encrypted_bytes
        """Both directions, the handshake included."""


class Site:
    __slots__ = ("greylisters", "locate", "ours", "tapped")

    def __init__(
        self,
        ours: OurAddresses,
        greylisters: Sequence[ReachModel] = (),
        locate: Callable[[str], Location | None] = nowhere,
        tapped: Callable[[Outside], Tapped | None] | None = None,
    ) -> None:
        self.ours: Final = ours
        self.greylisters: Final = greylisters
        """Whose reach every record tells."""
        self.locate: Final = locate
        """Where an address is."""
        self.tapped: Final = tapped
        """What a session carried inside TLS; None where nobody looks. To be asked once, when it is over."""
