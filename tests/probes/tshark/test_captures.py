"""Every capture gives the same through tshark as through libpcap; the rest is one parser's."""

import pytest

from probes.pcap.files import CaptureFilesProbe
from probes.probe import Probe
from probes.segment import Segment
from probes.tshark.probe import TsharkFilesProbe
from tests.capture_truth import CAPTURES
from tests.segments import PORTS, capture_path

NAMES = sorted(path.name.split(".")[0] for path in (*CAPTURES.glob("*.pcap"), *CAPTURES.glob("*.pcap.zst")))


def _all_of(probe: Probe) -> list[Segment]:
    return [segment for batch in probe.batches() for segment in batch]


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_gives_the_same_segments_and_counts_and_so_the_same_records(name: str) -> None:
    path = str(capture_path(name))
    pcap = CaptureFilesProbe([path], PORTS)
    expected = _all_of(pcap)
    tshark = TsharkFilesProbe([path], PORTS)
    try:
        segments = _all_of(tshark)
    finally:
        tshark.close()
    assert segments == expected
    assert tshark.counts == pcap.counts
    assert tshark.is_caught_up()
