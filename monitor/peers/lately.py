"""Visits whose records overtook that of an older one.

A record comes when its session is over for us: a session that just falls silent, as broken handshakes do, has
its record a quarter of an hour after its last packet. The peer may have come back long before that. So for a
while it is remembered when each peer's latest visits began, by what they were.
"""

from collections import OrderedDict
from typing import Final

from monitor.peers.keys import Key
from monitor.peers.visit import Visit

LATENESS_NS: Final = 3_600 * 1_000_000_000
"""No record comes later than this after its session's last packet. Chosen as four times the idle time-out of
monitor.sessions.table."""


class Latest:
    """When a peer's latest visit of each kind began: nanoseconds since the epoch, -1 where there was none."""

    __slots__ = ("changed_ns", "dark_ns", "doubt_ns", "mail_ns")

    def __init__(self) -> None:
        self.mail_ns = -1
        """With a MAIL that was seen."""
        self.dark_ns = -1
        """Hidden by encryption."""
        self.doubt_ns = -1
        """Not captured well enough to tell."""
        self.changed_ns = -1
        """When one of them changed: not the time of the visit, but the time when its record came."""


NOBODY: Final = Latest()


class Lately:
    """The peers of the last hour."""

    __slots__ = ("_latest", "_limit")

    def __init__(self, limit: int) -> None:
        """`limit`: peers. Of a peer forgotten for want of room, what its late records say is taken as if
        nothing had overtaken them."""
        self._limit = limit
        self._latest: OrderedDict[Key, Latest] = OrderedDict()
        """In the order of their last changes."""

    def __len__(self) -> int:
        return len(self._latest)

    def of(self, peer: Key) -> Latest:
        return self._latest.get(peer, NOBODY)

    def visit(self, peer: Key, visit: Visit, now_ns: int) -> None:
        is_in_doubt = visit.mail_in_doubt or visit.recipients_in_doubt
        latest = self._latest.get(peer)
        if latest is None:
            if not (visit.mail_seen or visit.is_dark or is_in_doubt):
                return
            latest = self._latest[peer] = Latest()
            if len(self._latest) > self._limit:
                self._latest.popitem(last=False)
        else:
            self._latest.move_to_end(peer)
        latest.changed_ns = now_ns
        began_ns = visit.began_ns
        if visit.mail_seen:
            latest.mail_ns = max(latest.mail_ns, began_ns)
        if visit.is_dark:
            latest.dark_ns = max(latest.dark_ns, began_ns)
        if is_in_doubt:
            latest.doubt_ns = max(latest.doubt_ns, began_ns)

    def expire(self, now_ns: int) -> None:
        while self._latest:
            peer, latest = next(iter(self._latest.items()))
            if now_ns - latest.changed_ns <= LATENESS_NS:
                return
            del self._latest[peer]

    def clear(self) -> None:
        self._latest.clear()
