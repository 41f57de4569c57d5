"""Overload is said, not hidden: real sessions with a real Postfix, and a watch that can't keep up with them.

The truth is the clients' own account (so many in clear, so many behind STARTTLS, all went well), and of each
session what tcpdump beside it captured whole.
"""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest

from tests.bench import traffic
from tests.faults.small_watch import SmallWatch
from tests.lab.compare import key
from tests.lab.network import Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.watch import PROGRAM, Process, Tcpdump
from tests.probes.cross_check import by_tshark
from tests.wrong import wrong_facts

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

CLEAR: Final = 60
STARTTLS: Final = 40
_STOPPED_SECONDS: Final = 0.6
_RUNNING_SECONDS: Final = 0.3


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network() as network, traffic.real_postfix(network):
        yield network


@contextmanager
def kept_from_running(process: Process) -> Iterator[None]:
    """By turns, as on a machine that has something better to do."""
    assert process._process is not None
    running, enough = process._process, Event()

    def take_turns() -> None:
        while not enough.is_set():
            running.send_signal(signal.SIGSTOP)
            enough.wait(_STOPPED_SECONDS)
            running.send_signal(signal.SIGCONT)
            enough.wait(_RUNNING_SECONDS)

    turns = Thread(target=take_turns)
    turns.start()
    try:
        yield
    finally:
        enough.set()
        turns.join()


def read_whole(capture: Path) -> dict[Any, dict[str, Any]]:
    """The record of each session by its two ends, of a capture that has all packets."""
    command: list[str | Path] = [PROGRAM, "read", "--format", "jsonl", "--local-network", "10.77.0.0/24"]
    lines = subprocess.run([*command, capture], capture_output=True, check=True).stdout.splitlines()
    records = {key(record): record for record in map(json.loads, lines)}
    assert len(records) == len(lines), "two sessions with the same ends"
    assert all(record["capture"]["complete"] for record in records.values())
    return records


@pytest.mark.parametrize(
    ("kind", "size_bytes", "where"), [("ebpf", 65_536, "ring_buffer"), ("libpcap", 300_000, "kernel")]
)
def test_what_is_lost_is_counted_and_what_it_touched_is_unknown_or_right(
    network: Network, tmp_path: Path, kind: str, size_bytes: int, where: str
) -> None:
    dump = tmp_path / "whole.pcap"
    with Tcpdump(network.server, dump) as tcpdump, SmallWatch(network, tmp_path, kind, size_bytes) as watch:
        with kept_from_running(watch):
            traffic.smtp_source(network, CLEAR)
            traffic.starttls_clients(network, STARTTLS)
        assert watch.stop() == 0
        tcpdump.stop()
        said = watch.said()
    assert "\n0 packets dropped by kernel" in tcpdump.said()
    truths = read_whole(dump)
    assert Counter(truth["envelope"] for truth in truths.values()) == {"visible": CLEAR, "hidden": STARTTLS}
    found: Counter[str] = Counter()
    for record in watch.records():
        truth = truths[key(record)]
        assert not wrong_facts(record, truth)
        is_right = record["envelope"] == truth["envelope"]
        assert is_right or (record["envelope"] == "unknown" and not record["capture"]["complete"])
        found["right" if is_right else "unknown"] += 1
    missing = truths.keys() - set(map(key, watch.records()))
    lost = int(said.rpartition("packets lost before they could be read: ")[2].split()[0])
    print(f"{kind}: {dict(found)}, missing {len(missing)}, packets lost {lost}")
    assert found["unknown"] or missing, "no overload at all"
    # Of a session that left no record, each packet with data was dropped and counted.
    ports = {client[1] for client, _ in missing}
    with_data = [segment for segment in by_tshark(dump, port=25) if segment.length]
    assert lost >= sum(not {one.source_port, one.destination_port}.isdisjoint(ports) for one in with_data)
