"""A comparison that can't fail is worth nothing: each fact of a record is made wrong in turn."""

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest

from tests.lab.compare import differences, differences_inside, unmatched
from tests.lab.truth import (
    ANY_PORT,
    LOST,
    NO_TLS,
    DataTruth,
    InsideTruth,
    MessageTruth,
    SessionTruth,
    TransactionTruth,
)

RECORD: dict[str, Any] = {
    "start": "2026-11-22T12:00:00.000000Z",
    "client": {"ip": "10.77.1.5", "port": 40000},
    "server": {"ip": "10.77.0.1", "port": 25},
    "direction": "inbound",
    "proxied_client": {"ip": "203.0.113.7", "port": 50000},
    "channel": "starttls",
    "envelope": "partial",
    "banner": {"code": 220, "text": "mx.example.test ESMTP"},
    "helo": [{"verb": "EHLO", "name": "client.test", "code": 250}],
    "starttls": {"offered": True, "requested": 2, "codes": [454, 220], "outcome": "established"},
    "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "sni": None},
    "auth": [{"mechanism": "PLAIN", "code": 235}],
    "transactions": [
        {
            "mail_from": "a@client.test",
            "mail_code": 250,
            "recipients": [
                {"address": "user1@example.test", "code": 250},
                {"address": "nosuch@example.test", "code": 550},
                {"address": "lost@example.test", "code": None},
            ],
            "data": {"verb": "DATA", "wire_bytes": 1249, "code": 250},
            "outcome": "accepted",
        }
    ],
    "bytes": {"client": 2100, "server": 640},
    "ended": "server_closed",
    "anomalies": ["cleartext_auth"],
    "tapped": {
        "result": "whole",
        "transactions": [
            {
                "mail_from": "b@client.test",
                "mail_code": 250,
                "recipients": [{"address": "user2@example.test", "code": 250}],
                "data": {"verb": "DATA", "wire_bytes": 1249, "code": 250},
                "outcome": "accepted",
            }
        ],
        "auth": [{"mechanism": "PLAIN", "code": 235}],
    },
}
TRUTH = SessionTruth(
    witness="everybody",
    client=("10.77.1.5", 40000),
    server=("10.77.0.1", 25),
    direction="inbound",
    proxied_client=("203.0.113.7", 50000),
    channel="starttls",
    envelope="partial",
    banner=(220, "mx.example.test ESMTP"),
    helo=(("EHLO", "client.test", 250),),
    starttls_offered=True,
    starttls_codes=(454, 220),
    starttls_outcome=frozenset({"established"}),
    tls_version="TLSv1.3",
    tls_cipher="TLS_AES_256_GCM_SHA384",
    tls_sni="",
    auth=(("PLAIN", 235),),
    transactions=(
        TransactionTruth(
            "a@client.test",
            250,
            (("user1@example.test", 250), ("nosuch@example.test", 550), ("lost@example.test", LOST)),
            DataTruth("DATA", 1249, 250),
            "accepted",
        ),
    ),
    inside=InsideTruth(
        transactions=(
            TransactionTruth(
                "b@client.test",
                250,
                (("user2@example.test", 250),),
                DataTruth("DATA", 1249, 250),
                "accepted",
            ),
        ),
        auth=(("PLAIN", 235),),
        messages=(MessageTruth("b@client.test", frozenset({"user2@example.test"})),),
        refused_recipients=Counter(),
    ),
    client_bytes=2100,
    server_bytes=640,
    ended=frozenset({"server_closed", "client_closed"}),
    anomalies=frozenset({"cleartext_auth"}),
)
LOGGED = SessionTruth(
    witness="log",
    client=("10.77.1.5", ANY_PORT),
    server=("10.77.0.1", 25),
    messages=(MessageTruth("a@client.test", frozenset({"user1@example.test"})),),
    refused_recipients=Counter({("nosuch@example.test", 550): 1}),
    commands=Counter(ehlo=1, helo=0, starttls=2, auth=1, mail=1, rcpt=3, data=1),
)

