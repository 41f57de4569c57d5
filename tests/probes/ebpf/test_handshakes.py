"""What the filter holds of handshakes changes no record and no count; a flood of them stays in the kernel."""

import os
import random
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import pytest

from monitor.sessions.record import SessionRecord
from monitor.sessions.table import SessionTable
from monitor.side import Side
from probes.probe import DropSite
from probes.segment import ACK, FIN, RST, SYN, Segment, flow_of, reverse
from tests.monitor.sessions.wire import MODULUS, Wire
from tests.probes.ebpf.filtered import Filter
from tests.segments import PORTS, SITE, records_of
from tests.timeless import timeless
from tests.wrong import wrong_facts

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading a filter needs root"),
]

C, S = Side.CLIENT, Side.SERVER
Make = Callable[[], list[Segment]]

TALK = """\
S: 220 mx.example.test ESMTP
C: EHLO client.example
S: 250 mx.example.test
C: QUIT
S: 221 bye"""
IPV6_ENDS: Final = ((bytes(15) + b"\x01", 40_000), (bytes(15) + b"\x02", 25))


def whole(segments: Iterable[Segment]) -> tuple[list[dict[str, Any]], int]:
    """Records, and handshakes that came to nothing, where user space sees everything."""
    records: list[SessionRecord] = []
    table = SessionTable(PORTS, SITE, records.append)
    segments = list(segments)
    for segment in segments:
        table.segment(segment)
    table.close_all()
    return [timeless(record) for record in records_of(segments)], table.handshakes_incomplete


def filtered(behind: Filter, segments: Iterable[Segment]) -> tuple[list[dict[str, Any]], int]:
    """The same behind the filter."""
    records = behind.show(segments).end()
    return [timeless(record) for record in records], behind.handshakes_incomplete


def talk(wire: Wire | None = None) -> list[Segment]:
    """SYN, SYN/ACK, ACK, and some mail."""
    return (wire or Wire()).open().say(TALK).close().segments


def over_ipv6() -> list[Segment]:
    wire = Wire()
    wire.ends = IPV6_ENDS
    return talk(wire)


def of(*numbers: int) -> Make:
    """A handshake's packets in this order, each as often as it is named, and the talk behind it."""

    def make() -> list[Segment]:
        segments = talk()
        return [segments[number] for number in numbers] + segments[3:]

    return make


def alone(*numbers: int, flags: tuple[tuple[Side, int], ...] = ()) -> Make:
    """The same, and what follows: packets with these flags, of which no connection comes."""

    def make() -> list[Segment]:
        wire = Wire()
        segments = wire.open().segments[:]
        sent = [wire.segment(side, flag) for side, flag in flags]
        return [segments[number] for number in numbers] + sent

    return make


def one_after_the_other(*makes: Make) -> Make:
    """On the same two ends, each with numbers of its own."""

    def make() -> list[Segment]:
        return [
            segment.replace(
                sequence=(segment.sequence + number * 900_000_000) % MODULUS,
                acknowledgement=(segment.acknowledgement + number * 900_000_000) % MODULUS,
            )
            for number, each in enumerate(makes)
            for segment in each()
        ]

    return make


def with_data_in_its_syn(*, taken: bool, again: bool = False, answered: bool = True) -> Make:
    """TCP Fast Open (RFC 7413): the server takes the data with its SYN/ACK, or the client sends it again."""

    def make() -> list[Segment]:
        data = b"EHLO client.example\r\n"
        syn, syn_ack, ack, greeting, hello, *rest = talk()
        assert hello.payload == data
        with_data = syn.replace(payload=data, length=len(data))
        begin = [with_data, syn] if again else [with_data]
        if not answered:
            return begin
        if not taken:
            return [*begin, syn_ack, ack, greeting, hello, *rest]
        taking = syn_ack.replace(acknowledgement=syn_ack.acknowledgement + len(data))
        return [*begin, taking, greeting.replace(acknowledgement=taking.acknowledgement), *rest]

    return make


def another_answer() -> list[Segment]:
    """A server that answers a SYN twice, and not with the same number: its client takes the last."""
    syn, syn_ack, *rest = talk()
    return [syn, syn_ack.replace(sequence=5), syn_ack, *rest]


def backwards(number: int) -> Make:
    """A handshake's packet from the wrong side: a mail server asks somebody's high port, or is answered."""

    def make() -> list[Segment]:
        segment = talk()[number]
        return [segment.replace(flow=reverse(segment.flow))]

    return make


def with_flags(flags: int) -> Make:
    """A SYN with these besides, and then a handshake like any."""

    def make() -> list[Segment]:
        segments = talk()
        return [segments[0].replace(flags=SYN | flags), *segments]

    return make


