"""What the filter keeps of each connection, and is told: the layout is that of appetite.c."""

from struct import Struct
from typing import Final

from probes.ebpf.clock import BootClock
from probes.ebpf.handshakes import Handshakes
from probes.ebpf.program import FLOW_BYTES, FLOW_KEY_BYTES, Program
from probes.segment import ACK, LEFT_OUT, Segment, reverse

# `struct side`: next, until, skipped, left, acknowledged, furthest, shown, edge, appetite, held, in_data,
# bits.
_SIDE: Final = Struct("=I4xIiI8x4s3xB")
# `struct flow` begins with first_at_boot_ns, last_at_boot_ns, the client's side, the server's.
_TIMES: Final = Struct("=QQ")
_SIDES_AT: Final = (_TIMES.size, _TIMES.size + _SIDE.size)
_ASK: Final = Struct("=II")

# The bits of `struct side`, in their order.
_HAS_ACKNOWLEDGED: Final = 1 << 2

_MODULUS: Final = 1 << 32


class Flows:
    """A `probes.probe.Sieve`."""

    __slots__ = ("_clock", "_handshakes", "_program")

    def __init__(self, program: Program, clock: BootClock, handshakes: Handshakes) -> None:
        assert _SIDES_AT[1] + _SIDE.size <= FLOW_BYTES
        self._program = program
        self._clock = clock
        self._handshakes = handshakes

    @property
    def handshakes_incomplete(self) -> int:
        return self._handshakes.incomplete

    def leave_out(self, flow: bytes, sequence: int, length: int) -> None:
        until = (sequence + length) % _MODULUS
        self._program.ask(flow.ljust(FLOW_KEY_BYTES, b"\0"), _ASK.pack(sequence, until))

    def last_at_ns(self, flow: bytes) -> int | None:
        kept = self._program.flow(flow.ljust(FLOW_KEY_BYTES, b"\0"))
        if kept is None:
            return None
        _, last_at_boot_ns = _TIMES.unpack_from(kept)
        return int(last_at_boot_ns) + self._clock.utc_minus_boot_ns

    def take_leftover(self, flow: bytes, last_at_ns: int) -> list[Segment]:
        key = flow.ljust(FLOW_KEY_BYTES, b"\0")
        kept = self._program.flow(key)
        if kept is None:
            return []
        first_at_boot_ns, last_at_boot_ns = _TIMES.unpack_from(kept)
        if first_at_boot_ns + self._clock.least_utc_minus_boot_ns > last_at_ns:
            return []  # the next connection of the same two ends: who reads is behind the wire
        self._program.forget_flow(key)
        at_ns = int(last_at_boot_ns) + self._clock.utc_minus_boot_ns
        stretches: list[Segment] = []
        acknowledgements: list[Segment] = []
        for side_at, sender in zip(_SIDES_AT, (flow, reverse(flow)), strict=True):
            following, skipped, left, acknowledged, edge, bits = _SIDE.unpack_from(kept, side_at)
            if skipped:
                first = (following - skipped) % _MODULUS
                stretches.append(Segment(at_ns, sender, LEFT_OUT, first, 0, skipped, edge, left))
            if bits & _HAS_ACKNOWLEDGED:
                acknowledgements.append(Segment(at_ns, sender, ACK, following, acknowledged, 0, b""))
        return stretches + acknowledgements
