"""The tap's programs in the kernel: what is compiled, which function of a library calls what, and the events.

The layouts are those of event.c.
"""

import mmap
import os
from ctypes import CDLL, c_uint32, c_uint64
from pathlib import Path
from struct import Struct
from typing import Final

from probes.capabilities import Capability, Needs
from probes.ebpf import program as filter_program
from probes.ebpf.clock import BootClock
from probes.ebpf.loading import LIBBPF, Build, ProgramKind
from probes.ebpf.ring import HEADER_BYTES
from probes.segment import flow_of
from probes.tls_tap.event import Kind, TapEvent
from probes.tls_tap.hooks import HOOKS
from probes.tls_tap.tracing import Machine, Tracepoint

_FOLDER: Final = Path(__file__).parent
_SOURCES: Final = (
    str(Path(filter_program.__file__).with_name("common.c")),
    *(
        str(_FOLDER / name)
        for name in ("event.c", "socket.c", "stream.c", "commands.c", "replies.c", "tap.c")
    ),
)

RING_BYTES: Final = 4 * 1024 * 1024
"""Some 20 events a session, of 100 bytes each: chosen to bridge a second of 2,000 sessions, as many as a fast
server takes with TLS."""
ARRIVAL_BYTES: Final = mmap.PAGESIZE
"""Of processes that read from a watched port for the first time: 256 at once."""
_THREADS: Final = 16_384
"""Those that wait in a library for their clients: chosen as more than a server has connections. The kernel
needs some 500 bytes for each, at once."""
_SERVERS: Final = 16_384
_STREAMS: Final = 65_536
"""As many as monitor.sessions follows sessions. The kernel needs some 200 bytes for each, at once."""

RECEIVED: Final = ("tcp", "tcp_rcv_space_adjust")
"""The tracepoint which says whose bytes were read."""
ON_RECEIVE: Final = "on_receive"
EVENTS: Final = "events"
EVENTS_LOST: Final = "events_lost"
ARRIVALS: Final = "arrivals"


_TURNS: Final = ("go_on_with_commands", "go_on_with_replies")

_MAPPED: Final = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2

# The ring buffer's header of the record; at_boot_ns, length, cookie, server, client, server_port,
# client_port, unused, number, kind, is_unsure, text_bytes.
_EVENT: Final = Struct("=I4xQQQ16s16sHH4xIB?H")


def build(ports: frozenset[int], machine: Machine, received: Tracepoint) -> Build:
    arguments, fields = machine.arguments_at, received.fields_at
    hooks = [hook for functions in HOOKS.values() for hook in functions.values()]
    names = {name for hook in hooks for name in (hook.enter, hook.leave) if name is not None}
    return Build(
        sources=list(_SOURCES),
        constants={
            "PAGE_SIZE": mmap.PAGESIZE,
            "RING_PAGES": RING_BYTES // mmap.PAGESIZE,
            "ARRIVAL_PAGES": ARRIVAL_BYTES // mmap.PAGESIZE,
            "THREADS": _THREADS,
            "SERVERS": _SERVERS,
            "STREAMS": _STREAMS,
            "ARGUMENT_1_AT": arguments[0],
            "ARGUMENT_2_AT": arguments[1],
            "ARGUMENT_4_AT": arguments[3],
            "RESULT_AT": machine.result_at,
            "SPORT_AT": fields["sport"],
            "DPORT_AT": fields["dport"],
            "COOKIE_AT": fields["sock_cookie"],
            "SADDR_V6_AT": fields["saddr_v6"],
            "DADDR_V6_AT": fields["daddr_v6"],
        },
        ports=sorted(ports),
        programs={
            ON_RECEIVE: ProgramKind.TRACEPOINT,
            **dict.fromkeys(sorted(names), ProgramKind.PROBE),
            **dict.fromkeys(_TURNS, ProgramKind.PROBE),
        },
        turns={"turns": list(_TURNS)},
        # That of the turns is emptied when nobody has hold of it any more.
        maps=[EVENTS, EVENTS_LOST, ARRIVALS, "turns"],
        capabilities=[Capability.BPF, Capability.PERFMON],
        whose="TLS tap",
        what="TLS tap",
        purpose="for the TLS tap",
        instead="or leave out `--tls-tap`",
    )


def read_events(taken: bytes, clock: BootClock) -> list[TapEvent]:
    """What the ring buffer gave."""
    events: list[TapEvent] = []
    position, end = 0, len(taken)
    utc_minus_boot_ns = clock.utc_minus_boot_ns
    while position < end:
        (
            record_bytes,
            at_boot_ns,
            length,
            cookie,
            server,
            client,
            server_port,
            client_port,
            number,
            kind,
            is_unsure,
            text_bytes,
        ) = _EVENT.unpack_from(taken, position)
        text_at = position + _EVENT.size
        position += record_bytes + HEADER_BYTES + 7 & ~7
        flow = flow_of(_address(client), client_port, _address(server), server_port)
        text = taken[text_at : text_at + text_bytes]
        events.append(
            TapEvent(
                at_boot_ns + utc_minus_boot_ns, flow, cookie, number, Kind(kind), length, text, is_unsure
            )
        )
    return events


def _address(mapped: bytes) -> bytes:
    """As packets have it: an IPv4 address is mapped into IPv6 in a socket for both."""
    return mapped[len(_MAPPED) :] if mapped.startswith(_MAPPED) else mapped


class EventsLost:
    """How many events found the ring buffer full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._libbpf = CDLL(LIBBPF)
        self._counts = (c_uint64 * self._libbpf.libbpf_num_possible_cpus())()

    def needs(self) -> Needs:
        return filter_program.needs_to_look_into(self._descriptor)

    def count(self) -> int:
        """Raises OSError where the kernel does not say."""
        refused = self._libbpf.bpf_map_lookup_elem(self._descriptor, bytes(c_uint32(0)), self._counts)
        if refused:
            raise OSError(-refused, os.strerror(-refused))
        return sum(self._counts)

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
