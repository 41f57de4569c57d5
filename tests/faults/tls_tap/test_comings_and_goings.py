"""Mail servers and their libraries come, go and are replaced; watch is never started anew."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab import exim
from tests.lab.compare import differences_inside
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.python_server import PythonServer
from tests.lab.scenario import TLS_1_3
from tests.lab.server import MailServer
from tests.lab.tls_scenario import Way, converse, one_message
from tests.lab.truth import SessionTruth
from tests.tls_tap.tapped_watch import Record, TappedWatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

LIBRARIES: Final = ("libssl.so.3", "libcrypto.so.3")
SYSTEM_FOLDER: Final = Path("/usr/lib/x86_64-linux-gnu")
PORTS: Final = (25, 465)


@pytest.fixture(scope="module")
def watch(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TappedWatch]:
    with TappedWatch(lab.network.server, tmp_path_factory.mktemp("watch")) as watch:
        yield watch
        assert watch.sample_sum("smtp_monitor_verdict_mismatches_total") == 0
        assert watch.stop() == 0
        assert "Traceback" not in watch.said()


@pytest.fixture
def own_library(tmp_path: Path) -> Path:
    """A folder with a copy of OpenSSL, for LD_LIBRARY_PATH."""
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in LIBRARIES:
        shutil.copy(SYSTEM_FOLDER / name, folder)
    return folder


def replace_as_dpkg_does(library: Path) -> None:
    new = library.with_name(f"{library.name}.dpkg-new")
    shutil.copy(library, new)
    new.rename(library)


def session(lab: Laboratory, way: Way) -> SessionTruth:
    with lab.network.client.threads(1) as thread:
        return thread.submit(converse, way, client_address(3), one_message).result()


def assert_whole(record: Record, truth: SessionTruth) -> None:
    assert not differences_inside(record, truth)


def assert_not_wrong(record: Record, truth: SessionTruth) -> str:
    """What is listed is what was; whole or not. The result."""
    assert truth.inside is not None
    assert truth.inside.transactions is not None
    tapped = record["tapped"]
    senders = [transaction["mail_from"] for transaction in tapped["transactions"]]
    assert senders in ([], [transaction.mail_from for transaction in truth.inside.transactions])
    if tapped["result"] == "whole":
        assert_whole(record, truth)
    result: str = tapped["result"]
    return result


@pytest.mark.parametrize("name", ["postfix", "exim"])
@pytest.mark.parametrize("port", PORTS)
def test_a_server_that_was_restarted_is_read_along_as_before(
    lab: Laboratory, watch: TappedWatch, name: str, port: int
) -> None:
    server: MailServer = {"postfix": lab.postfix, "exim": lab.exim}[name]
    address = server_address(1 if name == "postfix" else exim.NUMBER)
    way = Way((address, port), TLS_1_3)
    before = session(lab, way)
    server.stop()
    server.start()
    after = session(lab, way)
    for truth in (before, after):
        assert_whole(watch.record_of(truth), truth)


@pytest.mark.parametrize("port", PORTS)
def test_a_server_that_comes_with_a_library_of_its_own_is_read_along_from_the_second_session_on(
    lab: Laboratory, watch: TappedWatch, own_library: Path, tmp_path: Path, port: int
) -> None:
    libraries = int(watch.sample_sum("smtp_monitor_tls_tap_libraries"))
    with PythonServer(
        lab.network.server,
        tmp_path / "python",
        environment={"LD_LIBRARY_PATH": str(own_library)},
    ) as server:
        way = Way((server.address, port), TLS_1_3)
        first = session(lab, way)
        result = assert_not_wrong(watch.record_of(first), first)
        print(f"the first session, port {port}: {result}")
        watch.await_libraries(libraries + 1)
        second = session(lab, way)
        assert_whole(watch.record_of(second), second)


@pytest.mark.parametrize("port", PORTS)
def test_a_server_that_was_restarted_with_a_new_library_is_read_along_from_the_second_session_on(
    lab: Laboratory, watch: TappedWatch, own_library: Path, tmp_path: Path, port: int
) -> None:
    server = PythonServer(
        lab.network.server,
        tmp_path / "python",
        environment={"LD_LIBRARY_PATH": str(own_library)},
    )
    way = Way((server.address, port), TLS_1_3)
    with server:
        libraries = int(watch.sample_sum("smtp_monitor_tls_tap_libraries"))
        session(lab, way)
        watch.await_libraries(libraries + 1)
        replace_as_dpkg_does(own_library / LIBRARIES[0])
        still = session(lab, way)
        assert_whole(watch.record_of(still), still)  # the old file is mapped as before
        server.stop()
        server.start()
        first = session(lab, way)
        result = assert_not_wrong(watch.record_of(first), first)
        print(f"the first session with the new library, port {port}: {result}")
        watch.await_libraries(libraries + 2)
        second = session(lab, way)
        assert_whole(watch.record_of(second), second)
