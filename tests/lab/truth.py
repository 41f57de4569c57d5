"""What somebody who took part in a session knows of it: a client of what it did and was answered, a server of
what it logged. Nothing here was read out of a packet.

A field that is None is not known and not compared. Where the record itself has a null, the truth says so with
a value: `NO_TLS`, `""` for no server name.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

Endpoint = tuple[str, int]
"""Address and port."""

NO_TLS: Final = "no TLS"
"""As `SessionTruth.tls_version`: no hello was sent."""
COUNTED_COMMANDS: Final = ("ehlo", "helo", "starttls", "auth", "mail", "rcpt", "data")
"""What servers count that a record shows."""
ANY_PORT: Final = 0
"""As the client's port: the log doesn't name it."""
LOST: Final = -1
"""As a reply code: the client sent the command and saw no reply; the record has null."""


@dataclass(frozen=True, slots=True)
class DataTruth:
    verb: str
    wire_bytes: int | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True)
class TransactionTruth:
    mail_from: str
    mail_code: int | None = None
    recipients: tuple[tuple[str, int | None], ...] | None = None
    """Addresses with reply codes, in order."""
    data: DataTruth | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class MessageTruth:
    """A message that was accepted: its sender, and the recipients that it was accepted for."""

    mail_from: str
    recipients: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InsideTruth:
    """What went on inside TLS; the fields are those of `SessionTruth`."""

    auth: tuple[tuple[str, int | None], ...] | None = None
    transactions: tuple[TransactionTruth, ...] | None = None
    messages: tuple[MessageTruth, ...] | None = None
    refused_recipients: Counter[tuple[str, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTruth:
    witness: str
    """Who says so: for the message of a failed test."""
    client: Endpoint
    server: Endpoint
    direction: str | None = None
    proxied_client: Endpoint | None = None
    channel: str | None = None
    envelope: str | None = None
    banner: tuple[int, str] | None = None
    """Code, and text without it."""
    helo: tuple[tuple[str, str, int | None], ...] | None = None
    """Verb, name, code: in clear."""
    starttls_offered: bool | None = None
    starttls_codes: tuple[int, ...] | None = None
    starttls_outcome: frozenset[str] | None = None
    """One of these: a server's log doesn't tell a failed handshake from one never begun."""
    tls_version: str | None = None
    tls_cipher: str | None = None
    tls_sni: str | None = None
    auth: tuple[tuple[str, int | None], ...] | None = None
    """Mechanisms and final codes: in clear."""
    transactions: tuple[TransactionTruth, ...] | None = None
    """Those in clear."""
    inside: InsideTruth | None = None
    """Only a tap of the server's TLS library can tell of it: see `compare.differences_inside`."""
    messages: tuple[MessageTruth, ...] | None = None
    """Those accepted in clear, in order: for a log that doesn't list every command."""
    refused_recipients: Counter[tuple[str, int]] | None = None
    """Addresses and codes, in clear."""
    commands: Counter[str] | None = None
    """How many commands came in clear, accepted or not, of those `COUNTED_COMMANDS` that it names."""
    client_bytes: int | None = None
    server_bytes: int | None = None
    ended: frozenset[str] | None = None
    anomalies: frozenset[str] | None = None
    """All that the session deserves; a missing and an invented one are both wrong."""

    @property
    def key(self) -> tuple[Endpoint, Endpoint]:
        return self.client, self.server
