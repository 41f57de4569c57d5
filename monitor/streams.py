"""TCP segments of one connection -> each direction's bytes, in order, and what is missing of them.

Two rules decide what is handed on, and when (RFC 9293 section 3.4 for the arithmetic of sequence numbers):

- **in order**: a byte goes on after all bytes before it in its direction;
- **in causal order**: a segment goes on after everything which it acknowledges. So a reply never overtakes
  its command, however the packets were shuffled between the wire and us.

Segments that cannot go on yet are held. A hole is given up, and becomes a gap, where an acknowledgement
proves that the receiver had those bytes and still they have not come after some more segments (captures
reorder, but not for long); where too much is held; and where the connection ends. A hole that nobody
acknowledged will be filled by a retransmission.

Where a stream begins is told by its SYN. Where that was not captured, the first few segments are gathered,
and the stream begins at the lowest number among them.

Of bytes that came twice, those delivered first count: both ends have usually seen these.
"""

from abc import ABC, abstractmethod
from bisect import insort
from operator import attrgetter
from typing import Final

from mypy_extensions import mypyc_attr

from monitor.side import Side
from probes.segment import ACK, FIN, LEFT_OUT, RST, SYN, Segment

REORDERING_LIMIT_SEGMENTS: Final = 32
"""How many segments of the connection may overtake another one between the wire and us. Chosen from what
receive-side scaling over a few queues does to a flow; Wireshark's own limit of 3 ms is of the same order at
common rates."""
HELD_LIMIT_SEGMENTS: Final = 1_024
HELD_LIMIT_BYTES: Final = 1 << 20
"""Chosen as a receive window that mail sessions don't exceed (Linux's default tcp_rmem reaches 6 MB, but
autotuning gets there only on paths where bandwidth x delay asks for it)."""
HELD_OVERHEAD_BYTES: Final = 256
"""What Python needs for a held segment besides its payload (measured: 230), so that a crowd of tiny ones is
bounded, too."""

WINDOW_LIMIT_BYTES: Final = 1 << 30
"""The largest TCP window, RFC 7323 section 2.3: numbers further ahead than this belong to no segment of
ours."""

RESET_WINDOW_BYTES: Final = HELD_LIMIT_BYTES
"""How far from the expected number a reset is believed. Its real receiver is stricter (RFC 5961 section 3);
we may have missed as much as we hold."""

_UNUSUAL: Final = SYN | FIN | RST | LEFT_OUT
_HALF: Final = 1 << 31
_MODULUS: Final = 1 << 32
_BY_PLACE: Final = attrgetter("at")
_CLIENT: Final = Side.CLIENT  # an attribute of an enum costs as much as the sum it stands in
_SIDES: Final = (Side.CLIENT, Side.SERVER)  # and going through an enum a hundred times as much


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamReader(ABC):
    """Takes what a connection's two streams deliver."""

    __slots__ = ()

    @abstractmethod
    def data(self, side: Side, data: bytes, at: int, heard: int) -> int:
        """The next bytes of one side, the first of them byte `at` of its stream, sent when their sender had
        acknowledged `heard` bytes of the other side's stream.

        Returns:
            How many of that side's next bytes the reader need not see.
        """

    @abstractmethod
    def passed(self, side: Side, length: int) -> None:
        """The next `length` bytes of one side came, of those that need not be seen."""

    @abstractmethod
    def left_out(self, side: Side, length: int, edge: bytes, left: int) -> bool:
        """The next `length` bytes of one side came, and the probe left them out; see
        `probes.segment.Segment.left`.

        Returns:
            False where the reader needs them after all: then they are lost.
        """

    @abstractmethod
    def lost(self, side: Side, length: int) -> None:
        """The next `length` bytes of one side were not captured."""


@mypyc_attr(acyclic=True)
class _Held:
    __slots__ = ("at", "fin", "heard", "left", "length", "payload", "side")

    def __init__(
        self, side: Side, at: int, length: int, payload: bytes, heard: int, *, fin: bool, left: int | None
    ) -> None:
        self.side: Final = side
        self.at: Final = at
        self.length: Final = length
        self.payload: Final = payload
        self.heard = heard
        self.fin: Final = fin
        self.left: Final = left
        """None of a segment; else it is a stretch that was left out, see `Segment.left`."""


