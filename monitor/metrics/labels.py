"""The closed sets of label values that are the metrics' own, for who counts and for who tells.

The others are those of the record, of peers, of the simulation and of probes. They are apart from the
families, because a `read` that prints no metrics needs none of those.
"""

from enum import StrEnum
from typing import Final

from monitor.sessions.record import GreylisterReach
from monitor.smtp.grammar import SASL_MECHANISMS

OTHER: Final = "other"
"""What every value outside a closed set folds into."""

UNKNOWN: Final = "unknown"
"""Not captured."""

NONE: Final = "none"
"""Stands where a record has null."""

TLS_VERSIONS: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3", UNKNOWN, OTHER)

AUTH_MECHANISMS: Final = (*SASL_MECHANISMS, OTHER)

DURATION_BUCKETS_SECONDS: Final = (
    # From a scan over a session on a good line to a tarpitted one; 300 and 600 are the longest time-outs of
    # RFC 5321 section 4.5.3.2, and an hour is a session that was kept open.
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    600.0,
    3600.0,
)


class Confinement(StrEnum):
    """What `watch` gave up before it read a packet."""

    USER = "user"
    """It is not root."""
    CAPABILITIES = "capabilities"
    """It has none."""
    SYSTEM_CALLS = "system_calls"
    """A filter is on them."""


class ReplyClass(StrEnum):
    """What was answered, by the reply's first digit (RFC 5321 section 4.2.1)."""

    POSITIVE = "2xx"
    TRANSIENT = "4xx"
    PERMANENT = "5xx"
    NONE = "none"
    """No reply was seen."""
    OTHER = OTHER


class Visibility(StrEnum):
    """Whether somebody who reads the stream can read the byte."""

    CLEARTEXT = "cleartext"
    ENCRYPTED = "encrypted"


class IncompleteReason(StrEnum):
    """Why a session was not seen whole. A session counts under each reason that it has."""

    GAP = "gap"
    """Bytes in its middle were not captured."""
    MIDSTREAM = "midstream"
    """Its beginning was not captured."""
    TRUNCATED = "truncated"
    """The capture cut its packets short."""
    IDLE = "idle"
    """Nothing was seen of it for so long that it was given up."""
    EVICTED = "evicted"
    """The table of open sessions was full."""
    CAPTURE_ENDED = "capture_ended"
    """It was open when the capture ended."""


class RecordResult(StrEnum):
    """What became of a session's record; where none was asked for, it is counted as neither."""

    WRITTEN = "written"
    FAILED = "failed"


def reach_labels(greylister: str, found: GreylisterReach) -> tuple[str, str, str]:
    return greylister, found.reach, found.by or NONE
