"""What was put off, and whether it came again.

Something is put off when a recipient or a message is answered 4xx where that is seen, or when STARTTLS is
refused or fails. Each is counted once: when it comes back for the first time, or as `never` when the window
is over, or as given up where that can't be told. At any time, of each kind,

    put off = returned + given up + pending

One session comes after another when it began after that one began. docs/peers.md has the rules as tables.
"""

from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from monitor.peers.keys import Key, Keys
from monitor.peers.lately import LATENESS_NS, Latest
from monitor.peers.visit import Visit
from monitor.sessions.record import StarttlsOutcome

WINDOW_NS: Final = 2 * 86_400 * 1_000_000_000
"""What does not come back within it never does: postgrey's --retry-window, two days. For STARTTLS as well:
mail that did not go for want of TLS waits in the same queues, and is tried again at the same intervals (RFC
5321 section 4.5.4.1)."""

THINGS_OF_ONE_PEER_LIMIT: Final = 1_000
"""Pending ones, so that nobody can push out what all others left. Chosen as the recipients that Postfix takes
in one transaction (`smtpd_recipient_limit`)."""


class After(StrEnum):
    """What happened to it."""

    PUT_OFF = "put_off"
    """A recipient or its message was answered 4xx: in clear, or inside TLS where TAPPED_RETURNS are counted.
    Told apart by address, sender and recipient."""
    STARTTLS_REFUSED = "starttls_refused"
    """Told apart by address, as the next."""
    STARTTLS_FAILED = "starttls_failed"
    """STARTTLS was answered 220, and encryption never established."""


class Return(StrEnum):
    """How it came again, for the first time."""

    CLEAR = "clear"
    """In clear: the same sender and recipient from the same address; after STARTTLS, any MAIL of the peer."""
    INSIDE_TLS = "inside_tls"
    """Inside TLS, as the tap saw it: the same sender and recipient from the same address."""
    OTHER_ADDRESS = "other_address"
    """The same sender and recipient, where it is seen, from another address of the same network."""
    DARK = "dark"
    """The peer came, and encryption hid what it carried; from the tap, too, where one runs."""
    NEVER = "never"
    """Nothing of it was seen within the window."""


class GivenUp(StrEnum):
    """Why it can't be told whether something came again."""

    FORGOTTEN = "forgotten"
    """There was no more room to remember it."""
    IN_DOUBT = "in_doubt"
    """A session that may have brought it was not captured whole, or the clock was set back."""


RETURNS: Final = tuple(
    (after, how)
    for after in After
    for how in Return
    # Without an envelope nothing ties a mail from another address to this peer.
    if how is not Return.INSIDE_TLS and (after is After.PUT_OFF or how is not Return.OTHER_ADDRESS)
)
"""All that can be counted of what was put off in clear."""

TAPPED_RETURNS: Final = tuple((After.PUT_OFF, how) for how in Return)
"""Of what was put off inside TLS."""

_STARTTLS: Final = {
    StarttlsOutcome.REFUSED: After.STARTTLS_REFUSED,
    StarttlsOutcome.FAILED: After.STARTTLS_FAILED,
    StarttlsOutcome.ABANDONED: After.STARTTLS_FAILED,
}


class _Thing:
    """Something put off; kept to the end of its window, so that it is not counted again."""

    __slots__ = ("after", "began_ns", "is_pending", "key", "pair", "peer", "put_off_ns")

    def __init__(self, key: Key, after: After, peer: Key, pair: Key | None, visit: Visit) -> None:
        """`visit`: the session that put it off."""
        self.key: Final = key
        self.after: Final = after
        self.peer: Final = peer
        self.pair = pair
        """Network, sender and recipient."""
        self.began_ns: Final = visit.began_ns
        self.put_off_ns: Final = visit.ended_ns
        self.is_pending = True


