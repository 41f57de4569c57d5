"""`smtp-horizon watch`: the real program on real traffic over loopback, with signals."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from monitor.cli.opener import NAME as OPENER
from tests.environments import environment_with

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root")

StartWatch = Callable[..., Any]


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_flushes_open_sessions_as_records_and_exits_0(
    number: signal.Signals, start_watch: StartWatch, smtp_server: Any, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    with smtp_server.begin_session():
        smtp_server.whole_session()
        watch.signal(number)
        assert watch.wait() == 0
    whole, cut = sorted(_records(path), key=lambda record: record["ended"], reverse=True)
    assert (whole["ended"], whole["envelope"], whole["direction"]) == ("quit", "visible", "internal")
    assert (cut["ended"], cut["transactions"][0]["mail_from"]) == ("capture_ended", "a@client.example")
    assert f"ending: {number.name}" in watch.log
    assert watch.output == ""


def test_metrics_agree_with_records_while_it_runs(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    before = watch.samples()
    assert before['smtp_monitor_capture_up{interface="lo",probe="ebpf"}'] == 1
    assert watch.total("smtp_sessions_total") == 0
    for _ in range(5):
        smtp_server.whole_session()
    eventually(lambda: watch.total("smtp_sessions_total") == 5)
    assert watch.samples()['smtp_monitor_records_total{result="written"}'] == 5 == len(_records(path))
    with smtp_server.begin_session():
        eventually(lambda: watch.samples()["smtp_sessions_open"] == 1)
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0
    assert len(_records(path)) == 6


def test_sighup_reopens_the_records(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path, rotated = tmp_path / "records.jsonl", tmp_path / "records.jsonl.1"
    watch = start_watch("--records", str(path))
    smtp_server.whole_session()
    eventually(lambda: len(_records(path)) == 1)
    path.rename(rotated)
    watch.signal(signal.SIGHUP)
    eventually(path.exists)
    smtp_server.whole_session()
    eventually(lambda: len(_records(path)) == 1)
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0
    assert len(_records(rotated)) == 1


def test_records_go_to_standard_output_when_asked_and_logs_to_standard_error(
    start_watch: StartWatch, smtp_server: Any
) -> None:
    watch = start_watch("--records", "-")
    smtp_server.whole_session()
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0
    assert json.loads(watch.output)["ended"] == "quit"
    assert "session records go to standard output" in watch.log


def test_records_that_could_not_be_written_are_counted_and_make_status_1(
    start_watch: StartWatch, smtp_server: Any, eventually: Callable[..., None]
) -> None:
    watch = start_watch("--records", "/dev/full")
    smtp_server.whole_session()
    eventually(lambda: watch.samples()['smtp_monitor_records_total{result="failed"}'] == 1)
    assert watch.total("smtp_sessions_total") == 1
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 1
    assert "No space left on device" in watch.log


@needs_root
def test_it_ends_when_the_reader_of_its_records_has_gone(smtp_server: Any) -> None:
    command = [PROGRAM, "watch", "--interface", "lo", "--listen", "127.0.0.1:0", "--records", "-"]
    watch = subprocess.Popen(
        [*command, "--ports", str(smtp_server.port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert watch.stdout is not None
    assert watch.stderr is not None
    while b"session records" not in watch.stderr.readline():
        assert watch.poll() is None
    watch.stdout.close()
    smtp_server.whole_session()
    assert watch.wait(15) == 1
    log = watch.stderr.read()
    watch.stderr.close()
    assert b"their reader has gone" in log
    assert b"Traceback" not in log


def _fails(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [PROGRAM, "watch", *arguments],
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, **environment},
    )
    text = done.stderr.decode()
    assert done.returncode == 2, text
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    return text


@needs_root
def test_an_address_in_use_is_one_line_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _fails("--interface", "lo", "--listen", f"127.0.0.1:{port}")
    assert f"cannot serve metrics on 127.0.0.1:{port}: Address already in use" in said


@needs_root
def test_records_that_cannot_be_opened_are_one_line_and_status_2() -> None:
    said = _fails("--interface", "lo", "--listen", "127.0.0.1:0", "--records", "/nonexistent/records.jsonl")
    assert "cannot write records to /nonexistent/records.jsonl: No such file or directory" in said


@needs_root
def test_an_unknown_interface_is_one_line_and_status_2() -> None:
    assert "nosuch0" in _fails("--interface", "nosuch0", "--listen", "127.0.0.1:0")


def test_wrong_settings_are_one_line_and_status_2(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('interfaces = "lo"\n')
    assert f"{config}:1: unknown key 'interfaces'; did you mean 'interface'?" in _fails(
        "--config", str(config)
    )
    assert "names no address" in _fails(SMTP_HORIZON_LISTEN="9825")
    assert "'tcpdump' is not one of 'auto', 'ebpf', 'pyshark'" in _fails("--probe", "tcpdump")


@needs_root
def test_whom_it_goes_on_as_can_be_said(start_watch: StartWatch, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('user = "daemon"\n')
    watch = start_watch("--config", str(config))
    assert "running as daemon, with no capability" in watch.log
    assert Path(f"/proc/{watch.process.pid}/maps").owner() == "root"  # nobody else may look into its memory
    uids = Path(f"/proc/{watch.process.pid}/status").read_text().split("Uid:")[1].split()[:4]
    assert uids == [str(pwd.getpwnam("daemon").pw_uid)] * 4


@needs_root
def test_it_stays_root_only_when_told_and_warns(start_watch: StartWatch) -> None:
    watch = start_watch("--user", "root")
    assert "running as root, with no capability" in watch.log
    assert "WARNING still root" in watch.log
    assert watch.samples()['smtp_monitor_confined{by="user"}'] == 0


@needs_root
def test_a_user_that_there_is_not_is_one_line_and_status_2() -> None:
    assert "there is no user 'nosuch' to go on as; adduser" in _fails("--user", "nosuch")


@needs_root
def test_without_libseccomp_it_goes_on_and_says_what_is_missing(
    start_watch: StartWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seccomp.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    watch = start_watch()
    assert "WARNING system calls are not filtered" in watch.log
    assert "apt-get install python3-seccomp" in watch.log
    assert watch.samples()['smtp_monitor_confined{by="system_calls"}'] == 0
    assert watch.samples()['smtp_monitor_confined{by="capabilities"}'] == 1


@needs_root
@pytest.mark.parametrize("file_capabilities", ["", "cap_net_admin,cap_net_raw=eip"])
def test_pyshark_captures_as_nobody_with_a_dumpcap_that_is_a_groups(
    file_capabilities: str, start_watch: StartWatch, smtp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian has it, where root lets others than root capture: for the group wireshark alone."""
    dumpcap = shutil.which("dumpcap")
    if dumpcap is None or shutil.which("tshark") is None or shutil.which("setcap") is None:
        pytest.skip("needs Debian's tshark and libcap2-bin")
    with TemporaryDirectory(dir="/var/tmp") as folder:  # where nobody may look in
        Path(folder).chmod(0o755)
        copy = Path(shutil.copy(dumpcap, folder))
        shutil.chown(copy, "root", "games")
        copy.chmod(0o750)
        if file_capabilities:
            subprocess.run(["setcap", file_capabilities, copy], check=True)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        watch = start_watch("--probe", "pyshark", "--records", "-")
        assert "running as nobody, with CAP_NET_ADMIN and CAP_NET_RAW" in watch.log
        smtp_server.whole_session()
        watch.signal(signal.SIGTERM)
        assert watch.wait() == 0
    assert json.loads(watch.output)["ended"] == "quit"


