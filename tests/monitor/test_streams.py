"""TCP segments -> both streams: in order, in causal order, and never more memory than the bounds say."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.side import Side
from monitor.streams import (
    HELD_LIMIT_BYTES,
    HELD_LIMIT_SEGMENTS,
    HELD_OVERHEAD_BYTES,
    REORDERING_LIMIT_SEGMENTS,
    WINDOW_LIMIT_BYTES,
    StreamReader,
    Streams,
)
from probes.segment import ACK, FIN, LEFT_OUT, RST, SYN, Segment, flow_of

C, S = Side.CLIENT, Side.SERVER
ENDS = ((b"\xc0\x00\x02\x01", 40_000), (b"\xc0\x00\x02\x02", 25))
MODULUS = 1 << 32
BEGINS = (1_000, 5_000)


@dataclass
class Listener(StreamReader):
    """Writes down what is delivered: bytes as they are, lost ones as `?`, those that it need not see as `.`,
    and those that the probe left out as `-`."""

    streams: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    order: list[tuple[Side, int]] = field(default_factory=list)
    causal: bool = True
    lost_bytes: int = 0
    unneeded: int = 0
    understands: bool = True
    """What was left out was not needed."""

    def data(self, side: Side, data: bytes, at: int, heard: int) -> int:
        assert data
        assert at == len(self.streams[side])
        self.causal &= heard <= len(self.streams[1 - side]) + 1
        self.streams[side].extend(data)
        self.order.append((side, at))
        return self.unneeded

    def passed(self, side: Side, length: int) -> None:
        assert 0 < length <= self.unneeded
        self.streams[side].extend(b"." * length)

    def left_out(self, side: Side, length: int, edge: bytes, left: int) -> bool:
        assert length > 0
        if self.understands:
            self.streams[side].extend(b"-" * length)
        return self.understands

    def lost(self, side: Side, length: int) -> None:
        assert length >= 0
        self.lost_bytes += length
        assert length < 1 << 24
        self.streams[side].extend(b"?" * length)


class Connection:
    """Both streams, written as a transcript: places in the streams instead of sequence numbers."""

    def __init__(self, begins: tuple[int, int] = BEGINS, *, announced: bool = True) -> None:
        self.listener = Listener()
        self.streams = Streams(self.listener)
        self.begins = begins
        if announced:
            for side in Side:
                self.streams.start(side, begins[side])

    def send(
        self,
        side: Side,
        at: int,
        payload: bytes = b"",
        heard: int | None = 0,
        flags: int = 0,
        length: int | None = None,
    ) -> None:
        self.streams.segment(side, self.segment(side, at, payload, heard, flags, length))

    def segment(
        self,
        side: Side,
        at: int,
        payload: bytes = b"",
        heard: int | None = 0,
        flags: int = 0,
        length: int | None = None,
    ) -> Segment:
        """`heard`: None without ACK; `length`: where the capture cut the payload short."""
        acknowledgement = 0 if heard is None else (self.begins[1 - side] + heard) % MODULUS
        return Segment(
            0,
            flow_of(*ENDS[side], *ENDS[1 - side]),
            flags | (0 if heard is None else ACK),
            (self.begins[side] + at) % MODULUS,
            acknowledgement,
            len(payload) if length is None else length,
            payload,
        )

    def wait(self) -> None:
        """More segments pass than may be out of order."""
        for _ in range(REORDERING_LIMIT_SEGMENTS + 1):
            self.send(C, 0)

    @property
    def client(self) -> bytes:
        return bytes(self.listener.streams[C])

    @property
    def server(self) -> bytes:
        return bytes(self.listener.streams[S])


# ---------------------------------------------------------------------- order


def test_bytes_in_order_go_on_at_once() -> None:
    wire = Connection()
    wire.send(S, 0, b"220 mx\r\n")
    wire.send(C, 0, b"EHLO c\r\n", heard=8)
    assert (wire.server, wire.client) == (b"220 mx\r\n", b"EHLO c\r\n")
    assert wire.streams.whole


def test_a_segment_that_comes_early_waits_for_its_turn() -> None:
    wire = Connection()
    wire.send(C, 3, b"def")
    assert wire.client == b""
    assert wire.streams.held_bytes == 3 + HELD_OVERHEAD_BYTES
    wire.send(C, 0, b"abc")
    assert wire.client == b"abcdef"
    assert wire.streams.held_bytes == 0


def test_a_reply_never_overtakes_its_command() -> None:
    wire = Connection()
    wire.send(S, 0, b"250 ok\r\n", heard=6)
    assert wire.server == b""
    wire.send(C, 0, b"NOOP\r\n")
    assert wire.listener.order == [(C, 0), (S, 0)]


def test_a_whole_dialogue_backwards_comes_out_forwards() -> None:
    wire = Connection()
    wire.send(C, 6, b"QUIT\r\n", heard=8)
    wire.send(S, 0, b"250 ok\r\n", heard=6)
    wire.send(C, 0, b"NOOP\r\n")
    assert wire.listener.order == [(C, 0), (S, 0), (C, 6)]


def test_of_a_retransmission_with_other_bytes_the_first_count() -> None:
    wire = Connection()
    wire.send(C, 0, b"MAIL")
    wire.send(C, 0, b"mail")
    wire.send(C, 2, b"xxRCPT")
    assert wire.client == b"MAILRCPT"
    assert wire.streams.whole


def test_an_overlap_gives_only_what_is_new() -> None:
    wire = Connection()
    wire.send(C, 0, b"abcd")
    wire.send(C, 2, b"cdef")
    wire.send(C, 8, b"ij")
    wire.send(C, 5, b"fghij")
    assert wire.client == b"abcdefghij"
    assert wire.streams.held_bytes == 0


def test_what_acknowledges_nothing_is_taken_by_nobody() -> None:
    wire = Connection()
    wire.send(C, 0, b"evil", heard=None)
    wire.send(C, 0, b"", heard=None, flags=FIN)
    wire.send(C, 0, b"good")
    assert wire.client == b"good"


def test_keep_alives_are_no_data() -> None:
    wire = Connection()
    wire.send(C, 0, b"abc")
    wire.send(C, 2, b"")
    wire.send(C, 2, b"\x00")
    wire.send(C, 3, b"d")
    assert wire.client == b"abcd"


def test_a_super_segment_is_one_piece_of_bytes() -> None:
    wire = Connection()
    wire.send(C, 0, b"x" * 65_483)
    wire.send(C, 65_483, b"y")
    assert wire.client == b"x" * 65_483 + b"y"
    assert wire.listener.order == [(C, 0), (C, 65_483)]


@pytest.mark.parametrize("begins", [(MODULUS - 3, 5), (5, MODULUS - 1), (MODULUS - 2, MODULUS - 2)])
def test_sequence_numbers_wrap(begins: tuple[int, int]) -> None:
    wire = Connection(begins)
    wire.send(C, 4, b"efgh", heard=4)
    wire.send(S, 0, b"ABCD", heard=4)
    wire.send(C, 0, b"abcd")
    assert (wire.client, wire.server) == (b"abcdefgh", b"ABCD")
    assert wire.streams.whole


def test_a_stream_may_be_longer_than_its_sequence_numbers_count() -> None:
    wire = Connection()
    listener = CountingListener()
    wire.streams = Streams(listener)
    for side in Side:
        wire.streams.start(side, BEGINS[side])
    step, at = 1 << 29, 0
    for _ in range(10):  # 5 GB
        wire.send(C, at, b"a")
        wire.send(S, 0, heard=at + step)
        wire.send(C, at + step, b"b")
        wire.wait()
        at += step + 1
    assert wire.streams.length(C) == listener.lengths[C] == at > MODULUS
    assert wire.streams.gap_bytes == 10 * (step - 1)


# ---------------------------------------------------------------------- loss


def test_an_acknowledged_hole_becomes_a_gap_after_some_more_segments() -> None:
    wire = Connection()
    wire.send(C, 3, b"def")
    wire.send(S, 0, b"", heard=6)
    assert wire.client == b""
    wire.wait()
    assert wire.client == b"???def"
    assert wire.streams.gap_bytes == 3
    assert not wire.streams.whole


def test_disorder_without_end_is_no_loss_as_long_as_the_stream_goes_on() -> None:
    wire = Connection()
    wire.send(C, 1, b"x")
    wire.send(S, 0, heard=199)
    for place in range(0, 196, 2):
        wire.send(C, place + 3, b"x")  # something is always held
        wire.send(C, place, b"x")
    wire.send(C, 196, b"x")
    wire.send(C, 198, b"x")
    assert wire.client == b"x" * 199
    assert wire.streams.whole


def test_a_hole_that_nobody_acknowledged_waits_for_the_retransmission() -> None:
    wire = Connection()
    wire.send(C, 3, b"def")
    wire.wait()
    wire.wait()
    assert wire.client == b""
    wire.send(C, 0, b"abc")
    assert wire.client == b"abcdef"
    assert wire.streams.whole


def test_a_reply_proves_that_its_command_was_lost() -> None:
    wire = Connection()
    wire.send(S, 0, b"250 ok\r\n", heard=6)
    wire.wait()
    assert wire.client == b"??????"
    assert wire.server == b"250 ok\r\n"


def test_what_is_at_hand_is_not_given_up_for_the_hole_before_it() -> None:
    """The client's next line heard a reply, and the reply heard a command that was lost: the command is."""
    wire = Connection()
    wire.send(C, 6, b"QUIT\r\n", heard=8)
    wire.send(S, 0, b"250 ok\r\n", heard=6)
    wire.wait()
    assert wire.client == b"??????QUIT\r\n"
    assert wire.server == b"250 ok\r\n"
    assert wire.listener.order == [(S, 0), (C, 6)]


