"""TCP segments of one connection -> each direction's bytes, in order, and what is missing of them.

Two rules decide what is handed on, and when (RFC 9293 section 3.4 for the arithmetic of sequence numbers):

- **in order**: a byte goes on after all bytes before it in its direction;
- **in causal order**: a segment goes on after everything which it acknowledges. So a reply never overtakes
  its command, however the packets were shuffled between the wire and us.

Segments that cannot go on yet are held. A hole is given up, and becomes a gap, where an acknowledgement
proves that the receiver had those bytes and still they have not come after some more segments (captures
reorder, but not for long); where too much is held; and where the connection ends. A hole that nobody
acknowledged will be filled by a retransmission.

Of bytes that came twice, the first to come count: both ends have usually seen these.
"""

from typing import Final, NamedTuple, Protocol

from monitor.side import Side
from probes.segment import ACK, FIN, RST, SYN, Segment

REORDERING_LIMIT_SEGMENTS: Final = 32
"""How many segments of the connection may overtake another one between the wire and us. Chosen from what
receive-side scaling over a few queues does to a flow; Wireshark's own limit of 3 ms is of the same order at
common rates."""
HELD_LIMIT_SEGMENTS: Final = 1_024
HELD_LIMIT_BYTES: Final = 1 << 20
"""Chosen as a receive window that mail sessions don't exceed (Linux's default tcp_rmem reaches 6 MB, but
autotuning gets there only on paths where bandwidth x delay asks for it)."""

WINDOW_LIMIT_BYTES: Final = 1 << 30
"""The largest TCP window, RFC 7323 section 2.3: numbers further ahead than this belong to no segment of
ours."""

RESET_WINDOW_BYTES: Final = HELD_LIMIT_BYTES
"""How far from the expected number a reset is believed. Its real receiver is stricter (RFC 5961 section 3);
we may have missed as much as we hold."""

_UNUSUAL: Final = SYN | FIN | RST
_HALF: Final = 1 << 31
_MODULUS: Final = 1 << 32
_EVERYTHING: Final = 1 << 62


class StreamReader(Protocol):
    """Takes what a connection's two streams deliver."""

    def data(self, side: Side, data: bytes, at: int, heard: int) -> None:
        """The next bytes of one side, the first of them byte `at` of its stream, sent when their sender had
        acknowledged `heard` bytes of the other side's stream."""

    def lost(self, side: Side, length: int) -> None:
        """The next `length` bytes of one side were not captured."""


class _Held(NamedTuple):
    side: Side
    at: int
    length: int
    payload: bytes
    heard: int
    fin: bool


class _Direction:
    __slots__ = ("acknowledged", "expected", "fin_at", "first", "next", "open")

    def __init__(self) -> None:
        self.first: int | None = None
        """Sequence number of the stream's first byte; None until it is known."""
        self.expected = 0
        """Sequence number of the next byte to deliver."""
        self.next = 0
        """Where that byte stands in the stream; grows beyond 32 bits."""
        self.acknowledged = 0
        """How far the stream is known to have been sent: by the other side's acknowledgements, or a reset."""
        self.fin_at: int | None = None
        self.open = True

    def begin(self, sequence: int) -> None:
        self.first = self.expected = sequence % _MODULUS

    def advance(self, length: int) -> None:
        self.next += length
        self.expected = (self.expected + length) % _MODULUS


