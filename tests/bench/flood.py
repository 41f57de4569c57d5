"""`smtp-horizon watch` in a flood of SYNs: its memory, and whether real sessions are still recorded.

trafgen sends them as fast as one processor can, each from an address, a port and a sequence number drawn by
lot. The server answers each (with a SYN cookie), into nothing. Meanwhile smtp-source sends mail.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from monitor.sessions.record import Envelope
from tests.bench import traffic
from tests.bench.figures import Spread, megabytes, print_table, whole
from tests.bench.goals import Goal
from tests.bench.many_open import MOST_RESIDENT_BYTES
from tests.bench.scale import Scale
from tests.bench.traffic import SERVER
from tests.bench.watched import EbpfWatch, bpf_stats, count_right
from tests.lab.network import INTERFACE, Network, client_address
from tests.lab.packages import ensure
from tests.lab.watch import sample_sum

PER_SECOND: Final = 100  # chosen because the flood leaves time for as many, on two cores
# Chosen because a flood of 1,000,000 takes ten seconds, or a minute on a busy machine.
_PATIENCE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    packets: int
    flood_seconds: float
    sessions: int
    """Real ones."""
    records: int
    """Of real sessions: a handshake that never ends has none."""
    right: int
    drops: int
    segments: int
    """Packets that the filter handed up, of the flood and of the sessions."""
    incomplete: int
    """Handshakes that watch counts as such, when all is over."""
    watch_seconds: float
    bpf_seconds: float
    resident_before: int
    resident_most: int
    """While it lasted, and afterwards."""
    resident_afterwards: int


def measure(scale: Scale) -> Measured:
    """Raises LabUnavailableError, OSError, RuntimeError."""
    ensure()
    with (
        bpf_stats(),
        Network(addresses=1, on_disk=True) as network,
        traffic.smtp_sink(network),
        EbpfWatch(network.server, network.folder) as watch,
    ):
        # So that the server has somewhere to send its answers; the client forwards nothing.
        network.server.run(["ip", "route", "add", "default", "via", client_address(1)])
        traffic.smtp_source(network, PER_SECOND)
        watch.await_records(sessions := PER_SECOND)
        resident_before, seconds_before = watch.resident_bytes(), watch.processor_seconds()
        residents = [resident_before]
        bpf_before, segments_before = watch.bpf_seconds(), _segments(watch)
        started = time.monotonic()
        flood = _start_flood(network, scale.flood_packets)
        try:
            while not sessions > PER_SECOND or flood.poll() is None:
                traffic.paced_smtp_source(network, PER_SECOND, per_second=PER_SECOND)
                sessions += PER_SECOND
                residents.append(watch.resident_bytes())
                if time.monotonic() > started + _PATIENCE_SECONDS:
                    raise RuntimeError("the flood does not end")
        finally:
            flood.kill()
        flood_seconds = time.monotonic() - started
        if flood.wait() != 0:
            raise RuntimeError(f"trafgen: status {flood.returncode}")
        watch.await_records(sessions)
        residents.append(watch.resident_bytes())
        watch_seconds = watch.processor_seconds() - seconds_before
        bpf_seconds = watch.bpf_seconds() - bpf_before
        segments = _segments(watch) - segments_before
        incomplete = _await_count(watch, scale)
        drops = watch.end()
        records = watch.written()
    return Measured(
        scale.flood_packets,
        flood_seconds,
        sessions,
        len(records),
        count_right(records, Envelope.VISIBLE),
        drops,
        segments,
        incomplete,
        watch_seconds,
        bpf_seconds,
        resident_before,
        max(residents),
        residents[-1],
    )


def _segments(watch: EbpfWatch) -> int:
    return int(sample_sum(watch.metrics(), "smtp_monitor_packets_total", verdict="segment"))


def _await_count(watch: EbpfWatch, scale: Scale) -> int:
    """How many handshakes are counted as incomplete, when all of the flood should be."""
    deadline = time.monotonic() + scale.flood_count_seconds
    while True:
        incomplete = int(sample_sum(watch.metrics(), "smtp_tcp_handshakes_incomplete_total"))
        if incomplete >= scale.flood_packets or time.monotonic() >= deadline:
            return incomplete
        time.sleep(1)


def _start_flood(network: Network, packets: int) -> subprocess.Popen[bytes]:
    card = network.server.run(["cat", f"/sys/class/net/{INTERFACE}/address"]).stdout.strip()
    return network.client.start(flood_command(card, packets))


def flood_command(card: str, packets: int) -> list[str | Path]:
    """To the card with this address."""
    packet = (
        f"{{ eth(da={card}, sa=02:00:00:00:00:01), ipv4(ttl=64, sa=drnd(), da={SERVER}), "
        "tcp(sp=drnd(), dp=25, seq=drnd(), syn, win=64240) }"
    )
    # The first two options: nothing of the machine's own settings is changed.
    options = ("--no-sock-mem", "--notouch-irq", "--cpus", "1", "--dev", INTERFACE, "--num", str(packets))
    return ["trafgen", *options, packet]


def goals(measured: Measured) -> list[Goal]:
    name = f"watch, flood of {measured.packets:,} SYNs"
    recorded = Spread.of([measured.right / measured.sessions])
    resident = Spread.of([measured.resident_most])
    return [
        Goal(f"{name}: real sessions recorded / sent", 1, recorded, is_least=True, is_for_each=True),
        Goal(f"{name}: resident memory", MOST_RESIDENT_BYTES, resident, write=megabytes),
    ]


def show(console: Console, measured: Measured) -> None:
    print_table(
        console,
        f"watch, flood of {measured.packets:,} SYNs in {measured.flood_seconds:.0f} s, "
        f"and {measured.sessions:,} real sessions",
        ["records", "right", "dropped", "handed up", "handshakes incomplete", "watch, s", "filter, s",
         "resident before", "at the most", "afterwards"],
        [
            [
                whole(measured.records),
                whole(measured.right),
                whole(measured.drops),
                whole(measured.segments),
                whole(measured.incomplete),
                f"{measured.watch_seconds:.2f}",
                f"{measured.bpf_seconds:.2f}",
                megabytes(measured.resident_before),
                megabytes(measured.resident_most),
                megabytes(measured.resident_afterwards),
            ]
        ],
    )  # fmt: skip