def test_at_the_end_every_hole_is_a_gap() -> None:
    wire = Connection()
    wire.send(C, 2, b"c")
    wire.send(C, 5, b"f")
    wire.send(S, 0, b"", heard=9)
    wire.streams.flush()
    assert wire.client == b"??c??f???"
    assert wire.streams.length(C) == 9
    assert wire.streams.gap_bytes == 7


def test_a_fin_takes_a_number_but_is_no_byte() -> None:
    wire = Connection()
    wire.send(C, 0, b"QUIT\r\n")
    wire.send(S, 0, b"", heard=7)  # the FIN was not captured
    wire.streams.flush()
    assert wire.streams.gap_bytes == 0
    assert wire.client == b"QUIT\r\n"


def test_a_lost_fin_is_no_lost_byte_for_what_acknowledges_it() -> None:
    wire = Connection()
    wire.send(C, 0, b"QUIT\r\n")
    wire.send(S, 0, b"221 bye\r\n", heard=7)
    wire.wait()
    assert wire.server == b"221 bye\r\n"
    assert wire.streams.gap_bytes == 0


def test_a_packet_cut_by_the_capture_lost_its_end() -> None:
    wire = Connection()
    wire.send(C, 0, b"abc", length=10)
    wire.send(C, 10, b"k")
    assert wire.client == b"abc???????k"
    assert wire.streams.truncated
    assert not wire.streams.whole


