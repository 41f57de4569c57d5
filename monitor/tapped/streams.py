"""All connections that the tap sees inside, until a session asks for its own.

The tap knows a connection by its socket, a session by its addresses and ports; these come again, on another
socket, as soon as TCP allows. What ties the two is time: the handshake that begins a stream lies between the
session's first packet and its last. Where that is not certain, the session gets nothing.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from monitor.sessions.record import Direction, Tapped, TapResult
from monitor.sessions.site import Outside
from monitor.tapped.check import is_contradicted
from monitor.tapped.stream import TappedStream
from probes.tls_tap.event import Kind, TapEvent

_SECOND_NS: Final = 1_000_000_000

SLACK_NS: Final = _SECOND_NS // 10
"""How far two clocks of one machine may be apart: packets may have the wall clock's time, which is slewed
between two looks at how far it is from the tap's. Besides, a busy server may act on a client's last packet
after it came. Chosen far above both. What lies so near before or after a session may be another's."""

_PERHAPS_ELSEWHERE: Final = frozenset({Direction.OUTBOUND, Direction.INTERNAL})
"""What is decrypted on another's machine, or on another of ours."""

_LAST: Final = frozenset({Kind.CLOSED, Kind.ENDED})

_MISSED: Final = Tapped(TapResult.MISSED)
_UNSURE: Final = Tapped(TapResult.UNSURE)

_Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Limits:
    streams: int = 16_384
    """Connections. Chosen as a hundred times what a server of this machine serves at once (Postfix's
    default is 100 processes); each needs about 2 kB."""
    kept_bytes: int = 64 << 20
    """What all keep beyond the little that each needs: as the table of sessions may."""
    idle_seconds: float = 7_200.0
    """Who was silent for so long is asked for no more. A session is over after a quarter of an hour without a
    packet; but of a message nothing is heard before its end, and over a slow line that may take long."""


class TappedStreams:
    """Traffic never raises, and what is kept has a bound."""

    def __init__(self, on_mismatch: Callable[[str], None], limits: Limits | None = None) -> None:
        """`on_mismatch`: is told the community ID of a session of which the packets tell another tale."""
        self._on_mismatch = on_mismatch
        self._limits = limits or Limits()
        self._idle_ns = int(self._limits.idle_seconds * _SECOND_NS)
        self._streams: OrderedDict[_Key, TappedStream] = OrderedDict()
        """By their last event, the oldest first."""
        self._by_flow: dict[bytes, list[TappedStream]] = {}
        """In the order in which they began."""
        self._kept_bytes = 0
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def kept_bytes(self) -> int:
        return self._kept_bytes

    def event(self, event: TapEvent) -> None:
        """Takes the next event of any connection."""
        key = (event.flow, event.cookie)
        stream = self._streams.get(key)
        if stream is None:
            if event.kind in _LAST:
                return  # of one that a session has had already
            stream = self._begin(key, event)
        else:
            self._streams.move_to_end(key)
        before = stream.kept_bytes
        stream.event(event)
        self._kept_bytes += stream.kept_bytes - before
        while self._kept_bytes > self._limits.kept_bytes:
            self._forget(max(self._streams.values(), key=_kept_bytes))
        self.tick(event.at_ns)

    def tick(self, now_ns: int) -> None:
        """The clock has moved on, though no event may have come."""
        self._now_ns = max(self._now_ns, now_ns)
        while self._streams:
            oldest = next(iter(self._streams.values()))
            if self._now_ns - oldest.last_at_ns < self._idle_ns:
                return
            self._forget(oldest)

    def take(self, outside: Outside) -> Tapped | None:
        """What a session carried inside TLS, once it is over; None where nothing was seen inside, and it is
        not known to have been encrypted, or may be decrypted on another machine."""
        of_flow = self._by_flow.get(outside.flow, ())
        until_ns = outside.last_at_ns + SLACK_NS
        come = [stream for stream in of_flow if stream.first_at_ns <= until_ns]
        for stream in come:
            if stream.first_at_ns <= outside.last_at_ns:
                self._forget(stream)  # sessions of a flow end one after the other: no later one will ask
        near = [stream for stream in come if stream.first_at_ns >= outside.first_at_ns - SLACK_NS]
        if not near:
            is_expected = outside.established and outside.direction not in _PERHAPS_ELSEWHERE
            return _MISSED if is_expected else None
        stream = near[0]
        is_within = outside.first_at_ns <= stream.first_at_ns <= outside.last_at_ns
        if len(near) > 1 or not is_within or stream.is_unsure:
            return _UNSURE
        if outside.established and stream.is_silent:
            return _MISSED  # who has read and written did so by functions that the tap does not know
        tapped = stream.close(outside.first_at_ns)
        if tapped.result is TapResult.WHOLE and is_contradicted(outside, stream):
            self._on_mismatch(outside.community_id)
        return tapped

    def _begin(self, key: _Key, event: TapEvent) -> TappedStream:
        stream = self._streams[key] = TappedStream(event)
        self._by_flow.setdefault(event.flow, []).append(stream)
        if len(self._streams) > self._limits.streams:
            self._forget(next(iter(self._streams.values())))
        return stream

    def _forget(self, stream: TappedStream) -> None:
        del self._streams[stream.key]
        self._kept_bytes -= stream.kept_bytes
        of_flow = self._by_flow[stream.key[0]]
        of_flow.remove(stream)
        if not of_flow:
            del self._by_flow[stream.key[0]]


def _kept_bytes(stream: TappedStream) -> int:
    return stream.kept_bytes
