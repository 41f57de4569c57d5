"""`smtp-horizon doctor`: what it says must be true of this machine."""

import importlib.util
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.probes.tshark.stand_ins import in_place_of

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))


def _doctor(*arguments: str, prefix: Sequence[str] = (), **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [*prefix, PROGRAM, "doctor", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.stderr == b""
    return done.returncode, done.stdout.decode()


def _line(text: str, what: str) -> str:
    return next(line for line in text.splitlines() if what in line)


@pytest.fixture(scope="module")
def here() -> tuple[int, str]:
    """Its status and what it says of this machine. It takes seconds: it loads what `watch` would."""
    return _doctor()


@pytest.fixture(scope="module")
def of_a_port() -> tuple[int, str, str]:
    """A port, what is said of it while this process listens there, and what afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        text = _doctor("--ports", str(port))[1]
    return port, text, _doctor("--ports", str(port))[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root")
def test_root_can_watch(here: tuple[int, str]) -> None:
    status, text = here
    assert status == 0
    assert _line(text, "live capture, libpcap").startswith("ok")
    assert text.endswith("smtp-horizon watch can run here.\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privilege, which only root has")
def test_without_privilege_watch_cannot_run_and_the_remedy_is_named() -> None:
    # Root without a single capability: another user might not be able to read where the project lies.
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    done = subprocess.run([*drop, PROGRAM, "doctor"], capture_output=True, check=False)
    text = done.stdout.decode()
    assert done.returncode == 1, done.stderr
    assert _line(text, "live capture, eBPF").startswith("missing")
    assert "mend it: sudo smtp-horizon watch" in text
    assert "cannot run here as this user; smtp-horizon read can" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_it_names_the_user_whom_watch_goes_on_as(
    start_watch: Callable[..., Any], here: tuple[int, str]
) -> None:
    watch = start_watch()
    (user,) = re.findall(r"running as (\S+),", watch.log)
    assert f"goes on as {user}," in _line(here[1], "privileges")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privilege, which only root has")
def test_root_who_can_become_nobody_else_is_told_so_and_so_by_watch() -> None:
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-setuid"]
    done = subprocess.run([*drop, PROGRAM, "doctor"], capture_output=True, text=True, check=False)
    line = _line(done.stdout, "privileges")
    assert line.startswith("missing")
    assert "CAP_SETUID missing" in line
    assert done.returncode == 1
    watch = subprocess.run([*drop, PROGRAM, "watch"], capture_output=True, text=True, check=False)
    assert watch.returncode == 2
    assert "CAP_SETUID missing" in watch.stderr


def test_whether_system_calls_can_be_filtered_is_said(tmp_path: Path, here: tuple[int, str]) -> None:
    (tmp_path / "seccomp.py").write_text("raise ImportError\n")
    line = _line(_doctor(PYTHONPATH=str(tmp_path))[1], "system calls")
    assert line.startswith("missing")
    if importlib.util.find_spec("seccomp"):
        assert _line(here[1], "system calls").startswith("ok")


def test_tshark_is_reported_as_it_is(here: tuple[int, str], tmp_path: Path) -> None:
    tshark = which("tshark")
    assert _line(here[1], "tshark").startswith("ok" if tshark else "missing")
    (tmp_path / "no program").touch()
    text = _doctor(prefix=in_place_of(tshark, tmp_path / "no program") if tshark else ())[1]
    assert _line(text, "tshark").startswith("missing")
    assert "mend it: apt-get install tshark" in text


def test_who_listens_is_named(of_a_port: tuple[int, str, str]) -> None:
    port, while_listening, afterwards = of_a_port
    assert f"(process {os.getpid()})" in _line(while_listening, f"port {port}")
    assert f"nothing listens on {port}" in afterwards


def test_what_a_mail_server_s_tls_is_and_whether_it_can_be_tapped_is_said(
    of_a_port: tuple[int, str, str],
) -> None:
    port, while_listening, afterwards = of_a_port
    assert ssl.OPENSSL_VERSION  # this process has libssl
    assert _line(while_listening, "TLS library").endswith("libssl.so.3, in use by the mail server")
    within_reach = rf"^ok +TLS tap .* \(port {port}\) uses libssl.so.3 \(OpenSSL\): within reach$"
    assert re.search(within_reach, while_listening, re.M)
    assert "installed" in _line(afterwards, "TLS library")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privilege, which only root has")
def test_who_may_not_tap_may_watch_all_the_same() -> None:
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-sys_admin,-sys_ptrace"]
    done = subprocess.run([*drop, PROGRAM, "doctor"], capture_output=True, text=True, check=False)
    line = _line(done.stdout, "TLS tap")
    assert line.startswith("missing")
    assert line.endswith("no privilege: CAP_SYS_PTRACE missing; needed for --tls-tap alone")
    assert "mend it: sudo smtp-horizon watch --tls-tap\n" in done.stdout
    assert done.returncode == 0
