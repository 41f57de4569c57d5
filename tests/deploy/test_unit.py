"""systemd's opinion of the unit, and the program under what the unit says."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.request import urlopen

import pytest

from monitor.cli import watch
from tests.deploy.as_the_unit import DROP_IN, UNIT, directives
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.unpacked import tool
from tests.lab.waiting import await_condition

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("smtp-horizon")
EXPOSURE_MOST = 2.0


@pytest.fixture(scope="module", autouse=True)
def _systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        try:
            ensure()
        except LabUnavailableError as reason:
            pytest.skip(str(reason))


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*tool("systemd-analyze"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_exposed_as_little_as_the_documents_say() -> None:
    said = _analyze("security", "--offline=true", UNIT).stdout
    (exposure,) = re.findall(r"Overall exposure level for smtp-horizon.service: (\d+\.\d+)", said)
    assert float(exposure) <= EXPOSURE_MOST
    document = (ROOT / "deploy/README.md").read_text()
    assert f"exposure of {exposure}" in document
    left = re.findall(r"^✗ (\S+)", said, flags=re.M)
    assert left
    for directive in left:
        assert f"`{directive}`" in document, f"nothing is said of {directive}"


@pytest.mark.parametrize("drop_ins", [[], [DROP_IN]])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, drop_ins: list[Path]) -> None:
    # Whether the programs are there is another test's. This machine may lack procps, and systemd-analyze may
    # see another /usr.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "kill"):
        (programs / name).touch(0o755)
    copy = tmp_path / UNIT.name
    text = (
        UNIT.read_text()
        .replace("/opt/smtp-horizon/bin", str(programs))
        .replace("/bin/kill ", f"{programs}/kill ")
    )
    copy.write_text(text)
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    for drop_in in drop_ins:
        shutil.copy(drop_in, folder)
    verified = _analyze("verify", copy)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_it_starts_a_command_that_there_is_and_writes_where_it_may() -> None:
    unit = directives()
    python, isolated, program, name, *arguments = unit["ExecStart"][0].split()
    assert PurePosixPath(python).parent == PurePosixPath(program).parent
    assert (PurePosixPath(python).name, isolated) == ("python3", "-I")
    assert PurePosixPath(program).name == "smtp-horizon"
    with watch.command.make_context(name, arguments) as context:
        records = PurePosixPath(context.params["records"])
    assert records.parent == PurePosixPath("/var/log") / unit["LogsDirectory"][0]
    assert unit["LogsDirectoryMode"] == unit["StateDirectoryMode"] == ["0700"]


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take what the unit takes")
def test_the_program_runs_under_it(tmp_path: Path) -> None:
    pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
    # Where nobody else than root can look in, pytest's folder is.
    folder = Path("/var/tmp") / f"horizon-unit-{os.getpid()}"
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "nobody", "nogroup")
    log, records = tmp_path / "log", folder / "records.jsonl"
    command = ["unshare", "--mount", "--pid", "--fork", sys.executable, "-m", "tests.deploy.as_the_unit"]
    command += [
        *(sys.executable, "-I", str(PROGRAM)),
        "watch",
        "--interface",
        "lo",
        "--listen",
        "127.0.0.1:0",
        "--records",
        str(records),
    ]
    command += ["--simulate", "greylite", "--simulate-state", str(folder / "state.sqlite")]
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output, cwd=ROOT)
        try:
            await_condition(lambda: "metrics are at" in log.read_text(), process, log)
            assert "with the ebpf probe" in log.read_text()
            assert "running as nobody, with no capability" in log.read_text()
            (url,) = (word for word in log.read_text().split() if word.startswith("http://"))
            with urlopen(url, timeout=10) as answer:
                metrics = answer.read().decode()
            assert metrics.count("smtp_monitor_confined{") == metrics.count("smtp_monitor_confined{by=") == 3
            assert {"process_open_fds", "process_resident_memory_bytes"} <= set(metrics.split())
            assert not re.search(r"smtp_monitor_confined\{.*\} 0", metrics)
            (watching,) = _children(process.pid)
            records.rename(folder / "records.1")
            os.kill(watching, signal.SIGHUP)
            await_condition(records.exists, process, log)
            os.kill(watching, signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        assert "WARNING" not in log.read_text()
        assert {path.name for path in folder.iterdir()} == {
            *("records.1", "records.jsonl", "state.sqlite", "state.sqlite.key")
        }
    finally:
        shutil.rmtree(folder)


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take what the unit takes")
def test_with_its_drop_in_the_tap_runs_under_it(tmp_path: Path) -> None:
    pytest.importorskip("seccomp", reason="python3-seccomp is not installed")
    log = tmp_path / "log"
    command = ["unshare", "--mount", sys.executable, "-m", "tests.deploy.as_the_unit", "tls_tap"]
    command += [sys.executable, "-I", str(PROGRAM), "watch", "--interface", "lo", "--listen", "127.0.0.1:0"]
    # This process has OpenSSL mapped, and is a mail server while it listens.
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        command += ["--ports", str(listener.getsockname()[1])]
        assert ssl.OPENSSL_VERSION
        process = subprocess.Popen(command, stderr=output, cwd=ROOT)
        try:
            await_condition(lambda: "metrics are at" in log.read_text(), process, log)
            said = log.read_text()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    assert "running as nobody, with no capability" in said
    assert "the TLS tap is on" in said
    assert re.search(r"reading along in /\S*libssl\.so\.3 of process \d+", said)


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
