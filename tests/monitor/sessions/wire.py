"""A TCP connection written as a transcript -> its segments, as a capture would have them."""

from collections.abc import Iterable
from typing import Any, Self

from monitor.side import Side
from probes.segment import ACK, FIN, RST, SYN, Segment, flow_of
from tests.segments import records_of

SECOND_NS = 1_000_000_000
START_NS = 1_790_000_000 * SECOND_NS
MODULUS = 1 << 32


class Wire:
    """Each call sends a segment; its number and what it acknowledges follow from those before."""

    def __init__(
        self, port: int = 25, *, client_port: int = 40_000, first: int = 1_000, at_ns: int = START_NS
    ) -> None:
        self.ends = ((b"\xc0\x00\x02\x01", client_port), (b"\xc0\x00\x02\x02", port))
        self.segments: list[Segment] = []
        self.at_ns = at_ns
        self._numbers = [first, first + 70_000]
        self._heard: list[int | None] = [None, None]

    def segment(self, side: Side, flags: int, data: bytes = b"", *, crossing: bool = False) -> Segment:
        """Sends one. `crossing`: before its sender heard what the other side sent last."""
        self.at_ns += SECOND_NS // 1_000
        if not crossing and self._heard[1 - side] is not None:
            self._heard[side] = self._numbers[1 - side]
        heard = self._heard[side]
        segment = Segment(
            self.at_ns,
            flow_of(*self.ends[side], *self.ends[1 - side]),
            flags | (0 if heard is None else ACK),
            self._numbers[side] % MODULUS,
            (heard or 0) % MODULUS,
            len(data),
            data,
        )
        self._numbers[side] += len(data) + bool(flags & (SYN | FIN))
        self.segments.append(segment)
        return segment

    def open(self) -> Self:
        self.segment(Side.CLIENT, SYN)
        self._heard = [None, self._numbers[Side.CLIENT]]
        self.segment(Side.SERVER, SYN, crossing=True)
        self._heard[Side.CLIENT] = self._numbers[Side.SERVER]
        self.segment(Side.CLIENT, 0)
        return self

    def say(self, transcript: str) -> Self:
        """Lines of `C: ...` and `S: ...`, one segment each."""
        for line in filter(None, transcript.splitlines()):
            who, _, text = line.partition(": ")
            self.send(Side.CLIENT if who == "C" else Side.SERVER, text.encode() + b"\r\n")
        return self

    def send(self, side: Side, data: bytes, *, crossing: bool = False) -> Self:
        self.segment(side, 0, data, crossing=crossing)
        return self

    def play(self, transcript: Iterable[tuple[Side, bytes]]) -> Self:
        for side, data in transcript:
            self.send(side, data)
        return self

    def finish(self, side: Side) -> Self:
        self.segment(side, FIN)
        return self

    def reset(self, side: Side) -> Self:
        self.segment(side, RST)
        return self

    def close(self, first: Side = Side.CLIENT) -> Self:
        self.finish(first).finish(Side(1 - first))
        self.segment(first, 0)
        return self

    def record(self) -> dict[str, Any]:
        """The one record that these segments give."""
        (record,) = records_of(self.segments)
        return record
