"""Which datagrams that tshark put together may be believed.

tshark keeps IP fragments without end, and fills an old datagram's gap with a new one's bytes when its sender
uses an identification again. Where fragments overlap, it chooses. Neither is known of the packet that came to
the receiver, so such datagrams are given up, by the same times as those of `probes.fragments`, and their
fragments are counted in `counts.dropped[DropSite.FRAGMENTS]`.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from probes.fragments import COPY_PATIENCE_NS, PATIENCE_NS
from probes.probe import DropSite, PacketCounts

# Chosen because an entry takes half a kilobyte, and it is eight times what probes.fragments has under way.
MAX_DATAGRAMS: Final = 8192


class DatagramKey(NamedTuple):
    """What fragments of one datagram have in common, as tshark writes it."""

    source: str
    destination: str
    identification: str


@dataclass(slots=True)
class _Waiting:
    """Fragments of a datagram that is not complete."""

    since_ns: int
    offsets: set[str] = field(default_factory=set)
    """A copy of a fragment has the same."""


class FragmentWatch:
    """What one tshark after the other holds of datagrams that are not complete."""

    __slots__ = ("_closed", "_counts", "_stale", "_waiting")

    def __init__(self, counts: PacketCounts) -> None:
        self._counts = counts
        self._waiting: dict[DatagramKey, _Waiting] = {}
        self._stale: dict[DatagramKey, None] = {}
        """Of these tshark holds something that belongs to no datagram to come."""
        self._closed: dict[DatagramKey, int] = {}
        """Datagrams that were complete, and until when their fragments are copies."""

    def wait(self, at_ns: int, key: DatagramKey, offset: str) -> None:
        """A fragment that completed nothing."""
        self._forget_old(at_ns)
        if self._is_copy(at_ns, key):
            self._outdate(key)
        elif key in self._stale:
            self._drop(1)
        else:
            if key not in self._waiting:
                if len(self._waiting) >= MAX_DATAGRAMS:
                    self._give_up(next(iter(self._waiting)))
                self._waiting[key] = _Waiting(at_ns)
            self._waiting[key].offsets.add(offset)

    def complete(self, at_ns: int, key: DatagramKey, *, contradicts: bool) -> bool:
        """Whether the datagram may be believed that tshark completed with this fragment.

        `contradicts`: some of its fragments hold different bytes for the same place.
        """
        self._forget_old(at_ns)
        if self._is_copy(at_ns, key):
            self._stale.pop(key, None)
            return False
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            self._stale.pop(key, None)
            self._drop(1)
            return False
        if len(self._closed) >= MAX_DATAGRAMS:
            del self._closed[next(iter(self._closed))]
        self._closed[key] = at_ns + COPY_PATIENCE_NS
        if contradicts:
            self._drop(len(waiting.offsets) + 1)
        return not contradicts

    def begin_anew(self) -> None:
        """Another tshark answers from now on: what the last one held is lost."""
        for key in list(self._waiting):
            self._give_up(key)
        self._stale.clear()

    def _is_copy(self, at_ns: int, key: DatagramKey) -> bool:
        """The upper bound, because a clock may step back."""
        until_ns = self._closed.get(key)
        return until_ns is not None and 0 < until_ns - at_ns <= PATIENCE_NS

    def _forget_old(self, at_ns: int) -> None:
        """Looks at the front only: datagrams stand nearly in order of arrival."""
        while self._waiting:
            key = next(iter(self._waiting))
            if at_ns - self._waiting[key].since_ns < PATIENCE_NS:
                break
            self._give_up(key)
        while self._closed:
            key = next(iter(self._closed))
            if at_ns < self._closed[key]:
                break
            del self._closed[key]

    def _give_up(self, key: DatagramKey) -> None:
        self._drop(len(self._waiting.pop(key).offsets))
        self._outdate(key)

    def _outdate(self, key: DatagramKey) -> None:
        if len(self._stale) >= MAX_DATAGRAMS:
            del self._stale[next(iter(self._stale))]
        self._stale[key] = None

    def _drop(self, fragments: int) -> None:
        self._counts.dropped[DropSite.FRAGMENTS] += fragments
