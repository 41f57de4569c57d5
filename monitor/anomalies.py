"""The closed list of anomalies: one name, one rule, one line in docs/anomalies.md."""

from enum import StrEnum
from typing import Final


class Anomaly(StrEnum):
    """Things a session did that a well-behaved one does not."""

    CLEARTEXT_AUTH = "cleartext_auth"
    """AUTH was sent in clear."""
    STARTTLS_MASKED = "starttls_masked"
    """A keyword in the EHLO reply was overwritten in flight, as XXXXXXXA, or the client's STARTTLS was."""
    STARTTLS_INJECTION = "starttls_injection"
    """Client bytes after STARTTLS, sent before its 220 was heard (CVE-2011-0411)."""
    RESPONSE_INJECTION = "response_injection"
    """Server bytes after the 220, before its ServerHello (CVE-2021-38371)."""
    CLEARTEXT_AFTER_TLS = "cleartext_after_tls"
    """Clear text on a connection whose encryption was established."""
    TLS_WITHOUT_STARTTLS = "tls_without_starttls"
    """TLS bytes from the client on a port other than 465, with no STARTTLS before them."""
    BARE_LF = "bare_lf"
    """A command line, or the end of a body, with a line feed that no carriage return precedes."""
    UNAUTHORIZED_PIPELINING = "unauthorized_pipelining"
    """A command sent before the reply to the one before it, where RFC 2920 does not allow that."""
    EARLY_TALKER = "early_talker"
    """A command sent before the banner was heard."""
    LINE_TOO_LONG = "line_too_long"
    """A command or reply line over the limits of RFC 5321 section 4.5.3.1 and its extensions."""
    REPLY_MISMATCH = "reply_mismatch"
    """A reply that answers no command, or cannot be the answer to the command whose turn it was."""
    LIST_OVERFLOW = "list_overflow"
    """More transactions, recipients, AUTHs or HELOs than a record holds; those over the bound are counted
    in nothing but this."""


NO_ANOMALIES: Final[frozenset[Anomaly]] = frozenset()
"""One for all: Python makes each empty set anew, of 216 bytes."""