def test_a_held_packet_cut_by_the_capture_lost_its_end_too() -> None:
    wire = Connection()
    wire.send(C, 4, b"e", length=4)
    wire.send(C, 0, b"abcd")
    assert wire.client == b"abcde???"
    assert wire.streams.truncated


def test_one_direction_alone_is_delivered() -> None:
    wire = Connection(announced=False)
    wire.send(S, 0, b"220 mx\r\n")
    wire.send(S, 8, b"250 ok\r\n", heard=8)
    wire.streams.flush()
    assert wire.server == b"220 mx\r\n250 ok\r\n"
    assert wire.client == b"?" * 8
    assert wire.streams.start_unseen
    assert not wire.streams.whole


# ---------------------------------------------------------------------- where a stream begins


def test_where_no_syn_was_seen_a_stream_begins_at_its_lowest_number() -> None:
    wire = Connection(announced=False)
    wire.send(S, 20, b"250 two\r\n", heard=16)
    wire.send(C, 8, b"NOOP 2\r\n", heard=20)
    wire.send(S, 11, b"250 one\r\n", heard=8)
    assert wire.listener.order == []
    assert wire.streams.held_bytes > 0
    wire.streams.flush()
    assert wire.server == b"250 one\r\n250 two\r\n"
    assert wire.client == b"NOOP 2\r\n"
    assert wire.listener.order == [(S, 0), (C, 0), (S, 9)]
    assert wire.streams.held_bytes == 0


def test_gathering_ends_when_enough_was_seen() -> None:
    wire = Connection(announced=False)
    wire.send(C, 0, b"NOOP\r\n")
    wire.wait()
    assert wire.client == b"NOOP\r\n"


