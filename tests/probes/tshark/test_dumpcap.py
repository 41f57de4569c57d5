"""The pyshark probe live, against tcpdump: dumpcaps that take over, drops, interfaces that go."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from probes.probe import DropSite, Restart, Verdict
from probes.segment import ACK, SYN
from probes.tshark import dumpcap
from probes.tshark.probe import LiveTsharkProbe
from tests.lab.network import INTERFACE, Network, server_address
from tests.lab.packages import ensure
from tests.probes.cross_check import PORT, Recording, by_tshark, dumped, recorded, timeless
from tests.probes.second_cable import SECOND, SECOND_ADDRESS, second_cable
from tests.probes.tshark.stand_ins import in_place_of
from tests.probes.workload import CONNECTIONS, converse

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

# As long as packets may be in the kernel before dumpcap has them; what it has not when it dies is lost.
HELD_BACK_SECONDS = dumpcap.FLUSH_SECONDS


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    ensure()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(addresses=2) as network:
        yield network


def processes(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended in between
            if process.name() == name:
                found.append(process)
    return found


def start_watch(
    network: Network,
    folder: Path,
    *prefix: str,
    options: Sequence[str] = (),
    records: Path | None = None,
) -> tuple["subprocess.Popen[bytes]", Path]:
    """`smtp-horizon watch` on the server, once it captures, and its log."""
    command: list[str | Path] = [*prefix, Path(sys.executable).with_name("smtp-horizon"), "watch", *options]
    command += ["--interface", INTERFACE, "--listen", "127.0.0.1:0", "--ports", str(PORT)]
    if records is not None:
        command += ["--records", records]
    log = folder / "log"
    with log.open("wb") as output:
        watch = network.server.start(command, output=output)
    while b"metrics are at" not in log.read_bytes():
        assert watch.poll() is None, log.read_text()
        time.sleep(0.05)
    return watch, log


def syns(recording: Recording) -> int:
    return sum(segment.flags & (SYN | ACK) == SYN for segment in recording.segments)


@pytest.mark.parametrize("family", [4, pytest.param(6, marks=pytest.mark.thorough)])
def test_live_segments_are_those_of_tcpdump(family: int, network: Network, tmp_path: Path) -> None:
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(network.server, [INTERFACE], LiveTsharkProbe) as recording,
    ):
        converse(network.server, network.client, server_address(1, family))
    assert timeless(recording.segments) == timeless(by_tshark(dump))
    assert recording.counts.seen[Verdict.SEGMENT] == len(recording.segments)
    assert not +recording.counts.dropped
    assert not processes("dumpcap") + processes("tshark")


@pytest.mark.thorough
def test_nothing_is_lost_or_doubled_while_dumpcaps_and_tsharks_take_over(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumpcap, "TAKE_OVER_SECONDS", 0.2)
    seen: set[int] = set()
    with (
        dumped(network.server, INTERFACE, tmp_path / "dump") as dump,
        recorded(
            network.server, [INTERFACE, "lo"], partial(LiveTsharkProbe, frames_per_tshark=1_009)
        ) as recording,
    ):
        while len(seen) < 2 * 4:  # four of each interface's
            converse(network.server, network.client, server_address(1), connections=7, sizes=(1, 73, 1448))
            seen.update(process.pid for process in processes("dumpcap"))
    assert timeless(recording.segments) == timeless(by_tshark(dump))
    assert recording.counts.restarts[Restart.PLANNED] > 2
    assert not recording.counts.restarts[Restart.DIED]
    assert not +recording.counts.dropped


def test_what_the_kernel_drops_is_counted(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumpcap, "KERNEL_BUFFER_MIB", 1)
    with recorded(network.server, [INTERFACE], LiveTsharkProbe, hold=True) as recording:
        (process,) = processes("dumpcap")
        process.suspend()
        converse(network.server, network.client, server_address(1), connections=3, sizes=(3_000_009,))
        process.resume()
        # The kernel has counted; what was captured is read now, and dumpcap tells when it is told to end.
    counts = recording.counts
    assert counts.dropped[DropSite.KERNEL] > 0
    assert counts.seen[Verdict.SEGMENT] == len(recording.segments) > 0


def test_two_interfaces_are_seen_and_no_third(network: Network, tmp_path: Path) -> None:
    second_cable(network)
    with (
        dumped(network.server, INTERFACE, tmp_path / "first") as first,
        dumped(network.server, SECOND, tmp_path / "second") as second,
        recorded(network.server, [INTERFACE, SECOND, INTERFACE], LiveTsharkProbe) as recording,
    ):
        converse(network.server, network.client, server_address(1), connections=11)
        converse(network.server, network.client, SECOND_ADDRESS, connections=13)
        converse(network.server, network.server, "127.0.0.1", connections=5)
        assert recording.probe.interfaces_up() == {INTERFACE: True, SECOND: True}
    assert timeless(recording.segments) == timeless(by_tshark(first) + by_tshark(second))


@pytest.mark.thorough
def test_any_is_all_interfaces(network: Network) -> None:
    second_cable(network)
    with recorded(network.server, ["any"], LiveTsharkProbe) as recording:
        converse(network.server, network.server, "127.0.0.1", connections=11)
        converse(network.server, network.client, server_address(1), connections=13)
        converse(network.server, network.client, SECOND_ADDRESS, connections=17)
    assert syns(recording) == 11 + 13 + 17


def test_an_interface_that_comes_back_is_captured_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumpcap, "RETRY_SECONDS", 0.2)
    second_cable(network)
    with recorded(network.server, [INTERFACE, SECOND], LiveTsharkProbe) as recording:
        converse(network.server, network.client, SECOND_ADDRESS, connections=5)
        time.sleep(HELD_BACK_SECONDS)
        network.server.run(["ip", "link", "delete", SECOND])
        recording.await_up({INTERFACE: True, SECOND: False})
        converse(network.server, network.client, server_address(1), connections=7)
        second_cable(network)
        recording.await_up({INTERFACE: True, SECOND: True})
        converse(network.server, network.client, SECOND_ADDRESS, connections=11)
    assert syns(recording) == 5 + 7 + 11


def test_a_dumpcap_that_is_killed_is_replaced(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumpcap, "RETRY_SECONDS", 0.2)
    with recorded(network.server, [INTERFACE], LiveTsharkProbe) as recording:
        converse(network.server, network.client, server_address(1), connections=3)
        (old,) = processes("dumpcap")
        time.sleep(HELD_BACK_SECONDS)
        old.kill()
        recording.await_up({INTERFACE: False})
        recording.await_up({INTERFACE: True})
        converse(network.server, network.client, server_address(1), connections=5)
    assert syns(recording) == 3 + 5


@pytest.mark.thorough
def test_a_pipe_is_captured_as_an_interface(network: Network, tmp_path: Path) -> None:
    dump, pipe = tmp_path / "dump", tmp_path / "pipe"
    with dumped(network.server, INTERFACE, dump):
        converse(network.server, network.client, server_address(1))
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'cat "$0" > "$1"; sleep 1', dump, pipe]) as writer:
        with recorded(network.server, [str(pipe)], LiveTsharkProbe) as recording:
            writer.wait()
        assert timeless(recording.segments) == timeless(by_tshark(dump))
        assert syns(recording) == CONNECTIONS


def test_without_privilege_of_its_own_watch_takes_dumpcap_which_has_it(
    network: Network, tmp_path: Path
) -> None:
    # What Debian gives to the group wireshark; and root without a capability, since another user might not
    # be able to read where the project lies.
    privileged = tmp_path / "dumpcap"
    shutil.copy(shutil.which("dumpcap") or "", privileged)
    subprocess.run(["setcap", "cap_net_raw,cap_net_admin=eip", privileged], check=True)
    drop = ["setpriv", "--securebits=+noroot", "--inh-caps=-all", "--ambient-caps=-all"]
    start = [*in_place_of(shutil.which("dumpcap") or "", privileged), *drop]
    records = tmp_path / "records"
    stay_root = ["--user", "root"]
    watch, log = start_watch(network, tmp_path, *start, options=stay_root, records=records)
    converse(network.server, network.client, server_address(1), connections=3)
    watch.terminate()
    assert watch.wait(20) == 0
    assert "CAP_NET_RAW and CAP_BPF missing" in log.read_text()
    assert "capturing with dumpcap and tshark meanwhile" in log.read_text()
    assert [json.loads(line)["capture"]["complete"] for line in records.read_text().splitlines()] == [
        True
    ] * 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_watch_ends_however_dumpcap_and_tshark_end(
    number: signal.Signals, network: Network, tmp_path: Path
) -> None:
    watch, _ = start_watch(network, tmp_path, options=["--probe", "pyshark"])
    converse(network.server, network.client, server_address(1), connections=1)
    children: list[psutil.Process] = []
    while {child.name() for child in children} < {"dumpcap", "tshark"}:
        children = psutil.Process(watch.pid).children(recursive=True)
        time.sleep(0.05)
    watch.send_signal(number)
    watch.wait(10)
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert len(gone) >= 2
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
