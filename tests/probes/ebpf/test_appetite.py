"""What the filter leaves out is what nobody needs: the records are those of whole reading, to the byte."""

import os
import random
import time
from datetime import datetime
from typing import Any, Final

import pytest

from monitor.side import Side
from probes.probe import DropSite
from probes.segment import ACK, LEFT_OUT, SYN
from tests.capture_truth import capture_names
from tests.degrade import Degrade, duplicate, lose, reorder, resegment, snap, wrap_sequence
from tests.monitor.sessions.wire import START_NS, Wire
from tests.probes.ebpf.filtered import RING_BYTES, Filter, filtered_records
from tests.segments import records_of, segments_of
from tests.timeless import timeless

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading a filter needs root"),
]

C, S = Side.CLIENT, Side.SERVER
WHOLE_MESSAGE_BYTES: Final = 16_384  # appetite.c
SEARCHED_BYTES: Final = 2_048

GREETING = """\
S: 220 mx.example.test ESMTP
C: EHLO client.example
S: 250-mx.example.test
S: 250 CHUNKING
C: MAIL FROM:<a@client.example>
S: 250 ok
C: RCPT TO:<b@example.test>
S: 250 ok"""
DATA = f"{GREETING}\nC: DATA\nS: 354 go on"


def same(records: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """But for their times, and the order in which connections ended."""
    return sorted(map(timeless, records), key=str) == sorted(map(timeless, others), key=str)


def send_in_pieces(wire: Wire, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        wire.send(C, data[at : at + size])


def with_message(
    body: bytes, *, size: int, behind: bytes = b"", at_once: bool = True, wire: Wire | None = None
) -> Wire:
    """A session with one message, in segments of that size."""
    wire = (wire or Wire()).open().say(DATA)
    if at_once:
        send_in_pieces(wire, body + behind, size)
    else:
        send_in_pieces(wire, body, size)
        wire.send(C, behind)
    wire.say("S: 250 queued").say("C: QUIT\nS: 221 bye")
    return wire.close()


def lines(size: int, seed: int = 0) -> bytes:
    """Text of about that size, with lines that begin with dots, as they are sent."""
    rng = random.Random(seed)
    text = b""
    while len(text) < size:
        text += (
            rng.choice((b"", b"", b"..", b"...x", b"..\t", b".. ")) + b"word " * rng.randint(0, 15) + b"\r\n"
        )
    return text


# ---------------------------------------------------------------------- captures


@pytest.mark.parametrize("name", capture_names())
def test_records_of_a_capture_equal_those_of_whole_reading(name: str) -> None:
    segments = segments_of(name)
    behind = Filter()
    assert same(behind.show(segments).end(), records_of(segments))
    assert behind.counts.dropped[DropSite.RING_BUFFER] == 0
    assert len(behind.handed_up) < len(segments)


DEGRADED: dict[str, Degrade] = {
    "one in twenty lost": lose(0.05),
    "reordered by up to eight": reorder(8),
    "one in three doubled": duplicate(0.3),
    "pieces of 1 to 40 bytes": resegment(lambda rng: rng.randint(1, 40)),
    "snap length 96": snap(96),
    "sequence numbers wrap": lambda segments, rng: wrap_sequence(segments),
}


@pytest.mark.parametrize("how", DEGRADED)
def test_of_a_bad_copy_too_the_records_are_those_of_whole_reading(how: str) -> None:
    """Loss, disorder and copies make the filter hand up more, and never make it leave out too much."""
    names = ("bdat", "starttls_tls12", "starttls_tls13", "abrupt_ends", "swaks_mix", "long_lines")
    for name in names:
        degraded = DEGRADED[how](segments_of(name), random.Random(3))
        assert same(filtered_records(degraded), records_of(degraded)), name


# ---------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [SEARCHED_BYTES, 1_448, 60_000])
@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n", b"MAIL FROM:<c@client.example>\r\n" * 20])
def test_of_a_long_message_only_begin_and_end_go_up(size: int, behind: bytes) -> None:
    wire = with_message(lines(600_000) + b".\r\n", size=size, behind=behind)
    filtered = Filter()
    (record,) = filtered.show(wire.segments).end()
    assert timeless(record) == timeless(wire.record())
    assert record["transactions"][0]["data"]["wire_bytes"] > 600_000
    assert filtered.payload_bytes_up < WHOLE_MESSAGE_BYTES + 3 * max(size, SEARCHED_BYTES)


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize("size", [1_448, 30_000])
def test_the_end_of_a_message_may_be_cut_anywhere(size: int, cut: int) -> None:
    body = lines(100_000) + b"the end\r\n.\r\n"
    wire = with_message(body[:-cut], size=size, behind=body[-cut:], at_once=False)
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())
    assert record["transactions"][0]["outcome"] == "accepted"


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n"])
def test_an_end_that_only_the_server_takes_for_one_is_seen_too(ending: bytes) -> None:
    smuggled = b"MAIL FROM:<x@client.example>\r\nRCPT TO:<y@example.test>\r\nDATA\r\n"
    wire = Wire().open().say(DATA)
    send_in_pieces(wire, lines(60_000) + b"a" + ending + smuggled, 1_400)
    wire.say("S: 250 queued\nS: 250 ok\nS: 250 ok\nS: 354 go on")
    send_in_pieces(wire, lines(60_000) + b".\r\n", 1_400)
    wire.say("S: 250 queued\nC: QUIT\nS: 221 bye").close()
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())
    assert len(record["transactions"]) == 2


