"""Segments through the filter in the kernel: written into a tun device, as packets that arrive there."""

import ctypes
import itertools
import json
import os
import struct
import subprocess
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, Self

import msgspec

from monitor.sessions.record import SessionRecord
from monitor.sessions.table import SessionTable
from probes.ebpf.clock import BootClock
from probes.ebpf.event import EventReader
from probes.ebpf.flows import Flows
from probes.ebpf.handshakes import Handshakes
from probes.ebpf.program import FLOW_KEY_BYTES, HANDSHAKES, HELD_SECONDS, Program
from probes.ebpf.ring import Ring
from probes.ebpf.tap import InterfaceTap
from probes.frames import FrameDecoder
from probes.probe import DropSite, PacketCounts, Verdict
from probes.segment import Segment
from tests.probes.ebpf.odd_packets import open_tun
from tests.segments import PORTS, SITE

RING_BYTES: Final = 32 << 20
_numbers = itertools.count()
_TCP_HEADER_BYTES: Final = 20


def packet_of(segment: Segment) -> bytes:
    """An IP packet with that segment; where the payload is cut short, as long as it is there."""
    addresses, ports = segment.flow[:-4], segment.flow[-4:]
    tcp = ports + struct.pack(
        "!IIBBHHH", segment.sequence, segment.acknowledgement, 0x50, segment.flags & 0xFF, 65_535, 0, 0
    )
    length = _TCP_HEADER_BYTES + segment.length
    if len(addresses) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 6, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, length, 6, 64)
    return header + addresses + tcp + segment.payload


class _Kernel:
    """The filter, compiled once for all tests that want the same, on a device of its own."""

    def __init__(self, handshakes: int, held_seconds: int) -> None:
        self.program = Program(
            PORTS, RING_BYTES, flows=4_096, handshakes=handshakes, held_seconds=held_seconds
        )
        self.ring = Ring(self.program.events, RING_BYTES)
        device = f"horizon{next(_numbers)}.{os.getpid()}"
        self.tun = open_tun(device)
        subprocess.run(["ip", "link", "set", device, "mtu", "65535", "up"], check=True)
        self._tap = InterfaceTap(device, self.program.descriptor)

    def begin_anew(self) -> None:
        key = ctypes.create_string_buffer(FLOW_KEY_BYTES)
        libbpf = self.program._libbpf
        for kept in (self.program._flows, self.program._asked, self.program._handshakes):
            while libbpf.bpf_map_get_next_key(kept, None, key) == 0:
                libbpf.bpf_map_delete_elem(kept, key)
        while self.ring.take(RING_BYTES):
            pass


_kernel = cache(_Kernel)


class Filter:
    """The filter, and a table of sessions behind it, as `watch` has them."""

    def __init__(
        self, *, every: int = 50, handshakes: int = HANDSHAKES, held_seconds: int = HELD_SECONDS
    ) -> None:
        """`every`: after so many packets user space looks at what came."""
        self._kernel = _kernel(handshakes, held_seconds)
        self._kernel.begin_anew()
        self._program = self._kernel.program
        self._unneeded_before = self._program.passed_by()[Verdict.UNNEEDED]
        self._dropped_before = self._program.dropped()
        self._every = every
        self._shown = 0
        clock = BootClock()
        self.counts = PacketCounts()
        self._events = EventReader(FrameDecoder(PORTS, self.counts), clock)
        self.handshakes = Handshakes(self._program)
        self.handshakes.count(are_over=True)
        self._incomplete_before, self._packets_before = self.handshakes.incomplete, self.handshakes.packets
        self.sieve = Flows(self._program, clock, self.handshakes)
        self.records: list[SessionRecord] = []
        self.handed_up: list[Segment] = []
        self.table = SessionTable(PORTS, SITE, self.records.append, sieve=self.sieve)

    def show(self, segments: Iterable[Segment]) -> Self:
        for segment in segments:
            self._kernel.tun.write(packet_of(segment))
            self._shown += 1
            if self._shown % self._every == 0:
                self.read()
        return self

    def read(self) -> Self:
        """User space reads what there is."""
        for segment in self.take(RING_BYTES):
            self.table.segment(segment)
        return self

    def take(self, limit_bytes: int) -> list[Segment]:
        """What there is, or the first of it: one record at least."""
        segments = self._events.read(self._kernel.ring.take(limit_bytes))
        self.handed_up += segments
        return segments

    def end(self) -> list[dict[str, Any]]:
        """All records, as they stand in JSON."""
        self.read()
        self.handshakes.count(are_over=True)
        self.table.close_all()
        self.counts.dropped[DropSite.RING_BUFFER] = self._program.dropped() - self._dropped_before
        return [json.loads(msgspec.json.encode(record)) for record in self.records]

    @property
    def segments_seen(self) -> int:
        """Packets that were handed up."""
        return self._events.segments_seen

    @property
    def unneeded(self) -> int:
        """Packets of which nothing went up; of handshakes as counted last."""
        of_handshakes = self.handshakes.packets - self._packets_before
        return self._program.passed_by()[Verdict.UNNEEDED] - self._unneeded_before + of_handshakes

    @property
    def handshakes_incomplete(self) -> int:
        """As `watch` would expose it; the kernel's part as counted last."""
        return self.table.handshakes_incomplete - self._incomplete_before

    @property
    def payload_bytes_up(self) -> int:
        return sum(len(segment.payload) for segment in self.handed_up)


def filtered_records(segments: Iterable[Segment], *, every: int = 50) -> list[dict[str, Any]]:
    """The records that come of segments which the filter saw."""
    return Filter(every=every).show(segments).end()
