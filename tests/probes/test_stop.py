"""Every live probe hands on what it captured before it was stopped, and then ends."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from probes.ebpf.probe import BATCH_BYTES, EbpfProbe
from probes.pcap.live import LivePcapProbe
from probes.tshark.probe import LiveTsharkProbe
from tests.lab.network import INTERFACE, Network, server_address
from tests.lab.packages import ensure
from tests.probes.cross_check import OpenProbe, by_tshark, dumped, recorded, timeless
from tests.probes.workload import converse

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]

# Each takes some 4 kB of the ring buffer: more than the largest batch of any probe, the eBPF probe's.
MANY = BATCH_BYTES // 4_000


@pytest.fixture
def network() -> Iterator[Network]:
    ensure()
    with Network(addresses=2) as network:
        yield network


@pytest.mark.parametrize("open_probe", [partial(EbpfProbe, appetite=False), LivePcapProbe, LiveTsharkProbe])
def test_a_probe_that_is_stopped_hands_on_what_it_captured(
    open_probe: OpenProbe, network: Network, tmp_path: Path
) -> None:
    # It reads nothing before it is stopped, so all waits in the kernel then, and is more than one batch.
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], open_probe, hold=True) as recording,
    ):
        converse(network.server, network.client, server_address(1), connections=MANY, sizes=(73, 1448))
    assert timeless(recording.segments) == timeless(by_tshark(dump))
    assert not +recording.counts.dropped
