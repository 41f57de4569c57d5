"""Writes a session's truth down as it happens: a client tells it each command with the reply that it got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.lab.truth import LOST, NO_TLS, DataTruth, Endpoint, SessionTruth, TransactionTruth

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


def keywords_of(lines: Sequence[str]) -> frozenset[str]:
    """The extensions that an EHLO reply, given as lines without their codes, offers after its first line."""
    return frozenset(line.split()[0].upper() for line in lines[1:] if line.strip())


class Chronicle:
    """All methods but those about TLS itself are about what went in clear; inside TLS they write nothing."""

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
        self._auth: list[tuple[str, int]] = []
        self._transactions: list[_Transaction] = []
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

    def banner(self, code: int, text: str) -> None:
        if not self._established:
            self._banner = code, text

    def helo(self, verb: str, name: str, code: int, keywords: frozenset[str]) -> None:
        if self._established:
            return
        self._end_transaction("aborted")
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
        self._end_transaction("aborted")
        self._established = True
        self._tls = version, cipher

    def auth(self, mechanism: str, code: int) -> None:
        if not self._established:
            self._auth.append((mechanism, code))
            if self.anomalies is not None:
                self.anomalies.add("cleartext_auth")

    def mail(self, address: str, code: int) -> None:
        if self._established:
            return
        self._end_transaction("aborted")
        self._transactions.append(_Transaction(address, code))
        if code >= 400:
            self._transactions[-1].outcome = "rejected"

    def recipient(self, address: str, code: int) -> None:
        if not self._established:
            self._transactions[-1].recipients.append((address, code))

    def data(self, verb: str, wire_bytes: int | None, code: int) -> None:
        """The end of the message and its reply; or the refusal of it, with no bytes."""
        if self._established:
            return
        transaction = self._transactions[-1]
        transaction.data = DataTruth(verb, wire_bytes, code)
        if code != LOST:
            transaction.outcome = "accepted" if code in _SUCCESS else "rejected"

    def reset(self) -> None:
        """RSET was answered."""
        if not self._established:
            self._end_transaction("aborted")

    def end(self, how: str) -> None:
        """`how`: a value of the record's `ended`, as seen by the client."""
        self._end_transaction("unknown" if how == "capture_ended" else "aborted")
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
            auth=tuple(self._auth),
            transactions=tuple(
                TransactionTruth(one.mail_from, one.mail_code, tuple(one.recipients), one.data, one.outcome)
                for one in self._transactions
            ),
            client_bytes=self.client_bytes,
            server_bytes=self.server_bytes,
            ended=self._ended,
            anomalies=None if self.anomalies is None else frozenset(self.anomalies),
        )

    def _end_transaction(self, outcome: str) -> None:
        if not self._transactions or self._transactions[-1].outcome is not None:
            return
        transaction = self._transactions[-1]
        refused = [code >= 400 for _, code in transaction.recipients]
        transaction.outcome = "rejected" if refused and all(refused) else outcome

    def _channel(self) -> str:
        if not self._hello_sent:
            return "cleartext"
        return "starttls" if self._starttls else "implicit_tls"

    def _envelope(self) -> str:
        if self._transactions:
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
