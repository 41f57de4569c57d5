"""What is done to the interface meanwhile: sessions after it are right, and capture_up tells the truth.

Interfaces that are deleted, or down, under the probe alone: tests/probes/ebpf/test_probe.py and
tests/probes/test_pcap_live.py. Which interface sees what: tests/live/test_interfaces.py.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.small_watch import SmallWatch
from tests.lab import postfix, scenario
from tests.lab.compare import differences, unmatched
from tests.lab.network import INTERFACE, Network, client_address, server_address
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.postfix import Postfix
from tests.lab.truth import SessionTruth

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and capturing need root"),
]

_RENAMED = "mail9"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network(addresses=5) as network, Postfix(network.server, network.folder / "postfix", (postfix.MX,)):
        yield network


def _ip(network: Network, *words: str) -> None:
    network.server.run(["ip", *words])


def _offload(network: Network, state: str) -> None:
    for host in (network.server, network.client):
        host.run(["ethtool", "-K", INTERFACE, "tso", state, "gso", state, "gro", state, "tx", state])


def _down_and_up(network: Network, await_up: Callable[[int], None]) -> None:
    _ip(network, "link", "set", INTERFACE, "down")
    await_up(0)
    _ip(network, "link", "set", INTERFACE, "up")
    # Addresses of IPv6 go with it.
    _ip(network, "address", "replace", f"{server_address(1, 6)}/64", "dev", INTERFACE, "nodad")
    await_up(1)


def _renamed_and_back(network: Network, await_up: Callable[[int], None]) -> None:
    _ip(network, "link", "set", INTERFACE, "down")
    _ip(network, "link", "set", INTERFACE, "name", _RENAMED)
    _ip(network, "link", "set", _RENAMED, "up")
    await_up(0)
    _ip(network, "link", "set", _RENAMED, "down")
    _ip(network, "link", "set", _RENAMED, "name", INTERFACE)
    _ip(network, "link", "set", INTERFACE, "up")
    await_up(1)


def _made_anew(network: Network, await_up: Callable[[int], None]) -> None:
    _ip(network, "link", "delete", INTERFACE)
    await_up(0)
    peer = ["type", "veth", "peer", "name", INTERFACE, "netns", network.client.name]
    _ip(network, "link", "add", INTERFACE, *peer)
    for host, address in ((network.server, server_address), (network.client, client_address)):
        for number in range(1, 6):
            host.run(["ip", "address", "add", f"{address(number)}/16", "dev", INTERFACE])
        host.run(["ip", "link", "set", INTERFACE, "up"])
    await_up(1)


def _smaller_packets(network: Network, await_up: Callable[[int], None]) -> None:
    for host in (network.server, network.client):
        host.run(["ip", "link", "set", INTERFACE, "mtu", "576"])
    await_up(1)


def _no_offload(network: Network, await_up: Callable[[int], None]) -> None:
    _offload(network, "off")
    await_up(1)


def _offload_again(network: Network, await_up: Callable[[int], None]) -> None:
    _offload(network, "on")
    await_up(1)


def _another_address(network: Network, await_up: Callable[[int], None]) -> None:
    _ip(network, "address", "delete", f"{server_address(2)}/16", "dev", INTERFACE)
    _ip(network, "address", "add", f"{server_address(2)}/32", "dev", INTERFACE)
    await_up(1)


_INCIDENTS = (
    _down_and_up,
    _no_offload,
    _smaller_packets,
    _offload_again,
    _another_address,
    _renamed_and_back,
    _made_anew,
)


@pytest.mark.parametrize("kind", ["ebpf", "libpcap"])
def test_after_each_incident_sessions_are_recorded_right(network: Network, tmp_path: Path, kind: str) -> None:
    truths: list[SessionTruth] = []
    with SmallWatch(network, tmp_path, kind, 16 << 20) as watch, network.client.threads(1) as client:

        def await_up(expected: int) -> None:
            deadline = time.monotonic() + 10
            while watch.sample_sum("smtp_monitor_capture_up", interface=INTERFACE) != expected:
                assert time.monotonic() < deadline, f"capture_up is not {expected}"
                time.sleep(0.1)

        for incident in _INCIDENTS:
            incident(network, await_up)
            for conversation in (scenario.pipelined, scenario.starttls):
                server = server_address(1), 25
                truths.append(client.submit(conversation, server, client_address(3)).result())
        assert watch.stop() == 0
        records = watch.records()
    pairs, complaints = unmatched(records, truths)
    assert not complaints
    assert len(pairs) == 2 * len(_INCIDENTS)
    assert not [line for record, truth in pairs for line in differences(record, truth)]
