"""Many sessions inside TLS with the real Postfix, held against its log, session by session."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab.compare import differences_inside, unmatched
from tests.lab.laboratory import Laboratory
from tests.lab.network import client_address, server_address
from tests.lab.raw_client import RawClient
from tests.lab.scenario import RECIPIENT, TLS_1_2, TLS_1_3
from tests.lab.tls_scenario import (
    OTHER,
    Way,
    Words,
    converse,
    message,
    null_sender,
    numbered,
    pipelined,
    reset_on_the_way,
    some_refused,
)
from tests.lab.truth import SessionTruth
from tests.lab.watch import sample_sum
from tests.tls_tap.tapped_watch import TappedWatch

_WAYS: Final = [
    Way((server_address(1), port), version) for port in (25, 465) for version in (TLS_1_3, TLS_1_2)
]
_THREADS: Final = 8
_CLIENTS: Final = range(5, 35)


@dataclass(frozen=True, slots=True)
class Crowd:
    told: list[SessionTruth]
    """By the clients."""
    logged: list[SessionTruth]
    """By Postfix."""
    records: list[dict[str, Any]]
    metrics: str
    status: int

    def complaints(self) -> list[str]:
        """Sessions that one of the three does not know, and facts that the tap tells otherwise."""
        found = []
        for truths in (self.told, self.logged):
            pairs, missing = unmatched(self.records, truths)
            wrong = [
                f"{truth.witness}, {truth.client}: {line}"
                for record, truth in pairs
                for line in differences_inside(record, truth)
            ]
            found += missing + wrong
        return found

    def losses(self) -> dict[str, float]:
        """What must be zero and is not."""
        names = (
            "smtp_monitor_tls_tap_events_lost_total",
            "smtp_monitor_verdict_mismatches_total",
            "smtp_monitor_packets_dropped_total",
        )
        found = {name: sample_sum(self.metrics, name) for name in names}
        return {name: value for name, value in found.items() if value}


def drive(lab: Laboratory, folder: Path, sessions: int) -> Crowd:
    before = len(lab.postfix.settle(0))
    with TappedWatch(lab.network.server, folder) as watch:
        with lab.network.client.threads(_THREADS) as threads:
            futures = [
                threads.submit(converse, way, client_address(number), words)
                for _, way, number, words in zip(
                    range(sessions),
                    itertools.cycle(_WAYS),
                    itertools.cycle(_CLIENTS),
                    _conversations(),
                    strict=False,
                )
            ]
            told = [future.result() for future in futures]
        watch.await_silence()
        metrics = watch.metrics()
        status = watch.stop()
        logged = lab.postfix.settle(before + sessions)[before:]
        return Crowd(told, logged, watch.records(), metrics, status)


def _conversations() -> "itertools.cycle[Words]":
    usual = [numbered(number) for number in range(6)]
    return itertools.cycle([*usual, two_messages, some_refused, null_sender, pipelined, reset_on_the_way])


def two_messages(client: RawClient) -> None:
    message(client, RECIPIENT, OTHER)
    message(client, number=1)
    client.quit()