@needs_root
def test_a_member_of_dumpcaps_group_captures_with_the_privileges_of_its_file(smtp_server: Any) -> None:
    """Without root, and without a capability."""
    dumpcap = shutil.which("dumpcap")
    if dumpcap is None or shutil.which("tshark") is None or shutil.which("setcap") is None:
        pytest.skip("needs Debian's tshark and libcap2-bin")
    member = ["setpriv", "--reuid", "daemon", "--regid", "daemon", "--groups", "games"]
    if subprocess.run([*member, PROGRAM, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("others than root may not read where the project lies")
    with TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copy(dumpcap, folder))
        shutil.chown(copy, "root", "games")
        copy.chmod(0o750)
        subprocess.run(["setcap", "cap_net_admin,cap_net_raw=eip", copy], check=True)
        command = [*member, PROGRAM, "watch", "--probe", "pyshark", "--interface", "lo", "--records", "-"]
        watch = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", "--ports", str(smtp_server.port)],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watch.stderr is not None
        said = b""
        while b"session records" not in said:
            assert watch.poll() is None, said
            said += watch.stderr.readline()
        smtp_server.whole_session()
        watch.send_signal(signal.SIGTERM)
        output, _ = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert json.loads(output)["ended"] == "quit"
    assert b"running as daemon, with no capability" in said
    assert b"system calls are not filtered: dumpcap has its privileges from its file" in said


@needs_root
def test_when_the_opener_is_gone_records_go_on_in_the_old_file_and_the_log_says_why(
    start_watch: StartWatch, smtp_server: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path = tmp_path / "records.jsonl"
    watch = start_watch("--records", str(path))
    os.kill(watch.child(OPENER), signal.SIGKILL)
    watch.signal(signal.SIGHUP)
    eventually(lambda: "cannot reopen" in watch.log)
    assert "records reopened" not in watch.log
    assert f"cannot reopen {path}: the process that opens files has ended; going on in the old" in watch.log
    smtp_server.whole_session()
    eventually(lambda: len(_records(path)) == 1)
    watch.signal(signal.SIGTERM)
    assert watch.wait() == 0


@needs_root
def test_without_privilege_it_says_what_to_do() -> None:
    # Root without a single capability: another user might not be able to read where the project lies.
    bare = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", PROGRAM, "watch"]
    command = [*bare, "--user", "root"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    # In the words of the probe that was wanted, not of the one that was tried instead.
    assert b"CAP_NET_RAW and CAP_BPF missing" in done.stderr
    assert done.stderr.count(b"\n") == 1


@needs_root
@pytest.mark.parametrize("lacking", ["bcc", "CAP_BPF"])
def test_without_ebpf_it_captures_with_libpcap_and_says_so(
    lacking: str, smtp_server: Any, tmp_path: Path
) -> None:
    """bcc is hidden by one that can't be imported."""
    command = [PROGRAM, "watch", "--interface", "lo", "--listen", "127.0.0.1:0"]
    if lacking == "bcc":
        python = environment_with(tmp_path / "venv", "bcc.py", "raise ImportError('no bcc here')\n")
        command = [str(python), *command]
    else:
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_raw", *command, "--user", "root"]
    log, records = tmp_path / "log", tmp_path / "records.jsonl"
    command += ["--records", str(records), "--ports", str(smtp_server.port)]
    with log.open("wb") as stderr:
        watch = subprocess.Popen(command, stderr=stderr)
    while "session records" not in log.read_text():
        assert watch.poll() is None, log.read_text()
    smtp_server.whole_session()
    watch.send_signal(signal.SIGTERM)
    assert watch.wait(10) == 0
    said = log.read_text()
    assert "capturing with libpcap meanwhile" in said
    assert lacking in said
    assert [record["ended"] for record in _records(records)] == ["quit"]


def test_a_web_configuration_that_is_wrong_is_one_line_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: nowhere.pem, key_file: nowhere.key}\n")
    done = subprocess.run(
        [PROGRAM, "watch", "--interface", "lo", "--listen", "127.0.0.1:0", "--web-config", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path}/nowhere.pem, named in {file}: cannot be read: No such file or directory" in line
