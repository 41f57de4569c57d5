"""Plain integers, counted from finished records. The collector and the report both read them.

The capture thread counts while another thread serves a scrape. One lock makes each record count whole or not
at all, so the sums of a scrape agree with each other. It is taken once a session, not once a packet.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from threading import Lock
from typing import Final

from monitor.metrics.countries import CountrySlots
from monitor.metrics.labels import (
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
from monitor.sessions.record import Direction, Ended, Envelope, SessionRecord, StarttlsOutcome, Tapped

# Enum members are strings, and stand as they are for the values of labels: equal, and with the same hash.
_REPLY_CLASSES: Final = {2: ReplyClass.POSITIVE, 4: ReplyClass.TRANSIENT, 5: ReplyClass.PERMANENT}
_NO_REPLY: Final = ReplyClass.NONE
_OTHER_REPLY: Final = ReplyClass.OTHER
_CLEARTEXT: Final = Visibility.CLEARTEXT
_ENCRYPTED: Final = Visibility.ENCRYPTED
_ESTABLISHED: Final = StarttlsOutcome.ESTABLISHED
_ENCRYPTED_ENVELOPES: Final = frozenset({Envelope.HIDDEN, Envelope.PARTIAL})
_ENDED_INCOMPLETE: Final = {
    Ended.IDLE: IncompleteReason.IDLE,
    Ended.EVICTED: IncompleteReason.EVICTED,
    Ended.CAPTURE_ENDED: IncompleteReason.CAPTURE_ENDED,
}

Counted = Counter[tuple[str, ...]]
"""By label values, in the order of its family's labels."""