def test_gathering_ends_with_the_connection() -> None:
    wire = Connection(announced=False)
    wire.send(C, 0, b"QUIT\r\n", flags=FIN)
    assert wire.client == b"QUIT\r\n"


def test_gathering_is_bounded_in_bytes() -> None:
    wire = Connection(announced=False)
    for at in range(0, 20 * 65_000, 65_000):
        wire.send(C, at, b"x" * 65_000)
    assert wire.streams.held_bytes == 0
    assert len(wire.client) == 20 * 65_000


def test_a_handshake_that_comes_late_says_where_a_stream_begins() -> None:
    wire = Connection(announced=False)
    wire.streams.start(C, BEGINS[C])
    wire.send(S, 8, b"250 ok\r\n", heard=8)
    wire.send(C, 0, b"EHLO c\r\n", heard=8)
    wire.streams.start(S, BEGINS[S])
    wire.send(S, 0, b"220 mx\r\n")
    assert wire.listener.order == [(S, 0), (C, 0), (S, 8)]
    assert wire.streams.whole


def test_data_in_the_syn_is_the_streams_first() -> None:
    wire = Connection()
    wire.send(C, -1, b"EHLO c\r\n", heard=None, flags=SYN)
    assert wire.client == b"EHLO c\r\n"
    wire.send(C, 0, b"EHLO c\r\nNOOP\r\n")
    assert wire.client == b"EHLO c\r\nNOOP\r\n"


# ---------------------------------------------------------------------- the end


def test_both_sides_have_to_close() -> None:
    wire = Connection()
    wire.send(C, 0, b"QUIT\r\n", flags=FIN)
    half_closed_counts_as_closed = wire.streams.closed
    assert not half_closed_counts_as_closed
    wire.send(S, 0, b"221 bye\r\n", heard=7)  # a half-closed connection still carries data
    wire.send(S, 9, b"", heard=7, flags=FIN)
    assert wire.streams.closed
    assert wire.server == b"221 bye\r\n"
    assert wire.streams.closed_first is C


def test_a_fin_waits_for_the_bytes_before_it() -> None:
    wire = Connection()
    wire.send(C, 3, b"", flags=FIN)
    assert wire.streams.closed_first is None
    wire.send(C, 0, b"abc")
    assert wire.streams.closed_first is C


def test_a_fin_with_an_old_number_is_nobodys() -> None:
    wire = Connection()
    wire.send(C, 0, b"x" * 100)
    wire.send(C, 50, b"", flags=FIN)
    assert wire.streams.closed_first is None
    wire.send(C, 100, b"y")
    assert wire.client == b"x" * 100 + b"y"


def test_a_fin_that_was_acknowledged_before_it_came_closes() -> None:
    wire = Connection()
    wire.send(S, 0, b"221 bye\r\n", heard=7)
    wire.wait()
    wire.send(C, 0, b"QUIT\r\n", flags=FIN)
    assert wire.streams.closed_first is C


def test_nothing_comes_behind_a_fin() -> None:
    wire = Connection()
    wire.send(C, 9, b"later")
    wire.send(C, 0, b"QUIT\r\n", flags=FIN)
    wire.send(C, 6, b"more")
    wire.send(C, 20, b"more")
    wire.streams.flush()
    assert wire.client == b"QUIT\r\n"
    assert wire.streams.gap_bytes == 0
    assert wire.streams.held_bytes == 0


@pytest.mark.parametrize("ahead", [0, 10, -10, HELD_LIMIT_BYTES])
def test_a_reset_near_the_expected_number_ends_the_connection(ahead: int) -> None:
    wire = Connection()
    wire.send(S, 0, b"220 mx\r\n")
    wire.send(S, 8 + ahead, flags=RST)
    assert wire.streams.closed
    assert wire.streams.reset_by is S


@pytest.mark.parametrize("ahead", [HELD_LIMIT_BYTES + 1, -HELD_LIMIT_BYTES - 1, 1 << 31])
def test_a_reset_far_from_the_expected_number_is_nobodys(ahead: int) -> None:
    wire = Connection()
    wire.send(S, ahead, flags=RST)
    assert not wire.streams.closed


def test_bytes_before_a_resets_number_were_sent() -> None:
    wire = Connection()
    wire.send(C, 0, b"abc")
    wire.send(C, 10, flags=RST)
    wire.streams.flush()
    assert wire.client == b"abc???????"


# ---------------------------------------------------------------------- bounds


