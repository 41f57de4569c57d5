"""The tap's ring buffer is full: what was lost is counted, and nothing that is told is wrong."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_overload import kept_from_running
from tests.faults.tls_tap.small_tap import SmallTapWatch
from tests.lab.compare import differences_inside, key
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.scenario import TLS_1_2, TLS_1_3
from tests.lab.tls_scenario import GREETED, Way, converse
from tests.lab.truth import SessionTruth
from tests.tls_tap.tapped_watch import TappedWatch
from tests.wrong import wrong_lists

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]


def sessions(lab: Laboratory) -> dict[Any, SessionTruth]:
    ways = [Way((server_address(1), port), version) for port in (25, 465) for version in (TLS_1_3, TLS_1_2)]
    with lab.network.client.threads(8) as threads:
        futures = [
            threads.submit(converse, way, client_address(5 + number), words)
            for number, (way, words) in enumerate((way, words) for way in ways for words in GREETED[:12])
        ]
        return {truth.key: truth for truth in (future.result() for future in futures)}


def test_what_found_no_room_is_counted_and_what_is_told_is_right(lab: Laboratory, tmp_path: Path) -> None:
    whole, small = tmp_path / "whole", tmp_path / "small"
    whole.mkdir()
    small.mkdir()
    found: Counter[str] = Counter()
    with SmallTapWatch(lab.network.server, small, 16_384) as watch:
        with kept_from_running(watch):
            truths = sessions(lab)
        watch.await_silence()
        lost = watch.sample_sum("smtp_monitor_tls_tap_events_lost_total")
        assert watch.sample_sum("smtp_monitor_verdict_mismatches_total") == 0
        assert watch.stop() == 0
    for record in watch.records():
        truth = truths[key(record)]
        tapped = record["tapped"]
        found[tapped["result"]] += 1
        if tapped["result"] == "whole":
            assert not differences_inside(record, truth)
        else:
            assert not wrong_lists(tapped, as_json(truth))
    assert lost > 100
    assert found["whole"] < len(truths)
    print(f"events lost: {lost:.0f}; {dict(found)}")


def as_json(truth: SessionTruth) -> dict[str, Any]:
    """As a record that was seen whole has it."""
    assert truth.inside is not None
    assert truth.inside.transactions is not None
    return {
        "auth": [],
        "transactions": [
            {
                "mail_from": one.mail_from,
                "mail_code": one.mail_code,
                "recipients": [{"address": to, "code": code} for to, code in one.recipients or ()],
                "data": one.data
                and {"verb": one.data.verb, "wire_bytes": one.data.wire_bytes, "code": one.data.code},
                "outcome": one.outcome,
            }
            for one in truth.inside.transactions
        ],
    }


def test_the_room_that_there_is_bridges_some_seconds(lab: Laboratory, tmp_path: Path) -> None:
    """Watch is stopped, as when a machine has something better to do, while all these sessions are had."""
    with TappedWatch(lab.network.server, tmp_path) as watch:
        with kept_from_running(watch):
            truths = sessions(lab)
        watch.await_silence()
        assert watch.sample_sum("smtp_monitor_tls_tap_events_lost_total") == 0
        records = watch.records()
    assert len(records) == len(truths)
    assert not [line for record in records for line in differences_inside(record, truths[key(record)])]