class Counts:
    """All that is counted of records. What is not in a Counter was not seen."""

    def __init__(self) -> None:
        self.sessions: Counted = Counter()
        self.starttls: Counted = Counter()
        self.tls_handshakes: Counted = Counter()
        self.messages: Counted = Counter()
        self.recipients: Counted = Counter()
        self.auth: Counted = Counter()
        self.null_sender_messages: Counted = Counter()
        self.tapped_sessions: Counted = Counter()
        self.tapped_messages: Counted = Counter()
        self.tapped_recipients: Counted = Counter()
        self.tapped_auth: Counted = Counter()
        self.verdict_mismatches = 0
        self.bytes: Counted = Counter()
        self.anomalies: Counted = Counter()
        self.greylister_sessions: Counted = Counter()
        self.greylister_messages: Counted = Counter()
        self.greylister_recipients: Counted = Counter()
        self.country_sessions: Counted = Counter()
        self.sessions_incomplete: Counted = Counter()
        self.records: Counted = Counter()
        self.duration_buckets = [0] * (len(DURATION_BUCKETS_SECONDS) + 1)
        """Sessions of each bucket alone, not cumulative; the last is for all that took longer."""
        self.duration_seconds_sum = 0.0

    def copy(self) -> "Counts":
        counts = Counts()
        counts.sessions = self.sessions.copy()
        counts.starttls = self.starttls.copy()
        counts.tls_handshakes = self.tls_handshakes.copy()
        counts.messages = self.messages.copy()
        counts.recipients = self.recipients.copy()
        counts.auth = self.auth.copy()
        counts.null_sender_messages = self.null_sender_messages.copy()
        counts.tapped_sessions = self.tapped_sessions.copy()
        counts.tapped_messages = self.tapped_messages.copy()
        counts.tapped_recipients = self.tapped_recipients.copy()
        counts.tapped_auth = self.tapped_auth.copy()
        counts.verdict_mismatches = self.verdict_mismatches
        counts.bytes = self.bytes.copy()
        counts.anomalies = self.anomalies.copy()
        counts.greylister_sessions = self.greylister_sessions.copy()
        counts.greylister_messages = self.greylister_messages.copy()
        counts.greylister_recipients = self.greylister_recipients.copy()
        counts.country_sessions = self.country_sessions.copy()
        counts.sessions_incomplete = self.sessions_incomplete.copy()
        counts.records = self.records.copy()
        counts.duration_buckets = self.duration_buckets.copy()
        counts.duration_seconds_sum = self.duration_seconds_sum
        return counts


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
                self._counts.records[RecordResult.WRITTEN if written else RecordResult.FAILED,] += 1

    def verdict_mismatch(self) -> None:
        """Of a session the packets tell one thing, and what was inside TLS another."""
        with self._lock:
            self._counts.verdict_mismatches += 1

    def snapshot(self) -> Counts:
        """A copy that no longer changes."""
        with self._lock:
            return self._counts.copy()

    def _count(self, record: SessionRecord) -> None:
        counts = self._counts
        port = self._port_labels.get(record.server.port, OTHER)
        direction, envelope, outcome = record.direction, record.envelope, record.starttls.outcome
        counts.sessions[port, direction, record.channel, envelope] += 1
        counts.starttls[port, direction, outcome] += 1
        # The record says that encryption was established in one of two ways: the envelope where the whole
        # session was seen, the outcome of STARTTLS where a gap before it leaves the envelope unknown.
        if envelope in _ENCRYPTED_ENVELOPES or outcome is _ESTABLISHED:
            tls = record.tls
            version = (tls.version if tls is not None else None) or UNKNOWN
            counts.tls_handshakes[port, _fold(version, TLS_VERSIONS)] += 1
        transactions = record.transactions
        recipients = 0
        for transaction in transactions:
            counts.messages[port, transaction.outcome] += 1
            if transaction.mail_from == "":
                counts.null_sender_messages[port, _CLEARTEXT] += 1
            recipients += len(transaction.recipients)
            for recipient in transaction.recipients:
                counts.recipients[port, _reply_class(recipient.code)] += 1
        for auth in record.auth:
            counts.auth[port, _fold(auth.mechanism, AUTH_MECHANISMS)] += 1
        if record.tapped is not None:
            self._count_tapped(port, record.direction, record.tapped)
        of_bytes = record.bytes
        counts.bytes[port, _CLEARTEXT] += of_bytes.cleartext
        counts.bytes[port, _ENCRYPTED] += of_bytes.encrypted
        for anomaly in record.anomalies:
            counts.anomalies[anomaly,] += 1
        for greylister, found in record.greylisters.items():
            labels = reach_labels(greylister, found)
            counts.greylister_sessions[labels] += 1
            if transactions:
                counts.greylister_messages[labels] += len(transactions)
                counts.greylister_recipients[labels] += recipients
        if self._countries is not None:
            self._count_country(self._countries, record)
        self._count_incomplete(record)
        duration_seconds = record.duration_seconds
        counts.duration_buckets[bisect_left(DURATION_BUCKETS_SECONDS, duration_seconds)] += 1
        counts.duration_seconds_sum += duration_seconds

    def _count_tapped(self, port: str, direction: Direction, tapped: Tapped) -> None:
        counts = self._counts
        counts.tapped_sessions[port, direction, tapped.result] += 1
        for transaction in tapped.transactions:
            counts.tapped_messages[port, transaction.outcome] += 1
            if transaction.mail_from == "":
                counts.null_sender_messages[port, _ENCRYPTED] += 1
            for recipient in transaction.recipients:
                counts.tapped_recipients[port, _reply_class(recipient.code)] += 1
        for auth in tapped.auth:
            counts.tapped_auth[port, _fold(auth.mechanism, AUTH_MECHANISMS)] += 1

    def _count_incomplete(self, record: SessionRecord) -> None:
        incomplete, capture = self._counts.sessions_incomplete, record.capture
        if capture.gap_bytes:
            incomplete[IncompleteReason.GAP,] += 1
        if capture.midstream:
            incomplete[IncompleteReason.MIDSTREAM,] += 1
        if capture.truncated:
            incomplete[IncompleteReason.TRUNCATED,] += 1
        reason = _ENDED_INCOMPLETE.get(record.ended)
        if reason is not None:
            incomplete[reason,] += 1

    def _count_country(self, countries: CountrySlots, record: SessionRecord) -> None:
        location = record.client_location
        country = countries.label(location.country if location is not None else None)
        if (country, Envelope.UNKNOWN) not in self._counts.country_sessions:
            self._show_countries()
        self._counts.country_sessions[country, record.envelope] += 1

    def _show_countries(self) -> None:
        """Every country that has a label is there at zero, like the children of a closed set."""
        for country in self._countries.known if self._countries is not None else ():
            for envelope in Envelope:
                self._counts.country_sessions[country, envelope] += 0


def _fold(value: str, closed_set: Collection[str]) -> str:
    return value if value in closed_set else OTHER


def _reply_class(code: int | None) -> str:
    return _NO_REPLY if code is None else _REPLY_CLASSES.get(code // 100, _OTHER_REPLY)
