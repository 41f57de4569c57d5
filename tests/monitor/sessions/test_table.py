"""Which connection a segment belongs to, when it is over, and that the table never grows without bound."""

from typing import Any

import pytest

from monitor.sessions.record import SessionRecord
from monitor.sessions.table import Limits, SessionTable
from monitor.side import Side
from probes.segment import ACK, FIN, PSH, RST, SYN, Segment, flow_of
from tests.monitor.sessions.wire import SECOND_NS, START_NS, Wire
from tests.segments import PORTS, SITE

C, S = Side.CLIENT, Side.SERVER
URG = 0x20
CHAT = "S: 220 mx\nC: EHLO c\nS: 250 mx\n"


class Table:
    """A session table with its records at hand. Not a subclass: of a compiled class there is none."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.records: list[SessionRecord] = []
        self._table = SessionTable(PORTS, SITE, self.records.append, limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def take(self, *wires: Wire) -> None:
        for wire in wires:
            for segment in wire.segments:
                self.segment(segment)
            wire.segments.clear()

    @property
    def ended(self) -> list[str]:
        return [record.ended.value for record in self.records]


def chat(**kwargs: Any) -> Wire:
    return Wire(**kwargs).open().say(CHAT)


# ---------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("missing", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}, {0, 1, 2}])
def test_a_session_is_one_record_whatever_is_missing_of_its_handshake(missing: set[int]) -> None:
    wire = chat().say("C: QUIT\nS: 221 bye").close()
    wire.segments = [segment for place, segment in enumerate(wire.segments) if place not in missing]
    record = wire.record()
    assert record["ended"] == "quit"
    assert record["client"]["port"] == 40_000
    assert record["helo"] == [{"verb": "EHLO", "name": "c", "code": 250}]
    complete = 1 not in missing
    assert record["capture"]["complete"] is complete
    assert record["capture"]["midstream"] is (missing >= {0, 1})
    assert (record["banner"] is not None) is complete


@pytest.mark.parametrize("doubled", [0, 1, 2])
def test_a_handshake_sent_twice_is_one_handshake(doubled: int) -> None:
    wire = chat().close()
    for late in (doubled + 1, 4, 6):
        copy = list(wire.segments)
        copy.insert(late, wire.segments[doubled])
        table = Table()
        for segment in copy:
            table.segment(segment)
        table.close_all()
        assert [record.capture.complete for record in table.records] == [True]
        assert table.handshakes_incomplete == 0


@pytest.mark.parametrize("place", range(1, 7))
@pytest.mark.parametrize("late", [0, 1])
def test_a_handshake_that_is_captured_late_counts(place: int, late: int) -> None:
    """SYN or SYN/ACK behind the first data, as when a machine has several receive queues."""
    wire = chat().say("C: QUIT\nS: 221 bye").close()
    true = wire.record()
    segments = list(wire.segments)
    segments.insert(place, segments.pop(late))
    wire.segments = segments
    record = wire.record()
    assert {**record, "start": 0, "duration_seconds": 0} == {**true, "start": 0, "duration_seconds": 0}


@pytest.mark.parametrize(
    "flags",
    [
        [(C, SYN)],
        [(C, SYN), (S, RST | ACK)],
        [(C, SYN), (S, SYN | ACK)],
        [(C, SYN), (S, SYN | ACK), (C, RST)],
        [(C, SYN), (C, SYN), (C, SYN)],
    ],
    ids=["unanswered", "refused", "half-open", "half-open scan", "retried"],
)
def test_a_handshake_that_never_completed_leaves_no_record_but_a_count(flags: list[tuple[Side, int]]) -> None:
    table = Table()
    for side, flag in flags:
        number, heard = (1_000, 5_001) if side is C else (5_000, 1_001)
        table.segment(packet(side, flag, number + (flag == RST), heard if flag != SYN else 0))
    table.close_all()
    assert table.records == []
    assert table.handshakes_incomplete == 1


def test_a_syn_that_takes_the_place_of_another_leaves_a_count_of_that() -> None:
    table = Table()
    for first in (1_000, 9_000_000, 20_000_000):
        table.segment(packet(C, SYN, first, 0))
    assert table.handshakes_incomplete == 2
    table.segment(packet(S, SYN | ACK, 5_000, 20_000_001))
    table.segment(packet(C, ACK, 20_000_001, 5_001))
    table.close_all()
    assert (len(table.records), table.handshakes_incomplete) == (1, 2)


@pytest.mark.parametrize("flags", [FIN, 0, FIN | PSH | URG, ACK, FIN | ACK, RST, SYN | RST, SYN | FIN | RST])
def test_probes_leave_no_record(flags: int) -> None:
    table = Table()
    table.segment(packet(C, flags, 1_000, 5))
    table.segment(packet(S, RST, 5, 0))
    table.close_all()
    assert table.records == []
    assert table.strays == 2


def test_segments_from_an_end_to_itself_are_no_connection() -> None:
    table = Table()
    end = (b"\xc0\x00\x02\x02", 25)
    for number, flags in enumerate((SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK)):
        payload = b"EHLO c\r\n" if flags & PSH else b""
        at_ns = START_NS + number
        table.segment(Segment(at_ns, flow_of(*end, *end), flags, 1_000, 1_001, len(payload), payload))
    table.close_all()
    assert table.records == []
    assert table.strays == 5


def test_a_server_that_answers_something_else_completes_no_handshake() -> None:
    table = Table()
    table.segment(packet(C, SYN, 1_000, 0))
    table.segment(packet(S, ACK, 7, 3_000_000_000))  # of an older connection: RFC 9293 section 3.5.2
    assert table.open_sessions == 0
    table.segment(packet(S, SYN | ACK, 5_000, 1_001))
    table.segment(packet(C, ACK, 1_001, 5_001))
    assert table.open_sessions == 1


@pytest.mark.parametrize("accepted", [True, False])
def test_data_in_the_syn_is_read(accepted: bool) -> None:
    table = Table()
    table.segment(packet(C, SYN, 1_000, 0, b"EHLO c\r\n"))
    table.segment(packet(S, SYN | ACK, 5_000, 1_009 if accepted else 1_001))
    table.segment(packet(C, ACK, 1_009 if accepted else 1_001, 5_001, b"" if accepted else b"EHLO c\r\n"))
    table.segment(packet(S, ACK, 5_001, 1_009, b"220 mx\r\n"))
    table.segment(packet(S, ACK, 5_009, 1_009, b"250 mx\r\n"))
    table.close_all()
    (record,) = table.records
    assert [(helo.name, helo.code) for helo in record.helo] == [("c", 250)]
    assert record.bytes.client == 8
    assert record.capture.gap_bytes == 0
    assert "early_talker" in record.anomalies


def test_data_in_a_flood_of_syns_is_not_kept() -> None:
    table = Table()
    for port in range(3_000):
        table.segment(packet(C, SYN, 1_000, 0, b"x" * 60_000, port=port + 1))
    kept = sum(len(segment.payload) for segment in table._syn_data.values())
    assert kept <= 1_024 * 2_048


def test_midstream_the_server_is_who_has_the_watched_port() -> None:
    wire = chat()
    wire.segments = wire.segments[3:]
    record = wire.record()
    assert record["server"]["port"] == 25
    assert record["capture"]["midstream"]
    assert record["envelope"] == "unknown"


def test_with_both_ports_watched_the_syn_says_who_is_the_client() -> None:
    record = Wire(25, client_port=587).open().say(CHAT).record()
    assert (record["client"]["port"], record["server"]["port"]) == (587, 25)


# ---------------------------------------------------------------------- the pair used again


@pytest.mark.parametrize("how", ["closed", "reset", "open"])
@pytest.mark.parametrize("missing", [None, 0, 1, 2])
def test_a_pair_used_again_is_a_new_session(how: str, missing: int | None) -> None:
    if how == "open" and missing == 1:
        pytest.skip("without the SYN/ACK nothing tells that the server took it for a new one")
    first = chat(first=1_000).say("C: NOOP\nS: 250 ok")
    if how == "closed":
        first.close()
    elif how == "reset":
        first.reset(C)
    second = Wire(first=3_000_000, at_ns=first.at_ns).open().say(CHAT).say("C: QUIT\nS: 221 bye").close()
    second.segments = [segment for place, segment in enumerate(second.segments) if place != missing]
    table = Table()
    table.take(first, second)
    table.close_all()
    ended = {"closed": "client_closed", "reset": "reset", "open": "idle"}[how]
    assert table.ended == [ended, "quit"]
    assert all(len(record.helo) == 1 for record in table.records)


def test_a_forged_syn_ends_nothing() -> None:
    wire = chat()
    table = Table()
    table.take(wire)
    table.segment(packet(C, SYN, 77, 0))
    assert table.records == []
    table.take(wire.say("C: QUIT\nS: 221 bye").close())
    table.close_all()
    assert table.ended == ["quit"]


# ---------------------------------------------------------------------- the end


def test_a_closed_connection_takes_late_packets() -> None:
    wire = chat().say("C: QUIT\nS: 221 bye").close()
    table = Table()
    late = wire.segments[-4:]
    table.take(wire)
    assert table.records == []
    assert table.open_sessions == 0
    for segment in late:
        table.segment(segment)
    table.tick(wire.at_ns + 3 * SECOND_NS)
    assert table.ended == ["quit"]
    table.close_all()
    assert len(table.records) == 1


def test_an_idle_connection_is_ended_by_other_packets_or_by_the_clock() -> None:
    for other in (True, False):
        wire = chat()
        table = Table()
        table.take(wire)
        table.tick(wire.at_ns + 899 * SECOND_NS)
        assert table.records == []
        if other:
            table.take(chat(client_port=1, at_ns=wire.at_ns + 901 * SECOND_NS))
        else:
            table.tick(wire.at_ns + 901 * SECOND_NS)
        assert table.ended == ["idle"]
        assert table.records[0].envelope == "unknown"


def test_who_goes_on_is_not_idle() -> None:
    wire = chat()
    table = Table()
    for _ in range(10):
        table.take(wire)
        wire.at_ns += 600 * SECOND_NS
        wire.say("C: NOOP\nS: 250 ok")
    assert table.records == []
    table.close_all()
    assert table.ended == ["capture_ended"]


def test_handshakes_are_given_up_after_a_while() -> None:
    table = Table()
    table.segment(packet(C, SYN, 1_000, 0))
    table.tick(START_NS + 76 * SECOND_NS)
    assert table.handshakes_incomplete == 1


def test_closing_all_leaves_nothing() -> None:
    table = Table()
    table.take(chat(), chat(client_port=2).close())
    table.segment(packet(C, SYN, 1_000, 0, port=3))
    table.close_all()
    table.close_all()
    assert sorted(table.ended) == ["capture_ended", "client_closed"]
    assert (table.open_sessions, table.buffered_bytes, table.handshakes_incomplete) == (0, 0, 1)


# ---------------------------------------------------------------------- the clock


def test_a_clock_set_back_stops_nothing() -> None:
    early = chat().say("C: QUIT\nS: 221 bye").close()
    table = Table()
    table.take(early)
    hour_ns = 3_600 * SECOND_NS
    back = chat(client_port=2, at_ns=early.at_ns - hour_ns).close()
    table.take(back)
    assert table.records == []
    idle = chat(client_port=3, at_ns=back.at_ns + 3 * SECOND_NS)
    table.take(idle)
    assert table.ended == ["quit", "client_closed"]
    assert table.records[1].start < table.records[0].start
    table.tick(idle.at_ns + 901 * SECOND_NS)
    assert table.ended[2:] == ["idle"]


def test_one_time_stamp_from_the_future_stops_no_clock() -> None:
    table = Table()
    table.take(chat(client_port=1, at_ns=START_NS + 10**17).close())
    for minute in range(20):
        table.take(chat(client_port=2 + minute, at_ns=START_NS + minute * 60 * SECOND_NS).close())
    assert len(table.records) >= 19


def test_time_never_runs_backwards_within_a_session() -> None:
    wire = chat()
    wire.at_ns -= 10 * SECOND_NS
    record = wire.say("C: NOOP\nS: 250 ok").record()
    assert record["start"] <= record["end"]
    assert record["duration_seconds"] >= 0


# ---------------------------------------------------------------------- bounds


def test_over_the_bound_the_longest_silent_session_is_evicted() -> None:
    table = Table(Limits(sessions=3))
    wires = [chat(client_port=port, at_ns=START_NS + port * 5 * SECOND_NS) for port in (1, 2, 3)]
    table.take(*wires)
    wires[0].at_ns = START_NS + 30 * SECOND_NS
    table.take(wires[0].say("C: NOOP\nS: 250 ok"))
    table.take(chat(client_port=4, at_ns=START_NS + 40 * SECOND_NS))
    assert [(record.client.port, record.ended) for record in table.records] == [(2, "evicted")]
    assert table.records[0].envelope == "unknown"
    assert table.ended.count("evicted") == 1
    assert table.open_sessions == 3


def test_closed_connections_count_and_go_first() -> None:
    table = Table(Limits(sessions=3))
    for port in range(1, 50):
        table.take(chat(client_port=port).close())
        assert len(table._closed) <= 3
    assert table.ended.count("evicted") == 0
    assert set(table.ended) == {"client_closed"}


def test_a_flood_of_syns_is_bounded_and_counted() -> None:
    table = Table(Limits(half_open=1_000))
    for port in range(5_000):
        table.segment(packet(C, SYN, 1_000, 0, port=port + 1))
    assert len(table._half_open) == 1_000
    assert table.handshakes_incomplete == 4_000
    table.take(chat(client_port=60_000))
    assert table.open_sessions == 1


def test_a_crowd_that_keeps_much_cannot_push_out_those_that_keep_little() -> None:
    table = Table(Limits(buffered_bytes=1 << 20))
    honest = [chat(client_port=port) for port in range(1, 21)]
    table.take(*honest)
    for port in range(1_000, 1_060):  # each sends 60 kB behind a command whose reply never comes
        greedy = chat(client_port=port).send(C, b"AUTH PLAIN\r\n" + b"x" * 60_000)
        table.take(greedy)
        assert table.buffered_bytes <= 1 << 20
    for wire in honest:
        table.take(wire.send(C, b"NOOP " + b"x" * 16_000))
    for wire in honest:
        table.take(wire.send(C, b"\r\n").say("S: 250 ok\nC: QUIT\nS: 221 bye").close())
    assert table.ended.count("evicted") > 30
    assert {record.client.port >= 1_000 for record in table.records if record.ended == "evicted"} == {True}
    table.close_all()
    ended = {record.client.port: record.ended for record in table.records}
    assert [ended[port] for port in range(1, 21)] == ["quit"] * 20
    assert table.buffered_bytes == 0


@pytest.mark.parametrize("how", ["commands that wait", "long lists", "segments out of order"])
def test_whatever_a_session_keeps_is_counted(how: str) -> None:
    wire = chat()
    if how == "segments out of order":
        for _ in range(500):
            wire.segment(C, 0, b"x")
        del wire.segments[6]
    else:
        for number in range(500):
            wire.send(C, b"RCPT TO:<%d@example.test>\r\n" % number)
            if how == "long lists":
                wire.send(S, b"250 ok\r\n")
    table = Table()
    table.take(wire)
    assert table.buffered_bytes > 500 * 200
    table.close_all()
    assert table.buffered_bytes == 0


def packet(
    side: Side, flags: int, sequence: int, acknowledgement: int, payload: bytes = b"", *, port: int = 40_000
) -> Segment:
    ends = ((b"\xc0\x00\x02" + bytes((port >> 16,)), port & 0xFFFF), (b"\xc0\x00\x02\x02", 25))
    return Segment(
        START_NS,
        flow_of(*ends[side], *ends[1 - side]),
        flags,
        sequence,
        acknowledgement,
        len(payload),
        payload,
    )


def test_data_that_overtook_the_whole_handshake_belongs_to_it() -> None:
    wire = chat().say("C: QUIT\nS: 221 bye").close()
    true = wire.record()
    wire.segments = [wire.segments[place] for place in (3, 4, 0, 1, 2)] + wire.segments[5:]
    record = wire.record()
    assert record["capture"] == true["capture"]
    assert (record["banner"], record["helo"]) == (true["banner"], true["helo"])
