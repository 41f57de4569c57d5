"""What the filter wrote into the ring buffer -> Segment. The layout is `struct event` of filter.c."""

from ctypes import string_at
from struct import Struct
from typing import Final

from probes.ebpf.clock import BootClock
from probes.frames import FrameDecoder
from probes.segment import Segment

# at_boot_ns, length, captured, sequence, acknowledgement, kind, flags, flow.
_IPV4_EVENT: Final = Struct("=QIIIIBB12s26x")
_IPV6_EVENT: Final = Struct("=QIIIIBB36sxx")
_EVENT_BYTES: Final = _IPV6_EVENT.size
_KIND_AT: Final = 24

# `enum kind` of filter.c.
_FRAGMENT: Final = 0
_IPV4_SEGMENT: Final = 4

# Chosen because a poll then costs little beside its events, and a batch of the largest packets is 32 MB.
MAX_BATCH: Final = 512


class EventReader:
    """Collects the events of one poll as a batch of segments."""

    __slots__ = ("_batch", "_clock", "_frames", "_reassembled")

    def __init__(self, frames: FrameDecoder, clock: BootClock) -> None:
        self._frames = frames
        self._clock = clock
        self._batch: list[Segment] = []
        self._reassembled = 0

    def read(self, _context: object, address: int, _size: int) -> int:
        """bcc calls it for each event; a negative answer asks for a pause, as the batch is full.

        It runs for every packet, so it is one flat function.
        """
        head = string_at(address, _EVENT_BYTES)
        layout = _IPV4_EVENT if head[_KIND_AT] == _IPV4_SEGMENT else _IPV6_EVENT
        (
            at_boot_ns,
            length,
            captured,
            sequence,
            acknowledgement,
            kind,
            flags,
            flow,
        ) = layout.unpack(head)
        payload = string_at(address + _EVENT_BYTES, captured) if captured else b""
        at_ns = at_boot_ns + self._clock.utc_minus_boot_ns
        batch = self._batch
        if kind != _FRAGMENT:
            # tuple.__new__ is Segment(...) without its Python function.
            batch.append(
                tuple.__new__(
                    Segment,
                    (
                        at_ns,
                        flow,
                        flags,
                        sequence,
                        acknowledgement,
                        length,
                        payload,
                    ),
                )
            )
        else:
            segment = self._frames.decode_ip(at_ns, payload, length)
            if segment is not None:
                batch.append(segment)
                self._reassembled += 1
        return -1 if len(batch) >= MAX_BATCH else 0

    def take(self) -> tuple[list[Segment], int]:
        """The batch, and how many of its segments came as such, not in fragments which the decoder counts."""
        batch, reassembled = self._batch, self._reassembled
        self._batch, self._reassembled = [], 0
        return batch, len(batch) - reassembled
