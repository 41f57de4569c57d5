"""What the filter wrote into the ring buffer -> Segments. The layout is `struct event` of event.c."""

from struct import Struct
from typing import Final

from probes.ebpf.clock import BootClock
from probes.ebpf.ring import HEADER_BYTES
from probes.frames import FrameDecoder
from probes.segment import LEFT_OUT, Segment

# The ring buffer's header of the record; at_boot_ns, length, captured, sequence, acknowledgement, skipped,
# skipped_end, left, edge, kind, flags, flow.
_EVENT: Final = Struct("=I4xQIIIIIIi4sBBxx36s")

# `enum kind` of event.c.
_FRAGMENT: Final = 0
_IPV4_SEGMENT: Final = 4
_IPV4_NOTICE: Final = 5
_IPV6_NOTICE: Final = 7

_IPV4_FLOW_BYTES: Final = 12
_MODULUS: Final = 1 << 32


class EventReader:
    """Makes segments of events, in their order."""

    __slots__ = ("_clock", "_frames", "segments_seen")

    def __init__(self, frames: FrameDecoder, clock: BootClock) -> None:
        self._frames = frames
        self._clock = clock
        self.segments_seen = 0
        """Those that came as such, not in fragments, which the decoder counts."""

    def read(self, events: bytes) -> list[Segment]:
        """Takes what a ring buffer gave.

        It runs for every packet, so it is one flat function.
        """
        segments: list[Segment] = []
        append = segments.append
        utc_minus_boot_ns = self._clock.utc_minus_boot_ns
        position, end = 0, len(events)
        while position < end:
            (
                record_bytes,
                at_boot_ns,
                length,
                captured,
                sequence,
                acknowledgement,
                skipped,
                skipped_end,
                left,
                edge,
                kind,
                flags,
                flow,
            ) = _EVENT.unpack_from(events, position)
            payload_at = position + _EVENT.size
            position += record_bytes + HEADER_BYTES + 7 & ~7
            at_ns = at_boot_ns + utc_minus_boot_ns
            if kind == _FRAGMENT:
                segment = self._frames.decode_ip(at_ns, events[payload_at : payload_at + captured], length)
                if segment is not None:
                    append(segment)
                continue
            if kind in (_IPV4_SEGMENT, _IPV4_NOTICE):
                flow = flow[:_IPV4_FLOW_BYTES]
            if skipped:
                append(
                    Segment(
                        at_ns,
                        flow,
                        LEFT_OUT,
                        (skipped_end - skipped) % _MODULUS,
                        0,
                        skipped,
                        edge,
                        left,
                    )
                )
            if kind in (_IPV4_NOTICE, _IPV6_NOTICE):
                continue
            self.segments_seen += 1
            payload = events[payload_at : payload_at + captured] if captured else b""
            append(Segment(at_ns, flow, flags, sequence, acknowledgement, length, payload, 0))
        return segments
