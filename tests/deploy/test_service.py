"""The unit under a systemd that runs: when it counts as started, and what a wrong setting does."""

import re
from collections.abc import Iterator

import pytest

from tests.deploy.real_systemd import Systemd, why_not

pytestmark = [pytest.mark.live, pytest.mark.thorough]


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Systemd(tmp_path_factory.mktemp("systemd")) as systemd:
        yield systemd


@pytest.fixture
def systemd(booted: Systemd) -> Iterator[Systemd]:
    """With the unit as it is in deploy/, and stopped."""
    booted.configure()
    yield booted
    booted.systemctl("stop")
    booted.systemctl("reset-failed")


def test_it_has_started_when_it_captures_and_not_before(systemd: Systemd) -> None:
    assert systemd.systemctl("start") == 0
    assert systemd.shown("ActiveState") == "active"
    # No waiting: all this is so by now.
    metrics = systemd.metrics()
    assert re.search(r"^smtp_monitor_capture_up\{.*\} 1(\.0)?$", metrics, re.MULTILINE), systemd.log()
    assert not re.search(r"^smtp_monitor_confined\{.*\} 0(\.0)?$", metrics, re.MULTILINE)
    assert systemd.shown("StatusText") == "watching any with the ebpf probe; 0 sessions so far"
    process = systemd.shown("MainPID")
    assert systemd.systemctl("reload") == 0
    systemd.wait_for(lambda: "records reopened" in systemd.log())
    assert systemd.shown("MainPID") == process
    assert systemd.systemctl("stop") == 0
    assert (systemd.shown("ActiveState"), systemd.shown("Result")) == ("inactive", "success")
    assert "ended; sessions that were still open: 0" in systemd.log()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("SMTP_HORIZON_LISTEN=nonsense", "names no address"),
        ("SMTP_HORIZON_INTERFACE=nosuch0", "there is no interface 'nosuch0'"),
        ("SMTP_HORIZON_GEOIP=/nonexistent.mmdb", "/nonexistent.mmdb: cannot be read"),
    ],
)
def test_a_wrong_setting_fails_at_once_and_is_not_tried_again(
    setting: str, says: str, systemd: Systemd
) -> None:
    assert systemd.systemctl("start") == 0
    systemd.configure(f"Environment={setting}")
    assert systemd.systemctl("restart") != 0
    # "activating" and "auto-restart" if it were to be tried again.
    assert (systemd.shown("ActiveState"), systemd.shown("SubState")) == ("failed", "failed")
    assert (systemd.shown("Result"), systemd.shown("ExecMainStatus")) == ("exit-code", "2")
    assert systemd.shown("NRestarts") == "0"
    assert says in systemd.log()
    systemd.systemctl("reset-failed")
    assert systemd.systemctl("start") != 0
    systemd.configure()
    assert systemd.systemctl("start") == 0


def test_it_is_started_again_after_it_was_killed(systemd: Systemd) -> None:
    assert systemd.systemctl("start") == 0
    killed = systemd.shown("MainPID")
    assert systemd.run("kill", "-KILL", killed).returncode == 0
    systemd.wait_for(lambda: systemd.shown("NRestarts") == "1" and systemd.shown("ActiveState") == "active")
    assert systemd.shown("MainPID") != killed


def test_who_holds_the_port_is_named_with_its_service(systemd: Systemd) -> None:
    assert systemd.systemctl("start") == 0
    done = systemd.run("/opt/smtp-horizon/bin/smtp-horizon", "watch", "--check")
    assert done.returncode == 2
    assert re.fullmatch(
        r"Error: cannot serve metrics on 127\.0\.0\.1:9825: Address already in use by another smtp-horizon "
        r"\(smtp-horizon\.service, process \d+\); stop that, or name another address with --listen\n",
        done.stderr,
    )
