"""Who comes back, and who needs TLS: the front of this package."""

from typing import Final

from monitor.peers.keys import Keys
from monitor.peers.lately import LATENESS_NS, Lately
from monitor.peers.returns import RETURNS, After, GivenUp, Return, Returns
from monitor.peers.tapped_returns import TappedReturns
from monitor.peers.tls_need import TlsNeed, TlsNeeds
from monitor.peers.visit import Visit
from monitor.sessions.record import Direction, SessionRecord

PEERS_LIMIT: Final = 100_000
"""Chosen as what a busy server hears from in a day, and what a sidecar may spend on it: docs/peers.md."""
THINGS_LIMIT: Final = 100_000

_OUTBOUND: Final = Direction.OUTBOUND


class Peers:
    """Takes finished records one by one, in the order in which they come.

    Everything is in memory, and nothing of it outlives the process. Its dicts never gain or lose a key, and
    hold plain integers; one thread fills them, others may read them one by one.
    """

    def __init__(
        self, *, is_tapped: bool = False, peers_limit: int = PEERS_LIMIT, things_limit: int = THINGS_LIMIT
    ) -> None:
        """`is_tapped`: records tell what a tap saw inside TLS, and what comes of that is counted, too."""
        self._keys = Keys()
        self._lately = Lately(peers_limit)
        self._returns = Returns(self._keys, RETURNS, limit=things_limit)
        self._tls_needs = TlsNeeds(limit=peers_limit)
        self._tapped = TappedReturns(self._keys, peers_limit, things_limit) if is_tapped else None
        self._now_ns: int | None = None

    def record(self, record: SessionRecord) -> None:
        """A session is over. Those of our own mail going out are none of ours to judge."""
        if record.direction is _OUTBOUND:
            return
        visit = Visit(record)
        now_ns = self._go_on(visit.ended_ns)
        peer = self._keys.peer(visit.ip)
        latest = self._lately.of(peer)
        self._returns.visit(peer, visit, latest)
        self._tls_needs.visit(peer, visit, latest)
        self._lately.visit(peer, visit, now_ns)
        if self._tapped is not None:
            self._tapped.record(peer, record, now_ns)

    def tick(self, now_ns: int) -> None:
        """Time passes without records. `now_ns`: since the epoch, by the clock of the packets."""
        self._go_on(now_ns)

    @property
    def returns(self) -> dict[tuple[After, Return], int]:
        """What came again, or never did."""
        return self._returns.returns

    @property
    def put_off(self) -> dict[After, int]:
        """Everything put off: returned, given up and pending together."""
        return self._returns.put_off

    @property
    def pending(self) -> dict[After, int]:
        """What may still come again."""
        return self._returns.pending

    @property
    def given_up(self) -> dict[tuple[After, GivenUp], int]:
        """Of what it can't be told whether it came again."""
        return self._returns.given_up

    @property
    def tapped_returns(self) -> Returns | None:
        """What was put off inside TLS, and whether it came again; None where no tap runs."""
        return self._tapped.returns if self._tapped is not None else None

    @property
    def peers(self) -> dict[tuple[TlsNeed], int]:
        """The peers remembered now."""
        return self._tls_needs.peers

    @property
    def dark_sessions(self) -> dict[tuple[TlsNeed], int]:
        """Sessions of the peers remembered now that STARTTLS hid."""
        return self._tls_needs.dark_sessions

    @property
    def peers_forgotten(self) -> int:
        """For want of room."""
        return self._tls_needs.peers_forgotten

    def _go_on(self, now_ns: int) -> int:
        """Records may come late, so the time goes back a little, and that means nothing. By more than they
        can be late, somebody has set the clock back, or the captures are read in another order."""
        if self._now_ns is not None and now_ns < self._now_ns:
            if self._now_ns - now_ns <= LATENESS_NS:
                return self._now_ns
            self._returns.clock_was_set_back()
            self._tls_needs.clock_was_set_back()
            self._lately.clear()
            if self._tapped is not None:
                self._tapped.clock_was_set_back()
        self._now_ns = now_ns
        self._returns.expire(now_ns)
        self._tls_needs.expire(now_ns)
        self._lately.expire(now_ns)
        if self._tapped is not None:
            self._tapped.expire(now_ns)
        return now_ns
