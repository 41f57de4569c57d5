"""Kernels that are set up otherwise than most."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.monitor.cli.conftest import PROGRAM, wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="capturing needs root"),
]

_UNPRIVILEGED_BPF: Final = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_BTF: Final = Path("/sys/kernel/btf")
_FORBID_BPF: Final = Path(__file__).with_name("forbid_bpf.py")


def scraped(log: Path) -> str:
    """What is where the log says that metrics are."""
    where = re.search(r"metrics are at (http\S+)", log.read_text())
    assert where is not None
    with urlopen(where[1], timeout=20) as answer:
        return str(answer.read().decode())


@pytest.fixture
def watched(tmp_path: Path, smtp_server: Any) -> Callable[..., tuple[str, list[dict[str, Any]]]]:
    """Runs `watch` behind this command, with a session; its log with its metrics, and its records."""

    def run(
        *before: str, probe: str, program: Sequence[str] = (PROGRAM,)
    ) -> tuple[str, list[dict[str, Any]]]:
        log, records = tmp_path / "log", tmp_path / "records.jsonl"
        options = ["--interface", "lo", "--listen", "127.0.0.1:0", "--probe", probe]
        options += ["--ports", str(smtp_server.port), "--records", str(records)]
        command = [*before, *program, "watch", *options]
        with log.open("wb") as stderr:
            watch = subprocess.Popen(command, stderr=stderr)
        try:
            # Where the full filter is rejected it compiles twice, half a minute on a busy machine.
            wait_until(lambda: "session records" in log.read_text() or watch.poll() is not None, 120)
            assert watch.poll() is None, log.read_text()
            smtp_server.whole_session()
            metrics = scraped(log)
            watch.send_signal(signal.SIGTERM)
            assert watch.wait(20) == 0
        finally:
            watch.kill()
        return log.read_text() + metrics, [json.loads(line) for line in records.read_text().splitlines()]

    return run


@pytest.fixture
def no_unprivileged_bpf() -> Iterator[None]:
    """As Debian has it. The value 1 could not be taken back, so it is never written."""
    before = _UNPRIVILEGED_BPF.read_text()
    if before.strip() == "0":
        _UNPRIVILEGED_BPF.write_text("2")
    yield
    if before.strip() == "0":
        _UNPRIVILEGED_BPF.write_text(before)


@pytest.mark.usefixtures("no_unprivileged_bpf")
def test_ebpf_needs_neither_btf_nor_bpf_for_everybody(watched: Callable[..., Any]) -> None:
    # Where there is no BTF, as in some kernels, there is nothing to hide.
    hide = f'test ! -e {_BTF} || {{ mount -t tmpfs none {_BTF} && test ! -e {_BTF}/vmlinux; }} && exec "$@"'
    log, records = watched("unshare", "--mount", "sh", "-c", hide, "sh", probe="ebpf")
    assert "with the ebpf probe" in log
    assert [record["ended"] for record in records] == ["quit"]


def test_where_the_kernel_refuses_bpf_libpcap_captures_and_the_reason_is_said(
    watched: Callable[..., Any],
) -> None:
    log, records = watched(sys.executable, str(_FORBID_BPF), probe="auto")
    assert "the kernel forbids BPF here" in log
    assert "lockdown" in log
    assert "with the pcap probe" in log
    assert [record["ended"] for record in records] == ["quit"]


def test_where_the_verifier_rejects_the_full_filter_the_plain_one_captures_and_its_words_are_said(
    watched: Callable[..., Any], tmp_path: Path
) -> None:
    rejected = [sys.executable, "-m", "tests.probes.ebpf.rejected_filter", str(tmp_path / "ebpf")]
    log, records = watched(probe="auto", program=rejected)
    assert "capturing with the plain eBPF filter" in log
    assert re.search(r"the kernel's verifier rejects it: R\d ", log)
    assert "with the ebpf probe" in log
    assert 'smtp_monitor_ebpf_filter{variant="plain"} 1.0' in log
    assert [record["ended"] for record in records] == ["quit"]


def test_without_the_privilege_for_the_full_filter_the_plain_one_captures_and_says_so(
    watched: Callable[..., Any],
) -> None:
    but_perfmon = ["setpriv", "--inh-caps", "-perfmon,-sys_admin", "--bounding-set", "-perfmon,-sys_admin"]
    log, records = watched(*but_perfmon, probe="ebpf")
    assert "capturing with the plain_without_perfmon eBPF filter" in log
    assert "CAP_PERFMON missing" in log
    assert 'smtp_monitor_ebpf_filter{variant="plain_without_perfmon"} 1.0' in log
    assert [record["ended"] for record in records] == ["quit"]