@mypyc_attr(acyclic=True)
class _Direction:
    __slots__ = (
        "acknowledged",
        "begun",
        "expected",
        "fin_at",
        "next",
        "open",
        "overtaken",
        "passed",
        "unneeded",
    )

    def __init__(self) -> None:
        self.begun = False
        """Where the stream begins is known."""
        self.open = True
        self.expected = 0
        """Sequence number of the next byte to deliver."""
        self.next = 0
        """Where that byte stands in the stream; grows beyond 32 bits."""
        self.acknowledged = 0
        """How far the stream is known to have been sent: by the other side's acknowledgements, or a reset."""
        self.overtaken = 0
        """How many segments of the connection have passed what is held of this side, since the stream last
        went on."""
        self.fin_at: int | None = None
        self.unneeded = 0
        """How many of the next bytes the reader need not see."""
        self.passed = 0
        """How many of those have come, of which it does not know yet."""

    def begin(self, sequence: int) -> None:
        self.begun = True
        self.expected = sequence % _MODULUS

    @property
    def first(self) -> int:
        """Sequence number of the first byte of a stream that has begun."""
        return (self.expected - self.next) % _MODULUS

    def advance(self, length: int) -> None:
        self.next += length
        self.expected = (self.expected + length) % _MODULUS


class Streams:
    """Both directions of one connection."""

    __slots__ = (
        "_client",
        "_gathered",
        "_held",
        "_held_bytes",
        "_reader",
        "_server",
        "closed_first",
        "gap_bytes",
        "reset_by",
        "start_unseen",
        "truncated",
    )

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._client = _Direction()
        self._server = _Direction()
        self._gathered: list[tuple[Side, Segment]] | None = []
        """Segments that came before it was known where both streams begin; None from then on."""
        self._held: tuple[list[_Held], list[_Held]] | None = None
        """Each side's segments that can't go on yet, by their place in its stream; None where there are
        none."""
        self._held_bytes = 0
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
        """Memory of the segments that can't go on yet."""
        return self._held_bytes

    @property
    def closed(self) -> bool:
        """Reset, or both sides have closed."""
        return self.reset_by is not None or not (self._client.open or self._server.open)

    @property
    def whole(self) -> bool:
        """Every byte from the first on was captured."""
        return not (self.gap_bytes or self.truncated or self.start_unseen)

    def unneeded(self, side: Side) -> tuple[int, int]:
        """Which bytes of a side the reader need not see: the sequence number of the first, and how many."""
        direction = self._of(side)
        return direction.expected, direction.unneeded

    def length(self, side: Side) -> int:
        """Bytes of one side's stream so far, missing ones included."""
        return self._of(side).next

    def start(self, side: Side, first_sequence: int) -> None:
        """One side's stream begins at this sequence number."""
        own, other = self._of(side), self._other(side)
        if not own.begun:
            own.begin(first_sequence)
            if other.begun:
                self._end_gathering()

    def begins_at(self, side: Side, first_sequence: int) -> bool:
        """Is this the sequence number with which one side's stream begins?"""
        direction = self._of(side)
        return direction.begun and direction.first == first_sequence

    def gathered_behind(self, side: Side, first_sequence: int) -> list[Segment] | None:
        """The segments so far, where none was delivered yet and a stream that begins at this number fits
        them; else None."""
        if self._gathered is None or self._of(side).begun:
            return None
        furthest = max(
            ((number - first_sequence) % _MODULUS for number in _numbers(self._gathered, side)), default=0
        )
        return [one for _, one in self._gathered] if furthest <= HELD_LIMIT_BYTES else None

    def segment(self, side: Side, segment: Segment) -> None:
        """Takes a segment that one side sent."""
        if self._gathered is not None:
            self._gather(self._gathered, side, segment)
            return
        flags, sequence, length = segment.flags, segment.sequence, segment.length
        if side is _CLIENT:
            own, other = self._client, self._server
        else:
            own, other = self._server, self._client
        heard = 0
        if flags & ACK:
            acknowledgement = segment.acknowledgement
            if not other.begun:
                self._begin_midstream(Side(1 - side), acknowledgement)
            heard = other.next
            if acknowledgement != other.expected:
                heard += (acknowledgement - other.expected + _HALF) % _MODULUS - _HALF
                if heard > other.next + WINDOW_LIMIT_BYTES:
                    heard = other.next
            if heard > other.acknowledged:
                other.acknowledged = heard
        elif not flags & (SYN | RST | LEFT_OUT):
            return  # no receiver takes it: RFC 9293 section 3.10.7.4
        if flags & _UNUSUAL or not own.begun:
            if not self._take_unusual(side, segment):
                return
            sequence += bool(flags & SYN)  # the SYN takes one number; data may stand in it (RFC 7413)
        elif not length:
            if self._held is not None:
                self._overtake()
            return
        elif sequence == own.expected and heard <= other.next and self._held is None and own.open:
            # All but a few segments come here: the next bytes, sent when all that they acknowledge had come.
            at = own.next
            own.advance(length)
            payload = segment.payload
            if length > len(payload):
                self._read(side, payload, at, heard)
                self._truncate(side, length - len(payload))
            elif length <= own.unneeded:
                own.unneeded -= length
                own.passed += length
            else:
                self._read(side, payload, at, heard)
            return
        at = own.next + (sequence - own.expected + _HALF) % _MODULUS - _HALF
        left = segment.left if flags & LEFT_OUT else None
        fin = bool(flags & FIN)
        self._take_out_of_order(_Held(side, at, length, segment.payload, heard, fin=fin, left=left))

    def flush(self) -> None:
        """Nothing more will come: what is held is delivered, and every hole becomes a gap, those at the ends
        included that only an acknowledgement tells of."""
        if self._gathered is not None:
            self._begin_where_seen(self._gathered)
        self._release()
        while self._held is not None:
            self._give_up_hole(self._most_held())
        for side in _SIDES:
            direction = self._of(side)
            if direction.passed:
                self._tell_passed(side)
            # One number more than was seen is the FIN's, which takes one too; more than that was data.
            if direction.open and direction.acknowledged > direction.next + 1:
                self._lose(side, direction.acknowledged)

    # ------------------------------------------------------------------

    def _of(self, side: Side) -> _Direction:
        return self._client if side is _CLIENT else self._server

    def _other(self, side: Side) -> _Direction:
        return self._server if side is _CLIENT else self._client

    def _gather(self, gathered: list[tuple[Side, Segment]], side: Side, segment: Segment) -> None:
        gathered.append((side, segment))
        self._held_bytes += len(segment.payload) + HELD_OVERHEAD_BYTES
        if (
            len(gathered) > REORDERING_LIMIT_SEGMENTS
            or self._held_bytes > HELD_LIMIT_BYTES
            or segment.flags & (FIN | RST)
        ):
            self._begin_where_seen(gathered)

    def _begin_where_seen(self, gathered: list[tuple[Side, Segment]]) -> None:
        """A side's SYN did not come: its stream begins with the first byte that was seen or acknowledged."""
        for side in _SIDES:
            if not self._of(side).begun:
                numbers = _numbers(gathered, side)
                if numbers:
                    lowest = min((number - numbers[0] + _HALF) % _MODULUS - _HALF for number in numbers)
                    self._begin_midstream(side, numbers[0] + lowest)
        self._end_gathering()

    def _end_gathering(self) -> None:
        gathered, self._gathered = self._gathered, None
        self._held_bytes = 0
        for side, segment in gathered or ():
            self.segment(side, segment)

    def _begin_midstream(self, side: Side, sequence: int) -> None:
        """A side's first byte was not announced by its SYN: what came before this number is not known."""
        self._of(side).begin(sequence)
        self.start_unseen = True
        self._reader.lost(side, 0)

    def _take_unusual(self, side: Side, segment: Segment) -> bool:
        """SYN, FIN, RST, and the first segment of a stream that was not seen to begin. False where nothing is
        left to do."""
        own = self._of(side)
        if not own.begun:
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
        own, other = self._of(piece.side), self._other(piece.side)
        if piece.at > own.next + WINDOW_LIMIT_BYTES:
            return
        if other.fin_at is not None and piece.heard > other.fin_at:
            piece.heard = other.fin_at
        if self._may_go_on(piece):
            self._deliver(piece)
            self._release()
        elif own.open and piece.at + piece.length + piece.fin > own.next:
            self._hold(piece)
        if self._held is not None:
            self._overtake()

    def _deliver(self, piece: _Held) -> None:
        side, at, length, left = piece.side, piece.at, piece.length, piece.left
        direction = self._of(side)
        new = at + length - direction.next
        if new > 0 and direction.open:
            begin = direction.next
            direction.overtaken = 0
            direction.advance(new)
            if left is not None:
                self._leave_out(side, new, piece.payload, left)
            else:
                payload = piece.payload[length - new :]
                self._read(side, payload, begin, piece.heard)
                if len(payload) < new:
                    self._truncate(side, new - len(payload))
        # Its FIN stands right behind the last byte; or on it, where that byte was only an acknowledgement's
        # word, which counts the FIN, too. An older one is nobody's.
        if piece.fin and direction.open and 0 <= direction.next - (at + length) <= 1:
            direction.fin_at = at + length
            direction.open = False
            if self.closed_first is None:
                self.closed_first = side
            if self._held is not None:
                self._forget(side)

    def _read(self, side: Side, payload: bytes, at: int, heard: int) -> None:
        """Hands bytes on."""
        direction = self._of(side)
        if direction.passed:
            self._tell_passed(side)
        if payload:
            direction.unneeded = self._reader.data(side, payload, at, heard)

    def _tell_passed(self, side: Side) -> None:
        direction = self._of(side)
        self._reader.passed(side, direction.passed)
        direction.passed = 0

    def _leave_out(self, side: Side, length: int, edge: bytes, left: int) -> None:
        """A stretch that the probe left out."""
        direction = self._of(side)
        if direction.passed:
            self._tell_passed(side)
        direction.unneeded = 0
        if not self._reader.left_out(side, length, edge, left):
            self.gap_bytes += length
            self._reader.lost(side, length)

    def _truncate(self, side: Side, length: int) -> None:
        """The last bytes of a packet were not captured."""
        self.truncated = True
        self._of(side).unneeded = 0
        self._reader.lost(side, length)

    def _hold(self, piece: _Held) -> None:
        if self._held is None:
            self._held = ([], [])
        if not self._held[piece.side]:
            self._of(piece.side).overtaken = 0
        insort(self._held[piece.side], piece, key=_BY_PLACE)
        self._held_bytes += len(piece.payload) + HELD_OVERHEAD_BYTES
        while self._holds_too_much():
            self._give_up_hole(self._most_held())

    def _holds_too_much(self) -> bool:
        held = self._held
        return held is not None and (
            self._held_bytes > HELD_LIMIT_BYTES or len(held[0]) + len(held[1]) > HELD_LIMIT_SEGMENTS
        )

    def _release(self) -> None:
        """Delivers what can go on now."""
        held = self._held
        if held is None:
            return
        progress = True
        while progress:
            progress = False
            for pieces in held:
                while pieces and self._may_go_on(pieces[0]):
                    piece = pieces.pop(0)
                    self._held_bytes -= len(piece.payload) + HELD_OVERHEAD_BYTES
                    self._deliver(piece)
                    progress = True
        if not (held[0] or held[1]):
            self._held = None

    def _forget(self, side: Side) -> None:
        """A side has closed: what it seems to have sent behind its FIN is not its own."""
        if self._held is not None:
            for piece in self._held[side]:
                self._held_bytes -= len(piece.payload) + HELD_OVERHEAD_BYTES
            self._held[side].clear()

    def _overtake(self) -> None:
        """Another segment has passed those that are held."""
        for side in _SIDES:
            direction = self._of(side)
            direction.overtaken += 1
            if self._held is not None and direction.overtaken > REORDERING_LIMIT_SEGMENTS:
                pieces = self._held[side]
                if pieces and self._proven(pieces[0]):
                    self._give_up_hole(side)

    def _may_go_on(self, piece: _Held) -> bool:
        """Has all come that stands before it, and all that it acknowledges? Or is nothing in it new?"""
        next_place = self._of(piece.side).next
        if piece.at > next_place:
            return False
        return not self._waits_for_other(piece) or piece.at + piece.length + piece.fin <= next_place

    def _proven(self, piece: _Held) -> bool:
        """Has the other side acknowledged what this one waits for?"""
        return self._waits_for_other(piece) or self._of(piece.side).acknowledged >= piece.at

    def _waits_for_other(self, piece: _Held) -> bool:
        """Does a piece acknowledge what was not delivered yet? A FIN takes a number, too."""
        other = self._other(piece.side)
        return piece.heard > other.next + (not other.open)

    def _most_held(self) -> Side:
        """The side of which more segments are held."""
        assert self._held is not None
        return Side.SERVER if len(self._held[Side.SERVER]) > len(self._held[Side.CLIENT]) else Side.CLIENT

    def _give_up_hole(self, side: Side) -> None:
        """Declares lost what the first held piece of a side waits for."""
        assert self._held is not None
        piece = self._held[side][0]
        other = self._other(side)
        rival = self._held[1 - side][0] if self._held[1 - side] else None
        if not self._waits_for_other(piece):
            self._lose(side, piece.at)
        elif rival is not None and rival.at <= other.next and piece.at > self._of(side).next:
            # What it acknowledges is at hand, and waits in its turn: for what is missing before this piece.
            self._lose(side, min(piece.at, rival.heard))
        elif (
            not other.open or piece.heard == other.next + 1 or (rival is not None and rival.at <= other.next)
        ):
            # It acknowledges a FIN that was not captured, most likely; and if it was a byte, no line is lost
            # with it. Or something that can't be.
            piece.heard = other.next
        else:
            self._lose(Side(1 - side), piece.heard if rival is None else min(piece.heard, rival.at))
        self._release()

    def _lose(self, side: Side, end: int) -> None:
        direction = self._of(side)
        length = end - direction.next
        if direction.passed:
            self._tell_passed(side)
        direction.unneeded = 0
        direction.advance(length)
        self.gap_bytes += length
        self._reader.lost(side, length)


def _numbers(gathered: list[tuple[Side, Segment]], side: Side) -> list[int]:
    """Where segments stand in one side's stream: by its own numbers, and by what the other acknowledges."""
    return [
        one.sequence + bool(one.flags & SYN) if sender is side else one.acknowledgement
        for sender, one in gathered
        if not one.flags & RST and (sender is side or one.flags & ACK)
    ]
