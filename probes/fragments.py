"""IP fragments put together again, in bounded memory.

Fragments come in any order and any of them may be missing, doubled or forged. A datagram is handed back when
its bytes are all there; what is thrown away before that (too old, over a bound, contradicting itself) is
counted, fragment by fragment, in `counts.dropped[DropSite.FRAGMENTS]`.

Overlapping fragments end their datagram at once (RFC 5722 for IPv6; the same here for IPv4, where every
system resolves an overlap in its own way, so that nobody but the receiver knows what was said). An exact
copy is no overlap (RFC 8200 section 4.5): bridges and the `any` interface show packets twice.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from probes.probe import DropSite, PacketCounts

# Linux's net.ipv4.ipfrag_time and net.ipv6.ip6frag_time; RFC 791 section 3.2 suggests 15 s, RFC 8200
# section 4.5 allows 60 s. Capture time, so that a file gives the same result at any speed.
PATIENCE_NS: Final = 30 * 10**9
# Linux's net.ipv4.ipfrag_high_thresh.
MAX_HELD_BYTES: Final = 4 * 2**20
# Chosen because a thousand datagrams under way at once is far beyond any mail server's traffic.
MAX_DATAGRAMS: Final = 1024
# What a fragment costs beside its bytes: measured with sys.getsizeof (tuple, head of the bytes, integers,
# list slot), rounded up. Without it, 8-byte fragments would hold twenty times the bound.
FRAGMENT_OVERHEAD_BYTES: Final = 224
# A second copy of a datagram's fragments follows within microseconds; a sender that numbers IPv4 datagrams in
# sequence uses a number again after 65,536 of them, which takes longer than this.
COPY_PATIENCE_NS: Final = 10**9
# RFC 791 section 3.1 and RFC 8200 section 4.5: what a datagram may hold, once put together.
MAX_DATAGRAM_BYTES: Final = 65_535


class DatagramKey(NamedTuple):
    """What fragments of one datagram have in common."""

    source: bytes
    destination: bytes
    identification: int
    protocol: int
    """IPv4's protocol (RFC 791 section 3.2); -1 for IPv6, where it is no part of the key (RFC 8200
    section 4.5)."""


class Fragment(NamedTuple):
    """One fragment of a datagram."""

    offset: int
    """Where it belongs in the datagram's payload, in bytes."""
    length: int
    """Bytes on the wire; over zero."""
    piece: bytes
    """The captured part of them."""
    protocol: int
    """What the payload is, where the fragment is the first; without meaning in others."""
    more: bool
    """Whether another one follows it."""


class Datagram(NamedTuple):
    """A datagram whose fragments have all been seen."""

    protocol: int
    """Of its first fragment."""
    length: int
    """Payload bytes on the wire."""
    payload: bytes
    """The captured bytes up to the first that the snap length cut off."""


@dataclass(slots=True)
class _Assembly:
    """A datagram under way."""

    started_ns: int
    fragments: list[Fragment] = field(default_factory=list)
    """Sorted, which is by offset: no two begin at the same one."""
    received_bytes: int = 0
    total_bytes: int | None = None
    """Known once the last fragment was seen."""
    held_bytes: int = 0


class Reassembler:
    """The table of datagrams under way."""

    __slots__ = ("_closed", "_counts", "_held_bytes", "_open")

    def __init__(self, counts: PacketCounts) -> None:
        self._counts = counts
        self._open: dict[DatagramKey, _Assembly] = {}
        # Datagrams whose further fragments mean nothing, and until when.
        self._closed: dict[DatagramKey, int] = {}
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Memory charged for fragments that wait for the rest of their datagram."""
        return self._held_bytes

    def add(self, at_ns: int, key: DatagramKey, fragment: Fragment) -> Datagram | None:
        """The datagram, if this was its last missing fragment."""
        self._forget_old(at_ns)
        if (until_ns := self._closed.get(key)) is not None:
            if 0 < until_ns - at_ns <= PATIENCE_NS:  # the upper bound, because a clock may step back
                return None
            del self._closed[key]
        assembly = self._open.get(key)
        if assembly is None:
            if len(self._open) >= MAX_DATAGRAMS:
                self._drop(next(iter(self._open)))
            assembly = self._open[key] = _Assembly(at_ns)

        position = bisect_left(assembly.fragments, fragment)
        if _is_copy(assembly, position, fragment):
            return None
        if _contradicts(assembly, position, fragment):
            self._counts.dropped[DropSite.FRAGMENTS] += 1
            self._drop(key)
            self._close(key, at_ns + PATIENCE_NS)
            return None

        assembly.fragments.insert(position, fragment)
        assembly.received_bytes += fragment.length
        if not fragment.more:
            assembly.total_bytes = fragment.offset + fragment.length
        if assembly.total_bytes is not None and assembly.received_bytes == assembly.total_bytes:
            self._take(key)
            self._close(key, at_ns + COPY_PATIENCE_NS)
            return Datagram(
                assembly.fragments[0].protocol, assembly.total_bytes, _captured_bytes(assembly.fragments)
            )

        cost = len(fragment.piece) + FRAGMENT_OVERHEAD_BYTES
        assembly.held_bytes += cost
        self._held_bytes += cost
        while self._held_bytes > MAX_HELD_BYTES:
            self._drop(next(iter(self._open)))
        return None

    def flush(self) -> None:
        """Counts what is left as dropped: the capture is over."""
        for key in list(self._open):
            self._drop(key)
        self._closed.clear()

    def _forget_old(self, at_ns: int) -> None:
        """Looks at the front only: datagrams under way stand in order of arrival. Closed ones nearly do; what
        hides behind another is harmless, and there are at most MAX_DATAGRAMS."""
        while self._open:
            key = next(iter(self._open))
            if at_ns - self._open[key].started_ns < PATIENCE_NS:
                break
            self._drop(key)
        while self._closed:
            key = next(iter(self._closed))
            if at_ns < self._closed[key]:
                break
            del self._closed[key]

    def _take(self, key: DatagramKey) -> _Assembly:
        assembly = self._open.pop(key)
        self._held_bytes -= assembly.held_bytes
        return assembly

    def _drop(self, key: DatagramKey) -> None:
        self._counts.dropped[DropSite.FRAGMENTS] += len(self._take(key).fragments)

    def _close(self, key: DatagramKey, until_ns: int) -> None:
        if len(self._closed) >= MAX_DATAGRAMS:
            del self._closed[next(iter(self._closed))]
        self._closed[key] = until_ns


def _is_copy(assembly: _Assembly, position: int, fragment: Fragment) -> bool:
    return position < len(assembly.fragments) and assembly.fragments[position] == fragment


def _contradicts(assembly: _Assembly, position: int, fragment: Fragment) -> bool:
    """Overlaps another one, or makes the datagram end in two places. `position`: where it would stand."""
    end = fragment.offset + fragment.length
    if position > 0:
        before = assembly.fragments[position - 1]
        if before.offset + before.length > fragment.offset:
            return True
    if position < len(assembly.fragments) and (
        end > assembly.fragments[position].offset or not fragment.more
    ):
        return True
    return assembly.total_bytes is not None and (not fragment.more or end > assembly.total_bytes)


def _captured_bytes(fragments: list[Fragment]) -> bytes:
    """The bytes in order, up to the first that was not captured."""
    pieces: list[bytes] = []
    for fragment in fragments:
        pieces.append(fragment.piece)
        if len(fragment.piece) < fragment.length:
            break
    return b"".join(pieces)
