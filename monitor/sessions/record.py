"""The session record: one TCP connection on a watched port, as it is written and counted.

Field names, types and meanings are the public interface (docs/record.md). Records are frozen, and made of
plain values only, in the order in which they stand in the JSON.

`gc=False`: nothing in a record can lead back to it, so Python's collector need not look at them.
"""

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from msgspec import Struct

from monitor.anomalies import Anomaly

SCHEMA_VERSION: Final = 1

_SECONDS_LENGTH: Final = len("2026-11-22T12:00:00")


class Direction(StrEnum):
    """Whose delivery this is, by the addresses that are ours."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"
    UNKNOWN = "unknown"


class Channel(StrEnum):
    """What carried the session."""

    CLEARTEXT = "cleartext"
    STARTTLS = "starttls"
    IMPLICIT_TLS = "implicit_tls"
    UNKNOWN = "unknown"


class Envelope(StrEnum):
    """Could somebody reading this byte stream see the envelope?"""

    VISIBLE = "visible"
    """At least one MAIL in clear, and encryption never established."""
    PARTIAL = "partial"
    """A MAIL in clear, and encryption established afterwards."""
    HIDDEN = "hidden"
    """Encryption established with no MAIL before it."""
    NONE = "none"
    """Encryption never established, and no MAIL at all."""
    UNKNOWN = "unknown"
    """The bytes that would decide it were not captured."""


class StarttlsOutcome(StrEnum):
    """How far STARTTLS came."""

    NOT_REACHED = "not_reached"
    NOT_OFFERED = "not_offered"
    MASKED = "masked"
    UNUSED = "unused"
    REFUSED = "refused"
    ESTABLISHED = "established"
    FAILED = "failed"
    ABANDONED = "abandoned"
    UNKNOWN = "unknown"


class TransactionOutcome(StrEnum):
    """How a mail transaction in clear ended."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    """The reply or the end that would decide it was not captured."""


class Reach(StrEnum):
    """What a program that watches the stream beside the server could do with the session."""

    DECIDED = "decided"
    """Nothing kept it from reading the envelope and deciding on it."""
    BYPASSED = "bypassed"
    """It stopped watching before it could decide, and let everything pass."""
    BLIND = "blind"
    """It had nothing to read but ciphertext."""
    STALLED = "stalled"
    """It met what it cannot read, and held the session up."""
    NO_ENVELOPE = "no_envelope"
    """It could read all, and there was nothing to decide on."""
    UNKNOWN = "unknown"
    """What would tell was not captured, or is not to be seen from where we stand."""


class By(StrEnum):
    """What took the session out of its reach."""

    STARTTLS = "starttls"
    AUTH = "auth"
    DATA = "data"
    IMPLICIT_TLS = "implicit_tls"


class Ended(StrEnum):
    """What ended the session."""

    QUIT = "quit"
    CLIENT_CLOSED = "client_closed"
    SERVER_CLOSED = "server_closed"
    RESET = "reset"
    IDLE = "idle"
    EVICTED = "evicted"
    CAPTURE_ENDED = "capture_ended"


class Endpoint(Struct, frozen=True, gc=False):
    ip: str
    port: int


class Banner(Struct, frozen=True, gc=False):
    code: int
    text: str
    """Without the code; the lines of a multi-line banner are joined by a line feed."""


class Helo(Struct, frozen=True, gc=False):
    verb: str
    """HELO, EHLO or LHLO."""
    name: str
    code: int | None


class Starttls(Struct, frozen=True, gc=False):
    offered: bool | None
    """By the answers to EHLO in clear; None where none was seen whole."""
    requested: int
    codes: tuple[int | None, ...]
    outcome: StarttlsOutcome


class Tls(Struct, frozen=True, gc=False):
    """From the two hello messages; None where that hello was not seen."""

    version: str | None
    """SSLv2, SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3: OpenSSL's names, as mail logs show them."""
    cipher: str | None
    """OpenSSL's name of the cipher suite; the IANA name where OpenSSL has none; `0x1234` where neither
    has."""
    sni: str | None
    alpn: str | None
    """The first protocol that the client offered; what the server chose is encrypted in TLS 1.3."""
    ja4: str | None


class Auth(Struct, frozen=True, gc=False):
    """An AUTH in clear. The mechanism and the last reply; never an argument, response or password."""

    mechanism: str
    code: int | None


