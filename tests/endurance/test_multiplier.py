"""Multiplied traffic is what it was, many times: each copy of a session gives its record once more."""

import io
from pathlib import Path

import pytest

from probes.pcap.files import CaptureFilesProbe
from tests.endurance.multiplier import Capture, Packet, copy_of, multiplied, packets_in, read_capture, write
from tests.endurance.six_hours import complaints
from tests.segments import PORTS, capture_path, records_of

SESSIONS = 1_000


@pytest.fixture(scope="module")
def capture() -> Capture:
    return read_capture()


def file_of(capture: Capture, sessions: int, seconds: float, stretch: int) -> bytes:
    file = io.BytesIO()
    written = write(file, capture, multiplied(capture, sessions, seconds=seconds, stretch=stretch))
    assert written == len(list(packets_in(file.getvalue())))
    return file.getvalue()


@pytest.mark.parametrize("stretch", [1, 20])
def test_records_of_the_copies_are_those_of_the_originals(
    capture: Capture, tmp_path: Path, stretch: int
) -> None:
    path = tmp_path / "many.pcap"
    path.write_bytes(file_of(capture, SESSIONS, SESSIONS, stretch))
    probe = CaptureFilesProbe([str(path)], PORTS)
    records = records_of(segment for batch in probe.batches() for segment in batch)
    assert not complaints(records, capture, SESSIONS, timed=True)
    # A check that finds nothing wrong with a lost, a doubled or a wrong record is none.
    assert complaints(records[1:], capture, SESSIONS, timed=True)
    assert complaints([records[0], *records], capture, SESSIONS, timed=True)
    assert complaints([{**records[0], "ended": "idle"}, *records[1:]], capture, SESSIONS, timed=True)


def test_no_packet_of_the_capture_is_left_out(capture: Capture) -> None:
    (whole,) = [CaptureFilesProbe([str(capture_path("mid"))], PORTS)]
    segments = sum(len(batch) for batch in whole.batches())
    assert sum(frame.copy_at is not None for one in capture.sessions for frame in one.frames) == segments
    others = sum(whole.counts.seen.values()) - segments
    # Two came before the first session, and have nothing to go with.
    assert sum(frame.copy_at is None for one in capture.sessions for frame in one.frames) == others - 2


def test_packets_come_in_the_order_of_time_over_the_whole_span(capture: Capture) -> None:
    packets = [packet for batch in multiplied(capture, 500, seconds=21_600, stretch=20) for packet in batch]
    times = [packet.at_us for packet in packets]
    assert times == sorted(times)
    assert 21_500 * 10**6 < times[-1] - times[0] < 21_700 * 10**6


def test_a_packet_in_a_file_is_a_packet_again() -> None:
    packet = Packet(1_795_355_448_010_408, b"frame")
    assert list(packets_in(bytes(24) + packet.in_file())) == [packet]


def test_a_copys_address_tells_which_copy_it_is_of_which_client() -> None:
    assert copy_of("10.104.1.9") == (4, "10.77.1.9")
    assert copy_of("fd68::1:9") == (4, "fd77::1:9")
