"""The loaded filter, and the ways into its maps."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from ctypes import CDLL, byref, c_uint32, c_uint64, create_string_buffer
from pathlib import Path
from typing import Final

from probes.capabilities import Capability, Needs, in_effect, only_in_effect
from probes.ebpf.loading import LIBBPF, Build, ProgramKind, Variant, load
from probes.ebpf.tap import attach_for_trial
from probes.probe import FilterVariant, Verdict

_FOLDER: Final = Path(__file__).parent

FLOWS: Final = 65_536
"""Connections of which the filter knows what nobody needs: as many as monitor.sessions follows. One that it
has forgotten is handed up whole. The kernel needs some 200 bytes for each, at once."""

HANDSHAKES: Final = 131_072
"""Handshakes that the filter holds; over that it forgets the oldest, more or less. Chosen for floods: a
client answers within 300 ms even from afar, and 131,072 are that long in coming at 400,000 SYNs a second.
The kernel needs 136 bytes for each, at once."""
HELD_SECONDS: Final = 50
"""How old a handshake may be when it goes up. Less than what monitor.sessions takes for a clock that was set
back; one of which a packet comes again goes up much earlier."""

# `struct flow_key`, `struct flow` of appetite.c, `struct handshake` and `struct handshake_counts`.
FLOW_KEY_BYTES: Final = 36
FLOW_BYTES: Final = 96
_HANDSHAKE_BYTES: Final = 32
_HANDSHAKE_COUNTS: Final = 3

# `enum verdict` of event.c.
_VERDICTS: Final = {1: Verdict.OTHER_PORT, 2: Verdict.NOT_TCP, 3: Verdict.MALFORMED, 5: Verdict.UNNEEDED}
_RING_BUFFER_FULL: Final = 4
_HELD: Final = 6

_AT_ONCE: Final = 4_096
"""How many handshakes are copied out of the kernel with one call: chosen as more than can share a bucket."""

_SOURCES: Final = ("common.c", "event.c", "packet.c", "handshake.c", "appetite.c", "filter.c")
_ATTACHED: Final = "attached"
_FUNCTION: Final = "hand_up_watched"
_FILTERS: Final = "filters"
"""The table through which the first goes on with the second: emptied when nobody has hold of it any more."""


class Program:
    """The loaded filter, not yet attached to anything.

    `ring_bytes` is the size of the ring buffer: a power of 2, and whole pages.
    Raises ProbeUnavailable.
    """

    def __init__(
        self,
        ports: frozenset[int],
        ring_bytes: int,
        *,
        flows: int = FLOWS,
        handshakes: int = HANDSHAKES,
        held_seconds: int = HELD_SECONDS,
        appetite: bool = True,
    ) -> None:
        """`appetite`: False to hand up everything, whatever the kernel would take."""
        constants = {
            "PAGE_SIZE": mmap.PAGESIZE,
            "RING_PAGES": ring_bytes // mmap.PAGESIZE,
            "FLOWS": flows,
            "HANDSHAKES": handshakes,
            "HELD_SECONDS": held_seconds,
        }
        self.held_seconds = held_seconds
        variants = _VARIANTS if appetite else _VARIANTS[1:]
        programs, maps, variant, self.why_not_full = load(_build(constants, ports, variants))
        self.variant: Final = FilterVariant(variant)
        """`why_not_full` says why it is not the full one; empty where it is."""
        os.close(programs[_FUNCTION])  # the table has it
        self.descriptor = programs[_ATTACHED]
        self._filters = maps[_FILTERS]
        self.events = maps["events"]
        self._flows, self._asked = maps["flows"], maps["asked"]
        self._handshakes, self._handshake_counts = maps["handshakes"], maps["handshake_counts"]
        self._passed_by = maps["passed_by"]
        # Before anything is asked of a map: it can't fail then, unless for want of memory.
        self._libbpf = CDLL(LIBBPF)
        self._flow = create_string_buffer(FLOW_BYTES)
        processors = self._libbpf.libbpf_num_possible_cpus()
        self._counts = (c_uint64 * processors)()
        self._counts_of_handshakes = (c_uint64 * (_HANDSHAKE_COUNTS * processors))()

    def flow(self, key: bytes) -> bytes | None:
        """What the filter keeps of a connection (`struct flow`). `key`: FLOW_KEY_BYTES."""
        missing = self._libbpf.bpf_map_lookup_elem(self._flows, key, self._flow)
        return None if missing else self._flow.raw

    def forget_flow(self, key: bytes) -> None:
        self._libbpf.bpf_map_delete_elem(self._flows, key)

    def ask(self, key: bytes, what: bytes) -> None:
        """Tells the filter which bytes of a connection nobody needs (`struct ask`)."""
        self._libbpf.bpf_map_update_elem(self._asked, key, what, c_uint64(0))

    def handshakes(self) -> Iterator[bytes]:
        """Those that the filter keeps (`struct handshake`), some at a time, as they are then. Raises OSError
        where the kernel does not say."""
        keys = create_string_buffer(_AT_ONCE * FLOW_KEY_BYTES)
        values = create_string_buffer(_AT_ONCE * _HANDSHAKE_BYTES)
        place, after = c_uint32(), None
        result = 0
        while result == 0:
            count = c_uint32(_AT_ONCE)
            result = self._libbpf.bpf_map_lookup_batch(
                self._handshakes, after, byref(place), keys, values, byref(count), None
            )
            if result not in (0, -errno.ENOENT):  # that: these are the last
                raise OSError(-result, os.strerror(-result))
            after = byref(place)
            yield values.raw[: count.value * _HANDSHAKE_BYTES]

    def handshake_counts(self) -> tuple[int, int, int]:
        """Handshakes that the filter has held, how many of them it handed up, and in how many packets."""
        counts = self._counts_of_handshakes
        self._libbpf.bpf_map_lookup_elem(self._handshake_counts, bytes(c_uint32()), counts)
        begun, told, packets = (sum(counts[each::_HANDSHAKE_COUNTS]) for each in range(_HANDSHAKE_COUNTS))
        return begun, told, packets

    def held(self) -> int:
        """Packets that the filter held, handed up since or not."""
        return self._count(_HELD)

    def passed_by(self) -> dict[Verdict, int]:
        """Packets that the filter saw and did not hand up, since it was loaded; without those it `held`."""
        return {verdict: self._count(index) for index, verdict in _VERDICTS.items()}

    def dropped(self) -> int:
        """Segments which found the ring buffer full, since the filter was loaded."""
        return self._count(_RING_BUFFER_FULL)

    def _count(self, index: int) -> int:
        self._libbpf.bpf_map_lookup_elem(self._passed_by, bytes(c_uint32(index)), self._counts)
        return sum(self._counts)

    def needs(self) -> Needs:
        return needs_to_look_into(self._passed_by)

    def close(self) -> None:
        """May be called twice."""
        for descriptor in (
            self.descriptor,
            self._filters,
            self.events,
            self._flows,
            self._asked,
            self._handshakes,
            self._handshake_counts,
            self._passed_by,
        ):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self._filters = self.events = self._flows = self._asked = -1
        self._handshakes = self._handshake_counts = self._passed_by = -1


def needs_to_look_into(counts: int) -> Needs:
    """`counts`: a map with numbers for each processor. Since Linux 5.19 a map's descriptor is all that it
    takes to look into it. Before that, where kernel.unprivileged_bpf_disabled is set, every call of bpf(2)
    wants CAP_BPF. So it is tried."""
    libbpf = CDLL(LIBBPF)
    room = (c_uint64 * libbpf.libbpf_num_possible_cpus())()
    with only_in_effect():
        is_refused = libbpf.bpf_map_lookup_elem(counts, bytes(c_uint32(0)), room)
    if not is_refused:
        return Needs()
    return Needs(frozenset({Capability.BPF if Capability.BPF in in_effect() else Capability.SYS_ADMIN}))


_VARIANTS: Final = (
    Variant(FilterVariant.FULL, {"APPETITE": 1}, (Capability.PERFMON,)),
    Variant(FilterVariant.PLAIN, {"APPETITE": 0}, (Capability.PERFMON,)),
    # Without it the kernel lets no program walk through a packet's bytes: against speculative reading.
    Variant(FilterVariant.PLAIN_WITHOUT_PERFMON, {"APPETITE": 0}),
)


def _build(
    constants: dict[str, int], ports: frozenset[int], variants: tuple[Variant, ...] = _VARIANTS
) -> Build:
    return Build(
        sources=[str(_FOLDER / name) for name in _SOURCES],
        constants=constants,
        variants=variants,
        ports=sorted(ports),
        programs=dict.fromkeys([_ATTACHED, _FUNCTION], ProgramKind.SOCKET_FILTER),
        turns={_FILTERS: [_FUNCTION]},
        maps=[_FILTERS, "events", "flows", "asked", "handshakes", "handshake_counts", "passed_by"],
        capabilities=[Capability.NET_RAW, Capability.BPF],
        whose="eBPF probe",
        what="eBPF filter",
        purpose="to capture with eBPF",
        instead="or let `--probe auto` capture with libpcap",
    )


def tried() -> tuple[FilterVariant, str]:
    """Which filter the kernel takes here, and why not the full one, found by loading it and attaching it to a
    packet socket. Nothing stays behind. An interface is not needed. Raises ProbeUnavailable."""
    program = Program(frozenset(), mmap.PAGESIZE, flows=1_024, handshakes=1_024)
    with closing(program):
        attach_for_trial(program.descriptor)
        return program.variant, program.why_not_full
