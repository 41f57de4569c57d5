"""EbpfProbe: segments from the kernel, as they pass."""

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final

from probes.ebpf.clock import BootClock
from probes.ebpf.event import EventReader
from probes.ebpf.flows import Flows
from probes.ebpf.handshakes import Handshakes
from probes.ebpf.program import Program
from probes.ebpf.ring import Ring
from probes.ebpf.tap import ANY, AnyTap, InterfaceTap, Tap
from probes.frames import FrameDecoder
from probes.probe import HEARTBEAT_SECONDS, DropSite, FilterVariant, PacketCounts, ProbeUnavailable, Verdict
from probes.segment import Segment

# Chosen because 5,000 SMTP sessions a second write some 16 MB: it bridges a second in which the reader gets
# no processor.
RING_BYTES: Final = 16 * 1024 * 1024

# The kernel wakes the reader for an event only if there was none before it. A nap lets some gather: without
# it most of the time went into waking. Chosen because nobody notices it, and the ring buffer holds far more:
# a nap is left out when it fills fast.
NAP_SECONDS: Final = 0.05
NO_NAP_ABOVE_BYTES: Final = RING_BYTES // 32

# Chosen as some three thousand commands and replies: a moment's work, and memory for a moment.
BATCH_BYTES: Final = 1024 * 1024

# After a flood it takes some 75 ms each time; and a handshake that nobody answers is over after a minute
# anyway.
HANDSHAKES_EVERY_SECONDS: Final = 30.0


class EbpfProbe:
    """Captures from interfaces by their names, `any` being all of them. See probes.probe.Probe.

    An interface must exist at the start; one that goes and comes back is captured again within a heartbeat.
    One thread makes the probe, reads its batches and closes it; others may read `counts`, which follow the
    kernel's once in a heartbeat, and `interfaces_up`. An empty batch says that the ring buffer is empty too.

    `ring_bytes` must be a power of 2, and whole pages. `appetite`: False to hand up everything, needed or
    not. Raises ProbeUnavailable.
    """

    name: Final = "ebpf"

    def __init__(
        self,
        interfaces: Sequence[str],
        ports: frozenset[int],
        *,
        ring_bytes: int = RING_BYTES,
        appetite: bool = True,
    ) -> None:
        _check_names(interfaces)
        self._counts = PacketCounts()
        self._clock = BootClock()
        self._frames = FrameDecoder(ports, self._counts)
        self._events = EventReader(self._frames, self._clock)
        self._passed_by: dict[Verdict, int] = {}
        self._dropped = 0
        self._taps: dict[str, Tap] = {}
        self._stopping = False
        self._closed = False
        self._program = Program(ports, ring_bytes, appetite=appetite)
        self._ring = Ring(self._program.events, ring_bytes)
        self._handshakes = Handshakes(self._program)
        self._handshakes_due = time.monotonic()
        self.sieve = Flows(self._program, self._clock, self._handshakes)
        for interface in dict.fromkeys(interfaces):
            try:
                self._taps[interface] = _tap(interface, self._program)
            except OSError as error:
                self.close()
                raise ProbeUnavailable(
                    f"can't capture from {interface}: {error.strerror}", "see `smtp-horizon doctor`"
                ) from None
        self._up = {interface: tap.follow() for interface, tap in self._taps.items()}
        self.needs = self._program.needs()

    @property
    def counts(self) -> PacketCounts:
        return self._counts

    @property
    def filter_variant(self) -> FilterVariant:
        return self._program.variant

    @property
    def why_not_full(self) -> str:
        """Why it is not the full filter; empty where it is."""
        return self._program.why_not_full

    def is_caught_up(self) -> bool:
        return True

    def interfaces_up(self) -> dict[str, bool]:
        return self._up

    def batches(self) -> Iterator[Sequence[Segment]]:
        tend_at = time.monotonic()
        while not self._closed:
            taken = self._ring.take(BATCH_BYTES)
            if not taken and not self._stopping:
                self._ring.wait(HEARTBEAT_SECONDS)
                taken = self._ring.take(BATCH_BYTES)
            if time.monotonic() >= tend_at:
                self._tend()
                tend_at = time.monotonic() + HEARTBEAT_SECONDS
            yield self._events.read(taken)
            if self._stopping and not taken:
                return
            if 0 < len(taken) < NO_NAP_ABOVE_BYTES and not self._stopping:
                time.sleep(NAP_SECONDS)

    def stop(self) -> None:
        self._stopping = True
        for tap in self._taps.values():
            tap.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.stop()
        self._handshakes.count(are_over=True)
        self._count()
        self._ring.close()
        self._program.close()

    def _tend(self) -> None:
        self._clock.follow()
        if not self._stopping:
            self._up = {interface: tap.follow() for interface, tap in self._taps.items()}
        if time.monotonic() >= self._handshakes_due:
            self._handshakes.count()
            self._handshakes_due = time.monotonic() + HANDSHAKES_EVERY_SECONDS
        self._count()

    def _count(self) -> None:
        """Adds what was counted since the last time."""
        self._counts.seen[Verdict.SEGMENT] += self._events.segments_seen
        self._events.segments_seen = 0
        passed_by = self._program.passed_by()
        passed_by[Verdict.UNNEEDED] += self._handshakes.packets
        for verdict, total in passed_by.items():
            self._counts.seen[verdict] += total - self._passed_by.get(verdict, 0)
        self._passed_by = passed_by
        dropped = self._program.dropped()
        self._counts.dropped[DropSite.RING_BUFFER] += dropped - self._dropped
        self._dropped = dropped


def _check_names(interfaces: Sequence[str]) -> None:
    existing = [name for _, name in socket.if_nameindex()]
    for interface in interfaces:
        if interface not in (ANY, *existing):
            raise ProbeUnavailable(
                f"there is no interface {interface!r}", f"choose from: {', '.join([*existing, ANY])}"
            )
    if ANY in interfaces and set(interfaces) != {ANY}:
        # Two sockets would show the filter each packet twice.
        raise ProbeUnavailable("`any` includes the other interfaces", "name it alone, or leave it out")


def _tap(interface: str, program: Program) -> Tap:
    if interface == ANY:
        return AnyTap(program.descriptor)
    return InterfaceTap(interface, program.descriptor)