def test_too_many_held_segments_give_the_hole_up() -> None:
    wire = Connection()
    for place in range(HELD_LIMIT_SEGMENTS):
        wire.send(C, 10 + place, b"x")
    assert wire.client == b""
    wire.send(C, 10 + HELD_LIMIT_SEGMENTS, b"x")
    assert wire.client == b"?" * 10 + b"x" * (HELD_LIMIT_SEGMENTS + 1)
    assert wire.streams.held_bytes == 0


def test_too_many_held_bytes_give_the_hole_up() -> None:
    wire = Connection()
    for place in range(17):
        wire.send(C, 10 + place * 65_000, b"x" * 65_000)
        assert wire.streams.held_bytes <= HELD_LIMIT_BYTES
    assert wire.client == b"?" * 10 + b"x" * 17 * 65_000


def test_numbers_beyond_the_largest_window_are_nobodys() -> None:
    wire = Connection()
    wire.send(C, WINDOW_LIMIT_BYTES + 1, b"evil")
    wire.send(C, -5_000, b"evil")
    wire.send(C, 0, b"good", heard=WINDOW_LIMIT_BYTES + 1)
    wire.streams.flush()
    assert wire.client == b"good"
    assert wire.server == b""
    assert wire.streams.whole


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Side),
            st.integers(0, 255),
            st.integers(0, MODULUS - 1) | st.integers(900, 1_200),
            st.integers(0, MODULUS - 1) | st.integers(4_900, 5_200),
            st.binary(max_size=20),
            st.integers(0, 3_000),
        ),
        max_size=120,
    ),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_garbage_never_raises_and_lengths_always_add_up(
    garbage: list[tuple[Side, int, int, int, bytes, int]], announced: bool
) -> None:
    listener = CountingListener()
    streams = Streams(listener)
    if announced:
        for side in Side:
            streams.start(side, BEGINS[side])
    for side, flags, sequence, acknowledgement, payload, cut in garbage:
        streams.segment(
            side,
            Segment(
                0,
                flow_of(*ENDS[side], *ENDS[1 - side]),
                flags,
                sequence,
                acknowledgement,
                len(payload) + cut // 2_900 * cut,
                payload,
            ),
        )
        assert streams.held_bytes <= HELD_LIMIT_BYTES + 65_536
    streams.flush()
    assert streams.held_bytes == 0
    for side in Side:
        assert listener.lengths[side] == streams.length(side)
    assert streams.gap_bytes <= len(garbage) * 2 * WINDOW_LIMIT_BYTES


@dataclass
class CountingListener(StreamReader):
    lengths: list[int] = field(default_factory=lambda: [0, 0])

    def data(self, side: Side, data: bytes, at: int, heard: int) -> int:
        assert at == self.lengths[side]
        self.lengths[side] += len(data)
        return len(data) % 7 * 3

    def passed(self, side: Side, length: int) -> None:
        assert length > 0
        self.lengths[side] += length

    def left_out(self, side: Side, length: int, edge: bytes, left: int) -> bool:
        assert length > 0
        self.lengths[side] += length * (length % 2)
        return bool(length % 2)

    def lost(self, side: Side, length: int) -> None:
        assert length >= 0
        self.lengths[side] += length


# ---------------------------------------------------------------------- what nobody needs


def test_bytes_that_need_not_be_seen_are_counted_and_told_before_those_that_must() -> None:
    wire = Connection()
    wire.listener.unneeded = 6
    wire.send(C, 0, b"BDAT 10\r\n")
    wire.send(C, 9, b"abc")
    wire.send(C, 12, b"def")
    assert wire.client == b"BDAT 10\r\n"
    wire.send(C, 15, b"ghij")
    assert wire.client == b"BDAT 10\r\n......ghij"


def test_bytes_that_need_not_be_seen_are_told_at_the_end() -> None:
    wire = Connection()
    wire.listener.unneeded = 6
    wire.send(C, 0, b"BDAT 10\r\n")
    wire.send(C, 9, b"abc")
    wire.streams.flush()
    assert wire.client == b"BDAT 10\r\n..."
    assert wire.streams.length(C) == 12


