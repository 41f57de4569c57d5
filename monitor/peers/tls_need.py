"""What each peer does where it does not get TLS.

It answers what would happen if STARTTLS were not offered: the sessions that it hides now would come back into
sight, but those of peers that require TLS would not come at all. A peer's need is known only once it has been
without TLS, and then it speaks of all its sessions, the earlier ones too.
"""

from collections import OrderedDict
from enum import StrEnum
from typing import Final

from monitor.peers.keys import Key
from monitor.peers.lately import LATENESS_NS, Latest
from monitor.peers.returns import WINDOW_NS
from monitor.peers.visit import Visit
from monitor.sessions.record import StarttlsOutcome


class TlsNeed(StrEnum):
    """By the last that was seen of it."""

    REQUIRES = "requires"
    """Without TLS it went away, and sent nothing in clear within the window. So does a scanner that looks
    whether STARTTLS works."""
    FALLS_BACK = "falls_back"
    """Without TLS it sent in clear, then or later."""
    NEVER_ASKS = "never_asks"
    """It sent in clear where it could have asked for TLS, and was never seen to be without."""
    UNTESTED = "untested"
    """Nothing was seen that tells: it always got its TLS."""


# With a MAIL in clear. Of an outcome that is not here such a session tells nothing: `established` is a MAIL
# before STARTTLS, and of `unknown` it is not known whether the peer could have had TLS.
_MAIL_IN_CLEAR_SHOWS: Final = {
    StarttlsOutcome.NOT_OFFERED: TlsNeed.FALLS_BACK,
    StarttlsOutcome.MASKED: TlsNeed.FALLS_BACK,
    StarttlsOutcome.REFUSED: TlsNeed.FALLS_BACK,
    StarttlsOutcome.FAILED: TlsNeed.FALLS_BACK,
    StarttlsOutcome.ABANDONED: TlsNeed.FALLS_BACK,
    StarttlsOutcome.UNUSED: TlsNeed.NEVER_ASKS,
    StarttlsOutcome.NOT_REACHED: TlsNeed.NEVER_ASKS,  # HELO: it can't even ask
}
# Without one, and no encryption either: the peer went away.
_WENT_WITHOUT_TLS: Final = frozenset(
    outcome for outcome, need in _MAIL_IN_CLEAR_SHOWS.items() if need is TlsNeed.FALLS_BACK
)
# Who was without TLS before and sends in clear now falls back, whatever this session could have had: Postfix
# comes back in a session of its own, and does not ask there.
_SHOWN_WITHOUT_TLS: Final = frozenset({TlsNeed.REQUIRES, TlsNeed.FALLS_BACK})


class _Peer:
    __slots__ = ("dark_sessions", "need")

    def __init__(self) -> None:
        self.need = TlsNeed.UNTESTED
        self.dark_sessions = 0


class _Away:
    """A peer went away without TLS and without a MAIL."""

    __slots__ = ("began_ns", "since_ns")

    def __init__(self, began_ns: int, since_ns: int) -> None:
        self.began_ns: Final = began_ns
        self.since_ns: Final = since_ns


class TlsNeeds:
    """The peers of which anything is known, as far as there is room."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: peers; who has not been seen for longest makes room."""
        self._limit = limit
        self._peers: OrderedDict[Key, _Peer] = OrderedDict()
        self._away: OrderedDict[Key, _Away] = OrderedDict()
        self.peers = {(need,): 0 for need in TlsNeed}
        """Of those remembered."""
        self.dark_sessions = {(need,): 0 for need in TlsNeed}
        """Sessions of these peers that STARTTLS hid."""
        self.peers_forgotten = 0
        """For want of room."""

    def __len__(self) -> int:
        return len(self._peers)

    def visit(self, peer: Key, visit: Visit, latest: Latest) -> None:
        """`latest`: of this peer, before this visit."""
        is_going_away = visit.ended_without_mail and visit.starttls in _WENT_WITHOUT_TLS
        if peer in self._peers or visit.mail_in_clear or visit.is_hidden_by_starttls or is_going_away:
            self._remember(peer)
        else:
            return  # scans, and what was not captured
        if visit.is_hidden_by_starttls:
            known = self._peers[peer]
            known.dark_sessions += 1
            self.dark_sessions[known.need,] += 1
        is_back = self._is_back(peer, visit)
        if is_back and (visit.mail_in_clear or visit.mail_in_doubt):
            del self._away[peer]
        if visit.mail_in_clear:
            has_been_without = is_back or self._peers[peer].need in _SHOWN_WITHOUT_TLS
            need = TlsNeed.FALLS_BACK if has_been_without else _MAIL_IN_CLEAR_SHOWS.get(visit.starttls)
            if need is not None:
                self._has_shown(peer, need)
        if is_going_away:
            self._went_away(peer, visit, latest)

    def expire(self, now_ns: int) -> None:
        """Who did not come back in clear within the window requires TLS."""
        while self._away:
            peer, away = next(iter(self._away.items()))
            if now_ns - away.since_ns <= WINDOW_NS + LATENESS_NS:
                return
            self._window_is_over(peer)

    def clock_was_set_back(self) -> None:
        """Nobody can tell any more how long ago anybody went away."""
        self._away.clear()

    def _remember(self, peer: Key) -> None:
        if peer in self._peers:
            self._peers.move_to_end(peer)
            return
        self._peers[peer] = _Peer()
        self.peers[TlsNeed.UNTESTED,] += 1
        if len(self._peers) > self._limit:
            key, oldest = self._peers.popitem(last=False)
            self._away.pop(key, None)
            self.peers[oldest.need,] -= 1
            self.dark_sessions[oldest.need,] -= oldest.dark_sessions
            self.peers_forgotten += 1

    def _is_back(self, peer: Key, visit: Visit) -> bool:
        """Within the window, after having gone away."""
        away = self._away.get(peer)
        if away is None:
            return False
        if visit.ended_ns - away.since_ns > WINDOW_NS:
            self._window_is_over(peer)
            return False
        return visit.began_ns > away.began_ns

    def _window_is_over(self, peer: Key) -> None:
        del self._away[peer]
        self._has_shown(peer, TlsNeed.REQUIRES)

    def _went_away(self, peer: Key, visit: Visit, latest: Latest) -> None:
        # Its record may have been overtaken by that of a later visit.
        if latest.mail_ns > visit.ended_ns:
            self._has_shown(peer, TlsNeed.FALLS_BACK)
        elif latest.doubt_ns <= visit.ended_ns:
            self._away.setdefault(peer, _Away(visit.began_ns, visit.ended_ns))

    def _has_shown(self, peer: Key, need: TlsNeed) -> None:
        known = self._peers[peer]
        self.peers[known.need,] -= 1
        self.dark_sessions[known.need,] -= known.dark_sessions
        known.need = need
        self.peers[need,] += 1
        self.dark_sessions[need,] += known.dark_sessions
