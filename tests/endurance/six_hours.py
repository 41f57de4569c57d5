"""Six hours of a mail server: 21,600 sessions, one a second, read from a pipe or sent over the lab's cable.

Chosen because a session a second is 86,400 a day: a server of some thousand people. The sessions are those
of `mid`, which real servers and clients had within two seconds; they have 54 packets each, so 1.15 million in
all, and two thirds of them use TLS. In the file the packets' time stamps span the six hours. Live they can't:
there the same packets come as fast as watch reads them, since what fills a tshark is packets, not time.
"""

import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.endurance.enduring import FILE_PROBE, EnduringWatch, Lives, smtp_horizon
from tests.endurance.memory import Sample, Sampler
from tests.endurance.multiplier import Capture, Packet, copy_of, multiplied, write
from tests.lab.network import INTERFACE, Network
from tests.lab.truth import Endpoint
from tests.lab.watch import read_records
from tests.segments import records_of, segments_of
from tests.timeless import timeless

SECONDS: Final = 6 * 3600
SESSIONS: Final = SECONDS
# The two ends stood beside each other. Stretched like that, a session takes most of a second and a few
# minutes at most, as over the Internet, and sessions overlap.
STRETCH: Final = 20

# Live: nobody insists on this pace. Chosen because tcpreplay, the probe and tshark keep it up on two cores;
# whoever is slower makes the sender wait, so that what is lost was not lost for want of speed.
PACKETS_PER_SECOND: Final = 6_000
# How far watch may be behind. Chosen because the buffers on the way hold several times as much.
LAG_PACKETS: Final = 10_000
ASK_EVERY_SECONDS: Final = 1.0
MAKE_UP_SECONDS: Final = 0.2

_OTHER_IN_A_COPY: Final = {"client", "community_id"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Record = dict[str, Any]


class Reading(NamedTuple):
    status: int
    said: str
    records: list[Record]
    packets: int
    seconds: float
    samples: list[Sample]


def read_from_pipe(capture: Capture, sessions: int, folder: Path, lives: Lives | None = None) -> Reading:
    """`smtp-horizon read -`, with the six hours streamed to its standard input."""
    output, log = folder / "records.jsonl", folder / "read.log"
    begun = time.monotonic()
    with output.open("wb") as records, log.open("wb") as errors:
        reading = subprocess.Popen(
            [*smtp_horizon(lives), "read", "--probe", FILE_PROBE, "--format", "jsonl", "-"],
            stdin=subprocess.PIPE,
            stdout=records,
            stderr=errors,
        )
        assert reading.stdin is not None
        with Sampler(reading.pid) as sampler, reading:
            packets = write(
                reading.stdin, capture, multiplied(capture, sessions, seconds=sessions, stretch=STRETCH)
            )
            reading.stdin.close()
            status = reading.wait()
    return Reading(
        status,
        log.read_text(),
        read_records(output.read_text()),
        packets,
        time.monotonic() - begun,
        sampler.samples,
    )


def replay(network: Network, capture: Capture, sessions: int, watch: EnduringWatch) -> int:
    """Sends the same packets over the cable, never far ahead of what watch has seen.

    Returns how many of them are of sessions. Raises RuntimeError if one could not be sent.
    """
    command = network.client.command(["tcpreplay", "--topspeed", "--intf1", INTERFACE, "-"])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        pace = _Pace(watch)
        packets = write(
            sender.stdin, capture, map(pace.hold, multiplied(capture, sessions, seconds=sessions))
        )
        sender.stdin.close()
        said = sender.stdout.read().decode()
    if f"Actual: {packets} packets" not in said or sender.returncode != 0:
        raise RuntimeError(f"tcpreplay could not send all of {packets} packets: {said}")
    return pace.sent


class _Pace:
    """Holds packets back so that they come evenly, and never far ahead of what watch has seen."""

    def __init__(self, watch: EnduringWatch) -> None:
        self.sent = 0
        """Packets of sessions."""
        self._watch = watch
        self._begun = time.monotonic()
        self._paced = 0
        """Packets since then."""
        self._ask_at = 0.0

    def hold(self, packets: list[Packet]) -> list[Packet]:
        """The same packets, when it is time."""
        if time.monotonic() >= self._ask_at:
            self._watch.await_sum("smtp_monitor_packets_total", self.sent - LAG_PACKETS, verdict="segment")
            self._ask_at = time.monotonic() + ASK_EVERY_SECONDS
        ahead_seconds = self._begun + self._paced / PACKETS_PER_SECOND - time.monotonic()
        if ahead_seconds > 0:
            time.sleep(ahead_seconds)
        elif ahead_seconds < -MAKE_UP_SECONDS:
            # What was held back is not made up for: that would be a burst.
            self._begun, self._paced = time.monotonic(), 0
        self._paced += len(packets)
        self.sent += sum(packet.is_mail for packet in packets)
        return packets


def complaints(records: Iterable[Record], capture: Capture, sessions: int, *, timed: bool) -> list[str]:
    """What is missing, doubled, or different from the record of the session that it is a copy of.

    `timed`: whether each began when its time stamps say.
    """
    originals = {_key(record): timeless(record) for record in records_of(segments_of("mid"))}
    wanted = {}
    for number in range(sessions):
        copy, which = divmod(number, len(capture.sessions))
        session = capture.sessions[which]
        wanted[copy, session.client, session.server] = capture.begins_us(number, sessions, sessions)
    found = []
    for record in records:
        client, server = _key(record)
        copy, address = copy_of(client[0])
        key = (address, client[1]), server
        begins_us = wanted.pop((copy, *key), None)
        if begins_us is None:
            found.append(f"nobody's, or once more: {client} to {server}")
            continue
        if timed and _microseconds(record["start"]) != begins_us:
            found.append(f"{client}: began at {record['start']}")
        seen = timeless(record)
        found += [
            f"{client}: {name}: {seen[name]!r}, not {value!r}"
            for name, value in originals[key].items()
            if name not in _OTHER_IN_A_COPY and seen[name] != value
        ]
    return found + [f"missing: {key}" for key in wanted]


def _key(record: Record) -> tuple[Endpoint, Endpoint]:
    client, server = record["client"], record["server"]
    return (client["ip"], client["port"]), (server["ip"], server["port"])


def _microseconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // timedelta(microseconds=1)