def test_a_loss_ends_what_need_not_be_seen() -> None:
    wire = Connection()
    wire.listener.unneeded = 100
    wire.send(C, 0, b"BDAT 100\r\n")
    wire.send(C, 10, b"abc")
    wire.send(C, 20, b"def")
    wire.send(S, 0, b"250\r\n", heard=23)
    wire.wait()
    assert wire.client == b"BDAT 100\r\n...???????def"
    assert wire.streams.gap_bytes == 7


def test_a_packet_cut_short_is_truncated_where_nobody_needs_it_too() -> None:
    wire = Connection()
    wire.listener.unneeded = 100
    wire.send(C, 0, b"BDAT 100\r\n")
    wire.send(C, 10, b"abc", length=10)
    assert wire.streams.truncated
    assert wire.client == b"BDAT 100\r\nabc???????"


def test_a_stretch_that_the_probe_left_out_stands_in_its_place() -> None:
    wire = Connection()
    wire.send(C, 0, b"DATA\r\n")
    wire.send(C, 8, b"wx")
    wire.send(C, 6, b"", flags=LEFT_OUT, length=2, heard=None)
    wire.send(C, 10, b"", flags=LEFT_OUT, length=1_000_000, heard=None)
    wire.send(C, 1_000_010, b".")
    assert wire.client == b"DATA\r\n--wx" + b"-" * 1_000_000 + b"."
    assert wire.streams.whole


def test_a_stretch_that_was_needed_after_all_is_a_gap() -> None:
    wire = Connection()
    wire.listener.understands = False
    wire.send(C, 0, b"EHLO\r\n")
    wire.send(C, 6, b"", flags=LEFT_OUT, length=20, heard=None)
    assert wire.client == b"EHLO\r\n" + b"?" * 20
    assert wire.streams.gap_bytes == 20


def test_of_a_stretch_that_overlaps_only_the_new_bytes_count() -> None:
    wire = Connection()
    wire.send(C, 0, b"abcdef")
    wire.send(C, 2, b"", flags=LEFT_OUT, length=10, heard=None)
    assert wire.client == b"abcdef------"


# ---------------------------------------------------------------------- any order

TURNS = st.lists(
    st.tuples(st.sampled_from(Side), st.binary(min_size=1, max_size=12)), min_size=1, max_size=30
)


@given(TURNS, st.integers(0, 1 << 30), st.integers(1, REORDERING_LIMIT_SEGMENTS // 2), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_order_and_any_cut_give_the_same_streams(
    turns: list[tuple[Side, bytes]], seed: int, distance: int, announced: bool
) -> None:
    rng = random.Random(seed)
    wire = Connection((MODULUS - 20, MODULUS - 40), announced=announced)
    sent = [b"", b""]
    segments: list[tuple[Side, Segment]] = []
    for side, turn in turns:
        cut = rng.randint(0, len(turn))
        for piece in filter(None, (turn[:cut], turn[cut:])):
            segments.append((side, wire.segment(side, len(sent[side]), piece, heard=len(sent[1 - side]))))
            sent[side] += piece
    segments += rng.sample(segments, len(segments) // 3)  # retransmissions, the last of them late
    late = sorted(range(len(segments)), key=lambda place: place + rng.uniform(0, distance))
    for place in late:
        wire.streams.segment(*segments[place])
    wire.streams.flush()
    assert (wire.client, wire.server) == (sent[C], sent[S])
    assert wire.listener.causal
    assert wire.streams.gap_bytes == 0
    assert wire.streams.whole is announced


@given(TURNS, st.sets(st.integers(0, 60)), st.integers(0, 1 << 30))
@settings(max_examples=300, deadline=None)
def test_what_was_lost_stands_as_a_gap_where_it_was(
    turns: list[tuple[Side, bytes]], missing: set[int], seed: int
) -> None:
    wire = Connection()
    sent, seen = [b"", b""], [b"", b""]
    for number, (side, turn) in enumerate(turns):
        if number not in missing:
            wire.send(side, len(sent[side]), turn, heard=len(sent[1 - side]))
        sent[side] += turn
        seen[side] += b"?" * len(turn) if number in missing else turn
    for side in Side:
        wire.send(side, len(sent[side]), heard=len(sent[1 - side]), flags=FIN)
    wire.streams.flush()
    assert (wire.client, wire.server) == (seen[C], seen[S])
    assert wire.streams.gap_bytes == wire.listener.lost_bytes
    assert wire.streams.gap_bytes == sum(
        len(turn) for number, (_, turn) in enumerate(turns) if number in missing
    )
