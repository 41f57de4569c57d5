"""What was put off inside TLS, and whether it came again: as the mail server saw it, as far as its tap tells.

The rules are those for what is in clear. What differs is what is seen: mail inside TLS, beside that in clear.
Both are counted, each by itself, so nothing that a tap sees changes what is counted of the stream.
"""

from monitor.peers.keys import Key, Keys
from monitor.peers.lately import Lately
from monitor.peers.returns import TAPPED_RETURNS, Returns
from monitor.peers.visit import Visit
from monitor.sessions.record import SessionRecord


class TappedReturns:
    """Takes all records that count, those in clear as well: what was put off may come again there."""

    def __init__(self, keys: Keys, peers_limit: int, things_limit: int) -> None:
        self._lately = Lately(peers_limit)
        self.returns = Returns(keys, TAPPED_RETURNS, limit=things_limit)

    def record(self, peer: Key, record: SessionRecord, now_ns: int) -> None:
        visit = Visit(record, is_tapped=True)
        self.returns.visit(peer, visit, self._lately.of(peer))
        self._lately.visit(peer, visit, now_ns)

    def expire(self, now_ns: int) -> None:
        self.returns.expire(now_ns)
        self._lately.expire(now_ns)

    def clock_was_set_back(self) -> None:
        self.returns.clock_was_set_back()
        self._lately.clear()