CASES: dict[str, Make] = {
    "complete": talk,
    "complete, IPv6": over_ipv6,
    "SYN not seen": of(1, 2),
    "SYN/ACK not seen": of(0, 2),
    "only the server's side seen": lambda: [one for one in talk() if one.flow == talk()[1].flow],
    "only the client's side seen": lambda: [one for one in talk() if one.flow == talk()[0].flow],
    "ACK lost": of(0, 1),
    "only the SYN seen": of(0),
    "only the SYN/ACK seen": of(1),
    "midstream": of(),
    "SYN repeated": of(0, 0, 0, 1, 2),
    "SYN/ACK repeated": of(0, 1, 1, 1, 2),
    "both repeated": of(0, 0, 1, 0, 1, 2),
    "SYN repeated late": of(0, 1, 2, 0),
    "SYN/ACK repeated late": of(0, 1, 2, 1),
    "SYN/ACK before SYN": of(1, 0, 2),
    "ACK before SYN/ACK": of(0, 2, 1),
    "ACK first": of(2, 0, 1),
    "handshake backwards": of(2, 1, 0),
    "unanswered": alone(0),
    "unanswered, repeated": alone(0, 0, 0),
    "answered only": alone(0, 1),
    "answered without a question": alone(1),
    "refused": alone(0, flags=((S, RST),)),
    "a scan": alone(0, 1, flags=((C, RST),)),
    "answered and reset": alone(0, 1, flags=((S, RST),)),
    "refused, then open": one_after_the_other(alone(0, flags=((S, RST),)), talk),
    "unanswered, then open": one_after_the_other(alone(0), talk),
    "answered only, then open": one_after_the_other(alone(0, 1), talk),
    "thrice unanswered on one pair": one_after_the_other(alone(0), alone(0), alone(0)),
    "open, then unanswered": one_after_the_other(talk, alone(0)),
    "open, then answered, then refused": one_after_the_other(talk, alone(0, 1, flags=((C, RST),))),
    "open twice": one_after_the_other(talk, talk),
    "answer to another SYN": one_after_the_other(alone(0), of(1, 2)),
    "data in the SYN": with_data_in_its_syn(taken=True),
    "data in the SYN, not taken": with_data_in_its_syn(taken=False),
    "data in the SYN, again without": with_data_in_its_syn(taken=False, again=True),
    "data in the SYN, unanswered": with_data_in_its_syn(taken=False, answered=False),
    "another answer": another_answer,
    "SYN from a server": backwards(0),
    "SYN/ACK from a client": backwards(1),
    "SYN and FIN": with_flags(FIN),
    "SYN and RST": with_flags(RST),
}


@pytest.mark.parametrize("every", [1, 1_000])
@pytest.mark.parametrize("case", CASES)
def test_records_and_incomplete_handshakes_are_those_of_whole_reading(case: str, every: int) -> None:
    assert filtered(Filter(every=every), CASES[case]()) == whole(CASES[case]())


def test_of_a_connection_the_same_segments_go_up_in_their_order() -> None:
    for make in (talk, over_ipv6):
        behind = Filter().show(make()[:4]).read()
        assert [one.replace(at_ns=0) for one in behind.handed_up] == [
            one.replace(at_ns=0) for one in make()[:4]
        ]
        times = [one.at_ns for one in behind.handed_up]
        assert times == sorted(set(times))


def test_a_session_begins_with_its_syn_however_long_that_was_held() -> None:
    segments = talk()
    behind = Filter(every=1).show(segments[:2])
    assert not behind.handed_up
    time.sleep(0.1)
    (record,) = behind.show(segments[2:]).end()
    assert record["duration_seconds"] >= 0.1
    assert datetime.fromisoformat(record["start"]).timestamp() < time.time() - 0.1


def test_every_packet_is_counted_once_handed_up_or_not() -> None:
    for case, make in CASES.items():
        behind = Filter().show(segments := make())
        behind.end()
        assert behind.segments_seen + behind.unneeded == len(segments), case


def test_what_is_under_way_is_not_counted_as_over() -> None:
    behind = Filter(held_seconds=1).show(alone(0, 1)())
    behind.handshakes.count()
    assert (behind.handshakes_incomplete, behind.unneeded) == (0, 0)
    time.sleep(1.1)
    behind.handshakes.count()
    assert (behind.handshakes_incomplete, behind.unneeded) == (1, 2)


# ---------------------------------------------------------------------- time


