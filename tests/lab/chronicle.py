"""Writes a session's truth down as it happens: a client tells it each command with the reply that it got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.lab.truth import (
    LOST,
    NO_TLS,
    DataTruth,
    Endpoint,
    InsideTruth,
    SessionTruth,
    TransactionTruth,
)

_SUCCESS: Final = range(200, 300)
# Inside TLS a reader from outside sees no QUIT, only who closed; and after a failed handshake both sides
# close at once, so that neither knows who was first.
_CLOSED_IN_TLS: Final = frozenset({"client_closed", "server_closed", "reset"})


@dataclass(slots=True)
class _Transaction:
    mail_from: str
    mail_code: int
    recipients: list[tuple[str, int]] = field(default_factory=list)
    data: DataTruth | None = None
    outcome: str | None = None
    """None: under way."""

    def end(self, outcome: str) -> None:
        """Nothing more comes of it: `outcome`, unless it has one already, or was refused as a whole."""
        if self.outcome is None:
            refused = [code >= 400 for _, code in self.recipients]
            self.outcome = "rejected" if refused and all(refused) else outcome

    def truth(self) -> TransactionTruth:
        return TransactionTruth(
            self.mail_from, self.mail_code, tuple(self.recipients), self.data, self.outcome
        )


@dataclass(slots=True)
class _Book:
    """What was said in clear, or inside TLS."""

    auth: list[tuple[str, int]] = field(default_factory=list)
    transactions: list[_Transaction] = field(default_factory=list)

    @property
    def transaction(self) -> _Transaction:
        """The one under way, else the last: a MAIL that is refused on the way ends nothing."""
        under_way = (one for one in reversed(self.transactions) if one.outcome is None)
        return next(under_way, self.transactions[-1])

    def end_transaction(self, outcome: str) -> None:
        if self.transactions:
            self.transaction.end(outcome)

    def truth(self) -> InsideTruth:
        return InsideTruth(transactions=self.truths(), auth=tuple(self.auth))

    def truths(self) -> tuple[TransactionTruth, ...]:
        return tuple(transaction.truth() for transaction in self.transactions)


def keywords_of(lines: Sequence[str]) -> frozenset[str]:
    """The extensions that an EHLO reply, given as lines without their codes, offers after its first line."""
    return frozenset(line.split()[0].upper() for line in lines[1:] if line.strip())


class Chronicle:
    """Of what went inside TLS, AUTHs and transactions are written down; and apart from those in clear."""

    def __init__(
        self, witness: str, client: Endpoint, server: Endpoint, *, direction: str = "inbound"
    ) -> None:
        self._witness = witness
        self._client = client
        self._server = server
        self._direction = direction
        self._banner: tuple[int, str] | None = None
        self._helo: list[tuple[str, str, int]] = []
        self._offers: list[bool] = []
        self._starttls: list[int] = []
        self._clear, self._inside = _Book(), _Book()
        self._hello_sent = False
        self._established = False
        self._tls: tuple[str, str] | None = None
        self._sni: str | None = None
        self._ended: frozenset[str] | None = None
        self.proxied_client: Endpoint | None = None
        self.client_bytes: int | None = None
        self.server_bytes: int | None = None
        self.anomalies: set[str] | None = set()
        """None: not known."""

    @property
    def _book(self) -> _Book:
        """The one that is open."""
        return self._inside if self._established else self._clear

    def banner(self, code: int, text: str) -> None:
        if not self._established:
            self._banner = code, text

    def helo(self, verb: str, name: str, code: int, keywords: frozenset[str]) -> None:
        if code in _SUCCESS:  # OpenSMTPD refuses a second one, and goes on with what there is
            self._book.end_transaction("aborted")
        if self._established:
            return
        self._helo.append((verb, name, code))
        if verb == "EHLO" and code in _SUCCESS:
            self._offers.append("STARTTLS" in keywords)

    def starttls(self, code: int) -> None:
        if not self._established:
            self._starttls.append(code)

    def hello_sent(self, sni: str) -> None:
        """The client's first TLS bytes are on their way."""
        self._hello_sent = True
        self._sni = sni

    def tls_established(self, version: str, cipher: str) -> None:
        self._book.end_transaction("aborted")
        self._established = True
        self._tls = version, cipher

    def auth(self, mechanism: str, code: int) -> None:
        self._book.auth.append((mechanism, code))
        if not self._established and self.anomalies is not None:
            self.anomalies.add("cleartext_auth")

    def mail(self, address: str, code: int) -> None:
        if code in _SUCCESS:
            self._book.end_transaction("aborted")
        self._book.transactions.append(_Transaction(address, code))
        if code >= 400:
            self._book.transactions[-1].outcome = "rejected"

    def recipient(self, address: str, code: int) -> None:
        self._book.transaction.recipients.append((address, code))

    def data(self, verb: str, wire_bytes: int | None, code: int) -> None:
        """The end of the message and its reply; or the refusal of it, with no bytes: of that a record has the
        outcome alone."""
        transaction = self._book.transaction
        if wire_bytes is not None or code == LOST:
            transaction.data = DataTruth(verb, wire_bytes, code)
        if code != LOST:
            transaction.outcome = "accepted" if code in _SUCCESS else "rejected"

    def reset(self) -> None:
        """RSET was answered."""
        self._book.end_transaction("aborted")

    def end(self, how: str) -> None:
        """`how`: a value of the record's `ended`, as seen by the client."""
        self._book.end_transaction("unknown" if how == "capture_ended" else "aborted")
        if self._hello_sent and how != "reset":
            self._ended = _CLOSED_IN_TLS
        else:
            self._ended = frozenset({how})

    def truth(self) -> SessionTruth:
        answered = any(verb == "EHLO" and code in _SUCCESS for verb, _, code in self._helo)
        failed = self._hello_sent and not self._established
        return SessionTruth(
            witness=self._witness,
            client=self._client,
            server=self._server,
            direction=self._direction,
            proxied_client=self.proxied_client,
            channel=self._channel(),
            envelope=self._envelope(),
            banner=self._banner,
            helo=tuple(self._helo),
            starttls_offered=self._offers[-1] if answered else None,
            starttls_codes=tuple(self._starttls),
            starttls_outcome=frozenset({self._starttls_outcome(answered=answered)}),
            tls_version=None if failed else self._tls[0] if self._tls else NO_TLS,
            tls_cipher=self._tls[1] if self._tls else None,
            tls_sni=self._sni,
            auth=tuple(self._clear.auth),
            transactions=self._clear.truths(),
            inside=InsideTruth(transactions=self._inside.truths(), auth=tuple(self._inside.auth))
            if self._established
            else None,
            client_bytes=self.client_bytes,
            server_bytes=self.server_bytes,
            ended=self._ended,
            anomalies=None if self.anomalies is None else frozenset(self.anomalies),
        )

    def _channel(self) -> str:
        if not self._hello_sent:
            return "cleartext"
        return "starttls" if self._starttls else "implicit_tls"

    def _envelope(self) -> str:
        if self._clear.transactions:
            return "partial" if self._established else "visible"
        return "hidden" if self._established else "none"

    def _starttls_outcome(self, *, answered: bool) -> str:
        if self._starttls and self._starttls[-1] in _SUCCESS:
            if self._established:
                return "established"
            return "failed" if self._hello_sent else "abandoned"
        if self._starttls:
            return "refused"
        if not answered:
            return "not_reached"
        return "unused" if self._offers[-1] else "not_offered"
