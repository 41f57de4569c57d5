"""Plain live capture with libpcap, for machines without bcc.

The kernel filter lets watched ports through, and what it can't judge by itself: fragments, IPv6 extension
headers, a VLAN tag that is still in the frame. The decoder decides about those.

`lo` and `any` would show each local packet twice, leaving and arriving; libpcap leaves the leaving ones out
(`linux_check_direction` in pcap-linux.c).
"""

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import pcapy

from probes.capabilities import Capability, Needs
from probes.frames import FrameDecoder
from probes.pcap.filter import kernel_filter
from probes.probe import HEARTBEAT_SECONDS, DropSite, PacketCounts, ProbeUnavailable
from probes.segment import Segment

# libpcap's MAXIMUM_SNAPLEN: more than any super-segment.
SNAP_LENGTH_BYTES: Final = 262_144
# Chosen because it holds a tenth of a second of 1 Gbit/s.
BUFFER_BYTES: Final = 16 * 2**20
# Half of the heartbeat: how long the kernel may hold packets back to hand over more at once.
HOLD_BACK_MILLISECONDS: Final = 100
# Twice that: when an interface goes down, the kernel still has what it holds back, and libpcap tells of the
# end first.
LAST_FRAMES_SECONDS: Final = 2 * HOLD_BACK_MILLISECONDS / 1000
# Chosen because it is a few milliseconds of work.
BATCH_FRAMES: Final = 512
# Chosen because an interface that is made anew, as a VPN's or a container's, takes seconds.
RETRY_SECONDS: Final = 3.0

# pcap/pcap.h: what pcap_activate answers.
PCAP_ERROR_NO_SUCH_DEVICE: Final = -5
PCAP_ERROR_PERM_DENIED: Final = -8
PCAP_ERROR_IFACE_NOT_UP: Final = -9
PCAP_ERROR_PROMISC_PERM_DENIED: Final = -11

Decode = Callable[[int, int, bytes, int], Segment | None]


