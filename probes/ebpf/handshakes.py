"""How many handshakes that the filter kept to itself came to nothing: the layout is that of handshake.c.

The kernel forgets the oldest to make room, and tells nobody. So they are not counted one by one: of those
that began, some went up, some are under way; the others are over.
"""

import time
from struct import Struct
from typing import Final

from probes.ebpf.program import Program

# `struct handshake`: since_boot_ns, syn, syn_ack, told.
_HANDSHAKE: Final = Struct("=Q20xBB?x")
_SECOND_NS: Final = 1_000_000_000


class Handshakes:
    """Both numbers are as they were at the last `count`, never too high, and never fall. Where the kernel
    does not say what is under way, they stay."""

    __slots__ = ("_program", "incomplete", "packets")

    def __init__(self, program: Program) -> None:
        self._program = program
        self.incomplete = 0
        """Handshakes that were never handed up, and are over."""
        self.packets = 0
        """Their packets."""

    def count(self, *, are_over: bool = False) -> None:
        """`are_over`: none is under way any more, as nothing is captured."""
        # In this order, since packets come meanwhile: what begins later is not among `begun`, and what goes
        # up meanwhile is subtracted once at least.
        begun, _, _ = self._program.handshake_counts()
        packets_ever = self._program.held()
        try:
            under_way, packets = (0, 0) if are_over else self._under_way()
        except OSError:
            return
        _, told, told_packets = self._program.handshake_counts()
        self.incomplete = max(self.incomplete, begun - told - under_way)
        self.packets = max(self.packets, packets_ever - told_packets - packets)

    def _under_way(self) -> tuple[int, int]:
        """How many, and of how many packets. Raises OSError."""
        oldest_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._program.held_seconds * _SECOND_NS
        handshakes = packets = 0
        for some in self._program.handshakes():
            for since_boot_ns, syn, syn_ack, told in _HANDSHAKE.iter_unpack(some):
                if since_boot_ns >= oldest_boot_ns and not told:
                    handshakes += 1
                    packets += 2 if syn and syn_ack else 1
        return handshakes, packets