class Recipient(Struct, frozen=True, gc=False):
    address: str | None
    """None where the RCPT line was not captured whole."""
    code: int | None
    params: dict[str, str | None]
    after_seconds: float | None
    """From the session's first packet to the reply; None where none was seen."""


class Data(Struct, frozen=True, gc=False):
    verb: str
    """DATA or BDAT."""
    wire_bytes: int | None
    """DATA: from the byte after the DATA line to the end of the `.` CRLF line, both included. BDAT: the sum
    of the chunk sizes. None where the end was not captured."""
    code: int | None
    """The final reply."""


class Transaction(Struct, frozen=True, gc=False):
    mail_from: str | None
    """"" for the null sender; None where the MAIL line was not captured whole."""
    mail_code: int | None
    mail_params: dict[str, str | None]
    recipients: tuple[Recipient, ...]
    data: Data | None
    outcome: TransactionOutcome


class ByteCounts(Struct, frozen=True, gc=False):
    """TCP payload, by sequence numbers; client + server = cleartext + encrypted."""

    client: int
    server: int
    cleartext: int
    encrypted: int
    """Inside TLS records, the handshake's included."""


class OpaqueFrom(Struct, frozen=True, gc=False):
    """The first byte of each side that is TLS's, counted from 0; None where that was not captured."""

    client: int | None
    server: int | None


class GreylisterReach(Struct, frozen=True, gc=False):
    """How far one program's sight reaches into the session."""

    reach: Reach
    by: By | None = None


class Location(Struct, frozen=True, gc=False):
    """Where the client's address is, by the operator's own database."""

    country: str | None
    """ISO 3166-1 alpha-2."""
    asn: int | None
    as_organization: str | None


class TapResult(StrEnum):
    """How well the session was seen inside TLS, on the server's machine."""

    WHOLE = "whole"
    """From the end of the TLS handshake to the end."""
    PARTIAL = "partial"
    """Something is missing: the beginning, the end, or what was lost between. What is listed was seen."""
    UNSURE = "unsure"
    """What was seen may belong to another session, so nothing is listed."""
    MISSED = "missed"
    """The session was encrypted, and nothing was seen of it: its server is on another machine, or its TLS
    library is none that can be tapped, or there was no more room."""


class Tapped(Struct, frozen=True, gc=False):
    """What the server decrypted."""

    result: TapResult
    transactions: tuple[Transaction, ...] = ()
    auth: tuple[Auth, ...] = ()


class Capture(Struct, frozen=True, gc=False):
    """How well the session was seen."""

    complete: bool
    gap_bytes: int
    midstream: bool
    truncated: bool


class SessionRecord(Struct, frozen=True, gc=False):
    schema_version: int
    community_id: str
    start: str
    """RFC 3339, UTC, microseconds: the first packet."""
    end: str
    """The last packet."""
    client: Endpoint
    server: Endpoint
    direction: Direction
    proxied_client: Endpoint | None
    channel: Channel
    envelope: Envelope
    banner: Banner | None
    helo: tuple[Helo, ...]
    starttls: Starttls
    tls: Tls | None
    auth: tuple[Auth, ...]
    transactions: tuple[Transaction, ...]
    bytes: ByteCounts
    ended: Ended
    capture: Capture
    anomalies: tuple[Anomaly, ...]
    duration_seconds: float
    """From the first packet to the last."""
    opaque_from: OpaqueFrom | None
    """None where neither side sent TLS."""
    greylisters: dict[str, GreylisterReach]
    """By the program's name; empty for an outbound session, which passes no greylister of ours."""
    client_location: Location | None
    """Of the proxied client where there is one; None where no database knows the address."""
    tapped: Tapped | None
    """None where no tap runs, and where the session was never encrypted."""

    @property
    def real_client(self) -> Endpoint:
        """Who the mail server takes for the client."""
        return self.proxied_client or self.client


def epoch_us(moment: str) -> int:
    """A record's `start` or `end`, as microseconds since the epoch."""
    return _whole_seconds(moment[:_SECONDS_LENGTH]) * 1_000_000 + int(moment[_SECONDS_LENGTH + 1 : -1])


@lru_cache(maxsize=8)
def _whole_seconds(moment: str) -> int:
    """Sessions that end together begin and end in the same few seconds."""
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())
