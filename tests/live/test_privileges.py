"""`watch`, started as root, goes on as nobody, and keeps watching through all that used to want root."""

import os
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from monitor.cli.opener import NAME as OPENER
from tests.environments import environment_with
from tests.lab.network import Network
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.watch import PROGRAM, Watch
from tests.mmdb import write_mmdb
from tests.probes.second_cable import SECOND, SECOND_ADDRESS, second_cable

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and capturing need root"),
]

CLIENT_ADDRESS: Final = "10.78.0.2"
NOBODY: Final = 65534
CAP_NET_RAW, CAP_NET_ADMIN = 1 << 13, 1 << 12
PROBES: Final = {"ebpf": 0, "pcap": CAP_NET_RAW, "pyshark": CAP_NET_RAW | CAP_NET_ADMIN}
"""The capabilities that each keeps."""


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        ensure()
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with Network(addresses=2) as network:
        second_cable(network)
        yield network


@pytest.fixture(
    params=["ebpf", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("pcap", "pyshark"))]
)
def probe(request: pytest.FixtureRequest) -> str:
    """Its name."""
    name: str = request.param
    return name


@pytest.fixture
def program(probe: str, tmp_path: Path) -> list[str | Path]:
    """libpcap is what there is without bcc: its name can't be asked for."""
    if probe != "pcap":
        return [PROGRAM]
    return [
        environment_with(tmp_path / "venv", "bcc.py", "raise ImportError('no bcc here')\n"),
        "-I",
        PROGRAM,
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Only root may look into it."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def mail(network: Network, sender: str) -> None:
    """One session over the second cable, which must be there."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with listener, connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 mx.example ESMTP\r\n")
            for line in lines:
                connection.sendall(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")

    def listen() -> socket.socket:
        return socket.create_server((SECOND_ADDRESS, 25), reuse_port=True)

    def converse() -> None:
        with socket.create_connection((SECOND_ADDRESS, 25), 10) as client, client.makefile("rb") as replies:
            replies.readline()
            for line in ("EHLO c.example", f"MAIL FROM:<{sender}>", "RCPT TO:<b@example.test>", "QUIT"):
                client.sendall(line.encode() + b"\r\n")
                replies.readline()

    with network.server.threads(1) as inside, network.client.threads(1) as outside:
        server = Thread(target=serve, args=(inside.submit(listen).result(),))
        server.start()
        outside.submit(converse).result()
        server.join()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def threads_in(network: Network) -> Iterator[dict[str, str]]:
    """What /proc says of each thread of all processes that run on the watched host."""
    for process in network.server.processes():
        for task in Path(f"/proc/{process}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            yield {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def assert_only_left(network: Network, capabilities: int) -> None:
    seen = set()
    for thread in threads_in(network):
        seen.add(thread["Name"])
        permitted, effective, bounding = (int(thread[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd"))
        assert thread["NoNewPrivs"] == "1", thread
        assert thread["Groups"] == "", thread
        if thread["Name"] == OPENER:
            assert permitted == bounding == 1 << 1, "CAP_DAC_OVERRIDE"
            continue
        assert set(thread["Uid"].split()) | set(thread["Gid"].split()) == {str(NOBODY)}, thread
        assert (permitted | effective | bounding) & ~capabilities == 0, thread
        if not capabilities:
            assert int(thread["CapInh"], 16) == int(thread["CapAmb"], 16) == 0
    assert {OPENER, "smtp-horizon"} <= seen


def test_it_runs_as_nobody_and_nothing_is_lost_by_that(
    network: Network, folder: Path, probe: str, program: list[str | Path]
) -> None:
    database, state = folder / "country.mmdb", folder / "state.sqlite"
    options = ["--geoip", write_mmdb(database, {f"{CLIENT_ADDRESS}/32": {"country": {"iso_code": "DE"}}})]
    options += ["--simulate", "greylite", "--simulate-state", str(state)]
    options += ["--probe", "auto" if probe == "pcap" else probe]
    database.chmod(0o600)
    with Watch(network.server, folder, *options, interface=SECOND, program=program) as watch:
        assert watch.sample_sum("smtp_monitor_capture_up", probe=probe) == 1
        mail(network, "one@client.example")
        watch.await_silence()
        assert_only_left(network, PROBES[probe])

        rotated = watch.records_file.with_suffix(".1")
        watch.records_file.rename(rotated)
        renewed = folder / "renewed.mmdb"
        write_mmdb(renewed, {f"{CLIENT_ADDRESS}/32": {"country": {"iso_code": "FR"}}})
        renewed.chmod(0o600)
        renewed.rename(database)
        watch.signal(signal.SIGHUP)
        eventually(watch.records_file.exists)
        eventually(lambda: "records reopened" in watch.said())

        network.server.run(["ip", "link", "delete", SECOND])
        eventually(lambda: watch.sample_sum("smtp_monitor_capture_up") == 0)
        second_cable(network)
        eventually(lambda: watch.sample_sum("smtp_monitor_capture_up") == 1)
        mail(network, "two@client.example")
        watch.await_silence()
        assert_only_left(network, PROBES[probe])
        assert watch.sample_sum("smtp_monitor_confined", by="user") == 1
        assert watch.sample_sum("process_open_fds") > 0  # it may still look at itself
        assert watch.sample_sum("smtp_monitor_confined", by="capabilities") == (PROBES[probe] == 0)
        assert watch.stop() == 0
        (second,) = watch.records()
        watch.records_file.rename(folder / "second")
        rotated.rename(watch.records_file)
        (first,) = watch.records()
        said = watch.said()
    assert [record["transactions"][0]["mail_from"] for record in (first, second)] == [
        "one@client.example",
        "two@client.example",
    ]
    assert [record["client_location"]["country"] for record in (first, second)] == ["DE", "FR"]
    for file in (watch.records_file, folder / "second", state, state.with_name("state.sqlite.key")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with sqlite3.connect(state) as connection:
        assert connection.execute("SELECT count(*) FROM greylite_pending").fetchone() == (2,)
    connection.close()
    assert "Traceback" not in said
    assert "WARNING" not in said.replace("WARNING the eBPF probe needs bcc", "")
