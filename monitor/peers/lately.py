"""Visits whose records overtook that of an older one.

A record comes when its session is over for us: a session that just falls silent, as broken handshakes do, has
its record a quarter of an hour after its last packet. The peer may have come back long before that. So for a
while it is remembered when each peer's latest visits began, by what they were.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from monitor.peers.keys import Key
from monitor.peers.visit import Visit

LATENESS_NS: Final = 3_600 * 1_000_000_000
"""No record comes later than this after its session's last packet. Chosen as four times the idle time-out of
monitor.sessions.table."""


class Latest(NamedTuple):
    """When a peer's latest visit of each kind began: nanoseconds since the epoch, -1 where there was none."""

    clear_ns: int = -1
    """With a MAIL in clear."""
    dark_ns: int = -1
    """Hidden by encryption."""
    doubt_ns: int = -1
    """Not captured well enough to tell."""


NOBODY: Final = Latest()


class Lately:
    """The peers of the last hour."""

    __slots__ = ("_latest", "_limit")

    def __init__(self, limit: int) -> None:
        """`limit`: peers. Of a peer forgotten for want of room, what its late records say is taken as if
        nothing had overtaken them."""
        self._limit = limit
        self._latest: OrderedDict[Key, tuple[int, Latest]] = OrderedDict()
        """With the time of the last change, which is also their order."""

    def __len__(self) -> int:
        return len(self._latest)

    def of(self, peer: Key) -> Latest:
        found = self._latest.get(peer)
        return found[1] if found is not None else NOBODY

    def visit(self, peer: Key, visit: Visit, now_ns: int) -> None:
        clear_ns, dark_ns, doubt_ns = self.of(peer)
        began_ns = visit.began_ns
        if visit.mail_in_clear:
            clear_ns = max(clear_ns, began_ns)
        if visit.is_dark:
            dark_ns = max(dark_ns, began_ns)
        if visit.mail_in_doubt or visit.recipients_in_doubt:
            doubt_ns = max(doubt_ns, began_ns)
        latest = Latest(clear_ns, dark_ns, doubt_ns)
        if latest == NOBODY:
            return
        self._latest[peer] = (now_ns, latest)
        self._latest.move_to_end(peer)
        if len(self._latest) > self._limit:
            self._latest.popitem(last=False)

    def expire(self, now_ns: int) -> None:
        while self._latest:
            peer, (changed_ns, _) = next(iter(self._latest.items()))
            if now_ns - changed_ns <= LATENESS_NS:
                return
            del self._latest[peer]

    def clear(self) -> None:
        self._latest.clear()