Path = tuple[str | int, ...]
WRONG: list[tuple[Path, object]] = [
    (("client", "ip"), "10.77.1.6"),
    (("server", "port"), 587),
    (("direction",), "outbound"),
    (("proxied_client",), None),
    (("proxied_client", "port"), 1),
    (("channel",), "cleartext"),
    (("envelope",), "hidden"),
    (("banner",), None),
    (("banner", "code"), 554),
    (("helo",), []),
    (("helo", 0, "code"), None),
    (("starttls", "offered"), None),
    (("starttls", "requested"), 1),
    (("starttls", "codes"), [220]),
    (("starttls", "outcome"), "failed"),
    (("tls",), None),
    (("tls", "version"), "TLSv1.2"),
    (("tls", "cipher"), None),
    (("tls", "sni"), "mx.example.test"),
    (("auth",), []),
    (("auth", 0, "code"), 535),
    (("transactions",), []),
    (("transactions", 0, "mail_from"), ""),
    (("transactions", 0, "mail_code"), None),
    (("transactions", 0, "recipients", 0, "code"), 451),
    (("transactions", 0, "recipients", 2, "code"), 250),
    (("transactions", 0, "recipients", 1, "address"), "user1@example.test"),
    (("transactions", 0, "data"), None),
    (("transactions", 0, "data", "wire_bytes"), 1248),
    (("transactions", 0, "data", "code"), 451),
    (("transactions", 0, "outcome"), "rejected"),
    (("bytes", "client"), 2099),
    (("bytes", "server"), 641),
    (("ended",), "reset"),
    (("anomalies",), []),
    (("anomalies",), ["cleartext_auth", "bare_lf"]),
]
WRONG_TO_A_LOG: list[tuple[Path, object]] = [
    (("server", "ip"), "10.77.0.2"),
    (("starttls", "requested"), 1),
    (("helo",), []),
    (("transactions",), []),
    (("transactions", 0, "mail_from"), ""),
    (("transactions", 0, "recipients", 0, "code"), 450),
    (("transactions", 0, "recipients", 1, "code"), 450),
    (("transactions", 0, "data"), None),
    (("transactions", 0, "outcome"), "aborted"),
]


INSIDE: list[tuple[Path, object]] = [
    (("tapped",), None),
    (("tapped", "result"), "partial"),
    (("tapped", "auth"), []),
    (("tapped", "auth", 0, "mechanism"), "LOGIN"),
    (("tapped", "transactions"), []),
    (("tapped", "transactions", 0, "mail_from"), ""),
    (("tapped", "transactions", 0, "recipients", 0, "code"), 451),
    (("tapped", "transactions", 0, "data", "wire_bytes"), 1248),
    (("tapped", "transactions", 0, "outcome"), "unknown"),
]


def changed(path: Path, value: object) -> dict[str, Any]:
    record = deepcopy(RECORD)
    place: Any = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return record


def test_a_record_that_says_what_everybody_says_has_no_difference() -> None:
    assert differences(RECORD, TRUTH) == []
    assert differences(RECORD, LOGGED) == []


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_wrong_fact_is_told(path: Path, value: object) -> None:
    assert differences(changed(path, value), TRUTH)


@pytest.mark.parametrize(("path", "value"), INSIDE)
def test_a_wrong_fact_inside_tls_is_told_to_who_asks_for_it(path: Path, value: object) -> None:
    assert not differences_inside(RECORD, TRUTH)
    assert differences_inside(changed(path, value), TRUTH)
    assert not differences(changed(path, value), TRUTH), "most records are of a watch without a tap"


def test_an_inside_where_there_was_no_tls_is_told() -> None:
    assert differences_inside(RECORD, LOGGED)
    assert not differences_inside(changed(("tapped",), None), LOGGED)


@pytest.mark.parametrize(("path", "value"), WRONG_TO_A_LOG)
def test_what_contradicts_a_log_is_told(path: Path, value: object) -> None:
    assert differences(changed(path, value), LOGGED)


def test_what_a_truth_does_not_know_is_not_compared() -> None:
    nothing = SessionTruth(witness="nobody", client=TRUTH.client, server=TRUTH.server)
    for path, value in WRONG[2:]:
        assert differences(changed(path, value), nothing) == []


def test_tls_where_there_was_none_is_told() -> None:
    in_clear = SessionTruth(witness="one", client=TRUTH.client, server=TRUTH.server, tls_version=NO_TLS)
    assert differences(RECORD, in_clear)
    assert not differences(changed(("tls",), None), in_clear)


def test_a_session_that_only_one_side_has_is_told() -> None:
    other = changed(("client", "port"), 40001)
    pairs, complaints = unmatched([RECORD, other], [TRUTH])
    assert pairs == [(RECORD, TRUTH)]
    assert len(complaints) == 1
    pairs, complaints = unmatched([other], [TRUTH])
    assert not pairs
    assert len(complaints) == 2


def test_sessions_of_the_same_endpoints_pair_in_order_of_time() -> None:
    later = changed(("start",), "2026-11-22T12:00:01.000000Z")
    pairs, complaints = unmatched([later, RECORD], [LOGGED, LOGGED])
    assert [record["start"] for record, _ in pairs] == [RECORD["start"], later["start"]]
    assert not complaints
