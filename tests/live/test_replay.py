"""Every capture, sent over a cable, gives the live probe the records that it gives the reader of files."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from probes.ebpf.probe import HANDSHAKES_EVERY_SECONDS
from probes.ebpf.program import HELD_SECONDS
from probes.pcap.files import CaptureFilesProbe
from probes.segment import Segment
from tests.capture_truth import CAPTURES
from tests.lab.network import Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.replay import as_ethernet, replay, silent_network
from tests.lab.watch import Watch, sample_sum
from tests.segments import PORTS, capture_path, records_of, segments_of
from tests.timeless import timeless

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root"),
]

NAMES: Final = sorted(path.name.partition(".")[0] for path in CAPTURES.glob("*.pcap*"))

# Each probe, and how many packets a second it is sent. eBPF: chosen because the largest capture then takes
# three seconds, and what goes up of it fits into the ring buffer as a whole, however slow the machine.
PACKETS_PER_SECOND: Final = {"ebpf": 10_000}

# How long nothing may come of what was sent and is still missing. Packets of a handshake that comes to
# nothing are counted when it is over, and the probe looks next.
PATIENCE_SECONDS: Final = HELD_SECONDS + HANDSHAKES_EVERY_SECONDS + 5


Record = dict[str, Any]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with silent_network() as network:
        yield network


def segments_in(file: Path) -> list[Segment]:
    return [segment for batch in CaptureFilesProbe([str(file)], PORTS).batches() for segment in batch]


def in_order(records: list[Record]) -> list[Record]:
    """Without what a replay changes: the times, and the order in which connections become records.

    Connections between the same two ends stay in their order.
    """

    def place(record: Record) -> tuple[Any, ...]:
        client, server = record["client"], record["server"]
        return client["ip"], client["port"], server["ip"], server["port"], record["start"]

    return [timeless(record) for record in sorted(records, key=place)]


def await_segments(watch: Watch, expected: int) -> None:
    """Until so many segments were seen, needed or not, one was dropped, or no more come."""
    seen, dropped, patience_ends = -1.0, 0.0, 0.0
    while seen < expected and not dropped:
        before, metrics = seen, watch.metrics()
        seen = sum(
            sample_sum(metrics, "smtp_monitor_packets_total", verdict=verdict)
            for verdict in ("segment", "unneeded")
        )
        dropped = sample_sum(metrics, "smtp_monitor_packets_dropped_total")
        if seen > before:
            patience_ends = time.monotonic() + PATIENCE_SECONDS
        elif time.monotonic() > patience_ends:
            break
        time.sleep(0.05)
    assert (seen, dropped) == (expected, 0), watch.said()


@pytest.mark.parametrize("probe", PACKETS_PER_SECOND)
@pytest.mark.parametrize("name", NAMES)
def test_records_of_a_replayed_capture_equal_those_of_its_file(
    network: Network, tmp_path: Path, name: str, probe: str
) -> None:
    segments = segments_of(name)
    capture = tmp_path / "ethernet.pcap"
    packets = as_ethernet(capture_path(name), capture)
    assert segments_in(capture) == segments
    with Watch(network.server, tmp_path, "--probe", probe) as watch:
        assert watch.sample_sum("smtp_monitor_capture_up", probe=probe) == 1
        assert replay(network, capture, packets_per_second=PACKETS_PER_SECOND[probe]) == packets
        await_segments(watch, len(segments))
        assert watch.stop() == 0, watch.said()
    assert in_order(watch.records()) == in_order(records_of(segments))
