"""What real clients said inside TLS to mail servers of other releases of Debian, whose TLS libraries are
other ones, and what `watch --tls-tap` tells of it.

OpenSMTPD serves all connections in one process with libevent, by a TLS library of its own (libtls) that
stands upon OpenSSL, and has another process sign what its handshakes need. It offers neither PIPELINING nor
CHUNKING, and resumes no TLS session.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.lab import exim, opensmtpd, scenario
from tests.lab.compare import differences, differences_inside, unmatched
from tests.lab.debian_root import debian_root
from tests.lab.exim import Exim
from tests.lab.network import Network, client_address, server_address
from tests.lab.opensmtpd import OpenSmtpdWithTls
from tests.lab.packages import LabUnavailableError, ensure
from tests.lab.scenario import TLS_1_2, TLS_1_3
from tests.lab.tls_scenario import (
    GREETED,
    LOGGED_IN,
    UNGREETED,
    VANISHING,
    Way,
    Words,
    converse,
    in_chunks,
    larger_message,
    pipelined,
    pipelined_behind_a_message,
    resets_at_once,
)
from tests.lab.truth import Endpoint, SessionTruth
from tests.tls_tap.tapped_watch import Record, TappedWatch

pytestmark = [
    pytest.mark.live,
    pytest.mark.thorough,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mail servers and uprobes need root"),
]

Plan = dict[Endpoint, tuple[Words, ...]]

EXIM: Final[Plan] = {
    (server_address(exim.NUMBER), 25): (*GREETED, larger_message, *VANISHING),
    (server_address(exim.NUMBER), 465): (*GREETED, *LOGGED_IN, *VANISHING),
    (server_address(exim.NUMBER, 6), 25): GREETED[:3],
}
_NOT_SPOKEN: Final = {pipelined, pipelined_behind_a_message, in_chunks}
SPOKEN: Final = tuple(words for words in GREETED if words not in _NOT_SPOKEN)
OPENSMTPD: Final[Plan] = {
    (server_address(opensmtpd.NUMBER), 25): (*SPOKEN, larger_message, *VANISHING, *UNGREETED),
    (server_address(opensmtpd.NUMBER), 465): (*SPOKEN, *LOGGED_IN, *VANISHING, *UNGREETED),
    (server_address(opensmtpd.NUMBER), 587): LOGGED_IN,
    (server_address(opensmtpd.NUMBER, 6), 25): SPOKEN[:3],
}
VERSIONS: Final = (TLS_1_2, TLS_1_3)


@dataclass(frozen=True, slots=True)
class Case:
    suites: tuple[str, ...]
    package: str
    server: type[OpenSmtpdWithTls | Exim]
    plan: Plan
    soname: str
    """Of its TLS library."""


CASES: Final = {
    "OpenSSL 1.1": Case(("bullseye",), "opensmtpd", OpenSmtpdWithTls, OPENSMTPD, "libssl.so.1.1"),
    "OpenSSL 3.0": Case(
        ("bookworm", "bookworm-backports"), "opensmtpd", OpenSmtpdWithTls, OPENSMTPD, "libssl.so.3"
    ),
    "OpenSSL 3.5": Case(("trixie",), "opensmtpd", OpenSmtpdWithTls, OPENSMTPD, "libssl.so.3"),
    "GnuTLS 3.8": Case(("trixie",), "exim4-daemon-light", Exim, EXIM, "libgnutls.so.30"),
}


@dataclass(frozen=True, slots=True)
class Run:
    told: dict[str, list[SessionTruth]]
    """By what was said."""
    records: list[Record]

    def of(self, *kinds: str) -> list[tuple[Record, SessionTruth]]:
        """Those sessions, or all."""
        truths = [truth for kind in kinds or self.told for truth in self.told[kind]]
        pairs, _ = unmatched(self.records, truths)
        assert len(pairs) == len(truths)
        return pairs


@pytest.fixture(scope="module", params=CASES.values(), ids=tuple(CASES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    case: Case = request.param
    try:
        ensure()
        root = debian_root(case.suites, case.package)
    except LabUnavailableError as reason:
        pytest.skip(str(reason))
    with (
        Network() as network,
        case.server(network.server, network.folder / "server", root),
        TappedWatch(network.server, tmp_path_factory.mktemp("watch")) as watch,
    ):
        assert is_read_along(watch, root, case.soname), watch.said()
        told = drive(network, case.plan)
        watch.await_silence()
        assert watch.sample_sum("smtp_monitor_verdict_mismatches_total") == 0
        assert watch.sample_sum("smtp_monitor_tls_tap_events_lost_total") == 0
        assert watch.stop() == 0, watch.said()
        yield Run(told, watch.records())


def is_read_along(watch: TappedWatch, root: Path, soname: str) -> bool:
    return any(
        f"reading along in {root}/" in line and f"/{soname}" in line for line in watch.said().splitlines()
    )


def drive(network: Network, plan: Plan) -> dict[str, list[SessionTruth]]:
    numbers = itertools.cycle(range(5, 35))
    told: dict[str, list[SessionTruth]] = {}

    def client_of(server: Endpoint) -> str:
        return client_address(next(numbers), 6 if ":" in server[0] else 4)

    with network.client.threads(16) as threads:
        conversations = [
            (words.__name__, threads.submit(converse, Way(server, version), client_of(server), words))
            for server, all_words in plan.items()
            for words in all_words
            for version in VERSIONS
        ]
        mx = next(iter(plan))
        conversations.append(("failing", threads.submit(scenario.starttls_failing, mx, client_address(3))))
        conversations.append(("clear", threads.submit(scenario.several_messages, mx, client_address(3))))
        for kind, future in conversations:
            told.setdefault(kind, []).append(future.result())
    return told


def test_what_clients_did_and_were_answered_inside_tls_is_what_the_tap_tells(run: Run) -> None:
    kinds = set(run.told) - {"failing", "clear", resets_at_once.__name__}
    wrong = [line for record, truth in run.of(*kinds) for line in differences_inside(record, truth)]
    assert not wrong


def test_the_record_stays_what_a_bystander_sees(run: Run) -> None:
    kinds = set(run.told) - {
        words.__name__ for words in (*VANISHING, *UNGREETED)
    }  # see test_conversations.py
    wrong = [line for record, truth in run.of(*kinds) for line in differences(record, truth)]
    assert not wrong
    assert {record["envelope"] for record, _ in run.of(*(words.__name__ for words in SPOKEN))} == {"hidden"}


def test_where_tls_was_never_there_nothing_is_said_to_be_inside(run: Run) -> None:
    assert {record["tapped"] for record, _ in run.of("failing", "clear")} == {None}


def test_every_record_is_of_a_session_that_somebody_tells_of(run: Run) -> None:
    assert len(run.of()) == len(run.records) > 60


def test_nobody_is_in_a_session_of_somebody_else(run: Run) -> None:
    """Every session has senders of its own."""
    seen = Counter(
        address
        for record, _ in run.of(*(words.__name__ for words in SPOKEN))
        for address in {one["mail_from"] for one in record["tapped"]["transactions"]}
        if address
    )
    assert len(seen) > 60
    assert set(seen.values()) == {1}