class LivePcapProbe:
    """Segments from network interfaces. A `probes.probe.Probe`.

    An interface that goes away is tried again every few seconds; the others go on.
    """

    name = "pcap"
    sieve = None
    filter_variant = None
    needs = Needs(frozenset({Capability.NET_RAW}))
    """For a new packet socket, when an interface comes back."""

    def __init__(self, interfaces: Sequence[str], ports: frozenset[int]) -> None:
        """Raises ProbeUnavailable."""
        self.counts = PacketCounts()
        self._decoder = FrameDecoder(ports, self.counts)
        self._stopping = False
        expression = kernel_filter(ports)
        self._interfaces = [
            _Interface(name, expression, self._decoder.decode, self.counts)
            for name in dict.fromkeys(interfaces)
        ]
        try:
            for interface in self._interfaces:
                interface.open()
        except BaseException:
            self.close()
            raise

    def is_caught_up(self) -> bool:
        return True

    def interfaces_up(self) -> dict[str, bool]:
        """Each interface, and whether it is captured now."""
        return {interface.name: interface.is_up for interface in self._interfaces}

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Segments as they come, and an empty batch where none came for a heartbeat; ends after `stop`."""
        more_waits = False
        while True:
            if not more_waits:
                self._wait()
            segments: list[Segment] = []
            more_waits = False
            for interface in self._interfaces:
                more_waits |= interface.read(segments)
            yield segments
            if self._stopping and not segments and not more_waits:
                return

    def stop(self) -> None:
        self._stopping = True

    def _wait(self) -> None:
        """Until packets are there, or a heartbeat is over."""
        poll = select.poll()
        for interface in self._interfaces:
            if interface.descriptor is not None:
                poll.register(interface.descriptor, select.POLLIN)
        poll.poll(HEARTBEAT_SECONDS * 1000)

    def close(self) -> None:
        for interface in self._interfaces:
            interface.close()
        self._decoder.flush()


class _Interface:
    """One interface: captured, or waiting to be again."""

    def __init__(self, name: str, expression: str, decode: Decode, counts: PacketCounts) -> None:
        self.name = name
        self._expression = expression
        self._decode = decode
        self._counts = counts
        self._pcap: Any = None
        self._link_type = 0
        self._is_down = False
        """While a handle is open: whether it is read to its end only."""
        self._end_at = 0.0
        self._retry_at = 0.0
        self._stats_at = 0.0
        self._dropped = (0, 0)

    @property
    def is_up(self) -> bool:
        return self._pcap is not None and not self._is_down

    @property
    def descriptor(self) -> int | None:
        """What to poll; None while it is down."""
        return None if self._pcap is None else self._pcap.getfd()

    def open(self) -> None:
        """Raises ProbeUnavailable."""
        self._pcap = _activated(self.name, self._expression)
        self._link_type = self._pcap.datalink()
        self._is_down = False
        self._dropped = (0, 0)

    def read(self, segments: list[Segment]) -> bool:
        """Decodes what is there, up to a batch; says whether more may be waiting."""
        now = time.monotonic()
        if self._pcap is None:
            if now >= self._retry_at:
                self._retry_at = now + RETRY_SECONDS
                try:
                    self.open()
                except ProbeUnavailable:
                    return False  # not yet
            else:
                return False
        decode = self._decode
        link_type = self._link_type
        append = segments.append

        def receive(header: Any, frame: bytes) -> None:
            seconds, microseconds = header.getts()
            segment = decode(seconds * 1_000_000_000 + microseconds * 1000, link_type, frame, header.getlen())
            if segment is not None:
                append(segment)

        try:
            frames = self._pcap.dispatch(BATCH_FRAMES, receive)
            if now >= self._stats_at:
                self._stats_at = now + HEARTBEAT_SECONDS
                self._count_drops()
        except pcapy.PcapError:  # it went down, or was removed
            frames = 0
            if not self._is_down:
                self._is_down = True
                self._end_at = now + LAST_FRAMES_SECONDS
        if self._is_down and frames == 0 and now >= self._end_at:
            self.close()
            self._retry_at = now + RETRY_SECONDS
        return bool(frames == BATCH_FRAMES)

    def _count_drops(self) -> None:
        _, by_kernel, by_interface = self._pcap.stats()
        before = self._dropped
        self._dropped = (by_kernel, by_interface)
        # 32 bits, which run over.
        self._counts.dropped[DropSite.KERNEL] += (by_kernel - before[0]) % 2**32
        self._counts.dropped[DropSite.INTERFACE] += (by_interface - before[1]) % 2**32

    def close(self) -> None:
        if self._pcap is not None:
            with suppress(pcapy.PcapError):  # the interface is gone, and its numbers with it
                self._count_drops()
            self._pcap.close()
            self._pcap = None


def _activated(interface: str, expression: str) -> Any:
    """An open libpcap handle. Raises ProbeUnavailable."""
    known = [name for _, name in socket.if_nameindex()]
    unknown = ProbeUnavailable(
        f"there is no interface {interface!r} on this machine", f"name one of: any, {', '.join(known)}"
    )
    if interface != "any" and interface not in known:
        raise unknown
    try:
        pcap = pcapy.create(interface)
        pcap.set_snaplen(SNAP_LENGTH_BYTES)
        pcap.set_timeout(HOLD_BACK_MILLISECONDS)
        pcap.set_buffer_size(BUFFER_BYTES)
        answer = pcap.activate()
        if answer >= 0:
            pcap.setnonblock(1)
            pcap.setfilter(expression)
            return pcap
    except pcapy.PcapError as error:
        raise ProbeUnavailable(
            f"libpcap can't capture on {interface} ({error})", f"see what `tcpdump -i {interface} tcp` says"
        ) from error
    pcap.close()
    if answer == PCAP_ERROR_NO_SUCH_DEVICE:
        raise unknown
    if answer in (PCAP_ERROR_PERM_DENIED, PCAP_ERROR_PROMISC_PERM_DENIED):
        raise ProbeUnavailable(
            f"no privilege to capture on {interface}", "run as root, or with the capability CAP_NET_RAW"
        )
    if answer == PCAP_ERROR_IFACE_NOT_UP:
        raise ProbeUnavailable(f"interface {interface} is down", f"ip link set {interface} up")
    raise ProbeUnavailable(
        f"libpcap can't capture on {interface} (pcap_activate says {answer})",
        f"see what `tcpdump -i {interface} tcp` says",
    )
