"""What every probe offers, what it counts, and how it fails.

ProbeError
├── ProbeUnavailable     this machine or user can't run the probe; `remedy` says what would mend it
├── CaptureFileError     a file that can't be opened or is no capture
└── CaptureInterrupted   the source ended before its time: a file cut short, an interface gone
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from probes.segment import Segment


class Verdict(StrEnum):
    """What became of a packet that reached the probe: the label of smtp_monitor_packets_total."""

    SEGMENT = "segment"
    """TCP on a watched port: handed on."""
    OTHER_PORT = "other_port"
    """TCP, but no end of it on a watched port."""
    NOT_TCP = "not_tcp"
    """Another protocol."""
    FRAGMENT = "fragment"
    """Part of an IP datagram; the datagram it completed counts once more, by what it held."""
    MALFORMED = "malformed"
    """Headers that are cut short or contradict themselves."""
    UNSUPPORTED = "unsupported"
    """A link layer that no decoder knows."""
    UNNEEDED = "unneeded"
    """TCP on a watched port, of which the probe knew that nobody needs more than its length: a body's,
    ciphertext, an acknowledgement, the handshake of a connection that never was."""


class DropSite(StrEnum):
    """Where packets were lost before they could be read: the label of smtp_monitor_packets_dropped_total."""

    KERNEL = "kernel"
    """The packet socket or libpcap's buffer was full."""
    INTERFACE = "interface"
    """The network interface or its driver dropped it."""
    RING_BUFFER = "ring_buffer"
    """The BPF ring buffer was full."""
    FRAGMENTS = "fragments"
    """IP fragments whose datagram was never completed, or went over the table's bound."""
    TSHARK = "tshark"
    """tshark died over it, twice."""


class Restart(StrEnum):
    """Why the pyshark probe replaced its tshark: the label of smtp_monitor_tshark_restarts_total."""

    PLANNED = "planned"
    """Its memory grows with what it has seen."""
    DIED = "died"
    """It ended by itself, or was ended."""
    HUNG = "hung"
    """It did not answer."""


class FilterVariant(StrEnum):
    """Which filter of the eBPF probe's is in the kernel: the label of smtp_monitor_ebpf_filter."""

    FULL = "full"
    """Hands up only what somebody needs."""
    PLAIN = "plain"
    """Hands up all TCP of the watched ports, as the kernel's verifier rejects the full one."""
    PLAIN_WITHOUT_PERFMON = "plain_without_perfmon"
    """The same, as CAP_PERFMON is missing, without which the kernel takes no full one."""


@dataclass(slots=True)
class PacketCounts:
    """Plain integers, written by the probe, read at a scrape."""

    seen: Counter[Verdict] = field(default_factory=Counter)
    dropped: Counter[DropSite] = field(default_factory=Counter)
    restarts: Counter[Restart] = field(default_factory=Counter)


class Sieve(Protocol):
    """The way back to a probe that leaves out what nobody needs, and what it then knows of a connection.

    Connections are named by the flow from their client.
    """

    @property
    def handshakes_incomplete(self) -> int:
        """TCP handshakes of which nothing was handed up, and nothing will come: refused, unanswered, or
        pushed out by others. It never falls, may be half a minute behind, and other threads may read it."""

    def leave_out(self, flow: bytes, sequence: int, length: int) -> None:
        """The client's next `length` bytes, from this sequence number on, need not be handed up. Some of them
        may come yet, or all."""

    def last_at_ns(self, flow: bytes) -> int | None:
        """When the connection's last packet was seen, handed up or not; None where that is not known."""

    def take_leftover(self, flow: bytes, last_at_ns: int) -> list[Segment]:
        """What was not told yet of a connection, as segments without payload, and then forgets it. For when
        it is over; `last_at_ns`: its last packet that was handed up, which tells it from one that has taken
        its place meanwhile."""


class Probe(Protocol):
    """A source of segments."""

    @property
    def name(self) -> str:
        """`pcap`, `ebpf` or `pyshark`: the label of smtp_monitor_capture_up."""

    @property
    def counts(self) -> PacketCounts: ...

    @property
    def sieve(self) -> Sieve | None:
        """Of a probe that leaves out what nobody needs; None where it hands up everything."""

    @property
    def filter_variant(self) -> FilterVariant | None:
        """None where there is no eBPF filter."""

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Yields segments in capture order, in batches.

        A live probe yields at least every `HEARTBEAT_SECONDS`, an empty batch if need be, so that its reader
        can look at clocks and signals; it ends after `stop`, or by `CaptureInterrupted`. A file probe ends
        with its files.
        """

    def stop(self) -> None:
        """Captures no more. What was captured before is still yielded, then `batches` ends. A file probe goes
        on: its packets were captured long ago."""

    def is_caught_up(self) -> bool:
        """Whether an empty batch says that nothing captured waits to be yielded: then the clock may go ahead
        of the packets."""

    def interfaces_up(self) -> dict[str, bool]:
        """For a live probe: each watched interface (as named on the command line) and whether it is captured
        now. Empty for files."""

    def close(self) -> None:
        """Gives everything back to the system; may be called twice."""


HEARTBEAT_SECONDS = 0.2  # a tenth of the patience of somebody who pressed Ctrl-C


class ProbeError(Exception):
    """The message is one line for the user: what, where."""


class ProbeUnavailable(ProbeError):
    """This machine or this user can't run the probe."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.remedy = remedy


class CaptureFileError(ProbeError):
    """A file that can't be opened, or is no capture."""


class CaptureInterrupted(ProbeError):
    """The source ended before its time. All that came before it was yielded."""
