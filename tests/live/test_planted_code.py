"""Root runs smtp-horizon where folder, environment and home are another user's: none of his code is run."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.traps import Traps, imported_by, imported_by_loader

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is root who must not run it"),
]
PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
ISOLATED: Final = (sys.executable, "-I")
"""As the unit starts it. What whoever starts it does to that process itself is his own choice."""
PATIENCE_SECONDS: Final = 60.0


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """By all processes of ours: asked of the loader, of doctor, and of a watch with all that it has."""
    folder = tmp_path_factory.mktemp("asked")
    with started(folder / "doctor", "doctor", asked=True) as doctor:
        doctor.wait()
    log = folder / "watch"
    with started(log, "watch", "--tls-tap", "--listen", "127.0.0.1:0", asked=True) as watch:
        wait_for(lambda: b"metrics are at" in log.read_bytes(), watch, log)
        watch.terminate()
    return imported_by((folder / "doctor").read_text() + log.read_text()) | imported_by_loader()


def started(log: Path, *arguments: str, asked: bool = False, **options: Any) -> "subprocess.Popen[bytes]":
    """`asked`: its log says what it imports."""
    ask = ("-X", "importtime") if asked else ()
    with log.open("wb") as output:
        return subprocess.Popen(
            [*ISOLATED, *ask, PROGRAM, *arguments], stdout=output, stderr=output, **options
        )


@pytest.fixture
def traps(tmp_path: Path, imported: set[str]) -> Traps:
    traps = Traps(tmp_path / "traps")
    traps.modules(imported)
    traps.wireshark()
    traps.programs(
        "tshark", "dumpcap", "editcap", "setsid", "ldconfig", "gcc", "cc", "ld", "objdump", "clang", "uname"
    )
    if shutil.which("cc"):
        traps.libraries(*libraries_of("tshark", "dumpcap", "editcap"), "libbcc.so.0")
    return traps


def libraries_of(*programs: str) -> Iterator[str]:
    """Wireshark's own. Without the others it would not be our process that has them instead, but Python."""
    for program in programs:
        said = subprocess.run(
            ["ldd", shutil.which(program) or ""], capture_output=True, text=True, check=True
        )
        yield from re.findall(r"lib(?:wireshark|wiretap|wsutil)\.so\.\d+", said.stdout)


def foreign(traps: Traps, pid: int) -> list[str]:
    """What was run by another process than this, which has the environment from us."""
    return [line for line in traps.sprung if line != f"library {pid}"]


def test_the_traps_are_good(traps: Traps) -> None:
    """A Python and a tshark that nobody isolates walk into them."""
    subprocess.run(
        [sys.executable, "-c", ""], cwd=traps.folder, env=os.environ | traps.environment, check=False
    )
    assert any(line.startswith("module path/") for line in traps.sprung)
    assert not shutil.which("cc") or any(line.startswith("library ") for line in traps.sprung)
    own = {name: value for name, value in traps.environment.items() if not name.startswith("LD_")}
    subprocess.run(
        [shutil.which("tshark") or "", "-v"], env=os.environ | own, capture_output=True, check=False
    )
    if not any(line.startswith("script wireshark/") for line in traps.sprung):
        pytest.skip("all other traps are good; this tshark runs no scripts for root, as that of Debian 13")
    subprocess.run(["tshark"], env=own, check=False)
    assert any(line.startswith("program tshark ") for line in traps.sprung)


def test_doctor_runs_none_of_it(traps: Traps, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hostile: dict[str, Any] = {"cwd": traps.folder, "env": os.environ | traps.environment}
    with started(log, "doctor", **hostile) as doctor:
        doctor.wait()
    said = log.read_text()
    assert foreign(traps, doctor.pid) == []
    assert "ok       live capture, eBPF" in said
    assert "ok       live capture, pyshark" in said
    assert "watch can run here" in said


@pytest.mark.parametrize(
    ("options", "probe"),
    [
        (("--probe", "ebpf"), "ebpf"),
        (("--probe", "pyshark"), "pyshark"),
        (("--probe", "ebpf", "--tls-tap"), "ebpf"),
    ],
    ids=["ebpf", "pyshark", "tls-tap"],
)
def test_watch_runs_none_of_it(traps: Traps, options: tuple[str, ...], probe: str, tmp_path: Path) -> None:
    records, log = tmp_path / "records", tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        place = (
            "--interface",
            "lo",
            "--ports",
            str(port),
            "--listen",
            "127.0.0.1:0",
            "--records",
            str(records),
        )
        hostile: dict[str, Any] = {"cwd": traps.folder, "env": os.environ | traps.environment}
        with started(log, "watch", *place, *options, **hostile) as watch:
            wait_for(lambda: b"metrics are at" in log.read_bytes(), watch, log)
            with socket.create_connection(server.getsockname()) as client, server.accept()[0] as served:
                served.sendall(b"220 mx.example ESMTP\r\n")
                client.recv(100)
            wait_for(lambda: records.stat().st_size > 0, watch, log)  # so every program has had its turn
            watch.terminate()
            assert watch.wait(PATIENCE_SECONDS) == 0
    assert foreign(traps, watch.pid) == []
    assert f"with the {probe} probe" in log.read_text()


def wait_for(happened: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(log.read_text())
        time.sleep(0.05)
