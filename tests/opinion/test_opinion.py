"""Wireshark's dissectors, which share nothing with our parser, say the same of every capture.

The environment's TSHARK names another tshark to ask.
"""

import copy
import functools
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.capture_truth import capture_names
from tests.opinion import ask_tshark
from tests.opinion.compare import Difference, Pair, facts, paired
from tests.opinion.known_differences import COMPARED, KNOWN, LACKS, Kind, Known, shows_up
from tests.opinion.opinion import opinions
from tests.segments import capture_path, records_of, segments_of

MISSING: Final = ask_tshark.missing()
pytestmark = [pytest.mark.thorough, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

CAPTURES: Final = [*capture_names(), "mid"]


@functools.lru_cache(maxsize=4)
def both(capture: str) -> tuple[list[Pair], list[str]]:
    return paired(opinions(capture_path(capture)), records_of(segments_of(capture)))


def rows_of(capture: str) -> Iterator[tuple[Kind, Known]]:
    for kind, rows in KNOWN.items():
        for row in rows:
            if row.capture == capture:
                yield kind, row


@pytest.mark.parametrize("capture", CAPTURES)
def test_tshark_and_the_records_differ_only_where_it_is_known(capture: str) -> None:
    pairs, one_sided = both(capture)
    complaints = list(one_sided)
    assert pairs
    release = ask_tshark.release()
    known = {
        (row.client, name): value
        for kind, row in rows_of(capture)
        if release not in COMPARED or shows_up(kind, release)
        for name, value in row.facts.items()
    }
    for pair in pairs:
        for difference in pair.differences():
            expected = known.pop((pair.client, difference.fact.name), None)
            if not _is_as_known(difference, expected):
                complaints.append(f"tcp.stream {pair.opinion.stream}, {difference}")
    if release in COMPARED:
        complaints += [f"{client} {name}: differs no longer" for client, name in known]
    assert not complaints, "\n".join(complaints)


def _is_as_known(difference: Difference, expected: Any) -> bool:
    if expected == LACKS:
        return difference.tshark_lacks_only
    return expected is not None and bool(expected == difference.fact.tshark)


@pytest.mark.parametrize("capture", sorted({row.capture for rows in KNOWN.values() for row in rows}))
def test_the_frames_that_show_a_known_difference_are_of_its_connection(capture: str) -> None:
    frames = {pair.client: pair.opinion.frames for pair in both(capture)[0]}
    for _, row in rows_of(capture):
        assert row.frames
        assert set(row.frames) <= frames[row.client], row


def test_no_fact_has_two_reasons() -> None:
    named = [(row.capture, row.client, name) for rows in KNOWN.values() for row in rows for name in row.facts]
    assert len(named) == len(set(named))


FACTS: Final = {
    "bytes.client", "bytes.server", "bytes.encrypted", "banner", "helo", "helo codes", "mail", "mail codes",
    "rcpt", "rcpt codes", "auth", "auth codes", "starttls.offered", "starttls.requested", "starttls.codes",
    "data", "data[0].wire_bytes", "data[0].code", "tls", "channel", "tls.version", "tls.cipher",
    "tls.cipher name", "tls.sni",
}  # fmt: skip


def test_of_each_fact_tshark_says_something() -> None:
    said = {fact.name for pair in both("mid")[0] for fact in facts(pair.opinion, pair.record) if fact.tshark}
    assert said >= FACTS
    assert ("tls.ja4" in said) == ask_tshark.knows_ja4()


@pytest.mark.parametrize(
    ("capture", "path", "wrong", "fact"),
    [
        ("plain_single", "banner.code", 221, "banner"),
        ("plain_single", "helo.0.name", "other.test", "helo"),
        ("plain_single", "helo.0.code", 251, "helo codes"),
        ("plain_single", "starttls.offered", False, "starttls.offered"),
        ("plain_single", "transactions.0.mail_from", "other@client.test", "mail"),
        ("plain_single", "transactions.0.mail_params", {"SIZE": "1"}, "mail"),
        ("plain_single", "transactions.0.mail_code", 550, "mail codes"),
        ("plain_single", "transactions.0.recipients", [], "rcpt"),
        ("plain_single", "transactions.0.recipients.0.code", 550, "rcpt codes"),
        ("plain_single", "transactions.0.data.verb", "BDAT", "data"),
        ("plain_single", "transactions.0.data.code", 554, "data[0].code"),
        ("plain_single", "bytes.client", 1, "bytes.client"),
        ("plain_single", "bytes.server", 1, "bytes.server"),
        ("auth_clear", "auth.0.mechanism", "XOAUTH2", "auth"),
        ("auth_clear", "auth.0.code", 999, "auth codes"),
        ("starttls_tls13", "starttls.requested", 2, "starttls.requested"),
        ("starttls_tls13", "starttls.codes", [454], "starttls.codes"),
        ("starttls_tls13", "channel", "cleartext", "channel"),
        ("starttls_tls13", "bytes.encrypted", 1, "bytes.encrypted"),
        ("starttls_tls13", "tls", None, "tls"),
        ("starttls_tls13", "tls.version", "TLSv1.2", "tls.version"),
        ("starttls_tls13", "tls.cipher", "TLS_CHACHA20_POLY1305_SHA256", "tls.cipher"),
        ("starttls_tls13", "tls.sni", "other.test", "tls.sni"),
        ("starttls_tls13", "tls.ja4", "t13d301000_000000000000_000000000000", "tls.ja4"),
    ],
)
def test_a_wrong_record_is_noticed(capture: str, path: str, wrong: object, fact: str) -> None:
    if fact == "tls.ja4" and not ask_tshark.knows_ja4():
        pytest.skip("tshark before 4.2 knows no JA4")
    *names, last = path.split(".")
    pair = next(pair for pair in both(capture)[0] if _has(pair.record, names))
    record = copy.deepcopy(pair.record)
    _inner(record, names)[last] = wrong
    found = {difference.fact.name for difference in pair._replace(record=record).differences()}
    assert fact in found


def _inner(record: Any, names: list[str]) -> Any:
    for name in names:
        record = record[int(name) if name.isdecimal() else name]
    return record


def _has(record: Any, names: list[str]) -> bool:
    try:
        return bool(_inner(record, names))
    except (IndexError, TypeError):
        return False