def test_commands_in_segments_of_their_own_behind_the_end_are_not_taken_for_the_message() -> None:
    wire = Wire().open().say(DATA)
    send_in_pieces(wire, lines(50_000) + b".\r\n", 1_448)
    wire.send(C, b"MAIL FROM:<c@client.example>\r\n").send(C, b"RCPT TO:<d@example.test>\r\n")
    wire.say("S: 250 queued\nS: 250 ok\nS: 550 no\nC: QUIT\nS: 221 bye").close()
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())
    assert [one["outcome"] for one in record["transactions"]] == ["accepted", "rejected"]


def test_a_reply_before_the_end_of_a_message_stops_the_leaving_out() -> None:
    wire = Wire().open().say(DATA)
    send_in_pieces(wire, lines(50_000), 1_448)
    wire.say("S: 552 too big")
    send_in_pieces(wire, lines(50_000) + b".\r\n", 1_448)
    wire.say("C: QUIT\nS: 221 bye").close()
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())
    assert record["transactions"][0]["data"]["code"] == 552


def test_an_end_that_hides_in_a_super_segment_is_unknown_and_never_wrong() -> None:
    """More commands behind the end of a message, in one segment, than are searched for it."""
    group = b"RSET\r\n" * 1_000
    wire = Wire().open().say(DATA)
    send_in_pieces(wire, lines(60_000), 30_000)
    wire.send(C, lines(20_000) + b".\r\n" + group + b"MAIL FROM:<c@client.example>\r\nDATA\r\n")
    wire.say("S: 250 queued\nS: 250 ok\nS: 250 ok")
    wire.close()
    (record,) = filtered_records(wire.segments)
    (data,) = [one["data"] for one in record["transactions"]]
    assert data == {"verb": "DATA", "wire_bytes": None, "code": 250}


# ---------------------------------------------------------------------- chunks


@pytest.mark.parametrize("line", ["BDAT 500000 LAST", "bdat 500000", "BDAT 500000 last"])
def test_a_chunk_does_not_go_up(line: str) -> None:
    wire = Wire().open().say(GREETING).say(f"C: {line}")
    send_in_pieces(wire, b"QUIT\r\n.\r\n\n" * 50_000, 1_448)
    wire.say("S: 250 queued\nC: QUIT\nS: 221 bye").close()
    filtered = Filter()
    (record,) = filtered.show(wire.segments).end()
    assert timeless(record) == timeless(wire.record())
    assert filtered.payload_bytes_up < 2_000


def test_chunks_and_commands_may_share_segments() -> None:
    wire = Wire().open().say(GREETING)
    stream = b"".join(b"BDAT 70000\r\n" + bytes(70_000) for _ in range(5)) + b"BDAT 0 LAST\r\nQUIT\r\n"
    send_in_pieces(wire, stream, 1_448)
    wire.say("S: 250 ok\n" * 6 + "S: 221 bye").close()
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())
    assert record["transactions"][0]["data"]["wire_bytes"] == 350_000


def test_a_chunk_that_the_filter_could_not_see_is_left_out_once_user_space_has_told_it() -> None:
    wire = Wire().open().say(GREETING)
    wire.send(C, b"RSET\r\nMAIL FROM:<a@client.example>\r\nBDAT 900000 LAST\r\n" + bytes(600))
    send_in_pieces(wire, bytes(900_000 - 600), 10_000)
    wire.say("S: 250 ok\nS: 250 ok\nS: 250 queued\nC: QUIT\nS: 221 bye").close()
    filtered = Filter(every=20)
    (record,) = filtered.show(wire.segments).end()
    assert timeless(record) == timeless(wire.record())
    assert filtered.payload_bytes_up < 200_000


