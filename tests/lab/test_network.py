"""The lab's two hosts, and that nothing of them stays behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.network import Namespace, Network, client_address, remove_stale, server_address
from tests.lab.raw_client import RawClient

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_hosts_reach_each_other_over_both_families_and_leave_nothing_behind() -> None:
    with Network(addresses=3) as network, network.client.threads(1) as thread:
        for family in (4, 6):
            refused = thread.submit(RawClient, (server_address(3, family), 25), client_address(3, family))
            with pytest.raises(ConnectionRefusedError):
                refused.result(10)
        forgotten = network.server.start(["sleep", "60"])
        folder = network.folder
        assert network.server.name in namespaces()
    assert network.server.name not in namespaces()
    assert network.client.name not in namespaces()
    assert not folder.exists()
    assert forgotten.wait() == -signal.SIGTERM


def test_what_a_killed_run_left_behind_is_removed_by_the_next_one() -> None:
    script = (
        "import os, signal\n"
        "from tests.lab.network import Network\n"
        "network = Network(addresses=1).__enter__()\n"
        "network.client.start(['sleep', '60'])\n"
        "print(network.server.name, network.client.name, network.folder)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-uc", script], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    *names, folder = killed.stdout.split()
    assert Namespace(names[1]).processes()
    remove_stale()
    assert not [name for name in names if name in namespaces()]
    assert not Path(folder).exists()


def test_what_a_living_run_uses_is_left_alone() -> None:
    with Network(addresses=1) as network:
        remove_stale()
        assert network.server.name in namespaces()
        assert network.folder.exists()