class Streams:
    """Both directions of one connection."""

    __slots__ = (
        "_directions",
        "_held",
        "_held_bytes",
        "_overtaken",
        "_reader",
        "closed_first",
        "gap_bytes",
        "reset_by",
        "start_unseen",
        "truncated",
    )

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._directions = (_Direction(), _Direction())
        self._held: list[_Held] = []
        self._held_bytes = 0
        self._overtaken = 0
        self.gap_bytes = 0
        """Bytes that were not captured, of both sides."""
        self.truncated = False
        """A packet was captured without its end."""
        self.start_unseen = False
        """Where a side's stream began is not known."""
        self.closed_first: Side | None = None
        """Who was the first to send its FIN."""
        self.reset_by: Side | None = None

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    @property
    def closed(self) -> bool:
        """Reset, or both sides have closed."""
        return self.reset_by is not None or not (self._directions[0].open or self._directions[1].open)

    @property
    def whole(self) -> bool:
        """Every byte from the first on was captured."""
        return not (self.gap_bytes or self.truncated or self.start_unseen)

    def length(self, side: Side) -> int:
        """Bytes of one side's stream so far, missing ones included."""
        return self._directions[side].next

    def start(self, side: Side, first_sequence: int) -> None:
        """One side's stream begins at this sequence number."""
        if self._directions[side].first is None:
            self._directions[side].begin(first_sequence)

    def begins_at(self, side: Side, first_sequence: int) -> bool:
        """Is this the sequence number with which one side's stream begins?"""
        return self._directions[side].first == first_sequence

    def segment(self, side: Side, segment: Segment) -> None:
        """Takes a segment that one side sent."""
        _, _, _, _, _, flags, sequence, acknowledgement, length, payload = segment
        own = self._directions[side]
        other = self._directions[1 - side]
        heard = _EVERYTHING
        if flags & ACK:
            if other.first is None:
                self._begin_midstream(Side(1 - side), acknowledgement)
            heard = other.next
            if acknowledgement != other.expected:
                heard += (acknowledgement - other.expected + _HALF) % _MODULUS - _HALF
                if heard > other.next + WINDOW_LIMIT_BYTES:
                    heard = other.next
            other.acknowledged = max(other.acknowledged, heard)
        if flags & _UNUSUAL or own.first is None:
            if not self._take_unusual(side, segment):
                return
            sequence += bool(flags & SYN)  # the SYN takes one number; data may stand in it (RFC 7413)
        elif not length:
            if self._held:
                self._overtake()
            return
        elif sequence == own.expected and heard <= other.next and not self._held and own.open:
            # All but a few segments come here: the next bytes, sent when all that they acknowledge had come.
            at = own.next
            own.advance(length)
            if payload:
                self._reader.data(side, payload, at, heard)
            if len(payload) < length:
                self._truncate(side, length - len(payload))
            return
        at = own.next + (sequence - own.expected + _HALF) % _MODULUS - _HALF
        self._take_out_of_order(_Held(side, at, length, payload, heard, bool(flags & FIN)))

    def flush(self) -> None:
        """Nothing more will come: what is held is delivered, and every hole becomes a gap, those at the ends
        included that only an acknowledgement tells of."""
        while self._held:
            self._give_up_hole(self._held[0])
        for side in Side:
            direction = self._directions[side]
            # One number more than was seen is the FIN's, which takes one too; more than that was data.
            if direction.open and direction.acknowledged > direction.next + 1:
                self._lose(side, direction.acknowledged)

    # ------------------------------------------------------------------

    def _begin_midstream(self, side: Side, sequence: int) -> None:
        """A side's first byte was not announced by its SYN: what came before this number is not known."""
        self._directions[side].begin(sequence)
        self.start_unseen = True
        self._reader.lost(side, 0)

    def _take_unusual(self, side: Side, segment: Segment) -> bool:
        """SYN, FIN, RST, and the first segment of a stream that was not seen to begin. False where nothing is
        left to do."""
        own = self._directions[side]
        if own.first is None:
            self._begin_midstream(side, segment.sequence + bool(segment.flags & SYN))
        if segment.flags & RST:
            ahead = (segment.sequence - own.expected + _HALF) % _MODULUS - _HALF
            if abs(ahead) <= RESET_WINDOW_BYTES:
                self.reset_by = side if self.reset_by is None else self.reset_by
                # All before the reset's own number was sent.
                own.acknowledged = max(own.acknowledged, own.next + ahead)
            return False
        return bool(segment.length or segment.flags & FIN)

    def _take_out_of_order(self, piece: _Held) -> None:
        """A segment that is not simply the next one."""
        own, other = self._directions[piece.side], self._directions[1 - piece.side]
        if piece.at > own.next + WINDOW_LIMIT_BYTES:
            return
        if other.fin_at is not None and piece.heard > other.fin_at:
            piece = piece._replace(heard=other.fin_at)
        if piece.at <= own.next and piece.heard <= other.next:
            self._deliver(piece)
            if self._held:
                self._release()
        elif piece.at + piece.length + piece.fin > own.next:
            self._hold(piece)
        if self._held:
            self._overtake()

    def _deliver(self, piece: _Held) -> None:
        side, at, length, payload, heard, fin = piece
        direction = self._directions[side]
        new = at + length - direction.next
        if new > 0 and direction.open:
            begin = direction.next
            payload = payload[length - new :]
            direction.advance(new)
            if payload:
                self._reader.data(side, payload, begin, heard)
            if len(payload) < new:
                self._truncate(side, new - len(payload))
        if fin and direction.open and at + length <= direction.next:
            direction.fin_at = at + length
            direction.open = False
            if self.closed_first is None:
                self.closed_first = side

    def _truncate(self, side: Side, length: int) -> None:
        """The last bytes of a packet were not captured."""
        self.truncated = True
        self._reader.lost(side, length)

    def _hold(self, piece: _Held) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece.payload)
        while len(self._held) > HELD_LIMIT_SEGMENTS or self._held_bytes > HELD_LIMIT_BYTES:
            self._give_up_hole(self._held[0])

    def _release(self) -> None:
        """Delivers what can go on now."""
        progress = True
        while progress and self._held:
            progress = False
            kept: list[_Held] = []
            for piece in self._held:
                if piece.at <= self._directions[piece.side].next and not self._waits_for_other(piece):
                    self._held_bytes -= len(piece.payload)
                    self._deliver(piece)
                    progress = True
                else:
                    kept.append(piece)
            self._held = kept
        if not self._held:
            self._overtaken = 0

    def _overtake(self) -> None:
        """Another segment has passed those that are held."""
        self._overtaken += 1
        if self._overtaken <= REORDERING_LIMIT_SEGMENTS:
            return
        for piece in self._held:
            if self._proven(piece):
                self._overtaken = 0
                self._give_up_hole(piece)
                return

    def _proven(self, piece: _Held) -> bool:
        """Has the other side acknowledged what this one waits for?"""
        return self._waits_for_other(piece) or self._directions[piece.side].acknowledged >= piece.at

    def _waits_for_other(self, piece: _Held) -> bool:
        """Does a piece acknowledge what was not delivered yet? A FIN takes a number, too."""
        other = self._directions[1 - piece.side]
        return piece.heard > other.next + (not other.open)

    def _give_up_hole(self, piece: _Held) -> None:
        """Declares lost what a piece waits for: first what it acknowledges, then what stands before it."""
        other = Side(1 - piece.side)
        missing = piece.heard - self._directions[other].next
        if missing == 1:
            # A FIN that was not captured, most likely; and if it was a byte, no line is lost with it.
            self._held[self._held.index(piece)] = piece._replace(heard=piece.heard - 1)
        elif missing > 1:
            self._lose(other, self._first_held(other, piece.heard))
        elif piece.at > self._directions[piece.side].next:
            self._lose(piece.side, self._first_held(piece.side, piece.at))
        self._release()

    def _first_held(self, side: Side, limit: int) -> int:
        """Where the hole of a side ends: at the first held byte of it, at the latest at `limit`."""
        begin = self._directions[side].next
        starts = [held.at for held in self._held if held.side is side and begin < held.at < limit]
        return min(starts, default=limit)

    def _lose(self, side: Side, end: int) -> None:
        direction = self._directions[side]
        length = end - direction.next
        direction.advance(length)
        self.gap_bytes += length
        self._reader.lost(side, length)
