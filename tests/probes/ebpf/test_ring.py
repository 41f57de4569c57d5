"""The ring buffer as user space reads it, filled by the filter."""

import mmap
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from probes.ebpf.clock import BootClock
from probes.ebpf.event import EventReader
from probes.ebpf.program import Program
from probes.ebpf.ring import Ring
from probes.ebpf.tap import InterfaceTap
from probes.frames import FrameDecoder
from probes.probe import PacketCounts
from probes.segment import ACK, Segment, flow_of
from tests.probes.ebpf.filtered import packet_of
from tests.probes.ebpf.odd_packets import open_tun
from tests.segments import PORTS

RING_BYTES: Final = 1 << 17
ROUNDS: Final = 12
_TUN: Final = f"ring{os.getpid()}"

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="a filter and a tun device need root"),
]


def segments() -> Iterator[Segment]:
    """As many as fill the ring buffer so often."""
    rng = random.Random(1)
    flow = flow_of(b"\xc0\x00\x02\x01", 40_000, b"\xc0\x00\x02\x02", 25)
    sent = 0
    while sent < ROUNDS * RING_BYTES:
        payload = rng.randbytes(rng.randint(1, 3_000))
        yield Segment(0, flow, ACK, sent, 1, len(payload), payload)
        sent += len(payload)


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program(PORTS, RING_BYTES, flows=64, appetite=False)
    yield program
    program.close()


def test_what_goes_over_the_end_of_the_ring_is_whole(program: Program) -> None:
    sent = list(segments())
    seen: list[Segment] = []
    reader = EventReader(FrameDecoder(PORTS, PacketCounts()), BootClock())
    with closing(Ring(program.events, RING_BYTES)) as ring, open_tun(_TUN) as tun:
        subprocess.run(["ip", "link", "set", _TUN, "mtu", "65535", "up"], check=True)
        with closing(InterfaceTap(_TUN, program.descriptor)):
            for number, segment in enumerate(sent):
                tun.write(packet_of(segment))
                if number % 7 == 0:
                    seen += reader.read(ring.take(RING_BYTES))
            seen += reader.read(ring.take(RING_BYTES))
    assert program.dropped() == 0
    assert [segment.replace(at_ns=0) for segment in seen] == [segment.replace(at_ns=0) for segment in sent]


def test_the_ring_counts_once_as_resident_memory(program: Program) -> None:
    before = resident_bytes_of_maps()
    with closing(Ring(program.events, RING_BYTES)):
        assert RING_BYTES < resident_bytes_of_maps() - before <= RING_BYTES + 2 * mmap.PAGESIZE


def resident_bytes_of_maps() -> int:
    """What the kernel counts of BPF maps as this process's own."""
    mappings = re.findall(
        r"^\S+-\S+ \S+ \S+ \S+ \S+ +(.*)\n(?:.*\n)*?Rss: +(\d+) kB",
        Path("/proc/self/smaps").read_text(),
        re.MULTILINE,
    )
    return sum(int(resident) for name, resident in mappings if "bpf-map" in name) * 1_024
