"""Plain integers, counted from finished records. The collector and the report both read them.

The capture thread counts while another thread serves a scrape. One lock makes each record count whole or not
at all, so the sums of a scrape agree with each other. It is taken once a session, not once a packet.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, field, fields
from threading import Lock
from typing import Final

from monitor.metrics.countries import CountrySlots
from monitor.metrics.families import (
    AUTH_MECHANISMS,
    DURATION_BUCKETS_SECONDS,
    OTHER,
    TLS_VERSIONS,
    UNKNOWN,
    IncompleteReason,
    RecordResult,
    ReplyClass,
    Visibility,
    reach_labels,
)
from monitor.sessions.record import Ended, Envelope, SessionRecord, StarttlsOutcome

_REPLY_CLASSES: Final = {2: ReplyClass.POSITIVE, 4: ReplyClass.TRANSIENT, 5: ReplyClass.PERMANENT}
_ENDED_INCOMPLETE: Final = {
    Ended.IDLE: IncompleteReason.IDLE,
    Ended.EVICTED: IncompleteReason.EVICTED,
    Ended.CAPTURE_ENDED: IncompleteReason.CAPTURE_ENDED,
}


@dataclass(slots=True)
class Counts:
    """Each Counter's keys are label values, in the order of its family's labels."""

    sessions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    starttls: Counter[tuple[str, ...]] = field(default_factory=Counter)
    tls_handshakes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    messages: Counter[tuple[str, ...]] = field(default_factory=Counter)
    recipients: Counter[tuple[str, ...]] = field(default_factory=Counter)
    auth: Counter[tuple[str, ...]] = field(default_factory=Counter)
    bytes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    anomalies: Counter[tuple[str, ...]] = field(default_factory=Counter)
    greylister_sessions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    greylister_messages: Counter[tuple[str, ...]] = field(default_factory=Counter)
    greylister_recipients: Counter[tuple[str, ...]] = field(default_factory=Counter)
    country_sessions: Counter[tuple[str, ...]] = field(default_factory=Counter)
    sessions_incomplete: Counter[tuple[str, ...]] = field(default_factory=Counter)
    records: Counter[tuple[str, ...]] = field(default_factory=Counter)
    duration_buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_SECONDS) + 1))
    """Sessions of each bucket alone, not cumulative; the last is for all that took longer."""
    duration_seconds_sum: float = 0.0


class Tally:
    """Counts records; safe to read from another thread.

    Memory is bounded by the closed sets of the labels, whatever the traffic is.
    """

    def __init__(self, ports: Collection[int], countries: CountrySlots | None = None) -> None:
        """`countries`: which have a label of their own; None where nobody knows where clients are."""
        self._port_labels = {port: str(port) for port in sorted(ports)}
        self._countries = countries
        self._counts = Counts()
        self._show_countries()
        self._lock = Lock()

    @property
    def ports(self) -> tuple[str, ...]:
        """The values of the label `port`."""
        return (*self._port_labels.values(), OTHER)

    def count(self, record: SessionRecord, written: bool | None = None) -> None:
        """Counts a session, and in the same breath whether its record could be written; None where nobody
        asked for records. So a scrape never sees more sessions than records, nor fewer."""
        with self._lock:
            self._count(record)
            if written is not None:
                self._counts.records[(RecordResult.WRITTEN if written else RecordResult.FAILED).value,] += 1

    def snapshot(self) -> Counts:
        """A copy that no longer changes."""
        with self._lock:
            return Counts(*[copy(getattr(self._counts, each.name)) for each in fields(Counts)])

    def _count(self, record: SessionRecord) -> None:
        counts = self._counts
        port = self._port_labels.get(record.server.port, OTHER)
        direction = record.direction.value
        counts.sessions[port, direction, record.channel.value, record.envelope.value] += 1
        counts.starttls[port, direction, record.starttls.outcome.value] += 1
        if _is_encryption_established(record):
            version = (record.tls.version if record.tls else None) or UNKNOWN
            counts.tls_handshakes[port, _fold(version, TLS_VERSIONS)] += 1
        for transaction in record.transactions:
            counts.messages[port, transaction.outcome.value] += 1
            for recipient in transaction.recipients:
                counts.recipients[port, _reply_class(recipient.code)] += 1
        for auth in record.auth:
            counts.auth[port, _fold(auth.mechanism, AUTH_MECHANISMS)] += 1
        counts.bytes[port, Visibility.CLEARTEXT.value] += record.bytes.cleartext
        counts.bytes[port, Visibility.ENCRYPTED.value] += record.bytes.encrypted
        for anomaly in record.anomalies:
            counts.anomalies[anomaly.value,] += 1
        recipients = sum(len(transaction.recipients) for transaction in record.transactions)
        for greylister, found in record.greylisters.items():
            labels = reach_labels(greylister, found)
            counts.greylister_sessions[labels] += 1
            counts.greylister_messages[labels] += len(record.transactions)
            counts.greylister_recipients[labels] += recipients
        if self._countries is not None:
            self._count_country(self._countries, record)
        for reason in _incomplete_reasons(record):
            counts.sessions_incomplete[reason.value,] += 1
        counts.duration_buckets[bisect_left(DURATION_BUCKETS_SECONDS, record.duration_seconds)] += 1
        counts.duration_seconds_sum += record.duration_seconds

    def _count_country(self, countries: CountrySlots, record: SessionRecord) -> None:
        location = record.client_location
        country = countries.label(location.country if location is not None else None)
        if (country, Envelope.UNKNOWN.value) not in self._counts.country_sessions:
            self._show_countries()
        self._counts.country_sessions[country, record.envelope.value] += 1

    def _show_countries(self) -> None:
        """Every country that has a label is there at zero, like the children of a closed set."""
        for country in self._countries.known if self._countries is not None else ():
            for envelope in Envelope:
                self._counts.country_sessions[country, envelope.value] += 0


def _is_encryption_established(record: SessionRecord) -> bool:
    """The record says it in one of two ways: the envelope where the whole session was seen, the outcome of
    STARTTLS where a gap before it leaves the envelope unknown."""
    return (
        record.envelope in (Envelope.HIDDEN, Envelope.PARTIAL)
        or record.starttls.outcome is StarttlsOutcome.ESTABLISHED
    )


def _fold(value: str, closed_set: Collection[str]) -> str:
    return value if value in closed_set else OTHER


def _reply_class(code: int | None) -> str:
    if code is None:
        return ReplyClass.NONE.value
    return _REPLY_CLASSES.get(code // 100, ReplyClass.OTHER).value


def _incomplete_reasons(record: SessionRecord) -> list[IncompleteReason]:
    reasons = []
    if record.capture.gap_bytes:
        reasons.append(IncompleteReason.GAP)
    if record.capture.midstream:
        reasons.append(IncompleteReason.MIDSTREAM)
    if record.capture.truncated:
        reasons.append(IncompleteReason.TRUNCATED)
    if record.ended in _ENDED_INCOMPLETE:
        reasons.append(_ENDED_INCOMPLETE[record.ended])
    return reasons
