"""`smtp-horizon watch --tls-tap`: the option itself. What it tells of mail is in tests/tls_tap."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from monitor.cli.watch import command

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="uprobes, and becoming somebody else, need root")

StartWatch = Callable[..., Any]


def _is_asked_for(*arguments: str) -> object:
    with command.make_context("watch", list(arguments)) as context:
        return context.params["tls_tap"]


def test_it_is_off_unless_asked_for() -> None:
    assert _is_asked_for() is False
    assert _is_asked_for("--tls-tap") is True


@pytest.mark.parametrize(("value", "is_on"), [("1", True), ("true", True), ("0", False), ("no", False)])
def test_the_environment_asks_for_it(monkeypatch: pytest.MonkeyPatch, value: str, is_on: bool) -> None:
    monkeypatch.setenv("SMTP_HORIZON_TLS_TAP", value)
    assert _is_asked_for() is is_on


@pytest.mark.parametrize("is_on", [True, False])
def test_the_configuration_file_asks_for_it(tmp_path: Path, is_on: bool) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f"tls-tap = {str(is_on).lower()}\n")
    assert _is_asked_for("--config", str(config)) is is_on


def test_help_says_what_it_reads_and_what_never() -> None:
    done = _run("--help")
    text = " ".join(done.stdout.split())
    assert "--tls-tap" in text
    assert "Read senders and recipients inside TLS" in text
    assert "Never a message or a password" in text
    assert "SMTP_HORIZON_TLS_TAP" in text


@needs_root
def test_who_may_not_is_told_so_in_one_line_with_status_2() -> None:
    # Not another user: he may not enter every folder that the project may lie in.
    done = _run(
        *("--tls-tap", "--listen", "127.0.0.1:0"),
        prefix=("setpriv", "--inh-caps=-all", "--bounding-set=-all,+setuid,+setgid"),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: no privilege: CAP_BPF and CAP_SYS_PTRACE missing; ")
    assert line.endswith("sudo smtp-horizon watch --tls-tap")


@needs_root
@pytest.mark.parametrize("probe", ["ebpf", "pyshark"])
def test_it_goes_with_every_probe(start_watch: StartWatch, smtp_server: Any, probe: str) -> None:
    watch = start_watch("--tls-tap", "--probe", probe)
    samples = watch.samples()
    assert samples["smtp_monitor_tls_tap_enabled"] == 1
    assert samples["smtp_monitor_tls_tap_libraries"] >= 1, "this process listens, and has OpenSSL"
    assert "WARNING the TLS tap is on: senders and recipients inside TLS are read" in watch.log
    smtp_server.whole_session()


@needs_root
def test_without_it_the_metrics_say_so(start_watch: StartWatch) -> None:
    samples = start_watch().samples()
    assert samples["smtp_monitor_tls_tap_enabled"] == 0
    assert samples["smtp_monitor_tls_tap_libraries"] == 0


def _run(*arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    line = (*prefix, PROGRAM, "watch", *arguments)
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