def test_a_packet_that_is_repeated_after_a_while_goes_up_and_all_that_follows() -> None:
    for numbers in ((0,), (0, 1)):
        segments = talk()
        behind = Filter(every=1, held_seconds=2).show(segments[number] for number in numbers)
        assert not behind.handed_up
        time.sleep(0.5)
        behind.show([segments[numbers[-1]]])
        assert [one.flags for one in behind.handed_up][: len(numbers)] == [
            segments[number].flags for number in numbers
        ]
        assert filtered(behind, segments[len(numbers) :]) == whole(segments)


def test_a_handshake_that_was_told_and_then_reset_counts_once() -> None:
    segments = alone(0, 0, 1, flags=((C, RST),))()
    behind = Filter(every=1, held_seconds=2).show(segments[:1])
    time.sleep(0.5)
    assert filtered(behind, segments[1:]) == ([], 1)
    assert behind.handed_up[-1].flags & RST  # whoever counts the handshake is told that it is over


def test_of_a_handshake_that_is_refused_nothing_goes_up() -> None:
    for flags in (((S, RST),), ((C, RST),)):
        for numbers in ((0,), (0, 1), (1,)):
            behind = Filter().show(alone(*numbers, flags=flags)())
            assert behind.end() == []
            assert (behind.handed_up, behind.handshakes_incomplete) == ([], 1)


def test_a_handshake_that_took_too_long_is_counted_and_its_session_lacks_its_beginning() -> None:
    """Its packets would be older than the clock may go back."""
    segments = talk()
    behind = Filter(held_seconds=1).show(segments[:2])
    time.sleep(1.1)
    ((record,), incomplete) = filtered(behind, segments[2:])
    assert incomplete == 1
    assert not record["capture"]["complete"]
    (true,) = whole(segments)[0]
    assert wrong_facts(record, true) == []


# ---------------------------------------------------------------------- floods


def flood(size: int, *, answered: bool) -> Iterable[Segment]:
    """Handshakes of which nothing comes, each from another end."""
    rng = random.Random(size)
    for number in range(size):
        source = b"\x0a" + number.to_bytes(3, "big")
        flow = flow_of(source, rng.randrange(1_024, 65_536), b"\xc0\x00\x02\x02", 25)
        first = rng.randrange(MODULUS)
        yield Segment(0, flow, SYN, first, 0, 0, b"")
        if answered:
            yield Segment(0, reverse(flow), SYN | ACK, 7, (first + 1) % MODULUS, 0, b"")


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "unanswered"])
def test_in_a_flood_real_sessions_are_recorded_and_nothing_of_it_goes_up(answered: bool) -> None:
    wires = [Wire(client_port=50_000 + number) for number in range(20)]
    real = [talk(wire) for wire in wires]
    spoofed = iter(list(flood(20_000, answered=answered)))
    behind = Filter(every=500)
    for segments in zip(*real, strict=True):  # of each connection the next, a thousand others between
        for segment in segments:
            behind.show([segment])
            behind.show(next(spoofed) for _ in range(80 if answered else 40))
    rest = list(spoofed)
    records, incomplete = filtered(behind, rest)
    assert sorted(map(str, records)) == sorted(str(timeless(wire.record())) for wire in wires)
    assert incomplete == 20_000
    assert behind.segments_seen == len(behind.handed_up)
    assert {one.flow for one in behind.handed_up} == {one.flow for one in real_segments(real)}
    assert behind.counts.dropped[DropSite.RING_BUFFER] == 0


def real_segments(real: list[list[Segment]]) -> list[Segment]:
    return [segment for segments in real for segment in segments]


def test_a_handshake_that_a_flood_pushed_out_is_counted_and_its_session_never_wrong() -> None:
    segments = talk()
    (true,) = whole(segments)[0]
    for held in (1, 2):  # before the server's answer, and behind it
        behind = Filter(handshakes=512).show(segments[:held]).show(flood(5_000, answered=True))
        ((record,), incomplete) = filtered(behind, segments[held:])
        assert wrong_facts(record, true) == []
        assert record["capture"]["complete"] == (held == 1)  # its SYN/ACK says where both sides begin
        assert incomplete == 5_001


def test_where_the_kernel_does_not_say_what_is_under_way_nothing_is_counted() -> None:
    behind = Filter()
    behind.show([Wire().segment(Side.CLIENT, SYN)])
    before = behind.handshakes.incomplete, behind.handshakes.packets
    program, descriptor = behind._program, behind._program._handshakes
    program._handshakes = -1  # as where a map is refused
    try:
        behind.handshakes.count()
    finally:
        program._handshakes = descriptor
    assert (behind.handshakes.incomplete, behind.handshakes.packets) == before
    behind.handshakes.count(are_over=True)
    assert behind.handshakes.incomplete == before[0] + 1
