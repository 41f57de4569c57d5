"""The keeper is killed, watch is killed: what is said of it, and what stays behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.lab.compare import differences, differences_inside
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.scenario import TLS_1_3
from tests.lab.tls_scenario import Way, converse, one_message
from tests.lab.truth import SessionTruth
from tests.tls_tap.tapped_watch import PATIENCE_SECONDS, TappedWatch, bpftool, is_there, kernel_numbers

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

MX: Final = Way((server_address(1), 25), TLS_1_3)


def one_session(lab: Laboratory) -> SessionTruth:
    with lab.network.client.threads(1) as thread:
        return thread.submit(converse, MX, client_address(3), one_message).result()


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def attached_for(process: int) -> list[str]:
    """How programs are called for the process."""
    return [one["fd_type"] for one in bpftool("perf", "show") if one["pid"] == process]


def test_without_its_keeper_watch_goes_on_and_says_that_it_sees_nothing_inside(
    lab: Laboratory, tmp_path: Path
) -> None:
    with TappedWatch(lab.network.server, tmp_path) as watch:
        before = one_session(lab)
        assert not differences_inside(watch.record_of(before), before)
        keeper = watch.keeper
        os.kill(keeper, signal.SIGKILL)
        await_that(lambda: not is_there(keeper))
        await_that(lambda: watch.sample_sum("smtp_monitor_tls_tap_libraries") == 0)
        after = one_session(lab)
        record = watch.record_of(after)
        assert record["tapped"] == {"result": "missed", "transactions": [], "auth": []}
        assert not differences(record, after)
        assert watch.sample_sum("smtp_monitor_tls_tap_enabled") == 1
        assert watch.sample_sum("smtp_monitor_capture_up") == 1
        assert watch.stop() == 1
    assert "ERROR the TLS tap has ended: its keeper is gone; the rest goes on" in watch.said()
    assert "Traceback" not in watch.said()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_once_watch_is_gone_no_probe_stays_behind(
    lab: Laboratory, tmp_path: Path, number: signal.Signals
) -> None:
    with TappedWatch(lab.network.server, tmp_path) as watch:
        keeper = watch.keeper
        attached, programs = attached_for(keeper), kernel_numbers(keeper, "prog")
        assert {"uprobe", "uretprobe", "tracepoint"} <= set(attached)
        assert len(programs) > 10
        watch.stop(number)
    await_that(lambda: not is_there(keeper))
    assert attached_for(keeper) == []
    await_that(lambda: not programs & {one["id"] for one in bpftool("prog", "show")})