@pytest.mark.parametrize("line", ["BDAT 4294967296", "BDAT 1x", "BDAT -1", "BDAT 99999999999999999999 LAST"])
def test_a_strange_chunk_is_left_to_user_space(line: str) -> None:
    wire = Wire().open().say(GREETING).say(f"C: {line}\nS: 501 no\nC: QUIT\nS: 221 bye").close()
    (record,) = filtered_records(wire.segments)
    assert timeless(record) == timeless(wire.record())


# ---------------------------------------------------------------------- connections


def test_acknowledgements_stay_in_the_kernel_but_for_that_of_a_handshake() -> None:
    wire = Wire().open().say(DATA)
    for _ in range(100):
        wire.segment(S, 0)
        wire.segment(C, 0)
    filtered = Filter()
    filtered.show(wire.segments).read()
    pure = [one for one in filtered.handed_up if one.flags == ACK and not one.length]
    assert len(pure) == 1
    assert filtered.unneeded == 200


def test_the_last_packet_counts_for_the_end_though_it_stays_in_the_kernel() -> None:
    wire = with_message(b"hello\r\n.\r\n", size=1_448)
    filtered = Filter()
    filtered.show(wire.segments[:-1]).read()
    handed_up_until = filtered.handed_up[-1].at_ns / 1e9
    time.sleep(0.05)
    (record,) = filtered.show(wire.segments[-1:]).end()
    assert filtered.unneeded == 1
    assert datetime.fromisoformat(record["end"]).timestamp() > handed_up_until + 0.04
    assert filtered.sieve.last_at_ns(wire.segments[0].flow) is None  # it was taken away


def test_what_was_left_out_when_a_connection_is_reset_or_given_up_is_in_its_record() -> None:
    for ending in ("reset", "nothing"):
        wire = Wire().open().say(DATA)
        send_in_pieces(wire, lines(100_000), 1_448)
        if ending == "reset":
            wire.reset(S)
        (record,) = filtered_records(wire.segments)
        assert timeless(record) == timeless(wire.record())
        assert record["bytes"]["client"] > 100_000


def test_a_pair_that_is_taken_again_at_once_is_another_connection() -> None:
    first = Wire(first=1_000).open().say(DATA)
    send_in_pieces(first, lines(100_000), 1_448)
    second = Wire(first=900_000_000, at_ns=first.at_ns).open().say(DATA)
    send_in_pieces(second, lines(200_000) + b".\r\n", 1_448)
    second.say("S: 250 queued\nC: QUIT\nS: 221 bye").close()
    segments = first.segments + second.segments
    for every in (1, 50, 10_000):
        filtered = Filter(every=every)
        assert same(filtered.show(segments).end(), records_of(segments))


def test_a_reader_that_is_behind_tells_a_connection_from_the_next_of_the_same_pair() -> None:
    """When it takes away what the kernel keeps of the first, the third has begun: it is not the second's."""
    wires: list[Wire] = []
    for number in range(3):
        wire = Wire(first=1_000 + number * 20_000_000, at_ns=wires[-1].at_ns if wires else START_NS)
        wires.append(with_message(lines(50_000) + b".\r\n", size=1_448, wire=wire))
    del wires[1].segments[-3:]  # it is not closed: a number of the third's would count
    segments = [segment for wire in wires for segment in wire.segments]
    begun = len(segments) - len(wires[2].segments) + 5
    filtered = Filter(every=10_000).show(segments[:begun])
    syns = 0
    for segment in filtered.take(RING_BYTES):
        filtered.table.segment(segment)
        syns += segment.flags & (SYN | ACK) == SYN
        if syns == 2:
            filtered.show(segments[begun:])
            begun = len(segments)
    assert same(filtered.end(), records_of(segments))


def test_a_connection_whose_start_was_not_captured_is_followed_like_any() -> None:
    wire = with_message(lines(100_000) + b".\r\n", size=1_448)
    for first in (1, 3, 8, 12, 40):
        segments = wire.segments[first:]
        assert same(filtered_records(segments), records_of(segments))


def test_a_flow_that_the_kernel_has_forgotten_is_a_gap_and_no_number() -> None:
    wire = Wire().open().say(DATA)
    send_in_pieces(wire, lines(100_000), 1_448)
    filtered = Filter()
    filtered.show(wire.segments).read()
    assert (
        filtered.sieve.take_leftover(wire.segments[0].flow, filtered.handed_up[-1].at_ns)[0].flags == LEFT_OUT
    )
    send_in_pieces(wire, b"more\r\n.\r\n", 1_448)
    count = len(wire.segments)
    wire.say("S: 250 queued\nC: QUIT\nS: 221 bye").close()
    (record,) = filtered.show(wire.segments[count - 1 :]).end()
    assert not record["capture"]["complete"]
    assert record["transactions"][0]["data"]["wire_bytes"] in (
        None,
        wire.record()["transactions"][0]["data"]["wire_bytes"],
    )
