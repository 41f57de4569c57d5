"""A server as in a container: a root of its own on an overlay, with another library in it, process numbers
and a network of its own."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.lab.compare import differences_inside
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.python_server import PythonServer
from tests.lab.scenario import TLS_1_3
from tests.lab.tls_scenario import Way, converse, one_message
from tests.tls_tap.tapped_watch import TappedWatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

_IN_A_ROOT_OF_ITS_OWN: Final = """
set -e
mount -t tmpfs none "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
mount -t proc proc "$0/root/proc"
mount -t devtmpfs dev "$0/root/dev"
cp "$0/root/usr/lib/x86_64-linux-gnu/libssl.so.3" "$0/root/usr/lib/x86_64-linux-gnu/new"
mv "$0/root/usr/lib/x86_64-linux-gnu/new" "$0/root/usr/lib/x86_64-linux-gnu/libssl.so.3"
exec chroot "$0/root" "$@"
"""


def test_it_is_read_along_from_the_host(lab: Laboratory, tmp_path: Path) -> None:
    """The lab's other host stands for the machine: watch, the clients and the way into the container."""
    place = tmp_path / "container"
    place.mkdir()
    unshared = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
    before: list[str | Path] = [*unshared, "sh", "-c", _IN_A_ROOT_OF_ITS_OWN, place]
    # Not the lab's folder: that is a mount of its own, which an overlay of / leaves out.
    certificates = tmp_path / "certificates"
    container = PythonServer(lab.network.server, certificates, address=server_address(25), before=before)
    with container, TappedWatch(lab.network.client, tmp_path) as watch:
        for port in (25, 465):
            with lab.network.client.threads(1) as thread:
                way = Way((container.address, port), TLS_1_3)
                truth = thread.submit(converse, way, client_address(3), one_message).result()
            assert not differences_inside(watch.record_of(truth), truth)
        assert watch.stop() == 0
    assert f"reading along in {place}/root/usr/lib/x86_64-linux-gnu/libssl.so.3 of process" in watch.said()