class Returns:
    """Remembers what was put off for the length of the window, as far as there is room."""

    def __init__(
        self,
        keys: Keys,
        counted: Sequence[tuple[After, Return]],
        *,
        limit: int,
        one_peer_limit: int = THINGS_OF_ONE_PEER_LIMIT,
    ) -> None:
        """`counted`: RETURNS or TAPPED_RETURNS; nothing else is taken for put off. `limit`: things, those
        settled within their window included; the oldest make room."""
        self._keys = keys
        self._limit = limit
        self._one_peer_limit = one_peer_limit
        self._things: OrderedDict[Key, _Thing] = OrderedDict()
        """In the order in which they were put off."""
        self._by_peer: dict[Key, dict[_Thing, None]] = {}
        """The pending ones; the inner dict is an ordered set."""
        self._by_pair: dict[Key, _Thing] = {}
        """The pending ones that have an envelope."""
        self.put_off = dict.fromkeys([after for after, _ in counted], 0)
        self.pending = dict.fromkeys(self.put_off, 0)
        self.returns = dict.fromkeys(counted, 0)
        self.given_up = {(after, why): 0 for after in self.put_off for why in GivenUp}

    def __len__(self) -> int:
        return len(self._things)

    def visit(self, peer: Key, visit: Visit, latest: Latest) -> None:
        """`latest`: of this peer, before this visit."""
        seen: list[tuple[Key, Key, bool]] = []
        if visit.seen:
            network = self._keys.network(visit.ip)
            for mail, is_put_off in visit.seen.items():
                sender, recipient = mail
                triplet = self._keys.mail(peer, sender, recipient)
                pair = self._keys.mail(network, sender, recipient)
                seen.append((triplet, pair, is_put_off))
                how = Return.INSIDE_TLS if mail in visit.first_seen_inside else Return.CLEAR
                self._envelope_seen(triplet, pair, how, visit)
        of_peer = self._by_peer.get(peer)
        if of_peer is not None:
            for thing in tuple(of_peer):
                if visit.began_ns > thing.began_ns and _within_window(thing, visit):
                    self._peer_seen(thing, visit)
        for triplet, pair, is_put_off in seen:
            if is_put_off:
                self._put_off(_Thing(triplet, After.PUT_OFF, peer, pair, visit), visit, latest)
        after = _STARTTLS.get(visit.starttls)
        if after is not None and after in self.pending:
            key = self._keys.starttls(peer, after)
            self._put_off(_Thing(key, after, peer, None, visit), visit, latest)

    def expire(self, now_ns: int) -> None:
        """Ends the windows that are over, but for records that are still to come."""
        while self._things:
            thing = next(iter(self._things.values()))
            if now_ns - thing.put_off_ns <= WINDOW_NS + LATENESS_NS:
                return
            self._end_window(thing)

    def clock_was_set_back(self) -> None:
        """Nobody can tell any more how long ago anything was."""
        for thing in self._things.values():
            if thing.is_pending:
                self._give_up(thing, GivenUp.IN_DOUBT)
        self._things.clear()

    def _envelope_seen(self, triplet: Key, pair: Key, how: Return, visit: Visit) -> None:
        """A sender and recipient. `how`: it came again, if the same address left it; what that left is no
        longer pending when its turn as the network's comes."""
        of_address, of_network = self._things.get(triplet), self._by_pair.get(pair)
        if of_address is not None:
            self._came_again(of_address, how, visit)
        if of_network is not None:
            self._came_again(of_network, Return.OTHER_ADDRESS, visit)

    def _came_again(self, thing: _Thing, how: Return, visit: Visit) -> None:
        if not thing.is_pending or not _within_window(thing, visit):
            return
        if visit.began_ns > thing.began_ns:
            self._settle(thing, how)
        else:
            # Two sessions side by side: which of them was first to name it is not in the records.
            self._give_up(thing, GivenUp.IN_DOUBT)

    def _peer_seen(self, thing: _Thing, visit: Visit) -> None:
        """A later visit of its peer, which did not show the thing itself."""
        has_envelope = thing.after is After.PUT_OFF
        if visit.mail_in_clear and not has_envelope:
            self._settle(thing, Return.CLEAR)
        elif visit.recipients_in_doubt if has_envelope else visit.mail_in_doubt:
            self._give_up(thing, GivenUp.IN_DOUBT)
        elif visit.is_dark:
            self._settle(thing, Return.DARK)

    def _put_off(self, thing: _Thing, visit: Visit, latest: Latest) -> None:
        known = self._things.get(thing.key)
        if known is not None:
            if _within_window(known, visit):
                return  # it is the same thing
            self._end_window(known)
        self.put_off[thing.after] += 1
        self.pending[thing.after] += 1
        self._things[thing.key] = thing
        of_peer = self._by_peer.setdefault(thing.peer, {})
        of_peer[thing] = None
        if thing.pair is not None:
            self._index_by_pair(thing, thing.pair, visit)
        self._what_is_known_of(thing, visit, latest)
        if len(of_peer) > self._one_peer_limit:
            self._forget(next(iter(of_peer)))
        if len(self._things) > self._limit:
            self._forget(next(iter(self._things.values())))

    def _index_by_pair(self, thing: _Thing, pair: Key, visit: Visit) -> None:
        """One pending thing for each pair: a second address has answered for the first, unless they came
        side by side or the window of the first is over."""
        other = self._by_pair.get(pair)
        if other is not None and _within_window(other, visit):
            self._give_up(other, GivenUp.IN_DOUBT)
        elif other is not None:
            self._end_window(other)
        self._by_pair[pair] = thing

    def _what_is_known_of(self, thing: _Thing, visit: Visit, latest: Latest) -> None:
        """Its return may be in the session that put it off, or in one whose record overtook that."""
        if thing.after is After.PUT_OFF:
            # Those in clear had other recipients, or this one: records are not kept to tell.
            if visit.recipients_in_doubt or max(latest.mail_ns, latest.doubt_ns) > visit.ended_ns:
                self._give_up(thing, GivenUp.IN_DOUBT)
            elif latest.dark_ns > visit.ended_ns:
                self._settle(thing, Return.DARK)
        elif visit.mail_in_clear or latest.mail_ns > visit.ended_ns:
            self._settle(thing, Return.CLEAR)
        elif visit.mail_in_doubt or latest.doubt_ns > visit.ended_ns:
            self._give_up(thing, GivenUp.IN_DOUBT)
        elif latest.dark_ns > visit.ended_ns:
            self._settle(thing, Return.DARK)

    def _settle(self, thing: _Thing, how: Return) -> None:
        self.returns[thing.after, how] += 1
        self._no_longer_pending(thing)

    def _give_up(self, thing: _Thing, why: GivenUp) -> None:
        self.given_up[thing.after, why] += 1
        self._no_longer_pending(thing)

    def _end_window(self, thing: _Thing) -> None:
        if thing.is_pending:
            self._settle(thing, Return.NEVER)
        del self._things[thing.key]

    def _forget(self, thing: _Thing) -> None:
        if thing.is_pending:
            self._give_up(thing, GivenUp.FORGOTTEN)
        del self._things[thing.key]

    def _no_longer_pending(self, thing: _Thing) -> None:
        thing.is_pending = False
        self.pending[thing.after] -= 1
        of_peer = self._by_peer[thing.peer]
        del of_peer[thing]
        if not of_peer:
            del self._by_peer[thing.peer]
        if thing.pair is not None and self._by_pair.get(thing.pair) is thing:
            del self._by_pair[thing.pair]
            thing.pair = None


def _within_window(thing: _Thing, visit: Visit) -> bool:
    return visit.ended_ns - thing.put_off_ns <= WINDOW_NS
