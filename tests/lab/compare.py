"""Holds a session record, as read from its JSON line, against somebody's truth."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tests.lab.truth import (
    ANY_PORT,
    LOST,
    NO_TLS,
    Endpoint,
    InsideTruth,
    MessageTruth,
    SessionTruth,
    TransactionTruth,
)

Record = dict[str, Any]


def key(record: Record) -> tuple[Endpoint, Endpoint]:
    """What a record and a truth of the same session share."""
    return _endpoint(record["client"]), _endpoint(record["server"])


def differences(record: Record, truth: SessionTruth) -> list[str]:
    """A line for every fact that the truth knows and the record does not confirm; empty when they agree."""
    found = _Differences(truth.witness)
    if not _same_session(record, truth):
        found.add("client, server", key(record), truth.key)
    for name in ("direction", "channel", "envelope"):
        found.compare(name, record[name], getattr(truth, name))
    if truth.proxied_client is not None:
        proxied = record["proxied_client"]
        found.compare("proxied_client", proxied and _endpoint(proxied), truth.proxied_client)
    if truth.banner is not None:
        banner = record["banner"]
        found.compare("banner", banner and (banner["code"], banner["text"]), truth.banner)
    if truth.helo is not None:
        seen = [(helo["verb"], helo["name"], helo["code"]) for helo in record["helo"]]
        found.compare("helo", seen, [(verb, name, _code(code)) for verb, name, code in truth.helo])
    _compare_starttls(found, record, truth)
    _compare_tls(found, record["tls"], truth)
    _compare_lists(found, record, truth)
    if truth.commands is not None:
        seen_commands = _commands(record)
        found.compare(
            "counted commands", {name: seen_commands[name] for name in truth.commands}, dict(truth.commands)
        )
    found.compare("bytes.client", record["bytes"]["client"], truth.client_bytes)
    found.compare("bytes.server", record["bytes"]["server"], truth.server_bytes)
    if truth.ended is not None and record["ended"] not in truth.ended:
        found.add("ended", record["ended"], " or ".join(sorted(truth.ended)))
    if truth.anomalies is not None:
        found.compare("anomalies", set(record["anomalies"]), set(truth.anomalies))
    return found.lines


def differences_inside(record: Record, truth: SessionTruth, *, result: str = "whole") -> list[str]:
    """The same of what went on inside TLS, where a tap ran."""
    found = _Differences(truth.witness)
    tapped = record["tapped"]
    if truth.inside is None:
        found.compare("tapped", [tapped], [None])
    elif tapped is None:
        found.add("tapped", None, truth.inside)
    else:
        found.compare("tapped.result", tapped["result"], result)
        _compare_lists(found, tapped, truth.inside, "tapped.")
    return found.lines


def unmatched(
    records: Iterable[Record], truths: Iterable[SessionTruth]
) -> tuple[list[tuple[Record, SessionTruth]], list[str]]:
    """Pairs each truth with its record; and a line for every session that only one of the two sides has.

    When a pair of endpoints met more than once, or the witness doesn't know the client's port, the sessions
    pair in order of time.
    """
    waiting = sorted(records, key=lambda record: record["start"])
    pairs, complaints = [], []
    for truth in truths:
        for record in waiting:
            if _same_session(record, truth):
                pairs.append((record, truth))
                waiting.remove(record)
                break
        else:
            complaints.append(f"{truth.witness}: no record of {truth.client} to {truth.server}")
    complaints += [f"a record that nobody took part in: {key(record)}" for record in waiting]
    return pairs, complaints


def _same_session(record: Record, truth: SessionTruth) -> bool:
    if truth.client[1] == ANY_PORT:
        return record["client"]["ip"] == truth.client[0] and _endpoint(record["server"]) == truth.server
    return key(record) == truth.key


class _Differences:
    def __init__(self, witness: str) -> None:
        self._witness = witness
        self.lines: list[str] = []

    def add(self, what: str, seen: object, true: object) -> None:
        self.lines.append(f"{what}: record has {seen!r}, {self._witness} says {true!r}")

    def compare(self, what: str, seen: object, true: object) -> None:
        """None as the truth: not known."""
        if true is not None and seen != true:
            self.add(what, seen, true)


def _compare_lists(
    found: _Differences, record: Record, truth: SessionTruth | InsideTruth, where: str = ""
) -> None:
    """AUTHs and transactions, however they are known."""
    if truth.auth is not None:
        seen_auth = [(auth["mechanism"], auth["code"]) for auth in record["auth"]]
        found.compare(f"{where}auth", seen_auth, [(mechanism, _code(code)) for mechanism, code in truth.auth])
    if truth.transactions is not None:
        _compare_transactions(found, record["transactions"], truth.transactions, f"{where}transactions")
    if truth.messages is not None:
        found.compare(f"{where}accepted messages", _messages(record), list(truth.messages))
    if truth.refused_recipients is not None:
        refused = _refused_recipients(record)
        found.compare(f"{where}refused recipients", refused, dict(truth.refused_recipients))


def _compare_starttls(found: _Differences, record: Record, truth: SessionTruth) -> None:
    starttls = record["starttls"]
    found.compare("starttls.offered", starttls["offered"], truth.starttls_offered)
    if truth.starttls_codes is not None:
        codes = [_code(code) for code in truth.starttls_codes]
        found.compare("starttls.requested", starttls["requested"], len(codes))
        found.compare("starttls.codes", starttls["codes"], codes)
    if truth.starttls_outcome is not None and starttls["outcome"] not in truth.starttls_outcome:
        found.add("starttls.outcome", starttls["outcome"], " or ".join(sorted(truth.starttls_outcome)))


def _compare_tls(found: _Differences, tls: Record | None, truth: SessionTruth) -> None:
    if truth.tls_version is None:
        return
    if truth.tls_version == NO_TLS or tls is None:
        if (truth.tls_version == NO_TLS) != (tls is None):
            found.add("tls", tls, truth.tls_version)
        return
    found.compare("tls.version", tls["version"], truth.tls_version)
    found.compare("tls.cipher", tls["cipher"], truth.tls_cipher)
    if truth.tls_sni is not None:
        found.compare("tls.sni", tls["sni"] or "", truth.tls_sni)


def _compare_transactions(
    found: _Differences,
    seen: Sequence[Record],
    true: Sequence[TransactionTruth],
    name: str,
) -> None:
    found.compare(f"number of {name}", len(seen), len(true))
    for number, (record, truth) in enumerate(zip(seen, true, strict=False)):
        what = f"{name}[{number}]"
        found.compare(f"{what}.mail_from", record["mail_from"], truth.mail_from)
        found.compare(f"{what}.outcome", record["outcome"], truth.outcome)
        if truth.mail_code is not None:
            found.compare(f"{what}.mail_code", [record["mail_code"]], [_code(truth.mail_code)])
        if truth.recipients is not None:
            pairs = [(recipient["address"], recipient["code"]) for recipient in record["recipients"]]
            found.compare(f"{what}.recipients", pairs, [(to, _code(code)) for to, code in truth.recipients])
        if truth.data is not None:
            data = record["data"] or {"verb": None, "wire_bytes": None, "code": None}
            found.compare(f"{what}.data.verb", data["verb"], truth.data.verb)
            found.compare(f"{what}.data.wire_bytes", data["wire_bytes"], truth.data.wire_bytes)
            if truth.data.code is not None:
                found.compare(f"{what}.data.code", [data["code"]], [_code(truth.data.code)])


def _messages(record: Record) -> list[MessageTruth]:
    return [
        MessageTruth(
            transaction["mail_from"],
            frozenset(
                recipient["address"]
                for recipient in transaction["recipients"]
                if _reply_class(recipient["code"]) == 2
            ),
        )
        for transaction in record["transactions"]
        if transaction["outcome"] == "accepted"
    ]


def _refused_recipients(record: Record) -> Counter[tuple[str, int]]:
    return Counter(
        (recipient["address"], recipient["code"])
        for transaction in record["transactions"]
        for recipient in transaction["recipients"]
        if _reply_class(recipient["code"]) in (4, 5)
    )


def _commands(record: Record) -> Counter[str]:
    counted = Counter(
        starttls=record["starttls"]["requested"],
        auth=len(record["auth"]),
        mail=len(record["transactions"]),
        rcpt=sum(len(transaction["recipients"]) for transaction in record["transactions"]),
        data=sum((transaction["data"] or {}).get("verb") == "DATA" for transaction in record["transactions"]),
    )
    counted.update(helo["verb"].lower() for helo in record["helo"])
    return counted


def _reply_class(code: int | None) -> int:
    return 0 if code is None else code // 100


def _endpoint(endpoint: Record) -> Endpoint:
    return endpoint["ip"], endpoint["port"]


def _code(code: int | None) -> int | None:
    return None if code == LOST else code
